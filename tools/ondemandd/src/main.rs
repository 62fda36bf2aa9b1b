// SPDX-License-Identifier: GPL-2.0-or-later

//! The daemon; see the crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    ondemandd::main()
}
