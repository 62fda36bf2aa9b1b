// SPDX-License-Identifier: GPL-2.0

//! Where a network file system reads from, and what of its writes is kept, for any numbers.

use crate::{
    disk::presence::{blocks, parts, Part, Presence, LEAF_WORDS},
    plan::fill::{align, source, touched, Source},
    protocol::BLOCK_SIZE,
    support::check,
};
use proptest::{collection::vec, prelude::any, strategy::Strategy};

const BLOCKS: u64 = 40;

fn map(present: &[bool]) -> Presence<Vec<Part<Vec<u64>>>, Vec<u64>> {
    let size = present.len() as u64;
    let absent = (0..parts(size)).map(|_| Part::Absent).collect();
    let mut map = Presence::new(absent, size);
    for (at, _) in present.iter().enumerate().filter(|(_, present)| **present) {
        let mut spare = Some(vec![0; LEAF_WORDS]);
        assert!(map
            .set(at as u64..at as u64 + 1, true, &mut spare)
            .is_none());
    }
    map
}

#[test]
fn a_read_is_of_present_blocks_or_of_absent_ones() {
    let start = 0..BLOCKS * BLOCK_SIZE;
    let len = 1..BLOCKS * BLOCK_SIZE;
    // The map may be of fewer blocks than the object, or of more.
    let size = 1..BLOCKS * BLOCK_SIZE;
    let present = vec(any::<bool>(), 0..BLOCKS as usize);
    check(
        2000,
        (present, size, start, len),
        |(present, size, start, len)| {
            if start >= size {
                return;
            }
            let (from, count) = source(&map(&present), start, len, size);
            assert!(count > 0 && count <= len, "{count} of {len}");
            let is_present = |block: u64| present.get(block as usize).copied().unwrap_or(false);
            let end = (start + count).min(size);
            for block in start / BLOCK_SIZE..blocks(end) {
                assert_eq!(is_present(block), from == Source::Cache, "{block}");
            }
            // It is not cut without need.
            if count < len {
                assert_eq!((start + count) % BLOCK_SIZE, 0);
                assert!(start + count < size);
                let next = (start + count) / BLOCK_SIZE;
                assert_ne!(is_present(next), from == Source::Cache);
            }
        },
    );
}

#[test]
fn a_write_is_of_whole_blocks_of_what_is_given() {
    let near = || (0u64..4, 0u64..3).prop_map(|(blocks, off)| blocks * BLOCK_SIZE + off);
    let any_size = (near(), near(), any::<bool>(), near());
    check(4000, any_size, |(start, len, at_end, spare)| {
        let size = if at_end { start + len } else { start + len + 1 };
        let Some(aligned) = align(start, len, size, spare) else {
            // No whole block is in it, not even with all that may follow.
            let end = start + len + if at_end { spare } else { 0 };
            let first = start.next_multiple_of(BLOCK_SIZE);
            let whole = first + BLOCK_SIZE <= end && first <= start + len;
            assert!(
                !whole || first == start + len || at_end,
                "{start} {len} {spare}"
            );
            return;
        };
        let (first, end) = (start + aligned.skip, start + aligned.skip + aligned.len);
        assert!(aligned.skip < BLOCK_SIZE && aligned.len > 0);
        assert_eq!((first % BLOCK_SIZE, end % BLOCK_SIZE), (0, 0));
        assert!(end <= start + len + aligned.extend && aligned.extend <= spare);
        // Nothing that makes up a whole block is left out.
        assert!(start + len + aligned.extend < end + BLOCK_SIZE);
        assert!(aligned.extend == 0 || (at_end && end == start + len + aligned.extend));
        let touched = touched(start, len);
        assert!(touched.start * BLOCK_SIZE <= start && touched.end * BLOCK_SIZE >= start + len);
        assert!(touched.start <= first / BLOCK_SIZE && touched.end >= end / BLOCK_SIZE);
    });
}
