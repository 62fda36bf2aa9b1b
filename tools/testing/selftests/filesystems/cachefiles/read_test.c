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

/* Ask for exactly what is read. */
static void no_readahead(int fd)
{
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
}

/* Read with a time limit and compare; 0 or the first problem as -errno. */
static long read_and_check(const char *name, int fd, off_t off, size_t len, size_t want)
{
	struct cf_op *op = cf_start_pread(fd, off, len);
	long n = cf_wait(op, 20000);

	if (n >= 0)
		n = n != want ? -EREMOTEIO : cf_check(name, off, op->buf, n) >= 0 ? -EBADMSG : 0;
	cf_op_free(op);
	return n;
}

/* Answer READs until the operation is over. */
static long serve_until_done(struct cf_env *e, struct cf_blob *b, struct cf_op *op, int *reads)
{
	long end = cf_now_ms() + CF_SOON, ret;
	struct cf_msg m;

	while ((ret = cf_wait(op, 20)) == -ETIMEDOUT && cf_now_ms() < end) {
		if (cf_recv(e->dev, &m, 20))
			continue;
		if (m.w.opcode != CF_READ)
			return -EPROTO;
		if (reads)
			++*reads;
		if (cf_fill(b->anon, b->name, m.w.read.off, m.w.read.len, b->size) ||
		    cf_complete(b->anon, m.w.msg_id))
			return -EPROTO;
	}
	return ret;
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
	EXPECT_EQ(0, read_and_check("data", self->fd, 0, variant->size + 100, variant->size));
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_at_random_places, 120)
{
	unsigned int seed = 1;
	int i;

	no_readahead(self->fd);
	for (i = 0; i < 60; i++) {
		uint64_t off = rand_r(&seed) % variant->size;
		size_t len = 1 + rand_r(&seed) % (i % 2 ? 100 : 20000);
		size_t want = off + len > variant->size ? variant->size - off : len;

		ASSERT_EQ(0, read_and_check("data", self->fd, off, len, want))
			TH_LOG("%zu bytes at %llu", len, (unsigned long long)off);
	}
	DAEMON_CONTENT();
}

TEST_F_TIMEOUT(data, is_right_up_to_the_last_byte, 60)
{
	uint64_t tail = variant->size < 100 ? variant->size : 100;

	EXPECT_EQ(0, read_and_check("data", self->fd, variant->size - tail, 4096, tail));
	EXPECT_EQ(0, read_and_check("data", self->fd, variant->size - 1, 1, 1));
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

	ASSERT_EQ(0, read_and_check("data", self->fd, 0, variant->size, variant->size));
	reads = self->d->reads;
	EXPECT_GT(reads, 0);
	/* once from the page cache, once from the cache file */
	EXPECT_EQ(0, read_and_check("data", self->fd, 0, variant->size, variant->size));
	forget(self->fd);
	EXPECT_EQ(0, read_and_check("data", self->fd, 0, variant->size, variant->size));
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
	no_readahead(fd);
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
		no_readahead(fd[i]);
	}
	for (j = 0; j < 4; j++)
		for (i = 0; i < 8; i++) {
			snprintf(name, sizeof(name), "file%d", i);
			EXPECT_EQ(0, read_and_check(name, fd[i], j * 16384 + 100, 8000, 8000));
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
	no_readahead(b.fd);
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
	EXPECT_EQ(200, serve_until_done(&self->e, &b, op, NULL));
	EXPECT_EQ(-1, cf_check("layout", 8292, op->buf, 200));
}

TEST_F_TIMEOUT(read, request_for_the_tail_does_not_pass_the_last_block, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "tail", 3 * 4096 + 5));
	no_readahead(b.fd);
	op = cf_start_pread(b.fd, 3 * 4096, 100);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(0, m.w.read.off % 4096);
	EXPECT_LE(m.w.read.off + m.w.read.len, 4 * 4096);
	ASSERT_EQ(0, cf_fill(b.anon, "tail", m.w.read.off, m.w.read.len, b.size));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(5, serve_until_done(&self->e, &b, op, NULL));
	EXPECT_EQ(-1, cf_check("tail", 3 * 4096, op->buf, 5));
}

