// SPDX-License-Identifier: GPL-2.0-or-later

//! What is in a cache directory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::iter;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{fgetxattr, lgetxattr, seek, SeekFrom};
use rustix::io::Errno;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::format::{self, Content, List, BLOCK};

const STATE: &str = "user.CacheFiles.cache";
const LIST: &str = "user.CacheFiles.present";

/// What an object's file is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    Complete,
    Partial,
    Unlisted,
    NoList,
    Dirty,
    Damaged,
    NoVolume,
}

impl Condition {
    pub fn name(self) -> &'static str {
        match self {
            Condition::Complete => "complete",
            Condition::Partial => "partial",
            Condition::Unlisted => "unlisted",
            Condition::NoList => "no-list",
            Condition::Dirty => "dirty",
            Condition::Damaged => "damaged",
            Condition::NoVolume => "no-volume",
        }
    }

    /// Whether the driver would use something of it.
    pub fn is_of_use(self) -> bool {
        matches!(
            self,
            Condition::Complete | Condition::Partial | Condition::Unlisted
        )
    }
}

#[derive(Debug, Serialize)]
pub struct Object {
    pub name: String,
    pub state: Condition,
    /// In bytes, as is what is present of it.
    pub size: u64,
    pub present: u64,
    pub disk: u64,
    /// The list file that it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    pub notes: Vec<String>,
    #[serde(skip)]
    path: PathBuf,
    /// The list file goes wrong behind so many bytes.
    #[serde(skip)]
    cut: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct Volume {
    pub name: String,
    pub is_stale: bool,
    pub objects: Vec<Object>,
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Debug, Serialize)]
pub struct Orphan {
    pub path: String,
    pub what: &'static str,
    pub disk: u64,
    #[serde(skip)]
    real: PathBuf,
}

#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub volumes: Vec<Volume>,
    pub orphans: Vec<Orphan>,
    /// What does not belong there.
    pub foreign: Vec<String>,
    /// What could not be read, or removed.
    pub errors: Vec<String>,
}

impl Found {
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.volumes.iter().flat_map(|volume| &volume.objects)
    }

    /// How many things are not as they should be.
    pub fn problems(&self) -> usize {
        let volumes = self.volumes.iter().filter(|volume| volume.is_stale).count();
        let objects = self
            .objects()
            .filter(|object| !object.state.is_of_use() || object.cut.is_some())
            .count();
        volumes + objects + self.orphans.len() + self.foreign.len() + self.errors.len()
    }
}

fn sha256(data: &[u8]) -> [u8; 32] {
    Sha256::digest(data).into()
}

/// An attribute of at most `max` bytes. `None` if there is none, or it is longer.
fn attribute(
    max: usize,
    get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; max];
    match get(&mut value) {
        Ok(len) => {
            value.truncate(len);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::RANGE) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

/// The blocks of a file of which the file system has all, in order.
fn data(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(found),
            Err(err) => return Err(err.into()),
        };
        at = seek(file, SeekFrom::Hole(start))?;
        let blocks = start.div_ceil(BLOCK)..at / BLOCK;
        if !blocks.is_empty() {
            found.push(blocks);
        }
        if at <= start {
            return Err(io::Error::other("the file system finds holes in data"));
        }
    }
}

/// How many bytes of an object of `size` bytes are both in `claimed`, in any order, and in `data`.
fn present(mut claimed: Vec<Range<u64>>, data: &[Range<u64>], size: u64) -> u64 {
    claimed.sort_by_key(|run| run.start);
    let (mut sum, mut at, mut data) = (0, 0, data.iter().peekable());
    for run in claimed {
        // Runs may overlap.
        at = run.start.max(at);
        while let Some(found) = data.peek() {
            let (start, end) = (found.start.max(at), found.end.min(run.end));
            if start < end {
                let bytes = |block: u64| block.saturating_mul(BLOCK).min(size);
                sum += bytes(end) - bytes(start);
                at = end;
            }
            if found.end > run.end {
                break;
            }
            data.next();
        }
    }
    sum
}

