// SPDX-License-Identifier: GPL-2.0

//! The request table against a model that keeps the same things in maps and vectors.
//!
//! After each operation the two have to agree on everything that can be seen of the table: the ids
//! in use, the room that is left (so no reservation leaks), whether there is something to deliver,
//! whether pollers are woken, and which payloads are still inside (so none is lost).

use crate::{
    protocol::{
        command::Reply,
        errno::{Errno, Result},
    },
    support::{check, grow, make_room, Host},
    table::{
        slots::{Slots, Storage},
        Bounds, Delivery, Failed, JoinPolicy, ObjectKey, Placed, Refused, Table, Types, User,
    },
};
use proptest::{
    collection::vec,
    prelude::{any, Just},
    prop_oneof,
    sample::select,
    strategy::{BoxedStrategy, Strategy},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

/// What is given to the table to keep: a number, and a share in the count of what is out there.
pub(crate) struct Payload {
    number: u32,
    /// Those that have joined it.
    others: Vec<Payload>,
    _live: Rc<()>,
}

impl Types for Host {
    type Object = Rc<u32>;
    type Waiter = Payload;
    type Read = Payload;
    type Version = u32;
    type Waker = Rc<u32>;

    fn join(other: &mut Payload, read: Payload) {
        assert!(read.others.is_empty());
        other.others.push(read);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Open,
    Closed,
    Reopening,
}

#[derive(Debug)]
struct Object {
    key: ObjectKey,
    payload: Rc<u32>,
    state: State,
    fd: Option<u32>,
    open: Option<u32>,
    size: Option<u64>,
    version: Option<u32>,
    max: u64,
    /// Its READs that wait for delivery, and those that are with the daemon.
    queued: VecDeque<u32>,
    delivered: VecDeque<u32>,
    open_size: usize,
}

impl Object {
    /// The READs that have not failed, in the order in which they are given up.
    fn reads(&self) -> Vec<u32> {
        self.delivered.iter().chain(&self.queued).copied().collect()
    }

    fn lose(&mut self, read: u32) {
        self.queued.retain(|other| *other != read);
        self.delivered.retain(|other| *other != read);
    }
}

/// What a reader has who may have a READ outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    object: u32,
    key: ObjectKey,
    user: User,
}

/// What a READ takes up, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    User,
    Object,
    Table,
    Admitted,
}

const STAGES: [Stage; 3] = [Stage::User, Stage::Object, Stage::Table];

impl Stage {
    fn next(self) -> Self {
        match self {
            Stage::User => Stage::Object,
            Stage::Object => Stage::Table,
            _ => Stage::Admitted,
        }
    }
}

/// A reader that waits to be admitted.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: Ticket,
    waker: u32,
    /// What it waits for.
    stage: Stage,
    in_line: bool,
    /// Whether it waits for an object that was given up.
    is_cancelled: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Open {
        waiter: Option<u32>,
        fd_installed: bool,
    },
    Read {
        off: u64,
        len: u64,
        read: u32,
        since: u64,
        ticket: Ticket,
        /// Those that have joined it.
        others: Vec<(u32, Ticket)>,
    },
    Close {
        fd: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    Queued,
    Claimed,
    Sent,
    Failed,
}

#[derive(Debug)]
struct Request {
    /// The number of its object; those of the table are never used again.
    object: Option<u32>,
    kind: Kind,
    phase: Phase,
}

#[derive(Debug)]
struct Handle {
    object: Option<u32>,
    close: Close,
    installed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    No,
    Later,
    Queued(u32),
}

#[derive(Clone, Debug)]
enum Op {
    Register {
        open_size: usize,
        max: u64,
    },
    Read {
        object: usize,
        off: u64,
        len: u64,
        user: usize,
    },
    /// READs until there are too many, or the table is full.
    FillUp {
        object: usize,
        user: usize,
    },
    /// A reader that is over a limit waits.
    AddWaiting {
        object: usize,
        user: usize,
    },
    /// One of them looks whether there is news.
    Look(usize),
    RemoveWaiting(usize),
    /// A reader whose READ was answered asks for something else.
    Again {
        reader: usize,
        off: u64,
        len: u64,
    },
    Leave(usize),
    /// Lookups that give up at once, so that ids go by.
    Churn(usize),
    Deliver {
        room: usize,
    },
    /// Deliver, and go on as the driver does when nothing goes wrong.
    Serve,
    Issue(usize),
    Installed(usize),
    PutBack {
        msg: usize,
        next: bool,
    },
    Delivered(usize),
    /// Answers with a size or an error a request that is an OPEN, if there is one.
    Answer {
        open: usize,
        reply: Answer,
    },
    /// Answers any id.
    Copen {
        msg: usize,
        reply: Answer,
    },
    CancelOpen(usize),
    Complete {
        read: usize,
        handle: usize,
    },
    /// Completes a READ through the file descriptor that it came for.
    Fill(usize),
    Release(usize),
    ReleaseUnknown(u32),
    CancelReads(usize),
    /// Time passes, in milliseconds.
    Tick(u64),
    /// The READs that are over this limit are taken out.
    Expire {
        timeout: u64,
        most: usize,
    },
    Unregister(usize),
    Restore,
    Kill,
    PopFailed,
    KeepWatching,
    Grow {
        which: usize,
        extra: usize,
    },
    Trim(usize),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    /// What the daemon said before, or `.0` times 4096.
    Size(u64),
    SameSize,
    OtherVersion,
    TooLarge,
    Failed,
    Garbage,
}

struct Run {
    table: Table<Host>,
    live: Rc<()>,
    objects: BTreeMap<u32, Object>,
    requests: BTreeMap<u32, Request>,
    handles: BTreeMap<u32, Handle>,
    waiting: BTreeMap<u32, Waiting>,
    /// The ids of those who wait, in the order in which they began to wait for what they do.
    line: Vec<u32>,
    /// Readers whose READ was taken out of the table.
    idle: Vec<Ticket>,
    /// What is being given back, and is still taken from this stage on.
    pending: Vec<(Stage, Ticket)>,
    bounds: Bounds,
    joins: bool,
    /// OPENs and CLOSEs that wait for delivery.
    control: VecDeque<u32>,
    /// Objects with READs that can be delivered.
    ring: VecDeque<u32>,
    reads_turn: bool,
    /// Messages in the hands of a `read()` that has not come to an end.
    in_hand: Vec<u32>,
    gone: Vec<ObjectKey>,
    released: Vec<u32>,
    count: u32,
    /// The time in milliseconds.
    now: u64,
    last_object_id: u32,
    dead: bool,
    watched: bool,
    wake: bool,
}

fn pick<T: Copy>(from: &[T], at: usize) -> Option<T> {
    from.get(at % from.len().max(1)).copied()
}

/// The ids in a map.
fn ids<T>(slots: &Slots<T, Host>) -> BTreeSet<u32> {
    (0..slots.len()).filter_map(|at| slots.id_at(at)).collect()
}

/// One of a few users.
fn user(at: usize) -> User {
    match at % 4 {
        0 => User::EXEMPT,
        number => User::new(1000 + number as u32),
    }
}

impl Run {
    fn new(bounds: Bounds, joins: bool) -> Self {
        Run {
            table: Table::new(bounds),
            live: Rc::new(()),
            objects: BTreeMap::new(),
            requests: BTreeMap::new(),
            handles: BTreeMap::new(),
            waiting: BTreeMap::new(),
            line: Vec::new(),
            idle: Vec::new(),
            pending: Vec::new(),
            bounds,
            joins,
            control: VecDeque::new(),
            ring: VecDeque::new(),
            reads_turn: false,
            in_hand: Vec::new(),
            gone: Vec::new(),
            released: Vec::new(),
            count: 0,
            now: 0,
            last_object_id: 0,
            dead: false,
            watched: false,
            wake: false,
        }
    }

