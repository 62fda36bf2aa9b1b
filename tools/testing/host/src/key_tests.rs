// SPDX-License-Identifier: GPL-2.0

//! Names on disk against a second encoder, which follows `fs/cachefiles/key.c` line by line, and
//! against names that the C code itself gave.

use crate::{
    disk::key::{cook_key, fanout_name, grave_name, volume_name, NAME_MAX},
    protocol::errno::Errno,
    support::check,
    tests::key::NAMES,
};
use proptest::{
    collection::vec,
    prelude::{any, Just},
    prop_oneof,
    strategy::{BoxedStrategy, Strategy},
};

/// `cachefiles_cook_key()`, without its limit on the length.
fn c_cook_key(key: &[u8]) -> Vec<u8> {
    let charmap = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";
    let how_many_hex_digits = |x: u32| if x == 0 { 0 } else { (x.ilog2() + 4) / 4 };
    let keylen = key.len();

    let mut filecharmap = [0u8; 256];
    filecharmap[33..=46].fill(1);
    filecharmap[48..=127].fill(1);
    let mut print = 1;
    for ch in key {
        print &= filecharmap[*ch as usize];
    }
    if print == 1 {
        let mut name = vec![b'D'];
        name.extend(key);
        return name;
    }

    // fscache pads keys with zeros to whole words.
    let n = (keylen + 3) / 4 * 4;
    let mut padded = key.to_vec();
    padded.resize(n, 0);
    let (mut nbe, mut nle) = (0, 0);
    let mut i = 0;
    while i < n {
        let word: [u8; 4] = padded[i..i + 4].try_into().unwrap();
        nbe += 1 + how_many_hex_digits(u32::from_be_bytes(word));
        nle += 1 + how_many_hex_digits(u32::from_le_bytes(word));
        i += 4;
    }

    let mut b64len = (keylen as u32 + 2) / 3;
    let pad = b64len * 3 - keylen as u32;
    b64len = 2 + b64len * 4;
    if nbe < b64len || nle < b64len {
        let mut sep = if nbe <= nle { 'S' } else { 'T' };
        let mut name = String::new();
        let mut i = 0;
        while i < n {
            let word: [u8; 4] = padded[i..i + 4].try_into().unwrap();
            let x = if nbe <= nle {
                u32::from_be_bytes(word)
            } else {
                u32::from_le_bytes(word)
            };
            name.push(sep);
            if x != 0 {
                name += &format!("{x:x}");
            }
            sep = ',';
            i += 4;
        }
        return name.into_bytes();
    }

    let mut name = vec![b'E', b'0' + pad as u8];
    let mut at = 0;
    loop {
        let mut acc = u32::from(key[at]);
        at += 1;
        if at < keylen {
            acc |= u32::from(key[at]) << 8;
            at += 1;
            if at < keylen {
                acc |= u32::from(key[at]) << 16;
                at += 1;
            }
        }
        for _ in 0..4 {
            name.push(charmap[(acc & 63) as usize]);
            acc >>= 6;
        }
        if at >= keylen {
            break;
        }
    }
    name
}

/// Not SHA-256, but as good here: the tests see what was hashed.
fn fake_hash(key: &[u8]) -> [u8; 32] {
    let mut hash = [0u8; 32];
    for (at, byte) in key.iter().enumerate() {
        hash[at % 32] = hash[at % 32].rotate_left(3) ^ byte ^ (at as u8);
    }
    hash[31] = key.len() as u8;
    hash
}

fn no_hash(_: &[u8]) -> [u8; 32] {
    panic!("hashed a key that has a name")
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
    let digits = digits.map(|d| char::from_digit(d.into(), 16).unwrap());
    digits.collect()
}

/// What a key has to be called: as in C if that is a file name, else by its hash.
fn expected(key: &[u8]) -> Vec<u8> {
    let name = c_cook_key(key);
    if name.len() <= 255 {
        return name;
    }
    format!("H{}", hex(&fake_hash(key))).into_bytes()
}

