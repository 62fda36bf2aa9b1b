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
//!     let stats = dir.mount().statfs()?;
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
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// The mapping of user ids of a mount that maps none, for what is done without a mount.
pub(super) fn nop_idmap() -> *mut bindings::mnt_idmap {
    core::ptr::addr_of_mut!(bindings::nop_mnt_idmap)
}

/// A `struct vfsmount`, borrowed from a [`Path`].
///
/// # Invariants
///
/// The mount is valid and a reference to it is held, so that its superblock is active.
#[repr(transparent)]
pub(crate) struct Mount(Opaque<bindings::vfsmount>);

// SAFETY: The methods below only call functions that look after the locking, and read what does not
// change.
unsafe impl Sync for Mount {}

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
    /// Borrows a mount.
    ///
    /// # Safety
    ///
    /// `ptr` must be valid, and the caller must see to it that for `'a` a reference to it is held.
    #[inline]
    unsafe fn from_raw<'a>(ptr: *const bindings::vfsmount) -> &'a Self {
        // INVARIANT: As the caller guarantees.
        // SAFETY: The caller guarantees that it is valid. `Mount` is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    /// The mount as C knows it.
    #[inline]
    pub(in crate::kernel_next) fn as_ptr(&self) -> *mut bindings::vfsmount {
        self.0.get()
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
        let path = bindings::path {
            mnt: self.as_ptr(),
            // SAFETY: The mount is valid, and its root does not change.
            dentry: unsafe { (*self.as_ptr()).mnt_root },
        };
        let mut buf = MaybeUninit::<bindings::kstatfs>::zeroed();
        // SAFETY: The mount is valid and keeps its root, so that `path` is valid; `buf` is what the
        // function fills. The cast is between two declarations of one structure.
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
/// directory wants to see it, and checks that the directory is on that mount.
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
    /// Checks that `path` is on the mount that may be written to.
    ///
    /// # Errors
    ///
    /// `EXDEV` if it is on another, also if that is of the same file system.
    #[inline]
    pub(super) fn check(&self, path: &Path) -> Result {
        match core::ptr::eq(self.mount, path.mount()) {
            true => Ok(()),
            false => Err(EXDEV),
        }
    }
}

impl Drop for WriteAccess<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant there is access to be given up.
        unsafe { bindings::mnt_drop_write(self.mount.as_ptr()) };
    }
}

/// A `struct path`: a directory entry, and the mount that it is reached by.
///
/// It keeps the mount, and with that the superblock active: a file system that is detached from the
/// tree meanwhile is shut down when the last path is dropped. So a [`Dentry`] or an
/// [`Inode`](super::inode::Inode) is only ever borrowed, from this or from what has one.
///
/// Cloning one does not sleep. Dropping one may.
///
/// # Invariants
///
/// Both members are valid, references to both are held, and the dentry is of the file system that
/// is mounted.
#[repr(transparent)]
pub(crate) struct Path(bindings::path);

// SAFETY: Neither a mount nor a dentry is tied to a task: `path_put` may be called by any.
unsafe impl Send for Path {}

// SAFETY: The members do not change, and what is borrowed from them is `Sync`.
unsafe impl Sync for Path {}

impl Clone for Path {
    fn clone(&self) -> Self {
        // SAFETY: By the invariant both members are valid and their counts are positive.
        unsafe { bindings::path_get(&self.0) };
        // INVARIANT: The references were just taken; the members are those of `self`.
        Path(bindings::path {
            mnt: self.0.mnt,
            dentry: self.0.dentry,
        })
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        // SAFETY: By the invariant there is a reference to each member to be given up. The function
        // lets go of the dentry first.
        unsafe { bindings::path_put(&self.0) };
    }
}

/// What the working directory of this task is part of; `None` if the task is about to end, and has
/// let go of it.
fn current_fs() -> Option<NonNull<bindings::fs_struct>> {
    // SAFETY: The current task is valid, and nobody but itself changes this member.
    NonNull::new(unsafe { (*bindings::get_current()).fs })
}

impl Path {
    /// Borrows a path.
    ///
    /// # Safety
    ///
    /// `ptr` must be valid, and the caller must see to it that for `'a` it does not change, and
    /// references to both members are held. The dentry must be of the file system that is mounted.
    #[inline]
    pub(in crate::kernel_next) unsafe fn from_raw<'a>(ptr: *const bindings::path) -> &'a Self {
        // INVARIANT: As the caller guarantees.
        // SAFETY: The caller guarantees that it is valid. `Path` is a transparent wrapper.
        unsafe { &*ptr.cast() }
    }

