// SPDX-License-Identifier: GPL-2.0-or-later

//! HTTP/1.1 as far as fetching ranges needs it: GET, redirects, connections that are kept, proxies.
//!
//! By hand, although there are libraries: a fetch must end at once when nobody wants it any more, keep its
//! lowest speed and its time over all tries ([`guard`]), resume behind the last byte that came, and take
//! nothing for the answer that is not exactly it. The libraries have one time limit per request and hide
//! the connection, and none of them compares what a 206 says with what was asked for.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
#[cfg(feature = "tls")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{socket_with, AddressFamily, SocketFlags, SocketType};

use super::proxy::Proxies;
use super::url::Url;
use super::{Failure, Passing};
use crate::guard;
use crate::report::escape;
use crate::stop::Stop;

/// How long connecting to one address may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a wait looks whether it is still wanted.
const TICK: Duration = Duration::from_millis(100);

/// How much is read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 64 << 10;

const MAX_REDIRECTS: u32 = 10;

/// As much of a body that nobody wants is read to keep its connection.
const MAX_SKIP: u64 = 64 << 10;

pub struct Client {
    proxies: Proxies,
    timeout: Duration,
    stop: Arc<Stop>,
    /// Connections on which the next request can be sent, the newest one last.
    idle: Mutex<Vec<Connection>>,
    max_idle: usize,
    #[cfg(feature = "tls")]
    tls: Tls,
}

/// Whom to believe, and who this is.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "tls"), allow(dead_code))]
pub struct Trust {
    /// Files with certificates of the authorities to believe, instead of the system's.
    pub only: Vec<PathBuf>,
    /// The same, besides the system's.
    pub also: Vec<PathBuf>,
    /// The certificate and the key to show, if the server wants to see one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What TLS needs, which takes a moment to read. Not everybody uses it.
#[cfg(feature = "tls")]
struct Tls {
    trust: Trust,
    config: OnceLock<Arc<rustls::ClientConfig>>,
}

#[cfg(feature = "tls")]
impl Tls {
    fn config(&self) -> Result<&Arc<rustls::ClientConfig>, String> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = super::tls::config(&self.trust)?;
        Ok(self.config.get_or_init(|| config))
    }
}

/// Name and value of a field of a request.
pub type Field<'a> = (&'a str, &'a str);

impl Client {
    pub fn new(
        proxies: Proxies,
        timeout: Duration,
        max_idle: usize,
        #[cfg_attr(not(feature = "tls"), allow(unused))] trust: Trust,
        stop: Arc<Stop>,
    ) -> Self {
        Self {
            proxies,
            timeout,
            stop,
            idle: Mutex::default(),
            max_idle,
            #[cfg(feature = "tls")]
            tls: Tls {
                trust,
                config: OnceLock::new(),
            },
        }
    }

    /// Fails if https:// cannot be used.
    pub fn check_tls(&self) -> Result<(), String> {
        #[cfg(feature = "tls")]
        return self.tls.config().map(|_| ());
        #[cfg(not(feature = "tls"))]
        Err("this program was built without the feature \"tls\"; use http://".into())
    }

