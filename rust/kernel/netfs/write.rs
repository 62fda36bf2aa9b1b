// SPDX-License-Identifier: GPL-2.0

//! Writing to a cache.
//!
//! A network file system writes in one of two ways. With the library, write-back is split into
//! subrequests: each is [prepared](CacheWriter::prepare_write), filled with folios, and
//! [issued](CacheWriter::issue_write) as a [`WriteSubrequest`], which need not be aligned. Or it
//! asks [which range](CacheWriter::prepare_range) is to be written, and has that
//! [written](CacheWriter::write). In the end both are a [`CacheWrite`].
//!
//! # Examples
//!
//! How a backend may write to a file with blocks of 4096 bytes.
//!
//! ```
//! use kernel::{
//!     fs::kernel_file::KernelFile,
//!     netfs::{
//!         CacheWrite,
//!         WriteEnd,
//!         WriteSubrequest, //
//!     },
//!     prelude::*,
//!     workqueue::ReclaimQueue, //
//! };
//!
//! const BLOCK: usize = 4096;
//!
//! fn issue_write(file: &KernelFile, queue: &ReclaimQueue, mut subreq: WriteSubrequest) {
//!     // CAST: Less than a block.
//!     let head = (-subreq.start()).rem_euclid(BLOCK as i64) as usize;
//!     if head >= subreq.len() {
//!         // There is nothing to be written, which is no error.
//!         let len = subreq.len();
//!         return subreq.done(len);
//!     }
//!     subreq.skip_head(head);
//!     let tail = subreq.len() % BLOCK;
//!     if tail > 0 && subreq.extend_tail(BLOCK - tail).is_err() {
//!         if tail == subreq.len() {
//!             return subreq.done(tail);
//!         }
//!         subreq.cut_tail(tail);
//!     }
//!     write(file, queue, subreq.into_write());
//! }
//!
//! fn write(file: &KernelFile, queue: &ReclaimQueue, write: CacheWrite) {
//!     write.write_direct(file, queue.hold(), |end: WriteEnd, written| match written {
//!         Ok(len) => end.done(len),
//!         Err(e) => end.fail(e),
//!     });
//! }
//! ```

use super::{
    object,
    CacheIo,
    Termination, //
};
use crate::{
    bindings,
    kernel_next::{
        compat::ENOBUFS,
        fs::kernel_file::KernelFile,
        fscache::{
            stats,
            Cookie, //
        },
        iov::KernelSource,
        sched::nofs,
        workqueue::QueueHold, //
    }, //
};
use core::{
    marker::PhantomData,
    ops::{
        Deref,
        Range, //
    },
    ptr::NonNull, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    types::ForeignOwnable, //
};

/// What has to be told how a write ended. Dropping it ends the write with `EIO`.
///
/// Until then the cookie's object is not withdrawn. May be kept, and used, by any task, and in any
/// context.
#[must_use = "dropping it ends the write with an error"]
pub(crate) struct WriteEnd {
    /// How many bytes there are to be written.
    len: usize,
    /// The cookie's count of invalidations when the operation began.
    inval_counter: c_uint,
    done: Termination,
}

impl WriteEnd {
    /// The cookie whose data is written, if it has an object.
    #[inline]
    pub(crate) fn cookie(&self) -> Option<&Cookie> {
        self.done.cookie()
    }

    /// Whether the data was not invalidated since the operation began: if it was, what is written
    /// belongs to an object, or a file, that the cookie does not have any more. Does not sleep.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.done.is_current(self.inval_counter)
    }

    /// Ends the write: so many bytes were written. If that is less than all, the library issues
    /// what is left as another write. That none was written is `EIO`: the library would try for
    /// ever.
    ///
    /// Calls the owner in this context, which may take long.
    pub(crate) fn done(self, len: usize) {
        let result = match len.min(self.len) {
            0 if self.len > 0 => Err(EIO),
            len => Ok(len),
        };
        self.done.done(result);
    }

    /// Ends the write with an error. Calls the owner in this context, which may take long.
    pub(crate) fn fail(self, error: Error) {
        self.done.done(Err(error));
    }
}

