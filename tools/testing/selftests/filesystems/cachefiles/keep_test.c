// SPDX-License-Identifier: GPL-2.0
/*
 * Which data of an object the next lookup finds: an object is not thrown away because
 * its list of present blocks is missing or damaged, whatever its length, and data that is
 * not in the list does not count.
 */
#include <dirent.h>
#include <glob.h>
#include <libgen.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define STATE	"user.CacheFiles.cache"
#define LIST	"user.CacheFiles.present"
#define SIZE	(48 * CF_PAGE + 3393ULL)
#define HALF	(24ULL * CF_PAGE)
/* Bytes of a list before what it says. */
#define LIST_HEAD	10
/* In milliseconds: what is not written down at once is after half a minute. */
#define LATE	300000

/* An object with its first half present, committed and withdrawn. */
FIXTURE(keep) {
	struct cf_env e;
	struct cf_blob b;
	char path[PATH_MAX];
};

FIXTURE_SETUP(keep)
{
	if (cf_is_c())
		SKIP(return, "it keeps no list");
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, HALF, SIZE));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, &self->b));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, self->path), CF_SOON));
	ASSERT_TRUE(CF_WAIT_FOR(getxattr(self->path, LIST, NULL, 0) > 0, CF_SOON));
}

FIXTURE_TEARDOWN(keep)
{
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(keep, file_that_lost_its_list_is_empty, 60)
{
	static char part[512];
	int fd;

	/* What only the list tells from data. */
	fd = open(self->path, O_WRONLY | O_CLOEXEC);
	cf_pattern("blob", HALF, part, sizeof(part));
	ASSERT_EQ(sizeof(part), pwrite(fd, part, sizeof(part), HALF));
	ASSERT_EQ(0, fsync(fd));
	close(fd);
	ASSERT_EQ(0, removexattr(self->path, LIST));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, HALF, 4096));
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, 0, 4096));
}

/* As the C implementation leaves them. */
TEST_F_TIMEOUT(keep, file_that_never_had_a_list_is_used, 60)
{
	uint8_t state[64];

	ASSERT_EQ(0, removexattr(self->path, LIST));
	ASSERT_EQ(18, getxattr(self->path, STATE, state, sizeof(state)));
	state[17] = 0;
	ASSERT_EQ(0, setxattr(self->path, STATE, state, 18, 0));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
	EXPECT_EQ(0, cf_reads_for(&self->e, &self->b, 0, HALF));
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, HALF, 4096));
	/* From here on it has one, and does not count without. */
	EXPECT_GT(getxattr(self->path, LIST, NULL, 0), 0);
	ASSERT_EQ(18, getxattr(self->path, STATE, state, sizeof(state)));
	EXPECT_EQ(3, state[17]);
}

TEST_F_TIMEOUT(keep, list_that_is_too_long_counts_as_empty, 60)
{
	static char list[3000];

	memset(list, 2, sizeof(list));
	if (setxattr(self->path, LIST, list, sizeof(list), 0) && errno == ENOSPC)
		SKIP(return, "this file system has no space for so long a list");
	ASSERT_EQ(sizeof(list), getxattr(self->path, LIST, NULL, 0));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, 0, 4096));
	EXPECT_EQ(LIST_HEAD, getxattr(self->path, LIST, NULL, 0));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, &self->b));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
	EXPECT_EQ(0, cf_reads_for(&self->e, &self->b, 0, 4096));
}

/* Each byte of it, one after the other. */
TEST_F_TIMEOUT(keep, damaged_list_counts_as_empty, 300)
{
	char good[64], bad[64];
	int len, i;

	len = getxattr(self->path, LIST, good, sizeof(good));
	ASSERT_LT(LIST_HEAD, len);
	for (i = 0; i <= len; i++) {
		memcpy(bad, good, len);
		bad[i % len] ^= 1 << i % 8;
		/* The last one is cut. */
		ASSERT_EQ(0, setxattr(self->path, LIST, bad, i < len ? len : len - 1, 0));
		ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
		EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, 0, 4096)) TH_LOG("byte %d", i);
		ASSERT_EQ(0, cf_blob_give_up(&self->e, &self->b));
		ASSERT_TRUE(cf_is_released(&self->e, self->path));
	}
}

