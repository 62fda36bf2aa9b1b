// SPDX-License-Identifier: GPL-2.0

//! What a cache does for the network file systems library: I/O on a cookie's data.
//!
//! C header: [`include/linux/netfs.h`](srctree/include/linux/netfs.h)
//!
//! A backend that can be written to implements [`CacheWriter`], too. The library does not ask
//! others before it writes to them: it is told [`CacheIo::WRITE_ERROR`].
//!
//! # Examples
//!
//! How a backend may read from a file that holds all of the data.
//!
//! ```
//! use kernel::{
//!     fs::kernel_file::FileRead,
//!     netfs::CacheRead,
//!     prelude::*, //
//! };
//!
//! fn read(file: FileRead, pos: i64, mut read: CacheRead) {
//!     // What is in memory first.
//!     match read.read_cached(&file, pos) {
//!         Err(e) => read.fail(e),
//!         Ok(_) if read.is_empty() => read.finish(),
//!         // CAST: A length in a file.
//!         Ok(cached) => read.read_direct(file, pos + cached as i64, |_, _| {}),
//!     }
//! }
//! ```

mod write;

pub(crate) use self::write::{
    CacheWrite,
    CacheWriter,
    PreparedWrite,
    WriteEnd,
    WriteOps,
    WriteSubrequest, //
};

use crate::{
    bindings,
    kernel_next::{
        compat::{
            ENOBUFS,
            ENODATA,
            ESTALE, //
        },
        fs::kernel_file::{
            FileRead,
            KernelFile, //
        },
        fscache::{
            stats,
            Backend,
            Cookie,
            ObjectRef, //
        },
        iov::KernelIter,
        sched::nofs,
        tracepoint::TraceArg, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    iov::IovIterSource,
    prelude::*,
    sync::rcu,
    types::ForeignOwnable, //
};

/// The function that tells the owner of a request how it ended.
///
/// # Invariants
///
/// `func` may be called with `data`, and has not been called for this request.
struct Callback {
    func: unsafe extern "C" fn(*mut c_void, isize),
    data: *mut c_void,
}

// SAFETY: A request may be ended by any task.
unsafe impl Send for Callback {}

impl Callback {
    /// Tells that so many bytes were transferred, or the error.
    fn call(self, result: Result<usize>) {
        let this = ManuallyDrop::new(self);
        let ret = match result {
            // CAST: No more than `isize::MAX` bytes can be read at once.
            Ok(len) => len as isize,
            Err(e) => e.to_errno() as isize,
        };
        // SAFETY: By the invariant; this was the one call.
        unsafe { (this.func)(this.data, ret) };
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        // The request was dropped without a result: complete it with `-EIO`.
        // SAFETY: By the invariant; this is the one call. CAST: An error number.
        unsafe { (self.func)(self.data, -(bindings::EIO as isize)) };
    }
}

/// Completes a request exactly once. Dropping it completes the request with `-EIO`.
///
/// The function of the owner may be called in any context. Until then the owner keeps the memory
/// of the request, and an access to the cookie, so that the cookie's object cannot be withdrawn.
struct Termination {
    // The order of these members matters: once the owner has ended the operation, the cookie may be
    // withdrawn. The cache waits for this then, until the callback has returned to the module.
    callback: Callback,
    /// None if the operation has no object: then it ends before the call for it returns.
    object: Option<ObjectRef>,
}

impl Termination {
    /// # Safety
    ///
    /// - `res` must be of an operation that is under way, and does not end before `func` is called.
    ///   Its cookie must not be being looked up.
    /// - `func` must allow to be called with `data`, once, from any context.
    unsafe fn new(
        res: *const bindings::netfs_cache_resources,
        func: unsafe extern "C" fn(*mut c_void, isize),
        data: *mut c_void,
    ) -> Self {
        // SAFETY: As the caller guarantees; the operation has an access to the cookie, and so keeps
        // it.
        let cookie = unsafe { Cookie::from_raw((*res).cache_priv.cast()) };
        // SAFETY: As the caller guarantees. The access keeps the cookie from being withdrawn.
        let object = unsafe { cookie.object_ref() };
        Termination {
            // INVARIANT: As the caller guarantees.
            callback: Callback { func, data },
            object,
        }
    }

    /// Whether the data was not invalidated since the cookie's count was `inval_counter`. Does not
    /// sleep.
    #[inline]
    fn is_current(&self, inval_counter: c_uint) -> bool {
        self.cookie()
            .is_some_and(|cookie| cookie.inval_counter() == inval_counter)
    }

    /// The cookie, if the operation has an object.
    #[inline]
    fn cookie(&self) -> Option<&Cookie> {
        let object = self.object.as_ref()?;
        // SAFETY: The owner has not been told yet, as `callback` is still there: so the operation
        // is under way, and has an access to the cookie.
        Some(unsafe { object.cookie() })
    }

    /// Ends the request: so many bytes were transferred, or the error.
    fn done(self, result: Result<usize>) {
        // Not dropped before the callback has returned.
        let Termination {
            callback,
            object: _object,
        } = self;
        callback.call(result);
    }
}

/// The object that an operation is on.
///
/// # Safety
///
/// `res` must be valid, with a cookie of the backend `B` as its `cache_priv`, to which an access is
/// held for `'a` and which is not being looked up: nothing here says of a cookie that is that it
/// has no data (`fscache_cookie_lookup_negative()`), so fscache begins no operation on it.
unsafe fn object<'a, B: Backend>(
    res: *const bindings::netfs_cache_resources,
) -> Option<<B::Object as ForeignOwnable>::Borrowed<'a>> {
    // SAFETY: As the caller guarantees; whoever has an access to a cookie has a reference to it.
    let cookie = unsafe { Cookie::from_raw((*res).cache_priv.cast()) };
    // SAFETY: As the caller guarantees. The access keeps the object from being withdrawn.
    unsafe { cookie.object::<B>() }
}

