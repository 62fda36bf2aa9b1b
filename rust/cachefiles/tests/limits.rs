// SPDX-License-Identifier: GPL-2.0

//! The six limits.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_limits))]
mod tests {
    use crate::{
        plan::limits::{
            judge,
            Limits,
            SpaceLevel,
            Thresholds, //
        },
        protocol::{
            command::Limit,
            errno::Errno, //
        }, //
    };

    #[test]
    fn limits_stay_in_order() {
        let mut limits = Limits::default();
        assert_eq!((limits.blocks.run, limits.files.stop), (7, 1));
        assert_eq!(limits.set(Limit::Bcull, 7), Err(Errno::EINVAL));
        assert_eq!(limits.set(Limit::Brun, 100), Err(Errno::EINVAL));
        assert_eq!(limits, Limits::default());
        assert_eq!(limits.set(Limit::Brun, 99), Ok(()));
        assert_eq!(limits.set(Limit::Bcull, 98), Ok(()));
        assert_eq!(limits.check(), Ok(()));
        limits.files.cull = limits.files.run;
        assert_eq!(limits.check(), Err(Errno::ERANGE));
    }

    #[test]
    fn the_largest_disk_does_not_overflow() {
        let of = Limits::default().blocks.of(u64::MAX);
        assert_eq!(of.stop, u64::MAX / 100);
        assert_eq!(of.run, 7 * of.stop);
    }

    #[test]
    fn the_scarcer_resource_decides() {
        let (stop, cull, run) = (10, 20, 30);
        let limits = Thresholds { run, cull, stop };
        for (free, space) in [
            (9, SpaceLevel::Exhausted),
            (10, SpaceLevel::Low),
            (19, SpaceLevel::Low),
            (20, SpaceLevel::Unchanged),
            (29, SpaceLevel::Unchanged),
            (30, SpaceLevel::Plenty),
        ] {
            assert_eq!(judge((free, &limits), (99, &limits)), space);
            assert_eq!(judge((99, &limits), (free, &limits)), space);
        }
    }
}
