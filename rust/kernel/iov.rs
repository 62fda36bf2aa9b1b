// SPDX-License-Identifier: GPL-2.0

//! IO vectors.
//!
//! C headers: [`include/linux/iov_iter.h`](srctree/include/linux/iov_iter.h),
//! [`include/linux/uio.h`](srctree/include/linux/uio.h)

use crate::bindings;
use kernel::{
    error::to_result,
    iov::IovIterSource,
    prelude::*,
    uaccess::UserPtr, //
};

/// Runs `f` with `len` bytes of the current task's memory at `addr` as a source. What is more than
/// one call may transfer, 2 GiB less a page, is left out.
///
/// # Errors
///
/// [`EFAULT`] if that is not user memory. Whether it can be read is found out by whoever does.
pub(crate) fn user_source<R>(
    addr: UserPtr,
    len: usize,
    f: impl FnOnce(&mut IovIterSource<'_>) -> R,
) -> Result<R> {
    let mut raw = bindings::iov_iter::default();
    // CAST: 0 or 1.
    let rw = bindings::ITER_SOURCE as c_int;
    // SAFETY: The function looks at the address, and initialises the iterator.
    to_result(unsafe { bindings::import_ubuf(rw, addr.as_mut_ptr(), len, &mut raw) })?;
    // SAFETY: It is a valid source, of user memory of the current task, which `f` runs in.
    Ok(f(unsafe { IovIterSource::from_raw(&mut raw) }))
}

/// Whether an iterator refers to user memory.
fn is_user(raw: &bindings::iov_iter) -> bool {
    let user = [
        bindings::iter_type_ITER_UBUF,
        bindings::iter_type_ITER_IOVEC,
    ];
    user.contains(&raw.iter_type.into())
}

/// The number of bytes that an iterator has left.
///
/// # Safety
///
/// The iterator must be valid.
#[inline]
unsafe fn count(raw: &bindings::iov_iter) -> usize {
    // SAFETY: Of a valid iterator the member is always in use; the borrow keeps others from
    // changing it.
    unsafe { raw.__bindgen_anon_1.__bindgen_anon_1.as_ref().count }
}

/// A destination in kernel memory: a copy of a caller's iterator, which goes on where the caller's
/// was. Unlike `IovIterDest` it can be kept when the call that it came with is over, and be filled
/// by another task.
///
/// # Examples
///
/// ```
/// use kernel::{
///     bindings,
///     iov::KernelIter, //
/// };
///
/// /// # Safety
/// ///
/// /// `iter` must be a valid iterator that nobody else uses before the result is dropped.
/// unsafe fn keep(iter: *const bindings::iov_iter) -> Result<KernelIter> {
///     // SAFETY: As the caller guarantees.
///     let iter = unsafe { KernelIter::copy_of(iter) }?;
///     if iter.is_empty() {
///         return Err(EINVAL);
///     }
///     Ok(iter)
/// }
/// ```
///
/// # Invariants
///
/// `raw` is a valid destination that is not user memory, and is valid, in every task, until it is
/// last used.
pub(crate) struct KernelIter {
    raw: bindings::iov_iter,
}

// SAFETY: By the invariant it refers neither to the memory nor to a mapping of one task.
unsafe impl Send for KernelIter {}

impl KernelIter {
    /// Copies an iterator.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is a source or user memory.
    ///
    /// # Safety
    ///
    /// `iter` must be a valid iterator, and what it refers to must stay valid, in every task, and
    /// nobody else may touch it, until the copy is last used. So it must not be mapped for one task
    /// only, as by `kmap_local_page()`.
    pub(crate) unsafe fn copy_of(iter: *const bindings::iov_iter) -> Result<Self> {
        // SAFETY: The caller guarantees that it is valid.
        let raw = unsafe { iter.read() };
        if is_user(&raw) || raw.data_source {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked, and as the caller guarantees.
        Ok(KernelIter { raw })
    }

    /// Returns the number of bytes that are left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: By the invariant it is a valid iterator.
        unsafe { count(&self.raw) }
    }

    /// Whether no byte is left.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies from user memory, as far as that can be read without sleeping: all that this has room
    /// for, or a multiple of `unit` bytes. Returns how many bytes that was: none if this is not a
    /// list of pages.
    pub(crate) fn copy_nofault(&mut self, from: &mut IovIterSource<'_>, unit: usize) -> usize {
        // SAFETY: By the invariant it is a valid destination, and `from` is a valid source.
        unsafe { bindings::copy_to_bvec_nofault(&mut self.raw, from.as_raw(), unit.max(1)) }
    }

    /// Access this as a raw `struct iov_iter`.
    #[inline]
    pub(crate) fn as_raw(&mut self) -> *mut bindings::iov_iter {
        &mut self.raw
    }
}

/// A source in kernel memory: a copy of a caller's iterator, which goes on where the caller's was.
/// As a [`KernelIter`] it can be kept when the call that it came with is over, and be read from by
/// another task.
///
/// # Examples
///
/// ```
/// use kernel::{
///     bindings,
///     iov::KernelSource, //
/// };
///
/// /// Leaves out what is in front of the first whole block, and behind the last one.
/// ///
/// /// # Safety
/// ///
/// /// `iter` must be a valid iterator that nobody else uses before the result is dropped.
/// unsafe fn whole_blocks(
///     iter: *const bindings::iov_iter,
///     head: usize,
///     block: usize,
/// ) -> Result<KernelSource> {
///     // SAFETY: As the caller guarantees.
///     let mut from = unsafe { KernelSource::copy_of(iter) }?;
///     from.advance(head);
///     from.truncate(from.len() / block * block);
///     Ok(from)
/// }
/// ```
///
/// # Invariants
///
/// `raw` is a valid source that is not user memory, and is valid, in every task, until it is last
/// used.
pub(crate) struct KernelSource {
    raw: bindings::iov_iter,
}

// SAFETY: By the invariant it refers neither to the memory nor to a mapping of one task.
unsafe impl Send for KernelSource {}

impl KernelSource {
    /// Copies an iterator.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is a destination or user memory.
    ///
    /// # Safety
    ///
    /// `iter` must be a valid iterator, and what it refers to must stay valid, in every task, until
    /// the copy is last used. So it must not be mapped for one task only, as by
    /// `kmap_local_page()`.
    pub(crate) unsafe fn copy_of(iter: *const bindings::iov_iter) -> Result<Self> {
        // SAFETY: The caller guarantees that it is valid.
        let raw = unsafe { iter.read() };
        if is_user(&raw) || !raw.data_source {
            return Err(EINVAL);
        }
        // INVARIANT: Just checked, and as the caller guarantees.
        Ok(KernelSource { raw })
    }

    /// Returns the number of bytes that are left.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: By the invariant it is a valid iterator.
        unsafe { count(&self.raw) }
    }

    /// Goes on by `len` bytes, or to the end if there are fewer.
    #[inline]
    pub(crate) fn advance(&mut self, len: usize) {
        // SAFETY: By the invariant it is a valid iterator. It does not go behind its end.
        unsafe { bindings::iov_iter_advance(&mut self.raw, len.min(self.len())) };
    }

    /// Leaves out what is behind the next `len` bytes.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        // SAFETY: By the invariant it is a valid iterator.
        unsafe { bindings::iov_iter_truncate(&mut self.raw, len as u64) };
    }

    /// Has `len` bytes more at the end.
    ///
    /// # Safety
    ///
    /// What the iterator refers to must have so many bytes behind its end, for which holds what
    /// [`Self::copy_of`] says.
    #[inline]
    pub(in crate::kernel_next) unsafe fn extend(&mut self, len: usize) {
        // INVARIANT: As the caller guarantees.
        // SAFETY: By the invariant it is a valid iterator; as the caller guarantees.
        unsafe { bindings::iov_iter_reexpand(&mut self.raw, self.len() + len) };
    }

    /// Access this as a raw `struct iov_iter`.
    #[inline]
    pub(crate) fn as_raw(&mut self) -> *mut bindings::iov_iter {
        &mut self.raw
    }
}

