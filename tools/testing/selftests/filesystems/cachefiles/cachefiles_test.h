/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Helpers for the /dev/cachefiles selftests: the device, a daemon that can be
 * scripted, and readers that can be waited for with a time limit.
 */
#ifndef CACHEFILES_TEST_H
#define CACHEFILES_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CF_DEVICE	"/dev/cachefiles"
#define CF_ROOT		"/var/cache/fscache"	/* an ext4 of its own */
#define CF_BLOCK	4096			/* what READ ranges are aligned to */
/*
 * The length of the READ for one byte, without readahead, if the page is not present: a page of
 * this kernel, or the blocks of it that the file has.  Tests that want one READ for each read()
 * read different pages, whose offsets are multiples of this.  Never less than a block.
 */
#define CF_PAGE		cf_page_size()
int cf_page_size(void);

/* ---- which implementation is tested, and where they are meant to differ ---- */
/* Is CACHEFILES_IMPLEMENTATION=c in the environment?  Otherwise the one in Rust is tested. */
bool cf_is_c(void);
/*
 * What to expect of the implementation under test where the two differ on
 * purpose: the line @id of intended-differences.txt, which has to be there.  A
 * number; a negative error number for "-EIO", a positive one for "EIO";
 * -ETIMEDOUT for "hang", as cf_wait() returns it; 1 and 0 for "yes" and "no".
 */
long cf_intended(const char *id);
#define CF_CRASH	-9999L	/* for "crash": the call does not return */

/*
 * The limit in ms for operations that only wait for the scheduler.  Like all limits
 * here of a second or more, it is measured by struct cf_clock.
 */
#define CF_SOON		10000
/* How long to watch for something that must not happen, in ms. */
#define CF_NEVER	200

/*
 * The protocol, written out again on purpose: a slip in the uapi header must
 * not be able to hide in a test that includes it.
 */
enum {
	CF_OPEN = 0,
	CF_CLOSE = 1,
	CF_READ = 2,
};

#define CF_IOC_READ_COMPLETE	0x40049801UL
#define CF_IOC_FILL		0x40209802UL
#define CF_ERR_BADFD		77
#define CF_MSG_MAX		1024

struct cf_wire {
	uint32_t msg_id, opcode, len, object_id;
	union {
		struct {
			uint32_t volume_key_size, cookie_key_size, fd, flags;
			uint8_t data[];
		} open;
		struct {
			uint64_t off, len;
		} read;
	};
};

struct cf_msg {
	union {
		struct cf_wire w;
		uint8_t raw[CF_MSG_MAX + 1];
	};
	ssize_t size;	/* what read() returned */
};

/* The cookie key of an OPEN, as a C string. */
const char *cf_msg_name(const struct cf_msg *m, char buf[256]);

/* The path of a file that is beside the program; the test may be anywhere.  Returns @path. */
const char *cf_beside(const char *name, char path[PATH_MAX]);

/* ---- time ---- */
long cf_now_ms(void);
void cf_sleep_ms(long ms);
/*
 * A clock for time limits.  A slow machine, or one that gets no CPU from its host,
 * must not look like one that hangs, so the clock counts the time for which every
 * CPU was idle, and a tenth of the rest.  CACHEFILES_RS_PATIENCE in the environment,
 * a whole number, makes the clock that many times slower.
 */
struct cf_clock {
	long start;		/* by cf_now_ms() */
	long base;		/* the time of @idle, 0 if there is none yet */
	int cpus;
	long idle[64];		/* of each CPU, in ms */
};

void cf_clock_start(struct cf_clock *c);
long cf_spent(struct cf_clock *c);		/* in ms */
/* How much of the limit of @ms is left, in ms: 0 if it is over. */
long cf_left(struct cf_clock *c, long ms);
/* CACHEFILES_RS_PATIENCE */
long cf_patience(void);
/* Evaluate @cond until it holds or the limit of @ms is over. */
#define CF_WAIT_FOR(cond, ms) ({				\
	struct cf_clock __clock;				\
	bool __ok;						\
	cf_clock_start(&__clock);				\
	while (!(__ok = (cond)) && cf_left(&__clock, ms))	\
		cf_sleep_ms(5);					\
	__ok; })

struct pollfd;
struct epoll_event;
/* poll() of one fd and epoll_wait() for one event with such a limit. */
int cf_poll(struct pollfd *p, long ms);
int cf_epoll(int epoll, struct epoll_event *event, long ms);

