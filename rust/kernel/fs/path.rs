// SPDX-License-Identifier: GPL-2.0

//! Mounts and paths.
//!
//! C headers: [`include/linux/mount.h`](srctree/include/linux/mount.h),
//! [`include/linux/path.h`](srctree/include/linux/path.h)
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fs::path::Path,
//!     prelude::*, //
//! };
//!
//! /// The free space of the file system on which the directory `name` is, in bytes.
//! fn free_space(name: &CStr) -> Result<u64> {
//!     let dir = Path::lookup_dir(name)?;
//!     let stats = dir.mount.statfs()?;
//!     let block_size = u64::try_from(stats.block_size).map_err(|_| ERANGE)?;
//!     Ok(stats.blocks_available.saturating_mul(block_size))
//! }
//! ```

use super::dentry::Dentry;
use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::aref::{
        ARef,
        AlwaysRefCounted, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// The mapping of user ids of a mount that maps none, for what is done without a mount.
pub(super) fn nop_idmap() -> *mut bindings::mnt_idmap {
    core::ptr::addr_of_mut!(bindings::nop_mnt_idmap)
}

/// A `struct vfsmount`.
///
/// # Invariants
///
/// The mount is valid and a reference to it is held, so that its superblock is active.
#[repr(transparent)]
pub(crate) struct Mount(Opaque<bindings::vfsmount>);

// SAFETY: A mount is not tied to a task: `mntput` may be called by any.
unsafe impl Send for Mount {}

// SAFETY: The methods below only call functions that look after the locking, and read what does not
// change.
unsafe impl Sync for Mount {}

// SAFETY: `mntget` and `mntput` count references.
unsafe impl AlwaysRefCounted for Mount {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: By the invariant the count is positive.
        unsafe { bindings::mntget(self.as_ptr()) };
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference.
        unsafe { bindings::mntput(obj.cast().as_ptr()) };
    }
}

/// How much room a file system has, in its own units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statfs {
    /// Bytes in a block.
    pub(crate) block_size: i64,
    /// Blocks that there are in all.
    pub(crate) blocks: u64,
    /// Blocks that may be allocated by those who are not privileged.
    pub(crate) blocks_available: u64,
    /// Files that there may be in all.
    pub(crate) files: u64,
    /// Files that may be created.
    pub(crate) files_free: u64,
}

impl Mount {
    /// The mount as C knows it.
    #[inline]
    pub(in crate::kernel_next) fn as_ptr(&self) -> *mut bindings::vfsmount {
        self.0.get()
    }

    /// The path of `dentry` on this mount, for as long as both are borrowed.
    pub(super) fn path_of(&self, dentry: &Dentry) -> bindings::path {
        bindings::path {
            mnt: self.as_ptr(),
            dentry: dentry.as_ptr(),
        }
    }

    /// Whether `dentry` is of the file system that is mounted.
    #[inline]
    pub(crate) fn holds(&self, dentry: &Dentry) -> bool {
        dentry.sb() == self.sb()
    }

    /// How the mount maps user ids. Valid for as long as the mount.
    #[inline]
    pub(super) fn idmap(&self) -> *mut bindings::mnt_idmap {
        // SAFETY: The mount is valid.
        unsafe { bindings::mnt_idmap(self.as_ptr()) }
    }

    #[inline]
    fn sb(&self) -> *mut bindings::super_block {
        // SAFETY: The mount is valid, and keeps its superblock.
        unsafe { (*self.as_ptr()).mnt_sb }
    }

    /// Whether user ids are mapped.
    #[inline]
    pub(crate) fn is_idmapped(&self) -> bool {
        self.idmap() != nop_idmap()
    }

    /// Whether the file system is read-only, as of some moment. The mount may be read-only when the
    /// file system is not: [`Self::want_write`] tells.
    #[inline]
    pub(crate) fn is_readonly(&self) -> bool {
        // SAFETY: By the invariant the mount keeps its superblock active, and so valid.
        unsafe { bindings::sb_rdonly(self.sb()) }
    }

    /// The block size of the superblock, in bytes.
    #[inline]
    pub(crate) fn super_block_size(&self) -> usize {
        // SAFETY: By the invariant the mount keeps its superblock valid; the block size does not
        // change while it is mounted.
        unsafe { (*self.sb()).s_blocksize }
    }

    /// Whether the file system keeps its files in those of another, as overlayfs does: then the
    /// page cache and the errors of a file are those of the other's.
    #[inline]
    pub(crate) fn is_stacked(&self) -> bool {
        // SAFETY: By the invariant the mount keeps its superblock valid; the depth does not change.
        unsafe { (*self.sb()).s_stack_depth != 0 }
    }

    /// The largest size that a file may have, in bytes.
    #[inline]
    pub(crate) fn max_file_size(&self) -> i64 {
        // SAFETY: By the invariant the mount keeps its superblock valid; its limits do not change.
        unsafe { (*self.sb()).s_maxbytes }
    }

