// SPDX-License-Identifier: GPL-2.0-or-later

//! The threads that fetch. They are started when there is something to do and end when there has been
//! nothing for a while.
//!
//! What there is to do is of two kinds, OPENs and what follows them, each with room of its own: neither
//! waits for the other.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::schedule::{Room, Schedule, Ticket};

/// How long a thread waits for something to do.
const IDLE: Duration = Duration::from_secs(10);

/// So many threads do not end for that reason: a system that is out of threads has these.
const KEPT: usize = 2;

/// OPENs, by the name of the blob.
pub type Opens<J> = Schedule<String, J>;

/// READs and prefetching, by the id of the object.
pub type Fetches<J> = Schedule<u32, J>;

pub struct Pool<J> {
    state: Mutex<State<J>>,
    /// There is something to do, or it is time to end.
    work: Condvar,
    /// The last thread has ended.
    ended: Condvar,
}

struct State<J> {
    opens: Opens<J>,
    fetches: Fetches<J>,
    threads: usize,
    idle: usize,
    /// How many threads have been told or started to look whether there is something to do, and have not
    /// looked yet.
    called: usize,
    stopped: bool,
}

/// Which kind of job has come to its end.
enum Done {
    Open(Ticket<String>),
    Fetch(Ticket<u32>),
}

impl<J> State<J> {
    fn next(&mut self) -> Option<(Done, J)> {
        if let Some((ticket, job)) = self.opens.next() {
            return Some((Done::Open(ticket), job));
        }
        let (ticket, job) = self.fetches.next()?;
        Some((Done::Fetch(ticket), job))
    }

    fn is_ready(&self) -> bool {
        self.opens.is_ready() || self.fetches.is_ready()
    }

    fn finish(&mut self, done: Done) {
        match done {
            Done::Open(ticket) => self.opens.finish(ticket),
            Done::Fetch(ticket) => self.fetches.finish(ticket),
        }
    }
}

impl<J: Send + 'static> Pool<J> {
    pub fn new(room: Room) -> Self {
        Self {
            state: Mutex::new(State {
                opens: Schedule::new(room),
                fetches: Schedule::new(room),
                threads: 0,
                idle: 0,
                called: 0,
                stopped: false,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what there is to do. Returns whether a thread [has to be started](Self::run) for that.
    #[must_use]
    pub fn change(&self, change: impl FnOnce(&mut Opens<J>, &mut Fetches<J>)) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        if state.stopped {
            return false;
        }
        change(&mut state.opens, &mut state.fetches);
        self.call(state)
    }

    /// Has a thread look whether there is something to do, one at a time: it takes one job, and calls
    /// the next. Returns whether that thread has to be started; it counts already.
    fn call(&self, state: &mut State<J>) -> bool {
        if state.called > 0 || !state.is_ready() {
            return false;
        }
        state.called += 1;
        if state.idle > 0 {
            self.work.notify_one();
            return false;
        }
        state.threads += 1;
        true
    }

    /// A thread that counts could not be started.
    pub fn not_started(&self) {
        let mut state = self.state();
        state.threads -= 1;
        state.called = state.called.saturating_sub(1);
        self.ended.notify_all();
    }

    /// How many threads are to be started first; they count from now on.
    pub fn first_threads(&self) -> usize {
        let mut state = self.state();
        state.threads += KEPT;
        state.called += KEPT;
        KEPT
    }

    /// The life of a thread that counts: does what there is to do. `more` is to start another one.
    pub fn run(&self, mut work: impl FnMut(J), more: impl Fn()) {
        let mut state = self.state();
        state.called = state.called.saturating_sub(1);
        while let Some((done, job)) = self.next(state, &more) {
            work(job);
            state = self.state();
            state.finish(done);
        }
    }

    /// Waits for something to do. If there is nothing, the thread does not count any more.
    fn next<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<J>>,
        more: &impl Fn(),
    ) -> Option<(Done, J)> {
        let mut end = Instant::now() + IDLE;
        loop {
            if state.stopped {
                break;
            }
            if let Some(next) = state.next() {
                let start = self.call(&mut state);
                drop(state);
                if start {
                    more();
                }
                return Some(next);
            }
            let mut left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if state.threads > KEPT {
                    break;
                }
                end += IDLE;
                left = IDLE;
            }
            state.idle += 1;
            let (woken, timeout) = self
                .work
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if !timeout.timed_out() || state.idle == 0 {
                state.called = state.called.saturating_sub(1);
            }
        }
        state.threads -= 1;
        self.ended.notify_all();
        None
    }

    /// Nothing more is started. Returns what has not been.
    pub fn stop(&self) -> Vec<J> {
        let mut state = self.state();
        state.stopped = true;
        let mut left = state.opens.clear();
        left.extend(state.fetches.clear());
        self.work.notify_all();
        left
    }

    /// Waits until all threads have ended, but not longer than `time`. Returns whether they have.
    pub fn join(&self, time: Duration) -> bool {
        let (state, _) = self
            .ended
            .wait_timeout_while(self.state(), time, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.threads == 0
    }
}

/// Starts threads of a pool.
pub fn spawn(name: &str, life: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(life)
        .map(drop)
}
