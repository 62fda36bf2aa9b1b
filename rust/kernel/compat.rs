// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate of Linux 7.2 lacks, under the names that it has in 7.3.
//!
//! This and its counterpart in `Kbuild` are the only places that know of more than one kernel.

#[cfg(not(linux_7_2))]
pub(crate) use kernel::{
    error::code::{
        ENOBUFS,
        ENODATA,
        EOPNOTSUPP,
        ESTALE, //
    },
    module::{
        this_module,
        ModuleMetadata, //
    },
    sync::barrier::{
        smp_mb,
        Full, //
    }, //
};

#[cfg(linux_7_2)]
pub(crate) use self::linux_7_2::*;

#[cfg(linux_7_2)]
mod linux_7_2 {
    use crate::bindings;
    use core::num::NonZeroI32;
    pub(crate) use kernel::ModuleMetadata;
    use kernel::{
        error::Error,
        ThisModule, //
    };

    /// The `THIS_MODULE` of a module; there is only one that can be asked for.
    pub(crate) const fn this_module<M: ModuleMetadata>() -> &'static ThisModule {
        &crate::THIS_MODULE
    }

    /// What [`smp_mb`] is to order: all accesses.
    pub(crate) struct Full;

    /// A full memory barrier between CPUs.
    #[inline(always)]
    pub(crate) fn smp_mb(_: Full) {
        kernel::sync::barrier::smp_mb();
    }

    const fn error(code: u32) -> Error {
        // CAST: Error numbers are small.
        match NonZeroI32::new(-(code as i32)) {
            // SAFETY: An `Error` is a negative error number in a `NonZeroI32`, and nothing else.
            // That crate has no constructor that could be used in a constant.
            Some(errno) => unsafe { core::mem::transmute::<NonZeroI32, Error>(errno) },
            None => panic!("0 is not an error number"),
        }
    }

    pub(crate) const ENOBUFS: Error = error(bindings::ENOBUFS);
    pub(crate) const ENODATA: Error = error(bindings::ENODATA);
    pub(crate) const EOPNOTSUPP: Error = error(bindings::EOPNOTSUPP);
    pub(crate) const ESTALE: Error = error(bindings::ESTALE);
}
