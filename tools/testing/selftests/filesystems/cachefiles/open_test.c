// SPDX-License-Identifier: GPL-2.0
/*
 * The OPEN request: its layout, its answers, and what becomes of it when the
 * daemon, the opener or the buffer misbehaves.
 */
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

FIXTURE(open) {
	struct cf_env e;
	int dev;
	struct cf_daemon *d;
};

FIXTURE_SETUP(open)
{
	struct rlimit rl = { 16384, 16384 };

	setrlimit(RLIMIT_NOFILE, &rl);
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(open)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

/* The name of a file @len bytes long. */
static void long_name(char *buf, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = 'a' + i % 26;
	buf[len] = 0;
}

/* ---------------------------------------------------------------- layout */

TEST_F_TIMEOUT(open, nothing_is_asked_before_the_first_open, 30)
{
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
}

TEST_F_TIMEOUT(open, message_layout_byte_by_byte, 30)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "layout");
	char volume[64];
	uint32_t f[8];
	struct cf_msg m;
	int vlen;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	vlen = snprintf(volume, sizeof(volume), "erofs,%s", self->e.domain) + 1;
	memcpy(f, m.raw, sizeof(f));
	EXPECT_EQ(0, f[0]) TH_LOG("the first msg_id of a cache is 0");
	EXPECT_EQ(0, f[1]) TH_LOG("opcode OPEN");
	EXPECT_EQ(32 + vlen + 6, f[2]) TH_LOG("len");
	EXPECT_EQ(f[2], m.size);
	EXPECT_EQ(1, f[3]) TH_LOG("the first object_id of a cache is 1");
	EXPECT_EQ(vlen, f[4]) TH_LOG("volume_key_size counts the NUL");
	EXPECT_EQ(6, f[5]) TH_LOG("cookie_key_size");
	EXPECT_GE((int)f[6], 0) TH_LOG("fd");
	EXPECT_EQ(0, f[7]) TH_LOG("flags");
	EXPECT_EQ(0, memcmp(m.raw + 32, volume, vlen));
	EXPECT_EQ(0, memcmp(m.raw + 32 + vlen, "layout", 6));
	EXPECT_EQ(0, m.raw[m.size]) TH_LOG("written past the end of the message");
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(open, volume_key_may_be_long, 30)
{
	char domain[249], want[256];
	struct cf_op *op;
	struct cf_msg m;

	/* 254 is the most that becomes a directory's name, with what is put before it */
	long_name(domain, sizeof(domain) - 1);
	ASSERT_EQ(0, cf_mount_at(self->e.erofs, domain, self->e.tag));
	op = cf_start_open(self->e.erofs, "x");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	snprintf(want, sizeof(want), "erofs,%s", domain);
	EXPECT_EQ(255, m.w.open.volume_key_size);
	EXPECT_EQ(32 + 255 + 1, m.w.len);
	EXPECT_EQ(0, memcmp(m.w.open.data, want, 255));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

FIXTURE(key) {
	struct cf_env e;
};

FIXTURE_VARIANT(key) {
	int len;
};

FIXTURE_VARIANT_ADD(key, of_1_byte) { .len = 1 };
FIXTURE_VARIANT_ADD(key, of_16_bytes) { .len = 16 };
FIXTURE_VARIANT_ADD(key, of_17_bytes) { .len = 17 };
FIXTURE_VARIANT_ADD(key, of_252_bytes) { .len = 252 };

FIXTURE_SETUP(key)
{
	ASSERT_SETUP(cf_env_all(&self->e));
}

FIXTURE_TEARDOWN(key)
{
	cf_env_end(&self->e);
}

/* Have a file with a name of @len bytes opened and read: 0 if all of it is right. */
static long use_key(struct cf_env *e, size_t len)
{
	char name[256], got[256];
	struct cf_op *op;
	struct cf_msg m;
	int fd, anon;
	long err;

	long_name(name, len);
	op = cf_start_open(e->mnt, name);
	err = cf_expect(e->dev, CF_OPEN, &m);
	if (err)
		return err;
	if (len != m.w.open.cookie_key_size || strcmp(name, cf_msg_name(&m, got)))
		return -EBADMSG;
	anon = m.w.open.fd;
	err = cf_copen(e->dev, m.w.msg_id, 4096);
	fd = cf_finish(op);
	if (err || fd < 0)
		return err ?: fd;
	op = cf_start_pread(fd, 0, 4096);
	err = cf_expect(e->dev, CF_READ, &m);
	if (err)
		return err;
	err = cf_fill(anon, name, 0, 4096, 4096) ?: cf_complete(anon, m.w.msg_id);
	if (err)
		return err;
	if (cf_wait(op, CF_SOON) != 4096 || cf_check(name, 0, op->buf, 4096) != -1)
		return -EBADMSG;
	cf_op_free(op);
	return 0;
}

TEST_F_TIMEOUT(key, arrives_raw_and_serves_data, 30)
{
	EXPECT_EQ(0, use_key(&self->e, variant->len));
}

FIXTURE(long_key) {
	struct cf_env e;
};

FIXTURE_VARIANT(long_key) {
	int len;
};

FIXTURE_VARIANT_ADD(long_key, of_253_bytes) { .len = 253 };
FIXTURE_VARIANT_ADD(long_key, of_254_bytes) { .len = 254 };
FIXTURE_VARIANT_ADD(long_key, of_255_bytes) { .len = 255 };

FIXTURE_SETUP(long_key)
{
	ASSERT_SETUP(cf_env_all(&self->e));
}

FIXTURE_TEARDOWN(long_key)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(long_key, arrives_raw_too, 30)
{
	EXPECT_EQ(cf_intended("long-key"), use_key(&self->e, variant->len));
}

TEST_F_TIMEOUT(open, any_byte_but_slash_may_be_in_a_name, 30)
{
	static const char name[] = "a b\t\n%s\\\"\x01\x7f\x80\xff,;";
	struct cf_op *op = cf_start_open(self->e.mnt, name);
	char got[256];
	struct cf_msg m;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(sizeof(name) - 1, m.w.open.cookie_key_size);
	EXPECT_STREQ(name, cf_msg_name(&m, got));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(open, msg_ids_count_from_0, 30)
{
	struct cf_blob b;
	char name[16];
	int i;

	for (i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, name, 4096));
		EXPECT_EQ(i, b.msg_id);
	}
}

