// SPDX-License-Identifier: GPL-2.0

//! Completion support.
//!
//! Reference: <https://docs.kernel.org/scheduler/completion.html>
//!
//! C header: [`include/linux/completion.h`](srctree/include/linux/completion.h)

use crate::bindings;
use kernel::{
    prelude::*,
    task::MAX_SCHEDULE_TIMEOUT,
    time::Jiffies,
    types::Opaque, //
};

/// Synchronization primitive to signal when a certain task has been completed.
///
/// The [`Completion`] synchronization primitive signals when a certain task has been completed by
/// waking up other tasks that have been queued up to wait for the [`Completion`] to be completed.
#[pin_data]
pub(crate) struct Completion {
    #[pin]
    inner: Opaque<bindings::completion>,
}

// SAFETY: `Completion` is safe to be send to any task.
unsafe impl Send for Completion {}

// SAFETY: `Completion` is safe to be accessed concurrently.
unsafe impl Sync for Completion {}

impl Completion {
    /// Create an initializer for a new [`Completion`].
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- Opaque::ffi_init(|slot: *mut bindings::completion| {
                // SAFETY: `slot` is a valid pointer to an uninitialized `struct completion`.
                unsafe { bindings::init_completion(slot) };
            }),
        })
    }

    fn as_raw(&self) -> *mut bindings::completion {
        self.inner.get()
    }

    /// Signal all tasks waiting on this completion.
    ///
    /// This method wakes up all tasks waiting on this completion; after this operation the
    /// completion is permanently done, i.e. signals all current and future waiters.
    #[inline]
    pub(crate) fn complete_all(&self) {
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        unsafe { bindings::complete_all(self.as_raw()) };
    }

    /// Wait for completion of a task, until the current task is killed or `timeout` is over.
    ///
    /// Returns the time that was left, which is at least one jiffy, or [`None`] if the completion
    /// was not done in time. [`MAX_SCHEDULE_TIMEOUT`], or more, is for ever. This method may sleep,
    /// and is only for where that is allowed, also with a `timeout` of 0.
    ///
    /// See also [`Completion::complete_all`].
    ///
    /// # Errors
    ///
    /// [`ERESTARTSYS`] if the current task was killed and the completion is not done.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     sync::Completion,
    ///     time::msecs_to_jiffies, //
    /// };
    ///
    /// let done = KBox::pin_init(Completion::new(), GFP_KERNEL)?;
    /// let timeout = msecs_to_jiffies(1);
    ///
    /// assert_eq!(done.wait_for_completion_killable_timeout(timeout)?, None);
    ///
    /// done.complete_all();
    /// assert!(done.wait_for_completion_killable_timeout(timeout)?.is_some());
    /// # Ok::<(), Error>(())
    /// ```
    #[inline]
    pub(crate) fn wait_for_completion_killable_timeout(
        &self,
        timeout: Jiffies,
    ) -> Result<Option<Jiffies>> {
        // CAST: The constant is positive. The function takes more for a negative number.
        let timeout = timeout.min(MAX_SCHEDULE_TIMEOUT as Jiffies);
        // SAFETY: `self.as_raw()` is a pointer to a valid `struct completion`.
        let left =
            unsafe { bindings::wait_for_completion_killable_timeout(self.as_raw(), timeout) };
        match Jiffies::try_from(left) {
            Ok(0) => Ok(None),
            Ok(left) => Ok(Some(left)),
            // CAST: Negative values are error numbers, which fit.
            Err(_) => Err(Error::from_errno(left as c_int)),
        }
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
            msecs_to_jiffies,
            Delta,
            Msecs, //
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

    /// Whether `this` was done in time.
    fn wait(this: &Completer, timeout: Msecs) -> Result<bool> {
        let left = this
            .completion
            .wait_for_completion_killable_timeout(msecs_to_jiffies(timeout))?;
        assert!(left != Some(0));
        Ok(left.is_some())
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
        assert_eq!(wait(&this, 10), Ok(false));
        // Nothing of the first wait is left behind.
        assert_eq!(wait(&this, 0), Ok(false));
        Ok(())
    }

    #[test]
    fn timeout_may_be_as_long_as_can_be_said() -> Result {
        let queue = OwnedQueue::new_unbound(c"completion_test")?;
        let this = Completer::new()?;
        assert!(queue.enqueue(this.clone()).is_ok());
        let left = this
            .completion
            .wait_for_completion_killable_timeout(Jiffies::MAX);
        assert!(matches!(left, Ok(Some(_))));
        Ok(())
    }

    #[test]
    fn complete_all_is_for_ever() -> Result {
        let this = Completer::new()?;
        this.completion.complete_all();
        for _ in 0..3 {
            assert_eq!(wait(&this, 0), Ok(true));
        }
        Ok(())
    }

    #[test]
    fn waiter_is_woken() -> Result {
        let queue = OwnedQueue::new_unbound(c"completion_test")?;
        let this = Completer::new()?;
        assert!(queue.enqueue(this.clone()).is_ok());
        assert_eq!(wait(&this, LONG), Ok(true));
        Ok(())
    }

    #[test]
    fn killed_waiter_gives_up() -> Result {
        let this = Completer::new()?;
        let waited = support::killed(|| wait(&this, LONG));
        assert_eq!(waited, Err(ERESTARTSYS));
        // The waiter is off the list: completing finds nobody.
        this.completion.complete_all();
        // What is done is done, even for a task that was killed.
        let waited = support::killed(|| wait(&this, LONG));
        assert_eq!(waited, Ok(true));
        Ok(())
    }
}