/* With other auxiliary data, which the version of an object is a part of. */
TEST_F_TIMEOUT(keep, list_of_another_state_counts_as_empty, 60)
{
	static char junk[4096];
	char old[64], list[64], state[64];
	int len, fd;

	len = getxattr(self->path, LIST, old, sizeof(old));
	ASSERT_LT(LIST_HEAD, len);
	/* The object, with a version, has a list of its own. */
	ASSERT_EQ(0, unlink(self->path));
	ASSERT_EQ(0, cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open_version(&self->e, &self->b, SIZE, "blob", "v1"));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", HALF, 2 * CF_PAGE, SIZE));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, &self->b));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, self->path), CF_SOON));
	ASSERT_TRUE(cf_is_released(&self->e, self->path));
	ASSERT_GT(getxattr(self->path, LIST, list, sizeof(list)), 0);
	ASSERT_EQ(20, getxattr(self->path, STATE, state, sizeof(state)));
	ASSERT_EQ(0, setxattr(self->path, LIST, old, len, 0));
	/* To the file system, what the old list says is there. */
	fd = open(self->path, O_WRONLY | O_CLOEXEC);
	ASSERT_EQ(sizeof(junk), pwrite(fd, junk, sizeof(junk), 0));
	close(fd);
	ASSERT_EQ(0, cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open_version(&self->e, &self->b, SIZE, "blob", "v1"));
	cf_no_readahead(self->b.fd);
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, HALF, 4096));
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, 0, 4096));
}

TEST_F_TIMEOUT(keep, complete_file_needs_no_list, 60)
{
	uint8_t state[64];

	ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", HALF, SIZE - HALF, SIZE));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, &self->b));
	ASSERT_TRUE(CF_WAIT_FOR(getxattr(self->path, LIST, NULL, 0) < 0, CF_SOON));
	EXPECT_EQ(ENODATA, errno);
	ASSERT_EQ(18, getxattr(self->path, STATE, state, sizeof(state)));
	EXPECT_EQ(2, state[17]);
	ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
	EXPECT_EQ(0, cf_reads_for(&self->e, &self->b, 0, SIZE));
}

/* It says that it is, but the file system has lost some. */
TEST_F_TIMEOUT(keep, complete_file_is_looked_at, 60)
{
	uint8_t state[64];
	int fd;

	ASSERT_EQ(18, getxattr(self->path, STATE, state, sizeof(state)));
	state[17] = 2;
	ASSERT_EQ(0, setxattr(self->path, STATE, state, 18, 0));
	fd = open(self->path, O_WRONLY | O_CLOEXEC);
	ASSERT_EQ(0, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, CF_PAGE, CF_PAGE));
	close(fd);
	ASSERT_EQ(0, cf_blob_look_up(&self->e, &self->b, SIZE));
	EXPECT_EQ(0, cf_reads_for(&self->e, &self->b, 0, 4096));
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, CF_PAGE, 4096));
	EXPECT_EQ(1, cf_reads_for(&self->e, &self->b, HALF, 4096));
	ASSERT_EQ(18, getxattr(self->path, STATE, state, sizeof(state)));
	EXPECT_EQ(3, state[17]);
}

/* An opener that comes while the file is being removed gets a new one. */
#define NAMES	24

static int name_dir(struct cf_env *e, int i, char name[32], char dir[PATH_MAX])
{
	char path[PATH_MAX];
	bool there;

	snprintf(name, 32, "n%d", i);
	there = cf_find_cache_file(e, name, NULL, path);
	strcpy(dir, dirname(path));
	snprintf(name, 32, "Dn%d", i);
	return there;
}

struct race {
	atomic_int turn;	/* the name that is being opened */
	atomic_long begun;	/* when the daemon answered, in ns */
	atomic_long span;	/* how long that takes until it is open */
};

static long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

/* The lookup of the file begins when the daemon has answered. */
static long long take_turn(struct cf_daemon *d, const char *name)
{
	struct race *race = d->arg;

	atomic_store(&race->begun, now_ns());
	atomic_store(&race->turn, atoi(name + 1));
	return 8192;
}

/* Cull each file while it is looked up. */
static void cull_all(struct cf_env *e, struct race *race)
{
	char name[32], dir[PATH_MAX];
	long until;
	int i;

	srand(getpid());
	for (i = 0; i < NAMES; i++) {
		name_dir(e, i, name, dir);
		if (chdir(dir))
			_exit(1);
		while (atomic_load(&race->turn) < i)
			;
		until = atomic_load(&race->begun) + rand() % (atomic_load(&race->span) + 1);
		while (now_ns() < until)
			;
		cf_cmd(e->dev, "cull %s", name);
	}
	_exit(0);
}

