// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/cachefiles: open, the commands and their errors, read and poll of an
 * idle device.
 *
 * Not here because user space cannot produce them: ERANGE of bind (each limit
 * command already refuses what bind would), and two caches with one tag (the
 * device can only be open once, and closing it withdraws its cache).
 */
#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

static bool exists(const char *dir, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

static int touch(const char *path)
{
	int fd = open(path, O_CREAT | O_WRONLY, 0644);

	return fd < 0 ? -errno : close(fd);
}

/* ------------------------------------------------------------------ open */

FIXTURE(open) {
	struct cf_env e;
};

FIXTURE_SETUP(open)
{
	ASSERT_SETUP(cf_env_init(&self->e));
}

FIXTURE_TEARDOWN(open)
{
	cf_env_end(&self->e);
}

static void drop_cap_sys_admin(void)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d))
		_exit(100);
	d[0].effective &= ~(1U << CAP_SYS_ADMIN);
	if (syscall(SYS_capset, &h, d))
		_exit(101);
}

TEST_F_TIMEOUT(open, without_cap_sys_admin_is_EPERM, 30)
{
	pid_t pid = cf_fork();

	if (pid == 0) {
		drop_cap_sys_admin();
		_exit(-cf_device_open());
	}
	EXPECT_EQ(EPERM, cf_reap(pid, CF_SOON));
}

TEST_F_TIMEOUT(open, second_open, 30)
{
	long expected = cf_intended("second-daemon");
	int fd;

	self->e.dev = cf_device_open();
	ASSERT_GE(self->e.dev, 0);
	fd = cf_device_open();
	EXPECT_EQ(expected, fd < 0 ? fd : 0);
	if (fd >= 0)
		close(fd);
}

TEST_F_TIMEOUT(open, free_again_at_once_after_close, 30)
{
	int i;

	for (i = 0; i < 100; i++) {
		int fd = cf_device_open();

		ASSERT_GE(fd, 0) TH_LOG("open number %d: %s", i, strerror(-fd));
		ASSERT_EQ(0, close(fd));
	}
}

TEST_F_TIMEOUT(open, second_open_leaves_the_holder_alone, 30)
{
	int fd;

	ASSERT_SETUP(cf_env_bind(&self->e));
	fd = cf_device_open();
	if (fd >= 0)
		ASSERT_EQ(0, close(fd));
	EXPECT_EQ(0, cf_cmd(self->e.dev, "restore"));
}

TEST_F_TIMEOUT(open, while_an_anon_fd_is_still_held, 60)
{
	int fd, expected = cf_intended("device-busy-by-anon-fd");
	struct cf_blob b;
	pid_t pid;

	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "held", 4096));
	pid = cf_fork();
	if (pid == 0) {
		close(self->e.dev);
		pause();
		_exit(0);
	}
	cf_env_close(&self->e);
	/* The child may still be on its way to its close(). */
	CF_WAIT_FOR((fd = cf_device_open()) != -EBUSY, 2000);
	EXPECT_EQ(expected, fd < 0 ? fd : 0);
	if (fd >= 0)
		close(fd);
	EXPECT_EQ(0, kill(pid, 0));
	kill(pid, SIGKILL);
	cf_reap(pid, CF_SOON);
	/* The copy that this process got. */
	close(b.anon);
	EXPECT_TRUE(CF_WAIT_FOR((fd = cf_device_open()) >= 0, 5000));
}

/* ------------------------------------------------- commands, before bind */

FIXTURE(command) {
	struct cf_env e;
	int dev;
};

FIXTURE_SETUP(command)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	CF_WAIT_FOR((self->e.dev = cf_device_open()) != -EBUSY, 5000);
	ASSERT_GE(self->e.dev, 0);
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(command)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(command, empty_write_is_EOPNOTSUPP, 30)
{
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd_raw(self->dev, "", 0));
}

TEST_F_TIMEOUT(command, unknown_name_is_EOPNOTSUPP, 30)
{
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "frobnicate"));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "DEBUG 0"));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "debugx 0"));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "debu 0"));
	/* cachefilesd sends every line of its configuration */
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "nocull"));
}

TEST_F_TIMEOUT(command, leading_whitespace_is_EOPNOTSUPP, 30)
{
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, " debug 0"));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "\tdebug 0"));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, " "));
}

TEST_F_TIMEOUT(command, leading_newline_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "\n"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "\ndebug 0"));
}

TEST_F_TIMEOUT(command, all_after_a_newline_is_ignored, 30)
{
	EXPECT_EQ(0, cf_cmd(self->dev, "debug 0\n"));
	EXPECT_EQ(0, cf_cmd(self->dev, "debug 0\nrubbish"));
	/* also within what would be the argument */
	EXPECT_EQ(0, cf_cmd(self->dev, "brun 20%%\n21%%"));
}