/// A request to write to the cache: where the data is, and the promise to tell when it is not
/// needed any more.
///
/// The memory is the owner's again once that is told, so the two go together. May be kept, and
/// ended, by any task; until then the cookie's object is not withdrawn. Dropping it ends the write
/// with `EIO`.
#[must_use = "dropping it ends the write with an error"]
pub(crate) struct CacheWrite {
    // Not used any more once the owner is told: dropped before.
    from: KernelSource,
    pos: i64,
    end: WriteEnd,
}

impl CacheWrite {
    /// Where the data goes, in bytes. May be negative if the owner of the request errs.
    #[inline]
    pub(crate) fn start(&self) -> i64 {
        self.pos
    }

    /// The bytes that are to be written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.from.len()
    }

    /// As [`WriteEnd::cookie`].
    #[inline]
    pub(crate) fn cookie(&self) -> Option<&Cookie> {
        self.end.cookie()
    }

    /// As [`WriteEnd::is_current`].
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.end.is_current()
    }

    /// Writes to the file, at the position that this has, past the page cache if it can. Calls
    /// `then`, which has to end the write, with what became of it.
    ///
    /// As for [`KernelFile::write_direct`], which see for what `then` may do: it may be called
    /// before this returns; what cannot be done where the completion comes is passed on to the
    /// queue that `hold` is for.
    pub(crate) fn write_direct<F>(self, file: &KernelFile, hold: QueueHold, then: F)
    where
        F: FnOnce(WriteEnd, Result<usize>) + Send + 'static,
    {
        let CacheWrite { from, pos, end } = self;
        stats::count_write();
        let done = move |written: Result<usize>| then(end, written);
        if let Err((e, done)) = file.write_direct(pos, from, hold, done) {
            done(Err(e));
        }
    }

    /// Ends the write with an error; nothing was written.
    pub(crate) fn fail(self, error: Error) {
        let CacheWrite { end, .. } = self;
        end.fail(error);
    }
}

/// A part of a write-back that is to be written to the cache (`struct netfs_io_subrequest`). It is
/// brought into a form that the cache can write with the methods below, which tell the library of
/// it, and then [becomes](Self::into_write) a [`CacheWrite`].
///
/// May be kept, and ended, by any task; until then the cookie's object is not withdrawn. Dropping
/// it ends the write with `EIO`.
///
/// # Invariants
///
/// - `subreq` is valid, and nobody else uses its iterator, its length, and what it says was
///   transferred, until the end of `write` is told.
/// - The iterator of `subreq`, and that of `write`, have `extendable` bytes behind their ends.
#[must_use = "dropping it ends the write with an error"]
pub(crate) struct WriteSubrequest {
    write: CacheWrite,
    file_size: u64,
    extendable: usize,
    subreq: NonNull<bindings::netfs_io_subrequest>,
}

// SAFETY: A subrequest may be used by any task, and by the invariant one does.
unsafe impl Send for WriteSubrequest {}