    /// Sends a request and follows redirects; the answer's body is still to be read. `private` fields
    /// go to the host of `url` only.
    pub fn send(
        &self,
        method: &str,
        url: &Url,
        fields: &[Field<'_>],
        private: &[Field<'_>],
    ) -> Result<Response<'_>, Failure> {
        let mut target = url.clone();
        for redirects in 0..=MAX_REDIRECTS {
            let mut all = fields.to_vec();
            if target.same_origin(url) {
                all.extend(private);
            }
            let response = self.send_once(method, &target, &all, "");
            let mut response = match redirects {
                0 => response?,
                _ => response.map_err(Failure::elsewhere)?,
            };
            response.redirects = redirects;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.field("location").ok_or_else(|| {
                Failure::fatal(libc::EIO, "the server redirects without saying where to")
            })?;
            target = target.join(location).map_err(|reason| {
                Failure::fatal(
                    libc::EIO,
                    format!("the server redirects to a URL that is none: {reason}"),
                )
            })?;
            response.finish();
        }
        Err(Failure::fatal(
            libc::EIO,
            format!("the server redirects more than {MAX_REDIRECTS} times"),
        ))
    }

    /// Sends a form to a URL; redirects are not followed.
    pub fn post(&self, url: &Url, form: &str) -> Result<Response<'_>, Failure> {
        let length = form.len().to_string();
        let fields = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", length.as_str()),
        ];
        self.send_once("POST", url, &fields, form)
    }

    fn send_once(
        &self,
        method: &str,
        url: &Url,
        fields: &[Field<'_>],
        body: &str,
    ) -> Result<Response<'_>, Failure> {
        let proxy = self.proxies.find(url);
        let target = match proxy {
            // RFC 9112, 3.2.2: a proxy is told the whole URL. CONNECT is for https.
            Some(_) if !url.tls => format!("http://{}{}", url.authority(), url.target),
            _ => url.target.clone(),
        };
        let accepts = fields
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("accept"));
        let accept = if accepts { "" } else { "Accept: */*\r\n" };
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: ondemandd/{}\r\n{accept}\
             Accept-Encoding: identity\r\n",
            url.authority(),
            env!("CARGO_PKG_VERSION")
        );
        let basic = url.basic.as_deref().map(|basic| ("Authorization", basic));
        let for_proxy = proxy
            .filter(|_| !url.tls)
            .and_then(|proxy| proxy.basic.as_deref())
            .map(|basic| ("Proxy-Authorization", basic));
        // What the user has set by himself counts more than what is in the URL.
        let basic = basic.filter(|_| {
            !fields
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        });
        for (name, value) in fields.iter().copied().chain(basic).chain(for_proxy) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        head.push_str(body);

        // A server may have closed a connection that was idle; that says nothing about the request.
        while let Some(mut connection) = self.take_idle(url) {
            match connection.exchange(&head) {
                Ok(answer) => return self.response(method, url, connection, answer),
                Err(Broken { err, silent: true }) if is_closed(&err) => {}
                Err(broken) => return Err(broken.into()),
            }
        }
        let mut connection = self.connect(url)?;
        let answer = connection.exchange(&head)?;
        self.response(method, url, connection, answer)
    }

    fn response(
        &self,
        method: &str,
        url: &Url,
        connection: Connection,
        head: Head,
    ) -> Result<Response<'_>, Failure> {
        let (framing, keep) = head.framing(method == "HEAD").map_err(Failure::passing)?;
        Ok(Response {
            status: head.status,
            url: url.clone(),
            redirects: 0,
            fields: head.fields,
            client: self,
            connection: Some(connection),
            framing,
            keep,
        })
    }

    fn take_idle(&self, url: &Url) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().rposition(|one| one.key.same_origin(url))?;
        Some(idle.remove(at))
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= self.max_idle && !idle.is_empty() {
            idle.remove(0);
        }
        if self.max_idle > 0 {
            idle.push(connection);
        }
    }

    fn connect(&self, url: &Url) -> Result<Connection, Failure> {
        let proxy = self.proxies.find(url);
        let (host, port) = match proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (url.host.as_str(), url.port),
        };
        let socket = self.connect_to(host, port)?;
        #[allow(unused_mut)]
        let mut plain = self.connection(url, Transport::Plain(socket));
        if !url.tls {
            return Ok(plain);
        }
        if let Some(proxy) = proxy {
            plain.tunnel(url, proxy.basic.as_deref())?;
        }
        self.start_tls(url, plain)
    }

    fn connection(&self, url: &Url, transport: Transport) -> Connection {
        let patient = Patient {
            transport,
            timeout: self.timeout,
            stop: Arc::clone(&self.stop),
        };
        Connection {
            key: url.clone(),
            stream: BufReader::with_capacity(BUFFER, patient),
        }
    }

    fn connect_to(&self, host: &str, port: u16) -> Result<TcpStream, Failure> {
        let passing = |what: &str, err: &io::Error| {
            let err = crate::device::strip_code(err);
            Failure::down(format!("{what} {host}: {err}"))
        };
        let addresses = (host, port)
            .to_socket_addrs()
            .map_err(|err| passing("cannot resolve", &err))?;
        let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
        for address in addresses {
            match connect(&address, &self.stop) {
                Ok(socket) => {
                    socket
                        .set_read_timeout(Some(TICK))
                        .and_then(|()| socket.set_write_timeout(Some(TICK)))
                        .and_then(|()| socket.set_nodelay(true))
                        .map_err(|err| passing("cannot set up a connection to", &err))?;
                    return Ok(socket);
                }
                Err(err) => last = err,
            }
        }
        Err(passing("cannot connect to", &last))
    }

    #[cfg(feature = "tls")]
    fn start_tls(&self, url: &Url, plain: Connection) -> Result<Connection, Failure> {
        use super::tls;
        let Transport::Plain(socket) = plain.stream.into_inner().transport else {
            return Err(Failure::fatal(libc::EIO, "TLS inside of TLS"));
        };
        let config = self.tls.config();
        let mut stream = config
            .and_then(|config| tls::start(config, &url.host, socket))
            .map_err(|reason| Failure::fatal(libc::EIO, reason))?;
        let start = Instant::now();
        loop {
            match tls::handshake(&mut stream) {
                Ok(true) => break,
                Ok(false) => {}
                Err(err) if is_tick(&err) => go_on(start, self.timeout, &self.stop)
                    .map_err(|err| Failure::passing(format!("TLS: {err}")))?,
                Err(err) if tls::is_final(&err) => {
                    return Err(Failure::fatal(libc::EIO, format!("TLS: {err}")))
                }
                Err(err) => return Err(Failure::down(format!("TLS: {err}"))),
            }
        }
        Ok(self.connection(url, Transport::Tls(Box::new(stream))))
    }

    #[cfg(not(feature = "tls"))]
    fn start_tls(&self, _: &Url, _: Connection) -> Result<Connection, Failure> {
        Err(Failure::fatal(
            libc::EIO,
            "the server redirects to https, and this program was built without the feature \"tls\"",
        ))
    }
}

