// SPDX-License-Identifier: GPL-2.0

//! Abstractions that the `kernel` crate does not have yet.
//!
//! This is a staging area: each module is named, shaped and documented as it would be in the
//! kernel's own `rust/kernel/`, where it is to go. All `unsafe` of the driver is here.

pub(crate) mod anon_inode;
pub(crate) mod c_param;
pub(crate) mod compat;
pub(crate) mod cred;
pub(crate) mod crypto;
#[cfg(CONFIG_CACHEFILES_ERROR_INJECTION)]
pub(crate) mod error_injection;
pub(crate) mod errseq;
pub(crate) mod fs;
pub(crate) mod fscache;
pub(crate) mod iov;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod kunit;
pub(crate) mod log;
pub(crate) mod miscdevice;
pub(crate) mod netfs;
pub(crate) mod sched;
pub(crate) mod security;
pub(crate) mod sync;
pub(crate) mod tracepoint;
pub(crate) mod workqueue;
