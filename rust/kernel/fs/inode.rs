// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fs::inode::{
//!         InUse,
//!         Inode,
//!         Operation, //
//!     },
//!     prelude::*, //
//! };
//!
//! /// Keeps a directory from being removed, if others can be made in it.
//! fn keep_directory(inode: &Inode) -> Result<InUse> {
//!     if !inode.supports(&[Operation::Lookup, Operation::Mkdir]) {
//!         return Err(EOPNOTSUPP);
//!     }
//!     inode.mark_in_use().ok_or(EBUSY)
//! }
//! ```

use super::superblock::{
    activate,
    deactivate, //
};
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
/// An `ARef<Inode>` also keeps the superblock active, as a mount does: a file system that is
/// unmounted meanwhile is shut down when the last one is dropped. Dropping one may sleep.
///
/// # Invariants
///
/// The inode is valid, a reference to it is held, and its superblock is active.
#[repr(transparent)]
pub(crate) struct Inode(Opaque<bindings::inode>);

// SAFETY: An inode is not tied to a task: `iput` and `deactivate_super` may be called by any.
unsafe impl Send for Inode {}

// SAFETY: The methods below only call functions that look after the locking, lock the inode, or
// read what does not change or is read as a whole.
unsafe impl Sync for Inode {}

// SAFETY: `ihold` and `iput` count references to the inode. It needs its superblock for as long,
// which `activate` and `deactivate` count references to.
unsafe impl AlwaysRefCounted for Inode {
    fn inc_ref(&self) {
        // SAFETY: By the invariant the superblock is valid, and active.
        unsafe { activate(self.sb()) };
        // SAFETY: By the invariant the count is positive, as `ihold` wants it.
        unsafe { bindings::ihold(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller has a reference, so the inode is valid, and keeps its superblock.
        let sb = unsafe { obj.as_ref() }.sb();
        // SAFETY: The caller gives up a reference.
        unsafe { bindings::iput(obj.cast().as_ptr()) };
        // SAFETY: That reference was also one to the active superblock.
        unsafe { deactivate(sb) };
    }
}

/// What a file system may be able to do with an inode; see [`Inode::supports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Looking up a name in a directory.
    Lookup,
    /// Making a directory in a directory.
    Mkdir,
    /// Moving entries out of and into a directory.
    Rename,
    /// Removing a directory from a directory.
    Rmdir,
    /// Making files without a name in a directory.
    Tmpfile,
    /// Removing a file from a directory.
    Unlink,
    /// Keeping extended attributes.
    Xattr,
}

impl Inode {
    /// Borrows an inode.
    ///
    /// # Safety
    ///
    /// `ptr` must be valid, and the caller must see to it that for `'a` a reference to it is held
    /// and its superblock is active.
    #[inline]
    pub(in crate::kernel_next) unsafe fn from_raw<'a>(ptr: *const bindings::inode) -> &'a Self {
        // INVARIANT: As the caller guarantees.
        // SAFETY: The caller guarantees that it is valid. `Inode` is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    /// The inode as C knows it.
    #[inline]
    pub(in crate::kernel_next) fn as_ptr(&self) -> *mut bindings::inode {
        self.0.get()
    }

    #[inline]
    fn sb(&self) -> *mut bindings::super_block {
        // SAFETY: The inode is valid, and its superblock does not change.
        unsafe { (*self.as_ptr()).i_sb }
    }

    /// The inode number.
    #[inline]
    pub(crate) fn ino(&self) -> u64 {
        // SAFETY: The inode is valid, and its number does not change while it is referenced.
        unsafe { (*self.as_ptr()).i_ino }
    }

    /// The size in bytes, as of some moment.
    #[inline]
    pub(crate) fn size(&self) -> i64 {
        // SAFETY: The inode is valid.
        unsafe { bindings::i_size_read(self.as_ptr()) }
    }

    /// The number of bytes in a block, a power of two.
    #[inline]
    pub(crate) fn block_size(&self) -> u64 {
        // SAFETY: The inode is valid, and this does not change while it is in use.
        1 << unsafe { (*self.as_ptr()).i_blkbits }
    }

    /// Whether names in this directory are looked up without regard to case.
    pub(crate) fn is_casefolded(&self) -> bool {
        self.flags() & bindings::S_CASEFOLD != 0
    }

    /// When the inode was last changed, as a number that has no other meaning than that it is
    /// another after a change, once [`Self::note_change_time`] has returned it. Does not sleep.
    #[inline]
    pub(crate) fn change_time(&self) -> u64 {
        // SAFETY: The inode is valid. Others may change it meanwhile: whoever reads half of each
        // time has neither of them.
        let (sec, nsec) = unsafe {
            let inode = self.as_ptr();
            (
                core::ptr::addr_of!((*inode).i_ctime_sec).read_volatile(),
                core::ptr::addr_of!((*inode).i_ctime_nsec).read_volatile(),
            )
        };
        // CAST: All bits of it, to be compared.
        (sec as u64) << 30 ^ u64::from(nsec & !bindings::I_CTIME_QUERIED)
    }

    /// [`Self::change_time`], which changes with the next change from here on, where the file
    /// system tells times apart that are close to each other. What was under way when it was noted
    /// is over when this returns. Takes the inode lock for that, so it may sleep.
    pub(crate) fn note_change_time(&self) -> u64 {
        // SAFETY: The inode is valid.
        unsafe { bindings::inode_note_ctime(self.as_ptr()) };
        let time = self.change_time();
        // SAFETY: The inode is valid, and the caller may sleep.
        unsafe { bindings::inode_lock_shared(self.as_ptr()) };
        // SAFETY: Locked above, by this task.
        unsafe { bindings::inode_unlock_shared(self.as_ptr()) };
        time
    }

    fn has_xattrs(&self) -> bool {
        // SAFETY: The inode is valid. Others may set other flags meanwhile.
        let flags = unsafe { core::ptr::addr_of!((*self.as_ptr()).i_opflags).read_volatile() };
        u32::from(flags) & bindings::IOP_XATTR != 0
    }

    /// Whether the inode's file system implements all of `operations` for it.
    pub(crate) fn supports(&self, operations: &[Operation]) -> bool {
        // SAFETY: The inode is valid. Its operations are not null, and are a constant of the file
        // system's code, which is there for as long as the superblock is active.
        let op = unsafe { &*(*self.as_ptr()).i_op };
        operations.iter().all(|operation| match operation {
            Operation::Lookup => op.lookup.is_some(),
            Operation::Mkdir => op.mkdir.is_some(),
            Operation::Rename => op.rename.is_some(),
            Operation::Rmdir => op.rmdir.is_some(),
            Operation::Tmpfile => op.tmpfile.is_some(),
            Operation::Unlink => op.unlink.is_some(),
            Operation::Xattr => self.has_xattrs(),
        })
    }

    fn flags(&self) -> u32 {
        // SAFETY: The inode is valid. Others may set flags meanwhile.
        unsafe { core::ptr::addr_of!((*self.as_ptr()).i_flags).read_volatile() }
    }

    /// Sets or clears the mark that the kernel uses the inode; returns whether it was set.
    fn assign_kernel_file(&self, value: bool) -> bool {
        let flag = bindings::S_KERNEL_FILE;
        // SAFETY: The inode is valid, and the caller may sleep.
        unsafe { bindings::inode_lock(self.as_ptr()) };
        // Under the lock nobody else sets or clears this flag.
        let old = self.flags();
        // SAFETY: The inode is valid. The function is atomic: not all who set others have the lock.
        unsafe { bindings::inode_set_flags(self.as_ptr(), if value { flag } else { 0 }, flag) };
        // SAFETY: Locked above, by this task.
        unsafe { bindings::inode_unlock(self.as_ptr()) };
        old & flag != 0
    }

    /// Tells user space and other parts of the kernel to keep their hands off the inode
    /// (`S_KERNEL_FILE`): a directory that has the mark cannot be removed. `None` if it has it
    /// already.
    ///
    /// Takes the inode lock, so it may sleep, and must not be called for a directory that the task
    /// has locked to change it.
    pub(crate) fn mark_in_use(&self) -> Option<InUse> {
        // INVARIANT: The mark was not there, so it is ours.
        (!self.assign_kernel_file(true)).then(|| InUse(self.into()))
    }

    /// Whether [`Self::mark_in_use`] would fail, as of some moment.
    pub(crate) fn is_in_use(&self) -> bool {
        self.flags() & bindings::S_KERNEL_FILE != 0
    }
}

/// The mark that [`Inode::mark_in_use`] sets. Dropping it takes the mark away, and the inode lock
/// for that: the same holds as for setting it.
///
/// # Invariants
///
/// The inode has the mark, and it is this value's to take away.
#[must_use = "the mark is taken away immediately when it is unused"]
pub(crate) struct InUse(ARef<Inode>);

impl Drop for InUse {
    fn drop(&mut self) {
        // By the invariant it was set.
        self.0.assign_kernel_file(false);
    }
}

#[kernel::prelude::kunit_tests(rust_inode)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        cred::NewCredential,
        fs::kernel_file::KernelFile,
        kunit::{
            scratch,
            support, //
        }, //
    };
    use kernel::prelude::*;