TEST_F_TIMEOUT(open, messages_come_one_by_one_in_the_order_of_their_ids, 30)
{
	struct cf_op *op[4];
	struct cf_msg m[4];
	char name[16];
	int i;

	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		op[i] = cf_start_open(self->e.mnt, name);
		ASSERT_NE(NULL, op[i]);
	}
	cf_sleep_ms(1000);
	/* with space for all of them */
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, cf_recv(self->dev, &m[i], 0));
		EXPECT_EQ(i, m[i].w.msg_id);
	}
	/* answered in another order */
	for (i = 3; i >= 0; i--)
		EXPECT_EQ(0, cf_copen(self->dev, m[i].w.msg_id, 4096));
	for (i = 0; i < 4; i++)
		EXPECT_GE(cf_finish(op[i]), 0);
}

TEST_F_TIMEOUT(open, object_ids_and_fds_are_all_different, 30)
{
	struct cf_blob b[8];
	char name[16];
	int i, j;

	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b[i], name, 4096));
		EXPECT_GE(b[i].object_id, 1);
		for (j = 0; j < i; j++) {
			EXPECT_NE(b[j].object_id, b[i].object_id);
			EXPECT_NE(b[j].anon, b[i].anon);
		}
	}
}

TEST_F_TIMEOUT(open, fd_is_write_only_and_called_cachefiles, 30)
{
	char link[64], text[128] = "", c;
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "anon", 4096));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", b.anon);
	ASSERT_GT(readlink(link, text, sizeof(text) - 1), 0);
	EXPECT_STREQ("anon_inode:[cachefiles]", text);
	EXPECT_EQ(O_WRONLY, fcntl(b.anon, F_GETFL) & O_ACCMODE);
	EXPECT_EQ(-1, read(b.anon, &c, 1));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, pread(b.anon, &c, 1, 0));
}

TEST_F_TIMEOUT(open, second_open_of_a_file_asks_nothing, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	int fd;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "twice", 4096));
	op = cf_start_open(self->e.mnt, "twice");
	fd = cf_finish(op);
	EXPECT_GE(fd, 0);
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
}

