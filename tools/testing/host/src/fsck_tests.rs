// SPDX-License-Identifier: GPL-2.0

//! The reader of lists in `ondemandctl fsck` and the driver's own say the same of everything.

use crate::{
    disk::{
        key::token_name,
        list::{
            attribute, decode, encode, open, open_record, record_len, room, seal_record, seal_runs,
            seal_token, set_record_len, Stored, RECORD_HEAD, RECORD_MAX, SCRATCH,
        },
        xattr::{binding, check_volume, content_of, Content, Value, AUX_MAX},
    },
    support::check,
};
use proptest::{collection::vec, num, option, strategy::Strategy};

#[path = "../../../ondemandd/src/fsck/format.rs"]
mod format;

/// Stands in for SHA-256: changes with each byte and its place.
fn hash(data: &[u8]) -> [u8; 32] {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    for byte in data {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    core::array::from_fn(|i| (state >> (8 * (i % 8))) as u8 ^ i as u8)
}

/// A change of one byte, or of the length.
type Damage = Option<(usize, u8, bool)>;

fn damage() -> impl Strategy<Value = Damage> {
    option::of((0usize..4096, 1u8.., num::u8::ANY.prop_map(|n| n < 32)))
}

/// Returns whether anything has changed.
fn apply(damage: Damage, bytes: &mut Vec<u8>) -> bool {
    let Some((at, bits, shorten)) = damage else {
        return false;
    };
    if bytes.is_empty() {
        return false;
    }
    let at = at % bytes.len();
    if shorten {
        bytes.truncate(at);
    } else {
        bytes[at] ^= bits;
    }
    true
}

/// Both readers on an attribute; returns whether they accept it.
fn both(attr: &[u8], aux: &[u8]) -> bool {
    let mut scratch = vec![0x55; SCRATCH];
    attribute(&mut scratch)[..attr.len()].copy_from_slice(attr);
    let theirs = open(&mut scratch, attr.len(), aux, hash);
    let ours = format::list(attr, aux, hash);
    match (&theirs, &ours) {
        (Some(Stored::Runs(theirs)), Some(format::List::Runs(ours))) => assert_eq!(theirs, ours),
        (Some(Stored::File(theirs)), Some(format::List::File(ours))) => assert_eq!(theirs, ours),
        (None, None) => {}
        other => panic!("{other:?}"),
    }
    ours.is_some()
}

#[test]
fn attributes_mean_the_same() {
    let runs = vec((0u64..5000, 1u64..300), 0..60);
    let list = (option::of(num::u64::ANY), runs, vec(num::u8::ANY, 0..20));
    check(4000, (list, damage()), |((token, runs, aux), damage)| {
        let mut scratch = vec![0; SCRATCH];
        let mut at = 0;
        let runs = runs.iter().map(|(skip, len)| {
            let start = at + skip;
            at = start + len;
            start..at
        });
        let mut attr = match token {
            Some(token) => seal_token(&mut scratch, token, &aux, hash).to_vec(),
            None => {
                let (len, _) = encode(runs, room(&mut scratch));
                seal_runs(&mut scratch, len, &aux, hash).to_vec()
            }
        };
        let is_damaged = apply(damage, &mut attr);
        assert_ne!(both(&attr, &aux), is_damaged);
        let mut other = aux.clone();
        other.push(0);
        assert!(!both(&attr, &other));
    });
}

#[test]
fn any_bytes_mean_the_same() {
    check(
        4000,
        (vec(num::u8::ANY, 0..40), vec(num::u8::ANY, 0..8)),
        |(attr, aux)| {
            both(&attr, &aux);
            // With the check that it should have.
            if let [_, _, _, _, _, _, _, _, _, kind, payload @ ..] = &attr[..] {
                let check = hash(&[&hash(&aux)[..], &[*kind], payload].concat());
                let attr = [&[2], &check[..8], &[*kind], payload].concat();
                both(&attr, &aux);
            }
        },
    );
}

#[test]
fn runs_mean_the_same() {
    // Mostly small, and long numbers now and then.
    let byte = num::u8::ANY.prop_flat_map(|n| if n < 128 { 0u8..4 } else { 0u8..255 });
    check(4000, vec(byte, 0..60), |runs| {
        let theirs: Vec<_> = decode(&runs).collect();
        assert_eq!(format::blocks(&runs), theirs);
    });
}

#[test]
fn records_mean_the_same() {
    let record = (
        num::u64::ANY,
        0u64..1 << 40,
        vec(num::u8::ANY, 0..RECORD_MAX - RECORD_HEAD),
    );
    check(
        2000,
        (record, damage(), 0usize..50),
        |((token, offset, runs), damage, behind)| {
            let mut bytes = vec![0; RECORD_HEAD];
            bytes.extend_from_slice(&runs);
            set_record_len(&mut bytes, runs.len());
            seal_record(&mut bytes, token, offset, hash);
            let is_damaged = apply(damage, &mut bytes);
            bytes.resize(bytes.len() + behind, 7);
            // As the driver reads a list file.
            let mut read = bytes.clone();
            read.truncate(RECORD_MAX);
            let theirs = record_len(&read)
                .and_then(|len| read.get_mut(..len))
                .and_then(|record| Some((record.len(), open_record(record, token, offset, hash)?)))
                .map(|(len, runs)| (runs.to_vec(), len));
            let ours = format::record(&bytes, token, offset, hash);
            assert_eq!(ours.map(|(runs, len)| (runs.to_vec(), len)), theirs);
            assert_ne!(ours.is_some(), is_damaged);
            assert!(format::record(&bytes, token, offset + 1, hash).is_none());
            assert!(format::record(&bytes, token ^ 1, offset, hash).is_none());
        },
    );
}

#[test]
fn main_attributes_mean_the_same() {
    let contents = [
        (Content::Unlisted, format::Content::Unlisted),
        (Content::All, format::Content::All),
        (Content::Listed, format::Content::Listed),
        (Content::Dirty, format::Content::Dirty),
    ];
    let state = (0u64..1 << 44, 0usize..4, vec(num::u8::ANY, 0..AUX_MAX));
    check(4000, (state, damage()), |((size, content, aux), damage)| {
        let (theirs, ours) = contents[content];
        let value = Value::object(size, theirs, &aux, b"");
        let state = format::state(value.as_bytes()).unwrap();
        assert_eq!(
            (state.size, state.content, state.binding),
            (size, ours, &aux[..])
        );
        let mut value = value.as_bytes().to_vec();
        apply(damage, &mut value);
        if let Some(state) = format::state(&value) {
            let pair = (content_of(&value), state.content);
            assert!(contents.contains(&pair), "{pair:?}");
            assert_eq!(state.binding, binding(&value));
        }
    });
}

#[test]
fn volumes_and_names_mean_the_same() {
    check(
        1000,
        (vec(num::u8::ANY, 0..20), num::u64::ANY, damage()),
        |(coherency, token, damage)| {
            let mut value = Value::volume(&coherency).as_bytes().to_vec();
            assert!(format::is_volume(&value));
            apply(damage, &mut value);
            if !format::is_volume(&value) {
                assert!(check_volume(&value, value.get(4..).unwrap_or_default()).is_err());
            }
            let name = format::list_name(token);
            assert_eq!(name.as_bytes(), token_name(token));
            assert_eq!(format::token(&name), Some(token));
            assert_eq!(
                format::token(&name.replace('a', "A")).is_some(),
                !name.contains('a')
            );
        },
    );
}
