// SPDX-License-Identifier: GPL-2.0

//! The request table: every pending request of a cache and what the daemon knows of every object.
//!
//! Both live in one structure, under one lock, because each is wrong without the other: a READ can
//! be delivered only while its object is open, and an object can be dropped only together with its
//! requests. The structure knows nothing of locks, files or waiting. It is given payloads, whose
//! types are in [`Types`], and hands back each exactly once:
//!
//! * A request is completed by taking it out of the table. The caller that gets the payload has the
//!   only one, and tells its owner.
//! * What fails as a group (an object's READs, everything when the daemon dies) is found by
//!   [`Table::pop_failed`], one at a time, so that owners are told without the lock.
//!
//! Requests wait for delivery in queues that only hold what can be delivered now, so that neither
//! `read()` nor `poll()` ever searches. OPENs and CLOSEs have one queue. Each object has a queue of
//! its READs, and those objects that are open and have any are in a ring. Delivery takes turns
//! between that one queue and the ring, and within the ring from object to object. So whatever is
//! queued for an object delays a READ of another one by a message, and an OPEN by a message. What
//! is outstanding is bounded; see [`admission`].
//!
//! Lists are linked by message id; see [`Slots`] for how an id is found.
//!
//! All READs that have not failed are also on one list by age, queued or delivered. There is one
//! time limit for all, so those that are over it are at its head, and nothing else is looked at.
//!
//! Nothing here takes long: no operation looks at more than [`Table::STRIDE`] entries, or at more
//! READs than one object may have; except that growing the list of chunks of a map, see [`Slots`],
//! moves its entries: at most 2048, if chunks have 256 values.

mod admission;
mod answer;
mod ask;
mod list;
pub(crate) mod object_state;
pub(crate) mod slots;

pub(crate) use self::admission::{
    Bounds,
    User, //
};
use self::{
    admission::{
        Quota,
        UserQuota,
        Waiting, //
    },
    list::{
        Link,
        List, //
    },
    object_state::{
        Event,
        Next,
        State, //
    },
    slots::{
        Slots,
        Storage,
        Supply, //
    }, //
};
use crate::protocol::msg::ShortMessage;

/// The types of what the table keeps for its user.
pub(crate) trait Types: Storage {
    /// An object; cloned to be looked at without the lock.
    type Object: Clone;
    /// Gets the answer to a lookup's OPEN.
    type Waiter;
    /// A read that waits for data.
    type Read;
    /// Which version of an object the daemon serves. Dropped under the lock only if there is
    /// another clone.
    type Version: Clone + PartialEq;
    /// Wakes a reader that waits until it can queue its first READ.
    type Waker: Clone;

    /// Has `read` wait for the answer to `other`, a READ that is in the table.
    fn join(other: &mut Self::Read, read: Self::Read);
}

/// What a READ does if others of the same object ask for the same data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinPolicy {
    /// It is queued as it is.
    Never,
    /// It is queued, but shortened to end where another one begins.
    Shorten,
    /// It joins one that asks for its first byte, if there is one; else it is shortened.
    Join,
}

/// What became of a READ that was to be queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It was queued, as a READ of its own.
    Alone,
    /// Likewise, and the caller has to start the [watch](Table::watch).
    Unwatched,
    /// It was not queued: it has joined another one.
    Joined,
}

/// Names an object in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectKey(u32);

impl ObjectKey {
    /// Names no object.
    pub(crate) const NONE: Self = ObjectKey(u32::MAX);
}

/// Why a request was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Memory is needed first.
    Full,
    /// A limit on READs is reached.
    OverLimit,
    /// The object or the cache is gone.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// On no list.
    New,
    /// Waits for delivery: a READ on its object's queue, others on `control`.
    Queued,
    /// An OPEN taken from the queue by a `read()` that is still preparing the file descriptor.
    Claimed,
    /// With the daemon.
    Delivered,
    /// Failed; its owner is still to be told.
    Failed,
}

enum Kind<F: Types> {
    Open {
        waiter: Option<F::Waiter>,
        /// Whether the fd of this OPEN was installed, so that a daemon may answer it.
        fd_installed: bool,
    },
    Read {
        off: u64,
        len: u64,
        payload: F::Read,
        /// When it was queued, in milliseconds, of which the upper bits are left out.
        since: u32,
    },
    Close {
        object_id: u32,
    },
}

