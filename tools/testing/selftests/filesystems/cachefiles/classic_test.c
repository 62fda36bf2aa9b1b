// SPDX-License-Identifier: GPL-2.0
/*
 * Classic mode: the cache of a network file system.  What a client reads is what the
 * server has, whatever happens to the cache; and what the cache has is not asked of the
 * server again.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/swap.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "testfs.h"

#define BLOCK	4096LL
#define SIZE	(75 * BLOCK)
/*
 * In seconds of wall time, which are only there to end what hangs: a volume alone is 256
 * directories, and a kernel that checks itself may share its CPUs.
 */
#define LIMIT	600

static long long file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) ? -errno : st.st_size;
}

/* Another client changes the size. */
static int truncate_origin(struct tf *t, const char *name, long long size)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", t->origin, name);
	return truncate(path, size) ? -errno : 0;
}

/* ---- one trace event, recorded in a buffer of its own ---- */

#define TRACEFS	"/sys/kernel/tracing"

struct recorder {
	char dir[128];
	char line[1024];
};

static int put(const char *dir, const char *file)
{
	char path[PATH_MAX];
	int fd, err;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY);
	err = fd < 0 || write(fd, "1", 1) < 0 ? -errno : 0;
	close(fd);
	return err;
}

/* Fails if there is no such event; r->dir is "" if there is nothing to trace with. */
static int recorder_start(struct recorder *r, const char *event)
{
	char file[128];

	if (access(TRACEFS "/events", F_OK))
		mount("tracefs", TRACEFS, "tracefs", 0, NULL);
	snprintf(r->dir, sizeof(r->dir), TRACEFS "/instances/classic.%d", getpid());
	snprintf(file, sizeof(file), "events/%s/enable", event);
	if (mkdir(r->dir, 0700)) {
		r->dir[0] = 0;
		return 0;
	}
	return put(r->dir, file);
}

static void recorder_end(struct recorder *r)
{
	rmdir(r->dir);
}

/* What the first line with @event has from @field on; NULL if there is none. */
static char *recorded(struct recorder *r, const char *event, const char *field)
{
	char path[PATH_MAX], *found = NULL;
	FILE *f;

	snprintf(path, sizeof(path), "%s/trace", r->dir);
	f = fopen(path, "re");
	while (f && !found && fgets(r->line, sizeof(r->line), f))
		if (*r->line != '#' && strstr(r->line, event))
			found = strstr(r->line, field);
	if (f)
		fclose(f);
	return found;
}

/* ---- each way that a network file system has to use a cache ---- */

FIXTURE(style) {
	struct tf t;
};

FIXTURE_VARIANT(style) {
	const char *options;
};

FIXTURE_VARIANT_ADD(style, smb) { .options = ",style=smb" };
FIXTURE_VARIANT_ADD(style, nfs) { .options = ",style=nfs" };
FIXTURE_VARIANT_ADD(style, ceph) { .options = ",style=ceph" };
FIXTURE_VARIANT_ADD(style, afs) { .options = ",style=afs" };

FIXTURE_SETUP(style)
{
	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_all(&self->t, variant->options));
}

FIXTURE_TEARDOWN(style)
{
	tf_end(&self->t);
}

/* What was read once is read from the cache the next time, all of it. */
TEST_F_TIMEOUT(style, fill_then_warm, LIMIT)
{
	struct tf *t = &self->t;
	long long reads;
	long hits;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(SIZE, tf_count(t, "read-bytes"));
	ASSERT_EQ(0, tf_remount(t));

	reads = tf_count(t, "read");
	hits = cf_stats("CaRdOps", "RD=");
	ASSERT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(reads, tf_count(t, "read"));
	EXPECT_GT(cf_stats("CaRdOps", "RD="), hits);
}

/* ---- files that are cached in part ---- */

FIXTURE(partial) {
	struct tf t;
};

FIXTURE_VARIANT(partial) {
	const char *options;
};

FIXTURE_VARIANT_ADD(partial, smb) { .options = ",style=smb" };
FIXTURE_VARIANT_ADD(partial, nfs) { .options = ",style=nfs" };

FIXTURE_SETUP(partial)
{
	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_all(&self->t, variant->options));
}

FIXTURE_TEARDOWN(partial)
{
	tf_end(&self->t);
}

/* A part is in the cache; the rest is fetched, and only that. */
TEST_F_TIMEOUT(partial, fetches_what_is_absent, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	ASSERT_EQ(0, tf_read(fd, "a", 1, 0, 3 * BLOCK));
	ASSERT_EQ(0, tf_read(fd, "a", 1, 10 * BLOCK, BLOCK));
	ASSERT_EQ(0, tf_read(fd, "a", 1, 74 * BLOCK, BLOCK));
	ASSERT_EQ(5 * BLOCK, tf_count(t, "read-bytes"));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));

	ASSERT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(SIZE, tf_count(t, "read-bytes"));
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(SIZE, tf_count(t, "read-bytes"));
}

/* The same in the page cache's units, without readahead: each read is for one source. */
TEST_F_TIMEOUT(partial, is_told_block_by_block, LIMIT)
{
	struct tf *t = &self->t;
	int fd, i;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	for (i = 0; i < 20; i += 2)
		ASSERT_EQ(0, tf_read(fd, "a", 1, i * BLOCK, BLOCK));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));

	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	for (i = 0; i < 20; i++) {
		long long reads = tf_count(t, "read");

		ASSERT_EQ(0, tf_read(fd, "a", 1, i * BLOCK, BLOCK));
		EXPECT_EQ(reads + i % 2, tf_count(t, "read")) {
			TH_LOG("block %d", i);
		}
	}
	close(fd);
}

/* The last block has a tail that is not of the file. */
TEST_F_TIMEOUT(partial, odd_sizes, LIMIT)
{
	static const long long sizes[] = {
		1, 511, 4095, 4096, 4097, 8191, 65536 + 1, 100 * 4096 - 1, 1000003,
	};
	struct tf *t = &self->t;
	long long bytes = 0;
	char name[16];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "a%zu", i);
		ASSERT_EQ(0, tf_file(t, name, sizes[i], 1));
		ASSERT_EQ(0, tf_same(t, name));
		bytes += sizes[i];
	}
	EXPECT_EQ(bytes, tf_count(t, "read-bytes"));
	ASSERT_EQ(0, tf_remount(t));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		snprintf(name, sizeof(name), "a%zu", i);
		ASSERT_EQ(0, tf_same(t, name)) {
			TH_LOG("%lld bytes", sizes[i]);
		}
		EXPECT_EQ(bytes, tf_count(t, "read-bytes")) {
			TH_LOG("%lld bytes", sizes[i]);
		}
	}
}

/* An empty file needs nothing, and gets what is written to it. */
TEST_F_TIMEOUT(partial, empty_file, LIMIT)
{
	struct tf *t = &self->t;

	ASSERT_EQ(0, tf_file(t, "a", 0, 1));
	ASSERT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_file(t, "a", 3 * BLOCK, 2));
	ASSERT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(3 * BLOCK, tf_count(t, "read-bytes"));
}

/* ---- sizes that change ---- */

