// SPDX-License-Identifier: GPL-2.0
/*
 * Bugs of the C code that were never fixed, U1 to U60 of
 * Documentation/filesystems/caching/cachefiles-rust-c-bugs.rst: each test shows the bug
 * on C, and that the implementation in Rust does not have it.  The document names the
 * tests of those that have none here.
 */
#include <poll.h>
#include <signal.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "faults.h"

FIXTURE(bug) {
	struct cf_env e;
	int dev;
	pid_t child;
};

FIXTURE_SETUP(bug)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_SETUP(cf_env_mount(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(bug)
{
	if (self->child > 0)
		kill(self->child, SIGKILL);
	cf_env_end(&self->e);
}

/* A process that opens a file, or reads from one that is open. */
static pid_t fork_open(struct cf_env *e, const char *name)
{
	char path[512];
	pid_t pid;

	snprintf(path, sizeof(path), "%s/%s", e->mnt, name);
	pid = cf_fork();
	if (pid == 0) {
		close(e->dev);
		open(path, O_RDONLY);
		_exit(0);
	}
	return pid;
}

static pid_t fork_read(struct cf_env *e, const struct cf_blob *b, off_t off)
{
	pid_t pid = cf_fork();
	char c;

	if (pid == 0) {
		close(e->dev);
		close(b->anon);
		pread(b->fd, &c, 1, off);
		_exit(0);
	}
	return pid;
}

/* ------------------------------------------------------- waiting for ever */

TEST_F_TIMEOUT(bug, u02_unanswered_OPEN_does_not_stop_the_next_mount, 60)
{
	struct cf_blob b;
	struct cf_msg m;

	self->child = fork_open(&self->e, "silent");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	kill(self->child, SIGKILL);
	ASSERT_EQ(128 + SIGKILL, cf_reap(self->child, CF_SOON));
	self->child = 0;
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	ASSERT_EQ(cf_intended("unanswered-open"), cf_env_mount_soon(&self->e));
	if (!self->e.mounted)
		return;
	/* the old fd is to be closed, the new object to be opened */
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "silent", SIZE));
}

/* The fd stays open, so the daemon may think that the object is open. */
TEST_F_TIMEOUT(bug, u06_failed_reopening_fails_the_reader_though_its_fd_is_open, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "refused", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, close(b.anon));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, -ENOENT));
	/* Readahead and the read itself may ask one after the other. */
	while (cf_wait(op, CF_NEVER) == -ETIMEDOUT && cf_recv(self->dev, &m, 0) == 0) {
		/* A CLOSE is for the fd that the next one replaces. */
		if (m.w.opcode == CF_OPEN)
			ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, -ENOENT));
	}
	EXPECT_EQ(cf_intended("failed-reopen"), cf_wait(op, CF_SOON));
}

TEST_F_TIMEOUT(bug, u07_daemon_is_woken_though_memory_is_short_for_reopening, 60)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET }, got;
	int ep = epoll_create1(EPOLL_CLOEXEC), err;
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "reopen", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, close(b.anon));
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->dev, &ev));
	epoll_wait(ep, &got, 1, 0);
	err = fail_worker_allocations(1);
	if (err == -EOPNOTSUPP)
		SKIP(return, "this kernel cannot have allocations fail (CONFIG_FAILSLAB)");
	ASSERT_EQ(0, err);
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(1, cf_epoll(ep, &got, CF_SOON)) TH_LOG("the READ does not wake the daemon");
	err = cf_recv(self->dev, &m, 0);
	if (err == -ETIMEDOUT) {
		/* C only begins to reopen here, and says so when it has. */
		err = cf_epoll(ep, &got, 3000);
		stop_failing_allocations();
		EXPECT_EQ(cf_intended("wakeup-lost-for-memory"), err == 0);
		return;
	}
	stop_failing_allocations();
	ASSERT_EQ(0, err);
	EXPECT_EQ(0, cf_intended("wakeup-lost-for-memory"));
	ASSERT_EQ(CF_OPEN, m.w.opcode);
	b.anon = m.w.open.fd;
	b.object_id = m.w.object_id;
	ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
	EXPECT_EQ(0, cf_blob_serve(&self->e, &b, op));
}

/* cull holds a lock of its directory while it waits for another one's getdents(). */
static long do_getdents(struct cf_op *op)
{
	long n = syscall(SYS_getdents64, op->fd, (void *)op->off, 4096);

	return n < 0 ? -errno : n;
}

