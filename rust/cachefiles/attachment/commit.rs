// SPDX-License-Identifier: GPL-2.0

//! What becomes of the file of an object that is withdrawn.

use super::Attachment;
use crate::{
    backing::{
        commits::Place,
        holes::punch_absent,
        list,
        Backing,
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
    inject,
    kernel_next::{
        compat::ESTALE,
        crypto::sha256,
        fs::{
            kernel_file::KernelFile,
            namei::Creating,
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
        graveyard::{
            bury_file,
            remove_list, //
        },
        RETRIES, //
    },
    trace::files::{
        self,
        Killed,
        Ref,
        Where, //
    },
    volume::Volume, //
};
use kernel::{
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};

/// The file of an object that is withdrawn, and what is known of it.
pub(super) struct Leaving<'a> {
    pub(super) cookie: &'a Cookie,
    pub(super) backing: &'a Backing,
    pub(super) file: &'a KernelFile,
    pub(super) map: &'a mut Blocks,
    /// What is to become of it.
    pub(super) leave: Leave,
}

impl Leaving<'_> {
    /// Whether the file, and what is known of it, is as it was found.
    fn is_unchanged(&self) -> bool {
        let is_described = self.leave == Leave::Keep;
        self.backing.is_named() && !self.backing.is_modified() && is_described
    }

    /// Writes the data to the disk: after a crash the list must not name blocks that are not there.
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

    /// Makes holes of what is absent: the file may be used by the C implementation next.
    ///
    /// # Errors
    ///
    /// As for [`punch_absent`]: then the file must not be kept.
    fn punch(&self) -> Result {
        match self.is_unchanged() {
            true => Ok(()),
            false => punch_absent(self.file, self.map),
        }
    }
}

