// SPDX-License-Identifier: GPL-2.0

//! Delivering messages to the daemon.

use super::{
    anon_fd::{
        self,
        FdData, //
    },
    requests::{
        Payloads,
        Requests, //
    }, //
};
use crate::{
    kernel_next::sync::poll::PollEvents,
    object::Object,
    protocol::msg::{
        self,
        Message, //
    },
    table::{
        Delivery,
        Refused,
        Table, //
    },
    trace, //
};
use kernel::{
    fs::file::{
        flags,
        FileDescriptorReservation, //
    },
    prelude::*,
    sync::Arc,
    uaccess::UserSliceWriter, //
};

/// How many messages one `read()` delivers at most, so that it does not take long.
const BATCH: usize = 1024;

/// The buffer of a `read()`.
struct Output {
    /// What is left of it.
    buf: UserSliceWriter,
    /// Bytes from its start to the end of the last message.
    len: usize,
}

impl Output {
    /// Room for a message.
    fn room(&self) -> usize {
        self.buf.len().saturating_sub(msg::padding(self.len).len())
    }

    /// Appends a message that there is room for. Not to be used any more if it fails.
    fn put<const SIZE: usize>(&mut self, msg: &Message<SIZE>) -> Result {
        let padding = msg::padding(self.len);
        self.buf.write_slice(padding)?;
        self.buf.write_slice(msg.as_bytes())?;
        self.len += padding.len() + msg.as_bytes().len();
        Ok(())
    }
}

impl Requests {
    /// Gives the daemon the next message, or in batch mode the next few, and returns how many bytes
    /// that was: 0 if there is none. If it `may_wait` and the cache was bound with `wait`, waits
    /// for one; 0 means then that the cache is dead.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if a signal ends the wait. `EMSGSIZE` if the buffer is too small for the first
    /// message, `EFAULT` if it cannot be written to, `EMFILE` and the like if there is no file
    /// descriptor for an OPEN: the message stays queued.
    pub(crate) fn read_messages(
        self: &Arc<Self>,
        buf: UserSliceWriter,
        may_wait: bool,
    ) -> Result<usize> {
        let result = self.deliver(buf, may_wait && self.options.wait);
        // If this task was woken for a message that it did not take, another one has to be woken.
        if self.options.batch || result.is_err() {
            self.with(|table| table.wake_if_ready());
        }
        result
    }

    /// As [`Self::read_messages`], but does not wake another task for the messages that are left.
    fn deliver(self: &Arc<Self>, buf: UserSliceWriter, may_wait: bool) -> Result<usize> {
        let most = if self.options.batch { BATCH } else { 1 };
        let mut out = Output { buf, len: 0 };
        for _ in 0..most {
            match self.deliver_next(&mut out, may_wait) {
                Ok(true) => {}
                Ok(false) => break,
                // The call succeeds with what was delivered. The next one reports the error.
                Err(_) if out.len > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(out.len)
    }

    /// Waits for a message. Returns whether there is one; if not, the cache is dead.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if a signal is pending.
    fn wait_for_message(&self) -> Result<bool> {
        let mut table = self.table.lock();
        while !table.is_ready() {
            if table.is_dead() {
                return Ok(false);
            }
            if self.poll.wait_interruptible_freezable(&mut table) {
                // If this task was woken for a message, `read_messages` has another one woken.
                return Err(ERESTARTSYS);
            }
        }
        Ok(true)
    }

    /// Delivers the next message; waits for one, if it `may_wait` and has delivered none before.
    /// Returns whether there was one.
    fn deliver_next(self: &Arc<Self>, out: &mut Output, may_wait: bool) -> Result<bool> {
        loop {
            let next = |table: &mut Table<Payloads>| match table.next_waiter() {
                Some(open) if open.is_unwanted() => Err(open.clone()),
                _ => {
                    let delivery = table.deliver(out.room());
                    // Several messages may have become ready at once, for which one exclusive
                    // poller was woken.
                    if !self.options.batch {
                        table.wake_if_ready();
                    }
                    Ok(delivery)
                }
            };
            let delivery = match self.with(next) {
                Ok(delivery) => delivery,
                Err(open) => {
                    // So that the daemon does not see it. The object is not open yet, so it has no
                    // READs that would have to be completed.
                    self.end_open(&open, false);
                    continue;
                }
            };
            let (msg_id, result) = match delivery {
                Delivery::Empty if !may_wait || out.len > 0 || !self.wait_for_message()? => {
                    return Ok(false)
                }
                Delivery::Empty => continue,
                Delivery::TooSmall => return Err(EMSGSIZE),
                Delivery::Message { msg_id, msg } => {
                    let result = out.put(&msg).map(|()| {
                        if !msg.has_answer() {
                            self.with(|table| table.delivered(msg_id));
                        }
                        true
                    });
                    (msg_id, result)
                }
                Delivery::Open { msg_id, object } => {
                    (msg_id, self.deliver_open(msg_id, object, out))
                }
            };
            match result {
                Ok(true) => return Ok(true),
                // It was cancelled meanwhile.
                Ok(false) => {}
                Err(e) => {
                    // EFAULT: any message would fail, so this one stays first. No fd or no memory:
                    // it goes last, as READs and CLOSEs may still succeed. If earlier messages were
                    // copied, this call succeeds; the message stays first, so that the next call
                    // reports the error.
                    let next = e == EFAULT || out.len > 0;
                    self.with(|table| table.put_back(msg_id, next));
                    return Err(e);
                }
            }
        }
    }

    /// Delivers an OPEN with a new file descriptor, which is installed after the message was
    /// copied. Returns false if the OPEN was cancelled meanwhile.
    fn deliver_open(
        self: &Arc<Self>,
        msg_id: u32,
        object: Arc<Object>,
        out: &mut Output,
    ) -> Result<bool> {
        let fd =
            FileDescriptorReservation::get_unused_fd_flags(flags::O_WRONLY | flags::O_CLOEXEC)?;
        let handle = FdData::new(self.clone(), object.clone())?;
        let file = anon_fd::file(handle.clone())?;
        let object_id = loop {
            match self.with_close(&object, |table| table.issue(msg_id)) {
                Ok(object_id) => break object_id,
                Err(Refused::Gone | Refused::OverLimit) => return Ok(false),
                Err(Refused::Full) => {
                    self.make_room(1, Table::handles)?;
                    self.make_room(1, Table::requests)?;
                }
            }
        };
        handle.set_object_id(object_id);
        trace::open(object.debug_id(), msg_id, object_id, fd.reserved_fd());
        let msg = Message::open(msg_id, object_id, fd.reserved_fd(), object.open_keys()?);
        out.put(&msg)?;
        kdebug!("cookie {:x}: opened as {}\n", object.debug_id(), object_id);
        fd.fd_install(file);
        self.with_close(&object, |table| table.installed(object_id));
        Ok(true)
    }

    /// Which events the daemon may act on.
    pub(crate) fn poll(&self) -> PollEvents {
        let table = self.table.lock();
        let mut events = PollEvents::default();
        if table.is_ready() {
            events |= PollEvents::IN;
        }
        if table.is_dead() {
            events |= PollEvents::ERR | PollEvents::HUP;
        }
        events
    }
}
