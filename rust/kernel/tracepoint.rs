// SPDX-License-Identifier: GPL-2.0

// Copyright (C) 2024 Google LLC.

//! Logic for tracepoints.
//!
//! Tracepoints are defined in C; see `include/trace/events/`.
//! [`declare_trace!`](crate::declare_trace) declares the Rust function that calls one. If the
//! header of a tracepoint says that any arguments will do,
//! [`declare_safe_trace!`](crate::declare_safe_trace) makes that a function that is safe to call.

use kernel::prelude::*;

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
        // The names of arguments are all that is expanded there. C says how many there are.
        #[allow(clippy::macro_metavars_in_unsafe, clippy::too_many_arguments)]
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

/// An argument that may be a null pointer (`RUST_TRACE_NULL()`).
pub(crate) const NULL: u32 = 1;
/// An argument that may be an error pointer (`RUST_TRACE_ERR()`).
pub(crate) const ERR: u32 = 2;
/// An argument that may be a negative dentry (`RUST_TRACE_NEGATIVE()`).
pub(crate) const NEGATIVE: u32 = 4;

/// What a tracepoint may be given: a number, of any value, or a pointer.
///
/// Used by [`declare_safe_trace!`](crate::declare_safe_trace).
///
/// # Safety
///
/// What [`Self::into_raw`] returns has to be a number, or a pointer to a structure of C that is
/// valid for as long as `self` is. It is not null, no error pointer, and no negative dentry, unless
/// [`Self::MAY_BE`] says so.
pub(crate) unsafe trait TraceArg {
    /// What C is given.
    type Raw;

    /// What a pointer may be besides valid: [`NULL`], [`ERR`], [`NEGATIVE`].
    const MAY_BE: u32 = 0;

    /// Converts it to what C is given. That is valid for as long as this is.
    fn into_raw(self) -> Self::Raw;
}

macro_rules! impl_trace_arg {
    ($($t:ty),* $(,)?) => {$(
        // SAFETY: It is a number.
        unsafe impl TraceArg for $t {
            type Raw = Self;

            #[inline(always)]
            fn into_raw(self) -> Self {
                self
            }
        }
    )*};
}

impl_trace_arg!(u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, bool);

/// A structure of C that tracepoints look into.
///
/// # Safety
///
/// What [`Self::as_raw`] returns has to be valid for as long as `self` is, for reading what C code
/// reads that only records it. If it is a dentry that may be negative, [`Self::MAY_BE`] has to say
/// so.
pub(crate) unsafe trait Traced {
    /// The structure.
    type Raw;

    /// [`NEGATIVE`], or nothing.
    const MAY_BE: u32 = 0;

    /// Where the structure is.
    fn as_raw(&self) -> *mut Self::Raw;
}

// SAFETY: It is valid for as long as the reference is, as the implementation of `Traced` says.
unsafe impl<T: Traced> TraceArg for &T {
    type Raw = *mut T::Raw;

    const MAY_BE: u32 = T::MAY_BE;

    #[inline(always)]
    fn into_raw(self) -> *mut T::Raw {
        self.as_raw()
    }
}

// SAFETY: As above, or null, which is said.
unsafe impl<T: Traced> TraceArg for Option<&T> {
    type Raw = *mut T::Raw;

    const MAY_BE: u32 = T::MAY_BE | NULL;

    #[inline(always)]
    fn into_raw(self) -> *mut T::Raw {
        self.map_or(core::ptr::null_mut(), Traced::as_raw)
    }
}

// SAFETY: As above, or an error pointer, which is said.
unsafe impl<T: Traced> TraceArg for Result<&T> {
    type Raw = *mut T::Raw;

    const MAY_BE: u32 = T::MAY_BE | ERR;

    #[inline(always)]
    fn into_raw(self) -> *mut T::Raw {
        // CAST: What `ERR_PTR()` does with an error number.
        self.map_or_else(
            |e| core::ptr::without_provenance_mut(e.to_errno() as usize),
            Traced::as_raw,
        )
    }
}

/// Whether a tracepoint, whose header says `may_be` of its arguments, takes arguments that are what
/// `args` says.
// Constants without a name do not count as users.
#[allow(dead_code)]
pub(crate) const fn allows(may_be: u32, args: &[u32]) -> bool {
    let mut i = 0;
    while i < args.len() {
        // What is said has no room for more.
        let of_this = if i < 8 { may_be >> (4 * i) } else { 0 };
        if args[i] & !of_this != 0 {
            return false;
        }
        i += 1;
    }
    true
}

