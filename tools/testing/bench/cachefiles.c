// SPDX-License-Identifier: GPL-2.0
/*
 * EROFS on ondemandfs, with cachefiles below: whichever is loaded. The daemon is a
 * process of its own that does no more than it has to.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
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

static int device;
static const struct image *served;

#define MAX_OBJECTS	65536
static int fd_of[MAX_OBJECTS];

/* OPENs that the daemon has taken, and answers when there are so many or come no more. */
#define IN_FLIGHT	10000
/* READs that are not answered before there are so many, and those of them that are. */
#define OUTSTANDING	100000
#define ANSWERED	32768

static struct held {
	atomic_bool many;	/* there are to be many threads */
	atomic_bool on;
	atomic_int count;
	uint32_t msg_ids[IN_FLIGHT];
	/* When the last OPEN was taken, and was about to be answered. */
	uint64_t taken, answered;
	atomic_bool keep;
	bool restored;
	atomic_int reads;
	struct cachefiles_msg msgs[ANSWERED];
	struct cachefiles_read ranges[ANSWERED];
	uint64_t took[ANSWERED], restore_took;
} *held;		/* shared */

/* An object with this in its name is so many times as large as the image, which it repeats. */
#define LONG		"long"
#define LONG_FACTOR	25

static void answer(int dev, size_t size, uint32_t msg_id)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "copen %u,%zu", msg_id, size);
	/* An opener that was put off too long has gone, and its OPEN with it. */
	if (write(dev, cmd, strlen(cmd)) < 0 && errno != EINVAL)
		die("%s", cmd);
}

static void answer_held(int dev, const struct image *image)
{
	held->on = false;
	for (int i = 0; i < held->count; i++)
		answer(dev, image->size, held->msg_ids[i]);
}

static void on_open(int dev, const struct image *image, const struct cachefiles_msg *msg)
{
	const struct cachefiles_open *open = (const void *)msg->data;

	held->taken = now();
	fd_of[msg->object_id % MAX_OBJECTS] = open->fd;
	if (!held->on) {
		const char *key = (const char *)open->data + open->volume_key_size;
		bool is_long = !strncmp(key, LONG, strlen(LONG));

		held->answered = now();
		answer(dev, image->size * (is_long ? LONG_FACTOR : 1), msg->msg_id);
		return;
	}
	held->msg_ids[held->count++] = msg->msg_id;
	if (held->count == IN_FLIGHT)
		answer_held(dev, image);
}

static void on_read(const struct image *image, const struct cachefiles_msg *msg)
{
	const struct cachefiles_read *read = (const void *)msg->data;
	const uint8_t *data = image->data + read->off % image->size;
	int fd = fd_of[msg->object_id % MAX_OBJECTS];

	if (waits) {
		struct cachefiles_fill fill = {
			.off = read->off, .len = read->len, .msg_id = msg->msg_id,
			.addr = (uintptr_t)data,
		};

		if (ioctl(fd, CACHEFILES_IOC_FILL, &fill) != (int)read->len)
			die("FILL");
		return;
	}
	if (pwrite(fd, data, read->len, read->off) != (ssize_t)read->len)
		die("pwrite");
	if (ioctl(fd, CACHEFILES_IOC_READ_COMPLETE, msg->msg_id))
		die("READ_COMPLETE");
}

/* Of a daemon that has just taken over, and will be told of all of them again. */
static void restore(void)
{
	uint64_t since = now();

	command(device, "restore");
	held->restore_took = now() - since;
	held->restored = true;
	held->reads = 0;
}

static void keep_read(const struct image *image, const struct cachefiles_msg *msg)
{
	int n = held->reads++;

	if (n < ANSWERED) {
		held->msgs[n] = *msg;
		memcpy(&held->ranges[n], msg->data, sizeof(held->ranges[n]));
	}
	if (n + 1 < OUTSTANDING)
		return;
	if (!held->restored) {
		restore();
		return;
	}
	for (int i = 0; i < ANSWERED; i++) {
		struct { struct cachefiles_msg msg; struct cachefiles_read read; } kept = {
			held->msgs[i], held->ranges[i],
		};
		uint64_t since = now();

		on_read(image, &kept.msg);
		held->took[i] = now() - since;
	}
	held->keep = false;
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

	link_wait();
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

static void multiply(void)
{
	held->many = true;
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

#define THREADS	16

/* Until there may be a message: one of many threads is woken, if the cache can do that. */
static void wait_for_one_of_many(void)
{
	static __thread int epoll = -1;
	struct epoll_event event = { .events = EPOLLIN | EPOLLEXCLUSIVE };

	if (epoll < 0) {
		epoll = epoll_create1(EPOLL_CLOEXEC);
		if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, device, &event))
			die("epoll");
	}
	epoll_wait(epoll, &event, 1, -1);
}