FIXTURE(resize) {
	struct tf t;
};

FIXTURE_VARIANT(resize) {
	const char *options;
};

FIXTURE_VARIANT_ADD(resize, smb) { .options = ",style=smb" };
FIXTURE_VARIANT_ADD(resize, ceph) { .options = ",style=ceph" };

FIXTURE_SETUP(resize)
{
	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_all(&self->t, variant->options));
	ASSERT_EQ(0, tf_file(&self->t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(&self->t, "a"));
}

FIXTURE_TEARDOWN(resize)
{
	tf_end(&self->t);
}

TEST_F_TIMEOUT(resize, shrink, LIMIT)
{
	struct tf *t = &self->t;
	long resizes = cf_stats("Updates", " rsz=");
	long long size = 7 * BLOCK + 123;
	char path[PATH_MAX];
	int fd;

	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, size));
	EXPECT_EQ(resizes + 1, cf_stats("Updates", " rsz="));
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(size, tf_stat(t, "a"));
	EXPECT_EQ(0, tf_same(t, "a"));
	/* The rest was cached before. */
	EXPECT_EQ(SIZE, tf_count(t, "read-bytes"));

	/* And the file of the cache has given back its blocks. */
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, tf_cache_file_soon(t, "a", path));
	EXPECT_EQ(8 * BLOCK, file_size(path));
}

TEST_F_TIMEOUT(resize, shrink_then_grow, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 7 * BLOCK + 123));
	ASSERT_EQ(0, ftruncate(fd, 20 * BLOCK + 1));
	/* What was cut off is zeros now, and the old data must not come back. */
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

TEST_F_TIMEOUT(resize, grow, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, SIZE + 5 * BLOCK + 77));
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	ASSERT_EQ(0, tf_write(fd, "a", 2, SIZE + 2 * BLOCK, BLOCK));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

TEST_F_TIMEOUT(resize, to_nothing_and_again, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	fd = tf_open(t, "a", O_RDWR | O_TRUNC);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	ASSERT_EQ(0, tf_write(fd, "a", 2, 0, 3 * BLOCK + 5));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* The server has cut the file while this client had it cached. */
TEST_F_TIMEOUT(resize, by_the_server, LIMIT)
{
	struct tf *t = &self->t;

	ASSERT_EQ(0, truncate_origin(t, "a", 5 * BLOCK + 9));
	ASSERT_EQ(5 * BLOCK + 9, tf_stat(t, "a"));
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, truncate_origin(t, "a", 9 * BLOCK + 1));
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* ---- files that are changed by others ---- */

/* While nobody has it: the cache has to notice when it looks the file up. */
TEST_F_TIMEOUT(style, changed_while_unmounted, LIMIT)
{
	struct tf *t = &self->t;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 2));
	ASSERT_EQ(0, tf_mount(t, variant->options));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(2 * SIZE, tf_count(t, "read-bytes"));

	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(2 * SIZE, tf_count(t, "read-bytes"));
}

/* Of the same version, but of another size. */
TEST_F_TIMEOUT(style, another_size_is_another_file, LIMIT)
{
	struct tf *t = &self->t;
	char options[64];

	/* Nothing but the size tells. */
	snprintf(options, sizeof(options), "%s,aux=0", variant->options);
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, tf_mount(t, options));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, tf_file(t, "a", SIZE + 1, 2));
	ASSERT_EQ(0, tf_mount(t, options));
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* The file that the cache had is gone at once, not when another takes its place. */
TEST_F_TIMEOUT(style, invalid_file_is_gone, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_cache_file_soon(t, "a", path));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_read(fd, "a", 1, 0, BLOCK));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 2));
	EXPECT_EQ(SIZE, tf_stat(t, "a"));
	EXPECT_TRUE(CF_WAIT_FOR(tf_cache_file(t, "a", path) == -ENOENT, CF_SOON));
	close(fd);
}

/* While it is open. */
TEST_F_TIMEOUT(style, changed_while_open, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_read(fd, "a", 1, 0, SIZE));

	ASSERT_EQ(0, tf_file(t, "a", SIZE + BLOCK, 2));
	/* The client asks. */
	ASSERT_EQ(SIZE + BLOCK, tf_stat(t, "a"));
	EXPECT_EQ(0, tf_read(fd, "a", 2, 0, SIZE + BLOCK));
	close(fd);

	/* The new data is cached, the old is not there any more. */
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(2 * SIZE + BLOCK, tf_count(t, "read-bytes"));
}

/* Again and again, before anything of it is on its place. */
TEST_F_TIMEOUT(style, changed_often, LIMIT)
{
	struct tf *t = &self->t;
	int fd, i;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 0));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	for (i = 1; i < 12; i++) {
		ASSERT_EQ(0, tf_file(t, "a", SIZE, i));
		ASSERT_EQ(SIZE, tf_stat(t, "a"));
		ASSERT_EQ(0, tf_read(fd, "a", i, i * BLOCK, 30 * BLOCK));
	}
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* The server answers an old read when the client knows of the new version. */
TEST_F_TIMEOUT(style, changed_during_a_download, LIMIT)
{
	struct tf *t = &self->t;
	struct cf_op *op;
	int fd;

	if (strstr(variant->options, "afs"))
		SKIP(return, "a reader of a single object has the inode locked");
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	ASSERT_EQ(0, tf_cmd(t, "hold read"));
	op = cf_start_pread(fd, 0, BLOCK);
	ASSERT_TRUE(tf_waits_for(t, 1));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 2));
	ASSERT_EQ(0, tf_cmd(t, "release read"));
	ASSERT_EQ(BLOCK, cf_finish(op));

	ASSERT_EQ(SIZE, tf_stat(t, "a"));
	EXPECT_EQ(0, tf_read(fd, "a", 2, 0, SIZE));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* ---- files that are written here ---- */

FIXTURE(write) {
	struct tf t;
};

FIXTURE_VARIANT(write) {
	const char *options;
	bool caches;		/* what is written */
};

FIXTURE_VARIANT_ADD(write, smb) { .options = ",style=smb", .caches = true };
FIXTURE_VARIANT_ADD(write, nfs) { .options = ",style=nfs" };
FIXTURE_VARIANT_ADD(write, ceph) { .options = ",style=ceph", .caches = true };

FIXTURE_SETUP(write)
{
	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_all(&self->t, variant->options));
}

FIXTURE_TEARDOWN(write)
{
	tf_end(&self->t);
}

TEST_F_TIMEOUT(write, new_file, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", 0, 1));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_write(fd, "a", 1, 0, SIZE + 1));
	ASSERT_EQ(0, tf_read(fd, "a", 1, 0, SIZE + 1));
	close(fd);
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	if (variant->caches)
		EXPECT_EQ(0, tf_count(t, "read-bytes"));
}

TEST_F_TIMEOUT(write, overwrite_what_is_cached, LIMIT)
{
	struct tf *t = &self->t;
	long long bytes;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_write(fd, "a", 2, 3 * BLOCK, 2 * BLOCK));
	/* From the middle of a block to the middle of another. */
	ASSERT_EQ(0, tf_write(fd, "a", 3, 20 * BLOCK + 1000, BLOCK));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_sync(t));
	bytes = tf_count(t, "read-bytes");
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	if (variant->caches)
		EXPECT_EQ(bytes, tf_count(t, "read-bytes"));
}