impl WriteSubrequest {
    /// # Safety
    ///
    /// `subreq` must be valid, have been issued, and be the one that `end` is of; else as for the
    /// invariants, but for `extendable`.
    unsafe fn new(
        subreq: NonNull<bindings::netfs_io_subrequest>,
        done: Termination,
    ) -> core::result::Result<Self, (Error, Termination)> {
        let raw = subreq.as_ptr();
        // SAFETY: As the caller guarantees.
        let (start, len, transferred, retries, rreq) = unsafe {
            let transferred = (*raw).transferred;
            (
                (*raw).start,
                (*raw).len,
                transferred,
                (*raw).retry_count,
                (*raw).rreq,
            )
        };
        // What is left of a write that was short begins where that ended.
        let Ok(pos) = i64::try_from(start.saturating_add(transferred as u64)) else {
            return Err((EINVAL, done));
        };
        // SAFETY: As the caller guarantees; the copy is given up before the owner is told.
        let mut from = match unsafe { KernelSource::copy_of(&raw const (*raw).io_iter) } {
            Ok(from) => from,
            Err(e) => return Err((e, done)),
        };
        from.truncate(len.saturating_sub(transferred));
        // The stream says how much of the folio is behind what was issued last. When a write is
        // retried, by another task, that may have been another folio since.
        // SAFETY: As the caller guarantees, the request of the subrequest and its streams are
        // valid, and this is the task that issues.
        let extendable = unsafe {
            match retries == 0 && start.checked_add(len as u64) == Some((*rreq).i_size) {
                true => (*stream_of(raw)).submit_extendable_to,
                false => 0,
            }
        };
        Ok(WriteSubrequest {
            write: CacheWrite {
                end: WriteEnd {
                    len: from.len(),
                    // SAFETY: As above. The member is set when an operation begins.
                    inval_counter: unsafe { (*rreq).cache_resources.inval_counter },
                    done,
                },
                from,
                pos,
            },
            // SAFETY: As above.
            file_size: unsafe { (*rreq).i_size },
            // INVARIANT: A folio belongs to the iterator as a whole; as the caller guarantees.
            // CAST: A length in memory.
            extendable: extendable as usize,
            subreq,
        })
    }

    /// Leaves out the first `len` bytes, or all if there are fewer: to the library they count as
    /// written, and they are simply not cached.
    pub(crate) fn skip_head(&mut self, len: usize) {
        let len = len.min(self.len());
        let raw = self.subreq.as_ptr();
        // The library finds the place to go on at by what was transferred and by the iterator:
        // both move.
        // SAFETY: By the invariant.
        unsafe {
            (*raw).transferred += len;
            bindings::iov_iter_advance(&mut (*raw).io_iter, len);
        }
        let write = &mut self.write;
        write.from.advance(len);
        // CAST: A length in memory. Who errs so much is told when it is written.
        write.pos = write.pos.saturating_add(len as i64);
        write.end.len -= len;
    }

    /// The size of the network file system's file when the write-back began, in bytes.
    #[inline]
    pub(crate) fn file_size(&self) -> u64 {
        self.file_size
    }

    /// How many bytes there are behind the end that can be written, too: those of the last folio,
    /// if this ends at the end of the file. They are zeros, or what somebody who has mapped the
    /// file has put there.
    #[inline]
    pub(crate) fn extendable(&self) -> usize {
        self.extendable
    }

    /// Takes `len` bytes behind the end in.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there are not [as many](Self::extendable).
    pub(crate) fn extend_tail(&mut self, len: usize) -> Result {
        self.extendable = self.extendable.checked_sub(len).ok_or(EINVAL)?;
        let raw = self.subreq.as_ptr();
        // The library takes more than the length for a mistake, and finds the place to go on at by
        // what the iterator has left: both grow.
        // SAFETY: By the invariant, they have so many bytes behind their ends.
        unsafe {
            (*raw).len += len;
            let count = (*raw)
                .io_iter
                .__bindgen_anon_1
                .__bindgen_anon_1
                .as_ref()
                .count;
            bindings::iov_iter_reexpand(&mut (*raw).io_iter, count + len);
            self.write.from.extend(len);
        }
        self.write.end.len += len;
        Ok(())
    }

    /// Leaves out the last `len` bytes, or all if there are fewer. The library gets a write that
    /// was short, and issues them as a write of their own, as short as they are.
    ///
    /// Unlike in C, its own iterator keeps them: from that it finds the place to go on at, by what
    /// is left.
    pub(crate) fn cut_tail(&mut self, len: usize) {
        let left = self.len().saturating_sub(len);
        self.write.from.truncate(left);
        self.extendable = 0;
        self.write.end.len = left;
    }

    /// What is to be written, as it is now.
    pub(crate) fn into_write(self) -> CacheWrite {
        self.write
    }

