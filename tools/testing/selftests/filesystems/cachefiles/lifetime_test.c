// SPDX-License-Identifier: GPL-2.0
/*
 * What happens when a part goes away before the others: the daemon, its fds, the
 * mount, a reader, the modules.
 */
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE		(4ULL << 20)
#define READERS		32
#define STRIDE		(64 * 1024)

FIXTURE(lifetime) {
	struct cf_env e;
	int dev;
	struct cf_daemon *d;
	pid_t child;
};

FIXTURE_SETUP(lifetime)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(lifetime)
{
	if (self->child > 0)
		kill(self->child, SIGKILL);
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

static long do_readahead(struct cf_op *op)
{
	return readahead(op->fd, op->off, 128 * 1024) ? -errno : 0;
}

/* --------------------------------------------------------------- unmount */

TEST_F_TIMEOUT(lifetime, mount_while_an_fd_of_the_last_one_is_kept, 60)
{
	long expected = cf_intended("kept-fd-blocks-mount");
	struct cf_blob old, b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &old, "kept", SIZE));
	cf_no_readahead(old.fd);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &old, 0));
	close(old.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	/* the daemon keeps old.anon in spite of it */
	ASSERT_EQ(expected, cf_env_mount_soon(&self->e));
	if (expected) {
		close(old.anon);
		return;
	}
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "kept", SIZE));
	cf_no_readahead(b.fd);
	EXPECT_NE(old.object_id, b.object_id);
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 2 * CF_PAGE));
}

TEST_F_TIMEOUT(lifetime, fd_of_a_withdrawn_object_takes_nothing, 60)
{
	static char block[4096] __attribute__((aligned(4096)));
	struct cf_blob b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "kept", SIZE));
	close(b.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	/* A withdrawal that waited for its CLOSE to be read goes on only now. */
	CF_WAIT_FOR(cf_pwrite(b.anon, block, 4096, 0) == -ENOBUFS, CF_SOON);
	EXPECT_EQ(-ENOBUFS, cf_pwrite(b.anon, block, 4096, 0));
	EXPECT_EQ(-1, lseek(b.anon, 0, SEEK_DATA));
	EXPECT_EQ(ENOBUFS, errno);
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, b.msg_id + 1));
	EXPECT_EQ(0, close(b.anon));
}

TEST_F_TIMEOUT(lifetime, unmount_sends_one_CLOSE_per_object, 60)
{
	struct cf_blob b[3];
	bool seen[3] = { false, false, false };
	struct cf_msg m;
	char name[16];
	int i, j;

	for (i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "b%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b[i], name, SIZE));
		close(b[i].fd);
	}
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
		for (j = 0; j < 3; j++)
			if (b[j].object_id == m.w.object_id) {
				EXPECT_FALSE(seen[j]) TH_LOG("CLOSE twice");
				seen[j] = true;
			}
	}
	EXPECT_TRUE(seen[0] && seen[1] && seen[2]) TH_LOG("CLOSE of a wrong object_id");
	EXPECT_EQ(-ETIMEDOUT, cf_recv(self->dev, &m, CF_NEVER));
}

TEST_F_TIMEOUT(lifetime, mount_while_a_CLOSE_is_not_read, 60)
{
	long expected = cf_intended("unread-close");
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	int fd;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "unread", SIZE));
	close(b.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	ASSERT_EQ(expected, cf_env_mount_soon(&self->e));
	if (expected) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
		EXPECT_EQ(b.object_id, m.w.object_id);
		close(b.anon);
		return;
	}
	op = cf_start_open(self->e.mnt, "unread");
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	EXPECT_EQ(b.object_id, m.w.object_id);
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
	fd = cf_finish(op);
	EXPECT_GE(fd, 0);
}

TEST_F_TIMEOUT(lifetime, fd_closed_before_unmount_gets_no_CLOSE, 60)
{
	struct cf_blob b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "closed", SIZE));
	close(b.fd);
	ASSERT_EQ(0, close(b.anon));
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	EXPECT_EQ(-ETIMEDOUT, cf_recv(self->dev, &m, CF_NEVER));
}

