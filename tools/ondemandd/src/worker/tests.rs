// SPDX-License-Identifier: GPL-2.0-or-later

//! The daemon against a stand-in for the kernel: a socket pair that keeps message boundaries for the
//! device, a sparse file for the cache file, a closure for the completion ioctl.

use std::fs::File;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::sync::Condvar;

use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};

use super::*;
use crate::api::Background;
use crate::chunkmap::merge;
use crate::cull;
use crate::guard::tests::LIMITS;
use crate::message::build;
use crate::object::tests::{cache_file, MemoryBlob};
use crate::source::Blob;

/// A busy machine may take long for anything; what hangs is ended by `scripts/host-test`, which sees
/// that no test ends any more.
const WAIT: Duration = Duration::from_secs(24 * 3600);

/// The granules of the tests.
const GRANULE: u64 = 16 << 10;

/// Whoever comes here waits until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, SeqCst);
        let open = self.open.lock().unwrap();
        let open = self.changed.wait_while(open, |open| !*open);
        drop(open.unwrap());
        self.waiting.fetch_sub(1, SeqCst);
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// A blob behind a gate.
struct Gated(Arc<MemoryBlob>, Arc<Gate>);

impl Blob for Gated {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn version(&self) -> Option<&str> {
        self.0.version()
    }

    fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
        self.1.pass();
        self.0.read_exact_at(buf, off)
    }
}

/// Has "blob", and "slow...", which are behind the gate; finding what is called "late..." takes as long.
struct TestSource {
    blob: Arc<MemoryBlob>,
    slow: Arc<MemoryBlob>,
    gate: Arc<Gate>,
}

impl Source for TestSource {
    fn open(&self, name: &BlobName) -> Result<Arc<dyn Blob>, SourceError> {
        let name = name.to_string();
        if name.starts_with("late") {
            self.gate.pass();
        }
        match name.as_str() {
            "forbidden" => Err(SourceError::new(libc::EACCES, "forbidden")),
            "none" => Err(SourceError::new(libc::ENOENT, "no such blob")),
            _ if name.starts_with("slow") => {
                let (blob, gate) = (self.slow.clone(), self.gate.clone());
                Ok(Arc::new(Gated(blob, gate)))
            }
            _ => Ok(self.blob.clone()),
        }
    }
}

/// The kernel's end, and the daemon that runs against it.
struct Kernel {
    socket: OwnedFd,
    daemon: Arc<Daemon>,
    completions: Receiver<u32>,
    blob: Arc<MemoryBlob>,
    slow: Arc<MemoryBlob>,
    gate: Arc<Gate>,
    report: Arc<Report>,
    stop: Arc<Stop>,
    room: Arc<TestRoom>,
}

/// A cache that has room, or has not.
#[derive(Default)]
struct TestRoom {
    lacks: AtomicBool,
}

impl cull::Kernel for TestRoom {
    fn cull(&self, _: &str) -> io::Result<()> {
        Err(io::Error::other("nothing is cached"))
    }

    fn wants_room(&self) -> bool {
        self.lacks.load(SeqCst)
    }
}

fn options(all: usize) -> Options {
    Options {
        room: Room {
            all,
            per_server: all,
        },
        granule: GRANULE,
        prefetch: 0,
        background: false,
        bandwidth: None,
        limit_reads: false,
        by_domain: false,
        limits: LIMITS,
        request_timeout: None,
        cull: device::Limits::default(),
        cache_size: None,
        trace_time: Duration::ZERO,
    }
}

