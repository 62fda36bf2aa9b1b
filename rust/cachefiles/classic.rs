// SPDX-License-Identifier: GPL-2.0

//! Classic mode: a network file system fills the cache.
//!
//! Whoever has a file open asks the cache first where to read from, and stores what comes from the
//! server, and what it writes to the server. To refuse is always safe: then the server is asked.
//! What is refused, or fails, leaves its blocks absent.
//!
//! # Locks
//!
//! `File::making_dirty` is outer to the file system's locks. The lock of `Files::current` is a
//! spinlock under which nothing is done but to copy or replace a reference. Neither is taken under
//! any other lock of the driver. The order of all locks is in `cachefiles-rust-internals.rst`,
//! "Locks".

mod cache;
mod files;
mod read;
mod released;
mod write;

pub(crate) use self::{
    cache::Classic,
    files::{
        File,
        Files, //
    },
    read::{
        prepare_read,
        Reader, //
    },
    write::Writer, //
};

use crate::{
    backing::Backing,
    cache::Cache,
    kernel_next::{
        cred::with_cred,
        fscache::{
            CacheHandle,
            Cookie,
            Lookup, //
        }, //
    },
    mode::{
        Leave,
        Mode, //
    },
    protocol::state::{
        Line,
        State, //
    },
    space::SpaceFor, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserSliceWriter, //
};

impl Mode for Classic {
    /// An object has nothing besides its files.
    type Object = ();
    type Files = Arc<Files>;

    /// A file is as long as its object was when it was made, and grows when it is written to.
    const ADJUSTS_FILES: bool = true;

    /// A block is written again when the network file system writes to it, and is absent if that
    /// fails. To the C implementation it must not be what it was.
    const PUNCHES_HOLES: bool = true;

    /// fscache does not tell what was read and is stored from what was written locally, which is
    /// not to be kept before the server has it: both are announced as local writes.
    const COMMITS_EARLY: bool = false;

    const IS_FOR_ALL: bool = true;

    /// A cookie that wants its size from the cache is refused: nobody here knows it.
    fn open(&self, cookie: &Lookup<'_>, max: u64) -> Result<Option<()>> {
        if cookie.wants_cache_size() {
            kernel::do_once_lite! {
                cf_warn!("A file system that asks the cache for sizes needs an on-demand cache; \
                          its files are not cached\n")
            }
            return Err(EINVAL);
        }
        match u64::try_from(cookie.object_size()) {
            Ok(size) if size <= max => Ok(Some(())),
            _ => Err(EFBIG),
        }
    }

    fn size(_object: &(), cookie: &Cookie) -> u64 {
        cookie.object_size().max(0).unsigned_abs()
    }

    /// The auxiliary data says all.
    fn version(_object: &()) -> &[u8] {
        &[]
    }

    fn attach(
        _object: &(),
        cookie: &Lookup<'_>,
        backing: Arc<Backing>,
    ) -> Result<Option<Arc<Files>>> {
        cookie.found(backing.file().is_some());
        Files::new(backing, cookie).map(Some)
    }

    fn backing(files: &Arc<Files>) -> Arc<Backing> {
        files.current().backing.clone()
    }

    fn leave(&self, files: &Arc<Files>, cookie: &Cookie) -> Leave {
        let file = files.current();
        // `FSCACHE_COOKIE_LOCAL_WRITE`: the network file system has changed data, or is going to.
        // If tasks still use the cookie, they may go on writing when the object is gone; if the
        // cache is dead, what they wrote may be on the server only. Either way this file may lack
        // writes: it is removed. The flag is left set, because the file may still be open.
        let bypasses = cookie.is_local_write() && (cookie.is_in_use() || self.is_dead());
        if bypasses || file.is_outdated(cookie) {
            return Leave::Discard;
        }
        let changes = [
            cookie.take_local_write(),
            cookie.take_needs_update(),
            file.is_dirty(),
        ];
        match changes.contains(&true) {
            true => Leave::Describe,
            false => Leave::Keep,
        }
    }

    fn is_outdated(files: &Arc<Files>, cookie: &Cookie) -> bool {
        files.current().is_outdated(cookie)
    }

    /// The server has it all.
    fn is_durable(&self) -> bool {
        false
    }

    fn detach(_object: &()) {}

    fn released(&self, sectors: u64) {
        self.released.count(sectors);
    }

    fn set_handle(&self, handle: CacheHandle) {
        self.handle.populate(handle);
    }

    fn io_error(&self, is_broken: impl FnOnce() -> bool) {
        if !self.is_dead() && is_broken() {
            self.kill();
            if let Some(handle) = self.handle.as_ref() {
                handle.io_error();
            }
        }
    }

    fn kill(&self) {
        self.set_dead();
    }

    /// All writes have ended when no object is left.
    fn flush(&self) {}
}

/// Tells the daemon the state of the cache (`cachefiles_do_daemon_read()`). Returns how many bytes
/// that is.
///
/// # Errors
///
/// `EMSGSIZE` if the buffer is too small, `EFAULT`; then it is told the same next time.
pub(crate) fn read_state(cache: &Cache<Classic>, mut buf: UserSliceWriter) -> Result<usize> {
    let (space, released) = (cache.space(), &cache.mode().released);
    let _ = with_cred(cache.cred(), || space.check(0, 0, SpaceFor::Check));
    let (counts, culling) = (released.counts(), space.is_culling());
    let (files, blocks) = space.thresholds();
    let line = Line::new(&State {
        culling,
        files: [files.run, files.cull, files.stop],
        blocks: [blocks.run, blocks.cull, blocks.stop],
        files_released: counts.files,
        sectors_released: counts.sectors,
    });
    let line = line.as_bytes();
    if line.len() > buf.len() {
        return Err(EMSGSIZE);
    }
    buf.write_slice(line)?;
    released.told(counts, culling);
    Ok(line.len())
}
