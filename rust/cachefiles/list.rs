// SPDX-License-Identifier: GPL-2.0

//! The list of present blocks that is kept with a file, and what it says when the file is found
//! again.
//!
//! The list never says more than what is on the disk, also if the machine stops at any moment: it
//! is written after the data, and corrected before blocks that turn out to be lost can be written
//! again, because what is written in part would be data to the file system.

use crate::{
    cache::Cache,
    disk::{
        list::{
            decode,
            LIST_MAX,
            LIST_MIN, //
        },
        xattr::{
            set_listed,
            PRESENT_NAME,
            VALUE_MAX,
            XATTR_NAME, //
        }, //
    },
    kernel_next::{
        compat::ENODATA,
        fs::{
            dentry::Dentry,
            kernel_file::{
                KernelFile,
                Seek, //
            },
            path::WriteAccess,
            xattr, //
        }, //
    },
    object::Object,
    protocol::BLOCK_SIZE, //
};
use core::ops::Range;
use kernel::prelude::*;

/// Whether an attribute could not be written because it is too large.
fn is_too_large(error: Error) -> bool {
    // CAST: A small constant.
    let over_quota = Error::from_errno(-(kernel::bindings::EDQUOT as c_int));
    error == ENOSPC || error == E2BIG || error == over_quota
}

fn buffer() -> Result<KVec<u8>> {
    Ok(KVec::from_elem(0, LIST_MAX, GFP_KERNEL)?)
}

/// Writes the list that `encode` makes, as much of it as fits the buffer that it is given and as
/// the file system has room for.
///
/// # Errors
///
/// `ENOMEM`; what the file system says. Then the list is what it was.
pub(crate) fn write(
    dentry: &Dentry,
    write: &WriteAccess<'_>,
    encode: impl Fn(&mut [u8]) -> usize,
) -> Result {
    let mut buf = buffer()?;
    let mut room = LIST_MAX;
    loop {
        let len = encode(buf.get_mut(..room).unwrap_or_default());
        let list = buf.get(..len).unwrap_or_default();
        match xattr::set(dentry, PRESENT_NAME, list, write) {
            Err(e) if is_too_large(e) && len > LIST_MIN => {
                room = len - len.div_ceil(4);
            }
            done => {
                if done.is_ok() && room < LIST_MAX {
                    kernel::do_once_lite! {
                        pr_warn!("The list of what a file holds does not fit the file system's \
                                  extended attributes; what it leaves out is fetched again when \
                                  the file is next looked up\n")
                    }
                }
                return done;
            }
        }
    }
}

/// What a file's list says.
enum List {
    /// So many bytes of it are in the buffer.
    Read(usize),
    Missing,
    /// It is longer than any that this writes, or cannot be read.
    Unreadable,
}

fn read(dentry: &Dentry, buf: &mut [u8]) -> List {
    match xattr::get(dentry, PRESENT_NAME, buf) {
        Ok(len) => List::Read(len),
        Err(e) if e == ENODATA => List::Missing,
        Err(_) => List::Unreadable,
    }
}

/// Takes over what a file holds: what both its list and the file system know of. `is_listed` is
/// whether the file counts as empty without a list; one without that the C implementation has left.
/// The caller has the cache's credentials.
///
/// Returns whether the file can be used: not if it has a list that says too much and cannot be
/// corrected.
///
/// # Errors
///
/// `ENOMEM`; what seeking says.
pub(crate) fn adopt(
    object: &Object,
    cache: &Cache,
    file: &KernelFile,
    blocks: u64,
    mut is_listed: bool,
) -> Result<bool> {
    // Once more after it was corrected: that changes the inode, and hides if others do.
    for _ in 0..2 {
        object.set_file(file, blocks)?;
        let says_too_much = find(object, file, blocks, is_listed)?;
        if is_listed && !says_too_much {
            return Ok(true);
        }
        if let Err(e) = correct(object, cache, file, is_listed) {
            step!(
                "cookie {:x}: cannot write its list: {:?}\n",
                object.debug_id(),
                e
            );
            break;
        }
        is_listed = true;
    }
    Ok(false)
}

/// Finds what a file holds. Returns whether its list says too much.
fn find(object: &Object, file: &KernelFile, blocks: u64, is_listed: bool) -> Result<bool> {
    let mut buf = buffer()?;
    match read(file.dentry(), &mut buf) {
        List::Read(len) => {
            let mut is_whole = true;
            for run in decode(buf.get(..len).unwrap_or_default()) {
                if run.end > blocks {
                    return Ok(true);
                }
                is_whole &= find_run(object, file, run)?;
            }
            Ok(!is_whole)
        }
        List::Missing if is_listed => Ok(true),
        List::Missing => find_run(object, file, 0..blocks).map(|_| true),
        List::Unreadable => Ok(true),
    }
}

/// Finds which blocks of a run are data to the file system. Returns whether all are.
fn find_run(object: &Object, file: &KernelFile, run: Range<u64>) -> Result<bool> {
    // Sizes are those of files, and fit.
    let (mut at, end) = (
        (run.start * BLOCK_SIZE) as i64,
        (run.end * BLOCK_SIZE) as i64,
    );
    let mut left = run.end - run.start;
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
        let last = last.max(first);
        object.mark_found(first..last)?;
        left -= last - first;
        at = hole;
    }
    Ok(left == 0)
}

/// Has the list of a file say what was found, and the file count as empty without it.
fn correct(object: &Object, cache: &Cache, file: &KernelFile, is_listed: bool) -> Result {
    let access = cache.mount().want_write()?;
    write(file.dentry(), &access, |buf| object.encode(buf))?;
    if is_listed {
        return Ok(());
    }
    let mut buf = [0; VALUE_MAX];
    let len = xattr::get(file.dentry(), XATTR_NAME, &mut buf)?;
    let value = buf.get_mut(..len).unwrap_or_default();
    set_listed(value);
    xattr::set(file.dentry(), XATTR_NAME, value, &access)
}
