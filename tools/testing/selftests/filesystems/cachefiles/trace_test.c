// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints: that scripts made for those of Linux 7.2 find what they look
 * for, and that each event says what the daemon saw.
 */
#include <dirent.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "kselftest_harness.h"
#include "cachefiles_test.h"

#define TRACEFS		"/sys/kernel/tracing"
#define PREFIX		"cachefiles_ondemand_"
#define BLOCK		CF_BLOCK
#define NOT_IN_C	"the implementation in C has no such event"

/* What is traced, in a buffer of its own. */
struct recorder {
	char dir[128];		/* "" if there is nothing to record with */
	const char *why;	/* why there is not */
	char *text;		/* what recorded() returned last */
};

/* All of a file, or NULL. */
static char *slurp(const char *path)
{
	size_t len = 0, room = 1 << 20;
	char *text = malloc(room);
	int fd = open(path, O_RDONLY);
	ssize_t n = -1;

	while (fd >= 0 && text && len < room - 1 &&
	       (n = read(fd, text + len, room - 1 - len)) > 0)
		len += n;
	if (fd >= 0)
		close(fd);
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[len] = 0;
	return text;
}

static int put(const char *dir, const char *file, const char *value)
{
	char path[PATH_MAX];
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* The module is loaded, and the mount namespace is our own. */
static void recorder_start(struct recorder *r)
{
	char path[PATH_MAX];
	struct dirent *de;
	DIR *events;

	memset(r, 0, sizeof(*r));
	if (access(TRACEFS "/events", F_OK))
		mount("tracefs", TRACEFS, "tracefs", 0, NULL);
	r->why = "this kernel has no trace events";
	if (access(TRACEFS "/events", F_OK))
		return;
	r->why = "this kernel has no trace instances";
	snprintf(r->dir, sizeof(r->dir), TRACEFS "/instances/cachefiles.%d", getpid());
	if (mkdir(r->dir, 0700)) {
		r->dir[0] = 0;
		return;
	}
	/* Those in C are not all of interest. */
	snprintf(path, sizeof(path), "%s/events/cachefiles", r->dir);
	events = opendir(path);
	while (events && (de = readdir(events))) {
		if (strncmp(de->d_name, PREFIX, strlen(PREFIX)))
			continue;
		snprintf(path, sizeof(path), "events/cachefiles/%s/enable", de->d_name);
		put(r->dir, path, "1");
	}
	if (events)
		closedir(events);
	put(r->dir, "tracing_on", "1");
}

static void recorder_end(struct recorder *r)
{
	free(r->text);
	if (r->dir[0])
		rmdir(r->dir);
}

/* The events so far, one a line: what came before their names is left out. */
static const char *recorded(struct recorder *r)
{
	char path[PATH_MAX], *line, *save, *text, *out;

	snprintf(path, sizeof(path), "%s/trace", r->dir);
	text = slurp(path);
	free(r->text);
	r->text = calloc(1, text ? strlen(text) + 2 : 1);
	out = r->text;
	for (line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		char *event = strstr(line, ": " PREFIX);

		if (*line != '#' && event)
			out += sprintf(out, "%s\n", event + 2 + strlen(PREFIX));
	}
	free(text);
	return r->text;
}

/* What the nth event of that name says, from 0 on; "" if there is none. */
static const char *event(struct recorder *r, const char *name, int nth)
{
	static char found[256];
	const char *line;

	for (line = recorded(r); *line; line = strchr(line, '\n') + 1) {
		size_t len = strlen(name);

		if (!strncmp(line, name, len) && line[len] == ':' && !nth--) {
			snprintf(found, sizeof(found), "%.*s",
				 (int)strcspn(line + len + 2, "\n"), line + len + 2);
			return found;
		}
	}
	return "";
}

/* The names of the events so far. */
static const char *sequence(struct recorder *r)
{
	static char names[1024];
	const char *line;
	size_t len = 0;

	names[0] = 0;
	for (line = recorded(r); *line && len < sizeof(names) - 32; line = strchr(line, '\n') + 1)
		len += snprintf(names + len, sizeof(names) - len, "%s%.*s", len ? " " : "",
				(int)strcspn(line, ":"), line);
	return names;
}

/* The object of the nth event of that name. */
static unsigned int object(struct recorder *r, const char *name, int nth)
{
	const char *text = event(r, name, nth);

	return strncmp(text, "o=", 2) ? 0 : strtoul(text + 2, NULL, 16);
}

/* The number of the cookie with that key, as fscache shows it. */
static unsigned int cookie_number(const char *key)
{
	char *text = slurp("/proc/fs/fscache/cookies"), hex[512] = " ", *line, *save;
	unsigned int number = 0;

	while (*key)
		sprintf(hex + strlen(hex), "%02x", *key++);
	for (line = text ? strtok_r(text, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save))
		if (strstr(line, hex))
			number = strtoul(line, NULL, 16);
	free(text);
	return number;
}

/* Are the ids of a message known where it is traced? */
static unsigned int known(unsigned int id)
{
	return cf_intended("trace-tells-ids") ? id : 0;
}

FIXTURE(trace) {
	struct cf_env e;
	struct recorder r;
	int dev;
	char *text;
};

FIXTURE_SETUP(trace)
{
	self->text = NULL;
	self->dev = -1;
	ASSERT_SETUP(cf_env_init(&self->e));
	recorder_start(&self->r);
}

FIXTURE_TEARDOWN(trace)
{
	free(self->text);
	cf_env_end(&self->e);
	recorder_end(&self->r);
}

#define SERVICE() do {							\
	ASSERT_SETUP(cf_env_bind(&self->e));				\
	ASSERT_SETUP(cf_env_mount(&self->e));				\
	self->dev = self->e.dev;					\
} while (0)

