// SPDX-License-Identifier: GPL-2.0-or-later

//! `--supervise`: a parent that does nothing but keep the device open and the daemon running.
//!
//! A daemon that shows no sign of life for long is killed and replaced, too. It has a pipe to which it
//! writes a byte every second while it gets on; how patient the supervisor is, is counted in seconds
//! that it was awake itself, so that a busy or sleeping machine is no reason.
//!
//! The cache lives as long as the device is open. When the daemon dies, its anonymous descriptors
//! close, the kernel keeps what it has asked for, and readers wait; the next daemon writes `restore`
//! and is asked again.

use std::env;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{fcntl_setfd, FdFlags};
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::{kill_process, pidfd_open, Pid, PidfdFlags, Signal};

use crate::notify;
use crate::sys::{self, Signals};

/// Tells a daemon which descriptor is the device, and which process it is to live and die with.
const DEVICE_FD: &str = "ONDEMANDD_DEVICE_FD";
const PARENT: &str = "ONDEMANDD_PARENT";
const PULSE_FD: &str = "ONDEMANDD_PULSE_FD";

/// The exit status of a daemon that could not start or go on; the next one may.
pub const FAILED: u8 = 1;
/// It was started in a way that cannot work.
pub const USAGE: u8 = 2;
/// The cache is dead: there is nothing to serve any more, for no daemon.
pub const DEAD: u8 = 3;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// A daemon that has lived this long is not failing at start.
const HEALTHY: Duration = Duration::from_secs(10);
/// How long a daemon may take to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How often a daemon shows that it lives.
pub const BEAT: Duration = Duration::from_secs(1);
/// Before it has done so for the first time, a daemon gets so many times the patience.
const START: u32 = 10;

/// The daemon's end of the pipe to its supervisor, if it has one.
pub struct Pulse(Option<OwnedFd>);

impl Pulse {
    /// Takes what the supervisor has passed on.
    pub fn inherited() -> Self {
        let fd = env::var(PULSE_FD).ok().and_then(|text| text.parse().ok());
        env::remove_var(PULSE_FD);
        Self(fd.and_then(|raw| sys::adopt_fd(raw).ok()))
    }

    pub fn beat(&self) {
        if let Some(pipe) = &self.0 {
            // It does not block. A full pipe says all there is to say.
            let _ = rustix::io::write(pipe, b".");
        }
    }
}

/// The supervisor's end.
struct Watch {
    pipe: OwnedFd,
    /// How many seconds may pass without a beat.
    patience: u32,
    missed: u32,
    seen: bool,
}

impl Watch {
    /// A pipe, and its other end for the daemon.
    fn new(patience: u32) -> std::io::Result<(Self, OwnedFd)> {
        let (pipe, other) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The only child that is ever started is the one that must have it.
        fcntl_setfd(&other, FdFlags::empty())?;
        let watch = Self {
            pipe,
            patience,
            missed: 0,
            seen: false,
        };
        Ok((watch, other))
    }

    /// To be called about every [`BEAT`]; true: the daemon hangs.
    fn tick(&mut self) -> bool {
        let mut buf = [0; 256];
        if rustix::io::read(&self.pipe, &mut buf[..]).is_ok_and(|len| len > 0) {
            self.missed = 0;
            self.seen = true;
            return false;
        }
        self.missed += 1;
        let limit = if self.seen {
            self.patience
        } else {
            self.patience.saturating_mul(START)
        };
        self.missed > limit
    }
}

/// The device a supervisor has passed to this process, if it has.
pub fn inherited_device() -> Result<Option<OwnedFd>, String> {
    let Ok(number) = env::var(DEVICE_FD) else {
        return Ok(None);
    };
    let parent = env::var(PARENT).ok().and_then(|pid| pid.parse().ok());
    env::remove_var(DEVICE_FD);
    env::remove_var(PARENT);
    let raw = number
        .parse()
        .map_err(|_| format!("{DEVICE_FD}={number} is not a number"))?;
    let fd = sys::adopt_fd(raw)
        .map_err(|err| format!("the supervisor's descriptor {raw} is unusable: {err}"))?;
    if let Some(parent) = parent {
        // Without its supervisor this daemon would keep the device from the next one.
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|err| format!("cannot follow the supervisor: {err}"))?;
        if rustix::process::getppid()
            .map(Pid::as_raw_nonzero)
            .map(i32::from)
            != Some(parent)
        {
            return Err("the supervisor has gone".into());
        }
    }
    Ok(Some(fd))
}

/// Runs this program again, with the same arguments, as the daemon.
pub fn own_command() -> Result<Command, String> {
    let program = env::current_exe().map_err(|err| format!("cannot find this program: {err}"))?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1));
    command.env_remove("NOTIFY_SOCKET");
    Ok(command)
}

