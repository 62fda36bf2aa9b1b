// SPDX-License-Identifier: GPL-2.0

//! Blobs of a web server, by range requests.
//!
//! What a server answers is believed only if it is exactly what was asked for: 206, the range in
//! Content-Range, the blob's size, that many bytes. Everything else is an error, and the caller
//! writes nothing.

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{header, HeaderMap, Response, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body};

use super::{Blob, BlobName, Source, SourceError, MAX_VERSION};
use crate::guard::{self, GuardedConnector};
use crate::report::Report;
use crate::stop::Stop;

/// How a web server is used.
pub struct HttpOptions {
    /// Blobs are at `<url>/<name>`.
    pub url: String,
    /// How often a request that may succeed later is sent again.
    pub retries: u32,
    /// How long a silent server is waited for.
    pub timeout: Duration,
    /// How many idle connections are kept.
    pub connections: usize,
}

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub struct HttpSource(Arc<Client>);

struct Client {
    /// Keeps connections alive: one for each thread that has a request in flight.
    agent: Agent,
    base: String,
    retries: u32,
    report: Arc<Report>,
    stop: Arc<Stop>,
}

struct HttpBlob {
    client: Arc<Client>,
    url: String,
    size: u64,
    etag: Option<String>,
}

/// What one try gave.
enum Failure {
    /// It may work the next time.
    Transient(String),
    /// It will not.
    Final(SourceError),
}

impl Failure {
    fn fatal(errno: i32, reason: impl Into<String>) -> Self {
        Self::Final(SourceError::new(errno, reason))
    }
}

impl From<ureq::Error> for Failure {
    fn from(err: ureq::Error) -> Self {
        match err {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_) => {
                Self::fatal(libc::EIO, err.to_string())
            }
            err => Self::Transient(err.to_string()),
        }
    }
}

impl HttpSource {
    pub fn new(options: HttpOptions, report: Arc<Report>, stop: Arc<Stop>) -> Result<Self, String> {
        let base = options.url.trim_end_matches('/').to_string();
        let known = base.starts_with("http://") || base.starts_with("https://");
        if !known || base.contains(['?', '#', ' ']) {
            return Err(format!(
                "\"{}\" is not the URL of a directory; give http://host[:port]/path or https://...",
                options.url
            ));
        }
        if base.starts_with("https://") && !cfg!(feature = "tls") {
            return Err("this program was built without the feature \"tls\"; use http://".into());
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("ondemandd/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(options.timeout))
            .timeout_per_read(Some(options.timeout))
            .max_idle_connections(options.connections)
            .max_idle_connections_per_host(options.connections)
            .build();
        let connector = GuardedConnector::default();
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Ok(Self(Arc::new(Client {
            agent,
            base,
            retries: options.retries,
            report,
            stop,
        })))
    }
}

impl Source for HttpSource {
    fn open(&self, name: &BlobName) -> Result<Arc<dyn Blob>, SourceError> {
        let client = &self.0;
        let mut url = client.base.clone();
        for part in name.parts() {
            url.push('/');
            percent_encode(&mut url, part);
        }
        let (size, etag) = client.with_retries(&url, || client.size(&url))?;
        Ok(Arc::new(HttpBlob {
            client: Arc::clone(client),
            url,
            size,
            etag,
        }))
    }
}

impl Blob for HttpBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn version(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| tag.len() <= MAX_VERSION)
    }

    fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
        if buf.is_empty() {
            return Ok(());
        }
        self.client.with_retries(&self.url, || self.fetch(buf, off))
    }
}

impl HttpBlob {
    fn fetch(&self, buf: &mut [u8], off: u64) -> Result<(), Failure> {
        let len = buf.len() as u64;
        let want = ContentRange {
            first: off,
            last: off + len - 1,
            size: Some(self.size),
        };
        let mut response = self
            .client
            .get(&self.url, &format!("bytes={}-{}", want.first, want.last))?;
        check_status(response.status())?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Failure::fatal(
                libc::EIO,
                format!(
                    "status {} instead of 206: the server does not serve ranges",
                    response.status().as_u16()
                ),
            ));
        }
        let headers = response.headers();
        let text = field(headers, header::CONTENT_RANGE).unwrap_or("");
        let answer = ContentRange::parse(text).filter(|answer| {
            (answer.first, answer.last) == (want.first, want.last)
                && answer.size.is_none_or(|size| size == self.size)
        });
        if answer.is_none() {
            return Err(Failure::fatal(
                libc::EIO,
                format!("Content-Range \"{text}\" instead of \"{want}\""),
            ));
        }
        if field(headers, header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(Failure::fatal(
                libc::EIO,
                "the server sends an encoded range",
            ));
        }
        if let (Some(was), Some(is)) = (&self.etag, strong_etag(headers)) {
            if *was != is {
                return Err(Failure::fatal(
                    libc::ESTALE,
                    format!("the blob has changed on the server: ETag {is}, it was {was}"),
                ));
            }
        }
        guard::body_begins();
        let mut body = response.body_mut().as_reader();
        body.read_exact(buf)
            .map_err(|err| Failure::Transient(format!("the body ends early: {err}")))?;
        // Reading up to the end also gives the connection back for the next request.
        match body.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::fatal(
                libc::EIO,
                "the body is longer than asked for",
            )),
            Err(err) => Err(Failure::Transient(format!("at the end of the body: {err}"))),
        }
    }
}

