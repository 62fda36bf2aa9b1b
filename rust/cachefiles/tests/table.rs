// SPDX-License-Identifier: GPL-2.0

//! The request table, on the kernel's memory.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_table))]
mod tests {
    use super::super::support::{
        make_room,
        Heap, //
    };
    use crate::{
        protocol::{
            command::Reply,
            errno::Errno, //
        },
        table::{
            slots::Storage,
            Bounds,
            Delivery,
            Failed,
            JoinPolicy,
            ObjectKey,
            Refused,
            Table,
            Types,
            User, //
        }, //
    };

    struct Names;

    impl Storage for Names {
        type Buf<T> = <Heap as Storage>::Buf<T>;
        type Error = ();
        const CHUNK: usize = Heap::CHUNK;

        fn alloc<T>(capacity: usize) -> Result<Self::Buf<T>, ()> {
            Heap::alloc(capacity)
        }
    }

    impl Types for Names {
        type Object = &'static str;
        type Waiter = &'static str;
        type Read = &'static str;
        type Version = &'static str;
        type Waker = &'static str;

        // They do not.
        fn join(_other: &mut &'static str, _read: &'static str) {}
    }

    const ROOM: usize = 1024;

    fn table() -> Table<Names> {
        let mut table = Table::new(Bounds {
            object: 4,
            user: 2,
            table: 5,
        });
        make_room(table.requests(), 64);
        make_room(table.objects(), 64);
        make_room(table.handles(), 64);
        make_room(table.users(), 4);
        make_room(table.waiting(), 4);
        table
    }

    /// The first READ of a reader that no bound for users applies to.
    fn read(
        table: &mut Table<Names>,
        key: ObjectKey,
        off: u64,
        name: &'static str,
        now: u64,
    ) -> bool {
        let admit = Some(User::EXEMPT);
        table
            .queue_read(key, (off, 4096), name, now, admit, JoinPolicy::Never)
            .is_ok()
    }

    fn restore(table: &mut Table<Names>) {
        let mut at = table.begin_restore();
        while table.restore_some(&mut at).is_some() {}
    }

    fn lookup(table: &mut Table<Names>) -> Option<(ObjectKey, u32)> {
        table.register("object", 40, 1 << 20, "lookup").ok()
    }

    /// Reads an OPEN; its message id and file descriptor.
    fn read_open(table: &mut Table<Names>) -> Option<(u32, u32)> {
        let Delivery::Open { msg_id, .. } = table.deliver(ROOM) else {
            return None;
        };
        let fd = table.issue(msg_id).ok()?;
        table.installed(fd);
        Some((msg_id, fd))
    }

    /// Reads another message; its message id, opcode and file descriptor.
    fn read_other(table: &mut Table<Names>) -> Option<(u32, u32, u32)> {
        let Delivery::Message { msg_id, msg } = table.deliver(ROOM) else {
            return None;
        };
        table.delivered(msg_id);
        let word = |at: usize| Some(u32::from_ne_bytes(*msg.as_bytes()[at..].first_chunk()?));
        let (opcode, fd) = (word(4)?, word(12)?);
        Some((msg_id, opcode, fd))
    }

    fn open(table: &mut Table<Names>) -> Option<(ObjectKey, u32)> {
        let (key, _) = lookup(table)?;
        let (msg_id, fd) = read_open(table)?;
        let told = table.copen(msg_id, Ok(Reply::Size(8192)), None);
        (told == (Some(("lookup", Ok(8192))), Ok(()))).then_some((key, fd))
    }

    fn is_empty(table: &mut Table<Names>) -> bool {
        table.requests().len() == 0 && table.handles().len() == 0
    }

