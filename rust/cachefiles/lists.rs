// SPDX-License-Identifier: GPL-2.0

//! Files with the lists of blocks that do not fit an attribute: see [`crate::disk::list`].
//!
//! They are in a directory of their own beside `cache/`, where culling does not see them, each with
//! its token for a name. What is appended to one is of use only behind all that was there before,
//! and the file system makes it part of the file not before it is on the disk. So no order of
//! writes has to be enforced: a list that is on the disk only says what was on the disk before it.
//! What is not true any more is never taken out of a list file: another one takes its place.

use crate::{
    disk::{
        key::token_name,
        list::{
            open_record,
            record_len,
            seal_record,
            set_record_len,
            RECORD_HEAD,
            RECORD_MAX, //
        }, //
    },
    inject,
    kernel_next::{
        compat::ESTALE,
        crypto::sha256,
        fs::{
            kernel_file::KernelFile,
            namei::{
                lookup_positive,
                Creating,
                Removing, //
            },
            path::Path, //
        }, //
    },
    trace::files::{
        self,
        Where, //
    }, //
};
use kernel::{
    cred::Credential,
    prelude::*,
    sync::aref::ARef,
    time::{
        hrtimer::HrTimerExpires,
        Instant,
        RealTime, //
    }, //
};

/// How often to look for a name that is free.
const RETRIES: usize = 8;

/// The directory of list files. Its users have the cache's credentials.
pub(crate) struct Lists {
    dir: Path,
    cred: ARef<Credential>,
}

/// A list file, as it is known to be on the disk.
#[derive(Clone, Copy)]
pub(crate) struct ListFile {
    pub(crate) token: u64,
    /// Bytes of it that are records.
    pub(crate) len: u64,
}

/// Records that are yet to be [sealed](seal_record), one behind the other.
#[derive(Default)]
pub(crate) struct Records(KVVec<u8>);

impl Records {
    /// Adds a record, whose runs `encode` writes to the buffer that it gets. Returns what `encode`
    /// returns beside the number of bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn push<T>(&mut self, encode: impl FnOnce(&mut [u8]) -> (usize, T)) -> Result<T> {
        let at = self.0.len();
        self.0.resize(at + RECORD_MAX, 0, GFP_KERNEL)?;
        let record = self.0.get_mut(at..).unwrap_or_default();
        let (runs, rest) = record.get_mut(RECORD_HEAD..).map(encode).ok_or(ENOMEM)?;
        set_record_len(record, runs);
        self.0.truncate(at + RECORD_HEAD + runs);
        Ok(rest)
    }

    /// How many bytes they have.
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The bytes, for the file with `token`, in which they begin at `offset`.
    fn seal(&mut self, token: u64, offset: u64) -> &[u8] {
        let mut at = 0;
        while let Some(rest) = self.0.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let Some(record) = record_len(rest).and_then(|len| rest.get_mut(..len)) else {
                break;
            };
            let len = record.len();
            seal_record(record, token, offset + at as u64, sha256);
            at += len;
        }
        self.0.get(..at).unwrap_or_default()
    }
}

impl Lists {
    /// The list files in `dir`.
    pub(crate) fn new(dir: Path, cred: ARef<Credential>) -> Self {
        Lists { dir, cred }
    }

    /// Makes a file with `records`, which are on the disk when this returns.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub(crate) fn create(&self, mut records: Records) -> Result<ListFile> {
        let write = self.dir.mount().want_write()?;
        let file = inject::write()
            .and_then(|()| KernelFile::tmpfile(&write, &self.dir, &self.cred))
            .inspect_err(|e| files::vfs_error(None, self.dir.dentry(), *e, Where::Tmpfile))?;
        drop(write);
        // CAST: Any number will do that no other list has.
        let first = Instant::<RealTime>::now().as_nanos() as u64;
        for token in (first..).take(RETRIES) {
            write_out(&file, 0, records.seal(token, 0))?;
            let write = self.dir.mount().want_write()?;
            let creating = Creating::start(&self.dir, &token_name(token), &write)?;
            if creating.child().is_negative() {
                inject::read().and_then(|()| creating.link(&file))?;
                let len = records.len();
                return Ok(ListFile { token, len });
            }
        }
        Err(EAGAIN)
    }

    /// Appends `records` to a list file. They are on the disk when this returns.
    ///
    /// # Errors
    ///
    /// `ESTALE` if the file is not as long as it should be; the file system's.
    pub(crate) fn append(&self, list: ListFile, mut records: Records) -> Result<ListFile> {
        let file = self.open(list.token)?;
        if file.inode().size().unsigned_abs() != list.len {
            return Err(ESTALE);
        }
        write_out(&file, list.len, records.seal(list.token, list.len))?;
        let len = list.len + records.len();
        Ok(ListFile { len, ..list })
    }

    /// Reads the records of a list file, until one makes no sense. `f` is called with the runs of
    /// each. Returns the file, and whether all of it made sense.
    ///
    /// # Errors
    ///
    /// Those of `f`; the file system's.
    pub(crate) fn read(
        &self,
        token: u64,
        mut f: impl FnMut(&[u8]) -> Result,
    ) -> Result<(ListFile, bool)> {
        let file = self.open(token)?;
        let size = file.inode().size().unsigned_abs();
        let mut buf = KVec::from_elem(0, RECORD_MAX, GFP_KERNEL)?;
        let mut len = 0;
        while len < size {
            inject::read()?;
            // CAST: Positions are those of files.
            let got = file.read_into(len as i64, &mut buf)?;
            let read = buf.get_mut(..got).unwrap_or_default();
            let record = record_len(read).and_then(|len| read.get_mut(..len));
            let Some(record) = record else { break };
            let next = len + record.len() as u64;
            let Some(runs) = open_record(record, token, len, sha256) else {
                break;
            };
            f(runs)?;
            len = next;
        }
        Ok((ListFile { token, len }, len == size))
    }

    /// Removes a list file that nothing names any more. If that fails, it stays, and is of no use.
    pub(crate) fn remove(&self, token: u64) {
        let removed = self.dir.mount().want_write().and_then(|write| {
            let removing = Removing::start(&self.dir, &token_name(token), &write)?;
            inject::remove().and_then(|()| removing.unlink())
        });
        if let Err(e) = removed.or_else(|e| if e == ENOENT { Ok(()) } else { Err(e) }) {
            files::vfs_error(None, self.dir.dentry(), e, Where::Unlink);
        }
    }

    fn open(&self, token: u64) -> Result<KernelFile> {
        let path = inject::read().and_then(|()| lookup_positive(&self.dir, &token_name(token)))?;
        KernelFile::open(&path, &self.cred)
    }
}

/// Writes to a list file, and waits until that is on the disk.
fn write_out(file: &KernelFile, pos: u64, bytes: &[u8]) -> Result {
    inject::write()
        // CAST: Positions are those of files.
        .and_then(|()| file.write_from(pos as i64, bytes))
        .and_then(|()| file.write_and_wait())
        .inspect_err(|e| files::io_error(None, file.inode(), *e, Where::Write))
}
