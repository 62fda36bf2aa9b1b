// SPDX-License-Identifier: GPL-2.0

//! Those who wait for the daemon.

use super::{
    Ondemand,
    Version,
    PATIENCE, //
};
use crate::kernel_next::sync::Completion;
use kernel::{
    impl_has_work,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        SetOnce, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    workqueue::WorkItem, //
};

/// A lookup that waits for the answer to its OPEN.
#[pin_data]
pub(crate) struct OpenWait {
    #[pin]
    answered: Completion,
    /// The size, or the negative error number. Written before `answered` is completed.
    answer: Atomic<i64>,
    /// The version, if the daemon gave one. Written before `answered` is completed.
    version: SetOnce<Version>,
}

impl OpenWait {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                answered <- Completion::new(),
                answer: Atomic::new(0),
                version: SetOnce::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Gives the answer. Called once, by whoever took this out of the table.
    pub(super) fn done(&self, answer: Result<u64>, version: Option<Version>) {
        if let Some(version) = version {
            self.version.populate(version);
        }
        let answer = answer.and_then(|size| i64::try_from(size).map_err(|_| EINVAL));
        // Completing orders this before what the waiter does next.
        self.answer
            .store(answer.unwrap_or_else(|e| e.to_errno().into()), Relaxed);
        self.answered.complete_all();
    }

    /// Waits for at most `timeout` milliseconds. Returns whether there is an answer.
    pub(super) fn wait(&self, timeout: Msecs) -> Result<bool> {
        let left = self
            .answered
            .wait_for_completion_killable_timeout(msecs_to_jiffies(timeout))?;
        Ok(left.is_some())
    }

    /// The answer, once there is one.
    pub(super) fn result(&self) -> Result<(u64, Option<Version>)> {
        let answer = self.answer.load(Relaxed);
        // CAST: Negative values are error numbers, which fit.
        let size = u64::try_from(answer).map_err(|_| Error::from_errno(answer as i32))?;
        Ok((size, self.version.as_ref().cloned()))
    }
}

impl_has_work! {
    impl HasWork<Self> for Ondemand { self.watch }
}

/// Watches over READs: fails those that are over the time limit, and those whose cookie was given
/// up, so that nobody who tidies up waits for the daemon.
///
/// fscache tells a backend that a cookie is given up only when nobody uses it any more; a READ
/// that is not answered uses it. So somebody has to look: while there are READs, once a second.
impl WorkItem for Ondemand {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // A kernel thread is not killed; if it were, there would be nobody left to watch.
        let patience = msecs_to_jiffies(PATIENCE);
        while let Ok(None) = this.killed.wait_for_completion_killable_timeout(patience) {
            this.expire_reads();
            let mut from = 0;
            while let Some((found, next)) = this.with(|table| table.next_reading(from)) {
                if let Some((key, object)) = found {
                    if object.is_given_up() {
                        this.with(|table| table.cancel_reads(key));
                    }
                }
                from = next;
            }
            this.tell_doomed();
            if !this.with(|table| table.keep_watching()) {
                return;
            }
        }
    }
}