TEST_F_TIMEOUT(open, two_openers_of_one_file_share_one_request, 30)
{
	struct cf_op *a = cf_start_open(self->e.mnt, "shared");
	struct cf_op *b = cf_start_open(self->e.mnt, "shared");
	struct cf_msg m, other;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(-ETIMEDOUT, cf_recv(self->dev, &other, CF_NEVER));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(a), 0);
	EXPECT_GE(cf_finish(b), 0);
}

/* ----------------------------------------------------- unsuitable readers */

TEST_F_TIMEOUT(open, buffer_of_40_bytes_is_EMSGSIZE_and_loses_nothing, 30)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "does-not-fit-into-40-bytes");
	char buf[40], name[256];
	struct cf_msg m;

	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	EXPECT_EQ(-1, read(self->dev, buf, sizeof(buf)));
	EXPECT_EQ(EMSGSIZE, errno);
	EXPECT_EQ(-1, read(self->dev, buf, 0));
	EXPECT_EQ(EMSGSIZE, errno);
	EXPECT_TRUE(cf_readable(self->dev, 0));
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_STREQ("does-not-fit-into-40-bytes", cf_msg_name(&m, name));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(open, buffer_may_be_exactly_as_long_as_the_message, 30)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "exact");
	int len = 32 + strlen("erofs,") + strlen(self->e.domain) + 1 + 5;
	struct cf_msg m;

	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	EXPECT_EQ(-1, read(self->dev, m.raw, len - 1));
	EXPECT_EQ(EMSGSIZE, errno);
	EXPECT_EQ(len, read(self->dev, m.raw, len));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(open, faulting_buffer_for_an_OPEN_is_EFAULT, 30)
{
	bool fails = cf_intended("faulting-read-fails-request");
	int fd = cf_lowest_free_fd();
	struct cf_op *op = cf_start_open(self->e.mnt, "fault");
	long page = sysconf(_SC_PAGESIZE);
	struct cf_msg m;
	char *p;

	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, munmap(p + page, page));
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	/* the header fits, the key does not */
	EXPECT_EQ(-1, read(self->dev, p + page - 20, CF_MSG_MAX));
	EXPECT_EQ(EFAULT, errno);
	if (fails) {
		EXPECT_EQ(-EIO, cf_finish(op));
		op = cf_start_open(self->e.mnt, "fault");
		ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	}
	EXPECT_EQ(-1, read(self->dev, p + page, CF_MSG_MAX));
	EXPECT_EQ(EFAULT, errno);
	if (fails) {
		EXPECT_EQ(-EIO, cf_finish(op));
	} else {
		ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
		EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
		EXPECT_EQ(0, close(cf_finish(op)));
		EXPECT_EQ(0, close(m.w.open.fd));
	}
	EXPECT_EQ(fd, cf_lowest_free_fd()) TH_LOG("an fd was left behind");
}

