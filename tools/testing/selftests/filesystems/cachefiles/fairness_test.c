// SPDX-License-Identifier: GPL-2.0
/*
 * A user who floods the daemon with requests neither delays the requests of others nor
 * takes the slots that they need.
 *
 * The floods are made by a user without privileges: by very many threads that read a
 * file, or open files, and by posix_fadvise(POSIX_FADV_WILLNEED), which makes READs and
 * does not wait for them, of very many files.
 */
#include <dirent.h>
#include <grp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

/* As Documentation/filesystems/caching/cachefiles-rust.rst has them. */
#define PER_OBJECT	1024
#define PER_USER	8192
#define OPENS_PER_USER	64
/* As rust/ondemandfs/read.c has it. */
#define AHEAD_OF_FILE	128

#define NOBODY		65534
#define SIZE		(65536ULL * CF_PAGE)
/* A flood makes no progress for so long: it waits.  In ms. */
#define STALLED		3000
/* How long much takes on a slow machine, in ms. */
#define LATE		120000
/* "A few": one for each queue, and what was under way. */
#define FEW		4

/* What a flood, and another reader, have done so far; shared with their processes. */
struct flood {
	atomic_int made, good;
	atomic_int stage;
	pid_t pid;
};

FIXTURE(fair) {
	struct cf_env e;
	struct flood *flood;
};

FIXTURE_SETUP(fair)
{
	if (cf_is_c())
		SKIP(return, "C has a task waiting for each READ, and one queue");
	ASSERT_SETUP(cf_env_all(&self->e));
	/* for those who are not root */
	ASSERT_EQ(0, chmod(CF_ROOT, 0755));
	ASSERT_EQ(0, mount(NULL, self->e.mnt, NULL, MS_REMOUNT, "mode=0444"));
	self->flood = mmap(NULL, sizeof(*self->flood), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->flood);
}

FIXTURE_TEARDOWN(fair)
{
	if (self->flood && self->flood->pid > 0) {
		kill(self->flood->pid, SIGKILL);
		waitpid(self->flood->pid, NULL, 0);
	}
	cf_env_end(&self->e);
}

static void become(uid_t uid)
{
	if (uid && (setgroups(0, NULL) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)))
		_exit(100);
}

/* Whether a task waits, killably, in line or for an answer. */
static bool is_waiting(const char *dir)
{
	char path[PATH_MAX], state = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/stat", dir);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	fclose(file);
	return state == 'D';
}

static bool process_is_waiting(pid_t pid)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "/proc/%d", pid);
	return is_waiting(dir);
}

static int waiting_threads(pid_t pid)
{
	char path[PATH_MAX], dir[64];
	struct dirent *d;
	int n = 0;
	DIR *all;

	snprintf(dir, sizeof(dir), "/proc/%d/task", pid);
	all = opendir(dir);
	if (!all)
		return -errno;
	while ((d = readdir(all))) {
		snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
		n += d->d_name[0] != '.' && is_waiting(path);
	}
	closedir(all);
	return n;
}

/* How many threads of the flood wait in the end; @count is what to wait for. */
static int wait_for_threads(struct flood *f, int count)
{
	long since = cf_now_ms();
	int now, before = -1;

	for (;;) {
		now = waiting_threads(f->pid);
		if (now >= count || (now == before && cf_now_ms() > since + LATE / 4))
			return now;
		if (now != before)
			since = cf_now_ms();
		before = now;
		cf_sleep_ms(100);
	}
}

struct reader {
	pthread_t thread;
	struct flood *flood;
	int fd;
	off_t off;
	char path[128];
};

static void *read_block(void *arg)
{
	struct reader *r = arg;
	char buf[CF_BLOCK];

	if (pread(r->fd, buf, sizeof(buf), r->off) == sizeof(buf) && buf[0])
		atomic_fetch_add(&r->flood->good, 1);
	atomic_fetch_add(&r->flood->made, 1);
	return NULL;
}

static void *open_file(void *arg)
{
	struct reader *r = arg;

	r->fd = open(r->path, O_RDONLY);
	if (r->fd >= 0)
		atomic_fetch_add(&r->flood->good, 1);
	atomic_fetch_add(&r->flood->made, 1);
	return NULL;
}

