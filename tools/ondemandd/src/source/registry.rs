// SPDX-License-Identifier: GPL-2.0-or-later

//! Blobs of registries (OCI distribution specification): by digest, from the registry or its mirrors.
//!
//! The client is that of web servers, with what registries want besides: [`auth`], [`hosts`] and the few
//! fields of manifests in [`manifest`]. Libraries for all of it bring an asynchronous runtime and a hundred
//! crates into a daemon that memory reclaim waits for, and none keeps the URL that a redirect led to.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::chunks::{ChunkIndex, Verified, MAX_INDEX};
use super::http::client::{Client, Trust};
use super::http::site::{Place, Site};
use super::http::url::{query_value, Url};
use super::http::{bad_status, Failure, Fetching, HttpBlob, Proxies};
use super::{Blob, Sink, SourceError};
use crate::stop::Stop;

pub mod auth;
pub mod hosts;
pub mod manifest;

use auth::{Lookup, User};
use manifest::{Digest, Index, Layer, Manifest, ACCEPT, MAX_MANIFEST};

/// What all connections to registries have in common.
pub struct Connecting {
    pub proxies: Proxies,
    pub timeout: Duration,
    /// How many idle connections are kept, for each host.
    pub connections: usize,
    /// The authorities to believe instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Where `hosts.toml` of each registry is looked for.
    pub hosts_dir: PathBuf,
    pub lookup: Arc<Lookup>,
    pub stop: Arc<Stop>,
}

/// A registry and its mirrors.
pub struct Registry {
    ways: Vec<Way>,
}

/// One host that has what the registry has.
struct Way {
    site: Arc<Site>,
    base: String,
    /// For a mirror of several: which registry is meant.
    query: String,
}

impl Registry {
    pub fn new(name: &str, plain_http: bool, connecting: &Connecting) -> Result<Self, String> {
        let hosts = hosts::read(&connecting.hosts_dir, name, plain_http)?;
        let mut ways = Vec::with_capacity(hosts.len());
        for host in hosts {
            let url = Url::parse(&host.base).map_err(str::to_string)?;
            let trust = Trust {
                only: connecting.ca_file.iter().cloned().collect(),
                ..host.trust
            };
            let client = Client::new(
                connecting.proxies.clone(),
                connecting.timeout,
                connecting.connections,
                trust,
                Arc::clone(&connecting.stop),
            );
            if url.tls {
                client.check_tls()?;
            }
            // A mirror has users of its own.
            let user = if host.mirror {
                url.authority()
            } else {
                name.to_string()
            };
            let user = User::new(&user, url.tls, Arc::clone(&connecting.lookup));
            ways.push(Way {
                site: Arc::new(Site::new(client, host.headers, Some(Box::new(user)))),
                base: host.base,
                query: if host.mirror {
                    format!("?ns={}", query_value(name))
                } else {
                    String::new()
                },
            });
        }
        Ok(Self { ways })
    }

    /// Where something of a repository is; `kind` is "blobs" or "manifests".
    fn places(
        &self,
        repository: &str,
        kind: &str,
        reference: &str,
    ) -> Result<Vec<Place>, SourceError> {
        let scope: Arc<str> = format!("repository:{repository}:pull").into();
        let place = |way: &Way| {
            let Way { base, query, .. } = way;
            let url = Url::parse(&format!("{base}/{repository}/{kind}/{reference}{query}"))?;
            Ok(Place::new(Arc::clone(&way.site), url, Arc::clone(&scope)))
        };
        let places: Result<_, &str> = self.ways.iter().map(place).collect();
        places.map_err(|reason| SourceError::new(libc::EINVAL, reason))
    }
}

/// A repository and something in it: "registry/repository@digest" or "registry/repository:tag".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub registry: String,
    pub repository: String,
    pub tag: Tag,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    Digest(Digest),
    Name(String),
}

