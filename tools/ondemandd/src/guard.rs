// SPDX-License-Identifier: GPL-2.0

//! What a fetch may cost in time, and how it is ended before it comes to its end by itself.
//!
//! A thread that asks a source for something does so under a [`Guard`]: [`Guard::run`] makes it the
//! current one of the thread, and the connections of the web client look it up there, because the
//! client has no way to hand it down to them. Another thread can [cancel](Guard::cancel) it: the
//! sockets that are in use are shut down, so that whoever waits for them returns at once. What cannot
//! be interrupted is looking up a host name, setting up a TCP connection (which has a time limit of
//! its own) and reading a local file.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::time::Duration as Wait;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, ShutdownHandle, Transport,
};
use ureq::Error;

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
    /// The sockets that are in use.
    sockets: Vec<Socket>,
    /// While the body of an answer is awaited: for how long in this window, and what came.
    body: Option<(Duration, u64)>,
}

type Socket = Weak<dyn ShutdownHandle>;

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

/// Whether a try that has failed may be followed by another one, a `delay` later. If not, says why.
pub fn check(delay: Duration) -> Result<(), String> {
    current().map_or(Ok(()), |guard| guard.check(&guard.state(), delay))
}

/// Sleeps before another try, which there is to be only if this succeeds. If not, says why. Whoever sets `stop` cancels the guards that there are; without one it is waited for.
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
        let mut state = self.state();
        state.cancelled = true;
        let sockets = mem::take(&mut state.sockets);
        drop(state);
        self.cancelled.notify_all();
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            socket.shutdown();
        }
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

    fn pause(&self, delay: Duration) -> Result<(), String> {
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

    /// A socket is about to be used. Returns how long it may be waited for.
    fn enter(&self, sockets: &[Socket], mut timeout: NextTimeout) -> Result<NextTimeout, Error> {
        let mut state = self.state();
        if state.cancelled {
            return Err(failed(CANCELLED));
        }
        for socket in sockets {
            if !state.sockets.iter().any(|known| known.ptr_eq(socket)) {
                state.sockets.push(Weak::clone(socket));
            }
        }
        let left = state
            .deadline
            .map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(failed(self.too_long()));
        }
        for limit in [left, self.limits.silence].into_iter().flatten() {
            if *timeout.after > limit {
                timeout.after = Wait::Exact(limit);
            }
        }
        Ok(timeout)
    }

    /// So much came after so long.
    fn received(&self, waited: Duration, bytes: u64) -> Result<(), Error> {
        let Limits {
            window, min_speed, ..
        } = self.limits;
        let mut state = self.state();
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

fn failed(reason: impl Into<String>) -> Error {
    Error::Io(io::Error::other(reason.into()))
}

/// Ends the time that a thread works under a guard. The sockets may be those of another guard next: this
/// one must not shut them down any more.
struct Entered {
    outer: Option<Arc<Guard>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(guard) = CURRENT.replace(self.outer.take()) {
            let mut state = guard.state();
            state.sockets.clear();
            state.body = None;
        }
    }
}

/// Makes connections that obey the current guard.
#[derive(Debug, Default)]
pub struct GuardedConnector(DefaultConnector);

impl Connector<()> for GuardedConnector {
    type Out = Guarded;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Guarded>, Error> {
        let guard = current();
        let timeout = match &guard {
            Some(guard) => guard.enter(&[], details.timeout)?,
            None => details.timeout,
        };
        let sockets = Arc::new(Mutex::new(Vec::new()));
        let found = Arc::clone(&sockets);
        let register = Arc::clone(&details.register_shutdown);
        let details = ConnectionDetails {
            uri: details.uri,
            addrs: details.addrs.clone(),
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout,
            current_time: Arc::clone(&details.current_time),
            run_connector: Arc::clone(&details.run_connector),
            // Before TLS, which may take its time as well.
            register_shutdown: Arc::new(move |socket: Socket| {
                if let Some(guard) = &guard {
                    guard.enter(&[Weak::clone(&socket)], NextTimeout::default())?;
                }
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push(Weak::clone(&socket));
                register(socket)
            }),
        };
        let inner = self.0.connect(&details, chained)?;
        let sockets = mem::take(&mut *sockets.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(inner.map(|inner| Guarded { inner, sockets }))
    }
}

/// A connection that obeys the guard of the thread that uses it.
pub struct Guarded {
    inner: Box<dyn Transport>,
    sockets: Vec<Socket>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Transport for Guarded {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let Some(guard) = current() else {
            return self.inner.transmit_output(amount, timeout);
        };
        // A new request: the body of the last answer is over.
        guard.state().body = None;
        let timeout = guard.enter(&self.sockets, timeout)?;
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let Some(guard) = current() else {
            return self.inner.await_input(timeout);
        };
        let timeout = guard.enter(&self.sockets, timeout)?;
        let before = self.inner.buffers().input().len();
        let start = Instant::now();
        let more = self.inner.await_input(timeout)?;
        let after = self.inner.buffers().input().len();
        guard.received(start.elapsed(), after.saturating_sub(before) as u64)?;
        Ok(more)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
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

    fn reason(result: Result<(), Error>) -> String {
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
        let entered = guard.enter(&[], NextTimeout::default());
        assert!(reason(entered.map(|_| ())).contains(CANCELLED));
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
            let timeout = guard.enter(&[], NextTimeout::default()).unwrap();
            assert!(*timeout.after <= Duration::from_secs(600));
        });
        let none = Limits {
            max_time: Duration::ZERO,
            ..LIMITS
        };
        let guard = Guard::new(none);
        let entered = guard.run(|| guard.enter(&[], NextTimeout::default()));
        assert!(reason(entered.map(|_| ())).contains("gave up"));
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
            let text = reason(guard.received(second, 99));
            assert!(
                text.contains("990 bytes in 10 s are fewer than 100"),
                "{text}"
            );
        });
    }
}
