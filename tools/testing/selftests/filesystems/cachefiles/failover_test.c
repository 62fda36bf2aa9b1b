// SPDX-License-Identifier: GPL-2.0
/*
 * The daemon is killed while 32 readers fault in what is not present, 500 times in all.  If
 * a process keeps the device, every reader gets the right bytes from a successor; otherwise every
 * reader gets an error, and the next daemon can start at once.
 *
 * Four kinds of processes work on one struct shared: the test, which is the supervisor and decides
 * who dies when; the readers, all in one process; the daemon and, waiting for its turn, the next
 * one; and where the device is not the supervisor's, the store that keeps it.
 */
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define READERS		32
#define OPENERS		4		/* of the readers: a new file in each round */
#define MAPPERS		8		/* of the readers: by page faults */
#define FILES		4
#define FILE_SIZE	(1024ULL << 20)
#define NEW_FILE_SIZE	(64ULL << 10)
#define LONG_READ	20000
#define LONG_WRITE	(1024 * 1024)
#define BATCH		48		/* messages that a daemon takes before it answers them */
#define HELD		1024
/* 500 in all: the device is kept in two ways. */
#define KILLS_KEPT	220
#define KILLS_LOST	60
/* A reader that takes longer is stuck, in ms.  It may outlive some daemons first. */
#define STUCK		60000

/* Where a daemon dies. */
enum place {
	NOWHERE,
	ANYWHERE,	/* having answered some requests */
	UNREAD,		/* with requests queued, before it has read one */
	OPEN_TAKEN,	/* between read() of an OPEN and copen */
	ALL_TAKEN,	/* between read() of some requests and the first answer */
	IN_A_BLOCK,	/* with half a block written */
	IN_WRITE,	/* in pwrite() */
	WRITTEN,	/* between pwrite() and READ_COMPLETE */
	PLACES,
};

static const char * const places[PLACES] = {
	"nowhere", "anywhere", "before the first read()", "before copen", "before the first answer",
	"with half a block written", "in pwrite()", "before READ_COMPLETE",
};

/* Which process has the device beside the daemon. */
enum keeper {
	NOBODY,
	SUPERVISOR,	/* daemons inherit it */
	STORE,		/* daemons are sent it */
};

struct reader {
	atomic_long began;	/* in ms; 0 when it is not reading */
	atomic_int parked;	/* the round that it is done with */
	atomic_int failed;	/* the round that it got an error in */
	atomic_long good;
};

struct shared {
	char store[64];		/* the store's socket */
	enum keeper keeper;
	struct cf_env e;

	/* told by the supervisor */
	atomic_int round;	/* in each, readers go on */
	atomic_int turn;	/* which daemon may work ... */
	bool early;		/* ... though its predecessor may still have its fds */
	atomic_bool stop;
	enum place place;	/* where it dies ... */
	atomic_int countdown;	/* ... and at which opportunity */

	/* told by the daemon */
	atomic_bool serving, in_write, written;
	atomic_int answered;
	/*
	 * Requests that were read and not answered yet: NOTE()s, or 0.  They are noted down after
	 * they were read and deleted before they are answered, so none is here that is not pending.
	 * That would not hold for an OPEN that both a dying daemon and its successor have: the one
	 * may answer it with its last breath when the other has just noted it down, or note it down
	 * when the other has answered it.  READs are for an object that only one of them has.
	 */
	atomic_ullong held[HELD];
	atomic_bool alone;	/* nobody but the daemon of this turn is alive */
	atomic_int redelivered;
	atomic_int too_early;	/* messages for objects of the daemon that is dying */

	struct reader reader[READERS];

	atomic_int problems;
	char problem[160];
};

static void problem(struct shared *s, const char *fmt, ...)
{
	va_list ap;

	if (atomic_fetch_add(&s->problems, 1))
		return;
	va_start(ap, fmt);
	vsnprintf(s->problem, sizeof(s->problem), fmt, ap);
	va_end(ap);
}

