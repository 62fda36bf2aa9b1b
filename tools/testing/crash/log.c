// SPDX-License-Identifier: GPL-2.0
/*
 * The log of dm-log-writes: a superblock of one sector, then entries of a sector each, with
 * the data that was written behind it.  Writes are logged when a flush ends that began after
 * they had ended, just before that flush; those that by-pass the disk's cache (FUA) and marks
 * at once.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>

#include "crash.h"

#define NAME	"crash"
#define DEVICE	"/dev/dm-crash"
#define MAGIC	0x6a736677736872ULL
#define CHUNK	0x100000

struct super {
	uint64_t magic, version, nr_entries;
	uint32_t sectorsize;
};

struct head {
	uint64_t sector, nr_sectors, flags, data_len;
};

struct command {
	struct dm_ioctl dm;
	union {
		struct dm_target_spec spec;
		struct dm_target_msg msg;
		char room[512];
	};
};

static void dm(struct command *c, unsigned long request, const char *what)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("/dev/mapper/control: %m");
	c->dm.version[0] = DM_VERSION_MAJOR;
	c->dm.data_size = sizeof(*c);
	c->dm.data_start = sizeof(c->dm);
	snprintf(c->dm.name, sizeof(c->dm.name), NAME);
	if (ioctl(fd, request, c))
		die("device mapper, %s: %m", what);
}

static bool is_logging;

const char *log_start(uint64_t size)
{
	struct command create = {}, load = { .dm.target_count = 1 }, resume = {};
	char *params = (char *)(&load.spec + 1);

	dm(&create, DM_DEV_CREATE, "create");
	load.spec.length = size / 512;
	strcpy(load.spec.target_type, "log-writes");
	strcpy(params, LOG_DISK " " LOG_LOG);
	dm(&load, DM_TABLE_LOAD, "load");
	/* Which resumes it. */
	dm(&resume, DM_DEV_SUSPEND, "resume");
	unlink(DEVICE);
	if (mknod(DEVICE, S_IFBLK | 0600, create.dm.dev))
		die(DEVICE ": %m");
	is_logging = true;
	return DEVICE;
}

void log_mark(uint64_t step)
{
	struct command c = {};

	if (!is_logging)
		return;
	snprintf(c.msg.message, sizeof(c.room) - sizeof(c.msg), "mark %llu",
		 (unsigned long long)step);
	dm(&c, DM_TARGET_MSG, "mark");
}

/* Have at least @len bytes of the log in memory. */
static void need(struct log *l, int fd, size_t len)
{
	while (l->raw_len < len) {
		ssize_t n;

		if (l->raw_len + CHUNK > l->room) {
			size_t room = 2 * l->room + CHUNK;
			uint8_t *raw;

			/* For O_DIRECT. */
			if (posix_memalign((void **)&raw, BLOCK, room))
				die("no memory for the log");
			memcpy(raw, l->raw, l->raw_len);
			free(l->raw);
			l->raw = raw;
			l->room = room;
		}
		n = pread(fd, l->raw + l->raw_len, CHUNK, l->raw_len);
		if (n <= 0)
			die(LOG_LOG ": %s", n ? strerror(errno) : "the log is cut off");
		l->raw_len += n;
	}
}

/* Find the entries of what is in memory, or, with a file descriptor, read it first. */
static void parse(struct log *l, int fd)
{
	struct super *super;
	size_t at, sector, i;

	if (fd >= 0)
		need(l, fd, BLOCK);
	super = (struct super *)l->raw;
	if (le64toh(super->magic) != MAGIC || le64toh(super->version) != 1)
		die("this is no log");
	sector = le32toh(super->sectorsize);
	l->nr = le64toh(super->nr_entries);
	l->entries = calloc(l->nr, sizeof(*l->entries));
	if (!l->entries)
		die("no memory for the log");
	/* Pointers come last: the buffer moves. */
	for (i = 0, at = sector; i < l->nr; i++) {
		struct entry *e = &l->entries[i];
		struct head *head;

		if (fd >= 0)
			need(l, fd, at + sector);
		head = (struct head *)(l->raw + at);
		e->off = le64toh(head->sector) * sector;
		e->len = le64toh(head->nr_sectors) * sector;
		e->flags = le64toh(head->flags);
		e->data = (const uint8_t *)(at + (e->flags & LOG_MARK ? sizeof(*head) : sector));
		at += sector;
		if (!(e->flags & LOG_DISCARD))
			at += e->len;
		if (fd >= 0)
			need(l, fd, at);
		else if (at > l->raw_len)
			die("the log is cut off");
	}
	for (i = 0; i < l->nr; i++)
		l->entries[i].data = l->raw + (size_t)l->entries[i].data;
}

void log_stop(struct log *l)
{
	struct command remove = {};
	int fd;

	dm(&remove, DM_DEV_REMOVE, "remove");
	memset(l, 0, sizeof(*l));
	fd = open(LOG_LOG, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		die(LOG_LOG ": %m");
	parse(l, fd);
	close(fd);
}

void log_save(const struct log *l, FILE *f)
{
	uint64_t len = l->raw_len;

	if (fwrite(&len, sizeof(len), 1, f) != 1 || fwrite(l->raw, 1, len, f) != len)
		die("the log cannot be saved: %m");
}

void log_load(struct log *l, FILE *f)
{
	uint64_t len;

	memset(l, 0, sizeof(*l));
	if (fread(&len, sizeof(len), 1, f) != 1)
		die("there is no log in this file");
	l->raw = malloc(len);
	l->raw_len = len;
	if (!l->raw || fread(l->raw, 1, len, f) != len)
		die("the log is cut off");
	parse(l, -1);
}

void log_free(struct log *l)
{
	free(l->raw);
	free(l->entries);
	memset(l, 0, sizeof(*l));
}
