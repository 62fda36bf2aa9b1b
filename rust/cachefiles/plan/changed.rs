// SPDX-License-Identifier: GPL-2.0

//! Where in an object blocks became present since that was last written down.
//!
//! What is written down grows with what changed, not with the object. Most objects are filled from
//! the beginning to the end, or in a few places: then these are remembered as a few ranges. If
//! there are more, the nearest are joined; where that matters, all are remembered from then on, in
//! a leaf, one bit for a few blocks next to each other.

use crate::disk::presence::{
    find_bit,
    set_bits,
    LEAF_BLOCKS, //
};
use core::{
    mem::take,
    ops::{
        DerefMut,
        Range, //
    }, //
};

const RANGES: usize = 4;

/// A few ranges.
#[derive(Default)]
struct Ranges {
    /// The first `used` are in order, not empty, and do not touch.
    ranges: [Range<u64>; RANGES],
    used: usize,
    /// Whether some of them were joined, with blocks in between that did not change.
    is_crowded: bool,
}

/// See the [module's description](self).
enum State<L> {
    Ranges(Ranges),
    /// A bit is for `1 << shift` blocks. The last bit is for all behind it, too.
    Bits {
        bits: L,
        shift: u32,
    },
}

/// See the [module's description](self). `L` is a buffer of
/// [`LEAF_WORDS`](crate::disk::presence::LEAF_WORDS) words.
pub(crate) struct Changed<L>(State<L>);

impl<L> Default for Changed<L> {
    fn default() -> Self {
        Changed(State::Ranges(Ranges::default()))
    }
}

/// The bits for `blocks`, which are not empty.
fn bits_of(blocks: &Range<u64>, shift: u32) -> Range<u64> {
    let bit = |block: u64| (block >> shift).min(LEAF_BLOCKS - 1);
    bit(blocks.start)..bit(blocks.end - 1) + 1
}

impl<L: DerefMut<Target = [u64]>> Changed<L> {
    /// Remembers that blocks of `range` became present.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        match &mut self.0 {
            State::Ranges(ranges) => ranges.add(range),
            State::Bits { bits, shift } => {
                set_bits(bits, bits_of(&range, *shift));
            }
        }
    }

    /// Whether more would be written down than what changed.
    pub(crate) fn is_crowded(&self) -> bool {
        matches!(&self.0, State::Ranges(ranges) if ranges.is_crowded)
    }

    /// From here on remembers changes in an object of `blocks` blocks in `leaf`. Returns what is to
    /// be freed.
    pub(crate) fn use_leaf(&mut self, mut leaf: L, blocks: u64) -> Option<L> {
        let State::Ranges(ranges) = &mut self.0 else {
            return Some(leaf);
        };
        let mut shift = 0;
        while blocks.div_ceil(1 << shift) > LEAF_BLOCKS {
            shift += 1;
        }
        leaf.fill(0);
        for range in ranges.used() {
            set_bits(&mut leaf, bits_of(range, shift));
        }
        self.0 = State::Bits { bits: leaf, shift };
        None
    }

    /// The first blocks from `from` on that changed, up to the next that did not. There may be
    /// others among them.
    pub(crate) fn next(&self, from: u64) -> Option<Range<u64>> {
        match &self.0 {
            State::Ranges(ranges) => {
                let mut used = ranges.used().iter();
                let range = used.find(|range| range.end > from)?;
                Some(range.start.max(from)..range.end)
            }
            State::Bits { bits, shift } => {
                let at = (from >> shift).min(LEAF_BLOCKS - 1);
                let first = find_bit(bits, at..LEAF_BLOCKS, true)?;
                let end = match find_bit(bits, first..LEAF_BLOCKS, false) {
                    Some(bit) => bit << shift,
                    None => u64::MAX,
                };
                let start = from.max(first << shift);
                (start < end).then_some(start..end)
            }
        }
    }

    /// Takes all of them out.
    pub(crate) fn take(&mut self) -> Self {
        take(self)
    }
}

impl Ranges {
    fn used(&self) -> &[Range<u64>] {
        self.ranges.get(..self.used).unwrap_or_default()
    }

    fn add(&mut self, range: Range<u64>) {
        if self.extends_last(&range) {
            return;
        }
        let mut new = range;
        let (mut kept, mut used) = (<[Range<u64>; RANGES + 1]>::default(), 0);
        let mut push = |range: Range<u64>| {
            if let Some(slot) = kept.get_mut(used) {
                *slot = range;
                used += 1;
            }
        };
        let mut is_placed = false;
        for old in self.used() {
            if old.end < new.start {
                push(old.clone());
            } else if new.end < old.start {
                if !is_placed {
                    push(new.clone());
                    is_placed = true;
                }
                push(old.clone());
            } else {
                new = new.start.min(old.start)..new.end.max(old.end);
            }
        }
        if !is_placed {
            push(new);
        }
        if used > RANGES {
            used = join_nearest(&mut kept, used);
            self.is_crowded = true;
        }
        for (slot, range) in self.ranges.iter_mut().zip(&mut kept) {
            *slot = take(range);
        }
        self.used = used;
    }

    /// Most objects are filled from the beginning to the end.
    #[inline]
    fn extends_last(&mut self, range: &Range<u64>) -> bool {
        let last = self
            .used
            .checked_sub(1)
            .and_then(|at| self.ranges.get_mut(at));
        match last {
            Some(last) if (last.start..=last.end).contains(&range.start) => {
                last.end = last.end.max(range.end);
                true
            }
            _ => false,
        }
    }
}

/// Makes one of the two of `used` ranges that have the fewest blocks between them. Returns how many
/// are left.
fn join_nearest(ranges: &mut [Range<u64>], used: usize) -> usize {
    let gaps = ranges
        .iter()
        .take(used)
        .zip(ranges.iter().take(used).skip(1));
    let gaps = gaps.map(|(one, next)| next.start - one.end).enumerate();
    let Some((at, _)) = gaps.min_by_key(|(_, gap)| *gap) else {
        return used;
    };
    let end = ranges.get(at + 1).map_or(0, |next| next.end);
    if let Some(one) = ranges.get_mut(at) {
        one.end = end;
    }
    if let Some(rest) = ranges.get_mut(at + 1..used) {
        rest.rotate_left(1);
    }
    used - 1
}