    fn payload(&mut self) -> Payload {
        self.count += 1;
        Payload {
            number: self.count,
            others: Vec::new(),
            _live: self.live.clone(),
        }
    }

    /// The ids that the table has and the model does not.
    fn new_requests(&mut self) -> Vec<u32> {
        let known: BTreeSet<u32> = self.requests.keys().copied().collect();
        ids(self.table.requests())
            .difference(&known)
            .copied()
            .collect()
    }

    fn new_request(&mut self) -> u32 {
        let new = self.new_requests();
        assert_eq!(new.len(), 1, "one request was to be added");
        new[0]
    }

    fn add(&mut self, id: u32, object: Option<u32>, kind: Kind) {
        let request = Request {
            object,
            kind,
            phase: Phase::New,
        };
        assert!(self.requests.insert(id, request).is_none());
    }

    /// The object on whose queue a request is, if it is a READ.
    fn queue_of(&self, id: u32) -> Option<u32> {
        let request = &self.requests[&id];
        let is_read = matches!(request.kind, Kind::Read { .. });
        request.object.filter(|_| is_read)
    }

    /// Sees to it that the ring has those objects, and no others, whose READs can be delivered.
    fn settle(&mut self) {
        let objects = &self.objects;
        let ready = |number: &u32| {
            let object = objects.get(number);
            object.is_some_and(|object| object.state == State::Open && !object.queued.is_empty())
        };
        self.ring.retain(ready);
        let new: Vec<u32> = objects
            .keys()
            .filter(|number| ready(number) && !self.ring.contains(number))
            .copied()
            .collect();
        // No operation makes more than one ready.
        self.ring.extend(new);
    }

    /// Puts a request that is on no list at the end of the queue that it belongs on, or at its
    /// beginning.
    fn enqueue(&mut self, id: u32, first: bool) {
        self.requests.get_mut(&id).unwrap().phase = Phase::Queued;
        let object = self.queue_of(id);
        let queue = match object {
            Some(object) => &mut self.objects.get_mut(&object).unwrap().queued,
            None => &mut self.control,
        };
        if first {
            queue.push_front(id);
        } else {
            queue.push_back(id);
        }
        self.settle();
        let can_be_read = object.is_none_or(|object| self.ring.contains(&object));
        self.wake |= can_be_read;
    }

    /// Takes a request off the queue or list that it is on.
    fn set_phase(&mut self, id: u32, phase: Phase) {
        self.control.retain(|queued| *queued != id);
        let object = self.queue_of(id);
        if let Some(object) = object.and_then(|object| self.objects.get_mut(&object)) {
            object.lose(id);
            if phase == Phase::Sent {
                object.delivered.push_back(id);
            }
        }
        self.requests.get_mut(&id).unwrap().phase = phase;
        self.settle();
    }

    fn remove(&mut self, id: u32) -> Request {
        self.set_phase(id, Phase::New);
        self.requests.remove(&id).unwrap()
    }

    /// Removes a READ whose reader goes on, as those who joined it do.
    fn take_read(&mut self, id: u32, found: &Payload) -> Request {
        let request = self.remove(id);
        let Kind::Read {
            read,
            ticket,
            others,
            ..
        } = &request.kind
        else {
            panic!("not a READ");
        };
        assert_eq!(found.number, *read);
        let joined = found.others.iter().map(|other| other.number);
        assert!(joined.eq(others.iter().map(|(read, _)| *read)));
        self.idle.push(*ticket);
        self.idle.extend(others.iter().map(|(_, ticket)| *ticket));
        request
    }

    /// The last READs of an object that were queued or delivered: ids, offsets and lengths.
    fn last_reads(&self, object: u32) -> Vec<(u32, u64, u64)> {
        let object = &self.objects[&object];
        let lists = [&object.queued, &object.delivered];
        let last = lists.iter().flat_map(|list| list.iter().rev().take(4));
        last.map(|id| match self.requests[id].kind {
            Kind::Read { off, len, .. } => (*id, off, len),
            _ => panic!("not a READ"),
        })
        .collect()
    }

    /// The policy of the next READ.
    fn policy(&self) -> JoinPolicy {
        match (self.joins, self.count % 3) {
            (false, _) => JoinPolicy::Never,
            (true, 0) => JoinPolicy::Shorten,
            (true, _) => JoinPolicy::Join,
        }
    }

    /// How many READs have joined others.
    fn joined(&self) -> usize {
        let others = self.requests.values().map(|req| match &req.kind {
            Kind::Read { others, .. } => others.len(),
            _ => 0,
        });
        others.sum()
    }

    fn fail_reads(&mut self, object: u32) {
        for id in self.objects[&object].reads() {
            self.set_phase(id, Phase::Failed);
        }
        for waiting in self.waiting.values_mut() {
            if waiting.ticket.object == object && waiting.in_line {
                waiting.is_cancelled |= waiting.stage == Stage::Object;
            }
        }
    }

    // The bounds. What is taken is counted anew each time.

    fn takes(ticket: &Ticket, stage: Stage, like: &Ticket) -> bool {
        match stage {
            Stage::User => ticket.user == like.user,
            Stage::Object => ticket.object == like.object,
            _ => true,
        }
    }

    fn taken(&self, stage: Stage, like: &Ticket) -> u32 {
        let pending = self.pending.iter().filter(|(from, _)| stage >= *from);
        let reads = self.requests.values().filter_map(|req| match &req.kind {
            Kind::Read { ticket, others, .. } => {
                let others = others.iter().map(|(_, ticket)| ticket);
                Some(std::iter::once(ticket).chain(others))
            }
            _ => None,
        });
        let held = self
            .waiting
            .values()
            .filter(|waiting| waiting.stage > stage);
        let all = reads
            .flatten()
            .chain(&self.idle)
            .chain(held.map(|waiting| &waiting.ticket))
            .chain(pending.map(|(_, ticket)| ticket));
        all.filter(|ticket| Self::takes(ticket, stage, like))
            .count() as u32
    }

    /// Whether there is something left for one more; `None` if nobody counts that.
    fn has_left(&self, stage: Stage, like: &Ticket) -> Option<bool> {
        let bound = match stage {
            Stage::User if like.user == User::EXEMPT => return None,
            Stage::Object if !self.objects.contains_key(&like.object) => return None,
            Stage::User => self.bounds.user,
            Stage::Object => self.bounds.object,
            _ => self.bounds.table,
        };
        Some(self.taken(stage, like) < bound)
    }

    /// Whether a reader is admitted at once.
    fn fits(&self, ticket: &Ticket) -> bool {
        let left = STAGES.map(|stage| self.has_left(stage, ticket));
        left.iter().all(|left| left.unwrap_or(true))
    }

    /// Has somebody who waits take what there is. Returns whom to wake.
    fn advance(&mut self, id: u32) -> Option<u32> {
        loop {
            let Waiting {
                ticket,
                waker,
                stage,
                ..
            } = self.waiting[&id];
            if stage == Stage::Admitted {
                return Some(waker);
            }
            match self.has_left(stage, &ticket) {
                None => return Some(waker),
                Some(true) => self.waiting.get_mut(&id).unwrap().stage = stage.next(),
                Some(false) => {
                    self.waiting.get_mut(&id).unwrap().in_line = true;
                    self.line.push(id);
                    return None;
                }
            }
        }
    }

