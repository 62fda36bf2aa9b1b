// SPDX-License-Identifier: GPL-2.0-or-later

//! What tells the versions of a blob apart, and the short text that the kernel keeps of it.

use sha2::{Digest as _, Sha256};

use super::MAX_VERSION;

/// What the kernel is given for a version that may be long or have any characters.
pub fn shorten(text: &str) -> String {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if plain && (1..=MAX_VERSION).contains(&text.len()) {
        return text.to_string();
    }
    format!("sha256 {:x}", Sha256::digest(text))
}

/// How far a name that says which bytes it stands for is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// "sha256:HEX": the bytes have this digest, or the server is broken.
    Named,
    /// It looks like a digest. What else tells versions apart counts more.
    Likely,
}

impl Digest {
    pub fn of(name: &str) -> Option<Self> {
        let hex =
            |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
        match name.split_once(':') {
            Some(("sha256", digits)) if hex(digits, 64) => Some(Self::Named),
            Some(("sha512", digits)) if hex(digits, 128) => Some(Self::Named),
            None if hex(name, 64) => Some(Self::Likely),
            _ => None,
        }
    }

    /// The SHA-256 that the bytes have for sure, in lower case, according to the name that this is of.
    pub fn sha256(self, name: &str) -> Option<String> {
        let digits = name.strip_prefix("sha256:")?;
        (self == Self::Named).then(|| digits.to_ascii_lowercase())
    }
}

/// What a server says about the version of what it sends: ETag and Last-Modified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    pub etag: Option<String>,
    pub modified: Option<String>,
}

/// What comparing the validators of two answers gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Comparison {
    Same,
    /// What was said first, and what was said then.
    Differs(String, String),
    /// There is nothing that both say.
    Unknown,
}

/// Without the mark of a weak tag.
fn opaque(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

impl Validators {
    pub fn new(etag: Option<&str>, modified: Option<&str>) -> Self {
        let known = |value: Option<&str>| value.filter(|v| !v.is_empty()).map(str::to_string);
        Self {
            // Some servers send an empty tag for everything.
            etag: known(etag).filter(|etag| !matches!(opaque(etag), "" | "\"\"")),
            modified: known(modified),
        }
    }

    /// A tag that promises equal bytes, in the form that If-Match takes.
    pub fn strong(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| etag.starts_with('"'))
    }

    /// Whether there is anything to compare.
    pub fn any(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }

    fn is_weak(&self) -> bool {
        self.etag
            .as_ref()
            .is_some_and(|etag| etag.starts_with("W/"))
    }

    /// What the kernel is to keep with a cached file of this version.
    pub fn version(&self) -> Option<String> {
        let modified = self.modified.as_deref();
        let text = match &self.etag {
            // A weak tag may stay when some bytes change; together with the time it rarely does.
            Some(etag) if self.is_weak() => format!("etag {etag} {}", modified.unwrap_or("")),
            Some(etag) => format!("etag {etag}"),
            None => format!("modified {}", modified?),
        };
        Some(shorten(text.trim_end()))
    }

    /// Whether `now` belongs to the bytes that `self` belonged to.
    ///
    /// Proxies and compression weaken tags on the way, so the mark alone is no difference. Equal
    /// strong tags are enough; the servers of one name may have the same file of different times.
    pub fn compare(&self, now: &Self) -> Comparison {
        let differs = |a: &str, b: &str| Comparison::Differs(a.into(), b.into());
        let mut result = Comparison::Unknown;
        if let (Some(was), Some(is)) = (&self.etag, &now.etag) {
            if opaque(was) != opaque(is) {
                return differs(&format!("ETag {was}"), &format!("ETag {is}"));
            }
            if !self.is_weak() && !now.is_weak() {
                return Comparison::Same;
            }
            result = Comparison::Same;
        }
        match (&self.modified, &now.modified) {
            (Some(was), Some(is)) if was != is => differs(
                &format!("Last-Modified {was}"),
                &format!("Last-Modified {is}"),
            ),
            (Some(_), Some(_)) => Comparison::Same,
            _ => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_strange_versions_are_hashed() {
        assert_eq!(shorten("etag \"x\""), "etag \"x\"");
        let (long, strange) = (shorten(&"x".repeat(129)), shorten("\u{e9}"));
        for version in [&long, &strange] {
            assert!(
                version.starts_with("sha256 ") && version.len() == 71,
                "{version}"
            );
        }
        assert_ne!(long, strange);
        assert_eq!(shorten(&"x".repeat(128)).len(), 128);
    }

    #[test]
    fn names_that_are_digests() {
        let hex = "0123456789abcdefABCDEF0123456789abcdefabcdef0123456789abcdef0123";
        assert_eq!(Digest::of(hex), Some(Digest::Likely));
        assert_eq!(Digest::of(&format!("sha256:{hex}")), Some(Digest::Named));
        assert_eq!(
            Digest::of(&format!("sha512:{hex}{hex}")),
            Some(Digest::Named)
        );
        for none in [
            "image",
            &hex[1..],
            &format!("md5:{hex}"),
            &format!("sha256:{hex}0"),
        ] {
            assert_eq!(Digest::of(none), None, "{none}");
        }
    }

    fn said(etag: &str, modified: &str) -> Validators {
        Validators::new(Some(etag), Some(modified))
    }

    #[test]
    fn versions_of_validators() {
        assert_eq!(said("\"x\"", "t").version().unwrap(), "etag \"x\"");
        assert_eq!(said("W/\"x\"", "t").version().unwrap(), "etag W/\"x\" t");
        assert_eq!(said("W/\"x\"", "").version().unwrap(), "etag W/\"x\"");
        assert_eq!(said("", "t").version().unwrap(), "modified t");
        assert_eq!(said("\"\"", "t").version().unwrap(), "modified t");
        assert_eq!(said("", "").version(), None);
    }

    #[test]
    fn comparisons() {
        use Comparison::{Same, Unknown};
        for (was, is, want) in [
            (("\"x\"", "t"), ("\"x\"", "t"), Some(Same)),
            // Two servers of one file.
            (("\"x\"", "t"), ("\"x\"", "u"), Some(Same)),
            (("\"x\"", "t"), ("\"y\"", "t"), None),
            // Weakened on the way.
            (("\"x\"", "t"), ("W/\"x\"", "t"), Some(Same)),
            (("\"x\"", ""), ("W/\"x\"", ""), Some(Same)),
            (("W/\"x\"", "t"), ("W/\"y\"", "t"), None),
            // A weak tag does not promise equal bytes.
            (("W/\"x\"", "t"), ("W/\"x\"", "u"), None),
            (("W/\"x\"", ""), ("W/\"x\"", "u"), Some(Same)),
            (("", "t"), ("", "t"), Some(Same)),
            (("", "t"), ("", "u"), None),
            (("\"x\"", "t"), ("", "t"), Some(Same)),
            (("\"x\"", "t"), ("", "u"), None),
            (("\"x\"", ""), ("", "t"), Some(Unknown)),
            (("", ""), ("\"x\"", "t"), Some(Unknown)),
        ] {
            let got = said(was.0, was.1).compare(&said(is.0, is.1));
            match want {
                Some(want) => assert_eq!(got, want, "{was:?} {is:?}"),
                None => assert!(matches!(got, Comparison::Differs(..)), "{was:?} {is:?}"),
            }
        }
    }
}
