// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints of classic mode: that each is there when what it is for happens, and says what
 * the test knows of that.  Their formats are compared in trace_test.
 */
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/swap.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "faults.h"
#include "testfs.h"

#define TRACEFS	"/sys/kernel/tracing"
#define BLOCK	CF_BLOCK
#define FILE_SIZE	(3 * BLOCK + 100)
#define WHOLE	(4 * BLOCK)
#define XATTR	"user.CacheFiles.cache"
#define LIMIT	600	/* in seconds, as in classic_test */

static bool put(const char *dir, const char *file, const char *value)
{
	char path[PATH_MAX];
	bool done;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_TRUNC);
	done = fd >= 0 && write(fd, value, strlen(value)) == strlen(value);
	if (fd >= 0)
		close(fd);
	return done;
}

FIXTURE(events) {
	struct tf t;
	char dir[128];		/* what is traced, in a buffer of its own */
	char text[1 << 16];	/* what told() returned last */
	char path[PATH_MAX];	/* of the file of "a", once it has its name */
	unsigned int obj;	/* the object of "a" */
	unsigned long long ino, fan, volume;	/* that file, and the directories that it is in */
	char swap[PATH_MAX];	/* what is to be swapped off at the end */
};

FIXTURE_SETUP(events)
{
	if (!tf_is_there())
		SKIP(return, TF_NONE);
	ASSERT_SETUP_T(tf_init(&self->t));
	if (access(TRACEFS "/events", F_OK))
		mount("tracefs", TRACEFS, "tracefs", 0, NULL);
	snprintf(self->dir, sizeof(self->dir), TRACEFS "/instances/classic.%d", getpid());
	if (mkdir(self->dir, 0700)) {
		self->dir[0] = 0;
		SKIP(return, "there is nothing to trace with");
	}
	ASSERT_TRUE(put(self->dir, "events/cachefiles/enable", "1"));
}

FIXTURE_TEARDOWN(events)
{
	if (self->swap[0])
		swapoff(self->swap);
	put("/proc/sys/cachefiles", "error_injection", "0");
	tf_end(&self->t);
	if (self->dir[0])
		rmdir(self->dir);
}

/* All events since forget(), one a line, from their names on. */
static const char *told(FIXTURE_DATA(events) *self)
{
	char path[PATH_MAX], line[512];
	size_t len = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/trace", self->dir);
	f = fopen(path, "re");
	self->text[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		char *event = strstr(line, ": cachefiles_");

		if (*line == '#' || !event || len + strlen(event) >= sizeof(self->text))
			continue;
		len += sprintf(self->text + len, "%s", event + 2);
	}
	if (f)
		fclose(f);
	return self->text;
}

static void forget(FIXTURE_DATA(events) *self)
{
	put(self->dir, "trace", "");
}

/* How many events say just this. */
static int count(FIXTURE_DATA(events) *self, const char *want)
{
	const char *line = told(self);
	size_t len = strlen(want);
	int n = 0;

	for (; *line; line = strchr(line, '\n') + 1)
		n += !strncmp(line, want, len) && line[len] == '\n';
	return n;
}

/* One event says this, and no other: with the prefix "cachefiles_". */
#define EXPECT_TOLD_TIMES(times, ...) do {				\
	char __want[256];						\
									\
	snprintf(__want, sizeof(__want), "cachefiles_" __VA_ARGS__);	\
	EXPECT_EQ(times, count(self, __want))				\
		TH_LOG("\"%s\" in\n%s", __want, self->text);		\
} while (0)
#define EXPECT_TOLD(...) EXPECT_TOLD_TIMES(1, __VA_ARGS__)
/* Some events say this. */
#define EXPECT_TOLD_SOMETIMES(...) do {					\
	char __want[256];						\
									\
	snprintf(__want, sizeof(__want), "cachefiles_" __VA_ARGS__);	\
	EXPECT_LE(1, count(self, __want))				\
		TH_LOG("\"%s\" in\n%s", __want, self->text);		\
} while (0)

static unsigned long long ino_of(const char *path)
{
	struct stat st;

	return stat(path, &st) ? 0 : st.st_ino;
}

