// SPDX-License-Identifier: GPL-2.0

//! Errors that are reported once to each of those who want to know.
//!
//! C header: [`include/linux/errseq.h`](srctree/include/linux/errseq.h)
//!
//! Reference: <https://docs.kernel.org/core-api/errseq.html>

use crate::bindings;
use kernel::sync::atomic::AtomicType;

/// A moment in a history of errors (`errseq_t`), as of those in writing a file back.
///
/// Whoever has one can ask for the errors since. That is the whole of it: where it is kept, who
/// shares it and when it moves on is up to its owner. One that is shared fits an
/// [`Atomic`](kernel::sync::atomic::Atomic). The default is the beginning of the history.
///
/// # Examples
///
/// ```
/// use kernel::{
///     errseq::ErrSeq,
///     fs::kernel_file::KernelFile,
///     prelude::*, //
/// };
///
/// /// Somebody who is told of each error once.
/// struct Writer {
///     file: KernelFile,
///     since: ErrSeq,
/// }
///
/// impl Writer {
///     fn new(file: KernelFile) -> Self {
///         let since = file.sample_write_errors();
///         Writer { file, since }
///     }
///
///     fn check(&mut self) -> Result {
///         self.file.check_and_advance_write_errors(&mut self.since)
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ErrSeq(bindings::errseq_t);

// SAFETY: It is a `u32` and nothing else, which has the size and the alignment of an `i32`, and
// can be transmuted to it and back.
unsafe impl AtomicType for ErrSeq {
    type Repr = i32;
}

impl ErrSeq {
    /// That which C code has sampled.
    #[inline]
    pub(in crate::kernel_next) fn from_raw(raw: bindings::errseq_t) -> Self {
        ErrSeq(raw)
    }

    /// As C has it.
    #[inline]
    pub(in crate::kernel_next) fn into_raw(self) -> bindings::errseq_t {
        self.0
    }

    /// As C has it, to be changed.
    #[inline]
    pub(in crate::kernel_next) fn as_raw(&mut self) -> *mut bindings::errseq_t {
        &mut self.0
    }
}
