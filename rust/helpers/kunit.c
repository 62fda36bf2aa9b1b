// SPDX-License-Identifier: GPL-2.0

#include <linux/kconfig.h>

/* What the tests have to do to the task that runs them, and to look at; not for the kernel. */
#if IS_BUILTIN(CONFIG_KUNIT)
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>

__rust_helper const struct cred *rust_helper_kunit_current_cred(void)
{
	return current_cred();
}

__rust_helper void rust_helper_kunit_mark_skipped(struct kunit *test, const char *reason)
{
	kunit_mark_skipped(test, "%s", reason);
}

/*
 * Gives a test's thread the root and the working directory of the first process: a kernel thread
 * starts with an empty root. They go when the thread ends.
 */
__rust_helper int rust_helper_kunit_attach_fs(void)
{
	struct path root, pwd;
	struct task_struct *init;
	struct fs_struct *fs;
	int ret;

	ret = unshare_fs_struct();
	if (ret)
		return ret;

	rcu_read_lock();
	init = pid_task(find_vpid(1), PIDTYPE_TGID);
	if (!init) {
		rcu_read_unlock();
		return -ESRCH;
	}
	task_lock(init);
	fs = init->fs;
	if (fs) {
		get_fs_root(fs, &root);
		get_fs_pwd(fs, &pwd);
	}
	task_unlock(init);
	rcu_read_unlock();
	if (!fs)
		return -ESRCH;

	fs = current->fs;
	write_seqlock(&fs->seq);
	swap(fs->root, root);
	swap(fs->pwd, pwd);
	write_sequnlock(&fs->seq);
	path_put(&root);
	path_put(&pwd);
	return 0;
}

static struct vfsmount *kunit_tmpfs_mnt;

static void kunit_tmpfs_unmount(void *unused)
{
	kern_unmount(kunit_tmpfs_mnt);
	kunit_tmpfs_mnt = NULL;
}

/*
 * The tmpfs of the test that runs, which goes with it: one test runs at a time. It is not mounted
 * in any namespace, so that it is there at boot, too. Not inline as the others are: it has state.
 */
struct vfsmount *rust_helper_kunit_tmpfs(struct kunit *test)
{
	struct file_system_type *type;
	struct vfsmount *mnt;
	int ret;

	if (kunit_tmpfs_mnt)
		return kunit_tmpfs_mnt;

	/* Without CONFIG_TMPFS there is one in which nothing can be created. */
	type = IS_ENABLED(CONFIG_TMPFS) ? get_fs_type("tmpfs") : NULL;
	if (!type)
		return ERR_PTR(-EOPNOTSUPP);
	mnt = kern_mount(type);
	if (IS_ERR(mnt))
		return mnt;
	kunit_tmpfs_mnt = mnt;
	ret = kunit_add_action_or_reset(test, kunit_tmpfs_unmount, NULL);
	return ret ? ERR_PTR(ret) : mnt;
}

/* Opens a device by its name in devtmpfs, which need not be mounted anywhere. */
__rust_helper struct file *rust_helper_kunit_open_device(const char *name)
{
	struct file_system_type *type;
	struct path root;
	struct file *file;

	type = IS_ENABLED(CONFIG_DEVTMPFS) ? get_fs_type("devtmpfs") : NULL;
	if (!type)
		return ERR_PTR(-EOPNOTSUPP);
	root.mnt = vfs_kern_mount(type, SB_KERNMOUNT, type->name, NULL);
	if (IS_ERR(root.mnt))
		return ERR_CAST(root.mnt);
	root.dentry = root.mnt->mnt_root;
	file = file_open_root(&root, name, O_RDWR, 0);
	mntput(root.mnt);
	return file;
}

__rust_helper int rust_helper_kunit_module_refcount(struct module *module)
{
#ifdef CONFIG_MODULE_UNLOAD
	return module_refcount(module);
#else
	return 0;
#endif
}

/* A page of user memory that goes with the test, or an error number. */
__rust_helper unsigned long rust_helper_kunit_user_page(struct kunit *test)
{
	return kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
}

__rust_helper void rust_helper_kunit_kill_current(void)
{
	allow_signal(SIGKILL);
	send_sig(SIGKILL, current, 1);
}

__rust_helper void rust_helper_kunit_unkill_current(void)
{
	flush_signals(current);
	disallow_signal(SIGKILL);
}

__rust_helper int rust_helper_kunit_d_count(const struct dentry *dentry)
{
	return d_count(dentry);
}

__rust_helper long rust_helper_kunit_file_count(struct file *file)
{
	return file_count(file);
}

/* Whether somebody holds off a freeze of the file system, as one who writes to it. */
__rust_helper bool rust_helper_kunit_is_being_written(struct file *file)
{
	struct super_block *sb = file_inode(file)->i_sb;

	return percpu_is_read_locked(&sb->s_writers.rw_sem[SB_FREEZE_WRITE - 1]);
}

__rust_helper bool rust_helper_kunit_inode_is_locked(struct inode *inode)
{
	return inode_is_locked(inode);
}

__rust_helper void rust_helper_kunit_mapping_set_error(struct address_space *mapping, int error)
{
	mapping_set_error(mapping, error);
}

/*
 * Lockdep is not asked: in doubt, it says that the lock is held.  Where preemption is not counted,
 * this always says so.
 */
__rust_helper bool rust_helper_kunit_is_rcu_reader(void)
{
	return IS_ENABLED(CONFIG_PREEMPT_RCU) ? rcu_preempt_depth() : !preemptible();
}

__rust_helper long rust_helper_kunit_cred_usage(const struct cred *cred)
{
	return atomic_long_read(&cred->usage);
}
#endif
