// SPDX-License-Identifier: GPL-2.0

//! How many READs may be outstanding, and which readers wait because there are too many.
//!
//! There are three limits on READs: per user, per object, and in the table. A reader is *admitted*
//! when it has one unit of each and a slot in the table. It keeps them until it is done, for all
//! READs that it queues, one after the other.
//!
//! A reader that queues its first READ takes all units at once, or none: [`Table::admit`]. If a
//! limit is reached, it waits, in FIFO order, and takes the units one after the other as it gets
//! them: user, object, table. A unit that is given back goes to the first that waits for it, so no
//! reader overtakes those that wait.
//!
//! Because of the order, a reader that waits for an object's limit holds a unit of its own user
//! only: no user keeps others from an object by waiting for it.

use super::{
    list::{
        Link,
        List, //
    },
    ObjectKey,
    Refused,
    Slots,
    Table,
    Types, //
};

/// How many READs may be outstanding. None is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) object: u32,
    pub(crate) user: u32,
    pub(crate) table: u32,
}

impl Bounds {
    /// The limits, except in tests.
    ///
    /// - Per object: all of its READs are walked through under the lock when it is closed, reopened
    ///   or withdrawn. With 1024 of them that does not take long.
    /// - Per user: a user may keep several objects busy, but not the whole table.
    /// - Of the table: bounds its memory; see also [`Table::CONTROL`].
    pub(crate) const DEFAULT: Self = Bounds {
        object: 1024,
        user: 8192,
        table: 1 << 19,
    };
}

/// A reader's user: a user id, or [`EXEMPT`](Self::EXEMPT). Not an `Option`, to keep it small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User(u32);

impl User {
    /// Kernel threads and privileged tasks: they have no per-user limit. The number is not a valid
    /// user id.
    pub(crate) const EXEMPT: Self = User(u32::MAX);

    pub(crate) fn new(uid: u32) -> Self {
        User(uid)
    }
}

/// How many units of one limit are taken, and who waits for one.
///
/// # Invariants
///
/// If a reader waits, then `taken` is the bound.
#[derive(Clone, Copy, Default)]
pub(super) struct Quota {
    taken: u32,
    waiters: List,
}

impl Quota {
    fn take(&mut self, bound: u32) -> bool {
        let fits = self.taken < bound;
        self.taken += u32::from(fits);
        fits
    }
}

/// What one user has taken. Opaque to all but this module.
#[derive(Default)]
pub(crate) struct UserQuota(Quota);

/// The limit of which a waiting reader needs a unit next, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    User,
    Object,
    Table,
    /// None: it has all units.
    Admitted,
}

impl Stage {
    fn next(self) -> Self {
        match self {
            Stage::User => Stage::Object,
            Stage::Object => Stage::Table,
            Stage::Table | Stage::Admitted => Stage::Admitted,
        }
    }
}

/// A reader that waits to be admitted. Opaque to all but this module.
pub(crate) struct Waiting<F: Types> {
    key: ObjectKey,
    user: User,
    /// What it waits for. It has a unit of each limit before.
    stage: Stage,
    /// Whether it is in a list of waiters. If not, it has all units, or was cancelled.
    in_line: bool,
    link: Link,
    waker: F::Waker,
}

fn line_link<F: Types>(waiting: &mut Waiting<F>) -> &mut Link {
    &mut waiting.link
}

/// The readers to wake.
pub(crate) type Wakes<F> = [Option<<F as Types>::Waker>; 3];

impl<F: Types> Table<F> {
    /// Takes a unit of each limit for a reader, or nothing. The caller then takes the slot, for
    /// which there is room.
    ///
    /// # Errors
    ///
    /// `Full` if memory is needed first, `OverLimit` if a limit is reached, `Gone` if the object
    /// is.
    pub(super) fn admit(&mut self, key: ObjectKey, user: User) -> Result<(), Refused> {
        let entry = self.objects.get_mut(key.0).ok_or(Refused::Gone)?;
        if entry.quota.taken >= self.bounds.object || self.quota.taken >= self.bounds.table {
            return Err(Refused::OverLimit);
        }
        if self.requests.room() == 0 {
            return Err(Refused::Full);
        }
        if user != User::EXEMPT {
            Self::add_user(&mut self.users, user)?;
            let quota = self.users.get_mut(user.0).ok_or(Refused::Full)?;
            if !quota.0.take(self.bounds.user) {
                return Err(Refused::OverLimit);
            }
        }
        entry.quota.taken += 1;
        self.quota.taken += 1;
        Ok(())
    }

