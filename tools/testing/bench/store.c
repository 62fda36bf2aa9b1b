// SPDX-License-Identifier: GPL-2.0
/*
 * Where the daemon of a rival keeps what it has fetched, if it does: in a file on the
 * cache's file system, as cachefiles does. A miss costs a pwrite() more, and a hit a
 * pread(), both through the page cache; nothing is synced. The data of a miss is passed on
 * from memory.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench.h"

#define STORE_PATH	"/cache/store"

void store_open(struct store *s, const uint8_t *data, size_t size, bool keep)
{
	*s = (struct store){ .data = data, .size = size, .fd = -1 };
	if (!keep)
		return;
	s->fd = open(STORE_PATH, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	s->present = calloc((size + BLOCK - 1) / BLOCK, sizeof(*s->present));
	if (s->fd < 0 || ftruncate(s->fd, size) || !s->present)
		die(STORE_PATH);
	/* Readers decide what is read. */
	posix_fadvise(s->fd, 0, 0, POSIX_FADV_RANDOM);
}

void store_close(struct store *s)
{
	if (s->fd < 0)
		return;
	close(s->fd);
	free(s->present);
	unlink(STORE_PATH);
}

/* Mark these blocks as present; were all of them? */
static bool take(struct store *s, size_t first, size_t end)
{
	bool all = true;

	for (size_t i = first; i < end; i++) {
		all &= s->present[i];
		s->present[i] = true;
	}
	return all;
}

const void *store_get(struct store *s, size_t off, size_t len, void *buf)
{
	if (off % BLOCK || off > s->size || len > s->size - off || len > STORE_MAX)
		die("a read of %zu at %zu", len, off);
	if (s->fd < 0)
		return s->data + off;
	if (take(s, off / BLOCK, (off + len + BLOCK - 1) / BLOCK)) {
		if (pread(s->fd, buf, len, off) != (ssize_t)len)
			die("pread of " STORE_PATH);
		return buf;
	}
	if (pwrite(s->fd, s->data + off, len, off) != (ssize_t)len)
		die("pwrite to " STORE_PATH);
	return s->data + off;
}