#define EXPECT_EVENT(name, nth, ...) do {				\
	char __want[256];						\
									\
	snprintf(__want, sizeof(__want), __VA_ARGS__);			\
	EXPECT_STREQ(__want, event(&self->r, name, nth))		\
		TH_LOG("of\n%s", recorded(&self->r));			\
} while (0)

/* ------------------------------------------------------------ the format */

FIXTURE(format) {
	struct cf_env e;
	struct recorder r;
	char *text;
};

FIXTURE_VARIANT(format) {
	const char *name, *fields, *print;
	bool not_in_c;
};

#define FORMAT(_name, _fields, _print, _not_in_c)			\
	FIXTURE_VARIANT_ADD(format, of_ ## _name) {			\
		.name = #_name,						\
		.fields = _fields,					\
		.print = _print,					\
		.not_in_c = _not_in_c,					\
	}

FORMAT(open,
	"unsigned int obj;unsigned int msg_id;unsigned int object_id;unsigned int fd;unsigned int flags;",
	"\"o=%08x mid=%x oid=%x fd=%d f=%x\", REC->obj, REC->msg_id, REC->object_id, REC->fd, REC->flags",
	false);
FORMAT(copen,
	"unsigned int obj;unsigned int msg_id;long len;",
	"\"o=%08x mid=%x l=%lx\", REC->obj, REC->msg_id, REC->len",
	false);
FORMAT(close,
	"unsigned int obj;unsigned int msg_id;unsigned int object_id;",
	"\"o=%08x mid=%x oid=%x\", REC->obj, REC->msg_id, REC->object_id",
	false);
FORMAT(read,
	"unsigned int obj;unsigned int msg_id;unsigned int object_id;loff_t start;size_t len;",
	"\"o=%08x mid=%x oid=%x s=%llx l=%zx\", REC->obj, REC->msg_id, REC->object_id, REC->start, REC->len",
	false);
FORMAT(cread,
	"unsigned int obj;unsigned int msg_id;",
	"\"o=%08x mid=%x\", REC->obj, REC->msg_id",
	false);
