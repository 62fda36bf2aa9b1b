// SPDX-License-Identifier: GPL-2.0
/*
 * A network file system on the netfs library whose server is in the memory of this
 * module, for the selftests of CacheFiles.
 *
 * Each open file of /dev/cachefiles_testfs is a server, which lives as long as the file
 * or a mount.  Commands written to it make files, and hold or fail the calls of clients;
 * what is read from it is one line of counters.  A client is a mount with the option
 * server=FD.  A mount with "origin" as well is a client without page cache and without
 * fscache, whose calls are neither counted nor held: through it a test changes files
 * behind the back of the client under test, and sees what the server has.  The seconds
 * of a file's mtime are its version; through the origin they can be set.
 *
 * The data of a file is a pattern until it is overwritten: that of cf_pattern() in
 * cachefiles_test.c for the name "NAME.GENERATION".
 */
#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/falloc.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/fscache-cache.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netfs.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/writeback.h>
#include <linux/xarray.h>

#define TESTFS_MAGIC	0x63667466

/* ---- the server ---- */

enum testfs_call {
	TESTFS_READ,
	TESTFS_WRITE,
	TESTFS_GETATTR,
	TESTFS_SETATTR,
	TESTFS_NR_CALLS,
};

static const char *const testfs_calls[] = { "read", "write", "getattr", "setattr" };

struct testfs_server {
	struct kref ref;
	struct mutex lock;		/* the list of files, and all that they are */
	struct list_head files;
	u64 last_id;

	/* What happens to the calls of clients, by enum testfs_call. */
	wait_queue_head_t wait;
	unsigned long held;		/* bits: such calls wait */
	int fail[TESTFS_NR_CALLS];	/* 0 or the error that they return */
	atomic_t waiting;
	atomic_t calls[TESTFS_NR_CALLS];
	atomic64_t bytes[TESTFS_NR_CALLS];
	atomic_t copies, failed_copies;	/* of fscache_write_to_cache() */

	/* What the cache has last said to "source", and how long that took, in ns. */
	enum netfs_io_source source;
	size_t source_len;
	u64 source_ns;

	/* A task that has the lock of an inode of another file system, or NULL. */
	struct mutex locker_lock;
	struct task_struct *locker;
	struct completion locked;
	struct file *locked_file;
};

struct testfs_file {
	struct kref ref;		/* one of the server's list, one of each inode */
	struct list_head link;		/* empty once it is removed */
	char *name;
	u64 id;
	u64 seed;			/* of the pattern */
	u64 version;			/* of data and size */
	loff_t size;
	loff_t pattern_size;		/* what is behind that and not in pages is 0 */
	struct xarray pages;		/* what was written: kmalloc()ed, of PAGE_SIZE */
};

static void testfs_drop_pages(struct testfs_file *f, pgoff_t first)
{
	unsigned long index;
	void *page;

	xa_for_each_start(&f->pages, index, page, first) {
		xa_erase(&f->pages, index);
		kfree(page);
	}
}

static void testfs_free_file(struct kref *ref)
{
	struct testfs_file *f = container_of(ref, struct testfs_file, ref);

	testfs_drop_pages(f, 0);
	xa_destroy(&f->pages);
	kfree(f->name);
	kfree(f);
}

static void testfs_put_file(struct testfs_file *f)
{
	kref_put(&f->ref, testfs_free_file);
}

static void testfs_free_server(struct kref *ref)
{
	struct testfs_server *s = container_of(ref, struct testfs_server, ref);
	struct testfs_file *f, *next;

	list_for_each_entry_safe(f, next, &s->files, link) {
		list_del(&f->link);
		testfs_put_file(f);
	}
	kfree(s);
}

/* The caller has the lock of the server. */
static struct testfs_file *testfs_find(struct testfs_server *s, const char *name, size_t len)
{
	struct testfs_file *f;

	list_for_each_entry(f, &s->files, link)
		if (strlen(f->name) == len && !memcmp(f->name, name, len))
			return f;
	return NULL;
}

/* The same. */
static struct testfs_file *testfs_make(struct testfs_server *s, const char *name, size_t len)
{
	struct testfs_file *f = kzalloc_obj(*f);

	if (!f)
		return NULL;
	f->name = kmemdup_nul(name, len, GFP_KERNEL);
	if (!f->name) {
		kfree(f);
		return NULL;
	}
	kref_init(&f->ref);
	xa_init(&f->pages);
	f->id = ++s->last_id;
	f->version = 1;
	list_add(&f->link, &s->files);
	return f;
}

static u64 testfs_word(u64 seed, u64 n)
{
	u64 z = seed + n * 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return (z ^ (z >> 31)) | 0x0101010101010101ULL;
}

static u64 testfs_seed(const char *name)
{
	u64 h = 0xcbf29ce484222325ULL;

	for (; *name; name++)
		h = (h ^ (u8)*name) * 0x100000001b3ULL;
	return h;
}

/* What a page has that was not written. */
static void testfs_unwritten(const struct testfs_file *f, pgoff_t index, u8 *page)
{
	loff_t pos = (loff_t)index << PAGE_SHIFT;
	size_t i, len = clamp_t(loff_t, f->pattern_size - pos, 0, PAGE_SIZE);
	__le64 *words = (__le64 *)page;

	for (i = 0; i < DIV_ROUND_UP(len, 8); i++)
		words[i] = cpu_to_le64(testfs_word(f->seed, (pos >> 3) + i));
	memset(page + len, 0, PAGE_SIZE - len);
}

/* A page that is to be written. */
static u8 *testfs_get_page(struct testfs_file *f, pgoff_t index)
{
	u8 *page = xa_load(&f->pages, index);

	if (page)
		return page;
	page = kmalloc(PAGE_SIZE, GFP_NOFS);
	if (!page)
		return NULL;
	testfs_unwritten(f, index, page);
	if (xa_err(xa_store(&f->pages, index, page, GFP_NOFS))) {
		kfree(page);
		return NULL;
	}
	return page;
}

static ssize_t testfs_server_read(struct testfs_server *s, struct testfs_file *f, loff_t pos,
				  struct iov_iter *iter)
{
	ssize_t done = 0;
	u8 *unwritten = kmalloc(PAGE_SIZE, GFP_NOFS);

