// SPDX-License-Identifier: GPL-2.0-or-later
//! The fscache daemon of the `nydus-service` crate as a program.
//!
//! usage: `nydus-service-daemon CACHE_DIR SUPERVISOR_SOCKET API_SOCKET BLOB.json... [--upgrade]`
//!
//! What it does with the device is all the crate's. The first one hands its state and the device's
//! file descriptor to the supervisor; one that is started with `--upgrade` takes both over from
//! there. Each `BLOB.json` is what one would PUT to nydusd's `/api/v2/blobs`.

use std::io::{Error, Result};

use nydus_api::{BlobCacheEntry, BuildTimeInfo};
use nydus_service::create_daemon;
use nydus_service::daemon::DaemonController;

const USAGE: &str = "usage: nydus-service-daemon \
    CACHE_DIR SUPERVISOR_SOCKET API_SOCKET BLOB.json... [--upgrade]";
const THREADS: &str = "4";

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}: {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

fn build_info() -> BuildTimeInfo {
    BuildTimeInfo {
        package_ver: env!("CARGO_PKG_VERSION").to_string(),
        git_commit: String::new(),
        build_time: String::new(),
        profile: String::new(),
        rustc: String::new(),
    }
}

fn main() -> Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let upgrade = args.last().is_some_and(|last| last == "--upgrade");
    if upgrade {
        args.pop();
    }
    let [cache, supervisor, api, blobs @ ..] = args.as_slice() else {
        return Err(Error::other(USAGE));
    };
    log::set_logger(&Stderr).map_err(|e| Error::other(e.to_string()))?;
    log::set_max_level(log::LevelFilter::Info);

    let controller = DaemonController::new();
    controller.set_singleton_mode(true);
    let daemon = create_daemon(
        None,
        Some(supervisor.clone()),
        Some(cache),
        None,
        Some(THREADS),
        None,
        build_info(),
        controller.alloc_waker(),
        Some(api),
        upgrade,
    )?;
    if upgrade {
        daemon.trigger_takeover()?;
        daemon.trigger_start()?;
    } else {
        let manager = daemon
            .get_blob_cache_mgr()
            .ok_or_else(|| Error::other("no blob manager"))?;
        for blob in blobs {
            let mut entry: BlobCacheEntry = std::fs::read_to_string(blob)?.parse()?;
            if !entry.prepare_configuration_info() {
                return Err(Error::other(format!("{blob} is no valid configuration")));
            }
            manager.add_blob_entry(&entry)?;
            if let Some(mut upgrades) = daemon.upgrade_mgr() {
                upgrades.add_blob_entry_state(entry);
            }
        }
        daemon.save()?;
    }
    controller.run_loop();
    Ok(())
}