    /// Something was given back, of which there is one more than the model counts: it is the
    /// first one's in that line.
    fn pass_on(&mut self, stage: Stage, like: &Ticket) -> Option<u32> {
        self.has_left(stage, like)?;
        let waiting = &self.waiting;
        let first = self.line.iter().position(|id| {
            let waiting = &waiting[id];
            let same = Self::takes(&waiting.ticket, stage, like);
            waiting.stage == stage && !waiting.is_cancelled && same
        })?;
        let id = self.line.remove(first);
        let waiting = self.waiting.get_mut(&id).unwrap();
        waiting.in_line = false;
        waiting.stage = stage.next();
        self.advance(id)
    }

    fn add_waiting(&mut self, at: usize, user: User) {
        let Some(key) = self.key(at) else {
            return;
        };
        self.count += 1;
        let waker = self.count;
        for attempt in 0.. {
            let found = self.number_of(key);
            match self.table.add_waiting(key, user, Rc::new(waker)) {
                Ok(id) => {
                    let ticket = Ticket {
                        object: found.expect("waits for nothing"),
                        key,
                        user,
                    };
                    let stage = match user {
                        User::EXEMPT => Stage::Object,
                        _ => Stage::User,
                    };
                    let waiting = Waiting {
                        ticket,
                        waker,
                        stage,
                        in_line: false,
                        is_cancelled: false,
                    };
                    assert!(!self.dead);
                    assert!(self.waiting.insert(id, waiting).is_none());
                    self.advance(id);
                    return;
                }
                Err(Refused::Full) => {
                    assert_eq!(attempt, 0);
                    make_room(1, self.table.waiting());
                    self.make_room_for_users();
                }
                Err(refused) => {
                    assert_eq!(refused, Refused::Gone);
                    return assert!(self.dead || found.is_none());
                }
            }
        }
    }

    fn look(&mut self, id: u32) {
        let result = self.table.admitted(id);
        let Some(waiting) = self.waiting.get(&id).copied() else {
            return assert_eq!(result, Err(Refused::Gone));
        };
        if waiting.in_line {
            assert_eq!(result, Ok(false));
        } else if waiting.stage != Stage::Admitted || self.dead {
            assert_eq!(result, Err(Refused::Gone));
        } else if result == Err(Refused::Full) {
            assert_eq!(self.table.requests().room(), 0);
            make_room(1, self.table.requests());
            self.look(id);
        } else {
            assert_eq!(result, Ok(true));
            self.waiting.remove(&id);
            self.idle.push(waiting.ticket);
        }
    }

    fn remove_waiting(&mut self, id: u32) {
        let woken = self.table.remove_waiting(id);
        let expected = self.forget_waiting(id);
        let woken: Vec<u32> = woken.into_iter().flatten().map(|waker| *waker).collect();
        assert_eq!(woken, expected);
    }

    /// Returns whom to wake.
    fn forget_waiting(&mut self, id: u32) -> Vec<u32> {
        let Some(waiting) = self.waiting.remove(&id) else {
            return Vec::new();
        };
        self.line.retain(|other| *other != id);
        self.give_back(&waiting.ticket, waiting.stage)
    }

    /// As the table does, with what is given back taken until it is passed on.
    fn give_back(&mut self, ticket: &Ticket, below: Stage) -> Vec<u32> {
        // What is not yet passed on is not there to be taken either: somebody who is passed the
        // first may need the second.
        let mut woken = Vec::new();
        for stage in STAGES.into_iter().filter(|stage| *stage < below) {
            self.pending.push((stage.next(), *ticket));
            woken.extend(self.pass_on(stage, ticket));
            self.pending.pop();
        }
        woken
    }

    fn leave(&mut self, at: usize) {
        if self.idle.is_empty() {
            return;
        }
        let ticket = self.idle.swap_remove(at % self.idle.len());
        let woken = self.table.end_admission(ticket.key, ticket.user);
        let woken: Vec<u32> = woken.into_iter().flatten().map(|waker| *waker).collect();
        assert_eq!(woken, self.give_back(&ticket, Stage::Admitted));
    }

    fn again(&mut self, at: usize, off: u64, len: u64) {
        let Some(ticket) = pick(&self.idle, at) else {
            return;
        };
        let found = self.objects.contains_key(&ticket.object) && !self.dead;
        let (off, len) = self.range(off, len);
        let payload = self.payload();
        let policy = self.policy();
        let read = payload.number;
        match self
            .table
            .queue_read(ticket.key, (off, len), payload, self.now, None, policy)
        {
            Ok(queued) => {
                assert!(found);
                self.idle.swap_remove(at % self.idle.len());
                self.added_read(ticket, off, len, read, queued);
            }
            Err((refused, _)) => {
                // Never for want of room.
                assert_eq!(refused, Refused::Gone);
                assert!(!found);
            }
        }
    }

    /// Such that some ask for the same, if that matters.
    fn range(&self, off: u64, len: u64) -> (u64, u64) {
        match self.joins {
            true => (off % 16, len % 8),
            false => (off, len),
        }
    }

    fn make_room_for_users(&mut self) {
        let users = self.table.users();
        if users.len() < 4 {
            make_room(1, users);
        }
    }

    /// Queues an OPEN that no lookup waits for.
    fn reopen(&mut self, object: u32, open: u32) {
        let entry = self.objects.get_mut(&object).unwrap();
        entry.state = State::Reopening;
        entry.open = Some(open);
        self.take_back(object);
        let kind = Kind::Open {
            waiter: None,
            fd_installed: false,
        };
        self.add(open, Some(object), kind);
        self.enqueue(open, false);
    }

    /// Puts an object's READs that are with the daemon before those that wait; how many.
    fn take_back(&mut self, object: u32) -> usize {
        let delivered = self.objects[&object].delivered.clone();
        for id in delivered.iter().rev() {
            self.set_phase(*id, Phase::New);
            self.enqueue(*id, true);
        }
        delivered.len()
    }

    fn make_room(&mut self) {
        make_room(1, self.table.objects());
        make_room(2, self.table.requests());
        make_room(1, self.table.handles());
        self.make_room_for_users();
    }

    fn number_of(&self, key: ObjectKey) -> Option<u32> {
        let mut found = self.objects.iter().filter(|(_, object)| object.key == key);
        found.next().map(|(number, _)| *number)
    }

    /// The key of an object, of one that is gone, or of none.
    fn key(&self, at: usize) -> Option<ObjectKey> {
        let mut keys: Vec<_> = self.objects.values().map(|object| object.key).collect();
        if at % 16 == 0 {
            keys = self.gone.clone();
        }
        pick(&keys, at)
    }

