// SPDX-License-Identifier: GPL-2.0

//! On-demand mode: asking the daemon.
//!
//! Lookups and reads put requests into the [request table](crate::table); the daemon reads them
//! from the device as messages, and answers: an OPEN with `copen`, a READ by writing to the
//! object's [file descriptor](anon_fd) and saying so. A CLOSE has no answer, and nobody waits for
//! one.
//!
//! # Locks
//!
//! The table's lock is a spinlock. Nothing is allocated, freed, copied to the daemon or completed
//! under it; what comes out of the table is dealt with afterwards. The only locks that are taken
//! under it are that of an object's cookie and that of those who wait for messages, under which no
//! other is taken.

mod anon_fd;
mod lookup;
mod request;
pub(crate) mod ticket;

pub(crate) use self::lookup::Answer;

use self::{
    anon_fd::Handle,
    lookup::{
        Found,
        Open,
        Opens, //
    },
    ticket::{
        Place,
        Ticket, //
    }, //
};
use crate::{
    io::{
        WaitingRead,
        Written, //
    },
    kernel_next::{
        fs::dentry::Dentry,
        fscache::Lookup,
        sync::{
            poll::events,
            Completion, //
        },
        workqueue::OwnedQueue, //
    },
    object::Object,
    protocol::{
        command::{
            Copen,
            Options,
            Reply, //
        },
        msg::{
            self,
            Message, //
        }, //
    },
    space::Space,
    table::{
        slots::{
            Buffer,
            Slots,
            Storage,
            Supply, //
        },
        Bounds,
        Delivery,
        Failed,
        Family,
        Heeds,
        ObjectKey,
        Queued,
        Refused,
        Request,
        Table,
        User, //
    },
    trace, //
};
use core::mem::size_of;
use kernel::{
    cred::Credential,
    fs::file::{
        flags,
        FileDescriptorReservation, //
    },
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
    uaccess::UserSliceWriter,
    workqueue::Work, //
};

/// Interval in milliseconds at which requests are checked for a time limit, and for whether
/// anybody still uses their cookie.
const PATIENCE: u32 = 1000;

/// How many messages one `read()` delivers at most, so that it does not take long.
const BATCH: usize = 1024;

/// Which version of an object the daemon serves: an opaque string that it gave with the size.
#[derive(Clone)]
pub(crate) struct Version(Arc<KVec<u8>>);

