// SPDX-License-Identifier: GPL-2.0

//! Messages in the kernel's log under another name than the module's.
//!
//! C header: [`include/linux/printk.h`](srctree/include/linux/printk.h)
//!
//! [`pr_err!`](kernel::pr_err) and the like begin with the name of the module. What has always
//! logged under another name goes on with that here.

use crate::bindings;
use kernel::{
    fmt,
    prelude::*,
    print::{
        call_printk,
        format_strings, //
    }, //
};

/// How urgent a message is (`KERN_ERR` and so on).
#[derive(Clone, Copy)]
pub(crate) enum Level {
    /// `KERN_ERR`.
    Err,
    /// `KERN_WARNING`.
    Warning,
    /// `KERN_NOTICE`.
    Notice,
    /// `KERN_INFO`.
    Info,
}

/// Logs a message after `prefix`, a colon and a space.
pub(crate) fn print(level: Level, prefix: &'static CStr, message: fmt::Arguments<'_>) {
    let format = match level {
        Level::Err => &format_strings::ERR,
        Level::Warning => &format_strings::WARNING,
        Level::Notice => &format_strings::NOTICE,
        Level::Info => &format_strings::INFO,
    };
    // SAFETY: The format is one of those that go with these arguments, and the prefix ends with a
    // NUL.
    unsafe { call_printk(format, prefix.to_bytes_with_nul(), message) };
}

/// Whether a message may be logged now: not if there were many lately, in all of the kernel. What
/// is left out is counted in the log, as that of `prefix`. For messages that anybody can cause.
///
/// Does not sleep.
pub(crate) fn is_allowed(prefix: &'static CStr) -> bool {
    // SAFETY: The name is terminated.
    unsafe { bindings::__printk_ratelimit(prefix.as_char_ptr()) != 0 }
}