/* Find out what a new object is called in the events. */
static int learn_object(FIXTURE_DATA(events) *self)
{
	unsigned int cookie;
	const char *line;

	line = strstr(told(self), " NEW obj\n");
	if (!line)
		return -ENOENT;
	while (line > self->text && line[-1] != '\n')
		line--;
	if (sscanf(line, "cachefiles_ref: c=%x o=%x u=1", &cookie, &self->obj) != 2)
		return -EPROTO;
	return cf_intended("trace-tells-cookie") == (cookie == self->obj) ? 0 : -EBADMSG;
}

/* Find out where its file is. */
static int learn_file(FIXTURE_DATA(events) *self)
{
	char path[PATH_MAX];
	int err;

	err = tf_cache_file_soon(&self->t, "a", self->path);
	if (err)
		return err;
	strcpy(path, self->path);
	self->ino = ino_of(path);
	*strrchr(path, '/') = 0;
	self->fan = ino_of(path);
	*strrchr(path, '/') = 0;
	self->volume = ino_of(path);
	return 0;
}

/* What the first 8 bytes of the file's auxiliary data are in an event. */
static unsigned long long aux_of(const char *path)
{
	unsigned char attr[512];
	unsigned long long aux = 0;
	ssize_t len = getxattr(path, XATTR, attr, sizeof(attr));
	int i;

	for (i = 18; i < 26; i++)
		aux = aux << 8 | (i < len ? attr[i] : 0);
	return aux;
}

/* Nobody uses the client, and its one object is gone. */
#define END() do {							\
	ASSERT_EQ(0, tf_umount(&self->t));				\
	EXPECT_TRUE(CF_WAIT_FOR(strstr(told(self), " u=1 PUT detach\n"), CF_SOON))	\
		TH_LOG("%s", self->text);				\
} while (0)

/* "a" is in the cache, and everything is at rest. */
#define FILL() do {							\
	ASSERT_SETUP_T(tf_bind(&self->t, NULL));			\
	ASSERT_SETUP_T(tf_mount(&self->t, ""));				\
	ASSERT_EQ(0, tf_file(&self->t, "a", FILE_SIZE, 1));			\
	ASSERT_EQ(0, tf_fill(&self->t, "a"));				\
	ASSERT_EQ(0, learn_object(self)) TH_LOG("%s", self->text);	\
	END();								\
	ASSERT_EQ(0, learn_file(self));					\
} while (0)

/* The same client again, and the same file, from here on. */
#define AGAIN() do {							\
	forget(self);							\
	ASSERT_SETUP_T(tf_mount(&self->t, ""));				\
	ASSERT_EQ(0, tf_same(&self->t, "a"));				\
	ASSERT_EQ(0, learn_object(self)) TH_LOG("%s", self->text);	\
} while (0)

TEST_F_TIMEOUT(events, of_a_cache_and_a_volume, LIMIT)
{
	unsigned long long root, store, graveyard;
	struct tf *t = &self->t;
	char path[PATH_MAX];

	FILL();
	root = ino_of(t->e.dir);
	snprintf(path, sizeof(path), "%s/cache", t->e.dir);
	store = ino_of(path);
	snprintf(path, sizeof(path), "%s/graveyard", t->e.dir);
	graveyard = ino_of(path);
	EXPECT_TOLD("mkdir: dB=%llx sB=%llx", root, store);
	EXPECT_TOLD("mkdir: dB=%llx sB=%llx", root, graveyard);
	EXPECT_TOLD("mkdir: dB=%llx sB=%llx", store, self->volume);
	EXPECT_TOLD("mkdir: dB=%llx sB=%llx", self->volume, self->fan);
	EXPECT_TOLD("mark_active: o=00000000 B=%llx", store);
	EXPECT_TOLD("mark_active: o=00000000 B=%llx", graveyard);
	EXPECT_TOLD("mark_active: o=00000000 B=%llx", self->volume);
	EXPECT_TOLD("mark_active: o=00000000 B=%llx", self->fan);
	EXPECT_NE(NULL, strstr(told(self), " VOL SET ok   B="));
	EXPECT_EQ(NULL, strstr(told(self), "mark_failed"));
	EXPECT_EQ(NULL, strstr(told(self), "_error"));

	AGAIN();
	EXPECT_TOLD("lookup: o=00000000 dB=%llx B=%llx e=0", store, self->volume);
	EXPECT_NE(NULL, strstr(told(self), " VOL OK       B="));
	EXPECT_EQ(NULL, strstr(told(self), "mkdir"));

	forget(self);
	END();
	cf_env_close(&t->e);
	EXPECT_TOLD("mark_inactive: o=00000000 B=%llx", self->fan);
	EXPECT_TOLD("mark_inactive: o=00000000 B=%llx", self->volume);
	EXPECT_TOLD("mark_inactive: o=00000000 B=%llx", store);
	EXPECT_TOLD("mark_inactive: o=00000000 B=%llx", graveyard);
}