    fn message(&self, at: usize, wanted: fn(&Request) -> bool) -> Option<u32> {
        let all = self.requests.iter().filter(|(_, req)| wanted(req));
        pick(&all.map(|(id, _)| *id).collect::<Vec<_>>(), at)
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Register { open_size, max } => self.register(open_size, max),
            Op::Read {
                object,
                off,
                len,
                user: at,
            } => {
                if self.read(object, off, len, user(at)) == Some(Refused::Full) {
                    self.make_room();
                    assert_ne!(self.read(object, off, len, user(at)), Some(Refused::Full));
                }
            }
            Op::FillUp { object, user: at } => {
                let found = self.key(object).and_then(|key| self.number_of(key));
                // A table that was filled up a few times is too large to be compared.
                if self.dead || found.is_none() || self.table.requests().room() > 64 {
                    return;
                }
                while self.read(object, 0, 1, user(at)).is_none() {}
            }
            Op::AddWaiting { object, user: at } => self.add_waiting(object, user(at)),
            Op::Look(at) => {
                let ids: Vec<u32> = self.waiting.keys().copied().collect();
                self.look(pick(&ids, at).unwrap_or(at as u32));
            }
            Op::RemoveWaiting(at) => {
                let ids: Vec<u32> = self.waiting.keys().copied().collect();
                self.remove_waiting(pick(&ids, at).unwrap_or(at as u32));
            }
            Op::Again { reader, off, len } => self.again(reader, off, len),
            Op::Leave(at) => self.leave(at),
            Op::Trim(most) => {
                for _ in 0..most {
                    if self.table.trim().is_none() {
                        break;
                    }
                }
            }
            Op::Churn(count) => {
                for _ in 0..count {
                    self.register(40, 0);
                    let Some((_, object)) = self.objects.last_key_value() else {
                        return;
                    };
                    if let (Some(open), key) = (object.open, object.key) {
                        self.cancel_open(open);
                        self.unregister(key);
                    }
                }
            }
            Op::Deliver { room } => drop(self.deliver(room)),
            Op::Serve => self.serve(),
            Op::Issue(at) => {
                if let Some(id) = pick(&self.in_hand, at) {
                    self.issue(id);
                }
            }
            Op::Installed(at) => {
                let waiting = self.handles.iter().filter(|(_, handle)| !handle.installed);
                let waiting: Vec<u32> = waiting.map(|(fd, _)| *fd).collect();
                if let Some(fd) = pick(&waiting, at) {
                    self.installed(fd);
                }
            }
            Op::PutBack { msg, next } => {
                if let Some(id) = pick(&self.in_hand, msg) {
                    self.put_back(id, next);
                }
            }
            Op::Delivered(at) => {
                if let Some(id) = pick(&self.in_hand, at) {
                    self.delivered(id);
                }
            }
            Op::Answer { open, reply } => {
                let wanted = |req: &Request| {
                    matches!(
                        req.kind,
                        Kind::Open {
                            fd_installed: true,
                            ..
                        }
                    )
                };
                if let Some(id) = self.message(open, wanted) {
                    self.copen(id, reply);
                }
            }
            Op::Copen { msg, reply } => {
                let id = self.message(msg, |_| true);
                self.copen(id.filter(|_| msg % 4 != 0).unwrap_or(msg as u32), reply);
            }
            Op::CancelOpen(at) => {
                let id = self.message(at, |_| true);
                self.cancel_open(id.filter(|_| at % 4 != 0).unwrap_or(at as u32));
            }
            Op::Complete { read, handle } => {
                let id = self.message(read, |_| true).unwrap_or(read as u32);
                let mut handles: Vec<u32> = self.handles.keys().copied().collect();
                if handle % 8 == 0 {
                    handles = vec![0, u32::MAX, i32::MAX as u32];
                }
                if handle % 8 == 1 {
                    handles.clone_from(&self.released);
                }
                self.complete(id, pick(&handles, handle).unwrap_or(0));
            }
            Op::Fill(at) => {
                let wanted = |req: &Request| {
                    matches!((&req.kind, req.phase), (Kind::Read { .. }, Phase::Sent))
                };
                if let Some(id) = self.message(at, wanted) {
                    let object = self.requests[&id].object.unwrap();
                    let fd = self.objects[&object]
                        .fd
                        .expect("a READ without file descriptor");
                    self.complete(id, fd);
                }
            }
            Op::Release(at) => {
                let handles: Vec<u32> = self.handles.keys().copied().collect();
                if let Some(id) = pick(&handles, at) {
                    self.release(id);
                }
            }
            Op::ReleaseUnknown(id) => {
                if !self.handles.contains_key(&id) {
                    self.table.fd_released(id);
                }
            }
            Op::CancelReads(at) => {
                if let Some(key) = self.key(at) {
                    self.table.cancel_reads(key);
                    if let Some(object) = self.number_of(key) {
                        self.fail_reads(object);
                    }
                }
            }
            Op::Tick(ms) => self.now += ms,
            Op::Expire { timeout, most } => {
                for _ in 0..most {
                    if !self.expire(timeout) {
                        break;
                    }
                }
            }
            Op::Unregister(at) => {
                if let Some(key) = self.key(at) {
                    self.unregister(key);
                }
            }
            Op::Restore => self.restore(),
            Op::Kill => self.kill(),
            Op::PopFailed => drop(self.pop_failed()),
            Op::KeepWatching => {
                let reads = self
                    .objects
                    .values()
                    .any(|object| !object.reads().is_empty());
                assert_eq!(self.table.keep_watching(), reads);
                self.watched = reads;
            }
            Op::Grow { which, extra } => {
                // Not necessarily all that is wanted.
                match which {
                    0 => drop(grow(extra, self.table.requests())),
                    1 => drop(grow(extra, self.table.objects())),
                    _ => drop(grow(extra, self.table.handles())),
                }
            }
        }
    }

    fn register(&mut self, open_size: usize, max: u64) {
        let mut waiter = self.payload();
        let number = waiter.number;
        let mut payload = Rc::new(number);
        let kept = payload.clone();
        for attempt in 0.. {
            let fits = self.table.requests().room() > 1 && self.table.objects().room() > 0;
            match self.table.register(payload, open_size, max, waiter) {
                Ok((key, open)) => {
                    assert!(fits && !self.dead);
                    assert_eq!(self.new_request(), open);
                    assert!(self.number_of(key).is_none() && !self.gone.contains(&key));
                    let object = Object {
                        key,
                        payload: kept,
                        state: State::Opening,
                        fd: None,
                        open: Some(open),
                        size: None,
                        version: None,
                        max,
                        queued: VecDeque::new(),
                        delivered: VecDeque::new(),
                        open_size,
                    };
                    self.objects.insert(number, object);
                    let kind = Kind::Open {
                        waiter: Some(number),
                        fd_installed: false,
                    };
                    self.add(open, Some(number), kind);
                    return self.enqueue(open, false);
                }
                Err((refused, object, back)) => {
                    assert_eq!((*object, back.number), (number, number));
                    if self.dead {
                        return assert_eq!(refused, Refused::Gone);
                    }
                    assert_eq!(refused, Refused::Full);
                    assert!(!fits && attempt == 0);
                    (payload, waiter) = (object, back);
                    self.make_room();
                }
            }
        }
    }

    /// Returns why it was not taken, if a later try may be.
    fn read(&mut self, at: usize, off: u64, len: u64, user: User) -> Option<Refused> {
        let Some(key) = self.key(at) else {
            return Some(Refused::Gone);
        };
        let object = self.number_of(key);
        let (off, len) = self.range(off, len);
        let payload = self.payload();
        let policy = self.policy();
        let read = payload.number;
        let full = self.table.requests().room() == 0;
        match self
            .table
            .queue_read(key, (off, len), payload, self.now, Some(user), policy)
        {
            Ok(queued) => {
                let ticket = Ticket {
                    object: object.expect("a READ of nothing was taken"),
                    key,
                    user,
                };
                assert!(!full && !self.dead && self.fits(&ticket));
                self.added_read(ticket, off, len, read, queued);
                None
            }
            Err((refused, back)) => {
                assert_eq!(back.number, read);
                let Some(object) = object.filter(|_| !self.dead) else {
                    assert_eq!(refused, Refused::Gone);
                    return Some(refused);
                };
                let ticket = Ticket { object, key, user };
                match refused {
                    Refused::OverLimit => assert!(!self.fits(&ticket)),
                    Refused::Full => assert!(full || self.table.users().room() == 0),
                    Refused::Gone => panic!("it is there"),
                }
                Some(refused)
            }
        }
    }

    fn added_read(&mut self, ticket: Ticket, off: u64, mut len: u64, read: u32, placed: Placed) {
        let policy = self.policy();
        let others = self.last_reads(ticket.object);
        let joined = others
            .iter()
            .find(|(_, start, len)| off >= *start && off - start < *len);
        if policy != JoinPolicy::Never {
            let behind = others.iter().filter(|(_, start, _)| *start > off);
            len = behind.map(|(_, start, _)| start - off).fold(len, u64::min);
        }
        if let Some((other, ..)) = joined.copied().filter(|_| policy == JoinPolicy::Join) {
            assert_eq!(placed, Placed::Joined);
            assert!(self.new_requests().is_empty());
            let Some(Request {
                kind: Kind::Read { others, .. },
                ..
            }) = self.requests.get_mut(&other)
            else {
                panic!("joined what is no READ");
            };
            return others.push((read, ticket));
        }
        let expected = match self.watched {
            true => Placed::Alone,
            false => Placed::Unwatched,
        };
        assert_eq!(placed, expected);
        self.watched = true;
        let state = self.objects[&ticket.object].state;
        let new = self.new_requests();
        // The READ is made first, and ids do not wrap here.
        let kind = Kind::Read {
            off,
            len,
            read,
            since: self.now,
            ticket,
            others: Vec::new(),
        };
        self.add(new[0], Some(ticket.object), kind);
        self.enqueue(new[0], false);
        assert_eq!(new.len(), if state == State::Closed { 2 } else { 1 });
        if state == State::Closed {
            self.reopen(ticket.object, new[1]);
        }
    }

    /// The message to be delivered next.
    fn head(&self) -> Option<u32> {
        let control = self.control.front().copied();
        let read = self
            .ring
            .front()
            .map(|object| self.objects[object].queued[0]);
        match (control, read) {
            (Some(_), Some(read)) if self.reads_turn => Some(read),
            (control, read) => control.or(read),
        }
    }

    /// Returns the message, if there was one, and whether it is an OPEN.
    fn deliver(&mut self, room: usize) -> Option<(u32, bool)> {
        let head = self.head().filter(|_| !self.dead);
        let delivery = self.table.deliver(room);
        let Some(head) = head else {
            assert!(matches!(delivery, Delivery::Empty));
            return None;
        };
        let request = &self.requests[&head];
        let object = request.object.map(|object| &self.objects[&object]);
        let size = match request.kind {
            Kind::Open { .. } => object.unwrap().open_size,
            Kind::Read { .. } => 32,
            Kind::Close { .. } => 16,
        };
        if size > room {
            assert!(matches!(delivery, Delivery::TooSmall));
            return None;
        }
        let is_open = match (delivery, &request.kind) {
            (
                Delivery::Open {
                    msg_id,
                    object: found,
                },
                Kind::Open { .. },
            ) => {
                assert_eq!(msg_id, head);
                assert!(Rc::ptr_eq(&found, &object.unwrap().payload));
                true
            }
            (Delivery::Message { msg_id, msg }, kind) => {
                assert_eq!(msg_id, head);
                let bytes = msg.as_bytes();
                assert_eq!(bytes.len(), size);
                let numbers: Vec<u32> = bytes
                    .chunks(4)
                    .map(|four| u32::from_ne_bytes(four.try_into().unwrap()))
                    .collect();
                let (opcode, object_id) = match kind {
                    Kind::Open { .. } => panic!("an OPEN without file descriptor"),
                    Kind::Close { fd } => (1, *fd),
                    Kind::Read { off, len, .. } => {
                        let object = object.expect("a READ without object");
                        assert_eq!(object.state, State::Open, "a READ of an object not open");
                        assert_eq!(bytes[16..24], off.to_ne_bytes());
                        assert_eq!(bytes[24..32], len.to_ne_bytes());
                        (2, object.fd.unwrap())
                    }
                };
                assert_eq!(numbers[..4], [head, opcode, size as u32, object_id]);
                assert!(object_id != 0 && object_id <= i32::MAX as u32);
                assert!(self.handles.contains_key(&object_id), "of a closed fd");
                if opcode == 1 {
                    assert!(self.handles[&object_id].installed, "of an fd nobody has");
                }
                false
            }
            _ => panic!("not what is at the head of the queue"),
        };
        let phase = if is_open { Phase::Claimed } else { Phase::Sent };
        let object = self.queue_of(head);
        self.set_phase(head, phase);
        if let Some(object) = object {
            if self.ring.front() == Some(&object) {
                self.ring.rotate_left(1);
            }
        }
        self.reads_turn = object.is_none();
        self.in_hand.push(head);
        Some((head, is_open))
    }

    fn serve(&mut self) {
        match self.deliver(1024) {
            None => {}
            Some((id, true)) => {
                self.issue(id);
                self.installed(self.last_object_id);
            }
            Some((id, false)) => self.delivered(id),
        }
    }

    fn installed(&mut self, fd: u32) {
        self.table.installed(fd);
        let handle = self.handles.get_mut(&fd).unwrap();
        handle.installed = true;
        let object = handle.object;
        if handle.close == Close::Later {
            let close = self.new_request();
            return self.queue_close(fd, close);
        }
        // Now it can be answered: before, no daemon had seen it.
        let open = object.and_then(|object| self.objects.get(&object)?.open);
        if let Some(Request {
            kind: Kind::Open { fd_installed, .. },
            ..
        }) = open.and_then(|open| self.requests.get_mut(&open))
        {
            *fd_installed = true;
        }
    }

    fn queue_close(&mut self, fd: u32, close: u32) {
        self.handles.get_mut(&fd).unwrap().close = Close::Queued(close);
        self.add(close, None, Kind::Close { fd });
        self.enqueue(close, false);
    }

    fn issue(&mut self, id: u32) {
        let claimed = self
            .requests
            .get(&id)
            .is_some_and(|req| req.phase == Phase::Claimed);
        let old = self.requests.get(&id).and_then(|req| req.object);
        let old = old.and_then(|object| self.objects.get(&object)?.fd);
        let old = old.filter(|_| claimed && !self.dead);
        for attempt in 0.. {
            let fits = self.table.handles().room() > 0
                && (old.is_none() || self.table.requests().room() > 0);
            match self.table.issue(id) {
                Ok(object_id) => {
                    assert!(claimed && fits);
                    assert!(object_id > self.last_object_id, "an object id came back");
                    self.last_object_id = object_id;
                    let request = self.requests.get_mut(&id).unwrap();
                    let Kind::Open { .. } = &request.kind else {
                        panic!("a file descriptor for {request:?}");
                    };
                    let object = request.object.unwrap();
                    self.set_phase(id, Phase::Sent);
                    self.objects.get_mut(&object).unwrap().fd = Some(object_id);
                    let handle = Handle {
                        object: Some(object),
                        close: Close::No,
                        installed: false,
                    };
                    self.handles.insert(object_id, handle);
                    if let Some(old) = old {
                        self.close_handle(old);
                    }
                    break;
                }
                Err(Refused::Gone) => {
                    assert!(!claimed);
                    break;
                }
                Err(Refused::OverLimit) => panic!("no READ"),
                Err(Refused::Full) => {
                    assert!(claimed && !fits && attempt == 0);
                    self.make_room();
                }
            }
        }
        self.in_hand.retain(|other| *other != id || !claimed);
    }

    fn put_back(&mut self, id: u32, next: bool) {
        self.table.put_back(id, next);
        self.in_hand.retain(|other| *other != id);
        let phase = self.requests.get(&id).map(|req| req.phase);
        if !matches!(phase, Some(Phase::Claimed | Phase::Sent)) {
            return;
        }
        self.set_phase(id, Phase::New);
        self.enqueue(id, next);
        if next {
            let object = self.queue_of(id);
            if let Some(at) = self.ring.iter().position(|other| Some(*other) == object) {
                self.ring.remove(at);
                self.ring.extend(object);
                self.ring.rotate_right(1);
            }
            self.reads_turn = object.is_some();
        }
    }

    fn delivered(&mut self, id: u32) {
        // An OPEN is not delivered before it was issued.
        if self
            .requests
            .get(&id)
            .is_some_and(|req| req.phase == Phase::Claimed)
        {
            return;
        }
        self.table.delivered(id);
        self.in_hand.retain(|other| *other != id);
        if let Some(Request {
            kind: Kind::Close { fd },
            phase: Phase::Sent,
            ..
        }) = self.requests.get(&id)
        {
            self.handles.get_mut(fd).unwrap().close = Close::No;
            self.remove(id);
        }
    }

    fn copen(&mut self, id: u32, answer: Answer) {
        let object = self.requests.get(&id).and_then(|req| req.object);
        let object = object.and_then(|object| self.objects.get(&object));
        let (max, size, old) = object.map_or((0, None, None), |object| {
            (object.max, object.size, object.version)
        });
        let reply: Result<Reply> = match answer {
            Answer::Size(size) => Ok(Reply::Size(size * 4096)),
            Answer::SameSize | Answer::OtherVersion => {
                Ok(Reply::Size(size.unwrap_or(max.min(8192))))
            }
            Answer::TooLarge => Ok(Reply::Size(max + 1)),
            Answer::Failed => Ok(Reply::Failed(Errno(2))),
            Answer::Garbage => Err(Errno::ERANGE),
        };
        // Every other object is of a daemon that knows no versions.
        let version = match answer {
            Answer::OtherVersion => Some(old.unwrap_or_default() + 1),
            _ if size.is_some() => old,
            _ => (id % 2 == 0).then_some(id),
        };
        let (told, answer) = self.table.copen(id, reply, version);
        match self.requests.get(&id) {
            Some(Request {
                kind: Kind::Open {
                    fd_installed: true, ..
                },
                phase,
                ..
            }) if *phase != Phase::Failed => {}
            _ => {
                assert!(told.is_none());
                return assert_eq!(answer, Err(Errno::EINVAL));
            }
        }
        let Request {
            object: Some(number),
            kind: Kind::Open { waiter, .. },
            ..
        } = self.remove(id)
        else {
            panic!("an OPEN of nothing");
        };
        let object = self.objects.get_mut(&number).unwrap();
        assert!(matches!(object.state, State::Opening | State::Reopening));
        object.open = None;
        let (outcome, expected) = match reply {
            Err(errno) => (Err(errno), Err(errno)),
            Ok(Reply::Failed(errno)) => (Err(errno), Ok(())),
            Ok(Reply::Size(_)) if object.fd.is_none() => (Err(Errno::EBADFD), Ok(())),
            Ok(Reply::Size(new)) => {
                let differs = |size| (size, old) != (new, version);
                if new > max || size.is_some_and(differs) {
                    (Err(Errno::EINVAL), Err(Errno::EINVAL))
                } else {
                    object.size = Some(new);
                    object.version = version;
                    (Ok(new), Ok(()))
                }
            }
        };
        assert_eq!(answer, expected);
        match (told, waiter) {
            (Some((payload, told)), Some(waiter)) => {
                assert_eq!((payload.number, told), (waiter, outcome));
            }
            (None, None) => {}
            _ => panic!("told the wrong one"),
        }
        match outcome {
            Ok(_) => {
                object.state = State::Open;
                assert!(object.delivered.is_empty());
                self.wake |= !object.queued.is_empty();
                self.settle();
            }
            Err(_) => {
                object.state = State::Closed;
                self.fail_reads(number);
            }
        }
    }

    fn cancel_open(&mut self, id: u32) {
        let waiter = self.table.cancel_open(id);
        match self.requests.get(&id) {
            Some(Request {
                kind:
                    Kind::Open {
                        waiter: Some(number),
                        ..
                    },
                object: Some(object),
                phase,
                ..
            }) if *phase != Phase::Failed => {
                assert_eq!(waiter.unwrap().number, *number);
                self.objects.get_mut(object).unwrap().open = None;
                self.remove(id);
            }
            _ => assert!(waiter.is_none()),
        }
    }

    fn complete(&mut self, id: u32, fd: u32) {
        let result = self.table.read_complete(id, fd);
        let object = self.handles.get(&fd).and_then(|handle| handle.object);
        match self.requests.get(&id) {
            Some(Request {
                kind: Kind::Read { .. },
                object: Some(of),
                phase,
                ..
            }) if *phase != Phase::Failed && object == Some(*of) => {
                self.take_read(id, &result.ok().unwrap());
            }
            _ => assert_eq!(result.err(), Some(Errno::EINVAL)),
        }
    }

    /// Returns whether a READ was over the limit.
    fn expire(&mut self, timeout: u64) -> bool {
        let found = self.table.pop_overdue(self.now, timeout);
        // The numbers of payloads say who came first.
        let reads = self.requests.iter().filter_map(|(id, req)| match req.kind {
            Kind::Read { read, since, .. } if req.phase != Phase::Failed => {
                Some((read, since, *id))
            }
            _ => None,
        });
        let oldest = reads
            .min()
            .filter(|(_, since, _)| self.now - since > timeout);
        let Some((_, _, id)) = oldest else {
            assert!(found.is_none(), "not over the limit");
            return false;
        };
        self.take_read(id, &found.expect("one is over the limit"));
        true
    }

    fn release(&mut self, fd: u32) {
        self.table.fd_released(fd);
        self.released.push(fd);
        let handle = self.handles.remove(&fd).unwrap();
        if let Close::Queued(close) = handle.close {
            self.remove(close);
        }
        let Some(number) = handle.object else {
            return;
        };
        let Some(object) = self.objects.get_mut(&number) else {
            return;
        };
        if object.fd != Some(fd) {
            return;
        }
        object.fd = None;
        if object.state != State::Open {
            return;
        }
        if object.reads().is_empty() {
            object.state = State::Closed;
        } else {
            let open = self.new_request();
            self.reopen(number, open);
        }
    }

    fn unregister(&mut self, key: ObjectKey) {
        let number = self.number_of(key);
        let payload = self.table.unregister(key);
        let Some(number) = number else {
            return assert!(payload.is_none());
        };
        self.fail_reads(number);
        let object = self.objects.remove(&number).unwrap();
        assert!(Rc::ptr_eq(&payload.unwrap(), &object.payload));
        self.gone.push(key);
        if let Some(open) = object.open {
            match self.requests[&open].kind {
                Kind::Open {
                    waiter: Some(_), ..
                } => {
                    self.set_phase(open, Phase::Failed);
                    self.requests.get_mut(&open).unwrap().object = None;
                }
                _ => drop(self.remove(open)),
            }
        }
        if let (Some(fd), false) = (object.fd, self.dead) {
            self.close_handle(fd);
        }
    }

    /// The daemon is to close a file descriptor, as soon as it has it.
    fn close_handle(&mut self, fd: u32) {
        let handle = self.handles.get_mut(&fd).unwrap();
        assert_eq!(handle.close, Close::No, "a second CLOSE");
        handle.object = None;
        if handle.installed {
            let close = self.new_request();
            self.queue_close(fd, close);
        } else {
            handle.close = Close::Later;
        }
    }

    fn restore(&mut self) {
        let mut at = self.table.begin_restore();
        let count: usize = std::iter::from_fn(|| self.table.restore_some(&mut at)).sum();
        self.wake = true;
        // From the last object to the first, as they are in the table.
        let objects: Vec<u32> = (0..self.objects.len())
            .map(|at| *self.table.object_at(at).unwrap())
            .collect();
        let mut expected = 0;
        for number in objects.into_iter().rev() {
            let open = self.objects[&number].open;
            let open = open.filter(|open| self.requests[open].phase == Phase::Sent);
            if let Some(open) = open {
                self.enqueue(open, true);
                self.reads_turn = false;
            }
            expected += usize::from(open.is_some()) + self.take_back(number);
        }
        assert_eq!(count, expected);
    }

    /// Everything that is in the table now is to fail.
    fn kill(&mut self) {
        self.table.kill();
        (self.dead, self.wake) = (true, true);
    }

    /// Returns whether there was something to be told, be it to nobody.
    fn pop_failed(&mut self) -> bool {
        let (mut asleep, mut nobody) = (None, false);
        let told = match self.table.pop_failed() {
            None => None,
            Some(Failed::Nobody) => {
                nobody = true;
                None
            }
            Some(Failed::Waiter(waiter)) => Some((true, waiter)),
            Some(Failed::Read(read)) => Some((false, read)),
            Some(Failed::Waker(waker)) => {
                asleep = Some(*waker);
                None
            }
        };
        if self.dead {
            // What nobody waits for goes unnoticed.
            let left = ids(self.table.requests());
            let gone = self.requests.iter().filter(|(id, _)| !left.contains(id));
            for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
                if owner(&self.requests[&id]).is_none() {
                    self.forget(id, None);
                }
            }
        }
        if let Some(waker) = asleep {
            self.cancelled(waker);
        }
        if nobody || asleep.is_some() {
            return true;
        }
        let dead = self.dead;
        let owed = |req: &Request| owner(req).is_some() && (dead || req.phase == Phase::Failed);
        let mut owed = self.requests.iter().filter(|(_, req)| owed(req));
        match told {
            None => {
                assert!(owed.next().is_none(), "not told");
                let is_cancelled = |waiting: &Waiting| dead || waiting.is_cancelled;
                assert!(
                    !self.waiting.values().any(is_cancelled),
                    "not told of the cancellation"
                );
            }
            Some((is_lookup, payload)) => {
                let (id, _) = owed
                    .find(|(_, req)| owner(req) == Some((is_lookup, payload.number)))
                    .expect("told somebody who was owed nothing");
                let id = *id;
                self.forget(id, Some(&payload));
                return true;
            }
        }
        false
    }

    /// A reader that waits was told that its wait was cancelled.
    fn cancelled(&mut self, waker: u32) {
        let mut found = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.waker == waker);
        let (id, waiting) = found.next().expect("told somebody who does not wait");
        let id = *id;
        assert!(self.dead || waiting.is_cancelled);
        if waiting.is_cancelled {
            self.line.retain(|other| *other != id);
            let waiting = self.waiting.get_mut(&id).unwrap();
            (waiting.in_line, waiting.is_cancelled) = (false, false);
        }
        if self.dead {
            self.forget_waiting(id);
        }
    }

    /// Removes a request that has failed; `told` is what its owner was told with.
    fn forget(&mut self, id: u32, told: Option<&Payload>) {
        let is_read = matches!(self.requests[&id].kind, Kind::Read { .. });
        let request = match told.filter(|_| is_read) {
            Some(told) => self.take_read(id, told),
            None => self.remove(id),
        };
        if let Kind::Close { fd } = request.kind {
            self.handles.get_mut(&fd).unwrap().close = Close::No;
        }
        if let Some(object) = request.object.and_then(|at| self.objects.get_mut(&at)) {
            object.open = object.open.filter(|open| *open != id);
        }
    }

    /// Compares the two.
    fn compare(&mut self) {
        let found = ids(self.table.requests());
        assert!(found.iter().eq(self.requests.keys()), "requests");
        assert!(
            ids(self.table.handles()).iter().eq(self.handles.keys()),
            "handles"
        );

        let objects: BTreeSet<u32> = (0..self.table.objects().len())
            .map(|at| *self.table.object_at(at).unwrap())
            .collect();
        assert!(objects.iter().eq(self.objects.keys()), "objects");
        assert!(
            ids(self.table.waiting()).iter().eq(self.waiting.keys()),
            "waiting"
        );
        let mut reading = BTreeSet::new();
        let mut from = usize::MAX;
        while let Some((found, next)) = self.table.next_reading(from) {
            if let Some((key, object)) = found {
                assert_eq!(self.number_of(key), Some(*object));
                assert!(reading.insert(*object));
            }
            assert!(next < from);
            from = next;
        }
        let expected = self
            .objects
            .iter()
            .filter(|(_, object)| !object.reads().is_empty());
        assert!(
            reading.iter().eq(expected.map(|(number, _)| number)),
            "reading"
        );

        // Each object has room for another OPEN and for a CLOSE, unless that OPEN is under way; so
        // has a file descriptor for a later CLOSE.
        let reopened = |object: &Object| {
            let open = object.open.map(|open| &self.requests[&open]);
            open.is_some_and(|open| owner(open).is_none())
        };
        let objects = self.objects.values().filter(|object| !reopened(object));
        let later = self
            .handles
            .values()
            .filter(|handle| handle.close == Close::Later);
        // And so has a reader whose READ was answered, or has joined another.
        let reserved = objects.count() + later.count() + self.idle.len() + self.joined();
        let slots = self.table.requests();
        let all = slots.room() + self.requests.len() + reserved;
        assert_eq!(all % Host::CHUNK, 0, "reservations");
        let users: Vec<u32> = (0..4)
            .map(|at| {
                let like = Ticket {
                    object: 0,
                    key: ObjectKey::NONE,
                    user: user(at),
                };
                self.taken(Stage::User, &like)
            })
            .collect();
        let quotas = users[1..].iter().filter(|taken| **taken > 0).count();
        assert_eq!(self.table.users().len(), quotas, "quotas");

        let inside = self.requests.values().filter(|req| match req.kind {
            Kind::Open { waiter, .. } => waiter.is_some(),
            Kind::Read { .. } => true,
            Kind::Close { .. } => false,
        });
        let inside = inside.count() + self.joined();
        assert_eq!(Rc::strong_count(&self.live) - 1, inside, "payloads");

        let wake = std::mem::take(&mut self.wake);
        assert_eq!(self.table.take_wake(), wake, "wake");
        assert!(!self.table.take_wake());
        let ready = self.head().is_some() && !self.dead;
        assert_eq!(self.table.is_ready(), ready, "ready");
        assert_eq!(self.table.is_dead(), self.dead);
    }

    /// Everything is given up, in one way or the other: nothing must be left.
    fn finish(mut self, kill: bool) {
        if kill {
            self.kill();
            self.compare();
            while self.pop_failed() {
                self.compare();
            }
            assert_eq!(Rc::strong_count(&self.live), 1, "not everybody was told");
        }
        for key in self
            .objects
            .values()
            .map(|object| object.key)
            .collect::<Vec<_>>()
        {
            self.unregister(key);
            self.compare();
        }
        // What is queued, in its order.
        while let Some((id, is_open)) = self.deliver(1024) {
            assert!(!is_open, "an OPEN of nothing");
            self.delivered(id);
            self.compare();
        }
        for fd in self.handles.keys().copied().collect::<Vec<_>>() {
            self.release(fd);
            self.compare();
        }
        while self.pop_failed() {}
        self.compare();
        assert!(self.requests.is_empty() && self.handles.is_empty());
        assert_eq!(Rc::strong_count(&self.live), 1);
        while !self.waiting.is_empty() {
            let id = *self.waiting.keys().next().unwrap();
            self.remove_waiting(id);
            self.compare();
        }
        while !self.idle.is_empty() {
            self.leave(0);
            self.compare();
        }
        assert!(self.line.is_empty());
        while self.table.trim().is_some() {}
        // What a chunk has room for, or none if there was never any.
        let table = &mut self.table;
        let left = [
            (table.requests().len(), table.requests().room()),
            (table.objects().len(), table.objects().room()),
            (table.handles().len(), table.handles().room()),
            (table.waiting().len(), table.waiting().room()),
        ];
        for (len, room) in left {
            assert_eq!(len, 0);
            assert!(
                [0, Host::CHUNK].contains(&room),
                "reservations are left, or memory"
            );
        }
        assert_eq!(table.users().len(), 0);
    }
}

