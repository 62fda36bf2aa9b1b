// SPDX-License-Identifier: GPL-2.0

//! What a daemon says of a cache before `bind`.

use crate::{
    kernel_next::security::SecurityId,
    plan::limits::Limits, //
};
use kernel::prelude::*;

/// The argument of a command, with a NUL at its end. File names need not be UTF-8.
pub(crate) struct Argument(KVec<u8>);

impl Argument {
    pub(crate) fn new(args: &[u8]) -> Result<Self> {
        let mut bytes = KVec::with_capacity(args.len() + 1, GFP_KERNEL)?;
        bytes.extend_from_slice(args, GFP_KERNEL)?;
        bytes.push(0, GFP_KERNEL)?;
        Ok(Argument(bytes))
    }

    pub(crate) fn as_c_str(&self) -> Result<&CStr> {
        // A command has no NUL in it.
        CStr::from_bytes_with_nul(&self.0).map_err(|_| EINVAL)
    }
}

/// What `bind` makes a cache of.
#[derive(Default)]
pub(crate) struct Config {
    pub(crate) limits: Limits,
    pub(crate) dir: Option<Argument>,
    pub(crate) tag: Option<Argument>,
    pub(crate) secid: Option<SecurityId>,
}