FORMAT(fd_write,
	"unsigned int obj;unsigned int backer;loff_t start;size_t len;",
	"\"o=%08x iB=%x s=%llx l=%zx\", REC->obj, REC->backer, REC->start, REC->len",
	false);
FORMAT(fd_release,
	"unsigned int obj;unsigned int object_id;",
	"\"o=%08x oid=%x\", REC->obj, REC->object_id",
	false);
FORMAT(fail,
	"unsigned int obj;unsigned int opcode;loff_t start;size_t len;int error;",
	"\"o=%08x op=%x s=%llx l=%zx e=%d\", REC->obj, REC->opcode, REC->start, REC->len, REC->error",
	true);
FORMAT(restore,
	"size_t count;",
	"\"n=%zu\", REC->count",
	true);

FIXTURE_SETUP(format)
{
	self->text = NULL;
	ASSERT_SETUP(cf_env_init(&self->e));
	recorder_start(&self->r);
}

FIXTURE_TEARDOWN(format)
{
	free(self->text);
	cf_env_end(&self->e);
	recorder_end(&self->r);
}

TEST_F(format, is_what_scripts_know)
{
	char path[PATH_MAX], fields[512] = "", *line, *save, *print = "";

	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	if (variant->not_in_c && cf_is_c())
		SKIP(return, NOT_IN_C);
	snprintf(path, sizeof(path), TRACEFS "/events/cachefiles/" PREFIX "%s/format",
		 variant->name);
	self->text = slurp(path);
	ASSERT_NE(NULL, self->text) TH_LOG("%s: %s", path, strerror(errno));
	for (line = strtok_r(self->text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char field[64];

		if (!strncmp(line, "print fmt: ", 11))
			print = line + 11;
		else if (sscanf(line, " field:%63[^;]", field) == 1 && !strstr(field, " common_"))
			sprintf(fields + strlen(fields), "%s;", field);
	}
	EXPECT_STREQ(variant->fields, fields);
	EXPECT_STREQ(variant->print, print);
}

/* The fields and the print format of an event, as "FIELDS | FORMAT"; "" if there is none. */
static void format_of(const char *event, char *text, size_t len)
{
	char path[PATH_MAX], *format, *line, *save, *print = "";
	size_t n = 0;

	snprintf(path, sizeof(path), TRACEFS "/events/cachefiles/%s/format", event);
	format = slurp(path);
	*text = 0;
	if (!format)
		return;
	for (line = strtok_r(format, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char field[64];

		if (!strncmp(line, "print fmt: ", 11))
			print = line + 11;
		else if (sscanf(line, " field:%63[^;]", field) == 1 && !strstr(field, " common_"))
			n += snprintf(text + n, len - n, "%s;", field);
	}
	snprintf(text + n, len - n, " | %s", print);
	free(format);
}

/* trace-formats.txt has each event of both modes, and there are no others. */
TEST_F(trace, events_of_both_modes_are_those_of_C)
{
	char found[2048], names[2048] = "", *list, *line, *save, *text, *last = NULL;
	bool same = true;
	struct dirent *de;
	size_t n = 0;
	DIR *events;

	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	list = slurp("trace-formats.txt");
	ASSERT_NE(NULL, list);
	for (line = strtok_r(list, "\n", &save);; line = strtok_r(NULL, "\n", &save)) {
		text = line ? strstr(line, " | ") : NULL;
		if (line && !text)
			continue;
		if (text)
			*text = 0;
		/* Of those that are there twice, one will do. */
		if (last && (!line || strcmp(last, line))) {
			EXPECT_TRUE(same) TH_LOG("%s is %s", last, found);
			same = false;
		}
		if (!line)
			break;
		if (!last || strcmp(last, line)) {
			format_of(line, found, sizeof(found));
			same = false;
			n += snprintf(names + n, sizeof(names) - n, " %s ", line);
		}
		same |= !strcmp(text + 3, found);
		last = line;
	}
	events = opendir(TRACEFS "/events/cachefiles");
	ASSERT_NE(NULL, events);
	while ((de = readdir(events))) {
		char name[300];

		snprintf(name, sizeof(name), " %s ", de->d_name);
		if (strncmp(de->d_name, "cachefiles_", 11) ||
		    !strncmp(de->d_name, PREFIX, strlen(PREFIX)))
			continue;
		EXPECT_NE(NULL, strstr(names, name)) TH_LOG("C has no event %s", de->d_name);
	}
	closedir(events);
	free(list);
}

/* ------------------------------------------------------------ the values */

TEST_F_TIMEOUT(trace, follows_an_object_from_OPEN_to_CLOSE, 60)
{
	unsigned int obj, cookie, close_id;
	char path[PATH_MAX];
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;
	struct stat st;

	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	SERVICE();
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "traced", 3 * CF_PAGE + 5));
	obj = object(&self->r, "open", 0);
	ASSERT_NE(0, obj);
	cookie = cookie_number("traced");
	ASSERT_NE(0, cookie);
	EXPECT_EQ(cf_intended("trace-tells-cookie"), obj == cookie);
	EXPECT_EVENT("open", 0, "o=%08x mid=%x oid=%x fd=%d f=0", obj, known(b.msg_id),
		     known(b.object_id), b.anon);
	EXPECT_EVENT("copen", 0, "o=%08x mid=%x l=%x", obj, b.msg_id, 3 * CF_PAGE + 5);

	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, CF_PAGE, 100);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_blob_answer_read(&b, &m));
	EXPECT_EQ(100, cf_finish(op));
	EXPECT_EVENT("read", 0, "o=%08x mid=%x oid=%x s=%llx l=%llx", obj, known(m.w.msg_id),
		     known(b.object_id), (unsigned long long)m.w.read.off,
		     (unsigned long long)m.w.read.len);
	EXPECT_EVENT("cread", 0, "o=%08x mid=%x", obj, m.w.msg_id);

	close(b.fd);
	op = cf_start_umount(self->e.mnt, 0);
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	close_id = m.w.msg_id;
	close(b.anon);
	EXPECT_EQ(0, cf_finish(op));
	self->e.mounted = false;
	EXPECT_EVENT("close", 0, "o=%08x mid=%x oid=%x", obj, known(close_id),
		     known(b.object_id));
	EXPECT_EVENT("fd_release", 0, "o=%08x oid=%x", obj, b.object_id);

	ASSERT_TRUE(CF_WAIT_FOR(cf_find_cache_file(&self->e, "traced", NULL, path), CF_SOON));
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EVENT("fd_write", 0, "o=%08x iB=%x s=%x l=%x", obj, (unsigned int)st.st_ino, CF_PAGE,
		     CF_PAGE);
	EXPECT_STREQ("open copen read fd_write cread close fd_release", sequence(&self->r));
}

