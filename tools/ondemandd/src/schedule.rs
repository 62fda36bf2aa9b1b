// SPDX-License-Identifier: GPL-2.0-or-later

//! Which of the jobs that wait is started next, and how many run at once.
//!
//! Jobs have a key, the blob that they are for, and a server that has to do something for them. The
//! rules:
//!
//! * There are limits for the jobs that run in all, and for each server.
//! * Blobs take turns. The jobs of one are started in the order in which they came.
//! * The first job of a blob may use all of the room. Those that are to run beside it share nearly half
//!   of the room, and a blob never has more of them than it leaves room for. So a blob that is slow
//!   cannot take everything, and neither can a few: it takes as many slow blobs as the other half has
//!   room for until one that comes finds none.
//! * Prefetching is started only if no other job can be, takes no more than a quarter of the room, and
//!   never the last of it, nor more than a few of one server's: they share its link with whoever comes
//!   to wait. A blob's share of the room is the same with it and without.
//! * What is fetched in the background is as prefetching, and is started only if the server does
//!   nothing else for anybody; so there is one such job for each server.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

/// How many jobs run at once.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// In all.
    pub all: usize,
    /// That are for one server.
    pub per_server: usize,
}

/// How many jobs prefetch from one server at once. They ask for 1 MiB each, so that is enough for a link
/// with a product of bandwidth and delay of some MiB, and what was wanted first is there first.
const AHEAD_PER_SERVER: usize = 4;

/// The jobs that wait, and how many run.
pub struct Schedule<K, J> {
    room: Room,
    blobs: HashMap<K, Blob<J>>,
    /// Those for which there is anything; few. The next one to have its turn is in front.
    servers: VecDeque<Server<K>>,
    running: Running,
}

/// What there is of one server.
struct Server<K> {
    name: Arc<str>,
    /// The blobs that have jobs waiting, each once; the next one to have its turn is in front.
    turns: VecDeque<K>,
    /// The same for prefetching, ...
    ahead_turns: VecDeque<K>,
    /// ... and for the background.
    last_turns: VecDeque<K>,
    running: Running,
}

impl<K> Server<K> {
    fn is_idle(&self) -> bool {
        self.turns.is_empty()
            && self.ahead_turns.is_empty()
            && self.last_turns.is_empty()
            && self.running.all == 0
    }

    fn turns(&mut self, class: Class) -> &mut VecDeque<K> {
        match class {
            Class::Asked => &mut self.turns,
            Class::Ahead => &mut self.ahead_turns,
            Class::Last => &mut self.last_turns,
        }
    }
}

/// How important jobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for it.
    Asked,
    /// Somebody may want it soon.
    Ahead,
    /// Nobody may want it for long.
    Last,
}

/// How many jobs run.
#[derive(Clone, Copy, Default)]
struct Running {
    all: usize,
    /// Those of them that prefetch.
    ahead: usize,
    /// Those of the others that are not the only one of their blob.
    beside: usize,
}

/// How a job runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    First,
    Beside,
    Ahead,
}

impl Running {
    fn add(&mut self, kind: Kind) {
        self.all += 1;
        self.ahead += usize::from(kind == Kind::Ahead);
        self.beside += usize::from(kind == Kind::Beside);
    }

    fn sub(&mut self, kind: Kind) {
        self.all -= 1;
        self.ahead -= usize::from(kind == Kind::Ahead);
        self.beside -= usize::from(kind == Kind::Beside);
    }

    /// How many jobs may be added within a limit.
    fn room(self, limit: usize) -> usize {
        limit.saturating_sub(self.all)
    }

    /// How many of those that are not the only one of their blob.
    fn room_beside(self, limit: usize) -> usize {
        (limit.saturating_sub(1) / 2).saturating_sub(self.beside)
    }

    /// Without those that prefetch.
    fn asked(self) -> usize {
        self.all - self.ahead
    }
}

/// What there is of one blob. It is kept as long as there is anything.
struct Blob<J> {
    server: Arc<str>,
    waiting: VecDeque<J>,
    ahead: Option<J>,
    last: Option<J>,
    running: Running,
}

