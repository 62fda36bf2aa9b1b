// SPDX-License-Identifier: GPL-2.0

//! What becomes of the file of an object that is withdrawn.

use super::Attachment;
use crate::{
    backing::{
        list,
        Backing,
        Blocks, //
    },
    disk::{
        key::cook_key,
        xattr::{
            aux_and_content,
            Content,
            Value,
            AUX_MAX,
            XATTR_NAME, //
        }, //
    },
    inject,
    kernel_next::{
        compat::ESTALE,
        crypto::sha256,
        fs::{
            kernel_file::KernelFile,
            namei::{
                Creating,
                Removing, //
            },
            path::WriteAccess,
            xattr, //
        },
        fscache::Cookie, //
    },
    mark::Mark,
    mode::{
        Leave,
        Mode, //
    },
    namei::{
        graveyard::bury,
        RETRIES, //
    },
    trace::files::{
        self,
        Coherency,
        Killed,
        Ref,
        Where, //
    }, //
};
use kernel::prelude::*;

/// The file of an object that is withdrawn, and what is known of it.
pub(super) struct Leaving<'a> {
    pub(super) cookie: &'a Cookie,
    pub(super) backing: &'a Backing,
    pub(super) file: &'a KernelFile,
    pub(super) map: &'a Blocks,
    /// What is to become of it.
    pub(super) leave: Leave,
}

impl Leaving<'_> {
    /// Whether the file, and what is known of it, is as it was found.
    fn is_unchanged(&self) -> bool {
        let is_described = self.leave == Leave::Keep;
        self.backing.is_named() && !self.backing.is_modified() && is_described
    }

    /// Writes the data to the disk: after a crash nothing must be found there that has not been
    /// written to it.
    ///
    /// # Errors
    ///
    /// `EIO` or `ENOSPC` if data was lost.
    fn write_out(&self) -> Result {
        if !self.is_unchanged() {
            self.file.write_and_wait()?;
        }
        // A write-back error that was not reported yet may be of blocks that the file's list names.
        self.backing.check_write_errors(self.file)
    }
}

impl<M: Mode> Attachment<M> {
    /// Keeps the file, or removes it if the data is retired, or was lost. Returns whether a file
    /// was kept.
    pub(super) fn keep_or_delete(&self, leaving: &Leaving<'_>) -> Result<bool> {
        let usable = match leaving.leave {
            Leave::Keep | Leave::Describe => leaving.write_out(),
            Leave::Discard => Err(ESTALE),
        };
        let why = match (usable.is_ok(), leaving.backing.is_named()) {
            (true, _) => Ref::SeeCleanCommit,
            (false, true) => Ref::SeeCleanDelete,
            (false, false) => Ref::SeeCleanDropTmp,
        };
        files::object(leaving.cookie, why);
        if let Err(e) = usable {
            if leaving.backing.is_named() {
                self.delete(leaving)?;
            }
            return Err(e);
        }
        // If this fails, a named file keeps its old list, which is still true.
        let kept = self.keep(leaving);
        // An invalidation that comes while the object is withdrawn is not told otherwise.
        if M::is_outdated(&self.files, leaving.cookie) {
            self.delete(leaving)?;
            return Err(ESTALE);
        }
        kept.map(|()| true)
    }

    /// Removes the file, if it has a name.
    fn delete(&self, leaving: &Leaving<'_>) -> Result {
        let fan = self.volume.fanout(leaving.cookie.key_hash())?;
        let obj = Some(leaving.backing.trace());
        if leaving.backing.is_named() {
            return bury(self.cache(), obj, fan, leaving.file.path(), Killed::Retired);
        }
        // It may have just been given one.
        let name = cook_key(leaving.cookie.key(), sha256)?;
        let write = self.cache().mount().want_write()?;
        let removing = match Removing::start(fan, name.as_bytes(), &write) {
            Err(e) if e == ENOENT => return Ok(()),
            removing => removing?,
        };
        files::unlink(obj, removing.child(), Killed::Retired);
        removing
            .unlink()
            .inspect_err(|e| files::vfs_error(obj, fan.dentry(), *e, Where::Unlink))
    }

    /// Writes down what the file holds, and gives it its name if it is new
    /// (`cachefiles_commit_object()`).
    fn keep(&self, leaving: &Leaving<'_>) -> Result {
        if leaving.is_unchanged() {
            return Ok(());
        }
        let write = self.cache().mount().want_write()?;
        let is_named = leaving.backing.is_named();
        let list = |buf: &mut [u8]| leaving.map.present().encode(None, buf);
        if !is_named {
            self.describe(leaving, &write)?;
        }
        list::write(leaving.file.path(), &write, list)?;
        if !is_named {
            return self.commit(leaving, write);
        }
        // After the list: only then may the file be used again that was changed.
        match leaving.leave {
            Leave::Describe => self.describe(leaving, &write),
            _ => Ok(()),
        }
    }

    /// Gives a file the attribute that says what it is.
    fn describe(&self, leaving: &Leaving<'_>, write: &WriteAccess<'_>) -> Result {
        let mut aux = [0; AUX_MAX];
        // If this is that of an invalidation, that one is noticed when the file was kept.
        let aux = leaving.cookie.aux_locked(&mut aux);
        let size = M::size(&self.object, leaving.cookie);
        let value = Value::object(size, Content::Listed, aux, M::version(&self.object));
        let (obj, path) = (leaving.backing.trace(), leaving.file.path());
        let set =
            inject::write().and_then(|()| xattr::set(path, XATTR_NAME, value.as_bytes(), write));
        let why = match set {
            Ok(()) => Coherency::SetOk,
            Err(e) => {
                files::vfs_error(Some(obj), path.dentry(), e, Where::Setxattr);
                Coherency::SetFail
            }
        };
        let written = aux_and_content(value.as_bytes());
        files::coherency(obj, leaving.file.inode(), aux, written, why);
        set
    }

    /// Gives a new file its name (`cachefiles_commit_tmpfile()`).
    fn commit(&self, leaving: &Leaving<'_>, write: WriteAccess<'_>) -> Result {
        let (cookie, file) = (leaving.cookie, leaving.file);
        // Making the directory gets write access itself.
        drop(write);
        let fan = self.volume.fanout(cookie.key_hash())?;
        let write = self.cache().mount().want_write()?;
        // Keeps the file from being culled until it is linked and this returns.
        let obj = leaving.backing.trace();
        let _mark = Mark::set(file.path().clone(), Some(obj))?;
        let failed = |e: &Error, place| files::vfs_error(Some(obj), fan.dentry(), *e, place);
        let name = cook_key(cookie.key(), sha256)?;
        for _ in 0..RETRIES {
            let creating = inject::read()
                .and_then(|()| Creating::start(fan, name.as_bytes(), &write))
                .inspect_err(|e| failed(e, Where::Lookup))?;
            if creating.child().is_negative() {
                inject::read()
                    .and_then(|()| creating.link(file))
                    .inspect_err(|e| failed(e, Where::Link))?;
                files::link(obj, file.inode());
                return Ok(());
            }
            // The file of that name was rejected when this object was looked up.
            files::unlink(Some(obj), creating.child(), Killed::Stale);
            inject::remove()
                .and_then(|()| creating.unlink())
                .inspect_err(|e| failed(e, Where::Unlink))?;
        }
        Err(EAGAIN)
    }
}
