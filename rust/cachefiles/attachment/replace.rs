// SPDX-License-Identifier: GPL-2.0

//! Giving an object a new file: its data is not valid any more.

use super::Attachment;
use crate::{
    backing::Backing,
    classic::{
        Classic,
        File, //
    },
    disk::{
        key::cook_key,
        xattr::XATTR_NAME, //
    },
    inject,
    kernel_next::{
        compat::ENODATA,
        cred::with_cred,
        crypto::sha256,
        fs::{
            kernel_file::KernelFile,
            xattr, //
        },
        fscache::Cookie, //
    },
    namei::graveyard::bury_file,
    trace::files::{
        self,
        Killed,
        Where, //
    },
    volume::Volume, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// A file that an object has had. Dropping it removes the name: reads of it may be under way, but
/// none begins.
pub(crate) struct Replaced {
    file: Arc<File>,
    volume: Arc<Volume<Classic>>,
    key_hash: u32,
    name: KVec<u8>,
}

impl Attachment<Classic> {
    /// Puts a new file in the place of the one that there is (`cachefiles_invalidate_cookie()`). It
    /// is made when it is first written to, so little can fail.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn replace(&self, cookie: &Cookie) -> Result<Replaced> {
        let cache = self.cache();
        let size = cookie.object_size().max(0).unsigned_abs();
        let (dir, id) = (self.volume.dir(), cookie.debug_id());
        let backing = Backing::new(dir, cache.shared(), size, id, None)?;
        let mut name = KVec::new();
        name.extend_from_slice(cook_key(cookie.key(), sha256)?.as_bytes(), GFP_KERNEL)?;
        let replaced = Replaced {
            file: self.files().replace(backing, cookie)?,
            volume: self.volume.clone(),
            key_hash: cookie.key_hash(),
            name,
        };
        cookie.set_needs_update();
        Ok(replaced)
    }
}

impl Replaced {
    fn unlink(&self, file: &KernelFile) -> Result {
        let cache = self.volume.cache();
        let fan = self.volume.fanout(self.key_hash)?;
        let obj = self.file.backing.trace();
        match bury_file(cache, obj, fan, &self.name, file, Killed::Invalidated) {
            // It was removed by others.
            Err(e) if e == EINVAL => Ok(()),
            Err(_) => {
                // A file without the attribute is not used.
                let write = cache.mount().want_write()?;
                let removed =
                    inject::remove().and_then(|()| xattr::remove(file.path(), XATTR_NAME, &write));
                match removed {
                    Err(e) if e == ENODATA => Ok(()),
                    removed => removed.inspect_err(|e| {
                        files::vfs_error(Some(obj), file.path().dentry(), *e, Where::Remxattr);
                    }),
                }
            }
            Ok(()) => Ok(()),
        }
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        let backing = &self.file.backing;
        let Some(file) = backing.file().filter(|_| backing.is_named()) else {
            return;
        };
        with_cred(self.volume.cache().cred(), || {
            if let Err(e) = self.unlink(file) {
                cf_limited!(cf_err!(
                    "Cannot remove a file whose data is not valid any more: error {}\n",
                    e.to_errno()
                ));
            }
            // A read may keep the file for longer.
            backing.unmark();
        });
    }
}