impl Client {
    fn get(&self, url: &str, range: &str) -> Result<Response<Body>, Failure> {
        Ok(self
            .agent
            .get(url)
            .header(header::RANGE, range)
            .header(header::ACCEPT_ENCODING, "identity")
            .call()?)
    }

    /// Size and version of a blob.
    fn size(&self, url: &str) -> Result<(u64, Option<String>), Failure> {
        let head = self
            .agent
            .head(url)
            .header(header::ACCEPT_ENCODING, "identity")
            .call()?;
        let refused = matches!(
            head.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED | StatusCode::FORBIDDEN
        );
        if !refused {
            check_status(head.status())?;
            let headers = head.headers();
            let plain = field(headers, header::CONTENT_ENCODING).is_none();
            if let Some(size) = field(headers, header::CONTENT_LENGTH)
                .filter(|_| plain && head.status() == StatusCode::OK)
                .and_then(|text| text.parse().ok())
            {
                return Ok((size, strong_etag(headers)));
            }
        }
        // No HEAD, or one that does not say: the first byte's Content-Range has the size.
        let response = self.get(url, "bytes=0-0")?;
        let headers = response.headers();
        let content_range = field(headers, header::CONTENT_RANGE).unwrap_or("");
        let size = match response.status() {
            StatusCode::PARTIAL_CONTENT => ContentRange::parse(content_range).and_then(|r| r.size),
            // An empty blob has no byte 0.
            StatusCode::RANGE_NOT_SATISFIABLE => (content_range == "bytes */0").then_some(0),
            StatusCode::OK => match field(headers, header::CONTENT_LENGTH) {
                Some("0") => Some(0),
                _ => None,
            },
            status => {
                check_status(status)?;
                None
            }
        };
        size.map(|size| (size, strong_etag(headers)))
            .ok_or_else(|| {
                Failure::fatal(
                    libc::EIO,
                    format!(
                        "status {} without a size: the server does not serve ranges",
                        response.status().as_u16()
                    ),
                )
            })
    }

    fn with_retries<T>(
        &self,
        url: &str,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, SourceError> {
        let mut delay = FIRST_DELAY;
        for tries in 0.. {
            let reason = match attempt() {
                Ok(value) => return Ok(value),
                Err(Failure::Final(err)) => {
                    return Err(SourceError::new(
                        err.errno,
                        format!("{url}: {}", err.reason),
                    ))
                }
                Err(Failure::Transient(reason)) => reason,
            };
            if tries >= self.retries {
                let reason = format!("{url}: {reason} (gave up after {} tries)", tries + 1);
                return Err(SourceError::new(libc::EIO, reason));
            }
            let end = |why| SourceError::new(libc::EIO, format!("{url}: {reason} ({why})"));
            guard::check(delay).map_err(end)?;
            self.report.note(&format!(
                "{url}: {reason}; trying again in {} ms",
                delay.as_millis()
            ));
            guard::pause(delay, &self.stop).map_err(end)?;
            delay = (delay * 2).min(MAX_DELAY);
        }
        unreachable!("the loop ends by returning")
    }
}

/// Sorts out statuses that mean failure: for good, or for now.
fn check_status(status: StatusCode) -> Result<(), Failure> {
    let text = format!("status {status}");
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(Failure::fatal(libc::ENOENT, text)),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure::fatal(libc::EACCES, text)),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            Err(Failure::Transient(text))
        }
        status if status.is_server_error() => Err(Failure::Transient(text)),
        status if status.is_success() => Ok(()),
        _ => Err(Failure::fatal(libc::EIO, text)),
    }
}

fn field(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Weak tags ("W/...") do not promise equal bytes, so they say nothing here.
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    field(headers, header::ETAG)
        .filter(|tag| tag.starts_with('"'))
        .map(str::to_string)
}

/// `Content-Range: bytes first-last/size`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    size: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let size = match size {
            "*" => None,
            size => Some(size.parse().ok()?),
        };
        Some(Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            size,
        })
    }
}

impl std::fmt::Display for ContentRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {}-{}/", self.first, self.last)?;
        match self.size {
            Some(size) => write!(f, "{size}"),
            None => f.write_char('*'),
        }
    }
}

fn percent_encode(url: &mut String, part: &str) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
