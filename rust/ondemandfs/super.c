// SPDX-License-Identifier: GPL-2.0
/*
 * Mounting: a superblock for every domain and cache, a volume for every
 * superblock. internal.h has an overview, and why ondemandfs is in C.
 */
#include <linux/backing-dev.h>
#include <linux/completion.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/workqueue.h>
#include "internal.h"

#define ODFS_READAHEAD_SIZE	SZ_1M

/* What an fs_context has collected. */
struct odfs_options {
	char			*domain;
	char			*cache;
	struct odfs_owner	owner;
	unsigned int		given;		/* BIT() of enum odfs_param: owner's */
};

enum odfs_param {
	ODFS_PARAM_DOMAIN,
	ODFS_PARAM_CACHE,
	ODFS_PARAM_MODE,
	ODFS_PARAM_UID,
	ODFS_PARAM_GID,
};

/* Images may hold what is not for all eyes, and what is read is fetched and stored. */
#define ODFS_DEFAULT_MODE	0400

/* The tag of a cache whose daemon gives none. */
#define ODFS_DEFAULT_CACHE	"CacheFiles"

/* A volume being acquired. The last one to put it relinquishes what nobody took. */
struct odfs_volume_request {
	struct work_struct	work;
	struct completion	done;
	refcount_t		ref;
	struct list_head	left;		/* in odfs_left_requests */
	struct fscache_volume	*volume;
	char			*cache;
	char			key[ODFS_VOLUME_KEY_MAX + 1];
};

static struct workqueue_struct *odfs_workqueue;

/* What mounters who were killed have left: they are not relinquished yet. */
static LIST_HEAD(odfs_left_requests);
static DEFINE_SPINLOCK(odfs_left_lock);
static DECLARE_WAIT_QUEUE_HEAD(odfs_left_wait);

static void odfs_put_volume_request(struct odfs_volume_request *req)
{
	if (!refcount_dec_and_test(&req->ref))
		return;
	if (!IS_ERR_OR_NULL(req->volume))
		fscache_relinquish_volume(req->volume, NULL, false);
	spin_lock(&odfs_left_lock);
	list_del(&req->left);
	spin_unlock(&odfs_left_lock);
	wake_up_all(&odfs_left_wait);
	kfree(req->cache);
	kfree(req);
}

static void odfs_acquire_volume_work(struct work_struct *work)
{
	struct odfs_volume_request *req = container_of(work, struct odfs_volume_request, work);

	req->volume = fscache_acquire_volume(req->key, req->cache, NULL, 0);
	complete(&req->done);
	odfs_put_volume_request(req);
}

static bool odfs_is_request_left(const char *key)
{
	struct odfs_volume_request *req;
	bool found = false;

	spin_lock(&odfs_left_lock);
	list_for_each_entry(req, &odfs_left_requests, left)
		found = found || !strcmp(req->key, key);
	spin_unlock(&odfs_left_lock);
	return found;
}

/*
 * Wait for the volume. With what a mounter who was killed has left of the same
 * domain, fscache would say that the volume is in use.
 */
static int odfs_wait_for_volume(struct odfs_volume_request *req)
{
	int err;

	err = wait_event_killable(odfs_left_wait, !odfs_is_request_left(req->key));
	if (err)
		return err;
	refcount_inc(&req->ref);
	queue_work(odfs_workqueue, &req->work);
	err = wait_for_completion_killable(&req->done);
	if (err) {
		spin_lock(&odfs_left_lock);
		list_add(&req->left, &odfs_left_requests);
		spin_unlock(&odfs_left_lock);
	}
	return err;
}

/*
 * A volume that was relinquished lives until the cache has let go of the last of
 * its cookies, and fscache makes whoever acquires it anew wait for that,
 * uninterruptibly (fscache_wait_on_volume_collision()). So a work item waits there
 * and we wait for it, killably. Unloading the module waits for the work item, and
 * VFS makes a second mounter of the same domain, and sync(2), wait for the first.
 */
static struct fscache_volume *odfs_acquire_volume(struct odfs_sb_info *sbi)
{
	struct odfs_volume_request *req = kzalloc_obj(*req);
	struct fscache_volume *volume;
	int err;

