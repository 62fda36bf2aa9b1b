// SPDX-License-Identifier: GPL-2.0

//! Parameters of modules that a C file declares.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)
//!
//! A parameter that [`module!`](kernel::prelude::module) declares is set when the module is loaded.
//! One that can be changed later, by a file in sysfs, needs `module_param()`.

use kernel::prelude::*;

/// A module parameter of the type `uint`, which may change at any time.
///
/// # Invariants
///
/// The pointer is that of a variable of C code, which is there for as long as the module.
pub(crate) struct UintParam(*mut c_uint);

// SAFETY: By the invariant it is there for all, and accesses are those of a single word.
unsafe impl Sync for UintParam {}

impl UintParam {
    /// # Safety
    ///
    /// `variable` must be a variable of C code that is there for as long as the module, and that
    /// nobody else accesses but as a parameter.
    pub(crate) const unsafe fn new(variable: *mut c_uint) -> Self {
        // INVARIANT: As the caller guarantees.
        UintParam(variable)
    }

    /// What it is now.
    #[inline]
    pub(crate) fn get(&self) -> u32 {
        // SAFETY: By the invariant. Who sets it does it with a single access, as with C code; so
        // the access is volatile.
        unsafe { self.0.read_volatile() }
    }

    /// Sets it.
    #[inline]
    pub(crate) fn set(&self, value: u32) {
        // SAFETY: As above.
        unsafe { self.0.write_volatile(value) }
    }
}

/// Declares module parameters that a C file has. They are variables of the type `unsigned int`,
/// that nobody else looks at.
///
/// # Examples
///
/// In C, `unsigned int my_module_level; module_param_named(level, my_module_level, uint, 0644);`,
/// and in Rust:
///
/// ```ignore
/// kernel::declare_uint_params! {
///     /// How much is logged.
///     static LEVEL: my_module_level;
/// }
///
/// fn is_silent() -> bool {
///     LEVEL.get() == 0
/// }
/// ```
#[macro_export]
macro_rules! declare_uint_params {
    ($($(#[$attr:meta])* $pub:vis static $name:ident: $variable:ident;)*) => {$(
        $(#[$attr])*
        $pub static $name: $crate::kernel_next::c_param::UintParam =
            // SAFETY: It is a variable of the type that is wanted, or this does not compile. Nobody
            // else in Rust knows of it.
            unsafe {
                $crate::kernel_next::c_param::UintParam::new(&raw mut $crate::bindings::$variable)
            };
    )*};
}

pub(crate) use declare_uint_params;