TEST_F_TIMEOUT(command, embedded_nul_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd_raw(self->dev, "debug 0", 8));
	EXPECT_EQ(-EINVAL, cf_cmd_raw(self->dev, "debug\0 0", 8));
	EXPECT_EQ(-EINVAL, cf_cmd_raw(self->dev, "\0debug 0", 8));
	/* even after the newline that would have hidden it */
	EXPECT_EQ(-EINVAL, cf_cmd_raw(self->dev, "debug 0\nx\0", 10));
}

TEST_F_TIMEOUT(command, spaces_between_name_and_argument_are_skipped, 30)
{
	EXPECT_EQ(0, cf_cmd(self->dev, "debug \t  0"));
	EXPECT_EQ(0, cf_cmd(self->dev, "debug\t0"));
}

TEST_F_TIMEOUT(command, trailing_space_belongs_to_the_argument, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "debug 0 "));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "brun 10%% "));
}

TEST_F_TIMEOUT(command, one_page_is_too_long, 30)
{
	long page = sysconf(_SC_PAGESIZE);
	char *buf = malloc(page + 1);

	ASSERT_NE(NULL, buf);
	memset(buf, ' ', page + 1);
	memcpy(buf, "debug", 5);
	buf[page - 2] = '0';
	EXPECT_EQ(0, cf_cmd_raw(self->dev, buf, page - 1));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd_raw(self->dev, buf, page));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd_raw(self->dev, buf, page + 1));
	free(buf);
}

TEST_F_TIMEOUT(command, unreadable_buffer_is_EFAULT, 30)
{
	long page = sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, munmap(p + page, page));
	EXPECT_EQ(-EFAULT, cf_cmd_raw(self->dev, p + page, 7));
	/* half of it readable */
	memcpy(p + page - 4, "debu", 4);
	EXPECT_EQ(-EFAULT, cf_cmd_raw(self->dev, p + page - 4, 7));
	/* the length is looked at first */
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd_raw(self->dev, p + page, page));
}

TEST_F_TIMEOUT(command, dir_empty_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "dir"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "dir "));
}

TEST_F_TIMEOUT(command, dir_second_is_EEXIST, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EEXIST, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "dir"));
}

TEST_F_TIMEOUT(command, tag_empty_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "tag"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "tag "));
}

TEST_F_TIMEOUT(command, tag_second_is_EEXIST, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "tag one"));
	EXPECT_EQ(-EEXIST, cf_cmd(self->dev, "tag one"));
	EXPECT_EQ(-EEXIST, cf_cmd(self->dev, "tag two"));
}

TEST_F_TIMEOUT(command, secctx_empty_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "secctx"));
}

TEST_F_TIMEOUT(command, secctx_unknown_to_the_lsm_is_refused, 30)
{
	long without_lsm = cf_intended("secctx-without-lsm");
	int err = cf_cmd(self->dev, "secctx no_such_context_u:r:t");

	/* EOPNOTSUPP without an LSM that has contexts, else what the LSM says */
	EXPECT_TRUE(err == -EOPNOTSUPP || err == -EINVAL || err == -ENOENT ||
		    err == without_lsm)
		TH_LOG("got %d", err);
}

FIXTURE(limit) {
	struct cf_env e;
	char run[8], cull[8], stop[8];
};

FIXTURE_VARIANT(limit) {
	char kind;
};

FIXTURE_VARIANT_ADD(limit, blocks) {
	.kind = 'b',
};

FIXTURE_VARIANT_ADD(limit, files) {
	.kind = 'f',
};

FIXTURE_SETUP(limit)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	CF_WAIT_FOR((self->e.dev = cf_device_open()) != -EBUSY, 5000);
	ASSERT_GE(self->e.dev, 0);
	snprintf(self->run, sizeof(self->run), "%crun", variant->kind);
	snprintf(self->cull, sizeof(self->cull), "%ccull", variant->kind);
	snprintf(self->stop, sizeof(self->stop), "%cstop", variant->kind);
}

FIXTURE_TEARDOWN(limit)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(limit, in_order_is_accepted, 30)
{
	int dev = self->e.dev;

	EXPECT_EQ(0, cf_cmd(dev, "%s 99%%", self->run));
	EXPECT_EQ(0, cf_cmd(dev, "%s 98%%", self->cull));
	EXPECT_EQ(0, cf_cmd(dev, "%s 97%%", self->stop));
	EXPECT_EQ(0, cf_cmd(dev, "%s 0%%", self->stop));
	EXPECT_EQ(0, cf_cmd(dev, "%s 1%%", self->cull));
	EXPECT_EQ(0, cf_cmd(dev, "%s 2%%", self->run));
}

