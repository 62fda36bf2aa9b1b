// SPDX-License-Identifier: GPL-2.0

//! Directories that are in use.

use crate::{
    kernel_next::fs::path::Path,
    mark::Mark, //
};
use core::ops::Deref;

/// A directory that nobody else may remove or use as a cache.
pub(crate) struct Directory(Mark);

impl Directory {
    /// The directory that has `mark`.
    pub(crate) fn new(mark: Mark) -> Self {
        Directory(mark)
    }
}

impl Deref for Directory {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.path()
    }
}
