// SPDX-License-Identifier: GPL-2.0

//! What the disk says of the blocks of a file.
//!
//! The disk never says more than what is on it, also if the machine stops at any moment: that a
//! block is present is written down after the block. What turns out to be lost is not claimed any
//! more before blocks can be written again, because what is written in part would be data to the
//! file system.

use super::{
    leaf::Leaf,
    Backing,
    Blocks, //
};
use crate::{
    disk::{
        list::{
            attribute,
            open,
            room,
            seal_runs,
            seal_token,
            token_of,
            Stored,
            ATTR_MAX,
            SCRATCH, //
        },
        xattr::{
            aux_and_content,
            binding,
            content_of,
            set_content,
            Content,
            Value,
            PRESENT_NAME,
            XATTR_NAME, //
        }, //
    },
    inject,
    kernel_next::{
        compat::ENODATA,
        crypto::sha256,
        fs::{
            kernel_file::KernelFile,
            path::Path,
            xattr, //
        }, //
    },
    lists::{
        ListFile,
        Records, //
    },
    plan::changed::Changed,
    trace::files::{
        self,
        Coherency,
        Where, //
    }, //
};
use core::{
    mem::replace,
    ops::Range, //
};
use kernel::prelude::*;

/// What the disk says.
#[derive(Clone, Copy)]
pub(super) enum Claim {
    /// That nothing is present, or nothing at all.
    Nothing,
    /// That all is present.
    All,
    /// What is present, in the attribute.
    Runs,
    /// What is present, in a list file, which had `fresh` bytes when it was made.
    File { list: ListFile, fresh: u64 },
}

/// Bytes by which a list file may grow, beside its own length, until another one is made.
const GROWTH: u64 = 64 << 10;

/// Where blocks became present.
type Changes = Changed<Leaf>;

/// Whether an attribute could not be written because it is too large.
fn is_too_large(error: Error) -> bool {
    // CAST: A small constant.
    let over_quota = Error::from_errno(-(kernel::bindings::EDQUOT as c_int));
    error == ENOSPC || error == E2BIG || error == over_quota
}

/// The token of the list file that the file at `path` names, if it names one. For whoever removes
/// that file.
pub(crate) fn named_by(path: &Path) -> Option<u64> {
    // An attribute that names a list file is not longer.
    let mut attr = [0; 32];
    let len = xattr::get(path, PRESENT_NAME, &mut attr).ok()?;
    token_of(attr.get(..len)?)
}

/// What is encoded of which blocks, and the block to go on from: see [`Blocks::encode`].
type Encoded = (usize, Option<u64>);

/// Records with what `encode` encodes.
fn records(encode: impl Fn(Range<u64>, &mut [u8]) -> Encoded) -> Result<Records> {
    let (mut records, mut next) = (Records::default(), Some(0));
    while let Some(at) = next {
        next = records.push(|buf| encode(at..u64::MAX, buf))?;
    }
    Ok(records)
}

/// A list on its way to the disk.
pub(super) enum List {
    /// None is needed: all is present.
    Complete,
    /// For the attribute: where it is made, and how many bytes its runs have.
    Runs(KVec<u8>, usize),
    /// For a list file.
    File(Records),
    /// To be appended to the list file that there is, which had `fresh` bytes when it was made.
    Rest {
        records: Records,
        list: ListFile,
        fresh: u64,
    },
}

impl Backing {
    /// Writes down what the file holds: `map`, all of which is on the disk. `value` is that of the
    /// file's main attribute, which is written if it has changed or `is_new`. The caller has the
    /// cache's credentials.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the file system's. Then what the disk says is still true.
    pub(crate) fn write_down(&self, map: &mut Blocks, value: &mut [u8], is_new: bool) -> Result {
        let mut claim = self.claim.lock();
        let (is_complete, changes) = (map.is_complete(), map.take_changes());
        let encode =
            |range, changes: Option<&Changes>, buf: &mut [u8]| map.encode(range, changes, buf);
        let list = self.encode_list(&claim, is_complete, changes.as_ref(), encode)?;
        let is_rest = matches!(list, List::Rest { .. });
        match self.store(&mut claim, list, value, is_new) {
            // The list file may be gone.
            Err(_) if is_rest => {
                let list = self.encode_list(&claim, is_complete, None, encode)?;
                self.store(&mut claim, list, value, is_new)
            }
            stored => stored,
        }
    }

