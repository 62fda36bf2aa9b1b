// SPDX-License-Identifier: GPL-2.0
/*
 * The end of a file, for readers of all kinds: system calls, io_uring with and without
 * registered buffers, memory, pipes; and through EROFS.
 */
#include <linux/io_uring.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define BUFFER	(64 * 1024)

/* One request at a time, its buffer registered. */
struct ring {
	int fd;
	struct io_uring_sqe *sqes;
	unsigned int *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_cqe *cqes;
	char *buf;
};

static int ring_init(struct ring *r)
{
	struct io_uring_params p = {};
	struct iovec iov;
	size_t len;
	char *map;

	r->fd = syscall(SYS_io_uring_setup, 4, &p);
	if (r->fd < 0)
		return -EOPNOTSUPP;
	len = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	if (len < p.sq_off.array + p.sq_entries * sizeof(unsigned int))
		len = p.sq_off.array + p.sq_entries * sizeof(unsigned int);
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		   IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	r->buf = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || r->sqes == MAP_FAILED || r->buf == MAP_FAILED)
		return -errno;
	r->sq_tail = (void *)(map + p.sq_off.tail);
	r->sq_mask = (void *)(map + p.sq_off.ring_mask);
	r->sq_array = (void *)(map + p.sq_off.array);
	r->cq_head = (void *)(map + p.cq_off.head);
	r->cq_tail = (void *)(map + p.cq_off.tail);
	r->cq_mask = (void *)(map + p.cq_off.ring_mask);
	r->cqes = (void *)(map + p.cq_off.cqes);
	iov = (struct iovec){ r->buf, BUFFER };
	return syscall(SYS_io_uring_register, r->fd, IORING_REGISTER_BUFFERS, &iov, 1) ?
		-errno : 0;
}

/* Read to the registered buffer: the result, and the data in r->buf. */
static long ring_read(struct ring *r, int op, int fd, uint64_t off, size_t len)
{
	unsigned int tail = *r->sq_tail, i = tail & *r->sq_mask;
	struct io_uring_sqe *sqe = &r->sqes[i];
	struct iovec iov = { r->buf, len };
	long ret;

	memset(r->buf, 0x55, BUFFER);
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = op;
	sqe->fd = fd;
	sqe->off = off;
	sqe->addr = op == IORING_OP_READV ? (uintptr_t)&iov : (uintptr_t)r->buf;
	sqe->len = op == IORING_OP_READV ? 1 : len;
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -errno;
	ret = r->cqes[*r->cq_head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
	return ret;
}

/* ---- the ways to read: what came, and how long it was, or -errno ---- */

static struct ring ring;

static long by_pread(int fd, off_t off, size_t len, char *buf)
{
	long n = pread(fd, buf, len, off);

	return n < 0 ? -errno : n;
}

static long by_preadv(int fd, off_t off, size_t len, char *buf)
{
	struct iovec iov[2] = { { buf, len / 2 }, { buf + len / 2, len - len / 2 } };
	long n = preadv(fd, iov, 2, off);

	return n < 0 ? -errno : n;
}

static long by_ring(int op, int fd, off_t off, size_t len, char *buf)
{
	long n = ring_read(&ring, op, fd, off, len);

	if (n > 0)
		memcpy(buf, ring.buf, n);
	return n;
}

static long by_uring(int fd, off_t off, size_t len, char *buf)
{
	return by_ring(IORING_OP_READ, fd, off, len, buf);
}

static long by_uring_vector(int fd, off_t off, size_t len, char *buf)
{
	return by_ring(IORING_OP_READV, fd, off, len, buf);
}

static long by_uring_fixed(int fd, off_t off, size_t len, char *buf)
{
	return by_ring(IORING_OP_READ_FIXED, fd, off, len, buf);
}

static long drain(int pipe, size_t len, char *buf)
{
	size_t done = 0;
	ssize_t n;

	while (done < len && (n = read(pipe, buf + done, len - done)) > 0)
		done += n;
	return done;
}

static long by_splice(int fd, off_t off, size_t len, char *buf)
{
	long n, done = 0;
	int p[2];

	if (pipe(p))
		return -errno;
	while (done < len && (n = splice(fd, &off, p[1], NULL, len - done, 0)) > 0)
		done += drain(p[0], n, buf + done);
	close(p[0]);
	close(p[1]);
	return done;
}

static long by_sendfile(int fd, off_t off, size_t len, char *buf)
{
	long n, done = 0;
	int p[2];

	if (pipe(p))
		return -errno;
	while (done < len && (n = sendfile(p[1], fd, &off, len - done)) > 0)
		done += drain(p[0], n, buf + done);
	close(p[0]);
	close(p[1]);
	return done;
}

FIXTURE(eof) {
	struct cf_env e;
	struct cf_daemon *d;
	int fd;
};

FIXTURE_VARIANT(eof) {
	long (*read)(int fd, off_t off, size_t len, char *buf);
};

FIXTURE_VARIANT_ADD(eof, pread) { .read = by_pread };
FIXTURE_VARIANT_ADD(eof, preadv) { .read = by_preadv };
FIXTURE_VARIANT_ADD(eof, io_uring) { .read = by_uring };
FIXTURE_VARIANT_ADD(eof, io_uring_vector) { .read = by_uring_vector };
FIXTURE_VARIANT_ADD(eof, io_uring_registered_buffer) { .read = by_uring_fixed };
FIXTURE_VARIANT_ADD(eof, splice) { .read = by_splice };
FIXTURE_VARIANT_ADD(eof, sendfile) { .read = by_sendfile };

/* sN has N bytes. */
static long long size_of(struct cf_daemon *d, const char *name)
{
	return name[0] == 's' ? atoll(name + 1) : -ENOENT;
}

/* What is behind the end must not be seen, so it is not filled up with zeros here. */
static int fill_with_rubbish(struct cf_daemon *d, const struct cf_read *r)
{
	uint64_t last = r->size / CF_BLOCK * CF_BLOCK;
	char block[CF_BLOCK] __attribute__((aligned(CF_BLOCK)));
	int err = cf_fill(r->fd, r->name, r->off, r->len, r->size);

	if (err || r->off + r->len <= r->size)
		return err;
	memset(block, 0xee, sizeof(block));
	cf_pattern(r->name, last, block, r->size - last);
	return pwrite(r->fd, block, sizeof(block), last) == sizeof(block) ? 0 : -errno;
}

FIXTURE_SETUP(eof)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->d = cf_daemon_new(self->e.dev, 0);
	ASSERT_NE(NULL, self->d);
	self->d->size_of = size_of;
	self->d->fill = fill_with_rubbish;
	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
}

