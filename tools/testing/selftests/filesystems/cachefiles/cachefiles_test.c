// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <linux/fs.h>

#include "cachefiles_test.h"

#define FILL_CHUNK	(256 * 1024)

static uint64_t round_block(uint64_t n)
{
	return (n + CF_BLOCK - 1) & ~(uint64_t)(CF_BLOCK - 1);
}

int cf_page_size(void)
{
	long size = sysconf(_SC_PAGESIZE);

	return size > CF_BLOCK ? size : CF_BLOCK;
}

const char *cf_beside(const char *name, char path[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);

	while (n > 0 && path[n - 1] != '/')
		n--;
	if (n < 0 || n + strlen(name) >= PATH_MAX)
		n = 0;
	strcpy(path + n, name);
	return path;
}

/* ---- time ---- */

long cf_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000L + ts.tv_nsec / 1000000;
}

void cf_sleep_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

long cf_patience(void)
{
	const char *s = getenv("CACHEFILES_RS_PATIENCE");
	long n = s ? atol(s) : 1;

	return n < 1 ? 1 : n > 999 ? 999 : n;
}

/* How long each CPU has been idle, in ms: their number, 0 if that cannot be told. */
static int idle_times(long idle[64])
{
	long tick = 1000 / sysconf(_SC_CLK_TCK);
	int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC), n = 0;
	char buf[16384], *line;
	ssize_t len = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

	close(fd);
	buf[len < 0 ? 0 : len] = 0;
	/* The first line is the sum; cpuN is user, nice, system, idle, ... */
	for (line = strchr(buf, '\n'); line && n < 64; line = strchr(line + 1, '\n')) {
		if (sscanf(line, "\ncpu%*d %*d %*d %*d %ld", &idle[n]) != 1)
			break;
		idle[n++] *= tick;
	}
	return n;
}

void cf_clock_start(struct cf_clock *c)
{
	c->start = cf_now_ms();
	c->base = 0;
}

/* What is over soon never has the CPUs looked at. */
#define NO_TIME	200

long cf_spent(struct cf_clock *c)
{
	long now = cf_now_ms(), idle[64], least, i;

	if (!c->base) {
		if (now - c->start < NO_TIME)
			return now - c->start;
		c->cpus = idle_times(c->idle);
		c->base = now;
	}
	least = now - c->base;
	if (idle_times(idle) == c->cpus)
		for (i = 0; i < c->cpus; i++)
			if (idle[i] - c->idle[i] < least)
				least = idle[i] - c->idle[i];
	return (c->base - c->start + least + (now - c->base - least) / 10) / cf_patience();
}

long cf_left(struct cf_clock *c, long ms)
{
	long left;

	if (ms < 1000)
		left = c->start + ms - cf_now_ms();
	else
		left = ms - cf_spent(c);
	return left > 0 ? left : 0;
}

/* ---- the device ---- */

int cf_poll(struct pollfd *p, long ms)
{
	struct cf_clock c;
	long left = ms < NO_TIME ? ms : NO_TIME;
	int n;

	cf_clock_start(&c);
	while ((n = poll(p, 1, left)) == 0 && (left = cf_left(&c, ms)))
		;
	return n;
}

int cf_epoll(int epoll, struct epoll_event *event, long ms)
{
	long left = ms < NO_TIME ? ms : NO_TIME;
	struct cf_clock c;
	int n;

	cf_clock_start(&c);
	while ((n = epoll_wait(epoll, event, 1, left)) == 0 && (left = cf_left(&c, ms)))
		;
	return n;
}

