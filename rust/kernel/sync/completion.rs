// SPDX-License-Identifier: GPL-2.0

//! Completions that can be waited for killably.
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*,
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    types::Opaque, //
};

/// As `kernel::sync::Completion`, whose only wait cannot be interrupted.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: A `struct completion` is not tied to a task.
unsafe impl Send for Completion {}

// SAFETY: The functions called below may be called from several tasks at once.
unsafe impl Sync for Completion {}

impl Completion {
    /// Creates a completion that is not done.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is valid for writing, and is pinned from here on.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    /// Wakes all tasks that wait, now or later. May be called from any context.
    pub(crate) fn complete_all(&self) {
        // SAFETY: `new` initialised it.
        unsafe { bindings::complete_all(self.inner.get()) };
    }

    /// Waits for at most `timeout` milliseconds. Returns whether the completion is done.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if the task was killed.
    pub(crate) fn wait_killable_timeout(&self, timeout: Msecs) -> Result<bool> {
        // SAFETY: `new` initialised it, and the caller may sleep: every caller of a blocking
        // function of the kernel crate has to see to that.
        let left = unsafe {
            bindings::wait_for_completion_killable_timeout(
                self.inner.get(),
                msecs_to_jiffies(timeout),
            )
        };
        // CAST: Negative values are error numbers, which fit.
        to_result(left.min(0) as c_int)?;
        Ok(left != 0)
    }
}
