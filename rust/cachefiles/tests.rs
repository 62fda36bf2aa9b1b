// SPDX-License-Identifier: GPL-2.0

//! Tests of the modules that depend on nothing but `core`.
//!
//! Nothing here uses more than `core` and [`support`]; `assert!` and `assert_eq!` have no message,
//! because KUnit's take none.

mod blocks;
mod changed;
mod command;
#[cfg(not(test))]
mod errno;
pub(crate) mod key;
#[cfg(not(test))]
mod leaf;
mod limits;
mod list;
mod msg;
mod object_state;
mod presence;
mod slots;
mod source;
mod state;
mod table;
#[cfg(not(test))]
mod trace;
mod xattr;

/// What the tests need of where they run.
mod support {
    use crate::table::slots::{
        Slots,
        Storage,
        Supply,
        Want, //
    };

    #[cfg(test)]
    pub(super) type Buf<T> = Vec<T>;
    #[cfg(not(test))]
    pub(super) type Buf<T> = kernel::alloc::KVVec<T>;

    /// Where the tests' buffers come from.
    pub(super) struct Heap;

    #[cfg(test)]
    impl Storage for Heap {
        type Buf<T> = crate::support::Counted<T>;
        type Error = ();
        const CHUNK: usize = 64;

        fn alloc<T>(capacity: usize) -> Result<Self::Buf<T>, ()> {
            Ok(crate::support::Counted::with_capacity(capacity))
        }
    }

    #[cfg(not(test))]
    impl Storage for Heap {
        type Buf<T> = kernel::alloc::KVVec<T>;
        type Error = ();
        const CHUNK: usize = 64;

        fn alloc<T>(capacity: usize) -> Result<Self::Buf<T>, ()> {
            let flags = kernel::alloc::flags::GFP_KERNEL;
            Self::Buf::with_capacity(capacity, flags).map_err(|_| ())
        }
    }

    /// A buffer of `len` values; an empty one if there is no memory, which no test expects.
    pub(super) fn buffer<T>(len: usize, value: impl Fn() -> T) -> Buf<T> {
        let mut buf = Buf::new();
        for _ in 0..len {
            #[cfg(test)]
            buf.push(value());
            #[cfg(not(test))]
            if buf.push(value(), kernel::alloc::flags::GFP_KERNEL).is_err() {
                return Buf::new();
            }
        }
        buf
    }

    /// Has a map grow as long as it wants to, to have room for `extra` more values. Returns whether
    /// it has it.
    pub(super) fn make_room<T, S: Storage>(map: &mut Slots<T, S>, extra: usize) -> bool {
        while let Some(want) = map.wants(extra) {
            match Supply::bring(want) {
                Ok(Some(supply)) if want != Want::Refused => drop(map.grow(extra, supply)),
                _ => return false,
            }
        }
        true
    }
}
