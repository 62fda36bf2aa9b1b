// SPDX-License-Identifier: GPL-2.0-or-later

//! What the daemon tells: totals, the line on the terminal, the log and the statistics file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::kv::Value;
use log::{Level, Record};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::time::{clock_gettime, ClockId};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use systemd_journal_logger::{connected_to_journal, JournalLog};

use crate::metrics::{Metrics, Outcome};

/// Totals since this process started.
#[derive(Default)]
pub struct Stats {
    pub open: AtomicU64,
    pub read: AtomicU64,
    pub close: AtomicU64,
    /// Bytes taken from the source.
    pub fetched: AtomicU64,
    /// Bytes written to cache files, the zeros behind a blob's end included.
    pub written: AtomicU64,
    pub errors: AtomicU64,
    /// Bytes of the cache without those that were written: how many there are, less the total of those that
    /// had been written when that was found out.
    pub cache_base: AtomicU64,
    /// The most bytes that the cache should have; 0: any.
    pub cache_limit: AtomicU64,
    /// Files that were culled, and what they took of the disk.
    pub culled_files: AtomicU64,
    pub culled: AtomicU64,
}

/// The totals as they are written.
#[derive(Serialize)]
struct Totals {
    open: u64,
    read: u64,
    close: u64,
    fetched: u64,
    written: u64,
    errors: u64,
}

impl Stats {
    /// How many bytes the cache has, as far as is known.
    pub fn cache(&self) -> u64 {
        let base = self.cache_base.load(Relaxed);
        base.wrapping_add(self.written.load(Relaxed))
    }

    fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Totals {
            open: get(&self.open),
            read: get(&self.read),
            close: get(&self.close),
            fetched: get(&self.fetched),
            written: get(&self.written),
            errors: get(&self.errors),
        }
    }
}

/// A line of the log.
#[derive(Serialize)]
struct Line<T> {
    ms: f64,
    #[serde(flatten)]
    what: T,
}

/// Something that happened to the daemon itself.
#[derive(Serialize)]
struct Happening<'a, T> {
    event: &'a str,
    #[serde(flatten)]
    more: T,
}

#[derive(Serialize)]
struct Process {
    pid: u32,
}

#[derive(Serialize)]
struct Cull {
    files: u64,
    bytes: u64,
    left: u64,
}

/// A message and what became of it.
#[derive(Serialize)]
struct Served<'a> {
    opcode: &'a str,
    msg_id: u32,
    object_id: u32,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    off: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    len: Option<u64>,
    result: i64,
    us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// JSON in which no text does anything to a terminal: names come from whoever mounts.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        mut text: &str,
    ) -> io::Result<()> {
        while let Some((at, tricky)) = text.char_indices().find(|(_, c)| is_tricky(*c)) {
            let (plain, rest) = text.split_at(at);
            write!(out, "{plain}\\u{:04x}", u32::from(tricky))?;
            text = &rest[tricky.len_utf8()..];
        }
        out.write_all(text.as_bytes())
    }
}

/// A value as one line of JSON.
fn json(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    // Neither memory nor the types above can fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut out, Harmless));
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

/// One message and what became of it, for the log.
pub struct Event<'a> {
    pub opcode: &'a str,
    pub msg_id: u32,
    pub object_id: u32,
    /// The blob's name as far as it is known.
    pub key: &'a str,
    pub off: u64,
    pub len: u64,
    /// OPEN: size or -errno, as in `copen`. READ: bytes written or -errno. CLOSE: 0 or -errno.
    pub result: i64,
    pub error: Option<&'a str>,
    /// When the message was read.
    pub since: Instant,
}

/// At most this many lines are printed per second; the log has them all.
const LINES_PER_SECOND: u32 = 20;

/// What is on the terminal.
#[derive(Default)]
struct Terminal {
    progress_shown: bool,
    second: Option<Instant>,
    lines: u32,
    dropped: u64,
}

/// Where this is told besides the terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'a> {
    pub log: Option<&'a Path>,
    pub stats: Option<&'a Path>,
    pub metrics: Option<&'a Path>,
}

