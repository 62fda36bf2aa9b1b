// SPDX-License-Identifier: GPL-2.0

//! The `debug` command: what to tell the log about the daemon's mistakes and the driver's steps.

use kernel::sync::atomic::{
    ordering::Relaxed,
    Atomic, //
};

/// Steps are logged with this bit set; C has other bits for entering and leaving functions, which
/// are the function tracer's job.
pub(crate) const STEPS: u32 = 4;

static MASK: Atomic<u32> = Atomic::new(0);

/// Sets the mask, for all caches.
pub(crate) fn set_mask(mask: u32) {
    MASK.store(mask, Relaxed);
}

/// Whether steps are to be logged.
pub(crate) fn enabled() -> bool {
    MASK.load(Relaxed) & STEPS != 0
}

/// Logs a step, if the daemon asked for that.
macro_rules! step {
    ($($arg:tt)*) => {
        if $crate::debug::enabled() {
            kernel::pr_info!($($arg)*)
        }
    };
}