#[track_caller]
fn assert_name(key: &[u8]) {
    let name = cook_key(key, fake_hash).unwrap();
    let (found, expected) = (name.as_bytes(), expected(key));
    assert_eq!(
        String::from_utf8_lossy(found),
        String::from_utf8_lossy(&expected),
        "key {key:02x?}"
    );
    assert!(found.len() <= NAME_MAX);
    assert!(found.iter().all(|b| *b != 0 && *b != b'/'));
}

#[test]
fn the_reference_gives_the_names_that_the_c_code_gave() {
    for (key, name) in NAMES {
        assert_eq!(c_cook_key(key), name.as_bytes(), "{key:02x?}");
    }
}

#[test]
fn an_empty_key_is_refused() {
    assert_eq!(cook_key(b"", no_hash).err(), Some(Errno::EINVAL));
}

#[test]
fn every_single_byte_has_its_name() {
    for byte in 0..=255u8 {
        assert_name(&[byte]);
        // In company, at each place.
        for at in 0..5 {
            let mut key = *b"abcde";
            key[at] = byte;
            assert_name(&key);
        }
        let plain = matches!(byte, 33..=46 | 48..=127);
        let name = cook_key(&[b'x', byte], no_hash).unwrap();
        assert_eq!(name.as_bytes()[0] == b'D', plain, "byte {byte}");
    }
}

#[test]
fn every_length_and_kind_of_key_has_its_name() {
    for len in 1..=255usize {
        let kinds: [fn(usize) -> u8; 9] = [
            |_| b'p',
            |_| 0,
            |_| 0xff,
            |i| i as u8,
            |i| if i % 4 == 0 { 1 } else { 0 },
            |i| if i % 4 == 3 { 1 } else { 0 },
            |i| if i == 0 { b'/' } else { b'q' },
            |i| (i as u8).wrapping_mul(197).wrapping_add(128),
            |i| if i % 8 < 4 { 0 } else { 0xee },
        ];
        for kind in kinds {
            assert_name(&(0..len).map(kind).collect::<Vec<_>>());
        }
    }
}

#[test]
fn plain_keys_have_their_own_name_up_to_254_bytes() {
    // C stops the machine at 253.
    for len in [1, 251, 252, 253, 254] {
        let key = vec![b'k'; len];
        let name = cook_key(&key, no_hash).unwrap();
        assert_eq!(name.as_bytes(), [b"D", &key[..]].concat());
    }
    let key = [b'k'; 255];
    let name = cook_key(&key, fake_hash).unwrap();
    let hashed = format!("H{}", hex(&fake_hash(&key)));
    assert_eq!(name.as_bytes(), hashed.as_bytes());
    assert_eq!(hashed.len(), 65);
}

#[test]
fn binary_keys_have_their_own_name_up_to_189_bytes() {
    let key = |len| vec![0x95; len];
    let name = cook_key(&key(189), no_hash).unwrap();
    assert_eq!(name.as_bytes().len(), 2 + 63 * 4);
    assert_eq!(name.as_bytes(), c_cook_key(&key(189)));
    for len in 190..=255 {
        let name = cook_key(&key(len), fake_hash).unwrap();
        let hashed = format!("H{}", hex(&fake_hash(&key(len))));
        assert_eq!(name.as_bytes(), hashed.as_bytes(), "{len}");
    }
}

#[test]
fn sparse_keys_have_their_own_name_at_255_bytes() {
    let key: Vec<u8> = (0..255).map(|i| u8::from(i % 4 == 3)).collect();
    let name = cook_key(&key, no_hash).unwrap();
    assert_eq!(name.as_bytes(), c_cook_key(&key));
    assert!(name.as_bytes().starts_with(b"S1,1,"));
}

#[test]
fn the_hash_is_written_in_lower_case_hex() {
    let hash = |key: &[u8]| {
        assert_eq!(key, [0xfeu8; 255]);
        core::array::from_fn(|i| (i * 8 + 7) as u8)
    };
    let name = cook_key(&[0xfe; 255], hash).unwrap();
    let text = "070f171f272f373f474f575f676f777f878f979fa7afb7bfc7cfd7dfe7eff7ff";
    assert_eq!(name.as_bytes(), format!("H{text}").as_bytes());
}

