// SPDX-License-Identifier: GPL-2.0

//! The map of present blocks.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_presence))]
mod tests {
    use super::super::support::{
        buffer,
        Buf, //
    };
    use crate::{
        disk::{
            list::decode,
            presence::{
                blocks,
                blocks_filled_by,
                needed,
                parts,
                Part,
                Presence,
                LEAF_WORDS, //
            }, //
        },
        protocol::BLOCK_SIZE, //
    };

    const LEAF: u64 = LEAF_WORDS as u64 * 64;

    type Map = Presence<Buf<Part<Buf<u64>>>, Buf<u64>>;

    fn map(blocks: u64) -> Map {
        Presence::new(buffer(parts(blocks) as usize, || Part::Absent), blocks)
    }

    fn mark(map: &mut Map, range: core::ops::Range<u64>) {
        let (mut spare, mut left) = (None, Some(range));
        while let Some(rest) = left {
            left = map.set(rest, true, &mut spare);
            if left.is_some() {
                spare = Some(buffer(LEAF_WORDS, || 0));
            }
        }
    }

    #[test]
    fn what_was_marked_is_found() {
        let mut map = map(3 * LEAF);
        assert_eq!(map.first_gap(0..3 * LEAF), Some(0..3 * LEAF));
        mark(&mut map, LEAF - 1..2 * LEAF + 1);
        assert_eq!(map.find(0, 3 * LEAF, true), LEAF - 1);
        assert_eq!(map.find(LEAF, 3 * LEAF, false), 2 * LEAF + 1);
        assert_eq!(map.first_gap(LEAF - 1..2 * LEAF + 1), None);
        assert_eq!(map.first_gap(0..3 * LEAF), Some(0..LEAF - 1));
        mark(&mut map, 0..3 * LEAF);
        assert_eq!(map.first_gap(0..3 * LEAF), None);
    }

    #[test]
    fn without_memory_nothing_is_present() {
        let mut map = map(LEAF);
        assert_eq!(map.set(5..7, true, &mut None), Some(5..7));
        assert_eq!(map.find(0, LEAF, true), LEAF);
    }

    #[test]
    fn a_block_written_in_part_is_not_filled() {
        let size = 2 * BLOCK_SIZE + 10;
        assert_eq!(blocks_filled_by(0, BLOCK_SIZE - 1, size), 0..0);
        assert_eq!(blocks_filled_by(0, BLOCK_SIZE, size), 0..1);
        assert_eq!(blocks_filled_by(1, BLOCK_SIZE, size), 1..1);
        assert_eq!(blocks_filled_by(2 * BLOCK_SIZE, 9, size), 2..2);
        // The last block is smaller.
        assert_eq!(blocks_filled_by(2 * BLOCK_SIZE, 10, size), 2..3);
        assert_eq!(needed(BLOCK_SIZE - 1, 2, size), 0..2);
        assert_eq!(needed(0, u64::MAX, size), 0..blocks(size));
    }

    #[test]
    fn a_list_says_what_the_map_says() {
        let mut map = map(2 * LEAF);
        mark(&mut map, 3..5);
        mark(&mut map, LEAF..LEAF + 200);
        let mut list = [0; 64];
        let (len, rest) = map.encode(0..u64::MAX, None, Some, &mut list);
        assert_eq!(rest, None);
        assert!(decode(&list[..len]).eq([3..5, LEAF..LEAF + 200]));
        // Half a list says less, never more.
        for cut in 0..len {
            assert!(decode(&list[..cut]).all(|run| map.first_gap(run).is_none()));
        }
        // What does not fit comes next.
        let mut list = [0; 3];
        let (len, rest) = map.encode(0..2 * LEAF, None, Some, &mut list);
        assert_eq!(rest, Some(LEAF));
        assert!(decode(&list[..len]).eq(core::iter::once(3..5)));
        // A part of the object.
        let mut list = [0; 64];
        let (len, _) = map.encode(4..LEAF + 7, None, Some, &mut list);
        assert!(decode(&list[..len]).eq([4..5, LEAF..LEAF + 7]));
    }

    #[test]
    fn a_list_of_some_parts_has_no_more() {
        let mut map = map(2 * LEAF);
        mark(&mut map, 3..50);
        mark(&mut map, 60..61);
        mark(&mut map, LEAF..LEAF + 200);
        let parts = [0..5, 40..100, LEAF + 100..LEAF + 101];
        let within = |range: core::ops::Range<u64>| {
            let part = parts.iter().find(|part| part.end > range.start)?;
            Some(part.start.max(range.start)..part.end.min(range.end))
        };
        let mut list = [0; 64];
        let (len, rest) = map.encode(0..u64::MAX, None, within, &mut list);
        assert_eq!(rest, None);
        assert!(decode(&list[..len]).eq([3..5, 40..50, 60..61, LEAF + 100..LEAF + 101]));
    }

    #[test]
    fn a_list_is_encoded_step_by_step() {
        // Nothing is to be listed, which takes as many steps as there are runs.
        let (mut map, mut except) = (map(LEAF), map(LEAF));
        for at in 0..LEAF / 2 {
            mark(&mut map, 2 * at..2 * at + 1);
            mark(&mut except, 2 * at..2 * at + 1);
        }
        let mut calls = 0;
        let mut next = Some(0);
        while let Some(at) = next {
            let (len, rest) = map.encode(at..u64::MAX, Some(&except), Some, &mut [0; 64]);
            assert_eq!(len, 0);
            assert!(rest.is_none_or(|rest| rest > at));
            next = rest;
            calls += 1;
        }
        assert_eq!(calls, 3);
    }
}
