// SPDX-License-Identifier: GPL-2.0
/*
 * The fscache cookies behind the files: acquiring and relinquishing them,
 * having the cache look them up.
 *
 * fscache waits uninterruptibly, some of it for a user daemon, in four places:
 * acquiring a volume or a cookie whose relinquished namesake has not ended,
 * using a cookie in LRU_DISCARDING, and beginning an operation on a cookie that
 * is being looked up. The waits here come first, are killable, and leave fscache
 * nothing to wait for.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>
#include <trace/events/fscache.h>
#include "internal.h"

/*
 * Lies below every errno: the cache has not answered. It replaces the answer of
 * the previous lookup before the next one.
 */
#define ODFS_SIZE_UNANSWERED	((loff_t)-MAX_ERRNO - 1)

/* A cookie leaves FAILED at once after a lookup, but not after an I/O error. */
#define ODFS_FAILED_TIMEOUT	(10 * HZ)

/*
 * For so long the daemon's word that there is no such file, or not for us, is
 * repeated without asking again.
 */
#define ODFS_REFUSAL_TIME	(1 * HZ)

/* Errnos from here on have a meaning inside the kernel only. */
#define ODFS_FIRST_INTERNAL_ERRNO	512

static bool odfs_cookie_dropped(struct fscache_cookie *cookie)
{
	return fscache_cookie_state(cookie) == FSCACHE_COOKIE_STATE_DROPPED;
}

/*
 * fscache_use_cookie() neither waits nor fails to start a lookup that is needed.
 */
static bool odfs_cookie_usable(struct fscache_cookie *cookie)
{
	switch (fscache_cookie_state(cookie)) {
	case FSCACHE_COOKIE_STATE_FAILED:
	case FSCACHE_COOKIE_STATE_WITHDRAWING:
	case FSCACHE_COOKIE_STATE_LRU_DISCARDING:
		return false;
	default:
		return true;
	}
}

/* A lookup has come to an end. */
static bool odfs_cookie_settled(struct fscache_cookie *cookie)
{
	switch (fscache_cookie_state(cookie)) {
	case FSCACHE_COOKIE_STATE_LOOKING_UP:
	case FSCACHE_COOKIE_STATE_CREATING:
	case FSCACHE_COOKIE_STATE_INVALIDATING:
	case FSCACHE_COOKIE_STATE_WITHDRAWING:
	case FSCACHE_COOKIE_STATE_LRU_DISCARDING:
		return false;
	default:
		return true;
	}
}

/*
 * A cache that asks a user daemon lets go of fscache's worker if that takes long: the
 * lookup fails with this as the size, which is replaced by the answer. Then it is to be
 * looked up once more.
 */
#define ODFS_SIZE_PUT_OFF	((loff_t)-EIOCBQUEUED)

/* A lookup has come to an end, and if it was put off, to its answer. */
static bool odfs_cookie_looked_up(struct fscache_cookie *cookie)
{
	return odfs_cookie_settled(cookie) &&
	       (fscache_cookie_state(cookie) == FSCACHE_COOKIE_STATE_ACTIVE ||
		READ_ONCE(cookie->object_size) != ODFS_SIZE_PUT_OFF);
}

/*
 * Returns what is left of @timeout, 0 without any, or a negative errno: -EIO if
 * there was an umount -f since it had been called @aborts times.
 */
static long odfs_wait_cookie(struct odfs_sb_info *sbi, unsigned int aborts,
			     struct fscache_cookie *cookie,
			     bool (*condition)(struct fscache_cookie *cookie), long timeout)
{
	/* What the wait saw counts: the state may go on at once, as it does from FAILED. */
	bool met = false;
	long ret = odfs_wait_var(&cookie->state,
				 (met = condition(cookie)) || READ_ONCE(sbi->aborts) != aborts,
				 timeout);

	return ret > 0 && !met ? -EIO : ret;
}

static bool odfs_same_name(const struct odfs_blob *blob, unsigned int hash, const void *name,
			   size_t len)
{
	return blob->hash == hash && blob->len == len && !memcmp(blob->name, name, len);
}

