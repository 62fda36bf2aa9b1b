/* SPDX-License-Identifier: GPL-2.0 */
/*
 * ondemandfs: a file for every fscache cookie of a volume, read on demand.
 *
 * It is in C because it consists of what the VFS calls: operations of superblocks,
 * inodes, dentries, files and address spaces. The kernel has no Rust abstractions
 * for these; rust_binder leaves its binderfs in C, too.
 *
 * Stock EROFS mounts these files file-backed; fscache hands their reads to the
 * cache, which asks its user daemon for what is not there yet. Nothing is kept
 * here but names, sizes and a small page cache for those who do not bring pages
 * of their own.
 *
 * Lifetimes
 * ---------
 * volume   Acquired when a superblock is made and relinquished when it dies, in
 *	    put_super: before SB_DEAD lets a mounter that waits for the same
 *	    domain go on, or fscache would call the two volumes duplicates.
 * blob	    A name, and its fscache cookie once somebody has opened the file. The
 *	    table of the superblock has a reference and so has the inode. It is
 *	    born in lookup, which neither asks the cache nor waits for anything.
 *	    It outlives its inode until fscache has DROPPED the cookie: whoever
 *	    opens a file of the same name finds it and waits for that killably,
 *	    where fscache_acquire_cookie() would wait uninterruptibly or complain
 *	    about a duplicate. Of the blobs of one name at most one has a cookie
 *	    that is not DROPPED, and at most one has an inode that is not being
 *	    evicted.
 * cookie   The blob has two references: the one that relinquishing gives up, and
 *	    one more. Accesses (n_accesses) are no references; the second one is
 *	    what keeps the cookie's memory while reads that were in flight at
 *	    eviction end theirs. For that, a read ends its access *before* it
 *	    unlocks its folios or completes its kiocb: the folios hold eviction up
 *	    in truncate_inode_pages_final(), the kiocb holds the file.
 * inode    Found by its blob, not by VFS's hash of inodes. It can outlive its
 *	    dentry, and does as long as it has pages, or inotify, fanotify or
 *	    Landlock hold it. The next lookup of the name takes what is there.
 *	    Dentries and inodes are not pinned: they stay on their LRUs until
 *	    memory is short, which bounds what a user can make us hold by looking
 *	    names up.
 * user	    Stands in a table of the superblock while lookups of his are under way or
 *	    in line. Each of them counts; the last one frees it.
 * use	    Every open file has one use (n_active) of the cookie, which keeps it
 *	    off fscache's LRU. stat(2) and the healing of a read take one for a
 *	    moment, under the lock of the inode.
 *	    odfs_unuse_cookie() gives it back.
 * io	    One read. It belongs to the submitter until it is QUEUED, then to the
 *	    completion, which may come from any context.
 *
 * Lock order
 * ----------
 *	i_rwsem of the root, mmap_lock, folio locks, whatever a reader holds
 *	  odfs_inode::lock	(mutex; only ever taken killably)
 *	    fscache's locks
 *	odfs_sb_info::lock	(spinlock; also taken in reclaim)
 *	  inode::i_lock
 *	  odfs_inode::abort_lock (spinlock; also taken in interrupts)
 *
 * Nothing waits for the cache or its daemon under i_rwsem of the root. What lets a user
 * have one more lookup (odfs_user::room) is only tried for under odfs_inode::lock, and
 * waited for under none of these.
 *
 * A file's own folio locks are taken under odfs_inode::lock only while nobody
 * has the file open (odfs_set_size()), when no reader can be waiting for it.
 */
#ifndef _ONDEMANDFS_INTERNAL_H
#define _ONDEMANDFS_INTERNAL_H

#include <linux/fs.h>
#include <linux/fscache-cache.h>
#include <linux/hashtable.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/siphash.h>
#include <linux/spinlock.h>
#include <linux/xarray.h>

/* "odfs" */
#define ODFS_SUPER_MAGIC	0x6f646673

/*
 * A cache file is extended to a multiple of this and EROFS reads whole blocks,
 * the last one included.
 */
#define ODFS_BLOCK_SIZE		4096

/* What the consumer of on-demand mode prefixes to the name of its domain. */
#define ODFS_VOLUME_PREFIX	"erofs,"

/* The cache prefixes one character to make this a directory's name. */
#define ODFS_VOLUME_KEY_MAX	(NAME_MAX - 1)

/* Whose the files are, and who may read them. */
struct odfs_owner {
	kuid_t			uid;
	kgid_t			gid;
	umode_t			mode;
};

struct odfs_sb_info {
	char			*domain;
	char			*cache;		/* its tag */
	struct odfs_owner	owner;		/* changed under lock */
	struct fscache_volume	*volume;

	spinlock_t		lock;		/* of the four below, and owner */
	unsigned int		aborts;		/* how often umount -f was called */
	DECLARE_HASHTABLE(blobs, 10);		/* by name */
	struct list_head	live;		/* the blobs that are not relinquished */
	struct list_head	dying;		/* those that are, oldest first */

	struct xarray		users;		/* with lookups under way, by user id */
	struct xarray		names;		/* blobs by position in the directory */
	u32			next_name;
	atomic64_t		nr_names;
	atomic64_t		blocks;		/* that the files on the list have */

	siphash_key_t		ino_key;	/* for numbers of inodes */
};

struct odfs_blob {
	struct hlist_node	node;		/* in odfs_sb_info::blobs */
	struct list_head	list;		/* in odfs_sb_info::live or ::dying */
	refcount_t		ref;
	struct inode		*inode;		/* NULL: evicted */
	struct fscache_cookie	*cookie;	/* NULL: not acquired */
	bool			relinquished;	/* ... its cookie, if it has one */
	u64			ino;
	unsigned int		hash;
	unsigned char		len;
	char			name[];
};

