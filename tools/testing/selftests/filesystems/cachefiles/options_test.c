// SPDX-License-Identifier: GPL-2.0
/*
 * What a daemon may ask for when it binds, as "bind ondemand timeout=<seconds>".
 * Without that nothing changes; the other tests see to it.
 */
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define NOT_IN_C	"the C implementation has no such option"

#define SIZE		0x100000

/* The limit of these tests.  Nothing may fail before it ... */
#define LIMIT_MS	2000
/* ... and nothing much later: a second by design, the rest for a slow machine. */
#define LATE_MS		3000

static void no_readahead(int fd)
{
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
}

/* --------------------------------------------------------------- grammar */

FIXTURE(bind) {
	struct cf_env e;
};

FIXTURE_SETUP(bind)
{
	ASSERT_SETUP(cf_env_init(&self->e));
}

FIXTURE_TEARDOWN(bind)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(bind, knows_timeout, 30)
{
	EXPECT_EQ(cf_intended("bind-timeout"), cf_env_bind_with(&self->e, " timeout=5"));
}

TEST_F_TIMEOUT(bind, knows_batch, 30)
{
	EXPECT_EQ(cf_intended("bind-batch"), cf_env_bind_with(&self->e, " batch"));
}

TEST_F_TIMEOUT(bind, knows_wait, 30)
{
	EXPECT_EQ(cf_intended("bind-wait"), cf_env_bind_with(&self->e, " wait"));
}

TEST_F_TIMEOUT(bind, knows_max_read, 30)
{
	EXPECT_EQ(cf_intended("bind-max-read"), cf_env_bind_with(&self->e, " max-read=65536"));
}

TEST_F_TIMEOUT(bind, knows_durable, 30)
{
	EXPECT_EQ(cf_intended("bind-durable"), cf_env_bind_with(&self->e, " durable"));
}

TEST_F_TIMEOUT(bind, knows_granule, 30)
{
	EXPECT_EQ(cf_intended("bind-granule"), cf_env_bind_with(&self->e, " granule=1048576"));
}

TEST_F_TIMEOUT(bind, max_read_cuts_at_its_multiples, 60)
{
	static const struct { uint64_t off, len; } expected[] = {
		{ 4096, 12288 }, { 16384, 16384 }, { 32768, 4096 },
	};
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	int i;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_SETUP(cf_env_bind_with(&self->e, " max-read=16384"));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "blob", 36864));
	/* One request from 4096 to 36864.  A large page begins before that. */
	ASSERT_EQ(0, cf_fill(b.anon, "blob", 0, 4096, b.size));
	op = cf_start_readahead(b.fd, 4096, 32768);
	for (i = 0; i < ARRAY_SIZE(expected); i++) {
		ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
		EXPECT_EQ(expected[i].off, m.w.read.off);
		EXPECT_EQ(expected[i].len, m.w.read.len);
		/* Nothing beyond is asked for before this is there. */
		EXPECT_FALSE(cf_readable(self->e.dev, 0));
		ASSERT_EQ(0, cf_blob_answer_read(&b, &m));
	}
	EXPECT_EQ(0, cf_finish(op));
	EXPECT_EQ(0, cf_read_and_check("blob", b.fd, 4096, 32768, 32768));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
	close(b.fd);
}

TEST_F_TIMEOUT(bind, refused_option_can_be_left_out, 30)
{
	ASSERT_EQ(-EINVAL, cf_env_bind_with(&self->e, " no-such-option"));
	EXPECT_EQ(0, cf_cmd(self->e.dev, "bind ondemand"));
}

TEST_F_TIMEOUT(bind, takes_options_in_any_order, 60)
{
	static const char *const good[] = {
		" timeout=1", " timeout=86400", " timeout=0030", " batch", " batch timeout=30",
		" timeout=30 batch", "  batch \t timeout=30", " max-read=4096",
		" batch max-read=1073741824 timeout=3", " wait", " wait batch timeout=3",
		" granule=4096", " granule=1073741824 max-read=8192",
	};
	int i;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	for (i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(0, cf_env_bind_with(&self->e, good[i])) TH_LOG("'%s'", good[i]);
		cf_env_close(&self->e);
	}
}

TEST_F_TIMEOUT(bind, refuses_other_options, 60)
{
	static const char *const bad[] = {
		" timeout", " timeout=", " timeout=0", " timeout=86401", " timeout=-1",
		" timeout=+1", " timeout=0x10", " timeout=1s", " timeout=1.5", " timeout= 1",
		" timeout=1 ", " timeout=4294967297", " timeout=18446744073709551617",
		" timeout=5 timeout=5", " timeout=5 x", " batch=1", " batch ", " batch batch",
		" batch,timeout=5", " wait=1", " wait wait", " durable durable", "batch",
		" x", " ", " max-read=0", " max-read=4097",
		" max-read=1073745920", " max-read=4096 max-read=8192", " max-read=4k",
		" granule", " granule=0", " granule=6144", " granule=4096 granule=4096",
	};
	int i;

	ASSERT_EQ(-EINVAL, cf_env_bind_with(&self->e, "x"));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, cf_cmd(self->e.dev, "bind ondemand%s", bad[i])) {
			TH_LOG("'%s'", bad[i]);
		}
		EXPECT_EQ(-EOPNOTSUPP, cf_cmd(self->e.dev, "restore")) {
			TH_LOG("bound by '%s'", bad[i]);
		}
	}
}

/* --------------------------------------------------------------- granule */

#define GRANULE	(8 * CF_PAGE)

FIXTURE(granule) {
	struct cf_env e;
	struct cf_blob b;
};

/* Pages. */
static const int wanted[] = { 1, 3, 6 };