fn kernel(options: Options) -> Kernel {
    let (socket, device) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    let gate = Arc::new(Gate::default());
    let (blob, slow) = (MemoryBlob::new(200_000), MemoryBlob::new(1000 * 4096));
    let source = TestSource {
        blob: blob.clone(),
        slow: slow.clone(),
        gate: gate.clone(),
    };
    let (report, stop) = (Report::silent(), Arc::new(Stop::new().unwrap()));
    let mut daemon = Daemon::new(
        Device::from_fd(device),
        Box::new(source),
        options,
        PathBuf::from("/no/such/cache"),
        None,
        report.clone(),
        stop.clone(),
    )
    .unwrap();
    let room = Arc::new(TestRoom::default());
    daemon.culler = Culler::new(
        PathBuf::from("/no/such/cache"),
        options.cull,
        options.cache_size,
        Arc::clone(&room) as _,
        report.clone(),
        stop.clone(),
    );
    let (sender, completions) = channel();
    let sender = Mutex::new(sender);
    let returns = gate.clone();
    daemon.complete = Box::new(move |_, msg_id| {
        sender.lock().unwrap().send(msg_id).unwrap();
        if msg_id == LINGERING {
            returns.pass();
        }
        // As the kernel answers for a request that does not exist any more.
        if msg_id == GONE {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    });
    let daemon = Arc::new(daemon);
    daemon.start().unwrap();
    Kernel {
        socket,
        daemon,
        completions,
        blob,
        slow,
        gate,
        report,
        stop,
        room,
    }
}

const GONE: u32 = 1 << 30;

/// The thread that completes this one does not go on until the gate is opened.
const LINGERING: u32 = (1 << 30) + 1;

impl Kernel {
    fn send(&self, message: &[u8]) {
        // The queue of a socket is short, unlike the kernel's.
        self.until(|| rustix::io::write(&self.socket, message) != Err(rustix::io::Errno::AGAIN));
    }

    /// The next command the daemon writes.
    fn command(&self) -> String {
        let end = Instant::now() + WAIT;
        let mut buf = [0; 4096];
        loop {
            match rustix::io::read(&self.socket, &mut buf[..]) {
                Ok(len) => return String::from_utf8(buf[..len].to_vec()).unwrap(),
                Err(err) => assert!(Instant::now() < end, "no command: {err}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends an OPEN and returns the cache file and the answer.
    fn open(&self, msg_id: u32, object_id: u32, key: &[u8]) -> (File, String) {
        (self.send_open(msg_id, object_id, key), self.command())
    }

    fn send_open(&self, msg_id: u32, object_id: u32, key: &[u8]) -> File {
        let file = cache_file(200_000);
        let fd = file.try_clone().unwrap().into_raw_fd();
        self.send(&build::open(msg_id, object_id, b"erofs,d", key, fd));
        file
    }

    fn object(&self, id: u32) -> std::sync::Weak<Object> {
        Arc::downgrade(&self.daemon.object(id).unwrap())
    }

    fn read_count(&self) -> u64 {
        self.report.stats.read.load(SeqCst)
    }

    /// So many READs complete; returns which.
    fn completed_all(&self, count: usize) -> Vec<u32> {
        let mut done: Vec<u32> = (0..count).map(|_| self.completed()).collect();
        done.sort_unstable();
        done
    }

    fn completed(&self) -> u32 {
        self.completions.recv_timeout(WAIT).expect("a completion")
    }

    fn errors(&self) -> u64 {
        self.report.stats.errors.load(SeqCst)
    }

    /// Waits for something that is not answered.
    fn until(&self, what: impl Fn() -> bool) {
        let end = Instant::now() + WAIT;
        while !what() {
            assert!(Instant::now() < end, "timed out");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        self.gate.open();
        self.stop.set();
        assert!(self.daemon.join(WAIT));
    }
}

#[test]
fn open_read_close() {
    let k = kernel(options(2));
    let (file, answer) = k.open(1, 10, b"blob");
    assert_eq!(answer, "copen 1,200000,v1");
    k.send(&build::read(2, 10, 20_480, 4096));
    assert_eq!(k.completed(), 2);
    let mut buf = vec![0; 16 << 10];
    file.read_exact_at(&mut buf, 16 << 10).unwrap();
    assert!(buf == k.blob.data[16 << 10..32 << 10]);
    assert_eq!(k.blob.taken(), [16 << 10..32 << 10]);

    let object = k.object(10);
    k.send(&build::close(3, 10));
    k.until(|| object.upgrade().is_none());
    let stats = &k.report.stats;
    for (counter, want) in [
        (&stats.open, 1),
        (&stats.read, 1),
        (&stats.close, 1),
        (&stats.fetched, 16 << 10),
        (&stats.written, 16 << 10),
        (&stats.errors, 0),
    ] {
        assert_eq!(counter.load(SeqCst), want);
    }
    k.stop();
}

#[test]
fn opens_are_refused_with_the_reason() {
    let k = kernel(options(1));
    let (_, answer) = k.open(1, 1, b"none");
    assert_eq!(answer, "copen 1,-2");
    let (_, answer) = k.open(2, 2, b"../blob");
    assert_eq!(answer, "copen 2,-2");
    let (_, answer) = k.open(3, 3, &[0xff; 255]);
    assert_eq!(answer, "copen 3,-2");
    assert_eq!(k.errors(), 0);
    let (_, answer) = k.open(4, 4, b"forbidden");
    assert_eq!(answer, "copen 4,-13");
    // A descriptor that is none, and an OPEN that is no OPEN.
    k.send(&build::open(5, 5, b"erofs,d", b"blob", 1 << 20));
    assert_eq!(k.command(), "copen 5,-9");
    let mut bad = build::open(6, 6, b"erofs,d", b"blob", 9);
    bad.pop();
    k.send(&bad);
    assert_eq!(k.command(), "copen 6,-22");
    assert_eq!(k.errors(), 3);
    assert!(k.daemon.objects().is_empty());
    k.stop();
}

#[test]
fn refused_descriptors_are_closed() {
    let k = kernel(options(1));
    let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    k.send(&build::open(
        1,
        1,
        b"erofs,d",
        b"none",
        writer.into_raw_fd(),
    ));
    assert_eq!(k.command(), "copen 1,-2");
    // End of file: no writer is left.
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]).unwrap(), 0);
    k.stop();
}

#[test]
fn a_failed_fetch_completes_without_writing() {
    let k = kernel(options(2));
    let (file, _) = k.open(1, 1, b"blob");
    k.blob.broken.store(true, SeqCst);
    k.send(&build::read(2, 1, 0, 4096));
    assert_eq!(k.completed(), 2);
    assert_eq!(k.report.stats.written.load(SeqCst), 0);
    assert_eq!(k.errors(), 1);
    assert!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).is_err());
    // The next one works.
    k.blob.broken.store(false, SeqCst);
    k.send(&build::read(3, 1, 0, 4096));
    assert_eq!(k.completed(), 3);
    let mut buf = [0; 4096];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf[..] == k.blob.data[..4096]);
    k.stop();
}

