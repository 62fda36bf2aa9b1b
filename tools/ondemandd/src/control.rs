// SPDX-License-Identifier: GPL-2.0-or-later

//! `ondemandctl`: what operators do besides running the daemon.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::PathBufValueParser;
use clap::{value_parser, Arg, ArgAction, ArgGroup, ArgMatches, Command};

use crate::api::{
    Added, Background, Cached, Culled, Open, Prefetching, Reply, Request, Status, Verified, SOCKET,
};
use crate::cli::{flag, option, parse_size};
use crate::device::strip_code;
use crate::fsck;
use crate::mount::{self, Mounting};
use crate::report::{escape, human};
use crate::server::ask;
use crate::source::chunks::{ChunkIndex, CHUNK, MAX_CHUNK, SUFFIX};

/// Exit statuses, which are those that monitoring systems know.
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;
const UNKNOWN: u8 = 3;

const AFTER_HELP: &str = "\
Exit status: 0 if all is well. 1 if what was asked for was not done, or, for \"status\", if something wants \
attention: a request has waited for longer than --warn, or the cache is larger than it should be and all of \
it is in use. 2 if readers suffer: a request has waited for longer than --critical, the cache takes no data, \
or, for \"verify\", something in the cache is not what it should be. 3 if that is not known: no daemon \
answers, or the command line is wrong.";

fn file_arg(help: &'static str) -> Arg {
    Arg::new("file")
        .value_name("FILE")
        .help(help)
        .value_parser(PathBufValueParser::new())
        .required(true)
}

fn name_arg(help: &'static str) -> Arg {
    Arg::new("name").value_name("NAME").help(help)
}

fn seconds(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    option(name, "SECONDS", help)
        .value_parser(value_parser!(u32))
        .default_value(default)
}

fn index_command() -> Command {
    let output = option(
        "output",
        "PATH",
        "Where the index goes [default: FILE.chunk-index]",
    )
    .value_parser(PathBufValueParser::new());
    let chunk = option(
        "chunk",
        "SIZE",
        "The size of a chunk, a power of two from 4K to 4M: what is fetched at least (K, M)",
    )
    .value_parser(parse_chunk)
    .default_value("256K");
    Command::new("index")
        .about("Make the chunk index of a blob, and print its digest")
        .long_about(
            "Make the chunk index of a blob, in the format of the EROFS image specification \
             (application/vnd.erofs.chunk-index.v1), and print its digest. With --zstd, the blob is \
             compressed for that (application/vnd.erofs+zstd), and the index is that of FILE.zst.\n\n\
             Put it beside the blob for \"ondemandd --verify\", or push it to the repository of the blob \
             and name its digest in the table of \"ondemandd --sources\".",
        )
        .arg(file_arg("The blob"))
        .arg(output)
        .arg(chunk)
        .arg(flag(
            "zstd",
            "Write FILE.zst, in which each chunk is compressed by itself",
        ))
}

fn status_command() -> Command {
    Command::new("status")
        .about("Say how the daemon is, and what of each blob is in the cache")
        .arg(name_arg("Only the blob with this name"))
        .arg(flag("json", "Print one JSON object"))
        .arg(flag("cached", "List what is cached and not open, too"))
        .arg(seconds(
            "warn",
            "30",
            "Status 1 if a request has waited for longer",
        ))
        .arg(seconds(
            "critical",
            "120",
            "Status 2 if a request has waited for longer",
        ))
}

fn add_command() -> Command {
    Command::new("add")
        .about("Have the daemon serve one more name")
        .long_about(
            "Have the daemon serve one more name. It needs --sources, and keeps what is added in a file \
             beside that table. The options are those of the table; see \"ondemandd --help\".",
        )
        .arg(name_arg("The name of the blob or image").required(true))
        .arg(option("registry", "REF", "HOST/REPOSITORY@sha256:DIGEST"))
        .arg(option("http", "URL", "The URL of the blob"))
        .arg(option("from", "PATH", "The file that is the blob"))
        .arg(option(
            "image",
            "REF",
            "HOST/REPOSITORY@sha256:DIGEST or HOST/REPOSITORY:TAG of an image",
        ))
        .arg(option(
            "index",
            "DIGEST",
            "sha256:DIGEST of its chunk index",
        ))
        .arg(flag("unverified", "Believe whoever sends it").conflicts_with("index"))
        .group(
            ArgGroup::new("source")
                .args(["registry", "http", "from", "image"])
                .required(true),
        )
}

