// SPDX-License-Identifier: GPL-2.0
/*
 * Read every other block of a blob through ondemandfs, and compare it with the original. See
 * scripts/test-keep.
 *
 * usage: reader make FILE BLOCKS
 *        reader fetch LAZY ORIGINAL SEED COMMITTED MAX LISTS PACE
 *        reader check LAZY ORIGINAL [COMMITTED]
 *
 * "fetch" reads, in a random order, blocks that are not in the file COMMITTED, one every PACE ms
 * and after MAX of them one a second, until it is killed. It prints "read BLOCK" for each. It looks
 * at LISTS, the directory of list files of the cache, and prints "committed N" once the first N are
 * on the disk, whatever happens. "check" reads the blocks in COMMITTED, or all.
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK	4096

static int lazy, original;

/* Different for each offset. */
static void make_file(const char *file, long blocks)
{
	uint64_t words[BLOCK / 8];
	FILE *f = fopen(file, "w");
	long block;
	int i;

	for (block = 0; f && block < blocks; block++) {
		for (i = 0; i < BLOCK / 8; i++)
			words[i] = (block * BLOCK + i * 8) * 0x9e3779b97f4a7c15ULL;
		if (fwrite(words, BLOCK, 1, f) != 1)
			break;
	}
	if (!f || fclose(f) || block < blocks)
		err(1, "cannot write %s", file);
}

static int open_file(const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	/* No readahead: it would fetch what is not asked for. */
	if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM))
		err(1, "%s", name);
	return fd;
}

static void read_block(long block)
{
	static char got[BLOCK], expected[BLOCK];
	off_t off = (off_t)block * BLOCK;

	if (pread(lazy, got, BLOCK, off) != BLOCK)
		err(1, "cannot read block %ld", block);
	if (pread(original, expected, BLOCK, off) != BLOCK)
		err(1, "cannot read block %ld of the original", block);
	if (memcmp(got, expected, BLOCK))
		errx(1, "wrong bytes in block %ld", block);
}

/* The blocks of the blob: every other one is read. */
static long blocks_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		err(1, "the blob");
	return st.st_size / BLOCK;
}

/* Calls f for each block in a file. */
static void for_each(const char *file, void (*f)(long block))
{
	FILE *list = fopen(file, "r");
	long block;

	if (!list)
		err(1, "%s", file);
	while (fscanf(list, "%ld", &block) == 1)
		f(block);
	fclose(list);
}

static char *is_done;
static long checked;

static void mark_done(long block)
{
	is_done[block] = 1;
}

static void check_block(long block)
{
	read_block(block);
	checked++;
}

/* Something that changes with the list files. */
static uint64_t state_of(const char *dir)
{
	uint64_t state = 0;
	struct dirent *entry;
	DIR *lists = opendir(dir);
	struct stat st;

	if (!lists)
		err(1, "%s", dir);
	while ((entry = readdir(lists)))
		if (!fstatat(dirfd(lists), entry->d_name, &st, 0) && S_ISREG(st.st_mode))
			state += st.st_ino * 1000003 + st.st_size;
	closedir(lists);
	return state;
}

/*
 * A list file has changed between two calls: a commit has ended in between. The next commit begins
 * after that. So when the next one has ended, what was read before the first of the two calls is on
 * the disk.
 */
static void look(const char *lists, long reads)
{
	static long at_last_call, covered;
	static uint64_t state;
	uint64_t now = state_of(lists);

	if (now != state) {
		if (covered) {
			sync();
			printf("committed %ld\n", covered);
			fflush(stdout);
		}
		covered = at_last_call;
		state = now;
	}
	at_last_call = reads;
}

static void fetch(unsigned int seed, long max, const char *lists, long pace)
{
	long blocks = blocks_of(original), count = 0, reads, i, j, swap;
	long *left = calloc(blocks, sizeof(*left));

	if (!left)
		err(1, "no memory");
	for (i = 0; i < blocks; i += 2)
		if (!is_done[i])
			left[count++] = i;
	srandom(seed);
	for (i = 0; i + 1 < count; i++) {
		j = i + random() % (count - i);
		swap = left[i];
		left[i] = left[j];
		left[j] = swap;
	}
	for (reads = 0; reads < count; reads++) {
		look(lists, reads);
		read_block(left[reads]);
		printf("read %ld\n", left[reads]);
		fflush(stdout);
		usleep((reads < max ? pace : 1000) * 1000);
	}
	errx(1, "there is nothing left to read");
}

int main(int argc, char **argv)
{
	long block, blocks;

	if (argc == 4 && !strcmp(argv[1], "make")) {
		make_file(argv[2], atol(argv[3]));
		return 0;
	}
	if (argc < 4)
		errx(2, "see its source");
	lazy = open_file(argv[2]);
	original = open_file(argv[3]);
	blocks = blocks_of(original);
	if (!strcmp(argv[1], "check")) {
		if (argc > 4)
			for_each(argv[4], check_block);
		else
			for (block = 0; block < blocks; block += 2)
				check_block(block);
		printf("checked %ld\n", checked);
		return 0;
	}
	if (strcmp(argv[1], "fetch") || argc != 9)
		errx(2, "see its source");
	is_done = calloc(blocks, 1);
	if (!is_done)
		err(1, "no memory");
	for_each(argv[5], mark_done);
	fetch(atoi(argv[4]), atol(argv[6]), argv[7], atol(argv[8]));
	return 0;
}
