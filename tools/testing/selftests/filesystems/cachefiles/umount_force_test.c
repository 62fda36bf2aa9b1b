// SPDX-License-Identifier: GPL-2.0
/*
 * umount -f: reads and opens that wait for the daemon fail. Other mounts of the domain, and
 * files that are open through them, can be used on.
 */
#include <signal.h>
#include <sys/mount.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE		(256ULL * CF_PAGE)
#define FAR		(16 * CF_PAGE)
#define OPENERS		8
#define C_WAITS		"a READ is waited for by a task, which that does not end"

FIXTURE(force) {
	struct cf_env e;
	int dev;
	struct cf_blob b;
	struct cf_daemon *d;
};

FIXTURE_SETUP(force)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
	ASSERT_EQ(0, cf_mount_at(self->e.erofs, self->e.domain, self->e.tag));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "x", SIZE));
	cf_no_readahead(self->b.fd);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &self->b, 0));
}

FIXTURE_TEARDOWN(force)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

static long force(struct cf_env *e)
{
	return cf_finish(cf_start_umount(e->erofs, MNT_FORCE));
}

/* Have a block that is in the cache read from there, and not from the page cache. */
static long read_present(struct cf_blob *b)
{
	posix_fadvise(b->fd, 0, 0, POSIX_FADV_DONTNEED);
	return cf_read_and_check(b->name, b->fd, 0, 4096, 4096);
}

/* A read that the daemon was asked for by @m when umount -f was called; NULL if one failed. */
static struct cf_op *read_and_force(struct cf_env *e, struct cf_blob *b, size_t len,
				    struct cf_msg *m)
{
	struct cf_op *op = cf_start_pread(b->fd, FAR, len);

	return cf_expect(e->dev, CF_READ, m) || force(e) ? NULL : op;
}

TEST_F_TIMEOUT(force, files_open_through_another_mount_go_on, 120)
{
	struct cf_op *op;
	struct cf_msg m;

	if (cf_intended("readahead-waits"))
		SKIP(return, C_WAITS);
	op = read_and_force(&self->e, &self->b, 4096, &m);
	ASSERT_NE(NULL, op);
	EXPECT_EQ(0, read_present(&self->b));
	EXPECT_EQ(-EIO, cf_wait(op, CF_SOON));
	EXPECT_EQ(-EINVAL, cf_complete(self->b.anon, m.w.msg_id));

	EXPECT_EQ(0, read_present(&self->b));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &self->b, 2 * CF_PAGE));
	/* What was failed may fail once more for a moment. */
	cf_sleep_ms(2000);
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &self->b, FAR));
	EXPECT_EQ(0, read_present(&self->b));
}

TEST_F_TIMEOUT(force, reads_that_follow_at_once_are_served, 120)
{
	struct cf_op *old, *new;
	struct cf_msg m;

	if (cf_intended("readahead-waits"))
		SKIP(return, C_WAITS);
	old = read_and_force(&self->e, &self->b, 4096, &m);
	ASSERT_NE(NULL, old);
	new = cf_start_pread(self->b.fd, 2 * CF_PAGE, 4096);
	EXPECT_EQ(0, cf_blob_serve(&self->e, &self->b, new));
	EXPECT_EQ(-EIO, cf_wait(old, CF_SOON));
	cf_op_free(old);
}

/* The cache checks once a second for cookies that are not in use. */
TEST_F_TIMEOUT(force, reads_that_follow_may_take_long, 120)
{
	struct cf_op *old, *new;
	struct cf_msg m;

	if (cf_intended("readahead-waits"))
		SKIP(return, C_WAITS);
	old = read_and_force(&self->e, &self->b, 4096, &m);
	ASSERT_NE(NULL, old);
	EXPECT_EQ(-EIO, cf_finish(old));
	new = cf_start_pread(self->b.fd, 2 * CF_PAGE, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(new, 4000)) TH_LOG("failed with those before it");
	EXPECT_EQ(0, cf_blob_answer_read(&self->b, &m));
	EXPECT_EQ(4096, cf_finish(new));
}

TEST_F_TIMEOUT(force, without_waiters_nothing_happens, 120)
{
	ASSERT_EQ(0, force(&self->e));
	EXPECT_EQ(0, read_present(&self->b));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &self->b, 2 * CF_PAGE));
	cf_sleep_ms(1500);
	EXPECT_EQ(0, read_present(&self->b));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &self->b, 4 * CF_PAGE));
}

/* The page cache asks again for what was not read ahead: one umount is enough. */
TEST_F_TIMEOUT(force, reader_behind_readahead_is_let_go, 120)
{
	struct cf_op *op;
	struct cf_msg m;

	if (cf_intended("readahead-waits"))
		SKIP(return, C_WAITS);
	posix_fadvise(self->b.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	op = read_and_force(&self->e, &self->b, 32 * CF_PAGE, &m);
	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EIO, cf_wait(op, CF_SOON));
}