TEST_F_TIMEOUT(trace, tells_objects_apart, 60)
{
	unsigned int a_obj, b_obj;
	struct cf_blob a, b;

	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	SERVICE();
	ASSERT_EQ(0, cf_blob_open(&self->e, &a, "a", BLOCK));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "b", 2 * BLOCK));
	a_obj = object(&self->r, "copen", 0);
	ASSERT_NE(0, a_obj);
	b_obj = object(&self->r, "copen", 1);
	ASSERT_NE(0, b_obj);
	EXPECT_NE(a_obj, b_obj);
	ASSERT_EQ(0, cf_fill(b.anon, "b", 0, BLOCK, b.size));
	ASSERT_EQ(0, cf_fill(a.anon, "a", 0, BLOCK, a.size));
	b_obj = object(&self->r, "fd_write", 0);
	ASSERT_NE(0, b_obj);
	EXPECT_NE(a_obj, b_obj);
	EXPECT_EQ(0, strncmp(event(&self->r, "fd_write", 1), event(&self->r, "copen", 0), 10));
}

TEST_F_TIMEOUT(trace, shows_a_reopening, 60)
{
	unsigned int obj, old_id;
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	SERVICE();
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "again", BLOCK));
	obj = object(&self->r, "open", 0);
	ASSERT_NE(0, obj);
	old_id = b.object_id;
	close(b.anon);
	EXPECT_EVENT("fd_release", 0, "o=%08x oid=%x", obj, old_id);
	op = cf_start_pread(b.fd, 0, BLOCK);
	ASSERT_EQ(0, cf_blob_answer_open(&self->e, &b, BLOCK));
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	ASSERT_EQ(0, cf_blob_answer_read(&b, &m));
	EXPECT_EQ(BLOCK, cf_finish(op));
	EXPECT_EVENT("open", 1, "o=%08x mid=%x oid=%x fd=%d f=0", obj, known(b.msg_id),
		     known(b.object_id), b.anon);
	EXPECT_EVENT("copen", 1, "o=%08x mid=%x l=%x", obj, b.msg_id, BLOCK);
	/* When it was queued there was no file descriptor. */
	EXPECT_EVENT("read", 0, "o=%08x mid=%x oid=0 s=0 l=%x", obj, known(m.w.msg_id), BLOCK);
	EXPECT_STREQ("open copen fd_release read open copen fd_write cread", sequence(&self->r));
}

