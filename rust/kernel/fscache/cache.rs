// SPDX-License-Identifier: GPL-2.0

//! Caches, and the functions that fscache calls.

use super::{
    Backend,
    Cookie,
    Lookup,
    Volume, //
};
use crate::{
    bindings,
    kernel_next::netfs::{
        begin_operation,
        CacheIo, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    new_condvar,
    new_spinlock,
    prelude::*,
    sync::{
        CondVar,
        SpinLock, //
    },
    types::ForeignOwnable, //
};

/// A volume that the backend represents.
///
/// # Invariants
///
/// The volume is valid for as long as this is in a cache's list: whoever frees it takes it off
/// the list first.
struct Attached {
    volume: NonNull<bindings::fscache_volume>,
    /// Whether an access is held to keep the volume's count of them above zero.
    pinned: bool,
}

// SAFETY: A volume may be used by any task.
unsafe impl Send for Attached {}

/// What `fscache_cache::cache_priv` points to.
#[pin_data(PinnedDrop)]
struct Private<B: Backend> {
    /// A `B::Cache`, as the foreign pointer that is borrowed from.
    data: NonNull<c_void>,
    /// The volumes that have a `cache_priv`.
    ///
    /// A spinlock, because the last thing that happens to a cache may be that a volume leaves the
    /// list: unlocking a mutex may still touch it after somebody else could lock it.
    #[pin]
    volumes: SpinLock<KVec<Attached>>,
    /// Signalled when one leaves the list.
    #[pin]
    detached: CondVar,
    _b: PhantomData<B>,
}

// SAFETY: `B::Cache` is `Send`.
unsafe impl<B: Backend> Send for Private<B> {}

// SAFETY: `B::Cache` is `Sync`.
unsafe impl<B: Backend> Sync for Private<B> {}

impl<B: Backend> Private<B> {
    fn new(data: B::Cache) -> Result<Pin<KBox<Self>>> {
        let data = NonNull::new(data.into_foreign()).ok_or(EINVAL)?;
        KBox::pin_init(
            try_pin_init!(Self {
                data,
                volumes <- new_spinlock!(KVec::new()),
                detached <- new_condvar!(),
                _b: PhantomData,
            }),
            GFP_KERNEL,
        )
        .inspect_err(|_| {
            // SAFETY: It comes from `into_foreign` above, and nothing took it.
            drop(unsafe { B::Cache::from_foreign(data.as_ptr()) });
        })
    }

    /// # Safety
    ///
    /// `cache` must be a cache that the backend `B` brought into service, and stay there for `'a`.
    unsafe fn of<'a>(cache: *const bindings::fscache_cache) -> &'a Self {
        // SAFETY: As the caller guarantees.
        unsafe { &*(*cache).cache_priv.cast() }
    }

    fn data(&self) -> <B::Cache as ForeignOwnable>::Borrowed<'_> {
        // SAFETY: It is there until `self` is dropped.
        unsafe { B::Cache::borrow(self.data.as_ptr()) }
    }

    /// Puts a volume on the list.
    fn attach(&self, volume: &Volume) -> Result {
        loop {
            let want = {
                let volumes = self.volumes.lock();
                (volumes.len() == volumes.capacity()).then(|| 2 * volumes.len().max(4))
            };
            let mut larger = KVec::new();
            if let Some(want) = want {
                larger.reserve(want, GFP_KERNEL)?;
            }
            let mut volumes = self.volumes.lock();
            if larger.capacity() > volumes.capacity() {
                // Neither this nor the next push allocates.
                for attached in volumes.drain_all() {
                    larger.push_within_capacity(attached)?;
                }
                core::mem::swap(&mut *volumes, &mut larger);
            }
            // INVARIANT: The thunk `free_volume` takes it off before the volume is freed.
            let attached = Attached {
                volume: NonNull::from(volume).cast(),
                pinned: true,
            };
            let done = volumes.push_within_capacity(attached).is_ok();
            drop(volumes);
            // `larger`, which is the smaller one now, is freed here.
            if done {
                return Ok(());
            }
        }
    }

    /// Takes the backend's representation of a volume away from it.
    ///
    /// # Safety
    ///
    /// The volume must have one, which nobody else takes, and nobody may have an access to it.
    unsafe fn free_volume(volume: &Volume) {
        // SAFETY: As the caller guarantees.
        let data = unsafe {
            B::Volume::from_foreign(core::mem::replace(
                &mut (*volume.as_ptr()).cache_priv,
                core::ptr::null_mut(),
            ))
        };
        B::free_volume(data, volume);
    }

    /// Waits until nobody has an access to any volume. None can be had anew.
    fn drain_volumes(&self) {
        loop {
            let next = {
                let mut volumes = self.volumes.lock();
                let next = volumes.iter_mut().find(|attached| attached.pinned);
                next.and_then(|attached| {
                    attached.pinned = false;
                    // A volume that is being freed has no accesses.
                    // SAFETY: It is on the list, which is locked.
                    unsafe { Volume::from_raw(attached.volume.as_ptr()) }.try_get()
                })
            };
            let Some(volume) = next else {
                let volumes = self.volumes.lock();
                if volumes.iter().any(|attached| attached.pinned) {
                    continue;
                }
                return;
            };
            // SAFETY: The reference keeps it valid, and the pin is this function's to give up.
            unsafe { bindings::fscache_withdraw_volume(volume.as_ptr()) };
        }
    }

    /// Takes all volumes away from fscache.
    fn detach_volumes(&self) {
        let mut volumes = self.volumes.lock();
        while let Some(attached) = volumes.last() {
            // SAFETY: It is on the list, which is locked.
            let volume = unsafe { Volume::from_raw(attached.volume.as_ptr()) };
            match volume.try_get() {
                Some(volume) => {
                    volumes.pop();
                    drop(volumes);
                    // SAFETY: What is on the list has one; it is off the list now, and
                    // `drain_volumes` saw to the accesses.
                    unsafe { Self::free_volume(&volume) };
                    drop(volume);
                    volumes = self.volumes.lock();
                }
                // It is being freed: that takes it off the list.
                None => self.detached.wait(&mut volumes),
            }
        }
    }
}

