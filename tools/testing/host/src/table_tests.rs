// SPDX-License-Identifier: GPL-2.0

//! What the request table does in the situations that went wrong in the C implementation, and in
//! those that a reader of its description would ask about.

use crate::{
    protocol::{
        command::Reply,
        errno::{Errno, Result},
    },
    support::{looks, make_room, Counted},
    table::{
        slots::Storage, Bounds, Delivery, Failed, JoinPolicy, ObjectKey, Placed, Refused, Table,
        Types, User,
    },
};

/// Names are all that is kept.
struct Names;

impl Storage for Names {
    type Buf<T> = Counted<T>;
    type Error = ();
    const CHUNK: usize = 64;

    fn alloc<T>(capacity: usize) -> std::result::Result<Counted<T>, ()> {
        Ok(Counted::with_capacity(capacity))
    }
}

/// More READs than any test makes, but for those that are about this.
const UNBOUNDED: Bounds = Bounds {
    object: 1 << 20,
    user: 1 << 20,
    table: 1 << 20,
};

impl Types for Names {
    type Object = &'static str;
    type Waiter = &'static str;
    type Read = &'static str;
    type Version = &'static str;
    type Waker = &'static str;

    fn join(_other: &mut &'static str, _read: &'static str) {
        unreachable!("none of these tables has READs join");
    }
}

/// What a daemon reads.
#[derive(Debug, PartialEq, Eq)]
enum Msg {
    Open {
        id: u32,
        name: &'static str,
        fd: u32,
    },
    Close {
        id: u32,
        fd: u32,
    },
    Read {
        id: u32,
        fd: u32,
        off: u64,
    },
}

const SIZE: u64 = 1 << 20;

struct Cache {
    table: Table<Names>,
    /// The time.
    now: u64,
    /// The READs that were admitted, and have not left.
    admitted: Vec<(ObjectKey, User)>,
}

impl Cache {
    fn new() -> Self {
        Self::bounded(UNBOUNDED)
    }

    fn bounded(bounds: Bounds) -> Self {
        Cache {
            table: Table::new(bounds),
            now: 0,
            admitted: Vec::new(),
        }
    }

    fn lookup(&mut self, name: &'static str) -> (ObjectKey, u32) {
        make_room(2, self.table.requests());
        make_room(1, self.table.objects());
        match self.table.register(name, 40, SIZE, name) {
            Ok(done) => done,
            Err(_) => panic!("{name} was refused"),
        }
    }

    /// An object that the daemon has opened, and its file descriptor.
    fn open(&mut self, name: &'static str) -> (ObjectKey, u32) {
        let (key, open) = self.lookup(name);
        let fd = self.take_open(open);
        assert_eq!(self.answer(open), (Some((name, Ok(4096))), Ok(())));
        (key, fd)
    }

    fn read(&mut self, key: ObjectKey, name: &'static str, off: u64) {
        make_room(1, self.table.requests());
        assert!(self.try_read(key, name, off, User::EXEMPT).is_ok());
    }

    /// The first READ of a reader.
    fn try_read(
        &mut self,
        key: ObjectKey,
        name: &'static str,
        off: u64,
        user: User,
    ) -> std::result::Result<Placed, (Refused, &'static str)> {
        let result = self.table.queue_read(
            key,
            (off, 4096),
            name,
            self.now,
            Some(user),
            JoinPolicy::Never,
        );
        if result.is_ok() {
            self.admitted.push((key, user));
        }
        result
    }

    fn restore(&mut self) -> usize {
        let mut at = self.table.begin_restore();
        std::iter::from_fn(|| self.table.restore_some(&mut at)).sum()
    }

    /// The next message, read without mishap.
    fn next(&mut self) -> Option<Msg> {
        match self.table.deliver(1024) {
            Delivery::Empty => None,
            Delivery::TooSmall => panic!("a message of more than 1024 bytes"),
            Delivery::Open { msg_id, object } => {
                make_room(1, self.table.handles());
                let fd = self.table.issue(msg_id).expect("a claimed OPEN");
                self.table.installed(fd);
                Some(Msg::Open {
                    id: msg_id,
                    name: object,
                    fd,
                })
            }
            Delivery::Message { msg_id, msg } => {
                self.table.delivered(msg_id);
                let number = |at: usize| {
                    u32::from_ne_bytes(msg.as_bytes()[4 * at..][..4].try_into().unwrap())
                };
                assert_eq!(number(0), msg_id);
                Some(match number(1) {
                    1 => Msg::Close {
                        id: msg_id,
                        fd: number(3),
                    },
                    2 => Msg::Read {
                        id: msg_id,
                        fd: number(3),
                        off: u64::from_ne_bytes(msg.as_bytes()[16..24].try_into().unwrap()),
                    },
                    other => panic!("opcode {other}"),
                })
            }
        }
    }

    /// The message could not be copied.
    fn put_back(&mut self, id: u32) {
        self.table.put_back(id, true);
    }

    /// Reads the OPEN with this id; returns its file descriptor.
    #[track_caller]
    fn take_open(&mut self, open: u32) -> u32 {
        match self.next() {
            Some(Msg::Open { id, fd, .. }) if id == open => fd,
            other => panic!("{other:?} instead of OPEN {open}"),
        }
    }

    /// Reads any OPEN; returns its id and file descriptor.
    #[track_caller]
    fn take_any_open(&mut self) -> (u32, u32) {
        match self.next() {
            Some(Msg::Open { id, fd, .. }) => (id, fd),
            other => panic!("{other:?} instead of an OPEN"),
        }
    }

    /// Reads the READ at this offset; returns its id.
    #[track_caller]
    fn take_read(&mut self, fd: u32, off: u64) -> u32 {
        match self.next() {
            Some(Msg::Read {
                id,
                fd: found,
                off: at,
            }) if (found, at) == (fd, off) => id,
            other => panic!("{other:?} instead of a READ of {off} from {fd}"),
        }
    }

    #[track_caller]
    fn take_close(&mut self, fd: u32) {
        match self.next() {
            Some(Msg::Close { fd: found, .. }) if found == fd => {}
            other => panic!("{other:?} instead of CLOSE of {fd}"),
        }
    }

    #[track_caller]
    fn nothing(&mut self) {
        assert!(!self.table.is_ready());
        assert_eq!(self.next(), None);
    }

    #[allow(clippy::type_complexity)]
    fn answer(&mut self, id: u32) -> (Option<(&'static str, Result<u64>)>, Result) {
        self.table.copen(id, Ok(Reply::Size(4096)), None)
    }

    #[allow(clippy::type_complexity)]
    fn refuse(&mut self, id: u32, errno: i32) -> (Option<(&'static str, Result<u64>)>, Result) {
        self.table.copen(id, Ok(Reply::Failed(Errno(errno))), None)
    }

    /// Who is told of a failure.
    fn failed(&mut self) -> Vec<&'static str> {
        let mut all = Vec::new();
        while let Some(failed) = self.table.pop_failed() {
            match failed {
                Failed::Waiter(name) | Failed::Read(name) | Failed::Waker(name) => all.push(name),
                Failed::Nobody => {}
            }
        }
        all
    }

    /// The READs that have gone unanswered for more than `timeout`.
    fn overdue(&mut self, timeout: u64) -> Vec<&'static str> {
        let now = self.now;
        std::iter::from_fn(|| self.table.pop_overdue(now, timeout)).collect()
    }

    /// Fills up what is left of the requests' buffer with READs, which are never delivered first.
    fn fill(&mut self, key: ObjectKey) -> usize {
        let mut count = 0;
        loop {
            match self.try_read(key, "filler", 0, User::EXEMPT) {
                Ok(_) => count += 1,
                Err((Refused::Full, _)) => return count,
                Err((refused, _)) => panic!("{refused:?}"),
            }
        }
    }

    /// Nothing is left in the table, and no slot is set aside.
    #[track_caller]
    fn assert_empty(&mut self) {
        assert!(self.table.pop_failed().is_none());
        for (key, user) in std::mem::take(&mut self.admitted) {
            assert_eq!(self.table.end_admission(key, user), [None; 3]);
        }
        while self.table.trim().is_some() {}
        let requests = self.table.requests();
        assert_eq!(requests.len(), 0, "a request is left");
        assert!(
            [0, Names::CHUNK].contains(&requests.room()),
            "a reservation is left"
        );
        assert!(self.table.object_at(0).is_none(), "an object is left");
        assert_eq!(self.table.handles().len(), 0);
        assert_eq!(self.table.users().len(), 0);
        assert_eq!(self.table.waiting().len(), 0);
        assert!(!self.table.is_ready());
        assert!(self.table.pop_failed().is_none());
    }
}

const EINVAL: Result = Err(Errno::EINVAL);

#[test]
fn an_object_lives_from_open_to_close() {
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
    cache.read(key, "r", 0);
    let read = cache.take_read(fd, 0);
    assert_eq!(cache.table.read_complete(read, fd), Ok("r"));
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(fd);
    cache.nothing();
    cache.table.fd_released(fd);
    cache.assert_empty();
}

#[test]
fn messages_come_in_the_order_they_were_queued() {
    // C took the lowest id first (F3).
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    cache.read(b, "b0", 0);
    cache.read(a, "a0", 0);
    let (_, open_c) = cache.lookup("c");
    cache.read(b, "b1", 4096);
    assert_eq!(cache.table.unregister(a), Some("a"));
    cache.read(b, "b2", 8192);

    cache.take_read(fd_b, 0);
    cache.take_open(open_c);
    cache.take_read(fd_b, 4096);
    cache.take_close(fd_a);
    cache.take_read(fd_b, 8192);
    cache.nothing();
    assert_eq!(cache.failed(), ["a0"]);
}