pub struct Report {
    pub stats: Stats,
    pub metrics: Metrics,
    /// The messages that were read and are not answered, the oldest one first, and their objects.
    pending: Mutex<BTreeMap<(Instant, u32), u32>>,
    metrics_file: Option<PathBuf>,
    metrics_trouble: Mutex<Trouble>,
    log: Option<Mutex<Log>>,
    stats_file: Option<PathBuf>,
    stats_trouble: Mutex<Trouble>,
    /// Of a cache that takes no data.
    cache_trouble: Mutex<Trouble>,
    /// Of a cache that is too large, and that nothing can be removed from.
    cull_trouble: Mutex<Trouble>,
    progress: bool,
    terminal: Mutex<Terminal>,
    /// Takes lines instead of standard error, with their fields, if that is journald's.
    journal: Option<Box<dyn log::Log>>,
    /// Set when totals have changed since the last [`refresh`](Self::refresh).
    changed: AtomicBool,
    event: OwnedFd,
}

/// What cannot be written is said when it begins, and then now and again.
#[derive(Default)]
struct Trouble {
    said: Option<Instant>,
}

/// How often trouble is said that goes on.
const AGAIN: Duration = Duration::from_secs(60);

impl Trouble {
    /// Whether it is time to say it.
    fn begins(&mut self) -> bool {
        let due = self.said.is_none_or(|said| said.elapsed() >= AGAIN);
        if due {
            self.said = Some(Instant::now());
        }
        due
    }

    /// Whether there was any.
    fn ends(&mut self) -> bool {
        self.said.take().is_some()
    }
}

/// The log. What is lost while it cannot be written stays lost.
struct Log {
    path: PathBuf,
    file: Option<File>,
    /// When opening it was tried last.
    tried: Instant,
    trouble: Trouble,
}

/// How often a log that cannot be opened is tried again.
const REOPEN: Duration = Duration::from_secs(2);

impl Log {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
            file: None,
            tried: Instant::now(),
            trouble: Trouble::default(),
        }
    }

    /// It has names and addresses, which are not for everybody. What is there keeps its mode. A FIFO
    /// without a reader must not be waited for.
    fn open(&mut self) -> io::Result<()> {
        self.tried = Instant::now();
        self.file = None;
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(&self.path)?;
        self.file = Some(file);
        Ok(())
    }

    /// Writes one line in one write, so that a reader that follows the file sees whole lines.
    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.file.is_none() && self.tried.elapsed() >= REOPEN {
            self.open()?;
        }
        match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => Err(io::Error::other("it is not open")),
        }
    }
}

