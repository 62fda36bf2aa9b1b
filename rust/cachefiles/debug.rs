// SPDX-License-Identifier: GPL-2.0

//! The `debug` command: whether the daemon's mistakes, and what the driver does, are logged.

use kernel::sync::atomic::{
    ordering::Relaxed,
    Atomic, //
};

/// Messages are logged with this bit set (`CACHEFILES_DEBUG_KDEBUG`); C has other bits for entering
/// and leaving functions, which are the function tracer's job.
pub(crate) const KDEBUG: u32 = 4;

static MASK: Atomic<u32> = Atomic::new(0);

/// Sets the mask, for all caches.
pub(crate) fn set_mask(mask: u32) {
    MASK.store(mask, Relaxed);
}

/// Whether messages are to be logged.
pub(crate) fn enabled() -> bool {
    MASK.load(Relaxed) & KDEBUG != 0
}

/// Logs a message, if the daemon asked for that.
macro_rules! kdebug {
    ($($arg:tt)*) => {
        if $crate::debug::enabled() {
            kernel::pr_info!($($arg)*)
        }
    };
}
