// SPDX-License-Identifier: GPL-2.0

//! The messages against the UAPI header, which is read here, and byte by byte.

use crate::{
    protocol::{
        errno::Errno,
        msg::{padding, Message, Opcode, OpenKeys, HEADER_SIZE, MAX_SIZE, READ_SIZE},
    },
    support::check,
};
use proptest::{collection::vec, prelude::any};

const HEADER: &str = include_str!("../../../../include/uapi/linux/cachefiles.h");

/// Name, offset and size of the fields of a structure of the header, which have to be naturally
/// aligned; a flexible array has size 0.
fn fields(name: &str) -> Vec<(&'static str, usize, usize)> {
    let start = HEADER
        .find(&format!("struct {name} {{"))
        .unwrap_or_else(|| panic!("no struct {name}"));
    let body = &HEADER[start..];
    let body = &body[body.find('{').unwrap() + 1..body.find("};").unwrap()];
    let mut offset = 0;
    let mut all = Vec::new();
    for line in body.split(';').map(str::trim).filter(|l| !l.is_empty()) {
        let (kind, field) = line.split_once(char::is_whitespace).unwrap();
        let size = match kind {
            "__u8" => 1,
            "__u32" => 4,
            "__u64" => 8,
            other => panic!("type {other}"),
        };
        let field = field.trim();
        assert_eq!(offset % size, 0, "padding before {name}.{field}");
        match field.strip_suffix("[]") {
            Some(array) => all.push((array, offset, 0)),
            None => {
                all.push((field, offset, size));
                offset += size;
            }
        }
    }
    all
}

fn size_of(name: &str) -> usize {
    fields(name).iter().map(|(.., size)| size).sum()
}

/// A number in a message, found by the header.
fn get(bytes: &[u8], base: usize, name: &str, field: &str) -> u64 {
    let (_, offset, size) = *fields(name)
        .iter()
        .find(|(f, ..)| *f == field)
        .unwrap_or_else(|| panic!("no {name}.{field}"));
    let bytes = &bytes[base + offset..][..size];
    match size {
        4 => u32::from_ne_bytes(bytes.try_into().unwrap()).into(),
        8 => u64::from_ne_bytes(bytes.try_into().unwrap()),
        other => panic!("size {other}"),
    }
}

/// The value of a member of `enum cachefiles_opcode`.
fn opcode(name: &str) -> u32 {
    let start = HEADER.find("enum cachefiles_opcode {").unwrap();
    let body = &HEADER[start..];
    let body = &body[body.find('{').unwrap() + 1..body.find('}').unwrap()];
    let at = body
        .split(',')
        .map(str::trim)
        .position(|member| member == name)
        .unwrap_or_else(|| panic!("no {name}"));
    at as u32
}

#[test]
fn the_header_is_the_one_these_tests_were_written_for() {
    assert_eq!(
        fields("cachefiles_msg"),
        [
            ("msg_id", 0, 4),
            ("opcode", 4, 4),
            ("len", 8, 4),
            ("object_id", 12, 4),
            ("data", 16, 0),
        ]
    );
    assert_eq!(
        fields("cachefiles_open"),
        [
            ("volume_key_size", 0, 4),
            ("cookie_key_size", 4, 4),
            ("fd", 8, 4),
            ("flags", 12, 4),
            ("data", 16, 0),
        ]
    );
    assert_eq!(fields("cachefiles_read"), [("off", 0, 8), ("len", 8, 8)]);
}

#[test]
fn opcodes_are_those_of_the_header() {
    assert_eq!(Opcode::Open as u32, opcode("CACHEFILES_OP_OPEN"));
    assert_eq!(Opcode::Close as u32, opcode("CACHEFILES_OP_CLOSE"));
    assert_eq!(Opcode::Read as u32, opcode("CACHEFILES_OP_READ"));
    assert_eq!((Opcode::Open as u32, Opcode::Read as u32), (0, 2));
}

#[test]
fn sizes_are_those_of_the_header() {
    assert_eq!(HEADER_SIZE, size_of("cachefiles_msg"));
    let read = size_of("cachefiles_msg") + size_of("cachefiles_read");
    assert_eq!(READ_SIZE, read);
    let keys = OpenKeys::new(b"", b"").unwrap();
    let open = size_of("cachefiles_msg") + size_of("cachefiles_open");
    assert_eq!(keys.size(), open + 1);
    assert_eq!((HEADER_SIZE, READ_SIZE, MAX_SIZE), (16, 32, 543));
}

#[test]
fn the_largest_message_fits_the_advised_buffer() {
    let line = HEADER
        .lines()
        .find(|line| line.starts_with("#define CACHEFILES_MSG_MAX_SIZE"))
        .unwrap();
    let advised: usize = line.split_whitespace().last().unwrap().parse().unwrap();
    assert!(MAX_SIZE <= advised);
}

