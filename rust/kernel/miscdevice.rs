// SPDX-License-Identifier: GPL-2.0

//! Misc devices with `read`, `write` and `poll`.
//!
//! As `kernel::miscdevice`, for a device whose reads and writes are messages: one call, one
//! message. (Its `read_iter` would make one message of all parts of a `readv()`.)
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use crate::{
    bindings,
    kernel_next::compat::{
        this_module,
        ModuleMetadata, //
    }, //
};
use core::marker::PhantomData;
use kernel::{
    error::to_result,
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

/// Events for [`MiscDevice::poll`].
pub(crate) mod events {
    use crate::bindings;

    pub(crate) const IN: u32 = bindings::EPOLLIN;
    pub(crate) const OUT: u32 = bindings::EPOLLOUT;
    pub(crate) const ERR: u32 = bindings::EPOLLERR;
    pub(crate) const HUP: u32 = bindings::EPOLLHUP;
}

/// What an open device file does.
pub(crate) trait MiscDevice: Sized + 'static {
    /// What the file owns.
    type Data: ForeignOwnable + Send + Sync;
    /// The module that an open file keeps loaded.
    type OwnerModule: ModuleMetadata;

    /// Called when the device is opened.
    fn open() -> Result<Self::Data>;

    /// Called when the last reference to the file is gone.
    fn release(data: Self::Data) {
        drop(data);
    }

    /// Called for each part of a read.
    fn read(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        buf: UserSliceWriter,
    ) -> Result<usize>;

    /// Called for each part of a write.
    fn write(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        buf: UserSliceReader,
    ) -> Result<usize>;

    /// Called to know which [`events`] are there, after registering for more.
    fn poll(
        data: <Self::Data as ForeignOwnable>::Borrowed<'_>,
        file: &File,
        table: PollTable<'_>,
    ) -> u32;
}

/// A registered device.
///
/// # Invariants
///
/// `inner` is registered.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T> {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
    _t: PhantomData<T>,
}

// SAFETY: A device may be deregistered by any task.
unsafe impl<T> Send for Registration<T> {}

// SAFETY: There is nothing to be done with a shared reference.
unsafe impl<T> Sync for Registration<T> {}

impl<T: MiscDevice> Registration<T> {
    /// Registers a device with a minor number that the kernel chooses.
    pub(crate) fn new(name: &'static CStr) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                // SAFETY: `slot` is valid for writing.
                unsafe {
                    slot.write(bindings::miscdevice {
                        minor: bindings::MISC_DYNAMIC_MINOR as c_int,
                        name: name.as_char_ptr(),
                        fops: &VTable::<T>::VTABLE,
                        ..Default::default()
                    })
                };
                // SAFETY: Just written, pinned, and deregistered before it is freed.
                // INVARIANT: Registered if this succeeds.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
            _t: PhantomData,
        })
    }
}

#[pinned_drop]
impl<T> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: Registered by the invariant.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}

struct VTable<T: MiscDevice>(PhantomData<T>);

impl<T: MiscDevice> VTable<T> {
    /// # Safety
    ///
    /// `file` must be a file of the device that is being opened.
    unsafe extern "C" fn open(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        match T::open() {
            Ok(data) => {
                // SAFETY: The file being opened is this function's to fill.
                unsafe { (*file).private_data = data.into_foreign() };
                0
            }
            Err(e) => e.to_errno(),
        }
    }

    /// # Safety
    ///
    /// `file` must be a file that `open` filled and that nobody else refers to.
    unsafe extern "C" fn release(_: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open` put it there, and this is the last use.
        T::release(unsafe { T::Data::from_foreign((*file).private_data) });
        0
    }

    /// # Safety
    ///
    /// `file` must be a file that `open` filled.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buf: *mut c_char,
        len: usize,
        _: *mut i64,
    ) -> isize {
        // SAFETY: `open` put it there, and `release` takes it only after the last use.
        let data = unsafe { T::Data::borrow((*file).private_data) };
        let buf = UserSlice::new(UserPtr::from_ptr(buf.cast()), len).writer();
        match T::read(data, buf) {
            // CAST: No more than `isize::MAX` bytes can be read at once.
            Ok(len) => len as isize,
            Err(e) => e.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `file` must be a file that `open` filled.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        len: usize,
        _: *mut i64,
    ) -> isize {
        // SAFETY: `open` put it there, and `release` takes it only after the last use.
        let data = unsafe { T::Data::borrow((*file).private_data) };
        let buf = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), len).reader();
        match T::write(data, buf) {
            // CAST: No more than `isize::MAX` bytes can be written at once.
            Ok(len) => len as isize,
            Err(e) => e.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// `file` must be a file that `open` filled, `table` null or a valid poll table.
    unsafe extern "C" fn poll(
        file: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: `open` put it there, and `release` takes it only after the last use.
        let data = unsafe { T::Data::borrow((*file).private_data) };
        // SAFETY: The file is valid, and polling does not touch its position.
        let file = unsafe { File::from_raw_file(file) };
        // SAFETY: As the caller guarantees.
        T::poll(data, file, unsafe { PollTable::from_raw(table) })
    }

    const VTABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        read: Some(Self::read),
        write: Some(Self::write),
        poll: Some(Self::poll),
        llseek: Some(bindings::noop_llseek),
        ..pin_init::zeroed()
    };
}
