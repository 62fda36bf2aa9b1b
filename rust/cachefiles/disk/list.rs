// SPDX-License-Identifier: GPL-2.0

//! The list of the blocks of a file that are present, as it is on the disk.
//!
//! A list is runs of present blocks in order, each as two numbers: how many blocks to skip, and
//! how many are present. A short one is in an attribute of the file:
//!
//! | bytes | |
//! |-------|-|
//! | 1     | [`VERSION`] |
//! | 8     | check |
//! | 1     | kind: [`RUNS`] or [`FILE`] |
//! | …     | the runs, or the token of a list file, 8 bytes, little endian |
//!
//! A list file has records, each with the runs of some part of the object. What any of them says is
//! present:
//!
//! | bytes | |
//! |-------|-|
//! | 8     | check |
//! | 4     | length of the runs, little endian |
//! | 4     | zero |
//! | …     | the runs |
//!
//! A check is the beginning of a SHA-256 digest. That of the attribute is over the *binding*, which
//! is the auxiliary data and the version that the file's main attribute has, and what follows it;
//! that of a record over the token, the record's offset, and the runs. So a list that was torn by a
//! crash, was left by an earlier state of the file, or is another file's, counts for nothing.

use core::{
    iter::from_fn,
    mem::size_of,
    ops::Range, //
};

/// A function that returns the SHA-256 digest of what it is given.
pub(crate) type Sha256 = fn(&[u8]) -> [u8; 32];

/// The first byte of the attribute.
const VERSION: u8 = 2;
/// The attribute has the runs.
const RUNS: u8 = 0;
/// The attribute names a list file.
const FILE: u8 = 1;

const CHECK: usize = 8;
const DIGEST: usize = 32;

/// Bytes that the attribute may have: what ext4 has room for beside the inode.
pub(crate) const ATTR_MAX: usize = 2048;

/// Bytes that are needed to make or to read the attribute. The digest of the binding goes in front
/// of what is checked.
pub(crate) const SCRATCH: usize = ATTR_AT + ATTR_MAX;

/// Where the attribute begins in these.
const ATTR_AT: usize = DIGEST - CHECK - 1;
/// Where the runs, or the token, begin.
const PAYLOAD_AT: usize = DIGEST + 1;

struct Encoder<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl Encoder<'_> {
    fn put(&mut self, byte: u8) -> Option<()> {
        *self.buf.get_mut(self.len)? = byte;
        self.len += 1;
        Some(())
    }

    /// Seven bits a byte, the lowest first; the highest bit says that there is more.
    fn put_number(&mut self, mut number: u64) -> Option<()> {
        while number >= 0x80 {
            self.put(number as u8 | 0x80)?;
            number >>= 7;
        }
        self.put(number as u8)
    }
}

/// Writes `runs`, which are in order, to `buf`, as far as they fit. Returns how many bytes that is,
/// and the first block of the first run that does not fit, if there is one.
pub(crate) fn encode(
    runs: impl Iterator<Item = Range<u64>>,
    buf: &mut [u8],
) -> (usize, Option<u64>) {
    let mut list = Encoder { buf, len: 0 };
    let mut at = 0;
    for run in runs {
        let before = list.len;
        let put = list
            .put_number(run.start - at)
            .and_then(|()| list.put_number(run.end - run.start));
        if put.is_none() {
            return (before, Some(run.start));
        }
        at = run.end;
    }
    (list.len, None)
}

/// Reads runs. Ends where they make no sense any more.
pub(crate) fn decode(runs: &[u8]) -> impl Iterator<Item = Range<u64>> + '_ {
    let mut bytes = runs.iter().copied();
    let mut number = move || {
        let mut number = 0u64;
        for shift in (0..u64::BITS - 7).step_by(7) {
            let byte = bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    };
    let mut at = 0u64;
    from_fn(move || {
        let start = at.checked_add(number()?)?;
        let end = start.checked_add(number()?)?;
        at = end;
        (start < end).then_some(start..end)
    })
}

/// What the attribute says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// These runs are present.
    Runs(&'a [u8]),
    /// There is a list file with this token.
    File(u64),
}

/// Where in `scratch`, of [`SCRATCH`] bytes, runs are to be put before [`seal_runs`].
pub(crate) fn room(scratch: &mut [u8]) -> &mut [u8] {
    scratch.get_mut(PAYLOAD_AT..).unwrap_or_default()
}

/// Where in `scratch` the attribute is to be read to before [`open`].
pub(crate) fn attribute(scratch: &mut [u8]) -> &mut [u8] {
    scratch.get_mut(ATTR_AT..).unwrap_or_default()
}

/// The attribute with the first `len` bytes of [`room`], which are runs.
pub(crate) fn seal_runs<'a>(
    scratch: &'a mut [u8],
    len: usize,
    binding: &[u8],
    sha256: Sha256,
) -> &'a [u8] {
    seal(scratch, RUNS, len, binding, sha256)
}