/* The number of the volume, as fscache shows it. */
static unsigned int volume_number(const char *key)
{
	unsigned int number = 0, found;
	char line[512], name[256];
	FILE *f = fopen("/proc/fs/fscache/volumes", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%x %*s %*s %*s %*s %*s %255s", &found, name) == 2 &&
		    strstr(name, key))
			number = found;
	if (f)
		fclose(f);
	return number;
}

TEST_F_TIMEOUT(events, of_a_volume_without_its_attribute, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];

	FILL();
	cf_env_close(&t->e);
	strcpy(path, self->path);
	*strrchr(path, '/') = 0;
	*strrchr(path, '/') = 0;
	ASSERT_EQ(0, removexattr(path, XATTR));
	ASSERT_SETUP_T(tf_bind(t, NULL));
	forget(self);
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_same(t, "a"));
	ASSERT_NE(0, volume_number(t->key));
	/* C tries again with the next file. */
	EXPECT_TOLD_SOMETIMES("vfs_error: o=00000000 B=%llx getxattr e=-61", self->volume);
	EXPECT_TOLD_SOMETIMES("vol_coherency: V=%08x VOL BAD xatt B=%llx", volume_number(t->key),
		    self->volume);
	if (!cf_intended("classic-volume-without-attribute"))
		return;
	EXPECT_TOLD("rename: o=ffffffff B=%llx w=volume_weird", self->volume);
	strcpy(path, self->path);
	*strrchr(path, '/') = 0;
	*strrchr(path, '/') = 0;
	EXPECT_TOLD("vol_coherency: V=%08x VOL SET ok   B=%llx", volume_number(t->key),
		    ino_of(path));
}

TEST_F_TIMEOUT(events, of_an_object_that_is_new, LIMIT)
{
	unsigned long long aux;

	FILL();
	aux = aux_of(self->path);
	ASSERT_NE(0, aux);
	EXPECT_NE(NULL, strstr(told(self), " u=1 SEE lookup_cookie\n"));
	EXPECT_NE(NULL, strstr(told(self), " u=1 SEE withdraw_cookie\n"));
	EXPECT_NE(NULL, strstr(told(self), " u=1 SEE clean_commit\n"));
	EXPECT_NE(NULL, strstr(told(self), " u=1 PUT detach\n"));
	EXPECT_EQ(NULL, strstr(told(self), " SEE clean_delete\n"));
	EXPECT_EQ(NULL, strstr(told(self), " SEE clean_drop_tmp\n"));
	EXPECT_NE(NULL, strstr(told(self), " B=0 e=-2\n"));
	EXPECT_TOLD("tmpfile: o=%08x B=%llx", self->obj, self->ino);
	EXPECT_TOLD("trunc: o=%08x B=%llx EXPTMP l=0->%x", self->obj, self->ino, WHOLE);
	EXPECT_NE(NULL, strstr(told(self), " DOWN no-data "));
	EXPECT_TOLD("write: o=%08x B=%llx s=0 l=%x", self->obj, self->ino, WHOLE);
	EXPECT_TOLD("coherency: o=%08x SET ok   B=%llx c=%u aux=%llx dsk=%llx", self->obj,
		    self->ino, cf_is_c() ? 0 : 2, aux, aux);
	EXPECT_TOLD("link: o=%08x B=%llx", self->obj, self->ino);
	EXPECT_TOLD("mark_active: o=%08x B=%llx", self->obj, self->ino);
	EXPECT_TOLD("mark_inactive: o=%08x B=%llx", self->obj, self->ino);
}