/// Keeps a daemon running until told to stop (SIGTERM or SIGINT among `signals`), or until no daemon
/// can go on. Other signals are passed on. `patience` is for how many seconds a daemon may hang.
pub fn supervise(
    device: OwnedFd,
    mut command: Command,
    patience: Option<u32>,
    signals: &Signals,
    log: &dyn Fn(&str),
) -> Result<ExitCode, String> {
    // The only child that is ever started is the one that must have it.
    fcntl_setfd(&device, FdFlags::empty())
        .map_err(|err| format!("cannot pass on the device: {err}"))?;
    command.env(DEVICE_FD, device.as_raw_fd().to_string());
    command.env(PARENT, std::process::id().to_string());
    let mut delay = FIRST_DELAY;
    loop {
        let started = Instant::now();
        let what = match start(&mut command, patience) {
            Ok((mut child, watch)) => {
                let (status, stopping) = wait(&mut child, watch, signals, log)?;
                if stopping {
                    return Ok(ExitCode::SUCCESS);
                }
                match status.code().and_then(|code| u8::try_from(code).ok()) {
                    Some(USAGE) => return Ok(ExitCode::from(USAGE)),
                    Some(DEAD) => return Ok(ExitCode::from(FAILED)),
                    _ => format!("the daemon (pid {}) {}", child.id(), describe(status)),
                }
            }
            // There may be no memory or no process left now.
            Err(err) => format!("the daemon cannot be started: {err}"),
        };
        if started.elapsed() >= HEALTHY {
            delay = FIRST_DELAY;
        }
        let ms = delay.as_millis();
        log(&format!("{what}; starting a new one in {ms} ms"));
        if pause(signals, delay) {
            return Ok(ExitCode::SUCCESS);
        }
        delay = (delay * 2).min(MAX_DELAY);
    }
}

fn start(command: &mut Command, patience: Option<u32>) -> std::io::Result<(Child, Option<Watch>)> {
    command.env_remove(PULSE_FD);
    let Some(patience) = patience else {
        return Ok((command.spawn()?, None));
    };
    let (watch, other) = Watch::new(patience)?;
    command.env(PULSE_FD, other.as_raw_fd().to_string());
    Ok((command.spawn()?, Some(watch)))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("has ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "has ended".to_string(),
    }
}

/// Waits for the end of the daemon; true: it was told to end.
fn wait(
    child: &mut Child,
    mut watch: Option<Watch>,
    signals: &Signals,
    log: &dyn Fn(&str),
) -> Result<(ExitStatus, bool), String> {
    let pid = pid_of(child)?;
    // Without it, the end is noticed with the next tick.
    let ended = pidfd_open(pid, PidfdFlags::empty()).ok();
    let mut deadline = None;
    let mut next_tick = Instant::now() + BEAT;
    loop {
        let reaped = child.try_wait();
        if let Some(status) = reaped.map_err(|err| format!("cannot wait for the daemon: {err}"))? {
            return Ok((status, deadline.is_some()));
        }
        let left = deadline.map(|end: Instant| end.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            let _ = child.kill();
            deadline = Some(Instant::now() + GRACE);
            continue;
        }
        let tick = next_tick.saturating_duration_since(Instant::now());
        if tick.is_zero() {
            next_tick = Instant::now() + BEAT;
            notify::beat();
            if watch.as_mut().is_some_and(Watch::tick) {
                log(&format!(
                    "the daemon (pid {}) hangs; killing it",
                    child.id()
                ));
                let _ = child.kill();
                watch = None;
            }
            continue;
        }
        let mut fds = vec![signals.as_fd()];
        fds.extend(ended.as_ref().map(AsFd::as_fd));
        wait_for(&fds, Some(left.map_or(tick, |left| left.min(tick))));
        while let Some(signal) = signals.next() {
            // Not reaped yet, so the number is still the child's.
            if let Some(other) = passed_on(signal) {
                let _ = kill_process(pid, other);
            } else {
                let _ = kill_process(pid, Signal::TERM);
                deadline.get_or_insert(Instant::now() + GRACE);
            }
        }
    }
}

/// What a signal to the supervisor is to the daemon, if it does not end both.
fn passed_on(signal: libc::c_int) -> Option<Signal> {
    match signal {
        libc::SIGUSR1 => Some(Signal::USR1),
        libc::SIGHUP => Some(Signal::HUP),
        _ => None,
    }
}

fn pid_of(child: &Child) -> Result<Pid, String> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| format!("{} is no process id", child.id()))
}

