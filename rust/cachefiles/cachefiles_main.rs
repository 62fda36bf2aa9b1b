// SPDX-License-Identifier: GPL-2.0

//! CacheFiles: a cache for network file systems, in files of a local file system.
//!
//! A daemon opens `/dev/cachefiles`, names a directory and binds it. In on-demand mode it is then
//! asked, through the same device, for the size and the contents of every object that somebody
//! looks up and reads; see `Documentation/filesystems/caching/cachefiles-rust.rst`.
//!
//! The modules, from the ground up: each names only those that stand before it in this table, but
//! for the two in one row, which name each other.
//!
//! | module | what is there | its counterpart in C |
//! |---|---|---|
//! | [`protocol`] | commands, messages, error numbers | `daemon.c`, `ondemand.c` |
//! | [`disk`] | names, attributes, the map of present blocks and its list | `key.c`, `xattr.c` |
//! | [`table`] | the request table | `ondemand.c` |
//! | [`plan`] | which blocks can be read; limits to the space | `io.c`, `cache.c` |
//! | [`debug`] | what is told to the log | `internal.h` |
//! | [`trace`] | tracepoints | `trace/events/cachefiles.h` |
//! | [`space`] | the space that is left for a cache | `cache.c` |
//! | [`backing`] | the file of an object, and the data in it | `io.c`, `namei.c` |
//! | [`object`] | what requests and file descriptors refer to | `ondemand.c` |
//! | [`cache`] | a cache's directories and credentials | `internal.h` |
//! | [`namei`] | directories, the graveyard, culling | `namei.c` |
//! | [`volume`] | volumes | `volume.c` |
//! | [`mode`] | who fills a cache | (none) |
//! | `ondemand::line` | readers that wait until they may ask | (none) |
//! | `ondemand::lookup` | lookups that wait for the daemon | `ondemand.c` |
//! | `ondemand::requests`, `ondemand::read` | the locked table; reads | `ondemand.c`, `io.c` |
//! | `ondemand::ask` | what lookups and reads ask the daemon | `ondemand.c` |
//! | `ondemand::answer` | what the daemon answers | `ondemand.c` |
//! | `ondemand::anon_fd` | the file descriptors of the daemon | `ondemand.c` |
//! | `ondemand::deliver` | how messages get to the daemon | `ondemand.c`, `daemon.c` |
//! | `ondemand::watch` | time limits, and what nobody waits for any more | (none) |
//! | [`ondemand`] | on-demand mode | `ondemand.c` |
//! | [`attachment`] | what fscache has of an object | `interface.c`, `namei.c` |
//! | [`interface`] | what fscache calls | `interface.c` |
//! | [`service`] | a cache: into service and out | `cache.c`, `security.c` |
//! | [`daemon`] | the device, its commands | `daemon.c` |
//!
//! The first four depend on nothing but `core` and each other, so that they are compiled and tested
//! on the host, too.
//!
//! There is no `unsafe` in the driver: what needs it is in the abstractions in [`kernel_next`].

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
mod daemon;
mod disk;
mod interface;
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
    daemon::Daemon,
    kernel_next::miscdevice::{
        MiscDeviceOptions,
        MiscDeviceRegistration, //
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
    _device: MiscDeviceRegistration<Daemon>,
}

impl kernel::InPlaceModule for CacheFiles {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"cachefiles",
            }),
            _: { pr_info!("Loaded\n") },
        })
    }
}

#[pinned_drop]
impl PinnedDrop for CacheFiles {
    fn drop(self: Pin<&mut Self>) {
        pr_info!("Unloading\n");
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Error {
        Error::from_errno(-errno.0)
    }
}
