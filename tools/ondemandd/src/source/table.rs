// SPDX-License-Identifier: GPL-2.0-or-later

//! `--sources FILE`: a table that says for each name where its bytes are, in registries, on web servers or
//! in files, all at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Deserialize;

use super::chunks::{ChunkIndex, Verified, SUFFIX};
use super::http::client::{Client, Trust};
use super::http::site::{Place, Retries, Site};
use super::http::url::Url;
use super::http::{Fetching, HttpBlob};
use super::registry::hosts::wrong_toml;
use super::registry::manifest::{Digest, Index, Layer};
use super::registry::{
    open_beside, Connecting, Indexes, Known, Reference, Registry, Tag, Trusting,
};
use super::{open_file, Blob, BlobName, Source, SourceError};
use crate::api::{Added, ImageLayer};
use crate::device::strip_code;

/// The largest table, in bytes: some ten thousand names.
const MAX_TABLE: u64 = 16 << 20;

/// The table as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Text {
    #[serde(default)]
    blob: HashMap<String, BlobText>,
    #[serde(default)]
    image: HashMap<String, ImageText>,
    #[serde(default)]
    registry: HashMap<String, RegistryText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct BlobText {
    registry: Option<String>,
    http: Option<String>,
    file: Option<PathBuf>,
    index: Option<String>,
    #[serde(default)]
    unverified: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ImageText {
    reference: String,
    #[serde(default)]
    unverified: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RegistryText {
    #[serde(default)]
    plain_http: bool,
}

/// Where a blob is.
enum Entry {
    Registry {
        registry: Arc<Registry>,
        repository: String,
        digest: Digest,
        /// If there is none, the registry is believed.
        index: Option<Index>,
    },
    Http {
        site: Arc<Site>,
        url: String,
        trusting: Beside,
    },
    File {
        path: PathBuf,
        trusting: Beside,
    },
}

/// What a blob that is a file is checked with.
enum Beside {
    Sender,
    /// The index beside it, which may have to have a digest.
    Index(Option<Digest>),
}

struct Image {
    registry: Arc<Registry>,
    repository: String,
    tag: Tag,
    unverified: bool,
    /// What the registry has said, until the table is read again.
    layers: Mutex<Option<Arc<Vec<Layer>>>>,
}

/// The table as it is used.
struct Table {
    blobs: HashMap<String, Entry>,
    images: Vec<(String, Image)>,
}

pub struct TableSource {
    path: PathBuf,
    connecting: Connecting,
    fetching: Arc<Fetching>,
    indexes: Indexes,
    table: RwLock<Arc<Table>>,
    /// One change at a time.
    changing: Mutex<()>,
}

/// The names that were added while a daemon ran. They are in a file beside the table, as JSON.
type AddedNames = BTreeMap<String, Added>;

fn added_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".added.json");
    name.into()
}

fn read_added(path: &Path) -> Result<AddedNames, String> {
    let path = added_path(path);
    let bytes = match fs::read(&path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(AddedNames::new()),
        bytes => bytes.map_err(|err| format!("{}: {}", path.display(), strip_code(&err)))?,
    };
    serde_json::from_slice(&bytes).map_err(|err| format!("{}: {err}", path.display()))
}

/// Whoever reads it gets the old names or the new ones, also after a crash.
fn write_added(path: &Path, names: &AddedNames) -> Result<(), String> {
    let path = added_path(path);
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let text = serde_json::to_vec_pretty(names).map_err(|err| err.to_string())?;
    // URLs may have passwords.
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary);
    file.and_then(|mut file| {
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    })
    .map_err(|err| format!("cannot write {}: {}", path.display(), strip_code(&err)))
}

impl TableSource {
    pub fn new(path: PathBuf, connecting: Connecting, retries: Retries) -> Result<Self, String> {
        let table = Table::read(&path, &connecting)?;
        Ok(Self {
            path,
            connecting,
            // Names in a table without anything to verify them with were chosen with open eyes, but
            // versions still have to be told apart.
            fetching: Arc::new(Fetching {
                retries,
                accept_unversioned: false,
            }),
            indexes: Indexes::default(),
            table: RwLock::new(Arc::new(table)),
            changing: Mutex::default(),
        })
    }

    fn set(&self, table: Table) {
        let mut current = self.table.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(table);
    }

