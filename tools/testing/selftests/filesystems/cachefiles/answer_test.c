// SPDX-License-Identifier: GPL-2.0
/*
 * The answers to a READ: READ_COMPLETE, which completes a short read before it
 * returns, and CACHEFILES_IOC_FILL, which writes and answers in one call.
 */
#include <sys/mman.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define SIZE	0x200000

#define NOT_IN_C	"the C implementation does not have that"

/* Have a READ for @len bytes of @b at @off delivered for which no reader waits. */
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

/* ---------------------------------------------------------- READ_COMPLETE */

FIXTURE(answer) {
	struct cf_env e;
	struct cf_blob b;
	char *buf;
};

FIXTURE_SETUP(answer)
{
	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	self->buf = mmap(NULL, 0x20000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->buf);
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
}

FIXTURE_TEARDOWN(answer)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(answer, a_short_read_is_over_when_the_ioctl_returns, 60)
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

TEST_F_TIMEOUT(answer, a_short_read_of_what_was_not_written_fails, 60)
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
TEST_F_TIMEOUT(answer, a_read_that_has_to_wait_for_the_disk_ends, 60)
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

/* The first answer of all may be without data. */
TEST_F_TIMEOUT(answer, an_answer_without_data_is_not_asked_for_again_and_again, 60)
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

/* ------------------------------------------------------------------- FILL */

TEST_F_TIMEOUT(answer, fill_writes_and_answers, 60)
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
TEST_F_TIMEOUT(answer, fill_of_much_answers_too, 60)
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
TEST_F_TIMEOUT(answer, fill_of_more_than_was_asked_for, 60)
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

TEST_F_TIMEOUT(answer, fill_of_the_first_half_of_what_is_read, 60)
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
TEST_F_TIMEOUT(answer, fill_of_what_comes_after_what_is_there, 60)
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
TEST_F_TIMEOUT(answer, fill_that_ends_within_a_block, 60)
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

TEST_F_TIMEOUT(answer, fill_without_a_READ_writes_and_says_so, 60)
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
TEST_F_TIMEOUT(answer, fill_refuses_what_is_wrong_and_answers_nothing, 60)
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
TEST_F_TIMEOUT(answer, fill_of_a_part_answers_nothing, 60)
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

TEST_HARNESS_MAIN
