// SPDX-License-Identifier: GPL-2.0

//! How much space is left, and whether to cull (`cachefiles_has_space()`).

use crate::{
    inject,
    kernel_next::{
        compat::{
            ENOBUFS,
            EOPNOTSUPP, //
        },
        fs::{
            kernel_file::KernelFile,
            path::{
                Mount,
                Path, //
            }, //
        },
        fscache::stats, //
    },
    plan::limits::{
        judge,
        Limits,
        SpaceLevel,
        Thresholds, //
    },
    trace::files::{
        self,
        Where, //
    }, //
};
use kernel::{
    cred::Credential,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        poll::PollCondVar,
        Arc, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

/// What space is checked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SpaceFor {
    /// For nothing: only starts or ends culling, and is not counted if there is no space.
    Check,
    /// To write to a file.
    Write,
    /// To make a file or a directory.
    Create,
}

/// For how long, and for how many bytes at most, the result of a `statfs()` is used again. A call
/// costs more the more CPUs there are, and others may use up the space right after it anyway.
const FRESH: Delta = Delta::from_millis(100);
const SLACK: u64 = 1 << 20;

/// The file system that holds a cache, and the limits to its use.
pub(crate) struct Space {
    /// The directory that the cache is in.
    root: Path,
    /// When this was made.
    start: Instant<Monotonic>,
    /// When `statfs()` was called last, in nanoseconds since `start`.
    looked: Atomic<i64>,
    /// Bytes that may be written before it is called again.
    slack: Atomic<i64>,
    /// Bytes that are being written, which `statfs()` need not have counted yet.
    writing: Atomic<u64>,
    /// Bytes in a block of the file system.
    block_size: u64,
    blocks: Thresholds,
    files: Thresholds,
    /// Whether the daemon should cull.
    culling: Atomic<i32>,
    poll: Arc<PollCondVar>,
}

impl Space {
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the file system's blocks are larger than a page; `ERANGE` if it does not
    /// know their size; its error from `statfs()`.
    pub(crate) fn new(root: Path, limits: &Limits, poll: Arc<PollCondVar>) -> Result<Self> {
        let stats = root.mount().statfs()?;
        let block_size = u64::try_from(stats.block_size).map_err(|_| ERANGE)?;
        if block_size == 0 {
            return Err(ERANGE);
        }
        // Either can be the larger one: files are written in the one, space is counted in the
        // other.
        let largest = block_size.max(root.mount().super_block_size() as u64);
        // CAST: A page size.
        if largest > PAGE_SIZE as u64 {
            cf_err!("The file system cannot hold a cache: its blocks are larger than a page\n");
            return Err(EOPNOTSUPP);
        }
        Ok(Space {
            start: Instant::now(),
            looked: Atomic::new(0),
            slack: Atomic::new(0),
            writing: Atomic::new(0),
            block_size,
            blocks: limits.blocks.of(stats.blocks),
            files: limits.files.of(stats.files),
            culling: Atomic::new(0),
            poll,
            root,
        })
    }

    pub(crate) fn mount(&self) -> &Mount {
        self.root.mount()
    }

    pub(crate) fn is_culling(&self) -> bool {
        self.culling.load(Relaxed) != 0
    }

    /// As [`Self::check`], before a write of so many bytes; but does not call `statfs()` each time
    /// while there is plenty of space.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is no space.
    pub(crate) fn check_write(&self, bytes: u64) -> Result {
        // CAST: A length in memory.
        let len = bytes as i64;
        let age = self.start.elapsed().as_nanos() - self.looked.load(Relaxed);
        if age < FRESH.as_nanos() && self.slack.fetch_sub(len, Relaxed) >= len {
            return Ok(());
        }
        self.check(0, bytes, SpaceFor::Write)
    }

    /// As [`Self::check_write`]. The bytes count as used until the result is dropped.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is no space.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation> {
        self.check_write(bytes)?;
        self.writing.add(bytes, Relaxed);
        Ok(Reservation {
            space: self.clone(),
            bytes,
        })
    }

    /// The limits, in files and in blocks of the file system.
    pub(crate) fn thresholds(&self) -> (&Thresholds, &Thresholds) {
        (&self.files, &self.blocks)
    }

    /// How many bytes may be written before `statfs()` is called again, when `free` blocks are free
    /// and that is [`SpaceLevel::Plenty`]: the nearer to the limit, the less.
    fn slack(&self, free: u64) -> u64 {
        let margin = free.saturating_sub(self.blocks.run) / 16;
        margin.saturating_mul(self.block_size).min(SLACK)
    }

    /// Checks that there is space for so many more files and bytes, and starts or ends culling.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is not.
    pub(crate) fn check(&self, files: u64, bytes: u64, what: SpaceFor) -> Result {
        let stats = self.mount().statfs().inspect_err(|e| {
            files::vfs_error(None, self.root.dentry(), *e, Where::Statfs);
        })?;
        let bytes = bytes.saturating_add(self.writing.load(Relaxed));
        let blocks = bytes.div_ceil(self.block_size);
        let free = stats.blocks_available.saturating_sub(blocks);
        let level = judge(
            (free, &self.blocks),
            (stats.files_free.saturating_sub(files), &self.files),
        );
        let slack = match level {
            SpaceLevel::Plenty => self.slack(free),
            _ => 0,
        };
        self.looked.store(self.start.elapsed().as_nanos(), Relaxed);
        // CAST: Not more than `SLACK`.
        self.slack.store(slack as i64, Relaxed);
        match level {
            SpaceLevel::Plenty => self.set_culling(0),
            SpaceLevel::Unchanged => {}
            SpaceLevel::Low | SpaceLevel::Exhausted => self.set_culling(1),
        }
        if level != SpaceLevel::Exhausted {
            return Ok(());
        }
        match what {
            SpaceFor::Check => {}
            SpaceFor::Write => stats::count_no_write_space(),
            SpaceFor::Create => stats::count_no_create_space(),
        }
        Err(ENOBUFS)
    }

    /// After `EIO` or `EROFS`, tries to make a tmpfile in `dir` (`cachefiles_io_error()`). True if
    /// that fails likewise: then nothing new can be fetched, and the cache is dead. The error alone
    /// may concern one file or directory only. The caller has the credentials `cred`.
    pub(crate) fn probe_after_error(&self, dir: &Path, cred: &Credential, error: Error) -> bool {
        let is_fatal = |e| e == EIO || e == EROFS;
        if !is_fatal(error) {
            return false;
        }
        let file = self.mount().want_write().and_then(|write| {
            inject::write()?;
            KernelFile::tmpfile(&write, dir, cred)
        });
        let is_broken = file.is_err_and(is_fatal);
        if is_broken {
            cf_err!(
                "I/O Error: The file system takes no more files: error {}\n",
                error.to_errno()
            );
        }
        is_broken
    }

    fn set_culling(&self, culling: i32) {
        if self.culling.load(Relaxed) != culling && self.culling.xchg(culling, Relaxed) != culling {
            self.poll.notify_all();
        }
    }
}

/// Space for bytes that are being written.
pub(crate) struct Reservation {
    space: Arc<Space>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.space.writing.fetch_sub(self.bytes, Relaxed);
    }
}
