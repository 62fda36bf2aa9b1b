// SPDX-License-Identifier: GPL-2.0

//! Making holes of what is absent.
//!
//! The C implementation, which may use the directory next, takes for present what is data to the
//! file system. A block that is absent here may be that: it was stored, and then written again with
//! a write to the cache that failed, or was refused.

use super::Blocks;
use crate::{
    kernel_next::fs::kernel_file::{
        KernelFile,
        Seek, //
    },
    protocol::BLOCK_SIZE, //
};
use kernel::prelude::*;

/// Makes holes of the blocks of `file` that are not present in `map`, where they are data to the
/// file system. Nothing of the file is dirty. The caller has the cache's credentials, and no write
/// access to the file system. Sleeps.
///
/// # Errors
///
/// `EOPNOTSUPP` if the file system cannot punch holes; `EIO` if there is still data; the file
/// system's error. Then it is not known what the file holds for C.
pub(crate) fn punch_absent(file: &KernelFile, map: &Blocks) -> Result {
    let present = map.present();
    let blocks = present.blocks();
    let mut at = present.find(0, blocks, false);
    while at < blocks {
        let end = present.find(at, blocks, true);
        let mut data = next_data(file, at, blocks)?;
        if data < end {
            // CAST: Positions are those of files.
            file.punch_hole((at * BLOCK_SIZE) as i64..(end * BLOCK_SIZE) as i64)?;
            data = next_data(file, at, blocks)?;
            if data < end {
                // The file system's blocks are larger, and one has more than what is absent.
                return Err(EIO);
            }
        }
        // That block may be in another gap.
        at = present.find(data, blocks, false);
    }
    Ok(())
}

/// The first block from `from` on of which any part is data to the file system; `blocks` if there
/// is none before.
fn next_data(file: &KernelFile, from: u64, blocks: u64) -> Result<u64> {
    // CAST: Positions are those of files.
    match file.seek((from * BLOCK_SIZE) as i64, Seek::Data) {
        // CAST: Offsets are not negative.
        Ok(data) => Ok((data as u64 / BLOCK_SIZE).min(blocks)),
        Err(e) if e == ENXIO => Ok(blocks),
        Err(e) => Err(e),
    }
}
