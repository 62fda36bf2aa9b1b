// SPDX-License-Identifier: GPL-2.0
/*
 * A disk in memory, for the kernel a network block device at the other end of a socket.
 * What is written to it goes into blocks of its own, beside those of the base, so that all
 * that a state and its mount have written is undone by forgetting these.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/genetlink.h>
#include <linux/nbd.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>

#include "crash.h"

static uint8_t *base;
static uint64_t size;
static uint8_t **written;	/* by block; NULL if it is as in the base */
static size_t *list;		/* of the blocks that are written */
static size_t nr_written;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

uint64_t disk_size(void)
{
	return size;
}

void disk_base_write(uint64_t off, const void *buf, size_t len)
{
	if (off + len > size)
		die("a write behind the end of the disk");
	memcpy(base + off, buf, len);
}

void disk_base_read(uint64_t off, void *buf, size_t len)
{
	memcpy(buf, base + off, len);
}

void disk_base_clear(void)
{
	if (madvise(base, size, MADV_DONTNEED))
		die("madvise: %m");
}

static uint8_t *block_to_write(size_t n)
{
	if (!written[n]) {
		written[n] = malloc(BLOCK);
		if (!written[n])
			die("no memory");
		memcpy(written[n], base + n * BLOCK, BLOCK);
		list[nr_written++] = n;
	}
	return written[n];
}

void disk_write(uint64_t off, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	if (off + len > size)
		die("a write behind the end of the disk");
	pthread_mutex_lock(&lock);
	while (len) {
		size_t at = off % BLOCK, part = BLOCK - at < len ? BLOCK - at : len;

		memcpy(block_to_write(off / BLOCK) + at, p, part);
		off += part;
		p += part;
		len -= part;
	}
	pthread_mutex_unlock(&lock);
}

static void disk_read(uint64_t off, uint8_t *buf, size_t len)
{
	pthread_mutex_lock(&lock);
	while (len) {
		size_t n = off / BLOCK, at = off % BLOCK;
		size_t part = BLOCK - at < len ? BLOCK - at : len;

		memcpy(buf, (written[n] ?: base + n * BLOCK) + at, part);
		off += part;
		buf += part;
		len -= part;
	}
	pthread_mutex_unlock(&lock);
}

void disk_undo(void)
{
	pthread_mutex_lock(&lock);
	while (nr_written) {
		size_t n = list[--nr_written];

		free(written[n]);
		written[n] = NULL;
	}
	pthread_mutex_unlock(&lock);
}

/* Blocks that are not zeros, each after its number. */
void disk_save(FILE *f)
{
	static const uint8_t zeros[BLOCK];
	uint64_t n;

	for (n = 0; n < size / BLOCK; n++)
		if (memcmp(base + n * BLOCK, zeros, BLOCK))
			if (fwrite(&n, sizeof(n), 1, f) != 1 ||
			    fwrite(base + n * BLOCK, BLOCK, 1, f) != 1)
				die("the states cannot be saved: %m");
	n = UINT64_MAX;
	if (fwrite(&n, sizeof(n), 1, f) != 1)
		die("the states cannot be saved: %m");
}

void disk_load(FILE *f)
{
	uint64_t n;

	disk_base_clear();
	while (fread(&n, sizeof(n), 1, f) == 1) {
		if (n == UINT64_MAX)
			return;
		if (n >= size / BLOCK || fread(base + n * BLOCK, BLOCK, 1, f) != 1)
			break;
	}
	die("the saved disk ends too early");
}

/* ---- the device ---- */

static bool receive(int sock, void *buf, size_t len)
{
	while (len) {
		ssize_t n = recv(sock, buf, len, 0);

		if (n <= 0)
			return false;
		buf += n;
		len -= n;
	}
	return true;
}

static void *serve(void *arg)
{
	struct nbd_request request;
	uint8_t *buf = NULL;
	size_t room = 0;
	int sock = *(int *)arg;

	while (receive(sock, &request, sizeof(request))) {
		struct nbd_reply head = { .magic = htobe32(NBD_REPLY_MAGIC) };
		struct iovec iov[2] = { { .iov_base = &head, .iov_len = sizeof(head) } };
		/* Linux has flags in the upper half: all writes are durable here. */
		uint32_t type = be32toh(request.type) & 0xffff, len = be32toh(request.len);
		uint64_t off = be64toh(request.from);
		struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 1 };

		if (len > room && type != NBD_CMD_TRIM) {
			buf = realloc(buf, len);
			room = len;
			if (!buf)
				die("no memory");
		}
		switch (type) {
		case NBD_CMD_READ:
			disk_read(off, buf, len);
			iov[1] = (struct iovec){ .iov_base = buf, .iov_len = len };
			msg.msg_iovlen = 2;
			break;
		case NBD_CMD_WRITE:
			if (!receive(sock, buf, len))
				die("a write request without data");
			disk_write(off, buf, len);
			break;
		case NBD_CMD_FLUSH:
		case NBD_CMD_TRIM:
			break;
		case NBD_CMD_DISC:
			return NULL;
		default:
			die("a request of type %u to the disk", type);
		}
		memcpy(head.handle, request.handle, sizeof(head.handle));
		/* An answer to a read may be longer than what the socket takes at once. */
		while (msg.msg_iovlen) {
			ssize_t n = sendmsg(sock, &msg, MSG_NOSIGNAL);

			if (n < 0)
				die("the socket of the disk: %m");
			while (msg.msg_iovlen && n >= msg.msg_iov->iov_len) {
				n -= msg.msg_iov->iov_len;
				msg.msg_iov++;
				msg.msg_iovlen--;
			}
			if (msg.msg_iovlen) {
				msg.msg_iov->iov_base += n;
				msg.msg_iov->iov_len -= n;
			}
		}
	}
	return NULL;
}

