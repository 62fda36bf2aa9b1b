// SPDX-License-Identifier: GPL-2.0
/*
 * The example daemon of Documentation/filesystems/caching: it does what the text says it does.
 * The program is next to this one, where the Makefile puts it.
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

/* A bit of everything: whole blocks, a tail, one byte, several chunks of the daemon's. */
static const struct {
	const char *name;
	size_t size;
} sources[] = {
	{ "empty", 0 },
	{ "byte", 1 },
	{ "block", 4096 },
	{ "tail", 3 * 4096 + 77 },
	{ "chunks", 3 * 1024 * 1024 + 4095 },
};

#define NR_SOURCES	(sizeof(sources) / sizeof(*sources))

FIXTURE(example) {
	struct cf_env e;
	char src[96];
	pid_t pid;
};

static int make_source(const char *dir, const char *name, size_t size)
{
	char path[512];
	int fd, err = 0;
	char *buf;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	buf = malloc(size + 1);
	if (!buf) {
		close(fd);
		return -ENOMEM;
	}
	cf_pattern(name, 0, buf, size);
	if (write(fd, buf, size) != size)
		err = errno ? -errno : -EIO;
	free(buf);
	close(fd);
	return err;
}

static pid_t start_daemon(const char *cache, const char *tag, const char *src)
{
	char path[PATH_MAX];
	pid_t pid;

	cf_beside("example_daemon", path);
	pid = cf_fork();
	if (pid == 0) {
		execl(path, path, cache, tag, src, NULL);
		fprintf(stderr, "# %s: %s\n", path, strerror(errno));
		_exit(127);
	}
	return pid;
}

/* How many of the cache's file descriptors the daemon has; -1 if that cannot be told. */
static int daemon_fds(pid_t pid)
{
	char path[64], link[64];
	struct dirent *d;
	int count = 0;
	ssize_t n;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return -1;
	while ((d = readdir(dir))) {
		n = readlinkat(dirfd(dir), d->d_name, link, sizeof(link));
		if (n == strlen("anon_inode:[cachefiles]") &&
		    !memcmp(link, "anon_inode:[cachefiles]", n))
			count++;
	}
	closedir(dir);
	return count;
}

/* open(2), in a thread that can be given up on. */
static long open_file(struct cf_env *e, const char *name)
{
	return cf_finish(cf_start_open(e->mnt, name));
}

/* What the daemon's error is to the opener: C says EIO, whatever it was. */
static long daemon_says(long error)
{
	return cf_is_c() ? -EIO : error;
}

/* Reads all of a file. 0, a negative errno, or -EBADMSG if it is not what the source holds. */
static long check_file(struct cf_env *e, const char *name, size_t size)
{
	size_t off = 0, chunk = 256 * 1024;
	int fd = open_file(e, name);
	struct cf_op *op;
	long n = 0;

	if (fd < 0)
		return fd;
	for (;;) {
		op = cf_start_pread(fd, off, chunk);
		n = cf_wait(op, CF_SOON);
		if (n > 0 && cf_check(name, off, op->buf, n) >= 0)
			n = -EBADMSG;
		cf_op_free(op);
		if (n <= 0)
			break;
		off += n;
	}
	close(fd);
	return n ? n : off == size ? 0 : -EBADMSG;
}

