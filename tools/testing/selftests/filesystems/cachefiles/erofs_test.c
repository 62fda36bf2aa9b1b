// SPDX-License-Identifier: GPL-2.0
/*
 * The stock EROFS, mounted from files of ondemandfs.
 */
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define FLAT	CF_IMAGE
#define MULTI	"erofs_multi.img"
#define BLOB	"erofs_blob.img"

/* What the Makefile puts into fK: the numbers K..K+30000, a line each. */
#define LAST	30000

FIXTURE(erofs) {
	struct cf_env e;
	struct cf_daemon *d;
	pid_t child;
};

FIXTURE_SETUP(erofs)
{
	if (cf_image_size(FLAT) < 0 || cf_image_size(MULTI) < 0)
		SKIP(return, "no " FLAT " beside the program: rebuild with mkfs.erofs");
	ASSERT_SETUP(cf_env_all(&self->e));
	self->d = cf_image_daemon(self->e.dev);
	ASSERT_NE(NULL, self->d);
}

FIXTURE_TEARDOWN(erofs)
{
	if (self->child > 0)
		kill(self->child, SIGKILL);
	if (self->d)
		cf_daemon_stop(self->d);
	cf_env_end(&self->e);
	cf_daemon_free(self->d);
}

static long mount_with_device(struct cf_env *e, const char *device)
{
	static char options[512];

	snprintf(options, sizeof(options), "device=%s/%s", e->mnt, device);
	return cf_mount_erofs(e, MULTI, options);
}

static long open_erofs(struct cf_env *e, const char *name)
{
	return cf_finish(cf_start_open(e->erofs, name));
}

/* What fK must hold; to be freed. */
static char *expected(int k, size_t *len)
{
	char *buf = malloc((LAST + 1) * 8);
	int i;

	*len = 0;
	for (i = k; buf && i <= k + LAST; i++)
		*len += sprintf(buf + *len, "%d\n", i);
	return buf;
}

/* 0, or -errno: of the read, or EBADMSG for other bytes than expected. */
static long compare(struct cf_env *e, int k)
{
	char name[16], *want;
	struct cf_op *op;
	size_t len;
	long ret;
	int fd;

	snprintf(name, sizeof(name), "f%d", k);
	want = expected(k, &len);
	fd = open_erofs(e, name);
	if (fd < 0)
		return fd;
	op = cf_start_pread(fd, 0, len + 1);
	ret = cf_wait(op, 60000);
	if (ret >= 0)
		ret = ret == len && !memcmp(op->buf, want, len) ? 0 : -EBADMSG;
	cf_op_free(op);
	free(want);
	close(fd);
	return ret;
}

static void drop_page_cache(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	sync();
	if (fd < 0 || write(fd, "1", 1) != 1)
		fprintf(stderr, "# cannot drop the page cache: %s\n", strerror(errno));
	close(fd);
}

static int compare_all(struct cf_env *e)
{
	int k, bad = 0;

	for (k = 0; k < 8; k++) {
		long err = compare(e, k);

		if (err) {
			fprintf(stderr, "# f%d: %s\n", k, strerror(-err));
			bad++;
		}
	}
	for (k = 10; k < 20; k++) {
		char name[32], want[32], got[64] = "";
		int fd;

		snprintf(name, sizeof(name), "dir/s%d", k);
		snprintf(want, sizeof(want), "small file %d\n", k);
		fd = open_erofs(e, name);
		if (fd < 0 || read(fd, got, sizeof(got) - 1) < 0 || strcmp(got, want)) {
			fprintf(stderr, "# %s: \"%s\"\n", name, got);
			bad++;
		}
		close(fd);
	}
	return bad;
}

