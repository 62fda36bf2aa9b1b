// SPDX-License-Identifier: GPL-2.0
/*
 * One object for which the test is the daemon: the test takes and answers each message.
 */
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "cachefiles_test.h"

int cf_blob_take_open(struct cf_env *e, struct cf_blob *b)
{
	struct cf_msg m;
	int err = cf_expect(e->dev, CF_OPEN, &m);
	char name[256];

	if (err)
		return err;
	if (strcmp(cf_msg_name(&m, name), b->name))
		return -EPROTO;
	b->anon = m.w.open.fd;
	b->object_id = m.w.object_id;
	b->msg_id = m.w.msg_id;
	return 0;
}

int cf_blob_answer_open(struct cf_env *e, struct cf_blob *b, long long size)
{
	int err = cf_blob_take_open(e, b);

	return err ? err : cf_copen(e->dev, b->msg_id, size);
}

int cf_copen_version(int dev, uint32_t msg_id, uint64_t size, const char *version)
{
	return cf_cmd(dev, "copen %u,%llu%s%s", msg_id, (unsigned long long)size,
		      version ? "," : "", version ?: "");
}

int cf_blob_answer_version(struct cf_env *e, struct cf_blob *b, const char *version)
{
	int err = cf_blob_take_open(e, b);

	return err ?: cf_copen_version(e->dev, b->msg_id, b->size, version);
}

static void blob_init(struct cf_blob *b, const char *name, uint64_t size)
{
	memset(b, 0, sizeof(*b));
	snprintf(b->name, sizeof(b->name), "%s", name);
	b->size = size;
	b->anon = -1;
	b->fd = -1;
}

int cf_blob_open_version(struct cf_env *e, struct cf_blob *b, uint64_t size,
			 const char *content, const char *version)
{
	struct cf_op *op = cf_start_open(e->mnt, "blob");
	int err;

	blob_init(b, "blob", size);
	err = cf_blob_answer_version(e, b, version);
	if (err)
		return err;
	snprintf(b->name, sizeof(b->name), "%s", content);
	b->fd = cf_finish(op);
	if (b->fd < 0)
		return b->fd;
	cf_no_readahead(b->fd);
	return 0;
}

int cf_blob_open(struct cf_env *e, struct cf_blob *b, const char *name, uint64_t size)
{
	struct cf_op *op = cf_start_open(e->mnt, name);
	int err;

	blob_init(b, name, size);
	err = cf_blob_answer_open(e, b, size);
	if (err)
		return err;
	b->fd = cf_finish(op);
	return b->fd < 0 ? b->fd : 0;
}

int cf_blob_answer_read(const struct cf_blob *b, const struct cf_msg *m)
{
	int err;

	if (m->w.object_id != b->object_id)
		return -EPROTO;
	err = cf_fill(b->anon, b->name, m->w.read.off, m->w.read.len, b->size);
	return err ? err : cf_complete(b->anon, m->w.msg_id);
}

/* The result of a read: 0 if all of it is right. */
static long checked(const struct cf_blob *b, struct cf_op *op, long ret)
{
	if (ret >= 0)
		ret = ret != op->len ? -EREMOTEIO :
			cf_check(b->name, op->off, op->buf, ret) >= 0 ? -EBADMSG : 0;
	cf_op_free(op);
	return ret;
}

long cf_blob_fetch(struct cf_env *e, struct cf_blob *b, off_t off)
{
	size_t len = b->size - off < CF_PAGE ? b->size - off : CF_PAGE;
	struct cf_op *op = cf_start_pread(b->fd, off, len);
	struct cf_msg m;
	int err = cf_expect(e->dev, CF_READ, &m);

	if (!err)
		err = cf_blob_answer_read(b, &m);
	return err ? err : checked(b, op, cf_wait(op, CF_SOON));
}

long cf_blob_serve(struct cf_env *e, struct cf_blob *b, struct cf_op *op)
{
	struct cf_clock clock;
	struct cf_msg m;
	long ret;
	int err;

	cf_clock_start(&clock);
	while ((ret = cf_wait(op, 20)) == -ETIMEDOUT && cf_left(&clock, CF_SOON)) {
		err = cf_recv(e->dev, &m, 20);
		if (err == -ETIMEDOUT)
			continue;
		if (err)
			return err;
		if (m.w.opcode == CF_OPEN) {
			b->anon = m.w.open.fd;
			b->object_id = m.w.object_id;
			err = cf_copen(e->dev, m.w.msg_id, b->size);
		} else if (m.w.opcode == CF_READ) {
			err = cf_blob_answer_read(b, &m);
		}
		if (err)
			return err;
	}
	return checked(b, op, ret);
}

