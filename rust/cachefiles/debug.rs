// SPDX-License-Identifier: GPL-2.0

//! Messages in the log. The `debug` command, and the module's parameter of that name, say whether
//! what the driver does is logged, too.

use crate::kernel_next::c_param::declare_uint_params;
use kernel::prelude::*;

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

/// Whether `kdebug!` logs. Errors and warnings are always logged.
pub(crate) fn enabled() -> bool {
    MASK.get() & KDEBUG != 0
}

/// The name that messages begin with. C has that, too, and scripts look for it.
pub(crate) const PREFIX: &CStr = c"CacheFiles";

/// Logs a message of a [`Level`](crate::kernel_next::log::Level).
macro_rules! cf_log {
    ($level:ident, $($arg:tt)*) => {
        crate::kernel_next::log::print(
            crate::kernel_next::log::Level::$level,
            $crate::debug::PREFIX,
            kernel::prelude::fmt!($($arg)*),
        )
    };
}

/// Logs an error.
macro_rules! cf_err {
    ($($arg:tt)*) => { cf_log!(Err, $($arg)*) };
}

/// Logs a warning.
macro_rules! cf_warn {
    ($($arg:tt)*) => { cf_log!(Warning, $($arg)*) };
}

/// Logs something of note.
macro_rules! cf_notice {
    ($($arg:tt)*) => { cf_log!(Notice, $($arg)*) };
}

/// Logs what happens.
macro_rules! cf_info {
    ($($arg:tt)*) => { cf_log!(Info, $($arg)*) };
}

/// Does something, such as to log an error that any user can cause, unless much was logged lately.
macro_rules! cf_limited {
    ($what:expr) => {
        if crate::kernel_next::log::is_allowed($crate::debug::PREFIX) {
            $what
        }
    };
}

/// Logs a message, if the daemon asked for that.
macro_rules! kdebug {
    ($($arg:tt)*) => {
        if $crate::debug::enabled() {
            cf_info!($($arg)*)
        }
    };
}
