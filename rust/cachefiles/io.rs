// SPDX-License-Identifier: GPL-2.0

//! Reading objects.
//!
//! A read whose blocks are all present goes to the backing file at once: to its page cache first,
//! where what the daemon has just written is, and past it otherwise. A read of blocks that are
//! missing waits in the request table while the daemon is asked for them, one run of missing blocks
//! after the other, and goes on on a work queue: never in the daemon's context, because whoever is
//! told of the data may have a lot to do with it.
//!
//! A block is read only if the map of what the daemon wrote says that it is there. That the daemon
//! says it is done is not enough.

use crate::{
    kernel_next::{
        fs::backing::WriteErrors,
        netfs::CacheRead, //
    },
    object::{
        Attachment,
        Object, //
    },
    presence::{
        self,
        BLOCK_SIZE, //
    }, //
};
use core::ops::Range;
use kernel::{
    fs::File,
    impl_has_work,
    new_work,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// What is needed to read from an object. Does not keep it from being withdrawn; the operation that
/// the read belongs to does.
pub(crate) struct Reader {
    object: Arc<Object>,
    file: ARef<File>,
    errors: WriteErrors,
    /// The size of the object in bytes.
    size: u64,
}

impl Reader {
    pub(crate) fn new(attachment: &Attachment) -> Self {
        Reader {
            object: attachment.object().clone(),
            file: attachment.file().into(),
            errors: attachment.errors(),
            size: attachment.size(),
        }
    }

    /// Reads from an object (`cachefiles_read()`).
    pub(crate) fn read(self, pos: i64, mut read: CacheRead) {
        let Ok(pos) = u64::try_from(pos) else {
            return read.end(Err(EINVAL));
        };
        // CAST: A length in memory.
        let blocks = presence::needed(pos, read.len() as u64, self.size);
        match self.object.first_gap(blocks.clone()) {
            None => self.submit(pos, read),
            Some(gap) => self.wait(pos, read, blocks, gap),
        }
    }

    /// Reads. All blocks are present.
    fn submit(self, pos: u64, mut read: CacheRead) {
        let Reader {
            object,
            file,
            errors,
            ..
        } = self;
        drop(object);
        // What was to be on the disk and is not must not be read as the hole it left.
        if let Err(e) = errors.check(&file) {
            return read.end(Err(e));
        }
        // Positions are those of files, and fit.
        let pos = pos as i64;
        match read.read_cached(&file, pos) {
            Err(e) => read.end(Err(e)),
            Ok(cached) if read.len() == 0 => read.end(Ok(cached)),
            Ok(cached) => read.read_direct(file, pos + cached as i64, cached),
        }
    }

    /// Asks the daemon for `gap`, the first of the blocks that are missing.
    fn wait(self, pos: u64, read: CacheRead, blocks: Range<u64>, gap: Range<u64>) {
        let Ok(slot) = KBox::<WaitingRead>::new_uninit(GFP_KERNEL) else {
            return read.end(Err(ENOMEM));
        };
        let ondemand = self.object.ondemand().clone();
        let waiting = pin_init!(WaitingRead {
            work <- new_work!(),
            object: self.object.clone(),
            blocks,
            asked: gap,
            request: Some((self, pos, read)),
        });
        match slot.write_pin_init(waiting) {
            Ok(waiting) => ondemand.read_queue(waiting),
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
    /// The blocks that are read.
    blocks: Range<u64>,
    /// The blocks that the daemon was asked for.
    asked: Range<u64>,
    request: Option<(Reader, u64, CacheRead)>,
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
        let Range { start, end } = self.asked;
        (start * BLOCK_SIZE, (end - start) * BLOCK_SIZE)
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    /// The read has failed: nobody is going to answer it.
    pub(crate) fn fail(mut self: Pin<KBox<Self>>, error: Error) {
        let request = self.as_mut().project().request.take();
        drop(self);
        if let Some((.., read)) = request {
            read.end(Err(error));
        }
    }

    /// The daemon says that it has written what it was asked for.
    fn go_on(mut self: Pin<KBox<Self>>) {
        let this = self.as_mut().project();
        let (blocks, asked) = (this.blocks.clone(), this.asked.clone());
        let Some((reader, pos, read)) = this.request.take() else {
            return;
        };
        // The object may be withdrawn once the read is done.
        drop(self);
        match reader.object.first_gap(blocks.clone()) {
            None => reader.submit(pos, read),
            // It has not written the first of the blocks: it cannot, or will not.
            Some(gap) if gap.start <= asked.start => {
                drop(reader);
                read.end(Err(EIO));
            }
            Some(gap) => reader.wait(pos, read, blocks, gap),
        }
    }
}