static void wait_for_message(void)
{
	struct pollfd p = { .fd = device, .events = POLLIN };

	if (waits)
		exit(1);
	if (held->many)
		wait_for_one_of_many();
	/* A second without another is long: the clock counts instructions. */
	else if (!poll(&p, 1, held->on && held->count ? 1000 : -1))
		answer_held(device, served);
}

static void *serve_messages(void *first)
{
	bool alone = first;
	union {
		struct cachefiles_msg msg;
		char bytes[1024];
	} u;

	for (;;) {
		ssize_t n = read(device, &u, sizeof(u));

		if (n < 0)
			die("read of the device");
		if (n == 0) {
			wait_for_message();
			continue;
		}
		switch (u.msg.opcode) {
		case CACHEFILES_OP_OPEN:
			on_open(device, served, &u.msg);
			break;
		case CACHEFILES_OP_READ:
			if (held->keep)
				keep_read(served, &u.msg);
			else if (link_delay())
				start_on_read(served, &u.msg);
			else
				on_read(served, &u.msg);
			break;
		case CACHEFILES_OP_CLOSE:
			close(fd_of[u.msg.object_id % MAX_OBJECTS]);
			break;
		}
		if (alone && held->many) {
			pthread_t thread;

			alone = false;
			for (int i = 1; i < THREADS; i++)
				if (pthread_create(&thread, NULL, serve_messages, NULL))
					die("pthread_create");
		}
	}
	return NULL;
}

/* Says through @ready that the cache is bound. */
static void serve(const struct image *image, int ready)
{
	(void)image;
	device = bind_cache();
	if (write(ready, "", 1) != 1)
		die("pipe");
	serve_messages(&device);
}

static void start(const struct arm *arm, const struct image *image, int round, char *path)
{
	const struct rlimit files = { 2 * IN_FLIGHT, 2 * IN_FLIGHT };
	int ready[2];
	char byte;

	served = image;
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
	if (daemon_pid)
		daemon_end(daemon_pid);
}

/* From open() until it returns: the daemon was asked, has answered, and there is an object. */
static void open_names(const char *name, const char *metric, int first, int count)
{
	struct samples s = {}, asked = {}, rest = {};
	char path[64], phase[64];

	profile_on();
	for (int i = first; i < first + count; i++) {
		uint64_t since, until;
		int fd;

		snprintf(path, sizeof(path), ODFS "/name.%d", i);
		since = now();
		fd = open(path, O_RDONLY);
		until = now();
		samples_add(&s, until - since);
		if (held->taken > since) {
			samples_add(&asked, held->taken - since);
			samples_add(&rest, until - held->answered);
		}
		if (fd < 0)
			die("%s", path);
		close(fd);
	}
	profile_off();
	samples_report(&s, name, metric);
	snprintf(phase, sizeof(phase), "%s_until_asked", metric);
	samples_report(&asked, name, phase);
	snprintf(phase, sizeof(phase), "%s_once_answered", metric);
	samples_report(&rest, name, phase);
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

static int open_kept(const char *kind, int i)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), ODFS "/%s.%d", kind, i);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		die("%s", path);
	return fd;
}

/* What an open file takes up, on both sides, in bytes. */
static void memory_of_files(const char *name)
{
	static int fds[5000];
	uint64_t before = slab_memory();
	struct samples s = {};

	for (int i = 0; i < 5000; i++)
		fds[i] = open_kept("kept", i);
	samples_add(&s, (slab_memory() - before) / 5000);
	for (int i = 0; i < 5000; i++)
		close(fds[i]);
	samples_report(&s, name, "memory_open");
}

#define READERS		16
#define READS_OF_EACH	60

static void *read_object(void *arg)
{
	int fd = open_kept("object", (long)arg);
	char buf[BLOCK];

	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (off_t off = 0; off < READS_OF_EACH * 3 * BLOCK; off += 3 * BLOCK)
		if (pread(fd, buf, BLOCK, off) != BLOCK || memcmp(buf, served->data + off, BLOCK))
			die("read of an object");
	close(fd);
	return NULL;
}

/* What a miss costs if many read at once, each another object: without EROFS. */
static void many_objects(const char *name)
{
	pthread_t threads[READERS];
	struct samples s = {};
	uint64_t since = now();

	for (long i = 0; i < READERS; i++)
		if (pthread_create(&threads[i], NULL, read_object, (void *)i))
			die("pthread_create");
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	samples_add(&s, (now() - since) / (READERS * READS_OF_EACH));
	samples_report(&s, name, "miss_4k_16_objects");
}