/*
 * The harness has a time limit for each test, by wall time.  It ends a test that waits
 * without a limit of its own, so it is made longer here.  This constructor runs after
 * those of the harness, which have a priority.
 */
#ifdef TEST_HARNESS_MAIN
static void __attribute__((constructor)) cf_scale_limits(void)
{
	struct __fixture_metadata *f;
	struct __test_metadata *t;

	for (f = __fixture_list; f; f = f->next)
		for (t = f->tests; t; t = t->next)
			t->timeout *= 4 * cf_patience();
}
#endif

/* ---- the device ---- */
int cf_device_open(void);			/* fd or -errno */
int cf_cmd(int dev, const char *fmt, ...);	/* 0 or -errno */
int cf_cmd_raw(int dev, const void *buf, size_t len);
bool cf_readable(int dev, long timeout_ms);	/* poll() reports POLLIN */
/*
 * Take one message: 0, -ETIMEDOUT, or what read() failed with.  A message that
 * is malformed (bad length, object id 0xffffffff, ...) is -EPROTO.
 */
int cf_recv(int dev, struct cf_msg *m, int timeout_ms);
/* cf_recv() that also insists on the opcode (-EPROTO otherwise). */
int cf_expect(int dev, uint32_t opcode, struct cf_msg *m);
int cf_copen(int dev, uint32_t msg_id, long long size);
int cf_complete(int anon_fd, uint32_t msg_id);	/* 0 or -errno */
/* As in the header of the protocol, written out again on purpose. */
struct cf_fill_args {
	uint64_t off, len, addr;
	uint32_t msg_id, flags;
};

/* CACHEFILES_IOC_FILL: bytes or -errno. */
long cf_ioc_fill(int anon_fd, const struct cf_fill_args *args);

ssize_t cf_pwrite(int fd, const void *buf, size_t len, off_t off);	/* or -errno */

int cf_lowest_free_fd(void);	/* what the next open() returns */

void *cf_nowhere(void);				/* a buffer that faults */

/* ---- data: one stream per name, without a single zero byte ---- */
void cf_pattern(const char *name, uint64_t off, void *buf, size_t len);
/* Offset of the first wrong byte, or -1 if all are right. */
ssize_t cf_check(const char *name, uint64_t off, const void *buf, size_t len);
/* Write [off, off+len) through the anon fd, padded with zeros after @size. */
int cf_fill(int anon_fd, const char *name, uint64_t off, size_t len, uint64_t size);

/* ---- an operation in a thread of its own ---- */
struct cf_op {
	pthread_t thread;
	long (*fn)(struct cf_op *op);
	char path[512];
	int fd, flags;
	off_t off;
	size_t len;
	char *buf;
	long ret;		/* >= 0, or -errno */
	bool joined;
};

struct cf_op *cf_start(long (*fn)(struct cf_op *op), const char *path, int fd, off_t off,
		       size_t len);
struct cf_op *cf_start_open(const char *dir, const char *name);	/* result: an fd */
struct cf_op *cf_start_pread(int fd, off_t off, size_t len);
struct cf_op *cf_start_readahead(int fd, off_t off, size_t len);
/* Its result, or -ETIMEDOUT.  May be called again after a timeout. */
long cf_wait(struct cf_op *op, int timeout_ms);
void cf_op_free(struct cf_op *op);
/* wait with CF_SOON, free, return the result */
long cf_finish(struct cf_op *op);

/* ---- a child process, killed when the test dies ---- */
pid_t cf_fork(void);
/* Exit status, 128+signal, or -ETIMEDOUT. */
int cf_reap(pid_t pid, int timeout_ms);
int cf_run(const char *prog, ...);	/* run a program to its end: as cf_reap() */
int cf_modprobe(const char *module);
/*
 * Load fscache_user.ko, which is beside this program, with these parameters: -EALREADY
 * if all cookies are cached.  Loading always fails, so the module does not stay.
 */
#define CF_NO_FSCACHE_USER	"there is no fscache_user.ko beside this program: KDIR= builds it"
bool cf_has_fscache_user(void);
struct cf_op *cf_start_fscache_user(const char *params);
pid_t cf_fork_fscache_user(const char *params);	/* in a process, which can be killed */
bool cf_is_module(const char *module);	/* loaded, and not built in */
int cf_rmmod(const char *module);	/* delete_module(O_NONBLOCK): 0 or -errno */

