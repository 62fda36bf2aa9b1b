// SPDX-License-Identifier: GPL-2.0
/*
 * Permissions of the files of ondemandfs: root alone may read them, and so have them
 * fetched, unless options of the mount allow others.
 */
#include <grp.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	8192
#define NOBODY	65534
#define GROUP	4242

FIXTURE(private) {
	struct cf_env e;
	struct cf_daemon *d;
	char path[512];
};

FIXTURE_SETUP(private)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_SETUP(cf_env_bind(&self->e));
	/* for those who are not root */
	ASSERT_EQ(0, chmod(CF_ROOT, 0755));
	self->d = cf_daemon_new(self->e.dev, SIZE);
	ASSERT_NE(NULL, self->d);
	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	snprintf(self->path, sizeof(self->path), "%s/x", self->e.mnt);
	cf_modprobe("ondemandfs");
}

FIXTURE_TEARDOWN(private)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

static int mount_at(struct cf_env *e, const char *dir, unsigned long flags, const char *more)
{
	char opts[512];

	snprintf(opts, sizeof(opts), "domain=%s,cache=%s%s", e->domain, e->tag, more);
	return mount("none", dir, "ondemandfs", flags, opts) ? -errno : 0;
}

/* The errno of @what with @path, done by a user and group. */
static int as(uid_t uid, gid_t gid, int (*what)(const char *path), const char *path)
{
	pid_t pid = cf_fork();

	if (pid == 0) {
		if (setgroups(0, NULL) || setgid(gid) || setuid(uid))
			_exit(255);
		_exit(what(path));
	}
	return cf_reap(pid, CF_SOON);
}

static int try_open(const char *path)
{
	return open(path, O_RDONLY) < 0 ? errno : 0;
}

static int try_stat(const char *path)
{
	struct stat st;

	return stat(path, &st) ? errno : 0;
}

static int try_fstat(const char *path)
{
	struct stat st;

	/* @path is the number of an fd */
	return fstat(atoi(path), &st) ? errno : 0;
}

static int try_list(const char *path)
{
	return open(path, O_RDONLY | O_DIRECTORY) < 0 ? errno : 0;
}

static int try_watch(const char *path)
{
	int fd = syscall(SYS_inotify_init1, 0);

	return syscall(SYS_inotify_add_watch, fd, path, 0x20) < 0 ? errno : 0;
}

static mode_t mode_of(const char *path, uid_t *uid, gid_t *gid)
{
	struct stat st = {};

	stat(path, &st);
	*uid = st.st_uid;
	*gid = st.st_gid;
	return st.st_mode & 07777;
}

TEST_F_TIMEOUT(private, files_are_for_root_alone, 60)
{
	uid_t uid;
	gid_t gid;

	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, 0, ""));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_open, self->path));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_stat, self->path));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_watch, self->path));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_list, self->e.mnt));
	EXPECT_EQ(0, self->d->opens) TH_LOG("the user NOBODY had it fetched");
	EXPECT_EQ(0, as(0, 0, try_open, self->path));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_open, self->path));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_stat, self->path));
	EXPECT_EQ(0400, mode_of(self->path, &uid, &gid));
	EXPECT_EQ(0500, mode_of(self->e.mnt, &uid, &gid));
	EXPECT_EQ(0, uid);
	EXPECT_EQ(0, gid);
}

TEST_F_TIMEOUT(private, mode_lets_others_read, 60)
{
	uid_t uid;
	gid_t gid;

	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, 0, ",mode=444"));
	EXPECT_EQ(0, as(NOBODY, NOBODY, try_open, self->path));
	EXPECT_EQ(0, as(NOBODY, NOBODY, try_list, self->e.mnt));
	EXPECT_EQ(0444, mode_of(self->path, &uid, &gid));
	EXPECT_EQ(0555, mode_of(self->e.mnt, &uid, &gid));
}

TEST_F_TIMEOUT(private, group_may_read, 60)
{
	uid_t uid;
	gid_t gid;

	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, 0, ",mode=0640,gid=4242"));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_open, self->path));
	EXPECT_EQ(0, as(NOBODY, GROUP, try_open, self->path));
	/* There is nothing to write. */
	EXPECT_EQ(0440, mode_of(self->path, &uid, &gid));
	EXPECT_EQ(0550, mode_of(self->e.mnt, &uid, &gid));
	EXPECT_EQ(0, uid);
	EXPECT_EQ(GROUP, gid);
}

