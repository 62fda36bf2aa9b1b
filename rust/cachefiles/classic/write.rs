// SPDX-License-Identifier: GPL-2.0

//! Storing what the network file system has read from its server, or writes to it.
//!
//! Blocks that are written to are absent meanwhile: a read that comes between a write and its
//! failure must not find parts of both.

use super::{
    cache::Classic,
    files::File, //
};
use crate::{
    backing::Extent,
    cache::Cache,
    disk::presence::blocks,
    inject,
    kernel_next::{
        compat::{
            ENOBUFS,
            ESTALE, //
        },
        cred::with_cred,
        fs::kernel_file::KernelFile,
        fscache::{
            stats,
            Cookie, //
        },
        netfs::{
            CacheWrite,
            WriteEnd,
            WriteSubrequest, //
        }, //
    },
    mode::Mode,
    plan::source::{
        align,
        range_to_store,
        touched,
        Aligned, //
    },
    protocol::BLOCK_SIZE,
    space::{
        Reservation,
        SpaceFor, //
    },
    trace::files::{
        self,
        Where, //
    }, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// What is needed to write to an object. It is dropped before the write is told to have ended: then
/// the object may go, and with it the cache and the module.
pub(crate) struct Writer {
    pub(crate) cache: Arc<Cache<Classic>>,
    pub(crate) file: Arc<File>,
}

impl Writer {
    /// Stores a part of a write-back, or of what was read from the server
    /// (`cachefiles_issue_write()`): whole blocks of it. What is left out counts as written.
    pub(crate) fn store_subrequest(self, mut subreq: WriteSubrequest) {
        match self.align(&mut subreq) {
            Ok(Some(extent)) => self.write(subreq.into_write(), extent),
            Ok(None) => {
                stats::count_dio_misfit();
                drop(self);
                let len = subreq.len();
                subreq.done(len);
            }
            Err(e) => {
                drop(self);
                subreq.fail(e);
            }
        }
    }

    /// Stores what is in whole blocks already.
    pub(crate) fn store(self, write: CacheWrite) {
        match self.check(&write) {
            Ok(extent) => self.write(write, extent),
            Err(e) => {
                drop(self);
                write.fail(e);
            }
        }
    }

    /// Makes whole blocks of what is to be stored; `None` if there is none in it.
    fn align(&self, subreq: &mut WriteSubrequest) -> Result<Option<Extent>> {
        let start = u64::try_from(subreq.start()).map_err(|_| EINVAL)?;
        let len = subreq.len() as u64;
        // Blocks that are left out as well: the cache has older data in them than the write.
        let range = start..start.saturating_add(len);
        let size = subreq.file_size();
        let extent = self.prepare(range, size, subreq.is_current(), subreq.cookie())?;
        let Some(Aligned { skip, len, extend }) = align(start, len, subreq.extendable() as u64)
        else {
            return Ok(None);
        };
        // CAST: Less than a block each.
        subreq.skip_head(skip as usize);
        subreq.extend_tail(extend as usize)?;
        // CAST: No more than there is.
        subreq.cut_tail(subreq.len() - len as usize);
        Ok(Some(extent))
    }

    fn check(&self, write: &CacheWrite) -> Result<Extent> {
        let start = u64::try_from(write.start()).map_err(|_| EINVAL)?;
        let len = write.len() as u64;
        let range = start..start.saturating_add(len);
        // `prepare_range()` was given the size of the file, and has made the object as large as it
        // has to be. `write` is in whole blocks, so it may end behind that size: the object is made
        // larger only if it has fewer blocks than are written.
        let size = self.file.backing.size();
        let size = match blocks(range.end) > blocks(size) {
            true => range.end,
            false => size,
        };
        let extent = self.prepare(range, size, write.is_current(), write.cookie())?;
        if start % BLOCK_SIZE != 0 || len % BLOCK_SIZE != 0 {
            stats::count_dio_misfit();
            return Err(ENOBUFS);
        }
        Ok(extent)
    }

    /// The whole blocks that a write of `range`, in bytes, is to be of; there is space for them.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if it begins within a block, or has more than `max` bytes, or if there is no
    /// space; `ENOMEM`, `EFBIG`; the file system's error. Then the network file system writes it to
    /// its server only.
    pub(crate) fn prepare_range(
        &self,
        range: Range<i64>,
        max: usize,
        file_size: i64,
    ) -> Result<Range<i64>> {
        self.whole_blocks(&range, max, file_size)
            .inspect_err(|_| self.is_not_stored(range.clone()))
    }

    fn whole_blocks(&self, range: &Range<i64>, max: usize, file_size: i64) -> Result<Range<i64>> {
        let whole = range_to_store(range.clone(), max).ok_or_else(|| {
            stats::count_dio_misfit();
            ENOBUFS
        })?;
        // CAST: A range is not negative.
        let len = (whole.end - whole.start) as u64;
        self.cache.space().check(0, len, SpaceFor::Write)?;
        // CAST: They are not negative.
        let size = range.end.min(file_size).max(0) as u64;
        let blocks = touched(range.start as u64, len);
        with_cred(self.cache.cred(), || {
            self.file.backing.grow(size, |last| !blocks.contains(&last))
        })?;
        Ok(whole)
    }

    /// The cache has older data in `range`, in bytes, than was to be stored: makes its blocks
    /// absent.
    fn is_not_stored(&self, range: Range<i64>) {
        let (start, end) = (range.start.max(0), range.end.max(0));
        // CAST: They are not negative.
        let blocks = touched(start as u64, end.saturating_sub(start) as u64);
        if self.file.backing.discard(blocks).is_err() {
            self.file.backing.retire();
        }
    }

    /// Prepares for a write to `range`, in bytes, of which what is at or behind `size` is not of
    /// the object: makes the blocks absent, marks the file dirty if the write is a local one, and
    /// makes the object larger if need be. If one of the first two fails, the object is given up.
    ///
    /// `is_current`: whether the cookie was not invalidated since the I/O began. Returns the size
    /// that the object has then.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the data is not valid any more; `ENOBUFS` if the file is given up already, or
    /// there is no cookie; `ENOMEM`, `EFBIG`; the file system's.
    fn prepare(
        &self,
        range: Range<u64>,
        size: u64,
        is_current: bool,
        cookie: Option<&Cookie>,
    ) -> Result<Extent> {
        // `writer()` took the file from the object before `is_current` was read. So if there was an
        // invalidation since the I/O began, either `is_current` is false, or `self.file` is the
        // file from before it, and a write to that file does no harm.
        if !is_current {
            return Err(ESTALE);
        }
        let (cookie, backing) = (cookie.ok_or(ENOBUFS)?, &self.file.backing);
        if backing.is_retired() {
            return Err(ENOBUFS);
        }
        let blocks = touched(range.start, range.end - range.start);
        let discarded = backing.discard(blocks.clone());
        let marked = discarded.and_then(|()| match cookie.is_local_write() {
            true => self.file.mark_dirty(&self.cache, cookie),
            false => Ok(()),
        });
        marked.inspect_err(|e| {
            kdebug!("cookie {:x}: given up: {:?}\n", cookie.debug_id(), e);
            // The file still has the older data.
            backing.retire();
            cookie.withdraw();
        })?;
        with_cred(self.cache.cred(), || {
            backing.grow(range.end.min(size), |last| !blocks.contains(&last))
        })
    }

    /// Writes whole blocks.
    fn write(self, write: CacheWrite, extent: Extent) {
        let ready = with_cred(self.cache.cred(), || self.ready(write.len() as u64));
        let (file, reservation) = match ready {
            Ok(ready) => ready,
            Err(e) => {
                drop(self);
                return write.fail(e);
            }
        };
        // CAST: Was checked not to be negative.
        let first = write.start() as u64 / BLOCK_SIZE;
        let hold = self.cache.mode().queue().hold();
        let backing = &self.file.backing;
        let losses = backing.losses();
        files::write(backing.trace(), file.inode(), write.start(), write.len());
        let stored = move |end: WriteEnd, written: Result<usize>| {
            drop(reservation);
            match written {
                Ok(len) => {
                    let blocks = first..first + len as u64 / BLOCK_SIZE;
                    // Blocks that are not recorded are fetched again.
                    let _ = self.file.backing.mark_stored(blocks, extent, losses);
                    if let Some(cookie) = end.cookie() {
                        cookie.set_have_data();
                    }
                }
                Err(e) => {
                    // There is a file, as it was written to.
                    if let Some(file) = self.file.backing.file() {
                        self.file.backing.trace_io_error(file, e, Where::Write);
                    }
                }
            }
            // Before netfs is told that the I/O has ended: until then fscache keeps the object, and
            // with it the cache. Whoever drops the cache waits for its queue, on which this may
            // run.
            drop(self);
            match written {
                Ok(len) => end.done(len),
                Err(e) => end.fail(e),
            }
        };
        write.write_direct(&file, hold, stored);
    }

    /// The file to write to, and space for so many bytes.
    fn ready(&self, len: u64) -> Result<(KernelFile, Reservation)> {
        let reservation = self.cache.space().reserve(len)?;
        let file = self.file.backing.file_to_write().inspect_err(|e| {
            self.cache
                .mode()
                .io_error(|| self.cache.probe_after_error(*e))
        })?;
        inject::write()
            .inspect_err(|e| self.file.backing.trace_io_error(file, *e, Where::Write))?;
        Ok((file.clone(), reservation))
    }
}