impl<J> Blob<J> {
    fn new(server: &Arc<str>) -> Self {
        Self {
            server: Arc::clone(server),
            waiting: VecDeque::new(),
            ahead: None,
            last: None,
            running: Running::default(),
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.ahead.is_none()
            && self.last.is_none()
            && self.running.all == 0
    }
}

/// A job that runs. It counts until it is [finished](Schedule::finish).
pub struct Ticket<K> {
    key: K,
    server: Arc<str>,
    class: Class,
}

impl<K: Clone + Eq + Hash, J> Schedule<K, J> {
    pub fn new(room: Room) -> Self {
        Self {
            room,
            blobs: HashMap::new(),
            servers: VecDeque::new(),
            running: Running::default(),
        }
    }

    fn server(&mut self, name: &Arc<str>) -> &mut Server<K> {
        let at = match self.servers.iter().position(|server| server.name == *name) {
            Some(at) => at,
            None => {
                self.servers.push_back(Server {
                    name: Arc::clone(name),
                    turns: VecDeque::new(),
                    ahead_turns: VecDeque::new(),
                    last_turns: VecDeque::new(),
                    running: Running::default(),
                });
                self.servers.len() - 1
            }
        };
        &mut self.servers[at]
    }

    fn blob(&mut self, key: &K, server: &Arc<str>) -> &mut Blob<J> {
        self.blobs
            .entry(key.clone())
            .or_insert_with(|| Blob::new(server))
    }

    /// A job to be done after those of the blob that wait already.
    pub fn push(&mut self, key: &K, server: &Arc<str>, job: J) {
        self.put(key, server, |waiting| waiting.push_back(job));
    }

    /// A job to be done before the others of its blob.
    pub fn push_front(&mut self, key: &K, server: &Arc<str>, job: J) {
        self.put(key, server, |waiting| waiting.push_front(job));
    }

    fn put(&mut self, key: &K, server: &Arc<str>, put: impl FnOnce(&mut VecDeque<J>)) {
        let blob = self.blob(key, server);
        let first = blob.waiting.is_empty();
        put(&mut blob.waiting);
        if first {
            let server = Arc::clone(&blob.server);
            self.server(&server).turns.push_back(key.clone());
        }
    }

    /// A job to be done if there is nothing better to do. One of its kind is kept for each blob.
    pub fn push_ahead(&mut self, key: &K, server: &Arc<str>, job: J) {
        let blob = self.blob(key, server);
        if blob.ahead.replace(job).is_none() {
            let server = Arc::clone(&blob.server);
            self.server(&server).ahead_turns.push_back(key.clone());
        }
    }

    /// The same in the background.
    pub fn push_last(&mut self, key: &K, server: &Arc<str>, job: J) {
        let blob = self.blob(key, server);
        if blob.last.replace(job).is_none() {
            let server = Arc::clone(&blob.server);
            self.server(&server).last_turns.push_back(key.clone());
        }
    }

    /// How much room there is for jobs for this server, by one way to count it.
    fn room_for(&self, server: &Server<K>, room: fn(Running, usize) -> usize) -> usize {
        let all = room(self.running, self.room.all);
        all.min(room(server.running, self.room.per_server))
    }

    /// Whose turn it is at this server: its place among those who wait. Those who may not run have jobs
    /// that run, so there are not many to look at.
    fn turn(&self, server: &Server<K>) -> Option<usize> {
        if self.room_for(server, Running::room) == 0 {
            return None;
        }
        let beside = self.room_for(server, Running::room_beside);
        server.turns.iter().position(|key| {
            let running = self.blobs.get(key).map(|blob| blob.running.asked());
            running.is_some_and(|running| running == 0 || running - 1 < beside)
        })
    }

    fn may_prefetch(&self, server: &Server<K>) -> bool {
        !server.ahead_turns.is_empty()
            && server.running.ahead < AHEAD_PER_SERVER
            && self.running.ahead < self.room.all.div_ceil(4)
            && self.room_for(server, Running::room) > 1
    }

    fn may_go_last(&self, server: &Server<K>) -> bool {
        !server.last_turns.is_empty()
            && server.running.all == 0
            && self.running.ahead < self.room.all.div_ceil(4)
            && self.room_for(server, Running::room) > 1
    }

    /// Which server has its turn, which of its blobs, and for what.
    fn choose(&self) -> Option<(usize, usize, Class)> {
        let mut servers = self.servers.iter().enumerate();
        let turn = servers.find_map(|(at, server)| Some((at, self.turn(server)?, Class::Asked)));
        let first = |class, may: fn(&Self, &Server<K>) -> bool| {
            let at = self.servers.iter().position(|server| may(self, server));
            at.map(|at| (at, 0, class))
        };
        turn.or_else(|| first(Class::Ahead, Self::may_prefetch))
            .or_else(|| first(Class::Last, Self::may_go_last))
    }

