// SPDX-License-Identifier: GPL-2.0

//! Finding out whether the file system still has what was written.
//!
//! See [`crate::plan::blocks`] for which blocks have to be checked. A block is there if it is in a
//! page that holds no other block and is dirty or under write-back; otherwise the file system is
//! asked whether there is a hole. If that fails, the read fails, and nothing is forgotten.
//!
//! If a hole is punched between the check of a block and the read of it, that read does not notice;
//! the next one sees that the inode's ctime has changed.

use super::Backing;
use crate::{
    inject,
    kernel_next::{
        compat::ENOBUFS,
        fs::kernel_file::{
            KernelFile,
            Seek, //
        }, //
    },
    plan::blocks::{
        Look,
        Unverified, //
    },
    protocol::BLOCK_SIZE,
    trace::files::Where, //
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
    /// Neither sleep nor ask the file system: only the map and the page cache are looked at.
    Nothing,
    /// May sleep and seek, not write: the reader may hold `invalidate_lock` of its own file, for
    /// which a task that holds locks of the cache's file system may wait.
    Sleep,
    /// In the cache's workqueue or in the daemon's context: may also write.
    Write,
}

/// The result of a check of blocks.
pub(crate) enum Checked {
    /// They are all there, and to be read at once.
    Ready,
    /// The first run of missing blocks, which have to be fetched.
    Gap(Range<u64>),
    /// Unknown: it has to be checked in a context that [may](May) do more.
    Elsewhere,
}

/// Checks whether all of `blocks` are present and still there. Those that turn out to be lost are
/// forgotten. If the list has to be written for that, or the file's length to be restored, it takes
/// [`May::Write`]; without it the result is [`Checked::Elsewhere`].
///
/// # Errors
///
/// `ENOMEM`; `EIO` if the object is withdrawn; `EINTR` if the task is killed; the file system's
/// error.
#[inline]
pub(crate) fn check_blocks(
    backing: &Backing,
    file: &KernelFile,
    blocks: Range<u64>,
    may: May,
) -> Result<Checked> {
    let ctime = file.inode().change_time();
    match backing.look(blocks.clone(), Some(ctime), 0) {
        Look::Ready => Ok(Checked::Ready),
        Look::Gap(gap) => Ok(Checked::Gap(gap)),
        look => settle(backing, file, blocks, look, may),
    }
}

/// Does what [`Backing::look`] says has to be done, and looks again, until nothing is left to do.
#[cold]
fn settle(
    backing: &Backing,
    file: &KernelFile,
    blocks: Range<u64>,
    mut look: Look,
    may: May,
) -> Result<Checked> {
    let mut checked = 0;
    loop {
        match look {
            Look::Ready => return Ok(Checked::Ready),
            Look::Gap(gap) => return Ok(Checked::Gap(gap)),
            Look::Changed if may == May::Nothing => return Ok(Checked::Elsewhere),
            Look::Changed => backing.unverify_all(file)?,
            Look::Unverified(unverified) => match check(backing, file, &unverified, may)? {
                Some(until) => checked = until,
                None => return Ok(Checked::Elsewhere),
            },
        }
        // Without the ctime: what changes from here on is noticed by the next read.
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

/// Checks the blocks around a write from `off` to `end`, in bytes, that share a file system block
/// with it: if they were lost, the write would turn their hole into zeros that count as data.
///
/// # Errors
///
/// Those of [`check_blocks`]; `ENOBUFS` if the object is withdrawn.
pub(crate) fn before_write(backing: &Backing, file: &KernelFile, off: u64, end: u64) -> Result {
    let unit = file.inode().block_size().max(BLOCK_SIZE);
    if off % unit == 0 && end % unit == 0 {
        return Ok(());
    }
    let head = (off - off % unit) / BLOCK_SIZE..off.div_ceil(BLOCK_SIZE);
    let tail = end / BLOCK_SIZE..end.next_multiple_of(unit) / BLOCK_SIZE;
    for block in Iterator::chain(head, tail) {
        // Forgets the block if it was lost. One that is not present stays so.
        check_blocks(backing, file, block..block + 1, May::Write)?;
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

/// Whether a block is in a page that holds no other block, and is dirty or under write-back.
fn is_in_dirty_page(file: &KernelFile, block: u64) -> bool {
    let bytes = bytes(block..block + 1);
    // A file that others truncated is zero behind its end.
    bytes.end <= file.inode().size() && file.is_in_dirty_page(bytes)
}

/// Checks some of the unverified blocks, from the first on, and forgets those that are lost.
/// Returns the first block that was not checked, or was lost; `None` if the check needs more than
/// it `may` do.
fn check(
    backing: &Backing,
    file: &KernelFile,
    unverified: &Unverified,
    may: May,
) -> Result<Option<u64>> {
    let Range { start, end } = unverified.blocks;
    let in_memory = is_in_dirty_page(file, start);
    // Up to the first block for which the answer is another one.
    let end = (start + 1..end)
        .find(|block| is_in_dirty_page(file, *block) != in_memory)
        .unwrap_or(end);
    if in_memory {
        return Ok(Some(end));
    }
    if may == May::Nothing {
        return Ok(None);
    }
    // Before the hole is looked for: a page that is dirty now may be dropped later, which leaves a
    // hole.
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
    let data = match seek(backing, file, bytes(hole..end).start, Seek::Data) {
        // Offsets are not negative.
        Ok(data) => end.min((data as u64).div_ceil(BLOCK_SIZE)),
        Err(e) if e == ENXIO => end,
        Err(e) => return Err(e),
    };
    let lost = hole..data.max(hole + 1);
    let forgotten = backing.forget(file, unverified, lost, may == May::Write)?;
    Ok(forgotten.then_some(hole))
}

/// [`KernelFile::seek`], whose errors are traced, but for that there is nothing.
fn seek(backing: &Backing, file: &KernelFile, pos: i64, what: Seek) -> Result<i64> {
    inject::read()
        .and_then(|()| file.seek(pos, what))
        .inspect_err(|e| {
            if *e != ENXIO {
                backing.trace_io_error(file, *e, Where::Seek);
            }
        })
}

/// The first block in `blocks` with a hole, or, if there is none, `blocks.end` or a block behind it
/// up to which there is none.
fn find_hole(backing: &Backing, file: &KernelFile, blocks: Range<u64>) -> Result<u64> {
    if backing.is_fragmented() {
        return find_hole_nearby(backing, file, blocks);
    }
    let begun = Instant::<Monotonic>::now();
    let hole = match seek(backing, file, bytes(blocks.clone()).start, Seek::Hole) {
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
fn find_hole_nearby(backing: &Backing, file: &KernelFile, blocks: Range<u64>) -> Result<u64> {
    let step = file.inode().block_size().min(BLOCK_SIZE);
    for block in blocks.clone() {
        for at in (block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE).step_by(step as usize) {
            match seek(backing, file, at as i64, Seek::Data) {
                Ok(data) if data as u64 == at => {}
                Ok(_) => return Ok(block),
                Err(e) if e == ENXIO => return Ok(block),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(blocks.end)
}
