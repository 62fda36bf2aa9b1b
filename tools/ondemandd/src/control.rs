// SPDX-License-Identifier: GPL-2.0-or-later

//! `ondemandctl`: what operators do besides running the daemon.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::PathBufValueParser;
use clap::{Arg, Command};

use crate::cli::parse_size;
use crate::device::strip_code;
use crate::source::chunks::{ChunkIndex, CHUNK, MAX_CHUNK, SUFFIX};

pub fn command() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .help("The blob")
        .value_parser(PathBufValueParser::new())
        .required(true);
    let output = Arg::new("output")
        .long("output")
        .value_name("PATH")
        .help("Where the index goes [default: FILE.chunk-index]")
        .value_parser(PathBufValueParser::new());
    let chunk = Arg::new("chunk")
        .long("chunk")
        .value_name("SIZE")
        .help("The size of a chunk, a power of two from 4K to 4M: what is fetched at least (K, M)")
        .value_parser(parse_chunk)
        .default_value("256K");
    let index = Command::new("index")
        .about("Make the chunk index of a blob, and print its digest")
        .long_about(
            "Make the chunk index of a blob, in the format of the EROFS image specification \
             (application/vnd.erofs.chunk-index.v1), and print its digest.\n\n\
             Put it beside the blob for \"ondemandd --verify\", or push it to the repository of the blob \
             and name its digest in the table of \"ondemandd --sources\".",
        )
        .arg(file)
        .arg(output)
        .arg(chunk);
    Command::new("ondemandctl")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Prepare what ondemandd serves")
        .subcommand_required(true)
        .subcommand(index)
}

fn parse_chunk(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if !size.is_power_of_two() || !(4096..=MAX_CHUNK).contains(&size) {
        return Err("must be a power of two from 4K to 4M".into());
    }
    Ok(size)
}

pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let result = match matches.subcommand() {
        Some(("index", matches)) => {
            let file: &PathBuf = matches.get_one("file").expect("clap sees to it");
            let chunk = matches.get_one("chunk").copied().unwrap_or(CHUNK);
            index(file, matches.get_one::<PathBuf>("output"), chunk)
        }
        _ => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "ondemandctl: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn index(path: &Path, output: Option<&PathBuf>, chunk: u64) -> Result<(), String> {
    let fail = |path: &Path, err: &io::Error| format!("{}: {}", path.display(), strip_code(err));
    let (data, size) = File::open(path)
        .and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        })
        .map_err(|err| fail(path, &err))?;
    let bytes = ChunkIndex::build(data, size, chunk).map_err(|err| fail(path, &err))?;
    let output = output.cloned().unwrap_or_else(|| {
        let mut name = path.as_os_str().to_owned();
        name.push(SUFFIX);
        name.into()
    });
    // Whoever reads it at this moment gets the old one or the new one.
    let mut temporary = output.as_os_str().to_owned();
    temporary.push(".tmp");
    fs::write(&temporary, &bytes)
        .and_then(|()| fs::rename(&temporary, &output))
        .map_err(|err| fail(&output, &err))?;
    let index = ChunkIndex::parse(&bytes)?;
    // Whoever does not want to know the digest may have closed it.
    let _ = writeln!(io::stdout(), "sha256:{}", index.digest());
    Ok(())
}
