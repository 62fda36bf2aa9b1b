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
            set_listed,
            VALUE_MAX,
            XATTR_NAME, //
        }, //
    },
    kernel_next::fs::{
        kernel_file::{
            KernelFile,
            Seek, //
        },
        xattr, //
    },
    protocol::BLOCK_SIZE, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

impl Backing {
    /// Takes over what the file that was found holds: what both its list and the file system know
    /// of. `is_listed` is whether the file counts as empty without a list; one without that the C
    /// implementation has left. The caller has the cache's credentials, and nobody else uses this
    /// yet.
    ///
    /// Returns whether the file can be used: not if it has a list that says too much and cannot be
    /// corrected.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; what seeking says.
    pub(crate) fn adopt(&self, mut is_listed: bool) -> Result<bool> {
        let file = self.file().ok_or(EIO)?;
        // Once more after it was corrected: that changes the inode, and hides if others do.
        for _ in 0..2 {
            self.reset(file)?;
            let says_too_much = self.find(file, is_listed)?;
            if is_listed && !says_too_much {
                self.has_list.store(1, Relaxed);
                return Ok(true);
            }
            if let Err(e) = self.correct(file, is_listed) {
                kdebug!(
                    "cookie {:x}: cannot write its list: {:?}\n",
                    self.debug_id,
                    e
                );
                break;
            }
            is_listed = true;
        }
        Ok(false)
    }

    /// Finds what the file holds. Returns whether its list says too much.
    fn find(&self, file: &KernelFile, is_listed: bool) -> Result<bool> {
        let blocks = presence::blocks(self.size);
        let mut buf = list::buffer()?;
        match list::read(self.space.mount(), file.dentry(), &mut buf) {
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
            List::Missing if is_listed => Ok(true),
            List::Missing => self.find_run(file, 0..blocks).map(|_| true),
            List::Unreadable => Ok(true),
        }
    }

    /// Finds which blocks of a run are data to the file system. Returns whether all are.
    fn find_run(&self, file: &KernelFile, run: Range<u64>) -> Result<bool> {
        // Sizes are those of files, and fit.
        let (mut at, end) = (
            (run.start * BLOCK_SIZE) as i64,
            (run.end * BLOCK_SIZE) as i64,
        );
        let mut left = run.end - run.start;
        while at < end {
            let data = match file.seek(at, Seek::Data) {
                Ok(data) if data < end => data,
                Ok(_) => break,
                Err(e) if e == ENXIO => break,
                Err(e) => return Err(e),
            };
            let hole = file.seek(data, Seek::Hole)?.min(end);
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

    /// Has the list of the file say what was found, and the file count as empty without it.
    fn correct(&self, file: &KernelFile, is_listed: bool) -> Result {
        let access = self.space.mount().want_write()?;
        list::write(file.dentry(), &access, |buf| self.encode(buf))?;
        if is_listed {
            return Ok(());
        }
        let mut buf = [0; VALUE_MAX];
        let len = xattr::get(self.space.mount(), file.dentry(), XATTR_NAME, &mut buf)?;
        let value = buf.get_mut(..len).unwrap_or_default();
        set_listed(value);
        xattr::set(file.dentry(), XATTR_NAME, value, &access)
    }
}
