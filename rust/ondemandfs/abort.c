// SPDX-License-Identifier: GPL-2.0
/*
 * umount -f: it fails the reads that are in flight, and no others. The superblock
 * may well live on, with other mounts and open files.
 *
 * The cache fails what it was asked for a cookie that is DISABLED, but looks for
 * that flag from time to time only. So the flag stays until the reads that were in
 * flight have ended, and reads that begin meanwhile wait. Each state below is that
 * of one inode, changed under odfs_inode::abort_lock:
 *
 *	NONE	   nothing has to be done.
 *	ABORTING   the cookie is DISABLED, and reads are in flight.
 *	AFTERMATH  the last of them has ended.
 *
 * A page cache, EROFS's or our own, asks a second time for a page that was being
 * read ahead when somebody came to need it. That reader has waited since before the
 * umount, so what was failed fails again while the aftermath lasts.
 */
#include <linux/jiffies.h>
#include <linux/wait_bit.h>
#include "internal.h"

#define ODFS_AFTERMATH		(1 * HZ)

/* The cache of Linux 7.2, in C, does not look for the flag at all. */
#define ODFS_ABORT_TIMEOUT	(10 * HZ)

/* Called with the lock held: the last of the reads that are to fail has ended. */
static void odfs_finish_abort(struct odfs_inode *oi)
{
	clear_bit(FSCACHE_COOKIE_DISABLED, &oi->blob->cookie->flags);
	oi->abort_until = jiffies + ODFS_AFTERMATH;
	WRITE_ONCE(oi->abort, ODFS_ABORT_AFTERMATH);
	wake_up_var(&oi->abort);
}

static void odfs_uncount_read(struct odfs_inode *oi)
{
	unsigned long flags;

	/* Pairs with odfs_abort_reads(): one of the two sees what the other did. */
	if (!atomic_dec_and_test(&oi->reads) ||
	    likely(READ_ONCE(oi->abort) != ODFS_ABORT_ABORTING))
		return;
	spin_lock_irqsave(&oi->abort_lock, flags);
	if (oi->abort == ODFS_ABORT_ABORTING && !atomic_read(&oi->reads))
		odfs_finish_abort(oi);
	spin_unlock_irqrestore(&oi->abort_lock, flags);
}

/* Returns 0 if the read may go on, -EAGAIN if it has to wait, or -EIO. */
static int odfs_check_abort(struct odfs_inode *oi, loff_t pos, size_t len)
{
	unsigned long flags;
	int err = 0;

	spin_lock_irqsave(&oi->abort_lock, flags);
	if (oi->abort == ODFS_ABORT_AFTERMATH && time_after_eq(jiffies, oi->abort_until))
		WRITE_ONCE(oi->abort, ODFS_ABORT_NONE);
	if (oi->abort != ODFS_ABORT_NONE && pos < oi->abort_end && pos + len > oi->abort_start)
		err = -EIO;
	else if (oi->abort == ODFS_ABORT_ABORTING)
		err = -EAGAIN;
	spin_unlock_irqrestore(&oi->abort_lock, flags);
	return err;
}

/**
 * odfs_begin_read - Count a read as being in flight
 * @inode: The file
 * @pos: Where the read begins
 * @len: How long it is
 *
 * Sleeps, killably and for some seconds at most, while earlier reads are aborted.
 *
 * Return: 0, and odfs_end_read() is to be called; or a negative errno.
 */
int odfs_begin_read(struct inode *inode, loff_t pos, size_t len)
{
	struct odfs_inode *oi = ODFS_I(inode);
	long left;
	int err;

	for (;;) {
		atomic_inc(&oi->reads);
		/* Pairs with odfs_abort_reads(). */
		smp_mb__after_atomic();
		if (likely(READ_ONCE(oi->abort) == ODFS_ABORT_NONE))
			return 0;
		err = odfs_check_abort(oi, pos, len);
		if (!err)
			return 0;
		odfs_uncount_read(oi);
		if (err != -EAGAIN)
			return err;

		left = odfs_wait_var(&oi->abort, READ_ONCE(oi->abort) != ODFS_ABORT_ABORTING,
				     ODFS_ABORT_TIMEOUT);
		if (left <= 0)
			return left ?: -EIO;
	}
}

/**
 * odfs_end_read - Note that a read has ended
 * @inode: The file, which has to stay for the time of the call
 * @pos: Where the read began
 * @len: How long it was
 * @ok: Whether the data is there
 *
 * May be called in any context.
 */
void odfs_end_read(struct inode *inode, loff_t pos, size_t len, bool ok)
{
	struct odfs_inode *oi = ODFS_I(inode);
	unsigned long flags;

	if (unlikely(READ_ONCE(oi->abort) == ODFS_ABORT_ABORTING) && !ok) {
		spin_lock_irqsave(&oi->abort_lock, flags);
		oi->abort_start = min(oi->abort_start, pos);
		oi->abort_end = max_t(loff_t, oi->abort_end, pos + len);
		spin_unlock_irqrestore(&oi->abort_lock, flags);
	}
	odfs_uncount_read(oi);
}

/**
 * odfs_abort_reads - Fail the reads of a file that are in flight
 * @inode: The file, which has a cookie
 *
 * Does not wait for them to fail. The caller holds odfs_sb_info::lock.
 */
void odfs_abort_reads(struct inode *inode)
{
	struct odfs_inode *oi = ODFS_I(inode);
	unsigned long flags;

	if (!atomic_read(&oi->reads))
		return;
	spin_lock_irqsave(&oi->abort_lock, flags);
	if (oi->abort != ODFS_ABORT_ABORTING) {
		oi->abort_start = LLONG_MAX;
		oi->abort_end = 0;
		WRITE_ONCE(oi->abort, ODFS_ABORT_ABORTING);
		/* Pairs with odfs_unuse_cookie(). */
		smp_mb__before_atomic();
		set_bit(FSCACHE_COOKIE_DISABLED, &oi->blob->cookie->flags);
	}
	/* Pairs with odfs_begin_read() and odfs_uncount_read(). */
	smp_mb();
	if (!atomic_read(&oi->reads))
		odfs_finish_abort(oi);
	spin_unlock_irqrestore(&oi->abort_lock, flags);
}

/**
 * odfs_unuse_cookie - Give back a use of a file's cookie
 * @inode: The file
 *
 * fscache takes the last one for a sign that the cookie is wanted again.
 */
void odfs_unuse_cookie(struct inode *inode)
{
	struct odfs_inode *oi = ODFS_I(inode);
	unsigned long flags;

	fscache_unuse_cookie(oi->blob->cookie, NULL, NULL);
	/* Pairs with odfs_abort_reads(). */
	smp_mb();
	if (likely(READ_ONCE(oi->abort) != ODFS_ABORT_ABORTING))
		return;
	spin_lock_irqsave(&oi->abort_lock, flags);
	if (oi->abort == ODFS_ABORT_ABORTING)
		set_bit(FSCACHE_COOKIE_DISABLED, &oi->blob->cookie->flags);
	spin_unlock_irqrestore(&oi->abort_lock, flags);
}
