// SPDX-License-Identifier: GPL-2.0

//! Where a network file system is to read from, and which part of a write its cache can take.
//!
//! The file is read and written in whole blocks, so what the cache holds of an object is, too: a
//! read is cut where present blocks end or begin, and of a write the part that does not make up a
//! whole block is left out.

use crate::{
    disk::presence::{
        blocks,
        Part,
        Presence, //
    },
    protocol::BLOCK_SIZE, //
};
use core::ops::{
    DerefMut,
    Range, //
};

/// Where data is to be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFrom {
    /// The file.
    Cache,
    /// The server; what comes is to be stored.
    Server,
}

/// Where `len` bytes at `start`, which are in an object of `size` bytes, are to be read from, and
/// how many of them.
pub(crate) fn source<P, L>(
    present: &Presence<P, L>,
    start: u64,
    len: u64,
    size: u64,
) -> (ReadFrom, u64)
where
    P: DerefMut<Target = [Part<L>]>,
    L: DerefMut<Target = [u64]>,
{
    let (first, last) = (start / BLOCK_SIZE, blocks(start.saturating_add(len)));
    let is_present = present.find(first, first + 1, true) == first && first < present.blocks();
    // What is behind the last block of the map is not present.
    let end = match present.find(first, last, !is_present) {
        end if is_present => end,
        end if end < present.blocks() => end,
        _ => last,
    };
    let until = match (is_present, end >= blocks(size)) {
        // The server says where the file ends.
        (false, true) => start.saturating_add(len),
        // The rest of the last block goes with it, and no more is in the file.
        _ => (end * BLOCK_SIZE).min(start.saturating_add(len)),
    };
    let source = match is_present {
        true => ReadFrom::Cache,
        false => ReadFrom::Server,
    };
    (source, until - start)
}

/// What of a write goes to the file, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Aligned {
    /// Left out at the beginning.
    pub(crate) skip: u64,
    /// Written behind that: whole blocks.
    pub(crate) len: u64,
    /// How far that goes beyond what was to be written.
    pub(crate) extend: u64,
}

/// The whole blocks of a write of `len` bytes at `start`, behind which there are `spare` bytes that
/// may be written, too. `None` if there is no whole block.
pub(crate) fn align(start: u64, len: u64, spare: u64) -> Option<Aligned> {
    let skip = start.next_multiple_of(BLOCK_SIZE) - start;
    // What is behind the end is not written without something before it.
    let left = len.checked_sub(skip).filter(|left| *left > 0)?;
    let missing = left.next_multiple_of(BLOCK_SIZE) - left;
    let extend = if missing <= spare { missing } else { 0 };
    let len = (left + extend) / BLOCK_SIZE * BLOCK_SIZE;
    (len > 0).then_some(Aligned { skip, len, extend })
}

/// What a write of `range`, in bytes, has to be made so that it is of whole blocks: what is behind
/// its end in the last block is written, too. `None` if it begins within a block, or has more than
/// `max` bytes.
pub(crate) fn range_to_store(range: Range<i64>, max: usize) -> Option<Range<i64>> {
    let (start, end) = (
        u64::try_from(range.start).ok()?,
        u64::try_from(range.end).ok()?,
    );
    let len = end.checked_sub(start)?;
    if start % BLOCK_SIZE != 0 || len > max as u64 {
        return None;
    }
    let end = end.checked_next_multiple_of(BLOCK_SIZE)?;
    Some(range.start..i64::try_from(end).ok()?)
}

/// The blocks that a write of `len` bytes at `start` changes, in whole or in part.
pub(crate) fn touched(start: u64, len: u64) -> Range<u64> {
    start / BLOCK_SIZE..blocks(start.saturating_add(len))
}
