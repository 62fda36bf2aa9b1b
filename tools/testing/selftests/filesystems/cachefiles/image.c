// SPDX-License-Identifier: GPL-2.0
/*
 * The stock EROFS, mounted from files of ondemandfs: the images, their daemon, and
 * the mount.
 *
 * The images are next to the program, where its Makefile puts them; the
 * environment variable CACHEFILES_TEST_IMAGES names another directory.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cachefiles_test.h"

static char *image_path(const char *name, char path[PATH_MAX])
{
	const char *dir = getenv("CACHEFILES_TEST_IMAGES");

	if (dir)
		snprintf(path, PATH_MAX, "%s/%s", dir, name);
	else
		cf_beside(name, path);
	return path;
}

long long cf_image_size(const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	return stat(image_path(name, path), &st) ? -errno : st.st_size;
}

static long long size_of(struct cf_daemon *d, const char *name)
{
	return cf_image_size(name);
}

static int fill(struct cf_daemon *d, const struct cf_read *r)
{
	uint64_t off = r->off, end = r->off + r->len;
	/* as the C implementation wants it */
	char buf[65536] __attribute__((aligned(4096)));
	char path[PATH_MAX];
	int fd, err = 0;

	fd = open(image_path(r->name, path), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (end > (r->size + CF_BLOCK - 1) / CF_BLOCK * CF_BLOCK)
		end = (r->size + CF_BLOCK - 1) / CF_BLOCK * CF_BLOCK;
	while (off < end && !err) {
		size_t n = end - off < sizeof(buf) ? end - off : sizeof(buf);

		memset(buf, 0, n);
		if (pread(fd, buf, n, off) < 0 || pwrite(r->fd, buf, n, off) != n)
			err = errno ? -errno : -EIO;
		off += n;
	}
	close(fd);
	return err;
}

struct cf_daemon *cf_image_daemon(int dev)
{
	struct cf_daemon *d = cf_daemon_new(dev, 0);

	if (d) {
		d->size_of = size_of;
		d->fill = fill;
	}
	cf_modprobe("erofs");
	return d;
}

struct mounting {
	char source[256], target[128];
	const char *options;
};

static long do_mount(struct cf_op *op)
{
	const struct mounting *m = (void *)op->off;

	return mount(m->source, m->target, "erofs", MS_RDONLY, m->options) ? -errno : 0;
}

long cf_mount_erofs(struct cf_env *e, const char *image, const char *options)
{
	/* It is used for as long as the mount takes, and that may be longer than we wait. */
	struct mounting *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	snprintf(m->source, sizeof(m->source), "%s/%s", e->mnt, image);
	snprintf(m->target, sizeof(m->target), "%s", e->erofs);
	m->options = options;
	return cf_wait(cf_start(do_mount, NULL, -1, (off_t)m, 0), 3 * CF_SOON);
}
