// SPDX-License-Identifier: GPL-2.0

//! The daemon against a stand-in for the kernel: a socket pair that keeps message boundaries for the
//! device, a sparse file for the cache file, a closure for the completion ioctl.

use std::fs::File;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{channel, RecvTimeoutError};

use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};

use super::*;
use crate::message::build;
use crate::object::tests::{cache_file, MemoryBlob};
use crate::source::Blob;

/// A busy machine may take long for anything; what hangs is ended by `scripts/host-test`, which sees
/// that no test ends any more.
const WAIT: Duration = Duration::from_secs(24 * 3600);

struct TestSource(HashMap<String, Arc<MemoryBlob>>);

impl Source for TestSource {
    fn open(&self, name: &BlobName) -> Result<Arc<dyn Blob>, SourceError> {
        match self.0.get(&name.to_string()) {
            Some(blob) => Ok(blob.clone()),
            None if name.name == "forbidden" => Err(SourceError::new(libc::EACCES, "forbidden")),
            None => Err(SourceError::new(libc::ENOENT, "no such blob")),
        }
    }
}

/// The kernel's end, and the daemon that runs against it.
struct Kernel {
    socket: OwnedFd,
    daemon: Arc<Daemon>,
    threads: Vec<JoinHandle<()>>,
    completions: Receiver<u32>,
    blob: Arc<MemoryBlob>,
    report: Arc<Report>,
    stop: Arc<Stop>,
}

fn options(threads: usize) -> Options {
    Options {
        threads,
        granule: 16 << 10,
        prefetch: 0,
        by_domain: false,
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
    let blob = MemoryBlob::new(200_000);
    let source = TestSource(HashMap::from([("blob".to_string(), blob.clone())]));
    let (report, stop) = (Report::silent(), Arc::new(Stop::new().unwrap()));
    let mut daemon = Daemon::new(
        Device::from_fd(device),
        Box::new(source),
        options,
        report.clone(),
        stop.clone(),
    )
    .unwrap();
    let (sender, completions) = channel();
    let sender = Mutex::new(sender);
    daemon.complete = Box::new(move |_, msg_id| {
        sender.lock().unwrap().send(msg_id).unwrap();
        // As the kernel answers for a request that does not exist any more.
        if msg_id >= 1000 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(())
    });
    let daemon = Arc::new(daemon);
    Kernel {
        threads: daemon.start().unwrap(),
        socket,
        daemon,
        completions,
        blob,
        report,
        stop,
    }
}

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
        let file = cache_file(200_000);
        let fd = file.try_clone().unwrap().into_raw_fd();
        self.send(&build::open(msg_id, object_id, b"erofs,d", key, fd));
        (file, self.command())
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
        self.stop.set();
        for thread in self.threads {
            thread.join().unwrap();
        }
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

    let object = Arc::downgrade(&k.daemon.objects()[&10]);
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
    k.send(&build::read(1000, 1, 0, 4096));
    k.send(&build::read(1000, 1, 0, 4096));
    assert_eq!((k.completed(), k.completed()), (1000, 1000));
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
fn one_edge_feeds_every_thread() {
    let k = kernel(options(4));
    k.open(1, 1, b"blob");
    // Each waits for the others: one after the other they would not end.
    k.blob.meet(4);
    for i in 0..4 {
        k.send(&build::read(10 + i, 1, u64::from(i) * (16 << 10), 4096));
    }
    let mut done: Vec<u32> = (0..4).map(|_| k.completed()).collect();
    done.sort_unstable();
    assert_eq!(done, [10, 11, 12, 13]);
    k.stop();
}

#[test]
fn a_batch_feeds_every_thread() {
    let k = kernel(options(4));
    k.open(1, 1, b"blob");
    // Each waits for the others: one after the other they would not end.
    k.blob.meet(4);
    let reads: Vec<_> = (0..4)
        .map(|i| build::read(10 + i, 1, u64::from(i) * (16 << 10), 4096))
        .collect();
    k.send(&build::batch(&reads));
    let mut done: Vec<u32> = (0..4).map(|_| k.completed()).collect();
    done.sort_unstable();
    assert_eq!(done, [10, 11, 12, 13]);
    assert!(k.daemon.pending().is_empty());
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
    k.open(1, 1, b"blob");
    k.blob.delay_ms.store(100, SeqCst);
    k.blob.broken.store(true, SeqCst);
    k.send(&build::read(2, 1, 0, 4096));
    k.until(|| k.report.stats.read.load(SeqCst) == 1);
    let completions = k.completions;
    k.stop.set();
    for thread in k.threads {
        thread.join().unwrap();
    }
    drop(k.daemon);
    assert!(completions.recv().is_err());
}

#[test]
fn sequential_readers_are_read_ahead_of() {
    let k = kernel(Options {
        prefetch: 32 << 10,
        ..options(1)
    });
    k.open(1, 1, b"blob");
    k.send(&build::read(2, 1, 0, 4096));
    k.completed();
    k.send(&build::read(3, 1, 16 << 10, 4096));
    k.completed();
    let fetched = || k.report.stats.fetched.load(SeqCst);
    k.until(|| fetched() == 64 << 10);
    assert_eq!(k.blob.taken(), [0..16384, 16384..32768, 32768..65536]);
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
    let source = Box::new(TestSource(HashMap::new()));
    let device = Device::from_fd(device);
    let daemon = Daemon::new(device, source, options(2), report, stop.clone()).unwrap();
    // The peer goes away with unread data: reading gives ECONNRESET.
    daemon.device.command("unread").unwrap();
    drop(socket);
    let daemon = Arc::new(daemon);
    for thread in daemon.start().unwrap() {
        thread.join().unwrap();
    }
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
