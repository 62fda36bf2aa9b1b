// SPDX-License-Identifier: GPL-2.0-or-later

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PathBufValueParser, ValueParser};
use clap::{value_parser, Arg, ArgAction, ArgGroup, ArgMatches, Command};

use crate::device::{self, Triple};
use crate::guard::Limits;
use crate::schedule::Room;
use crate::worker;

const ABOUT: &str = "Serve blobs to CacheFiles on demand";

const LONG_ABOUT: &str = "\
Serve blobs to CacheFiles on demand.

Binds a directory as an fscache cache in on-demand mode and answers what the kernel asks for through \
/dev/cachefiles: which blob a cookie means and how large it is (OPEN), its missing ranges (READ), and \
that it is no longer used (CLOSE). Blobs are the files of a directory, of a web server that serves \
ranges, or of registries; only what is read is fetched, once.

A cookie key is the name of a blob. A key that is not a plain UTF-8 file name is answered with \
\"no such file\". With --by-domain, the volume key \"erofs,DOMAIN\" also names a subdirectory.";

const AFTER_HELP: &str = "\
Restarting: the cache and everything that is mounted from it live as long as the device is open. With \
--supervise a small parent process keeps it open and starts the daemon again if it dies; with \
--fd-store systemd does (Type=notify, FileDescriptorStoreMax=1, perhaps WatchdogSec=60). A daemon that \
takes no messages for --watchdog seconds although there are some, or is stopped, counts as dead; it is \
not the watchdog's business how long a server takes. Readers wait for the new daemon. \
Without either, readers get EIO for what is not in the cache once the daemon is gone, never zeros.

Slowness: --threads ranges are fetched at once, no more than --per-server of them from one server, and \
as many names are looked up at once for OPENs. Blobs take turns. One range of a blob may always use \
what room there is; more of them at once share nearly half of it with those of other blobs. So a slow \
blob leaves room for others, and messages are taken from the kernel all the while. A range is a \
granule, or up to 1 MiB if more is wanted. Fetching it fails if the server says nothing for --timeout \
or sends less than --min-speed, --retries times more; and in any case --max-time after it began. It \
ends at once when the kernel has no use for the blob any more. Prefetching (--prefetch) takes room that \
nobody needs, if there is any (2 threads at least), waits 2 s for a server, does not try again, and \
fails no read.

Messages go to standard error. If that is the journal of systemd, they have a priority and fields there \
(BLOB, ERRNO, OFFSET, LENGTH), and do not pass through a pipe that may be full.

Background: with --background, the rest of a blob is fetched from when it is opened until all of it is in \
the cache, so that its readers do not need the server any more; \"ondemandctl background NAME\" does that \
for one. It goes on only while its server does nothing else for anybody, not while a start is recorded, and \
not if something would have to be removed from the cache for it; after a failure it tries again, 5 s later \
at first and 5 min at last. --bandwidth holds for it, for --prefetch and for what traces say, all together, \
over some seconds; it counts what comes over the network.

Traces: with --trace-dir, what is read of a blob in the first --trace-time seconds is kept in DIR/NAME.trace, \
in that order, if nothing of it was cached and there is no trace for this version of the blob. Whenever a \
blob with a trace is opened, what the trace says is prefetched, here or on a machine that it was copied to. \"ondemandctl trace NAME\" ends the recording early.

Control: with --control-socket, ondemandctl shows what is open, what of it is in the cache and who waits for \
it, adds and removes names of --sources, prefetches, culls and compares what is cached with its digests. The \
socket is for the user of the daemon only. Names that were added are kept in FILE.added.json, beside the table.

Failures: a range that cannot be fetched is not written, and the reader gets EIO; the next read tries \
again. With --request-timeout, the kernel fails requests that are not answered in time, those that wait \
for a restart included: open(2) with ETIMEDOUT, reads with EIO. What is fetched later is kept.