TEST_F_TIMEOUT(erofs, image_in_one_file_is_read_right, 120)
{
	struct stat st;
	char path[256];

	ASSERT_EQ(0, cf_daemon_start(self->d, 2));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	EXPECT_EQ(0, compare_all(&self->e));
	snprintf(path, sizeof(path), "%s/empty", self->e.erofs);
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ(0, st.st_size);
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

TEST_F_TIMEOUT(erofs, image_with_a_data_device_is_read_right, 120)
{
	ASSERT_EQ(0, cf_daemon_start(self->d, 2));
	ASSERT_EQ(0, mount_with_device(&self->e, BLOB));
	EXPECT_EQ(0, compare_all(&self->e));
	EXPECT_EQ(2, self->d->opens);
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

TEST_F_TIMEOUT(erofs, only_what_is_read_is_fetched, 120)
{
	uint64_t fetched = 0;
	int i;

	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	ASSERT_EQ(0, compare(&self->e, 3));
	for (i = 0; i < self->d->nlog; i++)
		fetched += self->d->log[i].len;
	/* one file of eight, and some metadata */
	EXPECT_GE(fetched, 168 * 1024);
	EXPECT_LE(fetched, cf_image_size(FLAT) / 2);
}

TEST_F_TIMEOUT(erofs, second_mount_fetches_nothing, 120)
{
	int reads;

	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	ASSERT_EQ(0, compare_all(&self->e));
	ASSERT_EQ(0, umount(self->e.erofs));
	ASSERT_EQ(0, cf_env_umount(&self->e));
	EXPECT_TRUE(CF_WAIT_FOR(self->d->closes == 1, CF_SOON));
	reads = self->d->reads;
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	EXPECT_EQ(0, compare_all(&self->e));
	EXPECT_EQ(reads, self->d->reads);
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

TEST_F_TIMEOUT(erofs, reads_again_from_the_cache_when_memory_was_reclaimed, 120)
{
	int reads;

	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	ASSERT_EQ(0, compare_all(&self->e));
	reads = self->d->reads;
	drop_page_cache();
	EXPECT_EQ(0, compare_all(&self->e));
	EXPECT_EQ(reads, self->d->reads);
}

TEST_F_TIMEOUT(erofs, unknown_image_fails_the_mount, 60)
{
	long expected = cf_intended("opener-gets-the-errno") ? -ENOENT : -EIO;

	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	EXPECT_EQ(expected, cf_mount_erofs(&self->e, "no-such-image", NULL));
}

TEST_F_TIMEOUT(erofs, unknown_device_fails_the_mount, 60)
{
	long expected = cf_intended("opener-gets-the-errno") ? -ENOENT : -EIO;

	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	EXPECT_EQ(expected, mount_with_device(&self->e, "no-such-blob"));
}

TEST_F_TIMEOUT(erofs, missing_superblock_fails_the_mount, 60)
{
	self->d->lie = true;
	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	EXPECT_EQ(-EIO, cf_mount_erofs(&self->e, FLAT, NULL));
}

/* Blocks that are far apart, so that they are not asked for in one piece. */
static long advise_and_read(struct cf_op *op)
{
	ssize_t n;
	size_t off;

	for (off = 0; off < op->len; off += 64 * 1024)
		posix_fadvise(op->fd, off, 4096, POSIX_FADV_WILLNEED);
	n = pread(op->fd, op->buf, op->len, 0);
	return n < 0 ? -errno : n;
}

/* The daemon holds its answers: whatever arrives now is outstanding at once. */
TEST_F_TIMEOUT(erofs, READS_of_one_reader_outstanding, 120)
{
	bool several = !cf_intended("readahead-waits");
	struct cf_op *op;
	size_t len;
	char *want;
	int fd, before;

	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	fd = open_erofs(&self->e, "f5");
	ASSERT_GE(fd, 0);
	want = expected(5, &len);
	self->d->hold_reads = true;
	before = self->d->reads;
	op = cf_start(advise_and_read, NULL, fd, 0, len);
	EXPECT_EQ(several, CF_WAIT_FOR(self->d->reads - before >= 2, several ? CF_SOON : 2000))
		TH_LOG("%d READ outstanding", self->d->reads - before);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, CF_NEVER));
	cf_daemon_release_reads(self->d);
	EXPECT_EQ(len, cf_wait(op, 30000));
	EXPECT_EQ(0, memcmp(op->buf, want, len));
	EXPECT_EQ(0, self->d->bad) TH_LOG("%s", self->d->error);
}

TEST_F_TIMEOUT(erofs, reads_after_the_daemon_was_killed_are_EIO, 120)
{
	char page[4096];
	int fd, i, zeros = 0, errors = 0;
	struct cf_op *op;

	self->child = cf_fork();
	if (self->child == 0) {
		cf_daemon_loop(self->d);
		_exit(0);
	}
	cf_env_close(&self->e);
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	ASSERT_EQ(0, compare(&self->e, 0));
	fd = open_erofs(&self->e, "f6");
	ASSERT_GE(fd, 0);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	ASSERT_EQ(128 + SIGKILL, cf_reap(self->child, CF_SOON));
	memset(page, 0, sizeof(page));
	for (i = 0; i < 40; i++) {
		op = cf_start_pread(fd, i * 4096, 4096);
		if (cf_wait(op, CF_SOON) < 0)
			errors += op->ret == -EIO;
		else
			zeros += !memcmp(op->buf, page, 4096);
		cf_op_free(op);
	}
	EXPECT_EQ(0, zeros);
	EXPECT_EQ(40, errors);
}

TEST_F_TIMEOUT(erofs, reads_waiting_when_the_daemon_is_killed_are_EIO, 120)
{
	/* Each reads a page of its own. */
	long apart = sysconf(_SC_PAGESIZE) > 8192 ? sysconf(_SC_PAGESIZE) : 8192;
	struct cf_op *op[16];
	int fd, i, before, n;
	struct stat st;

	self->child = cf_fork();
	if (self->child == 0) {
		cf_daemon_loop(self->d);
		_exit(0);
	}
	cf_env_close(&self->e);
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	fd = open_erofs(&self->e, "f7");
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstat(fd, &st));
	n = st.st_size / apart < 16 ? st.st_size / apart : 16;
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	self->d->hold_reads = true;
	before = self->d->reads;
	for (i = 0; i < n; i++)
		op[i] = cf_start_pread(fd, i * apart, 4096);
	ASSERT_TRUE(CF_WAIT_FOR(self->d->reads - before >= n, CF_SOON));
	ASSERT_EQ(0, kill(self->child, SIGKILL));
	for (i = 0; i < n; i++)
		EXPECT_EQ(-EIO, cf_finish(op[i]));
}

