// SPDX-License-Identifier: GPL-2.0

//! Looking names up, and changing directories.
//!
//! C header: [`include/linux/namei.h`](srctree/include/linux/namei.h)
//!
//! A change starts with a directory and a name or a dentry, and gives a guard for the entry
//! ([`Creating`], [`Removing`], [`Renaming`]), which holds the lock of the directory. Dropping the
//! guard ends the change; methods that take it by value make the change. Every one of them wants to
//! see [`WriteAccess`] to the mount of the directory, so that none can be made on a frozen file
//! system.
//!
//! Everything here may sleep. What a task may do is decided by its credentials and by the security
//! module; "what the file system says" below stands for their errors, too. A task that has one of
//! the guards must not start another change, or it may wait for itself.
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fs::{
//!         namei::{
//!             Creating,
//!             Removing, //
//!         },
//!         path::Path, //
//!     },
//!     prelude::*, //
//! };
//!
//! /// Finds or makes a directory.
//! fn subdir(dir: &Path, name: &[u8]) -> Result<Path> {
//!     let write = dir.mount().want_write()?;
//!     let creating = Creating::start(dir, name, &write)?;
//!     if creating.child().is_negative() {
//!         creating.mkdir(0o700)
//!     } else {
//!         Ok(creating.keep())
//!     }
//! }
//!
//! /// Removes a file, unless it is empty.
//! fn remove(dir: &Path, name: &[u8]) -> Result {
//!     let write = dir.mount().want_write()?;
//!     let removing = Removing::start(dir, name, &write)?;
//!     let is_empty = removing.child().inode().is_some_and(|inode| inode.size() == 0);
//!     if is_empty {
//!         return Ok(());
//!     }
//!     removing.unlink()
//! }
//! ```

use super::{
    dentry::Dentry,
    kernel_file::KernelFile,
    path::{
        Path,
        WriteAccess, //
    }, //
};
use crate::{
    bindings,
    kernel_next::compat::EOPNOTSUPP, //
};
use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

/// A name for a directory function, which is valid for as long as `name`. The functions refuse what
/// is not a name of a single component (`EACCES`) or too long (`ENAMETOOLONG`).
fn qstr(name: &[u8]) -> bindings::qstr {
    let mut qstr = bindings::qstr {
        name: name.as_ptr(),
        ..Default::default()
    };
    // CAST: A name that does not fit would be longer than any file system takes.
    qstr.__bindgen_anon_1.__bindgen_anon_1.len = name.len().min(u32::MAX as usize) as u32;
    qstr
}

/// Checks that names can be looked up in `dir`, as the functions below take for granted.
fn check_dir(dir: &Path) -> Result {
    match dir.dentry().can_lookup() {
        true => Ok(()),
        false => Err(ENOTDIR),
    }
}

fn inode_of(dir: &Dentry) -> Result<*mut bindings::inode> {
    Ok(dir.inode().ok_or(ENOTDIR)?.as_ptr())
}

/// Looks `name` up in `dir`, with the user ids that its mount maps. What is mounted on the entry is
/// not gone to.
///
/// # Errors
///
/// `ENOENT` if there is nothing of that name, `ENOTDIR` if `dir` is no directory, `EACCES` if
/// `name` is not a single component; what the file system says.
pub(crate) fn lookup_positive(dir: &Path, name: &[u8]) -> Result<Path> {
    check_dir(dir)?;
    let (idmap, mut name) = (dir.mount().idmap(), qstr(name));
    // SAFETY: The directory is one, the mount's mapping is valid, the name is valid for the call,
    // and the caller may sleep; whether it has the directory locked does not matter for memory.
    let child =
        unsafe { bindings::lookup_one_positive_unlocked(idmap, &mut name, dir.dentry().as_ptr()) };
    let child = NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?;
    // SAFETY: The function returns a reference to an entry of the directory.
    Ok(unsafe { dir.with_owned_dentry(child) })
}

/// An entry that is about to be created. The directory is locked for as long as this lives.
///
/// # Invariants
///
/// `child` is an entry of `dir` that `start_creating` returned to this task, and for which
/// `end_dirop` has not been called: a reference to it is held, and `dir` is locked. `dir` is a
/// directory on the mount that `_write` is for.
#[must_use = "the directory is unlocked immediately when it is unused"]
pub(crate) struct Creating<'a> {
    // A pointer, so that this stays with its task, which has the lock.
    child: NonNull<bindings::dentry>,
    dir: &'a Path,
    _write: &'a WriteAccess<'a>,
}

