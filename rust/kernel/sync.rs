// SPDX-License-Identifier: GPL-2.0

//! Synchronisation primitives.

pub(crate) mod completion;
pub(crate) mod poll;

pub(crate) use completion::Completion;
