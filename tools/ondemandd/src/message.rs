// SPDX-License-Identifier: GPL-2.0-or-later

//! The wire format of /dev/cachefiles: `include/uapi/linux/cachefiles.h`.
//!
//! One read() gives one message, host-endian and without padding, or several if the cache was bound
//! with "batch": each then starts at a multiple of 8.
//!
//! ```text
//! struct cachefiles_msg  { u32 msg_id; u32 opcode; u32 len; u32 object_id; u8 data[]; }
//! OPEN   data = struct { u32 volume_key_size; u32 cookie_key_size; u32 fd; u32 flags; u8 data[]; }
//!        data.data = volume key, its NUL counted in volume_key_size, then the cookie key (binary)
//! CLOSE  no data
//! READ   data = struct { u64 off; u64 len; }
//! ```
//!
//! By hand: it is two structures of integers, whose lengths have to be compared with each other in any
//! case, and a library would not do that.

use std::fmt;

/// Room for any message: the kernel's longest is 16 + 16 + 256 + 255 bytes, and it names 1024
/// (`CACHEFILES_MSG_MAX_SIZE`) as the bound.
const MAX_SIZE: usize = 1024;

/// Room for a good number of them.
pub const BATCH_SIZE: usize = 16 * MAX_SIZE;

/// Where messages start that were read together.
const ALIGN: usize = 8;

const HEADER: usize = 16;
const OP_OPEN: u32 = 0;
const OP_CLOSE: u32 = 1;
const OP_READ: u32 = 2;

/// The messages that one read() gave. A message that says of itself that it is shorter than a header or
/// longer than what is there is the last: nobody knows where the next one would start.
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    pub fn new(buf: &'a [u8]) -> Self {
        Self(buf)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let len = match u32_at(self.0, 8).map(|len| len as usize) {
            Some(len) if (HEADER..=self.0.len()).contains(&len) => len,
            _ => self.0.len(),
        };
        let message = &self.0[..len];
        self.0 = self.0.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some(message)
    }
}

/// A message, borrowed from the buffer it was read into.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Names the request in its answer.
    pub msg_id: u32,
    /// Names the opened cache file; new with every OPEN that is delivered.
    pub object_id: u32,
    /// What is asked for.
    pub op: Op<'a>,
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// A cookie is looked up: answer with `copen` and the size.
    Open {
        /// Without its terminating NUL.
        volume_key: &'a [u8],
        /// Any bytes; for EROFS images the name of the blob.
        cookie_key: &'a [u8],
        /// The anonymous descriptor of the cache file, already in this process's table.
        fd: i32,
    },
    /// The cache file is no longer used: close the descriptor; there is no answer.
    Close,
    /// A range is missing: write it, then complete the request.
    Read {
        /// First missing byte.
        off: u64,
        /// How many bytes are missing; may reach beyond the end of the blob.
        len: u64,
    },
}

/// A message that does not follow the format.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The message id, if the message is an OPEN and long enough to have one: the requester waits for
    /// an answer, which can still be refused.
    pub open_msg_id: Option<u32>,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.reason)
    }
}

