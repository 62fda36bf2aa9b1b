// SPDX-License-Identifier: GPL-2.0

//! Writing a file past the page cache.

use super::{
    io_result,
    is_range,
    KernelFile, //
};
use crate::{
    bindings,
    kernel_next::{
        cred::with_cred,
        iov::KernelSource,
        sched::nofs,
        workqueue::QueueHold, //
    }, //
};
use core::{
    cell::UnsafeCell,
    convert::Infallible, //
};
use kernel::{
    impl_has_work,
    new_work,
    prelude::*,
    sync::{
        Arc,
        UniqueArc, //
    },
    types::Opaque,
    workqueue::{
        Work,
        WorkItem, //
    }, //
};

/// As `vfs_iocb_iter_write()`, without what was seen to when the file was opened: it holds off a
/// freeze of the file system (`kiocb_start_write()`), and if the request was queued, that is left
/// to its completion to end.
///
/// # Safety
///
/// `iocb` must be a request for the file of a [`KernelFile`], and `from` a valid source that is not
/// user memory. `iocb` must be valid until this returns and the request is done, `from` until that
/// is done, which may be before this returns. The caller may sleep, and hold off no freeze itself.
unsafe fn call_write_iter(iocb: *mut bindings::kiocb, from: *mut bindings::iov_iter) -> isize {
    // SAFETY: Both are valid, and nobody else's, until they are submitted; so is the file, whose
    // operations are a constant of the code that it keeps.
    let (pos, len, op) = unsafe {
        (
            (*iocb).ki_pos,
            kernel::iov::IovIterSource::from_raw(from).len(),
            (*(*(*iocb).ki_filp).f_op).write_iter,
        )
    };
    if len == 0 {
        return 0;
    }
    let Some(write_iter) = op.filter(|_| is_range(pos, len)) else {
        return EINVAL.to_errno() as isize;
    };
    // SAFETY: By the invariant of the file it can be written to; as the caller guarantees. What was
    // not queued has no completion, so it is ended here.
    unsafe {
        bindings::kiocb_start_write(iocb);
        let ret = write_iter(iocb, from);
        // CAST: An error number.
        if ret != -(bindings::EIOCBQUEUED as isize) {
            bindings::kiocb_end_write(iocb);
        }
        ret
    }
}