	if (!unwritten)
		return -ENOMEM;
	mutex_lock(&s->lock);
	while (iov_iter_count(iter) && pos < f->size) {
		size_t off = offset_in_page(pos);
		size_t len = min_t(loff_t, f->size - pos, PAGE_SIZE - off);
		u8 *page = xa_load(&f->pages, pos >> PAGE_SHIFT);
		size_t n;

		if (!page) {
			testfs_unwritten(f, pos >> PAGE_SHIFT, unwritten);
			page = unwritten;
		}
		n = copy_to_iter(page + off, min(len, iov_iter_count(iter)), iter);
		if (!n)
			break;
		pos += n;
		done += n;
	}
	mutex_unlock(&s->lock);
	kfree(unwritten);
	return done;
}

/*
 * The file has changed.  The client that has done it, and had the version before,
 * has the new one.  The caller has the lock of the server.
 */
static void testfs_changed(struct testfs_file *f, u64 *version)
{
	f->version++;
	if (version && *version == f->version - 1)
		WRITE_ONCE(*version, f->version);
}

static ssize_t testfs_server_write(struct testfs_server *s, struct testfs_file *f, loff_t pos,
				   struct iov_iter *iter, u64 *version)
{
	ssize_t done = 0;

	mutex_lock(&s->lock);
	while (iov_iter_count(iter)) {
		size_t off = offset_in_page(pos);
		u8 *page = testfs_get_page(f, pos >> PAGE_SHIFT);
		size_t n;

		if (!page)
			break;
		n = copy_from_iter(page + off, min(PAGE_SIZE - off, iov_iter_count(iter)), iter);
		if (!n)
			break;
		pos += n;
		done += n;
		f->size = max(f->size, pos);
	}
	testfs_changed(f, version);
	mutex_unlock(&s->lock);
	return done ?: -EIO;
}

static int testfs_zero(struct testfs_file *f, loff_t from, loff_t to)
{
	while (from < to) {
		size_t off = offset_in_page(from);
		size_t len = min_t(loff_t, to - from, PAGE_SIZE - off);
		u8 *page = testfs_get_page(f, from >> PAGE_SHIFT);

		if (!page)
			return -ENOMEM;
		memset(page + off, 0, len);
		from += len;
	}
	return 0;
}

static int testfs_server_zero(struct testfs_server *s, struct testfs_file *f, loff_t from,
			      loff_t to, u64 *version)
{
	int err;

	mutex_lock(&s->lock);
	err = testfs_zero(f, from, min(to, f->size));
	testfs_changed(f, version);
	mutex_unlock(&s->lock);
	return err;
}

static int testfs_server_truncate(struct testfs_server *s, struct testfs_file *f, loff_t size,
				  u64 *version)
{
	int err = 0;

	mutex_lock(&s->lock);
	testfs_drop_pages(f, DIV_ROUND_UP(size, PAGE_SIZE));
	f->pattern_size = min(f->pattern_size, size);
	if (xa_load(&f->pages, size >> PAGE_SHIFT))
		err = testfs_zero(f, size, round_up(size, PAGE_SIZE));
	f->size = size;
	testfs_changed(f, version);
	mutex_unlock(&s->lock);
	return err;
}

/* Count a call, and wait while such calls are held: 0, or what it has to fail with. */
static int testfs_call(struct testfs_server *s, enum testfs_call call)
{
	atomic_inc(&s->calls[call]);
	if (test_bit(call, &s->held)) {
		atomic_inc(&s->waiting);
		/* Not uninterruptible: that would be a hung task after a minute. */
		wait_event_idle(s->wait, !test_bit(call, &s->held));
		atomic_dec(&s->waiting);
	}
	return READ_ONCE(s->fail[call]);
}

/* ---- its device ---- */

static int testfs_locker(void *data)
{
	struct testfs_server *s = data;
	struct inode *inode = file_inode(s->locked_file);

	inode_lock(inode);
	complete(&s->locked);
	for (;;) {
		set_current_state(TASK_IDLE);
		if (kthread_should_stop())
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	inode_unlock(inode);
	return 0;
}

/* The caller has the locker_lock. */
static int testfs_unlock_inode(struct testfs_server *s)
{
	if (!s->locker)
		return -ENOENT;
	kthread_stop(s->locker);
	s->locker = NULL;
	fput(s->locked_file);
	return 0;
}

static int testfs_lock_inode(struct testfs_server *s, int fd)
{
	struct task_struct *locker;

	if (s->locker)
		return -EBUSY;
	s->locked_file = fget(fd);
	if (!s->locked_file)
		return -EBADF;
	init_completion(&s->locked);
	locker = kthread_run(testfs_locker, s, "testfs_locker");
	if (IS_ERR(locker)) {
		fput(s->locked_file);
		return PTR_ERR(locker);
	}
	s->locker = locker;
	wait_for_completion(&s->locked);
	return 0;
}

static int testfs_dev_open(struct inode *inode, struct file *file)
{
	struct testfs_server *s = kzalloc_obj(*s);

	if (!s)
		return -ENOMEM;
	kref_init(&s->ref);
	mutex_init(&s->lock);
	mutex_init(&s->locker_lock);
	INIT_LIST_HEAD(&s->files);
	init_waitqueue_head(&s->wait);
	file->private_data = s;
	return 0;
}

static int testfs_dev_release(struct inode *inode, struct file *file)
{
	struct testfs_server *s = file->private_data;

	/* Nobody else can let the calls go on. */
	WRITE_ONCE(s->held, 0);
	wake_up_all(&s->wait);
	mutex_lock(&s->locker_lock);
	testfs_unlock_inode(s);
	mutex_unlock(&s->locker_lock);
	kref_put(&s->ref, testfs_free_server);
	return 0;
}

static ssize_t testfs_dev_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	struct testfs_server *s = file->private_data;
	char text[512];
	int i, n = 0;

	for (i = 0; i < TESTFS_NR_CALLS; i++)
		n += scnprintf(text + n, sizeof(text) - n, "%s=%d %s-bytes=%lld ",
			       testfs_calls[i], atomic_read(&s->calls[i]),
			       testfs_calls[i], atomic64_read(&s->bytes[i]));
	n += scnprintf(text + n, sizeof(text) - n, "waiting=%d copies=%d failed-copies=%d ",
		       atomic_read(&s->waiting), atomic_read(&s->copies),
		       atomic_read(&s->failed_copies));
	n += scnprintf(text + n, sizeof(text) - n, "cached=%d source-len=%zu source-ns=%llu\n",
		       READ_ONCE(s->source) == NETFS_READ_FROM_CACHE, READ_ONCE(s->source_len),
		       READ_ONCE(s->source_ns));
	return simple_read_from_buffer(buf, len, pos, text, n);
}