/// The attribute that names a list file.
pub(crate) fn seal_token<'a>(
    scratch: &'a mut [u8],
    token: u64,
    binding: &[u8],
    sha256: Sha256,
) -> &'a [u8] {
    let token = token.to_le_bytes();
    put(room(scratch), 0, &token);
    seal(scratch, FILE, token.len(), binding, sha256)
}

fn seal<'a>(
    scratch: &'a mut [u8],
    kind: u8,
    len: usize,
    binding: &[u8],
    sha256: Sha256,
) -> &'a [u8] {
    let end = PAYLOAD_AT + len;
    put(scratch, DIGEST, &[kind]);
    let check = attribute_check(scratch, end, binding, sha256);
    put(scratch, ATTR_AT, &[VERSION]);
    put(scratch, ATTR_AT + 1, &check);
    scratch.get(ATTR_AT..end).unwrap_or_default()
}

/// The check of the attribute that ends at `end`. Overwrites what is before its kind.
fn attribute_check(scratch: &mut [u8], end: usize, binding: &[u8], sha256: Sha256) -> [u8; CHECK] {
    put(scratch, 0, &sha256(binding));
    check(scratch.get(..end).unwrap_or_default(), sha256)
}

/// What an attribute of `len` bytes says that was read to [`attribute`]; `None` if it is not that
/// of a file with this binding.
pub(crate) fn open<'a>(
    scratch: &'a mut [u8],
    len: usize,
    binding: &[u8],
    sha256: Sha256,
) -> Option<Stored<'a>> {
    let end = ATTR_AT.checked_add(len)?;
    let head = scratch.get(ATTR_AT..end)?;
    let (version, rest) = head.split_first()?;
    let (found, rest) = rest.split_first_chunk::<CHECK>()?;
    let (version, found, kind) = (*version, *found, *rest.first()?);
    if version != VERSION || attribute_check(scratch, end, binding, sha256) != found {
        return None;
    }
    let payload = scratch.get(PAYLOAD_AT..end)?;
    match kind {
        RUNS => Some(Stored::Runs(payload)),
        FILE => Some(Stored::File(u64::from_le_bytes(payload.try_into().ok()?))),
        _ => None,
    }
}

/// The token that an attribute has, whether or not that is of a file with any binding.
pub(crate) fn token_of(attr: &[u8]) -> Option<u64> {
    let (version, rest) = attr.split_first()?;
    let (kind, token) = rest.get(CHECK..)?.split_first()?;
    match (*version, *kind) {
        (VERSION, FILE) => Some(u64::from_le_bytes(token.try_into().ok()?)),
        _ => None,
    }
}

/// Bytes that a record of a list file may have.
pub(crate) const RECORD_MAX: usize = 4096;

/// Bytes of a record before the runs.
pub(crate) const RECORD_HEAD: usize = CHECK + 2 * size_of::<u32>();

/// Says in the head of `record` how long it is.
pub(crate) fn set_record_len(record: &mut [u8], runs: usize) {
    // CAST: No more than `RECORD_MAX`.
    put(record, CHECK, &(runs as u32).to_le_bytes());
    put(record, CHECK + size_of::<u32>(), &[0; size_of::<u32>()]);
}

/// How many bytes the record has of which `head` is the beginning; `None` if it is none.
pub(crate) fn record_len(head: &[u8]) -> Option<usize> {
    let (len, zero) = head.get(CHECK..RECORD_HEAD)?.split_first_chunk::<4>()?;
    // CAST: Fits.
    let len = RECORD_HEAD.checked_add(u32::from_le_bytes(*len) as usize)?;
    (len <= RECORD_MAX && zero == [0; 4]).then_some(len)
}

/// Completes a whole record, for the list file with `token`, of which it is at `offset`.
pub(crate) fn seal_record(record: &mut [u8], token: u64, offset: u64, sha256: Sha256) {
    let runs = record.len().saturating_sub(RECORD_HEAD);
    let check = record_check(record, token, offset, sha256);
    put(record, 0, &check);
    set_record_len(record, runs);
}

/// The runs of a whole record of the list file with `token`, of which it is at `offset`; `None` if
/// it is none.
pub(crate) fn open_record(
    record: &mut [u8],
    token: u64,
    offset: u64,
    sha256: Sha256,
) -> Option<&[u8]> {
    let found = *record.first_chunk::<CHECK>()?;
    if record_check(record, token, offset, sha256) != found {
        return None;
    }
    record.get(RECORD_HEAD..)
}

/// The check of a record. Overwrites its head.
fn record_check(record: &mut [u8], token: u64, offset: u64, sha256: Sha256) -> [u8; CHECK] {
    put(record, 0, &token.to_le_bytes());
    put(record, size_of::<u64>(), &offset.to_le_bytes());
    check(record, sha256)
}

fn check(data: &[u8], sha256: Sha256) -> [u8; CHECK] {
    let digest = sha256(data);
    digest.first_chunk().copied().unwrap_or_default()
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in to.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
