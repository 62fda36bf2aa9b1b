// SPDX-License-Identifier: GPL-2.0

//! The file of an object, and what is known of the data in it.

mod adopt;
pub(crate) mod check;
pub(crate) mod commits;
mod forget;
pub(crate) mod holes;
pub(crate) mod leaf;
pub(crate) mod list;
mod size;

pub(crate) use self::size::Extent;

use self::{
    commits::{
        Commits,
        Place, //
    },
    leaf::{
        Leaf,
        Parts,
        Use, //
    },
    list::Claim, //
};
use crate::{
    disk::presence::{
        self,
        Presence, //
    },
    inject,
    kernel_next::{
        errseq::ErrSeq,
        fs::{
            kernel_file::{
                FileRead,
                KernelFile, //
            },
            path::Path, //
        },
        fscache::trace::TraceObject, //
    },
    lists::Lists,
    mark::Mark,
    plan::{
        blocks::{
            self,
            Look,
            Unverified, //
        },
        source::{
            self,
            ReadFrom, //
        }, //
    },
    protocol::BLOCK_SIZE,
    space::{
        Space,
        SpaceFor, //
    },
    trace::files::{
        self,
        Trunc,
        Where, //
    }, //
};
use core::{
    mem::replace,
    ops::Range, //
};
use kernel::{
    cred::Credential,
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Arc,
        Mutex,
        SetOnce,
        SpinLock, //
    }, //
};

/// The largest object, in bytes: as large as a file of ext4. Keeps maps of present blocks small.
pub(crate) const MAX_SIZE: u64 = 1 << 44;

type Map = Presence<Parts, Leaf>;
/// What is known of the blocks of a file.
pub(crate) type Blocks = blocks::Blocks<Parts, Leaf>;
/// The blocks that are still to be done; for them, another leaf is needed first.
type Rest = Option<Range<u64>>;

/// An existing file and the mark that it is in use (`S_KERNEL_FILE`).
pub(crate) struct FoundFile {
    // Field order: the mark is removed before the file is dropped.
    pub(crate) mark: Mark,
    pub(crate) file: KernelFile,
}

/// What all files of a cache share.
pub(crate) struct Shared {
    pub(crate) space: Arc<Space>,
    /// What files are made and changed with.
    pub(crate) cred: ARef<Credential>,
    pub(crate) lists: Lists,
    pub(crate) commits: Arc<Commits>,
    /// Whether the memory of maps is limited: anybody may have a network file system store blocks.
    pub(crate) limits_maps: bool,
}

/// The file of an object, what is known of the data in it, and what is needed to read and write it.
///
/// The withdrawal of the object takes the mark and the map out of it. So a daemon that is writing,
/// which may keep it for longer, keeps nobody from using a file of that name.
#[pin_data]
pub(crate) struct Backing {
    /// The mark that the file is in use. `None` if the file has no name, if it got one at the
    /// withdrawal, and after [`Self::unmark`].
    // Field order: the mark is removed before the file is dropped.
    #[pin]
    mark: SpinLock<Option<Mark>>,
    /// The file. An object that was not found gets one when it is first written to: making one
    /// is most of what a lookup costs, and many objects are never read.
    file: SetOnce<KernelFile>,
    /// Held while a file is made. Outer to `claim` and to the file system's locks.
    #[pin]
    making: Mutex<()>,
    /// The directory it is made in.
    dir: Path,
    pub(crate) shared: Arc<Shared>,
    /// The size of the object in bytes. Changes under `making` only.
    size: Atomic<u64>,
    /// Counts up before and after `size` changes.
    resizes: Atomic<u32>,
    /// Names the object in the log and in traces.
    trace: TraceObject,
    /// Whether blocks became present, or were lost, that are not written down.
    is_modified: Atomic<i32>,
    /// Where the file gets its name. Held while what it holds is written down, and then outermost
    /// of the locks of this. `None` once that must not be done any more but by the withdrawal.
    #[pin]
    place: Mutex<Option<KBox<dyn Place>>>,
    /// Whether there is a place.
    has_place: Atomic<i32>,
    /// Whether the file is on the list of those that wait to be written down.
    is_due: Atomic<i32>,
    /// Whether it is on the list of those that do not wait, because they are complete.
    is_next: Atomic<i32>,
    /// Errors in writing the file back count from this moment: it was opened, or what had been
    /// lost was forgotten. Meaningless while there is no file.
    errors_since: Atomic<ErrSeq>,
    /// How often data could not be written back, so that all unverified blocks were forgotten.
    /// Changes under the lock of `blocks`.
    losses: Atomic<u32>,
    /// Whether a search for a hole in the file once took longer than the limit in `check.rs`.
    is_fragmented: Atomic<i32>,
    /// Whether the map was taken out.
    is_withdrawn: Atomic<i32>,
    /// Whether the data is to be thrown away.
    is_retired: Atomic<i32>,
    /// What the disk says is present. Held while that is changed, and while the map is taken out,
    /// so that what is written last is the latest state. Outer to the lock of `blocks`, and to the
    /// locks of the file system.
    #[pin]
    claim: Mutex<Claim>,
    /// Empty while there is no file. One of the innermost locks of the driver: taken under `making`
    /// and `claim`. The file's `f_lock` is taken under it.
    #[pin]
    blocks: SpinLock<Blocks>,
}

