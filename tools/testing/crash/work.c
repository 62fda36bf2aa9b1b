// SPDX-License-Identifier: GPL-2.0
/* The workload: what is done to the caches before the crash. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "kselftest.h"
#include "crash.h"

#define KEPT_OPEN	4

struct work {
	struct setup *s;
	struct model *m;
	struct rng *r;
	uint64_t step;
	int generation;
	struct rng odd;			/* the daemon's */
	int open[NR_MODES][KEPT_OPEN];	/* files that stay open for a while, or -1 */
};

static void must(int err, const char *what)
{
	if (verbose)
		printf("#   %s\n", what);
	if (err < 0)
		die("workload: %s: %s", what, strerror(-err));
}

static int open_object(struct object *o, int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", setup_client_dir(o->mode), o->name);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* What the origin has of a file of the network file system is a version, if it is a new one. */
static void learn(struct work *w, struct object *o)
{
	char path[128];
	struct stat st;
	uint8_t *data;
	int fd;

	snprintf(path, sizeof(path), ORIGIN_DIR "/%s", o->name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		die("%s: %m", path);
	if (!o->nr_versions || model_last(o)->number != st.st_mtime) {
		data = malloc(st.st_size + 1);
		if (!data || pread(fd, data, st.st_size, 0) != st.st_size)
			die("%s: %m", path);
		model_add(o, st.st_mtime, w->step, st.st_size, data);
	}
	close(fd);
}

static uint64_t some_size(struct rng *r)
{
	switch (below(r, 4)) {
	case 0:
		return 1 + below(r, 3 * BLOCK);
	case 1:
		return BLOCK * (1 + below(r, MAX_SIZE / BLOCK));
	default:
		return 1 + below(r, MAX_SIZE);
	}
}

static void new_version(struct work *w, struct object *o, uint64_t size)
{
	if (o->mode == ONDEMAND) {
		uint64_t number = o->nr_versions + 1;

		model_add(o, number, w->step, size, model_pattern(o, number, size));
		return;
	}
	must(setup_cmd(w->s, "file %s %llu %d", o->name, (unsigned long long)size,
		       ++w->generation), "a new file of the server");
	learn(w, o);
}

static void new_content(struct work *w, struct object *o)
{
	uint64_t size = o->nr_versions && one_in(w->r, 2) ? model_last(o)->size : some_size(w->r);

	if (o->is_large) {
		/* Each version takes memory. */
		if (o->nr_versions && !one_in(w->r, 4))
			return;
		size = LARGE_SIZE - below(w->r, 3 * BLOCK);
	}
	new_version(w, o, size);
}

static void close_kept(struct work *w, enum cache_mode mode)
{
	int i;

	for (i = 0; i < KEPT_OPEN; i++) {
		if (w->open[mode][i] >= 0)
			close(w->open[mode][i]);
		w->open[mode][i] = -1;
	}
}

/* Close it now, or after some time. */
static void let_go(struct work *w, enum cache_mode mode, int fd)
{
	int *slot = &w->open[mode][below(w->r, KEPT_OPEN)];

	if (one_in(w->r, 2)) {
		close(fd);
		return;
	}
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

/* One block of @stride from @at on. */
static void read_scattered(struct work *w, struct object *o, uint64_t at, int n, int stride)
{
	int fd = open_object(o, O_RDONLY), i;
	char byte;

	must(fd, "opening a file to read it");
	cf_no_readahead(fd);
	for (i = 0; i < n; i++) {
		must(pread(fd, &byte, 1, at % (LARGE_SIZE / BLOCK - 4) * BLOCK) < 0 ? -errno : 0,
		     "reading a file");
		at += stride;
	}
	let_go(w, o->mode, fd);
}

static void read_some(struct work *w, struct object *o)
{
	static uint8_t buf[MAX_SIZE];
	int fd = open_object(o, O_RDONLY), i, n = 1 + below(w->r, 4);
	uint64_t size;

	must(fd, "opening a file to read it");
	size = model_last(o)->size ?: 1;
	if (one_in(w->r, 3)) {
		must(pread(fd, buf, MAX_SIZE, 0) < 0 ? -errno : 0, "reading a file");
	} else {
		cf_no_readahead(fd);
		for (i = 0; i < n; i++)
			must(pread(fd, buf, 1 + below(w->r, 5 * BLOCK), below(w->r, size)) < 0 ?
			     -errno : 0, "reading a file");
	}
	let_go(w, o->mode, fd);
}

static void sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || syncfs(fd))
		die("%s: syncfs: %m", dir);
	close(fd);
}

static long write_back(struct cf_op *op)
{
	return sync_file_range(op->fd, 0, 0, SYNC_FILE_RANGE_WRITE) ? -errno : 0;
}

/* Have the upload of what is dirty wait for the server: what the cache has then, that has not. */
static void hold_upload(struct work *w, int fd)
{
	struct cf_op *op;

	must(setup_cmd(w->s, "hold write"), "hold write");
	/* In the style of ceph it waits for that. */
	op = cf_start(write_back, "", fd, 0, 0);
	if (CF_WAIT_FOR(setup_count(w->s, "waiting") >= 1, 1000)) {
		cf_sleep_ms(10 + below(w->r, 30));
		if (one_in(w->r, 2))
			sync_dir(FS_DIR);
	}
	must(setup_cmd(w->s, "release write"), "release write");
	must(cf_finish(op), "sync_file_range");
}

static void write_some(struct work *w, struct object *o, bool held)
{
	bool direct = !held && one_in(w->r, 4);
	int fd = open_object(o, O_RDWR | (direct ? O_DIRECT : 0));
	uint64_t size = model_last(o)->size, off, len;
	uint8_t *buf;

	must(fd, "opening a file to write it");
	off = below(w->r, one_in(w->r, 4) ? MAX_SIZE / 2 : size + 1);
	len = 1 + below(w->r, one_in(w->r, 2) ? 20000 : 4 * BLOCK);
	if (direct || one_in(w->r, 3)) {
		off -= off % BLOCK;
		len += BLOCK - len % BLOCK;
	}
	if (off + len > MAX_SIZE)
		len = MAX_SIZE - off;
	if (posix_memalign((void **)&buf, BLOCK, len))
		die("no memory");
	tf_pattern(o->name, ++w->generation, off, buf, len);
	must(pwrite(fd, buf, len, off) != len ? -errno ?: -EIO : 0, "writing a file");
	free(buf);
	if (held)
		hold_upload(w, fd);
	must(fsync(fd) ? -errno : 0, "fsync");
	learn(w, o);
	let_go(w, CLASSIC, fd);
}

static void set_size(struct work *w, struct object *o)
{
	int fd = open_object(o, O_RDWR);
	uint64_t size = one_in(w->r, 2) ? below(w->r, model_last(o)->size + 1) : some_size(w->r);

	must(fd, "opening a file to resize it");
	must(ftruncate(fd, size) ? -errno : 0, "ftruncate");
	learn(w, o);
	let_go(w, CLASSIC, fd);
}

static void make_hole(struct work *w, struct object *o)
{
	int fd = open_object(o, O_RDWR);
	uint64_t size = model_last(o)->size;

	must(fd, "opening a file to punch it");
	must(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, below(w->r, size + 1),
		       1 + below(w->r, 3 * BLOCK)) ? -errno : 0, "fallocate");
	learn(w, o);
	let_go(w, CLASSIC, fd);
}

