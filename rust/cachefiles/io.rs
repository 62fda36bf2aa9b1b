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
        fs::backing::{
            self,
            WriteErrors, //
        },
        iov::KernelIter,
        netfs::Termination, //
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

/// A read of blocks that are present, or are going to be.
struct Request {
    file: ARef<File>,
    errors: WriteErrors,
    pos: u64,
    to: KernelIter,
    done: Termination,
}

impl Request {
    fn fail(self, error: Error) {
        // What `done` is told may free the memory that `to` refers to.
        drop(self.to);
        self.done.done(Err(error));
    }

    /// Reads. All blocks are present.
    fn submit(mut self) {
        // What was to be on the disk and is not must not be read as the hole it left.
        if let Err(e) = self.errors.check(&self.file) {
            return self.fail(e);
        }
        // Positions are those of files, and fit.
        let pos = self.pos as i64;
        let cached = backing::read_cached(&self.file, pos, &mut self.to);
        if self.to.len() == 0 {
            drop(self.to);
            return self.done.done(Ok(cached));
        }
        let done = self.done;
        let direct = backing::read_direct(self.file, pos + cached as i64, self.to, move |ret| {
            done.done(ret.map(|len| cached + len))
        });
        if let Err((e, _)) = direct {
            // What was to be called is dropped uncalled, which fails the read.
            step!("read failed: {:?}\n", e);
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
    request: Option<Request>,
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

    fn take(self: Pin<KBox<Self>>) -> (Arc<Object>, Range<u64>, Range<u64>, Option<Request>) {
        let mut this = self;
        let parts = this.as_mut().project();
        (
            parts.object.clone(),
            parts.blocks.clone(),
            parts.asked.clone(),
            parts.request.take(),
        )
    }

    /// The read has failed: nobody is going to answer it.
    pub(crate) fn fail(self: Pin<KBox<Self>>, error: Error) {
        if let (.., Some(request)) = self.take() {
            request.fail(error);
        }
    }

    /// The daemon says that it has written what it was asked for.
    fn go_on(self: Pin<KBox<Self>>) {
        let (object, blocks, asked, Some(request)) = self.take() else {
            return;
        };
        match object.first_gap(blocks.clone()) {
            None => {
                // The object may be withdrawn once the read is done.
                drop(object);
                request.submit();
            }
            // It has not written the first of the blocks: it cannot, or will not.
            Some(gap) if gap.start <= asked.start => request.fail(EIO),
            Some(gap) => wait(object, blocks, gap, request),
        }
    }
}

/// Asks the daemon for `gap`.
fn wait(object: Arc<Object>, blocks: Range<u64>, gap: Range<u64>, request: Request) {
    let Ok(slot) = KBox::<WaitingRead>::new_uninit(GFP_KERNEL) else {
        return request.fail(ENOMEM);
    };
    let ondemand = object.ondemand().clone();
    let waiting = pin_init!(WaitingRead {
        work <- new_work!(),
        object,
        blocks,
        asked: gap,
        request: Some(request),
    });
    match slot.write_pin_init(waiting) {
        Ok(waiting) => ondemand.read_queue(waiting),
        Err(never) => match never {},
    }
}

/// Reads from an object (`cachefiles_read()`).
pub(crate) fn read(attachment: &Attachment, pos: i64, mut to: KernelIter, done: Termination) {
    let Ok(pos) = u64::try_from(pos) else {
        drop(to);
        return done.done(Err(EINVAL));
    };
    // CAST: A length in memory.
    let blocks = presence::needed(pos, to.len() as u64, attachment.size());
    let request = Request {
        file: attachment.file().into(),
        errors: attachment.errors(),
        pos,
        to,
        done,
    };
    match attachment.object().first_gap(blocks.clone()) {
        None => request.submit(),
        Some(gap) => wait(attachment.object().clone(), blocks, gap, request),
    }
}
