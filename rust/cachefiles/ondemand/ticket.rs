// SPDX-License-Identifier: GPL-2.0

//! Those who wait until a READ of theirs can be queued, and what a READ takes up.

use super::{
    Ondemand,
    PATIENCE, //
};
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
    object::Object,
    table::{
        ObjectKey,
        Refused,
        Table,
        User, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc,
    task::Kuid,
    time::msecs_to_jiffies, //
};

/// What a reader has that may have a READ outstanding, once it has had one; before that it is
/// empty. Given back when it is dropped, which must not be under the table's lock.
pub(crate) struct Ticket {
    ondemand: Option<Arc<Ondemand>>,
    key: ObjectKey,
    user: User,
}

impl Ticket {
    /// That of a reader who has had no READ yet.
    pub(crate) fn empty() -> Self {
        Ticket {
            ondemand: None,
            key: ObjectKey::NONE,
            user: User::EXEMPT,
        }
    }

    pub(super) fn new(ondemand: Arc<Ondemand>, key: ObjectKey, user: User) -> Self {
        Ticket {
            ondemand: Some(ondemand),
            key,
            user,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ondemand.is_none()
    }

    /// Makes it empty, without giving anything back: nothing was taken.
    pub(crate) fn void(&mut self) {
        self.ondemand = None;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(ondemand) = self.ondemand.take() {
            ondemand.leave(self.key, self.user);
        }
    }
}

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
    fn new() -> Result<Arc<Self>> {
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
    fn wait(&self) -> Result {
        self.news
            .wait_for_completion_killable_timeout(msecs_to_jiffies(PATIENCE))
            .map(|_| ())
            .map_err(|_| EINTR)
    }

    /// Has its task look what became of it.
    pub(super) fn wake(&self) {
        self.news.complete_all();
    }
}

fn wake(places: [Option<Arc<Place>>; 3]) {
    for place in places.into_iter().flatten() {
        place.wake();
    }
}

impl Ondemand {
    /// Waits until a READ of the object can be queued, with nothing of ours locked. The task may
    /// hold locks of folios, and READs of its own may be outstanding; so this ends when the daemon
    /// answers others or is gone, when the cookie is given up, when it takes too long, or when the
    /// task is killed.
    ///
    /// # Errors
    ///
    /// `EINTR` if the task is killed, `ETIMEDOUT` if it takes too long, `EIO` if the cookie is
    /// given up or there is no daemon.
    pub(super) fn wait_in_line(
        self: &Arc<Self>,
        object: &Object,
        key: ObjectKey,
        user: User,
    ) -> Result<Ticket> {
        let place = Place::new()?;
        let id = loop {
            match self.with(|table| table.line_up(key, user, place.clone())) {
                Ok(id) => break id,
                Err(Refused::Full) => {
                    self.make_room(1, Table::waiting)?;
                    self.make_room(1, Table::users)?;
                }
                Err(_) => return Err(EIO),
            }
        };
        let waited = self.stand_in_line(object, id, &place);
        if waited.is_err() {
            wake(self.with(|table| table.step_out(id)));
        }
        waited.map(|()| Ticket::new(self.clone(), key, user))
    }

    fn stand_in_line(&self, object: &Object, id: u32, place: &Place) -> Result {
        let since = self.now();
        loop {
            match self.with(|table| table.admitted(id)) {
                Ok(true) => return Ok(()),
                Ok(false) if object.is_unwanted() => return Err(EIO),
                Ok(false) => {
                    let age = self.now().saturating_sub(since);
                    if self.options.timeout.is_some_and(|limit| age > limit) {
                        self.complain(1);
                        return Err(ETIMEDOUT);
                    }
                    place.wait()?;
                }
                Err(Refused::Full) => self.make_room(1, Table::requests)?,
                Err(_) => return Err(EIO),
            }
        }
    }

    /// A reader is done with its READs.
    fn leave(&self, key: ObjectKey, user: User) {
        let (wakes, _spare) = self.with(|table| (table.leave(key, user), table.trim()));
        wake(wakes);
    }
}
