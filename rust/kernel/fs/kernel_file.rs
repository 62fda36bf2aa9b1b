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
//!     let write = dir.mount().want_write()?;
//!     let file = KernelFile::tmpfile(&write, dir, cred)?;
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

mod read;
mod write;

pub(crate) use self::read::FileRead;

use super::{
    dentry::Dentry,
    inode::Inode,
    path::{
        Path,
        WriteAccess, //
    }, //
};
use crate::{
    bindings,
    kernel_next::errseq::ErrSeq, //
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
    iov::IovIterSource,
    prelude::*,
    sync::aref::ARef, //
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
/// A clone is the same open file. Neither cloning nor dropping one sleeps, and both may be done in
/// any context.
///
/// # Invariants
///
/// The file is a regular one that was opened for the kernel, for reading and writing, and has
/// operations for both that take iterators.
#[derive(Clone)]
#[must_use = "the file is closed immediately when it is unused"]
pub(crate) struct KernelFile(ARef<File>);

/// What file systems take for granted of what is read or written.
fn is_range(pos: i64, len: usize) -> bool {
    pos >= 0 && pos.checked_add_unsigned(len as u64).is_some()
}

/// What is to be told of a request that completed with `ret`: how many bytes were transferred, or
/// the error.
fn io_result(ret: isize) -> Result<usize> {
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
    Ok(ret.unsigned_abs())
}

impl KernelFile {
    /// # Errors
    ///
    /// `ENOENT` if `ptr` is null, `EINVAL` if the file system cannot do kernel I/O.
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
        // INVARIANT: As the caller guarantees, and as was just seen.
        Ok(KernelFile(file))
    }

    /// Opens a regular file for reading and writing. What is done with the file later is done with
    /// `cred`. Neither the permissions of the file are looked at nor whether it is immutable: that
    /// is up to the caller. Only the security module is asked, about `cred`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `path` is no regular file, or if the file system cannot do kernel I/O; `EROFS`
    /// if the mount is read-only; what opening says.
    pub(crate) fn open(path: &Path, cred: &Credential) -> Result<Self> {
        if !path.dentry().is_regular() {
            return Err(EINVAL);
        }
        // SAFETY: The path is valid, its dentry is positive, the credentials are valid, and the
        // caller may sleep.
        let file = unsafe { bindings::kernel_file_open(path.as_ptr(), OPEN_FLAGS, cred.as_ptr()) };
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
    /// `ENOTDIR` if `dir` is no directory; `EXDEV` if `write` is for another mount; `EOPNOTSUPP` if
    /// the file system has no such files; `EINVAL` if it cannot do kernel I/O; what creating says.
    pub(crate) fn tmpfile(write: &WriteAccess<'_>, dir: &Path, cred: &Credential) -> Result<Self> {
        if !dir.dentry().can_lookup() {
            return Err(ENOTDIR);
        }
        write.check(dir)?;
        // CAST: A mode fits.
        let mode = (bindings::S_IFREG | 0o600) as bindings::umode_t;
        // SAFETY: The mount's mapping and the credentials are valid, the path is valid and a
        // directory, write access is held, and the caller may sleep.
        let file = unsafe {
            bindings::kernel_tmpfile_open(
                dir.mount().idmap(),
                dir.as_ptr(),
                mode,
                OPEN_FLAGS,
                cred.as_ptr(),
            )
        };
        // SAFETY: The function returns a reference to a file that it opened with these flags, a
        // regular one by `mode`, or an error.
        unsafe { Self::just_opened(from_err_ptr(file)?) }
    }

    pub(in crate::kernel_next) fn as_ptr(&self) -> *mut bindings::file {
        self.0.as_ptr()
    }

    /// The file's inode. Does not sleep.
    #[inline]
    pub(crate) fn inode(&self) -> &Inode {
        // SAFETY: The file is valid, and keeps its inode and the mount, which has the superblock
        // active.
        unsafe { Inode::from_raw(bindings::file_inode(self.as_ptr())) }
    }

    /// The file's path. Does not sleep.
    #[inline]
    pub(crate) fn path(&self) -> &Path {
        // SAFETY: The file is valid. It was opened, so its path does not change any more, is of one
        // file system, and the file has references to both members.
        unsafe {
            Path::from_raw(core::ptr::addr_of!(
                (*self.as_ptr()).__bindgen_anon_1.f_path
            ))
        }
    }

    /// The file's dentry. Does not sleep.
    #[inline]
    pub(crate) fn dentry(&self) -> &Dentry {
        self.path().dentry()
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

    /// This moment in the history of errors in writing the file back. An error that nobody has
    /// taken note of yet counts as one that comes later. Does not sleep.
    ///
    /// The file has such a moment itself, but that moves on when a write syncs the file, and only
    /// whoever wrote is told then.
    pub(crate) fn sample_write_errors(&self) -> ErrSeq {
        // SAFETY: The file is valid, and keeps its mapping.
        ErrSeq::from_raw(unsafe { bindings::filemap_sample_wb_err((*self.as_ptr()).f_mapping) })
    }

    /// Checks that nothing that was written to the page cache was lost on its way to the disk since
    /// `since`. Does not sleep.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if something was.
    pub(crate) fn check_write_errors(&self, since: ErrSeq) -> Result {
        // SAFETY: The file is valid, and keeps its mapping.
        to_result(unsafe {
            bindings::filemap_check_wb_err((*self.as_ptr()).f_mapping, since.into_raw())
        })
    }

    /// As [`Self::check_write_errors`], and takes note of all errors until now: `since` becomes
    /// this moment, and neither the next who opens the file nor the next who waits for its data is
    /// told of them. Takes a spinlock of the file; does not sleep.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if something was lost since `since`.
    pub(crate) fn check_and_advance_write_errors(&self, since: &mut ErrSeq) -> Result {
        // An error that nobody took note of would be seen by the next who opens the file, too; this
        // marks it.
        // SAFETY: The file is valid, and keeps its mapping. The function is atomic as to the
        // mapping's value, and `since` is borrowed.
        let ret = unsafe {
            bindings::errseq_check_and_advance(
                core::ptr::addr_of_mut!((*(*self.as_ptr()).f_mapping).wb_err),
                since.as_raw(),
            )
        };
        // The mapping has flags besides, which the next who waits for the data to be written takes
        // for errors of his own: this clears them. An error that comes in between is not forgotten,
        // because `since` is from before.
        // SAFETY: The file is valid, and keeps its mapping.
        let _known = unsafe { bindings::file_check_and_advance_wb_err(self.as_ptr()) };
        to_result(ret)
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
        self.0.cred()
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

    /// Takes the data of `range`, in bytes, away: it reads as zeros then, and whole blocks of the
    /// file system in it are a hole. The size of the file does not change. Gets write access to the
    /// file system, so the task must not have it. The task's credentials decide, not those of the
    /// file.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range is empty or its start negative, `EFBIG` if it ends where no file does,
    /// `EOPNOTSUPP` if the file system cannot do that; what it and the security module say.
    pub(crate) fn punch_hole(&self, range: Range<i64>) -> Result {
        self.fallocate(bindings::FALLOC_FL_PUNCH_HOLE, range)
    }

    /// Makes zeros of `range`, in bytes, for which it then has room on the disk: to
    /// [`Self::seek`] they are data, or a hole, as the file system has it. All else is as for
    /// [`Self::punch_hole`].
    pub(crate) fn zero_range(&self, range: Range<i64>) -> Result {
        self.fallocate(bindings::FALLOC_FL_ZERO_RANGE, range)
    }

    fn fallocate(&self, mode: u32, range: Range<i64>) -> Result {
        let len = range.end.checked_sub(range.start).ok_or(EINVAL)?;
        // CAST: Flags fit.
        let mode = (mode | bindings::FALLOC_FL_KEEP_SIZE) as c_int;
        // SAFETY: The file is valid, and the caller may sleep, without write access to the file
        // system. The function checks the range.
        to_result(unsafe { bindings::vfs_fallocate(self.as_ptr(), mode, range.start, len) })
    }

    /// Writes the file out, with what describes it, as its size, and waits until all of it would be
    /// there after a loss of power.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if data was lost, now or since somebody who synced this open file was told
    /// of that last; what syncing says.
    pub(crate) fn sync(&self) -> Result {
        // SAFETY: The file is valid, and the caller may sleep.
        to_result(unsafe { bindings::vfs_fsync(self.as_ptr(), 0) })
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

    /// Reads up to `buf.len()` bytes at the offset `pos`, in bytes, through the page cache. Returns
    /// how many, which is less only at the end of the file. The security module is asked about the
    /// task's credentials.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `pos` is negative; what reading says.
    pub(crate) fn read_into(&self, mut pos: i64, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            // SAFETY: The file is valid and open for reading, the buffer is valid for writing so
            // many bytes, and the caller may sleep.
            let ret = unsafe {
                let (buf, len) = (rest.as_mut_ptr().cast(), rest.len());
                bindings::kernel_read(self.as_ptr(), buf, len, &mut pos)
            };
            match io_result(ret)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    /// Writes `bytes` to the offset `pos`, in bytes, through the page cache. Gets write access to
    /// the mount, so the task must not have it. As with any write, the security module is asked
    /// about the task's credentials, and who watches the file hears of it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `pos` is negative, `EIO` if nothing more is written; what writing says. Then it
    /// is not known how much was written.
    pub(crate) fn write_from(&self, mut pos: i64, bytes: &[u8]) -> Result {
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: The file is valid and open for writing, the bytes are valid, and the caller
            // may sleep and has no write access to the mount.
            let ret = unsafe {
                let (buf, len) = (rest.as_ptr().cast(), rest.len());
                bindings::kernel_write(self.as_ptr(), buf, len, &mut pos)
            };
            let written = io_result(ret)?;
            rest = rest.get(written..).filter(|_| written > 0).ok_or(EIO)?;
        }
        Ok(())
    }

    fn mode_has(&self, mode: bindings::fmode_t) -> bool {
        // SAFETY: The file is valid, and its mode does not change.
        unsafe { (*self.as_ptr()).f_mode & mode != 0 }
    }

    /// Begins a read, for which an error since `since` in writing back is one, even if others take
    /// note of it meanwhile. Comes before it is found out what there is to be read. Does not sleep.
    #[inline]
    pub(crate) fn begin_read(self, since: ErrSeq) -> FileRead {
        FileRead::new(self, since)
    }
}

#[kunit_tests(rust_kernel_file)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        compat::EOPNOTSUPP,
        cred::NewCredential,
        fs::{
            namei::{
                lookup_positive,
                Creating,
                Removing, //
            }, //
        },
        kunit::{
            scratch,
            support::Memory, //
        }, //
    };
    use kernel::page::PAGE_SIZE;

    pub(super) const BLOCK: usize = 4096;

    pub(super) fn dir() -> Result<Path> {
        scratch::dir(b"kunit-kernel-file")
    }

    pub(super) fn file() -> Result<KernelFile> {
        file_in(&dir()?)
    }

    pub(super) fn file_in(dir: &Path) -> Result<KernelFile> {
        let write = dir.mount().want_write()?;
        KernelFile::tmpfile(&write, dir, &NewCredential::kernel()?.into_credential())
    }

    pub(super) fn fill(file: &KernelFile, pos: i64, len: usize, byte: u8) -> Result<usize> {
        let mut memory = Memory::new(len, byte)?;
        let mut raw = memory.iter(bindings::ITER_SOURCE);
        // SAFETY: The iterator is a source, and valid for the call.
        file.write(pos, unsafe { IovIterSource::from_raw(&mut raw) })
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
    fn what_is_written_from_memory_is_read() -> Result {
        let file = file()?;
        file.write_from(BLOCK as i64 - 2, b"list")?;
        let mut buf = [0xff; 8];
        assert_eq!(file.read_into(BLOCK as i64 - 3, &mut buf), Ok(5));
        assert_eq!(buf, *b"\0list\xff\xff\xff");
        assert_eq!(file.read_into(2 * BLOCK as i64, &mut buf), Ok(0));
        assert_eq!(file.read_into(-1, &mut buf), Err(EINVAL));
        assert_eq!(file.write_from(-1, b"x"), Err(EINVAL));
        file.write_from(-1, b"")?;
        Ok(())
    }

    #[test]
    fn tmpfile_needs_a_directory_of_the_mount() -> Result {
        let dir = dir()?;
        let other = Path::lookup_dir(c"/")?;
        let write = dir.mount().want_write()?;
        let cred = NewCredential::kernel()?.into_credential();
        let made = KernelFile::tmpfile(&write, &other, &cred);
        assert_eq!(made.err(), Some(EXDEV));
        let leaf = KernelFile::tmpfile(&write, &dir, &cred)?;
        let made = KernelFile::tmpfile(&write, leaf.path(), &cred);
        assert_eq!(made.err(), Some(ENOTDIR));
        Ok(())
    }

    #[test]
    fn open_is_for_regular_files() -> Result {
        let dir = dir()?;
        let cred = NewCredential::kernel()?.into_credential();
        assert_eq!(KernelFile::open(&dir, &cred).err(), Some(EINVAL));
        let made = file()?;
        fill(&made, 0, 5, b'x')?;
        let write = dir.mount().want_write()?;
        Creating::start(&dir, b"open", &write)?.link(&made)?;
        let named = lookup_positive(&dir, b"open")?;
        let opened = KernelFile::open(&named, &cred)?;
        assert!(core::ptr::eq(opened.inode(), made.inode()));
        assert!(core::ptr::eq(opened.path().dentry(), named.dentry()));
        assert!(core::ptr::eq(opened.path().mount(), named.mount()));
        assert_eq!(opened.inode().size(), 5);
        assert!(core::ptr::eq(opened.0.cred().as_ptr(), cred.as_ptr()));
        Removing::start(&dir, b"open", &write)?.unlink()?;
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
    fn data_becomes_a_hole_or_zeros() -> Result {
        let page = PAGE_SIZE as i64;
        // A tmpfs cannot make zeros of a range.
        for dir in [scratch::dir_on_disk(b"kunit-kernel-file")?, dir()?] {
            let file = file_in(&dir)?;
            fill(&file, 0, 4 * PAGE_SIZE, b'd')?;
            file.write_and_wait()?;
            assert_eq!(file.punch_hole(page..2 * page), Ok(()));
            assert_eq!(file.seek(0, Seek::Hole), Ok(page));
            assert_eq!(file.seek(page, Seek::Data), Ok(2 * page));
            // Beyond the end, too, but the end stays.
            assert_eq!(file.punch_hole(3 * page..8 * page), Ok(()));
            assert_eq!(file.inode().size(), 4 * page);
            assert_eq!(file.seek(2 * page, Seek::Hole), Ok(3 * page));
            for range in [0..0, page..0, -1..page, i64::MIN..i64::MAX] {
                assert_eq!(file.punch_hole(range.clone()), Err(EINVAL));
                assert_eq!(file.zero_range(range), Err(EINVAL));
            }
            // A tmpfs has no limit.
            if dir.mount().max_file_size() < i64::MAX {
                assert_eq!(file.punch_hole(page..i64::MAX), Err(EFBIG));
            }
            match file.zero_range(2 * page..6 * page) {
                Err(e) if e == EOPNOTSUPP => continue,
                zeroed => assert_eq!(zeroed, Ok(())),
            }
            assert_eq!(file.inode().size(), 4 * page);
            let mut first = [b'?'; 1];
            // The data is gone, whatever is there now.
            assert_eq!(byte_at(&file, 2 * page, &mut first), Ok(1));
            assert_eq!(first, [0]);
            assert_eq!(byte_at(&file, 0, &mut first), Ok(1));
            assert_eq!(first, [b'd']);
        }
        Ok(())
    }

    /// Reads a byte.
    fn byte_at(file: &KernelFile, mut pos: i64, byte: &mut [u8; 1]) -> Result<isize> {
        // SAFETY: The file can be read from, and the memory is as long as said.
        let ret =
            unsafe { bindings::kernel_read(file.as_ptr(), byte.as_mut_ptr().cast(), 1, &mut pos) };
        Ok(ret)
    }

    #[test]
    fn syncing_leaves_nothing_to_be_written() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        fill(&file, 0, 3 * PAGE_SIZE, b'd')?;
        assert!(!file.is_clean());
        assert_eq!(file.sync(), Ok(()));
        assert!(file.is_clean());
        set_error(&file);
        assert_eq!(file.sync(), Err(EIO));
        // It was told.
        assert_eq!(file.sync(), Ok(()));
        Ok(())
    }

    #[test]
    fn write_errors_since_a_moment_are_told() -> Result {
        let file = file()?;
        let again = || KernelFile::open(file.path(), &NewCredential::kernel()?.into_credential());
        let mut since = file.sample_write_errors();
        assert_eq!(file.check_write_errors(since), Ok(()));
        // SAFETY: The file is valid, and keeps its mapping.
        let fail = || unsafe {
            bindings::__filemap_set_wb_err((*file.as_ptr()).f_mapping, EIO.to_errno());
        };
        for _ in 0..2 {
            fail();
            assert_eq!(file.check_write_errors(since), Err(EIO));
            // Until it is taken note of, which a clone may do.
            assert_eq!(file.check_write_errors(since), Err(EIO));
            let told = file.clone().check_and_advance_write_errors(&mut since);
            assert_eq!(told, Err(EIO));
            assert_eq!(file.check_write_errors(since), Ok(()));
        }
        // A read that began before knows it still.
        let read = file.clone().begin_read(since);
        fail();
        let told = file.check_and_advance_write_errors(&mut since);
        assert_eq!(told, Err(EIO));
        assert_eq!(file.check_write_errors(since), Ok(()));
        assert_eq!(read.check(), Err(EIO));
        assert_eq!(file.clone().begin_read(since).check(), Ok(()));
        // What is known to nobody is not lost to those who come later.
        fail();
        let late = again()?;
        let mut later = late.sample_write_errors();
        assert_eq!(late.check_write_errors(later), Err(EIO));
        let told = late.check_and_advance_write_errors(&mut later);
        assert_eq!(told, Err(EIO));
        assert_eq!(late.check_write_errors(later), Ok(()));
        let last = again()?;
        assert_eq!(last.check_write_errors(last.sample_write_errors()), Ok(()));
        // Each takes note for himself.
        assert_eq!(file.check_write_errors(since), Err(EIO));
        Ok(())
    }

    /// What a failure to write `file` back leaves behind, all of it.
    pub(super) fn set_error(file: &KernelFile) {
        // SAFETY: The file is valid, and keeps its mapping.
        unsafe {
            bindings::kunit_mapping_set_error((*file.as_ptr()).f_mapping, EIO.to_errno());
        }
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