TEST_F_TIMEOUT(trace, says_nothing_of_answers_that_are_refused, 60)
{
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	SERVICE();
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "refused", BLOCK));
	op = cf_start_pread(b.fd, 0, BLOCK);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	EXPECT_EQ(-EINVAL, cf_copen(self->dev, m.w.msg_id, BLOCK));
	EXPECT_EQ(-EINVAL, cf_complete(b.anon, m.w.msg_id + 1));
	ASSERT_EQ(0, cf_blob_answer_read(&b, &m));
	EXPECT_EQ(BLOCK, cf_finish(op));
	EXPECT_STREQ("open copen read fd_write cread", sequence(&self->r));
}

/* ------------------------------------------------------- what goes wrong */

TEST_F_TIMEOUT(trace, shows_what_the_daemon_refuses_or_forgets, 60)
{
	unsigned int obj;
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	SERVICE();
	op = cf_open_and_recv(&self->e, "nothing", &m);
	ASSERT_NE(NULL, op);
	obj = object(&self->r, "open", 0);
	ASSERT_NE(0, obj);
	ASSERT_EQ(0, cf_copen(self->dev, m.w.msg_id, -ENOENT));
	EXPECT_EQ(-ENOENT, cf_finish(op));
	EXPECT_EVENT("fail", 0, "o=%08x op=0 s=0 l=0 e=-2", obj);
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	EXPECT_STREQ("open fail close", sequence(&self->r));

	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "lie", 4 * CF_PAGE));
	obj = object(&self->r, "copen", 0);
	ASSERT_NE(0, obj);
	cf_no_readahead(b.fd);
	op = cf_start_pread(b.fd, 2 * CF_PAGE, BLOCK);
	/* The page cache may ask twice. */
	while (cf_wait(op, 20) == -ETIMEDOUT) {
		ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
		ASSERT_EQ(0, cf_complete(b.anon, m.w.msg_id));
		cf_wait(op, 200);
	}
	EXPECT_EQ(-EIO, cf_finish(op));
	EXPECT_EVENT("fail", 1, "o=%08x op=2 s=%x l=%x e=-5", obj, 2 * CF_PAGE, CF_PAGE);
}