	if (!req)
		return ERR_PTR(-ENOMEM);
	req->cache = kstrdup(sbi->cache, GFP_KERNEL);
	if (!req->cache) {
		kfree(req);
		return ERR_PTR(-ENOMEM);
	}
	snprintf(req->key, sizeof(req->key), ODFS_VOLUME_PREFIX "%s", sbi->domain);
	INIT_WORK(&req->work, odfs_acquire_volume_work);
	init_completion(&req->done);
	INIT_LIST_HEAD(&req->left);
	refcount_set(&req->ref, 1);

	err = odfs_wait_for_volume(req);
	if (err) {
		volume = ERR_PTR(err);
	} else {
		volume = req->volume;
		req->volume = NULL;
	}
	odfs_put_volume_request(req);
	return volume;
}

/**
 * odfs_put_super - Let go of the volume
 * @sb: The superblock, whose inodes have been evicted
 */
void odfs_put_super(struct super_block *sb)
{
	struct odfs_sb_info *sbi = ODFS_SB(sb);

	odfs_put_blobs(sbi);
	if (sbi->volume)
		fscache_relinquish_volume(sbi->volume, NULL, false);
}

/**
 * odfs_show_options - Show the mount options
 * @m: Where to
 * @root: The root of the mount
 *
 * Return: 0.
 */
int odfs_show_options(struct seq_file *m, struct dentry *root)
{
	struct odfs_sb_info *sbi = ODFS_SB(root->d_sb);

	seq_show_option(m, "domain", sbi->domain);
	seq_show_option(m, "cache", sbi->cache);
	if (sbi->owner.mode != ODFS_DEFAULT_MODE)
		seq_printf(m, ",mode=%03o", sbi->owner.mode);
	if (!uid_eq(sbi->owner.uid, GLOBAL_ROOT_UID))
		seq_printf(m, ",uid=%u", from_kuid_munged(&init_user_ns, sbi->owner.uid));
	if (!gid_eq(sbi->owner.gid, GLOBAL_ROOT_GID))
		seq_printf(m, ",gid=%u", from_kgid_munged(&init_user_ns, sbi->owner.gid));
	return 0;
}

static void odfs_free_sb_info(struct odfs_sb_info *sbi)
{
	if (!sbi)
		return;
	kfree(sbi->domain);
	kfree(sbi->cache);
	kfree(sbi);
}

static int odfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct odfs_sb_info *sbi = ODFS_SB(sb);
	struct fscache_volume *volume;
	int err;

	sb->s_op = &odfs_sops;
	sb->s_magic = ODFS_SUPER_MAGIC;
	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = ODFS_BLOCK_SIZE;
	sb->s_blocksize_bits = ilog2(ODFS_BLOCK_SIZE);
	sb->s_time_gran = 1;
	sb->s_flags |= SB_RDONLY | SB_NOATIME;
	/* EROFS mounts only what lies on nothing else. */
	sb->s_stack_depth = 0;

	err = super_setup_bdi(sb);
	if (err)
		return err;
	sb->s_bdi->ra_pages = ODFS_READAHEAD_SIZE / PAGE_SIZE;
	sb->s_bdi->io_pages = ODFS_READAHEAD_SIZE / PAGE_SIZE;

	/* ->put_super() is called only when there is a root. */
	sb->s_root = d_make_root(odfs_new_root(sb));
	if (!sb->s_root)
		return -ENOMEM;

	volume = odfs_acquire_volume(sbi);
	if (volume == ERR_PTR(-EBUSY))
		errorfc(fc, "volume " ODFS_VOLUME_PREFIX "%s is in use with another cache= option",
			sbi->domain);
	if (IS_ERR(volume))
		return PTR_ERR(volume);
	sbi->volume = volume;
	return 0;
}

static int odfs_test_super(struct super_block *sb, struct fs_context *fc)
{
	struct odfs_sb_info *a = ODFS_SB(sb), *b = fc->s_fs_info;

	return !strcmp(a->domain, b->domain) && !strcmp(a->cache, b->cache);
}

