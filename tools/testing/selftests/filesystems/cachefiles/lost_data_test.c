// SPDX-License-Identifier: GPL-2.0
/*
 * Data that the file system of the cache has lost: the daemon is asked for it again, and
 * for nothing else, whatever lost it and whichever way the reader takes to it.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define BLOCKS	64
#define SIZE	(BLOCKS * 4096ULL)
#define HALF	(SIZE / 2)

/* What the daemon was asked for, in blocks. */
struct asked {
	int n;
	uint64_t first[BLOCKS], count[BLOCKS];
};

static long serve(struct cf_env *e, struct cf_blob *b, struct cf_op *op, struct asked *a)
{
	long end = cf_now_ms() + CF_SOON, ret;
	struct cf_msg m;

	while ((ret = cf_wait(op, 20)) == -ETIMEDOUT && cf_now_ms() < end) {
		if (cf_recv(e->dev, &m, 20))
			continue;
		if (m.w.opcode != CF_READ || a->n == BLOCKS)
			return -EPROTO;
		a->first[a->n] = m.w.read.off / CF_BLOCK;
		a->count[a->n++] = m.w.read.len / CF_BLOCK;
		if (cf_blob_answer_read(b, &m))
			return -EPROTO;
	}
	return ret;
}

/* Read blocks, past the reader's own page cache, and check them: 0 or -errno. */
static long read_blocks(struct cf_env *e, struct cf_blob *b, int first, int count, struct asked *a)
{
	off_t off = first * 4096;
	size_t len = count * 4096;
	struct cf_op *op;
	long ret;

	memset(a, 0, sizeof(*a));
	posix_fadvise(b->fd, 0, 0, POSIX_FADV_DONTNEED);
	op = cf_start_pread(b->fd, off, len);
	ret = serve(e, b, op, a);
	if (ret < 0)
		return ret;
	return ret == len && cf_check("blob", off, op->buf, len) == -1 ? 0 : -EBADMSG;
}

/* Whether the disk says that a block of the file is present: all is, or the list has it. */
static int is_listed(const char *path, unsigned int block)
{
	unsigned char list[4096];
	unsigned char state[512] = { };
	ssize_t n = getxattr(path, "user.CacheFiles.present", list, sizeof(list));
	unsigned long long at = 0, value = 0;
	bool run = false;
	int i, shift = 0;

	if (getxattr(path, "user.CacheFiles.cache", state, sizeof(state)) < 0)
		return -errno;
	if (state[17] == 2)
		return 1;
	if (n < 10 || state[17] != 3 || list[0] != 2 || list[9])
		return -EPROTO;
	/* Behind the version, the check, and the kind. */
	for (i = 10; i < n; i++) {
		value |= (unsigned long long)(list[i] & 127) << shift;
		shift += 7;
		if (list[i] & 128)
			continue;
		if (run && block >= at && block < at + value)
			return 1;
		at += value;
		value = 0;
		shift = 0;
		run = !run;
	}
	return 0;
}

FIXTURE(loss) {
	struct cf_env e;
	struct cf_blob b;
	struct asked a;
	char path[PATH_MAX];
	int file;	/* the cache file */
	int victim;	/* a block */
};

FIXTURE_VARIANT(loss) {
	bool written;	/* in this life of the object, or an earlier one */
	bool cached;	/* another reader has read the hole into the page cache */
};

FIXTURE_VARIANT_ADD(loss, found) { };
FIXTURE_VARIANT_ADD(loss, found_and_cached) { .cached = true };
FIXTURE_VARIANT_ADD(loss, written) { .written = true };
FIXTURE_VARIANT_ADD(loss, written_and_cached) { .written = true, .cached = true };

/* An object whose first half was there when it was looked up, and whose second half came since. */
FIXTURE_SETUP(loss)
{
	struct cf_blob *b = &self->b;
	struct cf_msg m;

	if (cf_is_c())
		SKIP(return, "it keeps no list, and asks the file system only");
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", SIZE));
	ASSERT_EQ(0, cf_fill(b->anon, "blob", 0, HALF, SIZE));
	close(b->fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(b->anon);
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, self->path), CF_SOON));

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", SIZE));
	cf_no_readahead(b->fd);
	self->victim = 5;
	if (variant->written) {
		ASSERT_EQ(0, cf_fill(b->anon, "blob", HALF, HALF, SIZE));
		self->victim = BLOCKS / 2 + 5;
	}
	self->file = open(self->path, O_RDWR | O_CLOEXEC);
	ASSERT_GE(self->file, 0);
	ASSERT_EQ(0, fsync(self->file));
}

