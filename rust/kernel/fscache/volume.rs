// SPDX-License-Identifier: GPL-2.0

//! Volumes.

use super::{
    copy_shared,
    DATA_MAX, //
};
use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    types::Opaque, //
};

/// A network file system's handle for a set of files (`struct fscache_volume`).
///
/// There is no counted reference to it: a backend has it for the time of a call, and from a
/// [`Cookie`](super::Cookie), which keeps it.
///
/// # Invariants
///
/// The volume is valid, and so is its cache.
///
/// # Examples
///
/// ```
/// use kernel::{
///     fscache::Volume,
///     prelude::*, //
/// };
///
/// /// Whether a directory that holds `found` as a mark is of this volume, as it is now.
/// fn is_same(volume: &Volume, found: &[u8]) -> bool {
///     volume.coherency(&mut [0; 255]) == found
/// }
/// ```
#[repr(transparent)]
pub(crate) struct Volume(Opaque<bindings::fscache_volume>);

// SAFETY: The methods below may be called from several tasks at once: they read what does not
// change, or what may change in ways that they say.
unsafe impl Sync for Volume {}

impl Volume {
    /// Creates a reference from a pointer to the C structure.
    ///
    /// # Safety
    ///
    /// `ptr` must be a volume that stays valid for `'a`.
    #[inline]
    pub(in crate::kernel_next) unsafe fn from_raw<'a>(
        ptr: *const bindings::fscache_volume,
    ) -> &'a Self {
        // INVARIANT: As the caller guarantees; a volume holds a reference to its cache.
        // SAFETY: Likewise; the type is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::fscache_volume {
        self.0.get()
    }

    /// The cache, which is valid for as long as the volume is.
    #[inline]
    pub(super) fn cache(&self) -> *mut bindings::fscache_cache {
        // SAFETY: The volume is valid, and the pointer does not change.
        unsafe { (*self.as_ptr()).cache }
    }

    /// The number that names the volume in traces and in `/proc/fs/fscache/volumes`.
    #[inline]
    pub(crate) fn debug_id(&self) -> u32 {
        // SAFETY: The volume is valid, and the number does not change.
        unsafe { (*self.as_ptr()).debug_id }
    }

    /// The key: up to 255 bytes, without a NUL.
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: The volume is valid, and the pointer does not change.
        let key: *const u8 = unsafe { (*self.as_ptr()).key };
        // SAFETY: The key starts with its length, a byte.
        let len = usize::from(unsafe { key.read() });
        // SAFETY: So many bytes follow. They are freed with the volume, and do not change before.
        unsafe { core::slice::from_raw_parts(key.add(1), len) }
    }

    /// Copies the coherency data to `buf` and returns it: it says which state of the volume is
    /// meant.
    ///
    /// Some mixture of old and new if the network file system is relinquishing the volume, which
    /// is when it changes.
    pub(crate) fn coherency<'a>(&self, buf: &'a mut [u8; DATA_MAX]) -> &'a [u8] {
        let this = self.as_ptr();
        // SAFETY: The volume is valid; the length does not change, and says how long the data is.
        unsafe {
            copy_shared(
                (&raw const (*this).coherency).cast(),
                (*this).coherency_len,
                buf,
            )
        }
    }

    /// Whether the network file system has given the volume up as one whose data is not valid any
    /// more. That is said once.
    pub(crate) fn take_invalidate(&self) -> bool {
        let flag = bindings::FSCACHE_VOLUME_INVALIDATE as usize;
        // SAFETY: The volume is valid, and these are its flags, all accesses to which are atomic.
        unsafe { bindings::test_and_clear_bit(flag, &raw mut (*self.as_ptr()).flags) }
    }

    /// Counts an access, so that the count does not become zero before
    /// `fscache_withdraw_volume()`.
    pub(super) fn pin(&self) {
        // SAFETY: The volume is valid; all accesses to the counter are atomic.
        let accesses = unsafe { Atomic::from_ptr(&raw mut (*self.as_ptr()).n_accesses.counter) };
        accesses.add(1, Relaxed);
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

/// A reference to a volume. Must be dropped where it is allowed to sleep: dropping the last one
/// frees the volume, for which the backend is called.
///
/// # Invariants
///
/// Owns a reference.
#[must_use]
pub(super) struct VolumeRef(NonNull<bindings::fscache_volume>);

impl Deref for VolumeRef {
    type Target = Volume;

    #[inline]
    fn deref(&self) -> &Volume {
        // SAFETY: By the invariant it is valid for as long as `self` is.
        unsafe { Volume::from_raw(self.0.as_ptr()) }
    }
}

impl Drop for VolumeRef {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the invariant the reference is this value's to put.
        unsafe {
            bindings::fscache_put_volume(
                self.0.as_ptr(),
                bindings::fscache_volume_trace_fscache_volume_put_withdraw,
            )
        };
    }
}
