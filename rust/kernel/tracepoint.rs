// SPDX-License-Identifier: GPL-2.0

// Copyright (C) 2024 Google LLC.

//! Logic for tracepoints.
//!
//! Tracepoints are defined in C; see `include/trace/events/`.
//! [`declare_trace!`](crate::declare_trace) declares the Rust function that calls one. If a
//! tracepoint takes nothing but numbers, [`declare_scalar_trace!`](crate::declare_scalar_trace)
//! makes that a function that is safe to call.

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

mod private {
    pub(crate) trait Sealed {}
}

/// A number that C may be given as an argument of a tracepoint, whatever its value: an integer or
/// a `bool`, and nothing that points to anything.
///
/// Used by [`declare_scalar_trace!`](crate::declare_scalar_trace).
pub(crate) trait Scalar: private::Sealed {}

macro_rules! impl_scalar {
    ($($t:ty),* $(,)?) => {$(
        impl private::Sealed for $t {}
        impl Scalar for $t {}
    )*};
}

impl_scalar!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, bool);

/// Can be called only for a [`Scalar`].
#[doc(hidden)]
pub(crate) const fn assert_scalar<T: Scalar>() {}

/// Declare the Rust entry point for a tracepoint that takes nothing but numbers.
///
/// As [`declare_trace!`](crate::declare_trace), but the function is safe to call: its arguments
/// have to be of types that are a [`Scalar`], and these have to be the types that the tracepoint
/// has in C. Anything else does not compile.
///
/// A tracepoint records its arguments, which are handed over by value. That an integer is not taken
/// for anything but a number is what the tracepoint's header in C has to see to: `TP_fast_assign()`
/// must neither make a pointer nor an index of an argument of this kind. Headers whose tracepoints
/// are declared with this macro say so.
///
/// # Examples
///
/// ```
/// use kernel::prelude::*;
///
/// mod trace {
///     use kernel::prelude::*;
///
///     kernel::declare_scalar_trace! {
///         /// The module was loaded.
///         pub(super) fn rust_sample_loaded(magic: c_int);
///     }
/// }
///
/// // While nobody traces, this is a branch that is not taken.
/// fn loaded() {
///     trace::rust_sample_loaded(42);
/// }
/// ```
#[macro_export]
macro_rules! declare_scalar_trace {
    ($($(#[$attr:meta])* $pub:vis fn $name:ident($($argname:ident : $argtyp:ty),* $(,)?);)*) => {$(
        $( #[$attr] )*
        #[inline(always)]
        $pub fn $name($($argname : $argtyp),*) {
            const {
                $( $crate::kernel_next::tracepoint::assert_scalar::<$argtyp>(); )*
            }

            $crate::declare_trace! {
                /// # Safety
                ///
                /// None of the arguments may be a pointer.
                unsafe fn $name($($argname : $argtyp),*);
            }

            // SAFETY: By the assertions above, all arguments are integers or booleans. The compiler
            // has checked that C wants the same types, so C is given valid values, by value, and a
            // tracepoint does nothing with a number but record it.
            unsafe { $name($($argname),*) }
        }
    )*}
}

pub(crate) use declare_scalar_trace;

#[kernel::prelude::kunit_tests(rust_kernel_tracepoint)]
mod tests {
    use super::*;
    use crate::bindings;
    use kernel::prelude::*;

    #[test]
    fn numbers_of_c_are_scalars() {
        assert_scalar::<c_char>();
        assert_scalar::<c_int>();
        assert_scalar::<c_uint>();
        assert_scalar::<c_long>();
        assert_scalar::<c_ulonglong>();
        assert_scalar::<bindings::loff_t>();
        assert_scalar::<bindings::gfp_t>();
    }
}
