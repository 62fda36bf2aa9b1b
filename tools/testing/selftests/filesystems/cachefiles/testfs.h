/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for the tests of classic mode: a cache that is bound by a plain "bind", and the
 * network file system of test_modules/cachefiles_testfs.c, client and server.
 */
#ifndef TESTFS_H
#define TESTFS_H

#include <stdarg.h>

#include "cachefiles_test.h"

/* For a fixture that has its struct tf in self->t. */
#define ASSERT_SETUP_T(expr) do {						\
	int __err = (expr);						\
									\
	ASSERT_EQ(0, __err) {						\
		TH_LOG("set-up failed: %s", self->t.e.why);		\
	}								\
} while (0)

#define TF_NONE	"there is no cachefiles_testfs.ko beside this program: KDIR= builds it"
bool tf_is_there(void);

struct tf {
	struct cf_env e;	/* e.mnt is the client; e.why is for errors here, too */
	char origin[80];	/* the server's files, as another client without caches sees them */
	int server;		/* its control file */
	char options[640];	/* of the client's mount */
	char key[256];		/* of the volume */
};

/* The directories, the server and the mount of the origin: no cache yet, no client. */
int tf_init(struct tf *t);
/* A cache, after @commands (lines, or NULL): 0 or -errno. */
int tf_bind(struct tf *t, const char *commands);
/* Mount the client with @options, which begin with a comma if there are any. */
int tf_mount(struct tf *t, const char *options);
int tf_umount(struct tf *t);
/* The same client again: after it, what the last one has cached is on its place. */
int tf_remount(struct tf *t);
/* All of it, with the limits of space out of the way. */
int tf_all(struct tf *t, const char *options);
void tf_end(struct tf *t);

/* ---- the server ---- */
int tf_cmd(struct tf *t, const char *fmt, ...);		/* 0 or -errno */
int tf_vcmd(struct tf *t, const char *fmt, va_list ap);
/* File @name has @size bytes of tf_pattern(@name, @generation) now. */
int tf_file(struct tf *t, const char *name, long long size, int generation);
/* A counter: "read", "read-bytes", "write", ..., "waiting".  -1 if there is none. */
long long tf_count(struct tf *t, const char *counter);
bool tf_waits_for(struct tf *t, int calls);	/* @calls calls are held: wait for it */
void tf_pattern(const char *name, int generation, off_t off, void *buf, size_t len);

/* ---- the client ---- */
int tf_open(struct tf *t, const char *name, int flags);	/* an fd or -errno */
/* Read, and compare with the pattern: 0 or -errno, -EBADMSG for other data. */
long tf_read(int fd, const char *name, int generation, off_t off, size_t len);
/* Read, and compare with what the server has; to its end if @len is 0. */
long tf_same_range(struct tf *t, const char *name, int fd, off_t off, size_t len);
/* Open, read all, compare with the server, close. */
long tf_same(struct tf *t, const char *name);
/* Write the bytes of another generation: 0 or -errno. */
int tf_write(int fd, const char *name, int generation, off_t off, size_t len);
/* Read all of the file, and have it in the cache: 0 or -errno. */
long tf_fill(struct tf *t, const char *name);
/* A file of 16 pages of 4 KiB that swapon() takes, on the server: 0 or -errno. */
int tf_swap_file(struct tf *t, const char *name);
/* Bring everything that is to be written to the server and into the cache. */
int tf_sync(struct tf *t);
/* The size that stat() tells, for which the client asks the server; or -errno. */
long long tf_stat(struct tf *t, const char *name);
/* Forget what the page cache has of a file. */
void tf_forget(int fd);
void tf_no_readahead(int fd);

/* ---- the cache ---- */
/* The file of a cookie with this key, once it has its name: 0 or -ENOENT. */
int tf_cache_file(struct tf *t, const char *key, char path[PATH_MAX]);
/* Wait for it. */
int tf_cache_file_soon(struct tf *t, const char *key, char path[PATH_MAX]);
/* The state of a cookie, as a letter of /proc/fs/fscache/cookies; 0 if there is none. */
char tf_cookie_state(const char *key);

/* The state line. */
struct tf_state {
	unsigned long long cull, frun, fcull, fstop, brun, bcull, bstop, freleased, breleased;
};

/* 0 or -errno; -EPROTO if it has another form. */
int tf_state(struct tf *t, struct tf_state *state);

#endif /* TESTFS_H */
