// SPDX-License-Identifier: GPL-2.0-or-later

//! What is read of OCI manifests and image indexes: the EROFS layers, and where their chunk indexes are
//! (the EROFS image specification of the EROFS project, sections 2 and 3.4.3).

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;

use crate::api::Role;

/// The largest manifest, in bytes; registries take no larger ones.
pub const MAX_MANIFEST: u64 = 4 << 20;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

const EROFS: &str = "application/vnd.erofs";
/// Compressed, each chunk of its index by itself.
const EROFS_ZSTD: &str = "application/vnd.erofs+zstd";
const CHUNK_INDEX: &str = "application/vnd.erofs.chunk-index.v1";

/// What is asked for.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, \
                          application/vnd.oci.image.index.v1+json, \
                          application/vnd.docker.distribution.manifest.v2+json, \
                          application/vnd.docker.distribution.manifest.list.v2+json";

/// "sha256:" and 64 hexadecimal digits in lower case. The only kind that is computed here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (digits.len() == 64 && digits.bytes().all(hex)).then(|| Self(text.to_string()))
    }

    /// That of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(format!("sha256:{:x}", sha2::Sha256::digest(bytes)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digits alone.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(rename = "os.features", default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

/// What a manifest is.
#[derive(Debug, PartialEq, Eq)]
pub enum Manifest {
    Image(Vec<Layer>),
    /// Another one, of this digest and size, is the one for this machine.
    See(Digest, u64),
}

/// An EROFS layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub digest: Digest,
    pub size: u64,
    pub index: Option<Index>,
    pub compressed: bool,
    pub role: Role,
    /// What it is when it is not compressed any more, if the manifest says that.
    pub inflated: Option<Digest>,
}

/// Where the chunk index of a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Index {
    /// A blob of its own, of this digest and size.
    Blob(Digest, u64),
    /// In the layer's blob; its own digest, if the manifest has it.
    Inside(Range<u64>, Option<Digest>),
}

fn sha256(text: &str) -> Result<Digest, String> {
    Digest::parse(text).ok_or_else(|| format!("the digest \"{text}\" is no SHA-256"))
}

fn digest(descriptor: &Descriptor) -> Result<Digest, String> {
    sha256(&descriptor.digest)
}

impl Manifest {
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let document: Document =
            serde_json::from_slice(bytes).map_err(|err| format!("it is no manifest: {err}"))?;
        if document.schema_version != 2 {
            let version = document.schema_version;
            return Err(format!("it is a manifest of version {version}"));
        }
        let is_list = matches!(document.media_type.as_str(), INDEX | DOCKER_LIST);
        match (document.layers, document.manifests) {
            (Some(layers), None) if !is_list => layers_of(&layers).map(Self::Image),
            (None, Some(manifests)) if document.media_type != MANIFEST => choose(&manifests),
            _ => Err("it is neither a manifest nor an image index".into()),
        }
    }
}

/// The name of this machine's architecture in image indexes.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn choose(manifests: &[Descriptor]) -> Result<Manifest, String> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_some_and(|platform| {
            platform.os == "linux"
                && platform.architecture == architecture()
                && platform.features.iter().any(|feature| feature == "erofs")
        })
    };
    let descriptor = manifests.iter().find(fits).ok_or_else(|| {
        format!(
            "the image index has no manifest for linux, {}, with the feature erofs",
            architecture()
        )
    })?;
    Ok(Manifest::See(digest(descriptor)?, descriptor.size))
}

fn layers_of(descriptors: &[Descriptor]) -> Result<Vec<Layer>, String> {
    let mut layers: Vec<Layer> = Vec::new();
    // Whether the descriptor before this one is the last of `layers`.
    let mut follows = false;
    for descriptor in descriptors {
        match descriptor.media_type.as_str() {
            kind if kind == EROFS || kind == EROFS_ZSTD || is_device(descriptor) => {
                let compressed = kind == EROFS_ZSTD;
                layers.push(Layer {
                    digest: digest(descriptor)?,
                    size: descriptor.size,
                    index: index_inside(descriptor)?,
                    compressed,
                    role: role(descriptor)?,
                    inflated: match named(descriptor, "uncompressed-digest") {
                        Some(text) if compressed => Some(sha256(text)?),
                        _ => None,
                    },
                });
                follows = true;
            }
            CHUNK_INDEX => {
                let layer = layers.last_mut().filter(|_| follows);
                let layer = layer.ok_or("a chunk index follows no EROFS layer")?;
                let target = annotation(descriptor, "target");
                if target.is_some_and(|target| target != layer.digest.as_str()) {
                    return Err("a chunk index is that of another layer".into());
                }
                let blob = Index::Blob(digest(descriptor)?, descriptor.size);
                layer.index.get_or_insert(blob);
                follows = false;
            }
            // Nothing that can be served.
            _ => follows = false,
        }
    }
    if layers.is_empty() {
        return Err("the image has no EROFS layer".into());
    }
    Ok(layers)
}