fn new_map(blocks: u64) -> Result<Map> {
    Ok(Map::new(Parts::new(presence::parts(blocks))?, blocks))
}

fn no_blocks() -> Blocks {
    let none = || Map::new(Parts::none(), 0);
    Blocks::new(none(), none(), 0)
}

impl Backing {
    /// For an object of `size` bytes, whose file was `found`, or is made in `dir` when it is first
    /// written to.
    pub(crate) fn new(
        dir: &Path,
        shared: &Arc<Shared>,
        size: u64,
        debug_id: u32,
        found: Option<FoundFile>,
    ) -> Result<Arc<Self>> {
        let (mut mark, file, mut errors_since) = (None, SetOnce::new(), ErrSeq::default());
        if let Some(found) = found {
            mark = Some(found.mark);
            errors_since = found.file.sample_write_errors();
            file.populate(found.file);
        }
        Arc::pin_init(
            pin_init!(Self {
                mark <- new_spinlock!(mark),
                file,
                making <- new_mutex!(()),
                dir: dir.clone(),
                shared: shared.clone(),
                size: Atomic::new(size),
                resizes: Atomic::new(0),
                trace: TraceObject::new(debug_id),
                is_modified: Atomic::new(0),
                place <- new_mutex!(None),
                has_place: Atomic::new(0),
                is_due: Atomic::new(0),
                is_next: Atomic::new(0),
                errors_since: Atomic::new(errors_since),
                losses: Atomic::new(0),
                is_fragmented: Atomic::new(0),
                is_withdrawn: Atomic::new(0),
                is_retired: Atomic::new(0),
                claim <- new_mutex!(Claim::Nothing),
                blocks <- new_spinlock!(no_blocks()),
            }),
            GFP_KERNEL,
        )
    }

    /// The size of the object in bytes.
    #[inline]
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// The object, for traces.
    #[inline]
    pub(crate) fn trace(&self) -> &TraceObject {
        &self.trace
    }

    /// The number of the object's cookie.
    fn debug_id(&self) -> u32 {
        self.trace.debug_id()
    }

    // The file.

    /// The file. `None` if none of the object's data has ever been written.
    #[inline]
    pub(crate) fn file(&self) -> Option<&KernelFile> {
        self.file.as_ref()
    }

    /// Begins to read the file, if there is one. That something could not be written back is an
    /// error if it was not [forgotten](Self::forget_unverified) before.
    #[inline]
    pub(crate) fn begin_read(&self) -> Option<FileRead> {
        let file = self.file()?.clone();
        // Whoever does not see the errors any more sees that what was lost is not present.
        Some(file.begin_read(self.errors_since.load(Acquire)))
    }

