// SPDX-License-Identifier: GPL-2.0

#include <linux/fscache-cache.h>

__rust_helper void *rust_helper_fscache_get_key(struct fscache_cookie *cookie)
{
	return fscache_get_key(cookie);
}

__rust_helper void *rust_helper_fscache_get_aux(struct fscache_cookie *cookie)
{
	return fscache_get_aux(cookie);
}

__rust_helper void rust_helper_fscache_count_object(struct fscache_cache *cache)
{
	fscache_count_object(cache);
}

__rust_helper void rust_helper_fscache_uncount_object(struct fscache_cache *cache)
{
	fscache_uncount_object(cache);
}

__rust_helper void rust_helper_fscache_wait_for_objects(struct fscache_cache *cache)
{
	fscache_wait_for_objects(cache);
}

__rust_helper void rust_helper_fscache_count_read(void)
{
	fscache_count_read();
}

__rust_helper void rust_helper_fscache_count_write(void)
{
	fscache_count_write();
}

__rust_helper void rust_helper_fscache_count_no_write_space(void)
{
	fscache_count_no_write_space();
}

__rust_helper void rust_helper_fscache_count_no_create_space(void)
{
	fscache_count_no_create_space();
}

__rust_helper void rust_helper_fscache_count_culled(void)
{
	fscache_count_culled();
}

__rust_helper void rust_helper_fscache_count_dio_misfit(void)
{
	fscache_count_dio_misfit();
}
