// SPDX-License-Identifier: GPL-2.0-or-later

//! Where blobs come from: their names, and the two kinds of sources.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use crate::api::{Added, ImageLayer};
use chunks::ChunkIndex;

pub mod chunks;
pub mod http;
pub mod registry;
pub mod table;
mod version;

/// The longest version that the kernel takes, in bytes.
pub const MAX_VERSION: usize = 128;

const NO_TABLE: &str = "names can be added and removed with --sources only";

/// A place that has blobs.
pub trait Source: Send + Sync {
    /// Finds a blob, its size and its version.
    fn open(&self, name: &BlobName) -> Result<Arc<dyn Blob>, SourceError>;

    /// What there is may have changed: reads its own description again, if it has one. If that is wrong,
    /// the old one stays.
    fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    /// Has a blob or an image under another name from now on.
    fn add(&self, _name: &str, _source: Added) -> Result<(), String> {
        Err(NO_TABLE.into())
    }

    /// The layers of an image, from the lowest one up; none if it is not the name of one.
    fn image(&self, _name: &str) -> Result<Vec<ImageLayer>, String> {
        Ok(Vec::new())
    }

    /// Has a name that was added no longer.
    fn remove(&self, _name: &str) -> Result<(), String> {
        Err(NO_TABLE.into())
    }
}

/// One blob of a source, as it was when it was opened.
pub trait Blob: Send + Sync {
    fn size(&self) -> u64;

    /// What tells the bytes of this blob from those of another version under the same name; `copen`
    /// takes it. From 1 to [`MAX_VERSION`] bytes, without NUL and newline. `None`: the source has
    /// nothing of the kind, and the user accepts that.
    fn version(&self) -> Option<&str>;

    /// Fills `buf` with the bytes at `off`, all of them and none but those of this version of the
    /// blob, or fails. ESTALE: the blob has another version now; it stays so until the next OPEN.
    fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError>;

    /// SHA-256 of all of its bytes, in hexadecimal digits, if that is known.
    fn whole(&self) -> Option<&str> {
        None
    }

    /// What it is checked with, if it is.
    fn index(&self) -> Option<&ChunkIndex> {
        None
    }

    /// The unit in which this blob is best fetched, in bytes, for one that is `granule` otherwise: that or a
    /// larger power of two.
    fn granule(&self, granule: u64) -> u64 {
        granule
    }

    /// Fills a sink, in the same way. What it was given before a failure is right.
    fn read_into(&self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        while !sink.rest().is_empty() {
            let off = sink.rest().start;
            let space = sink.space();
            let len = space.len();
            self.read_exact_at(space, off)?;
            sink.filled(len)?;
        }
        Ok(())
    }

    /// Who has to do something for each fetch, so that there should not be too many at once.
    fn server(&self) -> Arc<str> {
        Arc::from("")
    }
}

/// Takes a range of a blob, part by part.
pub trait Sink {
    /// The bytes that are yet to come. They begin before those that came last if these were not right.
    fn rest(&self) -> Range<u64>;

    /// Where the first of them go; empty if there are none.
    fn space(&mut self) -> &mut [u8];

    /// The first `len` bytes of the space have come.
    fn filled(&mut self, len: usize) -> Result<(), SourceError>;
}

/// A sink that is a piece of memory.
struct Slice<'a> {
    buf: &'a mut [u8],
    off: u64,
}

impl<'a> Slice<'a> {
    fn new(buf: &'a mut [u8], off: u64) -> Self {
        Self { buf, off }
    }
}

impl Sink for Slice<'_> {
    fn rest(&self) -> Range<u64> {
        self.off..self.off.saturating_add(self.buf.len() as u64)
    }

    fn space(&mut self) -> &mut [u8] {
        self.buf
    }

    fn filled(&mut self, len: usize) -> Result<(), SourceError> {
        self.buf = &mut std::mem::take(&mut self.buf)[len..];
        self.off += len as u64;
        Ok(())
    }
}

/// Why a blob cannot be opened or read.
#[derive(Clone, Debug)]
pub struct SourceError {
    /// What the reader of the file is told (for an OPEN).
    pub errno: i32,
    /// For the log.
    pub reason: String,
    /// Whether the user knows this already.
    pub said: bool,
    /// The status of the answer that says so, if a web server has given one.
    pub status: Option<u16>,
    /// What the source has given is not what it should have been. From a [`Sink`].
    pub wrong_bytes: bool,
}

