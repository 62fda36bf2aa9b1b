// SPDX-License-Identifier: GPL-2.0

//! Files that the kernel opens for itself: opening, reading, writing, asking.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use super::{
    dentry::Dentry,
    inode::Inode,
    path::{
        idmap,
        Mount,
        WriteAccess, //
    }, //
};
use crate::{
    bindings,
    kernel_next::iov::KernelIter, //
};
use core::ptr::NonNull;
use kernel::{
    cred::Credential,
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    iov::IovIterSource,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Refcount, //
    }, //
};

/// Reading and writing, with 64-bit offsets. Not `O_DIRECT`: that is decided for each request.
// CAST: Flags fit.
const OPEN_FLAGS: c_int = (bindings::O_RDWR | bindings::O_LARGEFILE) as c_int;

/// # Safety
///
/// `ptr` must be null or a file that was just opened, to which the caller owns a reference, which
/// it gives up.
unsafe fn owned(ptr: *mut bindings::file) -> Result<ARef<File>> {
    let ptr = NonNull::new(ptr).ok_or(ENOENT)?;
    // SAFETY: As the caller guarantees; nobody can have begun to use the position of a file that
    // was just opened. `File` is a transparent wrapper.
    Ok(unsafe { ARef::from_raw(ptr.cast()) })
}

fn with_iter_ops(file: ARef<File>) -> Result<ARef<File>> {
    // SAFETY: The file is valid, and so are its operations.
    let op = unsafe { &*(*file.as_ptr()).f_op };
    if op.read_iter.is_none() || op.write_iter.is_none() {
        return Err(EINVAL);
    }
    Ok(file)
}

/// Opens a regular file.
///
/// # Errors
///
/// `EINVAL` if the file system cannot do kernel I/O; what opening says.
pub(crate) fn open(mount: &Mount, dentry: &Dentry, cred: &Credential) -> Result<ARef<File>> {
    if !dentry.is_regular() || !mount.holds(dentry) {
        return Err(EINVAL);
    }
    let path = mount.path_of(dentry);
    // SAFETY: All are valid, and the dentry is a file on the mount.
    let file = unsafe { bindings::kernel_file_open(&path, OPEN_FLAGS, cred.as_ptr()) };
    // SAFETY: The function opens a file, or returns an error.
    with_iter_ops(unsafe { owned(from_err_ptr(file)?) }?)
}

/// Creates a regular file without a name, on the file system of `dir`.
///
/// # Errors
///
/// `EINVAL` if the file system cannot do kernel I/O; what creating says.
pub(crate) fn tmpfile(
    write: &WriteAccess<'_>,
    dir: &Dentry,
    cred: &Credential,
) -> Result<ARef<File>> {
    if !dir.can_lookup() || !write.mount().holds(dir) {
        return Err(ENOTDIR);
    }
    let path = write.mount().path_of(dir);
    // CAST: A mode fits.
    let mode = (bindings::S_IFREG | 0o600) as bindings::umode_t;
    // SAFETY: All are valid, and the dentry is a directory on the mount.
    let file =
        unsafe { bindings::kernel_tmpfile_open(idmap(), &path, mode, OPEN_FLAGS, cred.as_ptr()) };
    // SAFETY: The function opens a file, or returns an error.
    with_iter_ops(unsafe { owned(from_err_ptr(file)?) }?)
}

/// The file's inode.
pub(crate) fn inode(file: &File) -> &Inode {
    // SAFETY: The file is valid, and keeps its inode.
    unsafe { Inode::from_raw(bindings::file_inode(file.as_ptr())) }
}

/// The file's dentry.
pub(crate) fn dentry(file: &File) -> &Dentry {
    // SAFETY: The file is valid, and keeps its path.
    unsafe { Dentry::from_raw((*file.as_ptr()).__bindgen_anon_1.f_path.dentry) }
}

/// Writes the file's data out and waits for that.
pub(crate) fn write_and_wait(file: &File) -> Result {
    // SAFETY: The file is valid, and keeps its mapping. The caller may sleep.
    to_result(unsafe {
        bindings::filemap_write_and_wait_range((*file.as_ptr()).f_mapping, 0, i64::MAX)
    })
}

