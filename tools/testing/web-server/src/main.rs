// SPDX-License-Identifier: GPL-2.0-or-later

//! `web-server DIR ADDRESS`: see the crate.

use std::env;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use web_server::Server;

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let (Some(dir), Some(address), None) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: web-server DIR ADDRESS:PORT");
        return ExitCode::from(2);
    };
    let dir = PathBuf::from(dir);
    if !dir.is_dir() {
        eprintln!("web-server: {} is not a directory", dir.display());
        return ExitCode::FAILURE;
    }
    match TcpListener::bind(&*address.to_string_lossy()) {
        Ok(listener) => Arc::new(Server { dir }).run(&listener),
        Err(err) => {
            eprintln!(
                "web-server: cannot listen on {}: {err}",
                address.to_string_lossy()
            );
            ExitCode::FAILURE
        }
    }
}
