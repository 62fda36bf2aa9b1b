// SPDX-License-Identifier: GPL-2.0

//! The coherency data kept with backing files and volume directories, in `user.CacheFiles.cache`.
//!
//! Layout of a file's: big endian object size, big endian "zero point" (0), type, content, the
//! netfs's auxiliary data, the version that the daemon gave the object, if it did. Of a
//! directory's: four zero bytes, the netfs's coherency data.
//!
//! To the C implementation, which knows of no version, a version is a part of the auxiliary data:
//! it does not match, so that the file is not used.

use crate::protocol::command::VERSION_MAX;
use core::ops::Range;

/// The name of the attribute.
pub(crate) const XATTR_NAME: &core::ffi::CStr = c"user.CacheFiles.cache";

/// The name of the attribute that lists the blocks that are [present](super::presence). The C
/// implementation knows nothing of it.
pub(crate) const PRESENT_NAME: &core::ffi::CStr = c"user.CacheFiles.present";

/// Bytes before the auxiliary data.
const OBJECT_HEADER: usize = 18;
const VOLUME_HEADER: usize = 4;
const TYPE_DATA: u8 = 1;

/// Auxiliary data has at most this many bytes.
pub(crate) const AUX_MAX: usize = 255;

/// The largest value of a file, in bytes.
pub(crate) const VALUE_MAX: usize = OBJECT_HEADER + AUX_MAX + VERSION_MAX;

/// What the file holds (`enum cachefiles_content`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Content {
    /// Has no list (`CACHEFILES_CONTENT_NO_DATA`): written by the C code; what is present is found
    /// with `SEEK_DATA`.
    Unlisted = 0,
    /// All of it. The C code may go by that without a look at the file.
    All = 2,
    /// What the list of present blocks says, and nothing if there is no list. The C code finds what
    /// is present with `SEEK_DATA`.
    Listed = 3,
    /// Written to by the netfs and not synced: not to be used after a crash.
    Dirty = 4,
}

/// An attribute value, on its way to or from the disk.
pub(crate) struct Value {
    buf: [u8; VALUE_MAX],
    len: usize,
}

impl Value {
    fn new(parts: &[&[u8]]) -> Self {
        let mut value = Value {
            buf: [0; VALUE_MAX],
            len: 0,
        };
        for part in parts {
            let end = value.len + part.len();
            // All of them fit.
            if let Some(to) = value.buf.get_mut(value.len..end) {
                to.copy_from_slice(part);
                value.len = end;
            }
        }
        value
    }

    /// A file's value. `version` is empty if the daemon gave none.
    pub(crate) fn object(size: u64, content: Content, aux: &[u8], version: &[u8]) -> Self {
        Value::new(&[
            &size.to_be_bytes(),
            &0u64.to_be_bytes(),
            &[TYPE_DATA, content as u8],
            aux,
            version,
        ])
    }

    /// A volume directory's value.
    pub(crate) fn volume(coherency: &[u8]) -> Self {
        Value::new(&[&[0; VOLUME_HEADER], coherency])
    }

    /// The value that `get` reads to the buffer that it gets.
    pub(crate) fn read<E>(
        get: impl FnOnce(&mut [u8]) -> core::result::Result<usize, E>,
    ) -> core::result::Result<Self, E> {
        let mut value = Value::new(&[]);
        value.len = get(&mut value.buf)?;
        Ok(value)
    }

    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.buf.get_mut(..self.len).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

/// What a file with the value `found` holds, if that can be told from the value.
pub(crate) fn content_of(found: &[u8]) -> Content {
    /// The C code has it for an object that is read as one, all of which is present.
    const SINGLE: u8 = 1;
    const ALL: u8 = Content::All as u8;
    const LISTED: u8 = Content::Listed as u8;
    const DIRTY: u8 = Content::Dirty as u8;
    match found.get(OBJECT_HEADER - 1) {
        Some(&(SINGLE | ALL)) => Content::All,
        Some(&LISTED) => Content::Listed,
        Some(&DIRTY) => Content::Dirty,
        _ => Content::Unlisted,
    }
}

/// Changes what a file's value says that the file holds.
pub(crate) fn set_content(value: &mut [u8], content: Content) {
    if let Some(byte) = value.get_mut(OBJECT_HEADER - 1) {
        *byte = content as u8;
    }
}

/// What a list of the blocks of a file is [bound](super::list) to.
pub(crate) fn binding(value: &[u8]) -> &[u8] {
    value.get(OBJECT_HEADER..).unwrap_or_default()
}

/// The auxiliary data that a file's value has, with the version behind it, and what it says that
/// the file holds.
pub(crate) fn aux_and_content(value: &[u8]) -> Option<(&[u8], u8)> {
    let (header, aux) = value.split_at_checked(OBJECT_HEADER)?;
    Some((aux, *header.last()?))
}

/// Why a file, or a directory of a volume, is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The attribute is longer or shorter than it should be.
    Length,
    /// It is of another type, or something in it is not 0 that has to be.
    Type,
    /// The auxiliary data, the version, or the coherency data is another.
    Aux,
    /// The object has another size.
    Size,
    /// The file was written to, and not synced.
    Dirty,
}

/// Compares what was read from a file with what it should say.
///
/// # Errors
///
/// If the file's content is not that of an object of `size` bytes with `aux` and `version`, or is
/// not to be trusted. That is how it differs, or the first way.
pub(crate) fn check_object(
    found: &[u8],
    size: u64,
    aux: &[u8],
    version: &[u8],
) -> core::result::Result<(), Stale> {
    let expected = Value::object(size, Content::Unlisted, aux, version);
    if found.len() != expected.len {
        return Err(Stale::Length);
    }
    let differs = |range: Range<usize>| found.get(range.clone()) != expected.buf.get(range);
    // Byte 17 says what the file holds, or how that is found out.
    if differs(8..OBJECT_HEADER - 1) {
        Err(Stale::Type)
    } else if differs(OBJECT_HEADER..expected.len) {
        Err(Stale::Aux)
    } else if differs(0..8) {
        Err(Stale::Size)
    } else if found.get(OBJECT_HEADER - 1) == Some(&(Content::Dirty as u8)) {
        Err(Stale::Dirty)
    } else {
        Ok(())
    }
}

/// Compares what was read from a volume directory with what it should say.
///
/// # Errors
///
/// If they differ: how they do.
pub(crate) fn check_volume(found: &[u8], coherency: &[u8]) -> core::result::Result<(), Stale> {
    let expected = Value::volume(coherency);
    if found.len() != expected.len {
        Err(Stale::Length)
    } else if found.get(..VOLUME_HEADER) != expected.buf.get(..VOLUME_HEADER) {
        Err(Stale::Type)
    } else if found != expected.as_bytes() {
        Err(Stale::Aux)
    } else {
        Ok(())
    }
}
