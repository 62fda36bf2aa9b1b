// SPDX-License-Identifier: GPL-2.0

//! Watching over requests that wait for the daemon.

use super::{
    line::CHECK_INTERVAL,
    lookup::Open,
    requests::{
        Payloads,
        Requests, //
    }, //
};
use crate::{
    table::Table,
    trace, //
};
use kernel::{
    impl_has_work,
    prelude::*,
    sync::Arc,
    time::msecs_to_jiffies,
    workqueue::WorkItem, //
};

impl_has_work! {
    impl HasWork<Self> for Requests { self.watch }
}

/// Watches over requests: fails those that are over the time limit, and those whose cookie nobody
/// uses any more, so that neither the daemon nor who tidies up has to do with them.
///
/// fscache tells a backend that a cookie is given up only when nobody has an access to it any
/// more; a READ that is not answered has one. Of a lookup that was put off it knows nothing. So
/// somebody has to look: while there are requests, once a second. All that nobody uses end
/// together then, which is why reclaiming memory waits once for files that were closed with READs
/// in flight, and not once for each.
impl WorkItem for Requests {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // A kernel thread is not killed.
        let interval = msecs_to_jiffies(CHECK_INTERVAL);
        while let Ok(None) = this.killed.wait_for_completion_killable_timeout(interval) {
            this.expire_reads();
            this.end_opens();
            let mut from = usize::MAX;
            while let Some((found, next)) = this.with(|table| table.next_reading(from)) {
                if let Some((key, object)) = found {
                    // Under the lock: a task that has queued a READ had the cookie in use before.
                    this.with(|table| {
                        if object.is_unwanted() {
                            table.cancel_reads(key);
                        }
                    });
                }
                from = next;
            }
            this.complete_failed();
            // A lookup adds its OPEN before it calls Table::watch().
            let idle = !this.with(|table| table.keep_watching());
            if idle && (this.opens.is_empty() || !this.with(|table| table.watch())) {
                return;
            }
        }
    }
}

impl Requests {
    /// Ends the OPENs whose cookie is not in use any more, and those that are over the time limit.
    pub(super) fn end_opens(&self) {
        let now = self.now();
        let timed_out = |open: &Open| {
            // More than, so that it is never too early: both times are cut to whole milliseconds.
            let age = now.saturating_sub(open.since());
            open.answer().is_none() && self.options.timeout.is_some_and(|limit| age > limit)
        };
        let stuck = self.opens.is_stuck();
        let over = |open: &Open| open.is_unwanted() || open.is_left(stuck) || timed_out(open);
        let (mut from, mut count) = (0, 0);
        while let Some((open, next)) = self.opens.next(from, over) {
            if let Some(open) = open {
                let late = timed_out(&open);
                count += usize::from(self.end_open(&open, late) && late);
            }
            from = next;
        }
        self.complete_failed();
        self.warn_of_timeouts(count);
    }

    /// Ends an OPEN that is not claimed, because it is `late` or not wanted. Returns whether
    /// it was not answered either.
    pub(super) fn end_open(&self, open: &Arc<Open>, late: bool) -> bool {
        let cancel = |table: &mut Table<Payloads>| table.cancel_open(open.msg_id()?);
        if self.with(cancel).is_some() {
            if late {
                self.answered(open, Err(ETIMEDOUT));
            } else {
                trace::open_failed(open.object().debug_id(), EIO);
                self.opens.cancel(open);
                self.drop_open(open);
            }
            return true;
        }
        // If it has no answer, it is about to be queued or to be told one.
        if open.answer().is_some() && self.opens.remove(open) {
            self.drop_open(open);
        }
        false
    }

    /// Fails the READs that have gone without an answer for too long.
    fn expire_reads(&self) {
        let Some(timeout) = self.options.timeout else {
            return;
        };
        let (now, mut count) = (self.now(), 0);
        while let Some(mut read) = self.with(|table| table.pop_overdue(now, timeout)) {
            // They have not waited for as long, and ask for themselves.
            self.run_others(&mut read);
            read.fail(ETIMEDOUT);
            count += 1;
        }
        self.warn_of_timeouts(count);
    }
}