int cf_device_open(void)
{
	int fd = open(CF_DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

int cf_cmd_raw(int dev, const void *buf, size_t len)
{
	ssize_t n = write(dev, buf, len);

	if (n < 0)
		return -errno;
	/* A command is taken whole or not at all. */
	return n == len ? 0 : -EPROTO;
}

int cf_cmd(int dev, const char *fmt, ...)
{
	char buf[8192];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	return cf_cmd_raw(dev, buf, n);
}

bool cf_readable(int dev, long timeout_ms)
{
	struct pollfd p = { .fd = dev, .events = POLLIN };

	return cf_poll(&p, timeout_ms) == 1 && (p.revents & POLLIN);
}

static bool msg_well_formed(const struct cf_msg *m)
{
	const struct cf_wire *w = &m->w;

	if (m->size < 16 || w->len != m->size)
		return false;
	/* An object id is a positive int; 0 and -1 stand for "no object". */
	if (w->object_id == 0 || w->object_id > INT_MAX)
		return false;
	switch (w->opcode) {
	case CF_OPEN:
		return m->size >= 32 && w->open.volume_key_size >= 1 &&
			w->open.cookie_key_size >= 1 &&
			m->size == 32 + w->open.volume_key_size + w->open.cookie_key_size;
	case CF_CLOSE:
		return m->size == 16;
	case CF_READ:
		return m->size == 32 && w->read.len;
	}
	return false;
}

int cf_recv(int dev, struct cf_msg *m, int timeout_ms)
{
	struct cf_clock c;

	cf_clock_start(&c);
	for (;;) {
		long left = cf_left(&c, timeout_ms);

		memset(m, 0, sizeof(*m));
		m->size = read(dev, m->raw, CF_MSG_MAX);
		if (m->size < 0 && errno != EAGAIN)
			return -errno;
		if (m->size > 0)
			break;
		if (left <= 0)
			return -ETIMEDOUT;
		cf_readable(dev, left);
	}
	if (!msg_well_formed(m)) {
		fprintf(stderr,
			"# malformed message: read() %zd, msg_id %u opcode %u len %u object_id %#x\n",
			m->size, m->w.msg_id, m->w.opcode, m->w.len, m->w.object_id);
		return -EPROTO;
	}
	return 0;
}

int cf_expect(int dev, uint32_t opcode, struct cf_msg *m)
{
	int err = cf_recv(dev, m, CF_SOON);

	if (!err && m->w.opcode != opcode) {
		fprintf(stderr, "# got opcode %u where %u was expected\n", m->w.opcode, opcode);
		return -EPROTO;
	}
	return err;
}

long cf_stats(const char *group, const char *name)
{
	FILE *f = fopen(CF_STATS, "re");
	char line[256], *p;
	long n = -1;

	while (f && n < 0 && fgets(line, sizeof(line), f)) {
		p = strstr(line, name);
		if (p && !strncmp(line, group, strlen(group)))
			n = atol(p + strlen(name));
	}
	if (f)
		fclose(f);
	return n;
}

const char *cf_msg_name(const struct cf_msg *m, char buf[256])
{
	uint32_t n = m->w.open.cookie_key_size;

	memcpy(buf, m->w.open.data + m->w.open.volume_key_size, n);
	buf[n] = 0;
	return buf;
}

int cf_copen(int dev, uint32_t msg_id, long long size)
{
	return cf_cmd(dev, "copen %u,%lld", msg_id, size);
}

int cf_complete(int anon_fd, uint32_t msg_id)
{
	return ioctl(anon_fd, CF_IOC_READ_COMPLETE, (unsigned long)msg_id) ? -errno : 0;
}

long cf_ioc_fill(int anon_fd, const struct cf_fill_args *args)
{
	long ret = ioctl(anon_fd, CF_IOC_FILL, args);

	return ret < 0 ? -errno : ret;
}

ssize_t cf_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	ssize_t n = pwrite(fd, buf, len, off);

	return n < 0 ? -errno : n;
}

int cf_lowest_free_fd(void)
{
	int fd = open("/", O_PATH | O_CLOEXEC);

	close(fd);
	return fd;
}

void *cf_nowhere(void)
{
	return (void *)8;
}

/* ---- data ---- */

static uint64_t pattern_word(uint64_t seed, uint64_t n)
{
	uint64_t z = seed + n * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	/* No zero bytes: a zero in a buffer is always a hole that leaked. */
	return (z ^ (z >> 31)) | 0x0101010101010101ULL;
}

static uint64_t pattern_seed(const char *name)
{
	uint64_t h = 0xcbf29ce484222325ULL;

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 0x100000001b3ULL;
	return h;
}

void cf_pattern(const char *name, uint64_t off, void *buf, size_t len)
{
	uint64_t seed = pattern_seed(name), w;
	uint8_t *p = buf;

	while (len) {
		size_t skip = off % 8, n = 8 - skip < len ? 8 - skip : len;

		w = pattern_word(seed, off / 8);
		memcpy(p, (uint8_t *)&w + skip, n);
		p += n;
		off += n;
		len -= n;
	}
}

ssize_t cf_check(const char *name, uint64_t off, const void *buf, size_t len)
{
	uint64_t seed = pattern_seed(name), w;
	const uint8_t *p = buf;
	size_t i;

	for (i = 0; i < len; i++) {
		w = pattern_word(seed, (off + i) / 8);
		if (p[i] != ((uint8_t *)&w)[(off + i) % 8]) {
			fprintf(stderr, "# %.40s: byte %llu is %#x instead of %#x\n", name,
				(unsigned long long)(off + i), p[i],
				((uint8_t *)&w)[(off + i) % 8]);
			return off + i;
		}
	}
	return -1;
}

int cf_fill(int anon_fd, const char *name, uint64_t off, size_t len, uint64_t size)
{
	uint64_t end = off + len;
	int err = 0;
	void *buf;

	if (end > round_block(size))
		end = round_block(size);
	if (posix_memalign(&buf, CF_BLOCK, FILL_CHUNK))
		return -ENOMEM;
	while (off < end) {
		size_t n = end - off < FILL_CHUNK ? end - off : FILL_CHUNK;
		ssize_t w;

		memset(buf, 0, n);
		if (off < size)
			cf_pattern(name, off, buf, size - off < n ? size - off : n);
		w = pwrite(anon_fd, buf, n, off);
		if (w <= 0) {
			err = w ? -errno : -EIO;
			break;
		}
		off += w;
	}
	free(buf);
	return err;
}

/* ---- one thing running in a thread ---- */

static void *op_thread(void *arg)
{
	struct cf_op *op = arg;

	op->ret = op->fn(op);
	return NULL;
}

static int small_thread(pthread_t *t, void *(*fn)(void *), void *arg)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 128 * 1024);
	err = pthread_create(t, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return err;
}