#[test]
fn unknown_objects_are_left_alone() {
    let k = kernel(options(1));
    k.send(&build::read(1, 77, 0, 4096));
    k.send(&build::close(2, 77));
    let (_, answer) = k.open(3, 1, b"blob");
    assert_eq!(answer, "copen 3,200000,v1");
    let timeout = k.completions.recv_timeout(Duration::from_millis(50));
    assert_eq!(timeout, Err(RecvTimeoutError::Timeout));
    assert_eq!(k.errors(), 0);
    k.stop();
}

#[test]
fn messages_that_come_again_do_no_harm() {
    let k = kernel(options(3));
    let (file, _) = k.open(1, 1, b"blob");
    // The same READ twice, the second one gone by the time it is completed; then a new OPEN of the
    // same blob, as after `restore`.
    k.send(&build::read(GONE, 1, 0, 4096));
    k.send(&build::read(GONE, 1, 0, 4096));
    assert_eq!((k.completed(), k.completed()), (GONE, GONE));
    let (_, answer) = k.open(2, 2, b"blob");
    assert_eq!(answer, "copen 2,200000,v1");
    assert_eq!(k.blob.taken(), [0..16 << 10]);
    assert_eq!(k.errors(), 0);
    let mut buf = [0; 4096];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf[..] == k.blob.data[..4096]);
    k.stop();
}

#[test]
fn a_slow_blob_delays_no_other() {
    for (all, share) in [(2, 1), (3, 2), (8, 3), (64, 17)] {
        let k = kernel(Options {
            granule: 4096,
            ..options(all)
        });
        k.open(1, 1, b"slow");
        k.open(2, 2, b"blob");
        for i in 0..1000 {
            k.send(&build::read(1000 + i, 1, u64::from(i) * 4096, 4096));
        }
        k.until(|| k.gate.waiting.load(SeqCst) == share);
        // Nothing moves there. Everything goes on elsewhere.
        for i in 0..20 {
            k.send(&build::read(100 + i, 2, u64::from(i) * 4096, 4096));
            assert_eq!(k.completed(), 100 + i);
            let (_, answer) = k.open(10 + i, 10 + i, b"blob");
            assert_eq!(answer, format!("copen {},200000,v1", 10 + i));
        }
        k.send(&build::close(200, 2));
        k.until(|| k.daemon.object(2).is_none());
        assert!(k.slow.taken().is_empty());
        assert_eq!(k.gate.waiting.load(SeqCst), share);
        k.gate.open();
        assert!(k.completed_all(1000).into_iter().eq(1000..2000));
        assert_eq!(k.errors(), 0);
        k.stop();
    }
}

