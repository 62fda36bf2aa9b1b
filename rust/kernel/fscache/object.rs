// SPDX-License-Identifier: GPL-2.0

//! What a cookie has of a backend's object.

use super::{
    Backend,
    Cookie, //
};
use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable, //
};

/// What a cookie's `cache_priv` points to.
struct Inner {
    /// Valid for as long as it counts this.
    cache: NonNull<bindings::fscache_cache>,
    /// Valid for as long as it has the object, at least.
    cookie: NonNull<Cookie>,
    /// From `B::Object::into_foreign`. Null during the lookup and after the withdrawal.
    object: Atomic<*mut c_void>,
}

// SAFETY: A cache may be used by any task, and the cookie and the object are only handed out by
// functions that say what has to be the case for that.
unsafe impl Send for Inner {}

// SAFETY: As above.
unsafe impl Sync for Inner {}

/// A reference to what a cookie has of a backend's object.
///
/// The cookie has one while it has the object, and so does each request for the object's data until
/// whoever made it was told of the end. It keeps neither the cookie nor the object, but the cache
/// counts the object (`fscache_count_object()`) until the last of these references is gone, as it
/// does in C: so it is waited for before the cache goes out of service, and with it perhaps the
/// module.
///
/// Neither cloning nor dropping one sleeps, and both may be done in any context.
///
/// # Invariants
///
/// The cache is valid, and counts one object for all references to the same [`Inner`].
#[must_use = "the cache does not wait for what is dropped"]
pub(in crate::kernel_next) struct ObjectRef(ManuallyDrop<Arc<Inner>>);

impl ObjectRef {
    /// Counts an object that is being looked up. There is none yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The cookie's cache must be in service, and stay there during the call.
    pub(super) unsafe fn new(cookie: &Cookie) -> Result<Self> {
        // A volume that is in a cache has one.
        let cache = NonNull::new(cookie.volume().cache()).ok_or(ENOENT)?;
        let inner = Inner {
            cache,
            cookie: cookie.into(),
            object: Atomic::new(core::ptr::null_mut()),
        };
        let inner = Arc::new(inner, GFP_KERNEL)?;
        // SAFETY: As the caller guarantees.
        unsafe { bindings::fscache_count_object(cache.as_ptr()) };
        // INVARIANT: Just done. As long as the cache counts an object, it stays in service, and so
        // valid.
        Ok(ObjectRef(ManuallyDrop::new(inner)))
    }

    /// Takes the object in that was found. The result is what the cookie's `cache_priv` has to be;
    /// [`Self::detach`] takes it back.
    pub(super) fn attach<B: Backend>(self, object: B::Object) -> *mut c_void {
        self.0.object.store(object.into_foreign(), Relaxed);
        let mut this = ManuallyDrop::new(self);
        // SAFETY: The member is taken once: `this` is neither used nor dropped after it.
        let inner = unsafe { ManuallyDrop::take(&mut this.0) };
        Arc::into_raw(inner).cast_mut().cast()
    }

    /// Takes the object away. The reference is the cookie's.
    ///
    /// # Safety
    ///
    /// `cache_priv` must come from [`Self::attach`] for the backend `B`, and be taken back once.
    /// Nobody may use the object.
    pub(super) unsafe fn detach<B: Backend>(cache_priv: *mut c_void) -> (B::Object, Self) {
        // SAFETY: By the guarantees of the caller this is what `Arc::into_raw` gave.
        let inner = unsafe { Arc::from_raw(cache_priv.cast::<Inner>()) };
        // INVARIANT: The cookie's reference, to which the invariant applied.
        let this = ObjectRef(ManuallyDrop::new(inner));
        let object = this.0.object.xchg(core::ptr::null_mut(), Relaxed);
        // SAFETY: `attach` put there what `into_foreign` gave. As the caller guarantees, it was not
        // taken back before, and nobody borrows it.
        (unsafe { B::Object::from_foreign(object) }, this)
    }

    /// The object that a cookie's `cache_priv` is for.
    ///
    /// # Safety
    ///
    /// `cache_priv` must come from [`Self::attach`] for the backend `B`, and not be taken back for
    /// `'a`.
    #[inline]
    pub(super) unsafe fn borrow<'a, B: Backend>(
        cache_priv: *mut c_void,
    ) -> <B::Object as ForeignOwnable>::Borrowed<'a> {
        // SAFETY: As the caller guarantees, it came from `Arc::into_raw`, and the cookie's
        // reference stays for `'a`.
        let inner = unsafe { ArcBorrow::from_raw(cache_priv.cast::<Inner>()) };
        // SAFETY: `attach` put there what `into_foreign` gave, and it stays for as long.
        unsafe { B::Object::borrow(inner.object.load(Relaxed)) }
    }

    /// Another reference to what a cookie's `cache_priv` is for.
    ///
    /// # Safety
    ///
    /// `cache_priv` must come from [`Self::attach`], and not be taken back during the call.
    #[inline]
    pub(super) unsafe fn get(cache_priv: *mut c_void) -> Self {
        // SAFETY: As the caller guarantees, it came from `Arc::into_raw`, and the cookie's
        // reference stays for this call.
        let inner = unsafe { ArcBorrow::from_raw(cache_priv.cast::<Inner>()) };
        // INVARIANT: The cookie has a reference, to which the invariant applies.
        ObjectRef(ManuallyDrop::new(inner.into()))
    }

    /// The cookie that has, or had, the object.
    ///
    /// # Safety
    ///
    /// The cookie must be valid for the time of the borrow, as it is for those who have an access
    /// to it.
    #[inline]
    pub(in crate::kernel_next) unsafe fn cookie(&self) -> &Cookie {
        // SAFETY: As the caller guarantees.
        unsafe { self.0.cookie.as_ref() }
    }
}

impl Drop for ObjectRef {
    #[inline]
    fn drop(&mut self) {
        let cache = self.0.cache;
        // SAFETY: The member is taken once: nobody uses `self` after it was dropped.
        let inner = unsafe { ManuallyDrop::take(&mut self.0) };
        if let Some(last) = Arc::into_unique_or_drop(inner) {
            // The memory goes first: once nothing is counted, the cache may go, and then the
            // module. This function, and whoever called it, has yet to return through the module's
            // code. Nothing waits for that, as it does not in C; but where this is called in an
            // interrupt, freeing a module waits for that to end.
            drop(last);
            // SAFETY: By the invariant the cache is valid and counts an object, for which there are
            // no references any more.
            unsafe { bindings::fscache_uncount_object(cache.as_ptr()) };
        }
    }
}
