// SPDX-License-Identifier: GPL-2.0
/*
 * EROFS on a network block device, served from memory by a daemon at the other end of a
 * socket. As cheap for NBD as it can be:
 *
 * - The socket is of the Unix kind: no TCP, no network.
 * - There is one connection: one request is under way at a time, on one CPU.
 * - No I/O scheduler (the kernel has none built in), no partitions, no timeout.
 * - A request costs the daemon one read() and one writev(), the latter from where the
 *   data is.
 *
 * EROFS reads data from a block device by bio, past the device's page cache: a hit, too,
 * asks the daemon, whether "in memory" or "on disk". In the arm "nbd-stored" the daemon
 * keeps what it has fetched in a file (store.c).
 */
#include <endian.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/nbd.h>

#include "bench.h"

#define DEVICE	"/dev/nbd0"
#define SIZE	"/sys/block/nbd0/size"

/* The one serves; the other is in the driver for as long as the device is to be there. */
static pid_t daemon_pid, driver_pid;
static struct store store;
/* Of the socket. */
static pthread_mutex_t reading = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

static void answer(int sock, const struct nbd_request *request)
{
	uint8_t *buf = store_buffer();
	size_t off = be64toh(request->from), len = be32toh(request->len);
	struct nbd_reply head = { .magic = htobe32(NBD_REPLY_MAGIC) };
	struct iovec iov[2] = { { .iov_base = &head, .iov_len = sizeof(head) } };

	if (store_is_far(&store, off, len))
		link_wait();
	iov[1].iov_base = (void *)store_get(&store, off, len, buf);
	iov[1].iov_len = len;
	memcpy(head.handle, request->handle, sizeof(head.handle));
	link_lock(&writing);
	if (writev(sock, iov, 2) != (ssize_t)(sizeof(head) + len))
		die("writev to the socket");
	link_unlock(&writing);
}

static bool take_request(int sock, struct nbd_request *request)
{
	ssize_t n;

	link_lock(&reading);
	n = read(sock, request, sizeof(*request));
	link_unlock(&reading);
	return n == sizeof(*request);
}

static void *serve_requests(void *arg)
{
	struct nbd_request request;
	int sock = *(int *)arg;

	while (take_request(sock, &request)) {
		if (request.magic != htobe32(NBD_REQUEST_MAGIC))
			die("not a request");
		if (be32toh(request.type) == NBD_CMD_DISC)
			break;
		if (be32toh(request.type) != NBD_CMD_READ)
			die("a request of type %u", be32toh(request.type));
		answer(sock, &request);
	}
	return NULL;
}

static void serve(const struct image *image, int sock)
{
	(void)image;
	daemon_serve(serve_requests, &sock);
}

static void drive(const struct image *image, int sock)
{
	int dev = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (dev < 0 || ioctl(dev, NBD_SET_SOCK, sock) || ioctl(dev, NBD_SET_BLKSIZE, BLOCK) ||
	    ioctl(dev, NBD_SET_SIZE, image->size) ||
	    ioctl(dev, NBD_SET_FLAGS, NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY))
		die(DEVICE);
	ioctl(dev, NBD_DO_IT);
}

/* The driver sets the size last. */
static bool is_there(void)
{
	char size[32] = "";
	int fd = open(SIZE, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, size, sizeof(size) - 1) < 0)
		die(SIZE);
	close(fd);
	return strtoull(size, NULL, 10);
}

static void start(const struct arm *arm, const struct image *image, int round, char *path)
{
	int sock[2];

	(void)round;
	store_open(&store, image->data, image->size, arm->store);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		die("socketpair");
	driver_pid = daemon_start(drive, image, sock[0]);
	close(sock[0]);
	daemon_pid = daemon_start(serve, image, sock[1]);
	close(sock[1]);
	while (!is_there())
		usleep(10000);
	snprintf(path, PATH_MAX, DEVICE);
}

static void stop(void)
{
	daemon_end(driver_pid);
	daemon_end(daemon_pid);
	store_close(&store);
}

const struct arm arm_nbd = { .name = "nbd", .start = start, .stop = stop };

const struct arm arm_nbd_stored = {
	.name = "nbd-stored", .start = start, .stop = stop, .store = true, .far = true,
};