/*
 * Have threads of NOBODY do this for each of @all, which is freed.  Their process does not
 * keep the device open, and ends with 0 when all are done.
 */
static int start_threads(struct flood *f, struct cf_env *e, struct reader *all, int count,
			 void *(*what)(void *))
{
	pthread_attr_t attr;
	pid_t pid;

	atomic_store(&f->made, 0);
	atomic_store(&f->good, 0);
	pid = cf_fork();
	if (pid) {
		free(all);
		f->pid = pid;
		return pid < 0 ? -errno : 0;
	}

	close(e->dev);
	become(NOBODY);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 32768);
	for (int i = 0; i < count; i++)
		if (pthread_create(&all[i].thread, &attr, what, &all[i]))
			_exit(2);
	for (int i = 0; i < count; i++)
		pthread_join(all[i].thread, NULL);
	_exit(0);
}

/* Have @count threads read a block of @b each, all of them in pages that are apart. */
static int start_readers(struct flood *f, struct cf_env *e, const struct cf_blob *b, int count)
{
	struct reader *all = calloc(count, sizeof(*all));

	cf_no_readahead(b->fd);
	for (int i = 0; all && i < count; i++)
		all[i] = (struct reader){ .flood = f, .fd = b->fd, .off = i * 2LL * CF_PAGE };
	return all ? start_threads(f, e, all, count, read_block) : -ENOMEM;
}

/* Have @count threads open one of @files files each. */
static int start_openers(struct flood *f, struct cf_env *e, int count, int files)
{
	struct reader *all = calloc(count, sizeof(*all));

	for (int i = 0; all && i < count; i++) {
		all[i] = (struct reader){ .flood = f };
		snprintf(all[i].path, sizeof(all[i].path), "%s/flood_%d", e->mnt, i % files);
	}
	return all ? start_threads(f, e, all, count, open_file) : -ENOMEM;
}

/* Have as much as possible of each of these files read ahead, in pages that are apart. */
static int start_advice(struct flood *f, struct cf_env *e, const struct cf_blob *b, int nr)
{
	pid_t pid;

	atomic_store(&f->made, 0);
	pid = cf_fork();
	if (pid) {
		f->pid = pid;
		return pid < 0 ? -errno : 0;
	}

	close(e->dev);
	become(NOBODY);
	for (int n = 0; n < nr; n++) {
		for (int i = 0; i < AHEAD_OF_FILE; i++) {
			if (posix_fadvise(b[n].fd, i * 2LL * CF_PAGE, CF_BLOCK,
					  POSIX_FADV_WILLNEED))
				_exit(1);
			atomic_fetch_add(&f->made, 1);
		}
	}
	_exit(0);
}

/* How many READs it has made when it makes no more. */
static int wait_for_stall(struct flood *f)
{
	int before;

	do {
		before = atomic_load(&f->made);
		cf_sleep_ms(STALLED);
		if (waitpid(f->pid, NULL, WNOHANG) == f->pid) {
			f->pid = 0;
			break;
		}
	} while (atomic_load(&f->made) != before || !process_is_waiting(f->pid));
	return atomic_load(&f->made);
}

static int kill_flood(struct flood *f)
{
	int ret;

	kill(f->pid, SIGKILL);
	ret = cf_reap(f->pid, LATE);
	if (ret != -ETIMEDOUT)
		f->pid = 0;
	return ret;
}

static bool is_open_of(const struct cf_msg *m, const char *name)
{
	char buf[256];

	return m->w.opcode == CF_OPEN && !strcmp(cf_msg_name(m, buf), name);
}

/*
 * Take messages until the OPEN of @name, or without it a READ of @object.  Returns how
 * many others came before it, or -errno.
 */
static int recv_past(int dev, const char *name, uint32_t object, struct cf_msg *m)
{
	for (int n = 0; n <= 2 * PER_USER; n++) {
		int err = cf_recv(dev, m, CF_SOON);

		if (err)
			return err;
		if (name ? is_open_of(m, name) :
			   m->w.opcode == CF_READ && m->w.object_id == object)
			return n;
	}
	return -ENOENT;
}