#[pinned_drop]
impl<B: Backend> PinnedDrop for Private<B> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: It comes from `into_foreign`, and nobody borrows from `self` any more.
        drop(unsafe { B::Cache::from_foreign(self.data.as_ptr()) });
    }
}

/// A cache's name, taken, so that nobody else can bring a cache of that name into service.
///
/// # Invariants
///
/// The cache is valid, in the state "preparing", and this is what has to relinquish it.
pub(crate) struct PreparedCache(NonNull<bindings::fscache_cache>);

// SAFETY: A cache is not tied to a task.
unsafe impl Send for PreparedCache {}

impl PreparedCache {
    /// Takes a name.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a cache of that name is in service.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        // SAFETY: The name is terminated.
        let ptr = unsafe { bindings::fscache_acquire_cache(name.as_char_ptr()) };
        // INVARIANT: The function returns such a cache, or an error.
        NonNull::new(from_err_ptr(ptr)?).map(Self).ok_or(ENOMEM)
    }

    /// Brings the cache into service.
    pub(crate) fn add<B: CacheIo>(self, data: B::Cache) -> Result<Cache<B>> {
        let private = Private::<B>::new(data)?;
        let private_ptr: *const Private<B> = &*private;
        // SAFETY: The cache is in the state "preparing". The operations live for ever, `private`
        // until the cache is out of service.
        to_result(unsafe {
            bindings::fscache_add_cache(
                self.0.as_ptr(),
                &VTable::<B>::VTABLE,
                private_ptr.cast_mut().cast(),
            )
        })?;
        Ok(Cache {
            withdrawn: false,
            ptr: self,
            private,
        })
    }
}

