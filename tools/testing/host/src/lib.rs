// SPDX-License-Identifier: GPL-2.0

//! The modules of the driver that depend on nothing but `core`, compiled for the host as they are.

#[path = "../../../../rust/cachefiles"]
mod driver {
    pub(crate) mod disk;
    pub(crate) mod plan;
    pub(crate) mod protocol;
    pub(crate) mod table;

    // What the kernel runs as KUnit suites. The modules below add to it what takes a library.
    #[cfg(test)]
    pub(crate) mod tests;
}

// The driver's crate has them at its root.
pub(crate) use driver::{disk, protocol};
#[cfg(test)]
pub(crate) use driver::{plan, table, tests};

#[cfg(test)]
mod support;

#[cfg(test)]
mod changed_tests;
#[cfg(test)]
mod command_tests;
#[cfg(test)]
mod fsck_tests;
#[cfg(test)]
mod key_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod msg_tests;
#[cfg(test)]
mod presence_tests;
#[cfg(test)]
mod slots_tests;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod table_model_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod xattr_tests;
