// SPDX-License-Identifier: GPL-2.0
/*
 * Mounting while what was mounted before is still coming to its end.
 */
#include <signal.h>
#include <sys/mount.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	(1024 * 1024ULL)

FIXTURE(mount) {
	struct cf_env e;
	bool frozen;
};

FIXTURE_SETUP(mount)
{
	struct cf_blob b;

	if (cf_intended("kept-fd-blocks-mount"))
		SKIP(return, "a mount waits there and cannot be killed");
	ASSERT_SETUP(cf_env_all(&self->e));
	/* An object that cannot be given up before the file system thaws. */
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "x", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	close(b.fd);
	ASSERT_EQ(0, cf_freeze(&self->e));
	self->frozen = true;
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
}

FIXTURE_TEARDOWN(mount)
{
	if (self->frozen)
		cf_thaw(&self->e);
	cf_env_end(&self->e);
}

static pid_t start_mount(struct cf_env *e)
{
	pid_t pid = cf_fork();

	if (pid == 0)
		_exit(-cf_mount_at(e->mnt, e->domain, e->tag));
	return pid;
}

TEST_F_TIMEOUT(mount, after_a_killed_one_waits_like_that, 120)
{
	pid_t pid;
	int i;

	for (i = 0; i < 3; i++) {
		pid = start_mount(&self->e);
		EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, 500)) TH_LOG("mount %d", i);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		EXPECT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	}
	pid = start_mount(&self->e);
	EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, 500));
	ASSERT_EQ(0, cf_thaw(&self->e));
	self->frozen = false;
	EXPECT_EQ(0, cf_reap(pid, CF_SOON));
}

TEST_F_TIMEOUT(mount, after_a_killed_one_and_the_thaw, 120)
{
	pid_t pid = start_mount(&self->e);

	EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, 500));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	ASSERT_EQ(0, cf_thaw(&self->e));
	self->frozen = false;
	EXPECT_EQ(0, cf_env_mount_soon(&self->e));
}

TEST_HARNESS_MAIN
