// SPDX-License-Identifier: GPL-2.0
/*
 * Which threads of the daemon a message wakes: one of those that poll exclusively
 * (EPOLLEXCLUSIVE), and one of those that sleep in read() after "bind ondemand wait".
 */
#include <signal.h>
#include <sys/epoll.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	0x200000

#define NOT_IN_C	"the C implementation does not have that"

/* ---------------------------------------------------------------- polling */

FIXTURE(poll) {
	struct cf_env e;
	struct cf_blob b;
};

FIXTURE_SETUP(poll)
{
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
}

FIXTURE_TEARDOWN(poll)
{
	cf_env_end(&self->e);
}

#define POLLERS	8

struct pollers {
	int epoll[POLLERS];
	atomic_int woken;
	pthread_t threads[POLLERS];
};

struct poller {
	struct pollers *all;
	int epoll;
};

static void *poll_once(void *arg)
{
	struct poller *p = arg;
	struct epoll_event event;

	if (epoll_wait(p->epoll, &event, 1, -1) == 1)
		atomic_fetch_add(&p->all->woken, 1);
	return NULL;
}

TEST_F_TIMEOUT(poll, one_of_those_who_poll_exclusively_is_woken, 60)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	struct poller each[POLLERS];
	struct pollers all = {};
	struct cf_msg m;
	struct cf_op *op;
	int i;

	for (i = 0; i < POLLERS; i++) {
		all.epoll[i] = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_EQ(0, epoll_ctl(all.epoll[i], EPOLL_CTL_ADD, self->e.dev, &event));
		each[i] = (struct poller){ &all, all.epoll[i] };
		ASSERT_EQ(0, pthread_create(&all.threads[i], NULL, poll_once, &each[i]));
	}
	cf_sleep_ms(CF_NEVER);
	cf_no_readahead(self->b.fd);
	op = cf_start_pread(self->b.fd, 0, CF_PAGE);
	ASSERT_TRUE(CF_WAIT_FOR(all.woken > 0, CF_SOON));
	cf_sleep_ms(CF_NEVER);
	EXPECT_EQ(1, all.woken);
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	ASSERT_EQ(0, cf_blob_answer_read(&self->b, &m));
	EXPECT_EQ(CF_PAGE, cf_finish(op));

	for (i = 0; i < POLLERS; i++)
		pthread_cancel(all.threads[i]);
	for (i = 0; i < POLLERS; i++) {
		pthread_join(all.threads[i], NULL);
		close(all.epoll[i]);
	}
}

/* ------------------------------------------------------------------- wait */

