// SPDX-License-Identifier: GPL-2.0
/*
 * EROFS on ondemandfs, with cachefiles below: whichever is loaded. The daemon is a
 * process of its own that does no more than it has to.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"
#include <linux/cachefiles.h>

#define ODFS	"/odfs"

static pid_t daemon_pid;
/* What the daemon binds with, if it uses what only our cachefiles has. */
static const char *options;
static bool waits;

static void command(int dev, const char *cmd)
{
	if (write(dev, cmd, strlen(cmd)) < 0)
		die("%s", cmd);
}

#define MAX_OBJECTS	65536
static int fd_of[MAX_OBJECTS];

/* OPENs that the daemon has taken, and answers when there are so many or come no more. */
#define IN_FLIGHT	10000

static struct held {
	atomic_bool slow;	/* READs take 10 ms each */
	atomic_bool on;
	atomic_int count;
	uint32_t msg_ids[IN_FLIGHT];
} *held;		/* shared */

static void answer(int dev, const struct image *image, uint32_t msg_id)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "copen %u,%zu", msg_id, image->size);
	/* An opener that was put off too long has gone, and its OPEN with it. */
	if (write(dev, cmd, strlen(cmd)) < 0 && errno != EINVAL)
		die("%s", cmd);
}

static void answer_held(int dev, const struct image *image)
{
	held->on = false;
	for (int i = 0; i < held->count; i++)
		answer(dev, image, held->msg_ids[i]);
}

static void on_open(int dev, const struct image *image, const struct cachefiles_msg *msg)
{
	const struct cachefiles_open *open = (const void *)msg->data;

	fd_of[msg->object_id % MAX_OBJECTS] = open->fd;
	if (!held->on) {
		answer(dev, image, msg->msg_id);
		return;
	}
	held->msg_ids[held->count++] = msg->msg_id;
	if (held->count == IN_FLIGHT)
		answer_held(dev, image);
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

struct slow_read {
	const struct image *image;
	union {
		struct cachefiles_msg msg;
		char bytes[64];
	} u;
};

static void *on_slow_read(void *arg)
{
	struct slow_read *slow = arg;

	usleep(10000);
	on_read(slow->image, &slow->u.msg);
	free(slow);
	return NULL;
}

static void start_on_read(const struct image *image, const struct cachefiles_msg *msg)
{
	struct slow_read *slow = malloc(sizeof(*slow));
	pthread_t thread;

	slow->image = image;
	memcpy(&slow->u, msg, msg->len);
	if (pthread_create(&thread, NULL, on_slow_read, slow))
		die("pthread_create");
	pthread_detach(thread);
}

static void slow_down(void)
{
	held->slow = true;
}

static int bind_cache(void)
{
	int dev = open("/dev/cachefiles", O_RDWR | O_CLOEXEC);

	if (dev < 0)
		die("/dev/cachefiles");
	command(dev, "dir /cache");
	command(dev, "tag bench");
	command(dev, options);
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
			/* A second without another is long: the clock counts instructions. */
			if (!poll(&p, 1, held->on && held->count ? 1000 : -1))
				answer_held(dev, image);
			continue;
		}
		switch (u.msg.opcode) {
		case CACHEFILES_OP_OPEN:
			on_open(dev, image, &u.msg);
			break;
		case CACHEFILES_OP_READ:
			if (held->slow)
				start_on_read(image, &u.msg);
			else
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
	const struct rlimit files = { 2 * IN_FLIGHT, 2 * IN_FLIGHT };
	int ready[2];
	char byte;

	waits = arm != &arm_cachefiles;
	options = !waits ? "bind ondemand" :
		  arm == &arm_cachefiles_granule ? "bind ondemand wait granule=4194304" :
		  "bind ondemand wait";
	if (setrlimit(RLIMIT_NOFILE, &files))
		die("RLIMIT_NOFILE");
	held = mmap(NULL, sizeof(*held), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (held == MAP_FAILED)
		die("mmap");
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

static void *open_one(void *arg)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), ODFS "/flight.%ld", (long)arg);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		die("%s", path);
	close(fd);
	return NULL;
}

/* How many OPENs reach a daemon that answers none of them. */
static void opens_in_flight(const char *name)
{
	static pthread_t openers[IN_FLIGHT];
	struct samples s = {};
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	held->count = 0;
	held->on = true;
	for (long i = 0; i < IN_FLIGHT; i++)
		if (pthread_create(&openers[i], &attr, open_one, (void *)i))
			die("pthread_create");
	while (held->on)
		usleep(1000);
	samples_add(&s, held->count);
	for (int i = 0; i < IN_FLIGHT; i++)
		pthread_join(openers[i], NULL);
	samples_report(&s, name, "opens_in_flight");
}

#define NAMES	300

static void measure(const char *name)
{
	open_names(name, "open", 0, NAMES);
	open_names(name, "open_more", NAMES, NAMES);
	/* They have not been closed for long. */
	open_names(name, "open_active", NAMES, NAMES);
	opens_in_flight(name);
}

const struct arm arm_cachefiles = {
	.name = "cachefiles", .start = start, .stop = stop, .measure = measure,
	.slow_down = slow_down,
};

const struct arm arm_cachefiles_wait = {
	.name = "cachefiles-wait", .start = start, .stop = stop, .measure = measure,
	.slow_down = slow_down,
};

const struct arm arm_cachefiles_granule = {
	.name = "cachefiles-granule", .start = start, .stop = stop,
	.slow_down = slow_down, .sequential = true,
};