struct cf_op *cf_start(long (*fn)(struct cf_op *op), const char *path, int fd, off_t off,
		       size_t len)
{
	struct cf_op *op = calloc(1, sizeof(*op));

	if (!op)
		return NULL;
	op->fn = fn;
	op->fd = fd;
	op->off = off;
	op->len = len;
	if (path)
		snprintf(op->path, sizeof(op->path), "%s", path);
	if (len)
		op->buf = malloc(len);
	if (small_thread(&op->thread, op_thread, op)) {
		free(op->buf);
		free(op);
		return NULL;
	}
	return op;
}

static long do_open(struct cf_op *op)
{
	int fd = open(op->path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static long do_pread(struct cf_op *op)
{
	ssize_t n = pread(op->fd, op->buf, op->len, op->off);

	return n < 0 ? -errno : n;
}

struct cf_op *cf_start_open(const char *dir, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return cf_start(do_open, path, -1, 0, 0);
}

struct cf_op *cf_start_pread(int fd, off_t off, size_t len)
{
	return cf_start(do_pread, NULL, fd, off, len);
}

static long do_readahead(struct cf_op *op)
{
	return -posix_fadvise(op->fd, op->off, op->len, POSIX_FADV_WILLNEED);
}

struct cf_op *cf_start_readahead(int fd, off_t off, size_t len)
{
	return cf_start(do_readahead, NULL, fd, off, len);
}

/* Wait for the end of a thread: 0 or an error number. */
static int join(pthread_t thread, long ms)
{
	long left = ms < NO_TIME ? ms : NO_TIME;
	struct timespec ts;
	struct cf_clock c;
	int err;

	cf_clock_start(&c);
	do {
		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += left % 1000 * 1000000;
		ts.tv_sec += left / 1000 + ts.tv_nsec / 1000000000;
		ts.tv_nsec %= 1000000000;
		err = pthread_timedjoin_np(thread, NULL, &ts);
	} while (err && (left = cf_left(&c, ms)));
	return err;
}

long cf_wait(struct cf_op *op, int timeout_ms)
{
	if (!op)
		return -ENOMEM;
	if (op->joined)
		return op->ret;
	if (join(op->thread, timeout_ms))
		return -ETIMEDOUT;
	op->joined = true;
	return op->ret;
}

void cf_op_free(struct cf_op *op)
{
	/* A thread that never came back still owns its memory. */
	if (!op || !op->joined)
		return;
	free(op->buf);
	free(op);
}

long cf_finish(struct cf_op *op)
{
	long ret = cf_wait(op, CF_SOON);

	cf_op_free(op);
	return ret;
}

/* ---- child processes and modules ---- */

pid_t cf_fork(void)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return pid;
}

int cf_reap(pid_t pid, int timeout_ms)
{
	struct cf_clock c;
	int status;

	cf_clock_start(&c);
	for (;;) {
		pid_t p = waitpid(pid, &status, WNOHANG);

		if (p == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (p < 0)
			return -errno;
		if (!cf_left(&c, timeout_ms))
			return -ETIMEDOUT;
		cf_sleep_ms(5);
	}
}

int cf_run(const char *prog, ...)
{
	char *argv[16] = { (char *)prog };
	va_list ap;
	pid_t pid;
	int n = 1;

	va_start(ap, prog);
	while (n < 15 && (argv[n] = va_arg(ap, char *)))
		n++;
	va_end(ap);
	pid = cf_fork();
	if (pid == 0) {
		setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 0);
		execvp(prog, argv);
		_exit(127);
	}
	return pid < 0 ? -errno : cf_reap(pid, 60000);
}

int cf_modprobe(const char *module)
{
	return cf_run("modprobe", module, NULL);
}

bool cf_has_fscache_user(void)
{
	char path[PATH_MAX];

	return !access(cf_beside("fscache_user.ko", path), R_OK);
}

static long load_fscache_user(struct cf_op *op)
{
	char path[PATH_MAX];
	int fd = open(cf_beside("fscache_user.ko", path), O_RDONLY | O_CLOEXEC);
	long err = fd < 0 || syscall(SYS_finit_module, fd, op->path, 0) ? -errno : 0;

	close(fd);
	return err;
}

struct cf_op *cf_start_fscache_user(const char *params)
{
	return cf_start(load_fscache_user, params, -1, 0, 0);
}

pid_t cf_fork_fscache_user(const char *params)
{
	struct cf_op op = {};
	pid_t pid = cf_fork();

	if (pid)
		return pid;
	snprintf(op.path, sizeof(op.path), "%s", params);
	_exit(-load_fscache_user(&op));
}

bool cf_is_module(const char *module)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/module/%s/initstate", module);
	return access(path, F_OK) == 0;
}