static long do_cull(struct cf_op *op)
{
	return cf_cmd(op->fd, "cull %s", op->path);
}

static long do_copen(struct cf_op *op)
{
	return cf_copen(op->fd, op->off, 4096);
}

TEST_F_TIMEOUT(bug, u14_copen_does_not_wait_for_a_slow_cull, 60)
{
	struct cf_op *dents, *cull, *opener, *copen;
	char path[PATH_MAX];
	struct cf_msg m;
	struct slow s;
	int dir;

	snprintf(path, sizeof(path), "%s/cache/Iold", self->e.dir);
	ASSERT_EQ(0, mkdir(path, 0755));
	ASSERT_EQ(0, chdir(path));
	close(open("Dvictim", O_CREAT | O_RDWR, 0600));
	ASSERT_EQ(0, slow_make(&self->e, &s));
	opener = cf_start_open(self->e.mnt, "other");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));

	/* A thread reads the directory into the slow page ... */
	dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dents = cf_start(do_getdents, NULL, dir, (off_t)s.page, 0);
	ASSERT_EQ(0, slow_wait(&self->e, &s));
	/* ... and holds its lock, so that nothing can be removed from it. */
	cull = cf_start(do_cull, "Dvictim", self->dev, 0, 0);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(cull, CF_NEVER)) TH_LOG("cull is not slow: no test");
	copen = cf_start(do_copen, NULL, self->dev, m.w.msg_id, 0);
	EXPECT_EQ(cf_intended("copen-behind-cull"), cf_wait(copen, 3000));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(cull, 0));

	ASSERT_EQ(0, slow_go_on(&s));
	EXPECT_GT(cf_finish(dents), 0);
	EXPECT_EQ(0, cf_finish(cull));
	EXPECT_EQ(0, cf_wait(copen, CF_SOON));
	EXPECT_GE(cf_finish(opener), 0);
	EXPECT_EQ(0, chdir("/"));
}

/* ------------------------------------------------------------- messages */

TEST_F_TIMEOUT(bug, u05_READ_never_has_the_id_of_no_object, 120)
{
	bool forgets = cf_intended("closed-fd-loses-read");
	struct cf_op *op, *cl;
	struct cf_blob b;
	struct cf_msg m;
	int i, err, bad = 0;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "race", 4 * SIZE));
	cf_no_readahead(b.fd);
	for (i = 0; i < 60; i++) {
		op = cf_start_pread(b.fd, i * CF_PAGE, 4096);
		ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
		cl = cf_start_close(b.anon);
		b.anon = -1;
		while (cf_wait(op, 0) == -ETIMEDOUT) {
			memset(&m, 0, sizeof(m));
			m.size = read(self->dev, m.raw, CF_MSG_MAX);
			if (m.size <= 0) {
				cf_readable(self->dev, 20);
				continue;
			}
			if (m.w.object_id == UINT32_MAX) {
				bad++;
				/* The daemon cannot answer that. */
				ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
				continue;
			}
			if (m.w.opcode == CF_OPEN) {
				b.anon = m.w.open.fd;
				b.object_id = m.w.object_id;
				ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4 * SIZE));
			} else if (b.anon < 0) {
				/* It came just before its fd went. C does not ask again (U4). */
				if (forgets)
					ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
			} else if (m.w.object_id == b.object_id) {
				err = cf_blob_answer_read(&b, &m);
				ASSERT_TRUE(err == 0 || err == -EINVAL) TH_LOG("%d", err);
			}
		}
		ASSERT_EQ(0, cf_finish(cl));
		ASSERT_EQ(4096, cf_finish(op)) TH_LOG("round %d", i);
		if (b.anon < 0) {
			/* Answered before the fd went: the next READ asks for another one. */
			continue;
		}
	}
	TH_LOG("READs with object_id 0xffffffff: %d of %d", bad, i);
	/* In C it takes luck to see one. */
	if (!cf_intended("object-id-ffffffff"))
		EXPECT_EQ(0, bad);
}

TEST_F_TIMEOUT(bug, u09_CLOSE_of_an_fd_that_is_closed_is_taken_back, 60)
{
	struct cf_blob b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "closed", SIZE));
	close(b.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON)) TH_LOG("no CLOSE");
	ASSERT_EQ(0, close(b.anon));
	m.size = read(self->dev, m.raw, CF_MSG_MAX);
	if (cf_intended("object-id-ffffffff")) {
		ASSERT_EQ(16, m.size);
		EXPECT_EQ(CF_CLOSE, m.w.opcode);
		EXPECT_EQ(UINT32_MAX, m.w.object_id);
	} else {
		EXPECT_EQ(0, m.size) TH_LOG("there is nothing left to close");
		EXPECT_FALSE(cf_readable(self->dev, 0));
	}
}

