// SPDX-License-Identifier: GPL-2.0

//! Looking an object up: asking for it, and finding its file.

use super::{
    commit::Shelf,
    Attachment, //
};
use crate::{
    backing::{
        Backing,
        FoundFile,
        MAX_SIZE, //
    },
    cache::Cache,
    disk::{
        key::{
            cook_key,
            Name, //
        },
        presence,
        xattr::{
            aux_and_content,
            check_object,
            Stale,
            AUX_MAX,
            VALUE_MAX,
            XATTR_NAME, //
        }, //
    },
    inject,
    kernel_next::{
        compat::ENODATA,
        cred::with_cred,
        crypto::sha256,
        fs::{
            kernel_file::KernelFile,
            namei::{
                lookup_positive,
                Creating, //
            },
            path::Path,
            xattr, //
        },
        fscache::{
            trace::TraceObject,
            Cookie,
            Lookup, //
        }, //
    },
    mark::Mark,
    mode::Mode,
    namei::graveyard::bury,
    protocol::BLOCK_SIZE,
    space::SpaceFor,
    trace::files::{
        self,
        Coherency,
        Killed,
        Ref,
        Where, //
    },
    volume::Volume, //
};
use kernel::{
    prelude::*,
    str::BStr,
    sync::Arc, //
};

impl<M: Mode> Attachment<M> {
    /// Gets an object from the mode, then looks for its file. `None` if the lookup was put off, or
    /// the cookie is not in use any more.
    pub(crate) fn look_up(
        volume: Arc<Volume<M>>,
        cookie: &Lookup<'_>,
    ) -> Result<Option<KBox<Self>>> {
        let cache = volume.cache().clone();
        let max = cache.mount().max_file_size().unsigned_abs().min(MAX_SIZE);
        // A size is rounded up to whole blocks.
        let max = max - max % BLOCK_SIZE;
        let Some(object) = cache.mode().open(cookie, max)? else {
            return Ok(None);
        };
        files::object(cookie, Ref::New);
        files::object(cookie, Ref::SeeLookupCookie);
        let prepared = with_cred(cache.cred(), || {
            Self::find_file(&volume, cookie, &object)
                .inspect_err(|e| cache.mode().io_error(|| cache.probe_after_error(*e)))
        })
        .and_then(|backing| {
            if M::COMMITS_EARLY && !backing.is_all_written_down() {
                backing.set_place(Shelf::place(&volume, cookie, &object)?);
            }
            let slot = KBox::new_uninit(GFP_KERNEL)?;
            // Nothing can fail after this.
            let files = M::attach(&object, cookie, backing)?;
            Ok(files.map(|files| (files, slot)))
        });
        match prepared {
            Ok(Some((files, slot))) => {
                let attachment = Attachment {
                    object,
                    files,
                    volume,
                };
                Ok(Some(slot.write(attachment)))
            }
            Ok(None) => {
                files::object(cookie, Ref::PutDetach);
                M::detach(&object);
                Ok(None)
            }
            Err(e) => {
                files::object(cookie, Ref::SeeLookupFailed);
                files::object(cookie, Ref::PutDetach);
                M::detach(&object);
                Err(e)
            }
        }
    }

    /// Finds the file of an object (`cachefiles_look_up_object()`). If no usable file exists,
    /// checks that one may be made.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is no space for one; `EBUSY` if its file is in use; `ENOMEM`; the file
    /// system's error.
    fn find_file(volume: &Volume<M>, cookie: &Cookie, object: &M::Object) -> Result<Arc<Backing>> {
        let cache = volume.cache();
        let size = M::size(object, cookie);
        let backing = |found| {
            let (dir, debug_id) = (volume.dir(), cookie.debug_id());
            Backing::new(dir, cache.shared(), size, debug_id, found)
        };
        let obj = TraceObject::new(cookie.debug_id());
        let obj = Some(&obj);
        let Some(fan) = volume.find_fanout(cookie.key_hash())? else {
            files::lookup(obj, volume.dir().dentry(), Err(ENOENT));
            cache.space().check(1, 0, SpaceFor::Create)?;
            return backing(None);
        };
        let name = cook_key(cookie.key(), sha256)?;
        let found = inject::read().and_then(|()| lookup_positive(fan, name.as_bytes()));
        let entry = found.as_ref().map(Path::dentry).map_err(|e| *e);
        files::lookup(obj, fan.dentry(), entry);
        match found {
            Ok(path) if path.dentry().is_regular() => {
                let mut value = [0; VALUE_MAX];
                let found =
                    Self::open_file(cache, cookie, fan, path.clone(), &name, object, &mut value)?;
                if let Some((found, len)) = found {
                    let backing = backing(Some(found))?;
                    if backing.adopt(value.get_mut(..len).unwrap_or_default())? {
                        return Ok(backing);
                    }
                }
                // A later lookup for the version that the file has must not find it again.
                match bury(cache, obj, fan, &path, Killed::Stale) {
                    // It was removed meanwhile.
                    Err(e) if e == EINVAL => {}
                    buried => buried?,
                }
            }
            // Something else has the name.
            Ok(path) => {
                let name = BStr::from_bytes(name.as_bytes());
                cf_limited!(cf_err!("{} is not a file\n", name));
                bury(cache, obj, fan, &path, Killed::Weird)?;
            }
            Err(e) if e == ENOENT => {}
            Err(e) => {
                files::vfs_error(obj, fan.dentry(), e, Where::Lookup);
                return Err(e);
            }
        }
        cache.space().check(1, 0, SpaceFor::Create)?;
        backing(None)
    }

