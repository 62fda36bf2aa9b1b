// SPDX-License-Identifier: GPL-2.0

//! Finding out whether the file system still has what the daemon wrote.
//!
//! See [`crate::plan::blocks`] for when that has to be found out. What is looked at is what is
//! read: a page of its own that is dirty, or being written back, is as it was written; anything
//! else is looked for on the disk. An error in that says nothing of the data: the read fails, and
//! nothing is forgotten.
//!
//! A hole that is punched while a block is being read, after it was looked for, is not noticed by
//! that read; the next one sees that the inode has changed.

use super::Backing;
use crate::{
    kernel_next::{
        compat::ENOBUFS,
        fs::kernel_file::{
            KernelFile,
            Seek, //
        }, //
    },
    plan::blocks::{
        Look, //
        Unverified,
    },
    protocol::BLOCK_SIZE, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// How long one look for a hole may take before the file counts as fragmented.
const SEEK_LIMIT: Delta = Delta::from_millis(2);

/// What a check may do, depending on the context it runs in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum May {
    /// Neither sleep nor ask the file system: only what is in memory counts, beside what is known.
    Nothing,
    /// Not write to the file system: it is a reader, with whatever is locked that a reader has
    /// locked, in a file system that others may want to read while they hold locks of this one.
    Read,
    Write,
}

/// What there is of the blocks that were looked for.
pub(crate) enum Found {
    /// They are all there, and to be read at once.
    Ready,
    /// The first run of them that has to be asked for before they can be read.
    Gap(Range<u64>),
    /// Unknown: it has to be checked in a context that may do more.
    Elsewhere,
}

/// Looks for `blocks`.
///
/// # Errors
///
/// `ENOMEM`; `EIO` if the object is withdrawn; `EINTR` if the task is killed; what the file system
/// says.
#[inline]
pub(crate) fn first_gap(
    backing: &Backing,
    file: &KernelFile,
    blocks: Range<u64>,
    may: May,
) -> Result<Found> {
    let ctime = file.inode().change_time();
    match backing.look(blocks.clone(), Some(ctime), 0) {
        Look::Ready => Ok(Found::Ready),
        Look::Gap(gap) => Ok(Found::Gap(gap)),
        look => settle(backing, file, blocks, look, may),
    }
}

/// Does what [`Backing::look`] says is to be done, until nothing is.
#[cold]
fn settle(
    backing: &Backing,
    file: &KernelFile,
    blocks: Range<u64>,
    mut look: Look,
    may: May,
) -> Result<Found> {
    let mut checked = 0;
    loop {
        match look {
            Look::Ready => return Ok(Found::Ready),
            Look::Gap(gap) => return Ok(Found::Gap(gap)),
            Look::Changed if may == May::Nothing => return Ok(Found::Elsewhere),
            Look::Changed => backing.unverify_all(file)?,
            Look::Unverified(unverified) => match check(backing, file, &unverified, may)? {
                Some(until) => checked = until,
                None => return Ok(Found::Elsewhere),
            },
        }
        // What changes from here on is noticed by the next read.
        look = backing.look(blocks.clone(), None, checked);
    }
}

/// Whether `blocks` are all known to be on the disk, and nothing of the file is in memory. Does not
/// sleep.
#[inline]
pub(crate) fn is_only_on_disk(backing: &Backing, file: &KernelFile, blocks: &Range<u64>) -> bool {
    let ctime = file.inode().change_time();
    !file.has_pages() && backing.look(blocks.clone(), Some(ctime), 0) == Look::Ready
}

/// Looks for what is about to be overwritten in part, from `off` to `end` in bytes: what was a hole
/// is data after that, with zeros in the rest of the block.
///
/// # Errors
///
/// Those of [`first_gap`]; `ENOBUFS` if the object is withdrawn.
pub(crate) fn before_write(backing: &Backing, file: &KernelFile, off: u64, end: u64) -> Result {
    let unit = file.inode().block_size().max(BLOCK_SIZE);
    if off % unit == 0 && end % unit == 0 {
        return Ok(());
    }
    let head = (off - off % unit) / BLOCK_SIZE..off.div_ceil(BLOCK_SIZE);
    let tail = end / BLOCK_SIZE..end.next_multiple_of(unit) / BLOCK_SIZE;
    for block in Iterator::chain(head, tail) {
        // What is not present stays so.
        first_gap(backing, file, block..block + 1, May::Write)?;
    }
    // Then the map may have been taken out before it was looked at, and has what was lost. If it is
    // taken out later, it has what was found here.
    match backing.is_withdrawn() {
        true => Err(ENOBUFS),
        false => Ok(()),
    }
}

