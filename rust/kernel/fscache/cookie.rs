// SPDX-License-Identifier: GPL-2.0

//! Cookies.

use super::{
    copy_shared,
    object::ObjectRef,
    Backend,
    Volume,
    DATA_MAX, //
};
use crate::{
    bindings,
    kernel_next::compat::{
        smp_mb,
        Full, //
    }, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    error::code::{
        EFBIG,
        EIOCBQUEUED, //
    },
    prelude::*,
    sync::{
        aref::AlwaysRefCounted,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        }, //
    },
    types::{
        ForeignOwnable,
        NotThreadSafe,
        Opaque, //
    }, //
};

/// The last error number that has a meaning outside of the kernel.
const ERRNO_LAST_PUBLIC: c_int = 511;

/// A network file system's handle for one file's data (`struct fscache_cookie`).
///
/// Reference-counted: an [`ARef`](kernel::sync::aref::ARef) keeps it, and its volume, but not what
/// the backend gave for them. The last reference must be dropped where it is allowed to sleep.
///
/// # Invariants
///
/// The cookie is valid and its reference count is positive. So is its volume.
///
/// # Examples
///
/// ```
/// use kernel::{
///     fscache::Cookie,
///     prelude::*,
///     sync::aref::ARef, //
/// };
///
/// struct Object {
///     cookie: ARef<Cookie>,
/// }
///
/// impl Object {
///     fn new(cookie: &Cookie) -> Self {
///         Object {
///             cookie: cookie.into(),
///         }
///     }
///
///     /// Its file was found to be broken.
///     fn give_up(&self) {
///         pr_warn!("cookie {:x}: bad file\n", self.cookie.debug_id());
///         self.cookie.withdraw();
///     }
/// }
/// ```
#[repr(transparent)]
pub(crate) struct Cookie(Opaque<bindings::fscache_cookie>);

// SAFETY: A cookie is not tied to a task.
unsafe impl Send for Cookie {}

// SAFETY: The methods below may be called from several tasks at once: they read what does not
// change, or what may change in ways that they say.
unsafe impl Sync for Cookie {}

