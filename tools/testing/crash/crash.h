/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The crash test of a cache directory: a workload on a disk whose writes are logged, then
 * all that a crash could have left of that disk, each state mounted, bound and read.
 *
 * An object is a file of a client: of a network file system in classic mode, of ondemandfs
 * in on-demand mode.  What the origin had of it at one time is a version, which has a number
 * of its own; the client tells the cache that number as coherency data.
 */
#ifndef CRASH_H
#define CRASH_H

#include <stdio.h>

#include "testfs.h"

#define BLOCK		4096
#define MAX_SIZE	(160 * 1024)
#define MAX_VERSIONS	256
/*
 * The last object of on-demand mode: large, and read here and there.  The list of every other
 * block of it fits no attribute of the driver.
 */
#define LARGE_SIZE	(10 << 20)
#define NR_OBJECTS	6	/* of each mode */

void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
extern bool verbose;

/* ---- random numbers, the same ones for the same seed ---- */
struct rng {
	uint64_t state;
};

/* The numbers of @stream for this seed. */
struct rng rng_new(uint64_t seed, uint64_t stream);
uint64_t rng_next(struct rng *r);
uint64_t below(struct rng *r, uint64_t n);	/* 0 to @n - 1 */
bool one_in(struct rng *r, unsigned int n);

/* ---- what the origin had (model.c) ---- */
enum cache_mode { CLASSIC, ONDEMAND, NR_MODES };

struct version {
	uint64_t number;
	uint64_t step;		/* of the workload, at the end of which there was this version */
	uint64_t size;
	uint8_t *data;
};

struct object {
	enum cache_mode mode;
	int index;
	char name[8];
	bool is_large;
	struct version versions[MAX_VERSIONS];
	int nr_versions;
};

struct model {
	struct object objects[NR_MODES][NR_OBJECTS];
	uint64_t nr_steps;
};

void model_init(struct model *m);
void model_free(struct model *m);
/* From now on the origin has @size bytes of @data, which the object takes over. */
struct version *model_add(struct object *o, uint64_t number, uint64_t step, uint64_t size,
			  uint8_t *data);
struct version *model_last(struct object *o);
/* Bytes of the pattern of this object for this number. */
uint8_t *model_pattern(const struct object *o, uint64_t number, uint64_t size);
void model_save(const struct model *m, FILE *f);
void model_load(struct model *m, FILE *f);

/* ---- the disk of a state: memory, as a network block device (disk.c) ---- */
#define DISK_DEVICE	"/dev/nbd0"

void disk_alloc(uint64_t size);		/* without a device */
void disk_start(uint64_t size);
void disk_stop(void);
/* What the disk has once all that was written since, by whomever, is undone. */
void disk_base_write(uint64_t off, const void *buf, size_t len);
void disk_base_read(uint64_t off, void *buf, size_t len);
void disk_base_clear(void);
void disk_write(uint64_t off, const void *buf, size_t len);
void disk_undo(void);
void disk_save(FILE *f);
void disk_load(FILE *f);
uint64_t disk_size(void);

/* ---- the log of what was written (log.c) ---- */
/* As in dm-log-writes.c. */
#define LOG_FLUSH	0x01
#define LOG_FUA		0x02
#define LOG_DISCARD	0x04
#define LOG_MARK	0x08
#define LOG_METADATA	0x10
#define LOG_DISK	"/dev/ram0"	/* that is written to */
#define LOG_LOG		"/dev/ram1"

struct entry {
	uint64_t off, len, flags;
	const uint8_t *data;
};

struct log {
	uint8_t *raw;
	size_t raw_len, room;
	struct entry *entries;
	size_t nr;
};

/* Make a device of @size bytes whose writes are logged: its path. */
const char *log_start(uint64_t size);
void log_mark(uint64_t step);
/* Remove it, and read the log. */
void log_stop(struct log *l);
void log_save(const struct log *l, FILE *f);
void log_load(struct log *l, FILE *f);
void log_free(struct log *l);

/* ---- what a crash can leave (states.c) ---- */
struct state {
	size_t base;		/* so many entries of the log are on the disk */
	uint64_t step;		/* that had begun then */
	bool exact;		/* no other */
};

/* The states of a log, @nr of them at most: sorted by base. */
struct state *states_plan(const struct log *l, size_t nr, struct rng *r, size_t *found);
/* Bring the base of the disk from @from entries of the log to @to. */
void states_advance(const struct log *l, size_t from, size_t to);
/* Write to the disk some of what is not known to have been flushed: how much, in words. */
const char *states_lose(const struct log *l, const struct state *s, struct rng *r);

/* ---- caches and clients (cache.c) ---- */
#define FS_DIR		CF_ROOT "/fs"	/* where the file system of the caches is */

struct daemon;

struct setup {
	const char *fs;			/* the type of the file system */
	bool is_c;			/* the implementation: no on-demand mode */
	int server;			/* of the network file system, or -1 */
	int dev[NR_MODES];		/* or -1 */
	bool mounted[NR_MODES];		/* the client */
	struct daemon *daemon;
};

const char *setup_client_dir(enum cache_mode mode);
const char *setup_cache_dir(enum cache_mode mode);
#define ORIGIN_DIR	CF_ROOT "/origin"
void setup_init(struct setup *s, const char *fs);
/* Without a device the caches are on the file system that FS_DIR is on.  0 or -errno. */
int setup_mount_fs(struct setup *s, const char *device);
int setup_umount_fs(struct setup *s);
int setup_bind(struct setup *s, enum cache_mode mode);
void setup_close(struct setup *s, enum cache_mode mode);
int setup_mount(struct setup *s, enum cache_mode mode, const char *style);
int setup_umount(struct setup *s, enum cache_mode mode);
/* A server without files in the place of the one that there is, and its files. */
void setup_new_server(struct setup *s);
int setup_cmd(struct setup *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
long long setup_count(struct setup *s, const char *counter);
int setup_cull(struct setup *s, struct object *o);
/* Call @fn for each file of the object in the cache, until it returns something else than 0. */
int setup_each_file(struct object *o, int (*fn)(const char *path, void *arg), void *arg);

/* ---- the daemon of on-demand mode (daemon.c) ---- */
/* It answers for the version that an object has last, or for that of number @versions[index]. */
struct daemon *daemon_new(struct model *m);
void daemon_start(struct daemon *d, int dev, const uint64_t *versions, struct rng *odd);
void daemon_stop(struct daemon *d);
long long daemon_bytes(const struct daemon *d);	/* that READs asked for */

/* ---- the two halves (work.c, check.c) ---- */
void work(struct setup *s, struct model *m, struct rng *r, int steps);
/* After that: have parts of some objects cached, in both modes. */
void work_parts(struct setup *s, struct model *m, struct rng *r);

struct counts {
	long states, failed;
	long long read[NR_MODES], fetched[NR_MODES];
};

/* Check the state that is on the disk: whether all is as it has to be. */
bool check(struct setup *s, struct model *m, const struct state *state, struct rng *r,
	   struct counts *counts);
/* The same of one cache, which has last been used in this step. */
bool check_mode(struct setup *s, struct model *m, enum cache_mode mode, uint64_t step,
		struct rng *r, struct counts *counts);
/* Give the server all versions of all objects. */
void check_prepare(struct setup *s, struct model *m);
/* The version that the file of an object is of, if there is one. */
const struct version *check_version(struct object *o);

/* ---- "ondemandctl fsck", which is at @path, on the caches that there are (fsck.c) ---- */
int fsck_test(struct setup *s, struct model *m, struct rng *r, const char *path);

#endif /* CRASH_H */