/// Who is to be told of a request's failure: whether it is a lookup, and its number.
fn owner(request: &Request) -> Option<(bool, u32)> {
    match request.kind {
        Kind::Open { waiter, .. } => waiter.map(|waiter| (true, waiter)),
        Kind::Read { read, .. } => Some((false, read)),
        Kind::Close { .. } => None,
    }
}

fn answers() -> BoxedStrategy<Answer> {
    prop_oneof![
        10 => Just(Answer::SameSize),
        1 => Just(Answer::OtherVersion),
        2 => (0u64..4).prop_map(Answer::Size),
        1 => Just(Answer::TooLarge),
        2 => Just(Answer::Failed),
        1 => Just(Answer::Garbage),
    ]
    .boxed()
}

/// Operations; `churn` is how often something is released or withdrawn.
fn ops(churn: u32, len: usize) -> BoxedStrategy<Vec<Op>> {
    let at = any::<usize>;
    let open_size = prop_oneof![Just(34usize), 33usize..=543];
    let max = prop_oneof![Just(0u64), Just(8192), Just(i64::MAX as u64)];
    let answer = (at(), answers());
    let any_answer = (at(), answers());
    let op = prop_oneof![
        6 => (open_size, max).prop_map(|(open_size, max)| Op::Register { open_size, max }),
        16 => (at(), any::<u64>(), any::<u64>(), at())
            .prop_map(|(object, off, len, user)| Op::Read { object, off, len, user }),
        1 => (at(), at()).prop_map(|(object, user)| Op::FillUp { object, user }),
        5 => (at(), at()).prop_map(|(object, user)| Op::AddWaiting { object, user }),
        3 => at().prop_map(Op::Look),
        1 => at().prop_map(Op::RemoveWaiting),
        4 => (at(), any::<u64>(), any::<u64>())
            .prop_map(|(reader, off, len)| Op::Again { reader, off, len }),
        6 => at().prop_map(Op::Leave),
        1 => (0usize..100).prop_map(Op::Churn),
        4 => select(vec![0, 15, 16, 31, 32, 33, 40, 543, 1024])
            .prop_map(|room| Op::Deliver { room }),
        20 => Just(Op::Serve),
        3 => at().prop_map(Op::Issue),
        4 => at().prop_map(Op::Installed),
        3 => (at(), any::<bool>()).prop_map(|(msg, next)| Op::PutBack { msg, next }),
        3 => at().prop_map(Op::Delivered),
        10 => answer.prop_map(|(open, reply)| Op::Answer { open, reply }),
        1 => any_answer.prop_map(|(msg, reply)| Op::Copen { msg, reply }),
        1 => at().prop_map(Op::CancelOpen),
        4 => (at(), at()).prop_map(|(read, handle)| Op::Complete { read, handle }),
        8 => at().prop_map(Op::Fill),
        churn => at().prop_map(Op::Release),
        1 => any::<u32>().prop_map(Op::ReleaseUnknown),
        1 => at().prop_map(Op::CancelReads),
        3 => (0u64..3000).prop_map(Op::Tick),
        2 => (0u64..8000, 1usize..20)
            .prop_map(|(timeout, most)| Op::Expire { timeout, most }),
        churn => at().prop_map(Op::Unregister),
        1 => Just(Op::Restore),
        4 => Just(Op::PopFailed),
        1 => Just(Op::KeepWatching),
        1 => (0usize..3, 0usize..100).prop_map(|(which, extra)| Op::Grow { which, extra }),
        2 => (0usize..10).prop_map(Op::Trim),
    ];
    vec(op, 0..len).boxed()
}