    /// As [`WriteEnd::done`]: counts so many bytes as written.
    pub(crate) fn done(self, len: usize) {
        let CacheWrite { end, .. } = self.into_write();
        end.done(len);
    }

    /// As [`WriteEnd::fail`]; nothing was written.
    pub(crate) fn fail(self, error: Error) {
        self.into_write().fail(error);
    }
}

impl Deref for WriteSubrequest {
    type Target = CacheWrite;

    /// What is to be written, as it is now. A retry of a write that was short may start anywhere.
    #[inline]
    fn deref(&self) -> &CacheWrite {
        &self.write
    }
}

/// The stream that a subrequest belongs to.
///
/// # Safety
///
/// `subreq` must be valid.
unsafe fn stream_of(subreq: *mut bindings::netfs_io_subrequest) -> *mut bindings::netfs_io_stream {
    // SAFETY: As the caller guarantees; a subrequest has the number of one of the streams of its
    // request.
    unsafe {
        (&raw mut (*(*subreq).rreq).io_streams)
            .cast::<bindings::netfs_io_stream>()
            .add(usize::from((*subreq).stream_nr))
    }
}

/// A part of a write-back to which nothing was added yet.
///
/// # Invariants
///
/// `subreq` and the stream that it belongs to are valid, and nobody else uses the latter's limits.
pub(crate) struct PreparedWrite<'a> {
    subreq: NonNull<bindings::netfs_io_subrequest>,
    _borrowed: PhantomData<&'a mut bindings::netfs_io_subrequest>,
}

// A backend need not have a use for all of it.
#[allow(dead_code)]
impl PreparedWrite<'_> {
    /// The most bytes that are written at once anywhere in the kernel (`MAX_RW_COUNT`).
    const MAX_LEN: usize = i32::MAX as usize & !(PAGE_SIZE - 1);

    /// # Safety
    ///
    /// As for the invariants, for the lifetime.
    unsafe fn new(subreq: NonNull<bindings::netfs_io_subrequest>) -> Self {
        // INVARIANT: As the caller guarantees.
        let this = PreparedWrite {
            subreq,
            _borrowed: PhantomData,
        };
        // What one call and one bio can take.
        // SAFETY: By the invariant.
        unsafe {
            let stream = stream_of(this.subreq.as_ptr());
            (*stream).sreq_max_len = Self::MAX_LEN;
            (*stream).sreq_max_segs = bindings::BIO_MAX_VECS;
        }
        this
    }

    /// Where it is to start, in bytes.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        // SAFETY: By the invariant.
        unsafe { (*self.subreq.as_ptr()).start }
    }

    /// Takes at most `len` bytes; at least one.
    pub(crate) fn limit_len(&mut self, len: usize) {
        // SAFETY: By the invariant.
        let max = unsafe { &mut (*stream_of(self.subreq.as_ptr())).sreq_max_len };
        *max = len.clamp(1, *max);
    }

    /// Takes at most `count` parts of folios; at least one.
    pub(crate) fn limit_segments(&mut self, count: u32) {
        // SAFETY: By the invariant.
        let max = unsafe { &mut (*stream_of(self.subreq.as_ptr())).sreq_max_segs };
        *max = count.clamp(1, *max);
    }
}

/// A backend that can be written to. It says so with [`CacheIo::WRITES`].
///
/// All may sleep. What they allocate is had without waiting for a file system (see [`nofs`]): they
/// are called by write-back.
pub(crate) trait CacheWriter: CacheIo {
    /// What is needed to write to an object. Owned, because the object may go as soon as the write
    /// is done, which may be before the function that gets it returns.
    type Writer;

