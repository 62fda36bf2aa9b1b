// SPDX-License-Identifier: GPL-2.0
/*
 * Bugs of the C code that were fixed there, F1 to F25 of
 * Documentation/filesystems/caching/cachefiles-rust-c-bugs.rst.  It names the tests of
 * those that have none here.
 */
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "faults.h"

FIXTURE(fixed) {
	struct cf_env e;
	int dev;
	struct cf_daemon *d;
	pid_t child;
};

FIXTURE_SETUP(fixed)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_SETUP(cf_env_mount(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(fixed)
{
	if (self->child > 0)
		kill(self->child, SIGKILL);
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

/* --------------------------------------------------------------- fairness */

#define STREAMS	4

static atomic_bool stop;

static long stream(struct cf_op *op)
{
	char buf[4096];
	off_t off;

	for (off = 0; off < op->len && !stop; off += 4096)
		if (pread(op->fd, buf, 4096, off) != 4096)
			return -EIO;
	return 0;
}

TEST_F_TIMEOUT(fixed, f03_requests_that_keep_coming_starve_nobody, 60)
{
	struct cf_op *op[STREAMS], *late = NULL;
	struct cf_blob b[STREAMS + 1];
	struct cf_msg m;
	int i, n, before = 0;
	bool done = false;
	char name[16];

	for (i = 0; i <= STREAMS; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b[i], name, 8 * SIZE));
		cf_no_readahead(b[i].fd);
	}
	stop = false;
	for (i = 0; i < STREAMS; i++)
		op[i] = cf_start(stream, NULL, b[i].fd, 0, 8 * SIZE);
	for (n = 0; n < 1000 && !done; n++) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
		if (n == 20) {
			/* Ids are high by now; those of others that come later are higher. */
			late = cf_start_pread(b[STREAMS].fd, 0, 4096);
			cf_sleep_ms(100);
		}
		for (i = 0; i <= STREAMS; i++)
			if (b[i].object_id == m.w.object_id)
				ASSERT_EQ(0, cf_blob_answer_read(&b[i], &m));
		if (m.w.object_id == b[STREAMS].object_id)
			done = true;
		else if (late)
			before++;
	}
	EXPECT_TRUE(done) TH_LOG("not delivered at all");
	EXPECT_LE(before, 2 * STREAMS) TH_LOG("%d others came first", before);
	EXPECT_EQ(4096, cf_finish(late));
	stop = true;
	for (i = 0; i < STREAMS; i++) {
		while (cf_wait(op[i], 0) == -ETIMEDOUT) {
			if (cf_recv(self->dev, &m, 20))
				continue;
			for (n = 0; n < STREAMS; n++)
				if (b[n].object_id == m.w.object_id)
					ASSERT_EQ(0, cf_blob_answer_read(&b[n], &m));
		}
		EXPECT_EQ(0, cf_finish(op[i]));
	}
}

/* ------------------------------------------------- the end of the cache */

#define OPENERS	24

/* A daemon that answers every OPEN, until it is stopped. */
static long answer_opens(struct cf_op *op)
{
	struct cf_msg m;
	int err, n = 0;

	while (!stop) {
		err = cf_recv(op->fd, &m, 20);
		if (err == -ETIMEDOUT)
			continue;
		if (err)
			return err;
		if (m.w.opcode != CF_OPEN)
			continue;
		err = cf_copen(op->fd, m.w.msg_id, 4096);
		if (!err)
			cf_fill(m.w.open.fd, "any", 0, 4096, 4096);
		close(m.w.open.fd);
		/* Too late, or the opener has failed. */
		if (err && err != -EINVAL && err != -EIO)
			return err;
		n++;
	}
	return n;
}

FIXTURE(dying) {
	struct cf_env e;
	int dev;
};

