// SPDX-License-Identifier: GPL-2.0

//! Getting rid of things (`cachefiles_bury_object()`).

use super::RETRIES;
use crate::{
    backing::list,
    cache::Cache,
    disk::key::grave_name,
    inject,
    kernel_next::{
        fs::{
            kernel_file::KernelFile,
            namei::{
                Removing,
                Renaming, //
            },
            path::Path, //
        },
        fscache::trace::TraceObject, //
    },
    trace::files::{
        self,
        Killed,
        Where, //
    }, //
};
use kernel::{
    prelude::*,
    time::{
        hrtimer::HrTimerExpires,
        Instant,
        RealTime, //
    }, //
};

/// Removes `victim` from `dir`: a file for good, a directory to the graveyard, where the daemon
/// deletes it. `obj` and `why` are for the trace: which object it is of, if any. The caller has the
/// cache's credentials.
///
/// # Errors
///
/// `EINVAL` if it is not in `dir` any more.
pub(crate) fn bury<M>(
    cache: &Cache<M>,
    obj: Option<&TraceObject>,
    dir: &Path,
    victim: &Path,
    why: Killed,
) -> Result {
    let write = cache.mount().want_write()?;
    if !victim.dentry().is_dir() {
        let list = list::named_by(victim);
        let removing = Removing::start_dentry(dir, victim.dentry(), &write)?;
        unlink(obj, dir, removing, why)?;
        drop(write);
        remove_list(cache, list);
        return Ok(());
    }
    for _ in 0..RETRIES {
        // CAST: As in C, the seconds of a time that started in 1970, modulo 2^32.
        let seconds = (Instant::<RealTime>::now().as_nanos() / 1_000_000_000) as u32;
        let name = grave_name(seconds, cache.next_grave());
        let renaming = Renaming::start(dir, victim, cache.graveyard(), &name, &write)?;
        if renaming.child().is_mountpoint() || renaming.target().is_mountpoint() {
            return Err(EIO);
        }
        if renaming.target().is_negative() {
            files::rename(obj, victim.dentry(), why);
            return inject::read()
                .and_then(|()| renaming.rename())
                .inspect_err(|e| files::vfs_error(obj, dir.dentry(), *e, Where::Rename));
        }
    }
    Err(EAGAIN)
}

/// Removes `name` from `dir`, if that is `file`. A file that was made by the driver has another
/// dentry than its name. The caller has the cache's credentials.
///
/// # Errors
///
/// `EINVAL` if it is not in `dir` any more; the file system's.
pub(crate) fn bury_file<M>(
    cache: &Cache<M>,
    obj: &TraceObject,
    dir: &Path,
    name: &[u8],
    file: &KernelFile,
    why: Killed,
) -> Result {
    let list = list::named_by(file.path());
    let write = cache.mount().want_write()?;
    let removing = match Removing::start(dir, name, &write) {
        Err(e) if e == ENOENT => return Err(EINVAL),
        removing => removing?,
    };
    let found = removing.child().inode();
    if !found.is_some_and(|inode| core::ptr::eq(inode, file.inode())) {
        return Err(EINVAL);
    }
    unlink(Some(obj), dir, removing, why)?;
    drop(write);
    remove_list(cache, list);
    Ok(())
}

/// Removes a file. `obj` and `why` are for the trace.
pub(super) fn unlink(
    obj: Option<&TraceObject>,
    dir: &Path,
    removing: Removing<'_>,
    why: Killed,
) -> Result {
    files::unlink(obj, removing.child(), why);
    inject::remove()
        .and_then(|()| removing.unlink())
        .inspect_err(|e| files::vfs_error(obj, dir.dentry(), *e, Where::Unlink))
}

/// Removes the list file that a file has [named](list::named_by) that is removed. The caller has no
/// write access to the mount.
pub(crate) fn remove_list<M>(cache: &Cache<M>, list: Option<u64>) {
    if let Some(token) = list {
        cache.lists().remove(token);
    }
}
