// SPDX-License-Identifier: GPL-2.0

//! What a daemon may write to `/dev/cachefiles`: `<command>[<space><arguments>]`.
//!
//! Parsing has no side effects; acting on the parsed command is `daemon.rs`'s part.

use super::{
    errno::{
        Errno,
        Result, //
    },
    BLOCK_SIZE, //
};
use core::ops::Range;

/// The version of an object has at most this many bytes.
pub(crate) const VERSION_MAX: usize = 128;

/// Which limit a `brun`, `bcull`, ... command sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Brun,
    Bcull,
    Bstop,
    Frun,
    Fcull,
    Fstop,
}

/// A command line, split and recognised. Arguments are checked by the function that needs them,
/// because C reports some states ("already bound") before a bad argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Bind(&'a [u8]),
    Limit(Limit, &'a [u8]),
    Dir(&'a [u8]),
    Tag(&'a [u8]),
    Secctx(&'a [u8]),
    Debug(&'a [u8]),
    Cull(&'a [u8]),
    Inuse(&'a [u8]),
    Copen(&'a [u8]),
    Restore,
}

fn is_space(byte: u8) -> bool {
    // isspace() of the kernel: also the vertical tab and the Latin-1 no-break space.
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

impl<'a> Command<'a> {
    /// Parses one write.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an embedded NUL or a leading newline, `EOPNOTSUPP` for anything unknown.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self> {
        if line.contains(&0) {
            return Err(Errno::EINVAL);
        }
        // Only the first line counts.
        let line = match line.iter().position(|b| *b == b'\n') {
            Some(0) => return Err(Errno::EINVAL),
            Some(end) => line.get(..end).unwrap_or_default(),
            None => line,
        };

        let (name, args) = match line.iter().position(|b| is_space(*b)) {
            Some(0) => return Err(Errno::EOPNOTSUPP),
            Some(end) => {
                let (name, rest) = line.split_at(end);
                let skip = rest.iter().take_while(|b| is_space(**b)).count();
                (name, rest.get(skip..).unwrap_or_default())
            }
            None => (line, &[][..]),
        };

        Ok(match name {
            b"bind" => Command::Bind(args),
            b"brun" => Command::Limit(Limit::Brun, args),
            b"bcull" => Command::Limit(Limit::Bcull, args),
            b"bstop" => Command::Limit(Limit::Bstop, args),
            b"frun" => Command::Limit(Limit::Frun, args),
            b"fcull" => Command::Limit(Limit::Fcull, args),
            b"fstop" => Command::Limit(Limit::Fstop, args),
            b"dir" => Command::Dir(args),
            b"tag" => Command::Tag(args),
            b"secctx" => Command::Secctx(args),
            b"debug" => Command::Debug(args),
            b"cull" => Command::Cull(args),
            b"inuse" => Command::Inuse(args),
            b"copen" => Command::Copen(args),
            b"restore" => Command::Restore,
            _ => return Err(Errno::EOPNOTSUPP),
        })
    }
}

/// The number at the start of `text` in the base its prefix tells (`0x`, `0`, or none), and what
/// follows it. `None` if there is no digit.
fn digits(text: &[u8]) -> Option<(Result<u64>, &[u8])> {
    let (base, rest) = match text {
        [b'0', b'x' | b'X', rest @ ..] if rest.first().is_some_and(|b| b.is_ascii_hexdigit()) => {
            (16, rest)
        }
        [b'0', ..] => (8, text),
        _ => (10, text),
    };
    let len = rest
        .iter()
        .take_while(|b| char::from(**b).is_digit(base))
        .count();
    let (number, tail) = rest.split_at(len);
    if number.is_empty() {
        return None;
    }
    let value = number.iter().try_fold(0u64, |value, byte| {
        let digit = char::from(*byte).to_digit(base).ok_or(Errno::EINVAL)?;
        value
            .checked_mul(u64::from(base))
            .and_then(|v| v.checked_add(u64::from(digit)))
            .ok_or(Errno::ERANGE)
    });
    Some((value, tail))
}

/// `kstrtoul(text, 0, ..)`.
///
/// # Errors
///
/// `EINVAL` if it is not a number, `ERANGE` if it does not fit.
pub(crate) fn parse_unsigned(text: &[u8]) -> Result<u64> {
    let text = text.strip_prefix(b"+").unwrap_or(text);
    match digits(text) {
        // That it does not fit is noticed before what follows it.
        Some((Err(e), _)) => Err(e),
        Some((value, [] | [b'\n'])) => value,
        _ => Err(Errno::EINVAL),
    }
}

/// `kstrtol(text, 0, ..)`.
///
/// # Errors
///
/// `EINVAL` if it is not a number, `ERANGE` if it does not fit.
pub(crate) fn parse_signed(text: &[u8]) -> Result<i64> {
    match text.strip_prefix(b"-") {
        Some(rest) if rest.first().is_some_and(|b| b.is_ascii_digit()) => {
            0i64.checked_sub_unsigned(parse_unsigned(rest)?)
        }
        Some(_) => return Err(Errno::EINVAL),
        None => i64::try_from(parse_unsigned(text)?).ok(),
    }
    .ok_or(Errno::ERANGE)
}

/// The argument of a limit command: a decimal number followed by `%`.
///
/// # Errors
///
/// `EINVAL` for anything else, including numbers that C would let wrap around.
pub(crate) fn parse_percent(text: &[u8]) -> Result<u32> {
    let (b'%', number) = text.split_last().ok_or(Errno::EINVAL)? else {
        return Err(Errno::EINVAL);
    };
    parse_decimal(number)
}

/// Decimal digits. None at all are 0, as to `simple_strtoul()`; whether 0 is in order is decided
/// later.
fn parse_decimal(digits: &[u8]) -> Result<u32> {
    digits.iter().try_fold(0u32, |value, byte| {
        let digit = char::from(*byte).to_digit(10).ok_or(Errno::EINVAL)?;
        value
            .checked_mul(10)
            .and_then(|v| v.checked_add(digit))
            .ok_or(Errno::EINVAL)
    })
}

/// The argument of `debug`: a mask, nothing counting as 0.
///
/// # Errors
///
/// `EINVAL` if there is anything but a number that fits 32 bits.
pub(crate) fn parse_mask(text: &[u8]) -> Result<u32> {
    match digits(text) {
        None if text.is_empty() => Ok(0),
        Some((Ok(mask), [])) => u32::try_from(mask).map_err(|_| Errno::EINVAL),
        _ => Err(Errno::EINVAL),
    }
}

/// What a cache is bound as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindMode {
    /// For network file systems.
    Classic,
    Ondemand(Options),
}

/// What a daemon may ask for when it binds an on-demand cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// How long a request may go without an answer, in milliseconds.
    pub(crate) timeout: Option<u64>,
    /// Whether one `read()` delivers as many messages as fit.
    pub(crate) batch: bool,
    /// Whether `read()` sleeps while there is no message.
    pub(crate) wait: bool,
    /// Whether what is written down of an object is on the disk when it is.
    pub(crate) durable: bool,
    /// No READ crosses a multiple of so many blocks.
    pub(crate) max_read: Option<u64>,
    /// READs are extended to end at a multiple of this many blocks, and a reader whose blocks
    /// another READ already asks for waits for that READ.
    pub(crate) granule: Option<u64>,
}

impl Options {
    /// Parses one option and takes it over. `None` if there is no such option, or it was given
    /// before.
    fn set(&mut self, word: &[u8]) -> Option<Result<()>> {
        let switch = match word {
            b"batch" => Some(&mut self.batch),
            b"wait" => Some(&mut self.wait),
            b"durable" => Some(&mut self.durable),
            _ => None,
        };
        if let Some(switch) = switch {
            return (!core::mem::replace(switch, true)).then_some(Ok(()));
        }
        if let Some(seconds) = word.strip_prefix(b"timeout=") {
            let parsed = parse_timeout(seconds).map(|timeout| self.timeout.replace(timeout));
            return refuse_second(parsed);
        }
        if let Some(bytes) = word.strip_prefix(b"granule=") {
            return refuse_second(parse_blocks(bytes).map(|blocks| self.granule.replace(blocks)));
        }
        let bytes = word.strip_prefix(b"max-read=")?;
        refuse_second(parse_blocks(bytes).map(|blocks| self.max_read.replace(blocks)))
    }

    /// Where a READ that has to reach the block `end` may end: at the next multiple of the granule,
    /// but not behind the last of the object's `blocks` blocks.
    pub(crate) fn widen(&self, end: u64, blocks: u64) -> u64 {
        match self.granule {
            // Not 0, see `parse_blocks()`.
            Some(granule) => end.div_ceil(granule).saturating_mul(granule).min(blocks),
            None => end,
        }
    }

    /// Cuts a run of blocks, which is not empty, to what one READ may ask for.
    pub(crate) fn cut(&self, run: Range<u64>) -> Range<u64> {
        match self.max_read {
            // Not 0, see `parse_blocks()`.
            Some(max) => run.start..run.end.min((run.start / max + 1) * max),
            None => run,
        }
    }
}

/// What became of setting an option whose former value is known: `None` if there was one.
fn refuse_second<T>(set: Result<Option<T>>) -> Option<Result<()>> {
    match set {
        Ok(Some(_)) => None,
        Ok(None) => Some(Ok(())),
        Err(e) => Some(Err(e)),
    }
}

impl BindMode {
    /// Parses the arguments of `bind`: nothing, or `ondemand` and options, each after blanks and
    /// none of them twice.
    ///
    /// # Errors
    ///
    /// `EINVAL` for anything else.
    pub(crate) fn parse(args: &[u8]) -> Result<Self> {
        if args.is_empty() {
            return Ok(BindMode::Classic);
        }
        let mut options = Options::default();
        let mut rest = args.strip_prefix(b"ondemand").ok_or(Errno::EINVAL)?;
        while !rest.is_empty() {
            let blanks = rest.iter().take_while(|b| is_space(**b)).count();
            let word = rest.get(blanks..).unwrap_or_default();
            let len = word.iter().take_while(|b| !is_space(**b)).count();
            let (word, tail) = word.split_at(len);
            if blanks == 0 {
                return Err(Errno::EINVAL);
            }
            options.set(word).ok_or(Errno::EINVAL)??;
            rest = tail;
        }
        Ok(BindMode::Ondemand(options))
    }
}

/// A time limit: seconds, in decimal, at most a day. Returns milliseconds.
fn parse_timeout(text: &[u8]) -> Result<u64> {
    const DAY: u32 = 24 * 60 * 60;
    match parse_decimal(text)? {
        seconds @ 1..=DAY => Ok(u64::from(seconds) * 1000),
        _ => Err(Errno::EINVAL),
    }
}

/// What is before the first comma, and what follows it, if there is one.
fn split_at_comma(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|b| *b == b',') {
        Some(at) => {
            let (before, rest) = text.split_at(at);
            (before, rest.get(1..))
        }
        None => (text, None),
    }
}

/// How much a READ asks for: bytes, in decimal, a multiple of the size of a block, at most 1 GiB.
/// Returns blocks.
fn parse_blocks(text: &[u8]) -> Result<u64> {
    const GIB: u64 = 1 << 30;
    match parse_decimal(text)?.into() {
        bytes @ BLOCK_SIZE..=GIB if bytes % BLOCK_SIZE == 0 => Ok(bytes / BLOCK_SIZE),
        _ => Err(Errno::EINVAL),
    }
}

/// A daemon's answer to an OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The size of the object, in bytes.
    Size(u64),
    /// The daemon cannot serve this object.
    Failed(Errno),
}

/// `copen <msg_id>,<size>[,<version>]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copen<'a> {
    pub(crate) msg_id: u32,
    /// What the daemon said, or the error that both it and the opener get for having said
    /// something else.
    pub(crate) reply: Result<Reply>,
    /// Which version of the object the daemon serves, if it says so: 1 to [`VERSION_MAX`] bytes.
    pub(crate) version: Option<&'a [u8]>,
}

impl<'a> Copen<'a> {
    /// Parses the arguments of `copen`.
    ///
    /// A bad size or version is part of the result rather than an error: the OPEN it answers is
    /// known, and fails.
    ///
    /// # Errors
    ///
    /// `EINVAL` or `ERANGE` if it cannot be told which OPEN is meant; no request is touched then.
    pub(crate) fn parse(args: &'a [u8]) -> Result<Self> {
        let (id, answer) = split_at_comma(args);
        let answer = answer.ok_or(Errno::EINVAL)?;
        let id = parse_unsigned(id)?;
        let (size, version) = split_at_comma(answer);
        let reply = parse_signed(size).and_then(Self::reply);
        Ok(Copen {
            // A number that cannot be a message id names no request: EINVAL, as in C.
            msg_id: u32::try_from(id).map_err(|_| Errno::EINVAL)?,
            reply: match (reply, version) {
                (Ok(Reply::Size(_)), Some(v)) if !(1..=VERSION_MAX).contains(&v.len()) => {
                    Err(Errno::EINVAL)
                }
                // What cannot be served has no version.
                (Ok(Reply::Failed(_)), Some(_)) => Err(Errno::EINVAL),
                (reply, _) => reply,
            },
            version,
        })
    }

    fn reply(size: i64) -> Result<Reply> {
        match u64::try_from(size) {
            Ok(size) => Ok(Reply::Size(size)),
            Err(_) => match i32::try_from(size.unsigned_abs()) {
                Ok(errno @ 1..=Errno::MAX) => Ok(Reply::Failed(Errno(errno))),
                _ => Err(Errno::EINVAL),
            },
        }
    }
}