    /// Whether the file system can tell its free space and write itself out.
    pub(crate) fn can_statfs_and_sync(&self) -> bool {
        // SAFETY: By the invariant the mount keeps its superblock active. The operations are a
        // constant of the file system's code, which is there for as long.
        let op = unsafe { &*(*self.sb()).s_op };
        op.statfs.is_some() && op.sync_fs.is_some()
    }

    /// How much room there is. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOSYS` if the file system does not tell; what it says.
    pub(crate) fn statfs(&self) -> Result<Statfs> {
        // SAFETY: The mount is valid, keeps its root, and its superblock is active.
        let root = unsafe { Dentry::from_raw((*self.as_ptr()).mnt_root) };
        let path = self.path_of(root);
        let mut buf = MaybeUninit::<bindings::kstatfs>::zeroed();
        // SAFETY: `path` is valid and `buf` is what the function fills. The cast is between two
        // declarations of one structure.
        to_result(unsafe { bindings::vfs_statfs(&path, buf.as_mut_ptr().cast()) })?;
        // SAFETY: Zeroed, and filled by the call above.
        let buf = unsafe { buf.assume_init() };
        Ok(Statfs {
            block_size: buf.f_bsize as i64,
            blocks: buf.f_blocks,
            blocks_available: buf.f_bavail,
            files: buf.f_files,
            files_free: buf.f_ffree,
        })
    }

    /// Writes the file system out, and waits for that.
    ///
    /// # Errors
    ///
    /// What writing says, as `EIO`.
    pub(crate) fn sync(&self) -> Result {
        // SAFETY: By the invariant the mount keeps its superblock active, and so valid.
        let umount = unsafe { core::ptr::addr_of_mut!((*self.sb()).s_umount) };
        // SAFETY: The lock is valid, and the caller may sleep.
        unsafe { bindings::down_read(umount) };
        // SAFETY: The superblock is valid and `s_umount` is held, as the function wants it.
        let ret = unsafe { bindings::sync_filesystem(self.sb()) };
        // SAFETY: Locked above, by this task.
        unsafe { bindings::up_read(umount) };
        to_result(ret)
    }

    /// Gets write access: changes below are not interrupted by a freeze or a read-only remount.
    ///
    /// Sleeps while the file system is frozen. A task that has write access must not get it again,
    /// nor write to or truncate a file, which gets it, too: a freeze in between would make the task
    /// wait for itself.
    ///
    /// # Errors
    ///
    /// `EROFS` if the mount or the file system is read-only.
    pub(crate) fn want_write(&self) -> Result<WriteAccess<'_>> {
        // SAFETY: The mount is valid, and the caller may sleep.
        to_result(unsafe { bindings::mnt_want_write(self.as_ptr()) })?;
        // INVARIANT: Write access was just given to this task.
        Ok(WriteAccess {
            mount: self,
            _task: NotThreadSafe,
        })
    }
}

/// Write access to a mount, from [`Mount::want_write`], until it is dropped. What changes a
/// directory wants to see it.
///
/// # Invariants
///
/// The task has write access to `mount`, and it is this value's to give up.
#[must_use = "write access is given up immediately when it is unused"]
pub(crate) struct WriteAccess<'a> {
    mount: &'a Mount,
    // It is given up by the task that got it.
    _task: NotThreadSafe,
}

impl WriteAccess<'_> {
    /// The mount that may be written to.
    #[inline]
    pub(crate) fn mount(&self) -> &Mount {
        self.mount
    }
}

impl Drop for WriteAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant there is access to be given up.
        unsafe { bindings::mnt_drop_write(self.mount.as_ptr()) };
    }
}

/// A place in the tree of directories, that is, a name on a mount.
#[derive(Clone)]
pub(crate) struct Path {
    /// The name. Let go before the mount, so that the mount is the last to keep the file system.
    pub(crate) dentry: ARef<Dentry>,
    /// The mount.
    pub(crate) mount: ARef<Mount>,
}

/// What the working directory of this task is part of; `None` if the task is about to end, and has
/// let go of it.
fn current_fs() -> Option<NonNull<bindings::fs_struct>> {
    // SAFETY: The current task is valid, and nobody but itself changes this member.
    NonNull::new(unsafe { (*bindings::get_current()).fs })
}

impl Path {
    /// # Safety
    ///
    /// The members of `path` must be valid, and the caller must own a reference to each of them,
    /// which it gives up.
    unsafe fn from_raw(path: bindings::path) -> Result<Self> {
        let (Some(mnt), Some(dentry)) = (NonNull::new(path.mnt), NonNull::new(path.dentry)) else {
            return Err(ENOENT);
        };
        // SAFETY: The caller gives its reference. `Mount` is a transparent wrapper.
        let mount: ARef<Mount> = unsafe { ARef::from_raw(mnt.cast()) };
        // SAFETY: The caller gives its reference, and the mount has the superblock active.
        let dentry = unsafe { Dentry::from_owned(dentry) };
        Ok(Path { dentry, mount })
    }