TEST_F_TIMEOUT(lifetime, fd_closed_before_its_CLOSE_is_read, 60)
{
	bool late = cf_intended("object-id-ffffffff");
	struct cf_blob b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "closed", SIZE));
	close(b.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	ASSERT_EQ(0, close(b.anon));
	/* 0xffffffff for an object id is not well-formed. */
	EXPECT_EQ(late ? -EPROTO : -ETIMEDOUT, cf_recv(self->dev, &m, CF_NEVER));
	if (late) {
		EXPECT_EQ(CF_CLOSE, m.w.opcode);
		EXPECT_EQ(0xffffffff, m.w.object_id);
	}
	ASSERT_EQ(0, cf_env_mount_soon(&self->e));
}

TEST_F_TIMEOUT(lifetime, idle_object_is_closed_after_a_while, 90)
{
	struct cf_blob b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "idle", SIZE));
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	close(b.fd);
	/* fscache gives up an unused cookie after 10 s */
	ASSERT_EQ(0, cf_recv(self->dev, &m, 40000));
	EXPECT_EQ(CF_CLOSE, m.w.opcode);
	EXPECT_EQ(b.object_id, m.w.object_id);
	close(b.anon);
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "idle", SIZE));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 1 << 20));
}

TEST_F_TIMEOUT(lifetime, unmount_with_READS_in_flight_is_not_held_up, 60)
{
	long expected = cf_intended("readahead-waits");
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	struct cf_clock clock;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "silent", SIZE));
	op = cf_start(do_readahead, NULL, b.fd, 0, 0);
	ASSERT_EQ(expected, cf_wait(op, 2000));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	/* never answered, but where it keeps the file open */
	if (expected) {
		ASSERT_EQ(0, cf_complete(b.anon, m.w.msg_id));
		ASSERT_EQ(0, cf_finish(op));
	}
	close(b.fd);
	cf_clock_start(&clock);
	EXPECT_EQ(0, cf_env_umount_soon(&self->e));
	EXPECT_LT(cf_spent(&clock), 10000);
	if (expected)
		ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	/* the name is free again, too */
	if (cf_intended("kept-fd-blocks-mount"))
		close(b.anon);
	ASSERT_EQ(0, cf_env_mount_soon(&self->e));
}

TEST_F_TIMEOUT(lifetime, unmount_with_READS_not_yet_read_is_not_held_up, 60)
{
	long expected = cf_intended("readahead-waits");
	struct cf_blob b;
	struct cf_op *op;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "silent", SIZE));
	op = cf_start(do_readahead, NULL, b.fd, 0, 0);
	ASSERT_EQ(expected, cf_wait(op, 2000));
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	close(b.fd);
	/* A task that waits in readahead keeps the file open. */
	ASSERT_EQ(expected ? -EBUSY : 0, cf_env_umount_soon(&self->e));
	if (!expected)
		ASSERT_EQ(0, cf_env_mount_soon(&self->e));
}

TEST_F_TIMEOUT(lifetime, detached_mount_with_an_OPEN_in_flight_ends, 60)
{
	long expected = cf_intended("copen-nobody-waits-for");
	struct cf_msg m, c;
	struct cf_blob b;
	char path[512];
	long err = 0;
	pid_t pid;
	int i;

	snprintf(path, sizeof(path), "%s/silent", self->e.mnt);
	pid = cf_fork();
	if (pid == 0) {
		open(path, O_RDONLY);
		_exit(0);
	}
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	ASSERT_EQ(0, umount2(self->e.mnt, MNT_DETACH));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	if (!expected) {
		EXPECT_FALSE(cf_readable(self->dev, 2000));
		EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
	}
	/* The object is not in use any more: the daemon gets a CLOSE for its fd. */
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &c));
	EXPECT_EQ(m.w.object_id, c.w.object_id);
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, SIZE));
	close(m.w.open.fd);
	/* The same domain can be mounted once the old mount is gone. */
	for (i = 0; i < 50; i++) {
		err = cf_env_mount_soon(&self->e);
		if (err != -EBUSY)
			break;
		cf_sleep_ms(100);
	}
	ASSERT_EQ(0, err);
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "other", SIZE));
}

