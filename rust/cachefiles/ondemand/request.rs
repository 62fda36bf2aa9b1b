// SPDX-License-Identifier: GPL-2.0

//! Those who wait for the daemon.

use super::{
    Ondemand,
    PATIENCE, //
};
use crate::kernel_next::sync::completion::Completion;
use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// A lookup that waits for the answer to its OPEN.
#[pin_data]
pub(crate) struct OpenWait {
    #[pin]
    answered: Completion,
    /// The size, or the negative error number. Written before `answered` is completed.
    answer: Atomic<i64>,
}

impl OpenWait {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                answered <- Completion::new(),
                answer: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    /// Gives the answer. Called once, by whoever took this out of the table.
    pub(super) fn done(&self, answer: Result<u64>) {
        let answer = answer.and_then(|size| i64::try_from(size).map_err(|_| EINVAL));
        // Completing orders this before what the waiter does next.
        self.answer
            .store(answer.unwrap_or_else(|e| e.to_errno().into()), Relaxed);
        self.answered.complete_all();
    }

    /// Waits for at most `timeout` milliseconds. Returns whether there is an answer.
    pub(super) fn wait(&self, timeout: u32) -> Result<bool> {
        self.answered.wait_killable_timeout(timeout)
    }

    /// The answer, once there is one.
    pub(super) fn result(&self) -> Result<u64> {
        let answer = self.answer.load(Relaxed);
        // CAST: Negative values are error numbers, which fit.
        u64::try_from(answer).map_err(|_| Error::from_errno(answer as i32))
    }
}

/// Fails READs that are over the time limit, and those whose cookie was given up, so that nobody who
/// tidies up waits for the daemon.
///
/// fscache tells a backend that a cookie is given up only when nobody uses it any more; a READ
/// that is not answered uses it. So somebody has to look: while there are READs, once a second.
#[pin_data]
struct Watch {
    #[pin]
    work: Work<Watch>,
    ondemand: Arc<Ondemand>,
}

impl_has_work! {
    impl HasWork<Self> for Watch { self.work }
}

impl WorkItem for Watch {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        let ondemand = &this.ondemand;
        // A kernel thread is not killed; if it were, there would be nobody left to watch.
        while let Ok(false) = ondemand.killed.wait_killable_timeout(PATIENCE) {
            ondemand.expire_reads();
            let mut from = 0;
            while let Some((found, next)) = ondemand.with(|table| table.next_reading(from)) {
                if let Some((key, object)) = found {
                    if object.is_given_up() {
                        ondemand.with(|table| table.cancel_reads(key));
                    }
                }
                from = next;
            }
            ondemand.tell_doomed();
            if !ondemand.with(|table| table.keep_watching()) {
                return;
            }
        }
    }
}

/// Starts to watch over READs.
pub(super) fn watch(ondemand: Arc<Ondemand>) {
    let Ok(slot) = KBox::<Watch>::new_uninit(GFP_KERNEL) else {
        // The next READ tries again.
        return ondemand.with(|table| table.stop_watching());
    };
    let this = ondemand.clone();
    let watch = pin_init!(Watch {
        work <- new_work!(),
        ondemand,
    });
    match slot.write_pin_init(watch) {
        Ok(watch) => {
            // Under the lock, so that it is on the queue before the cache is killed, or not at
            // all: whoever kills the cache waits for the queue.
            let late = this.with(|table| {
                if table.is_dead() {
                    return Some(watch);
                }
                this.queue.enqueue(watch);
                None
            });
            drop(late);
        }
        Err(never) => match never {},
    }
}
