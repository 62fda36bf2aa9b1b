// SPDX-License-Identifier: GPL-2.0-or-later

//! What is in the cache directory: the files of blobs, how large they are and when they were last
//! used.
//!
//! The kernel keeps the blob with the keys `V` and `C` in `cache/IV/@XX/DC`, where XX is a hash.
//! Keys that cannot be file names as they are have other names there, which are not decoded: such
//! files can be culled as well as others, but what this daemon knows of a blob is not found out
//! about them.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{statvfs, utimensat, AtFlags, Timespec, Timestamps, CWD, UTIME_OMIT};

/// Where a blob is, without the hash: `IV/DC`.
pub type Place = String;

/// The place of a blob, if its keys can be file names as they are.
pub fn place(volume: &[u8], cookie: &[u8]) -> Option<Place> {
    let plain = |key: &[u8]| {
        let plain = key.iter().all(|b| matches!(b, b'!'..=b'~') && *b != b'/');
        (plain && key.len() < 255).then(|| String::from_utf8_lossy(key).into_owned())
    };
    Some(format!("I{}/D{}", plain(volume)?, plain(cookie)?))
}

/// Where the kernel keeps the blob of an OPEN, if it is there.
pub fn find(cache: &Path, volume: &[u8], cookie: &[u8]) -> Option<PathBuf> {
    let place = place(volume, cookie)?;
    let (volume, name) = place.split_once('/')?;
    let dir = cache.join("cache").join(volume);
    (0..256)
        .map(|hash| dir.join(format!("@{hash:02x}")).join(name))
        .find(|path| path.is_file())
}

/// A file of the cache.
#[derive(Debug)]
pub struct Cached {
    /// The directory it is in.
    pub dir: Arc<Path>,
    pub name: String,
    /// The directory of its volume.
    pub volume: Arc<str>,
    /// What it takes of the disk.
    pub bytes: u64,
    pub used: SystemTime,
}

impl Cached {
    pub fn place(&self) -> Place {
        format!("{}/{}", self.volume, self.name)
    }

    /// The cookie key, if it can be a file name as it is.
    pub fn key(&self) -> Option<&str> {
        self.name.strip_prefix('D')
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Notes with the file when it was used. The kernel's own note of it is as exact as the mount
    /// options of the file system say, and by default a day old.
    pub fn touch(&mut self, used: SystemTime) -> io::Result<()> {
        let since = used.duration_since(UNIX_EPOCH).unwrap_or_default();
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: since.as_secs() as i64,
                tv_nsec: since.subsec_nanos().into(),
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
        };
        self.used = used;
        utimensat(CWD, self.path(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }
}

/// What there is.
#[derive(Debug, Default)]
pub struct Content {
    pub files: Vec<Cached>,
    /// The directories of volumes, and how many files are in each.
    pub volumes: HashMap<Arc<str>, usize>,
    /// What all of it takes of the disk, the directories included.
    pub bytes: u64,
}

fn disk(meta: &Metadata) -> u64 {
    meta.blocks() * 512
}

fn accessed(meta: &Metadata) -> SystemTime {
    let nanos = u32::try_from(meta.atime_nsec()).unwrap_or(0);
    u64::try_from(meta.atime()).map_or(UNIX_EPOCH, |secs| UNIX_EPOCH + Duration::new(secs, nanos))
}

/// The entries of a directory that are named so, with what is known of each. Those that go away
/// meanwhile are left out; names that the kernel does not give as well.
fn entries(dir: &Path, prefixes: &[char]) -> io::Result<Vec<(String, Metadata)>> {
    let list = match fs::read_dir(dir) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        list => list?,
    };
    let mut found = Vec::new();
    for entry in list {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if !name.starts_with(prefixes) {
            continue;
        }
        match entry.metadata() {
            Ok(meta) => found.push((name, meta)),
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(err),
        }
    }
    Ok(found)
}

/// Looks at all of the cache.
pub fn scan(cache: &Path) -> io::Result<Content> {
    let root = cache.join("cache");
    let mut content = Content::default();
    for (volume, meta) in entries(&root, &['I', 'J'])? {
        if !meta.is_dir() {
            continue;
        }
        content.bytes += disk(&meta);
        let volume: Arc<str> = volume.into();
        let mut count = 0;
        let dir = root.join(&*volume);
        for (bucket, meta) in entries(&dir, &['@'])? {
            if !meta.is_dir() {
                continue;
            }
            content.bytes += disk(&meta);
            let dir: Arc<Path> = dir.join(bucket).into();
            for (name, meta) in entries(&dir, &['D', 'E', 'H', 'S', 'T'])? {
                if !meta.is_file() {
                    continue;
                }
                count += 1;
                content.bytes += disk(&meta);
                content.files.push(Cached {
                    dir: Arc::clone(&dir),
                    name,
                    volume: Arc::clone(&volume),
                    bytes: disk(&meta),
                    used: accessed(&meta),
                });
            }
        }
        content.volumes.insert(volume, count);
    }
    Ok(content)
}

/// Deletes what was culled and was a directory.
pub fn empty_graveyard(cache: &Path) -> io::Result<()> {
    let dir = match fs::read_dir(cache.join("graveyard")) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        dir => dir?,
    };
    for entry in dir {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// The bytes of it, and those that are free.
    pub bytes: u64,
    pub free: u64,
    /// How many files it can have, if that is fixed, and how many more.
    pub files: u64,
    pub free_files: u64,
}

impl Space {
    pub fn of(dir: &Path) -> io::Result<Self> {
        let found = statvfs(dir)?;
        Ok(Self {
            bytes: found.f_blocks * found.f_frsize,
            free: found.f_bavail * found.f_frsize,
            files: found.f_files,
            free_files: found.f_ffree,
        })
    }

