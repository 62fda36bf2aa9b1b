// SPDX-License-Identifier: GPL-2.0-or-later

//! What tells the versions of a blob apart, and the short text that the kernel keeps of it.

use super::MAX_VERSION;

/// What the kernel is given for a version that may be long or have any characters.
pub fn shorten(text: &str) -> String {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if plain && (1..=MAX_VERSION).contains(&text.len()) {
        return text.to_string();
    }
    let mut short = String::from("sha256 ");
    for byte in sha256(text.as_bytes()) {
        short.push_str(&format!("{byte:02x}"));
    }
    short
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

/// FIPS 180-4. Small rather than fast: it is used for a few hundred bytes per OPEN at most.
fn sha256(data: &[u8]) -> [u8; 32] {
    // The first 32 bits of the fractional parts of the roots of primes.
    let primes: Vec<u64> = (2..)
        .filter(|n| (2..*n).all(|d| n % d != 0))
        .take(64)
        .collect();
    let fraction = |prime: u64, cube: bool| {
        // The largest r with (r / 2^32)^e <= prime.
        let fits = |r: u128| {
            let (e, mut power) = (if cube { 3 } else { 2 }, 1u128);
            (0..e).for_each(|_| power *= r);
            power <= u128::from(prime) << (32 * e)
        };
        let mut root = 0u128;
        for bit in (0..37).rev() {
            if fits(root | (1 << bit)) {
                root |= 1 << bit;
            }
        }
        root as u32
    };
    let mut state: Vec<u32> = primes[..8].iter().map(|p| fraction(*p, false)).collect();
    let keys: Vec<u32> = primes.iter().map(|p| fraction(*p, true)).collect();

    let mut message = data.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((data.len() as u64 * 8).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut words: Vec<u32> = block
            .chunks_exact(4)
            .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        for i in 16..64 {
            let (a, b) = (words[i - 15], words[i - 2]);
            let s0 = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let s1 = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            let sum = words[i - 16].wrapping_add(s0).wrapping_add(words[i - 7]);
            words.push(sum.wrapping_add(s1));
        }
        let mut v = state.clone();
        for (word, key) in words.iter().zip(&keys) {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = [s1, choice, *key, *word]
                .iter()
                .fold(v[7], |sum, term| sum.wrapping_add(*term));
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0).wrapping_add(majority);
        }
        for (sum, term) in state.iter_mut().zip(&v) {
            *sum = sum.wrapping_add(*term);
        }
    }
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(&state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        let hex = |data: &[u8]| {
            let digits = sha256(data).map(|byte| format!("{byte:02x}"));
            digits.concat()
        };
        assert_eq!(
            hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hex(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
    }

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
