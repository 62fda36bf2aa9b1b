// SPDX-License-Identifier: GPL-2.0

// Copyright (C) 2024 Google LLC.

//! Logic for tracepoints.
//!
//! Tracepoints are defined in C; see `include/trace/events/`.
//! [`declare_trace!`](crate::declare_trace) declares the Rust function that calls one. If the
//! header of a tracepoint says that any arguments will do,
//! [`declare_safe_trace!`](crate::declare_safe_trace) makes that a function that is safe to call.

/// Declare the Rust entry point for a tracepoint.
///
/// This macro generates an unsafe function that calls into C, and its safety requirements will be
/// whatever the relevant C code requires. To document these safety requirements, you may add
/// doc-comments when invoking the macro.
#[macro_export]
macro_rules! declare_trace {
    ($($(#[$attr:meta])* $pub:vis unsafe fn $name:ident($($argname:ident : $argtyp:ty),* $(,)?);)*) => {$(
        $( #[$attr] )*
        #[inline(always)]
        // The names of arguments are all that is expanded there.
        #[allow(clippy::macro_metavars_in_unsafe)]
        $pub unsafe fn $name($($argname : $argtyp),*) {
            #[cfg(CONFIG_TRACEPOINTS)]
            {
                // SAFETY: It's always okay to query the static key for a tracepoint.
                let should_trace = unsafe {
                    ::kernel::macros::paste! {
                        ::kernel::jump_label::static_branch_unlikely!(
                            $crate::bindings::[< __tracepoint_ $name >],
                            $crate::bindings::tracepoint,
                            key
                        )
                    }
                };

                if should_trace {
                    ::kernel::macros::paste! {
                        // SAFETY: The caller guarantees that it is okay to call this tracepoint.
                        unsafe { $crate::bindings::[< rust_do_trace_ $name >]($($argname),*) };
                    }
                }
            }

            #[cfg(not(CONFIG_TRACEPOINTS))]
            {
                // If tracepoints are disabled, insert a trivial use of each argument
                // to avoid unused argument warnings.
                $( let _unused = $argname; )*
            }
        }
    )*}
}

/// What a tracepoint may be given: a number, of any value.
///
/// Used by [`declare_safe_trace!`](crate::declare_safe_trace).
pub(crate) trait TraceArg {
    /// What C is given.
    type Raw;

    /// Converts it to what C is given. That is valid for as long as this is.
    fn into_raw(self) -> Self::Raw;
}

macro_rules! impl_trace_arg {
    ($($t:ty),* $(,)?) => {$(
        impl TraceArg for $t {
            type Raw = Self;

            #[inline(always)]
            fn into_raw(self) -> Self {
                self
            }
        }
    )*};
}

impl_trace_arg!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, bool);

/// Declare the Rust entry point for a tracepoint that is safe to call.
///
/// As [`declare_trace!`](crate::declare_trace), but the function is safe to call. Its arguments
/// have to be a [`TraceArg`] each, and what they are converted to has to be of the types that the
/// tracepoint has in C. Anything else does not compile.
///
/// What a tracepoint does with its arguments is up to `TP_fast_assign()` in its header: nothing
/// else knows whether it takes a number for an index, say. So the header has to say that it does
/// not, with `RUST_SAFE_TRACE()` of `include/linux/rust_trace.h`; a tracepoint without that does
/// not compile here.
///
/// # Examples
///
/// In the header, `RUST_SAFE_TRACE(my_module_loaded);`, and in Rust:
///
/// ```ignore
/// mod trace {
///     use kernel::prelude::*;
///
///     kernel::declare_safe_trace! {
///         /// The module was loaded.
///         pub(super) fn my_module_loaded(magic: c_int);
///     }
/// }
///
/// // While nobody traces, this is a branch that is not taken.
/// fn loaded() {
///     trace::my_module_loaded(42);
/// }
/// ```
#[macro_export]
macro_rules! declare_safe_trace {
    ($($(#[$attr:meta])* $pub:vis fn $name:ident($($argname:ident : $argtyp:ty),* $(,)?);)*) => {$(
        $( #[$attr] )*
        #[inline(always)]
        $pub fn $name($($argname : $argtyp),*) {
            ::kernel::macros::paste! {
                // Does not compile if the header does not say that any arguments will do.
                const _: u32 = $crate::bindings::[< RUST_SAFE_TRACE_ $name >];
            }

            $crate::declare_trace! {
                /// # Safety
                ///
                /// What the header of the tracepoint says.
                unsafe fn $name($(
                    $argname : <$argtyp as $crate::kernel_next::tracepoint::TraceArg>::Raw
                ),*);
            }

            // SAFETY: By `RUST_SAFE_TRACE()` the tracepoint may be called with any numbers. The
            // compiler has checked that C wants the same types.
            unsafe {
                $name($($crate::kernel_next::tracepoint::TraceArg::into_raw($argname)),*)
            }
        }
    )*}
}

pub(crate) use declare_safe_trace;

#[kernel::prelude::kunit_tests(rust_kernel_tracepoint)]
mod tests {
    use super::*;
    use crate::bindings;
    use kernel::prelude::*;

    #[test]
    fn numbers_of_c_are_arguments() {
        fn same<T: TraceArg<Raw = T>>() {}
        same::<c_char>();
        same::<c_int>();
        same::<c_uint>();
        same::<c_long>();
        same::<c_ulonglong>();
        same::<bindings::loff_t>();
        same::<bindings::gfp_t>();
    }
}