impl SourceError {
    pub fn new(errno: i32, reason: impl Into<String>) -> Self {
        Self {
            errno,
            reason: reason.into(),
            said: false,
            status: None,
            wrong_bytes: false,
        }
    }

    fn io(what: &str, err: &io::Error) -> Self {
        Self::new(
            err.raw_os_error().unwrap_or(libc::EIO),
            format!("{what}: {}", crate::device::strip_code(err)),
        )
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// Whether a blob was found to have another version than at its OPEN. That stays so.
#[derive(Default)]
struct Changed(AtomicBool);

impl Changed {
    /// Fails if it has. To be called before anything is fetched.
    fn check(&self) -> Result<(), SourceError> {
        if self.0.load(Relaxed) {
            return Err(SourceError {
                said: true,
                ..SourceError::new(libc::ESTALE, "the blob has changed since it was opened")
            });
        }
        Ok(())
    }

    /// Takes note of what came of a fetch.
    fn note(&self, result: Result<(), SourceError>) -> Result<(), SourceError> {
        result.map_err(|mut err| {
            if err.errno == libc::ESTALE {
                err.said = self.0.swap(true, Relaxed);
            }
            err
        })
    }
}

/// The name of a blob: a plain file name, and the directory it is in if blobs are kept by domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobName {
    pub domain: Option<String>,
    pub name: String,
}

impl BlobName {
    /// From the keys of an OPEN. EROFS and ondemandfs send the volume key "erofs,<domain>" and the
    /// blob's name as the cookie key. Both come from whoever mounts: they must not lead anywhere else.
    pub fn from_keys(volume: &[u8], cookie: &[u8], by_domain: bool) -> Result<Self, SourceError> {
        let domain = if by_domain {
            let domain = volume.strip_prefix(b"erofs,").ok_or_else(|| {
                let volume = volume.escape_ascii();
                refuse(format!(
                    "the volume key \"{volume}\" is not \"erofs,DOMAIN\""
                ))
            })?;
            Some(plain("domain", domain)?)
        } else {
            None
        };
        Ok(Self {
            domain,
            name: plain("cookie key", cookie)?,
        })
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.domain.iter().chain([&self.name]).map(String::as_str)
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(domain) = &self.domain {
            write!(f, "{domain}/")?;
        }
        f.write_str(&self.name)
    }
}

fn refuse(reason: String) -> SourceError {
    SourceError::new(libc::ENOENT, reason)
}

fn plain(what: &str, key: &[u8]) -> Result<String, SourceError> {
    let text = std::str::from_utf8(key).map_err(|_| refuse(format!("the {what} is not UTF-8")))?;
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
        return Err(refuse(format!("the {what} is not a file name")));
    }
    Ok(text.to_string())
}

/// Blobs as files of a local directory.
pub struct DirSource {
    dir: PathBuf,
    verify: bool,
}

impl DirSource {
    /// With `verify`, each file is checked with the chunk index beside it.
    pub fn new(dir: PathBuf, verify: bool) -> Result<Self, String> {
        match dir.metadata() {
            Ok(meta) if meta.is_dir() => Ok(Self { dir, verify }),
            Ok(_) => Err(format!("{} is not a directory", dir.display())),
            Err(err) => Err(format!("cannot use {}: {err}", dir.display())),
        }
    }
}

struct FileBlob {
    file: File,
    size: u64,
    version: String,
    changed: Changed,
}

