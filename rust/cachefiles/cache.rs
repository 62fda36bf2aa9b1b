// SPDX-License-Identifier: GPL-2.0

//! A cache: a directory in which volumes are kept, and what is needed to work in it.

pub(crate) mod config;
pub(crate) mod directory;

use self::directory::Directory;
use crate::{
    kernel_next::fs::path::Mount,
    space::Space, //
};
use kernel::{
    cred::Credential,
    prelude::*,
    sync::{
        aref::ARef,
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
    grave_counter: Atomic<u32>,
    /// What files are made and changed with.
    cred: ARef<Credential>,
    space: Arc<Space>,
    mode: M,
}

impl<M> Cache<M> {
    /// A cache that keeps volumes in `store`, and in `graveyard` what the daemon is to delete.
    pub(crate) fn new(
        store: Directory,
        graveyard: Directory,
        cred: ARef<Credential>,
        space: Arc<Space>,
        mode: M,
    ) -> Self {
        Cache {
            store,
            graveyard,
            grave_counter: Atomic::new(0),
            cred,
            space,
            mode,
        }
    }

    /// What the mode has of the cache.
    pub(crate) fn mode(&self) -> &M {
        &self.mode
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    pub(crate) fn mount(&self) -> &Mount {
        self.space.mount()
    }

    /// Where volumes are.
    pub(crate) fn store(&self) -> &Directory {
        &self.store
    }

    /// Where directories are put that the daemon is to delete.
    pub(crate) fn graveyard(&self) -> &Directory {
        &self.graveyard
    }

    pub(crate) fn cred(&self) -> &Credential {
        &self.cred
    }

    /// A number that no other grave of this cache has.
    pub(crate) fn next_grave(&self) -> u32 {
        self.grave_counter.fetch_add(1, Relaxed)
    }

    /// As [`Space::probe_after_error`], when something could not be found or made in the cache. The
    /// caller has the cache's credentials.
    pub(crate) fn probe_after_error(&self, error: Error) -> bool {
        self.space.probe_after_error(&self.store, &self.cred, error)
    }
}
