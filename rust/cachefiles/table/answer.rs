// SPDX-License-Identifier: GPL-2.0

//! What the daemon does to the request table.

use super::{
    Close,
    Delivery,
    Entry,
    Event,
    Handle,
    Kind,
    ObjectKey,
    Phase,
    Refused,
    Request,
    Table,
    Types, //
};
use crate::protocol::{
    command::Reply,
    errno::{
        Errno,
        Result, //
    },
    msg::{
        self,
        Message, //
    }, //
};

impl<F: Types> Table<F> {
    /// The next message to be delivered: one of its object's READs, and the other requests, in
    /// turn.
    fn next_message(&self) -> Option<u32> {
        let control = self.control.first();
        let object = self.ring.first().and_then(|key| self.objects.get(key));
        let read = object.and_then(|entry| entry.queued.first());
        if self.reads_turn {
            read.or(control)
        } else {
            control.or(read)
        }
    }

    /// Who waits for the answer to the OPEN that is the next of the OPENs and CLOSEs. `None` if
    /// there is no such OPEN, or it is that of an object that is reopened.
    pub(crate) fn next_waiter(&self) -> Option<&F::Waiter> {
        match &self.requests.get(self.control.first()?)?.kind {
            Kind::Open { waiter, .. } => waiter.as_ref(),
            _ => None,
        }
    }

    /// The next message, for a buffer of `room` bytes.
    pub(crate) fn deliver(&mut self, room: usize) -> Delivery<F> {
        let Some(msg_id) = self.next_message().filter(|_| !self.dead) else {
            return Delivery::Empty;
        };
        let Some(req) = self.requests.get(msg_id) else {
            return Delivery::Empty;
        };
        let entry = self.objects.get(req.object.0);
        let (size, delivery, phase) = match (&req.kind, entry) {
            (Kind::Open { .. }, Some(entry)) => (
                entry.open_size,
                Delivery::Open {
                    msg_id,
                    object: entry.payload.clone(),
                },
                Phase::Claimed,
            ),
            (
                Kind::Read { off, len, .. },
                Some(Entry {
                    object_id: Some(object_id),
                    ..
                }),
            ) => (
                msg::READ_SIZE,
                Delivery::Message {
                    msg_id,
                    msg: Message::read(msg_id, *object_id, *off, *len),
                },
                Phase::Delivered,
            ),
            (Kind::Close { object_id }, _) => (
                msg::HEADER_SIZE,
                Delivery::Message {
                    msg_id,
                    msg: Message::close(msg_id, *object_id),
                },
                Phase::Delivered,
            ),
            // Not reached by the invariants.
            _ => return Delivery::Empty,
        };
        if size > room {
            return Delivery::TooSmall;
        }
        let key = Self::queue_of(req);
        self.set_phase(msg_id, phase);
        self.move_in_ring(key, false);
        self.reads_turn = key == ObjectKey::NONE;
        delivery
    }

    /// A message reached the daemon. There is no answer to a CLOSE, so that one is done; nothing
    /// changes for others.
    pub(crate) fn delivered(&mut self, msg_id: u32) {
        if let Some(Request {
            kind: Kind::Close { object_id },
            phase: Phase::Delivered,
            ..
        }) = self.requests.get(msg_id)
        {
            if let Some(handle) = self.handles.get_mut(*object_id) {
                handle.close = Close::No;
            }
            self.remove(msg_id);
        }
    }

    /// A message was not copied to the daemon. If `next`, it is delivered next again; otherwise it
    /// goes to the end of its queue, because a message that needs no fd may succeed.
    pub(crate) fn put_back(&mut self, msg_id: u32, next: bool) {
        let Some(req) = self.requests.get(msg_id) else {
            return;
        };
        if !matches!(req.phase, Phase::Claimed | Phase::Delivered) {
            return;
        }
        if next {
            self.put_first(msg_id);
        } else {
            self.set_phase(msg_id, Phase::Queued);
        }
    }