/* The rest of the block that is written is not in the cache, so it is fetched. */
TEST_F_TIMEOUT(write, overwrite_what_is_not_cached, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	ASSERT_EQ(0, tf_write(fd, "a", 2, 7 * BLOCK + 10, 100));
	ASSERT_EQ(0, tf_write(fd, "a", 2, SIZE - 5, 5));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

TEST_F_TIMEOUT(write, append_to_an_odd_size, LIMIT)
{
	struct tf *t = &self->t;
	long long size = 2 * BLOCK + 700;
	int fd, i;

	ASSERT_EQ(0, tf_file(t, "a", size, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, tf_remount(t));
		fd = tf_open(t, "a", O_RDWR);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, tf_write(fd, "a", 2, size, 1001));
		size += 1001;
		tf_forget(fd);
		EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
		close(fd);
	}
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(size, tf_stat(t, "a"));
}

/* Behind the end, with a hole in between. */
TEST_F_TIMEOUT(write, behind_the_end, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", BLOCK + 5, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_write(fd, "a", 2, 9 * BLOCK + 9, 2 * BLOCK));
	/* Before the server has it. */
	EXPECT_EQ(0, tf_read(fd, "a", 1, 0, BLOCK + 5));
	EXPECT_EQ(0, tf_read(fd, "a", 2, 9 * BLOCK + 9, 2 * BLOCK));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

TEST_F_TIMEOUT(write, by_write_through, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	if (strstr(variant->options, "ceph"))
		SKIP(return, "ceph has no write-through of the netfs library");
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	fd = tf_open(t, "a", O_RDWR | O_SYNC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_write(fd, "a", 2, 5 * BLOCK + 1, 3 * BLOCK));
	ASSERT_EQ(0, tf_write(fd, "a", 2, SIZE, 100));
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

TEST_F_TIMEOUT(write, by_mmap, LIMIT)
{
	struct tf *t = &self->t;
	char *map;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE - 100, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	memset(map + 3 * BLOCK + 5, 7, BLOCK);
	memset(map + SIZE - 200, 8, 100);
	ASSERT_EQ(0, msync(map, SIZE, MS_SYNC));
	ASSERT_EQ(0, munmap(map, SIZE));
	tf_forget(fd);
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

TEST_F_TIMEOUT(write, direct, LIMIT)
{
	struct tf *t = &self->t;
	long long bytes;
	int fd, buffered;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	fd = tf_open(t, "a", O_RDWR | O_DIRECT);
	ASSERT_GE(fd, 0);
	buffered = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(buffered, 0);

	/* It asks the server, whatever is cached. */
	bytes = tf_count(t, "read-bytes");
	EXPECT_EQ(0, tf_read(fd, "a", 1, BLOCK, 2 * BLOCK));
	EXPECT_EQ(bytes + 2 * BLOCK, tf_count(t, "read-bytes"));

	/* And what it has written to the server is what all see. */
	ASSERT_EQ(0, tf_write(fd, "a", 2, 4 * BLOCK, 2 * BLOCK));
	EXPECT_EQ(0, tf_read(buffered, "a", 2, 4 * BLOCK, 2 * BLOCK));
	EXPECT_EQ(0, tf_same_range(t, "a", buffered, 0, 0));
	/* At the end of the file, and behind it. */
	ASSERT_EQ(0, tf_write(fd, "a", 2, SIZE, BLOCK));
	EXPECT_EQ(0, tf_same_range(t, "a", buffered, 0, 0));
	close(buffered);
	close(fd);
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

TEST_F_TIMEOUT(write, punch_a_hole, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * BLOCK + 1,
			       4 * BLOCK));
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* The server refuses: the reader or writer hears of it, and the cache has no part in it. */
TEST_F_TIMEOUT(write, errors_of_the_server, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	ASSERT_EQ(0, tf_cmd(t, "fail read 5"));
	EXPECT_EQ(-EIO, tf_read(fd, "a", 1, 2 * BLOCK, BLOCK));
	ASSERT_EQ(0, tf_cmd(t, "fail read 0"));
	EXPECT_EQ(0, tf_read(fd, "a", 1, 2 * BLOCK, BLOCK));

	ASSERT_EQ(0, tf_cmd(t, "fail write 5"));
	ASSERT_EQ(0, tf_write(fd, "a", 2, 2 * BLOCK, BLOCK));
	EXPECT_EQ(-1, fsync(fd));
	EXPECT_EQ(EIO, errno);
	ASSERT_EQ(0, tf_cmd(t, "fail write 0"));
	close(fd);
}

/* A file that is unlinked takes its cookie with it, and the file of the cache goes. */
TEST_F_TIMEOUT(write, unlink_retires, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX], client[512];

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_file(t, "b", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_cache_file_soon(t, "a", path));
	snprintf(client, sizeof(client), "%s/a", t->e.mnt);
	ASSERT_EQ(0, unlink(client));
	EXPECT_TRUE(CF_WAIT_FOR(access(path, F_OK) && errno == ENOENT, CF_SOON));
	EXPECT_EQ(0, tf_same(t, "b"));
}

/* ---- the cache and its daemon ---- */

static long do_fsync(struct cf_op *op)
{
	return fsync(op->fd) ? -errno : 0;
}

/* Three limits of blocks that a test can get below, and above again. */
#define LIMITS	"brun 40%\nbcull 30%\nbstop 10%"

FIXTURE(cache) {
	struct tf t;
	char swap[PATH_MAX];	/* what is to be swapped off at the end */
};

FIXTURE_SETUP(cache)
{
	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_init(&self->t));
}

FIXTURE_TEARDOWN(cache)
{
	if (self->swap[0])
		swapoff(self->swap);
	tf_end(&self->t);
}

TEST_F_TIMEOUT(cache, bind, LIMIT)
{
	struct tf *t = &self->t;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	EXPECT_EQ(-EBUSY, cf_cmd(t->e.dev, "bind"));
	cf_env_close(&t->e);
	/* The next daemon comes at once. */
	ASSERT_SETUP_T(tf_bind(t, NULL));
}

/* A limit of so many percent, rounded as the kernel does. */
static unsigned long long percent_of(unsigned long long n, int percent)
{
	return n / 100 * percent;
}

TEST_F_TIMEOUT(cache, state_line, LIMIT)
{
	struct tf *t = &self->t;
	struct tf_state s;
	struct statfs st;
	char buf[8];

	t->e.dev = cf_device_open();
	ASSERT_GE(t->e.dev, 0);
	EXPECT_EQ(0, read(t->e.dev, buf, sizeof(buf)));
	cf_env_close(&t->e);

	ASSERT_SETUP_T(tf_bind(t, "frun 12%\nfcull 8%\nfstop 4%\n" LIMITS));
	ASSERT_EQ(0, statfs(t->e.dir, &st));
	ASSERT_EQ(0, tf_state(t, &s));
	EXPECT_EQ(0, s.cull);
	EXPECT_EQ(percent_of(st.f_files, 12), s.frun);
	EXPECT_EQ(percent_of(st.f_files, 8), s.fcull);
	EXPECT_EQ(percent_of(st.f_files, 4), s.fstop);
	EXPECT_EQ(percent_of(st.f_blocks, 40), s.brun);
	EXPECT_EQ(percent_of(st.f_blocks, 30), s.bcull);
	EXPECT_EQ(percent_of(st.f_blocks, 10), s.bstop);
	EXPECT_EQ(0, s.freleased);
	EXPECT_EQ(0, s.breleased);

	EXPECT_EQ(-1, read(t->e.dev, buf, sizeof(buf)));
	EXPECT_EQ(EMSGSIZE, errno);
	EXPECT_EQ(-1, read(t->e.dev, cf_nowhere(), 4096));
	EXPECT_EQ(EFAULT, errno);
}

/* The daemon hears of files that it could cull now, once. */
TEST_F_TIMEOUT(cache, released_files_are_counted, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX], small[8];
	struct tf_state s;
	struct stat st;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	EXPECT_FALSE(cf_readable(t->e.dev, 0));
	ASSERT_EQ(0, tf_umount(t));
	EXPECT_TRUE(cf_readable(t->e.dev, CF_SOON));
	ASSERT_EQ(0, tf_cache_file(t, "a", path));
	ASSERT_EQ(0, stat(path, &st));
	ASSERT_EQ(0, tf_state(t, &s));
	EXPECT_EQ(1, s.freleased);
	EXPECT_EQ(st.st_blocks, s.breleased);

	EXPECT_FALSE(cf_readable(t->e.dev, 0));
	ASSERT_EQ(0, tf_state(t, &s));
	EXPECT_EQ(0, s.freleased);
	EXPECT_EQ(0, s.breleased);

	/* A read that fails takes nothing. */
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_umount(t));
	EXPECT_TRUE(cf_readable(t->e.dev, CF_SOON));
	EXPECT_EQ(-1, read(t->e.dev, small, sizeof(small)));
	ASSERT_EQ(0, tf_state(t, &s));
	EXPECT_EQ(cf_intended("classic-failed-read-takes-counts"), !s.freleased);
}

