// SPDX-License-Identifier: GPL-2.0
/*
 * What makes it fast, as far as that can be seen: a short read that ends before
 * READ_COMPLETE returns, one poller woken of those who poll exclusively, "bind ondemand
 * wait", CACHEFILES_IOC_FILL, and no file for what is never written.
 */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	0x200000

#define NOT_IN_C	"the C implementation does not have that"

/* Have a READ for @len bytes of @b at @off delivered that nobody waits for. */
static int ask_for(struct cf_env *e, struct cf_blob *b, off_t off, size_t len, struct cf_msg *m)
{
	long ret = cf_finish(cf_start_readahead(b->fd, off, len));

	return ret ?: cf_expect(e->dev, CF_READ, m);
}

/* Begin to read the first @len bytes of @b, and take the READ: NULL if there is none. */
static struct cf_op *begin_to_read(struct cf_env *e, struct cf_blob *b, size_t len,
				   struct cf_msg *m)
{
	struct cf_op *op;

	cf_no_readahead(b->fd);
	op = cf_start_pread(b->fd, 0, len);
	return cf_expect(e->dev, CF_READ, m) ? NULL : op;
}

/*
 * Answer READs without data until the reader is done: how many there were, or -errno.
 * The page cache may ask again, in vain; what it asks for is the @len bytes that are missing.
 */
static int answer_without_data(struct cf_env *e, struct cf_blob *b, struct cf_op *op, size_t len)
{
	struct cf_msg m;
	int reads = 0, err = 0;

	while (!err && cf_wait(op, 10) == -ETIMEDOUT && !op->joined) {
		if (cf_recv(e->dev, &m, 0))
			continue;
		reads++;
		err = m.w.read.len == len ? cf_complete(b->anon, m.w.msg_id) : -EPROTO;
	}
	return err ?: reads;
}

/* ------------------------------------------------------------ answered at once */

FIXTURE(fast) {
	struct cf_env e;
	struct cf_blob b;
	char *buf;
};

FIXTURE_SETUP(fast)
{
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	self->buf = mmap(NULL, 0x20000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->buf);
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
}

FIXTURE_TEARDOWN(fast)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(fast, a_short_read_is_over_when_the_ioctl_returns, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_msg m;
	int i;

	if (cf_is_btrfs())
		SKIP(return, "btrfs changes the times of a file, which is looked at anew");
	/* With a task in between it would be, now and then. */
	for (i = 0; i < 16; i++) {
		off_t off = i * 2 * CF_PAGE;

		ASSERT_EQ(0, ask_for(&self->e, b, off, CF_PAGE, &m));
		EXPECT_FALSE(cf_is_in_memory(b->fd, off));
		ASSERT_EQ(0, cf_blob_answer_read(b, &m));
		ASSERT_TRUE(cf_is_in_memory(b->fd, off));
		EXPECT_EQ(0, cf_read_and_check("blob", b->fd, off, CF_PAGE, CF_PAGE));
	}
}

TEST_F_TIMEOUT(fast, a_short_read_of_what_was_not_written_fails, 60)
{
	struct cf_msg m;
	struct cf_op *op;

	op = begin_to_read(&self->e, &self->b, CF_PAGE, &m);
	ASSERT_NE(NULL, op);
	/* All but the last block. */
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", m.w.read.off, m.w.read.len - CF_BLOCK, SIZE));
	EXPECT_EQ(0, cf_complete(self->b.anon, m.w.msg_id));
	EXPECT_LE(0, answer_without_data(&self->e, &self->b, op, CF_BLOCK));
	EXPECT_EQ(-EIO, op->ret);
	cf_op_free(op);
}

/* What was written and synced, then dropped from memory, is read from the disk. */
TEST_F_TIMEOUT(fast, a_read_that_has_to_wait_for_the_disk_ends, 60)
{
	struct cf_msg m;
	struct cf_op *op;

	op = begin_to_read(&self->e, &self->b, CF_PAGE, &m);
	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", m.w.read.off, m.w.read.len, SIZE));
	sync();
	cf_drop_caches();
	EXPECT_EQ(0, cf_complete(self->b.anon, m.w.msg_id));
	ASSERT_EQ(CF_PAGE, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, CF_PAGE));
	cf_op_free(op);
}

/* ---------------------------------------------------------------------- polling */

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

TEST_F_TIMEOUT(fast, one_of_those_who_poll_exclusively_is_woken, 60)
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

/* ----------------------------------------------------------------------- FILL */

