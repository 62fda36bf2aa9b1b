// SPDX-License-Identifier: GPL-2.0

//! Writing down what files hold, and giving them their names, while they are in use: what was
//! fetched survives a crash of the machine.
//!
//! That is done as soon as all of an object is present, otherwise some time after a change, for all
//! files of a cache one after the other in one work item. Nothing waits for it but the withdrawal
//! of an object whose file is being written out, and corrections of what the disk says of it.

use super::{
    list::Claim,
    Backing, //
};
use crate::{
    disk::xattr::{
        Value,
        XATTR_NAME, //
    },
    kernel_next::{
        compat::ESTALE,
        cred::with_cred,
        fs::{
            kernel_file::KernelFile,
            xattr, //
        },
        sched::nofs,
        workqueue::OwnedQueue, //
    },
    mark::Mark, //
};
use core::mem::take;
use kernel::{
    impl_has_work,
    new_condvar,
    new_mutex,
    new_work,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Full,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Arc,
        CondVar,
        Mutex, //
    },
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic, //
    },
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// For how long at most a change is not written down, in milliseconds.
const DELAY: i64 = 30_000;

/// How many bytes may be written to files of the cache before that is written down.
const BYTES: u64 = 64 << 20;

/// Where a file gets its name, and what it is of. It keeps the volume and the cookie, so the
/// withdrawal of the object takes it.
pub(crate) trait Place: Send + Sync {
    /// The value of the main attribute.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the data was invalidated.
    fn value(&self) -> Result<Value>;

    /// Gives a file its name. The caller has the cache's credentials. Returns the mark that it is
    /// in use.
    ///
    /// # Errors
    ///
    /// The file system's.
    fn link(&self, backing: &Backing, file: &KernelFile) -> Result<Mark>;
}

#[derive(Default)]
struct State {
    /// Files that have changed.
    due: KVVec<Arc<Backing>>,
    /// When the first of them changed.
    since: Option<Instant<Monotonic>>,
    /// Files that are complete. They do not wait; they may be among the others, too.
    complete: KVVec<Arc<Backing>>,
    /// Whether all are to be written down now.
    is_urgent: bool,
    /// Whether some of those that wait need not be written down any more.
    has_gone: bool,
    /// Whether the work is queued or running.
    is_running: bool,
    is_dead: bool,
}

/// The files of a cache that are yet to be written down.
#[pin_data]
pub(crate) struct Commits {
    /// A leaf lock: nothing is locked with it held.
    #[pin]
    state: Mutex<State>,
    /// Files must not wait any more.
    #[pin]
    wake: CondVar,
    /// How many bytes were written since files were last taken.
    bytes: Atomic<u64>,
    #[pin]
    work: Work<Self>,
    queue: OwnedQueue,
    /// Whether what is written down is to be on the disk when it is.
    is_durable: bool,
}

impl_has_work! {
    impl HasWork<Self> for Commits { self.work }
}

