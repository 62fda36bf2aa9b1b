// SPDX-License-Identifier: GPL-2.0

//! A cache with a backend that counts what happens to it, seen from a network file system.

use kernel::prelude::*;

#[kunit_tests(rust_fscache)]
mod backend {
    use super::*;
    use crate::{
        bindings,
        kernel_next::{
            compat::{
                this_module,
                ENOBUFS,
                ESTALE, //
            },
            cred::NewCredential,
            fs::kernel_file::KernelFile,
            fscache::{
                Backend,
                Cache,
                CacheHandle,
                Cookie,
                Lookup,
                PreparedCache,
                Resize,
                Volume,
                DATA_MAX, //
            },
            kunit::{
                scratch,
                support::{
                    skip,
                    Count,
                    Memory,
                    OnDrop, //
                }, //
            },
            netfs::{
                CacheIo,
                CacheRead,
                CacheWrite,
                CacheWriter,
                PreparedWrite,
                ReadSource,
                ReadSubrequest,
                WriteEnd,
                WriteOps,
                WriteSubrequest, //
            },
            sync::completion::Completion,
            workqueue::ReclaimQueue, //
        },
    };
    use core::{
        marker::PhantomData,
        ops::Range, //
    };
    use kernel::{
        error::{
            from_err_ptr,
            to_result, //
        },
        iov::{
            IovIterDest,
            IovIterSource, //
        },
        new_mutex,
        page::PAGE_SIZE,
        sync::{
            aref::ARef,
            atomic::{
                ordering::Relaxed,
                Atomic, //
            },
            Arc,
            Mutex, //
        }, //
    };

    const NAME: &CStr = c"kunit";
    const BLOCK: usize = 4096;

    /// Keys of what the backend refuses.
    const BAD_VOLUME: &CStr = c"kunit,bad";
    const BAD_COOKIE: &[u8] = b"bad";
    const LATE_COOKIE: &[u8] = b"late";
    /// The key of what has nothing to be read.
    const EMPTY_COOKIE: &[u8] = b"empty";

    /// Where the backend reads from its file, forgets the request, fails it, keeps it. It keeps all
    /// writes; it refuses to prepare some.
    const READ: i64 = 0;
    const FORGET: i64 = 1 << 40;
    const FAIL: i64 = 1 << 41;
    const BRIEF: i64 = 1 << 42;
    const KEEP: i64 = 1 << 43;

    #[derive(Clone)]
    struct Counts {
        volumes: Count,
        freed: Count,
        lookups: Count,
        withdrawn: Count,
        /// Drops of the backend's data.
        cache_drops: Count,
        volume_drops: Count,
        object_drops: Count,
        /// How often the network file system was to write.
        prepared: Count,
        /// The size that it has given last.
        size: Arc<Atomic<i64>>,
        /// Requests that were kept, the last one at the end.
        kept: Arc<Mutex<KVec<CacheRead>>>,
        writes: Arc<Mutex<KVec<CacheWrite>>>,
        subreqs: Arc<Mutex<KVec<WriteSubrequest>>>,
        /// Whether caching goes on after an invalidation.
        goes_on: Arc<Atomic<bool>>,
        /// The state of the cookie when what was old went.
        old_state: Arc<Atomic<i64>>,
        /// Volumes that were given up as invalid.
        invalid: Count,
        handle: CacheHandle,
    }

    impl Counts {
        fn new(handle: CacheHandle) -> Result<Self> {
            Ok(Counts {
                volumes: Count::new()?,
                freed: Count::new()?,
                lookups: Count::new()?,
                withdrawn: Count::new()?,
                cache_drops: Count::new()?,
                volume_drops: Count::new()?,
                object_drops: Count::new()?,
                prepared: Count::new()?,
                size: Arc::new(Atomic::new(-1), GFP_KERNEL)?,
                kept: Arc::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?,
                writes: Arc::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?,
                subreqs: Arc::pin_init(new_mutex!(KVec::new()), GFP_KERNEL)?,
                goes_on: Arc::new(Atomic::new(false), GFP_KERNEL)?,
                old_state: Arc::new(Atomic::new(-1), GFP_KERNEL)?,
                invalid: Count::new()?,
                handle,
            })
        }

        fn last_write(&self) -> Result<CacheWrite> {
            self.writes.lock().pop().ok_or(ENOENT)
        }

        fn last_subreq(&self) -> Result<WriteSubrequest> {
            self.subreqs.lock().pop().ok_or(ENOENT)
        }

        fn last_kept(&self) -> Result<CacheRead> {
            self.kept.lock().pop().ok_or(ENOENT)
        }
    }

    struct Store {
        file: KernelFile,
        counts: Counts,
        _dropped: OnDrop,
    }

    struct StoreVolume {
        file: KernelFile,
        counts: Counts,
        _dropped: OnDrop,
    }

    struct Object {
        file: KernelFile,
        counts: Counts,
        _dropped: OnDrop,
    }

    /// What is left of an object's data that was thrown away.
    struct Old {
        cookie: ARef<Cookie>,
        state: Arc<Atomic<i64>>,
    }

    impl Drop for Old {
        fn drop(&mut self) {
            let cookie = self.cookie.as_ptr();
            // SAFETY: The cookie is valid; the access is volatile because others write.
            let state = unsafe { (&raw const (*cookie).state).read_volatile() };
            self.state.store(state.into(), Relaxed);
        }
    }

    /// A backend that can be written to, if it `WRITES`.
    struct Fake<const WRITES: bool>;

    #[vtable]
    impl<const WRITES: bool> Backend for Fake<WRITES> {
        type OwnerModule = crate::LocalModule;

        type Cache = KBox<Store>;
        type Volume = KBox<StoreVolume>;
        type Object = KBox<Object>;
        type Old = Old;

        const NAME: &'static CStr = c"kunit";

        fn acquire_volume(store: &Store, volume: &Volume) -> Result<KBox<StoreVolume>> {
            store.counts.volumes.add();
            if volume.key() == BAD_VOLUME.to_bytes() {
                return Err(EIO);
            }
            let new = StoreVolume {
                file: store.file.clone(),
                counts: store.counts.clone(),
                _dropped: store.counts.volume_drops.on_drop(),
            };
            Ok(KBox::new(new, GFP_KERNEL)?)
        }

        fn free_volume(data: KBox<StoreVolume>, volume: &Volume) {
            data.counts.freed.add();
            if volume.take_invalidate() {
                data.counts.invalid.add();
            }
            assert!(!volume.take_invalidate());
        }

        fn lookup_cookie(
            volume: &StoreVolume,
            cookie: &Lookup<'_>,
        ) -> Result<Option<KBox<Object>>> {
            volume.counts.lookups.add();
            if cookie.key() == BAD_COOKIE {
                return Err(EIO);
            }
            if cookie.key() == LATE_COOKIE && volume.counts.lookups.get() == 1 {
                cookie.put_off();
                return Ok(None);
            }
            cookie.set_object_size(BLOCK as u64)?;
            if cookie.key() == EMPTY_COOKIE {
                cookie.found(false);
            }
            let new = Object {
                file: volume.file.clone(),
                counts: volume.counts.clone(),
                _dropped: volume.counts.object_drops.on_drop(),
            };
            Ok(Some(KBox::new(new, GFP_KERNEL)?))
        }