/// A counter is right whatever became of the thread that held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Report {
    /// Neither the log nor the statistics are worth more than the service: what is wrong with them is
    /// said, and they are tried again.
    ///
    /// # Errors
    ///
    /// There is no descriptor left.
    pub fn new(files: Files<'_>, quiet: bool) -> Result<Self, String> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|err| format!("cannot make an eventfd: {err}"))?;
        let report = Self {
            stats: Stats::default(),
            metrics: Metrics::default(),
            pending: Mutex::default(),
            metrics_file: files.metrics.map(Path::to_path_buf),
            metrics_trouble: Mutex::default(),
            log: files.log.map(|path| Mutex::new(Log::new(path))),
            stats_file: files.stats.map(Path::to_path_buf),
            stats_trouble: Mutex::default(),
            cache_trouble: Mutex::default(),
            cull_trouble: Mutex::default(),
            progress: !quiet && io::stderr().is_terminal(),
            terminal: Mutex::default(),
            journal: journal(),
            changed: AtomicBool::new(false),
            event,
        };
        report.reopen_log();
        report.try_stats();
        Ok(report)
    }

    /// Opens the log again, which somebody may have renamed.
    pub fn reopen_log(&self) {
        let Some(log) = &self.log else { return };
        let mut log = lock(log);
        let result = log.open();
        self.log_result(&mut log, result);
    }

    /// Says what is wrong with the log, or that it is right again.
    fn log_result(&self, log: &mut Log, result: io::Result<()>) {
        let path = log.path.display();
        match result {
            Ok(()) => {
                if log.trouble.ends() {
                    self.line(&format!("the log {path} is written again"));
                }
            }
            Err(err) => {
                if log.trouble.begins() {
                    let err = crate::device::strip_code(&err);
                    self.line(&format!(
                        "cannot write to the log {path}: {err}; going on without"
                    ));
                }
            }
        }
    }

    /// Adds to a total.
    pub fn add(&self, counter: &AtomicU64, n: u64) {
        if n == 0 {
            return;
        }
        counter.fetch_add(n, Relaxed);
        let watched = self.progress || self.stats_file.is_some();
        if watched && !self.changed.swap(true, Relaxed) {
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Shows the current totals. Call it when the descriptor of this report is readable, but not more
    /// often than people and scripts can read.
    pub fn refresh(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.event, &mut count[..]);
        self.changed.store(false, Relaxed);
        self.try_stats();
        if self.progress && can_write() {
            let mut terminal = lock(&self.terminal);
            terminal.progress_shown = true;
            let _ = write!(io::stderr(), "\r\x1b[K{}", self.totals());
        }
    }

    fn try_stats(&self) {
        if let Some(path) = &self.stats_file {
            let text = json(&self.stats.totals());
            self.replace(path, &text, &self.stats_trouble);
        }
    }

    /// Writes the metrics. To be called every second.
    pub fn try_metrics(&self) {
        let Some(path) = &self.metrics_file else {
            return;
        };
        let text = self.metrics_text();
        self.replace(path, &text, &self.metrics_trouble);
    }

    /// The metrics, as OpenMetrics text.
    pub fn metrics_text(&self) -> String {
        let (count, oldest) = self.pending();
        self.metrics.encode(&self.stats, count, oldest)
    }

    /// How many messages are not answered yet, and how long the oldest of them has waited.
    pub fn pending(&self) -> (usize, Duration) {
        let pending = lock(&self.pending);
        let oldest = pending
            .first_key_value()
            .map(|((since, _), _)| since.elapsed());
        (pending.len(), oldest.unwrap_or_default())
    }

    /// The same for each object that has any.
    pub fn waiting(&self) -> HashMap<u32, (usize, Duration)> {
        let mut waiting = HashMap::new();
        for ((since, _), object_id) in &*lock(&self.pending) {
            let entry = waiting
                .entry(*object_id)
                .or_insert_with(|| (0, since.elapsed()));
            entry.0 += 1;
        }
        waiting
    }

    /// Readers of a file see either the old or the new text, never half a line.
    fn replace(&self, path: &Path, text: &str, trouble: &Mutex<Trouble>) {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let result =
            std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path));
        let mut trouble = lock(trouble);
        let path = path.display();
        match result {
            Ok(()) if trouble.ends() => self.line(&format!("{path} is written again")),
            Err(err) if trouble.begins() => {
                let err = crate::device::strip_code(&err);
                self.line(&format!("cannot write {path}: {err}; going on without"));
            }
            _ => {}
        }
    }

    /// The totals for people.
    pub fn totals(&self) -> String {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let stats = &self.stats;
        format!(
            "OPEN {} READ {} CLOSE {}, fetched {}, written {}, errors {}",
            get(&stats.open),
            get(&stats.read),
            get(&stats.close),
            human(get(&stats.fetched)),
            human(get(&stats.written)),
            get(&stats.errors)
        )
    }

    /// Says something that is no failure.
    pub fn note(&self, text: &str) {
        self.line(text);
    }

    /// Says and counts a failure.
    pub fn error(&self, text: &str) {
        self.error_with(text, &[]);
    }

    /// The same, with what it is about for the journal.
    pub fn error_with(&self, text: &str, fields: &[(&str, Value<'_>)]) {
        self.add(&self.stats.errors, 1);
        self.tell(Level::Error, text, fields);
    }

    /// The cache has taken no data because it is full. Returns whether that is to be said: it may
    /// be so for each READ.
    pub fn cache_is_full(&self) -> bool {
        lock(&self.cache_trouble).begins()
    }

    /// The cache has taken data.
    pub fn cache_has_room(&self) {
        if lock(&self.cache_trouble).ends() {
            self.line("the cache takes data again");
        }
    }

    /// So many files were removed from the cache, which has so many bytes now.
    pub fn culled(&self, files: u64, bytes: u64, left: u64) {
        self.add(&self.stats.culled_files, files);
        self.add(&self.stats.culled, bytes);
        let (shown, left_shown) = (human(bytes), human(left));
        self.line(&format!(
            "culled {files} files with {shown}; the cache has {left_shown} now"
        ));
        self.log_line(&Happening {
            event: "cull",
            more: Cull { files, bytes, left },
        });
    }

    /// Whether the cache is too large and nothing of it could be removed: so many files are in use.
    pub fn cache_stays_full(&self, stays: bool, busy: u64) {
        let mut trouble = lock(&self.cull_trouble);
        if stays && trouble.begins() {
            self.line(&format!(
                "the cache is too large, and nothing in it can be culled: {busy} files are in use"
            ));
        } else if !stays && trouble.ends() {
            self.line("the cache is not too large any more");
        }
    }

    fn line(&self, text: &str) {
        self.tell(Level::Info, text, &[]);
    }

    fn tell(&self, level: Level, text: &str, fields: &[(&str, Value<'_>)]) {
        if let Some(journal) = &self.journal {
            // It has a limit of its own, and escapes what it shows.
            let record = |args| {
                let mut record = Record::builder();
                record.level(level).target("ondemandd").key_values(&fields);
                journal.log(&record.args(args).build());
            };
            return record(format_args!("{text}"));
        }
        let mut terminal = lock(&self.terminal);
        let now = Instant::now();
        let fresh = terminal
            .second
            .is_none_or(|start| now - start >= Duration::from_secs(1));
        let mut out = String::new();
        if terminal.progress_shown {
            terminal.progress_shown = false;
            out.push_str("\r\x1b[K");
        }
        if fresh {
            if terminal.dropped > 0 {
                let _ = writeln!(out, "ondemandd: {} more lines like these", terminal.dropped);
            }
            terminal.second = Some(now);
            terminal.lines = 0;
            terminal.dropped = 0;
        }
        if terminal.lines >= LINES_PER_SECOND {
            terminal.dropped += 1;
            return;
        }
        if !can_write() {
            terminal.dropped += 1;
            return;
        }
        terminal.lines += 1;
        // A line is a line, whatever names and servers put into it.
        let _ = writeln!(out, "ondemandd: {}", escape(text));
        let _ = io::stderr().write_all(out.as_bytes());
    }

    /// A message was read that is to be answered; [`Self::event`] says that it was.
    pub fn begins(&self, since: Instant, msg_id: u32, object_id: u32) {
        lock(&self.pending).insert((since, msg_id), object_id);
    }

    /// It is not going to be answered.
    pub fn ends(&self, since: Instant, msg_id: u32) {
        lock(&self.pending).remove(&(since, msg_id));
    }

    /// Logs one message.
    pub fn event(&self, event: &Event<'_>) {
        self.ends(event.since, event.msg_id);
        let took = event.since.elapsed();
        let outcome = match (event.result, event.error) {
            (_, None) => Outcome::Ok,
            (result, _) if result == -i64::from(libc::ECANCELED) => Outcome::Unwanted,
            _ => Outcome::Error,
        };
        self.metrics.request(event.opcode, outcome, took);
        let range = event.opcode == "READ";
        self.log_line(&Served {
            opcode: event.opcode,
            msg_id: event.msg_id,
            object_id: event.object_id,
            key: event.key,
            off: range.then_some(event.off),
            len: range.then_some(event.len),
            result: event.result,
            us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            error: event.error,
        });
    }

    /// Logs something that happened to the daemon itself.
    pub fn log_event(&self, name: &str) {
        self.log_line(&Happening {
            event: name,
            more: Process {
                pid: std::process::id(),
            },
        });
    }

    /// Logs the totals.
    pub fn log_totals(&self) {
        self.log_line(&Happening {
            event: "totals",
            more: self.stats.totals(),
        });
    }

    fn log_line(&self, what: &impl Serialize) {
        let Some(log) = &self.log else { return };
        let now = clock_gettime(ClockId::Monotonic);
        let ms = now.tv_sec as f64 * 1000.0 + (now.tv_nsec / 1000) as f64 / 1000.0;
        let line = json(&Line { ms, what });
        let mut log = lock(log);
        let result = log.write(&line);
        self.log_result(&mut log, result);
    }

    /// The last words.
    pub fn finish(&self) {
        self.log_totals();
        self.try_stats();
        self.try_metrics();
        // Whatever was printed in this second, the totals are not dropped.
        lock(&self.terminal).second = None;
        self.line(&self.totals());
    }
}

/// Readable when totals have changed and someone wants to see them.
impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// journald, if standard error goes there.
fn journal() -> Option<Box<dyn log::Log>> {
    if !connected_to_journal() {
        return None;
    }
    let journal = JournalLog::new().ok()?;
    Some(Box::new(journal.with_syslog_identifier("ondemandd".into())))
}

/// Whether standard error takes something now: nobody is to wait for whoever does not read it. A file
/// always does.
fn can_write() -> bool {
    let stderr = io::stderr();
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Says something without a [`Report`]. Nothing becomes of it if nobody can hear it.
pub fn say(text: &str) {
    if can_write() {
        let line = format!("ondemandd: {}\n", escape(text));
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// Whether a character does something to a terminal or to the order of a line instead of being shown.
fn is_tricky(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Text from outside as it may be shown: names and values that a server or whoever mounts has chosen.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_tricky) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_tricky(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A number of bytes for people.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
impl Report {
    /// A report that nobody sees.
    pub fn silent() -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self::new(Files::default(), true).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what journald would get.
    struct Journal(std::sync::Arc<Mutex<Vec<String>>>);

    impl log::Log for Journal {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            struct Fields(String);
            impl<'kvs> log::kv::VisitSource<'kvs> for Fields {
                fn visit_pair(
                    &mut self,
                    key: log::kv::Key<'kvs>,
                    value: Value<'kvs>,
                ) -> Result<(), log::kv::Error> {
                    let _ = write!(self.0, " {key}={value}");
                    Ok(())
                }
            }
            let mut fields = Fields(String::new());
            record.key_values().visit(&mut fields).unwrap();
            let line = format!("{} {}{}", record.level(), record.args(), fields.0);
            lock(&self.0).push(line);
        }

        fn flush(&self) {}
    }

    #[test]
    fn the_journal_gets_levels_and_fields() {
        let lines = std::sync::Arc::default();
        let mut report = Report::new(Files::default(), true).unwrap();
        report.journal = Some(Box::new(Journal(std::sync::Arc::clone(&lines))));
        report.note("hello");
        let fields = [("blob", Value::from("b")), ("errno", Value::from(5))];
        report.error_with("READ failed", &fields);
        report.error("other");
        assert_eq!(
            *lock(&lines),
            [
                "INFO hello",
                "ERROR READ failed blob=b errno=5",
                "ERROR other"
            ]
        );
        assert_eq!(report.stats.errors.load(Relaxed), 2);
        // Tests have no journal.
        assert!(journal().is_none());
    }

    fn files<'a>(log: Option<&'a Path>, stats: Option<&'a Path>) -> Files<'a> {
        Files {
            log,
            stats,
            metrics: None,
        }
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(json(&"a\"b\\c\n\u{e9}"), "\"a\\\"b\\\\c\\n\u{e9}\"\n");
        assert_eq!(
            json(&"x\x7f\u{9b}y\u{202e}"),
            "\"x\\u007f\\u009by\\u202e\"\n"
        );
        assert_eq!(escape("a \u{e9}\"\\"), "a \u{e9}\"\\");
        assert_eq!(escape("\x1b[2J\n\u{202e}"), "\\u{1b}[2J\\u{a}\\u{202e}");
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(5 << 30), "5.0 GiB");
        assert_eq!(human(u64::MAX), "16777216.0 TiB");
    }

    #[test]
    fn log_and_stats_file() {
        let dir = tempfile::tempdir().unwrap();
        let (log, stats) = (dir.path().join("log"), dir.path().join("stats"));
        let report = Report::new(files(Some(&log), Some(&stats)), true).unwrap();
        let zero = "{\"open\":0,\"read\":0,\"close\":0,\"fetched\":0,\"written\":0,\"errors\":0}\n";
        assert_eq!(std::fs::read_to_string(&stats).unwrap(), zero);
        report.add(&report.stats.read, 1);
        report.add(&report.stats.fetched, 4096);
        report.refresh();
        report.event(&Event {
            opcode: "READ",
            msg_id: 3,
            object_id: 4,
            key: "b\"lob",
            off: 4096,
            len: 512,
            result: -5,
            error: Some("why"),
            since: Instant::now(),
        });
        report.finish();
        let line = std::fs::read_to_string(&stats).unwrap();
        assert!(
            line.contains("\"read\":1,") && line.contains("\"fetched\":4096,"),
            "{line}"
        );
        let log = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains(
                "\"opcode\":\"READ\",\"msg_id\":3,\"object_id\":4,\"key\":\"b\\\"lob\",\
                 \"off\":4096,\"len\":512,\"result\":-5,"
            ),
            "{log}"
        );
        assert!(lines[1].contains("\"event\":\"totals\""), "{log}");
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let (log, stats) = (gone.join("log"), gone.join("stats"));
        let report = Report::new(files(Some(&log), Some(&stats)), true).unwrap();
        report.log_event("lost");
        report.add(&report.stats.open, 1);
        report.refresh();
        std::fs::create_dir(&gone).unwrap();
        report.reopen_log();
        report.log_event("start");
        report.refresh();
        let text = std::fs::read_to_string(&log).unwrap();
        assert!(text.contains("start") && !text.contains("lost"), "{text}");
        assert!(std::fs::read_to_string(&stats)
            .unwrap()
            .contains("\"open\":1"));
        let mode = log.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Renamed, it goes on in a new file.
        std::fs::rename(&log, gone.join("old")).unwrap();
        report.log_event("still");
        report.reopen_log();
        report.log_event("new");
        let old = std::fs::read_to_string(gone.join("old")).unwrap();
        assert!(old.contains("still") && !old.contains("new"), "{old}");
        assert!(std::fs::read_to_string(&log).unwrap().contains("new"));
    }

    #[test]
    fn a_full_disk_and_a_fifo_stop_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let report = Report::new(files(Some(Path::new("/dev/full")), None), true).unwrap();
        report.log_event("lost");
        let fifo = dir.path().join("fifo");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
        let report = Report::new(files(Some(&fifo), None), true).unwrap();
        report.log_event("lost");
        report.finish();
    }

    #[test]
    fn trouble_is_said_once() {
        let mut trouble = Trouble::default();
        assert!(!trouble.ends());
        assert!(trouble.begins());
        assert!(!trouble.begins());
        assert!(trouble.ends());
        assert!(trouble.begins());
    }

    #[test]
    fn the_event_descriptor_follows_changes() {
        use rustix::event::{poll, PollFd, PollFlags, Timespec};
        let dir = tempfile::tempdir().unwrap();
        let report = Report::new(files(None, Some(&dir.path().join("s"))), true).unwrap();
        let ready = || {
            let zero = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            poll(&mut [PollFd::new(&report, PollFlags::IN)], Some(&zero)).unwrap() == 1
        };
        assert!(!ready());
        report.add(&report.stats.open, 1);
        assert!(ready());
        report.refresh();
        assert!(!ready());
        report.add(&report.stats.open, 0);
        assert!(!ready());
        report.add(&report.stats.open, 1);
        assert!(ready());
    }
}
