// SPDX-License-Identifier: GPL-2.0
/*
 * EROFS on a block device of ublk, served from memory by a daemon through io_uring. As
 * cheap for ublk as it can be:
 *
 * - One queue of 64 requests; a request costs one io_uring_enter(), which commits it and
 *   waits for the next, or for several.
 * - The ring has one task, which runs the kernel's work for it when it waits
 *   (SINGLE_ISSUER, DEFER_TASKRUN), and its one file is registered.
 * - The data is not copied to a buffer: the device is read only, so a commit can name the
 *   place in memory where the data is, which the kernel copies from. A daemon that has
 *   the data in a file would read it to a buffer first, or use the zero-copy mode.
 * - No I/O scheduler (the kernel has none built in), no partitions.
 *
 * EROFS reads data from a block device by bio, past the device's page cache: a hit, too,
 * asks the daemon, whether "in memory" or "on disk". In the arm "ublk-stored" the daemon
 * keeps what it has fetched in a file (store.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/io_uring.h>
#include <linux/ublk_cmd.h>

#include "bench.h"

#ifndef UBLK_F_NO_AUTO_PART_SCAN
#define UBLK_F_NO_AUTO_PART_SCAN 0x40000
#endif

#define CONTROL		"/dev/ublk-control"
#define CHANNEL		"/dev/ublkc0"
#define DEVICE		"/dev/ublkb0"
#define DEPTH		64
#define MAX_REQUEST	STORE_MAX	/* in bytes */
#define SECTOR		512

/* ---- io_uring ---- */
struct ring {
	int fd;
	unsigned int *sq_tail, sq_mask, *cq_head, *cq_tail, cq_mask;
	char *sqes;
	size_t sqe_size;
	const struct io_uring_cqe *cqes;
	unsigned int queued;	/* not yet submitted */
};

static void *ring_map(const struct ring *ring, size_t size, off_t off)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd,
		       off);

	if (p == MAP_FAILED)
		die("mmap of a ring");
	return p;
}

static void ring_init(struct ring *ring, unsigned int entries, unsigned int flags)
{
	struct io_uring_params p = { .flags = flags | IORING_SETUP_NO_SQARRAY };
	char *rings;

	ring->fd = syscall(SYS_io_uring_setup, entries, &p);
	if (ring->fd < 0)
		die("io_uring_setup");
	ring->sqe_size = sizeof(struct io_uring_sqe) << !!(flags & IORING_SETUP_SQE128);
	rings = ring_map(ring, p.cq_off.cqes + p.cq_entries * sizeof(*ring->cqes),
			 IORING_OFF_SQ_RING);
	ring->sqes = ring_map(ring, p.sq_entries * ring->sqe_size, IORING_OFF_SQES);
	ring->sq_tail = (void *)(rings + p.sq_off.tail);
	ring->sq_mask = p.sq_entries - 1;
	ring->cq_head = (void *)(rings + p.cq_off.head);
	ring->cq_tail = (void *)(rings + p.cq_off.tail);
	ring->cq_mask = p.cq_entries - 1;
	ring->cqes = (void *)(rings + p.cq_off.cqes);
	ring->queued = 0;
}

static struct io_uring_sqe *ring_next(struct ring *ring)
{
	unsigned int tail = *ring->sq_tail;
	struct io_uring_sqe *sqe = (void *)(ring->sqes + (tail & ring->sq_mask) * ring->sqe_size);

	memset(sqe, 0, ring->sqe_size);
	return sqe;
}

static void ring_push(struct ring *ring)
{
	__atomic_store_n(ring->sq_tail, *ring->sq_tail + 1, __ATOMIC_RELEASE);
	ring->queued++;
}

/* Queue the command @op of a driver, with @cmd of @len bytes. */
static void ring_queue(struct ring *ring, int fd, unsigned int flags, uint32_t op,
		       uint64_t user_data, const void *cmd, size_t len)
{
	struct io_uring_sqe *sqe = ring_next(ring);

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = flags;
	sqe->fd = fd;
	sqe->cmd_op = op;
	sqe->user_data = user_data;
	memcpy(sqe->cmd, cmd, len);
	ring_push(ring);
}

/* Queue what completes when @wait, which stays until then, has passed. */
static void ring_queue_timeout(struct ring *ring, uint64_t user_data,
			       const struct __kernel_timespec *wait)
{
	struct io_uring_sqe *sqe = ring_next(ring);

	sqe->opcode = IORING_OP_TIMEOUT;
	sqe->addr = (uintptr_t)wait;
	sqe->len = 1;
	sqe->user_data = user_data;
	ring_push(ring);
}

/* Submit what is queued, and wait for something to complete. */
static void ring_enter(struct ring *ring)
{
	int n = syscall(SYS_io_uring_enter, ring->fd, ring->queued, 1, IORING_ENTER_GETEVENTS,
			NULL, 0);

	if (n < 0 && errno != EINTR)
		die("io_uring_enter");
	if (n > 0)
		ring->queued -= n;
}

/* The oldest that is complete and was not taken. */
static bool ring_take(struct ring *ring, struct io_uring_cqe *cqe)
{
	unsigned int head = *ring->cq_head;

	if (head == __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE))
		return false;
	*cqe = ring->cqes[head & ring->cq_mask];
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return true;
}

/* ---- the daemon ---- */
static void queue_request(struct ring *ring, uint32_t op, unsigned int tag, int result,
			  const void *data)
{
	struct ublksrv_io_cmd cmd = { .tag = tag, .result = result, .addr = (uintptr_t)data };

	/* The first of the registered files. */
	ring_queue(ring, 0, IOSQE_FIXED_FILE, op, tag, &cmd, sizeof(cmd));
}