    /// Gets ready to write to an object.
    fn writer(object: <Self::Object as ForeignOwnable>::Borrowed<'_>) -> Self::Writer;

    /// Says whether, and how much at most, may be gathered for a write.
    ///
    /// # Errors
    ///
    /// On any, it is not written to the cache.
    fn prepare_write(
        object: <Self::Object as ForeignOwnable>::Borrowed<'_>,
        write: &mut PreparedWrite<'_>,
    ) -> Result;

    /// Writes what was gathered.
    fn issue_write(writer: Self::Writer, subreq: WriteSubrequest);

    /// Says what is to be written instead of `range`, in bytes, so that it can be. That may take
    /// in the rest of the first and the last page. `max` is the most bytes that the network file
    /// system expects, but for that rest; `file_size` is the size of the file. If
    /// `nothing_there`, the caller knows that the cache has nothing of the range yet.
    ///
    /// # Errors
    ///
    /// On any, it is not written to the cache.
    fn prepare_range(
        object: <Self::Object as ForeignOwnable>::Borrowed<'_>,
        range: Range<i64>,
        max: usize,
        file_size: i64,
        nothing_there: bool,
    ) -> Result<Range<i64>>;

    /// Writes what was prepared with [`Self::prepare_range`].
    fn write(writer: Self::Writer, write: CacheWrite);
}

/// The operations of a backend for writing.
pub(crate) struct WriteOps<B> {
    pub(super) write: unsafe extern "C" fn(
        *mut bindings::netfs_cache_resources,
        i64,
        *mut bindings::iov_iter,
        bindings::netfs_io_terminated_t,
        *mut c_void,
    ) -> c_int,
    pub(super) issue_write: unsafe extern "C" fn(*mut bindings::netfs_io_subrequest),
    pub(super) prepare_write_subreq: unsafe extern "C" fn(*mut bindings::netfs_io_subrequest),
    pub(super) prepare_write: unsafe extern "C" fn(
        *mut bindings::netfs_cache_resources,
        *mut i64,
        *mut usize,
        usize,
        i64,
        bool,
    ) -> c_int,
    backend: PhantomData<fn() -> B>,
}

impl<B: CacheIo> WriteOps<B> {
    /// Everything is refused with [`CacheIo::WRITE_ERROR`].
    pub(crate) const REFUSED: Self = WriteOps {
        write: Refused::<B>::write,
        issue_write: Refused::<B>::issue_write,
        prepare_write_subreq: Refused::<B>::prepare_write_subreq,
        prepare_write: Refused::<B>::prepare_write,
        backend: PhantomData,
    };
}

impl<B: CacheWriter> WriteOps<B> {
    /// Everything is done by the functions of [`CacheWriter`].
    pub(crate) const WRITER: Self = WriteOps {
        write: Writing::<B>::write,
        issue_write: Writing::<B>::issue_write,
        prepare_write_subreq: Writing::<B>::prepare_write_subreq,
        prepare_write: Writing::<B>::prepare_write,
        backend: PhantomData,
    };
}

struct Refused<B>(PhantomData<B>);

impl<B: CacheIo> Refused<B> {
    /// # Safety
    ///
    /// `res` must be of an operation that `begin_operation::<B>` began; `func` must be none or
    /// allow to be called with `data`.
    unsafe extern "C" fn write(
        res: *mut bindings::netfs_cache_resources,
        _pos: i64,
        _iter: *mut bindings::iov_iter,
        func: bindings::netfs_io_terminated_t,
        data: *mut c_void,
    ) -> c_int {
        if let Some(func) = func {
            // SAFETY: As the caller guarantees.
            unsafe { Termination::new(res, func, data) }.done(Err(B::WRITE_ERROR));
        }
        B::WRITE_ERROR.to_errno()
    }

    /// # Safety
    ///
    /// `subreq` must be a write that has been issued.
    unsafe extern "C" fn issue_write(subreq: *mut bindings::netfs_io_subrequest) {
        // SAFETY: As the caller guarantees. CAST: An error number.
        unsafe {
            bindings::netfs_write_subrequest_terminated(
                subreq.cast(),
                B::WRITE_ERROR.to_errno() as isize,
            )
        };
    }