/* Another blob of the name of @blob that has a cookie. */
static struct odfs_blob *odfs_find_namesake(struct odfs_sb_info *sbi, struct odfs_blob *blob)
{
	struct odfs_blob *other;

	hash_for_each_possible(sbi->blobs, other, node, blob->hash)
		if (other != blob && other->cookie &&
		    odfs_same_name(other, blob->hash, blob->name, blob->len))
			return other;
	return NULL;
}

/* Take the blob out of the table, unless somebody has. */
static bool odfs_unhash_blob(struct odfs_blob *blob)
{
	if (!hash_hashed(&blob->node))
		return false;
	hash_del(&blob->node);
	list_del_init(&blob->list);
	return true;
}

/**
 * odfs_reap_blobs - Forget the relinquished cookies that fscache is done with
 * @sbi: The superblock to clean up
 *
 * Oldest first and only as far as they have ended, so it costs next to nothing.
 * fscache tells nobody when a cookie has; what is left over waits for the next
 * lookup, eviction or unmount.
 */
void odfs_reap_blobs(struct odfs_sb_info *sbi)
{
	struct odfs_blob *blob;

	for (;;) {
		spin_lock(&sbi->lock);
		blob = list_first_entry_or_null(&sbi->dying, struct odfs_blob, list);
		if (!blob || (blob->cookie && !odfs_cookie_dropped(blob->cookie))) {
			spin_unlock(&sbi->lock);
			return;
		}
		odfs_unhash_blob(blob);
		spin_unlock(&sbi->lock);
		odfs_put_blob(blob);
	}
}

/*
 * Wait until fscache has forgotten the earlier cookie of this name. Its inode has
 * been evicted or is being, so it is relinquished or about to be.
 */
static int odfs_wait_for_namesake(struct odfs_sb_info *sbi, unsigned int aborts,
				  struct odfs_blob *blob)
{
	struct odfs_blob *other;
	bool unhashed;
	long ret;

	for (;;) {
		spin_lock(&sbi->lock);
		other = odfs_find_namesake(sbi, blob);
		if (other)
			refcount_inc(&other->ref);
		spin_unlock(&sbi->lock);
		if (!other)
			return 0;

		ret = odfs_wait_cookie(sbi, aborts, other->cookie, odfs_cookie_dropped,
				       MAX_SCHEDULE_TIMEOUT);
		if (ret > 0) {
			spin_lock(&sbi->lock);
			unhashed = odfs_unhash_blob(other);
			spin_unlock(&sbi->lock);
			if (unhashed)
				odfs_put_blob(other);
		}
		odfs_put_blob(other);
		if (ret < 0)
			return ret;
	}
}

/*
 * Acquire the cookie of a name, once: the lock of the inode excludes others.
 * Sleeps killably while an earlier cookie of the same name is coming to its end.
 * Nothing is asked of the cache yet.
 */
static int odfs_acquire_cookie(struct odfs_sb_info *sbi, unsigned int aborts,
			       struct odfs_blob *blob)
{
	struct fscache_cookie *cookie;
	int err;

	if (blob->cookie)
		return 0;
	err = odfs_wait_for_namesake(sbi, aborts, blob);
	if (err)
		return err;
	cookie = fscache_acquire_cookie(sbi->volume, FSCACHE_ADV_WANT_CACHE_SIZE,
					blob->name, blob->len, NULL, 0, 0);
	if (!cookie)
		return -ENOMEM;
	fscache_get_cookie(cookie, fscache_cookie_get_attach_object);
	spin_lock(&sbi->lock);
	/* Pairs with odfs_is_active(), which has no lock. */
	smp_store_release(&blob->cookie, cookie);
	spin_unlock(&sbi->lock);
	return 0;
}

/**
 * odfs_new_blob - Make a blob for a name
 * @name: The name; its bytes are the cookie's key
 *
 * Return: the blob, in no table and without a cookie, or NULL without memory.
 */
struct odfs_blob *odfs_new_blob(const struct qstr *name)
{
	struct odfs_blob *blob;

	blob = kzalloc_flex(*blob, name, name->len, GFP_KERNEL_ACCOUNT);
	if (!blob)
		return NULL;
	refcount_set(&blob->ref, 1);
	INIT_LIST_HEAD(&blob->list);
	blob->hash = name->hash;
	blob->len = name->len;
	memcpy(blob->name, name->name, name->len);
	return blob;
}

