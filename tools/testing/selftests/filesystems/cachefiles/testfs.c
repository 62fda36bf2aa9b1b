// SPDX-License-Identifier: GPL-2.0
/* Helpers for the tests of classic mode, see testfs.h. */
#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kselftest.h"
#include "testfs.h"

#define MODULE	"cachefiles_testfs"
#define DEVICE	"/dev/" MODULE
#define CHUNK	(128 * 1024)

bool tf_is_there(void)
{
	char path[PATH_MAX];

	return !access(cf_beside(MODULE ".ko", path), R_OK);
}

static int load(void)
{
	char path[PATH_MAX];
	int fd, err;

	if (!access(DEVICE, F_OK))
		return 0;
	/* What it needs; the kernel does not look for that. */
	cf_modprobe("netfs");
	fd = open(cf_beside(MODULE ".ko", path), O_RDONLY | O_CLOEXEC);
	err = fd < 0 || syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
	close(fd);
	return err;
}

int tf_init(struct tf *t)
{
	char options[64];
	int err;

	memset(t, 0, sizeof(*t));
	t->server = -1;
	err = cf_env_init(&t->e);
	if (err)
		return err;
	t->e.why = "loading " MODULE ".ko";
	err = load();
	if (err)
		return err;
	t->e.why = "opening " DEVICE;
	t->server = open(DEVICE, O_RDWR | O_CLOEXEC);
	if (t->server < 0)
		return -errno;
	t->e.why = "mounting the origin";
	snprintf(t->origin, sizeof(t->origin), "%s/o", t->e.base);
	snprintf(options, sizeof(options), "server=%d,origin", t->server);
	if (mkdir(t->origin, 0755) || mount("none", t->origin, MODULE, 0, options))
		return -errno;
	snprintf(t->key, sizeof(t->key), "testfs;%d", getpid());
	t->e.why = "";
	return 0;
}

int tf_bind(struct tf *t, const char *commands)
{
	char text[512], *rest = text, *line;
	int err;

	/* A test before this one may have been killed a moment ago. */
	CF_WAIT_FOR((t->e.dev = cf_device_open()) != -EBUSY, CF_SOON);
	t->e.why = "opening " CF_DEVICE;
	if (t->e.dev < 0)
		return t->e.dev;
	t->e.why = "commands before bind";
	snprintf(text, sizeof(text), "%s", commands ?: "");
	while ((line = strsep(&rest, "\n")))
		if (*line) {
			err = cf_cmd(t->e.dev, "%s", line);
			if (err)
				return err;
		}
	err = cf_cmd(t->e.dev, "dir %s", t->e.dir);
	err = err ?: cf_cmd(t->e.dev, "tag %s", t->e.tag);
	if (err)
		return err;
	t->e.why = "command bind";
	err = cf_cmd(t->e.dev, "bind");
	if (!err)
		t->e.why = "";
	return err;
}

static int mount_client(struct tf *t)
{
	t->e.why = "mounting " MODULE;
	if (mount("none", t->e.mnt, MODULE, 0, t->options))
		return -errno;
	t->e.mounted = true;
	t->e.why = "";
	return 0;
}

int tf_mount(struct tf *t, const char *options)
{
	snprintf(t->options, sizeof(t->options), "server=%d,tag=%s,key=%s,aux=8%s", t->server,
		 t->e.tag, t->key, options);
	return mount_client(t);
}

int tf_umount(struct tf *t)
{
	t->e.why = "unmounting " MODULE;
	return cf_env_umount(&t->e);
}

int tf_remount(struct tf *t)
{
	int err = tf_umount(t);

	return err ?: mount_client(t);
}

int tf_all(struct tf *t, const char *options)
{
	int err = tf_init(t);

	err = err ?: tf_bind(t, NULL);
	return err ?: tf_mount(t, options);
}

void tf_end(struct tf *t)
{
	/* This ends all that is held. */
	if (t->server >= 0)
		close(t->server);
	if (t->origin[0])
		umount2(t->origin, MNT_DETACH);
	/* While it is mounted, the volume's directories are in use. */
	cf_thaw(&t->e);
	umount2(t->e.mnt, MNT_DETACH);
	cf_env_end(&t->e);
}

/* ---- the server ---- */