    fn add_user(users: &mut Slots<UserQuota, F>, user: User) -> Result<(), Refused> {
        if users.get(user.0).is_some() {
            return Ok(());
        }
        let quota = UserQuota::default();
        users.insert_at(user.0, quota).map_err(|_| Refused::Full)
    }

    /// Has a reader wait to be admitted, and returns its id among those that wait. `waker` is woken
    /// when the result of [`Self::admitted`] changes; it may be true at once.
    ///
    /// # Errors
    ///
    /// `Full` if memory is needed first, for readers that wait or for users; `Gone` if the object
    /// or the cache is gone.
    pub(crate) fn add_waiting(
        &mut self,
        key: ObjectKey,
        user: User,
        waker: F::Waker,
    ) -> Result<u32, Refused> {
        if self.dead || self.objects.get(key.0).is_none() {
            return Err(Refused::Gone);
        }
        if self.waiting.room() == 0 {
            return Err(Refused::Full);
        }
        let stage = if user == User::EXEMPT {
            Stage::Object
        } else {
            Self::add_user(&mut self.users, user)?;
            Stage::User
        };
        let waiting = Waiting {
            key,
            user,
            stage,
            in_line: false,
            link: Link::default(),
            waker,
        };
        let id = self.waiting.insert(waiting).map_err(|_| Refused::Full)?;
        self.advance(id);
        Ok(id)
    }

    /// Whether a reader that waits has a unit of each limit. If so, it gets a slot and does not
    /// wait any more; [`Self::end_admission`] gives all back.
    ///
    /// # Errors
    ///
    /// `Full` if memory for requests is needed first, `Gone` if the wait was cancelled. The caller
    /// still has to call [`Self::remove_waiting`], unless it tries again.
    pub(crate) fn admitted(&mut self, id: u32) -> Result<bool, Refused> {
        let waiting = self.waiting.get(id).ok_or(Refused::Gone)?;
        if waiting.in_line {
            return Ok(false);
        }
        if self.dead || waiting.stage != Stage::Admitted {
            return Err(Refused::Gone);
        }
        self.requests.reserve().map_err(|()| Refused::Full)?;
        self.waiting.remove(id);
        Ok(true)
    }

    /// Ends the wait of a reader, and gives back the units that it has. Returns the readers to
    /// wake.
    pub(crate) fn remove_waiting(&mut self, id: u32) -> Wakes<F> {
        let Some(waiting) = self.waiting.get(id) else {
            return Wakes::<F>::default();
        };
        let (key, user, stage) = (waiting.key, waiting.user, waiting.stage);
        if waiting.in_line {
            self.unlink_waiting(id, stage, key, user);
        }
        self.waiting.remove(id);
        let held = [Stage::User, Stage::Object, Stage::Table].map(|held| held < stage);
        self.give_back(key, user, held)
    }

    fn unlink_waiting(&mut self, id: u32, stage: Stage, key: ObjectKey, user: User) {
        let line = self.quota(stage, key, user).map(|(quota, _)| quota.waiters);
        match line.filter(|line| line.ends_with(id)) {
            Some(mut line) => {
                line.unlink(&mut self.waiting, id, line_link);
                if let Some((quota, _)) = self.quota(stage, key, user) {
                    quota.waiters = line;
                }
            }
            // It may be on the list of those that were cancelled.
            None => self.cancelled.unlink(&mut self.waiting, id, line_link),
        }
    }

    /// Gives back the units and the slot of a reader that is done. Returns the readers to wake.
    pub(crate) fn end_admission(&mut self, key: ObjectKey, user: User) -> Wakes<F> {
        self.requests.unreserve();
        self.give_back(key, user, [true; 3])
    }

