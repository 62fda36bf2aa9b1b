// SPDX-License-Identifier: GPL-2.0-or-later

//! The daemon proper.
//!
//! One thread takes messages from the device and does no more than to look at them: what has to be
//! asked of the source, for an OPEN or a READ, is a job for the [`Pool`]. So whatever a source does, the
//! next message is read, and a CLOSE ends what is not wanted any more.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use log::kv::Value;
use rustix::event::epoll;

use crate::cull::{Culler, Objects};
use crate::device::{self, strip_code, Device};
use crate::guard::{Guard, Limits};
use crate::message::{Message, Messages, Op, BATCH_SIZE};
use crate::object::{Buffer, Filled, Object, Outcomes, Read, Rest, Tools};
use crate::pace::{Bandwidth, Later};
use crate::pool::{self, Fetches, Opens, Pool};
use crate::report::{Event, Report};
use crate::schedule::Room;
use crate::source::{Blob, BlobName, Source, SourceError};
use crate::stop::Stop;
use crate::store;
use crate::sys;
use crate::trace::{Trace, Traces};
use crate::whole::{self, Finding};

/// How requests are served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much is fetched at once; OPENs have as much room again.
    pub room: Room,
    /// The unit of fetching, in bytes; a power of two, at least a page.
    pub granule: u64,
    /// How far to read ahead of a sequential reader, in bytes.
    pub prefetch: u64,
    /// Whether the rest of each blob is fetched in the background.
    pub background: bool,
    /// How many bytes are fetched in a second at most, of what nobody waits for ...
    pub bandwidth: Option<u64>,
    /// ... and of everything together.
    pub limit_reads: bool,
    /// Whether the volume key names a directory of the source.
    pub by_domain: bool,
    /// What a fetch may cost.
    pub limits: Limits,
    /// After what time the kernel has failed a READ, if it does that.
    pub request_timeout: Option<Duration>,
    /// The kernel's limits for culling.
    pub cull: device::Limits,
    /// The most bytes that the cache should have.
    pub cache_size: Option<u64>,
    /// For how long reads are recorded.
    pub trace_time: Duration,
}

/// How long a server may say nothing to a fetch that nobody has asked for.
const PREFETCH_SILENCE: Duration = Duration::from_secs(2);

/// When the background looks again at what holds it up: somebody's fetches, or the recording of a start, ...
const MOMENT: Duration = Duration::from_secs(1);

/// ... a cache without room to spare, ...
const NO_ROOM: Duration = Duration::from_secs(30);

/// ... and a failure: so long after the first one, then twice as long, and so on up to five minutes.
const FAILED: Duration = Duration::from_secs(5);
const MAX_DOUBLINGS: u32 = 6;

/// The kernel is not exact to the second.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(2);

