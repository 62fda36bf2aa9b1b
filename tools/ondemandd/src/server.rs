// SPDX-License-Identifier: GPL-2.0-or-later

//! The control socket: whoever may open it may ask the daemon how it is and have it do things.
//!
//! Each connection has one request and one answer. A request that begins with "GET /metrics" is one
//! of HTTP, and is answered with the metrics, so that a collector can be pointed at the socket.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::net::{
    bind, listen, socket_with, AddressFamily, SocketAddrUnix, SocketFlags, SocketType,
};

use crate::api::{Reply, Request, MAX_REQUEST};
use crate::device::strip_code;
use crate::pool;
use crate::stop::Stop;

/// So many connections are served at once.
const CONNECTIONS: usize = 16;

/// How long a client may take to ask, and to take a part of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers requests.
pub trait Answer: Send + Sync {
    fn answer(&self, request: Request) -> Reply;
}

/// A socket that is listened to. It is removed at the end.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Makes the socket, which only the user of this process can connect to. One that nobody
    /// listens to is replaced.
    pub fn new(path: &Path) -> Result<Self, String> {
        let fail = |err: &io::Error| {
            let path = path.display();
            format!("cannot make the control socket {path}: {}", strip_code(err))
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)
                .map_err(|err| fail(&err))?;
        }
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
            if UnixStream::connect(path).is_ok() {
                let shown = path.display();
                return Err(format!(
                    "another daemon listens to the control socket {shown}"
                ));
            }
            fs::remove_file(path).map_err(|err| fail(&err))?;
        }
        let listener = Self::listen(path).map_err(|err| fail(&err))?;
        Ok(Self {
            listener: listener.into(),
            path: path.to_path_buf(),
        })
    }

    fn listen(path: &Path) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        // Nobody can connect before it is listened to.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listen(&socket, 16)?;
        Ok(socket)
    }

    /// Answers until there is a stop.
    pub fn run(&self, answers: &Arc<impl Answer + 'static>, stop: &Stop) {
        let connections = Arc::new(AtomicUsize::new(0));
        while !stop.is_set() {
            let mut fds = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(stop, PollFlags::IN),
            ];
            // An error is EINTR.
            let _ = poll(&mut fds, None);
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(err) if err.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => {
                    // There may be no descriptor left.
                    stop.sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if connections.fetch_add(1, SeqCst) >= CONNECTIONS {
                connections.fetch_sub(1, SeqCst);
                continue;
            }
            let (answers, count) = (Arc::clone(answers), Counted(Arc::clone(&connections)));
            // Without a thread the client gets no answer.
            let _ = pool::spawn("control", move || {
                let _count = count;
                // The client may have gone.
                let _ = serve(stream, &*answers);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A connection.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn serve(mut stream: UnixStream, answers: &impl Answer) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = Vec::new();
    BufReader::new(Read::take(&stream, MAX_REQUEST)).read_until(b'\n', &mut line)?;
    if let Some(rest) = line.strip_prefix(b"GET ") {
        return serve_http(&mut stream, rest, answers);
    }
    let reply = match serde_json::from_slice(&line) {
        Ok(request) => answers.answer(request),
        Err(err) => Reply::Error(format!("the request is not understood: {err}")),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    stream.write_all(&text)
}

fn serve_http(stream: &mut UnixStream, rest: &[u8], answers: &impl Answer) -> io::Result<()> {
    let found = rest.starts_with(b"/metrics ");
    let reply = found.then(|| answers.answer(Request::Metrics));
    let (status, text) = match reply {
        Some(Reply::Metrics(text)) => ("200 OK", text),
        _ => ("404 Not Found", String::new()),
    };
    let length = text.len();
    write!(
        stream,
        "HTTP/1.0 {status}\r\n\
         Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {length}\r\n\r\n{text}"
    )?;
    // What is left of the request, so that closing the connection does not throw the answer away.
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut rest = Vec::new();
    Read::take(stream, MAX_REQUEST)
        .read_to_end(&mut rest)
        .map(drop)
}

/// Asks a daemon.
pub fn ask(path: &Path, request: &Request) -> Result<Reply, String> {
    let shown = path.display();
    let fail = |err: io::Error| format!("cannot ask the daemon at {shown}: {}", strip_code(&err));
    let mut stream = UnixStream::connect(path).map_err(|err| match err.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            format!("no daemon listens at {shown} (is it running, with --control-socket {shown}?)")
        }
        _ => fail(err),
    })?;
    let mut text = serde_json::to_vec(request).map_err(|err| err.to_string())?;
    text.push(b'\n');
    stream.write_all(&text).map_err(fail)?;
    let mut text = Vec::new();
    Read::take(&stream, crate::api::MAX_REPLY)
        .read_to_end(&mut text)
        .map_err(fail)?;
    serde_json::from_slice(&text).map_err(|err| {
        if text.is_empty() {
            format!("the daemon at {shown} has not answered; it may be busy, or ending")
        } else {
            format!("the answer of the daemon at {shown} is not understood: {err}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Answer for Fake {
        fn answer(&self, request: Request) -> Reply {
            match request {
                Request::Metrics => Reply::Metrics("# EOF\n".into()),
                Request::Remove { name } => Reply::Error(name),
                _ => Reply::Done,
            }
        }
    }

    fn with_server(test: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/sock");
        let stop = Stop::new().unwrap();
        let server = Server::new(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| server.run(&Arc::new(Fake), &stop));
            test(&path);
            stop.set();
        });
        drop(server);
        assert!(!path.exists());
    }

    fn raw(path: &Path, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn requests_are_answered() {
        with_server(|path| {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let reply = ask(path, &Request::Remove { name: "x".into() });
            assert!(matches!(reply, Ok(Reply::Error(text)) if text == "x"));
            assert!(matches!(
                ask(path, &Request::Status { name: None }),
                Ok(Reply::Done)
            ));
            assert!(raw(path, b"nonsense\n").contains("not understood"));
            let text = raw(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("\r\n\r\n# EOF\n"));
            assert!(raw(path, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.0 404"));
        });
    }

    #[test]
    fn a_request_without_end_is_refused() {
        with_server(|path| {
            let long = vec![b'x'; MAX_REQUEST as usize];
            assert!(raw(path, &long).contains("not understood"));
        });
    }

    #[test]
    fn only_a_socket_that_nobody_uses_is_replaced() {
        with_server(|path| {
            let err = Server::new(path).map(drop).unwrap_err();
            assert!(err.contains("another daemon"), "{err}");
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        drop(UnixListener::bind(&path).unwrap());
        drop(Server::new(&path).unwrap());
        fs::write(&path, b"precious").unwrap();
        assert!(Server::new(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let err = ask(&path, &Request::Metrics).unwrap_err();
        assert!(err.contains("no daemon listens"), "{err}");
    }

    #[test]
    fn connections_without_end_do_not_take_everything() {
        with_server(|path| {
            let silent: Vec<UnixStream> = (0..CONNECTIONS)
                .map(|_| UnixStream::connect(path).unwrap())
                .collect();
            // They are accepted one after the other; the next one is not served.
            let mut stream = UnixStream::connect(path).unwrap();
            let mut text = String::new();
            let _ = stream.write_all(b"{\"command\":\"metrics\"}\n");
            let _ = stream.read_to_string(&mut text);
            assert_eq!(text, "");
            drop(silent);
            while ask(path, &Request::Metrics).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
}
