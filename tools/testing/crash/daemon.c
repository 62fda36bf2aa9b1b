// SPDX-License-Identifier: GPL-2.0
/* A daemon of on-demand mode that knows all versions of all objects. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "crash.h"

#define MAX_OPEN	256

struct daemon {
	struct model *model;
	pthread_t thread;
	int dev, stop;
	bool runs;
	const uint64_t *versions;
	struct rng *odd;
	atomic_llong bytes;
	struct {
		uint32_t id;
		int fd;
		const struct version *version;
	} open[MAX_OPEN];
};

static const struct version *version_of(struct daemon *d, const char *name)
{
	struct object *o;
	int i, v;

	for (i = 0; i < NR_OBJECTS; i++) {
		o = &d->model->objects[ONDEMAND][i];
		if (strcmp(o->name, name))
			continue;
		if (!d->versions)
			return model_last(o);
		for (v = 0; v < o->nr_versions; v++)
			if (o->versions[v].number == d->versions[i])
				return &o->versions[v];
	}
	return NULL;
}

static void take_open(struct daemon *d, const struct cf_msg *m)
{
	const struct version *v;
	char name[256], text[32];
	int i;

	v = version_of(d, cf_msg_name(m, name));
	if (!v)
		die("an OPEN of '%s'", name);
	for (i = 0; i < MAX_OPEN && d->open[i].id; i++)
		;
	if (i == MAX_OPEN)
		die("too many open objects");
	d->open[i].id = m->w.object_id;
	d->open[i].fd = m->w.open.fd;
	d->open[i].version = v;
	snprintf(text, sizeof(text), "version-%llu", (unsigned long long)v->number);
	/* It fails if the opener is gone. */
	cf_copen_version(d->dev, m->w.msg_id, v->size, text);
}

/* Write a part of the object, with zeros behind its end. */
static void put(int fd, const struct version *v, uint64_t off, size_t len)
{
	uint8_t *buf = calloc(1, len);

	if (!buf)
		die("no memory");
	if (off < v->size)
		memcpy(buf, v->data + off, v->size - off < len ? v->size - off : len);
	/* It may fail when the cache is withdrawn. */
	if (pwrite(fd, buf, len, off) < 0 && verbose)
		perror("# pwrite");
	free(buf);
}

/* Every other block, as the workload reads a large object: very many runs. */
static void put_scattered(struct daemon *d, int fd, const struct version *v)
{
	uint64_t blocks = v->size / BLOCK, at = 2 * below(d->odd, blocks / 2);
	uint64_t n = 100 + below(d->odd, 600);

	for (; n && at < blocks; n--, at += 2)
		put(fd, v, at * BLOCK, BLOCK);
}

/* What nobody has asked for, in odd pieces: anywhere, or behind what was asked for. */
static void put_more(struct daemon *d, int fd, const struct version *v, uint64_t behind)
{
	uint64_t off = below(d->odd, v->size), len = 1 + below(d->odd, 20000);

	if (v->size > MAX_SIZE && one_in(d->odd, 8)) {
		put_scattered(d, fd, v);
		return;
	}
	if (behind < v->size && one_in(d->odd, 2)) {
		off = behind;
		len = 1 + below(d->odd, 2 * BLOCK);
	}
	if (len > v->size - off)
		len = v->size - off;
	if (one_in(d->odd, 2)) {
		off -= off % BLOCK;
		len += BLOCK - len % BLOCK;
	}
	put(fd, v, off, len);
}

static void take_read(struct daemon *d, const struct cf_msg *m)
{
	const struct version *v;
	uint64_t off = m->w.read.off, len = m->w.read.len, part;
	int i;

	for (i = 0; i < MAX_OPEN && d->open[i].id != m->w.object_id; i++)
		;
	if (i == MAX_OPEN)
		die("a READ of an object that is not open");
	v = d->open[i].version;
	d->bytes += len;
	if (d->odd && one_in(d->odd, 3))
		put_more(d, d->open[i].fd, v, off + len);
	/* In two pieces, the second one first. */
	part = d->odd && len > BLOCK ? (1 + below(d->odd, len / BLOCK)) * BLOCK : len;
	if (part < len)
		put(d->open[i].fd, v, off + part, len - part);
	put(d->open[i].fd, v, off, part);
	if (d->odd && one_in(d->odd, 3))
		put_more(d, d->open[i].fd, v, off + len);
	cf_complete(d->open[i].fd, m->w.msg_id);
}

static void take_close(struct daemon *d, const struct cf_msg *m)
{
	int i;

	for (i = 0; i < MAX_OPEN; i++)
		if (d->open[i].id == m->w.object_id) {
			close(d->open[i].fd);
			d->open[i].id = 0;
			return;
		}
}

static void *run(void *arg)
{
	struct daemon *d = arg;
	struct pollfd p[2] = {
		{ .fd = d->dev, .events = POLLIN },
		{ .fd = d->stop, .events = POLLIN },
	};
	struct cf_msg m;

	for (;;) {
		int err = cf_recv(d->dev, &m, 0);

		if (err == -ETIMEDOUT) {
			if (poll(p, 2, -1) < 0)
				die("poll: %m");
			if (p[1].revents)
				return NULL;
			continue;
		}
		if (err)
			die("the daemon's read(): %s", strerror(-err));
		switch (m.w.opcode) {
		case CF_OPEN:
			take_open(d, &m);
			break;
		case CF_READ:
			take_read(d, &m);
			break;
		case CF_CLOSE:
			take_close(d, &m);
			break;
		}
	}
}

struct daemon *daemon_new(struct model *m)
{
	struct daemon *d = calloc(1, sizeof(*d));

	if (!d)
		die("no memory");
	d->model = m;
	d->stop = eventfd(0, EFD_CLOEXEC);
	return d;
}

void daemon_start(struct daemon *d, int dev, const uint64_t *versions, struct rng *odd)
{
	d->dev = dev;
	d->versions = versions;
	d->odd = odd;
	if (pthread_create(&d->thread, NULL, run, d))
		die("pthread_create");
	d->runs = true;
}

void daemon_stop(struct daemon *d)
{
	uint64_t one = 1;
	int i;

	if (!d->runs)
		return;
	if (write(d->stop, &one, sizeof(one)) < 0)
		die("eventfd: %m");
	pthread_join(d->thread, NULL);
	if (read(d->stop, &one, sizeof(one)) < 0)
		die("eventfd: %m");
	d->runs = false;
	for (i = 0; i < MAX_OPEN; i++)
		if (d->open[i].id) {
			close(d->open[i].fd);
			d->open[i].id = 0;
		}
}

long long daemon_bytes(const struct daemon *d)
{
	return d->bytes;
}