/// How a READ is completed; the tests have another way.
type Complete = Box<dyn Fn(BorrowedFd<'_>, u32) -> io::Result<()> + Send + Sync>;

pub struct Daemon {
    pub device: Arc<Device>,
    epoll: rustix::fd::OwnedFd,
    source: Box<dyn Source>,
    options: Options,
    pub culler: Culler,
    traces: Option<Traces>,
    /// The objects whose reads are being recorded, and until when.
    recorded: Mutex<Vec<(Instant, Weak<Object>)>>,
    /// One blob at a time is read as a whole.
    reading: Mutex<()>,
    report: Arc<Report>,
    stop: Arc<Stop>,
    /// When it was started.
    since: Instant,
    objects: Mutex<HashMap<u32, Entry>>,
    pool: Pool<Job>,
    bandwidth: Option<Bandwidth>,
    /// What is to be fetched when nobody waits for it, and cannot be now; by object and importance.
    later: Later<(u32, bool), Job>,
    complete: Complete,
    /// Why the daemon gave up.
    fatal: Mutex<Option<String>>,
}

/// An object that the kernel has told of and has not closed.
enum Entry {
    /// Its OPEN is not answered.
    Opening {
        key: String,
        guard: Arc<Guard>,
    },
    Open(Arc<Object>),
}

/// Something for the pool.
enum Job {
    Open(Open),
    Read(Arc<Object>, u32, Read),
    Prefetch(Arc<Object>, u32),
    Background(Arc<Object>, u32),
}

impl Job {
    fn object_id(&self) -> u32 {
        match self {
            Self::Open(open) => open.object_id,
            Self::Read(_, id, _) | Self::Prefetch(_, id) | Self::Background(_, id) => *id,
        }
    }
}

/// An OPEN.
struct Open {
    msg_id: u32,
    object_id: u32,
    name: BlobName,
    /// The cookie key, for messages to people.
    key: String,
    /// The keys of the volume and the cookie.
    keys: (Vec<u8>, Vec<u8>),
    fd: OwnedFd,
    guard: Arc<Guard>,
    since: Instant,
}

impl Daemon {
    /// Prepares to serve, with the cache in the directory `cache`. The device is being watched from here on, so that no message that comes after
    /// `bind` or `restore` is missed.
    pub fn new(
        device: Device,
        source: Box<dyn Source>,
        options: Options,
        cache: PathBuf,
        traces: Option<Traces>,
        report: Arc<Report>,
        stop: Arc<Stop>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered, because the device can always be written to while the cache is to be culled.
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let device = Arc::new(device);
        let culler = Culler::new(
            cache,
            options.cull,
            options.cache_size,
            Arc::clone(&device) as _,
            Arc::clone(&report),
            Arc::clone(&stop),
        );
        epoll::add(&epoll, &device, epoll::EventData::new_u64(0), events)?;
        let stop_data = epoll::EventData::new_u64(1);
        epoll::add(&epoll, &*stop, stop_data, epoll::EventFlags::IN)?;
        Ok(Self {
            device,
            epoll,
            source,
            options,
            culler,
            traces,
            recorded: Mutex::default(),
            reading: Mutex::default(),
            report,
            stop,
            since: Instant::now(),
            objects: Mutex::default(),
            pool: Pool::new(options.room),
            bandwidth: options.bandwidth.map(Bandwidth::new),
            later: Later::default(),
            complete: Box::new(sys::read_complete),
            fatal: Mutex::default(),
        })
    }

    /// What the source has may have changed.
    pub fn reload(&self) {
        if let Err(reason) = self.source.reload() {
            self.report.error(&format!("nothing has changed: {reason}"));
        }
    }

    /// Starts the threads. They end when the stop is set, which they do themselves if the device fails.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        for _ in 0..self.pool.first_threads() {
            self.start_thread()?;
        }
        let daemon = Arc::clone(self);
        pool::spawn("cull", move || daemon.culler.run(&*daemon))?;
        let daemon = Arc::clone(self);
        pool::spawn("later", move || {
            while let Some(job) = daemon.later.next() {
                daemon.put(job);
            }
        })?;
        let daemon = Arc::clone(self);
        pool::spawn("messages", move || {
            if let Err(reason) = daemon.serve() {
                let mut fatal = daemon.fatal.lock().unwrap_or_else(PoisonError::into_inner);
                fatal.get_or_insert(reason);
            }
            daemon.stop.set();
            daemon.leave();
        })
    }

    /// Starts a thread that counts in the pool already.
    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let daemon = Arc::clone(self);
        let started = pool::spawn("fetch", move || daemon.work());
        if started.is_err() {
            self.pool.not_started();
        }
        started
    }

    /// Starts another thread for what there is to do. If that is not possible, those that there are do
    /// it, one after the other.
    fn add_thread(self: &Arc<Self>) {
        if let Err(err) = self.start_thread() {
            let text = format!("cannot start another thread: {err}");
            self.report.error(&text);
        }
    }

    /// Changes what there is to do, and has somebody do it.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Opens<Job>, &mut Fetches<Job>)) {
        if self.pool.change(change) {
            self.add_thread();
        }
    }

    /// Waits until all threads have ended after a stop, but not longer than `time`. Returns whether they
    /// have.
    pub fn join(&self, time: Duration) -> bool {
        self.pool.join(time)
    }

    /// Why the daemon stopped by itself, if it did.
    pub fn fatal(&self) -> Option<String> {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        fatal.take()
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread that takes messages.
    fn serve(self: &Arc<Self>) -> Result<(), String> {
        let mut batch = vec![0; BATCH_SIZE];
        let mut events = Vec::with_capacity(2);
        loop {
            events.clear();
            let capacity = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, capacity, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(format!("cannot wait for messages: {err}")),
            }
            self.drain(&mut batch)?;
            if self.stop.is_set() {
                return Ok(());
            }
            let wants_room = |flags: epoll::EventFlags| flags.contains(epoll::EventFlags::OUT);
            if events.iter().any(|event| wants_room(event.flags)) {
                self.culler.wanted();
            }
            // After what was there to be read.
            let dead = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
            let is_dead = |flags: epoll::EventFlags| flags.contains(dead);
            if events.iter().any(|event| is_dead(event.flags)) {
                return Err("the cache is dead after an I/O error".into());
            }
        }
    }

    /// Takes messages until there are none. An edge says only that there is at least one.
    fn drain(self: &Arc<Self>, batch: &mut [u8]) -> Result<(), String> {
        let mut failures = 0;
        while !self.stop.is_set() {
            match self.device.receive(batch) {
                Ok(None) => return Ok(()),
                Ok(Some(bytes)) => {
                    failures = 0;
                    for message in Messages::new(bytes) {
                        self.handle(message);
                    }
                }
                Err(err) => {
                    failures += 1;
                    self.receive_failed(&err, failures)?;
                }
            }
        }
        Ok(())
    }

    /// After a stop: nothing more is started, and what runs ends soon. What was not answered is left to
    /// the successor.
    fn leave(&self) {
        drop(self.pool.stop());
        self.later.end();
        self.culler.end();
        let entries = std::mem::take(&mut *self.objects());
        for entry in entries.into_values() {
            match entry {
                Entry::Opening { guard, .. } => guard.cancel(),
                Entry::Open(object) => drop(object.close()),
            }
        }
    }

    /// Reading a message can fail for that message only: the kernel could not make the descriptor of an
    /// OPEN. It comes again; from the C implementation it does not, the OPEN has failed.
    fn receive_failed(&self, err: &io::Error, failures: u32) -> Result<(), String> {
        let hint = match err.raw_os_error() {
            Some(libc::EMFILE) => " (raise the limit on open files: ulimit -n, LimitNOFILE=)",
            Some(libc::EEXIST) => " (the object has a descriptor already)",
            Some(libc::ENFILE | libc::ENOMEM | libc::ENOENT | libc::EFAULT) => "",
            Some(libc::EIO) => return Err("the cache is dead after an I/O error".into()),
            _ => return Err(format!("cannot read messages: {err}")),
        };
        self.report.error(&format!(
            "an OPEN could not be taken: {}{hint}",
            strip_code(err)
        ));
        if failures > 16 {
            // Whatever the reason is, it does not go away by asking faster.
            self.stop.sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn handle(self: &Arc<Self>, bytes: &[u8]) {
        let since = Instant::now();
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(err) => {
                self.report.error(&err.to_string());
                if let Some(msg_id) = err.open_msg_id {
                    self.answer_open(msg_id, "", -i64::from(libc::EINVAL), None);
                }
                return;
            }
        };
        let stats = &self.report.stats;
        let Message {
            msg_id, object_id, ..
        } = message;
        match message.op {
            Op::Open {
                volume_key,
                cookie_key,
                fd,
            } => {
                self.report.add(&stats.open, 1);
                self.take_open(msg_id, object_id, volume_key, cookie_key, fd, since);
            }
            Op::Close => {
                self.report.add(&stats.close, 1);
                let outcome = self.close(&message);
                self.log("CLOSE", msg_id, object_id, (0, 0), &outcome, since);
            }
            Op::Read { off, len } => {
                self.report.add(&stats.read, 1);
                self.take_read(&message, off, len, since);
            }
        }
    }

    fn log(
        &self,
        opcode: &str,
        msg_id: u32,
        object_id: u32,
        (off, len): (u64, u64),
        outcome: &Outcome,
        since: Instant,
    ) {
        self.report.event(&Event {
            opcode,
            msg_id,
            object_id,
            key: &outcome.key,
            off,
            len,
            result: outcome.result,
            error: outcome.error.as_deref(),
            since,
        });
    }

    /// Sees to it that an OPEN is answered.
    fn take_open(
        self: &Arc<Self>,
        msg_id: u32,
        object_id: u32,
        volume: &[u8],
        cookie: &[u8],
        fd: i32,
        since: Instant,
    ) {
        self.report.begins(since, msg_id, object_id);
        let key = cookie.escape_ascii().to_string();
        let taken = sys::adopt_fd(fd)
            .map_err(|err| SourceError::new(libc::EBADF, format!("descriptor {fd}: {err}")))
            .and_then(|fd| {
                Ok((
                    fd,
                    BlobName::from_keys(volume, cookie, self.options.by_domain)?,
                ))
            });
        let (fd, name) = match taken {
            Ok(taken) => taken,
            Err(err) => {
                let outcome = self.refuse(msg_id, &key, err);
                return self.log("OPEN", msg_id, object_id, (0, 0), &outcome, since);
            }
        };
        let guard = Guard::new(self.options.limits);
        let entry = Entry::Opening {
            key: name.to_string(),
            guard: Arc::clone(&guard),
        };
        self.objects().insert(object_id, entry);
        self.culler.opened(object_id, volume, cookie);
        let place = name.to_string();
        let job = Job::Open(Open {
            msg_id,
            object_id,
            name,
            key,
            keys: (volume.to_vec(), cookie.to_vec()),
            fd,
            guard,
            since,
        });
        self.change(|opens, _| opens.push(&place, &Arc::from(""), job));
    }

    /// Sees to it that a READ is completed.
    fn take_read(self: &Arc<Self>, message: &Message<'_>, off: u64, len: u64, since: Instant) {
        let Message {
            msg_id, object_id, ..
        } = *message;
        self.report.begins(since, msg_id, object_id);
        let Some(object) = self.object(object_id) else {
            // Without its descriptor a request cannot be completed, not even as failed.
            let outcome = self.unknown("READ", message);
            return self.log("READ", msg_id, object_id, (off, len), &outcome, since);
        };
        let server = Arc::clone(&object.server);
        let read = object.read(msg_id, off, len, since);
        let job = Job::Read(object, object_id, read);
        self.change(|_, fetches| fetches.push(&object_id, &server, job));
    }

    fn object(&self, object_id: u32) -> Option<Arc<Object>> {
        match self.objects().get(&object_id) {
            Some(Entry::Open(object)) => Some(Arc::clone(object)),
            _ => None,
        }
    }

    /// The kernel does not know an object any more.
    fn forget(&self, object_id: u32) -> Option<Entry> {
        self.culler.closed(object_id);
        self.objects().remove(&object_id)
    }

    fn close(self: &Arc<Self>, message: &Message<'_>) -> Outcome {
        // The descriptor is closed here, or by the thread that is still writing to it.
        match self.forget(message.object_id) {
            Some(Entry::Open(object)) => {
                self.keep_trace(&object);
                self.end(message.object_id, &object);
                Outcome::ok(&object.name, 0)
            }
            Some(Entry::Opening { key, guard }) => {
                guard.cancel();
                let unwanted = |job: &Job| job.object_id() == message.object_id;
                let mut left = Vec::new();
                self.change(|opens, _| left = opens.remove(&key, unwanted));
                for job in left {
                    if let Job::Open(open) = job {
                        self.report.ends(open.since, open.msg_id);
                    }
                }
                Outcome::ok(&key, 0)
            }
            None => self.unknown("CLOSE", message),
        }
    }

    /// Nobody uses an object any more: ends whatever is done or waits to be done for it.
    fn end(self: &Arc<Self>, object_id: u32, object: &Object) {
        let mut left = object.close();
        for ahead in [true, false] {
            self.later.remove(&(object_id, ahead));
        }
        self.change(|_, fetches| {
            let jobs = fetches.remove(&object_id, |_| true).into_iter();
            left.extend(jobs.filter_map(|job| match job {
                Job::Read(_, _, read) => Some(read),
                Job::Open(_) | Job::Prefetch(..) | Job::Background(..) => None,
            }));
        });
        for read in left {
            self.log_unwanted(object_id, object, &read);
        }
    }

    fn log_unwanted(&self, object_id: u32, object: &Object, read: &Read) {
        let reason = if self.stop.is_set() {
            "stopping"
        } else {
            "nobody uses the file any more"
        };
        let outcome = Outcome {
            key: object.name.clone(),
            result: -i64::from(libc::ECANCELED),
            error: Some(reason.into()),
        };
        let range = (read.off, read.len);
        self.log("READ", read.msg_id, object_id, range, &outcome, read.since);
    }

    /// The life of a thread of the pool.
    fn work(self: &Arc<Self>) {
        // Most threads never need one.
        let mut buf = None;
        let work = |job| match job {
            Job::Open(open) => self.open(open),
            Job::Read(object, id, read) => self.read(&object, id, read, &mut buf),
            Job::Prefetch(object, id) => self.prefetch(&object, id, &mut buf),
            Job::Background(object, id) => self.fetch_rest(&object, id, &mut buf),
        };
        self.pool.run(work, || self.add_thread());
    }

    fn open(self: &Arc<Self>, open: Open) {
        let Open {
            msg_id,
            object_id,
            name,
            key,
            keys,
            fd,
            guard,
            since,
        } = open;
        let found = guard.run(|| {
            let blob = self.source.open(&name)?;
            // The kernel is going to make a file for it.
            self.culler.make_room();
            Ok(blob)
        });
        let found = found.and_then(|blob| {
            self.check_whole(&keys, &*blob)?;
            Ok(blob)
        });
        let unwanted = guard.is_cancelled() || self.stop.is_set();
        let outcome = match found.and_then(|blob| self.check_size(blob)) {
            Ok(blob) => {
                let granule = blob.granule(self.options.granule);
                let object = Arc::new(Object::new(name.to_string(), blob, fd, granule));
                self.begin_trace(&object);
                let outcome = self.answer(msg_id, object_id, Arc::clone(&object));
                if outcome.error.is_none() {
                    self.replay(&object, object_id);
                    if self.options.background {
                        self.set_background(&object, object_id, true);
                    }
                }
                outcome
            }
            // There was a CLOSE for it, or a successor gets it again.
            Err(_) if unwanted => Outcome {
                key,
                result: -i64::from(libc::ECANCELED),
                error: Some("nobody waits for it any more".into()),
            },
            Err(err) => {
                self.forget(object_id);
                self.refuse(msg_id, &key, err)
            }
        };
        self.log("OPEN", msg_id, object_id, (0, 0), &outcome, since);
    }

    /// If all of a blob is in the cache, it has to have the blob's digest. That takes a while to find out,
    /// and is known at the next OPEN.
    fn check_whole(
        self: &Arc<Self>,
        (volume, cookie): &(Vec<u8>, Vec<u8>),
        blob: &dyn Blob,
    ) -> Result<(), SourceError> {
        let Some(digest) = blob.whole() else {
            return Ok(());
        };
        let Some(path) = store::find(self.culler.cache(), volume, cookie) else {
            return Ok(());
        };
        match whole::known(&path, digest) {
            Finding::Right => return Ok(()),
            Finding::Wrong => {
                let path = path.display();
                let text = format!("{path} does not have the digest {digest}; delete it");
                return Err(SourceError::new(libc::EIO, text));
            }
            Finding::Unknown => {}
        }
        let (daemon, digest, size) = (Arc::clone(self), digest.to_string(), blob.size());
        // Without a thread, it is the next OPEN's business.
        let _ = pool::spawn("digest", move || daemon.read_whole(&path, size, &digest));
        Ok(())
    }

    fn read_whole(&self, path: &Path, size: u64, digest: &str) {
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // Several OPENs of it may have come.
        if whole::known(path, digest) != Finding::Unknown {
            return;
        }
        let shown = path.display();
        match whole::check(path, size, digest, &self.stop) {
            Ok(Finding::Wrong) => {
                self.report.metrics.verify_failure("cache");
                self.report.error(&format!(
                    "{shown} is complete and does not have the digest {digest}: either its chunk index is \
                     not that of the blob, or the disk has changed it"
                ));
            }
            Ok(_) => {}
            // It may be gone.
            Err(err) => self
                .report
                .note(&format!("cannot check {shown}: {}", strip_code(&err))),
        }
    }

    fn check_size(&self, blob: Arc<dyn Blob>) -> Result<Arc<dyn Blob>, SourceError> {
        if blob.size() > i64::MAX as u64 - blob.granule(self.options.granule) {
            return Err(SourceError::new(libc::EFBIG, "the size is beyond 2^63"));
        }
        Ok(blob)
    }

    /// Answers an OPEN with the object that was found.
    fn answer(&self, msg_id: u32, object_id: u32, object: Arc<Object>) -> Outcome {
        let (key, size) = (object.name.clone(), object.size());
        let version = object.version().map(str::to_string);
        // Before the answer: a READ may follow it at once.
        let known = match self.objects().get_mut(&object_id) {
            Some(entry) => {
                *entry = Entry::Open(object);
                true
            }
            // There was a CLOSE meanwhile.
            None => false,
        };
        let answered = known && self.answer_open(msg_id, &key, size as i64, version.as_deref());
        if !answered {
            self.forget(object_id);
        }
        Outcome {
            key,
            result: size as i64,
            error: (!answered).then(|| "not answered".into()),
        }
    }

    /// Records what is read of an object from now on, if there is no trace for it.
    fn begin_trace(&self, object: &Arc<Object>) {
        let Some(traces) = &self.traces else { return };
        match traces.read(&object.name) {
            Ok(Some(trace)) if self.is_of(&trace, object) => return,
            Ok(_) => {}
            Err(reason) => self.report.note(&reason),
        }
        object.record();
        let until = Instant::now() + self.options.trace_time;
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.push((until, Arc::downgrade(object)));
    }

    fn is_of(&self, trace: &Trace, object: &Object) -> bool {
        trace.size == object.size() && trace.version.as_deref() == object.version()
    }

    /// Prefetches what was read the last time. That the kernel has a file for it is known only now.
    fn replay(self: &Arc<Self>, object: &Arc<Object>, id: u32) {
        let Some(traces) = &self.traces else { return };
        if let Ok(Some(trace)) = traces.read(&object.name) {
            if self.is_of(&trace, object) {
                object.want(trace.ranges());
                self.want_prefetch(object, id);
            }
        }
    }

    /// Writes the traces of the objects that were recorded for long enough, or of all.
    pub fn write_traces(&self, all: bool) {
        let due: Vec<_> = {
            let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let (due, left) = recorded
                .drain(..)
                .partition(|(until, object)| all || now >= *until || object.strong_count() == 0);
            *recorded = left;
            due
        };
        for (_, object) in due {
            if let Some(object) = object.upgrade() {
                self.keep_trace(&object);
            }
        }
    }

    fn keep_trace(&self, object: &Object) {
        if let Err(reason) = self.write_trace(object) {
            self.report.note(&reason);
        }
    }

    /// Writes what was recorded of an object, if anything was.
    fn write_trace(&self, object: &Object) -> Result<Option<Trace>, String> {
        let recorded = self.traces.as_ref().zip(object.recorded());
        let Some((traces, ranges)) = recorded else {
            return Ok(None);
        };
        let trace = Trace::new(object.version(), object.size(), &ranges);
        traces.write(&object.name, &trace)?;
        Ok(Some(trace))
    }

    /// Answers an OPEN with an error.
    fn refuse(&self, msg_id: u32, key: &str, err: SourceError) -> Outcome {
        let text = format!("OPEN of \"{key}\" refused: {err}");
        if err.errno == libc::ENOENT {
            // An answer like another: whoever mounts may ask for what is not there.
            self.report.note(&text);
        } else {
            let fields = [("blob", Value::from(key)), ("errno", err.errno.into())];
            self.report.error_with(&text, &fields);
        }
        let result = -i64::from(err.errno.clamp(1, 4095));
        self.answer_open(msg_id, key, result, None);
        Outcome {
            key: key.to_string(),
            result,
            error: Some(err.reason),
        }
    }

    /// Answers an OPEN; false if the kernel did not take the answer.
    fn answer_open(&self, msg_id: u32, key: &str, result: i64, version: Option<&str>) -> bool {
        let Err(untaken) = self.device.copen(msg_id, result, version) else {
            return true;
        };
        let text = format!("OPEN {msg_id} of \"{key}\": {}", untaken.reason);
        if untaken.said {
            self.report.add(&self.report.stats.errors, 1);
        } else if untaken.failure {
            self.report.error(&text);
        } else {
            self.report.note(&text);
        }
        false
    }

    fn read(self: &Arc<Self>, object: &Arc<Object>, id: u32, read: Read, buf: &mut Option<Buffer>) {
        let outcomes = Reads {
            daemon: self,
            object,
            id,
        };
        let timeout = self.options.request_timeout;
        if timeout.is_some_and(|time| read.since.elapsed() > time + TIMEOUT_MARGIN) {
            let late = SourceError::new(libc::ETIMEDOUT, "the kernel does not wait any more");
            return outcomes.ended(read, Err(late));
        }
        let limits = self.options.limits;
        let mut tools = self.tools(&outcomes, buf, limits);
        tools.pace = tools.pace.filter(|_| self.options.limit_reads);
        object.serve(read, &mut tools);
    }

    /// Whoever comes to need what is being fetched does not wait long for a server that might have
    /// answered a request of his own.
    fn patience(&self) -> Limits {
        Limits {
            silence: Some(PREFETCH_SILENCE),
            window: self.options.limits.window.min(PREFETCH_SILENCE),
            retry: false,
            ..self.options.limits
        }
    }

    /// Whether something may be fetched that nobody waits for. If not, the job is done later.
    fn may_fetch(&self, id: u32, job: Job) -> bool {
        let now = Instant::now();
        let wait = self.bandwidth.as_ref().map(|pace| pace.wait(now));
        match wait {
            Some(wait) if !wait.is_zero() => {
                self.put_off(id, job, wait);
                false
            }
            _ => true,
        }
    }

    fn put_off(&self, id: u32, job: Job, time: Duration) {
        let ahead = matches!(job, Job::Prefetch(..));
        self.later.put((id, ahead), Instant::now() + time, job);
    }

    fn prefetch(self: &Arc<Self>, object: &Arc<Object>, id: u32, buf: &mut Option<Buffer>) {
        if !self.may_fetch(id, Job::Prefetch(Arc::clone(object), id)) {
            return;
        }
        let outcomes = Reads {
            daemon: self,
            object,
            id,
        };
        let result = object.prefetch(&mut self.tools(&outcomes, buf, self.patience()), || {
            self.want_prefetch(object, id);
        });
        match result {
            Ok(()) => {}
            Err(_) if object.is_closed() => {}
            Err(err) if err.said => {}
            Err(err) => self
                .report
                .note(&format!("prefetching \"{}\": {err}", object.name)),
        }
    }

    /// Has the rest of a blob be fetched in the background, or not any more.
    fn set_background(self: &Arc<Self>, object: &Arc<Object>, id: u32, on: bool) {
        if object.set_background(on) {
            self.put(Job::Background(Arc::clone(object), id));
        }
    }

    /// Fetches something of a blob that is in the cache not yet, if nothing speaks against it.
    fn fetch_rest(self: &Arc<Self>, object: &Arc<Object>, id: u32, buf: &mut Option<Buffer>) {
        if !object.wants_rest() {
            return;
        }
        let job = || Job::Background(Arc::clone(object), id);
        let held = if object.is_recording() {
            // What is fetched is not read.
            Some(("what is read at the start is being recorded", MOMENT))
        } else if !self.culler.has_room_to_spare() {
            Some(("the cache has no room to spare", NO_ROOM))
        } else {
            None
        };
        if let Some((reason, time)) = held {
            object.hold_background(reason);
            return self.put_off(id, job(), time);
        }
        if !self.may_fetch(id, job()) {
            return;
        }
        let outcomes = Reads {
            daemon: self,
            object,
            id,
        };
        match object.fetch_rest(&mut self.tools(&outcomes, buf, self.patience())) {
            Ok(Rest::More) => self.put(job()),
            Ok(Rest::Busy) => self.put_off(id, job(), MOMENT),
            Ok(Rest::Nothing) => {}
            Err(_) if object.is_closed() => {}
            Err(err) => {
                let failures = object.background_failed(&err.reason);
                let time = FAILED * (1 << (failures - 1).min(MAX_DOUBLINGS));
                self.put_off(id, job(), time);
                if failures == 1 && !err.said {
                    let name = &object.name;
                    let text = format!("fetching the rest of \"{name}\": {err}; trying again");
                    self.report.note(&text);
                }
            }
        }
    }

    /// Something that nobody waits for.
    fn put(self: &Arc<Self>, job: Job) {
        let (id, server) = match &job {
            Job::Prefetch(object, id) | Job::Background(object, id) => {
                (*id, Arc::clone(&object.server))
            }
            Job::Open(_) | Job::Read(..) => return,
        };
        self.change(|_, fetches| match job {
            Job::Background(..) => fetches.push_last(&id, &server, job),
            _ => fetches.push_ahead(&id, &server, job),
        });
    }

    fn tools<'a>(
        &'a self,
        outcomes: &'a dyn Outcomes,
        buf: &'a mut Option<Buffer>,
        limits: Limits,
    ) -> Tools<'a> {
        Tools {
            buf: buf.get_or_insert_with(Buffer::default),
            quota: &self.culler,
            report: &self.report,
            limits,
            pace: self.bandwidth.as_ref(),
            outcomes,
        }
    }

    fn want_prefetch(self: &Arc<Self>, object: &Arc<Object>, id: u32) {
        self.put(Job::Prefetch(Arc::clone(object), id));
    }

    /// Completes a READ, whether it has its data or not; returns what to log.
    fn complete(
        &self,
        object: &Object,
        read: &Read,
        result: Result<&Filled, &SourceError>,
    ) -> Outcome {
        let name = &object.name;
        let mut outcome = match result {
            Ok(filled) => Outcome::ok(name, filled.written as i64),
            Err(err) => {
                let (off, len) = (read.off, read.len);
                if err.said {
                    self.report.add(&self.report.stats.errors, 1);
                } else {
                    let text = format!("READ of \"{name}\", {len} bytes at {off}: {err}");
                    let fields = [
                        ("blob", Value::from(name.as_str())),
                        ("errno", err.errno.into()),
                        ("offset", off.into()),
                        ("length", len.into()),
                    ];
                    self.report.error_with(&text, &fields);
                }
                Outcome {
                    key: name.clone(),
                    result: -i64::from(err.errno),
                    error: Some(err.reason.clone()),
                }
            }
        };
        // Also after a failure: the kernel looks again, finds the hole and gives the reader EIO.
        if let Err(err) = (self.complete)(object.as_fd(), read.msg_id) {
            let text = if err.raw_os_error() == Some(libc::EINVAL) {
                // It has timed out, or was answered before; or the object is not used any more.
                "the request is gone".to_string()
            } else {
                let text = format!("cannot complete READ {}: {err}", read.msg_id);
                self.report.error(&text);
                text
            };
            outcome.error.get_or_insert(text);
        }
        outcome
    }

    fn unknown(&self, opcode: &str, message: &Message<'_>) -> Outcome {
        let Message {
            msg_id, object_id, ..
        } = message;
        let text = format!("{opcode} {msg_id} for object {object_id}, which this daemon has not");
        self.report.note(&text);
        Outcome {
            key: String::new(),
            result: -i64::from(libc::ENOENT),
            error: Some(text),
        }
    }
}