int tf_vcmd(struct tf *t, const char *fmt, va_list ap)
{
	char cmd[512];
	int n = vsnprintf(cmd, sizeof(cmd), fmt, ap);

	return write(t->server, cmd, n) < 0 ? -errno : 0;
}

int tf_cmd(struct tf *t, const char *fmt, ...)
{
	va_list ap;
	int err;

	va_start(ap, fmt);
	err = tf_vcmd(t, fmt, ap);
	va_end(ap);
	return err;
}

int tf_file(struct tf *t, const char *name, long long size, int generation)
{
	return tf_cmd(t, "file %s %lld %d", name, size, generation);
}

long long tf_count(struct tf *t, const char *counter)
{
	size_t len = strlen(counter);
	char text[512], *p;
	ssize_t n = pread(t->server, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return -1;
	text[n] = 0;
	for (p = strtok(text, "\n "); p; p = strtok(NULL, "\n "))
		if (!strncmp(p, counter, len) && p[len] == '=')
			return atoll(p + len + 1);
	return -1;
}

bool tf_waits_for(struct tf *t, int calls)
{
	return CF_WAIT_FOR(tf_count(t, "waiting") >= calls, CF_SOON);
}

void tf_pattern(const char *name, int generation, off_t off, void *buf, size_t len)
{
	char pattern[300];

	snprintf(pattern, sizeof(pattern), "%s.%d", name, generation);
	cf_pattern(pattern, off, buf, len);
}

/* ---- the client ---- */

static int open_in(const char *dir, const char *name, int flags)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0644);
	return fd < 0 ? -errno : fd;
}

int tf_open(struct tf *t, const char *name, int flags)
{
	return open_in(t->e.mnt, name, flags);
}

/* Read up to the end of the file: bytes or -errno. */
static ssize_t read_all(int fd, void *buf, size_t len, off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, buf + done, len - done, off + done);

		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += n;
	}
	return done;
}

static long differ(const char *name, off_t off, const uint8_t *got, const uint8_t *want, size_t len)
{
	size_t i;

	for (i = 0; i < len && got[i] == want[i];)
		i++;
	if (i == len)
		return 0;
	fprintf(stderr, "# %.40s: byte %llu is %#x instead of %#x\n", name,
		(unsigned long long)off + i, got[i], want[i]);
	return -EBADMSG;
}

long tf_read(int fd, const char *name, int generation, off_t off, size_t len)
{
	uint8_t *want = malloc(len), *got;
	ssize_t n;
	long ret;

	/* For O_DIRECT. */
	if (posix_memalign((void **)&got, CF_BLOCK, len))
		return -ENOMEM;
	n = read_all(fd, got, len, off);
	ret = n < 0 ? n : n < len ? -ENODATA : 0;
	if (!ret) {
		tf_pattern(name, generation, off, want, len);
		ret = differ(name, off, got, want, len);
	}
	free(got);
	free(want);
	return ret;
}

long tf_same_range(struct tf *t, const char *name, int fd, off_t off, size_t len)
{
	uint8_t *got = malloc(CHUNK), *want = malloc(CHUNK);
	int origin = open_in(t->origin, name, O_RDONLY);
	off_t end = len ? off + len : LLONG_MAX;
	long ret = origin < 0 ? origin : 0;

	while (!ret && off < end) {
		size_t part = end - off < CHUNK ? end - off : CHUNK;
		ssize_t n = read_all(fd, got, part, off), m = read_all(origin, want, part, off);

		if (n < 0 || m < 0) {
			ret = n < 0 ? n : m;
		} else if (n != m) {
			fprintf(stderr, "# %.40s: %zd bytes at %llu instead of %zd\n", name, n,
				(unsigned long long)off, m);
			ret = -ENODATA;
		} else {
			ret = differ(name, off, got, want, n);
		}
		if (n < part)
			break;
		off += n;
	}
	if (origin >= 0)
		close(origin);
	free(got);
	free(want);
	return ret;
}

long tf_same(struct tf *t, const char *name)
{
	int fd = tf_open(t, name, O_RDONLY);
	long ret;

	if (fd < 0)
		return fd;
	ret = tf_same_range(t, name, fd, 0, 0);
	close(fd);
	return ret;
}