enum Transport {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<super::tls::TlsStream>),
}

/// Whether an error only says that nothing came for a [`TICK`].
fn is_tick(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Whether an error says that the other end has closed the connection.
fn is_closed(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

/// A transport whose waits end: after `timeout` without a byte, when the daemon stops, or when the
/// guard of the thread says so.
struct Patient {
    transport: Transport,
    timeout: Duration,
    stop: Arc<Stop>,
}

fn go_on(start: Instant, timeout: Duration, stop: &Stop) -> io::Result<()> {
    if stop.is_set() {
        return Err(io::Error::other("stopping"));
    }
    guard::go_on(start, timeout)
}

/// Connects, unless that takes longer than [`CONNECT_TIMEOUT`] or is not wanted any more.
fn connect(address: &SocketAddr, stop: &Stop) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    let start = Instant::now();
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            while !is_connected(&socket)? {
                go_on(start, CONNECT_TIMEOUT, stop)?;
            }
        }
        Err(err) => return Err(err.into()),
    }
    let socket = TcpStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Waits for a [`TICK`] until a socket is connected.
fn is_connected(socket: &OwnedFd) -> io::Result<bool> {
    let tick = Timespec {
        tv_sec: 0,
        tv_nsec: TICK.as_nanos() as _,
    };
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    match poll(&mut fds, Some(&tick)) {
        Ok(0) | Err(Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(err) => return Err(err.into()),
    }
    socket_error(socket)??;
    Ok(true)
}

impl Patient {
    fn retry<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Transport) -> io::Result<T>,
    ) -> io::Result<T> {
        let start = Instant::now();
        loop {
            match attempt(&mut self.transport) {
                Err(err) if is_tick(&err) => go_on(start, self.timeout, &self.stop)?,
                result => return result,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let start = Instant::now();
        let len = self.retry(|transport| match transport {
            Transport::Plain(socket) => socket.read(buf),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => stream.read(buf),
        })?;
        guard::received(start.elapsed(), len as u64)?;
        Ok(len)
    }
}

impl Write for Patient {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.retry(|transport| match transport {
            Transport::Plain(socket) => socket.write(buf),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => stream.write(buf),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.retry(|transport| match transport {
            Transport::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Transport::Tls(stream) => stream.flush(),
        })
    }
}

struct Connection {
    /// For the scheme, the host and the port it can be used for again.
    key: Url,
    stream: BufReader<Patient>,
}

/// Why a request got no answer.
struct Broken {
    err: io::Error,
    /// Whether nothing at all has come back.
    silent: bool,
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        let text = match broken.err.kind() {
            ErrorKind::UnexpectedEof => "the server closes the connection without an answer".into(),
            _ => crate::device::strip_code(&broken.err),
        };
        if broken.silent && is_closed(&broken.err) {
            return Self::down(text);
        }
        Self::passing(text)
    }
}

impl Connection {
    /// Sends a request and reads the head of the answer.
    fn exchange(&mut self, head: &str) -> Result<Head, Broken> {
        guard::request_begins();
        let silent = |err| Broken { err, silent: true };
        let patient = self.stream.get_mut();
        patient
            .write_all(head.as_bytes())
            .and_then(|()| patient.flush())
            .map_err(silent)?;
        if self.stream.fill_buf().map_err(silent)?.is_empty() {
            return Err(silent(ErrorKind::UnexpectedEof.into()));
        }
        Head::read(&mut self.stream).map_err(|err| Broken { err, silent: false })
    }

    /// Has a proxy make this connection one to the host of `url`.
    fn tunnel(&mut self, url: &Url, basic: Option<&str>) -> Result<(), Failure> {
        let address = url.address();
        let mut head = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n");
        if let Some(basic) = basic {
            head.push_str(&format!("Proxy-Authorization: {basic}\r\n"));
        }
        head.push_str("\r\n");
        let answer = self.exchange(&head)?;
        match answer.status {
            200..=299 if self.stream.buffer().is_empty() => Ok(()),
            200..=299 => Err(Failure::fatal(libc::EIO, "the proxy says more than it may")),
            status @ (408 | 429 | 500..) => Err(Failure::Transient(Passing {
                reason: format!("the proxy answers with status {status}"),
                after: retry_after(&answer.fields),
                status: Some(status),
                down: false,
            })),
            status => Err(Failure::fatal(
                libc::EACCES,
                format!("the proxy refuses the connection with status {status}"),
            )),
        }
    }
}

type Fields = Vec<(String, String)>;

/// The value of the first field of a name, which is in lower case.
fn find<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    let found = fields.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// What is before the body.
struct Head {
    keep_alive: bool,
    status: u16,
    /// Names are in lower case.
    fields: Fields,
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, text.into())
}

