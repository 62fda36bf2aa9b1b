// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::Opaque, //
};

/// A `struct inode`.
///
/// # Invariants
///
/// The inode is valid and its reference count is positive.
#[repr(transparent)]
pub(crate) struct Inode(Opaque<bindings::inode>);

// SAFETY: An inode is not tied to a task.
unsafe impl Send for Inode {}

// SAFETY: The methods below may be called from several tasks at once.
unsafe impl Sync for Inode {}

// SAFETY: `ihold` and `iput` count references.
unsafe impl AlwaysRefCounted for Inode {
    fn inc_ref(&self) {
        // SAFETY: By the invariant the count is positive, as `ihold` wants it.
        unsafe { bindings::ihold(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference.
        unsafe { bindings::iput(obj.cast().as_ptr()) };
    }
}

impl Inode {
    /// # Safety
    ///
    /// `ptr` must be a valid inode whose reference count stays positive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *const bindings::inode) -> &'a Self {
        // INVARIANT: As the caller guarantees. SAFETY: Likewise.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::inode {
        self.0.get()
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> i64 {
        // SAFETY: The inode is valid.
        unsafe { bindings::i_size_read(self.as_ptr()) }
    }

    fn has_xattrs(&self) -> bool {
        // SAFETY: The inode is valid. Others may set other flags meanwhile.
        let flags = unsafe { core::ptr::addr_of!((*self.as_ptr()).i_opflags).read_volatile() };
        u32::from(flags) & bindings::IOP_XATTR != 0
    }

    /// Sets or clears the mark that the kernel uses the inode; returns whether it was set.
    fn assign_kernel_file(&self, value: bool) -> bool {
        let flag = bindings::S_KERNEL_FILE;
        // SAFETY: The inode is valid, and the caller may sleep.
        unsafe { bindings::inode_lock(self.as_ptr()) };
        // SAFETY: The inode is valid. The lock is held by whoever writes, not by all who read.
        let flags = unsafe { core::ptr::addr_of_mut!((*self.as_ptr()).i_flags) };
        // SAFETY: As above.
        let old = unsafe { flags.read_volatile() };
        let new = if value { old | flag } else { old & !flag };
        // SAFETY: As above.
        unsafe { flags.write_volatile(new) };
        // SAFETY: Locked above.
        unsafe { bindings::inode_unlock(self.as_ptr()) };
        old & flag != 0
    }

    /// Whether the inode has the operations that a cache needs of a directory: extended
    /// attributes, lookup, mkdir, rename, rmdir and unlink.
    pub(crate) fn is_cache_dir(&self) -> bool {
        // SAFETY: The inode is valid; its operations are constant and there for as long as it is.
        let op = unsafe { &*(*self.as_ptr()).i_op };
        self.has_xattrs()
            && op.lookup.is_some()
            && op.mkdir.is_some()
            && op.rename.is_some()
            && op.rmdir.is_some()
            && op.unlink.is_some()
    }

    /// Whether the inode has the operations that a cache needs of its root: lookup, mkdir,
    /// tmpfile and extended attributes.
    pub(crate) fn is_cache_root(&self) -> bool {
        // SAFETY: As in `is_cache_dir`.
        let op = unsafe { &*(*self.as_ptr()).i_op };
        self.has_xattrs() && op.lookup.is_some() && op.mkdir.is_some() && op.tmpfile.is_some()
    }

    /// Tells user space and other caches to keep their hands off the inode (`S_KERNEL_FILE`).
    /// `None` if somebody else already has. Takes the inode lock.
    pub(crate) fn mark_in_use(&self) -> Option<InUse> {
        // INVARIANT: The mark was not there, so it is ours.
        (!self.assign_kernel_file(true)).then(|| InUse(self.into()))
    }

    /// Whether [`Self::mark_in_use`] would fail, as of some moment.
    pub(crate) fn is_in_use(&self) -> bool {
        // SAFETY: The inode is valid.
        let flags = unsafe { core::ptr::addr_of!((*self.as_ptr()).i_flags).read_volatile() };
        flags & bindings::S_KERNEL_FILE != 0
    }
}

/// The mark that [`Inode::mark_in_use`] sets; dropping it takes the mark away, and the inode lock for
/// that.
///
/// # Invariants
///
/// The inode has the mark, and it is this value's to take away.
pub(crate) struct InUse(ARef<Inode>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.assign_kernel_file(false);
    }
}

#[kernel::prelude::kunit_tests(rust_inode)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        cred::NewCredential,
        fs::{
            backing,
            path::Path, //
        },
        kunit::support, //
    };
    use kernel::{
        fs::File,
        prelude::*, //
    };

    fn count(inode: &Inode) -> i32 {
        // SAFETY: The inode is valid.
        unsafe { bindings::kunit_i_count(inode.as_ptr()) }
    }

    fn is_locked(inode: &Inode) -> bool {
        // SAFETY: The inode is valid.
        unsafe { bindings::kunit_inode_is_locked(inode.as_ptr()) }
    }

    fn file() -> Result<ARef<File>> {
        let dir = support::scratch(b"kunit-inode")?;
        let write = dir.mount.want_write()?;
        backing::tmpfile(&write, &dir.dentry, &NewCredential::kernel()?.commit())
    }

    #[test]
    fn mark_is_exclusive_and_goes_with_the_guard() -> Result {
        let file = file()?;
        let inode = backing::inode(&file);
        assert!(!inode.is_in_use());
        let mark = inode.mark_in_use();
        assert!(mark.is_some());
        assert!(inode.is_in_use());
        // Whoever fails to get it does not take it away.
        for _ in 0..2 {
            assert!(inode.mark_in_use().is_none());
            assert!(inode.is_in_use());
        }
        drop(mark);
        assert!(!inode.is_in_use());
        assert!(!is_locked(inode));
        assert!(inode.mark_in_use().is_some());
        assert!(!inode.is_in_use());
        Ok(())
    }

    #[test]
    fn mark_keeps_other_flags() -> Result {
        let file = file()?;
        let inode = backing::inode(&file);
        // SAFETY: The inode is valid, and nobody else knows of it.
        let flags = || unsafe { (*inode.as_ptr()).i_flags };
        // SAFETY: As above.
        unsafe { (*inode.as_ptr()).i_flags |= bindings::S_NOATIME };
        let before = flags();
        let mark = inode.mark_in_use().ok_or(EBUSY)?;
        assert_eq!(flags(), before | bindings::S_KERNEL_FILE);
        drop(mark);
        assert_eq!(flags(), before);
        Ok(())
    }

    #[test]
    fn mark_outlives_the_file() -> Result {
        let file = file()?;
        let inode = ARef::from(backing::inode(&file));
        let alone = count(&inode);
        let mark = inode.mark_in_use().ok_or(EBUSY)?;
        assert_eq!(count(&inode), alone + 1);
        drop(file);
        support::close_files();
        assert!(inode.is_in_use());
        drop(mark);
        assert!(!inode.is_in_use());
        // The last one.
        assert_eq!(count(&inode), 1);
        Ok(())
    }

    #[test]
    fn references_are_counted() -> Result {
        let file = file()?;
        let inode = backing::inode(&file);
        let before = count(inode);
        let one = ARef::from(inode);
        let two = one.clone();
        assert_eq!(count(inode), before + 2);
        drop(one);
        drop(two);
        assert_eq!(count(inode), before);
        Ok(())
    }

    #[test]
    fn operations_tell_what_an_inode_is_good_for() -> Result {
        let dir = support::scratch_on_disk(b"kunit-inode")?;
        let inode = dir.dentry.inode().ok_or(ENOENT)?;
        assert!(inode.is_cache_dir());
        assert!(inode.is_cache_root());
        let file = file()?;
        assert!(!backing::inode(&file).is_cache_dir());
        assert!(!backing::inode(&file).is_cache_root());
        // A file system without extended attributes.
        let proc = Path::lookup_dir(c"/proc")?;
        let inode = proc.dentry.inode().ok_or(ENOENT)?;
        assert!(!inode.is_cache_dir());
        assert!(!inode.is_cache_root());
        Ok(())
    }
}