/// A request in the table. Opaque to all but this module. There are many, so it is kept small.
pub(crate) struct Request<F: Types> {
    /// [`ObjectKey::NONE`] for a CLOSE, and for a failed OPEN whose object is gone.
    object: ObjectKey,
    phase: Phase,
    kind: Kind<F>,
    /// Neighbours among the queued, the delivered or the failed.
    queue: Link,
    /// Neighbours among all READs, unless failed.
    ages: Link,
}

impl<F: Types> Request<F> {
    fn new(object: ObjectKey, kind: Kind<F>) -> Self {
        Request {
            object,
            phase: Phase::New,
            kind,
            queue: Link::default(),
            ages: Link::default(),
        }
    }
}

fn queue_link<F: Types>(req: &mut Request<F>) -> &mut Link {
    &mut req.queue
}

fn age_link<F: Types>(req: &mut Request<F>) -> &mut Link {
    &mut req.ages
}

fn ring_link<F: Types>(entry: &mut Entry<F>) -> &mut Link {
    &mut entry.ring
}

/// An object in the table. Opaque to all but this module.
pub(crate) struct Entry<F: Types> {
    payload: F::Object,
    state: State,
    /// The object id of the file descriptor in use, if it is open.
    object_id: Option<u32>,
    /// The message id of the OPEN under way.
    open: Option<u32>,
    /// The size and the version of the first OPEN's answer. No later one may differ.
    size: Option<u64>,
    version: Option<F::Version>,
    /// The largest size that can be cached.
    max_size: u64,
    /// The READs that wait for delivery.
    queued: List,
    /// The READs that are with the daemon.
    delivered: List,
    /// Neighbours in the ring.
    ring: Link,
    /// Whether it is in the ring.
    in_ring: bool,
    /// The limit on READs of the object: what is taken of it, and who waits for it.
    quota: Quota,
    /// Bytes in the OPEN message.
    open_size: usize,
}

impl<F: Types> Entry<F> {
    /// Whether there are READs, queued or delivered.
    fn has_reads(&self) -> bool {
        !(self.queued.is_empty() && self.delivered.is_empty())
    }

    /// Whether a READ can be delivered.
    fn is_ready(&self) -> bool {
        self.state == State::Open && !self.queued.is_empty()
    }

    /// Updates `in_ring`. Returns the new value if it has changed.
    fn update_in_ring(&mut self) -> Option<bool> {
        let ready = self.is_ready();
        (core::mem::replace(&mut self.in_ring, ready) != ready).then_some(ready)
    }
}

/// A file descriptor that some daemon holds. Its id is what the protocol calls the object id: an
/// object is named by its [`ObjectKey`]. Opaque to all but this module.
pub(crate) struct Handle {
    /// `None` once the object is gone.
    object: Option<ObjectKey>,
    close: Close,
    /// Whether the daemon has the file descriptor. Before that it must not see a CLOSE.
    installed: bool,
}

/// How the daemon is told to close a file descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    /// No CLOSE is pending.
    No,
    /// The fd is not installed yet: the CLOSE is queued once it is. A slot is reserved for it.
    Later,
    /// This CLOSE is queued.
    Queued(u32),
}

/// What `read()` gets from the queue.
pub(crate) enum Delivery<F: Types> {
    /// Nothing to deliver.
    Empty,
    /// The next message does not fit; it stays where it is.
    TooSmall,
    /// An OPEN: it needs a file descriptor, then [`Table::issue`].
    Open { msg_id: u32, object: F::Object },
    /// Any other message. When one without an answer has reached the daemon:
    /// [`Table::delivered`]; when it has not: [`Table::put_back`].
    Message { msg_id: u32, msg: ShortMessage },
}

/// The owner of a request that failed with `EIO`, who is to be told.
pub(crate) enum Failed<F: Types> {
    Waiter(F::Waiter),
    Read(F::Read),
    /// Wakes a reader that waits until it can queue a READ, which it never can.
    Waker(F::Waker),
    /// No task waits: a CLOSE, or the OPEN of an object that is reopened.
    Nobody,
}

/// Memory that is not needed any more.
pub(crate) enum Spare<F: Types> {
    Requests(Supply<Request<F>, F>),
    Objects(Supply<Entry<F>, F>),
    Handles(Supply<Handle, F>),
    Users(Supply<UserQuota, F>),
    Waiting(Supply<Waiting<F>, F>),
}

