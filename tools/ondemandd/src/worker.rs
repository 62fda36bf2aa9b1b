// SPDX-License-Identifier: GPL-2.0

//! The daemon proper: threads that take messages from the device and answer them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{epoll, eventfd, EventfdFlags};

use crate::device::{strip_code, Device};
use crate::message::{Message, Messages, Op, BATCH_SIZE};
use crate::object::{Buffer, Need, Object};
use crate::report::{Event, Report};
use crate::source::{BlobName, Source, SourceError};
use crate::stop::Stop;
use crate::sys;

/// How requests are served.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub threads: usize,
    /// The unit of fetching, in bytes; a power of two, at least a page.
    pub granule: u64,
    /// How far to read ahead of a sequential reader, in bytes.
    pub prefetch: u64,
    /// Whether the volume key names a directory of the source.
    pub by_domain: bool,
}

/// How a READ is completed; the tests have another way.
type Complete = Box<dyn Fn(BorrowedFd<'_>, u32) -> io::Result<()> + Send + Sync>;

type PrefetchJob = (Weak<Object>, Range<u64>);

pub struct Daemon {
    pub device: Device,
    epoll: rustix::fd::OwnedFd,
    /// Messages that were read together with one that is being handled.
    pending: Mutex<VecDeque<Vec<u8>>>,
    /// Always readable: wakes a thread for a pending message when its registration is modified.
    more: rustix::fd::OwnedFd,
    source: Box<dyn Source>,
    options: Options,
    report: Arc<Report>,
    stop: Arc<Stop>,
    objects: Mutex<HashMap<u32, Arc<Object>>>,
    prefetcher: Option<SyncSender<PrefetchJob>>,
    complete: Complete,
    /// Why a thread gave up.
    fatal: Mutex<Option<String>>,
}

/// What there is to do is registered edge-triggered: with level-triggered events every thread would wake
/// for every message.
fn work_events() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::ET
}

