// SPDX-License-Identifier: GPL-2.0-or-later

//! Where a registry is really reached: the mirrors, authorities and header fields of containerd's
//! `hosts.toml`, so that an operator says it in one place for both.
//!
//! Of `<dir>/<registry>/hosts.toml`, else `<dir>/_default/hosts.toml`; without either, certificates
//! (`*.crt`) of docker's `certs.d` are in the first directory. What cannot be done (`skip_verify`) is
//! refused, not left out; what does not matter here is left out.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::source::http::client::Trust;
use crate::source::http::url::Url;

/// Nobody writes more into such a file.
const MAX_FILE: u64 = 1 << 20;

/// One way to reach a registry.
#[derive(Debug)]
pub struct Host {
    /// The URL that "/<repository>/blobs/..." is below of, without a slash at its end.
    pub base: String,
    pub trust: Trust,
    pub headers: Vec<(String, String)>,
    /// Not the registry itself: it is told which one is meant.
    pub mirror: bool,
}

#[derive(Default, Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: HashMap<Spanned<String>, Settings>,
    #[serde(flatten)]
    settings: Settings,
}

/// One or several.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Many {
    One(String),
    Several(Vec<String>),
}

impl Many {
    fn list(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(list) => list,
        }
    }
}

/// Certificates of a client: one file with both, or pairs of certificate and key.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Pairs {
    Files(Many),
    Pairs(Vec<Vec<String>>),
}

#[derive(Clone, Default, Deserialize)]
struct Settings {
    capabilities: Option<Vec<String>>,
    ca: Option<Many>,
    client: Option<Pairs>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: HashMap<String, Many>,
}

/// The ways to reach a registry, in the order in which they are to be tried, the registry itself last.
pub fn read(dir: &Path, registry: &str, plain_http: bool) -> Result<Vec<Host>, String> {
    let own = dir.join(registry);
    for dir in [&own, &dir.join("_default")] {
        let path = dir.join("hosts.toml");
        if let Some(text) = read_file(&path)? {
            return parse(&text, dir, registry, plain_http)
                .map_err(|reason| format!("{}: {reason}", path.display()));
        }
    }
    let mut settings = Settings::default();
    if let Some(list) = certificates(&own) {
        settings.ca = Some(Many::Several(list));
    }
    let server = default_server(registry, plain_http);
    Ok(vec![settings.host(&server, &own, false)?])
}

fn read_file(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    let fail =
        |err: std::io::Error| format!("cannot read {shown}: {}", crate::device::strip_code(&err));
    let file = match fs::File::open(path) {
        Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None)
        }
        other => other.map_err(fail)?,
    };
    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(fail)?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("{shown} has more than {MAX_FILE} bytes"));
    }
    Ok(Some(text))
}

/// What is wrong with a TOML text. Not the line itself, as the library would show it: there may be a password
/// in it.
pub fn wrong_toml(text: &str, err: &toml::de::Error) -> String {
    let start = err.span().map_or(0, |span| span.start);
    let before = text.as_bytes().get(..start).unwrap_or_default();
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    format!("line {line}: {}", err.message())
}

fn certificates(dir: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(dir).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut list: Vec<String> = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "crt"))
        .filter_map(|path| path.to_str().map(str::to_string))
        .collect();
    list.sort();
    (!list.is_empty()).then_some(list)
}

fn default_server(registry: &str, plain_http: bool) -> String {
    let host = match registry {
        "docker.io" => "registry-1.docker.io",
        host => host,
    };
    let scheme = if plain_http { "http" } else { "https" };
    format!("{scheme}://{host}")
}

fn parse(text: &str, dir: &Path, registry: &str, plain_http: bool) -> Result<Vec<Host>, String> {
    let file: File = toml::from_str(text).map_err(|err| wrong_toml(text, &err))?;
    let mut hosts: Vec<_> = file.host.into_iter().collect();
    // In the order of the file, which is that of preference.
    hosts.sort_by_key(|(url, _)| url.span().start);
    let server = match &file.server {
        Some(url) if url.contains("://") => url.clone(),
        Some(host) => default_server(host, plain_http),
        None => default_server(registry, plain_http),
    };
    let mut all = Vec::new();
    for (url, settings) in hosts {
        let url = url.into_inner();
        let url = if url.contains("://") {
            url
        } else {
            format!("https://{url}")
        };
        // The server may be among them, for its settings.
        let mirror = url.trim_end_matches('/') != server.trim_end_matches('/');
        let can = |what: &str| {
            let list = settings.capabilities.as_ref();
            list.is_none_or(|list| list.iter().any(|word| word.eq_ignore_ascii_case(what)))
        };
        if can("pull") {
            all.push(settings.host(&url, dir, mirror)?);
        }
    }
    if all.iter().all(|host| host.mirror) {
        all.push(file.settings.host(&server, dir, false)?);
    }
    Ok(all)
}

