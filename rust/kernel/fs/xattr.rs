// SPDX-License-Identifier: GPL-2.0

//! Extended attributes.
//!
//! C header: [`include/linux/xattr.h`](srctree/include/linux/xattr.h)
//!
//! # Examples
//!
//! ```
//! use kernel::{
//!     fs::{
//!         path::Path,
//!         xattr, //
//!     },
//!     prelude::*, //
//! };
//!
//! /// Counts how often this was called for a directory.
//! fn count(dir: &Path) -> Result<u32> {
//!     let mut buf = [0; 4];
//!     let count = match xattr::get(dir, c"user.count", &mut buf) {
//!         Ok(4) => u32::from_le_bytes(buf).wrapping_add(1),
//!         Ok(_) => return Err(EINVAL),
//!         Err(e) if e == ENODATA => 1,
//!         Err(e) => return Err(e),
//!     };
//!     let write = dir.mount().want_write()?;
//!     xattr::set(dir, c"user.count", &count.to_le_bytes(), &write)?;
//!     Ok(count)
//! }
//! ```

use super::path::{
    Path,
    WriteAccess, //
};
use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*, //
};

// CAST: Small constants.
const NAME_MAX: usize = bindings::XATTR_NAME_MAX as usize;
const SIZE_MAX: usize = bindings::XATTR_SIZE_MAX as usize;

/// Checks a name as the system calls do: file systems rely on it.
fn check_name(name: &CStr) -> Result {
    match name.count_bytes() {
        1..=NAME_MAX => Ok(()),
        _ => Err(ERANGE),
    }
}

