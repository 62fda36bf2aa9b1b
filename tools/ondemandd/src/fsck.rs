// SPDX-License-Identifier: GPL-2.0-or-later

//! `ondemandctl fsck`: says what is in a cache directory that is not in service, and removes what is of no
//! use there.
//!
//! It goes by the rules of the driver: what that would not use is stale, and so is what no object uses.
//! What the driver corrects by itself when it looks an object up is no problem.

mod format;
mod look;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use clap::builder::PathBufValueParser;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;

use crate::cli::flag;
use crate::report::{escape, human};
use look::{Condition, Found, Object};

/// Exit statuses.
const REMOVED: u8 = 1;
const REMAIN: u8 = 2;

pub fn command() -> Command {
    Command::new("fsck")
        .about("Say what is in a cache directory, and remove what is of no use there")
        .long_about(
            "Say what is in a cache directory that no cache is bound to, of either mode: the volumes, and \
             of each object its size, how much of it is present, and its state. It needs no daemon.\n\n\
             complete: all of it. partial: what a list says. unlisted: what the file system says, as the \
             kernel's own cachefiles has left it. All others are of no use, and the kernel would remove \
             them: no-list, if nothing says what is present, or what does is damaged or of another state \
             of the object; dirty, if a network file system has written to it before a crash; damaged, if \
             the attribute of the file is missing or nonsense; no-volume, if that of the directory is.\n\n\
             Orphans are lists that no object uses, what was put into graveyard/ to be deleted, and files \
             that are not named as an object. What does not belong there at all is never removed.",
        )
        .after_help(
            "Exit status: 0 if there is nothing to be removed; 1 if something was removed or repaired, and \
             nothing is left; 2 if something is left, or could not be read; 3 if nothing was looked at: the \
             directory is in use or holds no cache, or the command line is wrong.",
        )
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .help("The cache directory")
                .value_parser(PathBufValueParser::new())
                .required(true),
        )
        .arg(flag("json", "Print one JSON object"))
        .arg(flag(
            "remove",
            "Remove what is stale or orphaned, and cut damaged ends of lists off",
        ))
}

/// What is printed.
#[derive(Serialize)]
struct Answer<'a> {
    directory: String,
    #[serde(flatten)]
    found: &'a Found,
    totals: Totals,
    /// What `--remove` has removed or repaired.
    removed: Vec<String>,
    /// How many problems are left.
    problems: usize,
}

#[derive(Default, Serialize)]
struct Totals {
    volumes: usize,
    objects: usize,
    complete: usize,
    partial: usize,
    unlisted: usize,
    stale: usize,
    orphans: usize,
    /// Bytes of objects that are of use.
    size: u64,
    present: u64,
    /// What the files of all objects, and the orphans, take of the disk.
    disk: u64,
}

impl Totals {
    fn of(found: &Found) -> Self {
        let mut totals = Totals {
            volumes: found.volumes.len(),
            orphans: found.orphans.len(),
            disk: found.orphans.iter().map(|orphan| orphan.disk).sum(),
            ..Totals::default()
        };
        for object in found.objects() {
            totals.objects += 1;
            totals.disk += object.disk;
            match object.state {
                Condition::Complete => totals.complete += 1,
                Condition::Partial => totals.partial += 1,
                Condition::Unlisted => totals.unlisted += 1,
                _ => {
                    totals.stale += 1;
                    continue;
                }
            }
            totals.size = totals.size.saturating_add(object.size);
            totals.present += object.present;
        }
        totals
    }
}

/// Whether the kernel has marked a directory as being in use by a cache. Such a directory cannot be
/// removed, whatever is in it; something is put there first, so that this one cannot be removed either.
fn is_in_use(dir: &Path) -> io::Result<bool> {
    let guard = dir.join(format!(".fsck.{}", std::process::id()));
    match fs::create_dir(&guard) {
        // Nor can it be that of a cache in service.
        Err(err) if err.kind() == ErrorKind::ReadOnlyFilesystem => return Ok(false),
        made => made?,
    }
    let tried = fs::remove_dir(dir);
    fs::remove_dir(&guard)?;
    match tried {
        Err(err) if err.kind() == ErrorKind::ResourceBusy => Ok(true),
        Err(err) if err.kind() == ErrorKind::DirectoryNotEmpty => Ok(false),
        Err(err) => Err(err),
        Ok(()) => Err(io::Error::other("somebody else is changing the directory")),
    }
}

