// SPDX-License-Identifier: GPL-2.0
/*
 * EROFS on a sparse file on the cache's file system, of which fanotify's pre-content
 * events tell what is about to be read. As cheap for fanotify as it can be:
 *
 * - The mark is on the one inode, and nothing else on the file system has one.
 * - The daemon blocks in read(), which gives it all events that there are.
 * - It knows in memory what it has filled, and asks the file system nothing.
 * - It writes through the page cache and never syncs. It uses a descriptor of its own
 *   that was opened before the mark was made, so writing raises no event.
 * - The descriptor that the kernel opens for each event is for reading only, which
 *   costs less than one for writing. There is no flag to have none.
 * - FAN_UNLIMITED_QUEUE, since the kernel lets readers pass that find the queue full.
 *
 * The mark is for the whole file, so each read of it raises an event, whether the data
 * is there or not. The arm "fanotify-unmark" removes the mark when no block is absent,
 * and has all of them fetched before the hits are measured.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include "bench.h"

#ifndef FAN_PRE_ACCESS
#define FAN_PRE_ACCESS			0x00100000
#define FAN_EVENT_INFO_TYPE_RANGE	6
struct fanotify_event_info_range {
	struct fanotify_event_info_header hdr;
	__u32 pad;
	__u64 offset;
	__u64 count;
};
#endif

#define FILE_PATH	"/cache/image"

static pid_t daemon_pid;
static int backing;		/* of the daemon */
static bool unmark;		/* when the file is complete */
static struct blocks blocks;	/* of the image */
static pthread_mutex_t filling = PTHREAD_MUTEX_INITIALIZER;
static const struct image *image;
static int group;

static size_t min(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void fill_range(uint64_t off, uint64_t count)
{
	size_t first = min(off / BLOCK, blocks.count);
	size_t end = min((off + count + BLOCK - 1) / BLOCK, blocks.count);
	size_t start = first * BLOCK, len = min(end * BLOCK, image->size) - start;

	if (first >= end)
		return;
	if (link_delay() && !blocks_are_present(&blocks, first, end))
		link_wait();
	link_lock(&filling);
	if (blocks_take(&blocks, first, end) &&
	    pwrite(backing, image->data + start, len, start) != (ssize_t)len)
		die("pwrite");
	link_unlock(&filling);
}

static void on_event(const struct fanotify_event_metadata *event)
{
	const struct fanotify_event_info_range *range =
		(const void *)((const char *)event + event->metadata_len);
	struct fanotify_response response = { .fd = event->fd, .response = FAN_ALLOW };

	if (event->event_len < event->metadata_len + sizeof(*range) ||
	    range->hdr.info_type != FAN_EVENT_INFO_TYPE_RANGE)
		die("an event without a range");
	fill_range(range->offset, range->count);
	if (unmark && !blocks.absent) {
		unmark = false;
		if (fanotify_mark(group, FAN_MARK_REMOVE, FAN_PRE_ACCESS, AT_FDCWD, FILE_PATH))
			die("FAN_MARK_REMOVE");
	}
	if (write(group, &response, sizeof(response)) != sizeof(response))
		die("response");
	close(event->fd);
}

static void *serve_events(void *unused)
{
	union {
		struct fanotify_event_metadata first;
		char bytes[4096];
	} u;

	for (;;) {
		ssize_t n = read(group, &u, sizeof(u));
		const struct fanotify_event_metadata *event = &u.first;

		if (n < 0)
			die("read of events");
		for (; FAN_EVENT_OK(event, n); event = FAN_EVENT_NEXT(event, n))
			on_event(event);
	}
	return unused;
}

static void serve(const struct image *served, int fd)
{
	image = served;
	group = fd;
	daemon_serve(serve_events, NULL);
}

static void start(const struct arm *arm, const struct image *served, int round, char *path)
{
	(void)round;
	unmark = arm->complete;
	backing = open(FILE_PATH, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (backing < 0 || ftruncate(backing, served->size))
		die(FILE_PATH);
	blocks_init(&blocks, served->size);
	group = fanotify_init(FAN_CLASS_PRE_CONTENT | FAN_UNLIMITED_QUEUE | FAN_CLOEXEC,
			      O_RDONLY | O_CLOEXEC);
	if (group < 0 ||
	    fanotify_mark(group, FAN_MARK_ADD, FAN_PRE_ACCESS, AT_FDCWD, FILE_PATH))
		die("fanotify");
	daemon_pid = daemon_start(serve, served, group);
	close(group);
	close(backing);
	blocks_free(&blocks);
	snprintf(path, PATH_MAX, FILE_PATH);
}

/* Read all of the file, for the daemon to fill it. */
static void complete(void)
{
	static char buf[1 << 20];
	int fd = open(FILE_PATH, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		die(FILE_PATH);
	do
		n = read(fd, buf, sizeof(buf));
	while (n > 0);
	if (n < 0)
		die("read of " FILE_PATH);
	close(fd);
}

static void stop(void)
{
	daemon_end(daemon_pid);
	unlink(FILE_PATH);
}

const struct arm arm_fanotify = {
	.name = "fanotify", .start = start, .stop = stop, .far = true,
};

const struct arm arm_fanotify_unmark = {
	.name = "fanotify-unmark", .start = start, .stop = stop, .complete = complete,
};
