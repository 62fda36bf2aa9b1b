// SPDX-License-Identifier: GPL-2.0

//! The requests of a cache: the table with its lock, and what else those who ask and those who
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

// A chunk of them, with their links, has four pages.
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

/// The requests of a cache, and those who wait for them. File descriptors keep this, and no more of
/// the cache.
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
    /// Watches over READs.
    #[pin]
    pub(super) watch: Work<Requests>,
    pub(super) options: Options,
    /// When time began.
    start: Instant<Monotonic>,
    /// Whether the log was told that requests time out.
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

    /// Does something to the table, then wakes the daemon if there is something new for it.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Table<Payloads>) -> R) -> R {
        self.with_traced(f, |_| {})
    }

    /// As [`Self::with`], and traces what came of it: without the lock, but before the daemon is
    /// woken, so that its answer comes later in the trace.
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
            // All who poll, but of those who do so exclusively (`EPOLLEXCLUSIVE`) only one.
            self.poll.notify_one();
        }
        ret
    }

    /// The time in milliseconds.
    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_millis().unsigned_abs()
    }

    /// Tells the log, once, that requests have timed out.
    pub(super) fn warn_of_timeouts(&self, count: usize) {
        if count > 0 && self.has_warned.xchg(1, Relaxed) == 0 {
            pr_warn!("{} requests timed out; is the daemon stuck?\n", count);
        }
    }

    /// As [`Self::with`], where the daemon may have to be told to close a file descriptor of
    /// `object`.
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

    /// Sees to it that there is room for so many more. Whoever else does that at the same time
    /// allocates no more than this does, and what is not needed then is freed.
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

    /// Tells those whose requests have failed as a group.
    pub(super) fn complete_failed(&self) {
        while let Some(failed) = self.with(|table| table.pop_failed()) {
            match failed {
                Failed::Waiter(open) => self.answered(&open, Err(EIO)),
                Failed::Read(read) => read.fail(EIO),
                Failed::Waker(place) => place.wake(),
                Failed::Nobody => {}
            }
        }
    }

    /// Has a read go on in the work queue. The operation that it belongs to keeps the cache in
    /// service.
    pub(crate) fn run(&self, read: Pin<KBox<WaitingRead>>) {
        // A work item that is new, or was just taken out of the table, is not on a queue.
        self.workqueue.enqueue(read);
    }

    /// Has those that wait with a read, which was taken out of the table, go on in the work queue.
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

    /// Something could not be found, made or written in the cache: ends everything if the cache
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

    /// A reader is done with its READs.
    pub(super) fn end_admission(&self, key: ObjectKey, user: User) {
        let (wakes, _spare) = self.with(|table| (table.end_admission(key, user), table.trim()));
        wake(wakes);
    }
}

/// What a reader has that may have a READ outstanding, once it has had one; before that it is
/// empty. Given back when it is dropped, which must not be under the table's lock.
pub(crate) struct Ticket {
    requests: Option<Arc<Requests>>,
    key: ObjectKey,
    user: User,
}

impl Ticket {
    /// That of a reader who has had no READ yet.
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

    /// Makes it empty, without giving anything back: nothing was taken.
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

/// Where the data of an object comes from: the requests, and what the daemon has said of the
/// object.
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
