// SPDX-License-Identifier: GPL-2.0

//! What is known of an object's blocks: which were written, and which of those may be lost.
//!
//! A block that was written is *unverified* until it has been seen on the disk. Not every file
//! system reports every page that it could not write back: it drops the page, and there is a hole.
//! So before an unverified block is read, the file system is asked for holes; what is found on the
//! disk is verified, and is read from then on without asking.
//!
//! Others may punch holes, too. That changes the inode's ctime. If it is not the one that was
//! recorded, every block is unverified again.
//!
//! The file system is asked without the lock, so its answer may be out of date when it comes.
//! [`Unverified`] has the state of the map before the question: an answer counts only if blocks
//! were neither forgotten nor unverified by others since.

use super::changed::Changed;
use crate::disk::presence::{
    Part,
    Presence,
    LEAF_BLOCKS, //
};
use core::{
    mem::replace,
    ops::{
        DerefMut,
        Range, //
    }, //
};

/// How many blocks ahead of a read may be verified at once: keeps the work under the lock short.
const AHEAD: u64 = 16 * LEAF_BLOCKS;

/// See the [module's description](self).
pub(crate) struct Blocks<P, L>
where
    P: DerefMut<Target = [Part<L>]>,
    L: DerefMut<Target = [u64]>,
{
    present: Presence<P, L>,
    unverified: Presence<P, L>,
    /// The inode's ctime when the file was last known to have the verified blocks.
    ctime: u64,
    /// How often blocks were forgotten, or became unverified without having been written.
    epoch: u32,
    /// How often blocks were written.
    writes: u32,
    /// Where blocks became present that are not in the list to be appended to.
    changed: Changed<L>,
    /// Whether blocks are not present any more that may be in a list on the disk.
    has_lost: bool,
    /// Whether what changes is remembered, because it may have to be appended to a list.
    is_appended_to: bool,
    /// Whether a block that was present was discarded, where all were present before.
    is_rewritten: bool,
    /// A leaf for the next such block: when that is present again, its leaf is needed no more.
    kept: Option<L>,
}

/// What is to be done before blocks are read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing: they can be.
    Ready,
    /// The first run of them that is not present has to be fetched.
    Gap(Range<u64>),
    /// Others have changed the file, so that all blocks are unverified.
    Changed,
    /// The first run of them that is unverified has to be looked for on the disk.
    Unverified(Unverified),
}

/// Unverified blocks, and the state of the map when they were looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unverified {
    pub(crate) blocks: Range<u64>,
    epoch: u32,
    writes: u32,
}

