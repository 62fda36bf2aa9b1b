// SPDX-License-Identifier: GPL-2.0

//! Miscdevice support.
//!
//! C headers: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h).
//!
//! Reference: <https://www.kernel.org/doc/html/latest/driver-api/misc_devices.html>

use crate::{
    bindings,
    kernel_next::{
        compat::{
            this_module,
            ModuleMetadata, //
        },
        sync::poll::PollEvents, //
    }, //
};
use core::marker::PhantomData;
use kernel::{
    error::{
        to_result,
        VTABLE_DEFAULT_ERROR, //
    },
    fs::File,
    prelude::*,
    sync::poll::PollTable,
    types::{
        ForeignOwnable,
        Opaque, //
    },
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader,
        UserSliceWriter, //
    }, //
};

/// Options for creating a misc device.
#[derive(Copy, Clone)]
pub(crate) struct MiscDeviceOptions {
    /// The name of the miscdevice.
    pub(crate) name: &'static CStr,
}

impl MiscDeviceOptions {
    /// Create a raw `struct miscdev` ready for registration.
    pub(crate) const fn into_raw<T: MiscDevice>(self) -> bindings::miscdevice {
        let mut result: bindings::miscdevice = pin_init::zeroed();
        result.minor = bindings::MISC_DYNAMIC_MINOR as c_int;
        result.name = kernel::str::as_char_ptr_in_const_context(self.name);
        result.fops = MiscdeviceVTable::<T>::build();
        result
    }
}

/// A registration of a miscdevice.
///
/// # Invariants
///
/// - `inner` contains a `struct miscdevice` that is registered using
///   `misc_register()`.
/// - This registration remains valid for the entire lifetime of the
///   [`MiscDeviceRegistration`] instance.
/// - Deregistration occurs exactly once in [`Drop`] via `misc_deregister()`.
/// - `inner` wraps a valid, pinned `miscdevice` created using
///   [`MiscDeviceOptions::into_raw`].
#[repr(transparent)]
#[pin_data(PinnedDrop)]
pub(crate) struct MiscDeviceRegistration<T> {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    _t: PhantomData<T>,
}

// SAFETY: It is allowed to call `misc_deregister` on a different thread from where you called
// `misc_register`.
unsafe impl<T> Send for MiscDeviceRegistration<T> {}
// SAFETY: All `&self` methods on this type are written to ensure that it is safe to call them in
// parallel.
unsafe impl<T> Sync for MiscDeviceRegistration<T> {}

impl<T: MiscDevice> MiscDeviceRegistration<T> {
    /// Register a misc device.
    pub(crate) fn register(opts: MiscDeviceOptions) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                // SAFETY: The initializer can write to the provided `slot`.
                unsafe { slot.write(opts.into_raw::<T>()) };

                // SAFETY: We just wrote the misc device options to the slot. The miscdevice will
                // get unregistered before `slot` is deallocated because the memory is pinned and
                // the destructor of this type deallocates the memory.
                // INVARIANT: If this returns `Ok(())`, then the `slot` will contain a registered
                // misc device.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
            _t: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T> PinnedDrop for MiscDeviceRegistration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: We know that the device is registered by the type invariants.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}

/// Trait implemented by the private data of an open misc device.
#[vtable]
pub(crate) trait MiscDevice: Sized {
    /// What kind of pointer should `Self` be wrapped in.
    type Ptr: ForeignOwnable + Send + Sync;

    /// The module that an open file keeps loaded.
    type OwnerModule: ModuleMetadata;

    /// Whether seeking succeeds, without doing anything.
    ///
    /// Otherwise it fails with `ESPIPE`. This is for devices that have no position, but whose users
    /// expect to be able to seek; it has nothing to do with the position that is passed to
    /// `read_iter` and `write_iter`.
    const NOOP_LLSEEK: bool = false;

    /// Called when the misc device is opened.
    ///
    /// The returned pointer will be stored as the private data for the file.
    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr>;

    /// Called when the misc device is released.
    fn release(device: Self::Ptr, _file: &File) {
        drop(device);
    }