TEST_F_TIMEOUT(keep, open_that_meets_a_cull, 600)
{
	struct cf_daemon *d = cf_daemon_new(self->e.dev, 8192);
	int round, i, fds[NAMES], busy = 0;
	struct race *race;
	char path[PATH_MAX];
	pid_t pid;

	race = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, race);
	ASSERT_NE(NULL, d);
	d->arg = race;
	d->size_of = take_turn;
	ASSERT_EQ(0, cf_daemon_start(d, 1));
	for (round = 0; round < 20; round++) {
		ASSERT_SETUP(cf_env_mount(&self->e));
		atomic_store(&race->turn, -1);
		pid = round ? cf_fork() : 0;
		if (round && !pid)
			cull_all(&self->e, race);
		for (i = 0; i < NAMES; i++) {
			snprintf(path, sizeof(path), "%s/n%d", self->e.mnt, i);
			fds[i] = open(path, O_RDONLY | O_CLOEXEC);
			busy += fds[i] < 0 && errno == EBUSY;
			atomic_store(&race->span, now_ns() - atomic_load(&race->begun));
			EXPECT_TRUE(fds[i] >= 0 || errno == EBUSY)
				TH_LOG("round %d, %d: %s", round, i, strerror(errno));
		}
		if (round)
			ASSERT_EQ(0, cf_reap(pid, 60000));
		for (i = 0; i < NAMES; i++) {
			char byte;

			/* What was never read has no file. */
			EXPECT_EQ(1, pread(fds[i], &byte, 1, 0));
			close(fds[i]);
		}
		ASSERT_EQ(0, cf_env_umount(&self->e));
		for (i = 0; i < NAMES; i++) {
			snprintf(path, sizeof(path), "n%d", i);
			ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, path, NULL,
								   self->path), CF_SOON));
		}
	}
	EXPECT_EQ(0, busy) TH_LOG("of %d", 19 * NAMES);
	cf_daemon_stop(d);
	cf_daemon_close_fds(d);
	cf_daemon_free(d);
}

/* A file that another cache has in use. */
TEST_F_TIMEOUT(keep, file_in_use_by_another_cache_is_EBUSY, 60)
{
	struct cf_env *e = &self->e;
	struct cf_blob *b = &self->b;

	ASSERT_EQ(0, cf_blob_look_up(e, b, SIZE));
	/* In use: it cannot be culled. */
	ASSERT_EQ(0, chdir(dirname(self->path)));
	EXPECT_EQ(-EBUSY, cf_cmd(e->dev, "cull Dblob"));
	EXPECT_EQ(-EBUSY, cf_cmd(e->dev, "inuse Dblob"));
	ASSERT_EQ(0, chdir("/"));
	EXPECT_EQ(0, cf_reads_for(e, b, 0, HALF));
}

/* What is written down while an object is in use. */
FIXTURE(early) {
	struct cf_env e;
	struct cf_blob b;
	char path[PATH_MAX];
};

FIXTURE_SETUP(early)
{
	if (cf_is_c())
		SKIP(return, "it gives a file its name when its object is withdrawn");
	ASSERT_SETUP(cf_env_all(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
	cf_no_readahead(self->b.fd);
}

FIXTURE_TEARDOWN(early)
{
	cf_env_end(&self->e);
}

/* What the attribute of the file says that it holds, or -errno. */
static int content(const char *path)
{
	uint8_t state[64];

	return getxattr(path, STATE, state, sizeof(state)) < 18 ? -errno : state[17];
}

TEST_F_TIMEOUT(early, complete_file_gets_its_name_at_once, 300)
{
	struct cf_env *e = &self->e;

	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, SIZE, SIZE));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), CF_SOON));
	EXPECT_EQ(2, content(self->path));
	/* It is in use. */
	ASSERT_EQ(0, chdir(dirname(strdupa(self->path))));
	EXPECT_EQ(-EBUSY, cf_cmd(e->dev, "inuse Dblob"));
	EXPECT_EQ(-EBUSY, cf_cmd(e->dev, "cull Dblob"));
	ASSERT_EQ(0, chdir("/"));
	EXPECT_EQ(0, cf_reads_for(e, &self->b, 0, SIZE));
	/* And not any more. */
	ASSERT_EQ(0, cf_blob_give_up(e, &self->b));
	ASSERT_TRUE(cf_is_released(e, self->path));
	ASSERT_EQ(0, cf_blob_look_up(e, &self->b, SIZE));
	EXPECT_EQ(0, cf_reads_for(e, &self->b, 0, SIZE));
}

