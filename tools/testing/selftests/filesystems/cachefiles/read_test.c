// SPDX-License-Identifier: GPL-2.0
/*
 * Reading: what is asked of the daemon, what it may write and when, and that a
 * reader gets the daemon's bytes or an error, never anything else.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define KiB	1024ULL
#define MiB	(1024 * KiB)

FIXTURE(read) {
	struct cf_env e;
	int dev;
	struct cf_daemon *d;
};

FIXTURE_SETUP(read)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(read)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

/* A daemon that answers by itself. */
#define SERVE(size) do {					\
	self->d = cf_daemon_new(self->dev, (size));		\
	ASSERT_NE(NULL, self->d);				\
	ASSERT_EQ(0, cf_daemon_start(self->d, 2));		\
} while (0)

#define DAEMON_CONTENT()	EXPECT_STREQ("", self->d->error)

static int open_file(struct cf_env *e, const char *name)
{
	return cf_finish(cf_start_open(e->mnt, name));
}

/* Forget what the page cache of ondemandfs holds. */
static void forget(int fd)
{
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* ------------------------------------------------------------- good data */

FIXTURE(data) {
	struct cf_env e;
	struct cf_daemon *d;
	int dev, fd;
};

FIXTURE_VARIANT(data) {
	uint64_t size;
};

FIXTURE_VARIANT_ADD(data, of_1_byte) { .size = 1 };
FIXTURE_VARIANT_ADD(data, of_4095_bytes) { .size = 4095 };
FIXTURE_VARIANT_ADD(data, of_4096_bytes) { .size = 4096 };
FIXTURE_VARIANT_ADD(data, of_4097_bytes) { .size = 4097 };
FIXTURE_VARIANT_ADD(data, of_65536_bytes) { .size = 65536 };
FIXTURE_VARIANT_ADD(data, of_1M_and_511) { .size = 1 * MiB + 511 };

FIXTURE_SETUP(data)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
	SERVE(variant->size);
	self->fd = open_file(&self->e, "data");
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(data)
{
	cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

TEST_F_TIMEOUT(data, is_right_read_from_end_to_end, 60)
{
	EXPECT_EQ(0, cf_read_and_check("data", self->fd, 0, variant->size + 100, variant->size));
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_at_random_places, 120)
{
	unsigned int seed = 1;
	int i;

	cf_no_readahead(self->fd);
	for (i = 0; i < 60; i++) {
		uint64_t off = rand_r(&seed) % variant->size;
		size_t len = 1 + rand_r(&seed) % (i % 2 ? 100 : 20000);
		size_t want = off + len > variant->size ? variant->size - off : len;

		ASSERT_EQ(0, cf_read_and_check("data", self->fd, off, len, want))
			TH_LOG("%zu bytes at %llu", len, (unsigned long long)off);
	}
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_up_to_the_last_byte, 60)
{
	uint64_t tail = variant->size < 100 ? variant->size : 100;

	EXPECT_EQ(0, cf_read_and_check("data", self->fd, variant->size - tail, 4096, tail));
	EXPECT_EQ(0, cf_read_and_check("data", self->fd, variant->size - 1, 1, 1));
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_through_mmap, 60)
{
	char *p = mmap(NULL, variant->size, PROT_READ, MAP_SHARED, self->fd, 0);
	char *last;

	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(-1, cf_check("data", 0, p, variant->size));
	/* what a page holds after the end of the file is zeros */
	for (last = p + variant->size; (uintptr_t)last % 4096; last++)
		ASSERT_EQ(0, *last);
	munmap(p, variant->size);
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_through_splice, 60)
{
	char buf[16384];
	loff_t off = 0;
	int p[2];

	ASSERT_EQ(0, pipe(p));
	while (off < variant->size) {
		loff_t at = off;
		ssize_t n = splice(self->fd, &off, p[1], NULL, sizeof(buf), 0), got = 0;

		ASSERT_GT(n, 0) TH_LOG("at %lld: %s", (long long)at, strerror(errno));
		while (got < n) {
			ssize_t r = read(p[0], buf + got, n - got);

			ASSERT_GT(r, 0);
			got += r;
		}
		ASSERT_EQ(-1, cf_check("data", at, buf, n));
	}
	EXPECT_EQ(variant->size, off);
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_through_sendfile, 60)
{
	char path[PATH_MAX], *buf = malloc(variant->size);
	off_t off = 0;
	int out;

	snprintf(path, sizeof(path), "%s/copy", self->e.base);
	out = open(path, O_RDWR | O_CREAT, 0600);
	ASSERT_GE(out, 0);
	while (off < variant->size)
		ASSERT_GT(sendfile(out, self->fd, &off, variant->size - off), 0)
			TH_LOG("%s", strerror(errno));
	ASSERT_EQ(variant->size, pread(out, buf, variant->size, 0));
	EXPECT_EQ(-1, cf_check("data", 0, buf, variant->size));
	free(buf);
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_through_readv, 60)
{
	size_t third = variant->size / 3 + 1;
	char *buf = calloc(3, third);
	struct iovec iov[3] = {
		{ buf, third }, { buf + third, third }, { buf + 2 * third, third },
	};

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(variant->size, preadv(self->fd, iov, 3, 0));
	EXPECT_EQ(-1, cf_check("data", 0, buf, variant->size));
	free(buf);
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_or_refused_with_O_DIRECT, 60)
{
	char path[512];
	void *buf;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/data", self->e.mnt);
	fd = open(path, O_RDONLY | O_DIRECT);
	if (fd < 0) {
		EXPECT_EQ(EINVAL, errno);
		return;
	}
	ASSERT_EQ(0, posix_memalign(&buf, 4096, 1 * MiB + 4096));
	memset(buf, 0, 1 * MiB + 4096);
	n = pread(fd, buf, 1 * MiB + 4096, 0);
	if (n < 0) {
		EXPECT_EQ(EINVAL, errno);
	} else {
		EXPECT_EQ(variant->size, n);
		EXPECT_EQ(-1, cf_check("data", 0, buf, n));
	}
	free(buf);
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, already_present_is_not_asked_for_again, 60)
{
	int reads;

	ASSERT_EQ(0, cf_read_and_check("data", self->fd, 0, variant->size, variant->size));
	reads = self->d->reads;
	EXPECT_GT(reads, 0);
	/* once from the page cache, once from the cache file */
	EXPECT_EQ(0, cf_read_and_check("data", self->fd, 0, variant->size, variant->size));
	forget(self->fd);
	EXPECT_EQ(0, cf_read_and_check("data", self->fd, 0, variant->size, variant->size));
	EXPECT_EQ(reads, self->d->reads);
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(read, empty_file_reads_as_empty_without_a_request, 30)
{
	char c;
	int fd;

	SERVE(0);
	fd = open_file(&self->e, "empty");
	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, read(fd, &c, 1));
	EXPECT_EQ(0, self->d->reads);
}

static long read_at_random(struct cf_op *op)
{
	unsigned int seed = op->off;
	char buf[9000];
	int i;

	for (i = 0; i < 40; i++) {
		uint64_t off = rand_r(&seed) % (2 * MiB);
		size_t len = 1 + rand_r(&seed) % sizeof(buf);
		ssize_t n = pread(op->fd, buf, len, off);

		if (n < 0)
			return -errno;
		if (n != (off + len > 2 * MiB ? 2 * MiB - off : len))
			return -EREMOTEIO;
		if (cf_check("random", off, buf, n) >= 0)
			return -EBADMSG;
	}
	return 0;
}

TEST_F_TIMEOUT(read, sixteen_threads_at_random_places_get_right_data, 180)
{
	struct cf_op *op[16];
	int fd, i;

	SERVE(2 * MiB);
	fd = open_file(&self->e, "random");
	ASSERT_GE(fd, 0);
	cf_no_readahead(fd);
	for (i = 0; i < 16; i++)
		op[i] = cf_start(read_at_random, NULL, fd, i, 0);
	for (i = 0; i < 16; i++)
		EXPECT_EQ(0, cf_wait(op[i], 120000));
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(read, files_do_not_mix, 60)
{
	char name[16];
	int fd[8], i, j;

	SERVE(64 * KiB);
	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		fd[i] = open_file(&self->e, name);
		ASSERT_GE(fd[i], 0);
		cf_no_readahead(fd[i]);
	}
	for (j = 0; j < 4; j++)
		for (i = 0; i < 8; i++) {
			snprintf(name, sizeof(name), "file%d", i);
			EXPECT_EQ(0, cf_read_and_check(name, fd[i], j * 16384 + 100, 8000, 8000));
		}
	DAEMON_CONTENT();
}

/* ------------------------------------------------------ the READ request */

TEST_F_TIMEOUT(read, message_layout, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	uint32_t f[4];
	uint64_t r[2];

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "layout", 1 * MiB));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 8192 + 100, 200);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	memcpy(f, m.raw, sizeof(f));
	memcpy(r, m.raw + 16, sizeof(r));
	EXPECT_EQ(32, m.size);
	EXPECT_EQ(b.msg_id + 1, f[0]);
	EXPECT_EQ(2, f[1]);
	EXPECT_EQ(32, f[2]);
	EXPECT_EQ(b.object_id, f[3]);
	EXPECT_EQ(0, r[0] % 4096);
	EXPECT_EQ(0, r[1] % 4096);
	EXPECT_LE(r[0], 8192);
	EXPECT_GE(r[0] + r[1], 8192 + 300);
	EXPECT_LE(r[0] + r[1], 1 * MiB);
	ASSERT_EQ(0, cf_fill(b.anon, "layout", r[0], r[1], b.size));
	EXPECT_EQ(0, cf_complete(b.anon, f[0]));
	EXPECT_EQ(200, cf_serve_until_done(&self->e, &b, op, NULL));
	EXPECT_EQ(-1, cf_check("layout", 8292, op->buf, 200));
}

