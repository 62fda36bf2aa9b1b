// SPDX-License-Identifier: GPL-2.0

//! Directory entries.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fs::dentry::Dentry,
//!     prelude::*, //
//! };
//!
//! /// The size of the file that has the name `dentry`, in bytes.
//! fn size_of(dentry: &Dentry) -> Result<i64> {
//!     if dentry.is_dir() {
//!         return Err(EISDIR);
//!     }
//!     Ok(dentry.inode().ok_or(ENOENT)?.size())
//! }
//! ```

use super::inode::Inode;
use crate::{
    bindings,
    kernel_next::tracepoint::{
        Traced,
        NEGATIVE, //
    }, //
};
use core::{
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    sync::atomic::{
        ordering::Acquire,
        Atomic, //
    },
    types::Opaque, //
};

/// A `struct dentry`, borrowed from what keeps it: a [`Path`](super::path::Path), an open file, or
/// a directory operation.
///
/// While a reference is held, a positive dentry stays positive and keeps its inode; a negative one
/// may become positive.
///
/// # Invariants
///
/// The dentry is valid, a reference to it is held, and its superblock is active.
#[repr(transparent)]
pub(crate) struct Dentry(Opaque<bindings::dentry>);

// SAFETY: The methods below only call functions that look after the locking, and read what does not
// change or is read atomically.
unsafe impl Sync for Dentry {}

// SAFETY: By the invariant it is valid. That it may be negative is said.
unsafe impl Traced for Dentry {
    type Raw = bindings::dentry;

    const MAY_BE: u32 = NEGATIVE;

    #[inline(always)]
    fn as_raw(&self) -> *mut bindings::dentry {
        self.as_ptr()
    }
}

/// A [`Dentry`] that is positive, and stays so.
///
/// # Invariants
///
/// The dentry is positive.
#[repr(transparent)]
pub(crate) struct PositiveDentry(Dentry);

// SAFETY: By the invariants it is valid and positive.
unsafe impl Traced for PositiveDentry {
    type Raw = bindings::dentry;

    #[inline(always)]
    fn as_raw(&self) -> *mut bindings::dentry {
        self.as_ptr()
    }
}

impl Deref for PositiveDentry {
    type Target = Dentry;

    #[inline]
    fn deref(&self) -> &Dentry {
        &self.0
    }
}

impl Dentry {
    /// The dentry, if it is positive.
    pub(crate) fn positive(&self) -> Option<&PositiveDentry> {
        self.inode()?;
        // INVARIANT: It has an inode, and keeps it while a reference to it is held, as it is by the
        // invariant of `self`.
        // SAFETY: `PositiveDentry` is a transparent wrapper.
        Some(unsafe { &*(&raw const *self).cast() })
    }

    /// Borrows a dentry.
    ///
    /// # Safety
    ///
    /// `ptr` must be valid, and the caller must see to it that for `'a` a reference to it is held
    /// and its superblock is active.
    #[inline]
    pub(in crate::kernel_next) unsafe fn from_raw<'a>(ptr: *const bindings::dentry) -> &'a Self {
        // INVARIANT: As the caller guarantees.
        // SAFETY: The caller guarantees that it is valid. `Dentry` is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    /// The dentry as C knows it.
    #[inline]
    pub(in crate::kernel_next) fn as_ptr(&self) -> *mut bindings::dentry {
        self.0.get()
    }

    /// The inode; `None` if the dentry is negative.
    pub(crate) fn inode(&self) -> Option<&Inode> {
        // Whoever turns a negative dentry into a positive one does that with a release of the
        // flags: without an acquire the inode might not be seen as it was before that.
        // SAFETY: The flags are valid for as long as the dentry, aligned, and only written to as a
        // whole.
        let flags = unsafe {
            Atomic::<u32>::from_ptr(core::ptr::addr_of_mut!((*self.as_ptr()).d_flags)).load(Acquire)
        };
        // SAFETY: No preconditions.
        if unsafe { bindings::d_flags_negative(flags) } {
            return None;
        }
        // SAFETY: The dentry is valid.
        let inode = unsafe { bindings::d_inode(self.as_ptr()) };
        // SAFETY: By the invariant a reference to the dentry is held for the lifetime of `self`, so
        // that it stays positive, which means that it has a reference to its inode. They have the
        // same superblock.
        NonNull::new(inode).map(|inode| unsafe { Inode::from_raw(inode.as_ptr()) })
    }

    /// Whether there is nothing of this name, as of some moment: while the directory is not locked
    /// others may create something.
    #[inline]
    pub(crate) fn is_negative(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_is_negative(self.as_ptr()) }
    }

