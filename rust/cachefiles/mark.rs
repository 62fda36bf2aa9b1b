// SPDX-License-Identifier: GPL-2.0

//! Marks: what is in use by the cache.
//!
//! A file or a directory is *in use* while its inode has the mark (`S_KERNEL_FILE`). A cookie is in
//! use while tasks use it, which has nothing to do with marks.

use crate::{
    kernel_next::{
        fs::path::{
            InUse,
            Path, //
        },
        fscache::trace::TraceObject, //
    },
    trace::files, //
};
use kernel::prelude::*;

/// The mark that a file or a directory is in use (`cachefiles_mark_inode_in_use()`). Dropping it
/// takes the mark away, for which the inode is locked.
pub(crate) struct Mark {
    mark: InUse,
    /// The number of the object's cookie, if it is the file of one.
    object: Option<u32>,
}

impl Mark {
    /// Marks what is at `path`: a file of the object `obj`, or something else.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is in use, `ENOENT` if there is nothing.
    pub(crate) fn set(path: Path, obj: Option<&TraceObject>) -> Result<Self> {
        let is_in_use = |e: &Error| *e == EBUSY;
        let mark = path.clone().mark_in_use().inspect_err(|e| {
            if let Some(inode) = path.dentry().inode().filter(|_| is_in_use(e)) {
                files::mark_failed(obj, inode);
            }
        })?;
        if let Some(inode) = path.dentry().inode() {
            files::mark_active(obj, inode);
        }
        Ok(Mark {
            mark,
            object: obj.map(TraceObject::debug_id),
        })
    }

    /// The path of what is marked.
    pub(crate) fn path(&self) -> &Path {
        self.mark.path()
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(inode) = self.path().dentry().inode() {
            let object = self.object.map(TraceObject::new);
            files::mark_inactive(object.as_ref(), inode);
        }
    }
}