    /// The path as C knows it.
    #[inline]
    pub(super) fn as_ptr(&self) -> *const bindings::path {
        &self.0
    }

    /// The mount. Does not sleep.
    #[inline]
    pub(crate) fn mount(&self) -> &Mount {
        // SAFETY: By the invariant the mount is valid, and a reference to it is held.
        unsafe { Mount::from_raw(self.0.mnt) }
    }

    /// The directory entry. Does not sleep.
    #[inline]
    pub(crate) fn dentry(&self) -> &Dentry {
        // SAFETY: By the invariant the dentry is valid, a reference to it is held, and so is one to
        // the mount, which has the superblock active.
        unsafe { Dentry::from_raw(self.0.dentry) }
    }

    /// The path of `dentry` on the same mount.
    ///
    /// # Safety
    ///
    /// `dentry` must be of the file system that is mounted.
    pub(super) unsafe fn with_dentry(&self, dentry: &Dentry) -> Self {
        let path = bindings::path {
            mnt: self.0.mnt,
            dentry: dentry.as_ptr(),
        };
        // SAFETY: By the invariants both members are valid and their counts are positive.
        unsafe { bindings::path_get(&path) };
        // INVARIANT: The references were just taken, and the caller guarantees the rest.
        Path(path)
    }

    /// The path of `dentry` on the same mount, with a reference that a C function returned.
    ///
    /// # Safety
    ///
    /// `dentry` must be valid and of the file system that is mounted, and the caller must own a
    /// reference to it, which it gives up.
    pub(super) unsafe fn with_owned_dentry(&self, dentry: NonNull<bindings::dentry>) -> Self {
        // INVARIANT: The caller gives the reference to the dentry, and guarantees the rest.
        Path(bindings::path {
            // SAFETY: By the invariant the mount is valid and its count is positive.
            mnt: unsafe { bindings::mntget(self.0.mnt) },
            dentry: dentry.as_ptr(),
        })
    }

    /// The same directory entry, but reached by the mount of `ancestor`; `None` if it is not
    /// `ancestor` or somewhere below, as of some moment.
    pub(crate) fn via_mount_of(&self, ancestor: &Path) -> Option<Self> {
        if !self.dentry().is_below(ancestor.dentry()) {
            return None;
        }
        // SAFETY: What is below the dentry of `ancestor` is of the same file system.
        Some(unsafe { ancestor.with_dentry(self.dentry()) })
    }

    /// Tells user space and other parts of the kernel to keep their hands off the inode
    /// (`S_KERNEL_FILE`): a directory that has the mark cannot be removed.
    ///
    /// Takes the inode lock, so it may sleep, and must not be called for a directory that the task
    /// has locked to change it.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the inode has the mark already, `ENOENT` if the dentry is negative.
    pub(crate) fn mark_in_use(self) -> Result<InUse> {
        let inode = self.dentry().inode().ok_or(ENOENT)?;
        if inode.assign_kernel_file(true) {
            return Err(EBUSY);
        }
        // INVARIANT: The mark was not there, so it is ours. The dentry is positive, and stays so
        // while the path has a reference to it.
        Ok(InUse(self))
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
        let mut path = MaybeUninit::<bindings::path>::uninit();
        // SAFETY: `name` is terminated, `path` is what the function fills, and the task has a root
        // and a working directory.
        to_result(unsafe {
            bindings::kern_path(
                name.as_char_ptr(),
                bindings::LOOKUP_DIRECTORY,
                path.as_mut_ptr(),
            )
        })?;
        // INVARIANT: The function gave references to both members, which are of one file system.
        // SAFETY: The function returned success, so it filled it.
        Ok(Path(unsafe { path.assume_init() }))
    }

    /// The task's working directory.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the task is about to end, and has none any more.
    pub(crate) fn current_dir() -> Result<Self> {
        let fs = current_fs().ok_or(ESRCH)?;
        let mut path = MaybeUninit::<bindings::path>::uninit();
        // SAFETY: The task keeps `fs` for as long as it runs here, and `path` is what the function
        // fills.
        unsafe { bindings::get_fs_pwd(fs.as_ptr(), path.as_mut_ptr()) };
        // INVARIANT: The function gave references to both members, which are of one file system.
        // SAFETY: The function filled it.
        Ok(Path(unsafe { path.assume_init() }))
    }
}