TEST_F_TIMEOUT(cache, inuse_and_cull, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];
	long long bytes;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_same(t, "a"));
	bytes = tf_count(t, "read-bytes");
	ASSERT_EQ(0, tf_cache_file_soon(t, "a", path));
	*strrchr(path, '/') = 0;
	ASSERT_EQ(0, chdir(path));
	EXPECT_EQ(-EBUSY, cf_cmd(t->e.dev, "inuse Da"));
	EXPECT_EQ(-EBUSY, cf_cmd(t->e.dev, "cull Da"));
	ASSERT_EQ(0, tf_umount(t));
	EXPECT_TRUE(CF_WAIT_FOR(!cf_cmd(t->e.dev, "inuse Da"), CF_SOON));
	EXPECT_EQ(0, cf_cmd(t->e.dev, "cull Da"));
	EXPECT_EQ(-1, access("Da", F_OK));

	ASSERT_SETUP_T(tf_mount(t, ""));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(bytes + SIZE, tf_count(t, "read-bytes"));
}

/* Below bcull the daemon is asked to cull; a client can cache on. */
TEST_F_TIMEOUT(cache, culling, LIMIT)
{
	struct tf *t = &self->t;
	struct pollfd p = { .events = POLLIN | POLLOUT };
	struct tf_state s;

	ASSERT_SETUP_T(tf_bind(t, LIMITS));
	ASSERT_SETUP_T(tf_mount(t, ""));
	p.fd = t->e.dev;
	EXPECT_EQ(0, poll(&p, 1, 0));

	ASSERT_EQ(0, cf_take_space(&t->e, "ballast", 80));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	EXPECT_EQ(1, cf_poll(&p, CF_SOON));
	EXPECT_EQ(POLLIN | POLLOUT, p.revents);
	ASSERT_EQ(0, tf_state(t, &s));
	EXPECT_EQ(1, s.cull);
	EXPECT_EQ(1, poll(&p, 1, 0));
	EXPECT_EQ(POLLOUT, p.revents);
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(SIZE, tf_count(t, "read-bytes"));

	ASSERT_EQ(0, cf_give_space(&t->e, "ballast"));
	cf_sleep_ms(150);
	ASSERT_EQ(0, tf_state(t, &s));
	EXPECT_EQ(0, s.cull);
}

/* Below bstop nothing is cached any more, and no reader or writer hears of it. */
TEST_F_TIMEOUT(cache, full, LIMIT)
{
	struct tf *t = &self->t;
	long no_create, no_write;
	struct tf_state s;
	int fd;

	ASSERT_SETUP_T(tf_bind(t, LIMITS));
	ASSERT_SETUP_T(tf_mount(t, ""));
	/* One that is there before, but for its data. */
	ASSERT_EQ(0, tf_file(t, "old", SIZE, 1));
	fd = tf_open(t, "old", O_RDWR);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	ASSERT_EQ(0, tf_read(fd, "old", 1, 0, BLOCK));
	ASSERT_EQ(0, tf_sync(t));

	ASSERT_EQ(0, cf_take_space(&t->e, "ballast", 95));
	no_create = cf_stats("NoSpace", "ncr=");
	no_write = cf_stats("NoSpace", "nwr=");
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_GT(cf_stats("NoSpace", "ncr="), no_create);
	EXPECT_EQ(0, tf_read(fd, "old", 1, 2 * BLOCK, 5 * BLOCK));
	ASSERT_EQ(0, tf_write(fd, "old", 2, 10 * BLOCK + 7, 5 * BLOCK));
	EXPECT_EQ(0, fsync(fd));
	EXPECT_GT(cf_stats("NoSpace", "nwr="), no_write);
	EXPECT_EQ(0, tf_same(t, "old"));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "old"));
	EXPECT_EQ(0, tf_same(t, "a"));
	ASSERT_EQ(0, tf_state(t, &s));
	EXPECT_EQ(1, s.cull);

	/* And when there is room again, it caches again. */
	ASSERT_EQ(0, cf_give_space(&t->e, "ballast"));
	cf_sleep_ms(150);
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	no_write = tf_count(t, "read-bytes");
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(no_write, tf_count(t, "read-bytes"));
}

/* Have "a" cached, the client mounted again, and the path of its file in the cache. */
static int fill_and_remount(struct tf *t, const char *options, long long size, char path[PATH_MAX])
{
	long err = tf_mount(t, options);

	err = err ?: tf_file(t, "a", size, 1);
	err = err ?: tf_fill(t, "a");
	err = err ?: tf_remount(t);
	return err ?: tf_cache_file_soon(t, "a", path);
}

