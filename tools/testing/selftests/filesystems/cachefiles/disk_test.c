// SPDX-License-Identifier: GPL-2.0
/*
 * What is on the disk: names, extended attributes, content, and that a later
 * daemon finds there what an earlier one wrote, and nothing else.
 */
#include <sys/stat.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

FIXTURE(disk) {
	struct cf_env e;
	struct cf_blob b;
};

/* One object of 200 kB, or as many pages, with its first half present, withdrawn and committed. */
#define DISK_SIZE	(48 * CF_PAGE + 3393ULL)
#define DISK_HALF	(24ULL * CF_PAGE)

FIXTURE_SETUP(disk)
{
	char path[PATH_MAX];
	struct cf_msg m;

	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", DISK_SIZE));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, DISK_HALF, DISK_SIZE));
	close(self->b.fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(self->b.anon);
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, path), CF_SOON))
		TH_LOG("no %s", path);
}

FIXTURE_TEARDOWN(disk)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(disk, state_xattr_is_as_the_C_code_writes_it, 60)
{
	const uint8_t size_be[8] = {
		0, 0, 0, 0, DISK_SIZE >> 24, (DISK_SIZE >> 16) & 255, (DISK_SIZE >> 8) & 255,
		DISK_SIZE & 255,
	};
	static const uint8_t zero[8];
	char path[PATH_MAX];
	uint8_t x[64];

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	ASSERT_EQ(18, getxattr(path, "user.CacheFiles.cache", x, sizeof(x)));
	EXPECT_EQ(0, memcmp(x, size_be, 8)) TH_LOG("object_size, big endian");
	EXPECT_EQ(0, memcmp(x + 8, zero, 8)) TH_LOG("zero_point");
	EXPECT_EQ(1, x[16]) TH_LOG("type: data");
	/* anything but DIRTY (4), which the C code would throw away */
	EXPECT_LE(x[17], 3) TH_LOG("content");
}

TEST_F_TIMEOUT(disk, cache_file_is_as_long_as_the_object_in_whole_blocks, 60)
{
	char path[PATH_MAX];
	struct stat st;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ((DISK_SIZE + 4095) / 4096 * 4096, st.st_size);
}

TEST_F_TIMEOUT(disk, cache_file_holds_the_data_as_it_is, 60)
{
	char path[PATH_MAX], *buf = malloc(DISK_HALF);
	int fd;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(DISK_HALF, read(fd, buf, DISK_HALF));
	EXPECT_EQ(-1, cf_check("blob", 0, buf, DISK_HALF));
	EXPECT_EQ(DISK_HALF, lseek(fd, 0, SEEK_HOLE));
	free(buf);
}

TEST_F_TIMEOUT(disk, volume_has_its_xattr, 60)
{
	char path[PATH_MAX];
	uint8_t x[64];

	snprintf(path, sizeof(path), "%s/cache/Ierofs,%s", self->e.dir, self->e.domain);
	ASSERT_EQ(4, getxattr(path, "user.CacheFiles.cache", x, sizeof(x)))
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(0, x[0] | x[1] | x[2] | x[3]);
}

static int rebind(struct cf_env *e)
{
	cf_env_close(e);
	return cf_env_bind(e) ?: cf_env_mount(e);
}

TEST_F_TIMEOUT(disk, data_survives_unmount_and_mount, 60)
{
	struct cf_blob *b = &self->b;

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_no_readahead(b->fd);
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, DISK_HALF, DISK_HALF));
	EXPECT_FALSE(cf_readable(self->e.dev, 0)) TH_LOG("asked for what was there");
}

TEST_F_TIMEOUT(disk, data_survives_a_new_bind, 60)
{
	struct cf_blob *b = &self->b;

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_no_readahead(b->fd);
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, DISK_HALF, DISK_HALF));
	EXPECT_FALSE(cf_readable(self->e.dev, 0)) TH_LOG("asked for what was there");
}

TEST_F_TIMEOUT(disk, what_was_never_fetched_is_asked_for_after_a_new_bind, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_op *op;
	int reads = 0;

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, DISK_HALF - 4096, 8192);
	EXPECT_EQ(8192, cf_serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", DISK_HALF - 4096, op->buf, 8192));
	EXPECT_GT(reads, 0);
}