    fn give_back(&mut self, key: ObjectKey, user: User, held: [bool; 3]) -> Wakes<F> {
        let [of_user, of_object, of_table] = held;
        [
            self.give_back_one(of_user, Stage::User, key, user),
            self.give_back_one(of_object, Stage::Object, key, user),
            self.give_back_one(of_table, Stage::Table, key, user),
        ]
    }

    /// Gives a unit of one limit, if it is `held`, to the first reader that waits for it. Returns
    /// that reader if it has to be woken.
    #[inline(always)]
    fn give_back_one(
        &mut self,
        held: bool,
        stage: Stage,
        key: ObjectKey,
        user: User,
    ) -> Option<F::Waker> {
        let (quota, _) = self.quota(stage, key, user).filter(|_| held)?;
        let Some(id) = quota.waiters.first() else {
            quota.taken = quota.taken.saturating_sub(1);
            if quota.taken == 0 && stage == Stage::User {
                self.users.remove(user.0);
            }
            return None;
        };
        self.unlink_waiting(id, stage, key, user);
        let waiting = self.waiting.get_mut(id)?;
        waiting.stage = stage.next();
        waiting.in_line = false;
        self.advance(id)
    }

    /// The limit of a stage: what is taken, and the bound. `None` for an exempt user, and for an
    /// object that is gone.
    #[inline(always)]
    fn quota(&mut self, stage: Stage, key: ObjectKey, user: User) -> Option<(&mut Quota, u32)> {
        let bounds = self.bounds;
        match stage {
            Stage::User if user == User::EXEMPT => None,
            Stage::User => {
                let quota = self.users.get_mut(user.0)?;
                Some((&mut quota.0, bounds.user))
            }
            Stage::Object => {
                let entry = self.objects.get_mut(key.0)?;
                Some((&mut entry.quota, bounds.object))
            }
            Stage::Table => Some((&mut self.quota, bounds.table)),
            Stage::Admitted => None,
        }
    }

    /// Takes as many of the units that a reader still needs as there are, in order, and has it wait
    /// for the next. Returns the reader, to be woken, if it has all, or its object is gone.
    fn advance(&mut self, id: u32) -> Option<F::Waker> {
        loop {
            let waiting = self.waiting.get(id)?;
            let (key, user, stage) = (waiting.key, waiting.user, waiting.stage);
            let Some((quota, bound)) = self.quota(stage, key, user) else {
                return Some(self.waiting.get(id)?.waker.clone());
            };
            if quota.take(bound) {
                self.waiting.get_mut(id)?.stage = stage.next();
                continue;
            }
            let mut line = quota.waiters;
            line.push_back(&mut self.waiting, id, line_link);
            if let Some((quota, _)) = self.quota(stage, key, user) {
                quota.waiters = line;
            }
            self.waiting.get_mut(id)?.in_line = true;
            return None;
        }
    }

    /// Cancels the waits for an object's limit. [`Self::pop_failed`] finds those readers.
    pub(super) fn cancel_waiting(&mut self, key: ObjectKey) {
        if let Some(entry) = self.objects.get_mut(key.0) {
            let line = core::mem::take(&mut entry.quota.waiters);
            self.cancelled.append(&mut self.waiting, line, line_link);
        }
    }

    /// The next reader whose wait was cancelled, to be woken. If the cache is dead, all are.
    pub(super) fn pop_cancelled(&mut self) -> Option<F::Waker> {
        let id = match self.cancelled.first() {
            Some(id) => id,
            None if self.dead => self.waiting.id_at(self.waiting.len().checked_sub(1)?)?,
            None => return None,
        };
        let waker = self.waiting.get(id)?.waker.clone();
        if self.dead {
            // It need not wake those that get its units: all are woken by this function in turn.
            self.remove_waiting(id);
        } else {
            self.cancelled.unlink(&mut self.waiting, id, line_link);
            self.waiting.get_mut(id)?.in_line = false;
        }
        Some(waker)
    }
}