/// Reads an attribute into `buf` and returns its length in bytes. May sleep. Permissions are those
/// with the user ids that the path's mount maps.
///
/// # Errors
///
/// `ENODATA` if there is no such attribute, `ERANGE` if it is larger than `buf`, or if the name is
/// empty or too long, `ENOENT` if the dentry is negative, `EOPNOTSUPP` if the file system has no
/// attributes of this class; what the file system and the security module say.
pub(crate) fn get(path: &Path, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    check_name(name)?;
    if path.dentry().inode().is_none() {
        return Err(ENOENT);
    }
    // SAFETY: The mount's mapping is valid, the dentry is positive, the name is terminated, the
    // buffer is as long as said, and the caller may sleep.
    let len = unsafe {
        bindings::vfs_getxattr(
            path.mount().idmap(),
            path.dentry().as_ptr(),
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

/// Sets an attribute, which may exist already. May sleep, and takes the inode lock, so it must not
/// be called for a directory that the task is about to [change](super::namei).
///
/// # Errors
///
/// `EXDEV` if `write` is for another mount, `E2BIG` if the value is larger than any may be,
/// `ERANGE` if the name is empty or too long, `ENOENT` if the dentry is negative, `EOPNOTSUPP` if
/// the file system has no attributes of this class; what the file system and the security module
/// say.
pub(crate) fn set(path: &Path, name: &CStr, value: &[u8], write: &WriteAccess<'_>) -> Result {
    check_name(name)?;
    if value.len() > SIZE_MAX {
        return Err(E2BIG);
    }
    if path.dentry().inode().is_none() {
        return Err(ENOENT);
    }
    write.check(path)?;
    // SAFETY: The mount's mapping is valid, the dentry is positive, the name is terminated, the
    // value is as long as said, and the caller may sleep.
    to_result(unsafe {
        bindings::vfs_setxattr(
            path.mount().idmap(),
            path.dentry().as_ptr(),
            name.as_char_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    })
}

/// Removes an attribute. May sleep, and takes the inode lock, as [`set`] does.
///
/// # Errors
///
/// `ENODATA` if there is no such attribute; else as [`set`].
pub(crate) fn remove(path: &Path, name: &CStr, write: &WriteAccess<'_>) -> Result {
    check_name(name)?;
    if path.dentry().inode().is_none() {
        return Err(ENOENT);
    }
    write.check(path)?;
    // SAFETY: The mount's mapping is valid, the dentry is positive, the name is terminated, and the
    // caller may sleep.
    to_result(unsafe {
        bindings::vfs_removexattr(
            path.mount().idmap(),
            path.dentry().as_ptr(),
            name.as_char_ptr(),
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
        kunit::scratch, //
    };

    const NAME: &CStr = c"user.kunit";

    fn dir() -> Result<Path> {
        if cfg!(CONFIG_TMPFS_XATTR) {
            scratch::dir(b"kunit-xattr")
        } else {
            scratch::dir_on_disk(b"kunit-xattr")
        }
    }

    #[test]
    fn value_comes_back() -> Result {
        let dir = dir()?;
        let write = dir.mount().want_write()?;
        let mut buf = [0xee; 8];
        let values: [&[u8]; 5] = [b"", b"x", b"\0\xff\0", b"12345678", b"short"];
        for value in values {
            set(&dir, NAME, value, &write)?;
            buf.fill(0xee);
            assert_eq!(get(&dir, NAME, &mut buf), Ok(value.len()));
            assert_eq!(&buf[..value.len()], value);
            // Nothing is written behind it.
            assert!(buf[value.len()..].iter().all(|byte| *byte == 0xee));
        }
        remove(&dir, NAME, &write)?;
        assert_eq!(get(&dir, NAME, &mut buf), Err(ENODATA));
        assert_eq!(remove(&dir, NAME, &write), Err(ENODATA));
        Ok(())
    }

    #[test]
    fn buffer_may_be_too_small() -> Result {
        let dir = dir()?;
        let write = dir.mount().want_write()?;
        set(&dir, NAME, b"four", &write)?;
        assert_eq!(get(&dir, NAME, &mut [0; 3]), Err(ERANGE));
        assert_eq!(get(&dir, NAME, &mut []), Err(ERANGE));
        let mut buf = [0; 4];
        assert_eq!(get(&dir, NAME, &mut buf), Ok(4));
        assert_eq!(&buf, b"four");
        remove(&dir, NAME, &write)
    }

    #[test]
    fn unknown_names_are_refused() -> Result {
        let dir = dir()?;
        let write = dir.mount().want_write()?;
        let mut buf = [0; 4];
        assert_eq!(get(&dir, c"user.none", &mut buf), Err(ENODATA));
        // There is no such class of attributes.
        assert_eq!(get(&dir, c"kunit.none", &mut buf), Err(EOPNOTSUPP));
        let done = set(&dir, c"kunit.none", b"", &write);
        assert_eq!(done, Err(EOPNOTSUPP));
        Ok(())
    }

    #[test]
    fn what_does_not_exist_has_no_attributes() -> Result {
        let dir = dir()?;
        let write = dir.mount().want_write()?;
        let none = Creating::start(&dir, b"none", &write)?.keep();
        assert_eq!(get(&none, NAME, &mut [0; 4]), Err(ENOENT));
        assert_eq!(set(&none, NAME, b"", &write), Err(ENOENT));
        assert_eq!(remove(&none, NAME, &write), Err(ENOENT));
        Ok(())
    }

    #[test]
    fn write_access_has_to_be_to_the_mount_of_the_path() -> Result {
        let dir = dir()?;
        let other = Path::lookup_dir(c"/")?;
        let write = dir.mount().want_write()?;
        assert_eq!(set(&other, NAME, b"x", &write), Err(EXDEV));
        assert_eq!(remove(&other, NAME, &write), Err(EXDEV));
        Ok(())
    }

    #[test]
    fn sizes_are_limited() -> Result {
        let dir = dir()?;
        let write = dir.mount().want_write()?;
        let large = KVec::from_elem(0u8, SIZE_MAX + 1, GFP_KERNEL)?;
        assert_eq!(set(&dir, NAME, &large, &write), Err(E2BIG));
        let mut name = [b'x'; NAME_MAX + 2];
        name[NAME_MAX + 1] = 0;
        let name = CStr::from_bytes_with_nul(&name).map_err(|_| EINVAL)?;
        for name in [c"", name] {
            assert_eq!(set(&dir, name, b"", &write), Err(ERANGE));
            assert_eq!(remove(&dir, name, &write), Err(ERANGE));
            assert_eq!(get(&dir, name, &mut [0; 4]), Err(ERANGE));
        }
        Ok(())
    }
}