/**
 * odfs_hash_blob - Make the inode of a name known
 * @sbi: The superblock
 * @blob: The blob; the inode takes over the caller's reference
 * @inode: The inode
 *
 * The caller must have excluded other lookups of the name, as ->lookup() is called.
 */
void odfs_hash_blob(struct odfs_sb_info *sbi, struct odfs_blob *blob, struct inode *inode)
{
	refcount_inc(&blob->ref);
	ODFS_I(inode)->blob = blob;
	spin_lock(&sbi->lock);
	blob->inode = inode;
	odfs_init_owner(inode, &sbi->owner);
	hash_add(sbi->blobs, &blob->node, blob->hash);
	list_add_tail(&blob->list, &sbi->live);
	spin_unlock(&sbi->lock);
}

/**
 * odfs_find_inode - Find the inode that a name has
 * @sbi: The superblock
 * @name: The name
 *
 * Return: the inode, with a reference, or NULL if the name has none or one that is
 * being evicted.
 */
struct inode *odfs_find_inode(struct odfs_sb_info *sbi, const struct qstr *name)
{
	struct inode *inode = NULL;
	struct odfs_blob *blob;

	spin_lock(&sbi->lock);
	hash_for_each_possible(sbi->blobs, blob, node, name->hash) {
		if (blob->inode && odfs_same_name(blob, name->hash, name->name, name->len))
			inode = igrab(blob->inode);
		if (inode)
			break;
	}
	spin_unlock(&sbi->lock);
	return inode;
}

/**
 * odfs_put_blob - Drop a reference to a blob
 * @blob: The blob, whose cookie must be relinquished if it has one
 */
void odfs_put_blob(struct odfs_blob *blob)
{
	if (!refcount_dec_and_test(&blob->ref))
		return;
	if (blob->cookie)
		fscache_put_cookie(blob->cookie, fscache_cookie_put_object);
	kfree(blob);
}

/**
 * odfs_relinquish_blob - Give the cookie of a blob back to fscache
 * @sbi: The superblock of the blob
 * @blob: The blob, to be used for nothing but reads in flight any more
 *
 * Does not wait. Reads may still be in flight: their accesses hold the cookie's
 * end up, and the cache fails those that wait for the daemon when it sees that
 * the cookie is relinquished. Does nothing the second time.
 */
void odfs_relinquish_blob(struct odfs_sb_info *sbi, struct odfs_blob *blob)
{
	struct fscache_cookie *cookie = NULL;

	spin_lock(&sbi->lock);
	if (!blob->relinquished) {
		blob->relinquished = true;
		list_move_tail(&blob->list, &sbi->dying);
		cookie = blob->cookie;
	}
	spin_unlock(&sbi->lock);
	if (cookie)
		fscache_relinquish_cookie(cookie, false);
}

/**
 * odfs_forget_inode - Have a blob's inode found no more
 * @sbi: The superblock of the blob
 * @blob: The blob of an inode that is being evicted
 */
void odfs_forget_inode(struct odfs_sb_info *sbi, struct odfs_blob *blob)
{
	spin_lock(&sbi->lock);
	blob->inode = NULL;
	spin_unlock(&sbi->lock);
}

/**
 * odfs_relinquish_blobs - Give all cookies of a superblock back to fscache
 * @sbi: The superblock, which must have no open file any more
 *
 * The inodes are about to be evicted one by one and each may have to wait for
 * its reads to fail. With all cookies relinquished beforehand they fail together.
 */
void odfs_relinquish_blobs(struct odfs_sb_info *sbi)
{
	struct odfs_blob *blob;

	/*
	 * Inodes that somebody held without a dentry may be evicted meanwhile, and
	 * their blobs go.
	 */
	for (;;) {
		spin_lock(&sbi->lock);
		blob = list_first_entry_or_null(&sbi->live, struct odfs_blob, list);
		if (blob)
			refcount_inc(&blob->ref);
		spin_unlock(&sbi->lock);
		if (!blob)
			return;
		odfs_relinquish_blob(sbi, blob);
		odfs_put_blob(blob);
	}
}

