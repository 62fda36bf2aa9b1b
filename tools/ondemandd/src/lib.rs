// SPDX-License-Identifier: GPL-2.0-or-later

//! User daemon for the on-demand mode of CacheFiles.
//!
//! * `device`, `message`: the protocol of /dev/cachefiles;
//! * `worker`: messages and what becomes of them;
//! * `pool`, `schedule`: the threads that fetch, and what they do next;
//! * `object`, `chunkmap`: an opened cache file, and how its holes are filled;
//! * `whole`: the digest of what is complete;
//! * `trace`: what was read at the last start;
//! * `store`, `cull`: what is in the cache directory, and making room there; `fsck`: what is wrong there;
//! * `guard`: what a fetch may cost, and how it is ended early;
//! * `source`: blobs from a directory, web servers or registries, and their chunk indexes;
//! * `control`: `ondemandctl`; `server`, `api`: the socket on which it talks to the daemon;
//! * `supervisor`, `notify`: keeping the device open over restarts;
//! * `mount`: mounting what is served; `pace`: bandwidth, and what is done later;
//! * `report`, `metrics`: totals, progress, log; `secret`: what `ps` must not show;
//! * `sys`, `stop`, `cli`: system calls, stopping, the command line.

#![deny(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]
// The tests compare lists of ranges, which may have one element.
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

mod api;
mod chunkmap;
mod cli;
mod control;
mod cull;
mod device;
mod fsck;
mod guard;
mod message;
mod metrics;
mod mount;
mod notify;
mod object;
mod pace;
mod pool;
mod report;
mod schedule;
mod secret;
mod server;
mod source;
mod stop;
mod store;
mod supervisor;
#[allow(unsafe_code)]
mod sys;
mod trace;
mod whole;
mod worker;

use std::env;
use std::fs::DirBuilder;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use cli::{DaemonArgs, Restart, SourceArgs};
use device::{Binding, Device};
use notify::NotifyState;
use report::{say, Files, Report};
use server::Server;
use source::http::site::Retries;
use source::http::{HttpOptions, HttpSource, Proxies};
use source::registry::{auth, Connecting};
use source::table::TableSource;
use source::{DirSource, Source};
use stop::Stop;
use supervisor::Pulse;
use sys::Signals;
use trace::Traces;
use worker::answers::Control;
use worker::Daemon;

/// Progress and statistics are shown at most this often.
const REFRESH: Duration = Duration::from_millis(100);

/// How long requests that are being served may take when the daemon is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Tells a daemon that its supervisor has found a kernel without versions.
const NO_VERSIONS: &str = "ONDEMANDD_NO_VERSIONS";

/// Why this program ends, and with which status.
struct Ending {
    status: u8,
    reason: String,
}

impl Ending {
    /// An option is wrong.
    fn usage(reason: String) -> Self {
        Self {
            status: supervisor::USAGE,
            reason,
        }
    }
}

impl From<String> for Ending {
    fn from(reason: String) -> Self {
        Self {
            status: supervisor::FAILED,
            reason,
        }
    }
}

/// The program.
pub fn main() -> ExitCode {
    daemon(&cli::parse()).unwrap_or_else(|ending| {
        say(&ending.reason);
        ExitCode::from(ending.status)
    })
}

/// `ondemandctl`.
pub fn control() -> ExitCode {
    control::main()
}

/// The command lines, for manual pages and completions.
pub fn commands() -> [clap::Command; 2] {
    [cli::command(), control::command()]
}

fn daemon(args: &DaemonArgs) -> Result<ExitCode, Ending> {
    // As early as can be: a terminal may be closed at any time. Threads inherit the mask.
    let signals = signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGHUP])?;
    args.limits.check().map_err(Ending::usage)?;
    hide_secrets(args);
    if let Some(fd) = supervisor::inherited_device()? {
        let device = new_device(args, Device::from_fd(fd));
        if env::var_os(NO_VERSIONS).is_some() {
            device.lacks_versions();
        }
        // Its options were right for the supervisor: what is wrong now may pass.
        return serve(args, device, true, &signals);
    }
    // A cache that nobody can serve should not be bound.
    check_source(args).map_err(Ending::usage)?;
    match args.restart {
        Restart::Supervisor => {
            let device = open_device(args)?;
            device.bind(&binding(args)?)?;
            let mut command = supervisor::own_command()?;
            if let Some(warning) = device.warning() {
                say(&warning);
                command.env(NO_VERSIONS, "1");
            }
            notify::state(&[NotifyState::Ready]);
            let fd = device.into_fd();
            Ok(supervisor::supervise(
                fd,
                command,
                args.watchdog,
                &signals,
                &say,
            )?)
        }
        Restart::ServiceManager => match notify::stored_device()? {
            Some(fd) => serve(args, new_device(args, Device::from_fd(fd)), true, &signals),
            None if notify::has_manager() => serve(args, open_device(args)?, false, &signals),
            None => Err(
                "--fd-store: NOTIFY_SOCKET is not set; start this as a systemd service with \
                 Type=notify and FileDescriptorStoreMax=1, or use --supervise"
                    .to_string()
                    .into(),
            ),
        },
        Restart::Nobody => serve(args, open_device(args)?, false, &signals),
    }
}