FIXTURE_SETUP(granule)
{
	char options[64];

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	snprintf(options, sizeof(options), " granule=%ld", (long)GRANULE);
	ASSERT_SETUP(cf_env_all_with(&self->e, options));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 2 * GRANULE + CF_BLOCK));
	no_readahead(self->b.fd);
}

FIXTURE_TEARDOWN(granule)
{
	cf_env_end(&self->e);
}

/*
 * Have the pages that are wanted read by themselves, each once; the READ of the first is
 * for the others, too.
 */
static int ask_for_pages(struct cf_env *e, struct cf_blob *b, struct cf_msg *m)
{
	int i, err = 0;

	for (i = 0; i < ARRAY_SIZE(wanted) && !err; i++) {
		err = cf_finish(cf_start_readahead(b->fd, wanted[i] * CF_PAGE, CF_PAGE));
		if (!err && !i)
			err = cf_expect(e->dev, CF_READ, m);
	}
	if (err)
		return err;
	if (m->w.read.off != wanted[0] * CF_PAGE || m->w.read.off + m->w.read.len != GRANULE)
		return -EPROTO;
	return cf_readable(e->dev, CF_NEVER) ? -EBADMSG : 0;
}

static bool is_in_memory(struct cf_blob *b, int page)
{
	return cf_is_in_memory(b->fd, page * CF_PAGE);
}

/* Answer READs until the page is there. */
static int serve_page(struct cf_env *e, struct cf_blob *b, int page)
{
	struct cf_clock clock;
	struct cf_msg m;
	int err = 0;

	cf_clock_start(&clock);
	while (!err && !is_in_memory(b, page)) {
		if (!cf_left(&clock, CF_SOON))
			return -ETIMEDOUT;
		if (cf_recv(e->dev, &m, 0))
			cf_sleep_ms(5);
		else
			err = cf_blob_answer_read(b, &m);
	}
	return err;
}

TEST_F_TIMEOUT(granule, is_asked_for_once, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_msg m;
	int i;

	ASSERT_EQ(0, ask_for_pages(&self->e, b, &m));
	ASSERT_EQ(0, cf_blob_answer_read(b, &m));
	for (i = 0; i < ARRAY_SIZE(wanted); i++)
		EXPECT_TRUE(CF_WAIT_FOR(is_in_memory(b, wanted[i]), CF_SOON)) TH_LOG("%d", i);
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, CF_PAGE, GRANULE - CF_PAGE,
				       GRANULE - CF_PAGE));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

TEST_F_TIMEOUT(granule, ends_with_the_file_and_where_there_is_data, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_op *op = cf_start_pread(b->fd, 2 * GRANULE, CF_PAGE);
	struct cf_msg m;

	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	EXPECT_EQ(2 * GRANULE, m.w.read.off);
	EXPECT_EQ(CF_BLOCK, m.w.read.len);
	ASSERT_EQ(0, cf_blob_answer_read(b, &m));
	EXPECT_EQ(CF_BLOCK, cf_finish(op));

	ASSERT_EQ(0, cf_fill(b->anon, "blob", 5 * CF_PAGE, CF_PAGE, b->size));
	op = cf_start_pread(b->fd, 0, CF_PAGE);
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	EXPECT_EQ(0, m.w.read.off);
	EXPECT_EQ(5 * CF_PAGE, m.w.read.len);
	ASSERT_EQ(0, cf_blob_answer_read(b, &m));
	EXPECT_EQ(CF_PAGE, cf_finish(op));
}

/* A reader that needs blocks which were not written causes a READ for them. */
TEST_F_TIMEOUT(granule, may_be_answered_in_part, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_msg m;
	int i;

	ASSERT_EQ(0, ask_for_pages(&self->e, b, &m));
	ASSERT_EQ(0, cf_fill(b->anon, "blob", CF_PAGE, CF_PAGE, b->size));
	ASSERT_EQ(0, cf_complete(b->anon, m.w.msg_id));
	EXPECT_TRUE(CF_WAIT_FOR(is_in_memory(b, wanted[0]), CF_SOON));
	for (i = 1; i < ARRAY_SIZE(wanted); i++)
		EXPECT_EQ(0, serve_page(&self->e, b, wanted[i])) TH_LOG("%d", i);
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, wanted[1] * CF_PAGE,
				       GRANULE - wanted[1] * CF_PAGE,
				       GRANULE - wanted[1] * CF_PAGE));
}

/* Without data the reader that caused the READ fails, and the others cause READs of their own. */
TEST_F_TIMEOUT(granule, may_be_answered_without_data, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_msg m;
	int i;

	ASSERT_EQ(0, ask_for_pages(&self->e, b, &m));
	ASSERT_EQ(0, cf_complete(b->anon, m.w.msg_id));
	for (i = 1; i < ARRAY_SIZE(wanted); i++)
		EXPECT_EQ(0, serve_page(&self->e, b, wanted[i])) TH_LOG("%d", i);
	EXPECT_FALSE(is_in_memory(b, wanted[0]));
}

/* A reader waits for the READs of others only once. */
TEST_F_TIMEOUT(granule, may_be_answered_page_by_page, 120)
{
	struct cf_blob *b = &self->b;
	struct cf_clock clock;
	struct cf_msg m;
	int i, there = 0;

	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, cf_finish(cf_start_readahead(b->fd, i * CF_PAGE, CF_PAGE)));
	cf_clock_start(&clock);
	while (there < 8 && cf_left(&clock, CF_SOON)) {
		while (there < 8 && is_in_memory(b, there))
			there++;
		if (cf_recv(self->e.dev, &m, 0)) {
			cf_sleep_ms(5);
			continue;
		}
		ASSERT_EQ(0, cf_fill(b->anon, "blob", m.w.read.off, CF_PAGE, b->size));
		ASSERT_EQ(0, cf_complete(b->anon, m.w.msg_id));
	}
	EXPECT_EQ(8, there) TH_LOG("the reader of the next page has failed");
}