int tf_write(int fd, const char *name, int generation, off_t off, size_t len)
{
	void *buf;
	ssize_t n;

	/* For O_DIRECT. */
	if (posix_memalign(&buf, CF_BLOCK, len))
		return -ENOMEM;
	tf_pattern(name, generation, off, buf, len);
	n = pwrite(fd, buf, len, off);
	n = n < 0 ? -errno : n < len ? -ENOSPC : 0;
	free(buf);
	return n;
}

int tf_sync(struct tf *t)
{
	int fd = open(t->e.mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = fd < 0 || syncfs(fd) ? -errno : 0;

	close(fd);
	return err;
}

int tf_swap_file(struct tf *t, const char *name)
{
	const uint32_t header[] = { 1, 15, 0 };
	char path[512];
	int fd, err;

	err = tf_file(t, name, 16 * CF_BLOCK, 1);
	if (err)
		return err;
	snprintf(path, sizeof(path), "%s/%s", t->origin, name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	if (pwrite(fd, header, sizeof(header), 1024) != sizeof(header) ||
	    pwrite(fd, "SWAPSPACE2", 10, CF_BLOCK - 10) != 10)
		err = -EIO;
	close(fd);
	return err;
}

long tf_fill(struct tf *t, const char *name)
{
	long ret = tf_same(t, name);

	return ret ?: tf_sync(t);
}

long long tf_stat(struct tf *t, const char *name)
{
	char path[512];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", t->e.mnt, name);
	return stat(path, &st) ? -errno : st.st_size;
}

void tf_forget(int fd)
{
	fsync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

void tf_no_readahead(int fd)
{
	cf_no_readahead(fd);
}

/* ---- the cache ---- */

int tf_cache_file(struct tf *t, const char *key, char path[PATH_MAX])
{
	char pattern[PATH_MAX];
	glob_t g;

	snprintf(pattern, sizeof(pattern), "%s/cache/I%s/@*/D%s", t->e.dir, t->key, key);
	if (glob(pattern, 0, NULL, &g))
		return -ENOENT;
	snprintf(path, PATH_MAX, "%s", g.gl_pathv[0]);
	globfree(&g);
	return 0;
}

int tf_cache_file_soon(struct tf *t, const char *key, char path[PATH_MAX])
{
	return CF_WAIT_FOR(!tf_cache_file(t, key, path), CF_SOON) ? 0 : -ENOENT;
}

char tf_cookie_state(const char *key)
{
	FILE *f = fopen("/proc/fs/fscache/cookies", "re");
	char line[2048], hex[520] = " ", *p = hex + 1;
	unsigned int cookie, volume, flags;
	int ref, active, access;
	char state, ret = 0;

	for (; *key; key++, p += 2)
		sprintf(p, "%02x", (unsigned char)*key);
	while (f && !ret && fgets(line, sizeof(line), f)) {
		size_t len = strlen(hex);

		if (sscanf(line, "%x %x %d %d %d %c %x", &cookie, &volume, &ref, &active, &access,
			   &state, &flags) != 7)
			continue;
		p = strstr(line, hex);
		if (p && (p[len] == ',' || p[len] == '\n'))
			ret = state;
	}
	if (f)
		fclose(f);
	return ret;
}

int tf_state(struct tf *t, struct tf_state *s)
{
	static const char *const names[] = {
		"cull=", "frun=", "fcull=", "fstop=", "brun=", "bcull=", "bstop=", "freleased=",
		"breleased=",
	};
	unsigned long long *values[] = {
		&s->cull, &s->frun, &s->fcull, &s->fstop, &s->brun, &s->bcull, &s->bstop,
		&s->freleased, &s->breleased,
	};
	char line[256], *rest = line, *end;
	ssize_t n = read(t->e.dev, line, sizeof(line) - 1);
	size_t i;

	if (n < 0)
		return -errno;
	line[n] = 0;
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		char *field = strsep(&rest, " ");
		size_t len = strlen(names[i]);

		if (!field || strncmp(field, names[i], len))
			return -EPROTO;
		*values[i] = strtoull(field + len, &end, 16);
		if (end == field + len || *end)
			return -EPROTO;
	}
	/* And nothing else. */
	return rest ? -EPROTO : 0;
}