/* As many READs of single blocks as one file may have that is read ahead. */
#define READS_OF_ONE	128

/* READs that the daemon does not answer before they are all there. */
static void many_reads(const char *name)
{
	struct samples submit = {}, rare = {}, complete = {}, memory = {}, restored = {}, end = {};
	int files = (OUTSTANDING + READS_OF_ONE - 1) / READS_OF_ONE;
	static int fds[OUTSTANDING / READS_OF_ONE + 1];
	uint64_t before;

	for (int i = 0; i < files; i++)
		fds[i] = open_kept("outstanding", i);
	before = slab_memory();
	held->reads = 0;
	held->keep = true;
	kill(daemon_pid, SIGSTOP);
	for (int i = 0; i < OUTSTANDING; i++) {
		off_t off = (i % READS_OF_ONE) * 3 * BLOCK;
		uint64_t since = now();

		if (posix_fadvise(fds[i / READS_OF_ONE], off, BLOCK, POSIX_FADV_WILLNEED))
			die("POSIX_FADV_WILLNEED");
		samples_add(&submit, now() - since);
	}
	/* One in a thousand: tables have grown for more than that. */
	samples_add(&rare, samples_percentile(&submit, 99.9));
	samples_add(&memory, (slab_memory() - before) / OUTSTANDING);
	kill(daemon_pid, SIGCONT);
	while (held->keep)
		usleep(1000);
	for (int i = 0; i < ANSWERED; i++)
		samples_add(&complete, held->took[i]);
	samples_add(&restored, held->restore_took);
	/* What was answered is written back already. */
	sync();
	before = now();
	profile_on();
	daemon_end(daemon_pid);
	profile_off();
	daemon_pid = 0;
	samples_add(&end, (now() - before) / (OUTSTANDING - ANSWERED));
	samples_report(&end, name, "daemon_death_each");
	samples_report(&submit, name, "submit_100000");
	samples_report(&rare, name, "submit_100000_p99.9");
	samples_report(&complete, name, "complete_100000");
	samples_report(&restored, name, "restore_100000");
	samples_report(&memory, name, "memory_read");
	for (int i = 0; i < files; i++)
		close(fds[i]);
}

static void mount_again(void)
{
	umount_idle(ODFS);
	if (mount("none", ODFS, "ondemandfs", 0, "domain=bench,cache=bench"))
		die("mount of ondemandfs");
}

/* Read blocks of an object, each alone. */
static void read_blocks(int number, off_t first, off_t step, int count)
{
	int fd = open_kept(LONG, number);
	char buf[BLOCK];

	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	for (off_t at = first; count--; at += step)
		if (pread(fd, buf, BLOCK, at * BLOCK) != BLOCK)
			die("read of a long object");
	close(fd);
}

/* What it costs to withdraw an object of so many runs after @count blocks more were fetched. */
static void withdraw_changed(const char *name, int number, int runs, int count)
{
	struct samples s = {};
	char metric[64];
	uint64_t since;

	read_blocks(number, 0, 2, runs);
	mount_again();
	/* All over the object, between the runs. */
	read_blocks(number, 1, runs / count * 2, count);
	sync();
	since = now();
	profile_on();
	mount_again();
	profile_off();
	samples_add(&s, now() - since);
	snprintf(metric, sizeof(metric), "withdraw_%d_more_of_%d", count, runs);
	samples_report(&s, name, metric);
}

#define NAMES	300

static void measure(const char *name)
{
	open_names(name, "open", 0, NAMES);
	open_names(name, "open_more", NAMES, NAMES);
	/* They have not been closed for long. */
	open_names(name, "open_active", NAMES, NAMES);
	many_objects(name);
	opens_in_flight(name);
	memory_of_files(name);
	/* In C, there is no list, and each READ needs a thread. */
	if (waits) {
		withdraw_changed(name, 1, 500, 1);
		withdraw_changed(name, 2, 50000, 1);
		withdraw_changed(name, 3, 50000, 100);
		many_reads(name);
	}
}

const struct arm arm_cachefiles = {
	.name = "cachefiles", .start = start, .stop = stop, .measure = measure,
	.multiply = multiply, .far = true,
};

const struct arm arm_cachefiles_wait = {
	.name = "cachefiles-wait", .start = start, .stop = stop, .measure = measure,
	.multiply = multiply, .far = true,
};

const struct arm arm_cachefiles_granule = {
	.name = "cachefiles-granule", .start = start, .stop = stop,
	.far = true, .far_only = true,
};
