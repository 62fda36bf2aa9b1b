// SPDX-License-Identifier: GPL-2.0

//! CacheFiles: a cache for network file systems, in files of a local file system.
//!
//! A daemon opens `/dev/cachefiles`, names a directory and binds it. In classic mode network file
//! systems then fill the cache, and the daemon culls it; see
//! `Documentation/filesystems/caching/cachefiles-rust-classic.rst`. In on-demand mode the daemon is
//! asked, through the same device, for the size and the contents of every object that is looked up
//! and read; see `Documentation/filesystems/caching/cachefiles-rust.rst`. Which function does what,
//! the order of locks and what else concerns several types is in `cachefiles-rust-internals.rst`,
//! "Where to look", "Locks" and so on.
//!
//! The modules, from the ground up. Each imports only modules above it in this table, except that
//! `ondemand::requests` and `ondemand::read` import each other. The methods of
//! [`Requests`](ondemand::Requests) are spread over the `ondemand` modules and call each other
//! freely.
//!
//! | module | what is there | its counterpart in C |
//! |---|---|---|
//! | [`protocol`] | commands, messages, state line, error numbers | `daemon.c`, `ondemand.c` |
//! | [`disk`] | on-disk formats: names, attributes, block list; the bit map | `key.c`, `xattr.c` |
//! | [`table`] | the request table | `ondemand.c` |
//! | [`plan`] | read decisions and space limits, without I/O | `io.c`, `cache.c` |
//! | [`debug`] | messages in the log | `internal.h` |
//! | [`inject`] | errors, in builds for tests | `error_inject.c` |
//! | [`trace`] | tracepoints | `trace/events/cachefiles.h` |
//! | [`mark`] | the mark of what is in use | `namei.c` |
//! | [`space`] | free space of the file system, and when to cull | `cache.c` |
//! | [`lists`] | files with lists of present blocks | (none) |
//! | [`backing`] | the file of an object; marking and checking its blocks | `io.c`, `namei.c` |
//! | [`object`] | an object as requests and file descriptors see it | `ondemand.c` |
//! | [`cache`] | a cache's directories and credentials | `internal.h` |
//! | [`namei`] | directories, the graveyard, culling | `namei.c` |
//! | [`volume`] | volumes | `volume.c` |
//! | [`mode`] | the trait of a mode: on-demand and classic are two | (none) |
//! | `ondemand::line` | readers waiting to queue a READ | (none) |
//! | `ondemand::lookup` | lookups whose OPEN is not answered | `ondemand.c` |
//! | `ondemand::requests`, `ondemand::read` | the locked table; reads | `ondemand.c`, `io.c` |
//! | `ondemand::ask` | queueing OPENs and READs | `ondemand.c` |
//! | `ondemand::answer` | `copen`, READ_COMPLETE, release of an fd, `restore` | `ondemand.c` |
//! | `ondemand::anon_fd` | the file descriptors of the daemon | `ondemand.c` |
//! | `ondemand::deliver` | `read()` and `poll()` of the device | `ondemand.c`, `daemon.c` |
//! | `ondemand::watch` | timeouts; ending requests of unused cookies | (none) |
//! | [`ondemand`] | on-demand mode | `ondemand.c` |
//! | `classic::released` | what went out of use, for the daemon | `daemon.c` |
//! | `classic::cache` | what a cache has besides its directories | `internal.h` |
//! | `classic::files` | the files of an object, and marking them dirty | `xattr.c`, `interface.c` |
//! | `classic::read` | where to read from; reads | `io.c` |
//! | `classic::write` | storing | `io.c` |
//! | [`classic`] | classic mode | `daemon.c`, `interface.c` |
//! | [`attachment`] | finding, naming, replacing and deleting a file | `interface.c`, `namei.c` |
//! | [`interface`] | what fscache calls | `interface.c` |
//! | [`service`] | bind and unbind: checks, registration | `cache.c`, `security.c` |
//! | [`daemon`] | the device, its commands | `daemon.c` |
//!
//! The first four depend on nothing but `core` and each other, so that they are compiled and tested
//! on the host, too.
//!
//! There is no `unsafe` in the driver: what needs it is in the abstractions in [`kernel_next`],
//! which is `rust/kernel/`.

use kernel::prelude::*;

#[path = "../bindings/lib.rs"]
mod bindings;
#[path = "../kernel/lib.rs"]
mod kernel_next;

#[macro_use]
mod debug;

mod attachment;
mod backing;
mod cache;
mod classic;
mod daemon;
mod disk;
mod inject;
mod interface;
mod lists;
mod mark;
mod mode;
mod namei;
mod object;
mod ondemand;
mod plan;
mod protocol;
mod service;
mod space;
mod table;
#[cfg(CONFIG_KUNIT = "y")]
mod tests;
mod trace;
mod volume;

use crate::{
    daemon::DeviceFile,
    inject::Control,
    kernel_next::{
        fscache,
        miscdevice::{
            MiscDeviceOptions,
            MiscDeviceRegistration, //
        }, //
    },
    protocol::errno::Errno, //
};

module! {
    type: CacheFiles,
    name: "cachefiles",
    authors: ["CacheFiles in Rust contributors"],
    description: "Mounted-filesystem based cache",
    license: "GPL",
}

#[pin_data(PinnedDrop)]
struct CacheFiles {
    #[pin]
    _device: MiscDeviceRegistration<DeviceFile>,
    _inject: Control,
}

impl kernel::InPlaceModule for CacheFiles {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _inject: Control::new()?,
            _device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"cachefiles",
            }),
            _: { cf_info!("Loaded\n") },
        })
    }
}

#[pinned_drop]
impl PinnedDrop for CacheFiles {
    fn drop(self: Pin<&mut Self>) {
        cf_info!("Unloading\n");
        fscache::release_default();
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::from_errno(-errno.0)
    }
}