TEST_F_TIMEOUT(private, owner_may_read, 60)
{
	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, 0, ",uid=65534"));
	EXPECT_EQ(0, as(NOBODY, NOBODY, try_open, self->path));
	EXPECT_EQ(EACCES, as(1000, GROUP, try_open, self->path));
}

/* A task may have a file open (O_PATH) whose size is not known, and not be allowed to read it. */
TEST_F_TIMEOUT(private, stat_without_permission_asks_for_nothing, 60)
{
	char fd[16];

	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, 0, ""));
	snprintf(fd, sizeof(fd), "%d", open(self->path, O_PATH));
	ASSERT_NE('-', fd[0]);
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_fstat, fd));
	EXPECT_EQ(0, self->d->opens);
	EXPECT_EQ(0, as(0, 0, try_fstat, fd));
	EXPECT_EQ(1, self->d->opens);
	EXPECT_EQ(0, as(NOBODY, NOBODY, try_fstat, fd));
}

static bool options_have(struct cf_env *e, const char *what)
{
	char line[1024];
	bool found = false;
	FILE *f = fopen("/proc/self/mounts", "re");

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, e->mnt) && strstr(line, " ondemandfs "))
			found = strstr(line, what);
	if (f)
		fclose(f);
	return found;
}

TEST_F_TIMEOUT(private, remount_changes_it_for_all, 60)
{
	uid_t uid;
	gid_t gid;
	int fd;

	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, 0, ",mode=444,gid=4242"));
	EXPECT_TRUE(options_have(&self->e, "mode=444"));
	EXPECT_TRUE(options_have(&self->e, "gid=4242"));
	EXPECT_FALSE(options_have(&self->e, "uid="));
	fd = open(self->path, O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, MS_REMOUNT, ",mode=440"));
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_open, self->path));
	EXPECT_EQ(0, as(NOBODY, GROUP, try_open, self->path));
	EXPECT_EQ(0440, mode_of(self->path, &uid, &gid));
	EXPECT_EQ(0550, mode_of(self->e.mnt, &uid, &gid));
	EXPECT_EQ(GROUP, gid);
	EXPECT_EQ(0, cf_read_and_check("x", fd, 0, SIZE, SIZE));
	/* without options it stays as it is */
	ASSERT_EQ(0, mount("none", self->e.mnt, NULL, MS_REMOUNT, NULL));
	EXPECT_EQ(0440, mode_of(self->path, &uid, &gid));
	EXPECT_EQ(GROUP, gid);
	EXPECT_TRUE(options_have(&self->e, "mode=440"));
}

TEST_F_TIMEOUT(private, second_mount_with_other_options_is_refused, 60)
{
	char text[512] = "";
	int fs;

	ASSERT_EQ(0, mount_at(&self->e, self->e.mnt, 0, ",mode=440,gid=4242"));
	EXPECT_EQ(-EBUSY, mount_at(&self->e, self->e.erofs, 0, ""));
	EXPECT_EQ(-EBUSY, mount_at(&self->e, self->e.erofs, 0, ",mode=444,gid=4242"));
	EXPECT_EQ(-EBUSY, mount_at(&self->e, self->e.erofs, 0, ",mode=440,gid=4242,uid=1"));
	/* nor did it change the first */
	EXPECT_EQ(EACCES, as(NOBODY, NOBODY, try_open, self->path));
	EXPECT_EQ(0, mount_at(&self->e, self->e.erofs, 0, ",mode=440,gid=4242"));

	fs = syscall(SYS_fsopen, "ondemandfs", FSOPEN_CLOEXEC);
	ASSERT_GE(fs, 0);
	EXPECT_EQ(0, syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "domain", self->e.domain, 0));
	EXPECT_EQ(0, syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "cache", self->e.tag, 0));
	EXPECT_EQ(-1, syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_GT(read(fs, text, sizeof(text) - 1), 0);
	EXPECT_NE(NULL, strstr(text, "another mode=, uid= or gid=")) TH_LOG("%s", text);
	close(fs);
}

TEST_F_TIMEOUT(private, wrong_options_are_refused, 60)
{
	static const char * const wrong[] = {
		",mode=888", ",mode=1777", ",mode=", ",mode=rw", ",uid=-1", ",uid=root", ",gid=",
		",gid=4294967295", ",umask=022",
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		EXPECT_EQ(-EINVAL, mount_at(&self->e, self->e.mnt, 0, wrong[i])) {
			TH_LOG("option %d", i);
		}
}

TEST_HARNESS_MAIN
