// SPDX-License-Identifier: GPL-2.0
/*
 * The directory of ondemandfs: which names readdir() lists, when the daemon is asked for
 * a name that it has refused, and what statfs() and du say.
 */
#include <dirent.h>
#include <ftw.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define REFUSED	100

#define C_SAYS_EIO "C says EIO, whatever the daemon said: it may pass"

FIXTURE(names) {
	struct cf_env e;
	struct cf_daemon *d;
};

static atomic_int refuse_all;	/* errno for all names */

/* sN has N bytes; eN is refused with errno N; there is nothing else. */
static long long size_of(struct cf_daemon *d, const char *name)
{
	if (refuse_all)
		return -refuse_all;
	if (name[0] == 's')
		return atoll(name + 1);
	return name[0] == 'e' ? -atoll(name + 1) : -ENOENT;
}

FIXTURE_SETUP(names)
{
	refuse_all = 0;
	ASSERT_SETUP(cf_env_all(&self->e));
	self->d = cf_daemon_new(self->e.dev, 0);
	ASSERT_NE(NULL, self->d);
	self->d->size_of = size_of;
	ASSERT_EQ(0, cf_daemon_start(self->d, 2));
}

FIXTURE_TEARDOWN(names)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

static long do_stat(struct cf_op *op)
{
	struct stat st;

	return stat(op->path, &st) ? -errno : st.st_size;
}

static long stat_name(struct cf_env *e, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", e->mnt, name);
	return cf_finish(cf_start(do_stat, path, -1, 0, 0));
}

static long open_name(struct cf_env *e, const char *name)
{
	long fd = cf_finish(cf_start_open(e->mnt, name));

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static int nlisted, nfailed;
static char listed[4096];

static int note(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	if (type == FTW_NS)
		nfailed++;
	if (ftw->level == 0)
		return 0;
	nlisted++;
	strncat(listed, path + ftw->base, sizeof(listed) - strlen(listed) - 2);
	strcat(listed, " ");
	return 0;
}

/* As "ls -l", "du" and "find" do it. */
static int list(struct cf_env *e)
{
	nlisted = 0;
	nfailed = 0;
	listed[0] = 0;
	return nftw(e->mnt, note, 16, FTW_PHYS) ? -errno : nlisted;
}

TEST_F_TIMEOUT(names, that_exist_are_listed, 60)
{
	struct stat st;
	char path[512];
	DIR *dir;
	struct dirent *de;
	int n = 0;

	EXPECT_EQ(0, list(&self->e));
	EXPECT_EQ(0, open_name(&self->e, "s100"));
	EXPECT_EQ(200, stat_name(&self->e, "s200"));
	EXPECT_EQ(2, list(&self->e));
	EXPECT_STREQ("s100 s200 ", listed);
	EXPECT_EQ(2, self->d->opens);

	dir = opendir(self->e.mnt);
	ASSERT_NE(NULL, dir);
	while ((de = readdir(dir))) {
		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", self->e.mnt, de->d_name);
		ASSERT_EQ(0, stat(path, &st));
		EXPECT_EQ(st.st_ino, de->d_ino);
		EXPECT_EQ(DT_REG, de->d_type);
		n++;
	}
	closedir(dir);
	EXPECT_EQ(2, n);
}

TEST_F_TIMEOUT(names, that_are_refused_are_not_listed, 120)
{
	char name[16];
	int i, opens;

	if (!cf_intended("opener-gets-the-errno"))
		SKIP(return, C_SAYS_EIO);
	for (i = 0; i < REFUSED; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		ASSERT_EQ(-ENOENT, i % 2 ? open_name(&self->e, name) : stat_name(&self->e, name));
	}
	EXPECT_EQ(0, open_name(&self->e, "s5"));
	opens = self->d->opens;
	cf_sleep_ms(1500);
	EXPECT_EQ(1, list(&self->e));
	EXPECT_STREQ("s5 ", listed);
	EXPECT_EQ(0, nfailed);
	EXPECT_EQ(opens, self->d->opens) TH_LOG("a listing asked the daemon");
}

TEST_F_TIMEOUT(names, that_were_only_looked_up_are_not_listed, 60)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/s5", self->e.mnt);
	fd = open(path, O_PATH | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, list(&self->e));
	EXPECT_EQ(0, self->d->opens);
	close(fd);
}

TEST_F_TIMEOUT(names, that_are_refused_are_asked_for_again_after_a_moment, 60)
{
	long start = cf_now_ms();
	int i;

	if (!cf_intended("opener-gets-the-errno"))
		SKIP(return, C_SAYS_EIO);
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(-ENOENT, open_name(&self->e, "nothing"));
		EXPECT_EQ(-ENOENT, stat_name(&self->e, "nothing"));
	}
	EXPECT_LE(self->d->opens, 1 + (cf_now_ms() - start) / 1000);
	cf_sleep_ms(1500);
	i = self->d->opens;
	EXPECT_EQ(-ENOENT, open_name(&self->e, "nothing"));
	EXPECT_EQ(i + 1, self->d->opens);
}