/// Declare an enumeration of C that tracepoints take.
///
/// The values are those that C has.
///
/// # Examples
///
/// ```ignore
/// kernel::declare_trace_enum! {
///     /// Why a request was ended, `enum my_module_why`.
///     pub(crate) enum Why: my_module_why {
///         Done = my_module_done,
///         Failed = my_module_failed,
///     }
/// }
/// ```
#[macro_export]
macro_rules! declare_trace_enum {
    ($(
        $(#[$attr:meta])*
        $pub:vis enum $name:ident: $c:ident {
            $($(#[$value_attr:meta])* $variant:ident = $value:ident),* $(,)?
        }
    )*) => {$(
        ::kernel::macros::paste! {
            $(#[$attr])*
            #[derive(Clone, Copy)]
            #[repr(u32)]
            $pub enum $name {
                $($(#[$value_attr])* $variant = $crate::bindings::[< $c _ $value >]),*
            }

            // SAFETY: It is a number.
            unsafe impl $crate::kernel_next::tracepoint::TraceArg for $name {
                type Raw = $crate::bindings::$c;

                #[inline(always)]
                fn into_raw(self) -> Self::Raw {
                    self as Self::Raw
                }
            }
        }
    )*};
}

/// Declare the Rust entry point for a tracepoint that is safe to call.
///
/// As [`declare_trace!`](crate::declare_trace), but the function is safe to call. Its arguments
/// have to be a [`TraceArg`] each: numbers, [enumerations](crate::declare_trace_enum), references
/// to what is [`Traced`], which may be optional, or a result. What they are converted to has to be
/// of the types that the tracepoint has in C. Anything else does not compile.
///
/// What a tracepoint does with its arguments is up to `TP_fast_assign()` in its header: nothing
/// else knows whether it takes a number for an index, say, or looks into what may be null. So the
/// header has to say that it does not, with `RUST_SAFE_TRACE()` or `RUST_SAFE_TRACE_OF()` of
/// `include/linux/rust_trace.h`; a tracepoint without that does not compile here.
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
        #[allow(clippy::too_many_arguments)]
        $pub fn $name($($argname : $argtyp),*) {
            ::kernel::macros::paste! {
                // Does not compile if the header does not say that such arguments will do.
                const _: () = assert!($crate::kernel_next::tracepoint::allows(
                    $crate::bindings::[< RUST_SAFE_TRACE_ $name >],
                    &[$(<$argtyp as $crate::kernel_next::tracepoint::TraceArg>::MAY_BE),*],
                ));
            }

            $crate::declare_trace! {
                /// # Safety
                ///
                /// What the header of the tracepoint says.
                unsafe fn $name($(
                    $argname : <$argtyp as $crate::kernel_next::tracepoint::TraceArg>::Raw
                ),*);
            }

            // SAFETY: By `RUST_SAFE_TRACE()` the tracepoint may be called with any numbers, and
            // with pointers that are valid during the call. What else a pointer may be was checked
            // above. The compiler has checked that C wants the same types.
            unsafe {
                $name($($crate::kernel_next::tracepoint::TraceArg::into_raw($argname)),*)
            }
        }
    )*}
}

pub(crate) use {
    declare_safe_trace,
    declare_trace,
    declare_trace_enum, //
};

#[kernel::prelude::kunit_tests(rust_kernel_tracepoint)]
mod tests {
    use super::*;
    use crate::bindings;

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
    struct Thing(core::cell::UnsafeCell<u32>);

    // SAFETY: It is a number, and `self` has it.
    unsafe impl Traced for Thing {
        type Raw = u32;

        const MAY_BE: u32 = NEGATIVE;

        fn as_raw(&self) -> *mut u32 {
            self.0.get()
        }
    }

    #[test]
    fn pointers_are_what_they_say() {
        fn may_be<T: TraceArg<Raw = *mut u32>>(_: &T) -> u32 {
            T::MAY_BE
        }

        let thing = Thing(7.into());
        assert_eq!(may_be(&&thing), NEGATIVE);
        assert_eq!((&thing).into_raw(), thing.0.get());
        let (some, none) = (Some(&thing), None::<&Thing>);
        assert_eq!(may_be(&some), NEGATIVE | NULL);
        assert_eq!(some.into_raw(), thing.0.get());
        assert!(none.into_raw().is_null());
        let (ok, err) = (Ok::<_, Error>(&thing), Err::<&Thing, _>(ENOENT));
        assert_eq!(may_be(&ok), NEGATIVE | ERR);
        assert_eq!(ok.into_raw(), thing.0.get());
        assert_eq!(kernel::error::from_err_ptr(err.into_raw()), Err(ENOENT));
    }

    #[test]
    fn what_the_header_does_not_say_is_refused() {
        assert!(allows(0, &[]) && allows(0, &[0; 9]));
        assert!(allows(0x1, &[NULL, 0]) && allows(0x601, &[NULL, 0, ERR | NEGATIVE]));
        assert!(!allows(0, &[NULL]) && !allows(0x1, &[0, NULL]) && !allows(0x10, &[NULL]));
        assert!(!allows(0x601, &[NULL, 0, NULL]) && !allows(0x2, &[ERR | NEGATIVE]));
        assert!(allows(0x1000_0000, &[0, 0, 0, 0, 0, 0, 0, NULL]));
        assert!(!allows(u32::MAX, &[0, 0, 0, 0, 0, 0, 0, 0, NULL]));
    }
}
