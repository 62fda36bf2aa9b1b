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

void store_open(struct store *s, const uint8_t *data, size_t size, bool kept)
{
	*s = (struct store){ .data = data, .size = size, .fd = -1 };
	pthread_mutex_init(&s->lock, NULL);
	if (!kept)
		return;
	s->fd = open(STORE_PATH, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	blocks_init(&s->blocks, size);
	if (s->fd < 0 || ftruncate(s->fd, size))
		die(STORE_PATH);
	/* Readers decide what is read. */
	posix_fadvise(s->fd, 0, 0, POSIX_FADV_RANDOM);
}

void store_close(struct store *s)
{
	if (s->fd < 0)
		return;
	close(s->fd);
	blocks_free(&s->blocks);
	unlink(STORE_PATH);
}

static size_t end_block(size_t off, size_t len)
{
	return (off + len + BLOCK - 1) / BLOCK;
}

bool store_is_far(struct store *s, size_t off, size_t len)
{
	bool far;

	if (!link_delay())
		return false;
	link_lock(&s->lock);
	far = !blocks_are_present(&s->blocks, off / BLOCK, end_block(off, len));
	link_unlock(&s->lock);
	return far;
}

/* Write what is absent of this; was any of it? */
static bool keep(struct store *s, size_t off, size_t len)
{
	bool absent;

	link_lock(&s->lock);
	absent = blocks_take(&s->blocks, off / BLOCK, end_block(off, len));
	if (absent && pwrite(s->fd, s->data + off, len, off) != (ssize_t)len)
		die("pwrite to " STORE_PATH);
	link_unlock(&s->lock);
	return absent;
}

void *store_buffer(void)
{
	static __thread void *buf;

	if (!buf)
		buf = malloc(STORE_MAX);
	if (!buf)
		die("a buffer");
	return buf;
}

const void *store_get(struct store *s, size_t off, size_t len, void *buf)
{
	if (off % BLOCK || off > s->size || len > s->size - off || len > STORE_MAX)
		die("a read of %zu at %zu", len, off);
	if (s->fd < 0)
		return s->data + off;
	if (keep(s, off, len))
		return s->data + off;
	if (pread(s->fd, buf, len, off) != (ssize_t)len)
		die("pread of " STORE_PATH);
	return buf;
}
