// SPDX-License-Identifier: GPL-2.0

//! Files that the kernel opens for itself: opening, reading, writing, asking.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)
//!
//! Everything here may sleep where nothing else is said. "What opening says" and the like below
//! stands for errors of the file system and of the security module, and for a lack of permissions.
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     cred::Credential,
//!     fs::{
//!         kernel_file::{
//!             KernelFile,
//!             Seek, //
//!         },
//!         path::Path, //
//!     },
//!     prelude::*, //
//! };
//!
//! /// Makes a file without a name, so many bytes long, on the file system of `dir`.
//! fn anonymous(dir: &Path, size: i64, cred: &Credential) -> Result<KernelFile> {
//!     let write = dir.mount.want_write()?;
//!     let file = KernelFile::tmpfile(&write, &dir.dentry, cred)?;
//!     // Truncating gets write access itself.
//!     drop(write);
//!     file.truncate(size)?;
//!     Ok(file)
//! }
//!
//! /// Whether a file holds no data.
//! fn is_hole(file: &KernelFile) -> Result<bool> {
//!     match file.seek(0, Seek::Data) {
//!         Ok(_) => Ok(false),
//!         Err(e) if e == ENXIO => Ok(true),
//!         Err(e) => Err(e),
//!     }
//! }
//! ```

use super::{
    dentry::Dentry,
    inode::Inode,
    path::{
        Mount,
        WriteAccess, //
    }, //
};
use crate::{
    bindings,
    kernel_next::{
        cred::with_cred,
        iov::KernelIter, //
    }, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    cred::Credential,
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
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
        Refcount, //
    }, //
};

/// Reading and writing, with 64-bit offsets. Not `O_DIRECT`: that is decided for each request.
// CAST: Flags fit.
const OPEN_FLAGS: c_int = (bindings::O_RDWR | bindings::O_LARGEFILE) as c_int;

/// What [`KernelFile::seek`] is to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    /// Data, which also what is not known to be a hole is taken for.
    Data,
    /// A hole, of which there is always one behind the end of the file.
    Hole,
}

/// A regular file that the kernel has opened for itself.
///
/// It does not count as open, and the security module was asked about the credentials that it was
/// opened with, not about a task's. So it is no [`File`]: nobody can install it as a file
/// descriptor.
///
/// What is written through it leaves the times of the file's last change alone, where the file
/// system lets it: those tell of what others do to the file
/// ([`Inode::change_time`](super::inode::Inode::change_time)).
///
/// A clone is the same open file. Neither cloning nor dropping one sleeps.
#[derive(Clone)]
pub(crate) struct KernelFile(Arc<Opened>);

/// # Invariants
///
/// The file is a regular one that was opened for the kernel, for reading and writing, and has
/// operations for both that take iterators.
struct Opened {
    file: ARef<File>,
    /// A moment in the history of errors in writing the file back. The file has one itself, but
    /// that moves on when a write syncs the file, and only this one's writer is told then.
    errors_since: Atomic<bindings::errseq_t>,
}

/// What file systems take for granted of what is read or written.
fn is_range(pos: i64, len: usize) -> bool {
    pos >= 0 && pos.checked_add_unsigned(len as u64).is_some()
}

/// As `vfs_iocb_iter_read()`, without what was seen to when the file was opened.
///
/// # Safety
///
/// `iocb` must be a request for the file of a [`KernelFile`], and `to` a valid destination that is
/// not user memory. All must be valid until the request is done, which may be before this returns.
/// The caller may sleep, unless `iocb` says otherwise.
unsafe fn call_read_iter(iocb: *mut bindings::kiocb, to: *mut bindings::iov_iter) -> isize {
    // SAFETY: Both are valid, and nobody else's, until they are submitted; so is the file, whose
    // operations are a constant of the code that it keeps.
    let (pos, len, op) = unsafe {
        (
            (*iocb).ki_pos,
            IovIterDest::from_raw(to).len(),
            (*(*(*iocb).ki_filp).f_op).read_iter,
        )
    };
    match op.filter(|_| is_range(pos, len)) {
        // SAFETY: By the invariant of the file it can be read from; as the caller guarantees.
        Some(read_iter) => unsafe { read_iter(iocb, to) },
        None => EINVAL.to_errno() as isize,
    }
}

impl KernelFile {
    /// # Errors
    ///
    /// `ENOENT` if `ptr` is null, `EINVAL` if the file system cannot do kernel I/O; `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `ptr` must be null or a regular file that was just opened for the kernel with
    /// [`OPEN_FLAGS`], to which the caller owns a reference, which it gives up.
    unsafe fn just_opened(ptr: *mut bindings::file) -> Result<Self> {
        let ptr = NonNull::new(ptr).ok_or(ENOENT)?;
        // SAFETY: As the caller guarantees; nobody can have begun to use the position of a file
        // that was just opened. `File` is a transparent wrapper.
        let file: ARef<File> = unsafe { ARef::from_raw(ptr.cast()) };
        // SAFETY: The file is valid. Its operations are not null, and are a constant of the code
        // that it keeps.
        let op = unsafe { &*(*file.as_ptr()).f_op };
        if op.read_iter.is_none() || op.write_iter.is_none() {
            return Err(EINVAL);
        }
        // SAFETY: The file is valid, and was just opened: nobody else knows of it.
        unsafe { (*file.as_ptr()).f_mode |= bindings::FMODE_NOCMTIME };
        // SAFETY: The file is valid, and keeps its mapping.
        let now = unsafe { bindings::filemap_sample_wb_err((*file.as_ptr()).f_mapping) };
        // INVARIANT: As the caller guarantees, and as was just seen.
        let opened = Opened {
            file,
            errors_since: Atomic::new(now),
        };
        Ok(KernelFile(Arc::new(opened, GFP_KERNEL)?))
    }

