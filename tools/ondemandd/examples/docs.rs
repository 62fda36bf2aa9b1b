// SPDX-License-Identifier: GPL-2.0-or-later

//! Writes the manual pages and the completions for shells into a directory: `docs DIR`. They come from the
//! definition of the command line, so they have all options.

use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

/// A page for a command, and for each of its subcommands: `ondemandctl-add(8)`.
fn pages(command: &Command, dir: &Path) -> std::io::Result<()> {
    for subcommand in command.get_subcommands() {
        pages(subcommand, dir)?;
    }
    let page = clap_mangen::Man::new(command.clone()).section("8");
    page.generate_to(dir).map(drop)
}

fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for mut command in ondemandd::commands() {
        // Before completions add the subcommand "help".
        let mut paged = command.clone().disable_help_subcommand(true);
        paged.build();
        pages(&paged, dir)?;
        let name = command.get_name().to_string();
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut command, &name, dir)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: docs DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("docs: {}: {err}", dir.to_string_lossy());
            ExitCode::FAILURE
        }
    }
}