TEST_F_TIMEOUT(early, part_is_written_down_after_a_while, 600)
{
	struct cf_env *e = &self->e;
	char list[64];
	int len;

	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, HALF, SIZE));
	EXPECT_FALSE(cf_find_cache_file(e, "blob", NULL, self->path));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), LATE));
	EXPECT_EQ(3, content(self->path));
	len = getxattr(self->path, LIST, list, sizeof(list));
	ASSERT_LT(LIST_HEAD, len);
	/* From its first block on. */
	EXPECT_EQ(0, list[LIST_HEAD]);
	/* What comes later is added to it. */
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", HALF + 2 * CF_PAGE, CF_PAGE, SIZE));
	EXPECT_EQ(len, getxattr(self->path, LIST, NULL, 0));
	EXPECT_TRUE(CF_WAIT_FOR(getxattr(self->path, LIST, NULL, 0) > len, LATE));
	/* The rest is written down at once. */
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", HALF, SIZE - HALF, SIZE));
	EXPECT_TRUE(CF_WAIT_FOR(content(self->path) == 2, CF_SOON));
	EXPECT_TRUE(CF_WAIT_FOR(getxattr(self->path, LIST, NULL, 0) < 0, CF_SOON));
	EXPECT_EQ(0, cf_reads_for(e, &self->b, 0, SIZE));
}

/* "chattr +i" or "-i" of all directories of volumes: 0 or -errno. */
static int protect(struct cf_env *e, bool on)
{
	char pattern[PATH_MAX];
	int fd, flags, err = 0;
	glob_t found;
	size_t i;

	snprintf(pattern, sizeof(pattern), "%s/cache/I*", e->dir);
	if (glob(pattern, 0, NULL, &found))
		return -ENOENT;
	for (i = 0; i < found.gl_pathc && !err; i++) {
		fd = open(found.gl_pathv[i], O_RDONLY | O_CLOEXEC);
		err = fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags);
		flags = on ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
		err = err || ioctl(fd, FS_IOC_SETFLAGS, &flags) ? -errno : 0;
		close(fd);
	}
	globfree(&found);
	return err;
}

/* A complete object sees no other change. */
TEST_F_TIMEOUT(early, what_could_not_be_written_down_is_tried_again, 600)
{
	struct cf_env *e = &self->e;
	bool is_named;

	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, HALF, SIZE));
	ASSERT_EQ(0, protect(e, true));
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", HALF, SIZE - HALF, SIZE));
	/* Time for the first try. */
	usleep(500000);
	is_named = cf_find_cache_file(e, "blob", NULL, self->path);
	ASSERT_EQ(0, protect(e, false));
	EXPECT_FALSE(is_named);
	EXPECT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), LATE));
	EXPECT_EQ(2, content(self->path));
	EXPECT_EQ(0, cf_reads_for(e, &self->b, 0, SIZE));
}

/* How often the disk that the cache is on was asked to write down what it has in memory. */
static long flushes(struct cf_env *e)
{
	char path[64];
	struct stat st;
	long n = -1;
	FILE *f;

	if (stat(e->dir, &st))
		return -1;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/stat", major(st.st_dev),
		 minor(st.st_dev));
	f = fopen(path, "re");
	if (!f)
		return -1;
	if (fscanf(f, "%*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

FIXTURE(durable) {
	struct cf_env e;
	struct cf_blob b;
	char path[PATH_MAX];
};

FIXTURE_SETUP(durable)
{
	if (cf_is_c())
		SKIP(return, "it gives a file its name when its object is withdrawn");
	ASSERT_SETUP(cf_env_all_with(&self->e, " durable"));
	ASSERT_EQ(0, cf_blob_open(&self->e, &self->b, "blob", SIZE));
}

FIXTURE_TEARDOWN(durable)
{
	cf_env_end(&self->e);
}

/* Well before the file system would do it of its own accord. */
TEST_F_TIMEOUT(durable, file_is_synced, 300)
{
	struct cf_env *e = &self->e;
	long before;

	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, HALF, SIZE));
	sync();
	before = flushes(e);
	if (before < 0)
		SKIP(return, "the kernel does not tell how often this disk is flushed");
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", HALF, SIZE - HALF, SIZE));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), CF_SOON));
	EXPECT_TRUE(CF_WAIT_FOR(flushes(e) > before, 3000));
}

