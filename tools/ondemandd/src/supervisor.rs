// SPDX-License-Identifier: GPL-2.0

//! `--supervise`: a parent that does nothing but keep the device open and the daemon running.
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
use rustix::process::{kill_process, pidfd_open, Pid, PidfdFlags, Signal};

use crate::sys::{self, Signals};

/// Tells a daemon which descriptor is the device, and which process it is to live and die with.
const DEVICE_FD: &str = "ONDEMANDD_DEVICE_FD";
const PARENT: &str = "ONDEMANDD_PARENT";

/// A daemon that ends with this has a problem that restarting does not solve.
pub const PERMANENT: u8 = 1;

const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// A daemon that has lived this long is not failing at start.
const HEALTHY: Duration = Duration::from_secs(10);
/// How long a daemon may take to stop.
const GRACE: Duration = Duration::from_secs(5);

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

/// Keeps a daemon running until told to stop (SIGTERM or SIGINT among `signals`), or until it fails for
/// good. SIGUSR1 is passed on.
pub fn supervise(
    device: OwnedFd,
    mut command: Command,
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
        let mut child = command
            .spawn()
            .map_err(|err| format!("cannot start the daemon: {err}"))?;
        let (status, stopping) = wait(&mut child, signals)?;
        if stopping {
            return Ok(ExitCode::SUCCESS);
        }
        if status.code() == Some(i32::from(PERMANENT)) {
            return Ok(ExitCode::from(PERMANENT));
        }
        if started.elapsed() >= HEALTHY {
            delay = FIRST_DELAY;
        }
        log(&format!(
            "the daemon (pid {}) {}; starting a new one in {} ms",
            child.id(),
            describe(status),
            delay.as_millis()
        ));
        if pause(signals, delay) {
            return Ok(ExitCode::SUCCESS);
        }
        delay = (delay * 2).min(MAX_DELAY);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("has ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "has ended".to_string(),
    }
}

/// Waits for the end of the daemon; true: it was told to end.
fn wait(child: &mut Child, signals: &Signals) -> Result<(ExitStatus, bool), String> {
    let pid = pid_of(child)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|err| format!("cannot watch the daemon: {err}"))?;
    let mut deadline = None;
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
        wait_for(&[signals.as_fd(), ended.as_fd()], left);
        while let Some(signal) = signals.next() {
            // Not reaped yet, so the number is still the child's.
            if signal == libc::SIGUSR1 {
                let _ = kill_process(pid, Signal::USR1);
            } else {
                let _ = kill_process(pid, Signal::TERM);
                deadline.get_or_insert(Instant::now() + GRACE);
            }
        }
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
            if signal != libc::SIGUSR1 {
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

    const SIGNALS: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1];

    /// Runs a shell script as the daemon; every start appends a line to the file `$RUNS`.
    fn run(script: &str) -> (Result<ExitCode, String>, usize, Vec<String>) {
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
        let result = supervise(device, command, &signals, &log);
        let runs = std::fs::read_to_string(&runs).unwrap().lines().count();
        (result, runs, lines.into_inner().unwrap())
    }

    #[test]
    fn a_killed_daemon_is_restarted_with_the_device() {
        // Dies twice, then finds a permanent error; only if it has the device.
        let (result, runs, lines) = run(
            "[ \"$(readlink /proc/self/fd/$ONDEMANDD_DEVICE_FD)\" = /dev/null ] || exit 1; \
             [ \"$ONDEMANDD_PARENT\" = $PPID ] || exit 1; \
             case $(wc -l <\"$RUNS\") in 1) kill -9 $$;; 2) exit 0;; *) exit 1;; esac",
        );
        assert_eq!(runs, 3, "{lines:?}");
        assert_eq!(result.unwrap(), ExitCode::from(PERMANENT));
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("was killed by signal 9"), "{lines:?}");
        assert!(lines[1].contains("has ended with status 0"), "{lines:?}");
    }

    #[test]
    fn a_permanent_error_is_not_retried() {
        let (result, runs, lines) = run("exit 1");
        assert_eq!((result.unwrap(), runs), (ExitCode::from(PERMANENT), 1));
        assert!(lines.is_empty());
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