/* "file NAME SIZE GENERATION": what it has now, on the server. */
static int testfs_set_file(struct testfs_server *s, const char *name, loff_t size, int generation)
{
	char *pattern = kasprintf(GFP_KERNEL, "%s.%d", name, generation);
	struct testfs_file *f;

	if (!pattern)
		return -ENOMEM;
	mutex_lock(&s->lock);
	f = testfs_find(s, name, strlen(name)) ?: testfs_make(s, name, strlen(name));
	if (f) {
		testfs_drop_pages(f, 0);
		f->seed = testfs_seed(pattern);
		f->size = size;
		f->pattern_size = size;
		testfs_changed(f, NULL);
	}
	mutex_unlock(&s->lock);
	kfree(pattern);
	return f ? 0 : -ENOMEM;
}

static int testfs_ask_cache(struct testfs_server *s, int fd, loff_t pos, size_t len, int count);

static int testfs_command(struct testfs_server *s, const char *cmd, char *name)
{
	int generation, call, number, n;
	long long size;
	size_t len;

	if (sscanf(cmd, "file %255s %lld %d", name, &size, &generation) == 3)
		return testfs_set_file(s, name, size, generation);
	if (sscanf(cmd, "settle %d", &number) == 1)
		return testfs_ask_cache(s, number, 0, 0, 0);
	if (sscanf(cmd, "source %d %lld %zu %d", &number, &size, &len, &n) == 4)
		return testfs_ask_cache(s, number, size, len, n);

	if (!strcmp(cmd, "unlock") || sscanf(cmd, "lock %d", &number) == 1) {
		mutex_lock(&s->locker_lock);
		n = *cmd == 'u' ? testfs_unlock_inode(s) : testfs_lock_inode(s, number);
		mutex_unlock(&s->locker_lock);
		return n;
	}

	/* The others are "VERB CALL". */
	if (sscanf(cmd, "%*s %15s", name) != 1)
		return -EINVAL;
	call = match_string(testfs_calls, TESTFS_NR_CALLS, name);
	if (call < 0)
		return -EINVAL;
	if (strstarts(cmd, "hold ")) {
		set_bit(call, &s->held);
	} else if (strstarts(cmd, "release ")) {
		clear_bit(call, &s->held);
		wake_up_all(&s->wait);
	} else if (sscanf(cmd, "fail %*s %d", &number) == 1) {
		WRITE_ONCE(s->fail[call], -number);
	} else {
		return -EINVAL;
	}
	return 0;
}

static ssize_t testfs_dev_write(struct file *file, const char __user *buf, size_t len, loff_t *pos)
{
	char *cmd, *name;
	int err;

	if (len > 511)
		return -EINVAL;
	cmd = memdup_user_nul(buf, len);
	if (IS_ERR(cmd))
		return PTR_ERR(cmd);
	name = kmalloc(256, GFP_KERNEL);
	err = name ? testfs_command(file->private_data, cmd, name) : -ENOMEM;
	kfree(name);
	kfree(cmd);
	return err ?: len;
}

static const struct file_operations testfs_dev_fops = {
	.owner		= THIS_MODULE,
	.open		= testfs_dev_open,
	.release	= testfs_dev_release,
	.read		= testfs_dev_read,
	.write		= testfs_dev_write,
};

static struct miscdevice testfs_dev = {
	.minor		= MISC_DYNAMIC_MINOR,
	.name		= "cachefiles_testfs",
	.fops		= &testfs_dev_fops,
	.mode		= 0600,
};

/* ---- a mount ---- */

/* Whose ways it has. */
enum testfs_style {
	/* Copies what it has read by write-back, and caches what is written. */
	TESTFS_SMB,
	/* The same, but the library cannot have the cache invalidated if a write to it fails. */
	TESTFS_9P,
	/* Copies by PG_private_2; open for writing, a file is not cached. */
	TESTFS_NFS,
	/* Copies by PG_private_2, and what is written by fscache_write_to_cache(). */
	TESTFS_CEPH,
	/* A file is one object, read and cached at once; files are not written. */
	TESTFS_AFS,
};

struct testfs_mount {
	struct testfs_server *server;
	struct fscache_volume *volume;
	enum testfs_style style;
	bool origin;
	bool weak;			/* never asks the server whether a file has changed */
	u32 rsize, wsize;		/* the maximum of one call; 0 for none */
	u32 aux_len, key_len;		/* of cookies; 0 for keys as long as names */
	char *key, *tag;
	/* Coherency data of the volume: when it is acquired, and when it is given up. */
	char *coherency, *last_coherency;
	bool invalidate;		/* the volume when it is given up */
};

struct testfs_inode {
	struct netfs_inode netfs;	/* has to be the first */
	struct testfs_file *file;
	u64 version;			/* of what this client has */
	/* Style AFS, under the inode's lock. */
	struct folio_queue *buffer;
	size_t buffer_size;
	bool buffer_valid;
};

static struct kmem_cache *testfs_inodes;
static struct workqueue_struct *testfs_wq;

static struct testfs_mount *testfs_mount(const struct inode *inode)
{
	return inode->i_sb->s_fs_info;
}

static struct testfs_inode *testfs_inode(struct inode *inode)
{
	return container_of(inode, struct testfs_inode, netfs.inode);
}

static struct fscache_cookie *testfs_cookie(struct inode *inode)
{
	return netfs_i_cookie(netfs_inode(inode));
}

static int testfs_mount_call(struct testfs_mount *m, enum testfs_call call)
{
	return m->origin ? 0 : testfs_call(m->server, call);
}

static void testfs_count(struct testfs_mount *m, enum testfs_call call, ssize_t n)
{
	if (!m->origin && n > 0)
		atomic64_add(n, &m->server->bytes[call]);
}

/* Auxiliary data: all of it, however long, is another one for another version. */
static const void *testfs_aux(struct inode *inode, u8 aux[255])
{
	u64 version = READ_ONCE(testfs_inode(inode)->version);
	u32 i, len = testfs_mount(inode)->aux_len;

	for (i = 0; i < len; i++)
		aux[i] = (version >> (i % 8 * 8)) + i;
	return len ? aux : NULL;
}

/*
 * "settle FD": wait until the cache has looked up a file of a client.  "source FD OFF LEN
 * COUNT": then have the cache say so many times where a read comes from.
 */
