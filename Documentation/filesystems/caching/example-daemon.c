// SPDX-License-Identifier: GPL-2.0
/*
 * A daemon for the on-demand mode of CacheFiles that serves the files of a directory.
 *
 * usage: example-daemon CACHE-DIRECTORY TAG SOURCE-DIRECTORY
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/cachefiles.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define BLOCK	4096			/* what the ranges of READs are multiples of */
#define CHUNK	(64 * BLOCK)

static struct object {
	__u32 id;			/* 0: free */
	int fd, source;			/* the cache's file and ours */
	off_t size;
} objects[4096];

static int dev, directory;

/* Writes one command, with one write(). Returns 0 or a negative errno. */
static int command(const char *name, const char *args)
{
	char line[4096];
	int len = snprintf(line, sizeof(line), "%s %s", name, args);

	if (len >= (int)sizeof(line))
		return -ENAMETOOLONG;
	return write(dev, line, len) < 0 ? -errno : 0;
}

static struct object *find(__u32 id)
{
	size_t i;

	for (i = 0; i < sizeof(objects) / sizeof(*objects); i++)
		if (objects[i].id == id)
			return &objects[i];
	return NULL;
}

/* A key is bytes from elsewhere: it must not lead out of the directory, or to a device. */
static int open_source(const __u8 *key, __u32 len, off_t *size)
{
	char name[256] = "";
	struct stat st;
	int fd;

	if (len >= sizeof(name) || memchr(key, '/', len) || memchr(key, 0, len))
		return -ENOENT;
	memcpy(name, key, len);
	fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		*size = st.st_size;
		return fd;
	}
	close(fd);
	return -ENOENT;
}

static void handle_open(const struct cachefiles_msg *msg)
{
	const struct cachefiles_open *req = (const void *)msg->data;
	struct object new = { .id = msg->object_id, .fd = req->fd };
	struct object *o = find(0);
	char args[64];
	int ret;

	new.source = o ? open_source(req->data + req->volume_key_size, req->cookie_key_size,
				     &new.size) : -ENFILE;
	snprintf(args, sizeof(args), "%u,%lld", msg->msg_id,
		 new.source < 0 ? new.source : (long long)new.size);
	ret = command("copen", args);
	if (new.source >= 0 && !ret) {
		*o = new;
		return;
	}
	/* We said no, or the opener has given up (EINVAL). */
	close(new.fd);
	if (new.source >= 0)
		close(new.source);
}

/* Copies whole blocks; zeros follow the end of the file. */
static int fill(const struct object *o, off_t off, off_t end)
{
	static char buf[CHUNK] __attribute__((aligned(BLOCK)));	/* for direct I/O, as in C */
	ssize_t n;

	while (off < end) {
		ssize_t len = end - off < CHUNK ? end - off : CHUNK;
		ssize_t want = o->size - off < len ? o->size - off : len, have = 0;

		for (; have < want; have += n) {
			n = pread(o->source, buf + have, want - have, off + have);
			if (n <= 0)		/* 0: the file has shrunk */
				return n ? -errno : -EIO;
		}
		memset(buf + have, 0, len - have);
		n = pwrite(o->fd, buf, len, off);
		if (n < BLOCK)
			return n < 0 ? -errno : -ENOSPC;
		off += n / BLOCK * BLOCK;
	}
	return 0;
}

static void handle_read(const struct cachefiles_msg *msg)
{
	const struct cachefiles_read *req = (const void *)msg->data;
	const struct object *o = find(msg->object_id);
	int ret;

	if (!o) {
		warnx("READ of an object that is not open: %u", msg->object_id);
		return;
	}
	ret = fill(o, req->off, req->off + req->len);
	if (ret)
		warnx("object %u at %lld: %s", o->id, (long long)req->off, strerror(-ret));
	/* Failed or not: without this the reader waits. Without the data it gets EIO. */
	if (ioctl(o->fd, CACHEFILES_IOC_READ_COMPLETE, (unsigned long)msg->msg_id) &&
	    errno != EINVAL)		/* EINVAL: no task waits any more */
		warn("object %u: READ_COMPLETE", o->id);
}

static void handle_close(const struct cachefiles_msg *msg)
{
	struct object *o = find(msg->object_id);

	if (o) {
		close(o->fd);
		close(o->source);
		o->id = 0;
	}
}

int main(int argc, char **argv)
{
	union {
		struct cachefiles_msg msg;
		char room[CACHEFILES_MSG_MAX_SIZE];
	} buf;
	int warned = 0, ret;
	ssize_t n;

	if (argc != 4)
		errx(1, "usage: %s CACHE-DIRECTORY TAG SOURCE-DIRECTORY", argv[0]);
	directory = open(argv[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		err(1, "%s", argv[3]);
	/* Whoever waits for memory may wait for files that wait for us. */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		warn("PR_SET_IO_FLUSHER");

	dev = open("/dev/cachefiles", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (dev < 0)
		err(1, "/dev/cachefiles");
	ret = command("dir", argv[1]) ?: command("tag", argv[2]) ?: command("bind", "ondemand");
	errno = -ret;
	if (ret)
		err(1, "cannot make a cache of %s; see the kernel log", argv[1]);

	for (;;) {
		struct pollfd ready = { .fd = dev, .events = POLLIN };

		if (poll(&ready, 1, -1) < 0 && errno != EINTR)
			err(1, "poll");
		if (ready.revents & (POLLERR | POLLHUP))
			errx(1, "the cache is dead");
		while ((n = read(dev, &buf, sizeof(buf))) > 0) {
			if (buf.msg.opcode == CACHEFILES_OP_OPEN)
				handle_open(&buf.msg);
			else if (buf.msg.opcode == CACHEFILES_OP_READ)
				handle_read(&buf.msg);
			else if (buf.msg.opcode == CACHEFILES_OP_CLOSE)
				handle_close(&buf.msg);
		}
		if (n == 0 || errno == EAGAIN)
			continue;
		if (errno != EMFILE && errno != ENFILE && errno != ENOMEM)
			err(1, "reading a message");
		if (!warned++)
			warn("an OPEN has to wait");
		/* It comes again, after what else there is: a CLOSE, perhaps. */
		usleep(100000);
	}
}
