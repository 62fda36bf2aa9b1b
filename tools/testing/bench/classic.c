// SPDX-License-Identifier: GPL-2.0
/*
 * Classic mode: a network file system, cachefiles_testfs.ko of the selftests, with
 * cachefiles below it, whichever is loaded. Its server is in memory and answers at once.
 * All that is read is compared with what the server has, and where it comes from is
 * checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

#define MNT	"/mnt"
#define ORIGIN	"/origin"
#define TESTFS	"cachefiles_testfs"

/* Of a large file, in bytes. */
#define SIZE	(16 << 20)
/* How many small ones there are. */
#define FILES	1000

struct file {
	char name[16];
	size_t size;		/* in bytes */
	uint8_t *data;		/* what the server has */
	int fd;			/* of the client */
};

static int server;

/* 0 or the error. */
static int try_command(int fd, const char *fmt, va_list args)
{
	char cmd[128];
	int n = vsnprintf(cmd, sizeof(cmd), fmt, args);

	return write(fd, cmd, n) < 0 ? errno : 0;
}

__attribute__((format(printf, 2, 3))) static void command(int fd, const char *fmt, ...)
{
	va_list args;
	int err;

	va_start(args, fmt);
	err = try_command(fd, fmt, args);
	va_end(args);
	if (err) {
		errno = err;
		die("the command '%s'", fmt);
	}
}

/* One of the server's counters. */
static uint64_t count_of(const char *counter)
{
	char text[1024], name[32], *found;
	ssize_t n = pread(server, text + 1, sizeof(text) - 2, 0);

	text[0] = ' ';
	text[n < 0 ? 1 : n + 1] = 0;
	snprintf(name, sizeof(name), " %s=", counter);
	found = strstr(text, name);
	if (!found)
		die("the counter %s", counter);
	return strtoull(found + strlen(name), NULL, 10);
}

__attribute__((noreturn)) static void wrong(const char *what, const struct file *f, off_t off)
{
	fprintf(stderr, "bench: %s: %s at %lld\n", f->name, what, (long long)off);
	exit(1);
}

static int bind_cache(void)
{
	int dev = open("/dev/cachefiles", O_RDWR | O_CLOEXEC);

	if (dev < 0)
		die("/dev/cachefiles");
	command(dev, "dir /cache");
	command(dev, "tag bench");
	command(dev, "bind");
	return dev;
}

/* The volume that the client has. */
static const char *volume = "bench";

static void mount_client(void)
{
	char options[64];

	snprintf(options, sizeof(options), "server=%d,tag=bench,key=%s,aux=8", server, volume);
	if (mount("none", MNT, TESTFS, 0, options))
		die("mount of the client");
}

static void umount_client(void)
{
	umount_idle(MNT);
}

static void remount(void)
{
	umount_client();
	mount_client();
}

/* ---- files on both sides ---- */

static const char *path_of(const char *dir, const struct file *f)
{
	static char path[64];

	snprintf(path, sizeof(path), "%s/%.15s", dir, f->name);
	return path;
}

static void make_file(struct file *f, size_t size, const char *fmt, int number)
{
	const char *path;
	int fd;

	snprintf(f->name, sizeof(f->name), fmt, number);
	f->size = size;
	f->data = malloc(size);
	command(server, "file %s %zu 1", f->name, size);
	path = path_of(ORIGIN, f);
	fd = open(path, O_RDONLY);
	if (!f->data || fd < 0)
		die("%s", path);
	for (size_t off = 0; off < size;) {
		ssize_t n = pread(fd, f->data + off, size - off, off);

		if (n <= 0)
			die("%s", path);
		off += n;
	}
	close(fd);
}

static void open_file(struct file *f, int flags)
{
	const char *path = path_of(MNT, f);

	f->fd = open(path, flags);
	if (f->fd < 0)
		die("%s", path);
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_RANDOM);
}

/* Wait until the cache has looked it up. */
static void wait_for_lookup(const struct file *f)
{
	command(server, "settle %d", f->fd);
}