impl Head {
    /// Reads a head, and those of 1xx before it.
    fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let mut left = MAX_HEAD;
        loop {
            let head = Self::read_one(stream, &mut left)?;
            match head.status {
                101 => return Err(invalid("the server speaks another protocol")),
                100..=199 => {}
                _ => return Ok(head),
            }
        }
    }

    fn read_one(stream: &mut impl BufRead, left: &mut usize) -> io::Result<Self> {
        let line = read_line(stream, left)?;
        let (keep_alive, status) = parse_status(&line).ok_or_else(|| {
            let start: String = line.chars().take(40).collect();
            invalid(format!("the answer is not HTTP: \"{}\"", escape(&start)))
        })?;
        let mut fields: Fields = Vec::new();
        loop {
            let line = read_line(stream, left)?;
            if line.is_empty() {
                break;
            }
            if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), fields.last_mut()) {
                value.push(' ');
                value.push_str(line.trim());
                continue;
            }
            let (name, value) = line
                .split_once(':')
                .filter(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()))
                .ok_or_else(|| invalid("the answer has a field without a name"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        let words = |name: &str| {
            let list = find(&fields, "connection").unwrap_or("");
            list.split(',')
                .any(|word| word.trim().eq_ignore_ascii_case(name))
        };
        Ok(Self {
            keep_alive: !words("close") && (keep_alive || words("keep-alive")),
            status,
            fields,
        })
    }

    /// How long the body is, and whether the connection can be used after it.
    fn framing(&self, no_body: bool) -> Result<(Framing, bool), String> {
        if no_body || matches!(self.status, 204 | 304) {
            return Ok((Framing::Length(0), self.keep_alive));
        }
        let has_length = find(&self.fields, "content-length").is_some();
        if let Some(coding) = find(&self.fields, "transfer-encoding") {
            if !coding.eq_ignore_ascii_case("chunked") {
                return Err(format!("transfer encoding \"{}\"", escape(coding)));
            }
            return Ok((Framing::Chunked(0), self.keep_alive && !has_length));
        }
        if !has_length {
            return Ok((Framing::UntilClose, false));
        }
        Ok((
            Framing::Length(content_length(&self.fields)?),
            self.keep_alive,
        ))
    }
}

