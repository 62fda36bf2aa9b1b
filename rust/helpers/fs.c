// SPDX-License-Identifier: GPL-2.0

#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/ioprio.h>
#include <linux/mount.h>
#include <linux/pagemap.h>

__rust_helper void rust_helper_get_fs_pwd(struct fs_struct *fs, struct path *pwd)
{
	get_fs_pwd(fs, pwd);
}

__rust_helper void rust_helper_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

__rust_helper void rust_helper_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

__rust_helper void rust_helper_inode_lock_shared(struct inode *inode)
{
	inode_lock_shared(inode);
}

__rust_helper void rust_helper_inode_unlock_shared(struct inode *inode)
{
	inode_unlock_shared(inode);
}

__rust_helper void rust_helper_file_start_write(struct file *file)
{
	file_start_write(file);
}

__rust_helper void rust_helper_file_end_write(struct file *file)
{
	file_end_write(file);
}

__rust_helper void rust_helper_kiocb_start_write(struct kiocb *iocb)
{
	kiocb_start_write(iocb);
}

__rust_helper void rust_helper_kiocb_end_write(struct kiocb *iocb)
{
	kiocb_end_write(iocb);
}

/* Has the next change get a time of its own, as whoever asks for the attributes does. */
__rust_helper void rust_helper_inode_note_ctime(struct inode *inode)
{
	struct kstat stat;

	if (is_mgtime(inode))
		fill_mg_cmtime(&stat, STATX_CTIME, inode);
}

__rust_helper bool rust_helper_mapping_tagged(const struct address_space *mapping, xa_mark_t tag)
{
	return mapping_tagged(mapping, tag);
}

/* Whether [pos, pos + len) is a folio, and that is dirty or under writeback. */
__rust_helper bool rust_helper_mapping_has_dirty_folio(struct address_space *mapping, u64 pos,
						       size_t len)
{
	struct folio *folio;
	bool ret;

	rcu_read_lock();
	folio = xa_load(&mapping->i_pages, pos >> PAGE_SHIFT);
	ret = folio && !xa_is_value(folio) && folio_size(folio) == len &&
	      (folio_test_dirty(folio) || folio_test_writeback(folio)) &&
	      /* Without a reference it may have become another's meanwhile. */
	      READ_ONCE(folio->mapping) == mapping;
	rcu_read_unlock();
	return ret;
}

__rust_helper struct inode *rust_helper_file_inode(const struct file *file)
{
	return file_inode(file);
}

__rust_helper struct mnt_idmap *rust_helper_mnt_idmap(const struct vfsmount *mnt)
{
	return mnt_idmap(mnt);
}

__rust_helper bool rust_helper_sb_rdonly(const struct super_block *sb)
{
	return sb_rdonly(sb);
}

__rust_helper loff_t rust_helper_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

__rust_helper u16 rust_helper_get_current_ioprio(void)
{
	return get_current_ioprio();
}

__rust_helper errseq_t rust_helper_filemap_sample_wb_err(struct address_space *mapping)
{
	return filemap_sample_wb_err(mapping);
}

__rust_helper int rust_helper_filemap_check_wb_err(struct address_space *mapping, errseq_t since)
{
	return filemap_check_wb_err(mapping, since);
}
