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

/// A work queue that is destroyed with its owner. Dropping it waits for the work on it, so that
/// none runs when the module is gone.
///
/// # Invariants
///
/// The queue is valid, and this is what has to destroy it.
pub(crate) struct OwnedQueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A queue may be used by any task.
unsafe impl Send for OwnedQueue {}

// SAFETY: Work may be queued by several tasks at once.
unsafe impl Sync for OwnedQueue {}

impl OwnedQueue {
    /// Creates a queue whose work is not bound to the CPU that queues it.
    pub(crate) fn new_unbound(name: &CStr) -> Result<Self> {
        // SAFETY: The name is terminated.
        let ptr = unsafe { bindings::alloc_unbound_workqueue(name.as_char_ptr()) };
        // INVARIANT: The function returns a new queue, or null.
        NonNull::new(ptr).map(Self).ok_or(ENOMEM)
    }

    /// Queues work. Delayed work cannot be: destroying a queue does not wait for timers.
    pub(crate) fn enqueue<W, const ID: u64>(&self, work: W) -> W::EnqueueOutput
    where
        W: RawWorkItem<ID> + Send + 'static,
    {
        // SAFETY: By the invariant it is valid, for as long as `self` is.
        unsafe { Queue::from_raw(self.0.as_ptr()) }.enqueue(work)
    }

    /// Waits for the work that is on the queue now. Must not be called by such work.
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
