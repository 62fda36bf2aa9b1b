// SPDX-License-Identifier: GPL-2.0

//! What the current task is, and scopes in which it allocates memory differently.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::bindings;

/// Runs `f` so that what it allocates does not enter a file system to get memory: that may wait for
/// what `f` is doing.
///
/// All allocations of the current task that may enter a file system are as if made with `GFP_NOFS`.
/// It may be nested.
///
/// This is `memalloc_nofs_save()` and `memalloc_nofs_restore()` in C. See
/// <https://docs.kernel.org/core-api/gfp_mask-from-fs-io.html>.
///
/// # Examples
///
/// ```
/// use kernel::sched::nofs;
///
/// let buf = nofs(|| KVec::from_elem(0u8, 100, GFP_KERNEL))?;
/// assert_eq!(buf.len(), 100);
/// # Ok::<(), Error>(())
/// ```
#[inline]
pub(crate) fn nofs<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: No preconditions.
    let flags = unsafe { bindings::memalloc_nofs_save() };
    let ret = f();
    // SAFETY: The flags are those that were saved, on this task.
    unsafe { bindings::memalloc_nofs_restore(flags) };
    ret
}

/// Returns whether the current task is one of the kernel's own, which never runs in user space.
///
/// # Examples
///
/// ```
/// use kernel::{
///     sched::is_kernel_thread,
///     task::Kuid, //
/// };
///
/// let user = match is_kernel_thread() {
///     true => None,
///     false => Some(Kuid::current_euid()),
/// };
/// # let _ = user;
/// # Ok::<(), Error>(())
/// ```
#[inline]
#[must_use]
pub(crate) fn is_kernel_thread() -> bool {
    // SAFETY: The running task reads its own flags, which nobody else writes.
    let flags = unsafe { (*bindings::get_current()).flags };
    flags & bindings::PF_KTHREAD != 0
}

#[kernel::prelude::kunit_tests(rust_sched)]
mod tests {
    use super::*;

    fn is_nofs() -> bool {
        // SAFETY: The running task reads its own flags, which nobody else writes.
        let flags = unsafe { (*bindings::get_current()).flags };
        flags & bindings::PF_MEMALLOC_NOFS != 0
    }

    #[test]
    fn nofs_lasts_as_long_as_the_closure() {
        assert!(!is_nofs());
        assert_eq!(nofs(|| (is_nofs(), 7)), (true, 7));
        assert!(!is_nofs());
    }

    #[test]
    fn nofs_nests() {
        let inner_then_outer = nofs(|| (nofs(is_nofs), is_nofs()));
        assert_eq!(inner_then_outer, (true, true));
        assert!(!is_nofs());
    }
    #[test]
    fn tests_run_in_a_thread_of_the_kernel() {
        assert!(is_kernel_thread());
    }
}
