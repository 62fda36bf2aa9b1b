// SPDX-License-Identifier: GPL-2.0
/*
 * EROFS on ondemandfs, with cachefiles below: whichever is loaded. The daemon is a
 * process of its own that does no more than it has to.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "bench.h"
#include <linux/cachefiles.h>

#define ODFS	"/odfs"

static pid_t daemon_pid;
/* Whether the daemon uses what only our cachefiles has. */
static bool waits;

static void command(int dev, const char *cmd)
{
	if (write(dev, cmd, strlen(cmd)) < 0)
		die("%s", cmd);
}

#define MAX_OBJECTS	65536
static int fd_of[MAX_OBJECTS];

static void on_open(int dev, const struct image *image, const struct cachefiles_msg *msg)
{
	const struct cachefiles_open *open = (const void *)msg->data;
	char cmd[64];

	fd_of[msg->object_id % MAX_OBJECTS] = open->fd;
	snprintf(cmd, sizeof(cmd), "copen %u,%zu", msg->msg_id, image->size);
	command(dev, cmd);
}

static void on_read(const struct image *image, const struct cachefiles_msg *msg)
{
	const struct cachefiles_read *read = (const void *)msg->data;
	int fd = fd_of[msg->object_id % MAX_OBJECTS];

	if (waits) {
		struct cachefiles_fill fill = {
			.off = read->off, .len = read->len, .msg_id = msg->msg_id,
			.addr = (uintptr_t)(image->data + read->off),
		};

		if (ioctl(fd, CACHEFILES_IOC_FILL, &fill) != (int)read->len)
			die("FILL");
		return;
	}
	if (pwrite(fd, image->data + read->off, read->len, read->off) != (ssize_t)read->len)
		die("pwrite");
	if (ioctl(fd, CACHEFILES_IOC_READ_COMPLETE, msg->msg_id))
		die("READ_COMPLETE");
}

static int bind_cache(void)
{
	int dev = open("/dev/cachefiles", O_RDWR | O_CLOEXEC);

	if (dev < 0)
		die("/dev/cachefiles");
	command(dev, "dir /cache");
	command(dev, "tag bench");
	command(dev, waits ? "bind ondemand wait" : "bind ondemand");
	return dev;
}

/* Says through @ready that the cache is bound. */
static void serve(const struct image *image, int ready)
{
	struct pollfd p = { .fd = bind_cache(), .events = POLLIN };
	int dev = p.fd;
	union {
		struct cachefiles_msg msg;
		char bytes[1024];
	} u;

	if (write(ready, "", 1) != 1)
		die("pipe");
	for (;;) {
		ssize_t n = read(dev, &u, sizeof(u));

		if (n < 0)
			die("read of the device");
		if (n == 0) {
			if (waits)
				exit(1);
			poll(&p, 1, -1);
			continue;
		}
		switch (u.msg.opcode) {
		case CACHEFILES_OP_OPEN:
			on_open(dev, image, &u.msg);
			break;
		case CACHEFILES_OP_READ:
			on_read(image, &u.msg);
			break;
		case CACHEFILES_OP_CLOSE:
			close(fd_of[u.msg.object_id % MAX_OBJECTS]);
			break;
		}
	}
}

static void start(const struct arm *arm, const struct image *image, int round, char *path)
{
	int ready[2];
	char byte;

	waits = arm == &arm_cachefiles_wait;
	if (pipe(ready))
		die("pipe");
	daemon_pid = daemon_start(serve, image, ready[1]);
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		die("the daemon is not there");
	close(ready[0]);
	if (mount("none", ODFS, "ondemandfs", 0, "domain=bench,cache=bench"))
		die("mount of ondemandfs");
	snprintf(path, PATH_MAX, ODFS "/image.%d", round);
}

static void stop(void)
{
	if (umount(ODFS))
		die("umount of ondemandfs");
	daemon_end(daemon_pid);
}

/* From open() until it returns: the daemon was asked, has answered, and there is an object. */
static void open_names(const char *name, const char *metric, int first, int count)
{
	struct samples s = {};
	char path[64];

	profile_on();
	for (int i = first; i < first + count; i++) {
		uint64_t since;
		int fd;

		snprintf(path, sizeof(path), ODFS "/name.%d", i);
		since = now();
		fd = open(path, O_RDONLY);
		samples_add(&s, now() - since);
		if (fd < 0)
			die("%s", path);
		close(fd);
	}
	profile_off();
	samples_report(&s, name, metric);
}

#define NAMES	300

static void measure(const char *name)
{
	open_names(name, "open", 0, NAMES);
	open_names(name, "open_more", NAMES, NAMES);
	/* They have not been closed for long. */
	open_names(name, "open_active", NAMES, NAMES);
}

const struct arm arm_cachefiles = {
	.name = "cachefiles", .start = start, .stop = stop, .measure = measure,
};

const struct arm arm_cachefiles_wait = {
	.name = "cachefiles-wait", .start = start, .stop = stop, .measure = measure,
};