/// A request to read from the cache: where the data goes, and the promise to tell when it is there.
///
/// The memory is the owner's again once that is told, so the two go together. May be kept, and
/// ended, by any task; until then the cookie's object is not withdrawn. Dropping it ends the
/// request with `EIO`.
#[must_use = "dropping it ends the request with an error"]
pub(crate) struct CacheRead {
    // Not used any more once the owner is told: dropped before.
    to: KernelIter,
    /// Bytes that were read already. Like the counter, small: many reads may wait.
    before: u32,
    /// The cookie's count of invalidations when the operation began.
    inval_counter: c_uint,
    done: Termination,
}

impl CacheRead {
    /// The bytes that are still to be read.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.to.len()
    }

    /// Whether there is nothing left to be read.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// Takes what the page cache has of the file at `pos`, in bytes, without waiting for a disk,
    /// and returns how many bytes that was.
    ///
    /// # Errors
    ///
    /// Those of [`FileRead::read_cached`].
    pub(crate) fn read_cached(&mut self, file: &FileRead, pos: i64) -> Result<usize> {
        let len = file.read_cached(pos, &mut self.to)?;
        self.note_read(len);
        Ok(len)
    }

    /// Takes what `from` has, which is the data at the position of this, as far as that can be
    /// had without sleeping: all that is to be read, or a multiple of `unit` bytes. Returns how
    /// many bytes that was.
    pub(crate) fn copy_nofault(&mut self, from: &mut IovIterSource<'_>, unit: usize) -> usize {
        let len = self.to.copy_nofault(from, unit);
        self.note_read(len);
        len
    }

    /// Reads the rest from the file at `pos`, in bytes, past the page cache if it can, and ends the
    /// request. `failed` is told of an error of the file before, as by
    /// [`FileRead::read_direct`]. May sleep, and may return before the request has ended.
    pub(crate) fn read_direct(
        self,
        file: FileRead,
        pos: i64,
        failed: impl Fn(&KernelFile, Error) + Send + 'static,
    ) {
        let (to, end) = self.into_parts();
        let end = move |ret: Result<usize>| end.end(ret);
        if let Err((e, end)) = file.read_direct(pos, to, failed, end) {
            end(Err(e));
        }
    }

    /// Completes the request with what was read, or with `ESTALE` if the cookie was invalidated
    /// since the operation began. Calls the owner in this context, which may take long.
    pub(crate) fn finish(self) {
        let (_, end) = self.into_parts();
        end.end(Ok(0));
    }

    /// Completes the request with an error. Calls the owner in this context, which may take long.
    pub(crate) fn fail(self, error: Error) {
        let (_, end) = self.into_parts();
        end.end(Err(error));
    }

    /// Completes the request with what was read, or the error. Calls the owner under
    /// `rcu_read_lock()`, as from an interrupt, so that the owner leaves what may take long or
    /// sleep to a work queue. Does not sleep.
    pub(crate) fn end_in_brief(self, result: Result) {
        let (_, end) = self.into_parts();
        // EROFS asks whether it may sleep before it decompresses: here it may not.
        let _atomic = rcu::read_lock();
        end.end(result.map(|()| 0));
    }

    fn note_read(&mut self, len: usize) {
        // CAST: No more than fits is read, as was seen to when the read began.
        self.before += len as u32;
    }

    /// The memory, which has to be given up before the owner is told, and what is left.
    fn into_parts(self) -> (KernelIter, ReadEnd) {
        let end = ReadEnd {
            before: self.before,
            inval_counter: self.inval_counter,
            done: self.done,
        };
        (self.to, end)
    }
}