/// Sets the size in bytes.
pub(crate) fn truncate(file: &File, size: i64) -> Result {
    // SAFETY: The file is valid, and keeps its path.
    let path = unsafe { core::ptr::addr_of!((*file.as_ptr()).__bindgen_anon_1.f_path) };
    // SAFETY: The path is valid.
    to_result(unsafe { bindings::vfs_truncate(path, size) })
}

/// Notes that the file is used: culling goes by that.
pub(crate) fn touch_atime(file: &File) {
    // SAFETY: The file is valid, and keeps its path.
    unsafe {
        bindings::touch_atime(core::ptr::addr_of!(
            (*file.as_ptr()).__bindgen_anon_1.f_path
        ))
    };
}

/// Which of the two to look for.
#[derive(Clone, Copy)]
pub(crate) enum Seek {
    Data,
    Hole,
}

/// The offset of the next data or hole at `from` or after it.
///
/// # Errors
///
/// `ENXIO` if there is none.
pub(crate) fn seek(file: &File, from: i64, what: Seek) -> Result<i64> {
    let whence = match what {
        Seek::Data => bindings::SEEK_DATA,
        Seek::Hole => bindings::SEEK_HOLE,
    };
    // SAFETY: The file is valid. These seeks are questions: that they also move the file's
    // position, which nobody uses, does not matter. CAST: 3 or 4.
    let ret = unsafe { bindings::vfs_llseek(file.as_ptr(), from, whence as c_int) };
    // CAST: Negative values are error numbers, which fit.
    to_result(ret.min(0) as c_int)?;
    Ok(ret)
}

/// Writes through the page cache; blocks until it is done. Returns how many bytes were written.
pub(crate) fn write(file: &File, mut pos: i64, from: &mut IovIterSource<'_>) -> Result<usize> {
    // SAFETY: The file and the iterator are valid, and the caller may sleep.
    let ret = unsafe { bindings::vfs_iter_write(file.as_ptr(), from.as_raw(), &mut pos, 0) };
    // CAST: Negative values are error numbers, which fit.
    to_result(ret.min(0) as c_int)?;
    Ok(ret.unsigned_abs())
}

/// A moment in the history of a file's write-back errors.
pub(crate) struct WriteErrors(Atomic<bindings::errseq_t>);

impl WriteErrors {
    /// Now; but an error that nobody took note of yet counts as one since then.
    pub(crate) fn sample(file: &File) -> Self {
        // SAFETY: The file is valid, and keeps its mapping.
        let now = unsafe { bindings::filemap_sample_wb_err((*file.as_ptr()).f_mapping) };
        WriteErrors(Atomic::new(now))
    }

    /// Whether something that was written to the page cache since then was lost on its way to the
    /// disk.
    pub(crate) fn check(&self, file: &File) -> Result {
        let since = self.0.load(Relaxed);
        // SAFETY: The file is valid, and keeps its mapping.
        to_result(unsafe { bindings::filemap_check_wb_err((*file.as_ptr()).f_mapping, since) })
    }

    /// Takes note of all errors until now.
    pub(crate) fn advance(&self, file: &File) {
        let mut since = self.0.load(Relaxed);
        // An error that nobody took note of would be seen by the next sample, too; this marks it.
        // SAFETY: The file is valid, and keeps its mapping. The function is atomic.
        unsafe {
            bindings::errseq_check_and_advance(
                core::ptr::addr_of_mut!((*(*file.as_ptr()).f_mapping).wb_err),
                &mut since,
            )
        };
        self.0.store(since, Relaxed);
    }
}

fn mode_has(file: &File, mode: bindings::fmode_t) -> bool {
    // SAFETY: The file is valid, and its mode does not change.
    unsafe { (*file.as_ptr()).f_mode & mode != 0 }
}