#[test]
fn a_flood_of_new_requests_does_not_delay_an_old_one() {
    // F3, with the ids going round the slots many times.
    let mut cache = Cache::new();
    let (busy, fd) = cache.open("busy");
    let (_, old) = cache.lookup("old");
    for off in 0..10 {
        cache.read(busy, "r", off);
    }
    cache.take_read(fd, 0);
    cache.take_open(old);
    for off in 10..2000 {
        cache.read(busy, "r", off);
        let id = cache.take_read(fd, off - 9);
        assert_eq!(cache.table.read_complete(id, fd), Ok("r"));
    }
}

#[test]
fn closing_one_file_descriptor_leaves_the_reads_of_other_objects_alone() {
    // F1: C failed every READ there was.
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    cache.read(a, "a0", 0);
    cache.read(b, "b0", 0);
    cache.read(b, "b1", 4096);
    cache.take_read(fd_a, 0);
    let id = cache.take_read(fd_b, 0);
    cache.table.fd_released(fd_a);
    assert_eq!(cache.failed(), [""; 0]);
    assert_eq!(cache.table.read_complete(id, fd_b), Ok("b0"));
    // The READ of the object itself waits for a new file descriptor.
    let (open, fd) = cache.take_any_open();
    cache.take_read(fd_b, 4096);
    assert_eq!(cache.answer(open), (None, Ok(())));
    cache.take_read(fd, 0);
}

#[test]
fn an_answer_that_is_no_size_fails_the_open_with_its_error() {
    // F2: C told both that all was well.
    for errno in [Errno::EINVAL, Errno::ERANGE] {
        let mut cache = Cache::new();
        let (key, open) = cache.lookup("a");
        let fd = cache.take_open(open);
        let told = cache.table.copen(open, Err(errno), None);
        assert_eq!(told, (Some(("a", Err(errno))), Err(errno)));
        // It was consumed.
        assert_eq!(cache.answer(open), (None, EINVAL));
        assert_eq!(cache.table.unregister(key), Some("a"));
        cache.take_close(fd);
    }
}

#[test]
fn an_error_from_the_daemon_is_the_lookups() {
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    assert_eq!(cache.refuse(open, 2), (Some(("a", Err(Errno(2)))), Ok(())));
    cache.nothing();
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(fd);
    cache.table.fd_released(fd);
    cache.assert_empty();
}

#[test]
fn a_size_of_zero_and_the_largest_size_are_sizes() {
    for size in [0, SIZE] {
        let mut cache = Cache::new();
        let (_, open) = cache.lookup("a");
        cache.take_open(open);
        let told = cache.table.copen(open, Ok(Reply::Size(size)), None);
        assert_eq!(told, (Some(("a", Ok(size))), Ok(())));
    }
}

#[test]
fn a_size_that_the_object_cannot_have_is_invalid() {
    // U29.
    let mut cache = Cache::new();
    let (_, open) = cache.lookup("a");
    cache.take_open(open);
    let told = cache.table.copen(open, Ok(Reply::Size(SIZE + 1)), None);
    assert_eq!(told, (Some(("a", Err(Errno::EINVAL))), EINVAL));
}

#[test]
fn the_version_of_an_object_is_that_of_its_first_answer() {
    for (first, later, ok) in [
        (Some("v1"), Some("v1"), true),
        (Some("v1"), Some("v2"), false),
        (Some("v1"), None, false),
        (None, Some("v1"), false),
        (None, None, true),
    ] {
        let mut cache = Cache::new();
        let (key, open) = cache.lookup("a");
        let fd = cache.take_open(open);
        let told = cache.table.copen(open, Ok(Reply::Size(4096)), first);
        assert_eq!(told, (Some(("a", Ok(4096))), Ok(())));
        assert_eq!(cache.table.version(key), first);
        cache.read(key, "waits", 0);
        cache.table.fd_released(fd);
        let (reopen, fd) = cache.take_any_open();
        let (told, answer) = cache.table.copen(reopen, Ok(Reply::Size(4096)), later);
        assert_eq!((told, answer.is_ok()), (None, ok), "{first:?} {later:?}");
        // Whoever waits gets bytes of the first version, or none.
        match ok {
            true => {
                cache.take_read(fd, 0);
            }
            false => assert_eq!(cache.failed(), ["waits"]),
        }
        assert_eq!(cache.table.version(key), first);
    }
}

#[test]
fn a_read_in_the_daemons_hands_is_delivered_again_when_its_fd_is_closed() {
    // F4 and U4: without any `restore`.
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.read(key, "delivered", 0);
    cache.read(key, "queued", 4096);
    let first = cache.take_read(fd, 0);
    cache.table.take_wake();
    cache.table.fd_released(fd);
    assert!(cache.table.take_wake());
    assert_eq!(cache.table.read_complete(first, fd), Err(Errno::EINVAL));

    let (open, new) = cache.take_any_open();
    assert_ne!(new, fd);
    // Nothing more before the answer.
    cache.nothing();
    cache.read(key, "late", 8192);
    cache.nothing();
    assert_eq!(cache.answer(open), (None, Ok(())));
    assert!(cache.table.take_wake());
    assert_eq!(cache.take_read(new, 0), first);
    cache.take_read(new, 4096);
    cache.take_read(new, 8192);
    assert_eq!(cache.table.read_complete(first, new), Ok("delivered"));
    assert_eq!(cache.failed(), [""; 0]);
}

#[test]
fn a_read_of_a_closed_object_asks_for_one_new_fd() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.table.fd_released(fd);
    cache.nothing();
    cache.read(key, "r0", 0);
    cache.read(key, "r1", 4096);
    let (open, fd) = cache.take_any_open();
    cache.nothing();
    assert_eq!(cache.answer(open), (None, Ok(())));
    cache.take_read(fd, 0);
    cache.take_read(fd, 4096);
    cache.nothing();
}

#[test]
fn nothing_is_delivered_or_taken_after_death_and_everybody_is_told() {
    // F5 and F14.
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    let (_, issued) = cache.lookup("issued");
    cache.take_open(issued);
    cache.read(a, "delivered", 0);
    let delivered = cache.take_read(fd_a, 0);
    let (_, claimed) = cache.lookup("claimed");
    assert!(matches!(
        cache.table.deliver(1024),
        Delivery::Open { msg_id, .. } if msg_id == claimed
    ));
    let (parking, queued) = cache.lookup("queued");
    cache.read(parking, "parked", 0);
    cache.read(a, "ready", 0);
    assert_eq!(cache.table.unregister(b), Some("b"));
    assert!(cache.table.is_ready());

    cache.table.take_wake();
    cache.table.kill();
    assert!(cache.table.take_wake(), "pollers are not told");
    assert!(cache.table.is_dead());
    cache.nothing();
    cache.restore();
    cache.put_back(delivered);
    cache.put_back(claimed);
    cache.nothing();
    let refused = cache.table.register("f", 40, SIZE, "f");
    assert!(matches!(refused, Err((Refused::Gone, "f", "f"))));
    let refused = cache.try_read(a, "r", 0, User::EXEMPT);
    assert!(matches!(refused, Err((Refused::Gone, "r"))));

    let mut failed = cache.failed();
    failed.sort();
    let all = [
        "claimed",
        "delivered",
        "issued",
        "parked",
        "queued",
        "ready",
    ];
    assert_eq!(failed, all);
    for id in [issued, claimed, queued, delivered] {
        assert_eq!(cache.answer(id), (None, EINVAL));
        assert_eq!(cache.table.cancel_open(id), None);
        assert_eq!(cache.table.issue(id), Err(Refused::Gone));
        cache.put_back(id);
        cache.table.delivered(id);
        for fd in [fd_a, fd_b] {
            assert_eq!(cache.table.read_complete(id, fd), Err(Errno::EINVAL));
        }
    }
    // No CLOSE for what is given up afterwards, or was before.
    assert_eq!(cache.table.unregister(a), Some("a"));
    cache.table.fd_released(fd_a);
    cache.table.fd_released(fd_b);
    cache.nothing();
}

#[test]
fn killing_an_idle_table_wakes_pollers() {
    // U12.
    let mut cache = Cache::new();
    assert!(!cache.table.take_wake());
    cache.table.kill();
    assert!(cache.table.take_wake());
}

#[test]
fn a_reopening_object_given_up_right_after_death_does_not_hide_the_others_failures() {
    // Its OPEN, which nobody waits for, is among the failed.
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    cache.table.fd_released(fd_a);
    cache.read(a, "ra", 0);
    cache.read(b, "rb", 0);
    cache.take_read(fd_b, 0);
    cache.take_any_open();
    let (_, _) = cache.lookup("c");
    cache.table.kill();
    assert_eq!(cache.table.unregister(a), Some("a"));
    let mut failed = cache.failed();
    failed.sort();
    assert_eq!(failed, ["c", "ra", "rb"]);
}

#[test]
fn an_open_that_two_daemons_read_is_answered_once() {
    // F6.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let first = cache.take_open(open);
    cache.restore();
    let second = cache.take_open(open);
    assert_ne!(first, second);
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
    assert_eq!(cache.answer(open), (None, EINVAL));
    cache.take_close(first);
    cache.read(key, "r", 0);
    cache.take_read(second, 0);
}

#[test]
fn an_open_answered_while_another_daemon_prepares_it_is_not_issued() {
    // F6 and F7: two threads with the same OPEN; the object goes away under one of them.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    cache.restore();
    assert!(matches!(
        cache.table.deliver(1024),
        Delivery::Open { msg_id, .. } if msg_id == open
    ));
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
    cache.table.fd_released(fd);
    assert_eq!(cache.table.unregister(key), Some("a"));
    assert_eq!(cache.table.issue(open), Err(Refused::Gone));
    cache.put_back(open);
    cache.table.delivered(open);
    cache.nothing();
    cache.assert_empty();
}

