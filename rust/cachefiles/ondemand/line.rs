// SPDX-License-Identifier: GPL-2.0

//! Readers that wait until they can queue a READ.

use crate::{
    kernel_next::{
        cred::{
            capable_noaudit,
            with_own_cred,
            Capability, //
        },
        sched::is_kernel_thread,
        sync::Completion, //
    },
    table::User, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    task::Kuid,
    time::msecs_to_jiffies, //
};

/// Interval in milliseconds at which requests, and readers that wait to queue one, are checked for
/// the time limit, and for whether their cookie is still used.
pub(super) const CHECK_INTERVAL: u32 = 1000;

/// The user to whom READs of the current task are accounted. Kernel threads and privileged tasks
/// have no per-user limit.
///
/// The task's own credentials count, not those that it acts with: EROFS reads with those of its
/// mounter.
pub(super) fn current_user() -> User {
    with_own_cred(|| {
        let exempt = is_kernel_thread()
            || capable_noaudit(Capability::SYS_RESOURCE)
            || capable_noaudit(Capability::SYS_ADMIN);
        match exempt {
            true => User::EXEMPT,
            false => User::new(Kuid::current_euid().into_raw().val),
        }
    })
}

/// What a reader sleeps on that waits until it can queue a READ.
#[pin_data]
pub(crate) struct Place {
    #[pin]
    news: Completion,
}

impl Place {
    pub(super) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                news <- Completion::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Waits until it is woken, but not longer than [`CHECK_INTERVAL`], so that the caller checks
    /// whether there is a reason to go on waiting.
    ///
    /// # Errors
    ///
    /// `EINTR` if the task is killed.
    pub(super) fn wait(&self) -> Result {
        self.news
            .wait_for_completion_killable_timeout(msecs_to_jiffies(CHECK_INTERVAL))
            .map(|_| ())
            .map_err(|_| EINTR)
    }

    /// Wakes the reader, to check whether it was admitted.
    pub(super) fn wake(&self) {
        self.news.complete_all();
    }
}

pub(super) fn wake(places: [Option<Arc<Place>>; 3]) {
    for place in places.into_iter().flatten() {
        place.wake();
    }
}
