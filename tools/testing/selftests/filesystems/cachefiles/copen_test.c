// SPDX-License-Identifier: GPL-2.0
/*
 * The answer to an OPEN: sizes, errors, and ids that are not those of an OPEN.
 */
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

FIXTURE(copen) {
	struct cf_env e;
	int dev;
};

FIXTURE_SETUP(copen)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(copen)
{
	cf_env_end(&self->e);
}

/* ----------------------------------------------------------------- sizes */

FIXTURE(size) {
	struct cf_env e;
};

FIXTURE_VARIANT(size) {
	long long size;
};

FIXTURE_VARIANT_ADD(size, 0) { .size = 0 };
FIXTURE_VARIANT_ADD(size, 1) { .size = 1 };
FIXTURE_VARIANT_ADD(size, 4096) { .size = 4096 };
FIXTURE_VARIANT_ADD(size, 4097) { .size = 4097 };
FIXTURE_VARIANT_ADD(size, 1_GiB) { .size = 1LL << 30 };
FIXTURE_VARIANT_ADD(size, 1_TiB) { .size = 1LL << 40 };

FIXTURE_SETUP(size)
{
	ASSERT_SETUP(cf_env_all(&self->e));
}

FIXTURE_TEARDOWN(size)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(size, of_copen_is_what_stat_shows, 30)
{
	struct cf_blob b;
	struct stat st;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "sized", variant->size));
	ASSERT_EQ(0, fstat(b.fd, &st));
	EXPECT_EQ(variant->size, st.st_size);
	EXPECT_TRUE(S_ISREG(st.st_mode));
}

TEST_F_TIMEOUT(size, is_where_reading_ends, 30)
{
	char c[8];
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "sized", variant->size));
	EXPECT_EQ(0, pread(b.fd, c, sizeof(c), variant->size));
	EXPECT_EQ(0, pread(b.fd, c, sizeof(c), variant->size + 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, CF_NEVER)) TH_LOG("reading past the end asked");
}

TEST_F_TIMEOUT(size, last_byte_can_be_fetched, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	long ret;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "sized", variant->size));
	posix_fadvise(b.fd, 0, 0, POSIX_FADV_RANDOM);
	if (!variant->size) {
		EXPECT_EQ(0, cf_finish(cf_start_pread(b.fd, 0, 8)));
		return;
	}
	op = cf_start_pread(b.fd, variant->size - 1, 8);
	while ((ret = cf_wait(op, 0)) == -ETIMEDOUT) {
		ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
		ASSERT_EQ(0, cf_fill(b.anon, "sized", m.w.read.off, m.w.read.len, b.size));
		ASSERT_EQ(0, cf_complete(b.anon, m.w.msg_id));
		cf_wait(op, 200);
	}
	EXPECT_EQ(1, ret);
	EXPECT_EQ(-1, cf_check("sized", variant->size - 1, op->buf, 1));
}

/* What open(2) returns when the daemon answered @err, or should have. */
static long opener_gets(long err)
{
	return cf_intended("opener-gets-the-errno") ? err : -EIO;
}

TEST_F_TIMEOUT(copen, size_beyond_every_file_system, 30)
{
	long expected = cf_intended("size-beyond-all-limits");
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "huge", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(expected, cf_copen(self->dev, m.w.msg_id, LLONG_MAX));
	/* Taken for good, it fails only when the cache file is made. */
	if (!expected)
		cf_answer_opens(&self->e, op, LLONG_MAX);
	EXPECT_EQ(opener_gets(-EINVAL), cf_finish(op));
}

TEST_F_TIMEOUT(copen, size_that_does_not_parse_fails_the_open, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "junk", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen %u,12x", m.w.msg_id));
	EXPECT_EQ(opener_gets(-EINVAL), cf_finish(op));
}

TEST_F_TIMEOUT(copen, empty_size_fails_the_open, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "junk", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EINVAL, cf_cmd(self->dev, "copen %u,", m.w.msg_id));
	EXPECT_EQ(opener_gets(-EINVAL), cf_finish(op));
}

TEST_F_TIMEOUT(copen, size_that_overflows_is_ERANGE, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "junk", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(-ERANGE, cf_cmd(self->dev, "copen %u,99999999999999999999", m.w.msg_id));
	EXPECT_EQ(opener_gets(-ERANGE), cf_finish(op));
}

TEST_F_TIMEOUT(copen, numbers_may_be_hexadecimal, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "hex", &m);
	struct stat st;
	int fd;

	ASSERT_NE(NULL, op);
	EXPECT_EQ(0, cf_cmd(self->dev, "copen %#x,0x2001", m.w.msg_id));
	fd = cf_finish(op);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(0x2001, st.st_size);
}

TEST_F_TIMEOUT(copen, numbers_may_be_octal_or_have_a_plus_sign, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "octal", &m);
	struct stat st;
	int fd;

	ASSERT_NE(NULL, op);
	EXPECT_EQ(0, cf_cmd(self->dev, "copen +0%o,+010001", m.w.msg_id));
	fd = cf_finish(op);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(010001, st.st_size);
}

/* ---------------------------------------------------------------- errors */

FIXTURE(error) {
	struct cf_env e;
};

FIXTURE_VARIANT(error) {
	int err;
	int seen;	/* by the opener, 0: EIO */
};

