// SPDX-License-Identifier: GPL-2.0

//! The cache side of fscache: volumes and cookies, and how a backend is called.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)
//!
//! Reference: <https://docs.kernel.org/filesystems/caching/backend-api.html>
//!
//! A backend implements [`Backend`] and brings a [`Cache`] into service. fscache then asks it for a
//! volume's and a cookie's representation and keeps them, until it gives them back to be freed:
//!
//! | called | gives or takes | held meanwhile |
//! |---|---|---|
//! | [`Backend::acquire_volume`] | gives `B::Volume` | an access to the cache |
//! | [`Backend::lookup_cookie`] | gives `B::Object` | accesses to the volume and the cookie |
//! | [`Backend::withdraw_cookie`] | takes `B::Object` | nobody has an access to the cookie |
//! | [`Backend::free_volume`] | takes `B::Volume` | nobody has an access to the volume |
//!
//! All four are called in process context and may sleep; a cookie's calls never overlap.

mod cache;
mod cookie;
pub(crate) mod stats;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;
mod volume;

pub(crate) use self::{
    cache::{
        Cache,
        ObjectCount,
        PreparedCache, //
    },
    cookie::{
        Cookie,
        Lookup, //
    },
    volume::Volume, //
};

use kernel::{
    fs::File,
    prelude::*,
    sync::aref::ARef,
    types::ForeignOwnable, //
};

/// A cache backend (`struct fscache_cache_ops`).
pub(crate) trait Backend: Sized + 'static {
    /// What a cache is to the backend.
    type Cache: ForeignOwnable + Send + Sync;
    /// What a volume is to the backend.
    type Volume: ForeignOwnable + Send + Sync;
    /// What a cookie is to the backend.
    type Object: ForeignOwnable + Send + Sync;

    /// The name of the backend.
    const NAME: &'static CStr;

    /// Represents a volume in the cache. On an error, nothing of the volume is cached.
    fn acquire_volume(
        cache: <Self::Cache as ForeignOwnable>::Borrowed<'_>,
        volume: &Volume,
    ) -> Result<Self::Volume>;

    /// Ends the representation of a volume.
    fn free_volume(data: Self::Volume, volume: &Volume);

    /// Finds or makes a cookie's object. On an error, nothing of the cookie is cached until it is
    /// looked up again.
    fn lookup_cookie(
        volume: <Self::Volume as ForeignOwnable>::Borrowed<'_>,
        cookie: &Lookup<'_>,
    ) -> Result<Self::Object>;

    /// Ends the representation of a cookie.
    fn withdraw_cookie(object: Self::Object, cookie: &Cookie);

    /// Throws away what is cached of a cookie. Returns whether caching can go on; if not, the
    /// object is withdrawn.
    fn invalidate_cookie(
        object: <Self::Object as ForeignOwnable>::Borrowed<'_>,
        cookie: &Cookie,
    ) -> bool;

    /// The file that an operation on a cookie goes to, if there is one.
    fn file(object: <Self::Object as ForeignOwnable>::Borrowed<'_>) -> Option<ARef<File>>;
}
