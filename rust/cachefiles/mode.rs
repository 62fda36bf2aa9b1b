// SPDX-License-Identifier: GPL-2.0

//! Modes: who fills a cache.
//!
//! Caches, volumes and attachments are generic over the mode. A mode decides who is asked for the
//! size of an object, and what an object has besides its file. How data is read is up to the
//! implementation of [`CacheIo`](crate::kernel_next::netfs::CacheIo) for that mode.
//!
//! A second mode needs:
//!
//! - an implementation of [`Mode`];
//! - an implementation of `CacheIo` for its backend, in `interface.rs`. That trait has no write
//!   operation yet;
//! - in `daemon.rs`, an enum over the `Service` and the `Cache` of each mode;
//! - an arm in `Daemon::bind`.

use crate::{
    backing::Backing,
    kernel_next::fscache::Lookup, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A mode that a cache can be bound in. A cache has a value of this type.
pub(crate) trait Mode: Sized + Send + Sync + 'static {
    /// What an object has besides its file.
    type Object: Send + Sync;

    /// Gets an object, of at most `max` bytes, before its file is looked for. `None` if the lookup
    /// was put off. To be ended with [`Self::detach`].
    ///
    /// # Errors
    ///
    /// What the lookup fails with.
    fn open(&self, cookie: &Lookup<'_>, max: u64) -> Result<Option<Self::Object>>;

    /// The size of an object in bytes.
    fn size(object: &Self::Object) -> u64;

    /// Which version of the object it is, beside what the network file system says of that; may be
    /// empty.
    fn version(object: &Self::Object) -> &[u8];

    /// The lookup is over: `backing` exists; its file may still have to be made.
    fn attach(object: &Self::Object, backing: &Arc<Backing>);

    /// The lookup has failed, or the cookie is withdrawn: no reads are under way, and no writes but
    /// those of a daemon. May sleep, but waits for no daemon.
    fn detach(object: &Self::Object);

    /// Something could not be found, made or written in the cache: does what [`Self::kill`] does,
    /// if the cache `is_broken`.
    fn io_error(&self, is_broken: impl FnOnce() -> bool);

    /// Marks the cache dead: what waits for a daemon fails, and nothing waits for one from here on.
    fn kill(&self);

    /// Waits for work that was queued. No more is queued, as the cache is out of service.
    fn flush(&self);
}
