// SPDX-License-Identifier: GPL-2.0-or-later

//! An opened cache file and how its holes are filled.
//!
//! A READ that a thread serves claims those of its granules that nobody is fetching, fetches them, and
//! then does not wait for the others: it is *parked* until one of them that is being fetched is
//! [released](Object::release), and the thread goes on to something else. A granule is released as
//! soon as it is there, however long the fetch that it is part of goes on. If it did not get there,
//! those who were parked for it claim it themselves, but for READs that came before that attempt was
//! begun: their own would be no other.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::fs::{seek, SeekFrom};

use crate::api::Background;
use crate::chunkmap::{merge, ChunkMap, State};
use crate::device::strip_code;
use crate::guard::{Guard, Limits};
use crate::pace::Bandwidth;
use crate::report::Report;
use crate::source::{Blob, Sink, SourceError};
use crate::trace::MAX_RANGES;

/// Cache files are written in whole blocks of this size; the kernel rounds their size up to it.
const BLOCK: u64 = 4096;

/// How much is asked for at once, if the granule is not larger; and the most that is written at once.
const PIECE: u64 = 1 << 20;

/// How much is written at once, if the granule is not larger.
const WRITE: u64 = 64 << 10;

/// From one delivered OPEN to its CLOSE: the anonymous descriptor and the blob behind it.
pub struct Object {
    /// For messages to people.
    pub name: String,
    blob: Arc<dyn Blob>,
    /// The anonymous descriptor. Closed with the last reference, so a READ that another thread is
    /// serving never writes to a descriptor number that has been given away.
    file: File,
    page: u64,
    granule: u64,
    /// See [`Blob::server`].
    pub server: Arc<str>,
    /// How many bytes have come from the source.
    pub fetched: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    map: ChunkMap,
    /// The READs that wait for a granule that is being fetched, by the first such granule.
    parked: HashMap<u64, Vec<Read>>,
    /// The fetches that run.
    fetches: Vec<Arc<Guard>>,
    /// Nobody uses the object any more.
    closed: bool,
    /// Numbers READs and attempts to fetch, in the order in which they come.
    clock: u64,
    /// Where the next READ starts if the blob is read in order.
    window: Range<u64>,
    /// What is to be prefetched because somebody reads in order.
    ahead: Range<u64>,
    /// What is to be prefetched after that.
    wishes: VecDeque<Range<u64>>,
    /// Whether the rest is to be fetched, too, and how far that is.
    background: Background,
    /// Up to where it was looked at for that.
    rest: u64,
    /// How many times in a row that has failed.
    failures: u32,
    /// How many threads are prefetching.
    prefetching: usize,
    /// Why something was not fetched, the last time.
    last_error: Option<String>,
    /// What was read, if that is being recorded: granules, each once.
    recorded: Option<Recorded>,
}

#[derive(Default)]
struct Recorded {
    seen: HashSet<u64>,
    ranges: Vec<Range<u64>>,
}

impl Recorded {
    /// Adds those granules that were not read before.
    fn add(&mut self, span: Range<u64>, map: &ChunkMap) {
        for granule in span {
            if self.ranges.len() >= MAX_RANGES || !self.seen.insert(granule) {
                continue;
            }
            let bytes = map.bytes(&(granule..granule + 1));
            match self.ranges.last_mut() {
                Some(last) if last.end == bytes.start => last.end = bytes.end,
                _ => self.ranges.push(bytes),
            }
        }
    }
}

/// What there is to do in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Something was fetched, and there may be more.
    More,
    /// What is missing is being fetched for somebody.
    Busy,
    Nothing,
}

/// A READ: the kernel has found this range missing.
#[derive(Debug)]
pub struct Read {
    pub msg_id: u32,
    pub off: u64,
    pub len: u64,
    /// When the message was read.
    pub since: Instant,
    /// See [`Inner::clock`].
    came: u64,
    /// The range was looked at: what the map says of it is true.
    seen: bool,
    /// See [`Filled::written`].
    written: u64,
}

/// What filling a range came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Bytes that were written for this READ, the zeros behind the blob's end included.
    pub written: u64,
    /// First byte behind the granules that are now present.
    pub end: u64,
}

/// What is to be done for READs.
pub trait Outcomes {
    /// The data is there, or cannot be had.
    fn ended(&self, read: Read, result: Result<Filled, SourceError>);

    /// The READ is to be [served](Object::serve) once more.
    fn again(&self, read: Read);
}

/// Who asks for a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The kernel has found this range missing.
    Missing,
    /// It would be good to have it.
    Prefetch,
}

/// The cache as a whole, which may be full.
pub trait Quota: Sync {
    /// Writes so many bytes to a file of the cache, again when there is room if there is none now.
    fn write(&self, bytes: u64, write: &dyn Fn() -> io::Result<()>) -> io::Result<()>;
}

fn withdrawn() -> io::Error {
    io::Error::new(ErrorKind::NotFound, "the file was withdrawn")
}

/// Whether nothing could be written because the cache is full, or the file was withdrawn.
pub fn is_full(err: &io::Error) -> bool {
    matches!(err.raw_os_error(), Some(libc::ENOBUFS | libc::ENOSPC))
}

/// What a thread needs for fetching.
pub struct Tools<'a> {
    pub buf: &'a mut Buffer,
    pub quota: &'a dyn Quota,
    pub report: &'a Report,
    pub limits: Limits,
    /// How fast it may fetch, if there is a limit. What somebody waits for waits for that itself.
    pub pace: Option<&'a Bandwidth>,
    pub outcomes: &'a dyn Outcomes,
}

/// What is to be told of READs, without the lock.
type Verdicts = Vec<(Read, Verdict)>;

enum Verdict {
    Ended(Result<Filled, SourceError>),
    Again,
}

fn tell(verdicts: Verdicts, outcomes: &dyn Outcomes) {
    for (read, verdict) in verdicts {
        match verdict {
            Verdict::Ended(result) => outcomes.ended(read, result),
            Verdict::Again => outcomes.again(read),
        }
    }
}

