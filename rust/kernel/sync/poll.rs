// SPDX-License-Identifier: GPL-2.0

//! Utilities for working with `struct poll_table`.

/// What a file can be polled for.
///
/// A set of events is a bitwise or of these.
///
/// C header: [`include/uapi/linux/eventpoll.h`](srctree/include/uapi/linux/eventpoll.h)
pub(crate) mod events {
    use crate::bindings;

    /// There is something to be read.
    pub(crate) const IN: u32 = bindings::EPOLLIN;
    /// Something may be written.
    pub(crate) const OUT: u32 = bindings::EPOLLOUT;
    /// There was an error. It is reported whether or not it is asked for.
    pub(crate) const ERR: u32 = bindings::EPOLLERR;
    /// The other side is gone. It is reported whether or not it is asked for.
    pub(crate) const HUP: u32 = bindings::EPOLLHUP;
}