TEST_F_TIMEOUT(lifetime, copen_after_the_opener_and_the_mount_are_gone, 60)
{
	struct cf_msg m;
	char path[512];
	pid_t pid;
	int err;

	snprintf(path, sizeof(path), "%s/late", self->e.mnt);
	pid = cf_fork();
	if (pid == 0) {
		open(path, O_RDONLY);
		_exit(0);
	}
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	kill(pid, SIGKILL);
	ASSERT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	err = cf_copen(self->dev, m.w.msg_id, SIZE);
	EXPECT_TRUE(err == 0 || err == -EINVAL) TH_LOG("copen: %d", err);
	EXPECT_EQ(0, close(m.w.open.fd));
}

/* ----------------------------------------------------------- device close */

TEST_F_TIMEOUT(lifetime, next_daemon_while_an_fd_of_the_last_one_is_kept, 60)
{
	long expected = cf_intended("device-busy-by-anon-fd");
	struct cf_blob old, b;
	int i;

	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, cf_blob_open(&self->e, &old, "again", SIZE));
		close(old.fd);
		/* the device goes before the fd, which is kept */
		cf_env_close(&self->e);
		self->e.dev = cf_device_open();
		if (expected) {
			ASSERT_EQ(expected, self->e.dev);
			close(old.anon);
			self->e.dev = cf_device_open();
		}
		ASSERT_GE(self->e.dev, 0) TH_LOG("%s", strerror(-self->e.dev));
		ASSERT_EQ(0, cf_cmd(self->e.dev, "dir %s", self->e.dir));
		ASSERT_EQ(0, cf_cmd(self->e.dev, "tag %s", self->e.tag));
		ASSERT_EQ(0, cf_cmd(self->e.dev, "bind ondemand"));
		self->dev = self->e.dev;
	}
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "again", SIZE));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	if (expected)
		return;
	/* what is left of the first daemon is without effect */
	EXPECT_EQ(-EINVAL, cf_complete(old.anon, 0));
	EXPECT_EQ(0, close(old.anon));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 1 << 20));
}

TEST_F_TIMEOUT(lifetime, fd_of_a_closed_device, 60)
{
	static char block[4096] __attribute__((aligned(4096)));
	long expected = cf_intended("write-without-device");
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "inert", SIZE));
	cf_env_close(&self->e);
	EXPECT_EQ(expected, cf_pwrite(b.anon, block, 4096, 0));
	EXPECT_EQ(expected > 0 ? 0 : -1, lseek(b.anon, 0, SEEK_DATA));
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, 1));
}

TEST_F_TIMEOUT(lifetime, reading_without_a_daemon_is_EIO, 60)
{
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "orphan", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	cf_env_close(&self->e);
	EXPECT_EQ(-EIO, cf_finish(cf_start_pread(b.fd, 1 << 20, 4096)));
	EXPECT_EQ(-EIO, cf_finish(cf_start_pread(b.fd, SIZE - 100, 4096)));
}

