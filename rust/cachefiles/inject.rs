// SPDX-License-Identifier: GPL-2.0

//! Errors on request, in builds for tests (`CONFIG_CACHEFILES_ERROR_INJECTION`): see
//! `/proc/sys/cachefiles/error_injection` in `error_inject.c`. In other builds nothing is left of
//! this.
//!
//! Call each before an operation of the kind that it is named after. If it fails, the operation is
//! left out.

use kernel::prelude::*;

#[cfg(CONFIG_CACHEFILES_ERROR_INJECTION)]
crate::kernel_next::c_param::declare_uint_params! {
    static STATE: cachefiles_error_injection_state;
}

/// Which errors are asked for.
#[inline(always)]
fn state() -> u32 {
    #[cfg(CONFIG_CACHEFILES_ERROR_INJECTION)]
    return STATE.get();
    #[cfg(not(CONFIG_CACHEFILES_ERROR_INJECTION))]
    return 0;
}

/// Before something is read, looked up, linked or renamed: as in C, the last two do not fail with
/// `ENOSPC`.
#[inline(always)]
pub(crate) fn read() -> Result {
    match state() & 2 {
        0 => Ok(()),
        _ => Err(EIO),
    }
}

/// Before something is written or made.
#[inline(always)]
pub(crate) fn write() -> Result {
    match state() & 3 {
        0 => Ok(()),
        1 => Err(ENOSPC),
        _ => Err(EIO),
    }
}

/// Before something is removed.
#[inline(always)]
pub(crate) fn remove() -> Result {
    read()
}

/// The file in sysctl, for as long as this lives.
pub(crate) struct Control {
    #[cfg(CONFIG_CACHEFILES_ERROR_INJECTION)]
    _file: crate::kernel_next::error_injection::ErrorInjection,
}

impl Control {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Control {
            #[cfg(CONFIG_CACHEFILES_ERROR_INJECTION)]
            _file: crate::kernel_next::error_injection::ErrorInjection::register()?,
        })
    }
}
