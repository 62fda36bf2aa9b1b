// SPDX-License-Identifier: GPL-2.0

//! Directories for the files of tests.
//!
//! Tests that are built into the kernel run at boot, when there is no file system but the rootfs:
//! [`dir`] is for all tests that need files, [`dir_on_disk`] for those that need a disk.

use super::support::{
    current_test,
    skip, //
};
use crate::{
    bindings,
    kernel_next::{
        compat::EOPNOTSUPP,
        fs::{
            namei::Creating,
            path::Path, //
        }, //
    }, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

/// A directory on a file system that could hold a cache, if there is one.
const DISK: &CStr = c"/var/cache/fscache";

/// Gives the test's thread the first process's root directory: its own is empty.
pub(in crate::kernel_next) fn attach_fs() -> Result {
    // SAFETY: The task is a kernel thread that runs a test.
    to_result(unsafe { bindings::kunit_attach_fs() })
}

/// An empty directory for a test's files, on a tmpfs that goes with the test.
///
/// All directories of a test are on the same mount. The test is skipped if the kernel has no tmpfs.
pub(in crate::kernel_next) fn dir(name: &[u8]) -> Result<Path> {
    attach_fs()?;
    // SAFETY: The task runs the test.
    let mnt = match from_err_ptr(unsafe { bindings::kunit_tmpfs(current_test()) }) {
        Err(EOPNOTSUPP) => skip(c"the kernel has no tmpfs"),
        mnt => mnt?,
    };
    let root = bindings::path {
        mnt,
        // SAFETY: The mount is valid until the test ends, and its root does not change.
        dentry: unsafe { (*mnt).mnt_root },
    };
    // SAFETY: The mount is valid until the test ends, and keeps its root.
    subdir(unsafe { Path::from_raw(&root) }, name)
}

/// A directory for a test's files, which stay, on a file system that could hold a cache.
///
/// The test is skipped if there is none, as when the kernel boots: this should be the first thing
/// that a test does.
pub(in crate::kernel_next) fn dir_on_disk(name: &[u8]) -> Result<Path> {
    attach_fs()?;
    let root = match Path::lookup_dir(DISK) {
        Err(ENOENT) => skip(c"there is no /var/cache/fscache"),
        root => root?,
    };
    // SAFETY: The mount is valid, and so is its superblock; which device that has does not change.
    if unsafe { (*(*root.mount().as_ptr()).mnt_sb).s_bdev.is_null() } {
        drop(root);
        skip(c"there is no disk at /var/cache/fscache");
    }
    subdir(&root, name)
}

/// The directory `name` in `dir`, which may exist already.
pub(in crate::kernel_next) fn subdir(dir: &Path, name: &[u8]) -> Result<Path> {
    let write = dir.mount().want_write()?;
    let entry = Creating::start(dir, name, &write)?;
    match entry.child().is_negative() {
        true => entry.mkdir(0o700),
        false => Ok(entry.keep()),
    }
}