/* A reader asks for a page again if readahead did not bring it: that is another request. */
TEST_F_TIMEOUT(open, faulting_buffer_for_a_READ_is_EFAULT, 30)
{
	bool fails = cf_intended("faulting-read-fails-request");
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "fault", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	EXPECT_EQ(-1, read(self->dev, cf_nowhere(), CF_MSG_MAX));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(b.msg_id + (fails ? 2 : 1), m.w.msg_id);
	EXPECT_EQ(0, cf_fill(b.anon, "fault", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("fault", 0, op->buf, 4096));
	cf_op_free(op);
}

TEST_F_TIMEOUT(open, without_a_free_fd_is_EMFILE, 30)
{
	bool fails = cf_intended("no-fd-fails-open");
	struct cf_op *op = cf_start_open(self->e.mnt, "nofile");
	struct rlimit old, rl;
	char buf[CF_MSG_MAX];
	struct cf_msg m;
	ssize_t n;
	int err;

	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	rl = old;
	rl.rlim_cur = cf_lowest_free_fd();
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &rl));
	n = read(self->dev, buf, sizeof(buf));
	err = errno;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	EXPECT_EQ(-1, n);
	EXPECT_EQ(EMFILE, err);
	if (fails) {
		EXPECT_EQ(-EIO, cf_finish(op));
		return;
	}
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(open, without_a_free_fd_other_messages_get_through, 30)
{
	bool fails = cf_intended("no-fd-fails-open");
	char buf[2][CF_MSG_MAX];
	struct rlimit old, rl;
	struct cf_op *op, *rd;
	struct cf_blob b;
	struct cf_msg m;
	ssize_t n[2];
	int got;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "served", 4096));
	op = cf_start_open(self->e.mnt, "nofile");
	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	rd = cf_start_pread(b.fd, 0, 4096);
	/* Both are in a queue, sooner or later, and may come in any order. */
	cf_sleep_ms(200);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	rl = old;
	rl.rlim_cur = cf_lowest_free_fd();
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &rl));
	n[0] = read(self->dev, buf[0], sizeof(buf[0]));
	n[1] = read(self->dev, buf[1], sizeof(buf[1]));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	got = n[0] < 0;
	EXPECT_EQ(-1, n[!got]);
	ASSERT_EQ(32, n[got]) TH_LOG("the READ did not get through");
	memcpy(&m, buf[got], 32);
	ASSERT_EQ(0, cf_fill(b.anon, "served", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_finish(rd));
	if (fails) {
		EXPECT_EQ(-EIO, cf_finish(op));
		return;
	}
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

/* ------------------------------------------------------------------ many */

#define MANY		1000
#define OPENERS		16

struct many {
	atomic_int next, failed;
	const char *dir;
	atomic_int seen[MANY];
	atomic_int bad;
};

static struct many many;

static long open_many(struct cf_op *op)
{
	char path[512];
	int i, fd;

	while ((i = many.next++) < MANY) {
		snprintf(path, sizeof(path), "%s/m%d", many.dir, i);
		fd = open(path, O_RDONLY);
		if (fd < 0)
			many.failed++;
		else
			close(fd);
	}
	return 0;
}

static long long size_of_many(struct cf_daemon *d, const char *name)
{
	int i;

	if (sscanf(name, "m%d", &i) != 1 || i < 0 || i >= MANY)
		many.bad++;
	else
		many.seen[i]++;
	return 4096;
}

TEST_F_TIMEOUT(open, two_reading_threads_get_every_message_exactly_once, 180)
{
	struct cf_op *op[OPENERS];
	int i, missing = 0, twice = 0;

	memset(&many, 0, sizeof(many));
	many.dir = self->e.mnt;
	self->d = cf_daemon_new(self->dev, 0);
	ASSERT_NE(NULL, self->d);
	self->d->size_of = size_of_many;
	ASSERT_EQ(0, cf_daemon_start(self->d, 2));
	for (i = 0; i < OPENERS; i++)
		op[i] = cf_start(open_many, NULL, -1, 0, 0);
	for (i = 0; i < OPENERS; i++)
		EXPECT_EQ(0, cf_wait(op[i], 120000));
	for (i = 0; i < MANY; i++) {
		missing += many.seen[i] == 0;
		twice += many.seen[i] > 1;
	}
	EXPECT_EQ(0, missing);
	EXPECT_EQ(0, twice);
	EXPECT_EQ(0, many.bad);
	EXPECT_EQ(0, many.failed);
	EXPECT_EQ(MANY, self->d->opens);
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

static void close_result(struct cf_op *op)
{
	if (op->ret >= 0)
		close(op->ret);
}

TEST_F_TIMEOUT(open, thousand_blobs_at_once, 180)
{
	static struct cf_op *op[MANY];
	static struct cf_msg m[MANY];
	char name[256];
	int i, failed = 0;

	for (i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		op[i] = cf_start_open(self->e.mnt, name);
		ASSERT_NE(NULL, op[i]);
	}
	/* All of them are asked for before a single one is answered. */
	for (i = 0; i < MANY; i++)
		ASSERT_EQ(0, cf_recv(self->dev, &m[i], 60000)) TH_LOG("after %d OPENs", i);
	for (i = MANY - 1; i >= 0; i--)
		ASSERT_EQ(0, cf_copen(self->dev, m[i].w.msg_id, 4096));
	for (i = 0; i < MANY; i++) {
		failed += cf_wait(op[i], 60000) < 0;
		close_result(op[i]);
		cf_op_free(op[i]);
	}
	EXPECT_EQ(0, failed);
}

/* -------------------------------------------------------------- wake-ups */

TEST_F_TIMEOUT(open, edge_triggered_poll_wakes_for_every_request, 30)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET }, got;
	int ep = epoll_create1(EPOLL_CLOEXEC), i, n;
	struct cf_op *op[3];
	struct cf_msg m;
	char name[16];

	ASSERT_GE(ep, 0);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->dev, &ev));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	/* Nothing is read in between: the queue is never empty again. */
	for (i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "e%d", i);
		op[i] = cf_start_open(self->e.mnt, name);
		n = cf_epoll(ep, &got, CF_SOON);
		EXPECT_EQ(1, n) TH_LOG("no wake-up for request %d", i);
		EXPECT_EQ(0, epoll_wait(ep, &got, 1, CF_NEVER)) TH_LOG("a wake-up for nothing");
	}
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
		EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	}
	for (i = 0; i < 3; i++)
		EXPECT_GE(cf_finish(op[i]), 0);
}