/* What the cache has is not what was written when there was no space to store that. */
TEST_F_TIMEOUT(cache, overwrite_on_a_full_disk, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];
	int fd;

	ASSERT_SETUP_T(tf_bind(t, LIMITS));
	ASSERT_SETUP_T(fill_and_remount(t, ",style=ceph", SIZE, path));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_read(fd, "a", 1, 0, BLOCK));
	ASSERT_EQ(0, cf_take_space(&t->e, "ballast", 95));
	ASSERT_EQ(0, tf_write(fd, "a", 2, 3 * BLOCK, BLOCK));
	ASSERT_EQ(0, fsync(fd));
	tf_forget(fd);
	EXPECT_EQ(0, tf_read(fd, "a", 2, 3 * BLOCK, BLOCK));
	close(fd);
	ASSERT_EQ(0, cf_give_space(&t->e, "ballast"));
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* Keys of all lengths and kinds, and auxiliary data of all lengths. */
TEST_F_TIMEOUT(cache, keys_and_aux, LIMIT)
{
	static const struct {
		int volume, key, aux;
		const char *name;
	} cases[] = {
		{ 1, 0, 0, "a" }, { 20, 15, 1, "a" }, { 20, 16, 7, "a" }, { 20, 17, 8, "a" },
		{ 20, 252, 9, "a" }, { 254, 190, 40, "a" }, { 20, 0, 255, "a" },
		{ 20, 0, 8, "\x01\x02\xff" }, { 20, 189, 8, "\x01\x02\xff" },
		{ 20, 4, 8, "\x01" },
	};
	struct tf *t = &self->t;
	char options[64];
	size_t i;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		long long bytes;

		memset(t->key, 'k', cases[i].volume);
		t->key[cases[i].volume] = 0;
		snprintf(options, sizeof(options), ",keylen=%d,aux=%d", cases[i].key, cases[i].aux);
		ASSERT_SETUP_T(tf_mount(t, options));
		ASSERT_EQ(0, tf_file(t, cases[i].name, SIZE, i));
		ASSERT_EQ(0, tf_fill(t, cases[i].name));
		bytes = tf_count(t, "read-bytes");
		ASSERT_EQ(0, tf_remount(t));
		EXPECT_EQ(0, tf_same(t, cases[i].name));
		EXPECT_EQ(bytes, tf_count(t, "read-bytes")) {
			TH_LOG("case %zu", i);
		}
		/* All of the auxiliary data counts. */
		ASSERT_EQ(0, tf_umount(t));
		ASSERT_EQ(0, tf_file(t, cases[i].name, SIZE, i + 100));
		ASSERT_SETUP_T(tf_mount(t, options));
		if (cases[i].aux)
			EXPECT_EQ(0, tf_same(t, cases[i].name)) {
				TH_LOG("case %zu", i);
			}
		ASSERT_EQ(0, tf_umount(t));
	}
}

/* Their names in base64 would be too long for a file system. */
TEST_F_TIMEOUT(cache, long_binary_keys, LIMIT)
{
	static const int lengths[] = { 190, 252 };
	struct tf *t = &self->t;
	char options[64];
	size_t i;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		long long bytes;

		snprintf(options, sizeof(options), ",keylen=%d", lengths[i]);
		ASSERT_SETUP_T(tf_mount(t, options));
		ASSERT_EQ(0, tf_file(t, "\xff", SIZE, i));
		ASSERT_EQ(0, tf_fill(t, "\xff"));
		bytes = tf_count(t, "read-bytes");
		ASSERT_EQ(0, tf_remount(t));
		EXPECT_EQ(0, tf_same(t, "\xff"));
		EXPECT_EQ(cf_intended("classic-long-binary-key"),
			  tf_count(t, "read-bytes") == bytes) {
			TH_LOG("%d bytes", lengths[i]);
		}
		ASSERT_EQ(0, tf_umount(t));
	}
}

/* ---- the daemon goes ---- */

FIXTURE(closed) {
	struct tf t;
	struct recorder r;
	int fd;
};

FIXTURE_VARIANT(closed) {
	const char *options;
};

FIXTURE_VARIANT_ADD(closed, smb) { .options = ",style=smb" };
FIXTURE_VARIANT_ADD(closed, nfs) { .options = ",style=nfs" };
FIXTURE_VARIANT_ADD(closed, ceph) { .options = ",style=ceph" };

FIXTURE_SETUP(closed)
{
	struct tf *t = &self->t;

	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_all(t, variant->options));
	/* U48: this event has to be told of subrequests that are there. */
	recorder_start(&self->r, "netfs/netfs_sreq");
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	self->fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(self->fd, 0);
	tf_no_readahead(self->fd);
	ASSERT_EQ(0, tf_read(self->fd, "a", 1, 0, 10 * BLOCK));
}

FIXTURE_TEARDOWN(closed)
{
	struct tf *t = &self->t;

	/* Whatever it was: the client goes on without a cache, and with the next one. */
	EXPECT_EQ(0, tf_same_range(t, "a", self->fd, 0, 0));
	close(self->fd);
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(0, tf_umount(t));
	cf_env_close(&t->e);
	EXPECT_EQ(0, tf_bind(t, NULL));
	EXPECT_EQ(0, tf_mount(t, variant->options));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	recorder_end(&self->r);
	tf_end(t);
}

/* The device, in a thread. */
static struct cf_op *start_close(struct tf *t)
{
	int dev = t->e.dev;

	t->e.dev = -1;
	return cf_start_close(dev);
}

TEST_F_TIMEOUT(closed, while_idle, LIMIT)
{
	EXPECT_EQ(0, cf_finish(start_close(&self->t)));
	EXPECT_EQ(0, tf_read(self->fd, "a", 1, 10 * BLOCK, 10 * BLOCK));
}

TEST_F_TIMEOUT(closed, during_a_download, LIMIT)
{
	struct tf *t = &self->t;
	struct cf_op *op, *closing;

	ASSERT_EQ(0, tf_cmd(t, "hold read"));
	op = cf_start_pread(self->fd, 20 * BLOCK, 4 * BLOCK);
	ASSERT_TRUE(tf_waits_for(t, 1));
	closing = start_close(t);
	cf_sleep_ms(CF_NEVER);
	ASSERT_EQ(0, tf_cmd(t, "release read"));
	EXPECT_EQ(4 * BLOCK, cf_finish(op));
	EXPECT_EQ(0, cf_finish(closing));
}

TEST_F_TIMEOUT(closed, during_an_upload, LIMIT)
{
	struct tf *t = &self->t;
	struct cf_op *op, *closing;

	ASSERT_EQ(0, tf_write(self->fd, "a", 2, 2 * BLOCK + 5, 30 * BLOCK));
	ASSERT_EQ(0, tf_cmd(t, "hold write"));
	op = cf_start(do_fsync, NULL, self->fd, 0, 0);
	ASSERT_TRUE(tf_waits_for(t, 1));
	closing = start_close(t);
	cf_sleep_ms(CF_NEVER);
	ASSERT_EQ(0, tf_cmd(t, "release write"));
	EXPECT_EQ(0, cf_finish(op));
	EXPECT_EQ(0, cf_finish(closing));
}