int cf_rmmod(const char *module)
{
	return syscall(SYS_delete_module, module, O_NONBLOCK) ? -errno : 0;
}

/* ---- where a test lives ---- */

static struct cf_clock rm_clock;

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	/* Directories of a cache being withdrawn are busy for a moment. */
	while (remove(path) && errno == EBUSY && cf_left(&rm_clock, 5000))
		cf_sleep_ms(5);
	return 0;
}

static void rm_tree(const char *path)
{
	cf_clock_start(&rm_clock);
	nftw(path, rm_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

/* What tests killed by their time limit have left. */
static void rm_stale(void)
{
	glob_t g;
	size_t i;

	if (glob(CF_ROOT "/t.*", 0, NULL, &g))
		return;
	for (i = 0; i < g.gl_pathc; i++) {
		pid_t pid = atoi(strrchr(g.gl_pathv[i], '.') + 1);

		if (pid > 0 && kill(pid, 0) && errno == ESRCH)
			rm_tree(g.gl_pathv[i]);
	}
	globfree(&g);
}

static int fs_ioctl(const char *path, unsigned long cmd)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = fd < 0 || ioctl(fd, cmd, 0) ? -errno : 0;

	close(fd);
	return err;
}

int cf_env_init(struct cf_env *e)
{
	memset(e, 0, sizeof(*e));
	e->dev = -1;
	snprintf(e->base, sizeof(e->base), CF_ROOT "/t.%d", getpid());
	snprintf(e->dir, sizeof(e->dir), "%s/c", e->base);
	snprintf(e->mnt, sizeof(e->mnt), "%s/m", e->base);
	snprintf(e->erofs, sizeof(e->erofs), "%s/e", e->base);
	snprintf(e->tag, sizeof(e->tag), "t%d", getpid());
	snprintf(e->domain, sizeof(e->domain), "d%d", getpid());

	e->why = "must run as root";
	if (geteuid())
		return -EPERM;
	/* A namespace of our own: the mounts go with the process, come what may. */
	e->why = "unshare(CLONE_NEWNS)";
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -errno;
	e->why = "modprobe cachefiles";
	if (access(CF_DEVICE, F_OK) && (cf_modprobe("cachefiles") || access(CF_DEVICE, F_OK)))
		return -ENODEV;
	/* A test that froze it may have been killed. */
	fs_ioctl(CF_ROOT, FITHAW);
	rm_stale();
	e->why = "creating a directory below " CF_ROOT;
	if (mkdir(e->base, 0755) || mkdir(e->dir, 0755) || mkdir(e->mnt, 0755) ||
	    mkdir(e->erofs, 0755))
		return -errno;
	e->why = "";
	return 0;
}

int cf_env_bind(struct cf_env *e)
{
	return cf_env_bind_with(e, "");
}

int cf_env_bind_with(struct cf_env *e, const char *options)
{
	int err;

	/* A test before this one may have been killed a moment ago. */
	CF_WAIT_FOR((e->dev = cf_device_open()) != -EBUSY, 5000);
	e->why = "opening " CF_DEVICE;
	if (e->dev < 0)
		return e->dev;
	e->why = "command dir";
	err = cf_cmd(e->dev, "dir %s", e->dir);
	if (err)
		return err;
	e->why = "command tag";
	err = cf_cmd(e->dev, "tag %s", e->tag);
	if (err)
		return err;
	e->why = "command bind ondemand";
	err = cf_cmd(e->dev, "bind ondemand%s", options);
	if (!err)
		e->why = "";
	return err;
}

int cf_mount_at(const char *dir, const char *domain, const char *tag)
{
	char opts[512];

	snprintf(opts, sizeof(opts), "domain=%s,cache=%s", domain, tag);
	if (mount("none", dir, "ondemandfs", 0, opts) == 0)
		return 0;
	if (errno != ENODEV || cf_modprobe("ondemandfs"))
		return -errno;
	return mount("none", dir, "ondemandfs", 0, opts) ? -errno : 0;
}

int cf_env_mount(struct cf_env *e)
{
	int err = cf_mount_at(e->mnt, e->domain, e->tag);

	e->mounted = !err;
	e->why = err ? "mounting ondemandfs" : "";
	return err;
}

int cf_env_umount(struct cf_env *e)
{
	if (umount(e->mnt))
		return -errno;
	e->mounted = false;
	return 0;
}

static long do_mount(struct cf_op *op)
{
	char domain[32], tag[32], dir[400];

	if (sscanf(op->path, "%31s %31s %399s", domain, tag, dir) != 3)
		return -EINVAL;
	return cf_mount_at(dir, domain, tag);
}

long cf_env_mount_soon(struct cf_env *e)
{
	char args[512];
	long err;

	snprintf(args, sizeof(args), "%s %s %s", e->domain, e->tag, e->mnt);
	err = cf_finish(cf_start(do_mount, args, -1, 0, 0));
	e->mounted = !err;
	return err;
}

static long do_umount(struct cf_op *op)
{
	return umount2(op->path, op->off) ? -errno : 0;
}

struct cf_op *cf_start_umount(const char *dir, int flags)
{
	/* The offset is as good a place as any for the flags. */
	return cf_start(do_umount, dir, -1, flags, 0);
}

long cf_env_umount_soon(struct cf_env *e)
{
	long err = cf_finish(cf_start_umount(e->mnt, 0));

	if (!err)
		e->mounted = false;
	return err;
}

void cf_env_close(struct cf_env *e)
{
	if (e->dev >= 0)
		close(e->dev);
	e->dev = -1;
}

int cf_env_all(struct cf_env *e)
{
	return cf_env_all_with(e, "");
}

int cf_env_all_with(struct cf_env *e, const char *options)
{
	int err = cf_env_init(e);

	if (!err)
		err = cf_env_bind_with(e, options);
	if (!err)
		err = cf_env_mount(e);
	return err;
}

/* With the C implementation they keep the cache's directories in use. */
static void close_anon_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *de;

	while (dir && (de = readdir(dir))) {
		char text[64] = "";

		if (readlinkat(dirfd(dir), de->d_name, text, sizeof(text) - 1) > 0 &&
		    !strcmp(text, "anon_inode:[cachefiles]"))
			close(atoi(de->d_name));
	}
	if (dir)
		closedir(dir);
}

