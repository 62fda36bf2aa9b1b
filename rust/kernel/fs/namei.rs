// SPDX-License-Identifier: GPL-2.0

//! Changing directories: each change is a guard that holds the directory's lock.
//!
//! C header: [`include/linux/namei.h`](srctree/include/linux/namei.h)
//!
//! A change starts with a directory and a name or a dentry, and gives a guard for the entry
//! ([`Creating`], [`Removing`]). Dropping the guard ends the change; methods that take it by value
//! make the change. Every one of them wants to see [`WriteAccess`] to the mount, so that none can be
//! made on a frozen file system.

use super::{
    dentry::Dentry,
    path::{
        idmap,
        WriteAccess, //
    }, //
};
use crate::{
    bindings,
    kernel_next::compat::EOPNOTSUPP, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

/// A name for a directory function.
fn qstr(name: &[u8]) -> bindings::qstr {
    let mut qstr = bindings::qstr {
        name: name.as_ptr(),
        ..Default::default()
    };
    // CAST: A name that does not fit would be longer than any file system takes.
    qstr.__bindgen_anon_1.__bindgen_anon_1.len = name.len().min(u32::MAX as usize) as u32;
    qstr
}

/// Checks that names can be looked up in `dir`, and that it is of the file system that `write` is
/// for: what the functions below take for granted.
fn check_dir(dir: &Dentry, write: Option<&WriteAccess<'_>>) -> Result {
    if !dir.can_lookup() {
        return Err(ENOTDIR);
    }
    if write.is_some_and(|write| !write.mount().holds(dir)) {
        return Err(EXDEV);
    }
    Ok(())
}

fn inode_of(dir: &Dentry) -> Result<*mut bindings::inode> {
    Ok(dir.inode().ok_or(ENOTDIR)?.as_ptr())
}

/// Takes a reference to what a C function returned.
///
/// # Safety
///
/// `ptr` must be null or a dentry to which the caller owns a reference, which it gives up.
unsafe fn owned(ptr: *mut bindings::dentry) -> Result<ARef<Dentry>> {
    let ptr = NonNull::new(ptr).ok_or(ENOENT)?;
    // SAFETY: As the caller guarantees; `Dentry` is a transparent wrapper.
    Ok(unsafe { ARef::from_raw(ptr.cast()) })
}

/// Looks `name` up in `dir`.
///
/// # Errors
///
/// `ENOENT` if there is nothing of that name.
pub(crate) fn lookup_positive(dir: &Dentry, name: &[u8]) -> Result<ARef<Dentry>> {
    check_dir(dir, None)?;
    let mut name = qstr(name);
    // SAFETY: The directory is one, the name is valid for the call, and no lock is needed.
    let ptr = unsafe { bindings::lookup_one_positive_unlocked(idmap(), &mut name, dir.as_ptr()) };
    // SAFETY: The function returns a reference, or an error.
    unsafe { owned(from_err_ptr(ptr)?) }
}

/// An entry that is about to be created. The directory is locked for as long as this lives.
///
/// # Invariants
///
/// `child` is a dentry that `start_creating` returned and that `end_dirop` has not been called
/// for.
pub(crate) struct Creating<'a> {
    child: NonNull<bindings::dentry>,
    dir: &'a Dentry,
    write: &'a WriteAccess<'a>,
}

impl<'a> Creating<'a> {
    /// Starts to create `name` in `dir`. The entry may exist already: [`Self::child`] tells.
    pub(crate) fn start(dir: &'a Dentry, name: &[u8], write: &'a WriteAccess<'a>) -> Result<Self> {
        check_dir(dir, Some(write))?;
        let mut name = qstr(name);
        // SAFETY: The directory is one, and the name is valid for the call.
        let child = unsafe { bindings::start_creating(idmap(), dir.as_ptr(), &mut name) };
        // INVARIANT: The function returns such a dentry, or an error.
        Ok(Creating {
            child: NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?,
            dir,
            write,
        })
    }

