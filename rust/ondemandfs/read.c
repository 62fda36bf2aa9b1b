// SPDX-License-Identifier: GPL-2.0
/*
 * Reading from the cache, asynchronously: into the pages of a caller that can
 * take a completion, or into folios of our own page cache.
 *
 * A reader gets what the daemon wrote or -EIO. Zeros it gets only from the end of
 * the file to the end of the last page.
 */
#include <linux/bvec.h>
#include <linux/fscache.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/version.h>
#include <trace/events/fscache.h>
#include "internal.h"

#define ODFS_IO_MAX_FOLIOS	256

/*
 * Of one file. Each read ahead keeps its folios locked until the daemon answers, and
 * fills the daemon's queue; whoever asks for that waits for none of it.
 */
#define ODFS_MAX_READS_AHEAD	128

enum odfs_io_phase {
	ODFS_IO_SUBMITTING,	/* odfs_submit() will see to the completion */
	ODFS_IO_DONE,		/* ... and has been told the result */
	ODFS_IO_QUEUED,		/* odfs_io_terminated() will */
};

struct odfs_io {
	struct netfs_cache_resources cres;
	struct inode		*inode;
	struct kiocb		*iocb;		/* NULL: into folios */
	struct iov_iter		iter;
	loff_t			pos;
	size_t			len;		/* what is to come from the cache */
	size_t			zeros;		/* what the caller's pages have behind it */
	ssize_t			result;
	atomic_t		phase;		/* enum odfs_io_phase */
	unsigned int		nr_folios;
	struct bio_vec		bvecs[];	/* the folios, locked */
};

/* Those with an iocb. A constructor, so that they are not cleared each time. */
static struct kmem_cache *odfs_io_cachep;

static void odfs_init_io_once(void *p)
{
	memset(p, 0, sizeof(struct odfs_io));
}

/**
 * odfs_init_io_cache - Create the slab cache of reads
 *
 * Return: 0 or -ENOMEM.
 */
int odfs_init_io_cache(void)
{
	odfs_io_cachep = kmem_cache_create("ondemandfs_io", sizeof(struct odfs_io), 0, 0,
					   odfs_init_io_once);
	return odfs_io_cachep ? 0 : -ENOMEM;
}

/**
 * odfs_destroy_io_cache - Destroy the slab cache of reads
 */
void odfs_destroy_io_cache(void)
{
	kmem_cache_destroy(odfs_io_cachep);
}

/* With @iocb, or with room for @nr_folios. */
static struct odfs_io *odfs_alloc_io(struct inode *inode, struct kiocb *iocb,
				     unsigned int nr_folios, gfp_t gfp)
{
	struct odfs_io *io;

	if (iocb)
		io = kmem_cache_alloc(odfs_io_cachep, gfp);
	else
		io = kmalloc_flex(*io, bvecs, nr_folios, gfp);
	if (!io)
		return NULL;
	io->inode = inode;
	io->iocb = iocb;
	io->len = 0;
	io->zeros = 0;
	io->nr_folios = 0;
	atomic_set(&io->phase, ODFS_IO_SUBMITTING);
	return io;
}

static void odfs_free_io(struct odfs_io *io)
{
	if (io->iocb)
		kmem_cache_free(odfs_io_cachep, io);
	else
		kfree(io);
}

/* How much of @len bytes at @pos the cache file has: it ends with a whole block. */
static size_t odfs_bound(struct inode *inode, loff_t pos, size_t len)
{
	loff_t end = round_up(i_size_read(inode), ODFS_BLOCK_SIZE);

	return pos < end ? min_t(loff_t, len, end - pos) : 0;
}

/* End the access to the cookie; see "Lifetimes" on why this comes first. */
static ssize_t odfs_end_io(struct odfs_io *io)
{
	bool ok = (size_t)io->result == io->len;

	io->cres.ops->end_operation(&io->cres);
	odfs_end_read(io->inode, io->pos, io->len, ok);
	return ok ? io->len + io->zeros : -EIO;
}

static void odfs_end_folios(struct odfs_io *io, bool ok)
{
	/* The inode is gone when the last folio is unlocked. */
	loff_t size = i_size_read(io->inode);
	unsigned int i;

	for (i = 0; i < io->nr_folios; i++) {
		struct folio *folio = page_folio(io->bvecs[i].bv_page);
		loff_t pos = folio_pos(folio);

		if (ok && size < pos + folio_size(folio))
			folio_zero_segment(folio, size > pos ? size - pos : 0, folio_size(folio));
		folio_end_read(folio, ok);
	}
	odfs_free_io(io);
}