/* ---- the environment of a test ---- */
struct cf_env {
	char base[64];		/* CF_ROOT/t.<pid>, removed at the end */
	char dir[80];		/* cache directory */
	char mnt[80];		/* ondemandfs */
	char erofs[80];		/* second mount point */
	char tag[32], domain[32];
	int dev;
	bool mounted;
	const char *why;	/* which step of the set-up failed */
};

/*
 * Leave all but @percent of the file system's blocks free, by writing a file of that
 * name: 0 or -errno.  Other used blocks, such as the journal, count in @percent.
 */
int cf_take_space(struct cf_env *e, const char *name, int percent);
int cf_give_space(struct cf_env *e, const char *name);	/* and wait until it is free */

/*
 * Have the cache in a file system of its own, on an image beside the program: 0 or -errno; -ENOENT
 * if there is no such image, or no such file system.
 */
int cf_mount_image(struct cf_env *e, const char *type, const char *image);
void cf_drop_caches(void);

/* Freeze the file system of the cache, or thaw it: 0 or -errno. */
int cf_freeze(struct cf_env *e);
int cf_thaw(struct cf_env *e);

/* For a fixture or test that has its cf_env in self->e. */
#define ASSERT_SETUP(expr) do {						\
	int __err = (expr);						\
									\
	ASSERT_EQ(0, __err) {						\
		TH_LOG("set-up failed: %s", self->e.why);		\
	}								\
} while (0)

int cf_env_init(struct cf_env *e);	/* directories and a private mount namespace */
int cf_env_bind(struct cf_env *e);	/* device open and bound: 0 or -errno */
int cf_env_bind_with(struct cf_env *e, const char *options);	/* which begin with a blank */
int cf_env_mount(struct cf_env *e);	/* ondemandfs mounted */
int cf_env_umount(struct cf_env *e);
/*
 * The same in a thread, for CF_SOON at most (-ETIMEDOUT then): with the C code
 * both may hang for ever.
 */
long cf_env_mount_soon(struct cf_env *e);
long cf_env_umount_soon(struct cf_env *e);
struct cf_op *cf_start_umount(const char *dir, int flags);
void cf_env_close(struct cf_env *e);	/* the device */
int cf_env_all(struct cf_env *e);	/* init, bind, mount */
int cf_env_all_with(struct cf_env *e, const char *options);
void cf_env_end(struct cf_env *e);	/* undo whatever was done */
int cf_mount_at(const char *dir, const char *domain, const char *tag);
/*
 * Where the cache file of a key is once it is committed, and whether it is there.
 * @cooked is its encoded name, NULL for 'D' and the key.
 */
bool cf_find_cache_file(const struct cf_env *e, const char *key, const char *cooked,
			char path[PATH_MAX]);

/* Also known as /proc/fs/fscache/stats; CONFIG_FSCACHE_STATS. */
#define CF_STATS	"/proc/fs/netfs/stats"
/* A number of CF_STATS, after @name in the line of @group; -1 if there is none. */
long cf_stats(const char *group, const char *name);

/* An open file of ondemandfs whose messages the test answers itself. */
struct cf_blob {
	char name[256];
	int fd;			/* the file in ondemandfs */
	int anon;		/* the daemon's side */
	uint32_t object_id, msg_id;
	uint64_t size;
};

int cf_blob_open(struct cf_env *e, struct cf_blob *b, const char *name, uint64_t size);
/* Take the OPEN of @b, the first or one of a reopening, and answer it. */
int cf_blob_take_open(struct cf_env *e, struct cf_blob *b);
int cf_blob_answer_open(struct cf_env *e, struct cf_blob *b, long long size);
/* Answer with a size and @version, which is NULL for none. */
int cf_copen_version(int dev, uint32_t msg_id, uint64_t size, const char *version);
int cf_blob_answer_version(struct cf_env *e, struct cf_blob *b, const char *version);
/* Open "blob", which has the data of the blob @content in this version. */
int cf_blob_open_version(struct cf_env *e, struct cf_blob *b, uint64_t size,
			 const char *content, const char *version);
/* Answer a READ of @b, which has to be for the fd it has now. */
int cf_blob_answer_read(const struct cf_blob *b, const struct cf_msg *m);
/* Read one page and answer its READ: 0 if there was one READ and the data is right. */
long cf_blob_fetch(struct cf_env *e, struct cf_blob *b, off_t off);
/* Answer the OPENs and READs of @b until @op is over, and check the data that it read. */
long cf_blob_serve(struct cf_env *e, struct cf_blob *b, struct cf_op *op);

