// SPDX-License-Identifier: GPL-2.0-or-later

//! URLs of http and https, as far as a client needs them.

use std::fmt;

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
    let bytes = percent_decode(user).ok_or("its user or password has a wrong %-sequence")?;
    let bytes = if bytes.contains(&b':') {
        bytes
    } else {
        [&bytes[..], b":"].concat()
    };
    Ok(format!("Basic {}", base64(&bytes)))
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |b: u8| char::from(b).to_digit(16);
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, b| (word << 8) | u32::from(*b));
        let word = word << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}

/// A path and query that begins with "/", without a fragment and with nothing that must be encoded.
fn clean_target(text: &str) -> String {
    let text = text.split('#').next().unwrap_or("");
    let mut out = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        out.push('/');
    }
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            out.push(char::from(byte));
        } else {
            push_encoded(&mut out, byte);
        }
    }
    out
}

fn push_encoded(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Appends a name as one part of a path.
pub fn push_part(url: &mut String, part: &str) {
    url.push('/');
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            push_encoded(url, byte);
        }
    }
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

    #[test]
    fn base64_pads() {
        for (bytes, want) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), want);
        }
    }
}
