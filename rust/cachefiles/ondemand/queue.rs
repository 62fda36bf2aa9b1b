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

use super::{
    msg::{
        self,
        Message,
        ShortMessage, //
    },
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
use crate::{
    daemon::command::Reply,
    errno::{
        Errno,
        Result, //
    }, //
};

/// What the table keeps for others.
pub(crate) trait Family: Storage {
    /// An object; cloned for whoever has to look at it without the lock.
    type Object: Clone;
    /// Who waits for the answer to a lookup's OPEN.
    type Waiter;
    /// A read that waits for data.
    type Read;
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

/// An object in the table. Opaque to all but this module.
pub(crate) struct Entry<F: Family> {
    payload: F::Object,
    state: State,
    /// The object id of the file descriptor in use, if it is open.
    fd: Option<u32>,
    /// The message id of the OPEN under way.
    open: Option<u32>,
    /// The size of the first OPEN's answer. No later one may differ.
    size: Option<u64>,
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
/// - Each object has a reserved slot in `requests`, except while it is being reopened.
pub(crate) struct Table<F: Family> {
    requests: Slots<Request<F>, F>,
    objects: Slots<Entry<F>, F>,
    handles: Slots<Handle, F>,
    queue: List,
    /// What is with the daemon, in the order in which it was delivered.
    delivered: List,
    doomed: List,
    /// READs in the table that are not doomed.
    reads: usize,
    /// Whether somebody watches over READs whose object is given up.
    watched: bool,
    dead: bool,
    /// The slots of requests that are empty since the cache is dead.
    swept: usize,
    /// Set when something was queued, until [`Self::take_wake`].
    wake: bool,
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
            reads: 0,
            watched: false,
            dead: false,
            swept: 0,
            wake: false,
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

    /// Whether `read()` would find a message.
    pub(crate) fn is_ready(&self) -> bool {
        self.queue.head.is_some() && !self.dead
    }

    /// Whether the daemon or the cache is gone for good.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    fn make_ready(&mut self, id: u32, first: bool) {
        if let Some(req) = self.requests.get_mut(id) {
            req.phase = Phase::Ready;
            if first {
                self.queue.push_front(&mut self.requests, id, queue_link);
            } else {
                self.queue.push_back(&mut self.requests, id, queue_link);
            }
            self.wake = true;
        }
    }

    /// Takes a request off the queue or the list of the delivered, if it is there, and gives it
    /// another phase.
    fn unqueue(&mut self, id: u32, phase: Phase) {
        let Some(req) = self.requests.get_mut(id) else {
            return;
        };
        match core::mem::replace(&mut req.phase, phase) {
            Phase::Ready => self.queue.unlink(&mut self.requests, id, queue_link),
            Phase::Delivered => self.delivered.unlink(&mut self.requests, id, queue_link),
            Phase::Parked | Phase::Claimed | Phase::Doomed => {}
        }
        if phase == Phase::Delivered {
            self.delivered.push_back(&mut self.requests, id, queue_link);
        }
    }

    /// Takes an OPEN out of the table.
    fn take_open(&mut self, id: u32) -> Option<F::Waiter> {
        self.unqueue(id, Phase::Doomed);
        let req = self.requests.remove(id)?;
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

    /// Takes a READ out of the table, which must not be on the list of the doomed.
    fn take_read(&mut self, id: u32) -> Option<F::Read> {
        if self.requests.get(id)?.phase != Phase::Doomed {
            self.unqueue(id, Phase::Doomed);
            let key = self.requests.get(id)?.object?;
            if let Some(entry) = self.objects.get_mut(key.0) {
                entry.reads.unlink(&mut self.requests, id, sibling_link);
            }
            self.reads -= 1;
        }
        match self.requests.remove(id)?.kind {
            Kind::Read { payload, .. } => Some(payload),
            _ => None,
        }
    }

    fn doom(&mut self, id: u32) {
        self.unqueue(id, Phase::Doomed);
        self.doomed.push_back(&mut self.requests, id, queue_link);
    }

    fn doom_reads(&mut self, key: ObjectKey) {
        while let Some(id) = self.objects.get(key.0).and_then(|entry| entry.reads.head) {
            if let Some(entry) = self.objects.get_mut(key.0) {
                entry.reads.unlink(&mut self.requests, id, sibling_link);
            }
            self.reads -= 1;
            self.doom(id);
        }
    }

    /// Takes the next of the doomed out of the table, for the caller to tell its owner. If the cache
    /// is dead, all are doomed.
    pub(crate) fn pop_doomed(&mut self) -> Option<Failed<F>> {
        loop {
            let id = match self.doomed.head {
                Some(id) => {
                    self.doomed.unlink(&mut self.requests, id, queue_link);
                    id
                }
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
                    self.unqueue(id, Phase::Doomed);
                    self.requests.remove(id);
                }
            }
        }
    }

    fn new_open(key: ObjectKey, waiter: Option<F::Waiter>) -> Request<F> {
        Request {
            object: Some(key),
            kind: Kind::Open {
                waiter,
                issued: false,
            },
            phase: Phase::Parked,
            queue: Link::default(),
            siblings: Link::default(),
        }
    }

    fn queue_open(&mut self, key: ObjectKey, id: u32) {
        if let Some(entry) = self.objects.get_mut(key.0) {
            entry.open = Some(id);
        }
        self.make_ready(id, false);
    }

    /// Gives the object's READs the phase that its state calls for.
    fn sort_reads(&mut self, key: ObjectKey, ready: bool) {
        let mut next = self.objects.get(key.0).and_then(|entry| entry.reads.head);
        while let Some(id) = next {
            next = self.requests.get(id).and_then(|req| req.siblings.next);
            match self.requests.get(id).map(|req| req.phase) {
                Some(Phase::Parked) if ready => self.make_ready(id, false),
                Some(Phase::Ready | Phase::Delivered) if !ready => self.unqueue(id, Phase::Parked),
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

    // What lookups, reads and withdrawals do.

    /// Adds an object, which may have `max_size` bytes, and queues its OPEN, whose message will have
    /// `open_size` bytes. Returns what
    /// names the object and the OPEN, or both payloads if the object cannot be added.
    #[allow(clippy::type_complexity)]
    pub(crate) fn register(
        &mut self,
        payload: F::Object,
        open_size: usize,
        max_size: u64,
        waiter: F::Waiter,
    ) -> core::result::Result<(ObjectKey, u32), (Refused, F::Object, F::Waiter)> {
        if self.dead {
            return Err((Refused::Gone, payload, waiter));
        }
        // For the reopens, and for the CLOSE at the end: neither can fail.
        if self.requests.wants(2).is_some() || self.requests.reserve().is_err() {
            return Err((Refused::Full, payload, waiter));
        }
        let entry = Entry {
            payload,
            state: State::Opening,
            fd: None,
            open: None,
            size: None,
            max_size,
            reads: List::default(),
            open_size,
        };
        let key = match self.objects.insert(entry) {
            Ok(key) => ObjectKey(key),
            Err(entry) => {
                self.requests.unreserve();
                return Err((Refused::Full, entry.payload, waiter));
            }
        };
        let open = Self::new_open(key, Some(waiter));
        // There is room, as was seen above; without it, nobody would ever answer.
        let id = self.requests.insert(open).unwrap_or_default();
        self.queue_open(key, id);
        Ok((key, id))
    }

    /// Takes back a lookup's OPEN whose answer nobody wants any more. `None` if it was answered
    /// meanwhile.
    pub(crate) fn cancel_open(&mut self, msg_id: u32) -> Option<F::Waiter> {
        match self.requests.get(msg_id)? {
            Request {
                kind: Kind::Open {
                    waiter: Some(_), ..
                },
                phase,
                ..
            } if *phase != Phase::Doomed => self.take_open(msg_id),
            _ => None,
        }
    }

    /// Queues a READ of `len` bytes at `off`. Returns whether somebody has to be found to
    /// [watch](Self::next_reading) over READs.
    pub(crate) fn read(
        &mut self,
        key: ObjectKey,
        off: u64,
        len: u64,
        payload: F::Read,
    ) -> core::result::Result<bool, (Refused, F::Read)> {
        if self.dead || self.objects.get(key.0).is_none() {
            return Err((Refused::Gone, payload));
        }
        let request = Request {
            object: Some(key),
            kind: Kind::Read { off, len, payload },
            phase: Phase::Parked,
            queue: Link::default(),
            siblings: Link::default(),
        };
        let id = match self.requests.insert(request) {
            Ok(id) => id,
            Err(request) => match request.kind {
                Kind::Read { payload, .. } => return Err((Refused::Full, payload)),
                // Not reached: the request was made above.
                _ => return Ok(false),
            },
        };
        self.reads += 1;
        if let Some(entry) = self.objects.get_mut(key.0) {
            entry.reads.push_back(&mut self.requests, id, sibling_link);
        }
        if self.happen(key, Event::Read) == Next::Deliver {
            self.make_ready(id, false);
        }
        Ok(!core::mem::replace(&mut self.watched, true))
    }

    /// Nobody watches: the next READ has to find somebody.
    pub(crate) fn stop_watching(&mut self) {
        self.watched = false;
    }

    /// Whether there is still something to be watched over; if not, the watch has ended.
    pub(crate) fn keep_watching(&mut self) -> bool {
        self.watched = self.reads > 0;
        self.watched
    }

    /// Fails the READs of an object, which stays. Its payload is told by [`Self::pop_doomed`].
    pub(crate) fn cancel_reads(&mut self, key: ObjectKey) {
        self.doom_reads(key);
    }

    /// Looks for an object with READs in slot `from` or the next few. Returns it, if there is one, and
    /// the slot to go on from; `None` after the last slot.
    #[allow(clippy::type_complexity)]
    pub(crate) fn next_reading(
        &self,
        from: usize,
    ) -> Option<(Option<(ObjectKey, F::Object)>, usize)> {
        let slots = self.objects.slots();
        let end = slots.min(from.checked_add(Self::STRIDE)?);
        for slot in from..end {
            let key = self.objects.id_at(slot);
            let entry = key.and_then(|key| self.objects.get(key).map(|entry| (key, entry)));
            if let Some((key, entry)) = entry {
                if entry.reads.head.is_some() {
                    return Some((Some((ObjectKey(key), entry.payload.clone())), slot + 1));
                }
            }
        }
        (end < slots).then_some((None, end))
    }

    /// An object in slot `from` or after it, and the slot to go on from.
    pub(crate) fn next_object(&self, from: usize) -> Option<(F::Object, usize)> {
        let (key, next) = self.objects.next_used(from)?;
        Some((self.objects.get(key)?.payload.clone(), next))
    }

    /// Removes an object. What was queued for it fails; if a daemon holds a file descriptor for
    /// it, a CLOSE is queued.
    pub(crate) fn unregister(&mut self, key: ObjectKey) -> Option<F::Object> {
        self.doom_reads(key);
        if let Some(open) = self.objects.get(key.0)?.open {
            match self.requests.get_mut(open) {
                Some(Request {
                    kind:
                        Kind::Open {
                            waiter: Some(_), ..
                        },
                    ..
                }) => {
                    // Its waiter is told later.
                    if let Some(req) = self.requests.get_mut(open) {
                        req.object = None;
                    }
                    self.doom(open);
                }
                _ => {
                    self.take_open(open);
                }
            }
        }

        let entry = self.objects.remove(key.0)?;
        match entry.fd {
            Some(object_id) if !self.dead => self.close_handle(object_id),
            _ => self.requests.unreserve(),
        }
        Some(entry.payload)
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
        let close = Request {
            object: None,
            kind: Kind::Close { object_id },
            phase: Phase::Parked,
            queue: Link::default(),
            siblings: Link::default(),
        };
        if let Ok(id) = self.requests.insert_reserved(close) {
            handle.close = Close::Queued(id);
            self.make_ready(id, false);
        }
    }

    /// The end: everything that waits fails, as [`Self::pop_doomed`] gets to it, and nothing is
    /// queued or delivered any more.
    pub(crate) fn kill(&mut self) {
        self.dead = true;
        self.wake = true;
    }

    // What the daemon does.

    /// The next message, for a buffer of `room` bytes.
    pub(crate) fn deliver(&mut self, room: usize) -> Delivery<F> {
        let Some(msg_id) = self.queue.head.filter(|_| !self.dead) else {
            return Delivery::Empty;
        };
        let Some(req) = self.requests.get(msg_id) else {
            return Delivery::Empty;
        };
        let entry = req.object.and_then(|key| self.objects.get(key.0));
        let (size, delivery, phase) = match (&req.kind, entry) {
            (Kind::Open { .. }, Some(entry)) => (
                entry.open_size,
                Delivery::Open {
                    msg_id,
                    object: entry.payload.clone(),
                },
                Phase::Claimed,
            ),
            (Kind::Read { off, len, .. }, Some(Entry { fd: Some(fd), .. })) => (
                msg::READ_SIZE,
                Delivery::Message {
                    msg_id,
                    msg: Message::read(msg_id, *fd, *off, *len),
                },
                Phase::Delivered,
            ),
            (Kind::Close { object_id }, _) => (
                msg::HEADER_SIZE,
                Delivery::Message {
                    msg_id,
                    msg: Message::close(msg_id, *object_id),
                },
                Phase::Delivered,
            ),
            // Not reached by the invariants.
            _ => return Delivery::Empty,
        };
        if size > room {
            return Delivery::TooSmall;
        }
        self.unqueue(msg_id, phase);
        delivery
    }

    /// A message reached the daemon. There is no answer to a CLOSE, so that one is done.
    pub(crate) fn delivered(&mut self, msg_id: u32) {
        if let Some(Request {
            kind: Kind::Close { object_id },
            phase: Phase::Delivered,
            ..
        }) = self.requests.get(msg_id)
        {
            if let Some(handle) = self.handles.get_mut(*object_id) {
                handle.close = Close::No;
            }
            self.unqueue(msg_id, Phase::Parked);
            self.requests.remove(msg_id);
        }
    }

    /// A message did not reach the daemon: it is the `next` one again, or the last one, if it is not
    /// for its own sake and others may fare better.
    pub(crate) fn put_back(&mut self, msg_id: u32, next: bool) {
        let Some(req) = self.requests.get(msg_id) else {
            return;
        };
        if !matches!(req.phase, Phase::Claimed | Phase::Delivered) {
            return;
        }
        self.unqueue(msg_id, Phase::Parked);
        self.make_ready(msg_id, next);
    }

    /// Gives a claimed OPEN an object id, which goes with the file descriptor into the message.
    /// A file descriptor that was issued for the same object before no longer counts.
    ///
    /// `Gone` if nobody waits for the OPEN any more.
    pub(crate) fn issue(&mut self, msg_id: u32) -> core::result::Result<u32, Refused> {
        let Some(Request {
            object: Some(key),
            phase: Phase::Claimed,
            ..
        }) = self.requests.get(msg_id)
        else {
            return Err(Refused::Gone);
        };
        let key = *key;
        let handle = Handle {
            object: Some(key),
            close: Close::No,
            installed: false,
        };
        let object_id = self.handles.insert(handle).map_err(|_| Refused::Full)?;
        if let Some(entry) = self.objects.get_mut(key.0) {
            entry.fd = Some(object_id);
        }
        self.unqueue(msg_id, Phase::Delivered);
        Ok(object_id)
    }

    /// The daemon has the file descriptor `object_id`, and the OPEN that came with it.
    pub(crate) fn installed(&mut self, object_id: u32) {
        let Some(handle) = self.handles.get_mut(object_id) else {
            return;
        };
        handle.installed = true;
        let object = handle.object;
        if core::mem::replace(&mut handle.close, Close::No) == Close::Later {
            return self.close_handle(object_id);
        }
        let open = object.and_then(|key| self.objects.get(key.0)?.open);
        if let Some(Request {
            kind: Kind::Open { issued, .. },
            ..
        }) = open.and_then(|id| self.requests.get_mut(id))
        {
            *issued = true;
        }
    }

    /// The daemon's answer to an OPEN. Returns who to tell what, and what the daemon is told.
    ///
    /// # Errors
    ///
    /// - `EINVAL`, without a result for anybody, if `msg_id` is not an OPEN that was issued.
    /// - What `reply` is, if that is an error; the OPEN fails with the same.
    /// - `EINVAL` if the size is more than the object may have, or not that of the first OPEN; the OPEN fails too.
    #[allow(clippy::type_complexity)]
    pub(crate) fn copen(
        &mut self,
        msg_id: u32,
        reply: Result<Reply>,
    ) -> (Option<(F::Waiter, Result<u64>)>, Result) {
        let key = match self.requests.get(msg_id) {
            Some(Request {
                object: Some(key),
                kind: Kind::Open { issued: true, .. },
                phase,
                ..
            }) if *phase != Phase::Doomed => *key,
            _ => return (None, Err(Errno::EINVAL)),
        };
        let waiter = self.take_open(msg_id);
        let Some(entry) = self.objects.get_mut(key.0) else {
            return (None, Err(Errno::EINVAL));
        };
        let (outcome, answer) = match reply {
            Err(errno) => (Err(errno), Err(errno)),
            Ok(Reply::Failed(errno)) => (Err(errno), Ok(())),
            Ok(Reply::Size(_)) if entry.fd.is_none() => (Err(Errno::EBADFD), Ok(())),
            Ok(Reply::Size(size))
                if size > entry.max_size || entry.size.is_some_and(|old| old != size) =>
            {
                (Err(Errno::EINVAL), Err(Errno::EINVAL))
            }
            Ok(Reply::Size(size)) => {
                entry.size = Some(size);
                (Ok(size), Ok(()))
            }
        };
        self.happen(
            key,
            match outcome {
                Ok(_) => Event::Opened,
                Err(_) => Event::OpenFailed,
            },
        );
        (waiter.map(|waiter| (waiter, outcome)), answer)
    }

    /// The daemon says that it has answered a READ, through the file descriptor `object_id`.
    /// Returns the read, which looks for itself whether that is so.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `msg_id` is not a READ of that object.
    pub(crate) fn read_complete(&mut self, msg_id: u32, object_id: u32) -> Result<F::Read> {
        let handle = self.handles.get(object_id).and_then(|h| h.object);
        match self.requests.get(msg_id) {
            Some(Request {
                object: Some(key),
                kind: Kind::Read { .. },
                phase,
                ..
            }) if *phase != Phase::Doomed && handle == Some(*key) => {
                self.take_read(msg_id).ok_or(Errno::EINVAL)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The last copy of a file descriptor is gone.
    pub(crate) fn released(&mut self, object_id: u32) {
        let Some(handle) = self.handles.remove(object_id) else {
            return;
        };
        // Nothing is left to be closed.
        match handle.close {
            Close::No => {}
            Close::Later => self.requests.unreserve(),
            Close::Queued(id) => {
                self.unqueue(id, Phase::Doomed);
                self.requests.remove(id);
            }
        }
        let Some(key) = handle.object else {
            return;
        };
        let Some(entry) = self.objects.get_mut(key.0) else {
            return;
        };
        if entry.fd == Some(object_id) {
            entry.fd = None;
            let reads = entry.reads.head.is_some();
            self.happen(key, Event::Released { reads });
        }
    }

    /// A new daemon has taken over: what the old one had in hand is delivered again, oldest first.
    pub(crate) fn restore(&mut self) {
        while let Some(id) = self.delivered.head {
            self.unqueue(id, Phase::Parked);
            self.make_ready(id, false);
        }
        // Even a daemon that was owed nothing may want to know that it is in charge.
        self.wake = true;
    }
}

/// A buffer for [`Slots::grow`].
pub(crate) type Buf<T, S> = <S as Storage>::Buf<Slot<T>>;