TEST_F_TIMEOUT(granule, fails_with_the_daemon, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_op *reads[ARRAY_SIZE(wanted)];
	struct cf_msg m;
	int i;

	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		reads[i] = cf_start_pread(b->fd, wanted[i] * CF_PAGE, CF_PAGE);
		if (!i)
			ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	}
	EXPECT_FALSE(cf_readable(self->e.dev, CF_NEVER));
	cf_env_close(&self->e);
	for (i = 0; i < ARRAY_SIZE(wanted); i++)
		EXPECT_EQ(-EIO, cf_finish(reads[i]));
}

/* FILL, too, is the end of all that wait. */
TEST_F_TIMEOUT(granule, may_be_filled, 60)
{
	struct cf_fill_args f = {};
	struct cf_msg m;
	char *buf;
	int i;

	ASSERT_EQ(0, ask_for_pages(&self->e, &self->b, &m));
	f.off = m.w.read.off;
	f.len = m.w.read.len;
	f.msg_id = m.w.msg_id;
	buf = malloc(f.len);
	ASSERT_NE(NULL, buf);
	cf_pattern("blob", f.off, buf, f.len);
	f.addr = (uintptr_t)buf;
	EXPECT_EQ(f.len, cf_ioc_fill(self->b.anon, &f));
	for (i = 0; i < ARRAY_SIZE(wanted); i++)
		EXPECT_TRUE(CF_WAIT_FOR(is_in_memory(&self->b, wanted[i]), CF_SOON))
			TH_LOG("%d", i);
	EXPECT_EQ(0, cf_read_and_check("blob", self->b.fd, f.off, f.len, f.len));
	free(buf);
}

/* ---------------------------------------------------------------- timeout */

FIXTURE(timeout) {
	struct cf_env e;
	int dev;
	struct cf_daemon *d;
};

FIXTURE_SETUP(timeout)
{
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_SETUP(cf_env_all_with(&self->e, " timeout=2"));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(timeout)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

/*
 * Let a read fail, which began at @start.  The page cache asks twice, for readahead and then
 * for the page: @n is how often it did, each time waiting for as long as the limit, and @m
 * the last READ.
 */
static long let_it_fail(int dev, struct cf_op *op, struct cf_msg *m, int *n)
{
	struct cf_msg got;

	for (*n = 0; cf_wait(op, 10) == -ETIMEDOUT && !op->joined;) {
		if (cf_recv(dev, &got, 0))
			continue;
		*m = got;
		++*n;
	}
	return op->ret;
}

#define EXPECT_AFTER_THE_LIMIT(clock, n) do {				\
	struct cf_clock *__clock = (clock);				\
	long __n = (n);							\
									\
	EXPECT_GE(cf_now_ms() - __clock->start, __n * LIMIT_MS);	\
	EXPECT_LE(cf_spent(__clock), __n * (LIMIT_MS + LATE_MS));	\
} while (0)

TEST_F_TIMEOUT(timeout, of_an_OPEN_that_nobody_reads_is_ETIMEDOUT, 60)
{
	struct cf_clock clock;
	struct cf_op *op;

	cf_clock_start(&clock);
	op = cf_start_open(self->e.mnt, "unread");
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, 3 * LIMIT_MS + LATE_MS));
	ASSERT_TRUE(op->joined);
	EXPECT_AFTER_THE_LIMIT(&clock, 1);
	/* There is nothing left of it. */
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
	cf_op_free(op);
}

TEST_F_TIMEOUT(timeout, of_an_OPEN_with_a_silent_daemon_is_ETIMEDOUT, 60)
{
	struct cf_clock clock;
	struct cf_op *op;
	struct cf_msg m, c;
	struct cf_blob b;
	char page[4096];

	cf_clock_start(&clock);
	op = cf_start_open(self->e.mnt, "silent");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, 3 * LIMIT_MS + LATE_MS));
	ASSERT_TRUE(op->joined);
	EXPECT_AFTER_THE_LIMIT(&clock, 1);
	cf_op_free(op);

	/* It is too late for an answer, the fd leads nowhere and is to be closed. */
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, SIZE));
	cf_pattern("silent", 0, page, sizeof(page));
	EXPECT_EQ(-ENOBUFS, cf_pwrite(m.w.open.fd, page, sizeof(page), 0));
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &c));
	EXPECT_EQ(m.w.object_id, c.w.object_id);
	EXPECT_EQ(0, close(m.w.open.fd));

	/* It is not held against the file. */
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "silent", SIZE));
}

TEST_F_TIMEOUT(timeout, of_a_READ_fails_the_reader_and_late_data_is_kept, 90)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	struct cf_clock clock;
	int n;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "late", SIZE));
	no_readahead(b.fd);
	cf_clock_start(&clock);
	op = cf_start_pread(b.fd, 0, 4096);
	EXPECT_EQ(-EIO, let_it_fail(self->dev, op, &m, &n));
	ASSERT_GE(n, 1);
	EXPECT_AFTER_THE_LIMIT(&clock, n);
	ASSERT_EQ(CF_READ, m.w.opcode);
	cf_op_free(op);

	ASSERT_EQ(0, cf_fill(b.anon, "late", m.w.read.off, m.w.read.len, SIZE));
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, m.w.msg_id));
	op = cf_start_pread(b.fd, 0, 4096);
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("late", 0, op->buf, 4096));
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER)) TH_LOG("asked for again");
	cf_op_free(op);
}

TEST_F_TIMEOUT(timeout, covers_the_time_in_the_queue, 90)
{
	struct cf_blob b;
	struct cf_op *op;
	long start;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "queue", SIZE));
	no_readahead(b.fd);
	start = cf_now_ms();
	op = cf_start_pread(b.fd, 0, 4096);
	EXPECT_EQ(-EIO, cf_wait(op, 2 * (LIMIT_MS + LATE_MS)));
	EXPECT_GE(cf_now_ms() - start, LIMIT_MS);
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
	cf_op_free(op);
}