/// Fails if a cache is bound to the directory, or it is none of a cache.
fn check_directory(dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let is_there = |name: &str| dir.join(name).is_dir();
    if !is_there("cache") || !is_there("graveyard") {
        return Err(format!(
            "{shown} is not the directory of a cache: it has no cache/ or no graveyard/"
        ));
    }
    match is_in_use(&dir.join("graveyard")) {
        Ok(false) => Ok(()),
        Ok(true) => Err(format!(
            "{shown} is in use: a cache is bound to it. Stop its daemon first; while it runs, \
             \"ondemandctl status --cached\" says what is in the cache"
        )),
        Err(err) => Err(format!(
            "cannot find out whether {shown} is in use by a cache: {err}"
        )),
    }
}

/// The command. Returns the exit status; `Err` if nothing was looked at.
pub fn run(args: &ArgMatches, print: impl Fn(&str)) -> Result<u8, String> {
    let dir: &PathBuf = args.get_one("dir").expect("clap sees to it");
    check_directory(dir)?;
    let mut found = look::look(dir);
    let mut removed = Vec::new();
    if args.get_flag("remove") && found.problems() > 0 {
        removed = look::remove(dir, &found);
        let failed: Vec<_> = removed.iter().filter_map(|(_, err)| err.clone()).collect();
        // What there is now.
        found = look::look(dir);
        found.errors.extend(failed);
        removed.retain(|(_, err)| err.is_none());
    }
    let answer = Answer {
        directory: dir.display().to_string(),
        totals: Totals::of(&found),
        removed: removed.into_iter().map(|(what, _)| what).collect(),
        problems: found.problems(),
        found: &found,
    };
    if args.get_flag("json") {
        let text = serde_json::to_string(&answer).map_err(|err| err.to_string())?;
        print(&(text + "\n"));
    } else {
        print(&describe(&answer));
    }
    Ok(match (answer.problems, answer.removed.len()) {
        (0, 0) => 0,
        (0, _) => REMOVED,
        _ => REMAIN,
    })
}

fn percent(object: &Object) -> u128 {
    u128::from(object.present) * 100 / u128::from(object.size.max(1))
}

fn describe_object(object: &Object) -> String {
    let present = match object.state {
        Condition::Complete => human(object.size),
        Condition::Partial | Condition::Unlisted => format!(
            "{} of {} ({} %)",
            human(object.present),
            human(object.size),
            percent(object)
        ),
        _ => "nothing".into(),
    };
    let mut line = format!("  {}: {}, {present}", object.name, object.state.name());
    for note in &object.notes {
        line.push_str("; ");
        line.push_str(note);
    }
    line
}

fn describe(answer: &Answer<'_>) -> String {
    let (found, totals) = (answer.found, &answer.totals);
    let mut lines = Vec::new();
    for volume in &found.volumes {
        let stale = if volume.is_stale {
            ": not usable, its attribute is missing or damaged"
        } else {
            ""
        };
        lines.push(format!("{}{stale}", volume.name));
        lines.extend(volume.objects.iter().map(describe_object));
    }
    let orphans = found.orphans.iter();
    lines.extend(orphans.map(|o| format!("orphan {}: {}", o.path, o.what)));
    let foreign = found.foreign.iter();
    lines.extend(foreign.map(|path| format!("foreign {path}: does not belong here")));
    lines.extend(found.errors.iter().map(|text| format!("error {text}")));
    lines.extend(answer.removed.iter().map(|what| format!("removed {what}")));
    lines.push(format!(
        "{}: {} volumes, {} objects: {} complete, {} partial, {} unlisted, {} stale; {} of {} present; {} \
         orphans; {} on the disk",
        answer.directory,
        totals.volumes,
        totals.objects,
        totals.complete,
        totals.partial,
        totals.unlisted,
        totals.stale,
        human(totals.present),
        human(totals.size),
        totals.orphans,
        human(totals.disk),
    ));
    let lines: Vec<_> = lines.iter().map(|line| escape(line)).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests;