TEST_F_TIMEOUT(fast, fill_writes_and_answers, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_msg m;
	struct cf_fill_args f = { .off = 0, .len = 2 * CF_PAGE, .addr = (uintptr_t)self->buf };
	struct cf_op *op;

	cf_pattern("blob", 0, self->buf, f.len);
	op = begin_to_read(&self->e, b, CF_PAGE, &m);
	ASSERT_NE(NULL, op);
	f.msg_id = m.w.msg_id;
	EXPECT_EQ(f.len, cf_ioc_fill(b->anon, &f));
	ASSERT_EQ(CF_PAGE, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, CF_PAGE));
	cf_op_free(op);

	/* It is answered, and what was written besides is there. */
	EXPECT_EQ(-EINVAL, cf_complete(b->anon, m.w.msg_id));
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, CF_PAGE, CF_PAGE, CF_PAGE));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

/* Above what is copied at once. */
TEST_F_TIMEOUT(fast, fill_of_much_answers_too, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_fill_args f = { .addr = (uintptr_t)self->buf };
	struct cf_msg m;
	struct cf_op *op;

	ASSERT_EQ(0, ask_for(&self->e, b, 0, 0x20000, &m));
	f.off = m.w.read.off;
	f.len = m.w.read.len;
	f.msg_id = m.w.msg_id;
	ASSERT_LE(f.len, 0x20000);
	cf_pattern("blob", f.off, self->buf, f.len);
	EXPECT_EQ(f.len, cf_ioc_fill(b->anon, &f));
	op = cf_start_pread(b->fd, f.off, f.len);
	ASSERT_EQ(f.len, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", f.off, op->buf, f.len));
	cf_op_free(op);
}

/* What the reader gets from the daemon's memory is what belongs where it reads. */
TEST_F_TIMEOUT(fast, fill_of_more_than_was_asked_for, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_fill_args f = { .len = 16 * CF_PAGE, .addr = (uintptr_t)self->buf };
	struct cf_msg m;
	struct cf_op *op;

	cf_no_readahead(b->fd);
	cf_pattern("blob", 0, self->buf, f.len);
	op = cf_start_pread(b->fd, 5 * CF_PAGE, 3 * CF_PAGE);
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	f.msg_id = m.w.msg_id;
	EXPECT_EQ(f.len, cf_ioc_fill(b->anon, &f));
	ASSERT_EQ(3 * CF_PAGE, cf_serve_until_done(&self->e, b, op, NULL));
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, 16 * CF_PAGE, 16 * CF_PAGE));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

TEST_F_TIMEOUT(fast, fill_of_the_first_half_of_what_is_read, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_fill_args f = { .len = 2 * CF_PAGE, .addr = (uintptr_t)self->buf };
	struct cf_msg m;

	/* One request of four pages; it is the rest of it that is asked for then. */
	cf_pattern("blob", 0, self->buf, f.len);
	ASSERT_EQ(0, ask_for(&self->e, b, 0, 4 * CF_PAGE, &m));
	ASSERT_EQ(0, m.w.read.off);
	ASSERT_LE(4 * CF_PAGE, m.w.read.len);
	f.msg_id = m.w.msg_id;
	EXPECT_EQ(f.len, cf_ioc_fill(b->anon, &f));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	EXPECT_EQ(f.len, m.w.read.off);
	ASSERT_EQ(0, cf_blob_answer_read(b, &m));
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, 4 * CF_PAGE, 4 * CF_PAGE));
}

/* What does not begin where the reader is has to be looked for. */
TEST_F_TIMEOUT(fast, fill_of_what_comes_after_what_is_there, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_fill_args f = {
		.off = 2 * CF_PAGE, .len = 2 * CF_PAGE, .addr = (uintptr_t)self->buf,
	};
	struct cf_msg m;

	ASSERT_EQ(0, cf_fill(b->anon, "blob", 0, 2 * CF_PAGE, SIZE));
	cf_pattern("blob", f.off, self->buf, f.len);
	ASSERT_EQ(0, ask_for(&self->e, b, 0, 4 * CF_PAGE, &m));
	ASSERT_EQ(f.off, m.w.read.off);
	f.msg_id = m.w.msg_id;
	EXPECT_EQ(f.len, cf_ioc_fill(b->anon, &f));
	if (m.w.read.len > f.len) {
		ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
		ASSERT_EQ(0, cf_blob_answer_read(b, &m));
	}
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, 4 * CF_PAGE, 4 * CF_PAGE));
}