/* Whoever has used it wants the data to be thrown away. */
TEST_F_TIMEOUT(early, file_that_has_its_name_is_removed, 300)
{
	struct cf_env *e = &self->e;
	char params[128];
	struct cf_msg m;
	pid_t pid;

	if (!cf_has_fscache_user())
		SKIP(return, CF_NO_FSCACHE_USER);
	/* In the place of the file system. */
	ASSERT_EQ(0, cf_blob_give_up(e, &self->b));
	snprintf(params, sizeof(params), "cache=%s volume=erofs,%s size=1 key=retired retire=1",
		 e->tag, e->domain);
	pid = cf_fork_fscache_user(params);
	ASSERT_EQ(0, cf_expect(e->dev, CF_OPEN, &m));
	ASSERT_EQ(0, cf_copen(e->dev, m.w.msg_id, 4096));
	ASSERT_EQ(0, cf_fill(m.w.open.fd, "retired", 0, 4096, 4096));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "retired", NULL, self->path), CF_SOON));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	cf_reap(pid, CF_SOON);
	EXPECT_TRUE(CF_WAIT_FOR(access(self->path, F_OK) && errno == ENOENT, CF_SOON));
	close(m.w.open.fd);
}

/* Its blocks are free as soon as it is culled, though it was to be written down later. */
TEST_F_TIMEOUT(early, file_of_a_withdrawn_object_is_not_kept_open, 300)
{
	struct cf_env *e = &self->e;
	struct statfs st;
	long before;

	/* With the directories. */
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", 0, CF_PAGE, SIZE));
	ASSERT_EQ(0, cf_blob_give_up(e, &self->b));
	ASSERT_EQ(0, cf_blob_look_up(e, &self->b, SIZE));
	ASSERT_EQ(0, statfs(e->dir, &st));
	before = st.f_bfree;
	ASSERT_EQ(0, cf_fill(self->b.anon, "blob", CF_PAGE, HALF - CF_PAGE, SIZE));
	/* Well before it is due. */
	ASSERT_EQ(0, cf_blob_give_up(e, &self->b));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(e, "blob", NULL, self->path), CF_SOON));
	ASSERT_TRUE(cf_is_released(e, self->path));
	ASSERT_EQ(0, statfs(e->dir, &st));
	EXPECT_LT(st.f_bfree, before - 8);
	ASSERT_EQ(0, chdir(dirname(strdupa(self->path))));
	EXPECT_EQ(0, cf_cmd(e->dev, "cull Dblob"));
	ASSERT_EQ(0, chdir("/"));
	EXPECT_TRUE(CF_WAIT_FOR(!statfs(e->dir, &st) && st.f_bfree >= before, CF_SOON))
		TH_LOG("%ld blocks were free, and are now %ld", before, (long)st.f_bfree);
}

/* A list of many runs, in a file system with little space for attributes. */
FIXTURE(room) {
	struct cf_env e;
	struct cf_blob b;
	char path[PATH_MAX];
};

FIXTURE_VARIANT(room) {
	const char *image;
};

FIXTURE_VARIANT_ADD(room, ext4_1k) { .image = "fs_ext4_1k.img.gz" };
FIXTURE_VARIANT_ADD(room, ext4_2k) { .image = "fs_ext4_2k.img.gz" };
/* That of all tests, see scripts/selftest --fs. */
FIXTURE_VARIANT_ADD(room, given) { };

FIXTURE_SETUP(room)
{
	int err = 0;

	if (cf_is_c())
		SKIP(return, "it keeps no list");
	ASSERT_SETUP(cf_env_init(&self->e));
	if (variant->image)
		err = cf_mount_image(&self->e, "ext4", variant->image);
	if (err == -ENOENT)
		SKIP(return, "no image of this file system");
	ASSERT_EQ(0, err);
	ASSERT_SETUP(cf_env_bind(&self->e) ?: cf_env_mount(&self->e));
}

