// SPDX-License-Identifier: GPL-2.0-or-later
//! Keeps the device's file descriptor and the state of a nydus daemon while there is no daemon.
//!
//! usage: `nydus-supervisor SOCKET COMMAND [ARG]...`
//!
//! Starts COMMAND, which hands both over at SOCKET, and starts it again, with `--upgrade`, whenever
//! a signal has ended it. Prints `PID ready` each time that the daemon has said or heard it all.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use sendfd::{RecvWithFd, SendWithFd};

/// As much as nydus itself makes room for.
const STATE_MAX: usize = 32 * 1024;

/// The daemon's connection, or an error if it ends without making one.
fn connection(listener: &UnixListener, daemon: &mut Child) -> Result<UnixStream> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        if let Some(status) = daemon.try_wait()? {
            return Err(Error::other(format!(
                "the daemon ended before it was ready: {status}"
            )));
        }
        sleep(Duration::from_millis(5));
    }
}

fn ready(daemon: &Child) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{} ready", daemon.id())?;
    out.flush()
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, program, options @ ..] = args.as_slice() else {
        return Err(Error::other(
            "usage: nydus-supervisor SOCKET COMMAND [ARG]...",
        ));
    };
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;

    let mut daemon = Command::new(program).args(options).spawn()?;
    let mut state = vec![0; STATE_MAX];
    let mut fds = [-1; 1];
    let (len, received) = connection(&listener, &mut daemon)?.recv_with_fd(&mut state, &mut fds)?;
    if len == 0 || received != 1 {
        return Err(Error::other(
            "the daemon sent no state or no file descriptor",
        ));
    }
    // SAFETY: The file descriptor was just received, nobody else owns it.
    let device = unsafe { File::from_raw_fd(fds[0]) };
    ready(&daemon)?;

    loop {
        let status = daemon.wait()?;
        if status.signal().is_none() {
            return Err(Error::other(format!(
                "the daemon ended by itself: {status}"
            )));
        }
        daemon = Command::new(program)
            .args(options)
            .arg("--upgrade")
            .spawn()?;
        connection(&listener, &mut daemon)?.send_with_fd(&state[..len], &[device.as_raw_fd()])?;
        ready(&daemon)?;
    }
}