/// The mark that [`Path::mark_in_use`] sets, and the path of the inode that has it. Dropping it
/// takes the mark away, and the inode lock for that: the same holds as for setting it.
///
/// # Invariants
///
/// The path's dentry is positive. Its inode has the mark, and it is this value's to take away.
#[must_use = "the mark is taken away immediately when it is unused"]
pub(crate) struct InUse(Path);

impl InUse {
    /// The path of what has the mark.
    #[inline]
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        // By the invariant there is one, and the mark was set.
        if let Some(inode) = self.0.dentry().inode() {
            inode.assign_kernel_file(false);
        }
    }
}

#[kunit_tests(rust_path)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        cred::NewCredential,
        fs::{
            inode::Inode,
            kernel_file::KernelFile,
            namei::{
                lookup_positive,
                Creating, //
            }, //
        },
        kunit::{
            scratch,
            support, //
        }, //
    };
    use kernel::error::from_err_ptr;

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
            assert!(core::ptr::eq(pwd.dentry(), found.dentry()));
            assert!(core::ptr::eq(pwd.mount(), found.mount()));
        }
        Ok(())
    }

    #[test]
    fn paths_count_what_they_are_made_of() -> Result {
        let dir = dir()?;
        // SAFETY: The dentry is valid.
        let dentries = || unsafe { bindings::kunit_d_count(dir.dentry().as_ptr()) };
        // SAFETY: The mount is valid. It is that of the test, which has one reference: so the
        // function tells whether there are others besides that of `dir`.
        let is_shared = || unsafe { bindings::may_umount(dir.mount().as_ptr()) == 0 };
        let before = dentries();
        assert!(!is_shared());
        let other = dir.clone();
        assert!(core::ptr::eq(other.mount(), dir.mount()));
        assert!(core::ptr::eq(other.dentry(), dir.dentry()));
        assert_eq!(dentries(), before + 1);
        assert!(is_shared());
        drop(other);
        assert_eq!(dentries(), before);
        assert!(!is_shared());
        // The path of an entry has the mount, too.
        let write = dir.mount().want_write()?;
        let child = Creating::start(&dir, b"none", &write)?.keep();
        assert!(is_shared());
        drop(child);
        assert!(!is_shared());
        assert_eq!(lookup_positive(&dir, b"none").err(), Some(ENOENT));
        assert!(!is_shared());
        Ok(())
    }

    /// Another mount of what is mounted at `path`, which goes with what is returned.
    fn mount_again(path: &Path) -> Result<Path> {
        // SAFETY: The path is valid.
        let mnt = from_err_ptr(unsafe { bindings::clone_private_mount(path.as_ptr()) })?;
        let root = bindings::path {
            mnt,
            // SAFETY: The mount was just made, and its root does not change.
            dentry: unsafe { (*mnt).mnt_root },
        };
        // SAFETY: The mount was just made, and keeps its root.
        let root = unsafe { Path::from_raw(&root) }.clone();
        // SAFETY: The mount was just made, for the kernel. The path has another reference.
        unsafe { bindings::kern_unmount(mnt) };
        Ok(root)
    }

    #[test]
    fn one_file_system_may_have_several_mounts() -> Result {
        scratch::attach_fs()?;
        let root = Path::lookup_dir(c"/")?;
        let again = mount_again(&root)?;
        assert!(core::ptr::eq(again.dentry(), root.dentry()));
        assert!(!core::ptr::eq(again.mount(), root.mount()));
        // Write access to one is none to the other.
        let write = root.mount().want_write()?;
        assert_eq!(write.check(&root), Ok(()));
        assert_eq!(write.check(&again), Err(EXDEV));
        let entry = Creating::start(&again, b"kunit-none", &write);
        assert_eq!(entry.err(), Some(EXDEV));
        drop(write);
        // What was reached by one can be reached by the other.
        let here = again.via_mount_of(&root).ok_or(ENOENT)?;
        assert!(core::ptr::eq(here.dentry(), root.dentry()));
        assert!(core::ptr::eq(here.mount(), root.mount()));
        Ok(())
    }

    #[test]
    fn only_what_is_below_can_be_reached_by_the_mount() -> Result {
        let dir = dir()?;
        let sub = scratch::subdir(&dir, b"sub")?;
        let other = Path::lookup_dir(c"/")?;
        let same = sub.via_mount_of(&dir).ok_or(ENOENT)?;
        assert!(core::ptr::eq(same.dentry(), sub.dentry()));
        assert!(core::ptr::eq(same.mount(), dir.mount()));
        assert!(dir.via_mount_of(&sub).is_none());
        assert!(other.via_mount_of(&dir).is_none());
        assert!(dir.via_mount_of(&other).is_none());
        Ok(())
    }

    fn is_locked(inode: &Inode) -> bool {
        // SAFETY: The inode is valid.
        unsafe { bindings::kunit_inode_is_locked(inode.as_ptr()) }
    }

    fn file() -> Result<KernelFile> {
        let dir = dir()?;
        let write = dir.mount().want_write()?;
        KernelFile::tmpfile(&write, &dir, &NewCredential::kernel()?.into_credential())
    }

    #[test]
    fn mark_is_exclusive_and_goes_with_the_guard() -> Result {
        let file = file()?;
        let (inode, path) = (file.inode(), file.path());
        assert!(!inode.is_in_use());
        let mark = path.clone().mark_in_use()?;
        assert!(core::ptr::eq(mark.path().dentry(), path.dentry()));
        assert!(inode.is_in_use());
        // Whoever fails to get it does not take it away.
        for _ in 0..2 {
            assert_eq!(path.clone().mark_in_use().err(), Some(EBUSY));
            assert!(inode.is_in_use());
        }
        drop(mark);
        assert!(!inode.is_in_use());
        assert!(!is_locked(inode));
        assert!(path.clone().mark_in_use().is_ok());
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
        let mark = file.path().clone().mark_in_use()?;
        assert_eq!(flags(), before | bindings::S_KERNEL_FILE);
        drop(mark);
        assert_eq!(flags(), before);
        Ok(())
    }

    #[test]
    fn mark_outlives_the_file() -> Result {
        let file = file()?;
        let path = file.path().clone();
        // SAFETY: The dentry is valid.
        let count = || unsafe { bindings::kunit_d_count(path.dentry().as_ptr()) };
        let inode = path.dentry().inode().ok_or(ENOENT)?;
        let before = count();
        let mark = path.clone().mark_in_use()?;
        assert_eq!(count(), before + 1);
        drop(file);
        support::close_files();
        assert!(inode.is_in_use());
        drop(mark);
        assert!(!inode.is_in_use());
        // The last one.
        assert_eq!(count(), 1);
        Ok(())
    }

    #[test]
    fn what_does_not_exist_cannot_be_marked() -> Result {
        let dir = dir()?;
        let write = dir.mount().want_write()?;
        let none = Creating::start(&dir, b"none", &write)?.keep();
        assert_eq!(none.mark_in_use().err(), Some(ENOENT));
        Ok(())
    }

    #[test]
    fn room_makes_sense() -> Result {
        // A tmpfs may have no limits.
        let dir = scratch::dir_on_disk(b"kunit-path")?;
        assert!(dir.mount().can_statfs_and_sync());
        let room = dir.mount().statfs()?;
        assert!(room.block_size >= 512 && room.blocks > 0 && room.files > 0);
        assert!(room.blocks_available <= room.blocks);
        assert!(room.files_free < room.files);
        assert!(dir.mount().super_block_size().is_power_of_two());
        assert!(dir.mount().max_file_size() > 1 << 40);
        assert!(!dir.mount().is_readonly() && !dir.mount().is_idmapped());
        Ok(())
    }

    #[test]
    fn write_access_ends_with_the_guard() -> Result {
        let dir = dir()?;
        for _ in 0..3 {
            let write = dir.mount().want_write()?;
            assert_eq!(write.check(&dir), Ok(()));
        }
        // Lock checking would report what is still held.
        dir.mount().sync()
    }

    #[test]
    fn read_only_mounts_give_no_write_access() -> Result {
        // KUnit's thread is on one that is read-only for ever.
        let empty = Path::lookup_dir(c"/")?;
        assert_eq!(empty.mount().want_write().err(), Some(EROFS));
        Ok(())
    }
}
