// SPDX-License-Identifier: GPL-2.0

//! The messages a daemon reads, as `include/uapi/linux/cachefiles.h` lays them out.
//!
//! All numbers are in host byte order and there is no padding.

use super::errno::{
    Errno,
    Result, //
};

/// Bytes in `struct cachefiles_msg`.
pub(crate) const HEADER_SIZE: usize = 16;
/// Bytes in `struct cachefiles_open`.
const OPEN_SIZE: usize = 16;
/// Bytes in a READ message.
pub(crate) const READ_SIZE: usize = HEADER_SIZE + 16;
/// A volume key has at most 255 bytes and its NUL, a cookie key at most 255 bytes.
pub(crate) const MAX_SIZE: usize = HEADER_SIZE + OPEN_SIZE + 256 + 255;

/// Where several messages are read at once, each starts at a multiple of this.
const ALIGN: usize = 8;

/// How many zero bytes go between a message that ends at `end` and the next one: fewer than
/// [`ALIGN`].
pub(crate) fn padding(end: usize) -> &'static [u8] {
    const ZEROS: [u8; ALIGN] = [0; ALIGN];
    ZEROS
        .get(..end.next_multiple_of(ALIGN) - end)
        .unwrap_or_default()
}

/// `enum cachefiles_opcode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Opcode {
    Open = 0,
    Close = 1,
    Read = 2,
}

/// A message ready to be copied to the daemon, of at most `SIZE` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Message<const SIZE: usize> {
    buf: [u8; SIZE],
    len: usize,
}

/// A READ or a CLOSE, of which there are many, and which are made under a lock.
pub(crate) type ShortMessage = Message<READ_SIZE>;

impl<const SIZE: usize> Message<SIZE> {
    fn new(opcode: Opcode, msg_id: u32, object_id: u32, len: usize) -> Self {
        let mut msg = Message {
            buf: [0; SIZE],
            len: 0,
        };
        msg.put(&msg_id.to_ne_bytes());
        msg.put(&(opcode as u32).to_ne_bytes());
        // A message has at most MAX_SIZE bytes.
        msg.put(&(len as u32).to_ne_bytes());
        msg.put(&object_id.to_ne_bytes());
        msg
    }

    /// Appends `bytes`. What does not fit is left out, which [`OpenKeys::new`] rules out.
    fn put(&mut self, bytes: &[u8]) {
        let room = self.buf.get_mut(self.len..);
        if let Some(slot) = room.and_then(|room| room.get_mut(..bytes.len())) {
            slot.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    /// The bytes to copy.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

impl ShortMessage {
    pub(crate) fn close(msg_id: u32, object_id: u32) -> Self {
        Message::new(Opcode::Close, msg_id, object_id, HEADER_SIZE)
    }

    pub(crate) fn read(msg_id: u32, object_id: u32, off: u64, len: u64) -> Self {
        let mut msg = Message::new(Opcode::Read, msg_id, object_id, READ_SIZE);
        msg.put(&off.to_ne_bytes());
        msg.put(&len.to_ne_bytes());
        msg
    }

    /// Whether the daemon has to answer it: a CLOSE is over when it is delivered.
    pub(crate) fn has_answer(&self) -> bool {
        self.len == READ_SIZE
    }
}

impl Message<MAX_SIZE> {
    pub(crate) fn open(msg_id: u32, object_id: u32, fd: u32, keys: OpenKeys<'_>) -> Self {
        let mut msg = Message::new(Opcode::Open, msg_id, object_id, keys.size());
        // Keys have at most 256 and 255 bytes, see OpenKeys::new.
        msg.put(&(keys.volume.len() as u32 + 1).to_ne_bytes());
        msg.put(&(keys.cookie.len() as u32).to_ne_bytes());
        msg.put(&fd.to_ne_bytes());
        msg.put(&0u32.to_ne_bytes());
        msg.put(keys.volume);
        msg.put(&[0]);
        msg.put(keys.cookie);
        msg
    }
}

/// What an OPEN says about an object.
///
/// # Invariants
///
/// Neither key has more than 255 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenKeys<'a> {
    volume: &'a [u8],
    cookie: &'a [u8],
}

impl<'a> OpenKeys<'a> {
    /// The keys of an object: the volume's without a terminating NUL, the cookie's as it is.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a key is longer than fscache allows.
    pub(crate) fn new(volume: &'a [u8], cookie: &'a [u8]) -> Result<Self> {
        if volume.len() > 255 || cookie.len() > 255 {
            return Err(Errno::EINVAL);
        }
        // INVARIANT: Just checked.
        Ok(OpenKeys { volume, cookie })
    }

    /// Bytes in the OPEN message.
    pub(crate) fn size(&self) -> usize {
        HEADER_SIZE + OPEN_SIZE + self.volume.len() + 1 + self.cookie.len()
    }
}