TEST_F_TIMEOUT(lifetime, open_file_is_served_by_the_next_daemon, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "heals", SIZE));
	cf_no_readahead(b.fd);
	cf_env_close(&self->e);
	ASSERT_EQ(-EIO, cf_finish(cf_start_pread(b.fd, 0, 4096)));
	close(b.anon);
	ASSERT_SETUP(cf_env_bind(&self->e));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, SIZE));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "heals", m.w.read.off, m.w.read.len, SIZE));
	ASSERT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("heals", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(lifetime, closing_the_device_fails_all_READS, 60)
{
	struct cf_op *op[READERS];
	struct cf_blob b;
	struct cf_msg m;
	struct cf_clock clock;
	int i;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "waiters", SIZE));
	cf_no_readahead(b.fd);
	for (i = 0; i < READERS; i++)
		op[i] = cf_start_pread(b.fd, i * STRIDE, 4096);
	/* half of them delivered, half not */
	for (i = 0; i < READERS / 2; i++)
		ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	cf_clock_start(&clock);
	cf_env_close(&self->e);
	for (i = 0; i < READERS; i++)
		EXPECT_EQ(-EIO, cf_finish(op[i]));
	EXPECT_LT(cf_spent(&clock), 3000);
}

/* -------------------------------------------------------------- anon fds */

TEST_F_TIMEOUT(lifetime, fd_closed_with_a_delivered_READ_asks_again_after_an_OPEN, 60)
{
	long expected = cf_intended("closed-fd-loses-read");
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	uint32_t old;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "again", SIZE));
	cf_no_readahead(b.fd);
	old = b.object_id;
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, close(b.anon));
	if (expected) {
		EXPECT_EQ(expected, cf_wait(op, 2000));
		EXPECT_FALSE(cf_readable(self->dev, 0));
		ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	}
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, SIZE));
	EXPECT_NE(old, b.object_id);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(b.object_id, m.w.object_id);
	ASSERT_EQ(0, cf_fill(b.anon, "again", m.w.read.off, m.w.read.len, SIZE));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("again", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(lifetime, fd_closed_with_a_queued_READ_asks_again_after_an_OPEN, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "again", SIZE));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	ASSERT_EQ(0, close(b.anon));
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, SIZE));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(b.object_id, m.w.object_id);
	ASSERT_EQ(0, cf_fill(b.anon, "again", m.w.read.off, m.w.read.len, SIZE));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("again", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(lifetime, fd_closed_when_idle_is_asked_for_by_the_next_READ, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "idle", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	ASSERT_EQ(0, close(b.anon));
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER)) TH_LOG("nothing is needed yet");
	op = cf_start_pread(b.fd, 1 << 20, 4096);
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, SIZE));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "idle", m.w.read.off, m.w.read.len, SIZE));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("idle", 1 << 20, op->buf, 4096));
}

TEST_F_TIMEOUT(lifetime, READS_of_an_object_wait_for_its_reopening_others_do_not, 60)
{
	struct cf_blob a, b;
	struct cf_op *ra, *rb;
	struct cf_msg open, m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &a, "reopened", SIZE));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "alive", SIZE));
	cf_no_readahead(a.fd);
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, close(a.anon));
	ra = cf_start_pread(a.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER)) TH_LOG("no READ before the copen");
	rb = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(b.object_id, m.w.object_id);
	ASSERT_EQ(0, cf_fill(b.anon, "alive", 0, CF_PAGE, SIZE));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_finish(rb));
	EXPECT_EQ(-ETIMEDOUT, cf_recv(self->dev, &m, CF_NEVER));

	ASSERT_EQ(0, cf_copen(self->dev, open.w.msg_id, SIZE));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(open.w.object_id, m.w.object_id);
	ASSERT_EQ(0, cf_fill(open.w.open.fd, "reopened", 0, CF_PAGE, SIZE));
	EXPECT_EQ(0, cf_complete(open.w.open.fd, m.w.msg_id));
	EXPECT_EQ(4096, cf_finish(ra));
}

TEST_F_TIMEOUT(lifetime, fd_closed_leaves_other_objects_alone, 60)
{
	struct cf_blob a, b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &a, "closed", SIZE));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "alive", SIZE));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, close(a.anon));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	ASSERT_EQ(0, cf_fill(b.anon, "alive", m.w.read.off, m.w.read.len, SIZE));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
}

