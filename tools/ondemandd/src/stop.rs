// SPDX-License-Identifier: GPL-2.0-or-later

//! The wish to stop, as every thread can see it: waiting for messages, or between two retries.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{eventfd, EventfdFlags};

pub struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
    event: OwnedFd,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            set: Mutex::new(false),
            changed: Condvar::new(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
        // An eventfd takes any number of ones; this cannot fail in a way that matters.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    pub fn is_set(&self) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, unless told to stop. True: stop.
    pub fn sleep(&self, time: Duration) -> bool {
        let guard = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = self
            .changed
            .wait_timeout_while(guard, time, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

/// Readable, for good, once [`Stop::set`] was called.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
