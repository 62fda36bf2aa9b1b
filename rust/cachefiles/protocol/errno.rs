// SPDX-License-Identifier: GPL-2.0

//! Error numbers for the pure modules.
//!
//! Those depend on nothing but `core`, so that they can be tested anywhere, and have no
//! `kernel::error::Error`; this is the same number without the kernel.

/// A positive error number, as in `errno(3)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    pub(crate) const EINVAL: Errno = Errno(22);
    pub(crate) const ERANGE: Errno = Errno(34);
    pub(crate) const ENAMETOOLONG: Errno = Errno(36);
    pub(crate) const EBADFD: Errno = Errno(77);
    pub(crate) const EOPNOTSUPP: Errno = Errno(95);

    /// The largest number that fits a kernel error value (`MAX_ERRNO`).
    pub(crate) const MAX: i32 = 4095;
}

/// Result of the pure modules.
pub(crate) type Result<T = ()> = core::result::Result<T, Errno>;
