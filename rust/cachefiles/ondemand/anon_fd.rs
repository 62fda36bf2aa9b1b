// SPDX-License-Identifier: GPL-2.0

//! The file descriptor that comes with an OPEN: how the daemon fills an object.
//!
//! The file refers to the object and the requests only. When the object is withdrawn, writes to it
//! fail, so that a daemon may keep it for as long as it likes.

use super::{
    read::Written,
    requests::Requests, //
};
use crate::{
    backing::{
        check::before_write,
        Backing, //
    },
    disk::presence,
    inject,
    kernel_next::{
        anon_inode::{
            self,
            AnonFile, //
        },
        compat::ENOBUFS,
        cred::with_cred,
        fscache::stats,
        iov::user_source, //
    },
    object::Object,
    protocol::BLOCK_SIZE,
    trace::{
        self,
        files::Where, //
    }, //
};
use kernel::{
    bindings,
    fs::{
        file::flags,
        File,
        Kiocb, //
    },
    iov::IovIterSource,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc,
        ArcBorrow, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

/// `CACHEFILES_IOC_READ_COMPLETE`: the argument is a message id.
const READ_COMPLETE: u32 = kernel::ioctl::_IOW::<c_int>(0x98, 1);
/// `CACHEFILES_IOC_FILL`: the argument is the address of a `struct cachefiles_fill`.
const FILL: u32 = kernel::ioctl::_IOW::<[u8; Fill::SIZE]>(0x98, 2);

/// `struct cachefiles_fill`.
struct Fill {
    off: i64,
    len: usize,
    addr: usize,
    msg_id: u32,
}

impl Fill {
    const SIZE: usize = 32;

    /// # Errors
    ///
    /// `EFAULT` if it cannot be read; `EINVAL` if it has flags, or a number does not fit.
    fn read(addr: usize) -> Result<Self> {
        let mut raw = [[0; 8]; Self::SIZE / 8];
        UserSlice::new(UserPtr::from_addr(addr), Self::SIZE)
            .reader()
            .read_slice(raw.as_flattened_mut())?;
        let [off, len, addr, [a, b, c, d, flags @ ..]] = raw;
        if flags != [0; 4] {
            return Err(EINVAL);
        }
        let number = |bytes| usize::try_from(u64::from_ne_bytes(bytes));
        Ok(Fill {
            off: i64::try_from(u64::from_ne_bytes(off))?,
            len: number(len)?,
            addr: number(addr)?,
            msg_id: u32::from_ne_bytes([a, b, c, d]),
        })
    }
}

/// What a file descriptor owns.
pub(super) struct FdData {
    requests: Arc<Requests>,
    object: Arc<Object>,
    /// The daemon's number for it; 0 before [`Table::issue`](crate::table::Table::issue).
    object_id: Atomic<u32>,
}

impl FdData {
    pub(super) fn new(requests: Arc<Requests>, object: Arc<Object>) -> Result<Arc<Self>> {
        Ok(Arc::new(
            FdData {
                requests,
                object,
                object_id: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Sets the object id. Called before the file is installed.
    pub(super) fn set_object_id(&self, object_id: u32) {
        self.object_id.store(object_id, Relaxed);
    }

    fn object_id(&self) -> u32 {
        self.object_id.load(Relaxed)
    }

    /// The file to be filled. If the daemon has answered the OPEN, but the lookup is not over yet,
    /// waits for the lookup, so that the daemon need not try again.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` if there is none: the OPEN is not answered, or the object is withdrawn;
    /// `ERESTARTSYS` if the task is killed while it waits.
    fn backing(&self) -> Result<Arc<Backing>> {
        if let Some(backing) = self.object.backing() {
            return Ok(backing);
        }
        if self.requests.has_size(self.object_id()) {
            self.object.wait_for_lookup()?;
        }
        self.object.backing().ok_or(ENOBUFS)
    }

    /// Writes a part of the object.
    ///
    /// # Errors
    ///
    /// Those of [`Self::backing`]; `EINVAL` if `pos` is negative; `ENOBUFS` if there is no space,
    /// or `pos` is not at the start of a block; `EFBIG` beyond the end of the object, rounded up to
    /// whole blocks; `EIO` if what was written may have been lost already; the file system's error.
    fn write(&self, pos: i64, from: &mut IovIterSource<'_>) -> Result<usize> {
        let backing = self.backing()?;
        let size = backing.size();
        let off = u64::try_from(pos).map_err(|_| EINVAL)?;
        // CAST: A length in memory.
        let len = from.len() as u64;
        // READs ask for whole blocks of 4096 bytes, also if pages are larger.
        if off % BLOCK_SIZE != 0 {
            stats::count_dio_misfit();
            return Err(ENOBUFS);
        }
        let end = off.checked_add(len).ok_or(EFBIG)?;
        if end > presence::blocks(size) * BLOCK_SIZE {
            return Err(EFBIG);
        }
        let losses = backing.losses();
        let mut write = || {
            backing.shared.space.check_write(len)?;
            let file = backing.file_to_write()?;
            before_write(&backing, file, off, end)?;
            trace::fd_write(self.object.debug_id(), file.inode().ino(), pos, from.len());
            trace::files::write(backing.trace(), file.inode(), pos, from.len());
            stats::count_write();
            inject::write()
                .and_then(|()| file.write(pos, from))
                .inspect_err(|e| backing.trace_io_error(file, *e, Where::Write))
        };
        let written = with_cred(&backing.shared.cred, || {
            write().inspect_err(|e| self.requests.io_error(|| backing.probe_after_error(*e)))
        })?;
        backing.mark_written(
            presence::blocks_filled_by(off, written as u64, size),
            losses,
        )?;
        Ok(written)
    }

    /// Writes `fill.len` bytes of the object. If all were written, answers the READ `fill.msg_id`,
    /// for its whole range, whatever that is. Returns how much was written.
    ///
    /// # Errors
    ///
    /// Those of [`Self::write`] and [`user_source`]; `ENOENT` if all was written, but there is no
    /// such READ, or not of this object.
    fn fill(&self, fill: &Fill) -> Result<usize> {
        let addr = UserPtr::from_addr(fill.addr);
        let len = user_source(addr, fill.len, |from| self.write(fill.off, from))??;
        if len == fill.len {
            let pos = fill.off.unsigned_abs();
            let written = Written { pos, addr, len };
            self.requests
                .read_complete(fill.msg_id, self.object_id(), Some(&written))
                .map_err(|_| ENOENT)?;
        }
        Ok(len)
    }

    /// Seeks. Data and holes are what the map of present blocks says.
    fn seek(&self, pos: i64, offset: i64, whence: u32) -> Result<i64> {
        let backing = self.backing()?;
        let size = backing.size();
        let end = presence::blocks(size) * BLOCK_SIZE;
        // Sizes are those of files, and fit.
        let end_pos = end as i64;
        let target = match whence {
            bindings::SEEK_SET => offset,
            bindings::SEEK_CUR => pos.checked_add(offset).ok_or(EOVERFLOW)?,
            bindings::SEEK_END => end_pos.checked_add(offset).ok_or(EOVERFLOW)?,
            bindings::SEEK_DATA | bindings::SEEK_HOLE => {
                let from = u64::try_from(offset).map_err(|_| ENXIO)?;
                if from >= end {
                    return Err(ENXIO);
                }
                let present = whence == bindings::SEEK_DATA;
                let from_block = from / BLOCK_SIZE;
                let block = backing.find_block(from_block, end / BLOCK_SIZE, present);
                let found = (block * BLOCK_SIZE).max(from);
                if present && found >= end {
                    return Err(ENXIO);
                }
                found as i64
            }
            _ => return Err(EINVAL),
        };
        if target < 0 {
            return Err(EINVAL);
        }
        Ok(target)
    }
}

/// The operations of the file.
struct CacheFile;

#[vtable]
impl AnonFile for CacheFile {
    type Data = Arc<FdData>;
    type OwnerModule = crate::LocalModule;

    fn release(handle: Arc<FdData>) {
        handle
            .requests
            .fd_released(&handle.object, handle.object_id());
    }

    fn write_iter(mut iocb: Kiocb<'_, Arc<FdData>>, from: &mut IovIterSource<'_>) -> Result<usize> {
        let len = iocb.file().write(iocb.ki_pos(), from)?;
        // CAST: What was written ends within a file.
        *iocb.ki_pos_mut() += len as i64;
        Ok(len)
    }

    fn llseek(
        handle: ArcBorrow<'_, FdData>,
        pos: &mut i64,
        offset: i64,
        whence: c_int,
    ) -> Result<i64> {
        // CAST: Unknown values, negative ones among them, are refused.
        let target = handle.seek(*pos, offset, whence as u32)?;
        *pos = target;
        Ok(target)
    }

    fn ioctl(handle: ArcBorrow<'_, FdData>, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            READ_COMPLETE => {
                let msg_id = u32::try_from(arg).map_err(|_| EINVAL)?;
                handle
                    .requests
                    .read_complete(msg_id, handle.object_id(), None)?;
                Ok(0)
            }
            // CAST: No more than `isize::MAX` bytes can be written at once.
            FILL => Ok(handle.fill(&Fill::read(arg)?)? as isize),
            _ => Err(EINVAL),
        }
    }
}

/// Makes the file of a handle.
pub(super) fn file(handle: Arc<FdData>) -> Result<ARef<File>> {
    anon_inode::getfile::<CacheFile>(c"[cachefiles]", handle, flags::O_WRONLY)
}