// SAFETY: `fscache_get_cookie` and `fscache_put_cookie` count references, and the cookie is freed
// with the last one.
unsafe impl AlwaysRefCounted for Cookie {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: By the invariant the count is positive.
        unsafe {
            bindings::fscache_get_cookie(
                self.as_ptr(),
                bindings::fscache_cookie_trace_fscache_cookie_get_attach_object,
            )
        };
    }

    #[inline]
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
    /// Creates a reference from a pointer to the C structure.
    ///
    /// # Safety
    ///
    /// `ptr` must be a valid cookie whose reference count stays positive for `'a`.
    #[inline]
    pub(in crate::kernel_next) unsafe fn from_raw<'a>(
        ptr: *const bindings::fscache_cookie,
    ) -> &'a Self {
        // INVARIANT: As the caller guarantees; a cookie holds a reference to its volume.
        // SAFETY: Likewise; the type is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::fscache_cookie {
        self.0.get()
    }

    /// Where the cookie is: names it for as long as there is a reference to it.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        self.as_ptr().addr()
    }

    /// The volume that the cookie is in.
    #[inline]
    pub(crate) fn volume(&self) -> &Volume {
        // SAFETY: By the invariant both are valid; the pointer does not change.
        unsafe { Volume::from_raw((*self.as_ptr()).volume) }
    }

    /// The number that names the cookie in traces and in `/proc/fs/fscache/cookies`.
    #[inline]
    pub(crate) fn debug_id(&self) -> u32 {
        // SAFETY: The cookie is valid, and the number does not change.
        unsafe { (*self.as_ptr()).debug_id }
    }

    /// The key: 1 to 255 bytes, of any value.
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: The cookie is valid; its key is as long as it says, is freed with it, and does
        // not change before.
        unsafe {
            core::slice::from_raw_parts(
                bindings::fscache_get_key(self.as_ptr()).cast(),
                usize::from((*self.as_ptr()).key_len),
            )
        }
    }

    /// The hash of the volume's key and this one. The same after a restart, so that it can be used
    /// for where things are on a disk.
    #[inline]
    pub(crate) fn key_hash(&self) -> u32 {
        // SAFETY: The cookie is valid, and the hash does not change.
        unsafe { (*self.as_ptr()).key_hash }
    }

    /// Copies the auxiliary data to `buf` and returns it: it says which version of a file is meant.
    ///
    /// Some mixture of old and new if the network file system is changing it.
    pub(crate) fn aux<'a>(&self, buf: &'a mut [u8; DATA_MAX]) -> &'a [u8] {
        let this = self.as_ptr();
        // SAFETY: The cookie is valid; the length does not change, and says how long the data is.
        unsafe { copy_shared(bindings::fscache_get_aux(this).cast(), (*this).aux_len, buf) }
    }

    /// As [`Self::aux`], with the cookie's lock, so that it is not a mixture: if it is that of an
    /// invalidation, [that one is counted](Self::inval_counter). Does not sleep.
    pub(crate) fn aux_locked<'a>(&self, buf: &'a mut [u8; DATA_MAX]) -> &'a [u8] {
        let this = self.as_ptr();
        // SAFETY: The cookie is valid. It is not locked: nobody is called with its lock held.
        unsafe { bindings::spin_lock(&raw mut (*this).lock) };
        let aux = self.aux(buf);
        // SAFETY: Locked above.
        unsafe { bindings::spin_unlock(&raw mut (*this).lock) };
        aux
    }

    /// Whether the size of the object is asked of the cache, rather than told to it.
    #[inline]
    pub(crate) fn wants_cache_size(&self) -> bool {
        // SAFETY: The cookie is valid, and the advice does not change.
        let advice = unsafe { (*self.as_ptr()).advice };
        u32::from(advice) & bindings::FSCACHE_ADV_WANT_CACHE_SIZE != 0
    }

    fn test_flag(&self, flag: u32) -> bool {
        // SAFETY: The cookie is valid; once it is there, all accesses to the flags are atomic.
        let flags: &Atomic<usize> = unsafe { Atomic::from_ptr(&raw mut (*self.as_ptr()).flags) };
        flags.load(Relaxed) & (1 << flag) != 0
    }

    fn set_flag(&self, flag: u32) {
        // SAFETY: The cookie is valid, and these are its flags.
        unsafe { bindings::set_bit(flag as usize, &raw mut (*self.as_ptr()).flags) };
    }

    fn clear_flag(&self, flag: u32) {
        // SAFETY: As above.
        unsafe { bindings::clear_bit(flag as usize, &raw mut (*self.as_ptr()).flags) };
    }

    /// Clears a flag and returns whether it was set. A full barrier if it was.
    fn take_flag(&self, flag: u32) -> bool {
        // SAFETY: As above.
        unsafe { bindings::test_and_clear_bit(flag as usize, &raw mut (*self.as_ptr()).flags) }
    }

    /// Whether the network file system has changed data, or is going to, since that was last
    /// [taken](Self::take_local_write): then the auxiliary data does not tell yet which version of
    /// the file the object has.
    pub(crate) fn is_local_write(&self) -> bool {
        self.test_flag(bindings::FSCACHE_COOKIE_LOCAL_WRITE)
    }

    /// As [`Self::is_local_write`]; and it is not any more, for the object that is being given up.
    pub(crate) fn take_local_write(&self) -> bool {
        self.take_flag(bindings::FSCACHE_COOKIE_LOCAL_WRITE)
    }

    /// Says that what is stored of the auxiliary data, or of the size, is not what it has to be.
    pub(crate) fn set_needs_update(&self) {
        self.set_flag(bindings::FSCACHE_COOKIE_NEEDS_UPDATE);
    }

    /// Whether the auxiliary data, or the size, has changed since it was last asked.
    pub(crate) fn take_needs_update(&self) -> bool {
        self.take_flag(bindings::FSCACHE_COOKIE_NEEDS_UPDATE)
    }

    /// Says that data was written to the object: once the network file system drops what it has of
    /// that in memory, it may [look](Self::has_no_data) for it here.
    pub(crate) fn set_have_data(&self) {
        self.set_flag(bindings::FSCACHE_COOKIE_HAVE_DATA);
    }

    /// Whether nothing of the object needs to be looked for, because it is empty, or because all
    /// that was written to it is still in the memory of the network file system.
    #[inline]
    pub(crate) fn has_no_data(&self) -> bool {
        self.test_flag(bindings::FSCACHE_COOKIE_NO_DATA_TO_READ)
    }

    /// The size of the object in bytes, or an error number. The network file system may change it
    /// at any time.
    pub(crate) fn object_size(&self) -> i64 {
        // SAFETY: The cookie is valid. Who sets the size does it with single accesses, as with C
        // code; so the access is volatile.
        unsafe { (&raw const (*self.as_ptr()).object_size).read_volatile() }
    }

    /// Whether the network file system has given the cookie up, or wants nothing of it for now,
    /// because it writes past the cache: nobody waits any more for what was asked for it.
    pub(crate) fn is_given_up(&self) -> bool {
        self.test_flag(bindings::FSCACHE_COOKIE_RELINQUISHED)
            || self.test_flag(bindings::FSCACHE_COOKIE_DISABLED)
    }

    /// Whether the network file system has a use of the cookie, as it has for each file that is
    /// open. It may get one, or give the last one back, at any moment.
    pub(crate) fn is_in_use(&self) -> bool {
        // SAFETY: The cookie is valid; once it is there, all accesses to the count are atomic.
        let uses = unsafe { Atomic::from_ptr(&raw mut (*self.as_ptr()).n_active.counter) };
        let uses: c_int = uses.load(Relaxed);
        uses > 0
    }

    /// Gives the answer to a lookup that was [put off](Lookup::put_off): the size of the object in
    /// bytes, or why there is none. Whoever waits sees it once he is [woken](Self::wake).
    ///
    /// Errors that have a meaning inside the kernel only become `EIO`, so that no answer is taken
    /// for that there is none yet. Does not sleep.
    pub(crate) fn answer(&self, size: Result<u64>) {
        let size = size.and_then(|size| i64::try_from(size).map_err(|_| EFBIG));
        let error = |e: Error| match e.to_errno() {
            errno if errno >= -ERRNO_LAST_PUBLIC => errno,
            _ => EIO.to_errno(),
        };
        // SAFETY: The cookie is valid. Who waits, or sets the size meanwhile, does it with single
        // accesses as this one, as with C code; so the access is volatile.
        unsafe {
            (&raw mut (*self.as_ptr()).object_size)
                .write_volatile(size.unwrap_or_else(|e| error(e).into()))
        };
    }

    /// Wakes whoever waits for the cookie's state or for an [answer](Self::answer).
    ///
    /// Does not sleep.
    pub(crate) fn wake(&self) {
        // Orders what was written before the look for waiters.
        smp_mb(Full);
        // SAFETY: The cookie is valid; the address is only compared.
        unsafe { bindings::wake_up_var((&raw mut (*self.as_ptr()).state).cast()) };
    }

    /// How often the network file system has had the data thrown away, counted from the
    /// [version](Lookup::set_version) that the object had when it was looked up. Who has the same
    /// number before and after reading has read data that was valid in between.
    #[inline]
    pub(crate) fn inval_counter(&self) -> c_uint {
        // SAFETY: The cookie is valid. Who invalidates it counts in a single access, as with C
        // code; so the access is volatile.
        unsafe { (&raw const (*self.as_ptr()).inval_counter).read_volatile() }
    }

    /// Whether the network file system wants the data to be thrown away.
    pub(crate) fn is_retired(&self) -> bool {
        self.test_flag(bindings::FSCACHE_COOKIE_RETIRED)
    }

    /// Starts to withdraw the cookie's object: it goes once nobody has an access to the cookie. The
    /// cookie may be looked up again after that. If it has no object, or loses it at this moment,
    /// the next one that it gets is withdrawn.
    ///
    /// Does not sleep. Must not be called from an interrupt.
    #[inline]
    pub(crate) fn withdraw(&self) {
        // SAFETY: The cookie is valid. The function may be called in each of its states.
        unsafe { bindings::fscache_withdraw_cookie(self.as_ptr()) };
    }

    /// The object that the backend has given for the cookie.
    ///
    /// # Safety
    ///
    /// The cookie must be of a cache of the backend `B`, and neither be looked up nor withdrawn
    /// while the result is in use.
    pub(in crate::kernel_next) unsafe fn object<B: Backend>(
        &self,
    ) -> Option<<B::Object as ForeignOwnable>::Borrowed<'_>> {
        // SAFETY: The cookie is valid, and nobody changes the member, as the caller guarantees.
        let cache_priv = unsafe { (*self.as_ptr()).cache_priv };
        // SAFETY: It was put there at the end of the lookup, and stays for as long as the caller
        // says.
        (!cache_priv.is_null()).then(|| unsafe { ObjectRef::borrow::<B>(cache_priv) })
    }

    /// A reference to what the cookie has of the backend's object, for which the cache is kept.
    ///
    /// # Safety
    ///
    /// The cookie must be in a cache that this crate brought into service, and neither be looked up
    /// nor withdrawn during the call.
    #[inline]
    pub(in crate::kernel_next) unsafe fn object_ref(&self) -> Option<ObjectRef> {
        // SAFETY: The cookie is valid, and nobody changes the member, as the caller guarantees.
        let cache_priv = unsafe { (*self.as_ptr()).cache_priv };
        // SAFETY: It was put there at the end of the lookup, and stays during the call.
        (!cache_priv.is_null()).then(|| unsafe { ObjectRef::get(cache_priv) })
    }
}

