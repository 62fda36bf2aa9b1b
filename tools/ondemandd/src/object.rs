// SPDX-License-Identifier: GPL-2.0

//! An opened cache file and how its holes are filled.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{seek, SeekFrom};

use crate::chunkmap::{merge, ChunkMap, State};
use crate::device::strip_code;
use crate::report::Report;
use crate::source::{Blob, SourceError};

/// Cache files are written in whole blocks of this size; the kernel rounds their size up to it.
const BLOCK: u64 = 4096;

/// How much is fetched and written at once, if the granule is not larger.
const PIECE: u64 = 1 << 20;

/// From one delivered OPEN to its CLOSE: the anonymous descriptor and the blob behind it.
pub struct Object {
    /// For messages to people.
    pub name: String,
    blob: Arc<dyn Blob>,
    /// The anonymous descriptor. Closed with the last reference, so a READ that another thread is
    /// serving never writes to a descriptor number that has been given away.
    file: File,
    page: u64,
    map: Mutex<ChunkMap>,
    /// Some granule is no longer busy.
    released: Condvar,
    /// Where the next READ starts if the blob is read in order.
    window: Mutex<Range<u64>>,
}

/// What filling a range came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Bytes written by this call, the zeros behind the blob's end included.
    pub written: u64,
    /// First byte behind the granules that are now present.
    pub end: u64,
}

/// Who asks for a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The kernel has found this range missing.
    Missing,
    /// It would be good to have it.
    Prefetch,
}

impl Object {
    pub fn new(name: String, blob: Arc<dyn Blob>, fd: OwnedFd, granule: u64) -> Self {
        let size = blob.size();
        Self {
            name,
            blob,
            file: fd.into(),
            page: rustix::param::page_size() as u64,
            map: Mutex::new(ChunkMap::new(size, granule)),
            released: Condvar::new(),
            window: Mutex::new(0..0),
        }
    }

    pub fn size(&self) -> u64 {
        self.blob.size()
    }

    /// See [`Blob::version`].
    pub fn version(&self) -> Option<&str> {
        self.blob.version()
    }

    fn map(&self) -> MutexGuard<'_, ChunkMap> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `want` present in the cache file, rounded out to granules.
    ///
    /// Granules that another thread is fetching are waited for and not fetched again; if that thread
    /// fails, so does this call. Bytes reach the cache file only after the source has delivered all of
    /// the piece they are in.
    pub fn fill(
        &self,
        want: Range<u64>,
        need: Need,
        buf: &mut Buffer,
        report: &Report,
    ) -> Result<Filled, SourceError> {
        // The last block of the file begins within the blob, but a hole in it may begin behind.
        let want = want.start - want.start % self.page..want.end;
        let mut map = self.map();
        let span = map.covering(want.start, want.end.saturating_sub(want.start));
        let mut filled = Filled {
            written: 0,
            end: map.bytes(&span).end,
        };
        let runs = map.claim(span.clone(), |granule| {
            // Written earlier, and the kernel says it is missing: it may have been asked for before
            // it was written, or the cache file was replaced by an empty one.
            need == Need::Missing && !self.holes(&intersect(&granule, &want)).is_empty()
        });
        drop(map);

        let mut claims = Claims { object: self, runs };
        while let Some(run) = claims.runs.first().cloned() {
            let bytes = self.map().bytes(&run);
            let mut missing = self.holes(&bytes);
            if need == Need::Missing {
                // Some file systems report allocated or speculatively reserved ranges as data. What
                // the kernel asks for is missing, whatever they say.
                missing.push(self.to_pages(&intersect(&bytes, &want), bytes.end));
            }
            for range in merge(missing) {
                filled.written += self.fetch(range, buf, report)?;
            }
            claims.runs.remove(0);
            self.map().release(&run, true);
            self.released.notify_all();
        }
        drop(claims);

        let map = self
            .released
            .wait_while(self.map(), |map| map.any(&span, State::Busy))
            .unwrap_or_else(PoisonError::into_inner);
        if !map.all(&span, State::Present) {
            return Err(SourceError::new(
                libc::EIO,
                "another request for the same data has failed",
            ));
        }
        Ok(filled)
    }