TEST_F_TIMEOUT(limit, out_of_order_is_EINVAL_and_changes_nothing, 30)
{
	int dev = self->e.dev;

	/* the defaults are 7, 5 and 1 */
	EXPECT_EQ(-EINVAL, cf_cmd(dev, "%s 5%%", self->run));
	EXPECT_EQ(-EINVAL, cf_cmd(dev, "%s 4%%", self->run));
	EXPECT_EQ(-EINVAL, cf_cmd(dev, "%s 100%%", self->run));
	EXPECT_EQ(-EINVAL, cf_cmd(dev, "%s 7%%", self->cull));
	EXPECT_EQ(-EINVAL, cf_cmd(dev, "%s 1%%", self->cull));
	EXPECT_EQ(-EINVAL, cf_cmd(dev, "%s 5%%", self->stop));
	/* only true if the values are still 7, 5 and 1 */
	EXPECT_EQ(0, cf_cmd(dev, "%s 6%%", self->run));
	EXPECT_EQ(0, cf_cmd(dev, "%s 2%%", self->cull));
	EXPECT_EQ(-EINVAL, cf_cmd(dev, "%s 2%%", self->stop));
}

TEST_F_TIMEOUT(limit, junk_is_EINVAL, 30)
{
	static const char * const junk[] = {
		"", " ", "50", "%", "50%%", "50% ", "50 %", "x%", "-50%", "+50%", "0x32%", "5e1%",
		"50.0%", "50%x",
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(junk); i++)
		EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s %s", self->run, junk[i]))
			TH_LOG("junk[%d]", i);
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s", self->run));
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s", self->cull));
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s", self->stop));
}

/* 2^64+8 must not pass as 8, nor 2^32+8, nor 2^8+8. */
TEST_F_TIMEOUT(limit, overflow_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s 18446744073709551624%%", self->run));
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s 4294967304%%", self->run));
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s 264%%", self->run));
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s 18446744073709551618%%", self->cull));
	EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "%s 18446744073709551616%%", self->stop));
}

TEST_F_TIMEOUT(command, debug_takes_a_number_in_any_base, 30)
{
	EXPECT_EQ(0, cf_cmd(self->dev, "debug 0"));
	EXPECT_EQ(0, cf_cmd(self->dev, "debug 0x0"));
	EXPECT_EQ(0, cf_cmd(self->dev, "debug 00"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "debug x"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "debug 0x"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "debug 1,2"));
}

TEST_F_TIMEOUT(command, debug_without_a_mask_means_none, 30)
{
	EXPECT_EQ(0, cf_cmd(self->dev, "debug"));
}

#define DEBUG_PARAMETER	"/sys/module/cachefiles/parameters/debug"

static long debug_parameter(void)
{
	char text[32] = "";
	int fd = open(DEBUG_PARAMETER, O_RDONLY | O_CLOEXEC);
	long value = fd < 0 ? -errno : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	return value < 0 ? value : strtol(text, NULL, 10);
}

