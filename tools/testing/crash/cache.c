// SPDX-License-Identifier: GPL-2.0
/* The caches, one of each mode, on the one file system; their clients; the server. */
#include <ftw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "crash.h"

#define MODULE		"cachefiles_testfs"

static const char *const cache_dirs[] = { FS_DIR "/c", FS_DIR "/o" };
static const char *const client_dirs[] = { CF_ROOT "/client.c", CF_ROOT "/client.o" };
static const char *const tags[] = { "classic", "ondemand" };

const char *setup_client_dir(enum cache_mode mode)
{
	return client_dirs[mode];
}

const char *setup_cache_dir(enum cache_mode mode)
{
	return cache_dirs[mode];
}

static void load_testfs(void)
{
	char path[PATH_MAX];
	int fd;

	if (!access("/dev/" MODULE, F_OK))
		return;
	cf_modprobe("netfs");
	fd = open(cf_beside(MODULE ".ko", path), O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
		die("loading " MODULE ".ko: %m");
	close(fd);
}

void setup_init(struct setup *s, const char *fs)
{
	int mode;

	memset(s, 0, sizeof(*s));
	s->fs = fs;
	s->is_c = cf_is_c();
	s->server = -1;
	for (mode = 0; mode < NR_MODES; mode++) {
		s->dev[mode] = -1;
		mkdir(client_dirs[mode], 0700);
	}
	mkdir(FS_DIR, 0700);
	mkdir(ORIGIN_DIR, 0700);
	if (access(CF_DEVICE, F_OK) && (cf_modprobe("cachefiles") || access(CF_DEVICE, F_OK)))
		die("modprobe cachefiles failed");
	load_testfs();
	cf_modprobe(fs);
}

void setup_new_server(struct setup *s)
{
	char options[64];

	if (s->server >= 0) {
		if (umount(ORIGIN_DIR))
			die("unmounting the origin: %m");
		close(s->server);
	}
	s->server = open("/dev/" MODULE, O_RDWR | O_CLOEXEC);
	if (s->server < 0)
		die("/dev/" MODULE ": %m");
	snprintf(options, sizeof(options), "server=%d,origin", s->server);
	if (mount("none", ORIGIN_DIR, MODULE, 0, options))
		die("mounting the origin: %m");
}

int setup_cmd(struct setup *s, const char *fmt, ...)
{
	struct tf t = { .server = s->server };
	va_list ap;
	int err;

	va_start(ap, fmt);
	err = tf_vcmd(&t, fmt, ap);
	va_end(ap);
	return err;
}

long long setup_count(struct setup *s, const char *counter)
{
	struct tf t = { .server = s->server };

	return tf_count(&t, counter);
}

int setup_mount_fs(struct setup *s, const char *device)
{
	const char *options = !strcmp(s->fs, "btrfs") ? "nodiscard" :
		!strcmp(s->fs, "ext4") ? "noinit_itable" : "";
	int mode;

	if (device && mount(device, FS_DIR, s->fs, 0, options))
		return -errno;
	for (mode = 0; mode < NR_MODES; mode++)
		if (mkdir(cache_dirs[mode], 0700) && errno != EEXIST)
			return -errno;
	return 0;
}

static int try_unmount(const char *dir)
{
	return umount(dir) ? -errno : 0;
}

/* The last that a cache had of it may go a moment after the cache. */
static int unmount(const char *dir)
{
	int err;

	CF_WAIT_FOR((err = try_unmount(dir)) != -EBUSY, CF_SOON);
	return err;
}

int setup_umount_fs(struct setup *s)
{
	return unmount(FS_DIR);
}

int setup_bind(struct setup *s, enum cache_mode mode)
{
	int dev, err;

	CF_WAIT_FOR((dev = cf_device_open()) != -EBUSY, CF_SOON);
	if (dev < 0)
		return dev;
	err = cf_cmd(dev, "dir %s", cache_dirs[mode]);
	err = err ?: cf_cmd(dev, "tag %s", tags[mode]);
	err = err ?: cf_cmd(dev, "%s", mode == ONDEMAND ? "bind ondemand" : "bind");
	if (err) {
		close(dev);
		return err;
	}
	s->dev[mode] = dev;
	return 0;
}

void setup_close(struct setup *s, enum cache_mode mode)
{
	if (s->dev[mode] >= 0)
		close(s->dev[mode]);
	s->dev[mode] = -1;
}

int setup_mount(struct setup *s, enum cache_mode mode, const char *style)
{
	char options[256];
	int err;

	if (mode == ONDEMAND) {
		err = cf_mount_at(client_dirs[mode], "crash", tags[mode]);
	} else {
		snprintf(options, sizeof(options),
			 "server=%d,tag=%s,key=crash,aux=8,keylen=3,style=%s", s->server,
			 tags[mode], style);
		err = mount("none", client_dirs[mode], MODULE, 0, options) ? -errno : 0;
	}
	s->mounted[mode] = !err;
	return err;
}

int setup_umount(struct setup *s, enum cache_mode mode)
{
	int err;

	if (!s->mounted[mode])
		return 0;
	err = unmount(client_dirs[mode]);
	s->mounted[mode] = err;
	return err;
}

static struct object *wanted;
static int (*wanted_fn)(const char *path, void *arg);
static void *wanted_arg;

static int visit(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	const char *name = path + ftw->base;

	if (type != FTW_F || *name != 'D' || strcmp(name + 1, wanted->name))
		return 0;
	return wanted_fn(path, wanted_arg);
}

int setup_each_file(struct object *o, int (*fn)(const char *path, void *arg), void *arg)
{
	char dir[128];

	snprintf(dir, sizeof(dir), "%s/cache", cache_dirs[o->mode]);
	wanted = o;
	wanted_fn = fn;
	wanted_arg = arg;
	return nftw(dir, visit, 8, FTW_PHYS);
}

static int take_path(const char *path, void *arg)
{
	snprintf(arg, PATH_MAX, "%s", path);
	return 1;
}

int setup_cull(struct setup *s, struct object *o)
{
	char path[PATH_MAX], *name;
	int here, err;

	if (setup_each_file(o, take_path, path) != 1)
		return -ENOENT;
	name = strrchr(path, '/');
	*name++ = 0;
	here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (here < 0 || chdir(path))
		die("chdir to %s: %m", path);
	err = cf_cmd(s->dev[o->mode], "cull %s", name);
	if (fchdir(here))
		die("chdir: %m");
	close(here);
	return err;
}