TEST_F_TIMEOUT(read, request_for_the_tail_does_not_pass_the_last_block, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "tail", 3 * 4096 + 5));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 3 * 4096, 100);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(0, m.w.read.off % 4096);
	EXPECT_LE(m.w.read.off + m.w.read.len, 4 * 4096);
	ASSERT_EQ(0, cf_fill(b.anon, "tail", m.w.read.off, m.w.read.len, b.size));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(5, cf_serve_until_done(&self->e, &b, op, NULL));
	EXPECT_EQ(-1, cf_check("tail", 3 * 4096, op->buf, 5));
}

TEST_F_TIMEOUT(read, only_what_is_missing_is_asked_for, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "gap", 64 * KiB));
	cf_no_readahead(b.fd);
	/* all is there but [16384, 24576) */
	ASSERT_EQ(0, cf_fill(b.anon, "gap", 0, 16384, b.size));
	ASSERT_EQ(0, cf_fill(b.anon, "gap", 24576, 65536 - 24576, b.size));
	op = cf_start_pread(b.fd, 0, 64 * KiB);
	while (cf_wait(op, 20) == -ETIMEDOUT) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
		EXPECT_GE(m.w.read.off, 16384);
		EXPECT_LE(m.w.read.off + m.w.read.len, 24576);
		ASSERT_EQ(0, cf_fill(b.anon, "gap", m.w.read.off, m.w.read.len, b.size));
		ASSERT_EQ(0, cf_complete(b.anon, m.w.msg_id));
		cf_wait(op, 200);
	}
	EXPECT_EQ(64 * KiB, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("gap", 0, op->buf, 64 * KiB));
}

