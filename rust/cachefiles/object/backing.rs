// SPDX-License-Identifier: GPL-2.0

//! Where the data of an object is.

use super::Object;
use crate::{
    disk::presence,
    kernel_next::fs::{
        dentry::Dentry,
        kernel_file::KernelFile, //
    },
    ondemand::Requests,
    protocol::BLOCK_SIZE,
    space::{
        For,
        Space, //
    },
    volume::Volume, //
};
use kernel::{
    cred::Credential,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        SetOnce, //
    }, //
};

/// Where the data of an object is, and what is needed to fill and to read it. Whoever is writing
/// keeps it, so there is nothing in it that others wait for.
#[pin_data]
pub(crate) struct Backing {
    /// The file. An object that was not found gets one when it is first written to: making one
    /// is most of what a lookup costs, and many objects are never read.
    file: SetOnce<KernelFile>,
    /// Held while one is made. Outer to the locks of the file system.
    #[pin]
    making: Mutex<()>,
    /// Where it is made. Let go before the mount, which `space` keeps.
    dir: ARef<Dentry>,
    pub(crate) space: Arc<Space>,
    pub(crate) cred: ARef<Credential>,
    /// The size of the object in bytes.
    pub(crate) size: u64,
}

impl Backing {
    pub(super) fn new(volume: &Volume, size: u64, found: Option<KernelFile>) -> Result<Arc<Self>> {
        let file = SetOnce::new();
        if let Some(found) = found {
            file.populate(found);
        }
        let cache = volume.cache();
        Arc::pin_init(
            pin_init!(Self {
                file,
                making <- new_mutex!(()),
                dir: volume.dir().into(),
                space: cache.space().clone(),
                cred: cache.cred().into(),
                size,
            }),
            GFP_KERNEL,
        )
    }

    /// The file. `None` if none of the object's data has ever been written.
    #[inline]
    pub(crate) fn file(&self) -> Option<&KernelFile> {
        self.file.as_ref()
    }

    /// The file, which is made if there is none. The caller has the cache's credentials.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is no room; `ENOMEM`, `EFBIG`; what making a file says.
    pub(crate) fn file_to_write(&self, object: &Object) -> Result<&KernelFile> {
        if let Some(file) = self.file() {
            return Ok(file);
        }
        let _making = self.making.lock();
        if self.file().is_none() {
            let file = self.make_file()?;
            // Before anybody looks into the file.
            object.set_file(&file, presence::blocks(self.size))?;
            self.file.populate(file);
            if object.backing().is_none() {
                // It was given up meanwhile, and needs no map.
                let _map = object.unset_file();
            }
        }
        self.file().ok_or(EIO)
    }

    /// As [`Requests::failed`], when the object could not be written. The caller has the cache's
    /// credentials.
    pub(crate) fn failed(&self, requests: &Requests, error: Error) {
        requests.failed(&self.space, &self.dir, &self.cred, error);
    }

    /// Makes a file without a name, of the size that it is to have.
    fn make_file(&self) -> Result<KernelFile> {
        self.space.check(1, 0, For::Create)?;
        let write = self.space.mount().want_write()?;
        let file = KernelFile::tmpfile(&write, &self.dir, &self.cred)?;
        // Setting the size gets it, too.
        drop(write);
        if self.size > 0 {
            self.set_size(&file)?;
        }
        Ok(file)
    }

    /// How long a file of the object is, in bytes: reads are in whole blocks, so that no part of
    /// one may be missing.
    fn file_size(&self) -> u64 {
        presence::blocks(self.size) * BLOCK_SIZE
    }

    /// Whether somebody has cut `file` off.
    pub(super) fn is_cut_off(&self, file: &KernelFile) -> bool {
        file.inode().size().unsigned_abs() < self.file_size()
    }

    /// Makes `file` as long as it is to be.
    pub(super) fn set_size(&self, file: &KernelFile) -> Result {
        file.truncate(i64::try_from(self.file_size()).map_err(|_| EFBIG)?)
    }
}