static long seen(const FIXTURE_VARIANT(error) *variant)
{
	return variant->seen ? opener_gets(-variant->seen) : -EIO;
}

FIXTURE_VARIANT_ADD(error, EPERM) { .err = 1, .seen = 1 };
FIXTURE_VARIANT_ADD(error, ENOENT) { .err = ENOENT, .seen = ENOENT };
FIXTURE_VARIANT_ADD(error, 511) { .err = 511, .seen = 511 };
/*
 * From 512 on errnos have a meaning inside the kernel only (512 restarts the
 * system call): the daemon may answer them, an opener must not see them.
 */
FIXTURE_VARIANT_ADD(error, 512) { .err = 512 };
FIXTURE_VARIANT_ADD(error, 4095) { .err = 4095 };
FIXTURE_VARIANT_ADD(error, EIO) { .err = EIO };

FIXTURE_SETUP(error)
{
	ASSERT_SETUP(cf_env_all(&self->e));
}

FIXTURE_TEARDOWN(error)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(error, of_copen_is_what_open_returns, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "missing", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, -variant->err));
	EXPECT_EQ(seen(variant), cf_finish(op));
}

/* nydusd closes the fd before it says that there is no such blob. */
TEST_F_TIMEOUT(error, of_copen_may_follow_the_close_of_the_fd, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "missing", &m);

	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, close(m.w.open.fd));
	EXPECT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, -variant->err));
	EXPECT_EQ(seen(variant), cf_finish(op));
}

TEST_F_TIMEOUT(error, is_asked_about_again_by_the_next_open, 30)
{
	struct cf_blob b;
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "missing", &m);

	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, -variant->err));
	close(m.w.open.fd);
	ASSERT_EQ(seen(variant), cf_finish(op));
	/* ondemandfs takes the daemon's word for a second that there is no such file. */
	cf_sleep_ms(1500);
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "missing", 4096));
}

/* So that a daemon that forgets it does not keep it for ever. */
TEST_F_TIMEOUT(copen, fd_kept_after_a_failed_open, 30)
{
	bool closed = cf_intended("close-after-failed-open");
	struct cf_msg m, c;
	struct cf_op *op = cf_open_and_recv(&self->e, "kept", &m);

	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, -ENOENT));
	ASSERT_EQ(opener_gets(-ENOENT), cf_finish(op));
	if (closed) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &c));
		EXPECT_EQ(m.w.object_id, c.w.object_id);
	}
	EXPECT_FALSE(cf_readable(self->dev, CF_NEVER));
}

TEST_F_TIMEOUT(copen, size_below_any_errno_is_EINVAL_for_both_sides, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "low", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, -4096));
	EXPECT_EQ(opener_gets(-EINVAL), cf_finish(op));
	close(m.w.open.fd);

	op = cf_open_and_recv(&self->e, "lower", &m);
	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, LLONG_MIN));
	EXPECT_EQ(opener_gets(-EINVAL), cf_finish(op));
}

TEST_F_TIMEOUT(copen, fd_closed_before_copen_is_EBADFD, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "closed", &m);

	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, close(m.w.open.fd));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_EQ(opener_gets(-CF_ERR_BADFD), cf_finish(op));
}

TEST_F_TIMEOUT(copen, fd_closed_before_copen_can_be_opened_again, 30)
{
	struct cf_blob b;
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "closed", &m);

	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, close(m.w.open.fd));
	ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	ASSERT_EQ(opener_gets(-CF_ERR_BADFD), cf_finish(op));
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "closed", 4096));
}

/* ------------------------------------------------------------- wrong ids */

TEST_F_TIMEOUT(copen, copen_of_an_unknown_id_loses_nothing, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "a", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id + 1, 4096));
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id + 1, -EIO));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(copen, copen_of_a_request_not_yet_read_is_EINVAL, 30)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "unread");
	struct cf_msg m;

	ASSERT_TRUE(cf_readable(self->dev, CF_SOON));
	/* the first request of a cache is number 0 */
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, 0, 4096));
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, 0, -EIO));
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	ASSERT_EQ(0, m.w.msg_id);
	EXPECT_EQ(0, cf_copen(self->dev, 0, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_F_TIMEOUT(copen, second_copen_of_a_request_is_EINVAL, 30)
{
	struct cf_blob b;
	struct stat st;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "twice", 4096));
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, b.msg_id, 8192));
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, b.msg_id, -EIO));
	ASSERT_EQ(0, fstat(b.fd, &st));
	EXPECT_EQ(4096, st.st_size);
}

TEST_F_TIMEOUT(copen, copen_with_the_id_of_a_READ_is_EINVAL, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "read", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, -EIO));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	EXPECT_EQ(0, cf_fill(b.anon, "read", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("read", 0, op->buf, 4096));
	cf_op_free(op);
}

TEST_F_TIMEOUT(copen, completing_an_OPEN_with_the_ioctl_is_EINVAL, 30)
{
	struct cf_msg m;
	struct cf_op *op = cf_open_and_recv(&self->e, "ioctl", &m);

	ASSERT_NE(NULL, op);
	EXPECT_EQ(-EINVAL, cf_complete(m.w.open.fd, m.w.msg_id));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 4096));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_HARNESS_MAIN