TEST_F_TIMEOUT(read, waits_for_as_long_as_the_daemon_takes, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "slow", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "slow", 0, 4096, 4096));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, 1500)) TH_LOG("did not wait for the answer");
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("slow", 0, op->buf, 4096));
}

/* What a fetch brought beyond what was asked for is kept. */
TEST_F_TIMEOUT(read, writes_outside_of_the_asked_range_are_kept, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "more", 1 * MiB));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 512 * KiB, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "more", 0, 1 * MiB, b.size));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("more", 512 * KiB, op->buf, 4096));
	EXPECT_EQ(0, cf_read_and_check("more", b.fd, 0, 1 * MiB, 1 * MiB));
	EXPECT_FALSE(cf_readable(self->dev, 0)) TH_LOG("asked for what was there");
}

TEST_F_TIMEOUT(read, data_written_before_any_READ_is_used, 30)
{
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "prefetch", 128 * KiB));
	ASSERT_EQ(0, cf_fill(b.anon, "prefetch", 0, 128 * KiB, b.size));
	EXPECT_EQ(0, cf_read_and_check("prefetch", b.fd, 0, 128 * KiB, 128 * KiB));
	EXPECT_FALSE(cf_readable(self->dev, 0));
}

/* There is no file to write to before the lookup is over, after copen. */
TEST_F_TIMEOUT(read, write_before_copen_is_ENOBUFS, 30)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "early");
	struct cf_blob b = { .name = "early", .size = 8192 };

	ASSERT_EQ(0, cf_blob_take_open(&self->e, &b));
	EXPECT_EQ(-ENOBUFS, cf_fill(b.anon, "early", 0, 4096, 8192));
	EXPECT_EQ(0, cf_copen(self->dev, b.msg_id, 8192));
	b.fd = cf_finish(op);
	ASSERT_GE(b.fd, 0);
	op = cf_start_pread(b.fd, 0, 8192);
	EXPECT_EQ(8192, cf_serve_until_done(&self->e, &b, op, NULL));
	EXPECT_EQ(-1, cf_check("early", 0, op->buf, 8192));
}