impl Commits {
    /// `is_durable`: whether the file system is asked to write each commit to the disk at once,
    /// instead of with its own next one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(is_durable: bool) -> Result<Arc<Self>> {
        let queue = OwnedQueue::new_unbound(c"cachefiles_commit")?;
        Arc::pin_init(
            pin_init!(Self {
                state <- new_mutex!(State::default()),
                wake <- new_condvar!(),
                bytes: Atomic::new(0),
                work <- new_work!("Commits::work"),
                queue,
                is_durable,
            }),
            GFP_KERNEL,
        )
    }

    /// A file has changed, by so many bytes; it may be known already. Sleeps. Without memory, the
    /// next change is noted.
    fn note(self: &Arc<Self>, backing: &Arc<Backing>, len: u64, is_complete: bool) {
        let is_much = self.bytes.fetch_add(len, Relaxed) + len >= BYTES;
        // A barrier: what was changed before is seen by whoever takes this back.
        let is_new = backing.is_due.xchg(1, Full) == 0;
        if !is_new && !is_complete && !is_much {
            return;
        }
        let mut state = self.state.lock();
        // Under the lock: the withdrawal takes the place before it has the file dropped here.
        let is_refused = state.is_dead || backing.has_place.load(Relaxed) == 0;
        if is_refused || (is_new && state.due.push(backing.clone(), GFP_KERNEL).is_err()) {
            backing.is_due.store(0, Relaxed);
            return;
        }
        state.since.get_or_insert_with(Instant::now);
        if is_complete && backing.is_next.xchg(1, Full) == 0 {
            // Without memory it waits.
            if state.complete.push(backing.clone(), GFP_KERNEL).is_err() {
                backing.is_next.store(0, Relaxed);
            }
        }
        state.is_urgent |= is_much;
        if is_complete || is_much {
            self.wake.notify_all();
        }
        if !state.is_running {
            state.is_running = true;
            // It is not on the queue: that is what the flag says.
            let _ = self.queue.enqueue(self.clone());
        }
    }

    /// A file could not be written down: it waits once more.
    fn retry(&self, backing: Arc<Backing>) {
        if backing.is_due.xchg(1, Full) != 0 {
            return;
        }
        let mut state = self.state.lock();
        let is_refused = state.is_dead || backing.has_place.load(Relaxed) == 0;
        if is_refused || state.due.push(backing.clone(), GFP_KERNEL).is_err() {
            backing.is_due.store(0, Relaxed);
            return;
        }
        state.since.get_or_insert_with(Instant::now);
    }

    /// A file that waits need not be written down any more: it is not to be kept open.
    fn drop_gone(&self) {
        self.state.lock().has_gone = true;
        self.wake.notify_all();
    }

    /// The cache is out of service: what is not written down yet has been, as its object was
    /// withdrawn. Waits for what is under way.
    pub(crate) fn kill(&self) {
        self.state.lock().is_dead = true;
        self.wake.notify_all();
        self.queue.flush();
    }

    /// Waits until files are due, and takes them; `None` if there are none. Some of them may need
    /// nothing.
    fn take_due(&self) -> Option<KVVec<Arc<Backing>>> {
        let mut state = self.state.lock();
        loop {
            if !state.complete.is_empty() {
                let complete = take(&mut state.complete);
                for backing in &complete {
                    // A barrier: what changes after it is noted again.
                    backing.is_next.xchg(0, Full);
                }
                return Some(complete);
            }
            if state.is_dead {
                break;
            }
            if take(&mut state.has_gone) {
                let all = take(&mut state.due);
                // What is dropped may be the last reference to a file.
                drop(state);
                let left = without_gone(all);
                state = self.state.lock();
                put_back(&mut state.due, left);
                continue;
            }
            if state.is_urgent {
                break;
            }
            let Some(since) = state.since.filter(|_| !state.due.is_empty()) else {
                break;
            };
            let left = DELAY - since.elapsed().as_millis();
            if left <= 0 {
                break;
            }
            // CAST: No more than the delay.
            let left = msecs_to_jiffies(left as u32);
            // No signal is sent to a worker.
            let _ = self.wake.wait_interruptible_timeout(&mut state, left);
        }
        self.bytes.store(0, Relaxed);
        state.is_urgent = false;
        state.since = None;
        let due = take(&mut state.due);
        for backing in &due {
            // As above.
            backing.is_due.xchg(0, Full);
        }
        state.is_running = !due.is_empty();
        (!due.is_empty()).then_some(due)
    }
}

/// Those of the files that still have a place. The others are dropped.
fn without_gone(files: KVVec<Arc<Backing>>) -> KVVec<Arc<Backing>> {
    let mut left = KVVec::new();
    for backing in files {
        let is_gone = backing.has_place.load(Relaxed) == 0;
        if is_gone || left.push(backing.clone(), GFP_KERNEL).is_err() {
            backing.is_due.store(0, Relaxed);
        }
    }
    left
}

/// Adds `files` to those that wait.
fn put_back(due: &mut KVVec<Arc<Backing>>, files: KVVec<Arc<Backing>>) {
    for backing in files {
        // Without memory, the next change of the file is noted.
        if due.push(backing.clone(), GFP_KERNEL).is_err() {
            backing.is_due.store(0, Relaxed);
        }
    }
}

