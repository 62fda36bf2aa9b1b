// SPDX-License-Identifier: GPL-2.0

//! How many READs may be outstanding, and who has to wait because there are too many.
//!
//! A READ takes up one of what its user may have, then one of what its object may have, and one of
//! what the table has room for. It has them, and with them a slot in the table, from when it is
//! first queued until its reader is done with it, in whatever gaps that asks for meanwhile. Those
//! that find nothing left wait in line. What is given back goes to the first in line, so nobody
//! gets ahead of those who wait.
//!
//! The order matters: somebody in line for an object holds only what is his user's, so that no user
//! keeps others from an object by waiting for it.

use super::{
    list::{
        Link,
        List, //
    },
    Family,
    ObjectKey,
    Refused,
    Slots,
    Table, //
};

/// How many READs may be outstanding. None is zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) object: u32,
    pub(crate) user: u32,
    pub(crate) whole: u32,
}

impl Bounds {
    /// What is in force, unless a test says otherwise.
    ///
    /// - An object's READs are walked through under the lock when it is closed, reopened or given
    ///   up, which 1024 of them make no long walk.
    /// - A user may keep several objects busy, but not the whole table.
    /// - What the whole table has is a limit on memory; see also [`Table::CONTROL`].
    pub(crate) const DEFAULT: Self = Bounds {
        object: 1024,
        user: 8192,
        whole: 1 << 19,
    };
}

/// A READ's user: a user id, unless bounds for users do not apply. A number without an option, as
/// there is one in each READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User(u32);

impl User {
    /// Those that no bound for users applies to: the kernel, and the administrator. The number is
    /// that of no user.
    pub(crate) const EXEMPT: Self = User(u32::MAX);

    pub(crate) fn new(uid: u32) -> Self {
        User(uid)
    }
}

/// How much is taken, and who waits for it.
///
/// # Invariants
///
/// If a task waits, then `taken` is the bound.
#[derive(Clone, Copy, Default)]
pub(super) struct Gauge {
    taken: u32,
    waiters: List,
}

impl Gauge {
    fn take(&mut self, bound: u32) -> bool {
        let fits = self.taken < bound;
        self.taken += u32::from(fits);
        fits
    }
}

/// What one user has outstanding. Opaque to all but this module.
#[derive(Default)]
pub(crate) struct Account(Gauge);

/// What is taken, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    User,
    Object,
    Whole,
    /// All is taken.
    Admitted,
}

impl Stage {
    fn next(self) -> Self {
        match self {
            Stage::User => Stage::Object,
            Stage::Object => Stage::Whole,
            Stage::Whole | Stage::Admitted => Stage::Admitted,
        }
    }
}

/// A task that waits in line. Opaque to all but this module.
pub(crate) struct Waiting<F: Family> {
    key: ObjectKey,
    user: User,
    /// What it waits for. What comes before it is taken.
    stage: Stage,
    /// Whether it is in a line. If not, it was either admitted or never will be.
    in_line: bool,
    link: Link,
    sleeper: F::Sleeper,
}

fn line_link<F: Family>(waiting: &mut Waiting<F>) -> &mut Link {
    &mut waiting.link
}

/// Who is to be woken.
pub(crate) type Wakes<F> = [Option<<F as Family>::Sleeper>; 3];

impl<F: Family> Table<F> {
    /// Takes what a READ takes up, and a slot, if all of it is there.
    ///
    /// # Errors
    ///
    /// `Full` if memory is needed first, `Crowded` if too many are outstanding.
    pub(super) fn admit(&mut self, key: ObjectKey, user: User) -> Result<(), Refused> {
        let entry = self.objects.get_mut(key.0).ok_or(Refused::Gone)?;
        if entry.gauge.taken >= self.bounds.object || self.whole.taken >= self.bounds.whole {
            return Err(Refused::Crowded);
        }
        if self.requests.room() == 0 {
            return Err(Refused::Full);
        }
        if user != User::EXEMPT {
            Self::open_account(&mut self.users, user)?;
            let account = self.users.get_mut(user.0).ok_or(Refused::Full)?;
            if !account.0.take(self.bounds.user) {
                return Err(Refused::Crowded);
            }
        }
        entry.gauge.taken += 1;
        self.whole.taken += 1;
        Ok(())
    }

    fn open_account(users: &mut Slots<Account, F>, user: User) -> Result<(), Refused> {
        if users.get(user.0).is_some() {
            return Ok(());
        }
        let account = Account::default();
        users.insert_at(user.0, account).map_err(|_| Refused::Full)
    }

