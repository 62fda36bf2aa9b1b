// SPDX-License-Identifier: GPL-2.0

//! Caches, and the functions that fscache calls.

use super::{
    object::ObjectRef,
    place,
    volume::VolumeRef,
    Backend,
    Cookie,
    Lookup,
    Resize,
    Volume, //
};
use crate::{
    bindings,
    kernel_next::{
        compat::{
            this_module,
            ModuleMetadata, //
        },
        netfs::{
            begin_operation,
            CacheIo, //
        }, //
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
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    static_lock_class,
    sync::{
        aref::ARef,
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        Arc,
        CondVar,
        SpinLock, //
    },
    types::ForeignOwnable, //
};

/// Owns a value as a foreign pointer, to lend it to the functions of the backend.
///
/// # Invariants
///
/// The pointer comes from `T::into_foreign`, and nobody else takes the value back.
struct ForeignBox<T: ForeignOwnable>(NonNull<c_void>, PhantomData<T>);

// SAFETY: This owns a `T`, and no more.
unsafe impl<T: ForeignOwnable + Send> Send for ForeignBox<T> {}

// SAFETY: A shared reference to this is one to the `T` that it owns.
unsafe impl<T: ForeignOwnable + Sync> Sync for ForeignBox<T> {}

impl<T: ForeignOwnable> ForeignBox<T> {
    fn new(value: T) -> Self {
        // SAFETY: `into_foreign` guarantees that it is not null.
        let ptr = unsafe { NonNull::new_unchecked(value.into_foreign()) };
        // INVARIANT: Just done.
        ForeignBox(ptr, PhantomData)
    }

    fn borrow(&self) -> T::Borrowed<'_> {
        // SAFETY: By the invariant it comes from `into_foreign`, and is taken back when `self` is
        // dropped, which is after the borrow.
        unsafe { T::borrow(self.0.as_ptr()) }
    }
}

impl<T: ForeignOwnable> Drop for ForeignBox<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant, and nobody borrows from `self` any more.
        drop(unsafe { T::from_foreign(self.0.as_ptr()) });
    }
}

/// An entry in a cache's list of the volumes that have a `cache_priv`.
///
/// # Invariants
///
/// The volume is valid for as long as this is in the list: `free_volume` removes it before fscache
/// frees the volume.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ListedVolume(NonNull<bindings::fscache_volume>);

// SAFETY: A volume may be used by any task.
unsafe impl Send for ListedVolume {}

impl ListedVolume {
    /// What a volume is looked up in the list by.
    fn key(volume: &Volume) -> Self {
        // INVARIANT: This one is not put there.
        ListedVolume(NonNull::from(volume).cast())
    }

    /// # Safety
    ///
    /// `self` must stay in a cache's list for the time of the borrow.
    unsafe fn volume(&self) -> &Volume {
        // SAFETY: By the invariant.
        unsafe { Volume::from_raw(self.0.as_ptr()) }
    }
}

/// What `fscache_cache::cache_priv` points to.
#[pin_data]
struct Private<B: Backend> {
    data: ForeignBox<B::Cache>,
    /// The volumes that have a `cache_priv`, and whether an access is held to keep their count of
    /// accesses above zero.
    ///
    /// A spinlock, because the last thing that happens to a cache may be that a volume leaves the
    /// list: unlocking a mutex may still touch it after somebody else could lock it.
    #[pin]
    volumes: SpinLock<RBTree<ListedVolume, bool>>,
    /// Signalled when one leaves the list.
    #[pin]
    detached: CondVar,
    /// The cookies that have a `cache_priv`, by their addresses.
    #[pin]
    cookies: SpinLock<RBTree<usize, ARef<Cookie>>>,
}

/// A volume's `cache_priv`. C reads it without a lock, to see whether it is null.
///
/// # Safety
///
/// The volume must be in a cache that is in service.
unsafe fn representation(volume: &Volume) -> &Atomic<*mut c_void> {
    // SAFETY: The volume is valid, and the member the backend's: only the functions here write to
    // it, in this way.
    unsafe { Atomic::from_ptr(core::ptr::addr_of_mut!((*volume.as_ptr()).cache_priv)) }
}