    /// Opens a regular file for reading and writing. What is done with the file later is done with
    /// `cred`. Neither the permissions of the file are looked at nor whether it is immutable: that
    /// is up to the caller. Only the security module is asked, about `cred`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `dentry` is no regular file or not of the file system of `mount`, or if the file
    /// system cannot do kernel I/O; `EROFS` if the mount is read-only; what opening says.
    pub(crate) fn open(mount: &Mount, dentry: &Dentry, cred: &Credential) -> Result<Self> {
        if !dentry.is_regular() || !mount.holds(dentry) {
            return Err(EINVAL);
        }
        let path = mount.path_of(dentry);
        // SAFETY: The path is valid, its dentry is positive, the credentials are valid, and the
        // caller may sleep.
        let file = unsafe { bindings::kernel_file_open(&path, OPEN_FLAGS, cred.as_ptr()) };
        // SAFETY: The function returns a reference to a file that it opened, or an error. It is
        // what the dentry is, which does not change: a regular file.
        unsafe { Self::just_opened(from_err_ptr(file)?) }
    }

    /// Creates a regular file without a name on the file system of `dir`, and opens it for reading
    /// and writing. What is done with the file later is done with `cred`; whether it may be created
    /// is decided by the credentials of the task.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` if `dir` is no directory or not of the file system that `write` is for;
    /// `EOPNOTSUPP` if the file system has no such files; `EINVAL` if it cannot do kernel I/O; what
    /// creating says.
    pub(crate) fn tmpfile(
        write: &WriteAccess<'_>,
        dir: &Dentry,
        cred: &Credential,
    ) -> Result<Self> {
        if !dir.can_lookup() || !write.mount().holds(dir) {
            return Err(ENOTDIR);
        }
        let path = write.mount().path_of(dir);
        // CAST: A mode fits.
        let mode = (bindings::S_IFREG | 0o600) as bindings::umode_t;
        // SAFETY: The mount's mapping and the credentials are valid, the path is valid and a
        // directory, write access is held, and the caller may sleep.
        let file = unsafe {
            bindings::kernel_tmpfile_open(
                write.mount().idmap(),
                &path,
                mode,
                OPEN_FLAGS,
                cred.as_ptr(),
            )
        };
        // SAFETY: The function returns a reference to a file that it opened with these flags, a
        // regular one by `mode`, or an error.
        unsafe { Self::just_opened(from_err_ptr(file)?) }
    }

    fn as_ptr(&self) -> *mut bindings::file {
        self.0.file.as_ptr()
    }

    /// The file's inode. Does not sleep.
    #[inline]
    pub(crate) fn inode(&self) -> &Inode {
        // SAFETY: The file is valid, and keeps its inode and the mount, which has the superblock
        // active.
        unsafe { Inode::from_raw(bindings::file_inode(self.as_ptr())) }
    }

    /// The file's dentry. Does not sleep.
    #[inline]
    pub(crate) fn dentry(&self) -> &Dentry {
        // SAFETY: The file is valid, and keeps its path, whose mount has the superblock active.
        unsafe { Dentry::from_raw((*self.as_ptr()).__bindgen_anon_1.f_path.dentry) }
    }

    /// Writes the file's data out and waits for that. What describes the file, as its size, may yet
    /// have to be written.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if data was lost, now or since somebody was told of that last.
    pub(crate) fn write_and_wait(&self) -> Result {
        // SAFETY: The file is valid, and keeps its mapping. The caller may sleep.
        to_result(unsafe {
            bindings::filemap_write_and_wait_range((*self.as_ptr()).f_mapping, 0, i64::MAX)
        })
    }

    /// Checks that nothing that was written to the page cache was lost on its way to the disk since
    /// the file was opened, or [`Self::forget_write_errors`] was called last. An error that nobody
    /// had taken note of when the file was opened counts, too. Does not sleep.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if something was.
    pub(crate) fn check_write_errors(&self) -> Result {
        self.check_write_errors_since(self.0.errors_since.load(Acquire))
    }

    fn check_write_errors_since(&self, since: bindings::errseq_t) -> Result {
        // SAFETY: The file is valid, and keeps its mapping.
        to_result(unsafe { bindings::filemap_check_wb_err((*self.as_ptr()).f_mapping, since) })
    }

    /// Takes note of all errors until now, for all clones and for reads that begin later. Whoever
    /// does not see the errors any more sees what the caller did before. Does not sleep.
    ///
    /// Of two callers at once, the one may have the other's errors reported again.
    pub(crate) fn forget_write_errors(&self) {
        let mut since = self.0.errors_since.load(Relaxed);
        // An error that nobody took note of would be seen by the next who opens the file, too; this
        // marks it.
        // SAFETY: The file is valid, and keeps its mapping. The function is atomic.
        unsafe {
            bindings::errseq_check_and_advance(
                core::ptr::addr_of_mut!((*(*self.as_ptr()).f_mapping).wb_err),
                &mut since,
            )
        };
        // The mapping has flags besides, which the next who waits for the data to be written takes
        // for errors of his own: this clears them. An error that comes in between is not forgotten,
        // because `since` is from before.
        // SAFETY: The file is valid, and keeps its mapping.
        let _known = unsafe { bindings::file_check_and_advance_wb_err(self.as_ptr()) };
        self.0.errors_since.store(since, Release);
    }