#[test]
fn only_an_open_is_answered_with_a_size() {
    // F9.
    let mut cache = Cache::new();
    let (a, fd) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    cache.read(a, "r", 0);
    let read = cache.take_read(fd, 0);
    assert_eq!(cache.table.unregister(b), Some("b"));
    let close = match cache.table.deliver(1024) {
        Delivery::Message { msg_id, .. } => msg_id,
        _ => panic!("no CLOSE"),
    };
    for id in [read, close, 12345, u32::MAX] {
        assert_eq!(cache.answer(id), (None, EINVAL), "{id}");
        assert_eq!(cache.refuse(id, 5), (None, EINVAL), "{id}");
        let told = cache.table.copen(id, Err(Errno::ERANGE), None);
        assert_eq!(told, (None, EINVAL), "{id}");
    }
    assert_eq!(cache.failed(), [""; 0]);
    cache.put_back(close);
    cache.take_close(fd_b);
    assert_eq!(cache.table.read_complete(read, fd), Ok("r"));
}

#[test]
fn a_read_is_completed_through_its_own_file_descriptor_only() {
    // F9.
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (_, fd_b) = cache.open("b");
    let (_, open) = cache.lookup("c");
    let fd_c = cache.take_open(open);
    cache.read(a, "r", 0);
    let read = cache.take_read(fd_a, 0);
    for fd in [fd_b, fd_c, 0, u32::MAX, 999] {
        assert_eq!(cache.table.read_complete(read, fd), Err(Errno::EINVAL));
    }
    // Nor is an OPEN, or what does not exist.
    for id in [open, 777, u32::MAX] {
        assert_eq!(cache.table.read_complete(id, fd_c), Err(Errno::EINVAL));
        assert_eq!(cache.table.read_complete(id, fd_a), Err(Errno::EINVAL));
    }
    assert_eq!(cache.table.read_complete(read, fd_a), Ok("r"));
    assert_eq!(cache.table.read_complete(read, fd_a), Err(Errno::EINVAL));
    assert_eq!(cache.answer(open), (Some(("c", Ok(4096))), Ok(())));
}

#[test]
fn a_read_may_be_completed_before_it_is_delivered() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.read(key, "r0", 0);
    cache.read(key, "r1", 4096);
    let first = cache.take_read(fd, 0);
    // The other's id, which a daemon can only guess.
    assert_eq!(cache.table.read_complete(first + 1, fd), Ok("r1"));
    cache.nothing();
}

#[test]
fn an_answer_after_the_fd_was_closed_opens_nothing() {
    // F10: C had an object that was open without file descriptor.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    cache.table.fd_released(fd);
    assert_eq!(
        cache.answer(open),
        (Some(("a", Err(Errno::EBADFD))), Ok(()))
    );
    // It can be asked for again, and there is no file descriptor to be closed.
    cache.read(key, "r", 0);
    let (open, fd) = cache.take_any_open();
    cache.table.fd_released(fd);
    assert_eq!(cache.answer(open), (None, Ok(())));
    assert_eq!(cache.failed(), ["r"]);
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.nothing();
    cache.assert_empty();
}

#[test]
fn an_error_after_the_fd_was_closed_is_that_error() {
    let mut cache = Cache::new();
    let (_, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    cache.table.fd_released(fd);
    assert_eq!(cache.refuse(open, 5), (Some(("a", Err(Errno(5)))), Ok(())));
}

#[test]
fn of_two_file_descriptors_for_one_open_the_later_counts() {
    // F11: C leaked the first, and lost track when the second was closed.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let first = cache.take_open(open);
    cache.restore();
    let second = cache.take_open(open);
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
    cache.table.fd_released(first);
    cache.read(key, "r", 0);
    let read = cache.take_read(second, 0);
    assert_eq!(cache.table.read_complete(read, first), Err(Errno::EINVAL));
    cache.table.fd_released(second);
    let (_, third) = cache.take_any_open();
    assert!(third != first && third != second);
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(third);
    cache.nothing();
}

#[test]
fn closing_the_later_of_two_file_descriptors_closes_the_object() {
    // F11.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let first = cache.take_open(open);
    cache.restore();
    let second = cache.take_open(open);
    cache.table.fd_released(second);
    assert_eq!(
        cache.answer(open),
        (Some(("a", Err(Errno::EBADFD))), Ok(()))
    );
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.table.fd_released(first);
    cache.nothing();
    cache.assert_empty();
}

#[test]
fn an_open_whose_message_was_not_copied_comes_again_with_another_fd() {
    // F12, U16: EFAULT after the file descriptor was made.
    let mut cache = Cache::new();
    let (_, open) = cache.lookup("a");
    let first = cache.take_open(open);
    cache.table.take_wake();
    cache.put_back(open);
    assert!(cache.table.take_wake());
    let second = cache.take_open(open);
    assert_ne!(first, second);
    // The file of the first goes when the system call ends.
    cache.table.fd_released(first);
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
}

#[test]
fn an_open_without_room_for_a_file_descriptor_stays_the_next() {
    // U16: EMFILE. C failed the lookup.
    let mut cache = Cache::new();
    let (_, a) = cache.lookup("a");
    let (_, b) = cache.lookup("b");
    for _ in 0..3 {
        assert!(matches!(
            cache.table.deliver(1024),
            Delivery::Open { msg_id, object: "a" } if msg_id == a
        ));
        cache.put_back(a);
    }
    assert_eq!(cache.failed(), [""; 0]);
    cache.take_open(a);
    cache.take_open(b);
}

#[test]
fn an_open_for_want_of_a_file_descriptor_may_let_others_pass() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.read(key, "before", 4096);
    cache.take_read(fd, 4096);
    let (_, open) = cache.lookup("b");
    cache.read(key, "r", 0);
    assert!(matches!(
        cache.table.deliver(1024),
        Delivery::Open { msg_id, .. } if msg_id == open
    ));
    cache.table.take_wake();
    cache.table.put_back(open, false);
    assert!(cache.table.take_wake());
    cache.take_read(fd, 0);
    cache.take_open(open);
}

#[test]
fn a_close_does_not_overtake_the_open_it_is_for() {
    // The object is withdrawn after the OPEN was issued and before the daemon has it.
    for release in [false, true] {
        let mut cache = Cache::new();
        let (key, open) = cache.lookup("a");
        assert!(matches!(cache.table.deliver(1024), Delivery::Open { .. }));
        make_room(1, cache.table.handles());
        let fd = cache.table.issue(open).expect("a claimed OPEN");
        assert_eq!(cache.table.unregister(key), Some("a"));
        cache.nothing();
        cache.table.take_wake();
        if !release {
            cache.table.installed(fd);
            assert!(cache.table.take_wake());
            cache.take_close(fd);
        }
        cache.table.fd_released(fd);
        cache.table.installed(fd);
        cache.nothing();
        assert_eq!(cache.failed(), ["a"]);
        cache.assert_empty();
    }
}

#[test]
fn a_message_that_was_not_copied_stays_the_next() {
    // U16: EFAULT.
    let mut cache = Cache::new();
    let (a, fd) = cache.open("a");
    let (b, _) = cache.open("b");
    cache.read(a, "r0", 0);
    cache.read(a, "r1", 4096);
    let read = match cache.table.deliver(32) {
        Delivery::Message { msg_id, .. } => msg_id,
        _ => panic!("no READ"),
    };
    cache.table.take_wake();
    cache.put_back(read);
    assert!(cache.table.take_wake());
    assert_eq!(cache.take_read(fd, 0), read);
    cache.take_read(fd, 4096);

    assert_eq!(cache.table.unregister(b), Some("b"));
    let close = match cache.table.deliver(16) {
        Delivery::Message { msg_id, .. } => msg_id,
        _ => panic!("no CLOSE"),
    };
    cache.nothing();
    cache.put_back(close);
    assert!(matches!(cache.next(), Some(Msg::Close { id, .. }) if id == close));
    cache.nothing();
    // Too late.
    cache.put_back(close);
    cache.nothing();
    assert_eq!(cache.failed(), [""; 0]);
}

#[test]
fn a_message_too_large_for_the_buffer_stays_the_next() {
    // U15: without side effects.
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    make_room(2, cache.table.requests());
    let big = cache.table.register("big", 543, SIZE, "big");
    let Ok((_, open)) = big else {
        panic!("refused");
    };
    cache.table.take_wake();
    for room in [0, 16, 32, 40, 542] {
        assert!(matches!(cache.table.deliver(room), Delivery::TooSmall));
        assert!(cache.table.is_ready());
        assert!(!cache.table.take_wake());
        assert_eq!(cache.answer(open), (None, EINVAL), "not issued");
    }
    assert!(matches!(
        cache.table.deliver(543),
        Delivery::Open { object: "big", .. }
    ));
    cache.read(key, "r", 0);
    for room in [0, 16, 31] {
        assert!(matches!(cache.table.deliver(room), Delivery::TooSmall));
    }
    cache.take_read(fd, 0);
    assert_eq!(cache.table.unregister(key), Some("a"));
    assert!(matches!(cache.table.deliver(15), Delivery::TooSmall));
    assert!(matches!(cache.table.deliver(16), Delivery::Message { .. }));
}