/* The cache is on a file system of its own, to be failed. */
FIXTURE_SETUP(dying)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	ASSERT_EQ(0, mount_new_ext4(&self->e, self->e.dir, 16));
	ASSERT_SETUP(cf_env_bind(&self->e));
	ASSERT_SETUP(cf_env_mount(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(dying)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(dying, f05_requests_that_fail_while_they_are_delivered, 60)
{
	struct cf_op *op[OPENERS], *daemon[2];
	char name[16];
	long ret;
	int i;

	for (i = 0; i < OPENERS; i++) {
		snprintf(name, sizeof(name), "w%d", i);
		op[i] = cf_start_open(self->e.mnt, name);
	}
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	ASSERT_EQ(0, shut_down_ext4(self->e.dir));
	/* The first of them to be answered and written to, or to come, ends the cache. */
	stop = false;
	for (i = 0; i < 2; i++)
		daemon[i] = cf_start(answer_opens, NULL, self->dev, 0, 0);
	/* With C that is an opener, as that makes the file. */
	if (!cf_is_c())
		EXPECT_TRUE(CF_WAIT_FOR(cf_cmd(self->dev, "restore") == -EIO, CF_SOON));
	ret = cf_finish(cf_start_open(self->e.mnt, "last"));
	EXPECT_TRUE(ret == -EIO || ret == -ENOTCONN) TH_LOG("last opener: %ld", ret);
	for (i = 0; i < OPENERS; i++) {
		ret = cf_finish(op[i]);
		EXPECT_TRUE(ret < 0 || !cf_is_c());
		EXPECT_NE(-ETIMEDOUT, ret) TH_LOG("opener %d waits for ever", i);
	}
	stop = true;
	for (i = 0; i < 2; i++)
		EXPECT_GE(cf_finish(daemon[i]), 0);
	EXPECT_EQ(-EIO, cf_cmd(self->dev, "restore")) TH_LOG("the cache lives: no test");
}

TEST_F_TIMEOUT(dying, f14_nobody_waits_for_a_cache_that_has_died, 60)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "waiting"), *other;
	struct cf_msg m, n;
	long ret;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	ASSERT_EQ(0, shut_down_ext4(self->e.dir));
	other = cf_start_open(self->e.mnt, "other");
	/* C makes the file before it asks. */
	if (cf_recv(self->dev, &n, 1000) == 0) {
		ASSERT_EQ(0, cf_copen(self->dev, n.w.msg_id, 4096));
		EXPECT_EQ(-EIO, cf_fill(n.w.open.fd, "other", 0, 4096, 4096));
		EXPECT_LE(0, cf_finish(other));
	} else {
		ret = cf_finish(other);
		EXPECT_TRUE(ret == -EIO || ret == -ENOTCONN) TH_LOG("%ld", ret);
	}
	/* The daemon can no longer answer. */
	EXPECT_EQ(-EIO, cf_copen(self->dev, m.w.msg_id, 4096));
	ret = cf_finish(op);
	EXPECT_TRUE(ret == -EIO || ret == -ENOTCONN) TH_LOG("%ld", ret);
}

/* -------------------------------------------- an OPEN delivered twice */

/*
 * One thread is still copying the OPEN of @b when `restore` has it delivered again.
 * In C that fails the OPEN.
 */
static int deliver_twice(struct __test_metadata *_metadata, struct cf_env *e, struct slow *s,
			 struct cf_blob *b, struct cf_op **reader, struct cf_op **opener)
{
	long again = cf_intended("OPEN-again-before-its-fd-closed");
	struct cf_msg m;
	int i, err, ret = 0;

