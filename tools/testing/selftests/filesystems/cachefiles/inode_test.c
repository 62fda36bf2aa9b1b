// SPDX-License-Identifier: GPL-2.0
/*
 * Inodes of ondemandfs without dentries, held by inotify or Landlock, and inodes that
 * are evicted and made again: a lookup of the name finds the same file, or one with
 * the same number and times, and does not wait for a file of another name.
 */
#include <linux/landlock.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	(1024 * 1024ULL)

FIXTURE(pinned) {
	struct cf_env e;
	int dev;
	struct cf_daemon *d;
	int pin;
};

FIXTURE_VARIANT(pinned) {
	int (*pin)(const char *path);
};

/* Hold the inode at @path and nothing else: an fd that ends it, or -errno. */
static int pin_by_inotify(const char *path)
{
	int fd = inotify_init1(IN_CLOEXEC);

	if (fd < 0 || inotify_add_watch(fd, path, IN_OPEN) < 0)
		return -errno;
	return fd;
}

static int pin_by_landlock(const char *path)
{
	struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE,
	};
	struct landlock_path_beneath_attr rule = {
		.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE,
	};
	int fd, err = 0;

	fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (fd < 0)
		return -EOPNOTSUPP;
	rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (rule.parent_fd < 0 ||
	    syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		err = -errno;
	close(rule.parent_fd);
	return err ?: fd;
}

FIXTURE_VARIANT_ADD(pinned, by_inotify) { .pin = pin_by_inotify };
FIXTURE_VARIANT_ADD(pinned, by_landlock) { .pin = pin_by_landlock };

static void start_daemon(struct cf_env *e, struct cf_daemon **d)
{
	*d = cf_daemon_new(e->dev, SIZE);
	if (*d)
		cf_daemon_start(*d, 2);
}

FIXTURE_SETUP(pinned)
{
	self->pin = -1;
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(pinned)
{
	close(self->pin);
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

/* Have the kernel drop pages, dentries and inodes that are not in use. */
static void drop_all_caches(void)
{
	int i, fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	/* A dentry that was used since is spared once. */
	for (i = 0; i < 3; i++)
		if (write(fd, "3\n", 2) != 2)
			break;
	close(fd);
}

static long do_stat(struct cf_op *op)
{
	struct stat st;

	return stat(op->path, &st) ? -errno : 0;
}

/* A lookup finds every name, so these fail, and they fail at once. */
static long do_mkdir(struct cf_op *op)
{
	return mkdir(op->path, 0755) ? -errno : 0;
}

static long do_creat(struct cf_op *op)
{
	int fd = open(op->path, O_RDONLY | O_CREAT, 0644);

	return fd < 0 ? -errno : fd;
}

static long do_creat_new(struct cf_op *op)
{
	int fd = open(op->path, O_RDONLY | O_CREAT | O_EXCL, 0644);

	return fd < 0 ? -errno : fd;
}

static struct cf_op *start_at(struct cf_env *e, long (*fn)(struct cf_op *op), const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", e->mnt, name);
	return cf_start(fn, path, -1, 0, 0);
}

TEST_F_TIMEOUT(pinned, name_can_be_opened_again, 120)
{
	struct stat before, after;
	struct cf_blob b;
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/x", self->e.mnt);
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "x", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	ASSERT_EQ(0, fstat(b.fd, &before));
	self->pin = variant->pin(path);
	if (self->pin == -EOPNOTSUPP)
		SKIP(return, "there is no Landlock");
	ASSERT_GE(self->pin, 0);
	close(b.fd);
	drop_all_caches();

	start_daemon(&self->e, &self->d);
	fd = cf_finish(cf_start_open(self->e.mnt, "x"));
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstat(fd, &after));
	EXPECT_EQ(before.st_ino, after.st_ino);
	EXPECT_EQ(0, self->d->opens) TH_LOG("the daemon was asked for a file that was there");
	cf_no_readahead(fd);
	EXPECT_EQ(0, cf_read_and_check("x", fd, 0, 4096, 4096));
	EXPECT_EQ(0, cf_finish(start_at(&self->e, do_stat, "z")));
	EXPECT_EQ(-EEXIST, cf_finish(start_at(&self->e, do_mkdir, "y")));
}

TEST_F_TIMEOUT(pinned, file_never_opened_can_be_opened, 120)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/x", self->e.mnt);
	self->pin = variant->pin(path);
	if (self->pin == -EOPNOTSUPP)
		SKIP(return, "there is no Landlock");
	ASSERT_GE(self->pin, 0);
	drop_all_caches();
	start_daemon(&self->e, &self->d);
	EXPECT_GE(cf_finish(cf_start_open(self->e.mnt, "x")), 0);
	EXPECT_EQ(1, self->d->opens);
}