/* As CF_WAIT_FOR(), but to the point: a round may only take some ten ms. */
#define WAIT_FOR(cond) ({					\
	struct cf_clock __clock;				\
	bool __ok;						\
	cf_clock_start(&__clock);				\
	while (!(__ok = (cond)) && cf_left(&__clock, STUCK))	\
		usleep(500);					\
	__ok; })

/* Sleep while *@p is @old. */
static void wait_while(atomic_int *p, int old)
{
	while (*p == old)
		syscall(SYS_futex, p, FUTEX_WAIT, old, NULL);
}

static void set(atomic_int *p, int value)
{
	*p = value;
	syscall(SYS_futex, p, FUTEX_WAKE, INT_MAX);
}

static uint64_t file_size(const char *name)
{
	return name[0] == 'n' ? NEW_FILE_SIZE : FILE_SIZE;
}

/* ---- the store: keeps a device that it is sent, as systemd does ---- */

static int socket_at(const char *name, struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strncpy(a->sun_path + 1, name, sizeof(a->sun_path) - 2);
	return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

/* A message is one byte, and perhaps a file descriptor. */
static int send_fd(int sock, char what, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = { &what, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
	}
	return sendmsg(sock, &m, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* 0 or a negative errno; *fd is -1 if none came. */
static int receive_fd(int sock, char *what, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec iov = { what, 1 };
	struct msghdr m = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c;

	*fd = -1;
	if (n <= 0)
		return n ? -errno : -EPIPE;
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	return 0;
}

static void store_main(int listener)
{
	int dev = -1, sock, fd;
	char what;

	while ((sock = accept(listener, NULL, NULL)) >= 0) {
		if (receive_fd(sock, &what, &fd) == 0 && what == 'S') {
			dev = fd;
			send_fd(sock, 'S', -1);
		} else {
			send_fd(sock, 'G', dev);
		}
		close(sock);
	}
	_exit(1);
}

static pid_t store_start(struct shared *s)
{
	struct sockaddr_un a;
	int listener;
	pid_t pid;

	snprintf(s->store, sizeof(s->store), "cachefiles-failover-%d", getpid());
	listener = socket_at(s->store, &a);
	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) || listen(listener, 8))
		return -errno;
	pid = cf_fork();
	if (pid == 0)
		store_main(listener);
	close(listener);
	return pid;
}

/* Give the store a file descriptor ('S') or get its one ('G'); *fd is -1 if it has none. */
static int ask_store(struct shared *s, char what, int *fd)
{
	struct sockaddr_un a;
	int sock = socket_at(s->store, &a), err, got;

	if (connect(sock, (struct sockaddr *)&a, sizeof(a)))
		return -errno;
	err = send_fd(sock, what, what == 'S' ? *fd : -1);
	if (!err)
		err = receive_fd(sock, &what, &got);
	close(sock);
	if (!err && what == 'G')
		*fd = got;
	return err;
}

/* ---- the daemon ---- */

struct object {
	uint32_t id;
	int fd;
	char name[32];
};

struct daemon {
	struct shared *s;
	int turn, dev;
	struct object objects[256];
};

static void die(void)
{
	kill(getpid(), SIGKILL);
}

/* Whether this is the opportunity to die. */
static bool now_at(struct shared *s, enum place place)
{
	return s->place == place && --s->countdown == 0;
}

static void die_at(struct shared *s, enum place place)
{
	if (now_at(s, place))
		die();
}

#define NOTE(turn, opcode, msg_id) \
	((unsigned long long)(turn) << 40 | ((opcode) + 1ULL) << 32 | (msg_id))
#define NOTE_TURN(note) ((int)((note) >> 40))
#define NOTE_OPCODE(note) ((uint32_t)((note) >> 32 & 0xff) - 1)
#define NOTE_MSG_ID(note) ((uint32_t)(note))

static void hold(struct daemon *d, const struct cf_msg *m, bool alone)
{
	unsigned long long note = NOTE(d->turn, m->w.opcode, m->w.msg_id), old;
	struct shared *s = d->s;
	int i;

	if (s->turn != d->turn)
		return;

	for (i = 0; i < HELD; i++) {
		if (s->held[i] && NOTE_MSG_ID(s->held[i]) == m->w.msg_id) {
			s->redelivered++;
			return;
		}
	}
	if (m->w.opcode == CF_OPEN && !alone)
		return;
	for (i = 0; i < HELD; i++) {
		old = 0;
		if (atomic_compare_exchange_strong(&s->held[i], &old, note))
			return;
	}
	problem(s, "more than %d requests are pending", HELD);
}

static void let_go(struct shared *s, uint32_t msg_id)
{
	unsigned long long old;
	int i;

	for (i = 0; i < HELD; i++) {
		old = s->held[i];
		if (old && NOTE_MSG_ID(old) == msg_id)
			atomic_compare_exchange_strong(&s->held[i], &old, 0);
	}
}

/* What a daemon has noted down of OPENs while its successor was at work says nothing. */
static void forget_opens(struct shared *s, int turn)
{
	unsigned long long old;
	int i;

	for (i = 0; i < HELD; i++) {
		old = s->held[i];
		if (old && NOTE_TURN(old) == turn && NOTE_OPCODE(old) == CF_OPEN)
			atomic_compare_exchange_strong(&s->held[i], &old, 0);
	}
}

static int held(struct shared *s)
{
	int i, n = 0;

	for (i = 0; i < HELD; i++)
		n += !!s->held[i];
	return n;
}

static unsigned long long first_held(struct shared *s)
{
	int i = 0;

	while (i < HELD - 1 && !s->held[i])
		i++;
	return s->held[i];
}

static struct object *find_object(struct daemon *d, uint32_t id)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(d->objects); i++)
		if (d->objects[i].id == id)
			return &d->objects[i];
	return NULL;
}