TEST_F_TIMEOUT(bug, u10_CLOSE_comes_though_memory_is_short, 60)
{
	struct cf_blob b;
	struct cf_msg m;
	int err;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "closed", SIZE));
	close(b.fd);
	err = fail_worker_allocations(1);
	if (err == -EOPNOTSUPP)
		SKIP(return, "this kernel cannot have allocations fail (CONFIG_FAILSLAB)");
	ASSERT_EQ(0, err);
	EXPECT_EQ(0, cf_env_umount_soon(&self->e));
	err = cf_recv(self->dev, &m, 3000);
	stop_failing_allocations();
	EXPECT_EQ(cf_intended("CLOSE-lost-for-memory"), err == -ETIMEDOUT);
	if (!err) {
		EXPECT_EQ(CF_CLOSE, m.w.opcode);
		EXPECT_EQ(b.object_id, m.w.object_id);
	}
}

TEST_F_TIMEOUT(bug, u11_CLOSE_comes_for_the_fd_of_an_unanswered_reopening, 60)
{
	struct cf_blob b;
	struct cf_msg m;
	int err;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "reopen", SIZE));
	ASSERT_EQ(0, close(b.anon));
	self->child = fork_read(&self->e, &b, 0);
	ASSERT_EQ(0, cf_blob_take_open(&self->e, &b));
	kill(self->child, SIGKILL);
	ASSERT_EQ(128 + SIGKILL, cf_reap(self->child, CF_SOON));
	self->child = 0;
	close(b.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	err = cf_recv(self->dev, &m, 3000);
	EXPECT_EQ(cf_intended("close-after-failed-open"), err == 0);
	if (!err) {
		EXPECT_EQ(CF_CLOSE, m.w.opcode);
		EXPECT_EQ(b.object_id, m.w.object_id);
	}
}

TEST_F_TIMEOUT(bug, u17_successor_may_be_faster_than_the_end_of_the_daemon, 60)
{
	long expected = cf_intended("OPEN-again-before-its-fd-closed");
	struct cf_op *op = cf_start_open(self->e.mnt, "taken-over");
	struct cf_msg old, new;
	struct cf_blob b;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &old));
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	ASSERT_EQ(expected, cf_recv(self->dev, &new, CF_SOON));
	if (expected) {
		EXPECT_LT(cf_finish(op), 0);
		return;
	}
	/* Now the fds of the old one go: that is no news. */
	ASSERT_EQ(0, close(old.w.open.fd));
	ASSERT_EQ(0, cf_copen(self->dev, new.w.msg_id, SIZE));
	b = (struct cf_blob){
		.name = "taken-over", .size = SIZE, .anon = new.w.open.fd,
		.object_id = new.w.object_id, .fd = cf_finish(op),
	};
	ASSERT_GE(b.fd, 0);
	cf_no_readahead(b.fd);
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
}

/* ------------------------------------------------------- the cache itself */

FIXTURE(bare) {
	struct cf_env e;
	int dev;
};

FIXTURE_SETUP(bare)
{
	ASSERT_SETUP(cf_env_init(&self->e));
}

FIXTURE_TEARDOWN(bare)
{
	EXPECT_EQ(0, chdir("/"));
	cf_env_end(&self->e);
}

static long do_poll(struct cf_op *op)
{
	struct pollfd p = { .fd = op->fd, .events = POLLIN };

	while (cf_poll(&p, 3000) == 1 && !(p.revents & (POLLERR | POLLHUP)))
		cf_sleep_ms(10);
	return p.revents & (POLLERR | POLLHUP);
}