FIXTURE_TEARDOWN(room)
{
	cf_env_end(&self->e);
}

#define RUNS		1600
#define RUNS_SIZE	(RUNS * 8192ULL)

/* Every other block. */
static int fill_runs(struct cf_blob *b, int first, int count)
{
	int i, err = 0;

	for (i = first; i < first + count && !err; i++)
		err = cf_fill(b->anon, "blob", i * 8192ULL, 4096, RUNS_SIZE);
	return err;
}

/* The first two, which are read later: no page of theirs has a hole. */
static int fill_pages(struct cf_blob *b)
{
	return cf_fill(b->anon, "blob", 0, CF_PAGE, RUNS_SIZE) ?:
		cf_fill(b->anon, "blob", 2 * CF_PAGE, CF_PAGE, RUNS_SIZE);
}

/* How many list files the cache has; `path` is that of the last. */
static int list_files(struct cf_env *e, char path[PATH_MAX])
{
	struct dirent *entry;
	int n = 0;
	DIR *dir;

	snprintf(path, PATH_MAX, "%s/lists", e->dir);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		if (*entry->d_name == '.')
			continue;
		snprintf(path, PATH_MAX, "%s/lists/%s", e->dir, entry->d_name);
		n++;
	}
	closedir(dir);
	return n;
}

/* Of how many of some blocks there is data. */
static int count_blocks(struct cf_blob *b, off_t first, off_t step, int count)
{
	off_t off;
	int n = 0;

	for (off = first; count--; off += step)
		n += lseek(b->anon, off, SEEK_DATA) == off;
	return n;
}

/* Of how many of the first runs there is data. */
static int count_runs(struct cf_blob *b, int runs)
{
	return count_blocks(b, 0, 8192, runs);
}

/* All of them, withdrawn, and the file found. */
static int make_runs(FIXTURE_DATA(room) *self)
{
	struct cf_blob *b = &self->b;
	int err;

	err = cf_blob_open(&self->e, b, "blob", RUNS_SIZE) ?: fill_pages(b) ?:
		fill_runs(b, 2, RUNS - 2) ?: cf_blob_give_up(&self->e, b);
	if (err)
		return err;
	return CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, self->path), CF_SOON) ?
		0 : -ETIMEDOUT;
}

TEST_F_TIMEOUT(room, list_may_be_of_any_length, 300)
{
	struct cf_blob *b = &self->b;
	char file[PATH_MAX];
	struct stat st, now;

	ASSERT_SETUP(make_runs(self));
	ASSERT_EQ(1, list_files(&self->e, file));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	EXPECT_EQ(RUNS, count_runs(b, RUNS));
	EXPECT_EQ(0, cf_reads_for(&self->e, b, 0, 4096));
	EXPECT_EQ(0, cf_reads_for(&self->e, b, (RUNS - 1) * 8192ULL, 4096));
	/* What is new is appended. */
	ASSERT_EQ(0, stat(file, &st));
	ASSERT_EQ(0, cf_fill(b->anon, "blob", 20 * CF_PAGE, CF_PAGE, RUNS_SIZE));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, b));
	ASSERT_TRUE(cf_is_released(&self->e, self->path));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	EXPECT_EQ(0, cf_reads_for(&self->e, b, 20 * CF_PAGE, CF_PAGE));
	ASSERT_EQ(0, stat(file, &now));
	EXPECT_LT(st.st_size, now.st_size);
	EXPECT_GT(st.st_size + 64, now.st_size);
	/* Once all is there, no list is needed. */
	ASSERT_EQ(0, cf_fill(b->anon, "blob", 0, RUNS_SIZE, RUNS_SIZE));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, b));
	ASSERT_TRUE(CF_WAIT_FOR(list_files(&self->e, file) == 0, CF_SOON));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	EXPECT_EQ(0, cf_reads_for(&self->e, b, RUNS_SIZE - 8192, 8192));
}