/**
 * odfs_abort_blobs - Fail all who wait for the cache or its daemon
 * @sbi: The superblock
 *
 * Those who come later are not concerned.
 */
void odfs_abort_blobs(struct odfs_sb_info *sbi)
{
	struct odfs_blob *blob;
	int bucket;

	spin_lock(&sbi->lock);
	WRITE_ONCE(sbi->aborts, sbi->aborts + 1);
	hash_for_each(sbi->blobs, bucket, blob, node) {
		if (!blob->cookie)
			continue;
		if (blob->inode)
			odfs_abort_reads(blob->inode);
		/* Those who look it up, or wait for its end. */
		smp_mb();
		wake_up_var(&blob->cookie->state);
	}
	spin_unlock(&sbi->lock);
}

/**
 * odfs_put_blobs - Forget all cookies of a superblock
 * @sbi: The superblock, which must have no inode any more
 */
void odfs_put_blobs(struct odfs_sb_info *sbi)
{
	struct odfs_blob *blob;
	struct hlist_node *next;
	int bucket;

	hash_for_each_safe(sbi->blobs, bucket, next, blob, node) {
		odfs_unhash_blob(blob);
		odfs_put_blob(blob);
	}
}

/* What a lookup that found nothing says to the one who asked for it. */
static int odfs_lookup_error(struct fscache_cookie *cookie)
{
	loff_t answer = READ_ONCE(cookie->object_size);

	if (answer < 0 && answer > -ODFS_FIRST_INTERNAL_ERRNO)
		return answer;
	if (!odfs_cache_is_live(cookie->volume))
		return -ENOTCONN;
	if (answer == ODFS_SIZE_UNANSWERED)
		pr_warn_ratelimited("cache %s failed to look up a file; is it bound with \"bind ondemand\"?\n",
				    cookie->volume->cache->name);
	return -EIO;
}

/* Take over the size that the cache has answered. */
static int odfs_set_size(struct inode *inode, struct fscache_cookie *cookie)
{
	struct odfs_inode *oi = ODFS_I(inode);
	loff_t size = READ_ONCE(cookie->object_size);
	int err;

	/* A cache that asks nobody cannot tell; it would give empty files. */
	if (size < 0)
		return odfs_lookup_error(cookie);
	if (size > inode->i_sb->s_maxbytes - ODFS_BLOCK_SIZE)
		return -EFBIG;
	if (oi->size_known) {
		if (odfs_is_same_data(inode, cookie)) {
			odfs_list_name(inode);
			return 0;
		}
		if (atomic_read(&cookie->n_active) > 1)
			return -ESTALE;
		err = invalidate_inode_pages2(inode->i_mapping);
		if (err)
			return err;
	}
	oi->version = READ_ONCE(cookie->inval_counter);
	i_size_write(inode, size);
	odfs_list_name(inode);
	/* Pairs with odfs_getattr(). */
	smp_store_release(&oi->size_known, true);
	return 0;
}

/* Start a lookup if one is needed. Neither waits nor fails if the cookie is usable. */
static void odfs_start_lookup(struct fscache_cookie *cookie)
{
	/* Only a use starts a lookup, and there is none but under our lock. */
	if (fscache_cookie_state(cookie) == FSCACHE_COOKIE_STATE_QUIESCENT)
		WRITE_ONCE(cookie->object_size, ODFS_SIZE_UNANSWERED);

	/*
	 * Should the cookie have come to LRU_DISCARDING just now, fscache waits here
	 * while the cache closes the object. That is local work; the daemon has no
	 * part in it.
	 */
	fscache_use_cookie(cookie, false);
}

/*
 * Wait for the end of a lookup that a use of ours has started, and start it again
 * if it was put off and has its answer, or if nothing was looked up at all because
 * the cache was letting go of a cookie that was still ACTIVE. Our use stays
 * meanwhile: it tells the cache that somebody waits for the answer.
 *
 * Return: 0 with the cookie ACTIVE, or a negative errno.
 */
