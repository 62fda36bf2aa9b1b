// SPDX-License-Identifier: GPL-2.0

//! The work item that ends requests on a timeout, or when their cookie is no longer used.

use super::{
    line::CHECK_INTERVAL,
    lookup::PendingOpen,
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

/// Ends READs and OPENs that are over the time limit, and those whose cookie no task uses any more,
/// so that the daemon does not see them and cookie withdrawal does not wait for them.
///
/// fscache withdraws a cookie only when nothing has an access to it any more; a READ that is not
/// answered has one. Of a lookup that was put off fscache knows nothing. So this checks once a
/// second, while there are requests. One pass ends all of them: evicting many inodes with READs in
/// flight waits at most about a second in total.
impl WorkItem for Requests {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // No signal is sent to a worker, so that the wait ends with the interval, or with `killed`.
        let interval = msecs_to_jiffies(CHECK_INTERVAL);
        while let Ok(None) = this.killed.wait_for_completion_killable_timeout(interval) {
            this.expire_reads();
            this.end_opens();
            let mut from = usize::MAX;
            while let Some((found, next)) = this.with(|table| table.next_reading(from)) {
                if let Some((key, object)) = found {
                    // Under the table's lock: a task queues its READ while it uses the cookie. So
                    // if the cookie is unused here, no task waits for a READ that is in the table.
                    this.with(|table| {
                        if object.is_unwanted() {
                            table.cancel_reads(key);
                        }
                    });
                }
                from = next;
            }
            this.complete_failed();
            // A lookup adds its OPEN to `opens` before it calls Table::watch(): either the OPEN is
            // seen here, or the lookup finds that the watch has ended, and starts it.
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
        let timed_out = |open: &PendingOpen| {
            // `>`, so that it is never too early: both times are cut to whole milliseconds.
            let age = now.saturating_sub(open.since());
            open.answer().is_none() && self.options.timeout.is_some_and(|limit| age > limit)
        };
        let any_claimed = self.opens.take_claimed();
        let over = |open: &PendingOpen| {
            open.is_unwanted() || open.tick_unclaimed(any_claimed) || timed_out(open)
        };
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

    /// Ends an OPEN: it is `late`, its cookie is not used, or its answer is not claimed. Returns
    /// true if the daemon had not answered it.
    pub(super) fn end_open(&self, open: &Arc<PendingOpen>, late: bool) -> bool {
        let cancel = |table: &mut Table<Payloads>| table.cancel_open(open.msg_id()?);
        if self.with(cancel).is_some() {
            if late {
                self.finish_open(open, Err(ETIMEDOUT));
            } else {
                trace::open_failed(open.object().debug_id(), EIO);
                self.opens.cancel(open);
                self.drop_open(open);
            }
            return true;
        }
        // If it has no answer and is not in the table, another task is between add() and
        // queue_open(), or between copen and Opens::store_answer(). A later pass ends it, if that
        // task does not.
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
            // The reads that have joined it have not waited for as long: each asks itself.
            self.run_others(&mut read);
            read.fail(ETIMEDOUT);
            count += 1;
        }
        self.warn_of_timeouts(count);
    }
}
