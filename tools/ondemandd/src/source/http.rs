// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs of a web server, by range requests.
//!
//! What a server answers is believed only if it is what was asked for: 206, the range in
//! Content-Range or the first part of it, the blob's size and version, that many bytes. Everything
//! else is an error. Of an answer that begins right and ends early, what came is used, and the rest is
//! asked for once more.

use std::fmt::Write as _;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::registry::{open_beside, Indexes};
use super::version::{shorten, Comparison, Digest, Validators};
use super::{Blob, BlobName, Changed, Sink, Slice, Source, SourceError};
use crate::guard;
use crate::report::{escape, Report};
use crate::stop::Stop;

mod breaker;
pub mod client;
mod proxy;
pub mod site;
#[cfg(feature = "tls")]
mod tls;
pub mod url;

use client::{parse_date, Client, Response, Trust};
pub use proxy::Proxies;
use site::{Place, Retries, Site};
use url::{push_part, Url};

/// How a web server is used.
pub struct HttpOptions {
    /// Blobs are at `<url>/<name>`.
    pub url: String,
    /// Fields of each request to the server of `url`, and to no other.
    pub headers: Vec<(String, String)>,
    /// How often a request that may succeed later is sent again.
    pub retries: u32,
    /// No try begins so long after the first one, but for the second.
    pub retry_time: Duration,
    /// How long a silent server is waited for.
    pub timeout: Duration,
    /// How many idle connections are kept.
    pub connections: usize,
    /// The certificates of the authorities to believe, if not the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether a blob without anything that tells its versions apart is served.
    pub accept_unversioned: bool,
    /// Whether each blob is checked with the chunk index beside it.
    pub verify: bool,
    pub proxies: Proxies,
}

/// How far into a blob a range is cut out of an answer that has all of it, in bytes.
const MAX_CUT: u64 = 16 << 20;

/// A try that has brought so many bytes is not one that has failed.
const PROGRESS: u64 = 4096;

pub struct HttpSource {
    site: Arc<Site>,
    base: String,
    /// Of blobs that are checked with the index beside them.
    indexes: Option<Indexes>,
    fetching: Arc<Fetching>,
}

/// What all blobs are fetched with.
pub struct Fetching {
    pub retries: Retries,
    pub accept_unversioned: bool,
}

/// A blob that is to be had by ranges from a web server, or from one of several.
pub struct HttpBlob {
    fetching: Arc<Fetching>,
    places: Vec<Place>,
    size: u64,
    validators: Validators,
    digest: Option<Digest>,
    /// See [`Blob::whole`].
    sha256: Option<String>,
    version: Option<String>,
    changed: Changed,
    /// Who has it: perhaps another server than the one that was asked.
    at: Arc<str>,
}

/// What is known of a blob at its OPEN.
struct Found {
    size: u64,
    validators: Validators,
    at: Arc<str>,
}

/// What one try gave.
pub enum Failure {
    /// It may work the next time.
    Transient(Passing),
    /// It will not.
    Final(SourceError),
    /// The server has done nothing wrong.
    Sink(SourceError),
}

/// A failure that may pass.
#[derive(Debug, Default)]
pub struct Passing {
    pub reason: String,
    /// How long the server wants to be left alone.
    pub after: Option<Duration>,
    /// What it has answered, if it has.
    pub status: Option<u16>,
    /// It says something of the server, not of this request only.
    pub down: bool,
}

impl Failure {
    pub fn fatal(errno: i32, reason: impl Into<String>) -> Self {
        Self::Final(SourceError::new(errno, reason))
    }

    pub fn passing(reason: impl Into<String>) -> Self {
        Self::Transient(Passing {
            reason: reason.into(),
            ..Passing::default()
        })
    }

    /// The server cannot be reached.
    pub fn down(reason: impl Into<String>) -> Self {
        Self::Transient(Passing {
            reason: reason.into(),
            down: true,
            ..Passing::default()
        })
    }

    /// It was another server than the one that was asked.
    pub fn elsewhere(self) -> Self {
        match self {
            Self::Transient(passing) => Self::Transient(Passing {
                down: false,
                ..passing
            }),
            other => other,
        }
    }

    fn changed(what: impl std::fmt::Display) -> Self {
        Self::fatal(
            libc::ESTALE,
            format!("the blob has changed on the server: {what}"),
        )
    }
}

