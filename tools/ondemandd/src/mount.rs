// SPDX-License-Identifier: GPL-2.0-or-later

//! `ondemandctl mount`: EROFS over files of ondemandfs, and overlayfs over several of these.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::{flock, fstatfs, FlockOperation};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, unmount, FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags,
};

use crate::api::{ImageLayer, Role};
use crate::device::strip_code;

/// Where ondemandfs is mounted for these commands.
pub const FILES: &str = "/run/ondemandd/files";

/// What statfs(2) says of ondemandfs.
const MAGIC_OF_FILES: rustix::fs::FsWord = 0x6f64_6673;

/// How something is mounted.
pub struct Mounting<'a> {
    /// Where ondemandfs is, or is to be.
    pub files: &'a Path,
    /// Its domain if it is not there yet.
    pub domain: &'a str,
}

/// An EROFS file system: a blob, and those that it has data in besides.
#[derive(Debug, PartialEq, Eq)]
struct Stack {
    blob: String,
    devices: Vec<String>,
}

/// What is mounted for an image.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// From the lowest one up.
    lower: Vec<Stack>,
    /// What these refer to.
    data: Vec<Stack>,
}

impl Plan {
    fn of(layers: &[ImageLayer]) -> Result<Self, String> {
        let mut plan = Self::default();
        let mut devices = Vec::new();
        for layer in layers {
            if layer.role == Role::Device {
                devices.push(layer.name.clone());
                continue;
            }
            let stack = Stack {
                blob: layer.name.clone(),
                devices: std::mem::take(&mut devices),
            };
            match layer.role {
                Role::OverlayData => plan.data.push(stack),
                _ => plan.lower.push(stack),
            }
        }
        if !devices.is_empty() || plan.lower.is_empty() {
            return Err("its last layer is no file system: the image is wrong".into());
        }
        Ok(plan)
    }
}

/// A file system that is being made, and what the kernel has to say of it.
struct Context {
    kind: &'static str,
    fd: OwnedFd,
}

impl Context {
    fn new(kind: &'static str, module: &str) -> Result<Self, String> {
        let fd = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|err| match err {
            Errno::NODEV => format!("the kernel does not know {kind}; try: modprobe {module}"),
            Errno::PERM => format!("only root may mount {kind}"),
            err => format!("cannot mount {kind}: {err}"),
        })?;
        Ok(Self { kind, fd })
    }

    fn fail(&self, what: &str, err: Errno) -> String {
        // Each message comes by itself, behind a letter for its kind.
        let mut said = Vec::new();
        let mut buf = [0; 1024];
        while let Ok(len) = rustix::io::read(&self.fd, &mut buf) {
            let line = String::from_utf8_lossy(&buf[..len]);
            said.push(line.get(2..).unwrap_or("").trim().to_string());
        }
        let hint = match (self.kind, err) {
            ("erofs", Errno::NOTBLK) => " (the kernel has no CONFIG_EROFS_FS_BACKED_BY_FILE)",
            ("erofs", Errno::INVAL) => " (is it an EROFS image? dmesg says what is wrong with it)",
            ("ondemandfs", Errno::NOTCONN) => " (no cache is bound: is ondemandd running?)",
            _ => "",
        };
        let said = match said.is_empty() {
            true => String::new(),
            false => format!(": {}", said.join("; ")),
        };
        let kind = self.kind;
        format!("cannot mount {kind}, {what}: {err}{said}{hint}")
    }

    fn set(&self, key: &str, value: &OsStr) -> Result<(), String> {
        fsconfig_set_string(&self.fd, key, value).map_err(|err| self.fail(key, err))
    }

    fn set_fd(&self, key: &str, value: &OwnedFd) -> Result<(), String> {
        fsconfig_set_fd(&self.fd, key, value).map_err(|err| self.fail(key, err))
    }

    /// Makes it, at no place yet.
    fn make(self, what: &str, attributes: MountAttrFlags) -> Result<OwnedFd, String> {
        fsconfig_create(&self.fd).map_err(|err| self.fail(what, err))?;
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|err| self.fail(what, err))
    }
}

