// SPDX-License-Identifier: GPL-2.0

//! Reading objects.
//!
//! A read whose blocks are all present goes to the backing file at once: to its page cache first,
//! where the data is that the daemon has just written, and past it otherwise. A read of missing
//! blocks waits in the request table while the daemon is asked for them, one run of missing blocks
//! after the other. It ends in the daemon's context if only a little is left to be copied from the
//! page cache, or if FILL passes all of it from the daemon's memory; otherwise it continues on a
//! work queue. The completion may decompress for long, so in the daemon's context it is called
//! under `rcu_read_lock()`, which makes EROFS defer it.
//!
//! A block is read only if the map of what the daemon wrote says that it is present, or if the
//! daemon passes it with FILL. An answer alone, without the data, does not suffice.
//!
//! With `granule`, a read that needs what another one has asked for already joins that one: it is
//! linked to it, and the request table has one READ for both.

use super::requests::{
    Source,
    Ticket, //
};
use crate::{
    backing::{
        check::{
            check_blocks,
            is_only_on_disk,
            Checked,
            May, //
        },
        Backing, //
    },
    disk::presence,
    inject,
    kernel_next::{
        fs::kernel_file::FileRead,
        fscache::trace::TraceObject,
        iov::user_source,
        netfs::CacheRead,
        sched::nofs, //
    },
    object::Object,
    protocol::BLOCK_SIZE,
    trace::{
        self,
        files::{
            self,
            Where, //
        }, //
    }, //
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

/// The most bytes that are copied from the page cache in the daemon's context: that is less work
/// than to wake another task, and does not keep the daemon from other requests for long. Data that
/// comes with FILL is copied whatever its length, as it was just copied to the page cache as well.
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
    /// Copies to a read, which has got to `pos`, what it needs of it. In the context of the daemon,
    /// whose memory it is.
    fn give(&self, pos: &mut u64, read: &mut CacheRead) {
        let Some(Ok(skip)) = pos.checked_sub(self.pos).map(usize::try_from) else {
            return;
        };
        // Continues only at a block boundary: direct I/O may follow.
        if *pos % BLOCK_SIZE != 0 {
            return;
        }
        let (addr, len) = (
            self.addr.wrapping_byte_add(skip),
            self.len.saturating_sub(skip),
        );
        // `access_ok()` was checked when the daemon wrote from there.
        let give = |from: &mut IovIterSource<'_>| read.copy_nofault(from, BLOCK_SIZE as usize);
        if let Ok(given) = user_source(addr, len, give) {
            *pos += given as u64;
        }
    }
}

/// What is needed to read from an object. It does not keep the object from being withdrawn: fscache
/// does, until the read's operation ends.
pub(crate) struct Reader {
    source: Arc<Source>,
    backing: Arc<Backing>,
    /// [`Backing::losses`], sampled before the map was consulted.
    losses: u32,
    /// What the context that it runs in allows.
    may: May,
    /// Whether it has forgotten unverified blocks after a write-back error: it does so once.
    has_forgotten: bool,
    /// How often it may yet ask the daemon, or join another READ.
    asks: u32,
    /// Whether it waits for another one's READ.
    has_joined: bool,
    /// Whether it may join another READ when it has to wait next.
    may_join: bool,
    /// The lower bits of the first block that it needed when it joined another READ: if that block
    /// did not come, it asks itself.
    joined_for: u32,
    /// Its share of the limits on READs, from when it first asks. Dropped before the read is
    /// completed.
    ticket: Ticket,
}

