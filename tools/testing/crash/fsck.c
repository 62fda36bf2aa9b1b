// SPDX-License-Identifier: GPL-2.0
/*
 * "ondemandctl fsck" on caches that the driver has made, and on what becomes of these when a
 * byte of what the driver has written down is wrong.
 */
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest.h"
#include "crash.h"

#define STATE		"user.CacheFiles.cache"
#define LIST		"user.CacheFiles.present"
#define HEADER		18	/* bytes of the state that have no check */
/* The last of these. */
#define UNLISTED	0
#define LISTED		3
#define DIRTY		4
#define MAX_FILES	256

/* Exit statuses. */
#define CLEAN		0
#define REPAIRED	1
#define PROBLEMS	2
#define REFUSED		3

static const char *program;
static char said[1 << 20];

/* Run it.  Returns the exit status, or -1 if it has crashed; what it printed is in said. */
static int run_fsck(enum cache_mode mode, const char *options)
{
	char command[512];
	int status;
	size_t n;
	FILE *f;

	snprintf(command, sizeof(command), "%s fsck --json %s %s", program, options,
		 setup_cache_dir(mode));
	f = popen(command, "r");
	if (!f)
		die("popen: %m");
	n = fread(said, 1, sizeof(said) - 1, f);
	said[n] = 0;
	status = pclose(f);
	return WIFEXITED(status) && WEXITSTATUS(status) <= REFUSED ? WEXITSTATUS(status) : -1;
}

/* What it has said of an object: the state, and how many bytes are present; -1 if nothing. */
static long long said_of(const char *name, char state[16])
{
	char what[512], *at;
	long long present;

	snprintf(what, sizeof(what), "{\"name\":\"%s\",\"state\":\"", name);
	at = strstr(said, what);
	if (!at || sscanf(at + strlen(what), "%15[a-z-]\",\"size\":%*u,\"present\":%lld", state,
			  &present) != 2)
		return -1;
	return present;
}

static bool expect(bool good, const char *what)
{
	if (!good)
		printf("# %s\n# it said: %.3000s\n", what, said);
	return good;
}

/* ---- what the driver has left ---- */

static int count_files(const char *path, void *arg)
{
	++*(int *)arg;
	return 0;
}

static bool finds_no_fault(struct setup *s, struct model *m)
{
	int mode, i, n;
	bool good = true;
	char state[16];

	for (mode = 0; mode < NR_MODES; mode++) {
		good &= expect(run_fsck(mode, "") == CLEAN, "a cache is not clean");
		for (i = 0; i < NR_OBJECTS; i++) {
			char name[16];

			snprintf(name, sizeof(name), "D%s", m->objects[mode][i].name);
			n = 0;
			setup_each_file(&m->objects[mode][i], count_files, &n);
			good &= expect((said_of(name, state) >= 0) == n, name);
			if (n)
				printf("# %s: %s\n", name, state);
		}
	}
	return good;
}

static bool refuses_what_is_in_use(struct setup *s)
{
	int mode, status;
	bool good = true;

	for (mode = 0; mode < NR_MODES; mode++) {
		if (setup_bind(s, mode))
			die("bind");
		status = run_fsck(mode, "--remove 2>&1");
		good &= expect(status == REFUSED && strstr(said, "in use"), "a cache in use");
		setup_close(s, mode);
		good &= expect(run_fsck(mode, "") == CLEAN, "a cache that was in use");
	}
	return good;
}

/* Read all of an object of on-demand mode: how many bytes the daemon was not asked for. */
static long long read_present(struct setup *s, struct object *o, const struct version *v)
{
	static uint8_t buf[1 << 20];
	long long before = daemon_bytes(s->daemon), asked;
	char path[128];
	uint64_t at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", setup_client_dir(ONDEMAND), o->name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("%s: %m", path);
	for (at = 0; (n = pread(fd, buf, sizeof(buf), at)) > 0; at += n)
		if (at + n > v->size || memcmp(buf, v->data + at, n))
			die("%s: wrong bytes", o->name);
	if (n < 0 || at != v->size)
		die("%s: %m", path);
	close(fd);
	asked = daemon_bytes(s->daemon) - before;
	/* A READ is for whole blocks. */
	return (long long)v->size - asked < 0 ? 0 : v->size - asked;
}

