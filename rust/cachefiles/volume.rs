// SPDX-License-Identifier: GPL-2.0

//! Volumes: a directory each, with 256 directories for objects.

use crate::{
    cache::{
        directory::Directory,
        Cache, //
    },
    disk::{
        key::{
            fanout_name,
            volume_name, //
        },
        xattr::{
            check_volume,
            Stale,
            Value,
            AUX_MAX,
            XATTR_NAME, //
        }, //
    },
    inject,
    kernel_next::{
        compat::{
            ENODATA,
            ESTALE, //
        },
        crypto::sha256,
        fs::{
            namei::lookup_positive,
            path::Path,
            xattr, //
        },
        fscache, //
    },
    namei::{
        get_directory,
        get_directory_anyway,
        graveyard::bury,
        RETRIES, //
    },
    trace::files::{
        self,
        Coherency,
        Killed,
        Where, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SetOnce, //
    }, //
};

const FANOUT: usize = 256;

/// A volume of a cache (`struct cachefiles_volume`).
#[pin_data]
pub(crate) struct Volume<M> {
    /// Made when an object is first put there, so that a volume does not start with 256 of them.
    fanout: KVec<SetOnce<Directory>>,
    /// Held while one is made.
    #[pin]
    making: Mutex<()>,
    dir: Directory,
    /// Whether the volume was new: then there is no directory for objects but those that this made.
    is_new: bool,
    cache: Arc<Cache<M>>,
}

impl<M> Volume<M> {
    /// Finds or makes the directory of a volume (`cachefiles_acquire_volume()`). The caller has the
    /// cache's credentials.
    pub(crate) fn new(cache: Arc<Cache<M>>, volume: &fscache::Volume) -> Result<Arc<Self>> {
        let (dir, is_new) = Self::directory(&cache, volume)?;
        let mut fanout = KVec::with_capacity(FANOUT, GFP_KERNEL)?;
        for _ in 0..FANOUT {
            fanout.push(SetOnce::new(), GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                fanout,
                making <- new_mutex!(()),
                dir,
                is_new,
                cache,
            }),
            GFP_KERNEL,
        )
    }

    /// Finds or makes it. Returns whether it is new.
    fn directory(cache: &Cache<M>, volume: &fscache::Volume) -> Result<(Directory, bool)> {
        let name = volume_name(volume.key(), sha256)?;
        for _ in 0..RETRIES {
            let (dir, is_new) = get_directory(cache.space(), cache.store(), name.as_bytes())?;
            if is_new {
                set_coherency(cache, &dir, volume)?;
                return Ok((dir, true));
            }
            if is_current(&dir, volume)? {
                return Ok((dir, false));
            }
            // It has data of another state of the volume. `bury()` moves it although `dir` marks it
            // as being in use.
            bury(cache, None, cache.store(), &dir, Killed::WeirdVolume)?;
        }
        Err(ESTALE)
    }

    pub(crate) fn cache(&self) -> &Arc<Cache<M>> {
        &self.cache
    }

    /// The directory of the volume, in which there are those for objects.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory for objects whose key has this hash, if there is one. The caller has the
    /// cache's credentials.
    pub(crate) fn find_fanout(&self, key_hash: u32) -> Result<Option<&Path>> {
        // CAST: The lowest byte is meant.
        let index = key_hash as u8;
        let slot = self.fanout.get(usize::from(index)).ok_or(EIO)?;
        if let Some(dir) = slot.as_ref() {
            return Ok(Some(dir));
        }
        if self.is_new {
            return Ok(None);
        }
        match lookup_positive(&self.dir, &fanout_name(index)) {
            Ok(_) => self.fanout(key_hash).map(Some),
            Err(e) if e == ENOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The directory for objects whose key has this hash, which is made if there is none. The
    /// caller has the cache's credentials.
    pub(crate) fn fanout(&self, key_hash: u32) -> Result<&Path> {
        // CAST: The lowest byte is meant.
        let index = key_hash as u8;
        let slot = self.fanout.get(usize::from(index)).ok_or(EIO)?;
        if let Some(dir) = slot.as_ref() {
            return Ok(dir);
        }
        let _making = self.making.lock();
        if slot.as_ref().is_none() {
            // Without a check of the space: the data of the object is on the disk already.
            let (dir, _) =
                get_directory_anyway(self.cache.space(), &self.dir, &fanout_name(index))?;
            slot.populate(dir);
        }
        slot.as_ref().map(|dir| &**dir).ok_or(EIO)
    }

    /// Writes down which state of the volume is cached, as it is given up, or removes it if that is
    /// not valid any more. The caller has the cache's credentials.
    pub(crate) fn finish(&self, volume: &fscache::Volume) {
        if volume.take_invalidate() {
            // If it cannot be moved, it keeps its old coherency data.
            let (cache, why) = (&*self.cache, Killed::WeirdVolume);
            let _ = bury(cache, None, cache.store(), &self.dir, why);
            return;
        }
        // If it cannot be written, the next lookup of the volume finds old coherency data, and
        // starts with an empty directory.
        let _ = set_coherency(&self.cache, &self.dir, volume);
    }
}

/// Whether what is in `dir` is of the state of the volume that there is now.
///
/// # Errors
///
/// The file system's.
fn is_current(dir: &Path, volume: &fscache::Volume) -> Result<bool> {
    let mut buf = [0; 256 + 4];
    let got = inject::read().and_then(|()| xattr::get(dir, XATTR_NAME, &mut buf));
    let found = match got {
        Ok(len) => buf.get(..len).unwrap_or_default(),
        Err(e) => {
            files::vfs_error(None, dir.dentry(), e, Where::Getxattr);
            files::vol_coherency(volume, dir.dentry(), Coherency::VolCheckXattr);
            // A value that is too long, or none at all, is as wrong as another.
            return match e {
                e if e == ERANGE || e == ENODATA => Ok(false),
                e => Err(e),
            };
        }
    };
    let mut coherency = [0; AUX_MAX];
    let checked = check_volume(found, volume.coherency(&mut coherency));
    let why = match checked {
        Ok(()) => Coherency::VolCheckOk,
        Err(Stale::Length) => Coherency::VolCheckXattr,
        Err(Stale::Type) => Coherency::VolCheckResv,
        Err(_) => Coherency::VolCheckCmp,
    };
    files::vol_coherency(volume, dir.dentry(), why);
    Ok(checked.is_ok())
}

fn set_coherency<M>(cache: &Cache<M>, dir: &Path, volume: &fscache::Volume) -> Result {
    let write = cache.mount().want_write()?;
    let mut coherency = [0; AUX_MAX];
    let value = Value::volume(volume.coherency(&mut coherency));
    let set = inject::write().and_then(|()| xattr::set(dir, XATTR_NAME, value.as_bytes(), &write));
    let why = match set {
        Ok(()) => Coherency::VolSetOk,
        Err(e) => {
            files::vfs_error(None, dir.dentry(), e, Where::Setxattr);
            Coherency::VolSetFail
        }
    };
    files::vol_coherency(volume, dir.dentry(), why);
    set
}