impl Daemon {
    /// Prepares to serve. The device is being watched from here on, so that no message that comes after
    /// `bind` or `restore` is missed.
    pub fn new(
        device: Device,
        source: Box<dyn Source>,
        options: Options,
        report: Arc<Report>,
        stop: Arc<Stop>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &device, epoll::EventData::new_u64(0), work_events())?;
        let more = eventfd(1, EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &more, epoll::EventData::new_u64(2), work_events())?;
        // Level-triggered: every thread is to see it.
        let stop_data = epoll::EventData::new_u64(1);
        epoll::add(&epoll, &*stop, stop_data, epoll::EventFlags::IN)?;
        let prefetcher = (options.prefetch > 0).then(|| {
            let (sender, jobs) = sync_channel(options.threads * 2);
            let report = Arc::clone(&report);
            std::thread::spawn(move || prefetch(&jobs, options.granule, &report));
            sender
        });
        Ok(Self {
            device,
            epoll,
            pending: Mutex::default(),
            more,
            source,
            options,
            report,
            stop,
            objects: Mutex::default(),
            prefetcher,
            complete: Box::new(sys::read_complete),
            fatal: Mutex::default(),
        })
    }

    /// Starts the threads. They end when the stop is set, which they do themselves if the device fails.
    pub fn start(self: &Arc<Self>) -> io::Result<Vec<JoinHandle<()>>> {
        (0..self.options.threads)
            .map(|i| {
                let daemon = Arc::clone(self);
                std::thread::Builder::new()
                    .name(format!("worker-{i}"))
                    .spawn(move || {
                        if let Err(reason) = daemon.serve() {
                            let mut fatal =
                                daemon.fatal.lock().unwrap_or_else(PoisonError::into_inner);
                            fatal.get_or_insert(reason);
                            daemon.stop.set();
                        }
                    })
            })
            .collect()
    }

    /// Why the daemon stopped by itself, if it did.
    pub fn fatal(&self) -> Option<String> {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        fatal.take()
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<u32, Arc<Object>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) -> Result<(), String> {
        let mut buf = Buffer::new(self.options.granule);
        let mut batch = vec![0; BATCH_SIZE];
        let mut events = Vec::with_capacity(1);
        loop {
            events.clear();
            let capacity = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, capacity, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(format!("cannot wait for messages: {err}")),
            }
            self.drain(&mut batch, &mut buf)?;
            if self.stop.is_set() {
                return Ok(());
            }
        }
    }

    /// Takes and answers messages until there are none. An edge says only that there is at least one.
    fn drain(&self, batch: &mut [u8], buf: &mut Buffer) -> Result<(), String> {
        let mut failures = 0;
        while !self.stop.is_set() {
            let next = self.pending().pop_front();
            if let Some(message) = next {
                self.wake_another();
                self.handle(&message, buf);
                continue;
            }
            match self.device.receive(batch) {
                Ok(None) => return Ok(()),
                Ok(Some(bytes)) => {
                    failures = 0;
                    let mut messages = Messages::new(bytes);
                    let first = messages.next();
                    self.pending().extend(messages.map(<[u8]>::to_vec));
                    self.wake_another();
                    if let Some(first) = first {
                        self.handle(first, buf);
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

    /// More messages than one may have come with the edge that woke this thread. Modifying a
    /// registration makes epoll look again, so that an idle thread takes the next message while this
    /// one is busy with a slow source.
    fn wake_another(&self) {
        if self.options.threads == 1 {
            return;
        }
        let modified = if self.pending().is_empty() {
            let data = epoll::EventData::new_u64(0);
            epoll::modify(&self.epoll, &self.device, data, work_events())
        } else {
            let data = epoll::EventData::new_u64(2);
            epoll::modify(&self.epoll, &self.more, data, work_events())
        };
        if let Err(err) = modified {
            self.report
                .error(&format!("cannot modify the epoll entry: {err}"));
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

    fn handle(&self, bytes: &[u8], buf: &mut Buffer) {
        let since = Instant::now();
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(err) => {
                self.report.error(&err.to_string());
                if let Some(msg_id) = err.open_msg_id {
                    self.answer_open(msg_id, -i64::from(libc::EINVAL), None);
                }
                return;
            }
        };
        let stats = &self.report.stats;
        let counter = match message.op {
            Op::Open { .. } => &stats.open,
            Op::Close => &stats.close,
            Op::Read { .. } => &stats.read,
        };
        self.report.add(counter, 1);

        let (opcode, off, len, outcome) = match message.op {
            Op::Open {
                volume_key,
                cookie_key,
                fd,
            } => {
                let outcome = self.open(&message, volume_key, cookie_key, fd);
                ("OPEN", 0, 0, outcome)
            }
            Op::Close => ("CLOSE", 0, 0, self.close(&message)),
            Op::Read { off, len } => ("READ", off, len, self.read(&message, off, len, buf)),
        };
        self.report.event(&Event {
            opcode,
            msg_id: message.msg_id,
            object_id: message.object_id,
            key: &outcome.key,
            off,
            len,
            result: outcome.result,
            error: outcome.error.as_deref(),
            since,
        });
    }

    fn open(&self, message: &Message<'_>, volume: &[u8], cookie: &[u8], fd: i32) -> Outcome {
        let opened = sys::adopt_fd(fd)
            .map_err(|err| SourceError::new(libc::EBADF, format!("descriptor {fd}: {err}")))
            .and_then(|fd| {
                let name = BlobName::from_keys(volume, cookie, self.options.by_domain)?;
                let blob = self.source.open(&name)?;
                if blob.size() > i64::MAX as u64 - self.options.granule {
                    return Err(SourceError::new(libc::EFBIG, "the size is beyond 2^63"));
                }
                let name = name.to_string();
                Ok(Object::new(name, blob, fd, self.options.granule))
            });
        match opened {
            Ok(object) => {
                let (key, size) = (object.name.clone(), object.size());
                let object = Arc::new(object);
                // Before the answer: a READ may follow it at once, and come to another thread.
                self.objects()
                    .insert(message.object_id, Arc::clone(&object));
                let answered = self.answer_open(message.msg_id, size as i64, object.version());
                if !answered {
                    self.objects().remove(&message.object_id);
                }
                Outcome {
                    key,
                    result: size as i64,
                    error: (!answered).then(|| "not answered".into()),
                }
            }
            Err(err) => {
                let key = cookie.escape_ascii().to_string();
                let text = format!("OPEN of \"{key}\" refused: {err}");
                if err.errno == libc::ENOENT {
                    // An answer like another: whoever mounts may ask for what is not there.
                    self.report.note(&text);
                } else {
                    self.report.error(&text);
                }
                let result = -i64::from(err.errno.clamp(1, 4095));
                self.answer_open(message.msg_id, result, None);
                Outcome {
                    key,
                    result,
                    error: Some(err.reason),
                }
            }
        }
    }

    /// Answers an OPEN; false if the kernel did not take the answer.
    fn answer_open(&self, msg_id: u32, result: i64, version: Option<&str>) -> bool {
        match self.device.copen(msg_id, result, version) {
            Ok(()) => true,
            Err(untaken) => {
                if untaken.failure {
                    self.report.error(&untaken.reason);
                } else {
                    self.report.note(&untaken.reason);
                }
                false
            }
        }
    }

    fn close(&self, message: &Message<'_>) -> Outcome {
        match self.objects().remove(&message.object_id) {
            // The descriptor is closed here, or by the thread that is still writing to it.
            Some(object) => Outcome::ok(&object.name, 0),
            None => self.unknown("CLOSE", message),
        }
    }

    fn read(&self, message: &Message<'_>, off: u64, len: u64, buf: &mut Buffer) -> Outcome {
        let object = self.objects().get(&message.object_id).cloned();
        let Some(object) = object else {
            // Without its descriptor a request cannot be completed, not even as failed.
            return self.unknown("READ", message);
        };
        let range = off..off.saturating_add(len);
        let filled = object.fill(range, Need::Missing, buf, &self.report);
        let mut outcome = match &filled {
            Ok(filled) => Outcome::ok(&object.name, filled.written as i64),
            Err(_) if self.stop.is_set() => {
                // Not completed: a successor gets it again, and without one the kernel fails it.
                return Outcome {
                    key: object.name.clone(),
                    result: -i64::from(libc::EINTR),
                    error: Some("stopping".into()),
                };
            }
            Err(err) => {
                let name = &object.name;
                if err.said {
                    self.report.add(&self.report.stats.errors, 1);
                } else {
                    self.report
                        .error(&format!("READ of \"{name}\", {len} bytes at {off}: {err}"));
                }
                Outcome {
                    key: name.clone(),
                    result: -i64::from(err.errno),
                    error: Some(err.reason.clone()),
                }
            }
        };
        // Also after a failure: the kernel looks again, finds the hole and gives the reader EIO.
        if let Err(err) = (self.complete)(object.as_fd(), message.msg_id) {
            let text = if err.raw_os_error() == Some(libc::EINVAL) {
                // The reader was killed, or another thread has served the same request.
                "the request is gone".to_string()
            } else {
                let text = format!("cannot complete READ {}: {err}", message.msg_id);
                self.report.error(&text);
                text
            };
            outcome.error.get_or_insert(text);
        }
        if let (Some(prefetcher), Ok(filled)) = (&self.prefetcher, &filled) {
            if let Some(ahead) = object.sequential(off, filled.end, self.options.prefetch) {
                // If the prefetcher is behind, the reader is faster than the source anyway.
                let _ = prefetcher.try_send((Arc::downgrade(&object), ahead));
            }
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

/// The prefetching thread. It ends with the daemon, which holds the other end of the channel.
fn prefetch(jobs: &Receiver<PrefetchJob>, granule: u64, report: &Report) {
    let mut buf = Buffer::new(granule);
    while let Ok((object, range)) = jobs.recv() {
        let Some(object) = object.upgrade() else {
            continue;
        };
        if let Err(err) = object.fill(range, Need::Prefetch, &mut buf, report) {
            report.note(&format!("prefetching \"{}\": {err}", object.name));
        }
    }
}

#[cfg(test)]
mod tests;