// What lockdep calls them. A lock's class is one for all backends, so its name has to be, too: what
// is written at its use would have an address of its own in each crate that has a backend.
static VOLUMES: &CStr = c"fscache::Cache::volumes";
static DETACHED: &CStr = c"fscache::Cache::detached";
static COOKIES: &CStr = c"fscache::Cache::cookies";
static HANDLE: &CStr = c"fscache::CacheHandle";

impl<B: Backend> Private<B> {
    fn new(data: B::Cache) -> Result<Pin<KBox<Self>>> {
        KBox::pin_init(
            try_pin_init!(Self {
                data: ForeignBox::new(data),
                volumes <- SpinLock::new(RBTree::new(), VOLUMES, static_lock_class!()),
                detached <- CondVar::new(DETACHED, static_lock_class!()),
                cookies <- SpinLock::new(RBTree::new(), COOKIES, static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    /// # Safety
    ///
    /// The volume must be in a cache that the backend `B` brought into service, and that cache stay
    /// there for `'a`.
    unsafe fn of<'a>(volume: &Volume) -> &'a Self {
        // SAFETY: A volume's cache is valid. `PreparedCache::register` has put this there, and it
        // is freed after the cache goes out of service.
        unsafe { &*(*volume.cache()).cache_priv.cast() }
    }

    /// Gets a volume's representation from the backend.
    ///
    /// # Safety
    ///
    /// The volume must have none and be in this cache, to which an access must be held; nobody else
    /// may get one for it meanwhile.
    unsafe fn acquire_volume(&self, volume: &Volume) -> Result {
        // INVARIANT: The thunk `free_volume` takes it off before the volume is freed.
        let node = RBTreeNode::new(ListedVolume::key(volume), true, GFP_KERNEL)?;
        let data = B::acquire_volume(self.data.borrow(), volume)?;
        // The access that is counted here is given up by `drain_volumes`.
        volume.pin();
        // A lookup in the volume that finds this does not wait for the end of this function.
        // SAFETY: The member is the backend's to fill, as the caller guarantees.
        unsafe { representation(volume) }.store(data.into_foreign(), Release);
        let _none = self.volumes.lock().insert(node);
        Ok(())
    }

    /// Gives a volume's representation back to the backend.
    ///
    /// # Safety
    ///
    /// The volume must have one, which nobody else takes, and nobody may use it.
    unsafe fn free_volume(volume: &Volume) {
        // SAFETY: The member is the backend's.
        let data = unsafe { representation(volume) }.xchg(core::ptr::null_mut(), Acquire);
        // SAFETY: As the caller guarantees, it is there, and this function's to take.
        B::free_volume(unsafe { B::Volume::from_foreign(data) }, volume);
    }

    /// Gives up the access that pins a volume to the caller, if there is one left.
    fn unpin_volume(&self) -> Option<VolumeRef> {
        let mut volumes = self.volumes.lock();
        for (attached, pinned) in volumes.iter_mut() {
            if core::mem::replace(pinned, false) {
                // SAFETY: It is on the list, which is locked.
                let volume = unsafe { attached.volume() }.try_get();
                // Of one that is being freed, nobody counts the accesses any more.
                if volume.is_some() {
                    return volume;
                }
            }
        }
        None
    }

    /// Waits until nobody has an access to any volume. None can be had anew.
    fn drain_volumes(&self) {
        while let Some(volume) = self.unpin_volume() {
            // SAFETY: The reference keeps it valid, and the pin is this function's to give up.
            unsafe { bindings::fscache_withdraw_volume(volume.as_ptr()) };
        }
    }

    /// Takes all volumes away from fscache.
    fn detach_volumes(&self) {
        let mut volumes = self.volumes.lock();
        while let Some(cursor) = volumes.cursor_front() {
            let (attached, _) = cursor.current();
            // SAFETY: It is on the list, which is locked.
            match unsafe { attached.volume() }.try_get() {
                Some(volume) => {
                    let node = volumes.remove_node(&ListedVolume::key(&volume));
                    drop(volumes);
                    // SAFETY: What is on the list has one; it is off the list now, and
                    // `drain_volumes` saw to the accesses.
                    unsafe { Self::free_volume(&volume) };
                    drop((node, volume));
                    volumes = self.volumes.lock();
                }
                // It is being freed: that takes it off the list.
                None => self.detached.wait(&mut volumes),
            }
        }
    }

    /// Gets a cookie's object from the backend. Returns whether there is one.
    ///
    /// # Safety
    ///
    /// The cookie must have none and be in this cache, in a volume that is represented and to which
    /// an access is held.
    unsafe fn look_up_cookie(&self, cookie: &Lookup<'_>) -> Result<bool> {
        // SAFETY: The cache stays in service while an access to the volume is held.
        let object_ref = unsafe { ObjectRef::new(cookie)? };
        let node = RBTreeNode::new(cookie.address(), ARef::from(&**cookie), GFP_KERNEL)?;
        // SAFETY: The member is the backend's.
        let volume = unsafe { representation(cookie.volume()) }.load(Acquire);
        // SAFETY: The volume has a representation, which is not taken away while somebody has an
        // access to the volume.
        let volume = unsafe { B::Volume::borrow(volume) };
        let Some(object) = B::lookup_cookie(volume, cookie)? else {
            return Ok(false);
        };
        let _none = self.cookies.lock().insert(node);
        // SAFETY: The member is the backend's to fill during the lookup.
        unsafe { (*cookie.as_ptr()).cache_priv = object_ref.attach::<B>(object) };
        Ok(true)
    }

    /// Gives a cookie's object back to the backend. The cache, and with it `this`, may go as soon
    /// as the cookie is off the list and its object not counted any more; that comes last.
    ///
    /// # Safety
    ///
    /// `this` must be valid, and the cookie be in its cache. It must have an object, which nobody
    /// else takes, and nobody may use it.
    unsafe fn withdraw_cookie(this: *const Self, cookie: &Cookie) {
        // SAFETY: As the caller guarantees, it is there, and this function's to take.
        let (object, object_ref) = unsafe {
            ObjectRef::detach::<B>(core::mem::replace(
                &mut (*cookie.as_ptr()).cache_priv,
                core::ptr::null_mut(),
            ))
        };
        B::withdraw_cookie(object, cookie);
        // SAFETY: The object is still counted.
        let node = unsafe { (*this).cookies.lock().remove_node(&cookie.address()) };
        // Not under the lock: dropping a reference may sleep. First the node, then what was in it.
        drop(node.map(RBTreeNode::to_key_value));
        drop(object_ref);
    }

    /// Starts to withdraw the first cookie with an object whose address is `from` or larger.
    /// Returns where to go on.
    fn withdraw_next(&self, from: usize) -> Option<usize> {
        let cookies = self.cookies.lock();
        let cursor = cookies.cursor_lower_bound(&from)?;
        let (address, cookie) = cursor.current();
        // Under the lock, so that the cookie keeps its object until it is told: otherwise it would
        // be the next object that is withdrawn, which another cache gave. This does not sleep, and
        // drops no last reference: the list has one.
        cookie.withdraw();
        Some(address + 1)
    }

    /// Starts to withdraw all cookies that have an object. None gets one anew.
    fn withdraw_cookies(&self) {
        let mut from = 0;
        while let Some(next) = self.withdraw_next(from) {
            from = next;
        }
    }
}

/// A reference to a module, which is not unloaded meanwhile.
///
/// # Invariants
///
/// Null, for what is built into the kernel, or a module to which this owns a reference.
struct ModuleRef(*mut bindings::module);

// SAFETY: A module is not tied to a task.
unsafe impl Send for ModuleRef {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl Sync for ModuleRef {}

impl ModuleRef {
    /// Takes a reference to `M`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the module is being unloaded.
    fn new<M: ModuleMetadata>() -> Result<Self> {
        let module = this_module::<M>().as_ptr();
        // SAFETY: This is a `THIS_MODULE`: null, or a module that is loaded, because there is code
        // of it that refers to it.
        if !unsafe { bindings::try_module_get(module) } {
            return Err(ENODEV);
        }
        // INVARIANT: Just taken.
        Ok(ModuleRef(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the invariant there is a reference to be given up, or the pointer is null.
        unsafe { bindings::module_put(self.0) };
    }
}

/// A cache, for those who find out that it cannot go on. It may be kept for as long as one likes:
/// it does not keep the cache, and does nothing once the name is given back.
#[derive(Clone)]
pub(crate) struct CacheHandle(Arc<Handle>);

/// # Invariants
///
/// What is in `cache` is valid for as long as it is there.
#[pin_data]
struct Handle {
    #[pin]
    cache: SpinLock<Option<CachePtr>>,
}

struct CachePtr(NonNull<bindings::fscache_cache>);

// SAFETY: A cache may be used by any task.
unsafe impl Send for CachePtr {}

impl CacheHandle {
    fn new() -> Result<Self> {
        let new = pin_init!(Handle {
            cache <- SpinLock::new(None, HANDLE, static_lock_class!()),
        });
        Ok(CacheHandle(Arc::pin_init(new, GFP_KERNEL)?))
    }

    /// Has fscache begin nothing more in the cache, because of an I/O error (`fscache_io_error()`).
    /// It says so in the log, and in `/proc/fs/fscache/caches`. The cache has still to be
    /// [withdrawn](Cache::withdraw). Nothing is done if it is not in service, or the second time.
    ///
    /// Does not sleep. Must not be called from an interrupt.
    pub(crate) fn io_error(&self) {
        if let Some(cache) = &*self.0.cache.lock() {
            // SAFETY: By the invariant it is valid: it stays there while this is locked.
            unsafe { bindings::fscache_io_error(cache.0.as_ptr()) };
        }
    }
}

/// A cache's name, taken, so that nobody else can bring a cache of that name into service.
/// Dropping it gives the name back.
///
/// # Invariants
///
/// The cache is valid, and this is what has to relinquish it. Until [`Self::register`] it is in the
/// state "preparing".
#[must_use = "dropping it gives the name back"]
pub(crate) struct PreparedCache(
    NonNull<bindings::fscache_cache>,
    CacheHandle,
    // Dropped when the cache is relinquished.
    Option<place::Apart>,
);

// SAFETY: A cache is not tied to a task.
unsafe impl Send for PreparedCache {}

impl PreparedCache {
    /// Takes a name (`fscache_acquire_cache()`). May sleep.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a cache of that name is in service, or getting ready for that.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     fscache::PreparedCache,
    ///     prelude::*, //
    /// };
    ///
    /// let prepared = PreparedCache::new(c"rust_doctest_name")?;
    /// assert_eq!(
    ///     PreparedCache::new(c"rust_doctest_name").err(),
    ///     Some(EBUSY)
    /// );
    /// drop(prepared);
    /// # Ok::<(), Error>(())
    /// ```
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        place::begin_for_all(name);
        Self::acquire(name, None).inspect_err(|_| place::end_for_all())
    }

    fn acquire(name: &CStr, apart: Option<place::Apart>) -> Result<Self> {
        let handle = CacheHandle::new()?;
        // SAFETY: The name is terminated.
        let ptr = unsafe { bindings::fscache_acquire_cache(name.as_char_ptr()) };
        let cache = NonNull::new(from_err_ptr(ptr)?).ok_or(ENOMEM)?;
        // INVARIANT: The function returns such a cache, or an error. The drop of this takes it out
        // of the handle before it is relinquished.
        *handle.0.cache.lock() = Some(CachePtr(cache));
        Ok(PreparedCache(cache, handle, apart))
    }

    /// As [`Self::new`], for a cache that is given to nobody who does not name it: neither those
    /// who are there already, nor those who come later. From the first such call on the record that
    /// they get is kept, until [`release_default`](super::release_default) or until it is not
    /// needed.
    ///
    /// # Errors
    ///
    /// As for [`Self::new`]; `ENOMEM`.
    pub(crate) fn new_apart(name: &CStr) -> Result<Self> {
        let apart = place::Apart::new(name)?;
        Self::acquire(name, Some(apart))
    }

    /// Something to stop the cache with, which what is given to [`Self::register`] may keep.
    pub(crate) fn handle(&self) -> CacheHandle {
        self.1.clone()
    }

    /// Brings the cache into service (`fscache_add_cache()`): the backend is called from here on,
    /// and its [module](Backend::OwnerModule) stays loaded. May sleep.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the module is being unloaded, `ENOMEM`; then `data` is dropped, and the name is
    /// given back.
    pub(crate) fn register<B: CacheIo>(self, data: B::Cache) -> Result<Cache<B>> {
        let module = ModuleRef::new::<B::OwnerModule>()?;
        let private = Private::<B>::new(data)?;
        let private_ptr: *const Private<B> = &*private;
        // SAFETY: The cache is in the state "preparing". The operations live for as long as the
        // module, which `module` keeps until the cache is relinquished, `private` until the cache
        // is out of service.
        to_result(unsafe {
            bindings::fscache_add_cache(
                self.0.as_ptr(),
                &VTable::<B>::VTABLE,
                private_ptr.cast_mut().cast(),
            )
        })?;
        // INVARIANT: Just done.
        Ok(Cache {
            withdrawn: false,
            ptr: self,
            private,
            _module: module,
        })
    }
}

impl Drop for PreparedCache {
    fn drop(&mut self) {
        // Nobody uses it by the handle from here on.
        *self.1 .0.cache.lock() = None;
        // SAFETY: By the invariant it is this value's to relinquish. Nobody uses it: it is not in
        // service yet, or not any more.
        unsafe { bindings::fscache_relinquish_cache(self.0.as_ptr()) };
        if self.2.is_none() {
            place::end_for_all();
        }
    }
}

/// A cache in service.
///
/// Dropping it takes it out of service, as [`Self::withdraw`] does, and gives the name back.
/// fscache does not hold the backend's module, so this does: while a cache is in service, or if it
/// is never dropped, the module cannot be unloaded. It has to be dropped by something that holds
/// the module itself while it does that, as the release of an open file does, not when the module
/// exits, which would not come to be. As with backends in C, what is left to be done after the drop
/// by those who were waited for is to return, through a few instructions of the module.
///
/// # Invariants
///
/// Unless `withdrawn`, the cache is in service, with `private` as its data.
#[must_use = "dropping it takes the cache out of service"]
pub(crate) struct Cache<B: CacheIo> {
    withdrawn: bool,
    // The order of these members matters: the cache is relinquished, which makes fscache forget
    // `private` and the operations, before the one is freed, and the other may be.
    ptr: PreparedCache,
    private: Pin<KBox<Private<B>>>,
    _module: ModuleRef,
}

impl<B: CacheIo> Cache<B> {
    /// The name that the cache has in fscache.
    pub(crate) fn name(&self) -> &CStr {
        // SAFETY: The cache is valid for as long as `self`. It was given a name when it was
        // acquired, which ends with a NUL, does not change and goes with the cache.
        unsafe { CStr::from_char_ptr((*self.ptr.0.as_ptr()).name) }
    }

    /// Takes the cache out of service: takes all objects and volumes away from fscache and gives
    /// them back to the backend. Nothing is done the second time.
    ///
    /// Sleeps until lookups and operations that are under way have ended, so the backend must have
    /// seen to it that they do. Must not be called from the backend's functions, which it waits
    /// for.
    pub(crate) fn withdraw(&mut self) {
        if core::mem::replace(&mut self.withdrawn, true) {
            return;
        }
        // SAFETY: By the invariant the cache is in service; it is withdrawn once.
        unsafe { bindings::fscache_withdraw_cache(self.ptr.0.as_ptr()) };
        self.private.drain_volumes();
        self.private.withdraw_cookies();
        // SAFETY: The cache is valid, and the caller may sleep.
        unsafe { bindings::fscache_wait_for_objects(self.ptr.0.as_ptr()) };
        self.private.detach_volumes();
    }
}

impl<B: CacheIo> Drop for Cache<B> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

struct VTable<B: CacheIo>(PhantomData<B>);

impl<B: CacheIo> VTable<B> {
    /// # Safety
    ///
    /// - `volume` must be valid, without a `cache_priv`, in a cache that the backend `B` brought
    ///   into service and to which an access is held.
    /// - Calls for one volume must not overlap.
    unsafe extern "C" fn acquire_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Volume::from_raw(volume) };
        // SAFETY: The access keeps the cache in service.
        let private = unsafe { Private::<B>::of(this) };
        if this.key().starts_with(place::PREFIX) {
            return;
        }
        // A volume without a representation is not cached.
        // SAFETY: As the caller guarantees.
        let _ = unsafe { private.acquire_volume(this) };
    }

    /// # Safety
    ///
    /// `volume` must be valid, with a `cache_priv` from `acquire_volume`, and nobody may have a
    /// reference to it.
    unsafe extern "C" fn free_volume(volume: *mut bindings::fscache_volume) {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Volume::from_raw(volume) };
        // SAFETY: The cache stays in service until the list is empty.
        let private = unsafe { Private::<B>::of(this) };
        // SAFETY: As the caller guarantees, so that `detach_volumes` cannot get a reference any
        // more; and who has no reference has no access.
        unsafe { Private::<B>::free_volume(this) };
        // Once the volume is off the list, the cache may go; so that comes last.
        let mut volumes = private.volumes.lock();
        volumes.remove(&ListedVolume::key(this));
        private.detached.notify_all();
        drop(volumes);
    }

    /// # Safety
    ///
    /// `cookie` must be valid, in the state "looking up" and without a `cache_priv`, in a volume
    /// with one that `acquire_volume` gave it; accesses to both must be held.
    unsafe extern "C" fn lookup_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: As the caller guarantees. It is looked up until this function returns.
        let lookup = unsafe { Lookup::new(Cookie::from_raw(cookie)) };
        // SAFETY: The access to the volume keeps the cache in service.
        let private = unsafe { Private::<B>::of(lookup.volume()) };
        // SAFETY: As the caller guarantees.
        let found = unsafe { private.look_up_cookie(&lookup) };
        let found = found.unwrap_or_else(|e| {
            lookup.fail(e);
            false
        });
        if !found {
            // SAFETY: The cookie is valid, and this is called by its state machine.
            unsafe { bindings::fscache_caching_failed(cookie) };
        }
        found
    }

    /// # Safety
    ///
    /// `cookie` must be valid, with a `cache_priv` from `lookup_cookie`, and no operation on it may
    /// be under way. Whoever counts an access to it meanwhile must not use it before its state has
    /// changed.
    unsafe extern "C" fn withdraw_cookie(cookie: *mut bindings::fscache_cookie) {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: The cache stays in service while it counts the object.
        let private: *const _ = unsafe { Private::<B>::of(this.volume()) };
        // SAFETY: As the caller guarantees.
        unsafe { Private::<B>::withdraw_cookie(private, this) };
    }

    /// # Safety
    ///
    /// `cookie` must be valid, in the state "invalidating", with a `cache_priv` from
    /// `lookup_cookie`, and an access to it must be held.
    unsafe extern "C" fn invalidate_cookie(cookie: *mut bindings::fscache_cookie) -> bool {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: As the caller guarantees; the access keeps the object.
        let object = unsafe { this.object::<B>() };
        let Some(old) = object.and_then(|object| B::invalidate_cookie(object, this)) else {
            this.withdraw();
            return false;
        };
        // SAFETY: The cookie is being invalidated.
        unsafe { bindings::fscache_resume_after_invalidation(cookie) };
        // Nobody waits for this: to delete a file may take long.
        drop(old);
        true
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

    /// # Safety
    ///
    /// `res` must be of an operation on a cookie of the backend `B` that is under way.
    unsafe extern "C" fn resize_cookie(res: *mut bindings::netfs_cache_resources, size: i64) {
        // SAFETY: As the caller guarantees; the operation has an access to the cookie.
        let this = unsafe { Cookie::from_raw((*res).cache_priv.cast()) };
        // SAFETY: As the caller guarantees; the access keeps the object.
        if let Some(object) = unsafe { this.object::<B>() } {
            // SAFETY: This is the function.
            B::resize_cookie(object, this, unsafe { Resize::new(this, size) });
        }
    }

    /// # Safety
    ///
    /// `cookie` must be valid, in the state "active", with a `cache_priv` from `lookup_cookie`, and
    /// not be withdrawn during the call.
    unsafe extern "C" fn prepare_to_write(cookie: *mut bindings::fscache_cookie) {
        // SAFETY: As the caller guarantees.
        let this = unsafe { Cookie::from_raw(cookie) };
        // SAFETY: As the caller guarantees.
        if let Some(object) = unsafe { this.object::<B>() } {
            B::prepare_to_write(object, this);
        }
    }

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
