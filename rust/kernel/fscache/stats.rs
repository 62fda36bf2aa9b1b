// SPDX-License-Identifier: GPL-2.0

//! What `/proc/fs/fscache/stats` shows of a backend's work.

use crate::bindings;

/// Counts a write that was refused for lack of room.
pub(crate) fn count_no_write_space() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_no_write_space() }
}

/// Counts a file that was not created for lack of room.
pub(crate) fn count_no_create_space() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_no_create_space() }
}

/// Counts something that was culled.
pub(crate) fn count_culled() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_culled() }
}

/// Counts a write to the cache.
pub(crate) fn count_write() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_write() }
}

/// Counts a write that was not aligned.
pub(crate) fn count_dio_misfit() {
    // SAFETY: No preconditions.
    unsafe { bindings::fscache_count_dio_misfit() }
}