/// The one Content-Length, which must be a number.
fn content_length(fields: &Fields) -> Result<u64, String> {
    let mut values = fields.iter().filter(|(name, _)| name == "content-length");
    let (Some((_, value)), None) = (values.next(), values.next()) else {
        return Err("not one Content-Length".into());
    };
    Some(value)
        .filter(|value| value.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|value| value.parse().ok())
        .filter(|length| *length <= i64::MAX as u64)
        .ok_or_else(|| format!("Content-Length \"{}\"", escape(value)))
}

/// "HTTP/1.1 200 OK": whether connections are kept by default, and the status.
fn parse_status(line: &str) -> Option<(bool, u16)> {
    let (version, rest) = line.split_once(' ')?;
    let minor = version.strip_prefix("HTTP/1.")?;
    let status = rest.trim_start().split(' ').next()?;
    let status = status.parse().ok().filter(|s| (100..=999).contains(s))?;
    Some((minor != "0", status))
}

/// A line without its end. Bytes beyond ASCII become the characters of Latin-1, so that they can be
/// compared and shown.
fn read_line(stream: &mut impl BufRead, left: &mut usize) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(*left as u64).read_until(b'\n', &mut line)?;
    *left -= line.len();
    if line.pop() != Some(b'\n') {
        return Err(if *left == 0 {
            invalid(format!(
                "the head of the answer has more than {MAX_HEAD} bytes"
            ))
        } else {
            ErrorKind::UnexpectedEof.into()
        });
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    if line.iter().any(|b| matches!(b, 0 | b'\r')) {
        return Err(invalid("the head of the answer has control characters"));
    }
    Ok(line.into_iter().map(char::from).collect())
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// So many bytes of this chunk are still to come; 0: the next thing is the size of a chunk.
    Chunked(u64),
    UntilClose,
}

/// An answer, and its body as far as it was not read yet.
pub struct Response<'a> {
    pub status: u16,
    /// Where it came from.
    pub url: Url,
    redirects: u32,
    fields: Fields,
    client: &'a Client,
    /// Gone after the end of the body, or after an error.
    connection: Option<Connection>,
    framing: Framing,
    keep: bool,
}

