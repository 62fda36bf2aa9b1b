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
pub(crate) enum Source {
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
) -> (Source, u64)
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
    // The rest of the last block is not data: readers zero it, or do not look.
    let until = match end >= blocks(size) {
        true => start.saturating_add(len),
        false => (end * BLOCK_SIZE).min(start.saturating_add(len)),
    };
    let source = match is_present {
        true => Source::Cache,
        false => Source::Server,
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

/// The whole blocks of a write of `len` bytes at `start`. If it ends at the end of an object of
/// `size` bytes, it may go on for `spare` bytes, which are zeros. `None` if there is no whole block.
pub(crate) fn align(start: u64, len: u64, size: u64, spare: u64) -> Option<Aligned> {
    let skip = start.next_multiple_of(BLOCK_SIZE) - start;
    let left = len.checked_sub(skip)?;
    let missing = left.next_multiple_of(BLOCK_SIZE) - left;
    let extend = match start + len == size && missing <= spare {
        true => missing,
        false => 0,
    };
    let len = (left + extend) / BLOCK_SIZE * BLOCK_SIZE;
    (len > 0).then_some(Aligned { skip, len, extend })
}

/// The blocks that a write of `len` bytes at `start` changes, in whole or in part.
pub(crate) fn touched(start: u64, len: u64) -> Range<u64> {
    start / BLOCK_SIZE..blocks(start.saturating_add(len))
}
