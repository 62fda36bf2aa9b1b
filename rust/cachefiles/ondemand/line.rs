// SPDX-License-Identifier: GPL-2.0

//! Those who wait until a READ of theirs can be queued.

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

/// Interval in milliseconds at which requests, and those who wait to make one, are checked for a
/// time limit, and for whether anybody still uses their cookie.
pub(super) const CHECK_INTERVAL: u32 = 1000;

/// The user whose READs the current task makes. Neither the kernel nor the administrator is kept
/// from reading by what others in the same role read.
///
/// The task's own credentials count: EROFS reads with those of whoever mounted it.
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

/// A place in line, of a task that waits until its READ can be queued.
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

    /// Waits for news, but looks now and then whether there is a reason to wait any longer.
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

    /// Has its task look what became of it.
    pub(super) fn wake(&self) {
        self.news.complete_all();
    }
}

pub(super) fn wake(places: [Option<Arc<Place>>; 3]) {
    for place in places.into_iter().flatten() {
        place.wake();
    }
}
