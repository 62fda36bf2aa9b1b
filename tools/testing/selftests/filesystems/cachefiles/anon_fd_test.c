// SPDX-License-Identifier: GPL-2.0
/*
 * The daemon's side of an object: what the anonymous fd takes, where, and what it
 * tells of the cache file.
 */
#include <poll.h>
#include <sys/ioctl.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define TAIL	(16 * CF_PAGE)	/* where the last block is, of 10 bytes */

FIXTURE(anon) {
	struct cf_env e;
	struct cf_blob b;
	char *block;		/* aligned, as direct I/O wants it */
};

FIXTURE_SETUP(anon)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", TAIL + 10));
	cf_no_readahead(self->b.fd);
	self->block = aligned_alloc(4096, 4096);
	ASSERT_NE(NULL, self->block);
	memset(self->block, 'x', 4096);
}

FIXTURE_TEARDOWN(anon)
{
	cf_env_end(&self->e);
	free(self->block);
}

TEST_F_TIMEOUT(anon, write_returns_the_number_of_bytes, 30)
{
	EXPECT_EQ(4096, pwrite(self->b.anon, self->block, 4096, 0));
}

TEST_F_TIMEOUT(anon, write_at_an_unaligned_offset_is_ENOBUFS, 30)
{
	EXPECT_EQ(-1, pwrite(self->b.anon, self->block, 100, 100));
	EXPECT_EQ(ENOBUFS, errno);
	EXPECT_EQ(-1, pwrite(self->b.anon, self->block, 4096, 512));
	EXPECT_EQ(ENOBUFS, errno);
}