#[test]
fn a_failed_reopen_fails_the_reads_that_waited_for_it() {
    // F13 and U6: with the file descriptor open, and closed.
    for close in [false, true] {
        let mut cache = Cache::new();
        let (key, fd) = cache.open("a");
        cache.read(key, "delivered", 0);
        cache.take_read(fd, 0);
        cache.table.fd_released(fd);
        cache.read(key, "parked", 4096);
        let (open, fd) = cache.take_any_open();
        if close {
            cache.table.fd_released(fd);
        }
        assert_eq!(cache.refuse(open, 5), (None, Ok(())));
        assert_eq!(cache.failed(), ["delivered", "parked"]);
        cache.nothing();

        // The next READ asks again.
        cache.read(key, "again", 0);
        let (open, new) = cache.take_any_open();
        assert_ne!(fd, new);
        assert_eq!(cache.answer(open), (None, Ok(())));
        if !close {
            // The one that the failed OPEN came with no longer counts.
            cache.table.fd_released(fd);
        }
        let read = cache.take_read(new, 0);
        assert_eq!(cache.table.read_complete(read, new), Ok("again"));
    }
}

#[test]
fn a_daemon_that_has_two_fds_of_an_object_is_told_to_close_the_first() {
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let first = cache.take_open(open);
    // A successor in the same process: the fd is still there.
    cache.restore();
    let second = cache.take_open(open);
    assert_ne!(first, second);
    cache.take_close(first);
    assert_eq!(cache.answer(open).1, Ok(()));
    cache.table.fd_released(first);
    cache.read(key, "r", 0);
    let read = cache.take_read(second, 0);
    assert_eq!(cache.table.read_complete(read, first), Err(Errno::EINVAL));
    assert_eq!(cache.table.read_complete(read, second), Ok("r"));
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(second);
    cache.nothing();
}

#[test]
fn a_reopen_with_another_size_fails() {
    // U24: readers may be using the first.
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.table.fd_released(fd);
    cache.read(key, "r", 0);
    let (open, _) = cache.take_any_open();
    let told = cache.table.copen(open, Ok(Reply::Size(8192)), None);
    assert_eq!(told, (None, EINVAL));
    assert_eq!(cache.failed(), ["r"]);
}

#[test]
fn a_lookup_that_gives_up_takes_its_open_back() {
    // F15.
    let mut cache = Cache::new();
    let (a, queued) = cache.lookup("a");
    assert_eq!(cache.table.cancel_open(queued), Some("a"));
    assert_eq!(cache.table.cancel_open(queued), None);
    cache.nothing();
    assert_eq!(cache.table.unregister(a), Some("a"));
    cache.nothing();

    let (b, claimed) = cache.lookup("b");
    assert!(matches!(cache.table.deliver(1024), Delivery::Open { .. }));
    assert_eq!(cache.table.cancel_open(claimed), Some("b"));
    assert_eq!(cache.table.issue(claimed), Err(Refused::Gone));
    assert_eq!(cache.table.unregister(b), Some("b"));
    cache.nothing();

    let (c, issued) = cache.lookup("c");
    let fd = cache.take_open(issued);
    assert_eq!(cache.table.cancel_open(issued), Some("c"));
    assert_eq!(cache.answer(issued), (None, EINVAL));
    // The daemon has a file descriptor to close.
    assert_eq!(cache.table.unregister(c), Some("c"));
    cache.take_close(fd);
    cache.table.fd_released(fd);
    assert_eq!(cache.failed(), [""; 0]);
    cache.assert_empty();
}

#[test]
fn what_was_answered_cannot_be_taken_back() {
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
    assert_eq!(cache.table.cancel_open(open), None);
    // Nor can an OPEN that no lookup waits for.
    cache.table.fd_released(fd);
    cache.read(key, "r", 0);
    let (open, _) = cache.take_any_open();
    assert_eq!(cache.table.cancel_open(open), None);
    assert_eq!(cache.answer(open), (None, Ok(())));
    // Nor a READ.
    let Some(Msg::Read { id, .. }) = cache.next() else {
        panic!("no READ");
    };
    assert_eq!(cache.table.cancel_open(id), None);
}

#[test]
fn a_withdrawn_object_takes_all_of_its_requests_along_and_no_others() {
    // F16.
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    cache.read(a, "a0", 0);
    cache.read(b, "b0", 0);
    cache.read(a, "a1", 4096);
    cache.read(b, "b1", 4096);
    let delivered = cache.take_read(fd_a, 0);
    assert_eq!(cache.table.unregister(a), Some("a"));
    assert_eq!(cache.table.unregister(a), None);
    assert!(matches!(
        cache.try_read(a, "late", 0, User::EXEMPT),
        Err((Refused::Gone, "late"))
    ));
    cache.table.cancel_reads(a);
    assert_eq!(
        cache.table.read_complete(delivered, fd_a),
        Err(Errno::EINVAL)
    );
    assert_eq!(cache.failed(), ["a0", "a1"]);
    cache.take_close(fd_a);
    cache.take_read(fd_b, 0);
    cache.take_read(fd_b, 4096);
    cache.nothing();
}

#[test]
fn a_lookup_whose_object_is_withdrawn_fails() {
    // F16, in each state of its OPEN.
    for steps in 0..3 {
        let mut cache = Cache::new();
        let (key, open) = cache.lookup("a");
        let mut fd = None;
        match steps {
            0 => {}
            1 => assert!(matches!(cache.table.deliver(1024), Delivery::Open { .. })),
            _ => fd = Some(cache.take_open(open)),
        }
        assert_eq!(cache.table.unregister(key), Some("a"));
        assert_eq!(cache.table.cancel_open(open), None);
        assert_eq!(cache.table.issue(open), Err(Refused::Gone));
        cache.put_back(open);
        assert_eq!(cache.answer(open), (None, EINVAL));
        assert_eq!(cache.failed(), ["a"]);
        if let Some(fd) = fd {
            cache.take_close(fd);
            cache.table.fd_released(fd);
        }
        cache.nothing();
        cache.assert_empty();
    }
}

#[test]
fn an_object_withdrawn_while_it_is_reopened_leaves_nothing() {
    // F17 and U11, in each state of the OPEN.
    for steps in 0..3 {
        let mut cache = Cache::new();
        let (key, fd) = cache.open("a");
        cache.table.fd_released(fd);
        cache.read(key, "r", 0);
        let mut open = None;
        match steps {
            0 => {}
            1 => assert!(matches!(cache.table.deliver(1024), Delivery::Open { .. })),
            _ => open = Some(cache.take_any_open()),
        }
        assert_eq!(cache.table.unregister(key), Some("a"));
        assert_eq!(cache.failed(), ["r"]);
        if let Some((id, fd)) = open {
            assert_eq!(cache.answer(id), (None, EINVAL));
            cache.take_close(fd);
            cache.table.fd_released(fd);
        }
        cache.nothing();
        cache.assert_empty();
    }
}

#[test]
fn a_late_answer_does_not_meet_another_request() {
    // F18: C gave the id to the next request.
    let mut cache = Cache::new();
    let (_, stale) = cache.lookup("a");
    cache.take_open(stale);
    assert_eq!(cache.table.cancel_open(stale), Some("a"));
    // Through all slots several times, with one request that stays.
    let (key, fd) = cache.open("b");
    for off in 0..1000 {
        cache.read(key, "r", off);
        let id = cache.take_read(fd, off);
        assert_ne!(id, stale);
        assert_eq!(cache.answer(stale), (None, EINVAL));
        assert_eq!(cache.table.read_complete(stale, fd), Err(Errno::EINVAL));
        assert_eq!(cache.table.read_complete(id, fd), Ok("r"));
        let (_, open) = cache.lookup("c");
        assert_ne!(open, stale);
        assert_eq!(cache.answer(stale), (None, EINVAL));
        assert_eq!(cache.table.cancel_open(open), Some("c"));
    }
}

#[test]
fn an_open_that_was_never_delivered_cannot_be_answered() {
    let mut cache = Cache::new();
    let (_, open) = cache.lookup("a");
    assert_eq!(cache.answer(open), (None, EINVAL));
    assert!(matches!(cache.table.deliver(1024), Delivery::Open { .. }));
    assert_eq!(cache.answer(open), (None, EINVAL));
    cache.put_back(open);
    assert_eq!(cache.refuse(open, 5), (None, EINVAL));
    cache.take_open(open);
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
}

#[test]
fn messages_name_only_file_descriptors_that_are_open() {
    // U5: C copied the id after it had let go of the lock.
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.read(key, "r", 0);
    cache.table.fd_released(fd);
    let (open, new) = cache.take_any_open();
    cache.nothing();
    cache.table.fd_released(new);
    cache.nothing();
    assert_eq!(cache.answer(open), (None, Ok(())));
    assert_eq!(cache.failed(), ["r"]);
}

#[test]
fn object_ids_are_never_used_again() {
    let mut cache = Cache::new();
    let mut last = 0;
    for _ in 0..500 {
        let (key, fd) = cache.open("a");
        assert!(fd > last);
        last = fd;
        assert_eq!(cache.table.unregister(key), Some("a"));
        cache.take_close(fd);
        cache.table.fd_released(fd);
    }
    cache.assert_empty();
}

#[test]
fn a_file_descriptor_closed_before_its_close_is_read_needs_none() {
    // U9: C delivered it, for an object 0xffffffff.
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    assert_eq!(cache.table.unregister(a), Some("a"));
    assert_eq!(cache.table.unregister(b), Some("b"));
    cache.table.fd_released(fd_a);
    cache.take_close(fd_b);
    cache.nothing();
    cache.table.fd_released(fd_b);
    cache.assert_empty();
}

#[test]
fn a_file_descriptor_closed_while_its_close_is_copied_is_closed_once() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    assert_eq!(cache.table.unregister(key), Some("a"));
    let close = match cache.table.deliver(16) {
        Delivery::Message { msg_id, .. } => msg_id,
        _ => panic!("no CLOSE"),
    };
    cache.table.fd_released(fd);
    // It does not matter whether it was copied.
    cache.put_back(close);
    cache.table.delivered(close);
    cache.nothing();
    cache.assert_empty();
}

#[test]
fn a_close_that_was_read_does_not_come_again() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(fd);
    cache.restore();
    cache.nothing();
    cache.table.fd_released(fd);
    cache.assert_empty();
}

