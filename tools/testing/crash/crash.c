// SPDX-License-Identifier: GPL-2.0
/*
 * The crash test of a cache directory: see crash.h, and scripts/test-crash, which runs it.
 *
 * usage: crash --pack IMAGE >PACKED
 *        crash FS PACKED STATES SEED [SAVE]
 *        crash --replay SAVE [NUMBER]
 *        crash --fsck ONDEMANDCTL SEED
 *
 * IMAGE is that of an empty file system.  STATES are checked, in rounds of a workload each.
 * It ends with the first round of which a state is wrong, which is saved as SAVE; --replay
 * checks its states again, or the one of this number, and tells what that lost.  --fsck runs
 * a workload without a crash, and "ondemandctl fsck" on the caches then.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/fs.h>

#include "crash.h"

#define STEPS		150	/* of a round */
#define ROUND		100	/* states, at most */
#define MAX_FAILED	5	/* states, of a round */

bool verbose;

void die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	va_start(ap, fmt);
	printf("# error: ");
	vprintf(fmt, ap);
	printf("\nBail out! the test cannot go on\n");
	va_end(ap);
	fflush(stdout);
	_exit(1);
}

/* All that is needed to check the states of a round again. */
struct round {
	char magic[8], fs[16];
	uint64_t model_size;		/* of another program if it is another one */
	uint64_t size, seed, number, nr_states;
	struct model model;
	struct log log;
};

#define MAGIC "crash-1"

static void save(struct round *round, const char *path)
{
	FILE *f = fopen(path, "we");

	if (!f)
		die("%s: %m", path);
	strcpy(round->magic, MAGIC);
	round->model_size = sizeof(round->model);
	if (fwrite(round, offsetof(struct round, model), 1, f) != 1)
		die("%s: %m", path);
	model_save(&round->model, f);
	/* The base that there was before the first state. */
	disk_save(f);
	log_save(&round->log, f);
	if (fclose(f))
		die("%s: %m", path);
	sync();
}

static FILE *load_head(struct round *round, const char *path)
{
	FILE *f = fopen(path, "re");

	if (!f || fread(round, offsetof(struct round, model), 1, f) != 1 ||
	    strcmp(round->magic, MAGIC) || round->model_size != sizeof(round->model))
		die("%s has no states that this program has saved", path);
	return f;
}

/* ---- the disk that is logged ---- */

static void clear_disk(void)
{
	int fd = open(LOG_DISK, O_RDWR | O_CLOEXEC);
	uint64_t range[2] = { 0 };

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &range[1]) || ioctl(fd, BLKDISCARD, range))
		die(LOG_DISK ": %m");
	close(fd);
}

/* An image without its zeros: its size, then blocks as disk_save() has them. */
static void pack(const char *image)
{
	FILE *f = fopen(image, "re");
	uint64_t size, at;
	uint8_t buf[BLOCK];

	if (!f || fseeko(f, 0, SEEK_END))
		die("%s: %m", image);
	size = ftello(f);
	rewind(f);
	/* In whole blocks. */
	disk_alloc(size);
	for (at = 0; fread(buf, BLOCK, 1, f) == 1; at += BLOCK)
		disk_base_write(at, buf, BLOCK);
	fclose(f);
	if (at != size || fwrite(&size, sizeof(size), 1, stdout) != 1)
		die("%s: %m", image);
	disk_save(stdout);
}

/* The image becomes what is on the disk that is logged, and on that of the states. */
static void put_image(struct round *round, const char *image)
{
	static uint8_t buf[BLOCK], zeros[BLOCK];
	FILE *f = fopen(image, "re");
	uint64_t at;
	int fd;

	if (!f || fread(&round->size, sizeof(round->size), 1, f) != 1)
		die("%s: %m", image);
	if (!disk_size())
		disk_start(round->size);
	disk_load(f);
	fclose(f);
	clear_disk();
	fd = open(LOG_DISK, O_WRONLY | O_CLOEXEC);
	for (at = 0; at < disk_size(); at += BLOCK) {
		disk_base_read(at, buf, BLOCK);
		if (memcmp(buf, zeros, BLOCK) && pwrite(fd, buf, BLOCK, at) != BLOCK)
			die(LOG_DISK ": %m");
	}
	if (fsync(fd))
		die(LOG_DISK ": %m");
	close(fd);
}

static void run_work(struct setup *s, struct round *round, const char *image)
{
	struct rng r = rng_new(round->seed, 2 * round->number);
	const char *device;
	int err;

	put_image(round, image);
	model_init(&round->model);
	s->daemon = s->daemon ?: daemon_new(&round->model);
	device = log_start(round->size);
	err = setup_mount_fs(s, device);
	if (err)
		die("mounting %s: %s", s->fs, strerror(-err));
	work(s, &round->model, &r, STEPS);
	err = setup_umount_fs(s);
	if (err)
		die("unmounting %s: %s", s->fs, strerror(-err));
	log_stop(&round->log);
}

/* ---- the states ---- */

