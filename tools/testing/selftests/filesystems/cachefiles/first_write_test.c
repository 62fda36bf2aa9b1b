// SPDX-License-Identifier: GPL-2.0
/*
 * An object has no file in the cache before the daemon writes to it, and the first
 * writes make one file.
 */
#include <sys/statfs.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	0x200000

#define NOT_IN_C	"the C implementation does not have that"

FIXTURE(first_write) {
	struct cf_env e;
	struct cf_blob b;
};

FIXTURE_SETUP(first_write)
{
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
}

FIXTURE_TEARDOWN(first_write)
{
	cf_env_end(&self->e);
}

static long free_files(void)
{
	struct statfs st;

	return statfs(CF_ROOT, &st) ? -errno : (long)st.f_ffree;
}

/* There is not even a directory for it. */
TEST_F_TIMEOUT(first_write, what_is_never_read_takes_no_room, 90)
{
	struct cf_blob blobs[8];
	char path[PATH_MAX], name[16];
	long before = free_files();
	int i;

	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "unread%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &blobs[i], name, SIZE));
		EXPECT_EQ(-1, lseek(blobs[i].anon, 0, SEEK_DATA));
		EXPECT_EQ(ENXIO, errno);
		EXPECT_EQ(4096, lseek(blobs[i].anon, 4096, SEEK_HOLE));
	}
	EXPECT_EQ(before, free_files());
	/* One of them is written to. */
	ASSERT_EQ(0, cf_fill(blobs[3].anon, "unread3", 0, CF_PAGE, SIZE));
	/* Btrfs has no number of inodes that may be. */
	EXPECT_TRUE(free_files() < before || !before);
	EXPECT_EQ(0, lseek(blobs[3].anon, 0, SEEK_DATA));
	EXPECT_EQ(CF_PAGE, lseek(blobs[3].anon, 0, SEEK_HOLE));
	close(self->b.fd);
	for (i = 0; i < 8; i++)
		close(blobs[i].fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "unread3", NULL, path), CF_SOON));
	EXPECT_FALSE(cf_find_cache_file(&self->e, "unread2", NULL, path));
	for (i = 0; i < 8; i++)
		close(blobs[i].anon);
}

TEST_F_TIMEOUT(first_write, an_empty_object_is_read_without_a_file, 60)
{
	struct cf_blob b;
	char byte;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "empty", 0));
	EXPECT_EQ(0, pread(b.fd, &byte, 1, 0));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
	close(b.fd);
	close(b.anon);
}

/* Many first writes at once make one file. */
static atomic_bool go;

static long do_fill_page(struct cf_op *op)
{
	while (!go)
		;
	return cf_fill(op->fd, op->path, op->off, op->len, SIZE);
}

TEST_F_TIMEOUT(first_write, first_writes_at_once_go_to_one_file, 180)
{
	struct cf_op *ops[4];
	struct cf_blob b;
	char name[16];
	int i, round;

	for (round = 0; round < 32; round++) {
		snprintf(name, sizeof(name), "blob%d", round);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, name, SIZE));
		go = false;
		for (i = 0; i < 4; i++)
			ops[i] = cf_start(do_fill_page, name, b.anon, i * CF_PAGE, CF_PAGE);
		go = true;
		for (i = 0; i < 4; i++)
			EXPECT_EQ(0, cf_finish(ops[i]));
		cf_no_readahead(b.fd);
		EXPECT_EQ(0, cf_read_and_check(name, b.fd, 0, 4 * CF_PAGE, 4 * CF_PAGE));
		EXPECT_FALSE(cf_readable(self->e.dev, 0));
		close(b.fd);
		close(b.anon);
	}
}

TEST_HARNESS_MAIN