    /// Puts a task in line, and returns its id there. `sleeper` is woken when
    /// [`Self::admitted`] has news: it may have some at once.
    ///
    /// # Errors
    ///
    /// `Full` if memory is needed first, for those who wait or for users; `Gone` if the object or
    /// the cache is gone.
    pub(crate) fn line_up(
        &mut self,
        key: ObjectKey,
        user: User,
        sleeper: F::Sleeper,
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
            Self::open_account(&mut self.users, user)?;
            Stage::User
        };
        let waiting = Waiting {
            key,
            user,
            stage,
            in_line: false,
            link: Link::default(),
            sleeper,
        };
        let id = self.waiting.insert(waiting).map_err(|_| Refused::Full)?;
        self.advance(id);
        Ok(id)
    }

    /// Whether somebody who waited in line has all that a READ takes up, and a slot: then they are
    /// not in line any more, and [`Self::leave`] gives it back.
    ///
    /// # Errors
    ///
    /// `Full` if memory for requests is needed first, `Gone` if they wait in vain. They are still
    /// to be taken out of the line.
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

    /// Takes a task out of the line that does not wait any longer. Returns those to wake.
    pub(crate) fn step_out(&mut self, id: u32) -> Wakes<F> {
        let Some(waiting) = self.waiting.get(id) else {
            return Wakes::<F>::default();
        };
        let (key, user, stage) = (waiting.key, waiting.user, waiting.stage);
        if waiting.in_line {
            self.unlink_waiting(id, stage, key, user);
        }
        self.waiting.remove(id);
        let held = [Stage::User, Stage::Object, Stage::Whole].map(|held| held < stage);
        self.give_back(key, user, held)
    }

    fn unlink_waiting(&mut self, id: u32, stage: Stage, key: ObjectKey, user: User) {
        let line = self.gauge(stage, key, user).map(|(gauge, _)| gauge.waiters);
        match line.filter(|line| line.ends_with(id)) {
            Some(mut line) => {
                line.unlink(&mut self.waiting, id, line_link);
                if let Some((gauge, _)) = self.gauge(stage, key, user) {
                    gauge.waiters = line;
                }
            }
            // It may be among those who wait in vain.
            None => self.vain.unlink(&mut self.waiting, id, line_link),
        }
    }

    /// Gives back what a READ took up, and its slot.
    pub(crate) fn leave(&mut self, key: ObjectKey, user: User) -> Wakes<F> {
        self.requests.unreserve();
        self.give_back(key, user, [true; 3])
    }

    fn give_back(&mut self, key: ObjectKey, user: User, held: [bool; 3]) -> Wakes<F> {
        let [of_user, of_object, of_whole] = held;
        [
            self.give_back_one(of_user, Stage::User, key, user),
            self.give_back_one(of_object, Stage::Object, key, user),
            self.give_back_one(of_whole, Stage::Whole, key, user),
        ]
    }

    /// Gives what one took to the first in line. Returns whom to wake, if there is news for them.
    #[inline(always)]
    fn give_back_one(
        &mut self,
        held: bool,
        stage: Stage,
        key: ObjectKey,
        user: User,
    ) -> Option<F::Sleeper> {
        let (gauge, _) = self.gauge(stage, key, user).filter(|_| held)?;
        let Some(id) = gauge.waiters.first() else {
            gauge.taken = gauge.taken.saturating_sub(1);
            if gauge.taken == 0 && stage == Stage::User {
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

    /// What `stage` takes from, and its bound. `None` for users that have none, and for objects
    /// that are gone.
    #[inline(always)]
    fn gauge(&mut self, stage: Stage, key: ObjectKey, user: User) -> Option<(&mut Gauge, u32)> {
        let bounds = self.bounds;
        match stage {
            Stage::User if user == User::EXEMPT => None,
            Stage::User => {
                let account = self.users.get_mut(user.0)?;
                Some((&mut account.0, bounds.user))
            }
            Stage::Object => {
                let entry = self.objects.get_mut(key.0)?;
                Some((&mut entry.gauge, bounds.object))
            }
            Stage::Whole => Some((&mut self.whole, bounds.whole)),
            Stage::Admitted => None,
        }
    }

    /// Takes for somebody who is in no line what there is, and puts them in line for the rest.
    /// Returns whom to wake, if there is no rest, or they would wait in vain.
    fn advance(&mut self, id: u32) -> Option<F::Sleeper> {
        loop {
            let waiting = self.waiting.get(id)?;
            let (key, user, stage) = (waiting.key, waiting.user, waiting.stage);
            let Some((gauge, bound)) = self.gauge(stage, key, user) else {
                return Some(self.waiting.get(id)?.sleeper.clone());
            };
            if gauge.take(bound) {
                self.waiting.get_mut(id)?.stage = stage.next();
                continue;
            }
            let mut line = gauge.waiters;
            line.push_back(&mut self.waiting, id, line_link);
            if let Some((gauge, _)) = self.gauge(stage, key, user) {
                gauge.waiters = line;
            }
            self.waiting.get_mut(id)?.in_line = true;
            return None;
        }
    }

    /// Those who are in line for an object wait in vain. [`Self::pop_failed`] finds them.
    pub(super) fn dismiss(&mut self, key: ObjectKey) {
        if let Some(entry) = self.objects.get_mut(key.0) {
            let line = core::mem::take(&mut entry.gauge.waiters);
            self.vain.append(&mut self.waiting, line, line_link);
        }
    }

    /// The next of those who wait in vain, to be woken. If the cache is dead, all do.
    pub(super) fn pop_vain(&mut self) -> Option<F::Sleeper> {
        let id = match self.vain.first() {
            Some(id) => id,
            None if self.dead => self.waiting.id_at(self.waiting.len().checked_sub(1)?)?,
            None => return None,
        };
        let sleeper = self.waiting.get(id)?.sleeper.clone();
        if self.dead {
            // Others that this admits are told the same.
            self.step_out(id);
        } else {
            self.vain.unlink(&mut self.waiting, id, line_link);
            self.waiting.get_mut(id)?.in_line = false;
        }
        Some(sleeper)
    }
}