/// Reads what the page cache has of `to`, without waiting for a disk. Returns how many bytes that
/// was; `to` goes on after them.
///
/// # Errors
///
/// `EIO` if `to` went on otherwise.
pub(crate) fn read_cached(file: &File, pos: i64, to: &mut KernelIter) -> Result<usize> {
    if !mode_has(file, bindings::FMODE_NOWAIT) {
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
    // SAFETY: The file, the request and the iterator are valid, and without a completion function
    // the request is done when the function returns.
    let ret = unsafe { bindings::vfs_iocb_iter_read(file.as_ptr(), &mut iocb, to.as_raw()) };
    // An error, like EAGAIN, is as good as nothing: whoever goes on will see it again.
    let read = usize::try_from(ret).unwrap_or(0);
    if before - to.len() == read {
        Ok(read)
    } else {
        Err(EIO)
    }
}

/// A read under way.
///
/// # Invariants
///
/// `iocb` is the first member, so that a pointer to it is one to the whole.
#[repr(C)]
struct DirectRead<F> {
    iocb: bindings::kiocb,
    /// One for whoever submits, one for the completion: what is submitted may be complete, and
    /// freed, before the function that submitted it returns.
    refs: Refcount,
    file: ARef<File>,
    to: KernelIter,
    done: Option<F>,
}

impl<F: FnOnce(Result<usize>) + Send> DirectRead<F> {
    /// # Safety
    ///
    /// `this` must come from [`read_direct`], and the caller gives up one of its two references.
    unsafe fn put(this: *mut Self) {
        // SAFETY: The caller's reference keeps it valid.
        if unsafe { (*this).refs.dec_and_test() } {
            // SAFETY: It came from `KBox::into_raw`, and this was the last reference.
            drop(unsafe { KBox::from_raw(this) });
        }
    }

    /// # Safety
    ///
    /// As for [`Self::put`]; and only once, by whoever completes the request.
    unsafe fn finish(this: *mut Self, ret: isize) {
        // Nobody can restart the system call: other parts of it may be under way.
        let restart = [
            ERESTARTSYS,
            ERESTARTNOINTR,
            ERESTARTNOHAND,
            ERESTART_RESTARTBLOCK,
        ];
        let ret = match restart.iter().any(|e| e.to_errno() as isize == ret) {
            true => EINTR.to_errno() as isize,
            false => ret,
        };
        // SAFETY: Only the completion, which happens once, touches this member.
        let done = unsafe { (*this).done.take() };
        // CAST: Negative values are error numbers, which fit.
        let result = to_result(ret.min(0) as c_int).map(|()| ret.unsigned_abs());
        // SAFETY: As the caller guarantees.
        unsafe { Self::put(this) };
        if let Some(done) = done {
            done(result);
        }
    }

    /// # Safety
    ///
    /// `iocb` must be a request that [`read_direct`] submitted, and this its only completion.
    unsafe extern "C" fn complete(iocb: *mut bindings::kiocb, ret: c_long) {
        // SAFETY: By the invariant of the type it is also a pointer to the whole. The completion
        // owns a reference.
        unsafe { Self::finish(iocb.cast(), ret) };
    }
}

/// Reads without going through the page cache where the file system can do that. What is left of the
/// destination behind the end of the file may have been overwritten.
///
/// `done` is called exactly once, perhaps before this function returns, and in any context, also
/// in an interrupt: it and what it owns must neither sleep nor fault.
///
/// # Errors
///
/// `ENOMEM`, without `done` having been called; it is given back.
pub(crate) fn read_direct<F>(
    file: ARef<File>,
    pos: i64,
    to: KernelIter,
    done: F,
) -> core::result::Result<(), (Error, F)>
where
    F: FnOnce(Result<usize>) + Send + 'static,
{
    let mut flags = 0;
    if mode_has(&file, bindings::FMODE_CAN_ODIRECT) {
        // CAST: Flags fit.
        flags |= bindings::IOCB_DIRECT as c_int;
    }
    let Ok(this) = KBox::<DirectRead<F>>::new_uninit(GFP_KERNEL) else {
        return Err((ENOMEM, done));
    };
    let raw = file.as_ptr();
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
            file,
            to,
            done: Some(done),
        },
    ));
    // SAFETY: The request owns a reference to the file and the iterator, and both live until the
    // last reference to it is put: the submitter's, below.
    let ret = unsafe {
        bindings::vfs_iocb_iter_read(
            raw,
            core::ptr::addr_of_mut!((*this).iocb),
            (*this).to.as_raw(),
        )
    };
    // CAST: An error number.
    if ret != -(bindings::EIOCBQUEUED as isize) {
        // SAFETY: It was not queued, so this is the only completion.
        unsafe { DirectRead::finish(this, ret) };
    }
    // SAFETY: The submitter's reference.
    unsafe { DirectRead::put(this) };
    Ok(())
}

