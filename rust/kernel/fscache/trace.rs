// SPDX-License-Identifier: GPL-2.0

//! What the tracepoints of CacheFiles show of objects and volumes.
//!
//! C header: [`include/linux/cachefiles_trace.h`](srctree/include/linux/cachefiles_trace.h)

use super::Volume;
use crate::{
    bindings,
    kernel_next::tracepoint::{
        declare_trace,
        TraceArg,
        Traced, //
    }, //
};
use core::marker::PhantomData;
use kernel::prelude::*;

/// An object (`struct cachefiles_object`), of which only the number is shown.
///
/// # Invariants
///
/// The pointer to the cookie is null.
#[repr(transparent)]
pub(crate) struct TraceObject(bindings::cachefiles_object);

// SAFETY: By the invariant there is nothing in it but a number.
unsafe impl Send for TraceObject {}

// SAFETY: As above; it does not change.
unsafe impl Sync for TraceObject {}

// SAFETY: The structure is in `self`, and C only reads it.
unsafe impl Traced for TraceObject {
    type Raw = bindings::cachefiles_object;

    #[inline(always)]
    fn as_raw(&self) -> *mut Self::Raw {
        (&raw const self.0).cast_mut()
    }
}

impl TraceObject {
    /// The object of the cookie with this number.
    #[inline]
    pub(crate) fn new(debug_id: u32) -> Self {
        // INVARIANT: The pointer is null.
        TraceObject(bindings::cachefiles_object {
            cookie: core::ptr::null_mut(),
            // CAST: All bits of it: it is shown as an unsigned number.
            debug_id: debug_id as c_int,
        })
    }

    /// The number of the object's cookie.
    #[inline]
    pub(crate) fn debug_id(&self) -> u32 {
        // CAST: As above.
        self.0.debug_id as u32
    }
}

/// A volume (`struct cachefiles_volume`).
///
/// # Invariants
///
/// The pointer is that of a volume that is valid for `'a`.
pub(crate) struct TraceVolume<'a>(bindings::cachefiles_volume, PhantomData<&'a Volume>);

// SAFETY: The structure is in `self`, and C only reads it. By the invariant so is what it points
// to.
unsafe impl Traced for TraceVolume<'_> {
    type Raw = bindings::cachefiles_volume;

    #[inline(always)]
    fn as_raw(&self) -> *mut Self::Raw {
        (&raw const self.0).cast_mut()
    }
}

impl<'a> From<&'a Volume> for TraceVolume<'a> {
    fn from(volume: &'a Volume) -> Self {
        // INVARIANT: The reference is valid for `'a`.
        TraceVolume(
            bindings::cachefiles_volume {
                vcookie: volume.as_ptr(),
            },
            PhantomData,
        )
    }
}

declare_trace! {
    /// # Safety
    ///
    /// `obj` and its cookie have to be valid, and `disk_aux` has to be null or point to 8 bytes.
    /// The tracepoint takes the cookie's `inline_aux` for the auxiliary data, whatever its length.
    unsafe fn cachefiles_coherency(
        obj: *mut bindings::cachefiles_object,
        ino: bindings::ino_t,
        disk_aux: *const c_void,
        content: bindings::cachefiles_content,
        why: bindings::cachefiles_coherency_trace,
    );
}

/// How much of auxiliary data is shown.
const SHOWN: usize = 8;

/// The beginning of auxiliary data, with zeros behind it if it is shorter. Aligned as C wants it.
#[repr(C, align(8))]
struct AuxHead([u8; SHOWN]);

impl AuxHead {
    fn new(aux: &[u8]) -> Self {
        let mut head = [0; SHOWN];
        for (to, from) in head.iter_mut().zip(aux) {
            *to = *from;
        }
        AuxHead(head)
    }
}

/// Traces that the attribute of a file was compared with what the network file system says, or was
/// written. `ino`: the number of the file's inode. `aux`: the auxiliary data of the object, and
/// `disk_aux`: that of the attribute, if there is any; of each the first 8 bytes are shown.
///
/// C shows the address of data that is longer than that.
// Generic, so that it is compiled where it is called: the tracepoint is the driver's. Not inlined,
// because of its stack.
#[inline(never)]
pub(crate) fn coherency(
    debug_id: u32,
    ino: bindings::ino_t,
    aux: &[u8],
    disk_aux: Option<&[u8]>,
    content: u8,
    why: impl TraceArg<Raw = bindings::cachefiles_coherency_trace>,
) {
    let mut cookie = bindings::fscache_cookie {
        debug_id,
        // CAST: A small constant.
        aux_len: SHOWN as u8,
        ..Default::default()
    };
    let head = u64::from_ne_bytes(AuxHead::new(aux).0);
    // SAFETY: The union has 8 bytes, or a pointer, and is this function's own.
    unsafe {
        core::ptr::addr_of_mut!(cookie.__bindgen_anon_2)
            .cast::<u64>()
            .write_unaligned(head)
    };
    let mut object = bindings::cachefiles_object {
        cookie: &mut cookie,
        // CAST: All bits of it: it is shown as an unsigned number.
        debug_id: debug_id as c_int,
    };
    let disk_aux = disk_aux.map(AuxHead::new);
    let disk_aux = disk_aux
        .as_ref()
        .map_or(core::ptr::null(), |head| head.0.as_ptr());
    // SAFETY: Both structures, and the bytes, are there until this returns.
    unsafe {
        cachefiles_coherency(
            &mut object,
            ino,
            disk_aux.cast(),
            content.into(),
            why.into_raw(),
        )
    };
}