TEST_F_TIMEOUT(anon, writes_follow_each_other, 30)
{
	bool together = cf_intended("write-after-lseek");
	int i, n = CF_PAGE / CF_BLOCK * 4;
	struct cf_blob *b = &self->b;

	for (i = 0; i < n; i++) {
		cf_pattern("blob", i * 4096, self->block, 4096);
		ASSERT_EQ(4096, write(b->anon, self->block, 4096));
	}
	EXPECT_EQ(together ? n * 4096 : 0, lseek(b->anon, 0, SEEK_CUR));
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, 0, n * 4096, n * 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

TEST_F_TIMEOUT(anon, write_after_lseek, 30)
{
	/* In the C code lseek() moves another position than the one write() uses. */
	off_t to = 2 * CF_PAGE, at = cf_intended("write-after-lseek") ? to : 0;
	struct cf_blob *b = &self->b;

	ASSERT_EQ(to, lseek(b->anon, to, SEEK_SET));
	cf_pattern("blob", at, self->block, 4096);
	ASSERT_EQ(4096, write(b->anon, self->block, 4096));
	EXPECT_EQ(at ? at + 4096 : to, lseek(b->anon, 0, SEEK_CUR));
	EXPECT_EQ(at, lseek(b->anon, 0, SEEK_DATA));
	EXPECT_EQ(at + 4096, lseek(b->anon, at, SEEK_HOLE));
	/* The rest of the page, if it has one. */
	ASSERT_EQ(0, cf_fill(b->anon, "blob", at + 4096, CF_PAGE - 4096, b->size));
	EXPECT_EQ(0, cf_read_and_check("blob", b->fd, at, 4096, 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

TEST_F_TIMEOUT(anon, SEEK_DATA_and_SEEK_HOLE_show_what_was_written, 30)
{
	int fd = self->b.anon;

	EXPECT_EQ(0, lseek(fd, 0, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(fd, 0, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	ASSERT_EQ(0, cf_fill(fd, "blob", 8192, 4096, self->b.size));
	ASSERT_EQ(0, cf_fill(fd, "blob", 16384, 8192, self->b.size));
	EXPECT_EQ(8192, lseek(fd, 0, SEEK_DATA));
	EXPECT_EQ(12288, lseek(fd, 8192, SEEK_HOLE));
	EXPECT_EQ(16384, lseek(fd, 12288, SEEK_DATA));
	EXPECT_EQ(24576, lseek(fd, 16384, SEEK_HOLE));
	EXPECT_EQ(0, lseek(fd, 0, SEEK_HOLE));
	EXPECT_EQ(-1, lseek(fd, 24576, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
}

TEST_F_TIMEOUT(anon, SEEK_HOLE_of_a_complete_file_is_its_end, 30)
{
	off_t end;

	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, TAIL + 4096, self->b.size));
	end = lseek(self->b.anon, 0, SEEK_HOLE);
	/* the file is kept rounded up to whole blocks */
	EXPECT_GE(end, self->b.size);
	EXPECT_LE(end, TAIL + 4096);
	EXPECT_EQ(end, lseek(self->b.anon, 0, SEEK_END));
}

/* nydusd pads the last block with zeros. */
TEST_F_TIMEOUT(anon, last_block_may_be_written_whole, 30)
{
	memset(self->block, 0, 4096);
	cf_pattern("blob", TAIL, self->block, 10);
	EXPECT_EQ(4096, pwrite(self->b.anon, self->block, 4096, TAIL));
	EXPECT_EQ(0, cf_read_and_check("blob", self->b.fd, TAIL, 4096, 10));
}

TEST_F_TIMEOUT(anon, last_block_written_as_short_as_it_is, 30)
{
	bool taken = cf_intended("unaligned-write");
	struct cf_op *op;

	cf_pattern("blob", TAIL, self->block, 10);
	EXPECT_EQ(taken ? 10 : -EINVAL, cf_pwrite(self->b.anon, self->block, 10, TAIL));
	op = cf_start_pread(self->b.fd, TAIL, 4096);
	EXPECT_EQ(10, cf_serve_until_done(&self->e, &self->b, op, NULL));
	EXPECT_EQ(-1, cf_check("blob", TAIL, op->buf, 10));
}

TEST_F_TIMEOUT(anon, write_from_unaligned_memory, 30)
{
	bool taken = cf_intended("unaligned-write");
	char *buf = aligned_alloc(4096, CF_PAGE + 4096);

	ASSERT_NE(NULL, buf);
	cf_pattern("blob", CF_PAGE, buf + 8, CF_PAGE);
	EXPECT_EQ(taken ? CF_PAGE : -EINVAL, cf_pwrite(self->b.anon, buf + 8, CF_PAGE, CF_PAGE));
	if (taken)
		EXPECT_EQ(0, cf_read_and_check("blob", self->b.fd, CF_PAGE, CF_PAGE, CF_PAGE));
	free(buf);
}

/* A short write in the middle leaves the rest of its block unknown. */
TEST_F_TIMEOUT(anon, short_write_in_the_middle, 30)
{
	bool asked = cf_intended("partial-block");
	struct cf_op *op;
	int reads = 0;

	cf_pattern("blob", 4096, self->block, 512);
	ASSERT_EQ(512, cf_pwrite(self->b.anon, self->block, 512, 4096));
	op = cf_start_pread(self->b.fd, 4096, 4096);
	EXPECT_EQ(4096, cf_serve_until_done(&self->e, &self->b, op, &reads));
	EXPECT_EQ(asked, reads > 0);
	EXPECT_EQ(asked ? -1 : 4096 + 512, cf_check("blob", 4096, op->buf, 4096));
}

TEST_F_TIMEOUT(anon, write_beyond_the_size, 30)
{
	long expected = cf_intended("write-beyond-the-size");

	EXPECT_EQ(expected, cf_pwrite(self->b.anon, self->block, 4096, TAIL + 4096));
	EXPECT_EQ(expected, cf_pwrite(self->b.anon, self->block, 4096, 1ULL << 40));
}

TEST_F_TIMEOUT(anon, write_from_a_faulting_buffer_is_EFAULT_and_no_data, 30)
{
	struct cf_op *op;

	/* aligned as direct I/O wants it */
	EXPECT_EQ(-EFAULT, cf_pwrite(self->b.anon, (void *)4096, 4096, 4096));
	op = cf_start_pread(self->b.fd, 4096, 4096);
	EXPECT_EQ(4096, cf_serve_until_done(&self->e, &self->b, op, NULL));
	EXPECT_EQ(-1, cf_check("blob", 4096, op->buf, 4096));
}

TEST_F_TIMEOUT(anon, duplicate_serves_as_well, 30)
{
	int fd = dup(self->b.anon);
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, close(self->b.anon));
	op = cf_start_pread(self->b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(fd, "blob", 0, CF_PAGE, self->b.size));
	EXPECT_EQ(0, cf_complete(fd, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(anon, other_process_may_serve, 30)
{
	struct cf_op *op = cf_start_pread(self->b.fd, 0, 4096);
	struct cf_msg m;
	pid_t pid;

	ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));
	pid = cf_fork();
	if (pid == 0)
		_exit(cf_fill(self->b.anon, "blob", 0, CF_PAGE, self->b.size) ||
		      cf_complete(self->b.anon, m.w.msg_id));
	EXPECT_EQ(0, cf_reap(pid, CF_SOON));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(anon, write_of_nothing_is_0, 30)
{
	EXPECT_EQ(0, cf_pwrite(self->b.anon, self->block, 0, 4096));
	EXPECT_EQ(-ENOBUFS, cf_pwrite(self->b.anon, self->block, 0, 100));
	EXPECT_EQ(-1, lseek(self->b.anon, 0, SEEK_DATA));
}

TEST_F_TIMEOUT(anon, O_APPEND_is_ignored, 30)
{
	ASSERT_EQ(0, fcntl(self->b.anon, F_SETFL, O_APPEND));
	EXPECT_EQ(4096, cf_pwrite(self->b.anon, self->block, 4096, 8192));
	EXPECT_EQ(8192, lseek(self->b.anon, 0, SEEK_DATA));
	EXPECT_EQ(12288, lseek(self->b.anon, 8192, SEEK_HOLE));
}

TEST_F_TIMEOUT(anon, lseek_refuses_what_is_no_place, 30)
{
	int fd = self->b.anon;

	EXPECT_EQ(1 << 30, lseek(fd, 1 << 30, SEEK_SET));
	EXPECT_EQ(-1, lseek(fd, -1, SEEK_SET));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, lseek(fd, 0, 99));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, lseek(fd, TAIL + 4096, SEEK_DATA));
	EXPECT_EQ(ENXIO, errno);
	EXPECT_EQ(-1, lseek(fd, TAIL + 4096, SEEK_HOLE));
	EXPECT_EQ(ENXIO, errno);
}

/* The id of a READ that was not read from the device yet can be guessed. */
TEST_F_TIMEOUT(anon, READ_may_be_completed_before_it_is_read, 30)
{
	struct cf_op *op = cf_start_pread(self->b.fd, 0, 4096);

	ASSERT_TRUE(cf_readable(self->e.dev, CF_SOON));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, CF_PAGE, self->b.size));
	EXPECT_EQ(0, cf_complete(self->b.anon, self->b.msg_id + 1));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, CF_NEVER));
}

/* answer_test.c has more tests of FILL. */
TEST_F_TIMEOUT(anon, FILL_is_known, 30)
{
	int ret = ioctl(self->b.anon, CF_IOC_FILL, cf_nowhere());

	EXPECT_EQ(cf_intended("fill-ioctl"), ret < 0 ? -errno : ret);
}

/* ------------------------------------------------------------------ space */

FIXTURE(space) {
	struct cf_env e;
	struct cf_blob b;
	char *block;
};

/* Culling below 60 %, nothing more below 50 % of the blocks. */
FIXTURE_SETUP(space)
{
	ASSERT_SETUP(cf_env_init(&self->e));
	CF_WAIT_FOR((self->e.dev = cf_device_open()) != -EBUSY, 5000);
	ASSERT_GE(self->e.dev, 0);
	ASSERT_EQ(0, cf_cmd(self->e.dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "tag %s", self->e.tag));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "brun 70%%"));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "bcull 60%%"));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "bstop 50%%"));
	ASSERT_EQ(0, cf_cmd(self->e.dev, "bind ondemand"));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 65536));
	self->block = aligned_alloc(4096, 4096);
	memset(self->block, 'x', 4096);
}