        fn withdraw_cookie(object: KBox<Object>, _cookie: &Cookie) {
            object.counts.withdrawn.add();
        }

        fn invalidate_cookie(object: &Object, cookie: &Cookie) -> Option<Old> {
            let old = Old {
                cookie: cookie.into(),
                state: object.counts.old_state.clone(),
            };
            object.counts.goes_on.load(Relaxed).then_some(old)
        }

        fn resize_cookie(object: &Object, cookie: &Cookie, resize: Resize<'_>) {
            object.counts.size.store(resize.size(), Relaxed);
            assert_eq!(cookie.object_size(), BLOCK as i64);
            resize.resized();
        }

        fn prepare_to_write(object: &Object, _cookie: &Cookie) {
            object.counts.prepared.add();
        }
    }

    impl<const WRITES: bool> CacheIo for Fake<WRITES> {
        type Reader = (KernelFile, Arc<Mutex<KVec<CacheRead>>>);

        const WRITE_ERROR: Error = ENOSPC;
        const WRITES: WriteOps<Self> = if WRITES {
            WriteOps::WRITER
        } else {
            WriteOps::REFUSED
        };

        fn prepare_read(_object: &Object, mut subreq: ReadSubrequest<'_>) -> ReadSource {
            if subreq.start() == KEEP as u64 {
                // Neither is an end of it.
                subreq.shorten(0);
                subreq.shorten(subreq.len() + 1);
                assert_eq!(subreq.len(), BLOCK);
                subreq.shorten(100);
                subreq.copy_to_cache();
                return ReadSource::Server;
            }
            match subreq.start() + subreq.len() as u64 <= subreq.file_size() {
                true => ReadSource::Cache,
                false => ReadSource::Zeroes,
            }
        }

        fn reader(object: &Object) -> Self::Reader {
            (object.file.clone(), object.counts.kept.clone())
        }

        fn read((file, kept): Self::Reader, pos: i64, read: CacheRead) {
            match pos {
                FORGET => drop(read),
                FAIL => read.fail(ENOSPC),
                BRIEF => read.end_in_brief(Err(ENODEV)),
                // Without memory it is dropped, which the test sees.
                KEEP => drop(kept.lock().push(read, GFP_KERNEL)),
                _ => {
                    let since = file.sample_write_errors();
                    read.read_direct(file.begin_read(since), pos, |_, _| {})
                }
            }
        }
    }

    impl<const WRITES: bool> CacheWriter for Fake<WRITES> {
        type Writer = Counts;

        fn writer(object: &Object) -> Counts {
            object.counts.clone()
        }

        fn prepare_write(_object: &Object, write: &mut PreparedWrite<'_>) -> Result {
            if write.start() == FAIL as u64 {
                return Err(EDQUOT);
            }
            write.limit_len(4 * BLOCK);
            write.limit_len(8 * BLOCK);
            write.limit_segments(0);
            Ok(())
        }

        fn issue_write(counts: Counts, subreq: WriteSubrequest) {
            // Without memory it is dropped, which the test sees.
            let _pushed = counts.subreqs.lock().push(subreq, GFP_KERNEL);
        }

        fn prepare_range(
            _object: &Object,
            range: Range<i64>,
            max: usize,
            file_size: i64,
            nothing_there: bool,
        ) -> Result<Range<i64>> {
            if range.start == FAIL {
                return Err(EDQUOT);
            }
            assert_eq!((max, file_size, nothing_there), (7, 8, true));
            // CAST: The size of a page.
            let page = PAGE_SIZE as i64;
            match range.start {
                KEEP => Ok(range.start..range.end + page),
                _ => Ok(range.start - range.start % page..range.end),
            }
        }

        fn write(counts: Counts, write: CacheWrite) {
            // As above.
            let _pushed = counts.writes.lock().push(write, GFP_KERNEL);
        }
    }

    /// A file with a block of data.
    fn file() -> Result<KernelFile> {
        let dir = scratch::dir(b"kunit-fscache")?;
        let write = dir.mount().want_write()?;
        let file = KernelFile::tmpfile(&write, &dir, &NewCredential::kernel()?.into_credential())?;
        // Writing takes it, too.
        drop(write);
        let mut memory = Memory::new(BLOCK, b'c')?;
        let mut iter = memory.iter(bindings::ITER_SOURCE);
        // SAFETY: The iterator is a source, and valid for the call.
        file.write(0, unsafe { IovIterSource::from_raw(&mut iter) })?;
        file.write_and_wait()?;
        Ok(file)
    }

    /// A cache in service.
    fn cache() -> Result<(Cache<Fake<true>>, Counts)> {
        cache_of()
    }

    fn cache_of<const WRITES: bool>() -> Result<(Cache<Fake<WRITES>>, Counts)> {
        let prepared = PreparedCache::new(NAME)?;
        let counts = Counts::new(prepared.handle())?;
        let store = Store {
            file: file()?,
            counts: counts.clone(),
            _dropped: counts.cache_drops.on_drop(),
        };
        let cache = prepared.register::<Fake<WRITES>>(KBox::new(store, GFP_KERNEL)?)?;
        Ok((cache, counts))
    }

    /// A network file system's volume.
    struct NetfsVolume(*mut bindings::fscache_volume);

    impl NetfsVolume {
        fn new(key: &CStr, coherency: &[u8]) -> Result<Self> {
            // SAFETY: The strings are terminated, the data is as long as said.
            let ptr = unsafe {
                bindings::__fscache_acquire_volume(
                    key.as_char_ptr(),
                    NAME.as_char_ptr(),
                    coherency.as_ptr().cast(),
                    coherency.len(),
                )
            };
            Ok(NetfsVolume(from_err_ptr(ptr)?))
        }

        fn as_ref(&self) -> &Volume {
            // SAFETY: A reference is held.
            unsafe { Volume::from_raw(self.0) }
        }

        /// How many objects the cache counts.
        fn objects(&self) -> i32 {
            // SAFETY: The volume is valid, and keeps its cache; all accesses are atomic.
            unsafe { Atomic::from_ptr(&raw mut (*(*self.0).cache).object_count.counter) }
                .load(Relaxed)
        }
    }

    impl Drop for NetfsVolume {
        fn drop(&mut self) {
            // SAFETY: The reference that is held is given up.
            unsafe { bindings::__fscache_relinquish_volume(self.0, core::ptr::null(), false) };
        }
    }