/*
 * EROFS waits for its folios before it goes, and does so unkillably: nothing
 * below it can tell that they are not wanted any more.  What must end it is the end
 * of the daemon.
 */
TEST_F_TIMEOUT(erofs, unmount_with_READS_in_flight_ends_with_the_daemon, 120)
{
	struct cf_clock clock;
	long expected = cf_intended("readahead-waits");
	struct cf_op *op;
	int fd;

	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	fd = open_erofs(&self->e, "f1");
	ASSERT_GE(fd, 0);
	self->d->hold_reads = true;
	op = cf_start_readahead(fd, 0, 128 * 1024);
	ASSERT_EQ(expected, cf_wait(op, 2000));
	close(fd);
	op = cf_start_umount(self->e.erofs, MNT_DETACH);
	cf_wait(op, CF_NEVER);
	cf_clock_start(&clock);
	cf_daemon_stop(self->d);
	cf_env_close(&self->e);
	EXPECT_EQ(0, cf_wait(op, CF_SOON));
	EXPECT_TRUE(CF_WAIT_FOR(umount(self->e.mnt) == 0, CF_SOON)) TH_LOG("%s", strerror(errno));
	EXPECT_LT(cf_spent(&clock), 10000);
}

TEST_F_TIMEOUT(erofs, unmount_with_READS_in_flight_ends_with_umount_f, 120)
{
	struct cf_op *op;
	int fd;

	if (cf_intended("readahead-waits"))
		SKIP(return, "a READ is waited for by a task, which that does not end");
	ASSERT_EQ(0, cf_daemon_start(self->d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	fd = open_erofs(&self->e, "f1");
	ASSERT_GE(fd, 0);
	self->d->hold_reads = true;
	op = cf_start_readahead(fd, 0, 128 * 1024);
	ASSERT_EQ(0, cf_finish(op));
	close(fd);
	op = cf_start_umount(self->e.erofs, 0);
	EXPECT_EQ(-ETIMEDOUT, cf_wait(op, 500));
	/* EROFS uses it still, but that does not keep it from doing its work. */
	EXPECT_EQ(-EBUSY, cf_finish(cf_start_umount(self->e.mnt, MNT_FORCE)));
	EXPECT_EQ(0, cf_wait(op, CF_SOON));
	self->d->hold_reads = false;
	ASSERT_EQ(0, cf_mount_erofs(&self->e, FLAT, NULL));
	EXPECT_EQ(0, compare(&self->e, 2));
}

TEST_HARNESS_MAIN
