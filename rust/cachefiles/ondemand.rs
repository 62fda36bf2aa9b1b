// SPDX-License-Identifier: GPL-2.0

//! On-demand mode: asking the daemon.
//!
//! Lookups and reads put requests into the [request table](crate::table); the daemon reads them
//! from the device as messages, and answers: an OPEN with `copen`, a READ by writing to the
//! object's [file descriptor](anon_fd) and then with READ_COMPLETE, or both with FILL. A CLOSE has
//! no answer.
//!
//! [`Requests`] is the table with its lock. Its methods are spread over the modules here, by side:
//! `ask` queues, `deliver` hands messages out, `answer` takes answers, and `watch` ends requests
//! that time out or that no task waits for. They call each other freely. `read` is a read of an
//! object, `lookup` an OPEN that waits for its answer, `line` a reader that waits for a limit.
//!
//! READ is the message; a read is what netfs asks the cache for; `read()` is the daemon's system
//! call on the device.
//!
//! # Locks
//!
//! The table's lock is a spinlock. Nothing is allocated, freed, copied to the daemon or completed
//! under it; what comes out of the table is dealt with afterwards. The only locks that are taken
//! under it are `Object::cookie`, that of the device's wait queue and those of the workqueue, as
//! the watch is started; none of them is outer to a lock of the driver. The order of all locks is
//! in `cachefiles-rust-internals.rst`, "Locks".

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
    requests::Requests, //
};

use self::requests::Source;
use crate::{
    backing::Backing,
    kernel_next::fscache::{
        CacheHandle,
        Cookie,
        Lookup, //
    },
    mode::{
        Leave,
        Mode, //
    },
    protocol::command::Options, //
};
use kernel::{
    prelude::*,
    sync::{
        poll::PollCondVar,
        Arc, //
    }, //
};

/// The on-demand mode: a daemon is asked for the size of each object, and for its data.
pub(crate) struct Ondemand(Arc<Requests>);

impl Ondemand {
    pub(crate) fn new(options: Options, poll: Arc<PollCondVar>) -> Result<Self> {
        Ok(Ondemand(Requests::new(options, poll)?))
    }

    pub(crate) fn requests(&self) -> &Arc<Requests> {
        &self.0
    }
}

impl Mode for Ondemand {
    type Object = Arc<Source>;
    type Files = Arc<Backing>;

    /// The daemon has said how large the object is, and every file is made so.
    const ADJUSTS_FILES: bool = false;

    /// A block that a daemon has written in part is data to the C implementation, also if the
    /// daemon wrote it while that was in use.
    const PUNCHES_HOLES: bool = false;

    /// An object does not change, so what its file holds is true whenever it is written down.
    const COMMITS_EARLY: bool = true;

    /// To those who do not ask for sizes the cache is of no use.
    const IS_FOR_ALL: bool = false;

    /// A cookie that wants its size from the cache gets it, or an error instead. Others are
    /// refused.
    fn open(&self, cookie: &Lookup<'_>, max: u64) -> Result<Option<Arc<Source>>> {
        if !cookie.wants_cache_size() {
            kernel::do_once_lite! {
                cf_warn!("A file system that does not ask the cache for sizes cannot use an \
                          on-demand cache; its files are not cached\n")
            }
            return Err(EINVAL);
        }
        Source::open(&self.0, cookie, max)
    }

    fn size(source: &Arc<Source>, _cookie: &Cookie) -> u64 {
        source.size()
    }

    fn version(source: &Arc<Source>) -> &[u8] {
        source.version()
    }

    fn attach(
        source: &Arc<Source>,
        cookie: &Lookup<'_>,
        backing: Arc<Backing>,
    ) -> Result<Option<Arc<Backing>>> {
        // fscache withdraws a cookie when its last user is gone; if that was during this lookup, it
        // would not withdraw this object.
        if !cookie.is_in_use() {
            return Ok(None);
        }
        source.object().attach(backing.clone());
        Ok(Some(backing))
    }

    fn backing(backing: &Arc<Backing>) -> Arc<Backing> {
        backing.clone()
    }

    /// A lookup takes only a file of the version that the daemon serves, or makes a new one: there
    /// is nothing to be described anew.
    fn leave(&self, _backing: &Arc<Backing>, _cookie: &Cookie) -> Leave {
        Leave::Keep
    }

    /// An invalidation has the object withdrawn, and its file removed.
    fn is_outdated(_backing: &Arc<Backing>, _cookie: &Cookie) -> bool {
        false
    }

    /// If the daemon asks for it.
    fn is_durable(&self) -> bool {
        self.0.options().durable
    }

    fn detach(source: &Arc<Source>) {
        source.close();
    }

    /// The daemon does not ask.
    fn released(&self, _sectors: u64) {}

    /// What waits for the daemon fails, so fscache need not know.
    fn set_handle(&self, _handle: CacheHandle) {}

    fn io_error(&self, is_broken: impl FnOnce() -> bool) {
        self.0.io_error(is_broken);
    }

    fn kill(&self) {
        self.0.kill();
    }

    fn flush(&self) {
        self.0.flush();
    }
}