TEST_F_TIMEOUT(bare, u12_daemon_is_woken_when_its_cache_has_died, 60)
{
	struct cf_op *opener, *poller;
	struct cf_blob b;
	struct cf_msg m;
	long told;

	ASSERT_EQ(0, mount_new_ext4(&self->e, self->e.dir, 16));
	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "old", 4096));
	ASSERT_EQ(0, shut_down_ext4(self->e.dir));
	opener = cf_start_open(self->e.mnt, "new");
	/* C makes the file before it asks. */
	if (cf_recv(self->e.dev, &m, 1000) == 0) {
		poller = cf_start(do_poll, NULL, self->e.dev, 0, 0);
		cf_sleep_ms(CF_NEVER);
		EXPECT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, 4096));
		EXPECT_LE(0, cf_finish(opener));
		EXPECT_EQ(-EIO, cf_fill(m.w.open.fd, "new", 0, 4096, 4096));
	} else {
		poller = cf_start(do_poll, NULL, self->e.dev, 0, 0);
		EXPECT_LT(cf_finish(opener), 0);
	}
	ASSERT_EQ(-EIO, cf_cmd(self->e.dev, "restore")) TH_LOG("the cache lives: no test");
	told = cf_finish(poller);
	EXPECT_EQ(cf_intended("cache-dies-silently") ? 0 : POLLERR | POLLHUP, told);
}

TEST_F_TIMEOUT(bare, u33_bind_to_a_file_system_that_fails_is_refused, 60)
{
	long expected = cf_intended("statfs-error-in-bind");
	int err;

	/* One for the size of the cache; the next is for making cache/. */
	err = mount_failing_fuse(self->e.dir, 1);
	if (err == -ENOENT || err == -ENODEV)
		SKIP(return, "this kernel has no FUSE (CONFIG_FUSE_FS)");
	ASSERT_EQ(0, err);
	CF_WAIT_FOR((self->e.dev = cf_device_open()) != -EBUSY, 5000);
	ASSERT_GE(self->e.dev, 0);
	ASSERT_EQ(0, cf_cmd(self->e.dev, "dir %s", self->e.dir));
	EXPECT_EQ(expected, cf_cmd(self->e.dev, "bind ondemand"));
}

TEST_F_TIMEOUT(bare, u38_cull_that_failed_leaves_the_file_as_it_was, 60)
{
	int fd, flags;

	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_EQ(0, chdir(self->e.dir));
	ASSERT_EQ(0, chdir("cache"));
	fd = open("Dvictim", O_CREAT | O_RDWR, 0600);
	ASSERT_EQ(0, ioctl(fd, FS_IOC_GETFLAGS, &flags));
	flags |= FS_IMMUTABLE_FL;
	ASSERT_EQ(0, ioctl(fd, FS_IOC_SETFLAGS, &flags));
	EXPECT_EQ(-EIO, cf_cmd(self->e.dev, "cull Dvictim"));
	flags &= ~FS_IMMUTABLE_FL;
	ASSERT_EQ(0, ioctl(fd, FS_IOC_SETFLAGS, &flags));
	EXPECT_EQ(cf_intended("failed-cull-marks-file"), cf_cmd(self->e.dev, "inuse Dvictim"));
	EXPECT_EQ(cf_intended("failed-cull-marks-file"), cf_cmd(self->e.dev, "cull Dvictim"));
	unlink("Dvictim");
}

TEST_F_TIMEOUT(bare, u60_daemon_hears_of_it_when_it_has_culled_enough, 60)
{
	struct pollfd p = { .events = POLLOUT };
	char path[PATH_MAX], block[4096] = "";
	struct statvfs st;
	int fd, i;

	ASSERT_EQ(0, mount_new_ext4(&self->e, self->e.dir, 16));
	snprintf(path, sizeof(path), "%s/cache", self->e.dir);
	ASSERT_EQ(0, mkdir(path, 0755));
	ASSERT_EQ(0, chdir(path));
	ASSERT_EQ(0, statvfs(".", &st));
	fd = open("Dlarge", O_CREAT | O_RDWR, 0600);
	for (i = 0; i < st.f_bavail * 6 / 10; i++)
		ASSERT_EQ(4096, write(fd, block, 4096));
	ASSERT_EQ(0, fsync(fd));
	close(fd);
	CF_WAIT_FOR((self->e.dev = cf_device_open()) != -EBUSY, 5000);
	ASSERT_GE(self->e.dev, 0);
	ASSERT_EQ(0, cf_cmd(self->e.dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "tag %s", self->e.tag));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "brun 70%%"));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "bcull 60%%"));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "bind ondemand"));
	p.fd = self->e.dev;
	EXPECT_EQ(1, cf_poll(&p, CF_SOON)) TH_LOG("no culling asked for");
	ASSERT_EQ(0, cf_cmd(self->e.dev, "cull Dlarge"));
	EXPECT_EQ(cf_intended("culling-never-ends"), poll(&p, 1, CF_NEVER));
}

