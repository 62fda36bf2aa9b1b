// SPDX-License-Identifier: GPL-2.0-or-later

//! The service manager's side of a restart: sd_notify(3) with FDSTORE, and LISTEN_FDS.
//!
//! A unit for it:
//!
//! ```text
//! [Service]
//! Type=notify
//! ExecStart=/usr/local/sbin/ondemandd --fd-store --cache-dir ... --http ...
//! FileDescriptorStoreMax=1
//! WatchdogSec=60
//! Restart=always
//! LimitNOFILE=1048576
//! ```

use std::env;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    sendmsg_addr, socket_with, AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType,
};

use crate::sys;

/// The name under which the device is stored.
const NAME: &str = "cachefiles";

/// The first descriptor that a service manager passes.
const LISTEN_FDS_START: RawFd = 3;

/// Takes the device descriptor that the service manager has kept from an earlier run.
///
/// To be called before any thread exists: it clears the variables, which are not for children.
pub fn stored_device() -> Result<Option<OwnedFd>, String> {
    let vars = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(|name| {
        let value = env::var(name).unwrap_or_default();
        env::remove_var(name);
        value
    });
    let Some(raw) = find_stored(&vars[0], &vars[1], &vars[2], std::process::id()) else {
        return Ok(None);
    };
    sys::adopt_fd(raw)
        .map(Some)
        .map_err(|err| format!("the service manager's descriptor {raw} is unusable: {err}"))
}

fn find_stored(listen_pid: &str, count: &str, names: &str, pid: u32) -> Option<RawFd> {
    if listen_pid.parse() != Ok(pid) {
        return None;
    }
    let count: usize = count.parse().ok()?;
    let index = names.split(':').take(count).position(|name| name == NAME)?;
    Some(LISTEN_FDS_START + RawFd::try_from(index).ok()?)
}

/// Whether there is a service manager to talk to.
pub fn has_manager() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Gives the device to the service manager to keep. FDPOLL=0: it is not to be dropped on a hang-up.
pub fn store_device(device: BorrowedFd<'_>) -> Result<(), String> {
    send(&format!("FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0"), Some(device))
        .map_err(|err| format!("cannot store the device with the service manager: {err}"))
}

/// Tells the service manager about this daemon, if there is one.
pub fn state(text: &str) {
    if has_manager() {
        // A manager that has gone away is no reason to stop serving.
        let _ = send(text, None);
    }
}

/// Tells the service manager, which may watch this process (WatchdogSec=), that it lives. To be called
/// every second; a manager that wants it more often than that is too impatient.
pub fn beat() {
    if env::var_os("WATCHDOG_USEC").is_some() {
        state("WATCHDOG=1");
    }
}

fn send(text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let path = env::var_os("NOTIFY_SOCKET")
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "NOTIFY_SOCKET is not set"))?;
    send_to(path.as_encoded_bytes(), text, fd)
}

fn send_to(path: &[u8], text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name)?,
        None => SocketAddrUnix::new(path)?,
    };
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let data = [IoSlice::new(text.as_bytes())];
    sendmsg_addr(&socket, &address, &data, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    use std::io::{IoSliceMut, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn the_stored_descriptor_is_found_by_name() {
        let find = |count, names| find_stored("42", count, names, 42);
        assert_eq!(find("1", "cachefiles"), Some(3));
        assert_eq!(find("3", "a:cachefiles:b"), Some(4));
        assert_eq!(find("1", "a:cachefiles"), None);
        assert_eq!(find("1", "stored"), None);
        assert_eq!(find("", ""), None);
        assert_eq!(find_stored("41", "1", "cachefiles", 42), None);
        assert_eq!(find_stored("", "", "", 42), None);
    }

    /// Receives one datagram with one descriptor and proves that it is the one that was sent.
    fn receive(socket: &UnixDatagram, sent: &std::fs::File) -> String {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buf = [0; 256];
        let mut slices = [IoSliceMut::new(&mut buf)];
        let got = recvmsg(socket, &mut slices, &mut control, RecvFlags::empty()).unwrap();
        let mut fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let mut file = std::fs::File::from(fds.next().expect("a descriptor"));
        file.write_all(b"through").unwrap();
        assert_eq!(sent.metadata().unwrap().len(), 7);
        String::from_utf8(buf[..got.bytes].to_vec()).unwrap()
    }

    #[test]
    fn the_descriptor_goes_along() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let file = tempfile::tempfile().unwrap();
        let path = path.as_os_str().as_encoded_bytes();
        send_to(path, "FDSTORE=1", Some(file.as_fd())).unwrap();
        assert_eq!(receive(&socket, &file), "FDSTORE=1");
    }

    #[test]
    fn abstract_addresses_work() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("ondemandd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        send_to(format!("@{name}").as_bytes(), "READY=1", None).unwrap();
        let mut buf = [0; 16];
        let len = socket.recv(&mut buf).unwrap();
        assert_eq!(&buf[..len], b"READY=1");
    }
}