static int testfs_ask_cache(struct testfs_server *s, int fd, loff_t pos, size_t len, int count)
{
	struct netfs_io_request *rreq = kzalloc_obj(*rreq);
	struct netfs_io_subrequest *subreq = kzalloc_obj(*subreq);
	struct file *file = fget(fd);
	struct netfs_cache_resources *cres;
	struct inode *inode;
	int err = -ENOMEM;
	u64 since;

	if (!rreq || !subreq)
		goto out;
	err = -EBADF;
	if (!file || file_inode(file)->i_sb->s_magic != TESTFS_MAGIC)
		goto out;
	inode = file_inode(file);
	cres = &rreq->cache_resources;
	rreq->inode = inode;
	rreq->origin = NETFS_READAHEAD;
	subreq->rreq = rreq;
	err = fscache_begin_read_operation(cres, testfs_cookie(inode));
	if (err)
		goto out;
	if (!fscache_wait_for_operation(cres, FSCACHE_WANT_READ))
		err = -ENOBUFS;
	since = ktime_get_raw_ns();
	while (!err && count--) {
		subreq->start = pos;
		subreq->len = len;
		subreq->flags = 0;
		WRITE_ONCE(s->source, cres->ops->prepare_read(subreq, i_size_read(inode)));
	}
	WRITE_ONCE(s->source_ns, ktime_get_raw_ns() - since);
	WRITE_ONCE(s->source_len, subreq->len);
	fscache_end_operation(cres);
out:
	if (file)
		fput(file);
	kfree(subreq);
	kfree(rreq);
	return err;
}

/* ---- data ---- */

static void testfs_read_worker(struct work_struct *work)
{
	struct netfs_io_subrequest *subreq = container_of(work, struct netfs_io_subrequest, work);
	struct netfs_io_request *rreq = subreq->rreq;
	struct testfs_mount *m = testfs_mount(rreq->inode);
	struct testfs_file *f = testfs_inode(rreq->inode)->file;
	loff_t pos = subreq->start + subreq->transferred;
	ssize_t n = testfs_mount_call(m, TESTFS_READ);

	if (!n)
		n = testfs_server_read(m->server, f, pos, &subreq->io_iter);
	testfs_count(m, TESTFS_READ, n);
	if (rreq->origin != NETFS_UNBUFFERED_READ && rreq->origin != NETFS_DIO_READ)
		__set_bit(NETFS_SREQ_CLEAR_TAIL, &subreq->flags);
	if (n >= 0 && pos + n >= READ_ONCE(f->size))
		__set_bit(NETFS_SREQ_HIT_EOF, &subreq->flags);
	if (n > 0) {
		subreq->transferred += n;
		__set_bit(NETFS_SREQ_MADE_PROGRESS, &subreq->flags);
	}
	subreq->error = min(n, 0);
	netfs_read_subreq_terminated(subreq);
}

/* Calls do not wait in the task that reads, so that several can be held at once. */
static void testfs_issue_read(struct netfs_io_subrequest *subreq)
{
	INIT_WORK(&subreq->work, testfs_read_worker);
	queue_work(testfs_wq, &subreq->work);
}

static ssize_t testfs_upload(struct inode *inode, loff_t pos, struct iov_iter *iter)
{
	struct testfs_inode *ti = testfs_inode(inode);
	struct testfs_mount *m = testfs_mount(inode);
	ssize_t n = testfs_mount_call(m, TESTFS_WRITE);
	unsigned long long end, i_size, remote, zero;

	if (!n)
		n = testfs_server_write(m->server, ti->file, pos, iter, &ti->version);
	testfs_count(m, TESTFS_WRITE, n);
	if (n > 0) {
		end = pos + n;
		spin_lock(&inode->i_lock);
		netfs_read_sizes(inode, &i_size, &remote, &zero);
		if (end > i_size || end > remote)
			netfs_write_sizes(inode, max(i_size, end), max(remote, end), zero);
		spin_unlock(&inode->i_lock);
	}
	return n;
}

static void testfs_write_worker(struct work_struct *work)
{
	struct netfs_io_subrequest *subreq = container_of(work, struct netfs_io_subrequest, work);
	ssize_t n = testfs_upload(subreq->rreq->inode, subreq->start + subreq->transferred,
				  &subreq->io_iter);

	if (n > 0)
		__set_bit(NETFS_SREQ_MADE_PROGRESS, &subreq->flags);
	netfs_write_subrequest_terminated(subreq, n);
}

static void testfs_issue_write(struct netfs_io_subrequest *subreq)
{
	INIT_WORK(&subreq->work, testfs_write_worker);
	queue_work(testfs_wq, &subreq->work);
}

static int testfs_init_request(struct netfs_io_request *rreq, struct file *file)
{
	struct testfs_mount *m = testfs_mount(rreq->inode);

	if (m->rsize)
		rreq->io_streams[0].sreq_max_len = m->rsize;
	if (m->wsize)
		rreq->wsize = m->wsize;
	if (m->style == TESTFS_NFS || m->style == TESTFS_CEPH)
		__set_bit(NETFS_RREQ_USE_PGPRIV2, &rreq->flags);
	return 0;
}

static void testfs_begin_writeback(struct netfs_io_request *wreq)
{
	struct testfs_mount *m = testfs_mount(wreq->inode);

	if (m->wsize)
		wreq->wsize = m->wsize;
	wreq->io_streams[0].avail = m->style != TESTFS_AFS;
}

static void testfs_invalidate_cache(struct netfs_io_request *wreq)
{
	struct inode *inode = wreq->inode;
	u8 aux[255];

	fscache_invalidate(testfs_cookie(inode), testfs_aux(inode, aux), i_size_read(inode), 0);
}

static const struct netfs_request_ops testfs_request_ops = {
	.init_request		= testfs_init_request,
	.issue_read		= testfs_issue_read,
	.begin_writeback	= testfs_begin_writeback,
	.issue_write		= testfs_issue_write,
	.invalidate_cache	= testfs_invalidate_cache,
};

static const struct netfs_request_ops testfs_9p_request_ops = {
	.init_request		= testfs_init_request,
	.issue_read		= testfs_issue_read,
	.begin_writeback	= testfs_begin_writeback,
	.issue_write		= testfs_issue_write,
};

static const struct address_space_operations testfs_aops = {
	.read_folio		= netfs_read_folio,
	.readahead		= netfs_readahead,
	.dirty_folio		= netfs_dirty_folio,
	.release_folio		= netfs_release_folio,
	.invalidate_folio	= netfs_invalidate_folio,
	.direct_IO		= noop_direct_IO,
	.writepages		= netfs_writepages,
	.migrate_folio		= filemap_migrate_folio,
};