TEST_F_TIMEOUT(bare, u46_one_error_does_not_end_the_cache, 60)
{
	bool dies = cf_intended("io-error-kills-cache");

	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_EQ(0, chdir(self->e.dir));
	ASSERT_EQ(0, chdir("cache"));
	/* What is mounted on cannot be moved to the graveyard. */
	ASSERT_EQ(0, mkdir("Imounted", 0755));
	ASSERT_EQ(0, mount("none", "Imounted", "tmpfs", 0, NULL));
	EXPECT_EQ(-EIO, cf_cmd(self->e.dev, "cull Imounted"));
	EXPECT_EQ(dies ? -EIO : 0, cf_cmd(self->e.dev, "restore"));
	EXPECT_EQ(0, umount("Imounted"));
}

/* ----------------------------------------------------------------- names */

/* The first open of a file, with a time limit; its daemon is asked first. */
static long open_once(struct cf_env *e, const char *dir, const char *name)
{
	struct cf_op *op = cf_start_open(dir, name);
	struct cf_clock clock;
	struct cf_msg m;
	long ret;

	cf_clock_start(&clock);
	while ((ret = cf_wait(op, 20)) == -ETIMEDOUT && cf_left(&clock, CF_SOON))
		if (cf_recv(e->dev, &m, 20) == 0 && m.w.opcode == CF_OPEN)
			cf_copen(e->dev, m.w.msg_id, 4096);
	cf_op_free(op);
	return ret < 0 ? ret : 0;
}

TEST_F_TIMEOUT(bug, u28_cookie_key_may_have_200_bytes_that_cannot_be_in_names, 60)
{
	char name[201];

	/* Every encoding of this is longer than a file name may be. */
	memset(name, 0x99, 200);
	name[200] = 0;
	EXPECT_EQ(cf_intended("long-binary-key"), open_once(&self->e, self->e.mnt, name));
}

/* ---------------------------------------------- other users of fscache */

/* How many messages of the driver there are in the kernel's log that @kmsg has not read yet. */
static int complaints(int kmsg)
{
	char text[1024];
	int count = 0;
	ssize_t n;

	while ((n = read(kmsg, text, sizeof(text) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		text[n < 0 ? 0 : n] = 0;
		count += !!strcasestr(text, "cachefiles: ");
	}
	return count;
}

TEST_F_TIMEOUT(bug, u55_cookies_without_a_size_are_refused_without_much_ado, 60)
{
	bool each = cf_intended("each-cookie-without-size-logged");
	char params[64];
	int kmsg, logged;

	if (!cf_has_fscache_user())
		SKIP(return, CF_NO_FSCACHE_USER);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_GE(kmsg, 0);
	ASSERT_GE(lseek(kmsg, 0, SEEK_END), 0);
	snprintf(params, sizeof(params), "cache=%s volume=any count=5", self->e.tag);
	EXPECT_EQ(-ENOBUFS, cf_finish(cf_start_fscache_user(params)));
	EXPECT_FALSE(cf_readable(self->dev, 0));
	/* once is enough for all time */
	logged = complaints(kmsg);
	EXPECT_LE(each ? 5 : 0, logged);
	EXPECT_GE(each ? 5 : 1, logged);
	close(kmsg);
}

TEST_F_TIMEOUT(bug, u27_volume_key_may_be_empty, 60)
{
	struct cf_op *user;
	char params[64];
	struct cf_msg m;

	if (!cf_has_fscache_user())
		SKIP(return, CF_NO_FSCACHE_USER);
	snprintf(params, sizeof(params), "cache=%s size=1", self->e.tag);
	user = cf_start_fscache_user(params);
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(1, m.w.open.volume_key_size);
	EXPECT_EQ(0, m.w.open.data[0]);
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_EQ(-EALREADY, cf_finish(user));
}

/* ---------------------------------------------------------------- anon fds */

/* The file is looked for after the answer, on which it depends. */
TEST_F_TIMEOUT(bug, u23_write_right_after_copen_is_taken, 60)
{
	long too_early = cf_intended("write-before-the-file");
	struct cf_op *op;
	struct cf_msg m;
	char name[16];
	int i, err;

	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "w%d", i);
		op = cf_open_and_recv(&self->e, name, &m);
		ASSERT_NE(NULL, op);
		ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
		err = cf_fill(m.w.open.fd, name, 0, 4096, 4096);
		if (err)
			ASSERT_EQ(too_early, err);
		ASSERT_GE(cf_finish(op), 0);
		ASSERT_EQ(0, cf_fill(m.w.open.fd, name, 0, 4096, 4096));
	}
}