FIXTURE_TEARDOWN(loss)
{
	close(self->file);
	cf_env_end(&self->e);
}

static int punch(int file, int first, int count)
{
	return fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first * 4096,
			 count * 4096) ? -errno : 0;
}

/* As a scanner or a backup does. */
static int read_file(int file)
{
	static char buf[4096];
	off_t off;

	for (off = 0; off < SIZE; off += sizeof(buf))
		if (pread(file, buf, sizeof(buf), off) < 0)
			return -errno;
	return 0;
}

TEST_F_TIMEOUT(loss, block_is_asked_for_again_and_no_other, 60)
{
	int last = variant->written ? BLOCKS : BLOCKS / 2;
	int v = self->victim;

	/* It was read before, and found. */
	ASSERT_EQ(0, read_blocks(&self->e, &self->b, v - 1, 3, &self->a));
	ASSERT_EQ(0, self->a.n);
	ASSERT_EQ(0, punch(self->file, v, 1));
	if (variant->cached)
		ASSERT_EQ(0, read_file(self->file));
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, v - 2, 5, &self->a));
	EXPECT_EQ(1, self->a.n);
	EXPECT_EQ(v, self->a.first[0]);
	EXPECT_EQ(1, self->a.count[0]);
	/* Nothing else is, and not that again. */
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, 0, last, &self->a));
	EXPECT_EQ(0, self->a.n);
}

TEST_F_TIMEOUT(loss, several_holes_are_asked_for_one_by_one, 60)
{
	int v = self->victim;

	ASSERT_EQ(0, punch(self->file, v, 1));
	ASSERT_EQ(0, punch(self->file, v + 3, 2));
	if (variant->cached)
		ASSERT_EQ(0, read_file(self->file));
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, v - 2, 9, &self->a));
	EXPECT_EQ(2, self->a.n);
	EXPECT_EQ(v, self->a.first[0]);
	EXPECT_EQ(1, self->a.count[0]);
	EXPECT_EQ(v + 3, self->a.first[1]);
	EXPECT_EQ(2, self->a.count[1]);
}

/* What is written again is there, and a hole in it is seen again. */
TEST_F_TIMEOUT(loss, block_is_lost_twice, 60)
{
	int i, v = self->victim;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, punch(self->file, v, 1));
		if (variant->cached)
			ASSERT_EQ(0, read_file(self->file));
		EXPECT_EQ(0, read_blocks(&self->e, &self->b, v, 1, &self->a));
		EXPECT_EQ(1, self->a.n);
		EXPECT_EQ(0, read_blocks(&self->e, &self->b, v, 1, &self->a));
		EXPECT_EQ(0, self->a.n);
	}
}

TEST_F_TIMEOUT(loss, end_of_the_file_is_cut_off, 60)
{
	int v = self->victim, last = variant->written ? BLOCKS : BLOCKS / 2;
	int i, asked = 0;
	struct stat st;

	ASSERT_EQ(0, ftruncate(self->file, v * 4096 + 100));
	if (variant->cached)
		ASSERT_EQ(0, read_file(self->file));
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, v - 1, last - v + 1, &self->a));
	for (i = 0; i < self->a.n; i++) {
		EXPECT_EQ(v + asked, self->a.first[i]);
		asked += self->a.count[i];
	}
	EXPECT_EQ(last - v, asked);
	ASSERT_EQ(0, fstat(self->file, &st));
	EXPECT_EQ(SIZE, st.st_size);
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, 0, last, &self->a));
	EXPECT_EQ(0, self->a.n);
}