/* The file ends within a block, and so does what is given; the rest of that is zeros. */
TEST_F_TIMEOUT(fast, fill_that_ends_within_a_block, 60)
{
	struct cf_fill_args f = { .len = CF_PAGE + 904, .addr = (uintptr_t)self->buf };
	struct cf_blob b;
	struct cf_msg m;
	char *map;
	size_t i;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "end", f.len));
	cf_pattern("end", 0, self->buf, f.len);
	ASSERT_EQ(0, ask_for(&self->e, &b, 0, 2 * CF_PAGE, &m));
	ASSERT_EQ(0, m.w.read.off);
	f.msg_id = m.w.msg_id;
	EXPECT_EQ(f.len, cf_ioc_fill(b.anon, &f));
	ASSERT_TRUE(CF_WAIT_FOR(cf_is_in_memory(b.fd, CF_PAGE), CF_SOON)) TH_LOG("not read");
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
	EXPECT_EQ(0, cf_read_and_check("end", b.fd, 0, f.len, f.len));
	map = mmap(NULL, 2 * CF_PAGE, PROT_READ, MAP_SHARED, b.fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	for (i = f.len; i < 2 * CF_PAGE; i++)
		ASSERT_EQ(0, map[i]);
	munmap(map, 2 * CF_PAGE);
}

TEST_F_TIMEOUT(fast, fill_without_a_READ_writes_and_says_so, 60)
{
	struct cf_blob *b = &self->b, other;
	struct cf_fill_args f = { .len = CF_PAGE, .addr = (uintptr_t)self->buf, .msg_id = 123456 };
	struct cf_msg m;
	struct cf_op *op;

	cf_no_readahead(b->fd);
	cf_pattern("blob", 0, self->buf, f.len);
	EXPECT_EQ(-ENOENT, cf_ioc_fill(b->anon, &f));
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, CF_PAGE, CF_PAGE));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));

	/* The READ of another object is not answered either. */
	ASSERT_EQ(0, cf_blob_open(&self->e, &other, "other", SIZE));
	op = begin_to_read(&self->e, &other, CF_PAGE, &m);
	ASSERT_NE(NULL, op);
	f.msg_id = m.w.msg_id;
	EXPECT_EQ(-ENOENT, cf_ioc_fill(b->anon, &f));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	ASSERT_EQ(0, cf_blob_answer_read(&other, &m));
	EXPECT_EQ(CF_PAGE, cf_finish(op));
}

/* A READ is answered only by what is all written. */
TEST_F_TIMEOUT(fast, fill_refuses_what_is_wrong_and_answers_nothing, 60)
{
	struct cf_blob *b = &self->b;
	const struct cf_fill_args good = { .len = CF_PAGE, .addr = (uintptr_t)self->buf };
	struct cf_msg m;
	struct cf_op *op;
	struct cf_fill_args f;

	cf_pattern("blob", 0, self->buf, CF_PAGE);
	op = begin_to_read(&self->e, b, CF_PAGE, &m);
	ASSERT_NE(NULL, op);
#define REFUSED(error, ...) do {						\
	f = good;								\
	f.msg_id = m.w.msg_id;							\
	__VA_ARGS__;								\
	EXPECT_EQ(error, cf_ioc_fill(b->anon, &f)) TH_LOG(#__VA_ARGS__);		\
} while (0)
	EXPECT_EQ(-EFAULT, cf_ioc_fill(b->anon, cf_nowhere()));
	REFUSED(-EINVAL, f.flags = 1);
	REFUSED(-EINVAL, f.flags = 0x80000000);
	REFUSED(-EINVAL, f.off = UINT64_MAX);
	REFUSED(-EINVAL, f.off = 1ULL << 63);
	REFUSED(-EFBIG, f.off = INT64_MAX - 4095);
	REFUSED(-EFBIG, f.off = SIZE);
	REFUSED(-ENOBUFS, f.off = 1);
	REFUSED(-EFAULT, f.addr = (uintptr_t)cf_nowhere());
	REFUSED(-EFAULT, f.addr = UINT64_MAX - 4095);
	REFUSED(-EFAULT, f.addr = 1ULL << 63);
#undef REFUSED
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	ASSERT_EQ(0, cf_blob_answer_read(b, &m));
	EXPECT_EQ(CF_PAGE, cf_finish(op));
}

