// SPDX-License-Identifier: GPL-2.0

//! The file in sysctl that has errors injected into CacheFiles. Only in builds for tests.

use crate::bindings;
use kernel::{
    error::to_result,
    prelude::*, //
};

/// The file, for as long as this lives.
///
/// # Invariants
///
/// It is registered, and this value's to unregister.
pub(crate) struct ErrorInjection(());

impl ErrorInjection {
    /// # Errors
    ///
    /// `ENOMEM`.
    // Inlined, because the function that is called is in the driver.
    #[inline(always)]
    pub(crate) fn register() -> Result<Self> {
        // SAFETY: The function is called once: there is one module, which does it when it is
        // loaded.
        to_result(unsafe { bindings::cachefiles_register_error_injection() })?;
        // INVARIANT: It was registered.
        Ok(ErrorInjection(()))
    }
}

impl Drop for ErrorInjection {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: By the invariant.
        unsafe { bindings::cachefiles_unregister_error_injection() };
    }
}