static void testfs_copied(void *priv, ssize_t n)
{
	struct testfs_server *s = priv;

	atomic_inc(n < 0 ? &s->failed_copies : &s->copies);
}

/* As ceph does: upload a folio, and put a copy of it into the cache at the same time. */
static int testfs_ceph_writepages(struct address_space *mapping, struct writeback_control *wbc)
{
	struct inode *inode = mapping->host;
	struct fscache_cookie *cookie = testfs_cookie(inode);
	struct folio *folio = NULL;
	int err = 0;

	while ((folio = writeback_iter(mapping, wbc, folio, &err))) {
		loff_t size = i_size_read(inode), pos = folio_pos(folio);
		bool caching = fscache_cookie_enabled(cookie);
		struct iov_iter iter;
		struct bio_vec bv;
		ssize_t n;

		if (pos >= size) {
			folio_unlock(folio);
			continue;
		}
		bvec_set_folio(&bv, folio, min_t(loff_t, size - pos, folio_size(folio)), 0);
		iov_iter_bvec(&iter, ITER_SOURCE, &bv, 1, bv.bv_len);
		folio_wait_private_2(folio);
		folio_start_writeback(folio);
		if (caching)
			folio_start_private_2(folio);
		folio_unlock(folio);
		fscache_write_to_cache(cookie, mapping, pos, bv.bv_len, size, testfs_copied,
				       testfs_mount(inode)->server, true, caching);
		n = testfs_upload(inode, pos, &iter);
		if (n < 0) {
			mapping_set_error(mapping, n);
			err = n;
		}
		folio_end_writeback(folio);
	}
	return err;
}

static const struct address_space_operations testfs_ceph_aops = {
	.read_folio		= netfs_read_folio,
	.readahead		= netfs_readahead,
	.dirty_folio		= netfs_dirty_folio,
	.release_folio		= netfs_release_folio,
	.invalidate_folio	= netfs_invalidate_folio,
	.direct_IO		= noop_direct_IO,
	.writepages		= testfs_ceph_writepages,
	.migrate_folio		= filemap_migrate_folio,
};

static int testfs_afs_writepages(struct address_space *mapping, struct writeback_control *wbc)
{
	struct testfs_inode *ti = testfs_inode(mapping->host);
	struct iov_iter iter;

	if (!READ_ONCE(ti->buffer_valid))
		return 0;
	iov_iter_folio_queue(&iter, ITER_SOURCE, ti->buffer, 0, 0, i_size_read(mapping->host));
	return min(netfs_writeback_single(mapping, wbc, &iter), 0);
}

static const struct address_space_operations testfs_afs_aops = {
	.writepages		= testfs_afs_writepages,
};

/* Get all of the file into the buffer, if it is not there.  The inode is locked. */
static int testfs_afs_fill(struct inode *inode, struct file *file)
{
	struct testfs_inode *ti = testfs_inode(inode);
	size_t size = ti->buffer_size;
	struct iov_iter iter;
	ssize_t n;

	if (ti->buffer_valid)
		return 0;
	n = netfs_alloc_folioq_buffer(NULL, &ti->buffer, &size, i_size_read(inode),
				      mapping_gfp_mask(inode->i_mapping));
	ti->buffer_size = size;
	if (n < 0)
		return n;
	iov_iter_folio_queue(&iter, ITER_DEST, ti->buffer, 0, 0, size);
	n = netfs_read_single(inode, file, &iter);
	if (n < i_size_read(inode))
		return n < 0 ? n : -EIO;
	WRITE_ONCE(ti->buffer_valid, true);
	return 0;
}

static ssize_t testfs_afs_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t done = 0;
	struct iov_iter from;
	loff_t size;
	u8 *bounce;
	int err;

	bounce = kmalloc(PAGE_SIZE, GFP_KERNEL);
	if (!bounce)
		return -ENOMEM;
	inode_lock(inode);
	size = i_size_read(inode);
	err = iocb->ki_pos < size ? testfs_afs_fill(inode, iocb->ki_filp) : 0;
	if (!err && iocb->ki_pos < size) {
		iov_iter_folio_queue(&from, ITER_SOURCE, testfs_inode(inode)->buffer, 0, 0, size);
		iov_iter_advance(&from, iocb->ki_pos);
		while (iov_iter_count(&from) && iov_iter_count(to)) {
			size_t n = min3(PAGE_SIZE, iov_iter_count(&from), iov_iter_count(to));

			n = copy_to_iter(bounce, copy_from_iter(bounce, n, &from), to);
			if (!n)
				break;
			done += n;
		}
	}
	inode_unlock(inode);
	kfree(bounce);
	iocb->ki_pos += done;
	return err ?: done;
}

/* ---- files ---- */

/* Ask the server whether the file is another one now. */
static int testfs_revalidate(struct inode *inode)
{
	struct testfs_inode *ti = testfs_inode(inode);
	struct testfs_mount *m = testfs_mount(inode);
	bool changed;
	u8 aux[255];
	loff_t size;
	int err;

	if (!ti->file || m->weak)
		return 0;
	err = testfs_mount_call(m, TESTFS_GETATTR);
	if (err)
		return err;
	mutex_lock(&m->server->lock);
	changed = ti->version != ti->file->version;
	WRITE_ONCE(ti->version, ti->file->version);
	size = ti->file->size;
	mutex_unlock(&m->server->lock);
	if (!changed)
		return 0;

	/* What is still to be copied to the cache is old, and must not get into its new file. */
	filemap_write_and_wait(inode->i_mapping);
	spin_lock(&inode->i_lock);
	netfs_write_sizes(inode, size, size, size);
	spin_unlock(&inode->i_lock);
	/* First the cache, or a reader could fill the page cache from it again. */
	fscache_invalidate(testfs_cookie(inode), testfs_aux(inode, aux), size, 0);
	WRITE_ONCE(ti->buffer_valid, false);
	/* It fails for what has been read or written in the meantime, which is new. */
	invalidate_inode_pages2(inode->i_mapping);
	return 0;
}

static int testfs_open(struct inode *inode, struct file *file)
{
	struct fscache_cookie *cookie = testfs_cookie(inode);
	enum testfs_style style = testfs_mount(inode)->style;
	bool write = file->f_mode & FMODE_WRITE;
	int err = testfs_revalidate(inode);
	u8 aux[255];

	if (err)
		return err;
	if (write && style == TESTFS_AFS)
		return -EROFS;
	fscache_use_cookie(cookie, write);
	if (write && style == TESTFS_NFS)
		fscache_invalidate(cookie, testfs_aux(inode, aux), i_size_read(inode),
				   FSCACHE_INVAL_DIO_WRITE);
	return 0;
}