TEST_F_TIMEOUT(open, edge_triggered_poll_wakes_for_restore, 30)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET }, got;
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_GE(ep, 0);
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "restored", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->dev, &ev));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, CF_NEVER));
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	EXPECT_EQ(1, cf_epoll(ep, &got, CF_SOON));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "restored", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_finish(op));
}

/* nydusd registers the device before it binds. */
TEST_F_TIMEOUT(open, edge_triggered_poll_registered_before_bind_wakes, 30)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET }, got;
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct cf_op *op;
	struct cf_msg m;

	cf_env_close(&self->e);
	CF_WAIT_FOR((self->e.dev = cf_device_open()) >= 0, 5000);
	ASSERT_GE(self->e.dev, 0);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->e.dev, &ev));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "tag %s", self->e.tag));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "bind ondemand"));
	op = cf_start_open(self->e.mnt, "early");
	EXPECT_EQ(1, cf_epoll(ep, &got, CF_SOON));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_OPEN, &m));
	EXPECT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

static long do_poll(struct cf_op *op)
{
	return cf_readable(op->fd, CF_SOON);
}

TEST_F_TIMEOUT(open, one_request_wakes_all_that_poll, 30)
{
	struct cf_op *poller[4], *op;
	struct cf_msg m;
	int i;

	for (i = 0; i < 4; i++)
		poller[i] = cf_start(do_poll, NULL, self->dev, 0, 0);
	cf_sleep_ms(CF_NEVER);
	op = cf_start_open(self->e.mnt, "wake");
	for (i = 0; i < 4; i++)
		EXPECT_EQ(1, cf_finish(poller[i]));
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(open, read_request_is_no_longer_readable, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "taken", &m);

	ASSERT_NE(NULL, op);
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
	EXPECT_EQ(-ETIMEDOUT, cf_recv(self->dev, &m, 0));
}