    /// A network file system's cookie, in use.
    struct NetfsCookie<'a>(*mut bindings::fscache_cookie, PhantomData<&'a NetfsVolume>);

    impl<'a> NetfsCookie<'a> {
        fn new(volume: &'a NetfsVolume, key: &[u8], aux: &[u8]) -> Result<Self> {
            // SAFETY: The volume is valid, the data is as long as said. CAST: The advice is a bit.
            let ptr = unsafe {
                bindings::__fscache_acquire_cookie(
                    volume.0,
                    bindings::FSCACHE_ADV_WANT_CACHE_SIZE as u8,
                    key.as_ptr().cast(),
                    key.len(),
                    aux.as_ptr().cast(),
                    aux.len(),
                    0,
                )
            };
            if ptr.is_null() {
                return Err(ENOMEM);
            }
            // SAFETY: The cookie is valid.
            unsafe { bindings::__fscache_use_cookie(ptr, false) };
            Ok(NetfsCookie(ptr, PhantomData))
        }

        fn as_ref(&self) -> &Cookie {
            // SAFETY: A reference is held.
            unsafe { Cookie::from_raw(self.0) }
        }

        /// Begins to read; waits for the lookup.
        fn begin(&self) -> Result<Reading<'_>> {
            let mut cres = KBox::new(bindings::netfs_cache_resources::default(), GFP_KERNEL)?;
            // SAFETY: The cookie is valid, and in use.
            to_result(unsafe { bindings::__fscache_begin_read_operation(&mut *cres, self.0) })?;
            Ok(Reading(cres, PhantomData))
        }

        /// Starts a lookup, with another use, once the last one has ended.
        fn look_up_again(&self) {
            let quiescent = bindings::fscache_cookie_state_FSCACHE_COOKIE_STATE_QUIESCENT;
            // SAFETY: The cookie is valid; the access is volatile because others write.
            while unsafe { (&raw const (*self.0).state).read_volatile() } != quiescent {
                kernel::time::delay::fsleep(kernel::time::Delta::from_millis(5));
            }
            // SAFETY: The cookie is valid; the use is given back.
            unsafe {
                bindings::__fscache_use_cookie(self.0, false);
                bindings::__fscache_unuse_cookie(self.0, core::ptr::null(), core::ptr::null());
            }
        }

        /// Has what is cached thrown away, as after a change on the server.
        fn invalidate(&self) {
            // SAFETY: The cookie is valid, and keeps its auxiliary data.
            unsafe {
                bindings::__fscache_invalidate(self.0, core::ptr::null(), BLOCK as i64, 0);
            }
        }

        fn object_size(&self) -> i64 {
            // SAFETY: The cookie is valid, and not being looked up.
            unsafe { (*self.0).object_size }
        }
    }

    impl Drop for NetfsCookie<'_> {
        fn drop(&mut self) {
            // SAFETY: The use and the reference that are held are given up.
            unsafe {
                bindings::__fscache_unuse_cookie(self.0, core::ptr::null(), core::ptr::null());
                bindings::__fscache_relinquish_cookie(self.0, false);
            }
        }
    }

    /// An operation on a cookie.
    struct Reading<'a>(
        KBox<bindings::netfs_cache_resources>,
        PhantomData<&'a NetfsCookie<'a>>,
    );

    impl Reading<'_> {
        fn ops(&self) -> &bindings::netfs_cache_ops {
            // SAFETY: An operation that has begun has some.
            unsafe { &*self.0.ops }
        }
    }

    impl Drop for Reading<'_> {
        fn drop(&mut self) {
            if let Some(end) = self.ops().end_operation {
                // SAFETY: The operation has begun, and ends once.
                unsafe { end(&mut *self.0) };
            }
        }
    }

    /// How a request ended.
    #[pin_data]
    struct Outcome {
        #[pin]
        over: Completion,
        told: Count,
        /// How often that was where nobody may sleep.
        in_brief: Count,
        ret: Atomic<i64>,
    }

    impl Outcome {
        fn new() -> Result<Arc<Self>> {
            let (told, in_brief) = (Count::new()?, Count::new()?);
            let new = pin_init!(Outcome {
                over <- Completion::new(),
                told,
                in_brief,
                ret: Atomic::new(1),
            });
            Arc::pin_init(new, GFP_KERNEL)
        }

        /// # Safety
        ///
        /// `data` must be a valid outcome.
        unsafe extern "C" fn tell(data: *mut c_void, ret: isize) {
            // SAFETY: As the caller guarantees.
            let this = unsafe { &*data.cast::<Outcome>() };
            this.ret.store(ret as i64, Relaxed);
            this.told.add();
            // SAFETY: No preconditions.
            if unsafe { bindings::kunit_is_rcu_reader() } {
                this.in_brief.add();
            }
            this.over.complete_all();
        }

        fn as_data(self: &Arc<Self>) -> *mut c_void {
            core::ptr::from_ref(&**self).cast_mut().cast()
        }

        /// Waits for what is told, which has to be once.
        fn wait(&self) -> Result<i64> {
            // A busy machine may take its time; KUnit ends what hangs, before this.
            let timeout = kernel::time::msecs_to_jiffies(36_000_000);
            if self
                .over
                .wait_for_completion_killable_timeout(timeout)?
                .is_none()
            {
                return Err(ETIMEDOUT);
            }
            assert_eq!(self.told.get(), 1);
            Ok(self.ret.load(Relaxed))
        }
    }

    /// Begins to read a block at `pos`; returns what the call said.
    ///
    /// # Safety
    ///
    /// The memory and the outcome must stay until the outcome is told.
    unsafe fn submit(
        reading: &mut Reading<'_>,
        pos: i64,
        memory: &mut Memory,
        outcome: &Arc<Outcome>,
    ) -> Result<i32> {
        let mut iter = memory.iter(bindings::ITER_DEST);
        let op = reading.ops().read.ok_or(EINVAL)?;
        // SAFETY: The iterator is valid for the call, the rest as the caller guarantees.
        Ok(unsafe {
            op(
                &mut *reading.0,
                pos,
                &mut iter,
                bindings::netfs_read_from_hole_NETFS_READ_HOLE_FAIL,
                Some(Outcome::tell),
                outcome.as_data(),
            )
        })
    }

    /// Reads a block at `pos`; returns what the call said and what was told, once.
    fn read(reading: &mut Reading<'_>, pos: i64, memory: &mut Memory) -> Result<(i32, i64)> {
        let outcome = Outcome::new()?;
        // SAFETY: It is waited until the outcome is told.
        let ret = unsafe { submit(reading, pos, memory, &outcome)? };
        let told = outcome.wait()?;
        // Without a count of what forbids preemption, everything may be in brief.
        if pos == BRIEF || cfg!(CONFIG_PREEMPT_COUNT) {
            assert_eq!(outcome.in_brief.get(), i32::from(pos == BRIEF));
        }
        Ok((ret, told))
    }

    /// Waits until something is so: fscache frees in the background.
    fn comes_to_be(is_so: impl Fn() -> bool) -> bool {
        for _ in 0..2000 {
            if is_so() {
                return true;
            }
            kernel::time::delay::fsleep(kernel::time::Delta::from_millis(5));
        }
        false
    }

    /// Waits until `count` is `n`.
    fn becomes(count: &Count, n: i32) -> bool {
        comes_to_be(|| count.get() == n)
    }

    #[test]
    fn names_are_taken_once() -> Result {
        let name = PreparedCache::new(NAME)?;
        assert_eq!(PreparedCache::new(NAME).err(), Some(EBUSY));
        drop(name);
        drop(PreparedCache::new(NAME)?);
        Ok(())
    }

    #[test]
    fn caches_keep_their_module() -> Result {
        let module = this_module::<crate::LocalModule>().as_ptr();
        if module.is_null() || !cfg!(CONFIG_MODULE_UNLOAD) {
            skip(c"the backend cannot be unloaded");
        }
        // SAFETY: This is the module that runs.
        let references = || unsafe { bindings::kunit_module_refcount(module) };
        let before = references();
        let prepared = PreparedCache::new(NAME)?;
        assert_eq!(references(), before);
        drop(prepared);
        let (mut cache, _counts) = cache()?;
        assert_eq!(references(), before + 1);
        // It may be called until the end.
        cache.withdraw();
        assert_eq!(references(), before + 1);
        drop(cache);
        assert_eq!(references(), before);
        Ok(())
    }

    #[test]
    fn a_lookup_that_was_put_off_is_made_again() -> Result {
        let (cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", &[])?;
        let cookie = NetfsCookie::new(&volume, LATE_COOKIE, &[])?;
        let this = cookie.as_ref();
        assert_eq!(cookie.begin().err(), Some(ENOBUFS));
        assert_eq!(counts.lookups.get(), 1);
        assert_eq!(cookie.object_size(), EIOCBQUEUED.to_errno().into());
        // No answer can be taken for that there is none yet.
        for (answer, size) in [
            (Err(ENOENT), ENOENT.to_errno().into()),
            (Err(EIOCBQUEUED), EIO.to_errno().into()),
            (Ok(u64::MAX), EFBIG.to_errno().into()),
            (Ok(4096), 4096),
        ] {
            this.answer(answer);
            this.wake();
            assert_eq!(cookie.object_size(), size);
        }
        assert!(this.is_in_use());
        cookie.look_up_again();
        assert!(cookie.begin().is_ok());
        assert_eq!(counts.lookups.get(), 2);
        assert!(this.is_in_use());
        drop(cookie);
        assert!(becomes(&counts.object_drops, 1));
        drop(volume);
        drop(cache);
        Ok(())
    }

    #[test]
    fn keys_and_data_are_those_of_the_netfs() -> Result {
        let volume = NetfsVolume::new(c"kunit,v", &[7, 8, 9])?;
        assert_eq!(volume.as_ref().key(), b"kunit,v");
        let mut buf = [0xee; DATA_MAX];
        assert_eq!(volume.as_ref().coherency(&mut buf), &[7, 8, 9]);
        assert_eq!(buf[3], 0xee);
        // Keys are kept inline up to some length, and in memory of their own beyond.
        let (short, long) = ([b'k'; 3], [0xff; 255]);
        for key in [&short[..], &long[..]] {
            for aux in [&short[..], &long[..]] {
                let cookie = NetfsCookie::new(&volume, key, aux)?;
                let this = cookie.as_ref();
                assert_eq!(this.key(), key);
                assert_eq!(this.aux(&mut [0; DATA_MAX]), aux);
                assert!(core::ptr::eq(this.volume(), volume.as_ref()));
                assert!(this.wants_cache_size());
                assert!(!this.is_given_up() && !this.is_retired());
                // There is no cache.
                assert_eq!(cookie.begin().err(), Some(ENOBUFS));
                drop(ARef::from(this));
            }
        }
        Ok(())
    }

    #[test]
    fn everything_is_dropped_once_by_the_netfs() -> Result {
        let (cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        drop(cookie.begin()?);
        assert_eq!(counts.lookups.get(), 1);
        assert_eq!(cookie.object_size(), BLOCK as i64);
        assert_eq!(counts.object_drops.get(), 0);
        drop(cookie);
        assert!(becomes(&counts.object_drops, 1));
        assert_eq!(counts.withdrawn.get(), 1);
        assert_eq!(counts.volume_drops.get(), 0);
        drop(volume);
        assert!(becomes(&counts.volume_drops, 1));
        assert_eq!((counts.volumes.get(), counts.freed.get()), (1, 1));
        assert_eq!(counts.cache_drops.get(), 0);
        drop(cache);
        assert_eq!(counts.cache_drops.get(), 1);
        assert_eq!(
            (counts.object_drops.get(), counts.volume_drops.get()),
            (1, 1)
        );
        Ok(())
    }

    #[test]
    fn everything_is_dropped_once_by_a_withdrawal() -> Result {
        let (mut cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let one = NetfsCookie::new(&volume, b"one", b"")?;
        let two = NetfsCookie::new(&volume, b"two", b"")?;
        drop((one.begin()?, two.begin()?));
        cache.withdraw();
        let dropped = (counts.object_drops.get(), counts.volume_drops.get());
        assert_eq!(dropped, (2, 1));
        assert_eq!((counts.withdrawn.get(), counts.freed.get()), (2, 1));
        assert_eq!(counts.cache_drops.get(), 0);
        assert_eq!(one.begin().err(), Some(ENOBUFS));
        // Once is enough.
        cache.withdraw();
        drop(cache);
        assert_eq!(counts.cache_drops.get(), 1);
        assert_eq!(two.begin().err(), Some(ENOBUFS));
        // The name is free, while the netfs still has its volume and cookies.
        drop(PreparedCache::new(NAME)?);
        drop((one, two));
        drop(volume);
        assert_eq!(
            (counts.object_drops.get(), counts.volume_drops.get()),
            (2, 1)
        );
        Ok(())
    }

    #[test]
    fn many_volumes_can_be_withdrawn() -> Result {
        let (mut cache, counts) = cache()?;
        let keys = [
            c"kunit,0", c"kunit,1", c"kunit,2", c"kunit,3", c"kunit,4", c"kunit,5", c"kunit,6",
            c"kunit,7", c"kunit,8", c"kunit,9",
        ];
        let mut volumes = KVec::new();
        for key in keys {
            let volume = NetfsVolume::new(key, b"")?;
            let cookie = NetfsCookie::new(&volume, b"key", b"")?;
            drop(cookie.begin()?);
            drop(cookie);
            volumes.push(volume, GFP_KERNEL)?;
        }
        assert!(becomes(&counts.object_drops, 10));
        // Half of them go by themselves.
        volumes.truncate(5);
        assert!(becomes(&counts.volume_drops, 5));
        cache.withdraw();
        assert_eq!((counts.volumes.get(), counts.freed.get()), (10, 10));
        assert_eq!(counts.volume_drops.get(), 10);
        Ok(())
    }

    #[test]
    fn what_the_backend_refuses_is_not_cached() -> Result {
        let (cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, BAD_COOKIE, b"")?;
        assert_eq!(cookie.begin().err(), Some(ENOBUFS));
        assert_eq!(counts.lookups.get(), 1);
        // It says why.
        assert_eq!(cookie.object_size(), i64::from(EIO.to_errno()));
        let bad = NetfsVolume::new(BAD_VOLUME, b"")?;
        let in_bad = NetfsCookie::new(&bad, b"key", b"")?;
        assert_eq!(in_bad.begin().err(), Some(ENOBUFS));
        assert_eq!(counts.lookups.get(), 1);
        drop((cookie, in_bad));
        drop((volume, bad));
        drop(cache);
        assert_eq!((counts.withdrawn.get(), counts.object_drops.get()), (0, 0));
        assert_eq!((counts.freed.get(), counts.volume_drops.get()), (1, 1));
        assert_eq!(counts.cache_drops.get(), 1);
        Ok(())
    }

    #[test]
    fn reads_are_told_once() -> Result {
        let (_cache, _counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut reading = cookie.begin()?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        let queued = -(bindings::EIOCBQUEUED as i32);
        let told = |e: Error| i64::from(e.to_errno());
        assert_eq!(
            read(&mut reading, FORGET, &mut memory),
            Ok((queued, told(EIO)))
        );
        assert_eq!(
            read(&mut reading, FAIL, &mut memory),
            Ok((queued, told(ENOSPC)))
        );
        assert_eq!(
            read(&mut reading, BRIEF, &mut memory),
            Ok((queued, told(ENODEV)))
        );
        assert!(memory.bytes().iter().all(|byte| *byte == b'?'));
        assert_eq!(
            read(&mut reading, READ, &mut memory),
            Ok((queued, BLOCK as i64))
        );
        assert!(memory.bytes().iter().all(|byte| *byte == b'c'));
        Ok(())
    }

    #[test]
    fn reads_are_stale_that_end_after_an_invalidation() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut reading = cookie.begin()?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        let stale = i64::from(ESTALE.to_errno());
        let outcomes = [
            Outcome::new()?,
            Outcome::new()?,
            Outcome::new()?,
            Outcome::new()?,
        ];
        for outcome in &outcomes {
            // SAFETY: All that are kept are ended and waited for below.
            unsafe { submit(&mut reading, KEEP, &mut memory, outcome)? };
        }
        let [failed, direct, finished, before] = outcomes;
        counts.last_kept()?.finish();
        assert_eq!(before.wait(), Ok(0));
        cookie.invalidate();
        counts.last_kept()?.finish();
        assert_eq!(finished.wait(), Ok(stale));
        let file = file()?;
        let since = file.sample_write_errors();
        counts
            .last_kept()?
            .read_direct(file.begin_read(since), READ, |_, _| {});
        assert_eq!(direct.wait(), Ok(stale));
        // An error says more.
        counts.last_kept()?.fail(ENOSPC);
        assert_eq!(failed.wait(), Ok(i64::from(ENOSPC.to_errno())));
        drop(reading);
        assert!(becomes(&counts.object_drops, 1));
        Ok(())
    }

    #[test]
    fn reads_are_not_counted_as_objects() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        assert_eq!(volume.objects(), 0);
        let one = NetfsCookie::new(&volume, b"one", b"")?;
        let two = NetfsCookie::new(&volume, b"two", b"")?;
        let mut reading = one.begin()?;
        drop(two.begin()?);
        assert_eq!(volume.objects(), 2);
        let mut memory = Memory::new(BLOCK, b'?')?;
        let outcomes = [Outcome::new()?, Outcome::new()?, Outcome::new()?];
        for outcome in &outcomes {
            // SAFETY: All are ended and waited for below.
            unsafe { submit(&mut reading, KEEP, &mut memory, outcome)? };
        }
        let while_reading = volume.objects();
        for outcome in outcomes.iter().rev() {
            counts.last_kept()?.finish();
            assert_eq!(outcome.wait(), Ok(0));
        }
        assert_eq!(while_reading, 2);
        assert_eq!(volume.objects(), 2);
        drop(reading);
        drop((one, two));
        assert!(comes_to_be(|| volume.objects() == 0));
        assert_eq!(counts.object_drops.get(), 2);
        Ok(())
    }

    /// Whoever is told of the end of a read, and then ends the operation and withdraws the cookie.
    struct Withdrawer<'a> {
        volume: &'a NetfsVolume,
        cookie: &'a NetfsCookie<'a>,
        reading: Option<Reading<'a>>,
        object_drops: Count,
        /// How many objects were counted after that.
        objects: Option<i32>,
    }

    impl Withdrawer<'_> {
        /// # Safety
        ///
        /// `data` must be a valid `Withdrawer` that nobody else uses during the call. May sleep.
        unsafe extern "C" fn tell(data: *mut c_void, _ret: isize) {
            // SAFETY: As the caller guarantees.
            let this = unsafe { &mut *data.cast::<Withdrawer<'_>>() };
            this.reading = None;
            this.cookie.as_ref().withdraw();
            if becomes(&this.object_drops, 1) {
                // The worker that withdraws may not have got to the end yet.
                kernel::time::delay::fsleep(kernel::time::Delta::from_millis(50));
                this.objects = Some(this.volume.objects());
            }
        }
    }

    #[test]
    fn a_cache_waits_for_those_who_are_being_told() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut iter = memory.iter(bindings::ITER_DEST);
        let mut teller = KBox::new(
            Withdrawer {
                volume: &volume,
                cookie: &cookie,
                reading: Some(cookie.begin()?),
                object_drops: counts.object_drops.clone(),
                objects: None,
            },
            GFP_KERNEL,
        )?;
        let reading = teller.reading.as_mut().ok_or(EINVAL)?;
        let op = reading.ops().read.ok_or(EINVAL)?;
        let res: *mut _ = &mut *reading.0;
        let data: *mut Withdrawer<'_> = &mut *teller;
        let hole = bindings::netfs_read_from_hole_NETFS_READ_HOLE_FAIL;
        // SAFETY: All are valid until the request is ended, below.
        let ret = unsafe {
            op(
                res,
                KEEP,
                &mut iter,
                hole,
                Some(Withdrawer::tell),
                data.cast(),
            )
        };
        assert_eq!(ret, -(bindings::EIOCBQUEUED as i32));
        counts.last_kept()?.fail(EIO);
        // Its object was gone, but not whoever returns to the module.
        assert_eq!(teller.objects, Some(1));
        assert!(comes_to_be(|| volume.objects() == 0));
        Ok(())
    }

    #[test]
    fn reads_into_user_memory_are_refused() -> Result {
        let (_cache, _counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut reading = cookie.begin()?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut iter = memory.iter(bindings::ITER_DEST);
        // CAST: A small number.
        iter.iter_type = bindings::iter_type_ITER_UBUF as u8;
        let outcome = Outcome::new()?;
        let op = reading.ops().read.ok_or(EINVAL)?;
        let hole = bindings::netfs_read_from_hole_NETFS_READ_HOLE_FAIL;
        let data = outcome.as_data();
        let tell: bindings::netfs_io_terminated_t = Some(Outcome::tell);
        // SAFETY: The iterator is not looked into; the rest is valid.
        let ret = unsafe { op(&mut *reading.0, READ, &mut iter, hole, tell, data) };
        assert_eq!(ret, EINVAL.to_errno());
        assert_eq!(outcome.told.get(), 1);
        assert_eq!(outcome.ret.load(Relaxed), i64::from(EINVAL.to_errno()));
        // Nobody wants to know: nothing is read.
        // SAFETY: As above.
        let ret = unsafe { op(&mut *reading.0, READ, &mut iter, hole, None, data) };
        assert_eq!(ret, EINVAL.to_errno());
        assert_eq!(outcome.told.get(), 1);
        Ok(())
    }

    #[test]
    fn the_backend_says_where_to_read_from() -> Result {
        let (_cache, _counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut reading = cookie.begin()?;
        let op = reading.ops().prepare_read.ok_or(EINVAL)?;
        let mut rreq = KBox::new(bindings::netfs_io_request::default(), GFP_KERNEL)?;
        core::mem::swap(&mut rreq.cache_resources, &mut *reading.0);
        let mut subreq = KBox::new(bindings::netfs_io_subrequest::default(), GFP_KERNEL)?;
        subreq.rreq = &mut *rreq;
        subreq.len = BLOCK;
        // SAFETY: The operation is under way; what else is looked at is filled in.
        let mut source = |size| unsafe { op(&mut *subreq, size) };
        let sources = (source(BLOCK as u64), source(0));
        let unchanged = (subreq.len, subreq.flags);
        subreq.start = KEEP as u64;
        // SAFETY: As above.
        let partly = unsafe { op(&mut *subreq, 0) };
        let changed = (subreq.len, subreq.flags);
        core::mem::swap(&mut rreq.cache_resources, &mut *reading.0);
        assert_eq!(sources.0, bindings::netfs_io_source_NETFS_READ_FROM_CACHE);
        assert_eq!(sources.1, bindings::netfs_io_source_NETFS_FILL_WITH_ZEROES);
        assert_eq!(unchanged, (BLOCK, 0));
        let server = bindings::netfs_io_source_NETFS_DOWNLOAD_FROM_SERVER;
        assert_eq!(partly, server);
        assert_eq!(changed, (100, 1 << bindings::NETFS_SREQ_COPY_TO_CACHE));
        Ok(())
    }

    #[test]
    fn changes_are_told_to_the_backend() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        drop(cookie.begin()?);
        // SAFETY: The cookie is valid, and in use; the other use is given back.
        unsafe {
            bindings::__fscache_resize_cookie(cookie.0, 4711);
            bindings::__fscache_use_cookie(cookie.0, true);
            bindings::__fscache_unuse_cookie(cookie.0, core::ptr::null(), core::ptr::null());
        }
        assert_eq!(counts.size.load(Relaxed), 4711);
        let this = cookie.as_ref();
        assert_eq!(this.object_size(), 4711);
        // The first is by fscache, for the resize.
        assert!(this.take_needs_update() && !this.take_needs_update());
        this.set_needs_update();
        assert!(this.take_needs_update());
        assert!(this.is_local_write());
        assert!(this.take_local_write() && !this.take_local_write());
        assert!(!this.is_local_write());
        assert!(becomes(&counts.prepared, 1));
        Ok(())
    }

    #[test]
    fn the_backend_says_whether_there_is_data() -> Result {
        let (_cache, _counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let some = NetfsCookie::new(&volume, b"key", b"")?;
        let none = NetfsCookie::new(&volume, EMPTY_COOKIE, b"")?;
        drop((some.begin()?, none.begin()?));
        assert!(!some.as_ref().has_no_data());
        let this = none.as_ref();
        assert!(this.has_no_data());
        // It is the network file system that goes by what was written.
        this.set_have_data();
        assert!(this.has_no_data());
        // SAFETY: The cookie is valid; all accesses to the flags are atomic.
        let flags: &Atomic<usize> = unsafe { Atomic::from_ptr(&raw mut (*none.0).flags) };
        assert!(flags.load(Relaxed) & 1 << bindings::FSCACHE_COOKIE_HAVE_DATA != 0);
        Ok(())
    }

    #[test]
    fn operations_go_on_before_old_data_is_gone() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        drop(cookie.begin()?);
        counts.goes_on.store(true, Relaxed);
        assert!(!cookie.as_ref().has_no_data());
        cookie.invalidate();
        let active = bindings::fscache_cookie_state_FSCACHE_COOKIE_STATE_ACTIVE;
        assert!(comes_to_be(
            || counts.old_state.load(Relaxed) == i64::from(active)
        ));
        assert!(cookie.as_ref().has_no_data());
        drop(cookie.begin()?);
        assert_eq!((counts.lookups.get(), counts.object_drops.get()), (1, 0));
        Ok(())
    }

    #[test]
    fn volumes_are_given_up_as_invalid() -> Result {
        let (_cache, counts) = cache()?;
        for invalid in [false, true] {
            let volume = NetfsVolume::new(c"kunit,v", b"")?;
            let cookie = NetfsCookie::new(&volume, b"key", b"")?;
            drop(cookie.begin()?);
            drop(cookie);
            let raw = volume.0;
            core::mem::forget(volume);
            // SAFETY: The reference that was held is given up.
            unsafe { bindings::__fscache_relinquish_volume(raw, core::ptr::null(), invalid) };
            assert!(becomes(&counts.freed, 1 + i32::from(invalid)));
            assert_eq!(counts.invalid.get(), i32::from(invalid));
        }
        Ok(())
    }

    #[test]
    fn caches_can_be_stopped() -> Result {
        let prepared = PreparedCache::new(NAME)?;
        // It is not in service yet, and then not any more.
        let handle = prepared.handle();
        handle.io_error();
        drop(prepared);
        handle.io_error();
        let (cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        drop(cookie.begin()?);
        handle.io_error();
        let state = || {
            // SAFETY: The volume is valid, and keeps its cache; the access is volatile because
            // others write.
            unsafe { (&raw const (*(*volume.0).cache).state).read_volatile() }
        };
        assert_eq!(
            state(),
            bindings::fscache_cache_state_FSCACHE_CACHE_IS_ACTIVE
        );
        let stopped = bindings::fscache_cache_state_FSCACHE_CACHE_GOT_IOERROR;
        let mut subreq = Subreq::new(&cookie, 0, BLOCK, 0)?;
        counts.handle.io_error();
        counts.handle.io_error();
        assert_eq!(state(), stopped);
        // What is under way ends.
        subreq.prepare()?;
        assert_eq!(subreq.error(), Err(ENOBUFS));
        let mut subreq = Subreq::again(subreq);
        subreq.issue()?;
        assert_eq!(subreq.error(), Err(ENOBUFS));
        assert!(counts.last_subreq().is_err());
        drop(subreq);
        drop(cookie);
        drop(volume);
        drop(cache);
        // It is gone.
        counts.handle.io_error();
        Ok(())
    }

    /// A part of a write-back, from memory with the bytes 0, 1, 2, ... 250, 0, ...
    struct Subreq<'a> {
        writing: Reading<'a>,
        memory: Memory,
        rreq: KBox<bindings::netfs_io_request>,
        raw: KBox<bindings::netfs_io_subrequest>,
    }

    impl<'a> Subreq<'a> {
        /// What ends at the end of the file, with so many bytes behind it.
        fn new(
            cookie: &'a NetfsCookie<'_>,
            start: u64,
            len: usize,
            behind: usize,
        ) -> Result<Subreq<'a>> {
            let mut data = KVec::new();
            for i in 0..len + behind {
                // CAST: Less than 251.
                data.push((i % 251) as u8, GFP_KERNEL)?;
            }
            let mut memory = Memory::new(data.len(), b'?')?;
            let mut raw = memory.iter(bindings::ITER_DEST);
            // SAFETY: It is a valid destination.
            unsafe { IovIterDest::from_raw(&mut raw) }.copy_to_iter(&data);
            let mut rreq = KBox::new(bindings::netfs_io_request::default(), GFP_KERNEL)?;
            let mut raw = KBox::new(bindings::netfs_io_subrequest::default(), GFP_KERNEL)?;
            let mut writing = cookie.begin()?;
            core::mem::swap(&mut rreq.cache_resources, &mut *writing.0);
            rreq.i_size = start + len as u64;
            raw.rreq = &mut *rreq;
            raw.start = start;
            raw.len = len;
            raw.stream_nr = 1;
            rreq.io_streams[1].submit_extendable_to = behind as c_uint;
            Ok(Subreq::again(Subreq {
                writing,
                memory,
                rreq,
                raw,
            }))
        }

        /// As it was before it was issued.
        fn again(mut self) -> Self {
            let raw = &mut self.raw;
            raw.source = bindings::netfs_io_source_NETFS_WRITE_TO_CACHE;
            raw.flags = 1 << bindings::NETFS_SREQ_IN_PROGRESS;
            raw.transferred = 0;
            raw.error = 0;
            // One of them goes with the end.
            raw.ref_.refs.counter = 2;
            raw.io_iter = self.memory.iter(bindings::ITER_SOURCE);
            // SAFETY: It is valid.
            unsafe { bindings::iov_iter_truncate(&mut raw.io_iter, raw.len as u64) };
            self
        }

        fn ops(&self) -> &bindings::netfs_cache_ops {
            // SAFETY: An operation that has begun has some.
            unsafe { &*self.rreq.cache_resources.ops }
        }

        fn prepare(&mut self) -> Result {
            let op = self.ops().prepare_write_subreq.ok_or(EINVAL)?;
            // SAFETY: The operation is under way; what else is looked at is filled in.
            unsafe { op(&mut *self.raw) };
            Ok(())
        }

        /// It has to end before this goes.
        fn issue(&mut self) -> Result {
            let op = self.ops().issue_write.ok_or(EINVAL)?;
            // SAFETY: As above; the tests keep it, and what it is of, until it is told.
            unsafe { op(&mut *self.raw) };
            Ok(())
        }

        /// What the library was told.
        fn error(&self) -> Result {
            let failed = self.raw.flags & 1 << bindings::NETFS_SREQ_FAILED != 0;
            assert_eq!(failed, self.raw.error != 0);
            to_result(self.raw.error.into())
        }

        /// How many bytes it counts as written, and whether it tries again, once it was told.
        fn written(&self) -> Result<(usize, bool)> {
            self.error()?;
            assert_eq!(self.raw.flags & 1 << bindings::NETFS_SREQ_IN_PROGRESS, 0);
            assert_eq!(self.raw.ref_.refs.counter, 1);
            let again = self.raw.flags & 1 << bindings::NETFS_SREQ_NEED_RETRY != 0;
            Ok((self.raw.transferred, again))
        }

        fn left(&self) -> usize {
            // SAFETY: It is a valid iterator.
            unsafe {
                self.raw
                    .io_iter
                    .__bindgen_anon_1
                    .__bindgen_anon_1
                    .as_ref()
                    .count
            }
        }
    }

    impl Drop for Subreq<'_> {
        fn drop(&mut self) {
            core::mem::swap(&mut self.rreq.cache_resources, &mut *self.writing.0);
        }
    }

    #[test]
    fn writes_are_prepared() -> Result {
        let (_cache, _counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut subreq = Subreq::new(&cookie, 0, BLOCK, 0)?;
        subreq.prepare()?;
        assert_eq!(subreq.error(), Ok(()));
        let stream = &subreq.rreq.io_streams[1];
        assert_eq!((stream.sreq_max_len, stream.sreq_max_segs), (4 * BLOCK, 1));
        // That it failed is not taken for a write.
        subreq.raw.start = FAIL as u64;
        subreq.prepare()?;
        assert_eq!(subreq.error(), Err(EDQUOT));
        let stream = &subreq.rreq.io_streams[1];
        let max = i32::MAX as usize & !(PAGE_SIZE - 1);
        let limits = (stream.sreq_max_len, stream.sreq_max_segs);
        assert_eq!(limits, (max, bindings::BIO_MAX_VECS));
        Ok(())
    }

    #[test]
    fn writes_are_aligned_and_written() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut subreq = Subreq::new(&cookie, 1000, 5000, 3000)?;
        subreq.issue()?;
        let mut write = counts.last_subreq()?;
        assert_eq!((write.start(), write.len()), (1000, 5000));
        assert_eq!(write.extendable(), 3000);
        assert!(write.is_current());
        assert!(write
            .cookie()
            .is_some_and(|found| core::ptr::eq(found, cookie.as_ref())));
        write.skip_head(3096);
        assert_eq!((write.start(), write.len()), (4096, 1904));
        assert_eq!((subreq.raw.transferred, subreq.left()), (3096, 1904));
        assert_eq!(write.extend_tail(3001), Err(EINVAL));
        assert_eq!(write.extend_tail(2192), Ok(()));
        assert_eq!((write.len(), write.extendable()), (4096, 808));
        assert_eq!((subreq.raw.len, subreq.left()), (7192, 4096));
        // The library keeps what is left out.
        write.cut_tail(96);
        assert_eq!((write.len(), write.extendable()), (4000, 0));
        assert_eq!((subreq.raw.len, subreq.left()), (7192, 4096));
        let write = write.into_write();
        assert_eq!((write.start(), write.len()), (4096, 4000));

        let file = file()?;
        let queue = ReclaimQueue::new(c"kunit")?;
        let ended = Count::new()?;
        let theirs = ended.clone();
        write.write_direct(&file, queue.hold(), move |end: WriteEnd, written| {
            match written {
                Ok(len) => end.done(len),
                Err(e) => end.fail(e),
            }
            theirs.add();
        });
        assert!(becomes(&ended, 1));
        assert_eq!(subreq.written(), Ok((7096, true)));
        assert_eq!(file.inode().size(), 8096);
        let mut found = [0; 4];
        let mut pos = 4096;
        // SAFETY: The file can be read from, and the memory is as long as said.
        let len =
            unsafe { bindings::kernel_read(file.as_ptr(), found.as_mut_ptr().cast(), 4, &mut pos) };
        assert_eq!(
            (len, found),
            (4, [3096, 3097, 3098, 3099].map(|i| (i % 251) as u8))
        );
        Ok(())
    }

    #[test]
    fn retries_start_where_the_last_write_ended() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut subreq = Subreq::new(&cookie, 1000, 5000, 3000)?;
        subreq.raw.transferred = 500;
        subreq.raw.retry_count = 1;
        subreq.issue()?;
        let mut write = counts.last_subreq()?;
        assert_eq!((write.start(), write.len()), (1500, 4500));
        // What is behind it now is not known.
        assert_eq!((write.extendable(), write.extend_tail(1)), (0, Err(EINVAL)));
        write.done(4500);
        assert_eq!(subreq.written(), Ok((5000, false)));
        // Nor if it is not at the end of the file.
        let mut subreq = Subreq::new(&cookie, 1000, 5000, 3000)?;
        subreq.rreq.i_size += 1;
        subreq.issue()?;
        let write = counts.last_subreq()?;
        assert_eq!(write.extendable(), 0);
        write.done(5000);
        Ok(())
    }

    #[test]
    fn writes_end_once() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut subreq = Subreq::new(&cookie, 0, BLOCK, 0)?;
        let ends: [(fn(WriteSubrequest), Result<(usize, bool)>); 7] = [
            (drop, Err(EIO)),
            (|write| drop(write.into_write()), Err(EIO)),
            (|write| write.fail(EDQUOT), Err(EDQUOT)),
            // It would be tried for ever.
            (|write| write.done(0), Err(EIO)),
            (|write| write.done(1), Ok((1, true))),
            (|write| write.done(BLOCK), Ok((BLOCK, false))),
            (|write| write.done(BLOCK + 1), Ok((BLOCK, false))),
        ];
        for (end, expected) in ends {
            subreq.issue()?;
            end(counts.last_subreq()?);
            assert_eq!(subreq.written(), expected);
            subreq = Subreq::again(subreq);
        }
        Ok(())
    }

    #[test]
    fn writes_know_of_an_invalidation() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        counts.goes_on.store(true, Relaxed);
        let mut subreq = Subreq::new(&cookie, 0, BLOCK, 0)?;
        subreq.issue()?;
        let write = counts.last_subreq()?;
        assert!(write.is_current());
        cookie.invalidate();
        assert!(!write.is_current());
        let write = write.into_write();
        assert!(!write.is_current());
        write.fail(ESTALE);
        assert_eq!(subreq.error(), Err(ESTALE));
        // One that begins after it is valid again.
        let mut subreq = Subreq::new(&cookie, 0, BLOCK, 0)?;
        subreq.issue()?;
        let write = counts.last_subreq()?;
        assert!(write.is_current());
        write.done(BLOCK);
        Ok(())
    }

    #[test]
    fn ranges_are_prepared_and_written() -> Result {
        let (_cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut writing = cookie.begin()?;
        let prepare = writing.ops().prepare_write.ok_or(EINVAL)?;
        let mut prepared = |mut start: i64, mut len: usize| {
            // SAFETY: The operation is under way.
            to_result(unsafe { prepare(&mut *writing.0, &mut start, &mut len, 7, 8, true) })?;
            Ok((start, len))
        };
        // CAST: The size of a page.
        let page = PAGE_SIZE as i64;
        assert_eq!(prepared(page, 100), Ok((page, 100)));
        assert_eq!(prepared(page + 1, 100), Ok((page, 101)));
        // More than the pages that it has.
        assert_eq!(prepared(KEEP, 100), Err(ENOBUFS));
        assert_eq!(prepared(0, 0), Err(ENOBUFS));
        assert_eq!(prepared(i64::MAX, 1), Err(EINVAL));
        assert_eq!(prepared(FAIL, 100), Err(EDQUOT));

        let write = writing.ops().write.ok_or(EINVAL)?;
        let mut memory = Memory::new(BLOCK, b'w')?;
        let queued = -(bindings::EIOCBQUEUED as i32);
        let file = file()?;
        let queue = ReclaimQueue::new(c"kunit")?;
        let mut submit = |direction, outcome: &Arc<Outcome>| {
            let mut iter = memory.iter(direction);
            let data = outcome.as_data();
            let pos = BLOCK as i64;
            // SAFETY: The tests keep all until it is told.
            unsafe { write(&mut *writing.0, pos, &mut iter, Some(Outcome::tell), data) }
        };
        let outcome = Outcome::new()?;
        assert_eq!(submit(bindings::ITER_SOURCE, &outcome), queued);
        drop(counts.last_write()?);
        assert_eq!(outcome.wait(), Ok(i64::from(EIO.to_errno())));
        let outcome = Outcome::new()?;
        assert_eq!(submit(bindings::ITER_SOURCE, &outcome), queued);
        let kept = counts.last_write()?;
        assert_eq!((kept.start(), kept.len()), (BLOCK as i64, BLOCK));
        assert!(kept.is_current() && kept.len() > 0);
        kept.write_direct(&file, queue.hold(), |end, written| match written {
            Ok(len) => end.done(len),
            Err(e) => end.fail(e),
        });
        assert_eq!(outcome.wait(), Ok(BLOCK as i64));
        assert_eq!(file.inode().size(), 2 * BLOCK as i64);
        let outcome = Outcome::new()?;
        let refused = submit(bindings::ITER_DEST, &outcome);
        assert_eq!(refused, EINVAL.to_errno());
        assert_eq!(outcome.wait(), Ok(i64::from(EINVAL.to_errno())));
        Ok(())
    }

    #[test]
    fn writes_are_refused_and_told_once() -> Result {
        let (_cache, _counts) = cache_of::<false>()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let mut reading = cookie.begin()?;
        let mut memory = Memory::new(BLOCK, b'?')?;
        let mut iter = memory.iter(bindings::ITER_SOURCE);
        let outcome = Outcome::new()?;
        let op = reading.ops().write.ok_or(EINVAL)?;
        let data = outcome.as_data();
        // SAFETY: All are valid for the call.
        let ret = unsafe { op(&mut *reading.0, 0, &mut iter, Some(Outcome::tell), data) };
        assert_eq!(ret, ENOSPC.to_errno());
        assert_eq!(outcome.told.get(), 1);
        assert_eq!(outcome.ret.load(Relaxed), i64::from(ENOSPC.to_errno()));
        drop(reading);
        let mut subreq = Subreq::new(&cookie, 0, BLOCK, 0)?;
        subreq.prepare()?;
        assert_eq!(subreq.error(), Err(ENOSPC));
        subreq = Subreq::again(subreq);
        subreq.issue()?;
        assert_eq!(subreq.written(), Err(ENOSPC));
        Ok(())
    }

    #[test]
    fn withdrawal_waits_for_operations() -> Result {
        let (mut cache, counts) = cache()?;
        let volume = NetfsVolume::new(c"kunit,v", b"")?;
        let cookie = NetfsCookie::new(&volume, b"key", b"")?;
        let reading = cookie.begin()?;
        cookie.as_ref().withdraw();
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(50));
        // The operation holds an access: the object stays.
        assert_eq!((counts.withdrawn.get(), counts.object_drops.get()), (0, 0));
        drop(reading);
        assert!(becomes(&counts.object_drops, 1));
        cache.withdraw();
        assert_eq!((counts.withdrawn.get(), counts.freed.get()), (1, 1));
        Ok(())
    }
}
