// SPDX-License-Identifier: GPL-2.0

//! The map of present blocks against a vector of booleans.

use crate::{
    disk::{
        list::decode,
        presence::{blocks, blocks_filled_by, needed, parts, Part, Presence, LEAF_WORDS},
    },
    protocol::BLOCK_SIZE,
    support::check,
};
use proptest::{
    collection::vec,
    prelude::any,
    prop_oneof,
    sample::select,
    strategy::{BoxedStrategy, Strategy},
};
use std::ops::Range;

const LEAF: u64 = LEAF_WORDS as u64 * 64;

type Map = Presence<Vec<Part<Vec<u64>>>, Vec<u64>>;

fn new_map(blocks: u64) -> Map {
    let absent = (0..parts(blocks)).map(|_| Part::Absent).collect();
    Presence::new(absent, blocks)
}

/// Marks as the driver does: leaves are supplied when asked for. Returns how many were used.
fn mark(map: &mut Map, range: Range<u64>) -> usize {
    set(map, range, true)
}

fn set(map: &mut Map, range: Range<u64>, present: bool) -> usize {
    let mut used = 0usize;
    let mut spare = None;
    let mut left = range;
    while let Some(rest) = map.set(left.clone(), present, &mut spare) {
        assert!(rest.start >= left.start && rest.end <= left.end && !rest.is_empty());
        assert!(spare.is_none(), "a spare leaf was there");
        // Whatever it holds.
        spare = Some(vec![0x5555; LEAF_WORDS]);
        left = rest;
        used += 1;
    }
    // One that was not needed, or that is not any more.
    used.saturating_sub(usize::from(spare.is_some()))
}

#[test]
fn a_leaf_is_a_page() {
    assert_eq!((BLOCK_SIZE, LEAF_WORDS * 8), (4096, 4096));
}

#[test]
fn blocks_are_rounded_up() {
    for (bytes, expected) in [
        (0, 0),
        (1, 1),
        (4095, 1),
        (4096, 1),
        (4097, 2),
        (8192, 2),
        (u64::MAX, 1 << 52),
    ] {
        assert_eq!(blocks(bytes), expected, "{bytes}");
    }
}

#[test]
fn parts_are_rounded_up() {
    for (blocks, expected) in [
        (0, 0),
        (1, 1),
        (LEAF, 1),
        (LEAF + 1, 2),
        (3 * LEAF, 3),
        (1 << 52, 1 << 37),
    ] {
        assert_eq!(parts(blocks), expected, "{blocks}");
    }
}

#[test]
fn nothing_is_present_at_first() {
    for size in [0, 1, 63, 64, 65, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF + 7] {
        let map = new_map(size);
        assert_eq!(map.blocks(), size);
        assert_eq!(map.find(0, size, true), size);
        assert_eq!(map.find(0, size, false), 0);
        let all = (size > 0).then_some(0..size);
        assert_eq!(map.first_gap(0..size), all);
        assert_eq!(map.first_gap(0..u64::MAX), all);
    }
}

#[test]
fn whole_parts_need_no_leaf() {
    let mut map = new_map(2 * LEAF + 100);
    let mut none = None;
    assert_eq!(map.set(0..2 * LEAF, true, &mut none), None);
    // The last part is whole with fewer blocks.
    assert_eq!(map.set(2 * LEAF..2 * LEAF + 100, true, &mut none), None);
    assert_eq!(map.first_gap(0..u64::MAX), None);
}

#[test]
fn a_part_that_fills_up_is_whole() {
    for blocks in [100, LEAF] {
        let mut map = new_map(blocks);
        assert_eq!(mark(&mut map, 0..1), 1);
        assert_eq!(mark(&mut map, 1..blocks - 1), 0);
        assert_eq!(map.first_gap(0..blocks), Some(blocks - 1..blocks));
        assert_eq!(mark(&mut map, blocks - 1..blocks), 0);
        assert_eq!(map.first_gap(0..blocks), None);
        assert_eq!(map.find(0, blocks, true), 0);
        // Nothing is allocated for what is present already.
        assert_eq!(map.set(3..7, true, &mut None), None);
    }
}