TEST_F_TIMEOUT(open, restore_offers_an_unanswered_OPEN_again, 30)
{
	struct cf_msg first, again;
	struct cf_op *op = cf_open_and_recv(&self->e, "again", &first);
	char name[256];

	ASSERT_NE(NULL, op);
	/* as if the daemon that had read it were gone with its fds */
	ASSERT_EQ(0, close(first.w.open.fd));
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &again));
	EXPECT_STREQ("again", cf_msg_name(&again, name));
	EXPECT_NE(first.w.object_id, again.w.object_id);
	EXPECT_EQ(0, cf_copen(self->dev, again.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

/* A daemon that takes over from itself still has the fd of the first OPEN. */
TEST_F_TIMEOUT(open, restore_while_the_fd_is_open_gets_a_new_one_and_a_CLOSE, 30)
{
	struct cf_msg first, again, close_msg;
	struct cf_op *op = cf_open_and_recv(&self->e, "twice", &first);
	long expected;

	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	expected = cf_intended("OPEN-again-before-its-fd-closed");
	ASSERT_EQ(expected, cf_recv(self->dev, &again, CF_SOON));
	if (cf_is_c())
		return;
	EXPECT_EQ(CF_OPEN, again.w.opcode);
	EXPECT_NE(first.w.object_id, again.w.object_id);
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &close_msg));
	EXPECT_EQ(first.w.object_id, close_msg.w.object_id);
	EXPECT_EQ(0, close(first.w.open.fd));
	EXPECT_EQ(0, cf_copen(self->dev, again.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

/* ------------------------------------------------- someone is not there */

TEST_F_TIMEOUT(open, closing_the_device_fails_all_that_wait, 60)
{
	struct cf_op *op[32];
	struct cf_msg m;
	char name[16];
	struct cf_clock clock;
	long ret;
	int i;

	for (i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "w%d", i);
		op[i] = cf_start_open(self->e.mnt, name);
	}
	/* half of them delivered, half not */
	for (i = 0; i < 16; i++)
		ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	cf_clock_start(&clock);
	cf_env_close(&self->e);
	for (i = 0; i < 32; i++) {
		ret = cf_finish(op[i]);
		EXPECT_TRUE(ret == -EIO || ret == -ENOTCONN) TH_LOG("opener %d: %ld", i, ret);
	}
	EXPECT_LT(cf_spent(&clock), 2000);
}

TEST_F_TIMEOUT(open, killed_opener_leaves_at_once, 30)
{
	struct cf_blob b;
	struct cf_msg m;
	char path[512];
	struct cf_clock clock;
	pid_t pid;
	int err;

	snprintf(path, sizeof(path), "%s/killed", self->e.mnt);
	pid = cf_fork();
	if (pid == 0) {
		open(path, O_RDONLY);
		_exit(0);
	}
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(-ETIMEDOUT, cf_reap(pid, CF_NEVER));
	cf_clock_start(&clock);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	EXPECT_LT(cf_spent(&clock), 2000);
	/* Its request may be gone or not; the next opener must be served. */
	err = cf_copen(self->dev, m.w.msg_id, 4096);
	EXPECT_TRUE(err == 0 || err == -EINVAL) TH_LOG("copen: %d", err);
	if (err) {
		/* The request had an fd, so a CLOSE may come for it. */
		if (!cf_recv(self->dev, &m, CF_NEVER))
			EXPECT_EQ(CF_CLOSE, m.w.opcode);
		b.fd = cf_blob_open(&self->e, &b, "killed", 4096) ?: b.fd;
	} else {
		b.fd = cf_finish(cf_start_open(self->e.mnt, "killed"));
	}
	EXPECT_GE(b.fd, 0);
}

TEST_F_TIMEOUT(open, without_a_daemon_is_ENOTCONN_until_one_comes, 30)
{
	struct cf_blob b;

	cf_env_close(&self->e);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	/* mounted while no daemon serves the tag */
	ASSERT_SETUP(cf_env_mount(&self->e));
	EXPECT_EQ(-ENOTCONN, cf_finish(cf_start_open(self->e.mnt, "late")));
	EXPECT_EQ(-ENOTCONN, cf_finish(cf_start_open(self->e.mnt, "late")));
	ASSERT_SETUP(cf_env_bind(&self->e));
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "late", 4096));
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "other", 4096));
}

TEST_F_TIMEOUT(open, device_only_opened_is_not_yet_a_daemon, 30)
{
	cf_env_close(&self->e);
	CF_WAIT_FOR((self->e.dev = cf_device_open()) >= 0, 5000);
	ASSERT_GE(self->e.dev, 0);
	EXPECT_EQ(-ENOTCONN, cf_finish(cf_start_open(self->e.mnt, "early")));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "dir %s/missing", self->e.base));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "tag %s", self->e.tag));
	ASSERT_EQ(-ENOENT, cf_cmd(self->e.dev, "bind ondemand"));
	EXPECT_EQ(-ENOTCONN, cf_finish(cf_start_open(self->e.mnt, "early")));
}

static long do_open_rw(struct cf_op *op)
{
	int fd = open(op->path, O_RDWR);

	return fd < 0 ? -errno : fd;
}

static long do_stat_size(struct cf_op *op)
{
	struct stat st;

	return stat(op->path, &st) ? -errno : st.st_size;
}

TEST_F_TIMEOUT(open, stat_of_a_file_never_opened_asks_for_its_size, 30)
{
	struct cf_op *op;
	struct cf_msg m;
	char path[512];

	snprintf(path, sizeof(path), "%s/stat", self->e.mnt);
	op = cf_start(do_stat_size, path, -1, 0, 0);
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, 12345));
	EXPECT_EQ(12345, cf_finish(op));
}

TEST_F_TIMEOUT(open, writing_to_the_file_system_is_refused, 30)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/file", self->e.mnt);
	EXPECT_EQ(-EROFS, cf_finish(cf_start(do_open_rw, path, -1, 0, 0)));
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER)) TH_LOG("the daemon was asked");
}

TEST_HARNESS_MAIN
