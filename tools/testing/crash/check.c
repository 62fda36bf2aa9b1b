// SPDX-License-Identifier: GPL-2.0
/* One state of the disk: what a reader gets of it. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "crash.h"

/* The name that the server has for a version; its beginning is the key of the cookie. */
static void version_name(const struct object *o, const struct version *v, char name[32])
{
	snprintf(name, 32, "%s.%llu", o->name, (unsigned long long)v->number);
}

void check_prepare(struct setup *s, struct model *m)
{
	char name[32], path[128];
	int i, k;

	setup_new_server(s);
	for (i = 0; i < NR_OBJECTS; i++) {
		struct object *o = &m->objects[CLASSIC][i];

		for (k = 0; k < o->nr_versions; k++) {
			const struct version *v = &o->versions[k];
			struct timespec times[2] = {
				{ .tv_nsec = UTIME_OMIT }, { .tv_sec = v->number },
			};
			int fd;

			version_name(o, v, name);
			snprintf(path, sizeof(path), ORIGIN_DIR "/%s", name);
			if (setup_cmd(s, "file %s %llu 0", name, (unsigned long long)v->size))
				die("making a file of the server: %m");
			fd = open(path, O_WRONLY | O_CLOEXEC);
			if (fd < 0 || pwrite(fd, v->data, v->size, 0) != v->size ||
			    futimens(fd, times))
				die("%s: %m", path);
			close(fd);
		}
	}
}

/* Whether a value has these bytes somewhere. */
static bool has(const uint8_t *value, ssize_t len, const void *bytes, size_t n)
{
	return len > 0 && memmem(value, len, bytes, n);
}

struct candidates {
	struct object *o;
	int found[MAX_VERSIONS];
	int nr;
};

/*
 * Which versions the attributes of a file mention.  This is only to find versions that
 * are worth trying: what is expected does not depend on it.
 */
static int find_versions(const char *path, void *arg)
{
	struct candidates *c = arg;
	uint8_t values[16][512];
	char names[2048], text[32], *name;
	ssize_t lens[16], len = listxattr(path, names, sizeof(names));
	int n = 0, k, j;

	for (name = names; len > 0 && name < names + len && n < 16; name += strlen(name) + 1, n++)
		lens[n] = getxattr(path, name, values[n], sizeof(values[n]));
	for (k = 0; k < c->o->nr_versions; k++) {
		uint64_t number = c->o->versions[k].number;
		uint8_t aux[8];
		size_t size = sizeof(aux);

		for (j = 0; j < 8; j++)
			aux[j] = (number >> (8 * j)) + j;
		if (c->o->mode == ONDEMAND)
			size = snprintf(text, sizeof(text), "version-%llu",
					(unsigned long long)number);
		for (j = 0; j < n; j++)
			if (has(values[j], lens[j], c->o->mode == ONDEMAND ? text : (char *)aux,
				size))
				break;
		if (j < n && c->nr < MAX_VERSIONS)
			c->found[c->nr++] = k;
	}
	return 0;
}

const struct version *check_version(struct object *o)
{
	struct candidates c = { .o = o };

	setup_each_file(o, find_versions, &c);
	/* In the text of a number there may be that of a smaller one. */
	return c.nr ? &o->versions[c.found[c.nr - 1]] : model_last(o);
}

/* The version for which the object is looked up. */
static const struct version *pick(struct object *o, uint64_t step, struct rng *r)
{
	struct candidates c = { .o = o };
	int k = o->nr_versions - 1;

	setup_each_file(o, find_versions, &c);
	if (c.nr && !one_in(r, 8))
		return &o->versions[c.found[below(r, c.nr)]];
	if (one_in(r, 8))
		return &o->versions[below(r, o->nr_versions)];
	/* That of the time of the crash, or a little later. */
	step += below(r, 3);
	while (k && o->versions[k].step > step)
		k--;
	return &o->versions[k];
}

static void report(struct object *o, const struct version *v, size_t at, const uint8_t *got,
		   size_t len)
{
	int k;

	printf("# %s, version %llu of %llu bytes: WRONG BYTES: byte %zu is %#x instead of %#x\n",
	       o->name, (unsigned long long)v->number, (unsigned long long)v->size, at, *got,
	       v->data[at]);
	for (k = 0; k < o->nr_versions; k++) {
		const struct version *w = &o->versions[k];

		if (w != v && len >= 8 && at + 8 <= w->size && !memcmp(got, w->data + at, 8))
			printf("#   as in version %llu, of step %llu\n",
			       (unsigned long long)w->number, (unsigned long long)w->step);
	}
}