#[test]
fn a_part_that_fills_up_gives_its_leaf_back() {
    let mut absent: Vec<Part<Vec<u64>>> = vec![Part::Absent, Part::Absent, Part::Absent];
    // The last part has fewer blocks.
    let size = 2 * LEAF + 70;
    let mut map = Presence::new(&mut absent[..], size);
    for range in [0..LEAF - 1, LEAF..LEAF + 9, 2 * LEAF..size - 3] {
        let mut spare = Some(vec![0; LEAF_WORDS]);
        assert_eq!(map.set(range, true, &mut spare), None);
        assert!(spare.is_none());
    }
    assert_eq!(map.set(LEAF - 1..LEAF, true, &mut None), None);
    assert_eq!(map.set(size - 3..size, true, &mut None), None);
    assert!(matches!(
        absent[..],
        [Part::Present, Part::Mixed { count: 9, .. }, Part::Present]
    ));
}

#[test]
fn marking_twice_does_not_count_twice() {
    let mut map = new_map(128);
    for _ in 0..3 {
        mark(&mut map, 0..60);
    }
    assert_eq!(map.first_gap(0..128), Some(60..128));
}

#[test]
fn without_a_spare_leaf_nothing_after_it_is_marked() {
    let mut map = new_map(3 * LEAF);
    let left = map.set(LEAF - 1..3 * LEAF, true, &mut None);
    assert_eq!(left, Some(LEAF - 1..3 * LEAF));
    assert_eq!(map.find(0, 3 * LEAF, true), 3 * LEAF);
    let mut spare = Some(vec![0; LEAF_WORDS]);
    // The first part takes the leaf, the others are whole.
    assert_eq!(map.set(LEAF - 1..3 * LEAF, true, &mut spare), None);
    assert!(spare.is_none());
    assert_eq!(map.first_gap(0..3 * LEAF), Some(0..LEAF - 1));
}

#[test]
fn a_spare_leaf_that_is_not_needed_is_left() {
    let mut map = new_map(LEAF);
    let mut spare = Some(vec![0; LEAF_WORDS]);
    assert_eq!(map.set(0..LEAF, true, &mut spare), None);
    assert!(spare.is_some());
    assert_eq!(map.set(5..6, true, &mut spare), None);
    assert!(spare.is_some());
}

#[test]
fn what_lies_beyond_the_object_is_not_marked() {
    let mut map = new_map(10);
    mark(&mut map, 8..1000);
    assert_eq!(map.find(0, 1000, true), 8);
    assert_eq!(map.find(8, 1000, false), 10);
    assert_eq!(mark(&mut map, 50..60), 0);
    assert_eq!(map.first_gap(0..1000), Some(0..8));
    assert_eq!(map.first_gap(20..1000), None);
    let mut none = new_map(0);
    assert_eq!(none.set(0..10, true, &mut None), None);
}

/// Numbers around which something changes.
fn edges() -> Vec<u64> {
    let mut edges = vec![0, 1, 2, 5];
    for border in [64, 128, LEAF - 64, LEAF, LEAF + 64, 2 * LEAF, 2 * LEAF + 64] {
        edges.extend([border - 2, border - 1, border, border + 1]);
    }
    edges
}

fn number() -> BoxedStrategy<u64> {
    prop_oneof![3 => select(edges()), 1 => 0..2 * LEAF + 200].boxed()
}

fn range() -> BoxedStrategy<Range<u64>> {
    let short = (number(), 0u64..130).prop_map(|(at, len)| at..at + len);
    let long = (number(), number()).prop_map(|(a, b)| a.min(b)..a.max(b));
    prop_oneof![2 => short, 1 => long].boxed()
}

/// What `find` has to say.
fn find(model: &[bool], from: u64, end: u64, present: bool) -> u64 {
    let end = end.min(model.len() as u64);
    (from..end)
        .find(|at| model[*at as usize] == present)
        .unwrap_or(end.max(from))
}

#[test]
fn any_sequence_of_changes_is_found_again() {
    let queries = vec((range(), any::<bool>()), 1..12);
    let steps = vec((range(), any::<bool>(), queries), 1..12);
    check(400, (number(), steps), |(size, steps)| {
        let mut map = new_map(size);
        let mut model = vec![false; size as usize];
        for (range, present, queries) in steps {
            set(&mut map, range.clone(), present);
            let end = range.end.min(size);
            for at in range.start..end {
                model[at as usize] = present;
            }
            for (range, present) in queries {
                let (from, to) = (range.start, range.end);
                let expected = find(&model, from, to, present);
                assert_eq!(map.find(from, to, present), expected);

                let start = find(&model, from, to, false);
                let gap = (start < to.min(size)).then(|| start..find(&model, start, to, true));
                assert_eq!(map.first_gap(range), gap);
            }
        }
        // Every border, from one end to the other.
        let (mut at, mut present) = (0, true);
        while at < size {
            let next = find(&model, at, size, present);
            assert_eq!(map.find(at, size, present), next);
            (at, present) = (next, !present);
        }
    });
}

