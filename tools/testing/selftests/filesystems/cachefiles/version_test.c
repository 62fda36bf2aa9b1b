// SPDX-License-Identifier: GPL-2.0
/*
 * copen with a version: bytes that were cached of one version of an object are
 * never read as those of another.
 */
#include <sys/stat.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	(10ULL * CF_PAGE)
#define HALF	(5ULL * CF_PAGE)
#define ANY	" W/\"a,b\"\xff\x01 "
#define NOT_IN_C "C knows no version: copen with one fails the OPEN"

FIXTURE(version) {
	struct cf_env e;
};

FIXTURE_SETUP(version)
{
	ASSERT_SETUP(cf_env_all(&self->e));
}

FIXTURE_TEARDOWN(version)
{
	cf_env_end(&self->e);
}

static int let_go(struct cf_env *e, struct cf_blob *b)
{
	struct cf_msg m;
	int err;

	close(b->fd);
	err = cf_env_umount(e);
	if (!err)
		err = cf_expect(e->dev, CF_CLOSE, &m);
	close(b->anon);
	return err;
}

TEST_F_TIMEOUT(version, of_copen, 60)
{
	struct cf_blob b = { .name = "blob", .size = SIZE };
	struct cf_op *op = cf_start_open(self->e.mnt, "blob");
	long ret;

	EXPECT_EQ(cf_intended("copen-version"), cf_blob_answer_version(&self->e, &b, "v1"));
	ret = cf_finish(op);
	if (ret >= 0)
		ret = 0;
	EXPECT_EQ(cf_is_c() ? -EIO : 0, ret);
}

/* Cache the first half of "blob", of this version. */
static long cache_half(struct cf_env *e, const char *content, const char *version)
{
	char path[PATH_MAX];
	struct cf_blob b;
	long err = cf_blob_open_version(e, &b, SIZE, content, version);

	if (!err)
		err = cf_fill(b.anon, content, 0, HALF, SIZE);
	if (!err)
		err = let_go(e, &b);
	if (!err && !CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, path), CF_SOON))
		err = -ENOENT;
	return err ?: cf_env_mount(e);
}

FIXTURE(again) {
	struct cf_env e;
};

FIXTURE_VARIANT(again) {
	const char *first, *second;
	bool same;
};

FIXTURE_VARIANT_ADD(again, the_same) { .first = "v1", .second = "v1", .same = true };
FIXTURE_VARIANT_ADD(again, another) { .first = "v1", .second = "v2" };
FIXTURE_VARIANT_ADD(again, a_longer_one) { .first = "v1", .second = "v11" };
FIXTURE_VARIANT_ADD(again, a_shorter_one) { .first = "v11", .second = "v1" };
FIXTURE_VARIANT_ADD(again, one_after_none) { .first = NULL, .second = "v1" };
FIXTURE_VARIANT_ADD(again, none_after_one) { .first = "v1", .second = NULL };
FIXTURE_VARIANT_ADD(again, none_at_all) { .first = NULL, .second = NULL, .same = true };
FIXTURE_VARIANT_ADD(again, any_bytes) { .first = ANY, .second = ANY, .same = true };
FIXTURE_VARIANT_ADD(again, trailing_blanks_that_differ) { .first = "v1 ", .second = "v1" };

FIXTURE_SETUP(again)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
}

FIXTURE_TEARDOWN(again)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(again, what_was_cached_is_used_if_it_is_of_the_version, 120)
{
	const char *now = variant->same ? "old" : "new";
	struct cf_blob b;
	off_t off;

	ASSERT_EQ(0, cache_half(&self->e, "old", variant->first));
	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, now, variant->second));
	for (off = 0; off < SIZE; off += CF_PAGE) {
		if (variant->same && off < HALF) {
			EXPECT_EQ(0, cf_read_and_check("old", b.fd, off, CF_PAGE, CF_PAGE));
			EXPECT_FALSE(cf_readable(self->e.dev, 0))
				TH_LOG("asked for what is there, at %ld", (long)off);
		} else {
			/* Asked for, and not a byte of the other. */
			EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, off))
				TH_LOG("at %ld", (long)off);
		}
	}
	close(b.fd);
}

