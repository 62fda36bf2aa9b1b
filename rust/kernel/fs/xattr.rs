// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! C header: [`include/linux/xattr.h`](srctree/include/linux/xattr.h)

use super::{
    dentry::Dentry,
    path::{
        idmap,
        WriteAccess, //
    }, //
};
use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// Reads an attribute into `buf` and returns its length in bytes.
///
/// # Errors
///
/// `ENODATA` if there is no such attribute, `ERANGE` if it is larger than `buf`.
pub(crate) fn get(dentry: &Dentry, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    if dentry.is_negative() {
        return Err(ENOENT);
    }
    // SAFETY: The dentry is positive, the name is terminated, and the buffer is as long as said.
    let len = unsafe {
        bindings::vfs_getxattr(
            idmap(),
            dentry.as_ptr(),
            name.as_char_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
        )
    };
    // CAST: Negative values are error numbers, which fit.
    to_result(len.min(0) as c_int)?;
    let len = len.unsigned_abs();
    // To ask for nothing is to ask for the length.
    if len > buf.len() {
        return Err(ERANGE);
    }
    Ok(len)
}

/// Sets an attribute.
pub(crate) fn set(dentry: &Dentry, name: &CStr, value: &[u8], write: &WriteAccess<'_>) -> Result {
    if dentry.is_negative() {
        return Err(ENOENT);
    }
    if !write.mount().holds(dentry) {
        return Err(EXDEV);
    }
    // SAFETY: The dentry is positive, the name is terminated, and the value is as long as said.
    to_result(unsafe {
        bindings::vfs_setxattr(
            idmap(),
            dentry.as_ptr(),
            name.as_char_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
}