impl Reader {
    pub(crate) fn new(source: Arc<Source>, backing: Arc<Backing>) -> Self {
        Reader {
            source,
            backing,
            losses: 0,
            may: May::Sleep,
            has_forgotten: false,
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
                // Limit on how often this read asks. Per block: once by joining another READ, once
                // itself, and both again if data was lost. Without a limit, a full disk that drops
                // every write would make it loop.
                // CAST: A length in memory.
                let asks = 4 * presence::blocks(read.len() as u64) + 2;
                self.asks = u32::try_from(asks).unwrap_or(u32::MAX);
                self.go_on(pos, read, None)
            }
            Err(_) => read.fail(EINVAL),
        }
    }

    /// Reads if all blocks are present, or asks for the first that are missing. `asked` is the
    /// first block of the READ that has just been answered, if it was this reader's own.
    fn go_on(mut self, pos: u64, read: CacheRead, asked: Option<u64>) {
        let blocks = self.needed(pos, &read);
        let Some(file) = self.begin() else {
            // Nothing has been written yet.
            return match asked {
                _ if blocks.is_empty() => {
                    drop(self);
                    read.finish()
                }
                None => self.ask(pos, read, Ok(Checked::Gap(blocks))),
                Some(_) => self.fail(read, blocks),
            };
        };
        if file.check().is_err() {
            return self.read_again(file, pos, read);
        }
        if is_only_on_disk(&self.backing, file.file(), &blocks) {
            return self.read_past(file, pos, read);
        }
        let found = check_blocks(&self.backing, file.file(), blocks, self.may);
        if let Ok(Checked::Ready) = found {
            return self.submit(file, pos, read);
        }
        // Dropped before the read is completed: its owner may then unmount the file system.
        drop(file);
        match found {
            // The daemon has answered, but has not written the first block that was asked for.
            Ok(Checked::Gap(gap)) if asked.is_some_and(|asked| gap.contains(&asked)) => {
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

    /// Begins to read from the file, if there is one. Before the map is consulted.
    fn begin(&mut self) -> Option<FileRead> {
        self.losses = self.backing.losses();
        // Samples the write-back error before the map is consulted: forget_unverified() clears
        // both, so a later sample would miss an error for blocks that this read still took for
        // present.
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
        presence::needed(pos, read.len() as u64, self.backing.size())
    }

    /// Reads from the page cache. Waits neither for a disk nor for a lock that is held for long.
    /// Returns whether all was there; otherwise the read may have got further.
    ///
    /// # Errors
    ///
    /// Those of [`CacheRead::read_cached`]: the read has failed.
    fn read_from_memory(&mut self, pos: &mut u64, read: &mut CacheRead) -> Result<bool> {
        let blocks = self.needed(*pos, read);
        let Some(file) = self.begin() else {
            return Ok(false);
        };
        let is_there = || check_blocks(&self.backing, file.file(), blocks, May::Nothing);
        if file.check().is_err() || !matches!(is_there(), Ok(Checked::Ready)) {
            return Ok(false);
        }
        // Positions are those of files, and fit.
        *pos += read.read_cached(&file, *pos as i64)? as u64;
        Ok(read.is_empty())
    }

    /// Asks the daemon for what the check found missing, or goes on in the work queue, where it may
    /// write. Fails the read if the check failed, or if the daemon was asked often enough.
    fn ask(mut self, pos: u64, read: CacheRead, found: Result<Checked>) {
        let error = match found {
            Ok(Checked::Gap(gap)) if self.asks > 0 => {
                self.asks -= 1;
                return self.wait(pos, read, gap);
            }
            Ok(Checked::Gap(_)) => EIO,
            // Ready: not reached.
            Ok(Checked::Elsewhere | Checked::Ready) => return self.go_elsewhere(pos, read),
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
        // Checks again: a page that was dirty at the first check, and is not cached now, may have
        // been dropped because it could not be written back. Some file systems report no error.
        let blocks = self.needed(pos, &read);
        match check_blocks(&self.backing, file.file(), blocks, self.may) {
            Ok(Checked::Ready) => self.read_past(file, pos, read),
            found => {
                drop(file);
                self.ask(pos, read, found)
            }
        }
    }

    /// Reads past the page cache, from the disk.
    fn read_past(self, file: FileRead, pos: u64, read: CacheRead) {
        if let Err(e) = inject::read() {
            self.backing.trace_io_error(file.file(), e, Where::Read);
            return read.fail(e);
        }
        let obj = self.backing.trace();
        // CAST: Positions are those of files.
        let pos = pos as i64;
        files::read(obj, file.file().inode(), pos, read.len());
        let object = obj.debug_id();
        drop(self);
        read.read_direct(file, pos, move |file, error| {
            let obj = TraceObject::new(object);
            files::io_error(Some(&obj), file.inode(), error, Where::Read);
        });
    }

    /// There was a write-back error: forgets the unverified blocks, so that the daemon is asked for
    /// them again, and starts over.
    fn read_again(mut self, file: FileRead, pos: u64, read: CacheRead) {
        let may_write = self.may == May::Write;
        let forgotten = match self.has_forgotten {
            true => Err(EIO),
            false => self
                .backing
                .forget_unverified(file.file(), self.losses, may_write),
        };
        drop(file);
        match forgotten {
            Ok(true) => {
                self.has_forgotten = true;
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
            if let Err(waiting) = requests.queue_read(waiting) {
                waiting.look_again();
            }
        }
    }

    /// Extends `gap` to the end of its granule, or to the next present block before that.
    fn widen(&self, gap: Range<u64>) -> Range<u64> {
        let blocks = presence::blocks(self.backing.size());
        let end = self.source.requests.options().widen(gap.end, blocks);
        match end > gap.end {
            true => gap.start..self.backing.find_block(gap.end, end, true),
            false => gap,
        }
    }

    /// Makes a read that waits for the blocks `asked`, or, if that is empty, for its turn in the
    /// work queue. Fails the read if there is no memory.
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
    /// The last of the reads that have joined this one; each links to the one before it here.
    others: Option<Pin<KBox<WaitingRead>>>,
}

/// The reads that had joined another one, in the order in which they came.
pub(crate) struct Others(Option<Pin<KBox<WaitingRead>>>);

impl Others {
    /// Reverses a list that begins with the last.
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

    /// The reader's ticket, as long as the read waits.
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
    pub(crate) fn forget_ticket(self: &mut Pin<KBox<Self>>) {
        if let Some(ticket) = self.ticket() {
            ticket.forget();
        }
    }

    /// Has another read join this one. At the end it checks its blocks itself: this one need not
    /// have asked for all of them, nor the daemon have written them.
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

    /// Whether it may join another READ: not if it has joined one for the same block before.
    pub(crate) fn may_join(&self) -> bool {
        let request = self.request.as_ref();
        request.is_some_and(|(reader, ..)| reader.may_join)
    }

    /// Takes out the reads that have joined this one, for the caller to complete or to run.
    pub(crate) fn take_others(self: &mut Pin<KBox<Self>>) -> Others {
        Others::new(self.as_mut().project().others.take())
    }

    /// The daemon was not asked: checks again which blocks are missing.
    fn look_again(mut self: Pin<KBox<Self>>) {
        let request = self.as_mut().project().request.take();
        drop(self);
        if let Some((reader, pos, read)) = request {
            reader.go_on(pos, read, None);
        }
    }

    /// Ends the read, and those that have joined it, with an error: there will be no answer.
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

    /// In the daemon's context: it has answered the READ, perhaps with the data that it has just
    /// `written`. Ends the read if only a little is left to be copied from the page cache;
    /// otherwise returns it, to continue elsewhere.
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

    /// In the work queue: the daemon has answered the READ, or the read needs a context that may
    /// write.
    fn go_on(mut self: Pin<KBox<Self>>) {
        let asked = (!self.asked.is_empty()).then_some(self.asked.start);
        let request = self.as_mut().project().request.take();
        drop(self);
        if let Some((mut reader, pos, read)) = request {
            reader.may = May::Write;
            // The READ that it joined may have brought less.
            let asked = asked.filter(|_| !reader.has_joined);
            // nofs: reclaim must not wait for the folios that are being read.
            nofs(|| reader.go_on(pos, read, asked));
        }
    }
}
