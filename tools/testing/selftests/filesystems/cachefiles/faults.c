// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/fuse.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "faults.h"

/* ---- slow memory ---- */

int slow_make(struct cf_env *e, struct slow *s)
{
	struct cf_env other = *e;
	int err;

	strcpy(other.mnt, e->erofs);
	snprintf(other.domain, sizeof(other.domain), "slow%d", getpid());
	err = cf_mount_at(other.mnt, other.domain, e->tag);
	if (!err)
		err = cf_blob_open(&other, &s->b, "slow", 4096);
	if (err)
		return err;
	s->page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, s->b.fd, 0);
	return s->page == MAP_FAILED ? -errno : 0;
}

int slow_wait(struct cf_env *e, struct slow *s)
{
	int err = cf_expect(e->dev, CF_READ, &s->read);

	return err ? err : s->read.w.object_id != s->b.object_id ? -EPROTO : 0;
}

int slow_go_on(struct slow *s)
{
	return cf_blob_answer_read(&s->b, &s->read);
}

static atomic_int slow_tid;

static long do_slow_recv(struct cf_op *op)
{
	ssize_t n;

	slow_tid = gettid();
	n = read(op->fd, (void *)op->off, CF_MSG_MAX);
	return n < 0 ? -errno : n;
}

/* read() of the device does not sleep, but in copying. */
static bool sleeps_in_read(void)
{
	char path[64], text[64] = "";
	int fd;

	if (!slow_tid)
		return false;
	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", slow_tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return atoi(text) == SYS_read && text[0] != 'r';	/* not "running" */
}

struct cf_op *slow_recv(int dev, struct slow *s)
{
	struct cf_op *op;

	slow_tid = 0;
	op = cf_start(do_slow_recv, NULL, dev, (off_t)s->page, 0);
	/* It has to take its message before another thread reads. */
	if (!CF_WAIT_FOR(sleeps_in_read(), CF_SOON))
		fprintf(stderr, "# no thread sleeps in copying a message\n");
	return op;
}

/* ---- file systems that fail ---- */

int mount_new_ext4(struct cf_env *e, const char *dir, int mib)
{
	char cmd[512];
	int fd;

	cf_modprobe("loop");
	snprintf(cmd, sizeof(cmd), "%s/ext4.img", e->base);
	fd = open(cmd, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)mib << 20))
		return -errno;
	close(fd);
	snprintf(cmd, sizeof(cmd),
		 "mke2fs -F -b 4096 %s/ext4.img >/dev/null 2>&1 && mount -t ext4 -o loop %s/ext4.img %s",
		 e->base, e->base, dir);
	return cf_run("sh", "-c", cmd, NULL) ? -EIO : 0;
}

int shut_down_ext4(const char *dir)
{
	/* EXT4_IOC_SHUTDOWN: at once, without writing anything more */
	const unsigned long shutdown = _IOR('X', 125, __u32);
	__u32 how = 2;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	err = fd < 0 || ioctl(fd, shutdown, &how) ? -errno : 0;
	close(fd);
	return err;
}

static int fuse_good;

static void fuse_reply(int fd, const struct fuse_in_header *in, int error, const void *data,
		       size_t len)
{
	char buf[512];
	struct fuse_out_header out = { .len = sizeof(out) + len, .error = error,
				       .unique = in->unique };

	memcpy(buf, &out, sizeof(out));
	if (len)
		memcpy(buf + sizeof(out), data, len);
	if (write(fd, buf, out.len) < 0)
		perror("# fuse");
}

static void *fuse_thread(void *arg)
{
	static char buf[FUSE_MIN_READ_BUFFER * 32];
	const struct fuse_in_header *in = (void *)buf;
	int fd = (long)arg;

	while (read(fd, buf, sizeof(buf)) > 0) {
		struct fuse_init_out init = {
			.major = FUSE_KERNEL_VERSION, .minor = 31,
			.max_readahead = 4096, .max_write = 4096,
		};
		struct fuse_attr_out attr = {
			.attr = { .ino = FUSE_ROOT_ID, .mode = S_IFDIR | 0755, .nlink = 2,
				  .blksize = 4096 },
		};
		struct fuse_statfs_out st = {
			.st = { .blocks = 1000000, .bfree = 900000, .bavail = 900000,
				.files = 1000000, .ffree = 900000, .bsize = 4096,
				.frsize = 4096, .namelen = 255 },
		};

		switch (in->opcode) {
		case FUSE_INIT:
			fuse_reply(fd, in, 0, &init, sizeof(init));
			break;
		case FUSE_GETATTR:
			fuse_reply(fd, in, 0, &attr, sizeof(attr));
			break;
		case FUSE_STATFS:
			if (fuse_good-- > 0)
				fuse_reply(fd, in, 0, &st, sizeof(st));
			else
				fuse_reply(fd, in, -EIO, NULL, 0);
			break;
		case FUSE_LOOKUP:
			fuse_reply(fd, in, -ENOENT, NULL, 0);
			break;
		case FUSE_ACCESS:
			fuse_reply(fd, in, 0, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_BATCH_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			fuse_reply(fd, in, -EOPNOTSUPP, NULL, 0);
		}
	}
	return NULL;
}

int mount_failing_fuse(const char *dir, int good)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	pthread_t thread;
	char opts[128];

	if (fd < 0)
		return -errno;
	fuse_good = good;
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=40755,user_id=0,group_id=0", fd);
	if (mount("none", dir, "fuse", 0, opts))
		return -errno;
	return -pthread_create(&thread, NULL, fuse_thread, (void *)(long)fd);
}

/* ---- allocations that fail ---- */

#define FAILSLAB	"/sys/kernel/debug/failslab/"

static int put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* Kernel workers, and the thread that makes new ones. */
static int mark_workers(const char *value)
{
	DIR *proc = opendir("/proc");
	struct dirent *de;
	int marked = 0;

	while (proc && (de = readdir(proc))) {
		char path[300], comm[64] = "";
		int fd;

		if (de->d_name[0] < '0' || de->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", de->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, comm, sizeof(comm) - 1) < 0)
			comm[0] = 0;
		close(fd);
		if (strncmp(comm, "kworker/u", 9) && strcmp(comm, "kthreadd\n"))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/make-it-fail", de->d_name);
		marked += !put(path, value);
	}
	if (proc)
		closedir(proc);
	return marked;
}

int fail_worker_allocations(int times)
{
	char text[16];

	if (access(FAILSLAB "probability", W_OK) || !mark_workers("1"))
		return -EOPNOTSUPP;
	snprintf(text, sizeof(text), "%d", times);
	if (put(FAILSLAB "verbose", "0") || put(FAILSLAB "task-filter", "Y") ||
	    put(FAILSLAB "ignore-gfp-wait", "N") || put(FAILSLAB "interval", "1") ||
	    put(FAILSLAB "space", "0") || put(FAILSLAB "times", text))
		return -EOPNOTSUPP;
	return put(FAILSLAB "probability", "100");
}

void stop_failing_allocations(void)
{
	put(FAILSLAB "probability", "0");
	mark_workers("0");
}