FIXTURE_TEARDOWN(space)
{
	cf_env_end(&self->e);
	free(self->block);
}

static bool wants_culling(struct cf_env *e)
{
	struct pollfd p = { .fd = e->dev, .events = POLLOUT };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLOUT);
}

TEST_F_TIMEOUT(space, POLLOUT_while_the_cache_wants_to_be_culled, 30)
{
	int fd = self->b.anon;

	EXPECT_FALSE(wants_culling(&self->e));
	ASSERT_EQ(0, cf_take_space(&self->e, "filler", 45));
	EXPECT_EQ(4096, cf_pwrite(fd, self->block, 4096, 0));
	EXPECT_TRUE(wants_culling(&self->e));
	/* above "cull" again, but not yet above "run" */
	ASSERT_EQ(0, cf_give_space(&self->e, "filler"));
	ASSERT_EQ(0, cf_take_space(&self->e, "filler", 35));
	EXPECT_EQ(4096, cf_pwrite(fd, self->block, 4096, 0));
	EXPECT_TRUE(wants_culling(&self->e));
	ASSERT_EQ(0, cf_give_space(&self->e, "filler"));
	EXPECT_EQ(4096, cf_pwrite(fd, self->block, 4096, 0));
	EXPECT_FALSE(wants_culling(&self->e));
}