impl KernelFile {
    /// Writes to the offset `pos`, in bytes, without going through the page cache where the file
    /// system can do that. It can if `pos` and the length are multiples of its block size;
    /// otherwise it may write through the page cache after all, and not at once to the disk. As
    /// reads are, it is done with the credentials that the file was opened with, and neither a
    /// security module nor who watches the file hears of it. Who has the file mapped or in the page
    /// cache may still see the old data.
    ///
    /// This may sleep, also for as long as the file system is frozen. So the task must not hold
    /// what whoever thaws it may wait for, nor have write access to the mount, nor hold the inode's
    /// lock.
    ///
    /// `done` is called exactly once, with the number of bytes that were written, which may be less
    /// than all, or the error. That may be before this function returns. It is called when the
    /// kernel is done with the memory of `from`, and when the write does not hold off a freeze any
    /// more. It may sleep, for a mutex or for memory, for which no file system is entered (see
    /// [`nofs`]). But it may run in the task that has this or another disk work, with locks of file
    /// systems held: neither `done` nor the drop of what it owns may wait for I/O or such a lock.
    /// Where the completion comes in a context that may not sleep, as in an interrupt, `done` is
    /// passed on to the queue that `hold` is for.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, without `done` having been called; it is given back. All others go to `done`:
    /// `EINVAL` if `pos` is negative, and what writing says.
    ///
    /// # Examples
    ///
    /// ```
    /// use kernel::{
    ///     fs::kernel_file::KernelFile,
    ///     iov::KernelSource,
    ///     prelude::*,
    ///     workqueue::ReclaimQueue, //
    /// };
    ///
    /// /// Writes a block. `done` is told whether all of it was written.
    /// fn write(
    ///     file: &KernelFile,
    ///     block: KernelSource,
    ///     queue: &ReclaimQueue,
    ///     done: impl FnOnce(Result) + Send + 'static,
    /// ) {
    ///     let len = block.len();
    ///     let end = move |written: Result<usize>| match written {
    ///         Ok(written) if written < len => done(Err(ENOSPC)),
    ///         written => done(written.map(|_| ())),
    ///     };
    ///     if let Err((error, end)) = file.write_direct(0, block, queue.hold(), end) {
    ///         end(Err(error));
    ///     }
    /// }
    /// ```
    pub(crate) fn write_direct<F>(
        &self,
        pos: i64,
        from: KernelSource,
        hold: QueueHold,
        done: F,
    ) -> core::result::Result<(), (Error, F)>
    where
        F: FnOnce(Result<usize>) + Send + 'static,
    {
        // CAST: Flags fit.
        let mut flags = bindings::IOCB_WRITE as c_int;
        if self.mode_has(bindings::FMODE_CAN_ODIRECT) {
            // CAST: Flags fit.
            flags |= bindings::IOCB_DIRECT as c_int;
        }
        let Ok(this) = UniqueArc::<DirectWrite<F>>::new_uninit(GFP_KERNEL) else {
            return Err((ENOMEM, done));
        };
        let iocb = bindings::kiocb {
            ki_filp: self.as_ptr(),
            ki_pos: pos,
            ki_complete: Some(DirectWrite::<F>::complete),
            ki_flags: flags,
            // SAFETY: No preconditions.
            ki_ioprio: unsafe { bindings::get_current_ioprio() },
            ..Default::default()
        };
        let Ok(this) = this.pin_init_with::<Infallible>(pin_init!(DirectWrite {
            iocb: Opaque::new(iocb),
            _file: self.clone(),
            from: UnsafeCell::new(from),
            ending: UnsafeCell::new(Ending {
                done: Some(done),
                hold: Some(hold),
                ret: 0,
            }),
            work <- new_work!("DirectWrite::work"),
        }));
        let this: Arc<DirectWrite<F>> = this.into();
        let for_completion = Arc::into_raw(this.clone());
        let (iocb, from) = (this.iocb.get(), this.from.get());
        // SAFETY: The request owns a reference to the file, and the iterator, a source that is not
        // user memory. They, and the request, live until its last reference is put: `this` is
        // there when the call returns. The exclusive reference that is made on the way to the
        // iterator is to that member alone, and gone before the call. The caller may sleep, and
        // holds off no freeze.
        let ret = with_cred(self.cred(), || unsafe {
            call_write_iter(iocb, (*from).as_raw())
        });
        // CAST: An error number.
        if ret == -(bindings::EIOCBQUEUED as isize) {
            return Ok(());
        }
        drop(this);
        // SAFETY: It came from `Arc::into_raw`. What was not queued has no completion, to which
        // this reference belongs otherwise; it is the only one.
        unsafe { DirectWrite::finish(Arc::from_raw(for_completion), ret) };
        Ok(())
    }
}

/// A write under way. The kernel has a pointer to `iocb`.
///
/// # Invariants
///
/// - `iocb` is the first member, so that a pointer to it is one to the whole.
/// - There is a reference of whoever submits, and one of the completion, which may pass it on to
///   the work: what is submitted may be complete before the function that submitted it returns.
///   What was not queued has no completion, and whoever submitted it has both.
/// - `iocb` and `from` are only touched by the kernel once they are submitted, `ending` by whoever
///   has the reference of the completion.
#[pin_data]
#[repr(C)]
struct DirectWrite<F: 'static> {
    iocb: Opaque<bindings::kiocb>,
    /// Keeps the file that `iocb` is for.
    _file: KernelFile,
    from: UnsafeCell<KernelSource>,
    ending: UnsafeCell<Ending<F>>,
    #[pin]
    work: Work<DirectWrite<F>>,
}