impl Response<'_> {
    /// Host and port of who has answered, before the end of the body.
    pub fn server(&self) -> Option<String> {
        self.connection.as_ref().map(|one| one.key.address())
    }

    /// Another URL has led here earlier.
    pub fn was_redirected(mut self) -> Self {
        self.redirects += 1;
        self
    }

    /// Whether another URL led here.
    pub fn redirected(&self) -> bool {
        self.redirects > 0
    }

    /// The values of all fields of a name, which is in lower case.
    pub fn fields<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        let fields = self.fields.iter().filter(move |(other, _)| other == name);
        fields.map(|(_, value)| value.as_str())
    }

    /// The body, if it has no more than `most` bytes.
    pub fn body(mut self, most: u64) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        match self.by_ref().take(most + 1).read_to_end(&mut body) {
            Ok(len) if len as u64 > most => Err(Failure::fatal(
                libc::EIO,
                format!("the answer has more than {most} bytes"),
            )),
            Ok(_) => Ok(body),
            Err(err) => {
                let err = crate::device::strip_code(&err);
                Err(Failure::passing(format!("the body ends early: {err}")))
            }
        }
    }

    /// The value of a field; `name` is in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }

    /// The size of the whole body, if the head says it.
    pub fn length(&self) -> Option<u64> {
        let length = content_length(&self.fields).ok()?;
        let whole = self.field("transfer-encoding").is_none();
        whole.then_some(length)
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.fields)
    }

    /// Reads up to `len` bytes of the body and drops them; how many there were.
    pub fn skip(&mut self, len: u64) -> io::Result<u64> {
        io::copy(&mut self.by_ref().take(len), &mut io::sink())
    }

    /// Done with this: keeps the connection if that costs little.
    pub fn finish(mut self) {
        if let Framing::Length(left) = self.framing {
            if left > MAX_SKIP {
                return;
            }
        }
        if !self.keep {
            return;
        }
        // Reading the end gives the connection back.
        let _ = self.skip(MAX_SKIP);
    }

    fn at_end(&mut self) {
        if let (Some(connection), true) = (self.connection.take(), self.keep) {
            // What is here already belongs to no request.
            if connection.stream.buffer().is_empty() {
                self.client.give_back(connection);
            }
        }
    }

    fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(connection) = &mut self.connection else {
            return Ok(0);
        };
        let stream = &mut connection.stream;
        if self.framing == Framing::Chunked(0) {
            match next_chunk(stream)? {
                0 => {
                    self.at_end();
                    return Ok(0);
                }
                size => self.framing = Framing::Chunked(size),
            }
        }
        let left = match &mut self.framing {
            Framing::Length(0) => {
                self.at_end();
                return Ok(0);
            }
            Framing::UntilClose => {
                let len = stream.read(buf)?;
                if len == 0 {
                    self.connection = None;
                }
                return Ok(len);
            }
            Framing::Length(left) | Framing::Chunked(left) => left,
        };
        let max = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
        let len = stream.read(&mut buf[..max])?;
        if len == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the connection was closed",
            ));
        }
        *left -= len as u64;
        if self.framing == Framing::Chunked(0) {
            end_of_chunk(stream)?;
        }
        Ok(len)
    }
}

impl Read for Response<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.read_some(buf).inspect_err(|_| self.connection = None)
    }
}

/// Reads the size of the next chunk. After the last one (0) its trailer is read, too.
fn next_chunk(stream: &mut impl BufRead) -> io::Result<u64> {
    let mut left = MAX_HEAD;
    let line = read_line(stream, &mut left)?;
    let digits = line.split(';').next().unwrap_or("").trim();
    let size = Some(digits)
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| invalid("a chunk without a size"))?;
    if size == 0 {
        while !read_line(stream, &mut left)?.is_empty() {}
    }
    Ok(size)
}

fn end_of_chunk(stream: &mut impl BufRead) -> io::Result<()> {
    match read_line(stream, &mut 2)?.is_empty() {
        true => Ok(()),
        false => Err(invalid("a chunk is longer than it says")),
    }
}