/* What is appended is what is new, also if that is all over the object. */
TEST_F_TIMEOUT(room, scattered_changes_are_appended_alone, 300)
{
	/* In gaps between runs, far from each other. */
	const off_t first = 10 * 8192 + 4096, step = 60 * 8192;
	const int count = 24;
	struct cf_blob *b = &self->b;
	struct stat st, now;
	char file[PATH_MAX];
	int i;

	ASSERT_SETUP(make_runs(self));
	ASSERT_EQ(1, list_files(&self->e, file));
	ASSERT_EQ(0, stat(file, &st));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	ASSERT_EQ(0, count_blocks(b, first, step, count));
	for (i = 0; i < count; i++)
		ASSERT_EQ(0, cf_fill(b->anon, "blob", first + i * step, 4096, RUNS_SIZE));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, b));
	ASSERT_TRUE(cf_is_released(&self->e, self->path));
	ASSERT_EQ(0, stat(file, &now));
	EXPECT_LT(st.st_size, now.st_size);
	/* Far less than another list of all runs. */
	EXPECT_GT(st.st_size + 20 * count, now.st_size);
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	EXPECT_EQ(count, count_blocks(b, first, step, count));
	EXPECT_EQ(RUNS, count_runs(b, RUNS));
}

/* What is left of it still counts. */
TEST_F_TIMEOUT(room, list_file_that_is_damaged_counts_as_far_as_it_makes_sense, 300)
{
	struct cf_blob *b = &self->b;
	char file[PATH_MAX];
	struct stat st;
	int fd, left;

	ASSERT_SETUP(make_runs(self));
	/* Of two records. */
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	ASSERT_EQ(0, cf_fill(b->anon, "blob", 20 * CF_PAGE, CF_PAGE, RUNS_SIZE));
	ASSERT_EQ(1, list_files(&self->e, file));
	ASSERT_EQ(0, stat(file, &st));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, b));
	ASSERT_TRUE(cf_is_released(&self->e, self->path));
	fd = open(file, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(1, pwrite(fd, "x", 1, st.st_size + 17));
	close(fd);
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	left = count_runs(b, RUNS);
	EXPECT_EQ(RUNS, left);
	EXPECT_EQ(1, cf_reads_for(&self->e, b, 20 * CF_PAGE + 4096, 4096));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, b));

	ASSERT_TRUE(cf_is_released(&self->e, self->path));
	ASSERT_EQ(1, list_files(&self->e, file));
	ASSERT_EQ(0, unlink(file));
	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	EXPECT_EQ(0, count_runs(b, RUNS));
	EXPECT_EQ(1, cf_reads_for(&self->e, b, 0, 4096));
}

TEST_F_TIMEOUT(room, culling_removes_the_list, 300)
{
	char file[PATH_MAX];

	ASSERT_SETUP(make_runs(self));
	ASSERT_TRUE(cf_is_released(&self->e, self->path));
	ASSERT_EQ(1, list_files(&self->e, file));
	ASSERT_EQ(0, chdir(dirname(self->path)));
	EXPECT_EQ(0, cf_cmd(self->e.dev, "cull Dblob"));
	ASSERT_EQ(0, chdir("/"));
	EXPECT_EQ(0, list_files(&self->e, file));
}

/* On a full disk the list cannot grow; data that is present already stays. */
TEST_F_TIMEOUT(room, full_disk_costs_no_object, 120)
{
	struct cf_blob *b = &self->b;
	char path[PATH_MAX];
	int fd;

	if (!variant->image)
		SKIP(return, "that disk is not ours to fill");
	ASSERT_EQ(0, cf_blob_open(&self->e, b, "blob", RUNS_SIZE));
	ASSERT_EQ(0, fill_pages(b));
	ASSERT_EQ(0, cf_blob_give_up(&self->e, b));
	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "blob", NULL, self->path), CF_SOON));

	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	ASSERT_EQ(0, fill_runs(b, 2, 500));
	sync();
	snprintf(path, sizeof(path), "%s/ballast", self->e.dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(-1, fallocate(fd, 0, 0, 60 << 20));
	while (write(fd, path, 512) == 512)
		;
	ASSERT_EQ(ENOSPC, errno);
	ASSERT_EQ(0, cf_blob_give_up(&self->e, b));
	sync();
	EXPECT_TRUE(cf_find_cache_file(&self->e, "blob", NULL, self->path));
	close(fd);
	ASSERT_EQ(0, unlink(path));

	ASSERT_EQ(0, cf_blob_look_up(&self->e, b, RUNS_SIZE));
	EXPECT_EQ(0, cf_reads_for(&self->e, b, 0, 4096));
	EXPECT_EQ(0, cf_reads_for(&self->e, b, 2 * CF_PAGE, 4096));
}

TEST_HARNESS_MAIN
