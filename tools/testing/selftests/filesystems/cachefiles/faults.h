/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for the regression tests: copies to user space that take as long as the
 * test wants, file systems that fail.
 */
#ifndef REGRESSION_H
#define REGRESSION_H

#include "cachefiles_test.h"

#define SIZE	(1024 * 1024ULL)	/* of most objects */

/*
 * Memory that whoever touches it first has to wait for: a private mapping of a file
 * of ondemandfs.  A system call that copies to it sleeps there until the READ is
 * answered, whatever locks it holds.
 */
struct slow {
	struct cf_blob b;
	char *page;
	struct cf_msg read;
};

/* In a file system of its own, mounted at e->erofs. */
int slow_make(struct cf_env *e, struct slow *s);
/* Wait until somebody waits for the page. */
int slow_wait(struct cf_env *e, struct slow *s);
/* Let them go on.  The page holds s->page's content of the file where nothing was copied to. */
int slow_go_on(struct slow *s);

/* read(@dev) into the slow page. */
struct cf_op *slow_recv(int dev, struct slow *s);

/* Mount a new ext4 of @mib MiB in a file of e->base at @dir; it goes with the test. */
int mount_new_ext4(struct cf_env *e, const char *dir, int mib);
/* From now on that file system fails with EIO. */
int shut_down_ext4(const char *dir);

/*
 * A file system in which nothing exists, and whose statfs() works @good times and
 * then fails with EIO.  Served by a thread until the process ends.
 */
int mount_failing_fuse(const char *dir, int good);

/*
 * Have memory allocations of kernel workers fail, @times of them.  -EOPNOTSUPP if the
 * kernel cannot do that.
 */
int fail_worker_allocations(int times);
void stop_failing_allocations(void);

#endif /* REGRESSION_H */