static void answer_open(struct daemon *d, const struct cf_msg *m)
{
	struct object *o = find_object(d, 0);
	char name[256];
	int err;

	cf_msg_name(m, name);
	if (!o)
		return problem(d->s, "a daemon has too many objects");
	o->id = m->w.object_id;
	o->fd = m->w.open.fd;
	snprintf(o->name, sizeof(o->name), "%s", name);
	let_go(d->s, m->w.msg_id);
	/* Each daemon has to name the version that the first one did. */
	err = cf_cmd(d->dev, "copen %u,%lld%s", m->w.msg_id, (long long)file_size(name),
		     cf_is_c() ? "" : ",v1");
	/* The predecessor may have answered it with its last breath. */
	if (err && !(err == -EINVAL && d->s->early))
		problem(d->s, "copen of %s: %s", name, strerror(-err));
}

static int write_half_a_block(const struct object *o, uint64_t off)
{
	static char block[CF_BLOCK] __attribute__((aligned(CF_BLOCK)));

	cf_pattern(o->name, off, block, CF_BLOCK / 2);
	return pwrite(o->fd, block, CF_BLOCK / 2, off) == CF_BLOCK / 2 ? 0 : -errno;
}

/* Long enough for the supervisor to notice. */
static int write_much(struct shared *s, const struct object *o, uint64_t off)
{
	static char buf[LONG_WRITE] __attribute__((aligned(CF_BLOCK)));
	uint64_t left = file_size(o->name) - off, len = left < LONG_WRITE ? left : LONG_WRITE;
	ssize_t n;

	cf_pattern(o->name, off, buf, len);
	s->in_write = true;
	n = pwrite(o->fd, buf, len, off);
	s->written = true;
	return n == len ? 0 : -errno;
}

