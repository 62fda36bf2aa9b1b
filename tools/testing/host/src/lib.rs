// SPDX-License-Identifier: GPL-2.0

//! The modules of the driver that depend on nothing but `core`, compiled for the host.
//!
//! The module tree is the driver's, so that `crate::` means the same in both.

#[path = "../../../../rust/cachefiles/blocks.rs"]
pub(crate) mod blocks;
#[path = "../../../../rust/cachefiles/errno.rs"]
pub(crate) mod errno;
#[path = "../../../../rust/cachefiles/key.rs"]
pub(crate) mod key;
#[path = "../../../../rust/cachefiles/presence.rs"]
pub(crate) mod presence;
#[path = "../../../../rust/cachefiles/xattr.rs"]
pub(crate) mod xattr;

#[path = "."]
pub(crate) mod daemon {
    #[path = "../../../../rust/cachefiles/daemon/command.rs"]
    pub(crate) mod command;
}

#[path = "."]
pub(crate) mod cache {
    #[path = "../../../../rust/cachefiles/cache/limits.rs"]
    pub(crate) mod limits;
}

#[path = "."]
pub(crate) mod ondemand {
    #[path = "../../../../rust/cachefiles/ondemand/msg.rs"]
    pub(crate) mod msg;
    #[path = "../../../../rust/cachefiles/ondemand/object_state.rs"]
    pub(crate) mod object_state;
    #[path = "../../../../rust/cachefiles/ondemand/queue.rs"]
    pub(crate) mod queue;
    #[path = "../../../../rust/cachefiles/ondemand/slots.rs"]
    pub(crate) mod slots;
}

#[cfg(test)]
mod support;

// What the kernel runs as KUnit suites. The modules here add to it what takes a library.
#[cfg(test)]
#[path = "../../../../rust/cachefiles/tests.rs"]
mod tests;

#[cfg(test)]
mod command_tests;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod msg_tests;
#[cfg(test)]
mod presence_tests;
#[cfg(test)]
mod queue_model_tests;
#[cfg(test)]
mod queue_tests;
#[cfg(test)]
mod slots_tests;
#[cfg(test)]
mod xattr_tests;