static void mount_client(struct work *w, enum cache_mode mode)
{
	static const char *const styles[] = { "smb", "smb", "smb", "nfs", "ceph" };

	must(setup_mount(w->s, mode, styles[below(w->r, ARRAY_SIZE(styles))]),
	     "mounting a client");
}

static void umount_client(struct work *w, enum cache_mode mode)
{
	close_kept(w, mode);
	must(setup_umount(w->s, mode), "unmounting a client");
}

static void bind_cache(struct work *w, enum cache_mode mode)
{
	must(setup_bind(w->s, mode), "bind");
	if (mode == ONDEMAND)
		daemon_start(w->s->daemon, w->s->dev[mode], NULL, &w->odd);
}

static void close_cache(struct work *w, enum cache_mode mode)
{
	/* First the device: that ends what the daemon's thread may wait for. */
	if (mode == ONDEMAND)
		daemon_stop(w->s->daemon);
	setup_close(w->s, mode);
}

struct relabel {
	uint64_t size;
	uint8_t value[600];
	ssize_t len;
};

#define CACHE_XATTR	"user.CacheFiles.cache"
#define HEADER		18	/* bytes before the auxiliary data */
#define LISTED		3	/* the last of these: the file has a list */

static int take_value(const char *path, void *arg)
{
	struct relabel *r = arg;
	int i;

	r->len = getxattr(path, CACHE_XATTR, r->value, sizeof(r->value));
	if (r->len < HEADER || r->value[HEADER - 1] != LISTED)
		return 0;
	for (i = 0; i < 8; i++)
		r->size = r->size << 8 | r->value[i];
	return 1;
}