fn path_arg(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .value_name(value)
        .help(help)
        .value_parser(PathBufValueParser::new())
        .required(true)
}

fn files_option() -> Arg {
    option("files", "DIR", "Where ondemandfs is, or is to be")
        .value_parser(PathBufValueParser::new())
        .default_value(mount::FILES)
}

fn mount_command() -> Command {
    Command::new("mount")
        .about("Mount an image or a blob that the daemon serves")
        .long_about(
            "Mount an image or a blob that the daemon serves. NAME is that of an image in the table of \
             \"ondemandd --sources\", whose layers are mounted as its manifest says, those that are devices \
             of others and overlays of several included; or that of an EROFS blob. Blobs that it has data in \
             are named behind it, unless the image has their names. What is mounted is read-only.\n\n\
             ondemandfs, which the blobs are files of, is mounted if it is not, for root only.",
        )
        .override_usage("ondemandctl mount [OPTIONS] <NAME>... <DIR>")
        .arg(
            Arg::new("what")
                .value_name("NAME")
                .help("The image, or a blob and its devices; at last DIR, where it is to be mounted")
                // Options may stand between them.
                .num_args(1..)
                .action(ArgAction::Append)
                .required(true),
        )
        .arg(files_option())
        .arg(
            option(
                "domain",
                "NAME",
                "The domain of ondemandfs if it is not mounted yet (see \"ondemandd --by-domain\")",
            )
            .default_value("images"),
        )
}

pub fn command() -> Command {
    let socket = option("socket", "PATH", "The control socket of the daemon")
        .value_parser(PathBufValueParser::new())
        .default_value(SOCKET)
        .global(true);
    Command::new("ondemandctl")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Look at ondemandd, have it do things, and prepare what it serves")
        .after_help(AFTER_HELP)
        .subcommand_required(true)
        .arg(socket)
        .subcommand(status_command())
        .subcommand(add_command())
        .subcommand(
            Command::new("remove")
                .about("Have the daemon serve a name that was added no longer")
                .long_about(
                    "Have the daemon serve a name that was added no longer. Readers that have it open go \
                     on; what is cached is culled some time, or with \"cull NAME\".",
                )
                .arg(name_arg("The name").required(true)),
        )
        .subcommand(
            Command::new("prefetch")
                .about("Fetch all of a blob, when nothing else is to be fetched")
                .long_about(
                    "Fetch all of a blob, when nothing else is to be fetched. A NAME has to be open, as it \
                     is while it is mounted. With a path, which is that of a file of ondemandfs, this \
                     opens it and waits until all of it is there.",
                )
                .arg(name_arg("The name of a blob, or a path to it").required(true))
                .arg(flag("wait", "Wait until all of it is there")),
        )
        .subcommand(
            Command::new("background")
                .about("Fetch the rest of a blob in the background")
                .long_about(
                    "Fetch the rest of a blob that is open, as \"ondemandd --background\" does for all: only \
                     when nothing else is to be fetched from its server, within --bandwidth, and until it \
                     is complete or not open any more. \"status\" says how far that is.",
                )
                .arg(name_arg("The name of the blob").required(true))
                .arg(flag("off", "Do not, any more")),
        )
        .subcommand(
            Command::new("trace")
                .about("End the recording of what is read at the start of a blob, and keep it")
                .long_about(
                    "End the recording of what is read at the start of a blob that is mounted, and keep it \
                     in the directory of \"ondemandd --trace-dir\". Without this, recording ends after \
                     --trace-time, or when the blob is not used any more.",
                )
                .arg(name_arg("The name").required(true)),
        )
        .subcommand(
            Command::new("cull")
                .about("Remove from the cache what is not in use")
                .arg(name_arg("The blob to remove"))
                .arg(
                    option(
                        "to",
                        "SIZE",
                        "Remove what was not used for longest until the cache has so many bytes",
                    )
                    .value_parser(parse_size)
                    .conflicts_with("name"),
                )
                .group(
                    ArgGroup::new("what")
                        .args(["name", "to"])
                        .required(true),
                ),
        )
        .subcommand(
            Command::new("verify")
                .about("Compare what is in the cache with its digests")
                .arg(name_arg("Only the blob with this name")),
        )
        .subcommand(mount_command())
        .subcommand(
            Command::new("umount")
                .about("Unmount what \"mount\" has mounted")
                .arg(path_arg("dir", "DIR", "Where it is mounted"))
                .arg(files_option()),
        )
        .subcommand(Command::new("metrics").about("Print the metrics, as OpenMetrics text"))
        .subcommand(index_command())
        .subcommand(fsck::command())
}

