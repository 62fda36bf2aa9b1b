/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Faults for tests: copies to user space that take as long as the test wants, file
 * systems that fail, memory allocations that fail.
 */
#ifndef FAULTS_H
#define FAULTS_H

#include "cachefiles_test.h"

#define SIZE	(1024 * 1024ULL)	/* of most objects */

/*
 * A page of memory whose first use sleeps: a private mapping of a file of ondemandfs.
 * A system call that copies to it sleeps in the page fault, with the locks that it
 * holds, until the test answers the READ.
 */
struct slow {
	struct cf_blob b;
	char *page;
	struct cf_msg read;
};

/* In a file system of its own, mounted at e->erofs. */
int slow_make(struct cf_env *e, struct slow *s);
/* Wait until a page fault has sent the READ. */
int slow_wait(struct cf_env *e, struct slow *s);
/* Answer the READ.  Where nothing is copied to, the page has the content of the file. */
int slow_go_on(struct slow *s);

/* read(@dev) into the slow page. */
struct cf_op *slow_recv(int dev, struct slow *s);

/* Mount a new ext4 of @mib MiB, in a file of e->base, at @dir; cf_env_end() removes it. */
int mount_new_ext4(struct cf_env *e, const char *dir, int mib);
/* Have all I/O on that file system fail with EIO from now on. */
int shut_down_ext4(const char *dir);

/*
 * Mount an empty file system at @dir whose statfs() works @good times and then fails
 * with EIO.  A thread serves it until the process ends.
 */
int mount_failing_fuse(const char *dir, int good);

/*
 * Have the next @times memory allocations of kernel workers fail.  -EOPNOTSUPP if the
 * kernel cannot do that.
 */
int fail_worker_allocations(int times);
void stop_failing_allocations(void);

#endif /* FAULTS_H */
