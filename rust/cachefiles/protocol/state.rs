// SPDX-License-Identifier: GPL-2.0

//! What `read()` of the device says of a cache in classic mode.

use core::fmt::{
    self,
    Write, //
};

/// The longest line, in bytes: nine numbers of 64 bits, and their names.
const LINE_MAX: usize = 256;

/// The state of a cache.
pub(crate) struct State {
    /// Whether the daemon is to cull.
    pub(crate) culling: bool,
    /// The limits in files: when to run, cull and stop.
    pub(crate) files: [u64; 3],
    /// The same in blocks of the file system.
    pub(crate) blocks: [u64; 3],
    /// Files that went out of use since this was last told.
    pub(crate) files_released: u32,
    /// What they take up, in units of 512 bytes, unlike the limits.
    pub(crate) sectors_released: u64,
}

/// A line for the daemon, without a newline.
pub(crate) struct Line {
    buf: [u8; LINE_MAX],
    len: usize,
}

impl Line {
    pub(crate) fn new(state: &State) -> Self {
        let mut line = Line {
            buf: [0; LINE_MAX],
            len: 0,
        };
        let culling = u8::from(state.culling);
        let ([frun, fcull, fstop], [brun, bcull, bstop]) = (state.files, state.blocks);
        let (files, sectors) = (state.files_released, state.sectors_released);
        // All of it fits.
        let _ = write!(
            line,
            "cull={culling} frun={frun:x} fcull={fcull:x} fstop={fstop:x} \
             brun={brun:x} bcull={bcull:x} bstop={bstop:x} \
             freleased={files:x} breleased={sectors:x}",
        );
        line
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.len + part.len();
        self.buf
            .get_mut(self.len..end)
            .ok_or(fmt::Error)?
            .copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}
