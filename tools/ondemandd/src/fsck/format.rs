// SPDX-License-Identifier: GPL-2.0-or-later

//! The format of what the driver writes down beside the data. The driver's own reader is
//! `rust/cachefiles/disk/list.rs`; `tools/testing/host` checks that this one says the same of everything,
//! so it depends on nothing.

use std::ops::Range;

/// A function that returns the SHA-256 digest of what it is given.
pub type Sha256 = fn(&[u8]) -> [u8; 32];

/// What is present is known for each of these bytes of an object.
pub const BLOCK: u64 = 4096;
/// The largest object of the driver, in bytes.
const MAX_SIZE: u64 = 16 << 40;

/// Bytes of the main attribute in front of the auxiliary data and the version.
const HEADER: usize = 18;
/// It has no more than this.
pub const STATE_MAX: usize = HEADER + 255 + 128;
/// The attribute with the list has no more than this.
pub const LIST_MAX: usize = 2048;
/// Neither has a record of a list file.
pub const RECORD_MAX: usize = 4096;
/// Bytes of one before its runs.
const RECORD_HEAD: usize = 16;
/// A check is so many bytes of a digest.
const CHECK: usize = 8;

/// What the main attribute says that a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The file system knows what is present: C has left the file.
    Unlisted,
    All,
    /// There is a list.
    Listed,
    /// Written to by a network file system, and not synced.
    Dirty,
}

/// The main attribute of an object's file.
#[derive(Debug, PartialEq, Eq)]
pub struct State<'a> {
    /// The size of the object in bytes.
    pub size: u64,
    pub content: Content,
    /// What a list belongs to: the auxiliary data, and the version behind it.
    pub binding: &'a [u8],
}

/// `None` if nobody writes such an attribute.
pub fn state(value: &[u8]) -> Option<State<'_>> {
    let (size, rest) = value.split_first_chunk()?;
    let (zero, rest) = rest.split_first_chunk::<8>()?;
    let (&[kind, content], binding) = rest.split_first_chunk::<2>()?;
    let content = match content {
        0 => Content::Unlisted,
        // Of an object that is read as one.
        1 | 2 => Content::All,
        3 => Content::Listed,
        4 => Content::Dirty,
        _ => return None,
    };
    let size = u64::from_be_bytes(*size);
    let is_one = *zero == [0; 8] && kind == 1 && size <= MAX_SIZE;
    is_one.then_some(State {
        size,
        content,
        binding,
    })
}

/// Whether that is the attribute of a volume's directory.
pub fn is_volume(value: &[u8]) -> bool {
    value.starts_with(&[0; 4])
}

/// What the attribute with the list says.
#[derive(Debug, PartialEq, Eq)]
pub enum List<'a> {
    /// These runs are present.
    Runs(&'a [u8]),
    /// What the list file with this token says.
    File(u64),
}

fn starts_with_check(digest: [u8; 32], check: &[u8]) -> bool {
    digest[..CHECK] == *check
}

/// `None` if it is not that of a file with this binding.
pub fn list<'a>(attribute: &'a [u8], binding: &[u8], sha256: Sha256) -> Option<List<'a>> {
    let (&version, rest) = attribute.split_first()?;
    let (check, rest) = rest.split_at_checked(CHECK)?;
    let (kind, payload) = rest.split_first()?;
    let checked = [&sha256(binding)[..], rest].concat();
    if version != 2 || !starts_with_check(sha256(&checked), check) {
        return None;
    }
    match kind {
        0 => Some(List::Runs(payload)),
        1 => Some(List::File(u64::from_le_bytes(payload.try_into().ok()?))),
        _ => None,
    }
}

/// The name of the list file with this token.
pub fn list_name(token: u64) -> String {
    format!("{token:016x}")
}

/// The token of a list file with this name.
pub fn token(name: &str) -> Option<u64> {
    let token = u64::from_str_radix(name, 16).ok()?;
    (list_name(token) == name).then_some(token)
}

/// The first record in `bytes`, which are in the list file with `token`, at `offset`: its runs, and how
/// long it is. `None` if there is none.
pub fn record(bytes: &[u8], token: u64, offset: u64, sha256: Sha256) -> Option<(&[u8], usize)> {
    let (head, _) = bytes.split_first_chunk::<RECORD_HEAD>()?;
    let (check, lengths) = head.split_at(CHECK);
    let (runs, zero) = lengths.split_at(4);
    if zero != [0; 4] {
        return None;
    }
    let len = RECORD_HEAD.checked_add(u32::from_le_bytes(runs.try_into().ok()?) as usize)?;
    if len > RECORD_MAX {
        return None;
    }
    let runs = bytes.get(RECORD_HEAD..len)?;
    let checked = [&token.to_le_bytes()[..], &offset.to_le_bytes(), runs].concat();
    starts_with_check(sha256(&checked), check).then_some((runs, len))
}

/// The number that `bytes` begin with: seven bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for place in 0..9 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // Nine bytes have no more than 63 bits.
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The blocks of runs, up to the first one that makes no sense.
pub fn blocks(mut runs: &[u8]) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let mut at = 0u64;
    while let Some(run) = run(&mut runs, at) {
        at = run.end;
        found.push(run);
    }
    found
}

fn run(runs: &mut &[u8], at: u64) -> Option<Range<u64>> {
    let start = at.checked_add(number(runs)?)?;
    let end = start.checked_add(number(runs)?)?;
    (start < end).then_some(start..end)
}
