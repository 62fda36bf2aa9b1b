// SPDX-License-Identifier: GPL-2.0

//! Where a network file system reads from, and what of its writes is kept, for any numbers.

use crate::{
    disk::presence::{blocks, parts, Part, Presence, LEAF_WORDS},
    plan::source::{align, source, touched, ReadFrom},
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
                assert_eq!(is_present(block), from == ReadFrom::Cache, "{block}");
            }
            // It is not cut without need.
            if count < len {
                assert_eq!((start + count) % BLOCK_SIZE, 0);
                let next = (start + count) / BLOCK_SIZE;
                // What is behind the last block is not in the file.
                let is_end = next >= blocks(size);
                assert!(is_end || is_present(next) != (from == ReadFrom::Cache));
                assert!(!is_end || from == ReadFrom::Cache);
            }
        },
    );
}

#[test]
fn a_write_is_of_whole_blocks_of_what_is_given() {
    let near = || (0u64..4, 0u64..3).prop_map(|(blocks, off)| blocks * BLOCK_SIZE + off);
    check(4000, (near(), near(), near()), |(start, len, spare)| {
        let end = start + len;
        let first = start.next_multiple_of(BLOCK_SIZE);
        let Some(aligned) = align(start, len, spare) else {
            // No whole block is in it, not even with all that may follow.
            assert!(first >= end || first + BLOCK_SIZE > end + spare);
            return;
        };
        assert!(first < end);
        assert_eq!((start + aligned.skip, aligned.len % BLOCK_SIZE), (first, 0));
        let written = first + aligned.len;
        assert!(written > first && written <= end + aligned.extend && aligned.extend <= spare);
        // Nothing that makes up a whole block is left out, and no more is taken in than needed.
        assert!(end + aligned.extend < written + BLOCK_SIZE);
        assert!(aligned.extend < BLOCK_SIZE);
        assert!(aligned.extend == 0 || written == end + aligned.extend);
        assert!(written >= end || end.next_multiple_of(BLOCK_SIZE) > end + spare);
        let touched = touched(start, len);
        assert!(touched.start * BLOCK_SIZE <= start && touched.end * BLOCK_SIZE >= end);
        assert!(touched.start <= first / BLOCK_SIZE && touched.end >= written / BLOCK_SIZE);
    });
}