    /// Gives a claimed OPEN an object id, which goes with the file descriptor into the message. If
    /// the object has had another one, that is replaced, and a CLOSE for it is queued.
    ///
    /// `Full` if the handles or the requests have to grow first, `Gone` if the OPEN was cancelled
    /// meanwhile.
    pub(crate) fn issue(&mut self, msg_id: u32) -> core::result::Result<u32, Refused> {
        let key = match self.requests.get(msg_id) {
            Some(req) if req.phase == Phase::Claimed => req.object,
            _ => return Err(Refused::Gone),
        };
        let handle = Handle {
            object: Some(key),
            close: Close::No,
            installed: false,
        };
        let old = self.objects.get(key.0).and_then(|entry| entry.object_id);
        let old = old.filter(|_| !self.dead);
        // For the old one's CLOSE.
        if old.is_some() && self.requests.reserve().is_err() {
            return Err(Refused::Full);
        }
        let Ok(object_id) = self.handles.insert(handle) else {
            if old.is_some() {
                self.requests.unreserve();
            }
            return Err(Refused::Full);
        };
        if let Some(entry) = self.objects.get_mut(key.0) {
            entry.object_id = Some(object_id);
        }
        self.set_phase(msg_id, Phase::Delivered);
        if let Some(old) = old {
            self.close_handle(old);
        }
        Ok(object_id)
    }

    /// The daemon has the file descriptor `object_id`, and the OPEN that came with it.
    pub(crate) fn installed(&mut self, object_id: u32) {
        let Some(handle) = self.handles.get_mut(object_id) else {
            return;
        };
        handle.installed = true;
        let object = handle.object;
        if core::mem::replace(&mut handle.close, Close::No) == Close::Later {
            return self.close_handle(object_id);
        }
        let open = object.and_then(|key| self.objects.get(key.0)?.open);
        if let Some(Request {
            kind: Kind::Open { fd_installed, .. },
            ..
        }) = open.and_then(|id| self.requests.get_mut(id))
        {
            *fd_installed = true;
        }
    }

    /// The object of an OPEN that the daemon may answer with a size: its file descriptor was
    /// installed, and is open.
    pub(crate) fn answerable(&self, msg_id: u32) -> Option<&F::Object> {
        match self.requests.get(msg_id)? {
            Request {
                object: key,
                kind: Kind::Open {
                    fd_installed: true, ..
                },
                ..
            } => {
                let entry = self.objects.get(key.0)?;
                entry.object_id.is_some().then_some(&entry.payload)
            }
            _ => None,
        }
    }

    /// The daemon's answer to an OPEN. Returns who to tell what, and what the daemon is told.
    ///
    /// # Errors
    ///
    /// - `EINVAL`, without a result for anybody, if `msg_id` is not an OPEN whose file descriptor
    ///   was installed.
    /// - What `reply` is, if that is an error; the OPEN fails with the same.
    /// - `EINVAL` if the size is more than the object may have, or size and version are not those
    ///   of the first OPEN; the OPEN fails too.
    #[allow(clippy::type_complexity)]
    pub(crate) fn copen(
        &mut self,
        msg_id: u32,
        reply: Result<Reply>,
        version: Option<F::Version>,
    ) -> (Option<(F::Waiter, Result<u64>)>, Result) {
        let key = match self.requests.get(msg_id) {
            Some(Request {
                object: key,
                kind: Kind::Open {
                    fd_installed: true, ..
                },
                phase,
                ..
            }) if *phase != Phase::Failed => *key,
            _ => return (None, Err(Errno::EINVAL)),
        };
        let waiter = self.take_open(msg_id);
        let Some(entry) = self.objects.get_mut(key.0) else {
            return (None, Err(Errno::EINVAL));
        };
        let (outcome, answer) = match reply {
            Err(errno) => (Err(errno), Err(errno)),
            Ok(Reply::Failed(errno)) => (Err(errno), Ok(())),
            Ok(Reply::Size(_)) if entry.object_id.is_none() => (Err(Errno::EBADFD), Ok(())),
            Ok(Reply::Size(size))
                if size > entry.max_size
                    || entry
                        .size
                        .is_some_and(|old| old != size || entry.version != version) =>
            {
                (Err(Errno::EINVAL), Err(Errno::EINVAL))
            }
            Ok(Reply::Size(size)) => {
                if entry.size.is_none() {
                    entry.size = Some(size);
                    entry.version = version;
                }
                (Ok(size), Ok(()))
            }
        };
        self.handle_event(
            key,
            match outcome {
                Ok(_) => Event::Opened,
                Err(_) => Event::OpenFailed,
            },
        );
        (waiter.map(|waiter| (waiter, outcome)), answer)
    }

