// SPDX-License-Identifier: GPL-2.0

//! Bringing a cache into service for fscache, and taking it out again.

use crate::{
    backing::{
        commits::Commits,
        Shared, //
    },
    cache::{
        config::Config,
        Cache, //
    },
    interface::{
        CacheFilesBackend,
        CookieOps, //
    },
    kernel_next::{
        compat::EOPNOTSUPP,
        cred::{
            with_cred,
            NewCredential, //
        },
        fs::{
            inode::Operation,
            kernel_file::{
                KernelFile,
                Seek, //
            },
            namei::may_create_in,
            path::Path, //
        },
        fscache,
        netfs::CacheIo, //
    },
    lists::Lists,
    mode::Mode,
    namei::{
        check_names,
        get_directory,
        get_directory_anyway, //
    },
    space::{
        Space,
        SpaceFor, //
    }, //
};
use kernel::{
    cred::Credential,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        poll::PollCondVar,
        Arc, //
    }, //
};

/// A cache in service.
pub(crate) struct Service<M: CookieOps>
where
    CacheFilesBackend<M>: CacheIo,
{
    cache: Arc<Cache<M>>,
    registration: fscache::Cache<CacheFilesBackend<M>>,
}

impl<M: CookieOps> Service<M>
where
    CacheFilesBackend<M>: CacheIo<Cache = Arc<Cache<M>>>,
{
    /// Brings a cache into service (`cachefiles_add_cache()`).
    pub(crate) fn bind(config: &Config, mode: M, poll: Arc<PollCondVar>) -> Result<Self> {
        let dir = config.dir.as_ref().ok_or(EINVAL)?.as_c_str()?;
        let tag = match &config.tag {
            Some(tag) => tag.as_c_str()?,
            None => c"CacheFiles",
        };
        let prepared = match M::IS_FOR_ALL {
            true => fscache::PreparedCache::new(tag)?,
            false => fscache::PreparedCache::new_apart(tag)?,
        };

        let mut new = NewCredential::kernel()?;
        if let Some(secid) = config.secid {
            new.security_override(secid).inspect_err(|e| {
                cf_err!(
                    "Security denies permission to nominate security context: error {}\n",
                    e.to_errno()
                )
            })?;
        }
        let cred = new.into_credential();
        let root = with_cred(&cred, || Path::lookup_dir(dir))?;
        check_root(&root)?;

        // Files get the security context that the directory gives them.
        let mut new = NewCredential::copy_of(&cred)?;
        new.create_files_as(root.dentry().inode().ok_or(ENOTDIR)?)?;
        let cred = new.into_credential();

        let cache = with_cred(&cred, || open(config, &root, cred.clone(), mode, poll))?;
        cache.mode().set_handle(prepared.handle());
        let registration = prepared.register(cache.clone())?;
        cf_info!("File cache on {} registered\n", tag);
        // Notes if there is little space left, so that the daemon starts to cull.
        let _ = with_cred(cache.cred(), || cache.space().check(0, 0, SpaceFor::Check));
        Ok(Service {
            cache,
            registration,
        })
    }

    pub(crate) fn cache(&self) -> &Arc<Cache<M>> {
        &self.cache
    }

    /// Takes the cache out of service (`cachefiles_withdraw_cache()`). Waits for disk I/O, but for
    /// no daemon.
    pub(crate) fn withdraw(mut self) {
        cf_info!("File cache on {} unregistering\n", self.registration.name());
        // From here on no lookup or read waits for the daemon, so the withdrawal does not either.
        self.cache.mode().kill();
        self.registration.withdraw();
        self.cache.shared().commits.kill();
        self.cache.mode().flush();
        let synced = with_cred(self.cache.cred(), || self.cache.mount().sync());
        if let Err(e) = synced {
            cf_err!("Cannot write the cache's file system out: {:?}\n", e);
        }
    }
}

/// Checks that a cache can be kept in `root`, and finds or makes its directories there. The caller
/// has the credentials `cred`.
fn open<M: Mode>(
    config: &Config,
    root: &Path,
    cred: ARef<Credential>,
    mode: M,
    poll: Arc<PollCondVar>,
) -> Result<Arc<Cache<M>>> {
    may_create_in(root.dentry()).inspect_err(|e| {
        cf_err!(
            "Security denies permission to make dirs or create files: error {}\n",
            e.to_errno()
        )
    })?;
    check_holes(root, &cred)?;
    let space = Arc::new(Space::new(root.clone(), &config.limits, poll)?, GFP_KERNEL)?;
    let (store, _) = get_directory(&space, root, b"cache")?;
    let (graveyard, _) = get_directory(&space, root, b"graveyard")?;
    // A cache of the C code may be full, and has none.
    let (lists, _) = get_directory_anyway(&space, root, b"lists")?;
    let shared = Shared {
        space,
        lists: Lists::new(lists.clone(), cred.clone()),
        cred,
        commits: Commits::new(mode.is_durable())?,
        limits_maps: M::IS_FOR_ALL,
    };
    let shared = Arc::new(shared, GFP_KERNEL)?;
    let cache = Cache::new(store, graveyard, lists, shared, mode);
    Ok(Arc::new(cache, GFP_KERNEL)?)
}

/// What a file system has to be able to do with the directory that a cache is in.
const NEEDED: [Operation; 4] = [
    Operation::Lookup,
    Operation::Mkdir,
    Operation::Tmpfile,
    Operation::Xattr,
];

/// Checks that a cache can be kept in a directory: that the file system has the operations that are
/// needed, and may be written to.
fn check_root(root: &Path) -> Result {
    let mount = root.mount();
    if mount.is_idmapped() {
        cf_warn!("File cache on idmapped mounts not supported\n");
        return Err(EINVAL);
    }
    let usable = root
        .dentry()
        .inode()
        .is_some_and(|inode| inode.supports(&NEEDED))
        && mount.can_statfs_and_sync();
    if !usable {
        cf_err!(
            "The file system cannot hold a cache: it lacks lookup, mkdir, tmpfiles, xattrs, statfs \
             or sync\n"
        );
        return Err(EOPNOTSUPP);
    }
    // Write-back errors are recorded with the file that was written to, which on a stacked file
    // system is another one below.
    if mount.is_stacked() {
        cf_err!("The file system cannot hold a cache: it is on top of another, as overlayfs\n");
        return Err(EOPNOTSUPP);
    }
    if mount.is_readonly() {
        return Err(EROFS);
    }
    check_names(root.dentry().inode().ok_or(ENOTDIR)?)?;
    Ok(())
}

/// Checks that the file system reports holes: one that reports all of a file as data could not tell
/// which blocks were lost in a crash.
fn check_holes(root: &Path, cred: &Credential) -> Result {
    let write = root.mount().want_write()?;
    let file = KernelFile::tmpfile(&write, root, cred)?;
    drop(write);
    file.truncate(PAGE_SIZE as i64)?;
    match file.seek(0, Seek::Data) {
        Err(e) if e == ENXIO => Ok(()),
        Ok(_) => {
            cf_err!("The file system cannot hold a cache: it takes holes for data (SEEK_DATA)\n");
            Err(EOPNOTSUPP)
        }
        Err(e) => Err(e),
    }
}