impl HttpSource {
    pub fn new(options: HttpOptions, report: Arc<Report>, stop: Arc<Stop>) -> Result<Self, String> {
        let base = options.url.trim_end_matches('/').to_string();
        let parsed = Url::parse(&base);
        let wrong = match &parsed {
            Err(reason) => Some(*reason),
            Ok(_) if base.contains(['?', '#', ' ']) => Some("it has a \"?\", \"#\" or blank"),
            Ok(_) => None,
        };
        if let Some(reason) = wrong {
            return Err(format!(
                "\"{}\" is not the URL of a directory ({reason}); give http://host[:port]/path or \
                 https://...",
                redact(&options.url)
            ));
        }
        let trust = Trust {
            only: options.ca_file.into_iter().collect(),
            ..Trust::default()
        };
        let client = Client::new(
            options.proxies,
            options.timeout,
            options.connections,
            trust,
            Arc::clone(&stop),
        );
        if parsed.is_ok_and(|url| url.tls) {
            client.check_tls()?;
        }
        Ok(Self {
            site: Arc::new(Site::new(client, options.headers, None)),
            base,
            indexes: options.verify.then(Indexes::default),
            fetching: Arc::new(Fetching {
                retries: Retries {
                    most: options.retries,
                    time: options.retry_time,
                    report,
                    stop,
                },
                accept_unversioned: options.accept_unversioned,
            }),
        })
    }
}

/// A URL as the user has given it, without what may be secret in it.
pub fn redact(url: &str) -> String {
    let (start, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => authority.to_string(),
    };
    let target = match target.split_once('?') {
        Some((path, _)) => format!("{path}?..."),
        None => target.to_string(),
    };
    escape(&format!("{start}{authority}{target}")).into_owned()
}

impl Source for HttpSource {
    fn open(&self, name: &BlobName) -> Result<Arc<dyn Blob>, SourceError> {
        let mut url = self.base.clone();
        for part in name.parts() {
            push_part(&mut url, part);
        }
        if let Some(indexes) = &self.indexes {
            return open_beside(&self.fetching, indexes, &self.site, &url, None);
        }
        let url = Url::parse(&url).map_err(|reason| SourceError::new(libc::EINVAL, reason))?;
        let place = Place::new(Arc::clone(&self.site), url, Arc::from(""));
        let blob = HttpBlob::open(&self.fetching, vec![place], &name.name, None)?;
        Ok(Arc::new(blob))
    }
}

impl HttpBlob {
    /// A blob that is at all of these places, in the order in which they are to be asked. What `name` says
    /// of the bytes, as a digest, is as in [`Digest`]. If the size is known, nobody is asked for now.
    pub fn open(
        fetching: &Arc<Fetching>,
        places: Vec<Place>,
        name: &str,
        size: Option<u64>,
    ) -> Result<Self, SourceError> {
        let digest = Digest::of(name);
        let found = match size {
            Some(size) => Found {
                size,
                validators: Validators::default(),
                at: places
                    .first()
                    .map_or(String::new(), |p| p.url.address())
                    .into(),
            },
            None => fetching.retries.run(&places, |place| look(place, digest))?,
        };
        let Found {
            size,
            validators,
            at,
        } = found;
        let version = match digest {
            Some(Digest::Named) => None,
            _ => validators.version(),
        };
        let version = version
            .or_else(|| digest.map(|_| shorten(&format!("digest {name}"))))
            // There is one version of no bytes.
            .or_else(|| (size == 0).then(|| "empty".to_string()));
        if let (None, false, Some(place)) = (&version, fetching.accept_unversioned, places.first())
        {
            return Err(SourceError::new(
                libc::ESTALE,
                format!(
                    "{}: the server sends neither ETag nor Last-Modified, so that versions of the \
                     blob could not be told apart (see --accept-unversioned)",
                    place.url
                ),
            ));
        }
        Ok(Self {
            fetching: Arc::clone(fetching),
            places,
            size,
            validators,
            digest,
            sha256: digest.and_then(|digest| digest.sha256(name)),
            version,
            changed: Changed::default(),
            at,
        })
    }
}

impl Blob for HttpBlob {
    fn size(&self) -> u64 {
        self.size
    }

    fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    fn server(&self) -> Arc<str> {
        Arc::clone(&self.at)
    }

    fn whole(&self) -> Option<&str> {
        self.sha256.as_deref()
    }

    fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
        self.read_into(&mut Slice::new(buf, off))
    }

    fn read_into(&self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        self.changed.check()?;
        self.changed.note(self.fetch(sink))
    }
}