    /// Whether the page cache has something of `range`, in bytes, that is not on the disk yet, or
    /// is locked by somebody who may be changing that. Does not sleep.
    pub(crate) fn is_dirty(&self, range: Range<i64>) -> bool {
        // SAFETY: The file is valid, and keeps its mapping. The last byte belongs to the range.
        unsafe {
            bindings::filemap_range_has_writeback(
                (*self.as_ptr()).f_mapping,
                range.start,
                range.end - 1,
            )
        }
    }

    /// Whether the page cache has `range`, in bytes, in a page of its own that is yet to be written
    /// to the disk, or is being written. Does not sleep.
    pub(crate) fn is_in_dirty_page(&self, range: Range<i64>) -> bool {
        let (Ok(pos), Ok(len)) = (range.start.try_into(), (range.end - range.start).try_into())
        else {
            return false;
        };
        // SAFETY: The file is valid, and keeps its mapping.
        unsafe { bindings::mapping_has_dirty_folio((*self.as_ptr()).f_mapping, pos, len) }
    }

    /// Whether the page cache has anything of the file. Does not sleep.
    #[inline]
    pub(crate) fn has_pages(&self) -> bool {
        // SAFETY: The file is valid, and keeps its mapping, whose count may change at any time.
        unsafe { core::ptr::addr_of!((*(*self.as_ptr()).f_mapping).nrpages).read_volatile() != 0 }
    }

    /// Whether the page cache has nothing of the file that is not on the disk yet. Does not sleep.
    pub(crate) fn is_clean(&self) -> bool {
        // SAFETY: The file is valid, and keeps its mapping.
        let has = |tag| unsafe { bindings::mapping_tagged((*self.as_ptr()).f_mapping, tag) };
        // In this order: what is written back becomes the one before it ceases to be the other.
        !has(bindings::PAGECACHE_TAG_DIRTY) && !has(bindings::PAGECACHE_TAG_WRITEBACK)
    }

    /// The credentials that the file was opened with.
    #[inline]
    fn cred(&self) -> &Credential {
        self.0.file.cred()
    }

    /// Sets the size in bytes, as `truncate(2)`: what is new is a hole. Gets write access to the
    /// mount, so the task must not have it. The task's credentials decide, not those of the file.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the size is negative, `EFBIG` if the file may not be so large; what truncating
    /// says.
    pub(crate) fn truncate(&self, size: i64) -> Result {
        // SAFETY: The file is valid, and keeps its path.
        let path = unsafe { core::ptr::addr_of!((*self.as_ptr()).__bindgen_anon_1.f_path) };
        if size < 0 {
            return Err(EINVAL);
        }
        // SAFETY: The path is valid, its dentry is positive, and the caller may sleep.
        to_result(unsafe { bindings::vfs_truncate(path, size) })
    }

    /// Notes that the file is used, for those who go by the time of the last access.
    pub(crate) fn touch_atime(&self) {
        // SAFETY: The file is valid, and keeps its path.
        unsafe {
            bindings::touch_atime(core::ptr::addr_of!(
                (*self.as_ptr()).__bindgen_anon_1.f_path
            ))
        };
    }

    /// The offset, in bytes, of the next data or hole at `from` or after it. Also moves the file's
    /// position there, which nothing uses. The file system may look at all that is between, and
    /// most take the inode lock, shared.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is none, or if `from` is negative or behind the end; `EINVAL` if the file
    /// system cannot tell; `ESPIPE` if the file has no positions; `EINTR` if the task is killed and
    /// the file system looks at that; what it says.
    pub(crate) fn seek(&self, from: i64, what: Seek) -> Result<i64> {
        let whence = match what {
            Seek::Data => bindings::SEEK_DATA,
            Seek::Hole => bindings::SEEK_HOLE,
        };
        // SAFETY: The file is valid, and the caller may sleep. The lock of its position is not
        // needed: several may store one at once, and nobody reads it, as all else that is done with
        // the file says where.
        // CAST: 3 or 4.
        let ret = unsafe { bindings::vfs_llseek(self.as_ptr(), from, whence as c_int) };
        // CAST: Negative values are error numbers, which fit.
        to_result(ret.min(0) as c_int)?;
        Ok(ret)
    }

    /// The most bytes that are written without letting go of the inode's lock.
    const PIECE: usize = 1 << 20;

    /// Writes what `from` has to the offset `pos`, in bytes, through the page cache. Returns how
    /// many bytes were written, which may be less. Gets write access to the mount, so the task must
    /// not have it. Neither a security module nor who watches the file hears of it: they were
    /// asked, or told, when it was opened.
    ///
    /// [`Self::seek`] takes the inode's lock, too, and need not wait until all is written.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `pos` is negative; what writing says, if nothing was written before.
    pub(crate) fn write(&self, mut pos: i64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let mut done = 0;
        loop {
            let piece = from.len().min(Self::PIECE);
            let written = match self.write_piece(&mut pos, from, piece) {
                Err(e) if done == 0 => return Err(e),
                written => written.unwrap_or(0),
            };
            done += written;
            if written < piece || from.is_empty() {
                return Ok(done);
            }
        }
    }

    /// Writes the first `len` bytes of `from`, which has as many.
    fn write_piece(
        &self,
        pos: &mut i64,
        from: &mut IovIterSource<'_>,
        len: usize,
    ) -> Result<usize> {
        let rest = from.len().saturating_sub(len);
        if rest > 0 {
            // SAFETY: The iterator is valid, and is left with `len` bytes or fewer.
            unsafe { bindings::iov_iter_truncate(from.as_raw(), len as u64) };
        }
        let ret = self.call_write_iter(*pos, from);
        // CAST: No more than `len` was written.
        *pos += ret.max(0) as i64;
        if rest > 0 {
            // SAFETY: The iterator is valid. What is left of the `len` bytes is followed by this.
            unsafe { bindings::iov_iter_reexpand(from.as_raw(), from.len() + rest) };
        }
        // CAST: Negative values are error numbers, which fit.
        to_result(ret.min(0) as c_int)?;
        Ok(ret.unsigned_abs())
    }

