// SPDX-License-Identifier: GPL-2.0

//! What fscache calls.

use crate::{
    attachment::Attachment,
    cache::Cache,
    kernel_next::{
        compat::ENOBUFS,
        cred::with_cred,
        fscache::{
            Backend,
            Cookie,
            Lookup,
            Resize,
            Volume as FscacheVolume, //
        },
        netfs::{
            CacheIo,
            CacheRead,
            ReadSource,
            ReadSubrequest, //
        }, //
    },
    mode::Mode,
    ondemand::{
        Ondemand,
        Reader, //
    },
    volume::Volume, //
};
use core::{
    convert::Infallible,
    marker::PhantomData, //
};
use kernel::{
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// The entry points for caches of the mode `M`.
pub(crate) struct CacheFilesBackend<M>(PhantomData<M>);

#[vtable]
impl<M: Mode> Backend for CacheFilesBackend<M> {
    type OwnerModule = crate::LocalModule;
    type Cache = Arc<Cache<M>>;
    type Volume = Arc<Volume<M>>;
    type Object = KBox<Attachment<M>>;
    /// The data of an object is not replaced.
    type Old = Infallible;

    const NAME: &'static CStr = c"cachefiles";

    fn acquire_volume(
        cache: ArcBorrow<'_, Cache<M>>,
        volume: &FscacheVolume,
    ) -> Result<Arc<Volume<M>>> {
        let cache: Arc<Cache<M>> = cache.into();
        with_cred(cache.cred(), || {
            Volume::new(cache.clone(), volume)
                .inspect_err(|e| cache.mode().io_error(|| cache.probe_after_error(*e)))
        })
        .inspect_err(|e| kdebug!("volume {:x}: not cached: {:?}\n", volume.debug_id(), e))
    }

    fn free_volume(data: Arc<Volume<M>>, volume: &FscacheVolume) {
        let cache = data.cache().clone();
        with_cred(cache.cred(), || {
            data.finish(volume);
            drop(data);
        });
    }

    /// Looks an object up (`cachefiles_lookup_cookie()`).
    fn lookup_cookie(
        volume: ArcBorrow<'_, Volume<M>>,
        cookie: &Lookup<'_>,
    ) -> Result<Option<KBox<Attachment<M>>>> {
        Attachment::look_up(volume.into(), cookie)
            .inspect_err(|e| kdebug!("cookie {:x}: lookup failed: {:?}\n", cookie.debug_id(), e))
    }

    fn withdraw_cookie(object: KBox<Attachment<M>>, cookie: &Cookie) {
        KBox::into_inner(object).withdraw(cookie);
    }

    fn invalidate_cookie(object: &Attachment<M>, _cookie: &Cookie) -> Option<Infallible> {
        // The daemon is asked anew when the cookie is looked up next.
        object.retire();
        None
    }

    /// An on-demand cache takes sizes from the daemon only.
    fn resize_cookie(_object: &Attachment<M>, _cookie: &Cookie, _resize: Resize<'_>) {}

    /// Nobody but the daemon writes to an on-demand cache.
    fn prepare_to_write(_object: &Attachment<M>, _cookie: &Cookie) {}
}

impl CacheIo for CacheFilesBackend<Ondemand> {
    type Reader = Reader;

    /// Nobody but the daemon writes to an on-demand cache.
    const WRITE_ERROR: Error = ENOBUFS;

    /// All data comes from the cache: the only server is the daemon behind it.
    fn prepare_read(_object: &Attachment<Ondemand>, _subreq: ReadSubrequest<'_>) -> ReadSource {
        ReadSource::Cache
    }

    fn reader(object: &Attachment<Ondemand>) -> Reader {
        Reader::new(object.object().clone(), object.backing().clone())
    }

    fn read(reader: Reader, pos: i64, read: CacheRead) {
        reader.read(pos, read);
    }
}