fn parse_chunk(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if !size.is_power_of_two() || !(4096..=MAX_CHUNK).contains(&size) {
        return Err("must be a power of two from 4K to 4M".into());
    }
    Ok(size)
}

/// Why a command has not done what it was to do.
struct Failure {
    status: u8,
    reason: String,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self {
            status: WARNING,
            reason,
        }
    }
}

pub fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(err) => {
            let wrong = err.use_stderr();
            let _ = err.print();
            return if wrong {
                ExitCode::from(UNKNOWN)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match run(&matches) {
        Ok(status) => ExitCode::from(status),
        Err(Failure { status, reason }) => {
            let _ = writeln!(io::stderr(), "ondemandctl: {}", escape(&reason));
            ExitCode::from(status)
        }
    }
}

fn run(matches: &ArgMatches) -> Result<u8, Failure> {
    let Some((command, args)) = matches.subcommand() else {
        return Ok(0);
    };
    let text = |name: &str| args.get_one::<String>(name).cloned();
    if command == "index" {
        let file: &PathBuf = args.get_one("file").expect("clap sees to it");
        let chunk = args.get_one("chunk").copied().unwrap_or(CHUNK);
        let output = args.get_one::<PathBuf>("output");
        index(file, output, chunk, args.get_flag("zstd"))?;
        return Ok(0);
    }
    if command == "fsck" {
        return fsck::run(args, print).map_err(|reason| Failure {
            status: UNKNOWN,
            reason,
        });
    }
    if command == "umount" {
        let dir: &PathBuf = args.get_one("dir").expect("clap sees to it");
        let mounting = Mounting {
            files: args.get_one::<PathBuf>("files").expect("clap sees to it"),
            domain: "",
        };
        mounting.unmount(dir)?;
        return Ok(0);
    }
    let daemon = Daemon {
        socket: args.get_one("socket").cloned().expect("clap sees to it"),
    };
    match command {
        "status" => status(&daemon, args, text("name")),
        "metrics" => match daemon.ask(&Request::Metrics)? {
            Reply::Metrics(text) => {
                print(&text);
                Ok(0)
            }
            other => Err(unexpected(&other)),
        },
        "add" => daemon.done(&Request::Add {
            name: text("name").unwrap_or_default(),
            source: Added {
                image: text("image"),
                registry: text("registry"),
                http: text("http"),
                file: text("from"),
                index: text("index"),
                unverified: args.get_flag("unverified"),
            },
        }),
        "remove" => daemon.done(&Request::Remove {
            name: text("name").unwrap_or_default(),
        }),
        "prefetch" => prefetch(
            &daemon,
            &text("name").unwrap_or_default(),
            args.get_flag("wait"),
        ),
        "background" => background(
            &daemon,
            &text("name").unwrap_or_default(),
            !args.get_flag("off"),
        ),
        "trace" => trace(&daemon, &text("name").unwrap_or_default()),
        "mount" => mount(&daemon, args),
        "cull" => cull(&daemon, text("name"), args.get_one("to").copied()),
        "verify" => verify(&daemon, text("name")),
        _ => Ok(0),
    }
}

/// Whoever does not want to read it may have closed it.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn unexpected(reply: &Reply) -> Failure {
    Failure {
        status: UNKNOWN,
        reason: format!("the daemon has answered something else: {reply:?}"),
    }
}

struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        match ask(&self.socket, request) {
            Ok(Reply::Error(reason)) => Err(reason.into()),
            Ok(reply) => Ok(reply),
            Err(reason) => Err(Failure {
                status: UNKNOWN,
                reason,
            }),
        }
    }

    fn done(&self, request: &Request) -> Result<u8, Failure> {
        match self.ask(request)? {
            Reply::Done => Ok(0),
            other => Err(unexpected(&other)),
        }
    }

    fn status(&self, name: Option<String>) -> Result<Status, Failure> {
        match self.ask(&Request::Status { name })? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }
}

fn status(daemon: &Daemon, args: &ArgMatches, name: Option<String>) -> Result<u8, Failure> {
    let status = daemon.status(name.clone())?;
    if args.get_flag("json") {
        let text = serde_json::to_string(&status).map_err(|err| err.to_string())?;
        print(&(text + "\n"));
    } else {
        print(&describe(
            &status,
            args.get_flag("cached") || name.is_some(),
        ));
    }
    if let Some(name) = name {
        if status.open.is_empty() && status.cached.is_empty() {
            return Err(format!("\"{name}\" is neither open nor cached").into());
        }
    }
    let limit = |name: &str| {
        args.get_one::<u32>(name)
            .copied()
            .map_or(f64::MAX, f64::from)
    };
    let (code, reasons) = judge(&status, limit("warn"), limit("critical"));
    for reason in reasons {
        let _ = writeln!(io::stderr(), "ondemandctl: {reason}");
    }
    Ok(code)
}

/// What is wrong, and how bad that is.
fn judge(status: &Status, warn: f64, critical: f64) -> (u8, Vec<String>) {
    let mut found = Vec::new();
    if status.cache.full {
        found.push((
            CRITICAL,
            "the cache takes no data: its disk is full".to_string(),
        ));
    }
    let oldest = status.oldest_seconds;
    let waits = format!("a request has waited for {oldest:.0} s");
    if oldest > critical {
        found.push((CRITICAL, waits));
    } else if oldest > warn {
        found.push((WARNING, waits));
    }
    if status.cache.in_use {
        let text = "the cache is larger than it should be, and all of it is in use";
        found.push((WARNING, text.to_string()));
    }
    let worst = found.iter().map(|(code, _)| *code).max().unwrap_or(0);
    (worst, found.into_iter().map(|(_, text)| text).collect())
}

/// The parts of a blob: a character for each.
fn bar(map: &[u8]) -> String {
    map.iter()
        .map(|percent| match percent {
            0 => '.',
            1..=49 => '-',
            50..=99 => '+',
            _ => '#',
        })
        .collect()
}

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(100)
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

fn describe(status: &Status, with_cached: bool) -> String {
    let cache = &status.cache;
    let mut lines = vec![format!(
        "ondemandd {}, process {}, has run for {}",
        status.version,
        status.pid,
        ago(status.uptime_seconds)
    )];
    let limit = cache
        .limit
        .map_or(String::new(), |limit| format!(" of {}", human(limit)));
    lines.push(format!(
        "cache: {}{limit} in {}; {} of {} free on its disk{}",
        human(cache.bytes),
        escape(&cache.directory),
        human(cache.disk_free),
        human(cache.disk_bytes),
        if cache.full { ", FULL" } else { "" }
    ));
    let mut requests = format!("requests: {} wait", status.pending);
    if status.pending > 0 {
        requests += &format!(", the oldest one for {:.1} s", status.oldest_seconds);
    }
    for (name, total) in &status.totals {
        if name.ends_with("bytes") {
            let name = name.trim_end_matches("_bytes");
            requests += &format!(", {name} {}", human(*total));
        } else {
            requests += &format!(", {} {total}", name.replace('_', " "));
        }
    }
    if let Some(rate) = status.bandwidth {
        requests += &format!(", {} per second at most", human(rate));
    }
    lines.push(requests);
    for open in &status.open {
        lines.extend(describe_open(open));
    }
    if with_cached {
        lines.extend(status.cached.iter().map(describe_cached));
    } else if !status.cached.is_empty() {
        let count = status.cached.len();
        lines.push(format!("{count} more files in the cache (--cached)"));
    }
    lines.join("\n") + "\n"
}