FIXTURE_TEARDOWN(eof)
{
	cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

static bool uses_ring(long (*read)(int, off_t, size_t, char *))
{
	return read == by_uring || read == by_uring_vector || read == by_uring_fixed;
}

TEST_F_TIMEOUT(eof, is_where_the_file_ends, 180)
{
	static const int sizes[] = { 1, 100, 4095, 4096, 4097, 5000, 8192, 70000 };
	static const struct { int off, len; } ranges[] = {
		{ 0, 8192 }, { 4096, 4096 }, { 0, 6000 }, { 8192, 4096 }, { 5000, 100 },
		{ 4999, 2 }, { 4096, 8192 }, { 1, 16384 }, { 0, 65536 }, { 65536, 8192 },
		{ 0, 1 }, { 4095, 1 }, { 12288, 4096 },
	};
	static char buf[BUFFER];
	char name[16];
	int i, j;

	if (uses_ring(variant->read)) {
		int err = ring_init(&ring);

		if (err == -EOPNOTSUPP)
			SKIP(return, "there is no io_uring");
		ASSERT_EQ(0, err);
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "s%d", sizes[i]);
		self->fd = cf_finish(cf_start_open(self->e.mnt, name));
		ASSERT_GE(self->fd, 0);
		for (j = 0; j < ARRAY_SIZE(ranges); j++) {
			long want = sizes[i] - ranges[j].off, n;

			want = want < 0 ? 0 : want > ranges[j].len ? ranges[j].len : want;
			n = variant->read(self->fd, ranges[j].off, ranges[j].len, buf);
			EXPECT_EQ(want, n)
				TH_LOG("%d at %d of %d", ranges[j].len, ranges[j].off, sizes[i]);
			if (n > 0)
				EXPECT_EQ(-1, cf_check(name, ranges[j].off, buf, n));
		}
		close(self->fd);
	}
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

/* ----------------------------------------------------------------- memory */

FIXTURE(mapped) {
	struct cf_env e;
	struct cf_daemon *d;
};

FIXTURE_SETUP(mapped)
{
	ASSERT_SETUP(cf_env_all(&self->e));
	self->d = cf_daemon_new(self->e.dev, 0);
	ASSERT_NE(NULL, self->d);
	self->d->size_of = size_of;
	self->d->fill = fill_with_rubbish;
	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
}

FIXTURE_TEARDOWN(mapped)
{
	cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

static sigjmp_buf bus;
static char seen;

static void on_bus(int sig)
{
	siglongjmp(bus, 1);
}

static bool faults(const char *p)
{
	if (sigsetjmp(bus, 1))
		return true;
	seen = __atomic_load_n(p, __ATOMIC_RELAXED);
	return false;
}

TEST_F_TIMEOUT(mapped, ends_with_zeros_and_SIGBUS, 60)
{
	long page = sysconf(_SC_PAGESIZE);
	char *p, zeros[4096] = "";
	int fd;

	signal(SIGBUS, on_bus);
	fd = cf_finish(cf_start_open(self->e.mnt, "s5000"));
	ASSERT_GE(fd, 0);
	p = mmap(NULL, 16 * page, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(-1, cf_check("s5000", 0, p, 5000));
	EXPECT_EQ(0, memcmp(p + 5000, zeros, 8192 - 5000));
	EXPECT_TRUE(faults(p + (8192 + page - 1) / page * page));
}

TEST_F_TIMEOUT(mapped, file_cannot_be_opened_for_direct_IO, 60)
{
	char path[512];

	EXPECT_GE(cf_finish(cf_start_open(self->e.mnt, "s5000")), 0);
	snprintf(path, sizeof(path), "%s/s5000", self->e.mnt);
	EXPECT_EQ(-1, open(path, O_RDONLY | O_DIRECT | O_CLOEXEC));
	EXPECT_EQ(EINVAL, errno);
}

/* ------------------------------------------------------------------ EROFS */

#define SMALL	"erofs_small.img"	/* with blocks of 512 bytes */

FIXTURE(image) {
	struct cf_env e;
	struct cf_daemon *d;
	off_t size;
};

FIXTURE_VARIANT(image) {
	const char *options;
};

/* What EROFS asks of a file that can do it. */
FIXTURE_VARIANT_ADD(image, buffered) { .options = NULL };
FIXTURE_VARIANT_ADD(image, direct) { .options = "directio" };

FIXTURE_SETUP(image)
{
	self->size = cf_image_size(SMALL);
	if (self->size < 0)
		SKIP(return, "no " SMALL " beside the program: rebuild with mkfs.erofs");
	ASSERT_SETUP(cf_env_all(&self->e));
	self->d = cf_image_daemon(self->e.dev);
	ASSERT_NE(NULL, self->d);
	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
}

FIXTURE_TEARDOWN(image)
{
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

TEST_F_TIMEOUT(image, that_ends_within_a_page_can_be_read, 120)
{
	char path[PATH_MAX], want[32], got[4096];
	int fd, k;

	ASSERT_NE(0, self->size % CF_BLOCK) TH_LOG("the image does not show it");
	ASSERT_EQ(0, cf_mount_erofs(&self->e, SMALL, variant->options));
	for (k = 10; k < 20; k++) {
		snprintf(path, sizeof(path), "%s/s%d", self->e.erofs, k);
		snprintf(want, sizeof(want), "small file %d\n", k);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		ASSERT_GE(fd, 0);
		EXPECT_EQ(strlen(want), pread(fd, got, sizeof(got), 0));
		EXPECT_EQ(0, memcmp(want, got, strlen(want)));
		EXPECT_EQ(0, pread(fd, got, sizeof(got), strlen(want)));
		close(fd);
	}
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

/* A worker of io_uring, with a registered buffer: but it is EROFS that asks ondemandfs. */
TEST_F_TIMEOUT(image, can_be_read_with_a_registered_buffer, 120)
{
	char path[PATH_MAX];
	int fd, err;

	err = ring_init(&ring);
	if (err == -EOPNOTSUPP)
		SKIP(return, "there is no io_uring");
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, cf_mount_erofs(&self->e, SMALL, variant->options));
	snprintf(path, sizeof(path), "%s/s19", self->e.erofs);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(14, ring_read(&ring, IORING_OP_READ_FIXED, fd, 0, 8192));
	EXPECT_EQ(0, memcmp(ring.buf, "small file 19\n", 14));
	EXPECT_EQ(0, ring_read(&ring, IORING_OP_READ_FIXED, fd, 4096, 4096));
}

TEST_HARNESS_MAIN
