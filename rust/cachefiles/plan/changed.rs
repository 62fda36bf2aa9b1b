// SPDX-License-Identifier: GPL-2.0

//! Where in an object blocks became present since that was last written down.
//!
//! A few ranges with all of these blocks in them, and maybe others: what is written down grows with
//! what changed, not with the object, and remembering it takes no memory of its own.

use core::ops::Range;

const RANGES: usize = 4;

/// See the [module's description](self).
#[derive(Default)]
pub(crate) struct Changed {
    /// The first `used` are in order, not empty, and do not touch.
    ranges: [Range<u64>; RANGES],
    used: usize,
}

impl Changed {
    /// Remembers that blocks of `range` became present.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() || self.extends_last(&range) {
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
        for old in self.ranges.iter().take(self.used) {
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
        }
        for (slot, range) in self.ranges.iter_mut().zip(kept) {
            *slot = range;
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

    /// The ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().take(self.used).cloned()
    }

    /// Takes all of them out.
    pub(crate) fn take(&mut self) -> Self {
        core::mem::take(self)
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
