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
        compat::{
            ENODATA,
            ESTALE, //
        },
        cred::with_cred,
        crypto::sha256,
        fs::{
            dentry::Dentry,
            inode::InUse,
            kernel_file::{
                KernelFile,
                Seek, //
            },
            namei::{
                lookup_positive,
                Creating, //
            },
            path::WriteAccess,
            xattr, //
        },
        fscache::{
            Cookie,
            Lookup, //
        },
        sync::Completion, //
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
        Answer,
        Ondemand, //
    },
    presence::{
        self,
        BLOCK_SIZE,
        LIST_MAX, //
    },
    volume::Volume,
    xattr::{
        check_object,
        Content,
        Value,
        AUX_MAX,
        PRESENT_NAME,
        VALUE_MAX,
        XATTR_NAME, //
    }, //
};
use core::ops::Range;
use kernel::{
    cred::Credential,
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Arc,
        SetOnce,
        SpinLock, //
    },
    time::Jiffies, //
};

/// The largest object, in bytes: as large as a file of ext4. Keeps maps of present blocks small.
const MAX_SIZE: u64 = 1 << 44;

type Parts = KVVec<presence::Part<KVec<u64>>>;
type Presence = presence::Presence<Parts, KVec<u64>>;

/// What a file descriptor needs to fill an object.
#[derive(Clone)]
pub(crate) struct Backing {
    pub(crate) space: Arc<Space>,
    pub(crate) cred: ARef<Credential>,
    pub(crate) file: KernelFile,
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
    /// Whether blocks became present, or were lost, since the object was looked up.
    changed: Atomic<i32>,
    /// Present while there is an attachment that has been published.
    #[pin]
    backing: SpinLock<Option<Backing>>,
    /// Completed when the lookup is over: there is `backing`, or there never will be.
    #[pin]
    looked_up: Completion,
    /// Present while there is an attachment, or a lookup that may make one.
    #[pin]
    cookie: SpinLock<Option<ARef<Cookie>>>,
    /// How often data was lost, and forgotten. Changes under the lock of `presence`.
    losses: Atomic<u32>,
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
        Arc::pin_init(
            pin_init!(Self {
                ondemand,
                key: SetOnce::new(),
                debug_id: cookie.debug_id(),
                volume_key,
                cookie_key,
                retired: Atomic::new(0),
                changed: Atomic::new(0),
                losses: Atomic::new(0),
                backing <- new_spinlock!(None),
                looked_up <- Completion::new(),
                cookie <- new_spinlock!(Some(cookie.into())),
                presence <- new_spinlock!(Presence::new(Parts::new(), 0)),
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

    /// Waits until the lookup is over, whether there is [`Self::backing`] then or not. Only for
    /// those who know that it does not wait for the daemon any more: they may be the daemon.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if the task is killed.
    pub(crate) fn wait_for_lookup(&self) -> Result {
        self.looked_up
            .wait_for_completion_killable_timeout(Jiffies::MAX)?;
        Ok(())
    }

    /// Has the data thrown away when the object is withdrawn.
    pub(crate) fn retire(&self) {
        self.retired.store(1, Relaxed);
    }

    /// Names the object in the request table. Takes no lock.
    pub(crate) fn set_key(&self, key: ObjectKey) {
        self.key.populate(key);
    }

    /// Whether nobody waits for the data any more: who does has a use of the cookie.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.cookie
            .lock()
            .as_ref()
            .is_none_or(|cookie| cookie.is_given_up() || !cookie.is_in_use())
    }

    /// How often data was lost. Whoever writes, or wants to read what is there, notes this before.
    pub(crate) fn losses(&self) -> u32 {
        self.losses.load(Acquire)
    }

    /// Records that the daemon has written blocks. `losses` is from before it did.
    ///
    /// # Errors
    ///
    /// `EIO` if data was lost since: it may have been this.
    pub(crate) fn mark_written(&self, blocks: Range<u64>, losses: u32) -> Result {
        self.changed.store(1, Relaxed);
        self.mark_present(blocks, losses)
    }

    fn mark_present(&self, blocks: Range<u64>, losses: u32) -> Result {
        let mut left = Some(blocks);
        let mut spare = None;
        while let Some(blocks) = left {
            let mut presence = self.presence.lock();
            if self.losses() != losses {
                return Err(EIO);
            }
            left = presence.mark(blocks, &mut spare);
            drop(presence);
            if left.is_some() {
                let mut leaf = KVec::with_capacity(presence::LEAF_WORDS, GFP_KERNEL)?;
                leaf.resize(presence::LEAF_WORDS, 0, GFP_KERNEL)?;
                spare = Some(leaf);
            }
        }
        Ok(())
    }

    /// Whether the file system has a hole in `range`, in bytes, where the daemon wrote: not every
    /// file system tells of every page that it could not write back.
    pub(crate) fn was_lost(&self, file: &KernelFile, range: Range<u64>) -> bool {
        if self.changed.load(Relaxed) == 0 || range.is_empty() {
            return false;
        }
        // Positions are those of files, and fit.
        let hole = file.seek(range.start as i64, Seek::Hole);
        !hole.is_ok_and(|hole| hole >= range.end as i64)
    }

    /// Forgets what is present, so that the daemon is asked for it again; unless somebody did that
    /// since `losses`.
    pub(crate) fn forget(&self, file: &KernelFile, size: u64, losses: u32) -> Result {
        self.changed.store(1, Relaxed);
        let mut map = new_presence(presence::blocks(size))?;
        let mut presence = self.presence.lock();
        if self.losses() != losses {
            return Ok(());
        }
        // Errors from here on are of what is written from here on. Under the lock, so that nobody
        // finds no error, and then what is forgotten only now.
        file.forget_write_errors();
        core::mem::swap(&mut *presence, &mut map);
        // Comes last: whoever writes after this must not have his errors forgotten.
        self.losses.store(losses.wrapping_add(1), Release);
        drop(presence);
        step!(
            "cookie {:x}: data was lost, and is asked for again\n",
            self.debug_id
        );
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

    /// Ends what the attachment was needed for, or a lookup that does not come to one.
    pub(crate) fn detach(&self) {
        // All are let go without the lock.
        let _map = self.detach_map();
    }

    /// As [`Self::detach`], and returns what is present.
    fn detach_map(&self) -> Presence {
        let _backing = self.backing.lock().take();
        self.looked_up.complete_all();
        let _cookie = self.cookie.lock().take();
        core::mem::replace(&mut *self.presence.lock(), Presence::new(Parts::new(), 0))
    }
}

/// A backing file in use.
struct InUseFile {
    // The mark is taken away before the file is let go.
    _mark: InUse,
    file: KernelFile,
}

/// See the [module's description](self).
pub(crate) struct Attachment {
    object: Arc<Object>,
    file: InUseFile,
    answer: Answer,
    name: Name,
    /// Whether the file has its name already.
    linked: bool,
    volume: Arc<Volume>,
}

impl Attachment {
    /// Asks the daemon for an object, then finds or makes its file. `None` if the lookup was put
    /// off, or nobody wants the object any more.
    pub(crate) fn look_up(volume: Arc<Volume>, cookie: &Lookup<'_>) -> Result<Option<KBox<Self>>> {
        let name = cook_key(cookie.key(), sha256)?;
        let cache = volume.cache().clone();
        let max = cache.mount().max_file_size().unsigned_abs().min(MAX_SIZE);
        // A size is rounded up to whole blocks.
        let max = max - max % BLOCK_SIZE;
        let new_object = || Object::new(cache.ondemand().clone(), cookie);

        let Some((object, answer)) = cache.ondemand().open(cookie, new_object, max)? else {
            return Ok(None);
        };
        let attached = Self::attach(volume, cookie, &object, name, answer);
        // If nobody uses the cookie by now, fscache would never take the object away again.
        let attached = attached.map(|attached| cookie.is_in_use().then_some(attached));
        match &attached {
            Ok(Some(attachment)) => attachment.publish(),
            _ => {
                object.detach();
                cache.ondemand().close(&object);
            }
        }
        attached
    }

    fn attach(
        volume: Arc<Volume>,
        cookie: &Lookup<'_>,
        object: &Arc<Object>,
        name: Name,
        answer: Answer,
    ) -> Result<KBox<Self>> {
        cookie.set_object_size(answer.size)?;
        cookie.set_version(answer.version());
        let cache = volume.cache();
        let (file, linked) = with_cred(cache.cred(), || {
            Self::find_file(&volume, cookie, object, &name, &answer)
                .inspect_err(|e| cache.doubt(*e))
        })?;
        let attachment = Attachment {
            object: object.clone(),
            file,
            answer,
            name,
            linked,
            volume,
        };
        Ok(KBox::new(attachment, GFP_KERNEL)?)
    }

    /// Lets file descriptors fill the object.
    fn publish(&self) {
        let cache = self.volume.cache();
        *self.object.backing.lock() = Some(Backing {
            space: cache.space().clone(),
            cred: cache.cred().into(),
            file: self.file().clone(),
            size: self.size(),
        });
        self.object.looked_up.complete_all();
    }

    /// Finds the file of an object, or makes one (`cachefiles_look_up_object()`).
    fn find_file(
        volume: &Volume,
        cookie: &Cookie,
        object: &Object,
        name: &Name,
        answer: &Answer,
    ) -> Result<(InUseFile, bool)> {
        let cache = volume.cache();
        let fan = volume.fanout(cookie.key_hash())?;
        let blocks = presence::blocks(answer.size);
        let mut map = new_presence(blocks)?;
        core::mem::swap(&mut *object.presence.lock(), &mut map);

        match lookup_positive(fan, name.as_bytes()) {
            Ok(dentry) if dentry.is_regular() => {
                if let Some(file) = Self::open_file(cache, cookie, &dentry, answer)? {
                    Self::adopt(object, &file.file, answer.size)?;
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
        let file = KernelFile::tmpfile(&write, fan, cache.cred())?;
        drop(write);
        // It is new: nobody else can have marked it.
        let mark = file.inode().mark_in_use().ok_or(EBUSY)?;
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
        answer: &Answer,
    ) -> Result<Option<InUseFile>> {
        let Some(mark) = dentry.inode().ok_or(ENOENT)?.mark_in_use() else {
            step!("cookie {:x}: its file is in use\n", cookie.debug_id());
            return Err(EBUSY);
        };
        let file = InUseFile {
            file: KernelFile::open(cache.mount(), dentry, cache.cred())?,
            _mark: mark,
        };
        // It may have been culled before it was marked; and a file of another size is not one that
        // was left whole.
        let bytes = presence::blocks(answer.size) * BLOCK_SIZE;
        if dentry.is_unhashed() || file.file.inode().size().unsigned_abs() != bytes {
            return Ok(None);
        }
        let (mut aux, mut buf) = ([0; AUX_MAX], [0; VALUE_MAX]);
        let aux = cookie.aux(&mut aux);
        match xattr::get(dentry, XATTR_NAME, &mut buf) {
            Ok(len) => {
                let found = buf.get(..len).unwrap_or_default();
                if check_object(found, answer.size, aux, answer.version()).is_err() {
                    return Ok(None);
                }
            }
            Err(e) if e == ERANGE || e == ENODATA => return Ok(None),
            Err(e) => return Err(e),
        }
        file.file.touch_atime();
        Ok(Some(file))
    }

    /// Takes over what a file holds: what both its list and the file system know of.
    fn adopt(object: &Object, file: &KernelFile, size: u64) -> Result {
        let blocks = presence::blocks(size);
        let mut buf = KVec::with_capacity(LIST_MAX, GFP_KERNEL)?;
        buf.resize(LIST_MAX, 0, GFP_KERNEL)?;
        match xattr::get(file.dentry(), PRESENT_NAME, &mut buf) {
            Ok(len) => presence::decode(buf.get(..len).unwrap_or_default())
                .take_while(|run| run.end <= blocks)
                .try_for_each(|run| Self::adopt_run(object, file, run)),
            // The C implementation has left it, and keeps no list.
            Err(e) if e == ENODATA => {
                object.changed.store(1, Relaxed);
                Self::adopt_run(object, file, 0..blocks)
            }
            Err(e) => Err(e),
        }
    }

    fn adopt_run(object: &Object, file: &KernelFile, run: Range<u64>) -> Result {
        // Sizes are those of files, and fit.
        let (mut at, end) = (
            (run.start * BLOCK_SIZE) as i64,
            (run.end * BLOCK_SIZE) as i64,
        );
        while at < end {
            let data = match file.seek(at, Seek::Data) {
                Ok(data) if data < end => data,
                Ok(_) => break,
                Err(e) if e == ENXIO => break,
                Err(e) => return Err(e),
            };
            let hole = file.seek(data, Seek::Hole)?.min(end);
            if hole <= data {
                return Err(EIO);
            }
            // Offsets are not negative.
            let (first, last) = ((data as u64).div_ceil(BLOCK_SIZE), hole as u64 / BLOCK_SIZE);
            object.mark_present(first..last.max(first), object.losses())?;
            at = hole;
        }
        Ok(())
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    pub(crate) fn file(&self) -> &KernelFile {
        &self.file.file
    }

    /// The size of the object in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.answer.size
    }

    /// Gives the file its name, or removes it, and lets go of it (`cachefiles_withdraw_cookie()`).
    pub(crate) fn withdraw(self, cookie: &Cookie) {
        let cache = self.volume.cache().clone();
        cache.ondemand().close(&self.object);
        let map = self.object.detach_map();
        with_cred(cache.cred(), || {
            let retired = cookie.is_retired() || self.object.retired.load(Relaxed) != 0;
            let kept = match retired {
                false => self.keep(cookie, &map),
                true => Err(ESTALE),
            };
            if let Err(e) = kept {
                step!("cookie {:x}: not kept: {:?}\n", cookie.debug_id(), e);
                if let Err(e) = self.delete(cookie) {
                    step!(
                        "cookie {:x}: cannot remove its file: {:?}\n",
                        cookie.debug_id(),
                        e
                    );
                }
            }
            drop(self);
        });
    }

    /// Removes the file, if it has a name.
    fn delete(&self, cookie: &Cookie) -> Result {
        if !self.linked {
            return Ok(());
        }
        let fan = self.volume.fanout(cookie.key_hash())?;
        bury(self.volume.cache(), fan, self.file().dentry())
    }

    /// Writes down what the file holds, and gives it its name if it is new
    /// (`cachefiles_commit_object()`).
    fn keep(&self, cookie: &Cookie, map: &Presence) -> Result {
        // An error that nobody was told of may be one of what the file's list says is there.
        let is_sound = self.file().check_write_errors().is_ok();
        if self.linked && self.object.changed.load(Relaxed) == 0 && is_sound {
            return Ok(());
        }
        // After a crash nothing must be found on the disk that has not been written to it.
        self.file().write_and_wait()?;
        self.file().check_write_errors()?;

        let mut list = KVec::with_capacity(LIST_MAX, GFP_KERNEL)?;
        list.resize(LIST_MAX, 0, GFP_KERNEL)?;
        let len = map.encode(&mut list);
        let dentry = self.file().dentry();
        let write = self.volume.cache().mount().want_write()?;
        xattr::set(
            dentry,
            PRESENT_NAME,
            list.get(..len).unwrap_or_default(),
            &write,
        )?;
        match self.linked {
            true => Ok(()),
            false => self.commit(cookie, &write),
        }
    }

    /// Gives a new file its attribute and its name (`cachefiles_commit_tmpfile()`).
    fn commit(&self, cookie: &Cookie, write: &WriteAccess<'_>) -> Result {
        let mut aux = [0; AUX_MAX];
        let aux = cookie.aux(&mut aux);
        let value = Value::object(
            self.answer.size,
            Content::NoData,
            aux,
            self.answer.version(),
        );
        let fan = self.volume.fanout(cookie.key_hash())?;
        xattr::set(self.file().dentry(), XATTR_NAME, value.as_bytes(), write)?;
        for _ in 0..RETRIES {
            let creating = Creating::start(fan, self.name.as_bytes(), write)?;
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
fn set_size(file: &KernelFile, blocks: u64) -> Result {
    let bytes = blocks.checked_mul(BLOCK_SIZE).ok_or(EFBIG)?;
    file.truncate(i64::try_from(bytes).map_err(|_| EFBIG)?)
}
