// SPDX-License-Identifier: GPL-2.0

//! Attachments: what a cookie's `cache_priv` is, from the end of its lookup until its withdrawal.
//!
//! A lookup makes an attachment, and the withdrawal of the cookie, which waits for no daemon, ends
//! it. While it exists, so do the volume, the cache and the mount.

mod commit;
mod lookup;
mod replace;

pub(crate) use self::replace::Replaced;

use self::commit::Leaving;
use crate::{
    cache::Cache,
    kernel_next::{
        cred::with_cred,
        fscache::Cookie, //
    },
    mode::{
        Leave,
        Mode, //
    },
    trace::files::{
        self,
        Ref, //
    },
    volume::Volume, //
};
use kernel::sync::Arc;

/// See the [module's description](self).
pub(crate) struct Attachment<M: Mode> {
    object: M::Object,
    files: M::Files,
    volume: Arc<Volume<M>>,
}

impl<M: Mode> Attachment<M> {
    pub(crate) fn object(&self) -> &M::Object {
        &self.object
    }

    pub(crate) fn files(&self) -> &M::Files {
        &self.files
    }

    pub(crate) fn cache(&self) -> &Arc<Cache<M>> {
        self.volume.cache()
    }

    /// Names the file, or removes it, then drops it (`cachefiles_withdraw_cookie()`).
    pub(crate) fn withdraw(self, cookie: &Cookie) {
        let cache = self.volume.cache().clone();
        files::object(cookie, Ref::SeeWithdrawCookie);
        files::object(cookie, Ref::SeeWithdrawal);
        M::detach(&self.object);
        // A daemon's write may still create a file after this. It is an unnamed tmpfile and is
        // freed when the write drops the backing.
        let backing = M::backing(&self.files);
        backing.take_place();
        let file = backing.file().cloned();
        let mut map = backing.take_map();
        let Some(file) = file else {
            files::object(cookie, Ref::PutDetach);
            return;
        };
        let leave = match cookie.is_retired() || backing.is_retired() {
            true => Leave::Discard,
            false => cache.mode().leave(&self.files, cookie),
        };
        with_cred(cache.cred(), || {
            let mut leaving = Leaving {
                cookie,
                backing: &backing,
                file: &file,
                map: &mut map,
                leave,
            };
            match self.keep_or_delete(&mut leaving) {
                Ok(()) => cache.mode().released(file.inode().sectors()),
                Err(e) => kdebug!("cookie {:x}: not kept: {:?}\n", cookie.debug_id(), e),
            }
            // A daemon that is writing may keep the file for longer.
            backing.unmark();
            drop((file, backing, self));
        });
        files::object(cookie, Ref::PutDetach);
    }
}