    fn count(inode: &Inode) -> i32 {
        // SAFETY: The inode is valid.
        unsafe { bindings::kunit_i_count(inode.as_ptr()) }
    }

    fn is_locked(inode: &Inode) -> bool {
        // SAFETY: The inode is valid.
        unsafe { bindings::kunit_inode_is_locked(inode.as_ptr()) }
    }

    fn file() -> Result<KernelFile> {
        let dir = scratch::dir(b"kunit-inode")?;
        let write = dir.mount.want_write()?;
        KernelFile::tmpfile(
            &write,
            &dir.dentry,
            &NewCredential::kernel()?.into_credential(),
        )
    }

    #[test]
    fn mark_is_exclusive_and_goes_with_the_guard() -> Result {
        let file = file()?;
        let inode = file.inode();
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
        let inode = file.inode();
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
        let inode = ARef::from(file.inode());
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
        let inode = file.inode();
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
        const DIR: [Operation; 6] = [
            Operation::Lookup,
            Operation::Mkdir,
            Operation::Rename,
            Operation::Rmdir,
            Operation::Tmpfile,
            Operation::Unlink,
        ];
        let dir = scratch::dir(b"kunit-inode")?;
        let inode = dir.dentry.inode().ok_or(ENOENT)?;
        assert!(inode.supports(&DIR));
        let file = file()?;
        let inode = file.inode();
        for operation in DIR {
            assert!(!inode.supports(&[operation]));
        }
        assert!(inode.supports(&[]));
        Ok(())
    }

    #[test]
    fn operations_include_attributes() -> Result {
        let dir = scratch::dir_on_disk(b"kunit-inode")?;
        let inode = dir.dentry.inode().ok_or(ENOENT)?;
        assert!(inode.supports(&[Operation::Xattr]));
        // One that is wanting is enough.
        let file = KernelFile::tmpfile(
            &dir.mount.want_write()?,
            &dir.dentry,
            &NewCredential::kernel()?.into_credential(),
        )?;
        let inode = file.inode();
        assert!(inode.supports(&[Operation::Xattr]));
        assert!(!inode.supports(&[Operation::Xattr, Operation::Mkdir]));
        Ok(())
    }

    #[test]
    fn reference_keeps_the_superblock() -> Result {
        let inode = {
            let file = file()?;
            ARef::from(file.inode())
        };
        support::close_files();
        // SAFETY: The inode is valid, and so is its superblock.
        let active = || unsafe { (*inode.sb()).s_active.counter };
        let before = active();
        let other = inode.clone();
        assert_eq!(active(), before + 1);
        drop(other);
        assert_eq!(active(), before);
        Ok(())
    }
}