#[test]
fn a_close_needs_no_memory() {
    // U10: the table is full, and nobody makes room.
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, _) = cache.open("b");
    assert!(cache.fill(b) > 0);
    assert_eq!(cache.table.unregister(a), Some("a"));
    while let Some(msg) = cache.next() {
        if let Msg::Close { fd, .. } = msg {
            return assert_eq!(fd, fd_a);
        }
    }
    panic!("no CLOSE");
}

#[test]
fn a_reopen_needs_no_memory() {
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, _) = cache.open("b");
    cache.read(a, "r", 0);
    cache.fill(b);
    cache.table.fd_released(fd_a);
    while let Some(msg) = cache.next() {
        if matches!(msg, Msg::Open { name: "a", .. }) {
            return;
        }
    }
    panic!("no OPEN");
}

#[test]
fn a_close_needs_no_memory_while_the_lookup_waits() {
    // U10 and U11: withdrawn between the OPEN and its answer, with a full table.
    let mut cache = Cache::new();
    let (a, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    let (b, _) = cache.open("b");
    cache.fill(b);
    assert_eq!(cache.table.unregister(a), Some("a"));
    let mut closed = Vec::new();
    while let Some(msg) = cache.next() {
        if let Msg::Close { fd, .. } = msg {
            closed.push(fd);
        }
    }
    assert_eq!(closed, [fd]);
    assert_eq!(cache.failed(), ["a"]);
}

#[test]
fn an_object_withdrawn_before_its_open_is_answered_is_closed() {
    // U11: C sent no CLOSE.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(fd);
    assert_eq!(cache.failed(), ["a"]);
    cache.nothing();
}

#[test]
fn an_object_whose_open_was_refused_is_closed() {
    // U11.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let fd = cache.take_open(open);
    assert_eq!(cache.refuse(open, 2), (Some(("a", Err(Errno(2)))), Ok(())));
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(fd);
    cache.nothing();
}

#[test]
fn an_object_that_no_daemon_saw_is_not_closed() {
    // U11, the other way round.
    let mut cache = Cache::new();
    let (key, _) = cache.lookup("a");
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.nothing();
    let (key, fd) = cache.open("b");
    cache.table.fd_released(fd);
    assert_eq!(cache.table.unregister(key), Some("b"));
    cache.nothing();
    assert_eq!(cache.failed(), ["a"]);
    cache.assert_empty();
}

#[test]
fn a_new_daemon_may_read_an_open_before_the_old_ones_fd_is_closed() {
    // U17: C failed the lookup.
    let mut cache = Cache::new();
    let (key, open) = cache.lookup("a");
    let old = cache.take_open(open);
    cache.restore();
    let new = cache.take_open(open);
    cache.table.fd_released(old);
    assert_eq!(cache.answer(open), (Some(("a", Ok(4096))), Ok(())));
    cache.read(key, "r", 0);
    cache.take_read(new, 0);
}

#[test]
fn a_read_restored_before_the_old_ones_fd_is_closed_comes_again_after_it() {
    // U17, for an object that was open.
    let mut cache = Cache::new();
    let (key, old) = cache.open("a");
    cache.read(key, "r", 0);
    let read = cache.take_read(old, 0);
    cache.restore();
    // The new daemon does not know this file descriptor.
    assert_eq!(cache.take_read(old, 0), read);
    cache.table.fd_released(old);
    let (open, new) = cache.take_any_open();
    assert_eq!(cache.answer(open), (None, Ok(())));
    assert_eq!(cache.take_read(new, 0), read);
    assert_eq!(cache.table.read_complete(read, new), Ok("r"));
}

#[test]
fn restore_brings_back_what_was_delivered_before_what_was_not() {
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    let (_, first) = cache.lookup("first");
    cache.take_open(first);
    cache.read(a, "a0", 0);
    cache.read(b, "b0", 0);
    cache.read(a, "a1", 4096);
    cache.read(b, "b1", 4096);
    let ids = [cache.take_read(fd_a, 0), cache.take_read(fd_b, 0)];
    let (_, second) = cache.lookup("second");
    cache.table.take_wake();
    assert_eq!(cache.restore(), 3);
    assert!(cache.table.take_wake());
    cache.take_open(first);
    assert_eq!(cache.take_read(fd_a, 0), ids[0]);
    cache.table.take_closed();
    cache.take_open(second);
    assert_eq!(cache.take_read(fd_b, 0), ids[1]);
    assert!(matches!(cache.next(), Some(Msg::Close { .. })));
    cache.take_read(fd_a, 4096);
    cache.take_read(fd_b, 4096);
    cache.nothing();
}

#[test]
fn restore_brings_back_what_was_delivered_in_the_same_order() {
    // Also if some were with the daemon for so long that the ids went round the slots meanwhile.
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    let slots = 64u32;
    let mut kept = Vec::new();
    for round in 0..slots + 10 {
        let off = u64::from(round);
        cache.read(key, "r", off);
        let id = cache.take_read(fd, off);
        if round % 20 == 0 {
            kept.push((off, id));
        } else {
            assert_eq!(cache.table.read_complete(id, fd), Ok("r"));
        }
    }
    cache.restore();
    for (off, id) in kept {
        assert_eq!(cache.take_read(fd, off), id);
    }
}

#[test]
fn restore_of_nothing_wakes_pollers() {
    let mut cache = Cache::new();
    cache.restore();
    assert!(cache.table.take_wake());
    cache.nothing();
}

#[test]
fn whatever_can_be_read_wakes_pollers() {
    // U7.
    let mut cache = Cache::new();
    let woken = |cache: &mut Cache| cache.table.take_wake();
    assert!(!woken(&mut cache));
    let (key, open) = cache.lookup("a");
    assert!(woken(&mut cache), "OPEN");
    assert!(!woken(&mut cache), "once");
    let fd = cache.take_open(open);
    assert!(!woken(&mut cache), "reading");
    cache.read(key, "early", 0);
    assert!(!woken(&mut cache), "not to be read yet");
    assert_eq!(cache.answer(open).1, Ok(()));
    assert!(woken(&mut cache), "READ after copen");
    cache.read(key, "r", 4096);
    assert!(woken(&mut cache), "READ");
    cache.table.fd_released(fd);
    assert!(woken(&mut cache), "OPEN for READs that were not answered");
    let (open, fd) = cache.take_any_open();
    assert_eq!(cache.refuse(open, 5).1, Ok(()));
    assert!(!woken(&mut cache), "nothing to be read");
    cache.read(key, "again", 0);
    assert!(woken(&mut cache), "OPEN after a refusal");
    cache.take_any_open();
    assert!(
        woken(&mut cache),
        "CLOSE of the fd that another takes the place of"
    );
    cache.table.fd_released(fd);
    assert!(!woken(&mut cache), "it is closed");
    assert_eq!(cache.table.unregister(key), Some("a"));
    assert!(woken(&mut cache), "CLOSE");
}

#[test]
fn reads_given_up_are_failed_and_the_object_stays() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.read(key, "queued", 0);
    cache.read(key, "delivered", 4096);
    let first = cache.take_read(fd, 0);
    cache.put_back(first);
    cache.table.cancel_reads(key);
    assert_eq!(cache.failed(), ["queued", "delivered"]);
    cache.nothing();
    cache.read(key, "r", 8192);
    cache.take_read(fd, 8192);
}

#[test]
fn failures_that_are_not_yet_told_keep_their_room() {
    let mut cache = Cache::new();
    let (key, _) = cache.open("a");
    cache.fill(key);
    cache.table.cancel_reads(key);
    assert!(matches!(
        cache.try_read(key, "r", 0, User::EXEMPT),
        Err((Refused::Full, "r"))
    ));
    assert!(cache.table.pop_failed().is_some());
    // Its reader may have something else to ask for.
    assert!(matches!(
        cache.try_read(key, "r", 0, User::EXEMPT),
        Err((Refused::Full, "r"))
    ));
    assert_eq!(cache.table.end_admission(key, User::EXEMPT), [None; 3]);
    assert!(cache.try_read(key, "r", 0, User::EXEMPT).is_ok());
}

#[test]
fn what_is_traced_of_a_request_is_what_the_daemon_gets() {
    let mut cache = Cache::new();
    assert_eq!(cache.table.take_closed(), None);
    let (key, open) = cache.lookup("a");
    cache.read(key, "early", 0);
    let (early, no_fd) = cache.table.last_read(key);
    assert_eq!(no_fd, 0);
    assert_eq!(cache.table.answerable(open), None);
    let fd = cache.take_open(open);
    assert_eq!(cache.table.answerable(open), Some(&"a"));
    assert_eq!(cache.table.answerable(early), None);
    assert_eq!(cache.restore(), 1);
    // Another daemon gets it; the first one's file descriptor is to be closed.
    let second = cache.take_open(open);
    let (id, closed) = cache.table.take_closed().expect("a CLOSE was queued");
    assert_eq!((cache.next(), closed), (Some(Msg::Close { id, fd }), fd));
    assert!(cache
        .table
        .copen(open, Ok(Reply::Size(4096)), None)
        .1
        .is_ok());
    assert_eq!(cache.table.answerable(open), None);
    assert_eq!(cache.take_read(second, 0), early);
    cache.read(key, "late", 4096);
    let (late, late_fd) = cache.table.last_read(key);
    assert_eq!(late_fd, second);
    assert_eq!(cache.take_read(second, 4096), late);
    assert_eq!(cache.restore(), 2);

    // Without its file descriptor an OPEN cannot be answered with a size.
    let (b, open) = cache.lookup("b");
    for id in [early, late] {
        assert!(cache.table.read_complete(id, second).is_ok());
    }
    let fd = cache.take_open(open);
    cache.table.fd_released(fd);
    assert_eq!(cache.table.answerable(open), None);
    assert_eq!(cache.table.unregister(b), Some("b"));
    assert_eq!(cache.table.take_closed(), None);
    assert_eq!(cache.table.unregister(key), Some("a"));
    assert!(cache
        .table
        .take_closed()
        .is_some_and(|(_, fd)| fd == second));
}

