// SPDX-License-Identifier: GPL-2.0

//! Where blocks became present.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_changed))]
mod tests {
    use super::super::support::{
        buffer,
        Buf, //
    };
    use crate::{
        disk::presence::{
            LEAF_BLOCKS,
            LEAF_WORDS, //
        },
        plan::changed::Changed, //
    };
    use core::{
        iter::{
            once,
            successors, //
        },
        ops::Range, //
    };

    fn all(changed: &Changed<Buf<u64>>) -> impl Iterator<Item = Range<u64>> + '_ {
        successors(changed.next(0), |last| changed.next(last.end))
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let mut changed = Changed::default();
        changed.add(10..12);
        changed.add(12..14);
        changed.add(5..5);
        assert!(all(&changed).eq(once(10..14)));
        changed.add(20..22);
        changed.add(1..3);
        assert!(all(&changed).eq([1..3, 10..14, 20..22]));
        assert_eq!(changed.next(11), Some(11..14));
        changed.add(2..20);
        assert!(all(&changed).eq(once(1..22)));
        assert!(all(&changed.take()).eq(once(1..22)));
        assert_eq!(changed.next(0), None);
    }

    #[test]
    fn of_many_the_nearest_are_one() {
        let mut changed = Changed::default();
        for at in 0..4 {
            changed.add(at * 100..at * 100 + 1);
        }
        assert!(!changed.is_crowded());
        changed.add(150..151);
        assert!(changed.is_crowded());
        assert_eq!(all(&changed).count(), 4);
        assert!(all(&changed).any(|range| range == (100..151)));
        changed.add(301..302);
        assert!(all(&changed).any(|range| range == (300..302)));
    }

    #[test]
    fn in_a_leaf_all_are_remembered() {
        let mut changed = Changed::default();
        changed.add(7..9);
        let leaf = || buffer(LEAF_WORDS, || u64::MAX);
        assert!(changed.use_leaf(leaf(), LEAF_BLOCKS).is_none());
        assert!(changed.use_leaf(leaf(), LEAF_BLOCKS).is_some());
        for at in 1..10 {
            changed.add(at * 1000..at * 1000 + 3);
        }
        assert!(!changed.is_crowded());
        let each = (1..10).map(|at| at * 1000..at * 1000 + 3);
        assert!(all(&changed).eq(once(7..9).chain(each)));
        // In a larger object a bit is for more blocks, and the last for all behind it.
        let mut changed = Changed::default();
        assert!(changed.use_leaf(leaf(), 3 * LEAF_BLOCKS).is_none());
        changed.add(5..6);
        changed.add(7..9);
        changed.add(9 * LEAF_BLOCKS..9 * LEAF_BLOCKS + 1);
        let last = 4 * (LEAF_BLOCKS - 1)..u64::MAX;
        assert!(all(&changed).eq([4..12, last]));
    }
}