/* Some blocks of a large object.  Returns how many bytes were read, or -1. */
static ssize_t read_blocks(struct object *o, const struct version *v, struct rng *r)
{
	char path[128];
	uint8_t buf[BLOCK];
	ssize_t n = -1, sum = 0;
	int fd, i;

	snprintf(path, sizeof(path), "%s/%s", setup_client_dir(o->mode), o->name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		cf_no_readahead(fd);
	for (i = 0; fd >= 0 && i < 64; i++) {
		size_t at = below(r, v->size / BLOCK) * BLOCK, k;

		n = pread(fd, buf, BLOCK, at);
		if (n != BLOCK)
			break;
		for (k = 0; k < BLOCK && buf[k] == v->data[at + k]; k++)
			;
		if (k < BLOCK) {
			report(o, v, at + k, buf + k, BLOCK - k);
			sum = -1;
			break;
		}
		sum += n;
	}
	if (n != BLOCK)
		printf("# %s, version %llu: open or read: %m\n", o->name,
		       (unsigned long long)v->number);
	if (fd >= 0)
		close(fd);
	return n == BLOCK ? sum : -1;
}

static bool read_object(struct object *o, const struct version *v)
{
	static uint8_t buf[MAX_SIZE + 1];
	char name[32], path[128];
	size_t done = 0, i;
	ssize_t n = 0;
	int fd;

	if (o->mode == CLASSIC)
		version_name(o, v, name);
	else
		snprintf(name, sizeof(name), "%s", o->name);
	snprintf(path, sizeof(path), "%s/%s", setup_client_dir(o->mode), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		printf("# %s, version %llu: open: %m\n", o->name, (unsigned long long)v->number);
		return false;
	}
	while (done < sizeof(buf)) {
		n = pread(fd, buf + done, sizeof(buf) - done, done);
		if (n <= 0)
			break;
		done += n;
	}
	if (n < 0)
		printf("# %s, version %llu: read at %zu: %m\n", o->name,
		       (unsigned long long)v->number, done);
	close(fd);
	if (n < 0)
		return false;
	if (done != v->size) {
		printf("# %s, version %llu: %zu bytes instead of %llu\n", o->name,
		       (unsigned long long)v->number, done, (unsigned long long)v->size);
		return false;
	}
	for (i = 0; i < done && buf[i] == v->data[i]; i++)
		;
	if (i == done)
		return true;
	report(o, v, i, buf + i, done - i);
	return false;
}

static bool step_failed(const char *what, enum cache_mode mode, int err)
{
	if (!err)
		return false;
	printf("# %s (%s): %s\n", what, mode == CLASSIC ? "classic" : "on-demand", strerror(-err));
	return true;
}

bool check_mode(struct setup *s, struct model *m, enum cache_mode mode, uint64_t step,
		struct rng *r, struct counts *counts)
{
	static const char *const styles[] = { "smb", "nfs", "ceph" };
	const struct version *versions[NR_OBJECTS];
	uint64_t numbers[NR_OBJECTS];
	long long before;
	bool good = true;
	int i;

	/* Before the cache is in service, and removes anything. */
	for (i = 0; i < NR_OBJECTS; i++) {
		versions[i] = pick(&m->objects[mode][i], step, r);
		numbers[i] = versions[i]->number;
	}
	if (step_failed("bind", mode, setup_bind(s, mode)))
		return false;
	if (mode == ONDEMAND)
		daemon_start(s->daemon, s->dev[mode], numbers, NULL);
	before = mode == CLASSIC ? setup_count(s, "read-bytes") : daemon_bytes(s->daemon);
	if (step_failed("mounting the client", mode, setup_mount(s, mode, styles[below(r, 3)]))) {
		good = false;
	} else {
		for (i = 0; i < NR_OBJECTS; i++) {
			struct object *o = &m->objects[mode][i];
			ssize_t n;

			if (o->is_large) {
				n = read_blocks(o, versions[i], r);
				good &= n >= 0;
			} else {
				n = versions[i]->size;
				good &= read_object(o, versions[i]);
			}
			counts->read[mode] += n > 0 ? n : 0;
		}
		counts->fetched[mode] -= before;
		counts->fetched[mode] += mode == CLASSIC ? setup_count(s, "read-bytes") :
			daemon_bytes(s->daemon);
		good &= !step_failed("unmounting the client", mode, setup_umount(s, mode));
	}
	if (mode == ONDEMAND)
		daemon_stop(s->daemon);
	setup_close(s, mode);
	return good;
}

bool check(struct setup *s, struct model *m, const struct state *state, struct rng *r,
	   struct counts *counts)
{
	int err = setup_mount_fs(s, DISK_DEVICE);
	bool good;

	if (err) {
		printf("# the file system cannot be mounted: %s\n", strerror(-err));
		return false;
	}
	good = check_mode(s, m, CLASSIC, state->step, r, counts);
	if (!s->is_c)
		good &= check_mode(s, m, ONDEMAND, state->step, r, counts);
	err = setup_umount_fs(s);
	if (err)
		die("the file system cannot be unmounted: %s", strerror(-err));
	return good;
}