impl Object {
    pub fn new(name: String, blob: Arc<dyn Blob>, fd: OwnedFd, granule: u64) -> Self {
        let size = blob.size();
        Self {
            name,
            server: blob.server(),
            fetched: AtomicU64::new(0),
            blob,
            file: fd.into(),
            page: rustix::param::page_size() as u64,
            granule,
            inner: Mutex::new(Inner {
                map: ChunkMap::new(size, granule),
                parked: HashMap::new(),
                fetches: Vec::new(),
                closed: false,
                clock: 0,
                window: 0..0,
                ahead: 0..0,
                wishes: VecDeque::new(),
                background: Background::Off,
                rest: 0,
                failures: 0,
                prefetching: 0,
                last_error: None,
                recorded: None,
            }),
        }
    }

    pub fn size(&self) -> u64 {
        self.blob.size()
    }

    /// See [`Blob::version`].
    pub fn version(&self) -> Option<&str> {
        self.blob.version()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records what is read from now on.
    pub fn record(&self) {
        self.inner().recorded = Some(Recorded::default());
    }

    /// Ends that, and returns what was read, in that order, if anything was.
    pub fn recorded(&self) -> Option<Vec<Range<u64>>> {
        let ranges = self.inner().recorded.take()?.ranges;
        (!ranges.is_empty()).then_some(ranges)
    }

    /// Whether a recording begins with this READ, of a blob that was cached before: it would not have what
    /// was there.
    fn is_warm(&self) -> bool {
        let begins = |recorded: &Recorded| recorded.ranges.is_empty();
        self.inner().recorded.as_ref().is_some_and(begins)
            && self.fetched.load(Relaxed) == 0
            && self.data().next().is_some()
    }

    /// A READ that has come.
    pub fn read(&self, msg_id: u32, off: u64, len: u64, since: Instant) -> Read {
        let warm = self.is_warm();
        let came = {
            let mut inner = self.inner();
            if warm {
                inner.recorded = None;
            }
            let span = inner.span(&(off..off.saturating_add(len)));
            let Inner { recorded, map, .. } = &mut *inner;
            if let Some(recorded) = recorded {
                recorded.add(span, map);
            }
            inner.tick()
        };
        Read {
            msg_id,
            off,
            len,
            since,
            came,
            seen: false,
            written: 0,
        }
    }

    /// The pages that a READ wants. The last block of the file begins within the blob, but a hole in it
    /// may begin behind.
    fn wanted(&self, read: &Read) -> Range<u64> {
        read.off - read.off % self.page..read.off.saturating_add(read.len)
    }

    /// Makes the range of a READ present in the cache file, rounded out to granules, or sees to it that
    /// somebody does: what becomes of it is told to the [`Outcomes`], now or later.
    ///
    /// Granules that are being fetched already are not fetched again. Bytes reach the cache file only
    /// after the source has vouched for them.
    pub fn serve(&self, mut read: Read, tools: &mut Tools<'_>) {
        let want = self.wanted(&read);
        if !read.seen {
            // Written earlier, and the kernel says it is missing: it may have been asked for before it
            // was written, or the cache file was replaced by an empty one.
            let present = self.inner().present(&want);
            let gone = present.into_iter().filter(|(_, bytes)| {
                let holes = self.holes(&intersect(bytes, &want));
                !holes.is_empty()
            });
            let gone = gone.map(|(granule, _)| granule).collect::<Vec<_>>();
            self.inner().map.forget(&gone);
            read.seen = true;
        }
        let claim = self.claim(|inner| {
            let span = inner.span(&want);
            inner.map.claim(span)
        });
        let mut claim = Claim {
            need: Need::Missing,
            want,
            ..claim
        };
        match self.fetch_all(&mut claim, tools) {
            Ok(written) => {
                read.written += written;
                let mut verdicts = Verdicts::new();
                self.inner().settle(read, &mut verdicts, self);
                tell(verdicts, tools.outcomes);
            }
            Err(err) => {
                self.inner().last_error = Some(err.reason.clone());
                tools.outcomes.ended(read, Err(err));
            }
        }
    }

    /// These are to be [prefetched](Self::prefetch), in this order, and nothing that was wanted before.
    pub fn want(&self, ranges: impl IntoIterator<Item = Range<u64>>) {
        let mut inner = self.inner();
        if !inner.closed {
            inner.wishes = ranges.into_iter().collect();
        }
    }

    /// Whether something is being prefetched or is going to be.
    pub fn is_prefetching(&self) -> bool {
        let inner = self.inner();
        inner.has_ahead() || inner.prefetching > 0
    }

    /// Whether the rest is to be [fetched](Self::fetch_rest) in the background. Returns whether it was not
    /// before.
    pub fn set_background(&self, on: bool) -> bool {
        let mut inner = self.inner();
        let was = std::mem::replace(
            &mut inner.background,
            match on {
                true => Background::Running,
                false => Background::Off,
            },
        );
        (inner.rest, inner.failures) = (0, 0);
        on && was != Background::Running
    }

    /// How that is.
    pub fn background(&self) -> Background {
        self.inner().background.clone()
    }

    /// Whether there is anything to do for that.
    pub fn wants_rest(&self) -> bool {
        let inner = self.inner();
        let done = matches!(inner.background, Background::Off | Background::Complete);
        !inner.closed && !done
    }

    /// It has to wait for something.
    pub fn hold_background(&self, reason: &str) {
        let mut inner = self.inner();
        if inner.background != Background::Off {
            inner.background = Background::Waiting(reason.into());
        }
    }

    /// It has failed. Returns how many times in a row.
    pub fn background_failed(&self, reason: &str) -> u32 {
        self.hold_background(reason);
        let mut inner = self.inner();
        inner.failures = inner.failures.saturating_add(1);
        inner.failures
    }

    /// Whether what is read is being recorded.
    pub fn is_recording(&self) -> bool {
        self.inner().recorded.is_some()
    }

    /// Why something was not fetched, the last time.
    pub fn last_error(&self) -> Option<String> {
        self.inner().last_error.clone()
    }

    /// Fetches something of what is to be [prefetched](Self::sequential). Calls `more` before that if
    /// there is more. Errors are those of the source.
    pub fn prefetch(&self, tools: &mut Tools<'_>, more: impl FnOnce()) -> Result<(), SourceError> {
        let most = self.at_once(tools);
        let mut claim = self.claim(|inner| {
            inner.prefetching += 1;
            inner.claim_ahead(most)
        });
        if self.inner().has_ahead() {
            more();
        }
        let result = self.fetch_all(&mut claim, tools).map(|_| ());
        let mut inner = self.inner();
        inner.prefetching -= 1;
        if let Err(err) = &result {
            // Whoever reads on tries for himself, and asks for more then.
            inner.ahead = 0..0;
            inner.wishes.clear();
            inner.last_error = Some(err.reason.clone());
        }
        result
    }

    /// How many granules are asked for at once if nobody waits for them.
    fn at_once(&self, tools: &Tools<'_>) -> u64 {
        let piece = tools.pace.map_or(PIECE, |pace| pace.piece().min(PIECE));
        (piece / self.granule).max(1)
    }

    /// Fetches something of what is in the cache not yet. Errors are those of the source.
    pub fn fetch_rest(&self, tools: &mut Tools<'_>) -> Result<Rest, SourceError> {
        let most = self.at_once(tools);
        let mut from = self.inner().rest;
        let mut busy = false;
        loop {
            let hole = self.first_hole(from)?;
            let mut claim = self.claim(|inner| {
                let Some(hole) = hole else { return Vec::new() };
                let range = hole..self.size();
                let (runs, _) = inner.claim_first(&range, most);
                let span = inner.span(&range);
                busy |= runs.is_empty() && inner.map.first(&span, State::Busy).is_some();
                if let Some(run) = runs.first() {
                    inner.rest = inner.map.bytes(run).end;
                    if inner.background != Background::Off {
                        inner.background = Background::Running;
                    }
                }
                runs
            });
            if claim.runs.is_empty() {
                // Once more from the beginning: something may not have got there.
                if from > 0 {
                    from = 0;
                    continue;
                }
                let mut inner = self.inner();
                inner.rest = 0;
                if busy {
                    return Ok(Rest::Busy);
                }
                if inner.background != Background::Off {
                    inner.background = Background::Complete;
                }
                return Ok(Rest::Nothing);
            }
            let result = self.fetch_all(&mut claim, tools);
            let mut inner = self.inner();
            return match result {
                Ok(_) => {
                    inner.failures = 0;
                    Ok(Rest::More)
                }
                Err(err) => {
                    inner.rest = 0;
                    inner.last_error = Some(err.reason.clone());
                    Err(err)
                }
            };
        }
    }

    /// Where the first hole begins at `from` or behind, if there is one.
    fn first_hole(&self, from: u64) -> Result<Option<u64>, SourceError> {
        let size = self.size();
        if from >= size {
            return Ok(None);
        }
        match seek(&self.file, SeekFrom::Hole(from)) {
            Ok(hole) => Ok(Some(hole).filter(|hole| *hole < size)),
            // Behind the last data there is nothing but a hole.
            Err(rustix::io::Errno::NXIO) => Ok(Some(from)),
            Err(err) => Err(SourceError::new(
                err.raw_os_error(),
                format!("looking at the cache file: {err}"),
            )),
        }
    }

    fn claim(&self, pick: impl FnOnce(&mut Inner) -> Vec<Range<u64>>) -> Claim {
        let mut inner = self.inner();
        Claim {
            runs: pick(&mut inner).into(),
            begun: inner.tick(),
            need: Need::Prefetch,
            want: 0..0,
            tried: 0..0,
        }
    }

    /// Fetches what is claimed. Whatever comes of it, the claim is released.
    fn fetch_all(&self, claim: &mut Claim, tools: &mut Tools<'_>) -> Result<u64, SourceError> {
        let mut release = ReleaseOnDrop {
            object: self,
            claim,
            outcomes: tools.outcomes,
            error: None,
        };
        let result = self.fetch_runs(release.claim, tools);
        release.error = result.as_ref().err().cloned();
        result
    }

    fn fetch_runs(&self, claim: &mut Claim, tools: &mut Tools<'_>) -> Result<u64, SourceError> {
        let mut written = 0;
        while let Some(run) = claim.runs.front().cloned() {
            let bytes = self.inner().map.bytes(&run);
            let mut missing = self.holes(&bytes);
            if claim.need == Need::Missing {
                // Some file systems report allocated or speculatively reserved ranges as data. What
                // the kernel asks for is missing, whatever they say.
                missing.push(self.to_pages(&intersect(&bytes, &claim.want), bytes.end));
            }
            let missing = merge(missing);
            let first = missing.first().map_or(bytes.end, |range| range.start);
            self.release_up_to(claim, first, tools.outcomes);
            for (at, range) in missing.iter().enumerate() {
                let next = missing.get(at + 1).map_or(bytes.end, |range| range.start);
                written += self.fetch(range.clone(), next, claim, tools)?;
            }
        }
        Ok(written)
    }

    /// Copies a range of the blob to the cache file; returns how much was written. What is behind it up
    /// to `next` is present already.
    fn fetch(
        &self,
        range: Range<u64>,
        next: u64,
        claim: &mut Claim,
        tools: &mut Tools<'_>,
    ) -> Result<u64, SourceError> {
        let mut written = 0;
        let mut off = range.start;
        while off < range.end {
            let end = range.end.min(off + PIECE.max(self.granule));
            let fetch = Fetch::begin(self, tools.limits)?;
            if let Some(pace) = tools.pace.filter(|_| claim.need == Need::Missing) {
                fetch.wait_for(pace)?;
            }
            claim.tried = off..end;
            let mut piece = Piece {
                object: self,
                buf: &mut *tools.buf,
                quota: tools.quota,
                report: tools.report,
                outcomes: tools.outcomes,
                next: if end == range.end { next } else { end },
                claim: &mut *claim,
                pos: off,
                came: off,
                end,
                written: 0,
            };
            let begun = Instant::now();
            let result = fetch.guard.run(|| self.blob.read_into(&mut piece));
            if let Some(pace) = tools.pace {
                // Nothing comes over the network from a file, and less than this if it is compressed.
                let came = match fetch.guard.came() {
                    0 => piece.came - off,
                    bytes => bytes,
                };
                pace.spend(Instant::now(), came);
            }
            let metrics = &piece.report.metrics;
            metrics.fetch(&self.server, piece.came - off, begun.elapsed());
            if result
                .as_ref()
                .is_err_and(|err| err.wrong_bytes && !err.said)
            {
                metrics.verify_failure(&self.server);
            }
            let complete = piece.pos == end;
            written += piece.written;
            result?;
            if !complete {
                return Err(SourceError::new(
                    libc::EIO,
                    "the source gave less than asked for",
                ));
            }
            off = end;
        }
        Ok(written)
    }

    /// What is claimed is present up to `pos`.
    fn release_up_to(&self, claim: &mut Claim, pos: u64, outcomes: &dyn Outcomes) {
        let Some(run) = claim.runs.front_mut() else {
            return;
        };
        let mut verdicts = Verdicts::new();
        let mut inner = self.inner();
        let end = inner.map.granules_before(pos).clamp(run.start, run.end);
        let done = run.start..end;
        run.start = end;
        if run.is_empty() {
            claim.runs.pop_front();
        }
        inner.map.release(&done, true);
        for read in inner.unpark(&done) {
            inner.settle(read, &mut verdicts, self);
        }
        drop(inner);
        tell(verdicts, outcomes);
    }

    /// What is left of a claim is not going to be fetched.
    fn give_up(&self, claim: &mut Claim, error: Option<&SourceError>, outcomes: &dyn Outcomes) {
        let mut verdicts = Verdicts::new();
        let mut inner = self.inner();
        let tried = inner.span(&claim.tried);
        for run in claim.runs.drain(..) {
            inner.map.release(&run, false);
            for granule in run {
                for read in inner.unpark(&(granule..granule + 1)) {
                    match error {
                        Some(error)
                            if claim.need == Need::Missing
                                && tried.contains(&granule)
                                && read.came < claim.begun =>
                        {
                            let mut error = error.clone();
                            // By whoever made the attempt.
                            error.said = true;
                            verdicts.push((read, Verdict::Ended(Err(error))));
                        }
                        _ => inner.settle(read, &mut verdicts, self),
                    }
                }
            }
        }
        drop(inner);
        tell(verdicts, outcomes);
    }

    /// Nobody uses the object any more: ends all fetches. Returns the READs that nobody is going to
    /// serve now.
    pub fn close(&self) -> Vec<Read> {
        let mut inner = self.inner();
        inner.closed = true;
        inner.ahead = 0..0;
        inner.wishes.clear();
        let parked = std::mem::take(&mut inner.parked);
        let fetches = std::mem::take(&mut inner.fetches);
        drop(inner);
        for fetch in fetches {
            fetch.cancel();
        }
        parked.into_values().flatten().collect()
    }

    pub fn is_closed(&self) -> bool {
        self.inner().closed
    }

    /// How many bytes are in the cache file; as far as the kernel says.
    pub fn cached(&self) -> u64 {
        self.data().map(|range| range.end - range.start).sum()
    }

    /// The parts of the cache file that have data.
    pub fn data(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut pos = 0;
        std::iter::from_fn(move || {
            let start = seek(&self.file, SeekFrom::Data(pos)).ok()?;
            let end = seek(&self.file, SeekFrom::Hole(start)).ok()?;
            pos = end;
            (start < end).then_some(start..end)
        })
    }

    /// Whether the kernel has given the object up: the CLOSE is on its way, or does not come.
    pub fn is_given_up(&self) -> bool {
        seek(&self.file, SeekFrom::Current(0)) == Err(rustix::io::Errno::NOBUFS)
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
    /// in order, what follows is to be [prefetched](Self::prefetch); returns whether that is so.
    pub fn sequential(&self, off: u64, end: u64, prefetch: u64) -> bool {
        let size = self.size();
        let mut inner = self.inner();
        let window = &inner.window;
        let in_order = window.start > 0 && window.start <= off && off <= window.end;
        let ahead = end..end.saturating_add(prefetch).min(size);
        inner.window = ahead.clone();
        if !in_order || ahead.is_empty() || inner.closed {
            return false;
        }
        inner.ahead = ahead;
        true
    }
}

impl Inner {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The granules of a range of bytes.
    fn span(&self, range: &Range<u64>) -> Range<u64> {
        let len = range.end.saturating_sub(range.start);
        self.map.covering(range.start, len)
    }

    /// The granules of a range that were present when this process last looked, and their bytes.
    fn present(&self, want: &Range<u64>) -> Vec<(u64, Range<u64>)> {
        self.span(want)
            .filter(|&granule| self.map.state(granule) == State::Present)
            .map(|granule| (granule, self.map.bytes(&(granule..granule + 1))))
            .collect()
    }

    fn has_ahead(&self) -> bool {
        !self.closed && (!self.ahead.is_empty() || !self.wishes.is_empty())
    }

    /// Claims the first of what is to be prefetched: one run of so many granules at most.
    fn claim_ahead(&mut self, most: u64) -> Vec<Range<u64>> {
        let ahead = std::mem::replace(&mut self.ahead, 0..0);
        let (runs, rest) = self.claim_first(&ahead, most);
        self.ahead = rest;
        if !runs.is_empty() {
            return runs;
        }
        while let Some(wish) = self.wishes.pop_front() {
            let (runs, rest) = self.claim_first(&wish, most);
            if !rest.is_empty() {
                self.wishes.push_front(rest);
            }
            if !runs.is_empty() {
                return runs;
            }
        }
        Vec::new()
    }

    /// Claims the first run of a range; returns what is behind that, too.
    fn claim_first(&mut self, range: &Range<u64>, most: u64) -> (Vec<Range<u64>>, Range<u64>) {
        let span = self.span(range);
        let unknown = |granule: &u64| self.map.state(*granule) == State::Unknown;
        let first = span.clone().find(unknown);
        let run = first.map(|first| {
            let count = (first..span.end).take(most as usize).take_while(unknown);
            first..first + count.count() as u64
        });
        let end = run.as_ref().map_or(span.end, |run| run.end);
        let rest = self.map.bytes(&(end..span.end));
        (run.map_or(Vec::new(), |run| self.map.claim(run)), rest)
    }

    fn unpark(&mut self, granules: &Range<u64>) -> Vec<Read> {
        if self.parked.is_empty() {
            return Vec::new();
        }
        let reads = granules
            .clone()
            .filter_map(|granule| self.parked.remove(&granule));
        reads.flatten().collect()
    }

    /// What becomes of a READ that claims nothing: it waits on, has ended, or has to claim something.
    fn settle(&mut self, read: Read, verdicts: &mut Verdicts, object: &Object) {
        let span = self.span(&object.wanted(&read));
        if self.closed {
            let gone = SourceError::new(libc::ECANCELED, "nobody uses the file any more");
            verdicts.push((read, Verdict::Ended(Err(gone))));
        } else if let Some(busy) = self.map.first(&span, State::Busy) {
            self.parked.entry(busy).or_default().push(read);
        } else if self.map.all(&span, State::Present) {
            let filled = Filled {
                written: read.written,
                end: self.map.bytes(&span).end,
            };
            verdicts.push((read, Verdict::Ended(Ok(filled))));
        } else {
            verdicts.push((read, Verdict::Again));
        }
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

/// The granules that a thread has yet to fetch.
struct Claim {
    runs: VecDeque<Range<u64>>,
    /// When, see [`Inner::clock`].
    begun: u64,
    need: Need,
    /// The pages that the kernel says are missing.
    want: Range<u64>,
    /// The bytes that were last asked for.
    tried: Range<u64>,
}

/// However a thread leaves, nobody waits forever for what it has claimed.
struct ReleaseOnDrop<'a> {
    object: &'a Object,
    claim: &'a mut Claim,
    outcomes: &'a dyn Outcomes,
    error: Option<SourceError>,
}

impl Drop for ReleaseOnDrop<'_> {
    fn drop(&mut self) {
        self.object
            .give_up(self.claim, self.error.as_ref(), self.outcomes);
    }
}

/// A fetch that is known to its object, so that closing that ends it.
struct Fetch<'a> {
    object: &'a Object,
    guard: Arc<Guard>,
}

impl<'a> Fetch<'a> {
    fn begin(object: &'a Object, limits: Limits) -> Result<Self, SourceError> {
        let guard = Guard::new(limits);
        let mut inner = object.inner();
        if inner.closed {
            return Err(SourceError::new(
                libc::ECANCELED,
                "nobody uses the file any more",
            ));
        }
        inner.fetches.push(Arc::clone(&guard));
        Ok(Self { object, guard })
    }

