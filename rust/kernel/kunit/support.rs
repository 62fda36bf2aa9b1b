// SPDX-License-Identifier: GPL-2.0

//! What the tests of the abstractions share.
//!
//! KUnit runs each test on a kernel thread of its own. A test that fails or is skipped ends that
//! thread where it is, without running destructors.

use crate::{
    bindings,
    kernel_next::compat::EOPNOTSUPP, //
};
use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    }, //
};

/// The test that the current task runs.
pub(in crate::kernel_next) fn current_test() -> *mut bindings::kunit {
    // SAFETY: No preconditions.
    let test = unsafe { bindings::kunit_get_current_test() };
    assert!(
        !test.is_null(),
        "this is for tests, on the thread of the test"
    );
    test
}

/// Ends the test, which KUnit then reports as skipped.
///
/// This does not return, and does not run destructors: it should be called before the test has
/// anything that they would have to release.
pub(in crate::kernel_next) fn skip(reason: &CStr) -> ! {
    let test = current_test();
    // SAFETY: The task runs `test`, and the reason, which is copied, is terminated.
    unsafe { bindings::kunit_mark_skipped(test, reason.as_char_ptr()) };
    // SAFETY: The task runs `test`, on a thread that KUnit made for it.
    unsafe { bindings::__kunit_abort(test) }
}

/// Opens the device that is called `name`, as a process would that finds it in `/dev`.
///
/// The test is skipped if the kernel has no devtmpfs.
pub(in crate::kernel_next) fn open_device(name: &CStr) -> Result<ARef<File>> {
    // SAFETY: The name is terminated.
    let file = match from_err_ptr(unsafe { bindings::kunit_open_device(name.as_char_ptr()) }) {
        Err(EOPNOTSUPP) => skip(c"the kernel has no devtmpfs"),
        file => NonNull::new(file?).ok_or(ENOENT)?,
    };
    // SAFETY: The function returned a reference to a new file, whose position nobody uses.
    // `File` is a transparent wrapper.
    Ok(unsafe { ARef::from_raw(file.cast()) })
}

/// A page of user memory, which goes with the test.
pub(in crate::kernel_next) fn user_page() -> Result<usize> {
    // SAFETY: The task runs the test.
    let addr = unsafe { bindings::kunit_user_page(current_test()) };
    // CAST: Error numbers are small negative numbers.
    to_result((addr as isize).clamp(-4095, 0) as c_int)?;
    Ok(addr)
}

/// Runs `f` as a task that was killed.
pub(in crate::kernel_next) fn killed<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: The task is a kernel thread that runs a test.
    unsafe { bindings::kunit_kill_current() };
    let ret = f();
    // SAFETY: As above.
    unsafe { bindings::kunit_unkill_current() };
    ret
}

/// Waits until files whose last reference is gone are closed, which kernel threads leave to others.
pub(in crate::kernel_next) fn close_files() {
    // SAFETY: No preconditions but that the caller may sleep.
    unsafe { bindings::flush_delayed_fput() };
}

/// Counts how often something happens.
#[derive(Clone)]
pub(in crate::kernel_next) struct Count(Arc<Atomic<i32>>);

impl Count {
    pub(in crate::kernel_next) fn new() -> Result<Self> {
        Ok(Count(Arc::new(Atomic::new(0), GFP_KERNEL)?))
    }

    pub(in crate::kernel_next) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(in crate::kernel_next) fn get(&self) -> i32 {
        self.0.load(Relaxed)
    }

    /// A value whose drop is counted.
    pub(in crate::kernel_next) fn on_drop(&self) -> OnDrop {
        OnDrop(self.clone())
    }
}

/// Counts that it was dropped.
pub(in crate::kernel_next) struct OnDrop(Count);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// Kernel memory that an I/O vector goes to, or comes from.
pub(in crate::kernel_next) struct Memory {
    // Its address is stable when this moves.
    bytes: KVec<u8>,
    kvec: KBox<bindings::kvec>,
}

impl Memory {
    /// So many bytes of the value `fill`, aligned to their number if that is a power of two.
    pub(in crate::kernel_next) fn new(len: usize, fill: u8) -> Result<Self> {
        let mut bytes = KVec::from_elem(fill, len, GFP_KERNEL)?;
        let kvec = bindings::kvec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: len,
        };
        Ok(Memory {
            bytes,
            kvec: KBox::new(kvec, GFP_KERNEL)?,
        })
    }

    /// An I/O vector, which is valid for as long as `self` is.
    pub(in crate::kernel_next) fn iter(&mut self, direction: u32) -> bindings::iov_iter {
        let mut iter = bindings::iov_iter::default();
        // SAFETY: The memory is as long as the vector says.
        unsafe { bindings::iov_iter_kvec(&mut iter, direction, &*self.kvec, 1, self.bytes.len()) };
        iter
    }

    pub(in crate::kernel_next) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