static void set_nonblock(int dev, bool on)
{
	int flags = fcntl(dev, F_GETFL);

	fcntl(dev, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

FIXTURE(wait) {
	struct cf_env e;
};

FIXTURE_SETUP(wait)
{
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_SETUP(cf_env_all_with(&self->e, " wait"));
	set_nonblock(self->e.dev, false);
}

FIXTURE_TEARDOWN(wait)
{
	cf_env_end(&self->e);
}

static long do_read(struct cf_op *op)
{
	ssize_t n = read(op->fd, op->buf, op->len);

	return n < 0 ? -errno : n;
}

static struct cf_op *start_read(int dev)
{
	return cf_start(do_read, NULL, dev, 0, CF_MSG_MAX);
}

TEST_F_TIMEOUT(wait, read_waits_for_a_message, 60)
{
	struct cf_op *reader = start_read(self->e.dev), *open;
	struct cf_wire *w;

	EXPECT_EQ(-ETIMEDOUT, cf_wait(reader, CF_NEVER));
	open = cf_start_open(self->e.mnt, "blob");
	ASSERT_LT(0, cf_wait(reader, CF_SOON));
	w = (struct cf_wire *)reader->buf;
	EXPECT_EQ(CF_OPEN, w->opcode);
	EXPECT_EQ(reader->ret, w->len);
	EXPECT_EQ(0, cf_copen(self->e.dev, w->msg_id, SIZE));
	EXPECT_LE(0, cf_finish(open));
	cf_op_free(reader);
}

TEST_F_TIMEOUT(wait, read_does_not_wait_with_O_NONBLOCK, 60)
{
	char buf[CF_MSG_MAX];

	set_nonblock(self->e.dev, true);
	EXPECT_EQ(0, read(self->e.dev, buf, sizeof(buf)));
}

/* Each message wakes a reader, and none is left sleeping while there is one. */
TEST_F_TIMEOUT(wait, readers_get_a_message_each, 120)
{
	struct cf_op *readers[8], *opens[8];
	int i, seen = 0;

	for (i = 0; i < 8; i++)
		readers[i] = start_read(self->e.dev);
	cf_sleep_ms(CF_NEVER);
	for (i = 0; i < 8; i++) {
		char name[16];

		snprintf(name, sizeof(name), "blob%d", i);
		opens[i] = cf_start_open(self->e.mnt, name);
	}
	for (i = 0; i < 8; i++) {
		struct cf_wire *w = (struct cf_wire *)readers[i]->buf;

		ASSERT_LT(0, cf_wait(readers[i], CF_SOON));
		seen += w->opcode == CF_OPEN;
		EXPECT_EQ(0, cf_copen(self->e.dev, w->msg_id, SIZE));
		cf_op_free(readers[i]);
	}
	EXPECT_EQ(8, seen);
	for (i = 0; i < 8; i++)
		EXPECT_LE(0, cf_finish(opens[i]));
}

/* What becomes ready at once, here by the answer to an OPEN, wakes as many as can be used. */
TEST_F_TIMEOUT(wait, readers_get_what_becomes_ready_together, 120)
{
	struct cf_op *readers[4], *reads[4];
	struct cf_blob b;
	struct cf_msg m;
	int i, anon;

	set_nonblock(self->e.dev, true);
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "blob", SIZE));
	cf_no_readahead(b.fd);
	/* The READs wait until it is open again. */
	ASSERT_EQ(0, close(b.anon));
	for (i = 0; i < 4; i++)
		reads[i] = cf_start_pread(b.fd, 2 * i * CF_PAGE, CF_PAGE);
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_OPEN, &m));
	anon = m.w.open.fd;
	set_nonblock(self->e.dev, false);
	for (i = 0; i < 4; i++)
		readers[i] = start_read(self->e.dev);
	cf_sleep_ms(CF_NEVER);
	ASSERT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, SIZE));
	for (i = 0; i < 4; i++) {
		struct cf_wire *w = (struct cf_wire *)readers[i]->buf;

		ASSERT_LT(0, cf_wait(readers[i], CF_SOON));
		ASSERT_EQ(CF_READ, w->opcode);
		ASSERT_EQ(0, cf_fill(anon, "blob", w->read.off, w->read.len, SIZE));
		EXPECT_EQ(0, cf_complete(anon, w->msg_id));
		cf_op_free(readers[i]);
	}
	for (i = 0; i < 4; i++)
		EXPECT_EQ(CF_PAGE, cf_finish(reads[i]));
	close(anon);
}

static void nothing(int sig)
{
}

static long do_read_until_signal(struct cf_op *op)
{
	struct sigaction sa = { .sa_handler = nothing };	/* no SA_RESTART */

	sigaction(SIGUSR1, &sa, NULL);
	return do_read(op);
}

/* ... and the thread that sleeps behind it gets the next message. */
TEST_F_TIMEOUT(wait, a_signal_ends_the_wait, 60)
{
	struct cf_op *op = cf_start(do_read_until_signal, NULL, self->e.dev, 0, CF_MSG_MAX);
	struct cf_op *next, *open;

	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	next = start_read(self->e.dev);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(next, CF_NEVER));
	pthread_kill(op->thread, SIGUSR1);
	EXPECT_EQ(-EINTR, cf_wait(op, CF_SOON));
	cf_op_free(op);

	open = cf_start_open(self->e.mnt, "blob");
	ASSERT_LT(0, cf_wait(next, CF_SOON));
	EXPECT_EQ(0, cf_copen(self->e.dev, ((struct cf_wire *)next->buf)->msg_id, SIZE));
	EXPECT_LE(0, cf_finish(open));
	cf_op_free(next);
}

TEST_HARNESS_MAIN