TEST_F_TIMEOUT(read, only_what_is_missing_is_asked_for, 30)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "gap", 64 * KiB));
	no_readahead(b.fd);
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
	no_readahead(b.fd);
	op = cf_start_pread(b.fd, 512 * KiB, 4096);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_fill(b.anon, "more", 0, 1 * MiB, b.size));
	EXPECT_EQ(0, cf_complete(b.anon, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("more", 512 * KiB, op->buf, 4096));
	EXPECT_EQ(0, read_and_check("more", b.fd, 0, 1 * MiB, 1 * MiB));
	EXPECT_FALSE(cf_readable(self->dev, 0)) TH_LOG("asked for what was there");
}

TEST_F_TIMEOUT(read, data_written_before_any_READ_is_used, 30)
{
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "prefetch", 128 * KiB));
	ASSERT_EQ(0, cf_fill(b.anon, "prefetch", 0, 128 * KiB, b.size));
	EXPECT_EQ(0, read_and_check("prefetch", b.fd, 0, 128 * KiB, 128 * KiB));
	EXPECT_FALSE(cf_readable(self->dev, 0));
}

/* The C code only takes data once the lookup is over, after copen. */
TEST_F_TIMEOUT(read, write_before_copen_succeeds_or_is_ENOBUFS, 30)
{
	struct cf_op *op = cf_start_open(self->e.mnt, "early");
	struct cf_blob b = { .name = "early", .size = 8192 };
	struct cf_msg m;
	long err;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &m));
	b.anon = m.w.open.fd;
	err = cf_fill(b.anon, "early", 0, 4096, 8192);
	EXPECT_TRUE(err == 0 || err == -ENOBUFS) TH_LOG("%ld", err);
	EXPECT_EQ(0, cf_copen(self->dev, m.w.msg_id, 8192));
	b.fd = cf_finish(op);
	ASSERT_GE(b.fd, 0);
	/* refused or not, the reader gets all of it */
	op = cf_start_pread(b.fd, 0, 8192);
	EXPECT_EQ(8192, serve_until_done(&self->e, &b, op, NULL));
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
	no_readahead(b.fd);
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
	no_readahead(b.fd);
	op = cf_start_pread(b.fd, 8192, 4096);
	ASSERT_EQ(-EIO, serve_badly(&self->e, &b, op, 0, &reads));
	op = cf_start_pread(b.fd, 8192, 4096);
	EXPECT_EQ(4096, serve_until_done(&self->e, &b, op, NULL));
	EXPECT_EQ(-1, cf_check("heals", 8192, op->buf, 4096));
}

TEST_F_TIMEOUT(read, READ_completed_with_half_the_data_never_gives_zeros, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	int reads;
	long ret;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "half", 256 * KiB));
	no_readahead(b.fd);
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
		char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 8192), c;

		if (p == MAP_FAILED)
			_exit(100);
		memcpy(&c, p, 1);
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

/* ----------------------------------------------------------- the anon fd */

FIXTURE(anon) {
	struct cf_env e;
	struct cf_blob b;
	char *block;		/* aligned, as direct I/O wants it */
};

