// SPDX-License-Identifier: GPL-2.0
/*
 * A plugin for QEMU: how often each translated block is run between two calls in the
 * guest, of profile_on() and of profile_off(). See scripts/bench.
 *
 * Arguments: on=ADDRESS off=ADDRESS out=FILE. Each time profile_off() is called, a
 * section is added to the file: "section", then lines of an address, how many instructions
 * the block has, and how often it was run.
 *
 * QEMU comes without the header of its plugins where it is a package; this is the part
 * of API version 4 that is used.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
typedef void trans_cb(uint64_t id, struct qemu_plugin_tb *tb);
typedef void exec_cb(unsigned int vcpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, trans_cb *cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, exec_cb *cb, int flags,
					  void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

struct block {
	struct block *next;
	uint64_t address, runs;
	size_t insns;
};

static struct block *blocks;
static uint64_t on_address, off_address;
static FILE *out;
static int on;

static void count(unsigned int vcpu, void *data)
{
	struct block *b = data;

	(void)vcpu;
	if (b->address == on_address)
		on = 1;
	if (!on)
		return;
	b->runs++;
	if (b->address != off_address)
		return;
	on = 0;
	fprintf(out, "section\n");
	for (b = blocks; b; b = b->next) {
		if (b->runs)
			fprintf(out, "%llx %zu %llu\n", (unsigned long long)b->address, b->insns,
				(unsigned long long)b->runs);
		b->runs = 0;
	}
	fflush(out);
}

/* There is one CPU, so nobody else does this, or counts. */
static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	struct block *b = calloc(1, sizeof(*b));

	(void)id;
	b->address = qemu_plugin_tb_vaddr(tb);
	b->insns = qemu_plugin_tb_n_insns(tb);
	b->next = blocks;
	blocks = b;
	qemu_plugin_register_vcpu_tb_exec_cb(tb, count, 0, b);
}

__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "on=", 3))
			on_address = strtoull(argv[i] + 3, NULL, 16);
		else if (!strncmp(argv[i], "off=", 4))
			off_address = strtoull(argv[i] + 4, NULL, 16);
		else if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
	}
	if (!on_address || !off_address || !out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