static int put_value(const char *path, void *arg)
{
	struct relabel *r = arg;

	must(setxattr(path, CACHE_XATTR, r->value, r->len, 0) ? -errno : 0, "setxattr");
	return 1;
}

/*
 * Another implementation, or a backup, brings a file to another state, and does not know of
 * lists: nothing of what the list names is of that state.  The cache is not bound.
 */
static void relabel(struct work *w, struct object *o)
{
	struct relabel r = {};
	char *text;
	int i;

	if (setup_each_file(o, take_value, &r) != 1)
		return;
	new_version(w, o, r.size);
	if (o->mode == CLASSIC) {
		for (i = 0; i < 8; i++)
			r.value[HEADER + i] = (model_last(o)->number >> (8 * i)) + i;
	} else {
		text = memmem(r.value, r.len, "version-", 8);
		if (!text)
			die("a file without a version");
		r.len = text - (char *)r.value +
			sprintf(text, "version-%llu", (unsigned long long)model_last(o)->number);
	}
	setup_each_file(o, put_value, &r);
}

static void remount(struct work *w, enum cache_mode mode)
{
	umount_client(w, mode);
	if (one_in(w->r, 3)) {
		close_cache(w, mode);
		if (!w->s->is_c && one_in(w->r, 2))
			relabel(w, &w->m->objects[mode][below(w->r, NR_OBJECTS)]);
		bind_cache(w, mode);
	}
	if (one_in(w->r, 2))
		setup_cull(w->s, &w->m->objects[mode][below(w->r, NR_OBJECTS)]);
	mount_client(w, mode);
}

/*
 * Others use the file system, too, and have it commit its journal, whatever else is in that,
 * without the data of the caches.
 */
static void use_disk(void)
{
	int fd = open(FS_DIR "/other", O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, "x", 1) != 1 || fsync(fd))
		die(FS_DIR "/other: %m");
	close(fd);
}

/* Objects that are not in use are committed. */
static void give_up(struct work *w, enum cache_mode mode)
{
	close_kept(w, mode);
	cf_drop_caches();
}

static void read_all(struct work *w, struct object *o)
{
	static uint8_t buf[MAX_SIZE];
	int fd = open_object(o, O_RDONLY);

	must(fd, "opening a file to read it");
	must(pread(fd, buf, MAX_SIZE, 0) < 0 ? -errno : 0, "reading a file");
	close(fd);
	sync_dir(setup_client_dir(o->mode));
}

/* Have all of a file in the cache and named, then change it there before the server has it. */
static void write_kept(struct work *w, struct object *o)
{
	read_all(w, o);
	give_up(w, o->mode);
	if (one_in(w->r, 2))
		use_disk();
	write_some(w, o, true);
}

/* Every other block, so that what is present are very many runs. */
static void read_here_and_there(struct work *w, struct object *o)
{
	read_scattered(w, o, 2 * below(w->r, LARGE_SIZE / BLOCK / 2), 50 + below(w->r, 400), 2);
}

/*
 * Have the disk hold parts of blocks, of which the rest comes later.  To the file system all
 * of such a block is data, although what the disk has of it is wrong until it is written once
 * more.
 */