TEST_F_TIMEOUT(command, debug_is_a_module_parameter, 30)
{
	struct stat st;
	int fd;

	ASSERT_EQ(0, stat(DEBUG_PARAMETER, &st));
	EXPECT_EQ(S_IFREG | 0644, st.st_mode);
	EXPECT_EQ(0, debug_parameter());
	EXPECT_EQ(0, cf_cmd(self->dev, "debug 0x3"));
	EXPECT_EQ(3, debug_parameter());
	fd = open(DEBUG_PARAMETER, O_WRONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(-1, write(fd, "-1", 2));
	EXPECT_EQ(3, debug_parameter());
	EXPECT_EQ(1, write(fd, "2", 1));
	EXPECT_EQ(2, debug_parameter());
	close(fd);
	EXPECT_EQ(0, cf_cmd(self->dev, "debug"));
	EXPECT_EQ(0, debug_parameter());
}

/* Has the kernel logged this, as an error, since @log was opened? */
static bool logged(int log, const char *text)
{
	static char line[8192];
	bool found = false;
	ssize_t len;

	while ((len = read(log, line, sizeof(line) - 1)) > 0 || (len < 0 && errno == EPIPE)) {
		line[len < 0 ? 0 : len] = 0;
		/* The number is the level, where the facility is the kernel. */
		found |= !strncmp(line, "3,", 2) && strstr(line, text);
	}
	return found;
}

TEST_F_TIMEOUT(command, mistakes_are_logged, 60)
{
	static const struct {
		const char *command, *text;
	} mistakes[] = {
		{ "brun 1%", "Free space limits must be in range 0%<=stop<cull<run<100%" },
		{ "dir", "Empty directory specified" },
		{ "tag", "Empty tag specified" },
		{ "secctx", "Empty security context specified" },
		{ "debug x", "debug command requires mask" },
		{ "cull a/b", "cull command requires dirfd and filename" },
		{ "cull a", "cull applied to unready cache" },
		{ "inuse a/b", "inuse command requires dirfd and filename" },
		{ "inuse a", "inuse applied to unready cache" },
		{ "bind", "No cache directory specified" },
		{ "dir /", NULL },
		{ "dir /", "Second cache directory specified" },
	};
	char text[128];
	int log, i;

	log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_GE(log, 0);
	for (i = 0; i < sizeof(mistakes) / sizeof(*mistakes); i++) {
		ASSERT_GE(lseek(log, 0, SEEK_END), 0);
		EXPECT_EQ(!mistakes[i].text, !cf_cmd(self->dev, "%s", mistakes[i].command));
		if (!mistakes[i].text)
			continue;
		snprintf(text, sizeof(text), ";CacheFiles: %s\n", mistakes[i].text);
		EXPECT_TRUE(logged(log, text)) TH_LOG("not logged: %s", text);
	}
	close(log);
}

TEST_F_TIMEOUT(command, cull_and_inuse_with_a_slash_are_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "cull a/b"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "inuse /"));
}

TEST_F_TIMEOUT(command, cull_and_inuse_before_bind_are_EIO, 30)
{
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "cull a"));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "inuse a"));
}

TEST_F_TIMEOUT(command, copen_and_restore_before_bind_are_EOPNOTSUPP, 30)
{
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "copen 0,4096"));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "copen"));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "restore"));
}

TEST_F_TIMEOUT(command, read_before_bind_is_0, 30)
{
	char buf[CF_MSG_MAX];

	EXPECT_EQ(0, read(self->dev, buf, sizeof(buf)));
	EXPECT_EQ(0, read(self->dev, buf, 1));
}

TEST_F_TIMEOUT(command, poll_before_bind_reports_nothing, 30)
{
	struct pollfd p = { .fd = self->dev, .events = POLLIN | POLLOUT };

	EXPECT_EQ(0, poll(&p, 1, CF_NEVER));
}

/* ------------------------------------------------------------------ bind */

TEST_F_TIMEOUT(command, bind_creates_cache_and_graveyard, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_TRUE(exists(self->e.dir, "cache"));
	EXPECT_TRUE(exists(self->e.dir, "graveyard"));
}

TEST_F_TIMEOUT(command, bound_directories_cannot_be_removed_until_close, 30)
{
	char path[PATH_MAX];

	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
	snprintf(path, sizeof(path), "%s/cache", self->e.dir);
	EXPECT_EQ(-1, rmdir(path));
	EXPECT_EQ(EBUSY, errno);
	cf_env_close(&self->e);
	EXPECT_EQ(0, rmdir(path)) TH_LOG("%s", strerror(errno));
}

TEST_F_TIMEOUT(command, bind_accepts_what_an_earlier_bind_left, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
	cf_env_close(&self->e);
	ASSERT_EQ(0, cf_env_bind(&self->e)) TH_LOG("%s", self->e.why);
}

TEST_F_TIMEOUT(command, bind_takes_a_path_relative_to_the_cwd, 30)
{
	ASSERT_EQ(0, chdir(self->e.base));
	ASSERT_EQ(0, cf_cmd(self->dev, "dir c"));
	EXPECT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_TRUE(exists(self->e.dir, "cache"));
}

TEST_F_TIMEOUT(command, bind_without_dir_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind junk"));
}

TEST_F_TIMEOUT(command, bind_with_an_unknown_argument_is_EINVAL, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind junk"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind ondemand "));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind ondemandx"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind ONDEMAND"));
}

TEST_F_TIMEOUT(command, bind_twice_is_EBUSY_whatever_the_argument, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(-EBUSY, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(-EBUSY, cf_cmd(self->dev, "bind"));
	EXPECT_EQ(-EBUSY, cf_cmd(self->dev, "bind junk"));
}

TEST_F_TIMEOUT(command, bind_without_ondemand, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(0, cf_cmd(self->dev, "bind"));
	EXPECT_TRUE(exists(self->e.dir, "cache"));
}

TEST_F_TIMEOUT(command, bind_to_a_missing_directory_is_ENOENT, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s/missing", self->e.base));
	EXPECT_EQ(-ENOENT, cf_cmd(self->dev, "bind ondemand"));
}

TEST_F_TIMEOUT(command, bind_to_a_file_is_ENOTDIR, 30)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/file", self->e.base);
	ASSERT_EQ(0, touch(path));
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", path));
	EXPECT_EQ(-ENOTDIR, cf_cmd(self->dev, "bind ondemand"));
}