/// See the [module's description](self).
///
/// # Invariants
///
/// - A READ that is `Queued` or `Delivered` is on its object's list of these, and on that by age.
/// - A request of another kind is on the queue of these if and only if it is `Queued`.
/// - A request is on the list of the failed if and only if it is `Failed`.
/// - An object is in the ring if and only if it is `Open` and has a `Queued` READ.
/// - Only an `Open` object, which has an `object_id`, has `Delivered` READs.
/// - Each object has a reserved slot in `requests`, except while it is being reopened.
/// - Each READ that was admitted, see [`admission`], is in `requests` or has a slot reserved.
pub(crate) struct Table<F: Types> {
    requests: Slots<Request<F>, F>,
    objects: Slots<Entry<F>, F>,
    handles: Slots<Handle, F>,
    /// Users with READs, by their number.
    users: Slots<UserQuota, F>,
    /// Readers that wait to be admitted.
    waiting: Slots<Waiting<F>, F>,
    bounds: Bounds,
    /// The limit on READs in the table: what is taken of it, and who waits for it.
    quota: Quota,
    /// Readers that waited for an object whose READs have failed, and are still to be woken.
    cancelled: List,
    /// OPENs and CLOSEs that wait for delivery.
    control: List,
    /// Objects that are open and have READs queued: served round robin.
    ring: List,
    /// Whether a READ is delivered next, rather than a message of `control`.
    reads_turn: bool,
    failed: List,
    /// READs, in the order in which they were queued.
    ages: List,
    /// Whether the work item runs that ends READs and OPENs on a timeout, or when their cookie is
    /// no longer used.
    watched: bool,
    dead: bool,
    /// Set when something was queued, until [`Self::take_wake`].
    wake: bool,
    /// The CLOSE that was queued last, until [`Self::take_closed`]: message and object id.
    closed: Option<(u32, u32)>,
}

impl<F: Types> Table<F> {
    /// How many entries are looked at without releasing the lock.
    const STRIDE: usize = 512;
    /// The most requests that are no READs. Each object takes up two: one for an OPEN or CLOSE
    /// and, while a lookup waits, one for its OPEN.
    const CONTROL: usize = 1 << 19;
    /// The most objects.
    const OBJECTS: usize = Self::CONTROL / 2;
    /// The most file descriptors that daemons hold, and the most readers that wait.
    const MAX_FDS_AND_WAITERS: usize = 1 << 20;

    pub(crate) fn new(bounds: Bounds) -> Self {
        // CAST: The bound is a small number.
        let reads = bounds.table as usize;
        // The last id is that of nothing.
        let last = u32::MAX - 1;
        Table {
            requests: Slots::new(0, last, reads + Self::CONTROL),
            objects: Slots::new(0, last, Self::OBJECTS),
            // Object ids are positive ints.
            handles: Slots::new(1, i32::MAX as u32, Self::MAX_FDS_AND_WAITERS),
            users: Slots::new(0, last, reads + 1),
            waiting: Slots::new(0, last, Self::MAX_FDS_AND_WAITERS),
            bounds,
            quota: Quota::default(),
            cancelled: List::default(),
            control: List::default(),
            ring: List::default(),
            reads_turn: false,
            failed: List::default(),
            ages: List::default(),
            watched: false,
            dead: false,
            wake: false,
            closed: None,
        }
    }

    // What may have to grow; see `Slots`.

    pub(crate) fn requests(&mut self) -> &mut Slots<Request<F>, F> {
        &mut self.requests
    }

    pub(crate) fn objects(&mut self) -> &mut Slots<Entry<F>, F> {
        &mut self.objects
    }

    pub(crate) fn handles(&mut self) -> &mut Slots<Handle, F> {
        &mut self.handles
    }

    pub(crate) fn users(&mut self) -> &mut Slots<UserQuota, F> {
        &mut self.users
    }

    pub(crate) fn waiting(&mut self) -> &mut Slots<Waiting<F>, F> {
        &mut self.waiting
    }

    /// Memory that is not needed any more, a piece at a time, for the caller to free.
    pub(crate) fn trim(&mut self) -> Option<Spare<F>> {
        if let Some(supply) = self.requests.shrink() {
            return Some(Spare::Requests(supply));
        }
        if let Some(supply) = self.objects.shrink() {
            return Some(Spare::Objects(supply));
        }
        if let Some(supply) = self.handles.shrink() {
            return Some(Spare::Handles(supply));
        }
        if let Some(supply) = self.users.shrink() {
            return Some(Spare::Users(supply));
        }
        self.waiting.shrink().map(Spare::Waiting)
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
        !(self.dead || self.control.is_empty() && self.ring.is_empty())
    }

