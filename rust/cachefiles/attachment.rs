// SPDX-License-Identifier: GPL-2.0

//! Attachments: a cookie's object while it is looked up, fscache's `cache_priv`.
//!
//! A lookup makes an attachment, and the withdrawal of the cookie, which waits for no daemon, ends
//! it. While it exists, so do the volume, the cache and the mount.

mod commit;
mod lookup;

use crate::{
    backing::Backing,
    cache::Cache,
    kernel_next::{
        cred::with_cred,
        fscache::Cookie, //
    },
    mode::Mode,
    volume::Volume, //
};
use kernel::sync::{
    atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    Arc, //
};

/// See the [module's description](self).
pub(crate) struct Attachment<M: Mode> {
    object: M::Object,
    backing: Arc<Backing>,
    /// Whether the data is to be thrown away.
    retired: Atomic<i32>,
    volume: Arc<Volume<M>>,
}

impl<M: Mode> Attachment<M> {
    pub(crate) fn object(&self) -> &M::Object {
        &self.object
    }

    pub(crate) fn backing(&self) -> &Arc<Backing> {
        &self.backing
    }

    fn cache(&self) -> &Cache<M> {
        self.volume.cache()
    }

    /// Has the data thrown away when the cookie is withdrawn.
    pub(crate) fn retire(&self) {
        self.retired.store(1, Relaxed);
    }

    /// Names the file, or removes it, then drops it (`cachefiles_withdraw_cookie()`).
    pub(crate) fn withdraw(self, cookie: &Cookie) {
        let cache = self.volume.cache().clone();
        M::detach(&self.object);
        // A daemon's write may still create a file after this. It is an unnamed tmpfile and is
        // freed when the write drops the backing.
        let file = self.backing.file().cloned();
        let map = self.backing.take_map();
        let Some(file) = file else {
            return;
        };
        with_cred(cache.cred(), || {
            let retired = cookie.is_retired() || self.retired.load(Relaxed) != 0;
            if let Err(e) = self.keep_or_delete(cookie, &file, &map, retired) {
                kdebug!("cookie {:x}: not kept: {:?}\n", cookie.debug_id(), e);
            }
            // A daemon that is writing may keep the file for longer.
            self.backing.unmark();
            drop((file, self));
        });
    }
}
