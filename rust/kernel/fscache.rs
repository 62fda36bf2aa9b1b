// SPDX-License-Identifier: GPL-2.0

//! The cache side of fscache: volumes and cookies, and how a backend is called.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/caching/backend-api.html>
//!
//! A backend implements [`Backend`] and brings a [`Cache`] into service. fscache then asks it for
//! a volume's and a cookie's representation and keeps them, until it gives them back to be freed:
//!
//! | called | gives or takes | held meanwhile |
//! |---|---|---|
//! | [`Backend::acquire_volume`] | gives `B::Volume` | an access to the cache |
//! | [`Backend::lookup_cookie`] | gives `B::Object` | accesses to the volume and the cookie |
//! | [`Backend::withdraw_cookie`] | takes `B::Object` | no operation on the cookie is under way |
//! | [`Backend::free_volume`] | takes `B::Volume` | nobody else has an access to the volume |
//!
//! All are called in process context and may sleep. Of one cookie's calls, those that give, take
//! and invalidate never overlap; operations begin and read at any time between. While a cookie is
//! withdrawn, somebody who is about to begin an operation may count an access to it, but waits for
//! the end of the withdrawal before it looks at the object.
//!
//! # Examples
//!
//! A cache in which nothing is found.
//!
//! ```
//! use kernel::{
//!     fscache::{
//!         Backend,
//!         Cookie,
//!         Lookup,
//!         PreparedCache,
//!         Resize,
//!         Volume, //
//!     },
//!     netfs::{
//!         CacheIo,
//!         CacheRead,
//!         ReadSource,
//!         ReadSubrequest, //
//!     },
//!     prelude::*, //
//! };
//!
//! struct Empty;
//!
//! #[vtable]
//! impl Backend for Empty {
//!     type Cache = KBox<u32>;
//!     type Volume = KBox<u32>;
//!     type Object = KBox<u32>;
//!     type Old = ();
//!
//!     const NAME: &'static CStr = c"empty";
//!
//!     fn acquire_volume(_cache: &u32, volume: &Volume) -> Result<KBox<u32>> {
//!         pr_info!("volume {:x}\n", volume.debug_id());
//!         Ok(KBox::new(volume.debug_id(), GFP_KERNEL)?)
//!     }
//!
//!     fn free_volume(_data: KBox<u32>, volume: &Volume) {
//!         pr_info!("volume {:x} is gone\n", volume.debug_id());
//!     }
//!
//!     fn lookup_cookie(_volume: &u32, _cookie: &Lookup<'_>) -> Result<Option<KBox<u32>>> {
//!         Err(ENOENT)
//!     }
//!
//!     fn withdraw_cookie(_object: KBox<u32>, _cookie: &Cookie) {}
//!
//!     fn invalidate_cookie(_object: &u32, _cookie: &Cookie) -> Option<()> {
//!         None
//!     }
//!
//!     fn resize_cookie(_object: &u32, _cookie: &Cookie, _resize: Resize<'_>) {}
//!
//!     fn prepare_to_write(_object: &u32, _cookie: &Cookie) {}
//! }
//!
//! impl CacheIo for Empty {
//!     type Reader = ();
//!
//!     const WRITE_ERROR: Error = ENOBUFS;
//!
//!     fn prepare_read(_object: &u32, _subreq: ReadSubrequest<'_>) -> ReadSource {
//!         ReadSource::Server
//!     }
//!
//!     fn reader(_object: &u32) {}
//!
//!     fn read(_reader: (), _pos: i64, read: CacheRead) {
//!         read.fail(EIO);
//!     }
//! }
//!
//! let prepared = PreparedCache::new(c"rust_doctest_empty")?;
//! let cache = prepared.register::<Empty>(KBox::new(0, GFP_KERNEL)?)?;
//! // Network file systems may use it from here on, and no longer from here:
//! drop(cache);
//! # Ok::<(), Error>(())
//! ```

mod cache;
mod cookie;
mod object;
mod place;
pub(crate) mod stats;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;
pub(crate) mod trace;
mod volume;

