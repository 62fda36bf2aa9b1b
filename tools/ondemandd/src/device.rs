// SPDX-License-Identifier: GPL-2.0-or-later

//! /dev/cachefiles: opening it, the commands written to it, the messages read from it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{poll, PollFd, PollFlags, Timespec};

/// The descriptor of /dev/cachefiles. The cache lives as long as it is open.
pub struct Device {
    file: File,
    /// Whether this kernel's `copen` takes a version, as far as is known.
    versions: Mutex<Versions>,
    /// Whether objects may be served without their version.
    unversioned: bool,
    /// Whether a predecessor may have answered OPENs before.
    successor: AtomicBool,
    /// Answers that were not taken and that the user has been told of.
    told: Mutex<HashSet<String>>,
    /// The kernel has said that the cache is dead.
    dead: AtomicBool,
    /// How often it was read, with or without success.
    reads: AtomicU64,
}

/// What is known of this kernel's `copen`: a kernel that does not know versions answers one with
/// EINVAL, as it does when the OPEN is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Versions {
    /// So many in a row were answered with EINVAL, and none was taken.
    Untried(u32),
    Taken,
    Missing,
}

/// After so many answers with EINVAL and none that was taken, it is not for want of an OPEN.
const ENOUGH: u32 = 3;

/// So many answers that were not taken are remembered.
const MAX_TOLD: usize = 1000;

/// Why an answer to an OPEN was not taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Untaken {
    /// Whether somebody is harmed by it.
    pub failure: bool,
    /// Whether the user has been told before.
    pub said: bool,
    pub reason: String,
}

/// What `bind` needs to know.
pub struct Binding {
    /// The cache directory.
    pub dir: String,
    /// The cache's name in fscache, if not the default.
    pub tag: Option<String>,
    /// When to cull and when to refuse writing.
    pub limits: Limits,
    /// After how many seconds the kernel is to fail a request that was not answered.
    pub request_timeout: Option<u32>,
}

impl Binding {
    /// The ways to bring the cache into service, the best one first. A kernel that does not know an
    /// option answers with EINVAL.
    fn commands(&self) -> [String; 2] {
        let timeout = match self.request_timeout {
            Some(seconds) => format!(" timeout={seconds}"),
            None => String::new(),
        };
        // Messages that are read together are a matter of speed; a time limit is not.
        [" batch", ""].map(|batch| format!("bind ondemand{batch}{timeout}"))
    }

    fn explain(&self, err: &io::Error) -> String {
        if err.raw_os_error() == Some(libc::EINVAL) && self.request_timeout.is_some() {
            return format!(
                "{} (this kernel's cachefiles may have no time limit for requests; \
                 try without --request-timeout; see the kernel log)",
                strip_code(err)
            );
        }
        explain_bind(err)
    }
}