fn u32_at(buf: &[u8], at: usize) -> Option<u32> {
    let bytes = buf.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn u64_at(buf: &[u8], at: usize) -> Option<u64> {
    let bytes = buf.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

impl<'a> Message<'a> {
    /// Parses what one read() returned.
    pub fn parse(buf: &'a [u8]) -> Result<Self, ParseError> {
        let mut open_msg_id = None;
        Self::parse_inner(buf, &mut open_msg_id).map_err(|reason| ParseError {
            open_msg_id,
            reason,
        })
    }

    fn parse_inner(buf: &'a [u8], open_msg_id: &mut Option<u32>) -> Result<Self, String> {
        let header = || format!("{} bytes, a header has {HEADER}", buf.len());
        let msg_id = u32_at(buf, 0).ok_or_else(header)?;
        let opcode = u32_at(buf, 4).ok_or_else(header)?;
        let len = u32_at(buf, 8).ok_or_else(header)?;
        let object_id = u32_at(buf, 12).ok_or_else(header)?;
        if opcode == OP_OPEN {
            *open_msg_id = Some(msg_id);
        }
        if u64::from(len) != buf.len() as u64 {
            return Err(format!("says {len} bytes, has {}", buf.len()));
        }
        let data = &buf[HEADER..];
        let op = match opcode {
            OP_OPEN => Self::parse_open(data)?,
            OP_CLOSE if data.is_empty() => Op::Close,
            OP_READ if data.len() == 16 => Op::Read {
                off: u64_at(data, 0).ok_or("READ too short")?,
                len: u64_at(data, 8).ok_or("READ too short")?,
            },
            OP_CLOSE | OP_READ => {
                return Err(format!("opcode {opcode} with {} bytes of data", data.len()))
            }
            _ => return Err(format!("unknown opcode {opcode}")),
        };
        Ok(Self {
            msg_id,
            object_id,
            op,
        })
    }

    fn parse_open(data: &'a [u8]) -> Result<Op<'a>, String> {
        let short = || format!("OPEN with {} bytes of data", data.len());
        let volume_key_size = u32_at(data, 0).ok_or_else(short)? as usize;
        let cookie_key_size = u32_at(data, 4).ok_or_else(short)? as usize;
        let fd = u32_at(data, 8).ok_or_else(short)?;
        let keys = data.get(16..).ok_or_else(short)?;
        if volume_key_size.checked_add(cookie_key_size) != Some(keys.len()) {
            return Err(format!(
                "keys of {volume_key_size} and {cookie_key_size} bytes in {}",
                keys.len()
            ));
        }
        let (volume_key, cookie_key) = keys.split_at(volume_key_size);
        let volume_key = match volume_key.split_last() {
            Some((0, key)) if !key.contains(&0) => key,
            _ => return Err("the volume key does not end with its only NUL".into()),
        };
        let fd = i32::try_from(fd).map_err(|_| format!("descriptor {fd}"))?;
        Ok(Op::Open {
            volume_key,
            cookie_key,
            fd,
        })
    }
}

/// Builds messages as the kernel does; the tests' side of the wire.
#[cfg(test)]
pub mod build {
    use super::*;

    fn message(msg_id: u32, opcode: u32, object_id: u32, data: &[u8]) -> Vec<u8> {
        let len = (HEADER + data.len()) as u32;
        let mut buf = Vec::new();
        for word in [msg_id, opcode, len, object_id] {
            buf.extend(word.to_ne_bytes());
        }
        buf.extend(data);
        buf
    }

    pub fn open(msg_id: u32, object_id: u32, volume: &[u8], cookie: &[u8], fd: i32) -> Vec<u8> {
        let mut data = Vec::new();
        for word in [volume.len() as u32 + 1, cookie.len() as u32, fd as u32, 0] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(volume);
        data.push(0);
        data.extend(cookie);
        message(msg_id, OP_OPEN, object_id, &data)
    }

    pub fn close(msg_id: u32, object_id: u32) -> Vec<u8> {
        message(msg_id, OP_CLOSE, object_id, &[])
    }

    /// Messages as one read() gives them.
    pub fn batch(messages: &[Vec<u8>]) -> Vec<u8> {
        let mut buf = Vec::new();
        for message in messages {
            buf.resize(buf.len().next_multiple_of(ALIGN), 0);
            buf.extend(message);
        }
        buf
    }

    pub fn read(msg_id: u32, object_id: u32, off: u64, len: u64) -> Vec<u8> {
        let data: Vec<u8> = [off.to_ne_bytes(), len.to_ne_bytes()].concat();
        message(msg_id, OP_READ, object_id, &data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn open_byte_by_byte() {
        let buf = build::open(7, 9, b"erofs,d", b"blob", 5);
        assert_eq!(buf.len(), 32 + 8 + 4);
        assert_eq!(&buf[32..], b"erofs,d\0blob");
        assert_eq!(
            Message::parse(&buf).unwrap(),
            Message {
                msg_id: 7,
                object_id: 9,
                op: Op::Open {
                    volume_key: b"erofs,d",
                    cookie_key: b"blob",
                    fd: 5
                }
            }
        );
    }

    #[test]
    fn read_and_close() {
        let read = Message::parse(&build::read(1, 2, 4096, 8192).repeat(1))
            .map(|m| {
                (
                    m.msg_id,
                    m.object_id,
                    matches!(
                        m.op,
                        Op::Read {
                            off: 4096,
                            len: 8192
                        }
                    ),
                )
            })
            .unwrap();
        assert_eq!(read, (1, 2, true));
        let buf = build::close(3, u32::MAX);
        let close = Message::parse(&buf).unwrap();
        assert_eq!(
            (close.msg_id, close.object_id, close.op),
            (3, u32::MAX, Op::Close)
        );
    }

    #[test]
    fn batches_are_taken_apart() {
        let open = build::open(1, 2, b"erofs,d", b"key", 4);
        assert_ne!(open.len() % 8, 0);
        let all = [
            build::read(2, 3, 0, 4096),
            open,
            build::close(3, 4),
            build::open(4, 5, b"erofs,d", b"key", 6),
        ];
        let batch = build::batch(&all);
        assert!(Messages::new(&batch).eq(all.iter().map(|one| &one[..])));
        // One alone is what one read() gives without "batch".
        for one in &all {
            assert!(Messages::new(one).eq([&one[..]]));
        }
        assert_eq!(Messages::new(&[]).next(), None);
    }

    #[test]
    fn what_follows_a_message_of_no_size_is_not_guessed() {
        for len in [0, 15, 65, u32::MAX] {
            let mut batch = build::batch(&[build::read(1, 2, 0, 4096), build::read(2, 2, 0, 4096)]);
            batch[8..12].copy_from_slice(&len.to_ne_bytes());
            let found: Vec<_> = Messages::new(&batch).collect();
            assert_eq!(found, [&batch[..]], "{len}");
            assert!(Message::parse(found[0]).is_err());
        }
    }

    #[test]
    fn keys_may_be_long_binary_or_empty() {
        let cookie: Vec<u8> = (0..=254).collect();
        let buf = build::open(0, 1, &[b'v'; 255], &cookie, 3);
        assert!(buf.len() <= MAX_SIZE);
        let Op::Open {
            volume_key,
            cookie_key,
            ..
        } = Message::parse(&buf).unwrap().op
        else {
            panic!("not an OPEN");
        };
        assert_eq!((volume_key.len(), cookie_key), (255, &cookie[..]));
        let empty = build::open(0, 1, b"", b"", 3);
        assert!(Message::parse(&empty).is_ok());
    }

    #[test]
    fn every_truncation_is_refused() {
        for whole in [
            build::open(1, 2, b"erofs,d", b"key", 4),
            build::read(1, 2, 0, 4096),
            build::close(1, 2),
        ] {
            for cut in 0..whole.len() {
                assert!(Message::parse(&whole[..cut]).is_err(), "cut at {cut}");
                // ... also when the length field agrees with what is there.
                let mut lying = whole[..cut].to_vec();
                if cut >= HEADER {
                    lying[8..12].copy_from_slice(&(cut as u32).to_ne_bytes());
                    assert!(Message::parse(&lying).is_err(), "cut at {cut}, len set");
                }
            }
            let mut longer = whole.clone();
            longer.push(0);
            assert!(Message::parse(&longer).is_err(), "oversize");
        }
    }

    #[test]
    fn bad_open_can_still_be_answered() {
        let mut buf = build::open(77, 2, b"erofs,d", b"key", 4);
        buf[16..20].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Message::parse(&buf).unwrap_err().open_msg_id, Some(77));
        // A volume key without NUL, and one with a NUL inside.
        let mut buf = build::open(78, 2, b"abc", b"k", 4);
        buf[35] = b'x';
        assert_eq!(Message::parse(&buf).unwrap_err().open_msg_id, Some(78));
        let buf = build::open(79, 2, b"a\0c", b"k", 4);
        assert_eq!(Message::parse(&buf).unwrap_err().open_msg_id, Some(79));
        let buf = build::open(80, 2, b"abc", b"k", -1);
        assert_eq!(Message::parse(&buf).unwrap_err().open_msg_id, Some(80));
        assert_eq!(Message::parse(&[0; 3]).unwrap_err().open_msg_id, None);
    }

    proptest! {
        #[test]
        fn round_trip(
            id: u32, object: u32, fd in 0..i32::MAX,
            volume in proptest::collection::vec(1u8.., 0..256),
            cookie in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            let buf = build::open(id, object, &volume, &cookie, fd);
            let msg = Message::parse(&buf).unwrap();
            prop_assert_eq!(msg.msg_id, id);
            prop_assert_eq!(msg.object_id, object);
            prop_assert_eq!(msg.op, Op::Open { volume_key: &volume, cookie_key: &cookie, fd });
        }

        #[test]
        fn any_bytes_do_not_panic(buf in proptest::collection::vec(any::<u8>(), 0..MAX_SIZE)) {
            let _ = Message::parse(&buf);
        }

        #[test]
        fn any_batch_ends(buf in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let total: usize = Messages::new(&buf).map(<[u8]>::len).sum();
            prop_assert!(total <= buf.len());
        }

        #[test]
        fn changed_bytes_do_not_panic(at in 0usize..44, byte: u8) {
            let mut buf = build::open(7, 9, b"erofs,d", b"blob", 5);
            buf[at] = byte;
            let _ = Message::parse(&buf);
        }
    }
}
