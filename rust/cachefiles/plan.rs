// SPDX-License-Identifier: GPL-2.0

//! What may be read and written: which blocks can be read from the file, and how much space the
//! cache may take.

pub(crate) mod blocks;
pub(crate) mod changed;
pub(crate) mod limits;
pub(crate) mod source;