impl Reference {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("\"{text}\" is no REGISTRY/REPOSITORY@sha256:DIGEST or ...:TAG: {what}")
        };
        let (name, tag) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest)
                    .ok_or_else(|| wrong("the digest is not sha256: and 64 digits"))?;
                // "repository:tag@digest": the digest counts.
                let end = name.rfind('/').unwrap_or(0);
                let colon = name[end..].find(':').map(|at| &name[..end + at]);
                (colon.unwrap_or(name), Tag::Digest(digest))
            }
            None => {
                let (name, tag) = text
                    .rsplit_once(':')
                    .filter(|(_, tag)| !tag.contains('/'))
                    .ok_or_else(|| wrong("it has neither digest nor tag"))?;
                let known = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
                if tag.is_empty() || tag.len() > 128 || !tag.bytes().all(known) {
                    return Err(wrong("the tag has strange characters"));
                }
                (name, Tag::Name(tag.to_string()))
            }
        };
        let (registry, repository) = name
            .split_once('/')
            .ok_or_else(|| wrong("it has no registry"))?;
        // It is also the name of a directory, see hosts.
        let host = super::http::url::split_address(registry).is_ok()
            && registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        if !host || !(registry.contains(['.', ':']) || registry == "localhost") {
            return Err(wrong("the registry is no host"));
        }
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let part = |part: &str| {
            let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = part.as_bytes();
            edge(bytes.first()) && edge(bytes.last()) && part.bytes().all(known)
        };
        if !repository.split('/').all(part) || repository.len() > 255 {
            return Err(wrong("the repository has strange characters"));
        }
        Ok(Self {
            registry: registry.to_string(),
            repository: repository.to_string(),
            tag,
        })
    }
}

/// Gets all of something small whose bytes are known to be right, from the first place that has it.
fn get(
    fetching: &Fetching,
    places: &[Place],
    accept: &str,
    most: u64,
    digest: Option<&Digest>,
) -> Result<Vec<u8>, SourceError> {
    fetching.retries.run(places, |place| {
        let response = place.send("GET", &[("Accept", accept)])?;
        if response.status != 200 {
            return Err(bad_status(&response));
        }
        let body = response.body(most)?;
        match digest {
            Some(digest) if Digest::of(&body) != *digest => {
                let retries = &fetching.retries;
                retries.report.metrics.verify_failure(&place.url.address());
                let text = format!("wrong bytes: they do not have the digest {digest}");
                retries.report.error(&format!("{}: {text}", place.url));
                place.has_lied();
                Err(Failure::Final(SourceError {
                    said: true,
                    ..SourceError::new(libc::EIO, text)
                }))
            }
            _ => Ok(body),
        }
    })
}

/// Indexes that are in use, by what they are found by: several blobs, and the next one of the same, have
/// one copy in memory.
#[derive(Default)]
pub struct Indexes(Mutex<HashMap<String, Weak<ChunkIndex>>>);

impl Indexes {
    fn get(
        &self,
        key: &str,
        fetch: impl FnOnce() -> Result<Vec<u8>, SourceError>,
    ) -> Result<Arc<ChunkIndex>, SourceError> {
        let known = |map: &HashMap<String, Weak<ChunkIndex>>| map.get(key).and_then(Weak::upgrade);
        if let Some(index) = known(&self.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(index);
        }
        // Two that come at once fetch it twice, which does no harm.
        let index = ChunkIndex::parse(&fetch()?).map_err(|reason| {
            SourceError::new(
                libc::EIO,
                format!("the chunk index {key} is wrong: {reason}"),
            )
        })?;
        let index = Arc::new(index);
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|_, index| index.strong_count() > 0);
        map.insert(key.to_string(), Arc::downgrade(&index));
        Ok(index)
    }
}

/// Bytes in memory that have a digest all together.
struct Whole<'a> {
    buf: Vec<u8>,
    have: usize,
    off: u64,
    digest: &'a Digest,
}

impl Sink for Whole<'_> {
    fn rest(&self) -> std::ops::Range<u64> {
        self.off + self.have as u64..self.off + self.buf.len() as u64
    }

    fn space(&mut self) -> &mut [u8] {
        &mut self.buf[self.have..]
    }

    fn filled(&mut self, len: usize) -> Result<(), SourceError> {
        self.have += len;
        if self.have == self.buf.len() && Digest::of(&self.buf) != *self.digest {
            self.have = 0;
            let digest = self.digest;
            return Err(SourceError {
                wrong_bytes: true,
                ..SourceError::new(
                    libc::EIO,
                    format!("wrong bytes: a chunk index does not have the digest {digest}"),
                )
            });
        }
        Ok(())
    }
}