impl Settings {
    fn host(&self, url: &str, dir: &Path, mirror: bool) -> Result<Host, String> {
        if self.skip_verify {
            return Err(format!(
                "skip_verify for {url} would send passwords to anybody; give its authority with \"ca\""
            ));
        }
        let url = url.trim_end_matches('/');
        let parsed = Url::parse(url).map_err(|reason| format!("\"{url}\": {reason}"))?;
        let base = match parsed.target.as_str() {
            // All that containerd knows how to talk to is below /v2.
            _ if self.override_path => url.to_string(),
            path if path == "/v2" || path.ends_with("/v2") => url.to_string(),
            _ => format!("{url}/v2"),
        };
        let path = |name: &String| dir.join(name);
        let client = match &self.client {
            None => None,
            Some(Pairs::Files(files)) => match files.list() {
                [both] => Some((path(both), path(both))),
                _ => return Err(format!("the client certificates for {url} are not one")),
            },
            Some(Pairs::Pairs(pairs)) => match &pairs[..] {
                [pair] => match &pair[..] {
                    [both] => Some((path(both), path(both))),
                    [certificate, key] => Some((path(certificate), path(key))),
                    _ => return Err(format!("the client certificate for {url} is no pair")),
                },
                _ => return Err(format!("the client certificates for {url} are not one")),
            },
        };
        let also: Vec<PathBuf> = self.ca.iter().flat_map(Many::list).map(path).collect();
        let mut headers = Vec::new();
        for (name, values) in &self.header {
            for value in values.list() {
                headers.push((name.clone(), value.clone()));
            }
        }
        headers.sort();
        for (name, value) in &headers {
            let line = format!("{name}: {value}");
            if !crate::secret::parse_headers(&line).is_ok_and(|list| list.len() == 1) {
                return Err(format!("a header field for {url} cannot be sent"));
            }
        }
        Ok(Host {
            base,
            trust: Trust {
                also,
                client,
                ..Trust::default()
            },
            headers,
            mirror,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(text: &str) -> Result<Vec<(String, bool)>, String> {
        let hosts = parse(text, Path::new("/d"), "r.example:5000", false)?;
        let parts = hosts.into_iter().map(|host| (host.base, host.mirror));
        Ok(parts.collect())
    }

    fn want(list: &[(&str, bool)]) -> Result<Vec<(String, bool)>, String> {
        let list = list
            .iter()
            .map(|(base, mirror)| (base.to_string(), *mirror));
        Ok(list.collect())
    }

    #[test]
    fn mirrors_come_first_in_the_order_of_the_file() {
        let text = "server = 'https://r.example:5000'\n\
                    [host.'https://z.example']\ncapabilities = ['pull', 'resolve']\n\
                    [host.'http://a.example:81/path']\n\
                    [host.'https://push.example']\ncapabilities = ['push']\n\
                    [host.'https://o.example/own']\noverride_path = true\n";
        let list = [
            ("https://z.example/v2", true),
            ("http://a.example:81/path/v2", true),
            ("https://o.example/own", true),
            ("https://r.example:5000/v2", false),
        ];
        assert_eq!(bases(text), want(&list));
        assert_eq!(bases(""), want(&list[3..]));
        // The server is not asked twice.
        let text =
            "server = 'https://r.example'\n[host.'https://r.example/']\n[host.'m.example']\n";
        let list = [
            ("https://r.example/v2", false),
            ("https://m.example/v2", true),
        ];
        assert_eq!(bases(text), want(&list));
    }

    #[test]
    fn settings() {
        let text = "ca = 'ca.pem'\n[header]\nX-A = ['1', '2']\n\
                    [host.'https://m.example']\nca = ['/x/a.pem', 'b.pem']\n\
                    client = [['c.pem', 'k.pem']]\n";
        let hosts = parse(text, Path::new("/d"), "r.example", false).unwrap();
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(hosts[0].trust.also, paths(&["/x/a.pem", "/d/b.pem"]));
        let pair = hosts[0].trust.client.clone().unwrap();
        assert_eq!(pair, ("/d/c.pem".into(), "/d/k.pem".into()));
        assert_eq!(hosts[1].trust.also, paths(&["/d/ca.pem"]));
        assert_eq!(hosts[1].headers.len(), 2);
        assert!(hosts[0].headers.is_empty());
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        for (text, part) in [
            ("skip_verify = true", "skip_verify"),
            ("[host.'https://m']\nskip_verify = true", "https://m"),
            ("[host.'ftp://m']", "neither http nor https"),
            ("[header]\nX = \"a\\r\\nY: b\"", "header field"),
            ("server = 1", "line 1: invalid type"),
            ("[header]\nX = '1'\n[host", "line 3: "),
            ("client = ['a', 'b']", "not one"),
        ] {
            let err = bases(text).expect_err(text);
            assert!(err.contains(part), "{text}: {err}");
        }
    }

    #[test]
    fn directories() {
        let dir = tempfile::tempdir().unwrap();
        let base = |plain| {
            let hosts = read(dir.path(), "h:5000", plain).unwrap();
            assert_eq!(hosts.len(), 1);
            (hosts[0].base.clone(), hosts[0].trust.also.len())
        };
        assert_eq!(base(false), ("https://h:5000/v2".into(), 0));
        assert_eq!(base(true), ("http://h:5000/v2".into(), 0));
        let own = dir.path().join("h:5000");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("a.crt"), "").unwrap();
        assert_eq!(base(false).1, 1);
        let default = dir.path().join("_default");
        fs::create_dir(&default).unwrap();
        fs::write(default.join("hosts.toml"), "server = 'https://all.example'").unwrap();
        assert_eq!(base(false).0, "https://all.example/v2");
        fs::write(own.join("hosts.toml"), "").unwrap();
        assert_eq!(base(false).0, "https://h:5000/v2");
    }
}