struct message {
	struct nlmsghdr head;
	struct genlmsghdr genl;
	uint8_t attrs[256];
};

static struct nlattr *attr(struct message *m, int type, const void *data, size_t len)
{
	struct nlattr *a = (void *)m + NLMSG_ALIGN(m->head.nlmsg_len);

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy((void *)a + NLA_HDRLEN, data, len);
	m->head.nlmsg_len = NLMSG_ALIGN(m->head.nlmsg_len) + NLA_ALIGN(a->nla_len);
	return a;
}

/* Send a message, and wait for the answer, which takes its place. */
static void talk(int fd, struct message *m, int type, int cmd)
{
	struct nlmsgerr *err;
	union {
		struct nlmsghdr head;
		uint8_t raw[4096];
	} answer;

	m->head.nlmsg_type = type;
	m->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	m->genl.cmd = cmd;
	m->genl.version = 1;
	if (send(fd, m, m->head.nlmsg_len, 0) < 0)
		die("netlink: %m");
	for (;;) {
		if (recv(fd, answer.raw, sizeof(answer), 0) < (ssize_t)sizeof(answer.head))
			die("netlink: %m");
		if (answer.head.nlmsg_type == NLMSG_ERROR)
			break;
		/* An answer of one message, which the acknowledgment follows. */
		if (answer.head.nlmsg_len <= sizeof(*m))
			memcpy(m, &answer, answer.head.nlmsg_len);
	}
	err = NLMSG_DATA(&answer.head);
	if (err->error)
		die("netlink, command %d: %s", cmd, strerror(-err->error));
}

static int family(int fd, const char *name)
{
	struct message m = { .head.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN) };
	uint8_t *p, *end;

	attr(&m, CTRL_ATTR_FAMILY_NAME, name, strlen(name) + 1);
	talk(fd, &m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	end = (uint8_t *)&m + m.head.nlmsg_len;
	for (p = m.attrs; p + NLA_HDRLEN <= end; p += NLA_ALIGN(((struct nlattr *)p)->nla_len))
		if (((struct nlattr *)p)->nla_type == CTRL_ATTR_FAMILY_ID)
			return *(uint16_t *)(p + NLA_HDRLEN);
	die("netlink: no id of %s", name);
}

/*
 * By netlink, not by ioctl(): so nobody has the device open but for a mount, and the last
 * unmount drops what the kernel has of it in memory.  Without a socket: disconnect it.
 */
static void connect_device(int sock)
{
	struct message m = { .head.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN) };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	uint64_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA;
	uint64_t block = 512;
	uint32_t index = 0, s = sock;
	struct nlattr *sockets, *item;
	int id;

	if (fd < 0)
		die("netlink: %m");
	id = family(fd, NBD_GENL_FAMILY_NAME);
	attr(&m, NBD_ATTR_INDEX, &index, sizeof(index));
	if (sock < 0) {
		talk(fd, &m, id, NBD_CMD_DISCONNECT);
		close(fd);
		return;
	}
	attr(&m, NBD_ATTR_SIZE_BYTES, &size, sizeof(size));
	attr(&m, NBD_ATTR_BLOCK_SIZE_BYTES, &block, sizeof(block));
	attr(&m, NBD_ATTR_SERVER_FLAGS, &flags, sizeof(flags));
	sockets = attr(&m, NBD_ATTR_SOCKETS | NLA_F_NESTED, "", 0);
	item = attr(&m, NBD_SOCK_ITEM | NLA_F_NESTED, "", 0);
	attr(&m, NBD_SOCK_FD, &s, sizeof(s));
	item->nla_len = (void *)&m + m.head.nlmsg_len - (void *)item;
	sockets->nla_len = (void *)&m + m.head.nlmsg_len - (void *)sockets;
	talk(fd, &m, id, NBD_CMD_CONNECT);
	close(fd);
}

void disk_alloc(uint64_t bytes)
{
	size = bytes;
	base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	written = calloc(size / BLOCK, sizeof(*written));
	list = calloc(size / BLOCK, sizeof(*list));
	if (base == MAP_FAILED || !written || !list)
		die("no memory for a disk");
}

void disk_start(uint64_t bytes)
{
	static int sock[2];
	pthread_t thread;
	int room = 4 << 20;

	disk_alloc(bytes);
	if (cf_run("modprobe", "nbd", "nbds_max=1", "max_part=0", NULL))
		die("modprobe nbd failed");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		die("socketpair: %m");
	setsockopt(sock[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	setsockopt(sock[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	if (pthread_create(&thread, NULL, serve, &sock[1]))
		die("pthread_create");
	connect_device(sock[0]);
}

void disk_stop(void)
{
	connect_device(-1);
}
