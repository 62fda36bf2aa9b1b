// SPDX-License-Identifier: GPL-2.0

//! What is known of an object's blocks.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_blocks))]
mod tests {
    use super::super::support::{
        buffer,
        Buf, //
    };
    use crate::{
        disk::{
            list::decode,
            presence::{
                parts,
                Part,
                Presence,
                LEAF_BLOCKS,
                LEAF_WORDS, //
            }, //
        },
        plan::{
            blocks::{
                Blocks,
                Look,
                Unverified, //
            },
            changed::Changed, //
        }, //
    };
    use core::ops::Range;

    type Map = Presence<Buf<Part<Buf<u64>>>, Buf<u64>>;
    type Tested = Blocks<Buf<Part<Buf<u64>>>, Buf<u64>>;

    const SIZE: u64 = 3 * LEAF_BLOCKS;

    fn map() -> Map {
        Presence::new(buffer(parts(SIZE) as usize, || Part::Absent), SIZE)
    }

    fn blocks() -> Tested {
        Blocks::new(map(), map(), 1)
    }

    /// Does something for which leaves are needed.
    fn all(
        range: Range<u64>,
        mut step: impl FnMut(Range<u64>, &mut Option<Buf<u64>>) -> Option<Range<u64>>,
    ) {
        let (mut left, mut spare) = (Some(range), None);
        while let Some(rest) = left {
            left = step(rest, &mut spare);
            if left.is_some() && spare.is_none() {
                spare = Some(buffer(LEAF_WORDS, || 0x5555));
            }
        }
    }

    fn write(blocks: &mut Tested, range: Range<u64>) {
        all(range, |range, spare| blocks.add_unverified(range, spare));
    }

    fn find(blocks: &mut Tested, range: Range<u64>) {
        all(range, |range, spare| blocks.add_verified(range, spare));
    }

    fn trust(blocks: &mut Tested, unverified: &Unverified, end: u64, is_clean: bool) {
        all(unverified.blocks.start..end, |range, spare| {
            blocks.mark_on_disk(unverified, range, is_clean, spare)
        });
    }

    fn forget(blocks: &mut Tested, unverified: &Unverified, lost: Range<u64>) {
        all(lost, |range, spare| blocks.forget(unverified, range, spare));
    }

    fn unverified(blocks: &Tested, range: Range<u64>) -> Option<Unverified> {
        match blocks.look(range, None, 0) {
            Look::Unverified(unverified) => Some(unverified),
            _ => None,
        }
    }

    fn unverified_in(blocks: &Tested, range: Range<u64>) -> Option<Range<u64>> {
        unverified(blocks, range).map(|unverified| unverified.blocks)
    }

    /// Writing over what is there takes a leaf each time, and gives it back.
    #[test]
    fn the_leaf_of_a_block_that_is_written_again_is_kept() {
        let mut blocks = blocks();
        find(&mut blocks, 0..SIZE);
        let mut spare = None;
        assert_eq!(blocks.discard(5..6, &mut spare), Some(5..6));
        spare = Some(buffer(LEAF_WORDS, || 0x5555));
        assert_eq!(blocks.discard(5..6, &mut spare), None);
        assert!(spare.is_none());
        assert_eq!(blocks.add_verified(5..6, &mut spare), None);
        assert!(spare.is_none());
        // Without another leaf.
        assert_eq!(blocks.discard(7..8, &mut spare), None);
        assert_eq!(blocks.look(6..9, None, 0), Look::Gap(7..8));
        // There is one, and that is in use.
        let other = LEAF_BLOCKS..LEAF_BLOCKS + 1;
        assert_eq!(blocks.discard(other.clone(), &mut spare), Some(other));
        // What it had of before is not taken for present.
        assert_eq!(blocks.add_verified(7..8, &mut spare), None);
        assert_eq!(blocks.discard(9..10, &mut spare), None);
        assert_eq!(blocks.look(0..9, None, 0), Look::Ready);
        assert_eq!(blocks.look(9..20, None, 0), Look::Gap(9..10));
    }

    /// What is only filled keeps no memory.
    #[test]
    fn the_leaf_of_a_part_that_fills_up_is_given_back() {
        let mut blocks = blocks();
        find(&mut blocks, 1..LEAF_BLOCKS);
        let mut spare = None;
        assert_eq!(blocks.discard(0..1, &mut spare), None);
        assert_eq!(blocks.add_verified(0..1, &mut spare), None);
        assert!(spare.is_some());
    }