/* The daemon says that the block is there, and it is not any more. */
TEST_F_TIMEOUT(loss, block_that_goes_before_it_is_read_is_EIO, 60)
{
	int reads, v = self->victim;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, punch(self->file, v, 1));
	op = cf_start_pread(self->b.fd, v * 4096, 4096);
	/* The page cache tries twice. */
	for (reads = 0; reads < 4 && cf_wait(op, 0) == -ETIMEDOUT; reads++) {
		ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
		EXPECT_EQ(v * 4096, m.w.read.off);
		ASSERT_EQ(0, cf_fill(self->b.anon, "blob", v * 4096, 4096, SIZE));
		ASSERT_EQ(0, fsync(self->file));
		ASSERT_EQ(0, punch(self->file, v, 1));
		if (variant->cached)
			ASSERT_EQ(0, read_file(self->file));
		ASSERT_EQ(0, cf_complete(self->b.anon, m.w.msg_id));
		CF_WAIT_FOR(cf_wait(op, 0) != -ETIMEDOUT || cf_readable(self->e.dev, 0), CF_SOON);
	}
	EXPECT_EQ(-EIO, cf_finish(op));
}

/* What is written in part is data to the file system, and the rest of it zero. */
TEST_F_TIMEOUT(loss, block_that_is_written_in_part_is_not_there_again, 60)
{
	static char part[512] __attribute__((aligned(4096)));
	int v = self->victim;

	ASSERT_EQ(0, punch(self->file, v, 1));
	if (variant->cached)
		ASSERT_EQ(0, read_file(self->file));
	cf_pattern("blob", v * 4096, part, sizeof(part));
	ASSERT_EQ(sizeof(part), cf_pwrite(self->b.anon, part, sizeof(part), v * 4096));
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, v - 1, 3, &self->a));
	EXPECT_EQ(1, self->a.n);
	EXPECT_EQ(v, self->a.first[0]);
	EXPECT_EQ(1, self->a.count[0]);
	/* Where it was there, it still is. */
	ASSERT_EQ(sizeof(part), cf_pwrite(self->b.anon, part, sizeof(part), v * 4096));
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, v - 1, 3, &self->a));
	EXPECT_EQ(0, self->a.n);
}

/*
 * A block that is written in part is data to the file system, and would be served after a crash if
 * the list still had it.
 */
TEST_F_TIMEOUT(loss, list_says_nothing_of_a_lost_block_before_it_can_be_written, 60)
{
	int v = self->victim;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, punch(self->file, v, 1));
	op = cf_start_pread(self->b.fd, v * 4096, 4096);
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	EXPECT_EQ(0, is_listed(self->path, v));
	ASSERT_EQ(0, cf_blob_answer_read(&self->b, &m));
	EXPECT_EQ(4096, cf_finish(op));
}