    /// Looks `name` up, which has to be a directory, from the task's working directory if it is
    /// relative; that is also what an empty name is. A symbolic link at the end of `name` is not
    /// followed, unless a slash comes after it. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is nothing of that name, `ENOTDIR` if it is no directory, `ESRCH` if the
    /// task is about to end, and has no directories any more; what looking up says.
    pub(crate) fn lookup_dir(name: &CStr) -> Result<Self> {
        if current_fs().is_none() {
            return Err(ESRCH);
        }
        let mut path = MaybeUninit::<bindings::path>::zeroed();
        // SAFETY: `name` is terminated, `path` is what the function fills, and the task has a root
        // and a working directory.
        to_result(unsafe {
            bindings::kern_path(
                name.as_char_ptr(),
                bindings::LOOKUP_DIRECTORY,
                path.as_mut_ptr(),
            )
        })?;
        // SAFETY: The function returned success, so it gave references to both members.
        unsafe { Path::from_raw(path.assume_init()) }
    }

    /// The task's working directory.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task is about to end, and has none any more.
    pub(crate) fn current_dir() -> Result<Self> {
        let fs = current_fs().ok_or(ESRCH)?;
        let mut path = MaybeUninit::<bindings::path>::zeroed();
        // SAFETY: The task keeps `fs` for as long as it runs here, and `path` is what the function
        // fills.
        unsafe { bindings::get_fs_pwd(fs.as_ptr(), path.as_mut_ptr()) };
        // SAFETY: The function gave references to both members.
        unsafe { Path::from_raw(path.assume_init()) }
    }
}

#[kunit_tests(rust_path)]
mod tests {
    use super::*;
    use crate::kernel_next::kunit::{
        scratch,
        support, //
    };

    fn dir() -> Result<Path> {
        scratch::dir(b"kunit-path")
    }

    #[test]
    fn lookup_finds_directories_only() -> Result {
        scratch::attach_fs()?;
        assert!(Path::lookup_dir(c"/").is_ok());
        assert!(Path::lookup_dir(c"/./").is_ok());
        assert_eq!(Path::lookup_dir(c"/kunit-none").err(), Some(ENOENT));
        if Path::lookup_dir(c"/proc/fs").is_err() {
            support::skip(c"there is no /proc");
        }
        assert!(Path::lookup_dir(c"/proc/../proc/fs").is_ok());
        assert_eq!(Path::lookup_dir(c"/proc/version").err(), Some(ENOTDIR));
        assert_eq!(Path::lookup_dir(c"/proc/version/x").err(), Some(ENOTDIR));
        Ok(())
    }

    #[test]
    fn kernel_threads_have_an_empty_root() {
        assert_eq!(Path::lookup_dir(c"/proc").err(), Some(ENOENT));
    }

    #[test]
    fn working_directory_is_where_relative_names_begin() -> Result {
        scratch::attach_fs()?;
        let pwd = Path::current_dir()?;
        // No name at all is a name, too.
        for name in [c".", c""] {
            let found = Path::lookup_dir(name)?;
            assert!(core::ptr::eq(&*pwd.dentry, &*found.dentry));
            assert!(core::ptr::eq(&*pwd.mount, &*found.mount));
        }
        Ok(())
    }

    #[test]
    fn mounts_tell_their_file_systems_apart() -> Result {
        let dir = dir()?;
        let other = Path::lookup_dir(c"/")?;
        assert!(dir.mount.holds(&dir.dentry) && other.mount.holds(&other.dentry));
        assert!(!dir.mount.holds(&other.dentry) && !other.mount.holds(&dir.dentry));
        Ok(())
    }

    #[test]
    fn room_makes_sense() -> Result {
        // A tmpfs may have no limits.
        let dir = scratch::dir_on_disk(b"kunit-path")?;
        assert!(dir.mount.can_statfs_and_sync());
        let room = dir.mount.statfs()?;
        assert!(room.block_size >= 512 && room.blocks > 0 && room.files > 0);
        assert!(room.blocks_available <= room.blocks);
        assert!(room.files_free < room.files);
        assert!(dir.mount.super_block_size().is_power_of_two());
        assert!(dir.mount.max_file_size() > 1 << 40);
        assert!(!dir.mount.is_readonly() && !dir.mount.is_idmapped());
        Ok(())
    }

    #[test]
    fn write_access_ends_with_the_guard() -> Result {
        let dir = dir()?;
        for _ in 0..3 {
            let write = dir.mount.want_write()?;
            assert!(core::ptr::eq(write.mount(), &*dir.mount));
        }
        // Lock checking would report what is still held.
        dir.mount.sync()
    }

    #[test]
    fn read_only_mounts_give_no_write_access() -> Result {
        // KUnit's thread is on one that is read-only for ever.
        let empty = Path::lookup_dir(c"/")?;
        assert_eq!(empty.mount.want_write().err(), Some(EROFS));
        Ok(())
    }
}