    /// Else whoever looks until there is nothing left to be done never ends.
    #[test]
    fn a_map_that_was_taken_away_has_nothing() {
        let none = || Map::new(buffer(0, || Part::Absent), 0);
        let blocks = Tested::new(none(), none(), 0);
        assert_eq!(blocks.look(7..8, Some(1), 0), Look::Gap(7..8));
        assert_eq!(blocks.look(7..8, None, 0), Look::Gap(7..8));
        assert_eq!(blocks.look(0..1, Some(0), 0), Look::Gap(0..1));
    }

    #[test]
    fn what_was_found_is_read_without_looking() {
        let mut blocks = blocks();
        find(&mut blocks, 3..9);
        assert_eq!(blocks.look(3..9, Some(1), 0), Look::Ready);
        assert_eq!(blocks.look(2..9, Some(1), 0), Look::Gap(2..3));
        assert_eq!(blocks.look(3..9, Some(2), 0), Look::Changed);
        // What is missing is missing in any case.
        assert_eq!(blocks.look(3..10, Some(2), 0), Look::Gap(9..10));
    }

    #[test]
    fn what_was_written_is_looked_for_once() {
        let mut blocks = blocks();
        find(&mut blocks, 0..4);
        write(&mut blocks, 4..8);
        assert_eq!(blocks.look(0..4, Some(1), 0), Look::Ready);
        assert_eq!(unverified_in(&blocks, 0..8), Some(4..8));
        // What this read has looked at already.
        assert_eq!(blocks.look(0..8, None, 8), Look::Ready);
        let was = unverified(&blocks, 0..6);
        assert!(was.is_some());
        let Some(was) = was else { return };
        trust(&mut blocks, &was, 6, false);
        assert_eq!(unverified_in(&blocks, 0..8), Some(6..8));
        // All of it, as nothing is dirty.
        let was = unverified(&blocks, 6..7);
        assert!(was.is_some());
        let Some(was) = was else { return };
        trust(&mut blocks, &was, SIZE, true);
        assert_eq!(blocks.look(0..8, Some(1), 0), Look::Ready);
    }

    #[test]
    fn what_is_written_meanwhile_stays_unverified() {
        let mut blocks = blocks();
        write(&mut blocks, 0..2);
        let was = unverified(&blocks, 0..1);
        assert!(was.is_some());
        let Some(was) = was else { return };
        write(&mut blocks, 5..6);
        trust(&mut blocks, &was, SIZE, true);
        assert_eq!(unverified_in(&blocks, 0..2), Some(1..2));
        assert_eq!(unverified_in(&blocks, 5..6), Some(5..6));
    }

    #[test]
    fn what_is_lost_is_forgotten_and_no_more() {
        let mut blocks = blocks();
        write(&mut blocks, 0..SIZE);
        let was = unverified(&blocks, 0..SIZE);
        assert!(was.is_some());
        let Some(was) = was else { return };
        forget(&mut blocks, &was, 7..9);
        assert_eq!(blocks.look(0..SIZE, None, 0), Look::Gap(7..9));
        // Who looked before that has to look again.
        forget(&mut blocks, &was, 20..21);
        trust(&mut blocks, &was, 30, true);
        assert_eq!(blocks.look(0..SIZE, None, 0), Look::Gap(7..9));
        assert_eq!(unverified_in(&blocks, 9..SIZE), Some(9..SIZE));
        write(&mut blocks, 7..9);
        assert_eq!(unverified_in(&blocks, 0..SIZE), Some(0..SIZE));
    }

    #[test]
    fn changes_by_others_unverify_all() {
        let mut blocks = blocks();
        find(&mut blocks, 0..10);
        write(&mut blocks, 10..20);
        let was = unverified(&blocks, 10..20);
        assert!(was.is_some());
        let Some(was) = was else { return };
        let _old = blocks.unverify_all(map().filled(), 2);
        assert_eq!(blocks.look(0..20, Some(1), 0), Look::Changed);
        assert_eq!(unverified_in(&blocks, 0..20), Some(0..20));
        // What was seen before is not believed.
        trust(&mut blocks, &was, 20, true);
        assert_eq!(unverified_in(&blocks, 0..20), Some(0..20));
        let now = unverified(&blocks, 3..5);
        assert!(now.is_some());
        let Some(now) = now else { return };
        trust(&mut blocks, &now, 20, true);
        assert_eq!(blocks.look(3..20, Some(2), 0), Look::Ready);
        assert_eq!(unverified_in(&blocks, 0..20), Some(0..3));
        // Once for each change, however many notice it.
        let _unused = blocks.unverify_all(map().filled(), 2);
        assert_eq!(blocks.look(3..20, Some(2), 0), Look::Ready);
    }

