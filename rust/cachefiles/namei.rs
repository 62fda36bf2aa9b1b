// SPDX-License-Identifier: GPL-2.0

//! Directories of a cache.

pub(crate) mod cull;
pub(crate) mod graveyard;

use crate::{
    cache::directory::Directory,
    inject,
    kernel_next::{
        compat::EOPNOTSUPP,
        fs::{
            inode::{
                Inode,
                Operation, //
            },
            namei::Creating,
            path::Path, //
        }, //
    },
    mark::Mark,
    space::{
        Space,
        SpaceFor, //
    },
    trace::files, //
};
use kernel::{
    prelude::*,
    str::BStr, //
};

/// What a file system has to be able to do with a directory of a cache.
const NEEDED: [Operation; 6] = [
    Operation::Xattr,
    Operation::Lookup,
    Operation::Mkdir,
    Operation::Rename,
    Operation::Rmdir,
    Operation::Unlink,
];

/// How often to try again when others keep changing what is looked up.
pub(crate) const RETRIES: usize = 8;

/// Logs what could not be done with a directory.
fn complain(what: &str, name: &[u8], error: Error) {
    if error != ENOMEM {
        let (name, error) = (BStr::from_bytes(name), error.to_errno());
        cf_limited!(cf_err!("{} {} failed with error {}\n", what, name, error));
    }
}

/// Finds or makes a directory and marks it. Returns whether it is new.
///
/// # Errors
///
/// `EBUSY` if it is in use; `EAGAIN` if others removed it each time it was made; `ENOBUFS` if
/// `limits` is set and there is no space for a new one; the file system's error.
fn look_up_or_make(space: &Space, dir: &Path, name: &[u8], limits: bool) -> Result<(Mark, bool)> {
    let mut is_new = false;
    for _ in 0..RETRIES {
        let write = space.mount().want_write()?;
        let creating = inject::read().and_then(|()| Creating::start(dir, name, &write));
        let found = creating.as_ref().map(Creating::child).map_err(|e| *e);
        files::lookup(None, dir.dentry(), found);
        let creating = creating.inspect_err(|e| {
            files::vfs_error(None, dir.dentry(), *e, files::Where::Lookup);
            complain("Lookup", name, *e);
        })?;
        if !creating.child().is_negative() {
            // Marked while `dir` is locked, so that it cannot be culled before.
            let mark = Mark::set(creating.child_path(), None).inspect_err(|_| {
                let ino = creating.child().inode().map_or(0, Inode::ino);
                let name = BStr::from_bytes(name);
                cf_limited!(cf_notice!("Inode already in use: {} (B={:x})\n", name, ino));
            })?;
            return Ok((mark, is_new));
        }
        if limits {
            space
                .check(1, 0, SpaceFor::Create)
                .inspect_err(|e| complain("mkdir", name, *e))?;
        }
        // This unlocks `dir`. So the directory is looked up again, to be marked under the lock.
        let made = inject::write()
            .and_then(|()| creating.mkdir(0o700))
            .inspect_err(|e| {
                files::vfs_error(None, dir.dentry(), *e, files::Where::Mkdir);
                complain("mkdir", name, *e);
            })?;
        files::mkdir(dir.dentry(), made.dentry());
        is_new = true;
    }
    Err(EAGAIN)
}

/// Refuses a casefolded directory: keys are case sensitive. One check is enough, as `chattr +F`
/// needs an empty directory.
///
/// # Errors
///
/// `EOPNOTSUPP` if it is casefolded.
pub(crate) fn check_names(dir: &Inode) -> Result {
    if dir.is_casefolded() {
        cf_err!("A directory of the cache looks names up without regard to case (chattr +F)\n");
        return Err(EOPNOTSUPP);
    }
    Ok(())
}

/// Finds or makes a directory and marks it (`cachefiles_get_directory()`). Returns whether it is
/// new.
///
/// # Errors
///
/// `EBUSY` if it is in use, `EIO` if it is not a directory, `EPERM` if it lacks an operation,
/// `EOPNOTSUPP` if it is casefolded, `ENOBUFS` if there is no space for a new one, `EAGAIN` if
/// others removed it each time it was made; the file system's error.
pub(crate) fn get_directory(space: &Space, dir: &Path, name: &[u8]) -> Result<(Directory, bool)> {
    directory(space, dir, name, true)
}

/// As [`get_directory`], without the space check: for naming a file whose data is on the disk
/// already.
pub(crate) fn get_directory_anyway(
    space: &Space,
    dir: &Path,
    name: &[u8],
) -> Result<(Directory, bool)> {
    directory(space, dir, name, false)
}

fn directory(space: &Space, dir: &Path, name: &[u8], limits: bool) -> Result<(Directory, bool)> {
    let (mark, is_new) = look_up_or_make(space, dir, name, limits)?;
    let dir = Directory::new(mark);
    let inode = dir.dentry().inode().ok_or(EIO)?;
    if !dir.dentry().can_lookup() {
        cf_limited!(cf_err!("{} is not a directory\n", BStr::from_bytes(name)));
        return Err(EIO);
    }
    if !inode.supports(&NEEDED) {
        return Err(EPERM);
    }
    check_names(inode)?;
    Ok((dir, is_new))
}