/* Open @name and read a block of it as @uid, in a process of its own. */
static pid_t start_reader(struct flood *f, struct cf_env *e, const char *name, uid_t uid)
{
	char path[512], buf[CF_BLOCK];
	pid_t pid;
	int fd;

	atomic_store(&f->stage, 0);
	snprintf(path, sizeof(path), "%s/%s", e->mnt, name);
	pid = cf_fork();
	if (pid)
		return pid;
	close(e->dev);
	become(uid);
	atomic_store(&f->stage, 1);
	fd = open(path, O_RDONLY);
	atomic_store(&f->stage, 2);
	if (fd < 0 || pread(fd, buf, sizeof(buf), 0) != sizeof(buf))
		_exit(1);
	_exit(cf_check(name, 0, buf, sizeof(buf)) == -1 ? 0 : 2);
}

/* The same, as its daemon: the most messages that its OPEN or its READ had to wait for. */
static int read_another(struct flood *f, struct cf_env *e, const char *name, uid_t uid)
{
	struct cf_blob b = { .size = CF_BLOCK };
	pid_t pid = start_reader(f, e, name, uid);
	int opened, wanted, ret;
	struct cf_msg m;

	/* The daemon takes nothing before what is measured has been queued. */
	CF_WAIT_FOR(atomic_load(&f->stage) == 1 && process_is_waiting(pid), LATE);
	snprintf(b.name, sizeof(b.name), "%s", name);
	opened = recv_past(e->dev, name, 0, &m);
	if (opened < 0)
		return opened;
	b.anon = m.w.open.fd;
	b.object_id = m.w.object_id;
	ret = cf_copen(e->dev, m.w.msg_id, b.size);
	if (ret)
		return ret;
	CF_WAIT_FOR(atomic_load(&f->stage) == 2 && process_is_waiting(pid), LATE);
	wanted = recv_past(e->dev, NULL, b.object_id, &m);
	if (wanted < 0)
		return wanted;
	ret = cf_blob_answer_read(&b, &m) ?: -cf_reap(pid, CF_SOON);
	close(b.anon);
	return ret ?: (opened > wanted ? opened : wanted);
}

/* How many READs of @b there are to be taken. */
static int count_reads(struct cf_env *e, const struct cf_blob *b)
{
	struct cf_msg m;
	int n = 0;

	while (cf_readable(e->dev, STALLED)) {
		if (cf_expect(e->dev, CF_READ, &m) || m.w.object_id != b->object_id)
			return -EPROTO;
		n++;
	}
	return n;
}

TEST_F_TIMEOUT(fair, a_flood_of_reads_delays_others_by_a_few_messages, 600)
{
	int others, count = PER_OBJECT + 50;
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "flooded", SIZE));
	ASSERT_EQ(0, start_readers(self->flood, &self->e, &b, count));
	ASSERT_EQ(count, wait_for_threads(self->flood, count));

	others = read_another(self->flood, &self->e, "another", 0);
	EXPECT_GE(others, 0);
	EXPECT_LE(others, FEW);
	others = read_another(self->flood, &self->e, "one_more", NOBODY);
	EXPECT_GE(others, 0);
	EXPECT_LE(others, FEW);
	/* Nearly all are still there, and not one more than may be. */
	others = count_reads(&self->e, &b);
	EXPECT_LE(others, PER_OBJECT);
	EXPECT_GE(others, PER_OBJECT - 4 * FEW);

	/* Tasks that wait can be killed, and their requests end. */
	EXPECT_EQ(128 + SIGKILL, kill_flood(self->flood));
	close(b.fd);
	EXPECT_EQ(0, cf_env_umount_soon(&self->e));
	close(b.anon);
}