TEST_F_TIMEOUT(command, bind_with_a_file_named_cache_is_EIO, 30)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/cache", self->e.dir);
	ASSERT_EQ(0, touch(path));
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(0, unlink(path)) TH_LOG("left in use: %s", strerror(errno));
}

TEST_F_TIMEOUT(command, bind_with_a_file_named_graveyard_is_EIO, 30)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/graveyard", self->e.dir);
	ASSERT_EQ(0, touch(path));
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(0, unlink(path)) TH_LOG("left in use: %s", strerror(errno));
	/* neither is cache/, which came first */
	snprintf(path, sizeof(path), "%s/cache", self->e.dir);
	EXPECT_EQ(0, rmdir(path)) TH_LOG("left in use: %s", strerror(errno));
}

TEST_F_TIMEOUT(command, bind_without_space_for_cache_is_ENOBUFS, 30)
{
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->dev, "brun 90%%"));
	ASSERT_EQ(0, cf_cmd(self->dev, "bcull 80%%"));
	ASSERT_EQ(0, cf_cmd(self->dev, "bstop 70%%"));
	ASSERT_EQ(0, cf_take_space(&self->e, "filler", 40));
	EXPECT_EQ(-ENOBUFS, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_FALSE(exists(self->e.dir, "cache"));
	ASSERT_EQ(0, cf_give_space(&self->e, "filler"));
	EXPECT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
}

TEST_F_TIMEOUT(command, bind_without_a_tag_takes_the_default_one, 30)
{
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(-EEXIST, cf_cmd(self->dev, "tag other"));
	ASSERT_EQ(0, cf_mount_at(self->e.mnt, self->e.domain, "CacheFiles"));
	op = cf_start_open(self->e.mnt, "tagged");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(command, bind_to_tmpfs_is_EOPNOTSUPP, 30)
{
	ASSERT_EQ(0, mount("none", self->e.dir, "tmpfs", 0, ""));
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->dev, "bind ondemand"));
	/* nothing of it may still pin the file system */
	EXPECT_EQ(0, umount(self->e.dir));
}

/* A user namespace that maps root to another user: its fd, or -errno. */
static int user_namespace(void)
{
	static const char * const maps[] = { "uid_map", "gid_map" };
	int i, fd = -1, ns, ready[2];
	char path[64], c;
	pid_t pid;

	if (pipe(ready))
		return -errno;
	pid = cf_fork();
	if (pid == 0) {
		c = unshare(CLONE_NEWUSER) ? errno : 0;
		if (write(ready[1], &c, 1) == 1)
			pause();
		_exit(0);
	}
	if (read(ready[0], &c, 1) != 1)
		c = EPIPE;
	for (i = 0; i < 2 && !c; i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, maps[i]);
		fd = open(path, O_WRONLY);
		if (fd < 0 || write(fd, "0 1000 1", 8) != 8)
			c = errno;
		close(fd);
	}
	snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
	ns = c ? -c : open(path, O_RDONLY | O_CLOEXEC);
	kill(pid, SIGKILL);
	cf_reap(pid, CF_SOON);
	return ns;
}

TEST_F_TIMEOUT(command, bind_to_an_idmapped_mount_is_EINVAL, 30)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	int ns = user_namespace(), tree;

	if (ns < 0)
		SKIP(return, "this kernel has no user namespaces: %s", strerror(-ns));
	attr.userns_fd = ns;
	tree = open_tree(AT_FDCWD, self->e.dir, OPEN_TREE_CLONE);
	ASSERT_GE(tree, 0);
	ASSERT_EQ(0, mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)))
		TH_LOG("%s", strerror(errno));
	ASSERT_EQ(0, move_mount(tree, "", AT_FDCWD, self->e.dir, MOVE_MOUNT_F_EMPTY_PATH));
	close(tree);
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(0, umount(self->e.dir));
}

FIXTURE(read_only) {
	struct cf_env e;
	bool remounted;
};

