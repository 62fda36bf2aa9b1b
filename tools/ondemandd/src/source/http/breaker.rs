// SPDX-License-Identifier: GPL-2.0-or-later

//! How a server that is down, or wants to be left alone, is treated by all fetches together.
//!
//! Each fetch has retries of its own, and there may be a hundred of them. Once a server could not be
//! reached several times in a row, only one request at a time finds out whether it is back (a *probe*); the
//! others wait for what comes of it, or use another server that has the same. And retries have a budget:
//! however many fetches fail, all of them together send only so many more requests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many failures in a row, of whatever requests, mean that the server is down.
const THRESHOLD: u32 = 5;

/// How long after a failure the next probe is sent.
const FIRST_PROBE: Duration = Duration::from_millis(500);
const MAX_PROBE: Duration = Duration::from_secs(5);

/// The longest that a server is believed when it wants to be left alone.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// So many retries may follow each other, ...
const BURST: u32 = 64;
/// ... and then one in this time.
const REFILL: Duration = Duration::from_millis(125);

/// One server, as the fetches from it have found it.
#[derive(Default)]
pub struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    /// Failures since the last success.
    failures: u32,
    /// Failures in all.
    all: u64,
    /// When the first of them was.
    since: Option<Instant>,
    /// What the last one was.
    reason: String,
    /// No request before this.
    until: Option<Instant>,
    /// Somebody is finding out whether the server is back.
    probing: bool,
    /// When the budget of retries is full again.
    full: Option<Instant>,
}

/// Whether a request may be sent.
pub enum Answer<'a> {
    Go(Ticket<'a>),
    /// Ask again after this time.
    Wait(Outage),
}

/// A server that takes no requests now.
pub struct Outage {
    pub wait: Duration,
    /// How long that has been so.
    pub lasts: Duration,
    /// How many requests have failed in all, see [`Breaker::failures`].
    pub failures: u64,
    pub reason: String,
}

/// The right to send one request. To be told what came of it; if not, nothing came.
pub struct Ticket<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many requests have failed, ever.
    pub fn failures(&self) -> u64 {
        self.state().all
    }

    pub fn ask(&self) -> Answer<'_> {
        let mut state = self.state();
        let now = Instant::now();
        let wait = state
            .until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let down = state.failures >= THRESHOLD;
        if wait.is_zero() && !(down && state.probing) {
            state.probing |= down;
            return Answer::Go(Ticket {
                breaker: self,
                probe: down,
            });
        }
        Answer::Wait(Outage {
            wait: wait.max(Duration::from_millis(100)),
            lasts: state.since.map_or(Duration::ZERO, |since| now - since),
            failures: state.all,
            reason: state.reason.clone(),
        })
    }

    /// How long to wait before a request that has failed is sent again.
    pub fn retry(&self) -> Duration {
        let mut state = self.state();
        let now = Instant::now();
        let full = state.full.map_or(now, |full| full.max(now)) + REFILL;
        state.full = Some(full);
        (full - now).saturating_sub(REFILL * BURST)
    }
}

impl Ticket<'_> {
    /// The server has answered, whatever it was.
    pub fn answered(self) {
        let mut state = self.breaker.state();
        state.failures = 0;
        state.since = None;
        state.until = None;
    }

    /// It could not be reached, or said that it is overloaded, and perhaps for how long.
    pub fn failed(self, reason: &str, after: Option<Duration>) {
        let mut state = self.breaker.state();
        let now = Instant::now();
        state.failures = state.failures.saturating_add(1);
        state.all += 1;
        state.since.get_or_insert(now);
        state.reason = reason.to_string();
        let beyond = state.failures.saturating_sub(THRESHOLD).min(8);
        let probe =
            (state.failures >= THRESHOLD).then(|| (FIRST_PROBE * (1 << beyond)).min(MAX_PROBE));
        let pause = after.map(|after| after.min(MAX_PAUSE));
        state.until = probe.max(pause).map(|time| now + time).max(state.until);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.state().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(breaker: &Breaker) -> Ticket<'_> {
        match breaker.ask() {
            Answer::Go(ticket) => ticket,
            Answer::Wait(outage) => panic!("wait {:?}", outage.wait),
        }
    }

    fn outage(breaker: &Breaker) -> Outage {
        match breaker.ask() {
            Answer::Go(_) => panic!("go"),
            Answer::Wait(outage) => outage,
        }
    }

    #[test]
    fn a_server_that_is_down_gets_one_request_at_a_time() {
        let breaker = Breaker::default();
        for _ in 0..THRESHOLD {
            go(&breaker).failed("away", None);
        }
        let down = outage(&breaker);
        assert_eq!(
            (down.failures, down.reason.as_str()),
            (u64::from(THRESHOLD), "away")
        );
        assert!(down.wait <= FIRST_PROBE);
        // The time of the probe has come.
        breaker.state().until = None;
        let probe = go(&breaker);
        assert!(outage(&breaker).wait > Duration::ZERO);
        // Nobody wanted to know any more: somebody else may ask.
        drop(probe);
        go(&breaker).failed("still away", None);
        breaker.state().until = None;
        go(&breaker).answered();
        let _both = (go(&breaker), go(&breaker));
    }

    #[test]
    fn one_success_counts_for_all() {
        let breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 1..THRESHOLD {
                go(&breaker).failed("x", None);
            }
            go(&breaker).answered();
        }
        go(&breaker).answered();
    }

    #[test]
    fn a_server_is_left_alone_as_it_wishes() {
        let breaker = Breaker::default();
        go(&breaker).failed("busy", Some(Duration::from_secs(100)));
        let wait = outage(&breaker).wait;
        assert!(wait > Duration::from_secs(50) && wait <= Duration::from_secs(100));
        let breaker = Breaker::default();
        go(&breaker).failed("busy", Some(Duration::MAX));
        assert!(outage(&breaker).wait <= MAX_PAUSE);
    }

    #[test]
    fn retries_have_a_budget() {
        let breaker = Breaker::default();
        let free = (0..BURST).filter(|_| breaker.retry().is_zero()).count();
        assert_eq!(free as u32, BURST);
        // A slow machine refills it meanwhile; so many more it cannot.
        let late = (0..10_000).map(|_| breaker.retry()).max().unwrap();
        assert!(late > Duration::from_secs(60), "{late:?}");
    }
}