    /// Read one message from this miscdevice.
    ///
    /// This is for devices whose reads and writes are messages: it is called once for each buffer,
    /// that is, several times for a `readv()`, where `read_iter` is called once for all buffers. It
    /// is not told a position. Returns the number of bytes that were written to `buf`, of which 0
    /// is the end of the file.
    ///
    /// It is called in the context of the task that reads, and may sleep.
    ///
    /// # Examples
    ///
    /// A device that says hello to everybody who has room for it:
    ///
    /// ```
    /// use kernel::{
    ///     fs::File,
    ///     miscdevice::{
    ///         MiscDevice,
    ///         MiscDeviceRegistration, //
    ///     },
    ///     uaccess::UserSliceWriter, //
    /// };
    ///
    /// struct Hello;
    ///
    /// #[vtable]
    /// impl MiscDevice for Hello {
    ///     type Ptr = KBox<Hello>;
    ///
    ///     fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Hello>> {
    ///         Ok(KBox::new(Hello, GFP_KERNEL)?)
    ///     }
    ///
    ///     fn read(_device: &Hello, _file: &File, mut buf: UserSliceWriter) -> Result<usize> {
    ///         let message = b"hello";
    ///         if buf.len() < message.len() {
    ///             return Err(EMSGSIZE);
    ///         }
    ///         buf.write_slice(message)?;
    ///         Ok(message.len())
    ///     }
    /// }
    /// ```
    fn read(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _file: &File,
        _buf: UserSliceWriter,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Write one message to this miscdevice.
    ///
    /// As [`read`](Self::read), this is called once for each buffer. Returns the number of bytes of
    /// `buf` that were taken.
    ///
    /// It is called in the context of the task that writes, and may sleep.
    fn write(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _buf: UserSliceReader,
    ) -> Result<usize> {
        build_error!(VTABLE_DEFAULT_ERROR)
    }

    /// Handler for `poll`, `select` and `epoll`.
    ///
    /// Registers `table` with what is notified when something changes, by
    /// [`PollTable::register_wait`], and returns the events that are there now. If no
    /// implementation is provided, then the file is always readable and writable to `poll` and
    /// `select`, and `epoll` refuses it.
    ///
    /// It is called again after each notification, and may sleep.
    fn poll(
        _device: <Self::Ptr as ForeignOwnable>::Borrowed<'_>,
        _file: &File,
        _table: PollTable<'_>,
    ) -> PollEvents {
        build_error!(VTABLE_DEFAULT_ERROR)
    }
}

/// A vtable for the file operations of a Rust miscdevice.
struct MiscdeviceVTable<T: MiscDevice>(PhantomData<T>);

impl<T: MiscDevice> MiscdeviceVTable<T> {
    /// # Safety
    ///
    /// `file` and `inode` must be the file and inode for a file that is undergoing initialization.
    /// The file must be associated with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn open(inode: *mut bindings::inode, raw_file: *mut bindings::file) -> c_int {
        // SAFETY: The pointers are valid and for a file being opened.
        let ret = unsafe { bindings::generic_file_open(inode, raw_file) };
        if ret != 0 {
            return ret;
        }

        // SAFETY: The open call of a file can access the private data.
        let misc_ptr = unsafe { (*raw_file).private_data };

        // SAFETY: This is a miscdevice, so `misc_open()` set the private data to a pointer to the
        // associated `struct miscdevice` before calling into this method. Furthermore,
        // `misc_open()` ensures that the miscdevice can't be unregistered and freed during this
        // call to `fops_open`.
        let misc = unsafe { &*misc_ptr.cast::<MiscDeviceRegistration<T>>() };

        // SAFETY:
        // * This underlying file is valid for (much longer than) the duration of `T::open`.
        // * There is no active fdget_pos region on the file on this thread.
        let file = unsafe { File::from_raw_file(raw_file) };

        let ptr = match T::open(file, misc) {
            Ok(ptr) => ptr,
            Err(err) => return err.to_errno(),
        };

        // This overwrites the private data with the value specified by the user, changing the type
        // of this file's private data. All future accesses to the private data is performed by
        // other fops_* methods in this file, which all correctly cast the private data to the new
        // type.
        //
        // SAFETY: The open call of a file can access the private data.
        unsafe { (*raw_file).private_data = ptr.into_foreign() };

        0
    }

    /// # Safety
    ///
    /// `file` and `inode` must be the file and inode for a file that is being released. The file
    /// must be associated with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: The release call of a file owns the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: The release call of a file owns the private data.
        let ptr = unsafe { <T::Ptr as ForeignOwnable>::from_foreign(private) };

        // SAFETY:
        // * The file is valid for the duration of this call.
        // * There is no active fdget_pos region on the file on this thread.
        T::release(ptr, unsafe { File::from_raw_file(file) });

        0
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buf: *mut c_char,
        len: usize,
        _pos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The read call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Read calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        let buf = UserSlice::new(UserPtr::from_ptr(buf.cast()), len).writer();
        // SAFETY: The file is valid for the duration of this call. The system call may have taken
        // its position without the lock of that; nothing that is given the file can touch the
        // position.
        let file = unsafe { File::from_raw_file(file) };

