// SPDX-License-Identifier: GPL-2.0

//! What becomes of the file of an object that is withdrawn.

use super::Attachment;
use crate::{
    backing::{
        list,
        Blocks, //
    },
    disk::{
        key::cook_key,
        xattr::{
            Content,
            Value,
            AUX_MAX,
            XATTR_NAME, //
        }, //
    },
    kernel_next::{
        compat::ESTALE,
        crypto::sha256,
        fs::{
            kernel_file::KernelFile,
            namei::Creating,
            path::WriteAccess,
            xattr, //
        },
        fscache::Cookie, //
    },
    mode::Mode,
    namei::{
        graveyard::bury,
        RETRIES, //
    }, //
};
use kernel::prelude::*;

impl<M: Mode> Attachment<M> {
    /// Keeps the file, or removes it if the data is `retired`, or was lost.
    pub(super) fn keep_or_delete(
        &self,
        cookie: &Cookie,
        file: &KernelFile,
        map: &Blocks,
        retired: bool,
    ) -> Result {
        let usable = match retired {
            false => self.write_out(file),
            true => Err(ESTALE),
        };
        match usable {
            // If this fails, a named file keeps its old list, which is still true.
            Ok(()) => self.keep(cookie, file, map),
            Err(_) => self.delete(cookie, file).and(usable),
        }
    }

    /// Removes the file, if it has a name.
    fn delete(&self, cookie: &Cookie, file: &KernelFile) -> Result {
        if !self.backing.is_named() {
            return Ok(());
        }
        let fan = self.volume.fanout(cookie.key_hash())?;
        bury(self.cache(), fan, file.path())
    }

    /// Whether the file, and what is known of it, is as it was found.
    fn is_unchanged(&self) -> bool {
        self.backing.is_named() && !self.backing.is_modified()
    }

    /// Writes the data to the disk: after a crash nothing must be found there that has not been
    /// written to it.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if data was lost.
    fn write_out(&self, file: &KernelFile) -> Result {
        if !self.is_unchanged() {
            file.write_and_wait()?;
        }
        // A write-back error that was not reported yet may be of blocks that the file's list names.
        self.backing.check_write_errors(file)
    }

    /// Writes down what the file holds, and gives it its name if it is new
    /// (`cachefiles_commit_object()`).
    fn keep(&self, cookie: &Cookie, file: &KernelFile, map: &Blocks) -> Result {
        if self.is_unchanged() {
            return Ok(());
        }
        let write = self.cache().mount().want_write()?;
        if !self.backing.is_named() {
            self.set_state(cookie, file, &write)?;
        }
        list::write(file.path(), &write, |buf| map.present().encode(None, buf))?;
        match self.backing.is_named() {
            true => Ok(()),
            false => self.commit(cookie, file, write),
        }
    }

    /// Gives a new file the attribute that says what it is.
    fn set_state(&self, cookie: &Cookie, file: &KernelFile, write: &WriteAccess<'_>) -> Result {
        let mut aux = [0; AUX_MAX];
        let aux = cookie.aux(&mut aux);
        let (size, version) = (M::size(&self.object), M::version(&self.object));
        let value = Value::object(size, Content::Listed, aux, version);
        xattr::set(file.path(), XATTR_NAME, value.as_bytes(), write)
    }

    /// Gives a new file its name (`cachefiles_commit_tmpfile()`).
    fn commit(&self, cookie: &Cookie, file: &KernelFile, write: WriteAccess<'_>) -> Result {
        // Making the directory gets write access itself.
        drop(write);
        let fan = self.volume.fanout(cookie.key_hash())?;
        let write = self.cache().mount().want_write()?;
        // Keeps the file from being culled until it is linked and this returns.
        let _mark = file.path().clone().mark_in_use()?;
        let name = cook_key(cookie.key(), sha256)?;
        for _ in 0..RETRIES {
            let creating = Creating::start(fan, name.as_bytes(), &write)?;
            if creating.child().is_negative() {
                return creating.link(file);
            }
            // The file of that name was rejected when this object was looked up.
            creating.unlink()?;
        }
        Err(EAGAIN)
    }
}
