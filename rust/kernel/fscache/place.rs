// SPDX-License-Identifier: GPL-2.0

//! Which cache a network file system gets that names none.
//!
//! It gets a record without a name, if there is one, or the oldest record that has a name, or a new
//! one without. The next cache that comes into service under a name that is not known yet takes a
//! record without a name over, and all who wait there. A record is there for as long as a cache or
//! a volume has it.
//!
//! A cache that is of no use to them has to see to it that none of this leads to it. For that,
//! volumes are acquired that nobody uses: one keeps a record without a name, or the oldest with
//! one; another makes a record of the cache's own name before the cache is acquired.

use crate::bindings;
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::from_err_ptr,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Relaxed,
            Release, //
        },
        Atomic, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// What the keys of the volumes here begin with. They are in no cache.
pub(super) const PREFIX: &[u8] = b"cachefiles,place";

const DEFAULT: &CStr = c"cachefiles,place,default";
const OWN: &CStr = c"cachefiles,place,own";

/// The volume that keeps the record for those who name no cache: its address, or 0.
static KEPT: Atomic<usize> = Atomic::new(0);

/// How many caches are in service that are given to nobody who does not name them.
static SERVED: Atomic<i32> = Atomic::new(0);

/// The places of such caches that have gone while there were mounts of them, so that there still is
/// a record of each: the addresses of their volumes, or 0.
static LEFT: [Atomic<usize>; 16] = [const { Atomic::new(0) }; 16];

/// Whether there were more of these.
static LEFT_MORE: Atomic<i32> = Atomic::new(0);

/// A volume that nobody uses, which keeps the record of a cache.
///
/// # Invariants
///
/// The volume is valid, and this is what has to relinquish it.
pub(super) struct Place(NonNull<bindings::fscache_volume>);

impl Place {
    /// # Errors
    ///
    /// `EBUSY` if there is such a volume already, `ENOMEM`.
    fn new(key: &CStr, cache: Option<&CStr>) -> Result<Self> {
        let cache = cache.map_or(core::ptr::null(), |name| name.as_char_ptr());
        // SAFETY: The key is terminated, the name is null or terminated, and there is no coherency
        // data.
        let volume = unsafe {
            bindings::__fscache_acquire_volume(key.as_char_ptr(), cache, core::ptr::null(), 0)
        };
        // INVARIANT: The function returns a reference, or an error.
        NonNull::new(from_err_ptr(volume)?).map(Place).ok_or(ENOMEM)
    }

    /// Keeps the record of a cache of this name.
    pub(super) fn of(name: &CStr) -> Result<Self> {
        Place::new(OWN, Some(name))
    }

    fn cache(&self) -> *const bindings::fscache_cache {
        // SAFETY: By the invariant the volume is valid; it keeps its cache, which does not change.
        unsafe { (*self.0.as_ptr()).cache }
    }

    /// Whether nobody else has the record.
    fn is_alone(&self) -> bool {
        // SAFETY: The volume keeps its cache, whose count is a C atomic type.
        let refs = unsafe {
            Atomic::<c_int>::from_ptr((&raw const (*self.cache()).ref_.refs.counter).cast_mut())
        };
        refs.load(Relaxed) == 1
    }

    /// Whether the record has a name, and no cache of that name is in service.
    fn is_left(&self) -> bool {
        let cache = self.cache();
        // SAFETY: The volume keeps its cache. Both members may change meanwhile, so each is read
        // once; the name is only asked whether there is one.
        unsafe {
            !(&raw const (*cache).name).read_volatile().is_null()
                && (&raw const (*cache).state).read_volatile()
                    == bindings::fscache_cache_state_FSCACHE_CACHE_IS_NOT_PRESENT
        }
    }

    /// Whether the record has this name.
    fn is_named(&self, name: &CStr) -> bool {
        // SAFETY: The volume keeps its cache. The member may change from null to a name, once.
        let found = unsafe { (&raw const (*self.cache()).name).read_volatile() };
        // SAFETY: A name is terminated, does not change, and is freed with the record.
        !found.is_null() && unsafe { CStr::from_char_ptr(found) } == name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: By the invariant. There is no coherency data.
        unsafe { bindings::__fscache_relinquish_volume(self.0.as_ptr(), core::ptr::null(), false) };
    }
}

/// Takes a place out of where [`put`] has put it.
fn take(slot: &Atomic<usize>) -> Option<Place> {
    // Acquire: what was made before it was put there is used.
    let volume = NonNull::new(slot.xchg(0, Acquire) as *mut bindings::fscache_volume)?;
    // INVARIANT: `put` has put it there, and left it to this.
    Some(Place(volume))
}

