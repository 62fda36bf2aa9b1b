// SPDX-License-Identifier: GPL-2.0

//! Files without an inode of their own.
//!
//! C header: [`include/linux/anon_inodes.h`](srctree/include/linux/anon_inodes.h)

use crate::{
    bindings,
    kernel_next::compat::{
        this_module,
        ModuleMetadata, //
    }, //
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        VTABLE_DEFAULT_ERROR, //
    },
    fs::{
        File,
        Kiocb, //
    },
    iov::IovIterSource,
    prelude::*,
    sync::aref::ARef,
    types::ForeignOwnable, //
};

/// The file can be written at an offset.
pub(crate) const FMODE_PWRITE: u32 = bindings::FMODE_PWRITE;
/// The file can be sought.
pub(crate) const FMODE_LSEEK: u32 = bindings::FMODE_LSEEK;

/// Operations of a file that [`getfile`] makes.
#[vtable]
pub(crate) trait AnonFile: Sized + 'static {
    /// What the file owns.
    type Data: ForeignOwnable + Send + Sync;
    /// The module that the file keeps loaded.
    type OwnerModule: ModuleMetadata;

    /// Called when the last reference to the file is gone.
    fn release(data: Self::Data) {
        drop(data);
    }

    /// Called for every kind of write.
    fn write_iter(_iocb: Kiocb<'_, Self::Data>, _from: &mut IovIterSource<'_>) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called to seek; `pos` is the file's position, which is locked.
    fn llseek(
        _data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        _pos: &mut i64,
        _offset: i64,
        _whence: c_int,
    ) -> Result<i64> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called for ioctls, also of 32-bit tasks: `arg` is taken as a number.
    fn ioctl(
        _data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        _cmd: u32,
        _arg: usize,
    ) -> Result<isize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

struct VTable<T: AnonFile>(PhantomData<T>);

impl<T: AnonFile> VTable<T> {
    /// # Safety
    ///
    /// `file` must be a file that [`getfile::<T>`] made and that nobody else refers to.
    unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `getfile` put it there, and this is the last use.
        let data = unsafe { T::Data::from_foreign((*file).private_data) };
        T::release(data);
        0
    }

    /// # Safety
    ///
    /// `iocb` must be for a file that [`getfile::<T>`] made, `iter` a valid source.
    unsafe extern "C" fn write_iter(
        iocb: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As the caller guarantees.
        let iocb = unsafe { Kiocb::from_raw(iocb) };
        // SAFETY: As the caller guarantees.
        let iter = unsafe { IovIterSource::from_raw(iter) };
        match T::write_iter(iocb, iter) {
            // CAST: No more than `isize::MAX` bytes can be written at once.
            Ok(len) => len as isize,
            Err(e) => e.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `file` must be a file that [`getfile::<T>`] made, and its position must be locked.
    unsafe extern "C" fn llseek(file: *mut bindings::file, offset: i64, whence: c_int) -> i64 {
        // SAFETY: `getfile` put it there, and `release` takes it only after the last use.
        let data = unsafe { T::Data::borrow((*file).private_data) };
        // SAFETY: The file is valid. Its position is locked, but some read it without that.
        let f_pos = unsafe { core::ptr::addr_of_mut!((*file).f_pos) };
        // SAFETY: As above.
        let mut pos = unsafe { f_pos.read_volatile() };
        match T::llseek(data, &mut pos, offset, whence) {
            Ok(ret) => {
                // SAFETY: As above.
                unsafe { f_pos.write_volatile(pos) };
                ret
            }
            Err(e) => i64::from(e.to_errno()),
        }
    }

    /// # Safety
    ///
    /// `file` must be a file that [`getfile::<T>`] made.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: `getfile` put it there, and `release` takes it only after the last use.
        let data = unsafe { T::Data::borrow((*file).private_data) };
        match T::ioctl(data, cmd, arg) {
            Ok(ret) => ret as c_long,
            Err(e) => e.to_errno() as c_long,
        }
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        release: Some(Self::release),
        write_iter: if T::HAS_WRITE_ITER {
            Some(Self::write_iter)
        } else {
            None
        },
        llseek: if T::HAS_LLSEEK {
            Some(Self::llseek)
        } else {
            None
        },
        unlocked_ioctl: if T::HAS_IOCTL {
            Some(Self::ioctl)
        } else {
            None
        },
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: if T::HAS_IOCTL {
            Some(Self::ioctl)
        } else {
            None
        },
        ..pin_init::zeroed()
    };
}

/// Makes a file named `name` that owns `data`.
///
/// `flags` are those of `open(2)`; `mode` is a set of `FMODE_` flags to add.
///
/// # Errors
///
/// What making a file says; `data` is released by dropping it.
pub(crate) fn getfile<T: AnonFile>(
    name: &'static CStr,
    data: T::Data,
    flags: u32,
    mode: u32,
) -> Result<ARef<File>> {
    // Has the position locked for seeking and writing.
    let mode = match T::HAS_LLSEEK {
        true => mode | bindings::FMODE_ATOMIC_POS,
        false => mode,
    };
    let data = data.into_foreign();
    // SAFETY: The name is terminated, the operations live for ever, and fit the data.
    let file = unsafe {
        bindings::anon_inode_getfile_fmode(
            name.as_char_ptr(),
            &VTable::<T>::VTABLE,
            data,
            flags as c_int,
            mode,
        )
    };
    match from_err_ptr(file) {
        Ok(file) => {
            let file = NonNull::new(file).ok_or(ENOMEM)?;
            // SAFETY: The function returned a reference to a new file.
            Ok(unsafe { ARef::from_raw(file.cast()) })
        }
        Err(e) => {
            // SAFETY: There is no file that owns it.
            drop(unsafe { T::Data::from_foreign(data) });
            Err(e)
        }
    }
}