fn attach(mount: &OwnedFd, dir: &Path) -> Result<(), String> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", rustix::fs::CWD, dir, flags).map_err(|err| {
        let shown = dir.display();
        match err {
            Errno::NOENT => format!("there is no directory {shown}; try: mkdir {shown}"),
            Errno::NOTDIR => format!("{shown} is no directory"),
            err => format!("cannot mount on {shown}: {err}"),
        }
    })
}

/// The type of what is mounted just there.
fn mounted(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    type_of(&fs::read("/proc/self/mountinfo").ok()?, &dir)
}

fn type_of(mountinfo: &[u8], dir: &Path) -> Option<String> {
    let mut found = None;
    for line in mountinfo.split(|byte| *byte == b'\n') {
        let mut words = line.split(|byte| *byte == b' ');
        let point = words.nth(4).map(unescape);
        let kind = words.skip_while(|word| *word != b"-").nth(1);
        if point.is_some_and(|point| point == dir) {
            found = kind.map(|kind| String::from_utf8_lossy(kind).into_owned());
        }
    }
    found
}

/// A path, in which the kernel has written some characters as a backslash and three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = word;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = &tail[3..];
            }
            None => {
                path.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(path).into()
}

/// What the beginning of an EROFS image says.
#[derive(Debug, PartialEq, Eq)]
struct Super {
    /// What each device is called, if it has a name.
    devices: Vec<Option<String>>,
}

const SUPER: u64 = 1024;
const MAGIC: u32 = 0xe0f5_e1e2;
/// So many of the incompatible features: there is a table of devices.
const DEVICE_TABLE: u32 = 8;
const SLOT: usize = 128;
const TAG: usize = 64;

