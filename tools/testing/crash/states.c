// SPDX-License-Identifier: GPL-2.0
/*
 * What a crash can leave of a disk with a volatile cache: all that a flush has written back
 * and all that by-passed the cache, and any part of what was written after that flush.
 *
 * Between two flushes, the log has first what by-passed the cache, then the other writes.
 * Which of these came first it does not say, so states with some of the latter have all of
 * the former: each of these is a state that the disk can have had.
 */
#include <stdlib.h>
#include <string.h>

#include "crash.h"

static bool is_boundary(const struct entry *e)
{
	return e->flags & (LOG_FLUSH | LOG_FUA);
}

static bool is_write(const struct entry *e)
{
	return !(e->flags & LOG_MARK) && e->len;
}

/* Where the writes end that were under way with so many entries on the disk. */
static size_t end_of_group(const struct log *l, size_t base)
{
	while (base < l->nr && !is_boundary(&l->entries[base]))
		base++;
	return base;
}

/* Whether some of the writes after @base may be on the disk without the others. */
static bool is_loose(const struct log *l, size_t base)
{
	size_t end = end_of_group(l, base), i;

	if (end < l->nr && !(l->entries[end].flags & LOG_FLUSH))
		return false;
	for (i = base; i < end; i++)
		if (is_write(&l->entries[i]))
			return true;
	return false;
}

static uint64_t step_at(const struct log *l, size_t base)
{
	uint64_t step = 0;
	size_t i;

	for (i = 0; i < base; i++)
		if (l->entries[i].flags & LOG_MARK && l->entries[i].data[0] != 'd')
			step = strtoull((const char *)l->entries[i].data, NULL, 10);
	return step;
}

static int compare(const void *a, const void *b)
{
	const struct state *s = a, *t = b;

	if (s->base != t->base)
		return s->base < t->base ? -1 : 1;
	return t->exact - s->exact;
}

struct state *states_plan(const struct log *l, size_t nr, struct rng *r, size_t *found)
{
	size_t *bases = calloc(l->nr + 1, sizeof(*bases));
	size_t *loose = calloc(l->nr + 1, sizeof(*loose));
	size_t nr_bases = 0, nr_loose = 0, n = 0, i, exact;
	struct state *states = calloc(nr, sizeof(*states));
	bool changed = true;

	if (!bases || !loose || !states)
		die("no memory");
	for (i = 0; i <= l->nr; i++) {
		if (i && i < l->nr && !is_boundary(&l->entries[i - 1])) {
			changed |= is_write(&l->entries[i - 1]);
			continue;
		}
		if (i)
			changed |= is_write(&l->entries[i - 1]);
		/* A flush of nothing makes no other state. */
		if (changed)
			bases[nr_bases++] = i;
		changed = false;
		if (is_loose(l, i))
			loose[nr_loose++] = i;
	}
	/* Each boundary once, if there are enough states for that and as many again. */
	exact = nr_bases < nr / 2 || !nr_loose ? nr_bases : nr / 2;
	if (exact > nr)
		exact = nr;
	for (i = 0; i < exact; i++) {
		size_t at = i * nr_bases / exact;

		states[n].base = bases[at];
		states[n++].exact = true;
	}
	while (n < nr && nr_loose)
		states[n++].base = loose[below(r, nr_loose)];
	qsort(states, n, sizeof(*states), compare);
	for (i = 0; i < n; i++)
		states[i].step = i && states[i].base == states[i - 1].base ?
			states[i - 1].step : step_at(l, states[i].base);
	free(bases);
	free(loose);
	*found = n;
	return states;
}

static void put(const struct entry *e, uint64_t from, uint64_t len,
		void (*write)(uint64_t off, const void *buf, size_t len))
{
	static const uint8_t zeros[BLOCK];
	uint64_t done;

	if (!(e->flags & LOG_DISCARD)) {
		write(e->off + from, e->data + from, len);
		return;
	}
	for (done = 0; done < len; done += BLOCK)
		write(e->off + from + done, zeros, len - done < BLOCK ? len - done : BLOCK);
}

void states_advance(const struct log *l, size_t from, size_t to)
{
	for (; from < to; from++)
		if (is_write(&l->entries[from]))
			put(&l->entries[from], 0, l->entries[from].len, disk_base_write);
}

enum loss {
	LOSE_ALL_BEHIND,	/* in the order of completion */
	LOSE_HALF,		/* by blocks */
	LOSE_FEW,
	LOSE_MOST,
	LOSE_ONE,
	KEEP_ONE,
	LOSE_DATA,		/* what is not the file system's metadata */
	LOSE_METADATA,
	LOSE_REGION,		/* of the disk */
	KEEP_REGION,
	NR_LOSSES,
};

static const char *const losses[] = {
	"all behind one", "half", "few", "most", "one", "all but one", "data", "metadata",
	"a region", "all but a region",
};

const char *states_lose(const struct log *l, const struct state *s, struct rng *r)
{
	size_t end = end_of_group(l, s->base), i, pieces = 0, n = 0, writes = 0, one;
	uint64_t low = UINT64_MAX, high = 0, from, to;
	enum loss loss = below(r, NR_LOSSES);

	if (s->exact)
		return "all";
	for (i = s->base; i < end; i++) {
		const struct entry *e = &l->entries[i];

		if (!is_write(e))
			continue;
		writes++;
		pieces += (e->len + BLOCK - 1) / BLOCK;
		low = e->off < low ? e->off : low;
		high = e->off + e->len > high ? e->off + e->len : high;
	}
	one = below(r, loss == LOSE_ALL_BEHIND ? writes + 1 : pieces);
	from = low + below(r, high - low);
	to = from + below(r, high - from);
	writes = 0;
	for (i = s->base; i < end; i++) {
		const struct entry *e = &l->entries[i];
		uint64_t at;

		if (!is_write(e))
			continue;
		for (at = 0; at < e->len; at += BLOCK, n++) {
			uint64_t len = e->len - at < BLOCK ? e->len - at : BLOCK;
			bool in_region = e->off + at >= from && e->off + at < to;
			bool kept;

			switch (loss) {
			case LOSE_ALL_BEHIND:
				kept = writes < one;
				break;
			case LOSE_HALF:
				kept = one_in(r, 2);
				break;
			case LOSE_FEW:
				kept = !one_in(r, 8);
				break;
			case LOSE_MOST:
				kept = one_in(r, 8);
				break;
			case LOSE_ONE:
				kept = n != one;
				break;
			case KEEP_ONE:
				kept = n == one;
				break;
			case LOSE_DATA:
				kept = e->flags & LOG_METADATA;
				break;
			case LOSE_METADATA:
				kept = !(e->flags & LOG_METADATA);
				break;
			case LOSE_REGION:
				kept = !in_region;
				break;
			default:
				kept = in_region;
				break;
			}
			if (kept)
				put(e, at, len, disk_write);
			if (verbose)
				printf("# entry %zu%s, %llu bytes at %llu: %s\n", i,
				       e->flags & LOG_METADATA ? " (metadata)" : "",
				       (unsigned long long)len,
				       (unsigned long long)(e->off + at),
				       kept ? "kept" : "lost");
		}
		writes++;
	}
	return losses[loss];
}
