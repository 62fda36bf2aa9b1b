// SPDX-License-Identifier: GPL-2.0

//! The client against the server of this program, and against servers that misbehave.

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use super::*;
use crate::guard::{tests::LIMITS, Guard, Limits};
use crate::http_server;

fn source(address: SocketAddr, retries: u32) -> HttpSource {
    client(
        &format!("http://{address}/"),
        retries,
        Arc::new(Stop::new().unwrap()),
    )
    .unwrap()
}

fn client(url: &str, retries: u32, stop: Arc<Stop>) -> Result<HttpSource, String> {
    let options = HttpOptions {
        url: url.into(),
        retries,
        timeout: Duration::from_secs(5),
        connections: 4,
    };
    HttpSource::new(options, Report::silent(), stop)
}

fn name(text: &str) -> BlobName {
    BlobName::from_keys(b"erofs,d", text.as_bytes(), false).unwrap()
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

/// A server that answers every request with what `answer` makes of its number and head; it counts
/// connections. An answer of "" closes the connection.
fn scripted(
    answer: impl Fn(usize, &str) -> String + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    std::thread::spawn(move || {
        let mut number = 0;
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            counter.fetch_add(1, SeqCst);
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            loop {
                let mut head = String::new();
                while reader.read_line(&mut head).unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
                if head.is_empty() {
                    break;
                }
                let text = answer(number, &head);
                number += 1;
                if text.is_empty() || stream.write_all(text.as_bytes()).is_err() {
                    break;
                }
                if text.contains("close\r\n") {
                    break;
                }
            }
        }
    });
    (address, connections)
}

const HEAD_10: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"v1\"\r\n\r\n";

fn part(range: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Opens a blob of 10 bytes and reads bytes 2 to 4 from a server that answers `read` to it.
fn read_from(read: &str, retries: u32) -> Result<Vec<u8>, SourceError> {
    let read = read.to_string();
    let (address, _) = scripted(move |_, head| {
        if head.starts_with("HEAD") {
            HEAD_10.into()
        } else {
            read.clone()
        }
    });
    let blob = source(address, retries).open(&name("b"))?;
    assert_eq!(blob.size(), 10);
    let mut buf = vec![0xee; 3];
    blob.read_exact_at(&mut buf, 2)?;
    Ok(buf)
}

#[test]
fn reads_what_the_server_has() {
    let dir = tempfile::tempdir().unwrap();
    let content = data(300_000);
    std::fs::write(dir.path().join("a b\u{f6}%"), &content).unwrap();
    std::fs::write(dir.path().join("empty"), b"").unwrap();
    let source = source(http_server::tests::start(dir.path()), 0);
    let blob = source.open(&name("a b\u{f6}%")).unwrap();
    assert_eq!(blob.size(), 300_000);
    for (off, len) in [(0, 1), (0, 300_000), (299_999, 1), (4096, 65536)] {
        let mut buf = vec![0; len];
        blob.read_exact_at(&mut buf, off as u64).unwrap();
        assert!(buf == content[off..off + len], "{len} at {off}");
    }
    assert!(blob.read_exact_at(&mut [0; 2], 299_999).is_err());
    assert_eq!(source.open(&name("empty")).unwrap().size(), 0);
    assert_eq!(
        source.open(&name("none")).err().unwrap().errno,
        libc::ENOENT
    );
}

#[test]
fn domains_are_directories() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("dom")).unwrap();
    std::fs::write(dir.path().join("dom/b"), b"12345").unwrap();
    let source = source(http_server::tests::start(dir.path()), 0);
    let name = BlobName::from_keys(b"erofs,dom", b"b", true).unwrap();
    assert_eq!(source.open(&name).unwrap().size(), 5);
}

#[test]
fn a_changed_blob_is_not_mixed_with_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b");
    std::fs::write(&path, data(8192)).unwrap();
    let source = source(http_server::tests::start(dir.path()), 0);
    let blob = source.open(&name("b")).unwrap();
    let mut buf = vec![0; 4096];
    blob.read_exact_at(&mut buf, 0).unwrap();
    // Same size, another time.
    std::fs::write(&path, vec![1; 8192]).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(old).unwrap();
    let err = blob.read_exact_at(&mut buf, 4096).unwrap_err();
    assert!(err.reason.contains("has changed"), "{err}");
    // Another size.
    std::fs::write(&path, data(9000)).unwrap();
    let err = blob.read_exact_at(&mut buf, 0).unwrap_err();
    assert!(err.reason.contains("Content-Range"), "{err}");
}

