// SPDX-License-Identifier: GPL-2.0-or-later

//! A directory as a web server with ranges, for the tests and the demonstration of ondemandd. A thread per
//! connection; no TLS, no listings. It is not meant for anybody else's requests: serve images with a web
//! server of a distribution, or a registry.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// An idle connection is closed after this.
const IDLE: Duration = Duration::from_secs(60);
const MAX_HEADER: u64 = 16 << 10;

/// What is served.
pub struct Server {
    pub dir: PathBuf,
}

impl Server {
    /// Serves until the process ends.
    pub fn run(self: &Arc<Self>, listener: &TcpListener) -> ! {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let server = Arc::clone(self);
                    let thread = std::thread::Builder::new().name("connection".into());
                    // Without a thread the connection is closed; the client tries again.
                    let _ = thread.spawn(move || server.connection(&stream));
                }
                // The connection is lost, not the listener, or there are too many files, which passes.
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn connection(&self, stream: &TcpStream) {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(IDLE));
        let _ = stream.set_write_timeout(Some(IDLE));
        let mut reader = BufReader::new(stream);
        // An error is the end of this connection, and of nothing else.
        while let Ok(true) = self.exchange(&mut reader, stream) {}
    }

    /// One request and its response; true if another may follow.
    fn exchange(&self, reader: &mut BufReader<&TcpStream>, stream: &TcpStream) -> io::Result<bool> {
        let request = match Request::read(reader) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(false),
            Err(err) if err.kind() == ErrorKind::InvalidData => {
                Response::status(400).send(stream, false, false)?;
                return Ok(false);
            }
            Err(err) => return Err(err),
        };
        let response = self.respond(&request);
        let head = request.method == "HEAD";
        response.send(stream, request.keep_alive, !head)?;
        Ok(request.keep_alive)
    }

    fn respond(&self, request: &Request) -> Response {
        if request.method != "GET" && request.method != "HEAD" {
            let mut response = Response::status(405);
            response.headers.push(("Allow", "GET, HEAD".into()));
            return response;
        }
        let file = decode_path(&request.target).and_then(|path| self.open(&path));
        let Some((file, size, etag)) = file else {
            return Response::status(404);
        };
        let wanted = |tags: &String| {
            let mut tags = tags.split(',').map(str::trim);
            tags.any(|tag| tag == "*" || tag == etag)
        };
        if !request.if_match.as_ref().is_none_or(wanted) {
            let mut response = Response::status(412);
            response.headers.push(("ETag", etag));
            return response;
        }
        let ranges_apply = request.if_range.as_ref().is_none_or(|tag| *tag == etag);
        let range = match &request.range {
            Some(text) if ranges_apply => parse_range(text, size),
            _ => RangeRequest::Whole,
        };
        let mut response = match range {
            RangeRequest::Whole => Response::file(200, file, 0..size),
            RangeRequest::Part(part) => {
                let text = format!("bytes {}-{}/{size}", part.start, part.end - 1);
                let mut response = Response::file(206, file, part);
                response.headers.push(("Content-Range", text));
                response
            }
            RangeRequest::Unsatisfiable => {
                let mut response = Response::status(416);
                response
                    .headers
                    .push(("Content-Range", format!("bytes */{size}")));
                response
            }
        };
        response.headers.push(("Accept-Ranges", "bytes".into()));
        response.headers.push(("ETag", etag));
        response
    }

    fn open(&self, path: &Path) -> Option<(File, u64, String)> {
        let path = self.dir.join(path);
        // Looked at before it is opened: a FIFO would wait.
        if !path.metadata().ok()?.is_file() {
            return None;
        }
        let file = File::open(path).ok()?;
        let meta = file.metadata().ok()?;
        let etag = etag(&meta);
        meta.is_file().then_some((file, meta.len(), etag))
    }
}

