// SPDX-License-Identifier: GPL-2.0

//! Errors on request, in builds for tests (`CONFIG_CACHEFILES_ERROR_INJECTION`): see
//! `/proc/sys/cachefiles/error_injection` in `error_inject.c`. In other builds nothing is left of
//! this.
//!
//! Each function is to be called before what it is named after, and fails in its place.

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

/// Something is read or looked up.
#[inline(always)]
pub(crate) fn read() -> Result {
    match state() & 2 {
        0 => Ok(()),
        _ => Err(EIO),
    }
}

/// Something is written or made.
#[inline(always)]
pub(crate) fn write() -> Result {
    match state() & 3 {
        0 => Ok(()),
        1 => Err(ENOSPC),
        _ => Err(EIO),
    }
}

/// Something is removed.
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
