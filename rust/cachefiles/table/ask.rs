// SPDX-License-Identifier: GPL-2.0

//! What lookups, reads and withdrawals do to the request table.

use super::{
    age_link,
    Entry,
    Event,
    JoinPolicy,
    Kind,
    Link,
    List,
    ObjectKey,
    Phase,
    Placed,
    Quota,
    Refused,
    Request,
    State,
    Table,
    Types,
    User, //
};

impl<F: Types> Table<F> {
    /// Adds an object, which may have `max_size` bytes, and queues its OPEN, whose message will
    /// have `open_size` bytes. Returns what names the object and the OPEN, or both payloads if the
    /// object cannot be added.
    #[allow(clippy::type_complexity)]
    pub(crate) fn register(
        &mut self,
        payload: F::Object,
        open_size: usize,
        max_size: u64,
        waiter: F::Waiter,
    ) -> core::result::Result<(ObjectKey, u32), (Refused, F::Object, F::Waiter)> {
        if self.dead {
            return Err((Refused::Gone, payload, waiter));
        }
        // For the reopens, and for the CLOSE at the end: neither can fail.
        if self.requests.room() < 2 || self.requests.reserve().is_err() {
            return Err((Refused::Full, payload, waiter));
        }
        let entry = Entry {
            payload,
            state: State::Opening,
            object_id: None,
            open: None,
            size: None,
            version: None,
            max_size,
            queued: List::default(),
            delivered: List::default(),
            ring: Link::default(),
            in_ring: false,
            quota: Quota::default(),
            open_size,
        };
        let key = match self.objects.insert(entry) {
            Ok(key) => ObjectKey(key),
            Err(entry) => {
                self.requests.unreserve();
                return Err((Refused::Full, entry.payload, waiter));
            }
        };
        let open = Self::new_open(key, Some(waiter));
        // There is room, as was seen above; without it, the lookup would never end.
        let id = self.requests.insert(open).unwrap_or_default();
        self.queue_open(key, id);
        Ok((key, id))
    }

    /// Removes a lookup's OPEN, whose answer no task waits for. `None` if it was answered
    /// meanwhile.
    pub(crate) fn cancel_open(&mut self, msg_id: u32) -> Option<F::Waiter> {
        match self.requests.get(msg_id)? {
            Request {
                kind: Kind::Open {
                    waiter: Some(_), ..
                },
                phase,
                ..
            } if *phase != Phase::Failed => self.take_open(msg_id),
            _ => None,
        }
    }

    /// Queues a READ of `len` bytes at `off`, or has it join another, as `policy` says. `now` is
    /// the time in milliseconds, which never goes back. Returns how, and so whether the
    /// [watch](Self::watch) has to be started.
    ///
    /// `admit` is the user of a reader that is to be admitted first, until [`Self::end_admission`].
    /// `None` if it is admitted already.
    ///
    /// # Errors
    ///
    /// The payload with `Full` if memory for requests or users is needed first, with `OverLimit` if
    /// the reader has to [wait](Self::add_waiting), and with `Gone` if the object or the cache is
    /// gone.
    pub(crate) fn queue_read(
        &mut self,
        key: ObjectKey,
        (off, len): (u64, u64),
        payload: F::Read,
        now: u64,
        admit: Option<User>,
        policy: JoinPolicy,
    ) -> core::result::Result<Placed, (Refused, F::Read)> {
        let admitted = match admit {
            _ if self.dead => Err(Refused::Gone),
            Some(user) => self.admit(key, user),
            None if self.objects.get(key.0).is_none() => Err(Refused::Gone),
            // It has a slot reserved, which is used below.
            None => {
                self.requests.unreserve();
                Ok(())
            }
        };
        if let Err(refused) = admitted {
            return Err((refused, payload));
        }
        let (other, len) = match policy {
            JoinPolicy::Never => (None, len),
            _ => self.look_at_others(key, off, len),
        };
        if let Some(Request {
            kind: Kind::Read { payload: other, .. },
            ..
        }) = other
            .filter(|_| policy == JoinPolicy::Join)
            .and_then(|other| self.requests.get_mut(other))
        {
            F::join(other, payload);
            // Reserves the slot again, as it has no READ of its own. There is room, as was checked.
            let _ = self.requests.reserve();
            return Ok(Placed::Joined);
        }
        let kind = Kind::Read {
            off,
            len,
            payload,
            // CAST: The upper bits are left out.
            since: now as u32,
        };
        let id = match self.requests.insert(Request::new(key, kind)) {
            Ok(id) => id,
            Err(request) => match request.kind {
                // Not reached: there is room, as was seen above.
                Kind::Read { payload, .. } => return Err((Refused::Gone, payload)),
                _ => return Ok(Placed::Alone),
            },
        };
        self.ages.push_back(&mut self.requests, id, age_link);
        self.set_phase(id, Phase::Queued);
        self.handle_event(key, Event::Read);
        Ok(match self.watch() {
            true => Placed::Unwatched,
            false => Placed::Alone,
        })
    }