static void answer_read(struct daemon *d, const struct cf_msg *m)
{
	const struct object *o = find_object(d, m->w.object_id);
	uint64_t off = m->w.read.off, len = m->w.read.len;
	struct shared *s = d->s;
	int err;

	if (now_at(s, IN_A_BLOCK)) {
		err = write_half_a_block(o, off);
		if (err)
			problem(s, "writing half a block of %s: %s", o->name, strerror(-err));
		die();
	}
	if (now_at(s, IN_WRITE))
		err = write_much(s, o, off);
	else
		err = cf_fill(o->fd, o->name, off, len, file_size(o->name));
	if (err)
		problem(s, "writing to %s: %s", o->name, strerror(-err));
	die_at(s, WRITTEN);
	let_go(s, m->w.msg_id);
	err = cf_complete(o->fd, m->w.msg_id);
	if (err)
		problem(s, "READ_COMPLETE of %s: %s", o->name, strerror(-err));
}

static void answer_close(struct daemon *d, const struct cf_msg *m)
{
	struct object *o = find_object(d, m->w.object_id);

	close(o->fd);
	o->id = 0;
}

/*
 * Take what there is, up to BATCH messages.  READs may be among it whose object is still open in
 * the daemon that is dying; they come again when it has been opened anew.
 */
static int take(struct daemon *d, struct cf_msg *batch)
{
	struct shared *s = d->s;
	int n = 0, err = 0;

	while (n < BATCH) {
		struct cf_msg *m = &batch[n];
		bool alone = s->alone;

		err = cf_recv(d->dev, m, 0);
		if (err)
			break;
		if (m->w.opcode != CF_OPEN && !find_object(d, m->w.object_id)) {
			s->too_early++;
			continue;
		}
		if (m->w.opcode != CF_CLOSE)
			hold(d, m, alone);
		if (m->w.opcode == CF_OPEN)
			die_at(s, OPEN_TAKEN);
		n++;
	}
	if (err && err != -ETIMEDOUT) {
		problem(s, "reading the device: %s", strerror(-err));
		_exit(1);
	}
	return n;
}

static int get_device(struct shared *s)
{
	int dev = -1, err = 0;

	if (s->keeper == SUPERVISOR) {
		dev = s->e.dev;
	} else if (s->keeper == STORE) {
		err = ask_store(s, 'G', &dev);
		if (err)
			return err;
	}
	if (dev >= 0) {
		err = cf_cmd(dev, "restore");
		return err ? err : dev;
	}

	dev = cf_device_open();
	if (dev < 0)
		return dev;
	err = cf_cmd(dev, "dir %s", s->e.dir);
	if (!err)
		err = cf_cmd(dev, "tag %s", s->e.tag);
	if (!err)
		err = cf_cmd(dev, "bind ondemand");
	if (!err && s->keeper == STORE)
		err = ask_store(s, 'S', &dev);
	return err ? err : dev;
}

static void daemon_main(struct shared *s, int turn)
{
	static struct cf_msg batch[BATCH];
	static struct daemon d;
	int i, n;

	wait_while(&s->turn, turn - 1);
	d.s = s;
	d.turn = turn;
	d.dev = get_device(s);
	if (d.dev < 0) {
		problem(s, "taking over the device: %s", strerror(-d.dev));
		_exit(1);
	}
	s->serving = true;
	for (;;) {
		cf_readable(d.dev, -1);
		die_at(s, UNREAD);
		n = take(&d, batch);
		if (n)
			die_at(s, ALL_TAKEN);
		for (i = 0; i < n; i++) {
			if (batch[i].w.opcode == CF_OPEN)
				answer_open(&d, &batch[i]);
			else if (batch[i].w.opcode == CF_READ)
				answer_read(&d, &batch[i]);
			else
				answer_close(&d, &batch[i]);
			s->answered++;
		}
	}
}

/* ---- the readers ---- */

struct reading {
	struct shared *s;
	struct reader *r;
	int i;
	unsigned int seed;
};

static __thread sigjmp_buf no_page;

static void on_sigbus(int sig)
{
	siglongjmp(no_page, 1);
}