static void fill_by_parts(struct work *w, struct object *o)
{
	uint64_t at = 2 * below(w->r, LARGE_SIZE / BLOCK / 2) + 1;
	int n = 50 + below(w->r, 100);

	/* The daemon puts parts of blocks behind those that it is asked for. */
	if (o->is_large)
		read_scattered(w, o, at, n, 4);
	else
		read_some(w, o);
	if (one_in(w->r, 2))
		give_up(w, ONDEMAND);
	sync_dir(FS_DIR);
	if (o->is_large)
		read_scattered(w, o, at + 2, n, 4);
	else
		read_all(w, o);
	give_up(w, ONDEMAND);
	use_disk();
}

static void classic_step(struct work *w)
{
	struct object *o = &w->m->objects[CLASSIC][below(w->r, NR_OBJECTS)];

	switch (below(w->r, 22)) {
	case 0:
	case 1:
	case 2:
	case 3:
		read_some(w, o);
		break;
	case 4:
	case 5:
		sync_dir(setup_client_dir(CLASSIC));
		break;
	case 6:
		new_content(w, o);
		break;
	case 7:
	case 8:
	case 9:
		write_some(w, o, one_in(w->r, 2));
		break;
	case 10:
	case 11:
	case 12:
		write_kept(w, o);
		break;
	case 13:
		set_size(w, o);
		break;
	case 14:
		make_hole(w, o);
		break;
	case 15:
		cf_drop_caches();
		break;
	case 16:
	case 17:
	case 18:
		give_up(w, CLASSIC);
		break;
	default:
		remount(w, CLASSIC);
		break;
	}
}

static void ondemand_step(struct work *w)
{
	struct object *o = &w->m->objects[ONDEMAND][below(w->r, NR_OBJECTS)];

	switch (below(w->r, 13)) {
	case 0:
		give_up(w, ONDEMAND);
		break;
	case 1:
		new_content(w, o);
		break;
	case 2:
	case 3:
		remount(w, ONDEMAND);
		break;
	case 4:
	case 5:
	case 6:
		fill_by_parts(w, o);
		break;
	default:
		if (o->is_large)
			read_here_and_there(w, o);
		else
			read_some(w, o);
		break;
	}
}

void work(struct setup *s, struct model *m, struct rng *r, int steps)
{
	struct work w = { .s = s, .m = m, .r = r, .odd = rng_new(rng_next(r), 0) };
	int mode, i, modes = s->is_c ? 1 : NR_MODES;

	for (mode = 0; mode < NR_MODES; mode++)
		for (i = 0; i < KEPT_OPEN; i++)
			w.open[mode][i] = -1;
	setup_new_server(s);
	for (mode = 0; mode < NR_MODES; mode++)
		for (i = 0; i < NR_OBJECTS; i++)
			new_content(&w, &m->objects[mode][i]);
	for (mode = 0; mode < modes; mode++) {
		bind_cache(&w, mode);
		mount_client(&w, mode);
	}
	while (w.step < steps) {
		log_mark(++w.step);
		if (verbose)
			printf("# step %llu\n", (unsigned long long)w.step);
		if (s->is_c || one_in(r, 2))
			classic_step(&w);
		else
			ondemand_step(&w);
		if (one_in(r, 16))
			sync_dir(FS_DIR);
		else if (one_in(r, 3))
			use_disk();
	}
	m->nr_steps = w.step;
	for (mode = 0; mode < modes; mode++) {
		umount_client(&w, mode);
		close_cache(&w, mode);
	}
}

void work_parts(struct setup *s, struct model *m, struct rng *r)
{
	struct work w = { .s = s, .m = m, .r = r, .step = m->nr_steps,
			  .odd = rng_new(rng_next(r), 0), .generation = 1 << 20 };
	int mode, i;

	for (mode = 0; mode < NR_MODES; mode++) {
		for (i = 0; i < KEPT_OPEN; i++)
			w.open[mode][i] = -1;
		bind_cache(&w, mode);
		must(setup_mount(s, mode, "smb"), "mounting a client");
		for (i = 1; i < NR_OBJECTS; i += 2) {
			struct object *o = &m->objects[mode][i];

			if (o->is_large) {
				read_here_and_there(&w, o);
				continue;
			}
			new_version(&w, o, MAX_SIZE - below(r, BLOCK));
			read_scattered(&w, o, below(r, 8), 3 + below(r, 5), 3);
		}
		sync_dir(setup_client_dir(mode));
		umount_client(&w, mode);
		close_cache(&w, mode);
	}
}