static int odfs_wait_for_lookup(struct inode *inode, unsigned int aborts)
{
	struct fscache_cookie *cookie = ODFS_I(inode)->blob->cookie;
	struct odfs_sb_info *sbi = ODFS_SB(inode->i_sb);
	int restarts = 3;
	long ret;

	for (;;) {
		ret = odfs_wait_cookie(sbi, aborts, cookie, odfs_cookie_looked_up,
				       MAX_SCHEDULE_TIMEOUT);
		if (ret < 0)
			return ret;
		if (fscache_cookie_state(cookie) == FSCACHE_COOKIE_STATE_ACTIVE)
			return 0;
		if (READ_ONCE(cookie->object_size) < 0 || !restarts--)
			return odfs_lookup_error(cookie);

		ret = odfs_wait_cookie(sbi, aborts, cookie, odfs_cookie_usable,
				       ODFS_FAILED_TIMEOUT);
		if (ret <= 0)
			return ret ?: -EIO;
		odfs_start_lookup(cookie);
		odfs_unuse_cookie(inode);
	}
}

static int odfs_use_cookie_locked(struct inode *inode, unsigned int aborts)
{
	struct odfs_sb_info *sbi = ODFS_SB(inode->i_sb);
	struct odfs_blob *blob = ODFS_I(inode)->blob;
	struct fscache_cookie *cookie;
	long ret;
	int err;

	err = odfs_acquire_cookie(sbi, aborts, blob);
	if (err)
		return err;
	cookie = blob->cookie;
	ret = odfs_wait_cookie(sbi, aborts, cookie, odfs_cookie_usable, ODFS_FAILED_TIMEOUT);
	if (ret <= 0)
		return ret ?: -EIO;
	odfs_start_lookup(cookie);
	err = odfs_wait_for_lookup(inode, aborts);
	if (!err)
		err = odfs_set_size(inode, cookie);
	if (err)
		odfs_unuse_cookie(inode);
	return err;
}

/* Whether nothing has to be looked up, unless the cache lets go of the object now. */
static bool odfs_is_active(struct inode *inode)
{
	/* Pairs with odfs_acquire_cookie(). */
	struct fscache_cookie *cookie = smp_load_acquire(&ODFS_I(inode)->blob->cookie);

	return cookie && fscache_cookie_state(cookie) == FSCACHE_COOKIE_STATE_ACTIVE;
}

static bool odfs_is_refusal(int err)
{
	/* Other errors may pass: of the network, of the cache, of too much to do. */
	return err == -ENOENT || err == -EACCES || err == -EPERM;
}

/**
 * odfs_is_refused - Whether the daemon has said that there is no such file
 * @inode: The file
 *
 * Return: true if that was its last word, and nobody has the file open.
 */
bool odfs_is_refused(struct inode *inode)
{
	struct odfs_inode *oi = ODFS_I(inode);

	/* There is a cookie if a lookup has failed like that. */
	return odfs_is_refusal(smp_load_acquire(&oi->failure)) &&
	       !atomic_read(&oi->blob->cookie->n_active);
}

/* Called with the lock of the inode. */
static void odfs_note_result(struct inode *inode, int err)
{
	struct odfs_inode *oi = ODFS_I(inode);

	/* Who is killed knows nothing. */
	if (err == -ERESTARTSYS)
		return;
	/* Pairs with odfs_is_refused(), which looks at the cookie. */
	smp_store_release(&oi->failure, err);
	if (!err)
		return;
	oi->failed_at = jiffies;
	WRITE_ONCE(oi->nr_failures, oi->nr_failures + 1);
	if (odfs_is_refusal(err))
		odfs_unlist_name(inode);
}

/*
 * Whether a lookup has failed since there were @nr_failures, or has just been refused.
 * Called with the lock of the inode.
 */
static bool odfs_has_failed(const struct odfs_inode *oi, unsigned int nr_failures)
{
	return oi->failure && (oi->nr_failures != nr_failures ||
			       (odfs_is_refusal(oi->failure) &&
				time_before(jiffies, oi->failed_at + ODFS_REFUSAL_TIME)));
}

