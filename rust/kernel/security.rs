// SPDX-License-Identifier: GPL-2.0

//! Linux Security Modules (LSM).
//!
//! C header: [`include/linux/security.h`](srctree/include/linux/security.h).

use crate::bindings;
use kernel::{
    error::{
        to_result,
        Result, //
    },
    prelude::*, //
};

/// A security context, as the security modules number it.
///
/// # Examples
///
/// ```
/// use kernel::security::SecurityId;
///
/// // Where there is no such context, or no security module, that is an error.
/// let _ = SecurityId::from_context(c"system_u:system_r:cachefiles_kernel_t:s0");
/// ```
///
/// # Invariants
///
/// Not 0, which stands for no context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SecurityId(u32);

impl SecurityId {
    /// Looks a security context up by its name.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the kernel has no security modules; [`EINVAL`] if the name is longer than
    /// any can be; [`ENOENT`] if no module knows it, or what the module says.
    pub(crate) fn from_context(context: &CStr) -> Result<Self> {
        let mut secid = 0;
        let len = u32::try_from(context.to_bytes().len()).map_err(|_| EINVAL)?;
        // SAFETY: The context is valid for reading `len` bytes, and terminated: some modules go by
        // that. `secid` is valid for writing.
        to_result(unsafe {
            bindings::security_secctx_to_secid(context.as_char_ptr(), len, &mut secid)
        })?;
        // Not all modules have an error for what they do not know.
        if secid == 0 {
            return Err(ENOENT);
        }
        // INVARIANT: Just checked.
        Ok(Self(secid))
    }

    /// Returns the number.
    #[inline]
    pub(crate) fn as_raw(self) -> u32 {
        self.0
    }
}

#[kunit_tests(rust_security)]
mod tests {
    use super::*;
    use crate::kernel_next::compat::EOPNOTSUPP;

    #[test]
    fn contexts_that_nobody_knows_are_refused() {
        let error = SecurityId::from_context(c"no_such_context_u:r:t").err();
        // Without security modules, by one that has contexts, and with none that has.
        assert!([EOPNOTSUPP, EINVAL, ENOENT].map(Some).contains(&error));
    }
}
