// SPDX-License-Identifier: GPL-2.0

//! Which blocks of an object are present: a daemon (on-demand mode) or a network file system
//! (classic mode) has written them in whole.
//!
//! A file system may answer `SEEK_DATA` with blocks that nobody wrote and `SEEK_HOLE` with blocks
//! that somebody did, and a block that was written in part is data to it. So the writes themselves
//! are recorded here, and this map decides what a reader may see.
//!
//! When an object is withdrawn, a list of what is present goes on the disk with the file. When it
//! is looked up again, a block is present if both that list and the file system say so: the list
//! knows what was written, the file system what survived if the machine crashed.
//!
//! One bit a block, in leaves that exist only for parts of which some blocks are present and some
//! are not. An object that is all present, or not at all, costs 24 bytes per 128 MiB and map.

use super::list;
use crate::protocol::BLOCK_SIZE;
use core::{
    iter::from_fn,
    ops::{
        DerefMut,
        Range, //
    }, //
};

const WORD: u64 = u64::BITS as u64;
/// Words in a leaf.
pub(crate) const LEAF_WORDS: usize = 512;
/// Blocks in a part.
pub(crate) const LEAF_BLOCKS: u64 = LEAF_WORDS as u64 * WORD;

/// How many runs one call of [`Presence::encode`] looks at, under a lock: more than fit a record.
const STEPS: u32 = 8192;

/// One part of the map. `L` is a buffer of [`LEAF_WORDS`] words.
pub(crate) enum Part<L> {
    Absent,
    Mixed { bits: L, count: u64 },
    Present,
}

impl<L: DerefMut<Target = [u64]>> Part<L> {
    fn turn_into(&mut self, new: Self, spare: &mut Option<L>) {
        if let Part::Mixed { bits, .. } = core::mem::replace(self, new) {
            *spare = Some(bits);
        }
    }

    /// As [`Presence::set`], for blocks of this part, which has `whole` blocks in all. Returns
    /// whether it is done.
    fn set(
        &mut self,
        blocks: Range<u64>,
        whole: u64,
        present: bool,
        spare: &mut Option<L>,
    ) -> bool {
        match (&*self, present) {
            (Part::Present, true) | (Part::Absent, false) => return true,
            _ if blocks.end - blocks.start == whole => {
                let new = if present { Part::Present } else { Part::Absent };
                self.turn_into(new, spare);
                return true;
            }
            (Part::Mixed { .. }, _) => {}
            (Part::Present | Part::Absent, _) => {
                let Some(mut bits) = spare.take() else {
                    return false;
                };
                fill(&mut bits, whole, if present { 0 } else { u64::MAX });
                let count = if present { 0 } else { whole };
                *self = Part::Mixed { bits, count };
            }
        }
        if let Part::Mixed { bits, count } = self {
            let changed = change(bits, blocks, present);
            *count = match present {
                true => *count + changed,
                false => *count - changed,
            };
            if *count == whole {
                self.turn_into(Part::Present, spare);
            } else if *count == 0 {
                self.turn_into(Part::Absent, spare);
            }
        }
        true
    }

    /// As [`Presence::take_away`], for a part of `whole` blocks.
    fn take_away(&mut self, other: &mut Self, whole: u64) {
        match (&mut *self, core::mem::replace(other, Part::Absent)) {
            (Part::Absent, _) | (_, Part::Absent) => {}
            (_, Part::Present) => *self = Part::Absent,
            (Part::Present, Part::Mixed { mut bits, count }) => {
                bits.iter_mut().for_each(|word| *word = !*word);
                *self = Part::Mixed {
                    bits,
                    count: whole - count,
                };
            }
            (Part::Mixed { bits, count }, Part::Mixed { bits: theirs, .. }) => {
                let mut at = 0;
                for (word, theirs) in bits.iter_mut().zip(theirs.iter()) {
                    let valid = mask(0..WORD.min(whole.saturating_sub(at)));
                    let gone = *word & *theirs & valid;
                    *word &= !gone;
                    *count -= u64::from(gone.count_ones());
                    at += WORD;
                }
                if *count == 0 {
                    *self = Part::Absent;
                }
            }
        }
    }
}

/// Gives the words of the first `blocks` bits a value. In a small object that is not all of a leaf.
fn fill(bits: &mut [u64], blocks: u64, value: u64) {
    let words = blocks.div_ceil(WORD) as usize;
    if let Some(bits) = bits.get_mut(..words) {
        bits.fill(value);
    }
}

/// Sets the bits `range`.
pub(crate) fn set_bits(bits: &mut [u64], range: Range<u64>) {
    change(bits, range, true);
}

/// The first of the bits `range` that is set, or is not.
pub(crate) fn find_bit(bits: &[u64], range: Range<u64>, is_set: bool) -> Option<u64> {
    let mut bit = range.start;
    while bit < range.end {
        let word = bits.get((bit / WORD) as usize).copied().unwrap_or(0);
        let word = if is_set { word } else { !word };
        let hit = word & mask(bit % WORD..WORD);
        if hit != 0 {
            let found = bit - bit % WORD + u64::from(hit.trailing_zeros());
            return (found < range.end).then_some(found);
        }
        bit = (bit / WORD + 1) * WORD;
    }
    None
}

