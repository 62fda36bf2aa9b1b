// SPDX-License-Identifier: GPL-2.0

//! What a cache in classic mode has besides its directories.

use super::released::Released;
use crate::{
    kernel_next::{
        fscache::CacheHandle,
        workqueue::ReclaimQueue, //
    },
    space::Space, //
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        poll::PollCondVar,
        Arc,
        SetOnce, //
    }, //
};

/// The classic mode of a cache.
pub(crate) struct Classic {
    /// What went out of use, for the daemon.
    pub(super) released: Released,
    /// Where writes end that are completed in an interrupt.
    queue: ReclaimQueue,
    is_dead: Atomic<i32>,
    /// Tells fscache that the cache is dead.
    pub(super) handle: SetOnce<CacheHandle>,
}

impl Classic {
    pub(crate) fn new(poll: Arc<PollCondVar>) -> Result<Self> {
        Ok(Classic {
            released: Released::new(poll),
            queue: ReclaimQueue::new(c"cachefiles")?,
            is_dead: Atomic::new(0),
            handle: SetOnce::new(),
        })
    }

    /// Whether the cache's file system takes no more files, so that the daemon has to start anew.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Acquire) != 0
    }

    /// Whether there is something for the daemon to [read](super::read_state).
    pub(crate) fn has_news(&self, space: &Space) -> bool {
        self.released.is_news(space.is_culling())
    }

    /// Has [`Self::is_dead`] say so.
    pub(super) fn set_dead(&self) {
        self.is_dead.store(1, Release);
    }

    /// Where writes end that are completed in an interrupt.
    pub(super) fn queue(&self) -> &ReclaimQueue {
        &self.queue
    }
}
