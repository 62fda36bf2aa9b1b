// SPDX-License-Identifier: GPL-2.0

//! The object of on-demand mode, as requests and file descriptors refer to it. (fscache's object is
//! the [`Attachment`](crate::attachment::Attachment).)
//!
//! A daemon may keep a file descriptor for as long as it likes, so an object must not pin anything.
//! When its cookie is withdrawn, it drops its references to the file and the cookie; what is left
//! is a few hundred bytes.

use crate::{
    backing::Backing,
    kernel_next::{
        fscache::Cookie,
        sync::Completion, //
    },
    protocol::msg::OpenKeys,
    table::ObjectKey, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        SetOnce,
        SpinLock, //
    },
    time::Jiffies, //
};

/// See the [module's description](self).
#[pin_data]
pub(crate) struct Object {
    /// Its key in the request table.
    key: SetOnce<ObjectKey>,
    /// Names the object in the log: the cookie's number.
    debug_id: u32,
    /// The key of the volume, of so many bytes, then that of the cookie.
    keys: KVec<u8>,
    volume_key_len: usize,
    /// Present from the end of the lookup until the cookie is withdrawn.
    #[pin]
    backing: SpinLock<Option<Arc<Backing>>>,
    /// Completed when the lookup is over: there is `backing`, or there never will be.
    #[pin]
    looked_up: Completion,
    /// Present until the cookie is withdrawn, or the lookup has failed.
    #[pin]
    cookie: SpinLock<Option<ARef<Cookie>>>,
}

impl Object {
    pub(crate) fn new(cookie: &Cookie) -> Result<Arc<Self>> {
        let (volume_key, cookie_key) = (cookie.volume().key(), cookie.key());
        let mut keys = KVec::with_capacity(volume_key.len() + cookie_key.len(), GFP_KERNEL)?;
        keys.extend_from_slice(volume_key, GFP_KERNEL)?;
        keys.extend_from_slice(cookie_key, GFP_KERNEL)?;
        Arc::pin_init(
            pin_init!(Self {
                key: SetOnce::new(),
                debug_id: cookie.debug_id(),
                keys,
                volume_key_len: volume_key.len(),
                backing <- new_spinlock!(None),
                looked_up <- Completion::new(),
                cookie <- new_spinlock!(Some(cookie.into())),
            }),
            GFP_KERNEL,
        )
    }

    pub(crate) fn debug_id(&self) -> u32 {
        self.debug_id
    }

    /// Its key in the request table, once it is there.
    pub(crate) fn key(&self) -> Option<ObjectKey> {
        self.key.copy()
    }

    /// The keys that its OPEN carries.
    pub(crate) fn open_keys(&self) -> Result<OpenKeys<'_>> {
        let (volume, cookie) = self
            .keys
            .split_at_checked(self.volume_key_len)
            .unwrap_or_default();
        Ok(OpenKeys::new(volume, cookie)?)
    }

    /// The file to fill; `None` before it is looked up and after it is withdrawn.
    pub(crate) fn backing(&self) -> Option<Arc<Backing>> {
        self.backing.lock().clone()
    }

    /// Waits until the lookup is over, whether there is [`Self::backing`] then or not. To be called
    /// only if the lookup does not wait for the daemon any more: the caller may be the daemon.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS` if the task is killed.
    pub(crate) fn wait_for_lookup(&self) -> Result {
        self.looked_up
            .wait_for_completion_killable_timeout(Jiffies::MAX)?;
        Ok(())
    }

    /// Sets the key in the request table. Takes no lock.
    pub(crate) fn set_key(&self, key: ObjectKey) {
        self.key.populate(key);
    }

    /// Whether no task waits for the data any more: the cookie is withdrawn, given up or not in
    /// use. Does not sleep; may be called with the lock of the request table held.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.cookie
            .lock()
            .as_ref()
            .is_none_or(|cookie| cookie.is_given_up() || !cookie.is_in_use())
    }

    /// Lets file descriptors fill the object.
    pub(crate) fn attach(&self, backing: Arc<Backing>) {
        *self.backing.lock() = Some(backing);
        self.looked_up.complete_all();
    }

    /// Drops the references to the file and the cookie: the cookie is withdrawn, or its lookup has
    /// failed.
    pub(crate) fn detach(&self) {
        // Both are dropped without the lock.
        let _backing = self.backing.lock().take();
        self.looked_up.complete_all();
        let _cookie = self.cookie.lock().take();
    }
}
