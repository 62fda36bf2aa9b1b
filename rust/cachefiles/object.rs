// SPDX-License-Identifier: GPL-2.0

//! Objects: what a cookie is in the cache, and the file that holds its data.
//!
//! An object has two parts, because a daemon may keep its file descriptor for as long as it likes:
//!
//! * The [`Attachment`] is what fscache has: the backing file, its place on the disk, the volume.
//!   It goes when the cookie is withdrawn, and waits for no daemon.
//! * The [`Object`] is what file descriptors and requests refer to. Without its attachment it is a
//!   few hundred bytes that pin nothing.

use crate::{
    cache::{
        space::{
            For,
            Space, //
        },
        Cache, //
    },
    kernel_next::{
        cred::with_cred,
        crypto::sha256,
        fs::{
            backing::{
                self,
                Seek,
                WriteErrors, //
            },
            dentry::Dentry,
            inode::InUse,
            namei::{
                lookup_positive,
                Creating, //
            },
            xattr, //
        },
        fscache::{
            Cookie,
            Lookup,
            ObjectCount, //
        }, //
    },
    key::{
        cook_key,
        Name, //
    },
    namei::{
        graveyard::bury,
        RETRIES, //
    },
    ondemand::{
        msg::OpenKeys,
        queue::ObjectKey,
        Ondemand, //
    },
    presence::{
        self,
        BLOCK_SIZE, //
    },
    volume::Volume,
    xattr::{
        check_object,
        Content,
        Value,
        AUX_MAX,
        XATTR_NAME, //
    }, //
};
use core::ops::Range;
use kernel::{
    cred::Credential,
    fs::File,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        SetOnce,
        SpinLock, //
    }, //
};

type Parts = KVVec<presence::Part<KVec<u64>>>;
type Presence = presence::Presence<Parts, KVec<u64>>;

/// What a file descriptor needs to fill an object.
#[derive(Clone)]
pub(crate) struct Backing {
    pub(crate) space: Arc<Space>,
    pub(crate) cred: ARef<Credential>,
    pub(crate) file: ARef<File>,
    /// The size of the object in bytes.
    pub(crate) size: u64,
}

/// See the [module's description](self).
#[pin_data]
pub(crate) struct Object {
    ondemand: Arc<Ondemand>,
    /// What it is called in the request table.
    key: SetOnce<ObjectKey>,
    /// Names the object in the log: the cookie's number.
    debug_id: u32,
    volume_key: KVec<u8>,
    cookie_key: KVec<u8>,
    /// Whether the data is to be thrown away.
    retired: Atomic<i32>,
    /// Present while there is an attachment that has been published.
    #[pin]
    backing: SpinLock<Option<Backing>>,
    /// Present while there is an attachment, or a lookup that may make one.
    #[pin]
    cookie: SpinLock<Option<ARef<Cookie>>>,
    /// Inner to no lock.
    #[pin]
    presence: SpinLock<Presence>,
}

fn copy(bytes: &[u8]) -> Result<KVec<u8>> {
    let mut copy = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}

fn new_presence(blocks: u64) -> Result<Presence> {
    // CAST: More would not fit the memory: then the allocation fails.
    let count = presence::parts(blocks) as usize;
    let mut parts = KVVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        parts.push(presence::Part::Absent, GFP_KERNEL)?;
    }
    Ok(Presence::new(parts, blocks))
}

