// SPDX-License-Identifier: GPL-2.0

//! The six limits: order, thresholds, and what free space calls for.

use crate::{
    plan::limits::{judge, Limits, Percent, SpaceLevel, Thresholds},
    protocol::{
        command::Limit::{self, Bcull, Brun, Bstop, Fcull, Frun, Fstop},
        errno::Errno,
    },
    support::check,
};
use proptest::{collection::vec, prelude::any};

const ALL: [Limit; 6] = [Brun, Bcull, Bstop, Frun, Fcull, Fstop];

#[test]
fn defaults_are_seven_five_one() {
    let expected = Percent {
        run: 7,
        cull: 5,
        stop: 1,
    };
    let limits = Limits::default();
    assert_eq!(limits.blocks, expected);
    assert_eq!(limits.files, expected);
    assert_eq!(limits.check(), Ok(()));
}

#[test]
fn each_command_sets_its_own_limit_only() {
    // The percentage is in order with the defaults of the others.
    for (limit, percent) in [
        (Brun, 20),
        (Bcull, 6),
        (Bstop, 3),
        (Frun, 20),
        (Fcull, 6),
        (Fstop, 3),
    ] {
        let mut limits = Limits::default();
        assert_eq!(limits.set(limit, percent), Ok(()));
        let mut expected = Limits::default();
        *field(&mut expected, limit) = percent;
        assert_eq!(limits, expected, "{limit:?}");
    }
}

fn field(limits: &mut Limits, limit: Limit) -> &mut u32 {
    match limit {
        Brun => &mut limits.blocks.run,
        Bcull => &mut limits.blocks.cull,
        Bstop => &mut limits.blocks.stop,
        Frun => &mut limits.files.run,
        Fcull => &mut limits.files.cull,
        Fstop => &mut limits.files.stop,
    }
}

#[test]
fn each_command_takes_exactly_what_is_in_order_with_the_defaults() {
    // With stop 1, cull 5, run 7.
    for percent in (0..=101).chain([1000, u32::MAX - 1, u32::MAX]) {
        for limit in ALL {
            let in_order = match limit {
                Brun | Frun => (6..100).contains(&percent),
                Bcull | Fcull => (2..7).contains(&percent),
                Bstop | Fstop => percent < 5,
            };
            let mut limits = Limits::default();
            let result = limits.set(limit, percent);
            if in_order {
                assert_eq!(result, Ok(()), "{limit:?} {percent}");
            } else {
                assert_eq!(result, Err(Errno::EINVAL), "{limit:?} {percent}");
                assert_eq!(limits, Limits::default(), "{limit:?} {percent} was set");
            }
        }
    }
}

#[test]
fn blocks_and_files_do_not_depend_on_each_other() {
    let mut limits = Limits::default();
    assert_eq!(limits.set(Brun, 90), Ok(()));
    assert_eq!(limits.set(Bcull, 80), Ok(()));
    assert_eq!(limits.set(Bstop, 70), Ok(()));
    // Would be out of order among the blocks' limits.
    assert_eq!(limits.set(Frun, 6), Ok(()));
    assert_eq!(limits.set(Fstop, 0), Ok(()));
    assert_eq!(limits.set(Fcull, 1), Ok(()));
    assert_eq!(limits.check(), Ok(()));
}

#[test]
fn bind_finds_limits_out_of_order() {
    let good = Percent {
        run: 7,
        cull: 5,
        stop: 1,
    };
    for (run, cull, stop, in_order) in [
        (99, 98, 97, true),
        (2, 1, 0, true),
        (100, 5, 1, false),
        (7, 7, 1, false),
        (7, 8, 1, false),
        (7, 5, 5, false),
        (7, 5, 6, false),
        (0, 0, 0, false),
    ] {
        let bad = Percent { run, cull, stop };
        let expected = if in_order { Ok(()) } else { Err(Errno::ERANGE) };
        let blocks = Limits {
            blocks: bad,
            files: good,
        };
        let files = Limits {
            blocks: good,
            files: bad,
        };
        assert_eq!(blocks.check(), expected, "{bad:?}");
        assert_eq!(files.check(), expected, "{bad:?}");
    }
}

/// The rules of `cachefiles_daemon_{b,f}{run,cull,stop}()`.
fn c_allows(run: u32, cull: u32, stop: u32, which: Limit, percent: u32) -> bool {
    match which {
        Brun | Frun => !(percent <= cull || percent >= 100),
        Bcull | Fcull => !(percent <= stop || percent >= run),
        Bstop | Fstop => percent < cull,
    }
}

