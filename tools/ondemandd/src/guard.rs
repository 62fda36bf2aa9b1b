// SPDX-License-Identifier: GPL-2.0-or-later

//! What a fetch may cost in time, and how it is ended before it comes to its end by itself.
//!
//! A thread that asks a source for something does so under a [`Guard`]: [`Guard::run`] makes it the
//! current one of the thread, and the connections of the web client, which wait in short steps, look it
//! up there after each. Another thread can [cancel](Guard::cancel) it; whoever waits returns after its
//! step. What cannot be interrupted is looking up a host name and reading a local file.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stop::Stop;

/// What a fetch may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first byte sent to the last one received, with all tries and the time between them.
    pub max_time: Duration,
    /// The least that the body of an answer has to bring, in bytes per second of waiting for it.
    pub min_speed: u64,
    /// Over how long that is measured.
    pub window: Duration,
    /// How long a server may say nothing, if that is less than what the source is set to.
    pub silence: Option<Duration>,
    /// Whether to try once more after a failure that may pass.
    pub retry: bool,
}

/// One fetch, from the side of those who may want to end it.
pub struct Guard {
    limits: Limits,
    state: Mutex<State>,
    cancelled: Condvar,
}

#[derive(Default)]
struct State {
    cancelled: bool,
    deadline: Option<Instant>,
    /// How many bytes came from servers, answers that were no use included.
    received: u64,
    /// While the body of an answer is awaited: for how long in this window, and what came.
    body: Option<(Duration, u64)>,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Guard>>> = const { RefCell::new(None) };
}

/// The guard that this thread works under, if any.
fn current() -> Option<Arc<Guard>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The body of an answer is what comes next, and has to come at the lowest speed at least.
pub fn body_begins() {
    if let Some(guard) = current() {
        guard.state().body = Some((Duration::ZERO, 0));
    }
}

/// A request is about to be sent: the body of the last answer is over.
pub fn request_begins() {
    if let Some(guard) = current() {
        guard.state().body = None;
    }
}

