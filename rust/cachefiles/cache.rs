// SPDX-License-Identifier: GPL-2.0

//! A cache: a directory, brought into service for fscache.

pub(crate) mod space;

use self::space::Space;
use crate::{
    daemon::Config,
    interface::CacheFilesBackend,
    kernel_next::{
        compat::EOPNOTSUPP,
        cred::{
            with_cred,
            NewCredential, //
        },
        fs::{
            dentry::Dentry,
            inode::Operation,
            kernel_file::{
                KernelFile,
                Seek, //
            },
            namei::may_create_in,
            path::{
                Mount,
                Path, //
            }, //
        },
        fscache, //
    },
    namei::{
        check_names,
        get_directory,
        Directory, //
    },
    ondemand::Ondemand,
    protocol::command::Options, //
};
use kernel::{
    cred::Credential,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        poll::PollCondVar,
        Arc, //
    }, //
};

/// A cache in service (`struct cachefiles_cache`).
pub(crate) struct Cache {
    // The directories go before the mount.
    store: Directory,
    graveyard: Directory,
    grave_counter: Atomic<u32>,
    /// What files are made and changed with.
    cred: ARef<Credential>,
    space: Arc<Space>,
    ondemand: Arc<Ondemand>,
}

/// Whether a cache is dead, now that something could not be found, made or written in it: then
/// nothing new can be fetched, and whoever waits is told so, the daemon too
/// (`cachefiles_io_error()`). What is wrong with one file or directory says nothing of the others,
/// so the file system is asked for a file, in its directory `dir`. The caller has the cache's
/// credentials.
pub(crate) fn doubt(
    ondemand: &Ondemand,
    mount: &Mount,
    dir: &Dentry,
    cred: &Credential,
    error: Error,
) {
    let is_fatal = |e| e == EIO || e == EROFS;
    if !is_fatal(error) || ondemand.is_dead() {
        return;
    }
    let file = mount
        .want_write()
        .and_then(|write| KernelFile::tmpfile(&write, dir, cred));
    if file.is_err_and(is_fatal) {
        pr_err!("The cache's file system takes no more files: {:?}\n", error);
        ondemand.kill();
    }
}

impl Cache {
    /// Brings a cache into service (`cachefiles_add_cache()`).
    pub(crate) fn bind(
        config: &Config,
        options: Options,
        poll: Arc<PollCondVar>,
    ) -> Result<(Arc<Self>, fscache::Cache<CacheFilesBackend>)> {
        let dir = config.dir.as_ref().ok_or(EINVAL)?.as_c_str()?;
        let tag = match &config.tag {
            Some(tag) => tag.as_c_str()?,
            None => c"CacheFiles",
        };
        let prepared = fscache::PreparedCache::new(tag)?;

        let mut new = NewCredential::kernel()?;
        if let Some(secid) = config.secid {
            new.security_override(secid).inspect_err(|e| {
                pr_err!(
                    "Security denies permission to nominate security context: {:?}\n",
                    e
                )
            })?;
        }
        let cred = new.commit();
        let root = with_cred(&cred, || Path::lookup_dir(dir))?;
        check_root(&root)?;

        // Files get the security context that the directory gives them.
        let mut new = NewCredential::copy_of(&cred)?;
        new.create_files_as(root.dentry.inode().ok_or(ENOTDIR)?)?;
        let cred = new.commit();

        let cache = with_cred(&cred, || {
            let ondemand = Ondemand::new(options, poll.clone())?;
            Self::new(config, &root, cred.clone(), ondemand, poll)
        })?;
        let service = prepared.register(cache.clone())?;
        pr_info!("File cache on {} registered\n", tag);
        // Notes if there is little room left, so that the daemon starts to cull.
        let _ = with_cred(&cache.cred, || cache.space.check(0, 0, space::For::Check));
        Ok((cache, service))
    }