/// So few that there is a line for everything.
fn bounds() -> BoxedStrategy<Bounds> {
    let few = || 1u32..8;
    (few(), few(), few())
        .prop_map(|(object, user, whole)| Bounds {
            object,
            user,
            table: whole + 3,
        })
        .boxed()
}

const MANY: Bounds = Bounds {
    object: 1 << 20,
    user: 1 << 20,
    table: 1 << 20,
};

fn run(bounds: Bounds, joins: bool, ops: Vec<Op>, kill: bool) {
    let mut run = Run::new(bounds, joins);
    for op in ops {
        run.run(op);
        run.compare();
    }
    run.finish(kill);
}

#[test]
fn any_use_of_the_table_is_that_of_the_model() {
    check(1200, (ops(3, 120), any::<bool>()), |(ops, kill)| {
        run(MANY, false, ops, kill)
    });
}

#[test]
fn any_use_of_a_table_with_bounds_is_that_of_the_model() {
    check(
        1200,
        (bounds(), ops(2, 150), any::<bool>()),
        |(bounds, ops, kill)| run(bounds, false, ops, kill),
    );
}

#[test]
fn any_use_of_a_table_whose_reads_join_is_that_of_the_model() {
    check(
        1200,
        (bounds(), ops(2, 150), any::<bool>()),
        |(bounds, ops, kill)| run(bounds, true, ops, kill),
    );
}

#[test]
fn a_table_that_fills_up_is_that_of_the_model() {
    // Little is given up, so that the table is full again and again.
    check(150, (ops(1, 600), any::<bool>()), |(ops, kill)| {
        run(MANY, false, ops, kill)
    });
}

#[test]
fn death_at_any_moment_leaves_nothing_behind() {
    let cases = (bounds(), any::<bool>(), ops(3, 80), ops(6, 40));
    check(1000, cases, |(bounds, joins, before, after)| {
        let mut table = Run::new(bounds, joins);
        for op in before.into_iter().chain([Op::Kill]).chain(after) {
            table.run(op);
            table.compare();
        }
        // A second time does no harm.
        table.finish(true);
    });
}
