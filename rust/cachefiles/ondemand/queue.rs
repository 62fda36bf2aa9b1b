// SPDX-License-Identifier: GPL-2.0

//! The request table: every pending request of a cache and what the daemon knows of every object.
//!
//! Both live in one structure, under one lock, because each is wrong without the other: a READ can
//! be delivered only while its object is open, and an object can be dropped only together with its
//! requests. The structure knows nothing of locks, files or waiting; what it is given to keep
//! ([`Family`]) it hands back exactly once:
//!
//! * A request is completed by taking it out of the table. Whoever gets the payload owes its owner
//!   the one completion; nobody else can have it.
//! * What fails as a group (an object's READs, everything when the daemon dies) is found by
//!   [`Table::pop_doomed`], one at a time, so that owners are told without the lock.
//!
//! Requests wait for delivery in a queue that only holds what can be delivered now, so that neither
//! `read()` nor `poll()` ever searches. READs of an object that is not open are parked on the
//! object. Lists are linked by message id; see [`Slots`] for how an id is found.
//!
//! READs are on a list by age, too, whatever becomes of them meanwhile. As long as one time limit
//! holds for all, those that are over it are at its head, and nothing else is looked at.

use super::{
    msg::ShortMessage,
    object_state::{
        Event,
        Next,
        State, //
    },
    slots::{
        Slot,
        Slots,
        Storage, //
    }, //
};
#[path = "queue/consumer.rs"]
mod consumer;
#[path = "queue/daemon.rs"]
mod daemon;

/// What the table keeps for others.
pub(crate) trait Family: Storage {
    /// An object; cloned for whoever has to look at it without the lock.
    type Object: Clone;
    /// Who waits for the answer to a lookup's OPEN.
    type Waiter;
    /// A read that waits for data.
    type Read;
    /// Which version of an object the daemon serves. Dropped under the lock only if there is
    /// another clone.
    type Version: Clone + PartialEq;
}

/// Names an object in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectKey(u32);

/// Why a request was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A buffer has to grow first.
    Full,
    /// The object or the cache is gone.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits on its object for the answer to an OPEN.
    Parked,
    /// In the queue.
    Ready,
    /// An OPEN taken from the queue by a `read()` that is still preparing the file descriptor.
    Claimed,
    /// With the daemon.
    Delivered,
    /// Failed; its owner is yet to be told.
    Doomed,
}

enum Kind<F: Family> {
    Open {
        waiter: Option<F::Waiter>,
        /// Whether a daemon has seen it, that is, may answer it.
        issued: bool,
    },
    Read {
        off: u64,
        len: u64,
        payload: F::Read,
        /// When it was queued, in milliseconds.
        since: u64,
    },
    Close {
        object_id: u32,
    },
}

#[derive(Clone, Copy, Default)]
struct Link {
    prev: Option<u32>,
    next: Option<u32>,
}

/// A request in the table. Opaque to all but this module.
pub(crate) struct Request<F: Family> {
    /// `None` for a CLOSE, which outlives its object.
    object: Option<ObjectKey>,
    kind: Kind<F>,
    phase: Phase,
    /// Neighbours in the queue (`Ready`), among the delivered or among the doomed.
    queue: Link,
    /// Neighbours among the object's READs, unless doomed.
    siblings: Link,
    /// Neighbours among all READs, unless doomed.
    ages: Link,
}