#[test]
fn connections_are_used_again() {
    let (address, connections) = scripted(|_, head| {
        if head.starts_with("HEAD") {
            HEAD_10.into()
        } else {
            part("bytes 2-4/10", "234")
        }
    });
    let blob = source(address, 0).open(&name("b")).unwrap();
    let mut buf = [0; 3];
    for _ in 0..20 {
        blob.read_exact_at(&mut buf, 2).unwrap();
        assert_eq!(&buf, b"234");
    }
    assert_eq!(connections.load(SeqCst), 1);
}

#[test]
fn exact_answers_are_accepted() {
    assert_eq!(read_from(&part("bytes 2-4/10", "234"), 0).unwrap(), b"234");
    assert_eq!(read_from(&part("bytes 2-4/*", "234"), 0).unwrap(), b"234");
    let chunked =
        "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/10\r\nTransfer-Encoding: chunked\r\n\r\n\
                   1\r\n2\r\n2\r\n34\r\n0\r\n\r\n";
    assert_eq!(read_from(chunked, 0).unwrap(), b"234");
}

#[test]
fn other_answers_are_not() {
    for (answer, text) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789".to_string(), "does not serve ranges"),
        ("HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n".to_string(), "status 404"),
        ("HTTP/1.1 416 N\r\nContent-Length: 0\r\n\r\n".to_string(), "status 416"),
        (part("bytes 3-5/10", "345"), "Content-Range"),
        (part("bytes 2-5/10", "2345"), "Content-Range"),
        (part("bytes 2-4/11", "234"), "Content-Range"),
        (part("", "234"), "Content-Range"),
        (part("bytes 2-4/10", "2345"), "longer than asked for"),
        (part("bytes 2-4/10\r\nETag: \"v2\"", "234"), "has changed"),
        (part("bytes 2-4/10\r\nContent-Encoding: gzip", "234"), "encoded"),
        (part("bytes 2-4/10\r\nConnection: close", "23"), "ends early"),
        (
            "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\nConnection: close\r\n\r\n2"
                .to_string(),
            "ends early",
        ),
        ("HTTP/1.1 503 S\r\nContent-Length: 0\r\n\r\n".to_string(), "status 503"),
        ("garbage\r\n\r\n".to_string(), ""),
        (String::new(), ""),
    ] {
        let err = read_from(&answer, 0).expect_err(&answer);
        assert!(err.reason.contains(text), "{answer:?} gave {err}");
    }
}

#[test]
fn passing_failures_are_retried() {
    let (address, _) = scripted(|number, head| match number {
        0 => "HTTP/1.1 503 S\r\nContent-Length: 0\r\n\r\n".into(),
        1 => String::new(),
        _ if head.starts_with("HEAD") => HEAD_10.into(),
        3 => "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\n\
              Connection: close\r\n\r\n2"
            .into(),
        _ => part("bytes 2-4/10", "234"),
    });
    let blob = source(address, 5).open(&name("b")).unwrap();
    let mut buf = [0; 3];
    blob.read_exact_at(&mut buf, 2).unwrap();
    assert_eq!(&buf, b"234");
}

#[test]
fn final_failures_are_not_retried() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let (address, _) = scripted(move |_, _| {
        counter.fetch_add(1, SeqCst);
        "HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n".into()
    });
    let err = source(address, 5).open(&name("b")).err().unwrap();
    assert_eq!((err.errno, count.load(SeqCst)), (libc::ENOENT, 1));
}

#[test]
fn a_restarted_server_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("b"), data(8192)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // The first server answers HEAD and one GET, then it is gone.
    let first = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let answers = [
            "HTTP/1.1 200 OK\r\nContent-Length: 8192\r\n\r\n".to_string(),
            part("bytes 0-0/8192", "\0"),
        ];
        for answer in answers {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let blob = source(address, 8).open(&name("b")).unwrap();
    blob.read_exact_at(&mut [0; 1], 0).unwrap();
    first.join().unwrap();
    let second = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        // SO_REUSEADDR is what std sets on listeners.
        TcpListener::bind(address).unwrap()
    });
    let server = Arc::new(http_server::Server {
        dir: dir.path().into(),
        access_log: None,
    });
    let serving = std::thread::spawn(move || {
        let listener = second.join().unwrap();
        server.run(&listener);
    });
    let mut buf = vec![0; 8192];
    blob.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == data(8192));
    assert!(!serving.is_finished());
}

#[test]
fn giving_up_names_the_tries_and_stopping_does_not_wait() {
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let err = source(address, 2).open(&name("b")).err().unwrap();
    assert_eq!(err.errno, libc::EIO);
    assert!(err.reason.contains("gave up after 3 tries"), "{err}");

    let stop = Arc::new(Stop::new().unwrap());
    let source = client(&format!("http://{address}"), 1000, stop.clone()).unwrap();
    let start = Instant::now();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        stop.set();
    });
    assert!(source
        .open(&name("b"))
        .err()
        .unwrap()
        .reason
        .contains("stopping"));
    assert!(start.elapsed() < Duration::from_secs(3));
}