FIXTURE_SETUP(anon)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", 64 * KiB + 10));
	no_readahead(self->b.fd);
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
	struct cf_blob *b = &self->b;
	int i;

	for (i = 0; i < 4; i++) {
		cf_pattern("blob", i * 4096, self->block, 4096);
		ASSERT_EQ(4096, write(b->anon, self->block, 4096));
	}
	EXPECT_EQ(4 * 4096, lseek(b->anon, 0, SEEK_CUR));
	EXPECT_EQ(0, read_and_check("blob", b->fd, 0, 4 * 4096, 4 * 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

/* In the C code lseek() moves another position than the one write() uses. */
TEST_F_TIMEOUT(anon, write_after_lseek_goes_there, 30)
{
	struct cf_blob *b = &self->b;

	ASSERT_EQ(8192, lseek(b->anon, 8192, SEEK_SET));
	cf_pattern("blob", 8192, self->block, 4096);
	ASSERT_EQ(4096, write(b->anon, self->block, 4096));
	EXPECT_EQ(12288, lseek(b->anon, 0, SEEK_CUR));
	EXPECT_EQ(0, read_and_check("blob", b->fd, 8192, 4096, 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
	EXPECT_EQ(8192, lseek(b->anon, 0, SEEK_DATA)) TH_LOG("something was written at 0");
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

	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, 68 * KiB, self->b.size));
	end = lseek(self->b.anon, 0, SEEK_HOLE);
	/* the file is kept rounded up to whole blocks */
	EXPECT_GE(end, self->b.size);
	EXPECT_LE(end, 68 * KiB);
	EXPECT_EQ(end, lseek(self->b.anon, 0, SEEK_END));
}

/* nydusd pads the last block with zeros. */
TEST_F_TIMEOUT(anon, last_block_may_be_written_whole, 30)
{
	memset(self->block, 0, 4096);
	cf_pattern("blob", 64 * KiB, self->block, 10);
	EXPECT_EQ(4096, pwrite(self->b.anon, self->block, 4096, 64 * KiB));
	EXPECT_EQ(0, read_and_check("blob", self->b.fd, 64 * KiB, 4096, 10));
}

TEST_F_TIMEOUT(anon, last_block_may_be_written_as_short_as_it_is, 30)
{
	struct cf_op *op;
	ssize_t n;

	cf_pattern("blob", 64 * KiB, self->block, 10);
	errno = 0;
	n = pwrite(self->b.anon, self->block, 10, 64 * KiB);
	EXPECT_TRUE(n == 10 || errno == EINVAL) TH_LOG("%zd, %s", n, strerror(errno));
	op = cf_start_pread(self->b.fd, 64 * KiB, 4096);
	EXPECT_EQ(10, serve_until_done(&self->e, &self->b, op, NULL));
	EXPECT_EQ(-1, cf_check("blob", 64 * KiB, op->buf, 10));
}

/* A short write in the middle leaves the rest of its block unknown. */
TEST_F_TIMEOUT(anon, short_write_in_the_middle_never_turns_into_zeros, 30)
{
	struct cf_op *op;
	ssize_t n;

	cf_pattern("blob", 4096, self->block, 100);
	errno = 0;
	n = pwrite(self->b.anon, self->block, 100, 4096);
	EXPECT_TRUE(n == 100 || errno == EINVAL) TH_LOG("%zd, %s", n, strerror(errno));
	op = cf_start_pread(self->b.fd, 4096, 4096);
	EXPECT_EQ(4096, serve_until_done(&self->e, &self->b, op, NULL));
	EXPECT_EQ(-1, cf_check("blob", 4096, op->buf, 4096));
}

TEST_F_TIMEOUT(anon, write_beyond_the_size_is_refused, 30)
{
	long expected = cf_intended("write-beyond-the-size");

	EXPECT_EQ(expected, cf_pwrite(self->b.anon, self->block, 4096, 68 * KiB));
	EXPECT_EQ(expected, cf_pwrite(self->b.anon, self->block, 4096, 1ULL << 40));
}

TEST_F_TIMEOUT(anon, write_from_a_faulting_buffer_is_EFAULT_and_no_data, 30)
{
		struct cf_op *op;

	EXPECT_EQ(-1, pwrite(self->b.anon, cf_nowhere(), 4096, 4096));
	EXPECT_EQ(EFAULT, errno);
	op = cf_start_pread(self->b.fd, 4096, 4096);
	EXPECT_EQ(4096, serve_until_done(&self->e, &self->b, op, NULL));
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
	ASSERT_EQ(0, cf_fill(fd, "blob", 0, 4096, self->b.size));
	EXPECT_EQ(0, cf_complete(fd, m.w.msg_id));
	EXPECT_EQ(4096, cf_wait(op, CF_SOON));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, 4096));
}

/* -------------------------------------------------------- what is on disk */

FIXTURE(disk) {
	struct cf_env e;
	struct cf_blob b;
};

/* One object of 200 kB with its first half present, withdrawn and committed. */
#define DISK_SIZE	200001ULL
#define DISK_HALF	98304ULL

FIXTURE_SETUP(disk)
{
	char path[PATH_MAX];
	struct cf_msg m;

	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", DISK_SIZE));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, DISK_HALF, DISK_SIZE));
	close(self->b.fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(self->b.anon);
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, path), CF_SOON))
		TH_LOG("no %s", path);
}