impl<P, L> Blocks<P, L>
where
    P: DerefMut<Target = [Part<L>]>,
    L: DerefMut<Target = [u64]>,
{
    /// None is present, of as many blocks as the two maps have.
    pub(crate) fn new(present: Presence<P, L>, unverified: Presence<P, L>, ctime: u64) -> Self {
        Blocks {
            present,
            unverified,
            ctime,
            epoch: 0,
            writes: 0,
            changed: Changed::default(),
            has_lost: false,
            is_appended_to: false,
            is_rewritten: false,
            kept: None,
        }
    }

    /// Whether all blocks are present.
    pub(crate) fn is_complete(&mut self) -> bool {
        self.present.is_complete()
    }

    /// Has the next list be made anew.
    pub(crate) fn require_new_list(&mut self) {
        self.has_lost = true;
    }

    /// Records that all changes are in a list on the disk, or will be: they are returned. `None` if
    /// blocks are not present any more, so that a new list has to be made. What changes from here
    /// on is remembered, until it is known whether it will be appended.
    pub(crate) fn take_changes(&mut self) -> Option<Changed<L>> {
        self.is_appended_to = true;
        let has_lost = replace(&mut self.has_lost, false);
        let changed = self.changed.take();
        (!has_lost).then_some(changed)
    }

    /// Whether there is a list on the disk to which what changes is appended. If not, it is not
    /// remembered: the next list has all that is present.
    pub(crate) fn set_appended_to(&mut self, is_appended_to: bool) {
        self.is_appended_to = is_appended_to;
    }

    /// `blocks` became present.
    #[inline]
    fn note(&mut self, blocks: &Range<u64>) {
        if self.is_appended_to {
            self.changed.add(blocks.clone());
        }
    }

    /// Whether a leaf would keep down what is appended.
    pub(crate) fn wants_leaf(&self) -> bool {
        self.is_appended_to && self.changed.is_crowded()
    }

    /// Remembers changes in `leaf`. Returns what is to be freed.
    pub(crate) fn remember_in(&mut self, leaf: L) -> Option<L> {
        self.changed.use_leaf(leaf, self.present.blocks())
    }

    /// The map of present blocks.
    pub(crate) fn present(&self) -> &Presence<P, L> {
        &self.present
    }

    /// Whether `blocks` can be read from a file whose inode has this `ctime`; `None` if that does
    /// not matter. Blocks before `checked` count as verified.
    pub(crate) fn look(&self, blocks: Range<u64>, ctime: Option<u64>, checked: u64) -> Look {
        // The object was withdrawn meanwhile, and its map taken out.
        if blocks.end > self.present.blocks() {
            return Look::Gap(blocks);
        }
        if let Some(gap) = self.present.first_gap(blocks.clone()) {
            return Look::Gap(gap);
        }
        if ctime.is_some_and(|ctime| ctime != self.ctime) {
            return Look::Changed;
        }
        let start = checked.max(blocks.start);
        if self.unverified.is_all(&(start..blocks.end), false) {
            return Look::Ready;
        }
        let start = self.unverified.find(start, blocks.end, true);
        if start >= blocks.end {
            return Look::Ready;
        }
        Look::Unverified(Unverified {
            blocks: start..self.unverified.find(start, blocks.end, false),
            epoch: self.epoch,
            writes: self.writes,
        })
    }

    /// Records that `blocks` are present, and known to be on the disk: they were found there when
    /// the object was looked up, or were written past the page cache. The return value and `spare`
    /// are those of [`Presence::set`].
    #[must_use]
    pub(crate) fn add_verified(
        &mut self,
        blocks: Range<u64>,
        spare: &mut Option<L>,
    ) -> Option<Range<u64>> {
        self.note(&blocks);
        let left = self.present.set(blocks, true, spare);
        self.keep_leaf(spare);
        left
    }

    /// Keeps a leaf that is needed no more, if one is to be kept and there is none.
    fn keep_leaf(&mut self, spare: &mut Option<L>) {
        if self.is_rewritten && self.kept.is_none() {
            self.kept = spare.take();
        }
    }

    /// Records that `blocks` are in the file's list on the disk. They are looked for before they
    /// are read. The return value and `spare` are those of [`Presence::set`].
    #[must_use]
    pub(crate) fn listed(
        &mut self,
        blocks: Range<u64>,
        spare: &mut Option<L>,
    ) -> Option<Range<u64>> {
        if self.unverified.set(blocks.clone(), true, spare).is_some() {
            return Some(blocks);
        }
        self.present.set(blocks, true, spare)
    }

    /// Records that `blocks` are present: they were written, and not yet seen on the disk. The
    /// return value and `spare` are those of [`Presence::set`].
    #[must_use]
    pub(crate) fn add_unverified(
        &mut self,
        blocks: Range<u64>,
        spare: &mut Option<L>,
    ) -> Option<Range<u64>> {
        self.writes = self.writes.wrapping_add(1);
        // Unverified first: if memory is needed half-way, no block is present and not unverified.
        if self.unverified.set(blocks.clone(), true, spare).is_some() {
            return Some(blocks);
        }
        self.note(&blocks);
        self.present.set(blocks, true, spare)
    }

    /// Records that `found`, which starts with the first block of `unverified`, has no hole. Before
    /// the hole was looked for, no page of `found` was dirty or under write-back; no page of the
    /// file, if `is_clean`. The return value and `spare` are those of [`Presence::set`].
    #[must_use]
    pub(crate) fn mark_on_disk(
        &mut self,
        unverified: &Unverified,
        found: Range<u64>,
        is_clean: bool,
        spare: &mut Option<L>,
    ) -> Option<Range<u64>> {
        if unverified.epoch != self.epoch {
            return None;
        }
        // Beyond `unverified`, dirtiness was not checked block by block: extends past it only if
        // the whole file was clean and nothing has been written since.
        let limit = match is_clean && unverified.writes == self.writes {
            true => unverified.blocks.start.saturating_add(AHEAD),
            false => unverified.blocks.end,
        };
        let found = found.start..found.end.min(limit);
        self.unverified.set(found, false, spare)
    }

    /// Forgets `lost`, a part of `unverified`. Does nothing if another task has forgotten blocks
    /// since `unverified` was made. The return value and `spare` are those of [`Presence::set`].
    #[must_use]
    pub(crate) fn forget(
        &mut self,
        unverified: &Unverified,
        lost: Range<u64>,
        spare: &mut Option<L>,
    ) -> Option<Range<u64>> {
        if unverified.epoch != self.epoch {
            return None;
        }
        self.has_lost = true;
        // They stay unverified, which does no harm; and no step of this leaves them present.
        let left = self.present.set(lost, false, spare);
        if left.is_none() {
            self.epoch = self.epoch.wrapping_add(1);
        }
        left
    }

    /// Forgets all unverified blocks: something could not be written to the disk. As that may be
    /// reported late, all that is left is unverified then; `all` is a map with all blocks. Returns
    /// what is to be freed.
    pub(crate) fn forget_unverified(&mut self, all: Presence<P, L>) -> Presence<P, L> {
        self.has_lost = true;
        self.present.take_away(&mut self.unverified);
        self.epoch = self.epoch.wrapping_add(1);
        replace(&mut self.unverified, all)
    }

    /// Records that `blocks` are not present any more: they are about to be written to, or are of
    /// no use. The return value and `spare` are those of [`Presence::set`].
    #[must_use]
    pub(crate) fn discard(
        &mut self,
        blocks: Range<u64>,
        spare: &mut Option<L>,
    ) -> Option<Range<u64>> {
        self.has_lost = true;
        if spare.is_none() {
            *spare = self.kept.take();
        }
        let had = spare.is_some();
        let left = self.present.set(blocks, false, spare);
        self.is_rewritten |= had && spare.is_none();
        self.keep_leaf(spare);
        left
    }

    /// Makes the file one of `blocks` blocks: as [`Presence::resize`], with memory for two maps.
    #[must_use]
    pub(crate) fn resize(&mut self, blocks: u64, new: &mut (P, P), spare: &mut Option<L>) -> bool {
        self.has_lost = true;
        // Blocks that are new are not present, so it does not matter whether they are unverified.
        self.unverified.resize(blocks, &mut new.0, spare)
            && self.present.resize(blocks, &mut new.1, spare)
    }

    /// Has all blocks be unverified, for which `all` is a map with all blocks: the inode was
    /// changed by others, and has this `ctime`. Returns what is to be freed.
    pub(crate) fn unverify_all(&mut self, all: Presence<P, L>, ctime: u64) -> Presence<P, L> {
        // Another task has noted the same change.
        if self.ctime == ctime {
            return all;
        }
        self.ctime = ctime;
        self.epoch = self.epoch.wrapping_add(1);
        replace(&mut self.unverified, all)
    }

    /// Writes down which blocks of `range` are present, of those in `changes` if there are any: see
    /// [`Presence::encode`].
    pub(crate) fn encode(
        &self,
        range: Range<u64>,
        changes: Option<&Changed<L>>,
        buf: &mut [u8],
    ) -> (usize, Option<u64>) {
        let within = |range: Range<u64>| match changes {
            Some(changes) => changes
                .next(range.start)
                .filter(|part| part.start < range.end)
                .map(|part| part.start..part.end.min(range.end)),
            None => Some(range),
        };
        self.present.encode(range, None, within, buf)
    }

    /// Writes down which blocks of `range` are known to be on the disk: see [`Presence::encode`].
    pub(crate) fn encode_verified(
        &self,
        range: Range<u64>,
        buf: &mut [u8],
    ) -> (usize, Option<u64>) {
        self.present
            .encode(range, Some(&self.unverified), Some, buf)
    }
}
