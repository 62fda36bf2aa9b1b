// SPDX-License-Identifier: GPL-2.0

//! Directories that are in use.

use crate::kernel_next::fs::{
    dentry::Dentry,
    inode::InUse, //
};
use core::ops::Deref;
use kernel::sync::aref::ARef;

/// A directory that nobody else may remove or use as a cache.
pub(crate) struct Directory {
    // The mark is taken away before the directory is let go.
    _mark: InUse,
    dentry: ARef<Dentry>,
}

impl Directory {
    /// The directory `dentry`, whose inode has `mark`.
    pub(crate) fn new(dentry: ARef<Dentry>, mark: InUse) -> Self {
        Directory {
            _mark: mark,
            dentry,
        }
    }
}

impl Deref for Directory {
    type Target = Dentry;

    fn deref(&self) -> &Dentry {
        &self.dentry
    }
}
