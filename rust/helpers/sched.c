// SPDX-License-Identifier: GPL-2.0

#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>

__rust_helper unsigned int rust_helper_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

__rust_helper void rust_helper_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

/*
 * Whether the caller may sleep, as far as can be told: not where preemption is not counted.  As
 * bio_in_atomic(), which is new.
 */
__rust_helper bool rust_helper_in_sleepable_context(void)
{
	if (IS_ENABLED(CONFIG_PREEMPTION) && rcu_preempt_depth())
		return false;
	return IS_ENABLED(CONFIG_PREEMPT_COUNT) && preemptible();
}