/* The file system of the cache does not take what is written to it, until it does. */
TEST_F_TIMEOUT(closed, while_the_cache_is_frozen, LIMIT)
{
	struct tf *t = &self->t;
	struct cf_op *op, *closing;

	if (strstr(variant->options, "ceph"))
		SKIP(return, "writepages writes to the cache itself");
	ASSERT_EQ(0, tf_sync(t));
	ASSERT_EQ(0, cf_freeze(&t->e));
	op = cf_start_pread(self->fd, 30 * BLOCK, 4 * BLOCK);
	EXPECT_EQ(4 * BLOCK, cf_wait(op, CF_SOON));
	closing = start_close(t);
	cf_sleep_ms(CF_NEVER);
	ASSERT_EQ(0, cf_thaw(&t->e));
	EXPECT_EQ(4 * BLOCK, cf_finish(op));
	EXPECT_EQ(0, cf_finish(closing));
}

/* Changes that the server has and the cache never saw. */
TEST_F_TIMEOUT(closed, then_changed, LIMIT)
{
	struct tf *t = &self->t;

	EXPECT_EQ(0, cf_finish(start_close(t)));
	ASSERT_EQ(0, tf_write(self->fd, "a", 2, 3 * BLOCK + 1, 3 * BLOCK));
	ASSERT_EQ(0, ftruncate(self->fd, SIZE - BLOCK - 9));
	ASSERT_EQ(0, fsync(self->fd));
}

/* ---- where the implementation in C is wrong ---- */

/* The state of a file of the cache, as its attribute tells; or -errno. */
static int content_of(const char *path)
{
	unsigned char attr[512];
	ssize_t n = getxattr(path, "user.CacheFiles.cache", attr, sizeof(attr));

	return n < 0 ? -errno : n < 18 ? -EPROTO : attr[17];
}

#define DIRTY	4	/* of enum cachefiles_content */

/*
 * File systems may fill small gaps between what was written: what they have there was
 * never the server's.
 */
TEST_F_TIMEOUT(cache, data_that_nobody_has_cached, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX], zeros[BLOCK] = {};
	int fd;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(tf_mount(t, ",style=nfs"));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	tf_no_readahead(fd);
	ASSERT_EQ(0, tf_read(fd, "a", 1, 4 * BLOCK, BLOCK));
	ASSERT_EQ(0, tf_read(fd, "a", 1, 6 * BLOCK, BLOCK));
	close(fd);
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, tf_cache_file_soon(t, "a", path));
	fd = open(path, O_WRONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(BLOCK, pwrite(fd, zeros, BLOCK, 5 * BLOCK));
	ASSERT_EQ(0, fsync(fd));
	close(fd);
	ASSERT_SETUP_T(tf_mount(t, ",style=nfs"));
	EXPECT_EQ(cf_intended("classic-bridged-gap"), tf_same(t, "a"));
}

/* Have a hole in a file of the cache. */
static int punch(const char *path, off_t off)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = fd < 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, BLOCK) ?
		-errno : 0;

	close(fd);
	return err;
}

/* Have a file look as if C had left it: what it has is what the file system has. */
static int forget_list(const char *path)
{
	unsigned char attr[512];
	ssize_t n = getxattr(path, "user.CacheFiles.cache", attr, sizeof(attr));

	if (removexattr(path, "user.CacheFiles.present") && errno != ENODATA)
		return -errno;
	if (n < 18)
		return n < 0 ? -errno : -EPROTO;
	attr[17] = 0;
	return setxattr(path, "user.CacheFiles.cache", attr, n, 0) ? -errno : 0;
}

/*
 * U72: what was written when there was no space to store it, by a file system that does not
 * have the cache invalidated then, as 9p: neither the next mount nor C, which goes by the
 * holes of the file, finds what was there before.
 */
TEST_F_TIMEOUT(cache, u72_refused_overwrite, LIMIT)
{
	/* The first block and the last, one alone, and a few. */
	static const int blocks[][2] = { { 0, 1 }, { 3, 2 }, { 8, 1 }, { 74, 1 } };
	struct tf *t = &self->t;
	char path[PATH_MAX];
	long no_write;
	int fd, i, j;

	ASSERT_SETUP_T(tf_bind(t, LIMITS));
	ASSERT_SETUP_T(fill_and_remount(t, ",style=9p", SIZE, path));
	for (i = 0; i < 2; i++) {
		fd = tf_open(t, "a", O_RDWR);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, tf_read(fd, "a", 1, BLOCK, BLOCK));
		ASSERT_EQ(0, cf_take_space(&t->e, "ballast", 95));
		no_write = cf_stats("NoSpace", "nwr=");
		for (j = 0; j < ARRAY_SIZE(blocks); j++)
			ASSERT_EQ(0, tf_write(fd, "a", 2 + i, blocks[j][0] * BLOCK,
					      blocks[j][1] * BLOCK));
		ASSERT_EQ(0, fsync(fd));
		EXPECT_GT(cf_stats("NoSpace", "nwr="), no_write);
		close(fd);
		ASSERT_EQ(0, cf_give_space(&t->e, "ballast"));
		cf_sleep_ms(150);
		ASSERT_EQ(0, tf_umount(t));
		ASSERT_EQ(0, tf_cache_file_soon(t, "a", path));
		if (i == 1)
			ASSERT_EQ(0, forget_list(path));
		ASSERT_SETUP_T(tf_mount(t, ",style=9p"));
		EXPECT_EQ(cf_intended("classic-refused-overwrite"), tf_same(t, "a"));
		ASSERT_EQ(0, tf_sync(t));
		ASSERT_EQ(0, tf_remount(t));
	}
}

/* U43: an object that is read at once, as a directory of AFS, comes from the server if need be. */
TEST_F_TIMEOUT(cache, u43_hole_in_a_single_object, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, ",style=afs", SIZE, path));
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, punch(path, 0));
	ASSERT_SETUP_T(tf_mount(t, ",style=afs"));
	EXPECT_EQ(0, tf_fill(t, "a"));

	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, tf_cache_file_soon(t, "a", path));
	ASSERT_EQ(0, punch(path, 5 * BLOCK));
	ASSERT_SETUP_T(tf_mount(t, ",style=afs"));
	EXPECT_EQ(cf_intended("classic-hole-in-single-object"), tf_same(t, "a"));
}

/* The same of files that are read in pieces. */
TEST_F_TIMEOUT(cache, holes_are_fetched_again, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, "", SIZE, path));
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_EQ(0, punch(path, 0));
	ASSERT_EQ(0, punch(path, 5 * BLOCK));
	ASSERT_EQ(0, punch(path, SIZE - BLOCK));
	ASSERT_SETUP_T(tf_mount(t, ""));
	EXPECT_EQ(0, tf_fill(t, "a"));
	EXPECT_EQ(SIZE + 3 * BLOCK, tf_count(t, "read-bytes"));
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(SIZE + 3 * BLOCK, tf_count(t, "read-bytes"));
}

