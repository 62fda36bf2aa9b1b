// SPDX-License-Identifier: GPL-2.0

//! KUnit-based tests.

#[cfg(CONFIG_KUNIT = "y")]
pub(in crate::kernel_next) mod scratch;
#[cfg(CONFIG_KUNIT = "y")]
pub(in crate::kernel_next) mod support;