/// How a write is to end.
struct Ending<F> {
    /// Taken when it is called.
    done: Option<F>,
    /// Taken before the work is queued, because the queue may go, and `done` be called, right
    /// after that.
    hold: Option<QueueHold>,
    /// What the work is to tell.
    ret: isize,
}

// SAFETY: A request may be completed by any task. What the type has of `F` is moved there.
unsafe impl<F: Send> Send for DirectWrite<F> {}

// SAFETY: By the invariant each member is touched by one task at a time.
unsafe impl<F: Send> Sync for DirectWrite<F> {}

impl_has_work! {
    impl{F: FnOnce(Result<usize>) + Send + 'static} HasWork<Self> for DirectWrite<F> { self.work }
}

impl<F: FnOnce(Result<usize>) + Send + 'static> DirectWrite<F> {
    /// # Safety
    ///
    /// `iocb` must be a request that [`KernelFile::write_direct`] submitted and that was queued,
    /// and this its only completion.
    unsafe extern "C" fn complete(iocb: *mut bindings::kiocb, ret: c_long) {
        // SAFETY: The request was queued, so that this is to end what its begin has begun. It is
        // valid, and keeps the file.
        unsafe { bindings::kiocb_end_write(iocb) };
        // SAFETY: By the invariant this is a pointer to the whole, which came from `Arc::into_raw`,
        // and the completion, which happens once, owns a reference.
        let this = unsafe { Arc::from_raw(iocb.cast_const().cast::<Self>()) };
        // SAFETY: No preconditions.
        if unsafe { bindings::in_sleepable_context() } {
            // SAFETY: The reference is that of the completion.
            unsafe { Self::finish(this, ret) };
            return;
        }
        let ending = this.ending.get();
        // SAFETY: By the invariant nobody else touches it.
        let hold = unsafe {
            (*ending).ret = ret;
            (*ending).hold.take()
        };
        if let Some(hold) = hold {
            // It is queued only here, so it was not queued before.
            let _queued = hold.enqueue(this);
        }
    }

    /// Calls `done`.
    ///
    /// # Safety
    ///
    /// `this` must be the reference of the completion.
    unsafe fn finish(this: Arc<Self>, ret: isize) {
        let ending = this.ending.get();
        // SAFETY: By the invariant nobody else touches it.
        let (done, hold) = unsafe { ((*ending).done.take(), (*ending).hold.take()) };
        // Whoever is told may let go of the last thing that keeps the module, or wait for the queue
        // to go: nothing is left to be done by then but to return. As in C, the end of an interrupt
        // is waited for when a module is freed, that of a task that was preempted here is not.
        drop(this);
        drop(hold);
        if let Some(done) = done {
            nofs(|| done(io_result(ret)));
        }
    }
}

impl<F: FnOnce(Result<usize>) + Send + 'static> WorkItem for DirectWrite<F> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // SAFETY: By the invariant nobody else touches it.
        let ret = unsafe { (*this.ending.get()).ret };
        // SAFETY: The reference is that of the completion, which passed it on.
        unsafe { Self::finish(this, ret) };
    }
}