TEST_F_TIMEOUT(timeout, covers_a_reopening, 120)
{
	struct cf_msg m, open;
	struct cf_blob b;
	struct cf_op *op;
	struct cf_clock clock;
	int n;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "reopen", SIZE));
	no_readahead(b.fd);
	ASSERT_EQ(0, close(b.anon));
	cf_clock_start(&clock);
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));
	EXPECT_EQ(-EIO, let_it_fail(self->dev, op, &m, &n));
	EXPECT_EQ(0, n) TH_LOG("a message of an object that is not open");
	EXPECT_GE(cf_now_ms() - clock.start, LIMIT_MS);
	EXPECT_LE(cf_spent(&clock), 2 * (LIMIT_MS + LATE_MS));
	cf_op_free(op);

	/* There is no limit for the OPEN, because no task waits for it any more. */
	ASSERT_EQ(0, cf_copen(self->dev, open.w.msg_id, SIZE));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(open.w.open.fd, "reopen", m.w.read.off, m.w.read.len, SIZE));
	EXPECT_EQ(0, cf_complete(open.w.open.fd, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("reopen", 0, op->buf, 4096));
	cf_op_free(op);
}

TEST_F_TIMEOUT(timeout, goes_on_during_a_failover, 90)
{
	struct cf_msg m, again;
	struct cf_blob b;
	struct cf_op *op;
	struct cf_clock clock;
	int n;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "restore", SIZE));
	no_readahead(b.fd);
	cf_clock_start(&clock);
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	cf_sleep_ms(LIMIT_MS * 3 / 4);
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &again));
	EXPECT_EQ(m.w.msg_id, again.w.msg_id);
	EXPECT_EQ(-EIO, let_it_fail(self->dev, op, &m, &n));
	EXPECT_AFTER_THE_LIMIT(&clock, n + 1);
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, again.w.msg_id));
	cf_op_free(op);
}

TEST_F_TIMEOUT(timeout, is_nothing_to_a_daemon_that_answers_in_time, 90)
{
	struct cf_op *op[8];
	long start;
	int fd, i;

	self->d = cf_daemon_new(self->dev, SIZE);
	ASSERT_NE(NULL, self->d);
	/* 8 readers and 4 threads: no reader waits for more than half of the limit. */
	self->d->read_delay = LIMIT_MS / 4;
	ASSERT_EQ(0, cf_daemon_start(self->d, 4));
	fd = cf_finish(cf_start_open(self->e.mnt, "slow"));
	ASSERT_GE(fd, 0);
	no_readahead(fd);
	start = cf_now_ms();
	for (i = 0; i < 8; i++)
		op[i] = cf_start_pread(fd, i * 65536, 4096);
	for (i = 0; i < 8; i++)
		cf_wait(op[i], CF_SOON);
	if (cf_now_ms() - start >= LIMIT_MS)
		SKIP(return, "this machine is too slow now for a daemon to answer in time");
	for (i = 0; i < 8; i++) {
		EXPECT_EQ(4096, cf_wait(op[i], CF_SOON));
		EXPECT_EQ(-1, cf_check("slow", i * 65536, op[i]->buf, 4096));
		cf_op_free(op[i]);
	}
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
	/* Nor does anything happen to it afterwards. */
	cf_sleep_ms(LIMIT_MS + 1000);
	self->d->read_delay = 0;
	op[0] = cf_start_pread(fd, 9 * 65536, 4096);
	EXPECT_EQ(4096, cf_finish(op[0]));
	close(fd);
}

TEST_F_TIMEOUT(timeout, of_one_leaves_the_others_alone, 90)
{
	struct cf_msg m, other, open;
	struct cf_blob a, b;
	struct cf_op *op[3];
	int completed, opened;
	long start, second;

	ASSERT_EQ(0, cf_blob_open(&self->e, &a, "first", SIZE));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "second", SIZE));
	start = cf_now_ms();
	/* readahead() asks once, and does not wait. */
	ASSERT_EQ(0, readahead(a.fd, 0, 4096));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(a.object_id, m.w.object_id);
	cf_sleep_ms(LIMIT_MS - 50);
	second = cf_now_ms();
	op[1] = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &other));
	EXPECT_EQ(b.object_id, other.w.object_id);
	op[2] = cf_start_open(self->e.mnt, "third");
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));

	/* The first is over its limit, at the latest, when they are in the middle of theirs. */
	cf_sleep_ms(start + LIMIT_MS + 1500 - cf_now_ms());
	EXPECT_EQ(-EINVAL, cf_complete(a.anon, m.w.msg_id));
	ASSERT_EQ(0, cf_fill(b.anon, "second", other.w.read.off, other.w.read.len, SIZE));
	completed = cf_complete(b.anon, other.w.msg_id);
	opened = cf_copen(self->dev, open.w.msg_id, SIZE);
	if (cf_now_ms() - second >= LIMIT_MS)
		SKIP(return, "this machine is too slow now for a daemon to answer in time");
	EXPECT_EQ(0, completed);
	EXPECT_EQ(4096, cf_wait(op[1], CF_SOON));
	EXPECT_EQ(-1, cf_check("second", 0, op[1]->buf, 4096));
	EXPECT_EQ(0, opened);
	EXPECT_GE(cf_finish(op[2]), 0);
	cf_op_free(op[1]);
}