void cf_env_end(struct cf_env *e)
{
	/* First of all the device: that ends every wait for the daemon. */
	cf_env_close(e);
	close_anon_fds();
	if (chdir("/"))
		return;
	cf_thaw(e);
	umount2(e->erofs, MNT_DETACH);
	umount2(e->mnt, MNT_DETACH);
	umount2(e->dir, MNT_DETACH);
	if (e->base[0])
		rm_tree(e->base);
}

static int sync_fs(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int err = fd < 0 || syncfs(fd) ? -errno : 0;

	close(fd);
	return err;
}

int cf_take_space(struct cf_env *e, const char *name, int percent)
{
	char path[PATH_MAX];
	struct statfs st;
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/%s", e->base, name);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || fstatfs(fd, &st) ||
	    fallocate(fd, 0, 0, (st.f_bavail - st.f_blocks / 100 * (100 - percent)) * st.f_bsize))
		err = -errno;
	close(fd);
	/* Btrfs counts it when it commits. */
	err = err ?: sync_fs(e->base);
	/* For 100 ms the cache may go by what it saw before. */
	cf_sleep_ms(150);
	return err;
}

int cf_give_space(struct cf_env *e, const char *name)
{
	struct statfs before, now;
	char path[PATH_MAX];
	struct stat st;
	long blocks;
	int err;

	snprintf(path, sizeof(path), "%s/%s", e->base, name);
	if (stat(path, &st) || statfs(e->base, &before))
		return -errno;
	/* Not all of it is data, and others may write. */
	blocks = st.st_blocks * 512 / before.f_bsize / 10 * 9;
	if (unlink(path))
		return -errno;
	/* XFS frees it in the background, btrfs when it commits. */
	err = sync_fs(e->base);
	if (err)
		return err;
	return CF_WAIT_FOR(statfs(e->base, &now) || now.f_bavail >= before.f_bavail + blocks,
			   CF_SOON) ? 0 : -ETIMEDOUT;
}

