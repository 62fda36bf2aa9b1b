// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! C header: [`include/linux/fs.h`](srctree/include/linux/fs.h)
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fs::{
//!         inode::Operation,
//!         path::{
//!             InUse,
//!             Path, //
//!         }, //
//!     },
//!     prelude::*, //
//! };
//!
//! /// Keeps a directory from being removed, if others can be made in it.
//! fn keep_directory(dir: Path) -> Result<InUse> {
//!     let inode = dir.dentry().inode().ok_or(ENOENT)?;
//!     if !inode.supports(&[Operation::Lookup, Operation::Mkdir]) {
//!         return Err(EOPNOTSUPP);
//!     }
//!     dir.mark_in_use()
//! }
//! ```

use crate::{
    bindings,
    kernel_next::tracepoint::Traced, //
};
use kernel::types::Opaque;

/// A `struct inode`, borrowed from what keeps it.
///
/// # Invariants
///
/// The inode is valid, a reference to it is held, and its superblock is active.
#[repr(transparent)]
pub(crate) struct Inode(Opaque<bindings::inode>);

// SAFETY: The methods below only call functions that look after the locking, lock the inode, or
// read what does not change or is read as a whole.
unsafe impl Sync for Inode {}

// SAFETY: By the invariant it is valid. Its number, which is what tracepoints record, does not
// change.
unsafe impl Traced for Inode {
    type Raw = bindings::inode;

    #[inline(always)]
    fn as_raw(&self) -> *mut bindings::inode {
        self.as_ptr()
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

    /// What the file takes up on the disk, in units of 512 bytes, as of some moment.
    #[inline]
    pub(crate) fn sectors(&self) -> u64 {
        // SAFETY: The inode is valid. The file system changes the member under a lock that is not
        // taken here, so the access is volatile.
        unsafe { (&raw const (*self.as_ptr()).i_blocks).read_volatile() }
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

    /// Sets or clears the mark that the kernel uses the inode (`S_KERNEL_FILE`); returns whether it
    /// was set. Takes the inode lock, so it may sleep.
    pub(super) fn assign_kernel_file(&self, value: bool) -> bool {
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

    /// Whether the kernel uses the inode already, as of some moment: then
    /// [`Path::mark_in_use`](super::path::Path::mark_in_use) fails.
    pub(crate) fn is_in_use(&self) -> bool {
        self.flags() & bindings::S_KERNEL_FILE != 0
    }
}

#[kernel::prelude::kunit_tests(rust_inode)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        cred::NewCredential,
        fs::kernel_file::KernelFile,
        kunit::scratch, //
    };
    use kernel::prelude::*;

    fn file() -> Result<KernelFile> {
        let dir = scratch::dir(b"kunit-inode")?;
        let write = dir.mount().want_write()?;
        KernelFile::tmpfile(&write, &dir, &NewCredential::kernel()?.into_credential())
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
        let inode = dir.dentry().inode().ok_or(ENOENT)?;
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
        let inode = dir.dentry().inode().ok_or(ENOENT)?;
        assert!(inode.supports(&[Operation::Xattr]));
        // One that is wanting is enough.
        let file = KernelFile::tmpfile(
            &dir.mount().want_write()?,
            &dir,
            &NewCredential::kernel()?.into_credential(),
        )?;
        let inode = file.inode();
        assert!(inode.supports(&[Operation::Xattr]));
        assert!(!inode.supports(&[Operation::Xattr, Operation::Mkdir]));
        Ok(())
    }
}
