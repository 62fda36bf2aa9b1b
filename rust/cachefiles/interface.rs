// SPDX-License-Identifier: GPL-2.0

//! What fscache calls.

use crate::{
    attachment::Attachment,
    cache::Cache,
    kernel_next::{
        cred::with_cred,
        fscache::{
            Backend,
            Cookie,
            Lookup,
            Volume as FscacheVolume, //
        },
        netfs::{
            CacheIo,
            CacheRead, //
        }, //
    },
    ondemand::Reader,
    volume::Volume, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The backend's entry points.
pub(crate) struct CacheFilesBackend;

impl Backend for CacheFilesBackend {
    type Cache = Arc<Cache>;
    type Volume = Arc<Volume>;
    type Object = KBox<Attachment>;

    const NAME: &'static CStr = c"cachefiles";

    fn acquire_volume(cache: ArcBorrow<'_, Cache>, volume: &FscacheVolume) -> Result<Arc<Volume>> {
        let cache: Arc<Cache> = cache.into();
        with_cred(cache.cred(), || Volume::new(cache.clone(), volume))
            .inspect_err(|e| step!("volume {:x}: not cached: {:?}\n", volume.debug_id(), e))
    }

    fn free_volume(data: Arc<Volume>, volume: &FscacheVolume) {
        let cache = data.cache().clone();
        with_cred(cache.cred(), || {
            data.finish(volume);
            drop(data);
        });
    }

    /// Looks an object up (`cachefiles_lookup_cookie()`).
    ///
    /// A cookie that wants its size from the cache gets it, or the error number for which there is
    /// none. Any other cookie has no business here.
    fn lookup_cookie(
        volume: ArcBorrow<'_, Volume>,
        cookie: &Lookup<'_>,
    ) -> Result<Option<KBox<Attachment>>> {
        if !cookie.wants_cache_size() {
            kernel::do_once_lite! {
                pr_warn!("A file system that does not ask the cache for sizes cannot use an \
                          on-demand cache; its files are not cached\n")
            }
            return Err(EINVAL);
        }
        Attachment::look_up(volume.into(), cookie)
            .inspect_err(|e| step!("cookie {:x}: lookup failed: {:?}\n", cookie.debug_id(), e))
    }

    fn withdraw_cookie(object: KBox<Attachment>, cookie: &Cookie) {
        KBox::into_inner(object).withdraw(cookie);
    }

    fn invalidate_cookie(object: &Attachment, _cookie: &Cookie) -> bool {
        // The daemon is asked anew when the cookie is looked up next.
        object.retire();
        false
    }
}

impl CacheIo for CacheFilesBackend {
    type Reader = Reader;

    fn reader(object: &Attachment) -> Reader {
        Reader::new(object.source().clone(), object.backing().clone())
    }

    fn read(reader: Reader, pos: i64, read: CacheRead) {
        reader.read(pos, read);
    }
}