TEST_F_TIMEOUT(timeout, of_many_READS_fails_all_and_no_later_one, 90)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	int i;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "many", 256 * CF_PAGE));
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, readahead(b.fd, i * 2 * CF_PAGE, 4096));
	/* Some are with the daemon, the others in the queue. */
	for (i = 0; i < 50; i++)
		ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_TRUE(cf_readable(self->dev, 0));
	EXPECT_TRUE(CF_WAIT_FOR(!cf_readable(self->dev, 0), LIMIT_MS + LATE_MS)) {
		TH_LOG("still in the queue");
	}
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "many", m.w.read.off, m.w.read.len, b.size));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("many", 0, op->buf, 4096));
	cf_op_free(op);
}

TEST_F_TIMEOUT(timeout, is_told_to_the_log_once, 60)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC), n = 0, i;
	struct cf_op *op;
	char line[8192];
	ssize_t len;

	ASSERT_GE(log, 0);
	ASSERT_EQ(0, lseek(log, 0, SEEK_END));
	for (i = 0; i < 2; i++) {
		op = cf_start_open(self->e.mnt, "silent");
		EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_SOON));
		cf_op_free(op);
	}
	while ((len = read(log, line, sizeof(line) - 1)) > 0) {
		line[len] = 0;
		n += !!strstr(line, "1 requests timed out; is the daemon stuck?");
	}
	EXPECT_EQ(1, n);
	close(log);
}

TEST_F_TIMEOUT(timeout, lets_ondemandfs_be_unmounted, 60)
{
	struct cf_blob b;
	struct cf_clock clock;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "silent", SIZE));
	ASSERT_EQ(0, readahead(b.fd, 0, 128 * 1024));
	close(b.fd);
	cf_clock_start(&clock);
	EXPECT_EQ(0, cf_env_umount_soon(&self->e));
	EXPECT_LE(cf_spent(&clock), LIMIT_MS + LATE_MS);
}

/* EROFS waits, unkillably, for the pages that are being read. */
TEST_F_TIMEOUT(timeout, lets_erofs_be_unmounted, 120)
{
	char path[PATH_MAX];
	struct cf_op *op;
	int fd, before;
	struct cf_clock clock;

	if (cf_image_size(CF_IMAGE) < 0)
		SKIP(return, "no " CF_IMAGE " beside the program: rebuild with mkfs.erofs");
	self->d = cf_image_daemon(self->dev);
	ASSERT_NE(NULL, self->d);
	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, CF_IMAGE, NULL));
	snprintf(path, sizeof(path), "%s/f1", self->e.erofs);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	self->d->hold_reads = true;
	before = self->d->reads;
	cf_clock_start(&clock);
	posix_fadvise(fd, 0, 128 * 1024, POSIX_FADV_WILLNEED);
	ASSERT_TRUE(CF_WAIT_FOR(self->d->reads > before, CF_SOON));
	close(fd);

	op = cf_start_umount(self->e.erofs, MNT_DETACH);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER)) TH_LOG("there is nothing to wait for");
	EXPECT_EQ(0, cf_wait(op, LIMIT_MS + LATE_MS + CF_SOON));
	EXPECT_TRUE(CF_WAIT_FOR(umount(self->e.mnt) == 0, CF_SOON)) TH_LOG("%s", strerror(errno));
	EXPECT_LE(cf_spent(&clock), LIMIT_MS + LATE_MS);
	cf_op_free(op);
}

/* ------------------------------------------------------------------ batch */

#define BATCH_MAX	2048

struct seen {
	uint32_t opcode, msg_id, object_id, fd;
	uint64_t off, len;
	size_t at, end;
};

static struct seen seen[BATCH_MAX];
static uint8_t batch[128 * 1024];

/* Take a batch apart: how many messages, or -EPROTO if it is not laid out as it has to be. */
static int walk(const uint8_t *buf, ssize_t n)
{
	size_t at = 0, end = 0;
	struct cf_wire w;
	int count = 0;

	while (end < n) {
		for (at = end; at % 8; at++)
			if (at >= n || buf[at])
				return -EPROTO;
		if (count == BATCH_MAX || at + 16 > n)
			return -EPROTO;
		memcpy(&w, buf + at, n - at < sizeof(w) ? n - at : sizeof(w));
		end = at + w.len;
		if (w.len < 16 || end > n || w.object_id < 1 || w.object_id > INT_MAX)
			return -EPROTO;
		seen[count++] = (struct seen){
			.opcode = w.opcode, .msg_id = w.msg_id, .object_id = w.object_id,
			.fd = w.open.fd, .off = w.read.off, .len = w.read.len,
			.at = at, .end = end,
		};
	}
	return count;
}

/* How many messages read() gives for @len bytes, or -errno. */
static int read_batch(int dev, size_t len)
{
	ssize_t n;

	memset(batch, 0xff, sizeof(batch));
	n = read(dev, batch, len);
	if (n < 0)
		return -errno;
	if (n < sizeof(batch) && batch[n] != 0xff)
		return -EOVERFLOW;	/* written past the end of the last message */
	return walk(batch, n);
}

FIXTURE(batch) {
	struct cf_env e;
	int dev, epoll;
	struct cf_blob b;
};

FIXTURE_VARIANT(batch) {
	const char *options;
};

FIXTURE_VARIANT_ADD(batch, alone) { .options = " batch" };
FIXTURE_VARIANT_ADD(batch, and_timeout) { .options = " timeout=30 batch" };

/* Edge-triggered: to know that one more message has been queued. */
static int watch_edges(int dev)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	return epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, dev, &ev) ? -1 : epoll;
}

static bool queued(int epoll)
{
	struct epoll_event ev;

	return cf_epoll(epoll, &ev, CF_SOON) == 1;
}

FIXTURE_SETUP(batch)
{
	struct rlimit rl = { 16384, 16384 };

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	setrlimit(RLIMIT_NOFILE, &rl);
	ASSERT_SETUP(cf_env_all_with(&self->e, variant->options));
	self->dev = self->e.dev;
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 64 << 20));
	self->epoll = watch_edges(self->dev);
	ASSERT_GE(self->epoll, 0);
}