TEST_F_TIMEOUT(names, that_fail_otherwise_are_asked_for_at_once, 60)
{
	static const int errors[] = { EIO, ETIMEDOUT, EAGAIN, ENOMEM };
	char name[16];
	int i;

	if (!cf_intended("opener-gets-the-errno"))
		SKIP(return, C_SAYS_EIO);
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		snprintf(name, sizeof(name), "e%d", errors[i]);
		self->d->opens = 0;
		EXPECT_EQ(-errors[i], open_name(&self->e, name));
		EXPECT_EQ(-errors[i], open_name(&self->e, name));
		EXPECT_EQ(2, self->d->opens);
	}
	EXPECT_EQ(0, list(&self->e));
}

/* The daemon refuses a name that it served before, and later serves it again. */
TEST_F_TIMEOUT(names, that_go_and_come_back, 120)
{
	char path[512];
	int fd;

	if (!cf_intended("opener-gets-the-errno"))
		SKIP(return, C_SAYS_EIO);
	snprintf(path, sizeof(path), "%s/s5000", self->e.mnt);
	EXPECT_EQ(0, open_name(&self->e, "s5000"));
	EXPECT_EQ(1, list(&self->e));
	/* fscache gives up an unused cookie after 10 s. */
	ASSERT_TRUE(CF_WAIT_FOR(self->d->closes == 1, 40000));
	refuse_all = ENOENT;
	EXPECT_EQ(-ENOENT, open_name(&self->e, "s5000"));
	EXPECT_EQ(-ENOENT, stat_name(&self->e, "s5000"));
	EXPECT_EQ(0, list(&self->e));
	refuse_all = 0;
	cf_sleep_ms(1500);
	EXPECT_EQ(5000, stat_name(&self->e, "s5000"));
	EXPECT_EQ(1, list(&self->e));
	fd = cf_finish(cf_start_open(self->e.mnt, "s5000"));
	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, cf_read_and_check("s5000", fd, 0, 5000, 5000));
	close(fd);
}

TEST_F_TIMEOUT(names, are_listed_once_each_while_they_come_and_go, 120)
{
	char name[16], buf[512];
	int i, n = 0, drop;
	struct dirent *de;
	DIR *dir;

	for (i = 1; i <= 300; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		ASSERT_EQ(0, open_name(&self->e, name));
	}
	EXPECT_EQ(300, list(&self->e));
	dir = opendir(self->e.mnt);
	ASSERT_NE(NULL, dir);
	/* A buffer of readdir() holds about a thousand; so with less of it at a time. */
	for (;;) {
		long len = syscall(SYS_getdents64, dirfd(dir), buf, sizeof(buf));
		long at;

		ASSERT_GE(len, 0);
		if (!len)
			break;
		for (at = 0; at < len; at += *(unsigned short *)(buf + at + 16))
			n += buf[at + 19] != '.';
	}
	EXPECT_EQ(300, n);
	rewinddir(dir);
	for (i = 0, n = 0; (de = readdir(dir)); i++) {
		n += de->d_name[0] != '.';
		if (i != 100)
			continue;
		drop = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
		EXPECT_EQ(2, write(drop, "2\n", 2));
		close(drop);
	}
	EXPECT_LE(n, 300);
	closedir(dir);
}

TEST_F_TIMEOUT(names, count_in_statfs_and_du, 60)
{
	struct statfs st;
	struct stat f;
	char path[512];

	if (!cf_intended("opener-gets-the-errno"))
		SKIP(return, C_SAYS_EIO);
	ASSERT_EQ(0, statfs(self->e.mnt, &st));
	EXPECT_GT(st.f_blocks, 0) TH_LOG("nothing at all looks broken to some");
	EXPECT_GT(st.f_files, 0);
	EXPECT_EQ(0, open_name(&self->e, "s8192"));
	EXPECT_EQ(0, open_name(&self->e, "s5000"));
	EXPECT_EQ(-ENOENT, open_name(&self->e, "nothing"));
	ASSERT_EQ(0, statfs(self->e.mnt, &st));
	EXPECT_EQ(4096, st.f_bsize);
	EXPECT_EQ(4, st.f_blocks);
	EXPECT_EQ(0, st.f_bfree);
	EXPECT_EQ(3, st.f_files) TH_LOG("the root, and two");
	EXPECT_EQ(255, st.f_namelen);
	snprintf(path, sizeof(path), "%s/s5000", self->e.mnt);
	ASSERT_EQ(0, stat(path, &f));
	EXPECT_EQ(10, f.st_blocks);
}

TEST_HARNESS_MAIN