    /// Has another poller woken if there are still messages to be delivered.
    pub(crate) fn wake_if_ready(&mut self) {
        self.wake |= self.is_ready();
    }

    /// Whether the daemon or the cache is gone for good.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Moves a request to another phase, at the end of that phase's list.
    fn set_phase(&mut self, id: u32, phase: Phase) {
        self.move_to(id, phase, false);
    }

    /// Makes a request, which is on no list or with the daemon, the next one to be delivered.
    fn put_first(&mut self, id: u32) {
        let Some(key) = self.requests.get(id).map(Self::queue_of) else {
            return;
        };
        self.move_to(id, Phase::Queued, true);
        self.move_in_ring(key, true);
        self.reads_turn = key != ObjectKey::NONE;
    }

    /// As [`Self::set_phase`], but to the head of the list if `first`. No other function adds to or
    /// removes from these lists, so a request is always on the list of its phase.
    #[inline]
    fn move_to(&mut self, id: u32, phase: Phase, first: bool) {
        let Some(req) = self.requests.get_mut(id) else {
            return;
        };
        let old = core::mem::replace(&mut req.phase, phase);
        let key = Self::queue_of(req);
        let mut entry = self.objects.get_mut(key.0);
        let others = (&mut self.control, &mut self.failed);
        if let Some(list) = Self::list(old, key, entry.as_deref_mut(), others) {
            list.unlink(&mut self.requests, id, queue_link);
        }
        let others = (&mut self.control, &mut self.failed);
        if let Some(list) = Self::list(phase, key, entry.as_deref_mut(), others) {
            if first {
                list.push_front(&mut self.requests, id, queue_link);
            } else {
                list.push_back(&mut self.requests, id, queue_link);
            }
        }
        if phase == Phase::Queued {
            // If it can be delivered, pollers have to be woken.
            self.wake |= key == ObjectKey::NONE || entry.as_ref().is_some_and(|e| e.is_ready());
        }
        let change = entry.and_then(|entry| entry.update_in_ring());
        self.enter_or_leave_ring(key, change);
    }

    /// The object on whose queue a request belongs, or [`ObjectKey::NONE`] for that of all others.
    fn queue_of(req: &Request<F>) -> ObjectKey {
        match req.kind {
            Kind::Read { .. } => req.object,
            _ => ObjectKey::NONE,
        }
    }