    #[test]
    fn what_could_not_be_written_back_is_forgotten() {
        let mut blocks = blocks();
        find(&mut blocks, 0..LEAF_BLOCKS + 5);
        // In a part that is there as a whole, in one that is not, and all of one.
        write(&mut blocks, 3..4);
        write(&mut blocks, LEAF_BLOCKS + 4..LEAF_BLOCKS + 7);
        write(&mut blocks, 2 * LEAF_BLOCKS..SIZE);
        let _old = blocks.forget_unverified(map().filled());
        // What is left has to be looked for, too.
        assert_eq!(unverified_in(&blocks, 0..3), Some(0..3));
        assert_eq!(blocks.look(0..10, Some(1), 0), Look::Gap(3..4));
        let rest = 4..LEAF_BLOCKS + 4;
        assert_eq!(unverified_in(&blocks, rest.clone()), Some(rest));
        let end = blocks.look(LEAF_BLOCKS..SIZE, Some(1), 0);
        assert_eq!(end, Look::Gap(LEAF_BLOCKS + 4..SIZE));
        // And can be written again.
        write(&mut blocks, 3..4);
        assert_eq!(unverified_in(&blocks, 0..10), Some(0..10));
    }

    #[test]
    fn list_names_what_is_on_the_disk() {
        let mut blocks = blocks();
        find(&mut blocks, 0..10);
        find(&mut blocks, 20..30);
        write(&mut blocks, 4..6);
        write(&mut blocks, 15..22);
        let mut list = [0; 64];
        let (len, _) = blocks.encode_verified(0..SIZE, &mut list);
        assert!(decode(&list[..len]).eq([0..4, 6..10, 22..30]));
    }

    /// Whether the list of what changed is just these blocks.
    fn lists(blocks: &Tested, changes: &Changed<Buf<u64>>, run: Option<Range<u64>>) -> bool {
        let mut list = [0; 64];
        let (len, rest) = blocks.encode(0..SIZE, Some(changes), &mut list);
        rest.is_none() && decode(&list[..len]).eq(run)
    }

    #[test]
    fn changes_are_what_became_present() {
        let mut blocks = blocks();
        // Without a list to be appended to, they are not remembered.
        write(&mut blocks, 0..1);
        let changes = blocks.take_changes().unwrap();
        assert!(lists(&blocks, &changes, None));
        find(&mut blocks, 0..10);
        write(&mut blocks, 8..12);
        let changes = blocks.take_changes().unwrap();
        assert!(lists(&blocks, &changes, Some(0..12)));
        // They are taken once, and what is listed already is none.
        all(20..30, |range, spare| blocks.listed(range, spare));
        assert_eq!(unverified_in(&blocks, 20..30), Some(20..30));
        let changes = blocks.take_changes().unwrap();
        assert!(lists(&blocks, &changes, None));
        // After a loss, a list has to be made anew, once.
        all(21..22, |range, spare| blocks.discard(range, spare));
        write(&mut blocks, 40..41);
        assert!(blocks.take_changes().is_none());
        write(&mut blocks, 50..51);
        let changes = blocks.take_changes().unwrap();
        assert!(lists(&blocks, &changes, Some(50..51)));
    }

    #[test]
    fn many_changes_are_listed_alone() {
        let mut blocks = blocks();
        // All that is between them is listed already.
        find(&mut blocks, 0..LEAF_BLOCKS);
        let changed = (0..8).map(|n| LEAF_BLOCKS + n * 100);
        blocks.set_appended_to(true);
        let _listed = blocks.take_changes();
        for at in changed.clone() {
            assert!(!blocks.wants_leaf() || at > LEAF_BLOCKS + 300);
            write(&mut blocks, at..at + 1);
        }
        assert!(blocks.wants_leaf());
        assert!(blocks.remember_in(buffer(LEAF_WORDS, || 1)).is_none());
        assert!(!blocks.wants_leaf());
        find(&mut blocks, LEAF_BLOCKS - 1..LEAF_BLOCKS);
        let changes = blocks.take_changes().unwrap();
        let mut list = [0; 64];
        let (len, _) = blocks.encode(0..SIZE, Some(&changes), &mut list);
        // A bit is for four blocks of an object of this size.
        let mut runs = decode(&list[..len]);
        assert_eq!(runs.next(), Some(LEAF_BLOCKS - 4..LEAF_BLOCKS + 1));
        assert!(runs.eq(changed.skip(1).map(|at| at..at + 1)));
    }
}
