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

/// Operations of a file that [`getfile`] makes.
///
/// All are called in the context of the task that uses the file, and may sleep.
///
/// # Examples
///
/// ```
/// use kernel::{
///     anon_inode::{
///         self,
///         AnonFile, //
///     },
///     fs::{
///         file::flags,
///         Kiocb, //
///     },
///     iov::IovIterSource, //
/// };
///
/// /// A file that forgets what is written to it.
/// struct Sink;
///
/// #[vtable]
/// impl AnonFile for Sink {
///     type Data = KBox<u64>;
///
///     fn write_iter(_iocb: Kiocb<'_, KBox<u64>>, from: &mut IovIterSource<'_>) -> Result<usize> {
///         let len = from.len();
///         from.advance(len);
///         Ok(len)
///     }
/// }
///
/// let data = KBox::new(7, GFP_KERNEL)?;
/// let file = anon_inode::getfile::<Sink>(c"[sink]", data, flags::O_WRONLY)?;
/// # drop(file);
/// # Ok::<(), Error>(())
/// ```
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

    /// Called for every kind of write, at an offset, too.
    ///
    /// Returns the number of bytes that were taken from `from`, and moves the position of `iocb` by
    /// as many.
    fn write_iter(_iocb: Kiocb<'_, Self::Data>, _from: &mut IovIterSource<'_>) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called to seek. `pos` is the file's position, which is locked; both are in bytes.
    ///
    /// Returns what `lseek()` does. If this fails, `pos` stays what it was.
    fn llseek(
        _data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        _pos: &mut i64,
        _offset: i64,
        _whence: c_int,
    ) -> Result<i64> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Called for ioctls, also of 32-bit tasks.
    ///
    /// `arg` is a number: there is nothing that would translate a pointer of a 32-bit task.
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
/// `flags` are the access mode of `open(2)` and `O_NONBLOCK`; others are ignored. A file that has
/// [`AnonFile::write_iter`] can be written at an offset, one that has [`AnonFile::llseek`] can be
/// sought. This may sleep.
///
/// # Errors
///
/// [`ENFILE`] or [`ENOMEM`] if no file can be had, [`ENOENT`] if the module is being unloaded;
/// `data` is then dropped, without [`AnonFile::release`].
pub(crate) fn getfile<T: AnonFile>(
    name: &'static CStr,
    data: T::Data,
    flags: u32,
) -> Result<ARef<File>> {
    let mut mode = 0;
    if T::HAS_WRITE_ITER {
        mode |= bindings::FMODE_PWRITE;
    }
    if T::HAS_LLSEEK {
        // Has the position locked for seeking and writing.
        mode |= bindings::FMODE_LSEEK | bindings::FMODE_ATOMIC_POS;
    }
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

#[kunit_tests(rust_anon_inode)]
mod tests {
    use super::*;
    use crate::kernel_next::kunit::support::{
        self,
        Count,
        Memory,
        OnDrop, //
    };
    use kernel::{
        fs::file::flags,
        sync::Arc, //
    };

    struct Data {
        released: Count,
        written: Count,
        _dropped: OnDrop,
    }

    /// A file that does everything.
    struct Full;

    #[vtable]
    impl AnonFile for Full {
        type Data = Arc<Data>;
        type OwnerModule = crate::LocalModule;

        fn release(data: Arc<Data>) {
            data.released.add();
        }

        fn write_iter(
            mut iocb: Kiocb<'_, Arc<Data>>,
            from: &mut IovIterSource<'_>,
        ) -> Result<usize> {
            iocb.file().written.add();
            let len = from.len();
            if len > 100 {
                return Err(EFBIG);
            }
            from.advance(len);
            *iocb.ki_pos_mut() += len as i64;
            Ok(len)
        }

        fn llseek(
            _data: <Arc<Data> as ForeignOwnable>::Borrowed<'_>,
            pos: &mut i64,
            offset: i64,
            whence: c_int,
        ) -> Result<i64> {
            // A position that is set by a seek that fails does not count.
            *pos += offset;
            match whence {
                0 => Ok(*pos),
                _ => Err(EINVAL),
            }
        }

        fn ioctl(
            _data: <Arc<Data> as ForeignOwnable>::Borrowed<'_>,
            cmd: u32,
            arg: usize,
        ) -> Result<isize> {
            match cmd {
                1 => Ok(arg as isize),
                _ => Err(ENOTTY),
            }
        }
    }

    /// A file that does nothing but own something.
    struct Plain;

    #[vtable]
    impl AnonFile for Plain {
        type Data = KBox<OnDrop>;
        type OwnerModule = crate::LocalModule;
    }

    struct Counts {
        released: Count,
        written: Count,
        dropped: Count,
    }

    fn counts() -> Result<Counts> {
        Ok(Counts {
            released: Count::new()?,
            written: Count::new()?,
            dropped: Count::new()?,
        })
    }

    fn full(counts: &Counts) -> Result<ARef<File>> {
        let data = Arc::new(
            Data {
                released: counts.released.clone(),
                written: counts.written.clone(),
                _dropped: counts.dropped.on_drop(),
            },
            GFP_KERNEL,
        )?;
        getfile::<Full>(c"[kunit]", data, flags::O_WRONLY)
    }

    fn op(file: &File) -> &bindings::file_operations {
        // SAFETY: The file is valid, and so are its operations.
        unsafe { &*(*file.as_ptr()).f_op }
    }

    #[test]
    fn data_goes_once_with_the_last_reference() -> Result {
        let counts = counts()?;
        let file = full(&counts)?;
        let second = file.clone();
        drop(file);
        support::close_files();
        assert_eq!((counts.released.get(), counts.dropped.get()), (0, 0));
        drop(second);
        support::close_files();
        assert_eq!((counts.released.get(), counts.dropped.get()), (1, 1));
        Ok(())
    }

    #[test]
    fn data_is_dropped_without_a_release_too() -> Result {
        let dropped = Count::new()?;
        let data = KBox::new(dropped.on_drop(), GFP_KERNEL)?;
        let file = getfile::<Plain>(c"[kunit]", data, flags::O_RDONLY)?;
        assert_eq!(dropped.get(), 0);
        drop(file);
        support::close_files();
        assert_eq!(dropped.get(), 1);
        Ok(())
    }

    #[test]
    fn files_that_do_nothing_say_so() -> Result {
        let dropped = Count::new()?;
        let data = KBox::new(dropped.on_drop(), GFP_KERNEL)?;
        let file = getfile::<Plain>(c"[kunit]", data, flags::O_RDONLY)?;
        let op = op(&file);
        assert!(op.write_iter.is_none() && op.llseek.is_none());
        assert!(op.unlocked_ioctl.is_none());
        // SAFETY: The file is valid.
        let (ret, mode) = unsafe {
            (
                bindings::vfs_llseek(file.as_ptr(), 0, 0),
                (*file.as_ptr()).f_mode,
            )
        };
        assert_eq!(ret, i64::from(ESPIPE.to_errno()));
        assert_eq!(
            mode & (bindings::FMODE_ATOMIC_POS | bindings::FMODE_PWRITE),
            0
        );
        Ok(())
    }

    #[test]
    fn files_that_seek_have_their_position_locked() -> Result {
        let file = full(&counts()?)?;
        // SAFETY: The file is valid.
        let mode = unsafe { (*file.as_ptr()).f_mode };
        let all = bindings::FMODE_ATOMIC_POS | bindings::FMODE_PWRITE | bindings::FMODE_LSEEK;
        assert_eq!(mode & all, all);
        Ok(())
    }

    #[test]
    fn files_keep_their_module() -> Result {
        let file = full(&counts()?)?;
        // Built into the kernel there is none.
        assert!(core::ptr::eq(
            op(&file).owner,
            this_module::<crate::LocalModule>().as_ptr()
        ));
        Ok(())
    }

    #[test]
    fn seek_moves_the_position_if_it_succeeds() -> Result {
        let file = full(&counts()?)?;
        // SAFETY: The file is valid, and nobody else uses its position.
        let seek = |to, whence| unsafe {
            let ret = bindings::vfs_llseek(file.as_ptr(), to, whence);
            (ret, (*file.as_ptr()).f_pos)
        };
        assert_eq!(seek(5, 0), (5, 5));
        assert_eq!(seek(7, 0), (12, 12));
        assert_eq!(seek(9, 1), (i64::from(EINVAL.to_errno()), 12));
        Ok(())
    }

    #[test]
    fn writes_get_there() -> Result {
        let counts = counts()?;
        let file = full(&counts)?;
        let write = |len: usize| -> Result<(isize, i64)> {
            let mut memory = Memory::new(len, b'w')?;
            let mut iter = memory.iter(bindings::ITER_SOURCE);
            let mut pos = 1000;
            // SAFETY: The file, the iterator and the position are valid.
            let ret = unsafe { bindings::vfs_iter_write(file.as_ptr(), &mut iter, &mut pos, 0) };
            Ok((ret, pos))
        };
        assert_eq!(write(7)?, (7, 1007));
        assert_eq!(counts.written.get(), 1);
        let (ret, _) = write(101)?;
        assert_eq!(ret, EFBIG.to_errno() as isize);
        assert_eq!(counts.written.get(), 2);
        Ok(())
    }

    #[test]
    fn ioctls_get_there_whole() -> Result {
        let file = full(&counts()?)?;
        let ioctl = op(&file).unlocked_ioctl.ok_or(ENOTTY)?;
        // SAFETY: The file is one that the operation is for.
        let call = |cmd, arg| unsafe { ioctl(file.as_ptr(), cmd, arg) };
        assert_eq!(call(1, 0x7_0000_0001), 0x7_0000_0001);
        assert_eq!(call(2, 0), ENOTTY.to_errno() as isize);
        Ok(())
    }
}