    /// Opens an existing file (`cachefiles_open_file()`); `None` if it is not that of this object,
    /// size and version. Reads its main attribute to `value`, and returns how long that is.
    fn open_file(
        cache: &Cache<M>,
        cookie: &Cookie,
        fan: &Path,
        path: Path,
        name: &Name,
        object: &M::Object,
        value: &mut [u8; VALUE_MAX],
    ) -> Result<Option<(FoundFile, usize)>> {
        let obj = TraceObject::new(cookie.debug_id());
        let obj = &obj;
        let marked = mark_file(cache, obj, fan, path, name)
            .inspect_err(|e| kdebug!("cookie {:x}: its file: {:?}\n", cookie.debug_id(), e))?;
        let Some(mark) = marked else {
            return Ok(None);
        };
        let found = FoundFile {
            file: KernelFile::open(mark.path(), cache.cred()).inspect_err(|e| {
                files::vfs_error(Some(obj), mark.path().dentry(), *e, Where::Open);
            })?,
            mark,
        };
        let path = found.file.path();
        // It may have been culled before it was marked; a file of another size was truncated, or
        // is of another object.
        let size = M::size(object, cookie);
        let bytes = presence::blocks(size) * BLOCK_SIZE;
        let fits = found.file.inode().size().unsigned_abs() == bytes;
        if path.dentry().is_unhashed() || !(fits || M::ADJUSTS_FILES) {
            return Ok(None);
        }
        let mut aux = [0; AUX_MAX];
        let aux = cookie.aux(&mut aux);
        let inode = found.file.inode();
        let got = inject::read().and_then(|()| xattr::get(path, XATTR_NAME, value));
        let value = match got {
            Ok(len) => value.get(..len).unwrap_or_default(),
            Err(e) => {
                files::vfs_error(Some(obj), path.dentry(), e, Where::Getxattr);
                files::coherency(obj, inode, aux, None, Coherency::CheckXattr);
                return match e {
                    e if e == ERANGE || e == ENODATA => Ok(None),
                    e => Err(e),
                };
            }
        };
        let checked = check_object(value, size, aux, M::version(object));
        let why = match checked {
            Ok(()) => Coherency::CheckOk,
            Err(Stale::Length) => Coherency::CheckXattr,
            Err(Stale::Type) => Coherency::CheckType,
            Err(Stale::Aux) => Coherency::CheckAux,
            Err(Stale::Size) => Coherency::CheckObjsize,
            Err(Stale::Dirty) => {
                cf_limited!(cf_warn!("Dirty object in cache\n"));
                Coherency::CheckDirty
            }
        };
        files::coherency(obj, inode, aux, aux_and_content(value), why);
        if checked.is_err() {
            return Ok(None);
        }
        if !fits {
            adjust_size(&found.file, bytes)
                .inspect_err(|e| files::io_error(Some(obj), inode, *e, Where::NotifyChange))?;
        }
        found.file.touch_atime();
        Ok(Some((found, value.len())))
    }
}

/// Makes a file `bytes` long (`cachefiles_adjust_size()`). It has grown with its object, or was
/// left by a file system that writes no whole blocks.
fn adjust_size(file: &KernelFile, bytes: u64) -> Result {
    inject::write()?;
    let size = file.inode().size().unsigned_abs();
    // CAST: Sizes are those of files.
    if bytes > size && size % BLOCK_SIZE != 0 {
        // The rest of the last block is to be a hole, not zeros.
        file.truncate((size - size % BLOCK_SIZE) as i64)?;
    }
    file.truncate(bytes as i64)
}

/// Marks a file of an object as being in use. That is the file of that name, which need not be
/// `path` any more; `None` if it has been removed.
///
/// # Errors
///
/// `EBUSY` if it is in use; what looking it up says.
fn mark_file<M>(
    cache: &Cache<M>,
    obj: &TraceObject,
    fan: &Path,
    path: Path,
    name: &Name,
) -> Result<Option<Mark>> {
    match Mark::set(path, Some(obj)) {
        Err(e) if e == EBUSY => {}
        marked => return marked.map(Some),
    }
    // Culling marks a file with its directory locked, and removes it then: with that lock held it
    // is known whether the file is still there.
    let write = cache.mount().want_write()?;
    let creating = Creating::start(fan, name.as_bytes(), &write)?;
    if creating.child().is_negative() {
        return Ok(None);
    }
    let mark = Mark::set(creating.child_path(), Some(obj))?;
    drop(creating);
    Ok(mark.path().dentry().is_regular().then_some(mark))
}