    /// Whether an OPEN of the object that a file descriptor is for was answered with its size.
    pub(crate) fn has_size(&self, object_id: u32) -> bool {
        let handle = self.handles.get(object_id);
        let entry = handle.and_then(|handle| self.objects.get(handle.object?.0));
        entry.is_some_and(|entry| entry.size.is_some())
    }

    /// The daemon says that it has answered a READ, through the file descriptor `object_id`.
    /// Returns the read, which looks for itself whether that is so.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `msg_id` is not a READ of that object.
    pub(crate) fn read_complete(&mut self, msg_id: u32, object_id: u32) -> Result<F::Read> {
        let handle = self.handles.get(object_id).and_then(|h| h.object);
        match self.requests.get(msg_id) {
            Some(Request {
                object: key,
                kind: Kind::Read { .. },
                phase,
                ..
            }) if *phase != Phase::Failed && handle == Some(*key) => {
                self.take_read(msg_id).ok_or(Errno::EINVAL)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// The last copy of a file descriptor is gone.
    pub(crate) fn fd_released(&mut self, object_id: u32) {
        let Some(handle) = self.handles.remove(object_id) else {
            return;
        };
        // A CLOSE that was not delivered yet is not needed any more.
        match handle.close {
            Close::No => {}
            Close::Later => self.requests.unreserve(),
            Close::Queued(id) => {
                self.remove(id);
            }
        }
        let Some(key) = handle.object else {
            return;
        };
        let Some(entry) = self.objects.get_mut(key.0) else {
            return;
        };
        if entry.object_id == Some(object_id) {
            entry.object_id = None;
            let reads = entry.has_reads();
            self.handle_event(key, Event::Released { reads });
        }
    }

    /// A new daemon has taken over: what was delivered to the old one is delivered again, before
    /// what is queued, and of each object oldest first. [`Self::restore_some`] does it.
    pub(crate) fn begin_restore(&mut self) -> Restore {
        // Wakes pollers even if there is nothing to deliver again, so that the new daemon knows.
        self.wake = true;
        Restore(usize::MAX)
    }

    /// Queues again what was delivered of the next few objects. Returns how many messages that is,
    /// or `None` at the end. What the new daemon reads meanwhile may be delivered to it twice.
    ///
    /// A CLOSE that is being copied is not touched: [`Self::put_back`] queues it if that fails.
    pub(crate) fn restore_some(&mut self, at: &mut Restore) -> Option<usize> {
        let from = at.0.min(self.objects.len());
        let end = from.saturating_sub(Self::STRIDE);
        let mut count = 0;
        at.0 = from;
        // The next object may have as many READs as one may have.
        while at.0 > end && count < Self::STRIDE / 8 {
            at.0 -= 1;
            let key = ObjectKey(self.objects.id_at(at.0)?);
            count += self.take_back_open(key) + self.take_back_reads(key);
        }
        (from > 0).then_some(count)
    }

    /// Queues an object's OPEN that is with the daemon. Returns how many, none or one.
    fn take_back_open(&mut self, key: ObjectKey) -> usize {
        let open = self.objects.get(key.0).and_then(|entry| entry.open);
        let is_delivered = |id: &u32| {
            let req = self.requests.get(*id);
            req.is_some_and(|req| req.phase == Phase::Delivered)
        };
        let Some(open) = open.filter(is_delivered) else {
            return 0;
        };
        self.put_first(open);
        1
    }
}

/// How far a restore has got: the index of the object that was last looked at.
pub(crate) struct Restore(usize);