impl Device {
    pub fn open(path: &Path) -> Result<Self, String> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map(Self::new)
            .map_err(|err| format!("cannot open {}: {}", path.display(), explain_open(&err)))
    }

    /// Uses a descriptor that was opened earlier and handed over.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self::new(fd.into())
    }

    fn new(file: File) -> Self {
        Self {
            file,
            versions: Mutex::new(Versions::Untried(0)),
            unversioned: false,
            successor: AtomicBool::new(false),
            told: Mutex::default(),
            dead: AtomicBool::new(false),
            reads: AtomicU64::new(0),
        }
    }

    /// Has a kernel that knows no versions served all the same.
    pub fn accept_unversioned(mut self, accept: bool) -> Self {
        self.unversioned = accept;
        self
    }

    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Configures the cache and brings it into service in on-demand mode.
    pub fn bind(&self, binding: &Binding) -> Result<(), String> {
        self.setup(&format!("dir {}", binding.dir))?;
        if let Some(tag) = &binding.tag {
            self.setup(&format!("tag {tag}"))?;
        }
        for (name, percent) in binding.limits.commands()? {
            self.setup(&format!("{name} {percent}%"))?;
        }
        let commands = binding.commands();
        let used = first_valid(&commands, |command| self.command(command))
            .map_err(|err| format!("cannot bind {}: {}", binding.dir, binding.explain(&err)))?;
        if used > 0 {
            // The C implementation, and whatever is older than "batch".
            *self.versions() = Versions::Missing;
            if !self.unversioned {
                return Err(self.no_versions());
            }
        }
        Ok(())
    }

    /// What the user should know about this kernel after [`Self::bind`].
    pub fn warning(&self) -> Option<String> {
        (*self.versions() == Versions::Missing).then(|| self.no_versions())
    }

    /// Tells a successor what the process that has bound the cache knows.
    pub fn lacks_versions(&self) {
        *self.versions() = Versions::Missing;
    }

    fn setup(&self, command: &str) -> Result<(), String> {
        self.command(command)
            .map_err(|err| format!("the kernel refuses the command \"{command}\": {err}"))
    }

    /// Asks for every request that has not been answered yet once more: a predecessor may have read
    /// it and died.
    pub fn restore(&self) -> Result<(), String> {
        self.successor.store(true, Relaxed);
        self.command("restore").map_err(|err| {
            if matches!(err.raw_os_error(), Some(libc::EIO | libc::EOPNOTSUPP)) {
                self.dead.store(true, Relaxed);
            }
            let hint = match err.raw_os_error() {
                Some(libc::EIO) => {
                    " (the cache is dead after an I/O error; stop the daemon and start it again)"
                }
                Some(libc::EOPNOTSUPP) => " (no cache was bound in on-demand mode)",
                _ => "",
            };
            format!("cannot take over the cache: {err}{hint}")
        })
    }

    /// Answers an OPEN: the size of the blob and its version if it has one, or a negative errno.
    pub fn copen(&self, msg_id: u32, result: i64, version: Option<&str>) -> Result<(), Untaken> {
        let version = version.filter(|_| result >= 0 && !self.does_without_versions());
        let command = match version {
            Some(version) => format!("copen {msg_id},{result},{version}"),
            None => format!("copen {msg_id},{result}"),
        };
        match self.command(&command) {
            Ok(()) => {
                if version.is_some() {
                    *self.versions() = Versions::Taken;
                }
                Ok(())
            }
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {
                let answer = version.map(|version| format!("{result},{version}"));
                Err(self.not_taken(answer))
            }
            Err(err) => Err(Untaken {
                failure: true,
                said: false,
                reason: format!("the kernel refuses the answer: {}", strip_code(&err)),
            }),
        }
    }

    fn does_without_versions(&self) -> bool {
        self.unversioned && *self.versions() == Versions::Missing
    }

    /// EINVAL for an answer: its OPEN is gone; or the object was opened before, with another size or
    /// version; or this kernel knows no versions. `answer` is size and version, if there was one.
    fn not_taken(&self, answer: Option<String>) -> Untaken {
        let mut versions = self.versions();
        if let (Some(_), Versions::Untried(count)) = (&answer, *versions) {
            *versions = Versions::Untried(count + 1);
            if count + 1 >= ENOUGH {
                *versions = Versions::Missing;
                return Untaken {
                    failure: true,
                    said: false,
                    reason: self.no_versions(),
                };
            }
        }
        drop(versions);
        match answer.filter(|_| self.successor.load(Relaxed)) {
            // With each READ the kernel asks again, and gets the same answer.
            Some(answer) => Untaken {
                failure: true,
                said: !self.tell(answer),
                reason:
                    "the blob has changed since it was opened first (its readers get EIO until \
                         they open it again), or nobody waits for the answer any more"
                        .into(),
            },
            None => Untaken {
                failure: false,
                said: false,
                reason: "nobody waits for the answer any more".into(),
            },
        }
    }

    /// Whether the user is to be told of an answer, for the first time.
    fn tell(&self, answer: String) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_TOLD {
            told.clear();
        }
        told.insert(answer)
    }

    fn no_versions(&self) -> String {
        let then = if self.unversioned {
            "blobs are served without one from now on (--accept-unversioned)"
        } else {
            "update the cachefiles module, or see --accept-unversioned in --help"
        };
        format!(
            "this kernel's cachefiles takes no version of a blob, which keeps the bytes of two versions \
             apart; {then}"
        )
    }

    /// Writes one command, in one write().
    pub fn command(&self, command: &str) -> io::Result<()> {
        let written = (&self.file).write(command.as_bytes())?;
        if written != command.len() {
            return Err(io::Error::new(ErrorKind::WriteZero, "partly written"));
        }
        Ok(())
    }

    /// Reads what there is: one message, or several if the cache was bound so and they fit. `None`:
    /// there is none now. (The kernel says so with 0 bytes.)
    pub fn receive<'a>(&self, buf: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        self.reads.fetch_add(1, Relaxed);
        loop {
            match (&self.file).read(buf) {
                Ok(0) => return Ok(None),
                Ok(len) => return Ok(Some(&buf[..len])),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(err) => {
                    if err.raw_os_error() == Some(libc::EIO) {
                        self.dead.store(true, Relaxed);
                    }
                    return Err(err);
                }
            }
        }
    }

    /// Whether the cache is of no use to any daemon any more.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed) || self.events().contains(PollFlags::ERR | PollFlags::HUP)
    }

    /// Whether the kernel wants the cache to be culled.
    pub fn wants_room(&self) -> bool {
        self.events().contains(PollFlags::OUT)
    }

    /// Whether there are messages, and how often somebody has looked for some.
    pub fn waiting(&self) -> (bool, u64) {
        let ready = self.events().contains(PollFlags::IN);
        (ready, self.reads.load(Relaxed))
    }

    fn events(&self) -> PollFlags {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.file, PollFlags::IN | PollFlags::OUT)];
        // An error is EINTR, or no memory: nothing is known.
        match poll(&mut fds, Some(&now)) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }
}