    /// Waits until something may be fetched. The time that it may take has not begun.
    fn wait_for(&self, pace: &Bandwidth) -> Result<(), SourceError> {
        loop {
            let wait = pace.wait(Instant::now());
            if wait.is_zero() {
                return Ok(());
            }
            self.guard
                .pause(wait)
                .map_err(|reason| SourceError::new(libc::ECANCELED, reason))?;
        }
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let mut inner = self.object.inner();
        inner
            .fetches
            .retain(|other| !Arc::ptr_eq(other, &self.guard));
    }
}

/// Where the bytes of a piece go on their way from the source to the cache file.
struct Piece<'a, 'b> {
    object: &'a Object,
    buf: &'a mut Buffer,
    quota: &'a dyn Quota,
    report: &'a Report,
    outcomes: &'b dyn Outcomes,
    claim: &'a mut Claim,
    /// Everything before it was written.
    pos: u64,
    /// Everything from there up to this is in the buffer.
    came: u64,
    end: u64,
    /// What is between the end and this is present.
    next: u64,
    written: u64,
}

impl Sink for Piece<'_, '_> {
    fn rest(&self) -> Range<u64> {
        self.came..self.end
    }

    fn space(&mut self) -> &mut [u8] {
        let end = self.step();
        self.buf.part(self.came - self.pos..end - self.pos)
    }