TEST_F_TIMEOUT(space, write_without_space_is_ENOBUFS, 30)
{
	ASSERT_EQ(0, cf_take_space(&self->e, "filler", 55));
	EXPECT_EQ(-ENOBUFS, cf_pwrite(self->b.anon, self->block, 4096, 0));
	EXPECT_TRUE(wants_culling(&self->e));
	ASSERT_EQ(0, cf_give_space(&self->e, "filler"));
	EXPECT_EQ(4096, cf_pwrite(self->b.anon, self->block, 4096, 0));
}

TEST_F_TIMEOUT(space, new_file_without_space, 30)
{
	bool asked = cf_intended("asked-without-space");
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_take_space(&self->e, "filler", 55));
	op = cf_start_open(self->e.mnt, "other");
	EXPECT_EQ(asked, cf_readable(self->e.dev, 2000));
	EXPECT_EQ(asked ? -ENOBUFS : -EIO, cf_answer_opens(&self->e, op, 4096));
	while (cf_recv(self->e.dev, &m, CF_NEVER) == 0)
		EXPECT_EQ(CF_CLOSE, m.w.opcode);
	ASSERT_EQ(0, cf_give_space(&self->e, "filler"));
	EXPECT_EQ(0, cf_blob_open(&self->e, &b, "other", 4096));
}

static long find_data(struct cf_op *op)
{
	return lseek(op->fd, 0, SEEK_DATA) < 0 ? -errno : 0;
}

/*
 * After copen they wait for the lookup: for its end, whichever it is.  A frozen XFS has some more
 * space free.
 */
TEST_F_TIMEOUT(space, seek_during_a_lookup_that_fails_is_ENOBUFS, 30)
{
	struct cf_op *op, *seek;
	struct cf_msg m;

	if (!cf_intended("asked-without-space"))
		SKIP(return, "this implementation looks for space before it asks");
	ASSERT_EQ(0, cf_take_space(&self->e, "filler", 65));
	op = cf_open_and_recv(&self->e, "other", &m);
	ASSERT_NE(NULL, op);
	ASSERT_EQ(0, cf_freeze(&self->e));
	EXPECT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, 4096));
	seek = cf_start(find_data, "", m.w.open.fd, 0, 0);
	cf_wait(seek, CF_NEVER);
	EXPECT_EQ(0, cf_thaw(&self->e));
	EXPECT_EQ(-ENOBUFS, cf_finish(seek));
	EXPECT_EQ(-ENOBUFS, cf_answer_opens(&self->e, op, 4096));
}

TEST_HARNESS_MAIN