TEST_F_TIMEOUT(pinned, unmount_ends_it, 120)
{
	struct cf_blob b;
	char path[512];

	snprintf(path, sizeof(path), "%s/x", self->e.mnt);
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "x", SIZE));
	self->pin = variant->pin(path);
	if (self->pin == -EOPNOTSUPP)
		SKIP(return, "there is no Landlock");
	ASSERT_GE(self->pin, 0);
	close(b.fd);
	drop_all_caches();
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	close(b.anon);
	start_daemon(&self->e, &self->d);
	ASSERT_EQ(0, cf_env_mount_soon(&self->e));
	EXPECT_GE(cf_finish(cf_start_open(self->e.mnt, "x")), 0);
}

/* ------------------------------------------------------------- come and go */

FIXTURE(name) {
	struct cf_env e;
	int dev;
	struct cf_daemon *d;
	bool frozen;
};

FIXTURE_SETUP(name)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(name)
{
	if (self->frozen)
		cf_thaw(&self->e);
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

TEST_F_TIMEOUT(name, inode_number_and_times_stay, 120)
{
	struct stat st[4];
	int i, fd;

	start_daemon(&self->e, &self->d);
	for (i = 0; i < 4; i++) {
		fd = cf_finish(cf_start_open(self->e.mnt, i == 3 ? "b" : "a"));
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, fstat(fd, &st[i]));
		close(fd);
		drop_all_caches();
		if (i == 1) {
			ASSERT_EQ(0, cf_env_umount_soon(&self->e));
			cf_sleep_ms(1100);
			ASSERT_EQ(0, cf_env_mount_soon(&self->e));
		}
	}
	for (i = 1; i < 3; i++) {
		EXPECT_EQ(st[0].st_ino, st[i].st_ino);
		EXPECT_EQ(0, memcmp(&st[0].st_mtim, &st[i].st_mtim, sizeof(st[0].st_mtim)));
		EXPECT_EQ(0, memcmp(&st[0].st_ctim, &st[i].st_ctim, sizeof(st[0].st_ctim)));
	}
	EXPECT_NE(st[0].st_ino, st[3].st_ino);
}

/* The daemon is silent, and so is the file system that the cache is on. */
TEST_F_TIMEOUT(name, others_answer_while_one_cannot_be_given_up, 180)
{
	struct cf_op *again, *creat;
	struct cf_blob b;
	struct cf_msg m;
	char path[512];
	pid_t pid;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "x", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	close(b.fd);
	ASSERT_EQ(0, cf_freeze(&self->e));
	self->frozen = true;
	drop_all_caches();

	/* Its object is being put away, which takes until the file system thaws. */
	snprintf(path, sizeof(path), "%s/x", self->e.mnt);
	pid = cf_fork();
	if (pid == 0) {
		open(path, O_RDONLY);
		_exit(0);
	}
	EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, 500));
	EXPECT_EQ(-EEXIST, cf_finish(start_at(&self->e, do_mkdir, "y")));
	EXPECT_EQ(-EEXIST, cf_finish(start_at(&self->e, do_creat_new, "new")));
	EXPECT_EQ(0, cf_finish(cf_start(do_stat, self->e.mnt, -1, 0, 0)));
	EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, 0)) TH_LOG("nothing held it up");
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));

	/* Only the opener waits, and only until then. */
	again = cf_start_open(self->e.mnt, "x");
	EXPECT_EQ(-ETIMEDOUT, cf_wait(again, CF_NEVER));
	creat = start_at(&self->e, do_creat, "x");
	ASSERT_EQ(0, cf_thaw(&self->e));
	self->frozen = false;
	while (cf_wait(again, 0) == -ETIMEDOUT || cf_wait(creat, 0) == -ETIMEDOUT) {
		ASSERT_EQ(0, cf_recv(self->dev, &m, CF_SOON));
		if (m.w.opcode == CF_OPEN)
			ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
		cf_wait(again, 100);
		cf_wait(creat, 100);
	}
	EXPECT_GE(cf_finish(again), 0);
	EXPECT_GE(cf_finish(creat), 0);
}