fn describe_open(open: &Open) -> Vec<String> {
    let server = match open.server.as_str() {
        "" => String::new(),
        server => format!(" from {}", escape(server)),
    };
    let mut lines = vec![
        format!(
            "\n{}: {} of {} ({} %), {} fetched{server}",
            escape(&open.name),
            human(open.present),
            human(open.size),
            percent(open.present, open.size),
            human(open.fetched)
        ),
        format!("  [{}]", bar(&open.map)),
    ];
    if open.waiting > 0 {
        lines.push(format!(
            "  {} readers wait, the oldest one for {:.1} s",
            open.waiting, open.oldest_seconds
        ));
    }
    if open.prefetching {
        lines.push("  is being prefetched".into());
    }
    match &open.background {
        Background::Off => {}
        Background::Running => lines.push("  the rest is being fetched in the background".into()),
        Background::Waiting(reason) => lines.push(format!(
            "  the rest is to be fetched, which waits: {}",
            escape(reason)
        )),
        Background::Complete => lines.push("  all of it is there".into()),
    }
    if let Some(error) = &open.last_error {
        lines.push(format!("  last error: {}", escape(error)));
    }
    lines
}

fn describe_cached(file: &Cached) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let age = now.unwrap_or_default().as_secs().saturating_sub(file.used);
    let name = escape(&file.place);
    format!("  {name}: {}, used {} ago", human(file.bytes), ago(age))
}

/// How often it is looked whether a blob is there.
const LOOK: Duration = Duration::from_millis(200);

fn prefetch(daemon: &Daemon, name: &str, wait: bool) -> Result<u8, Failure> {
    // Kept open, so that the kernel keeps it open at the daemon.
    let mut file = None;
    let mut key = name;
    if let Some((_, last)) = name.rsplit_once('/') {
        let opened = File::open(name).map_err(|err| format!("{name}: {}", strip_code(&err)))?;
        file = Some(opened);
        key = last;
    }
    let reply = daemon.ask(&Request::Prefetch { name: key.into() })?;
    let Reply::Prefetch(started) = reply else {
        return Err(unexpected(&reply));
    };
    if started.open == 0 {
        return Err(format!(
            "\"{key}\" is not open at the daemon: mount it, or give the path of its file in ondemandfs"
        )
        .into());
    }
    if !wait && file.is_none() {
        return Ok(0);
    }
    let shows = io::stderr().is_terminal();
    loop {
        let status = daemon.status(Some(key.into()))?;
        if status.open.is_empty() {
            return Err(format!("\"{key}\" is not open any more").into());
        }
        let (present, size) = status.open.iter().fold((0, 0), |(present, size), open| {
            (present + open.present.min(open.size), size + open.size)
        });
        if shows {
            let percent = percent(present, size);
            let _ = write!(
                io::stderr(),
                "\r{} of {}, {percent} % ",
                human(present),
                human(size)
            );
        }
        if present >= size || !status.open.iter().any(|open| open.prefetching) {
            if shows {
                let _ = writeln!(io::stderr());
            }
            if present >= size {
                return Ok(0);
            }
            let error = status.open.into_iter().find_map(|open| open.last_error);
            let error = error.unwrap_or_else(|| "the daemon does not say why".into());
            return Err(format!(
                "only {} of {} are there: {error}",
                human(present),
                human(size)
            )
            .into());
        }
        std::thread::sleep(LOOK);
    }
}

