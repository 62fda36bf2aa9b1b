// SPDX-License-Identifier: GPL-2.0

//! Where blocks became present, against a set of all of them.

use crate::{
    disk::presence::{LEAF_BLOCKS, LEAF_WORDS},
    plan::changed::Changed,
    support::check,
};
use proptest::{collection::vec, option, strategy::Strategy};
use std::{iter::successors, ops::Range};

fn all(changed: &Changed<Vec<u64>>) -> Vec<Range<u64>> {
    successors(changed.next(0), |last| changed.next(last.end)).collect()
}

fn ranges(blocks: u64, count: usize) -> impl Strategy<Value = Vec<Range<u64>>> {
    vec(
        (0..blocks, 0u64..30).prop_map(|(start, len)| start..start + len),
        0..count,
    )
}

#[test]
fn nothing_that_changed_is_left_out() {
    check(2000, ranges(400, 40), |ranges| {
        let mut changed = Changed::default();
        for range in &ranges {
            changed.add(range.clone());
        }
        let kept = all(&changed);
        assert!(kept.len() <= 4);
        assert!(kept.iter().all(|range| !range.is_empty()));
        // In order, and apart.
        assert!(kept.windows(2).all(|pair| pair[0].end < pair[1].start));
        for at in ranges.iter().cloned().flatten() {
            assert!(kept.iter().any(|range| range.contains(&at)), "{at}");
        }
        // No larger than what they are of.
        for range in &kept {
            assert!(ranges
                .iter()
                .any(|r| !r.is_empty() && r.start == range.start));
            assert!(ranges.iter().any(|r| r.end == range.end));
        }
        let apart = |at| !ranges.iter().cloned().flatten().any(|block| block == at);
        let is_exact = !kept.iter().cloned().flatten().any(apart);
        assert!(is_exact || changed.is_crowded());
    });
}

#[test]
fn in_a_leaf_the_rest_is_left_out() {
    // Objects of which a bit is for one block, and for more; and one that has grown since.
    let sizes = (1..40 * LEAF_BLOCKS).prop_flat_map(|size| {
        let ranges = ranges(size + size / 4, 60);
        (ranges, option::of(0usize..60)).prop_map(move |(ranges, at)| (size, ranges, at))
    });
    check(500, sizes, |(size, ranges, leaf_at)| {
        let mut changed = Changed::default();
        let mut is_crowded = false;
        for (n, range) in ranges.iter().enumerate() {
            if leaf_at == Some(n) {
                is_crowded = changed.is_crowded();
                assert_eq!(changed.use_leaf(vec![7; LEAF_WORDS], size), None);
            }
            changed.add(range.clone());
        }
        let kept = all(&changed);
        assert!(kept.windows(2).all(|pair| pair[0].end < pair[1].start));
        for at in ranges.iter().cloned().flatten() {
            assert!(kept.iter().any(|range| range.contains(&at)), "{at}");
        }
        if is_crowded || leaf_at.is_none_or(|at| at >= ranges.len()) {
            return;
        }
        let per_bit = size.div_ceil(LEAF_BLOCKS).next_power_of_two();
        let bit = |at: u64| (at / per_bit).min(LEAF_BLOCKS - 1);
        let mut bits: Vec<u64> = ranges.iter().cloned().flatten().map(bit).collect();
        bits.sort_unstable();
        bits.dedup();
        let end = |range: &Range<u64>| match range.end {
            u64::MAX => LEAF_BLOCKS,
            end => end.div_ceil(per_bit),
        };
        let covered: u64 = kept.iter().map(|range| end(range) - bit(range.start)).sum();
        assert_eq!(covered, bits.len() as u64);
    });
}