impl HttpBlob {
    fn fetch(&self, sink: &mut dyn Sink) -> Result<(), SourceError> {
        let mut fetch = Fetch {
            blob: self,
            wholes: 0,
            from: sink.rest().start,
            last: None,
            lies: 0,
        };
        // What a try has brought is right even if it fails then: the next one asks for the rest.
        while !sink.rest().is_empty() {
            self.fetching.retries.run(&self.places, |place| {
                let start = sink.rest().start;
                match fetch.some(place, sink) {
                    Err(Failure::Transient(_))
                        if sink.rest().start.saturating_sub(start) >= PROGRESS =>
                    {
                        Ok(())
                    }
                    Err(Failure::Sink(err)) if err.wrong_bytes => Err(fetch.lie(place, sink, err)),
                    result => result,
                }
            })?;
        }
        Ok(())
    }

    /// The server says that the blob has another version; one that is named by its digest has not.
    fn differs(&self, what: String) -> Failure {
        match self.digest {
            Some(Digest::Named) => Failure::fatal(libc::EIO, what),
            _ => Failure::changed(what),
        }
    }
}

/// One range of a blob on its way.
struct Fetch<'a> {
    blob: &'a HttpBlob,
    /// How often the server has answered with the whole blob.
    wholes: u32,
    /// All bytes from here on came from one place ...
    from: u64,
    /// ... at this URL.
    last: Option<String>,
    /// How often bytes came that were wrong.
    lies: u32,
}