FIXTURE_TEARDOWN(disk)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(disk, state_xattr_is_as_the_C_code_writes_it, 60)
{
	static const uint8_t size_be[8] = {
		0, 0, 0, 0, DISK_SIZE >> 24, (DISK_SIZE >> 16) & 255, (DISK_SIZE >> 8) & 255,
		DISK_SIZE & 255,
	};
	static const uint8_t zero[8];
	char path[PATH_MAX];
	uint8_t x[64];

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	ASSERT_EQ(18, getxattr(path, "user.CacheFiles.cache", x, sizeof(x)));
	EXPECT_EQ(0, memcmp(x, size_be, 8)) TH_LOG("object_size, big endian");
	EXPECT_EQ(0, memcmp(x + 8, zero, 8)) TH_LOG("zero_point");
	EXPECT_EQ(1, x[16]) TH_LOG("type: data");
	/* anything but DIRTY (4), which the C code would throw away */
	EXPECT_LE(x[17], 3) TH_LOG("content");
}

TEST_F_TIMEOUT(disk, cache_file_is_as_long_as_the_object_in_whole_blocks, 60)
{
	char path[PATH_MAX];
	struct stat st;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ((DISK_SIZE + 4095) / 4096 * 4096, st.st_size);
}

TEST_F_TIMEOUT(disk, cache_file_holds_the_data_as_it_is, 60)
{
	char path[PATH_MAX], *buf = malloc(DISK_HALF);
	int fd;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(DISK_HALF, read(fd, buf, DISK_HALF));
	EXPECT_EQ(-1, cf_check("blob", 0, buf, DISK_HALF));
	EXPECT_EQ(DISK_HALF, lseek(fd, 0, SEEK_HOLE));
	free(buf);
}

TEST_F_TIMEOUT(disk, volume_has_its_xattr, 60)
{
	char path[PATH_MAX];
	uint8_t x[64];

	snprintf(path, sizeof(path), "%s/cache/Ierofs,%s", self->e.dir, self->e.domain);
	ASSERT_EQ(4, getxattr(path, "user.CacheFiles.cache", x, sizeof(x)))
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(0, x[0] | x[1] | x[2] | x[3]);
}

static int rebind(struct cf_env *e)
{
	cf_env_close(e);
	return cf_env_bind(e) ?: cf_env_mount(e);
}

TEST_F_TIMEOUT(disk, data_survives_unmount_and_mount, 60)
{
	struct cf_blob *b = &self->b;

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	no_readahead(b->fd);
	EXPECT_EQ(0, read_and_check("blob", b->fd, 0, DISK_HALF, DISK_HALF));
	EXPECT_FALSE(cf_readable(self->e.dev, 0)) TH_LOG("asked for what was there");
}

TEST_F_TIMEOUT(disk, data_survives_a_new_bind, 60)
{
	struct cf_blob *b = &self->b;

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	no_readahead(b->fd);
	EXPECT_EQ(0, read_and_check("blob", b->fd, 0, DISK_HALF, DISK_HALF));
	EXPECT_FALSE(cf_readable(self->e.dev, 0)) TH_LOG("asked for what was there");
}

