// SPDX-License-Identifier: GPL-2.0
/*
 * Names and inodes. Every name exists; a file is made when it is looked up and
 * the cache is asked about it when it is opened or its size is wanted, by whoever
 * does that. Looking up waits for nobody: it is done under locks of the root.
 */
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/stat.h>
#include <linux/statfs.h>
#include "internal.h"

#define ODFS_ROOT_INO	1

static struct kmem_cache *odfs_inode_cachep;

static struct inode *odfs_alloc_inode(struct super_block *sb)
{
	struct odfs_inode *oi = alloc_inode_sb(sb, odfs_inode_cachep, GFP_KERNEL);

	if (!oi)
		return NULL;
	oi->blob = NULL;
	oi->size_known = false;
	oi->version = 0;
	oi->failure = 0;
	oi->nr_failures = 0;
	oi->pos = 0;
	oi->blocks = 0;
	oi->abort = ODFS_ABORT_NONE;
	return &oi->vfs_inode;
}

static void odfs_free_inode(struct inode *inode)
{
	kmem_cache_free(odfs_inode_cachep, ODFS_I(inode));
}

static void odfs_init_once(void *p)
{
	struct odfs_inode *oi = p;

	mutex_init(&oi->lock);
	spin_lock_init(&oi->abort_lock);
	atomic_set(&oi->reads, 0);
	inode_init_once(&oi->vfs_inode);
}

/**
 * odfs_init_inode_cache - Create the slab cache of inodes
 *
 * Return: 0 or -ENOMEM.
 */
int odfs_init_inode_cache(void)
{
	odfs_inode_cachep = kmem_cache_create("ondemandfs_inode", sizeof(struct odfs_inode), 0,
					      SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
					      odfs_init_once);
	return odfs_inode_cachep ? 0 : -ENOMEM;
}

/**
 * odfs_destroy_inode_cache - Destroy the slab cache of inodes
 */
void odfs_destroy_inode_cache(void)
{
	/* Inodes are freed after a grace period. */
	rcu_barrier();
	kmem_cache_destroy(odfs_inode_cachep);
}

/*
 * Reads whose folios the daemon never fills would hold truncation up for ever.
 * Relinquishing the cookie first makes the cache fail them, within about a second.
 * Only unmounting comes here with such: memory reclaim leaves inodes with pages alone.
 */
static void odfs_evict_inode(struct inode *inode)
{
	struct odfs_sb_info *sbi = ODFS_SB(inode->i_sb);
	struct odfs_blob *blob = ODFS_I(inode)->blob;

	if (blob) {
		odfs_unlist_name(inode);
		odfs_forget_inode(sbi, blob);
		odfs_relinquish_blob(sbi, blob);
	}
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	if (blob) {
		odfs_put_blob(blob);
		odfs_reap_blobs(sbi);
	}
}

/*
 * umount -f, of any mount of the superblock. Whoever waits for a read of EROFS waits
 * for the folio, and so do the unmounting of EROFS and the cleaning up after a
 * mount(2) of it that was killed: not even a signal tells us. With a daemon that is
 * silent but alive, this ends it.
 */
static void odfs_umount_begin(struct super_block *sb)
{
	odfs_abort_blobs(ODFS_SB(sb));
}

/*
 * fscache does not tell what room the cache has. As of any file system that cannot
 * be written to, all of it is in use: by the files that are known.
 */
static int odfs_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	struct odfs_sb_info *sbi = ODFS_SB(dentry->d_sb);

	simple_statfs(dentry, buf);
	buf->f_bsize = ODFS_BLOCK_SIZE;
	/* Some take it for an error if there is nothing at all. */
	buf->f_blocks = max_t(s64, atomic64_read(&sbi->blocks), 1);
	buf->f_files = atomic64_read(&sbi->nr_names) + 1;
	return 0;
}

const struct super_operations odfs_sops = {
	.alloc_inode	= odfs_alloc_inode,
	.free_inode	= odfs_free_inode,
	.evict_inode	= odfs_evict_inode,
	.put_super	= odfs_put_super,
	.umount_begin	= odfs_umount_begin,
	.show_options	= odfs_show_options,
	.statfs		= odfs_statfs,
};

static int odfs_getattr(struct mnt_idmap *idmap, const struct path *path,
			struct kstat *stat, u32 request_mask, unsigned int query_flags)
{
	struct inode *inode = d_inode(path->dentry);
	int err;

