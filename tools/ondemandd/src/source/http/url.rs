// SPDX-License-Identifier: GPL-2.0-or-later

//! URLs of http and https, as far as a client needs them.

use std::fmt;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine;
use percent_encoding::{
    percent_decode_str, percent_encode, utf8_percent_encode, AsciiSet, CONTROLS, NON_ALPHANUMERIC,
};

/// What must be encoded in a name that is one part of a path.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What cannot stand in a path and query, however they are meant.
const TARGET: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// Where something is. What is shown of it has no secrets: no user, password or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    /// In lower case; of an IPv6 address without the brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, percent-encoded.
    pub target: String,
    /// The value of an Authorization field, if the URL has a user.
    pub basic: Option<String>,
}

impl Url {
    /// Parses an absolute URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err("its scheme is neither http nor https"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = split_address(address)?;
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(default_port(tls)),
            target: clean_target(target),
            basic: user.map(basic).transpose()?,
        })
    }

    /// What a Location field means that came with this URL.
    pub fn join(&self, location: &str) -> Result<Self, &'static str> {
        let first = location.split(['/', '?', '#']).next().unwrap_or("");
        if first.contains(':') {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let target = if location.starts_with('/') {
            location.to_string()
        } else if location.starts_with('?') {
            format!("{path}{location}")
        } else {
            let dir = &path[..path.rfind('/').map_or(0, |at| at + 1)];
            format!("{dir}{location}")
        };
        Ok(Self {
            target: remove_dots(&clean_target(&target)),
            ..self.clone()
        })
    }

    pub fn scheme(&self) -> &'static str {
        if self.tls {
            "https"
        } else {
            "http"
        }
    }

    /// Host and port as they stand in a Host field: the port only if it is not the usual one.
    pub fn authority(&self) -> String {
        if self.port == default_port(self.tls) {
            bracketed(&self.host)
        } else {
            self.address()
        }
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    pub fn same_origin(&self, other: &Self) -> bool {
        (self.tls, self.port, &self.host) == (other.tls, other.port, &other.host)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = match self.target.split_once('?') {
            Some((path, _)) => (path, "?..."),
            None => (self.target.as_str(), ""),
        };
        write!(f, "{}://{}{path}{query}", self.scheme(), self.authority())
    }
}

fn default_port(tls: bool) -> u16 {
    if tls {
        443
    } else {
        80
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_string()
    }
}

/// Host, without brackets, and port.
pub fn split_address(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("its host lacks a \"]\"")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, port),
                None if rest.is_empty() => (host, ""),
                None => return Err("its port is no number"),
            }
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let known = |b: u8| b.is_ascii_alphanumeric() || b"-._~:%".contains(&b);
    if host.is_empty() || !host.bytes().all(known) {
        return Err("it has no host, or one with strange characters");
    }
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(
            digits
                .parse()
                .map_err(|_| "its port is not from 0 to 65535")?,
        ),
        _ => return Err("its port is no number"),
    };
    Ok((host, port))
}

/// The value of an Authorization field for "user:password", percent-encoded as in a URL.
pub fn basic(user: &str) -> Result<String, &'static str> {
    let encoded =
        |text: &str| text.len() >= 2 && text.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    if !user.split('%').skip(1).all(encoded) {
        return Err("its user or password has a wrong %-sequence");
    }
    let bytes: Vec<u8> = percent_decode_str(user).collect();
    let bytes = if bytes.contains(&b':') {
        bytes
    } else {
        [&bytes[..], b":"].concat()
    };
    Ok(basic_of(&bytes))
}

/// The value of an Authorization field for "user:password" as it is.
pub fn basic_of(user: &[u8]) -> String {
    format!("Basic {}", BASE64.encode(user))
}

/// A path and query that begins with "/", without a fragment and with nothing that must be encoded.
fn clean_target(text: &str) -> String {
    let text = text.split('#').next().unwrap_or("");
    let slash = if text.starts_with('/') { "" } else { "/" };
    format!("{slash}{}", utf8_percent_encode(text, TARGET))
}

/// Appends a name as one part of a path.
pub fn push_part(url: &mut String, part: &str) {
    url.push('/');
    url.extend(percent_encode(part.as_bytes(), PART));
}

/// A value in a query.
pub fn query_value(value: &str) -> String {
    utf8_percent_encode(value, PART).to_string()
}

/// Resolves "." and ".." (RFC 3986, 5.2.4).
fn remove_dots(target: &str) -> String {
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = path.split('/').skip(1).peekable();
    while let Some(part) = rest.next() {
        let last = rest.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    parts.pop();
                }
                if last {
                    parts.push("");
                }
            }
            part => parts.push(part),
        }
    }
    format!("/{}{query}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Url::parse(text).unwrap().to_string()
    }

    #[test]
    fn urls_are_taken_apart() {
        let url = Url::parse("HTTPS://u%40x:p@Example.ORG:8443/a b?k=v#f").unwrap();
        assert!(url.tls && url.port == 8443 && url.host == "example.org");
        assert_eq!(url.target, "/a%20b?k=v");
        assert_eq!(url.basic.as_deref(), Some("Basic dUB4OnA="));
        assert_eq!(shown("Http://h"), "http://h/");
        assert_eq!(shown("http://[::1]:80/x"), "http://[::1]/x");
        assert_eq!(shown("https://h:80/\u{fc}"), "https://h:80/%C3%BC");
        assert_eq!(
            Url::parse("http://[fe80::1]:8/").unwrap().address(),
            "[fe80::1]:8"
        );
        for wrong in [
            "",
            "h/p",
            "ftp://h/",
            "http://",
            "http:///x",
            "http://h:x/",
            "http://h:70000/",
            "http://h h/",
            "http://[::1/",
            "http://[::1]x/",
            "http://a%zz@h/",
            "http://h\n/",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = shown("http://user:PW@host/p?X-Signature=SECRET");
        assert_eq!(text, "http://host/p?...");
    }

    #[test]
    fn locations_are_resolved() {
        let base = Url::parse("http://u:p@h:81/a/b?q").unwrap();
        for (location, want) in [
            ("https://o/x", "https://o/x"),
            ("HTTP://o/x", "http://o/x"),
            ("//o/x", "http://o/x"),
            ("/x/y?z", "http://h:81/x/y?..."),
            ("c", "http://h:81/a/c"),
            ("../c", "http://h:81/c"),
            ("../../../c/.", "http://h:81/c/"),
            ("?z", "http://h:81/a/b?..."),
            ("c:d/e", ""),
        ] {
            let got = base.join(location).map(|url| url.to_string());
            assert_eq!(got.unwrap_or_default(), want, "{location}");
        }
        assert!(base.join("/x").unwrap().same_origin(&base));
        assert!(!base.join("//o/x").unwrap().same_origin(&base));
        assert!(base.join("//o/x").unwrap().basic.is_none());
        assert!(base.join("ftp://o/").is_err());
    }
}
