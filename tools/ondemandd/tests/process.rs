// SPDX-License-Identifier: GPL-2.0-or-later

//! The program itself: its messages and exit statuses, and a whole life of the daemon
//! as the successor that a supervisor starts, with a socket pair for the device.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::io::{fcntl_setfd, FdFlags};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use rustix::process::{kill_process, Pid, Signal};

/// A busy machine may take long for anything; what hangs is ended by `scripts/host-test`, which sees
/// that no test ends any more.
const WAIT: Duration = Duration::from_secs(24 * 3600);

fn ondemandd(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ondemandd"));
    command.args(args).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = ondemandd(args)
        .env_remove("NOTIFY_SOCKET")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits for the end of a child, which must come.
fn finish(mut child: Child) -> Output {
    let end = Instant::now() + WAIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("it does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn errors_are_one_clear_line() {
    let base = ["--cache-dir", "/c", "--dir-source", "/"];
    let with = |more: &[&'static str]| run(&[&base[..], more].concat());
    let missing = "ondemandd: cannot open /dev/no-such-device: No such file or directory \
                   (is the cachefiles module loaded? try: modprobe cachefiles)\n";
    assert_eq!(
        with(&["--device", "/dev/no-such-device"]),
        (Some(1), missing.into())
    );
    let supervised = with(&["--device", "/dev/no-such-device", "--supervise"]);
    assert_eq!(supervised, (Some(1), missing.into()));

    let (code, text) = with(&["--bstop", "50"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("bstop=50%") && text.lines().count() == 1,
        "{text}"
    );
    let (code, text) = with(&["--fd-store"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("NOTIFY_SOCKET is not set"), "{text}");
    // What is wrong with the source is said before anything is bound.
    for (source, want) in [
        (["--dir-source", "/no/such/dir"], "cannot use /no/such/dir"),
        (
            ["--sources", "/no/such/table"],
            "cannot read the table /no/such/table",
        ),
        (
            ["--http", "http://u:PW@h/?x"],
            "\"http://***@h/?...\" is not the URL",
        ),
        (
            ["--http", "@/no/such/file"],
            "cannot read the URL in /no/such/file",
        ),
        (
            ["--http", "env:NO_SUCH_VARIABLE"],
            "no such environment variable",
        ),
    ] {
        let (code, text) = run(&[&["--cache-dir", "/c"], &source[..]].concat());
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(want) && text.lines().count() == 1, "{text}");
    }
    let https = [
        "--cache-dir",
        "/c",
        "--http",
        "https://h/",
        "--ca-file",
        "/dev/null",
    ];
    let (code, text) = run(&https);
    assert_eq!(code, Some(2), "{text}");
    let want = if cfg!(feature = "tls") {
        "/dev/null has no certificate"
    } else {
        "built without the feature \"tls\""
    };
    assert!(text.contains(want), "{text}");
    // SSL_CERT_FILE means the same, but for https:// only.
    for (url, want) in [
        ("https://h/", want),
        ("http://h/", "cannot open /dev/no-such-device"),
    ] {
        let output = ondemandd(&["--cache-dir", "/c", "--device", "/dev/no-such-device"])
            .args(["--http", url])
            .env("SSL_CERT_FILE", "/dev/null")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(want) && text.lines().count() == 1, "{text}");
    }
    let (code, text) = run(&["--cache-dir", "/c"]);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("--dir-source") && text.contains("--http"),
        "{text}"
    );
}

#[test]
fn help_tells_what_there_is() {
    let output = ondemandd(&["--help"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for word in [
        "--cache-dir",
        "--supervise",
        "--fd-store",
        "--cache-size",
        "--accept-unversioned",
        "--retry-time",
        "http_proxy",
        "SSL_CERT_FILE",
        "SIGHUP",
    ] {
        assert!(text.contains(word), "{word}");
    }
}

/// The kernel's end of a stand-in device, and what the daemon has inherited.
struct Kernel {
    socket: OwnedFd,
    cache: File,
    more: File,
    spare: [File; 2],
    dir: tempfile::TempDir,
}

const SIZE: usize = 100_000;

impl Kernel {
    /// Starts a daemon on it, as a supervisor does.
    fn start() -> (Self, Child) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("blobs")).unwrap();
        std::fs::write(dir.path().join("blobs/blob"), blob()).unwrap();
        let blobs = dir.path().join("blobs").to_str().unwrap().to_string();
        Self::start_in(dir, &["--dir-source", &blobs, "--granule", "64K"])
    }

    fn start_with(args: &[&str]) -> (Self, Child) {
        Self::start_in(tempfile::tempdir().unwrap(), args)
    }

    fn start_in(dir: tempfile::TempDir, args: &[&str]) -> (Self, Child) {
        let (socket, device) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let cache = || {
            let cache = tempfile::tempfile().unwrap();
            cache.set_len(SIZE.next_multiple_of(4096) as u64).unwrap();
            // The anonymous descriptor of the OPEN has the number that the cache file has here.
            fcntl_setfd(&cache, FdFlags::empty()).unwrap();
            cache
        };
        let (cache, more, spare) = (cache(), cache(), [cache(), cache()]);
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
        fcntl_setfd(&device, FdFlags::empty()).unwrap();
        let child = ondemandd(&["--cache-dir", &path("cache")])
            .args(args)
            .args(["--log", &path("log"), "--stats-file", &path("stats")])
            .env("ONDEMANDD_DEVICE_FD", device.as_raw_fd().to_string())
            .spawn()
            .unwrap();
        let kernel = Self {
            socket,
            cache,
            more,
            spare,
            dir,
        };
        (kernel, child)
    }

    fn send(&self, words: &[u32], data: &[u8]) {
        let mut message: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        message.extend(data);
        let len = message.len() as u32;
        message[8..12].copy_from_slice(&len.to_ne_bytes());
        rustix::io::write(&self.socket, &message).unwrap();
    }

    fn command(&self) -> String {
        let mut buf = [0; 256];
        let mut len = 0;
        until("a command", || {
            rustix::io::read(&self.socket, &mut buf[..]).is_ok_and(|n| {
                len = n;
                true
            })
        });
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

fn blob() -> Vec<u8> {
    (0..SIZE).map(|i| (i / 199 % 255 + 1) as u8).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_successor_takes_over_serves_and_ends() {
    let (kernel, child) = Kernel::start();
    assert_eq!(kernel.command(), "restore");
    let fd = kernel.cache.as_raw_fd() as u32;
    kernel.send(&[5, 0, 0, 1, 8, 4, fd, 0], b"erofs,d\0blob");
    let answer = kernel.command();
    assert!(
        answer.starts_with(&format!("copen 5,{SIZE},file ")),
        "{answer}"
    );
    // A READ of the last 4 KiB: with a granule of 64 KiB this is 65536..100000, padded.
    let read: Vec<u8> = [98304u64, 4096]
        .iter()
        .flat_map(|w| w.to_ne_bytes())
        .collect();
    kernel.send(&[6, 2, 0, 1], &read);
    let stats =
        "{\"open\":1,\"read\":1,\"close\":0,\"fetched\":34464,\"written\":36864,\"errors\":1}\n";
    until("the statistics", || kernel.text("stats") == stats);
    let mut buf = vec![0xee; 102_400 - 65_536];
    kernel.cache.read_exact_at(&mut buf, 65_536).unwrap();
    assert!(
        buf[..SIZE - 65_536] == blob()[65_536..] && buf[SIZE - 65_536..].iter().all(|b| *b == 0)
    );

    signal(&child, Signal::USR1);
    until("the totals", || {
        kernel.text("log").contains("\"event\":\"totals\"")
    });
    kernel.send(&[7, 1, 0, 1], &[]);
    until("the CLOSE", || {
        kernel.text("log").contains("\"opcode\":\"CLOSE\"")
    });
    signal(&child, Signal::INT);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    // The stand-in for the cache file has no completion ioctl: that is the one error.
    assert!(text.contains("cannot complete READ 6: "), "{text}");
    let last = "ondemandd: OPEN 1 READ 1 CLOSE 1, fetched 33.7 KiB, written 36.0 KiB, errors 1";
    assert_eq!(text.lines().last(), Some(last));

    let log = kernel.text("log");
    for want in [
        "\"event\":\"restore\"",
        "\"opcode\":\"OPEN\",\"msg_id\":5,\"object_id\":1,\"key\":\"blob\",\"result\":100000,",
        "\"opcode\":\"READ\",\"msg_id\":6,\"object_id\":1,\"key\":\"blob\",\"off\":98304,\"len\":4096,\"result\":36864,",
        "\"opcode\":\"CLOSE\",\"msg_id\":7,\"object_id\":1,\"key\":\"blob\",\"result\":0,",
        "\"event\":\"stop\"",
    ] {
        assert!(log.contains(want), "{want} is not in\n{log}");
    }
    assert!(log
        .lines()
        .all(|line| line.starts_with("{\"ms\":") && line.ends_with('}')));
}

/// Makes the chunk index of a file; returns its digest.
fn make_index(path: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ondemandctl"))
        .args(["index", "--chunk", "4K", path])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.starts_with("sha256:"),
        "{text}"
    );
    text.trim_end().to_string()
}

fn control(socket: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ondemandctl"))
        .args(["--socket", socket])
        .args(args)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn an_operator_sees_and_changes_what_the_daemon_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    std::fs::write(path("data"), blob()).unwrap();
    let digest = make_index(&path("data"));
    let data = path("data");
    let table = format!("[blob.blob]\nfile = \"{data}\"\nindex = \"{digest}\"\n");
    std::fs::write(path("table"), table).unwrap();
    let (table, socket) = (path("table"), path("run/sock"));
    let file = dir.path().join("cache/cache/Ierofs,d/@07/Dblob");
    let (kernel, child) =
        Kernel::start_in(dir, &["--sources", &table, "--control-socket", &socket]);
    let ctl = |args: &[&str]| control(&socket, args);
    assert_eq!(kernel.command(), "restore");
    let fd = kernel.cache.as_raw_fd() as u32;
    kernel.send(&[5, 0, 0, 1, 8, 4, fd, 0], b"erofs,d\0blob");
    let version = format!("chunks {}", &digest[7..]);
    assert_eq!(kernel.command(), format!("copen 5,{SIZE},{version}"));

    let (code, text) = ctl(&["status", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let want = format!("\"name\":\"blob\",\"object_id\":1,\"size\":{SIZE},\"present\":0,");
    assert!(text.contains(&want), "{text}");
    assert!(text.contains("\"pending\":0,"), "{text}");
    assert_eq!(
        ctl(&["prefetch", "blob", "--wait"]),
        (Some(0), String::new())
    );
    let mut buf = vec![0; SIZE];
    kernel.cache.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == blob());
    let (code, text) = ctl(&["status", "blob"]);
    assert_eq!(code, Some(0), "{text}");
    let bar = "#".repeat(40);
    assert!(text.contains("(100 %)") && text.contains(&bar), "{text}");
    assert_eq!(ctl(&["status", "none"]).0, Some(1));
    assert_eq!(ctl(&["prefetch", "none"]).0, Some(1));

    // A name comes and goes.
    let open_new = |msg_id: u32, fd: &File| {
        let words = [msg_id, 0, 0, msg_id, 8, 3, fd.as_raw_fd() as u32, 0];
        kernel.send(&words, b"erofs,d\0new");
        kernel.command()
    };
    let add = ["add", "new", "--from", &data, "--unverified"];
    assert_eq!(ctl(&add), (Some(0), String::new()));
    assert!(open_new(6, &kernel.more).starts_with(&format!("copen 6,{SIZE},file ")));
    let (code, text) = ctl(&["add", "blob", "--from", &data]);
    assert!(code == Some(1) && text.contains("already"), "{text}");
    assert_eq!(ctl(&["remove", "new"]).0, Some(0));
    assert_eq!(open_new(7, &kernel.spare[0]), "copen 7,-2");

    // The file that is in the cache directory.
    assert_eq!(ctl(&["cull", "blob"]).0, Some(1));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, blob()).unwrap();
    let (code, text) = ctl(&["cull", "blob"]);
    assert!(
        code == Some(1) && text.contains("\"blob\" is in use"),
        "{text}"
    );
    let cached = File::options().write(true).open(&file).unwrap();
    let value = format!("...{version}");
    let (name, flags) = ("user.CacheFiles.cache", rustix::fs::XattrFlags::empty());
    if rustix::fs::fsetxattr(&cached, name, value.as_bytes(), flags).is_ok() {
        let (code, text) = ctl(&["verify"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("1 files, 97.7 KiB compared"), "{text}");
        cached.write_all_at(b"\0", 50_000).unwrap();
        let (code, text) = ctl(&["verify", "blob"]);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            text.contains("WRONG: Ierofs,d/Dblob: 49152 to 53247"),
            "{text}"
        );
    }
    kernel.send(&[8, 1, 0, 1], &[]);
    until("the CLOSE", || {
        kernel.text("log").contains("\"opcode\":\"CLOSE\"")
    });
    let (code, text) = ctl(&["cull", "blob"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(kernel.command(), "cull Dblob");
    let (code, text) = ctl(&["metrics"]);
    assert!(code == Some(0) && text.ends_with("# EOF\n"), "{text}");

    signal(&child, Signal::TERM);
    assert_eq!(finish(child).status.code(), Some(0));
    for wrong in [&["status"][..], &["status", "--warn", "x"], &["cull"]] {
        assert_eq!(ctl(wrong).0, Some(3));
    }
    assert_eq!(ctl(&["--help"]).0, Some(0));
}

#[test]
fn what_was_read_at_a_start_is_there_at_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (data, traces, socket) = (path("data"), path("traces"), path("sock"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(path("data/blob"), blob()).unwrap();
    let args = [
        "--dir-source",
        &data,
        "--granule",
        "4K",
        "--trace-dir",
        &traces,
        "--control-socket",
        &socket,
    ];
    let (kernel, child) = Kernel::start_in(dir, &args);
    let open = |id: u32, file: &File| {
        let words = [id, 0, 0, id, 8, 4, file.as_raw_fd() as u32, 0];
        kernel.send(&words, b"erofs,d\0blob");
        kernel.command()
    };
    let has = |file: &File, at: u64| {
        let mut buf = [0; 4096];
        file.read_exact_at(&mut buf, at).unwrap();
        buf == blob()[at as usize..][..4096]
    };
    assert_eq!(kernel.command(), "restore");
    open(1, &kernel.cache);
    for (msg_id, off) in [(10, 40_960u64), (11, 8192), (12, 45_056)] {
        let range: Vec<u8> = [off, 4096].iter().flat_map(|w| w.to_ne_bytes()).collect();
        kernel.send(&[msg_id, 2, 0, 1], &range);
        until("a READ", || has(&kernel.cache, off));
    }
    let recorded = control(&socket, &["trace", "blob"]);
    assert_eq!(recorded, (Some(0), "3 ranges, 12.0 KiB\n".into()));
    assert_eq!(control(&socket, &["trace", "blob"]).0, Some(1));
    let trace = std::fs::read_to_string(format!("{traces}/blob.trace")).unwrap();
    let want = "\"ranges\":[[40960,4096],[8192,4096],[45056,4096]]}";
    assert!(trace.ends_with(want), "{trace}");

    // Another machine, with an empty cache.
    open(2, &kernel.more);
    until("what was read", || {
        [40_960, 8192, 45_056]
            .iter()
            .all(|at| has(&kernel.more, *at))
    });
    assert!(!has(&kernel.more, 0) && !has(&kernel.more, 49_152));

    // Of another version it says nothing: that is recorded.
    std::fs::write(format!("{data}/blob"), blob()).unwrap();
    open(3, &kernel.spare[0]);
    let range: Vec<u8> = [0u64, 4096].iter().flat_map(|w| w.to_ne_bytes()).collect();
    kernel.send(&[13, 2, 0, 3], &range);
    until("a READ", || has(&kernel.spare[0], 0));
    kernel.send(&[14, 1, 0, 3], &[]);
    until("the new trace", || {
        let trace = std::fs::read_to_string(format!("{traces}/blob.trace"));
        trace.is_ok_and(|trace| trace.ends_with("\"ranges\":[[0,4096]]}"))
    });
    assert!(!has(&kernel.spare[0], 8192));
    signal(&child, Signal::TERM);
    assert_eq!(finish(child).status.code(), Some(0));
}

#[test]
fn the_names_of_a_table_are_served_if_they_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (good, bad, table) = (path("good"), path("bad"), path("table"));
    std::fs::write(&good, blob()).unwrap();
    std::fs::write(&bad, blob()).unwrap();
    let digest = make_index(&good);
    assert_eq!(make_index(&bad), digest);
    let mut bytes = blob();
    bytes[70_000] ^= 1;
    std::fs::write(&bad, bytes).unwrap();
    let text =
        format!("[blob.good]\nfile = '{good}'\n[blob.bad]\nfile = '{bad}'\nindex = '{digest}'\n");
    std::fs::write(&table, &text).unwrap();
    let metrics = path("metrics");
    let args = [
        "--sources",
        &table,
        "--granule",
        "4K",
        "--metrics-file",
        &metrics,
    ];
    let (kernel, child) = Kernel::start_in(dir, &args);
    let path = |name: &str| kernel.dir.path().join(name).to_str().unwrap().to_string();
    assert_eq!(kernel.command(), "restore");
    let open = |msg_id, id, name: &[u8]| {
        let fd = match id {
            1 => &kernel.cache,
            2 => &kernel.more,
            _ => &kernel.spare[id as usize - 3],
        };
        let len = name.len() as u32;
        let keys = [b"erofs,d\0", name].concat();
        kernel.send(&[msg_id, 0, 0, id, 8, len, fd.as_raw_fd() as u32, 0], &keys);
        kernel.command()
    };
    let version = format!(",chunks {}", &digest[7..]);
    assert_eq!(open(1, 1, b"good"), format!("copen 1,{SIZE}{version}"));
    assert_eq!(open(2, 2, b"bad"), format!("copen 2,{SIZE}{version}"));
    let read = |msg_id, id, off: u64| {
        let range: Vec<u8> = [off, 4096].iter().flat_map(|w| w.to_ne_bytes()).collect();
        kernel.send(&[msg_id, 2, 0, id], &range);
        let want = format!("\"opcode\":\"READ\",\"msg_id\":{msg_id},");
        until("a READ", || kernel.text("log").contains(&want));
        let log = kernel.text("log");
        let line = log.lines().find(|line| line.contains(&want)).unwrap();
        let result = line.split("\"result\":").nth(1).unwrap();
        result.split(',').next().unwrap().parse::<i64>().unwrap()
    };
    // 70 000 is in the block at 69 632. That it is wrong is no reason to fail the others.
    for (msg_id, id, off, want) in [
        (10, 1, 69_632, 4096),
        (11, 2, 65_536, 4096),
        (12, 2, 69_632, -i64::from(libc::EIO)),
        (13, 2, 73_728, 4096),
    ] {
        assert_eq!(read(msg_id, id, off), want, "{msg_id}");
    }
    let cached = |file: &File, off: u64| {
        let mut buf = [0xee; 4096];
        file.read_exact_at(&mut buf, off).unwrap();
        buf
    };
    assert!(cached(&kernel.cache, 69_632) == blob()[69_632..73_728]);
    assert!(cached(&kernel.more, 73_728) == blob()[73_728..77_824]);
    assert!(cached(&kernel.more, 69_632) == [0; 4096]);
    until("the metrics", || {
        kernel
            .text("metrics")
            .contains("ondemand_verify_failures_total{server=\"local\"} 1\n")
    });
    // A wrong table changes nothing; another one is in force once the log is written anew.
    let reload = |text: &str| {
        std::fs::write(&table, text).unwrap();
        std::fs::rename(path("log"), path("old")).unwrap();
        signal(&child, Signal::HUP);
        until("a new log", || Path::new(&path("log")).exists());
    };
    reload("[blub]");
    assert_eq!(open(3, 3, b"good"), format!("copen 3,{SIZE}{version}"));
    reload("");
    assert_eq!(open(4, 4, b"good"), format!("copen 4,-{}", libc::ENOENT));
    signal(&child, Signal::TERM);
    let output = finish(child);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    for want in [
        "wrong bytes: 69632 to 73727 do not have their digest",
        "nothing has changed: ",
        "unknown field `blub`",
    ] {
        assert!(text.contains(want), "{want}: {text}");
    }
}

#[test]
fn a_whole_blob_that_is_wrong_is_not_served_again() {
    use rustix::fs::{fgetxattr, fremovexattr, fsetxattr, XattrFlags};
    use sha2::Digest;
    const NAME: &str = "user.ondemandd.sha256";
    let dir = tempfile::tempdir().unwrap();
    let digest = format!("{:x}", sha2::Sha256::digest(blob()));
    let name = format!("sha256:{digest}");
    let (www, cached) = (
        dir.path().join("www"),
        dir.path().join("cache/cache/Ierofs,d/@a0"),
    );
    std::fs::create_dir(&www).unwrap();
    std::fs::write(www.join(&name), blob()).unwrap();
    let url = format!("http://{}", web_server::start(&www).unwrap());
    // What is in the cache is complete, and one byte of it is another one.
    std::fs::create_dir_all(&cached).unwrap();
    let cached = cached.join(format!("D{name}"));
    let mut bytes = blob();
    bytes.resize(SIZE.next_multiple_of(4096), 0);
    bytes[50_000] ^= 1;
    std::fs::write(&cached, &bytes).unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .open(&cached)
        .unwrap();
    if fsetxattr(&file, "user.test", b"x", XattrFlags::empty()).is_err() {
        eprintln!("left out: the file system for temporary files has no attributes");
        return;
    }
    let noted = || {
        let mut buf = [0; 64];
        let len = fgetxattr(&file, NAME, &mut buf[..]).unwrap_or(0);
        String::from_utf8(buf[..len].to_vec()).unwrap()
    };
    let metrics = dir.path().join("metrics");
    let args = ["--http", &url, "--metrics-file", metrics.to_str().unwrap()];
    let (kernel, child) = Kernel::start_in(dir, &args);
    assert_eq!(kernel.command(), "restore");
    let open = |msg_id, fd: &File| {
        let len = name.len() as u32;
        let keys = [b"erofs,d\0", name.as_bytes()].concat();
        kernel.send(
            &[msg_id, 0, 0, msg_id, 8, len, fd.as_raw_fd() as u32, 0],
            &keys,
        );
        kernel.command()
    };
    assert!(open(1, &kernel.cache).starts_with("copen 1,100000,"));
    until("the digest of what is cached", || noted().len() == 64);
    assert_ne!(noted(), digest);
    until("the metrics", || {
        let want = "ondemand_verify_failures_total{server=\"cache\"} 1\n";
        kernel.text("metrics").contains(want)
    });
    assert_eq!(open(2, &kernel.more), format!("copen 2,-{}", libc::EIO));
    // Another file is another matter.
    bytes[50_000] ^= 1;
    file.write_all_at(&bytes, 0).unwrap();
    fremovexattr(&file, NAME).unwrap();
    assert!(open(3, &kernel.spare[0]).starts_with("copen 3,100000,"));
    until("the digest of the other one", || noted() == digest);
    signal(&child, Signal::TERM);
    let text = String::from_utf8(finish(child).stderr).unwrap();
    assert!(
        text.contains("is complete and does not have the digest"),
        "{text}"
    );
    assert!(text.contains("; delete it"), "{text}");
}

/// A FIFO can stand in for the device where only opening, passing on and closing it matter. The daemon
/// reads its own commands there, and complains about them.
fn fifo(dir: &Path) -> String {
    let path = dir.join("device");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    path.to_str().unwrap().to_string()
}

/// The process ids of the daemons that have logged this event.
fn pids(log: &Path, event: &str) -> Vec<i32> {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.lines()
        .filter(|line| line.contains(&format!("\"event\":\"{event}\"")))
        .map(|line| {
            let pid = line.rsplit("\"pid\":").next().unwrap();
            pid.trim_end_matches('}').parse().unwrap()
        })
        .collect()
}

#[test]
fn the_supervisor_restarts_a_killed_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let cache = dir.path().join("cache");
    let args = [
        "--supervise",
        "--device",
        &fifo(dir.path()),
        "--dir-source",
        "/",
    ];
    let child = ondemandd(&args)
        .arg("--cache-dir")
        .arg(&cache)
        .arg("--log")
        .arg(&log)
        .spawn()
        .unwrap();
    until("the daemon", || pids(&log, "restore").len() == 1);
    let first = pids(&log, "restore")[0];
    assert_ne!(first, child.id() as i32);
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    until("its successor", || pids(&log, "restore").len() == 2);
    let second = pids(&log, "restore")[1];
    assert_ne!(first, second);
    signal(&child, Signal::TERM);
    let output = finish(child);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let restarted = format!("the daemon (pid {first}) was killed by signal 9; starting a new one");
    assert!(text.contains(&restarted), "{text}");
    // The successor has ended properly, too.
    assert_eq!(pids(&log, "stop"), [second]);
}

/// A supervised daemon on a FIFO.
fn supervised(dir: &Path, log: &Path, more: &[&str]) -> Child {
    let device = fifo(dir);
    ondemandd(&["--supervise", "--device", &device, "--dir-source", "/"])
        .arg("--cache-dir")
        .arg(dir.join("cache"))
        .arg("--log")
        .arg(log)
        .args(more)
        .spawn()
        .unwrap()
}

fn stop(child: Child) -> String {
    signal(&child, Signal::TERM);
    let output = finish(child);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    text
}

#[test]
fn a_hangup_opens_the_log_again_in_every_process() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let child = supervised(dir.path(), &log, &[]);
    until("the daemon", || pids(&log, "restore").len() == 1);
    let daemon = Pid::from_raw(pids(&log, "restore")[0]).unwrap();
    let pid = Pid::from_child(&child);
    for (number, to) in [pid, daemon].into_iter().enumerate() {
        std::fs::rename(&log, dir.path().join(format!("old{number}"))).unwrap();
        kill_process(to, Signal::HUP).unwrap();
        until("a new log", || log.exists());
        let mode = std::os::unix::fs::PermissionsExt::mode(&log.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    // Neither has ended.
    kill_process(daemon, Signal::USR1).unwrap();
    until("the totals", || {
        std::fs::read_to_string(&log).unwrap().contains("totals")
    });
    stop(child);
    assert_eq!(pids(&log, "stop").len(), 1);
}

#[test]
fn a_daemon_that_hangs_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let child = supervised(dir.path(), &log, &["--watchdog", "3"]);
    until("the daemon", || pids(&log, "restore").len() == 1);
    let first = pids(&log, "restore")[0];
    // Well beyond its start, so that its pulse was felt.
    std::thread::sleep(Duration::from_secs(3));
    kill_process(Pid::from_raw(first).unwrap(), Signal::STOP).unwrap();
    until("its successor", || pids(&log, "restore").len() == 2);
    let text = stop(child);
    assert!(
        text.contains(&format!("the daemon (pid {first}) hangs; killing it")),
        "{text}"
    );
}

#[test]
fn neither_log_nor_statistics_end_a_service() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let log = gone.join("log");
    // The statistics are on a file system that is full, as far as anybody can tell.
    let child = supervised(dir.path(), &log, &["--stats-file", "/proc/no/such/file"]);
    until("the daemon", || pids(&log, "restore").len() == 1);
    let first = pids(&log, "restore")[0];
    std::fs::remove_dir_all(&gone).unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    // The successor cannot log; it does when the directory is there again.
    std::thread::sleep(Duration::from_secs(1));
    std::fs::create_dir(&gone).unwrap();
    until("the log", || {
        signal(&child, Signal::HUP);
        signal(&child, Signal::USR1);
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("totals")
    });
    let text = stop(child);
    assert!(text.contains("was killed by signal 9"), "{text}");
    assert!(
        text.contains("cannot write /proc/no/such/file: No such file"),
        "{text}"
    );
    assert!(text.contains("cannot write to the log"), "{text}");
    assert_eq!(text.matches("has ended with status").count(), 0, "{text}");
}

#[test]
fn passwords_are_not_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let device = fifo(dir.path());
    let url = "http://user:PASSWORD@127.0.0.1:1/";
    let child = ondemandd(&["--supervise", "--device", &device, "--http", url])
        .arg("--cache-dir")
        .arg(dir.path().join("cache"))
        .arg("--log")
        .arg(&log)
        .spawn()
        .unwrap();
    until("the daemon", || pids(&log, "restore").len() == 1);
    let daemon = pids(&log, "restore")[0];
    for pid in [child.id() as i32, daemon] {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(line.contains("--http\0env:ONDEMANDD_HTTP\0"), "{line}");
        assert!(!line.contains("PASSWORD"), "{line}");
    }
    let text = stop(child);
    assert!(!text.contains("PASSWORD"), "{text}");
}

#[test]
fn a_daemon_does_not_outlive_its_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let cache = dir.path().join("cache");
    let args = [
        "--supervise",
        "--device",
        &fifo(dir.path()),
        "--dir-source",
        "/",
    ];
    let child = ondemandd(&args)
        .arg("--cache-dir")
        .arg(&cache)
        .arg("--log")
        .arg(&log)
        .spawn()
        .unwrap();
    until("the daemon", || pids(&log, "restore").len() == 1);
    signal(&child, Signal::KILL);
    until("its end", || pids(&log, "stop") == pids(&log, "restore"));
    finish(child);
}

#[test]
fn the_service_manager_keeps_the_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let device = fifo(dir.path());
    let manager = UnixDatagram::bind(path("notify")).unwrap();
    manager.set_read_timeout(Some(WAIT)).unwrap();
    let receive = || {
        let mut buf = [0; 256];
        let len = manager.recv(&mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    };
    let mut args: Vec<String> = ["--fd-store", "--dir-source", "/", "--device", &device]
        .map(String::from)
        .into();
    for (option, name) in [("--cache-dir", "cache"), ("--log", "log")] {
        args.extend([option.to_string(), path(name).to_str().unwrap().to_string()]);
    }
    let first = ondemandd(&[])
        .args(&args)
        .env("NOTIFY_SOCKET", path("notify"))
        .spawn()
        .unwrap();
    assert_eq!(receive(), "FDSTORE=1\nFDNAME=cachefiles\nFDPOLL=0\n");
    assert_eq!(receive(), "READY=1\n");
    signal(&first, Signal::TERM);
    assert_eq!(receive(), "STOPPING=1\n");
    assert_eq!(finish(first).status.code(), Some(0));
    assert_eq!(pids(&path("log"), "start").len(), 1);

    // The next one gets it as descriptor 3, and does not store it again.
    let second = Command::new("/bin/sh")
        .arg("-c")
        .arg("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=cachefiles exec \"$@\" 3<>\"$0\"")
        .args([&device, env!("CARGO_BIN_EXE_ondemandd")])
        .args(&args)
        .env("NOTIFY_SOCKET", path("notify"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(receive(), "READY=1\n");
    assert_eq!(pids(&path("log"), "restore"), [second.id() as i32]);
    // A reload is told, so that whoever has asked for it can wait for its end (Type=notify-reload).
    signal(&second, Signal::HUP);
    let reloading = receive();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(receive(), "READY=1\n");
    signal(&second, Signal::TERM);
    assert_eq!(finish(second).status.code(), Some(0));
}

/// A web server of "blob", which answers ranges, and "silent", of which there is only byte 0. Tells
/// of each connection that asks for a range of the latter, and when the client has left it.
fn half_silent() -> (String, std::sync::mpsc::Receiver<&'static str>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, events) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream.unwrap(), &sender));
        }
    });
    (url, events)
}

fn serve(mut stream: TcpStream, events: &std::sync::mpsc::Sender<&'static str>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while reader.read_line(&mut head).unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
        let head = head.to_lowercase();
        if head.is_empty() {
            return;
        }
        let opens = head.contains("range: bytes=0-0\r\n");
        if head.starts_with("get /silent") && !opens {
            events.send("asked").unwrap();
            let _ = reader.read(&mut [0]);
            events.send("left").unwrap();
            return;
        }
        let range = head.split("range: bytes=").nth(1).unwrap();
        let range = range.lines().next().unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let answer = format!(
            "HTTP/1.1 206 P\r\nContent-Range: bytes {range}/{SIZE}\r\nContent-Length: {}\r\nETag: \"v\"\r\n\r\n",
            last - first + 1
        );
        stream.write_all(answer.as_bytes()).unwrap();
        stream.write_all(&blob()[first..=last]).unwrap();
    }
}