TEST_F_TIMEOUT(events, of_an_object_that_is_found, LIMIT)
{
	unsigned long long aux;
	char prep[128];

	FILL();
	AGAIN();
	aux = aux_of(self->path);
	EXPECT_TOLD("lookup: o=%08x dB=%llx B=%llx e=0", self->obj, self->fan, self->ino);
	EXPECT_TOLD("mark_active: o=%08x B=%llx", self->obj, self->ino);
	EXPECT_TOLD("coherency: o=%08x OK       B=%llx c=%u aux=%llx dsk=%llx", self->obj,
		    self->ino, cf_is_c() ? 0 : 2, aux, aux);
	snprintf(prep, sizeof(prep), "prep_read: o=%08x READ have-data  f=", self->obj);
	EXPECT_NE(NULL, strstr(told(self), prep)) TH_LOG("%s", self->text);
	snprintf(prep, sizeof(prep), " B=%llx\n", self->ino);
	EXPECT_NE(NULL, strstr(strstr(told(self), "prep_read: ") ?: "", prep));
	EXPECT_TOLD("read: o=%08x B=%llx s=0 l=%x", self->obj, self->ino, WHOLE);
	EXPECT_EQ(NULL, strstr(told(self), "cachefiles_write"));
	EXPECT_EQ(NULL, strstr(told(self), "_error"));

	forget(self);
	END();
	EXPECT_TOLD("mark_inactive: o=%08x B=%llx", self->obj, self->ino);
}

TEST_F_TIMEOUT(events, of_an_object_that_is_out_of_date, LIMIT)
{
	struct tf *t = &self->t;
	unsigned long long old, aux;

	FILL();
	old = aux_of(self->path);
	ASSERT_EQ(0, tf_file(t, "a", FILE_SIZE, 2));
	AGAIN();
	END();
	EXPECT_TOLD("unlink: o=%08x B=%llx w=stale", self->obj, self->ino);
	aux = aux_of(self->path);
	EXPECT_NE(old, aux);
	EXPECT_TOLD("coherency: o=%08x BAD aux  B=%llx c=%u aux=%llx dsk=%llx", self->obj,
		    self->ino, cf_is_c() ? 0 : 2, aux, old);
	EXPECT_TOLD("link: o=%08x B=%llx", self->obj, ino_of(self->path));
}

TEST_F_TIMEOUT(events, of_an_attribute_that_is_wrong, LIMIT)
{
	char attr[512];
	ssize_t len;
	int i;

	FILL();
	for (i = 0; i < 4; i++) {
		static const struct {
			int at;
			const char *why;
		} wrong[] = {
			{ 7, "BAD osiz" },	/* the size */
			{ 16, "BAD type" },
			{ 17, "BAD dirt" },	/* the content is 4 then */
			{ -1, "BAD xatt" },	/* one byte too many */
		};

		len = getxattr(self->path, XATTR, attr, sizeof(attr) - 1);
		ASSERT_LT(18, len);
		if (wrong[i].at < 0)
			attr[len++] = 0;
		else if (wrong[i].at == 17)
			attr[17] = 4;
		else
			attr[wrong[i].at] ^= 1;
		ASSERT_EQ(0, setxattr(self->path, XATTR, attr, len, 0));
		/* C does not find the longer one stale: it cannot read it. */
		if (wrong[i].at < 0 && cf_is_c())
			break;
		AGAIN();
		END();
		EXPECT_NE(NULL, strstr(told(self), wrong[i].why))
			TH_LOG("%s in\n%s", wrong[i].why, self->text);
		EXPECT_TOLD("unlink: o=%08x B=%llx w=stale", self->obj, self->ino);
		ASSERT_EQ(0, learn_file(self));
	}
}