Versions: a blob may change under its name, but bytes of two versions are never mixed. What tells \
versions apart is taken at OPEN, given to the kernel, which keeps it with the cached file, and compared \
with every fetch: for blobs with a chunk index its digest; for --http the ETag, or Last-Modified and the size, or a digest as the name \
(sha256:HEX, or 64 hexadecimal digits); for --dir-source the inode, the size and the times of \
modification and change. If it differs, readers of an open blob get EIO, and the next OPEN starts with an \
empty file. A source or a kernel (older cachefiles, and those in C) that offers nothing of the kind is \
refused, unless --accept-unversioned is given. Then a blob that is replaced by another one of the same \
size is read as a mixture of both, without an error, until its cached file is deleted: use it only where \
a name never gets other bytes.

Sources (--sources): a TOML file with a table for each name. It is read again on SIGHUP; if it is wrong \
then, the old one stays. Blobs that are open go on as they are.
  [blob.\"NAME\"]               what is at NAME, from one of
  registry = \"HOST/REPOSITORY@sha256:DIGEST\"
  http = \"URL\"
  file = \"PATH\"
  index = \"sha256:DIGEST\"     of its chunk index: in the same repository, or beside it
  unverified = true           believe whoever sends it, instead
  [image.\"NAME\"]              the EROFS layers of an image, as sha256:DIGEST, and a single one as NAME
  reference = \"HOST/REPOSITORY@sha256:DIGEST\" or \"HOST/REPOSITORY:TAG\"
  [registry.\"HOST\"]
  plain-http = true
With --by-domain, names are \"DOMAIN/NAME\". Registries want nothing, a password or a token, which is kept \
until it expires; credentials and their helpers are those of docker: config.json in $DOCKER_CONFIG, else in \
~/.docker. Mirrors are asked in the order of hosts.toml, the registry last; each has credentials of its own. \
No password or token is sent to any other host than the one that it is for. The URL in object storage that \
a registry leads to is used until it expires.

Verification: with a chunk index (the format of the EROFS image specification), nothing is written to the \
cache that does not have its SHA-256. Wrong bytes are counted and said with their URL, and another mirror \
is asked; if there is none, readers get EIO. The digest of the index comes from the manifest or the table, \
so no registry, mirror or proxy has to be trusted. Chunks may be compressed (application/vnd.erofs+zstd). An index beside a file, without a digest in a table, \
finds out about what happens to the bytes on their way. \"ondemandctl index FILE\" makes one.

A server that is down: after 5 failures in a row only one request at a time tries whether it is back, at \
most every 5 s, and the others wait for that or use a mirror; all retries together are at most 64 at once \
and 8 in a second, for each server.

A request that fails in a way that may pass (no connection, silence, status 408, 425, 429 or 5xx) is sent \
again, --retries times at most and, but for the second try, only until --retry-time is over: by default a \
server may be away for 25 s before readers get EIO. Retry-After is obeyed if it is not longer than that. \
What will not pass, a wrong certificate for one, is final at once.

Signals: SIGTERM and SIGINT end the daemon with status 0; SIGUSR1 prints the totals and writes them to \
the log; SIGHUP opens the log again, for whoever renames it, and reads the table of --sources again. Each may be sent to \
the supervisor or to the daemon. Status 2 means that an option is wrong, 1 that the daemon cannot start or \
that its cache is dead. Log and statistics are not worth a service: if they cannot be written, that is \
said, and they are tried again.

Environment: http_proxy for http:// URLs, https_proxy for https:// URLs (with CONNECT), all_proxy for \
both, and no_proxy for hosts to reach without (domains, addresses, networks, *); in lower or upper case. \
Proxies are spoken to with http://. SSL_CERT_FILE: the certificate authorities instead of the system's, \
unless --ca-file is given. A user and password may stand in the URLs of the server and of the proxy; they \
are shown nowhere. On the command line they would be visible to everybody for a moment: use --http @FILE.

The log (--log) has a JSON object per line: \"ms\" (CLOCK_MONOTONIC), and for a message \"opcode\", \
\"msg_id\", \"object_id\", \"key\", \"off\" and \"len\" (READ), \"result\" (OPEN: size; READ: bytes written; \
or a negative errno), \"us\" (time taken), \"error\"; or an \"event\" (start, restore, totals, stop). \
Totals, there and in --stats-file and --metrics-file, are those of the process, so they begin again after \
a restart. Metrics are written every second: requests by kind and outcome and how long they took, those \
that wait and for how long the oldest one has, bytes and time of fetches and failures by server, and what \
was not the bytes that it should have been.

Culling: when the cache has come near --cache-size, or less than --bcull or --fcull of its file system \
is free, files are removed from it, those first that were not used for longest, until an eighth of \
--cache-size is not used and --brun and --frun are free. What is in use is never removed: a file is until \
10 s after it was used last, or until ondemandfs is unmounted. If all of it is in use, --cache-size is not \
kept, which is said; but below --bstop and --fstop nothing is written. Readers then wait for room, for \
20 s, and get EIO if there is none.

Examples:
  ondemandd --cache-dir /var/cache/fscache --dir-source /srv/images
  ondemandd --supervise --cache-dir /var/cache/fscache --http https://images.example.org/v1
  ondemandd --fd-store --cache-dir /var/cache/fscache --sources /etc/ondemand/sources.toml";

/// What the user wants.
pub struct DaemonArgs {
    pub device: PathBuf,
    pub cache_dir: PathBuf,
    pub tag: Option<String>,
    pub limits: device::Limits,
    pub request_timeout: Option<u32>,
    pub source: SourceArgs,
    pub web: WebArgs,
    /// Check each blob with the chunk index beside it.
    pub verify: bool,
    /// Serve blobs although the source or the kernel cannot tell their versions apart.
    pub accept_unversioned: bool,
    pub options: worker::Options,
    pub log: Option<PathBuf>,
    pub stats_file: Option<PathBuf>,
    pub metrics_file: Option<PathBuf>,
    pub control_socket: Option<PathBuf>,
    pub trace_dir: Option<PathBuf>,
    pub quiet: bool,
    pub restart: Restart,
    /// For how many seconds a supervised daemon may hang, if that is looked at.
    pub watchdog: Option<u32>,
}

pub enum SourceArgs {
    Dir(PathBuf),
    Http(HttpArgs),
    Table { path: PathBuf, hosts_dir: PathBuf },
}

pub struct HttpArgs {
    /// A URL, or where it is.
    pub url: String,
    pub header_file: Option<PathBuf>,
}

/// How web servers and registries are used.
pub struct WebArgs {
    pub ca_file: Option<PathBuf>,
    pub retries: u32,
    pub retry_time: Duration,
    pub timeout: Duration,
}

/// Who keeps the device open while the daemon is restarted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    Nobody,
    Supervisor,
    ServiceManager,
}

pub(crate) fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

pub(crate) fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .action(ArgAction::SetTrue)
}

fn path(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    option(name, value, help).value_parser(PathBufValueParser::new())
}

fn percent(name: &'static str, help: &'static str) -> Arg {
    option(name, "PERCENT", help)
        .value_parser(|text: &str| {
            let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>();
            number
                .ok()
                .filter(|&percent| percent < 100)
                .ok_or("a percentage is a number from 0 to 99")
        })
        .help_heading("Limits of the cache")
}

/// A word of a command to the kernel: one line.
fn word() -> ValueParser {
    ValueParser::new(|text: &str| {
        if text.is_empty() || text.contains(['\n', '\0']) {
            return Err("must be one line of text");
        }
        Ok(text.to_string())
    })
}

pub fn command() -> Command {
    Command::new("ondemandd")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_long_help(AFTER_HELP)
        .arg(
            path(
                "cache-dir",
                "DIR",
                "Where the cache is kept; made if missing (ext4, xfs or btrfs)",
            )
            .required(true),
        )
        .arg(path(
            "dir-source",
            "PATH",
            "Serve the files of this directory",
        ))
        .arg(
            option(
                "http",
                "URL",
                "Serve the files below this URL, by range requests; @FILE: the URL is the first line of \
                 FILE, env:NAME: it is in this environment variable",
            )
            .value_parser(NonEmptyStringValueParser::new()),
        )
        .arg(path(
            "sources",
            "FILE",
            "Serve the names in this table, from registries, web servers and files: see \"Sources\" below",
        ))
        .group(
            ArgGroup::new("source")
                .args(["dir-source", "http", "sources"])
                .required(true),
        )
        .arg(
            flag(
                "verify",
                "Check each chunk of a blob with the index beside it, BLOB.chunk-index: see \
                 \"Verification\" below",
            )
            .conflicts_with("sources"),
        )
        .arg(
            path(
                "hosts-dir",
                "DIR",
                "Where REGISTRY/hosts.toml is, with mirrors and authorities, as containerd has it",
            )
            .default_value("/etc/containerd/certs.d"),
        )
        .arg(flag(
            "by-domain",
            "Blobs are in a subdirectory named by the volume key, \"erofs,DOMAIN\"",
        ))
        .arg(path(
            "header-file",
            "FILE",
            "Send the lines of FILE, \"Name: value\", with each request to the server of --http \
             (\"Authorization: Bearer ...\")",
        ))
        .arg(path(
            "ca-file",
            "FILE",
            "Believe the certificate authorities in FILE (PEM) instead of the system's",
        ))
        .arg(flag(
            "accept-unversioned",
            "Serve blobs whose versions cannot be told apart: see \"Versions\" below",
        ))
        .arg(
            option(
                "tag",
                "NAME",
                "Name of the cache in fscache, for the mount option \"cache=\" [kernel: CacheFiles]",
            )
            .value_parser(word()),
        )
        .arg(
            option(
                "request-timeout",
                "SECONDS",
                "Have the kernel fail what this daemon has not answered after so long [kernel: never]",
            )
            .value_parser(value_parser!(u32).range(1..=86400)),
        )
        .arg(path("device", "PATH", "The cache device").default_value("/dev/cachefiles"))
        .arg(
            option("threads", "N", "How many ranges are fetched at once, in all")
                .value_parser(value_parser!(u16).range(1..=1024))
                .default_value("128"),
        )
        .arg(
            option(
                "per-server",
                "N",
                "How many ranges are fetched at once from one server",
            )
            .value_parser(value_parser!(u16).range(1..=1024))
            .default_value("64"),
        )
        .arg(
            option(
                "granule",
                "SIZE",
                "Fetch in units of this size, a power of two (K, M)",
            )
            .value_parser(parse_granule)
            .default_value("256K"),
        )
        .arg(
            option(
                "prefetch",
                "SIZE",
                "Read ahead of sequential readers by this much",
            )
            .value_parser(parse_size)
            .default_value("0"),
        )
        .arg(flag(
            "background",
            "Fetch the rest of each blob that is open, when nothing else is to be fetched: see \
             \"Background\" below",
        ))
        .arg(
            option(
                "bandwidth",
                "SIZE",
                "Fetch no more than so many bytes per second of what nobody waits for (K, M, G)",
            )
            .value_parser(parse_bandwidth),
        )
        .arg(
            flag(
                "limit-reads",
                "Have --bandwidth hold for what readers wait for as well, all together",
            )
            .requires("bandwidth"),
        )
        .arg(path(
            "trace-dir",
            "DIR",
            "Keep in DIR what is read of each blob at its start, and prefetch that at the next one",
        ))
        .arg(
            option(
                "trace-time",
                "SECONDS",
                "For how long that is recorded from when a blob is opened",
            )
            .value_parser(value_parser!(u16).range(1..))
            .default_value("60"),
        )
        .arg(
            option(
                "retries",
                "N",
                "How often a failed HTTP request is sent again: after 0.1 s, 0.2 s, and so on up to 5 s, \
                 or as long as the server says with Retry-After",
            )
            .value_parser(value_parser!(u32))
            .default_value("10"),
        )
        .arg(
            option(
                "retry-time",
                "SECONDS",
                "How long after the first failure no other try begins, but for the second one",
            )
            .value_parser(value_parser!(u16).range(1..))
            .default_value("30"),
        )
        .arg(
            option(
                "timeout",
                "SECONDS",
                "How long a silent web server is waited for",
            )
            .value_parser(value_parser!(u16).range(1..))
            .default_value("30"),
        )
        .arg(
            option(
                "min-speed",
                "SIZE",
                "Give up a range that comes with fewer bytes per second than this, over --timeout",
            )
            .value_parser(parse_size)
            .default_value("1K"),
        )
        .arg(
            option(
                "max-time",
                "SECONDS",
                "Give up an OPEN or a range after so long, whatever the server does, all tries included",
            )
            .value_parser(value_parser!(u16).range(1..))
            .default_value("300"),
        )
        .arg(path(
            "log",
            "FILE",
            "Append a JSON line for every message to this file",
        ))
        .arg(path(
            "stats-file",
            "FILE",
            "Keep the current totals in this file, as one JSON object",
        ))
        .arg(path(
            "metrics-file",
            "FILE",
            "Keep the metrics in this file, as OpenMetrics text, for a collector of files (node_exporter)",
        ))
        .arg(path(
            "control-socket",
            "PATH",
            "Answer ondemandctl on this socket, which looks for it at /run/ondemandd/control.sock",
        ))
        .arg(flag("quiet", "Print no progress").short('q'))
        .arg(flag(
            "supervise",
            "Keep the device open and restart the daemon if it dies",
        ))
        .arg(
            option(
                "watchdog",
                "SECONDS",
                "With --supervise, kill and restart a daemon that gets nowhere for so long; 0: never",
            )
            .value_parser(value_parser!(u32).range(..=86400))
            .default_value("60"),
        )
        .arg(
            flag(
                "fd-store",
                "Let the service manager (systemd) keep the device over restarts",
            )
            .conflicts_with("supervise"),
        )
        .arg(
            option(
                "cache-size",
                "SIZE",
                "Cull what was not used for longest before the cache has more bytes than this (M, G, T)",
            )
            .value_parser(parse_cache_size)
            .help_heading("Limits of the cache"),
        )
        .arg(percent(
            "brun",
            "Stop culling above this part of free blocks [kernel: 7]",
        ))
        .arg(percent(
            "bcull",
            "Start culling below this part of free blocks [kernel: 5]",
        ))
        .arg(percent(
            "bstop",
            "Stop writing below this part of free blocks [kernel: 1]",
        ))
        .arg(percent("frun", "Like --brun, of free files"))
        .arg(percent("fcull", "Like --bcull, of free files"))
        .arg(percent("fstop", "Like --bstop, of free files"))
}

/// Parses the command line; exits with a message if it is wrong.
pub fn parse() -> DaemonArgs {
    daemon_args(&command().get_matches())
}

fn daemon_args(matches: &ArgMatches) -> DaemonArgs {
    let required = "clap sees to it";
    let seconds = |name: &str| {
        let seconds: u16 = *matches.get_one(name).expect(required);
        Duration::from_secs(u64::from(seconds))
    };
    let limit = |name: &str| matches.get_one::<u8>(name).copied();
    let request_timeout = matches.get_one::<u32>("request-timeout").copied();
    let source = match matches.get_one::<PathBuf>("dir-source") {
        Some(dir) => SourceArgs::Dir(dir.clone()),
        None => match matches.get_one::<PathBuf>("sources") {
            Some(path) => SourceArgs::Table {
                path: path.clone(),
                hosts_dir: matches.get_one("hosts-dir").cloned().expect(required),
            },
            None => SourceArgs::Http(HttpArgs {
                url: matches.get_one("http").cloned().expect(required),
                header_file: matches.get_one("header-file").cloned(),
            }),
        },
    };
    let web = WebArgs {
        ca_file: matches.get_one("ca-file").cloned(),
        retries: *matches.get_one("retries").expect(required),
        retry_time: seconds("retry-time"),
        timeout: seconds("timeout"),
    };
    let cull = device::Limits {
        blocks: Triple {
            run: limit("brun"),
            cull: limit("bcull"),
            stop: limit("bstop"),
        },
        files: Triple {
            run: limit("frun"),
            cull: limit("fcull"),
            stop: limit("fstop"),
        },
    };
    DaemonArgs {
        device: matches.get_one("device").cloned().expect(required),
        cache_dir: matches.get_one("cache-dir").cloned().expect(required),
        tag: matches.get_one("tag").cloned(),
        limits: cull,
        request_timeout,
        source,
        web,
        verify: matches.get_flag("verify"),
        accept_unversioned: matches.get_flag("accept-unversioned"),
        options: worker::Options {
            room: Room {
                all: usize::from(*matches.get_one::<u16>("threads").expect(required)),
                per_server: usize::from(*matches.get_one::<u16>("per-server").expect(required)),
            },
            granule: *matches.get_one("granule").expect(required),
            prefetch: *matches.get_one("prefetch").expect(required),
            background: matches.get_flag("background"),
            bandwidth: matches.get_one("bandwidth").copied(),
            limit_reads: matches.get_flag("limit-reads"),
            by_domain: matches.get_flag("by-domain"),
            limits: Limits {
                max_time: seconds("max-time"),
                min_speed: *matches.get_one("min-speed").expect(required),
                window: seconds("timeout"),
                silence: None,
                retry: true,
            },
            request_timeout: request_timeout.map(|seconds| Duration::from_secs(seconds.into())),
            cull,
            cache_size: matches.get_one("cache-size").copied(),
            trace_time: seconds("trace-time"),
        },
        log: matches.get_one("log").cloned(),
        stats_file: matches.get_one("stats-file").cloned(),
        metrics_file: matches.get_one("metrics-file").cloned(),
        control_socket: matches.get_one("control-socket").cloned(),
        trace_dir: matches.get_one("trace-dir").cloned(),
        quiet: matches.get_flag("quiet"),
        restart: if matches.get_flag("supervise") {
            Restart::Supervisor
        } else if matches.get_flag("fd-store") {
            Restart::ServiceManager
        } else {
            Restart::Nobody
        },
        watchdog: Some(*matches.get_one::<u32>("watchdog").expect(required)).filter(|n| *n > 0),
    }
}

/// "4096", "256K", "1M", "2G"
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a size is a number, perhaps with K, M, G or T".to_string())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that is too much".into())
}

