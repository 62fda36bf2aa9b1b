// SPDX-License-Identifier: GPL-2.0

//! The attribute that lists the present blocks of a file.
//!
//! The list never says more than what is on the disk, also if the machine stops at any moment: it
//! is written after the data, and corrected before blocks that turn out to be lost can be written
//! again, because what is written in part would be data to the file system.

use crate::{
    disk::{
        list::{
            LIST_MAX,
            LIST_MIN, //
        },
        xattr::PRESENT_NAME, //
    },
    kernel_next::{
        compat::ENODATA,
        fs::{
            path::{
                Path,
                WriteAccess, //
            },
            xattr, //
        }, //
    }, //
};
use kernel::prelude::*;

/// Whether an attribute could not be written because it is too large.
fn is_too_large(error: Error) -> bool {
    // CAST: A small constant.
    let over_quota = Error::from_errno(-(kernel::bindings::EDQUOT as c_int));
    error == ENOSPC || error == E2BIG || error == over_quota
}

pub(super) fn buffer() -> Result<KVec<u8>> {
    Ok(KVec::from_elem(0, LIST_MAX, GFP_KERNEL)?)
}

/// Writes the list that `encode` makes, as much of it as fits the buffer that it is given and as
/// the file system has room for.
///
/// # Errors
///
/// `ENOMEM`; what the file system says. Then the list is what it was.
pub(crate) fn write(
    path: &Path,
    write: &WriteAccess<'_>,
    encode: impl Fn(&mut [u8]) -> usize,
) -> Result {
    let mut buf = buffer()?;
    let mut room = LIST_MAX;
    loop {
        let len = encode(buf.get_mut(..room).unwrap_or_default());
        let list = buf.get(..len).unwrap_or_default();
        match xattr::set(path, PRESENT_NAME, list, write) {
            Err(e) if is_too_large(e) && len > LIST_MIN => {
                room = len - len.div_ceil(4);
            }
            done => {
                if done.is_ok() && room < LIST_MAX {
                    kernel::do_once_lite! {
                        cf_warn!("The list of what a file holds does not fit the file system's \
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
pub(super) enum List {
    /// So many bytes of it are in the buffer.
    Read(usize),
    Missing,
    /// It is longer than any that this writes, or cannot be read.
    Unreadable,
}

pub(super) fn read(path: &Path, buf: &mut [u8]) -> List {
    match xattr::get(path, PRESENT_NAME, buf) {
        Ok(len) => List::Read(len),
        Err(e) if e == ENODATA => List::Missing,
        Err(_) => List::Unreadable,
    }
}