/// A server of a blob of 1 MB that lets `get` do what it likes with the connection of each GET.
fn server(get: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |mut stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut head = String::new();
            while reader.read_line(&mut head).unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
            match head.get(..4) {
                Some("HEAD") => stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: \"v1\"\r\n\r\n",
                    )
                    .unwrap(),
                Some(_) => get(stream.try_clone().unwrap()),
                None => break,
            }
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, stream) = (serve.clone(), stream.unwrap());
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// All of it is to come.
const WHOLE: &[u8] = b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-999999/1000000\r\nETag: \"v1\"\r\n\
                       Content-Length: 1000000\r\n\r\n";

#[test]
fn a_body_that_crawls_is_given_up() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = tries.clone();
    let address = server(move |mut stream| {
        counter.fetch_add(1, SeqCst);
        stream.write_all(WHOLE).unwrap();
        // Never silent for long, and never done. The client ends it.
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let blob = source(address, 1).open(&name("b")).unwrap();
    let guard = Guard::new(Limits {
        min_speed: 100_000,
        window: Duration::from_millis(100),
        ..LIMITS
    });
    let err = guard
        .run(|| blob.read_exact_at(&mut vec![0; 1_000_000], 0))
        .unwrap_err();
    assert!(err.reason.contains("are fewer than 100000 per"), "{err}");
    assert_eq!(tries.load(SeqCst), 2);
    // Nor does it go on as long as it does not crawl.
    let guard = Guard::new(Limits {
        max_time: Duration::from_millis(100),
        ..LIMITS
    });
    let err = guard
        .run(|| blob.read_exact_at(&mut vec![0; 1_000_000], 0))
        .unwrap_err();
    assert!(err.reason.contains("gave up after 0 s"), "{err}");
}

#[test]
fn a_silent_server_is_left_when_nobody_wants_the_answer() {
    let (sender, asked) = std::sync::mpsc::channel();
    let address = server(move |mut stream| {
        sender.send(()).unwrap();
        // The client says nothing more, either; it hangs up.
        let _ = stream.read(&mut [0]);
    });
    let blob = source(address, 5).open(&name("b")).unwrap();
    let guard = Guard::new(LIMITS);
    let running = guard.clone();
    let reader =
        std::thread::spawn(move || running.run(|| blob.read_exact_at(&mut [0; 3], 0).unwrap_err()));
    asked.recv().unwrap();
    guard.cancel();
    let err = reader.join().unwrap();
    assert!(err.reason.contains("nobody wants it"), "{err}");
    // There was no other try.
    assert!(asked.try_recv().is_err());
}

#[test]
fn sizes_without_head() {
    let size = |get: &'static str| {
        let (address, _) = scripted(move |_, head| {
            if head.starts_with("HEAD") {
                "HTTP/1.1 405 M\r\nContent-Length: 0\r\n\r\n".into()
            } else {
                assert!(
                    head.to_lowercase().contains("range: bytes=0-0\r\n"),
                    "{head}"
                );
                get.into()
            }
        });
        source(address, 0).open(&name("b")).map(|blob| blob.size())
    };
    let part = "HTTP/1.1 206 P\r\nContent-Range: bytes 0-0/777\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(size(part).unwrap(), 777);
    let empty = "HTTP/1.1 416 R\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(size(empty).unwrap(), 0);
    assert_eq!(
        size("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap(),
        0
    );
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n12345";
    assert_eq!(size(whole).unwrap_err().errno, libc::EIO);
    let denied = "HTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(size(denied).unwrap_err().errno, libc::EACCES);
}

#[test]
fn urls_are_checked() {
    let stop = Arc::new(Stop::new().unwrap());
    for wrong in ["", "host/path", "ftp://x/", "http://x/?a=b", "http://x/#y"] {
        assert!(client(wrong, 0, stop.clone()).is_err(), "{wrong}");
    }
    assert!(client("http://127.0.0.1:1/a/", 0, stop).is_ok());
}

#[cfg(feature = "tls")]
#[test]
fn tls_refuses_a_server_without_it() {
    let (address, _) = scripted(|_, _| "HTTP/1.1 200 OK\r\n\r\n".into());
    let stop = Arc::new(Stop::new().unwrap());
    let source = client(&format!("https://{address}"), 0, stop).unwrap();
    assert_eq!(source.open(&name("b")).err().unwrap().errno, libc::EIO);
}
