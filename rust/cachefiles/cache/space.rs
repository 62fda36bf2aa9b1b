// SPDX-License-Identifier: GPL-2.0

//! How much room is left, and whether to cull (`cachefiles_has_space()`).

use super::limits::{
    judge,
    Limits,
    Space as Judgement,
    Thresholds, //
};
use crate::kernel_next::{
    compat::{
        ENOBUFS,
        EOPNOTSUPP, //
    },
    fs::path::Mount,
    fscache::stats, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        poll::PollCondVar,
        Arc, //
    }, //
};

/// What room is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Check,
    Write,
    Create,
}

/// The file system that holds a cache, and the limits to its use.
pub(crate) struct Space {
    mount: ARef<Mount>,
    /// Bytes in a block of the file system.
    block_size: u64,
    blocks: Thresholds,
    files: Thresholds,
    /// Whether the daemon should cull.
    culling: Atomic<i32>,
    poll: Arc<PollCondVar>,
}

impl Space {
    pub(super) fn new(mount: ARef<Mount>, limits: &Limits, poll: Arc<PollCondVar>) -> Result<Self> {
        let stats = mount.statfs()?;
        let block_size = u64::try_from(stats.block_size).map_err(|_| ERANGE)?;
        if block_size == 0 {
            return Err(ERANGE);
        }
        // CAST: A page size.
        if block_size > PAGE_SIZE as u64 {
            return Err(EOPNOTSUPP);
        }
        Ok(Space {
            block_size,
            blocks: limits.blocks.of(stats.blocks),
            files: limits.files.of(stats.files),
            culling: Atomic::new(0),
            poll,
            mount,
        })
    }

    pub(crate) fn mount(&self) -> &Mount {
        &self.mount
    }

    pub(crate) fn is_culling(&self) -> bool {
        self.culling.load(Relaxed) != 0
    }

    /// Checks that there is room for so many more files and bytes, and starts or ends culling.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is not.
    pub(crate) fn check(&self, files: u64, bytes: u64, what: For) -> Result {
        let stats = self.mount.statfs()?;
        let blocks = bytes.div_ceil(self.block_size);
        let judgement = judge(
            (stats.blocks_available.saturating_sub(blocks), &self.blocks),
            (stats.files_free.saturating_sub(files), &self.files),
        );
        match judgement {
            Judgement::Plenty => self.set_culling(0),
            Judgement::Enough => {}
            Judgement::Low | Judgement::Exhausted => self.set_culling(1),
        }
        if judgement != Judgement::Exhausted {
            return Ok(());
        }
        match what {
            For::Check => {}
            For::Write => stats::count_no_write_space(),
            For::Create => stats::count_no_create_space(),
        }
        Err(ENOBUFS)
    }

    fn set_culling(&self, culling: i32) {
        if self.culling.load(Relaxed) != culling && self.culling.xchg(culling, Relaxed) != culling {
            self.poll.notify_all();
        }
    }
}
