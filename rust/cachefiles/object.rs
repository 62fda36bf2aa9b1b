// SPDX-License-Identifier: GPL-2.0

//! Objects: what a cookie is in the cache, and the file that holds its data.
//!
//! An object has two parts, because a daemon may keep its file descriptor for as long as it likes:
//!
//! * The [`Attachment`] is what fscache has: the backing file, its place on the disk, the volume.
//!   It goes when the cookie is withdrawn, and waits for no daemon.
//! * The [`Object`] is what file descriptors and requests refer to. Without its attachment it is a
//!   few hundred bytes that pin nothing.

mod backing;

pub(crate) use self::backing::Backing;

use crate::{
    cache::Cache,
    disk::{
        key::{
            cook_key,
            Name, //
        },
        presence,
        xattr::{
            check_object,
            is_listed,
            Content,
            Value,
            AUX_MAX,
            VALUE_MAX,
            XATTR_NAME, //
        }, //
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
            kernel_file::KernelFile,
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
    list,
    namei::{
        graveyard::bury,
        RETRIES, //
    },
    ondemand::{
        Answer,
        Requests, //
    },
    plan::blocks::{
        self,
        Doubt,
        Look, //
    },
    protocol::{
        msg::OpenKeys,
        BLOCK_SIZE, //
    },
    space::For,
    table::ObjectKey,
    volume::Volume, //
};
use core::ops::Range;
use kernel::{
    new_mutex,
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
        Mutex,
        SetOnce,
        SpinLock, //
    },
    time::Jiffies, //
};

/// The largest object, in bytes: as large as a file of ext4. Keeps maps of present blocks small.
const MAX_SIZE: u64 = 1 << 44;

type Parts = KVVec<presence::Part<KVec<u64>>>;
type Presence = presence::Presence<Parts, KVec<u64>>;
type Blocks = blocks::Blocks<Parts, KVec<u64>>;
/// The blocks for which a leaf is needed first.
type Rest = Option<Range<u64>>;