    /// As `vfs_iter_write()`, but tells nobody: see [`Self::write`].
    fn call_write_iter(&self, pos: i64, from: &mut IovIterSource<'_>) -> isize {
        let file = self.as_ptr();
        if from.is_empty() {
            return 0;
        }
        // SAFETY: The file is valid. Its flags do not change, its operations are a constant of the
        // code that it keeps.
        let (flags, op) = unsafe { ((*file).f_iocb_flags, (*(*file).f_op).write_iter) };
        let Some(write_iter) = op.filter(|_| is_range(pos, from.len())) else {
            return EINVAL.to_errno() as isize;
        };
        let mut iocb = bindings::kiocb {
            ki_filp: file,
            ki_pos: pos,
            // CAST: Flags fit.
            ki_flags: flags as c_int,
            // SAFETY: No preconditions.
            ki_ioprio: unsafe { bindings::get_current_ioprio() },
            ..Default::default()
        };
        // SAFETY: The file is valid; the caller may sleep, and has no write access to the mount.
        // By its invariant the file can be written to. The request, which without a completion
        // function is done when the function returns, and the iterator, a source, are valid.
        unsafe {
            bindings::file_start_write(file);
            let ret = write_iter(&mut iocb, from.as_raw());
            bindings::file_end_write(file);
            ret
        }
    }

    fn mode_has(&self, mode: bindings::fmode_t) -> bool {
        // SAFETY: The file is valid, and its mode does not change.
        unsafe { (*self.as_ptr()).f_mode & mode != 0 }
    }

    /// Begins a read. Comes before it is found out what there is to be read. Does not sleep.
    pub(crate) fn begin_read(self) -> FileRead {
        FileRead {
            errors_since: self.0.errors_since.load(Acquire),
            file: self,
        }
    }
}

/// A read of a file. What it finds is what was written to the page cache, whatever comes of writing
/// that back while the read is under way.
///
/// Whoever reads, it is done with the credentials that the file was opened with. The security
/// module was asked about those when it was opened, and is not asked again for each read: the file
/// is the kernel's, like that of a loop device, and no task has it. Nor is fsnotify told.
#[must_use]
pub(crate) struct FileRead {
    file: KernelFile,
    /// That of the file when the read began: others may take note of an error that this one has to
    /// know of.
    errors_since: bindings::errseq_t,
}

impl FileRead {
    /// What is read.
    #[inline]
    pub(crate) fn file(&self) -> &KernelFile {
        &self.file
    }

    /// As [`KernelFile::check_write_errors`], but an error that was taken note of after the read
    /// began is one still. Does not sleep.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if something was lost.
    pub(crate) fn check(&self) -> Result {
        self.file.check_write_errors_since(self.errors_since)
    }

    /// Reads what the page cache has of the file from the offset `pos`, in bytes, without waiting
    /// for a disk. Returns how many bytes that was; `to` goes on after them. An error of the file
    /// is nothing read. Does not sleep for longer than it takes to lock what is in memory.
    ///
    /// # Errors
    ///
    /// `EIO` if `to` went on otherwise, or if [`Self::check`] fails after it was read.
    pub(crate) fn read_cached(&self, pos: i64, to: &mut KernelIter) -> Result<usize> {
        let file = &self.file;
        if !file.mode_has(bindings::FMODE_NOWAIT) {
            return Ok(0);
        }
        let before = to.len();
        let mut iocb = bindings::kiocb {
            ki_filp: file.as_ptr(),
            ki_pos: pos,
            // CAST: Flags fit.
            ki_flags: bindings::IOCB_NOWAIT | bindings::IOCB_NOIO as c_int,
            ..Default::default()
        };
        // SAFETY: The file, which is open for reading, the request and the iterator, a destination,
        // are valid. Without a completion function the request is done when the function returns.
        let ret = with_cred(file.cred(), || unsafe {
            call_read_iter(&mut iocb, to.as_raw())
        });
        // An error, like EAGAIN, is as good as nothing: whoever goes on will see it again.
        let read = usize::try_from(ret).unwrap_or(0);
        // What could not be written may have been read from the disk again.
        self.check().map_err(|_| EIO)?;
        if before - to.len() == read {
            Ok(read)
        } else {
            Err(EIO)
        }
    }

    /// What is to be told of a direct read that completed with `ret`.
    fn result(&self, ret: isize) -> Result<usize> {
        // Nobody can restart the system call: other parts of it may be under way.
        let restart = [
            ERESTARTSYS,
            ERESTARTNOINTR,
            ERESTARTNOHAND,
            ERESTART_RESTARTBLOCK,
        ];
        if restart.iter().any(|e| e.to_errno() as isize == ret) {
            return Err(EINTR);
        }
        // CAST: Negative values are error numbers, which fit.
        to_result(ret.min(0) as c_int)?;
        // What was to be written to the disk and was not is not what was read.
        self.check().map_err(|_| EIO)?;
        Ok(ret.unsigned_abs())
    }