/* A block that was written in part is data to the file system; the rest of it is zero. */
TEST_F_TIMEOUT(disk, block_written_in_part_after_a_new_lookup, 60)
{
	bool asked = cf_intended("partial-block");
	static char part[512] __attribute__((aligned(4096)));
	struct cf_blob *b = &self->b;
	struct cf_op *op;
	struct cf_msg m;
	int reads = 0;

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_pattern("blob", DISK_HALF, part, sizeof(part));
	ASSERT_EQ(sizeof(part), cf_pwrite(b->anon, part, sizeof(part), DISK_HALF));
	close(b->fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(b->anon);

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, DISK_HALF, 4096);
	EXPECT_EQ(4096, cf_serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(asked, reads > 0);
	EXPECT_EQ(asked ? -1 : DISK_HALF + sizeof(part),
		  cf_check("blob", DISK_HALF, op->buf, 4096));
}

/* As after a crash, or a write-back that failed. */
TEST_F_TIMEOUT(disk, hole_that_came_about_is_asked_for_and_not_zeros, 60)
{
	struct cf_blob *b = &self->b;
	char path[PATH_MAX];
	struct cf_op *op;
	int fd, reads = 0;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	cf_env_close(&self->e);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096));
	close(fd);

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, 4096, 12288);
	EXPECT_EQ(12288, cf_serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", 4096, op->buf, 12288));
	EXPECT_EQ(1, reads);
}

/* A file that holds data where its list has none, as one of a file system that fills in blocks. */
TEST_F_TIMEOUT(disk, data_that_nobody_wrote, 60)
{
	bool asked = cf_intended("unwritten-data");
	struct cf_blob *b = &self->b;
	static char zeros[4096];
	char path[PATH_MAX];
	struct cf_op *op;
	int fd, reads = 0;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	cf_env_close(&self->e);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(4096, pwrite(fd, zeros, 4096, DISK_HALF + 4096));
	ASSERT_EQ(0, fsync(fd));
	close(fd);

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, DISK_HALF + 4096, 4096);
	EXPECT_EQ(4096, cf_serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(asked ? -1 : DISK_HALF + 4096,
		  cf_check("blob", DISK_HALF + 4096, op->buf, 4096));
	EXPECT_EQ(asked, reads);
}

TEST_F_TIMEOUT(disk, other_size_in_copen_discards_the_content, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_op *op;
	struct stat st;
	int reads = 0;

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE - 1));
	ASSERT_EQ(0, fstat(b->fd, &st));
	EXPECT_EQ(DISK_SIZE - 1, st.st_size);
	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, 0, 4096);
	EXPECT_EQ(4096, cf_serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, 4096));
	EXPECT_GT(reads, 0);
}

/* Not even if nothing was ever written to what came after it. */
TEST_F_TIMEOUT(disk, discarded_content_does_not_come_back, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_op *op;
	int reads = 0;

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE - 1));
	close(b->fd);
	close(b->anon);
	cf_env_close(&self->e);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, 0, 4096);
	EXPECT_EQ(4096, cf_serve_until_done(&self->e, b, op, &reads));
	EXPECT_GT(reads, 0);
}

/* What to do to the cache file behind the back of the cache. */
FIXTURE(stale) {
	struct cf_env e;
	struct cf_blob b;
	char path[PATH_MAX];
};

FIXTURE_SETUP(stale)
{
	struct cf_msg m;

	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", DISK_SIZE));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, DISK_HALF, DISK_SIZE));
	close(self->b.fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(self->b.anon);
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, self->path), CF_SOON));
	cf_env_close(&self->e);
}

FIXTURE_TEARDOWN(stale)
{
	cf_env_end(&self->e);
}

#define XATTR	"user.CacheFiles.cache"

/* Change a byte of the state: 0 or -errno. */
static int poke(const char *path, int at, uint8_t value)
{
	uint8_t x[64];
	ssize_t n = getxattr(path, XATTR, x, sizeof(x));

	if (n <= at)
		return n < 0 ? -errno : -ENODATA;
	x[at] = value;
	return setxattr(path, XATTR, x, n, 0) ? -errno : 0;
}

/* What is left of the content: 0 if all of it must be fetched anew, from the first block on. */
static int content(struct cf_env *e, struct cf_blob *b)
{
	struct cf_op *op;
	int err, reads = 0;

	err = rebind(e) ?: cf_blob_open(e, b, "blob", DISK_SIZE);
	if (err)
		return err;
	if (lseek(b->anon, 0, SEEK_DATA) != -1)
		return 1;
	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, 0, 4096);
	if (cf_serve_until_done(e, b, op, &reads) != 4096 || reads != 1 ||
	    cf_check("blob", 0, op->buf, 4096) != -1)
		return -EBADMSG;
	return 0;
}

