// SPDX-License-Identifier: GPL-2.0

//! The memory of maps of present blocks, and its limit.
//!
//! A block that is read alone, far from all others, costs two leaves. They are not reclaimed while
//! the object is in use, and any user may read any block of a network file system. So if the caches
//! of such have too many, blocks that one stores are not recorded, and not all that is listed is
//! looked for: what is left out is fetched again.

use crate::disk::presence::{
    Part,
    LEAF_WORDS, //
};
use core::{
    mem::size_of,
    ops::{
        Deref,
        DerefMut, //
    },
    slice::{
        from_mut,
        from_ref, //
    }, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};
use pin_init::init_zeroed;

/// The memory of leaves that count, in bytes, from which on none are made for what is to be stored.
const LIMIT: usize = 64 << 20;

/// How many leaves that is.
pub(crate) const LEAVES_MAX: usize = LIMIT / (LEAF_WORDS * size_of::<u64>());

/// How many there are that count.
static LEAVES: Atomic<usize> = Atomic::new(0);

/// What a leaf is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Blocks that a network file system has stored.
    Storing,
    /// All else: what the daemon writes, is found in a file, or is not present any more.
    Other,
}

/// Room for one part of a map.
pub(crate) struct Leaf {
    words: KBox<[u64; LEAF_WORDS]>,
    counts: bool,
}

/// Whether there are so many that no more are to be made but where it cannot be helped.
pub(crate) fn are_too_many() -> bool {
    LEAVES.load(Relaxed) >= LEAVES_MAX
}

impl Leaf {
    /// `counts`: whether it is one of those that are limited.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, also if there are too many for `what`.
    pub(crate) fn new(what: Use, counts: bool) -> Result<Self> {
        // Others may be made at the same time: then there are a few more.
        if counts && what == Use::Storing && are_too_many() {
            return Err(ENOMEM);
        }
        let words = KBox::init(init_zeroed(), GFP_KERNEL)?;
        if counts {
            LEAVES.fetch_add(1, Relaxed);
        }
        Ok(Leaf { words, counts })
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if self.counts {
            LEAVES.fetch_sub(1, Relaxed);
        }
    }
}

impl Deref for Leaf {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        &*self.words
    }
}

impl DerefMut for Leaf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut *self.words
    }
}

/// The parts of a map. Most objects have one, which needs no memory of its own.
pub(crate) enum Parts {
    One(Part<Leaf>),
    Many(KVVec<Part<Leaf>>),
}

impl Parts {
    /// None.
    pub(crate) const fn none() -> Self {
        Parts::Many(KVVec::new())
    }

    /// `count` parts, of which nothing is present.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(count: u64) -> Result<Self> {
        if count == 1 {
            return Ok(Parts::One(Part::Absent));
        }
        // CAST: More would not fit the memory: then the allocation fails.
        let count = count as usize;
        let mut parts = KVVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            parts.push(Part::Absent, GFP_KERNEL)?;
        }
        Ok(Parts::Many(parts))
    }
}

impl Deref for Parts {
    type Target = [Part<Leaf>];

    #[inline]
    fn deref(&self) -> &[Part<Leaf>] {
        match self {
            Parts::One(part) => from_ref(part),
            Parts::Many(parts) => parts,
        }
    }
}

impl DerefMut for Parts {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Part<Leaf>] {
        match self {
            Parts::One(part) => from_mut(part),
            Parts::Many(parts) => parts,
        }
    }
}
