// SPDX-License-Identifier: GPL-2.0
/* Which blocks of a file a daemon has fetched. */
#include <stdlib.h>

#include "bench.h"

void blocks_init(struct blocks *b, size_t size)
{
	b->count = (size + BLOCK - 1) / BLOCK;
	b->absent = b->count;
	b->present = calloc(b->count, sizeof(*b->present));
	if (!b->present)
		die("blocks");
}

void blocks_free(struct blocks *b)
{
	free(b->present);
}

bool blocks_are_present(const struct blocks *b, size_t first, size_t end)
{
	for (size_t i = first; i < end; i++)
		if (!b->present[i])
			return false;
	return true;
}

bool blocks_take(struct blocks *b, size_t first, size_t end)
{
	size_t before = b->absent;

	for (size_t i = first; i < end; i++) {
		b->absent -= !b->present[i];
		b->present[i] = true;
	}
	return b->absent != before;
}
