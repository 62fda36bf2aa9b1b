// SPDX-License-Identifier: GPL-2.0

//! Asking the daemon: the requests of lookups and reads, and their end.

use super::{
    line::{
        current_user,
        wake,
        Place, //
    },
    lookup::{
        Answer,
        LookupState,
        PendingOpen, //
    },
    read::WaitingRead,
    requests::{
        Payloads,
        Requests,
        Source,
        Ticket, //
    }, //
};
use crate::{
    kernel_next::fscache::Lookup,
    object::Object,
    table::{
        JoinPolicy,
        ObjectKey,
        Placed,
        Refused,
        Table,
        User, //
    },
    trace, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

impl Requests {
    /// Asks the daemon for an object of at most `max` bytes: the first call for a cookie queues an
    /// OPEN for `object`. If there is no answer at once, it puts the lookup off, and a call that
    /// comes after the answer returns the object and the answer.
    ///
    /// The object is in the table then, until [`Self::withdraw`].
    ///
    /// # Errors
    ///
    /// `EIO` if there is no daemon, `EBUSY` if there are too many requests; `ENOMEM`. An error that
    /// the daemon answers, and `ETIMEDOUT`, are not returned here, but stored in the cookie.
    fn open(
        self: &Arc<Self>,
        cookie: &Lookup<'_>,
        object: impl FnOnce() -> Result<Arc<Object>>,
        max: u64,
    ) -> Result<Option<(Arc<Object>, Answer)>> {
        let open = match self.opens.find(cookie) {
            LookupState::Answered(open) => open,
            LookupState::Queued => return Ok(None),
            LookupState::Nothing => {
                let open = PendingOpen::new(cookie, object()?, self.now())?;
                self.opens.add(cookie, open.clone())?;
                self.queue_open(&open, max).inspect_err(|e| {
                    trace::open_failed(open.object().debug_id(), *e);
                    self.opens.remove(&open);
                    open.object().detach();
                })?;
                if !self.opens.wait(&open) {
                    return Ok(None);
                }
                open
            }
        };
        let answer = open.answer().cloned();
        Ok(answer.map(|answer| (open.object().clone(), answer)))
    }

    fn queue_open(self: &Arc<Self>, open: &Arc<PendingOpen>, max: u64) -> Result {
        let object = open.object();
        let size = object.open_keys()?.size();
        loop {
            let register = |table: &mut Table<Payloads>| {
                let (key, msg_id) = table
                    .register(object.clone(), size, max, open.clone())
                    .map_err(|(refused, ..)| refused)?;
                // Under the lock, so that both are set before the daemon can answer.
                object.set_key(key);
                open.set_msg_id(msg_id);
                if table.watch() {
                    // Under the lock, so that it is queued before kill(), whose caller flushes the
                    // workqueue.
                    let _ = self.workqueue.enqueue(self.clone());
                }
                Ok(())
            };
            match self.with(register) {
                Ok(()) => return Ok(()),
                Err(Refused::Gone | Refused::OverLimit) => return Err(EIO),
                Err(Refused::Full) => {
                    self.make_room(1, Table::objects)?;
                    self.make_room(2, Table::requests)?;
                }
            }
        }
    }

    /// An OPEN that was taken out of the table has been answered, or has failed.
    pub(super) fn finish_open(&self, open: &Arc<PendingOpen>, answer: Result<Answer>) {
        if let Err(e) = &answer {
            trace::open_failed(open.object().debug_id(), *e);
        }
        if !self.opens.store_answer(open, answer) {
            self.drop_open(open);
        }
    }

    /// Removes the object of an OPEN that no lookup is going to claim.
    pub(super) fn drop_open(&self, open: &Arc<PendingOpen>) {
        open.object().detach();
        self.unregister(open.object());
    }

    /// Removes an object from the table, and drops its references to file and cookie: the cookie is
    /// withdrawn, or its lookup has failed. Its requests fail; if the daemon has a file descriptor
    /// for it, a CLOSE is queued.
    fn withdraw(&self, object: &Object) {
        self.unregister(object);
        self.complete_failed();
        object.detach();
    }

    /// Removes an object from the table. The caller then [completes](Self::complete_failed) its
    /// requests, if it may have any.
    pub(super) fn unregister(&self, object: &Object) {
        if let Some(key) = object.key() {
            // The version is kept until the table has dropped its own.
            let unregister =
                |table: &mut Table<Payloads>| (table.version(key), table.unregister(key));
            let _dropped = self.with_close(object, |table| (unregister(table), table.trim()));
        }
    }

    /// Queues a READ for the data that a read is waiting for.
    ///
    /// The first time that a reader asks for something it may have to wait, because a limit on
    /// READs is reached: in the context of the task that reads. Then the read is returned, to check
    /// again what it needs: the blocks may have become present meanwhile.
    pub(crate) fn queue_read(
        self: &Arc<Self>,
        mut read: Pin<KBox<WaitingRead>>,
    ) -> core::result::Result<(), Pin<KBox<WaitingRead>>> {
        let Some(key) = read.object().key() else {
            read.fail(EIO);
            return Ok(());
        };
        let admit = read.is_new().then(current_user);
        loop {
            let (refused, back) = match self.try_queue(key, read, admit) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            read = back;
            let retry = match (refused, admit) {
                (Refused::OverLimit, Some(user)) => {
                    match self.wait_in_line(read.object(), key, user) {
                        Ok(ticket) => {
                            read.set_ticket(ticket);
                            return Err(read);
                        }
                        Err(e) => Err(e),
                    }
                }
                (Refused::Full, _) => self
                    .make_room(1, Table::requests)
                    .and_then(|()| self.make_room(1, Table::users)),
                _ => Err(EIO),
            };
            if let Err(e) = retry {
                read.fail(e);
                return Ok(());
            }
        }
    }

    /// Queues a READ, with a new ticket if the reader, of the user `admit`, is to be admitted
    /// first.
    fn try_queue(
        self: &Arc<Self>,
        key: ObjectKey,
        mut read: Pin<KBox<WaitingRead>>,
        admit: Option<User>,
    ) -> core::result::Result<(), (Refused, Pin<KBox<WaitingRead>>)> {
        let (off, len) = read.wanted();
        let obj = read.object().debug_id();
        let policy = match self.options.granule {
            None => JoinPolicy::Never,
            Some(_) if read.may_join() => JoinPolicy::Join,
            Some(_) => JoinPolicy::Shorten,
        };
        if let Some(user) = admit {
            // Set before the read is in the table, from where another task may complete it.
            read.set_ticket(Ticket::new(self.clone(), key, user));
        }
        let queue = |table: &mut Table<Payloads>| {
            // now() is called under the lock, so that the list by age is sorted.
            let result = table.queue_read(key, (off, len), read, self.now(), admit, policy);
            // Under the lock, so that it is on the workqueue before the cache is killed, or not at
            // all: the task that kills the cache flushes the workqueue.
            if let Ok(Placed::Unwatched) = result {
                // If it is on the workqueue already, it is still to run.
                let _ = self.workqueue.enqueue(self.clone());
            }
            let is_queued = result
                .as_ref()
                .is_ok_and(|placed| *placed != Placed::Joined);
            let queued = is_queued.then(|| table.last_read(key));
            (result, queued)
        };
        let (result, _) = self.with_traced(queue, |(_, queued)| {
            if let Some((msg_id, object_id)) = *queued {
                trace::read(obj, msg_id, object_id, off, len);
            }
        });
        match result {
            Ok(_) => Ok(()),
            Err((refused, mut read)) => {
                if admit.is_some() {
                    read.forget_ticket();
                }
                Err((refused, read))
            }
        }
    }

    /// Waits until a READ of the object can be queued. The driver holds no lock then, but the task
    /// may hold locks of folios, and have READs outstanding. So the wait ends when the daemon has
    /// answered others or is gone, when the cookie is not used any more, with the time limit, or
    /// when the task is killed.
    ///
    /// # Errors
    ///
    /// `EINTR` if the task is killed, `ETIMEDOUT`, `EIO` if the cookie is not used any more or
    /// there is no daemon; `EBUSY`, `ENOMEM`.
    pub(super) fn wait_in_line(
        self: &Arc<Self>,
        object: &Object,
        key: ObjectKey,
        user: User,
    ) -> Result<Ticket> {
        let place = Place::new()?;
        let id = loop {
            match self.with(|table| table.add_waiting(key, user, place.clone())) {
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
            wake(self.with(|table| table.remove_waiting(id)));
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
                        self.warn_of_timeouts(1);
                        return Err(ETIMEDOUT);
                    }
                    place.wait()?;
                }
                Err(Refused::Full) => self.make_room(1, Table::requests)?,
                Err(_) => return Err(EIO),
            }
        }
    }
}

impl Source {
    /// Asks the daemon for the object of a cookie, of at most `max` bytes, and stores its size and
    /// version in the cookie. `None` if the lookup was put off: see [`Requests::open`].
    ///
    /// # Errors
    ///
    /// Those of [`Requests::open`]; `ENOMEM`.
    pub(crate) fn open(
        requests: &Arc<Requests>,
        cookie: &Lookup<'_>,
        max: u64,
    ) -> Result<Option<Arc<Self>>> {
        let Some((object, answer)) = requests.open(cookie, || Object::new(cookie), max)? else {
            return Ok(None);
        };
        let tell = || {
            let source = Source {
                requests: requests.clone(),
                object: object.clone(),
                answer,
            };
            cookie.set_object_size(source.size())?;
            cookie.set_version(source.version());
            Ok(Arc::new(source, GFP_KERNEL)?)
        };
        let source = tell();
        if source.is_err() {
            requests.withdraw(&object);
        }
        source.map(Some)
    }

    /// Removes the object from the table, and drops its references to file and cookie.
    pub(crate) fn close(&self) {
        self.requests.withdraw(&self.object);
    }
}