#[test]
fn close_is_a_header() {
    let msg = Message::close(0x0403_0201, 0x0807_0605);
    #[rustfmt::skip]
    let expected = [
        0x0403_0201u32.to_ne_bytes(),
        1u32.to_ne_bytes(),
        16u32.to_ne_bytes(),
        0x0807_0605u32.to_ne_bytes(),
    ].concat();
    assert_eq!(msg.as_bytes(), expected);
}

#[test]
fn read_is_a_header_an_offset_and_a_length() {
    let (off, len) = (0x1112_1314_1516_1718, 0x2122_2324_2526_2728);
    let msg = Message::read(u32::MAX, 1, off, len);
    let mut expected = [
        u32::MAX.to_ne_bytes(),
        2u32.to_ne_bytes(),
        32u32.to_ne_bytes(),
        1u32.to_ne_bytes(),
    ]
    .concat();
    expected.extend(off.to_ne_bytes());
    expected.extend(len.to_ne_bytes());
    assert_eq!(msg.as_bytes(), expected);
}

#[test]
fn open_carries_both_keys() {
    let keys = OpenKeys::new(b"erofs,a", b"blob\0\xff").unwrap();
    let msg = Message::open(3, 4, 5, keys);
    let numbers = [3u32, 0, 32 + 8 + 6, 4, 8, 6, 5, 0];
    let mut expected: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
    expected.extend(b"erofs,a\0blob\0\xff");
    assert_eq!(msg.as_bytes(), expected);
    assert_eq!(keys.size(), expected.len());
}

#[test]
fn keys_have_at_most_255_bytes() {
    let (full, over) = ([b'k'; 255], [b'k'; 256]);
    let einval = Some(Errno::EINVAL);
    assert_eq!(OpenKeys::new(&over, b"x").err(), einval);
    assert_eq!(OpenKeys::new(b"x", &over).err(), einval);
    let keys = OpenKeys::new(&full, &full).unwrap();
    assert_eq!(keys.size(), MAX_SIZE);
    let msg = Message::open(u32::MAX, i32::MAX as u32, i32::MAX as u32, keys);
    assert_eq!(msg.as_bytes().len(), MAX_SIZE);
    // Nothing was cut off.
    assert_eq!(msg.as_bytes()[32..287], full);
    assert_eq!(msg.as_bytes()[287], 0);
    assert_eq!(msg.as_bytes()[288..], full);
}

#[test]
fn any_open_can_be_taken_apart_with_the_header() {
    let keys = (vec(1u8.., 0..=255), vec(any::<u8>(), 1..=255));
    let ids = (any::<u32>(), any::<u32>(), any::<u32>());
    check(
        1000,
        (keys, ids),
        |((volume, cookie), (msg_id, object_id, fd))| {
            let keys = OpenKeys::new(&volume, &cookie).unwrap();
            let msg = Message::open(msg_id, object_id, fd, keys);
            let bytes = msg.as_bytes();
            assert_eq!(bytes.len(), keys.size());
            let header = |field| get(bytes, 0, "cachefiles_msg", field);
            assert_eq!(header("msg_id"), msg_id.into());
            assert_eq!(header("opcode"), 0);
            assert_eq!(header("len"), bytes.len() as u64);
            assert_eq!(header("object_id"), object_id.into());
            let base = size_of("cachefiles_msg");
            let open = |field| get(bytes, base, "cachefiles_open", field);
            assert_eq!(open("fd"), fd.into());
            assert_eq!(open("flags"), 0);
            let data = &bytes[base + size_of("cachefiles_open")..];
            let (name, rest) = data.split_at(open("volume_key_size") as usize);
            assert_eq!(name, [&volume[..], &[0]].concat());
            assert_eq!(rest, cookie);
            assert_eq!(open("cookie_key_size"), cookie.len() as u64);
        },
    );
}

#[test]
fn any_read_and_close_can_be_taken_apart_with_the_header() {
    let numbers = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    check(500, numbers, |(msg_id, object_id, off, len)| {
        let read = Message::read(msg_id, object_id, off, len);
        let close = Message::close(msg_id, object_id);
        for (msg, code, size) in [(&read, 2, 32), (&close, 1, 16)] {
            let bytes = msg.as_bytes();
            assert_eq!(bytes.len(), size);
            let header = |field| get(bytes, 0, "cachefiles_msg", field);
            assert_eq!(header("msg_id"), msg_id.into());
            assert_eq!(header("opcode"), code);
            assert_eq!(header("len"), size as u64);
            assert_eq!(header("object_id"), object_id.into());
        }
        let body = |field| get(read.as_bytes(), 16, "cachefiles_read", field);
        assert_eq!((body("off"), body("len")), (off, len));
    });
}

#[test]
fn messages_that_are_read_together_start_at_multiples_of_8() {
    for end in 0..100 {
        let padding = padding(end);
        assert!(padding.len() < 8 && padding.iter().all(|byte| *byte == 0));
        assert_eq!((end + padding.len()) % 8, 0);
    }
}