static void read_from(const struct file *f, off_t off, void *buf, size_t len)
{
	ssize_t n = pread(f->fd, buf, len, off);

	if (n != len)
		die("read of %s at %lld gave %zd", f->name, (long long)off, n);
}

static void check(const struct file *f, off_t off, const void *buf, size_t len)
{
	if (memcmp(buf, f->data + off, len))
		wrong("wrong data", f, off);
}

/* Have what is to be written to the server and into the cache be there. */
static void write_back(const struct file *f)
{
	if (fsync(f->fd))
		die("fsync of %s", f->name);
}

static void forget_pages(const struct file *f)
{
	write_back(f);
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void *new_buffer(size_t len)
{
	void *buf = aligned_alloc(BLOCK, len);

	if (!buf)
		die("aligned_alloc");
	memset(buf, 0, len);
	return buf;
}

/* ---- data ---- */

enum op {
	CACHED,		/* read what is in the cache */
	FILL,		/* read what is not, until it is */
	WRITE,		/* write, until the server and the cache have it */
};

struct range {
	off_t start;
	size_t len, gap;	/* of each, and between them */
	int count;		/* at most */
};

/* All that was done, if it was for the server, and nothing else, has reached the server. */
static void expect(const struct file *f, enum op o, uint64_t reads, uint64_t writes,
		   uint64_t bytes)
{
	if (count_of("read-bytes") - reads != (o == FILL ? bytes : 0))
		wrong("read from another place than expected", f, 0);
	if (count_of("write-bytes") - writes != (o == WRITE ? bytes : 0))
		wrong("written to another place than expected", f, 0);
}

/* Read or write each of the ranges; report that if there is a metric. */
static void do_each(struct file *f, enum op o, struct range r, const char *name,
		    const char *metric)
{
	uint64_t reads = count_of("read-bytes"), writes = count_of("write-bytes"), bytes = 0;
	char *buf = new_buffer(r.len);
	struct samples s = {};

	if (metric)
		profile_on();
	for (off_t off = r.start; off + r.len <= f->size && r.count--; off += r.len + r.gap) {
		uint64_t since;

		if (o == WRITE) {
			for (size_t i = 0; i < r.len; i++)
				f->data[off + i] ^= 0xff;
			memcpy(buf, f->data + off, r.len);
		}
		since = now();
		if (o != WRITE)
			read_from(f, off, buf, r.len);
		else if (pwrite(f->fd, buf, r.len, off) != r.len)
			die("write to %s", f->name);
		if (o != CACHED)
			write_back(f);
		samples_add(&s, now() - since);
		if (o != WRITE)
			check(f, off, buf, r.len);
		bytes += r.len;
	}
	if (metric)
		profile_off();
	expect(f, o, reads, writes, bytes);
	if (metric)
		samples_report(&s, name, metric);
	free(s.v);
	free(buf);
}

/* What is in the cache: once before, as the first read may have more to do. */
static void do_cached(struct file *f, struct range r, const char *name, const char *metric)
{
	forget_pages(f);
	do_each(f, CACHED, r, name, NULL);
	forget_pages(f);
	do_each(f, CACHED, r, name, metric);
}

/* How often the cache is asked for a sample. */
#define ASKED	10

/* What it costs the cache to say where a read comes from. */
static void do_source(struct file *f, struct range r, bool cached, const char *name,
		      const char *metric)
{
	struct samples s = {};

	profile_on();
	for (off_t off = r.start; off + r.len <= f->size && r.count--; off += r.len + r.gap) {
		command(server, "source %d %lld %zu %d", f->fd, (long long)off, r.len, ASKED);
		if (count_of("cached") != cached)
			wrong("another source than expected", f, off);
		samples_add(&s, count_of("source-ns") / ASKED);
	}
	profile_off();
	samples_report(&s, name, metric);
}

static const struct {
	const char *name;
	size_t len;
	int count;
} sizes[] = {
	{ "4k", BLOCK, 1000 }, { "64k", 65536, 100 }, { "1m", 1 << 20, 15 },
};

#define SIZES	3

/* Two blocks are left out between them: one could be taken for sequential reading. */
static struct range range_of(int size)
{
	return (struct range){ 0, sizes[size].len, 2 * BLOCK, sizes[size].count };
}

/* Each begins with a block that is there once the ranges of the first size are. */
static struct range parts_of(int size)
{
	size_t step = BLOCK + 2 * BLOCK, len = sizes[size].len, gap = step - len % step;

	return (struct range){ 0, len, gap, sizes[0].count * step / (len + gap) };
}

static const char *metric_of(const char *what, int size)
{
	static char metric[64];

	snprintf(metric, sizeof(metric), "%s_%s", what, sizes[size].name);
	return metric;
}

static void measure_data(const char *name, bool only_short)
{
	const struct range last = { SIZE - BLOCK, BLOCK, 0, 1 }, all = { 0, 1 << 20, 0, 16 };
	struct file whole, absent, parts[SIZES];
	int count = only_short ? 1 : SIZES;

	make_file(&whole, SIZE, "whole", 0);
	open_file(&whole, O_RDONLY);
	do_each(&whole, FILL, all, name, NULL);
	make_file(&absent, SIZE, "absent", 0);
	open_file(&absent, O_RDONLY);
	do_each(&absent, FILL, last, name, NULL);
	for (int i = 0; i < count; i++) {
		make_file(&parts[i], SIZE, "parts.%d", i);
		open_file(&parts[i], O_RDONLY);
		/* The first makes the cache's file. */
		do_each(&parts[i], FILL, last, name, NULL);
		do_each(&parts[i], FILL, range_of(i), name, metric_of("fill", i));
		close(parts[i].fd);
	}
	close(whole.fd);
	close(absent.fd);
	remount();

	open_file(&whole, O_RDONLY);
	/* In which order tasks run is a larger part of a smaller read. */
	for (int i = only_short; i < (only_short ? 2 : SIZES); i++)
		do_cached(&whole, range_of(i), name, metric_of("cached", i));
	if (only_short)
		goto out;
	open_file(&parts[0], O_RDONLY);
	do_cached(&parts[0], range_of(0), name, "cached_parts_4k");
	open_file(&absent, O_RDONLY);
	for (int i = 0; i < SIZES; i++) {
		do_source(&whole, range_of(i), true, name, metric_of("source_cached", i));
		do_source(&absent, range_of(i), false, name, metric_of("source_absent", i));
		/* Each is cut behind its first block. */
		do_source(&parts[0], parts_of(i), true, name, metric_of("source_parts", i));
	}
	close(parts[0].fd);
	close(absent.fd);
	close(whole.fd);

	open_file(&whole, O_RDWR);
	wait_for_lookup(&whole);
	/* With the first, the cache's file is marked. */
	do_each(&whole, WRITE, last, name, NULL);
	do_each(&whole, WRITE, range_of(0), name, "write_4k");
	do_each(&whole, WRITE, range_of(2), name, "write_1m");
	forget_pages(&whole);
	do_each(&whole, CACHED, all, name, NULL);
out:
	close(whole.fd);
	remount();
}

/* ---- files ---- */

static struct file files[FILES];
/* What it took to open each. */
static uint64_t opened[FILES];

/* The network file system and fscache know of them; the cache does not. */
static void stat_files(void)
{
	struct stat st;

	for (int i = 0; i < FILES; i++)
		if (stat(path_of(MNT, &files[i]), &st))
			die("%s", files[i].name);
}

static void close_files(int count)
{
	for (int i = 0; i < count; i++)
		close(files[i].fd);
}

/* From open() until the cache has looked them up. */
static void open_files(int count, int flags, const char *name, const char *metric)
{
	struct samples s = {};

	if (metric)
		profile_on();
	for (int i = 0; i < count; i++) {
		uint64_t since = now();

		open_file(&files[i], flags);
		wait_for_lookup(&files[i]);
		opened[i] = now() - since;
		samples_add(&s, opened[i]);
	}
	if (metric)
		profile_off();
	if (metric)
		samples_report(&s, name, metric);
	free(s.v);
}

/* The first read or write of each; with what opening took if it is filled. */
static void do_first(int count, enum op o, const char *name, const char *metric)
{
	uint64_t reads = count_of("read-bytes"), writes = count_of("write-bytes");
	char *buf = new_buffer(BLOCK);
	struct samples s = {};

	if (metric)
		profile_on();
	for (int i = 0; i < count; i++) {
		struct file *f = &files[i];
		uint64_t since = now();

		if (o != WRITE)
			read_from(f, 0, buf, BLOCK);
		else if (pwrite(f->fd, f->data, BLOCK, 0) != BLOCK)
			die("write to %s", f->name);
		if (o != CACHED)
			write_back(f);
		samples_add(&s, now() - since + (o == FILL ? opened[i] : 0));
		if (o != WRITE)
			check(f, 0, buf, BLOCK);
	}
	if (metric)
		profile_off();
	expect(&files[0], o, reads, writes, (uint64_t)count * BLOCK);
	if (metric)
		samples_report(&s, name, metric);
	free(s.v);
	free(buf);
}

/* Until the cache has none of them in use any more, each. */
static void withdraw(const char *name, const char *metric)
{
	struct samples s = {};
	uint64_t since;

	close_files(FILES);
	since = now();
	if (metric)
		profile_on();
	umount_client();
	if (metric)
		profile_off();
	samples_add(&s, (now() - since) / FILES);
	if (metric)
		samples_report(&s, name, metric);
	free(s.v);
	mount_client();
}

/* The first files of a volume that is new. */
static void fill_volume(const char *name, const char *metric)
{
	struct samples s = {};
	uint64_t since;

	umount_client();
	volume = "new";
	since = now();
	if (metric)
		profile_on();
	mount_client();
	stat_files();
	open_files(FILES, O_RDONLY, name, NULL);
	do_first(FILES, FILL, name, NULL);
	close_files(FILES);
	umount_client();
	if (metric)
		profile_off();
	samples_add(&s, (now() - since) / FILES);
	if (metric)
		samples_report(&s, name, metric);
	free(s.v);
	mount_client();
}

static void measure_files(const char *name, bool only_short)
{
	const struct rlimit limit = { FILES + 100, FILES + 100 };
	struct samples memory = {};
	uint64_t before;

	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("RLIMIT_NOFILE");
	/* After these the volume has its directories. */
	for (int i = 0; i < FILES; i++)
		make_file(&files[i], BLOCK, "first.%d", i);
	fill_volume(name, only_short ? NULL : "volume_new");

	for (int i = 0; i < FILES; i++)
		make_file(&files[i], BLOCK, "file.%d", i);
	stat_files();
	open_files(FILES, O_RDONLY, name, only_short ? NULL : "lookup_new");
	do_first(FILES, FILL, name, only_short ? NULL : "new_file_4k");
	withdraw(name, only_short ? NULL : "withdraw_new");

	stat_files();
	open_files(FILES, O_RDONLY, name, "lookup_cached");
	if (only_short) {
		close_files(FILES);
		return;
	}
	do_first(FILES, CACHED, name, "cached_first_4k");
	withdraw(name, "withdraw");

	/* Nobody has anything of the files any more. They are freed after a while. */
	drop_all("3");
	sleep(2);
	drop_all("2");
	before = slab_objects();
	stat_files();
	open_files(FILES, O_RDONLY, name, NULL);
	samples_add(&memory, (slab_objects() - before) / FILES);
	samples_report(&memory, name, "memory_cached");
	withdraw(name, NULL);

	stat_files();
	open_files(100, O_RDWR, name, NULL);
	do_first(100, WRITE, name, "write_first_4k");
	close_files(100);
	remount();
}

void measure_classic(const char *name, bool only_short)
{
	char options[64];
	int dev;

	server = open("/dev/" TESTFS, O_RDWR | O_CLOEXEC);
	if (server < 0)
		die("/dev/" TESTFS);
	snprintf(options, sizeof(options), "server=%d,origin", server);
	if (mount("none", ORIGIN, TESTFS, 0, options))
		die("mount of the origin");
	dev = bind_cache();
	mount_client();
	measure_data(name, only_short);
	measure_files(name, only_short);
	umount_client();
	close(dev);
	if (umount(ORIGIN))
		die("umount of the origin");
}