TEST_F_TIMEOUT(lifetime, reopening_answered_with_an_error, 60)
{
	long expected = cf_intended("failed-reopen");
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	int i;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "refused", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, close(b.anon));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, -ENOENT));
	close(b.anon);
	/* Readahead and the read itself ask one after the other. */
	for (i = 0; i < 10 && cf_wait(op, CF_NEVER) == -ETIMEDOUT; i++) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
		ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, -ENOENT));
		close(m.w.open.fd);
	}
	ASSERT_EQ(expected, cf_wait(op, CF_NEVER));
	/* and it is not held against the file */
	if (expected != -ETIMEDOUT)
		op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, SIZE));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "refused", m.w.read.off, m.w.read.len, SIZE));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("refused", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(lifetime, reopening_answered_with_another_size, 60)
{
	long expected = cf_intended("reopen-other-size");
	struct cf_blob b;
	struct cf_op *op;
	struct stat st;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "resized", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, close(b.anon));
	op = cf_start_pread(b.fd, 0, 4096);
	EXPECT_EQ(expected, cf_blob_answer_open(&self->e, &b, SIZE + 4096));
	/* Taken over, under the feet of the reader. */
	if (!expected) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
		return;
	}
	close(b.anon);
	while (cf_wait(op, CF_NEVER) == -ETIMEDOUT) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
		EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, SIZE + 4096));
		close(m.w.open.fd);
	}
	EXPECT_EQ(-EIO, cf_wait(op, CF_SOON));
	ASSERT_EQ(0, fstat(b.fd, &st));
	EXPECT_EQ(SIZE, st.st_size);
}

TEST_F_TIMEOUT(lifetime, restore_offers_delivered_READS_again, 60)
{
	struct cf_msg first, again;
	struct cf_blob b;
	struct cf_op *op;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "restore", SIZE));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &first));
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &again));
	EXPECT_EQ(first.w.read.off, again.w.read.off);
	EXPECT_EQ(first.w.read.len, again.w.read.len);
	ASSERT_EQ(0, cf_fill(b.anon, "restore", again.w.read.off, again.w.read.len, SIZE));
	EXPECT_EQ(0, cf_complete(b.anon, again.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("restore", 0, op->buf, 4096));
	/* nothing is open about an OPEN that was answered */
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
}

TEST_F_TIMEOUT(lifetime, killed_reader_leaves_at_once, 60)
{
	struct cf_blob b;
	struct cf_msg m;
	char block[4096];
	struct cf_clock clock;
	pid_t pid;
	int err;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "killed", SIZE));
	cf_no_readahead(b.fd);
	pid = cf_fork();
	if (pid == 0) {
		pread(b.fd, block, 4096, 0);
		_exit(0);
	}
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, CF_NEVER));
	cf_clock_start(&clock);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	EXPECT_LT(cf_spent(&clock), 2000);
	ASSERT_EQ(0, cf_fill(b.anon, "killed", m.w.read.off, m.w.read.len, SIZE));
	err = cf_complete(b.anon, m.w.msg_id);
	EXPECT_TRUE(err == 0 || err == -EINVAL) TH_LOG("complete: %d", err);
	EXPECT_EQ(4096, cf_finish(cf_start_pread(b.fd, 0, 4096)));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 1 << 20));
}

/* ----------------------------------------------------------- kill the daemon */

FIXTURE(killed) {
	struct cf_env e;
	struct cf_daemon *d, *next;
	pid_t child;
	int fd;
	struct cf_op *op[READERS];
};

FIXTURE_VARIANT(killed) {
	bool device_kept;
};

/* The device is closed with the daemon, or another process has a copy of its fd. */
FIXTURE_VARIANT_ADD(killed, with_its_device) { .device_kept = false };
FIXTURE_VARIANT_ADD(killed, with_the_device_kept) { .device_kept = true };