	memset(b, 0, sizeof(*b));
	strcpy(b->name, "twice");
	b->size = SIZE;
	if (slow_make(e, s))
		return -EPROTO;
	*opener = cf_start_open(e->mnt, b->name);
	if (!cf_readable(e->dev, CF_SOON))
		return -ETIMEDOUT;
	*reader = slow_recv(e->dev, s);
	ret = slow_wait(e, s);
	if (!ret)
		ret = cf_cmd(e->dev, "restore");
	/* the OPEN, and the READ for the page, in any order */
	for (i = 0; i < 2 && !ret; i++) {
		err = cf_recv(e->dev, &m, CF_SOON);
		if (err == again && err)
			continue;
		ret = err;
		if (!err && m.w.opcode == CF_OPEN) {
			EXPECT_EQ(0, again);
			b->anon = m.w.open.fd;
			b->object_id = m.w.object_id;
			ret = cf_copen(e->dev, m.w.msg_id, b->size);
		}
	}
	if (ret)
		return ret;
	b->fd = cf_finish(*opener);
	EXPECT_EQ(again, b->fd < 0 ? again : 0);
	return 0;
}

TEST_F_TIMEOUT(fixed, f06_OPEN_answered_while_another_thread_still_copies_it, 60)
{
	struct cf_op *reader, *opener;
	struct cf_msg m, n;
	struct cf_blob b;
	struct slow s;

	ASSERT_EQ(0, deliver_twice(_metadata, &self->e, &s, &b, &reader, &opener));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(reader, 0));
	ASSERT_EQ(0, slow_go_on(&s));
	m.size = cf_finish(reader);
	ASSERT_GT(m.size, 32);
	memcpy(m.raw, s.page, m.size);
	EXPECT_EQ(CF_OPEN, m.w.opcode);
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, SIZE));
	if (b.fd >= 0) {
		/* The fd of the first delivery is no longer the object's. */
		ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &n));
		EXPECT_EQ(m.w.object_id, n.w.object_id);
		EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	}
	EXPECT_EQ(0, close(m.w.open.fd));
}

TEST_F_TIMEOUT(fixed, f07_object_gone_while_another_thread_still_copies_its_OPEN, 60)
{
	struct cf_op *reader, *opener;
	struct cf_blob b;
	struct cf_msg m;
	struct slow s;

	ASSERT_EQ(0, deliver_twice(_metadata, &self->e, &s, &b, &reader, &opener));
	if (b.fd >= 0) {
		close(b.anon);
		close(b.fd);
	}
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	cf_sleep_ms(CF_NEVER);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(reader, 0));
	ASSERT_EQ(0, slow_go_on(&s));
	m.size = cf_finish(reader);
	ASSERT_GT(m.size, 32);
	memcpy(m.raw, s.page, m.size);
	EXPECT_EQ(0, close(m.w.open.fd));
	ASSERT_EQ(0, cf_env_mount_soon(&self->e));
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "twice", SIZE));
}

TEST_F_TIMEOUT(fixed, f11_second_delivery_of_an_OPEN_leaves_nothing_behind, 60)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "twice");
	struct cf_msg first, again, m;
	struct cf_blob b;
	int fd, err;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &first));
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	err = cf_recv(self->dev, &again, CF_SOON);
	ASSERT_EQ(cf_intended("OPEN-again-before-its-fd-closed"), err);
	if (!err) {
		/* The object is that of the second fd; the first one is kept all the same. */
		ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
		EXPECT_EQ(first.w.object_id, m.w.object_id);
		ASSERT_EQ(0, cf_copen(self->dev, again.w.msg_id, SIZE));
		fd = cf_finish(op);
		ASSERT_GE(fd, 0);
		close(fd);
		EXPECT_EQ(0, close(again.w.open.fd));
	} else {
		EXPECT_LT(cf_finish(op), 0);
	}
	if (cf_intended("kept-fd-blocks-mount"))
		/* That is another story: U1. */
		close(first.w.open.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	ASSERT_EQ(0, cf_env_mount_soon(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "twice", SIZE));
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
}