/* One block of a file by a fault.  SIGBUS is what EIO is called here. */
static ssize_t fault_in(int fd, void *buf, off_t off)
{
	/* A mapping begins with a page, which may have many blocks. */
	size_t before = off % sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, before + CF_BLOCK, PROT_READ, MAP_SHARED, fd, off - before);
	ssize_t n = CF_BLOCK;

	if (p == MAP_FAILED)
		return -errno;
	madvise(p, before + CF_BLOCK, MADV_RANDOM);
	if (sigsetjmp(no_page, 1) == 0)
		memcpy(buf, p + before, CF_BLOCK);
	else
		n = -EIO;
	munmap(p, before + CF_BLOCK);
	return n;
}

static long read_once(struct reading *w, const char *name, int fd)
{
	char buf[LONG_READ];
	uint64_t pages = file_size(name) / CF_BLOCK;
	off_t off = rand_r(&w->seed) % pages * CF_BLOCK;
	ssize_t n, want = CF_BLOCK;

	if (w->i < OPENERS + MAPPERS && w->i >= OPENERS) {
		n = fault_in(fd, buf, off);
	} else {
		if (rand_r(&w->seed) % 8 == 0) {
			want = LONG_READ;
			off += 100;
		}
		if (want > file_size(name) - off)
			want = file_size(name) - off;
		n = pread(fd, buf, want, off);
		if (n < 0)
			n = -errno;
	}
	if (n < 0)
		return n;
	/* Part of it may have been present when the cache went; the next read fails. */
	if (n != want && !(n && w->s->keeper == NOBODY))
		problem(w->s, "read %zd bytes of %s instead of %zd", n, name, want);
	else if (cf_check(name, off, buf, n) >= 0)
		problem(w->s, "wrong bytes in %s", name);
	else
		w->r->good++;
	return 0;
}

/* Open a file and read from it for a while: 0 or a negative errno. */
static long read_file(struct reading *w, int round)
{
	int fd, times = w->i < OPENERS ? 1 : 16;
	char name[32], path[128];
	long err = 0;

	if (w->i < OPENERS)
		snprintf(name, sizeof(name), "n%d-%d", w->i, round);
	else
		snprintf(name, sizeof(name), "b%d", rand_r(&w->seed) % FILES);
	snprintf(path, sizeof(path), "%s/%s", w->s->e.mnt, name);
	w->r->began = cf_now_ms();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err = -errno;
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	while (!err && times-- && !w->s->stop) {
		w->r->began = cf_now_ms();
		err = read_once(w, name, fd);
	}
	if (fd >= 0)
		close(fd);
	w->r->began = 0;
	return err;
}

static void *reader_main(void *arg)
{
	struct reading *w = arg;
	int round = 0;
	long err;

	while (!w->s->stop) {
		wait_while(&w->s->round, round);
		round = w->s->round;
		do {
			err = read_file(w, round);
		} while (!err && w->i >= OPENERS && !w->s->stop);
		if (err) {
			w->r->failed = round;
			/* The cache may be gone already when a file is opened. */
			if (w->s->keeper != NOBODY || (err != -EIO && err != -ENOTCONN))
				problem(w->s, "reader %d got %s", w->i, strerror(-err));
		}
		w->r->parked = round;
	}
	return NULL;
}