/* U47: limits are blocks of the file system, what is written is counted in pages. */
TEST_F_TIMEOUT(cache, u47_limits_hold_with_small_blocks, LIMIT)
{
	struct tf *t = &self->t;
	unsigned long long stop;
	char path[PATH_MAX];
	struct statfs st;
	int err, fd;

	err = cf_mount_image(&t->e, "ext4", "fs_ext4_1k.img.gz");
	if (err == -ENOENT)
		SKIP(return, "there is no such image, or file system");
	ASSERT_EQ(0, err);
	ASSERT_SETUP_T(tf_bind(t, LIMITS));
	/* Its directories are made before space is short. */
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_file(t, "first", BLOCK, 1));
	ASSERT_EQ(0, tf_fill(t, "first"));

	snprintf(path, sizeof(path), "%s/ballast", t->e.dir);
	fd = open(path, O_CREAT | O_WRONLY, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, fstatfs(fd, &st));
	stop = percent_of(st.f_blocks, 10);
	/* Room for half of what comes. */
	ASSERT_EQ(0, fallocate(fd, 0, 0, (st.f_bavail - stop - 512) * st.f_bsize));
	ASSERT_EQ(0, fsync(fd));
	close(fd);
	cf_sleep_ms(150);

	ASSERT_EQ(0, tf_file(t, "a", 1 << 20, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, statfs(t->e.dir, &st));
	EXPECT_EQ(cf_intended("classic-small-blocks-below-bstop"), st.f_bavail < stop);
	EXPECT_EQ(0, tf_same(t, "a"));
}

/* U49: the trace shows the auxiliary data, not where it is. */
TEST_F_TIMEOUT(cache, u49_trace_shows_aux, LIMIT)
{
	struct tf *t = &self->t;
	unsigned char attr[512];
	unsigned long long aux = 0, want = 0;
	char path[PATH_MAX], *line;
	struct recorder r;
	int i;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, ",aux=40", SIZE, path));
	ASSERT_EQ(0, recorder_start(&r, "cachefiles/cachefiles_coherency"));
	if (!r.dir[0])
		SKIP(return, "there is nothing to trace with");
	ASSERT_EQ(0, tf_same(t, "a"));
	line = recorded(&r, "cachefiles_coherency:", "aux=");
	recorder_end(&r);
	ASSERT_NE(NULL, line);
	aux = strtoull(line + strlen("aux="), NULL, 16);
	ASSERT_EQ(18 + 40, getxattr(path, "user.CacheFiles.cache", attr, sizeof(attr)));
	for (i = 0; i < 8; i++)
		want = want << 8 | attr[18 + i];
	EXPECT_EQ(cf_intended("classic-trace-aux"), aux == want);
}

/* Make the file system of the cache full, by a file, but for some of its blocks; its fd. */
static int fill_disk(struct tf *t, int blocks)
{
	char path[PATH_MAX];
	struct statfs st;
	long long size = 0;
	int fd, step;

	snprintf(path, sizeof(path), "%s/ballast", t->e.dir);
	fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || fstatfs(fd, &st))
		return -errno;
	for (step = 4096; step; step /= 4)
		while (!fallocate(fd, 0, size, step * st.f_bsize))
			size += step * st.f_bsize;
	/* What it gives back it has given when this is on the disk. */
	return ftruncate(fd, size - blocks * st.f_bsize) || fsync(fd) ? -errno : fd;
}

/*
 * U51: a write to the cache that is short may end within a block of the cache, if the file
 * system has smaller ones.  The rest, if it is written when there is space again, has to be
 * where it belongs.  Ext4 takes all or nothing, so this shows nothing of C.
 */
TEST_F_TIMEOUT(cache, u51_rest_of_a_short_write, LIMIT)
{
	long long size = 600 * 1024;
	struct tf *t = &self->t;
	int err, fd, disk, i;
	struct cf_op *op;
	long started, done;
	char name[16];

	err = cf_mount_image(&t->e, "ext4", "fs_ext4_1k.img.gz");
	if (err == -ENOENT)
		SKIP(return, "there is no such image, or file system");
	ASSERT_EQ(0, err);
	ASSERT_SETUP_T(tf_bind(t, "bstop 0%"));
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_file(t, "first", BLOCK, 1));
	ASSERT_EQ(0, tf_fill(t, "first"));

	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "a%d", i);
		ASSERT_EQ(0, tf_file(t, name, 0, 1));
		fd = tf_open(t, name, O_RDWR);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(0, tf_write(fd, name, 1, 0, size));
		disk = fill_disk(t, 300 + i);
		ASSERT_GE(disk, 0);
		started = cf_stats("CaWrOps", "WR=");
		done = cf_stats("CaWrOps", "ws=");
		/* Nothing is tried again before the server has answered. */
		ASSERT_EQ(0, tf_cmd(t, "hold write"));
		op = cf_start(do_fsync, NULL, fd, 0, 0);
		ASSERT_TRUE(tf_waits_for(t, 1));
		EXPECT_TRUE(CF_WAIT_FOR(cf_stats("CaWrOps", "WR=") > started &&
					cf_stats("CaWrOps", "WR=") - started ==
					cf_stats("CaWrOps", "ws=") - done, CF_SOON));
		ASSERT_EQ(0, ftruncate(disk, 0));
		ASSERT_EQ(0, fsync(disk));
		close(disk);
		ASSERT_EQ(0, tf_cmd(t, "release write"));
		EXPECT_EQ(0, cf_finish(op));
		close(fd);
	}
	ASSERT_EQ(0, tf_remount(t));
	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "a%d", i);
		EXPECT_EQ(0, tf_same(t, name));
	}
}

/* U61: before anything of it is written, a cached file is marked as dirty. */
TEST_F_TIMEOUT(cache, u61_dirty_before_it_is_written, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];
	struct cf_op *op;
	int fd, cached;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, "", SIZE, path));
	EXPECT_NE(DIRTY, content_of(path));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	/* The server does not have it yet. */
	ASSERT_EQ(0, tf_cmd(t, "hold write"));
	ASSERT_EQ(0, tf_write(fd, "a", 2, 3 * BLOCK, BLOCK));
	op = cf_start(do_fsync, NULL, fd, 0, 0);
	ASSERT_TRUE(tf_waits_for(t, 1));
	cached = open(path, O_RDONLY | O_DIRECT);
	ASSERT_GE(cached, 0);
	EXPECT_TRUE(CF_WAIT_FOR(!tf_read(cached, "a", 2, 3 * BLOCK, BLOCK), CF_SOON));
	EXPECT_EQ(DIRTY, content_of(path));
	close(cached);
	ASSERT_EQ(0, tf_cmd(t, "release write"));
	EXPECT_EQ(0, cf_finish(op));
	close(fd);
	/* It is clean when it has been let go. */
	ASSERT_EQ(0, tf_remount(t));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_NE(DIRTY, content_of(path));
}