/* Called exactly once by the cache, in any context. */
static void odfs_io_terminated(void *priv, ssize_t result)
{
	struct odfs_io *io = priv;
	struct kiocb *iocb = io->iocb;

	io->result = result;
	if (atomic_cmpxchg(&io->phase, ODFS_IO_SUBMITTING, ODFS_IO_DONE) == ODFS_IO_SUBMITTING)
		return;

	result = odfs_end_io(io);
	if (!iocb) {
		odfs_end_folios(io, result >= 0);
		return;
	}
	odfs_free_io(io);
	if (result > 0)
		iocb->ki_pos += result;
	iocb->ki_complete(iocb, result);
}

/*
 * Have the cache read. It asks its daemon for what is missing on its own, without
 * keeping us.
 */
static void odfs_cache_read(struct odfs_io *io)
{
	struct netfs_cache_resources *cres = &io->cres;

#if LINUX_VERSION_MAJOR == 7 && LINUX_VERSION_PATCHLEVEL < 3
	/* That in C wants to be asked first, piece by piece, and keeps us meanwhile. */
	size_t done, len;

	for (done = 0; cres->ops->prepare_ondemand_read && done < io->len; done += len) {
		unsigned long flags = BIT(NETFS_SREQ_ONDEMAND);

		len = io->len - done;
		if (cres->ops->prepare_ondemand_read(cres, io->pos + done, &len, LLONG_MAX,
						     &flags, io->inode->i_ino) !=
		    NETFS_READ_FROM_CACHE || !len) {
			odfs_io_terminated(io, -EIO);
			return;
		}
	}
#endif
	fscache_read(cres, io->pos, &io->iter, NETFS_READ_HOLE_FAIL, odfs_io_terminated, io);
}

/*
 * As fscache_begin_read_operation(), but without its wait for a cookie that is being
 * looked up, which cannot be killed, and whatever DISABLED says: see abort.c.
 */
static int odfs_begin_operation(struct netfs_cache_resources *cres, struct fscache_cookie *cookie)
{
	int n_accesses = atomic_inc_return(&cookie->n_accesses);
	bool ok;

	trace_fscache_access(cookie->debug_id, refcount_read(&cookie->ref), n_accesses,
			     fscache_access_io_read);
	/* Pairs with what withdraws the cookie: it clears one, then reads the other. */
	smp_mb__after_atomic();
	ok = test_bit(FSCACHE_COOKIE_IS_CACHING, &cookie->flags) &&
	     odfs_cache_is_live(cookie->volume);
	cres->ops = NULL;
	cres->cache_priv = cookie;
	cres->cache_priv2 = NULL;
	cres->debug_id = cookie->debug_id;

	/*
	 * With an access that is counted it stays in the state that it has here. Until it
	 * is ACTIVE, its lookup may set the counter, with which a read that ends is compared.
	 */
	spin_lock(&cookie->lock);
	ok = ok && fscache_cookie_state(cookie) == FSCACHE_COOKIE_STATE_ACTIVE;
	cres->inval_counter = cookie->inval_counter;
	spin_unlock(&cookie->lock);
	if (ok && cookie->volume->cache->ops->begin_operation(cres, FSCACHE_WANT_PARAMS))
		return 0;
	cres->cache_priv = NULL;
	cres->ops = NULL;
	fscache_end_cookie_access(cookie, fscache_access_io_not_live);
	return -ENOBUFS;
}

/*
 * Begin the access to the cookie. It stays ACTIVE while it is in use, unless the
 * cache goes. If the cache has come back since, it must look the cookie up again.
 */
static int odfs_begin_access(struct odfs_io *io)
{
	struct fscache_cookie *cookie = ODFS_I(io->inode)->blob->cookie;
	bool looked_up = false;
	int err;

	while (odfs_begin_operation(&io->cres, cookie)) {
		if (looked_up)
			return -ENOBUFS;
		err = odfs_lookup_cookie(io->inode, false);
		if (err)
			return err;
		looked_up = true;
	}

	/* Somebody may have looked up, as ACTIVE now, what is another blob. */
	if (!odfs_is_same_data(io->inode, cookie)) {
		io->cres.ops->end_operation(&io->cres);
		return -ESTALE;
	}
	return 0;
}

static int odfs_begin_io(struct odfs_io *io)
{
	int err;

	err = odfs_begin_read(io->inode, io->pos, io->len);
	if (err)
		return err;
	err = odfs_begin_access(io);
	if (err)
		odfs_end_read(io->inode, io->pos, io->len, false);
	return err;
}

/*
 * Returns -EIOCBQUEUED if odfs_io_terminated() has or will have completed @io,
 * else the result: io->len and io->zeros, or -EIO, and @io is still the caller's.
 */