/* What was written is on the server when close() returns. */
static int testfs_flush(struct file *file, fl_owner_t id)
{
	return file->f_mode & FMODE_WRITE ? filemap_write_and_wait(file->f_mapping) : 0;
}

static int testfs_release(struct inode *inode, struct file *file)
{
	struct fscache_cookie *cookie = testfs_cookie(inode);
	loff_t size = i_size_read(inode);
	u8 aux[255];

	/* NFS also updates what it has only read. */
	if (file->f_mode & FMODE_WRITE || testfs_mount(inode)->style == TESTFS_NFS)
		fscache_unuse_cookie(cookie, testfs_aux(inode, aux), &size);
	else
		fscache_unuse_cookie(cookie, NULL, NULL);
	return 0;
}

static int testfs_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	return file_write_and_wait_range(file, start, end);
}

static vm_fault_t testfs_page_mkwrite(struct vm_fault *vmf)
{
	return netfs_page_mkwrite(vmf, NULL);
}

static const struct vm_operations_struct testfs_vm_ops = {
	.fault		= filemap_fault,
	.map_pages	= filemap_map_pages,
	.page_mkwrite	= testfs_page_mkwrite,
};

static int testfs_mmap_prepare(struct vm_area_desc *desc)
{
	int err = generic_file_mmap_prepare(desc);

	if (!err)
		desc->vm_ops = &testfs_vm_ops;
	return err;
}

static long testfs_fallocate(struct file *file, int mode, loff_t off, loff_t len)
{
	struct inode *inode = file_inode(file);
	struct testfs_inode *ti = testfs_inode(inode);
	struct testfs_mount *m = testfs_mount(inode);
	u8 aux[255];
	int err;

	if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	inode_lock(inode);
	err = filemap_write_and_wait(inode->i_mapping);
	filemap_invalidate_lock(inode->i_mapping);
	if (!err)
		err = testfs_mount_call(m, TESTFS_SETATTR);
	if (!err)
		err = testfs_server_zero(m->server, ti->file, off, off + len, &ti->version);
	if (!err) {
		fscache_invalidate(testfs_cookie(inode), testfs_aux(inode, aux),
				   i_size_read(inode), 0);
		truncate_pagecache_range(inode, off, off + len - 1);
	}
	filemap_invalidate_unlock(inode->i_mapping);
	inode_unlock(inode);
	return err;
}

static const struct file_operations testfs_fops = {
	.open		= testfs_open,
	.flush		= testfs_flush,
	.release	= testfs_release,
	.llseek		= generic_file_llseek,
	.read_iter	= netfs_file_read_iter,
	.write_iter	= netfs_file_write_iter,
	.mmap_prepare	= testfs_mmap_prepare,
	.splice_read	= filemap_splice_read,
	.splice_write	= iter_file_splice_write,
	.fsync		= testfs_fsync,
	.fallocate	= testfs_fallocate,
};

static const struct file_operations testfs_afs_fops = {
	.open		= testfs_open,
	.release	= testfs_release,
	.llseek		= generic_file_llseek,
	.read_iter	= testfs_afs_read_iter,
	.fsync		= testfs_fsync,
};

static int testfs_resize(struct inode *inode, loff_t size)
{
	struct fscache_cookie *cookie = testfs_cookie(inode);
	struct testfs_inode *ti = testfs_inode(inode);
	struct testfs_mount *m = testfs_mount(inode);
	loff_t old = i_size_read(inode);
	u8 aux[255];
	int err;

	err = filemap_write_and_wait(inode->i_mapping);
	if (!err)
		err = testfs_mount_call(m, TESTFS_SETATTR);
	if (!err)
		err = testfs_server_truncate(m->server, ti->file, size, &ti->version);
	if (err)
		return err;
	netfs_resize_file(&ti->netfs, size, true);
	spin_lock(&inode->i_lock);
	i_size_write(inode, size);
	spin_unlock(&inode->i_lock);
	if (size > old)
		netfs_clear_stale_post_isize(inode, old, size);
	truncate_pagecache(inode, size);
	netfs_wait_for_outstanding_io(inode);

	fscache_use_cookie(cookie, true);
	fscache_resize_cookie(cookie, size);
	fscache_unuse_cookie(cookie, testfs_aux(inode, aux), &size);
	return 0;
}

static int testfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	struct testfs_mount *m = testfs_mount(inode);
	int err = setattr_prepare(idmap, dentry, attr);

	if (!err && attr->ia_valid & ATTR_SIZE && attr->ia_size != i_size_read(inode))
		err = testfs_resize(inode, attr->ia_size);
	if (err)
		return err;
	if (m->origin && attr->ia_valid & ATTR_MTIME_SET) {
		mutex_lock(&m->server->lock);
		testfs_inode(inode)->file->version = attr->ia_mtime.tv_sec;
		mutex_unlock(&m->server->lock);
	}
	setattr_copy(idmap, inode, attr);
	return 0;
}

static int testfs_getattr(struct mnt_idmap *idmap, const struct path *path, struct kstat *stat,
			  u32 mask, unsigned int flags)
{
	struct inode *inode = d_inode(path->dentry);
	int err = testfs_revalidate(inode);

	generic_fillattr(idmap, mask, inode, stat);
	stat->mtime.tv_sec = READ_ONCE(testfs_inode(inode)->version);
	return err;
}

static const struct inode_operations testfs_file_iops = {
	.setattr	= testfs_setattr,
	.getattr	= testfs_getattr,
};

/* ---- the directory: the server makes its files, clients unlink them ---- */

static struct fscache_cookie *testfs_get_cookie(struct inode *inode)
{
	struct testfs_mount *m = testfs_mount(inode);
	const char *name = testfs_inode(inode)->file->name;
	size_t len = m->key_len ?: strlen(name);
	u8 key[256], aux[255];

	memset(key, '.', sizeof(key));
	memcpy(key, name, min(len, strlen(name)));
	return fscache_acquire_cookie(m->volume, 0, key, len, testfs_aux(inode, aux), m->aux_len,
				      i_size_read(inode));
}

/* The inode of a file.  Takes over a reference of the file. */
static struct inode *testfs_iget(struct super_block *sb, struct testfs_file *f)
{
	struct testfs_mount *m = sb->s_fs_info;
	struct inode *inode = iget_locked(sb, f->id);
	struct testfs_inode *ti;