#[kunit_tests(rust_file_write)]
mod tests {
    use super::{
        super::tests::{
            dir,
            file,
            file_in,
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
        sync::completion::Completion,
        workqueue::ReclaimQueue, //
    };
    use core::sync::atomic::{
        AtomicPtr,
        AtomicUsize,
        Ordering::Relaxed as CoreRelaxed, //
    };
    use kernel::{
        sync::{
            atomic::{
                ordering::Relaxed,
                Atomic, //
            },
            rcu, //
        },
        time::{
            delay::fsleep,
            Delta, //
        }, //
    };

    const QUEUED: isize = -(bindings::EIOCBQUEUED as isize);

    fn source(memory: &mut Memory) -> Result<KernelSource> {
        let raw = memory.iter(bindings::ITER_SOURCE);
        // SAFETY: The tests keep the memory until the copy is gone.
        unsafe { KernelSource::copy_of(&raw) }
    }

    /// What became of a write.
    #[pin_data]
    struct Outcome {
        #[pin]
        over: Completion,
        told: Count,
        dropped: Count,
        /// How often that was where it may not sleep, or may enter a file system for memory.
        wrong: Count,
        /// How often it was while a freeze was held off.
        held_off: Count,
        ret: Atomic<i64>,
    }

    impl Outcome {
        fn new() -> Result<Arc<Self>> {
            let (told, dropped) = (Count::new()?, Count::new()?);
            let (wrong, held_off) = (Count::new()?, Count::new()?);
            let new = pin_init!(Outcome {
                over <- Completion::new(),
                told,
                dropped,
                wrong,
                held_off,
                ret: Atomic::new(1),
            });
            Arc::pin_init(new, GFP_KERNEL)
        }

        /// Waits for what is told.
        fn wait(&self) -> Result<i64> {
            // A busy machine may take its time; KUnit ends what hangs, before this.
            let timeout = kernel::time::msecs_to_jiffies(36_000_000);
            self.over
                .wait_for_completion_killable_timeout(timeout)?
                .ok_or(ETIMEDOUT)?;
            // What the closure owns goes just after it told.
            for _ in 0..1000 {
                if self.dropped.get() != 0 {
                    break;
                }
                fsleep(Delta::from_millis(1));
            }
            assert_eq!(
                (self.told.get(), self.dropped.get(), self.wrong.get()),
                (1, 1, 0)
            );
            Ok(self.ret.load(Relaxed))
        }
    }

    /// Whether somebody holds off a freeze of the file system, which in a test is the test's.
    fn is_being_written(file: &KernelFile) -> bool {
        // SAFETY: The file is valid.
        unsafe { bindings::kunit_is_being_written(file.as_ptr()) }
    }

    /// Submits a write.
    fn submit(
        file: &KernelFile,
        pos: i64,
        from: KernelSource,
        queue: &ReclaimQueue,
        outcome: &Arc<Outcome>,
    ) -> Result {
        let theirs = (outcome.clone(), file.clone(), outcome.dropped.on_drop());
        let done = move |ret: Result<usize>| {
            let (outcome, file, _dropped) = &theirs;
            // SAFETY: The running task reads its own flags, which nobody else writes.
            let is_nofs =
                unsafe { (*bindings::get_current()).flags & bindings::PF_MEMALLOC_NOFS != 0 };
            // SAFETY: No preconditions.
            let may_sleep = unsafe { bindings::in_sleepable_context() };
            if !is_nofs || !may_sleep && cfg!(CONFIG_PREEMPT_COUNT) {
                outcome.wrong.add();
            }
            if is_being_written(file) {
                outcome.held_off.add();
            }
            let ret = ret.map_or_else(|e| i64::from(e.to_errno()), |len| len as i64);
            outcome.ret.store(ret, Relaxed);
            outcome.told.add();
            outcome.over.complete_all();
        };
        file.write_direct(pos, from, queue.hold(), done)
            .map_err(|(e, _)| e)
    }

    /// Writes; returns what was told.
    fn write(file: &KernelFile, pos: i64, memory: &mut Memory) -> Result<i64> {
        let queue = ReclaimQueue::new(c"kunit")?;
        let outcome = Outcome::new()?;
        submit(file, pos, source(memory)?, &queue, &outcome)?;
        // The memory is in use until then.
        outcome.wait()
    }

    fn is_filled(file: &KernelFile, pos: i64, byte: u8) -> Result<bool> {
        let mut memory = Memory::new(BLOCK, b'?')?;
        let raw = memory.iter(bindings::ITER_DEST);
        // SAFETY: The memory stays until the copy is gone.
        let mut to = unsafe { crate::kernel_next::iov::KernelIter::copy_of(&raw) }?;
        let mut iocb = bindings::kiocb {
            ki_filp: file.as_ptr(),
            ki_pos: pos,
            ..Default::default()
        };
        // SAFETY: The file can be read from; without a completion it is done at once.
        let ret = unsafe {
            let op = (*(*file.as_ptr()).f_op).read_iter.ok_or(EINVAL)?;
            op(&mut iocb, to.as_raw())
        };
        Ok(ret == BLOCK as isize && memory.bytes().iter().all(|found| *found == byte))
    }

    #[test]
    fn what_is_written_directly_is_on_the_disk() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-kernel-file")?;
        let file = file_in(&dir)?;
        file.truncate(4 * BLOCK as i64)?;
        let mut memory = Memory::new(2 * BLOCK, b'a')?;
        let before = file.inode().note_change_time();
        assert_eq!(
            write(&file, BLOCK as i64, &mut memory),
            Ok(2 * BLOCK as i64)
        );
        // Not by way of the page cache.
        assert!(file.is_clean() && !file.has_pages());
        assert_eq!(file.inode().change_time(), before);
        assert!(is_filled(&file, 0, 0)? && is_filled(&file, BLOCK as i64, b'a')?);
        assert!(is_filled(&file, 2 * BLOCK as i64, b'a')?);
        assert_eq!(file.inode().size(), 4 * BLOCK as i64);
        // Beyond the end.
        assert_eq!(
            write(&file, 4 * BLOCK as i64, &mut memory),
            Ok(2 * BLOCK as i64)
        );
        assert_eq!(file.inode().size(), 6 * BLOCK as i64);
        Ok(())
    }