    fn filled(&mut self, len: usize) -> Result<(), SourceError> {
        self.report.add(&self.report.stats.fetched, len as u64);
        self.object.fetched.fetch_add(len as u64, Relaxed);
        self.came += len as u64;
        if self.came == self.step() {
            self.write()?;
        }
        Ok(())
    }
}

impl Piece<'_, '_> {
    /// The end of what is written next: that of a granule, of a good number of them or of a part.
    fn step(&self) -> u64 {
        let step = self.object.granule.clamp(WRITE, PIECE);
        (self.pos - self.pos % step)
            .saturating_add(step)
            .min(self.end)
    }

    fn cannot_write(&self, pos: u64, len: u64, err: &io::Error) -> SourceError {
        let full = is_full(err);
        let hint = if full {
            " (the cache is full, and what is in it is in use: free some space on its file system, or \
             lower --bstop and --fstop; or the file was withdrawn)"
        } else {
            ""
        };
        let text = strip_code(err);
        SourceError {
            said: full && !self.report.cache_is_full(),
            ..SourceError::new(
                err.raw_os_error().unwrap_or(libc::EIO),
                format!("writing {len} bytes to the cache file at {pos}: {text}{hint}"),
            )
        }
    }

    /// Writes what has come, and says that it is there.
    fn write(&mut self) -> Result<(), SourceError> {
        let (pos, end) = (self.pos, self.came);
        let padded = (end - pos).next_multiple_of(BLOCK);
        self.buf.part(end - pos..padded).fill(0);
        let bytes = &*self.buf.part(0..padded);
        let object = self.object;
        let written = self.quota.write(padded, &|| {
            let written = object.file.write_all_at(bytes, pos);
            match &written {
                // Not a matter of room.
                Err(err) if is_full(err) && object.is_given_up() => Err(withdrawn()),
                _ => written,
            }
        });
        written.map_err(|err| self.cannot_write(pos, padded, &err))?;
        self.report.cache_has_room();
        self.report.add(&self.report.stats.written, padded);
        self.written += padded;
        self.pos = end;
        let present = if end == self.end { self.next } else { end };
        self.object
            .release_up_to(self.claim, present, self.outcomes);
        Ok(())
    }
}

/// A thread's buffer, aligned to pages: the kernel may write it to the cache file with O_DIRECT.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Default for Buffer {
    /// Room for what is written at once.
    fn default() -> Self {
        let page = rustix::param::page_size();
        let memory = vec![0; PIECE as usize + page];
        let start = memory.as_ptr().align_offset(page);
        Self { memory, start }
    }
}