	if (!inode || !(inode_state_read_once(inode) & I_NEW)) {
		testfs_put_file(f);
		return inode ?: ERR_PTR(-ENOMEM);
	}
	ti = testfs_inode(inode);
	ti->file = f;
	mutex_lock(&m->server->lock);
	ti->version = f->version;
	i_size_write(inode, f->size);
	mutex_unlock(&m->server->lock);
	inode->i_mode = S_IFREG | 0644;
	simple_inode_init_ts(inode);
	inode->i_op = &testfs_file_iops;
	inode->i_fop = m->style == TESTFS_AFS ? &testfs_afs_fops : &testfs_fops;
	inode->i_mapping->a_ops = m->style == TESTFS_AFS ? &testfs_afs_aops :
		m->style == TESTFS_CEPH ? &testfs_ceph_aops : &testfs_aops;
	netfs_inode_init(&ti->netfs, m->style == TESTFS_9P ? &testfs_9p_request_ops :
			 &testfs_request_ops, true);
	if (m->style == TESTFS_AFS)
		__set_bit(NETFS_ICTX_SINGLE_NO_UPLOAD, &ti->netfs.flags);
	if (m->style != TESTFS_CEPH)
		mapping_set_large_folios(inode->i_mapping);
	if (m->origin)
		__set_bit(NETFS_ICTX_UNBUFFERED, &ti->netfs.flags);
	else
		ti->netfs.cache = testfs_get_cookie(inode);
	if (ti->netfs.cache)
		mapping_set_release_always(inode->i_mapping);
	unlock_new_inode(inode);
	return inode;
}

static struct dentry *testfs_lookup(struct inode *dir, struct dentry *dentry, unsigned int flags)
{
	struct testfs_server *s = testfs_mount(dir)->server;
	struct testfs_file *f;

	mutex_lock(&s->lock);
	f = testfs_find(s, dentry->d_name.name, dentry->d_name.len);
	if (f)
		kref_get(&f->ref);
	mutex_unlock(&s->lock);
	return d_splice_alias(f ? testfs_iget(dir->i_sb, f) : NULL, dentry);
}

static int testfs_unlink(struct inode *dir, struct dentry *dentry)
{
	struct testfs_server *s = testfs_mount(dir)->server;
	struct testfs_file *f = testfs_inode(d_inode(dentry))->file;
	bool listed;

	mutex_lock(&s->lock);
	listed = !list_empty(&f->link);
	list_del_init(&f->link);
	mutex_unlock(&s->lock);
	if (listed)
		testfs_put_file(f);
	clear_nlink(d_inode(dentry));
	return 0;
}

static const struct inode_operations testfs_dir_iops = {
	.lookup		= testfs_lookup,
	.unlink		= testfs_unlink,
};

/* What the server does not have now it may have next time. */
static int testfs_d_revalidate(struct inode *dir, const struct qstr *name, struct dentry *dentry,
			       unsigned int flags)
{
	return !d_is_negative(dentry);
}

static const struct dentry_operations testfs_dentry_ops = {
	.d_revalidate	= testfs_d_revalidate,
};

/* ---- the super block ---- */

static struct inode *testfs_alloc_inode(struct super_block *sb)
{
	struct testfs_inode *ti = alloc_inode_sb(sb, testfs_inodes, GFP_KERNEL);

	if (!ti)
		return NULL;
	ti->file = NULL;
	ti->version = 0;
	ti->buffer = NULL;
	ti->buffer_size = 0;
	ti->buffer_valid = false;
	return &ti->netfs.inode;
}

static void testfs_free_inode(struct inode *inode)
{
	kmem_cache_free(testfs_inodes, testfs_inode(inode));
}

static void testfs_evict_inode(struct inode *inode)
{
	struct testfs_inode *ti = testfs_inode(inode);
	struct fscache_cookie *cookie;
	u8 aux[255];

	if (!ti->file) {
		clear_inode(inode);
		return;
	}
	cookie = testfs_cookie(inode);
	if (testfs_mount(inode)->style == TESTFS_AFS && inode_state_read_once(inode) & I_DIRTY) {
		struct writeback_control wbc = {
			.sync_mode = WB_SYNC_ALL,
			.range_end = LLONG_MAX,
		};

		/* The page cache, which has nothing, would not ask for it. */
		testfs_afs_writepages(inode->i_mapping, &wbc);
	}
	netfs_wait_for_outstanding_io(inode);
	truncate_inode_pages_final(inode->i_mapping);
	netfs_free_folioq_buffer(ti->buffer);
	netfs_clear_inode_writeback(inode, testfs_aux(inode, aux));
	clear_inode(inode);
	/* A file that is gone will not be asked for again. */
	fscache_relinquish_cookie(cookie, !inode->i_nlink);
	testfs_put_file(ti->file);
}

static const struct super_operations testfs_sops = {
	.alloc_inode	= testfs_alloc_inode,
	.free_inode	= testfs_free_inode,
	.write_inode	= netfs_unpin_writeback,
	.evict_inode	= testfs_evict_inode,
	.drop_inode	= inode_generic_drop,
	.statfs		= simple_statfs,
};

static void testfs_free_mount(struct testfs_mount *m)
{
	if (!m)
		return;
	if (m->server)
		kref_put(&m->server->ref, testfs_free_server);
	kfree(m->key);
	kfree(m->tag);
	kfree(m->coherency);
	kfree(m->last_coherency);
	kfree(m);
}

enum {
	OPT_SERVER, OPT_STYLE, OPT_ORIGIN, OPT_WEAK, OPT_RSIZE, OPT_WSIZE, OPT_AUX, OPT_KEYLEN,
	OPT_KEY, OPT_TAG, OPT_COHERENCY, OPT_LAST_COHERENCY, OPT_INVALIDATE,
};

static const struct constant_table testfs_styles[] = {
	{ "smb", TESTFS_SMB },
	{ "9p", TESTFS_9P },
	{ "nfs", TESTFS_NFS },
	{ "ceph", TESTFS_CEPH },
	{ "afs", TESTFS_AFS },
	{ },
};

static const struct fs_parameter_spec testfs_params[] = {
	fsparam_u32("server", OPT_SERVER),		/* fd of the device */
	fsparam_enum("style", OPT_STYLE, testfs_styles),
	fsparam_flag("origin", OPT_ORIGIN),
	fsparam_flag("weak", OPT_WEAK),
	fsparam_u32("rsize", OPT_RSIZE),
	fsparam_u32("wsize", OPT_WSIZE),
	fsparam_u32("aux", OPT_AUX),			/* its length */
	fsparam_u32("keylen", OPT_KEYLEN),
	fsparam_string("key", OPT_KEY),			/* of the volume */
	fsparam_string("tag", OPT_TAG),			/* of the cache */
	fsparam_string("coherency", OPT_COHERENCY),
	fsparam_string("last_coherency", OPT_LAST_COHERENCY),
	fsparam_flag("invalidate", OPT_INVALIDATE),
	{ }
};