impl<F: Family> Request<F> {
    fn new(object: Option<ObjectKey>, kind: Kind<F>) -> Self {
        Request {
            object,
            kind,
            phase: Phase::Parked,
            queue: Link::default(),
            siblings: Link::default(),
            ages: Link::default(),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct List {
    head: Option<u32>,
    tail: Option<u32>,
}

/// One list's link in a request.
type Field<F> = fn(&mut Request<F>) -> &mut Link;

impl List {
    fn push_back<F: Family>(&mut self, reqs: &mut Slots<Request<F>, F>, id: u32, at: Field<F>) {
        if let Some(req) = reqs.get_mut(id) {
            *at(req) = Link {
                prev: self.tail,
                next: None,
            };
        }
        match self.tail.and_then(|tail| reqs.get_mut(tail)) {
            Some(tail) => at(tail).next = Some(id),
            None => self.head = Some(id),
        }
        self.tail = Some(id);
    }

    fn push_front<F: Family>(&mut self, reqs: &mut Slots<Request<F>, F>, id: u32, at: Field<F>) {
        if let Some(req) = reqs.get_mut(id) {
            *at(req) = Link {
                prev: None,
                next: self.head,
            };
        }
        match self.head.and_then(|head| reqs.get_mut(head)) {
            Some(head) => at(head).prev = Some(id),
            None => self.tail = Some(id),
        }
        self.head = Some(id);
    }

    /// Takes `id`, which has to be on this list, off it.
    fn unlink<F: Family>(&mut self, reqs: &mut Slots<Request<F>, F>, id: u32, at: Field<F>) {
        let Some(link) = reqs.get_mut(id).map(|req| core::mem::take(at(req))) else {
            return;
        };
        match link.prev.and_then(|prev| reqs.get_mut(prev)) {
            Some(prev) => at(prev).next = link.next,
            None => self.head = link.next,
        }
        match link.next.and_then(|next| reqs.get_mut(next)) {
            Some(next) => at(next).prev = link.prev,
            None => self.tail = link.prev,
        }
    }
}

fn queue_link<F: Family>(req: &mut Request<F>) -> &mut Link {
    &mut req.queue
}

fn sibling_link<F: Family>(req: &mut Request<F>) -> &mut Link {
    &mut req.siblings
}

fn age_link<F: Family>(req: &mut Request<F>) -> &mut Link {
    &mut req.ages
}

/// An object in the table. Opaque to all but this module.
pub(crate) struct Entry<F: Family> {
    payload: F::Object,
    state: State,
    /// The object id of the file descriptor in use, if it is open.
    fd: Option<u32>,
    /// The message id of the OPEN under way.
    open: Option<u32>,
    /// The size and the version of the first OPEN's answer. No later one may differ.
    size: Option<u64>,
    version: Option<F::Version>,
    /// The largest size that can be cached.
    max_size: u64,
    /// The READs that are not doomed, oldest first.
    reads: List,
    /// Bytes in the OPEN message.
    open_size: usize,
}

/// A file descriptor that some daemon holds. Opaque to all but this module.
pub(crate) struct Handle {
    /// `None` once the object is gone.
    object: Option<ObjectKey>,
    close: Close,
    /// Whether the daemon can have it: before that it must not hear of a CLOSE.
    installed: bool,
}

/// How the daemon is told to close a file descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    /// It is not, yet or any more.
    No,
    /// It does not have the file descriptor yet: first things first. A slot is reserved.
    Later,
    /// By this CLOSE.
    Queued(u32),
}

/// What `read()` gets from the queue.
pub(crate) enum Delivery<F: Family> {
    /// Nothing to deliver.
    Empty,
    /// The next message does not fit; it stays where it is.
    TooSmall,
    /// An OPEN: it needs a file descriptor, then [`Table::issue`].
    Open { msg_id: u32, object: F::Object },
    /// Any other message. When it has reached the daemon: [`Table::delivered`]; when it has not:
    /// [`Table::put_back`].
    Message { msg_id: u32, msg: ShortMessage },
}

/// Somebody to be told that their request failed with `EIO`.
pub(crate) enum Failed<F: Family> {
    Waiter(F::Waiter),
    Read(F::Read),
}

/// See the [module's description](self).
///
/// # Invariants
///
/// - A request is on the queue if and only if it is `Ready`, and on the list of the doomed if and
///   only if it is `Doomed`.
/// - A `Ready` READ's object is `Open`, and an `Open` object has an `fd`.
/// - A request is on the list of the delivered if and only if it is `Delivered`.
/// - A READ that is not `Doomed` is on its object's list and on that by age.
/// - Each object has a reserved slot in `requests`, except while it is being reopened.
pub(crate) struct Table<F: Family> {
    requests: Slots<Request<F>, F>,
    objects: Slots<Entry<F>, F>,
    handles: Slots<Handle, F>,
    queue: List,
    /// What is with the daemon, in the order in which it was delivered.
    delivered: List,
    doomed: List,
    /// READs, in the order in which they were queued.
    ages: List,
    /// Whether somebody watches over READs whose object is given up.
    watched: bool,
    dead: bool,
    /// The slots of requests that are empty since the cache is dead.
    swept: usize,
    /// Set when something was queued, until [`Self::take_wake`].
    wake: bool,
    /// The CLOSE that was queued last, until [`Self::take_closed`]: message and object id.
    closed: Option<(u32, u32)>,
}

impl<F: Family> Table<F> {
    /// How many slots are looked at in one go, that is, without letting go of the lock.
    const STRIDE: usize = 1024;

    pub(crate) fn new() -> Self {
        Table {
            requests: Slots::new(0, u32::MAX),
            objects: Slots::new(0, u32::MAX),
            // Object ids are positive ints.
            handles: Slots::new(1, i32::MAX as u32),
            queue: List::default(),
            delivered: List::default(),
            doomed: List::default(),
            ages: List::default(),
            watched: false,
            dead: false,
            swept: 0,
            wake: false,
            closed: None,
        }
    }

    // Growing. Each returns how large a buffer is wanted, or takes one; see `Slots`.

    pub(crate) fn requests(&mut self) -> &mut Slots<Request<F>, F> {
        &mut self.requests
    }

    pub(crate) fn objects(&mut self) -> &mut Slots<Entry<F>, F> {
        &mut self.objects
    }

    pub(crate) fn handles(&mut self) -> &mut Slots<Handle, F> {
        &mut self.handles
    }

    /// Whether something was queued since the last call: pollers have to be woken.
    pub(crate) fn take_wake(&mut self) -> bool {
        core::mem::take(&mut self.wake)
    }

    /// The CLOSE that was queued since the last call, if any: its message and object id.
    pub(crate) fn take_closed(&mut self) -> Option<(u32, u32)> {
        self.closed.take()
    }

    /// Whether `read()` would find a message.
    pub(crate) fn is_ready(&self) -> bool {
        self.queue.head.is_some() && !self.dead
    }

    /// Whether the daemon or the cache is gone for good.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Gives a request another phase, and moves it to the end of that phase's list. This is the
    /// only way on or off the lists, but for [`Self::put_first`]: so whatever becomes of a request,
    /// it is on the list that it says it is on.
    fn set_phase(&mut self, id: u32, phase: Phase) {
        let Some(req) = self.requests.get_mut(id) else {
            return;
        };
        match core::mem::replace(&mut req.phase, phase) {
            Phase::Ready => self.queue.unlink(&mut self.requests, id, queue_link),
            Phase::Delivered => self.delivered.unlink(&mut self.requests, id, queue_link),
            Phase::Doomed => self.doomed.unlink(&mut self.requests, id, queue_link),
            Phase::Parked | Phase::Claimed => {}
        }
        match phase {
            Phase::Ready => {
                self.queue.push_back(&mut self.requests, id, queue_link);
                self.wake = true;
            }
            Phase::Delivered => self.delivered.push_back(&mut self.requests, id, queue_link),
            Phase::Doomed => self.doomed.push_back(&mut self.requests, id, queue_link),
            Phase::Parked | Phase::Claimed => {}
        }
    }

    /// Makes a request the next one to be delivered.
    fn put_first(&mut self, id: u32) {
        self.set_phase(id, Phase::Parked);
        if let Some(req) = self.requests.get_mut(id) {
            req.phase = Phase::Ready;
            self.queue.push_front(&mut self.requests, id, queue_link);
            self.wake = true;
        }
    }

    /// Takes a request off its list and out of the table.
    fn remove(&mut self, id: u32) -> Option<Request<F>> {
        self.set_phase(id, Phase::Parked);
        self.requests.remove(id)
    }

    /// Takes an OPEN out of the table.
    fn take_open(&mut self, id: u32) -> Option<F::Waiter> {
        let req = self.remove(id)?;
        let waiter = match req.kind {
            Kind::Open { waiter, .. } => waiter,
            _ => None,
        };
        if let Some(entry) = req.object.and_then(|key| self.objects.get_mut(key.0)) {
            entry.open = None;
            if waiter.is_none() {
                // It was a reopen, which had the object's slot. There is room: it was just freed.
                let _ = self.requests.reserve();
            }
        }
        waiter
    }

    /// Takes a READ out of the table.
    fn take_read(&mut self, id: u32) -> Option<F::Read> {
        let req = self.requests.get(id)?;
        // The doomed are no longer their object's.
        if let (Some(key), true) = (req.object, req.phase != Phase::Doomed) {
            self.disown(key, id);
        }
        match self.remove(id)?.kind {
            Kind::Read { payload, .. } => Some(payload),
            _ => None,
        }
    }

    /// Takes a READ off its object's list and off that by age.
    fn disown(&mut self, key: ObjectKey, id: u32) {
        if let Some(entry) = self.objects.get_mut(key.0) {
            entry.reads.unlink(&mut self.requests, id, sibling_link);
        }
        self.ages.unlink(&mut self.requests, id, age_link);
    }

    fn doom_reads(&mut self, key: ObjectKey) {
        while let Some(id) = self.objects.get(key.0).and_then(|entry| entry.reads.head) {
            self.disown(key, id);
            self.set_phase(id, Phase::Doomed);
        }
    }

    /// Takes the next of the doomed out of the table, for the caller to tell its owner. If the
    /// cache is dead, all are doomed.
    pub(crate) fn pop_doomed(&mut self) -> Option<Failed<F>> {
        loop {
            let id = match self.doomed.head {
                Some(id) => id,
                None if self.dead => {
                    // Nothing is queued any more, so no slot is looked at twice.
                    let (id, next) = self.requests.next_used(self.swept)?;
                    self.swept = next;
                    id
                }
                None => return None,
            };
            match self.requests.get(id)?.kind {
                Kind::Open { .. } => {
                    if let Some(waiter) = self.take_open(id) {
                        return Some(Failed::Waiter(waiter));
                    }
                }
                Kind::Read { .. } => {
                    if let Some(read) = self.take_read(id) {
                        return Some(Failed::Read(read));
                    }
                }
                Kind::Close { .. } => {
                    self.remove(id);
                }
            }
        }
    }

    fn new_open(key: ObjectKey, waiter: Option<F::Waiter>) -> Request<F> {
        let kind = Kind::Open {
            waiter,
            issued: false,
        };
        Request::new(Some(key), kind)
    }

    fn queue_open(&mut self, key: ObjectKey, id: u32) {
        if let Some(entry) = self.objects.get_mut(key.0) {
            entry.open = Some(id);
        }
        self.set_phase(id, Phase::Ready);
    }

    /// Gives the object's READs the phase that its state calls for.
    fn sort_reads(&mut self, key: ObjectKey, ready: bool) {
        let mut next = self.objects.get(key.0).and_then(|entry| entry.reads.head);
        while let Some(id) = next {
            next = self.requests.get(id).and_then(|req| req.siblings.next);
            match self.requests.get(id).map(|req| req.phase) {
                Some(Phase::Parked) if ready => self.set_phase(id, Phase::Ready),
                Some(Phase::Ready | Phase::Delivered) if !ready => {
                    self.set_phase(id, Phase::Parked)
                }
                _ => {}
            }
        }
    }

    fn happen(&mut self, key: ObjectKey, event: Event) -> Next {
        let Some(entry) = self.objects.get_mut(key.0) else {
            return Next::Nothing;
        };
        let (state, next) = entry.state.on(event);
        entry.state = state;
        match next {
            Next::Nothing | Next::Deliver | Next::Park => {}
            Next::Reopen => {
                self.sort_reads(key, false);
                // Every object that is not being reopened has a slot reserved.
                if let Ok(id) = self.requests.insert_reserved(Self::new_open(key, None)) {
                    self.queue_open(key, id);
                }
            }
            Next::DeliverParked => self.sort_reads(key, true),
            Next::FailParked => self.doom_reads(key),
        }
        next
    }

    /// Tells the daemon to close a file descriptor, using up a reserved slot.
    fn close_handle(&mut self, object_id: u32) {
        let Some(handle) = self.handles.get_mut(object_id) else {
            return self.requests.unreserve();
        };
        handle.object = None;
        if !handle.installed {
            handle.close = Close::Later;
            return;
        }
        let close = Request::new(None, Kind::Close { object_id });
        if let Ok(id) = self.requests.insert_reserved(close) {
            handle.close = Close::Queued(id);
            self.closed = Some((id, object_id));
            self.set_phase(id, Phase::Ready);
        }
    }
}

/// A buffer for [`Slots::grow`].
pub(crate) type Buf<T, S> = <S as Storage>::Buf<Slot<T>>;