static long find_hole(struct cf_op *op)
{
	off_t hole = lseek(op->fd, 0, SEEK_HOLE);

	return hole < 0 ? -errno : hole;
}

static long fill_block(struct cf_op *op)
{
	return cf_fill(op->fd, op->path, 0, 4096, 4096);
}

/*
 * Have a file in the cache as the C code leaves it: what it holds is found out by the next lookup,
 * and written down.  0 or -errno.
 */
static int leave_as_c_does(struct cf_env *e, const char *name)
{
	unsigned char state[512];
	char path[PATH_MAX];
	struct cf_blob b;
	struct cf_msg m;
	ssize_t n;
	int err;

	err = cf_blob_open(e, &b, name, 4096) ?: cf_fill(b.anon, name, 0, 4096, 4096);
	if (err)
		return err;
	close(b.fd);
	err = cf_env_umount(e) ?: cf_expect(e->dev, CF_CLOSE, &m);
	close(b.anon);
	if (err || !CF_WAIT_FOR(cf_find_cache_file(e, name, NULL, path), CF_SOON))
		return err ?: -ENOENT;
	n = getxattr(path, "user.CacheFiles.cache", state, sizeof(state));
	if (n < 18)
		return -EPROTO;
	state[17] = 0;
	if (setxattr(path, "user.CacheFiles.cache", state, n, 0))
		return -errno;
	return cf_env_mount(e);
}

TEST_F_TIMEOUT(bug, u23_fd_waits_for_the_lookup_after_copen, 60)
{
	long too_early = cf_intended("write-before-the-file");
	long patience = too_early ? CF_SOON : CF_NEVER;
	struct cf_op *op, *seek, *fill;
	struct cf_msg m;
	pid_t pid;

	/* Making the file, or writing down what it holds, takes until it is thawed. */
	if (!cf_is_c())
		ASSERT_EQ(0, leave_as_c_does(&self->e, "slow"));
	op = cf_open_and_recv(&self->e, "slow", &m);
	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, cf_freeze(&self->e));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	/* Not by lseek(): those wait for each other, as on any file, and that cannot be killed. */
	pid = cf_fork();
	if (pid == 0)
		_exit(-cf_fill(m.w.open.fd, "slow", 0, 4096, 4096));
	seek = cf_start(find_hole, "", m.w.open.fd, 0, 0);
	EXPECT_EQ(too_early ?: -ETIMEDOUT, cf_wait(seek, patience));
	fill = cf_start(fill_block, "slow", m.w.open.fd, 0, 0);
	EXPECT_EQ(too_early ?: -ETIMEDOUT, cf_wait(fill, patience));
	EXPECT_EQ(too_early ? -too_early : -ETIMEDOUT, cf_reap(pid, patience));
	if (!too_early) {
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	}
	EXPECT_EQ(0, cf_thaw(&self->e));
	/* The seek came first, but need not have been woken first. */
	EXPECT_LE(too_early, cf_finish(seek));
	EXPECT_EQ(too_early, cf_finish(fill));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(bug, u40_daemon_may_be_a_32_bit_program, 60)
{
	char helper[PATH_MAX], fd[16], id[16];
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	long err;

	if (access(cf_beside("ioctl32", helper), X_OK))
		SKIP(return, "there is no ioctl32 beside this program: not built for x86-64");
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "thirty-two", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "thirty-two", 0, 4096, 4096));
	/* a copy, to live through exec() */
	snprintf(fd, sizeof(fd), "%d", dup(b.anon));
	snprintf(id, sizeof(id), "%u", m.w.msg_id);
	err = -cf_run(helper, fd, id, NULL);
	if (err <= -126)
		SKIP(return, "this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION)");
	EXPECT_EQ(cf_intended("ioctl-of-32-bit-program"), err);
	EXPECT_EQ(err ? -ETIMEDOUT : 4096, cf_wait(op, err ? CF_NEVER : CF_SOON));
}

TEST_F_TIMEOUT(bug, u41_fd_does_not_live_through_exec, 60)
{
	char path[64];
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "exec", 4096));
	EXPECT_EQ(!cf_intended("anon-fd-lives-through-exec"),
		  !!(fcntl(b.anon, F_GETFD) & FD_CLOEXEC));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", b.anon);
	EXPECT_EQ(cf_intended("anon-fd-lives-through-exec"),
		  cf_run("sh", "-c", "exec readlink \"$0\" >/dev/null", path, NULL) == 0);
}

TEST_HARNESS_MAIN