    /// Looks for READs that overlap, among the last few of an object that were queued and the last
    /// few that were delivered: readers of the same data come soon after each other. Returns the
    /// one that asks for what is at `off`, and `len`, shortened to where another one begins.
    fn look_at_others(&self, key: ObjectKey, off: u64, len: u64) -> (Option<u32>, u64) {
        const LAST: usize = 4;
        let (mut found, mut len) = (None, len);
        let Some(entry) = self.objects.get(key.0) else {
            return (found, len);
        };
        for list in [entry.queued, entry.delivered] {
            let mut at = list.last();
            for _ in 0..LAST {
                let Some((id, req)) = at.and_then(|id| Some((id, self.requests.get(id)?))) else {
                    break;
                };
                if let Kind::Read {
                    off: start,
                    len: other,
                    ..
                } = req.kind
                {
                    match start.checked_sub(off) {
                        Some(before @ 1..) => len = len.min(before),
                        _ if off - start < other => found = found.or(Some(id)),
                        _ => {}
                    }
                }
                at = req.queue.prev();
            }
        }
        (found, len)
    }

    /// Notes that the watch runs: the work item that ends READs and OPENs on a timeout, or when
    /// their cookie is no longer used. Returns whether the caller has to start it; if not, it runs,
    /// and calls [`Self::keep_watching`] before it ends.
    pub(crate) fn watch(&mut self) -> bool {
        !core::mem::replace(&mut self.watched, true)
    }

    /// The message id of the READ that was queued last, for the object `key`, and the object id of
    /// the file descriptor to answer it through, 0 if there is none yet.
    pub(crate) fn last_read(&self, key: ObjectKey) -> (u32, u32) {
        let object_id = self.objects.get(key.0).and_then(|entry| entry.object_id);
        let msg_id = self.ages.last().unwrap_or_default();
        (msg_id, object_id.unwrap_or_default())
    }

    /// Whether there are READs, so that the watch has to go on; if not, it is noted as ended.
    pub(crate) fn keep_watching(&mut self) -> bool {
        self.watched = !self.ages.is_empty();
        self.watched
    }

    /// Takes the oldest READ out of the table, for the caller to tell its owner, if it was queued
    /// more than `timeout` milliseconds before `now`.
    pub(crate) fn pop_overdue(&mut self, now: u64, timeout: u64) -> Option<F::Read> {
        let id = self.ages.first()?;
        // CAST: The difference of the lower bits is that of the whole, unless it is more than 49
        // days.
        let age = |since: u32| u64::from((now as u32).wrapping_sub(since));
        match self.requests.get(id)?.kind {
            // `>`, so that it is never too early: both times are cut to whole milliseconds.
            Kind::Read { since, .. } if age(since) > timeout => self.take_read(id),
            _ => None,
        }
    }

    /// Fails the READs of an object, which stays. [`Self::pop_failed`] finds them.
    pub(crate) fn cancel_reads(&mut self, key: ObjectKey) {
        self.fail_reads(key);
    }

    /// Looks for an object with READs among those before index `from`, which is [`usize::MAX`] to
    /// begin with, but only among the next few. Returns it, if there is one, and the index to go on
    /// from; `None` if there are no more objects. Those that are added meanwhile may be missed.
    #[allow(clippy::type_complexity)]
    pub(crate) fn next_reading(
        &self,
        from: usize,
    ) -> Option<(Option<(ObjectKey, F::Object)>, usize)> {
        let from = from.min(self.objects.len());
        let end = from.saturating_sub(Self::STRIDE);
        for index in (end..from).rev() {
            let key = self.objects.id_at(index)?;
            let entry = self.objects.get(key)?;
            if entry.has_reads() {
                return Some((Some((ObjectKey(key), entry.payload.clone())), index));
            }
        }
        (from > 0).then_some((None, end))
    }

    /// The object at `index`.
    #[cfg(test)]
    pub(crate) fn object_at(&self, index: usize) -> Option<F::Object> {
        let key = self.objects.id_at(index)?;
        Some(self.objects.get(key)?.payload.clone())
    }

    /// The version of an object that the daemon gave with its size, if it did.
    pub(crate) fn version(&self, key: ObjectKey) -> Option<F::Version> {
        self.objects.get(key.0)?.version.clone()
    }

    /// Removes an object. What was queued for it fails; if a daemon holds a file descriptor for
    /// it, a CLOSE is queued.
    pub(crate) fn unregister(&mut self, key: ObjectKey) -> Option<F::Object> {
        self.fail_reads(key);
        if let Some(open) = self.objects.get(key.0)?.open {
            match self.requests.get_mut(open) {
                Some(Request {
                    kind:
                        Kind::Open {
                            waiter: Some(_), ..
                        },
                    ..
                }) => {
                    // pop_failed() finds it, and the caller then tells its waiter.
                    self.set_phase(open, Phase::Failed);
                    if let Some(req) = self.requests.get_mut(open) {
                        req.object = ObjectKey::NONE;
                    }
                }
                _ => {
                    self.take_open(open);
                }
            }
        }

        let entry = self.objects.remove(key.0)?;
        match entry.object_id {
            Some(object_id) if !self.dead => self.close_handle(object_id),
            _ => self.requests.unreserve(),
        }
        Some(entry.payload)
    }

    /// Marks the cache dead: nothing is queued or delivered any more, and [`Self::pop_failed`]
    /// returns all requests and all readers that wait.
    pub(crate) fn kill(&mut self) {
        self.dead = true;
        self.wake = true;
    }
}