/// Sets or clears the bits `range`. Returns how many were not so before.
#[inline]
fn change(bits: &mut [u64], range: Range<u64>, present: bool) -> u64 {
    let mut changed = 0;
    let mut bit = range.start;
    while bit < range.end {
        let next = range.end.min((bit / WORD + 1) * WORD);
        let start = bit % WORD;
        if let Some(word) = bits.get_mut((bit / WORD) as usize) {
            let mask = mask(start..start + (next - bit));
            let new = if present { *word | mask } else { *word & !mask };
            changed += u64::from((new ^ *word).count_ones());
            *word = new;
        }
        bit = next;
    }
    changed
}

/// See the [module's description](self).
pub(crate) struct Presence<P, L>
where
    P: DerefMut<Target = [Part<L>]>,
    L: DerefMut<Target = [u64]>,
{
    parts: P,
    blocks: u64,
    /// So many parts, from the first on, were present when that was last asked.
    whole: usize,
}

/// How many blocks hold `bytes`.
pub(crate) fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_SIZE)
}

/// How many parts a map of `blocks` needs.
pub(crate) fn parts(blocks: u64) -> u64 {
    blocks.div_ceil(LEAF_BLOCKS)
}

/// The blocks that a write of `len` bytes at `off` covers, in an object of `size` bytes. The last
/// block of the object is filled once its last byte is.
pub(crate) fn blocks_filled_by(off: u64, len: u64, size: u64) -> Range<u64> {
    let end = off.saturating_add(len);
    let first = off.div_ceil(BLOCK_SIZE);
    let last = if end >= size {
        blocks(size)
    } else {
        end / BLOCK_SIZE
    };
    first..last.max(first)
}

/// The blocks that a read of `len` bytes at `off` needs, in an object of `size` bytes.
pub(crate) fn needed(off: u64, len: u64, size: u64) -> Range<u64> {
    let last = blocks(off.saturating_add(len)).min(blocks(size));
    (off / BLOCK_SIZE).min(last)..last
}

/// The bits `range` of a word.
fn mask(range: Range<u64>) -> u64 {
    let below = |n: u64| 1u64.checked_shl(n as u32).map_or(u64::MAX, |bit| bit - 1);
    below(range.end) & !below(range.start)
}

