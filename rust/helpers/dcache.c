// SPDX-License-Identifier: GPL-2.0

#include <linux/dcache.h>

__rust_helper bool rust_helper_d_is_negative(const struct dentry *dentry)
{
	return d_is_negative(dentry);
}

__rust_helper bool rust_helper_d_flags_negative(unsigned int flags)
{
	return d_flags_negative(flags);
}

__rust_helper bool rust_helper_d_is_dir(const struct dentry *dentry)
{
	return d_is_dir(dentry);
}

__rust_helper bool rust_helper_d_is_reg(const struct dentry *dentry)
{
	return d_is_reg(dentry);
}

__rust_helper bool rust_helper_d_can_lookup(const struct dentry *dentry)
{
	return d_can_lookup(dentry);
}

__rust_helper bool rust_helper_d_mountpoint(const struct dentry *dentry)
{
	return d_mountpoint(dentry);
}

__rust_helper bool rust_helper_d_unhashed(const struct dentry *dentry)
{
	return d_unhashed(dentry);
}

__rust_helper struct inode *rust_helper_d_inode(const struct dentry *dentry)
{
	return d_inode(dentry);
}
