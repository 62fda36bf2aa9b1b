// SPDX-License-Identifier: GPL-2.0

//! The `debug` command and the module's parameter of that name: whether the daemon's mistakes, and
//! what the driver does, are logged.

use crate::kernel_next::c_param::declare_uint_params;

/// Messages are logged with this bit set (`CACHEFILES_DEBUG_KDEBUG`); C has other bits for entering
/// and leaving functions, which are the function tracer's job.
pub(crate) const KDEBUG: u32 = 4;

declare_uint_params! {
    /// What is logged, for all caches.
    static MASK: cachefiles_debug;
}

/// Sets the mask, for all caches.
pub(crate) fn set_mask(mask: u32) {
    MASK.set(mask);
}

/// Whether messages are to be logged.
pub(crate) fn enabled() -> bool {
    MASK.get() & KDEBUG != 0
}

/// Logs a message, if the daemon asked for that.
macro_rules! kdebug {
    ($($arg:tt)*) => {
        if $crate::debug::enabled() {
            kernel::pr_info!($($arg)*)
        }
    };
}
