// SPDX-License-Identifier: GPL-2.0

//! File systems, seen from a user of one.

pub(crate) mod dentry;
pub(crate) mod inode;
pub(crate) mod kernel_file;
pub(crate) mod namei;
pub(crate) mod path;
pub(crate) mod xattr;
