// SPDX-License-Identifier: GPL-2.0

//! A cache: a directory in which volumes are kept, and what is needed to work in it.

pub(crate) mod config;
pub(crate) mod directory;

use self::directory::Directory;
use crate::{
    backing::Shared,
    kernel_next::fs::path::Mount,
    lists::Lists,
    space::Space, //
};
use kernel::{
    cred::Credential,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    }, //
};

/// A cache of the mode `M` (`struct cachefiles_cache`).
pub(crate) struct Cache<M> {
    store: Directory,
    graveyard: Directory,
    _lists: Directory,
    grave_counter: Atomic<u32>,
    shared: Arc<Shared>,
    mode: M,
}

impl<M> Cache<M> {
    /// A cache that keeps volumes in `store`, in `graveyard` what the daemon is to delete, and in
    /// `lists` what is known of its files.
    pub(crate) fn new(
        store: Directory,
        graveyard: Directory,
        lists: Directory,
        shared: Arc<Shared>,
        mode: M,
    ) -> Self {
        Cache {
            store,
            graveyard,
            _lists: lists,
            grave_counter: Atomic::new(0),
            shared,
            mode,
        }
    }

    /// What the mode has of the cache.
    pub(crate) fn mode(&self) -> &M {
        &self.mode
    }

    /// What its files share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.shared.space
    }

    pub(crate) fn mount(&self) -> &Mount {
        self.space().mount()
    }

    /// Where volumes are.
    pub(crate) fn store(&self) -> &Directory {
        &self.store
    }

    /// Where directories are put that the daemon is to delete.
    pub(crate) fn graveyard(&self) -> &Directory {
        &self.graveyard
    }

    /// Lists of the blocks of its files.
    pub(crate) fn lists(&self) -> &Lists {
        &self.shared.lists
    }

    pub(crate) fn cred(&self) -> &Credential {
        &self.shared.cred
    }

    /// A number that no other grave of this cache has.
    pub(crate) fn next_grave(&self) -> u32 {
        self.grave_counter.fetch_add(1, Relaxed)
    }

    /// As [`Space::probe_after_error`], when something could not be found or made in the cache. The
    /// caller has the cache's credentials.
    pub(crate) fn probe_after_error(&self, error: Error) -> bool {
        self.space()
            .probe_after_error(&self.store, self.cred(), error)
    }
}
