// SPDX-License-Identifier: GPL-2.0
/*
 * Reading ahead, for which no task waits: how many reads of a file may be in flight, and
 * that those of other users are served meanwhile.
 */
#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	(64 * 1024 * 1024ULL)
#define BOUND	128		/* reads ahead of one file */

FIXTURE(ahead) {
	struct cf_env e;
	struct cf_daemon *d;
	int fd;
};

FIXTURE_SETUP(ahead)
{
	if (cf_intended("readahead-waits"))
		SKIP(return, "readahead() waits for the data there");
	ASSERT_SETUP(cf_env_all(&self->e));
	self->d = cf_daemon_new(self->e.dev, SIZE);
	ASSERT_NE(NULL, self->d);
	ASSERT_EQ(0, cf_daemon_start(self->d, 2));
	self->fd = cf_finish(cf_start_open(self->e.mnt, "x"));
	ASSERT_GE(self->fd, 0);
	cf_no_readahead(self->fd);
}

FIXTURE_TEARDOWN(ahead)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

/* Every other block of the file, one by one. */
static long flood(struct cf_op *op)
{
	off_t off;

	for (off = 0; off < op->len; off += 8192)
		posix_fadvise(op->fd, off, 4096, POSIX_FADV_WILLNEED);
	return 0;
}

TEST_F_TIMEOUT(ahead, is_bounded, 120)
{
	int i;

	self->d->hold_reads = true;
	ASSERT_EQ(0, cf_wait(cf_start(flood, NULL, self->fd, 0, 32 << 20), 60000));
	CF_WAIT_FOR(self->d->reads > BOUND, 1000);
	EXPECT_LE(self->d->reads, BOUND);
	EXPECT_GE(self->d->reads, BOUND / 2) TH_LOG("next to nothing is read ahead");
	/* What was cut off has not failed. */
	cf_daemon_release_reads(self->d);
	for (i = 0; i < 8; i++)
		EXPECT_EQ(0, cf_read_and_check("x", self->fd, i * (4 << 20), 4096, 4096));
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

TEST_F_TIMEOUT(ahead, does_not_keep_others_from_reading, 120)
{
	struct cf_op *op;
	int other;

	self->d->hold_reads = true;
	ASSERT_EQ(0, cf_wait(cf_start(flood, NULL, self->fd, 0, 32 << 20), 60000));
	ASSERT_TRUE(CF_WAIT_FOR(self->d->reads >= BOUND / 2, CF_SOON));
	other = cf_finish(cf_start_open(self->e.mnt, "y"));
	ASSERT_GE(other, 0);
	/* with readahead, of which nothing is left for this file */
	posix_fadvise(self->fd, 0, 0, POSIX_FADV_NORMAL);
	self->d->hold_reads = false;
	op = cf_start_pread(self->fd, 48 << 20, 65536);
	EXPECT_EQ(65536, cf_wait(op, 30000));
	EXPECT_EQ(-1, cf_check("x", 48 << 20, op->buf, 65536));
	EXPECT_EQ(0, cf_read_and_check("y", other, 0, 65536, 65536));
	cf_daemon_release_reads(self->d);
	EXPECT_EQ(0, cf_read_and_check("x", self->fd, 0, 4096, 4096));
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

TEST_HARNESS_MAIN