    /// Whether it is a directory.
    #[inline]
    pub(crate) fn is_dir(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_is_dir(self.as_ptr()) }
    }

    /// Whether it is a regular file.
    #[inline]
    pub(crate) fn is_regular(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_is_reg(self.as_ptr()) }
    }

    /// Whether names can be looked up in it. There are directories for which that is not so.
    #[inline]
    pub(crate) fn can_lookup(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_can_lookup(self.as_ptr()) }
    }

    /// Whether the name is gone from its directory, as of some moment.
    #[inline]
    pub(crate) fn is_unhashed(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_unhashed(self.as_ptr()) }
    }

    /// Whether something is mounted on it, in any namespace, as of some moment.
    #[inline]
    pub(crate) fn is_mountpoint(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_mountpoint(self.as_ptr()) }
    }

    /// Whether it is `ancestor` or somewhere below, as of some moment.
    #[inline]
    pub(crate) fn is_below(&self, ancestor: &Dentry) -> bool {
        // SAFETY: Both are valid; the function looks after the locking.
        unsafe { bindings::is_subdir(self.as_ptr(), ancestor.as_ptr()) }
    }
}

#[kernel::prelude::kunit_tests(rust_dentry)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        fs::{
            namei::{
                lookup_positive,
                Creating,
                Removing, //
            },
            path::Path, //
        },
        kunit::{
            scratch,
            support, //
        }, //
    };
    use kernel::prelude::*;

    fn count(dentry: &Dentry) -> i32 {
        // SAFETY: The dentry is valid.
        unsafe { bindings::kunit_d_count(dentry.as_ptr()) }
    }

    #[test]
    fn lookups_do_not_leak() -> Result {
        let dir = scratch::dir(b"kunit-dentry")?;
        let write = dir.mount().want_write()?;
        let child = Creating::start(&dir, b"lookups", &write)?;
        let child = match child.child().is_negative() {
            true => child.mkdir(0o700)?,
            false => child.keep(),
        };
        let before = (count(dir.dentry()), count(child.dentry()));
        for _ in 0..10 {
            assert!(lookup_positive(&dir, b"lookups").is_ok());
            assert_eq!(lookup_positive(&dir, b"none").err(), Some(ENOENT));
            drop(Creating::start(&dir, b"lookups", &write)?);
            drop(Removing::start(&dir, b"lookups", &write)?);
            drop(Removing::start_dentry(&dir, child.dentry(), &write)?);
        }
        // An entry that is not there stays in the cache, with a reference to the directory.
        let cached = count(dir.dentry()) - before.0;
        assert!((0..=1).contains(&cached));
        assert_eq!(count(child.dentry()), before.1);
        Ok(())
    }

    #[test]
    fn kinds_are_told_apart() -> Result {
        let dir = scratch::dir(b"kunit-dentry")?;
        assert!(dir.dentry().is_dir() && dir.dentry().can_lookup());
        assert!(!dir.dentry().is_regular() && !dir.dentry().is_negative());
        assert!(dir.dentry().inode().is_some());
        let positive = dir.dentry().positive().ok_or(ENOENT)?;
        assert!(core::ptr::eq(positive.as_ptr(), dir.dentry().as_ptr()));
        let write = dir.mount().want_write()?;
        let entry = Creating::start(&dir, b"none", &write)?;
        let child = entry.child();
        assert!(child.is_negative() && child.inode().is_none() && child.positive().is_none());
        assert!(!child.is_dir() && !child.is_regular() && !child.can_lookup());
        Ok(())
    }

    #[test]
    fn below_is_transitive_and_reflexive() -> Result {
        let dir = scratch::dir(b"kunit-dentry")?;
        let write = dir.mount().want_write()?;
        let entry = Creating::start(&dir, b"none", &write)?;
        assert!(entry.child().is_below(dir.dentry()));
        assert!(dir.dentry().is_below(dir.dentry()));
        assert!(!dir.dentry().is_below(entry.child()));
        Ok(())
    }

    #[test]
    fn mount_points_are_told() -> Result {
        scratch::attach_fs()?;
        if Path::lookup_dir(c"/proc/fs").is_err() {
            support::skip(c"there is no /proc, as when the kernel boots");
        }
        let dir = scratch::dir(b"kunit-dentry")?;
        assert!(!dir.dentry().is_mountpoint());
        // What is mounted there hides the directory; the mount's own root is none.
        let root = Path::lookup_dir(c"/")?;
        let below = lookup_positive(&root, b"proc")?;
        assert!(below.dentry().is_mountpoint());
        assert!(!Path::lookup_dir(c"/proc")?.dentry().is_mountpoint());
        Ok(())
    }
}
