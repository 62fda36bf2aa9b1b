// SPDX-License-Identifier: GPL-2.0

#include <linux/mutex.h>

__rust_helper void rust_helper_mutex_lock_nested(struct mutex *lock, unsigned int subclass)
{
	mutex_lock_nested(lock, subclass);
}