impl<'a> Creating<'a> {
    /// Starts to create `name` in `dir`. The entry may exist already: [`Self::child`] tells.
    ///
    /// # Errors
    ///
    /// `ENOTDIR` if `dir` is no directory, `EXDEV` if `write` is for another mount, `ENOENT` if
    /// `dir` has been removed, `EACCES` if `name` is not a single component; what the file system
    /// says.
    pub(crate) fn start(dir: &'a Path, name: &[u8], write: &'a WriteAccess<'a>) -> Result<Self> {
        check_dir(dir)?;
        write.check(dir)?;
        let (idmap, mut name) = (dir.mount().idmap(), qstr(name));
        // SAFETY: The directory is one, the mount's mapping is valid, the name is valid for the
        // call, and the caller may sleep.
        let child = unsafe { bindings::start_creating(idmap, dir.dentry().as_ptr(), &mut name) };
        // INVARIANT: The function returns such a dentry, or an error. The directory was checked.
        Ok(Creating {
            child: NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?,
            dir,
            _write: write,
        })
    }

    /// The entry: negative if it does not exist, which stays so until this guard is dropped.
    pub(crate) fn child(&self) -> &Dentry {
        // SAFETY: By the invariant a reference is held, and the mount of `dir` has the superblock
        // active.
        unsafe { Dentry::from_raw(self.child.as_ptr()) }
    }

    /// The path of the entry.
    pub(crate) fn child_path(&self) -> Path {
        // SAFETY: By the invariant it is an entry of `dir`.
        unsafe { self.dir.with_dentry(self.child()) }
    }

    /// Ends without a change and returns the path of the entry.
    pub(crate) fn keep(self) -> Path {
        self.child_path()
    }

    /// Makes a directory with the permissions `mode`. What is returned may, with some file systems,
    /// be negative or unhashed: then it has to be looked up.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the entry exists; what the file system says.
    pub(crate) fn mkdir(self, mode: u16) -> Result<Path> {
        if !self.child().is_negative() {
            return Err(EEXIST);
        }
        // SAFETY: By the invariant the path and the entry are valid, and the directory is locked;
        // the entry is negative.
        to_result(unsafe {
            bindings::security_path_mkdir(self.dir.as_ptr(), self.child.as_ptr(), mode)
        })?;
        let dir = inode_of(self.dir.dentry())?;
        // From here on the function below owns what `self` does.
        let this = ManuallyDrop::new(self);
        // SAFETY: The mount's mapping is valid. By the invariant the directory is locked, and the
        // entry is in it. No delegation is waited for.
        let child = unsafe {
            bindings::vfs_mkdir(
                this.dir.mount().idmap(),
                dir,
                this.child.as_ptr(),
                mode,
                core::ptr::null_mut(),
            )
        };
        // On an error the function has ended the change itself.
        let child = NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?;
        // INVARIANT: What is returned takes the place of what `start_creating` returned.
        let this = Creating {
            child,
            dir: this.dir,
            _write: this._write,
        };
        Ok(this.keep())
    }

    /// Gives `file`, which may have no name yet, this name.
    ///
    /// # Errors
    ///
    /// `EEXIST` if the entry exists, `EXDEV` if the file is of another file system; what the file
    /// system says.
    pub(crate) fn link(self, file: &KernelFile) -> Result {
        // SAFETY: By the invariant the directory is locked, and the entry is in it. The file keeps
        // its own, positive, dentry; the function checks that it is of this file system, and no
        // directory, before it locks it. The mount's mapping is valid, and no delegation is waited
        // for.
        to_result(unsafe {
            bindings::vfs_link(
                file.dentry().as_ptr(),
                self.dir.mount().idmap(),
                inode_of(self.dir.dentry())?,
                self.child.as_ptr(),
                core::ptr::null_mut(),
            )
        })
    }