#[test]
fn any_sequence_of_commands_is_judged_as_c_does() {
    check(2000, vec((0usize..6, 0u32..105), 0..60), |commands| {
        let mut limits = Limits::default();
        for (which, percent) in commands {
            let which = ALL[which];
            let now = match which {
                Brun | Bcull | Bstop => limits.blocks,
                Frun | Fcull | Fstop => limits.files,
            };
            let allowed = c_allows(now.run, now.cull, now.stop, which, percent);
            assert_eq!(limits.set(which, percent).is_ok(), allowed);
            assert_eq!(limits.check(), Ok(()));
        }
    });
}

#[test]
fn thresholds_are_percent_of_whole_hundredths() {
    let percent = Percent {
        run: 7,
        cull: 5,
        stop: 1,
    };
    for (total, run, cull, stop) in [
        (0, 0, 0, 0),
        (99, 0, 0, 0),
        (100, 7, 5, 1),
        (199, 7, 5, 1),
        (1_000_000, 70_000, 50_000, 10_000),
        (
            u64::MAX,
            7 * 184_467_440_737_095_516,
            5 * 184_467_440_737_095_516,
            184_467_440_737_095_516,
        ),
    ] {
        assert_eq!(percent.of(total), Thresholds { run, cull, stop }, "{total}");
    }
    let highest = Percent {
        run: 99,
        cull: 98,
        stop: 97,
    };
    // Does not overflow.
    assert_eq!(highest.of(u64::MAX).run, 99 * (u64::MAX / 100));
}

const TEN: Thresholds = Thresholds {
    run: 30,
    cull: 20,
    stop: 10,
};

#[test]
fn free_space_is_judged_at_each_border() {
    for (free, expected) in [
        (0, SpaceLevel::Exhausted),
        (9, SpaceLevel::Exhausted),
        (10, SpaceLevel::Low),
        (19, SpaceLevel::Low),
        (20, SpaceLevel::Unchanged),
        (29, SpaceLevel::Unchanged),
        (30, SpaceLevel::Plenty),
        (u64::MAX, SpaceLevel::Plenty),
    ] {
        // Alone, and as the scarcer of the two.
        assert_eq!(judge((free, &TEN), (u64::MAX, &TEN)), expected, "{free}");
        assert_eq!(judge((u64::MAX, &TEN), (free, &TEN)), expected, "{free}");
        assert_eq!(judge((free, &TEN), (free, &TEN)), expected, "{free}");
    }
}

#[test]
fn the_scarcer_resource_decides() {
    let levels = [
        (5, SpaceLevel::Exhausted),
        (15, SpaceLevel::Low),
        (25, SpaceLevel::Unchanged),
        (35, SpaceLevel::Plenty),
    ];
    for (at, (blocks, by_blocks)) in levels.into_iter().enumerate() {
        for (other, (files, by_files)) in levels.into_iter().enumerate() {
            let expected = if at < other { by_blocks } else { by_files };
            assert_eq!(judge((blocks, &TEN), (files, &TEN)), expected);
        }
    }
}

#[test]
fn each_resource_is_held_against_its_own_limits() {
    let none = Thresholds::default();
    assert_eq!(judge((0, &none), (0, &none)), SpaceLevel::Plenty);
    assert_eq!(judge((0, &none), (5, &TEN)), SpaceLevel::Exhausted);
    assert_eq!(judge((5, &TEN), (0, &none)), SpaceLevel::Exhausted);
    assert_eq!(judge((0, &none), (30, &TEN)), SpaceLevel::Plenty);
}

#[test]
fn any_free_space_is_judged_as_c_does() {
    check(
        2000,
        (any::<[u8; 2]>(), any::<[u8; 3]>(), any::<[u8; 3]>()),
        |([b_avail, f_free], b, f)| {
            let [mut b, mut f] = [b, f];
            b.sort();
            f.sort();
            let limits = |[stop, cull, run]: [u8; 3]| Thresholds {
                run: run.into(),
                cull: cull.into(),
                stop: stop.into(),
            };
            // As cachefiles_has_space() asks.
            let expected = if f_free < f[0] || b_avail < b[0] {
                SpaceLevel::Exhausted
            } else if f_free < f[1] || b_avail < b[1] {
                SpaceLevel::Low
            } else if f_free >= f[2] && b_avail >= b[2] {
                SpaceLevel::Plenty
            } else {
                SpaceLevel::Unchanged
            };
            let judged = judge((b_avail.into(), &limits(b)), (f_free.into(), &limits(f)));
            assert_eq!(judged, expected);
        },
    );
}
