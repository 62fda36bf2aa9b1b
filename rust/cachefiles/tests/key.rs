// SPDX-License-Identifier: GPL-2.0

//! Names on disk.

/// Keys and their names, as printed by `cachefiles_cook_key()` of Linux 7.3, compiled for user
/// space.
pub(crate) const NAMES: [(&[u8], &str); 22] = [
    (b"a", "Da"),
    (b"file.img", "Dfile.img"),
    (&[0x7f], "D\x7f"),
    (b" ", "T20"),
    (b"a/b", "E0xZyo"),
    (&[0], "S"),
    (&[0, 0], "S"),
    (&[0, 0, 0, 0], "S"),
    (&[1], "T1"),
    (&[0, 0, 0, 1], "S1"),
    (&[1, 0, 0, 0], "T1"),
    (&[0, 0, 0, 1, 0, 0, 0, 2], "S1,2"),
    (&[0xff], "Tff"),
    (&[0xff, 0xfe], "Tfeff"),
    (&[0xff, 0x00, 0x01], "E0-3g0"),
    (&[0xff, 0xff, 0xff], "E0----"),
    (&[0xff, 0xff, 0xff, 0xff], "Sffffffff"),
    (
        &[0xde, 0xad, 0xbe, 0xef, 0xca, 0xfe, 0xba, 0xbe],
        "E1uTGLLHI-WWb0",
    ),
    (&[0x80, 0xff, 0x01, 0x7f, 0x22], "E10_v0-920"),
    (
        &[
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff,
        ],
        "E204x8PgklCt7ypGWKcTJX-300",
    ),
    (
        &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
        "T1,2,3,4,",
    ),
    (
        &[0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8, 0xf7, 0xf6],
        "E0_Tf-XHv_UvLZ",
    ),
];

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_key))]
mod tests {
    use super::NAMES;
    use crate::{
        disk::key::{
            cook_key,
            fanout_name,
            grave_name,
            volume_name, //
        },
        protocol::errno::Errno, //
    };

    const HASH: [u8; 32] = [0xa5; 32];

    #[test]
    fn names_are_those_that_the_c_code_gave() {
        for (key, name) in NAMES {
            // Whoever has a name is not hashed.
            let hashed = core::cell::Cell::new(false);
            let found = cook_key(key, |_| {
                hashed.set(true);
                HASH
            });
            assert!(found.is_ok_and(|found| found.as_bytes() == name.as_bytes()));
            assert!(!hashed.get());
        }
    }

    #[test]
    fn what_does_not_fit_a_name_is_hashed() {
        let key = [b'k'; 255];
        let name = cook_key(&key[..254], |_| HASH);
        assert!(name.is_ok_and(|name| name.as_bytes()[1..] == key[..254]));
        let name = cook_key(&key, |all| {
            let mut hash = HASH;
            hash[0] = all.len() as u8;
            hash
        });
        // 255 is ff.
        let is_hash = |name: &[u8]| name.len() == 65 && name.starts_with(b"Hffa5a5");
        assert!(name.is_ok_and(|name| is_hash(name.as_bytes())));
        assert_eq!(cook_key(b"", |_| HASH).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn volumes_are_named_by_their_keys() {
        let name = volume_name(b"erofs,x", |_| HASH);
        assert!(name.is_ok_and(|name| name.as_bytes() == b"Ierofs,x"));
        assert_eq!(volume_name(b"a/b", |_| HASH).err(), Some(Errno::EINVAL));
        let name = volume_name(&[b'v'; 255], |_| HASH);
        assert!(name.is_ok_and(|name| name.as_bytes().starts_with(b"Ja5a5")));
        assert_eq!(&fanout_name(0xb1), b"@b1");
        assert_eq!(&grave_name(0x0123_4567, 0x89ab_cdef), b"0123456789abcdef");
    }
}