static bool odfs_same_owner(const struct odfs_owner *a, const struct odfs_owner *b)
{
	return a->mode == b->mode && uid_eq(a->uid, b->uid) && gid_eq(a->gid, b->gid);
}

static int odfs_get_tree(struct fs_context *fc)
{
	struct odfs_options *opts = fc->fs_private;
	struct odfs_sb_info *sbi;
	struct super_block *sb;
	int err;

	if (!opts->domain)
		return invalfc(fc, "option domain=<id> is required");
	/* Those who name no cache are not given one that is filled on demand. */
	if (!opts->cache) {
		opts->cache = kstrdup(ODFS_DEFAULT_CACHE, GFP_KERNEL);
		if (!opts->cache)
			return -ENOMEM;
	}

	sbi = kzalloc_obj(*sbi);
	if (!sbi)
		return -ENOMEM;
	swap(sbi->domain, opts->domain);
	swap(sbi->cache, opts->cache);
	sbi->owner = opts->owner;
	spin_lock_init(&sbi->lock);
	hash_init(sbi->blobs);
	INIT_LIST_HEAD(&sbi->live);
	INIT_LIST_HEAD(&sbi->dying);
	xa_init_flags(&sbi->users, XA_FLAGS_ACCOUNT);
	xa_init_flags(&sbi->names, XA_FLAGS_ALLOC);
	sbi->ino_key.key[0] = ODFS_SUPER_MAGIC;
	sbi->ino_key.key[1] = siphash(sbi->domain, strlen(sbi->domain), &sbi->ino_key);
	fc->s_fs_info = sbi;

	/* fscache has no second volume of one key: further mounts share. */
	sb = sget_fc(fc, odfs_test_super, set_anon_super_fc);
	if (IS_ERR(sb))
		return PTR_ERR(sb);
	if (!sb->s_root) {
		err = odfs_fill_super(sb, fc);
		if (err) {
			deactivate_locked_super(sb);
			return err;
		}
		sb->s_flags |= SB_ACTIVE;
	} else if (!odfs_same_owner(&ODFS_SB(sb)->owner, &opts->owner)) {
		/* Nobody is to get, or give, more access than was asked for. */
		deactivate_locked_super(sb);
		errorfc(fc, "mounted with another mode=, uid= or gid=; a remount sets them");
		return -EBUSY;
	}
	fc->root = dget(sb->s_root);
	return 0;
}

static int odfs_reconfigure(struct fs_context *fc)
{
	struct odfs_options *opts = fc->fs_private;
	struct odfs_sb_info *sbi = ODFS_SB(fc->root->d_sb);

	if ((opts->domain && strcmp(opts->domain, sbi->domain)) ||
	    (opts->cache && strcmp(opts->cache, sbi->cache)))
		return invalfc(fc, "domain= and cache= cannot be changed by a remount");
	fc->sb_flags |= SB_RDONLY | SB_NOATIME;
	if (!(opts->given & BIT(ODFS_PARAM_MODE)))
		opts->owner.mode = sbi->owner.mode;
	if (!(opts->given & BIT(ODFS_PARAM_UID)))
		opts->owner.uid = sbi->owner.uid;
	if (!(opts->given & BIT(ODFS_PARAM_GID)))
		opts->owner.gid = sbi->owner.gid;
	odfs_set_owner(fc->root->d_sb, &opts->owner);
	return 0;
}

static const struct fs_parameter_spec odfs_parameters[] = {
	fsparam_string("domain",	ODFS_PARAM_DOMAIN),
	fsparam_string("cache",		ODFS_PARAM_CACHE),
	fsparam_u32oct("mode",		ODFS_PARAM_MODE),
	fsparam_uid("uid",		ODFS_PARAM_UID),
	fsparam_gid("gid",		ODFS_PARAM_GID),
	{}
};

static int odfs_parse_string(struct fs_context *fc, struct fs_parameter *param, char **opt,
			     size_t max)
{
	if (*opt)
		return invalfc(fc, "%s= is given twice", param->key);
	if (!*param->string || strlen(param->string) > max)
		return invalfc(fc, "%s= must have 1 to %zu characters", param->key, max);
	swap(*opt, param->string);
	return 0;
}