/// Positions are those of files, and fit.
fn bytes(blocks: Range<u64>) -> Range<i64> {
    (blocks.start * BLOCK_SIZE) as i64..(blocks.end * BLOCK_SIZE) as i64
}

/// Whether a block is in a page of its own that is as it was written.
fn is_in_dirty_page(file: &KernelFile, block: u64) -> bool {
    let bytes = bytes(block..block + 1);
    // A file that others truncated is zero behind its end.
    bytes.end <= file.inode().size() && file.is_in_dirty_page(bytes)
}

/// Looks for some of the unverified blocks, from the first on, and forgets them if they are lost.
/// Returns the first block that was not looked for, or that was lost; `None` if what has to be done
/// is more than it may.
fn check(
    backing: &Backing,
    file: &KernelFile,
    unverified: &Unverified,
    may: May,
) -> Result<Option<u64>> {
    let Range { start, end } = unverified.blocks;
    let in_memory = is_in_dirty_page(file, start);
    // Of the blocks that follow, those that are where the first one is.
    let end = (start + 1..end)
        .find(|block| is_in_dirty_page(file, *block) != in_memory)
        .unwrap_or(end);
    if in_memory {
        return Ok(Some(end));
    }
    if may == May::Nothing {
        return Ok(None);
    }
    // Before the holes are looked for: what ceases to be dirty later may yet become one.
    let on_disk = !file.is_dirty(bytes(start..end));
    let is_clean = on_disk && file.is_clean();
    let hole = find_hole(backing, file, start..end)?;
    if on_disk && backing.check_write_errors(file).is_ok() {
        let known = if is_clean { hole } else { hole.min(end) };
        backing.mark_on_disk(unverified, known, is_clean);
    }
    if hole >= end {
        return Ok(Some(end));
    }
    let data = match file.seek(bytes(hole..end).start, Seek::Data) {
        // Offsets are not negative.
        Ok(data) => end.min((data as u64).div_ceil(BLOCK_SIZE)),
        Err(e) if e == ENXIO => end,
        Err(e) => return Err(e),
    };
    let lost = hole..data.max(hole + 1);
    let forgotten = backing.forget(file, unverified, lost, may == May::Write)?;
    Ok(forgotten.then_some(hole))
}

/// The first block in `blocks` with a hole, or, if there is none, `blocks.end` or a block behind it
/// up to which there is none.
fn find_hole(backing: &Backing, file: &KernelFile, blocks: Range<u64>) -> Result<u64> {
    if backing.is_fragmented() {
        return find_hole_nearby(file, blocks);
    }
    let begun = Instant::<Monotonic>::now();
    let hole = match file.seek(bytes(blocks.clone()).start, Seek::Hole) {
        // Offsets are not negative.
        Ok(hole) => hole as u64 / BLOCK_SIZE,
        // Others have truncated the file.
        Err(e) if e == ENXIO => blocks.start,
        Err(e) => return Err(e),
    };
    if begun.elapsed() > SEEK_LIMIT {
        backing.set_fragmented();
    }
    Ok(hole)
}

/// As [`find_hole`], but looks no further than asked for: the file system goes through all extents
/// up to a hole, which can be many.
fn find_hole_nearby(file: &KernelFile, blocks: Range<u64>) -> Result<u64> {
    let step = file.inode().block_size().min(BLOCK_SIZE);
    for block in blocks.clone() {
        for at in (block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE).step_by(step as usize) {
            match file.seek(at as i64, Seek::Data) {
                Ok(data) if data as u64 == at => {}
                Ok(_) => return Ok(block),
                Err(e) if e == ENXIO => return Ok(block),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(blocks.end)
}