TEST_F_TIMEOUT(fair, who_waits_goes_on_when_others_are_answered, 600)
{
	int count = PER_OBJECT + 300, reads = 0, ret;
	struct cf_blob b;
	struct cf_msg m;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "flooded", SIZE));
	ASSERT_EQ(0, start_readers(self->flood, &self->e, &b, count));
	ASSERT_EQ(count, wait_for_threads(self->flood, count));
	for (; reads < count; reads++) {
		ASSERT_EQ(0, cf_recv(self->e.dev, &m, LATE));
		ASSERT_EQ(0, cf_blob_answer_read(&b, &m));
	}
	ret = cf_reap(self->flood->pid, LATE);
	EXPECT_EQ(0, ret);
	if (ret == 0)
		self->flood->pid = 0;
	EXPECT_EQ(count, atomic_load(&self->flood->good));
	EXPECT_FALSE(cf_readable(self->e.dev, CF_NEVER));
	close(b.fd);
	close(b.anon);
}

/* Files from which a user asks for as much as he may have. */
#define FLOODED	(PER_USER / AHEAD_OF_FILE + 2)

/* The user NOBODY floods the daemon until it has to wait: after how many READs. */
static int flood_as_nobody(struct flood *f, struct cf_env *e, struct cf_blob b[FLOODED])
{
	char name[32];
	int err;

	for (int i = 0; i < FLOODED; i++) {
		snprintf(name, sizeof(name), "flooded_%d", i);
		err = cf_blob_open(e, &b[i], name, SIZE);
		if (err)
			return err;
	}
	err = start_advice(f, e, b, FLOODED);
	return err ?: wait_for_stall(f);
}

static void close_flooded(struct cf_blob b[FLOODED])
{
	for (int i = 0; i < FLOODED; i++) {
		close(b[i].fd);
		close(b[i].anon);
	}
}

TEST_F_TIMEOUT(fair, a_user_does_not_take_all_there_is, 900)
{
	static struct cf_blob b[FLOODED];
	int others;

	EXPECT_EQ(PER_USER, flood_as_nobody(self->flood, &self->e, b));

	/* These wait for the READs of each object to have had their turn. */
	others = read_another(self->flood, &self->e, "another", NOBODY - 1);
	EXPECT_GE(others, 0);
	EXPECT_LE(others, 2 * FLOODED + FEW);
	others = read_another(self->flood, &self->e, "one_more", 0);
	EXPECT_GE(others, 0);
	EXPECT_LE(others, 2 * FLOODED + FEW);
	EXPECT_EQ(128 + SIGKILL, kill_flood(self->flood));
	close_flooded(b);
}

/* Read the first block of an open file as @uid. */
static pid_t start_reader_of(struct cf_env *e, int fd, uid_t uid)
{
	char buf[CF_BLOCK];
	pid_t pid = cf_fork();

	if (pid)
		return pid;
	close(e->dev);
	become(uid);
	_exit(pread(fd, buf, sizeof(buf), 0) < 0);
}

/* EROFS reads its image with the credentials of the task that mounted it. */
TEST_F_TIMEOUT(fair, who_reads_an_erofs_is_the_user_he_is, 900)
{
	static struct cf_blob b[FLOODED];
	struct cf_daemon *d;
	struct cf_msg m;
	pid_t same, other;
	int fd, n;

	if (cf_image_size(CF_IMAGE) < 0)
		SKIP(return, "no " CF_IMAGE " beside the program: rebuild with mkfs.erofs");
	d = cf_image_daemon(self->e.dev);
	ASSERT_NE(NULL, d);
	ASSERT_EQ(0, cf_daemon_start(d, 1));
	ASSERT_EQ(0, cf_mount_erofs(&self->e, CF_IMAGE, NULL));
	fd = cf_finish(cf_start_open(self->e.erofs, "f5"));
	ASSERT_GE(fd, 0);
	cf_no_readahead(fd);
	cf_daemon_stop(d);

	EXPECT_EQ(PER_USER, flood_as_nobody(self->flood, &self->e, b));
	for (n = 0; n < PER_USER; n++)
		ASSERT_EQ(0, cf_expect(self->e.dev, CF_READ, &m));

	same = start_reader_of(&self->e, fd, NOBODY);
	CF_WAIT_FOR(process_is_waiting(same), LATE);
	EXPECT_FALSE(cf_readable(self->e.dev, STALLED)) TH_LOG("he has more than one may have");
	kill(same, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, cf_reap(same, LATE));
	other = start_reader_of(&self->e, fd, NOBODY - 1);
	EXPECT_EQ(0, cf_expect(self->e.dev, CF_READ, &m)) TH_LOG("it waits for NOBODY");

	EXPECT_EQ(128 + SIGKILL, kill_flood(self->flood));
	cf_env_close(&self->e);
	EXPECT_EQ(1, cf_reap(other, LATE));
	close(fd);
	close_flooded(b);
	cf_daemon_close_fds(d);
	cf_daemon_free(d);
}