/// A strong tag: it changes with each file that is put in the place of another one, and each time that
/// one is written to. The ctime is for writers that set the mtime back.
fn etag(meta: &Metadata) -> String {
    format!(
        "\"{:x}-{:x}-{:x}.{:x}-{:x}.{:x}\"",
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}

struct Request {
    method: String,
    target: String,
    range: Option<String>,
    if_range: Option<String>,
    if_match: Option<String>,
    keep_alive: bool,
}

fn bad_request() -> io::Error {
    io::Error::from(ErrorKind::InvalidData)
}

impl Request {
    /// Reads a request's head. `None`: the client has closed the connection.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = reader.take(MAX_HEADER);
        let mut first = String::new();
        if head.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut words = first.split_ascii_whitespace();
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad_request());
        };
        if !version.starts_with("HTTP/1.") {
            return Err(bad_request());
        }
        let mut request = Self {
            method: method.to_string(),
            target: target.to_string(),
            range: None,
            if_range: None,
            if_match: None,
            keep_alive: version != "HTTP/1.0",
        };
        let mut has_body = false;
        loop {
            let mut line = String::new();
            head.read_line(&mut line)?;
            if !line.ends_with('\n') {
                // The head is longer than allowed, or cut off.
                return Err(bad_request());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(bad_request)?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.to_string()),
                "if-match" => request.if_match = Some(value.to_string()),
                "if-range" => request.if_range = Some(value.to_string()),
                "connection" => {
                    let value = value.to_ascii_lowercase();
                    if value.split(',').any(|word| word.trim() == "close") {
                        request.keep_alive = false;
                    } else if value.split(',').any(|word| word.trim() == "keep-alive") {
                        request.keep_alive = true;
                    }
                }
                "content-length" => has_body |= value != "0",
                "transfer-encoding" => has_body = true,
                _ => {}
            }
        }
        if has_body {
            // Bodies are not read, so what follows would not be a request.
            request.keep_alive = false;
        }
        Ok(Some(request))
    }
}

/// The file a request's target means, below the directory that is served.
fn decode_path(target: &str) -> Option<PathBuf> {
    let path = target.split(['?', '#']).next()?.strip_prefix('/')?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = [rest.next()?, rest.next()?];
        let hex = std::str::from_utf8(&hex).ok()?;
        if !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
    }
    let path = String::from_utf8(bytes).ok()?;
    if path.contains('\0') {
        return None;
    }
    let path = PathBuf::from(path);
    path.components()
        .all(|part| matches!(part, Component::Normal(_)))
        .then_some(path)
}

#[derive(Debug, PartialEq, Eq)]
enum RangeRequest {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// `bytes=first-last`, `bytes=first-`, `bytes=-length`. Anything else, several ranges included, may be
/// answered as if there were no Range field (RFC 9110, 14.2).
fn parse_range(text: &str, size: u64) -> RangeRequest {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return RangeRequest::Whole;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // Digits that do not fit are a number beyond every file.
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    let range = match (digits(first), digits(last)) {
        (true, true) if number(first) > number(last) => return RangeRequest::Whole,
        (true, true) => number(first)..number(last).saturating_add(1).min(size),
        (true, false) if last.is_empty() => number(first)..size,
        (false, true) if first.is_empty() => size.saturating_sub(number(last))..size,
        _ => return RangeRequest::Whole,
    };
    if range.start >= range.end {
        return RangeRequest::Unsatisfiable;
    }
    RangeRequest::Part(range)
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Option<(File, Range<u64>)>,
}

impl Response {
    fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: None,
        }
    }

    fn file(status: u16, file: File, range: Range<u64>) -> Self {
        Self {
            body: Some((file, range)),
            headers: vec![("Content-Type", "application/octet-stream".into())],
            ..Self::status(status)
        }
    }

    fn body_len(&self) -> u64 {
        self.body.as_ref().map_or(0, |(_, r)| r.end - r.start)
    }

    fn send(self, mut stream: &TcpStream, keep_alive: bool, with_body: bool) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            206 => "Partial Content",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            412 => "Precondition Failed",
            _ => "Range Not Satisfiable",
        };
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut head = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Length: {}\r\nConnection: {connection}\r\n",
            self.status,
            self.body_len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if let (Some((mut file, range)), true) = (self.body, with_body) {
            let len = range.end - range.start;
            file.seek(SeekFrom::Start(range.start))?;
            let sent = io::copy(&mut file.take(len), &mut stream)?;
            if sent != len {
                // The file has shrunk. Closing is the only way to say so.
                return Err(io::Error::from(ErrorKind::UnexpectedEof));
            }
        }
        Ok(())
    }
}

/// The tag of a file.
pub fn etag_of(path: &Path) -> io::Result<String> {
    Ok(etag(&path.metadata()?))
}