pub(crate) use self::{
    cache::{
        Cache,
        CacheHandle,
        PreparedCache, //
    },
    cookie::{
        Cookie,
        Lookup,
        Resize, //
    },
    place::release_default,
    volume::Volume, //
};

pub(in crate::kernel_next) use self::object::ObjectRef;

use crate::kernel_next::compat::ModuleMetadata;
use kernel::{
    prelude::*,
    types::ForeignOwnable, //
};

/// The most bytes that the coherency data of a volume or the auxiliary data of a cookie can have.
pub(crate) const DATA_MAX: usize = 255;

/// A cache backend (`struct fscache_cache_ops`).
///
/// See the [module's description](self) for when each function is called.
#[vtable]
pub(crate) trait Backend: Sized + 'static {
    /// The module that a cache in service keeps loaded.
    type OwnerModule: ModuleMetadata;

    /// What a cache is to the backend.
    type Cache: ForeignOwnable + Send + Sync;
    /// What a volume is to the backend.
    type Volume: ForeignOwnable + Send + Sync;
    /// What a cookie is to the backend.
    type Object: ForeignOwnable + Send + Sync;

    /// The name of the backend.
    const NAME: &'static CStr;

    /// Represents a volume in the cache.
    ///
    /// # Errors
    ///
    /// On any, nothing of the volume is cached, until it is tried again for the lookup of a
    /// cookie.
    fn acquire_volume(
        cache: <Self::Cache as ForeignOwnable>::Borrowed<'_>,
        volume: &Volume,
    ) -> Result<Self::Volume>;

    /// Ends the representation of a volume.
    fn free_volume(data: Self::Volume, volume: &Volume);

    /// Finds or makes a cookie's object.
    ///
    /// Runs in a worker that all caches and network file systems share. Where somebody has to be
    /// asked who may take his time, the lookup is to be [put off](Lookup::put_off): then, unless
    /// the answer comes while it may still be waited for, there is no object this time.
    ///
    /// # Errors
    ///
    /// On any, nothing of the cookie is cached until it is looked up again. A cookie that
    /// [wants its size](Cookie::wants_cache_size) from the cache gets the error number instead.
    fn lookup_cookie(
        volume: <Self::Volume as ForeignOwnable>::Borrowed<'_>,
        cookie: &Lookup<'_>,
    ) -> Result<Option<Self::Object>>;

    /// Ends the representation of a cookie.
    fn withdraw_cookie(object: Self::Object, cookie: &Cookie);

    /// What is left of an object's data when it was thrown away.
    type Old;

    /// Throws away what is cached of a cookie. Operations on it wait, but for those that began
    /// before.
    ///
    /// If caching can go on with the object, returns what it had until now, which is dropped when
    /// the operations go on: that may take long. If not, the object is withdrawn.
    fn invalidate_cookie(
        object: <Self::Object as ForeignOwnable>::Borrowed<'_>,
        cookie: &Cookie,
    ) -> Option<Self::Old>;

    /// Changes the size of an object, as the network file system has changed that of the file.
    /// May sleep. The cookie is not withdrawn meanwhile. The file is locked against writes.
    fn resize_cookie(
        object: <Self::Object as ForeignOwnable>::Borrowed<'_>,
        cookie: &Cookie,
        resize: Resize<'_>,
    );

    /// Gets ready for changes by the network file system, which has opened the file for writing.
    /// May sleep. The cookie is not withdrawn meanwhile.
    fn prepare_to_write(object: <Self::Object as ForeignOwnable>::Borrowed<'_>, cookie: &Cookie);
}

/// Copies data that C code may be changing: then the result is some mixture, as it is for C code
/// that copies it.
///
/// # Safety
///
/// The `len` bytes at `from` must be valid for reading.
unsafe fn copy_shared(from: *const u8, len: u8, buf: &mut [u8; DATA_MAX]) -> &[u8] {
    // PANIC: The length of the array is the largest value of the type.
    let buf = &mut buf[..usize::from(len)];
    for (i, byte) in buf.iter_mut().enumerate() {
        // SAFETY: As the caller guarantees; volatile, because others may write meanwhile.
        *byte = unsafe { from.add(i).read_volatile() };
    }
    buf
}