/// Puts a place where there is none. Gives it back if there is one.
fn put(slot: &Atomic<usize>, place: Place) -> Option<Place> {
    let place = ManuallyDrop::new(place);
    match slot.cmpxchg(0, place.0.as_ptr().addr(), Release) {
        Ok(_) => None,
        Err(_) => Some(ManuallyDrop::into_inner(place)),
    }
}

/// Notes that a cache has gone of which there are mounts.
fn leave(place: Place) {
    let left = LEFT
        .iter()
        .try_fold(place, |place, slot| match put(slot, place) {
            Some(place) => Ok(place),
            None => Err(()),
        });
    if left.is_ok() {
        LEFT_MORE.store(1, Relaxed);
    }
}

/// Lets go of those of which there are no mounts any more. Returns whether others are left.
fn sweep() -> bool {
    let mut is_left = LEFT_MORE.load(Relaxed) != 0;
    for slot in &LEFT {
        if let Some(place) = take(slot).filter(|place| !place.is_alone()) {
            is_left = true;
            let _none = put(slot, place);
        }
    }
    is_left
}

/// What was noted of the cache of this name, taken out.
fn take_left(name: &CStr) -> Option<Place> {
    LEFT.iter().find_map(|slot| {
        let place = take(slot)?;
        match place.is_named(name) {
            true => Some(place),
            false => {
                let _none = put(slot, place);
                None
            }
        }
    })
}

/// Does not keep the record of a cache that has gone, unless there are caches that others would be
/// given then.
fn tidy() {
    if SERVED.load(Relaxed) == 0 && !sweep() {
        if let Some(kept) = take(&KEPT).filter(|kept| !kept.is_left()) {
            let _none = put(&KEPT, kept);
        }
    }
}

/// A cache that is given to nobody who does not name it.
pub(super) struct Apart {
    /// With a record of its name, the cache does not take over that of another. Taken when this is
    /// dropped.
    own: Option<Place>,
}

impl Apart {
    /// Before the cache is acquired: keeps the record that those get who name none, until
    /// [`release_default`], or until nobody would get this one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EBUSY` if there is such a cache of that name.
    pub(super) fn new(name: &CStr) -> Result<Self> {
        let own = match take_left(name) {
            Some(own) => own,
            None => Place::of(name)?,
        };
        let own = match own.is_alone() {
            // It is older than this, and may be the first: what is kept must not go.
            false => own,
            true => {
                drop(own);
                keep()?;
                Place::of(name)?
            }
        };
        SERVED.add(1, Relaxed);
        Ok(Apart { own: Some(own) })
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // If mounts have it, it stays in the list.
        if let Some(own) = self.own.take().filter(|own| !own.is_alone()) {
            leave(own);
        }
        SERVED.fetch_sub(1, Relaxed);
        tidy();
    }
}

/// Keeps the record that those get who name no cache: one without a name, or the oldest.
fn keep() -> Result {
    loop {
        if let Some(kept) = take(&KEPT).filter(|kept| !kept.is_left()) {
            let _none = put(&KEPT, kept);
            return Ok(());
        }
        match Place::new(DEFAULT, None) {
            Ok(place) => {
                let _none = put(&KEPT, place);
                return Ok(());
            }
            // Another task has taken it out, and puts it back, or drops it, in a moment.
            Err(e) if e == EBUSY && !kernel::current!().signal_pending() => {
                fsleep(Delta::from_millis(1))
            }
            Err(e) => return Err(e),
        }
    }
}

/// Before a cache of this name is acquired for all: does not keep the record of another one that
/// has gone, so that this one gets those who name none.
pub(super) fn begin_for_all(name: &CStr) {
    let kept = take(&KEPT).filter(|kept| !kept.is_left() || kept.is_named(name));
    if let Some(kept) = kept {
        let _none = put(&KEPT, kept);
    }
}

/// A cache that was for all has gone, or could not be acquired.
pub(super) fn end_for_all() {
    tidy();
    if SERVED.load(Relaxed) != 0 && KEPT.load(Acquire) == 0 {
        // Without memory, those who name no cache may get one that is of no use to them.
        let _ = keep();
    }
}

/// Lets go of what [`PreparedCache::new_apart`](super::PreparedCache::new_apart) has kept. To be
/// called when the module exits.
pub(crate) fn release_default() {
    drop(take(&KEPT));
    for slot in &LEFT {
        drop(take(slot));
    }
}
