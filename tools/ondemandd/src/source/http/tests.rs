// SPDX-License-Identifier: GPL-2.0-or-later

//! The client against a good server, and against servers that misbehave.

use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::guard::{tests::LIMITS, Guard, Limits};

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
        retries,
        ..options(url)
    };
    HttpSource::new(options, Report::silent(), stop)
}

fn options(url: &str) -> HttpOptions {
    HttpOptions {
        url: url.into(),
        headers: Vec::new(),
        retries: 0,
        retry_time: Duration::from_secs(60),
        timeout: Duration::from_secs(5),
        connections: 4,
        ca_file: None,
        accept_unversioned: false,
        verify: false,
        proxies: Proxies::default(),
    }
}

fn with_options(options: HttpOptions) -> HttpSource {
    HttpSource::new(options, Report::silent(), Arc::new(Stop::new().unwrap())).unwrap()
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

/// An answer with the bytes of a range of "0123456789".
fn part(range: &str, body: &str) -> String {
    tagged(range, "ETag: \"v1\"", body)
}

fn tagged(range: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\n{fields}\r\nContent-Length: {}\r\n\r\n\
         {body}",
        body.len()
    )
}

fn empty(status: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
}

/// Whether this is the request of an OPEN.
fn is_open(head: &str) -> bool {
    head.contains("\r\nRange: bytes=0-0\r\n")
}

fn open_10() -> String {
    part("bytes 0-0/10", "0")
}