    /// The list for a phase, if it has one: one of the object's, or `control` or `failed`.
    fn list<'a>(
        phase: Phase,
        key: ObjectKey,
        entry: Option<&'a mut Entry<F>>,
        (control, failed): (&'a mut List, &'a mut List),
    ) -> Option<&'a mut List> {
        match phase {
            Phase::Failed => Some(failed),
            Phase::Queued if key == ObjectKey::NONE => Some(control),
            Phase::Queued => Some(&mut entry?.queued),
            Phase::Delivered => Some(&mut entry?.delivered),
            Phase::New | Phase::Claimed => None,
        }
    }

    /// Adds an object to the ring, or removes it, if its state or its READs have changed.
    fn update_ring(&mut self, key: ObjectKey) {
        let entry = self.objects.get_mut(key.0);
        let change = entry.and_then(|entry| entry.update_in_ring());
        self.enter_or_leave_ring(key, change);
    }

    /// Does what [`Entry::update_in_ring`] returned.
    fn enter_or_leave_ring(&mut self, key: ObjectKey, change: Option<bool>) {
        match change {
            Some(true) => self.ring.push_back(&mut self.objects, key.0, ring_link),
            Some(false) => self.ring.unlink(&mut self.objects, key.0, ring_link),
            None => {}
        }
    }

    /// Moves an object, if it is in the ring, to the head or the tail.
    fn move_in_ring(&mut self, key: ObjectKey, first: bool) {
        if self.ring.is_only(key.0) {
            return;
        }
        if !self.objects.get(key.0).is_some_and(|entry| entry.in_ring) {
            return;
        }
        self.ring.unlink(&mut self.objects, key.0, ring_link);
        if first {
            self.ring.push_front(&mut self.objects, key.0, ring_link);
        } else {
            self.ring.push_back(&mut self.objects, key.0, ring_link);
        }
    }

    /// Has pollers woken, if the object has READs that can be delivered.
    fn wake_for(&mut self, key: ObjectKey) {
        if key == ObjectKey::NONE || self.objects.get(key.0).is_some_and(Entry::is_ready) {
            self.wake = true;
        }
    }

    /// Takes a request off its list and out of the table.
    fn remove(&mut self, id: u32) -> Option<Request<F>> {
        self.set_phase(id, Phase::New);
        self.requests.remove(id)
    }

    /// Takes an OPEN out of the table.
    fn take_open(&mut self, id: u32) -> Option<F::Waiter> {
        let req = self.remove(id)?;
        let waiter = match req.kind {
            Kind::Open { waiter, .. } => waiter,
            _ => None,
        };
        if let Some(entry) = self.objects.get_mut(req.object.0) {
            entry.open = None;
            if waiter.is_none() {
                // It was a reopen, which used the object's reserved slot. Reserves it again; there
                // is room: it was just freed.
                let _ = self.requests.reserve();
            }
        }
        waiter
    }

    /// Takes a READ out of the table. Its slot stays reserved for its reader.
    fn take_read(&mut self, id: u32) -> Option<F::Read> {
        let req = self.requests.get(id)?;
        // One that has failed is not on the list by age.
        if req.phase != Phase::Failed {
            self.ages.unlink(&mut self.requests, id, age_link);
        }
        match self.remove(id)?.kind {
            Kind::Read { payload, .. } => {
                // There is room: it was just freed.
                let _ = self.requests.reserve();
                Some(payload)
            }
            _ => None,
        }
    }

    /// Fails an object's READs, and cancels the waits of readers for its limit.
    fn fail_reads(&mut self, key: ObjectKey) {
        while let Some(id) = self.objects.get(key.0).and_then(|entry| {
            let delivered = entry.delivered.first();
            delivered.or(entry.queued.first())
        }) {
            self.ages.unlink(&mut self.requests, id, age_link);
            self.set_phase(id, Phase::Failed);
        }
        self.cancel_waiting(key);
    }

    /// Takes the next failed request out of the table, for the caller to tell its owner. If the
    /// cache is dead, all have failed.
    pub(crate) fn pop_failed(&mut self) -> Option<Failed<F>> {
        let id = match self.failed.first() {
            Some(id) => id,
            None if self.dead && self.requests.len() > 0 => {
                self.requests.id_at(self.requests.len() - 1)?
            }
            None => return self.pop_cancelled().map(Failed::Waker),
        };
        let failed = match self.requests.get(id)?.kind {
            Kind::Open { .. } => self.take_open(id).map(Failed::Waiter),
            Kind::Read { .. } => self.take_read(id).map(Failed::Read),
            Kind::Close { .. } => {
                self.remove(id);
                None
            }
        };
        Some(failed.unwrap_or(Failed::Nobody))
    }

    fn new_open(key: ObjectKey, waiter: Option<F::Waiter>) -> Request<F> {
        let kind = Kind::Open {
            waiter,
            fd_installed: false,
        };
        Request::new(key, kind)
    }

    fn queue_open(&mut self, key: ObjectKey, id: u32) {
        if let Some(entry) = self.objects.get_mut(key.0) {
            entry.open = Some(id);
        }
        self.set_phase(id, Phase::Queued);
    }

    /// Puts an object's READs that are with the daemon before those that wait for delivery.
    /// Returns how many.
    fn take_back_reads(&mut self, key: ObjectKey) -> usize {
        let mut count = 0;
        while let Some(id) = self
            .objects
            .get(key.0)
            .and_then(|entry| entry.delivered.last())
        {
            self.move_to(id, Phase::Queued, true);
            count += 1;
        }
        count
    }

    fn handle_event(&mut self, key: ObjectKey, event: Event) {
        let Some(entry) = self.objects.get_mut(key.0) else {
            return;
        };
        let (state, next) = entry.state.on(event);
        if state == entry.state && next == Next::Deliver {
            // move_to() has set `wake` already.
            return;
        }
        entry.state = state;
        match next {
            Next::Nothing | Next::Wait => {}
            // READs may have become deliverable.
            Next::Deliver | Next::DeliverWaiting => self.wake_for(key),
            Next::Reopen => {
                self.take_back_reads(key);
                // Every object that is not being reopened has a slot reserved.
                if let Ok(id) = self.requests.insert_reserved(Self::new_open(key, None)) {
                    self.queue_open(key, id);
                }
            }
            Next::FailWaiting => self.fail_reads(key),
        }
        self.update_ring(key);
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
        let close = Request::new(ObjectKey::NONE, Kind::Close { object_id });
        if let Ok(id) = self.requests.insert_reserved(close) {
            handle.close = Close::Queued(id);
            self.closed = Some((id, object_id));
            self.set_phase(id, Phase::Queued);
        }
    }
}
