// SPDX-License-Identifier: GPL-2.0-or-later

//! Which requests go through a proxy: http_proxy, https_proxy, all_proxy and no_proxy, as curl and
//! others read them.

use std::env;
use std::net::IpAddr;

use super::url::{basic, split_address, Url};

/// A proxy that is spoken to with http.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// The value of a Proxy-Authorization field.
    pub basic: Option<String>,
}

/// The proxies for http and https URLs, and who is reached without.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    exceptions: Vec<String>,
}

impl Proxies {
    /// What the environment says.
    pub fn from_env() -> Result<Self, String> {
        Self::from_variables(|name| env::var(name).ok())
    }

    pub(super) fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        // In lower case first; an empty one counts as one that is set, and means no proxy.
        let find = |name: &'static str| {
            let upper = name.to_ascii_uppercase();
            get(name)
                .map(|value| (name.to_string(), value))
                .or_else(|| get(&upper).map(|value| (upper, value)))
        };
        let proxy = |name: &'static str| match find(name).or_else(|| find("all_proxy")) {
            Some((_, value)) if value.trim().is_empty() => Ok(None),
            Some((name, value)) => Proxy::parse(value.trim())
                .map(Some)
                // The value may have a password.
                .map_err(|reason| format!("the environment variable {name}: {reason}")),
            None => Ok(None),
        };
        let exceptions = find("no_proxy").map(|(_, value)| value).unwrap_or_default();
        Ok(Self {
            http: proxy("http_proxy")?,
            https: proxy("https_proxy")?,
            exceptions: exceptions
                .split([',', ' '])
                .map(|word| word.trim().to_ascii_lowercase())
                .filter(|word| !word.is_empty())
                .collect(),
        })
    }

    /// The proxy for a URL, if it is not to be reached directly.
    pub fn find(&self, url: &Url) -> Option<&Proxy> {
        let proxy = if url.tls { &self.https } else { &self.http };
        proxy
            .as_ref()
            .filter(|_| !self.exceptions.iter().any(|word| excepts(word, url)))
    }
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if !scheme.eq_ignore_ascii_case("http") {
            return Err("only proxies that are spoken to with http:// are supported".into());
        }
        let rest = rest.split(['/', '?', '#']).next().unwrap_or("");
        let (user, address) = match rest.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, rest),
        };
        let (host, port) = split_address(address)?;
        Ok(Self {
            host: host.to_string(),
            port: port.unwrap_or(80),
            basic: user.map(basic).transpose()?,
        })
    }
}

/// Whether a word of no_proxy means this host: "*", a domain and what is below it, an address or a
/// network "10.0.0.0/8", each perhaps with a port.
fn excepts(word: &str, url: &Url) -> bool {
    if word == "*" {
        return true;
    }
    let host = url.host.trim_end_matches('.');
    if let Ok(address) = host.parse::<IpAddr>() {
        if let Some(inside) = in_network(word, address) {
            return inside;
        }
    }
    let Ok((name, port)) = split_address(word.trim_start_matches("*.").trim_start_matches('.'))
    else {
        return false;
    };
    if port.is_some_and(|port| port != url.port) {
        return false;
    }
    let name = name.trim_end_matches('.');
    host == name
        || host
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// `None`: the word is no address and no network.
fn in_network(word: &str, address: IpAddr) -> Option<bool> {
    let (network, bits) = match word.split_once('/') {
        Some((network, bits)) => (network, Some(bits.parse::<u32>().ok()?)),
        None => (word, None),
    };
    let number = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let (network, width) = number(network.parse().ok()?);
    let (address, other) = number(address);
    let bits = bits.unwrap_or(width).min(width);
    let differs = network ^ address;
    let shift = width - bits;
    Some(width == other && (shift >= 128 || differs >> shift == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_string())
        })
    }

    fn found(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let proxies = proxies(variables).unwrap();
        let proxy = proxies.find(&Url::parse(url).unwrap());
        proxy.map(|proxy| format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn each_scheme_has_its_own() {
        let plain = [("http_proxy", "http://p:3128/")];
        assert_eq!(found(&plain, "http://h/").as_deref(), Some("p:3128"));
        assert_eq!(found(&plain, "https://h/"), None);
        let tls = [("https_proxy", "p")];
        assert_eq!(found(&tls, "http://h/"), None);
        assert_eq!(found(&tls, "https://h/").as_deref(), Some("p:80"));
        let all = [("ALL_PROXY", "p:1"), ("http_proxy", "")];
        assert_eq!(found(&all, "http://h/"), None);
        assert_eq!(found(&all, "https://h/").as_deref(), Some("p:1"));
        let both = [("HTTP_PROXY", "upper"), ("http_proxy", "lower")];
        assert_eq!(found(&both, "http://h/").as_deref(), Some("lower:80"));
    }

    #[test]
    fn users_are_kept_and_errors_tell_no_secrets() {
        let proxies = proxies(&[("http_proxy", "http://u:p@p")]).unwrap();
        let proxy = proxies.find(&Url::parse("http://h").unwrap()).unwrap();
        assert_eq!(proxy.basic.as_deref(), Some("Basic dTpw"));
        for wrong in ["socks5://u:PW@p", "https://u:PW@p", "http://u:PW@p:x"] {
            let err = super::Proxies::from_variables(|name| {
                (name == "ALL_PROXY").then(|| wrong.to_string())
            })
            .unwrap_err();
            assert!(err.contains("ALL_PROXY") && !err.contains("PW"), "{err}");
        }
    }

    #[test]
    fn exceptions() {
        for (words, url, direct) in [
            ("*", "http://h/", true),
            ("example.org", "http://example.org/", true),
            ("example.org", "http://a.example.org/", true),
            ("example.org", "http://badexample.org/", false),
            (".example.org", "http://a.example.org/", true),
            ("x, example.org", "http://EXAMPLE.org:8080/", true),
            ("example.org:8080", "http://example.org:8080/", true),
            ("example.org:8080", "http://example.org/", false),
            ("127.0.0.1", "http://127.0.0.1:9/", true),
            ("127.0.0.1:9", "http://127.0.0.1:9/", true),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("::1", "http://[::1]/", true),
            ("[::1]", "http://[::1]/", true),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("", "http://h/", false),
        ] {
            let variables = [("http_proxy", "p"), ("no_proxy", words)];
            assert_eq!(found(&variables, url).is_none(), direct, "{words} {url}");
        }
    }
}
