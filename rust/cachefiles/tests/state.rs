// SPDX-License-Identifier: GPL-2.0

//! The state line of a cache.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_state))]
mod tests {
    use crate::protocol::state::{
        Line,
        State, //
    };

    #[test]
    fn line_is_that_of_c() {
        let state = State {
            culling: true,
            files: [0x70, 0x50, 0x10],
            blocks: [0x1c1, 0x141, 0x40],
            files_released: 0xa,
            sectors_released: 0x2008,
        };
        let line: &[u8] = b"cull=1 frun=70 fcull=50 fstop=10 brun=1c1 bcull=141 bstop=40 \
                            freleased=a breleased=2008";
        assert_eq!(Line::new(&state).as_bytes(), line);
    }

    #[test]
    fn longest_line_fits() {
        let most = [u64::MAX; 3];
        let state = State {
            culling: false,
            files: most,
            blocks: most,
            files_released: u32::MAX,
            sectors_released: u64::MAX,
        };
        let line = Line::new(&state);
        assert!(line
            .as_bytes()
            .starts_with(b"cull=0 frun=ffffffffffffffff "));
        assert!(line.as_bytes().ends_with(b" breleased=ffffffffffffffff"));
    }
}
