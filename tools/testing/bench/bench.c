// SPDX-License-Identifier: GPL-2.0
/*
 * Measure what it costs to read an EROFS image through one arm, of which each read is
 * checked. See scripts/bench.
 *
 *	bench [--short|--readers|--root] KIND ARM IMAGE
 *	bench [--short] --classic ARM
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define MNT	"/mnt"
/* The file in the image that is read; it has no two blocks alike. */
#define DATA	MNT "/data"

void die(const char *fmt, ...)
{
	int err = errno;
	va_list args;

	fprintf(stderr, "bench: ");
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(err));
	exit(1);
}

uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Since the last report. */
static bool profiled;

__attribute__((noinline, noclone)) void profile_on(void)
{
	profiled = true;
	asm volatile("");
}

__attribute__((noinline, noclone)) void profile_off(void)
{
	asm volatile("");
}

void samples_add(struct samples *s, uint64_t value)
{
	if (s->n == s->max) {
		s->max = s->max ? 2 * s->max : 1024;
		s->v = realloc(s->v, s->max * sizeof(*s->v));
		if (!s->v)
			die("samples");
	}
	s->v[s->n++] = value;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t samples_percentile(struct samples *s, double percent)
{
	qsort(s->v, s->n, sizeof(*s->v), compare);
	return s->v[(size_t)(s->n * percent / 100)];
}

void samples_report(struct samples *s, const char *arm, const char *metric)
{
	static const int percents[] = { 50, 90, 99 };
	double sum = 0;

	if (!s->n)
		return;
	for (size_t i = 0; i < s->n; i++)
		sum += s->v[i];
	printf("{\"arm\":\"%s\",\"metric\":\"%s\",\"n\":%zu,\"mean\":%.0f", arm, metric, s->n,
	       sum / s->n);
	for (int i = 0; i < 3; i++)
		printf(",\"p%d\":%llu", percents[i],
		       (unsigned long long)samples_percentile(s, percents[i]));
	/* So that scripts/bench --profile finds which section this is. */
	printf("%s}\n", profiled && getenv("PROFILE") ? ",\"profiled\":true" : "");
	profiled = false;
	fflush(stdout);
	free(s->v);
	*s = (struct samples){};
}

void image_load(struct image *image, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die("%s", path);
	image->size = st.st_size;
	image->data = mmap(NULL, image->size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	if (image->data == MAP_FAILED)
		die("mmap of %s", path);
	close(fd);
}

/* The bytes of pages of all slab caches, or those of objects that are in use. */
static uint64_t slab_sum(bool of_objects)
{
	FILE *info = fopen("/proc/slabinfo", "r");
	uint64_t sum = 0, objects, size, per_slab, slabs;
	char line[512];

	if (!info)
		die("/proc/slabinfo");
	while (fgets(line, sizeof(line), info))
		if (sscanf(line, "%*s %lu %*u %lu %*u %lu : %*[^:] : %*s %*u %lu", &objects, &size,
			   &per_slab, &slabs) == 4)
			sum += of_objects ? objects * size : per_slab * slabs * 4096;
	fclose(info);
	return sum;
}

uint64_t slab_memory(void)
{
	return slab_sum(false);
}

uint64_t slab_objects(void)
{
	return slab_sum(true);
}

/* How many cookies fscache has. */
static int cookies(void)
{
	FILE *stats = fopen("/proc/fs/fscache/stats", "r");
	char line[256];
	int n = -1;

	while (stats && n < 0 && fgets(line, sizeof(line), stats))
		sscanf(line, "Cookies: n=%d", &n);
	if (n < 0)
		die("/proc/fs/fscache/stats");
	fclose(stats);
	return n;
}

static void set_policy(int policy)
{
	const struct sched_param none = {};

	if (sched_setscheduler(0, policy, &none))
		die("sched_setscheduler");
}

/* Whoever withdraws objects goes before this, which only looks. */
void umount_idle(const char *dir)
{
	set_policy(SCHED_IDLE);
	if (umount(dir))
		die("umount of %s", dir);
	while (cookies())
		;
	set_policy(SCHED_OTHER);
}

void drop_all(const char *what)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	sync();
	if (fd < 0 || write(fd, what, 1) != 1)
		die("dropping caches");
	close(fd);
}

/* ---- the data ---- */
static uint64_t word_at(uint64_t off)
{
	return (off + 1) * 0x9e3779b97f4a7c15ULL | 1;
}

static void fill(void *buf, uint64_t off, size_t len)
{
	uint64_t *words = buf;

	for (size_t i = 0; i < len / 8; i++)
		words[i] = word_at(off + 8 * i);
}

static void check(const void *buf, uint64_t off, size_t len)
{
	const uint64_t *words = buf;

	for (size_t i = 0; i < len / 8; i++) {
		if (words[i] != word_at(off + 8 * i)) {
			fprintf(stderr, "bench: wrong data at %llu\n",
				(unsigned long long)(off + 8 * i));
			exit(1);
		}
	}
}

static int generate(size_t size)
{
	static char block[1 << 20];

	for (size_t off = 0; off < size; off += sizeof(block)) {
		fill(block, off, sizeof(block));
		if (fwrite(block, sizeof(block), 1, stdout) != 1)
			die("write");
	}
	return 0;
}

static bool holds(const struct image *image, size_t at, uint64_t off)
{
	uint64_t word = word_at(off);

	return at < image->size && !memcmp(image->data + at, &word, sizeof(word));
}

const uint8_t *image_content(const struct image *image, size_t *size)
{
	size_t start = 0;

	while (start < image->size && !holds(image, start, 0))
		start += BLOCK;
	for (*size = 0; holds(image, start + *size, *size);)
		*size += BLOCK;
	return image->data + start;
}

/* ---- the reader ---- */
struct reader {
	const struct arm *arm;
	const char *name;	/* of the arm, in the results */
	const struct image *image;
	int fd;
	off_t size;
	int round;
};

static void mount_image(const struct reader *r, const char *path)
{
	if (!r->arm->plain && mount(path, MNT, "erofs", MS_RDONLY, r->arm->mount_options))
		die("mount of %s", path);
}

static void umount_image(const struct reader *r)
{
	if (!r->arm->plain && umount(MNT))
		die("umount");
	r->arm->stop();
}

static void open_image(struct reader *r)
{
	char path[PATH_MAX];
	struct stat st;

	r->arm->start(r->arm, r->image, r->round++, path);
	mount_image(r, path);
	r->fd = open(r->arm->plain ? path : DATA, O_RDONLY);
	if (r->fd < 0 || fstat(r->fd, &st))
		die("the file to read");
	r->size = st.st_size;
	posix_fadvise(r->fd, 0, 0, POSIX_FADV_RANDOM);
}

static void close_image(struct reader *r)
{
	close(r->fd);
	umount_image(r);
}

/*
 * Time reads of @len bytes, @count of them at most. Two blocks are left out between them:
 * one would be readahead's idea of sequential below EROFS.
 */
static void read_each(struct reader *r, struct samples *s, size_t len, int count)
{
	char *buf = aligned_alloc(BLOCK, len);

	memset(buf, 0, len);
	if (s)
		profile_on();
	for (off_t off = 0; off + len <= r->size && count--; off += len + 2 * BLOCK) {
		uint64_t since = now();
		ssize_t n = pread(r->fd, buf, len, off);

		if (s)
			samples_add(s, now() - since);
		if (n != len)
			die("read at %lld gave %zd", (long long)off, n);
		check(buf, off, len);
	}
	if (s)
		profile_off();
	free(buf);
}

/* Have the reader's pages gone, and nothing else. */
static void forget_pages(struct reader *r)
{
	posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
}

#define READS	1000

static void measure(struct reader *r, const char *what, const char *size, size_t len, int count)
{
	struct samples s = {};
	char metric[64];

	read_each(r, &s, len, count);
	snprintf(metric, sizeof(metric), "%s_%s", what, size);
	samples_report(&s, r->name, metric);
}

static void measure_reads(struct reader *r, const char *size, size_t len, int count)
{
	open_image(r);
	if (r->arm->local)
		read_each(r, NULL, len, count);
	else
		measure(r, "miss", size, len, count);
	if (r->arm->complete)
		r->arm->complete();
	forget_pages(r);
	if (!r->arm->local)
		measure(r, "hit_just_written", size, len, count);

	sync();
	forget_pages(r);
	/* The first of them after that may have more to do. */
	read_each(r, NULL, len, count);
	forget_pages(r);
	measure(r, "hit_in_memory", size, len, count);

	drop_all("1");
	measure(r, "hit_on_disk", size, len, count);
	measure(r, "page_cache", size, len, count);
	close_image(r);
}

/* What a fault of a page costs, of each third. */
static void fault_each(struct reader *r, struct samples *s, int count)
{
	char *map = mmap(NULL, r->size, PROT_READ, MAP_SHARED, r->fd, 0);
	char sum = 0;

	if (map == MAP_FAILED || madvise(map, r->size, MADV_RANDOM))
		die("mmap of the file to read");
	profile_on();
	for (off_t off = 0; off + BLOCK <= r->size && count--; off += 3 * BLOCK) {
		uint64_t since = now();

		sum += map[off];
		/* The page is there before the clock is looked at again. */
		asm volatile("" : : "r"(sum) : "memory");
		samples_add(s, now() - since);
		check(map + off, off, BLOCK);
	}
	profile_off();
	munmap(map, r->size);
}

static void measure_faults(struct reader *r)
{
	struct samples s = {};

	open_image(r);
	if (!r->arm->local) {
		fault_each(r, &s, READS);
		samples_report(&s, r->name, "miss_fault");
	}
	if (r->arm->complete)
		r->arm->complete();
	sync();
	forget_pages(r);
	read_each(r, NULL, BLOCK, READS);
	forget_pages(r);
	fault_each(r, &s, READS);
	samples_report(&s, r->name, "hit_fault");
	close_image(r);
}

/* Of the blocks that read_each() reads: in all, and how many readers there are. */
#define SHARED_READS	960
#define MAX_READERS	16

struct share {
	pthread_barrier_t *start;
	int fd, first, step;
};

static void *read_share(void *arg)
{
	const struct share *share = arg;
	char *buf = aligned_alloc(BLOCK, BLOCK);

	pthread_barrier_wait(share->start);
	for (int i = share->first; i < SHARED_READS; i += share->step) {
		off_t off = 3LL * BLOCK * i;

		if (pread(share->fd, buf, BLOCK, off) != BLOCK)
			die("read at %lld", (long long)off);
		check(buf, off, BLOCK);
	}
	free(buf);
	return NULL;
}

/* What a read costs, or takes, of those of @n readers at once. */
static uint64_t read_shared(struct reader *r, int n)
{
	struct share shares[MAX_READERS];
	pthread_t threads[MAX_READERS];
	pthread_barrier_t start;
	uint64_t since;

	pthread_barrier_init(&start, NULL, n + 1);
	for (int i = 0; i < n; i++) {
		shares[i] = (struct share){ &start, r->fd, i, n };
		if (pthread_create(&threads[i], NULL, read_share, &shares[i]))
			die("pthread_create");
	}
	since = now();
	pthread_barrier_wait(&start);
	for (int i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	return (now() - since) / SHARED_READS;
}

static void measure_readers(struct reader *r, int n)
{
	struct samples miss = {}, hit = {};
	char metric[64];

	for (int i = 0; i < 3; i++) {
		open_image(r);
		samples_add(&miss, read_shared(r, n));
		if (r->arm->complete)
			r->arm->complete();
		sync();
		forget_pages(r);
		read_shared(r, n);
		forget_pages(r);
		samples_add(&hit, read_shared(r, n));
		close_image(r);
	}
	snprintf(metric, sizeof(metric), "miss_4k_%d_readers", n);
	if (!r->arm->local)
		samples_report(&miss, r->name, metric);
	snprintf(metric, sizeof(metric), "hit_4k_%d_readers", n);
	samples_report(&hit, r->name, metric);
}

/* All of the file, from a daemon that is far away. */
static void measure_sequential(struct reader *r)
{
	struct samples s = {};
	size_t len = 131072;
	char *buf = aligned_alloc(BLOCK, len);

	link_set_delay(10000);
	for (int i = 0; i < 3; i++) {
		uint64_t since;

		open_image(r);
		posix_fadvise(r->fd, 0, 0, POSIX_FADV_NORMAL);
		since = now();
		for (off_t off = 0; off < r->size; off += len) {
			if (read(r->fd, buf, len) != len)
				die("read at %lld", (long long)off);
			check(buf, off, len);
		}
		samples_add(&s, now() - since);
		close_image(r);
	}
	samples_report(&s, r->name, "sequential_16m_10ms");
	link_set_delay(0);
	free(buf);
}

/* The first program of a root file system: it imports modules, from some forty files. */
static void run_program(void)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		die("fork");
	if (!pid) {
		if (chroot(MNT) || chdir("/"))
			die("chroot");
		execl("/usr/bin/python3", "python3", "-c",
		      "import json, hashlib, re; assert json.loads('[1]') == [1]", NULL);
		die("python3");
	}
	if (waitpid(pid, &status, 0) != pid || status)
		exit(1);
}

/* From mount() on, until the program has ended. */
static void measure_program(struct reader *r, unsigned int delay, const char *metric)
{
	struct samples s = {};

	link_set_delay(delay);
	for (int i = 0; i < 3; i++) {
		char path[PATH_MAX];
		uint64_t since;

		drop_all("3");
		/* The daemon is not what is measured. */
		r->arm->start(r->arm, r->image, r->round++, path);
		since = now();
		mount_image(r, path);
		run_program();
		samples_add(&s, now() - since);
		umount_image(r);
	}
	samples_report(&s, r->name, metric);
	link_set_delay(0);
}

static void measure_root(struct reader *r)
{
	if (r->arm->plain)
		return;
	if (!r->arm->far_only)
		measure_program(r, 0, "python");
	if (r->arm->far)
		measure_program(r, 20000, "python_20ms");
}

/* With a daemon of many threads, of which one is to be woken. */
static void measure_threads(struct reader *r)
{
	open_image(r);
	r->arm->multiply();
	read_each(r, NULL, BLOCK, 1);
	sleep(1);
	measure(r, "miss_4k", "16_threads", BLOCK, 300);
	close_image(r);
}

static const struct arm *const arms[] = {
	&arm_file, &arm_file_direct, &arm_cachefiles, &arm_cachefiles_wait, &arm_cachefiles_granule,
	&arm_fanotify, &arm_fanotify_unmark,
	&arm_erofs_on_fuse, &arm_fuse_direct,
	&arm_erofs_on_fuse_stored, &arm_fuse_direct_stored,
	&arm_nbd, &arm_nbd_stored, &arm_ublk, &arm_ublk_stored,
};

static void measure_all(struct reader *r, bool only_short)
{
	const struct arm *arm = r->arm;

	if (!arm->far_only) {
		measure_reads(r, "4k", BLOCK, READS);
		measure_reads(r, "64k", 65536, 100);
	}
	if (!arm->far_only && !only_short) {
		measure_reads(r, "1m", 1 << 20, 15);
		measure_faults(r);
		measure_readers(r, 4);
		measure_readers(r, 16);
	}
	if (arm->far)
		measure_sequential(r);
	if (arm->multiply)
		measure_threads(r);
	if (arm->measure) {
		char path[PATH_MAX];

		arm->start(arm, r->image, r->round, path);
		arm->measure(r->name);
		arm->stop();
	}
}

int main(int argc, char **argv)
{
	const char *mode = argc == 5 ? argv[1] : "";
	const struct arm *arm = NULL;
	struct reader r = {};
	struct image image;

	if (argc == 3 && !strcmp(argv[1], "--generate"))
		return generate(strtoull(argv[2], NULL, 0));
	if ((argc == 3 || (argc == 4 && !strcmp(argv[1], "--short"))) &&
	    !strcmp(argv[argc - 2], "--classic")) {
		measure_classic(argv[argc - 1], argc == 4);
		return 0;
	}
	if (argc != 4 && strcmp(mode, "--short") && strcmp(mode, "--readers") &&
	    strcmp(mode, "--root")) {
		fprintf(stderr, "usage: bench [--short|--readers|--root] KIND ARM IMAGE\n"
			"       bench [--short] --classic ARM\n");
		return 2;
	}
	argv += argc - 4;
	for (size_t i = 0; i < sizeof(arms) / sizeof(*arms); i++)
		if (!strcmp(arms[i]->name, argv[1]))
			arm = arms[i];
	if (!arm) {
		fprintf(stderr, "bench: there is no arm %s\n", argv[1]);
		return 2;
	}
	image_load(&image, argv[3]);
	r.name = argv[2];
	r.arm = arm;
	r.image = &image;
	if (!strcmp(mode, "--readers"))
		measure_readers(&r, 4);
	else if (!strcmp(mode, "--root"))
		measure_root(&r);
	else
		measure_all(&r, *mode);
	return 0;
}