/// What is known of a blob.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub digest: &'a Digest,
    pub size: Option<u64>,
    /// Whether its chunks are compressed; if that is not known, the index says so.
    pub compressed: Option<bool>,
    /// That of its data if they are.
    pub inflated: Option<&'a Digest>,
}

impl<'a> Known<'a> {
    /// Only the digest.
    pub fn as_digest(digest: &'a Digest) -> Self {
        Self {
            digest,
            size: None,
            compressed: None,
            inflated: None,
        }
    }

    pub fn layer(layer: &'a Layer) -> Self {
        Self {
            digest: &layer.digest,
            size: Some(layer.size),
            compressed: Some(layer.compressed),
            inflated: layer.inflated.as_ref(),
        }
    }
}

/// What a blob is checked with.
pub enum Trusting<'a> {
    /// The chunk index that is described so.
    Index(&'a Index),
    /// Nothing: whoever sends it is believed.
    Sender,
}

impl Registry {
    /// A blob of a repository. Its size is asked for if it is not known.
    pub fn open(
        &self,
        fetching: &Arc<Fetching>,
        indexes: &Indexes,
        repository: &str,
        known: Known<'_>,
        trusting: Trusting<'_>,
    ) -> Result<Arc<dyn Blob>, SourceError> {
        let Known { digest, size, .. } = known;
        let name = digest.as_str();
        let places = self.places(repository, "blobs", name)?;
        // Where the chunks end, if something is behind them.
        let mut end = None;
        let index = match trusting {
            Trusting::Sender => {
                return Ok(Arc::new(HttpBlob::open(fetching, places, name, size)?));
            }
            Trusting::Index(Index::Blob(digest, _)) => indexes.get(digest.as_str(), || {
                let places = self.places(repository, "blobs", digest.as_str())?;
                get(fetching, &places, "*/*", MAX_INDEX, Some(digest))
            })?,
            Trusting::Index(Index::Inside(_, None)) => {
                return Err(SourceError::new(
                    libc::EACCES,
                    format!(
                        "the manifest has no digest of the chunk index in {digest}: nothing vouches for it"
                    ),
                ));
            }
            Trusting::Index(Index::Inside(range, Some(of_index))) => {
                end = Some(range.start);
                let range = ChunkIndex::inside(range, known.compressed == Some(true));
                if range.end - range.start > MAX_INDEX {
                    let text = format!("the chunk index in {digest} is too large");
                    return Err(SourceError::new(libc::EFBIG, text));
                }
                indexes.get(of_index.as_str(), || {
                    let places = self.places(repository, "blobs", name)?;
                    let blob = HttpBlob::open(fetching, places, name, size)?;
                    let mut whole = Whole {
                        buf: vec![0; (range.end - range.start) as usize],
                        have: 0,
                        off: range.start,
                        digest: of_index,
                    };
                    blob.read_into(&mut whole)?;
                    Ok(whole.buf)
                })?
            }
        };
        if known
            .compressed
            .is_some_and(|is| is != index.is_compressed())
        {
            let text = format!("the chunk index of {digest} is one for chunks of another kind");
            return Err(SourceError::new(libc::EIO, text));
        }
        // A blob without an index in it has just what the index says, unless that is compressed.
        let size = size.or((!index.is_compressed()).then_some(index.size()));
        let blob: Arc<dyn Blob> = Arc::new(HttpBlob::open(fetching, places, name, size)?);
        let end = end.unwrap_or(blob.size());
        let inflated = known.inflated.map(|digest| digest.hex().to_string());
        let blob = Verified::with_end(blob, index, end)?;
        Ok(Arc::new(blob.with_whole(inflated)))
    }

