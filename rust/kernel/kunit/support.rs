// SPDX-License-Identifier: GPL-2.0

//! What the tests of the abstractions share.
//!
//! KUnit runs each test on a kernel thread of its own. A test that fails ends that thread where it
//! is, without running destructors.

use crate::{
    bindings,
    kernel_next::fs::{
        namei::Creating,
        path::Path, //
    }, //
};
use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    }, //
};

/// Where the tests' files go: a directory on a file system that could hold a cache.
const SCRATCH: &CStr = c"/var/cache/fscache";

/// Gives the test's thread the first process's root directory: its own is empty.
pub(crate) fn attach_fs() -> Result {
    // SAFETY: The task is a kernel thread that runs a test.
    to_result(unsafe { bindings::kunit_attach_fs() })
}

/// A directory for a test's files.
pub(crate) fn scratch(name: &[u8]) -> Result<Path> {
    attach_fs()?;
    let root = Path::lookup_dir(SCRATCH)?;
    let write = root.mount.want_write()?;
    let entry = Creating::start(&root.dentry, name, &write)?;
    let dentry = match entry.child().is_negative() {
        true => entry.mkdir(0o700)?,
        false => entry.keep(),
    };
    drop(write);
    Ok(Path {
        dentry,
        mount: root.mount,
    })
}

/// A page of user memory, which goes with the test.
pub(crate) fn user_page() -> Result<usize> {
    // SAFETY: The task runs a test.
    let addr = unsafe { bindings::kunit_user_page() };
    // CAST: Error numbers are small negative numbers.
    to_result((addr as isize).clamp(-4095, 0) as c_int)?;
    Ok(addr)
}

/// Runs `f` as a task that was killed.
pub(crate) fn killed<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: The task is a kernel thread that runs a test.
    unsafe { bindings::kunit_kill_current() };
    let ret = f();
    // SAFETY: As above.
    unsafe { bindings::kunit_unkill_current() };
    ret
}

/// Waits until files whose last reference is gone are closed, which kernel threads leave to others.
pub(crate) fn close_files() {
    // SAFETY: No preconditions but that the caller may sleep.
    unsafe { bindings::flush_delayed_fput() };
}

/// Counts how often something happens.
#[derive(Clone)]
pub(crate) struct Count(Arc<Atomic<i32>>);

impl Count {
    pub(crate) fn new() -> Result<Self> {
        Ok(Count(Arc::new(Atomic::new(0), GFP_KERNEL)?))
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn get(&self) -> i32 {
        self.0.load(Relaxed)
    }

    /// A value whose drop is counted.
    pub(crate) fn on_drop(&self) -> OnDrop {
        OnDrop(self.clone())
    }
}

/// Counts that it was dropped.
pub(crate) struct OnDrop(Count);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.add();
    }
}

/// Kernel memory that an I/O vector goes to, or comes from.
pub(crate) struct Memory {
    // Its address is stable when this moves.
    bytes: KVec<u8>,
    kvec: KBox<bindings::kvec>,
}

impl Memory {
    /// So many bytes of the value `fill`, aligned to their number if that is a power of two.
    pub(crate) fn new(len: usize, fill: u8) -> Result<Self> {
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
    pub(crate) fn iter(&mut self, direction: u32) -> bindings::iov_iter {
        let mut iter = bindings::iov_iter::default();
        // SAFETY: The memory is as long as the vector says.
        unsafe { bindings::iov_iter_kvec(&mut iter, direction, &*self.kvec, 1, self.bytes.len()) };
        iter
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