FIXTURE_SETUP(read_only)
{
	struct stat a, b;

	ASSERT_EQ(0, stat(CF_ROOT, &a));
	ASSERT_EQ(0, stat(CF_ROOT "/..", &b));
	if (a.st_dev == b.st_dev)
		SKIP(return, CF_ROOT " is not a file system of its own, cannot remount it");
	/* What a killed run may have left. */
	mount("none", CF_ROOT, NULL, MS_REMOUNT, NULL);
	ASSERT_SETUP(cf_env_init(&self->e));
	CF_WAIT_FOR((self->e.dev = cf_device_open()) != -EBUSY, 5000);
	ASSERT_GE(self->e.dev, 0);
	self->remounted = !mount("none", CF_ROOT, NULL, MS_REMOUNT | MS_RDONLY, NULL);
	ASSERT_TRUE(self->remounted) TH_LOG("remount: %s", strerror(errno));
}

FIXTURE_TEARDOWN(read_only)
{
	EXPECT_EQ(0, self->remounted ? mount("none", CF_ROOT, NULL, MS_REMOUNT, NULL) : 0);
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(read_only, bind_is_EROFS, 30)
{
	ASSERT_EQ(0, cf_cmd(self->e.dev, "dir %s", self->e.dir));
	EXPECT_EQ(-EROFS, cf_cmd(self->e.dev, "bind ondemand"));
}

TEST_F_TIMEOUT(command, failed_bind_can_be_repeated, 30)
{
	bool sticks = cf_intended("failed-bind-sticks");
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/later", self->e.base);
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", path));
	ASSERT_EQ(-ENOENT, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(sticks ? -EINVAL : -EOPNOTSUPP, cf_cmd(self->dev, "copen 0,4096"));
	EXPECT_EQ(sticks ? 0 : -EOPNOTSUPP, cf_cmd(self->dev, "restore"));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "inuse x"));
	EXPECT_EQ(sticks ? -EEXIST : 0, cf_cmd(self->dev, "tag %s", self->e.tag));
	ASSERT_EQ(0, mkdir(path, 0755));
	EXPECT_EQ(0, cf_cmd(self->dev, "bind ondemand"));
	EXPECT_EQ(0, cf_cmd(self->dev, "restore"));
}

/* ----------------------------------------------------- commands, bound */

FIXTURE(bound) {
	struct cf_env e;
	int dev;
};

FIXTURE_SETUP(bound)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_SETUP(cf_env_bind(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(bound)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(bound, idle_read_is_0_and_does_not_block, 30)
{
	char buf[CF_MSG_MAX];

	ASSERT_EQ(0, fcntl(self->dev, F_SETFL, 0));
	EXPECT_EQ(0, read(self->dev, buf, sizeof(buf)));
}

TEST_F_TIMEOUT(bound, device_has_no_position, 30)
{
	char buf[CF_MSG_MAX];

	EXPECT_EQ(0, lseek(self->dev, 100, SEEK_SET));
	EXPECT_EQ(0, lseek(self->dev, 100, SEEK_END));
	EXPECT_EQ(7, pwrite(self->dev, "restore", 7, 100));
	EXPECT_EQ(0, pread(self->dev, buf, sizeof(buf), 100));
	EXPECT_EQ(0, lseek(self->dev, 0, SEEK_CUR));
}

TEST_F_TIMEOUT(bound, device_has_no_ioctl_and_no_mmap, 30)
{
	EXPECT_EQ(-1, ioctl(self->dev, CF_IOC_READ_COMPLETE, 0UL));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, 4096, PROT_READ, MAP_SHARED, self->dev, 0));
	EXPECT_EQ(ENODEV, errno);
}

TEST_F_TIMEOUT(bound, writev_is_a_command_for_each_part, 30)
{
	struct iovec iov[2] = { { "restore", 7 }, { "debug 0", 7 } };

	EXPECT_EQ(14, writev(self->dev, iov, 2));
	iov[1].iov_base = "rubbish";
	EXPECT_EQ(7, writev(self->dev, iov, 2));
}

TEST_F_TIMEOUT(bound, only_open_asks_for_the_capability, 30)
{
	pid_t pid = cf_fork();

	if (pid == 0) {
		char buf[CF_MSG_MAX];

		drop_cap_sys_admin();
		_exit(cf_cmd(self->dev, "restore") || read(self->dev, buf, sizeof(buf)));
	}
	EXPECT_EQ(0, cf_reap(pid, CF_SOON));
}

TEST_F_TIMEOUT(bound, idle_poll_reports_nothing, 30)
{
	struct pollfd p = { .fd = self->dev, .events = POLLIN };

	EXPECT_EQ(0, poll(&p, 1, CF_NEVER));
}