fn any_map(size: u64, steps: &[(Range<u64>, bool)]) -> Map {
    let mut map = new_map(size);
    for (range, present) in steps {
        set(&mut map, range.clone(), *present);
    }
    map
}

/// All runs, from one end to the other.
fn runs(map: &Map) -> Vec<Range<u64>> {
    let (mut runs, mut at) = (vec![], 0);
    loop {
        let start = map.find(at, map.blocks(), true);
        if start >= map.blocks() {
            return runs;
        }
        at = map.find(start, map.blocks(), false);
        runs.push(start..at);
    }
}

#[test]
fn what_is_taken_away_is_gone_and_no_more() {
    let steps = || vec((range(), any::<bool>()), 0..8);
    check(400, (number(), steps(), steps()), |(size, one, two)| {
        let (mut map, mut other) = (any_map(size, &one), any_map(size, &two));
        let (before, taken) = (any_map(size, &one), any_map(size, &two));
        map.take_away(&mut other);
        assert_eq!(runs(&other), []);
        let has = |map: &Map, at| map.find(at, at + 1, true) == at;
        for at in 0..size {
            assert_eq!(has(&map, at), has(&before, at) && !has(&taken, at), "{at}");
        }
        // The counts are right, too: it can be filled and emptied.
        set(&mut map, 0..size, true);
        assert_eq!(map.first_gap(0..size), None);
    });
}

/// Makes a map larger or smaller, as the driver does.
fn resize(map: &mut Map, blocks: u64) {
    let mut spare = None;
    let mut new = (0..parts(blocks)).map(|_| Part::Absent).collect();
    while !map.resize(blocks, &mut new, &mut spare) {
        assert!(spare.is_none(), "a spare leaf was there");
        spare = Some(vec![0x5555; LEAF_WORDS]);
    }
}

#[test]
fn a_map_of_another_size_has_the_same_blocks() {
    let steps = || vec((range(), any::<bool>()), 0..8);
    let sizes = vec((number(), steps()), 1..5);
    check(400, (number(), steps(), sizes), |(size, first, sizes)| {
        let mut map = any_map(size, &first);
        let has = |map: &Map, at| at < map.blocks() && map.find(at, at + 1, true) == at;
        let mut model: Vec<bool> = (0..size).map(|at| has(&map, at)).collect();
        for (size, steps) in sizes {
            resize(&mut map, size);
            model.resize(size as usize, false);
            assert_eq!(map.blocks(), size);
            for (range, present) in steps {
                set(&mut map, range.clone(), present);
                for at in range.start..range.end.min(size) {
                    model[at as usize] = present;
                }
            }
            for at in 0..size {
                assert_eq!(has(&map, at), model[at as usize], "{at} of {size}");
            }
        }
        // The counts are right, too: it can be filled and emptied without a leaf.
        let size = map.blocks();
        set(&mut map, 0..size, true);
        for leaf in 0..parts(size) {
            assert_eq!(map.set(leaf * LEAF..size, true, &mut None), None);
        }
        assert_eq!(map.first_gap(0..size), None);
    });
}

#[test]
fn a_list_leaves_out_what_it_is_told_to() {
    let steps = || vec((range(), any::<bool>()), 0..8);
    check(400, (number(), steps(), steps()), |(size, one, two)| {
        let (map, except) = (any_map(size, &one), any_map(size, &two));
        let (mut listed, mut next, mut buf) = (Vec::new(), Some(0), [0; 24]);
        // Buffer by buffer.
        while let Some(at) = next {
            let (len, rest) = map.encode(at..u64::MAX, Some(&except), Some, &mut buf);
            listed.extend(decode(&buf[..len]));
            next = rest;
        }
        let (mut left, mut taken) = (any_map(size, &one), any_map(size, &two));
        left.take_away(&mut taken);
        assert_eq!(listed, runs(&left));
    });
}