fn mount(daemon: &Daemon, args: &ArgMatches) -> Result<u8, Failure> {
    let what = args.get_many::<String>("what").unwrap_or_default();
    let mut names: Vec<String> = what.cloned().collect();
    let dir = PathBuf::from(names.pop().unwrap_or_default());
    if names.is_empty() {
        return Err(Failure {
            status: UNKNOWN,
            reason: format!("what is to be mounted on {}?", dir.display()),
        });
    }
    let mounting = Mounting {
        files: args.get_one::<PathBuf>("files").expect("clap sees to it"),
        domain: args.get_one::<String>("domain").expect("clap sees to it"),
    };
    if let [name] = &names[..] {
        let request = Request::Image { name: name.clone() };
        match daemon.ask(&request) {
            Ok(Reply::Image(layers)) if layers.is_empty() => {}
            Ok(Reply::Image(layers)) => return Ok(mounting.image(&layers, &dir).map(|()| 0)?),
            Ok(other) => return Err(unexpected(&other)),
            // A blob needs nothing of it but that it is served.
            Err(err) if err.status == UNKNOWN => {
                let done = mounting.blobs(&names, &dir);
                return Ok(done
                    .map(|()| 0)
                    .map_err(|reason| format!("{reason}; {}", err.reason))?);
            }
            Err(err) => return Err(err),
        }
    }
    mounting.blobs(&names, &dir)?;
    Ok(0)
}

fn background(daemon: &Daemon, name: &str, on: bool) -> Result<u8, Failure> {
    let name = name.to_string();
    match daemon.ask(&Request::Background {
        name: name.clone(),
        on,
    })? {
        Reply::Prefetch(Prefetching { open: 0 }) => {
            Err(format!("\"{name}\" is not open at the daemon: mount it first").into())
        }
        Reply::Prefetch(_) => Ok(0),
        other => Err(unexpected(&other)),
    }
}

fn trace(daemon: &Daemon, name: &str) -> Result<u8, Failure> {
    let reply = daemon.ask(&Request::Trace { name: name.into() })?;
    let Reply::Trace(traced) = reply else {
        return Err(unexpected(&reply));
    };
    if traced.traces == 0 {
        return Err(format!("nothing is being recorded of \"{name}\"").into());
    }
    let (ranges, bytes) = (traced.ranges, human(traced.bytes));
    print(&format!("{ranges} ranges, {bytes}\n"));
    Ok(0)
}

fn cull(daemon: &Daemon, name: Option<String>, bytes: Option<u64>) -> Result<u8, Failure> {
    let reply = daemon.ask(&Request::Cull {
        name: name.clone(),
        bytes,
    })?;
    let Reply::Cull(culled) = reply else {
        return Err(unexpected(&reply));
    };
    let Culled {
        files,
        bytes,
        busy,
        left,
        unfinished,
    } = culled;
    print(&format!(
        "removed {files} files with {}; the cache has {} now\n",
        human(bytes),
        human(left)
    ));
    match (name, unfinished) {
        (Some(name), true) => Err(format!("\"{name}\" is in use").into()),
        (Some(name), false) if files == 0 => Err(format!("\"{name}\" is not in the cache").into()),
        (None, true) => Err(format!("{busy} files are in use").into()),
        _ => Ok(0),
    }
}

fn verify(daemon: &Daemon, name: Option<String>) -> Result<u8, Failure> {
    let reply = daemon.ask(&Request::Verify { name: name.clone() })?;
    let Reply::Verify(verified) = reply else {
        return Err(unexpected(&reply));
    };
    let Verified {
        files,
        bytes,
        wrong,
        skipped,
    } = verified;
    for text in &skipped {
        print(&format!("not verified: {}\n", escape(text)));
    }
    for text in &wrong {
        print(&format!("WRONG: {}\n", escape(text)));
    }
    print(&format!(
        "{files} files, {} compared with their digests, {} wrong\n",
        human(bytes),
        wrong.len()
    ));
    if !wrong.is_empty() {
        return Ok(CRITICAL);
    }
    match name {
        Some(name) if files == 0 => {
            Err(format!("\"{name}\" is not in the cache, or has no digest").into())
        }
        _ => Ok(0),
    }
}