    /// Copies a range of the blob to the cache file; returns how much was written.
    fn fetch(
        &self,
        range: Range<u64>,
        buf: &mut Buffer,
        report: &Report,
    ) -> Result<u64, SourceError> {
        let mut written = 0;
        let mut off = range.start;
        while off < range.end {
            let len = (range.end - off).min(buf.len());
            let padded = len.next_multiple_of(BLOCK);
            let bytes = buf.first(padded);
            let (data, padding) = bytes.split_at_mut(len as usize);
            self.blob.read_exact_at(data, off)?;
            report.add(&report.stats.fetched, len);
            padding.fill(0);
            self.file.write_all_at(bytes, off).map_err(|err| {
                let hint = match err.raw_os_error() {
                    Some(libc::ENOBUFS | libc::ENOSPC) => {
                        " (the cache is full, or the file was withdrawn)"
                    }
                    _ => "",
                };
                let text = strip_code(&err);
                SourceError::new(
                    err.raw_os_error().unwrap_or(libc::EIO),
                    format!("writing {padded} bytes to the cache file at {off}: {text}{hint}"),
                )
            })?;
            report.add(&report.stats.written, padded);
            written += padded;
            off += len;
        }
        Ok(written)
    }

    /// The parts of `range` that are not in the cache file, as whole pages.
    fn holes(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut pos = range.start;
        while pos < range.end {
            // No data behind `pos` gives ENXIO; any other error means that nothing is known, and
            // fetching too much is harmless.
            let data = seek(&self.file, SeekFrom::Data(pos)).unwrap_or(range.end);
            let data = data.clamp(pos, range.end);
            if data > pos {
                holes.push(self.to_pages(&(pos..data), range.end));
            }
            if data == range.end {
                break;
            }
            match seek(&self.file, SeekFrom::Hole(data)) {
                Ok(hole) if hole > data => pos = hole,
                _ => {
                    holes.push(self.to_pages(&(data..range.end), range.end));
                    break;
                }
            }
        }
        holes
    }

    fn to_pages(&self, range: &Range<u64>, end: u64) -> Range<u64> {
        if range.start >= range.end {
            return 0..0;
        }
        range.start - range.start % self.page..range.end.next_multiple_of(self.page).min(end)
    }

    /// Notes a READ at `off` after which everything up to `end` is present. If the blob is being read
    /// in order, returns the range to prefetch.
    pub fn sequential(&self, off: u64, end: u64, prefetch: u64) -> Option<Range<u64>> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let in_order = window.start > 0 && window.start <= off && off <= window.end;
        let ahead = end..end.saturating_add(prefetch).min(self.size());
        *window = ahead.clone();
        (in_order && !ahead.is_empty()).then_some(ahead)
    }
}

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn intersect(a: &Range<u64>, b: &Range<u64>) -> Range<u64> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// The runs a thread still has to fetch. However it leaves, nobody waits for them forever.
struct Claims<'a> {
    object: &'a Object,
    runs: Vec<Range<u64>>,
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        if self.runs.is_empty() {
            return;
        }
        let mut map = self.object.map();
        for run in &self.runs {
            map.release(run, false);
        }
        drop(map);
        self.object.released.notify_all();
    }
}

