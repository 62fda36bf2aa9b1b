// SPDX-License-Identifier: GPL-2.0

//! KUnit-based tests.

pub(in crate::kernel_next) mod support;