TEST_F_TIMEOUT(fixed, f12_fd_is_not_there_before_its_message_is, 60)
{
	struct cf_op *reader, *opener;
	struct cf_msg m;
	struct slow s;
	int fd;

	ASSERT_EQ(0, slow_make(&self->e, &s));
	opener = cf_start_open(self->e.mnt, "early");
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	fd = cf_lowest_free_fd();
	reader = slow_recv(self->dev, &s);
	ASSERT_EQ(0, slow_wait(&self->e, &s));
	/* The message is being copied: if the fd were installed, any thread could close it. */
	EXPECT_EQ(-1, close(fd));
	EXPECT_EQ(EBADF, errno);
	ASSERT_EQ(0, slow_go_on(&s));
	m.size = cf_finish(reader);
	ASSERT_GT(m.size, 32);
	memcpy(m.raw, s.page, m.size);
	EXPECT_EQ(fd, m.w.open.fd);
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
	EXPECT_GE(cf_finish(opener), 0);
	EXPECT_EQ(0, close(m.w.open.fd));
}

/* --------------------------------------------------------- closed fds */

#define ROUNDS	20

TEST_F_TIMEOUT(fixed, f10_fd_closed_while_copen_runs, 120)
{
	bool told = cf_intended("opener-gets-the-errno");
	struct cf_op *op, *cl;
	struct cf_blob b;
	struct cf_msg m;
	int i, opened = 0;
	long fd;

	for (i = 0; i < ROUNDS; i++) {
		memset(&b, 0, sizeof(b));
		snprintf(b.name, sizeof(b.name), "r%d", i);
		b.size = SIZE;
		op = cf_start_open(self->e.mnt, b.name);
		ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
		cl = cf_start_close(m.w.open.fd);
		/* half of the time a little later */
		if (i & 1)
			cf_sleep_ms(1);
		EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, SIZE));
		ASSERT_EQ(0, cf_finish(cl));
		fd = cf_finish(op);
		if (fd < 0) {
			ASSERT_EQ(told ? -CF_ERR_BADFD : -EIO, fd);
			continue;
		}
		/* Open without an fd: a READ has to ask for one, not to wait for ever. */
		opened++;
		b.fd = fd;
		cf_no_readahead(b.fd);
		op = cf_start_pread(b.fd, 0, 4096);
		ASSERT_EQ(0, cf_blob_serve(&self->e, &b, op)) TH_LOG("round %d", i);
		close(b.fd);
		close(b.anon);
	}
	TH_LOG("opened before the close: %d of %d", opened, ROUNDS);
}

TEST_F_TIMEOUT(fixed, f13_object_whose_reopening_failed_can_be_opened_again, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	long ret;
	int i;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "reopen", SIZE));
	cf_no_readahead(b.fd);
	ASSERT_EQ(0, close(b.anon));
	op = cf_start_pread(b.fd, 0, 4096);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, cf_blob_take_open(&self->e, &b)) TH_LOG("attempt %d", i);
		ASSERT_EQ(0, close(b.anon));
		ASSERT_EQ(0, cf_copen(self->dev, b.msg_id, -EIO));
		/* Here that fails the reader; in C it goes on asking. */
		ret = cf_wait(op, CF_NEVER);
		if (ret != -ETIMEDOUT) {
			ASSERT_EQ(-EIO, ret);
			op = cf_start_pread(b.fd, 0, 4096);
		}
	}
	EXPECT_EQ(0, cf_blob_serve(&self->e, &b, op));
}

TEST_F_TIMEOUT(fixed, f17_reopening_while_everything_ends, 120)
{
	struct cf_blob b;
	struct cf_msg m;
	char c;
	int i;

	for (i = 0; i < ROUNDS / 2; i++) {
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, "gone", SIZE));
		self->child = cf_fork();
		if (self->child == 0) {
			/* the fd would stay open here */
			close(b.anon);
			cf_env_close(&self->e);
			pread(b.fd, &c, 1, 0);
			_exit(0);
		}
		close(b.fd);
		ASSERT_TRUE(cf_readable(self->e.dev, CF_SOON));
		ASSERT_EQ(0, close(b.anon));
		/* In C, this is what starts the reopening. */
		m.w.open.fd = -1;
		if (cf_recv(self->e.dev, &m, 0) == 0 && m.w.opcode == CF_OPEN)
			close(m.w.open.fd);
		cf_env_close(&self->e);
		kill(self->child, SIGKILL);
		ASSERT_GE(cf_reap(self->child, CF_SOON), 0);
		self->child = 0;
		ASSERT_EQ(0, cf_env_umount_soon(&self->e)) TH_LOG("round %d", i);
		ASSERT_SETUP(cf_env_bind(&self->e));
		ASSERT_EQ(0, cf_env_mount_soon(&self->e)) TH_LOG("round %d", i);
	}
}