TEST_F_TIMEOUT(force, openers_that_wait_are_let_go, 120)
{
	struct cf_op *op[OPENERS];
	struct cf_msg m;
	int i;

	for (i = 0; i < OPENERS; i++)
		op[i] = cf_start_open(self->e.mnt, "y");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	for (i = 0; i < OPENERS; i++)
		EXPECT_EQ(-ETIMEDOUT, cf_wait(op[i], 50));
	ASSERT_EQ(0, force(&self->e));
	for (i = 0; i < OPENERS; i++)
		EXPECT_EQ(-EIO, cf_finish(op[i]));

	op[0] = cf_start_open(self->e.mnt, "y");
	while (cf_wait(op[0], CF_NEVER) == -ETIMEDOUT) {
		/* The OPEN of before may have been there still, and be answered now. */
		int err = cf_copen(self->dev, m.w.msg_id, SIZE);

		if (err == -EINVAL && cf_recv(self->dev, &m, 0) == 0 && m.w.opcode != CF_OPEN)
			m.w.msg_id = -1;
	}
	EXPECT_GE(cf_wait(op[0], 0), 0);
	EXPECT_EQ(0, read_present(&self->b));
}

/* It has open files: EBUSY, but it has done its work. */
TEST_F_TIMEOUT(force, mount_that_is_in_use_is_let_go_too, 120)
{
	struct cf_op *op;
	struct cf_msg m;

	if (cf_intended("readahead-waits"))
		SKIP(return, C_WAITS);
	op = cf_start_pread(self->b.fd, FAR, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-EBUSY, cf_finish(cf_start_umount(self->e.mnt, MNT_FORCE)));
	EXPECT_EQ(-EIO, cf_wait(op, CF_SOON));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &self->b, 2 * CF_PAGE));
}

static atomic_bool stop;

static long keep_forcing(struct cf_op *op)
{
	while (!stop)
		umount2(op->path, MNT_FORCE);
	return 0;
}

static long keep_reading(struct cf_op *op)
{
	char buf[4096];
	int fd;

	while (!stop) {
		fd = open(op->path, O_RDONLY);
		if (fd < 0)
			continue;
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (pread(fd, buf, sizeof(buf), rand() % (SIZE / 4096) * 4096) < 0)
			sched_yield();
		close(fd);
	}
	return 0;
}

/* Whichever operations race, no file is left that cannot be read. */
TEST_F_TIMEOUT(force, races_leave_nothing_behind, 180)
{
	struct cf_op *op[4];
	char path[512], name[16];
	int i, fd;

	self->d = cf_daemon_new(self->dev, SIZE);
	ASSERT_NE(NULL, self->d);
	ASSERT_EQ(0, cf_daemon_start(self->d, 2));
	stop = false;
	for (i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/r%d", self->e.mnt, i % 2);
		op[i] = cf_start(keep_reading, path, -1, 0, 0);
	}
	fd = open(self->e.mnt, O_RDONLY | O_DIRECTORY);	/* so that it is busy */
	ASSERT_GE(fd, 0);
	op[3] = cf_start(keep_forcing, self->e.mnt, -1, 0, 0);
	cf_sleep_ms(15000);
	stop = true;
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, cf_finish(op[i]));
	close(fd);
	cf_sleep_ms(2500);
	for (i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		fd = cf_finish(cf_start_open(self->e.mnt, name));
		ASSERT_GE(fd, 0);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		EXPECT_EQ(0, cf_read_and_check(name, fd, 0, 4096, 4096));
		EXPECT_EQ(0, cf_read_and_check(name, fd, SIZE - 4096, 4096, 4096));
		close(fd);
	}
}

/* ------------------------------------------------------------------ openers */

TEST_F_TIMEOUT(force, openers_of_a_silent_daemon_share_its_time_limit, 120)
{
	struct cf_op *op[OPENERS];
	struct cf_clock clock;
	int i;

	if (cf_intended("bind-timeout"))
		SKIP(return, "C has no time limit");
	cf_env_close(&self->e);
	ASSERT_SETUP(cf_env_bind_with(&self->e, " timeout=3"));
	cf_clock_start(&clock);
	for (i = 0; i < OPENERS; i++)
		op[i] = cf_start_open(self->e.mnt, "y");
	for (i = 0; i < OPENERS; i++)
		EXPECT_EQ(-ETIMEDOUT, cf_wait(op[i], OPENERS * 3000));
	/* Not one after the other. */
	EXPECT_LT(cf_spent(&clock), OPENERS * 3000 / 2);
}

TEST_HARNESS_MAIN
