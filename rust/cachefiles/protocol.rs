// SPDX-License-Identifier: GPL-2.0

//! What goes over `/dev/cachefiles`: commands, messages and error numbers.

pub(crate) mod command;
pub(crate) mod errno;
pub(crate) mod msg;
pub(crate) mod state;

/// Bytes in a block. READ requests, and the writes that answer them, are in whole blocks; whether
/// data is present is known for each block.
pub(crate) const BLOCK_SIZE: u64 = 4096;