#[test]
fn slow_blobs_delay_no_other() {
    let k = kernel(options(8));
    for i in 0..4 {
        let (_, answer) = k.open(i, i + 1, format!("slow{i}").as_bytes());
        assert!(answer.starts_with("copen"), "{answer}");
        for n in 0..10 {
            let off = u64::from(n) * GRANULE;
            k.send(&build::read(1000 + 10 * i + n, i + 1, off, 4096));
        }
        k.until(|| k.gate.waiting.load(SeqCst) > i as usize);
    }
    k.open(10, 10, b"blob");
    for i in 0..12 {
        k.send(&build::read(100 + i, 10, u64::from(i) * GRANULE, 4096));
        assert_eq!(k.completed(), 100 + i);
    }
    k.gate.open();
    assert!(k.completed_all(40).into_iter().eq(1000..1040));
    k.stop();
}

#[test]
fn slow_opens_delay_nothing() {
    let k = kernel(options(8));
    k.open(1, 1, b"blob");
    // Many for the same name, some for others.
    let mut files: Vec<File> = (0..300)
        .map(|i| k.send_open(100 + i, 100 + i, b"late"))
        .collect();
    for i in 0..2 {
        files.push(k.send_open(400 + i, 400 + i, format!("late{i}").as_bytes()));
    }
    k.until(|| k.gate.waiting.load(SeqCst) == 5);
    for i in 0..12 {
        let (_, answer) = k.open(10 + i, 10 + i, b"blob");
        assert_eq!(answer, format!("copen {},200000,v1", 10 + i));
        k.send(&build::read(600 + i, 1, u64::from(i) * GRANULE, 4096));
        assert_eq!(k.completed(), 600 + i);
    }
    // Those that are closed before their answer get none, and their descriptors are closed.
    for i in 0..300 {
        k.send(&build::close(700, 100 + i));
    }
    k.until(|| k.report.stats.close.load(SeqCst) == 300);
    k.gate.open();
    let mut answers = [k.command(), k.command()];
    answers.sort();
    assert_eq!(answers, ["copen 400,200000,v1", "copen 401,200000,v1"]);
    assert_eq!(k.daemon.objects().len(), 15);
    k.stop();
}

#[test]
fn a_close_ends_what_nobody_wants() {
    let k = kernel(Options {
        granule: 4096,
        ..options(4)
    });
    k.open(1, 1, b"slow");
    k.open(2, 2, b"blob");
    for i in 0..1000 {
        k.send(&build::read(1000 + i, 1, u64::from(i % 500) * 4096, 4096));
    }
    k.until(|| k.read_count() == 1000 && k.gate.waiting.load(SeqCst) == 2);
    let object = k.object(1);
    k.send(&build::close(3, 1));
    k.until(|| k.daemon.object(1).is_none());
    // What waits for the source lets go of it when that answers; nothing else is begun.
    k.gate.open();
    k.until(|| object.upgrade().is_none());
    assert_eq!(k.slow.taken().len(), 2);
    k.send(&build::read(5, 2, 0, 4096));
    assert_eq!(k.completed(), 5);
    assert_eq!(k.errors(), 0);
    k.stop();
}

#[test]
fn what_the_kernel_has_given_up_is_not_fetched() {
    let k = kernel(Options {
        request_timeout: Some(Duration::ZERO),
        ..options(1)
    });
    k.open(1, 1, b"slow");
    k.send(&build::read(1, 1, 0, 4096));
    k.until(|| k.gate.waiting.load(SeqCst) == 1);
    for i in 2..10 {
        k.send(&build::read(i, 1, u64::from(i) * GRANULE, 4096));
    }
    k.until(|| k.read_count() == 9);
    std::thread::sleep(TIMEOUT_MARGIN + Duration::from_millis(10));
    k.gate.open();
    assert!(k.completed_all(9).into_iter().eq(1..10));
    assert_eq!(k.slow.taken(), [0..GRANULE]);
    k.stop();
}

#[test]
fn one_message_feeds_several_threads() {
    for batch in [false, true] {
        let k = kernel(options(16));
        k.open(1, 1, b"slow");
        let reads: Vec<_> = (0..4)
            .map(|i| build::read(10 + i, 1, u64::from(i) * GRANULE, 4096))
            .collect();
        if batch {
            k.send(&build::batch(&reads));
        } else {
            reads.iter().for_each(|read| k.send(read));
        }
        // All at the same time.
        k.until(|| k.gate.waiting.load(SeqCst) == 4);
        k.gate.open();
        assert_eq!(k.completed_all(4), [10, 11, 12, 13]);
        k.stop();
    }
}