impl Fetch<'_> {
    /// What came is not what should have come: names the place, and has another one asked.
    fn lie(&mut self, place: &Place, sink: &dyn Sink, err: SourceError) -> Failure {
        let retries = &self.blob.fetching.retries;
        self.lies += 1;
        if sink.rest().start < self.from {
            // Its beginning came from another place, so either may be the one.
            self.last = None;
            return match self.lies {
                0..=3 => Failure::passing(format!("{}, of several answers together", err.reason)),
                _ => Failure::Final(err),
            };
        }
        retries.report.metrics.verify_failure(&place.url.address());
        retries
            .report
            .error(&format!("{}: {}", place.url, err.reason));
        place.has_lied();
        let err = SourceError { said: true, ..err };
        // Something on the way may have done it, and not do it again.
        if self.lies == 1 && self.blob.places.len() == 1 {
            return Failure::passing(err.reason);
        }
        Failure::Final(err)
    }

    /// Fetches the bytes that a sink wants, or some of them, also if it fails.
    fn some(&mut self, place: &Place, sink: &mut dyn Sink) -> Result<(), Failure> {
        let rest = sink.rest();
        let at = place.url.to_string();
        if self.last.as_ref() != Some(&at) {
            self.last = Some(at);
            self.from = rest.start;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let want = ContentRange {
            first: rest.start,
            last: rest.end - 1,
            size: Some(self.blob.size),
        };
        let mut response = self.ask(place, &want)?;
        let len = match response.status {
            206 => self.check_range(&response, &want)?,
            200 => {
                self.check_whole(&response, &want)?;
                rest.end - rest.start
            }
            416 => return Err(self.beyond_the_end(&response)),
            412 => return Err(Failure::changed("status 412")),
            _ => return Err(bad_status(&response)),
        };
        self.check_version(&response)?;
        guard::body_begins();
        if response.status == 200 {
            skip_to(&mut response, rest.start)?;
        }
        read_body(&mut response, sink, rest.start + len)?;
        if response.status == 200 {
            response.finish();
            return Ok(());
        }
        // Reading up to the end also gives the connection back for the next request.
        match response.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::fatal(
                libc::EIO,
                "the body is longer than asked for",
            )),
            Err(err) => Err(Failure::passing(format!("at the end of the body: {err}"))),
        }
    }

    fn ask<'b>(&self, place: &'b Place, want: &ContentRange) -> Result<Response<'b>, Failure> {
        let range = format!("bytes={}-{}", want.first, want.last);
        let mut fields = vec![("Range", range.as_str())];
        // Not If-Range: a server that has another version would send all of it, and one that has the
        // same need not say of which version a part is.
        let validators = &self.blob.validators;
        if self.blob.digest != Some(Digest::Named) {
            match (validators.strong(), &validators.etag, &validators.modified) {
                (Some(etag), _, _) if etag.is_ascii() => fields.push(("If-Match", etag)),
                (None, None, Some(date)) => fields.push(("If-Unmodified-Since", date)),
                _ => {}
            }
        }
        place.send("GET", &fields)
    }

    /// Checks the range of a 206; returns how many bytes it has. They may be fewer than asked for.
    fn check_range(&self, response: &Response<'_>, want: &ContentRange) -> Result<u64, Failure> {
        let text = response.field("content-range").unwrap_or("");
        let wrong = || {
            let text = escape(text);
            format!("Content-Range \"{text}\" instead of \"{want}\"")
        };
        let answer = ContentRange::parse(text).ok_or_else(|| Failure::fatal(libc::EIO, wrong()))?;
        if answer.size.is_some_and(|size| size != self.blob.size) {
            return Err(self.blob.differs(wrong()));
        }
        let starts = answer.first == want.first;
        if !starts || answer.last < answer.first || answer.last > want.last {
            return Err(Failure::fatal(libc::EIO, wrong()));
        }
        check_coding(response)?;
        let len = answer.last - answer.first + 1;
        if response.length().is_some_and(|length| length > len) {
            return Err(Failure::fatal(
                libc::EIO,
                "the body is longer than asked for",
            ));
        }
        Ok(len)
    }

    /// Checks a 200, which has all of the blob. The cache of a registry answers so while it is cold.
    fn check_whole(&mut self, response: &Response<'_>, want: &ContentRange) -> Result<(), Failure> {
        let text = "status 200 instead of 206: the server does not serve ranges";
        if response.field("content-range").is_some() {
            return Err(Failure::fatal(libc::EIO, text));
        }
        check_coding(response)?;
        self.wholes += 1;
        match response.length() {
            Some(length) if length != self.blob.size => Err(self
                .blob
                .differs(format!("its size is {length}, it was {}", self.blob.size))),
            Some(_) if want.last < MAX_CUT => Ok(()),
            _ if self.wholes <= 1 => Err(Failure::passing(text)),
            _ => Err(Failure::fatal(libc::EIO, text)),
        }
    }

    fn beyond_the_end(&self, response: &Response<'_>) -> Failure {
        let text = response.field("content-range").unwrap_or("");
        let size: Option<u64> = text.strip_prefix("bytes */").and_then(|n| n.parse().ok());
        match size {
            Some(size) if size != self.blob.size => self
                .blob
                .differs(format!("its size is {size}, it was {}", self.blob.size)),
            _ => bad_status(response),
        }
    }

    fn check_version(&self, response: &Response<'_>) -> Result<(), Failure> {
        let blob = self.blob;
        if blob.digest == Some(Digest::Named) {
            return Ok(());
        }
        match blob.validators.compare(&validators(response)) {
            Comparison::Same => Ok(()),
            Comparison::Differs(was, is) => Err(Failure::changed(format!(
                "{}, it was {}",
                escape(&is),
                escape(&was)
            ))),
            Comparison::Unknown if blob.fetching.accept_unversioned => Ok(()),
            Comparison::Unknown if blob.digest.is_some() && !blob.validators.any() => Ok(()),
            Comparison::Unknown => Err(Failure::fatal(
                libc::EIO,
                "the answer does not say of which version of the blob it is (see \
                 --accept-unversioned)",
            )),
        }
    }
}

/// Gives the body to a sink, up to `end` in the blob.
fn read_body(response: &mut Response<'_>, sink: &mut dyn Sink, end: u64) -> Result<(), Failure> {
    loop {
        let left = end.saturating_sub(sink.rest().start);
        let space = sink.space();
        let len = space.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(());
        }
        match response.read(&mut space[..len]) {
            Ok(0) => return Err(Failure::passing("the body ends early")),
            Ok(len) => sink.filled(len).map_err(Failure::Sink)?,
            Err(err) => {
                let err = crate::device::strip_code(&err);
                return Err(Failure::passing(format!("the body ends early: {err}")));
            }
        }
    }
}

fn skip_to(response: &mut Response<'_>, off: u64) -> Result<(), Failure> {
    match response.skip(off) {
        Ok(skipped) if skipped == off => Ok(()),
        Ok(_) => Err(Failure::passing("the body ends early")),
        Err(err) => Err(Failure::passing(format!("the body ends early: {err}"))),
    }
}

fn validators(response: &Response<'_>) -> Validators {
    Validators::new(response.field("etag"), response.field("last-modified"))
}