static ssize_t odfs_submit(struct odfs_io *io)
{
	if (odfs_begin_io(io))
		return -EIO;

	odfs_cache_read(io);
	if (atomic_cmpxchg(&io->phase, ODFS_IO_SUBMITTING, ODFS_IO_QUEUED) == ODFS_IO_SUBMITTING)
		return -EIOCBQUEUED;
	return odfs_end_io(io);
}

/*
 * Fill with zeros what the last page has behind @len bytes of @to, which end at @pos.
 * Returns how much that is: nothing unless pages are larger than blocks.
 */
static size_t odfs_zero_tail(struct inode *inode, loff_t pos, const struct iov_iter *to, size_t len)
{
	loff_t end = round_up(i_size_read(inode), PAGE_SIZE);
	struct iov_iter tail;

	if (likely(len == iov_iter_count(to)) || pos >= end)
		return 0;
	tail = *to;
	iov_iter_advance(&tail, len);
	return iov_iter_zero(min_t(loff_t, iov_iter_count(&tail), end - pos), &tail);
}

/**
 * odfs_read_direct - Read from the cache into the pages of the caller
 * @iocb: What to complete; not a synchronous one
 * @to: Where to; an ITER_BVEC whose array lives until @iocb is completed
 *
 * Position and length must be aligned to ODFS_BLOCK_SIZE. The page that the file
 * ends in is read to its end, with zeros behind the last block of the cache file.
 *
 * Return: -EIOCBQUEUED, or what was read if that is known already, or -EIO.
 */
ssize_t odfs_read_direct(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	size_t len = odfs_bound(inode, iocb->ki_pos, iov_iter_count(to));
	size_t zeros = odfs_zero_tail(inode, iocb->ki_pos + len, to, len);
	struct odfs_io *io;
	ssize_t ret;

	if (!len) {
		iov_iter_advance(to, zeros);
		iocb->ki_pos += zeros;
		return zeros;
	}

	io = odfs_alloc_io(inode, iocb, 0, GFP_KERNEL);
	if (!io)
		return -ENOMEM;
	io->pos = iocb->ki_pos;
	io->len = len;
	io->zeros = zeros;
	io->iter = *to;
	iov_iter_truncate(&io->iter, len);

	ret = odfs_submit(io);
	if (ret == -EIOCBQUEUED)
		return ret;
	odfs_free_io(io);
	if (ret > 0) {
		iocb->ki_pos += ret;
		iov_iter_advance(to, ret);
	}
	return ret;
}

static void odfs_add_folio(struct odfs_io *io, struct folio *folio)
{
	if (!io->nr_folios)
		io->pos = folio_pos(folio);
	io->len += folio_size(folio);
	bvec_set_folio(&io->bvecs[io->nr_folios++], folio, folio_size(folio), 0);
}

static void odfs_read_folios(struct odfs_io *io)
{
	ssize_t ret = 0;

	io->len = odfs_bound(io->inode, io->pos, io->len);
	if (io->len) {
		iov_iter_bvec(&io->iter, ITER_DEST, io->bvecs, io->nr_folios, io->len);
		ret = odfs_submit(io);
	}
	if (ret != -EIOCBQUEUED)
		odfs_end_folios(io, ret >= 0);
}

static int odfs_read_folio(struct file *file, struct folio *folio)
{
	struct odfs_io *io = odfs_alloc_io(folio->mapping->host, NULL, 1, GFP_KERNEL);

	if (!io) {
		folio_unlock(folio);
		return -ENOMEM;
	}
	odfs_add_folio(io, folio);
	odfs_read_folios(io);
	return 0;
}

/* What is not read here, whoever waits for it has read, by the folio. */
static void odfs_readahead(struct readahead_control *rac)
{
	struct inode *inode = rac->mapping->host;
	struct folio *folio;
	struct odfs_io *io;
	unsigned int max;

	do {
		if (atomic_read(&ODFS_I(inode)->reads) >= ODFS_MAX_READS_AHEAD)
			return;
		max = min(readahead_count(rac), ODFS_IO_MAX_FOLIOS);
		io = odfs_alloc_io(inode, NULL, max,
				   GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);
		if (!io)
			return;

		while (io->nr_folios < max) {
			folio = readahead_folio(rac);
			if (!folio)
				break;
			odfs_add_folio(io, folio);
		}
		if (!io->nr_folios) {
			odfs_free_io(io);
			return;
		}
		odfs_read_folios(io);
	} while (readahead_count(rac));
}

const struct address_space_operations odfs_aops = {
	.read_folio	= odfs_read_folio,
	.readahead	= odfs_readahead,
};