#[kunit_tests(rust_kernel_iter)]
mod tests {
    use super::*;
    use crate::kernel_next::kunit::support::{
        self,
        Memory, //
    };
    use kernel::{
        iov::IovIterDest,
        page::{
            Page,
            PAGE_SIZE, //
        },
        uaccess::UserSlice, //
    };

    // What writes to it, where the last write ended.
    fn dest(iter: &mut KernelIter) -> &mut IovIterDest<'_> {
        // SAFETY: By the invariant it is a valid destination; the result borrows it.
        unsafe { IovIterDest::from_raw(iter.as_raw()) }
    }

    fn copy(raw: &bindings::iov_iter) -> Result<KernelIter> {
        // SAFETY: The tests' iterators are valid, and the copies go first; what is refused is not
        // looked into.
        unsafe { KernelIter::copy_of(raw) }
    }

    #[test]
    fn copy_goes_on_where_the_original_was() -> Result {
        let mut memory = Memory::new(100, b'.')?;
        let mut raw = memory.iter(bindings::ITER_DEST);
        // SAFETY: The iterator is valid.
        unsafe { bindings::iov_iter_advance(&mut raw, 10) };
        let mut iter = copy(&raw)?;
        assert_eq!(iter.len(), 90);
        assert_eq!(dest(&mut iter).copy_to_iter(b"abc"), 3);
        assert_eq!(iter.len(), 87);
        dest(&mut iter).advance(1);
        assert_eq!(dest(&mut iter).copy_to_iter(b"d"), 1);
        // The original did not move.
        assert_eq!(copy(&raw)?.len(), 90);
        assert_eq!(&memory.bytes()[8..17], b"..abc.d..");
        Ok(())
    }

    #[test]
    fn copy_stops_at_the_end() -> Result {
        let mut memory = Memory::new(4, b'.')?;
        let raw = memory.iter(bindings::ITER_DEST);
        let mut iter = copy(&raw)?;
        assert_eq!(dest(&mut iter).copy_to_iter(b"123456"), 4);
        assert_eq!(iter.len(), 0);
        assert_eq!(dest(&mut iter).copy_to_iter(b"7"), 0);
        assert_eq!(memory.bytes(), b"1234");
        Ok(())
    }

    #[test]
    fn source_is_refused() -> Result {
        let mut memory = Memory::new(4, 0)?;
        let raw = memory.iter(bindings::ITER_SOURCE);
        assert_eq!(copy(&raw).err(), Some(EINVAL));
        Ok(())
    }

    #[test]
    fn user_source_is_what_the_task_has_there() -> Result {
        let page = support::user_page()?;
        let at = |off| UserPtr::from_addr(page + off);
        UserSlice::new(at(2), 3).writer().write_slice(b"abc")?;
        let mut read = [b'.'; 4];
        let len = user_source(at(1), 3, |from| from.copy_from_iter(&mut read))?;
        assert_eq!((len, &read), (3, b"\0ab."));
        // Whether it is there is found out when it is read.
        let nowhere = user_source(UserPtr::from_addr(0), 3, |from| {
            from.copy_from_iter(&mut read)
        });
        assert_eq!(nowhere, Ok(0));
        let kernel = UserPtr::from_addr(read.as_ptr() as usize);
        assert_eq!(user_source(kernel, 3, |_| ()), Err(EFAULT));
        Ok(())
    }

    #[test]
    fn pages_are_filled_from_user_memory() -> Result {
        let pages = [Page::alloc_page(GFP_KERNEL)?, Page::alloc_page(GFP_KERNEL)?];
        let mut got = [0; 8];
        for page in &pages {
            // SAFETY: Nobody else uses the page.
            unsafe { page.fill_zero_raw(0, PAGE_SIZE) }?;
        }
        let vecs = [(&pages[0], PAGE_SIZE - 4, 4), (&pages[1], 2, 6)].map(|(page, off, len)| {
            bindings::bio_vec {
                bv_page: page.as_ptr(),
                bv_len: len,
                // CAST: Less than a page.
                bv_offset: off as c_uint,
            }
        });
        let mut raw = bindings::iov_iter::default();
        // SAFETY: The pages are there for as long as the iterator is used.
        unsafe { bindings::iov_iter_bvec(&mut raw, bindings::ITER_DEST, vecs.as_ptr(), 2, 10) };
        let mut iter = copy(&raw)?;

        let user = support::user_page()?;
        UserSlice::new(UserPtr::from_addr(user), 7)
            .writer()
            .write_slice(b"abcdefg")?;
        let mut fill = |addr, len| {
            user_source(UserPtr::from_addr(addr), len, |from| {
                iter.copy_nofault(from, 3)
            })
        };
        // Two times three; the seventh byte is to come once more.
        assert_eq!(fill(user, 7), Ok(6));
        assert_eq!(fill(user, 2), Ok(0));
        // It goes on where it was, stops where nothing can be read, and at the end.
        assert_eq!(fill(0, 3), Ok(0));
        assert_eq!(fill(user, 7), Ok(4));
        assert_eq!(fill(user, 7), Ok(0));
        // SAFETY: Nobody else uses the page.
        unsafe { pages[0].read_raw(got.as_mut_ptr(), PAGE_SIZE - 4, 4) }?;
        assert_eq!(&got[..4], b"abcd");
        // SAFETY: As above.
        unsafe { pages[1].read_raw(got.as_mut_ptr(), 1, 8) }?;
        assert_eq!(&got, b"\0efabcd\0");
        Ok(())
    }

    #[test]
    fn other_memory_is_not_filled_from_user_memory() -> Result {
        let mut memory = Memory::new(4, b'.')?;
        let raw = memory.iter(bindings::ITER_DEST);
        let mut iter = copy(&raw)?;
        let user = UserPtr::from_addr(support::user_page()?);
        assert_eq!(
            user_source(user, 4, |from| iter.copy_nofault(from, 1)),
            Ok(0)
        );
        assert_eq!(iter.len(), 4);
        Ok(())
    }

    #[test]
    fn user_memory_is_refused() -> Result {
        let mut memory = Memory::new(4, 0)?;
        for kind in [
            bindings::iter_type_ITER_UBUF,
            bindings::iter_type_ITER_IOVEC,
        ] {
            let mut raw = memory.iter(bindings::ITER_DEST);
            raw.iter_type = kind as u8;
            assert_eq!(copy(&raw).err(), Some(EINVAL));
        }
        Ok(())
    }

    fn copy_source(raw: &bindings::iov_iter) -> Result<KernelSource> {
        // SAFETY: As above.
        unsafe { KernelSource::copy_of(raw) }
    }

    // What reads from it, where the last read ended.
    fn taken(from: &mut KernelSource, buf: &mut [u8]) -> usize {
        // SAFETY: By the invariant it is a valid source; the result is used while it is borrowed.
        unsafe { IovIterSource::from_raw(from.as_raw()) }.copy_from_iter(buf)
    }

    #[test]
    fn source_is_cut_and_extended() -> Result {
        let mut memory = Memory::new(10, b'.')?;
        let mut raw = memory.iter(bindings::ITER_DEST);
        dest(&mut copy(&raw)?).copy_to_iter(b"0123456789");
        raw = memory.iter(bindings::ITER_SOURCE);
        let mut from = copy_source(&raw)?;
        assert_eq!(from.len(), 10);
        from.advance(2);
        from.truncate(4);
        // No longer than it was.
        from.truncate(9);
        assert_eq!(from.len(), 4);
        // SAFETY: The memory goes on for as long.
        unsafe { from.extend(1) };
        let mut buf = [b'.'; 8];
        assert_eq!(taken(&mut from, &mut buf[..3]), 3);
        assert_eq!(taken(&mut from, &mut buf[3..]), 2);
        assert_eq!(&buf, b"23456...");
        assert_eq!(from.len(), 0);
        // There is nothing to go on to.
        from.advance(1);
        assert_eq!(from.len(), 0);
        // The original did not move.
        assert_eq!(copy_source(&raw)?.len(), 10);
        Ok(())
    }

    #[test]
    fn source_is_of_kernel_memory() -> Result {
        let mut memory = Memory::new(4, 0)?;
        let raw = memory.iter(bindings::ITER_DEST);
        assert_eq!(copy_source(&raw).err(), Some(EINVAL));
        for kind in [
            bindings::iter_type_ITER_UBUF,
            bindings::iter_type_ITER_IOVEC,
        ] {
            let mut raw = memory.iter(bindings::ITER_SOURCE);
            // CAST: A small number.
            raw.iter_type = kind as u8;
            assert_eq!(copy_source(&raw).err(), Some(EINVAL));
        }
        Ok(())
    }
}
