// SPDX-License-Identifier: GPL-2.0

//! Reading: where from, and from the file.

use crate::{
    backing::{
        check::{
            check_blocks,
            Checked,
            May, //
        },
        Backing, //
    },
    disk::presence::needed,
    inject,
    kernel_next::{
        compat::ENODATA,
        fs::kernel_file::FileRead,
        fscache::trace::TraceObject,
        netfs::{
            CacheRead,
            ReadSource,
            ReadSubrequest, //
        }, //
    },
    plan::source::ReadFrom,
    trace::files::{
        self,
        PrepareRead,
        Where, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Says where the network file system is to read from (`cachefiles_do_prepare_read()`), and cuts
/// the read where that changes.
pub(crate) fn prepare_read(backing: &Backing, mut subreq: ReadSubrequest<'_>) -> ReadSource {
    let (source, why) = choose(backing, &mut subreq);
    let inode = backing.file().map(|file| file.inode());
    files::prep_read(backing.trace(), &subreq, inode, source, why);
    source
}

fn choose(backing: &Backing, subreq: &mut ReadSubrequest<'_>) -> (ReadSource, PrepareRead) {
    if subreq.start() >= subreq.file_size() {
        return (ReadSource::Zeroes, PrepareRead::AfterEof);
    }
    if backing.is_retired() {
        return (ReadSource::Server, PrepareRead::NoFile);
    }
    if subreq.cookie().has_no_data() {
        subreq.copy_to_cache();
        return (ReadSource::Server, PrepareRead::NoData);
    }
    let (start, wanted) = (subreq.start(), subreq.len() as u64);
    let (source, len) = backing.source(start, wanted, subreq.file_size());
    let source = match subreq.is_single() {
        // Must not be cut: it is all or nothing.
        true if len < wanted && start + len < subreq.file_size() => ReadFrom::Server,
        true => source,
        false => {
            // CAST: No longer than it was.
            subreq.shorten(len as usize);
            source
        }
    };
    match source {
        ReadFrom::Cache => (ReadSource::Cache, PrepareRead::HaveData),
        ReadFrom::Server => {
            subreq.copy_to_cache();
            let why = match backing.file() {
                None => PrepareRead::NoFile,
                Some(_) if len < wanted => PrepareRead::FoundPart,
                Some(_) => PrepareRead::FoundHole,
            };
            (ReadSource::Server, why)
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
        let object = self.0.trace().debug_id();
        // Before netfs is told that the read has ended: until then fscache keeps the object.
        drop(self);
        match file {
            Ok(file) => {
                let obj = TraceObject::new(object);
                files::read(&obj, file.file().inode(), pos, read.len());
                read.read_direct(file, pos, move |file, error| {
                    let obj = TraceObject::new(object);
                    files::io_error(Some(&obj), file.inode(), error, Where::Read);
                });
            }
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
        match check_blocks(backing, file.file(), blocks.clone(), May::Sleep)? {
            Checked::Ready => {
                inject::read()
                    .inspect_err(|e| backing.trace_io_error(file.file(), *e, Where::Read))?;
                Ok(file)
            }
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
