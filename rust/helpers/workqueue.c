// SPDX-License-Identifier: GPL-2.0

#include <linux/workqueue.h>

/* alloc_workqueue() is a macro, and takes a format. */
__rust_helper struct workqueue_struct *rust_helper_alloc_unbound_workqueue(const char *name,
									   unsigned int flags)
{
	return alloc_workqueue("%s", WQ_UNBOUND | flags, 0, name);
}

__rust_helper void rust_helper_flush_unbound_workqueue(struct workqueue_struct *wq)
{
	flush_workqueue(wq);
}