/* 0 if it starts empty, or what an opener gets. */
static int unknown_content(struct cf_env *e, struct cf_blob *b)
{
	if (!cf_intended("object-without-state"))
		return content(e, b);
	return rebind(e) ?: cf_answer_opens(e, cf_start_open(e->mnt, "blob"), DISK_SIZE);
}

TEST_F_TIMEOUT(stale, object_of_another_type_starts_empty, 60)
{
	ASSERT_EQ(0, poke(self->path, 16, 2));
	EXPECT_EQ(0, content(&self->e, &self->b));
}

TEST_F_TIMEOUT(stale, dirty_object_starts_empty, 60)
{
	ASSERT_EQ(0, poke(self->path, 17, 4));
	EXPECT_EQ(0, content(&self->e, &self->b));
}

TEST_F_TIMEOUT(stale, object_with_a_shorter_state_starts_empty, 60)
{
	uint8_t x[64] = "";

	ASSERT_EQ(18, getxattr(self->path, XATTR, x, sizeof(x)));
	ASSERT_EQ(0, setxattr(self->path, XATTR, x, 17, 0));
	EXPECT_EQ(0, content(&self->e, &self->b));
}

TEST_F_TIMEOUT(stale, object_without_a_state, 60)
{
	ASSERT_EQ(0, removexattr(self->path, XATTR));
	EXPECT_EQ(cf_intended("object-without-state"), unknown_content(&self->e, &self->b));
}

TEST_F_TIMEOUT(stale, object_with_a_longer_state, 60)
{
	uint8_t x[64] = "";

	ASSERT_EQ(18, getxattr(self->path, XATTR, x, sizeof(x)));
	ASSERT_EQ(0, setxattr(self->path, XATTR, x, 19, 0));
	EXPECT_EQ(cf_intended("object-without-state"), unknown_content(&self->e, &self->b));
}

TEST_F_TIMEOUT(stale, directory_in_place_of_an_object_is_buried, 60)
{
	char path[PATH_MAX];
	struct stat st;

	ASSERT_EQ(0, unlink(self->path));
	ASSERT_EQ(0, mkdir(self->path, 0700));
	snprintf(path, sizeof(path), "%s/inside", self->path);
	ASSERT_EQ(0, mkdir(path, 0700));
	EXPECT_EQ(0, content(&self->e, &self->b));
	EXPECT_NE(0, stat(path, &st));
}

TEST_F_TIMEOUT(disk, device_closed_while_mounted_still_commits, 60)
{
	struct cf_blob *b = &self->b;
	char path[PATH_MAX];

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "second", 2 * CF_PAGE));
	ASSERT_EQ(0, cf_fill(b->anon, "second", 0, CF_PAGE, b->size));
	cf_env_close(&self->e);
	close(b->anon);
	close(b->fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "second", NULL, path), CF_SOON));
	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "second", 2 * CF_PAGE));
	cf_no_readahead(b->fd);
	EXPECT_EQ(0, cf_read_and_check("second", b->fd, 0, 4096, 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

TEST_F_TIMEOUT(disk, file_of_what_was_not_written, 60)
{
	struct cf_blob *b = &self->b;
	char path[PATH_MAX];
	bool has_file;

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "unread", 2 * CF_PAGE));
	close(b->fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	close(b->anon);
	/* The end of the cache waits for all that is given up. */
	cf_env_close(&self->e);
	has_file = cf_find_cache_file(&self->e, "unread", NULL, path);
	EXPECT_EQ(cf_intended("file-of-what-was-not-written"), has_file);
}

/* Worked out by hand from the C code's encoder, one of each kind. */
TEST_F_TIMEOUT(disk, names_are_encoded_as_the_C_code_does, 60)
{
	static const struct {
		const char *key, *cooked;
	} names[] = {
		{ "plain-Name_1.x~", "Dplain-Name_1.x~" },
		{ "\x01\x02\x03\x04", "S1020304" },
		{ " a", "T6120" },
		{ "a b", "E0x1yo" },
		{ " a bc", "E1w468yd60" },
	};
	char path[PATH_MAX];
	struct cf_blob b;
	int i;

	ASSERT_SETUP(cf_env_mount(&self->e));
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, names[i].key, 4096)) TH_LOG("name %d", i);
		ASSERT_EQ(0, cf_fill(b.anon, names[i].key, 0, 4096, 4096));
		close(b.fd);
		close(b.anon);
	}
	ASSERT_EQ(0, cf_env_umount(&self->e));
	for (i = 0; i < ARRAY_SIZE(names); i++)
		EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, names[i].key,
							   names[i].cooked, path), CF_SOON))
			TH_LOG("no %s", path);
}

TEST_HARNESS_MAIN