fn index(path: &Path, output: Option<&PathBuf>, chunk: u64, zstd: bool) -> Result<(), String> {
    let fail = |path: &Path, err: &io::Error| format!("{}: {}", path.display(), strip_code(err));
    let (data, size) = File::open(path)
        .and_then(|file| {
            let size = file.metadata()?.len();
            Ok((file, size))
        })
        .map_err(|err| fail(path, &err))?;
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let blob = if zstd {
        with(path, ".zst")
    } else {
        path.to_path_buf()
    };
    // Whoever reads them at this moment gets the old ones or the new ones.
    let bytes = if zstd {
        let temporary = with(&blob, ".tmp");
        let compress = || {
            let mut to = BufWriter::new(File::create(&temporary)?);
            let bytes = ChunkIndex::build(data, size, chunk, Some(&mut to))?;
            to.flush()?;
            fs::rename(&temporary, &blob)?;
            Ok(bytes)
        };
        compress().map_err(|err| fail(&blob, &err))?
    } else {
        ChunkIndex::build(data, size, chunk, None).map_err(|err| fail(path, &err))?
    };
    let output = output.cloned().unwrap_or_else(|| with(&blob, SUFFIX));
    let temporary = with(&output, ".tmp");
    fs::write(&temporary, &bytes)
        .and_then(|()| fs::rename(&temporary, &output))
        .map_err(|err| fail(&output, &err))?;
    let index = ChunkIndex::parse(&bytes)?;
    // Whoever does not want to know the digest may have closed it.
    print(&format!("sha256:{}\n", index.digest()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn healthy() -> Status {
        Status {
            version: "1".into(),
            pid: 2,
            uptime_seconds: 100,
            cache: crate::api::Cache {
                directory: "/c".into(),
                bytes: 1 << 20,
                limit: Some(2 << 20),
                disk_bytes: 4 << 20,
                disk_free: 3 << 20,
                full: false,
                in_use: false,
            },
            pending: 0,
            oldest_seconds: 0.0,
            bandwidth: Some(1 << 20),
            totals: BTreeMap::from([("errors".into(), 3), ("fetched_bytes".into(), 2048)]),
            open: vec![Open {
                name: "a\u{1b}b".into(),
                object_id: 1,
                size: 4096,
                present: 2048,
                map: vec![100, 60, 20, 0],
                fetched: 2048,
                server: "h:80".into(),
                version: None,
                waiting: 1,
                oldest_seconds: 1.25,
                prefetching: true,
                background: Background::Waiting("why".into()),
                last_error: Some("broken".into()),
            }],
            cached: vec![Cached {
                place: "Id/Dold".into(),
                bytes: 4096,
                used: 0,
            }],
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_status_is_readable() {
        let text = describe(&healthy(), true);
        for want in [
            "cache: 1.0 MiB of 2.0 MiB in /c; 3.0 MiB of 4.0 MiB free on its disk\n",
            "requests: 0 wait, errors 3, fetched 2.0 KiB, 1.0 MiB per second at most\n",
            "a\\u{1b}b: 2.0 KiB of 4.0 KiB (50 %), 2.0 KiB fetched from h:80\n  [#+-.]\n",
            "  1 readers wait, the oldest one for 1.2 s\n",
            "  is being prefetched\n  the rest is to be fetched, which waits: why\n  last error: broken\n",
            "  Id/Dold: 4.0 KiB, used ",
        ] {
            assert!(text.contains(want), "{want} is not in\n{text}");
        }
        assert!(describe(&healthy(), false).contains("1 more files in the cache"));
    }

    #[test]
    fn monitoring_gets_the_worst_status() {
        let judge = |change: fn(&mut Status)| {
            let mut status = healthy();
            change(&mut status);
            judge(&status, 30.0, 120.0)
        };
        assert_eq!(judge(|_| ()), (0, vec![]));
        assert_eq!(judge(|s| s.oldest_seconds = 31.0).0, WARNING);
        assert_eq!(judge(|s| s.cache.in_use = true).0, WARNING);
        assert_eq!(judge(|s| s.cache.full = true).0, CRITICAL);
        let (code, reasons) = judge(|s| {
            s.oldest_seconds = 121.0;
            s.cache.in_use = true;
        });
        assert_eq!((code, reasons.len()), (CRITICAL, 2));
        assert!(reasons[0].contains("waited for 121 s"), "{reasons:?}");
    }
}
