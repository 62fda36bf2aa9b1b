// SPDX-License-Identifier: GPL-2.0

//! Work queues of one's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    workqueue::{
        Queue,
        RawWorkItem, //
    }, //
};

/// A work queue that is destroyed with its owner.
///
/// Dropping it waits for the work on it, and so may sleep. Work on the queue must not be what drops
/// it: it would wait for itself. When a module has dropped its queues, no work on them runs any
/// more.
///
/// # Examples
///
/// ```
/// use kernel::{
///     impl_has_work,
///     new_work,
///     sync::{
///         Arc,
///         Completion, //
///     },
///     workqueue::{
///         OwnedQueue,
///         Work,
///         WorkItem, //
///     }, //
/// };
///
/// #[pin_data]
/// struct Job {
///     #[pin]
///     done: Completion,
///     #[pin]
///     work: Work<Job>,
/// }
///
/// impl_has_work! {
///     impl HasWork<Self> for Job { self.work }
/// }
///
/// impl WorkItem for Job {
///     type Pointer = Arc<Job>;
///
///     fn run(this: Arc<Job>) {
///         this.done.complete_all();
///     }
/// }
///
/// let queue = OwnedQueue::new_unbound(c"example")?;
/// let job = pin_init!(Job {
///     done <- Completion::new(),
///     work <- new_work!("Job::work"),
/// });
/// let job = Arc::pin_init(job, GFP_KERNEL)?;
///
/// assert!(queue.enqueue(job.clone()).is_ok());
/// job.done.wait_for_completion();
/// # Ok::<(), Error>(())
/// ```
///
/// # Invariants
///
/// The queue is valid, and this is what has to destroy it.
#[must_use = "the queue is destroyed immediately when it is unused"]
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A queue may be used by any task.
unsafe impl Send for OwnedQueue {}

// SAFETY: Work may be queued by several tasks at once.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Creates a queue whose work is not bound to the CPU that queues it. This may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new_unbound(name: &CStr) -> Result<Self> {
        // SAFETY: The name is terminated.
        let ptr = unsafe { bindings::alloc_unbound_workqueue(name.as_char_ptr()) };
        // INVARIANT: The function returns a new queue, or null.
        NonNull::new(ptr).map(Self).ok_or(ENOMEM)
    }

    /// Enqueues a work item, as [`Queue::enqueue`], from any context.
    ///
    /// Delayed work items cannot be enqueued: destroying a queue does not wait for their timers.
    #[inline]
    pub(crate) fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the invariant it is valid, for as long as `self` is.
        unsafe { Queue::from_raw(self.0.as_ptr()) }.enqueue(work)
    }

    /// Waits for the work that is on the queue now. Work on the queue that calls this waits for
    /// ever.
    #[inline]
    pub(crate) fn flush(&self) {
        // SAFETY: By the invariant it is valid.
        unsafe { bindings::flush_unbound_workqueue(self.0.as_ptr()) };
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: By the invariant; the function waits for what is queued.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

#[kunit_tests(rust_owned_queue)]
mod tests {
    use super::*;
    use crate::kernel_next::kunit::support::Count;
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

    /// Takes its time, then counts.
    #[pin_data]
    struct Job {
        runs: Count,
        #[pin]
        work: Work<Job>,
    }

    impl_has_work! {
        impl HasWork<Self> for Job { self.work }
    }

    impl Job {
        fn new(runs: &Count) -> Result<Arc<Self>> {
            let runs = runs.clone();
            let new = pin_init!(Job {
                runs,
                work <- new_work!("queue test"),
            });
            Arc::pin_init(new, GFP_KERNEL)
        }
    }

    impl WorkItem for Job {
        type Pointer = Arc<Job>;

        fn run(this: Arc<Job>) {
            fsleep(Delta::from_millis(20));
            this.runs.add();
        }
    }

    #[test]
    fn flush_waits_for_work() -> Result {
        let queue = OwnedQueue::new_unbound(c"queue_test")?;
        let runs = Count::new()?;
        for _ in 0..8 {
            assert!(queue.enqueue(Job::new(&runs)?).is_ok());
        }
        queue.flush();
        assert_eq!(runs.get(), 8);
        // An empty queue has nothing to wait for.
        queue.flush();
        assert_eq!(runs.get(), 8);
        Ok(())
    }

    #[test]
    fn drop_waits_for_work() -> Result {
        let queue = OwnedQueue::new_unbound(c"queue_test")?;
        let runs = Count::new()?;
        for _ in 0..8 {
            assert!(queue.enqueue(Job::new(&runs)?).is_ok());
        }
        drop(queue);
        assert_eq!(runs.get(), 8);
        Ok(())
    }

    #[test]
    fn work_gives_its_reference_back() -> Result {
        let queue = OwnedQueue::new_unbound(c"queue_test")?;
        let runs = Count::new()?;
        let job = Job::new(&runs)?;
        for round in 1..=3 {
            assert!(queue.enqueue(job.clone()).is_ok());
            queue.flush();
            assert_eq!(runs.get(), round);
        }
        assert!(Arc::into_unique_or_drop(job).is_some());
        Ok(())
    }

    #[test]
    fn work_can_be_queued_by_several_tasks() -> Result {
        let (one, two) = (
            OwnedQueue::new_unbound(c"queue_test_1")?,
            OwnedQueue::new_unbound(c"queue_test_2")?,
        );
        let runs = Count::new()?;
        let job = Job::new(&runs)?;
        assert!(one.enqueue(job.clone()).is_ok());
        // Pending or running on the first queue: it is given back, or runs there a second time.
        let again = two.enqueue(job.clone()).is_ok();
        one.flush();
        two.flush();
        assert_eq!(runs.get(), 1 + i32::from(again));
        drop((one, two));
        assert!(Arc::into_unique_or_drop(job).is_some());
        Ok(())
    }
}