/// Writes one command after the other until one is not refused as invalid; returns which one was taken.
fn first_valid(commands: &[String], write: impl Fn(&str) -> io::Result<()>) -> io::Result<usize> {
    let mut result = Ok(0);
    for (index, command) in commands.iter().enumerate() {
        result = write(command).map(|()| index);
        match &result {
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {}
            _ => break,
        }
    }
    result
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn explain_open(err: &io::Error) -> String {
    let hint = match err.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "is the cachefiles module loaded? try: modprobe cachefiles"
        }
        Some(libc::EBUSY) => {
            "another daemon holds it, or descriptors of a cache that is gone are still open; \
             stop cachefilesd, nydusd or the other ondemandd first"
        }
        Some(libc::EPERM) => "CAP_SYS_ADMIN in the initial user namespace is needed; run as root",
        Some(libc::EACCES) => "run as root",
        _ => return err.to_string(),
    };
    format!("{} ({hint})", strip_code(err))
}

fn explain_bind(err: &io::Error) -> String {
    let hint = match err.raw_os_error() {
        Some(libc::EBUSY) => {
            "a cache with this tag exists already, or another cache uses this directory; \
             choose another --tag or --cache-dir"
        }
        Some(libc::EOPNOTSUPP) => {
            "its file system cannot hold a cache: it must have extended attributes, O_TMPFILE and \
             blocks no larger than a page; ext4, xfs and btrfs do, tmpfs and overlayfs do not"
        }
        Some(libc::EINVAL) => {
            "this kernel's cachefiles has no on-demand mode, or the directory is on an idmapped mount"
        }
        Some(libc::ERANGE) => "the limits must satisfy stop < cull < run < 100",
        Some(libc::EROFS) => "its file system is mounted read-only",
        Some(libc::ENOBUFS | libc::ENOSPC) => {
            "its file system is too full; free some space or lower --bstop and --fstop"
        }
        Some(libc::ENOENT | libc::ENOTDIR) => "it must be an existing directory",
        Some(libc::EPERM) => "its file system does not support what a cache needs",
        Some(libc::EIO) => "the cache is dead after an I/O error; see the kernel log",
        _ => return format!("{err} (see the kernel log)"),
    };
    format!("{} ({hint}; see the kernel log)", strip_code(err))
}

/// An error's text without the "(os error N)" that std adds.
pub fn strip_code(err: &io::Error) -> String {
    let text = err.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_string(),
        None => text,
    }
}

/// Percentages of free blocks (b) and free files (f): below `run` and `cull` the cache is culled,
/// below `stop` nothing is written to it. `None` leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub blocks: Triple,
    pub files: Triple,
}

/// `run`, `cull` and `stop` of one resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Triple {
    pub run: Option<u8>,
    pub cull: Option<u8>,
    pub stop: Option<u8>,
}

const DEFAULT_RUN: u8 = 7;
const DEFAULT_CULL: u8 = 5;
const DEFAULT_STOP: u8 = 1;

impl Limits {
    fn commands(&self) -> Result<Vec<(&'static str, u8)>, String> {
        let blocks = self.blocks.commands(["brun", "bcull", "bstop"])?;
        let files = self.files.commands(["frun", "fcull", "fstop"])?;
        Ok([blocks, files].concat())
    }

    /// Fails if the kernel would refuse them.
    pub fn check(&self) -> Result<(), String> {
        self.commands().map(|_| ())
    }
}

impl Triple {
    /// As the kernel has it.
    pub fn run(self) -> u8 {
        self.run.unwrap_or(DEFAULT_RUN)
    }

    /// As the kernel has it.
    pub fn stop(self) -> u8 {
        self.stop.unwrap_or(DEFAULT_STOP)
    }

