// SPDX-License-Identifier: GPL-2.0
/*
 * A cache whose file system is full, frozen or read-only in the middle of something: errors are
 * clear, nobody waits for longer than that lasts, and nothing that is in the cache is lost.
 */
#include <fcntl.h>
#include <libgen.h>
#include <linux/capability.h>
#include <linux/quota.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/quota.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	(48ULL * CF_PAGE)
#define HALF	(24ULL * CF_PAGE)
/* In milliseconds: what is not written down at once is after half a minute. */
#define LATE	300000

/* "blob", half of which is there, and has not been written down. */
FIXTURE(trouble) {
	struct cf_env e;
	struct cf_blob b;
	char path[PATH_MAX];
};

FIXTURE_VARIANT(trouble) {
	const char *type, *image;
};

FIXTURE_VARIANT_ADD(trouble, ext4) { .type = "ext4", .image = "fs_ext4_1k.img.gz" };
FIXTURE_VARIANT_ADD(trouble, btrfs) { .type = "btrfs", .image = "fs_btrfs.img.gz" };

/* Mount an image for the cache, bind that, and fill half of an object: 0 or -errno. */
static int begin(struct cf_env *e, struct cf_blob *b, const char *type, const char *image)
{
	int err = cf_mount_image(e, type, image);

	err = err ?: cf_env_bind(e) ?: cf_env_mount(e) ?: cf_blob_open(e, b, "blob", SIZE);
	if (err)
		return err;
	cf_no_readahead(b->fd);
	return cf_fill(b->anon, "blob", 0, HALF, SIZE);
}

FIXTURE_SETUP(trouble)
{
	int err;

	if (cf_is_c())
		SKIP(return, "it writes things down when an object is withdrawn");
	ASSERT_SETUP(cf_env_init(&self->e));
	err = begin(&self->e, &self->b, variant->type, variant->image);
	if (err == -ENOENT)
		SKIP(return, "no image of this file system");
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(trouble)
{
	cf_thaw(&self->e);
	cf_env_end(&self->e);
}

static long fill_page(struct cf_op *op)
{
	return cf_fill(op->fd, "blob", op->off, CF_PAGE, SIZE);
}

/* Take all that is left, of data and of what the file system needs itself: the file, or -errno. */
static int take_all(struct cf_env *e, const char *name)
{
	static char zeros[1 << 16];
	char path[PATH_MAX];
	size_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", e->dir, name);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	for (len = sizeof(zeros); len >= 512; len /= 2) {
		while (write(fd, zeros, len) == len)
			;
		if (errno != ENOSPC || (fsync(fd) && errno != ENOSPC))
			return -errno;
	}
	unlink(path);
	return fd;
}

/* Reads of what is there do not wait, and a write waits until it can be done. */
TEST_F_TIMEOUT(trouble, frozen_under_a_write, 300)
{
	struct cf_env *e = &self->e;
	struct cf_blob *b = &self->b;
	struct cf_op *op;

	ASSERT_EQ(0, cf_freeze(e));
	op = cf_start(fill_page, "", b->anon, HALF, 0);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
	ASSERT_EQ(0, cf_thaw(e));
	EXPECT_EQ(0, cf_finish(op));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF + CF_PAGE));
}

/* The same while what is there is to be written down. */
TEST_F_TIMEOUT(trouble, frozen_under_a_commit, 900)
{
	struct cf_env *e = &self->e;
	struct cf_blob *b = &self->b;
	int i;

	ASSERT_EQ(0, cf_freeze(e));
	for (i = 0; i < 40; i++) {
		ASSERT_EQ(0, cf_reads_for(e, b, 0, HALF));
		sleep(1);
	}
	EXPECT_FALSE(cf_find_cache_file(e, "blob", NULL, self->path));
	ASSERT_EQ(0, cf_thaw(e));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), LATE));
	ASSERT_EQ(0, cf_blob_give_up(e, b));
	ASSERT_TRUE(cf_is_released(e, self->path));
	ASSERT_EQ(0, cf_blob_look_up(e, b, SIZE));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
	EXPECT_EQ(1, cf_reads_for(e, b, HALF, CF_PAGE));
}