    /// Checks that what was written to `file`, and was not forgotten, could be written back.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if something could not.
    pub(crate) fn check_write_errors(&self, file: &KernelFile) -> Result {
        file.check_write_errors(self.errors_since.load(Acquire))
    }

    /// The file, which is made if there is none. The caller has the cache's credentials.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is no space; `ENOMEM`, `EFBIG`; the file system's error.
    pub(crate) fn file_to_write(&self) -> Result<&KernelFile> {
        if let Some(file) = self.file() {
            return Ok(file);
        }
        let _making = self.making.lock();
        if self.file().is_none() {
            let file = self.make_file()?;
            // Before anybody looks into the file.
            self.reset(&file)?;
            self.errors_since.store(file.sample_write_errors(), Relaxed);
            self.file.populate(file);
            if self.is_withdrawn() {
                // The object was withdrawn before the map was there to be taken out.
                let _map = self.take_map();
            }
        }
        self.file().ok_or(EIO)
    }

    /// Makes a file without a name, of the size that it is to have.
    fn make_file(&self) -> Result<KernelFile> {
        self.shared.space.check(1, 0, SpaceFor::Create)?;
        let write = self.shared.space.mount().want_write()?;
        let dir = self.dir.dentry();
        let file = inject::write()
            .and_then(|()| KernelFile::tmpfile(&write, &self.dir, &self.shared.cred))
            .inspect_err(|e| files::vfs_error(Some(&self.trace), dir, *e, Where::Tmpfile))?;
        files::tmpfile(&self.trace, file.inode());
        // Setting the size gets write access itself.
        drop(write);
        if self.size() > 0 {
            // CAST: Sizes are those of files.
            let size = self.file_size() as i64;
            files::trunc(&self.trace, file.inode(), 0, size, Trunc::ExpandTmpfile);
            let at = file.path().dentry();
            inject::write()
                .and_then(|()| self.set_size(&file))
                .inspect_err(|e| files::vfs_error(Some(&self.trace), at, *e, Where::Trunc))?;
        }
        Ok(file)
    }

    /// How long a file of the object is, in bytes: reads are in whole blocks, so that no part of
    /// one may be missing.
    fn file_size(&self) -> u64 {
        presence::blocks(self.size()) * BLOCK_SIZE
    }

    /// Whether `file` was truncated by others.
    fn is_cut_off(&self, file: &KernelFile) -> bool {
        file.inode().size().unsigned_abs() < self.file_size()
    }

    /// Makes `file` as long as it is to be.
    fn set_size(&self, file: &KernelFile) -> Result {
        file.truncate(i64::try_from(self.file_size()).map_err(|_| EFBIG)?)
    }

    /// Whether the file has a name, and is marked as being in use.
    pub(crate) fn is_named(&self) -> bool {
        self.mark.lock().is_some()
    }

    /// Has the file removed when the object is withdrawn.
    pub(crate) fn retire(&self) {
        self.is_retired.store(1, Relaxed);
    }