/// What the list file with `token` says, and how many bytes of it make sense.
fn read_list_file(dir: &Path, token: u64) -> io::Result<(Vec<Range<u64>>, u64, u64)> {
    let path = dir.join("lists").join(format::list_name(token));
    let mut bytes = Vec::new();
    open(&path)?.read_to_end(&mut bytes)?;
    let (mut blocks, mut at) = (Vec::new(), 0);
    while let Some((runs, len)) = format::record(&bytes[at..], token, at as u64, sha256) {
        blocks.extend(format::blocks(runs));
        at += len;
    }
    Ok((blocks, at as u64, bytes.len() as u64))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Looks at the file of an object.
fn look_at(dir: &Path, path: PathBuf, name: &OsStr, disk: u64) -> io::Result<Object> {
    let mut object = Object {
        name: name.to_string_lossy().into_owned(),
        state: Condition::Damaged,
        size: 0,
        present: 0,
        disk,
        list: None,
        notes: Vec::new(),
        path,
        cut: None,
    };
    let file = open(&object.path)?;
    let value = attribute(format::STATE_MAX, |buf| fgetxattr(&file, STATE, buf))?;
    let Some(state) = value.as_deref().and_then(format::state) else {
        return Ok(object);
    };
    object.size = state.size;
    let blocks = state.size.div_ceil(BLOCK);
    let all: Vec<_> = iter::once(0..blocks).collect();
    let claimed = match state.content {
        Content::Dirty => {
            object.state = Condition::Dirty;
            return Ok(object);
        }
        Content::All => {
            object.state = Condition::Complete;
            all
        }
        Content::Unlisted => {
            object.state = Condition::Unlisted;
            all
        }
        Content::Listed => match claimed(dir, &file, state.binding, &mut object)? {
            Some(claimed) => claimed,
            None => {
                object.state = Condition::NoList;
                return Ok(object);
            }
        },
    };
    let len = file.metadata()?.len();
    if len != blocks * BLOCK {
        object.notes.push(format!(
            "its file has {len} bytes instead of {}, which only classic mode uses",
            blocks * BLOCK
        ));
    }
    object.present = present(claimed, &data(&file)?, state.size);
    if object.state == Condition::Complete && object.present < state.size {
        object.state = Condition::Partial;
        object.notes.push("should be complete".into());
    }
    Ok(object)
}

/// What the list of an object says. `None` if that is of no use.
fn claimed(
    dir: &Path,
    file: &File,
    binding: &[u8],
    object: &mut Object,
) -> io::Result<Option<Vec<Range<u64>>>> {
    let Some(value) = attribute(format::LIST_MAX, |buf| fgetxattr(file, LIST, buf))? else {
        object.notes.push("there is no list".into());
        return Ok(None);
    };
    object.state = Condition::Partial;
    let token = match format::list(&value, binding, sha256) {
        Some(List::Runs(runs)) => return Ok(Some(format::blocks(runs))),
        Some(List::File(token)) => token,
        None => {
            let why = "the list is damaged, or of another state of the object";
            object.notes.push(why.into());
            return Ok(None);
        }
    };
    let name = format::list_name(token);
    let (blocks, good, len) = match read_list_file(dir, token) {
        Err(err) if err.kind() == ErrorKind::NotFound => {
            object.notes.push(format!("lists/{name} is missing"));
            return Ok(None);
        }
        found => found?,
    };
    if good < len {
        let why = format!("lists/{name} is damaged behind {good} of {len} bytes");
        object.notes.push(why);
        if good == 0 {
            return Ok(None);
        }
        object.cut = Some(good);
    }
    object.list = Some(name);
    Ok(Some(blocks))
}

/// An entry of a directory.
struct Entry {
    path: PathBuf,
    kind: FileType,
    disk: u64,
}

impl Entry {
    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    fn begins_with(&self, letters: &[u8]) -> bool {
        let first = self.name().as_encoded_bytes().first();
        first.is_some_and(|first| letters.contains(first))
    }
}

struct Search<'a> {
    dir: &'a Path,
    found: Found,
}

