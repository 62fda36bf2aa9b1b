// SPDX-License-Identifier: GPL-2.0

//! On-demand mode: asking the daemon.
//!
//! Lookups and reads put requests into the [request table](crate::table); the daemon reads them
//! from the device as messages, and answers: an OPEN with `copen`, a READ by writing to the
//! object's [file descriptor](anon_fd) and saying so. A CLOSE has no answer, and nobody waits for
//! one.
//!
//! # Locks
//!
//! The table's lock is a spinlock. Nothing is allocated, freed, copied to the daemon or completed
//! under it; what comes out of the table is dealt with afterwards. The only locks that are taken
//! under it are that of an object's cookie and that of those who wait for messages, under which no
//! other is taken.

mod anon_fd;
mod answer;
mod ask;
mod deliver;
mod line;
mod lookup;
mod read;
mod requests;
mod watch;

pub(crate) use self::{
    read::Reader,
    requests::{
        Requests,
        Source, //
    }, //
};