    /// The entry.
    pub(crate) fn child(&self) -> &Dentry {
        // SAFETY: By the invariant the guard owns a reference.
        unsafe { Dentry::from_raw(self.child.as_ptr()) }
    }

    /// Ends without a change and returns the entry.
    pub(crate) fn keep(self) -> ARef<Dentry> {
        ARef::from(self.child())
    }

    /// Makes a directory.
    pub(crate) fn mkdir(self, mode: u16) -> Result<ARef<Dentry>> {
        let path = self.write.mount().path_of(self.dir);
        // SAFETY: All are valid, and the directory is locked.
        to_result(unsafe { bindings::security_path_mkdir(&path, self.child.as_ptr(), mode) })?;
        let dir = inode_of(self.dir)?;
        // From here on the function below owns what `self` does.
        let this = ManuallyDrop::new(self);
        // SAFETY: All are valid, and the directory is locked.
        let child = unsafe {
            bindings::vfs_mkdir(
                idmap(),
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
            write: this.write,
        };
        Ok(this.keep())
    }

    /// Gives `file`, which may have no name yet, this name.
    pub(crate) fn link(self, file: &File) -> Result {
        // SAFETY: The file is valid, and its dentry is for as long.
        let old = unsafe { (*file.as_ptr()).__bindgen_anon_1.f_path.dentry };
        // SAFETY: All are valid, and the directory is locked.
        to_result(unsafe {
            bindings::vfs_link(
                old,
                idmap(),
                inode_of(self.dir)?,
                self.child.as_ptr(),
                core::ptr::null_mut(),
            )
        })
    }

    /// Removes a file that has the name already.
    pub(crate) fn unlink(self) -> Result {
        unlink(self.dir, self.child(), self.write)
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it has not been called yet.
        unsafe { bindings::end_dirop(self.child.as_ptr()) };
    }
}

/// Removes a file. The directory has to be locked.
fn unlink(dir: &Dentry, victim: &Dentry, write: &WriteAccess<'_>) -> Result {
    let path = write.mount().path_of(dir);
    // SAFETY: All are valid, and the directory is locked.
    to_result(unsafe { bindings::security_path_unlink(&path, victim.as_ptr()) })?;
    // SAFETY: All are valid, and the directory is locked.
    to_result(unsafe {
        bindings::vfs_unlink(
            idmap(),
            inode_of(dir)?,
            victim.as_ptr(),
            core::ptr::null_mut(),
        )
    })
}

/// An entry that is about to be removed. The directory is locked for as long as this lives.
///
/// # Invariants
///
/// `child` is a positive dentry in `dir` that `start_removing` or `start_removing_dentry`
/// returned and that `end_dirop` has not been called for.
pub(crate) struct Removing<'a> {
    child: NonNull<bindings::dentry>,
    dir: &'a Dentry,
    write: &'a WriteAccess<'a>,
}

impl<'a> Removing<'a> {
    /// Starts to remove `name` from `dir`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is nothing of that name.
    pub(crate) fn start(dir: &'a Dentry, name: &[u8], write: &'a WriteAccess<'a>) -> Result<Self> {
        check_dir(dir, Some(write))?;
        let mut name = qstr(name);
        // SAFETY: The directory is one, and the name is valid for the call.
        let child = unsafe { bindings::start_removing(idmap(), dir.as_ptr(), &mut name) };
        // INVARIANT: The function returns such a dentry, or an error.
        Ok(Removing {
            child: NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?,
            dir,
            write,
        })
    }

    /// Starts to remove `child` from `dir`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not, or no longer, there.
    pub(crate) fn start_dentry(
        dir: &'a Dentry,
        child: &Dentry,
        write: &'a WriteAccess<'a>,
    ) -> Result<Self> {
        check_dir(dir, Some(write))?;
        // SAFETY: The directory is one; that the child is in it is for the function to find out.
        let child = unsafe { bindings::start_removing_dentry(dir.as_ptr(), child.as_ptr()) };
        // INVARIANT: The function returns such a dentry, or an error.
        Ok(Removing {
            child: NonNull::new(from_err_ptr(child)?).ok_or(ENOENT)?,
            dir,
            write,
        })
    }