fn parse_cache_size(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size < 16 << 20 {
        return Err("must be 16M at least".into());
    }
    Ok(size)
}

fn parse_bandwidth(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    if size < 4096 {
        return Err("must be 4K at least".into());
    }
    Ok(size)
}

fn parse_granule(text: &str) -> Result<u64, String> {
    let size = parse_size(text)?;
    let page = rustix::param::page_size() as u64;
    if !size.is_power_of_two() || !(page..=64 << 20).contains(&size) {
        return Err(format!("must be a power of two from {page} to 64M"));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Options;

    fn daemon(args: &[&str]) -> Result<DaemonArgs, clap::Error> {
        let all = [&["ondemandd"], args].concat();
        Ok(daemon_args(&command().try_get_matches_from(all)?))
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_manual_page_and_the_completions_have_all_options() {
        let mut page = Vec::new();
        clap_mangen::Man::new(command()).render(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        let mut words = Vec::new();
        clap_complete::generate(
            clap_complete::Shell::Bash,
            &mut command(),
            "ondemandd",
            &mut words,
        );
        let words = String::from_utf8(words).unwrap();
        for option in command().get_opts().filter_map(|arg| arg.get_long()) {
            let escaped = option.replace('-', "\\-");
            assert!(page.contains(&format!("\\-\\-{escaped}")), "{option}");
            assert!(words.contains(&format!("--{option}")), "{option}");
        }
    }

    #[test]
    fn defaults() {
        let args = daemon(&["--cache-dir", "/c", "--dir-source", "/s"]).unwrap();
        assert_eq!(args.device, PathBuf::from("/dev/cachefiles"));
        assert_eq!(args.options.granule, 256 << 10);
        let Room { all, per_server } = args.options.room;
        assert_eq!((all, per_server, args.options.prefetch), (128, 64, 0));
        let limits = args.options.limits;
        assert_eq!((limits.min_speed, limits.max_time.as_secs()), (1024, 300));
        assert_eq!(limits.window.as_secs(), 30);
        assert!(args.restart == Restart::Nobody && args.tag.is_none());
        assert_eq!(args.request_timeout, None);
        assert!(matches!(args.source, SourceArgs::Dir(dir) if dir == PathBuf::from("/s")));
    }

    #[test]
    fn everything() {
        let args = daemon(&[
            "--cache-dir",
            "/c",
            "--http",
            "http://h/b",
            "--by-domain",
            "--tag",
            "t",
            "--granule",
            "4K",
            "--threads",
            "1",
            "--prefetch",
            "1M",
            "--background",
            "--bandwidth",
            "2M",
            "--limit-reads",
            "--retries",
            "0",
            "--timeout",
            "1",
            "--min-speed",
            "2K",
            "--max-time",
            "7",
            "--per-server",
            "3",
            "--request-timeout",
            "60",
            "--brun",
            "20%",
            "--fstop",
            "0",
            "--supervise",
            "--watchdog",
            "0",
            "-q",
        ])
        .unwrap();
        assert_eq!(args.options.granule, 4096);
        assert!(args.options.background && args.options.limit_reads);
        assert_eq!(args.options.bandwidth, Some(2 << 20));
        assert_eq!(args.request_timeout, Some(60));
        let Options {
            room,
            limits,
            request_timeout,
            ..
        } = args.options;
        assert_eq!(request_timeout, Some(Duration::from_secs(60)));
        assert_eq!((room.all, room.per_server), (1, 3));
        assert_eq!(limits.window, Duration::from_secs(1));
        assert_eq!((limits.min_speed, limits.max_time.as_secs()), (2048, 7));
        assert!(args.options.by_domain && args.restart == Restart::Supervisor && args.quiet);
        assert_eq!(
            (args.limits.blocks.run, args.limits.files.stop),
            (Some(20), Some(0))
        );
        assert!(matches!(args.source, SourceArgs::Http(_)) && args.web.retries == 0);
        assert_eq!(args.watchdog, None);
    }

    #[test]
    fn mistakes_are_refused() {
        let base = ["--cache-dir", "/c", "--dir-source", "/s"];
        for wrong in [
            &["--http", "http://x"][..],
            &["--granule", "5000"],
            &["--granule", "128M"],
            &["--granule", "1K"],
            &["--threads", "0"],
            &["--per-server", "0"],
            &["--max-time", "0"],
            &["--min-speed", "slow"],
            &["--request-timeout", "0"],
            &["--request-timeout", "86401"],
            &["--request-timeout", "1s"],
            &["--brun", "200%"],
            &["--cache-size", "4K"],
            &["--bandwidth", "1K"],
            &["--limit-reads"],
            &["--tag", "a\nb"],
            &["--supervise", "--fd-store"],
        ] {
            assert!(daemon(&[&base, wrong].concat()).is_err(), "{wrong:?}");
        }
        assert!(daemon(&["--dir-source", "/s"]).is_err());
        assert!(daemon(&["--cache-dir", "/c"]).is_err());
        assert!(daemon(&[]).is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
        assert_eq!(parse_size("3T"), Ok(3 << 40));
        for wrong in ["", "K", "-1", "1.5M", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
