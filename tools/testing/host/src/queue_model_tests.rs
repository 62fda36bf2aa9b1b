// SPDX-License-Identifier: GPL-2.0

//! The request table against a model that keeps the same things in maps and vectors.
//!
//! After each operation the two have to agree on everything that can be seen of the table: the ids
//! in use, the room that is left (so no reservation leaks), whether there is something to deliver,
//! whether pollers are woken, and which payloads are still inside (so none is lost).

use crate::{
    daemon::command::Reply,
    errno::{Errno, Result},
    ondemand::{
        queue::{Delivery, Failed, Family, ObjectKey, Refused, Table},
        slots::Slots,
    },
    support::{check, empty, make_room, Host},
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
    _live: Rc<()>,
}

impl Family for Host {
    type Object = Rc<u32>;
    type Waiter = Payload;
    type Read = Payload;
    type Version = u32;
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
    reads: Vec<u32>,
    open_size: usize,
}

#[derive(Clone, Debug)]
enum Kind {
    Open {
        waiter: Option<u32>,
        issued: bool,
    },
    Read {
        off: u64,
        len: u64,
        read: u32,
        since: u64,
    },
    Close {
        fd: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Parked,
    Queued,
    Claimed,
    Sent,
    Doomed,
}

#[derive(Debug)]
struct Request {
    /// The number of its object; those of the table are never used again.
    object: Option<u32>,
    kind: Kind,
    phase: Phase,
    /// When it was delivered.
    sent: u64,
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
    },
    /// READs until the table is full.
    FillUp(usize),
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
    PopDoomed,
    KeepWatching,
    Grow {
        which: usize,
        log: u32,
    },
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
    queue: VecDeque<u32>,
    /// Messages in the hands of a `read()` that has not come to an end.
    in_hand: Vec<u32>,
    gone: Vec<ObjectKey>,
    released: Vec<u32>,
    count: u32,
    /// The order of what happened.
    clock: u64,
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
    (0..slots.slots())
        .filter_map(|at| slots.id_at(at))
        .collect()
}

/// How many more values a map takes.
fn room<T>(slots: &Slots<T, Host>) -> usize {
    let (mut fits, mut full) = (0, slots.slots() + 1);
    while fits + 1 < full {
        let middle = (fits + full) / 2;
        if slots.wants(middle).is_none() {
            fits = middle;
        } else {
            full = middle;
        }
    }
    fits
}

impl Run {
    fn new() -> Self {
        Run {
            table: Table::new(),
            live: Rc::new(()),
            objects: BTreeMap::new(),
            requests: BTreeMap::new(),
            handles: BTreeMap::new(),
            queue: VecDeque::new(),
            in_hand: Vec::new(),
            gone: Vec::new(),
            released: Vec::new(),
            count: 0,
            clock: 0,
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
            phase: Phase::Parked,
            sent: 0,
        };
        assert!(self.requests.insert(id, request).is_none());
    }

    fn enqueue(&mut self, id: u32) {
        self.requests.get_mut(&id).unwrap().phase = Phase::Queued;
        self.queue.push_back(id);
        self.wake = true;
    }

    fn set_phase(&mut self, id: u32, phase: Phase) {
        self.queue.retain(|queued| *queued != id);
        self.clock += 1;
        let request = self.requests.get_mut(&id).unwrap();
        (request.phase, request.sent) = (phase, self.clock);
    }

    fn remove(&mut self, id: u32) -> Request {
        self.queue.retain(|queued| *queued != id);
        self.requests.remove(&id).unwrap()
    }

    fn doom_reads(&mut self, object: u32) {
        let reads = std::mem::take(&mut self.objects.get_mut(&object).unwrap().reads);
        for id in reads {
            self.set_phase(id, Phase::Doomed);
        }
    }

    /// Queues an OPEN that no lookup waits for.
    fn reopen(&mut self, object: u32, open: u32) {
        let entry = self.objects.get_mut(&object).unwrap();
        entry.state = State::Reopening;
        entry.open = Some(open);
        for id in entry.reads.clone() {
            self.set_phase(id, Phase::Parked);
        }
        let kind = Kind::Open {
            waiter: None,
            issued: false,
        };
        self.add(open, Some(object), kind);
        self.enqueue(open);
    }

