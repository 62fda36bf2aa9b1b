// SPDX-License-Identifier: GPL-2.0

//! Where blocks became present.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_changed))]
mod tests {
    use crate::plan::changed::Changed;
    use core::iter::once;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut changed = Changed::default();
        changed.add(10..12);
        changed.add(12..14);
        changed.add(5..5);
        assert!(changed.iter().eq(once(10..14)));
        changed.add(20..22);
        changed.add(1..3);
        assert!(changed.iter().eq([1..3, 10..14, 20..22]));
        changed.add(2..20);
        assert!(changed.iter().eq(once(1..22)));
        assert!(changed.take().iter().eq(once(1..22)));
        assert_eq!(changed.iter().next(), None);
    }

    #[test]
    fn of_many_the_nearest_are_one() {
        let mut changed = Changed::default();
        for at in 0..4 {
            changed.add(at * 100..at * 100 + 1);
        }
        changed.add(150..151);
        assert_eq!(changed.iter().count(), 4);
        assert!(changed.iter().any(|range| range == (100..151)));
        changed.add(301..302);
        assert!(changed.iter().any(|range| range == (300..302)));
    }
}