FIXTURE_SETUP(killed)
{
	int i;

	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_SETUP(cf_env_bind(&self->e));
	self->d = cf_daemon_new(self->e.dev, SIZE);
	ASSERT_NE(NULL, self->d);
	self->d->hold_reads = true;
	self->child = cf_fork();
	if (self->child == 0) {
		cf_daemon_loop(self->d);
		_exit(0);
	}
	if (!variant->device_kept)
		cf_env_close(&self->e);
	ASSERT_SETUP(cf_env_mount(&self->e));
	self->fd = cf_finish(cf_start_open(self->e.mnt, "victim"));
	ASSERT_GE(self->fd, 0);
	cf_no_readahead(self->fd);
	for (i = 0; i < READERS; i++)
		self->op[i] = cf_start_pread(self->fd, i * STRIDE, 4096);
	ASSERT_TRUE(CF_WAIT_FOR(self->d->reads >= READERS, 30000))
		TH_LOG("%d READs arrived", self->d->reads);
}

FIXTURE_TEARDOWN(killed)
{
	if (self->child > 0)
		kill(self->child, SIGKILL);
	if (self->next)
		cf_daemon_stop(self->next);
	cf_env_end(&self->e);
	cf_daemon_free(self->next);
}

TEST_F_TIMEOUT(killed, readers_get_EIO_or_the_successors_data_never_zeros, 120)
{
	int i;

	ASSERT_EQ(0, kill(self->child, SIGKILL));
	if (!variant->device_kept) {
		for (i = 0; i < READERS; i++)
			EXPECT_EQ(-EIO, cf_finish(self->op[i]));
		return;
	}
	/* READs that are delivered before the fds of the dead one are closed would be lost. */
	if (cf_intended("closed-fd-loses-read"))
		ASSERT_EQ(128 + SIGKILL, cf_reap(self->child, CF_SOON));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "restore"));
	self->next = cf_daemon_new(self->e.dev, SIZE);
	ASSERT_NE(NULL, self->next);
	ASSERT_EQ(0, cf_daemon_start(self->next, 2));
	for (i = 0; i < READERS; i++) {
		ASSERT_EQ(4096, cf_wait(self->op[i], 30000)) TH_LOG("reader %d", i);
		EXPECT_EQ(-1, cf_check("victim", i * STRIDE, self->op[i]->buf, 4096));
	}
	EXPECT_GE(self->next->opens, 1);
	EXPECT_EQ(0, self->next->bad) TH_LOG("%s", self->next->error);
}

TEST_F_TIMEOUT(killed, file_is_served_by_a_successor, 120)
{
	struct cf_op *op;
	int i;

	ASSERT_EQ(0, kill(self->child, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, cf_reap(self->child, CF_SOON));
	ASSERT_SETUP(variant->device_kept ? cf_cmd(self->e.dev, "restore") :
		     cf_env_bind(&self->e));
	self->next = cf_daemon_new(self->e.dev, SIZE);
	ASSERT_NE(NULL, self->next);
	ASSERT_EQ(0, cf_daemon_start(self->next, 1));
	for (i = 0; i < READERS; i++)
		cf_wait(self->op[i], 30000);
	op = cf_start_pread(self->fd, SIZE - 4096, 4096);
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("victim", SIZE - 4096, op->buf, 4096));
	EXPECT_EQ(0, self->next->bad) TH_LOG("%s", self->next->error);
}

/* With the device kept a successor may come; without, there is nothing to wait for. */
TEST_F_TIMEOUT(killed, later_reader_waits_killably_or_gets_EIO, 120)
{
	pid_t pid;
	char c;

	ASSERT_EQ(0, kill(self->child, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, cf_reap(self->child, CF_SOON));
	pid = cf_fork();
	if (pid == 0) {
		errno = 0;
		pread(self->fd, &c, 1, SIZE - 1);
		_exit(errno);
	}
	if (variant->device_kept) {
		EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, CF_NEVER));
		kill(pid, SIGKILL);
		EXPECT_EQ(128 + SIGKILL, cf_reap(pid, 3000));
		return;
	}
	EXPECT_EQ(EIO, cf_reap(pid, CF_SOON));
}