TEST_F_TIMEOUT(again, the_other_one_goes, 120)
{
	const char *now = variant->same ? "old" : "new";
	char path[PATH_MAX], *buf = malloc(HALF);
	struct stat before, after;
	struct cf_blob b;
	int fd;

	ASSERT_EQ(0, cache_half(&self->e, "old", variant->first));
	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	/* As long as it is open, no other file gets its inode number. */
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstat(fd, &before));
	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, now, variant->second));
	ASSERT_EQ(0, cf_fill(b.anon, now, 0, HALF, SIZE));
	ASSERT_EQ(0, let_go(&self->e, &b));
	ASSERT_TRUE(CF_WAIT_FOR(!stat(path, &after) &&
				(before.st_ino == after.st_ino) == variant->same, CF_SOON));
	close(fd);
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(HALF, read(fd, buf, HALF));
	EXPECT_EQ(-1, cf_check(now, 0, buf, HALF));
	close(fd);
	free(buf);
}

TEST_F_TIMEOUT(version, is_kept_with_the_coherency_data, 60)
{
	char path[PATH_MAX];
	uint8_t x[512];

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_EQ(0, cache_half(&self->e, "old", "sha256:0123"));
	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	ASSERT_EQ(18 + 11, getxattr(path, "user.CacheFiles.cache", x, sizeof(x)));
	EXPECT_EQ(0, memcmp(x + 18, "sha256:0123", 11));
}

TEST_F_TIMEOUT(version, of_the_largest_length_is_taken, 60)
{
	struct cf_blob b;
	char longest[129];

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	memset(longest, 'v', 128);
	longest[128] = 0;
	ASSERT_EQ(0, cache_half(&self->e, "old", longest));
	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, "old", longest));
	EXPECT_EQ(0, cf_read_and_check("old", b.fd, 0, HALF, HALF));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
	close(b.fd);
}

TEST_F_TIMEOUT(version, that_is_none_fails_the_open, 60)
{
	char too_long[130];
	const char *const bad[] = { "", too_long };
	unsigned int i;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	memset(too_long, 'v', 129);
	too_long[129] = 0;
	for (i = 0; i < 2; i++) {
		struct cf_op *op = cf_start_open(self->e.mnt, "blob");
		struct cf_blob b = { .name = "blob", .size = SIZE };

		EXPECT_EQ(-EINVAL, cf_blob_answer_version(&self->e, &b, bad[i]));
		EXPECT_EQ(-EINVAL, cf_finish(op));
		close(b.anon);
	}
}

TEST_F_TIMEOUT(version, with_an_error_is_no_answer, 60)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "blob", &m);

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "copen %u,-2,v1", m.w.msg_id));
	EXPECT_EQ(-EINVAL, cf_finish(op));
}

/* A successor serves another version than the one that is open. */
TEST_F_TIMEOUT(version, of_a_reopening_that_differs_fails_who_waits, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	int refused = 0;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_EQ(0, cf_blob_open_version(&self->e, &b, SIZE, "old", "v1"));
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	close(b.anon);
	op = cf_start_pread(b.fd, CF_PAGE, 4096);
	/* A reader tries a second time. */
	while (cf_wait(op, 20) == -ETIMEDOUT && !cf_expect(self->e.dev, CF_OPEN, &m)) {
		EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "copen %u,%llu,v2", m.w.msg_id, SIZE));
		close(m.w.open.fd);
		refused++;
	}
	EXPECT_LE(1, refused);
	EXPECT_EQ(-EIO, cf_finish(op)) TH_LOG("bytes of another version");
	/* What is there of the first version is still that. */
	EXPECT_EQ(0, cf_read_and_check("old", b.fd, 0, 4096, 4096));

	/* One that has it goes on. */
	op = cf_start_pread(b.fd, CF_PAGE, 4096);
	snprintf(b.name, sizeof(b.name), "blob");
	ASSERT_EQ(0, cf_blob_answer_version(&self->e, &b, "v1"));
	snprintf(b.name, sizeof(b.name), "old");
	EXPECT_EQ(0, cf_blob_serve(&self->e, &b, op));
	close(b.fd);
}

TEST_HARNESS_MAIN
