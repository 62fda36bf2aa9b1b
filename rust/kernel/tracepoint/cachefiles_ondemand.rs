// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of the on-demand mode of CacheFiles.
//!
//! C header:
//! [`cachefiles_ondemand.h`](srctree/include/trace/events/cachefiles_ondemand.h)
//!
//! They are declared here, and not where they are used, because it is for whoever writes the header
//! to say that they may be called with any values. `obj` is the debug id of an object's cookie.

use super::declare_scalar_trace;
use kernel::prelude::*;

declare_scalar_trace! {
    // SAFETY: The `TP_fast_assign()` of each of these stores its arguments, and does nothing else
    // with them; so does `TP_printk()`, which prints what was stored as numbers.
    unsafe extern "C" {
        /// An OPEN is about to be given to the daemon, with a file descriptor.
        pub(crate) safe fn cachefiles_ondemand_open(
            obj: c_uint,
            msg_id: c_uint,
            object_id: c_uint,
            fd: c_uint,
            flags: c_uint,
        );

        /// The daemon has answered an OPEN with a size in bytes, and it was accepted.
        pub(crate) safe fn cachefiles_ondemand_copen(obj: c_uint, msg_id: c_uint, len: c_long);

        /// A CLOSE was queued.
        pub(crate) safe fn cachefiles_ondemand_close(
            obj: c_uint,
            msg_id: c_uint,
            object_id: c_uint,
        );

        /// A READ of `len` bytes at `start` was queued.
        pub(crate) safe fn cachefiles_ondemand_read(
            obj: c_uint,
            msg_id: c_uint,
            object_id: c_uint,
            start: i64,
            len: usize,
        );

        /// The daemon says that it has answered a READ.
        pub(crate) safe fn cachefiles_ondemand_cread(obj: c_uint, msg_id: c_uint);

        /// The daemon is about to write `len` bytes at `start` to an object, whose file has the
        /// inode number `backer`.
        pub(crate) safe fn cachefiles_ondemand_fd_write(
            obj: c_uint,
            backer: u64,
            start: i64,
            len: usize,
        );

        /// The last copy of a file descriptor is gone.
        pub(crate) safe fn cachefiles_ondemand_fd_release(obj: c_uint, object_id: c_uint);

        /// Whoever waits for an answer to a request gets an error.
        pub(crate) safe fn cachefiles_ondemand_fail(
            obj: c_uint,
            opcode: c_uint,
            start: i64,
            len: usize,
            error: c_int,
        );

        /// A daemon has taken over, and `count` requests are delivered again.
        pub(crate) safe fn cachefiles_ondemand_restore(count: usize);
    }
}