        match T::read(device, file, buf) {
            Ok(res) => res as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        len: usize,
        _pos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: The write call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Write calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        let buf = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), len).reader();

        match T::write(device, buf) {
            Ok(res) => res as isize,
            Err(err) => err.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// - `file` must be a valid file that is associated with a `MiscDeviceRegistration<T>`.
    /// - `table` must be null or a valid `poll_table` for the duration of this call.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: The poll call of a file can access the private data.
        let private = unsafe { (*file).private_data };
        // SAFETY: Poll calls can borrow the private data of the file.
        let device = unsafe { <T::Ptr as ForeignOwnable>::borrow(private) };
        // SAFETY:
        // * The file is valid for the duration of this call.
        // * There is no active fdget_pos region on the file on this thread.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: The caller ensures that the pointer is null or valid for this call.
        let table = unsafe { PollTable::from_raw(table) };

        T::poll(device, file, table).into_raw()
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: if T::NOOP_LLSEEK {
            Some(bindings::noop_llseek)
        } else {
            None
        },
        read: if T::HAS_READ { Some(Self::read) } else { None },
        write: if T::HAS_WRITE {
            Some(Self::write)
        } else {
            None
        },
        poll: if T::HAS_POLL { Some(Self::poll) } else { None },
        owner: this_module::<T::OwnerModule>().as_ptr(),
        ..pin_init::zeroed()
    };

    const fn build() -> &'static bindings::file_operations {
        &Self::VTABLE
    }
}