TEST_F_TIMEOUT(events, of_culling, LIMIT)
{
	struct tf *t = &self->t;
	char path[PATH_MAX];

	FILL();
	AGAIN();
	strcpy(path, self->path);
	*strrchr(path, '/') = 0;
	ASSERT_EQ(0, chdir(path));
	EXPECT_EQ(-EBUSY, cf_cmd(t->e.dev, "cull Da"));
	EXPECT_TOLD_TIMES(cf_is_c() ? 0 : 1, "mark_failed: o=00000000 B=%llx", self->ino);
	END();
	forget(self);
	EXPECT_EQ(0, cf_cmd(t->e.dev, "cull Da"));
	EXPECT_TOLD("unlink: o=ffffffff B=%llx w=was_culled", self->ino);
	ASSERT_EQ(0, chdir("/"));
}

TEST_F_TIMEOUT(events, of_something_else_in_its_place, LIMIT)
{
	unsigned long long ino;
	struct stat st;

	FILL();
	ASSERT_EQ(0, unlink(self->path));
	ASSERT_EQ(0, symlink("nowhere", self->path));
	ASSERT_EQ(0, lstat(self->path, &st));
	ino = st.st_ino;
	AGAIN();
	EXPECT_TOLD("unlink: o=%08x B=%llx w=weird", self->obj, ino);
}

TEST_F_TIMEOUT(events, of_an_invalidation, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	FILL();
	AGAIN();
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, tf_file(t, "a", FILE_SIZE, 2));
	/* The client finds out. */
	ASSERT_EQ(FILE_SIZE, tf_stat(t, "a"));
	ASSERT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	close(fd);
	END();
	EXPECT_TOLD("unlink: o=%08x B=%llx w=inval", self->obj, self->ino);
	EXPECT_TOLD("tmpfile: o=%08x B=%llx", self->obj, ino_of(self->path));
	EXPECT_TOLD("link: o=%08x B=%llx", self->obj, ino_of(self->path));
}

TEST_F_TIMEOUT(events, of_truncation, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	FILL();
	AGAIN();
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	forget(self);
	ASSERT_EQ(0, ftruncate(fd, BLOCK + 200));
	close(fd);
	END();
	EXPECT_TOLD("trunc: o=%08x B=%llx SHRINK l=%x->%x", self->obj, self->ino, WHOLE,
		    2 * BLOCK);
	EXPECT_TOLD("trunc: o=%08x B=%llx DIOADJ l=%x->%x", self->obj, self->ino, 2 * BLOCK,
		    BLOCK + 200);
	/* The file is marked first: that is why its attribute is written twice. */
	EXPECT_NE(NULL, strstr(told(self), " SET ok "));
}

/* A swap file cannot be truncated, whoever tries. */
TEST_F_TIMEOUT(events, of_errors, LIMIT)
{
	struct tf *t = &self->t;
	int fd;

	if (sysconf(_SC_PAGESIZE) != BLOCK)
		SKIP(return, "for pages of 4 KiB");
	ASSERT_SETUP_T(tf_bind(t, NULL));
	ASSERT_EQ(0, tf_swap_file(t, "a"));
	ASSERT_SETUP_T(tf_mount(t, ""));
	ASSERT_EQ(0, tf_fill(t, "a"));
	END();
	ASSERT_EQ(0, learn_file(self));
	AGAIN();
	strcpy(self->swap, self->path);
	fd = tf_open(t, "a", O_RDWR);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, swapon(self->swap, 0));
	forget(self);
	ASSERT_EQ(0, ftruncate(fd, 3 * BLOCK));
	EXPECT_TRUE(CF_WAIT_FOR(strstr(told(self), "io_error"), CF_SOON));
	ASSERT_EQ(0, swapoff(self->swap));
	self->swap[0] = 0;
	close(fd);
	EXPECT_TOLD("io_error: o=%08x B=%llx trunc e=-26", self->obj, self->ino);
}

/* The state of a cache, as a letter of /proc/fs/fscache/caches; 0 if there is none. */
static char cache_state(const char *tag)
{
	char line[256], name[128], state, found = 0;
	FILE *f = fopen("/proc/fs/fscache/caches", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %*s %*s %*s %*s %c %127s", &state, name) == 2 &&
		    !strcmp(name, tag))
			found = state;
	if (f)
		fclose(f);
	return found;
}