    /// Whether [`Self::next`] has something.
    pub fn is_ready(&self) -> bool {
        self.choose().is_some()
    }

    /// The next job to run, if one may.
    pub fn next(&mut self) -> Option<(Ticket<K>, J)> {
        let (server_at, blob_at, class) = self.choose()?;
        let mut server = self.servers.remove(server_at)?;
        let next = server.turns(class).remove(blob_at).and_then(|key| {
            let blob = self.blobs.get_mut(&key)?;
            let job = match class {
                Class::Asked => blob.waiting.pop_front(),
                Class::Ahead => blob.ahead.take(),
                Class::Last => blob.last.take(),
            };
            if class == Class::Asked && !blob.waiting.is_empty() {
                server.turns.push_back(key.clone());
            }
            let kind = match blob.running.asked() {
                _ if class != Class::Asked => Kind::Ahead,
                0 => Kind::First,
                _ => Kind::Beside,
            };
            blob.running.add(kind);
            self.running.add(kind);
            server.running.add(kind);
            Some((key, job?))
        });
        let name = Arc::clone(&server.name);
        self.servers.push_back(server);
        let (key, job) = next?;
        let ticket = Ticket {
            key,
            server: name,
            class,
        };
        Some((ticket, job))
    }

    /// A job that ran has come to its end.
    pub fn finish(&mut self, ticket: Ticket<K>) {
        let Ticket { key, server, class } = ticket;
        let Some(blob) = self.blobs.get_mut(&key) else {
            return;
        };
        // Those that are left move up: it does not matter which of them was the first.
        let kind = match blob.running.asked() {
            _ if class != Class::Asked => Kind::Ahead,
            1 => Kind::First,
            _ => Kind::Beside,
        };
        blob.running.sub(kind);
        self.running.sub(kind);
        self.server(&server).running.sub(kind);
        self.forget_if_idle(&key);
    }

    /// Takes out those jobs of a blob that wait and are `unwanted`.
    pub fn remove(&mut self, key: &K, mut unwanted: impl FnMut(&J) -> bool) -> Vec<J> {
        let Some(blob) = self.blobs.get_mut(key) else {
            return Vec::new();
        };
        let name = Arc::clone(&blob.server);
        let mut removed = Vec::new();
        for job in std::mem::take(&mut blob.waiting) {
            if unwanted(&job) {
                removed.push(job);
            } else {
                blob.waiting.push_back(job);
            }
        }
        removed.extend(blob.ahead.take_if(|job| unwanted(job)));
        removed.extend(blob.last.take_if(|job| unwanted(job)));
        let (waits, ahead_waits) = (!blob.waiting.is_empty(), blob.ahead.is_some());
        let last_waits = blob.last.is_some();
        let server = self.server(&name);
        server.turns.retain(|other| other != key || waits);
        server
            .ahead_turns
            .retain(|other| other != key || ahead_waits);
        server.last_turns.retain(|other| other != key || last_waits);
        self.forget_if_idle(key);
        removed
    }

    /// Takes out all jobs that wait.
    pub fn clear(&mut self) -> Vec<J> {
        let keys: Vec<K> = self.blobs.keys().cloned().collect();
        keys.iter()
            .flat_map(|key| self.remove(key, |_| true))
            .collect()
    }