/* ---- "blob", in several lives ---- */
/* Unmount, so that the object is withdrawn: 0 or -errno. */
int cf_blob_give_up(struct cf_env *e, struct cf_blob *b);
/* Mount, and look it up again: 0 or -errno. */
int cf_blob_look_up(struct cf_env *e, struct cf_blob *b, uint64_t size);
/* Wait until its file is not in use any more. */
bool cf_is_released(struct cf_env *e, const char *path);
/* Read from it: how many READs that took, or -errno. */
int cf_reads_for(struct cf_env *e, struct cf_blob *b, off_t off, size_t len);

struct cf_op *cf_start_close(int fd);

/* The opener of @name, its OPEN received; NULL if none came. */
struct cf_op *cf_open_and_recv(struct cf_env *e, const char *name, struct cf_msg *m);
/*
 * Answer OPENs and take CLOSEs until the opener is done: its result.  An opener
 * causes a second OPEN if the lookup fails after the daemon has answered a size.
 */
long cf_answer_opens(struct cf_env *e, struct cf_op *op, long long size);
/* Answer READs of @b until the operation is over: its result. */
long cf_serve_until_done(struct cf_env *e, struct cf_blob *b, struct cf_op *op, int *reads);
/* Switch readahead off, so that a READ asks for exactly the pages that are read. */
void cf_no_readahead(int fd);
/* Whether the cache is on btrfs. */
bool cf_is_btrfs(void);
/* Whether the page at @off is in the page cache, with its data. */
bool cf_is_in_memory(int fd, off_t off);
/* Read with a time limit and compare; 0 or the first problem as -errno. */
long cf_read_and_check(const char *name, int fd, off_t off, size_t len, size_t want);

/* ---- a daemon in threads of its own (or in a child: cf_daemon_loop()) ---- */
#define CF_MAX_OBJECTS	2048
#define CF_MAX_READS	4096

struct cf_object {
	uint32_t id;
	int fd;
	uint64_t size;
	char name[256];
};

struct cf_read {
	uint32_t msg_id, object_id;
	uint64_t off, len;
	int fd;
	char name[256];
	uint64_t size;
	bool answered;
};

struct cf_daemon {
	/* the script; may be changed while it runs */
	int dev;
	atomic_llong size;	/* answer to every OPEN: size, or -errno */
	atomic_bool hold_reads;	/* log READs, do not answer them */
	atomic_bool lie;	/* complete READs without writing anything */
	atomic_int read_delay;	/* ms before a READ is answered */
	long long (*size_of)(struct cf_daemon *d, const char *name);
	int (*fill)(struct cf_daemon *d, const struct cf_read *r);
	void *arg;

	/* what happened */
	atomic_int opens, reads, closes, bad;
	atomic_int unknown;	/* READ or CLOSE for an object never opened */
	char error[160];

	struct cf_object objects[CF_MAX_OBJECTS];
	struct cf_read log[CF_MAX_READS];
	atomic_int nlog;

	/* the machinery */
	pthread_mutex_t lock;
	pthread_t threads[8];
	int nthreads;
	int stop;		/* eventfd */
};

/* Shared memory, so that a daemon in a child can be watched by its parent. */
struct cf_daemon *cf_daemon_new(int dev, long long size);
int cf_daemon_start(struct cf_daemon *d, int nthreads);
void cf_daemon_loop(struct cf_daemon *d);	/* until ->stop or an error */
void cf_daemon_release_reads(struct cf_daemon *d);	/* answer what is held */
void cf_daemon_stop(struct cf_daemon *d);	/* threads ended, anon fds left open */
void cf_daemon_close_fds(struct cf_daemon *d);
void cf_daemon_free(struct cf_daemon *d);

/* ---- EROFS images, whose blobs are the files beside the program ---- */
#define CF_IMAGE	"erofs_flat.img"
long long cf_image_size(const char *name);	/* -ENOENT if it was built without mkfs.erofs */
struct cf_daemon *cf_image_daemon(int dev);	/* that serves them, to be started */
/* Mount one at e->erofs; @options may be NULL, and have to stay.  0 or -errno. */
long cf_mount_erofs(struct cf_env *e, const char *image, const char *options);

#endif /* CACHEFILES_TEST_H */
