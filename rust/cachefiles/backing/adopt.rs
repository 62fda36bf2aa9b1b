// SPDX-License-Identifier: GPL-2.0

//! Taking over a file that was left from another time.

use super::{
    list::{
        self,
        List, //
    },
    Backing, //
};
use crate::{
    disk::{
        list::decode,
        presence,
        xattr::{
            set_needs_list,
            VALUE_MAX,
            XATTR_NAME, //
        }, //
    },
    inject,
    kernel_next::fs::{
        kernel_file::{
            KernelFile,
            Seek, //
        },
        xattr, //
    },
    protocol::BLOCK_SIZE,
    trace::files::Where, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

impl Backing {
    /// Takes over what the existing file holds: the blocks that both its list and the file system
    /// have. `needs_list`: whether a file without a list holds nothing; if not, the C code has left
    /// it. The caller has the cache's credentials, and no other task uses this yet.
    ///
    /// Returns whether the file can be used: not if its list names blocks that the file system does
    /// not have, and cannot be corrected.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the file system's error from seeking.
    pub(crate) fn adopt(&self, mut needs_list: bool) -> Result<bool> {
        let file = self.file().ok_or(EIO)?;
        // Twice if the list was corrected: that changes the ctime, so that a change by others at
        // the same time would go unnoticed.
        for _ in 0..2 {
            self.reset(file)?;
            let says_too_much = self.find(file, needs_list)?;
            if needs_list && !says_too_much {
                self.has_list.store(1, Relaxed);
                return Ok(true);
            }
            if let Err(e) = self.correct(file, needs_list) {
                kdebug!(
                    "cookie {:x}: cannot write its list: {:?}\n",
                    self.debug_id(),
                    e
                );
                break;
            }
            needs_list = true;
        }
        Ok(false)
    }

    /// Marks as present what the file holds. Returns whether its list has to be written anew.
    fn find(&self, file: &KernelFile, needs_list: bool) -> Result<bool> {
        let blocks = presence::blocks(self.size());
        let mut buf = list::buffer()?;
        match list::read(file.path(), &mut buf) {
            List::Read(len) => {
                let mut is_whole = true;
                for run in decode(buf.get(..len).unwrap_or_default()) {
                    if run.end > blocks {
                        return Ok(true);
                    }
                    is_whole &= self.find_run(file, run)?;
                }
                Ok(!is_whole)
            }
            List::Missing if needs_list => Ok(true),
            List::Missing => self.find_run(file, 0..blocks).map(|_| true),
            List::Unreadable => Ok(true),
        }
    }

    /// Marks as present the blocks of a run that are data to the file system. Returns whether all
    /// are.
    fn find_run(&self, file: &KernelFile, run: Range<u64>) -> Result<bool> {
        // Sizes are those of files, and fit.
        let (mut at, end) = (
            (run.start * BLOCK_SIZE) as i64,
            (run.end * BLOCK_SIZE) as i64,
        );
        let failed = |e: &Error| self.trace_io_error(file, *e, Where::Seek);
        let mut left = run.end - run.start;
        while at < end {
            let data = match inject::read().and_then(|()| file.seek(at, Seek::Data)) {
                Ok(data) if data < end => data,
                Ok(_) => break,
                Err(e) if e == ENXIO => break,
                Err(e) => return Err(e).inspect_err(failed),
            };
            let hole = file.seek(data, Seek::Hole).inspect_err(failed)?.min(end);
            if hole <= data {
                return Err(EIO);
            }
            // Offsets are not negative.
            let (first, last) = ((data as u64).div_ceil(BLOCK_SIZE), hole as u64 / BLOCK_SIZE);
            let last = last.max(first);
            self.update(first..last, |map, blocks, spare| {
                Ok(map.found(blocks, spare))
            })?;
            left -= last - first;
            at = hole;
        }
        Ok(left == 0)
    }

    /// Writes the list of the file anew, with the blocks that were found, and has the file's
    /// attribute say that it needs a list.
    fn correct(&self, file: &KernelFile, needs_list: bool) -> Result {
        let access = self.space.mount().want_write()?;
        list::write(file.path(), &access, |buf| self.encode(buf))?;
        if needs_list {
            return Ok(());
        }
        let mut buf = [0; VALUE_MAX];
        let len = xattr::get(file.path(), XATTR_NAME, &mut buf)?;
        let value = buf.get_mut(..len).unwrap_or_default();
        set_needs_list(value);
        xattr::set(file.path(), XATTR_NAME, value, &access)
    }
}