TEST_F_TIMEOUT(trace, shows_who_was_waiting_when_the_cache_died, 60)
{
	struct cf_op *op, *read;
	struct cf_blob b;
	struct cf_msg m;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	SERVICE();
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "read", BLOCK));
	read = cf_start_pread(b.fd, 0, BLOCK);
	ASSERT_EQ(0, cf_expect(self->dev, CF_READ, &m));
	op = cf_open_and_recv(&self->e, "opened", &m);
	ASSERT_NE(NULL, op);
	cf_env_close(&self->e);
	EXPECT_EQ(-EIO, cf_finish(op));
	EXPECT_EQ(-EIO, cf_finish(read));
	EXPECT_NE(NULL, strstr(recorded(&self->r), " op=0 s=0 l=0 e=-5\n"));
	EXPECT_NE(NULL, strstr(recorded(&self->r), " op=2 s=0 l=1000 e=-5\n"));
}

TEST_F_TIMEOUT(trace, shows_what_timed_out, 60)
{
	unsigned int obj;
	struct cf_op *op;
	struct cf_blob b;
	struct cf_msg m;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	self->e.dev = cf_device_open();
	self->dev = self->e.dev;
	ASSERT_GE(self->dev, 0);
	ASSERT_EQ(0, cf_cmd(self->dev, "dir %s", self->e.dir));
	ASSERT_EQ(0, cf_cmd(self->dev, "tag %s", self->e.tag));
	ASSERT_EQ(0, cf_cmd(self->dev, "bind ondemand timeout=1"));
	ASSERT_SETUP(cf_env_mount(&self->e));
	ASSERT_EQ(0, cf_blob_open(&self->e, &b, "slow", BLOCK));
	obj = object(&self->r, "copen", 0);
	ASSERT_NE(0, obj);
	op = cf_open_and_recv(&self->e, "never", &m);
	ASSERT_NE(NULL, op);
	EXPECT_EQ(-ETIMEDOUT, cf_finish(op));
	EXPECT_NE(NULL, strstr(event(&self->r, "fail", 0), " op=0 s=0 l=0 e=-110"));
	op = cf_start_pread(b.fd, 0, BLOCK);
	EXPECT_LT(cf_finish(op), 0);
	EXPECT_EVENT("fail", 1, "o=%08x op=2 s=0 l=%x e=-110", obj, BLOCK);
}

TEST_F_TIMEOUT(trace, shows_how_much_is_restored, 60)
{
	uint32_t first;
	struct cf_blob b;
	struct cf_op *op;
	struct cf_msg m;

	if (cf_is_c())
		SKIP(return, NOT_IN_C);
	if (!self->r.dir[0])
		SKIP(return, "%s", self->r.why);
	SERVICE();
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	EXPECT_EVENT("restore", 0, "n=0");
	op = cf_open_and_recv(&self->e, "twice", &m);
	ASSERT_NE(NULL, op);
	first = m.w.object_id;
	ASSERT_EQ(0, cf_cmd(self->dev, "restore"));
	EXPECT_EVENT("restore", 1, "n=1");

	/* It comes again with another file descriptor, and a CLOSE for the first. */
	snprintf(b.name, sizeof(b.name), "twice");
	ASSERT_EQ(0, cf_blob_take_open(&self->e, &b));
	EXPECT_NE(first, b.object_id);
	ASSERT_EQ(0, cf_expect(self->dev, CF_CLOSE, &m));
	EXPECT_EQ(first, m.w.object_id);
	EXPECT_STREQ("restore open restore close open", sequence(&self->r));
	ASSERT_NE(NULL, strstr(event(&self->r, "close", 0), " mid="));
	EXPECT_EQ(m.w.msg_id, strtoul(strstr(event(&self->r, "close", 0), "mid=") + 4, NULL, 16));
	EXPECT_EQ(first, strtoul(strstr(event(&self->r, "close", 0), "oid=") + 4, NULL, 16));
	ASSERT_EQ(0, cf_copen(self->dev, b.msg_id, BLOCK));
	EXPECT_GE(cf_finish(op), 0);
}

TEST_HARNESS_MAIN