FIXTURE_TEARDOWN(batch)
{
	cf_env_end(&self->e);
}

/* readahead() queues its READ before it returns, and asks once. */
#define ASSERT_QUEUE_READ(n) do {					\
	ASSERT_EQ(0, readahead(self->b.fd, (n) * 65536, 4096));		\
	ASSERT_TRUE(queued(self->epoll));				\
} while (0)

#define ASSERT_QUEUE_OPEN(op, name) do {				\
	(op) = cf_start_open(self->e.mnt, name);			\
	ASSERT_TRUE(queued(self->epoll));				\
} while (0)

#define EXPECT_READ(i, n) do {						\
	const struct seen *__s = &seen[i];				\
									\
	EXPECT_EQ(CF_READ, __s->opcode);				\
	EXPECT_EQ(self->b.object_id, __s->object_id);			\
	EXPECT_EQ((n) * 65536, __s->off);				\
	EXPECT_EQ(32, __s->end - __s->at);				\
} while (0)

#define EXPECT_OPEN(i, op) do {						\
	const struct seen *__s = &seen[i];				\
									\
	EXPECT_EQ(CF_OPEN, __s->opcode);				\
	EXPECT_EQ(0, cf_copen(self->dev, __s->msg_id, 4096));		\
	EXPECT_GE(cf_finish(op), 0);					\
} while (0)

/*
 * READs take turns with OPENs and CLOSEs. The last message before a test was an OPEN, so a READ
 * comes first.
 */
TEST_F_TIMEOUT(batch, has_all_that_is_ready_in_turn, 60)
{
	struct cf_op *op;
	size_t open_size;

	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_READ(1);
	ASSERT_QUEUE_OPEN(op, "odd");
	ASSERT_QUEUE_READ(2);
	ASSERT_EQ(4, read_batch(self->dev, sizeof(batch)));
	EXPECT_READ(0, 0);
	EXPECT_EQ(32, seen[1].at);
	open_size = seen[1].end - seen[1].at;
	EXPECT_EQ(32 + strlen("erofs,") + strlen(self->e.domain) + 1 + 3, open_size);
	EXPECT_EQ(32 + (open_size + 7) / 8 * 8, seen[2].at);
	EXPECT_READ(2, 1);
	EXPECT_READ(3, 2);
	EXPECT_OPEN(1, op);
	EXPECT_EQ(0, read_batch(self->dev, sizeof(batch)));
	EXPECT_FALSE(cf_readable(self->dev, 0));
}

TEST_F_TIMEOUT(batch, ends_with_the_last_message, 60)
{
	size_t volume_size = strlen("erofs,") + strlen(self->e.domain) + 1;
	struct cf_op *op;
	char name[32];
	int i;

	/* Whatever the length is modulo 8, there is no padding after the last. */
	for (i = 1; i < 10; i++) {
		snprintf(name, sizeof(name), "%.*s", i, "123456789");
		ASSERT_QUEUE_READ(i);
		ASSERT_QUEUE_OPEN(op, name);
		ASSERT_EQ(2, read_batch(self->dev, sizeof(batch)));
		EXPECT_EQ(32 + 32 + volume_size + i, seen[1].end);
		EXPECT_OPEN(1, op);
	}
}

TEST_F_TIMEOUT(batch, fills_the_buffer_exactly, 60)
{
	struct cf_op *op;
	size_t len;

	ASSERT_QUEUE_OPEN(op, "exact");
	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_READ(1);
	ASSERT_EQ(3, read_batch(self->dev, sizeof(batch)));
	len = seen[2].end;
	/*
	 * All three come again, into a buffer of just their size, and of one byte less. A CLOSE
	 * would come as well, were the fd of the OPEN still open.
	 */
	EXPECT_EQ(CF_OPEN, seen[1].opcode);
	ASSERT_EQ(0, close(seen[1].fd));
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	ASSERT_EQ(3, read_batch(self->dev, len));
	EXPECT_EQ(len, seen[2].end);
	ASSERT_EQ(0, close(seen[0].fd));
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	ASSERT_EQ(2, read_batch(self->dev, len - 1));
	EXPECT_READ(1, 0);
	EXPECT_OPEN(0, op);
	ASSERT_EQ(1, read_batch(self->dev, len - 1));
	EXPECT_READ(0, 1);
}

TEST_F_TIMEOUT(batch, counts_the_padding, 60)
{
	size_t volume_size = strlen("erofs,") + strlen(self->e.domain) + 1, open_size;
	char name[] = "12345678";
	struct cf_op *op;

	/* One byte more than a multiple of 8: seven bytes of padding. */
	name[8 - (volume_size - 1) % 8] = 0;
	open_size = 32 + volume_size + strlen(name);
	ASSERT_EQ(1, open_size % 8);
	ASSERT_QUEUE_READ(1);
	ASSERT_EQ(1, read_batch(self->dev, 32));
	ASSERT_QUEUE_OPEN(op, name);
	ASSERT_QUEUE_READ(0);
	ASSERT_EQ(1, read_batch(self->dev, open_size + 7 + 31));
	EXPECT_EQ(open_size, seen[0].end);
	EXPECT_OPEN(0, op);
	ASSERT_EQ(1, read_batch(self->dev, 32));
	EXPECT_READ(0, 0);
}

TEST_F_TIMEOUT(batch, first_that_does_not_fit_is_EMSGSIZE, 60)
{
	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_READ(1);
	EXPECT_EQ(-EMSGSIZE, read_batch(self->dev, 31));
	EXPECT_EQ(-EMSGSIZE, read_batch(self->dev, 0));
	ASSERT_EQ(2, read_batch(self->dev, sizeof(batch)));
	EXPECT_READ(0, 0);
	EXPECT_READ(1, 1);
}

