// SPDX-License-Identifier: GPL-2.0-or-later

//! The digest of a whole blob, once all of it is in the cache.
//!
//! Each chunk was checked on its way. This finds what that does not: an index that is not that of the blob,
//! and a disk that does not give back what was written. The kernel does not let a daemon read through the
//! descriptor of an OPEN, so the file is looked up in the cache directory, where a new one is only after its
//! first use; what is complete is therefore checked at its next OPEN. That it was is noted with the file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{fgetxattr, fsetxattr, seek, SeekFrom, XattrFlags};
use sha2::{Digest, Sha256};

use crate::stop::Stop;

/// The digest that the file was found to have.
const XATTR: &str = "user.ondemandd.sha256";

/// What is known of a cached blob.
#[derive(Debug, PartialEq, Eq)]
pub enum Finding {
    Right,
    /// It has another digest.
    Wrong,
    /// It is not complete, or was not looked at.
    Unknown,
}

/// What was found earlier.
pub fn known(path: &Path, digest: &str) -> Finding {
    let mut buf = [0; 64];
    let found = File::open(path).map(|file| fgetxattr(&file, XATTR, &mut buf[..]));
    match found {
        Ok(Ok(64)) if buf == *digest.as_bytes() => Finding::Right,
        Ok(Ok(64)) => Finding::Wrong,
        _ => Finding::Unknown,
    }
}

/// Looks at a file of `size` bytes, if it is complete. Ends early, knowing nothing, when the daemon stops.
pub fn check(path: &Path, size: u64, digest: &str, stop: &Stop) -> io::Result<Finding> {
    let mut file = File::open(path)?;
    if size > 0 && seek(&file, SeekFrom::Hole(0))? < size {
        return Ok(Finding::Unknown);
    }
    seek(&file, SeekFrom::Start(0))?;
    let mut left = size;
    let mut buf = vec![0; 1 << 20];
    let mut hash = Sha256::new();
    while left > 0 {
        if stop.is_set() {
            return Ok(Finding::Unknown);
        }
        let len = left.min(buf.len() as u64) as usize;
        file.read_exact(&mut buf[..len])?;
        hash.update(&buf[..len]);
        left -= len as u64;
    }
    let found = format!("{:x}", hash.finalize());
    // Without it, it is looked at again.
    let _ = fsetxattr(&file, XATTR, found.as_bytes(), XattrFlags::empty());
    Ok(if found == digest {
        Finding::Right
    } else {
        Finding::Wrong
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn only_what_is_complete_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7 + 1) as u8).collect();
        let digest = format!("{:x}", Sha256::digest(&data));
        let file = File::create(&path).unwrap();
        file.set_len(3_002_368).unwrap();
        let stop = Stop::new().unwrap();
        let check = |digest: &str| check(&path, data.len() as u64, digest, &stop).unwrap();
        let half = 1_503_232;
        file.write_all_at(&data[..half], 0).unwrap();
        assert_eq!(check(&digest), Finding::Unknown);
        assert_eq!(known(&path, &digest), Finding::Unknown);
        file.write_all_at(&data[half..], half as u64).unwrap();
        assert_eq!(check(&digest), Finding::Right);
        // Not all file systems of a build machine can note it.
        let noted = fsetxattr(&file, "user.test", b"x", XattrFlags::empty()).is_ok();
        assert_eq!(known(&path, &digest) == Finding::Right, noted);
        file.write_all_at(&[0], 1000).unwrap();
        assert_eq!(check(&digest), Finding::Wrong);
        assert_eq!(known(&path, &digest) == Finding::Wrong, noted);
        stop.set();
        assert_eq!(check(&digest), Finding::Unknown);
    }
}