static bool says_what_the_driver_says(struct setup *s, struct model *m)
{
	long long present[NR_OBJECTS], found;
	const struct version *versions[NR_OBJECTS];
	uint64_t numbers[NR_OBJECTS];
	char state[16], name[16];
	bool good = true;
	int i;

	run_fsck(ONDEMAND, "");
	for (i = 0; i < NR_OBJECTS; i++) {
		struct object *o = &m->objects[ONDEMAND][i];

		snprintf(name, sizeof(name), "D%s", o->name);
		present[i] = said_of(name, state);
		if (present[i] < 0)
			present[i] = 0;
		versions[i] = check_version(o);
		numbers[i] = versions[i]->number;
	}
	if (setup_bind(s, ONDEMAND))
		die("bind");
	daemon_start(s->daemon, s->dev[ONDEMAND], numbers, NULL);
	if (setup_mount(s, ONDEMAND, ""))
		die("mount");
	for (i = 0; i < NR_OBJECTS; i++) {
		struct object *o = &m->objects[ONDEMAND][i];

		found = read_present(s, o, versions[i]);
		printf("# %s: %lld of %lld bytes present\n", o->name, present[i],
		       (long long)versions[i]->size);
		if (llabs(found - present[i]) >= BLOCK) {
			printf("# the driver has %lld\n", found);
			good = false;
		}
	}
	if (setup_umount(s, ONDEMAND))
		die("umount");
	daemon_stop(s->daemon);
	setup_close(s, ONDEMAND);
	return good;
}

/* ---- states that others leave ---- */

static int make_dirty(const char *path, void *arg)
{
	uint8_t state[512];
	ssize_t len = getxattr(path, STATE, state, sizeof(state));

	state[HEADER - 1] = DIRTY;
	if (len < HEADER || setxattr(path, STATE, state, len, 0))
		die("%s: %m", path);
	return 1;
}

struct saved {
	uint8_t state[512], list[2048];
	ssize_t state_len, list_len;
};

/* As the C code does: what is present is what the file system has. */
static int make_unlisted(const char *path, void *arg)
{
	struct saved *s = arg;
	uint8_t was;

	s->state_len = getxattr(path, STATE, s->state, sizeof(s->state));
	s->list_len = getxattr(path, LIST, s->list, sizeof(s->list));
	if (s->state_len < HEADER || s->list_len < 0)
		die("%s: %m", path);
	was = s->state[HEADER - 1];
	s->state[HEADER - 1] = UNLISTED;
	if (setxattr(path, STATE, s->state, s->state_len, 0) || removexattr(path, LIST))
		die("%s: %m", path);
	s->state[HEADER - 1] = was;
	return 1;
}

static int make_listed(const char *path, void *arg)
{
	const struct saved *s = arg;

	if (setxattr(path, STATE, s->state, s->state_len, 0) ||
	    setxattr(path, LIST, s->list, s->list_len, 0))
		die("%s: %m", path);
	return 1;
}