impl Object {
    fn new(ondemand: Arc<Ondemand>, cookie: &Cookie) -> Result<Arc<Self>> {
        let volume_key = copy(cookie.volume().key())?;
        let cookie_key = copy(cookie.key())?;
        let empty = new_presence(0)?;
        Arc::pin_init(
            pin_init!(Self {
                ondemand,
                key: SetOnce::new(),
                debug_id: cookie.debug_id(),
                volume_key,
                cookie_key,
                retired: Atomic::new(0),
                backing <- new_spinlock!(None),
                cookie <- new_spinlock!(Some(cookie.into())),
                presence <- new_spinlock!(empty),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn ondemand(&self) -> &Arc<Ondemand> {
        &self.ondemand
    }

    pub(crate) fn debug_id(&self) -> u32 {
        self.debug_id
    }

    /// What it is called in the request table, once it is there.
    pub(crate) fn key(&self) -> Option<ObjectKey> {
        self.key.copy()
    }

    /// What OPEN says of it.
    pub(crate) fn open_keys(&self) -> Result<OpenKeys<'_>> {
        Ok(OpenKeys::new(&self.volume_key, &self.cookie_key)?)
    }

    /// What is needed to fill it; `None` before it is looked up and after it is withdrawn.
    pub(crate) fn backing(&self) -> Option<Backing> {
        self.backing.lock().clone()
    }

    /// Has the data thrown away when the object is withdrawn.
    pub(crate) fn retire(&self) {
        self.retired.store(1, Relaxed);
    }

    /// Whether nobody wants the data any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.cookie
            .lock()
            .as_ref()
            .is_none_or(|cookie| cookie.is_given_up())
    }

    /// Starts to withdraw the cookie.
    pub(crate) fn withdraw(&self) {
        let cookie = self.cookie.lock().clone();
        if let Some(cookie) = cookie {
            cookie.withdraw();
        }
    }

    /// Records that blocks hold data.
    pub(crate) fn mark_present(&self, blocks: Range<u64>) -> Result {
        let mut left = Some(blocks);
        let mut spare = None;
        while let Some(blocks) = left {
            left = self.presence.lock().mark(blocks, &mut spare);
            if left.is_some() {
                let mut leaf = KVec::with_capacity(presence::LEAF_WORDS, GFP_KERNEL)?;
                leaf.resize(presence::LEAF_WORDS, 0, GFP_KERNEL)?;
                spare = Some(leaf);
            }
        }
        Ok(())
    }

    /// The first run of blocks in `blocks` that hold no data.
    pub(crate) fn first_gap(&self, blocks: Range<u64>) -> Option<Range<u64>> {
        self.presence.lock().first_gap(blocks)
    }

    /// The first block from `from` on that holds data, or does not; the number of blocks if there
    /// is none.
    pub(crate) fn find_block(&self, from: u64, present: bool) -> u64 {
        let map = self.presence.lock();
        map.find(from, map.blocks(), present)
    }

    /// Ends what the attachment was needed for.
    fn detach(&self) {
        // Both are let go without the lock.
        let _backing = self.backing.lock().take();
        let _cookie = self.cookie.lock().take();
        if let Ok(mut old) = new_presence(0) {
            core::mem::swap(&mut *self.presence.lock(), &mut old);
        }
    }
}

/// A backing file in use.
struct InUseFile {
    // The mark is taken away before the file is let go.
    _mark: InUse,
    file: ARef<File>,
}

/// See the [module's description](self).
pub(crate) struct Attachment {
    object: Arc<Object>,
    file: InUseFile,
    /// Errors in writing the file back since then have lost data.
    errors: WriteErrors,
    size: u64,
    name: Name,
    /// Whether the file has its name already.
    linked: bool,
    volume: Arc<Volume>,
    /// Present until the end of [`Self::withdraw`].
    count: Option<ObjectCount>,
}

impl Attachment {
    /// Asks the daemon for an object, then finds or makes its file.
    pub(crate) fn look_up(volume: Arc<Volume>, cookie: &Lookup<'_>) -> Result<KBox<Self>> {
        let count = cookie.count_object()?;
        let name = cook_key(cookie.key(), sha256)?;
        let cache = volume.cache().clone();
        let object = Object::new(cache.ondemand().clone(), cookie)?;
        let max = cache.mount().max_file_size().unsigned_abs();
        // A size is rounded up to whole blocks.
        let max = max - max % BLOCK_SIZE;

        let opened = cache.ondemand().open(&object, max, |key| {
            object.key.populate(key);
        });
        let found = opened.and_then(|size| {
            cookie.set_object_size(i64::try_from(size).map_err(|_| EFBIG)?);
            with_cred(cache.cred(), || {
                Self::find_file(&volume, cookie, &object, &name, size)
            })
            .map(|(file, linked)| (size, file, linked))
        });
        let attached = found.and_then(|(size, file, linked)| {
            let attachment = KBox::new(
                Attachment {
                    object: object.clone(),
                    errors: WriteErrors::sample(&file.file),
                    file,
                    size,
                    name,
                    linked,
                    volume,
                    count: Some(count),
                },
                GFP_KERNEL,
            )?;
            *object.backing.lock() = Some(Backing {
                space: cache.space().clone(),
                cred: cache.cred().into(),
                file: attachment.file.file.clone(),
                size,
            });
            Ok(attachment)
        });
        attached.inspect_err(|_| {
            object.detach();
            cache.ondemand().close(&object);
        })
    }

    /// Finds the file of an object, or makes one (`cachefiles_look_up_object()`).
    fn find_file(
        volume: &Volume,
        cookie: &Cookie,
        object: &Object,
        name: &Name,
        size: u64,
    ) -> Result<(InUseFile, bool)> {
        let cache = volume.cache();
        let fan = volume.fanout(cookie.key_hash())?;
        let blocks = presence::blocks(size);
        let mut map = new_presence(blocks)?;
        core::mem::swap(&mut *object.presence.lock(), &mut map);

        match lookup_positive(fan, name.as_bytes()) {
            Ok(dentry) if dentry.is_regular() => {
                if let Some(file) = Self::open_file(cache, cookie, &dentry, size)? {
                    Self::adopt(object, &file.file, size)?;
                    return Ok((file, true));
                }
            }
            // Something else has the name.
            Ok(dentry) => bury(cache, fan, &dentry)?,
            Err(e) if e == ENOENT => {}
            Err(e) => return Err(e),
        }
        cache.space().check(1, 0, For::Create)?;
        let write = cache.mount().want_write()?;
        let file = backing::tmpfile(&write, fan, cache.cred())?;
        drop(write);
        // It is new: nobody else can have marked it.
        let mark = backing::inode(&file).mark_in_use().ok_or(EBUSY)?;
        let file = InUseFile { _mark: mark, file };
        if blocks > 0 {
            set_size(&file.file, blocks)?;
        }
        Ok((file, false))
    }

    /// Opens a file that was left from another time; `None` if it is not what is looked for
    /// (`cachefiles_open_file()`).
    fn open_file(
        cache: &Cache,
        cookie: &Cookie,
        dentry: &Dentry,
        size: u64,
    ) -> Result<Option<InUseFile>> {
        let Some(mark) = dentry.inode().ok_or(ENOENT)?.mark_in_use() else {
            step!("cookie {:x}: its file is in use\n", cookie.debug_id());
            return Err(EBUSY);
        };
        let file = InUseFile {
            file: backing::open(cache.mount(), dentry, cache.cred())?,
            _mark: mark,
        };
        let (mut aux, mut buf) = ([0; AUX_MAX], [0; 512]);
        let aux_len = cookie.copy_aux(&mut aux);
        let aux = aux.get(..aux_len).unwrap_or_default();
        match xattr::get(dentry, XATTR_NAME, &mut buf) {
            Ok(len) => {
                let found = buf.get(..len).unwrap_or_default();
                if check_object(found, size, aux).is_err() {
                    return Ok(None);
                }
            }
            Err(e) if e == ERANGE || e == ENODATA => return Ok(None),
            Err(e) => return Err(e),
        }
        backing::touch_atime(&file.file);
        Ok(Some(file))
    }

    /// Takes over what a file holds: the one time that the file system is asked for it.
    fn adopt(object: &Object, file: &File, size: u64) -> Result {
        let blocks = presence::blocks(size);
        // Sizes are those of files, and fit.
        let bytes = (blocks * BLOCK_SIZE) as i64;
        if backing::inode(file).size() != bytes {
            set_size(file, blocks)?;
        }
        let mut at = 0;
        while at < bytes {
            let data = match backing::seek(file, at, Seek::Data) {
                Ok(data) => data,
                Err(e) if e == ENXIO => break,
                Err(e) => return Err(e),
            };
            let hole = backing::seek(file, data, Seek::Hole)?;
            if hole <= data {
                return Err(EIO);
            }
            // Offsets are not negative.
            let (data, hole) = (data as u64, hole as u64);
            object.mark_present(data.div_ceil(BLOCK_SIZE)..hole / BLOCK_SIZE)?;
            at = hole as i64;
        }
        Ok(())
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    pub(crate) fn file(&self) -> &File {
        &self.file.file
    }

    /// The size of the object in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Errors in writing the file back since it was opened have lost data.
    pub(crate) fn errors(&self) -> WriteErrors {
        self.errors
    }

    /// Gives the file its name, or removes it, and lets go of it (`cachefiles_withdraw_cookie()`).
    pub(crate) fn withdraw(mut self, cookie: &Cookie) {
        let count = self.count.take();
        let cache = self.volume.cache().clone();
        cache.ondemand().close(&self.object);
        self.object.detach();
        let lost = self.errors.check(self.file()).is_err();
        with_cred(cache.cred(), || {
            let retired = cookie.is_retired() || self.object.retired.load(Relaxed) != 0;
            let result = match (retired || lost, self.linked) {
                (true, true) => self.delete(cookie),
                (true, false) => Ok(()),
                (false, true) => Ok(()),
                (false, false) => self.commit(cookie),
            };
            if let Err(e) = result {
                step!(
                    "cookie {:x}: cannot end its file: {:?}\n",
                    cookie.debug_id(),
                    e
                );
            }
            drop(self);
        });
        drop(cache);
        // Last: from here on the cache may go, and the module with it.
        drop(count);
    }

    fn delete(&self, cookie: &Cookie) -> Result {
        let fan = self.volume.fanout(cookie.key_hash())?;
        bury(self.volume.cache(), fan, backing::dentry(self.file()))
    }

    /// Gives a new file its attribute and its name (`cachefiles_commit_tmpfile()`).
    fn commit(&self, cookie: &Cookie) -> Result {
        let mut aux = [0; AUX_MAX];
        let aux_len = cookie.copy_aux(&mut aux);
        let aux = aux.get(..aux_len).unwrap_or_default();
        let value = Value::object(self.size, Content::NoData, aux);
        let fan = self.volume.fanout(cookie.key_hash())?;
        let write = self.volume.cache().mount().want_write()?;
        xattr::set(
            backing::dentry(self.file()),
            XATTR_NAME,
            value.as_bytes(),
            &write,
        )?;
        for _ in 0..RETRIES {
            let creating = Creating::start(fan, self.name.as_bytes(), &write)?;
            if creating.child().is_negative() {
                return creating.link(self.file());
            }
            // What has the name was found wanting when this object was looked up.
            creating.unlink()?;
        }
        Err(EAGAIN)
    }
}

/// Makes a file so many blocks long: reads are in whole blocks, so that no part of one may be
/// missing.
fn set_size(file: &File, blocks: u64) -> Result {
    let bytes = blocks.checked_mul(BLOCK_SIZE).ok_or(EFBIG)?;
    backing::truncate(file, i64::try_from(bytes).map_err(|_| EFBIG)?)
}