    /// The list of the blocks that `encode` encodes, or, if there is a list file that has the rest,
    /// of the `changes` alone.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn encode_list(
        &self,
        claim: &Claim,
        is_complete: bool,
        changes: Option<&Changes>,
        encode: impl Fn(Range<u64>, Option<&Changes>, &mut [u8]) -> Encoded,
    ) -> Result<List> {
        if is_complete {
            return Ok(List::Complete);
        }
        if let (Claim::File { list, fresh }, Some(_)) = (*claim, changes) {
            let records = records(|range, buf| encode(range, changes, buf))?;
            if list.len + records.len() <= 2 * fresh + GROWTH {
                return Ok(List::Rest {
                    records,
                    list,
                    fresh,
                });
            }
        }
        let mut scratch = KVec::from_elem(0, SCRATCH, GFP_KERNEL)?;
        if let (len, None) = encode(0..u64::MAX, None, room(&mut scratch)) {
            return Ok(List::Runs(scratch, len));
        }
        records(|range, buf| encode(range, None, buf)).map(List::File)
    }

    /// Has the disk say what `list` says. See [`Self::write_down`].
    pub(super) fn store(
        &self,
        claim: &mut Claim,
        list: List,
        value: &mut [u8],
        is_new: bool,
    ) -> Result {
        let file = self.file().ok_or(EIO)?;
        let content = match list {
            List::Complete => Content::All,
            _ => Content::Listed,
        };
        let is_other = content_of(value) != content;
        set_content(value, content);
        self.store_list(claim, list, file, binding(value))?;
        // After the list: without one, nothing would be present that is.
        if is_new || is_other {
            self.set_value(file, value)?;
        }
        if content == Content::All {
            self.remove_list(claim, file);
            *claim = Claim::All;
        }
        Ok(())
    }

    fn store_list(
        &self,
        claim: &mut Claim,
        list: List,
        file: &KernelFile,
        binding: &[u8],
    ) -> Result {
        let set = |attr: &[u8]| {
            let write = self.shared.space.mount().want_write()?;
            inject::write().and_then(|()| xattr::set(file.path(), PRESENT_NAME, attr, &write))
        };
        let set_token = |token| {
            let mut scratch = KVec::from_elem(0, SCRATCH, GFP_KERNEL)?;
            set(seal_token(&mut scratch, token, binding, sha256))
        };
        let create = |records| -> Result<Claim> {
            let list = self.shared.lists.create(records)?;
            set_token(list.token).inspect_err(|_| self.shared.lists.remove(list.token))?;
            let fresh = list.len;
            Ok(Claim::File { list, fresh })
        };
        let new = match list {
            List::Complete => return Ok(()),
            List::Rest {
                records,
                list,
                fresh,
            } => {
                let list = self.shared.lists.append(list, records)?;
                *claim = Claim::File { list, fresh };
                // The binding may be another.
                return set_token(list.token);
            }
            List::File(records) => create(records)?,
            List::Runs(mut scratch, len) => {
                match set(seal_runs(&mut scratch, len, binding, sha256)) {
                    Err(e) if is_too_large(e) => {
                        let mut records = Records::default();
                        let runs = room(&mut scratch).get(..len).unwrap_or_default();
                        // Room for more than the attribute has.
                        records.push(|buf| {
                            buf.iter_mut().zip(runs).for_each(|(to, from)| *to = *from);
                            (len, ())
                        })?;
                        create(records)?
                    }
                    set => set.map(|()| Claim::Runs)?,
                }
            }
        };
        if let Claim::File { list, .. } = replace(claim, new) {
            self.shared.lists.remove(list.token);
        }
        Ok(())
    }

    /// Removes the list, which nothing goes by any more. If that fails, it stays.
    fn remove_list(&self, claim: &mut Claim, file: &KernelFile) {
        if matches!(claim, Claim::Runs | Claim::File { .. }) {
            let _ = self.remove_attribute(file);
        }
        self.forsake(claim);
    }

    fn remove_attribute(&self, file: &KernelFile) -> Result {
        let write = self.shared.space.mount().want_write()?;
        let removed =
            inject::remove().and_then(|()| xattr::remove(file.path(), PRESENT_NAME, &write));
        match removed {
            Err(e) if e == ENODATA => Ok(()),
            removed => removed,
        }
    }

    /// As [`Self::forsake`].
    pub(crate) fn forsake_list(&self) {
        self.forsake(&mut self.claim.lock());
    }

    /// Removes the list file, if there is one: nothing names it, or the file that does gets no name
    /// itself.
    pub(super) fn forsake(&self, claim: &mut Claim) {
        if let Claim::File { list, .. } = replace(claim, Claim::Nothing) {
            self.shared.lists.remove(list.token);
        }
    }

    /// Has the disk say no more than what is known to be there: some of what it says is not true.
    /// The caller has the cache's credentials.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; the file system's. Then the disk says what it did.
    pub(super) fn reduce_claim(&self, claim: &mut Claim, file: &KernelFile) -> Result {
        // What is left out is still present: it is in the next list again.
        self.blocks.lock().require_new_list();
        if let Claim::File { .. } = claim {
            // May be long, and much may turn out to be lost, block by block. What is present is
            // written down again with the next change.
            self.remove_attribute(file)?;
            self.forsake(claim);
            return Ok(());
        }
        let mut value = Value::read(|buf| xattr::get(file.path(), XATTR_NAME, buf))?;
        let encode = |range, _: Option<&Changes>, buf: &mut [u8]| {
            self.blocks.lock().encode_verified(range, buf)
        };
        let list = self.encode_list(claim, false, None, encode)?;
        self.store(claim, list, value.as_bytes_mut(), false)
    }

    /// Writes the main attribute, which says what the file is.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub(crate) fn set_value(&self, file: &KernelFile, value: &[u8]) -> Result {
        let (obj, path) = (self.trace(), file.path());
        let write = path.mount().want_write()?;
        let set = inject::write().and_then(|()| xattr::set(path, XATTR_NAME, value, &write));
        let why = match set {
            Ok(()) => Coherency::SetOk,
            Err(e) => {
                files::vfs_error(Some(obj), path.dentry(), e, Where::Setxattr);
                Coherency::SetFail
            }
        };
        let (aux, written) = (binding(value), aux_and_content(value));
        files::coherency(obj, file.inode(), aux, written, why);
        set
    }

    /// Reads the file's list. `found` is called with the runs of an attribute, and `listed` with
    /// those of a list file. Returns what the disk says, and whether all of it makes sense.
    ///
    /// # Errors
    ///
    /// Those of `found` and `listed`; `ENOMEM`.
    pub(super) fn read_list(
        &self,
        file: &KernelFile,
        binding: &[u8],
        found: impl FnOnce(&[u8]) -> Result,
        listed: impl FnMut(&[u8]) -> Result,
    ) -> Result<(Claim, bool)> {
        let mut scratch = KVec::from_elem(0, SCRATCH, GFP_KERNEL)?;
        let got = inject::read().and_then(|()| {
            let attr = attribute(&mut scratch);
            xattr::get(
                file.path(),
                PRESENT_NAME,
                attr.get_mut(..ATTR_MAX).unwrap_or_default(),
            )
        });
        // One that cannot be read, or is longer than any that this writes, is as good as none.
        let Some(stored) = got
            .ok()
            .and_then(|len| open(&mut scratch, len, binding, sha256))
        else {
            return Ok((Claim::Nothing, false));
        };
        match stored {
            Stored::Runs(runs) => {
                found(runs)?;
                Ok((Claim::Runs, true))
            }
            Stored::File(token) => match self.shared.lists.read(token, listed) {
                Ok((list, is_whole)) => {
                    let fresh = list.len;
                    Ok((Claim::File { list, fresh }, is_whole))
                }
                Err(e) if e == ENOMEM => Err(e),
                Err(_) => Ok((Claim::Nothing, false)),
            },
        }
    }
}