/* An opener waits for the daemon. */
TEST_F_TIMEOUT(name, others_answer_while_the_daemon_is_silent, 120)
{
	struct cf_op *op;
	struct cf_msg m;

	op = cf_open_and_recv(&self->e, "x", &m);
	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EEXIST, cf_finish(start_at(&self->e, do_mkdir, "y")));
	EXPECT_EQ(-EEXIST, cf_finish(start_at(&self->e, do_creat_new, "new")));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
	EXPECT_GE(cf_finish(op), 0);
}

static long do_list(struct cf_op *op)
{
	int fd = open(op->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long n = syscall(SYS_getdents64, fd, (void *)op->off, op->len);

	n = n < 0 ? -errno : n;
	close(fd);
	return n;
}

/* To memory that waits for the daemon: a file that is mapped. */
TEST_F_TIMEOUT(name, others_answer_while_a_listing_is_written, 120)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	char *p;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "x", SIZE));
	cf_no_readahead(b.fd);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, b.fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	op = cf_start(do_list, self->e.mnt, -1, (off_t)p, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	EXPECT_EQ(-EEXIST, cf_finish(start_at(&self->e, do_mkdir, "y")));
	EXPECT_EQ(-EEXIST, cf_finish(start_at(&self->e, do_creat_new, "new")));
	ASSERT_EQ(0, cf_blob_answer_read(&b, &m));
	EXPECT_LT(0, cf_finish(op));
}

/* Their pages cannot go before the daemon has answered. */
TEST_F_TIMEOUT(name, closed_files_that_are_being_read_do_not_hold_reclaim_up, 120)
{
	char name[16];
	struct cf_clock clock;
	int i, fd;

	if (cf_intended("readahead-waits"))
		SKIP(return, "a file is closed when its READs are answered");
	start_daemon(&self->e, &self->d);
	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "r%d", i);
		fd = cf_finish(cf_start_open(self->e.mnt, name));
		ASSERT_GE(fd, 0);
		self->d->hold_reads = true;
		ASSERT_EQ(0, posix_fadvise(fd, 0, 4096, POSIX_FADV_WILLNEED));
		close(fd);
	}
	ASSERT_TRUE(CF_WAIT_FOR(self->d->reads >= 20, CF_SOON));
	cf_clock_start(&clock);
	drop_all_caches();
	EXPECT_LT(cf_spent(&clock), 6000);
	/* Some of those that it holds may be cancelled, and their fds closed. */
	cf_daemon_release_reads(self->d);
	fd = cf_finish(cf_start_open(self->e.mnt, "r0"));
	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, cf_read_and_check("r0", fd, 0, 4096, 4096));
}

/* ------------------------------------------------------------------- races */

#define ROUNDS		12
#define WATCHES		4
#define NAMES		500	/* of each */

static int watch[WATCHES];

static long close_watches(struct cf_op *op)
{
	int i;

	for (i = 0; i < WATCHES; i++)
		close(watch[i]);
	return 0;
}

/* Inodes without dentries come to their end while the file system does. */
TEST_F_TIMEOUT(name, watches_end_while_it_is_unmounted, 600)
{
	struct cf_op *end, *um;
	char path[512];
	int i, j, k;

	for (i = 0; i < ROUNDS; i++) {
		for (j = 0; j < WATCHES; j++) {
			watch[j] = inotify_init1(IN_CLOEXEC);
			ASSERT_GE(watch[j], 0);
			for (k = 0; k < NAMES; k++) {
				snprintf(path, sizeof(path), "%s/w%d.%d", self->e.mnt, j, k);
				ASSERT_GE(inotify_add_watch(watch[j], path, IN_OPEN), 0);
			}
		}
		drop_all_caches();
		end = cf_start(close_watches, NULL, -1, 0, 0);
		um = cf_start_umount(self->e.mnt, 0);
		ASSERT_EQ(0, cf_wait(end, 60000)) TH_LOG("round %d", i);
		ASSERT_EQ(0, cf_wait(um, 60000)) TH_LOG("round %d", i);
		cf_op_free(end);
		cf_op_free(um);
		ASSERT_EQ(0, cf_env_mount_soon(&self->e)) TH_LOG("round %d", i);
	}
}

TEST_HARNESS_MAIN