impl Objects for Daemon {
    fn cached(&self, object_id: u32) -> u64 {
        self.object(object_id).map_or(0, |object| object.cached())
    }
}

/// What became of a message, for the log.
struct Outcome {
    key: String,
    result: i64,
    error: Option<String>,
}

impl Outcome {
    fn ok(key: &str, result: i64) -> Self {
        Self {
            key: key.to_string(),
            result,
            error: None,
        }
    }
}

/// What becomes of the READs of an object.
struct Reads<'a> {
    daemon: &'a Arc<Daemon>,
    object: &'a Arc<Object>,
    id: u32,
}

impl Outcomes for Reads<'_> {
    fn ended(&self, read: Read, result: Result<Filled, SourceError>) {
        let (daemon, object) = (self.daemon, self.object);
        if result.is_err() && object.is_closed() {
            // By a CLOSE; or by a stop, and a successor gets it again.
            return daemon.log_unwanted(self.id, object, &read);
        }
        // Before the reader goes on: another thread may serve its next READ, which has to find this one
        // noted.
        let prefetch = daemon.options.prefetch;
        let reads_on = result
            .as_ref()
            .is_ok_and(|filled| prefetch > 0 && object.sequential(read.off, filled.end, prefetch));
        let outcome = daemon.complete(object, &read, result.as_ref());
        let range = (read.off, read.len);
        daemon.log("READ", read.msg_id, self.id, range, &outcome, read.since);
        if outcome.error.is_some() && object.is_given_up() {
            daemon.forget(self.id);
            daemon.end(self.id, object);
        } else if reads_on {
            daemon.want_prefetch(object, self.id);
        }
    }

    fn again(&self, read: Read) {
        let job = Job::Read(Arc::clone(self.object), self.id, read);
        let server = Arc::clone(&self.object.server);
        self.daemon
            .change(|_, fetches| fetches.push_front(&self.id, &server, job));
    }
}

pub mod answers;
#[cfg(test)]
mod tests;