#[test]
fn readers_of_the_same_range_take_one_place() {
    let k = kernel(options(8));
    k.open(1, 1, b"slow");
    for i in 0..1000 {
        k.send(&build::read(1000 + i, 1, u64::from(i % 4) * 4096, 4096));
    }
    k.until(|| k.read_count() == 1000);
    // Another one of the same blob finds a thread.
    k.send(&build::read(5, 1, GRANULE, 4096));
    k.until(|| k.gate.waiting.load(SeqCst) == 2);
    k.gate.open();
    assert_eq!(k.completed_all(1001).len(), 1001);
    let mut taken = k.slow.taken();
    taken.sort_by_key(|range| range.start);
    assert_eq!(taken, [0..GRANULE, GRANULE..2 * GRANULE]);
    k.stop();
}

#[test]
fn a_batch_is_served_to_its_end() {
    for threads in [1, 3] {
        let k = kernel(options(threads));
        k.open(1, 1, b"blob");
        let file = cache_file(200_000);
        let mut batch: Vec<_> = (0..50)
            .map(|i| build::read(10 + i, 1, u64::from(i % 12) * (16 << 10), 4096))
            .collect();
        let fd = file.try_clone().unwrap().into_raw_fd();
        batch.insert(7, build::open(2, 2, b"erofs,d", b"blob", fd));
        // A message that is none does not hold up those behind it.
        batch.insert(9, {
            let mut bad = build::close(3, 1);
            bad[4] = 77;
            bad
        });
        k.send(&build::batch(&batch));
        assert_eq!(k.command(), "copen 2,200000,v1");
        let mut done: Vec<u32> = (0..50).map(|_| k.completed()).collect();
        done.sort_unstable();
        assert!(done.into_iter().eq(10..60));
        k.until(|| k.errors() == 1);
        k.stop();
    }
}

#[test]
fn a_stop_leaves_unserved_reads_to_the_successor() {
    let k = kernel(options(1));
    k.open(1, 1, b"slow");
    k.slow.broken.store(true, SeqCst);
    for i in 0..3 {
        k.send(&build::read(2 + i, 1, u64::from(i) * GRANULE, 4096));
    }
    // An OPEN is not answered, either.
    k.send_open(6, 6, b"late");
    k.until(|| k.read_count() == 3 && k.gate.waiting.load(SeqCst) == 2);
    k.stop.set();
    k.until(|| k.daemon.objects().is_empty());
    k.gate.open();
    assert!(k.daemon.join(WAIT));
    assert_eq!(k.errors(), 0);
    drop(k.daemon);
    assert!(k.completions.recv().is_err());
    let command = rustix::io::read(&k.socket, &mut [0; 100]);
    assert_eq!(command, Ok(0));
}

#[test]
fn sequential_readers_are_read_ahead_of() {
    let k = kernel(Options {
        prefetch: 32 << 10,
        ..options(4)
    });
    k.open(1, 1, b"blob");
    k.send(&build::read(2, 1, 0, 4096));
    k.completed();
    k.send(&build::read(3, 1, 16 << 10, 4096));
    k.completed();
    let fetched = || k.report.stats.fetched.load(SeqCst);
    k.until(|| fetched() == 64 << 10);
    assert_eq!(merge(k.blob.taken()), [0..64 << 10]);
    k.stop();
}

#[test]
fn a_reader_is_no_less_sequential_for_being_fast() {
    let k = kernel(Options {
        prefetch: 32 << 10,
        ..options(4)
    });
    k.open(1, 1, b"blob");
    // Its reader reads on before the thread that has completed it goes on.
    k.send(&build::read(LINGERING, 1, 0, 4096));
    k.completed();
    k.until(|| k.gate.waiting.load(SeqCst) == 1);
    k.send(&build::read(3, 1, 16 << 10, 4096));
    k.completed();
    let fetched = || k.report.stats.fetched.load(SeqCst);
    k.until(|| fetched() == 64 << 10);
    assert_eq!(k.gate.waiting.load(SeqCst), 1);
    k.stop();
}

