// SPDX-License-Identifier: GPL-2.0

//! The coherency attribute, byte by byte.

use crate::{
    disk::xattr::{
        aux_and_content, check_object, check_volume, Content, Stale, Value, AUX_MAX, XATTR_NAME,
    },
    support::check,
};
use proptest::{collection::vec, prelude::any};

#[test]
fn the_attribute_has_the_name_that_c_uses() {
    assert_eq!(XATTR_NAME.to_bytes(), b"user.CacheFiles.cache");
}

#[test]
fn an_objects_value_is_laid_out_as_in_c() {
    let value = Value::object(0x0102_0304_0506_0708, Content::Unlisted, b"aux", b"");
    assert_eq!(
        value.as_bytes(),
        [
            1, 2, 3, 4, 5, 6, 7, 8, // object_size, big endian
            0, 0, 0, 0, 0, 0, 0, 0, // zero_point
            1, // type: data
            0, // content: no data
            b'a', b'u', b'x',
        ]
    );
    let dirty = Value::object(u64::MAX, Content::Dirty, b"", b"");
    assert_eq!(
        dirty.as_bytes(),
        [255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4]
    );
}

#[test]
fn a_volumes_value_is_laid_out_as_in_c() {
    assert_eq!(Value::volume(b"").as_bytes(), [0, 0, 0, 0]);
    assert_eq!(Value::volume(&[9, 8, 7]).as_bytes(), [0, 0, 0, 0, 9, 8, 7]);
}

#[test]
fn the_longest_auxiliary_data_fits() {
    assert_eq!(AUX_MAX, 255);
    let aux: Vec<u8> = (0..=254).collect();
    let object = Value::object(1, Content::Unlisted, &aux, b"");
    assert_eq!(object.as_bytes().len(), 18 + 255);
    assert_eq!(&object.as_bytes()[18..], aux);
    let volume = Value::volume(&aux);
    assert_eq!(&volume.as_bytes()[4..], aux);
}

/// What `cachefiles_check_auxdata()` accepts, field by field.
fn c_accepts(found: &[u8], size: u64, aux: &[u8]) -> bool {
    found.len() == 18 + aux.len()
        && found[16] == 1
        && &found[18..] == aux
        && u64::from_be_bytes(found[..8].try_into().unwrap()) == size
        && found[17] != 4
}

#[test]
fn every_byte_that_differs_makes_an_object_stale() {
    let aux = [0x11, 0x22, 0x33, 0x44, 0x55];
    let good = Value::object(0x1234_5678, Content::Unlisted, &aux, b"");
    let good = good.as_bytes();
    assert_eq!(check_object(good, 0x1234_5678, &aux, b""), Ok(()));
    for at in (0..good.len()).filter(|at| *at != 17) {
        let stale = match at {
            0..8 => Stale::Size,
            8..17 => Stale::Type,
            _ => Stale::Aux,
        };
        for bit in 0..8 {
            let mut found = good.to_vec();
            found[at] ^= 1 << bit;
            assert_eq!(
                check_object(&found, 0x1234_5678, &aux, b""),
                Err(stale),
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn any_content_but_dirty_is_accepted() {
    for content in 0..=255 {
        let mut found = Value::object(7, Content::Unlisted, b"x", b"")
            .as_bytes()
            .to_vec();
        found[17] = content;
        let expected = if content == 4 {
            Err(Stale::Dirty)
        } else {
            Ok(())
        };
        assert_eq!(
            check_object(&found, 7, b"x", b""),
            expected,
            "content {content}"
        );
    }
}

#[test]
fn an_object_of_another_length_is_stale() {
    let aux = [1, 2, 3, 4];
    let good = Value::object(99, Content::Unlisted, &aux, b"");
    for len in 0..good.as_bytes().len() {
        let found = &good.as_bytes()[..len];
        assert_eq!(
            check_object(found, 99, &aux, b""),
            Err(Stale::Length),
            "{len}"
        );
    }
    let mut long = good.as_bytes().to_vec();
    long.push(0);
    assert_eq!(check_object(&long, 99, &aux, b""), Err(Stale::Length));
    // Trailing auxiliary data of zeros is still auxiliary data.
    assert_eq!(
        check_object(good.as_bytes(), 99, &[1, 2, 3], b""),
        Err(Stale::Length)
    );
}

#[test]
fn an_object_of_another_size_is_stale() {
    let good = Value::object(4096, Content::Unlisted, b"", b"");
    for size in [0, 1, 4095, 4097, 4096 << 8, u64::MAX] {
        assert_eq!(
            check_object(good.as_bytes(), size, b"", b""),
            Err(Stale::Size),
            "{size}"
        );
    }
    assert_eq!(check_object(good.as_bytes(), 4096, b"", b""), Ok(()));
}

#[test]
fn every_byte_that_differs_makes_a_volume_stale() {
    let coherency = [5, 6, 7];
    let good = Value::volume(&coherency);
    let good = good.as_bytes();
    assert_eq!(check_volume(good, &coherency), Ok(()));
    for at in 0..good.len() {
        let mut found = good.to_vec();
        found[at] ^= 0x40;
        let stale = if at < 4 { Stale::Type } else { Stale::Aux };
        assert_eq!(check_volume(&found, &coherency), Err(stale), "{at}");
        assert_eq!(
            check_volume(&good[..at], &coherency),
            Err(Stale::Length),
            "{at}"
        );
    }
    let mut long = good.to_vec();
    long.push(0);
    assert_eq!(check_volume(&long, &coherency), Err(Stale::Length));
}

#[test]
fn the_parts_of_a_value_are_found() {
    let value = Value::object(1, Content::Listed, b"aux", b"-v1");
    assert_eq!(aux_and_content(value.as_bytes()), Some((&b"aux-v1"[..], 3)));
    assert_eq!(
        aux_and_content(&value.as_bytes()[..18]),
        Some((&b""[..], 3))
    );
    for len in 0..18 {
        assert_eq!(aux_and_content(&value.as_bytes()[..len]), None);
    }
}

#[test]
fn an_empty_volume_is_four_zero_bytes() {
    assert_eq!(check_volume(&[0; 4], b""), Ok(()));
    assert_eq!(check_volume(&[], b""), Err(Stale::Length));
    assert_eq!(check_volume(&[0; 3], b""), Err(Stale::Length));
    assert_eq!(check_volume(&[0; 5], b""), Err(Stale::Length));
}

#[test]
fn what_was_written_is_accepted_and_what_c_refuses_is_not() {
    let mutation = (any::<usize>(), any::<u8>());
    let values = (any::<u64>(), vec(any::<u8>(), 0..=255), vec(mutation, 0..3));
    check(2000, values, |(size, aux, mutations)| {
        let mut found = Value::object(size, Content::Unlisted, &aux, b"")
            .as_bytes()
            .to_vec();
        assert_eq!(check_object(&found, size, &aux, b""), Ok(()));
        for (at, byte) in mutations {
            let at = at % found.len();
            found[at] = byte;
        }
        // zero_point is not looked at by C, but nothing ever wrote it.
        if found[8..16] == [0; 8] {
            let accepted = check_object(&found, size, &aux, b"").is_ok();
            assert_eq!(accepted, c_accepts(&found, size, &aux));
        }
    });
}
