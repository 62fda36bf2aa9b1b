// SPDX-License-Identifier: GPL-2.0

//! Reading a file: from the page cache, or past it.

use super::{
    io_result,
    is_range,
    KernelFile, //
};
use crate::{
    bindings,
    kernel_next::{
        cred::with_cred,
        errseq::ErrSeq,
        iov::KernelIter, //
    }, //
};
use kernel::{
    iov::IovIterDest,
    prelude::*,
    sync::{
        aref::ARef,
        Refcount, //
    }, //
};

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

/// A read of a file. What it finds is what was written to the page cache, whatever comes of writing
/// that back while the read is under way.
///
/// Whoever reads, it is done with the credentials that the file was opened with. The security
/// module was asked about those when it was opened, and is not asked again for each read: the file
/// is the kernel's, like that of a loop device, and no task has it. Nor is fsnotify told.
///
/// # Examples
///
/// ```
/// use kernel::{
///     errseq::ErrSeq,
///     fs::kernel_file::{
///         FileRead,
///         KernelFile, //
///     },
///     iov::KernelIter,
///     prelude::*, //
/// };
///
/// /// Reads what is in memory, and then the rest from the disk. `done` is told how many bytes that
/// /// was in the end; it may be called in an interrupt.
/// fn read(
///     file: KernelFile,
///     since: ErrSeq,
///     mut to: KernelIter,
///     done: impl FnOnce(Result<usize>) + Send + 'static,
/// ) {
///     let read: FileRead = file.begin_read(since);
///     let cached = match read.read_cached(0, &mut to) {
///         Ok(cached) if !to.is_empty() => cached,
///         all => return done(all),
///     };
///     // CAST: A length in a file.
///     let pos = cached as i64;
///     let end = move |rest: Result<usize>| done(rest.map(|rest| cached + rest));
///     if let Err((error, end)) = read.read_direct(pos, to, |_, _| {}, end) {
///         end(Err(error));
///     }
/// }
/// ```
#[must_use = "nothing is read before it is asked for"]
pub(crate) struct FileRead {
    file: KernelFile,
    /// When the read began: others may take note of an error that this one has to know of.
    errors_since: ErrSeq,
}

impl FileRead {
    #[inline]
    pub(super) fn new(file: KernelFile, errors_since: ErrSeq) -> Self {
        FileRead { file, errors_since }
    }

    /// What is read.
    #[inline]
    pub(crate) fn file(&self) -> &KernelFile {
        &self.file
    }

    /// As [`KernelFile::check_write_errors`], since what the read began with. Does not sleep.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if something was lost.
    pub(crate) fn check(&self) -> Result {
        self.file.check_write_errors(self.errors_since)
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
        let read = io_result(ret)?;
        // What was to be written to the disk and was not is not what was read.
        self.check().map_err(|_| EIO)?;
        Ok(read)
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
    /// If the read fails, `failed` is called before `done`, once, with the file, which may be gone
    /// when `done` is called, and the error. What holds for `done` holds for it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, without `failed` or `done` having been called; `done` is given back. All others go
    /// to both, also `EIO` if what is on the disk is not all that was written to the page cache.
    pub(crate) fn read_direct<F, W>(
        self,
        pos: i64,
        to: KernelIter,
        failed: W,
        done: F,
    ) -> core::result::Result<(), (Error, F)>
    where
        F: FnOnce(Result<usize>) + Send + 'static,
        W: Fn(&KernelFile, Error) + Send + 'static,
    {
        let mut flags = 0;
        if self.file.mode_has(bindings::FMODE_CAN_ODIRECT) {
            // CAST: Flags fit.
            flags |= bindings::IOCB_DIRECT as c_int;
        }
        let Ok(this) = KBox::<DirectRead<F, W>>::new_uninit(GFP_KERNEL) else {
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
                    ki_complete: Some(DirectRead::<F, W>::complete),
                    ki_flags: flags,
                    // SAFETY: No preconditions.
                    ki_ioprio: unsafe { bindings::get_current_ioprio() },
                    ..Default::default()
                },
                refs: Refcount::new(2),
                read: self,
                to,
                failed,
                done: Some(done),
            },
        ));
        // SAFETY: The request owns a reference to the file, and the iterator, a destination that is
        // not user memory. They, and the request, live until its last reference is put: the
        // submitter's is, below. The exclusive reference that is made on the way to the iterator is
        // to that member alone, and gone before the call. The caller may sleep.
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
            let result = this.result(ret);
            // Whoever is told may let go of the last thing that keeps the module: nothing is left
            // to be done by then but to return.
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
struct DirectRead<F, W> {
    iocb: bindings::kiocb,
    /// One for whoever submits, one for the completion: what is submitted may be complete, and
    /// freed, before the function that submitted it returns.
    refs: Refcount,
    /// Keeps the file that `iocb` is for.
    read: FileRead,
    to: KernelIter,
    /// Only called by whoever completes this.
    failed: W,
    done: Option<F>,
}

