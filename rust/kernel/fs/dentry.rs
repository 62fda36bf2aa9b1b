// SPDX-License-Identifier: GPL-2.0

//! Directory entries.
//!
//! C header: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use super::inode::Inode;
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    sync::aref::AlwaysRefCounted,
    types::Opaque, //
};

/// A `struct dentry`.
///
/// While a reference is held, a positive dentry stays positive and keeps its inode; a negative one
/// may become positive.
///
/// # Invariants
///
/// The dentry is valid and its reference count is positive.
#[repr(transparent)]
pub(crate) struct Dentry(Opaque<bindings::dentry>);

// SAFETY: A dentry is not tied to a task.
unsafe impl Send for Dentry {}

// SAFETY: The methods below may be called from several tasks at once.
unsafe impl Sync for Dentry {}

// SAFETY: `dget` and `dput` count references.
unsafe impl AlwaysRefCounted for Dentry {
    fn inc_ref(&self) {
        // SAFETY: By the invariant the count is positive.
        unsafe { bindings::dget(self.as_ptr()) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference.
        unsafe { bindings::dput(obj.cast().as_ptr()) };
    }
}

impl Dentry {
    /// # Safety
    ///
    /// `ptr` must be a valid dentry whose reference count stays positive for `'a`.
    pub(crate) unsafe fn from_raw<'a>(ptr: *const bindings::dentry) -> &'a Self {
        // INVARIANT: As the caller guarantees. SAFETY: Likewise.
        unsafe { &*ptr.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::dentry {
        self.0.get()
    }

    /// The inode of a positive dentry.
    pub(crate) fn inode(&self) -> Option<&Inode> {
        // SAFETY: The dentry is valid.
        let inode = unsafe { bindings::d_inode(self.as_ptr()) };
        // SAFETY: A positive dentry keeps its inode while it is referenced, which it is for the
        // lifetime of `self`.
        NonNull::new(inode).map(|inode| unsafe { Inode::from_raw(inode.as_ptr()) })
    }

    pub(crate) fn is_negative(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_is_negative(self.as_ptr()) }
    }

    pub(crate) fn is_dir(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_is_dir(self.as_ptr()) }
    }

    pub(crate) fn is_regular(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_is_reg(self.as_ptr()) }
    }

    /// Whether names can be looked up in it.
    pub(crate) fn can_lookup(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_can_lookup(self.as_ptr()) }
    }

    /// Whether the name is gone from its directory, as of some moment.
    pub(crate) fn is_unhashed(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_unhashed(self.as_ptr()) }
    }

    /// Whether something is mounted on it, as of some moment.
    pub(crate) fn is_mountpoint(&self) -> bool {
        // SAFETY: The dentry is valid.
        unsafe { bindings::d_mountpoint(self.as_ptr()) }
    }

    /// Whether it is `ancestor` or somewhere below.
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
        kunit::support, //
    };
    use kernel::{
        prelude::*,
        sync::aref::ARef, //
    };

    fn count(dentry: &Dentry) -> i32 {
        // SAFETY: The dentry is valid.
        unsafe { bindings::kunit_d_count(dentry.as_ptr()) }
    }

    #[test]
    fn references_are_counted() -> Result {
        let dir = support::scratch(b"kunit-dentry")?;
        let before = count(&dir.dentry);
        let one = dir.dentry.clone();
        let two: ARef<Dentry> = ARef::from(&*one);
        assert_eq!(count(&dir.dentry), before + 2);
        drop(one);
        drop(two);
        assert_eq!(count(&dir.dentry), before);
        Ok(())
    }

    #[test]
    fn lookups_do_not_leak() -> Result {
        let dir = support::scratch(b"kunit-dentry")?;
        let write = dir.mount.want_write()?;
        let child = Creating::start(&dir.dentry, b"lookups", &write)?;
        let child = match child.child().is_negative() {
            true => child.mkdir(0o700)?,
            false => child.keep(),
        };
        let before = (count(&dir.dentry), count(&child));
        for _ in 0..10 {
            assert!(lookup_positive(&dir.dentry, b"lookups").is_ok());
            assert_eq!(lookup_positive(&dir.dentry, b"none").err(), Some(ENOENT));
            drop(Creating::start(&dir.dentry, b"lookups", &write)?);
            drop(Removing::start(&dir.dentry, b"lookups", &write)?);
            drop(Removing::start_dentry(&dir.dentry, &child, &write)?);
        }
        // An entry that is not there stays in the cache, with a reference to the directory.
        let cached = count(&dir.dentry) - before.0;
        assert!((0..=1).contains(&cached));
        assert_eq!(count(&child), before.1);
        Ok(())
    }

    #[test]
    fn kinds_are_told_apart() -> Result {
        let dir = support::scratch(b"kunit-dentry")?;
        assert!(dir.dentry.is_dir() && dir.dentry.can_lookup());
        assert!(!dir.dentry.is_regular() && !dir.dentry.is_negative());
        assert!(dir.dentry.inode().is_some());
        let write = dir.mount.want_write()?;
        let entry = Creating::start(&dir.dentry, b"none", &write)?;
        let child = entry.child();
        assert!(child.is_negative() && child.inode().is_none());
        assert!(!child.is_dir() && !child.is_regular() && !child.can_lookup());
        Ok(())
    }

    #[test]
    fn below_is_transitive_and_reflexive() -> Result {
        let dir = support::scratch(b"kunit-dentry")?;
        let write = dir.mount.want_write()?;
        let entry = Creating::start(&dir.dentry, b"none", &write)?;
        assert!(entry.child().is_below(&dir.dentry));
        assert!(dir.dentry.is_below(&dir.dentry));
        assert!(!dir.dentry.is_below(entry.child()));
        Ok(())
    }

    #[test]
    fn mount_points_are_told() -> Result {
        let dir = support::scratch(b"kunit-dentry")?;
        assert!(!dir.dentry.is_mountpoint());
        // What is mounted there hides the directory; the mount's own root is none.
        let root = Path::lookup_dir(c"/")?;
        let below = lookup_positive(&root.dentry, b"proc")?;
        assert!(below.is_mountpoint());
        assert!(!Path::lookup_dir(c"/proc")?.dentry.is_mountpoint());
        Ok(())
    }
}
