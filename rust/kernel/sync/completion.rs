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

#[kunit_tests(rust_completion)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        kunit::support,
        workqueue::OwnedQueue, //
    };
    use kernel::{
        impl_has_work,
        new_work,
        sync::Arc,
        time::{
            delay::fsleep,
            Delta, //
        },
        workqueue::{
            Work,
            WorkItem, //
        }, //
    };

    /// Longer than any test has to wait.
    const LONG: Msecs = 20_000;

    /// Completes a completion after a while.
    #[pin_data]
    struct Completer {
        #[pin]
        completion: Completion,
        #[pin]
        work: Work<Completer>,
    }

    impl_has_work! {
        impl HasWork<Self> for Completer { self.work }
    }

    impl Completer {
        fn new() -> Result<Arc<Self>> {
            let new = pin_init!(Completer {
                completion <- Completion::new(),
                work <- new_work!("completion test"),
            });
            Arc::pin_init(new, GFP_KERNEL)
        }
    }

    impl WorkItem for Completer {
        type Pointer = Arc<Completer>;

        fn run(this: Arc<Completer>) {
            fsleep(Delta::from_millis(20));
            this.completion.complete_all();
        }
    }

    #[test]
    fn wait_times_out() -> Result {
        let this = Completer::new()?;
        assert_eq!(this.completion.wait_killable_timeout(10), Ok(false));
        // Nothing of the first wait is left behind.
        assert_eq!(this.completion.wait_killable_timeout(0), Ok(false));
        Ok(())
    }

    #[test]
    fn complete_all_is_for_ever() -> Result {
        let this = Completer::new()?;
        this.completion.complete_all();
        for _ in 0..3 {
            assert_eq!(this.completion.wait_killable_timeout(0), Ok(true));
        }
        Ok(())
    }

    #[test]
    fn waiter_is_woken() -> Result {
        let queue = OwnedQueue::new_unbound(c"completion_test")?;
        let this = Completer::new()?;
        assert!(queue.enqueue(this.clone()).is_ok());
        assert_eq!(this.completion.wait_killable_timeout(LONG), Ok(true));
        Ok(())
    }

    #[test]
    fn killed_waiter_gives_up() -> Result {
        let this = Completer::new()?;
        let waited = support::killed(|| this.completion.wait_killable_timeout(LONG));
        assert_eq!(waited, Err(ERESTARTSYS));
        // The waiter is off the list: completing finds nobody.
        this.completion.complete_all();
        // What is done is done, even for a task that was killed.
        let waited = support::killed(|| this.completion.wait_killable_timeout(LONG));
        assert_eq!(waited, Ok(true));
        Ok(())
    }
}