    /// Changes the names that were added.
    fn change(
        &self,
        change: impl FnOnce(&mut AddedNames, &Text) -> Result<(), String>,
    ) -> Result<(), String> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = read_table(&self.path)?;
        let mut added = read_added(&self.path)?;
        let parsed = parse_text(&text)?;
        change(&mut added, &parsed)?;
        let table = Table::make(parsed, &added, &self.connecting)?;
        write_added(&self.path, &added)?;
        self.set(table);
        Ok(())
    }
}

fn parse_text(text: &str) -> Result<Text, String> {
    toml::from_str(text).map_err(|err| wrong_toml(text, &err))
}

impl Text {
    fn has(&self, name: &str) -> bool {
        self.blob.contains_key(name) || self.image.contains_key(name)
    }

    fn add(&mut self, name: &str, source: &Added) -> Result<(), String> {
        let Added {
            image,
            registry,
            http,
            file,
            index,
            unverified,
        } = source.clone();
        let name = name.to_string();
        if let Some(reference) = image {
            if registry.is_some() || http.is_some() || file.is_some() || index.is_some() {
                return Err(format!("\"{name}\" is an image, and something else"));
            }
            let image = ImageText {
                reference,
                unverified,
            };
            self.image.insert(name, image);
        } else {
            let blob = BlobText {
                registry,
                http,
                file: file.map(PathBuf::from),
                index,
                unverified,
            };
            self.blob.insert(name, blob);
        }
        Ok(())
    }
}

fn read_table(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    if size > MAX_TABLE {
        return Err(format!("the table {shown} has more than {MAX_TABLE} bytes"));
    }
    fs::read_to_string(path)
        .map_err(|err| format!("cannot read the table {shown}: {}", strip_code(&err)))
}

impl Table {
    fn read(path: &Path, connecting: &Connecting) -> Result<Self, String> {
        let text = read_table(path)?;
        let added = read_added(path)?;
        parse_text(&text)
            .and_then(|text| Self::make(text, &added, connecting))
            .map_err(|reason| format!("{}: {reason}", path.display()))
    }

    /// What is in the table counts more than what was added.
    fn make(mut text: Text, added: &AddedNames, connecting: &Connecting) -> Result<Self, String> {
        for (name, source) in added {
            if !text.has(name) {
                text.add(name, source)?;
            }
        }
        let mut making = Making {
            connecting,
            settings: &text.registry,
            registries: HashMap::new(),
            sites: HashMap::new(),
        };
        let mut used = HashSet::new();
        let mut blobs = HashMap::new();
        for (name, blob) in &text.blob {
            let entry = making
                .entry(blob)
                .map_err(|reason| format!("blob \"{name}\": {reason}"))?;
            used.insert(name.clone());
            blobs.insert(name.clone(), entry);
        }
        let mut images = Vec::new();
        for (name, image) in text.image {
            let place = format!("image \"{name}\"");
            if used.contains(&name) {
                return Err(format!("{place} has the name of a blob"));
            }
            let reference = Reference::parse(&image.reference)
                .map_err(|reason| format!("{place}: {reason}"))?;
            let registry = making
                .registry(&reference.registry)
                .map_err(|reason| format!("{place}: {reason}"))?;
            images.push((
                name,
                Image {
                    registry,
                    repository: reference.repository,
                    tag: reference.tag,
                    unverified: image.unverified,
                    layers: Mutex::default(),
                },
            ));
        }
        images.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(Self { blobs, images })
    }
}

/// Servers that are named more than once are one.
struct Making<'a> {
    connecting: &'a Connecting,
    settings: &'a HashMap<String, RegistryText>,
    registries: HashMap<String, Arc<Registry>>,
    sites: HashMap<String, Arc<Site>>,
}

