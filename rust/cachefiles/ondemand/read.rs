// SPDX-License-Identifier: GPL-2.0

//! Reading objects.
//!
//! A read whose blocks are all present goes to the backing file at once: to its page cache first,
//! where what the daemon has just written is, and past it otherwise. A read of blocks that are
//! missing waits in the request table while the daemon is asked for them, one run of missing blocks
//! after the other. It ends in the daemon's context, if all that is left to be done is to copy a
//! little from memory, or if the daemon has all of it in its own; otherwise it continues on a work
//! queue. Whoever is told of the data may have a lot to do with it, so in the daemon's context it
//! is told as by an interrupt.
//!
//! A block is read only if the map of what the daemon wrote says that it is there, or if the daemon
//! writes it with the same call. That it says it is done is not enough.
//!
//! If the daemon wants to be asked for much at once, reads that need what it is asked for already
//! wait with the one that has asked. They hang on that, and the request table has one request.

use super::requests::{
    Source,
    Ticket, //
};
use crate::{
    backing::{
        check::{
            first_gap,
            is_only_on_disk,
            Found,
            May, //
        },
        Backing, //
    },
    disk::presence,
    kernel_next::{
        fs::kernel_file::FileRead,
        iov::user_source,
        netfs::CacheRead,
        sched::nofs, //
    },
    object::Object,
    protocol::BLOCK_SIZE,
    trace, //
};
use core::ops::Range;
use kernel::{
    impl_has_work,
    iov::IovIterSource,
    new_work,
    prelude::*,
    sync::Arc,
    uaccess::UserPtr,
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// The most bytes that are copied from the page cache in the daemon's context: less work than to
/// have another task do it, and no long time in which the daemon answers nobody else. What it has
/// written with the same call is copied whatever its length, as it was to the page cache.
const SHORT: usize = 64 << 10;

/// Offset and length of blocks in bytes.
fn bytes(blocks: &Range<u64>) -> (u64, u64) {
    (
        blocks.start * BLOCK_SIZE,
        (blocks.end - blocks.start) * BLOCK_SIZE,
    )
}

/// What the daemon has just written, which it still has in its memory.
pub(crate) struct Written {
    pub(crate) pos: u64,
    pub(crate) addr: UserPtr,
    pub(crate) len: usize,
}

impl Written {
    /// Has a read, which is to go on at `pos`, take what it needs of it. In the task that wrote.
    fn give(&self, pos: &mut u64, read: &mut CacheRead) {
        let Some(Ok(skip)) = pos.checked_sub(self.pos).map(usize::try_from) else {
            return;
        };
        // What is left goes on with a whole block: it may have to be read past the page cache.
        if *pos % BLOCK_SIZE != 0 {
            return;
        }
        let (addr, len) = (
            self.addr.wrapping_byte_add(skip),
            self.len.saturating_sub(skip),
        );
        // It was user memory when it was written from.
        let give = |from: &mut IovIterSource<'_>| read.copy_nofault(from, BLOCK_SIZE as usize);
        if let Ok(given) = user_source(addr, len, give) {
            *pos += given as u64;
        }
    }
}

/// What is needed to read from an object. Does not keep it from being withdrawn; the operation that
/// the read belongs to does.
pub(crate) struct Reader {
    source: Arc<Source>,
    backing: Arc<Backing>,
    /// How often data had been lost when this looked for what is there.
    losses: u32,
    /// What it may do where it runs.
    may: May,
    /// Whether what could not be written back has been asked for once more.
    again: bool,
    /// How often it may yet ask the daemon, or wait with another.
    asks: u32,
    /// Whether it waits with another, and may when it has to wait.
    has_joined: bool,
    may_join: bool,
    /// The lower bits of the first block that it needed when it joined another: if that did not
    /// come, it asks itself.
    joined_for: u32,
    /// What it has once it has asked the daemon for something. Given back before whoever reads is
    /// told of the end.
    ticket: Ticket,
}

impl Reader {
    pub(crate) fn new(source: Arc<Source>, backing: Arc<Backing>) -> Self {
        Reader {
            source,
            backing,
            losses: 0,
            may: May::Read,
            again: false,
            asks: 0,
            has_joined: false,
            may_join: true,
            joined_for: 0,
            ticket: Ticket::empty(),
        }
    }

    /// Reads from an object (`cachefiles_read()`).
    pub(crate) fn read(mut self, pos: i64, read: CacheRead) {
        match u64::try_from(pos) {
            Ok(pos) => {
                // For each block, in vain with another reader and then itself, and all that once
                // more if it was lost; not for ever, when the disk is full and what is written
                // does not stay.
                // CAST: A length in memory.
                let asks = 4 * presence::blocks(read.len() as u64) + 2;
                self.asks = u32::try_from(asks).unwrap_or(u32::MAX);
                self.go_on(pos, read, None)
            }
            Err(_) => read.fail(EINVAL),
        }
    }

    /// Reads what is there, or asks for what is not. `asked` is the first block that the daemon was
    /// asked for.
    fn go_on(mut self, pos: u64, read: CacheRead, asked: Option<u64>) {
        let blocks = self.needed(pos, &read);
        let Some(file) = self.begin() else {
            // Nothing has been written yet.
            return match asked {
                _ if blocks.is_empty() => {
                    drop(self);
                    read.finish()
                }
                None => self.ask(pos, read, Ok(Found::Gap(blocks))),
                Some(_) => self.fail(read, blocks),
            };
        };
        if file.check().is_err() {
            return self.read_again(file, pos, read);
        }
        if is_only_on_disk(&self.backing, file.file(), &blocks) {
            return self.read_past(file, pos, read);
        }
        let found = first_gap(&self.backing, file.file(), blocks, self.may);
        if let Ok(Found::Ready) = found {
            return self.submit(file, pos, read);
        }
        // Let go of before the owner is told of the end: it may unmount the file system.
        drop(file);
        match found {
            // It has not written the first of the blocks: it cannot, or will not.
            Ok(Found::Gap(gap)) if asked.is_some_and(|asked| gap.contains(&asked)) => {
                self.fail(read, gap)
            }
            found => self.ask(pos, read, found),
        }
    }

    /// Goes on in the work queue, where it may write.
    fn go_elsewhere(self, pos: u64, read: CacheRead) {
        let requests = self.source.requests.clone();
        if let Some(waiting) = self.into_waiting(pos, read, 0..0) {
            requests.run(waiting);
        }
    }

    /// Begins to read from the file, if there is one: comes before it is looked what it holds.
    fn begin(&mut self) -> Option<FileRead> {
        self.losses = self.backing.losses();
        // What was to be on the disk and is not must not be read as the hole it left. Begins before
        // the map is asked: once that has forgotten what was lost, it is no error any more.
        self.backing.begin_read()
    }

    /// Ends the read: the daemon has not written what it was asked for, in `gap`.
    fn fail(self, read: CacheRead, gap: Range<u64>) {
        let (off, len) = bytes(&gap);
        trace::read_failed(self.source.object().debug_id(), off, len, EIO);
        drop(self);
        read.fail(EIO);
    }

    /// The blocks that are needed for the rest of a read.
    fn needed(&self, pos: u64, read: &CacheRead) -> Range<u64> {
        // CAST: A length in memory.
        presence::needed(pos, read.len() as u64, self.backing.size)
    }

    /// Reads what is in memory, if all of it is. Waits neither for a disk nor for a lock that is
    /// held for long. Returns whether that was all; otherwise the read may have got further.
    ///
    /// # Errors
    ///
    /// Those of [`CacheRead::read_cached`]: the read has failed.
    fn read_from_memory(&mut self, pos: &mut u64, read: &mut CacheRead) -> Result<bool> {
        let blocks = self.needed(*pos, read);
        let Some(file) = self.begin() else {
            return Ok(false);
        };
        let is_there = || first_gap(&self.backing, file.file(), blocks, May::Nothing);
        if file.check().is_err() || !matches!(is_there(), Ok(Found::Ready)) {
            return Ok(false);
        }
        // Positions are those of files, and fit.
        *pos += read.read_cached(&file, *pos as i64)? as u64;
        Ok(read.is_empty())
    }

    /// Asks the daemon for what was found to be missing, or goes on where this may write. Fails
    /// the read if it could not be found out, or if the daemon was asked often enough.
    fn ask(mut self, pos: u64, read: CacheRead, found: Result<Found>) {
        let error = match found {
            Ok(Found::Gap(gap)) if self.asks > 0 => {
                self.asks -= 1;
                return self.wait(pos, read, gap);
            }
            Ok(Found::Gap(_)) => EIO,
            // What is ready is not asked for.
            Ok(Found::Elsewhere | Found::Ready) => return self.go_elsewhere(pos, read),
            Err(e) => e,
        };
        drop(self);
        read.fail(error);
    }

    /// Reads. All blocks are present.
    fn submit(self, file: FileRead, pos: u64, mut read: CacheRead) {
        // Positions are those of files, and fit.
        match read.read_cached(&file, pos as i64) {
            Err(e) => {
                drop((self, file));
                read.fail(e);
            }
            Ok(_) if read.is_empty() => {
                drop((self, file));
                read.finish();
            }
            Ok(cached) => self.submit_direct(file, pos + cached as u64, read),
        }
    }

    /// Reads past the page cache.
    fn submit_direct(self, file: FileRead, pos: u64, read: CacheRead) {
        // What was in memory when it was looked for, and is not now, may have been dropped because
        // it could not be written back: then there is a hole, and no error was reported.
        let blocks = self.needed(pos, &read);
        match first_gap(&self.backing, file.file(), blocks, self.may) {
            Ok(Found::Ready) => self.read_past(file, pos, read),
            found => {
                drop(file);
                self.ask(pos, read, found)
            }
        }
    }

    /// Reads past the page cache what is on the disk.
    fn read_past(self, file: FileRead, pos: u64, read: CacheRead) {
        drop(self);
        read.read_direct(file, pos as i64);
    }

    /// Asks the daemon again for what could not be written back.
    fn read_again(mut self, file: FileRead, pos: u64, read: CacheRead) {
        let may_write = self.may == May::Write;
        let forgotten = match self.again {
            true => Err(EIO),
            false => self
                .backing
                .forget_unverified(file.file(), self.losses, may_write),
        };
        drop(file);
        match forgotten {
            Ok(true) => {
                self.again = true;
                self.go_on(pos, read, None)
            }
            Ok(false) => self.go_elsewhere(pos, read),
            Err(e) => {
                drop(self);
                read.fail(e);
            }
        }
    }

    /// Asks the daemon for `gap`, the first of the blocks that are missing.
    fn wait(mut self, pos: u64, read: CacheRead, gap: Range<u64>) {
        let has_joined = core::mem::replace(&mut self.has_joined, false);
        // CAST: The lower bits.
        self.may_join = !(has_joined && self.joined_for == gap.start as u32);
        let requests = self.source.requests.clone();
        let gap = requests.options().cut(self.widen(gap));
        if let Some(waiting) = self.into_waiting(pos, read, gap) {
            if let Err(waiting) = requests.read_queue(waiting) {
                waiting.look_again();
            }
        }
    }

    /// What is asked for with `gap`: if the daemon wants that, what is missing behind it, too.
    fn widen(&self, gap: Range<u64>) -> Range<u64> {
        let blocks = presence::blocks(self.backing.size);
        let end = self.source.requests.options().widen(gap.end, blocks);
        match end > gap.end {
            true => gap.start..self.backing.find_block(gap.end, end, true),
            false => gap,
        }
    }

    /// Has a read wait for `asked`, or, if that is empty, for its turn in the work queue. Fails it
    /// without memory.
    fn into_waiting(
        self,
        pos: u64,
        read: CacheRead,
        asked: Range<u64>,
    ) -> Option<Pin<KBox<WaitingRead>>> {
        let Ok(slot) = KBox::<WaitingRead>::new_uninit(GFP_KERNEL_ACCOUNT) else {
            drop(self);
            read.fail(ENOMEM);
            return None;
        };
        let waiting = pin_init!(WaitingRead {
            work <- new_work!(),
            object: self.source.object().clone(),
            asked,
            request: Some((self, pos, read)),
            others: None,
        });
        match slot.write_pin_init(waiting) {
            Ok(waiting) => Some(waiting),
            Err(never) => match never {},
        }
    }
}

/// A read that waits for the daemon.
#[pin_data]
pub(crate) struct WaitingRead {
    #[pin]
    work: Work<WaitingRead>,
    object: Arc<Object>,
    /// The blocks that the daemon was asked for. Empty if it was not.
    asked: Range<u64>,
    request: Option<(Reader, u64, CacheRead)>,
    /// The last of those that wait for the same, each of which has the one before it here.
    others: Option<Pin<KBox<WaitingRead>>>,
}

/// Reads that waited with another, in the order in which they came.
pub(crate) struct Others(Option<Pin<KBox<WaitingRead>>>);

impl Others {
    /// Those of a list that begins with the last.
    fn new(mut last: Option<Pin<KBox<WaitingRead>>>) -> Self {
        let mut first = None;
        while let Some(mut read) = last {
            last = core::mem::replace(read.as_mut().project().others, first);
            first = Some(read);
        }
        Others(first)
    }
}

impl Iterator for Others {
    type Item = Pin<KBox<WaitingRead>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut read = self.0.take()?;
        self.0 = read.as_mut().project().others.take();
        Some(read)
    }
}