/// A [`CacheRead`] whose memory was given up, or to somebody else.
struct ReadEnd {
    before: u32,
    inval_counter: c_uint,
    done: Termination,
}

impl ReadEnd {
    /// Ends the request: so many bytes were read after those that were read before, or the error.
    /// It is `ESTALE` if the data was invalidated since the operation began.
    fn end(self, result: Result<usize>) {
        let result = match result {
            Ok(_) if !self.done.is_current(self.inval_counter) => Err(ESTALE),
            // CAST: A length in memory.
            result => result.map(|len| self.before as usize + len),
        };
        self.done.done(result);
    }
}

/// Where data is to be read from (`enum netfs_io_source`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// A backend need not have a use for all of them.
#[allow(dead_code)]
pub(crate) enum ReadSource {
    /// The cache.
    Cache,
    /// The server that the network file system has.
    Server,
    /// Nowhere: there are only zeros.
    Zeroes,
}

// SAFETY: It is a number.
unsafe impl TraceArg for ReadSource {
    type Raw = bindings::netfs_io_source;

    fn into_raw(self) -> bindings::netfs_io_source {
        match self {
            Self::Cache => bindings::netfs_io_source_NETFS_READ_FROM_CACHE,
            Self::Server => bindings::netfs_io_source_NETFS_DOWNLOAD_FROM_SERVER,
            Self::Zeroes => bindings::netfs_io_source_NETFS_FILL_WITH_ZEROES,
        }
    }
}

/// A part of a read of which the library asks where to read it from.
///
/// # Invariants
///
/// `subreq` is valid, and nobody else's, for `'a`. So is its request, whose operation has an access
/// to its cookie.
pub(crate) struct ReadSubrequest<'a> {
    subreq: NonNull<bindings::netfs_io_subrequest>,
    file_size: u64,
    _borrowed: PhantomData<&'a mut bindings::netfs_io_subrequest>,
}

impl ReadSubrequest<'_> {
    /// Where it starts, in bytes.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        // SAFETY: By the invariant.
        unsafe { (*self.subreq.as_ptr()).start }
    }

    /// How many bytes it has.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: By the invariant.
        unsafe { (*self.subreq.as_ptr()).len }
    }

    /// The size of the network file system's file, in bytes.
    #[inline]
    pub(crate) fn file_size(&self) -> u64 {
        self.file_size
    }

    /// Its flags (`NETFS_SREQ_*`), as numbers of bits.
    pub(crate) fn flags(&self) -> usize {
        // SAFETY: By the invariant.
        unsafe { (*self.subreq.as_ptr()).flags }
    }

    /// The number of the inode of the network file system's file.
    pub(crate) fn ino(&self) -> u64 {
        // SAFETY: By the invariant; a request keeps its inode, whose number does not change.
        unsafe { (*(*(*self.subreq.as_ptr()).rreq).inode).i_ino }
    }

    /// The cookie of what is read.
    #[inline]
    pub(crate) fn cookie(&self) -> &Cookie {
        // SAFETY: By the invariant; whoever has an access to a cookie has a reference to it.
        unsafe {
            let rreq = (*self.subreq.as_ptr()).rreq;
            Cookie::from_raw((*rreq).cache_resources.cache_priv.cast())
        }
    }

    /// Whether it is all that is read of an object in one piece, as of a directory: then it must
    /// not be [shortened](Self::shorten).
    #[inline]
    pub(crate) fn is_single(&self) -> bool {
        // SAFETY: By the invariant.
        let origin = unsafe { (*(*self.subreq.as_ptr()).rreq).origin };
        origin == bindings::netfs_io_origin_NETFS_READ_SINGLE
    }

    /// Ends it after `len` bytes; the library asks for what is behind them next. It is not made
    /// empty, or longer.
    pub(crate) fn shorten(&mut self, len: usize) {
        if (1..self.len()).contains(&len) {
            // SAFETY: By the invariant.
            unsafe { (*self.subreq.as_ptr()).len = len };
        }
    }

    /// Has the library write to the cache what it gets elsewhere.
    pub(crate) fn copy_to_cache(&mut self) {
        // Not atomic, as in C: nobody else sees it yet.
        // SAFETY: By the invariant.
        unsafe { (*self.subreq.as_ptr()).flags |= 1 << bindings::NETFS_SREQ_COPY_TO_CACHE };
    }
}