/// Sleeps; true: told to stop.
fn pause(signals: &Signals, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        wait_for(&[signals.as_fd()], Some(left));
        while let Some(signal) = signals.next() {
            if passed_on(signal).is_none() {
                return true;
            }
        }
    }
}

/// Waits until one of the descriptors is readable, or for `time`.
fn wait_for(fds: &[BorrowedFd<'_>], time: Option<Duration>) {
    let time = time.map(|time| Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    });
    let mut fds: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    // An error is EINTR: the callers look again at everything.
    let _ = poll(&mut fds, time.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNALS: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGHUP];

    /// Runs a shell script as the daemon; every start appends a line to the file `$RUNS`.
    fn run(script: &str) -> (Result<ExitCode, String>, usize, Vec<String>) {
        run_patiently(script, None)
    }

    fn run_patiently(
        script: &str,
        patience: Option<u32>,
    ) -> (Result<ExitCode, String>, usize, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("echo x >>\"$RUNS\"; {script}"));
        command.env("RUNS", &runs);
        let signals = Signals::new(&SIGNALS).unwrap();
        let device = std::fs::File::open("/dev/null").unwrap().into();
        let lines = std::sync::Mutex::new(Vec::new());
        let log = |line: &str| lines.lock().unwrap().push(line.to_string());
        let result = supervise(device, command, patience, &signals, &log);
        let runs = std::fs::read_to_string(&runs).unwrap().lines().count();
        (result, runs, lines.into_inner().unwrap())
    }

    #[test]
    fn a_killed_daemon_is_restarted_with_the_device() {
        // Dies twice, then finds a permanent error; only if it has the device.
        let (result, runs, lines) = run(
            "[ \"$(readlink /proc/self/fd/$ONDEMANDD_DEVICE_FD)\" = /dev/null ] || exit 1; \
             [ \"$ONDEMANDD_PARENT\" = $PPID ] || exit 1; \
             case $(wc -l <\"$RUNS\") in 1) kill -9 $$;; 2) exit 0;; 3) exit 1;; *) exit 3;; esac",
        );
        assert_eq!(runs, 4, "{lines:?}");
        assert_eq!(result.unwrap(), ExitCode::from(FAILED));
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("was killed by signal 9"), "{lines:?}");
        assert!(lines[1].contains("has ended with status 0"), "{lines:?}");
        assert!(lines[2].contains("has ended with status 1"), "{lines:?}");
    }

    #[test]
    fn what_no_daemon_can_mend_is_not_retried() {
        for (script, want) in [("exit 2", USAGE), ("exit 3", FAILED)] {
            let (result, runs, lines) = run(script);
            assert_eq!((result.unwrap(), runs), (ExitCode::from(want), 1));
            assert!(lines.is_empty());
        }
    }

    #[test]
    fn a_daemon_that_hangs_is_killed_and_one_that_lives_is_not() {
        // The first one beats once and then no more; the second one beats for longer than the
        // patience lasts.
        let beat = "echo >/proc/self/fd/$ONDEMANDD_PULSE_FD";
        let script = format!(
            "[ $(wc -l <\"$RUNS\") = 1 ] && {{ {beat}; kill -STOP $$; }}; \
             for i in 1 2 3 4 5 6 7 8 9; do {beat}; sleep 0.5; done; exit 2"
        );
        let (result, runs, lines) = run_patiently(&script, Some(2));
        assert_eq!((result.unwrap(), runs), (ExitCode::from(USAGE), 2));
        assert!(lines[0].contains("hangs; killing it"), "{lines:?}");
        assert!(lines[1].contains("was killed by signal 9"), "{lines:?}");
        assert_eq!(lines.len(), 2, "{lines:?}");
    }

    #[test]
    fn a_daemon_has_more_time_to_start() {
        let (mut watch, other) = Watch::new(3).unwrap();
        assert!((0..3 * START).all(|_| !watch.tick()));
        assert!(watch.tick());
        let pulse = Pulse(Some(other));
        pulse.beat();
        assert!((0..4).all(|_| !watch.tick()));
        assert!(watch.tick());
        // However often it beats, it does not wait.
        (0..100_000).for_each(|_| pulse.beat());
    }

    #[test]
    fn no_device_unless_passed() {
        assert!(inherited_device().unwrap().is_none());
    }

    #[test]
    fn waiting_ends() {
        let signals = Signals::new(&SIGNALS).unwrap();
        let start = Instant::now();
        assert!(!pause(&signals, Duration::from_millis(30)));
        assert!(start.elapsed() >= Duration::from_millis(30));
        assert!(signals.as_fd().as_raw_fd() > 2);
    }
}