static bool knows_fs(const char *type)
{
	char line[128];
	bool found = false;
	FILE *f;

	cf_modprobe(type);
	f = fopen("/proc/filesystems", "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		found = !strcmp(strchr(line, '\t') + 1, type);
	}
	if (f)
		fclose(f);
	return found;
}

int cf_mount_image(struct cf_env *e, const char *type, const char *image)
{
	char path[PATH_MAX], cmd[PATH_MAX + 512];
	int status;

	if (access(cf_beside(image, path), F_OK) || !knows_fs(type))
		return -ENOENT;
	cf_modprobe("loop");
	snprintf(cmd, sizeof(cmd), "zcat %s >%s/img && mount -t %s -o loop %s/img %s", path,
		 e->base, type, e->base, e->dir);
	status = cf_run("sh", "-c", cmd, NULL);
	return status > 0 ? -EIO : status;
}

void cf_drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (write(fd, "3", 1) < 0)
		perror("drop_caches");
	close(fd);
}

int cf_freeze(struct cf_env *e)
{
	return fs_ioctl(e->dir, FIFREEZE);
}

int cf_thaw(struct cf_env *e)
{
	return fs_ioctl(e->dir, FITHAW);
}

static uint32_t rol32(uint32_t v, int n)
{
	return v << n | v >> (32 - n);
}

