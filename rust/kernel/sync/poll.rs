// SPDX-License-Identifier: GPL-2.0

//! Utilities for working with `struct poll_table`.

use crate::bindings;
use core::ops::{
    BitOr,
    BitOrAssign, //
};

/// A set of events that a file can be polled for (`__poll_t`).
///
/// C header: [`include/uapi/linux/eventpoll.h`](srctree/include/uapi/linux/eventpoll.h)
///
/// # Examples
///
/// ```
/// use kernel::sync::poll::PollEvents;
///
/// /// What is there of a queue.
/// fn events(is_empty: bool, is_dead: bool) -> PollEvents {
///     let mut events = PollEvents::default();
///     if !is_empty {
///         events |= PollEvents::IN;
///     }
///     if is_dead {
///         events |= PollEvents::ERR | PollEvents::HUP;
///     }
///     events
/// }
///
/// assert_eq!(events(true, false), PollEvents::default());
/// assert_ne!(events(false, false), events(false, true));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct PollEvents(bindings::__poll_t);

impl PollEvents {
    /// There is something to be read.
    pub(crate) const IN: Self = Self(bindings::EPOLLIN);
    /// Something may be written.
    pub(crate) const OUT: Self = Self(bindings::EPOLLOUT);
    /// There was an error. It is reported whether or not it is asked for.
    pub(crate) const ERR: Self = Self(bindings::EPOLLERR);
    /// The other side is gone. It is reported whether or not it is asked for.
    pub(crate) const HUP: Self = Self(bindings::EPOLLHUP);

    /// The events as C has them.
    #[inline]
    pub(in crate::kernel_next) fn into_raw(self) -> bindings::__poll_t {
        self.0
    }
}

impl BitOr for PollEvents {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for PollEvents {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}