#[test]
fn the_first_of_the_reads_finds_somebody_to_watch() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    assert!(!cache.table.keep_watching());
    assert!(matches!(
        cache.try_read(key, "r0", 0, User::EXEMPT),
        Ok(Placed::Unwatched)
    ));
    assert!(matches!(
        cache.try_read(key, "r1", 1, User::EXEMPT),
        Ok(Placed::Alone)
    ));
    assert!(cache.table.keep_watching());
    for off in [0, 1] {
        let id = cache.take_read(fd, off);
        assert!(cache.table.keep_watching());
        assert!(cache.table.read_complete(id, fd).is_ok());
    }
    assert!(!cache.table.keep_watching());
    assert!(matches!(
        cache.try_read(key, "r2", 2, User::EXEMPT),
        Ok(Placed::Unwatched)
    ));
    cache.table.kill();
    assert_eq!(cache.failed(), ["r2"]);
    assert!(!cache.table.keep_watching());
}

#[test]
fn objects_with_reads_are_found() {
    let mut cache = Cache::new();
    let (a, _) = cache.open("a");
    let (_, fd) = cache.open("b");
    let (c, open) = cache.lookup("c");
    let found = |cache: &Cache| {
        let mut names = Vec::new();
        let mut from = usize::MAX;
        while let Some((found, next)) = cache.table.next_reading(from) {
            names.extend(found.map(|(_, name)| name));
            from = next;
        }
        names.sort();
        names
    };
    assert_eq!(found(&cache), [""; 0]);
    cache.read(a, "ra", 0);
    cache.read(c, "rc", 0);
    assert_eq!(found(&cache), ["a", "c"]);
    cache.table.cancel_reads(a);
    assert_eq!(found(&cache), ["c"]);
    cache.table.fd_released(fd);
    assert!(cache.table.cancel_open(open).is_some());
    assert_eq!(found(&cache), ["c"]);
    cache.table.kill();
    cache.failed();
    assert_eq!(found(&cache), [""; 0]);
}

#[test]
fn a_thousand_objects_are_opened_read_and_closed() {
    let mut cache = Cache::new();
    let lookups: Vec<_> = (0..1000).map(|_| cache.lookup("o")).collect();
    let mut fds = Vec::new();
    for (_, open) in &lookups {
        fds.push(cache.take_open(*open));
    }
    // Answered in another order than they came in.
    for (_, open) in lookups.iter().rev() {
        assert_eq!(cache.answer(*open), (Some(("o", Ok(4096))), Ok(())));
    }
    for (key, _) in &lookups {
        cache.read(*key, "r", 0);
    }
    let reads: Vec<_> = fds
        .iter()
        .map(|fd| (cache.take_read(*fd, 0), *fd))
        .collect();
    for (id, fd) in reads.iter().step_by(2) {
        assert_eq!(cache.table.read_complete(*id, *fd), Ok("r"));
    }
    for (key, _) in &lookups {
        assert_eq!(cache.table.unregister(*key), Some("o"));
    }
    assert_eq!(cache.failed().len(), 500);
    for fd in fds {
        cache.take_close(fd);
        cache.table.fd_released(fd);
    }
    cache.nothing();
    cache.assert_empty();
}

#[test]
fn reads_expire_oldest_first_and_never_early() {
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    cache.now = 1000;
    cache.read(a, "a0", 0);
    cache.now = 1001;
    cache.read(b, "b0", 0);
    cache.read(a, "a1", 4096);
    cache.now = 2500;
    cache.read(b, "b1", 4096);
    assert_eq!(cache.overdue(5000), [""; 0]);
    // Where it is makes no difference: b0 is with the daemon, the others are in the queue.
    cache.take_read(fd_a, 0);
    let b0 = cache.take_read(fd_b, 0);
    cache.now = 6000;
    assert_eq!(cache.overdue(5000), [""; 0]);
    cache.now = 6001;
    assert_eq!(cache.overdue(5000), ["a0"]);
    assert_eq!(cache.overdue(5000), [""; 0]);
    cache.now = 6002;
    assert_eq!(cache.overdue(5000), ["b0", "a1"]);
    // A late answer is one to nothing.
    assert_eq!(cache.table.read_complete(b0, fd_b), Err(Errno::EINVAL));
    // What has expired is not delivered, what has not is.
    let b1 = cache.take_read(fd_b, 4096);
    cache.nothing();
    assert_eq!(cache.table.read_complete(b1, fd_b), Ok("b1"));
    cache.now = u64::MAX;
    assert_eq!(cache.overdue(0), [""; 0]);
}

#[test]
fn what_is_answered_in_time_or_fails_otherwise_does_not_expire() {
    let mut cache = Cache::new();
    let (a, fd) = cache.open("a");
    let (b, _) = cache.open("b");
    for off in 0..4 {
        cache.read(a, ["a0", "a1", "a2", "a3"][off], off as u64);
    }
    // The head, one in the middle, and the last of the list go.
    let ids: Vec<u32> = (0..4).map(|off| cache.take_read(fd, off)).collect();
    cache.read(b, "b0", 0);
    assert_eq!(cache.table.read_complete(ids[0], fd), Ok("a0"));
    assert_eq!(cache.table.read_complete(ids[2], fd), Ok("a2"));
    cache.table.cancel_reads(b);
    cache.now = 10_000;
    assert_eq!(cache.overdue(5000), ["a1", "a3"]);
    assert_eq!(cache.failed(), ["b0"]);
}

#[test]
fn reads_expire_while_their_object_is_reopened() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    cache.read(key, "r0", 0);
    cache.take_read(fd, 0);
    cache.now = 3000;
    cache.table.fd_released(fd);
    let (open, fd) = cache.take_any_open();
    cache.read(key, "r1", 4096);
    // The time that counts is that of the first delivery's READ, not of the second's.
    cache.now = 5001;
    assert_eq!(cache.overdue(5000), ["r0"]);
    cache.restore();
    cache.now = 8001;
    assert_eq!(cache.overdue(5000), ["r1"]);
    // The OPEN has no limit of its own. It can be answered, and what is read then is served.
    let (again, fd_again) = cache.take_any_open();
    assert_eq!(again, open);
    cache.table.fd_released(fd);
    assert_eq!(cache.answer(open), (None, Ok(())));
    cache.read(key, "r2", 8192);
    let id = cache.take_read(fd_again, 8192);
    assert_eq!(cache.table.read_complete(id, fd_again), Ok("r2"));
    cache.nothing();
    assert_eq!(cache.table.unregister(key), Some("a"));
    cache.take_close(fd_again);
    cache.table.fd_released(fd_again);
    cache.assert_empty();
}

#[test]
fn a_read_that_expires_while_it_is_copied_is_not_put_back() {
    let mut cache = Cache::new();
    let (key, _) = cache.open("a");
    cache.read(key, "r", 0);
    let Delivery::Message { msg_id, .. } = cache.table.deliver(1024) else {
        panic!("no message");
    };
    cache.now = 5001;
    assert_eq!(cache.overdue(5000), ["r"]);
    cache.put_back(msg_id);
    cache.nothing();
}

#[test]
fn an_expired_read_leaves_no_one_to_watch_over() {
    let mut cache = Cache::new();
    let (key, _) = cache.open("a");
    cache.read(key, "r", 0);
    assert!(cache.table.keep_watching());
    cache.now = 5001;
    assert_eq!(cache.overdue(5000), ["r"]);
    assert!(!cache.table.keep_watching());
}

#[test]
fn a_hundred_thousand_reads_expire_without_a_search() {
    // Were each looked for, this would take minutes.
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    for off in 0..100_000 {
        cache.now = off / 100;
        cache.read(key, "r", off);
    }
    for off in 0..50_000 {
        cache.take_read(fd, off);
    }
    for now in 0..2000 {
        cache.now = 1000 + now;
        // A hundred a millisecond, once they are older than a second.
        let expected = if (1..=1000).contains(&now) { 100 } else { 0 };
        assert_eq!(cache.overdue(1000).len(), expected, "at {now}");
    }
    cache.nothing();
}

const USER: User = User::EXEMPT;

#[test]
fn a_flood_of_reads_delays_others_by_a_few_messages() {
    // R3: what is first in the queue was queued first, whoever had queued 500000 before.
    let mut cache = Cache::new();
    let (busy, fd_busy) = cache.open("busy");
    let (other, fd_other) = cache.open("other");
    let (closed, fd_closed) = cache.open("closed");
    for off in 0..5000 {
        cache.read(busy, "flood", off);
    }
    for off in 0..100 {
        cache.take_read(fd_busy, off);
    }
    cache.read(other, "other", 7);
    let (_, open) = cache.lookup("new");
    assert_eq!(cache.table.unregister(closed), Some("closed"));
    cache.take_open(open);
    cache.take_read(fd_busy, 100);
    cache.take_close(fd_closed);
    cache.take_read(fd_other, 7);
    for off in 101..5000 {
        cache.take_read(fd_busy, off);
    }
    cache.nothing();
}

#[test]
fn a_flood_of_opens_delays_others_by_a_message() {
    let mut cache = Cache::new();
    let (key, fd) = cache.open("a");
    let opens: Vec<u32> = (0..1000).map(|_| cache.lookup("flood").1).collect();
    for open in &opens[..100] {
        cache.take_open(*open);
    }
    for off in 0..3 {
        cache.read(key, "r", off);
    }
    for off in 0..3 {
        cache.take_read(fd, off);
        cache.take_open(opens[100 + off as usize]);
    }
    for open in &opens[103..] {
        cache.take_open(*open);
    }
    cache.nothing();
}

