// SPDX-License-Identifier: GPL-2.0

//! What fscache and the network file systems library call.

use crate::{
    attachment::{
        Attachment,
        Replaced, //
    },
    cache::Cache,
    classic::{
        self,
        Classic, //
    },
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
            CacheWrite,
            CacheWriter,
            PreparedWrite,
            ReadSource,
            ReadSubrequest,
            WriteOps,
            WriteSubrequest, //
        }, //
    },
    mode::Mode,
    ondemand::{
        self,
        Ondemand, //
    },
    volume::Volume, //
};
use core::{
    marker::PhantomData,
    ops::Range, //
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

/// What fscache does to an object, which depends on the mode.
pub(crate) trait CookieOps: Mode {
    /// What an invalidation leaves behind. Dropped when the object can be used again.
    type Old;

    /// The data is not valid any more. `None` to have the object withdrawn.
    fn invalidate(attachment: &Attachment<Self>, cookie: &Cookie) -> Option<Self::Old>;

    /// The network file system gives the object another size.
    fn resize(attachment: &Attachment<Self>, cookie: &Cookie, resize: Resize<'_>);

    /// The network file system is about to write to the object.
    fn prepare_to_write(attachment: &Attachment<Self>, cookie: &Cookie);
}

impl CookieOps for Ondemand {
    type Old = ();

    /// The daemon is asked anew when the cookie is looked up next.
    fn invalidate(attachment: &Attachment<Self>, _cookie: &Cookie) -> Option<()> {
        attachment.files().retire();
        None
    }

    /// An on-demand cache takes sizes from the daemon only.
    fn resize(_attachment: &Attachment<Self>, _cookie: &Cookie, _resize: Resize<'_>) {}

    /// Nobody but the daemon writes to an on-demand cache.
    fn prepare_to_write(_attachment: &Attachment<Self>, _cookie: &Cookie) {}
}

impl CookieOps for Classic {
    type Old = Replaced;

    fn invalidate(attachment: &Attachment<Self>, cookie: &Cookie) -> Option<Replaced> {
        attachment
            .replace(cookie)
            .inspect_err(|_| attachment.files().current().backing.retire())
            .ok()
    }

    fn resize(attachment: &Attachment<Self>, cookie: &Cookie, resize: Resize<'_>) {
        let file = attachment.files().current();
        if let Err(e) = file.resize(attachment.cache(), cookie, resize.size()) {
            kdebug!("cookie {:x}: not resized: {:?}\n", cookie.debug_id(), e);
            // What the file holds is not known.
            file.backing.retire();
            cookie.withdraw();
        }
        resize.resized();
    }

    /// If it cannot be marked, the first write fails.
    fn prepare_to_write(attachment: &Attachment<Self>, cookie: &Cookie) {
        let _ = attachment
            .files()
            .current()
            .mark_dirty(attachment.cache(), cookie);
    }
}

#[vtable]
impl<M: CookieOps> Backend for CacheFilesBackend<M> {
    type OwnerModule = crate::LocalModule;
    type Cache = Arc<Cache<M>>;
    type Volume = Arc<Volume<M>>;
    type Object = KBox<Attachment<M>>;
    type Old = M::Old;

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

    fn withdraw_cookie(attachment: KBox<Attachment<M>>, cookie: &Cookie) {
        KBox::into_inner(attachment).withdraw(cookie);
    }

    fn invalidate_cookie(attachment: &Attachment<M>, cookie: &Cookie) -> Option<M::Old> {
        M::invalidate(attachment, cookie)
    }

    fn resize_cookie(attachment: &Attachment<M>, cookie: &Cookie, resize: Resize<'_>) {
        M::resize(attachment, cookie, resize);
    }

    fn prepare_to_write(attachment: &Attachment<M>, cookie: &Cookie) {
        M::prepare_to_write(attachment, cookie);
    }
}

impl CacheIo for CacheFilesBackend<Ondemand> {
    type Reader = ondemand::Reader;

    /// Nobody but the daemon writes to an on-demand cache.
    const WRITE_ERROR: Error = ENOBUFS;

    /// All data comes from the cache: the only server is the daemon behind it.
    fn prepare_read(_attachment: &Attachment<Ondemand>, _subreq: ReadSubrequest<'_>) -> ReadSource {
        ReadSource::Cache
    }

    fn reader(attachment: &Attachment<Ondemand>) -> ondemand::Reader {
        ondemand::Reader::new(attachment.object().clone(), attachment.files().clone())
    }

    fn read(reader: ondemand::Reader, pos: i64, read: CacheRead) {
        reader.read(pos, read);
    }
}

impl CacheIo for CacheFilesBackend<Classic> {
    type Reader = classic::Reader;

    const WRITES: WriteOps<Self> = WriteOps::WRITER;

    fn prepare_read(attachment: &Attachment<Classic>, subreq: ReadSubrequest<'_>) -> ReadSource {
        classic::prepare_read(&attachment.files().current().backing, subreq)
    }

    fn reader(attachment: &Attachment<Classic>) -> classic::Reader {
        classic::Reader::new(attachment.files().current().backing.clone())
    }

    fn read(reader: classic::Reader, pos: i64, read: CacheRead) {
        reader.read(pos, read);
    }

    fn query_occupancy(
        attachment: &Attachment<Classic>,
        range: Range<i64>,
        _granularity: usize,
    ) -> Result<Option<Range<i64>>> {
        Ok(attachment.files().current().backing.first_present(range))
    }
}

impl CacheWriter for CacheFilesBackend<Classic> {
    type Writer = classic::Writer;

    fn writer(attachment: &Attachment<Classic>) -> classic::Writer {
        classic::Writer {
            cache: attachment.cache().clone(),
            file: attachment.files().current(),
        }
    }

    /// The library's limits will do.
    fn prepare_write(_attachment: &Attachment<Classic>, _write: &mut PreparedWrite<'_>) -> Result {
        Ok(())
    }

    fn issue_write(writer: classic::Writer, subreq: WriteSubrequest) {
        writer.store_subrequest(subreq);
    }

    fn prepare_range(
        attachment: &Attachment<Classic>,
        range: Range<i64>,
        max: usize,
        file_size: i64,
        _nothing_there: bool,
    ) -> Result<Range<i64>> {
        Self::writer(attachment).prepare_range(range, max, file_size)
    }

    fn write(writer: classic::Writer, write: CacheWrite) {
        writer.store(write);
    }
}
