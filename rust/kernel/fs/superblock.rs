// SPDX-License-Identifier: GPL-2.0

//! References to superblocks that keep them active: whoever has one has the file system in use, and
//! need not fear that it is shut down.

use crate::bindings;
use kernel::sync::atomic::{
    ordering::Relaxed,
    Atomic, //
};

/// Takes a reference that keeps a superblock active.
///
/// # Safety
///
/// `sb` must be valid and active.
pub(super) unsafe fn activate(sb: *mut bindings::super_block) {
    // SAFETY: The caller guarantees that it is valid. The counter is a C atomic type.
    let active =
        unsafe { Atomic::<i32>::from_ptr(core::ptr::addr_of_mut!((*sb).s_active.counter)) };
    // As for any reference count: whoever takes another reference has one to start from.
    active.add(1, Relaxed);
}

/// Gives up a reference that keeps a superblock active. Shuts the file system down if it was the
/// last one; may sleep.
///
/// # Safety
///
/// The caller must own such a reference, which it gives up.
pub(super) unsafe fn deactivate(sb: *mut bindings::super_block) {
    // SAFETY: As the caller guarantees.
    unsafe { bindings::deactivate_super(sb) };
}
