// SPDX-License-Identifier: GPL-2.0
/* What the origin had: the versions of all objects. */
#include <stdlib.h>
#include <string.h>

#include "crash.h"

struct rng rng_new(uint64_t seed, uint64_t stream)
{
	struct rng r = { .state = seed ^ (stream + 1) * 0xd1342543de82ef95ULL };

	rng_next(&r);
	return r;
}

uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

uint64_t below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

bool one_in(struct rng *r, unsigned int n)
{
	return !below(r, n);
}

void model_init(struct model *m)
{
	int mode, i;

	memset(m, 0, sizeof(*m));
	for (mode = 0; mode < NR_MODES; mode++)
		for (i = 0; i < NR_OBJECTS; i++) {
			struct object *o = &m->objects[mode][i];

			o->mode = mode;
			o->index = i;
			o->is_large = mode == ONDEMAND && i == NR_OBJECTS - 1;
			snprintf(o->name, sizeof(o->name), "%c%02d", mode == CLASSIC ? 'c' : 'o',
				 i);
		}
}

void model_free(struct model *m)
{
	int mode, i, v;

	for (mode = 0; mode < NR_MODES; mode++)
		for (i = 0; i < NR_OBJECTS; i++)
			for (v = 0; v < m->objects[mode][i].nr_versions; v++)
				free(m->objects[mode][i].versions[v].data);
	memset(m, 0, sizeof(*m));
}

struct version *model_add(struct object *o, uint64_t number, uint64_t step, uint64_t size,
			  uint8_t *data)
{
	struct version *v = &o->versions[o->nr_versions];

	if (o->nr_versions == MAX_VERSIONS)
		die("too many versions of %s", o->name);
	o->nr_versions++;
	*v = (struct version){ .number = number, .step = step, .size = size, .data = data };
	return v;
}

struct version *model_last(struct object *o)
{
	return &o->versions[o->nr_versions - 1];
}

uint8_t *model_pattern(const struct object *o, uint64_t number, uint64_t size)
{
	uint8_t *data = malloc(size + 1);

	if (!data)
		die("no memory");
	tf_pattern(o->name, number, 0, data, size);
	return data;
}

static void put(FILE *f, const void *buf, size_t len)
{
	if (fwrite(buf, 1, len, f) != len)
		die("the states cannot be saved: %m");
}

static void get(FILE *f, void *buf, size_t len)
{
	if (fread(buf, 1, len, f) != len)
		die("the saved states end too early");
}

void model_save(const struct model *m, FILE *f)
{
	int mode, i, v;

	put(f, m, sizeof(*m));
	for (mode = 0; mode < NR_MODES; mode++)
		for (i = 0; i < NR_OBJECTS; i++)
			for (v = 0; v < m->objects[mode][i].nr_versions; v++) {
				const struct version *version = &m->objects[mode][i].versions[v];

				put(f, version->data, version->size);
			}
}

void model_load(struct model *m, FILE *f)
{
	int mode, i, v;

	get(f, m, sizeof(*m));
	for (mode = 0; mode < NR_MODES; mode++)
		for (i = 0; i < NR_OBJECTS; i++)
			for (v = 0; v < m->objects[mode][i].nr_versions; v++) {
				struct version *version = &m->objects[mode][i].versions[v];

				version->data = malloc(version->size + 1);
				if (!version->data)
					die("no memory");
				get(f, version->data, version->size);
			}
}