/* fscache_hash(); @len is a multiple of 4. */
static uint32_t fscache_hash(uint32_t salt, const uint8_t *p, size_t len)
{
	const uint32_t golden = 0x61c88647;
	uint32_t x = 0, y = salt;

	for (; len; len -= 4, p += 4) {
		x ^= p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
		y ^= x;
		x = rol32(x, 7);
		x += y;
		y = rol32(y, 20);
		y *= 9;
	}
	return (y ^ x * golden) * golden;
}

bool cf_find_cache_file(const struct cf_env *e, const char *key, const char *cooked,
			char path[PATH_MAX])
{
	uint8_t buf[264] = "";
	uint32_t hash;
	size_t len;

	/* The volume's key counts its length byte and a NUL, the cookie's is bare. */
	len = snprintf((char *)buf + 1, sizeof(buf) - 1, "erofs,%s", e->domain);
	buf[0] = len;
	hash = fscache_hash(0, buf, (len + 2 + 3) & ~3);
	memset(buf, 0, sizeof(buf));
	len = strlen(key);
	memcpy(buf, key, len);
	hash = fscache_hash(hash, buf, (len + 3) & ~3);

	snprintf(path, PATH_MAX, "%s/cache/Ierofs,%s/@%02x/%s%s", e->dir, e->domain, hash & 255,
		 cooked ? "" : "D", cooked ? cooked : key);
	return access(path, F_OK) == 0;
}

/* ---- the daemon ---- */

static void daemon_bad(struct cf_daemon *d, const char *what, const char *name, int err)
{
	if (atomic_fetch_add(&d->bad, 1) == 0)
		snprintf(d->error, sizeof(d->error), "%s %.60s: %s", what, name, strerror(-err));
}

static int object_find(struct cf_daemon *d, uint32_t id)
{
	int i;

	for (i = 0; i < CF_MAX_OBJECTS; i++)
		if (d->objects[i].id == id)
			return i;
	return -1;
}

static void daemon_answer(struct cf_daemon *d, const struct cf_read *r)
{
	int err = 0;

	if (d->read_delay)
		cf_sleep_ms(d->read_delay);
	if (!d->lie)
		err = d->fill ? d->fill(d, r) : cf_fill(r->fd, r->name, r->off, r->len, r->size);
	if (err)
		daemon_bad(d, "filling", r->name, err);
	err = cf_complete(r->fd, r->msg_id);
	if (err)
		daemon_bad(d, "completing a READ of", r->name, err);
}

static void daemon_open(struct cf_daemon *d, const struct cf_msg *m)
{
	struct cf_object o = { .id = m->w.object_id, .fd = m->w.open.fd };
	long long size;
	int i, err;

	cf_msg_name(m, o.name);
	size = d->size_of ? d->size_of(d, o.name) : d->size;
	o.size = size;
	/* Known before it is answered: its first READ may go to another thread. */
	pthread_mutex_lock(&d->lock);
	i = size < 0 ? -1 : object_find(d, 0);
	if (i >= 0)
		d->objects[i] = o;
	pthread_mutex_unlock(&d->lock);
	d->opens++;
	err = cf_copen(d->dev, m->w.msg_id, size);
	if (err)
		daemon_bad(d, "copen of", o.name, err);
	if (size < 0)
		close(o.fd);
}