/* ----------------------------------------------------- daemons that lie */

#define LIMIT	64

/* Complete READs as @fill says until the reader is done; returns its result. */
static long serve_badly(struct cf_env *e, struct cf_blob *b, struct cf_op *op, size_t fill,
			int *reads)
{
	struct cf_msg m;
	long ret;

	*reads = 0;
	while ((ret = cf_wait(op, 20)) == -ETIMEDOUT && *reads < LIMIT) {
		if (cf_recv(e->dev, &m, 20))
			continue;
		++*reads;
		if (fill && cf_fill(b->anon, b->name, m.w.read.off,
				    fill < m.w.read.len ? fill : m.w.read.len, b->size))
			return -EPROTO;
		if (cf_complete(b->anon, m.w.msg_id))
			return -EPROTO;
	}
	return ret;
}

TEST_F_TIMEOUT(read, READ_completed_without_data_is_EIO, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	int reads;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "lie", 64 * KiB));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 8192, 4096);
	EXPECT_EQ(-EIO, serve_badly(&self->e, &b, op, 0, &reads));
	EXPECT_GT(reads, 0);
	EXPECT_LT(reads, LIMIT) TH_LOG("retried without end");
}

TEST_F_TIMEOUT(read, file_is_usable_again_after_an_EIO, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	int reads;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "heals", 64 * KiB));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 8192, 4096);
	ASSERT_EQ(-EIO, serve_badly(&self->e, &b, op, 0, &reads));
	op = cf_start_pread(b.fd, 8192, 4096);
	EXPECT_EQ(4096, cf_serve_until_done(&self->e, &b, op, NULL));
	EXPECT_EQ(-1, cf_check("heals", 8192, op->buf, 4096));
}

TEST_F_TIMEOUT(read, READ_completed_with_half_the_data_never_gives_zeros, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	int reads;
	long ret;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "half", 256 * KiB));
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 0, 64 * KiB);
	/* one block per READ: the rest is asked for again, or the read fails */
	ret = serve_badly(&self->e, &b, op, 4096, &reads);
	EXPECT_LT(reads, LIMIT);
	if (ret < 0) {
		EXPECT_EQ(-EIO, ret);
	} else {
		EXPECT_GT(ret, 0);
		EXPECT_EQ(-1, cf_check("half", 0, op->buf, ret));
	}
}

TEST_F_TIMEOUT(read, mmap_of_what_cannot_be_had_is_SIGBUS, 60)
{
	struct cf_daemon *d;
	int fd, status;
	pid_t pid;

	SERVE(64 * KiB);
	d = self->d;
	d->lie = true;
	fd = open_file(&self->e, "sigbus");
	ASSERT_GE(fd, 0);
	pid = cf_fork();
	if (pid == 0) {
		/* Wherever the pages begin. */
		char *p = mmap(NULL, 64 * KiB, PROT_READ, MAP_SHARED, fd, 0), c;

		if (p == MAP_FAILED)
			_exit(100);
		memcpy(&c, p + 8192, 1);
		_exit(c ? 101 : 102);
	}
	status = cf_reap(pid, 30000);
	EXPECT_EQ(128 + SIGBUS, status);
}

TEST_F_TIMEOUT(read, complete_with_an_unknown_id_is_EINVAL_and_loses_nothing, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "id", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, m.w.msg_id + 1));
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, b.msg_id));
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, -1));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	ASSERT_EQ(0, cf_fill(b.anon, "id", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("id", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(read, completing_twice_is_EINVAL, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "twice", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "twice", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
}

TEST_F_TIMEOUT(read, complete_through_another_objects_fd_is_EINVAL, 30)
{
	struct cf_blob a, b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &a, "mine", 4096));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "other", 4096));
	op = cf_start_pread(a.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(a.object_id, m.w.object_id);
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	ASSERT_EQ(0, cf_fill(a.anon, "mine", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(a.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("mine", 0, op->buf, 4096));
}

TEST_F_TIMEOUT(read, unknown_ioctl_is_EINVAL_and_loses_nothing, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "ioctl", 4096));
	op = cf_start_pread(b.fd, 0, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-1, ioctl(b.anon, 0x40049802UL, (unsigned long)m.w.msg_id));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(b.anon, 0x40089801UL, (unsigned long)m.w.msg_id));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	ASSERT_EQ(0, cf_fill(b.anon, "ioctl", 0, 4096, 4096));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
}

TEST_HARNESS_MAIN