impl Search<'_> {
    /// How it is called in what is printed.
    fn shown(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.dir).unwrap_or(path);
        path.to_string_lossy().into_owned()
    }

    fn failed(&mut self, path: &Path, err: &io::Error) {
        let text = format!("{}: {err}", self.shown(path));
        self.found.errors.push(text);
    }

    /// What is in a directory, in the order of the names.
    fn entries(&mut self, dir: &Path) -> Vec<Entry> {
        let list = match fs::read_dir(dir) {
            Ok(list) => list,
            Err(err) if err.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(err) => {
                self.failed(dir, &err);
                return Vec::new();
            }
        };
        let mut entries = Vec::new();
        for entry in list {
            let looked = entry.and_then(|entry| {
                let meta = entry.metadata()?;
                Ok(Entry {
                    path: entry.path(),
                    kind: meta.file_type(),
                    disk: meta.blocks() * 512,
                })
            });
            match looked {
                Ok(entry) => entries.push(entry),
                Err(err) => self.failed(dir, &err),
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries
    }

    fn foreign(&mut self, entry: &Entry) {
        let path = self.shown(&entry.path);
        self.found.foreign.push(path);
    }

    fn orphan(&mut self, entry: Entry, what: &'static str) {
        self.found.orphans.push(Orphan {
            path: self.shown(&entry.path),
            what,
            disk: entry.disk,
            real: entry.path,
        });
    }

    fn volumes(&mut self) {
        for entry in self.entries(&self.dir.join("cache")) {
            if !entry.kind.is_dir() || !entry.begins_with(b"IJ") {
                self.foreign(&entry);
                continue;
            }
            let value = attribute(4 + 256, |buf| lgetxattr(&entry.path, STATE, buf));
            let is_stale = match value {
                Ok(value) => !value.is_some_and(|value| format::is_volume(&value)),
                Err(err) => {
                    self.failed(&entry.path, &err);
                    false
                }
            };
            let mut objects = Vec::new();
            for entry in self.entries(&entry.path) {
                if !entry.kind.is_dir() || !entry.begins_with(b"@") {
                    self.foreign(&entry);
                    continue;
                }
                self.objects(&entry.path, &mut objects);
            }
            if is_stale {
                for object in &mut objects {
                    object.state = Condition::NoVolume;
                    object.present = 0;
                    object.list = None;
                    object.cut = None;
                }
            }
            self.found.volumes.push(Volume {
                name: entry.name().to_string_lossy().into_owned(),
                is_stale,
                objects,
                path: entry.path,
            });
        }
    }

    fn objects(&mut self, dir: &Path, objects: &mut Vec<Object>) {
        for entry in self.entries(dir) {
            if !entry.kind.is_file() {
                self.foreign(&entry);
            } else if !entry.begins_with(b"DESTH") {
                self.orphan(entry, "is not named as an object");
            } else {
                match look_at(self.dir, entry.path.clone(), entry.name(), entry.disk) {
                    Ok(object) => objects.push(object),
                    Err(err) => self.failed(&entry.path, &err),
                }
            }
        }
    }

    fn others(&mut self) {
        let used: HashSet<_> = self
            .found
            .objects()
            .filter_map(|o| o.list.clone())
            .collect();
        for entry in self.entries(&self.dir.join("lists")) {
            let name = entry.name().to_str().map(str::to_owned);
            match name.filter(|name| format::token(name).is_some() && entry.kind.is_file()) {
                None => self.foreign(&entry),
                Some(name) if used.contains(&name) => {}
                Some(_) => self.orphan(entry, "no object uses this list"),
            }
        }
        for entry in self.entries(&self.dir.join("graveyard")) {
            self.orphan(entry, "was to be deleted");
        }
    }
}

/// Looks at all of a cache directory.
pub fn look(dir: &Path) -> Found {
    let mut search = Search {
        dir,
        found: Found::default(),
    };
    search.volumes();
    search.others();
    search.found
}

/// Removes what is of no use of what was found. Returns what that was, each with the error if it could
/// not be removed.
pub fn remove(dir: &Path, found: &Found) -> Vec<(String, Option<String>)> {
    let mut done = Vec::new();
    let mut note = |path: &Path, why: &str, result: io::Result<()>| {
        let path = path.strip_prefix(dir).unwrap_or(path).display().to_string();
        let err = result.err().map(|err| format!("{path}: {err}"));
        done.push((format!("{path}: {why}"), err));
    };
    let (mut stale, mut lists) = (Vec::new(), Vec::new());
    for volume in &found.volumes {
        if volume.is_stale {
            note(&volume.path, "no-volume", fs::remove_dir_all(&volume.path));
            continue;
        }
        stale.extend(volume.objects.iter().filter(|o| !o.state.is_of_use()));
        lists.extend(
            volume
                .objects
                .iter()
                .filter_map(|o| o.cut.zip(o.list.as_ref())),
        );
    }
    for object in stale {
        let removed = fs::remove_file(&object.path);
        note(&object.path, object.state.name(), removed);
    }
    for (len, name) in lists {
        let path = dir.join("lists").join(name);
        let cut = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .and_then(|file| file.set_len(len));
        note(&path, "its damaged end", cut);
    }
    for orphan in &found.orphans {
        let is_dir = orphan
            .real
            .symlink_metadata()
            .is_ok_and(|meta| meta.is_dir());
        let removed = match is_dir {
            true => fs::remove_dir_all(&orphan.real),
            false => fs::remove_file(&orphan.real),
        };
        note(&orphan.real, orphan.what, removed);
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_present_is_in_both() {
        let sum = |claimed: &[Range<u64>], data: &[Range<u64>], size| {
            present(claimed.to_vec(), data, size) as f64 / BLOCK as f64
        };
        assert_eq!(sum(&[0..4], &[0..4], 4 * BLOCK), 4.0);
        assert_eq!(sum(&[0..4], &[0..4], 3 * BLOCK + BLOCK / 2), 3.5);
        assert_eq!(sum(&[2..4, 0..1], &[0..10], 10 * BLOCK), 3.0);
        assert_eq!(sum(&[0..4, 2..6, 3..5], &[0..10], 10 * BLOCK), 6.0);
        assert_eq!(sum(&[0..10], &[1..2, 3..4, 9..12], 10 * BLOCK), 3.0);
        assert_eq!(sum(&[0..2, 5..8], &[1..6, 7..9], 10 * BLOCK), 3.0);
        assert_eq!(sum(&[], &[0..4], 4 * BLOCK), 0.0);
        assert_eq!(sum(&[0..u64::MAX], &[0..4], 2 * BLOCK), 2.0);
        assert_eq!(sum(&[u64::MAX - 1..u64::MAX], &[0..4], 4 * BLOCK), 0.0);
    }
}