    #[test]
    fn file_systems_without_disk_are_written_to() -> Result {
        let file = file()?;
        let mut memory = Memory::new(BLOCK, b'a')?;
        assert_eq!(write(&file, BLOCK as i64, &mut memory), Ok(BLOCK as i64));
        assert!(is_filled(&file, BLOCK as i64, b'a')?);
        // Over what is there.
        let mut memory = Memory::new(BLOCK, b'b')?;
        assert_eq!(write(&file, BLOCK as i64, &mut memory), Ok(BLOCK as i64));
        assert!(is_filled(&file, BLOCK as i64, b'b')?);
        Ok(())
    }

    #[test]
    fn what_cannot_be_written_is_told() -> Result {
        let file = file()?;
        let mut memory = Memory::new(BLOCK, b'a')?;
        for pos in [-1, i64::MAX] {
            assert_eq!(
                write(&file, pos, &mut memory),
                Ok(i64::from(EINVAL.to_errno()))
            );
        }
        assert_eq!(file.inode().size(), 0);
        let queue = ReclaimQueue::new(c"kunit")?;
        let outcome = Outcome::new()?;
        let mut from = source(&mut memory)?;
        from.truncate(0);
        submit(&file, 0, from, &queue, &outcome)?;
        assert_eq!(outcome.wait(), Ok(0));
        assert!(!is_being_written(&file));
        Ok(())
    }

    /// How the file operations of [`Spied`] end a write.
    #[derive(Clone, Copy)]
    #[repr(usize)]
    enum How {
        /// At once, without a completion.
        AtOnce,
        /// By an error.
        Fail,
        /// By a completion that comes before the submission returns.
        Early,
        /// Such a one that may not sleep.
        EarlyAtomic,
        /// Later: the request is kept.
        Late,
    }

    static HOW: AtomicUsize = AtomicUsize::new(0);
    /// What is kept.
    static KEPT: AtomicPtr<bindings::kiocb> = AtomicPtr::new(core::ptr::null_mut());
    /// The credentials of the last call.
    static WRITER: AtomicPtr<bindings::cred> = AtomicPtr::new(core::ptr::null_mut());
    /// Calls for which a freeze was not held off, or which were not what they had to be.
    static WRONG: AtomicUsize = AtomicUsize::new(0);

