// SPDX-License-Identifier: GPL-2.0

//! The messages, number by number.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_msg))]
mod tests {
    use crate::protocol::{
        errno::Errno,
        msg::{
            Message,
            OpenKeys,
            MAX_SIZE, //
        }, //
    };

    /// Whether a message consists of these 32-bit numbers.
    fn is(bytes: &[u8], numbers: &[u32]) -> bool {
        let word = |at: usize| bytes.get(4 * at..4 * at + 4);
        let mut numbers = numbers.iter().enumerate();
        bytes.len() == 4 * numbers.len()
            && numbers.all(|(at, number)| word(at) == Some(&number.to_ne_bytes()[..]))
    }

    #[test]
    fn close_is_a_header() {
        let msg = Message::close(7, 9);
        assert!(is(msg.as_bytes(), &[7, 1, 16, 9]));
        assert_eq!(msg.as_bytes().len(), 16);
    }

    #[test]
    fn read_says_where_and_how_much() {
        let msg = Message::read(7, 9, 0x1122_3344_5566_7788, 4096);
        assert!(is(&msg.as_bytes()[..16], &[7, 2, 32, 9]));
        assert_eq!(
            msg.as_bytes()[16..24],
            0x1122_3344_5566_7788u64.to_ne_bytes()
        );
        assert_eq!(msg.as_bytes()[24..], 4096u64.to_ne_bytes());
    }

    #[test]
    fn open_has_both_keys() {
        let keys = OpenKeys::new(b"vol", b"key\0");
        let msg = keys.map(|keys| Message::open(7, 9, 3, keys));
        let bytes = msg.as_ref().map(|msg| msg.as_bytes()).unwrap_or_default();
        assert_eq!(bytes.len(), 40);
        assert!(is(&bytes[..32], &[7, 0, 40, 9, 4, 4, 3, 0]));
        assert_eq!(&bytes[32..], b"vol\0key\0");
    }

    #[test]
    fn the_longest_keys_fit() {
        let key = [b'k'; 256];
        let keys = OpenKeys::new(&key[..255], &key[..255]);
        let len = keys.map(|keys| Message::open(7, 9, 3, keys).as_bytes().len());
        assert_eq!(len, Ok(MAX_SIZE));
        assert_eq!(OpenKeys::new(&key, b"k").err(), Some(Errno::EINVAL));
        assert_eq!(OpenKeys::new(b"k", &key).err(), Some(Errno::EINVAL));
    }
}