impl Drop for PreparedCache {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is this value's to relinquish.
        unsafe { bindings::fscache_relinquish_cache(self.0.as_ptr()) };
    }
}

/// A cache in service. Dropping it takes it out of service, and waits for ever if there are objects
/// that nobody withdraws: [`Self::withdraw`] comes first.
pub(crate) struct Cache<B: CacheIo> {
    withdrawn: bool,
    // The order of these members matters: the cache is relinquished, which makes fscache forget
    // `private`, before that is freed.
    ptr: PreparedCache,
    private: Pin<KBox<Private<B>>>,
}

impl<B: CacheIo> Cache<B> {
    /// Takes the cache out of service.
    ///
    /// `withdraw_cookies` has to call [`Cookie::withdraw`] for each cookie that has an object.
    /// Waits until all objects are gone, then frees the volumes.
    pub(crate) fn withdraw(&mut self, withdraw_cookies: impl FnOnce()) {
        if core::mem::replace(&mut self.withdrawn, true) {
            return;
        }
        // SAFETY: The cache is in service; it is withdrawn once.
        unsafe { bindings::fscache_withdraw_cache(self.ptr.0.as_ptr()) };
        self.private.drain_volumes();
        withdraw_cookies();
        // SAFETY: The cache is valid, and the caller may sleep.
        unsafe { bindings::fscache_wait_for_objects(self.ptr.0.as_ptr()) };
        self.private.detach_volumes();
    }
}

impl<B: CacheIo> Drop for Cache<B> {
    fn drop(&mut self) {
        self.withdraw(|| ());
    }
}

/// Counts an object that uses a cache: [`Cache::withdraw`] waits for it to be dropped.
///
/// # Invariants
///
/// The cache counts this.
pub(crate) struct ObjectCount(NonNull<bindings::fscache_cache>);

// SAFETY: A cache is not tied to a task.
unsafe impl Send for ObjectCount {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl Sync for ObjectCount {}

impl Lookup<'_> {
    /// Counts an object for the cookie.
    pub(crate) fn count_object(&self) -> Result<ObjectCount> {
        // SAFETY: A cookie's volume and that one's cache are valid; a lookup holds an access to
        // the cache, so that it cannot go out of service before this is counted.
        let cache = unsafe { (*self.volume().as_ptr()).cache };
        let cache = NonNull::new(cache).ok_or(EIO)?;
        // SAFETY: As above.
        unsafe { bindings::fscache_count_object(cache.as_ptr()) };
        // INVARIANT: Just done.
        Ok(ObjectCount(cache))
    }
}

impl Drop for ObjectCount {
    fn drop(&mut self) {
        // SAFETY: By the invariant the cache waits for this, and so is valid.
        unsafe { bindings::fscache_uncount_object(self.0.as_ptr()) };
    }
}

struct VTable<B: CacheIo>(PhantomData<B>);

