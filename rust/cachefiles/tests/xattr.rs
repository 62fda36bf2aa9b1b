// SPDX-License-Identifier: GPL-2.0

//! The coherency attribute.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_xattr))]
mod tests {
    use crate::disk::xattr::{
        check_object,
        check_volume,
        Content,
        Stale,
        Value, //
    };

    #[test]
    fn layout_is_that_of_the_c_code() {
        let value = Value::object(0x0102_0304_0506_0708, Content::Unlisted, b"aux", b"");
        let expected = [
            1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, b'a', b'u', b'x',
        ];
        assert_eq!(value.as_bytes(), expected);
        assert_eq!(Value::volume(&[9, 8]).as_bytes(), [0, 0, 0, 0, 9, 8]);
        let full = Value::object(1, Content::Dirty, &[0xaa; 255], &[0xbb; 128]);
        assert_eq!(full.as_bytes().len(), 18 + 255 + 128);
    }

    #[test]
    fn another_version_is_stale() {
        for version in [&b"v1"[..], b"v2", b"v", b"v11", b""] {
            let found = Value::object(4096, Content::Unlisted, b"aux", version);
            for wanted in [&b"v1"[..], b"v2", b""] {
                let expected = match wanted {
                    _ if wanted == version => Ok(()),
                    _ if wanted.len() == version.len() => Err(Stale::Aux),
                    _ => Err(Stale::Length),
                };
                let checked = check_object(found.as_bytes(), 4096, b"aux", wanted);
                assert_eq!(checked, expected);
            }
        }
    }

    #[test]
    fn what_differs_is_stale() {
        let good = Value::object(4096, Content::Unlisted, b"aux", b"");
        assert_eq!(check_object(good.as_bytes(), 4096, b"aux", b""), Ok(()));
        let (good, length) = (good.as_bytes(), Err(Stale::Length));
        assert_eq!(check_object(good, 4097, b"aux", b""), Err(Stale::Size));
        assert_eq!(check_object(good, 4096, b"auy", b""), Err(Stale::Aux));
        assert_eq!(check_object(good, 4096, b"au", b""), length);
        assert_eq!(check_object(&good[..20], 4096, b"aux", b""), length);
        assert_eq!(check_object(b"", 4096, b"aux", b""), length);
        let dirty = Value::object(4096, Content::Dirty, b"aux", b"");
        let dirty = dirty.as_bytes();
        assert_eq!(check_object(dirty, 4096, b"aux", b""), Err(Stale::Dirty));
        let volume = Value::volume(b"x");
        assert_eq!(check_volume(volume.as_bytes(), b"x"), Ok(()));
        assert_eq!(check_volume(volume.as_bytes(), b"y"), Err(Stale::Aux));
        assert_eq!(check_volume(&[1, 0, 0, 0, 9], b"x"), Err(Stale::Type));
        assert_eq!(check_volume(volume.as_bytes(), b"xy"), length);
    }
}