static bool knows_what_others_leave(struct model *m)
{
	char state[16];
	bool good = true;
	int mode;

	/* These have a list in an attribute. */
	for (mode = 0; mode < NR_MODES; mode++) {
		struct object *dirty = &m->objects[mode][1], *unlisted = &m->objects[mode][3];
		struct saved saved;
		char names[2][16];

		snprintf(names[0], sizeof(names[0]), "D%s", dirty->name);
		snprintf(names[1], sizeof(names[1]), "D%s", unlisted->name);
		if (setup_each_file(unlisted, make_unlisted, &saved) != 1)
			die("%s is not there", unlisted->name);
		good &= expect(run_fsck(mode, "") == CLEAN && said_of(names[1], state) > 0 &&
			       !strcmp(state, "unlisted"), "an object of C");
		if (setup_each_file(dirty, make_dirty, NULL) != 1)
			die("%s is not there", dirty->name);
		good &= expect(run_fsck(mode, "") == PROBLEMS && !said_of(names[0], state) &&
			       !strcmp(state, "dirty"), "a dirty object");
		good &= expect(run_fsck(mode, "--remove") == REPAIRED &&
			       said_of(names[0], state) < 0 &&
			       said_of(names[1], state) > 0, "a dirty object stays");
		/* To the file system, a block that was written in part is data. */
		setup_each_file(unlisted, make_listed, &saved);
	}
	return good;
}

/* ---- damage ---- */

static char *files[MAX_FILES];
static int nr_files;

static int take_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	/* Objects and list files. */
	if (type == FTW_F && ftw->level && nr_files < MAX_FILES)
		files[nr_files++] = strdup(path);
	return 0;
}

static void find_files(enum cache_mode mode)
{
	char dir[128];

	while (nr_files)
		free(files[--nr_files]);
	snprintf(dir, sizeof(dir), "%s/cache", setup_cache_dir(mode));
	nftw(dir, take_file, 8, FTW_PHYS);
	snprintf(dir, sizeof(dir), "%s/lists", setup_cache_dir(mode));
	nftw(dir, take_file, 8, FTW_PHYS);
}

/* Change some of @len bytes: returns the new length. */
static ssize_t spoil(uint8_t *bytes, ssize_t len, ssize_t *at, struct rng *r)
{
	*at = below(r, len);
	if (one_in(r, 8))
		return *at;
	bytes[*at] ^= 1 + below(r, 255);
	return len;
}

struct damage {
	const char *path, *attribute;	/* or NULL: of the data of a list file */
	uint8_t was[1 << 16], now[1 << 16];
	ssize_t len, new_len, at;
	bool has_list;
};

static void write_file(const char *path, const void *buf, ssize_t len)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0 || write(fd, buf, len) != len)
		die("%s: %m", path);
	close(fd);
}

/* Damage something of a file.  Returns whether there was something. */
static bool damage(struct damage *d, const char *path, struct rng *r)
{
	uint8_t state[512];
	int fd;

	d->path = path;
	d->attribute = strstr(path, "/lists/") ? NULL : one_in(r, 3) ? STATE : LIST;
	if (d->attribute) {
		d->has_list = getxattr(path, STATE, state, sizeof(state)) >= HEADER &&
			state[HEADER - 1] == LISTED;
		d->len = getxattr(path, d->attribute, d->was, sizeof(d->was));
	} else {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		d->len = read(fd, d->was, sizeof(d->was));
		close(fd);
	}
	if (d->len <= 0 || d->len == sizeof(d->was))
		return false;
	memcpy(d->now, d->was, d->len);
	d->new_len = spoil(d->now, d->len, &d->at, r);
	if (!d->attribute)
		write_file(path, d->now, d->new_len);
	else if (setxattr(path, d->attribute, d->now, d->new_len, 0))
		die("%s: setxattr: %m", path);
	return true;
}

static void restore(struct damage *d)
{
	if (!d->attribute)
		write_file(d->path, d->was, d->len);
	else if (setxattr(d->path, d->attribute, d->was, d->len, 0))
		die("%s: setxattr: %m", d->path);
}