static struct store store;
/* By tag. */
static uint8_t buffers[DEPTH][MAX_REQUEST];

/* In user_data, beside the tag: the link's delay has passed. */
#define FETCHED	0x100

/* One task serves all requests, so that they wait for the link beside each other. */
static bool start_fetch(struct ring *ring, unsigned int tag, size_t off, size_t len)
{
	static struct __kernel_timespec delay;

	if (!store_is_far(&store, off, len))
		return false;
	delay.tv_nsec = link_delay() * 1000LL;
	ring_queue_timeout(ring, tag | FETCHED, &delay);
	return true;
}

static void answer(struct ring *ring, unsigned int tag, const struct ublksrv_io_desc *request,
		   bool fetched)
{
	size_t off = request->start_sector * SECTOR, len = (size_t)request->nr_sectors * SECTOR;

	if (ublksrv_get_op(request) != UBLK_IO_OP_READ)
		die("a request of type %u at %zu", ublksrv_get_op(request), off);
	if (!fetched && start_fetch(ring, tag, off, len))
		return;
	queue_request(ring, UBLK_U_IO_COMMIT_AND_FETCH_REQ, tag, len,
		      store_get(&store, off, len, buffers[tag]));
}

static void serve(const struct image *image, int unused)
{
	const struct ublksrv_io_desc *requests;
	struct io_uring_cqe cqe;
	unsigned int tag;
	struct ring ring;
	bool fetched;
	/* Whoever opens it is the server for the driver. */
	int channel = open(CHANNEL, O_RDWR | O_CLOEXEC);

	(void)image;
	(void)unused;
	if (channel < 0)
		die(CHANNEL);
	/* A whole page, as the driver wants it. */
	requests = mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_POPULATE, channel,
			UBLKSRV_CMD_BUF_OFFSET);
	if (requests == MAP_FAILED)
		die("mmap of " CHANNEL);
	ring_init(&ring, DEPTH, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, &channel, 1))
		die("IORING_REGISTER_FILES");
	for (unsigned int tag = 0; tag < DEPTH; tag++)
		queue_request(&ring, UBLK_U_IO_FETCH_REQ, tag, 0, buffers[tag]);
	for (;;) {
		ring_enter(&ring);
		while (ring_take(&ring, &cqe)) {
			/* The device is stopped. */
			if (cqe.res == UBLK_IO_RES_ABORT)
				return;
			fetched = cqe.user_data & FETCHED;
			tag = cqe.user_data & ~FETCHED;
			errno = -cqe.res;
			if (cqe.res != (fetched ? -ETIME : UBLK_IO_RES_OK))
				die("a command to " CHANNEL);
			answer(&ring, tag, &requests[tag], fetched);
		}
	}
}

/* ---- the device ---- */
static pid_t daemon_pid;

static void control(uint32_t op, const void *arg, size_t len, uint64_t data)
{
	struct ublksrv_ctrl_cmd cmd = {
		.queue_id = -1, .addr = (uintptr_t)arg, .len = len, .data = { data },
	};
	int dev = open(CONTROL, O_RDWR | O_CLOEXEC);
	struct io_uring_cqe cqe;
	struct ring ring;

	if (dev < 0)
		die(CONTROL);
	ring_init(&ring, 1, IORING_SETUP_SQE128);
	ring_queue(&ring, dev, 0, op, 0, &cmd, sizeof(cmd));
	do
		ring_enter(&ring);
	while (!ring_take(&ring, &cqe));
	errno = -cqe.res;
	if (cqe.res < 0)
		die("command %#x to " CONTROL, op);
}

/*
 * In a process of its own: a thread of io_uring's shares the descriptors of a process
 * that used it, which makes each of its system calls on one dearer.
 */
static void command(uint32_t op, const void *arg, size_t len, uint64_t data)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		die("fork");
	if (!pid) {
		control(op, arg, len, data);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		exit(1);
}

static void start(const struct arm *arm, const struct image *image, int round, char *path)
{
	struct ublksrv_ctrl_dev_info info = {
		.nr_hw_queues = 1, .queue_depth = DEPTH, .max_io_buf_bytes = MAX_REQUEST,
		.flags = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_NO_AUTO_PART_SCAN,
	};
	struct ublk_params params = {
		.len = sizeof(params),
		.types = UBLK_PARAM_TYPE_BASIC,
		.basic = {
			.attrs = UBLK_ATTR_READ_ONLY,
			.logical_bs_shift = 12, .physical_bs_shift = 12,
			.io_opt_shift = 12, .io_min_shift = 12,
			.max_sectors = MAX_REQUEST / SECTOR,
			.dev_sectors = image->size / SECTOR,
		},
	};

	(void)round;
	store_open(&store, image->data, image->size, arm->store);
	command(UBLK_U_CMD_ADD_DEV, &info, sizeof(info), 0);
	command(UBLK_U_CMD_SET_PARAMS, &params, sizeof(params), 0);
	daemon_pid = daemon_start(serve, image, -1);
	/* Waits until the daemon has asked for requests. */
	command(UBLK_U_CMD_START_DEV, NULL, 0, daemon_pid);
	snprintf(path, PATH_MAX, DEVICE);
}

static void stop(void)
{
	command(UBLK_U_CMD_STOP_DEV, NULL, 0, 0);
	daemon_end(daemon_pid);
	command(UBLK_U_CMD_DEL_DEV, NULL, 0, 0);
	store_close(&store);
}

const struct arm arm_ublk = { .name = "ublk", .start = start, .stop = stop };

const struct arm arm_ublk_stored = {
	.name = "ublk-stored", .start = start, .stop = stop, .store = true, .far = true,
};
