// SPDX-License-Identifier: GPL-2.0

//! The requests of a cache: the table with its lock, and what else the sides that ask and that
//! answer share.

use super::{
    line::{
        wake,
        Place, //
    },
    lookup::{
        Answer,
        Opens,
        PendingOpen,
        Version, //
    },
    read::WaitingRead, //
};
use crate::{
    kernel_next::{
        sync::Completion,
        workqueue::OwnedQueue, //
    },
    object::Object,
    protocol::command::Options,
    table::{
        slots::{
            Buffer,
            Slots,
            Storage,
            Supply, //
        },
        Bounds,
        Failed,
        ObjectKey,
        Request,
        Table,
        Types,
        User, //
    },
    trace, //
};
use core::mem::size_of;
use kernel::{
    new_spinlock,
    new_work,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        poll::PollCondVar,
        Arc,
        SpinLock, //
    },
    time::{
        Instant,
        Monotonic, //
    },
    workqueue::Work, //
};

/// What the request table holds in the kernel.
pub(crate) struct Payloads;

// 256 of them, plus 8 bytes of id and link each, fill 16 KiB.
const _: () = assert!(size_of::<Request<Payloads>>() <= 56);

impl Storage for Payloads {
    type Buf<T> = KVVec<T>;
    type Error = Error;

    const CHUNK: usize = 256;

    fn alloc<T>(capacity: usize) -> Result<KVVec<T>> {
        // Accounted to the task that makes the table grow.
        Ok(KVVec::with_capacity(capacity, GFP_KERNEL_ACCOUNT)?)
    }
}

impl<T> Buffer<T> for KVVec<T> {
    fn put(&mut self, value: T) -> core::result::Result<(), T> {
        self.push_within_capacity(value).map_err(|full| full.0)
    }

    fn take_last(&mut self) -> Option<T> {
        self.pop()
    }

    fn capacity(&self) -> usize {
        KVVec::capacity(self)
    }
}

impl Types for Payloads {
    type Object = Arc<Object>;
    type Waiter = Arc<PendingOpen>;
    type Read = Pin<KBox<WaitingRead>>;
    type Version = Version;
    type Waker = Arc<Place>;

    fn join(other: &mut Self::Read, read: Self::Read) {
        other.add(read);
    }
}

/// The requests of a cache, and the tasks that wait for them. File descriptors keep a reference to
/// this, and to nothing else of the cache.
#[pin_data]
pub(crate) struct Requests {
    #[pin]
    pub(super) table: SpinLock<Table<Payloads>>,
    /// The OPENs of lookups that are under way.
    #[pin]
    pub(super) opens: Opens,
    /// Completed when the cache is dead.
    #[pin]
    pub(super) killed: Completion,
    pub(super) poll: Arc<PollCondVar>,
    pub(super) workqueue: OwnedQueue,
    /// The work item that ends READs and OPENs on a timeout or when their cookie is no longer used
    /// (`watch.rs`).
    #[pin]
    pub(super) watch: Work<Requests>,
    pub(super) options: Options,
    /// The origin of [`Self::now`].
    start: Instant<Monotonic>,
    /// Whether the warning that requests time out was logged.
    has_warned: Atomic<i32>,
}

impl Requests {
    pub(crate) fn new(options: Options, poll: Arc<PollCondVar>) -> Result<Arc<Self>> {
        let workqueue = OwnedQueue::new_unbound(c"cachefiles")?;
        Arc::pin_init(
            pin_init!(Self {
                opens <- Opens::new(),
                table <- new_spinlock!(Table::new(Bounds::DEFAULT)),
                killed <- Completion::new(),
                poll,
                workqueue,
                watch <- new_work!(),
                options,
                start: Instant::now(),
                has_warned: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Calls `f` with the table locked, then wakes the daemon if there is something new for it.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Table<Payloads>) -> R) -> R {
        self.with_traced(f, |_| {})
    }

    /// As [`Self::with`], and calls `trace` with the result: without the lock, but before the
    /// daemon is woken, so that its answer comes later in the trace.
    pub(super) fn with_traced<R>(
        &self,
        f: impl FnOnce(&mut Table<Payloads>) -> R,
        trace: impl FnOnce(&R),
    ) -> R {
        let mut table = self.table.lock();
        let ret = f(&mut table);
        let wake = table.take_wake();
        drop(table);
        trace(&ret);
        if wake {
            // Wakes all pollers, but of the exclusive ones (`EPOLLEXCLUSIVE`) only one.
            self.poll.notify_one();
        }
        ret
    }

    /// The time in milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_millis().unsigned_abs()
    }

    /// Logs, once, that requests have timed out.
    pub(super) fn warn_of_timeouts(&self, count: usize) {
        if count > 0 && self.has_warned.xchg(1, Relaxed) == 0 {
            cf_warn!("{} requests timed out; is the daemon stuck?\n", count);
        }
    }

    /// As [`Self::with`], where `f` may queue a CLOSE for a file descriptor of `object`; traces it.
    pub(super) fn with_close<R>(
        &self,
        object: &Object,
        f: impl FnOnce(&mut Table<Payloads>) -> R,
    ) -> R {
        let (ret, _) = self.with_traced(
            |table| (f(table), table.take_closed()),
            |(_, closed)| {
                if let Some((msg_id, object_id)) = *closed {
                    trace::close(object.debug_id(), msg_id, object_id);
                }
            },
        );
        ret
    }

    /// Grows a map of the table until `extra` more values fit. Callers that race each allocate;
    /// what is too much is freed.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are as many as there may be; `ENOMEM`.
    pub(super) fn make_room<T>(
        &self,
        extra: usize,
        pick: for<'a> fn(&'a mut Table<Payloads>) -> &'a mut Slots<T, Payloads>,
    ) -> Result {
        while let Some(want) = self.with(|table| pick(table).wants(extra)) {
            let supply = Supply::bring(want)?.ok_or(EBUSY)?;
            let _not_needed = self.with(|table| pick(table).grow(extra, supply));
        }
        Ok(())
    }

