// SPDX-License-Identifier: GPL-2.0

#include <linux/security.h>

/* Functions with security modules, inlines without. */
#ifndef CONFIG_SECURITY
__rust_helper int rust_helper_security_inode_mkdir(struct inode *dir, struct dentry *dentry,
						   umode_t mode)
{
	return security_inode_mkdir(dir, dentry, mode);
}

__rust_helper int rust_helper_security_inode_create(struct inode *dir, struct dentry *dentry,
						    umode_t mode)
{
	return security_inode_create(dir, dentry, mode);
}

__rust_helper int rust_helper_security_secctx_to_secid(const char *secdata, u32 seclen, u32 *secid)
{
	return security_secctx_to_secid(secdata, seclen, secid);
}
#endif

#ifndef CONFIG_SECURITY_PATH
__rust_helper int rust_helper_security_path_mkdir(const struct path *dir, struct dentry *dentry,
						  umode_t mode)
{
	return security_path_mkdir(dir, dentry, mode);
}

__rust_helper int rust_helper_security_path_unlink(const struct path *dir, struct dentry *dentry)
{
	return security_path_unlink(dir, dentry);
}

__rust_helper int rust_helper_security_path_rename(const struct path *old_dir,
						   struct dentry *old_dentry,
						   const struct path *new_dir,
						   struct dentry *new_dentry, unsigned int flags)
{
	return security_path_rename(old_dir, old_dentry, new_dir, new_dentry, flags);
}
#endif
