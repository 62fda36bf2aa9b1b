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

    /// Whether the inode has the operations that a cache needs of a directory: extended
    /// attributes, lookup, mkdir, rename, rmdir and unlink.
    pub(crate) fn is_cache_dir(&self) -> bool {
        // SAFETY: The inode is valid; its operations are constant and there for as long as it is.
        let (flags, op) = unsafe { ((*self.as_ptr()).i_opflags, &*(*self.as_ptr()).i_op) };
        u32::from(flags) & bindings::IOP_XATTR != 0
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
        let (flags, op) = unsafe { ((*self.as_ptr()).i_opflags, &*(*self.as_ptr()).i_op) };
        u32::from(flags) & bindings::IOP_XATTR != 0
            && op.lookup.is_some()
            && op.mkdir.is_some()
            && op.tmpfile.is_some()
    }

    /// Tells user space and other caches to keep their hands off the inode (`S_KERNEL_FILE`).
    /// `None` if somebody else already has. Takes the inode lock.
    pub(crate) fn mark_in_use(&self) -> Option<InUse> {
        let inode = ARef::from(self);
        let flag = bindings::S_KERNEL_FILE;
        // SAFETY: The inode is valid, and the caller may sleep.
        unsafe { bindings::inode_lock(inode.as_ptr()) };
        // SAFETY: `i_flags` is protected by the inode lock, which is held.
        let flags = unsafe { &mut (*inode.as_ptr()).i_flags };
        let free = *flags & flag == 0;
        *flags |= flag;
        // SAFETY: Locked above.
        unsafe { bindings::inode_unlock(inode.as_ptr()) };
        // INVARIANT: The mark was not there, so it is ours.
        free.then_some(InUse(inode))
    }

    /// Whether [`Self::mark_in_use`] would fail, as of some moment.
    pub(crate) fn is_in_use(&self) -> bool {
        // SAFETY: The inode is valid.
        let flags = unsafe { core::ptr::addr_of!((*self.as_ptr()).i_flags).read_volatile() };
        flags & bindings::S_KERNEL_FILE != 0
    }
}

/// The mark that [`Inode::mark_in_use`] sets; dropping it takes the mark away.
///
/// # Invariants
///
/// The inode has the mark, and it is this value's to take away.
pub(crate) struct InUse(ARef<Inode>);

impl Drop for InUse {
    fn drop(&mut self) {
        // SAFETY: The inode is valid, and marks are dropped where it is allowed to sleep.
        unsafe { bindings::inode_lock(self.0.as_ptr()) };
        // SAFETY: `i_flags` is protected by the inode lock, which is held.
        unsafe { (*self.0.as_ptr()).i_flags &= !bindings::S_KERNEL_FILE };
        // SAFETY: Locked above.
        unsafe { bindings::inode_unlock(self.0.as_ptr()) };
    }
}