/// A cookie that is being looked up. Only its backend's [`Backend::lookup_cookie`] has it, and only
/// until it returns.
///
/// # Invariants
///
/// The cookie is in the state "looking up".
///
/// # Examples
///
/// ```
/// use kernel::{
///     fscache::Lookup,
///     prelude::*, //
/// };
///
/// /// What a backend does in `lookup_cookie()` once it knows how large the object is.
/// fn found(cookie: &Lookup<'_>, size: u64) -> Result {
///     if !cookie.wants_cache_size() {
///         return Err(EINVAL);
///     }
///     cookie.set_object_size(size)
/// }
/// ```
pub(crate) struct Lookup<'a> {
    cookie: &'a Cookie,
    // One task at a time sets the size.
    _not_sync: NotThreadSafe,
}

impl<'a> Lookup<'a> {
    /// # Safety
    ///
    /// The cookie must be in its backend's `lookup_cookie` for `'a`.
    #[inline]
    pub(super) unsafe fn new(cookie: &'a Cookie) -> Self {
        // INVARIANT: The function is called in this state.
        Lookup {
            cookie,
            _not_sync: NotThreadSafe,
        }
    }

    /// Sets the size of the object in bytes. Whoever sees that the cookie has left the state
    /// "looking up" sees this.
    ///
    /// # Errors
    ///
    /// `EFBIG` if no file can have the size.
    pub(crate) fn set_object_size(&self, size: u64) -> Result {
        self.set_size(i64::try_from(size).map_err(|_| EFBIG)?);
        Ok(())
    }