/// Retry-After: seconds, or a date, which is compared with the server's own.
fn retry_after(fields: &Fields) -> Option<Duration> {
    let value = find(fields, "retry-after")?;
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = parse_date(value)?;
    let now = parse_date(find(fields, "date")?)?;
    Some(Duration::from_secs(then.saturating_sub(now)))
}

/// "Sun, 06 Nov 1994 08:49:37 GMT" in seconds since 1970.
pub fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else {
        return None;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    let month = MONTHS
        .find(month)
        .filter(|at| at % 3 == 0 && month.len() == 3)? as u64
        / 3;
    let (day, year) = (number(day)?, number(year)?);
    let mut parts = time.split(':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) || hours > 23 {
        return None;
    }
    // Counted in years that begin with March: then the leap day is the last one.
    let (y, m) = if month >= 2 {
        (year, month - 2)
    } else {
        (year - 1, month + 10)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> io::Result<Head> {
        Head::read(&mut text.as_bytes())
    }

    #[test]
    fn heads() {
        let one = head("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 206 OK\r\nETAG: \"a:b\" \r\nX: 1\r\n 2\r\n\r\nbody")
            .unwrap();
        assert_eq!(one.status, 206);
        assert!(one.keep_alive);
        assert_eq!(find(&one.fields, "etag"), Some("\"a:b\""));
        assert_eq!(find(&one.fields, "x"), Some("1 2"));
        assert!(!head("HTTP/1.0 200 OK\n\n").unwrap().keep_alive);
        assert!(
            head("HTTP/1.0 200\r\nConnection: Keep-Alive\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        assert!(
            !head("HTTP/1.1 200\r\nConnection: x, Close\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000));
        for wrong in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "garbage\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 101 S\r\n\r\n",
            "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA b: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: x\0\r\n\r\n",
            &long,
        ] {
            assert!(head(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn framings() {
        let framing = |fields: &str| {
            let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            head(&text).unwrap().framing(false)
        };
        let length = |text: &str| framing(&format!("Content-Length: {text}\r\n"));
        assert_eq!(length("5"), Ok((Framing::Length(5), true)));
        for wrong in ["-1", "+1", "", "0x5", "5, 5", "9223372036854775808", "1 1"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
        assert!(framing("Content-Length: 5\r\nContent-Length: 5\r\n").is_err());
        assert!(framing("Content-Length: 5\r\nContent-Length: 6\r\n").is_err());
        assert_eq!(framing(""), Ok((Framing::UntilClose, false)));
        let chunked = "Transfer-Encoding: Chunked\r\n";
        assert_eq!(framing(chunked), Ok((Framing::Chunked(0), true)));
        // Two lengths are one too many for a connection that is used again.
        let both = format!("{chunked}Content-Length: 5\r\n");
        assert_eq!(framing(&both), Ok((Framing::Chunked(0), false)));
        assert!(framing("Transfer-Encoding: gzip, chunked\r\n").is_err());
    }

    #[test]
    fn chunks_have_sizes() {
        let size = |text: &str| next_chunk(&mut text.as_bytes()).ok();
        assert_eq!(size("1f;x=y\r\n"), Some(31));
        assert_eq!(size("0\r\nTrailer: x\r\n\r\n"), Some(0));
        for wrong in [
            "",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "\r\n",
            "0\r\n",
            "10000000000000000\r\n",
        ] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(
            parse_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(
            parse_date("Tue, 29 Feb 2000 23:59:59 GMT"),
            Some(951_868_799)
        );
        for wrong in [
            "",
            "0",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 ovD 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn waiting_times() {
        let wait = |fields: &str| {
            let text = format!("HTTP/1.1 503 X\r\n{fields}\r\n");
            retry_after(&head(&text).unwrap().fields).map(|time| time.as_secs())
        };
        assert_eq!(wait("Retry-After: 7\r\n"), Some(7));
        assert_eq!(wait("Retry-After: soon\r\n"), None);
        assert_eq!(wait(""), None);
        let dates =
            "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:00 GMT\r\n";
        assert_eq!(wait(dates), Some(23));
    }
}