    /// The EROFS layers of an image. A tag is believed as far as the connection is; a digest is checked.
    pub fn layers(
        &self,
        fetching: &Fetching,
        repository: &str,
        tag: &Tag,
    ) -> Result<Vec<Layer>, SourceError> {
        let mut tag = tag.clone();
        // An index leads to a manifest, and a manifest nowhere.
        for _ in 0..2 {
            let (reference, digest) = match &tag {
                Tag::Digest(digest) => (digest.as_str(), Some(digest)),
                Tag::Name(name) => (name.as_str(), None),
            };
            let places = self.places(repository, "manifests", reference)?;
            let bytes = get(fetching, &places, ACCEPT, MAX_MANIFEST, digest)?;
            let wrong = |reason| {
                let text = format!("the manifest {repository}, {reference}: {reason}");
                SourceError::new(libc::EIO, text)
            };
            match Manifest::parse(&bytes).map_err(wrong)? {
                Manifest::Image(layers) => return Ok(layers),
                Manifest::See(digest, _) => tag = Tag::Digest(digest),
            }
        }
        let text = format!("an image index of {repository} leads to another one");
        Err(SourceError::new(libc::EIO, text))
    }
}

/// A blob of a web server with its chunk index beside it, whose digest may be known.
pub fn open_beside(
    fetching: &Arc<Fetching>,
    indexes: &Indexes,
    site: &Arc<Site>,
    url: &str,
    digest: Option<&Digest>,
) -> Result<Arc<dyn Blob>, SourceError> {
    let place = |url: &str| {
        let url = Url::parse(url).map_err(|reason| SourceError::new(libc::EINVAL, reason))?;
        Ok::<_, SourceError>(vec![Place::new(Arc::clone(site), url, Arc::from(""))])
    };
    let beside = format!("{url}{}", super::chunks::SUFFIX);
    let fetch = || get(fetching, &place(&beside)?, "*/*", MAX_INDEX, digest);
    let index = match digest {
        Some(digest) => indexes.get(digest.as_str(), fetch)?,
        // It may be another one now.
        None => {
            let bytes = fetch().map_err(|err| {
                let reason = format!("the chunk index: {}", err.reason);
                SourceError { reason, ..err }
            })?;
            indexes.get(Digest::of(&bytes).as_str(), || Ok(bytes))?
        }
    };
    let name = url.rsplit('/').next().unwrap_or("");
    let blob = HttpBlob::open(fetching, place(url)?, name, None)?;
    Ok(Arc::new(Verified::new(Arc::new(blob), index)?))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod reference_tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let parse = |text: &str| Reference::parse(text).map(|r| (r.registry, r.repository, r.tag));
        let named = |tag: &str| Tag::Name(tag.into());
        for (text, registry, repository, tag) in [
            (
                "r.example/a/b-c/d_e:1.0",
                "r.example",
                "a/b-c/d_e",
                named("1.0"),
            ),
            ("localhost/x:t", "localhost", "x", named("t")),
            ("[::1]:5000/x:t", "[::1]:5000", "x", named("t")),
            ("r:5000/x:T_1", "r:5000", "x", named("T_1")),
        ] {
            assert_eq!(
                parse(text).unwrap(),
                (registry.into(), repository.into(), tag)
            );
        }
        let pinned = Tag::Digest(Digest::parse(&digest).unwrap());
        for text in ["r.example:80/x", "r.example:80/x:tag"] {
            let got = parse(&format!("{text}@{digest}")).unwrap();
            assert_eq!(got, ("r.example:80".into(), "x".into(), pinned.clone()));
        }
        for text in [
            "",
            "x:t",
            "../x:t",
            ".example/x:t",
            "r.example/x",
            "r.example/X:t",
            "r.example/../x:t",
            "r.example/x/:t",
            "r.example//x:t",
            "r.example/x:",
            "r.example/x:a b",
            "r.example/x?y:t",
            "u@r.example/x:t",
            "noport/x:t",
            "r.example/x@sha256:12",
            "r.example/x@md5:12",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// Whatever is in a table: what becomes a URL or a path leads nowhere else.
        #[test]
        fn references_lead_nowhere_else(text in "[a-z./:@\\[\\]%?#-]{1,12}/[a-zA-Z0-9._/?#%@:-]{1,20}:[a-z]{1,3}") {
            if let Ok(reference) = Reference::parse(&text) {
                let parts = reference.repository.split('/').chain([reference.registry.as_str()]);
                for part in parts {
                    prop_assert!(!matches!(part, "" | "." | ".."));
                    prop_assert!(!part.contains(['?', '#', '/', '@']), "{}", part);
                }
            }
        }
    }
}