/* ------------------------------------------------------------ the rest */

TEST_F_TIMEOUT(fixed, f18_late_answer_does_not_meet_another_OPEN, 60)
{
	struct cf_op *first, *second;
	struct cf_msg m, n;

	first = cf_start_open(self->e.mnt, "first");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	ASSERT_EQ(0, close(m.w.open.fd));
	ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, -ENOENT));
	EXPECT_EQ(cf_intended("opener-gets-the-errno") ? -ENOENT : -EIO, cf_finish(first));
	second = cf_start_open(self->e.mnt, "second");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &n));
	EXPECT_NE(m.w.msg_id, n.w.msg_id);
	/* a thread of the daemon that was slow to see that it is too late */
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, 8192));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(second, CF_NEVER));
	EXPECT_EQ(0, cf_copen(self->dev, n.w.msg_id, 4096));
	EXPECT_GE(cf_finish(second), 0);
}

static long poll_all_the_time(struct cf_op *op)
{
	struct pollfd p = { .fd = op->fd, .events = POLLIN };
	long n = 0;

	while (!stop)
		n += poll(&p, 1, 0) >= 0;
	return n;
}

TEST_F_TIMEOUT(fixed, f19_polling_while_requests_come_and_go, 120)
{
	struct cf_op *poller[2], *op;
	struct cf_blob b;
	char name[16];
	int i;

	self->d = cf_daemon_new(self->dev, SIZE);
	ASSERT_NE(NULL, self->d);
	ASSERT_EQ(0, cf_daemon_start(self->d, 2));
	stop = false;
	for (i = 0; i < 2; i++)
		poller[i] = cf_start(poll_all_the_time, NULL, self->dev, 0, 0);
	for (i = 0; i < 3 * ROUNDS; i++) {
		snprintf(name, sizeof(name), "p%d", i);
		b.fd = cf_finish(cf_start_open(self->e.mnt, name));
		ASSERT_GE(b.fd, 0);
		op = cf_start_pread(b.fd, 0, 4096);
		ASSERT_EQ(4096, cf_finish(op));
		close(b.fd);
	}
	stop = true;
	for (i = 0; i < 2; i++)
		EXPECT_GT(cf_finish(poller[i]), 0);
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

static long write_and_seek(struct cf_op *op)
{
	void *block;
	long ret;

	if (posix_memalign(&block, 4096, 4096))
		return -ENOMEM;
	memset(block, 1, 4096);
	do {
		ret = cf_pwrite(op->fd, block, 4096, 0);
		if (ret >= 0 && lseek(op->fd, 0, SEEK_DATA) < 0)
			ret = -errno;
	} while (ret >= 0);
	free(block);
	return ret;
}

TEST_F_TIMEOUT(fixed, f20_writing_and_seeking_while_the_object_goes, 120)
{
	struct cf_op *writer;
	struct cf_blob b;
	struct cf_msg m;
	int i;

	for (i = 0; i < ROUNDS / 2; i++) {
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, "written", SIZE));
		close(b.fd);
		writer = cf_start(write_and_seek, NULL, b.anon, 0, 0);
		cf_sleep_ms(i);
		ASSERT_EQ(0, cf_env_umount_soon(&self->e));
		ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
		EXPECT_EQ(-ENOBUFS, cf_finish(writer)) TH_LOG("round %d", i);
		ASSERT_EQ(0, close(b.anon));
		ASSERT_EQ(0, cf_env_mount_soon(&self->e)) TH_LOG("round %d", i);
	}
}

TEST_HARNESS_MAIN
