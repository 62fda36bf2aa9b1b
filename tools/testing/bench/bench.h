/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the arms of the benchmark have in common: an image, who reads it through EROFS,
 * and what the figures are made of.
 */
#ifndef BENCH_H
#define BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BLOCK	4096

/* Ends the program with @fmt and the errno. */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* In ns; with QEMU's -icount that is instructions. */
uint64_t now(void);

/* Write all back, and drop what @what says, a number for /proc/sys/vm/drop_caches. */
void drop_all(const char *what);
/* Unmount, until fscache has no cookie any more: the last object is withdrawn. */
void umount_idle(const char *dir);
/* The bytes that all slab caches have, and those of them that are in use. */
uint64_t slab_memory(void);
uint64_t slab_objects(void);

/* ---- samples ---- */
struct samples {
	uint64_t *v;
	size_t n, max;
};

void samples_add(struct samples *s, uint64_t value);
uint64_t samples_percentile(struct samples *s, double percent);
/* Print what the samples are, as a line of JSON, and free them. */
void samples_report(struct samples *s, const char *arm, const char *metric);

/* What is run from one to the other is what scripts/bench --profile counts for the next report. */
void profile_on(void);
void profile_off(void);

/* ---- the image ---- */
struct image {
	const uint8_t *data;	/* read only */
	size_t size;		/* in bytes */
};

void image_load(struct image *image, const char *path);
/* The file in the image that is read: where its data is, and its size in bytes. */
const uint8_t *image_content(const struct image *image, size_t *size);

/* ---- arms ---- */
/*
 * Something that has EROFS read an image that is not here yet. Each start has it
 * absent again.
 */
struct arm {
	const char *name;
	/* Make @path, of PATH_MAX bytes, what EROFS is mounted from; @round counts starts. */
	void (*start)(const struct arm *arm, const struct image *image, int round, char *path);
	void (*stop)(void);
	/* Have all of it there, before hits are measured; may be NULL. */
	void (*complete)(void);
	/* Measure what only this arm has, after a start; may be NULL. */
	void (*measure)(const char *name);
	/* With its next request the daemon gets 16 threads that wait for more; may be NULL. */
	void (*multiply)(void);
	const char *mount_options;	/* of EROFS; may be NULL */
	bool local;			/* nothing is ever absent */
	bool far_only;			/* there is nothing to measure but with a slow link */
	bool far;			/* it can be measured with one: all is fetched once */
	bool plain;			/* start() gives the file itself, not an image */
	bool store;			/* the daemon keeps what it fetched, see store.c */
};

extern const struct arm arm_file, arm_file_direct;
extern const struct arm arm_cachefiles, arm_cachefiles_wait, arm_cachefiles_granule;
extern const struct arm arm_fanotify, arm_fanotify_unmark;
extern const struct arm arm_erofs_on_fuse, arm_fuse_direct;
extern const struct arm arm_erofs_on_fuse_stored, arm_fuse_direct_stored;
extern const struct arm arm_nbd, arm_nbd_stored;
extern const struct arm arm_ublk, arm_ublk_stored;

/* ---- classic mode ---- */
/* Measure a cache of a network file system, under the name of an arm, see classic.c. */
void measure_classic(const char *name, bool only_short);

/* ---- daemons ---- */
/* Have @serve run in a process of its own, with @fd and what else is open. */
pid_t daemon_start(void (*serve)(const struct image *image, int fd), const struct image *image,
		   int fd);
void daemon_end(pid_t pid);
/*
 * Have @serve(@arg) run, in LINK_THREADS threads at once if the link is slow: a daemon that
 * serves one request at a time would have all others wait for the link as well.
 */
void daemon_serve(void *(*serve)(void *), void *arg);

/* ---- the link ---- */
#define LINK_THREADS	16

/* How long a daemon that is started from now on waits for what it fetches, in us. */
void link_set_delay(unsigned int us);
unsigned int link_delay(void);
void link_wait(void);
/* For what only a daemon of many threads has to lock. */
void link_lock(pthread_mutex_t *lock);
void link_unlock(pthread_mutex_t *lock);

/* ---- what was fetched ---- */
struct blocks {
	bool *present;
	size_t count, absent;
};

void blocks_init(struct blocks *b, size_t size);
void blocks_free(struct blocks *b);
bool blocks_are_present(const struct blocks *b, size_t first, size_t end);
/* Mark what is from block @first to before @end as present; was any of it absent? */
bool blocks_take(struct blocks *b, size_t first, size_t end);

/* ---- stores ---- */
struct store {
	const uint8_t *data;
	size_t size;	/* in bytes */
	int fd;		/* of the file; -1 if nothing is kept */
	struct blocks blocks;	/* of the file */
	pthread_mutex_t lock;
};

/* The most that can be asked for, in bytes. */
#define STORE_MAX	1048576

/* A buffer of that size, of the calling thread. */
void *store_buffer(void);
/* Make @s empty, for what @data has; nothing is ever put there unless @kept. */
void store_open(struct store *s, const uint8_t *data, size_t size, bool kept);
void store_close(struct store *s);
/* Are these bytes still to be fetched, over a link that is slow? */
bool store_is_far(struct store *s, size_t off, size_t len);
/* The data of whole blocks, or up to the end: in @buf, or where it comes from. */
const void *store_get(struct store *s, size_t off, size_t len, void *buf);

#endif /* BENCH_H */
