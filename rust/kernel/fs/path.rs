// SPDX-License-Identifier: GPL-2.0

//! Mounts and paths.
//!
//! C headers: [`include/linux/mount.h`](srctree/include/linux/mount.h),
//! [`include/linux/path.h`](srctree/include/linux/path.h)

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
    types::Opaque, //
};

/// The mapping of user ids of a mount that maps none: that of all mounts that are used here.
pub(super) fn idmap() -> *mut bindings::mnt_idmap {
    core::ptr::addr_of_mut!(bindings::nop_mnt_idmap)
}

/// A `struct vfsmount`.
///
/// # Invariants
///
/// The mount is valid and its reference count is positive.
#[repr(transparent)]
pub(crate) struct Mount(Opaque<bindings::vfsmount>);

// SAFETY: A mount is not tied to a task.
unsafe impl Send for Mount {}

// SAFETY: The methods below may be called from several tasks at once.
unsafe impl Sync for Mount {}

// SAFETY: `mntget` and `mntput` count references.
unsafe impl AlwaysRefCounted for Mount {
    fn inc_ref(&self) {
        // SAFETY: By the invariant the count is positive.
        unsafe { bindings::mntget(self.as_ptr()) };
    }

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
    pub(crate) blocks: u64,
    /// Blocks that may be allocated.
    pub(crate) blocks_available: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

impl Mount {
    pub(crate) fn as_ptr(&self) -> *mut bindings::vfsmount {
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
    pub(super) fn holds(&self, dentry: &Dentry) -> bool {
        // SAFETY: The dentry is valid, and its superblock does not change.
        unsafe { (*dentry.as_ptr()).d_sb == self.sb() }
    }

    fn sb(&self) -> *mut bindings::super_block {
        // SAFETY: The mount is valid, and keeps its superblock.
        unsafe { (*self.as_ptr()).mnt_sb }
    }

    /// Whether user ids are mapped.
    pub(crate) fn is_idmapped(&self) -> bool {
        // SAFETY: The mount is valid.
        unsafe { bindings::is_idmapped_mnt(self.as_ptr()) }
    }

    /// Whether the file system is read-only, as of some moment.
    pub(crate) fn is_readonly(&self) -> bool {
        // SAFETY: A mount's superblock is valid.
        unsafe { bindings::sb_rdonly(self.sb()) }
    }

    /// The block size of the superblock, in bytes.
    pub(crate) fn super_block_size(&self) -> usize {
        // SAFETY: A mount's superblock is valid.
        unsafe { (*self.sb()).s_blocksize }
    }

    /// The largest size that a file may have, in bytes.
    pub(crate) fn max_file_size(&self) -> i64 {
        // SAFETY: A mount's superblock is valid.
        unsafe { (*self.sb()).s_maxbytes }
    }

    /// Whether the file system can tell its free space and write itself out.
    pub(crate) fn can_statfs_and_sync(&self) -> bool {
        // SAFETY: A mount's superblock and its operations are valid.
        let op = unsafe { &*(*self.sb()).s_op };
        op.statfs.is_some() && op.sync_fs.is_some()
    }

    /// How much room there is.
    pub(crate) fn statfs(&self) -> Result<Statfs> {
        // SAFETY: The mount is valid, and has a root.
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

    /// Writes the file system out.
    pub(crate) fn sync(&self) -> Result {
        // SAFETY: A mount's superblock is valid.
        let umount = unsafe { core::ptr::addr_of_mut!((*self.sb()).s_umount) };
        // SAFETY: The lock is valid, and the caller may sleep.
        unsafe { bindings::down_read(umount) };
        // SAFETY: The superblock is valid and `s_umount` is held, as the function wants it.
        let ret = unsafe { bindings::sync_filesystem(self.sb()) };
        // SAFETY: Locked above.
        unsafe { bindings::up_read(umount) };
        to_result(ret)
    }

    /// Gets write access: changes below are not interrupted by a freeze or a read-only remount.
    ///
    /// A task that has it must not get it again, nor write to or truncate a file, which gets it, too: a
    /// freeze in between would make the task wait for itself.
    pub(crate) fn want_write(&self) -> Result<WriteAccess<'_>> {
        // SAFETY: The mount is valid, and the caller may sleep.
        to_result(unsafe { bindings::mnt_want_write(self.as_ptr()) })?;
        // INVARIANT: Write access was just given.
        Ok(WriteAccess(self))
    }
}

/// Write access to a mount, from [`Mount::want_write`]. What changes a directory wants to see it.
///
/// # Invariants
///
/// Holds write access.
pub(crate) struct WriteAccess<'a>(&'a Mount);

impl WriteAccess<'_> {
    /// The mount that may be written to.
    pub(crate) fn mount(&self) -> &Mount {
        self.0
    }
}

impl Drop for WriteAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant there is access to be given up.
        unsafe { bindings::mnt_drop_write(self.0.as_ptr()) };
    }
}

/// A place in the tree of directories, that is, a name on a mount.
#[derive(Clone)]
pub(crate) struct Path {
    // Let go before the mount, which keeps the file system.
    pub(crate) dentry: ARef<Dentry>,
    pub(crate) mount: ARef<Mount>,
}

impl Path {
    /// # Safety
    ///
    /// The caller must own a reference to both members of `path`, and gives it up.
    unsafe fn from_raw(path: bindings::path) -> Result<Self> {
        let (Some(mnt), Some(dentry)) = (NonNull::new(path.mnt), NonNull::new(path.dentry)) else {
            return Err(ENOENT);
        };
        Ok(Path {
            // SAFETY: The caller gives its reference. `Mount` is a transparent wrapper.
            mount: unsafe { ARef::from_raw(mnt.cast()) },
            // SAFETY: Likewise.
            dentry: unsafe { ARef::from_raw(dentry.cast()) },
        })
    }

    /// Looks `name` up, which has to be a directory, from the task's working directory if it is
    /// relative; that is also what an empty name is.
    pub(crate) fn lookup_dir(name: &CStr) -> Result<Self> {
        let mut path = MaybeUninit::<bindings::path>::zeroed();
        // SAFETY: `name` is terminated, and `path` is what the function fills.
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
        let mut path = MaybeUninit::<bindings::path>::zeroed();
        // SAFETY: `path` is what the function fills.
        if !unsafe { bindings::get_current_fs_pwd(path.as_mut_ptr()) } {
            return Err(ESRCH);
        }
        // SAFETY: The function gave references to both members.
        unsafe { Path::from_raw(path.assume_init()) }
    }
}

#[kunit_tests(rust_path)]
mod tests {
    use super::*;
    use crate::kernel_next::kunit::support;

    fn scratch() -> Result<Path> {
        support::scratch(b"kunit-path")
    }

    #[test]
    fn lookup_finds_directories_only() -> Result {
        support::attach_fs()?;
        assert!(Path::lookup_dir(c"/").is_ok());
        assert!(Path::lookup_dir(c"/var/cache/../cache/fscache").is_ok());
        assert_eq!(Path::lookup_dir(c"/none").err(), Some(ENOENT));
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
        support::attach_fs()?;
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
        let dir = scratch()?;
        let tmp = Path::lookup_dir(c"/tmp")?;
        assert!(dir.mount.holds(&dir.dentry) && tmp.mount.holds(&tmp.dentry));
        assert!(!dir.mount.holds(&tmp.dentry) && !tmp.mount.holds(&dir.dentry));
        Ok(())
    }

    #[test]
    fn room_makes_sense() -> Result {
        let dir = support::scratch_on_disk(b"kunit-path")?;
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
        let dir = scratch()?;
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