    /// Reads from the offset `pos`, in bytes, without going through the page cache where the file
    /// system can do that. What is left of the destination behind the end of the file may have been
    /// overwritten.
    ///
    /// `done` is called exactly once, with the number of bytes that were read or the error. That
    /// may be before this function returns, and in any context, also in an interrupt: neither
    /// `done` nor the drop of what it owns may sleep. It is called when the kernel is done with the
    /// memory of `to`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, without `done` having been called; it is given back. All others go to `done`, also
    /// `EIO` if what is on the disk is not all that was written to the page cache.
    pub(crate) fn read_direct<F>(
        self,
        pos: i64,
        to: KernelIter,
        done: F,
    ) -> core::result::Result<(), (Error, F)>
    where
        F: FnOnce(Result<usize>) + Send + 'static,
    {
        let mut flags = 0;
        if self.file.mode_has(bindings::FMODE_CAN_ODIRECT) {
            // CAST: Flags fit.
            flags |= bindings::IOCB_DIRECT as c_int;
        }
        let Ok(this) = KBox::<DirectRead<F>>::new_uninit(GFP_KERNEL) else {
            return Err((ENOMEM, done));
        };
        let raw = self.file.as_ptr();
        // A reference of its own: the request may be over, and the file gone, before this is.
        let cred = ARef::from(self.file.cred());
        let this = KBox::into_raw(KBox::write(
            this,
            DirectRead {
                iocb: bindings::kiocb {
                    ki_filp: raw,
                    ki_pos: pos,
                    ki_complete: Some(DirectRead::<F>::complete),
                    ki_flags: flags,
                    // SAFETY: No preconditions.
                    ki_ioprio: unsafe { bindings::get_current_ioprio() },
                    ..Default::default()
                },
                refs: Refcount::new(2),
                read: self,
                to,
                done: Some(done),
            },
        ));
        // SAFETY: The request owns a reference to the file and the iterator, a destination that is
        // not user memory; they and the request live until its last reference is put: the
        // submitter's is, below. The caller may sleep.
        let ret = with_cred(&cred, || unsafe {
            call_read_iter(core::ptr::addr_of_mut!((*this).iocb), (*this).to.as_raw())
        });
        // CAST: An error number.
        if ret == -(bindings::EIOCBQUEUED as isize) {
            // SAFETY: The submitter's reference.
            unsafe { DirectRead::put(this) };
        } else {
            // SAFETY: It came from `KBox::into_raw`. It was not queued, so it is not used any more.
            let mut this = unsafe { KBox::from_raw(this) };
            let done = this.done.take();
            let result = this.read.result(ret);
            // Whoever is told may let go of the module's last object.
            drop(this);
            if let Some(done) = done {
                done(result);
            }
        }
        Ok(())
    }
}

/// A read under way. It is only handled by pointers: the kernel has one to `iocb`.
///
/// # Invariants
///
/// - `iocb` is the first member, so that a pointer to it is one to the whole.
/// - `refs` counts those who may use this: it is freed with the last of them. What was not queued
///   has no completion, and is freed by whoever submitted it.
/// - `done` is only touched by the completion, `to` by nobody but the kernel.
#[repr(C)]
struct DirectRead<F> {
    iocb: bindings::kiocb,
    /// One for whoever submits, one for the completion: what is submitted may be complete, and
    /// freed, before the function that submitted it returns.
    refs: Refcount,
    /// Keeps the file that `iocb` is for.
    read: FileRead,
    to: KernelIter,
    done: Option<F>,
}

impl<F: FnOnce(Result<usize>) + Send> DirectRead<F> {
    /// # Safety
    ///
    /// `this` must come from [`FileRead::read_direct`], and the caller must own one of its two
    /// references, which it gives up.
    unsafe fn put(this: *mut Self) {
        // SAFETY: The caller's reference keeps it valid.
        if unsafe { (*this).refs.dec_and_test() } {
            // SAFETY: It came from `KBox::into_raw`, and as this was the last reference nobody uses
            // it any more.
            drop(unsafe { KBox::from_raw(this) });
        }
    }

    /// # Safety
    ///
    /// `iocb` must be a request that [`FileRead::read_direct`] submitted, and this its only
    /// completion.
    unsafe extern "C" fn complete(iocb: *mut bindings::kiocb, ret: c_long) {
        let this: *mut Self = iocb.cast();
        // SAFETY: By the invariant of the type this is a pointer to the whole, and the completion,
        // which happens once, owns a reference, which keeps it valid. The member does not change.
        let result = unsafe { (*this).read.result(ret) };
        // SAFETY: As above; nobody but the completion touches this member.
        let done = unsafe { (*this).done.take() };
        // SAFETY: As above; the whole comes from `FileRead::read_direct`. This gives the reference
        // up.
        unsafe { Self::put(this) };
        if let Some(done) = done {
            done(result);
        }
    }
}

