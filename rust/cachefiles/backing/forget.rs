// SPDX-License-Identifier: GPL-2.0

//! Forgetting what was lost, so that it is fetched again.

use super::{
    list::Claim,
    Backing, //
};
use crate::{
    kernel_next::{
        cred::with_cred,
        fs::kernel_file::KernelFile, //
    },
    plan::blocks::Unverified, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::{
        atomic::ordering::{
            Relaxed,
            Release, //
        },
        MutexGuard, //
    }, //
};

impl Backing {
    /// Forgets `lost`, blocks of `unverified` that the file system does not have any more, so that
    /// they are fetched again. Returns whether it did: not if that takes a write to the file
    /// system, and the caller has not `may_write`.
    ///
    /// # Errors
    ///
    /// `EIO` if the object is withdrawn; `ENOMEM`; the file system's error from writing down what
    /// is present, or from restoring the file's length. Nothing is forgotten then.
    pub(super) fn forget(
        &self,
        file: &KernelFile,
        unverified: &Unverified,
        lost: Range<u64>,
        may_write: bool,
    ) -> Result<bool> {
        let Some(_claim) = self.prepare_to_forget(file, may_write)? else {
            return Ok(false);
        };
        self.update(lost.clone(), |map, lost, spare| {
            match self.is_withdrawn() {
                false => Ok(map.forget(unverified, lost, spare)),
                // The map that was taken out has them.
                true => Err(EIO),
            }
        })?;
        kdebug!(
            "cookie {:x}: blocks {:x} to {:x} were lost, and are asked for again\n",
            self.debug_id(),
            lost.start,
            lost.end
        );
        Ok(true)
    }

    /// Forgets all unverified blocks, so that they are fetched again: data could not be written
    /// back. Does nothing if another task did that since `losses` was sampled.
    ///
    /// # Errors
    ///
    /// As for [`Self::forget`], whose return value it has. Only for a reader: while there is one,
    /// the object is not withdrawn.
    pub(crate) fn forget_unverified(
        &self,
        file: &KernelFile,
        losses: u32,
        may_write: bool,
    ) -> Result<bool> {
        let Some(_claim) = self.prepare_to_forget(file, may_write)? else {
            return Ok(false);
        };
        let all = self.all_blocks()?;
        let mut blocks = self.blocks.lock();
        if self.losses() != losses {
            return Ok(true);
        }
        // Clears the error and forgets the blocks under one lock: no reader finds the error gone
        // and the blocks still present.
        let mut since = self.errors_since.load(Relaxed);
        let _forgotten = file.check_and_advance_write_errors(&mut since);
        self.errors_since.store(since, Release);
        let old = blocks.forget_unverified(all);
        // After the errors are cleared: no error of a write that samples the new value was among
        // them.
        self.losses.store(losses.wrapping_add(1), Release);
        drop(blocks);
        drop(old);
        kdebug!(
            "cookie {:x}: data could not be written, and is asked for again\n",
            self.debug_id()
        );
        Ok(true)
    }

    /// Has the disk say no more than what is known to be there, and restores the file's length.
    /// What is forgotten while the lock that is returned is held is in nothing that is written down
    /// later. `None` if something is to be done for which the caller has to wait, and has not
    /// `may_write`.
    fn prepare_to_forget(
        &self,
        file: &KernelFile,
        may_write: bool,
    ) -> Result<Option<MutexGuard<'_, Claim>>> {
        // Without `may_write`, the caller must not wait for what holds locks of the file system.
        let claim = match may_write {
            true => Some(self.claim.lock()),
            false => self.claim.try_lock(),
        };
        let Some(mut claim) = claim else {
            return Ok(None);
        };
        self.is_modified.store(1, Relaxed);
        if self.is_withdrawn() {
            return Err(EIO);
        }
        // Once: another program may truncate the file at any time.
        let is_cut_off = self.is_cut_off(file);
        let has_claim = !matches!(*claim, Claim::Nothing);
        if !may_write && (is_cut_off || has_claim) {
            return Ok(None);
        }
        with_cred(&self.shared.cred, || {
            if is_cut_off {
                self.set_size(file)?;
            }
            match has_claim {
                true => self.reduce_claim(&mut claim, file),
                false => Ok(()),
            }
        })?;
        Ok(Some(claim))
    }
}
