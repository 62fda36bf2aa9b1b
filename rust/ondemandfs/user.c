// SPDX-License-Identifier: GPL-2.0
/*
 * How many lookups one user may have under way.
 *
 * Each makes the cache ask its daemon, which gets OPENs in the order in which they
 * were queued. A user who opens many files at once is kept waiting here, so that the
 * OPENs of others wait for few of his.
 *
 * File systems that open our files with locks of their own held wait here as well:
 * overlayfs copies up below a directory's i_rwsem. Then those who want such a lock
 * wait for this user's lookups, too.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include "internal.h"

#define ODFS_LOOKUPS_OF_USER	64

struct odfs_user {
	struct semaphore	room;		/* first come, first served */
	unsigned int		lookups;	/* under way or in line; under xa_lock */
	uid_t			uid;
};

/*
 * The kernel and the administrator open the files of others. The task's own
 * credentials count: overlayfs opens files with those of whoever mounted it.
 */
static bool odfs_is_exempt(void)
{
	const struct cred *old;
	bool exempt;

	if (current->flags & PF_KTHREAD)
		return true;
	old = override_creds(current_real_cred());
	exempt = ns_capable_noaudit(&init_user_ns, CAP_SYS_RESOURCE) ||
		 ns_capable_noaudit(&init_user_ns, CAP_SYS_ADMIN);
	revert_creds(old);
	return exempt;
}

static struct odfs_user *odfs_get_user(struct odfs_sb_info *sbi, uid_t uid)
{
	struct odfs_user *user, *new = NULL;

	xa_lock(&sbi->users);
	user = xa_load(&sbi->users, uid);
	if (!user) {
		xa_unlock(&sbi->users);
		new = kzalloc_obj(*new, GFP_KERNEL_ACCOUNT);
		if (!new)
			return ERR_PTR(-ENOMEM);
		sema_init(&new->room, ODFS_LOOKUPS_OF_USER);
		new->uid = uid;
		xa_lock(&sbi->users);
		user = __xa_cmpxchg(&sbi->users, uid, NULL, new, GFP_KERNEL_ACCOUNT);
		if (!user) {
			user = new;
			new = NULL;
		}
	}
	if (!xa_is_err(user))
		user->lookups++;
	xa_unlock(&sbi->users);
	kfree(new);
	return xa_is_err(user) ? ERR_PTR(xa_err(user)) : user;
}

static void odfs_put_user(struct odfs_sb_info *sbi, struct odfs_user *user)
{
	bool last;

	xa_lock(&sbi->users);
	last = !--user->lookups;
	if (last)
		__xa_erase(&sbi->users, user->uid);
	xa_unlock(&sbi->users);
	if (last)
		kfree(user);
}

/**
 * odfs_begin_lookup - Count a lookup as one of the current user's
 * @sbi: The superblock
 * @wait: Whether to wait until he may have one more
 *
 * Waits killably, and in line, for lookups of the same user, which end when the daemon
 * answers, their tasks are killed or umount -f is called. The caller must hold no lock
 * of an inode or a folio then, as others may want it.
 *
 * Return: what odfs_end_lookup() takes, NULL if the task is exempt, -EAGAIN if he may
 * not and is not to wait, -ERESTARTSYS if the task was killed, -ENOMEM.
 */
struct odfs_user *odfs_begin_lookup(struct odfs_sb_info *sbi, bool wait)
{
	struct odfs_user *user;
	int err;

	if (odfs_is_exempt())
		return NULL;
	user = odfs_get_user(sbi, from_kuid(&init_user_ns, current_real_cred()->euid));
	if (IS_ERR(user))
		return user;
	if (wait)
		err = down_killable(&user->room) ? -ERESTARTSYS : 0;
	else
		err = down_trylock(&user->room) ? -EAGAIN : 0;
	if (err) {
		odfs_put_user(sbi, user);
		return ERR_PTR(err);
	}
	return user;
}

/**
 * odfs_end_lookup - Let the next lookup of a user begin
 * @sbi: The superblock
 * @user: What odfs_begin_lookup() returned, no error
 */
void odfs_end_lookup(struct odfs_sb_info *sbi, struct odfs_user *user)
{
	if (!user)
		return;
	up(&user->room);
	odfs_put_user(sbi, user);
}