fn open_device(args: &DaemonArgs) -> Result<Device, String> {
    Device::open(&args.device).map(|device| new_device(args, device))
}

fn new_device(args: &DaemonArgs, device: Device) -> Device {
    device.accept_unversioned(args.accept_unversioned)
}

/// Runs the daemon on an open device: a new one, or one that a predecessor has bound (`restore`).
fn serve(
    args: &DaemonArgs,
    device: Device,
    restore: bool,
    signals: &Signals,
) -> Result<ExitCode, Ending> {
    let pulse = Pulse::inherited();
    raise_file_limit();
    let stop = Arc::new(Stop::new().map_err(|err| format!("cannot make an eventfd: {err}"))?);
    let files = Files {
        log: args.log.as_deref(),
        stats: args.stats_file.as_deref(),
        metrics: args.metrics_file.as_deref(),
    };
    let report = Arc::new(Report::new(files, args.quiet)?);
    // Before any thread exists, once more.
    if let Err(err) = sys::become_io_flusher() {
        report.note(&format!(
            "cannot keep memory reclaim from waiting for this daemon, which may hang when memory is \
             short (run it with CAP_SYS_RESOURCE): {err}"
        ));
    }
    let source = make_source(args, &report, &stop)?;
    let daemon = Daemon::new(
        device,
        source,
        args.options,
        // The threads that cull have other working directories.
        args.cache_dir
            .canonicalize()
            .unwrap_or_else(|_| args.cache_dir.clone()),
        args.trace_dir.clone().map(Traces::new),
        Arc::clone(&report),
        Arc::clone(&stop),
    )
    .map_err(|err| format!("cannot watch {}: {err}", args.device.display()))?;
    let daemon = Arc::new(daemon);

    if restore {
        daemon
            .device
            .restore()
            .map_err(|reason| ending(&daemon.device, reason))?;
        report.log_event("restore");
    } else {
        daemon.device.bind(&binding(args)?)?;
        if let Some(warning) = daemon.device.warning() {
            report.note(&warning);
        }
        report.log_event("start");
        if args.restart == Restart::ServiceManager {
            notify::store_device(daemon.device.as_fd())?;
        }
    }
    if let Some(path) = &args.control_socket {
        // It is worth no more than the log.
        if let Err(reason) = start_control(path, &daemon, &stop) {
            report.error(&format!("{reason}; going on without"));
        }
    }
    daemon
        .start()
        .map_err(|err| format!("cannot start a thread: {err}"))?;
    if !args.quiet {
        report.note(&format!(
            "{} {}",
            if restore { "took over" } else { "serving" },
            args.cache_dir.display()
        ));
    }
    notify::state(&[NotifyState::Ready]);

    run_until_stopped(&daemon, &report, &stop, signals, &pulse);

    notify::state(&[NotifyState::Stopping]);
    if !daemon.join(GRACE) {
        report.note("leaving requests behind that take too long");
    }
    daemon.write_traces(true);
    report.log_event("stop");
    report.finish();
    match daemon.fatal() {
        None => Ok(ExitCode::SUCCESS),
        Some(reason) => Err(ending(&daemon.device, reason)),
    }
}

/// Listens to the control socket.
fn start_control(path: &Path, daemon: &Arc<Daemon>, stop: &Arc<Stop>) -> Result<(), String> {
    let server = Server::new(path)?;
    let (answers, stop) = (Arc::new(Control(Arc::clone(daemon))), Arc::clone(stop));
    pool::spawn("control", move || server.run(&answers, &stop))
        .map_err(|err| format!("cannot start a thread for the control socket: {err}"))
}

/// A daemon cannot go on. Another one can, unless the cache is dead.
fn ending(device: &Device, reason: String) -> Ending {
    Ending {
        status: if device.is_dead() {
            supervisor::DEAD
        } else {
            supervisor::FAILED
        },
        reason,
    }
}

/// Whether the daemon gets on: its threads take messages if there are any.
struct Progress {
    reads: u64,
}

impl Progress {
    fn check(&mut self, device: &Device) -> bool {
        let (waiting, reads) = device.waiting();
        let stuck = waiting && reads == self.reads;
        self.reads = reads;
        !stuck
    }
}