static void readers_main(struct shared *s)
{
	static struct reading readings[READERS];
	pthread_t threads[READERS];
	int i;

	signal(SIGBUS, on_sigbus);
	for (i = 0; i < READERS; i++) {
		readings[i] = (struct reading){ s, &s->reader[i], i, time(NULL) * READERS + i };
		if (pthread_create(&threads[i], NULL, reader_main, &readings[i]))
			_exit(1);
	}
	for (i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

static void stop_readers(struct shared *s)
{
	s->stop = true;
	set(&s->round, s->round + 1);
}

static long reads(struct shared *s)
{
	long n = 0;
	int i;

	for (i = 0; i < READERS; i++)
		n += s->reader[i].good;
	return n;
}

static bool all_parked(struct shared *s)
{
	int i;

	for (i = 0; i < READERS; i++)
		if (s->reader[i].parked != s->round)
			return false;
	return true;
}

/* How many of those that read without end got an error. */
static int failed(struct shared *s)
{
	int i, n = 0;

	for (i = OPENERS; i < READERS; i++)
		n += s->reader[i].failed == s->round;
	return n;
}

/* The number of a reader that does not get on, or -1. */
static int stuck(struct shared *s)
{
	static struct {
		long began;
		struct cf_clock clock;
	} seen[READERS];
	int i;

	for (i = 0; i < READERS; i++) {
		long began = s->reader[i].began;

		if (seen[i].began != began) {
			seen[i].began = began;
			cf_clock_start(&seen[i].clock);
			continue;
		}
		if (began && cf_now_ms() - began > STUCK && !cf_left(&seen[i].clock, STUCK))
			return i;
	}
	return -1;
}

/* ---- the supervisor ---- */

struct trial {
	struct cf_env e;
	struct shared *s;
	pid_t readers, store, daemon, next;
	bool early;		/* whether a successor need not wait for the dead one's fds */
	bool torn;		/* whether a block that was written in part is not present */
	long start, longest;	/* the longest time to die, in ms */
	int kills;		/* so far */
	int hits;		/* of these with a request pending */
	int in_write;		/* of these in pwrite() */
};

static int set_up(struct trial *t, enum keeper keeper)
{
	struct shared *s;
	int err;

	srandom(time(NULL));
	t->early = cf_intended("closed-fd-loses-read") == 0;
	t->torn = cf_intended("partial-block");
	err = cf_env_init(&t->e);
	if (err)
		return err;
	t->e.why = "memory to share";
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return -errno;
	t->s = s;
	s->keeper = keeper;
	s->alone = true;
	s->e = t->e;
	t->e.why = "starting the store or the readers";
	if (keeper == STORE) {
		t->store = store_start(s);
		if (t->store < 0)
			return t->store;
	}
	t->readers = cf_fork();
	if (t->readers == 0)
		readers_main(s);
	if (t->readers < 0)
		return -errno;
	/* Not before: who else has the device would keep it. */
	err = keeper == SUPERVISOR ? cf_env_bind(&t->e) : 0;
	s->e = t->e;
	t->start = cf_now_ms();
	return err;
}

static void end(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		cf_reap(*pid, CF_SOON);
	}
	*pid = 0;
}

/* The same, of a daemon: to be dead includes that its fds are closed. */
static void end_daemon(struct trial *t)
{
	long start = cf_now_ms(), took;

	kill(t->daemon, SIGKILL);
	if (cf_reap(t->daemon, STUCK) != 128 + SIGKILL)
		problem(t->s, "the daemon did not die when it was killed");
	t->daemon = 0;
	took = cf_now_ms() - start;
	if (took > t->longest)
		t->longest = took;
}

static void tear_down(struct trial *t)
{
	end(&t->next);
	end(&t->daemon);
	end(&t->store);
	cf_env_close(&t->e);
	end(&t->readers);
	cf_env_end(&t->e);
}

/* A daemon that waits for its turn. */
static pid_t start_daemon(struct shared *s, int turn)
{
	pid_t pid = cf_fork();

	if (pid == 0)
		daemon_main(s, turn);
	if (pid < 0)
		problem(s, "fork: %s", strerror(errno));
	return pid;
}

static bool is_dead(pid_t pid)
{
	siginfo_t info = { .si_pid = 0 };

	/* It stays to be reaped. */
	return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == pid;
}

/* Let the next daemon work.  With @last, it lives. */
static void begin_turn(struct trial *t, bool last)
{
	static const enum place plan[] = {
		ANYWHERE, UNREAD, OPEN_TAKEN, ANYWHERE, ALL_TAKEN, IN_A_BLOCK, IN_WRITE, WRITTEN,
	};
	struct shared *s = t->s;

	s->place = last ? NOWHERE : plan[t->kills % ARRAY_SIZE(plan)];
	if (s->place == IN_A_BLOCK && !t->torn)
		s->place = WRITTEN;
	s->countdown = 1;
	if (s->place == OPEN_TAKEN)
		s->countdown += random() % OPENERS;	/* each makes for one */
	else if (s->place != UNREAD && s->place != ALL_TAKEN)
		s->countdown += random() % 8;
	s->serving = false;
	s->in_write = false;
	s->written = false;
	s->answered = 0;
	set(&s->turn, s->turn + 1);
}

/* Wait until the daemon is where it is to die.  True if it does not do so by itself. */
static bool reaches_place(struct trial *t)
{
	int answers = random() % READERS;
	struct shared *s = t->s;

	if (!WAIT_FOR(is_dead(t->daemon) || s->in_write || s->problems ||
		      (s->place == ANYWHERE && s->answered >= answers)))
		problem(s, "the daemon has had no opportunity to die");
	if (s->place == ANYWHERE)
		usleep(random() % 2000);
	return !is_dead(t->daemon);
}

/* Have the daemon die.  With @early, it may not be quite dead yet. */
static void end_turn(struct trial *t, bool early)
{
	struct shared *s = t->s;

	s->early = reaches_place(t) && early;
	s->alone = !s->early;
	kill(t->daemon, SIGKILL);
	if (!s->early)
		end_daemon(t);
	t->kills++;
	t->hits += held(s) > 0;
	t->in_write += s->in_write && !s->written;
}

static void report(struct trial *t)
{
	struct shared *s = t->s;

	printf("# %d kills in %ld ms, %d with requests pending, %d in pwrite(); ", t->kills,
	       cf_now_ms() - t->start, t->hits, t->in_write);
	printf("%d requests delivered again, %d messages too early, %ld reads, ", s->redelivered,
	       s->too_early, reads(s));
	printf("%ld ms to die at most\n", t->longest);
}

#define ASSERT_NO_PROBLEM() do {						\
	struct trial *__t = &self->t;						\
	int __stuck = stuck(__t->s);						\
										\
	ASSERT_EQ(0, __t->s->problems) {					\
		TH_LOG("after %d kills, daemon to die %s: %s", __t->kills,	\
		       places[__t->s->place], __t->s->problem);			\
	}									\
	ASSERT_EQ(-1, __stuck) {						\
		TH_LOG("after %d kills, a reader is stuck", __t->kills);	\
	}									\
} while (0)