/* ------------------------------------------------------------------ races */

#define ROUNDS	20

TEST_F_TIMEOUT(lifetime, unmount_racing_with_device_close, 180)
{
	struct cf_op *um, *cl;
	struct cf_blob b;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, "race", SIZE));
		close(b.fd);
		if (i & 1)
			close(b.anon);
		um = cf_start_umount(self->e.mnt, 0);
		cl = cf_start_close(self->e.dev);
		self->e.dev = -1;
		ASSERT_EQ(0, cf_finish(um)) TH_LOG("round %d", i);
		ASSERT_EQ(0, cf_finish(cl)) TH_LOG("round %d", i);
		if (!(i & 1))
			close(b.anon);
		ASSERT_SETUP(cf_env_bind(&self->e));
		ASSERT_EQ(0, cf_env_mount_soon(&self->e));
	}
}

TEST_F_TIMEOUT(lifetime, unmount_racing_with_fd_close, 180)
{
	bool late = cf_intended("object-id-ffffffff");
	struct cf_op *um, *cl;
	struct cf_blob b;
	struct cf_msg m;
	int i, err;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, "race", SIZE));
		close(b.fd);
		um = cf_start_umount(self->e.mnt, 0);
		cl = cf_start_close(b.anon);
		ASSERT_EQ(0, cf_finish(um));
		ASSERT_EQ(0, cf_finish(cl));
		/* a CLOSE or none, but of this object */
		while ((err = cf_recv(self->dev, &m, 20)) == 0 || (err == -EPROTO && late)) {
			EXPECT_EQ(CF_CLOSE, m.w.opcode);
			EXPECT_EQ(err ? -1 : b.object_id, m.w.object_id);
		}
		EXPECT_EQ(-ETIMEDOUT, err);
		ASSERT_EQ(0, cf_env_mount_soon(&self->e));
	}
}

TEST_F_TIMEOUT(lifetime, fd_close_racing_with_the_delivery_of_a_READ, 180)
{
	bool lost = cf_intended("closed-fd-loses-read");
	bool odd_ids = cf_intended("object-id-ffffffff");
	struct cf_op *op, *cl;
	struct cf_blob b;
	struct cf_msg m;
	bool reopened;
	off_t off = 0;
	int i, err;
	long ret;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "race", SIZE));
	cf_no_readahead(b.fd);
	for (i = 0; i < ROUNDS; i++, off += 2 * CF_PAGE) {
		reopened = false;
		op = cf_start_pread(b.fd, off, 4096);
		cl = cf_start_close(b.anon);
		while ((ret = cf_wait(op, 0)) == -ETIMEDOUT) {
			/* cf_recv() insists on sound object ids */
			err = cf_recv(self->dev, &m, 100);
			ASSERT_TRUE(err == 0 || err == -ETIMEDOUT || (odd_ids && err == -EPROTO))
				TH_LOG("%d", err);
			if (err && lost)
				ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
			if (err)
				continue;
			if (m.w.opcode == CF_OPEN) {
				reopened = true;
				b.anon = m.w.open.fd;
				b.object_id = m.w.object_id;
				ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
				continue;
			}
			ASSERT_EQ(CF_READ, m.w.opcode);
			ASSERT_EQ(b.object_id, m.w.object_id);
			/* A READ that came before its fd went will come again. */
			if (!reopened)
				continue;
			ASSERT_EQ(0, cf_fill(b.anon, "race", m.w.read.off, m.w.read.len, SIZE));
			ASSERT_EQ(0, cf_complete(b.anon, m.w.msg_id));
			cf_wait(op, 100);
		}
		ASSERT_EQ(4096, ret) TH_LOG("round %d", i);
		ASSERT_EQ(-1, cf_check("race", off, op->buf, 4096));
		cf_op_free(op);
		ASSERT_EQ(0, cf_finish(cl));
	}
}