/*
 * Take the lock of the inode and, if there is something to look up, one of the lookups
 * that the user may have under way. Neither is waited for while the other is held: the
 * lock may be that of another user's lookup, and others may want the lock.
 *
 * Return: 0, with what odfs_end_lookup() takes in @user and the count of failures from
 * before the wait for the lock in @nr_failures; or a negative errno.
 */
static int odfs_lock_in_line(struct inode *inode, unsigned int aborts,
			     unsigned int *nr_failures, struct odfs_user **user)
{
	struct odfs_sb_info *sbi = ODFS_SB(inode->i_sb);
	struct odfs_inode *oi = ODFS_I(inode);
	int err;

	for (;;) {
		*user = NULL;
		*nr_failures = READ_ONCE(oi->nr_failures);
		err = mutex_lock_killable(&oi->lock);
		if (err || odfs_has_failed(oi, *nr_failures) || odfs_is_active(inode))
			return err;
		*user = odfs_begin_lookup(sbi, false);
		if (!IS_ERR(*user))
			return 0;
		mutex_unlock(&oi->lock);
		if (PTR_ERR(*user) != -EAGAIN)
			return PTR_ERR(*user);

		*user = odfs_begin_lookup(sbi, true);
		if (IS_ERR(*user))
			return PTR_ERR(*user);
		*nr_failures = READ_ONCE(oi->nr_failures);
		err = READ_ONCE(sbi->aborts) != aborts ? -EIO : 0;
		if (!err && mutex_trylock(&oi->lock))
			return 0;
		odfs_end_lookup(sbi, *user);
		if (err)
			return err;
	}
}

/*
 * Take the lock of the inode for a use of its cookie. Those who wait for the lock
 * while a lookup fails share the answer: each would wait for a silent daemon anew,
 * one after the other. With @in_line, a lookup counts as one of the user's.
 */
static int odfs_lock_and_use_cookie(struct inode *inode, bool in_line)
{
	struct odfs_inode *oi = ODFS_I(inode);
	struct odfs_sb_info *sbi = ODFS_SB(inode->i_sb);
	unsigned int nr_failures = READ_ONCE(oi->nr_failures);
	unsigned int aborts = READ_ONCE(sbi->aborts);
	struct odfs_user *user = NULL;
	int err;

	if (in_line)
		err = odfs_lock_in_line(inode, aborts, &nr_failures, &user);
	else
		err = mutex_lock_killable(&oi->lock);
	if (err)
		return err;
	if (odfs_has_failed(oi, nr_failures)) {
		err = oi->failure;
	} else {
		err = odfs_use_cookie_locked(inode, aborts);
		odfs_note_result(inode, err);
	}
	if (err)
		mutex_unlock(&oi->lock);
	odfs_end_lookup(sbi, user);
	return err;
}

/**
 * odfs_use_cookie - Have the cookie of a file looked up and hold on to it
 * @inode: The file
 *
 * Waits killably for the cache and its daemon, however long they take. Failures are
 * not remembered, but for a moment that there is no such file: the next call looks
 * up again.
 *
 * Return: 0 with the cookie ACTIVE, the size set, and a use to be given back with
 * odfs_unuse_cookie(); or the daemon's errno, -ENOTCONN without a live cache,
 * -ESTALE if the blob was replaced by another version, or one of another size, while
 * it is open, -EIO after an umount -f.
 */
int odfs_use_cookie(struct inode *inode)
{
	int err = odfs_lock_and_use_cookie(inode, true);

	if (!err)
		mutex_unlock(&ODFS_I(inode)->lock);
	return err;
}

/**
 * odfs_lookup_cookie - Have the cookie of a file looked up
 * @inode: The file
 * @in_line: Whether to wait for other lookups of the user
 *
 * Like odfs_use_cookie(), for those who want the size or, not @in_line, who have a use
 * already and found that the cache had gone and come back: they may hold folio locks,
 * for which other users wait.
 *
 * Return: 0 or a negative errno.
 */
int odfs_lookup_cookie(struct inode *inode, bool in_line)
{
	int err = odfs_lock_and_use_cookie(inode, in_line);

	if (err)
		return err;
	/* The use is given back under the lock: odfs_set_size() counts uses. */
	odfs_unuse_cookie(inode);
	mutex_unlock(&ODFS_I(inode)->lock);
	return 0;
}