static void daemon_read(struct cf_daemon *d, const struct cf_msg *m)
{
	struct cf_read r = {
		.msg_id = m->w.msg_id,
		.object_id = m->w.object_id,
		.off = m->w.read.off,
		.len = m->w.read.len,
	};
	bool hold;
	int i;

	pthread_mutex_lock(&d->lock);
	hold = d->hold_reads;
	i = object_find(d, r.object_id);
	if (i >= 0) {
		r.fd = d->objects[i].fd;
		r.size = d->objects[i].size;
		memcpy(r.name, d->objects[i].name, sizeof(r.name));
		r.answered = !hold;
		if (d->nlog < CF_MAX_READS)
			d->log[d->nlog++] = r;
	}
	pthread_mutex_unlock(&d->lock);
	d->reads++;
	if (i < 0)
		d->unknown++;
	else if (!hold)
		daemon_answer(d, &r);
}

static void daemon_close(struct cf_daemon *d, const struct cf_msg *m)
{
	int i, fd = -1;

	pthread_mutex_lock(&d->lock);
	i = object_find(d, m->w.object_id);
	if (i >= 0) {
		fd = d->objects[i].fd;
		d->objects[i].id = 0;
	}
	pthread_mutex_unlock(&d->lock);
	if (i < 0)
		d->unknown++;
	else
		close(fd);
	d->closes++;
}

void cf_daemon_loop(struct cf_daemon *d)
{
	struct cf_msg m;
	int err;

	for (;;) {
		struct pollfd p[2] = {
			{ .fd = d->dev, .events = POLLIN },
			{ .fd = d->stop, .events = POLLIN },
		};

		poll(p, 2, -1);
		if (p[1].revents)
			return;
		for (;;) {
			err = cf_recv(d->dev, &m, 0);
			if (err == -EPROTO)
				daemon_bad(d, "malformed message", "", err);
			if (err)
				break;
			if (m.w.opcode == CF_OPEN)
				daemon_open(d, &m);
			else if (m.w.opcode == CF_READ)
				daemon_read(d, &m);
			else
				daemon_close(d, &m);
		}
		if (err != -ETIMEDOUT && err != -EPROTO) {
			daemon_bad(d, "reading", CF_DEVICE, err);
			return;
		}
	}
}

struct cf_daemon *cf_daemon_new(int dev, long long size)
{
	struct cf_daemon *d;
	pthread_mutexattr_t attr;

	d = mmap(NULL, sizeof(*d), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (d == MAP_FAILED)
		return NULL;
	d->dev = dev;
	d->size = size;
	d->stop = eventfd(0, EFD_CLOEXEC);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutex_init(&d->lock, &attr);
	return d;
}

static void *daemon_thread(void *arg)
{
	cf_daemon_loop(arg);
	return NULL;
}

int cf_daemon_start(struct cf_daemon *d, int nthreads)
{
	for (; d->nthreads < nthreads; d->nthreads++)
		if (small_thread(&d->threads[d->nthreads], daemon_thread, d))
			return -EAGAIN;
	return 0;
}

void cf_daemon_release_reads(struct cf_daemon *d)
{
	int i;

	d->hold_reads = false;
	for (i = 0; i < d->nlog; i++) {
		struct cf_read r;
		bool mine;

		pthread_mutex_lock(&d->lock);
		mine = !d->log[i].answered;
		d->log[i].answered = true;
		r = d->log[i];
		pthread_mutex_unlock(&d->lock);
		if (mine)
			daemon_answer(d, &r);
	}
}

void cf_daemon_stop(struct cf_daemon *d)
{
	uint64_t one = 1;
	int i;

	if (write(d->stop, &one, sizeof(one)) != sizeof(one))
		return;
	for (i = 0; i < d->nthreads; i++)
		join(d->threads[i], CF_SOON);
	d->nthreads = 0;
}

void cf_daemon_close_fds(struct cf_daemon *d)
{
	int i;

	for (i = 0; i < CF_MAX_OBJECTS; i++)
		if (d->objects[i].id) {
			close(d->objects[i].fd);
			d->objects[i].id = 0;
		}
}

void cf_daemon_free(struct cf_daemon *d)
{
	if (!d)
		return;
	if (d->nthreads)
		cf_daemon_stop(d);
	cf_daemon_close_fds(d);
	close(d->stop);
	munmap(d, sizeof(*d));
}