#[test]
fn objects_have_their_reads_delivered_in_turn() {
    let mut cache = Cache::new();
    let objects: Vec<_> = (0..5).map(|_| cache.open("o")).collect();
    // The first has five READs, the second four, ...
    for (number, (key, _)) in objects.iter().enumerate() {
        for off in 0..5 - number {
            cache.read(*key, "r", off as u64);
        }
    }
    for off in 0..5 {
        for (_, fd) in &objects[..5 - off] {
            cache.take_read(*fd, off as u64);
        }
    }
    cache.nothing();
}

#[test]
fn an_object_that_is_reopened_does_not_hold_the_others_up() {
    let mut cache = Cache::new();
    let (a, fd_a) = cache.open("a");
    let (b, fd_b) = cache.open("b");
    for off in 0..3 {
        cache.read(a, "ra", off);
        cache.read(b, "rb", off);
    }
    cache.take_read(fd_a, 0);
    cache.table.fd_released(fd_a);
    let (open, fd_a) = cache.take_any_open();
    cache.take_read(fd_b, 0);
    assert_eq!(cache.answer(open), (None, Ok(())));
    cache.take_read(fd_b, 1);
    cache.take_read(fd_a, 0);
    cache.take_read(fd_b, 2);
    cache.take_read(fd_a, 1);
    cache.take_read(fd_a, 2);
    cache.nothing();
}

#[test]
fn a_message_that_was_not_copied_is_the_next_whoevers_turn_it_is() {
    let mut cache = Cache::new();
    let (a, _) = cache.open("a");
    let (b, _) = cache.open("b");
    cache.lookup("new");
    for off in 0..3 {
        cache.read(a, "ra", off);
        cache.read(b, "rb", off);
    }
    let mut delivered = 0;
    let mut last = None;
    for _ in 0..20 {
        let id = match cache.table.deliver(1024) {
            Delivery::Empty => break,
            Delivery::TooSmall => panic!("a message of more than 1024 bytes"),
            Delivery::Open { msg_id, .. } | Delivery::Message { msg_id, .. } => msg_id,
        };
        // Every other time it cannot be copied.
        if last == Some(id) {
            delivered += 1;
            last = None;
        } else {
            assert_eq!(last, None, "another message is the next");
            cache.put_back(id);
            last = Some(id);
        }
    }
    assert_eq!((delivered, last), (7, None));
}

const SMALL: Bounds = Bounds {
    object: 4,
    user: 6,
    table: 8,
};

impl Cache {
    fn small() -> Self {
        let mut cache = Cache::bounded(SMALL);
        make_room(40, cache.table.requests());
        make_room(5, cache.table.users());
        make_room(10, cache.table.waiting());
        cache
    }

    /// Queues READs until there are too many; how many.
    #[track_caller]
    fn flood(&mut self, key: ObjectKey, user: User) -> usize {
        for count in 0..100 {
            match self.try_read(key, "flood", count, user) {
                Ok(_) => {}
                Err((Refused::OverLimit, "flood")) => return count as usize,
                Err(refused) => panic!("{refused:?}"),
            }
        }
        panic!("there is no bound");
    }

    #[track_caller]
    fn add_waiting(&mut self, key: ObjectKey, user: User, name: &'static str) -> u32 {
        let id = self.table.add_waiting(key, user, name).expect("refused");
        assert_eq!(self.table.admitted(id), Ok(false), "nothing to wait for");
        id
    }

    /// Answers the next READ, whose reader is then done; who is woken.
    #[track_caller]
    fn answer_read(&mut self, key: ObjectKey, user: User) -> Vec<&'static str> {
        let Some(Msg::Read { id, fd, .. }) = self.next() else {
            panic!("no READ");
        };
        assert!(self.table.read_complete(id, fd).is_ok());
        self.leave(key, user)
    }

    #[track_caller]
    fn leave(&mut self, key: ObjectKey, user: User) -> Vec<&'static str> {
        let at = self.admitted.iter().position(|one| *one == (key, user));
        self.admitted.remove(at.expect("it was not admitted"));
        let woken = self.table.end_admission(key, user);
        woken.into_iter().flatten().collect()
    }

    #[track_caller]
    fn admitted(&mut self, id: u32, key: ObjectKey, user: User) {
        assert_eq!(self.table.admitted(id), Ok(true));
        self.admitted.push((key, user));
    }
}

#[test]
fn what_an_object_a_user_and_all_may_have_outstanding_is_bounded() {
    let mut cache = Cache::small();
    let keys: Vec<_> = (0..4).map(|_| cache.open("o").0).collect();
    let (alice, bob) = (User::new(1000), User::new(1001));
    assert_eq!(cache.flood(keys[0], alice), 4, "of the object");
    assert_eq!(cache.flood(keys[1], alice), 2, "of the user");
    assert_eq!(cache.flood(keys[2], alice), 0);
    assert_eq!(cache.flood(keys[0], bob), 0, "of the object");
    assert_eq!(cache.flood(keys[2], bob), 2, "of all");
    assert_eq!(cache.flood(keys[3], USER), 0);
    // OPENs and CLOSEs have room of their own.
    let (_, open) = cache.lookup("new");
    while cache.next().is_some() {}
    assert_eq!(cache.answer(open), (Some(("new", Ok(4096))), Ok(())));
}

#[test]
fn no_bound_for_users_applies_to_the_administrator() {
    let mut cache = Cache::small();
    let keys: Vec<_> = (0..2).map(|_| cache.open("o").0).collect();
    assert_eq!(cache.flood(keys[0], USER), 4);
    assert_eq!(cache.flood(keys[1], USER), 4);
}

#[test]
fn a_reader_keeps_its_place_from_gap_to_gap() {
    let mut cache = Cache::small();
    let (key, fd) = cache.open("a");
    let user = User::new(1);
    assert_eq!(cache.flood(key, user), 4);
    for off in 0..20 {
        let id = cache.take_read(fd, if off < 4 { off } else { 100 + off - 4 });
        assert!(cache.table.read_complete(id, fd).is_ok());
        // Nobody else gets in between, and memory is not needed.
        assert_eq!(cache.flood(key, user), 0);
        let next = cache
            .table
            .queue_read(key, (100 + off, 1), "next", 0, None, JoinPolicy::Never);
        assert!(next.is_ok());
    }
}

#[test]
fn those_who_wait_are_admitted_in_their_order_and_nobody_before_them() {
    let mut cache = Cache::small();
    let (key, _) = cache.open("a");
    let (alice, bob) = (User::new(1000), User::new(1001));
    assert_eq!(cache.flood(key, alice), 4);
    let first = cache.add_waiting(key, alice, "first");
    let second = cache.add_waiting(key, bob, "second");
    let third = cache.add_waiting(key, USER, "third");
    assert_eq!(cache.answer_read(key, alice), ["first"]);
    assert_eq!(cache.flood(key, bob), 0);
    cache.admitted(first, key, alice);
    // It need not have come back by then.
    assert_eq!(cache.answer_read(key, alice), ["second"]);
    assert_eq!(cache.answer_read(key, alice), ["third"]);
    assert_eq!(cache.answer_read(key, alice), [""; 0]);
    cache.admitted(third, key, USER);
    cache.admitted(second, key, bob);
    assert_eq!(cache.flood(key, bob), 1);
}

#[test]
fn a_user_who_waits_for_an_object_keeps_nobody_else_from_it() {
    let mut cache = Cache::small();
    let (a, _) = cache.open("a");
    let (b, _) = cache.open("b");
    let (alice, bob) = (User::new(1000), User::new(1001));
    assert_eq!(cache.flood(a, alice), 4);
    // These take up what is Alice's, and no more.
    let two = [(); 2].map(|()| cache.add_waiting(a, alice, "object"));
    let three = [(); 3].map(|()| cache.add_waiting(b, alice, "user"));
    assert_eq!(cache.flood(b, bob), 4);
    for _ in 0..4 {
        // In turn, Alice's first.
        cache.answer_read(a, alice);
        cache.answer_read(b, bob);
    }
    for id in two {
        cache.admitted(id, a, alice);
        cache.leave(a, alice);
    }
    for id in three {
        cache.admitted(id, b, alice);
        cache.leave(b, alice);
    }
    assert_eq!(cache.table.users().len(), 0);
}

#[test]
fn whoever_steps_out_of_the_line_gives_back_what_he_took() {
    let mut cache = Cache::small();
    let (key, _) = cache.open("a");
    let alice = User::new(1000);
    assert_eq!(cache.flood(key, alice), 4);
    let ids = ["1", "2", "3", "4", "5"].map(|name| cache.add_waiting(key, alice, name));
    // Two of them wait for the object, the others for Alice's limit.
    assert_eq!(cache.table.remove_waiting(ids[0]), [None; 3]);
    assert_eq!(cache.table.remove_waiting(ids[3]), [None; 3]);
    assert_eq!(cache.table.remove_waiting(ids[3]), [None; 3], "once");
    assert_eq!(cache.answer_read(key, alice), ["2"]);
    // Killed before it knew: the next one.
    let woken = cache.table.remove_waiting(ids[1]);
    assert_eq!(woken, [None, Some("3"), None]);
    cache.admitted(ids[2], key, alice);
    assert_eq!(cache.answer_read(key, alice), ["5"]);
    cache.admitted(ids[4], key, alice);
    assert_eq!(cache.flood(key, alice), 0);
    assert_eq!(cache.table.waiting().len(), 0);
}