impl<B: CacheIo> VTable<B> {
    /// # Safety
    ///
    /// `volume` must be valid, without a `cache_priv`, in a cache of the backend `B` to which an
    /// access is held.
    unsafe extern "C" fn acquire_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Volume::from_raw(volume) };
        // SAFETY: As the caller guarantees.
        let private = unsafe { Private::<B>::of((*volume).cache) };
        let Ok(data) = B::acquire_volume(private.data(), this) else {
            return;
        };
        // The cache cannot be withdrawn meanwhile, so nobody looks at the list.
        if private.attach(this).is_err() {
            B::free_volume(data, this);
            return;
        }
        // SAFETY: The member is the backend's to fill. The access that is pinned here is given up
        // by `drain_volumes`.
        unsafe {
            (*volume).cache_priv = data.into_foreign();
            bindings::fscache_volume_pin(volume);
        }
    }

    /// # Safety
    ///
    /// `volume` must be valid, with a `cache_priv` from `acquire_volume`, and nobody may have a
    /// reference or an access to it.
    unsafe extern "C" fn free_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: As the caller guarantees; the cache stays in service until the list is empty.
        let private = unsafe { Private::<B>::of((*volume).cache) };
        // SAFETY: As the caller guarantees; `detach_volumes` cannot get a reference any more.
        unsafe { Private::<B>::free_volume(Volume::from_raw(volume)) };
        // Once the volume is off the list, the cache may go; so that comes last.
        let mut volumes = private.volumes.lock();
        volumes.retain(|attached| attached.volume.as_ptr() != volume);
        private.detached.notify_all();
        drop(volumes);
    }

    /// # Safety
    ///
    /// `cookie` must be valid, without a `cache_priv`, in a volume with one; accesses to both must
    /// be held.
    unsafe extern "C" fn lookup_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: As the caller guarantees.
        let volume = unsafe { B::Volume::borrow((*(*cookie).volume).cache_priv) };
        // SAFETY: This is the backend's `lookup_cookie`.
        match B::lookup_cookie(volume, unsafe { &Lookup::new(this) }) {
            Ok(object) => {
                // SAFETY: The member is the backend's to fill.
                unsafe { (*cookie).cache_priv = object.into_foreign() };
                true
            }
            Err(_) => {
                // SAFETY: The cookie is being looked up.
                unsafe { bindings::fscache_caching_failed(cookie) };
                false
            }
        }
    }

    /// # Safety
    ///
    /// `cookie` must be valid, with a `cache_priv` from `lookup_cookie`, and nobody may have an
    /// access to it.
    unsafe extern "C" fn withdraw_cookie(cookie: *mut bindings::fscache_cookie) {
        // SAFETY: As the caller guarantees.
        let object = unsafe {
            B::Object::from_foreign(core::mem::replace(
                &mut (*cookie).cache_priv,
                core::ptr::null_mut(),
            ))
        };
        // SAFETY: As the caller guarantees.
        B::withdraw_cookie(object, unsafe { Cookie::from_raw(cookie) });
    }

    /// # Safety
    ///
    /// `cookie` must be valid, with a `cache_priv` from `lookup_cookie` that is not withdrawn
    /// meanwhile.
    unsafe extern "C" fn invalidate_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: As the caller guarantees.
        let object = unsafe { this.object::<B>() };
        let goes_on = object.is_some_and(|object| B::invalidate_cookie(object, this));
        if goes_on {
            // SAFETY: The cookie is being invalidated.
            unsafe { bindings::fscache_resume_after_invalidation(cookie) };
        } else {
            this.withdraw();
        }
        goes_on
    }

    /// # Safety
    ///
    /// As for [`begin_operation`].
    unsafe extern "C" fn begin_operation(
        res: *mut bindings::netfs_cache_resources,
        want: bindings::fscache_want_state,
    ) -> bool {
        // SAFETY: As the caller guarantees.
        unsafe { begin_operation::<B>(res, want) }
    }

    // An on-demand cache takes sizes and data from the daemon only, so that there is nothing to be
    // done when the network file system wants to change either.

    extern "C" fn resize_cookie(_res: *mut bindings::netfs_cache_resources, _size: i64) {}

    extern "C" fn prepare_to_write(_cookie: *mut bindings::fscache_cookie) {}

    const VTABLE: bindings::fscache_cache_ops = bindings::fscache_cache_ops {
        name: kernel::str::as_char_ptr_in_const_context(B::NAME),
        acquire_volume: Some(Self::acquire_volume),
        free_volume: Some(Self::free_volume),
        lookup_cookie: Some(Self::lookup_cookie),
        withdraw_cookie: Some(Self::withdraw_cookie),
        resize_cookie: Some(Self::resize_cookie),
        invalidate_cookie: Some(Self::invalidate_cookie),
        begin_operation: Some(Self::begin_operation),
        prepare_to_write: Some(Self::prepare_to_write),
    };
}
