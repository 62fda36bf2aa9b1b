// SPDX-License-Identifier: GPL-2.0
/*
 * The names that a listing of the root shows: those of files that exist, as far as
 * that is known. A name is put on the list when its file has been looked up, and
 * taken off when the inode is evicted or the daemon says that there is no such file.
 */
#include <linux/fs.h>
#include "internal.h"

/* Positions in the directory; the first two are those of "." and "..". */
#define ODFS_NAME_LIMIT		XA_LIMIT(2, INT_MAX)

/**
 * odfs_list_name - Have a name listed
 * @inode: Its file, whose size is set
 *
 * Called with odfs_inode::lock. Without memory the name is not listed this time.
 */
void odfs_list_name(struct inode *inode)
{
	struct odfs_sb_info *sbi = ODFS_SB(inode->i_sb);
	struct odfs_inode *oi = ODFS_I(inode);
	loff_t blocks = DIV_ROUND_UP_ULL(i_size_read(inode), ODFS_BLOCK_SIZE);
	u32 pos;

	atomic64_add(blocks - oi->blocks, &sbi->blocks);
	oi->blocks = blocks;
	if (oi->pos || xa_alloc_cyclic(&sbi->names, &pos, oi->blob, ODFS_NAME_LIMIT,
				       &sbi->next_name, GFP_KERNEL) < 0)
		return;
	oi->pos = pos;
	atomic64_inc(&sbi->nr_names);
}

/**
 * odfs_unlist_name - Have a name listed no more
 * @inode: Its file
 *
 * Called with odfs_inode::lock, or when the inode is evicted.
 */
void odfs_unlist_name(struct inode *inode)
{
	struct odfs_sb_info *sbi = ODFS_SB(inode->i_sb);
	struct odfs_inode *oi = ODFS_I(inode);

	atomic64_sub(oi->blocks, &sbi->blocks);
	oi->blocks = 0;
	if (!oi->pos)
		return;
	xa_erase(&sbi->names, oi->pos);
	oi->pos = 0;
	atomic64_dec(&sbi->nr_names);
}

/* The next name from @pos on, with a reference. */
static struct odfs_blob *odfs_next_name(struct odfs_sb_info *sbi, loff_t *pos)
{
	XA_STATE(xas, &sbi->names, *pos);
	struct odfs_blob *blob;

	xas_lock(&xas);
	blob = xas_find(&xas, INT_MAX);
	if (blob) {
		refcount_inc(&blob->ref);
		*pos = xas.xa_index;
	}
	xas_unlock(&xas);
	return blob;
}

static void odfs_emit_names(struct odfs_sb_info *sbi, struct dir_context *ctx)
{
	struct odfs_blob *blob;
	bool more = true;

	while (more && ctx->pos <= INT_MAX) {
		blob = odfs_next_name(sbi, &ctx->pos);
		if (!blob)
			break;
		more = dir_emit(ctx, blob->name, blob->len, blob->ino, DT_REG);
		odfs_put_blob(blob);
		if (more)
			ctx->pos++;
	}
}

/*
 * What is written to may be a page of one of our files, and wait for the daemon. That
 * must not be under i_rwsem, and the list does not need it.
 */
static int odfs_readdir(struct file *file, struct dir_context *ctx)
{
	struct inode *inode = file_inode(file);

	inode_unlock_shared(inode);
	if (dir_emit_dots(file, ctx))
		odfs_emit_names(ODFS_SB(inode->i_sb), ctx);
	inode_lock_shared(inode);
	return 0;
}

const struct file_operations odfs_dir_fops = {
	.llseek		= generic_file_llseek,
	.read		= generic_read_dir,
	.iterate_shared	= odfs_readdir,
};
