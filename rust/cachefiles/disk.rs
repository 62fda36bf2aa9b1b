// SPDX-License-Identifier: GPL-2.0

//! What is on the disk: names, attributes, and which blocks of a file hold data.

pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod presence;
pub(crate) mod xattr;
