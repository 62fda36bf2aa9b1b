// SPDX-License-Identifier: GPL-2.0

//! What `/proc/fs/fscache/stats` shows of a backend's work.
//!
//! C header: [`include/linux/fscache-cache.h`](srctree/include/linux/fscache-cache.h)
//!
//! Nothing is counted without `CONFIG_FSCACHE_STATS`. All may be called in any context.
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fscache::stats,
//!     prelude::*, //
//! };
//!
//! /// Checks that a write leaves room.
//! fn check(bytes: u64, free: u64) -> Result {
//!     if bytes > free {
//!         stats::count_no_write_space();
//!         return Err(ENOSPC);
//!     }
//!     Ok(())
//! }
//! # assert_eq!(check(2, 1), Err(ENOSPC));
//! # check(1, 2)?;
//! # Ok::<(), Error>(())
//! ```

use crate::bindings;

/// Counts a read from the cache.
#[inline]
pub(in crate::kernel_next) fn count_read() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_read() }
}

/// Counts a write to the cache.
#[inline]
pub(crate) fn count_write() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_write() }
}

/// Counts a write that was refused for lack of room.
#[inline]
pub(crate) fn count_no_write_space() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_no_write_space() }
}

/// Counts a file that was not created for lack of room.
#[inline]
pub(crate) fn count_no_create_space() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_no_create_space() }
}

/// Counts something that was culled.
#[inline]
pub(crate) fn count_culled() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_culled() }
}

/// Counts a write that was not aligned for direct I/O.
#[inline]
pub(crate) fn count_dio_misfit() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_dio_misfit() }
}