impl Super {
    fn read(image: &File) -> io::Result<Option<Self>> {
        let mut head = [0; 128];
        match image.read_exact_at(&mut head, SUPER) {
            Err(err) if err.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let long = |at: usize| u32::from(short(at)) | (u32::from(short(at + 2)) << 16);
        if long(0) != MAGIC {
            return Ok(None);
        }
        let mut devices = Vec::new();
        if long(80) & DEVICE_TABLE != 0 {
            let (count, first) = (usize::from(short(86)), u64::from(short(88)));
            let mut table = vec![0; count * SLOT];
            image.read_exact_at(&mut table, first * SLOT as u64)?;
            for slot in table.chunks_exact(SLOT) {
                let tag = slot[..TAG].split(|byte| *byte == 0).next().unwrap_or(&[]);
                let name = std::str::from_utf8(tag).ok().filter(|tag| {
                    // It becomes a part of a path.
                    !tag.is_empty() && !tag.contains('/') && !matches!(*tag, "." | "..")
                });
                devices.push(name.map(str::to_string));
            }
        }
        Ok(Some(Self { devices }))
    }
}

impl Mounting<'_> {
    /// Mounts ondemandfs if it is not there. It cannot be unmounted while what is returned is open.
    fn have_files(&self) -> Result<File, String> {
        let shown = self.files.display();
        let fail = |err: io::Error| format!("cannot use {shown}: {}", strip_code(&err));
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(self.files)
            .map_err(fail)?;
        // Of several that find nothing there, one mounts it.
        let mut name = self.files.as_os_str().to_owned();
        name.push(".lock");
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&name)
            .map_err(fail)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|err| fail(err.into()))?;
        let dir = File::open(self.files).map_err(fail)?;
        let magic = fstatfs(&dir).map_err(|err| fail(err.into()))?.f_type;
        if magic == MAGIC_OF_FILES {
            return Ok(dir);
        }
        drop(dir);
        if let Some(kind) = mounted(self.files) {
            return Err(format!("{shown} is {kind}, and no ondemandfs"));
        }
        let context = Context::new("ondemandfs", "ondemandfs")?;
        context.set("domain", OsStr::new(self.domain))?;
        // What is in private images is for those who may read what is mounted.
        context.set("mode", OsStr::new("0400"))?;
        let flags = MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        attach(&context.make("its files", flags)?, self.files)?;
        File::open(self.files).map_err(fail)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.join(name)
    }

    /// Opens a blob, which asks the daemon for it.
    fn open(&self, name: &str) -> Result<File, String> {
        if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
            return Err(format!("\"{name}\" is not the name of a blob"));
        }
        File::open(self.path(name)).map_err(|err| {
            let hint = match err.raw_os_error() {
                Some(libc::ENOENT) => {
                    "the daemon has no such blob: add it with \"ondemandctl add\", or to its source"
                }
                Some(libc::ENOTCONN) => "no cache is bound: is ondemandd running?",
                Some(libc::EACCES) => "the daemon has refused it, and says why in its log",
                Some(libc::ETIMEDOUT) => "the daemon has not answered in time",
                _ => "the daemon may say why in its log",
            };
            format!("{name}: {} ({hint})", strip_code(&err))
        })
    }

    /// A blob by the name that it has in an image, which may be its digest without the kind of that.
    fn known(&self, name: String) -> String {
        let digest = format!("sha256:{name}");
        match name.len() == 64 && self.path(&digest).exists() {
            true => digest,
            false => name,
        }
    }

    fn erofs(&self, stack: &Stack) -> Result<OwnedFd, String> {
        let name = &stack.blob;
        let image = self.open(name)?;
        let found = Super::read(&image)
            .map_err(|err| format!("{name} cannot be read: {}", strip_code(&err)))?
            .ok_or_else(|| format!("{name} is no EROFS image"))?;
        let wanted = found.devices.len();
        let mut devices = stack.devices.clone();
        if devices.is_empty() {
            let named: Option<Vec<String>> = found.devices.into_iter().collect();
            let named = named.unwrap_or_default().into_iter();
            devices = named.map(|name| self.known(name)).collect();
        }
        if devices.len() != wanted {
            return Err(format!(
                "{name} has data in {wanted} other blobs, and {} are given: name them behind it, in their \
                 order",
                devices.len()
            ));
        }
        let context = Context::new("erofs", "erofs")?;
        context.set("source", self.path(name).as_os_str())?;
        for device in &devices {
            self.open(device)?;
            context.set("device", self.path(device).as_os_str())?;
        }
        fsconfig_set_flag(&context.fd, "ro").map_err(|err| context.fail("ro", err))?;
        context.make(name, MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn plan(&self, plan: &Plan) -> Result<OwnedFd, String> {
        if let ([stack], []) = (&plan.lower[..], &plan.data[..]) {
            return self.erofs(stack);
        }
        let context = Context::new("overlay", "overlay")?;
        context.set("source", OsStr::new("ondemand"))?;
        let lower = plan.lower.iter().rev().map(|stack| ("lowerdir+", stack));
        let data = plan.data.iter().map(|stack| ("datadir+", stack));
        // They have no place in the file system, and go with the overlay; until there is one, with their
        // descriptors.
        let mut kept = Vec::new();
        for (key, stack) in lower.chain(data) {
            let layer = self.erofs(stack)?;
            context.set_fd(key, &layer)?;
            kept.push(layer);
        }
        context.make("the layers", MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn at(&self, plan: &Plan, dir: &Path) -> Result<(), String> {
        // Before anything is fetched.
        if !dir.is_dir() {
            let shown = dir.display();
            return Err(format!("there is no directory {shown}; try: mkdir {shown}"));
        }
        let _kept = self.have_files()?;
        attach(&self.plan(plan)?, dir)
    }

    /// Mounts a blob, the others being its devices.
    pub fn blobs(&self, names: &[String], dir: &Path) -> Result<(), String> {
        let (blob, devices) = names.split_first().ok_or("there is nothing to mount")?;
        let stack = Stack {
            blob: blob.clone(),
            devices: devices.to_vec(),
        };
        let plan = Plan {
            lower: vec![stack],
            data: Vec::new(),
        };
        self.at(&plan, dir)
    }

    /// Mounts the layers of an image.
    pub fn image(&self, layers: &[ImageLayer], dir: &Path) -> Result<(), String> {
        self.at(&Plan::of(layers)?, dir)
    }

    /// Unmounts what was mounted so, and ondemandfs if that was the last one.
    pub fn unmount(&self, dir: &Path) -> Result<(), String> {
        let shown = dir.display();
        match mounted(dir).as_deref() {
            Some("erofs" | "overlay") => {}
            Some(kind) => return Err(format!("{shown} is {kind}: it was not mounted so")),
            None => return Err(format!("nothing is mounted on {shown}")),
        }
        unmount(dir, UnmountFlags::NOFOLLOW).map_err(|err| match err {
            Errno::BUSY => format!("{shown} is in use; \"fuser -vm {shown}\" says by whom"),
            err => format!("cannot unmount {shown}: {err}"),
        })?;
        if self.files == Path::new(FILES) && mounted(self.files).as_deref() == Some("ondemandfs") {
            // It is busy while others are mounted.
            let _ = unmount(self.files, UnmountFlags::NOFOLLOW);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(list: &[(&str, Role)]) -> Vec<ImageLayer> {
        list.iter()
            .map(|(name, role)| ImageLayer {
                name: name.to_string(),
                role: *role,
            })
            .collect()
    }

    #[test]
    fn layers_become_file_systems() {
        let stack = |blob: &str, devices: &[&str]| Stack {
            blob: blob.into(),
            devices: devices.iter().map(|name| name.to_string()).collect(),
        };
        let plan = Plan::of(&layers(&[
            ("a", Role::OverlayLower),
            ("d1", Role::Device),
            ("d2", Role::Device),
            ("b", Role::OverlayLower),
            ("x", Role::OverlayData),
            ("c", Role::None),
        ]))
        .unwrap();
        assert_eq!(
            plan.lower,
            [stack("a", &[]), stack("b", &["d1", "d2"]), stack("c", &[])]
        );
        assert_eq!(plan.data, [stack("x", &[])]);
        for wrong in [
            &[][..],
            &[("a", Role::None), ("d", Role::Device)],
            &[("x", Role::OverlayData)],
        ] {
            assert!(Plan::of(&layers(wrong)).is_err());
        }
    }

    #[test]
    fn what_is_mounted_where() {
        let text = b"22 1 0:5 / /proc rw - proc proc rw\n\
            23 1 0:6 / /a\\040b rw shared:1 - ext4 /dev/x rw\n\
            24 23 0:7 / /a\\040b ro - erofs /f ro\nnonsense\n";
        let kind = |dir: &str| type_of(text, Path::new(dir));
        assert_eq!(kind("/a b").as_deref(), Some("erofs"));
        assert_eq!(kind("/proc").as_deref(), Some("proc"));
        assert_eq!(kind("/a"), None);
        assert_eq!(unescape(b"\\\\1\\13"), Path::new("\\\\1\\13"));
    }

    #[test]
    fn devices_are_named_in_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Super::read(&File::open(&path).unwrap())
        };
        let mut image = vec![0; 4096];
        assert_eq!(read(&image).unwrap(), None);
        assert_eq!(read(b"short").unwrap(), None);
        image[1024..1028].copy_from_slice(&MAGIC.to_le_bytes());
        assert_eq!(read(&image).unwrap().unwrap().devices, []);
        image[1024 + 80] = 8;
        image[1024 + 86] = 3;
        image[1024 + 88] = 16;
        image[2048..2051].copy_from_slice(b"one");
        image[2048 + 256..2048 + 260].copy_from_slice(b"../x");
        let found = read(&image).unwrap().unwrap();
        assert_eq!(found.devices, [Some("one".into()), None, None]);
        // A table that is not there.
        image[1024 + 89] = 1;
        assert!(read(&image).is_err());
    }
}
