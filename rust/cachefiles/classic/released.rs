// SPDX-License-Identifier: GPL-2.0

//! Files that went out of use. A daemon that found nothing to cull goes on when enough have.

use kernel::sync::{
    atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    poll::PollCondVar,
    Arc, //
};

/// Counts of what went out of use since the daemon was last told, and what it was told.
pub(crate) struct Released {
    files: Atomic<u32>,
    /// In units of 512 bytes.
    sectors: Atomic<u64>,
    /// Whether the daemon was last told to cull.
    culling: Atomic<i32>,
    poll: Arc<PollCondVar>,
}

/// What the daemon is about to be told.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) files: u32,
    pub(crate) sectors: u64,
}

impl Released {
    pub(super) fn new(poll: Arc<PollCondVar>) -> Self {
        Released {
            files: Atomic::new(0),
            sectors: Atomic::new(0),
            culling: Atomic::new(0),
            poll,
        }
    }

    /// Counts a file that has a name and takes up so many units of 512 bytes.
    pub(super) fn count(&self, sectors: u64) {
        self.sectors.add(sectors, Relaxed);
        self.files.add(1, Relaxed);
        self.poll.notify_all();
    }

    /// Whether there is something that the daemon was not told: `culling` is whether it is to cull.
    pub(crate) fn is_news(&self, culling: bool) -> bool {
        self.files.load(Relaxed) != 0 || self.culling.load(Relaxed) != i32::from(culling)
    }

    pub(crate) fn counts(&self) -> Counts {
        // Whoever counts adds the file last.
        let files = self.files.load(Relaxed);
        Counts {
            files,
            sectors: self.sectors.load(Relaxed),
        }
    }

    /// The daemon was told.
    pub(crate) fn told(&self, counts: Counts, culling: bool) {
        self.files.fetch_sub(counts.files, Relaxed);
        self.sectors.fetch_sub(counts.sectors, Relaxed);
        self.culling.store(i32::from(culling), Relaxed);
    }
}
