// SPDX-License-Identifier: GPL-2.0

//! What the tests share.

use crate::table::slots::{Buffer, Slots, Storage, Supply, Want};
use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
};

thread_local! {
    /// How often this thread has looked into a buffer.
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// How often `f` looks into buffers: each value, list and chain that it meets is at least one look.
pub(crate) fn looks<R>(f: impl FnOnce() -> R) -> (u64, R) {
    let before = LOOKS.get();
    let ret = f();
    (LOOKS.get() - before, ret)
}

/// A buffer that counts how often it is looked into, and never allocates once it is made.
pub(crate) struct Counted<T>(Vec<T>);

impl<T> Counted<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Counted(Vec::with_capacity(capacity))
    }
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Counted(Vec::new())
    }
}

impl<T> Deref for Counted<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        LOOKS.set(LOOKS.get() + 1);
        &self.0
    }
}

impl<T> DerefMut for Counted<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        LOOKS.set(LOOKS.get() + 1);
        &mut self.0
    }
}

impl<T> Buffer<T> for Counted<T> {
    fn put(&mut self, value: T) -> Result<(), T> {
        if self.0.len() == self.0.capacity() {
            return Err(value);
        }
        LOOKS.set(LOOKS.get() + 1);
        self.0.push(value);
        Ok(())
    }

    fn take_last(&mut self) -> Option<T> {
        LOOKS.set(LOOKS.get() + 1);
        self.0.pop()
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

/// Buffers on the host. Small, so that little makes a map grow.
pub(crate) struct Host;

impl Storage for Host {
    type Buf<T> = Counted<T>;
    type Error = ();
    const CHUNK: usize = 8;

    fn alloc<T>(capacity: usize) -> Result<Counted<T>, ()> {
        Ok(Counted::with_capacity(capacity))
    }
}

/// Brings a map one of the things that it wants, if it wants any; returns whether it did.
pub(crate) fn grow<T, S: Storage>(extra: usize, slots: &mut Slots<T, S>) -> bool {
    let Some(want) = slots.wants(extra) else {
        return false;
    };
    assert_ne!(want, Want::Refused, "more than the map may have");
    let Ok(Some(supply)) = Supply::bring(want) else {
        panic!("no memory");
    };
    drop(slots.grow(extra, supply));
    true
}

/// What the driver does when a table says that it is full: room for so many more.
pub(crate) fn make_room<T, S: Storage>(extra: usize, slots: &mut Slots<T, S>) {
    while grow(extra, slots) {}
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
