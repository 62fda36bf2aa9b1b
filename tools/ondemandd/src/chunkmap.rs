// SPDX-License-Identifier: GPL-2.0-or-later

//! Which granules of a blob are in the cache file, and which are being fetched right now.
//!
//! A granule is the unit of fetching: a READ is rounded out to whole granules. The map remembers only
//! what this process has seen, so its size follows what was used, not the size of the blob.

use std::collections::HashMap;
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not known to be there: ask the cache file, then fetch what is missing.
    Unknown,
    /// Some thread is fetching it.
    Busy,
    /// This process has written it or has found it complete in the cache file.
    Present,
}

/// The states of one blob's granules.
#[derive(Debug)]
pub struct ChunkMap {
    size: u64,
    granule: u64,
    states: HashMap<u64, State>,
}

impl ChunkMap {
    /// A map of `size` bytes in granules of `granule` bytes (a power of two).
    pub fn new(size: u64, granule: u64) -> Self {
        assert!(granule.is_power_of_two());
        Self {
            size,
            granule,
            states: HashMap::new(),
        }
    }

    /// The granules that `off..off+len` touches, clamped to the blob.
    pub fn covering(&self, off: u64, len: u64) -> Range<u64> {
        let end = off.saturating_add(len).min(self.size);
        if off >= end {
            return 0..0;
        }
        off / self.granule..end.div_ceil(self.granule)
    }

    /// The bytes of a run of granules, clamped to the blob.
    pub fn bytes(&self, run: &Range<u64>) -> Range<u64> {
        let at = |index: u64| index.saturating_mul(self.granule).min(self.size);
        at(run.start)..at(run.end)
    }

    pub fn state(&self, index: u64) -> State {
        self.states.get(&index).copied().unwrap_or(State::Unknown)
    }

    /// How many granules end at `pos` or before it. The last one ends with the blob.
    pub fn granules_before(&self, pos: u64) -> u64 {
        if pos >= self.size {
            return self.size.div_ceil(self.granule);
        }
        pos / self.granule
    }

    /// What was present there is not there any more.
    pub fn forget(&mut self, granules: &[u64]) {
        for index in granules {
            if self.state(*index) == State::Present {
                self.states.remove(index);
            }
        }
    }

    /// Claims what in `span` nobody has: every granule that is unknown. Claimed granules are busy until
    /// [`release`](Self::release).
    pub fn claim(&mut self, span: Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for index in span {
            if self.state(index) != State::Unknown {
                continue;
            }
            self.states.insert(index, State::Busy);
            match runs.last_mut() {
                Some(run) if run.end == index => run.end += 1,
                _ => runs.push(index..index + 1),
            }
        }
        runs
    }

    /// Ends a claim: the run is present, or unknown again if fetching it failed.
    pub fn release(&mut self, run: &Range<u64>, present: bool) {
        for index in run.clone() {
            debug_assert_eq!(self.state(index), State::Busy);
            if present {
                self.states.insert(index, State::Present);
            } else {
                self.states.remove(&index);
            }
        }
    }

    /// Whether all of `span` is in state `state`.
    pub fn all(&self, span: &Range<u64>, state: State) -> bool {
        span.clone().all(|index| self.state(index) == state)
    }

    /// The first granule of `span` that is in state `state`.
    pub fn first(&self, span: &Range<u64>, state: State) -> Option<u64> {
        span.clone().find(|&index| self.state(index) == state)
    }
}

/// Sorts ranges and joins those that touch.
pub fn merge(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|r| r.start < r.end);
    ranges.sort_by_key(|r| r.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn covering_is_clamped_to_the_blob() {
        let map = ChunkMap::new(10_000, 4096);
        assert_eq!(map.covering(0, 1), 0..1);
        assert_eq!(map.covering(4095, 2), 0..2);
        assert_eq!(map.covering(8192, 1 << 40), 2..3);
        assert_eq!(map.covering(12_000, 4096), 0..0);
        assert_eq!(map.covering(u64::MAX, u64::MAX), 0..0);
        assert_eq!(map.bytes(&(2..3)), 8192..10_000);
        let before =
            [0, 4095, 4096, 8192, 9999, 10_000, u64::MAX].map(|pos| map.granules_before(pos));
        assert_eq!(before, [0, 0, 1, 2, 2, 3, 3]);
        assert_eq!(ChunkMap::new(0, 4096).covering(0, 4096), 0..0);
    }

    #[test]
    fn busy_is_not_claimed_twice_and_failure_frees_it() {
        let mut map = ChunkMap::new(1 << 20, 1 << 12);
        assert_eq!(map.claim(2..4), [2..4]);
        assert_eq!(map.claim(0..6), [0..2, 4..6]);
        map.release(&(2..4), false);
        assert!(map.all(&(2..4), State::Unknown));
        map.release(&(0..2), true);
        assert!(map.claim(0..2).is_empty());
        assert_eq!(map.first(&(0..6), State::Busy), Some(4));
        // What is busy is not forgotten.
        map.forget(&[1, 4]);
        assert_eq!(map.claim(0..6), [1..4]);
    }

    proptest! {
        #[test]
        fn covering_covers_and_no_more(size in 0u64..1 << 40, shift in 12u32..24, off: u64, len: u64) {
            let map = ChunkMap::new(size, 1 << shift);
            let bytes = map.bytes(&map.covering(off, len));
            let want = off.min(size)..off.saturating_add(len).min(size);
            if want.is_empty() {
                prop_assert!(bytes.is_empty());
            } else {
                prop_assert!(bytes.start <= want.start && want.end <= bytes.end && bytes.end <= size);
                prop_assert!(want.start - bytes.start < 1 << shift);
                prop_assert!(bytes.end - want.end < 1 << shift);
            }
        }

        /// Against a model: at any time no granule has two owners, and what was released as present
        /// stays so.
        #[test]
        fn claims_are_exclusive(steps in proptest::collection::vec((0u64..40, 1u64..10, any::<bool>()), 1..60)) {
            let mut map = ChunkMap::new(40 << 12, 1 << 12);
            let mut owned: Vec<Range<u64>> = Vec::new();
            let mut present = std::collections::BTreeSet::new();
            for (start, len, flag) in steps {
                for run in map.claim(start..(start + len).min(40)) {
                    for index in run.clone() {
                        prop_assert!(!owned.iter().any(|r| r.contains(&index)));
                        prop_assert!(!present.contains(&index));
                    }
                    owned.push(run);
                }
                if flag && !owned.is_empty() {
                    let run = owned.remove(0);
                    map.release(&run, len % 2 == 0);
                    if len % 2 == 0 {
                        present.extend(run);
                    }
                }
            }
            for index in 0..40 {
                let want = if present.contains(&index) { State::Present }
                    else if owned.iter().any(|r| r.contains(&index)) { State::Busy }
                    else { State::Unknown };
                prop_assert_eq!(map.state(index), want);
            }
        }

        #[test]
        fn merge_keeps_the_set(ranges in proptest::collection::vec((0u64..100, 0u64..20), 0..20)) {
            let ranges: Vec<_> = ranges.into_iter().map(|(s, l)| s..s + l).collect();
            let merged = merge(ranges.clone());
            for x in 0..130 {
                prop_assert_eq!(ranges.iter().any(|r| r.contains(&x)), merged.iter().any(|r| r.contains(&x)));
            }
            prop_assert!(merged.windows(2).all(|w| w[0].end < w[1].start));
        }
    }
}