impl<F, W> DirectRead<F, W>
where
    F: FnOnce(Result<usize>) + Send,
    W: Fn(&KernelFile, Error) + Send,
{
    /// What is to be told of the read, which has ended with `ret`.
    fn result(&self, ret: isize) -> Result<usize> {
        self.read
            .result(ret)
            .inspect_err(|e| (self.failed)(&self.read.file, *e))
    }

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
        // which happens once, owns a reference, which keeps it valid. These members do not change;
        // no reference is made to the others, which the kernel and this have.
        let result = unsafe {
            let (read, failed) = (&(*this).read, &(*this).failed);
            read.result(ret).inspect_err(|e| failed(&read.file, *e))
        };
        // SAFETY: As above; nobody but the completion touches this member.
        let done = unsafe { (*this).done.take() };
        // SAFETY: As above; the whole comes from `FileRead::read_direct`. This gives the reference
        // up.
        unsafe { Self::put(this) };
        if let Some(done) = done {
            // Whoever is told may let go of the last thing that keeps the module. What is left
            // after that is to return, as in C: the end of an interrupt is waited for when a module
            // is freed, that of a task that was preempted here is not.
            done(result);
        }
    }
}

#[kunit_tests(rust_file_read)]
mod tests {
    use super::{
        super::tests::{
            dir,
            file,
            file_in,
            fill,
            set_error,
            BLOCK, //
        },
        *, //
    };
    use crate::kernel_next::{
        cred::NewCredential,
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
    use kernel::sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    };

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

    fn begin(file: &KernelFile) -> FileRead {
        file.clone().begin_read(file.sample_write_errors())
    }

    /// Takes note of all errors until now.
    fn forget_write_errors(file: &KernelFile) {
        let _told = file.check_and_advance_write_errors(&mut file.sample_write_errors());
    }

    /// Reads directly; returns what was told, or an error if that was not once.
    fn direct(file: &KernelFile, pos: i64, memory: &mut Memory) -> Result<i64> {
        finish_direct(begin(&file), pos, memory)
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
        read.read_direct(pos, to, |_: &KernelFile, _| {}, done)
            .map_err(|(e, _)| e)?;
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
        let read = begin(&file);
        drop(file);
        read.read_direct(0, to, |_: &KernelFile, _| {}, done)
            .map_err(|(e, _)| e)?;
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
        assert_eq!(begin(&file).read_cached(0, &mut to), Ok(100));
        assert_eq!(to.len(), BLOCK - 100);
        assert_eq!(begin(&file).read_cached(100, &mut to), Ok(0));
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
        assert_eq!(begin(&file).read_cached(0, &mut to), Ok(0));
        assert_eq!(to.len(), BLOCK);
        assert!(memory.bytes().iter().all(|byte| *byte == b'?'));
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
    fn write_errors_that_are_forgotten_fail_nothing_more() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        fill(&file, 0, BLOCK, b'a')?;
        file.write_and_wait()?;
        set_error(&file);
        forget_write_errors(&file);
        let mut memory = Memory::new(BLOCK, b'?')?;
        assert_eq!(direct(&file, 0, &mut memory), Ok(BLOCK as i64));
        set_error(&file);
        forget_write_errors(&file);
        assert_eq!(file.write_and_wait(), Ok(()));
        Ok(())
    }

    #[test]
    fn reads_fail_that_began_before_data_was_lost() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        fill(&file, 0, BLOCK, b'a')?;
        file.write_and_wait()?;
        let (first, second) = (begin(&file), begin(&file));
        set_error(&file);
        // Somebody else is told of the error, and has all fetched anew.
        forget_write_errors(&file);
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
        let write = dir.mount().want_write()?;
        let file = KernelFile::tmpfile(&write, &dir, &cred)?;
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
        let cached = dest(&mut memory).and_then(|mut to| begin(&file).read_cached(0, &mut to));
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
}
