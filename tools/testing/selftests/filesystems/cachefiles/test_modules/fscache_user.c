// SPDX-License-Identifier: GPL-2.0
/*
 * A network file system, as far as fscache sees one: it looks cookies up, and
 * does not stay.  Loading it fails with EALREADY if all of them are cached, and
 * otherwise with what fscache said.
 */
#include <linux/delay.h>
#include <linux/fscache-cache.h>
#include <linux/module.h>

static char *cache = "";
module_param(cache, charp, 0);
MODULE_PARM_DESC(cache, "Name of the cache (default: any)");

static char *volume = "";
module_param(volume, charp, 0);
MODULE_PARM_DESC(volume, "Key of the volume, which may be empty");

static int count = 1;
module_param(count, int, 0);
MODULE_PARM_DESC(count, "Number of cookies");

static bool size;
module_param(size, bool, 0);
MODULE_PARM_DESC(size, "Whether to ask the cache for sizes");

static bool forgetful;
module_param(forgetful, bool, 0);
MODULE_PARM_DESC(forgetful, "Whether to use a cookie, and never look up again what was put off");

static bool retire;
module_param(retire, bool, 0);
MODULE_PARM_DESC(retire, "Whether to use a cookie, and throw its data away in the end");

static char *key;
module_param(key, charp, 0);
MODULE_PARM_DESC(key, "Key of the cookies (default: their numbers)");

/*
 * A cache that asks a daemon for the size may put the lookup off: it fails with
 * -EIOCBQUEUED as the size, which is replaced by the answer.  Then the cookie is
 * to be looked up once more.
 */
static int begin(struct netfs_cache_resources *res, struct fscache_cookie *cookie)
{
	/* waits for the lookup */
	int err = fscache_begin_read_operation(res, cookie);

	if (err != -ENOBUFS || !size)
		return err;
	while (READ_ONCE(cookie->object_size) == -EIOCBQUEUED ||
	       fscache_cookie_state(cookie) != FSCACHE_COOKIE_STATE_QUIESCENT)
		if (msleep_interruptible(5))
			return -EINTR;
	if (READ_ONCE(cookie->object_size) < 0)
		return err;
	fscache_use_cookie(cookie, false);
	fscache_unuse_cookie(cookie, NULL, NULL);
	return fscache_begin_read_operation(res, cookie);
}

/* Until the task that loads the module is killed. */
static int wait_for_nothing(void)
{
	while (!msleep_interruptible(1000))
		;
	return -EINTR;
}

static int look_up(struct fscache_volume *vol, int index)
{
	struct netfs_cache_resources res = {};
	struct fscache_cookie *cookie;
	int err;

	cookie = fscache_acquire_cookie(vol, size ? FSCACHE_ADV_WANT_CACHE_SIZE : 0,
					key ?: (void *)&index, key ? strlen(key) : sizeof(index),
					NULL, 0, 0);
	if (!cookie)
		return -ENOMEM;
	fscache_use_cookie(cookie, false);
	err = forgetful ? wait_for_nothing() : begin(&res, cookie);
	if (!err)
		fscache_end_operation(&res);
	if (!err && retire)
		err = wait_for_nothing();
	fscache_unuse_cookie(cookie, NULL, NULL);
	fscache_relinquish_cookie(cookie, retire);
	return err;
}

static int __init fscache_user_init(void)
{
	struct fscache_volume *vol;
	int i, err, ret = -EALREADY;

	vol = fscache_acquire_volume(volume, *cache ? cache : NULL, NULL, 0);
	if (IS_ERR_OR_NULL(vol))
		return vol ? PTR_ERR(vol) : -ENOMEM;
	for (i = 0; i < count; i++) {
		err = look_up(vol, i);
		if (err)
			ret = err;
	}
	fscache_relinquish_volume(vol, NULL, false);
	return ret;
}
module_init(fscache_user_init);

MODULE_DESCRIPTION("Looks cookies of fscache up, for the selftests of CacheFiles");
MODULE_LICENSE("GPL");
