// SPDX-License-Identifier: GPL-2.0
/*
 * Open files. An open file has a use of its cookie, hence a size, and an object
 * in the cache as long as the cache lives.
 */
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/uio.h>
#include "internal.h"

static int odfs_open(struct inode *inode, struct file *file)
{
	return odfs_use_cookie(inode);
}

static int odfs_release(struct inode *inode, struct file *file)
{
	odfs_unuse_cookie(inode);
	return 0;
}

/*
 * This is how EROFS reads: into pages of the kernel, with somebody to tell. It reads
 * by the page what it wants to keep and fails what is short, so that a page that the
 * file ends in must be whole for it. For all others the file ends where it ends.
 *
 * Buffers that a task has registered with io_uring come in the same form, but they
 * are pinned. The folio of a page cache that is about to be read is not; should very
 * many references to it look as if it were, a file that ends within a page is short.
 */
static bool odfs_reads_whole_pages(struct kiocb *iocb, struct iov_iter *to)
{
	return iov_iter_is_bvec(to) && !is_sync_kiocb(iocb) && iov_iter_count(to) &&
	       !folio_maybe_dma_pinned(page_folio(to->bvec->bv_page));
}

/* Whole blocks. 512 is what direct I/O may ask of memory. */
static bool odfs_can_read_direct(struct kiocb *iocb, struct iov_iter *to)
{
	return !(iocb->ki_flags & IOCB_NOWAIT) &&
	       IS_ALIGNED(iocb->ki_pos | iov_iter_count(to), ODFS_BLOCK_SIZE) &&
	       IS_ALIGNED(iov_iter_alignment(to), SECTOR_SIZE);
}

/* EROFS images may have blocks of 512 bytes. */
static ssize_t odfs_read_past_eof(struct kiocb *iocb, struct iov_iter *to)
{
	loff_t size = i_size_read(file_inode(iocb->ki_filp));
	loff_t end = round_up(size, PAGE_SIZE);
	ssize_t ret;

	if (iocb->ki_pos < size || iocb->ki_pos >= end)
		return 0;
	ret = iov_iter_zero(min_t(loff_t, end - iocb->ki_pos, iov_iter_count(to)), to);
	iocb->ki_pos += ret;
	return ret;
}

static ssize_t odfs_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	bool whole_pages = odfs_reads_whole_pages(iocb, to);
	ssize_t ret;

	if (whole_pages && odfs_can_read_direct(iocb, to))
		return odfs_read_direct(iocb, to);

	ret = filemap_read(iocb, to, 0);
	if (ret >= 0 && whole_pages)
		ret += odfs_read_past_eof(iocb, to);
	return ret;
}

const struct file_operations odfs_file_fops = {
	.open		= odfs_open,
	.release	= odfs_release,
	.llseek		= generic_file_llseek,
	.read_iter	= odfs_read_iter,
	.splice_read	= filemap_splice_read,
	.mmap_prepare	= generic_file_readonly_mmap_prepare,
};