TEST_F_TIMEOUT(batch, second_that_does_not_fit_comes_first_next_time, 60)
{
	struct cf_op *op;

	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_OPEN(op, "long");
	ASSERT_QUEUE_READ(1);
	/* The READ behind it would fit, but is not its turn. */
	ASSERT_EQ(1, read_batch(self->dev, 64));
	EXPECT_READ(0, 0);
	EXPECT_EQ(-EMSGSIZE, read_batch(self->dev, 32));
	ASSERT_EQ(2, read_batch(self->dev, sizeof(batch)));
	EXPECT_OPEN(0, op);
	EXPECT_READ(1, 1);
}

TEST_F_TIMEOUT(batch, fault_in_the_middle_loses_nothing, 60)
{
	long page = sysconf(_SC_PAGESIZE);
	struct cf_op *op[2];
	uint8_t *p;
	int fd;

	p = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, munmap(p + page, page));
	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_OPEN(op[0], "a");
	ASSERT_QUEUE_OPEN(op[1], "b");
	fd = cf_lowest_free_fd();

	/* The buffer has space for the READ and half of the first OPEN. */
	EXPECT_EQ(32, read(self->dev, p + page - 56, 4096));
	ASSERT_EQ(1, walk(p + page - 56, 32));
	EXPECT_READ(0, 0);
	EXPECT_EQ(fd, cf_lowest_free_fd()) TH_LOG("an fd was left behind");
	/* Now it is the first message, so read() returns the error. */
	EXPECT_EQ(-1, read(self->dev, p + page - 24, 4096));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(fd, cf_lowest_free_fd()) TH_LOG("an fd was left behind");

	/* Space for the first OPEN and not for the second: the first one's fd stays. */
	EXPECT_GT(read(self->dev, p + page - 80, 4096), 32);
	EXPECT_NE(fd, cf_lowest_free_fd());
	memcpy(batch, p + page - 80, 80);
	ASSERT_EQ(1, walk(batch, ((struct cf_wire *)batch)->len));
	EXPECT_EQ(fd, seen[0].fd);
	EXPECT_OPEN(0, op[0]);
	ASSERT_QUEUE_READ(1);
	ASSERT_EQ(2, read_batch(self->dev, sizeof(batch)));
	EXPECT_OPEN(0, op[1]);
	EXPECT_READ(1, 1);
	munmap(p, page);
}

TEST_F_TIMEOUT(batch, fds_that_run_out_in_the_middle_lose_nothing, 60)
{
	struct rlimit old, rl;
	struct cf_op *op[2];
	int ret[2];

	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_OPEN(op[0], "a");
	ASSERT_QUEUE_OPEN(op[1], "b");
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	rl = old;
	/* One fd is left. */
	rl.rlim_cur = cf_lowest_free_fd() + 1;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &rl));
	ret[0] = read_batch(self->dev, sizeof(batch) / 2);
	ASSERT_EQ(0, readahead(self->b.fd, 65536, 4096));
	ret[1] = read(self->dev, batch + sizeof(batch) / 2, sizeof(batch) / 2) < 0 ? -errno : 0;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	ASSERT_EQ(2, ret[0]);
	EXPECT_READ(0, 0);
	EXPECT_OPEN(1, op[0]);
	/* The second OPEN was the next to be tried. Then others come first. */
	EXPECT_EQ(-EMFILE, ret[1]);
	ASSERT_EQ(2, read_batch(self->dev, sizeof(batch)));
	EXPECT_READ(0, 1);
	EXPECT_OPEN(1, op[1]);
}

TEST_F_TIMEOUT(batch, faulting_buffer_is_EFAULT_and_all_come_again, 60)
{
	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_READ(1);
	EXPECT_EQ(-1, read(self->dev, cf_nowhere(), 4096));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(2, read_batch(self->dev, sizeof(batch)));
	EXPECT_READ(0, 0);
	EXPECT_READ(1, 1);
}

TEST_F_TIMEOUT(batch, has_a_thousand_messages_at_most, 120)
{
	/* Of one file no more than 128 blocks are read ahead. */
	enum { NR = 20, EACH = 100 };
	struct cf_blob b[NR];
	char name[16];
	int i, j, n;

	for (i = 0; i < NR; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b[i], name, 64 << 20));
	}
	for (i = 0; i < NR; i++) {
		for (j = 0; j < EACH; j++)
			ASSERT_EQ(0, readahead(b[i].fd, j * 65536L, 4096));
	}
	/* As many as fit, one of each object in turn ... */
	ASSERT_EQ(NR * 5, read_batch(self->dev, NR * 5 * 32));
	for (i = 0; i < NR * 5; i++) {
		ASSERT_EQ(b[i % NR].object_id, seen[i].object_id);
		ASSERT_EQ(i / NR * 65536L, seen[i].off);
	}
	/* ... but the bound is below what would fit, and the rest is not lost. */
	n = read_batch(self->dev, sizeof(batch));
	EXPECT_GE(n, 1000);
	EXPECT_LT(n, NR * (EACH - 5));
	for (i = 0; i < n; i++) {
		ASSERT_EQ(b[i % NR].object_id, seen[i].object_id);
		ASSERT_EQ((i / NR + 5) * 65536L, seen[i].off);
	}
	EXPECT_EQ(NR * (EACH - 5) - n, read_batch(self->dev, sizeof(batch)));
}

TEST_F_TIMEOUT(batch, has_CLOSES_too, 60)
{
	struct cf_blob b[3];
	int i, n, total = 0;
	char name[16];

	for (i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b[i], name, 4096));
		close(b[i].fd);
	}
	close(self->b.fd);
	ASSERT_EQ(0, cf_env_umount_soon(&self->e));
	/* They are withdrawn one after the other. */
	cf_sleep_ms(1000);
	while (total < 4 && cf_readable(self->dev, CF_SOON)) {
		n = read_batch(self->dev, sizeof(batch));
		ASSERT_GT(n, 0);
		for (i = 0; i < n; i++)
			EXPECT_EQ(CF_CLOSE, seen[i].opcode);
		total += n;
	}
	EXPECT_EQ(4, total);
}

