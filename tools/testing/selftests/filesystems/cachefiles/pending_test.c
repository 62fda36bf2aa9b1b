// SPDX-License-Identifier: GPL-2.0
/*
 * OPENs that the daemon does not answer, and READs for which no task waits: they hold
 * up neither other lookups of the machine nor an unmount nor the reclaim of memory, and
 * are cancelled when no task uses their file any more.
 */
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

/* More than fscache has workers for all network file systems together. */
#define OPENERS	1100

FIXTURE(pending) {
	struct cf_env e;
	int dev;
};

FIXTURE_SETUP(pending)
{
	struct rlimit r = { .rlim_cur = 8192, .rlim_max = 8192 };

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &r));
	ASSERT_SETUP(cf_env_all(&self->e));
	self->dev = self->e.dev;
}

FIXTURE_TEARDOWN(pending)
{
	cf_env_end(&self->e);
}

static pid_t start_opener(struct cf_env *e, const char *name)
{
	char path[512];
	pid_t pid = cf_fork();

	if (pid)
		return pid;
	snprintf(path, sizeof(path), "%s/%s", e->mnt, name);
	_exit(open(path, O_RDONLY) < 0 ? errno : 0);
}

/* Take all OPENs there are, and keep their fds: how many. */
static int take_opens(struct cf_env *e, int fds[], int max, int ms)
{
	struct cf_msg m;
	int n = 0;

	while (n < max && !cf_recv(e->dev, &m, ms))
		if (m.w.opcode == CF_OPEN)
			fds[n++] = m.w.open.fd;
	return n;
}

static int kill_all(const pid_t pids[], int n)
{
	int i, bad = 0;

	for (i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	for (i = 0; i < n; i++)
		bad += cf_reap(pids[i], CF_SOON) != 128 + SIGKILL;
	return bad;
}

TEST_F_TIMEOUT(pending, opens_do_not_keep_other_lookups_from_being_made, 600)
{
	static pid_t pids[OPENERS];
	static int fds[OPENERS];
	char name[16], dir[96];
	bool stop = cf_intended("silent-opens-stop-all");
	struct cf_blob b;
	int i;

	for (i = 0; i < OPENERS; i++) {
		snprintf(name, sizeof(name), "silent%d", i);
		pids[i] = start_opener(&self->e, name);
		ASSERT_GT(pids[i], 0);
	}
	/* C keeps a worker of fscache for each, and there are no more. */
	EXPECT_EQ(stop, take_opens(&self->e, fds, OPENERS, CF_SOON) < OPENERS);
	if (stop) {
		cf_env_close(&self->e);
		return;
	}

	/* Another file is opened, read, closed, and its object goes. */
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "good", 8192));
	cf_no_readahead(b.fd);
	EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
	close(b.fd);

	/* Another domain comes and goes. */
	snprintf(dir, sizeof(dir), "%s/other", self->e.base);
	ASSERT_EQ(0, mkdir(dir, 0700));
	EXPECT_EQ(0, cf_mount_at(dir, "other", self->e.tag));
	EXPECT_EQ(0, cf_finish(cf_start_umount(dir, 0)));
	rmdir(dir);

	EXPECT_EQ(0, kill_all(pids, OPENERS)) TH_LOG("some cannot be killed");
	for (i = 0; i < OPENERS; i++)
		close(fds[i]);
}

/* The opener is killed; the daemon gets a CLOSE. */
TEST_F_TIMEOUT(pending, open_of_a_killed_opener_is_cancelled, 120)
{
	long unwanted = cf_intended("copen-nobody-waits-for");
	struct cf_msg open, m;
	pid_t pid = start_opener(&self->e, "slow");

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));
	kill(pid, SIGKILL);
	ASSERT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	if (cf_is_c())
		SKIP(return, "C waits for the answer");
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	EXPECT_EQ(open.w.object_id, m.w.object_id);
	EXPECT_EQ(unwanted, cf_copen(self->dev, open.w.msg_id, 4096));
	close(open.w.open.fd);

	/* The next one asks anew. */
	{
		struct cf_blob b;

		ASSERT_EQ(0, cf_blob_open(&self->e, &b, "slow", 4096));
		EXPECT_NE(open.w.object_id, b.object_id);
		EXPECT_EQ(0, cf_blob_fetch(&self->e, &b, 0));
		close(b.fd);
	}
}

/* Wait for the CLOSE of an OPEN: with the file having been open, 10 s on fscache's LRU. */
static bool is_closed(struct cf_env *e, const struct cf_msg *open)
{
	struct cf_msg m;

	return CF_WAIT_FOR(!cf_recv(e->dev, &m, 1000), 2 * CF_SOON) &&
	       m.w.opcode == CF_CLOSE && m.w.object_id == open->w.object_id;
}

TEST_F_TIMEOUT(pending, no_object_stays_of_an_opener_that_was_killed, 120)
{
	pid_t pid = start_opener(&self->e, "late");
	struct cf_msg open;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));
	kill(pid, SIGKILL);
	ASSERT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	/* fscache looks after 10 s whether a cookie is still unused, and only once. */
	cf_sleep_ms(15000);
	cf_copen(self->dev, open.w.msg_id, 4096);
	EXPECT_EQ(!cf_intended("killed-opener-leaves-object"), is_closed(&self->e, &open));
	close(open.w.open.fd);
}