static int odfs_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct odfs_options *opts = fc->fs_private;
	struct fs_parse_result result;
	int opt = fs_parse(fc, odfs_parameters, param, &result);

	if (opt < 0)
		return opt == -ENOPARAM ? opt : -EINVAL;
	switch ((enum odfs_param)opt) {
	case ODFS_PARAM_DOMAIN:
		/* The cache makes a directory of it. */
		if (strchr(param->string, '/'))
			return invalfc(fc, "domain= must not contain a slash");
		return odfs_parse_string(fc, param, &opts->domain,
					 ODFS_VOLUME_KEY_MAX - strlen(ODFS_VOLUME_PREFIX));
	case ODFS_PARAM_CACHE:
		return odfs_parse_string(fc, param, &opts->cache, NAME_MAX);
	case ODFS_PARAM_MODE:
		if (result.uint_32 & ~0777)
			return invalfc(fc, "mode= must be an octal number up to 777");
		/* There is nothing to write. */
		opts->owner.mode = result.uint_32 & ~0222;
		break;
	case ODFS_PARAM_UID:
		opts->owner.uid = result.uid;
		break;
	case ODFS_PARAM_GID:
		opts->owner.gid = result.gid;
		break;
	}
	opts->given |= BIT(opt);
	return 0;
}

static void odfs_free_fc(struct fs_context *fc)
{
	struct odfs_options *opts = fc->fs_private;

	kfree(opts->domain);
	kfree(opts->cache);
	kfree(opts);
	odfs_free_sb_info(fc->s_fs_info);
}

static const struct fs_context_operations odfs_context_ops = {
	.free		= odfs_free_fc,
	.parse_param	= odfs_parse_param,
	.get_tree	= odfs_get_tree,
	.reconfigure	= odfs_reconfigure,
};

static int odfs_init_fs_context(struct fs_context *fc)
{
	struct odfs_options *opts = kzalloc_obj(*opts);

	if (!opts)
		return -ENOMEM;
	opts->owner.mode = ODFS_DEFAULT_MODE;
	opts->owner.uid = GLOBAL_ROOT_UID;
	opts->owner.gid = GLOBAL_ROOT_GID;
	fc->fs_private = opts;
	fc->ops = &odfs_context_ops;
	return 0;
}

static void odfs_kill_sb(struct super_block *sb)
{
	struct odfs_sb_info *sbi = ODFS_SB(sb);

	odfs_relinquish_blobs(sbi);
	kill_anon_super(sb);
	/* Only now sget_fc() no longer passes the superblock to odfs_test_super(). */
	odfs_free_sb_info(sbi);
}

static struct file_system_type odfs_type = {
	.owner			= THIS_MODULE,
	.name			= "ondemandfs",
	.init_fs_context	= odfs_init_fs_context,
	.parameters		= odfs_parameters,
	.kill_sb		= odfs_kill_sb,
};
MODULE_ALIAS_FS("ondemandfs");

static int __init odfs_init(void)
{
	int err;

	err = odfs_init_inode_cache();
	if (err)
		return err;
	err = odfs_init_io_cache();
	if (err)
		goto err_inode_cache;
	odfs_workqueue = alloc_workqueue("ondemandfs", WQ_UNBOUND, 0);
	if (!odfs_workqueue) {
		err = -ENOMEM;
		goto err_io_cache;
	}
	err = register_filesystem(&odfs_type);
	if (err)
		goto err_workqueue;
	return 0;

err_workqueue:
	destroy_workqueue(odfs_workqueue);
err_io_cache:
	odfs_destroy_io_cache();
err_inode_cache:
	odfs_destroy_inode_cache();
	return err;
}
module_init(odfs_init);

static void __exit odfs_exit(void)
{
	unregister_filesystem(&odfs_type);
	destroy_workqueue(odfs_workqueue);
	odfs_destroy_io_cache();
	odfs_destroy_inode_cache();
}
module_exit(odfs_exit);

MODULE_DESCRIPTION("Files of fscache cookies, read on demand");
MODULE_LICENSE("GPL");