/* A daemon that reads batches. */
struct server {
	int dev, stop;
	int opens, reads, most;
	long err;
};

static long serve_batches(struct cf_op *op)
{
	struct server *s = (struct server *)op->off;
	static char names[64][256];
	static int fds[64];
	struct cf_msg m;
	int i, n;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		cf_readable(s->dev, 50);
		n = read_batch(s->dev, 16384);
		if (n < 0)
			return n;
		if (n > s->most)
			s->most = n;
		for (i = 0; i < n; i++) {
			uint32_t id = seen[i].object_id % 64;
			long err = 0;

			if (seen[i].opcode == CF_OPEN) {
				memcpy(m.raw, batch + seen[i].at, seen[i].end - seen[i].at);
				cf_msg_name(&m, names[id]);
				fds[id] = seen[i].fd;
				s->opens++;
				err = cf_copen(s->dev, seen[i].msg_id, SIZE);
			} else if (seen[i].opcode == CF_READ) {
				s->reads++;
				err = cf_fill(fds[id], names[id], seen[i].off, seen[i].len, SIZE);
				if (!err)
					err = cf_complete(fds[id], seen[i].msg_id);
			}
			if (err)
				return err;
		}
	}
	return 0;
}

TEST_F_TIMEOUT(batch, serves_many_readers, 120)
{
	struct server server = { .dev = self->dev };
	struct cf_op *op[32], *daemon;
	char name[16];
	int fd[8], i;

	daemon = cf_start(serve_batches, NULL, -1, (off_t)&server, 0);
	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "many%d", i);
		op[i] = cf_start_open(self->e.mnt, name);
	}
	for (i = 0; i < 8; i++) {
		fd[i] = cf_finish(op[i]);
		ASSERT_GE(fd[i], 0);
	}
	for (i = 0; i < 32; i++)
		op[i] = cf_start_pread(fd[i % 8], 0, SIZE);
	for (i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "many%d", i % 8);
		EXPECT_EQ(SIZE, cf_wait(op[i], 60000));
		EXPECT_EQ(-1, cf_check(name, 0, op[i]->buf, SIZE));
		cf_op_free(op[i]);
	}
	__atomic_store_n(&server.stop, 1, __ATOMIC_RELAXED);
	EXPECT_EQ(0, cf_finish(daemon));
	EXPECT_EQ(8, server.opens);
	EXPECT_GT(server.most, 1) TH_LOG("never more than one message at once");
}

/* ---------------------------------------------------------- without options */

FIXTURE(plain) {
	struct cf_env e;
	int dev, epoll;
	struct cf_blob b;
};

FIXTURE_SETUP(plain)
{
	/* There, readahead() waits for the daemon. */
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_SETUP(cf_env_all_with(&self->e, ""));
	self->dev = self->e.dev;
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
	self->epoll = watch_edges(self->dev);
	ASSERT_GE(self->epoll, 0);
}

FIXTURE_TEARDOWN(plain)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(plain, bind_delivers_one_message_at_a_time, 60)
{
	struct cf_op *op;

	ASSERT_QUEUE_OPEN(op, "one");
	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_READ(1);
	ASSERT_EQ(1, read_batch(self->dev, sizeof(batch)));
	EXPECT_READ(0, 0);
	ASSERT_EQ(1, read_batch(self->dev, sizeof(batch)));
	EXPECT_OPEN(0, op);
	ASSERT_EQ(1, read_batch(self->dev, sizeof(batch)));
	EXPECT_READ(0, 1);
	EXPECT_EQ(0, read_batch(self->dev, sizeof(batch)));
}

TEST_F_TIMEOUT(plain, bind_has_no_limit, 60)
{
	struct cf_op *op;
	struct cf_msg m;

	no_readahead(self->b.fd);
	op = cf_start_pread(self->b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, LIMIT_MS + LATE_MS));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, CF_PAGE, SIZE));
	EXPECT_EQ(0, cf_complete(self->b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_finish(op));
}

/* -------------------------------------------------------------------- both */

FIXTURE(both) {
	struct cf_env e;
	int dev, epoll;
	struct cf_blob b;
};

FIXTURE_SETUP(both)
{
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	ASSERT_SETUP(cf_env_all_with(&self->e, " batch timeout=2"));
	self->dev = self->e.dev;
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
	self->epoll = watch_edges(self->dev);
	ASSERT_GE(self->epoll, 0);
}

FIXTURE_TEARDOWN(both)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(both, READS_of_one_batch_are_answered_or_expire, 60)
{
	int anon = self->b.anon;

	ASSERT_QUEUE_READ(0);
	ASSERT_QUEUE_READ(1);
	ASSERT_EQ(2, read_batch(self->dev, sizeof(batch)));
	ASSERT_EQ(0, cf_fill(anon, "blob", seen[1].off, seen[1].len, SIZE));
	EXPECT_EQ(0, cf_complete(anon, seen[1].msg_id));
	cf_sleep_ms(LIMIT_MS + LATE_MS);
	EXPECT_EQ(-EINVAL, cf_complete(anon, seen[0].msg_id));
	/* Later ones have their own time. */
	ASSERT_QUEUE_READ(2);
	ASSERT_EQ(1, read_batch(self->dev, sizeof(batch)));
	EXPECT_READ(0, 2);
	ASSERT_EQ(0, cf_fill(anon, "blob", seen[0].off, seen[0].len, SIZE));
	EXPECT_EQ(0, cf_complete(anon, seen[0].msg_id));
}

TEST_HARNESS_MAIN