    /// # Safety
    ///
    /// `subreq` must be a write that is being prepared.
    unsafe extern "C" fn prepare_write_subreq(subreq: *mut bindings::netfs_io_subrequest) {
        // SAFETY: As the caller guarantees.
        unsafe { refuse(subreq, B::WRITE_ERROR) };
    }

    extern "C" fn prepare_write(
        _res: *mut bindings::netfs_cache_resources,
        _start: *mut i64,
        _len: *mut usize,
        _upper: usize,
        _i_size: i64,
        _no_space_yet: bool,
    ) -> c_int {
        B::WRITE_ERROR.to_errno()
    }
}

struct Writing<B>(PhantomData<B>);

impl<B: CacheWriter> Writing<B> {
    /// Waits until the cookie can be written to, and returns its object.
    ///
    /// # Safety
    ///
    /// `res` must be of an operation that `begin_operation::<B>` began and that does not end for
    /// `'a`.
    unsafe fn ready<'a>(
        res: *mut bindings::netfs_cache_resources,
    ) -> Result<<B::Object as ForeignOwnable>::Borrowed<'a>> {
        let want = bindings::fscache_want_state_FSCACHE_WANT_WRITE;
        // SAFETY: As the caller guarantees.
        if !unsafe { bindings::fscache_wait_for_operation(res, want) } {
            return Err(ENOBUFS);
        }
        // SAFETY: As the caller guarantees; the cookie is active, as was waited for.
        unsafe { object::<B>(res) }.ok_or(ENOBUFS)
    }

    /// # Safety
    ///
    /// - `res` must be of an operation that `begin_operation::<B>` began, and nobody else's for the
    ///   time of the call.
    /// - `func` must be none or allow to be called with `data`, once, from any context.
    /// - Until that, the operation must not end, and what `iter` refers to must be valid, in every
    ///   task. `iter` itself must be valid for the call.
    unsafe extern "C" fn write(
        res: *mut bindings::netfs_cache_resources,
        pos: i64,
        iter: *mut bindings::iov_iter,
        func: bindings::netfs_io_terminated_t,
        data: *mut c_void,
    ) -> c_int {
        // Nobody in the kernel writes to a cache without wanting to know when it is done.
        let Some(func) = func else {
            return EINVAL.to_errno();
        };
        // SAFETY: As the caller guarantees, the operation is under way.
        let done = unsafe { Termination::new(res, func, data) };
        // SAFETY: As above; it is not used any more once the request can end.
        let writer = match unsafe { Self::ready(res) } {
            Ok(object) => nofs(|| B::writer(object)),
            Err(e) => {
                done.done(Err(e));
                return e.to_errno();
            }
        };
        // SAFETY: As the caller guarantees. The copy is given up before `func` is called.
        let from = match unsafe { KernelSource::copy_of(iter) } {
            Ok(from) => from,
            Err(e) => {
                done.done(Err(e));
                return e.to_errno();
            }
        };
        let write = CacheWrite {
            end: WriteEnd {
                len: from.len(),
                // SAFETY: As the caller guarantees. The member is set when an operation begins.
                inval_counter: unsafe { (*res).inval_counter },
                done,
            },
            from,
            pos,
        };
        nofs(|| B::write(writer, write));
        // CAST: An error number. The caller learns from `func` how it ended.
        -(bindings::EIOCBQUEUED as c_int)
    }

    /// # Safety
    ///
    /// `subreq` must be a write that has been issued by this task, of a request with an operation
    /// that `begin_operation::<B>` began, and nobody else's until it is told to have ended. What
    /// its iterator refers to must be valid, in every task, until then.
    unsafe extern "C" fn issue_write(subreq: *mut bindings::netfs_io_subrequest) {
        let terminated = bindings::netfs_write_subrequest_terminated;
        // SAFETY: As the caller guarantees, the request is valid.
        let res = unsafe { &raw mut (*(*subreq).rreq).cache_resources };
        // SAFETY: As the caller guarantees: a request has its operation until its subrequests have
        // ended, which the function is called for once.
        let done = unsafe { Termination::new(res, terminated, subreq.cast()) };
        // SAFETY: As above; it is not used any more once the subrequest can end.
        let writer = match unsafe { Self::ready(res) } {
            Ok(object) => nofs(|| B::writer(object)),
            Err(e) => return done.done(Err(e)),
        };
        // SAFETY: As the caller guarantees; a valid pointer is not null.
        let subreq = unsafe { WriteSubrequest::new(NonNull::new_unchecked(subreq), done) };
        match subreq {
            Ok(subreq) => nofs(|| B::issue_write(writer, subreq)),
            Err((e, done)) => done.done(Err(e)),
        }
    }

    /// # Safety
    ///
    /// `subreq` must be a write that is being prepared, and nobody else's, of a request with an
    /// operation that `begin_operation::<B>` began.
    unsafe extern "C" fn prepare_write_subreq(subreq: *mut bindings::netfs_io_subrequest) {
        // SAFETY: As the caller guarantees; a valid pointer is not null.
        let mut write = unsafe { PreparedWrite::new(NonNull::new_unchecked(subreq)) };
        // SAFETY: As the caller guarantees.
        let object = unsafe { Self::ready(&raw mut (*(*subreq).rreq).cache_resources) };
        let prepared = object.and_then(|object| nofs(|| B::prepare_write(object, &mut write)));
        if let Err(e) = prepared {
            // SAFETY: As the caller guarantees.
            unsafe { refuse(subreq, e) };
        }
    }

    /// # Safety
    ///
    /// `res` must be of an operation that `begin_operation::<B>` began; `start` and `len` must be
    /// valid, and nobody else's.
    unsafe extern "C" fn prepare_write(
        res: *mut bindings::netfs_cache_resources,
        start: *mut i64,
        len: *mut usize,
        max: usize,
        file_size: i64,
        nothing_there: bool,
    ) -> c_int {
        // SAFETY: As the caller guarantees.
        let (first, asked) = unsafe { (*start, *len) };
        let prepared = Self::asked(first, asked).and_then(|range| {
            // SAFETY: As the caller guarantees.
            let object = unsafe { Self::ready(res) }?;
            let prepare = || B::prepare_range(object, range.clone(), max, file_size, nothing_there);
            nofs(prepare).and_then(|prepared| Self::answer(&range, &prepared))
        });
        match prepared {
            Ok((first, prepared)) => {
                // SAFETY: As the caller guarantees.
                unsafe {
                    *start = first;
                    *len = prepared;
                }
                0
            }
            Err(e) => e.to_errno(),
        }
    }

    fn asked(start: i64, len: usize) -> Result<Range<i64>> {
        let end = start.checked_add_unsigned(len as u64).ok_or(EINVAL)?;
        Ok(start..end)
    }

    /// What the network file system writes next comes from its page cache: it has the pages that
    /// it asked for, and no others.
    fn answer(asked: &Range<i64>, prepared: &Range<i64>) -> Result<(i64, usize)> {
        // CAST: The size of a page.
        let page = PAGE_SIZE as i64;
        let first = asked.start - asked.start.rem_euclid(page);
        let end = asked.end.saturating_add((-asked.end).rem_euclid(page));
        if prepared.is_empty() || prepared.start < first || prepared.end > end {
            return Err(ENOBUFS);
        }
        let len = usize::try_from(prepared.end - prepared.start).map_err(|_| ENOBUFS)?;
        Ok((prepared.start, len))
    }
}

/// Has a write that is being prepared fail.
///
/// # Safety
///
/// `subreq` must be a write that is being prepared.
unsafe fn refuse(subreq: *mut bindings::netfs_io_subrequest, error: Error) {
    // The error is what the subrequest is ended with, without which it would count as written; the
    // function does not set it.
    // SAFETY: As the caller guarantees. CAST: An error number.
    unsafe {
        (*subreq).error = error.to_errno() as c_short;
        bindings::netfs_prepare_write_failed(subreq);
    }
}