impl WorkItem for Commits {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        while let Some(due) = this.take_due() {
            for backing in due {
                // A file system that gives memory back may withdraw the object, and wait.
                nofs(|| {
                    let commit = || backing.commit(this.is_durable);
                    if let Err(e) = with_cred(&backing.shared.cred, commit) {
                        kdebug!(
                            "cookie {:x}: not written down: {:?}\n",
                            backing.debug_id(),
                            e
                        );
                        this.retry(backing);
                    }
                });
            }
        }
    }
}

impl Backing {
    /// Whether all of the object is present, and the disk says so.
    pub(crate) fn is_all_written_down(&self) -> bool {
        matches!(*self.claim.lock(), Claim::All)
    }

    /// From here on changes are written down while the object is in use.
    pub(crate) fn set_place(&self, place: KBox<dyn Place>) {
        *self.place.lock() = Some(place);
        self.has_place.store(1, Release);
    }

    /// From here on they are not, and the file does not get a name that it has not. Waits if it is
    /// being written out. Outer to all other locks of this.
    pub(crate) fn take_place(&self) {
        // A barrier: who notes the file after this sees it, or this sees that it is due.
        self.has_place.xchg(0, Full);
        // Dropped without the lock: it may be the last that keeps the volume.
        let _place = self.place.lock().take();
        if self.is_due.load(Relaxed) != 0 {
            // Otherwise the file would be kept open for as long as it may wait.
            self.shared.commits.drop_gone();
        }
    }

    /// So many bytes became present. Sleeps.
    #[inline]
    pub(super) fn note_change(self: &Arc<Self>, len: u64, is_complete: bool) {
        if self.has_place.load(Acquire) != 0 {
            self.shared.commits.note(self, len, is_complete);
        }
    }

    /// Writes down what the file holds, and gives it its name.
    fn commit(&self, is_durable: bool) -> Result {
        let place = self.place.lock();
        let (Some(place), Some(file)) = (place.as_ref(), self.file()) else {
            return Ok(());
        };
        if self.is_retired() || !self.is_modified() {
            return Ok(());
        }
        // Before the map is looked at, which the barrier is for: what changes from here on sets it
        // again.
        self.is_modified.xchg(0, Full);
        let mut claim = self.claim.lock();
        self.try_commit(&mut claim, &**place, file, is_durable)
            .inspect_err(|_| {
                self.is_modified.store(1, Relaxed);
                self.blocks.lock().require_new_list();
            })
    }

    fn try_commit(
        &self,
        claim: &mut Claim,
        place: &dyn Place,
        file: &KernelFile,
        is_durable: bool,
    ) -> Result {
        let losses = self.losses();
        let is_named = self.is_named();
        let mut value = match is_named {
            true => Value::read(|buf| xattr::get(file.path(), XATTR_NAME, buf))?,
            false => place.value()?,
        };
        let value = value.as_bytes_mut();
        let changes = self.blocks.lock().take_changes();
        let encode = |range, changes: Option<&_>, buf: &mut [u8]| {
            self.blocks.lock().encode(range, changes, buf)
        };
        let is_complete = self.blocks.lock().is_complete();
        let list = self.encode_list(claim, is_complete, changes.as_ref(), encode)?;
        // What was present before is on the disk after this, or is not written down.
        file.write_and_wait()?;
        self.check_write_errors(file)?;
        if self.losses() != losses {
            return Err(ESTALE);
        }
        self.store(claim, list, value, !is_named).inspect_err(|_| {
            if !is_named {
                self.forsake(claim);
            }
        })?;
        let is_list_file = matches!(claim, Claim::File { .. });
        self.blocks.lock().set_appended_to(is_list_file);
        if !is_named {
            let mark = place
                .link(self, file)
                .inspect_err(|_| self.forsake(claim))?;
            *self.mark.lock() = Some(mark);
        }
        match is_durable {
            true => file.sync(),
            false => Ok(()),
        }
    }
}