/// Starts a server of `dir` on a free port, for the life of the process.
pub fn start(dir: &Path) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = Arc::new(Server { dir: dir.into() });
    std::thread::spawn(move || server.run(&listener));
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(start: u64, end: u64) -> RangeRequest {
        RangeRequest::Part(start..end)
    }

    #[test]
    fn ranges() {
        use RangeRequest::{Unsatisfiable, Whole};
        for (text, size, want) in [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=0-99", 10, part(0, 10)),
            ("bytes=9-9", 10, part(9, 10)),
            ("bytes=4-", 10, part(4, 10)),
            ("bytes=-3", 10, part(7, 10)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=0-18446744073709551615", 10, part(0, 10)),
            ("bytes=0-99999999999999999999999", 10, part(0, 10)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-11", 10, Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-0", 0, Unsatisfiable),
            ("bytes=5-4", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("lines=0-1", 10, Whole),
        ] {
            assert_eq!(parse_range(text, size), want, "{text} of {size}");
        }
    }

    #[test]
    fn targets_stay_below_the_directory() {
        let decode = |target| decode_path(target).map(|p| p.to_str().unwrap().to_string());
        assert_eq!(decode("/a/b.img?x=1").unwrap(), "a/b.img");
        assert_eq!(decode("/a%20b%C3%B6").unwrap(), "a b\u{f6}");
        for bad in [
            "/../x",
            "/a/../../x",
            "/%2e%2e/x",
            "//etc/passwd",
            "x",
            "/%",
            "/%+1",
            "/%ff",
            "/%00",
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    /// Sends raw requests over one connection and returns everything that comes back.
    fn talk(address: SocketAddr, requests: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[test]
    fn requests_and_responses() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"0123456789").unwrap();
        std::fs::write(dir.path().join("empty"), b"").unwrap();
        let address = start(dir.path()).unwrap();
        let get = |rest: &str| {
            talk(
                address,
                &format!("GET /f HTTP/1.1\r\nConnection: close\r\n{rest}\r\n"),
            )
        };

        let whole = get("");
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n"), "{whole}");
        assert!(whole.contains("Content-Length: 10\r\n") && whole.ends_with("\r\n\r\n0123456789"));
        let some = get("range: bytes=2-4\r\n");
        assert!(
            some.starts_with("HTTP/1.1 206 Partial Content\r\n"),
            "{some}"
        );
        assert!(some.contains("Content-Range: bytes 2-4/10\r\n"), "{some}");
        assert!(some.contains("Content-Length: 3\r\n") && some.ends_with("\r\n\r\n234"));
        let none = get("Range: bytes=10-\r\n");
        assert!(none.starts_with("HTTP/1.1 416 "), "{none}");
        assert!(
            none.contains("Content-Range: bytes */10\r\n")
                && none.contains("Content-Length: 0\r\n")
        );
        let other = get("Range: bytes=2-4\r\nIf-Range: \"other\"\r\n");
        assert!(other.starts_with("HTTP/1.1 200 "), "{other}");

        let tag = etag_of(&dir.path().join("f")).unwrap();
        for (tags, status) in [
            ("\"other\"".to_string(), "412"),
            (format!("\"other\", {tag}"), "206"),
            ("*".to_string(), "206"),
        ] {
            let answer = get(&format!("Range: bytes=2-4\r\nIf-Match: {tags}\r\n"));
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }

        // Three requests on one connection, the second without a body.
        let three = talk(
            address,
            "GET /f HTTP/1.1\r\nRange: bytes=0-1\r\n\r\nHEAD /f HTTP/1.1\r\n\r\nGET /none HTTP/1.0\r\n\r\n",
        );
        let heads: Vec<&str> = three
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &three[at + 9..at + 12])
            .collect();
        assert_eq!(heads, ["206", "200", "404"], "{three}");
        assert_eq!(three.matches("0123456789").count(), 0);

        assert!(
            talk(address, "POST /f HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
                .starts_with("HTTP/1.1 405 ")
        );
        assert!(talk(address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let long = format!("GET /f HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(!talk(address, &long).contains(" 200 "));
        let empty = talk(address, "GET /empty HTTP/1.0\r\nRange: bytes=0-0\r\n\r\n");
        assert!(
            empty.starts_with("HTTP/1.1 416 ") && empty.contains("bytes */0"),
            "{empty}"
        );
        assert!(talk(address, "GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));
    }
}