TEST_F_TIMEOUT(disk, what_was_never_fetched_is_asked_for_after_a_new_bind, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_op *op;
	int reads = 0;

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	no_readahead(b->fd);
	op = cf_start_pread(b->fd, DISK_HALF - 4096, 8192);
	EXPECT_EQ(8192, serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", DISK_HALF - 4096, op->buf, 8192));
	EXPECT_GT(reads, 0);
}

/* A block that was written in part is data to the file system; the rest of it is zero. */
TEST_F_TIMEOUT(disk, block_written_in_part_is_asked_for_after_a_new_lookup, 60)
{
	struct cf_blob *b = &self->b;
	char part[100];
	struct cf_op *op;
	struct cf_msg m;
	int reads = 0;

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	cf_pattern("blob", DISK_HALF, part, sizeof(part));
	if (pwrite(b->anon, part, sizeof(part), DISK_HALF) != sizeof(part))
		SKIP(return, "writes of a part of a block are refused: %s", strerror(errno));
	close(b->fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	ASSERT_EQ(0, cf_expect(self->e.dev, CF_CLOSE, &m));
	close(b->anon);

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	no_readahead(b->fd);
	op = cf_start_pread(b->fd, DISK_HALF, 4096);
	EXPECT_EQ(4096, serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", DISK_HALF, op->buf, 4096));
	EXPECT_GT(reads, 0);
}

/* As after a crash, or a write-back that failed. */
TEST_F_TIMEOUT(disk, hole_that_came_about_is_asked_for_and_not_zeros, 60)
{
	struct cf_blob *b = &self->b;
	char path[PATH_MAX];
	struct cf_op *op;
	int fd, reads = 0;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	cf_env_close(&self->e);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096));
	close(fd);

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	no_readahead(b->fd);
	op = cf_start_pread(b->fd, 4096, 12288);
	EXPECT_EQ(12288, serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", 4096, op->buf, 12288));
	EXPECT_EQ(1, reads);
}

/* A file that holds data where its list has none, as one of a file system that fills in blocks. */
TEST_F_TIMEOUT(disk, data_that_nobody_wrote_is_not_believed, 60)
{
	struct cf_blob *b = &self->b;
	static char zeros[4096];
	char path[PATH_MAX];
	struct cf_op *op;
	int fd, reads = 0;

	ASSERT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, path));
	cf_env_close(&self->e);
	fd = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(4096, pwrite(fd, zeros, 4096, DISK_HALF + 4096));
	ASSERT_EQ(0, fsync(fd));
	close(fd);

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE));
	no_readahead(b->fd);
	op = cf_start_pread(b->fd, DISK_HALF + 4096, 4096);
	EXPECT_EQ(4096, serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", DISK_HALF + 4096, op->buf, 4096));
	EXPECT_EQ(1, reads);
}

TEST_F_TIMEOUT(disk, other_size_in_copen_discards_the_content, 60)
{
	struct cf_blob *b = &self->b;
	struct cf_op *op;
	struct stat st;
	int reads = 0;

	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", DISK_SIZE - 1));
	ASSERT_EQ(0, fstat(b->fd, &st));
	EXPECT_EQ(DISK_SIZE - 1, st.st_size);
	no_readahead(b->fd);
	op = cf_start_pread(b->fd, 0, 4096);
	EXPECT_EQ(4096, serve_until_done(&self->e, b, op, &reads));
	EXPECT_EQ(-1, cf_check("blob", 0, op->buf, 4096));
	EXPECT_GT(reads, 0);
}

TEST_F_TIMEOUT(disk, device_closed_while_mounted_still_commits, 60)
{
	struct cf_blob *b = &self->b;
	char path[PATH_MAX];

	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "second", 8192));
	ASSERT_EQ(0, cf_fill(b->anon, "second", 0, 4096, 8192));
	cf_env_close(&self->e);
	close(b->anon);
	close(b->fd);
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "second", NULL, path), CF_SOON));
	ASSERT_SETUP(rebind(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "second", 8192));
	no_readahead(b->fd);
	EXPECT_EQ(0, read_and_check("second", b->fd, 0, 4096, 4096));
	EXPECT_FALSE(cf_readable(self->e.dev, 0));
}

/* Worked out by hand from the C code's encoder, one of each kind. */
TEST_F_TIMEOUT(disk, names_are_encoded_as_the_C_code_does, 60)
{
	static const struct {
		const char *key, *cooked;
	} names[] = {
		{ "plain-Name_1.x~", "Dplain-Name_1.x~" },
		{ "\x01\x02\x03\x04", "S1020304" },
		{ " a", "T6120" },
		{ "a b", "E0x1yo" },
		{ " a bc", "E1w468yd60" },
	};
	char path[PATH_MAX];
	struct cf_blob b;
	int i;

	ASSERT_SETUP(cf_env_mount(&self->e));
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		ASSERT_EQ(0, cf_blob_open(&self->e, &b, names[i].key, 4096)) TH_LOG("name %d", i);
		close(b.fd);
		close(b.anon);
	}
	ASSERT_EQ(0, cf_env_umount(&self->e));
	for (i = 0; i < ARRAY_SIZE(names); i++)
		EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, names[i].key,
							   names[i].cooked, path), CF_SOON))
			TH_LOG("no %s", path);
}

TEST_HARNESS_MAIN
