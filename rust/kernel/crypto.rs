// SPDX-License-Identifier: GPL-2.0

//! Cryptographic hash functions.
//!
//! C header: [`include/crypto/sha2.h`](srctree/include/crypto/sha2.h)

use crate::bindings;

/// Returns the SHA-256 digest of `data`.
///
/// It may be called from any context.
///
/// # Examples
///
/// ```
/// use kernel::crypto::sha256;
///
/// let digest = sha256(b"abc");
/// assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
/// ```
#[inline]
#[must_use]
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    // SAFETY: `data` is valid for reading `data.len()` bytes, and `digest` for writing the 32 bytes
    // of a digest.
    unsafe { bindings::sha256(data.as_ptr(), data.len(), digest.as_mut_ptr()) };
    digest
}

#[kernel::prelude::kunit_tests(rust_sha256)]
mod tests {
    use super::*;

    // The vectors of FIPS 180-4 and of its examples.
    const EMPTY: &[u8; 64] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const ABC: &[u8; 64] = b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const TWO_BLOCKS: &[u8; 64] =
        b"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
    const MILLION_A: &[u8; 64] =
        b"cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

    fn is(digest: [u8; 32], hex: &[u8; 64]) -> bool {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        (0..32).all(|i| {
            let byte = digest[i];
            [digit(byte >> 4), digit(byte & 15)] == [hex[2 * i], hex[2 * i + 1]]
        })
    }

    #[test]
    fn sha256_of_known_messages() {
        assert!(is(sha256(b""), EMPTY));
        assert!(is(sha256(b"abc"), ABC));
        assert!(is(
            sha256(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            TWO_BLOCKS
        ));
    }

    #[test]
    fn sha256_of_many_blocks() -> kernel::error::Result {
        let message =
            kernel::alloc::KVVec::from_elem(b'a', 1_000_000, kernel::alloc::flags::GFP_KERNEL)?;
        assert!(is(sha256(&message), MILLION_A));
        // A byte more or less is another message.
        assert!(!is(sha256(&message[1..]), MILLION_A));
        Ok(())
    }
}