    /// Removes a file that has the name already.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none, `EISDIR` if it is a directory; what the file system says.
    pub(crate) fn unlink(self) -> Result {
        // SAFETY: By the invariant the directory is locked, and the entry is in it.
        unsafe { unlink(self.dir, self.child()) }
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it has not been called yet, and this task has the lock.
        unsafe { bindings::end_dirop(self.child.as_ptr()) };
    }
}

/// Removes a file.
///
/// # Safety
///
/// The task must have write access to the mount of `dir`, and must have locked `dir` for a change.
/// `victim` must be an entry of it.
unsafe fn unlink(dir: &Path, victim: &Dentry) -> Result {
    if victim.is_negative() {
        return Err(ENOENT);
    }
    // SAFETY: The path and the entry are valid, the entry is positive, and the caller guarantees
    // that the directory is locked.
    to_result(unsafe { bindings::security_path_unlink(dir.as_ptr(), victim.as_ptr()) })?;
    // SAFETY: The caller guarantees that the directory is locked and the victim, which is positive,
    // is in it. The mount's mapping is valid, and no delegation is waited for.
    to_result(unsafe {
        bindings::vfs_unlink(
            dir.mount().idmap(),
            inode_of(dir.dentry())?,
            victim.as_ptr(),
            core::ptr::null_mut(),
        )
    })
}

/// An entry that is about to be removed. The directory is locked for as long as this lives.
///
/// # Invariants
///
/// `child` is a positive entry of `dir` that `start_removing` or `start_removing_dentry` returned
/// to this task, and for which `end_dirop` has not been called: a reference to it is held, and
/// `dir` is locked. `dir` is a directory on the mount that `_write` is for.
#[must_use = "the directory is unlocked immediately when it is unused"]
pub(crate) struct Removing<'a> {
    // A pointer, so that this stays with its task, which has the lock.
    child: NonNull<bindings::dentry>,
    dir: &'a Path,
    _write: &'a WriteAccess<'a>,
}

impl<'a> Removing<'a> {
    /// Starts to remove `name` from `dir`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is nothing of that name, `ENOTDIR` if `dir` is no directory, `EXDEV` if
    /// `write` is for another mount, `EACCES` if `name` is not a single component; what the file
    /// system says.
    pub(crate) fn start(dir: &'a Path, name: &[u8], write: &'a WriteAccess<'a>) -> Result<Self> {
        check_dir(dir)?;
        write.check(dir)?;
        let (idmap, mut name) = (dir.mount().idmap(), qstr(name));
        // SAFETY: The directory is one, the mount's mapping is valid, the name is valid for the
        // call, and the caller may sleep.
        let child = unsafe { bindings::start_removing(idmap, dir.dentry().as_ptr(), &mut name) };
        // INVARIANT: The function returns such a dentry, or an error. The directory was checked.
        Ok(Removing {
            child: NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?,
            dir,
            _write: write,
        })
    }

    /// Starts to remove `child` from `dir`. Whether names may be looked up in `dir` is not asked:
    /// there is no name.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not, or no longer, there, `ENOENT` if it is negative, `ENOTDIR` if `dir`
    /// is no directory, `EXDEV` if `write` is for another mount.
    pub(crate) fn start_dentry(
        dir: &'a Path,
        child: &Dentry,
        write: &'a WriteAccess<'a>,
    ) -> Result<Self> {
        check_dir(dir)?;
        write.check(dir)?;
        // SAFETY: The directory is one, the child is valid, and the caller may sleep; that the
        // child is in the directory is for the function to find out.
        let child =
            unsafe { bindings::start_removing_dentry(dir.dentry().as_ptr(), child.as_ptr()) };
        // INVARIANT: The function returns such a dentry, or an error. The directory was checked.
        Ok(Removing {
            child: NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?,
            dir,
            _write: write,
        })
    }

    /// The entry.
    pub(crate) fn child(&self) -> &Dentry {
        // SAFETY: By the invariant a reference is held, and the mount of `dir` has the superblock
        // active.
        unsafe { Dentry::from_raw(self.child.as_ptr()) }
    }

