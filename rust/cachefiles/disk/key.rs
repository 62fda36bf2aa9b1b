// SPDX-License-Identifier: GPL-2.0

//! Names of volumes and cookies on disk (`cachefiles_cook_key()`).
//!
//! A cache written by the C implementation must be found again, so the encodings are its
//! encodings, byte for byte:
//!
//! * `D` + key, if every byte is 33 to 127 and not `/`;
//! * `S` (big endian) or `T` (little endian) + the key's 32-bit words in hex, separated by commas,
//!   if that is shorter than
//! * `E` + number of padding bytes + base64 with an alphabet of its own.
//!
//! A key for which none of these fits a file name (C stops the machine at 253 bytes, or goes on
//! with a name that no file system takes) is named by its hash: `H` + 64 hex digits.

use crate::protocol::errno::{
    Errno,
    Result, //
};

/// Longest file name (`NAME_MAX`).
pub(crate) const NAME_MAX: usize = 255;

const CHARMAP: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";

/// A file name of at most [`NAME_MAX`] bytes.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    buf: [u8; NAME_MAX],
    len: usize,
}

impl Name {
    const fn new() -> Self {
        Name {
            buf: [0; NAME_MAX],
            len: 0,
        }
    }

    fn push(&mut self, byte: u8) -> Result {
        *self.buf.get_mut(self.len).ok_or(Errno::ENAMETOOLONG)? = byte;
        self.len += 1;
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result {
        bytes.iter().try_for_each(|b| self.push(*b))
    }

    /// `%x`, except that zero is written as nothing.
    fn push_hex(&mut self, word: u32) -> Result {
        (0..hex_digits(word)).rev().try_for_each(|digit| {
            // The mask leaves four bits, which index the first 16 entries of the charmap: hex.
            let nibble = (word >> (digit * 4)) & 15;
            self.push(CHARMAP[nibble as usize])
        })
    }

    /// The name's bytes, without a terminating NUL.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

fn hex_digits(word: u32) -> u32 {
    (u32::BITS - word.leading_zeros()).div_ceil(4)
}

fn is_plain(byte: u8) -> bool {
    // Control characters, space and '/' are not used in names; 127 is, as in C.
    matches!(byte, 33..=46 | 48..=127)
}

fn words(key: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    key.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word.iter_mut().zip(chunk).for_each(|(w, c)| *w = *c);
        word
    })
}

fn push_words(name: &mut Name, key: &[u8], first: u8, decode: fn([u8; 4]) -> u32) -> Result {
    let mut separator = first;
    words(key).try_for_each(|word| {
        name.push(separator)?;
        separator = b',';
        name.push_hex(decode(word))
    })
}

/// A name for what has none of its own.
fn hashed_name(first: u8, hash: [u8; 32]) -> Result<Name> {
    let mut name = Name::new();
    name.push(first)?;
    for byte in hash {
        // Both are below 16: hex.
        name.push(CHARMAP[usize::from(byte >> 4)])?;
        name.push(CHARMAP[usize::from(byte & 15)])?;
    }
    Ok(name)
}

/// Encodes a cookie key as the name of its backing file. `sha256` is called for keys that fit no
/// other encoding.
///
/// # Errors
///
/// `EINVAL` for an empty key.
pub(crate) fn cook_key(key: &[u8], sha256: impl FnOnce(&[u8]) -> [u8; 32]) -> Result<Name> {
    match encode(key) {
        Err(Errno::ENAMETOOLONG) => hashed_name(b'H', sha256(key)),
        other => other,
    }
}

fn encode(key: &[u8]) -> Result<Name> {
    let mut name = Name::new();
    if key.is_empty() {
        return Err(Errno::EINVAL);
    }

    if key.iter().all(|b| is_plain(*b)) {
        name.push(b'D')?;
        name.extend(key)?;
        return Ok(name);
    }

    let count = |decode: fn([u8; 4]) -> u32| -> usize {
        words(key).map(|w| 1 + hex_digits(decode(w)) as usize).sum()
    };
    let (be, le) = (count(u32::from_be_bytes), count(u32::from_le_bytes));
    let groups = key.len().div_ceil(3);
    let base64 = 2 + groups * 4;
    if be < base64 || le < base64 {
        if be <= le {
            push_words(&mut name, key, b'S', u32::from_be_bytes)?;
        } else {
            push_words(&mut name, key, b'T', u32::from_le_bytes)?;
        }
        return Ok(name);
    }

    name.push(b'E')?;
    // At most two bytes of padding, so this is one of '0', '1', '2'.
    name.push(b'0' + (groups * 3 - key.len()) as u8)?;
    for group in key.chunks(3) {
        let mut acc = group
            .iter()
            .rev()
            .fold(0u32, |acc, byte| (acc << 8) | u32::from(*byte));
        for _ in 0..4 {
            name.push(CHARMAP[(acc & 63) as usize])?;
            acc >>= 6;
        }
    }
    Ok(name)
}

/// The name of a volume's directory below `cache/`. `sha256` is called for keys that do not fit.
///
/// # Errors
///
/// `EINVAL` for a key with a `/`, which would name something else.
pub(crate) fn volume_name(key: &[u8], sha256: impl FnOnce(&[u8]) -> [u8; 32]) -> Result<Name> {
    let mut name = Name::new();
    if key.contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    if key.len() >= NAME_MAX {
        return hashed_name(b'J', sha256(key));
    }
    name.push(b'I')?;
    name.extend(key)?;
    Ok(name)
}

/// The name of a fan-out directory in a volume's directory.
pub(crate) fn fanout_name(index: u8) -> [u8; 3] {
    [
        b'@',
        CHARMAP[usize::from(index >> 4)],
        CHARMAP[usize::from(index & 15)],
    ]
}

/// The name of something moved to the graveyard: when, and a number that makes it unique.
pub(crate) fn grave_name(seconds: u32, counter: u32) -> [u8; 16] {
    token_name((u64::from(seconds) << 32) | u64::from(counter))
}

/// The name of the list file with this token.
pub(crate) fn token_name(token: u64) -> [u8; 16] {
    // The mask leaves four bits: one of the first 16 entries.
    core::array::from_fn(|i| CHARMAP[((token >> (60 - 4 * i)) & 15) as usize])
}