    /// Completes the requests that have failed as a group, and wakes the readers whose wait was
    /// cancelled. Not under the table's lock.
    pub(super) fn complete_failed(&self) {
        while let Some(failed) = self.with(|table| table.pop_failed()) {
            match failed {
                Failed::Waiter(open) => self.finish_open(&open, Err(EIO)),
                Failed::Read(read) => read.fail(EIO),
                Failed::Waker(place) => place.wake(),
                Failed::Nobody => {}
            }
        }
    }

    /// Continues a read in the work queue. The read's operation keeps the cache in service.
    pub(crate) fn run(&self, read: Pin<KBox<WaitingRead>>) {
        // Never fails: a work item that is new, or was just taken out of the table, is not queued.
        self.workqueue.enqueue(read);
    }

    /// Continues the reads that have joined a read, which was taken out of the table, in the work
    /// queue.
    pub(super) fn run_others(&self, read: &mut Pin<KBox<WaitingRead>>) {
        for other in read.take_others() {
            self.run(other);
        }
    }

    /// Ends all requests with `EIO`, now and from here on: there is no daemon any more.
    pub(crate) fn kill(&self) {
        self.with(|table| table.kill());
        self.poll.notify_all();
        self.killed.complete_all();
        self.complete_failed();
        while let Some(open) = self.opens.close() {
            self.drop_open(&open);
        }
    }

    /// Something could not be found, made or written in the cache: kills the requests if the cache
    /// `is_broken`, as nothing new can be fetched then.
    pub(crate) fn io_error(&self, is_broken: impl FnOnce() -> bool) {
        if !self.is_dead() && is_broken() {
            self.kill();
        }
    }

    /// What the daemon asked for when it bound the cache.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Waits for work that is under way.
    pub(crate) fn flush(&self) {
        self.workqueue.flush();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.table.lock().is_dead()
    }

    /// A reader is done with its READs: gives back its units of the limits and its slot.
    pub(super) fn end_admission(&self, key: ObjectKey, user: User) {
        let (wakes, _spare) = self.with(|table| (table.end_admission(key, user), table.trim()));
        wake(wakes);
    }
}

/// A reader's share of the limits on outstanding READs (user, object, table) and its reserved slot.
/// Empty until the first READ is queued. Dropping it gives the share back; that takes the table's
/// lock.
pub(crate) struct Ticket {
    requests: Option<Arc<Requests>>,
    key: ObjectKey,
    user: User,
}

impl Ticket {
    /// For a reader that has queued no READ yet.
    pub(crate) fn empty() -> Self {
        Ticket {
            requests: None,
            key: ObjectKey::NONE,
            user: User::EXEMPT,
        }
    }

    pub(super) fn new(requests: Arc<Requests>, key: ObjectKey, user: User) -> Self {
        Ticket {
            requests: Some(requests),
            key,
            user,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_none()
    }

    /// Makes it empty, without giving anything back: the reader was not admitted.
    pub(crate) fn forget(&mut self) {
        self.requests = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(requests) = self.requests.take() {
            requests.end_admission(self.key, self.user);
        }
    }
}

/// Where the data of an object comes from: the requests, the object in them, and the daemon's
/// answer to its OPEN.
pub(crate) struct Source {
    pub(super) requests: Arc<Requests>,
    pub(super) object: Arc<Object>,
    pub(super) answer: Answer,
}

impl Source {
    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The size of the object in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.answer.size
    }

    /// The version of the object; empty if the daemon gave none.
    pub(crate) fn version(&self) -> &[u8] {
        self.answer.version()
    }
}