    /// The path of the entry.
    pub(crate) fn child_path(&self) -> Path {
        // SAFETY: By the invariant it is an entry of `dir`.
        unsafe { self.dir.with_dentry(self.child()) }
    }

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// `EISDIR` if it is a directory; what the file system says.
    pub(crate) fn unlink(self) -> Result {
        // SAFETY: By the invariant the directory is locked, and the entry is in it.
        unsafe { unlink(self.dir, self.child()) }
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it has not been called yet, and this task has the lock.
        unsafe { bindings::end_dirop(self.child.as_ptr()) };
    }
}

/// An entry that is about to be moved. Both directories are locked for as long as this lives.
///
/// # Invariants
///
/// `start_renaming_dentry` filled `data` for this task, and `end_renaming` has not been called for
/// it: references to its dentries are held, and both directories are locked, which are those of
/// `from` and `to`. All are on the mount that `_write` is for.
///
/// # Examples
///
/// ```
/// use kernel::{
///     fs::{
///         namei::{
///             lookup_positive,
///             Renaming, //
///         },
///         path::Path, //
///     },
///     prelude::*, //
/// };
///
/// /// Gives `old` in a directory another name, unless something has that.
/// fn rename(dir: &Path, old: &[u8], new: &[u8]) -> Result {
///     let child = lookup_positive(dir, old)?;
///     let write = dir.mount().want_write()?;
///     let entry = Renaming::start(dir, &child, dir, new, &write)?;
///     if !entry.target().is_negative() {
///         return Err(EEXIST);
///     }
///     entry.rename()
/// }
/// # let root = Path::lookup_dir(c"/")?;
/// # assert_eq!(rename(&root, b"rust_doctest_missing", b"rust_doctest"), Err(ENOENT));
/// # Ok::<(), Error>(())
/// ```
#[must_use = "the directories are unlocked immediately when it is unused"]
pub(crate) struct Renaming<'a> {
    // Has pointers, so that this stays with its task, which has the locks.
    data: bindings::renamedata,
    from: &'a Path,
    to: &'a Path,
    _write: &'a WriteAccess<'a>,
}

impl<'a> Renaming<'a> {
    /// Starts to move `child`, which has to be in `from`, to `name` in `to`. The name may be taken:
    /// [`Self::target`] tells.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `child` is not, or no longer, in `from`, or if `to` is in it; `ENOTEMPTY` if it
    /// is in what has the name; `ENOENT` if it is negative; `ENOTDIR` if `from` or `to` is no
    /// directory; `EXDEV` if `write` is for another mount than one of the three is on; `EACCES` if
    /// `name` is not a single component; what the file system says.
    pub(crate) fn start(
        from: &'a Path,
        child: &Path,
        to: &'a Path,
        name: &[u8],
        write: &'a WriteAccess<'a>,
    ) -> Result<Self> {
        check_dir(from)?;
        check_dir(to)?;
        write.check(from)?;
        write.check(to)?;
        // The function locks the parent of the child before it finds out whether that is `from`.
        write.check(child)?;
        let child = child.dentry();
        if child.is_negative() {
            return Err(ENOENT);
        }
        let mut name = qstr(name);
        let mut data = bindings::renamedata {
            mnt_idmap: from.mount().idmap(),
            old_parent: from.dentry().as_ptr(),
            new_parent: to.dentry().as_ptr(),
            ..Default::default()
        };
        // SAFETY: The directories are such, the child is positive, all three are on one mount and
        // so of one file system, the mount's mapping is valid, the name is valid for the call, and
        // the caller may sleep.
        to_result(unsafe {
            bindings::start_renaming_dentry(&mut data, 0, child.as_ptr(), &mut name)
        })?;
        // INVARIANT: Just done. The function left the directories that it was given.
        Ok(Renaming {
            data,
            from,
            to,
            _write: write,
        })
    }

    /// What is to be moved.
    pub(crate) fn child(&self) -> &Dentry {
        // SAFETY: By the invariant a reference is held, and the mount of `from` has the superblock
        // active.
        unsafe { Dentry::from_raw(self.data.old_dentry) }
    }

    /// What has the new name now: negative if nothing has, which stays so until this guard is
    /// dropped.
    pub(crate) fn target(&self) -> &Dentry {
        // SAFETY: As in `child`.
        unsafe { Dentry::from_raw(self.data.new_dentry) }
    }

