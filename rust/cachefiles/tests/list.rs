// SPDX-License-Identifier: GPL-2.0

//! Lists of present blocks, as they are on the disk.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_list))]
mod tests {
    use super::super::support::buffer;
    use crate::disk::list::{
        attribute,
        decode,
        encode,
        open,
        open_record,
        record_len,
        room,
        seal_record,
        seal_runs,
        seal_token,
        set_record_len,
        token_of,
        Stored,
        RECORD_HEAD,
        RECORD_MAX,
        SCRATCH, //
    };
    use core::iter::once;

    /// Stands in for SHA-256: changes with each byte and its place.
    fn hash(data: &[u8]) -> [u8; 32] {
        let mut state = 0xcbf2_9ce4_8422_2325u64;
        for byte in data {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        core::array::from_fn(|i| (state >> (8 * (i % 8))) as u8 ^ i as u8)
    }

    /// What an attribute says that a file with this binding has.
    fn opened(attr: &[u8], binding: &[u8], check: impl FnOnce(Option<Stored<'_>>)) {
        let mut scratch = buffer(SCRATCH, || 0x55u8);
        attribute(&mut scratch)[..attr.len()].copy_from_slice(attr);
        check(open(&mut scratch, attr.len(), binding, hash));
    }

    fn runs(scratch: &mut [u8]) -> &[u8] {
        let (len, _) = encode([3..5, 100..300].into_iter(), room(scratch));
        seal_runs(scratch, len, b"aux", hash)
    }

    #[test]
    fn attribute_has_runs_or_a_token() {
        let mut scratch = buffer(SCRATCH, || 0u8);
        let attr = runs(&mut scratch);
        assert_eq!(token_of(attr), None);
        opened(attr, b"aux", |stored| {
            assert!(
                matches!(stored, Some(Stored::Runs(runs)) if decode(runs).eq([3..5, 100..300]))
            );
        });
        let mut scratch = buffer(SCRATCH, || 0u8);
        let attr = seal_token(&mut scratch, 0x1234, b"", hash);
        assert_eq!(attr.len(), 18);
        assert_eq!(token_of(attr), Some(0x1234));
        opened(attr, b"", |stored| {
            assert_eq!(stored, Some(Stored::File(0x1234)))
        });
    }

    #[test]
    fn attribute_that_is_not_as_it_was_says_nothing() {
        let mut scratch = buffer(SCRATCH, || 0u8);
        let attr = runs(&mut scratch);
        let none = |stored: Option<Stored<'_>>| assert_eq!(stored, None);
        for binding in [&b"auy"[..], b"au", b""] {
            opened(attr, binding, none);
        }
        for len in 0..attr.len() {
            opened(&attr[..len], b"aux", none);
        }
        let mut bad = [0; 32];
        let bad = &mut bad[..attr.len()];
        for at in 0..attr.len() {
            bad.copy_from_slice(attr);
            bad[at] ^= 1 << (at % 8);
            opened(bad, b"aux", none);
        }
        // One of the format before, which had no check.
        opened(&[1, 3, 2, 95, 0xc8, 1], b"aux", none);
    }

    #[test]
    fn record_is_one_of_a_place_in_a_file() {
        let mut buf = [0; 64];
        let (len, _) = encode(once(7..9), &mut buf[RECORD_HEAD..]);
        let record = &mut buf[..RECORD_HEAD + len];
        seal_record(record, 5, 4096, hash);
        assert_eq!(record_len(record), Some(record.len()));
        let mut good = [0; 64];
        let good = &mut good[..record.len()];
        for (token, offset) in [(5, 4095), (6, 4096), (5, 0)] {
            good.copy_from_slice(record);
            assert!(open_record(good, token, offset, hash).is_none());
        }
        good.copy_from_slice(record);
        let runs = open_record(good, 5, 4096, hash).unwrap();
        assert!(decode(runs).eq(once(7..9)));
    }

    #[test]
    fn record_has_a_length_that_fits() {
        let mut head = [0; RECORD_HEAD];
        set_record_len(&mut head, RECORD_MAX - RECORD_HEAD);
        assert_eq!(record_len(&head), Some(RECORD_MAX));
        set_record_len(&mut head, RECORD_MAX - RECORD_HEAD + 1);
        assert_eq!(record_len(&head), None);
        set_record_len(&mut head, 0);
        assert_eq!(record_len(&head[..RECORD_HEAD - 1]), None);
        head[RECORD_HEAD - 1] = 1;
        assert_eq!(record_len(&head), None);
        assert_eq!(record_len(&[]), None);
    }
}
