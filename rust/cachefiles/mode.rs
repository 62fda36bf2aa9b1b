// SPDX-License-Identifier: GPL-2.0

//! Modes: who fills a cache.
//!
//! Caches, volumes and attachments are generic over the mode. A mode decides who is asked for the
//! size of an object, and what an object has besides its file. How data is read and written is up
//! to the implementation of [`CacheIo`](crate::kernel_next::netfs::CacheIo) for that mode, in
//! `interface.rs`.

use crate::{
    backing::Backing,
    kernel_next::fscache::{
        CacheHandle,
        Cookie,
        Lookup, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What is to become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It is kept. Its attribute says what it is for.
    Keep,
    /// It is kept, and its attribute written anew.
    Describe,
    /// It is removed.
    Discard,
}

/// A mode that a cache can be bound in. A cache has a value of this type.
pub(crate) trait Mode: Sized + Send + Sync + 'static {
    /// What an object has besides its file.
    type Object: Send + Sync;

    /// The file of an object, or the files that it has one after the other.
    type Files: Send + Sync;

    /// Whether a file that is found may be longer or shorter than it should be, and is made as long
    /// as that. Otherwise it is not used.
    const ADJUSTS_FILES: bool;

    /// Whether what is absent from a file that is kept is to be a hole.
    const PUNCHES_HOLES: bool;

    /// Whether what files hold is written down, and they get their names, while their objects are
    /// in use.
    const COMMITS_EARLY: bool;

    /// Whether the cache is one for network file systems that name none.
    const IS_FOR_ALL: bool;

    /// Gets an object, of at most `max` bytes, before its file is looked for. `None` if the lookup
    /// was put off. To be ended with [`Self::detach`].
    ///
    /// # Errors
    ///
    /// What the lookup fails with.
    fn open(&self, cookie: &Lookup<'_>, max: u64) -> Result<Option<Self::Object>>;

    /// The size of an object in bytes.
    fn size(object: &Self::Object, cookie: &Cookie) -> u64;

    /// Which version of the object it is, beside what the network file system says of that; may be
    /// empty.
    fn version(object: &Self::Object) -> &[u8];

    /// The lookup is over: `backing` exists. Its file was found, or may still have to be made.
    /// `None` if the object is not wanted any more.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    fn attach(
        object: &Self::Object,
        cookie: &Lookup<'_>,
        backing: Arc<Backing>,
    ) -> Result<Option<Self::Files>>;

    /// The [`Backing`] of the object's file; in classic mode, of the one that it has now.
    fn backing(files: &Self::Files) -> Arc<Backing>;

    /// What is to become of the file: asked once, as the object is withdrawn.
    fn leave(&self, files: &Self::Files, cookie: &Cookie) -> Leave;

    /// Whether the data was invalidated, so that the file must not be kept.
    fn is_outdated(files: &Self::Files, cookie: &Cookie) -> bool;

    /// Whether what is written down of an object is to be on the disk at once, and not with the
    /// file system's next commit.
    fn is_durable(&self) -> bool;

    /// The lookup has failed, or the cookie is withdrawn: no reads are under way, and no writes but
    /// those of a daemon. May sleep, but waits for no daemon.
    fn detach(object: &Self::Object);

    /// A file that has a name is not in use any more. It takes up so many units of 512 bytes.
    fn released(&self, sectors: u64);

    /// Before the cache comes into service: `handle` tells fscache that the cache is dead.
    fn set_handle(&self, handle: CacheHandle);

    /// Something could not be found, made or written in the cache: does what [`Self::kill`] does,
    /// if the cache `is_broken`.
    fn io_error(&self, is_broken: impl FnOnce() -> bool);

    /// Marks the cache dead: what waits for a daemon fails, and nothing waits for one from here on.
    fn kill(&self);

    /// Waits for work that was queued. No more is queued, as the cache is out of service.
    fn flush(&self);
}