    /// Moves it, over what has the new name. Nothing happens if both names are of one inode.
    ///
    /// # Errors
    ///
    /// `EISDIR` or `ENOTDIR` if only one of the two is a directory, `ENOTEMPTY` if it would go over
    /// a directory that is not empty, `EBUSY` if something is mounted on one of them; what the file
    /// system says.
    pub(crate) fn rename(mut self) -> Result {
        // SAFETY: The paths are valid. By the invariant so are the entries, and the directories are
        // locked.
        to_result(unsafe {
            bindings::security_path_rename(
                self.from.as_ptr(),
                self.data.old_dentry,
                self.to.as_ptr(),
                self.data.new_dentry,
                0,
            )
        })?;
        // SAFETY: By the invariant the data is what `start_renaming_dentry` made of it.
        to_result(unsafe { bindings::vfs_rename(&mut self.data) })
    }
}

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it has not been called yet, and this task has the locks.
        unsafe { bindings::end_renaming(&mut self.data) };
    }
}

/// Whether the security module lets the task make directories and files in `dir`.
///
/// # Errors
///
/// `ENOTDIR` if it is negative; what the security module says, except that `EOPNOTSUPP`, from file
/// systems it knows nothing of, is not an error.
pub(crate) fn may_create_in(dir: &Dentry) -> Result {
    let inode = inode_of(dir)?;
    // SAFETY: Both are valid, and the caller may sleep. A directory stands for the entry that is
    // yet to be made.
    let mkdir = to_result(unsafe { bindings::security_inode_mkdir(inode, dir.as_ptr(), 0) });
    let create = mkdir.and_then(|()| {
        // SAFETY: As above.
        to_result(unsafe { bindings::security_inode_create(inode, dir.as_ptr(), 0) })
    });
    match create {
        Err(e) if e == EOPNOTSUPP => Ok(()),
        other => other,
    }
}