impl Making<'_> {
    fn registry(&mut self, name: &str) -> Result<Arc<Registry>, String> {
        if let Some(registry) = self.registries.get(name) {
            return Ok(Arc::clone(registry));
        }
        let plain = self.settings.get(name).is_some_and(|text| text.plain_http);
        let registry = Arc::new(Registry::new(name, plain, self.connecting)?);
        self.registries
            .insert(name.to_string(), Arc::clone(&registry));
        Ok(registry)
    }

    fn site(&mut self, url: &Url) -> Result<Arc<Site>, String> {
        let key = format!("{}://{}", url.scheme(), url.address());
        if let Some(site) = self.sites.get(&key) {
            return Ok(Arc::clone(site));
        }
        let client = Client::new(
            self.connecting.proxies.clone(),
            self.connecting.timeout,
            self.connecting.connections,
            Trust {
                only: self.connecting.ca_file.iter().cloned().collect(),
                ..Trust::default()
            },
            Arc::clone(&self.connecting.stop),
        );
        if url.tls {
            client.check_tls()?;
        }
        let site = Arc::new(Site::new(client, Vec::new(), None));
        self.sites.insert(key, Arc::clone(&site));
        Ok(site)
    }

    fn entry(&mut self, text: &BlobText) -> Result<Entry, String> {
        let index = match &text.index {
            None => None,
            Some(index) => Some(
                Digest::parse(index)
                    .ok_or_else(|| format!("index = \"{index}\" is not sha256: and 64 digits"))?,
            ),
        };
        if text.unverified && index.is_some() {
            return Err("it has an index and is unverified".into());
        }
        let beside = |index| match text.unverified {
            true => Beside::Sender,
            false => Beside::Index(index),
        };
        match (&text.registry, &text.http, &text.file) {
            (Some(reference), None, None) => {
                let Reference {
                    registry,
                    repository,
                    tag,
                } = Reference::parse(reference)?;
                let Tag::Digest(digest) = tag else {
                    return Err("a blob has a digest, not a tag".into());
                };
                if index.is_none() && !text.unverified {
                    return Err(
                        "there is no index to verify it with; add index = \"sha256:...\", or \
                         unverified = true if the registry is to be believed"
                            .into(),
                    );
                }
                Ok(Entry::Registry {
                    registry: self.registry(&registry)?,
                    repository,
                    digest,
                    index: index.map(|digest| Index::Blob(digest, 0)),
                })
            }
            (None, Some(url), None) => {
                let parsed = Url::parse(url)
                    .map_err(|reason| format!("\"{}\": {reason}", super::http::redact(url)))?;
                Ok(Entry::Http {
                    site: self.site(&parsed)?,
                    url: url.clone(),
                    trusting: beside(index),
                })
            }
            (None, None, Some(path)) => Ok(Entry::File {
                path: path.clone(),
                trusting: beside(index),
            }),
            _ => Err("it has to have one of registry, http and file".into()),
        }
    }
}

/// A file, checked with the index beside it.
pub fn open_indexed(path: &Path, digest: Option<&Digest>) -> Result<Arc<dyn Blob>, SourceError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(SUFFIX);
    let shown = beside.to_string_lossy().into_owned();
    let limit = super::chunks::MAX_INDEX;
    let fail = |err: std::io::Error| SourceError::io(&format!("the chunk index {shown}"), &err);
    let mut bytes = Vec::new();
    let file = fs::File::open(&beside).map_err(fail)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, limit + 1), &mut bytes)
        .map_err(fail)?;
    let wrong = |reason: String| SourceError::new(libc::EIO, format!("{shown}: {reason}"));
    if digest.is_some_and(|digest| Digest::of(&bytes) != *digest) {
        return Err(wrong(
            "it does not have the digest that it should have".into(),
        ));
    }
    let index = ChunkIndex::parse(&bytes).map_err(wrong)?;
    Ok(Arc::new(Verified::new(open_file(path)?, Arc::new(index))?))
}

impl TableSource {
    fn open_entry(&self, entry: &Entry) -> Result<Arc<dyn Blob>, SourceError> {
        match entry {
            Entry::Registry {
                registry,
                repository,
                digest,
                index,
            } => {
                let trusting = index.as_ref().map_or(Trusting::Sender, Trusting::Index);
                let blob = Known::as_digest(digest);
                registry.open(&self.fetching, &self.indexes, repository, blob, trusting)
            }
            Entry::Http {
                site,
                url,
                trusting: Beside::Index(digest),
            } => open_beside(&self.fetching, &self.indexes, site, url, digest.as_ref()),
            Entry::Http { site, url, .. } => {
                let parsed =
                    Url::parse(url).map_err(|reason| SourceError::new(libc::EINVAL, reason))?;
                let place = Place::new(Arc::clone(site), parsed, Arc::from(""));
                let name = url.rsplit('/').next().unwrap_or("");
                let blob = HttpBlob::open(&self.fetching, vec![place], name, None)?;
                Ok(Arc::new(blob))
            }
            Entry::File {
                path,
                trusting: Beside::Index(digest),
            } => open_indexed(path, digest.as_ref()),
            Entry::File { path, .. } => open_file(path),
        }
    }