    #[test]
    fn an_object_lives_from_open_to_close() {
        let mut table = table();
        assert!(!table.is_ready());
        let opened = open(&mut table);
        assert!(opened.is_some());
        let Some((key, fd)) = opened else { return };
        assert!(read(&mut table, key, 0, "read", 0));
        assert!(table.is_ready() && table.take_wake());
        let read = read_other(&mut table);
        assert!(read.is_some_and(|read| (read.1, read.2) == (2, fd)));
        let (msg_id, ..) = read.unwrap_or_default();
        // Through its own file descriptor only, and once.
        let wrong = table.read_complete(msg_id, fd + 1);
        assert_eq!(wrong, Err(Errno::EINVAL));
        assert_eq!(table.read_complete(msg_id, fd), Ok("read"));
        assert_eq!(table.read_complete(msg_id, fd), Err(Errno::EINVAL));
        assert_eq!(table.unregister(key), Some("object"));
        let close = read_other(&mut table);
        assert!(close.is_some_and(|close| (close.1, close.2) == (1, fd)));
        table.fd_released(fd);
        assert!(is_empty(&mut table));
    }

    #[test]
    fn an_open_is_answered_once() {
        let mut table = table();
        assert!(lookup(&mut table).is_some());
        let (msg_id, _) = read_open(&mut table).unwrap_or_default();
        let failed = Ok(Reply::Failed(Errno(5)));
        let told = table.copen(msg_id, failed, None);
        assert_eq!(told, (Some(("lookup", Err(Errno(5)))), Ok(())));
        let again = table.copen(msg_id, Ok(Reply::Size(1)), None);
        assert_eq!(again, (None, Err(Errno::EINVAL)));
    }

    #[test]
    fn an_object_has_a_size_from_its_first_good_answer_on() {
        let mut table = table();
        let found = lookup(&mut table);
        assert!(found.is_some());
        let Some((key, _)) = found else { return };
        let (msg_id, fd) = read_open(&mut table).unwrap_or_default();
        assert!(!table.has_size(fd));
        let told = table.copen(msg_id, Ok(Reply::Size(8192)), None);
        assert_eq!(told, (Some(("lookup", Ok(8192))), Ok(())));
        assert!(table.has_size(fd) && !table.has_size(fd + 1));
        assert_eq!(table.unregister(key), Some("object"));
        assert!(!table.has_size(fd));
        table.fd_released(fd);

        let found = lookup(&mut table);
        let (msg_id, fd) = read_open(&mut table).unwrap_or_default();
        assert!(found.is_some() && fd != 0);
        let told = table.copen(msg_id, Ok(Reply::Failed(Errno(5))), None);
        assert_eq!(told, (Some(("lookup", Err(Errno(5)))), Ok(())));
        assert!(!table.has_size(fd));
    }

    #[test]
    fn a_message_that_does_not_fit_stays() {
        let mut table = table();
        assert!(lookup(&mut table).is_some());
        assert!(matches!(table.deliver(39), Delivery::TooSmall));
        assert!(table.is_ready());
        assert!(read_open(&mut table).is_some());
        assert!(matches!(table.deliver(ROOM), Delivery::Empty));
    }

    #[test]
    fn a_read_comes_again_when_its_file_descriptor_is_closed() {
        let mut table = table();
        let opened = open(&mut table);
        assert!(opened.is_some());
        let Some((key, fd)) = opened else { return };
        assert!(read(&mut table, key, 0, "read", 0));
        let first = read_other(&mut table).unwrap_or_default();
        table.fd_released(fd);
        let (open, new) = read_open(&mut table).unwrap_or_default();
        assert!(new != 0 && new != fd);
        // Not before the answer.
        assert!(!table.is_ready());
        assert_eq!(
            table.copen(open, Ok(Reply::Size(8192)), None),
            (None, Ok(()))
        );
        assert_eq!(read_other(&mut table), Some((first.0, 2, new)));
        assert_eq!(table.read_complete(first.0, new), Ok("read"));
    }

    #[test]
    fn restore_brings_back_what_the_old_daemon_had() {
        let mut table = table();
        let opened = open(&mut table);
        assert!(opened.is_some());
        let Some((key, fd)) = opened else { return };
        assert!(read(&mut table, key, 0, "one", 0));
        assert!(read(&mut table, key, 4096, "two", 0));
        let (one, two) = (read_other(&mut table), read_other(&mut table));
        assert!(one.is_some() && two.is_some() && !table.is_ready());
        restore(&mut table);
        assert_eq!((read_other(&mut table), read_other(&mut table)), (one, two));
        assert_eq!(one.map(|one| one.2), Some(fd));
    }