    /// Says whether the object that was found has data to be read, for a cookie whose size the
    /// network file system has told. Until that is read, or thrown away, the lookups of the data
    /// can be saved if there is none: see [`Cookie::has_no_data`].
    pub(crate) fn found(&self, has_data: bool) {
        match has_data {
            true => self.clear_flag(bindings::FSCACHE_COOKIE_NO_DATA_TO_READ),
            false => self.set_flag(bindings::FSCACHE_COOKIE_NO_DATA_TO_READ),
        }
    }

    /// Says which version of the data the object has. A hash of it goes to the counter of
    /// invalidations, which a network file system compares with what it was when it read what it
    /// keeps. Like the size, it has to be set before the lookup ends.
    ///
    /// A read whose operation was begun before that ends with `ESTALE` if the version is another
    /// one than last time. So the network file system has to wait for the lookup before it begins
    /// an operation.
    pub(crate) fn set_version(&self, version: &[u8]) {
        // FNV-1a. No version is a version, too: it hashes to 0, which the counter starts with.
        let hash = version.iter().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        let counter = hash ^ 0x811c_9dc5;
        // SAFETY: By the invariant the cookie is being looked up: nobody reads from the cache.
        // Who compares the counter reads it once.
        unsafe { (&raw mut (*self.as_ptr()).inval_counter).write_volatile(counter) };
    }

    /// Says that the answer to the lookup is still to come, with [`Cookie::answer`]: until then the
    /// size is `-EIOCBQUEUED`. If the lookup ends without an object meanwhile, who wants one waits
    /// for another size, and then has the cookie looked up again.
    ///
    /// For those who answer from elsewhere, the backend has to order the two. Does not sleep.
    pub(crate) fn put_off(&self) {
        self.set_size(EIOCBQUEUED.to_errno().into());
    }

    /// Tells whoever wanted the size from the cache why there is none.
    pub(super) fn fail(&self, error: Error) {
        if self.wants_cache_size() {
            self.set_size(error.to_errno().into());
        }
    }

    fn set_size(&self, size: i64) {
        let cookie = self.as_ptr();
        // SAFETY: By the invariant nobody reads the size. A network file system that sets it
        // meanwhile races with this, as with C code; so the access is volatile.
        unsafe { (&raw mut (*cookie).object_size).write_volatile(size) };
        self.found(size > 0);
    }
}

impl Deref for Lookup<'_> {
    type Target = Cookie;

    #[inline]
    fn deref(&self) -> &Cookie {
        self.cookie
    }
}

/// A change of an object's size. Only the backend's [`Backend::resize_cookie`] has it.
///
/// # Invariants
///
/// Nobody else changes the size of the cookie's object: the network file system does not write
/// meanwhile.
#[must_use = "the cookie is told the size with this"]
pub(crate) struct Resize<'a> {
    cookie: &'a Cookie,
    size: i64,
}

impl<'a> Resize<'a> {
    /// # Safety
    ///
    /// The cookie must be in its backend's `resize_cookie`, for `size`, for `'a`.
    #[inline]
    pub(super) unsafe fn new(cookie: &'a Cookie, size: i64) -> Self {
        // INVARIANT: The function is called with the file locked against writes.
        Resize { cookie, size }
    }

    /// The size that it is to have.
    #[inline]
    pub(crate) fn size(&self) -> i64 {
        self.size
    }

    /// Notes the size in the cookie. That is what the network file system goes by, so it has to be
    /// noted also if the object could not be given the size; then it is up to the backend that its
    /// data is not used any more.
    pub(crate) fn resized(self) {
        // SAFETY: The cookie is valid; by the invariant nobody else sets the size. It is read
        // without a lock, so the access is volatile.
        unsafe { (&raw mut (*self.cookie.as_ptr()).object_size).write_volatile(self.size) };
    }
}