impl_has_work! {
    impl HasWork<Self> for WaitingRead { self.work }
}

impl WorkItem for WaitingRead {
    type Pointer = Pin<KBox<Self>>;

    fn run(this: Pin<KBox<Self>>) {
        this.go_on();
    }
}

impl WaitingRead {
    /// The bytes that the daemon is asked for: offset and length.
    pub(crate) fn wanted(&self) -> (u64, u64) {
        bytes(&self.asked)
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// That of the reader, as long as it waits.
    fn ticket(self: &mut Pin<KBox<Self>>) -> Option<&mut Ticket> {
        let request = self.as_mut().project().request;
        request.as_mut().map(|(reader, ..)| &mut reader.ticket)
    }

    /// Whether the reader has asked for nothing before.
    pub(crate) fn is_new(self: &mut Pin<KBox<Self>>) -> bool {
        self.ticket().is_some_and(|ticket| ticket.is_empty())
    }

    /// Gives the reader, who has none, a ticket.
    pub(crate) fn set_ticket(self: &mut Pin<KBox<Self>>, new: Ticket) {
        if let Some(ticket) = self.ticket() {
            *ticket = new;
        }
    }

    /// Makes the reader's ticket empty, without giving anything back.
    pub(crate) fn void_ticket(self: &mut Pin<KBox<Self>>) {
        if let Some(ticket) = self.ticket() {
            ticket.void();
        }
    }

    /// Has another read wait with this. It looks for itself what is there then: what this has
    /// asked for need not be all of that, nor all come.
    pub(crate) fn add(self: &mut Pin<KBox<Self>>, mut other: Pin<KBox<Self>>) {
        let last = self.as_mut().project().others;
        let fields = other.as_mut().project();
        if let Some((reader, ..)) = fields.request {
            reader.has_joined = true;
            // CAST: The lower bits.
            reader.joined_for = fields.asked.start as u32;
        }
        *fields.others = last.take();
        *last = Some(other);
    }

    /// Whether it may wait with another: it has not done so in vain.
    pub(crate) fn may_join(&self) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|(reader, ..)| reader.may_join)
    }

    /// Those that wait with this, which are the caller's to go on with.
    pub(crate) fn take_others(self: &mut Pin<KBox<Self>>) -> Others {
        Others::new(self.as_mut().project().others.take())
    }

    /// The daemon was not asked: looks once more what is missing.
    fn look_again(mut self: Pin<KBox<Self>>) {
        let request = self.as_mut().project().request.take();
        drop(self);
        if let Some((reader, pos, read)) = request {
            reader.go_on(pos, read, None);
        }
    }

    /// Ends the read, and those that wait with it, with an error: there will be no answer.
    pub(crate) fn fail(mut self: Pin<KBox<Self>>, error: Error) {
        for other in self.take_others() {
            other.fail_alone(error);
        }
        self.fail_alone(error);
    }

    fn fail_alone(mut self: Pin<KBox<Self>>, error: Error) {
        let (off, len) = self.wanted();
        trace::read_failed(self.object.debug_id(), off, len, error);
        let request = self.as_mut().project().request.take();
        drop(self);
        if let Some((reader, _, read)) = request {
            drop(reader);
            read.fail(error);
        }
    }

    /// The daemon says, and its task runs this, that it has written what it was asked for, perhaps
    /// with this call. Ends the read if no more is left to be done than to copy a little from
    /// memory; otherwise gives it back, to go on elsewhere.
    pub(crate) fn end_here(
        mut self: Pin<KBox<Self>>,
        written: Option<&Written>,
    ) -> Option<Pin<KBox<Self>>> {
        let waits = self.as_mut().project().request;
        let (reader, pos, read) = waits.as_mut()?;
        if let Some(written) = written {
            written.give(pos, read);
        }
        if read.len() > SHORT {
            return Some(self);
        }
        let rest = match read.is_empty() {
            true => Ok(true),
            false => nofs(|| reader.read_from_memory(pos, read)),
        };
        let all = match rest {
            Ok(false) => return Some(self),
            Ok(true) => Ok(()),
            Err(e) => Err(e),
        };
        let request = waits.take();
        drop(self);
        if let Some((reader, _, read)) = request {
            drop(reader);
            read.end_in_brief(all);
        }
        None
    }

    /// In the work queue: the daemon says that it has written what it was asked for, or somebody
    /// has to look who may write.
    fn go_on(mut self: Pin<KBox<Self>>) {
        let asked = (!self.asked.is_empty()).then_some(self.asked.start);
        let request = self.as_mut().project().request.take();
        drop(self);
        if let Some((mut reader, pos, read)) = request {
            reader.may = May::Write;
            // Another one was to bring it, and may have brought less.
            let asked = asked.filter(|_| !reader.has_joined);
            // Memory that is needed here must not be had by waiting for what is being read.
            nofs(|| reader.go_on(pos, read, asked));
        }
    }
}