    /// Completes a request with `ret`.
    ///
    /// # Safety
    ///
    /// It must be queued.
    unsafe fn complete(iocb: *mut bindings::kiocb, ret: isize) {
        // SAFETY: As the caller guarantees.
        unsafe {
            if let Some(complete) = (*iocb).ki_complete {
                complete(iocb, ret);
            }
        }
    }

    unsafe extern "C" fn spy(iocb: *mut bindings::kiocb, from: *mut bindings::iov_iter) -> isize {
        // SAFETY: Both are valid.
        let (file, flags, len) = unsafe {
            let from = kernel::iov::IovIterSource::from_raw(from);
            ((*iocb).ki_filp, (*iocb).ki_flags, from.len())
        };
        // CAST: Flags fit.
        let expected = (bindings::IOCB_WRITE | bindings::IOCB_DIRECT) as c_int;
        // SAFETY: The file is valid.
        if flags != expected || !unsafe { bindings::kunit_is_being_written(file) } {
            WRONG.fetch_add(1, CoreRelaxed);
        }
        // SAFETY: No preconditions.
        let cred = unsafe { bindings::kunit_current_cred() };
        WRITER.store(cred.cast_mut(), CoreRelaxed);
        // CAST: The length of a test's memory.
        let len = len as isize;
        match HOW.load(CoreRelaxed) {
            how if how == How::AtOnce as usize => len,
            how if how == How::Fail as usize => ERESTARTSYS.to_errno() as isize,
            how if how == How::Early as usize => {
                // SAFETY: It counts as queued, as is returned below.
                unsafe { complete(iocb, len) };
                QUEUED
            }
            how if how == How::EarlyAtomic as usize => {
                let atomic = rcu::read_lock();
                // SAFETY: As above.
                unsafe { complete(iocb, len) };
                drop(atomic);
                // The work has time to be done, and to drop its reference.
                fsleep(Delta::from_millis(20));
                QUEUED
            }
            _ => {
                KEPT.store(iocb, CoreRelaxed);
                QUEUED
            }
        }
    }

    /// A file whose writes end as is said.
    struct Spied(
        KernelFile,
        *const bindings::file_operations,
        // Only kept, for the file refers to them.
        #[allow(dead_code)] KBox<bindings::file_operations>,
    );

    impl Spied {
        fn new(file: KernelFile) -> Result<Self> {
            let raw = file.as_ptr();
            let spies = bindings::file_operations {
                write_iter: Some(spy),
                ..Default::default()
            };
            let spies = KBox::new(spies, GFP_KERNEL)?;
            WRONG.store(0, CoreRelaxed);
            // SAFETY: The file is valid, and nobody else knows of it.
            let ops = unsafe {
                (*raw).f_mode |= bindings::FMODE_CAN_ODIRECT;
                core::mem::replace(&mut (*raw).f_op, &*spies)
            };
            Ok(Spied(file, ops, spies))
        }

        /// Writes a block.
        fn write(
            &self,
            how: How,
            memory: &mut Memory,
            queue: &ReclaimQueue,
        ) -> Result<Arc<Outcome>> {
            HOW.store(how as usize, CoreRelaxed);
            let outcome = Outcome::new()?;
            submit(&self.0, 0, source(memory)?, queue, &outcome)?;
            Ok(outcome)
        }

        fn has_references(&self, count: c_long) -> bool {
            // What is queued drops its own a moment after it told.
            (0..1000).any(|_| {
                // SAFETY: The file is valid.
                let found = unsafe { bindings::kunit_file_count(self.0.as_ptr()) };
                if found != count {
                    fsleep(Delta::from_millis(1));
                }
                found == count
            })
        }
    }

    impl Drop for Spied {
        fn drop(&mut self) {
            // SAFETY: The file is valid, and nobody else uses it.
            unsafe { (*self.0.as_ptr()).f_op = self.1 };
        }
    }