/* Whether it is right what was said about the damage. */
static bool is_seen(struct damage *d, int status)
{
	char state[16] = "";
	long long present = said_of(strrchr(d->path, '/') + 1, state);
	bool is_list = !d->attribute || !strcmp(d->attribute, LIST);

	if (status < 0)
		return false;
	/* Without what was written last, a list file says less. */
	if (!d->attribute)
		return status == PROBLEMS || d->new_len < d->len;
	if (present < 0)
		return false;
	if (d->has_list && (is_list || d->at >= HEADER))
		return status == PROBLEMS && !strcmp(state, "no-list") && !present;
	if (!is_list && ((d->at >= 8 && d->at < HEADER - 1) || d->new_len < HEADER))
		return status == PROBLEMS && !strcmp(state, "damaged");
	/* The size, the content, the data that a list belongs to: there is no check of these. */
	return true;
}

static bool sees_damage(struct rng *r, int times, int counts[3])
{
	static struct damage d;
	bool good = true;
	int mode, i, status;

	for (mode = 0; mode < NR_MODES; mode++) {
		find_files(mode);
		for (i = 0; nr_files && i < times; i++) {
			if (!damage(&d, files[below(r, nr_files)], r))
				continue;
			counts[!d.attribute ? 2 : !strcmp(d.attribute, LIST)]++;
			status = run_fsck(mode, "");
			if (!is_seen(&d, status)) {
				printf("# %s, %s: byte %zd, %zd of %zd bytes: status %d\n", d.path,
				       d.attribute ?: "data", d.at, d.new_len, d.len, status);
				good = expect(false, "damage");
			}
			restore(&d);
		}
		good &= expect(run_fsck(mode, "") == CLEAN, "after all was restored");
	}
	return good;
}

/* Whether the damage is to something that has a check, or is nonsense. */
static bool is_checked(const struct damage *d)
{
	bool is_list = !d->attribute || !strcmp(d->attribute, LIST);

	return is_list || (d->at >= 8 && d->at < HEADER - 1) || (d->has_list && d->at >= HEADER);
}

/* Damage much, have it removed, and have the driver use what is left. */
static bool repairs(struct setup *s, struct model *m, struct rng *r)
{
	static struct damage d;
	struct counts counts = {};
	char path[256];
	int mode, i, status;
	bool good = true;

	for (mode = 0; mode < NR_MODES; mode++) {
		find_files(mode);
		for (i = 0; i < nr_files; i++)
			if (one_in(r, 3) && damage(&d, files[i], r) && !is_checked(&d))
				restore(&d);
		snprintf(path, sizeof(path), "%s/graveyard/0000000000000000",
			 setup_cache_dir(mode));
		mkdir(path, 0700);
		good &= expect(run_fsck(mode, "") == PROBLEMS, "much is wrong");
		good &= expect(run_fsck(mode, "--remove") == REPAIRED, "what is wrong stays");
		good &= expect(run_fsck(mode, "") == CLEAN, "after what was wrong was removed");
		status = check_mode(s, m, mode, m->nr_steps, r, &counts);
		good &= expect(status, "the driver does not get on with what is left");
		printf("# %lld of %lld bytes read came from the cache\n",
		       counts.read[mode] - counts.fetched[mode], counts.read[mode]);
	}
	return good;
}

static bool result(int n, bool good, const char *what)
{
	printf("%s %d %s\n", good ? "ok" : "not ok", n, what);
	return good;
}

int fsck_test(struct setup *s, struct model *m, struct rng *r, const char *path)
{
	int counts[3] = {};
	bool good;

	program = path;
	good = result(1, finds_no_fault(s, m), "what the driver leaves is clean");
	good &= result(2, refuses_what_is_in_use(s), "a cache in use is left alone");
	good &= result(3, sees_damage(r, 150, counts), "damage is seen");
	printf("# %d states, %d lists, %d list files\n", counts[0], counts[1], counts[2]);
	good &= result(4, knows_what_others_leave(m), "what others leave is known");
	good &= result(5, says_what_the_driver_says(s, m), "as much is present as to the driver");
	check_prepare(s, m);
	good &= result(6, repairs(s, m, r), "what is damaged is removed, and the rest is right");
	printf("1..6\n");
	return good ? 0 : 1;
}