    #[test]
    fn only_what_waited_too_long_is_overdue() {
        let mut table = table();
        let opened = open(&mut table);
        assert!(opened.is_some());
        let Some((key, fd)) = opened else { return };
        assert!(read(&mut table, key, 0, "one", 100));
        assert!(read(&mut table, key, 4096, "two", 105));
        let one = read_other(&mut table).unwrap_or_default();
        assert_eq!(table.pop_overdue(110, 10), None);
        assert_eq!(table.pop_overdue(111, 10), Some("one"));
        assert_eq!(table.pop_overdue(111, 10), None);
        // It is gone for the daemon, too.
        assert_eq!(table.read_complete(one.0, fd), Err(Errno::EINVAL));
        assert_eq!(table.pop_overdue(u64::MAX, 10), Some("two"));
        assert_eq!(table.pop_overdue(u64::MAX, 10), None);
    }

    #[test]
    fn everybody_is_told_of_death_once() {
        let mut table = table();
        let opened = open(&mut table);
        assert!(opened.is_some());
        let Some((key, _)) = opened else { return };
        assert!(read(&mut table, key, 0, "read", 0));
        assert!(lookup(&mut table).is_some());
        table.kill();
        assert!(table.is_dead() && !table.is_ready());
        let (mut reads, mut lookups) = (0, 0);
        while let Some(failed) = table.pop_failed() {
            match failed {
                Failed::Read(name) => reads += i32::from(name == "read"),
                Failed::Waiter(name) => lookups += i32::from(name == "lookup"),
                Failed::Waker(_) | Failed::Nobody => {}
            }
        }
        assert_eq!((reads, lookups), (1, 1));
        assert_eq!(table.requests().len(), 0);
        assert!(!read(&mut table, key, 0, "late", 0));
        assert!(lookup(&mut table).is_none());
        assert!(matches!(table.deliver(ROOM), Delivery::Empty));
    }
    #[test]
    fn who_has_too_much_waits_for_what_is_given_back() {
        let mut table = table();
        let opened = open(&mut table);
        assert!(opened.is_some());
        let Some((key, fd)) = opened else { return };
        let user = User::new(1000);
        for off in [0, 4096] {
            let queued =
                table.queue_read(key, (off, 4096), "read", 0, Some(user), JoinPolicy::Never);
            assert!(queued.is_ok());
        }
        let refused = table.queue_read(key, (8192, 4096), "read", 0, Some(user), JoinPolicy::Never);
        assert!(matches!(refused, Err((Refused::OverLimit, "read"))));
        let line = table.add_waiting(key, user, "waker");
        assert!(line.is_ok());
        let Ok(line) = line else { return };
        assert_eq!(table.admitted(line), Ok(false));
        // Another user's are no concern of theirs.
        assert!(read(&mut table, key, 16384, "other", 0));

        let one = read_other(&mut table).unwrap_or_default();
        assert_eq!(table.read_complete(one.0, fd), Ok("read"));
        assert_eq!(table.end_admission(key, user), [Some("waker"), None, None]);
        assert_eq!(table.admitted(line), Ok(true));
        let queued = table.queue_read(key, (8192, 4096), "read", 0, None, JoinPolicy::Never);
        assert!(queued.is_ok());
    }

    #[test]
    fn objects_and_others_take_turns() {
        let mut table = table();
        let (one, two) = (open(&mut table), open(&mut table));
        assert!(one.is_some() && two.is_some());
        let (Some((one, fd_one)), Some((two, fd_two))) = (one, two) else {
            return;
        };
        for off in [0, 4096, 8192] {
            assert!(read(&mut table, one, off, "read", 0));
        }
        assert!(read(&mut table, two, 0, "read", 0));
        assert!(lookup(&mut table).is_some());
        let fd = |table: &mut Table<Names>| read_other(table).map(|other| other.2);
        // An OPEN was the last.
        assert_eq!(fd(&mut table), Some(fd_one));
        assert!(read_open(&mut table).is_some());
        assert_eq!(fd(&mut table), Some(fd_two));
        assert_eq!(fd(&mut table), Some(fd_one));
    }
}