	/* Pairs with odfs_set_size(). */
	if ((!smp_load_acquire(&ODFS_I(inode)->size_known) || odfs_is_refused(inode)) &&
	    request_mask & (STATX_SIZE | STATX_BLOCKS) &&
	    (query_flags & AT_STATX_SYNC_TYPE) != AT_STATX_DONT_SYNC) {
		/* Who may not read a file has no business to have it fetched. */
		err = inode_permission(idmap, inode, MAY_READ);
		if (!err)
			err = odfs_lookup_cookie(inode, true);
		if (err)
			return err;
	}
	generic_fillattr(idmap, request_mask, inode, stat);
	stat->blocks = DIV_ROUND_UP_ULL(stat->size, 512);
	return 0;
}

static const struct inode_operations odfs_file_iops = {
	.getattr	= odfs_getattr,
};

/*
 * Nobody says when a file was made, so its times are always the same: the inode
 * may be evicted and come back.
 */
static struct inode *odfs_new_inode(struct super_block *sb, u64 ino, umode_t mode)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;
	inode->i_ino = ino;
	inode->i_mode = mode;
	/* It shall outlive its dentry, or that would take its pages with it. */
	inode_fake_hash(inode);
	inode_set_atime(inode, 0, 0);
	inode_set_mtime(inode, 0, 0);
	inode_set_ctime(inode, 0, 0);
	return inode;
}

static struct inode *odfs_new_file(struct super_block *sb, const struct qstr *name)
{
	struct odfs_sb_info *sbi = ODFS_SB(sb);
	/* The same for a name whenever and wherever it is mounted. */
	u64 ino = max_t(u64, siphash(name->name, name->len, &sbi->ino_key), ODFS_ROOT_INO + 1);
	struct odfs_blob *blob;
	struct inode *inode;

	inode = odfs_new_inode(sb, ino, S_IFREG);
	if (!inode)
		return NULL;
	inode->i_op = &odfs_file_iops;
	inode->i_fop = &odfs_file_fops;
	inode->i_mapping->a_ops = &odfs_aops;
	mapping_set_large_folios(inode->i_mapping);

	blob = odfs_new_blob(name);
	if (!blob) {
		iput(inode);
		return NULL;
	}
	blob->ino = inode->i_ino;
	odfs_hash_blob(sbi, blob, inode);
	return inode;
}

static struct dentry *odfs_lookup(struct inode *dir, struct dentry *dentry, unsigned int flags)
{
	struct odfs_sb_info *sbi = ODFS_SB(dir->i_sb);
	struct inode *inode;

	if (dentry->d_name.len > NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);

	odfs_reap_blobs(sbi);
	inode = odfs_find_inode(sbi, &dentry->d_name);
	if (!inode)
		inode = odfs_new_file(dir->i_sb, &dentry->d_name);
	if (!inode)
		return ERR_PTR(-ENOMEM);
	return d_splice_alias(inode, dentry);
}

static const struct inode_operations odfs_root_iops = {
	.lookup		= odfs_lookup,
};

/**
 * odfs_new_root - Make the inode of the root directory
 * @sb: The superblock
 *
 * Return: the inode, or NULL without memory.
 */
struct inode *odfs_new_root(struct super_block *sb)
{
	struct inode *inode = odfs_new_inode(sb, ODFS_ROOT_INO, S_IFDIR);

	if (!inode)
		return NULL;
	inode->i_op = &odfs_root_iops;
	inode->i_fop = &odfs_dir_fops;
	set_nlink(inode, 2);
	odfs_init_owner(inode, &ODFS_SB(sb)->owner);
	return inode;
}

/**
 * odfs_set_owner - Change whose the files are
 * @sb: The superblock; its s_umount is held
 * @owner: The new owner, and the mode of files
 *
 * Files that are open stay so.
 */
void odfs_set_owner(struct super_block *sb, const struct odfs_owner *owner)
{
	struct odfs_sb_info *sbi = ODFS_SB(sb);
	struct odfs_blob *blob;

	spin_lock(&sbi->lock);
	sbi->owner = *owner;
	odfs_init_owner(d_inode(sb->s_root), owner);
	list_for_each_entry(blob, &sbi->live, list)
		if (blob->inode)
			odfs_init_owner(blob->inode, owner);
	spin_unlock(&sbi->lock);
}