TEST_F_TIMEOUT(loss, list_is_corrected_by_the_lookup, 60)
{
	int v = self->victim;
	struct cf_msg m;

	close(self->b.fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(self->b.anon);
	ASSERT_TRUE(CF_WAIT_FOR(is_listed(self->path, v) == 1, CF_SOON));
	ASSERT_EQ(0, punch(self->file, v, 1));

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
	ASSERT_TRUE(CF_WAIT_FOR(lseek(self->b.anon, 0, SEEK_DATA) == 0, CF_SOON));
	EXPECT_EQ(0, is_listed(self->path, v));
	EXPECT_EQ(1, is_listed(self->path, v - 1));
	EXPECT_EQ(1, is_listed(self->path, v + 1));
	cf_no_readahead(self->b.fd);
	EXPECT_EQ(0, read_blocks(&self->e, &self->b, v - 1, 3, &self->a));
	EXPECT_EQ(1, self->a.n);
	EXPECT_EQ(v, self->a.first[0]);
	EXPECT_EQ(1, self->a.count[0]);
}

/*
 * The file system of a cache on an image that was made beside the program.  For btrfs a signal is a
 * reason not to say where holes are.
 */
FIXTURE(killed) {
	struct cf_env e;
	struct cf_blob b;
};

#define KILLED_SIZE	(32ULL << 20)
#define KILLED_RUN	(256 << 10)

FIXTURE_SETUP(killed)
{
	int err;

	if (cf_is_c())
		SKIP(return, "it asks the file system only");
	ASSERT_SETUP(cf_env_init(&self->e));
	err = cf_mount_image(&self->e, "btrfs", "fs_btrfs.img.gz");
	if (err == -ENOENT)
		SKIP(return, "no image of a btrfs, or no btrfs");
	ASSERT_EQ(0, err);
	ASSERT_SETUP(cf_env_bind(&self->e) ?: cf_env_mount(&self->e));
}

FIXTURE_TEARDOWN(killed)
{
	cf_env_end(&self->e);
}

/* Read all that is present, again and again. */
static void read_on(int fd)
{
	static char buf[KILLED_RUN];
	off_t off;

	for (;;) {
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		for (off = 0; off < KILLED_SIZE; off += 2 * KILLED_RUN)
			if (pread(fd, buf, sizeof(buf), off) != sizeof(buf))
				_exit(1);
	}
}

TEST_F_TIMEOUT(killed, readers_cost_nothing_that_is_there, 600)
{
	struct cf_blob *b = &self->b;
	off_t off;
	int i;

	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", KILLED_SIZE));
	for (off = 0; off < KILLED_SIZE; off += 2 * KILLED_RUN)
		ASSERT_EQ(0, cf_fill(b->anon, "blob", off, KILLED_RUN, KILLED_SIZE));
	sync();
	cf_drop_caches();
	cf_no_readahead(b->fd);
	srand(1);
	for (i = 0; i < 500; i++) {
		pid_t pid = cf_fork();

		if (!pid)
			read_on(b->fd);
		ASSERT_GT(pid, 0);
		usleep(rand() % 20000);
		kill(pid, SIGKILL);
		ASSERT_EQ(128 + SIGKILL, cf_reap(pid, 600000)) TH_LOG("reader %d", i);
		ASSERT_FALSE(cf_readable(self->e.dev, 0)) TH_LOG("READ after reader %d", i);
	}
	for (off = 0; off < KILLED_SIZE; off += 2 * KILLED_RUN)
		EXPECT_EQ(0, cf_read_and_check("blob", b->fd, off, KILLED_RUN, KILLED_RUN));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

/* A block that was written back is looked for on the disk when it is first read. */
FIXTURE(busy) {
	struct cf_env e;
	struct cf_blob b;
};

#define FIRST_BLOCKS	8
#define MUCH		(128ULL << 20)

FIXTURE_SETUP(busy)
{
	if (cf_is_c())
		SKIP(return, "its reads take the lock that a write has");
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", MUCH + (1 << 20)));
}

FIXTURE_TEARDOWN(busy)
{
	close(self->b.fd);
	close(self->b.anon);
	cf_env_end(&self->e);
}

static long do_pwrite(struct cf_op *op)
{
	memset(op->buf, 1, op->len);
	for (size_t at = 0; at < op->len; at += CF_BLOCK)
		*(uint64_t *)(op->buf + at) = at;
	return cf_pwrite(op->fd, op->buf, op->len, op->off);
}

static uint64_t bytes_free(struct cf_env *e)
{
	struct statfs st;

	return statfs(e->dir, &st) ? 0 : (uint64_t)st.f_bfree * st.f_bsize;
}

TEST_F_TIMEOUT(busy, reads_do_not_wait_for_a_long_write, 120)
{
	struct cf_blob *b = &self->b;
	uint64_t before;
	struct cf_op *op;
	int i;

	if (cf_is_btrfs())
		SKIP(return, "nobody sees a write go on: btrfs counts when it commits");
	for (i = 0; i < FIRST_BLOCKS; i++)
		ASSERT_EQ(0, cf_fill(b->anon, "blob", i * 65536, CF_PAGE, b->size));
	sync();
	cf_no_readahead(b->fd);
	before = bytes_free(&self->e);
	op = cf_start(do_pwrite, NULL, b->anon, 1 << 20, MUCH);
	ASSERT_TRUE(CF_WAIT_FOR(bytes_free(&self->e) + (2 << 20) < before, CF_SOON));

	for (i = 0; i < FIRST_BLOCKS; i++)
		EXPECT_EQ(0, cf_read_and_check("blob", b->fd, i * 65536, CF_BLOCK, CF_BLOCK));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, 0)) TH_LOG("a read waited until all was written");
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
	EXPECT_EQ(MUCH, cf_wait(op, 60000));
	cf_op_free(op);
	/* It is all where it belongs. */
	for (i = 0; i < MUCH / CF_BLOCK; i += 85) {
		uint64_t at = i * (uint64_t)CF_BLOCK, is = 0;

		ASSERT_EQ(8, pread(b->fd, &is, 8, (1 << 20) + at));
		ASSERT_EQ(at, is);
	}
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

TEST_HARNESS_MAIN
