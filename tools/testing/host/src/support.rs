// SPDX-License-Identifier: GPL-2.0

//! What the tests share.

use crate::ondemand::slots::{Slots, Storage};
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};

/// Buffers on the host.
pub(crate) struct Host;

impl Storage for Host {
    type Buf<T> = Vec<T>;
}

/// A buffer for `Slots::grow`, as the driver makes them: all empty.
pub(crate) fn empty<T>(len: usize) -> Vec<Option<T>> {
    (0..len).map(|_| None).collect()
}

/// What the driver does when a table says that it is full: room for so many more.
pub(crate) fn make_room<T, S>(extra: usize, slots: &mut Slots<T, S>)
where
    S: Storage<Buf<Option<(u32, T)>> = Vec<Option<(u32, T)>>>,
{
    if let Some(len) = slots.wants(extra) {
        slots.grow(empty(len));
    }
}

/// Runs `test` on `cases` values. The values are the same in each run, so that a pass can be
/// trusted to be repeated; `PROPTEST_SEED=<number>` gives others.
pub(crate) fn check<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value)) {
    let config = Config {
        cases,
        // Failing values are printed; nothing is written into the source tree.
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let seed: u64 = match std::env::var("PROPTEST_SEED") {
        Ok(text) => text.parse().expect("PROPTEST_SEED has to be a number"),
        Err(_) => 0,
    };
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&strategy, |value| {
        test(value);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, value)) => panic!("{why}\nminimal failing value: {value:?}"),
        Err(failure) => panic!("{failure}"),
    }
}