enum odfs_abort {
	ODFS_ABORT_NONE,
	ODFS_ABORT_ABORTING,
	ODFS_ABORT_AFTERMATH,
};

struct odfs_inode {
	struct odfs_blob	*blob;		/* NULL: the root */
	struct mutex		lock;		/* lookups of the cookie, the size */
	bool			size_known;
	unsigned int		version;	/* of the data, as the cache numbers them */
	int			failure;	/* of the last lookup, or 0 */
	unsigned int		nr_failures;
	unsigned long		failed_at;	/* in jiffies */
	u32			pos;		/* in odfs_sb_info::names, or 0 */
	loff_t			blocks;		/* what we count in odfs_sb_info::blocks */

	atomic_t		reads;		/* in flight */
	unsigned int		abort;		/* enum odfs_abort */
	spinlock_t		abort_lock;	/* of abort and what follows */
	loff_t			abort_start;	/* what was failed lies between */
	loff_t			abort_end;
	unsigned long		abort_until;	/* the end of the aftermath, in jiffies */

	struct inode		vfs_inode;
};

static inline struct odfs_inode *ODFS_I(struct inode *inode)
{
	return container_of(inode, struct odfs_inode, vfs_inode);
}

static inline struct odfs_sb_info *ODFS_SB(struct super_block *sb)
{
	return sb->s_fs_info;
}

/* The root can be searched by those who may read the files. */
static inline void odfs_init_owner(struct inode *inode, const struct odfs_owner *owner)
{
	umode_t mode = owner->mode;

	if (S_ISDIR(inode->i_mode))
		mode |= (mode & 0444) >> 2;
	WRITE_ONCE(inode->i_mode, (inode->i_mode & S_IFMT) | mode);
	inode->i_uid = owner->uid;
	inode->i_gid = owner->gid;
}

/*
 * Whether an ACTIVE cookie has the data that the inode, whose size is known, has had
 * so far. The cache keeps a hash of its version where fscache counts invalidations.
 */
static inline bool odfs_is_same_data(struct inode *inode, struct fscache_cookie *cookie)
{
	return READ_ONCE(cookie->object_size) == i_size_read(inode) &&
	       READ_ONCE(cookie->inval_counter) == ODFS_I(inode)->version;
}

/* As fscache's own fscache_cache_is_live(), which it keeps to itself. */
static inline bool odfs_cache_is_live(struct fscache_volume *volume)
{
	/* Pairs with fscache_set_cache_state(). */
	return smp_load_acquire(&volume->cache->state) == FSCACHE_CACHE_IS_ACTIVE;
}

/*
 * There is no wait_var_event_killable_timeout(). Returns the jiffies that are left,
 * 0 without any, or -ERESTARTSYS.
 */
#define odfs_wait_var(var, condition, timeout)					\
({										\
	might_sleep();								\
	___wait_var_event(var, ___wait_cond_timeout(condition), TASK_KILLABLE,	\
			  0, timeout, __ret = schedule_timeout(__ret));		\
})

/* abort.c */
int odfs_begin_read(struct inode *inode, loff_t pos, size_t len);
void odfs_end_read(struct inode *inode, loff_t pos, size_t len, bool ok);
void odfs_abort_reads(struct inode *inode);
void odfs_unuse_cookie(struct inode *inode);

/* cookie.c */
struct odfs_blob *odfs_new_blob(const struct qstr *name);
void odfs_hash_blob(struct odfs_sb_info *sbi, struct odfs_blob *blob, struct inode *inode);
struct inode *odfs_find_inode(struct odfs_sb_info *sbi, const struct qstr *name);
void odfs_relinquish_blob(struct odfs_sb_info *sbi, struct odfs_blob *blob);
void odfs_forget_inode(struct odfs_sb_info *sbi, struct odfs_blob *blob);
void odfs_relinquish_blobs(struct odfs_sb_info *sbi);
void odfs_abort_blobs(struct odfs_sb_info *sbi);
void odfs_reap_blobs(struct odfs_sb_info *sbi);
void odfs_put_blob(struct odfs_blob *blob);
void odfs_put_blobs(struct odfs_sb_info *sbi);
int odfs_use_cookie(struct inode *inode);
int odfs_lookup_cookie(struct inode *inode, bool in_line);

bool odfs_is_refused(struct inode *inode);

/* dir.c */
extern const struct file_operations odfs_dir_fops;
void odfs_list_name(struct inode *inode);
void odfs_unlist_name(struct inode *inode);

/* file.c */
extern const struct file_operations odfs_file_fops;

/* inode.c */
extern const struct super_operations odfs_sops;
struct inode *odfs_new_root(struct super_block *sb);
void odfs_set_owner(struct super_block *sb, const struct odfs_owner *owner);
int odfs_init_inode_cache(void);
void odfs_destroy_inode_cache(void);

/* read.c */
extern const struct address_space_operations odfs_aops;
int odfs_init_io_cache(void);
void odfs_destroy_io_cache(void);
ssize_t odfs_read_direct(struct kiocb *iocb, struct iov_iter *to);

/* super.c */
void odfs_put_super(struct super_block *sb);
int odfs_show_options(struct seq_file *m, struct dentry *root);

/* user.c */
struct odfs_user *odfs_begin_lookup(struct odfs_sb_info *sbi, bool wait);
void odfs_end_lookup(struct odfs_sb_info *sbi, struct odfs_user *user);

#endif /* _ONDEMANDFS_INTERNAL_H */