/// A thread's buffer, aligned to pages: the kernel may write it to the cache file with O_DIRECT.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Room for a granule, or for a piece of one.
    pub fn new(granule: u64) -> Self {
        let page = rustix::param::page_size();
        let len = granule.max(PIECE) as usize;
        let memory = vec![0; len + page];
        let start = memory.as_ptr().align_offset(page);
        Self { memory, start }
    }

    fn len(&self) -> u64 {
        (self.memory.len() - rustix::param::page_size()) as u64
    }

    fn first(&mut self, len: u64) -> &mut [u8] {
        &mut self.memory[self.start..self.start + len as usize]
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
    use std::sync::Barrier;
    use std::time::Duration;

    /// A blob in memory that counts what is taken from it.
    pub struct MemoryBlob {
        pub data: Vec<u8>,
        pub reads: Mutex<Vec<Range<u64>>>,
        pub broken: AtomicBool,
        pub delay_ms: AtomicU64,
        meeting: Mutex<Option<Arc<Barrier>>>,
    }

    impl MemoryBlob {
        pub fn new(len: usize) -> Arc<Self> {
            Arc::new(Self {
                // Never zero, and different in every block.
                data: (0..len)
                    .map(|i| (i / 251 % 250 + i % 5 + 1) as u8)
                    .collect(),
                reads: Mutex::default(),
                broken: AtomicBool::new(false),
                delay_ms: AtomicU64::new(0),
                meeting: Mutex::default(),
            })
        }

        /// From now on, no read ends before `n` have begun.
        pub fn meet(&self, n: usize) {
            *self.meeting.lock().unwrap() = Some(Arc::new(Barrier::new(n)));
        }

        pub fn taken(&self) -> Vec<Range<u64>> {
            std::mem::take(&mut *self.reads.lock().unwrap())
        }
    }

    impl Blob for MemoryBlob {
        fn size(&self) -> u64 {
            self.data.len() as u64
        }

        fn version(&self) -> Option<&str> {
            Some("v1")
        }

        fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
            std::thread::sleep(Duration::from_millis(self.delay_ms.load(SeqCst)));
            let meeting = self.meeting.lock().unwrap().clone();
            if let Some(meeting) = meeting {
                meeting.wait();
            }
            let range = off..off + buf.len() as u64;
            self.reads.lock().unwrap().push(range.clone());
            if self.broken.load(SeqCst) {
                return Err(SourceError::new(libc::EIO, "broken"));
            }
            buf.copy_from_slice(&self.data[range.start as usize..range.end as usize]);
            Ok(())
        }
    }

    /// A stand-in for the cache file: sparse, with SEEK_DATA and SEEK_HOLE.
    pub fn cache_file(size: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size.next_multiple_of(BLOCK)).unwrap();
        file
    }

    struct Setup {
        blob: Arc<MemoryBlob>,
        file: File,
        object: Object,
        report: Arc<Report>,
    }

    fn setup(size: usize, granule: u64) -> Setup {
        let blob = MemoryBlob::new(size);
        let file = cache_file(size as u64);
        let fd = file.try_clone().unwrap().into();
        Setup {
            object: Object::new("blob".into(), blob.clone(), fd, granule),
            blob,
            file,
            report: Report::silent(),
        }
    }

    impl Setup {
        fn fill(&self, want: Range<u64>) -> Result<Filled, SourceError> {
            self.need(want, Need::Missing)
        }

        fn need(&self, want: Range<u64>, need: Need) -> Result<Filled, SourceError> {
            self.object
                .fill(want, need, &mut Buffer::new(4096), &self.report)
        }

        /// What the cache file has, and zeros where it has nothing.
        fn cached(&self, range: Range<u64>) -> Vec<u8> {
            let mut buf = vec![0; (range.end - range.start) as usize];
            self.file.read_exact_at(&mut buf, range.start).unwrap();
            buf
        }

        fn check(&self, range: Range<u64>) {
            let (start, end) = (range.start as usize, range.end as usize);
            assert!(
                self.cached(range) == self.blob.data[start..end],
                "wrong data"
            );
        }
    }

    #[test]
    fn a_read_is_rounded_out_and_not_repeated() {
        let s = setup(1 << 20, 64 << 10);
        let filled = s.fill(70_000..70_512).unwrap();
        assert_eq!(
            filled,
            Filled {
                written: 64 << 10,
                end: 128 << 10
            }
        );
        assert_eq!(s.blob.taken(), [65536..131072]);
        s.check(65536..131072);
        assert_eq!(s.object.holes(&(0..1 << 20)), [0..65536, 131072..1 << 20]);
        // The next one finds it there.
        assert_eq!(s.fill(65536..131072).unwrap().written, 0);
        assert!(s.blob.taken().is_empty());
    }

    #[test]
    fn the_tail_is_padded_and_nothing_is_written_behind() {
        let s = setup(10_000, 1 << 20);
        assert_eq!(
            s.fill(8192..12288).unwrap(),
            Filled {
                written: 12288,
                end: 10_000
            }
        );
        assert_eq!(s.blob.taken(), [0..10_000]);
        s.check(0..10_000);
        assert_eq!(s.cached(10_000..12_288), vec![0; 2288]);
        assert_eq!(s.file.metadata().unwrap().len(), 12288);
        // Behind the last block there is nothing to fetch; in it there is.
        assert_eq!(s.fill(12288..16384).unwrap(), Filled::default());
        let s = setup(10_000, 4096);
        assert_eq!(s.fill(10_240..10_752).unwrap().written, 4096);
        assert_eq!(s.blob.taken(), [8192..10_000]);
        let s = setup(0, 4096);
        assert_eq!(s.fill(0..4096).unwrap(), Filled::default());
    }

    #[test]
    fn what_an_earlier_run_left_is_kept() {
        let s = setup(256 << 10, 128 << 10);
        s.file.write_all_at(&[0xee; 8192], 16384).unwrap();
        s.fill(0..4096).unwrap();
        assert_eq!(s.blob.taken(), [0..16384, 24576..131072]);
        assert_eq!(s.cached(16384..24576), vec![0xee; 8192]);
    }

    #[test]
    fn what_the_kernel_misses_is_fetched_whatever_seek_says() {
        let s = setup(64 << 10, 32 << 10);
        s.file.write_all_at(&[0xee; 32 << 10], 0).unwrap();
        s.fill(4096..8192).unwrap();
        assert_eq!(s.blob.taken(), [4096..8192]);
        s.check(4096..8192);
        assert_eq!(s.cached(0..4096), vec![0xee; 4096]);
    }

    #[test]
    fn a_file_that_was_emptied_is_filled_again() {
        let s = setup(64 << 10, 16 << 10);
        s.fill(0..16384).unwrap();
        s.file.set_len(0).unwrap();
        s.file.set_len(64 << 10).unwrap();
        s.blob.taken();
        assert_eq!(s.fill(0..4096).unwrap().written, 16384);
        s.check(0..16384);
    }

    #[test]
    fn failure_writes_nothing_and_is_not_remembered() {
        let s = setup(64 << 10, 16 << 10);
        s.blob.broken.store(true, SeqCst);
        assert_eq!(s.fill(0..4096).unwrap_err().reason, "broken");
        assert_eq!(s.object.holes(&(0..65536)), vec![0..65536]);
        s.blob.broken.store(false, SeqCst);
        s.fill(0..4096).unwrap();
        s.check(0..16384);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let blob = MemoryBlob::new(8192);
        let fd: OwnedFd = File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
            .into();
        let object = Object::new("blob".into(), blob, fd, 4096);
        let err = object
            .fill(
                0..4096,
                Need::Missing,
                &mut Buffer::new(4096),
                &Report::silent(),
            )
            .unwrap_err();
        assert_eq!(err.errno, libc::ENOSPC);
        assert!(err.reason.contains("the cache is full"), "{}", err.reason);
    }

    #[test]
    fn large_ranges_go_in_pieces() {
        let s = setup(3 << 20, 4096);
        assert_eq!(s.fill(0..3 << 20).unwrap().written, 3 << 20);
        assert_eq!(
            s.blob.taken(),
            [0..1 << 20, 1 << 20..2 << 20, 2 << 20..3 << 20]
        );
        s.check(0..3 << 20);
    }

    #[test]
    fn concurrent_reads_share_one_fetch() {
        let s = setup(256 << 10, 64 << 10);
        s.blob.delay_ms.store(50, SeqCst);
        std::thread::scope(|scope| {
            for i in 0..8 {
                let s = &s;
                scope.spawn(move || s.fill(i * 4096..i * 4096 + 70_000).unwrap());
            }
        });
        let mut taken = s.blob.taken();
        taken.sort_by_key(|r| r.start);
        assert!(
            taken.windows(2).all(|w| w[0].end <= w[1].start),
            "{taken:?}"
        );
        s.check(0..128 << 10);
        // A failure is shared, too, and ends for everybody.
        s.blob.broken.store(true, SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| s.fill(200_000..204_000).unwrap_err());
            }
        });
        assert!(!s.blob.taken().is_empty());
    }

    #[test]
    fn prefetch_takes_only_holes() {
        let s = setup(64 << 10, 16 << 10);
        s.file.write_all_at(&[0xee; 16 << 10], 0).unwrap();
        assert_eq!(
            s.need(0..32 << 10, Need::Prefetch).unwrap().written,
            16 << 10
        );
        assert_eq!(s.blob.taken(), [16384..32768]);
    }

    #[test]
    fn reading_in_order_is_noticed() {
        let s = setup(1 << 20, 4096);
        let next = |off, end| s.object.sequential(off, end, 65536);
        assert_eq!(next(0, 4096), None);
        assert_eq!(next(4096, 8192), Some(8192..73728));
        assert_eq!(next(20480, 24576), Some(24576..90112));
        assert_eq!(next(500_000, 503_808), None);
        assert_eq!(next(503_808, 1 << 20), None);
    }

    #[test]
    fn the_buffer_is_aligned() {
        let mut buf = Buffer::new(4096);
        assert_eq!(buf.len(), PIECE);
        let page = rustix::param::page_size();
        assert_eq!(buf.first(PIECE).as_ptr() as usize % page, 0);
    }
}