/// Opens a blob of 10 bytes and reads bytes 2 to 4 from a server that answers `read` to it.
fn read_from(read: &str, retries: u32) -> Result<Vec<u8>, SourceError> {
    let read = read.to_string();
    let (address, _) = scripted(move |_, head| {
        if is_open(head) {
            open_10()
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

/// A sink of bytes 2 to 9 that takes four at once, and has room for so many.
struct Steps(Vec<u8>, usize, [u8; 4]);

impl Sink for Steps {
    fn rest(&self) -> Range<u64> {
        2 + self.0.len() as u64..10
    }

    fn space(&mut self) -> &mut [u8] {
        let len = self.rest().count().min(4 - self.0.len() % 4);
        &mut self.2[..len]
    }

    fn filled(&mut self, len: usize) -> Result<(), SourceError> {
        self.0.extend(&self.2[..len]);
        if self.0.len() > self.1 {
            return Err(SourceError::new(libc::ENOSPC, "no space"));
        }
        Ok(())
    }
}

#[test]
fn a_sink_is_filled_step_by_step() {
    let gets = Arc::new(AtomicUsize::new(0));
    let counter = gets.clone();
    let (address, _) = scripted(move |_, head| {
        if is_open(head) {
            return open_10();
        }
        counter.fetch_add(1, SeqCst);
        part("bytes 2-9/10", "23456789")
    });
    let blob = source(address, 5).open(&name("b")).unwrap();
    let mut sink = Steps(Vec::new(), 8, [0; 4]);
    blob.read_into(&mut sink).unwrap();
    assert_eq!(sink.0, b"23456789");
    // What a sink says is said as it is, and not tried again.
    let mut sink = Steps(Vec::new(), 3, [0; 4]);
    let err = blob.read_into(&mut sink).unwrap_err();
    assert_eq!((err.errno, err.reason.as_str()), (libc::ENOSPC, "no space"));
    assert_eq!((&sink.0[..], gets.load(SeqCst)), (&b"2345"[..], 2));
}

/// What is in a blob of 10 bytes according to a server with these answers.
fn bytes_2_to_4(blob: &dyn Blob) -> Result<Vec<u8>, SourceError> {
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
    let source = source(web_server::start(dir.path()).unwrap(), 0);
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
    let source = source(web_server::start(dir.path()).unwrap(), 0);
    let name = BlobName::from_keys(b"erofs,dom", b"b", true).unwrap();
    assert_eq!(source.open(&name).unwrap().size(), 5);
}

#[test]
fn a_changed_blob_is_not_mixed_with_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b");
    std::fs::write(&path, data(8192)).unwrap();
    let source = source(web_server::start(dir.path()).unwrap(), 0);
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
    assert_eq!((err.errno, err.said), (libc::ESTALE, false));
    // It stays so, and is said once.
    let err = blob.read_exact_at(&mut buf, 4096).unwrap_err();
    assert_eq!((err.errno, err.said), (libc::ESTALE, true));
    let next = source.open(&name("b")).unwrap();
    assert_ne!(next.version(), blob.version());
    next.read_exact_at(&mut buf, 4096).unwrap();
    assert!(buf == [1; 4096]);
    // Another size.
    std::fs::write(&path, data(9000)).unwrap();
    let err = next.read_exact_at(&mut buf, 0).unwrap_err();
    assert_eq!(err.errno, libc::ESTALE, "{err}");
}

#[test]
fn connections_are_used_again() {
    let (address, connections) = scripted(|_, head| {
        if is_open(head) {
            open_10()
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
    let chunked = "HTTP/1.1 206 P\r\ncontent-RANGE: Bytes 2-4/10\r\nETAG: \"v1\"\r\n\
                   TRANSFER-encoding: chunked\r\n\r\n1\r\n2\r\n2\r\n34\r\n0\r\n\r\n";
    assert_eq!(read_from(chunked, 0).unwrap(), b"234");
    let old =
        "HTTP/1.0 206 P\r\nContent-Range: bytes 2-4/10\r\nETag: \"v1\"\r\nX: close\r\n\r\n234";
    assert_eq!(read_from(old, 0).unwrap(), b"234");
    let hints = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{}",
        part("bytes 2-4/10", "234")
    );
    assert_eq!(read_from(&hints, 0).unwrap(), b"234");
}

#[test]
fn other_answers_are_not() {
    let closing = "Connection: close\r\nETag: \"v1\"";
    for (answer, text) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789".to_string(), "does not say of which"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Range: bytes 2-4/10\r\nETag: \"v1\"\r\n\r\n0123456789"
                .to_string(),
            "does not serve ranges",
        ),
        (empty("404 N"), "status 404"),
        (empty("416 N"), "status 416"),
        (part("bytes 3-5/10", "345"), "Content-Range"),
        (part("bytes 2-5/10", "2345"), "Content-Range"),
        (part("bytes 2-1/10", ""), "Content-Range"),
        (part("bytes 2-4/11", "234"), "has changed"),
        (part("", "234"), "Content-Range"),
        (part("bytes 2-4/10", "2345"), "longer than asked for"),
        (tagged("bytes 2-4/10", "ETag: \"v2\"", "234"), "has changed"),
        (tagged("bytes 2-4/10", "X: y", "234"), "does not say of which"),
        (empty("412 P"), "has changed"),
        (
            "HTTP/1.1 416 R\r\nContent-Range: bytes */1\r\nContent-Length: 0\r\n\r\n".to_string(),
            "has changed",
        ),
        (tagged("bytes 2-4/10", "ETag: \"v1\"\r\nContent-Encoding: gzip", "234"), "encoded"),
        (tagged("bytes 2-4/10", closing, "23"), "ends early"),
        (
            format!(
                "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\n{closing}\r\n\r\n2"
            ),
            "ends early",
        ),
        (empty("503 S"), "status 503"),
        (empty("501 S"), "status 501"),
        ("garbage\r\n\r\n".to_string(), "not HTTP"),
        (String::new(), "without an answer"),
    ] {
        let err = read_from(&answer, 0).expect_err(&answer);
        assert!(err.reason.contains(text), "{answer:?} gave {err}");
    }
}

#[test]
fn passing_failures_are_retried() {
    let (address, _) = scripted(|number, head| match number {
        0 => empty("503 S"),
        1 => String::new(),
        _ if is_open(head) => open_10(),
        3 => {
            "HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\nETag: \"v1\"\r\n\
              Connection: close\r\n\r\n2"
                .into()
        }
        _ => part("bytes 3-4/10", "34"),
    });
    let blob = source(address, 5).open(&name("b")).unwrap();
    assert_eq!(bytes_2_to_4(&*blob).unwrap(), b"234");
}

/// A server of `size` bytes of [`data`] that gives at most `most` at once, as a short range or as a
/// body that breaks off.
fn short(size: usize, most: usize, breaks: bool) -> SocketAddr {
    scripted(move |_, head| {
        let range = head.split("Range: bytes=").nth(1).unwrap();
        let range = range.split("\r\n").next().unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let got = last.min(first + most - 1);
        let body: String = data_text(size)[first..=got].into();
        let said = if breaks { last } else { got };
        format!(
            "HTTP/1.1 206 P\r\nContent-Range: bytes {first}-{said}/{size}\r\nETag: \"v1\"\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            said - first + 1
        )
    })
    .0
}

fn data_text(size: usize) -> String {
    (0..size)
        .map(|i| char::from(b'a' + (i * 7 % 26) as u8))
        .collect()
}

#[test]
fn the_rest_is_asked_for() {
    for breaks in [false, true] {
        // Not one of the tries brings all of it, and none is wasted.
        let blob = source(short(100_000, 30_000, breaks), 0)
            .open(&name("b"))
            .unwrap();
        let mut buf = vec![0; 99_000];
        blob.read_exact_at(&mut buf, 1000).unwrap();
        assert!(buf == data_text(100_000).as_bytes()[1000..]);
    }
}

/// A server whose first answer is `first` for OPENs and for the rest `then`.
fn changing(first: &'static str, then: &'static str) -> Result<Vec<u8>, SourceError> {
    let (address, _) = scripted(move |_, head| {
        if is_open(head) {
            tagged("bytes 0-0/10", first, "0")
        } else {
            tagged("bytes 2-4/10", then, "234")
        }
    });
    let blob = source(address, 3).open(&name("b"))?;
    bytes_2_to_4(&*blob)
}

const MONDAY: &str = "Last-Modified: Mon, 07 Nov 1994 08:49:37 GMT";
const TUESDAY: &str = "Last-Modified: Tue, 08 Nov 1994 08:49:37 GMT";

#[test]
fn versions_are_compared_whatever_tells_them_apart() {
    for (first, then) in [
        ("ETag: \"a\"", "ETag: \"b\""),
        ("ETag: W/\"a\"", "ETag: W/\"b\""),
        (MONDAY, TUESDAY),
        ("etag: unquoted", "etag: others"),
    ] {
        assert_eq!(changing(first, first).unwrap(), b"234", "{first}");
        let err = changing(first, then).unwrap_err();
        assert_eq!(err.errno, libc::ESTALE, "{first}: {err}");
        assert!(err.reason.contains("has changed"), "{err}");
    }
    // Weakened by a proxy.
    changing("ETag: \"a\"", "ETag: W/\"a\"").unwrap();
    // One that says nothing any more is not believed.
    let err = changing(MONDAY, "X: y").unwrap_err();
    assert!(err.reason.contains("does not say of which"), "{err}");
}

#[test]
fn a_source_without_versions_is_refused_unless_accepted() {
    let address = || {
        scripted(|_, head| {
            if is_open(head) {
                tagged("bytes 0-0/10", "X: y", "0")
            } else {
                tagged("bytes 2-4/10", "X: y", "234")
            }
        })
        .0
    };
    let err = source(address(), 0).open(&name("b")).err().unwrap();
    assert_eq!(err.errno, libc::ESTALE);
    assert!(err.reason.contains("--accept-unversioned"), "{err}");
    let accepting = with_options(HttpOptions {
        accept_unversioned: true,
        ..options(&format!("http://{}", address()))
    });
    let blob = accepting.open(&name("b")).unwrap();
    assert_eq!(blob.version(), None);
    assert_eq!(bytes_2_to_4(&*blob).unwrap(), b"234");
    // The name may say what the bytes are.
    let hex = "0123456789abcdef".repeat(4);
    for digest in [hex.clone(), format!("sha256:{hex}")] {
        let blob = source(address(), 0).open(&name(&digest)).unwrap();
        assert_eq!(blob.version().unwrap(), format!("digest {digest}"));
        assert_eq!(bytes_2_to_4(&*blob).unwrap(), b"234");
    }
}

#[test]
fn the_servers_of_one_digest_may_have_tags_of_their_own() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let (address, _) = scripted(|_, head| {
        if is_open(head) {
            tagged("bytes 0-0/10", "ETag: \"a\"", "0")
        } else {
            assert!(!head.contains("If-"), "{head}");
            tagged("bytes 2-4/10", "ETag: \"b\"", "234")
        }
    });
    let blob = source(address, 0).open(&name(&digest)).unwrap();
    assert_eq!(bytes_2_to_4(&*blob).unwrap(), b"234");
}

#[test]
fn servers_are_asked_for_the_version() {
    for (tag, field) in [
        ("ETag: \"a\"", "\r\nIf-Match: \"a\"\r\n"),
        (
            MONDAY,
            "\r\nIf-Unmodified-Since: Mon, 07 Nov 1994 08:49:37 GMT\r\n",
        ),
    ] {
        let (address, _) = scripted(move |_, head| {
            if is_open(head) {
                assert!(!head.contains("If-"), "{head}");
                return tagged("bytes 0-0/10", tag, "0");
            }
            assert!(head.contains(field), "{head}");
            empty("412 Precondition Failed")
        });
        let blob = source(address, 0).open(&name("b")).unwrap();
        assert_eq!(bytes_2_to_4(&*blob).unwrap_err().errno, libc::ESTALE);
    }
}

#[test]
fn a_second_that_is_not_over_is_waited_for() {
    let now = "Date: Mon, 07 Nov 1994 08:49:37 GMT";
    let (address, _) = scripted(move |number, _| {
        let date = if number == 0 {
            now
        } else {
            "Date: Mon, 07 Nov 1994 08:49:38 GMT"
        };
        tagged("bytes 0-0/10", &format!("{MONDAY}\r\n{date}"), "0")
    });
    let start = Instant::now();
    source(address, 1).open(&name("b")).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn the_whole_blob_for_a_range() {
    let whole = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"v1\"\r\n\r\n0123456789";
    // The range is cut out.
    assert_eq!(read_from(whole, 0).unwrap(), b"234");
    // Of another size or version it is another blob.
    for (from, to) in [("10\r", "11\r"), ("v1", "v2")] {
        let err = read_from(&whole.replace(from, to), 0).unwrap_err();
        assert_eq!(err.errno, libc::ESTALE, "{err}");
    }
    // Too far into a large one, another try must do.
    for (wholes, works) in [(1, true), (2, false)] {
        let size = MAX_CUT + 10;
        let (address, _) = scripted(move |number, head| {
            if is_open(head) {
                part(&format!("bytes 0-0/{size}"), "0")
            } else if number <= wholes {
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: \"v1\"\r\nX: close\r\n\r\n"
                )
            } else {
                part(&format!("bytes {MAX_CUT}-{}/{size}", MAX_CUT + 2), "abc")
            }
        });
        let blob = source(address, 5).open(&name("b")).unwrap();
        let mut buf = [0; 3];
        let result = blob.read_exact_at(&mut buf, MAX_CUT);
        assert_eq!(result.is_ok(), works, "{result:?}");
    }
}

#[test]
fn servers_are_left_alone_as_they_wish() {
    let busy = |seconds: u32| {
        let answer =
            format!("HTTP/1.1 429 T\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n");
        let (address, _) = scripted(move |number, _| match number {
            0 => answer.clone(),
            _ => open_10(),
        });
        let start = Instant::now();
        let result = source(address, 1).open(&name("b")).map(|_| ());
        (result, start.elapsed())
    };
    let (result, time) = busy(1);
    result.unwrap();
    assert!(time >= Duration::from_secs(1), "{time:?}");
    // Longer than anybody wants to wait.
    let (result, time) = busy(3600);
    let reason = result.unwrap_err().reason;
    assert!(reason.contains("3600 s"), "{reason}");
    assert!(time < Duration::from_secs(30), "{time:?}");
}

#[test]
fn tries_have_a_time() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = tries.clone();
    let (address, _) = scripted(move |_, _| {
        counter.fetch_add(1, SeqCst);
        empty("503 S")
    });
    let source = with_options(HttpOptions {
        retries: 1_000_000,
        retry_time: Duration::from_millis(500),
        ..options(&format!("http://{address}"))
    });
    let err = source.open(&name("b")).err().unwrap();
    assert!(err.reason.contains("gave up after"), "{err}");
    // 0, 100 and 300 ms; fewer on a busy machine, but always two.
    assert!((2..=3).contains(&tries.load(SeqCst)));
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
    // The first server answers twice, then it is gone.
    let etag = web_server::etag_of(&dir.path().join("b")).unwrap();
    let etag = format!("ETag: {etag}");
    let first = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let answers = [
            tagged("bytes 0-0/8192", &etag, "\0"),
            tagged("bytes 0-0/8192", &etag, "\0"),
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
    let server = Arc::new(web_server::Server {
        dir: dir.path().into(),
    });
    std::thread::spawn(move || {
        let listener = second.join().unwrap();
        server.run(&listener);
    });
    let mut buf = vec![0; 8192];
    blob.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf == data(8192));
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
fn server(get: impl Fn(TcpStream, &str) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |mut stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut head = String::new();
            while reader.read_line(&mut head).unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
            if head.is_empty() {
                break;
            } else if is_open(&head) {
                let answer = part("bytes 0-0/1000000", "x");
                stream.write_all(answer.as_bytes()).unwrap();
            } else {
                get(stream.try_clone().unwrap(), &head);
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

/// The head of an answer to a request for the last part of that blob.
fn last_part(head: &str) -> String {
    let range = head.split("Range: bytes=").nth(1).unwrap();
    let first: usize = range.split('-').next().unwrap().parse().unwrap();
    format!(
        "HTTP/1.1 206 P\r\nContent-Range: bytes {first}-999999/1000000\r\nETag: \"v1\"\r\n\
         Content-Length: {}\r\n\r\n",
        1_000_000 - first
    )
}

#[test]
fn a_body_that_crawls_is_given_up() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = tries.clone();
    let address = server(move |mut stream, head| {
        counter.fetch_add(1, SeqCst);
        stream.write_all(last_part(head).as_bytes()).unwrap();
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
    let address = server(move |mut stream, _| {
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

/// An address where nobody answers: the queue of a socket that never accepts is full.
fn black_hole() -> (OwnedFd, Vec<TcpStream>, SocketAddr) {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    rustix::net::bind(&socket, &any).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket.try_clone().unwrap());
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        queue.push(stream);
    }
    (socket, queue, address)
}

#[test]
fn a_server_that_takes_no_connection_is_left_when_nobody_wants_the_answer() {
    let (_socket, _queue, address) = black_hole();
    let open = |limits: Limits, cancel: bool| {
        let guard = Guard::new(limits);
        let running = guard.clone();
        let source = source(address, 5);
        let opener = std::thread::spawn(move || running.run(|| source.open(&name("b"))));
        if cancel {
            guard.cancel();
        }
        opener.join().unwrap().err().unwrap().reason
    };
    let text = open(LIMITS, true);
    assert!(text.contains("nobody wants it any more"), "{text}");
    let silence = Limits {
        silence: Some(Duration::ZERO),
        retry: false,
        ..LIMITS
    };
    let text = open(silence, false);
    assert!(text.contains("nothing came for 0 s"), "{text}");
}

#[test]
fn sizes_and_what_says_them() {
    let size = |get: &'static str, head_answer: &'static str| {
        let (address, _) = scripted(move |_, head| {
            if head.starts_with("HEAD") {
                head_answer.into()
            } else {
                assert!(is_open(head), "{head}");
                get.into()
            }
        });
        source(address, 0).open(&name("b")).map(|blob| blob.size())
    };
    let part = "HTTP/1.1 206 P\r\nContent-Range: bytes 0-0/777\r\nContent-Length: 1\r\nETag: \"v\"\r\n\r\nx";
    // Nothing that HEAD says matters if GET says it.
    for head in ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""] {
        assert_eq!(size(part, head).unwrap(), 777);
    }
    let empty = "HTTP/1.1 416 R\r\nContent-Range: bytes */0\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(size(empty, "").unwrap(), 0);
    let nothing = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(size(nothing, "").unwrap(), 0);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(size(chunked, "").unwrap(), 0);
    let whole =
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"v\"\r\nConnection: close\r\n\r\n12345";
    assert_eq!(size(whole, "").unwrap(), 5);
    let denied = "HTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(size(denied, "").unwrap_err().errno, libc::EACCES);
    let missing = "HTTP/1.1 404 F\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(size(missing, "").unwrap_err().errno, libc::ENOENT);

    // GET does not say it, HEAD does; but it must be more than nothing, and the same version.
    let unknown =
        "HTTP/1.1 206 P\r\nContent-Range: bytes 0-0/*\r\nContent-Length: 1\r\nETag: \"v\"\r\n\r\nx";
    for (head, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Some(9)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nETag: \"w\"\r\n\r\n",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\n",
            None,
        ),
        ("HTTP/1.1 405 M\r\nContent-Length: 9\r\n\r\n", None),
    ] {
        assert_eq!(size(unknown, head).ok(), want, "{head}");
    }
    for length in [
        "-1",
        "9223372036854775808",
        "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6",
    ] {
        let text = format!(
            "HTTP/1.1 206 P\r\nContent-Range: bytes 0-0/777\r\nContent-Length: {length}\r\n\r\nx"
        );
        assert!(
            size(Box::leak(text.into_boxed_str()), "").is_err(),
            "{length}"
        );
    }
}

#[test]
fn redirects_are_followed_and_secrets_stay() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let there = seen.clone();
    let (other, _) = scripted(move |_, head| {
        there.lock().unwrap().push(head.to_string());
        if is_open(head) {
            open_10()
        } else {
            part("bytes 2-4/10", "234")
        }
    });
    for status in [301, 302, 303, 307, 308] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let here = asked.clone();
        let (address, _) = scripted(move |_, head| {
            here.lock().unwrap().push(head.to_string());
            format!("HTTP/1.1 {status} R\r\nLocation: http://{other}/x?sig=SECRET\r\nContent-Length: 0\r\n\r\n")
        });
        let source = with_options(HttpOptions {
            headers: vec![("X-Token".into(), "TOKEN".into())],
            ..options(&format!("http://user:PW@{address}/"))
        });
        let blob = source.open(&name("b")).unwrap();
        assert_eq!(bytes_2_to_4(&*blob).unwrap(), b"234");
        // It is this one that should not be asked for too much at once.
        assert_eq!(*blob.server(), *other.to_string());
        for head in asked.lock().unwrap().iter() {
            assert!(
                head.contains("\r\nAuthorization: Basic dXNlcjpQVw==\r\n"),
                "{head}"
            );
            assert!(head.contains("\r\nX-Token: TOKEN\r\n"), "{head}");
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 10);
    for head in seen.iter() {
        assert!(head.starts_with("GET /x?sig=SECRET HTTP/1.1\r\n"), "{head}");
        assert!(
            !head.contains("Authorization") && !head.contains("TOKEN"),
            "{head}"
        );
    }
}

#[test]
fn bad_redirects_end() {
    for (fields, text) in [
        ("Location: /again\r\n", "more than 10 times"),
        ("", "without saying where"),
        ("Location: gopher://x/\r\n", "URL that is none"),
    ] {
        let (address, _) =
            scripted(move |_, _| format!("HTTP/1.1 302 R\r\n{fields}Content-Length: 0\r\n\r\n"));
        let err = source(address, 5).open(&name("b")).err().unwrap();
        assert!(err.reason.contains(text), "{err}");
    }
}

#[test]
fn a_signature_that_has_expired_is_made_anew() {
    for (denials, works) in [(1, true), (2, false)] {
        let (address, _) = scripted({
            let denied = AtomicUsize::new(0);
            move |_, head| {
                if head.starts_with("GET /b ") {
                    "HTTP/1.1 307 R\r\nLocation: /signed?s=1\r\nContent-Length: 0\r\n\r\n".into()
                } else if denied.fetch_add(1, SeqCst) < denials {
                    empty("403 Forbidden")
                } else {
                    open_10()
                }
            }
        });
        let result = source(address, 0).open(&name("b"));
        assert_eq!(result.is_ok(), works);
    }
}

#[test]
fn secrets_are_in_no_message() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let source = with_options(options(&format!("http://user:PW@{address}/d")));
    let err = source.open(&name("b\n\x1b")).err().unwrap();
    assert!(
        !err.reason.contains("PW") && !err.reason.contains("user"),
        "{err}"
    );
    assert!(
        err.reason
            .starts_with(&format!("http://{address}/d/b%0A%1B: ")),
        "{err}"
    );
    for wrong in [
        "http://user:PW@/x",
        "user:PW@host/x",
        "ftp://user:PW@h",
        "http://user:PW@h/?s=PW",
    ] {
        let err = client(wrong, 0, Arc::new(Stop::new().unwrap()))
            .err()
            .unwrap();
        assert!(!err.contains("PW"), "{err}");
    }
    // What a server says may do no harm on a terminal.
    let err = read_from(&tagged("bytes 2-4/10", "ETag: \"\x1b[2J\"", "234"), 0).unwrap_err();
    assert!(
        !err.reason.contains('\x1b') && err.reason.contains("has changed"),
        "{err}"
    );
}

/// What a proxy that answers all by itself is asked.
fn proxied(url: &str, variable: &'static str) -> (Result<u64, String>, Vec<String>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let here = asked.clone();
    let (address, _) = scripted(move |_, head| {
        here.lock().unwrap().push(head.to_string());
        if head.starts_with("CONNECT") {
            empty("403 Forbidden")
        } else {
            open_10()
        }
    });
    let proxies =
        Proxies::from_variables(|name| (name == variable).then(|| format!("http://u:p@{address}")));
    let source = with_options(HttpOptions {
        proxies: proxies.unwrap(),
        ..options(url)
    });
    let result = source.open(&name("b"));
    let result = result.map(|blob| blob.size()).map_err(|err| err.reason);
    let asked = asked.lock().unwrap().clone();
    (result, asked)
}

#[test]
fn proxies_get_the_whole_url() {
    let (result, asked) = proxied("HTTP://blobs.invalid:8080/d", "http_proxy");
    assert_eq!(result, Ok(10));
    assert!(
        asked[0].starts_with(
            "GET http://blobs.invalid:8080/d/b HTTP/1.1\r\nHost: blobs.invalid:8080\r\n"
        ),
        "{asked:?}"
    );
    assert!(
        asked[0].contains("\r\nProxy-Authorization: Basic dTpw\r\n"),
        "{asked:?}"
    );
    // A proxy for https is none for http.
    let (result, asked) = proxied("http://127.0.0.1:1", "https_proxy");
    assert!(result.is_err() && asked.is_empty(), "{asked:?}");
}

#[cfg(feature = "tls")]
#[test]
fn https_goes_through_proxies_in_tunnels() {
    let (result, asked) = proxied("https://blobs.invalid/d", "https_proxy");
    assert!(result
        .unwrap_err()
        .contains("refuses the connection with status 403"));
    assert!(
        asked[0].starts_with("CONNECT blobs.invalid:443 HTTP/1.1\r\nHost: blobs.invalid:443\r\n"),
        "{asked:?}"
    );
    assert!(!asked[0].contains("GET"), "{asked:?}");
}

#[test]
fn urls_are_checked() {
    let stop = Arc::new(Stop::new().unwrap());
    for wrong in ["", "host/path", "ftp://x/", "http://x/?a=b", "http://x/#y"] {
        assert!(client(wrong, 0, stop.clone()).is_err(), "{wrong}");
    }
    assert!(client("http://127.0.0.1:1/a/", 0, stop.clone()).is_ok());
    assert!(client("HTTP://127.0.0.1:1/a/", 0, stop).is_ok());
}

/// A server of a blob of 10 bytes whose certificate is of a private authority.
#[cfg(feature = "tls")]
fn tls_server() -> (SocketAddr, Arc<AtomicUsize>) {
    use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
    let cert = CertificateDer::from_pem_slice(include_bytes!("testdata/cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            counter.fetch_add(1, SeqCst);
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let stream = rustls::StreamOwned::new(connection, socket.unwrap());
            let mut stream = BufReader::new(stream);
            loop {
                let mut head = String::new();
                while stream.read_line(&mut head).unwrap_or(0) > 0 && !head.ends_with("\r\n\r\n") {}
                let answer = match head.as_str() {
                    "" => break,
                    head if is_open(head) => open_10(),
                    _ => part("bytes 2-4/10", "234"),
                };
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (address, connections)
}

#[cfg(feature = "tls")]
#[test]
fn private_authorities_are_believed_if_the_user_does() {
    let ca = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/source/http/testdata/ca.pem"
    );
    let (address, connections) = tls_server();
    for host in ["localhost", "127.0.0.1"] {
        let source = with_options(HttpOptions {
            ca_file: Some(ca.into()),
            ..options(&format!("https://{host}:{}", address.port()))
        });
        let blob = source.open(&name("b")).unwrap();
        assert_eq!(bytes_2_to_4(&*blob).unwrap(), b"234");
    }
    assert_eq!(connections.load(SeqCst), 2);
    // Without, it is refused, at once and for good.
    let source = with_options(HttpOptions {
        retries: 5,
        ..options(&format!("https://localhost:{}", address.port()))
    });
    let err = source.open(&name("b")).err().unwrap();
    assert!(err.reason.contains("UnknownIssuer"), "{err}");
    assert_eq!(connections.load(SeqCst), 3);
    for wrong in ["/no/such/file", "/dev/null"] {
        let options = HttpOptions {
            ca_file: Some(wrong.into()),
            ..options("https://h/")
        };
        let stop = Arc::new(Stop::new().unwrap());
        assert!(HttpSource::new(options, Report::silent(), stop).is_err());
    }
}

#[cfg(feature = "tls")]
#[test]
fn tls_refuses_a_server_without_it() {
    let (address, _) = scripted(|_, _| "HTTP/1.1 200 OK\r\n\r\n".into());
    let stop = Arc::new(Stop::new().unwrap());
    let source = client(&format!("https://{address}"), 0, stop).unwrap();
    assert_eq!(source.open(&name("b")).err().unwrap().errno, libc::EIO);
}
