// SPDX-License-Identifier: GPL-2.0

//! The memory of maps of present blocks, and its limit.
//!
//! A block that is read alone, far from all others, costs two leaves. They are not reclaimed while
//! the object is in use, and any user may read any block of a network file system. So if there are
//! too many, blocks that a network file system stores are not recorded: they are fetched again.

use crate::disk::presence::LEAF_WORDS;
use core::{
    mem::size_of,
    ops::{
        Deref,
        DerefMut, //
    }, //
};
use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

/// The memory of leaves, in bytes, from which on none are made for what is to be stored.
const LIMIT: usize = 64 << 20;

/// How many leaves that is.
pub(crate) const LEAVES_MAX: usize = LIMIT / (LEAF_WORDS * size_of::<u64>());

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
pub(crate) struct Leaf(KVec<u64>);

impl Leaf {
    /// # Errors
    ///
    /// `ENOMEM`, also if there are too many for `what`.
    pub(crate) fn new(what: Use) -> Result<Self> {
        // Others may be made at the same time: then there are a few more.
        if what == Use::Storing && LEAVES.load(Relaxed) >= LEAVES_MAX {
            return Err(ENOMEM);
        }
        let words = KVec::from_elem(0, LEAF_WORDS, GFP_KERNEL)?;
        LEAVES.fetch_add(1, Relaxed);
        Ok(Leaf(words))
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        LEAVES.fetch_sub(1, Relaxed);
    }
}

impl Deref for Leaf {
    type Target = [u64];

    #[inline]
    fn deref(&self) -> &[u64] {
        &self.0
    }
}

impl DerefMut for Leaf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.0
    }
}