#[test]
fn the_rest_comes_in_the_background() {
    let k = kernel(Options {
        background: true,
        ..options(4)
    });
    k.room.lacks.store(true, SeqCst);
    let (file, _) = k.open(1, 1, b"blob");
    let object = || k.daemon.object(1).unwrap();
    k.until(
        || matches!(object().background(), Background::Waiting(why) if why.contains("no room")),
    );
    // Whoever reads is served.
    k.send(&build::read(2, 1, 0, 4096));
    k.completed();
    assert_eq!(merge(k.blob.taken()), [0..GRANULE]);
    k.room.lacks.store(false, SeqCst);
    // It would look again later.
    k.daemon.set_background(&object(), 1, true);
    k.until(|| object().background() == Background::Complete);
    assert_eq!(merge(k.blob.taken()), [GRANULE..200_000]);
    let mut buf = vec![0; 200_000];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == k.blob.data);
    assert_eq!(k.errors(), 0);
    // The next one ends with its object.
    k.blob.broken.store(true, SeqCst);
    k.open(3, 3, b"blob");
    let object = k.object(3);
    let waits = |object: Arc<Object>| matches!(object.background(), Background::Waiting(_));
    k.until(|| object.upgrade().is_some_and(waits));
    k.send(&build::close(4, 3));
    k.until(|| object.upgrade().is_none());
    k.stop();
}

#[test]
fn readers_do_not_wait_for_the_bandwidth_unless_they_are_to() {
    // A minute for all of it.
    let slowly = Options {
        background: true,
        prefetch: 64 << 10,
        bandwidth: Some(4096),
        ..options(4)
    };
    let k = kernel(slowly);
    k.open(1, 1, b"blob");
    let fetched = || k.report.stats.fetched.load(SeqCst);
    k.until(|| fetched() > 0);
    k.send(&build::read(2, 1, 100_000, 4096));
    k.completed();
    k.send(&build::read(3, 1, 120_000, 4096));
    k.completed();
    let object = k.daemon.object(1).unwrap();
    assert_eq!(object.background(), Background::Running);
    assert!(fetched() < 200_000, "{}", fetched());
    drop(object);
    k.stop();
    let k = kernel(Options {
        limit_reads: true,
        background: false,
        ..slowly
    });
    k.open(1, 1, b"blob");
    k.send(&build::read(2, 1, 0, 4096));
    k.completed();
    // The first one took more than there is.
    k.send(&build::read(3, 1, 100_000, 4096));
    k.until(|| k.read_count() == 2);
    std::thread::sleep(Duration::from_millis(100));
    assert!(k.completions.try_recv().is_err());
    let object = k.object(1);
    k.send(&build::close(4, 1));
    k.until(|| object.upgrade().is_none());
    k.stop();
}

#[test]
fn a_thousand_blobs() {
    let k = kernel(options(4));
    crate::raise_file_limit();
    let files: Vec<File> = (0..1000)
        .map(|i| {
            let (file, answer) = k.open(i, i + 1, b"blob");
            assert_eq!(answer, format!("copen {i},200000,v1"));
            file
        })
        .collect();
    assert_eq!(k.daemon.objects().len(), 1000);
    for i in 0..1000 {
        k.send(&build::close(i, i + 1));
    }
    k.until(|| k.daemon.objects().is_empty());
    drop(files);
    k.stop();
}

#[test]
fn a_device_that_fails_stops_the_daemon() {
    let report = Report::silent();
    let stop = Arc::new(Stop::new().unwrap());
    let (socket, device) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    let source = Box::new(TestSource {
        blob: MemoryBlob::new(1),
        slow: MemoryBlob::new(1),
        gate: Arc::default(),
    });
    let device = Device::from_fd(device);
    let daemon = Daemon::new(
        device,
        source,
        options(2),
        PathBuf::new(),
        None,
        report,
        stop.clone(),
    )
    .unwrap();
    // The peer goes away with unread data: reading gives ECONNRESET.
    daemon.device.command("unread").unwrap();
    drop(socket);
    let daemon = Arc::new(daemon);
    daemon.start().unwrap();
    assert!(daemon.join(WAIT));
    assert!(stop.is_set());
    let reason = daemon.fatal().unwrap();
    assert!(reason.starts_with("cannot read messages: "), "{reason}");
}

#[test]
fn lost_opens_are_survived_and_a_dead_cache_is_not() {
    let k = kernel(options(1));
    let failed = |errno| {
        let err = io::Error::from_raw_os_error(errno);
        k.daemon.receive_failed(&err, 1)
    };
    for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EEXIST] {
        failed(errno).unwrap();
    }
    assert_eq!(k.errors(), 4);
    assert!(failed(libc::EIO).unwrap_err().contains("dead"));
    k.stop();
}
