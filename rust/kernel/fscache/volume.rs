// SPDX-License-Identifier: GPL-2.0

//! Volumes.

use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::types::Opaque;

/// A network file system's handle for a set of files (`struct fscache_volume`).
///
/// # Invariants
///
/// The volume is valid.
#[repr(transparent)]
pub(crate) struct Volume(Opaque<bindings::fscache_volume>);

// SAFETY: The methods below may be called from several tasks at once.
unsafe impl Sync for Volume {}

impl Volume {
    /// # Safety
    ///
    /// `ptr` must be a volume that stays valid for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *const bindings::fscache_volume) -> &'a Self {
        // INVARIANT: As the caller guarantees. SAFETY: Likewise.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::fscache_volume {
        self.0.get()
    }

    /// The number that names the volume in traces and in `/proc/fs/fscache/volumes`.
    pub(crate) fn debug_id(&self) -> u32 {
        // SAFETY: The volume is valid, and the number does not change.
        unsafe { (*self.as_ptr()).debug_id }
    }

    /// The key: up to 255 bytes, without a NUL.
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: The volume is valid. Its key starts with its length, and does not change.
        unsafe {
            let key: *const u8 = (*self.as_ptr()).key;
            core::slice::from_raw_parts(key.add(1), usize::from(key.read()))
        }
    }

    /// Copies the coherency data, which says which state of the volume is meant, and returns how
    /// many bytes that is.
    pub(crate) fn copy_coherency(&self, buf: &mut [u8; 255]) -> usize {
        // SAFETY: The volume is valid, and the length does not change.
        let len = usize::from(unsafe { (*self.as_ptr()).coherency_len });
        // SAFETY: The data is as long as said, and so is the buffer, as `coherency_len` is a byte.
        // The network file system may be relinquishing the volume, which changes it; as in C, the
        // result is some mixture then.
        unsafe {
            core::ptr::copy_nonoverlapping(
                (*self.as_ptr()).coherency.as_ptr(),
                buf.as_mut_ptr(),
                len,
            )
        };
        len
    }

    /// Takes a reference, unless the volume is being freed.
    pub(super) fn try_get(&self) -> Option<VolumeRef> {
        // SAFETY: The volume is valid.
        let ptr = unsafe {
            bindings::fscache_try_get_volume(
                self.as_ptr(),
                bindings::fscache_volume_trace_fscache_volume_get_withdraw,
            )
        };
        // INVARIANT: The function gave a reference, if any.
        NonNull::new(ptr).map(VolumeRef)
    }
}

/// A reference to a volume. Must be dropped where it is allowed to sleep.
///
/// # Invariants
///
/// Owns a reference.
pub(super) struct VolumeRef(NonNull<bindings::fscache_volume>);

impl Deref for VolumeRef {
    type Target = Volume;

    fn deref(&self) -> &Volume {
        // SAFETY: By the invariant.
        unsafe { Volume::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for VolumeRef {
    fn drop(&mut self) {
        // SAFETY: By the invariant.
        unsafe {
            bindings::fscache_put_volume(
                self.0.as_ptr(),
                bindings::fscache_volume_trace_fscache_volume_put_withdraw,
            )
        };
    }
}