#[test]
fn filling_every_gap_makes_an_object_whole() {
    let sizes = prop_oneof![number(), 1u64..200];
    check(200, (sizes, vec(range(), 0..8)), |(size, marks)| {
        let mut map = new_map(size);
        for range in marks {
            mark(&mut map, range);
        }
        while let Some(gap) = map.first_gap(0..size) {
            assert!(!gap.is_empty() && gap.end <= size);
            assert_eq!(map.find(gap.start, gap.end, true), gap.end);
            mark(&mut map, gap);
        }
        assert_eq!(map.find(0, size, false), size);
        for leaf in 0..parts(size) {
            // No leaf is left: this marks without one.
            assert_eq!(map.set(leaf * LEAF..size, true, &mut None), None);
        }
    });
}

/// Whether a block lies, as far as the object reaches, in a range of bytes.
fn block_in(block: u64, bytes: &Range<u64>, size: u64) -> bool {
    let (start, end) = (block * BLOCK_SIZE, ((block + 1) * BLOCK_SIZE).min(size));
    start < size && bytes.start <= start && end <= bytes.end
}

/// Whether a block has a byte of the object in a range of bytes.
fn block_touches(block: u64, bytes: &Range<u64>, size: u64) -> bool {
    let (start, end) = (block * BLOCK_SIZE, ((block + 1) * BLOCK_SIZE).min(size));
    bytes.start.max(start) < bytes.end.min(end)
}

fn bytes() -> BoxedStrategy<u64> {
    let near = (0u64..6, 0u64..5)
        .prop_map(|(block, around)| (block * BLOCK_SIZE + around).saturating_sub(2));
    prop_oneof![3 => near, 1 => 0..6 * BLOCK_SIZE].boxed()
}

#[test]
fn a_write_fills_the_blocks_that_it_covers() {
    check(5000, (bytes(), bytes(), bytes()), |(off, len, size)| {
        let filled = blocks_filled_by(off, len, size);
        let written = off..off + len;
        for block in 0..16 {
            let expected = block_in(block, &written, size);
            assert_eq!(filled.contains(&block), expected, "block {block}");
        }
    });
}

#[test]
fn a_read_needs_the_blocks_that_it_touches() {
    let lengths = bytes().prop_map(|len| len.max(1));
    check(5000, (bytes(), lengths, bytes()), |(off, len, size)| {
        let needed = needed(off, len, size);
        let wanted = off..off + len;
        for block in 0..16 {
            let expected = block_touches(block, &wanted, size);
            // Beyond the last byte there is nothing to need, but a block that has it is whole.
            let last = block + 1 == blocks(size) && block_touches(block, &wanted, u64::MAX);
            assert_eq!(needed.contains(&block), expected || last, "block {block}");
        }
        assert!(needed.end <= blocks(size));
    });
}

#[test]
fn writes_and_reads_at_the_borders() {
    assert_eq!(blocks_filled_by(0, 4096, 8192), 0..1);
    assert_eq!(blocks_filled_by(0, 4095, 8192), 0..0);
    assert_eq!(blocks_filled_by(1, 8191, 8192), 1..2);
    // The last block has fewer bytes.
    assert_eq!(blocks_filled_by(0, 100, 100), 0..1);
    assert!(blocks_filled_by(0, 99, 100).is_empty());
    assert_eq!(blocks_filled_by(0, 4096, 100), 0..1);
    assert!(blocks_filled_by(50, 50, 100).is_empty());
    assert!(blocks_filled_by(0, 0, 0).is_empty());
    assert!(blocks_filled_by(u64::MAX, u64::MAX, u64::MAX).is_empty());
    assert_eq!(needed(0, 1, 1 << 20), 0..1);
    assert_eq!(needed(4095, 2, 1 << 20), 0..2);
    assert_eq!(needed(0, 1 << 20, 4097), 0..2);
    assert!(needed(8192, 4096, 4097).is_empty());
    assert!(needed(0, 4096, 0).is_empty());
    assert_eq!(needed(0, u64::MAX, 1 << 40), 0..1 << 28);
}

#[test]
fn what_a_write_fills_a_read_of_it_needs() {
    check(3000, (bytes(), bytes(), bytes()), |(off, len, size)| {
        // A write of whole blocks to the end of the object fills all that is read there.
        let off = off / BLOCK_SIZE * BLOCK_SIZE;
        let len = len.next_multiple_of(BLOCK_SIZE);
        if len > 0 && off < size {
            assert_eq!(blocks_filled_by(off, len, size), needed(off, len, size));
        }
    });
}
