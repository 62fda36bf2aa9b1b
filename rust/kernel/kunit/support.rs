// SPDX-License-Identifier: GPL-2.0

//! What the tests of the abstractions share.
//!
//! KUnit runs each test on a kernel thread of its own. A test that fails or is skipped ends that
//! thread where it is, without running destructors.
//!
//! Tests that are built into the kernel run at boot, when there is no file system but the rootfs:
//! [`scratch`] is for all tests that need files, [`scratch_on_disk`] for those that need a disk.

use crate::{
    bindings,
    kernel_next::{
        compat::EOPNOTSUPP,
        fs::{
            dentry::Dentry,
            namei::Creating,
            path::{
                Mount,
                Path, //
            }, //
        }, //
    }, //
};
use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    }, //
};

/// A directory on a file system that could hold a cache, if there is one.
const DISK: &CStr = c"/var/cache/fscache";

/// The test that the current task runs.
fn current_test() -> *mut bindings::kunit {
    // SAFETY: No preconditions.
    let test = unsafe { bindings::kunit_get_current_test() };
    assert!(
        !test.is_null(),
        "this is for tests, on the thread of the test"
    );
    test
}

/// Ends the test, which KUnit then reports as skipped.
///
/// This does not return, and does not run destructors: it should be called before the test has
/// anything that they would have to release.
pub(in crate::kernel_next) fn skip(reason: &CStr) -> ! {
    let test = current_test();
    // SAFETY: The task runs `test`, and the reason, which is copied, is terminated.
    unsafe { bindings::kunit_mark_skipped(test, reason.as_char_ptr()) };
    // SAFETY: The task runs `test`, on a thread that KUnit made for it.
    unsafe { bindings::__kunit_abort(test) }
}

/// Gives the test's thread the first process's root directory: its own is empty.
pub(in crate::kernel_next) fn attach_fs() -> Result {
    // SAFETY: The task is a kernel thread that runs a test.
    to_result(unsafe { bindings::kunit_attach_fs() })
}

/// An empty directory for a test's files, on a tmpfs that goes with the test.
///
/// All directories of a test are on the same mount. The test is skipped if the kernel has no tmpfs.
pub(in crate::kernel_next) fn scratch(name: &[u8]) -> Result<Path> {
    attach_fs()?;
    // SAFETY: The task runs the test.
    let mnt = match from_err_ptr(unsafe { bindings::kunit_tmpfs(current_test()) }) {
        Err(EOPNOTSUPP) => skip(c"the kernel has no tmpfs"),
        mnt => mnt?,
    };
    // SAFETY: The mount is valid until the test ends, and has a root. The cast is to a transparent
    // wrapper.
    let (mount, root) = unsafe { (&*mnt.cast::<Mount>(), Dentry::from_raw((*mnt).mnt_root)) };
    subdir(
        Path {
            dentry: root.into(),
            mount: mount.into(),
        },
        name,
    )
}

/// A directory for a test's files, which stay, on a file system that could hold a cache.
///
/// The test is skipped if there is none, as when the kernel boots: this should be the first thing
/// that a test does.
pub(in crate::kernel_next) fn scratch_on_disk(name: &[u8]) -> Result<Path> {
    attach_fs()?;
    let root = match Path::lookup_dir(DISK) {
        Err(ENOENT) => skip(c"there is no /var/cache/fscache"),
        root => root?,
    };
    // SAFETY: The mount is valid, and so is its superblock; which device that has does not change.
    if unsafe { (*(*root.mount.as_ptr()).mnt_sb).s_bdev.is_null() } {
        drop(root);
        skip(c"there is no disk at /var/cache/fscache");
    }
    subdir(root, name)
}

/// The directory `name` in `dir`, which may exist already.
fn subdir(dir: Path, name: &[u8]) -> Result<Path> {
    let write = dir.mount.want_write()?;
    let entry = Creating::start(&dir.dentry, name, &write)?;
    let dentry = match entry.child().is_negative() {
        true => entry.mkdir(0o700)?,
        false => entry.keep(),
    };
    drop(write);
    Ok(Path {
        dentry,
        mount: dir.mount,
    })
}

/// Opens the device that is called `name`, as a process would that finds it in `/dev`.
///
/// The test is skipped if the kernel has no devtmpfs.
pub(in crate::kernel_next) fn open_device(name: &CStr) -> Result<ARef<File>> {
    // SAFETY: The name is terminated.
    let file = match from_err_ptr(unsafe { bindings::kunit_open_device(name.as_char_ptr()) }) {
        Err(EOPNOTSUPP) => skip(c"the kernel has no devtmpfs"),
        file => NonNull::new(file?).ok_or(ENOENT)?,
    };
    // SAFETY: The function returned a reference to a new file, whose position nobody uses.
    // `File` is a transparent wrapper.
    Ok(unsafe { ARef::from_raw(file.cast()) })
}

/// A page of user memory, which goes with the test.
pub(in crate::kernel_next) fn user_page() -> Result<usize> {
    // SAFETY: The task runs the test.
    let addr = unsafe { bindings::kunit_user_page(current_test()) };
    // CAST: Error numbers are small negative numbers.
    to_result((addr as isize).clamp(-4095, 0) as c_int)?;
    Ok(addr)
}

/// Runs `f` as a task that was killed.
pub(in crate::kernel_next) fn killed<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: The task is a kernel thread that runs a test.
    unsafe { bindings::kunit_kill_current() };
    let ret = f();
    // SAFETY: As above.
    unsafe { bindings::kunit_unkill_current() };
    ret
}

/// Waits until files whose last reference is gone are closed, which kernel threads leave to others.
pub(in crate::kernel_next) fn close_files() {
    // SAFETY: No preconditions but that the caller may sleep.
    unsafe { bindings::flush_delayed_fput() };
}

/// Counts how often something happens.
#[derive(Clone)]
pub(in crate::kernel_next) struct Count(Arc<Atomic<i32>>);

impl Count {
    pub(in crate::kernel_next) fn new() -> Result<Self> {
        Ok(Count(Arc::new(Atomic::new(0), GFP_KERNEL)?))
    }

    pub(in crate::kernel_next) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(in crate::kernel_next) fn get(&self) -> i32 {
        self.0.load(Relaxed)
    }

    /// A value whose drop is counted.
    pub(in crate::kernel_next) fn on_drop(&self) -> OnDrop {
        OnDrop(self.clone())
    }
}

/// Counts that it was dropped.
pub(in crate::kernel_next) struct OnDrop(Count);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// Kernel memory that an I/O vector goes to, or comes from.
pub(in crate::kernel_next) struct Memory {
    // Its address is stable when this moves.
    bytes: KVec<u8>,
    kvec: KBox<bindings::kvec>,
}

impl Memory {
    /// So many bytes of the value `fill`, aligned to their number if that is a power of two.
    pub(in crate::kernel_next) fn new(len: usize, fill: u8) -> Result<Self> {
        let mut bytes = KVec::from_elem(fill, len, GFP_KERNEL)?;
        let kvec = bindings::kvec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: len,
        };
        Ok(Memory {
            bytes,
            kvec: KBox::new(kvec, GFP_KERNEL)?,
        })
    }

    /// An I/O vector, which is valid for as long as `self` is.
    pub(in crate::kernel_next) fn iter(&mut self, direction: u32) -> bindings::iov_iter {
        let mut iter = bindings::iov_iter::default();
        // SAFETY: The memory is as long as the vector says.
        unsafe { bindings::iov_iter_kvec(&mut iter, direction, &*self.kvec, 1, self.bytes.len()) };
        iter
    }

    pub(in crate::kernel_next) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