    /// The entry.
    pub(crate) fn child(&self) -> &Dentry {
        // SAFETY: By the invariant the guard owns a reference.
        unsafe { Dentry::from_raw(self.child.as_ptr()) }
    }

    /// Removes a file.
    pub(crate) fn unlink(self) -> Result {
        unlink(self.dir, self.child(), self.write)
    }
}

impl Drop for Removing<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it has not been called yet.
        unsafe { bindings::end_dirop(self.child.as_ptr()) };
    }
}

/// An entry that is about to be moved. Both directories are locked for as long as this lives.
///
/// # Invariants
///
/// `start_renaming_dentry` filled `data`, and `end_renaming` has not been called for it.
pub(crate) struct Renaming<'a> {
    data: bindings::renamedata,
    write: &'a WriteAccess<'a>,
    _dirs: PhantomData<&'a Dentry>,
}

impl<'a> Renaming<'a> {
    /// Starts to move `child` from `from` to `name` in `to`.
    pub(crate) fn start(
        from: &'a Dentry,
        child: &'a Dentry,
        to: &'a Dentry,
        name: &[u8],
        write: &'a WriteAccess<'a>,
    ) -> Result<Self> {
        check_dir(from, Some(write))?;
        check_dir(to, Some(write))?;
        if child.is_negative() {
            return Err(ENOENT);
        }
        let mut name = qstr(name);
        let mut data = bindings::renamedata {
            mnt_idmap: idmap(),
            old_parent: from.as_ptr(),
            new_parent: to.as_ptr(),
            ..Default::default()
        };
        // SAFETY: The directories are such, the child is positive, and the name is valid for the
        // call.
        to_result(unsafe {
            bindings::start_renaming_dentry(&mut data, 0, child.as_ptr(), &mut name)
        })?;
        // INVARIANT: Just done.
        Ok(Renaming {
            data,
            write,
            _dirs: PhantomData,
        })
    }

    /// What is to be moved.
    pub(crate) fn child(&self) -> &Dentry {
        // SAFETY: By the invariant the guard owns a reference.
        unsafe { Dentry::from_raw(self.data.old_dentry) }
    }

    /// What has the new name now: negative if nothing has.
    pub(crate) fn target(&self) -> &Dentry {
        // SAFETY: By the invariant the guard owns a reference.
        unsafe { Dentry::from_raw(self.data.new_dentry) }
    }

    /// Moves it.
    pub(crate) fn rename(mut self) -> Result {
        let mount = self.write.mount();
        // SAFETY: By the invariant both directories are valid.
        let (from, to) = unsafe {
            (
                mount.path_of(Dentry::from_raw(self.data.old_parent)),
                mount.path_of(Dentry::from_raw(self.data.new_parent)),
            )
        };
        // SAFETY: All are valid, and the directories are locked.
        to_result(unsafe {
            bindings::security_path_rename(
                &from,
                self.data.old_dentry,
                &to,
                self.data.new_dentry,
                0,
            )
        })?;
        // SAFETY: All are valid, and the directories are locked.
        to_result(unsafe { bindings::vfs_rename(&mut self.data) })
    }
}

impl Drop for Renaming<'_> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it has not been called yet.
        unsafe { bindings::end_renaming(&mut self.data) };
    }
}

/// Whether the security module lets the task make directories and files in `dir`.
///
/// # Errors
///
/// What the security module says; `EOPNOTSUPP`, from file systems it knows nothing of, is not an
/// error.
pub(crate) fn may_create_in(dir: &Dentry) -> Result {
    let inode = inode_of(dir)?;
    // SAFETY: Both are valid.
    let mkdir = to_result(unsafe { bindings::security_inode_mkdir(inode, dir.as_ptr(), 0) });
    let create = mkdir.and_then(|()| {
        // SAFETY: Both are valid.
        to_result(unsafe { bindings::security_inode_create(inode, dir.as_ptr(), 0) })
    });
    match create {
        Err(e) if e == EOPNOTSUPP => Ok(()),
        other => other,
    }
}