/* ---------------------------------------------------------------- modules */

FIXTURE(module) {
	struct cf_env e;
};

FIXTURE_SETUP(module)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_EQ(0, cf_modprobe("ondemandfs"));
	if (!cf_is_module("cachefiles") || !cf_is_module("ondemandfs"))
		SKIP(return, "cachefiles or ondemandfs is built in, there is nothing to unload");
}

FIXTURE_TEARDOWN(module)
{
	cf_env_end(&self->e);
	cf_modprobe("cachefiles");
}

/* As root: modules in use say "try again". */
#define IN_USE	(-EWOULDBLOCK)

TEST_F_TIMEOUT(module, cachefiles_stays_while_the_device_is_open, 60)
{
	cf_rmmod("ondemandfs");
	CF_WAIT_FOR((self->e.dev = cf_device_open()) >= 0, 5000);
	ASSERT_GE(self->e.dev, 0);
	EXPECT_EQ(IN_USE, cf_rmmod("cachefiles"));
	EXPECT_EQ(0, cf_cmd(self->e.dev, "debug 0"));
}

TEST_F_TIMEOUT(module, cachefiles_stays_while_an_anon_fd_is_open, 60)
{
	struct cf_blob b;

	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "pin", SIZE));
	close(b.fd);
	cf_env_close(&self->e);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	CF_WAIT_FOR(cf_rmmod("ondemandfs") != IN_USE, 5000);
	EXPECT_EQ(IN_USE, cf_rmmod("cachefiles"));
	EXPECT_EQ(0, close(b.anon));
	EXPECT_TRUE(CF_WAIT_FOR(cf_rmmod("cachefiles") == 0, 5000));
}

TEST_F_TIMEOUT(module, ondemandfs_stays_while_mounted, 60)
{
	ASSERT_SETUP(cf_env_mount(&self->e));
	EXPECT_EQ(IN_USE, cf_rmmod("ondemandfs"));
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(cf_rmmod("ondemandfs") == 0, 5000));
}

TEST_F_TIMEOUT(module, both_unload_after_the_daemon_and_the_mount_are_gone, 60)
{
	struct cf_blob b;

	/* mounted and used, but the daemon is gone */
	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "left", SIZE));
	close(b.anon);
	cf_env_close(&self->e);
	close(b.fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(cf_rmmod("ondemandfs") == 0, 5000));
	EXPECT_TRUE(CF_WAIT_FOR(cf_rmmod("cachefiles") == 0, 5000));
}

TEST_F_TIMEOUT(module, fifty_loads_and_unloads, 240)
{
	struct cf_blob b;
	int i;

	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, cf_modprobe("cachefiles")) TH_LOG("round %d", i);
		ASSERT_EQ(0, cf_modprobe("ondemandfs")) TH_LOG("round %d", i);
		ASSERT_TRUE(CF_WAIT_FOR(access(CF_DEVICE, F_OK) == 0, 5000));
		ASSERT_SETUP(cf_env_bind(&self->e));
		/* with some work in between, every now and then */
		if (i % 10 == 0) {
			ASSERT_SETUP(cf_env_mount(&self->e));
			ASSERT_EQ(0, cf_blob_open(&self->e, &b, "work", SIZE));
			ASSERT_EQ(0, cf_blob_fetch(&self->e, &b, (i + 1) * CF_PAGE));
			close(b.fd);
			close(b.anon);
			ASSERT_EQ(0, cf_env_umount(&self->e));
		}
		cf_env_close(&self->e);
		ASSERT_TRUE(CF_WAIT_FOR(cf_rmmod("ondemandfs") == 0, 5000)) TH_LOG("round %d", i);
		ASSERT_TRUE(CF_WAIT_FOR(cf_rmmod("cachefiles") == 0, 5000)) TH_LOG("round %d", i);
		ASSERT_NE(0, access(CF_DEVICE, F_OK));
	}
}

TEST_HARNESS_MAIN