fn named<'a>(descriptor: &'a Descriptor, name: &str) -> Option<&'a str> {
    let annotations = descriptor.annotations.as_ref()?;
    let value = annotations.get(&format!("org.erofs.{name}"))?;
    Some(value)
}

fn role(descriptor: &Descriptor) -> Result<Role, String> {
    match named(descriptor, "role") {
        None => Ok(Role::None),
        Some("device") => Ok(Role::Device),
        Some("overlay-lower") => Ok(Role::OverlayLower),
        Some("overlay-data") => Ok(Role::OverlayData),
        Some(other) => Err(format!("a layer has the unknown role \"{other}\"")),
    }
}

/// Whether it is for a layer behind it whatever it is, and its bytes are those that are wanted.
fn is_device(descriptor: &Descriptor) -> bool {
    let is_plain = !descriptor.media_type.contains('+') && !descriptor.media_type.ends_with("gzip");
    let is_index = descriptor.media_type == CHUNK_INDEX;
    named(descriptor, "role") == Some("device") && is_plain && !is_index
}

fn annotation<'a>(descriptor: &'a Descriptor, name: &str) -> Option<&'a str> {
    named(descriptor, &format!("chunk-index.{name}"))
}

fn index_inside(descriptor: &Descriptor) -> Result<Option<Index>, String> {
    let Some(text) = annotation(descriptor, "range") else {
        return Ok(None);
    };
    if annotation(descriptor, "mediaType").is_some_and(|kind| kind != CHUNK_INDEX) {
        return Ok(None);
    }
    let wrong = || format!("the range \"{text}\" of a chunk index is not in its blob");
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (start, end) = match text.split_once(':') {
        Some((start, end)) => (number(start), number(end)),
        None => (number(text), Some(descriptor.size)),
    };
    let range = start.zip(end).map(|(start, end)| start..end);
    let range = range
        .filter(|range| range.start < range.end && range.end <= descriptor.size)
        .ok_or_else(wrong)?;
    let digest = match annotation(descriptor, "digest") {
        None => None,
        Some(text) => Some(
            Digest::parse(text)
                .ok_or_else(|| format!("the digest \"{text}\" of a chunk index is no SHA-256"))?,
        ),
    };
    Ok(Some(Index::Inside(range, digest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn image(layers: &str) -> Result<Vec<Layer>, String> {
        let text =
            format!("{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"layers\":[{layers}]}}");
        match Manifest::parse(text.as_bytes())? {
            Manifest::Image(layers) => Ok(layers),
            Manifest::See(..) => panic!(),
        }
    }

    fn layer(kind: &str, digit: char, annotations: &str) -> String {
        format!(
            "{{\"mediaType\":\"{kind}\",\"digest\":\"{}\",\"size\":1000,\"annotations\":{{{annotations}}}}}",
            hex(digit)
        )
    }

    #[test]
    fn layers_and_their_indexes() {
        let target = format!("\"org.erofs.chunk-index.target\":\"{}\"", hex('a'));
        let text = [
            layer(EROFS, 'a', ""),
            layer(CHUNK_INDEX, 'b', &target),
            layer("application/octet-stream", 'c', ""),
            layer(
                EROFS,
                'd',
                &format!(
                    "\"org.erofs.chunk-index.range\":\"900:980\",\"org.erofs.chunk-index.digest\":\"{}\"",
                    hex('e')
                ),
            ),
            layer(EROFS, 'f', "\"org.erofs.chunk-index.range\":\"900\""),
            layer(EROFS, '1', ""),
            layer(
                EROFS_ZSTD,
                '2',
                &format!("\"org.erofs.uncompressed-digest\":\"{}\"", hex('3')),
            ),
        ]
        .join(",");
        let layers = image(&text).unwrap();
        let digest = |digit| Digest::parse(&hex(digit)).unwrap();
        let got: Vec<_> = layers.iter().map(|l| (&l.digest, &l.index)).collect();
        let want = [
            (digest('a'), Some(Index::Blob(digest('b'), 1000))),
            (
                digest('d'),
                Some(Index::Inside(900..980, Some(digest('e')))),
            ),
            (digest('f'), Some(Index::Inside(900..1000, None))),
            (digest('1'), None),
            (digest('2'), None),
        ];
        let compressed: Vec<_> = layers.iter().filter(|l| l.compressed).collect();
        assert_eq!(compressed.len(), 1);
        assert_eq!(compressed[0].inflated, Some(digest('3')));
        assert_eq!(got, want.iter().map(|(d, i)| (d, i)).collect::<Vec<_>>());
    }

    #[test]
    fn roles() {
        let role =
            |kind, digit, role: &str| layer(kind, digit, &format!("\"org.erofs.role\":\"{role}\""));
        let text = [
            role("application/octet-stream", 'a', "device"),
            role("application/vnd.oci.image.layer.v1.tar+zstd", 'b', "device"),
            role(CHUNK_INDEX, 'c', "x"),
            role(EROFS, 'd', "overlay-lower"),
            role(EROFS, 'e', "overlay-data"),
            layer(EROFS, 'f', ""),
        ];
        let layers = image(&[&text[..2], &text[3..]].concat().join(",")).unwrap();
        let roles: Vec<_> = layers.iter().map(|layer| layer.role).collect();
        let (lower, data) = (Role::OverlayLower, Role::OverlayData);
        // Without the one that is compressed in a way that is not served.
        assert_eq!(roles, [Role::Device, lower, data, Role::None]);
    }

    #[test]
    fn wrong_manifests() {
        let other = format!("\"org.erofs.chunk-index.target\":\"{}\"", hex('c'));
        let range = |text: &str| {
            layer(
                EROFS,
                'a',
                &format!("\"org.erofs.chunk-index.range\":\"{text}\""),
            )
        };
        for (text, part) in [
            (layer(CHUNK_INDEX, 'b', ""), "follows no"),
            (
                layer(EROFS, 'a', "") + "," + &layer(CHUNK_INDEX, 'b', &other),
                "another layer",
            ),
            (
                layer(
                    EROFS_ZSTD,
                    'a',
                    "\"org.erofs.uncompressed-digest\":\"sha256:1\"",
                ),
                "no SHA-256",
            ),
            (layer("x", 'a', ""), "no EROFS layer"),
            (layer(EROFS, 'g', ""), "no SHA-256"),
            (
                layer(EROFS, 'a', "\"org.erofs.role\":\"x\""),
                "unknown role",
            ),
            (range("1001"), "not in its blob"),
            (range("5:4"), "not in its blob"),
            (range("-1:5"), "not in its blob"),
            (range("0:18446744073709551616"), "not in its blob"),
        ] {
            let err = image(&text).expect_err(&text);
            assert!(err.contains(part), "{err}");
        }
        for text in [
            "",
            "{}",
            "[]",
            "{\"schemaVersion\":1}",
            "{\"schemaVersion\":2}",
            "{\"schemaVersion\":2,\"layers\":[],\"manifests\":[]}",
        ] {
            assert!(Manifest::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn an_index_says_which_manifest_is_for_this_machine() {
        let entry = |digit, arch: &str, features: &str| {
            format!(
                "{{\"digest\":\"{}\",\"size\":7,\"platform\":{{\"os\":\"linux\",\"architecture\":\"{arch}\",\
                 \"os.features\":[{features}]}}}}",
                hex(digit)
            )
        };
        let index = |entries: &[String]| {
            let text = format!(
                "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
                entries.join(",")
            );
            Manifest::parse(text.as_bytes())
        };
        let arch = architecture();
        let (tar, other, ours) = (
            entry('a', arch, ""),
            entry('b', "s390x", "\"erofs\""),
            entry('c', arch, "\"x\",\"erofs\""),
        );
        let want = Manifest::See(Digest::parse(&hex('c')).unwrap(), 7);
        assert_eq!(index(&[tar.clone(), other.clone(), ours]), Ok(want));
        assert!(index(&[tar, other])
            .unwrap_err()
            .contains("no manifest for"));
    }

    proptest! {
        /// Whatever a registry sends, it is an error or a list of layers in their blobs.
        #[test]
        fn nothing_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn ranges_are_in_their_blobs(text in "[0-9:]{0,24}") {
            let annotations = format!("\"org.erofs.chunk-index.range\":\"{text}\"");
            if let Ok(layers) = image(&layer(EROFS, 'a', &annotations)) {
                let Some(Index::Inside(range, None)) = &layers[0].index else { panic!() };
                prop_assert!(range.start < range.end && range.end <= 1000);
            }
        }
    }
}
