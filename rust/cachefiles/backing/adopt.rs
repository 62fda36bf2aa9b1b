// SPDX-License-Identifier: GPL-2.0

//! Taking over a file that was left from another time.

use super::{
    leaf,
    list::Claim,
    Backing, //
};
use crate::{
    disk::{
        list::decode,
        presence,
        xattr::{
            binding,
            content_of,
            Content, //
        }, //
    },
    inject,
    kernel_next::fs::kernel_file::{
        KernelFile,
        Seek, //
    },
    protocol::BLOCK_SIZE,
    trace::files::Where, //
};
use core::{
    cell::Cell,
    ops::Range, //
};
use kernel::prelude::*;

impl Backing {
    /// Takes over what the existing file holds: what its main attribute, which has `value`, says of
    /// it, as far as the file system has it, too. Corrects what the disk says if that is too much,
    /// or is left to the file system to say, as by the C code. The caller has the cache's
    /// credentials, and no other task uses this yet.
    ///
    /// Returns whether the file can be used: not if what the disk says cannot be corrected.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the file system's error from seeking.
    pub(crate) fn adopt(&self, value: &mut [u8]) -> Result<bool> {
        let file = self.file().ok_or(EIO)?;
        // Twice if something was corrected: that changes the ctime, so that a change by others at
        // the same time would go unnoticed.
        for _ in 0..2 {
            self.reset(file)?;
            let is_cut = Cell::new(false);
            let (claim, is_true) = self.find(file, value, &is_cut)?;
            *self.claim.lock() = claim;
            if is_true {
                let mut blocks = self.blocks.lock();
                // All of it is on the disk.
                let _ = blocks.take_changes();
                blocks.set_appended_to(matches!(claim, Claim::File { .. }));
                if is_cut.get() {
                    // What was left out becomes a hole if the file is kept.
                    blocks.require_new_list();
                }
                return Ok(true);
            }
            if let Err(e) = self.correct(value) {
                kdebug!(
                    "cookie {:x}: cannot write its list: {:?}\n",
                    self.debug_id(),
                    e
                );
                break;
            }
        }
        Ok(false)
    }

    /// Whether maps take too much memory for more to be taken over.
    fn is_map_too_large(&self, is_cut: &Cell<bool>) -> bool {
        let is_too_large = self.shared.limits_maps && leaf::are_too_many();
        is_cut.set(is_cut.get() || is_too_large);
        is_too_large
    }

    /// Marks as present what the file holds. Returns what the disk says of it, and whether that is
    /// just this. `is_cut` becomes true if something was left out, because maps take too much
    /// memory: that does not make a list untrue.
    fn find(&self, file: &KernelFile, value: &[u8], is_cut: &Cell<bool>) -> Result<(Claim, bool)> {
        let blocks = presence::blocks(self.size());
        match content_of(value) {
            Content::All => {
                let is_there = self.find_run(file, 0..blocks, is_cut)?;
                // What was left out becomes a hole: all of it is not claimed any more.
                return Ok((Claim::All, is_there && !is_cut.get()));
            }
            Content::Listed => {}
            _ => {
                self.find_run(file, 0..blocks, is_cut)?;
                return Ok((Claim::Nothing, false));
            }
        }
        let is_true = Cell::new(true);
        let is_inside = |run: &Range<u64>| {
            let is_inside = run.end <= blocks;
            is_true.set(is_true.get() && is_inside);
            is_inside
        };
        let (claim, makes_sense) = self.read_list(
            file,
            binding(value),
            |runs| {
                for run in decode(runs).take_while(is_inside) {
                    let is_there = self.find_run(file, run, is_cut)?;
                    is_true.set(is_true.get() && is_there);
                }
                Ok(())
            },
            |runs| {
                // The file system is asked when they are read: there may be very many.
                decode(runs)
                    .take_while(is_inside)
                    .take_while(|_| !self.is_map_too_large(is_cut))
                    .try_for_each(|run| {
                        self.update(run, |map, run, spare| Ok(map.listed(run, spare)))
                    })
            },
        )?;
        Ok((claim, makes_sense && is_true.get()))
    }

    /// Marks as present the blocks of a run that are data to the file system. Returns whether all
    /// are that it looked at: see [`Self::find`].
    fn find_run(&self, file: &KernelFile, run: Range<u64>, is_cut: &Cell<bool>) -> Result<bool> {
        // Sizes are those of files, and fit.
        let (mut at, end) = (
            (run.start * BLOCK_SIZE) as i64,
            (run.end * BLOCK_SIZE) as i64,
        );
        let failed = |e: &Error| self.trace_io_error(file, *e, Where::Seek);
        let mut left = run.end - run.start;
        while at < end {
            if self.is_map_too_large(is_cut) {
                return Ok(true);
            }
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
                Ok(map.add_verified(blocks, spare))
            })?;
            left -= last - first;
            at = hole;
        }
        Ok(left == 0)
    }

    /// Has the disk say what was found.
    fn correct(&self, value: &mut [u8]) -> Result {
        let mut claim = self.claim.lock();
        let is_complete = self.blocks.lock().is_complete();
        let encode = |range, changes: Option<&_>, buf: &mut [u8]| {
            self.blocks.lock().encode(range, changes, buf)
        };
        let list = self.encode_list(&claim, is_complete, None, encode)?;
        self.store(&mut claim, list, value, false)
    }
}