    #[test]
    fn ends_of_writes_are_told_once() -> Result {
        let file = Spied::new(file()?)?;
        let queue = ReclaimQueue::new(c"kunit")?;
        let mut memory = Memory::new(BLOCK, b'a')?;
        for (how, ret) in [
            (How::AtOnce, BLOCK as i64),
            (How::Fail, i64::from(EINTR.to_errno())),
            (How::Early, BLOCK as i64),
            (How::EarlyAtomic, BLOCK as i64),
        ] {
            let outcome = file.write(how, &mut memory, &queue)?;
            assert_eq!(outcome.wait(), Ok(ret));
            assert_eq!(outcome.held_off.get(), 0);
            assert!(!is_being_written(&file.0));
            assert!(file.has_references(1));
        }
        assert_eq!(WRONG.load(CoreRelaxed), 0);
        Ok(())
    }

    #[test]
    fn completions_may_come_late() -> Result {
        let file = Spied::new(file()?)?;
        let queue = ReclaimQueue::new(c"kunit")?;
        let mut memory = Memory::new(BLOCK, b'a')?;
        for is_atomic in [false, true] {
            let outcome = file.write(How::Late, &mut memory, &queue)?;
            let iocb = KEPT.swap(core::ptr::null_mut(), CoreRelaxed);
            assert!(!iocb.is_null());
            // A queued write goes on to hold off a freeze, and keeps the file.
            assert!(is_being_written(&file.0));
            assert!(file.has_references(3));
            assert_eq!(outcome.told.get(), 0);
            let atomic = is_atomic.then(rcu::read_lock);
            // SAFETY: It was kept.
            unsafe { complete(iocb, 1) };
            // SAFETY: No preconditions.
            let may_sleep = unsafe { bindings::in_sleepable_context() };
            let told = outcome.told.get();
            drop(atomic);
            // At once, or not before it may sleep.
            assert!(may_sleep && told == 1 || !may_sleep);
            assert_eq!(outcome.wait(), Ok(1));
            assert_eq!(outcome.held_off.get(), 0);
            assert!(!is_being_written(&file.0));
            assert!(file.has_references(1));
        }
        Ok(())
    }

    #[test]
    fn queues_wait_for_writes() -> Result {
        let file = Spied::new(file()?)?;
        let queue = ReclaimQueue::new(c"kunit")?;
        let mut memory = Memory::new(BLOCK, b'a')?;
        let outcome = file.write(How::Late, &mut memory, &queue)?;
        kernel::workqueue::system().try_spawn(GFP_KERNEL, || {
            fsleep(Delta::from_millis(50));
            let atomic = rcu::read_lock();
            // SAFETY: It was kept.
            unsafe { complete(KEPT.swap(core::ptr::null_mut(), CoreRelaxed), 7) };
            drop(atomic);
        })?;
        drop(queue);
        assert_eq!(outcome.told.get(), 1);
        assert_eq!(outcome.wait(), Ok(7));
        Ok(())
    }

    #[test]
    fn writes_are_judged_by_the_credentials_of_the_opener() -> Result {
        let dir = dir()?;
        let cred = NewCredential::kernel()?.into_credential();
        let write = dir.mount().want_write()?;
        let file = KernelFile::tmpfile(&write, &dir, &cred)?;
        drop(write);
        let file = Spied::new(file)?;
        let queue = ReclaimQueue::new(c"kunit")?;
        let mut memory = Memory::new(BLOCK, b'a')?;
        let outcome = file.write(How::AtOnce, &mut memory, &queue)?;
        assert_eq!(outcome.wait(), Ok(BLOCK as i64));
        let writer = WRITER.swap(core::ptr::null_mut(), CoreRelaxed);
        assert!(core::ptr::eq(writer, cred.as_ptr()));
        Ok(())
    }
}
