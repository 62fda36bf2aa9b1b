// SPDX-License-Identifier: GPL-2.0

//! The file of an object, which an invalidation replaces, and the mark that it was written to.

use super::cache::Classic;
use crate::{
    backing::Backing,
    cache::Cache,
    disk::xattr::{
        Content,
        Value,
        AUX_MAX, //
    },
    kernel_next::{
        cred::with_cred,
        fscache::Cookie, //
    }, //
};
use core::mem::replace;
use kernel::{
    new_mutex,
    new_spinlock,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Release, //
            },
            Atomic, //
        },
        Arc,
        Mutex,
        SpinLock, //
    }, //
};

/// The files that an object has one after the other. Reads and writes of an earlier one may be
/// under way when it is replaced.
#[pin_data]
pub(crate) struct Files {
    #[pin]
    current: SpinLock<Arc<File>>,
}

impl Files {
    pub(super) fn new(backing: Arc<Backing>, cookie: &Cookie) -> Result<Arc<Self>> {
        let file = File::new(backing, cookie)?;
        Arc::pin_init(
            pin_init!(Self {
                current <- new_spinlock!(file),
            }),
            GFP_KERNEL,
        )
    }

    /// The file that there is now.
    pub(crate) fn current(&self) -> Arc<File> {
        self.current.lock().clone()
    }

    /// Puts a new file in the place of the one that there is, which is returned.
    ///
    /// # Errors
    ///
    /// `ENOMEM`: then nothing has changed.
    pub(crate) fn replace(&self, backing: Arc<Backing>, cookie: &Cookie) -> Result<Arc<File>> {
        let new = File::new(backing, cookie)?;
        Ok(replace(&mut *self.current.lock(), new))
    }
}

/// One file of an object.
#[pin_data]
pub(crate) struct File {
    pub(crate) backing: Arc<Backing>,
    /// The cookie's count of invalidations when the file became that of the object.
    inval_counter: c_uint,
    /// Whether the file's attribute on the disk says that the file is dirty.
    is_dirty: Atomic<i32>,
    /// Held while it is made to say so. Outer to the file system's locks.
    #[pin]
    making_dirty: Mutex<()>,
}

impl File {
    fn new(backing: Arc<Backing>, cookie: &Cookie) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                backing,
                inval_counter: cookie.inval_counter(),
                is_dirty: Atomic::new(0),
                making_dirty <- new_mutex!(()),
            }),
            GFP_KERNEL,
        )
    }

    /// Whether the data was invalidated since the file became the object's. fscache tells the cache
    /// of it only while the object is in use and the cache in service.
    pub(super) fn is_outdated(&self, cookie: &Cookie) -> bool {
        cookie.inval_counter() != self.inval_counter
    }

    /// Whether the file's attribute on the disk says that the file is dirty. It has to be written
    /// anew when the object is withdrawn.
    pub(super) fn is_dirty(&self) -> bool {
        self.is_dirty.load(Acquire) != 0
    }

    /// Gives the object another size, in bytes (`cachefiles_resize_cookie()`). What it had until
    /// now is known here only: a write that extends the file is not told to the cookie. Sleeps.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFBIG`, `ENOMEM`; the file system's error. Then it is not known what the file
    /// holds.
    pub(crate) fn resize(&self, cache: &Cache<Classic>, cookie: &Cookie, size: i64) -> Result {
        let size = u64::try_from(size).map_err(|_| EINVAL)?;
        if size < self.backing.size() {
            self.mark_dirty(cache, cookie)?;
        }
        with_cred(cache.cred(), || {
            self.backing.shorten(size)?;
            self.backing.grow(size, |_| true)?;
            Ok(())
        })
    }

    /// Before what a file with a name holds is changed in a way that the server does not know of
    /// yet: has its attribute say so on the disk, so that after a crash the file is not used. In C
    /// nothing waits for that mark (`cachefiles_prepare_to_write()`).
    ///
    /// A file without a name needs none: after a crash it is gone. Sleeps.
    ///
    /// # Errors
    ///
    /// The file system's: then the file must not be changed.
    pub(crate) fn mark_dirty(&self, cache: &Cache<Classic>, cookie: &Cookie) -> Result {
        if self.is_dirty() {
            return Ok(());
        }
        let Some(file) = self.backing.file().filter(|_| self.backing.is_named()) else {
            return Ok(());
        };
        let _making_dirty = self.making_dirty.lock();
        if self.is_dirty() {
            return Ok(());
        }
        with_cred(cache.cred(), || {
            let mut aux = [0; AUX_MAX];
            let aux = cookie.aux(&mut aux);
            let size = cookie.object_size().max(0).unsigned_abs();
            let value = Value::object(size, Content::Dirty, aux, b"");
            self.backing.set_value(file, value.as_bytes())?;
            file.sync()
        })?;
        self.is_dirty.store(1, Release);
        Ok(())
    }
}