/// See the [module's description](self).
#[pin_data]
pub(crate) struct Object {
    requests: Arc<Requests>,
    /// What it is called in the request table.
    key: SetOnce<ObjectKey>,
    /// Names the object in the log: the cookie's number.
    debug_id: u32,
    /// The key of the volume, of so many bytes, then that of the cookie.
    keys: KVec<u8>,
    volume_key_len: usize,
    /// Whether the data is to be thrown away.
    retired: Atomic<i32>,
    /// Whether blocks became present, or were lost, since the object was looked up.
    changed: Atomic<i32>,
    /// Present while there is an attachment that has been published.
    #[pin]
    backing: SpinLock<Option<Arc<Backing>>>,
    /// Completed when the lookup is over: there is `backing`, or there never will be.
    #[pin]
    looked_up: Completion,
    /// Present while there is an attachment, or a lookup that may make one.
    #[pin]
    cookie: SpinLock<Option<ARef<Cookie>>>,
    /// How often data could not be written back, and was forgotten. Changes under the lock of
    /// `blocks`.
    losses: Atomic<u32>,
    /// Whether the file has a list on the disk.
    has_list: Atomic<i32>,
    /// Whether looking for a hole in the file once took long.
    is_fragmented: Atomic<i32>,
    /// Held while the list of a file in use is corrected, so that the last to be written is that of
    /// the latest state. Outer to the lock of `blocks`, and to those of the file system.
    #[pin]
    correcting: Mutex<()>,
    /// Inner to no lock but `correcting`.
    #[pin]
    blocks: SpinLock<Blocks>,
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

fn no_blocks() -> Blocks {
    let none = || Presence::new(Parts::new(), 0);
    Blocks::new(none(), none(), 0)
}

fn new_leaf() -> Result<KVec<u64>> {
    Ok(KVec::from_elem(0, presence::LEAF_WORDS, GFP_KERNEL)?)
}

impl Object {
    fn new(requests: Arc<Requests>, cookie: &Cookie) -> Result<Arc<Self>> {
        let (volume_key, cookie_key) = (cookie.volume().key(), cookie.key());
        let mut keys = KVec::with_capacity(volume_key.len() + cookie_key.len(), GFP_KERNEL)?;
        keys.extend_from_slice(volume_key, GFP_KERNEL)?;
        keys.extend_from_slice(cookie_key, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                requests,
                key: SetOnce::new(),
                debug_id: cookie.debug_id(),
                keys,
                volume_key_len: volume_key.len(),
                retired: Atomic::new(0),
                changed: Atomic::new(0),
                losses: Atomic::new(0),
                backing <- new_spinlock!(None),
                looked_up <- Completion::new(),
                cookie <- new_spinlock!(Some(cookie.into())),
                has_list: Atomic::new(0),
                is_fragmented: Atomic::new(0),
                correcting <- new_mutex!(()),
                blocks <- new_spinlock!(no_blocks()),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn requests(&self) -> &Arc<Requests> {
        &self.requests
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
        let (volume, cookie) = self
            .keys
            .split_at_checked(self.volume_key_len)
            .unwrap_or_default();
        Ok(OpenKeys::new(volume, cookie)?)
    }

    /// What is needed to fill it; `None` before it is looked up and after it is withdrawn.
    pub(crate) fn backing(&self) -> Option<Arc<Backing>> {
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

    /// Whether nobody waits for the data any more: who does has a use of the cookie. Does not
    /// sleep; may be called with the lock of the request table.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.cookie
            .lock()
            .as_ref()
            .is_none_or(|cookie| cookie.is_given_up() || !cookie.is_in_use())
    }

    /// How often data could not be written back. Whoever writes, or wants to read what is there,
    /// notes this before.
    pub(crate) fn losses(&self) -> u32 {
        self.losses.load(Acquire)
    }

    /// Gives the object `file`, of so many blocks, none of which is known to be present.
    pub(crate) fn set_file(&self, file: &KernelFile, blocks: u64) -> Result {
        let (present, doubt) = (new_presence(blocks)?, new_presence(blocks)?);
        // Comes before anybody looks what the file holds.
        let changed = file.inode().note_change_time();
        let mut new = Blocks::new(present, doubt, changed);
        core::mem::swap(&mut *self.blocks.lock(), &mut new);
        Ok(())
    }

    /// Forgets what [`Self::set_file`] and what came after it said.
    fn unset_file(&self) -> Blocks {
        core::mem::replace(&mut *self.blocks.lock(), no_blocks())
    }

    /// Changes what is known of `blocks` with `f`, which returns what is left to be done for want
    /// of a leaf.
    fn update(
        &self,
        blocks: Range<u64>,
        mut f: impl FnMut(&mut Blocks, Range<u64>, &mut Option<KVec<u64>>) -> Result<Rest>,
    ) -> Result {
        let (mut left, mut spare) = (Some(blocks), None);
        while let Some(blocks) = left {
            left = f(&mut self.blocks.lock(), blocks, &mut spare)?;
            if left.is_some() && spare.is_none() {
                spare = Some(new_leaf()?);
            }
        }
        Ok(())
    }

    /// Records that the daemon has written blocks. `losses` is from before it did.
    ///
    /// # Errors
    ///
    /// `EIO` if data was lost since: it may have been this.
    pub(crate) fn mark_written(&self, blocks: Range<u64>, losses: u32) -> Result {
        self.changed.store(1, Relaxed);
        self.update(blocks, |map, blocks, spare| match self.losses() == losses {
            true => Ok(map.written(blocks, spare)),
            false => Err(EIO),
        })
    }

    /// Records that blocks were found on the disk, in the lookup.
    pub(crate) fn mark_found(&self, blocks: Range<u64>) -> Result {
        self.update(blocks, |map, blocks, spare| Ok(map.found(blocks, spare)))
    }

    /// What has to be done before `blocks` can be read: see [`Blocks::look`].
    #[inline]
    pub(crate) fn look(&self, blocks: Range<u64>, changed: Option<u64>, checked: u64) -> Look {
        self.blocks.lock().look(blocks, changed, checked)
    }

    /// Records that there is no hole from the first block of `doubt` until `end`: see
    /// [`Blocks::is_on_disk`]. Without memory less is recorded.
    pub(crate) fn is_on_disk(&self, doubt: &Doubt, end: u64, is_clean: bool) {
        let _ = self.update(doubt.blocks.start..end, |map, blocks, spare| {
            Ok(map.is_on_disk(doubt, blocks, is_clean, spare))
        });
    }

    /// A map with all blocks of the object.
    fn all_blocks(&self) -> Result<Presence> {
        let blocks = self.blocks.lock().present().blocks();
        Ok(new_presence(blocks)?.filled())
    }

    /// Puts all blocks in doubt: others have changed the file.
    pub(crate) fn doubt_all(&self, file: &KernelFile) -> Result {
        let all = self.all_blocks()?;
        let changed = file.inode().note_change_time();
        let old = self.blocks.lock().doubt_all(all, changed);
        drop(old);
        Ok(())
    }

    pub(crate) fn is_fragmented(&self) -> bool {
        self.is_fragmented.load(Relaxed) != 0
    }

    pub(crate) fn set_fragmented(&self) {
        self.is_fragmented.store(1, Relaxed);
    }

    /// Whether something has to be written to the file system before blocks of `file` can be
    /// forgotten.
    pub(crate) fn forgets_by_writing(&self, file: &KernelFile) -> bool {
        self.has_list.load(Relaxed) != 0
            || self
                .backing()
                .is_some_and(|backing| backing.is_cut_off(file))
    }

    /// Forgets `lost`, blocks of `doubt` that the file system does not have any more, so that the
    /// daemon is asked for them again.
    ///
    /// # Errors
    ///
    /// `EIO` if the object is given up; `ENOMEM`; what writing to the file's attributes says.
    /// Nothing is forgotten then.
    pub(crate) fn forget(&self, file: &KernelFile, doubt: &Doubt, lost: Range<u64>) -> Result {
        self.prepare_to_forget(file)?;
        self.update(lost.clone(), |map, lost, spare| {
            Ok(map.forget(doubt, lost, spare))
        })?;
        step!(
            "cookie {:x}: blocks {:x} to {:x} were lost, and are asked for again\n",
            self.debug_id,
            lost.start,
            lost.end
        );
        Ok(())
    }

    /// Forgets what is present and was not seen on the disk, so that the daemon is asked for it
    /// again: something could not be written back. Unless somebody did that since `losses`.
    ///
    /// # Errors
    ///
    /// As for [`Self::forget`].
    pub(crate) fn forget_doubted(&self, file: &KernelFile, losses: u32) -> Result {
        self.prepare_to_forget(file)?;
        let all = self.all_blocks()?;
        let mut blocks = self.blocks.lock();
        if self.losses() != losses {
            return Ok(());
        }
        // Errors from here on are of what is written from here on. Under the lock, so that nobody
        // finds no error, and then what is forgotten only now.
        file.forget_write_errors();
        let old = blocks.forget_doubted(all);
        // Comes last: whoever writes after this must not have his errors forgotten.
        self.losses.store(losses.wrapping_add(1), Release);
        drop(blocks);
        drop(old);
        step!(
            "cookie {:x}: data could not be written, and is asked for again\n",
            self.debug_id
        );
        Ok(())
    }

    /// Has the file's list, if it has one, say nothing of blocks in doubt, and the file be as long
    /// as it was.
    fn prepare_to_forget(&self, file: &KernelFile) -> Result {
        self.changed.store(1, Relaxed);
        let backing = self.backing().ok_or(EIO)?;
        with_cred(&backing.cred, || {
            if backing.is_cut_off(file) {
                backing.set_size(file)?;
            }
            if self.has_list.load(Relaxed) == 0 {
                return Ok(());
            }
            let _correcting = self.correcting.lock();
            let write = backing.space.mount().want_write()?;
            list::write(file.dentry(), &write, |buf| self.encode(buf))
        })
    }

    /// Writes down what is on the disk, as far as it fits `buf`; returns how many bytes that is.
    pub(crate) fn encode(&self, buf: &mut [u8]) -> usize {
        self.blocks.lock().encode(buf)
    }

    /// The first block from `from` on, of `blocks`, that holds data, or does not; their number if
    /// there is none.
    pub(crate) fn find_block(&self, from: u64, blocks: u64, present: bool) -> u64 {
        let map = self.blocks.lock();
        match map.present().blocks() {
            // There is no file yet.
            0 if present => blocks,
            0 => from,
            _ => map.present().find(from, blocks, present),
        }
    }

    /// Ends what the attachment was needed for, or a lookup that does not come to one.
    pub(crate) fn detach(&self) {
        // All are let go without the lock.
        let _map = self.detach_map();
    }

    /// As [`Self::detach`], and returns what is known of its blocks.
    fn detach_map(&self) -> Blocks {
        let _backing = self.backing.lock().take();
        self.looked_up.complete_all();
        let _cookie = self.cookie.lock().take();
        self.unset_file()
    }
}

/// A file that was found.
struct FoundFile {
    // The mark is taken away before the file is let go.
    mark: InUse,
    file: KernelFile,
}

/// See the [module's description](self).
pub(crate) struct Attachment {
    object: Arc<Object>,
    /// That the file is in use, if it has its name already.
    linked: Option<InUse>,
    backing: Arc<Backing>,
    answer: Answer,
    volume: Arc<Volume>,
}

impl Attachment {
    /// Asks the daemon for an object, then looks for its file. `None` if the lookup was put
    /// off, or nobody wants the object any more.
    pub(crate) fn look_up(volume: Arc<Volume>, cookie: &Lookup<'_>) -> Result<Option<KBox<Self>>> {
        let cache = volume.cache().clone();
        let max = cache.mount().max_file_size().unsigned_abs().min(MAX_SIZE);
        // A size is rounded up to whole blocks.
        let max = max - max % BLOCK_SIZE;
        let new_object = || Object::new(cache.requests().clone(), cookie);

        let Some((object, answer)) = cache.requests().open(cookie, new_object, max)? else {
            return Ok(None);
        };
        let attached = Self::attach(volume, cookie, &object, answer);
        // If nobody uses the cookie by now, fscache would never take the object away again.
        let attached = attached.map(|attached| cookie.is_in_use().then_some(attached));
        match &attached {
            Ok(Some(attachment)) => attachment.publish(),
            _ => {
                object.detach();
                cache.requests().close(&object);
            }
        }
        attached
    }

    fn attach(
        volume: Arc<Volume>,
        cookie: &Lookup<'_>,
        object: &Arc<Object>,
        answer: Answer,
    ) -> Result<KBox<Self>> {
        cookie.set_object_size(answer.size)?;
        cookie.set_version(answer.version());
        let cache = volume.cache();
        let found = with_cred(cache.cred(), || {
            Self::find_file(&volume, cookie, object, &answer).inspect_err(|e| cache.failed(*e))
        })?;
        let (linked, file) = match found {
            Some(FoundFile { mark, file }) => (Some(mark), Some(file)),
            None => (None, None),
        };
        let attachment = Attachment {
            object: object.clone(),
            linked,
            backing: Backing::new(&volume, answer.size, file)?,
            answer,
            volume,
        };
        Ok(KBox::new(attachment, GFP_KERNEL)?)
    }

    /// Lets file descriptors fill the object.
    fn publish(&self) {
        *self.object.backing.lock() = Some(self.backing.clone());
        self.object.looked_up.complete_all();
    }

    /// Finds the file of an object (`cachefiles_look_up_object()`); `None` if there is none that
    /// can be used, and room for one.
    fn find_file(
        volume: &Volume,
        cookie: &Cookie,
        object: &Object,
        answer: &Answer,
    ) -> Result<Option<FoundFile>> {
        let cache = volume.cache();
        if let Some(fan) = volume.find_fanout(cookie.key_hash())? {
            let name = cook_key(cookie.key(), sha256)?;
            match lookup_positive(fan, name.as_bytes()) {
                Ok(dentry) if dentry.is_regular() => {
                    let found = Self::open_file(cache, cookie, fan, dentry.clone(), &name, answer)?;
                    if let Some((found, is_listed)) = found {
                        let blocks = presence::blocks(answer.size);
                        if list::adopt(object, cache, &found.file, blocks, is_listed)? {
                            object.has_list.store(1, Relaxed);
                            return Ok(Some(found));
                        }
                    }
                    // It must not be found again by whoever asks for what it was, after this.
                    match bury(cache, fan, &dentry) {
                        // Somebody else has removed it.
                        Err(e) if e == EINVAL => {}
                        buried => buried?,
                    }
                }
                // Something else has the name.
                Ok(dentry) => bury(cache, fan, &dentry)?,
                Err(e) if e == ENOENT => {}
                Err(e) => return Err(e),
            }
        }
        // Nothing that was found counts.
        let _map = object.unset_file();
        cache.space().check(1, 0, For::Create)?;
        Ok(None)
    }

    /// Opens a file that was left from another time; `None` if it is not what is looked for
    /// (`cachefiles_open_file()`). Returns whether it counts as empty without a list.
    fn open_file(
        cache: &Cache,
        cookie: &Cookie,
        fan: &Dentry,
        dentry: ARef<Dentry>,
        name: &Name,
        answer: &Answer,
    ) -> Result<Option<(FoundFile, bool)>> {
        let marked = mark_file(cache, fan, dentry, name)
            .inspect_err(|e| step!("cookie {:x}: its file: {:?}\n", cookie.debug_id(), e))?;
        let Some((dentry, mark)) = marked else {
            return Ok(None);
        };
        let found = FoundFile {
            file: KernelFile::open(cache.mount(), &dentry, cache.cred())?,
            mark,
        };
        // It may have been culled before it was marked; and a file of another size is not one that
        // was left whole.
        let bytes = presence::blocks(answer.size) * BLOCK_SIZE;
        if dentry.is_unhashed() || found.file.inode().size().unsigned_abs() != bytes {
            return Ok(None);
        }
        let (mut aux, mut buf) = ([0; AUX_MAX], [0; VALUE_MAX]);
        let aux = cookie.aux(&mut aux);
        let value = match xattr::get(&dentry, XATTR_NAME, &mut buf) {
            Ok(len) => buf.get(..len).unwrap_or_default(),
            Err(e) if e == ERANGE || e == ENODATA => return Ok(None),
            Err(e) => return Err(e),
        };
        if check_object(value, answer.size, aux, answer.version()).is_err() {
            return Ok(None);
        }
        found.file.touch_atime();
        Ok(Some((found, is_listed(value))))
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    pub(crate) fn backing(&self) -> &Arc<Backing> {
        &self.backing
    }

    fn cache(&self) -> &Cache {
        self.volume.cache()
    }

    /// Gives the file its name, or removes it, and lets go of it (`cachefiles_withdraw_cookie()`).
    pub(crate) fn withdraw(self, cookie: &Cookie) {
        let cache = self.volume.cache().clone();
        cache.requests().close(&self.object);
        // One that is made from here on has no name, and goes with whoever still writes to it.
        let file = self.backing.file().cloned();
        let map = self.object.detach_map();
        let Some(file) = file else {
            return;
        };
        with_cred(cache.cred(), || {
            let retired = cookie.is_retired() || self.object.retired.load(Relaxed) != 0;
            if let Err(e) = self.keep_or_delete(cookie, &file, &map, retired) {
                step!("cookie {:x}: not kept: {:?}\n", cookie.debug_id(), e);
            }
            drop((file, self));
        });
    }

    fn keep_or_delete(
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
            // What is there already stays as it is if that fails, with the list it has.
            Ok(()) => self.keep(cookie, file, map),
            Err(_) => self.delete(cookie, file).and(usable),
        }
    }

    /// Removes the file, if it has a name.
    fn delete(&self, cookie: &Cookie, file: &KernelFile) -> Result {
        if self.linked.is_none() {
            return Ok(());
        }
        let fan = self.volume.fanout(cookie.key_hash())?;
        bury(self.cache(), fan, file.dentry())
    }

    /// Whether the file, and what is known of it, is as it was found.
    fn is_unchanged(&self) -> bool {
        self.linked.is_some() && self.object.changed.load(Relaxed) == 0
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
        // An error that nobody was told of may be one of what the file's list says is there.
        file.check_write_errors()
    }

    /// Writes down what the file holds, and gives it its name if it is new
    /// (`cachefiles_commit_object()`).
    fn keep(&self, cookie: &Cookie, file: &KernelFile, map: &Blocks) -> Result {
        if self.is_unchanged() {
            return Ok(());
        }
        let write = self.cache().mount().want_write()?;
        if self.linked.is_none() {
            self.set_state(cookie, file, &write)?;
        }
        list::write(file.dentry(), &write, |buf| map.present().encode(None, buf))?;
        match self.linked {
            Some(_) => Ok(()),
            None => self.commit(cookie, file, write),
        }
    }

    /// Gives a new file the attribute that says what it is.
    fn set_state(&self, cookie: &Cookie, file: &KernelFile, write: &WriteAccess<'_>) -> Result {
        let mut aux = [0; AUX_MAX];
        let aux = cookie.aux(&mut aux);
        let answer = &self.answer;
        let value = Value::object(answer.size, Content::Listed, aux, answer.version());
        xattr::set(file.dentry(), XATTR_NAME, value.as_bytes(), write)
    }

    /// Gives a new file its name (`cachefiles_commit_tmpfile()`).
    fn commit(&self, cookie: &Cookie, file: &KernelFile, write: WriteAccess<'_>) -> Result {
        // Making the directory gets it, too.
        drop(write);
        let fan = self.volume.fanout(cookie.key_hash())?;
        let write = self.cache().mount().want_write()?;
        // It cannot be culled before this is done with it.
        let _mark = file.inode().mark_in_use().ok_or(EBUSY)?;
        let name = cook_key(cookie.key(), sha256)?;
        for _ in 0..RETRIES {
            let creating = Creating::start(fan, name.as_bytes(), &write)?;
            if creating.child().is_negative() {
                return creating.link(file);
            }
            // What has the name was found wanting when this object was looked up.
            creating.unlink()?;
        }
        Err(EAGAIN)
    }
}

/// Marks a file of an object as being in use. Returns the file of that name, which need not be
/// `dentry` any more; `None` if it has been removed.
///
/// # Errors
///
/// `EBUSY` if it is in use; what looking it up says.
fn mark_file(
    cache: &Cache,
    fan: &Dentry,
    dentry: ARef<Dentry>,
    name: &Name,
) -> Result<Option<(ARef<Dentry>, InUse)>> {
    if let Some(mark) = dentry.inode().ok_or(ENOENT)?.mark_in_use() {
        return Ok(Some((dentry, mark)));
    }
    // Whoever removes it has marked it, too, and the directory locked: with the lock this knows.
    let write = cache.mount().want_write()?;
    let creating = Creating::start(fan, name.as_bytes(), &write)?;
    let Some(inode) = creating.child().inode() else {
        return Ok(None);
    };
    let mark = inode.mark_in_use().ok_or(EBUSY)?;
    let dentry = creating.keep();
    Ok(dentry.is_regular().then_some((dentry, mark)))
}
