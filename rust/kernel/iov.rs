// SPDX-License-Identifier: GPL-2.0

//! I/O vectors that outlive the call they came with.
//!
//! C header: [`include/linux/uio.h`](srctree/include/linux/uio.h)

use crate::bindings;
use kernel::{
    iov::IovIterDest,
    prelude::*, //
};

/// A destination in kernel memory: a copy of a caller's iterator, which goes on where the caller's
/// was.
///
/// # Invariants
///
/// `raw` is a valid destination that is not user memory, and stays valid for as long as this
/// lives.
pub(crate) struct KernelIter {
    raw: bindings::iov_iter,
}

// SAFETY: By the invariant it does not refer to the memory of a task.
unsafe impl Send for KernelIter {}

impl KernelIter {
    /// Copies an iterator.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is a source or user memory.
    ///
    /// # Safety
    ///
    /// `iter` must be a valid iterator, and what it refers to must stay valid, and nobody else may
    /// touch it, for as long as the copy lives.
    pub(crate) unsafe fn copy_of(iter: *const bindings::iov_iter) -> Result<Self> {
        // SAFETY: The caller guarantees that it is valid.
        let raw = unsafe { iter.read() };
        let user = [
            bindings::iter_type_ITER_UBUF,
            bindings::iter_type_ITER_IOVEC,
        ];
        if user.contains(&raw.iter_type.into()) || raw.data_source {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked, and as the caller guarantees.
        Ok(KernelIter { raw })
    }

    /// The bytes that are left.
    pub(crate) fn len(&mut self) -> usize {
        self.dest().len()
    }

    /// The iterator as the kernel crate knows it.
    pub(crate) fn dest(&mut self) -> &mut IovIterDest<'_> {
        // SAFETY: By the invariant it is a valid destination; the result borrows `self`.
        unsafe { IovIterDest::from_raw(&mut self.raw) }
    }

    pub(super) fn as_raw(&mut self) -> *mut bindings::iov_iter {
        &mut self.raw
    }
}