TEST_F_TIMEOUT(fair, nobody_waits_for_a_daemon_that_is_gone, 600)
{
	int count = PER_OBJECT + 20, ret;
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "flooded", SIZE));
	ASSERT_EQ(0, start_readers(self->flood, &self->e, &b, count));
	ASSERT_EQ(count, wait_for_threads(self->flood, count));
	cf_env_close(&self->e);
	ret = cf_reap(self->flood->pid, LATE);
	EXPECT_EQ(0, ret);
	if (ret == 0)
		self->flood->pid = 0;
	EXPECT_EQ(count, atomic_load(&self->flood->made));
	EXPECT_EQ(0, atomic_load(&self->flood->good));
	close(b.fd);
	close(b.anon);
}

TEST_F_TIMEOUT(fair, a_flood_of_opens_delays_a_read_by_a_message, 120)
{
	enum { NR = 100 };
	struct cf_op *opens[NR], *op;
	struct cf_blob b;
	struct cf_msg m;
	char name[32];
	int others;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "read", SIZE));
	cf_no_readahead(b.fd);
	for (int i = 0; i < NR; i++) {
		snprintf(name, sizeof(name), "flood_%d", i);
		opens[i] = cf_start_open(self->e.mnt, name);
	}
	ASSERT_TRUE(cf_readable(self->e.dev, CF_SOON));
	/* Until most of them are there. */
	cf_sleep_ms(STALLED);
	op = cf_start_pread(b.fd, 0, CF_BLOCK);
	cf_sleep_ms(STALLED);
	others = recv_past(self->e.dev, NULL, b.object_id, &m);
	EXPECT_GE(others, 0);
	EXPECT_LE(others, FEW);
	EXPECT_EQ(0, cf_blob_answer_read(&b, &m));
	EXPECT_EQ(CF_BLOCK, cf_finish(op));
	cf_env_close(&self->e);
	for (int i = 0; i < NR; i++)
		EXPECT_LT(cf_finish(opens[i]), 0);
	close(b.fd);
	close(b.anon);
}

/* More than one user may have under way, in a process that leaves room for others. */
#define OPENERS	(3 * OPENS_PER_USER)

TEST_F_TIMEOUT(fair, a_flood_of_opens_delays_an_open_by_few_messages, 300)
{
	int others;

	ASSERT_EQ(0, start_openers(self->flood, &self->e, OPENERS, OPENERS));
	ASSERT_EQ(OPENERS, wait_for_threads(self->flood, OPENERS));
	others = read_another(self->flood, &self->e, "another", NOBODY - 1);
	EXPECT_GE(others, OPENS_PER_USER - FEW);
	EXPECT_LE(others, OPENS_PER_USER + FEW);
	/* Those have been taken, and are not answered: no more come. */
	others = read_another(self->flood, &self->e, "one_more", 0);
	EXPECT_GE(others, 0);
	EXPECT_LE(others, FEW);
	EXPECT_EQ(128 + SIGKILL, kill_flood(self->flood));
}

/* Openers that share the OPEN of another opener are not in line themselves. */
TEST_F_TIMEOUT(fair, openers_of_one_file_do_not_keep_their_user_from_others, 300)
{
	pid_t pid = start_reader(self->flood, &self->e, "flood_0", 0);
	struct cf_msg m;
	int others;

	ASSERT_EQ(0, recv_past(self->e.dev, "flood_0", 0, &m));
	ASSERT_EQ(0, start_openers(self->flood, &self->e, OPENERS, 1));
	ASSERT_EQ(OPENERS, wait_for_threads(self->flood, OPENERS));
	others = read_another(self->flood, &self->e, "another", NOBODY);
	EXPECT_GE(others, 0);
	EXPECT_LE(others, FEW);

	ASSERT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, -EIO));
	close(m.w.open.fd);
	EXPECT_EQ(0, cf_reap(self->flood->pid, LATE));
	self->flood->pid = 0;
	EXPECT_EQ(0, atomic_load(&self->flood->good));
	EXPECT_EQ(1, cf_reap(pid, LATE));
}