static void check_round(struct setup *s, struct round *round, long only, struct counts *counts)
{
	struct rng plan = rng_new(round->seed, 2 * round->number + 1);
	size_t nr, i, at = 0;
	struct state *states = states_plan(&round->log, round->nr_states, &plan, &nr);
	int failed = 0;

	check_prepare(s, &round->model);
	for (i = 0; i < nr && failed < MAX_FAILED; i++) {
		struct rng r = rng_new(round->seed ^ round->number << 32, i);
		const char *lost;

		states_advance(&round->log, at, states[i].base);
		at = states[i].base;
		if (only >= 0 && only != i)
			continue;
		lost = states_lose(&round->log, &states[i], &r);
		counts->states++;
		if (!check(s, &round->model, &states[i], &r, counts)) {
			failed++;
			counts->failed++;
			printf("# WRONG: round %d, state %zu: step %d, entry %zu, lost: %s\n",
			       (int)round->number, i, (int)states[i].step, states[i].base, lost);
			fflush(stdout);
		}
		disk_undo();
		if (counts->states % 25 == 0 || only >= 0) {
			printf("# %ld states, %ld wrong\n", counts->states, counts->failed);
			fflush(stdout);
		}
	}
	free(states);
}

static int result(const struct counts *counts, bool is_c)
{
	static const char *const modes[] = { "classic", "on-demand" };
	int mode, bad = counts->failed || !counts->states;

	printf("%s 1 %ld states, in %ld of which something was wrong\n", bad ? "not ok" : "ok",
	       counts->states, counts->failed);
	for (mode = 0; mode < NR_MODES; mode++) {
		long long hit = counts->read[mode] - counts->fetched[mode];
		long percent = counts->read[mode] ? hit * 100 / counts->read[mode] : 0;

		if (mode == ONDEMAND && is_c) {
			printf("ok %d %s # SKIP C does not have it\n", mode + 2, modes[mode]);
			continue;
		}
		/* If nothing is found there is nothing that could be wrong. */
		if (percent < 1)
			bad = 1;
		printf("%s %d %s: %ld %% of the data came from the cache\n",
		       percent < 1 ? "not ok" : "ok", mode + 2, modes[mode], percent);
	}
	printf("1..%d\n", NR_MODES + 1);
	return bad;
}

int main(int argc, char **argv)
{
	static struct round round;
	struct counts counts = {};
	struct setup s;

	setvbuf(stdout, NULL, _IOLBF, 0);
	verbose = getenv("CRASH_VERBOSE");
	if (argc >= 3 && !strcmp(argv[1], "--replay")) {
		FILE *f = load_head(&round, argv[2]);

		verbose = argc > 3;
		setup_init(&s, round.fs);
		disk_start(round.size);
		model_load(&round.model, f);
		disk_load(f);
		log_load(&round.log, f);
		s.daemon = daemon_new(&round.model);
		check_round(&s, &round, argc > 3 ? atol(argv[3]) : -1, &counts);
		printf("%s 1 %ld states, in %ld of which something was wrong\n1..1\n",
		       counts.failed ? "not ok" : "ok", counts.states, counts.failed);
		return counts.failed ? 1 : 0;
	}
	if (argc == 4 && !strcmp(argv[1], "--fsck")) {
		struct rng r = rng_new(strtoull(argv[3], NULL, 0), 0);

		setup_init(&s, "ext4");
		model_init(&round.model);
		s.daemon = daemon_new(&round.model);
		if (setup_mount_fs(&s, NULL))
			die("making the caches: %m");
		work(&s, &round.model, &r, STEPS);
		work_parts(&s, &round.model, &r);
		return fsck_test(&s, &round.model, &r, argv[2]);
	}
	if (argc == 3 && !strcmp(argv[1], "--pack")) {
		pack(argv[2]);
		return 0;
	}
	if (argc < 5)
		die("usage: crash FS PACKED STATES SEED [SAVE]");
	if (cf_run("modprobe", "brd", "rd_nr=2", "rd_size=1048576", NULL) ||
	    cf_run("modprobe", "dm-log-writes", NULL))
		die("modprobe failed");
	setup_init(&s, argv[1]);
	snprintf(round.fs, sizeof(round.fs), "%s", argv[1]);
	round.seed = strtoull(argv[4], NULL, 0);
	/* One round with wrong states is enough. */
	while (counts.states < atol(argv[3]) && !counts.failed) {
		long left = atol(argv[3]) - counts.states, before = counts.states;

		round.nr_states = left < ROUND ? left : ROUND;
		run_work(&s, &round, argv[2]);
		printf("# round %llu: %zu entries of %zu KiB in the log\n",
		       (unsigned long long)round.number, round.log.nr, round.log.raw_len / 1024);
		/* The base goes on with the states, so it is saved before them. */
		if (argc > 5)
			save(&round, argv[5]);
		check_round(&s, &round, -1, &counts);
		model_free(&round.model);
		log_free(&round.log);
		if (counts.states == before)
			die("a round without a state");
		round.number++;
	}
	/* For the next file system. */
	disk_stop();
	if (argc > 5 && !counts.failed) {
		unlink(argv[5]);
		sync();
	}
	return result(&counts, s.is_c);
}