impl Version {
    fn new(bytes: &[u8]) -> Result<Self> {
        let mut version = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;
        version.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(Version(Arc::new(version, GFP_KERNEL)?))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// What the request table holds in the kernel.
pub(crate) struct Requests;

// A chunk of them, with their links, has four pages.
const _: () = assert!(size_of::<Request<Requests>>() <= 56);

impl Storage for Requests {
    type Buf<T> = KVVec<T>;
    type Error = Error;

    const CHUNK: usize = 256;

    fn alloc<T>(capacity: usize) -> Result<KVVec<T>> {
        // Whoever makes the table grow pays for it.
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

impl Family for Requests {
    type Object = Arc<Object>;
    type Waiter = Arc<Open>;
    type Read = Pin<KBox<WaitingRead>>;
    type Version = Version;
    type Sleeper = Arc<Place>;

    fn join(other: &mut Self::Read, read: Self::Read) {
        other.add(read);
    }
}

/// The buffer of a `read()`.
struct Output {
    /// What is left of it.
    buf: UserSliceWriter,
    /// Bytes from its start to the end of the last message.
    len: usize,
}

impl Output {
    /// Room for a message.
    fn room(&self) -> usize {
        self.buf.len().saturating_sub(msg::padding(self.len).len())
    }

    /// Appends a message that there is room for. Not to be used any more if it fails.
    fn put<const SIZE: usize>(&mut self, msg: &Message<SIZE>) -> Result {
        let padding = msg::padding(self.len);
        self.buf.write_slice(padding)?;
        self.buf.write_slice(msg.as_bytes())?;
        self.len += padding.len() + msg.as_bytes().len();
        Ok(())
    }
}

/// The requests of a cache, and those who wait for them. File descriptors keep this, and no more of
/// the cache.
#[pin_data]
pub(crate) struct Ondemand {
    #[pin]
    table: SpinLock<Table<Requests>>,
    /// The OPENs of lookups that are under way.
    #[pin]
    opens: Opens,
    /// Completed when the cache is dead.
    #[pin]
    killed: Completion,
    poll: Arc<PollCondVar>,
    queue: OwnedQueue,
    /// Watches over READs.
    #[pin]
    watch: Work<Ondemand>,
    options: Options,
    /// When time began.
    start: Instant<Monotonic>,
    /// Whether the log was told that requests time out.
    complained: Atomic<i32>,
}

impl Ondemand {
    pub(crate) fn new(options: Options, poll: Arc<PollCondVar>) -> Result<Arc<Self>> {
        let queue = OwnedQueue::new_unbound(c"cachefiles")?;
        Arc::pin_init(
            pin_init!(Self {
                opens <- Opens::new(),
                table <- new_spinlock!(Table::new(Bounds::DEFAULT)),
                killed <- Completion::new(),
                poll,
                queue,
                watch <- new_work!(),
                options,
                start: Instant::now(),
                complained: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Does something to the table, then wakes the daemon if there is something new for it.
    fn with<R>(&self, f: impl FnOnce(&mut Table<Requests>) -> R) -> R {
        self.with_traced(f, |_| {})
    }

    /// As [`Self::with`], and traces what came of it: without the lock, but before the daemon is
    /// woken, so that its answer comes later in the trace.
    fn with_traced<R>(
        &self,
        f: impl FnOnce(&mut Table<Requests>) -> R,
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
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis().unsigned_abs()
    }

    /// Tells the log, once, that requests have timed out.
    fn complain(&self, count: usize) {
        if count > 0 && self.complained.xchg(1, Relaxed) == 0 {
            pr_warn!("{} requests timed out; is the daemon stuck?\n", count);
        }
    }

    /// As [`Self::with`], where the daemon may have to be told to close a file descriptor of
    /// `object`.
    fn with_close<R>(&self, object: &Object, f: impl FnOnce(&mut Table<Requests>) -> R) -> R {
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
    fn make_room<T>(
        &self,
        extra: usize,
        pick: for<'a> fn(&'a mut Table<Requests>) -> &'a mut Slots<T, Requests>,
    ) -> Result {
        while let Some(want) = self.with(|table| pick(table).wants(extra)) {
            let supply = Supply::bring(want)?.ok_or(EBUSY)?;
            let _not_needed = self.with(|table| pick(table).grow(extra, supply));
        }
        Ok(())
    }

    /// Tells those whose requests have failed as a group.
    fn tell_doomed(&self) {
        while let Some(failed) = self.with(|table| table.pop_doomed()) {
            match failed {
                Failed::Waiter(open) => self.answered(&open, Err(EIO)),
                Failed::Read(read) => read.fail(EIO),
                Failed::Sleeper(place) => place.wake(),
                Failed::Nobody => {}
            }
        }
    }

    // For lookups, reads and withdrawals.

    /// Asks the daemon for an object of at most `max` bytes: the first call for a cookie queues an
    /// OPEN for `object`. If there is no answer at once, it puts the lookup off, and a call that
    /// comes after the answer returns both.
    ///
    /// The object is on the table then, and to be taken off it with [`Self::close`].
    ///
    /// # Errors
    ///
    /// `EIO` if there is no daemon, `EBUSY` if there are too many requests. What the daemon answers
    /// if not a size, or `ETIMEDOUT` if it says nothing for too long, is not returned here: the
    /// cookie is told.
    pub(crate) fn open(
        self: &Arc<Self>,
        cookie: &Lookup<'_>,
        object: impl FnOnce() -> Result<Arc<Object>>,
        max: u64,
    ) -> Result<Option<(Arc<Object>, Answer)>> {
        let open = match self.opens.find(cookie) {
            Found::Answered(open) => open,
            Found::Queued => return Ok(None),
            Found::Nothing => {
                let open = Open::new(cookie, object()?, self.now())?;
                self.opens.add(cookie, open.clone())?;
                self.queue_open(&open, max).inspect_err(|e| {
                    trace::open_failed(open.object().debug_id(), *e);
                    self.opens.remove(&open);
                    open.object().detach();
                })?;
                if !self.opens.wait(&open) {
                    return Ok(None);
                }
                open
            }
        };
        let answer = open.answer().cloned();
        Ok(answer.map(|answer| (open.object().clone(), answer)))
    }

    fn queue_open(self: &Arc<Self>, open: &Arc<Open>, max: u64) -> Result {
        let object = open.object();
        let size = object.open_keys()?.size();
        loop {
            let register = |table: &mut Table<Requests>| {
                let (key, msg_id) = table
                    .register(object.clone(), size, max, open.clone())
                    .map_err(|(refused, ..)| refused)?;
                // Under the lock, so that they are known before there can be an answer.
                object.set_key(key);
                open.set_msg_id(msg_id);
                if table.watch() {
                    // As for READs: before the cache is killed, or not at all.
                    let _ = self.queue.enqueue(self.clone());
                }
                Ok(())
            };
            match self.with(register) {
                Ok(()) => return Ok(()),
                Err(Refused::Gone | Refused::Crowded) => return Err(EIO),
                Err(Refused::Full) => {
                    self.make_room(1, Table::objects)?;
                    self.make_room(2, Table::requests)?;
                }
            }
        }
    }

    /// An OPEN that was taken off the table has been answered, or failed.
    fn answered(&self, open: &Arc<Open>, answer: Result<Answer>) {
        if let Err(e) = &answer {
            trace::open_failed(open.object().debug_id(), *e);
        }
        if !self.opens.answer(open, answer) {
            self.drop_open(open);
        }
    }

    /// Drops the object of an OPEN that no lookup is going to claim.
    fn drop_open(&self, open: &Arc<Open>) {
        open.object().detach();
        self.unregister(open.object());
    }

    /// Ends the OPENs that nobody wants any more, and those that are over the time limit.
    fn end_opens(&self) {
        let now = self.now();
        let timed_out = |open: &Open| {
            // More than, so that it is never too early: both times are cut to whole milliseconds.
            let age = now.saturating_sub(open.since());
            open.answer().is_none() && self.options.timeout.is_some_and(|limit| age > limit)
        };
        let stuck = self.opens.is_stuck();
        let over = |open: &Open| open.is_unwanted() || open.is_left(stuck) || timed_out(open);
        let (mut from, mut count) = (0, 0);
        while let Some((open, next)) = self.opens.next(from, over) {
            if let Some(open) = open {
                let late = timed_out(&open);
                count += usize::from(self.end_open(&open, late) && late);
            }
            from = next;
        }
        self.tell_doomed();
        self.complain(count);
    }

    /// Ends an OPEN that is not claimed, because it is `late` or nobody wants it. Returns whether
    /// it was not answered either.
    fn end_open(&self, open: &Arc<Open>, late: bool) -> bool {
        let cancel = |table: &mut Table<Requests>| table.cancel_open(open.msg_id()?);
        if self.with(cancel).is_some() {
            if late {
                self.answered(open, Err(ETIMEDOUT));
            } else {
                trace::open_failed(open.object().debug_id(), EIO);
                self.opens.cancel(open);
                self.drop_open(open);
            }
            return true;
        }
        // If it has no answer, it is about to be queued or to be told one.
        if open.answer().is_some() && self.opens.remove(open) {
            self.drop_open(open);
        }
        false
    }

    /// Fails the READs that have gone without an answer for too long.
    fn expire_reads(&self) {
        let Some(timeout) = self.options.timeout else {
            return;
        };
        let (now, mut count) = (self.now(), 0);
        while let Some(mut read) = self.with(|table| table.pop_overdue(now, timeout)) {
            // They have not waited for as long, and ask for themselves.
            self.run_others(&mut read);
            read.fail(ETIMEDOUT);
            count += 1;
        }
        self.complain(count);
    }

    /// Takes an object off the table. What waits for it fails; if the daemon has a file descriptor
    /// for it, it is sent a CLOSE.
    pub(crate) fn close(&self, object: &Object) {
        self.unregister(object);
        self.tell_doomed();
    }

    /// As [`Self::close`]; the caller sees to it that who waits is [told](Self::tell_doomed).
    fn unregister(&self, object: &Object) {
        if let Some(key) = object.key() {
            // The version is kept until the table has dropped its own.
            let unregister =
                |table: &mut Table<Requests>| (table.version(key), table.unregister(key));
            let _dropped = self.with_close(object, |table| (unregister(table), table.trim()));
        }
    }

    /// Asks the daemon for the data that a read is waiting for.
    ///
    /// The first time that a reader asks for something it may have to wait, because too many READs
    /// are outstanding: that is in the task that reads. Then the read is given back to look again
    /// what it needs; others may have brought it.
    pub(crate) fn read_queue(
        self: &Arc<Self>,
        mut read: Pin<KBox<WaitingRead>>,
    ) -> core::result::Result<(), Pin<KBox<WaitingRead>>> {
        let Some(key) = read.object().key() else {
            read.fail(EIO);
            return Ok(());
        };
        let newcomer = read.is_new().then(ticket::current_user);
        loop {
            let (refused, back) = match self.try_queue(key, read, newcomer) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            read = back;
            let retry = match (refused, newcomer) {
                (Refused::Crowded, Some(user)) => {
                    match self.wait_in_line(read.object(), key, user) {
                        Ok(ticket) => {
                            read.set_ticket(ticket);
                            return Err(read);
                        }
                        Err(e) => Err(e),
                    }
                }
                (Refused::Full, _) => self
                    .make_room(1, Table::requests)
                    .and_then(|()| self.make_room(1, Table::users)),
                _ => Err(EIO),
            };
            if let Err(e) = retry {
                read.fail(e);
                return Ok(());
            }
        }
    }

    /// Queues a READ, with a new ticket if it is that of a `newcomer`.
    fn try_queue(
        self: &Arc<Self>,
        key: ObjectKey,
        mut read: Pin<KBox<WaitingRead>>,
        newcomer: Option<User>,
    ) -> core::result::Result<(), (Refused, Pin<KBox<WaitingRead>>)> {
        let (off, len) = read.wanted();
        let obj = read.object().debug_id();
        let heeds = match self.options.granule {
            None => Heeds::Nothing,
            Some(_) if read.may_join() => Heeds::All,
            Some(_) => Heeds::Ends,
        };
        if let Some(user) = newcomer {
            // It has to be in there before anybody else can get hold of it.
            read.set_ticket(Ticket::new(self.clone(), key, user));
        }
        let queue = |table: &mut Table<Requests>| {
            // Under the lock, so that time does not go back from one to the next.
            let result = table.read(key, (off, len), read, self.now(), newcomer, heeds);
            // Under the lock, so that it is on the queue before the cache is killed, or not at all:
            // whoever kills the cache waits for the queue.
            if let Ok(Queued::Unwatched) = result {
                // If it is on the queue already, it has yet to run.
                let _ = self.queue.enqueue(self.clone());
            }
            let is_queued = result
                .as_ref()
                .is_ok_and(|queued| *queued != Queued::Joined);
            let queued = is_queued.then(|| table.last_read(key));
            (result, queued)
        };
        let (result, _) = self.with_traced(queue, |(_, queued)| {
            if let Some((msg_id, object_id)) = *queued {
                trace::read(obj, msg_id, object_id, off, len);
            }
        });
        match result {
            Ok(_) => Ok(()),
            Err((refused, mut read)) => {
                if newcomer.is_some() {
                    read.void_ticket();
                }
                Err((refused, read))
            }
        }
    }

    /// Has a read go on in the work queue. The operation that it belongs to keeps the cache in
    /// service.
    pub(crate) fn run(&self, read: Pin<KBox<WaitingRead>>) {
        // A work item that is new, or was just taken out of the table, is not on a queue.
        self.queue.enqueue(read);
    }

    /// Has those that wait with a read, which was taken out of the table, go on in the work queue.
    fn run_others(&self, read: &mut Pin<KBox<WaitingRead>>) {
        for other in read.take_others() {
            self.run(other);
        }
    }

    /// Ends everything: whoever waits for the daemon is told that there is none.
    pub(crate) fn kill(&self) {
        self.with(|table| table.kill());
        self.poll.notify_all();
        self.killed.complete_all();
        self.tell_doomed();
        while let Some(open) = self.opens.close() {
            self.drop_open(&open);
        }
    }

    /// Ends everything if the cache's file system takes no more files, now that something could not
    /// be found, made or written in it: see [`Space::is_broken`]. The caller has the credentials
    /// `cred`.
    pub(crate) fn failed(&self, space: &Space, dir: &Dentry, cred: &Credential, error: Error) {
        if !self.is_dead() && space.is_broken(dir, cred, error) {
            self.kill();
        }
    }

    /// What the daemon asked for when it bound the cache.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Waits for work that is under way.
    pub(crate) fn flush(&self) {
        self.queue.flush();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.table.lock().is_dead()
    }

    // For the daemon.

    /// Gives the daemon the next message, or in batch mode the next few, and returns how many bytes
    /// that was: 0 if there is none. If it `may_wait` and the cache was bound with `wait`, waits
    /// for one; 0 means then that there never will be.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if a signal ends the wait. `EMSGSIZE` if the buffer is too small for the first
    /// message, `EFAULT` if it cannot be written to, `EMFILE` and the like if there is no file
    /// descriptor for an OPEN: the message is not lost, and is delivered again.
    pub(crate) fn read(self: &Arc<Self>, buf: UserSliceWriter, may_wait: bool) -> Result<usize> {
        let result = self.deliver(buf, may_wait && self.options.wait);
        // Whoever was woken for a message, and could not take it, has another one woken.
        if self.options.batch || result.is_err() {
            self.with(|table| table.wake_if_ready());
        }
        result
    }

    /// As [`Self::read`], but wakes nobody for what is left of a batch, or after an error.
    fn deliver(self: &Arc<Self>, buf: UserSliceWriter, may_wait: bool) -> Result<usize> {
        let most = if self.options.batch { BATCH } else { 1 };
        let mut out = Output { buf, len: 0 };
        for _ in 0..most {
            match self.deliver_next(&mut out, may_wait) {
                Ok(true) => {}
                Ok(false) => break,
                // What was delivered is not taken back. The next call will fail with the same.
                Err(_) if out.len > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(out.len)
    }

    /// Waits for a message. Returns whether there is one, or else never will be.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if a signal is pending.
    fn wait_for_message(&self) -> Result<bool> {
        let mut table = self.table.lock();
        while !table.is_ready() {
            if table.is_dead() {
                return Ok(false);
            }
            if self.poll.wait_interruptible_freezable(&mut table) {
                // If this task was woken for a message, `read` has another one woken.
                return Err(ERESTARTSYS);
            }
        }
        Ok(true)
    }

    /// Delivers the next message; waits for one, if it `may_wait` and there is none before. Returns
    /// whether there was one.
    fn deliver_next(self: &Arc<Self>, out: &mut Output, may_wait: bool) -> Result<bool> {
        loop {
            let next = |table: &mut Table<Requests>| match table.next_waiter() {
                Some(open) if open.is_unwanted() => Err(open.clone()),
                _ => {
                    let delivery = table.deliver(out.room());
                    // Several may have become ready at once, for which one poller was woken.
                    if !self.options.batch {
                        table.wake_if_ready();
                    }
                    Ok(delivery)
                }
            };
            let delivery = match self.with(next) {
                Ok(delivery) => delivery,
                Err(open) => {
                    // The daemon has enough to do for those who still wait. The object is not
                    // open yet, so no READ fails with it that somebody has to be told of.
                    self.end_open(&open, false);
                    continue;
                }
            };
            let (msg_id, result) = match delivery {
                Delivery::Empty if !may_wait || out.len > 0 || !self.wait_for_message()? => {
                    return Ok(false)
                }
                Delivery::Empty => continue,
                Delivery::TooSmall => return Err(EMSGSIZE),
                Delivery::Message { msg_id, msg } => {
                    let result = out.put(&msg).map(|()| {
                        if !msg.has_answer() {
                            self.with(|table| table.delivered(msg_id));
                        }
                        true
                    });
                    (msg_id, result)
                }
                Delivery::Open { msg_id, object } => {
                    (msg_id, self.deliver_open(msg_id, object, out))
                }
            };
            match result {
                Ok(true) => return Ok(true),
                // Nobody waits for it any more.
                Ok(false) => {}
                Err(e) => {
                    // A buffer that faults says nothing of other messages, no more than that it is
                    // the daemon's fault; but for want of a file descriptor or of memory, a READ or
                    // a CLOSE may still get through. If the daemon is not told of it now, it is to
                    // be with the next call.
                    let next = e == EFAULT || out.len > 0;
                    self.with(|table| table.put_back(msg_id, next));
                    return Err(e);
                }
            }
        }
    }

    /// Delivers an OPEN with a new file descriptor, which the daemon can see only when it has the
    /// message. Returns whether anybody still waits for it.
    fn deliver_open(
        self: &Arc<Self>,
        msg_id: u32,
        object: Arc<Object>,
        out: &mut Output,
    ) -> Result<bool> {
        let fd =
            FileDescriptorReservation::get_unused_fd_flags(flags::O_WRONLY | flags::O_CLOEXEC)?;
        let handle = Handle::new(object.clone())?;
        let file = anon_fd::file(handle.clone())?;
        let object_id = loop {
            match self.with_close(&object, |table| table.issue(msg_id)) {
                Ok(object_id) => break object_id,
                Err(Refused::Gone | Refused::Crowded) => return Ok(false),
                Err(Refused::Full) => {
                    self.make_room(1, Table::handles)?;
                    self.make_room(1, Table::requests)?;
                }
            }
        };
        handle.set_object_id(object_id);
        trace::open(object.debug_id(), msg_id, object_id, fd.reserved_fd());
        let msg = Message::open(msg_id, object_id, fd.reserved_fd(), object.open_keys()?);
        out.put(&msg)?;
        step!("cookie {:x}: opened as {}\n", object.debug_id(), object_id);
        fd.fd_install(file);
        self.with_close(&object, |table| table.installed(object_id));
        Ok(true)
    }

    /// Which events the daemon may act on.
    pub(crate) fn poll(&self) -> u32 {
        let table = self.table.lock();
        let mut mask = 0;
        if table.is_ready() {
            mask |= events::IN;
        }
        if table.is_dead() {
            mask |= events::ERR | events::HUP;
        }
        mask
    }

    /// The daemon's answer to an OPEN.
    pub(crate) fn copen(&self, args: &[u8]) -> Result {
        if args.is_empty() {
            return Err(EINVAL);
        }
        let Copen {
            msg_id,
            reply,
            version,
        } = Copen::parse(args)?;
        let version = version.map(Version::new).transpose()?;
        let copen = |table: &mut Table<Requests>| {
            let obj = table.answerable(msg_id).map(|object| object.debug_id());
            (table.copen(msg_id, reply, version.clone()), obj)
        };
        let ((tell, answer), _) = self.with_traced(copen, |((_, answer), obj)| {
            if let (Ok(()), Some(obj), Ok(Reply::Size(size))) = (answer, *obj, reply) {
                trace::copen(obj, msg_id, size);
            }
        });
        if let Some((open, outcome)) = tell {
            let answer = outcome.map(|size| Answer { size, version });
            self.answered(&open, answer.map_err(Error::from));
        }
        // READs that waited for this fail with it.
        self.tell_doomed();
        Ok(answer?)
    }

    /// Whether the object of a file descriptor has its size, so that no daemon has to do anything
    /// for its lookup to end.
    fn has_size(&self, object_id: u32) -> bool {
        self.table.lock().has_size(object_id)
    }

    /// The daemon says, through a file descriptor, that it has answered a READ, perhaps with what
    /// it has just `written`.
    fn read_complete(&self, msg_id: u32, object_id: u32, written: Option<&Written>) -> Result {
        let mut read = self.with(|table| table.read_complete(msg_id, object_id))?;
        trace::cread(read.object().debug_id(), msg_id);
        self.run_others(&mut read);
        if let Some(read) = read.end_here(written) {
            self.run(read);
        }
        Ok(())
    }

    /// The last copy of a file descriptor is gone.
    fn released(&self, object: &Object, object_id: u32) {
        let _spare = self.with_traced(
            |table| {
                table.released(object_id);
                table.trim()
            },
            |_| {
                // Of one that was not issued nobody has heard.
                if object_id != 0 {
                    trace::fd_release(object.debug_id(), object_id);
                }
            },
        );
        self.tell_doomed();
    }

    /// A new daemon has taken over.
    pub(crate) fn restore(&self) {
        let mut at = self.with(|table| table.begin_restore());
        let mut count = 0;
        while let Some(more) = self.with(|table| table.restore_some(&mut at)) {
            count += more;
        }
        trace::restore(count);
    }
}