    fn make_room(&mut self) {
        make_room(1, self.table.objects());
        make_room(2, self.table.requests());
        make_room(1, self.table.handles());
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
            Op::Read { object, off, len } => {
                if !self.read(object, off, len) {
                    self.make_room();
                    assert!(self.read(object, off, len));
                }
            }
            Op::FillUp(object) => {
                let found = self.key(object).and_then(|key| self.number_of(key));
                // A table that was filled up a few times is too large to be compared.
                if self.dead || found.is_none() || room(self.table.requests()) > 64 {
                    return;
                }
                while self.read(object, 0, 1) {}
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
                let wanted = |req: &Request| matches!(req.kind, Kind::Open { issued: true, .. });
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
                    self.table.released(id);
                }
            }
            Op::CancelReads(at) => {
                if let Some(key) = self.key(at) {
                    self.table.cancel_reads(key);
                    if let Some(object) = self.number_of(key) {
                        self.doom_reads(object);
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
            Op::PopDoomed => drop(self.pop_doomed()),
            Op::KeepWatching => {
                let reads = self.objects.values().any(|object| !object.reads.is_empty());
                assert_eq!(self.table.keep_watching(), reads);
                self.watched = reads;
            }
            Op::Grow { which, log } => {
                fn grow<T>(slots: &mut Slots<T, Host>, log: u32) {
                    slots.grow(empty(1 << log));
                }
                match which {
                    0 => grow(self.table.requests(), log),
                    1 => grow(self.table.objects(), log),
                    _ => grow(self.table.handles(), log),
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
            let fits = room(self.table.requests()) > 1 && room(self.table.objects()) > 0;
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
                        reads: Vec::new(),
                        open_size,
                    };
                    self.objects.insert(number, object);
                    let kind = Kind::Open {
                        waiter: Some(number),
                        issued: false,
                    };
                    self.add(open, Some(number), kind);
                    return self.enqueue(open);
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

    /// Returns whether it was taken, or refused for good.
    fn read(&mut self, at: usize, off: u64, len: u64) -> bool {
        let Some(key) = self.key(at) else {
            return true;
        };
        let object = self.number_of(key);
        let payload = self.payload();
        let read = payload.number;
        let fits = room(self.table.requests()) > 0;
        match self.table.read(key, off, len, payload, self.now) {
            Ok(watch) => {
                assert!(fits && !self.dead);
                assert_eq!(watch, !self.watched);
                self.watched = true;
                let object = object.expect("a READ of nothing was taken");
                let state = self.objects[&object].state;
                let new = self.new_requests();
                // The READ is made first, and ids do not wrap here.
                let since = self.now;
                let kind = Kind::Read {
                    off,
                    len,
                    read,
                    since,
                };
                self.add(new[0], Some(object), kind);
                self.objects.get_mut(&object).unwrap().reads.push(new[0]);
                assert_eq!(new.len(), if state == State::Closed { 2 } else { 1 });
                match state {
                    State::Open => self.enqueue(new[0]),
                    State::Closed => self.reopen(object, new[1]),
                    State::Opening | State::Reopening => {}
                }
                true
            }
            Err((refused, back)) => {
                assert_eq!(back.number, read);
                if self.dead || object.is_none() {
                    assert_eq!(refused, Refused::Gone);
                    return true;
                }
                assert_eq!(refused, Refused::Full);
                assert!(!fits);
                false
            }
        }
    }

    /// Returns the message, if there was one, and whether it is an OPEN.
    fn deliver(&mut self, room: usize) -> Option<(u32, bool)> {
        let head = self.queue.front().copied().filter(|_| !self.dead);
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
        self.set_phase(head, phase);
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
            kind: Kind::Open { issued, .. },
            ..
        }) = open.and_then(|open| self.requests.get_mut(&open))
        {
            *issued = true;
        }
    }

    fn queue_close(&mut self, fd: u32, close: u32) {
        self.handles.get_mut(&fd).unwrap().close = Close::Queued(close);
        self.add(close, None, Kind::Close { fd });
        self.enqueue(close);
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
            let fits = room(self.table.handles()) > 0
                && (old.is_none() || room(self.table.requests()) > 0);
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
        if let Some(request) = self.requests.get_mut(&id) {
            if matches!(request.phase, Phase::Claimed | Phase::Sent) {
                request.phase = Phase::Queued;
                if next {
                    self.queue.push_front(id);
                } else {
                    self.queue.push_back(id);
                }
                self.wake = true;
            }
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
                kind: Kind::Open { issued: true, .. },
                phase,
                ..
            }) if *phase != Phase::Doomed => {}
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
                for read in object.reads.clone() {
                    assert_eq!(self.requests[&read].phase, Phase::Parked);
                    self.enqueue(read);
                }
            }
            Err(_) => {
                object.state = State::Closed;
                self.doom_reads(number);
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
            }) if *phase != Phase::Doomed => {
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
                kind: Kind::Read { read, .. },
                object: Some(of),
                phase,
                ..
            }) if *phase != Phase::Doomed && object == Some(*of) => {
                assert_eq!(result.ok().unwrap().number, *read);
                let object = self.objects.get_mut(of).unwrap();
                object.reads.retain(|other| *other != id);
                self.remove(id);
            }
            _ => assert_eq!(result.err(), Some(Errno::EINVAL)),
        }
    }

    /// Returns whether a READ was over the limit.
    fn expire(&mut self, timeout: u64) -> bool {
        let found = self.table.pop_overdue(self.now, timeout);
        // The numbers of payloads say who came first.
        let reads = self.requests.iter().filter_map(|(id, req)| match req.kind {
            Kind::Read { read, since, .. } if req.phase != Phase::Doomed => {
                Some((read, since, *id))
            }
            _ => None,
        });
        let oldest = reads
            .min()
            .filter(|(_, since, _)| self.now - since > timeout);
        let Some((read, _, id)) = oldest else {
            assert!(found.is_none(), "not over the limit");
            return false;
        };
        assert_eq!(found.expect("one is over the limit").number, read);
        let object = self.remove(id).object.unwrap();
        let reads = &mut self.objects.get_mut(&object).unwrap().reads;
        reads.retain(|other| *other != id);
        true
    }

    fn release(&mut self, fd: u32) {
        self.table.released(fd);
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
        if object.reads.is_empty() {
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
        self.doom_reads(number);
        let object = self.objects.remove(&number).unwrap();
        assert!(Rc::ptr_eq(&payload.unwrap(), &object.payload));
        self.gone.push(key);
        if let Some(open) = object.open {
            match self.requests[&open].kind {
                Kind::Open {
                    waiter: Some(_), ..
                } => {
                    self.set_phase(open, Phase::Doomed);
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
        self.table.restore();
        self.wake = true;
        let sent = self
            .requests
            .iter()
            .filter(|(_, req)| req.phase == Phase::Sent);
        let mut sent: Vec<_> = sent.map(|(id, req)| (req.sent, *id)).collect();
        sent.sort();
        for (_, id) in sent {
            self.enqueue(id);
        }
    }

    /// Everything that is in the table now is to fail.
    fn kill(&mut self) {
        self.table.kill();
        (self.dead, self.wake) = (true, true);
    }

    /// Returns whether somebody was told.
    fn pop_doomed(&mut self) -> bool {
        let told = match self.table.pop_doomed() {
            None => None,
            Some(Failed::Waiter(waiter)) => Some((true, waiter.number)),
            Some(Failed::Read(read)) => Some((false, read.number)),
        };
        if self.dead {
            // What nobody waits for goes unnoticed.
            let left = ids(self.table.requests());
            let gone = self.requests.iter().filter(|(id, _)| !left.contains(id));
            for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
                if owner(&self.requests[&id]).is_none() {
                    self.forget(id);
                }
            }
        }
        let dead = self.dead;
        let owed = |req: &Request| owner(req).is_some() && (dead || req.phase == Phase::Doomed);
        let mut owed = self.requests.iter().filter(|(_, req)| owed(req));
        match told {
            None => assert!(owed.next().is_none(), "not told"),
            Some(told) => {
                let (id, _) = owed
                    .find(|(_, req)| owner(req) == Some(told))
                    .expect("told somebody who was owed nothing");
                let id = *id;
                self.forget(id);
            }
        }
        told.is_some()
    }

    /// Removes a request that has failed.
    fn forget(&mut self, id: u32) {
        let request = self.remove(id);
        if let Kind::Close { fd } = request.kind {
            self.handles.get_mut(&fd).unwrap().close = Close::No;
        }
        if let Some(object) = request.object.and_then(|at| self.objects.get_mut(&at)) {
            object.open = object.open.filter(|open| *open != id);
            object.reads.retain(|read| *read != id);
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

        let mut objects = BTreeSet::new();
        let mut from = 0;
        while let Some((object, next)) = self.table.next_object(from) {
            assert!(objects.insert(*object) && next > from);
            from = next;
        }
        assert!(objects.iter().eq(self.objects.keys()), "objects");
        let mut reading = BTreeSet::new();
        let mut from = 0;
        while let Some((found, next)) = self.table.next_reading(from) {
            if let Some((key, object)) = found {
                assert_eq!(self.number_of(key), Some(*object));
                assert!(reading.insert(*object));
            }
            assert!(next > from);
            from = next;
        }
        let expected = self
            .objects
            .iter()
            .filter(|(_, object)| !object.reads.is_empty());
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
        let reserved = objects.count() + later.count();
        let slots = self.table.requests();
        let taken = slots.slots() / 2 - room(slots);
        assert_eq!(taken, self.requests.len() + reserved, "reservations");

        let inside = self.requests.values().filter(|req| match req.kind {
            Kind::Open { waiter, .. } => waiter.is_some(),
            Kind::Read { .. } => true,
            Kind::Close { .. } => false,
        });
        assert_eq!(Rc::strong_count(&self.live) - 1, inside.count(), "payloads");

        let wake = std::mem::take(&mut self.wake);
        assert_eq!(self.table.take_wake(), wake, "wake");
        assert!(!self.table.take_wake());
        let ready = !self.queue.is_empty() && !self.dead;
        assert_eq!(self.table.is_ready(), ready, "ready");
        assert_eq!(self.table.is_dead(), self.dead);
    }

    /// Everything is given up, in one way or the other: nothing must be left.
    fn finish(mut self, kill: bool) {
        if kill {
            self.kill();
            self.compare();
            while self.pop_doomed() {
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
        while self.pop_doomed() {}
        self.compare();
        assert!(self.requests.is_empty() && self.handles.is_empty());
        assert_eq!(Rc::strong_count(&self.live), 1);
        let slots = self.table.requests();
        assert_eq!(room(slots), slots.slots() / 2, "reservations are left");
        let objects = self.table.objects();
        assert_eq!(room(objects), objects.slots() / 2);
        let handles = self.table.handles();
        assert_eq!(room(handles), handles.slots() / 2);
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
        16 => (at(), any::<u64>(), any::<u64>())
            .prop_map(|(object, off, len)| Op::Read { object, off, len }),
        1 => at().prop_map(Op::FillUp),
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
        4 => Just(Op::PopDoomed),
        1 => Just(Op::KeepWatching),
        1 => (0usize..3, 0u32..10).prop_map(|(which, log)| Op::Grow { which, log }),
    ];
    vec(op, 0..len).boxed()
}

fn run(ops: Vec<Op>, kill: bool) {
    let mut run = Run::new();
    for op in ops {
        run.run(op);
        run.compare();
    }
    run.finish(kill);
}

#[test]
fn any_use_of_the_table_is_that_of_the_model() {
    check(1200, (ops(3, 120), any::<bool>()), |(ops, kill)| {
        run(ops, kill)
    });
}

#[test]
fn a_table_that_fills_up_is_that_of_the_model() {
    // Little is given up, so that the table is full again and again.
    check(150, (ops(1, 600), any::<bool>()), |(ops, kill)| {
        run(ops, kill)
    });
}

#[test]
fn death_at_any_moment_leaves_nothing_behind() {
    let cases = (ops(3, 80), ops(6, 40));
    check(1000, cases, |(before, after)| {
        let mut table = Run::new();
        for op in before.into_iter().chain([Op::Kill]).chain(after) {
            table.run(op);
            table.compare();
        }
        // A second time does no harm.
        table.finish(true);
    });
}