    fn forget_if_idle(&mut self, key: &K) {
        if self.blobs.get(key).is_some_and(Blob::is_idle) {
            self.blobs.remove(key);
        }
        self.servers.retain(|server| !server.is_idle());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Numbers = Schedule<u32, u32>;

    fn schedule(all: usize, per_server: usize) -> Numbers {
        Schedule::new(Room { all, per_server })
    }

    fn server(name: &str) -> Arc<str> {
        name.into()
    }

    /// Starts whatever may run.
    fn start(schedule: &mut Numbers) -> (Vec<Ticket<u32>>, Vec<u32>) {
        std::iter::from_fn(|| schedule.next()).unzip()
    }

    #[test]
    fn blobs_take_turns_and_leave_room() {
        let (mut s, a) = (schedule(8, 8), server("a"));
        for job in 0..1000 {
            s.push(&1, &a, job);
        }
        let (_, jobs) = start(&mut s);
        assert_eq!(jobs, [0, 1, 2]);
        // Whoever comes later finds room, and is not behind a thousand others.
        for blob in 2..8 {
            for job in 0..10 {
                s.push(&blob, &a, 1000 * blob + job);
            }
        }
        let (_, jobs) = start(&mut s);
        assert_eq!(jobs, [2000, 3000, 4000, 5000, 6000]);
        assert!(!s.is_ready());
    }

    #[test]
    fn it_takes_many_slow_blobs_to_be_in_the_way() {
        for (all, free) in [(2, 2), (3, 2), (4, 3), (8, 5), (64, 33)] {
            let (mut s, a) = (schedule(all, all), server("a"));
            for blob in 1..free {
                for job in 0..1000 {
                    s.push(&blob, &a, job);
                }
                assert!(!start(&mut s).1.is_empty());
            }
            // There is room for one more, however the others came.
            s.push(&7000, &a, 7000);
            assert_eq!(start(&mut s).1, [7000], "{all}");
        }
    }

    #[test]
    fn a_slot_that_gets_free_is_used_in_turn() {
        let (mut s, a) = (schedule(2, 2), server("a"));
        for job in 0..3 {
            s.push(&1, &a, 100 + job);
            s.push(&2, &a, 200 + job);
        }
        let mut order = Vec::new();
        while let Some((ticket, job)) = s.next() {
            order.push(job);
            s.finish(ticket);
        }
        assert_eq!(order, [100, 200, 101, 201, 102, 202]);
        assert!(s.blobs.is_empty() && s.servers.is_empty());
    }

    #[test]
    fn one_server_does_not_use_up_the_room_of_another() {
        let (mut s, a, b) = (schedule(8, 4), server("a"), server("b"));
        for blob in 0..100 {
            s.push(&blob, &a, blob);
        }
        assert_eq!(start(&mut s).1, [0, 1, 2, 3]);
        s.push(&200, &b, 200);
        assert_eq!(start(&mut s).1, [200]);
    }

    #[test]
    fn prefetching_comes_last() {
        let (mut s, a) = (schedule(8, 8), server("a"));
        s.push_ahead(&1, &a, 1);
        s.push_ahead(&1, &a, 2);
        s.push(&1, &a, 10);
        s.push(&2, &a, 20);
        let (mut tickets, jobs) = start(&mut s);
        // One of a kind; the last one.
        assert_eq!(jobs, [10, 20, 2]);
        for blob in 3..10 {
            s.push_ahead(&blob, &a, blob);
        }
        let (more, jobs) = start(&mut s);
        assert_eq!(jobs, [3]);
        s.finish(tickets.pop().unwrap());
        assert_eq!(start(&mut s).1, [4]);
        drop(more);
        // It is not in the way of the blob that it is for.
        let (mut s, a) = (schedule(2, 2), server("a"));
        s.push_ahead(&1, &a, 1);
        assert_eq!(start(&mut s).1, [1]);
        s.push(&1, &a, 10);
        assert_eq!(start(&mut s).1, [10]);
        // The last slot is never taken.
        let mut s = schedule(1, 1);
        s.push_ahead(&1, &a, 1);
        assert!(s.next().is_none());
        s.push(&1, &a, 10);
        assert_eq!(start(&mut s).1, [10]);
    }

    #[test]
    fn a_server_is_not_flooded_by_prefetching() {
        let (mut s, a, b) = (schedule(128, 64), server("a"), server("b"));
        for blob in 0..10 {
            s.push_ahead(&blob, &a, blob);
        }
        s.push_ahead(&10, &b, 10);
        let (mut tickets, jobs) = start(&mut s);
        assert_eq!(jobs, [0, 10, 1, 2, 3]);
        s.finish(tickets.remove(0));
        assert_eq!(start(&mut s).1, [4]);
    }

    #[test]
    fn the_background_waits_for_everything_else() {
        let (mut s, a, b) = (schedule(8, 8), server("a"), server("b"));
        s.push_last(&1, &a, 1);
        s.push_last(&1, &a, 2);
        s.push_last(&2, &a, 3);
        s.push_ahead(&1, &a, 5);
        s.push(&1, &a, 10);
        let (tickets, jobs) = start(&mut s);
        // Nothing beside what somebody waits for or may want; another server is another one.
        assert_eq!(jobs, [10, 5]);
        s.push_last(&3, &b, 30);
        let (other, jobs) = start(&mut s);
        assert_eq!(jobs, [30]);
        for ticket in tickets {
            assert!(start(&mut s).1.is_empty());
            s.finish(ticket);
        }
        // One at a time, and who comes then does not wait for it.
        let (mut tickets, jobs) = start(&mut s);
        assert_eq!(jobs, [2]);
        s.push(&2, &a, 20);
        let (more, jobs) = start(&mut s);
        assert_eq!(jobs, [20]);
        s.finish(tickets.pop().unwrap());
        assert!(start(&mut s).1.is_empty());
        more.into_iter().chain(other).for_each(|t| s.finish(t));
        let (tickets, jobs) = start(&mut s);
        assert_eq!(jobs, [3]);
        s.push_last(&3, &b, 31);
        assert_eq!(s.remove(&3, |_| true), [31]);
        tickets.into_iter().for_each(|t| s.finish(t));
        assert!(s.blobs.is_empty() && s.servers.is_empty());
        // The last slot is never taken.
        let mut s = schedule(1, 1);
        s.push_last(&1, &a, 1);
        assert!(s.next().is_none());
    }

    #[test]
    fn what_nobody_wants_is_removed() {
        let (mut s, a) = (schedule(4, 4), server("a"));
        for job in 0..4 {
            s.push(&1, &a, job);
        }
        s.push(&2, &a, 20);
        s.push_ahead(&1, &a, 5);
        assert_eq!(s.remove(&1, |job| job % 2 == 1), [1, 3, 5]);
        assert!(s.remove(&7, |_| true).is_empty());
        let (tickets, jobs) = start(&mut s);
        assert_eq!(jobs, [0, 20, 2]);
        s.push(&3, &a, 30);
        assert_eq!(s.remove(&3, |_| true), [30]);
        s.push(&3, &a, 31);
        s.clear();
        assert!(s.next().is_none());
        for ticket in tickets {
            s.finish(ticket);
        }
        assert!(s.blobs.is_empty());
    }

    proptest! {
        /// Whatever comes and goes: the limits hold, nothing is lost or done twice, and all is done in
        /// the end.
        #[test]
        fn everything_is_done_within_the_limits(
            all in 1usize..9, per_server in 1usize..9,
            steps in proptest::collection::vec((0u32..5, 0u32..4, 0usize..8), 1..80),
        ) {
            let mut s = schedule(all, per_server);
            let servers = [server("a"), server("b")];
            let mut wanted = std::collections::BTreeSet::new();
            let mut running: Vec<(Ticket<u32>, u32)> = Vec::new();
            let mut number = 0;
            for (blob, what, at) in steps {
                let server = &servers[blob as usize % 2];
                match what {
                    0 | 1 => {
                        number += 1;
                        wanted.insert(number);
                        if what == 0 { s.push(&blob, server, number) } else { s.push_front(&blob, server, number) }
                    }
                    2 => {
                        // Of these, one is kept.
                        let waits = s.blobs.get(&blob).and_then(|blob| blob.last);
                        number += 1;
                        wanted.insert(number);
                        s.push_last(&blob, server, number);
                        waits.map(|job| wanted.remove(&job));
                    }
                    _ if at < running.len() => s.finish(running.remove(at).0),
                    _ => {}
                }
                while let Some((ticket, job)) = s.next() {
                    prop_assert!(wanted.remove(&job));
                    running.push((ticket, job));
                }
                prop_assert!(running.len() <= all);
                for server in &servers {
                    let of_server = running.iter().filter(|(t, _)| t.server == *server);
                    prop_assert!(of_server.count() <= per_server);
                }
            }
            while let Some((ticket, _)) = running.pop() {
                s.finish(ticket);
                while let Some((ticket, job)) = s.next() {
                    prop_assert!(wanted.remove(&job));
                    running.push((ticket, job));
                }
            }
            // The background is not started where there is one slot.
            let left = s.clear();
            prop_assert!(left.is_empty() || all.min(per_server) == 1);
            left.iter().for_each(|job| { wanted.remove(job); });
            prop_assert!(wanted.is_empty());
            prop_assert!(s.blobs.is_empty() && s.servers.is_empty());
        }
    }
}