TEST_F_TIMEOUT(bound, settings_stay_refused_or_accepted_as_before_bind, 30)
{
	EXPECT_EQ(-EEXIST, cf_cmd(self->dev, "dir /elsewhere"));
	EXPECT_EQ(-EEXIST, cf_cmd(self->dev, "tag other"));
	EXPECT_EQ(0, cf_cmd(self->dev, "brun 10%%"));
	EXPECT_EQ(0, cf_cmd(self->dev, "debug 0"));
}

TEST_F_TIMEOUT(bound, copen_that_does_not_parse_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen "));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen 1"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen ,1"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen x,1"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen 1 ,1"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen -1,1"));
}

TEST_F_TIMEOUT(bound, copen_id_that_overflows_is_ERANGE, 30)
{
	EXPECT_EQ(-ERANGE, cf_cmd(self->dev, "copen 99999999999999999999,1"));
}

TEST_F_TIMEOUT(bound, copen_of_an_unknown_id_is_EINVAL, 30)
{
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen 0,4096"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen 4294967295,4096"));
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen 4294967296,4096"));
}

TEST_F_TIMEOUT(bound, restore_with_nothing_pending_succeeds, 30)
{
	EXPECT_EQ(0, cf_cmd(self->dev, "restore"));
	EXPECT_EQ(0, cf_cmd(self->dev, "restore ignored"));
}

/* ------------------------------------------------------- cull and inuse */

FIXTURE(cull) {
	struct cf_env e;
	int dev;
	char cache[PATH_MAX];
};

FIXTURE_SETUP(cull)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_SETUP(cf_env_bind(&self->e));
	self->dev = self->e.dev;
	snprintf(self->cache, sizeof(self->cache), "%s/cache", self->e.dir);
	ASSERT_EQ(0, chdir(self->cache));
}

FIXTURE_TEARDOWN(cull)
{
	if (chdir("/"))
		TH_LOG("chdir: %s", strerror(errno));
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(cull, missing_name_is_ESTALE, 30)
{
	EXPECT_EQ(-ESTALE, cf_cmd(self->dev, "cull missing"));
	EXPECT_EQ(-ESTALE, cf_cmd(self->dev, "inuse missing"));
}

TEST_F_TIMEOUT(cull, no_name_or_a_dot_name_is_EIO, 30)
{
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "cull"));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "cull ."));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "cull .."));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "inuse ."));
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "inuse .."));
	EXPECT_TRUE(exists(self->e.dir, "cache"));
}

TEST_F_TIMEOUT(cull, inuse_of_a_free_file_is_0, 30)
{
	ASSERT_EQ(0, touch("Dfree"));
	EXPECT_EQ(0, cf_cmd(self->dev, "inuse Dfree"));
	EXPECT_EQ(0, access("Dfree", F_OK));
}

TEST_F_TIMEOUT(cull, file_is_unlinked, 30)
{
	ASSERT_EQ(0, touch("Dold"));
	ASSERT_EQ(0, touch("Dkept"));
	EXPECT_EQ(0, cf_cmd(self->dev, "cull Dold"));
	EXPECT_EQ(-1, access("Dold", F_OK));
	EXPECT_EQ(0, access("Dkept", F_OK));
	EXPECT_EQ(-ESTALE, cf_cmd(self->dev, "cull Dold"));
}

TEST_F_TIMEOUT(cull, names_with_spaces_work, 30)
{
	ASSERT_EQ(0, touch("D a b"));
	EXPECT_EQ(0, cf_cmd(self->dev, "inuse D a b"));
	EXPECT_EQ(0, cf_cmd(self->dev, "cull D a b"));
	EXPECT_EQ(-1, access("D a b", F_OK));
}

TEST_F_TIMEOUT(cull, directory_moves_to_the_graveyard, 30)
{
	char path[PATH_MAX];
	struct dirent *de;
	int found = 0;
	DIR *dir;

	ASSERT_EQ(0, mkdir("Iold", 0755));
	ASSERT_EQ(0, touch("Iold/Dinside"));
	EXPECT_EQ(0, cf_cmd(self->dev, "cull Iold"));
	EXPECT_EQ(-1, access("Iold", F_OK));
	snprintf(path, sizeof(path), "%s/graveyard", self->e.dir);
	dir = opendir(path);
	ASSERT_NE(NULL, dir);
	while ((de = readdir(dir))) {
		if (de->d_name[0] == '.')
			continue;
		found++;
		/* %08x%08x: time, counter */
		EXPECT_EQ(16, strspn(de->d_name, "0123456789abcdef")) TH_LOG("%s", de->d_name);
		EXPECT_EQ(16, strlen(de->d_name));
		snprintf(path, sizeof(path), "%s/graveyard/%s", self->e.dir, de->d_name);
		EXPECT_TRUE(exists(path, "Dinside"));
	}
	closedir(dir);
	EXPECT_EQ(1, found);
}