/*
 * Answered at the moment at which the opener is killed: no object may stay that
 * fscache would not take away.
 */
TEST_F_TIMEOUT(pending, no_object_stays_of_an_opener_that_is_killed, 300)
{
	struct cf_msg open;
	int i;

	if (cf_is_c())
		SKIP(return, "C keeps the object until somebody opens and closes the file");
	for (i = 0; i < 30; i++) {
		char name[16];
		pid_t pid;

		snprintf(name, sizeof(name), "late%d", i);
		pid = start_opener(&self->e, name);
		ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));
		if (i % 3)
			kill(pid, SIGKILL);
		cf_copen(self->dev, open.w.msg_id, 4096);
		if (!(i % 3))
			kill(pid, SIGKILL);
		cf_reap(pid, CF_SOON);
		ASSERT_TRUE(is_closed(&self->e, &open));
		close(open.w.open.fd);
	}
}

/* The second opener gets the answer to the OPEN of the first. */
TEST_F_TIMEOUT(pending, open_is_taken_over_by_the_next_opener, 120)
{
	pid_t pid = start_opener(&self->e, "shared");
	struct cf_msg open;
	struct cf_op *op;

	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));
	kill(pid, SIGKILL);
	op = cf_start_open(self->e.mnt, "shared");
	ASSERT_EQ(128 + SIGKILL, cf_reap(pid, CF_SOON));
	/* The use of the second may come just too late, or just in time. */
	cf_copen(self->dev, open.w.msg_id, 4096);
	EXPECT_LE(0, cf_answer_opens(&self->e, op, 4096));
	cf_op_free(op);
}

static long do_pwrite(struct cf_op *op)
{
	static const char block[CF_BLOCK] __attribute__((aligned(CF_BLOCK)));

	return cf_pwrite(op->fd, block, sizeof(block), op->off);
}

/* Whether fscache is looking up a cookie. */
static bool is_looking_up(void)
{
	FILE *cookies = fopen("/proc/fs/fscache/cookies", "r");
	bool found = false;
	char line[1024], state;

	while (cookies && fgets(line, sizeof(line), cookies))
		found |= sscanf(line, "%*x %*x %*d %*d %*d %c", &state) == 1 && state == 'L';
	if (cookies)
		fclose(cookies);
	return found;
}

/*
 * Answered, and no opener causes the second lookup though the cookie is in use: no object
 * and no fd may stay, and the daemon's write must not wait for an object.
 */
TEST_F_TIMEOUT(pending, answer_that_nobody_claims_is_taken_back, 120)
{
	struct cf_msg open, m;
	char params[64];
	struct cf_op *op;
	pid_t user;

	if (!cf_has_fscache_user())
		SKIP(return, CF_NO_FSCACHE_USER);
	if (cf_is_c())
		SKIP(return, "with C, a lookup waits for its answer");
	snprintf(params, sizeof(params), "cache=%s volume=v size=1 forgetful=1", self->e.tag);
	user = cf_fork_fscache_user(params);
	ASSERT_GT(user, 0);
	ASSERT_EQ(0, cf_expect(self->dev, CF_OPEN, &open));
	/* It waits a moment for its answer. */
	ASSERT_TRUE(CF_WAIT_FOR(!is_looking_up(), CF_SOON));
	ASSERT_EQ(0, cf_copen(self->dev, open.w.msg_id, 4096));
	op = cf_start(do_pwrite, NULL, open.w.open.fd, 0, 0);
	EXPECT_GT(0, cf_finish(op)) TH_LOG("written to an object that nobody has");
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	EXPECT_EQ(open.w.object_id, m.w.object_id);
	close(open.w.open.fd);
	kill(user, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, cf_reap(user, CF_SOON));
}

#define FILES	30

/* Reads ahead of files that are closed: reclaim waits once, not once for each file. */
TEST_F_TIMEOUT(pending, reclaim_waits_once_for_all_closed_files, 300)
{
	struct cf_blob b[FILES];
	struct cf_msg m;
	char name[16];
	int i, fd;
	long took;

	if (cf_is_c())
		SKIP(return, "with C, readahead itself waits for the daemon");
	for (i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "ahead%d", i);
		ASSERT_EQ(0, cf_blob_open(&self->e, &b[i], name, 1 << 20));
	}
	for (i = 0; i < FILES; i++) {
		ASSERT_EQ(0, posix_fadvise(b[i].fd, 0, 65536, POSIX_FADV_WILLNEED));
		ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
		close(b[i].fd);
	}
	fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (fd < 0)
		SKIP(return, "this kernel has no drop_caches");
	took = cf_now_ms();
	EXPECT_EQ(1, write(fd, "2", 1));
	took = cf_now_ms() - took;
	close(fd);
	/* A second for each, one after the other, was 30; they go together. */
	EXPECT_GT(FILES / 3 * 1000, took);
	for (i = 0; i < FILES; i++)
		close(b[i].anon);
}

TEST_HARNESS_MAIN