TEST_F_TIMEOUT(trouble, frozen_under_a_withdrawal, 300)
{
	struct cf_env *e = &self->e;
	struct cf_blob *b = &self->b;
	struct cf_op *op;
	struct cf_msg m;

	close(b->fd);
	ASSERT_EQ(0, cf_freeze(e));
	op = cf_start_umount(e->mnt, 0);
	cf_wait(op, CF_NEVER);
	ASSERT_EQ(0, cf_thaw(e));
	ASSERT_EQ(0, cf_finish(op));
	ASSERT_EQ(0, cf_expect(e->dev, CF_CLOSE, &m));
	close(b->anon);
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), CF_SOON));
	ASSERT_TRUE(cf_is_released(e, self->path));
	ASSERT_EQ(0, cf_blob_look_up(e, b, SIZE));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
}

/* What cannot be written is an error; what is there stays, and is written down once it can be. */
TEST_F_TIMEOUT(trouble, full_disk, 900)
{
	struct cf_env *e = &self->e;
	struct cf_blob *b = &self->b;
	int ballast, err;

	ballast = take_all(e, "ballast");
	ASSERT_LE(0, ballast);
	err = cf_fill(b->anon, "blob", HALF, CF_PAGE, SIZE);
	EXPECT_TRUE(err == -ENOSPC || err == -ENOBUFS)
		TH_LOG("writing to a full disk is %d", err);
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
	/* Time for a commit to fail. */
	sleep(32);
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
	close(ballast);
	/* Not all file systems give space back at once. */
	sync();
	EXPECT_TRUE(CF_WAIT_FOR(cf_fill(b->anon, "blob", HALF, CF_PAGE, SIZE) == 0, CF_SOON));
	EXPECT_EQ(0, cf_reads_for(e, b, HALF, CF_PAGE));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), LATE));
	ASSERT_EQ(0, cf_blob_give_up(e, b));
	ASSERT_TRUE(cf_is_released(e, self->path));
	ASSERT_EQ(0, cf_blob_look_up(e, b, SIZE));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF + CF_PAGE));
}

/* "mount -o remount,ro", or rw, of the file system of the cache: 0 or -errno. */
static int remount(struct cf_env *e, unsigned long flags)
{
	return mount("none", e->dir, NULL, MS_REMOUNT | flags, NULL) ? -errno : 0;
}

TEST_F_TIMEOUT(trouble, read_only_between_lives, 300)
{
	struct cf_env *e = &self->e;
	struct cf_blob *b = &self->b;
	struct cf_op *op;

	/* Not under a file that is in use: nobody loses what is being written. */
	EXPECT_EQ(-EBUSY, remount(e, MS_RDONLY));
	ASSERT_EQ(0, cf_blob_give_up(e, b));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), CF_SOON));
	ASSERT_TRUE(cf_is_released(e, self->path));
	ASSERT_EQ(0, chdir(dirname(strdupa(self->path))));
	/* The file is closed a little later. */
	ASSERT_TRUE(CF_WAIT_FOR(remount(e, MS_RDONLY) == 0, CF_SOON));
	EXPECT_GT(0, cf_cmd(e->dev, "cull Dblob"));
	ASSERT_EQ(0, chdir("/"));
	ASSERT_EQ(0, cf_env_mount(e));
	op = cf_start_open(e->mnt, "blob");
	EXPECT_GT(0, cf_answer_opens(e, op, SIZE));
	ASSERT_EQ(0, cf_env_umount(e));
	/* A cache that cannot be written to is dead; the next one has what it had. */
	cf_env_close(e);
	ASSERT_EQ(0, remount(e, 0));
	ASSERT_EQ(0, cf_env_bind(e));
	ASSERT_EQ(0, cf_blob_look_up(e, b, SIZE));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
	EXPECT_EQ(1, cf_reads_for(e, b, HALF, CF_PAGE));
}

/* A file system with few inodes, or one of its own for quotas. */
FIXTURE(other) {
	struct cf_env e;
	struct cf_blob b;
	char path[PATH_MAX];
};

FIXTURE_SETUP(other)
{
	if (cf_is_c())
		SKIP(return, "it has made a file before it is written to");
	ASSERT_SETUP(cf_env_init(&self->e));
}