    /// How many bytes and files have to go until more than this part is free of both.
    pub fn lacks(&self, bytes_percent: u8, files_percent: u8) -> (u64, u64) {
        let lack = |all: u64, free: u64, percent: u8| {
            let wanted = u128::from(all) * u128::from(percent) / 100;
            let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
            // The kernel counts in blocks.
            (all > 0 && free <= wanted).then_some(wanted - free.min(wanted))
        };
        let bytes = lack(self.bytes, self.free, bytes_percent);
        let files = lack(self.files, self.free_files, files_percent);
        (
            bytes.map_or(0, |lack| lack + 4096),
            files.map_or(0, |lack| lack + 1),
        )
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Makes a file as the kernel does.
    pub fn put(cache: &Path, volume: &str, bucket: &str, name: &str, len: usize) -> PathBuf {
        let dir = cache.join("cache").join(volume).join(bucket);
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(name);
        fs::write(&path, vec![1; len]).unwrap();
        path
    }

    #[test]
    fn files_are_found_by_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), "Ierofs,d", "@7f", "Dsha256:00", 1);
        let find = |volume: &[u8], cookie: &[u8]| find(dir.path(), volume, cookie);
        assert_eq!(find(b"erofs,d", b"sha256:00"), Some(path));
        for (volume, cookie) in [
            (&b"erofs,d"[..], &b"other"[..]),
            (b"erofs,e", b"sha256:00"),
            (b"erofs,d/@7f/../../Ierofs,d", b"sha256:00"),
            (b"erofs,d", b"../@7f/Dsha256:00"),
            (b"erofs,d", b"\xff"),
            (b"erofs,d", b"a b"),
        ] {
            assert_eq!(find(volume, cookie), None);
        }
    }

    #[test]
    fn a_scan_has_all_files_and_their_sizes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(scan(dir.path()).unwrap().files.len(), 0);
        put(dir.path(), "Ia", "@00", "Dx", 10_000);
        put(dir.path(), "Ia", "@01", "E1abc", 1);
        put(dir.path(), "Jb", "@01", "Dz", 5000);
        put(dir.path(), "Ia", "@01", "tmp", 5000);
        fs::create_dir_all(dir.path().join("cache/Iempty/@00")).unwrap();
        let content = scan(dir.path()).unwrap();
        let mut names: Vec<_> = content.files.iter().map(Cached::place).collect();
        names.sort();
        assert_eq!(names, ["Ia/Dx", "Ia/E1abc", "Jb/Dz"]);
        let sum: u64 = content.files.iter().map(|file| file.bytes).sum();
        assert!(sum >= 15_001 && content.bytes >= sum);
        assert_eq!(content.volumes["Iempty"], 0);
        assert_eq!(content.volumes["Ia"], 2);
    }

    #[test]
    fn the_time_of_use_is_kept_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "Ia", "@00", "Dx", 10_000);
        let when = UNIX_EPOCH + Duration::new(1_234_567, 89);
        let mtime = |content: &Content| content.files[0].path().metadata().unwrap().modified();
        let mut content = scan(dir.path()).unwrap();
        let before = mtime(&content).unwrap();
        content.files[0].touch(when).unwrap();
        let content = scan(dir.path()).unwrap();
        assert_eq!(content.files[0].used, when);
        assert_eq!(mtime(&content).unwrap(), before);
    }

    #[test]
    fn what_lacks_is_counted_as_the_kernel_does() {
        let space = |free, free_files| Space {
            bytes: 100 << 20,
            free,
            files: 1000,
            free_files,
        };
        assert_eq!(space(8 << 20, 71).lacks(7, 7), (0, 0));
        assert_eq!(space(7 << 20, 70).lacks(7, 7), (4096, 1));
        assert_eq!(space(0, 0).lacks(7, 7), ((7 << 20) + 4096, 71));
        // btrfs has no number of files.
        let btrfs = Space {
            files: 0,
            free_files: 0,
            ..space(8 << 20, 0)
        };
        assert_eq!(btrfs.lacks(7, 7), (0, 0));
    }

    #[test]
    fn the_graveyard_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        empty_graveyard(dir.path()).unwrap();
        let grave = dir.path().join("graveyard");
        fs::create_dir_all(grave.join("0000/@00")).unwrap();
        fs::write(grave.join("0000/@00/Dx"), b"x").unwrap();
        fs::write(grave.join("0001"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.path(), grave.join("0002")).unwrap();
        empty_graveyard(dir.path()).unwrap();
        assert_eq!(fs::read_dir(&grave).unwrap().count(), 0);
    }
}
