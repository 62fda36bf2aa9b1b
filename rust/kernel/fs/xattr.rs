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

#[kunit_tests(rust_xattr)]
mod tests {
    use super::*;
    use crate::kernel_next::{
        fs::{
            namei::Creating,
            path::Path, //
        },
        kunit::support, //
    };

    const NAME: &CStr = c"user.kunit";

    fn dir() -> Result<Path> {
        support::scratch_on_disk(b"kunit-xattr")
    }

    fn remove(dentry: &Dentry) -> Result {
        // SAFETY: The dentry is positive, and the name is terminated.
        to_result(unsafe {
            bindings::vfs_removexattr(idmap(), dentry.as_ptr(), NAME.as_char_ptr())
        })
    }

    #[test]
    fn value_comes_back() -> Result {
        let dir = dir()?;
        let write = dir.mount.want_write()?;
        let mut buf = [0xee; 8];
        let values: [&[u8]; 5] = [b"", b"x", b"\0\xff\0", b"12345678", b"short"];
        for value in values {
            set(&dir.dentry, NAME, value, &write)?;
            buf.fill(0xee);
            assert_eq!(get(&dir.dentry, NAME, &mut buf), Ok(value.len()));
            assert_eq!(&buf[..value.len()], value);
            // Nothing is written behind it.
            assert!(buf[value.len()..].iter().all(|byte| *byte == 0xee));
        }
        remove(&dir.dentry)?;
        assert_eq!(get(&dir.dentry, NAME, &mut buf), Err(ENODATA));
        Ok(())
    }

    #[test]
    fn buffer_may_be_too_small() -> Result {
        let dir = dir()?;
        let write = dir.mount.want_write()?;
        set(&dir.dentry, NAME, b"four", &write)?;
        assert_eq!(get(&dir.dentry, NAME, &mut [0; 3]), Err(ERANGE));
        assert_eq!(get(&dir.dentry, NAME, &mut []), Err(ERANGE));
        let mut buf = [0; 4];
        assert_eq!(get(&dir.dentry, NAME, &mut buf), Ok(4));
        assert_eq!(&buf, b"four");
        remove(&dir.dentry)
    }

    #[test]
    fn unknown_names_are_refused() -> Result {
        let dir = dir()?;
        let write = dir.mount.want_write()?;
        let mut buf = [0; 4];
        assert_eq!(get(&dir.dentry, c"user.none", &mut buf), Err(ENODATA));
        // There is no such class of attributes.
        assert_eq!(get(&dir.dentry, c"kunit.none", &mut buf), Err(EOPNOTSUPP));
        let done = set(&dir.dentry, c"kunit.none", b"", &write);
        assert_eq!(done, Err(EOPNOTSUPP));
        Ok(())
    }

    #[test]
    fn what_does_not_exist_has_no_attributes() -> Result {
        let dir = dir()?;
        let write = dir.mount.want_write()?;
        let entry = Creating::start(&dir.dentry, b"none", &write)?;
        assert_eq!(get(entry.child(), NAME, &mut [0; 4]), Err(ENOENT));
        assert_eq!(set(entry.child(), NAME, b"", &write), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn write_access_has_to_be_to_the_same_file_system() -> Result {
        let dir = dir()?;
        let other = Path::lookup_dir(c"/tmp")?;
        let write = other.mount.want_write()?;
        assert_eq!(set(&dir.dentry, NAME, b"x", &write), Err(EXDEV));
        assert_eq!(get(&dir.dentry, NAME, &mut [0; 4]), Err(ENODATA));
        Ok(())
    }
}
