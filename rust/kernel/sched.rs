// SPDX-License-Identifier: GPL-2.0

//! The task that is running.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;

/// Runs `f` so that what it allocates does not enter a file system to get memory: that may wait for
/// what `f` is doing.
pub(crate) fn nofs<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: No preconditions.
    let flags = unsafe { bindings::memalloc_nofs_save() };
    let ret = f();
    // SAFETY: The flags are those that were saved, on this task.
    unsafe { bindings::memalloc_nofs_restore(flags) };
    ret
}
