// SPDX-License-Identifier: GPL-2.0

//! Tracepoints of on-demand mode, as of `include/trace/events/cachefiles_ondemand.h`.
//!
//! `obj` is the debug id of the object's cookie. None of these is called with a lock held.
//!
//! Those of both modes are in [`files`].

pub(crate) mod files;

use crate::{
    kernel_next::tracepoint::declare_safe_trace,
    protocol::msg::Opcode, //
};
use kernel::prelude::*;

declare_safe_trace! {
    fn cachefiles_ondemand_open(
        obj: c_uint,
        msg_id: c_uint,
        object_id: c_uint,
        fd: c_uint,
        flags: c_uint,
    );
    fn cachefiles_ondemand_copen(obj: c_uint, msg_id: c_uint, len: c_long);
    fn cachefiles_ondemand_close(obj: c_uint, msg_id: c_uint, object_id: c_uint);
    fn cachefiles_ondemand_read(
        obj: c_uint,
        msg_id: c_uint,
        object_id: c_uint,
        start: i64,
        len: usize,
    );
    fn cachefiles_ondemand_cread(obj: c_uint, msg_id: c_uint);
    fn cachefiles_ondemand_fd_write(obj: c_uint, backer: u64, start: i64, len: usize);
    fn cachefiles_ondemand_fd_release(obj: c_uint, object_id: c_uint);
    fn cachefiles_ondemand_fail(
        obj: c_uint,
        opcode: c_uint,
        start: i64,
        len: usize,
        error: c_int,
    );
    fn cachefiles_ondemand_restore(count: usize);
}

/// An OPEN is about to be delivered, with the file descriptor `fd`.
pub(crate) fn open(obj: u32, msg_id: u32, object_id: u32, fd: u32) {
    cachefiles_ondemand_open(obj, msg_id, object_id, fd, 0);
}

/// The daemon's answer to an OPEN was accepted: a size in bytes.
pub(crate) fn copen(obj: u32, msg_id: u32, size: u64) {
    // CAST: As the daemon wrote it, and as C has it.
    cachefiles_ondemand_copen(obj, msg_id, size as c_long);
}

/// A CLOSE was queued.
pub(crate) fn close(obj: u32, msg_id: u32, object_id: u32) {
    cachefiles_ondemand_close(obj, msg_id, object_id);
}

/// A READ was queued. `object_id` is 0 if there is no file descriptor to answer it through yet.
pub(crate) fn read(obj: u32, msg_id: u32, object_id: u32, off: u64, len: u64) {
    // CAST: Both are those of a file.
    cachefiles_ondemand_read(obj, msg_id, object_id, off as i64, len as usize);
}

/// The daemon says that it has answered a READ.
pub(crate) fn cread(obj: u32, msg_id: u32) {
    cachefiles_ondemand_cread(obj, msg_id);
}

/// The daemon is about to write to an object, whose file has the inode number `backer`.
pub(crate) fn fd_write(obj: u32, backer: u64, pos: i64, len: usize) {
    cachefiles_ondemand_fd_write(obj, backer, pos, len);
}

/// The last copy of a file descriptor is gone.
pub(crate) fn fd_release(obj: u32, object_id: u32) {
    cachefiles_ondemand_fd_release(obj, object_id);
}

/// A lookup that waits for the answer to an OPEN fails.
pub(crate) fn open_failed(obj: u32, error: Error) {
    let opcode = Opcode::Open as u32;
    cachefiles_ondemand_fail(obj, opcode, 0, 0, error.to_errno());
}

/// A read that waits for `len` bytes at `off` fails.
pub(crate) fn read_failed(obj: u32, off: u64, len: u64, error: Error) {
    let opcode = Opcode::Read as u32;
    // CAST: Both are those of a file.
    let (off, len) = (off as i64, len as usize);
    cachefiles_ondemand_fail(obj, opcode, off, len, error.to_errno());
}

/// A daemon has taken over, and so many requests are delivered again.
pub(crate) fn restore(count: usize) {
    cachefiles_ondemand_restore(count);
}