static long do_close(struct cf_op *op)
{
	return close(op->fd) ? -errno : 0;
}

struct cf_op *cf_start_close(int fd)
{
	return cf_start(do_close, NULL, fd, 0, 0);
}

void cf_no_readahead(int fd)
{
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
}

bool cf_is_btrfs(void)
{
	struct statfs st;

	return !statfs(CF_ROOT, &st) && st.f_type == BTRFS_SUPER_MAGIC;
}

bool cf_is_in_memory(int fd, off_t off)
{
	void *map = mmap(NULL, CF_PAGE, PROT_READ, MAP_SHARED, fd, off);
	unsigned char in_core = 0;

	if (map == MAP_FAILED)
		return false;
	mincore(map, CF_PAGE, &in_core);
	munmap(map, CF_PAGE);
	return in_core & 1;
}

long cf_read_and_check(const char *name, int fd, off_t off, size_t len, size_t want)
{
	struct cf_op *op = cf_start_pread(fd, off, len);
	long n = cf_wait(op, 20000);

	if (n >= 0)
		n = n != want ? -EREMOTEIO : cf_check(name, off, op->buf, n) >= 0 ? -EBADMSG : 0;
	cf_op_free(op);
	return n;
}

long cf_serve_until_done(struct cf_env *e, struct cf_blob *b, struct cf_op *op, int *reads)
{
	struct cf_clock clock;
	struct cf_msg m;
	long ret;

	cf_clock_start(&clock);
	while ((ret = cf_wait(op, 20)) == -ETIMEDOUT && cf_left(&clock, CF_SOON)) {
		if (cf_recv(e->dev, &m, 20))
			continue;
		if (m.w.opcode != CF_READ)
			return -EPROTO;
		if (reads)
			++*reads;
		if (cf_blob_answer_read(b, &m))
			return -EPROTO;
	}
	return ret;
}

long cf_answer_opens(struct cf_env *e, struct cf_op *op, long long size)
{
	struct cf_clock clock;
	struct cf_msg m;
	long ret;

	cf_clock_start(&clock);
	while ((ret = cf_wait(op, 20)) == -ETIMEDOUT && cf_left(&clock, CF_SOON)) {
		if (cf_recv(e->dev, &m, 20) || m.w.opcode == CF_CLOSE)
			continue;
		if (m.w.opcode != CF_OPEN || cf_copen(e->dev, m.w.msg_id, size))
			return -EPROTO;
	}
	return ret;
}

struct cf_op *cf_open_and_recv(struct cf_env *e, const char *name, struct cf_msg *m)
{
	struct cf_op *op = cf_start_open(e->mnt, name);

	return cf_expect(e->dev, CF_OPEN, m) ? NULL : op;
}

int cf_blob_give_up(struct cf_env *e, struct cf_blob *b)
{
	struct cf_msg m;
	int err;

	close(b->fd);
	err = cf_env_umount(e) ?: cf_expect(e->dev, CF_CLOSE, &m);
	close(b->anon);
	return err;
}

int cf_blob_look_up(struct cf_env *e, struct cf_blob *b, uint64_t size)
{
	int err = cf_env_mount(e) ?: cf_blob_open(e, b, "blob", size);

	if (!err)
		cf_no_readahead(b->fd);
	return err;
}

bool cf_is_released(struct cf_env *e, const char *path)
{
	char dir[PATH_MAX];
	bool free;

	strcpy(dir, path);
	if (chdir(dirname(dir)))
		return false;
	free = CF_WAIT_FOR(cf_cmd(e->dev, "inuse Dblob") == 0, CF_SOON);
	return !chdir("/") && free;
}

int cf_reads_for(struct cf_env *e, struct cf_blob *b, off_t off, size_t len)
{
	struct cf_op *op = cf_start_pread(b->fd, off, len);
	int reads = 0;
	long ret = cf_serve_until_done(e, b, op, &reads);

	if (ret < 0)
		return ret;
	return ret == len && cf_check("blob", off, op->buf, len) == -1 ? reads : -EBADMSG;
}