/// What changes with the bytes of a file. A file that is written to gets another mtime and ctime, one
/// that is put in its place another inode. The ctime cannot be set back.
fn file_version(meta: &Metadata) -> String {
    format!(
        "file {:x} {:x} {}.{:09} {}.{:09}",
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}

impl FileBlob {
    fn check(&self) -> Result<(), SourceError> {
        let meta = self
            .file
            .metadata()
            .map_err(|err| SourceError::io("looking at the blob", &err))?;
        if file_version(&meta) != self.version {
            return Err(SourceError::new(
                libc::ESTALE,
                "the file has changed since it was opened",
            ));
        }
        Ok(())
    }
}

impl Source for DirSource {
    fn open(&self, name: &BlobName) -> Result<Arc<dyn Blob>, SourceError> {
        let mut path = self.dir.clone();
        path.extend(name.parts());
        if self.verify {
            return table::open_indexed(&path, None);
        }
        open_file(&path)
    }
}

/// A file as a blob.
fn open_file(path: &Path) -> Result<Arc<dyn Blob>, SourceError> {
    let what = path.display().to_string();
    // O_NONBLOCK: opening a FIFO that lies there must not wait for its writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|err| SourceError::io(&what, &err))?;
    let meta = file
        .metadata()
        .map_err(|err| SourceError::io(&what, &err))?;
    if !meta.is_file() {
        return Err(SourceError::new(
            libc::ENOENT,
            format!("{what} is not a regular file"),
        ));
    }
    Ok(Arc::new(FileBlob {
        file,
        size: meta.len(),
        version: file_version(&meta),
        changed: Changed::default(),
    }))
}

impl Blob for FileBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn version(&self) -> Option<&str> {
        Some(&self.version)
    }

    fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
        self.changed.check()?;
        let result = self.file.read_exact_at(buf, off);
        // After the read: a change before it and one during it both show now. A file that is shorter
        // now has changed as well, and that is the better reason.
        self.changed.note(self.check())?;
        result.map_err(|err| SourceError::io("reading the blob", &err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(cookie: &[u8]) -> Result<BlobName, SourceError> {
        BlobName::from_keys(b"erofs,d", cookie, false)
    }

    #[test]
    fn keys_become_plain_names() {
        assert_eq!(name(b"a.img").unwrap().to_string(), "a.img");
        assert_eq!(name("bl\u{f6}b".as_bytes()).unwrap().name, "bl\u{f6}b");
        let by_domain = BlobName::from_keys(b"erofs,dom", b"b", true).unwrap();
        assert_eq!(by_domain.to_string(), "dom/b");
    }

    #[test]
    fn names_that_lead_elsewhere_do_not_exist() {
        for bad in [
            &b""[..],
            b".",
            b"..",
            b"../x",
            b"a/b",
            b"/etc/passwd",
            b"a\0b",
            b"\xff",
        ] {
            let err = name(bad).unwrap_err();
            assert_eq!(err.errno, libc::ENOENT, "{bad:?}");
        }
        for bad in [&b"erofs,"[..], b"erofs,..", b"erofs,a/b", b"nfs,d", b""] {
            let err = BlobName::from_keys(bad, b"b", true).unwrap_err();
            assert_eq!(err.errno, libc::ENOENT, "{bad:?}");
            assert!(BlobName::from_keys(bad, b"b", false).is_ok());
        }
    }

    #[test]
    fn directory_source() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dom")).unwrap();
        std::fs::write(dir.path().join("a"), b"hello").unwrap();
        std::fs::write(dir.path().join("dom/b"), b"").unwrap();
        let source = DirSource::new(dir.path().into(), false).unwrap();
        let blob = source.open(&name(b"a").unwrap()).unwrap();
        assert_eq!(blob.size(), 5);
        let mut buf = [0; 3];
        blob.read_exact_at(&mut buf, 2).unwrap();
        assert_eq!(&buf, b"llo");
        // Beyond the end there is nothing, not zeros.
        assert!(blob.read_exact_at(&mut buf, 3).is_err());
        // Rewritten in place with the same size, it is another version.
        let version = blob.version().unwrap().to_string();
        assert!((1..=MAX_VERSION).contains(&version.len()), "{version}");
        std::fs::write(dir.path().join("a"), b"HELLO").unwrap();
        let err = blob.read_exact_at(&mut buf, 0).unwrap_err();
        assert_eq!((err.errno, err.said), (libc::ESTALE, false));
        let err = blob.read_exact_at(&mut buf, 0).unwrap_err();
        assert_eq!((err.errno, err.said), (libc::ESTALE, true));
        let blob = source.open(&name(b"a").unwrap()).unwrap();
        assert_ne!(blob.version().unwrap(), version);
        blob.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"HEL");
        let open = |name: &BlobName| source.open(name).map(|blob| blob.size());
        assert_eq!(
            open(&name(b"none").unwrap()).unwrap_err().errno,
            libc::ENOENT
        );
        assert_eq!(
            open(&name(b"dom").unwrap()).unwrap_err().errno,
            libc::ENOENT
        );
        let by_domain = BlobName::from_keys(b"erofs,dom", b"b", true).unwrap();
        assert_eq!(open(&by_domain).unwrap(), 0);
        assert!(DirSource::new(dir.path().join("a"), false).is_err());
    }
}