/* U62: the same if it is opened for writing while it is being looked up for a reader. */
TEST_F_TIMEOUT(cache, u62_writer_during_a_lookup, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX], fan[PATH_MAX];
	int dir, reader, writer;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, "", SIZE, path));
	/* The volume is looked up, the file is not. */
	ASSERT_EQ(0, tf_file(t, "b", SIZE, 1));
	ASSERT_EQ(0, tf_same(t, "b"));
	snprintf(fan, sizeof(fan), "%s", path);
	*strrchr(fan, '/') = 0;
	dir = open(fan, O_RDONLY | O_DIRECTORY);
	ASSERT_GE(dir, 0);
	cf_drop_caches();
	ASSERT_EQ(0, tf_cmd(t, "lock %d", dir));
	reader = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(reader, 0);
	EXPECT_TRUE(CF_WAIT_FOR(tf_cookie_state("a") == 'L', CF_SOON));
	writer = tf_open(t, "a", O_RDWR);
	ASSERT_GE(writer, 0);
	EXPECT_EQ('L', tf_cookie_state("a"));
	ASSERT_EQ(0, tf_cmd(t, "unlock"));
	EXPECT_TRUE(CF_WAIT_FOR(tf_cookie_state("a") == 'A', CF_SOON));

	ASSERT_EQ(0, tf_write(writer, "a", 2, 3 * BLOCK, BLOCK));
	ASSERT_EQ(0, fsync(writer));
	EXPECT_EQ(cf_intended("classic-dirty-after-lookup"), content_of(path) == DIRTY);
	close(writer);
	close(reader);
	close(dir);
	EXPECT_EQ(0, tf_same(t, "a"));
}

/*
 * Whoever writes while there is no cache by-passes it: what it had before is not served when it is
 * back, although nothing tells yet that the file is another.
 */
TEST_F_TIMEOUT(cache, writer_without_a_cache, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];
	int writer, reader;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, ",style=smb", SIZE, path));
	writer = tf_open(t, "a", O_RDWR);
	ASSERT_GE(writer, 0);
	ASSERT_EQ(0, tf_read(writer, "a", 1, 0, BLOCK));
	cf_env_close(&t->e);
	ASSERT_EQ(0, tf_write(writer, "a", 2, 3 * BLOCK, BLOCK));
	ASSERT_EQ(0, fsync(writer));

	ASSERT_SETUP_T(tf_bind(t, NULL));
	reader = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(reader, 0);
	tf_forget(writer);
	EXPECT_EQ(cf_intended("classic-writer-without-cache"),
		  tf_read(reader, "a", 2, 3 * BLOCK, BLOCK));
	close(reader);
	close(writer);
}

/* U63: coherency data that a volume was given when it was given up. */
TEST_F_TIMEOUT(cache, u63_new_coherency_data_of_a_volume, LIMIT)
{
	struct tf *t = &self->t;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(tf_mount(t, ",coherency=one,last_coherency=two"));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_SETUP_T(tf_mount(t, ",coherency=two"));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(cf_intended("classic-volume-coherency"), tf_count(t, "read-bytes") == SIZE);

	/* Other data is another volume. */
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_SETUP_T(tf_mount(t, ",coherency=six"));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_GE(tf_count(t, "read-bytes"), 2 * SIZE);
}

TEST_F_TIMEOUT(cache, u63_invalidated_volume, LIMIT)
{
	struct tf *t = &self->t;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(tf_mount(t, ",coherency=one,invalidate"));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_umount(t));
	ASSERT_SETUP_T(tf_mount(t, ",coherency=one"));
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(cf_intended("classic-invalidated-volume-served"),
		  tf_count(t, "read-bytes") == SIZE);
}

/* U64: what a shared mapping had behind the end of the file does not become data. */
TEST_F_TIMEOUT(cache, u64_padding_does_not_become_data, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX], *map;
	int fd;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, ",style=ceph", 100, path));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	map = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, map);
	map[50]++;
	memset(map + 200, 7, 100);
	ASSERT_EQ(0, msync(map, BLOCK, MS_SYNC));
	ASSERT_EQ(0, munmap(map, BLOCK));
	close(fd);
	ASSERT_EQ(0, tf_remount(t));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 1000));
	EXPECT_EQ(cf_intended("classic-padding-becomes-data"),
		  tf_same_range(t, "a", fd, 0, 0));
	close(fd);
}

/* U67: an invalidation for which there is no new file leaves nothing of the old one. */
TEST_F_TIMEOUT(cache, u67_invalidation_without_a_file, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];
	int err, fd, file, n = 0;

	err = cf_mount_image(&t->e, "ext4", "fs_few.img.gz");
	if (err == -ENOENT)
		SKIP(return, "there is no such image, or file system");
	ASSERT_EQ(0, err);
	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(fill_and_remount(t, ",style=nfs", SIZE, path));
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_read(fd, "a", 1, 0, BLOCK));
	/* All inodes are taken. */
	for (;;) {
		snprintf(path, sizeof(path), "%s/ballast.%d", t->e.dir, n);
		file = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);
		if (file < 0)
			break;
		close(file);
		n++;
	}
	ASSERT_EQ(ENOSPC, errno);

	ASSERT_EQ(0, tf_file(t, "a", SIZE, 2));
	ASSERT_EQ(SIZE, tf_stat(t, "a"));
	EXPECT_EQ(0, tf_read(fd, "a", 2, 0, SIZE));
	close(fd);
	ASSERT_EQ(0, tf_umount(t));
	while (n-- > 0) {
		snprintf(path, sizeof(path), "%s/ballast.%d", t->e.dir, n);
		unlink(path);
	}
	ASSERT_SETUP_T(tf_mount(t, ",style=nfs"));
	EXPECT_EQ(cf_intended("classic-failed-invalidation"), tf_same(t, "a"));
}

/* U68: a file that could not be cut has no old data behind its end later. */
TEST_F_TIMEOUT(cache, u68_failed_shrink, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	if (sysconf(_SC_PAGESIZE) != BLOCK)
		SKIP(return, "for pages of 4 KiB");
	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_EQ(0, tf_swap_file(t, "a"));
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	ASSERT_EQ(0, tf_cache_file_soon(t, "a", self->swap));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_same_range(t, "a", fd, 0, 0));

	/* A swap file cannot be truncated, whoever tries. */
	if (swapon(self->swap, 0))
		SKIP(return, "this kernel, or file system, does not swap to a file");
	ASSERT_EQ(0, ftruncate(fd, 3 * BLOCK + 100));
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	ASSERT_EQ(0, swapoff(self->swap));
	self->swap[0] = 0;
	close(fd);
	ASSERT_EQ(0, tf_umount(t));
	cf_env_close(&t->e);

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(tf_mount(t, ""));
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, ftruncate(fd, 3 * BLOCK + 3000));
	EXPECT_EQ(cf_intended("classic-failed-shrink"), tf_same_range(t, "a", fd, 0, 0));
	close(fd);
}

/* U69: a volume whose directory has lost its attribute, as after a crash, is made again. */
TEST_F_TIMEOUT(cache, u69_volume_without_its_attribute, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];
	long long bytes;

	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_file(t, "a", SIZE, 1));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_umount(t));
	snprintf(path, sizeof(path), "%s/cache/I%s", t->e.dir, t->key);
	ASSERT_EQ(0, removexattr(path, "user.CacheFiles.cache"));
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_fill(t, "a"));
	ASSERT_EQ(0, tf_remount(t));
	bytes = tf_count(t, "read-bytes");
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(cf_intended("classic-volume-without-attribute"),
		  tf_count(t, "read-bytes") == bytes);
}

TEST_HARNESS_MAIN