    /// Whether the file is to be [removed](Self::retire).
    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Relaxed) != 0
    }

    /// Removes the mark that the file is in use. May sleep.
    pub(crate) fn unmark(&self) {
        // Dropped without the lock.
        let _mark = self.mark.lock().take();
    }

    /// As [`Space::probe_after_error`], when the object could not be written. The caller has the
    /// cache's credentials.
    pub(crate) fn probe_after_error(&self, error: Error) -> bool {
        self.shared
            .space
            .probe_after_error(&self.dir, &self.shared.cred, error)
    }

    // What is known of the data in it.

    /// Forgets what is known of the data: `file` is new, or is looked at again.
    fn reset(&self, file: &KernelFile) -> Result {
        let blocks = presence::blocks(self.size());
        let (present, unverified) = (new_map(blocks)?, new_map(blocks)?);
        // Before anybody asks the file system what the file holds: a later change is then noticed.
        let ctime = file.inode().note_change_time();
        let mut new = Blocks::new(present, unverified, ctime);
        core::mem::swap(&mut *self.blocks.lock(), &mut new);
        Ok(())
    }

    /// Takes out what is known of the data, for the caller to write down. From here on no block is
    /// or becomes present.
    pub(crate) fn take_map(&self) -> Blocks {
        // Waits for a change of what the disk says that is under way: what the caller writes comes
        // after it, and no other change comes after that.
        let claim = self.claim.lock();
        // Before the lock of `blocks`: what is changed under that by a task that does not see this
        // is in the map that is taken out.
        self.is_withdrawn.store(1, Release);
        let map = replace(&mut *self.blocks.lock(), no_blocks());
        drop(claim);
        map
    }

    fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Acquire) != 0
    }

    /// Whether blocks became present, or were lost, that are not written down.
    pub(crate) fn is_modified(&self) -> bool {
        self.is_modified.load(Relaxed) != 0
    }

    /// How often data could not be written back. A writer and a reader take this before they start,
    /// and compare it afterwards.
    pub(crate) fn losses(&self) -> u32 {
        self.losses.load(Acquire)
    }

    /// Changes what is known of `blocks` with `f`, under the lock. `f` returns the blocks still to
    /// do when it needs another leaf, which is allocated without the lock.
    fn update(
        &self,
        blocks: Range<u64>,
        f: impl FnMut(&mut Blocks, Range<u64>, &mut Option<Leaf>) -> Result<Rest>,
    ) -> Result {
        self.update_for(Use::Other, blocks, f)
    }

    fn update_for(
        &self,
        what: Use,
        blocks: Range<u64>,
        mut f: impl FnMut(&mut Blocks, Range<u64>, &mut Option<Leaf>) -> Result<Rest>,
    ) -> Result {
        let (mut left, mut spare) = (Some(blocks), None);
        while let Some(blocks) = left {
            left = f(&mut self.blocks.lock(), blocks, &mut spare)?;
            if left.is_some() && spare.is_none() {
                spare = Some(self.new_leaf(what)?);
            }
        }
        Ok(())
    }

    fn new_leaf(&self, what: Use) -> Result<Leaf> {
        Leaf::new(what, self.shared.limits_maps)
    }

    /// Records that the daemon has written blocks. `losses` is from before it did.
    ///
    /// # Errors
    ///
    /// `EIO` if data was lost since: it may have been this.
    pub(crate) fn mark_written(self: &Arc<Self>, blocks: Range<u64>, losses: u32) -> Result {
        let (mut is_complete, mut wants_leaf) = (false, false);
        let marked = self.update(blocks.clone(), |map, blocks, spare| {
            if self.losses() != losses {
                return Err(EIO);
            }
            let left = map.add_unverified(blocks, spare);
            is_complete = left.is_none() && map.is_complete();
            wants_leaf = map.wants_leaf();
            Ok(left)
        });
        if wants_leaf {
            self.remember_each_change();
        }
        self.is_modified.store(1, Relaxed);
        if marked.is_ok() {
            self.note_change((blocks.end - blocks.start) * BLOCK_SIZE, is_complete);
        }
        marked
    }

    /// Keeps down what is to be appended to the list file. Without memory, it is more.
    #[cold]
    fn remember_each_change(&self) {
        if let Ok(leaf) = self.new_leaf(Use::Other) {
            let _unused = self.blocks.lock().remember_in(leaf);
        }
    }

    /// Records that `blocks` were written past the page cache, for an object that had the size
    /// `extent` when that began. If the size has changed since, only blocks before the one in which
    /// the smaller of the two sizes ends are recorded: behind an end there may be anything.
    /// `losses` is from before the write.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: some are not recorded, also if maps take too much memory; `EIO` if data was lost
    /// since: it may have been this.
    pub(crate) fn mark_stored(&self, blocks: Range<u64>, extent: Extent, losses: u32) -> Result {
        self.is_modified.store(1, Relaxed);
        // The file system may have written through the page cache after all.
        let is_on_disk = self.file().is_some_and(|file| !file.has_pages());
        self.update_for(Use::Storing, blocks, |map, blocks, spare| {
            if self.losses() != losses {
                return Err(EIO);
            }
            let blocks = self.within(extent, blocks);
            Ok(match is_on_disk {
                true => map.add_verified(blocks, spare),
                false => map.add_unverified(blocks, spare),
            })
        })
    }

    /// The first part of `range`, in bytes, that is present.
    pub(crate) fn first_present(&self, range: Range<i64>) -> Option<Range<i64>> {
        if self.is_retired() {
            return None;
        }
        let start = u64::try_from(range.start).ok()?;
        let end = u64::try_from(range.end).ok()?.min(self.size());
        let last = presence::blocks(end);
        let map = self.blocks.lock();
        let first = map.present().find(start / BLOCK_SIZE, last, true);
        let until = map.present().find(first, last, false);
        // CAST: They are in the range.
        let found = start.max(first * BLOCK_SIZE) as i64..end.min(until * BLOCK_SIZE) as i64;
        (first < map.present().blocks() && !found.is_empty()).then_some(found)
    }

    /// Records that `blocks` are not present any more: they are about to be written to, or turned
    /// out to be of no use. The file's list may still name them, so what is written to them later
    /// must not become data to the file system in part: only whole blocks are written past the
    /// page cache.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: some are still present.
    pub(crate) fn discard(&self, blocks: Range<u64>) -> Result {
        self.is_modified.store(1, Relaxed);
        self.update(blocks, |map, blocks, spare| Ok(map.discard(blocks, spare)))
    }

    /// Where a network file system is to read from: see [`source::source`].
    pub(crate) fn source(&self, start: u64, len: u64, size: u64) -> (ReadFrom, u64) {
        source::source(self.blocks.lock().present(), start, len, size)
    }

    /// Traces that reading, writing or changing `file` has failed.
    #[cold]
    pub(crate) fn trace_io_error(&self, file: &KernelFile, error: Error, place: Where) {
        files::io_error(Some(&self.trace), file.inode(), error, place);
    }

    /// What has to be done before `blocks` can be read: see [`Blocks::look`].
    #[inline]
    pub(crate) fn look(&self, blocks: Range<u64>, ctime: Option<u64>, checked: u64) -> Look {
        self.blocks.lock().look(blocks, ctime, checked)
    }

    /// Records that there is no hole from the first block of `unverified` until `end`: see
    /// [`Blocks::mark_on_disk`]. Without memory less is recorded.
    fn mark_on_disk(&self, unverified: &Unverified, end: u64, is_clean: bool) {
        let _ = self.update(unverified.blocks.start..end, |map, blocks, spare| {
            Ok(map.mark_on_disk(unverified, blocks, is_clean, spare))
        });
    }

    /// A map with all blocks of the file.
    fn all_blocks(&self) -> Result<Map> {
        let blocks = self.blocks.lock().present().blocks();
        Ok(new_map(blocks)?.filled())
    }

    /// Makes all blocks unverified: others have changed the file.
    fn unverify_all(&self, file: &KernelFile) -> Result {
        let all = self.all_blocks()?;
        let ctime = file.inode().note_change_time();
        let old = self.blocks.lock().unverify_all(all, ctime);
        drop(old);
        Ok(())
    }

    fn is_fragmented(&self) -> bool {
        self.is_fragmented.load(Relaxed) != 0
    }

    fn set_fragmented(&self) {
        self.is_fragmented.store(1, Relaxed);
    }

    /// The first block from `from` on, of `blocks`, that holds data, or does not; their number if
    /// there is none.
    pub(crate) fn find_block(&self, from: u64, blocks: u64, present: bool) -> u64 {
        let map = self.blocks.lock();
        match map.present().blocks() {
            // There is no file yet.
            0 if present => blocks,
            0 => from,
            _ => map.present().find(from, blocks, present),
        }
    }
}