/// I/O that a backend does (`struct netfs_cache_ops`).
pub(crate) trait CacheIo: Backend {
    /// Why nothing can be written, as far as the network file system is concerned: `ENOBUFS` is for
    /// an object that is not cached.
    const WRITE_ERROR: Error = ENOBUFS;

    /// Whether the backend is a [`CacheWriter`]: [`WriteOps::WRITER`] if it is.
    const WRITES: WriteOps<Self> = WriteOps::REFUSED;

    /// Says where the library is to read from. May sleep. The cookie is not withdrawn meanwhile.
    fn prepare_read(
        object: <Self::Object as ForeignOwnable>::Borrowed<'_>,
        subreq: ReadSubrequest<'_>,
    ) -> ReadSource;

    /// What is needed to read from an object. Owned, because the object may go as soon as the read
    /// is done, which may be before [`Self::read`] returns.
    type Reader;

    /// Gets ready to read from an object. May sleep.
    fn reader(object: <Self::Object as ForeignOwnable>::Borrowed<'_>) -> Self::Reader;

    /// Reads data at `pos`, in bytes, which may be negative if the owner of the request errs. May
    /// sleep. What it allocates is had without waiting for a file system (see [`nofs`]): memory may
    /// be short, and the pages that the data goes to are locked.
    ///
    /// What the caller wants of a hole (`enum netfs_read_from_hole`) is not said: a backend has to
    /// know what it has of an object, and to get what is missing or to fail.
    fn read(reader: Self::Reader, pos: i64, read: CacheRead);

    /// The first part of `range`, in bytes, that the cache has, in units of `granularity` bytes at
    /// least. May sleep. The cookie is not withdrawn meanwhile.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if that cannot be told.
    fn query_occupancy(
        _object: <Self::Object as ForeignOwnable>::Borrowed<'_>,
        _range: Range<i64>,
        _granularity: usize,
    ) -> Result<Option<Range<i64>>> {
        Err(ENOBUFS)
    }
}

/// Begins an operation: what `fscache_cache_ops::begin_operation` does.
///
/// # Safety
///
/// `res` must be valid and nobody else's for the time of the call; its `cache_priv` must be a
/// cookie of the backend `B`, to which an access is held until the operation ends and which is not
/// being looked up, its `cache_priv2` null or what this function put there.
pub(in crate::kernel_next) unsafe fn begin_operation<B: CacheIo>(
    res: *mut bindings::netfs_cache_resources,
    want: bindings::fscache_want_state,
) -> bool {
    // SAFETY: As the caller guarantees.
    let has_object = unsafe { object::<B>(res) }.is_some();
    // SAFETY: The structure is this function's to fill.
    unsafe { (*res).ops = &VTable::<B>::VTABLE };
    if has_object {
        // Says to fscache that it need not ask again. Nobody looks where it points to.
        // SAFETY: As above.
        unsafe { (*res).cache_priv2 = (*res).cache_priv };
    }
    has_object || want == bindings::fscache_want_state_FSCACHE_WANT_PARAMS
}

struct VTable<B: CacheIo>(PhantomData<B>);

impl<B: CacheIo> VTable<B> {
    /// # Safety
    ///
    /// `res` must be of an operation that [`begin_operation::<B>`] began, and that ends with this.
    unsafe extern "C" fn end_operation(res: *mut bindings::netfs_cache_resources) {
        // SAFETY: As the caller guarantees.
        let cookie = unsafe { (*res).cache_priv };
        // SAFETY: The operation has held an access to the cookie from its begin, and ends once.
        unsafe {
            bindings::fscache_end_cookie_access(
                cookie.cast(),
                bindings::fscache_access_trace_fscache_access_io_end,
            )
        };
    }

