// SPDX-License-Identifier: GPL-2.0

//! Cookies.

use super::{
    Backend,
    Volume, //
};
use crate::bindings;
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    sync::aref::AlwaysRefCounted,
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

/// A network file system's handle for one file's data (`struct fscache_cookie`).
///
/// # Invariants
///
/// The cookie is valid and its reference count is positive. So is its volume.
#[repr(transparent)]
pub(crate) struct Cookie(Opaque<bindings::fscache_cookie>);

// SAFETY: A cookie is not tied to a task.
unsafe impl Send for Cookie {}

// SAFETY: The methods below may be called from several tasks at once.
unsafe impl Sync for Cookie {}

// SAFETY: `fscache_get_cookie` and `fscache_put_cookie` count references.
unsafe impl AlwaysRefCounted for Cookie {
    fn inc_ref(&self) {
        // SAFETY: By the invariant the count is positive.
        unsafe {
            bindings::fscache_get_cookie(
                self.as_ptr(),
                bindings::fscache_cookie_trace_fscache_cookie_get_attach_object,
            )
        };
    }

    /// The last reference must be put where it is allowed to sleep.
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference.
        unsafe {
            bindings::fscache_put_cookie(
                obj.cast().as_ptr(),
                bindings::fscache_cookie_trace_fscache_cookie_put_object,
            )
        };
    }
}

impl Cookie {
    /// # Safety
    ///
    /// `ptr` must be a valid cookie whose reference count stays positive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *const bindings::fscache_cookie) -> &'a Self {
        // INVARIANT: As the caller guarantees; a cookie holds a reference to its volume.
        // SAFETY: Likewise.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::fscache_cookie {
        self.0.get()
    }

    /// The volume that the cookie is in.
    pub(crate) fn volume(&self) -> &Volume {
        // SAFETY: By the invariant.
        unsafe { Volume::from_raw((*self.as_ptr()).volume) }
    }

    /// The number that names the cookie in traces and in `/proc/fs/fscache/cookies`.
    pub(crate) fn debug_id(&self) -> u32 {
        // SAFETY: The cookie is valid, and the number does not change.
        unsafe { (*self.as_ptr()).debug_id }
    }

    /// The key: 1 to 255 bytes.
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: The cookie is valid; its key is as long as it says, and does not change.
        unsafe {
            core::slice::from_raw_parts(
                bindings::fscache_get_key(self.as_ptr()).cast(),
                usize::from((*self.as_ptr()).key_len),
            )
        }
    }

    /// The hash of the volume's key and this one. The lowest byte is the fan-out directory.
    pub(crate) fn key_hash(&self) -> u32 {
        // SAFETY: The cookie is valid, and the hash does not change.
        unsafe { (*self.as_ptr()).key_hash }
    }

    /// Copies the auxiliary data, which says which version of a file is meant, and returns how
    /// many bytes that is.
    pub(crate) fn copy_aux(&self, buf: &mut [u8; 255]) -> usize {
        // SAFETY: The cookie is valid, and the length does not change.
        let len = usize::from(unsafe { (*self.as_ptr()).aux_len });
        // SAFETY: The data is as long as said, and so is the buffer, as `aux_len` is a byte. The
        // network file system may be changing it, which would be its race, with C as with this.
        unsafe {
            core::ptr::copy_nonoverlapping(
                bindings::fscache_get_aux(self.as_ptr()).cast(),
                buf.as_mut_ptr(),
                len,
            )
        };
        len
    }

    /// Whether the size of the object is asked of the cache, rather than told to it.
    pub(crate) fn wants_cache_size(&self) -> bool {
        // SAFETY: The cookie is valid, and the advice does not change.
        let advice = unsafe { (*self.as_ptr()).advice };
        u32::from(advice) & bindings::FSCACHE_ADV_WANT_CACHE_SIZE != 0
    }

    fn test_flag(&self, flag: u32) -> bool {
        // SAFETY: The cookie is valid, and the flag is one of its flags.
        unsafe { bindings::fscache_cookie_test_flag(self.as_ptr(), flag) }
    }

    /// Whether the network file system has given the cookie up, or wants nothing of it for now
    /// (a forced unmount): nobody waits any more for what was asked for it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.test_flag(bindings::FSCACHE_COOKIE_RELINQUISHED)
            || self.test_flag(bindings::FSCACHE_COOKIE_DISABLED)
    }

    /// Whether the network file system wants the data to be thrown away.
    pub(crate) fn is_retired(&self) -> bool {
        self.test_flag(bindings::FSCACHE_COOKIE_RETIRED)
    }

    /// Starts to withdraw the cookie's object.
    pub(crate) fn withdraw(&self) {
        // SAFETY: The cookie is valid.
        unsafe { bindings::fscache_withdraw_cookie(self.as_ptr()) };
    }

    /// The object that the backend has given for the cookie.
    ///
    /// # Safety
    ///
    /// The cookie must be of a cache of the backend `B`, and the object must not be withdrawn
    /// while the result is in use.
    pub(crate) unsafe fn object<B: Backend>(
        &self,
    ) -> Option<<B::Object as ForeignOwnable>::Borrowed<'_>> {
        // SAFETY: The cookie is valid.
        let object = unsafe { (*self.as_ptr()).cache_priv };
        // SAFETY: It was put there by `lookup_cookie`, and stays for as long as the caller says.
        (!object.is_null()).then(|| unsafe { B::Object::borrow(object) })
    }
}

/// A cookie that is being looked up. Nobody else looks at its size meanwhile.
pub(crate) struct Lookup<'a>(&'a Cookie);

impl<'a> Lookup<'a> {
    /// # Safety
    ///
    /// The cookie must be in its backend's `lookup_cookie`.
    pub(super) unsafe fn new(cookie: &'a Cookie) -> Self {
        Lookup(cookie)
    }

    /// Sets the size of the object in bytes. For a cookie that
    /// [wants its size](Cookie::wants_cache_size) from the cache, and could not get it, it is the
    /// negative error number.
    ///
    /// Whoever sees that the cookie has left the state "looking up" sees this.
    pub(crate) fn set_object_size(&self, size: i64) {
        let cookie = self.0.as_ptr();
        // SAFETY: During the lookup nobody else uses the size.
        unsafe { (*cookie).object_size = size };
        // SAFETY: The cookie is valid, and the flag is one of its flags.
        unsafe {
            bindings::fscache_cookie_assign_flag(
                cookie,
                bindings::FSCACHE_COOKIE_NO_DATA_TO_READ,
                size <= 0,
            )
        };
    }
}

impl Deref for Lookup<'_> {
    type Target = Cookie;

    fn deref(&self) -> &Cookie {
        self.0
    }
}
