// SPDX-License-Identifier: GPL-2.0
/*
 * A file system in user space that has one file, served from memory by a daemon that
 * reads and writes /dev/fuse itself. As cheap for FUSE as it can be:
 *
 * - The kernel keeps what it knows of the file and its data (FOPEN_KEEP_CACHE, and
 *   attributes and names valid for long), so a read that needs data is one request.
 * - A request may be of 1 MiB (256 pages), and several may be under way.
 * - A request costs one read() and one writev(), the latter from where the data is.
 *
 * In the arm "erofs-on-fuse" the file is the image, and EROFS is on it. Then the data is
 * in the page cache twice, and "hit_in_memory" is what FUSE's copy costs; nothing is on a
 * disk, so in "hit_on_disk" the daemon is asked again. In "fuse-direct" the file is the
 * one in the image, and is read without EROFS: each hit asks the daemon. The same with
 * "-stored": the daemon keeps what it has fetched in a file (store.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/fuse.h>

#include "bench.h"

#define MNT		"/fuse"
#define NAME		"file"
#define FILE_ID		2
#define VALID		86400		/* in seconds */
#define MAX_REQUEST	(256 * 4096)

static pid_t daemon_pid;
/* What the file holds. */
static struct store content;

static void reply(int dev, uint64_t unique, int err, const void *data, size_t len)
{
	struct fuse_out_header head = {
		.len = sizeof(head) + len, .error = -err, .unique = unique,
	};
	struct iovec iov[] = {
		{ .iov_base = &head, .iov_len = sizeof(head) },
		{ .iov_base = (void *)data, .iov_len = len },
	};

	/* The reader may be gone, which is ENOENT. */
	if (writev(dev, iov, 2) < 0 && errno != ENOENT)
		die("writev to /dev/fuse");
}

static struct fuse_attr attr_of(uint64_t node)
{
	if (node == FUSE_ROOT_ID)
		return (struct fuse_attr){ .ino = node, .mode = S_IFDIR | 0555, .nlink = 2 };
	return (struct fuse_attr){
		.ino = node, .mode = S_IFREG | 0444, .nlink = 1, .size = content.size,
		.blocks = content.size / 512, .blksize = BLOCK,
	};
}

static void on_init(int dev, uint64_t unique, const struct fuse_init_in *in)
{
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_KERNEL_MINOR_VERSION,
		.max_readahead = in->max_readahead,
		.flags = in->flags & (FUSE_ASYNC_READ | FUSE_MAX_PAGES),
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = 4096,
		.max_pages = MAX_REQUEST / 4096,
	};

	reply(dev, unique, 0, &out, sizeof(out));
}

static void on_lookup(int dev, uint64_t unique, const char *name)
{
	struct fuse_entry_out out = {
		.nodeid = FILE_ID, .entry_valid = VALID, .attr_valid = VALID,
		.attr = attr_of(FILE_ID),
	};

	if (strcmp(name, NAME))
		reply(dev, unique, ENOENT, NULL, 0);
	else
		reply(dev, unique, 0, &out, sizeof(out));
}

static void on_getattr(int dev, uint64_t unique, uint64_t node)
{
	struct fuse_attr_out out = { .attr_valid = VALID, .attr = attr_of(node) };

	reply(dev, unique, 0, &out, sizeof(out));
}

static void on_open(int dev, uint64_t unique)
{
	struct fuse_open_out out = { .open_flags = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH };

	reply(dev, unique, 0, &out, sizeof(out));
}

static void on_read(int dev, uint64_t unique, const struct fuse_read_in *in)
{
	uint8_t *buf = store_buffer();
	size_t off = in->offset < content.size ? in->offset : content.size;
	size_t left = content.size - off, len = in->size < left ? in->size : left;

	if (store_is_far(&content, off, len))
		link_wait();
	reply(dev, unique, 0, store_get(&content, off, len, buf), len);
}

static void on_request(int dev, const struct fuse_in_header *head)
{
	const void *in = head + 1;

	switch (head->opcode) {
	case FUSE_INIT:
		on_init(dev, head->unique, in);
		break;
	case FUSE_LOOKUP:
		on_lookup(dev, head->unique, in);
		break;
	case FUSE_GETATTR:
		on_getattr(dev, head->unique, head->nodeid);
		break;
	case FUSE_OPEN:
		on_open(dev, head->unique);
		break;
	case FUSE_READ:
		on_read(dev, head->unique, in);
		break;
	case FUSE_RELEASE:
		reply(dev, head->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		reply(dev, head->unique, EOPNOTSUPP, NULL, 0);
	}
}

static void *serve_requests(void *arg)
{
	int dev = *(int *)arg;
	union {
		struct fuse_in_header head;
		char bytes[65536];
	} u;

	for (;;) {
		ssize_t n = read(dev, &u, sizeof(u));

		/* Unmounted. */
		if (n < 0 && errno == ENODEV)
			return NULL;
		if (n < 0 && errno != ENOENT)
			die("read of /dev/fuse");
		if (n > 0)
			on_request(dev, &u.head);
	}
}

static void serve(const struct image *image, int dev)
{
	(void)image;
	daemon_serve(serve_requests, &dev);
}

static void start(const struct arm *arm, const struct image *image, int round, char *path)
{
	int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	const uint8_t *data = image->data;
	size_t size = image->size;
	char options[128];

	(void)round;
	if (dev < 0)
		die("/dev/fuse");
	if (arm->plain)
		data = image_content(image, &size);
	store_open(&content, data, size, arm->store);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40555,user_id=0,group_id=0,max_read=%d",
		 dev, MAX_REQUEST);
	if (mount("bench", MNT, "fuse", MS_RDONLY, options))
		die("mount of FUSE");
	daemon_pid = daemon_start(serve, image, dev);
	close(dev);
	snprintf(path, PATH_MAX, MNT "/" NAME);
}

static void stop(void)
{
	if (umount(MNT))
		die("umount of FUSE");
	daemon_end(daemon_pid);
	store_close(&content);
}

const struct arm arm_erofs_on_fuse = { .name = "erofs-on-fuse", .start = start, .stop = stop };

const struct arm arm_erofs_on_fuse_stored = {
	.name = "erofs-on-fuse-stored", .start = start, .stop = stop, .store = true, .far = true,
};

const struct arm arm_fuse_direct = {
	.name = "fuse-direct", .start = start, .stop = stop, .plain = true,
};

const struct arm arm_fuse_direct_stored = {
	.name = "fuse-direct-stored", .start = start, .stop = stop, .plain = true, .store = true,
	.far = true,
};
