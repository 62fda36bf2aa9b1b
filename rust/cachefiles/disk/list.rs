// SPDX-License-Identifier: GPL-2.0

//! The list of the blocks of a file that are present, as it is in an attribute of the file.
//!
//! A version, then the runs of present blocks in order, each as two numbers: how many blocks to
//! skip, and how many are present.

use core::{
    iter::from_fn,
    ops::Range, //
};

/// The first byte of a list of present blocks.
const LIST_VERSION: u8 = 1;

/// Bytes that a list of present blocks may have: what ext4 has room for beside the inode.
pub(crate) const LIST_MAX: usize = 2048;

/// Bytes of a list that says of no block that it is present.
pub(crate) const LIST_MIN: usize = 1;

struct Encoder<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl Encoder<'_> {
    fn put(&mut self, byte: u8) -> Option<()> {
        *self.buf.get_mut(self.len)? = byte;
        self.len += 1;
        Some(())
    }

    /// Seven bits a byte, the lowest first; the highest bit says that there is more.
    fn put_number(&mut self, mut number: u64) -> Option<()> {
        while number >= 0x80 {
            self.put(number as u8 | 0x80)?;
            number >>= 7;
        }
        self.put(number as u8)
    }
}

/// Writes the list of `runs`, which are in order, to `buf`, as far as it fits. Returns how many
/// bytes that is.
pub(crate) fn encode(runs: impl Iterator<Item = Range<u64>>, buf: &mut [u8]) -> usize {
    let mut list = Encoder { buf, len: 0 };
    let mut at = 0;
    if list.put(LIST_VERSION).is_none() {
        return 0;
    }
    for run in runs {
        let before = list.len;
        let put = list
            .put_number(run.start - at)
            .and_then(|()| list.put_number(run.end - run.start));
        if put.is_none() {
            // A list that says too little only has more fetched again.
            return before;
        }
        at = run.end;
    }
    list.len
}

/// Reads a list. Ends where it makes no sense any more.
pub(crate) fn decode(list: &[u8]) -> impl Iterator<Item = Range<u64>> + '_ {
    let mut bytes = list.iter().copied();
    let known = bytes.next() == Some(LIST_VERSION);
    let mut bytes = bytes.take_while(move |_| known);
    let mut number = move || {
        let mut number = 0u64;
        for shift in (0..u64::BITS - 7).step_by(7) {
            let byte = bytes.next()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    };
    let mut at = 0u64;
    from_fn(move || {
        let start = at.checked_add(number()?)?;
        let end = start.checked_add(number()?)?;
        at = end;
        (start < end).then_some(start..end)
    })
}
