// SPDX-License-Identifier: GPL-2.0

//! Changes of the size of an object, in classic mode.

use super::{
    leaf::{
        Parts,
        Use, //
    },
    Backing,
    MAX_SIZE, //
};
use crate::{
    disk::presence,
    inject,
    protocol::BLOCK_SIZE,
    trace::files::{
        self,
        Trunc,
        Where, //
    }, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::ordering::{
        Acquire,
        Relaxed,
        Release, //
    }, //
};

/// The size that an object has had at some moment.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// In bytes.
    size: u64,
    /// [`Backing::resizes`], from before the size was taken.
    resizes: u32,
}

impl Backing {
    /// Changes the size of the object to `size` bytes, but not that of the file. Blocks that are
    /// new are not present. `making` is locked, so that no file is made, which begins with a map
    /// for the size that the object has.
    fn resize(&self, size: u64) -> Result {
        if size > MAX_SIZE {
            return Err(EFBIG);
        }
        if self.file().is_some() {
            let blocks = presence::blocks(size);
            let parts = presence::parts(blocks);
            // As a rule it is one of as many parts.
            let mut new = match parts == presence::parts(presence::blocks(self.size())) {
                true => (Parts::none(), Parts::none()),
                false => (Parts::new(parts)?, Parts::new(parts)?),
            };
            let mut spare = None;
            self.is_modified.store(1, Relaxed);
            while !self.blocks.lock().resize(blocks, &mut new, &mut spare) {
                // One of the two maps may have its new size by now.
                let leaf = self.new_leaf(Use::Other).inspect_err(|_| self.retire());
                spare = Some(leaf?);
            }
        }
        self.size.store(size, Relaxed);
        self.note_resize();
        Ok(())
    }

    /// Makes the object `size` bytes large, unless it is larger, and returns the size that it has
    /// then. The file grows when it is written to. `is_kept`: whether the last block keeps what it
    /// has, which is not about to be written to. The caller has the cache's credentials. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EFBIG` if it would be larger than [`MAX_SIZE`]: the size is what it was.
    pub(crate) fn grow(&self, size: u64, is_kept: impl FnOnce(u64) -> bool) -> Result<Extent> {
        let extent = self.extent();
        if size <= extent.size {
            return Ok(extent);
        }
        let _making = self.making.lock();
        let end = self.size();
        if size <= end {
            return Ok(self.extent());
        }
        self.note_resize();
        let last = end / BLOCK_SIZE;
        if end % BLOCK_SIZE != 0 && is_kept(last) {
            // Behind the end there may be anything that somebody has put there who has mapped the
            // file of the network file system.
            self.zero_tail(end)?;
        }
        self.resize(size)?;
        Ok(self.extent())
    }

    /// The size changes now, or has just changed. Whoever stores a block at the same time either
    /// records it before that block is looked at here, or finds that this has gone up.
    fn note_resize(&self) {
        // Under `making`. Release: whoever sees the new count also sees the size that was stored
        // before it.
        let resizes = self.resizes.load(Relaxed).wrapping_add(1);
        self.resizes.store(resizes, Release);
    }

    fn extent(&self) -> Extent {
        let resizes = self.resizes.load(Acquire);
        Extent {
            size: self.size(),
            resizes,
        }
    }

    /// Makes the object `size` bytes large, if it is larger (`cachefiles_shorten_object()`). What
    /// is behind the end in the last block is zeros then. The caller has the cache's credentials.
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the file system's error. Then it is not known what the file holds.
    pub(crate) fn shorten(&self, size: u64) -> Result {
        let _making = self.making.lock();
        if size >= self.size() {
            return Ok(());
        }
        self.note_resize();
        self.resize(size)?;
        match self.file() {
            Some(file) => {
                // CAST: Sizes are those of files.
                let (from, to) = (file.inode().size(), self.file_size() as i64);
                files::trunc(&self.trace, file.inode(), from, to, Trunc::Shrink);
                inject::remove()
                    .and_then(|()| self.set_size(file))
                    .inspect_err(|e| self.trace_io_error(file, *e, Where::Trunc))?;
            }
            None => return Ok(()),
        }
        self.zero_tail(size)
    }

    /// Has what is behind `end`, in bytes, in the last block be zeros, if that is present.
    fn zero_tail(&self, end: u64) -> Result {
        let last = end / BLOCK_SIZE;
        if end % BLOCK_SIZE == 0 || self.find_block(last, last + 1, true) != last {
            return Ok(());
        }
        // CAST: Positions are those of files.
        let tail = end as i64..((last + 1) * BLOCK_SIZE) as i64;
        let zeroed = self.file().is_some_and(|file| {
            files::trunc(
                &self.trace,
                file.inode(),
                tail.end,
                tail.start,
                Trunc::DioAdjust,
            );
            inject::write()
                .and_then(|()| file.zero_range(tail))
                .inspect_err(|e| self.trace_io_error(file, *e, Where::Fallocate))
                .is_ok()
        });
        match zeroed {
            true => Ok(()),
            // Not every file system can.
            false => self.discard(last..last + 1),
        }
    }

    /// Those of `blocks` that are the same for an object that had the size `extent` when they were
    /// written, and has perhaps another since. The lock of `blocks` is held.
    pub(super) fn within(&self, extent: Extent, blocks: Range<u64>) -> Range<u64> {
        let end = match self.resizes.load(Relaxed) == extent.resizes {
            true => blocks.end,
            false => blocks.end.min(extent.size.min(self.size()) / BLOCK_SIZE),
        };
        blocks.start..end.max(blocks.start)
    }
}