TEST_F_TIMEOUT(cull, outside_of_the_cache_is_refused, 30)
{
	const char * const places[] = { self->e.base, self->e.dir, "/tmp", "/" };
	long expected = cf_intended("cull-outside");
	char path[PATH_MAX];
	int i;

	mkdir("/tmp", 01777);
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		ASSERT_EQ(0, chdir(places[i]));
		snprintf(path, sizeof(path), "victim.%d", getpid());
		ASSERT_EQ(0, touch(path));
		EXPECT_EQ(expected, cf_cmd(self->dev, "inuse %s", path)) TH_LOG("in %s", places[i]);
		EXPECT_EQ(expected, cf_cmd(self->dev, "cull %s", path)) TH_LOG("in %s", places[i]);
		EXPECT_EQ(!expected, !!access(path, F_OK)) TH_LOG("culled in %s", places[i]);
		unlink(path);
	}
}

/* The daemon may come to the cache by another mount than that which was bound. */
TEST_F_TIMEOUT(cull, works_where_the_cache_is_mounted_twice, 30)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/again", self->e.dir);
	ASSERT_EQ(0, mkdir(path, 0755));
	ASSERT_EQ(0, mount(self->cache, path, NULL, MS_BIND, NULL));
	ASSERT_EQ(0, chdir(path));
	ASSERT_EQ(0, touch("Dold"));
	ASSERT_EQ(0, mkdir("Iold", 0755));
	EXPECT_EQ(0, cf_cmd(self->dev, "inuse Dold"));
	EXPECT_EQ(0, cf_cmd(self->dev, "cull Dold"));
	EXPECT_FALSE(exists(self->cache, "Dold"));
	EXPECT_EQ(0, cf_cmd(self->dev, "cull Iold"));
	EXPECT_FALSE(exists(self->cache, "Iold"));
	ASSERT_EQ(0, chdir("/"));
	EXPECT_EQ(0, umount(path));
}

FIXTURE(cull_live) {
	struct cf_env e;
	struct cf_blob b;
	char at[PATH_MAX];	/* the @xx directory */
};

/* A committed object, opened again. */
FIXTURE_SETUP(cull_live)
{
	char path[PATH_MAX];
	struct cf_msg m;

	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 4096));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, 4096, 4096));
	close(self->b.fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(self->b.anon);
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, path), CF_SOON));
	snprintf(self->at, sizeof(self->at), "%s", path);
	*strrchr(self->at, '/') = 0;
}

FIXTURE_TEARDOWN(cull_live)
{
	if (chdir("/"))
		TH_LOG("chdir: %s", strerror(errno));
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(cull_live, object_in_use_is_EBUSY, 60)
{
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 4096));
	ASSERT_EQ(0, chdir(self->at));
	EXPECT_EQ(-EBUSY, cf_cmd(self->e.dev, "inuse Dblob"));
	EXPECT_EQ(-EBUSY, cf_cmd(self->e.dev, "cull Dblob"));
	EXPECT_EQ(0, access("Dblob", F_OK));
}

TEST_F_TIMEOUT(cull_live, volume_in_use_is_EBUSY, 60)
{
	char path[PATH_MAX];

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 4096));
	snprintf(path, sizeof(path), "%s/cache", self->e.dir);
	ASSERT_EQ(0, chdir(path));
	EXPECT_EQ(-EBUSY, cf_cmd(self->e.dev, "inuse Ierofs,%s", self->e.domain));
	EXPECT_EQ(-EBUSY, cf_cmd(self->e.dev, "cull Ierofs,%s", self->e.domain));
}

TEST_F_TIMEOUT(cull_live, object_is_free_after_its_withdrawal, 60)
{
	ASSERT_EQ(0, chdir(self->at));
	EXPECT_TRUE(CF_WAIT_FOR(cf_cmd(self->e.dev, "inuse Dblob") == 0, CF_SOON));
	EXPECT_EQ(0, cf_cmd(self->e.dev, "cull Dblob"));
	EXPECT_EQ(-1, access("Dblob", F_OK));
}

/* What was culled is asked for again, from an empty file. */
TEST_F_TIMEOUT(cull_live, culled_object_starts_empty, 60)
{
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, chdir(self->at));
	ASSERT_TRUE(CF_WAIT_FOR(cf_cmd(self->e.dev, "cull Dblob") == 0, CF_SOON));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 4096));
	op = cf_start_pread(self->b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, 4096, 4096));
	ASSERT_EQ(0, cf_complete(self->b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, 4096));
}

TEST_HARNESS_MAIN