#[test]
fn who_was_admitted_may_have_to_bring_memory() {
    let mut cache = Cache::bounded(Bounds {
        table: 1000,
        object: 100,
        user: 1000,
    });
    make_room(10, cache.table.waiting());
    make_room(10, cache.table.users());
    let (a, fd) = cache.open("a");
    let (b, _) = cache.open("b");
    for off in 0..100 {
        cache.read(a, "r", off);
    }
    let id = cache.add_waiting(a, USER, "waker");
    let read = cache.take_read(fd, 0);
    assert!(cache.table.read_complete(read, fd).is_ok());
    assert_eq!(cache.leave(a, USER), ["waker"]);
    cache.fill(b);
    assert_eq!(cache.table.admitted(id), Err(Refused::Full));
    make_room(1, cache.table.requests());
    cache.admitted(id, a, USER);
    cache.fill(b);
    assert!(cache
        .table
        .queue_read(a, (0, 1), "r", 0, None, JoinPolicy::Never)
        .is_ok());
}

#[test]
fn nobody_waits_for_an_object_that_is_gone_or_given_up() {
    for gone in [false, true] {
        let mut cache = Cache::small();
        let (a, _) = cache.open("a");
        let (b, _) = cache.open("b");
        let alice = User::new(1000);
        assert_eq!(cache.flood(a, alice), 4);
        let object = [(); 2].map(|()| cache.add_waiting(a, alice, "object"));
        let account = cache.add_waiting(a, alice, "account");
        let other = cache.add_waiting(b, alice, "other");
        if gone {
            assert_eq!(cache.table.unregister(a), Some("a"));
            let refused = cache.table.add_waiting(a, alice, "late");
            assert_eq!(refused, Err(Refused::Gone));
        } else {
            cache.table.cancel_reads(a);
        }
        // One leaves before it is told.
        let mut woken: Vec<_> = cache
            .table
            .remove_waiting(object[0])
            .into_iter()
            .flatten()
            .collect();
        let mut failed = cache.failed();
        failed.sort();
        assert_eq!(failed, ["flood", "flood", "flood", "flood", "object"]);
        assert_eq!(cache.table.admitted(object[1]), Err(Refused::Gone));
        woken.extend(cache.table.remove_waiting(object[1]).into_iter().flatten());
        for _ in 0..4 {
            woken.extend(cache.leave(a, alice));
        }
        woken.sort();
        // The one that would wait for the object next finds out by itself that it is gone.
        assert_eq!(woken, ["account", "other"]);
        cache.admitted(other, b, alice);
        cache.leave(b, alice);
        if gone {
            assert_eq!(cache.table.admitted(account), Err(Refused::Gone));
            cache.table.remove_waiting(account);
        } else {
            cache.admitted(account, a, alice);
            cache.leave(a, alice);
        }
        assert_eq!(cache.table.users().len(), 0);
        assert_eq!(cache.table.waiting().len(), 0);
    }
}

#[test]
fn nobody_waits_when_the_cache_is_dead() {
    let mut cache = Cache::small();
    let (key, _) = cache.open("a");
    let alice = User::new(1000);
    assert_eq!(cache.flood(key, alice), 4);
    let ids = ["1", "2", "3", "4"].map(|name| cache.add_waiting(key, alice, name));
    cache.table.kill();
    assert_eq!(
        cache.table.add_waiting(key, alice, "late"),
        Err(Refused::Gone)
    );
    let mut failed = cache.failed();
    failed.sort();
    assert_eq!(
        failed,
        ["1", "2", "3", "4", "flood", "flood", "flood", "flood"]
    );
    for id in ids {
        assert_eq!(cache.table.admitted(id), Err(Refused::Gone));
        assert_eq!(cache.table.remove_waiting(id), [None; 3]);
    }
    for _ in 0..4 {
        assert_eq!(cache.leave(key, alice), [""; 0]);
    }
    cache.table.unregister(key);
    assert_eq!(cache.table.users().len(), 0);
}

/// The time that this thread has had a processor, in nanoseconds: others may be busy.
fn thread_time() -> u64 {
    extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0; 2];
    // SAFETY: It is as large as a `struct timespec` of 64 bits.
    assert_eq!(
        unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) },
        0
    );
    time[0] as u64 * 1_000_000_000 + time[1] as u64
}

/// The largest table there may be: what its operations look at, and how long they take.
struct Large {
    cache: Cache,
    objects: Vec<(ObjectKey, u32)>,
    worst: std::collections::BTreeMap<&'static str, (u64, u64)>,
}

impl Large {
    fn new(reads: usize) -> Self {
        let mut this = Large {
            cache: Cache::bounded(Bounds::DEFAULT),
            objects: Vec::new(),
            worst: Default::default(),
        };
        let per_object = Bounds::DEFAULT.object as usize;
        for _ in 0..reads.div_ceil(per_object) {
            let object = this.cache.open("o");
            this.objects.push(object);
        }
        // In turn, so that what one object has is spread over the memory.
        for number in 0..reads {
            let (key, _) = this.objects[number % this.objects.len()];
            this.read(key, number as u64);
        }
        this
    }

    /// Does something that is done in one go.
    fn go<R>(&mut self, what: &'static str, f: impl FnOnce(&mut Table<Names>) -> R) -> R {
        let table = &mut self.cache.table;
        let start = thread_time();
        let (count, ret) = looks(|| f(table));
        let took = thread_time() - start;
        let worst = self.worst.entry(what).or_default();
        *worst = (worst.0.max(count), worst.1.max(took));
        ret
    }

    fn make_room(&mut self) {
        while let Some(want) = self.cache.table.requests().wants(1) {
            let supply = crate::table::slots::Supply::bring(want).unwrap().unwrap();
            let grow = |table: &mut Table<Names>| table.requests().grow(1, supply);
            drop(self.go("growing", grow));
        }
    }

    fn read(&mut self, key: ObjectKey, off: u64) {
        self.make_room();
        let read = |table: &mut Table<Names>| {
            table
                .queue_read(key, (off, 4096), "r", 0, Some(USER), JoinPolicy::Never)
                .is_ok()
        };
        assert!(self.go("reading", read));
    }

    /// Whatever has failed is told so.
    fn complete_failed(&mut self) -> usize {
        let mut count = 0;
        while let Some(failed) = self.go("telling", |table| table.pop_failed()) {
            count += usize::from(!matches!(failed, Failed::Nobody));
        }
        count
    }

    fn run(mut self, reads: usize) -> Self {
        let mut ids = Vec::new();
        while let Delivery::Message { msg_id, .. } =
            self.go("delivering", |table| table.deliver(32))
        {
            ids.push(msg_id);
        }
        assert_eq!(ids.len(), reads);
        let mut at = self.cache.table.begin_restore();
        let mut count = 0;
        while let Some(more) = self.go("restoring", |table| table.restore_some(&mut at)) {
            count += more;
        }
        assert_eq!(count, reads);
        let mut from = usize::MAX;
        while let Some((_, next)) = self.go("watching", |table| table.next_reading(from)) {
            from = next;
        }
        for _ in 0..reads / 2 {
            let delivery = self.go("delivering", |table| table.deliver(32));
            assert!(matches!(delivery, Delivery::Message { .. }));
        }
        // Each of these is about what one object has.
        let objects = self.objects.clone();
        let per_object = Bounds::DEFAULT.object as usize;
        self.go("closing", |table| table.fd_released(objects[0].1));
        self.go("giving up", |table| table.cancel_reads(objects[1].0));
        assert_eq!(self.complete_failed(), per_object);
        self.go("withdrawing", |table| table.unregister(objects[2].0));
        assert_eq!(self.complete_failed(), per_object);
        self.go("killing", |table| table.kill());
        assert_eq!(self.complete_failed(), reads - 2 * per_object);
        for number in 0..reads {
            let (key, _) = objects[number % objects.len()];
            self.go("leaving", |table| table.end_admission(key, USER));
            drop(self.go("shrinking", |table| table.trim()));
        }
        for (key, fd) in objects {
            self.go("withdrawing", |table| table.unregister(key));
            self.go("closing", |table| table.fd_released(fd));
        }
        while self.go("shrinking", |table| table.trim()).is_some() {}
        assert_eq!(self.cache.table.requests().len(), 0);
        let room = self.cache.table.requests().room();
        assert!(room <= 8 * Names::CHUNK, "{room} slots are left");
        self
    }
}

#[test]
fn nothing_looks_at_much_in_one_go() {
    // R14. What is bounded by what one object may have is the most, at some looks for each.
    let reads = 64 * 1024;
    let large = Large::new(reads).run(reads);
    let most = 128 * u64::from(Bounds::DEFAULT.object);
    for (what, (count, _)) in &large.worst {
        assert!(*count < most, "{what}: {count} looks");
    }
    for what in ["reading", "delivering", "leaving", "telling"] {
        assert!(
            large.worst[what].0 < 300,
            "{what}: {} looks",
            large.worst[what].0
        );
    }
}

#[test]
fn closes_of_a_dead_table_go_one_at_a_time() {
    let mut cache = Cache::new();
    let objects: Vec<_> = (0..2000).map(|_| cache.open("o")).collect();
    for (key, _) in objects {
        cache.table.unregister(key);
    }
    cache.table.kill();
    while cache.table.requests().len() > 0 {
        let (count, failed) = looks(|| cache.table.pop_failed());
        assert!(matches!(failed, Some(Failed::Nobody)));
        assert!(count < 100, "{count} looks");
    }
}

#[test]
#[ignore = "for figures: run it in a release build, alone"]
fn how_long_the_lock_is_held_in_a_table_of_half_a_million() {
    let reads = 1 << 19;
    let large = Large::new(reads).run(reads);
    for (what, (count, took)) in &large.worst {
        println!("{what:12} {count:6} looks {:8.1} us", *took as f64 / 1000.0);
    }
}
