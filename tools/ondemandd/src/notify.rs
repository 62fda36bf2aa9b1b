// SPDX-License-Identifier: GPL-2.0-or-later

//! The service manager's side of a restart: sd_notify(3) with FDSTORE, and LISTEN_FDS, by the crate
//! sd-notify. It knows sockets with a path only, which is what systemd has had since version 212.
//!
//! A unit for it:
//!
//! ```text
//! [Service]
//! Type=notify-reload
//! ExecStart=/usr/local/sbin/ondemandd --fd-store --cache-dir ... --http ...
//! FileDescriptorStoreMax=1
//! WatchdogSec=60
//! Restart=always
//! LimitNOFILE=1048576
//! ```

use std::env;
use std::os::fd::{BorrowedFd, OwnedFd};

pub use sd_notify::NotifyState;

use crate::sys;

/// The name under which the device is stored.
const NAME: &str = "cachefiles";

/// Takes the device descriptor that the service manager has kept from an earlier run.
///
/// To be called before any thread exists: it clears the variables, which are not for children.
pub fn stored_device() -> Result<Option<OwnedFd>, String> {
    let passed = sd_notify::listen_fds_with_names().map(Iterator::collect::<Vec<_>>);
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        env::remove_var(name);
    }
    let passed =
        passed.map_err(|err| format!("what the service manager has passed is unusable: {err}"))?;
    let Some((raw, _)) = passed.into_iter().find(|(_, name)| name == NAME) else {
        return Ok(None);
    };
    sys::adopt_fd(raw)
        .map(Some)
        .map_err(|err| format!("the service manager's descriptor {raw} is unusable: {err}"))
}

/// Whether there is a service manager to talk to.
pub fn has_manager() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Gives the device to the service manager to keep. FDPOLL=0: it is not to be dropped on a hang-up.
pub fn store_device(device: BorrowedFd<'_>) -> Result<(), String> {
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(NAME),
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(&state, &[device])
        .map_err(|err| format!("cannot store the device with the service manager: {err}"))
}

/// Tells the service manager about this daemon, if there is one.
pub fn state(state: &[NotifyState<'_>]) {
    // A manager that has gone away is no reason to stop serving.
    let _ = sd_notify::notify(state);
}

/// Tells the service manager that what SIGHUP asks for begins (Type=notify-reload). READY=1 ends it.
pub fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        state(&[NotifyState::Reloading, now]);
    }
}

/// Tells the service manager, which may watch this process (WatchdogSec=), that it lives. To be called
/// every second; a manager that wants it more often than that is too impatient.
pub fn beat() {
    // Not sd_notify::watchdog_enabled(): WATCHDOG_PID is that of the supervisor if there is one.
    if env::var_os("WATCHDOG_USEC").is_some() {
        state(&[NotifyState::Watchdog]);
    }
}