    fn new(
        config: &Config,
        root: &Path,
        cred: ARef<Credential>,
        ondemand: Arc<Ondemand>,
        poll: Arc<PollCondVar>,
    ) -> Result<Arc<Self>> {
        may_create_in(&root.dentry)
            .inspect_err(|e| pr_err!("Security denies permission to make files: {:?}\n", e))?;
        check_holes(root, &cred)?;
        let space = Arc::new(
            Space::new(root.mount.clone(), &config.limits, poll)?,
            GFP_KERNEL,
        )?;
        let (store, _) = get_directory(&space, &root.dentry, b"cache")?;
        let (graveyard, _) = get_directory(&space, &root.dentry, b"graveyard")?;
        Ok(Arc::new(
            Cache {
                store,
                graveyard,
                grave_counter: Atomic::new(0),
                cred,
                space,
                ondemand,
            },
            GFP_KERNEL,
        )?)
    }

    /// Takes the cache out of service (`cachefiles_withdraw_cache()`).
    pub(crate) fn retire(&self, service: &mut fscache::Cache<CacheFilesBackend>) {
        // From here on nobody waits for the daemon, so that everybody gets done.
        self.ondemand.kill();
        service.withdraw();
        self.ondemand.flush();
        let synced = with_cred(&self.cred, || self.mount().sync());
        if let Err(e) = synced {
            pr_err!("Cannot write the cache's file system out: {:?}\n", e);
        }
        pr_info!("File cache unregistered\n");
    }

    /// As [`doubt`], when something could not be found or made in the cache.
    pub(crate) fn doubt(&self, error: Error) {
        doubt(&self.ondemand, self.mount(), &self.store, &self.cred, error);
    }

    pub(crate) fn ondemand(&self) -> &Arc<Ondemand> {
        &self.ondemand
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    pub(crate) fn mount(&self) -> &Mount {
        self.space.mount()
    }

    /// Where volumes are.
    pub(crate) fn store(&self) -> &Directory {
        &self.store
    }

    /// Where directories are put that the daemon is to delete.
    pub(crate) fn graveyard(&self) -> &Directory {
        &self.graveyard
    }

    pub(crate) fn cred(&self) -> &Credential {
        &self.cred
    }

    /// A number that no other grave of this cache has.
    pub(crate) fn next_grave(&self) -> u32 {
        self.grave_counter.fetch_add(1, Relaxed)
    }
}

/// What a file system has to be able to do with the directory that a cache is in.
const NEEDED: [Operation; 4] = [
    Operation::Lookup,
    Operation::Mkdir,
    Operation::Tmpfile,
    Operation::Xattr,
];

/// Checks that a cache can be kept in a directory: that the file system has what is needed, and may
/// be written to.
fn check_root(root: &Path) -> Result {
    let mount = &root.mount;
    if mount.is_idmapped() {
        pr_warn!("File cache on idmapped mounts not supported\n");
        return Err(EINVAL);
    }
    let usable = root
        .dentry
        .inode()
        .is_some_and(|inode| inode.supports(&NEEDED))
        && mount.can_statfs_and_sync()
        && mount.super_block_size() <= PAGE_SIZE;
    if !usable {
        pr_err!("The file system cannot hold a cache: it lacks tmpfiles, xattrs, statfs or sync\n");
        return Err(EOPNOTSUPP);
    }
    // Whether data was lost on its way to the disk is asked of the file that it was written to.
    if mount.is_stacked() {
        pr_err!("The file system cannot hold a cache: it is on top of another, as overlayfs\n");
        return Err(EOPNOTSUPP);
    }
    if mount.is_readonly() {
        return Err(EROFS);
    }
    check_names(root.dentry.inode().ok_or(ENOTDIR)?)?;
    Ok(())
}

/// Checks that the file system knows what it has: one that calls all of a file data could not tell
/// what was lost in a crash.
fn check_holes(root: &Path, cred: &Credential) -> Result {
    let write = root.mount.want_write()?;
    let file = KernelFile::tmpfile(&write, &root.dentry, cred)?;
    drop(write);
    file.truncate(PAGE_SIZE as i64)?;
    match file.seek(0, Seek::Data) {
        Err(e) if e == ENXIO => Ok(()),
        Ok(_) => {
            pr_err!("The file system cannot hold a cache: it takes holes for data (SEEK_DATA)\n");
            Err(EOPNOTSUPP)
        }
        Err(e) => Err(e),
    }
}