impl Buffer {
    fn part(&mut self, range: Range<u64>) -> &mut [u8] {
        &mut self.memory[self.start + range.start as usize..self.start + range.end as usize]
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::guard::tests::LIMITS;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
    use std::time::Duration;

    /// A cache that is as full as its file system is.
    pub struct NoQuota;

    impl Quota for NoQuota {
        fn write(&self, _: u64, write: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
            write()
        }
    }

    /// A blob in memory that counts what is taken from it.
    pub struct MemoryBlob {
        pub data: Vec<u8>,
        pub reads: Mutex<Vec<Range<u64>>>,
        pub broken: AtomicBool,
        pub delay_ms: AtomicU64,
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
            })
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

    /// What was told of READs, by message id.
    #[derive(Default)]
    struct Told {
        ended: Mutex<HashMap<u32, Result<Filled, SourceError>>>,
        again: Mutex<Vec<Read>>,
    }

    impl Outcomes for Told {
        fn ended(&self, read: Read, result: Result<Filled, SourceError>) {
            let earlier = self.ended.lock().unwrap().insert(read.msg_id, result);
            assert!(earlier.is_none());
        }

        fn again(&self, read: Read) {
            self.again.lock().unwrap().push(read);
        }
    }

    struct Setup {
        blob: Arc<MemoryBlob>,
        file: File,
        object: Object,
        report: Arc<Report>,
        pace: Option<Bandwidth>,
        told: Told,
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
            pace: None,
            told: Told::default(),
        }
    }

    impl Setup {
        fn read(&self, msg_id: u32, want: Range<u64>) -> Read {
            let len = want.end - want.start;
            self.object.read(msg_id, want.start, len, Instant::now())
        }

        fn with_tools<R>(&self, work: impl FnOnce(&mut Tools<'_>) -> R) -> R {
            work(&mut Tools {
                buf: &mut Buffer::default(),
                quota: &NoQuota,
                report: &self.report,
                limits: LIMITS,
                pace: self.pace.as_ref(),
                outcomes: &self.told,
            })
        }

        fn serve(&self, read: Read) {
            self.with_tools(|tools| self.object.serve(read, tools));
            while let Some(read) = { self.told.again.lock().unwrap().pop() } {
                self.with_tools(|tools| self.object.serve(read, tools));
            }
        }

        fn ended(&self, msg_id: u32) -> Option<Result<Filled, SourceError>> {
            self.told.ended.lock().unwrap().remove(&msg_id)
        }

        fn fill(&self, want: Range<u64>) -> Result<Filled, SourceError> {
            self.serve(self.read(0, want));
            self.ended(0).unwrap()
        }

        /// Prefetches this; returns how often it had to be asked to.
        fn prefetch(&self, want: Range<u64>) -> Result<usize, SourceError> {
            self.object.inner().ahead = want;
            for calls in 1.. {
                let mut more = false;
                self.with_tools(|tools| self.object.prefetch(tools, || more = true))?;
                if !more {
                    return Ok(calls);
                }
            }
            unreachable!()
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
        assert_eq!(merge(s.blob.taken()), [0..16384, 24576..131072]);
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
        let (told, report) = (Told::default(), Report::silent());
        let fail = |id: u32| {
            let read = object.read(id, u64::from(id) * 4096, 4096, Instant::now());
            object.serve(
                read,
                &mut Tools {
                    buf: &mut Buffer::default(),
                    quota: &NoQuota,
                    report: &report,
                    limits: LIMITS,
                    pace: None,
                    outcomes: &told,
                },
            );
            let ended = told.ended.lock().unwrap().remove(&id);
            ended.unwrap().unwrap_err()
        };
        let err = fail(0);
        assert_eq!(err.errno, libc::ENOSPC);
        assert!(err.reason.contains("the cache is full"), "{}", err.reason);
        // The user is told once, until there is room again.
        assert!(!err.said);
        assert!(fail(1).said);
        report.cache_has_room();
        assert!(!fail(0).said);
    }

    #[test]
    fn large_ranges_go_in_pieces() {
        let s = setup(3 << 20, 4096);
        assert_eq!(s.fill(0..3 << 20).unwrap().written, 3 << 20);
        let taken = s.blob.taken();
        assert!(
            taken.iter().all(|range| range.end - range.start == WRITE),
            "{taken:?}"
        );
        assert_eq!(merge(taken), [0..3 << 20]);
        s.check(0..3 << 20);
    }

    #[test]
    fn a_large_granule_needs_no_large_buffer() {
        let s = setup(5_000_000, 4 << 20);
        assert_eq!(s.fill(4_990_000..5_000_000).unwrap().written, 806_912);
        assert_eq!(s.fill(0..4096).unwrap().written, 4 << 20);
        assert_eq!(merge(s.blob.taken()), [0..5_000_000]);
        s.check(0..5_000_000);
    }

    #[test]
    fn concurrent_reads_share_one_fetch() {
        let s = setup(256 << 10, 64 << 10);
        s.blob.delay_ms.store(50, SeqCst);
        std::thread::scope(|scope| {
            for i in 0..8 {
                let s = &s;
                let read = s.read(i, u64::from(i) * 4096..u64::from(i) * 4096 + 70_000);
                scope.spawn(move || s.serve(read));
            }
        });
        for i in 0..8 {
            s.ended(i).unwrap().unwrap();
        }
        let mut taken = s.blob.taken();
        taken.sort_by_key(|r| r.start);
        assert!(
            taken.windows(2).all(|w| w[0].end <= w[1].start),
            "{taken:?}"
        );
        s.check(0..128 << 10);
    }

    /// A blob of which each range is given when the test says so.
    struct Valve {
        blob: Arc<MemoryBlob>,
        asked: std::sync::mpsc::SyncSender<Range<u64>>,
        answers: Mutex<std::sync::mpsc::Receiver<Result<(), SourceError>>>,
    }

    impl Blob for Valve {
        fn size(&self) -> u64 {
            self.blob.size()
        }

        fn version(&self) -> Option<&str> {
            self.blob.version()
        }

        fn read_exact_at(&self, buf: &mut [u8], off: u64) -> Result<(), SourceError> {
            self.asked.send(off..off + buf.len() as u64).unwrap();
            self.answers.lock().unwrap().recv().unwrap()?;
            self.blob.read_exact_at(buf, off)
        }
    }

    /// What the other end of a valve is told, and says.
    struct Hand {
        asked: std::sync::mpsc::Receiver<Range<u64>>,
        answers: std::sync::mpsc::Sender<Result<(), SourceError>>,
    }

    impl Hand {
        fn asked(&self) -> Range<u64> {
            self.asked.recv().unwrap()
        }

        fn give(&self) {
            self.answers.send(Ok(())).unwrap();
        }

        fn refuse(&self) {
            let err = SourceError::new(libc::EIO, "refused");
            self.answers.send(Err(err)).unwrap();
        }
    }

    fn with_valve(size: usize, granule: u64) -> (Setup, Hand) {
        let mut s = setup(size, granule);
        let (asked, is_asked) = std::sync::mpsc::sync_channel(100);
        let (answers, answer) = std::sync::mpsc::channel();
        let valve = Valve {
            blob: s.blob.clone(),
            asked,
            answers: Mutex::new(answer),
        };
        let fd = s.file.try_clone().unwrap().into();
        s.object = Object::new("blob".into(), Arc::new(valve), fd, granule);
        let hand = Hand {
            asked: is_asked,
            answers,
        };
        (s, hand)
    }

    const G: u64 = 64 << 10;

    #[test]
    fn a_read_ends_when_its_own_bytes_are_there() {
        let (s, hand) = with_valve(8 * G as usize, G);
        std::thread::scope(|scope| {
            scope.spawn(|| s.prefetch(0..8 * G).unwrap());
            assert_eq!(hand.asked(), 0..G);
            // These are parked: the calls return.
            for i in 0..3 {
                s.serve(s.read(i, u64::from(i) * G..u64::from(i + 1) * G));
            }
            hand.give();
            for i in 1..8 {
                assert_eq!(hand.asked(), i * G..(i + 1) * G);
                // Those of the granules before have ended, those behind have not.
                let ended = s.told.ended.lock().unwrap().len() as u64;
                assert_eq!(ended, i.min(3));
                hand.give();
            }
        });
        s.check(0..8 * G);
    }

    #[test]
    fn who_waits_for_a_prefetch_that_fails_tries_for_himself() {
        let (s, hand) = with_valve(8 * G as usize, G);
        std::thread::scope(|scope| {
            let prefetch = scope.spawn(|| s.prefetch(0..8 * G));
            assert_eq!(hand.asked(), 0..G);
            for i in 0..3 {
                s.serve(s.read(i, u64::from(i) * G..u64::from(i + 1) * G));
            }
            hand.give();
            assert_eq!(hand.asked(), G..2 * G);
            hand.refuse();
            assert!(prefetch.join().unwrap().is_err());
        });
        assert!(s.ended(0).unwrap().is_ok());
        // Each is to be served once more, and has a fetch of its own.
        assert!(s.ended(1).is_none() && s.ended(2).is_none());
        let again = std::mem::take(&mut *s.told.again.lock().unwrap());
        assert_eq!(again.len(), 2);
        for read in again {
            hand.give();
            let (i, want) = (read.msg_id, s.object.wanted(&read));
            s.serve(read);
            assert_eq!(hand.asked(), want);
            s.ended(i).unwrap().unwrap();
        }
        s.check(0..3 * G);
    }

    #[test]
    fn a_failure_is_that_of_a_try_made_since_the_read_came() {
        let (s, hand) = with_valve(G as usize, G);
        let reads: Vec<Read> = (0..4).map(|i| s.read(i, 0..4096)).collect();
        std::thread::scope(|scope| {
            let mut reads = reads.into_iter();
            let first = reads.next().unwrap();
            scope.spawn(|| s.with_tools(|tools| s.object.serve(first, tools)));
            hand.asked();
            reads.for_each(|read| s.serve(read));
            s.serve(s.read(9, 0..4096));
            hand.refuse();
        });
        // One request for the four that had come before it.
        for i in 0..4 {
            assert_eq!(s.ended(i).unwrap().unwrap_err().reason, "refused");
        }
        // The other one was not there yet.
        assert!(s.ended(9).is_none());
        hand.give();
        let read = s.told.again.lock().unwrap().pop().unwrap();
        s.serve(read);
        s.ended(9).unwrap().unwrap();
    }

    #[test]
    fn closing_ends_everything() {
        let (s, hand) = with_valve(8 * G as usize, G);
        std::thread::scope(|scope| {
            scope.spawn(|| s.serve(s.read(1, 0..4 * G)));
            hand.asked();
            for i in 2..5 {
                s.serve(s.read(i, G..2 * G));
            }
            s.serve(s.read(5, 3 * G..4 * G));
            let mut left: Vec<u32> = s.object.close().iter().map(|read| read.msg_id).collect();
            left.sort_unstable();
            assert_eq!(left, [2, 3, 4, 5]);
            hand.give();
            hand.refuse();
        });
        assert!(s.ended(1).unwrap().is_err());
        // Nothing is begun any more.
        s.serve(s.read(6, 0..G));
        s.serve(s.read(7, 5 * G..6 * G));
        assert_eq!(s.ended(7).unwrap().unwrap_err().errno, libc::ECANCELED);
        assert!(!s.object.sequential(0, G, G));
    }

    #[test]
    fn prefetch_takes_only_holes() {
        let s = setup(64 << 10, 16 << 10);
        s.file.write_all_at(&[0xee; 16 << 10], 0).unwrap();
        assert_eq!(s.prefetch(0..32 << 10).unwrap(), 1);
        assert_eq!(s.blob.taken(), [16384..32768]);
        // What is there already is not looked at again; what is behind it is found.
        assert_eq!(s.prefetch(0..48 << 10).unwrap(), 1);
        assert_eq!(s.blob.taken(), [32768..49152]);
        assert_eq!(s.prefetch(0..48 << 10).unwrap(), 1);
        assert!(s.blob.taken().is_empty());
        let s = setup(3 << 20, 16 << 10);
        assert_eq!(s.prefetch(0..3 << 20).unwrap(), 3);
        assert_eq!(merge(s.blob.taken()), [0..3 << 20]);
    }

    #[test]
    fn what_is_wanted_is_fetched_in_that_order() {
        let s = setup(1 << 20, 16 << 10);
        s.file.write_all_at(&[0xee; 16 << 10], 64 << 10).unwrap();
        s.object
            .want([512 << 10..513 << 10, 0..40 << 10, 60 << 10..96 << 10]);
        assert!(s.object.is_prefetching());
        assert_eq!(s.prefetch(0..0).unwrap(), 3);
        let k = |start: u64, end: u64| start << 10..end << 10;
        assert_eq!(
            s.blob.taken(),
            [k(512, 528), k(0, 48), k(48, 64), k(80, 96)]
        );
        assert!(!s.object.is_prefetching());
        // What somebody reads comes first; what fails is not wanted any more.
        s.object.want([k(128, 160)]);
        s.object.inner().ahead = k(96, 112);
        s.blob.broken.store(true, SeqCst);
        assert!(s
            .with_tools(|tools| s.object.prefetch(tools, || ()))
            .is_err());
        assert_eq!(s.object.last_error().unwrap(), "broken");
        assert!(!s.object.is_prefetching());
    }

    #[test]
    fn the_rest_is_fetched_in_the_background() {
        let mut s = setup(1_000_000, 16 << 10);
        s.file.write_all_at(&[0xee; 48 << 10], 32 << 10).unwrap();
        let rest = |s: &Setup| s.with_tools(|tools| s.object.fetch_rest(tools));
        assert!(!s.object.wants_rest());
        assert!(s.object.set_background(true) && !s.object.set_background(true));
        // Not so much at once that the pace would be a matter of seconds.
        s.pace = Some(Bandwidth::new(256 << 10));
        assert_eq!(rest(&s).unwrap(), Rest::More);
        assert_eq!(merge(s.blob.taken()), [0..32 << 10]);
        assert!(s.pace.as_ref().unwrap().wait(Instant::now()).is_zero());
        s.pace = None;
        s.blob.broken.store(true, SeqCst);
        assert_eq!(rest(&s).unwrap_err().reason, "broken");
        assert_eq!(
            (
                s.object.background_failed("a"),
                s.object.background_failed("broken")
            ),
            (1, 2)
        );
        assert_eq!(s.object.background(), Background::Waiting("broken".into()));
        assert!(s.object.wants_rest());
        s.blob.broken.store(false, SeqCst);
        s.blob.taken();
        assert_eq!(rest(&s).unwrap(), Rest::More);
        assert_eq!(s.object.background(), Background::Running);
        assert_eq!(s.object.background_failed("once"), 1);
        assert_eq!(rest(&s).unwrap(), Rest::Nothing);
        assert_eq!(merge(s.blob.taken()), [80 << 10..1_000_000]);
        assert_eq!(s.object.background(), Background::Complete);
        assert!(!s.object.wants_rest());
        s.check(96 << 10..1_000_000);
        // What has not got there is found, and so is what was lost.
        s.file.set_len(500 << 10).unwrap();
        s.file.set_len(1000 << 10).unwrap();
        let gone: Vec<u64> = (31..62).collect();
        s.object.inner().map.forget(&gone);
        s.object.set_background(true);
        while rest(&s).unwrap() == Rest::More {}
        s.check(96 << 10..1_000_000);
        // Something that is being fetched for somebody is not complete.
        let s = setup(64 << 10, 16 << 10);
        s.object.set_background(true);
        s.object.inner().map.claim(0..4);
        assert_eq!(rest(&s).unwrap(), Rest::Busy);
        s.object.set_background(false);
        s.object.hold_background("x");
        assert_eq!(s.object.background(), Background::Off);
    }

    #[test]
    fn what_somebody_waits_for_keeps_the_pace_if_it_has_to() {
        let mut s = setup(1 << 20, 16 << 10);
        s.pace = Some(Bandwidth::new(1 << 20));
        let begun = Instant::now();
        // The first second's is there at once, then a granule has to be waited for.
        s.pace.as_ref().unwrap().spend(begun, 1 << 20);
        s.fill(0..64 << 10).unwrap();
        s.fill(64 << 10..80 << 10).unwrap();
        assert!(begun.elapsed().as_millis() >= 60, "{:?}", begun.elapsed());
        // Closing ends the wait.
        s.pace.as_ref().unwrap().spend(begun, 1 << 40);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| s.fill(512 << 10..513 << 10));
            while s.object.inner().fetches.is_empty() {
                std::thread::yield_now();
            }
            s.object.close();
            assert_eq!(waits.join().unwrap().unwrap_err().errno, libc::ECANCELED);
        });
        assert!(s.blob.taken().iter().all(|range| range.end <= 80 << 10));
    }

    #[test]
    fn what_is_read_is_recorded_once_and_in_order() {
        let s = setup(1 << 20, 16 << 10);
        assert_eq!(s.object.recorded(), None);
        s.object.record();
        let k = |start: u64, end: u64| start << 10..end << 10;
        for range in [k(100, 104), k(0, 40), k(48, 52), k(96, 120), k(1020, 1030)] {
            s.read(1, range);
        }
        let ranges = s.object.recorded().unwrap();
        assert_eq!(ranges, [k(96, 112), k(0, 64), k(112, 128), k(1008, 1024)]);
        // It is over.
        s.read(1, k(200, 204));
        assert_eq!(s.object.recorded(), None);
        // Nothing was read.
        s.object.record();
        assert_eq!(s.object.recorded(), None);
        // Something was there before.
        s.file.write_all_at(&[0xee; 4096], 0).unwrap();
        s.object.record();
        s.read(1, k(200, 204));
        assert_eq!(s.object.recorded(), None);
    }

    #[test]
    fn reading_in_order_is_noticed() {
        let s = setup(1 << 20, 4096);
        let next = |off, end| {
            s.object
                .sequential(off, end, 65536)
                .then(|| s.object.inner().ahead.clone())
        };
        assert_eq!(next(0, 4096), None);
        assert_eq!(next(4096, 8192), Some(8192..73728));
        assert_eq!(next(20480, 24576), Some(24576..90112));
        assert_eq!(next(500_000, 503_808), None);
        assert_eq!(next(503_808, 1 << 20), None);
    }

    #[test]
    fn the_buffer_is_aligned() {
        let mut buf = Buffer::default();
        let page = rustix::param::page_size();
        assert_eq!(buf.part(0..PIECE).as_ptr() as usize % page, 0);
    }
}
