// SPDX-License-Identifier: GPL-2.0-or-later

//! The control program; see the crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    ondemandd::control()
}