#[kunit_tests(rust_miscdevice)]
mod tests {
    use super::*;
    use crate::kernel_next::kunit::support;
    use kernel::sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        }, //
    };

    /// What happened since the test began: tests run one after the other.
    struct Seen {
        opened: Atomic<i32>,
        released: Atomic<i32>,
        dropped: Atomic<i32>,
    }

    static SEEN: Seen = Seen {
        opened: Atomic::new(0),
        released: Atomic::new(0),
        dropped: Atomic::new(0),
    };

    fn seen() -> (i32, i32, i32) {
        (
            SEEN.opened.load(Relaxed),
            SEEN.released.load(Relaxed),
            SEEN.dropped.load(Relaxed),
        )
    }

    struct Data;

    impl Drop for Data {
        fn drop(&mut self) {
            SEEN.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Can be opened once at a time, says "hello" and wants to hear "hello".
    struct Hello;

    #[vtable]
    impl MiscDevice for Hello {
        type Ptr = KBox<Data>;
        type OwnerModule = crate::LocalModule;

        const NOOP_LLSEEK: bool = true;

        fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<Data>> {
            if SEEN.opened.load(Relaxed) != SEEN.released.load(Relaxed) {
                return Err(EBUSY);
            }
            let data = KBox::new(Data, GFP_KERNEL)?;
            SEEN.opened.fetch_add(1, Relaxed);
            Ok(data)
        }

        fn release(data: KBox<Data>, _file: &File) {
            SEEN.released.fetch_add(1, Relaxed);
            drop(data);
        }

        fn read(_data: &Data, _file: &File, mut buf: UserSliceWriter) -> Result<usize> {
            if buf.len() < 5 {
                return Err(EMSGSIZE);
            }
            buf.write_slice(b"hello")?;
            Ok(5)
        }

        fn write(_data: &Data, buf: UserSliceReader) -> Result<usize> {
            let mut text = KVec::new();
            buf.read_all(&mut text, GFP_KERNEL)?;
            match &text[..] == b"hello" {
                true => Ok(text.len()),
                false => Err(EINVAL),
            }
        }

        fn poll(_data: &Data, _file: &File, _table: PollTable<'_>) -> PollEvents {
            PollEvents::IN | PollEvents::HUP
        }
    }

    fn register() -> Result<Pin<KBox<MiscDeviceRegistration<Hello>>>> {
        // What the test before has left open would count as released in this one.
        support::close_files();
        SEEN.opened.store(0, Relaxed);
        SEEN.released.store(0, Relaxed);
        SEEN.dropped.store(0, Relaxed);
        KBox::pin_init(
            MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"kunit_hello",
            }),
            GFP_KERNEL,
        )
    }

    fn open() -> Result<ARef<File>> {
        support::open_device(c"kunit_hello")
    }

    fn op(file: &File) -> &bindings::file_operations {
        // SAFETY: The file is valid, and so are its operations.
        unsafe { &*(*file.as_ptr()).f_op }
    }

    #[test]
    fn device_is_there_while_it_is_registered() -> Result {
        assert_eq!(open().err(), Some(ENOENT));
        for round in 1..=2 {
            let device = register()?;
            drop(open()?);
            support::close_files();
            assert_eq!((round, seen()), (round, (1, 1, 1)));
            drop(device);
            assert_eq!(open().err(), Some(ENOENT));
        }
        Ok(())
    }

    #[test]
    fn data_goes_once_with_the_last_reference() -> Result {
        let _device = register()?;
        let file = open()?;
        assert_eq!(seen(), (1, 0, 0));
        let second = file.clone();
        drop(file);
        support::close_files();
        assert_eq!(seen(), (1, 0, 0));
        drop(second);
        support::close_files();
        assert_eq!(seen(), (1, 1, 1));
        Ok(())
    }

    #[test]
    fn open_that_fails_releases_nothing() -> Result {
        let _device = register()?;
        let file = open()?;
        assert_eq!(open().err(), Some(EBUSY));
        support::close_files();
        assert_eq!(seen(), (1, 0, 0));
        drop(file);
        support::close_files();
        assert_eq!(seen(), (1, 1, 1));
        Ok(())
    }

    #[test]
    fn open_files_outlive_the_registration() -> Result {
        let device = register()?;
        let file = open()?;
        // An open file keeps the module, so that the operations stay.
        let owner = this_module::<crate::LocalModule>().as_ptr();
        assert!(core::ptr::eq(op(&file).owner, owner));
        drop(device);
        assert_eq!(seen(), (1, 0, 0));
        drop(file);
        support::close_files();
        assert_eq!(seen(), (1, 1, 1));
        Ok(())
    }

    #[test]
    fn reads_and_writes_are_messages() -> Result {
        let _device = register()?;
        let file = open()?;
        let page = support::user_page()? as *mut c_char;
        let (read, write) = (op(&file).read, op(&file).write);
        let (read, write) = (read.ok_or(EINVAL)?, write.ok_or(EINVAL)?);
        let mut pos = 0;
        // SAFETY: The file is one that the operations are for; user memory may be anything.
        let mut read = |buf, len| unsafe { read(file.as_ptr(), buf, len, &mut pos) };
        assert_eq!(read(page, 4), EMSGSIZE.to_errno() as isize);
        assert_eq!(read(page, 4096), 5);
        assert_eq!(
            read(core::ptr::null_mut(), 4096),
            EFAULT.to_errno() as isize
        );
        let mut pos = 0;
        // SAFETY: As above.
        let mut write = |buf, len| unsafe { write(file.as_ptr(), buf, len, &mut pos) };
        assert_eq!(write(page, 5), 5);
        assert_eq!(write(page, 6), EINVAL.to_errno() as isize);
        assert_eq!(write(core::ptr::null_mut(), 5), EFAULT.to_errno() as isize);
        // There are messages of the other way to be made only by those.
        assert!(op(&file).read_iter.is_none() && op(&file).write_iter.is_none());
        Ok(())
    }

    #[test]
    fn poll_may_come_without_a_table() -> Result {
        let _device = register()?;
        let file = open()?;
        let poll = op(&file).poll.ok_or(EINVAL)?;
        // SAFETY: The file is one that the operation is for.
        let events = unsafe { poll(file.as_ptr(), core::ptr::null_mut()) };
        assert_eq!(events, bindings::EPOLLIN | bindings::EPOLLHUP);
        Ok(())
    }

    #[test]
    fn seeking_does_nothing() -> Result {
        let _device = register()?;
        let file = open()?;
        // SAFETY: The file is valid, and nobody else uses its position.
        let seek = |to, whence| unsafe { bindings::vfs_llseek(file.as_ptr(), to, whence) };
        assert_eq!(seek(100, bindings::SEEK_SET as c_int), 0);
        assert_eq!(seek(100, bindings::SEEK_CUR as c_int), 0);
        Ok(())
    }

    /// Can be opened, and that is all.
    struct Plain;

    #[vtable]
    impl MiscDevice for Plain {
        type Ptr = KBox<()>;
        type OwnerModule = crate::LocalModule;

        fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<KBox<()>> {
            Ok(KBox::new((), GFP_KERNEL)?)
        }
    }

    #[test]
    fn what_is_not_implemented_is_not_there() -> Result {
        let device = MiscDeviceRegistration::<Plain>::register(MiscDeviceOptions {
            name: c"kunit_plain",
        });
        let _device = KBox::pin_init(device, GFP_KERNEL)?;
        let file = support::open_device(c"kunit_plain")?;
        let op = op(&file);
        assert!(op.read.is_none() && op.write.is_none() && op.poll.is_none());
        // SAFETY: The file is valid.
        let ret = unsafe { bindings::vfs_llseek(file.as_ptr(), 0, 0) };
        assert_eq!(ret, i64::from(ESPIPE.to_errno()));
        Ok(())
    }
}