#[kunit_tests(rust_backing)]
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
        kunit::support::{
            self,
            Count,
            Memory, //
        },
        sync::completion::Completion, //
    };
    use kernel::sync::Arc;

    const BLOCK: usize = 4096;

    fn dir() -> Result<Path> {
        support::scratch_on_disk(b"kunit-backing")
    }

    fn file() -> Result<ARef<File>> {
        let dir = dir()?;
        let write = dir.mount.want_write()?;
        tmpfile(&write, &dir.dentry, &NewCredential::kernel()?.commit())
    }

    fn fill(file: &File, pos: i64, len: usize, byte: u8) -> Result<usize> {
        let mut memory = Memory::new(len, byte)?;
        let mut raw = memory.iter(bindings::ITER_SOURCE);
        // SAFETY: The iterator is a source, and valid for the call.
        write(file, pos, unsafe { IovIterSource::from_raw(&mut raw) })
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
    fn direct(file: &ARef<File>, pos: i64, memory: &mut Memory) -> Result<i64> {
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
        read_direct(file.clone(), pos, to, done).map_err(|(e, _)| e)?;
        // The memory is in use until then.
        let timeout = kernel::time::msecs_to_jiffies(60_000);
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
        assert_eq!(inode(&file).size(), 0);
        assert!(dentry(&file).is_regular());
        assert_eq!(seek(&file, 0, Seek::Data), Err(ENXIO));
        assert_eq!(seek(&file, 0, Seek::Hole), Err(ENXIO));
        Ok(())
    }

    #[test]
    fn tmpfile_needs_a_directory_of_the_mount() -> Result {
        let dir = dir()?;
        let tmp = Path::lookup_dir(c"/tmp")?;
        let write = dir.mount.want_write()?;
        let cred = NewCredential::kernel()?.commit();
        let made = tmpfile(&write, &tmp.dentry, &cred);
        assert_eq!(made.err(), Some(ENOTDIR));
        let leaf = tmpfile(&write, &dir.dentry, &cred)?;
        let made = tmpfile(&write, dentry(&leaf), &cred);
        assert_eq!(made.err(), Some(ENOTDIR));
        Ok(())
    }

    #[test]
    fn open_is_for_regular_files_of_the_mount() -> Result {
        let dir = dir()?;
        let tmp = Path::lookup_dir(c"/tmp")?;
        let cred = NewCredential::kernel()?.commit();
        assert_eq!(open(&dir.mount, &dir.dentry, &cred).err(), Some(EINVAL));
        let made = file()?;
        fill(&made, 0, 5, b'x')?;
        let write = dir.mount.want_write()?;
        Creating::start(&dir.dentry, b"open", &write)?.link(&made)?;
        let named = lookup_positive(&dir.dentry, b"open")?;
        let opened = open(&dir.mount, &named, &cred)?;
        assert!(core::ptr::eq(inode(&opened), inode(&made)));
        assert_eq!(inode(&opened).size(), 5);
        assert!(core::ptr::eq(opened.cred().as_ptr(), cred.as_ptr()));
        assert_eq!(open(&tmp.mount, &named, &cred).err(), Some(EINVAL));
        Removing::start(&dir.dentry, b"open", &write)?.unlink()?;
        Ok(())
    }

    #[test]
    fn what_was_written_is_read_back() -> Result {
        let file = file()?;
        assert_eq!(fill(&file, 0, BLOCK, b'a'), Ok(BLOCK));
        // A hole, then data.
        assert_eq!(fill(&file, 2 * BLOCK as i64, BLOCK, b'c'), Ok(BLOCK));
        assert_eq!(inode(&file).size(), 3 * BLOCK as i64);
        write_and_wait(&file)?;
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
        write_and_wait(&file)?;
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
    fn direct_read_keeps_the_file() -> Result {
        let file = file()?;
        fill(&file, 0, BLOCK, b'a')?;
        write_and_wait(&file)?;
        let told = Count::new()?;
        let theirs = told.clone();
        let mut memory = Memory::new(BLOCK, b'?')?;
        let done = move |_: Result<usize>| theirs.add();
        let to = dest(&mut memory)?;
        // The only reference goes with the read.
        read_direct(file, 0, to, done).map_err(|(e, _)| e)?;
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
        let file = file()?;
        fill(&file, 0, 100, b'a')?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut to = dest(&mut memory)?;
        assert_eq!(read_cached(&file, 0, &mut to), Ok(100));
        assert_eq!(to.len(), BLOCK - 100);
        assert_eq!(read_cached(&file, 100, &mut to), Ok(0));
        assert!(memory.bytes()[..100].iter().all(|byte| *byte == b'a'));
        assert!(memory.bytes()[100..].iter().all(|byte| *byte == b'?'));
        Ok(())
    }

    #[test]
    fn page_cache_does_not_go_to_the_disk() -> Result {
        let file = file()?;
        // Nothing was ever read or written there.
        truncate(&file, 4 * BLOCK as i64)?;
        assert_eq!(inode(&file).size(), 4 * BLOCK as i64);
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut to = dest(&mut memory)?;
        assert_eq!(read_cached(&file, 0, &mut to), Ok(0));
        assert_eq!(to.len(), BLOCK);
        assert!(memory.bytes().iter().all(|byte| *byte == b'?'));
        Ok(())
    }

    #[test]
    fn seek_tells_data_from_holes() -> Result {
        let file = file()?;
        truncate(&file, 8 * BLOCK as i64)?;
        fill(&file, 4 * BLOCK as i64, BLOCK, b'd')?;
        write_and_wait(&file)?;
        let block = BLOCK as i64;
        assert_eq!(seek(&file, 0, Seek::Data), Ok(4 * block));
        assert_eq!(seek(&file, 0, Seek::Hole), Ok(0));
        assert_eq!(seek(&file, 4 * block, Seek::Hole), Ok(5 * block));
        assert_eq!(seek(&file, 5 * block, Seek::Data), Err(ENXIO));
        assert_eq!(seek(&file, 8 * block, Seek::Hole), Err(ENXIO));
        Ok(())
    }

    #[test]
    fn truncate_cuts_and_extends() -> Result {
        let file = file()?;
        fill(&file, 0, 2 * BLOCK, b'a')?;
        truncate(&file, 1)?;
        assert_eq!(inode(&file).size(), 1);
        truncate(&file, BLOCK as i64)?;
        write_and_wait(&file)?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        assert_eq!(direct(&file, 0, &mut memory), Ok(BLOCK as i64));
        assert_eq!(memory.bytes()[0], b'a');
        assert!(memory.bytes()[1..].iter().all(|byte| *byte == 0));
        assert_eq!(truncate(&file, -1), Err(EINVAL));
        Ok(())
    }

    #[test]
    fn write_errors_since_a_moment_are_told() -> Result {
        let file = file()?;
        let errors = WriteErrors::sample(&file);
        assert_eq!(errors.check(&file), Ok(()));
        // SAFETY: The file is valid, and keeps its mapping.
        let fail = || unsafe {
            bindings::__filemap_set_wb_err((*file.as_ptr()).f_mapping, EIO.to_errno());
        };
        for _ in 0..2 {
            fail();
            assert_eq!(errors.check(&file), Err(EIO));
            // Until it is taken note of.
            assert_eq!(errors.check(&file), Err(EIO));
            errors.advance(&file);
            assert_eq!(errors.check(&file), Ok(()));
        }
        // What is known to nobody is not lost to those who come later.
        fail();
        let late = WriteErrors::sample(&file);
        assert_eq!(late.check(&file), Err(EIO));
        late.advance(&file);
        assert_eq!(late.check(&file), Ok(()));
        assert_eq!(WriteErrors::sample(&file).check(&file), Ok(()));
        // Each takes note for himself.
        assert_eq!(errors.check(&file), Err(EIO));
        Ok(())
    }
}