TEST_F_TIMEOUT(fair, who_waits_to_open_goes_on_when_others_are_answered, 300)
{
	struct cf_msg m;
	int opens;

	ASSERT_EQ(0, start_openers(self->flood, &self->e, OPENERS, OPENERS));
	for (opens = 0; opens < OPENERS; opens++) {
		ASSERT_EQ(0, cf_expect(self->e.dev, CF_OPEN, &m));
		ASSERT_EQ(0, cf_copen(self->e.dev, m.w.msg_id, opens % 2 ? CF_BLOCK : -EIO));
		close(m.w.open.fd);
	}
	EXPECT_EQ(0, cf_reap(self->flood->pid, LATE));
	self->flood->pid = 0;
	EXPECT_EQ(OPENERS, atomic_load(&self->flood->made));
	EXPECT_EQ(OPENERS / 2, atomic_load(&self->flood->good));
}

TEST_F_TIMEOUT(fair, a_forced_unmount_ends_all_who_wait_to_open, 300)
{
	struct cf_blob b;
	bool gone;

	ASSERT_EQ(0, start_openers(self->flood, &self->e, OPENERS, OPENERS));
	ASSERT_EQ(OPENERS, wait_for_threads(self->flood, OPENERS));
	/* EBUSY, unless all are out before it looks. */
	gone = umount2(self->e.mnt, MNT_FORCE) == 0;
	EXPECT_EQ(0, cf_reap(self->flood->pid, LATE));
	self->flood->pid = 0;
	EXPECT_EQ(OPENERS, atomic_load(&self->flood->made));
	EXPECT_EQ(0, atomic_load(&self->flood->good));

	/* The user has all that he may have again. */
	if (gone || cf_env_umount(&self->e) == 0)
		ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "later", CF_BLOCK));
	close(b.fd);
	close(b.anon);
}

TEST_F_TIMEOUT(fair, opens_that_nobody_wants_reach_no_daemon, 300)
{
	struct cf_msg m;

	ASSERT_EQ(0, start_openers(self->flood, &self->e, OPENERS, OPENERS));
	ASSERT_EQ(OPENERS, wait_for_threads(self->flood, OPENERS));
	EXPECT_TRUE(cf_readable(self->e.dev, 0));
	EXPECT_EQ(128 + SIGKILL, kill_flood(self->flood));
	EXPECT_EQ(-ETIMEDOUT, cf_recv(self->e.dev, &m, CF_NEVER));
}

/* As cf_env_all(), with a time limit for the daemon. */
FIXTURE(limited) {
	struct cf_env e;
	struct flood *flood;
};

FIXTURE_SETUP(limited)
{
	if (cf_is_c())
		SKIP(return, "C has no time limit");
	ASSERT_SETUP(cf_env_all_with(&self->e, " timeout=20"));
	self->flood = mmap(NULL, sizeof(*self->flood), PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->flood);
}

FIXTURE_TEARDOWN(limited)
{
	if (self->flood && self->flood->pid > 0) {
		kill(self->flood->pid, SIGKILL);
		waitpid(self->flood->pid, NULL, 0);
	}
	cf_env_end(&self->e);
}

TEST_F_TIMEOUT(limited, nobody_waits_longer_than_the_limit, 600)
{
	int count = PER_OBJECT + 20;
	struct cf_blob b;

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "flooded", SIZE));
	ASSERT_EQ(0, start_readers(self->flood, &self->e, &b, count));
	EXPECT_EQ(0, cf_reap(self->flood->pid, 2 * LATE));
	EXPECT_EQ(count, atomic_load(&self->flood->made));
	EXPECT_EQ(0, atomic_load(&self->flood->good));
	self->flood->pid = 0;
	close(b.fd);
	close(b.anon);
}

TEST_HARNESS_MAIN