    fn layers(&self, image: &Image) -> Result<Arc<Vec<Layer>>, SourceError> {
        let known = || image.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layers) = &*known() {
            return Ok(Arc::clone(layers));
        }
        let layers = image
            .registry
            .layers(&self.fetching, &image.repository, &image.tag)?;
        let layers = Arc::new(layers);
        *known() = Some(Arc::clone(&layers));
        Ok(layers)
    }

    fn open_layer(&self, image: &Image, layer: &Layer) -> Result<Arc<dyn Blob>, SourceError> {
        let trusting = match &layer.index {
            // Without it, nobody knows where in a compressed layer something is.
            _ if image.unverified && !layer.compressed => Trusting::Sender,
            Some(index) => Trusting::Index(index),
            None => {
                return Err(SourceError::new(
                    libc::EACCES,
                    format!(
                        "the layer {} has no chunk index to {}",
                        layer.digest,
                        match layer.compressed {
                            true => "read it with: it is compressed",
                            false => "verify it with (see \"unverified\")",
                        }
                    ),
                ))
            }
        };
        let blob = Known::layer(layer);
        image.registry.open(
            &self.fetching,
            &self.indexes,
            &image.repository,
            blob,
            trusting,
        )
    }

    /// A layer of an image, by its digest or, if it is the only one, by the name of the image.
    fn open_of_images(&self, table: &Table, key: &str) -> Result<Arc<dyn Blob>, SourceError> {
        let digest = Digest::parse(key);
        let mut trouble = None;
        for (name, image) in &table.images {
            if name != key && digest.is_none() {
                continue;
            }
            let layers = match self.layers(image) {
                Ok(layers) => layers,
                Err(err) => {
                    trouble.get_or_insert(err);
                    continue;
                }
            };
            if let Some(layer) = layers.iter().find(|l| Some(&l.digest) == digest.as_ref()) {
                return self.open_layer(image, layer);
            }
            match &layers[..] {
                _ if name != key => {}
                [layer] => return self.open_layer(image, layer),
                layers => {
                    let text = format!(
                        "the image \"{name}\" has {} layers, which have their digests as names",
                        layers.len()
                    );
                    return Err(SourceError::new(libc::ENOENT, text));
                }
            }
        }
        let none = || SourceError::new(libc::ENOENT, "the table has no such name");
        Err(trouble.unwrap_or_else(none))
    }
}