/* Has the kernel logged this since @log was opened? */
static bool logged(int log, const char *text)
{
	static char line[8192];
	bool found = false;
	ssize_t len;

	while ((len = read(log, line, sizeof(line) - 1)) > 0 || (len < 0 && errno == EPIPE)) {
		line[len < 0 ? 0 : len] = 0;
		found |= !!strstr(line, text);
	}
	return found;
}

TEST_F_TIMEOUT(events, of_a_file_system_that_fails, 120)
{
	struct tf *t = &self->t;
	char text[128];
	int err, log;

	log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_GE(log, 0);
	ASSERT_GE(lseek(log, 0, SEEK_END), 0);
	err = cf_mount_image(&t->e, "ext4", "fs_ext4_1k.img.gz");
	if (err == -ENOENT)
		SKIP(return, "there is no such image, or file system");
	ASSERT_EQ(0, err);
	FILL();
	EXPECT_EQ('A', cache_state(t->e.tag));
	AGAIN();
	ASSERT_EQ(0, tf_file(t, "b", FILE_SIZE, 1));
	forget(self);
	ASSERT_EQ(0, shut_down_ext4(t->e.dir));
	ASSERT_EQ(0, tf_same(t, "b"));
	tf_sync(t);
	EXPECT_TRUE(CF_WAIT_FOR(cache_state(t->e.tag) == 'E', CF_SOON));
	EXPECT_NE(NULL, strstr(told(self), " tmpfile e=-5\n")) TH_LOG("%s", self->text);
	ASSERT_EQ(0, learn_object(self));
	snprintf(text, sizeof(text), "CacheFiles: I/O Error: Failed to create tmpfile [o=%08x]",
		 self->obj);
	EXPECT_TRUE(logged(log, text)) TH_LOG("not logged: %s", text);
	close(log);
	EXPECT_EQ(-EIO, cf_cmd(t->e.dev, "inuse Da"));
	/* Clients go on without it. */
	EXPECT_EQ(0, tf_same(t, "a"));
	EXPECT_EQ(0, tf_umount(t));
}

#define INJECTION	"/proc/sys/cachefiles/error_injection"

/* In builds for tests: bit 0 is for writes, bit 1 for everything. */
TEST_F_TIMEOUT(events, of_injected_errors, 120)
{
	struct tf *t = &self->t;
	int fd;

	if (access(INJECTION, F_OK))
		SKIP(return, "this build cannot inject errors");
	FILL();
	AGAIN();
	fd = tf_open(t, "a", O_RDONLY);
	ASSERT_GE(fd, 0);
	tf_forget(fd);
	forget(self);
	ASSERT_TRUE(put("/proc/sys/cachefiles", "error_injection", "2"));
	EXPECT_EQ(0, tf_same_range(t, "a", fd, 0, 0));
	ASSERT_TRUE(put("/proc/sys/cachefiles", "error_injection", "0"));
	EXPECT_TOLD("io_error: o=%08x B=%llx read e=-5", self->obj, self->ino);
	close(fd);

	ASSERT_EQ(0, tf_file(t, "b", FILE_SIZE, 1));
	forget(self);
	ASSERT_TRUE(put("/proc/sys/cachefiles", "error_injection", "1"));
	EXPECT_EQ(0, tf_same(t, "b"));
	tf_sync(t);
	EXPECT_NE(NULL, strstr(told(self), " tmpfile e=-28\n")) TH_LOG("%s", self->text);
	ASSERT_TRUE(put("/proc/sys/cachefiles", "error_injection", "0"));
	EXPECT_EQ('A', cache_state(t->e.tag));

	ASSERT_EQ(0, tf_file(t, "c", FILE_SIZE, 1));
	forget(self);
	ASSERT_TRUE(put("/proc/sys/cachefiles", "error_injection", "2"));
	EXPECT_EQ(0, tf_same(t, "c"));
	tf_sync(t);
	EXPECT_TRUE(CF_WAIT_FOR(cache_state(t->e.tag) == 'E', CF_SOON));
	ASSERT_TRUE(put("/proc/sys/cachefiles", "error_injection", "0"));
}

TEST_HARNESS_MAIN