fn keys() -> BoxedStrategy<Vec<u8>> {
    let len = prop_oneof![1..=255usize, 180..=195usize, 245..=255usize, 1..=12usize];
    let byte = prop_oneof![
        Just(any::<u8>().boxed()),
        Just((33u8..=127).boxed()),
        Just(prop_oneof![Just(0u8), Just(1), any::<u8>()].boxed()),
        Just(prop_oneof![8 => Just(0u8), 1 => any::<u8>()].boxed()),
        Just(prop_oneof![20 => 48u8..=127, 1 => any::<u8>()].boxed()),
    ];
    (len, byte)
        .prop_flat_map(|(len, byte)| vec(byte, len))
        .boxed()
}

#[test]
fn any_key_has_the_name_that_c_gives_it() {
    check(4000, keys(), |key| assert_name(&key));
}

/// Whether two keys are the same to C when it writes them as words: it cannot tell zeros at the
/// end from padding.
fn same_words(a: &[u8], b: &[u8]) -> bool {
    let padded = |key: &[u8]| {
        let mut key = key.to_vec();
        key.resize(key.len().next_multiple_of(4), 0);
        key
    };
    padded(a) == padded(b)
}

#[test]
fn different_keys_have_different_names() {
    let neighbour = (any::<usize>(), any::<u8>(), 0..4);
    let pairs = (keys(), keys(), neighbour).prop_map(|(a, other, (at, byte, how))| {
        let mut b = a.clone();
        let at = at % b.len();
        match how {
            0 => b[at] = byte,
            1 if b.len() < 255 => b.insert(at, byte),
            2 if b.len() > 1 => drop(b.remove(at)),
            _ => b = other,
        }
        (a, b)
    });
    check(4000, pairs, |(a, b)| {
        let names = [&a, &b].map(|key| cook_key(key, fake_hash).unwrap());
        let [first, second] = [0, 1].map(|at| names[at].as_bytes());
        let as_words = [first, second]
            .iter()
            .all(|name| matches!(name[0], b'S' | b'T'));
        let same = a == b || as_words && same_words(&a, &b);
        if first[0] != b'H' {
            assert_eq!(first == second, same, "{a:02x?} {b:02x?}");
        }
    });
}

#[test]
fn a_volumes_name_is_its_key_after_an_i() {
    let name = |key: &[u8]| volume_name(key, no_hash).unwrap().as_bytes().to_vec();
    assert_eq!(name(b"erofs,domain"), b"Ierofs,domain");
    assert_eq!(name(b"nfs,3,2,,a b"), b"Infs,3,2,,a b");
    // C writes one byte too many for the fan-out of this one.
    assert_eq!(name(b""), b"I");
    assert_eq!(name(b"."), b"I.");
    assert_eq!(name(&[b'v'; 254]), [&b"I"[..], &[b'v'; 254]].concat());
}

#[test]
fn a_volume_key_of_255_bytes_is_hashed() {
    let key = [b'v'; 255];
    let name = volume_name(&key, fake_hash).unwrap();
    let hashed = format!("J{}", hex(&fake_hash(&key)));
    assert_eq!(name.as_bytes(), hashed.as_bytes());
}

#[test]
fn a_volume_key_with_a_slash_is_refused() {
    for key in [&b"/"[..], b"a/b", b"/a", b"a/", &[b'/'; 255]] {
        assert_eq!(volume_name(key, no_hash).err(), Some(Errno::EINVAL));
    }
}

#[test]
fn fanout_directories_are_two_hex_digits() {
    for index in 0..=255 {
        assert_eq!(fanout_name(index), *format!("@{index:02x}").as_bytes());
    }
}

#[test]
fn graves_are_time_and_counter_in_hex() {
    assert_eq!(&grave_name(0, 0), b"0000000000000000");
    assert_eq!(&grave_name(0x6543_21ab, 0xf), b"654321ab0000000f");
    check(500, any::<(u32, u32)>(), |(seconds, counter)| {
        let expected = format!("{seconds:08x}{counter:08x}");
        assert_eq!(grave_name(seconds, counter), *expected.as_bytes());
    });
}