#define ASSERT_DONE(expr) do {							\
	int __err = (expr);							\
										\
	ASSERT_EQ(0, __err) {							\
		TH_LOG("%s", self->t.e.why);					\
	}									\
} while (0)

/* A module with references cannot be removed; code that is built in always stays. */
static bool unloads(const char *module)
{
	return !cf_is_module(module) || CF_WAIT_FOR(cf_rmmod(module) == 0, CF_SOON);
}

/* Nothing is left that has a reference to the modules. */
#define ASSERT_UNLOADS() do {							\
	ASSERT_TRUE(unloads("ondemandfs"));					\
	ASSERT_TRUE(unloads("cachefiles"));					\
} while (0)

/* ------------------------------------------------------- the device is kept */

FIXTURE(kept) {
	struct trial t;
};

FIXTURE_VARIANT(kept) {
	enum keeper keeper;
};

FIXTURE_VARIANT_ADD(kept, by_the_supervisor) { .keeper = SUPERVISOR };
FIXTURE_VARIANT_ADD(kept, by_a_store) { .keeper = STORE };

FIXTURE_SETUP(kept)
{
	ASSERT_DONE(set_up(&self->t, variant->keeper));
}

FIXTURE_TEARDOWN(kept)
{
	tear_down(&self->t);
}

