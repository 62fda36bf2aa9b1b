// SPDX-License-Identifier: GPL-2.0

//! Work queues of one's own.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    sync::{
        Completion,
        Refcount, //
    },
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
        Self::new(name, 0)
    }

    fn new(name: &CStr, flags: bindings::wq_flags) -> Result<Self> {
        // SAFETY: The name is terminated.
        let ptr = unsafe { bindings::alloc_unbound_workqueue(name.as_char_ptr(), flags) };
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

/// A queue for work that memory reclaim waits for, as the end of a write to a disk: it has a worker
/// of its own for when there is no memory for another (`WQ_MEM_RECLAIM`).
///
/// Whoever may have to queue something where nothing may fail or wait, as in an interrupt, takes a
/// [`QueueHold`] before. Dropping the queue waits until all of these are used or dropped, and then
/// for the work. So it may sleep, and neither that work nor whoever has a hold may be what drops
/// it. The work must not wait for work on a queue that has no such worker.
///
/// # Examples
///
/// ```
/// use kernel::{
///     impl_has_work,
///     new_work,
///     sync::Arc,
///     workqueue::{
///         ReclaimQueue,
///         Work,
///         WorkItem, //
///     }, //
/// };
///
/// #[pin_data]
/// struct Job {
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
///     fn run(_this: Arc<Job>) {}
/// }
///
/// let queue = ReclaimQueue::new(c"example")?;
/// let hold = queue.hold();
/// let job = pin_init!(Job { work <- new_work!("Job::work") });
/// let job = Arc::pin_init(job, GFP_KERNEL)?;
/// // Later, in any context:
/// assert!(hold.enqueue(job).is_ok());
/// # Ok::<(), Error>(())
/// ```
#[must_use = "the queue is destroyed immediately when it is unused"]
pub(crate) struct ReclaimQueue(Pin<KBox<Held>>);

/// What the holds of a queue point to.
#[pin_data]
struct Held {
    queue: OwnedQueue,
    /// One for the owner, one for each hold.
    holds: Refcount,
    /// All of them are gone.
    #[pin]
    unused: Completion,
}

impl ReclaimQueue {
    /// Creates a queue whose work is not bound to the CPU that queues it. This may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`] if there is no memory.
    pub(crate) fn new(name: &CStr) -> Result<Self> {
        let queue = OwnedQueue::new(name, bindings::wq_flags_WQ_MEM_RECLAIM)?;
        let held = KBox::pin_init(
            pin_init!(Held {
                queue,
                holds: Refcount::new(1),
                unused <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        Ok(ReclaimQueue(held))
    }

    /// Keeps the queue until something is queued. Does not sleep.
    #[inline]
    pub(crate) fn hold(&self) -> QueueHold {
        self.0.holds.inc();
        // INVARIANT: Just counted.
        QueueHold(NonNull::from(&*self.0))
    }
}

impl Drop for ReclaimQueue {
    fn drop(&mut self) {
        if !self.0.holds.dec_and_test() {
            self.0.unused.wait_for_completion();
        }
        // The queue goes next, which waits for what was queued.
    }
}

/// The right to queue something. Using and dropping it do not sleep, and may be done in any
/// context.
///
/// # Invariants
///
/// The queue is valid: it counts this, and is not destroyed before.
#[must_use = "dropping it gives the right up"]
pub(crate) struct QueueHold(NonNull<Held>);

// SAFETY: A queue may be used by any task.
unsafe impl Send for QueueHold {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl Sync for QueueHold {}

impl QueueHold {
    /// Enqueues a work item, as [`Queue::enqueue`].
    #[inline]
    pub(crate) fn enqueue<W, const ID: u64>(self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the invariant, until `self` is dropped, which is at the end.
        unsafe { self.0.as_ref() }.queue.enqueue(work)
    }
}

impl Drop for QueueHold {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the invariant it is valid until this is not counted any more; and if it was
        // the last one, until who drops the queue is woken, which is the last that is done with it.
        let held = unsafe { self.0.as_ref() };
        if held.holds.dec_and_test() {
            held.unused.complete_all();
        }
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

    #[test]
    fn reclaim_queue_waits_for_holds_and_their_work() -> Result {
        let queue = ReclaimQueue::new(c"queue_test")?;
        let runs = Count::new()?;
        let dropped = Count::new()?;
        // One is used, one is not.
        let (used, unused) = (queue.hold(), queue.hold());
        let (job, counted) = (Job::new(&runs)?, dropped.on_drop());
        kernel::workqueue::system().try_spawn(GFP_KERNEL, move || {
            fsleep(Delta::from_millis(50));
            drop(counted);
            drop(unused);
            assert!(used.enqueue(job).is_ok());
        })?;
        drop(queue);
        assert_eq!((dropped.get(), runs.get()), (1, 1));
        // Without a hold, there is nothing to be waited for.
        drop(ReclaimQueue::new(c"queue_test")?);
        Ok(())
    }
}