    /// The commands in an order in which each is valid when it is written: the kernel checks
    /// stop < cull < run at every step against what is set so far.
    fn commands(&self, names: [&'static str; 3]) -> Result<Vec<(&'static str, u8)>, String> {
        let [mut run, mut cull, mut stop] = [DEFAULT_RUN, DEFAULT_CULL, DEFAULT_STOP];
        let want_run = self.run.unwrap_or(run);
        let want_cull = self.cull.unwrap_or(cull);
        let want_stop = self.stop.unwrap_or(stop);
        if !(want_stop < want_cull && want_cull < want_run && want_run < 100) {
            return Err(format!(
                "{}={want_stop}% {}={want_cull}% {}={want_run}%: must be {0} < {1} < {2} < 100",
                names[2], names[1], names[0]
            ));
        }
        let mut commands = Vec::new();
        // A valid goal can always be approached by one more valid step, so this ends.
        while (run, cull, stop) != (want_run, want_cull, want_stop) {
            if run != want_run && want_run > cull {
                run = want_run;
                commands.push((names[0], run));
            } else if cull != want_cull && want_cull > stop && want_cull < run {
                cull = want_cull;
                commands.push((names[1], cull));
            } else {
                stop = want_stop;
                commands.push((names[2], stop));
            }
        }
        Ok(commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn os(errno: i32) -> io::Error {
        io::Error::from_raw_os_error(errno)
    }

    #[test]
    fn open_errors_say_what_to_do() {
        let err = Device::open(Path::new("/nonexistent/cachefiles"))
            .err()
            .unwrap();
        assert_eq!(
            err,
            "cannot open /nonexistent/cachefiles: No such file or directory \
             (is the cachefiles module loaded? try: modprobe cachefiles)"
        );
        assert!(explain_open(&os(libc::EBUSY)).contains("another daemon holds it"));
        assert!(explain_open(&os(libc::EPERM)).contains("run as root"));
    }

    #[test]
    fn bind_errors_say_what_to_do() {
        for (errno, text) in [
            (libc::EBUSY, "--tag"),
            (libc::EOPNOTSUPP, "tmpfs"),
            (libc::EINVAL, "no on-demand mode"),
            (libc::EROFS, "read-only"),
            (libc::EMLINK, "see the kernel log"),
        ] {
            assert!(explain_bind(&os(errno)).contains(text), "{errno}");
        }
    }

    /// What is written to a kernel that answers each command with `answer`, and what comes of it.
    fn bind(request_timeout: Option<u32>, answer: fn(&str) -> i32) -> (Vec<String>, Option<i32>) {
        let binding = Binding {
            dir: "/c".into(),
            tag: None,
            limits: Limits::default(),
            request_timeout,
        };
        let written = std::cell::RefCell::new(Vec::new());
        let result = first_valid(&binding.commands(), |command| {
            written.borrow_mut().push(command.to_string());
            match answer(command) {
                0 => Ok(()),
                errno => Err(os(errno)),
            }
        });
        let errno = result.err().and_then(|err| err.raw_os_error());
        (written.into_inner(), errno)
    }

    #[test]
    fn batches_are_asked_for_and_done_without() {
        assert_eq!(
            bind(None, |_| 0),
            (vec!["bind ondemand batch".into()], None)
        );
        let old = |command: &str| match command {
            "bind ondemand" => 0,
            _ => libc::EINVAL,
        };
        let both = ["bind ondemand batch", "bind ondemand"];
        assert_eq!(bind(None, old), (both.map(String::from).to_vec(), None));
        // Any other error would come again.
        assert_eq!(
            bind(None, |_| libc::EROFS),
            (vec!["bind ondemand batch".into()], Some(libc::EROFS))
        );
    }

    #[test]
    fn a_time_limit_is_not_done_without() {
        assert_eq!(
            bind(Some(30), |_| 0),
            (vec!["bind ondemand batch timeout=30".into()], None)
        );
        let (commands, errno) = bind(Some(5), |_| libc::EINVAL);
        assert_eq!(
            commands,
            ["bind ondemand batch timeout=5", "bind ondemand timeout=5"]
        );
        assert_eq!(errno, Some(libc::EINVAL));
        let mut binding = Binding {
            dir: "/c".into(),
            tag: None,
            limits: Limits::default(),
            request_timeout: Some(5),
        };
        let invalid = os(libc::EINVAL);
        assert!(binding.explain(&invalid).contains("--request-timeout"));
        assert!(!binding
            .explain(&os(libc::EROFS))
            .contains("--request-timeout"));
        binding.request_timeout = None;
        assert!(!binding.explain(&invalid).contains("--request-timeout"));
    }

    /// A device whose other end is `(socket)`: what is written to it is read there.
    fn device() -> (Device, OwnedFd) {
        use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, device) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Device::from_fd(device), socket)
    }

    fn written(socket: &OwnedFd) -> String {
        let mut buf = [0; 256];
        let len = rustix::io::read(socket, &mut buf[..]).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }

    #[test]
    fn answers_have_the_version() {
        let (device, socket) = device();
        device.copen(1, 10, Some("e \"x\"")).unwrap();
        assert_eq!(written(&socket), "copen 1,10,e \"x\"");
        device.copen(2, -2, Some("e")).unwrap();
        assert_eq!(written(&socket), "copen 2,-2");
        device.copen(3, 0, None).unwrap();
        assert_eq!(written(&socket), "copen 3,0");
    }

    fn not_taken(device: &Device, answer: &str) -> (bool, bool, String) {
        let untaken = device.not_taken(Some(answer.to_string()));
        (untaken.failure, untaken.said, untaken.reason)
    }

    #[test]
    fn what_an_answer_that_is_not_taken_means() {
        // A kernel that has taken a version once knows them: then the OPEN is gone.
        let (device, _socket) = device();
        device.copen(1, 10, Some("v")).unwrap();
        for _ in 0..10 {
            let (failure, _, reason) = not_taken(&device, "10,w");
            assert!(!failure && reason.contains("nobody waits"));
        }
        // For a successor it may also be that the blob has changed; that is said once.
        device.restore().unwrap();
        let (failure, said, reason) = not_taken(&device, "10,w");
        assert!(failure && !said && reason.contains("has changed"));
        let (failure, said, _) = not_taken(&device, "10,w");
        assert!(failure && said);
        let (failure, said, _) = not_taken(&device, "10,x");
        assert!(failure && !said);
        assert!(!device.not_taken(None).failure);
    }

    #[test]
    fn a_kernel_without_versions_is_noticed() {
        for accept in [false, true] {
            let (device, socket) = device();
            let device = device.accept_unversioned(accept);
            for _ in 1..ENOUGH {
                assert!(not_taken(&device, "v").2.contains("nobody waits"));
            }
            let (failure, said, reason) = not_taken(&device, "v");
            assert!(failure && !said && reason.contains("takes no version"));
            // Said once. Without the user's consent every OPEN goes on failing.
            assert!(!not_taken(&device, "v").2.contains("takes no version"));
            device.copen(8, 10, Some("v")).unwrap();
            let want = ["copen 8,10,v", "copen 8,10"][usize::from(accept)];
            assert_eq!(written(&socket), want);
        }
    }

    #[test]
    fn waiting_messages_are_seen() {
        let (device, socket) = device();
        assert!(!device.is_dead());
        rustix::io::write(&socket, b"x").unwrap();
        assert_eq!(device.waiting(), (true, 0));
        assert!(device.receive(&mut [0; 8]).unwrap().is_some());
        assert_eq!(device.waiting(), (false, 1));
    }

    fn triple(run: Option<u8>, cull: Option<u8>, stop: Option<u8>) -> Triple {
        Triple { run, cull, stop }
    }

    #[test]
    fn limits_are_written_in_a_valid_order() {
        let names = ["brun", "bcull", "bstop"];
        assert!(triple(None, None, None).commands(names).unwrap().is_empty());
        assert_eq!(
            triple(Some(20), Some(15), Some(10))
                .commands(names)
                .unwrap(),
            [("brun", 20), ("bcull", 15), ("bstop", 10)]
        );
        assert_eq!(
            triple(Some(2), Some(1), Some(0)).commands(names).unwrap(),
            [("bstop", 0), ("bcull", 1), ("brun", 2)]
        );
        assert!(triple(Some(5), None, None).commands(names).is_err());
        assert!(triple(Some(100), None, None).commands(names).is_err());
    }

    proptest! {
        #[test]
        fn every_valid_goal_is_reached_by_valid_steps(run in 0u8..100, cull in 0u8..100, stop in 0u8..100) {
            let commands = triple(Some(run), Some(cull), Some(stop)).commands(["run", "cull", "stop"]);
            if !(stop < cull && cull < run) {
                prop_assert!(commands.is_err());
                return Ok(());
            }
            let (mut r, mut c, mut s) = (DEFAULT_RUN, DEFAULT_CULL, DEFAULT_STOP);
            for (name, value) in commands.unwrap() {
                // As cachefiles_daemon_brun() and its siblings check.
                match name {
                    "run" => { prop_assert!(value > c && value < 100); r = value }
                    "cull" => { prop_assert!(value > s && value < r); c = value }
                    _ => { prop_assert!(value < c); s = value }
                }
            }
            prop_assert_eq!((r, c, s), (run, cull, stop));
        }
    }
}