#[test]
fn a_silent_server_is_left_at_once_and_delays_nobody() {
    let (url, events) = half_silent();
    // Nothing ends for lack of time.
    let slow = [
        "--timeout",
        "3000",
        "--max-time",
        "60000",
        "--granule",
        "4K",
    ];
    let (kernel, child) = Kernel::start_with(&[&["--http", &url][..], &slow].concat());
    assert_eq!(kernel.command(), "restore");
    let open = |msg_id, id, name: &[u8]| {
        // Each OPEN has a descriptor of its own.
        let fd = if id == 1 { &kernel.cache } else { &kernel.more };
        let len = name.len() as u32;
        let keys = [b"erofs,d\0", name].concat();
        kernel.send(&[msg_id, 0, 0, id, 8, len, fd.as_raw_fd() as u32, 0], &keys);
        let answer = kernel.command();
        assert!(
            answer.starts_with(&format!("copen {msg_id},{SIZE},")),
            "{answer}"
        );
    };
    let read = |msg_id, id, off: u64| {
        let range: Vec<u8> = [off, 4096].iter().flat_map(|w| w.to_ne_bytes()).collect();
        kernel.send(&[msg_id, 2, 0, id], &range);
    };
    open(1, 1, b"silent");
    for i in 0..20 {
        read(100 + i, 1, u64::from(i) * 4096);
    }
    assert_eq!(events.recv().unwrap(), "asked");
    open(2, 2, b"blob");
    for i in 0..20 {
        read(200 + i, 2, u64::from(i) * 4096);
    }
    until("the reads of the other blob", || {
        kernel
            .text("log")
            .matches("\"key\":\"blob\",\"off\"")
            .count()
            == 20
    });
    assert!(!kernel.text("log").contains("\"key\":\"silent\",\"off\""));
    // Nobody uses it any more: all of its connections are closed, and no other is made.
    kernel.send(&[3, 1, 0, 1], &[]);
    let mut open = 1;
    while open > 0 {
        open = match events.recv().unwrap() {
            "asked" => open + 1,
            _ => open - 1,
        };
    }
    // The end of the daemon does not wait for the server, either.
    signal(&child, Signal::TERM);
    let output = finish(child);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!text.contains("take too long"), "{text}");
}
