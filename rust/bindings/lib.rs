// SPDX-License-Identifier: GPL-2.0

//! Bindings to the parts of the C API that `kernel::bindings` does not cover yet.
//!
//! This module may not be used by the driver: what it needs is wrapped in the modules below
//! `rust/kernel/` first.

#![allow(
    clippy::all,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]

use pin_init::MaybeZeroable;

pub(crate) use kernel::bindings::*;

type __kernel_size_t = usize;
type __kernel_ssize_t = isize;
type __kernel_ptrdiff_t = isize;

include!(env!("CACHEFILES_BINDINGS"));