/// Fails if what has been waited for since `start` is not to be waited for any longer: it was to come
/// within `timeout`.
pub fn go_on(start: Instant, timeout: Duration) -> io::Result<()> {
    let silence = match current() {
        Some(guard) => {
            guard.usable()?;
            guard
                .limits
                .silence
                .map_or(timeout, |limit| limit.min(timeout))
        }
        None => timeout,
    };
    if start.elapsed() >= silence {
        let text = format!("nothing came for {} s", silence.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    }
    Ok(())
}

/// So much came after so long. Fails if that is too slow for a body.
pub fn received(waited: Duration, bytes: u64) -> io::Result<()> {
    match current() {
        Some(guard) => {
            guard.usable()?;
            guard.received(waited, bytes)
        }
        None => Ok(()),
    }
}

/// Whether nobody wants any more what this thread does.
pub fn is_cancelled() -> bool {
    current().is_some_and(|guard| guard.is_cancelled())
}

/// Whether a try that has failed may be followed by another one, a `delay` later. If not, says why.
pub fn check(delay: Duration) -> Result<(), String> {
    current().map_or(Ok(()), |guard| guard.check(&guard.state(), delay))
}

/// Sleeps before another try, which there is to be only if this succeeds. If not, says why. Whoever sets
/// `stop` cancels the guards that there are; without one it is waited for.
pub fn pause(delay: Duration, stop: &Stop) -> Result<(), String> {
    let stopping = match current() {
        Some(guard) => {
            guard.pause(delay)?;
            stop.is_set()
        }
        None => stop.sleep(delay),
    };
    if stopping {
        return Err("stopping".into());
    }
    Ok(())
}

impl Guard {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            cancelled: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something under this guard. Its time begins now.
    pub fn run<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> R {
        self.state().deadline = Instant::now().checked_add(self.limits.max_time);
        let _entered = Entered {
            outer: CURRENT.replace(Some(Arc::clone(self))),
        };
        work()
    }

    /// Has [`Self::run`] come to its end soon, now or whenever it begins.
    pub fn cancel(&self) {
        self.state().cancelled = true;
        self.cancelled.notify_all();
    }

    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    fn check(&self, state: &State, delay: Duration) -> Result<(), String> {
        if state.cancelled {
            return Err(CANCELLED.into());
        }
        if !self.limits.retry {
            return Err("not tried again".into());
        }
        let end = Instant::now().checked_add(delay);
        if state
            .deadline
            .is_some_and(|at| end.is_none_or(|end| end > at))
        {
            return Err(self.too_long());
        }
        Ok(())
    }

    /// How many bytes came over the network.
    pub fn came(&self) -> u64 {
        self.state().received
    }

    /// Sleeps. If there is to be no other try after that, says why.
    pub fn pause(&self, delay: Duration) -> Result<(), String> {
        let state = self.state();
        self.check(&state, delay)?;
        let (state, _) = self
            .cancelled
            .wait_timeout_while(state, delay, |state| !state.cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        self.check(&state, Duration::ZERO)
    }

    fn too_long(&self) -> String {
        format!("gave up after {} s", self.limits.max_time.as_secs())
    }

    fn usable(&self) -> io::Result<()> {
        let state = self.state();
        if state.cancelled {
            return Err(failed(CANCELLED));
        }
        if state.deadline.is_some_and(|at| Instant::now() >= at) {
            return Err(failed(self.too_long()));
        }
        Ok(())
    }

    /// So much came after so long.
    fn received(&self, waited: Duration, bytes: u64) -> io::Result<()> {
        let Limits {
            window, min_speed, ..
        } = self.limits;
        let mut state = self.state();
        state.received = state.received.saturating_add(bytes);
        let Some(body) = &mut state.body else {
            return Ok(());
        };
        body.0 += waited;
        body.1 = body.1.saturating_add(bytes);
        if body.0 < window {
            return Ok(());
        }
        let wanted = u128::from(min_speed) * body.0.as_millis() / 1000;
        if u128::from(body.1) < wanted {
            return Err(failed(format!(
                "{} bytes in {} s are fewer than {min_speed} per second",
                body.1,
                body.0.as_secs()
            )));
        }
        *body = (Duration::ZERO, 0);
        Ok(())
    }
}

const CANCELLED: &str = "nobody wants it any more";

fn failed(reason: impl Into<String>) -> io::Error {
    io::Error::other(reason.into())
}

/// Ends the time that a thread works under a guard.
struct Entered {
    outer: Option<Arc<Guard>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(guard) = CURRENT.replace(self.outer.take()) {
            guard.state().body = None;
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Limits that no test comes to.
    pub const LIMITS: Limits = Limits {
        max_time: Duration::from_secs(3600),
        min_speed: 0,
        window: Duration::from_secs(3600),
        silence: None,
        retry: true,
    };

    fn stop() -> Stop {
        Stop::new().unwrap()
    }

    fn reason(result: io::Result<()>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_guard_is_current_while_it_runs() {
        assert!(current().is_none());
        let (outer, inner) = (Guard::new(LIMITS), Guard::new(LIMITS));
        outer.run(|| {
            inner.run(|| assert!(Arc::ptr_eq(&current().unwrap(), &inner)));
            assert!(Arc::ptr_eq(&current().unwrap(), &outer));
        });
        assert!(current().is_none());
    }

    #[test]
    fn cancelling_ends_a_pause_and_all_that_follows() {
        let guard = Guard::new(LIMITS);
        let waiting = Arc::clone(&guard);
        let thread = std::thread::spawn(move || {
            waiting.run(|| super::pause(Duration::from_secs(3000), &stop()).unwrap_err())
        });
        guard.cancel();
        assert_eq!(thread.join().unwrap(), CANCELLED);
        assert!(reason(guard.usable()).contains(CANCELLED));
    }

    #[test]
    fn there_is_no_time_for_more_than_the_longest() {
        let limits = Limits {
            max_time: Duration::from_secs(600),
            ..LIMITS
        };
        Guard::new(limits).run(|| {
            // It does not sleep when that would be in vain.
            let text = super::pause(Duration::from_secs(601), &stop()).unwrap_err();
            assert_eq!(text, "gave up after 600 s");
            super::pause(Duration::ZERO, &stop()).unwrap();
        });
        let guard = Guard::new(limits);
        guard.run(|| {
            guard.usable().unwrap();
        });
        let none = Limits {
            max_time: Duration::ZERO,
            ..LIMITS
        };
        let guard = Guard::new(none);
        let text = reason(guard.run(|| super::go_on(Instant::now(), Duration::MAX)));
        assert!(text.contains("gave up"), "{text}");
        let once = Limits {
            retry: false,
            ..LIMITS
        };
        assert!(Guard::new(once).run(|| super::pause(Duration::ZERO, &stop()).is_err()));
    }

    #[test]
    fn the_lowest_speed_is_that_of_bodies() {
        let guard = Guard::new(Limits {
            min_speed: 100,
            window: Duration::from_secs(10),
            ..LIMITS
        });
        let second = Duration::from_secs(1);
        guard.run(|| {
            // Not a body yet.
            guard.received(second * 100, 0).unwrap();
            body_begins();
            // As fast as it has to be, in any window.
            for _ in 0..3 {
                guard.received(second * 9, 0).unwrap();
                guard.received(second, 1000).unwrap();
            }
            for _ in 0..9 {
                guard.received(second, 99).unwrap();
            }
            assert_eq!(guard.came(), 3 * 1000 + 9 * 99);
            let text = reason(guard.received(second, 99));
            assert!(
                text.contains("990 bytes in 10 s are fewer than 100"),
                "{text}"
            );
        });
    }
}