#[kunit_tests(rust_namei)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        cred::NewCredential,
        fs::path::Path,
        kunit::scratch, //
    };

    fn is_locked(dir: &Dentry) -> bool {
        // SAFETY: The tests' directories are positive.
        unsafe { bindings::kunit_inode_is_locked(bindings::d_inode(dir.as_ptr())) }
    }

    /// An empty directory in the scratch directory, which keeps the name.
    fn dir(name: &[u8]) -> Result<Path> {
        scratch::subdir(&scratch::dir(b"kunit-namei")?, name)
    }

    fn file(dir: &Path, write: &WriteAccess<'_>) -> Result<KernelFile> {
        KernelFile::tmpfile(write, dir, &NewCredential::kernel()?.into_credential())
    }

    /// Gives a new file a name, which is free.
    fn create(dir: &Path, name: &[u8], write: &WriteAccess<'_>) -> Result<KernelFile> {
        let file = file(dir, write)?;
        Creating::start(dir, name, write)?.link(&file)?;
        Ok(file)
    }

    fn exists(dir: &Path, name: &[u8]) -> bool {
        lookup_positive(dir, name).is_ok()
    }

    fn same(a: &Dentry, b: &Dentry) -> bool {
        core::ptr::eq(a, b)
    }

    #[test]
    fn guards_hold_the_lock_until_they_are_dropped() -> Result {
        let dir = dir(b"locks")?;
        let write = dir.mount().want_write()?;
        drop(create(&dir, b"file", &write)?);
        assert!(!is_locked(dir.dentry()));
        let guard = Creating::start(&dir, b"none", &write)?;
        assert!(is_locked(dir.dentry()));
        drop(guard);
        assert!(!is_locked(dir.dentry()));
        drop(Creating::start(&dir, b"file", &write)?.keep());
        assert!(!is_locked(dir.dentry()));
        let guard = Removing::start(&dir, b"file", &write)?;
        assert!(is_locked(dir.dentry()));
        guard.unlink()?;
        assert!(!is_locked(dir.dentry()));
        // A start that failed holds nothing.
        assert!(Removing::start(&dir, b"file", &write).is_err());
        assert!(!is_locked(dir.dentry()));
        Ok(())
    }

    #[test]
    fn mkdir_makes_a_directory_once() -> Result {
        let dir = dir(b"mkdir")?;
        let write = dir.mount().want_write()?;
        let entry = Creating::start(&dir, b"sub", &write)?;
        if entry.child().is_negative() {
            let sub = entry.mkdir(0o700)?;
            let sub = sub.dentry();
            assert!(sub.is_dir() && sub.is_below(dir.dentry()) && !sub.is_unhashed());
        } else {
            drop(entry);
        }
        assert!(!is_locked(dir.dentry()));
        let again = Creating::start(&dir, b"sub", &write)?;
        assert!(again.child().is_dir());
        assert_eq!(again.mkdir(0o700).err(), Some(EEXIST));
        assert!(!is_locked(dir.dentry()));
        Ok(())
    }

    #[test]
    fn link_gives_a_file_its_name_once() -> Result {
        let dir = dir(b"link")?;
        let write = dir.mount().want_write()?;
        let file = file(&dir, &write)?;
        assert!(!exists(&dir, b"one"));
        Creating::start(&dir, b"one", &write)?.link(&file)?;
        let one = lookup_positive(&dir, b"one")?;
        assert!(one.dentry().is_regular());
        let (named, opened) = (one.dentry().inode().ok_or(ENOENT)?, file.inode());
        assert!(core::ptr::eq(named, opened));
        let again = Creating::start(&dir, b"one", &write)?;
        assert_eq!(again.link(&file).err(), Some(EEXIST));
        drop(one);
        Creating::start(&dir, b"one", &write)?.unlink()?;
        assert!(!exists(&dir, b"one"));
        Ok(())
    }

    #[test]
    fn unlink_takes_the_name_away() -> Result {
        let dir = dir(b"unlink")?;
        let write = dir.mount().want_write()?;
        let file = create(&dir, b"file", &write)?;
        let path = lookup_positive(&dir, b"file")?;
        Removing::start_dentry(&dir, path.dentry(), &write)?.unlink()?;
        assert!(path.dentry().is_unhashed());
        assert!(!exists(&dir, b"file"));
        let gone = Removing::start_dentry(&dir, path.dentry(), &write).err();
        assert_eq!(gone, Some(EINVAL));
        let gone = Removing::start(&dir, b"file", &write).err();
        assert_eq!(gone, Some(ENOENT));
        drop(write);
        // The file is still there for whoever has it open.
        assert_eq!(file.truncate(1), Ok(()));
        Ok(())
    }

    #[test]
    fn what_does_not_exist_cannot_be_removed() -> Result {
        let dir = dir(b"unlink-none")?;
        let write = dir.mount().want_write()?;
        let entry = Creating::start(&dir, b"none", &write)?;
        assert_eq!(entry.unlink(), Err(ENOENT));
        let none = Creating::start(&dir, b"none", &write)?.keep();
        let entry = Removing::start_dentry(&dir, none.dentry(), &write).err();
        // Some file systems keep no negative entries.
        assert!(entry == Some(ENOENT) || entry == Some(EINVAL));
        assert!(!is_locked(dir.dentry()));
        Ok(())
    }

    #[test]
    fn unlink_is_not_for_directories() -> Result {
        let dir = dir(b"unlink-dir")?;
        let write = dir.mount().want_write()?;
        let entry = Creating::start(&dir, b"sub", &write)?;
        let sub = match entry.child().is_negative() {
            true => entry.mkdir(0o700)?,
            false => entry.keep(),
        };
        let done = Removing::start(&dir, b"sub", &write)?.unlink();
        assert_eq!(done, Err(EISDIR));
        assert!(!sub.dentry().is_unhashed());
        Ok(())
    }

    #[test]
    fn rename_moves_between_directories() -> Result {
        let (from, to) = (dir(b"from")?, dir(b"to")?);
        let write = from.mount().want_write()?;
        drop(create(&from, b"old", &write)?);
        let path = lookup_positive(&from, b"old")?;
        let guard = Renaming::start(&from, &path, &to, b"new", &write)?;
        assert!(same(guard.child(), path.dentry()));
        assert!(guard.target().is_negative());
        assert!(is_locked(from.dentry()) && is_locked(to.dentry()));
        guard.rename()?;
        assert!(!is_locked(from.dentry()) && !is_locked(to.dentry()));
        assert!(!exists(&from, b"old"));
        assert!(same(lookup_positive(&to, b"new")?.dentry(), path.dentry()));
        // It is not where it was.
        let again = Renaming::start(&from, &path, &to, b"new", &write);
        assert!(again.is_err());
        drop(again);
        assert!(!is_locked(from.dentry()) && !is_locked(to.dentry()));
        Removing::start(&to, b"new", &write)?.unlink()?;
        Ok(())
    }

    #[test]
    fn rename_that_is_not_made_changes_nothing() -> Result {
        let (from, to) = (dir(b"from")?, dir(b"to")?);
        let write = from.mount().want_write()?;
        drop(create(&from, b"stays", &write)?);
        let path = lookup_positive(&from, b"stays")?;
        drop(Renaming::start(&from, &path, &to, b"new", &write)?);
        assert!(!is_locked(from.dentry()) && !is_locked(to.dentry()));
        assert!(exists(&from, b"stays") && !exists(&to, b"new"));
        Removing::start(&from, b"stays", &write)?.unlink()?;
        Ok(())
    }

    #[test]
    fn rename_within_itself_is_refused() -> Result {
        let top = dir(b"within")?;
        let write = top.mount().want_write()?;
        let entry = Creating::start(&top, b"sub", &write)?;
        let sub = match entry.child().is_negative() {
            true => entry.mkdir(0o700)?,
            false => entry.keep(),
        };
        let done = Renaming::start(&top, &sub, &sub, b"loop", &write).err();
        assert_eq!(done, Some(EINVAL));
        assert!(!is_locked(top.dentry()) && !is_locked(sub.dentry()));
        Ok(())
    }

    #[test]
    fn names_are_single_components() -> Result {
        let dir = dir(b"names")?;
        let write = dir.mount().want_write()?;
        let names: [&[u8]; 5] = [b"", b".", b"..", b"a/b", b"a\0b"];
        for name in names {
            assert_eq!(lookup_positive(&dir, name).err(), Some(EACCES));
            let entry = Creating::start(&dir, name, &write);
            assert_eq!(entry.err(), Some(EACCES));
            let entry = Removing::start(&dir, name, &write);
            assert_eq!(entry.err(), Some(EACCES));
            assert!(!is_locked(dir.dentry()));
        }
        let long = [b'x'; 256];
        let entry = Creating::start(&dir, &long, &write);
        assert_eq!(entry.err(), Some(ENAMETOOLONG));
        assert!(Creating::start(&dir, &long[..255], &write).is_ok());
        Ok(())
    }

    #[test]
    fn directories_are_checked() -> Result {
        let dir = dir(b"checks")?;
        let write = dir.mount().want_write()?;
        let file = file(&dir, &write)?;
        let leaf = file.path();
        assert_eq!(lookup_positive(leaf, b"x").err(), Some(ENOTDIR));
        let entry = Creating::start(leaf, b"x", &write);
        assert_eq!(entry.err(), Some(ENOTDIR));
        assert_eq!(may_create_in(dir.dentry()), Ok(()));
        Ok(())
    }

    #[test]
    fn write_access_has_to_be_to_the_mount_of_the_directory() -> Result {
        let dir = dir(b"mounts")?;
        let write = dir.mount().want_write()?;
        let file = file(&dir, &write)?;
        let leaf = file.path();
        let other = Path::lookup_dir(c"/")?;
        let entry = Creating::start(&other, b"x", &write);
        assert_eq!(entry.err(), Some(EXDEV));
        let entry = Removing::start(&other, b"x", &write);
        assert_eq!(entry.err(), Some(EXDEV));
        let entry = Removing::start_dentry(&other, leaf.dentry(), &write);
        assert_eq!(entry.err(), Some(EXDEV));
        let entry = Renaming::start(&dir, leaf, &other, b"x", &write);
        assert_eq!(entry.err(), Some(EXDEV));
        let entry = Renaming::start(&dir, &other, &dir, b"x", &write);
        assert_eq!(entry.err(), Some(EXDEV));
        assert!(!is_locked(dir.dentry()) && !is_locked(other.dentry()));
        Ok(())
    }
}