fn check_coding(response: &Response<'_>) -> Result<(), Failure> {
    match response.field("content-encoding") {
        None | Some("" | "identity") => Ok(()),
        Some(coding) => Err(Failure::fatal(
            libc::EIO,
            format!("the server sends it encoded ({})", escape(coding)),
        )),
    }
}

/// Size and version of a blob. GET with a range is what is used later, and some servers answer
/// HEAD differently or not at all.
fn look(place: &Place, digest: Option<Digest>) -> Result<Found, Failure> {
    let mut response = place.send("GET", &[("Range", "bytes=0-0")])?;
    let at = response.server().unwrap_or_else(|| place.url.address());
    let mut found = Found {
        size: 0,
        validators: validators(&response),
        at: at.into(),
    };
    let content_range = response.field("content-range").unwrap_or("");
    let size = match response.status {
        206 => {
            let range = ContentRange::parse(content_range)
                .filter(|range| (range.first, range.last) == (0, 0));
            range.and_then(|range| range.size)
        }
        // An empty blob has no byte 0.
        416 if content_range == "bytes */0" => return Ok(found),
        // Without a length it may be empty all the same.
        200 => response
            .length()
            .or_else(|| is_empty(&mut response).then_some(0)),
        _ => return Err(bad_status(&response)),
    };
    check_coding(&response)?;
    if digest != Some(Digest::Named) {
        check_age(&response, &found.validators)?;
    }
    response.finish();
    found.size = match size {
        Some(size) => size,
        None => size_of_head(place, &found.validators)?,
    };
    Ok(found)
}

/// The size according to HEAD, for a blob that has a byte.
fn size_of_head(place: &Place, found: &Validators) -> Result<u64, Failure> {
    let response = place.send("HEAD", &[])?;
    check_coding(&response)?;
    let same = !matches!(
        found.compare(&validators(&response)),
        Comparison::Differs(..)
    );
    let size = response.length().filter(|size| *size > 0 && same);
    size.filter(|_| response.status == 200).ok_or_else(|| {
        Failure::fatal(
            libc::EIO,
            "the server does not say how large the blob is: it does not serve ranges",
        )
    })
}

/// Whether a 200 that does not say its length has no body.
fn is_empty(response: &mut Response<'_>) -> bool {
    matches!(response.read(&mut [0]), Ok(0))
}

/// Last-Modified has whole seconds: what is written in the same second a second time looks the same.
/// Once the second is over it does not.
fn check_age(response: &Response<'_>, found: &Validators) -> Result<(), Failure> {
    let date = |text: Option<&str>| text.and_then(parse_date);
    let now = date(response.field("date"));
    if found.strong().is_none() && now.is_some() && now == date(found.modified.as_deref()) {
        return Err(Failure::Transient(Passing {
            reason: "it was modified in this very second".into(),
            after: Some(Duration::from_secs(1)),
            ..Passing::default()
        }));
    }
    Ok(())
}

/// A status that means failure, for good or for now.
pub fn bad_status(response: &Response<'_>) -> Failure {
    let status = response.status;
    let text = format!("status {status}{}", meaning(status));
    let errno = match status {
        404 | 410 => libc::ENOENT,
        401 | 403 | 407 => libc::EACCES,
        501 | 505 => libc::EIO,
        408 | 421 | 425 | 429 | 500..=599 => {
            return Failure::Transient(Passing {
                reason: text,
                after: response.retry_after(),
                status: Some(status),
                down: matches!(status, 429 | 502..=504) && !response.redirected(),
            })
        }
        _ => libc::EIO,
    };
    Failure::Final(SourceError {
        status: Some(status),
        ..SourceError::new(errno, text)
    })
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => " Bad Request",
        401 => " Unauthorized",
        403 => " Forbidden",
        404 => " Not Found",
        405 => " Method Not Allowed",
        407 => " Proxy Authentication Required",
        410 => " Gone",
        416 => " Range Not Satisfiable",
        429 => " Too Many Requests",
        500 => " Internal Server Error",
        502 => " Bad Gateway",
        503 => " Service Unavailable",
        504 => " Gateway Timeout",
        _ => "",
    }
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
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().ok())?
        };
        let (unit, rest) = text.split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, size) = rest.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let size = match size {
            "*" => None,
            size => Some(number(size)?),
        };
        Some(Self {
            first: number(first)?,
            last: number(last)?,
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

#[cfg(test)]
mod tests;