impl<M: Mode> Attachment<M> {
    /// Keeps the file, or removes it if the data is retired, or was lost.
    ///
    /// # Errors
    ///
    /// Any: the file was not kept, or, if it has a name, only with its old list. `ESTALE` if the
    /// data is not valid any more.
    pub(super) fn keep_or_delete(&self, leaving: &mut Leaving<'_>) -> Result {
        let usable = match leaving.leave {
            Leave::Keep | Leave::Describe => {
                leaving.write_out().and_then(|()| match M::PUNCHES_HOLES {
                    true => leaving.punch(),
                    false => Ok(()),
                })
            }
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
        // fscache does not call `invalidate_cookie()` for an object that is being withdrawn: looks
        // whether there was an invalidation.
        if M::is_outdated(&self.files, leaving.cookie) {
            self.delete(leaving)?;
            return Err(ESTALE);
        }
        kept
    }

    /// Removes the file, if it has a name, which it may have just been given.
    fn delete(&self, leaving: &Leaving<'_>) -> Result {
        let fan = self.volume.fanout(leaving.cookie.key_hash())?;
        let name = cook_key(leaving.cookie.key(), sha256)?;
        let (obj, file) = (leaving.backing.trace(), leaving.file);
        match bury_file(
            self.cache(),
            obj,
            fan,
            name.as_bytes(),
            file,
            Killed::Retired,
        ) {
            Err(e) if e == EINVAL => Ok(()),
            removed => removed,
        }
    }

    /// Writes down what the file holds, and gives it its name if it is new
    /// (`cachefiles_commit_object()`).
    fn keep(&self, leaving: &mut Leaving<'_>) -> Result {
        if leaving.is_unchanged() {
            return Ok(());
        }
        let backing = leaving.backing;
        let is_new = !backing.is_named();
        let is_other = is_new || leaving.leave == Leave::Describe;
        let mut aux = [0; AUX_MAX];
        // An invalidation may come before this point, so that `aux` is the new auxiliary data and
        // the file has old data. `keep_or_delete()` notices it after the file was kept, with
        // `is_outdated()`, and removes the file.
        let aux = leaving.cookie.aux_locked(&mut aux);
        let mut value = match is_other {
            true => {
                let size = M::size(&self.object, leaving.cookie);
                Value::object(size, Content::Listed, aux, M::version(&self.object))
            }
            false => Value::read(|buf| xattr::get(leaving.file.path(), XATTR_NAME, buf))?,
        };
        let file = leaving.file;
        backing.write_down(leaving.map, value.as_bytes_mut(), is_other)?;
        if is_new {
            let name = cook_key(leaving.cookie.key(), sha256)?;
            // The file is not in use any more.
            let _mark = link(
                &self.volume,
                leaving.cookie.key_hash(),
                name.as_bytes(),
                backing,
                file,
            )
            .inspect_err(|_| backing.forsake_list())?;
        }
        match self.cache().mode().is_durable() {
            true => file.sync(),
            false => Ok(()),
        }
    }
}

/// Gives a new file its name (`cachefiles_commit_tmpfile()`). Returns the mark that it is in use.
fn link<M>(
    volume: &Volume<M>,
    key_hash: u32,
    name: &[u8],
    backing: &Backing,
    file: &KernelFile,
) -> Result<Mark> {
    let cache = volume.cache();
    let fan = volume.fanout(key_hash)?;
    let write = cache.mount().want_write()?;
    // Keeps the file from being culled.
    let obj = backing.trace();
    let mark = Mark::set(file.path().clone(), Some(obj))?;
    let failed = |e: &Error, place| files::vfs_error(Some(obj), fan.dentry(), *e, place);
    let mut old_list = None;
    for _ in 0..RETRIES {
        let creating = inject::read()
            .and_then(|()| Creating::start(fan, name, &write))
            .inspect_err(|e| failed(e, Where::Lookup))?;
        if creating.child().is_negative() {
            inject::read()
                .and_then(|()| creating.link(file))
                .inspect_err(|e| failed(e, Where::Link))?;
            files::link(obj, file.inode());
            drop(write);
            remove_list(cache, old_list);
            return Ok(mark);
        }
        // The file of that name was rejected when this object was looked up.
        old_list = list::named_by(&creating.child_path());
        files::unlink(Some(obj), creating.child(), Killed::Stale);
        inject::remove()
            .and_then(|()| creating.unlink())
            .inspect_err(|e| failed(e, Where::Unlink))?;
    }
    Err(EAGAIN)
}

/// Where the file of an object gets its name while the object is in use.
pub(super) struct Shelf<M> {
    volume: Arc<Volume<M>>,
    cookie: ARef<Cookie>,
    /// The cookie's count of invalidations when the object was looked up.
    inval_counter: c_uint,
    /// What the object had then: its size in bytes, and its version.
    size: u64,
    version: KVec<u8>,
}

impl<M: Mode> Shelf<M> {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn place(
        volume: &Arc<Volume<M>>,
        cookie: &Cookie,
        object: &M::Object,
    ) -> Result<KBox<dyn Place>> {
        let mut version = KVec::new();
        version.extend_from_slice(M::version(object), GFP_KERNEL)?;
        let shelf = Shelf {
            volume: volume.clone(),
            cookie: cookie.into(),
            inval_counter: cookie.inval_counter(),
            size: M::size(object, cookie),
            version,
        };
        let shelf = KBox::new(shelf, GFP_KERNEL)?;
        Ok(shelf)
    }
}

impl<M: Mode> Place for Shelf<M> {
    fn value(&self) -> Result<Value> {
        let mut aux = [0; AUX_MAX];
        let aux = self.cookie.aux_locked(&mut aux);
        // fscache changes both under the cookie's lock.
        if self.cookie.inval_counter() != self.inval_counter {
            return Err(ESTALE);
        }
        Ok(Value::object(
            self.size,
            Content::Listed,
            aux,
            &self.version,
        ))
    }

    fn link(&self, backing: &Backing, file: &KernelFile) -> Result<Mark> {
        let name = cook_key(self.cookie.key(), sha256)?;
        let hash = self.cookie.key_hash();
        link(&self.volume, hash, name.as_bytes(), backing, file)
    }
}