TEST_F_TIMEOUT(kept, every_reader_gets_the_right_bytes, 600)
{
	struct trial *t = &self->t;
	struct shared *s = t->s;

	t->daemon = start_daemon(s, 1);
	begin_turn(t, false);
	ASSERT_TRUE(WAIT_FOR(s->serving || s->problems));
	ASSERT_NO_PROBLEM();
	ASSERT_DONE(cf_env_mount(&t->e));
	while (t->kills < KILLS_KEPT) {
		set(&s->round, s->turn);
		t->next = start_daemon(s, s->turn + 1);
		end_turn(t, t->early && random() % 2);
		begin_turn(t, t->kills == KILLS_KEPT);
		if (t->daemon) {
			end_daemon(t);
			forget_opens(s, s->turn - 1);
			s->alone = true;
		}
		t->daemon = t->next;
		t->next = 0;
		ASSERT_NO_PROBLEM();
	}
	stop_readers(s);
	EXPECT_EQ(0, cf_reap(t->readers, STUCK)) {
		TH_LOG("not every reader has come to its end");
	}
	t->readers = 0;
	report(t);
	ASSERT_NO_PROBLEM();
	/* Who was answered was asked for again. */
	EXPECT_EQ(0, held(s)) {
		unsigned long long note = first_held(s);

		TH_LOG("message %u (opcode %u) was read in turn %d and is not answered",
		       NOTE_MSG_ID(note), NOTE_OPCODE(note), NOTE_TURN(note));
	}
	EXPECT_GT(s->redelivered, t->kills);
	EXPECT_GT(t->hits, t->kills / 2);
	EXPECT_GT(t->in_write, 0);
	EXPECT_GT(reads(s), t->kills);

	ASSERT_EQ(0, cf_env_umount(&t->e));
	end_daemon(t);
	end(&t->store);
	cf_env_close(&t->e);
	ASSERT_UNLOADS();
}

/* -------------------------------------------- no process keeps the device */

FIXTURE(lost) {
	struct trial t;
};

FIXTURE_SETUP(lost)
{
	ASSERT_DONE(set_up(&self->t, NOBODY));
}

FIXTURE_TEARDOWN(lost)
{
	tear_down(&self->t);
}

TEST_F_TIMEOUT(lost, every_reader_gets_an_error_and_the_next_daemon_serves, 600)
{
	struct trial *t = &self->t;
	struct shared *s = t->s;
	long before;

	while (t->kills < KILLS_LOST) {
		t->daemon = start_daemon(s, s->turn + 1);
		begin_turn(t, false);
		ASSERT_TRUE(WAIT_FOR(s->serving || s->problems));
		ASSERT_NO_PROBLEM();
		if (!t->e.mounted)
			ASSERT_DONE(cf_env_mount(&t->e));
		set(&s->round, s->turn);
		end_turn(t, false);
		memset((void *)s->held, 0, sizeof(s->held));
		ASSERT_TRUE(WAIT_FOR(all_parked(s) || s->problems)) {
			TH_LOG("after %d kills, daemon dead %s: a reader gets no error", t->kills,
			       places[s->place]);
		}
		ASSERT_NO_PROBLEM();
		ASSERT_EQ(READERS - OPENERS, failed(s));
		/* The files are there again with and without a mount anew. */
		if (t->kills % 2)
			ASSERT_EQ(0, cf_env_umount(&t->e));
	}
	t->daemon = start_daemon(s, s->turn + 1);
	begin_turn(t, true);
	ASSERT_TRUE(WAIT_FOR(s->serving || s->problems));
	ASSERT_NO_PROBLEM();
	if (!t->e.mounted)
		ASSERT_DONE(cf_env_mount(&t->e));
	before = reads(s);
	set(&s->round, s->turn);
	ASSERT_TRUE(WAIT_FOR(reads(s) > before + 4 * READERS));
	stop_readers(s);
	ASSERT_EQ(0, cf_reap(t->readers, STUCK)) {
		TH_LOG("not every reader has come to its end");
	}
	t->readers = 0;
	report(t);
	ASSERT_NO_PROBLEM();
	EXPECT_GT(t->hits, t->kills / 2);
	EXPECT_GT(t->in_write, 0);
	EXPECT_GT(reads(s), t->kills);

	ASSERT_EQ(0, cf_env_umount(&t->e));
	end_daemon(t);
	ASSERT_UNLOADS();
}

TEST_HARNESS_MAIN