/// What the main thread does while the others serve: signals, progress, statistics, and saying that the
/// daemon lives.
fn run_until_stopped(
    daemon: &Daemon,
    report: &Report,
    stop: &Stop,
    signals: &Signals,
    pulse: &Pulse,
) {
    let mut next_refresh = Instant::now();
    let mut next_beat = Instant::now();
    let mut progress = Progress { reads: 0 };
    while !stop.is_set() {
        let now = Instant::now();
        if now >= next_beat {
            next_beat = now + supervisor::BEAT;
            if progress.check(&daemon.device) {
                pulse.beat();
                notify::beat();
            }
            report.try_metrics();
            daemon.write_traces(false);
        }
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(stop, PollFlags::IN),
        ];
        let mut left = next_beat.saturating_duration_since(now);
        let refresh = next_refresh.saturating_duration_since(now);
        if refresh.is_zero() {
            fds.push(PollFd::new(report, PollFlags::IN));
        } else {
            left = left.min(refresh);
        }
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        // An error is EINTR: look again at everything.
        let _ = poll(&mut fds, Some(&timeout));
        if fds.get(2).is_some_and(|fd| !fd.revents().is_empty()) {
            report.refresh();
            next_refresh = Instant::now() + REFRESH;
        }
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGUSR1 => {
                    report.note(&report.totals());
                    report.log_totals();
                }
                libc::SIGHUP => {
                    notify::reloading();
                    daemon.reload();
                    report.reopen_log();
                    notify::state(&[NotifyState::Ready]);
                }
                _ => stop.set(),
            }
        }
    }
}

fn signals(list: &[libc::c_int]) -> Result<Signals, String> {
    Signals::new(list).map_err(|err| format!("cannot listen to signals: {err}"))
}

fn binding(args: &DaemonArgs) -> Result<Binding, String> {
    let dir = &args.cache_dir;
    let shown = dir.display();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|err| format!("cannot make the cache directory {shown}: {err}"))?;
    // The kernel would look a relative path up from its own idea of the working directory.
    let dir = dir
        .canonicalize()
        .map_err(|err| format!("cannot use the cache directory {shown}: {err}"))?;
    match dir.to_str() {
        Some(text) if !text.contains('\n') => Ok(Binding {
            dir: text.to_string(),
            tag: args.tag.clone(),
            limits: args.limits,
            request_timeout: args.request_timeout,
        }),
        _ => Err(format!(
            "the path of the cache directory {shown} is not one line of UTF-8"
        )),
    }
}

/// Fails if the source cannot be what the user means, whatever its state is.
fn check_source(args: &DaemonArgs) -> Result<(), String> {
    let stop = Stop::new().map_err(|err| format!("cannot make an eventfd: {err}"))?;
    let report = Report::new(Files::default(), true)?;
    make_source(args, &Arc::new(report), &Arc::new(stop)).map(|_| ())
}

fn make_source(
    args: &DaemonArgs,
    report: &Arc<Report>,
    stop: &Arc<Stop>,
) -> Result<Box<dyn Source>, String> {
    Ok(match &args.source {
        SourceArgs::Dir(dir) => Box::new(DirSource::new(dir.clone(), args.verify)?),
        SourceArgs::Http(http) => {
            let options = HttpOptions {
                url: secret::url(&http.url)?,
                headers: match &http.header_file {
                    Some(path) => secret::headers(path)?,
                    None => Vec::new(),
                },
                retries: args.web.retries,
                retry_time: args.web.retry_time,
                timeout: args.web.timeout,
                connections: args.options.room.per_server,
                ca_file: args.web.ca_file.clone(),
                accept_unversioned: args.accept_unversioned,
                verify: args.verify,
                proxies: Proxies::from_env()?,
            };
            Box::new(HttpSource::new(
                options,
                Arc::clone(report),
                Arc::clone(stop),
            )?)
        }
        SourceArgs::Table { path, hosts_dir } => {
            let connecting = Connecting {
                proxies: Proxies::from_env()?,
                timeout: args.web.timeout,
                connections: args.options.room.per_server,
                ca_file: args.web.ca_file.clone(),
                hosts_dir: hosts_dir.clone(),
                lookup: Arc::new(Box::new(auth::from_docker)),
                stop: Arc::clone(stop),
            };
            let retries = Retries {
                most: args.web.retries,
                time: args.web.retry_time,
                report: Arc::clone(report),
                stop: Arc::clone(stop),
            };
            Box::new(TableSource::new(path.clone(), connecting, retries)?)
        }
    })
}

/// Has a password in the command line disappear from what `ps` shows.
fn hide_secrets(args: &DaemonArgs) {
    if let SourceArgs::Http(http) = &args.source {
        if let Err(reason) = secret::hide(&http.url) {
            say(&reason);
        }
    }
}

/// Every open object is a descriptor; the usual soft limit of 1024 is too little.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the daemon serves as many objects as it may.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