FIXTURE_TEARDOWN(other)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(other, no_inodes_are_left, 300)
{
	struct cf_env *e = &self->e;
	struct cf_blob b2;
	char path[PATH_MAX];
	int err, fd, n;

	err = begin(e, &self->b, "ext4", "fs_few.img.gz");
	if (err == -ENOENT)
		SKIP(return, "there is no such image, or file system");
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, cf_blob_open(e, &b2, "other", SIZE));
	for (n = 0;; n++) {
		snprintf(path, sizeof(path), "%s/ballast.%d", e->dir, n);
		fd = open(path, O_CREAT | O_WRONLY | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0)
			break;
		close(fd);
	}
	ASSERT_EQ(ENOSPC, errno);
	err = cf_fill(b2.anon, "other", 0, CF_PAGE, SIZE);
	EXPECT_TRUE(err == -ENOSPC || err == -ENOBUFS)
		TH_LOG("making a file without an inode is %d", err);
	EXPECT_EQ(0, cf_reads_for(e, &self->b, 0, HALF));
	/* There is no inode for the directory in which it gets its name. */
	sleep(32);
	EXPECT_FALSE(cf_find_cache_file(e, "blob", NULL, self->path));
	while (n--) {
		snprintf(path, sizeof(path), "%s/ballast.%d", e->dir, n);
		ASSERT_EQ(0, unlink(path));
	}
	EXPECT_TRUE(CF_WAIT_FOR(cf_fill(b2.anon, "other", 0, CF_PAGE, SIZE) == 0, CF_SOON));
	EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), LATE));
	EXPECT_EQ(0, cf_reads_for(e, &self->b, 0, HALF));
}

/* The disk that a directory is on. */
static int disk_of(const char *dir, char path[64])
{
	struct stat st;

	if (stat(dir, &st))
		return -errno;
	snprintf(path, 64, "/dev/cachefiles-test-disk");
	unlink(path);
	return mknod(path, S_IFBLK | 0600, st.st_dev) ? -errno : 0;
}

static int set_limit(struct cf_env *e, uint64_t bytes)
{
	struct dqblk limit = { .dqb_bhardlimit = bytes / 1024, .dqb_valid = QIF_BLIMITS };
	char disk[64];
	int err = disk_of(e->dir, disk);

	/* It may be on already. */
	if (!err && quotactl(QCMD(Q_QUOTAON, USRQUOTA), disk, QFMT_VFS_V1, NULL) &&
	    errno != EEXIST)
		err = -errno;
	if (!err && quotactl(QCMD(Q_SETQUOTA, USRQUOTA), disk, 0, (void *)&limit))
		err = -errno;
	unlink(disk);
	return err;
}

/* Without CAP_SYS_RESOURCE, root has a quota as all others, and so has its cache. */
static int drop_cap_sys_resource(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d))
		return -errno;
	d[0].effective &= ~(1U << CAP_SYS_RESOURCE);
	return syscall(SYS_capset, &h, d) ? -errno : 0;
}

TEST_F_TIMEOUT(other, quota_is_used_up, 300)
{
	struct cf_env *e = &self->e;
	struct cf_blob *b = &self->b;
	int err;

	ASSERT_EQ(0, drop_cap_sys_resource());
	err = begin(e, b, "ext4", "fs_quota.img.gz");
	if (err == -ENOENT)
		SKIP(return, "there is no such image, or file system");
	ASSERT_EQ(0, err);
	err = set_limit(e, 1024);
	if (err)
		SKIP(return, "this file system has no quotas here");
	err = cf_fill(b->anon, "blob", HALF, CF_PAGE, SIZE);
	EXPECT_TRUE(err == -EDQUOT || err == -ENOSPC)
		TH_LOG("writing over a quota is %d", err);
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
	sleep(32);
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
	ASSERT_EQ(0, set_limit(e, 0));
	EXPECT_EQ(0, cf_fill(b->anon, "blob", HALF, CF_PAGE, SIZE));
	EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), LATE));
	ASSERT_EQ(0, cf_blob_give_up(e, b));
	ASSERT_TRUE(cf_is_released(e, self->path));
	ASSERT_EQ(0, cf_blob_look_up(e, b, SIZE));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF + CF_PAGE));
}

TEST_HARNESS_MAIN