/* The buffer ends after the first page: that is written, and the READ waits for the rest. */
TEST_F_TIMEOUT(fast, fill_of_a_part_answers_nothing, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_fill_args f = { .len = 4 * CF_PAGE };
	struct cf_msg m;
	struct cf_op *op;
	long n;

	op = begin_to_read(&self->e, b, 4 * CF_PAGE, &m);
	ASSERT_NE(NULL, op);
	f.msg_id = m.w.msg_id;
	f.addr = (uintptr_t)self->buf + 0x10000 - CF_PAGE;
	cf_pattern("blob", 0, self->buf + 0x10000 - CF_PAGE, CF_PAGE);
	ASSERT_EQ(0, munmap(self->buf + 0x10000, 0x10000));
	n = cf_ioc_fill(b->anon, &f);
	/* Btrfs looks at all of it first. */
	EXPECT_TRUE((n > 0 && n <= CF_PAGE) || (cf_is_btrfs() && n == -EFAULT)) TH_LOG("%ld", n);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	EXPECT_FALSE(cf_readable(self->e.dev, 0)) TH_LOG("asked for the rest");
	ASSERT_EQ(0, cf_fill(b->anon, "blob", 0, 4 * CF_PAGE, SIZE));
	EXPECT_EQ(0, cf_complete(b->anon, m.w.msg_id)) TH_LOG("answered by a part");
	EXPECT_EQ(4 * CF_PAGE, cf_serve_until_done(&self->e, b, op, NULL));
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, 4 * CF_PAGE, 4 * CF_PAGE));
}

/* ---------------------------------------------------------- no file before a write */

static long free_files(void)
{
	struct statfs st;

	return statfs(CF_ROOT, &st) ? -errno : (long)st.f_ffree;
}

/* Not even a directory. */
TEST_F_TIMEOUT(fast, what_is_never_read_takes_no_room, 90)
{
	struct cf_blob blobs[8];
	char path[PATH_MAX], name[16];
	long before = free_files();
	int i;

	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "unread%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &blobs[i], name, SIZE));
		EXPECT_EQ(-1, lseek(blobs[i].anon, 0, SEEK_DATA));
		EXPECT_EQ(ENXIO, errno);
		EXPECT_EQ(4096, lseek(blobs[i].anon, 4096, SEEK_HOLE));
	}
	EXPECT_EQ(before, free_files());
	/* One of them is written to. */
	ASSERT_EQ(0, cf_fill(blobs[3].anon, "unread3", 0, CF_PAGE, SIZE));
	/* Btrfs has no number of inodes that may be. */
	EXPECT_TRUE(free_files() < before || !before);
	EXPECT_EQ(0, lseek(blobs[3].anon, 0, SEEK_DATA));
	EXPECT_EQ(CF_PAGE, lseek(blobs[3].anon, 0, SEEK_HOLE));
	close(self->b.fd);
	for (i = 0; i < 8; i++)
		close(blobs[i].fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "unread3", NULL, path), CF_SOON));
	EXPECT_FALSE(cf_find_cache_file(&self->e, "unread2", NULL, path));
	for (i = 0; i < 8; i++)
		close(blobs[i].anon);
}

TEST_F_TIMEOUT(fast, an_empty_object_is_read_without_a_file, 60)
{
	struct cf_blob b;
	char byte;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "empty", 0));
	EXPECT_EQ(0, pread(b.fd, &byte, 1, 0));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
	close(b.fd);
	close(b.anon);
}

/* The first answer of all may be without data. */
TEST_F_TIMEOUT(fast, an_answer_without_data_is_not_asked_for_again_and_again, 60)
{
	struct cf_op *op;
	int reads;

	cf_no_readahead(self->b.fd);
	op = cf_start_pread(self->b.fd, 0, CF_PAGE);
	reads = answer_without_data(&self->e, &self->b, op, CF_PAGE);
	EXPECT_LE(1, reads);
	EXPECT_EQ(-EIO, op->ret);
	/* The page cache asks once more. */
	EXPECT_LE(reads, 2);
	cf_op_free(op);
}

/* Many first writes at once make one file. */
static atomic_bool go;

static long do_fill_page(struct cf_op *op)
{
	while (!go)
		;
	return cf_fill(op->fd, op->path, op->off, op->len, SIZE);
}

TEST_F_TIMEOUT(fast, first_writes_at_once_go_to_one_file, 180)
{
	struct cf_op *ops[4];
	struct cf_blob b;
	char name[16];
	int i, round;

	for (round = 0; round < 32; round++) {
		snprintf(name, sizeof(name), "blob%d", round);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, name, SIZE));
		go = false;
		for (i = 0; i < 4; i++)
			ops[i] = cf_start(do_fill_page, name, b.anon, i * CF_PAGE, CF_PAGE);
		go = true;
		for (i = 0; i < 4; i++)
			EXPECT_EQ(0, cf_finish(ops[i]));
		cf_no_readahead(b.fd);
		EXPECT_EQ(0, cf_read_and_check(name, b.fd, 0, 4 * CF_PAGE, 4 * CF_PAGE));
		EXPECT_FALSE(cf_readable(self->e.dev, 0));
		close(b.fd);
		close(b.anon);
	}
}

/* ----------------------------------------------------------------------- wait */

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

/* ... and whoever is behind gets the next message. */
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