impl<P, L> Presence<P, L>
where
    P: DerefMut<Target = [Part<L>]>,
    L: DerefMut<Target = [u64]>,
{
    /// A map of `blocks` blocks, none of them present. `parts` has to have [`parts`] of them, all
    /// absent.
    pub(crate) fn new(parts: P, blocks: u64) -> Self {
        Presence {
            parts,
            blocks,
            whole: 0,
        }
    }

    /// The same with all blocks present.
    pub(crate) fn filled(mut self) -> Self {
        for part in self.parts.iter_mut() {
            *part = Part::Present;
        }
        self
    }

    /// Records that `range` is present, or is not. Needs a leaf in `spare`, whatever it holds, for
    /// each part that becomes mixed; without one it stops and returns what is left to be done. A
    /// leaf that is needed no more is left in `spare`.
    #[must_use]
    pub(crate) fn set(
        &mut self,
        range: Range<u64>,
        present: bool,
        spare: &mut Option<L>,
    ) -> Option<Range<u64>> {
        let mut at = range.start;
        let end = range.end.min(self.blocks);
        if !present {
            self.whole = 0;
        }
        while at < end {
            let base = at - at % LEAF_BLOCKS;
            let stop = end.min(base + LEAF_BLOCKS);
            let whole = LEAF_BLOCKS.min(self.blocks - base);
            let part = self.parts.get_mut((at / LEAF_BLOCKS) as usize)?;
            if !part.set(at - base..stop - base, whole, present, spare) {
                return Some(at..end);
            }
            at = stop;
        }
        None
    }

    /// Makes this a map of `blocks` blocks. Those that are new are not present. If it has another
    /// number of [`parts`] then, `new` has to have so many, all absent; it is left with what is to
    /// be freed. Needs a leaf in `spare` if a part becomes mixed; without one it stops, to be
    /// called again, and returns false.
    #[must_use]
    pub(crate) fn resize(&mut self, blocks: u64, new: &mut P, spare: &mut Option<L>) -> bool {
        if blocks == self.blocks {
            return true;
        }
        self.whole = 0;
        if blocks < self.blocks && self.set(blocks..self.blocks, false, spare).is_some() {
            return false;
        }
        // The last part of the smaller map has more blocks, or less, in the other one.
        let common = blocks.min(self.blocks);
        let base = common - common % LEAF_BLOCKS;
        let was_whole = (self.blocks - base).min(LEAF_BLOCKS);
        let whole = (blocks - base).min(LEAF_BLOCKS);
        if let Some(part) = self.parts.get_mut((base / LEAF_BLOCKS) as usize) {
            match part {
                Part::Present if whole > was_whole => {
                    let Some(mut bits) = spare.take() else {
                        return false;
                    };
                    fill(&mut bits, whole, 0);
                    let count = change(&mut bits, 0..was_whole, true);
                    *part = Part::Mixed { bits, count };
                }
                // Bits behind the end of a map may have any value.
                Part::Mixed { bits, .. } if whole > was_whole => {
                    change(bits, was_whole..whole, false);
                }
                Part::Mixed { count, .. } if *count == whole => {
                    part.turn_into(Part::Present, spare);
                }
                _ => {}
            }
        }
        if parts(blocks) != parts(self.blocks) {
            for (old, new) in self.parts.iter_mut().zip(new.iter_mut()) {
                core::mem::swap(old, new);
            }
            core::mem::swap(&mut self.parts, new);
        }
        self.blocks = blocks;
        true
    }

    /// Records that what `other` has is not present. Takes all of it from `other`, which is a map
    /// of as many blocks.
    pub(crate) fn take_away(&mut self, other: &mut Self) {
        self.whole = 0;
        let mut left = self.blocks;
        for (part, theirs) in self.parts.iter_mut().zip(other.parts.iter_mut()) {
            part.take_away(theirs, left.min(LEAF_BLOCKS));
            left = left.saturating_sub(LEAF_BLOCKS);
        }
    }

    /// The first block at `from` or after it, and before `end`, that is present or not; `end` if
    /// there is none.
    pub(crate) fn find(&self, from: u64, end: u64, present: bool) -> u64 {
        let end = end.min(self.blocks);
        let mut at = from;
        while at < end {
            let base = at - at % LEAF_BLOCKS;
            let stop = end.min(base + LEAF_BLOCKS);
            match self.parts.get((at / LEAF_BLOCKS) as usize) {
                Some(Part::Present) if present => return at,
                Some(Part::Absent) | None if !present => return at,
                Some(Part::Mixed { bits, .. }) => {
                    if let Some(found) = find_bit(bits, at - base..stop - base, present) {
                        return base + found;
                    }
                }
                _ => {}
            }
            at = stop;
        }
        end.max(from)
    }

    /// Whether all blocks of `range` are present, or none; as far as that can be told from one word
    /// of the map. Most reads are of a few blocks.
    #[inline]
    pub(crate) fn is_all(&self, range: &Range<u64>, present: bool) -> bool {
        let last = range.end.wrapping_sub(1);
        if range.end > self.blocks || range.start >= range.end || range.start / WORD != last / WORD
        {
            return false;
        }
        match self.parts.get((last / LEAF_BLOCKS) as usize) {
            Some(Part::Present) => present,
            Some(Part::Absent) => !present,
            Some(Part::Mixed { bits, .. }) => {
                let word = bits.get((last % LEAF_BLOCKS / WORD) as usize).copied();
                let wrong = |word: u64| if present { !word } else { word };
                let all = mask(range.start % WORD..last % WORD + 1);
                word.is_some_and(|word| wrong(word) & all == 0)
            }
            None => false,
        }
    }

    /// The first run of blocks in `range` that are not present.
    pub(crate) fn first_gap(&self, range: Range<u64>) -> Option<Range<u64>> {
        if self.is_all(&range, true) {
            return None;
        }
        let end = range.end.min(self.blocks);
        let start = self.find(range.start, end, false);
        (start < end).then(|| start..self.find(start, end, true))
    }

    /// Writes the list of the blocks of `range` that are present, without those in `except`, to
    /// `buf`, as far as it fits: see [`list`]. `within` returns the first blocks of a range in
    /// which to look for them, if there are any. Returns how many bytes that is, and the block to
    /// go on from if that was not all: it did not fit, or was too much work for one call.
    pub(crate) fn encode(
        &self,
        range: Range<u64>,
        except: Option<&Self>,
        within: impl Fn(Range<u64>) -> Option<Range<u64>>,
        buf: &mut [u8],
    ) -> (usize, Option<u64>) {
        let mut at = range.start;
        let end = range.end.min(self.blocks);
        let mut steps = 0..STEPS;
        let runs = from_fn(|| {
            while at < end {
                steps.next()?;
                let Some(part) = within(at..end) else {
                    at = end;
                    break;
                };
                let mut start = self.find(part.start, part.end, true);
                if let Some(map) = except {
                    start = map.find(start, part.end, false);
                }
                let mut until = self.find(start, part.end, false);
                if let Some(map) = except.filter(|map| start < map.blocks) {
                    until = map.find(start, until, true);
                }
                at = until;
                if start < until {
                    return Some(start..until);
                }
            }
            None
        });
        let (len, left) = list::encode(runs, buf);
        (len, left.or((at < end).then_some(at)))
    }

    /// Whether all blocks are present. Goes on where it found out last that they are not.
    pub(crate) fn is_complete(&mut self) -> bool {
        let rest = self.parts.get(self.whole..).unwrap_or_default();
        self.whole += rest
            .iter()
            .take_while(|part| matches!(part, Part::Present))
            .count();
        self.whole == self.parts.len()
    }

    /// The number of blocks in the object.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }
}