impl Source for TableSource {
    fn open(&self, name: &BlobName) -> Result<Arc<dyn Blob>, SourceError> {
        let table = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&table)
        };
        let key = name.to_string();
        match table.blobs.get(&key) {
            Some(entry) => self.open_entry(entry),
            None => self.open_of_images(&table, &key),
        }
    }

    fn image(&self, name: &str) -> Result<Vec<ImageLayer>, String> {
        let table = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&table)
        };
        let Some((_, image)) = table.images.iter().find(|(known, _)| known == name) else {
            return Ok(Vec::new());
        };
        let layers = self.layers(image).map_err(|err| err.reason)?;
        let layers = layers.iter().map(|layer| ImageLayer {
            name: layer.digest.to_string(),
            role: layer.role,
        });
        Ok(layers.collect())
    }

    fn reload(&self) -> Result<(), String> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.set(Table::read(&self.path, &self.connecting)?);
        Ok(())
    }

    fn add(&self, name: &str, source: Added) -> Result<(), String> {
        self.change(|added, text| {
            if text.has(name) {
                return Err(format!("\"{name}\" is in {} already", self.path.display()));
            }
            added.insert(name.to_string(), source);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        self.change(|added, text| match added.remove(name) {
            Some(_) => Ok(()),
            None if text.has(name) => Err(format!(
                "\"{name}\" is in {}: remove it there, and send SIGHUP",
                self.path.display()
            )),
            None => Err(format!("\"{name}\" was not added")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::source::http::Proxies;
    use crate::stop::Stop;
    use std::time::Duration;

    #[test]
    fn names_come_and_go_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let blob = dir.path().join("blob");
        fs::write(&blob, b"bytes").unwrap();
        let file = Added {
            file: Some(blob.to_str().unwrap().into()),
            unverified: true,
            ..Added::default()
        };
        let name = |name: &str| BlobName {
            domain: None,
            name: name.into(),
        };
        let text = "[blob.fixed]\nfile = \"/x\"\nunverified = true\n";
        let table = source(dir.path(), text).unwrap();
        assert!(table.open(&name("new")).is_err());
        table.add("new", file.clone()).unwrap();
        assert_eq!(table.open(&name("new")).unwrap().size(), 5);
        for (wrong, why) in [
            (Added::default(), "one of registry, http and file"),
            (
                Added {
                    image: Some("h/r:t".into()),
                    ..file.clone()
                },
                "something else",
            ),
            (
                Added {
                    index: Some("sha256:1".into()),
                    unverified: false,
                    ..file.clone()
                },
                "64 digits",
            ),
        ] {
            let err = table.add("wrong", wrong).unwrap_err();
            assert!(err.contains(why), "{err}");
        }
        assert!(table.add("fixed", file).unwrap_err().contains("already"));
        assert!(table
            .remove("fixed")
            .unwrap_err()
            .contains("remove it there"));
        assert!(table.remove("wrong").unwrap_err().contains("was not added"));
        table.reload().unwrap();
        drop(table);
        let table = source(dir.path(), text).unwrap();
        assert_eq!(table.open(&name("new")).unwrap().size(), 5);
        table.remove("new").unwrap();
        assert!(table.open(&name("new")).is_err());
        // What the table says is what counts.
        fs::write(added_path(&dir.path().join("table")), b"{nonsense").unwrap();
        assert!(table.reload().unwrap_err().contains("added.json"));
    }

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn source(dir: &Path, text: &str) -> Result<TableSource, String> {
        let path = dir.join("table");
        fs::write(&path, text).unwrap();
        let stop = Arc::new(Stop::new().unwrap());
        let connecting = Connecting {
            proxies: Proxies::default(),
            timeout: Duration::from_secs(3600),
            connections: 1,
            ca_file: None,
            hosts_dir: dir.to_path_buf(),
            lookup: Arc::new(Box::new(|_: &str| Ok(None))),
            stop: Arc::clone(&stop),
        };
        let retries = Retries {
            most: 0,
            time: Duration::from_secs(3600),
            report: Report::silent(),
            stop,
        };
        TableSource::new(path, connecting, retries)
    }

    fn open(source: &TableSource, name: &str) -> Result<Arc<dyn Blob>, SourceError> {
        source.open(&BlobName::from_keys(b"erofs,d", name.as_bytes(), true).unwrap())
    }

    /// A file with its index beside it.
    fn publish(path: &Path, data: &[u8]) -> String {
        let index = ChunkIndex::build(data, data.len() as u64, 4096, None).unwrap();
        fs::write(path, data).unwrap();
        fs::write(format!("{}{SUFFIX}", path.display()), &index).unwrap();
        Digest::of(&index).to_string()
    }

    fn read(blob: &dyn Blob) -> Result<Vec<u8>, SourceError> {
        let mut buf = vec![0; blob.size() as usize];
        blob.read_exact_at(&mut buf, 0)?;
        Ok(buf)
    }

    #[test]
    fn mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bad.example")).unwrap();
        fs::write(
            dir.path().join("bad.example/hosts.toml"),
            "skip_verify = true",
        )
        .unwrap();
        for (text, part) in [
            ("[blob.a]".to_string(), "blob \"a\": it has to have one of"),
            (
                "[blob.a]\nfile = '/x'\nhttp = 'http://h/x'".into(),
                "one of",
            ),
            ("[blob.a]\nfile = 1".into(), "line 2: invalid type"),
            ("[blob.a]\nhttp = 'http://u:PW@h/' x".into(), "line 2: "),
            ("[blob.a]\nfiel = '/x'".into(), "unknown field `fiel`"),
            ("[blub.a]\nfile = '/x'".into(), "unknown field `blub`"),
            ("[blob.a]\nfile = '/x'\n[blob.a]\n".into(), "duplicate"),
            (
                "[blob.a]\nhttp = 'http://u:PW@h:x/'".into(),
                "its port is no number",
            ),
            (
                "[blob.a]\nfile = '/x'\nindex = 'sha256:1'".into(),
                "64 digits",
            ),
            (
                format!("[blob.a]\nfile = '/x'\nindex = '{DIGEST}'\nunverified = true"),
                "is unverified",
            ),
            (
                "[blob.a]\nregistry = 'r.example/x:1'".into(),
                "a digest, not a tag",
            ),
            (
                format!("[blob.a]\nregistry = 'r.example/x@{DIGEST}'"),
                "no index to verify it with",
            ),
            (
                format!("[blob.a]\nregistry = 'bad.example/x@{DIGEST}'\nunverified = true"),
                "skip_verify",
            ),
            ("[image.a]\nreference = 'x'".into(), "image \"a\": "),
            (
                "[blob.a]\nfile = '/x'\n[image.a]\nreference = 'r.example/x:1'".into(),
                "has the name of a blob",
            ),
        ] {
            let err = source(dir.path(), &text).err().expect(&text);
            assert!(err.contains(part) && !err.contains("PW"), "{text}: {err}");
        }
        assert!(TableSource::new(
            dir.path().join("none"),
            source(dir.path(), "").unwrap().connecting,
            Retries {
                most: 0,
                time: Duration::ZERO,
                report: Report::silent(),
                stop: Arc::new(Stop::new().unwrap()),
            }
        )
        .is_err());
    }

    #[test]
    fn files_and_web_servers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let data: Vec<u8> = (0..50_000u32).map(|i| (i / 3) as u8).collect();
        let index = publish(&path, &data);
        let web = web_server::start(dir.path()).unwrap();
        let shown = path.display();
        let text = format!(
            "[blob.'d/file']\nfile = '{shown}'\n\
             [blob.'d/pinned']\nfile = '{shown}'\nindex = '{index}'\n\
             [blob.'d/other']\nfile = '{shown}'\nindex = '{DIGEST}'\n\
             [blob.'d/plain']\nfile = '{shown}'\nunverified = true\n\
             [blob.'d/http']\nhttp = 'http://{web}/x'\n\
             [blob.'d/http-pinned']\nhttp = 'http://{web}/x'\nindex = '{index}'\n\
             [blob.'d/http-other']\nhttp = 'http://{web}/x'\nindex = '{DIGEST}'\n\
             [blob.'d/http-plain']\nhttp = 'http://{web}/x'\nunverified = true\n\
             [blob.'d/none']\nhttp = 'http://{web}/none'\n"
        );
        let source = source(dir.path(), &text).unwrap();
        for name in [
            "file",
            "pinned",
            "plain",
            "http",
            "http-pinned",
            "http-plain",
        ] {
            let blob = open(&source, name).unwrap();
            assert!(read(&*blob).unwrap() == data, "{name}");
        }
        for (name, errno) in [
            ("other", libc::EIO),
            ("http-other", libc::EIO),
            ("none", libc::ENOENT),
            ("nothing", libc::ENOENT),
        ] {
            assert_eq!(open(&source, name).err().unwrap().errno, errno, "{name}");
        }
        // One byte is another one, and nothing else tells.
        let mut wrong = data.clone();
        wrong[20_000] ^= 1;
        fs::write(&path, &wrong).unwrap();
        for (name, right) in [("pinned", false), ("http-pinned", false), ("plain", true)] {
            let blob = open(&source, name).unwrap();
            let result = read(&*blob);
            assert_eq!(result.is_ok(), right, "{name}");
            // What is right of it is to be had.
            let mut buf = vec![0; 4096];
            blob.read_exact_at(&mut buf, 0).unwrap();
            assert!(buf == data[..4096]);
        }
        // A new version of both: another one for the kernel, too.
        let old = open(&source, "file").unwrap();
        publish(&path, &wrong);
        let new = open(&source, "file").unwrap();
        assert_ne!(old.version(), new.version());
        assert!(read(&*new).unwrap() == wrong);
    }

    #[test]
    fn a_table_is_read_again_if_it_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        publish(&a, b"aaaa");
        publish(&b, b"bbbb");
        let entry = |path: &Path| format!("[blob.'d/x']\nfile = '{}'\n", path.display());
        let source = source(dir.path(), &entry(&a)).unwrap();
        let old = open(&source, "x").unwrap();
        let rewrite = |text: &str| {
            fs::write(dir.path().join("table"), text).unwrap();
            source.reload()
        };
        rewrite(&entry(&b)).unwrap();
        assert!(rewrite("nonsense").is_err());
        fs::remove_file(dir.path().join("table")).unwrap();
        assert!(source.reload().is_err());
        assert_eq!(read(&*open(&source, "x").unwrap()).unwrap(), b"bbbb");
        // What is open goes on.
        assert_eq!(read(&*old).unwrap(), b"aaaa");
        rewrite("").unwrap();
        assert_eq!(open(&source, "x").err().unwrap().errno, libc::ENOENT);
    }
}
