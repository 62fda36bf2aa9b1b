// SPDX-License-Identifier: GPL-2.0

//! Reading: where from, and from the file.

use crate::{
    backing::{
        check::{
            first_gap,
            Checked,
            May, //
        },
        Backing, //
    },
    disk::presence::needed,
    kernel_next::{
        compat::ENODATA,
        fs::kernel_file::FileRead,
        netfs::{
            CacheRead,
            ReadSource,
            ReadSubrequest, //
        }, //
    },
    plan::fill::Source, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Says where the network file system is to read from (`cachefiles_do_prepare_read()`), and cuts
/// the read where that changes.
pub(crate) fn prepare_read(backing: &Backing, mut subreq: ReadSubrequest<'_>) -> ReadSource {
    if subreq.start() >= subreq.file_size() {
        return ReadSource::Zeroes;
    }
    if backing.is_retired() {
        return ReadSource::Server;
    }
    if subreq.cookie().has_no_data() {
        subreq.copy_to_cache();
        return ReadSource::Server;
    }
    let (start, whole) = (subreq.start(), subreq.len() as u64);
    let (source, len) = backing.source(start, whole, subreq.file_size());
    let source = match subreq.is_single() {
        // Must not be cut: it is all or nothing.
        true if len < whole && start + len < subreq.file_size() => Source::Server,
        true => source,
        false => {
            // CAST: No longer than it was.
            subreq.shorten(len as usize);
            source
        }
    };
    match source {
        Source::Cache => ReadSource::Cache,
        Source::Server => {
            subreq.copy_to_cache();
            ReadSource::Server
        }
    }
}

/// What is needed to read from an object.
pub(crate) struct Reader(Arc<Backing>);

impl Reader {
    pub(crate) fn new(backing: Arc<Backing>) -> Self {
        Reader(backing)
    }

    /// Reads from the file, or fails with `ENODATA` if that does not hold all of it: then the
    /// network file system asks the server.
    pub(crate) fn read(self, pos: i64, read: CacheRead) {
        let file = self.check(pos, read.len() as u64);
        // Until the end is told, the object is there, and what it has: this drops nothing last.
        drop(self);
        match file {
            Ok(file) => read.read_direct(file, pos),
            Err(e) => read.fail(e),
        }
    }

    /// The file, if it holds `len` bytes at `pos`.
    fn check(&self, pos: i64, len: u64) -> Result<FileRead> {
        let backing = &self.0;
        if backing.is_retired() {
            return Err(ENODATA);
        }
        let off = u64::try_from(pos).map_err(|_| EINVAL)?;
        let file = backing.begin_read().ok_or(ENODATA)?;
        let blocks = needed(off, len, backing.size());
        match first_gap(backing, file.file(), blocks.clone(), May::Sleep)? {
            Checked::Ready => Ok(file),
            Checked::Gap(_) => Err(ENODATA),
            Checked::Elsewhere => {
                // Others have punched holes there, or truncated the file. They are to be stored
                // again.
                backing.discard(blocks)?;
                Err(ENODATA)
            }
        }
    }
}