#[kunit_tests(rust_kernel_file)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        cred::NewCredential,
        fs::{
            namei::{
                lookup_positive,
                Creating,
                Removing, //
            },
            path::Path, //
        },
        kunit::{
            scratch,
            support::{
                Count,
                Memory, //
            }, //
        },
        sync::completion::Completion, //
    };
    use core::sync::atomic::{
        AtomicPtr,
        Ordering::Relaxed as CoreRelaxed, //
    };
    use kernel::page::PAGE_SIZE;

    const BLOCK: usize = 4096;

    fn dir() -> Result<Path> {
        scratch::dir(b"kunit-kernel-file")
    }

    fn file() -> Result<KernelFile> {
        file_in(&dir()?)
    }

    fn file_in(dir: &Path) -> Result<KernelFile> {
        let write = dir.mount.want_write()?;
        KernelFile::tmpfile(
            &write,
            &dir.dentry,
            &NewCredential::kernel()?.into_credential(),
        )
    }

    fn fill(file: &KernelFile, pos: i64, len: usize, byte: u8) -> Result<usize> {
        let mut memory = Memory::new(len, byte)?;
        let mut raw = memory.iter(bindings::ITER_SOURCE);
        // SAFETY: The iterator is a source, and valid for the call.
        file.write(pos, unsafe { IovIterSource::from_raw(&mut raw) })
    }

    fn dest(memory: &mut Memory) -> Result<KernelIter> {
        let raw = memory.iter(bindings::ITER_DEST);
        // SAFETY: The tests keep the memory, and let it be, until the copy is gone.
        unsafe { KernelIter::copy_of(&raw) }
    }

    #[pin_data]
    struct Outcome {
        #[pin]
        over: Completion,
        /// How often it was told.
        told: Count,
        ret: Atomic<i64>,
    }

    /// Reads directly; returns what was told, or an error if that was not once.
    fn direct(file: &KernelFile, pos: i64, memory: &mut Memory) -> Result<i64> {
        finish_direct(file.clone().begin_read(), pos, memory)
    }

    fn finish_direct(read: FileRead, pos: i64, memory: &mut Memory) -> Result<i64> {
        let told = Count::new()?;
        let dropped = Count::new()?;
        let counted = told.clone();
        let new = pin_init!(Outcome {
            over <- Completion::new(),
            told: counted,
            ret: Atomic::new(0),
        });
        let outcome = Arc::pin_init(new, GFP_KERNEL)?;
        let to = dest(memory)?;
        let theirs = (outcome.clone(), dropped.on_drop());
        let done = move |ret: Result<usize>| {
            let (outcome, _dropped) = &theirs;
            let ret = ret.map_or_else(|e| i64::from(e.to_errno()), |len| len as i64);
            outcome.ret.store(ret, Relaxed);
            outcome.told.add();
            outcome.over.complete_all();
        };
        read.read_direct(pos, to, done).map_err(|(e, _)| e)?;
        // The memory is in use until then.
        // A busy machine may take its time; KUnit ends what hangs, before this.
        let timeout = kernel::time::msecs_to_jiffies(36_000_000);
        if outcome
            .over
            .wait_for_completion_killable_timeout(timeout)?
            .is_none()
        {
            return Err(ETIMEDOUT);
        }
        if told.get() != 1 {
            return Err(EINVAL);
        }
        // What the closure owns goes once, perhaps just after it told.
        for _ in 0..1000 {
            if dropped.get() == 1 {
                return Ok(outcome.ret.load(Relaxed));
            }
            kernel::time::delay::fsleep(kernel::time::Delta::from_millis(1));
        }
        Err(ETIMEDOUT)
    }

    #[test]
    fn tmpfile_is_an_empty_file_without_a_name() -> Result {
        let file = file()?;
        assert_eq!(file.inode().size(), 0);
        assert!(file.dentry().is_regular());
        assert_eq!(file.seek(0, Seek::Data), Err(ENXIO));
        assert_eq!(file.seek(0, Seek::Hole), Err(ENXIO));
        Ok(())
    }

    #[test]
    fn tmpfile_needs_a_directory_of_the_mount() -> Result {
        let dir = dir()?;
        let other = Path::lookup_dir(c"/")?;
        let write = dir.mount.want_write()?;
        let cred = NewCredential::kernel()?.into_credential();
        let made = KernelFile::tmpfile(&write, &other.dentry, &cred);
        assert_eq!(made.err(), Some(ENOTDIR));
        let leaf = KernelFile::tmpfile(&write, &dir.dentry, &cred)?;
        let made = KernelFile::tmpfile(&write, leaf.dentry(), &cred);
        assert_eq!(made.err(), Some(ENOTDIR));
        Ok(())
    }

    #[test]
    fn open_is_for_regular_files_of_the_mount() -> Result {
        let dir = dir()?;
        let other = Path::lookup_dir(c"/")?;
        let cred = NewCredential::kernel()?.into_credential();
        assert_eq!(
            KernelFile::open(&dir.mount, &dir.dentry, &cred).err(),
            Some(EINVAL)
        );
        let made = file()?;
        fill(&made, 0, 5, b'x')?;
        let write = dir.mount.want_write()?;
        Creating::start(&dir.dentry, b"open", &write)?.link(&made)?;
        let named = lookup_positive(&dir.dentry, b"open")?;
        let opened = KernelFile::open(&dir.mount, &named, &cred)?;
        assert!(core::ptr::eq(opened.inode(), made.inode()));
        assert_eq!(opened.inode().size(), 5);
        assert!(core::ptr::eq(opened.0.file.cred().as_ptr(), cred.as_ptr()));
        assert_eq!(
            KernelFile::open(&other.mount, &named, &cred).err(),
            Some(EINVAL)
        );
        Removing::start(&dir.dentry, b"open", &write)?.unlink()?;
        Ok(())
    }

    #[test]
    fn what_was_written_is_read_back() -> Result {
        let file = file()?;
        assert_eq!(fill(&file, 0, BLOCK, b'a'), Ok(BLOCK));
        // A hole, then data.
        assert_eq!(fill(&file, 2 * BLOCK as i64, BLOCK, b'c'), Ok(BLOCK));
        assert_eq!(file.inode().size(), 3 * BLOCK as i64);
        file.write_and_wait()?;
        let mut memory = Memory::new(4 * BLOCK, b'?')?;
        assert_eq!(direct(&file, 0, &mut memory), Ok(3 * BLOCK as i64));
        let is = |at: usize, expected: u8| {
            let block = &memory.bytes()[at * BLOCK..][..BLOCK];
            block.iter().all(|byte| *byte == expected)
        };
        assert!(is(0, b'a'));
        assert!(is(1, 0));
        assert!(is(2, b'c'));
        Ok(())
    }

    #[test]
    fn direct_read_at_the_end_is_empty() -> Result {
        let file = file()?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        assert_eq!(direct(&file, 0, &mut memory), Ok(0));
        fill(&file, 0, BLOCK, b'a')?;
        file.write_and_wait()?;
        assert_eq!(direct(&file, BLOCK as i64, &mut memory), Ok(0));
        assert!(memory.bytes().iter().all(|byte| *byte == b'?'));
        Ok(())
    }

    #[test]
    fn direct_read_from_before_the_start_tells_the_error() -> Result {
        let file = file()?;
        fill(&file, 0, BLOCK, b'a')?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        assert_eq!(
            direct(&file, -1, &mut memory),
            Ok(i64::from(EINVAL.to_errno()))
        );
        Ok(())
    }

    #[test]
    fn direct_read_of_a_disk() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        fill(&file, 0, BLOCK, b'a')?;
        fill(&file, 2 * BLOCK as i64, BLOCK, b'c')?;
        file.write_and_wait()?;
        let mut memory = Memory::new(4 * BLOCK, b'?')?;
        assert_eq!(direct(&file, 0, &mut memory), Ok(3 * BLOCK as i64));
        assert!(memory.bytes()[..BLOCK].iter().all(|byte| *byte == b'a'));
        assert!(memory.bytes()[2 * BLOCK..3 * BLOCK]
            .iter()
            .all(|byte| *byte == b'c'));
        Ok(())
    }

    #[test]
    fn direct_read_keeps_the_file() -> Result {
        let file = file()?;
        fill(&file, 0, BLOCK, b'a')?;
        file.write_and_wait()?;
        let told = Count::new()?;
        let theirs = told.clone();
        let mut memory = Memory::new(BLOCK, b'?')?;
        let done = move |_: Result<usize>| theirs.add();
        let to = dest(&mut memory)?;
        // The only reference goes with the read.
        let read = file.begin_read();
        read.read_direct(0, to, done).map_err(|(e, _)| e)?;
        for _ in 0..20_000 {
            if told.get() != 0 {
                break;
            }
            kernel::time::delay::fsleep(kernel::time::Delta::from_millis(1));
        }
        assert_eq!(told.get(), 1);
        assert!(memory.bytes().iter().all(|byte| *byte == b'a'));
        Ok(())
    }

    #[test]
    fn page_cache_gives_what_it_has() -> Result {
        // Files of a tmpfs cannot be read without waiting.
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        fill(&file, 0, 100, b'a')?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut to = dest(&mut memory)?;
        assert_eq!(file.clone().begin_read().read_cached(0, &mut to), Ok(100));
        assert_eq!(to.len(), BLOCK - 100);
        assert_eq!(file.clone().begin_read().read_cached(100, &mut to), Ok(0));
        assert!(memory.bytes()[..100].iter().all(|byte| *byte == b'a'));
        assert!(memory.bytes()[100..].iter().all(|byte| *byte == b'?'));
        Ok(())
    }

    #[test]
    fn page_cache_does_not_go_to_the_disk() -> Result {
        let file = file()?;
        // Nothing was ever read or written there.
        file.truncate(4 * BLOCK as i64)?;
        assert_eq!(file.inode().size(), 4 * BLOCK as i64);
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut to = dest(&mut memory)?;
        assert_eq!(file.clone().begin_read().read_cached(0, &mut to), Ok(0));
        assert_eq!(to.len(), BLOCK);
        assert!(memory.bytes().iter().all(|byte| *byte == b'?'));
        Ok(())
    }

    #[test]
    fn seek_tells_data_from_holes() -> Result {
        let file = file()?;
        // What tmpfs has is whole pages.
        let page = PAGE_SIZE as i64;
        file.truncate(8 * page)?;
        fill(&file, 4 * page, PAGE_SIZE, b'd')?;
        file.write_and_wait()?;
        assert_eq!(file.seek(0, Seek::Data), Ok(4 * page));
        assert_eq!(file.seek(0, Seek::Hole), Ok(0));
        assert_eq!(file.seek(4 * page, Seek::Hole), Ok(5 * page));
        assert_eq!(file.seek(5 * page, Seek::Data), Err(ENXIO));
        assert_eq!(file.seek(8 * page, Seek::Hole), Err(ENXIO));
        Ok(())
    }

    #[test]
    fn truncate_cuts_and_extends() -> Result {
        let file = file()?;
        fill(&file, 0, 2 * BLOCK, b'a')?;
        file.truncate(1)?;
        assert_eq!(file.inode().size(), 1);
        file.truncate(BLOCK as i64)?;
        file.write_and_wait()?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        assert_eq!(direct(&file, 0, &mut memory), Ok(BLOCK as i64));
        assert_eq!(memory.bytes()[0], b'a');
        assert!(memory.bytes()[1..].iter().all(|byte| *byte == 0));
        assert_eq!(file.truncate(-1), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn write_errors_since_a_moment_are_told() -> Result {
        let file = file()?;
        let again = || {
            let mount = dir()?.mount;
            KernelFile::open(
                &mount,
                file.dentry(),
                &NewCredential::kernel()?.into_credential(),
            )
        };
        assert_eq!(file.check_write_errors(), Ok(()));
        // SAFETY: The file is valid, and keeps its mapping.
        let fail = || unsafe {
            bindings::__filemap_set_wb_err((*file.as_ptr()).f_mapping, EIO.to_errno());
        };
        for _ in 0..2 {
            fail();
            assert_eq!(file.check_write_errors(), Err(EIO));
            // Until it is taken note of, which a clone may do.
            assert_eq!(file.check_write_errors(), Err(EIO));
            file.clone().forget_write_errors();
            assert_eq!(file.check_write_errors(), Ok(()));
        }
        // A read that began before knows it still.
        let read = file.clone().begin_read();
        fail();
        file.forget_write_errors();
        assert_eq!(file.check_write_errors(), Ok(()));
        assert_eq!(read.check(), Err(EIO));
        assert_eq!(file.clone().begin_read().check(), Ok(()));
        // What is known to nobody is not lost to those who come later.
        fail();
        let late = again()?;
        assert_eq!(late.check_write_errors(), Err(EIO));
        late.forget_write_errors();
        assert_eq!(late.check_write_errors(), Ok(()));
        assert_eq!(again()?.check_write_errors(), Ok(()));
        // Each takes note for himself.
        assert_eq!(file.check_write_errors(), Err(EIO));
        Ok(())
    }

    /// What a failure to write `file` back leaves behind, all of it.
    fn set_error(file: &KernelFile) {
        // SAFETY: The file is valid, and keeps its mapping.
        unsafe {
            bindings::kunit_mapping_set_error((*file.as_ptr()).f_mapping, EIO.to_errno());
        }
    }

    #[test]
    fn write_errors_that_are_forgotten_fail_nothing_more() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        fill(&file, 0, BLOCK, b'a')?;
        file.write_and_wait()?;
        set_error(&file);
        file.forget_write_errors();
        let mut memory = Memory::new(BLOCK, b'?')?;
        assert_eq!(direct(&file, 0, &mut memory), Ok(BLOCK as i64));
        set_error(&file);
        file.forget_write_errors();
        assert_eq!(file.write_and_wait(), Ok(()));
        Ok(())
    }

    #[test]
    fn reads_fail_that_began_before_data_was_lost() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        fill(&file, 0, BLOCK, b'a')?;
        file.write_and_wait()?;
        let (first, second) = (file.clone().begin_read(), file.clone().begin_read());
        set_error(&file);
        // Somebody else is told of the error, and has all fetched anew.
        file.forget_write_errors();
        let mut memory = Memory::new(BLOCK, b'?')?;
        assert_eq!(
            finish_direct(first, 0, &mut memory),
            Ok(i64::from(EIO.to_errno()))
        );
        let mut to = dest(&mut memory)?;
        assert_eq!(second.read_cached(0, &mut to), Err(EIO));
        assert_eq!(direct(&file, 0, &mut memory), Ok(BLOCK as i64));
        Ok(())
    }

    /// The credentials in force when [`note_reader`] was last called.
    static READER: AtomicPtr<bindings::cred> = AtomicPtr::new(core::ptr::null_mut());

    unsafe extern "C" fn note_reader(
        _iocb: *mut bindings::kiocb,
        _to: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: No preconditions.
        READER.store(
            unsafe { bindings::kunit_current_cred() }.cast_mut(),
            CoreRelaxed,
        );
        0
    }

    #[test]
    fn reads_are_judged_by_the_credentials_of_the_opener() -> Result {
        let dir = dir()?;
        let cred = NewCredential::kernel()?.into_credential();
        let write = dir.mount.want_write()?;
        let file = KernelFile::tmpfile(&write, &dir.dentry, &cred)?;
        drop(write);
        let raw = file.as_ptr();
        let spy = bindings::file_operations {
            read_iter: Some(note_reader),
            ..Default::default()
        };
        // SAFETY: The file is valid, and nobody else knows of it.
        let ops = unsafe {
            (*raw).f_mode |= bindings::FMODE_NOWAIT;
            core::mem::replace(&mut (*raw).f_op, &spy)
        };
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut readers = [core::ptr::null_mut(); 2];
        let cached =
            dest(&mut memory).and_then(|mut to| file.clone().begin_read().read_cached(0, &mut to));
        readers[0] = READER.swap(core::ptr::null_mut(), CoreRelaxed);
        let read = direct(&file, 0, &mut memory);
        readers[1] = READER.swap(core::ptr::null_mut(), CoreRelaxed);
        // SAFETY: As above.
        unsafe { (*raw).f_op = ops };
        assert_eq!((cached, read), (Ok(0), Ok(0)));
        assert!(readers
            .iter()
            .all(|reader| reader.cast_const() == cred.as_ptr()));
        // And the task has its own again.
        // SAFETY: No preconditions.
        assert!(unsafe { bindings::kunit_current_cred() } != cred.as_ptr());
        Ok(())
    }

    #[test]
    fn page_cache_tells_what_is_not_on_the_disk() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        let page = PAGE_SIZE as i64;
        assert!(file.is_clean() && !file.is_dirty(0..2 * page));
        fill(&file, page, PAGE_SIZE, b'a')?;
        assert!(!file.is_clean());
        assert!(file.is_dirty(0..2 * page) && !file.is_dirty(0..page));
        assert!(file.is_in_dirty_page(page..2 * page));
        // Not a page of its own, or none.
        assert!(!file.is_in_dirty_page(page..3 * page));
        assert!(!file.is_in_dirty_page(0..page));
        file.write_and_wait()?;
        assert!(file.is_clean() && !file.is_dirty(0..2 * page));
        assert!(!file.is_in_dirty_page(page..2 * page));
        Ok(())
    }

    #[test]
    fn writing_leaves_the_time_of_the_change_alone() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        file.truncate(4 * BLOCK as i64)?;
        let inode = file.inode();
        let before = inode.note_change_time();
        assert_eq!(inode.change_time(), before);
        fill(&file, 0, BLOCK, b'a')?;
        file.write_and_wait()?;
        assert_eq!(inode.change_time(), before);
        // What changes it, however soon, does not.
        for size in [3, 2, 1] {
            let before = inode.note_change_time();
            file.truncate(size * BLOCK as i64)?;
            assert!(inode.change_time() != before);
        }
        Ok(())
    }
}