    /// # Safety
    ///
    /// - `res` must be of an operation that [`begin_operation::<B>`] began, and nobody else's for
    ///   the time of the call.
    /// - `func` must allow to be called with `data`, once, from any context.
    /// - Until that, the operation must not end, and what `iter` refers to must be valid, in every
    ///   task, and be used by nobody else. `iter` itself must be valid for the call.
    unsafe extern "C" fn read(
        res: *mut bindings::netfs_cache_resources,
        pos: i64,
        iter: *mut bindings::iov_iter,
        _hole: bindings::netfs_read_from_hole,
        func: bindings::netfs_io_terminated_t,
        data: *mut c_void,
    ) -> c_int {
        // Nobody in the kernel reads from a cache without wanting to know when it is done.
        let Some(func) = func else {
            return EINVAL.to_errno();
        };
        // SAFETY: As the caller guarantees, the operation is under way.
        let done = unsafe { Termination::new(res, func, data) };
        // SAFETY: As above.
        let ready = unsafe {
            bindings::fscache_wait_for_operation(
                res,
                bindings::fscache_want_state_FSCACHE_WANT_READ,
            )
        };
        if !ready {
            done.done(Err(ENOBUFS));
            return ENOBUFS.to_errno();
        }
        stats::count_read();
        // SAFETY: As the caller guarantees. `func` is called when nobody uses the copy any more:
        // `finish` and `fail` give it up before, and a direct read is done with it then.
        let to = match unsafe { KernelIter::copy_of(iter) } {
            // More than 2 GiB is not read at once anywhere in the kernel (`MAX_RW_COUNT`).
            Ok(to) if u32::try_from(to.len()).is_err() => {
                done.done(Err(EINVAL));
                return EINVAL.to_errno();
            }
            Ok(to) => to,
            Err(e) => {
                done.done(Err(e));
                return e.to_errno();
            }
        };
        let read = CacheRead {
            to,
            before: 0,
            // SAFETY: As the caller guarantees. The member is set when an operation begins.
            inval_counter: unsafe { (*res).inval_counter },
            done,
        };
        // SAFETY: As the caller guarantees; the cookie is active, as was waited for. Not used any
        // more once the request can end.
        let object = unsafe { object::<B>(res) };
        nofs(|| match object.map(B::reader) {
            Some(reader) => B::read(reader, pos, read),
            None => read.fail(ENOBUFS),
        });
        // CAST: An error number. The caller learns from `func` how it ended.
        -(bindings::EIOCBQUEUED as c_int)
    }

    /// # Safety
    ///
    /// `subreq` must be a read that is being prepared, of a request with an operation that
    /// [`begin_operation::<B>`] began.
    unsafe extern "C" fn prepare_read(
        subreq: *mut bindings::netfs_io_subrequest,
        i_size: c_ulonglong,
    ) -> bindings::netfs_io_source {
        // SAFETY: As the caller guarantees; the operation is under way.
        let object = unsafe { object::<B>(&raw const (*(*subreq).rreq).cache_resources) };
        // INVARIANT: As the caller guarantees.
        let subreq = ReadSubrequest {
            // SAFETY: A valid pointer is not null.
            subreq: unsafe { NonNull::new_unchecked(subreq) },
            file_size: i_size,
            _borrowed: PhantomData,
        };
        object
            .map_or(ReadSource::Server, |object| B::prepare_read(object, subreq))
            .into_raw()
    }

    /// # Safety
    ///
    /// `res` must be of an operation that [`begin_operation::<B>`] began; `data_start` and
    /// `data_len` must be valid for writing.
    unsafe extern "C" fn query_occupancy(
        res: *mut bindings::netfs_cache_resources,
        start: i64,
        len: usize,
        granularity: usize,
        data_start: *mut i64,
        data_len: *mut usize,
    ) -> c_int {
        let want = bindings::fscache_want_state_FSCACHE_WANT_READ;
        let ask = || {
            let end = start.checked_add_unsigned(len as u64).ok_or(EINVAL)?;
            // SAFETY: As the caller guarantees.
            if !unsafe { bindings::fscache_wait_for_operation(res, want) } {
                return Err(ENOBUFS);
            }
            // SAFETY: As the caller guarantees; the cookie is active, as was waited for.
            let object = unsafe { object::<B>(res) }.ok_or(ENOBUFS)?;
            let found = B::query_occupancy(object, start..end, granularity)?;
            let found = found.filter(|found| !found.is_empty()).ok_or(ENODATA)?;
            // CAST: A length in memory at most.
            let len = (found.end - found.start).min(len as i64) as usize;
            Ok((found.start, len))
        };
        let found = ask();
        let (first, found_len) = found.unwrap_or((-1, 0));
        // SAFETY: As the caller guarantees.
        unsafe {
            *data_start = first;
            *data_len = found_len;
        }
        found.map_or_else(|e| e.to_errno(), |_| 0)
    }

    const VTABLE: bindings::netfs_cache_ops = bindings::netfs_cache_ops {
        end_operation: Some(Self::end_operation),
        read: Some(Self::read),
        write: Some(B::WRITES.write),
        issue_write: Some(B::WRITES.issue_write),
        prepare_read: Some(Self::prepare_read),
        prepare_write: Some(B::WRITES.prepare_write),
        prepare_write_subreq: Some(B::WRITES.prepare_write_subreq),
        query_occupancy: Some(Self::query_occupancy),
        ..pin_init::zeroed()
    };
}