/* Whether the daemon is in service: until it is, an open fails. */
static bool daemon_is_up(struct cf_env *e)
{
	long fd = open_file(e, "empty");

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

FIXTURE_SETUP(example)
{
	size_t i;

	self->pid = -1;
	ASSERT_SETUP(cf_env_init(&self->e));
	snprintf(self->src, sizeof(self->src), "%s/s", self->e.base);
	ASSERT_EQ(0, mkdir(self->src, 0755));
	for (i = 0; i < NR_SOURCES; i++)
		ASSERT_EQ(0, make_source(self->src, sources[i].name, sources[i].size));
	ASSERT_SETUP(cf_env_mount(&self->e));
	self->pid = start_daemon(self->e.dir, self->e.tag, self->src);
	ASSERT_GT(self->pid, 0);
	ASSERT_TRUE(CF_WAIT_FOR(daemon_is_up(&self->e), CF_SOON));
}

static void stop_daemon(pid_t pid)
{
	if (pid > 0) {
		kill(pid, SIGKILL);
		cf_reap(pid, CF_SOON);
	}
}

FIXTURE_TEARDOWN(example)
{
	stop_daemon(self->pid);
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(example, files_are_read_as_they_are, 60)
{
	size_t i;

	for (i = 0; i < NR_SOURCES; i++) {
		EXPECT_EQ(0, check_file(&self->e, sources[i].name, sources[i].size))
			TH_LOG("%s", sources[i].name);
	}
}

TEST_F_TIMEOUT(example, what_is_no_regular_file_is_ENOENT, 60)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/dir", self->src);
	ASSERT_EQ(0, mkdir(path, 0755));
	snprintf(path, sizeof(path), "%s/fifo", self->src);
	ASSERT_EQ(0, mkfifo(path, 0600));
	snprintf(path, sizeof(path), "%s/link", self->src);
	ASSERT_EQ(0, symlink("byte", path));
	EXPECT_EQ(daemon_says(-ENOENT), open_file(&self->e, "none"));
	EXPECT_EQ(daemon_says(-ENOENT), open_file(&self->e, "dir"));
	EXPECT_EQ(daemon_says(-ENOENT), open_file(&self->e, "fifo"));
	EXPECT_EQ(daemon_says(-ELOOP), open_file(&self->e, "link"));
	EXPECT_EQ(0, check_file(&self->e, "byte", 1));
}

TEST_F_TIMEOUT(example, data_that_cannot_be_had_is_EIO_and_the_daemon_goes_on, 60)
{
	char path[512];
	int fd = open_file(&self->e, "chunks");

	ASSERT_GE(fd, 0);
	snprintf(path, sizeof(path), "%s/chunks", self->src);
	ASSERT_EQ(0, truncate(path, 4096));
	EXPECT_EQ(-EIO, cf_finish(cf_start_pread(fd, 2 * 1024 * 1024, 4096)));
	close(fd);
	EXPECT_EQ(0, check_file(&self->e, "tail", 3 * 4096 + 77));
}

TEST_F_TIMEOUT(example, nothing_stays_open_after_an_unmount, 60)
{
	size_t i;

	for (i = 0; i < NR_SOURCES; i++)
		ASSERT_EQ(0, check_file(&self->e, sources[i].name, sources[i].size));
	ASSERT_EQ(daemon_says(-ENOENT), open_file(&self->e, "none"));
	/* That of "none" is closed after the answer. */
	EXPECT_TRUE(CF_WAIT_FOR(daemon_fds(self->pid) == (int)NR_SOURCES, CF_SOON));
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(daemon_fds(self->pid) == 0, CF_SOON));
	ASSERT_SETUP(cf_env_mount(&self->e));
	EXPECT_EQ(0, check_file(&self->e, "tail", 3 * 4096 + 77));
}

/* Leaves the daemon so many file descriptors to open. */
static int limit_daemon(pid_t pid, int left)
{
	struct rlimit limit = { 0, 4096 };
	char path[64];

	while (left) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, (int)limit.rlim_cur++);
		if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW))
			left--;
	}
	return prlimit(pid, RLIMIT_NOFILE, &limit, NULL) ? -errno : 0;
}

/* Two for each object: the second one has none for its source. */
TEST_F_TIMEOUT(example, without_an_fd_for_the_source_open_says_so, 60)
{
	int fd;

	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_TRUE(CF_WAIT_FOR(daemon_fds(self->pid) == 0, CF_SOON));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, limit_daemon(self->pid, 3));
	fd = open_file(&self->e, "chunks");
	ASSERT_GE(fd, 0);
	EXPECT_EQ(daemon_says(-EMFILE), open_file(&self->e, "tail"));
	EXPECT_EQ(4096, cf_finish(cf_start_pread(fd, 0, 4096)));
	close(fd);
}

/* The second one has none for the message, which waits until the first one is closed. */
TEST_F_TIMEOUT(example, without_an_fd_for_the_message_open_waits, 90)
{
	struct cf_op *op;
	int fd;

	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_TRUE(CF_WAIT_FOR(daemon_fds(self->pid) == 0, CF_SOON));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, limit_daemon(self->pid, 2));
	fd = open_file(&self->e, "chunks");
	ASSERT_GE(fd, 0);
	op = cf_start_open(self->e.mnt, "tail");
	if (cf_intended("no-fd-fails-open")) {
		EXPECT_EQ(daemon_says(-EMFILE), cf_finish(op));
		close(fd);
		return;
	}
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	EXPECT_EQ(4096, cf_finish(cf_start_pread(fd, 0, 4096)));
	/* fscache gives up what has not been used for some seconds. */
	close(fd);
	fd = cf_wait(op, 60000);
	EXPECT_GE(fd, 0);
	cf_op_free(op);
	if (fd >= 0)
		close(fd);
}

TEST_F_TIMEOUT(example, a_cache_that_cannot_be_made_ends_it, 60)
{
	stop_daemon(self->pid);
	self->pid = start_daemon("/nowhere", self->e.tag, self->src);
	ASSERT_GT(self->pid, 0);
	EXPECT_EQ(1, cf_reap(self->pid, CF_SOON));
	self->pid = -1;
}

TEST_HARNESS_MAIN
