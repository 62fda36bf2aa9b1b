// SPDX-License-Identifier: GPL-2.0

//! Culling, on behalf of the daemon, in its working directory.

use super::graveyard::{
    bury,
    remove_list,
    unlink, //
};
use crate::{
    backing::list,
    cache::Cache,
    kernel_next::{
        compat::ESTALE,
        cred::with_cred,
        fs::{
            namei::Removing,
            path::Path, //
        },
        fscache::stats, //
    },
    mark::Mark,
    space::SpaceFor,
    trace::files::Killed, //
};
use kernel::prelude::*;

/// The daemon's working directory, which has to be in the cache. The path is on the cache's mount:
/// the daemon may have come there by another.
///
/// # Errors
///
/// `ENOTDIR` if it is not a directory, `EINVAL` if it is not below `cache/`: what is elsewhere is
/// none of the cache's business, whatever the cache's credentials allow.
fn current_dir<M>(cache: &Cache<M>, command: &str) -> Result<Path> {
    let path = Path::current_dir()?;
    if !path.dentry().can_lookup() {
        cf_err!("{} command requires dirfd to be a directory\n", command);
        return Err(ENOTDIR);
    }
    path.via_mount_of(cache.store()).ok_or_else(|| {
        cf_err!("{} command requires dirfd to be in the cache\n", command);
        EINVAL
    })
}

/// What the daemon is told of an error in looking for a name.
fn lookup_error(e: Error) -> Error {
    if e == ENOENT {
        ESTALE
    } else if e == ENOMEM {
        ENOMEM
    } else {
        cf_err!("Internal error: {}\n", e.to_errno());
        EIO
    }
}

/// Removes `name` from the daemon's working directory, unless it is in use.
///
/// # Errors
///
/// `EBUSY` if it is in use, `ESTALE` if there is no such name, `EIO` if it cannot be removed; see
/// [`current_dir`].
pub(crate) fn cull<M>(cache: &Cache<M>, name: &[u8]) -> Result {
    let path = current_dir(cache, "cull")?;
    with_cred(cache.cred(), || {
        let write = cache.mount().want_write()?;
        let removing = Removing::start(&path, name, &write).map_err(lookup_error)?;
        // Fails with `EBUSY` if it is in use. Otherwise the mark keeps lookups from using it until
        // it is gone.
        let mark = Mark::set(removing.child_path(), None)?;
        let list = list::named_by(mark.path());
        if mark.path().dentry().is_dir() {
            drop(removing);
            drop(write);
            bury(cache, None, &path, mark.path(), Killed::Culled)
        } else {
            let removed = unlink(None, &path, removing, Killed::Culled);
            drop(write);
            removed
        }
        .map_err(lookup_error)?;
        // Its blocks are free when the last one lets go of it.
        drop(mark);
        remove_list(cache, list);
        stats::count_culled();
        // Tells the daemon when it has culled enough.
        let _ = cache.space().check(0, 0, SpaceFor::Check);
        Ok(())
    })
}

/// Whether `name` in the daemon's working directory is in use.
///
/// # Errors
///
/// `EBUSY` if it is; otherwise as for [`cull`].
pub(crate) fn check_in_use<M>(cache: &Cache<M>, name: &[u8]) -> Result {
    let path = current_dir(cache, "inuse")?;
    with_cred(cache.cred(), || {
        let write = cache.mount().want_write()?;
        let removing = Removing::start(&path, name, &write).map_err(lookup_error)?;
        match removing.child().inode() {
            Some(inode) if inode.is_in_use() => Err(EBUSY),
            Some(_) => Ok(()),
            None => Err(ESTALE),
        }
    })
}