static void testfs_take_string(char **to, struct fs_parameter *param)
{
	kfree(*to);
	*to = param->string;
	param->string = NULL;
}

static int testfs_set_server(struct testfs_mount *m, int fd)
{
	struct file *file = fget(fd);
	int err = -EBADF;

	if (file && file->f_op == &testfs_dev_fops && !m->server) {
		m->server = file->private_data;
		kref_get(&m->server->ref);
		err = 0;
	}
	if (file)
		fput(file);
	return err;
}

static int testfs_parse(struct fs_context *fc, struct fs_parameter *param)
{
	struct testfs_mount *m = fc->s_fs_info;
	struct fs_parse_result result;
	int opt = fs_parse(fc, testfs_params, param, &result);

	switch (opt) {
	case OPT_SERVER:
		return testfs_set_server(m, result.uint_32);
	case OPT_STYLE:
		m->style = result.uint_32;
		return 0;
	case OPT_ORIGIN:
		m->origin = true;
		return 0;
	case OPT_WEAK:
		m->weak = true;
		return 0;
	case OPT_RSIZE:
		m->rsize = result.uint_32;
		return 0;
	case OPT_WSIZE:
		m->wsize = result.uint_32;
		return 0;
	case OPT_AUX:
		m->aux_len = result.uint_32;
		return m->aux_len > 255 ? -EINVAL : 0;
	case OPT_KEYLEN:
		m->key_len = result.uint_32;
		return m->key_len > 255 ? -EINVAL : 0;
	case OPT_KEY:
		testfs_take_string(&m->key, param);
		return 0;
	case OPT_TAG:
		testfs_take_string(&m->tag, param);
		return 0;
	case OPT_COHERENCY:
		testfs_take_string(&m->coherency, param);
		return 0;
	case OPT_LAST_COHERENCY:
		testfs_take_string(&m->last_coherency, param);
		return 0;
	case OPT_INVALIDATE:
		m->invalidate = true;
		return 0;
	default:
		return opt;
	}
}

static int testfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct testfs_mount *m = sb->s_fs_info;
	struct inode *root;
	int err;

	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_magic = TESTFS_MAGIC;
	sb->s_op = &testfs_sops;
	sb->s_time_gran = 1;
	set_default_d_op(sb, &testfs_dentry_ops);
	err = super_setup_bdi(sb);
	if (err)
		return err;
	if (!m->origin) {
		m->volume = fscache_acquire_volume(m->key, m->tag, m->coherency,
						   m->coherency ? strlen(m->coherency) : 0);
		if (IS_ERR(m->volume)) {
			err = PTR_ERR(m->volume);
			m->volume = NULL;
			return err;
		}
	}
	root = new_inode(sb);
	if (!root)
		return -ENOMEM;
	root->i_ino = get_next_ino();
	root->i_mode = S_IFDIR | 0755;
	simple_inode_init_ts(root);
	root->i_op = &testfs_dir_iops;
	root->i_fop = &simple_dir_operations;
	set_nlink(root, 2);
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

static int testfs_get_tree(struct fs_context *fc)
{
	struct testfs_mount *m = fc->s_fs_info;

	if (!m->server || (!m->origin && !m->key))
		return invalf(fc, "server= and key= are needed");
	if (m->last_coherency &&
	    (!m->coherency || strlen(m->coherency) != strlen(m->last_coherency)))
		return invalf(fc, "coherency data of a volume cannot change its length");
	return get_tree_nodev(fc, testfs_fill_super);
}

static void testfs_free_fc(struct fs_context *fc)
{
	/* Once there is a super block, it has that. */
	testfs_free_mount(fc->s_fs_info);
}

static const struct fs_context_operations testfs_context_ops = {
	.parse_param	= testfs_parse,
	.get_tree	= testfs_get_tree,
	.free		= testfs_free_fc,
};

static int testfs_init_fs_context(struct fs_context *fc)
{
	fc->s_fs_info = kzalloc_obj(struct testfs_mount);
	if (!fc->s_fs_info)
		return -ENOMEM;
	fc->ops = &testfs_context_ops;
	return 0;
}

static void testfs_kill_sb(struct super_block *sb)
{
	struct testfs_mount *m = sb->s_fs_info;

	kill_anon_super(sb);
	if (!m)
		return;
	fscache_relinquish_volume(m->volume, m->last_coherency, m->invalidate);
	testfs_free_mount(m);
}

static struct file_system_type testfs_type = {
	.owner			= THIS_MODULE,
	.name			= "cachefiles_testfs",
	.init_fs_context	= testfs_init_fs_context,
	.parameters		= testfs_params,
	.kill_sb		= testfs_kill_sb,
};
MODULE_ALIAS_FS("cachefiles_testfs");

static void testfs_init_once(void *inode)
{
	inode_init_once(&((struct testfs_inode *)inode)->netfs.inode);
}

static int __init testfs_init(void)
{
	int err = -ENOMEM;

	testfs_inodes = kmem_cache_create("cachefiles_testfs_inode", sizeof(struct testfs_inode), 0,
					  SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, testfs_init_once);
	if (!testfs_inodes)
		return err;
	testfs_wq = alloc_workqueue("cachefiles_testfs", WQ_UNBOUND, 0);
	if (!testfs_wq)
		goto no_wq;
	err = misc_register(&testfs_dev);
	if (err)
		goto no_dev;
	err = register_filesystem(&testfs_type);
	if (!err)
		return 0;
	misc_deregister(&testfs_dev);
no_dev:
	destroy_workqueue(testfs_wq);
no_wq:
	kmem_cache_destroy(testfs_inodes);
	return err;
}
module_init(testfs_init);

static void __exit testfs_exit(void)
{
	unregister_filesystem(&testfs_type);
	misc_deregister(&testfs_dev);
	destroy_workqueue(testfs_wq);
	/* Inodes are freed by RCU. */
	rcu_barrier();
	kmem_cache_destroy(testfs_inodes);
}
module_exit(testfs_exit);

MODULE_DESCRIPTION("A network file system without a network, for the selftests of CacheFiles");
MODULE_LICENSE("GPL");
