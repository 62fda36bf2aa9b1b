// SPDX-License-Identifier: GPL-2.0

//! Directories of a cache.

pub(crate) mod cull;
pub(crate) mod graveyard;

use crate::{
    cache::space::{
        For,
        Space, //
    },
    kernel_next::fs::{
        dentry::Dentry,
        inode::{
            InUse,
            Operation, //
        },
        namei::Creating, //
    }, //
};
use core::ops::Deref;
use kernel::{
    prelude::*,
    sync::aref::ARef, //
};

/// A directory that nobody else may remove or use as a cache.
pub(crate) struct Directory {
    // The mark is taken away before the directory is let go.
    _mark: InUse,
    dentry: ARef<Dentry>,
}

impl Deref for Directory {
    type Target = Dentry;

    fn deref(&self) -> &Dentry {
        &self.dentry
    }
}

/// What a file system has to be able to do with a directory of a cache.
const NEEDED: [Operation; 6] = [
    Operation::Xattr,
    Operation::Lookup,
    Operation::Mkdir,
    Operation::Rename,
    Operation::Rmdir,
    Operation::Unlink,
];

/// How often to try again when somebody keeps changing what is looked up.
pub(crate) const RETRIES: usize = 8;

fn look_up_or_make(space: &Space, dir: &Dentry, name: &[u8]) -> Result<(ARef<Dentry>, bool)> {
    for _ in 0..RETRIES {
        let write = space.mount().want_write()?;
        let creating = Creating::start(dir, name, &write)?;
        if !creating.child().is_negative() {
            return Ok((creating.keep(), false));
        }
        space.check(1, 0, For::Create)?;
        let made = creating.mkdir(0o700)?;
        if !made.is_unhashed() && !made.is_negative() {
            return Ok((made, true));
        }
    }
    Err(EAGAIN)
}

/// Finds or makes a directory and marks it (`cachefiles_get_directory()`). Returns whether it is
/// new.
///
/// # Errors
///
/// `EBUSY` if it is in use, `EIO` if it is not a directory, `EPERM` if it lacks an operation.
pub(crate) fn get_directory(space: &Space, dir: &Dentry, name: &[u8]) -> Result<(Directory, bool)> {
    let (dentry, is_new) = look_up_or_make(space, dir, name)?;
    let inode = dentry.inode().ok_or(EIO)?;
    let Some(mark) = inode.mark_in_use() else {
        step!("A directory of the cache is in use already\n");
        return Err(EBUSY);
    };
    if !dentry.can_lookup() {
        return Err(EIO);
    }
    if !inode.supports(&NEEDED) {
        return Err(EPERM);
    }
    Ok((
        Directory {
            _mark: mark,
            dentry,
        },
        is_new,
    ))
}
