// SPDX-License-Identifier: GPL-2.0

//! The grammar of what a daemon writes, and its numbers.

use crate::{
    protocol::{
        command::{
            parse_mask, parse_percent, parse_signed, parse_unsigned, BindMode, Command, Copen,
            Limit, Options, Reply, VERSION_MAX,
        },
        errno::{Errno, Result},
    },
    support::check,
};
use proptest::{
    collection::vec,
    prelude::{any, Just},
    prop_oneof,
    strategy::{BoxedStrategy, Strategy},
};

type Make = for<'a> fn(&'a [u8]) -> Command<'a>;

/// Every command and what it is parsed to.
const COMMANDS: [(&str, Make); 15] = [
    ("bind", |args| Command::Bind(args)),
    ("brun", |args| Command::Limit(Limit::Brun, args)),
    ("bcull", |args| Command::Limit(Limit::Bcull, args)),
    ("bstop", |args| Command::Limit(Limit::Bstop, args)),
    ("frun", |args| Command::Limit(Limit::Frun, args)),
    ("fcull", |args| Command::Limit(Limit::Fcull, args)),
    ("fstop", |args| Command::Limit(Limit::Fstop, args)),
    ("dir", |args| Command::Dir(args)),
    ("tag", |args| Command::Tag(args)),
    ("secctx", |args| Command::Secctx(args)),
    ("debug", |args| Command::Debug(args)),
    ("cull", |args| Command::Cull(args)),
    ("inuse", |args| Command::Inuse(args)),
    ("copen", |args| Command::Copen(args)),
    ("restore", |_| Command::Restore),
];

const SPACES: [u8; 6] = [b'\t', 0x0b, 0x0c, b'\r', b' ', 0xa0];

#[test]
fn every_command_is_known_with_and_without_arguments() {
    for (name, make) in COMMANDS {
        for args in ["", "x", "ondemand", "7%", "0,4096", "a b c", "trailing  "] {
            let line = format!("{name} {args}");
            assert_eq!(Command::parse(line.as_bytes()), Ok(make(args.as_bytes())));
        }
        assert_eq!(Command::parse(name.as_bytes()), Ok(make(b"")));
    }
}

#[test]
fn names_match_exactly() {
    for (name, _) in COMMANDS {
        let (head, tail) = name.split_at(1);
        for wrong in [
            name.to_uppercase(),
            format!("{}{tail}", head.to_uppercase()),
            format!("{name}s"),
            format!("x{name}"),
            format!("{name},"),
            format!("{name}=x"),
            format!("{head}{head}{tail}"),
            name[..name.len() - 1].to_string(),
        ] {
            assert_eq!(
                Command::parse(wrong.as_bytes()),
                Err(Errno::EOPNOTSUPP),
                "{wrong}"
            );
        }
    }
    assert_eq!(Command::parse(b"unbind"), Err(Errno::EOPNOTSUPP));
    assert_eq!(Command::parse(b"cread 1"), Err(Errno::EOPNOTSUPP));
}

#[test]
fn nothing_is_not_a_command() {
    assert_eq!(Command::parse(b""), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_nul_anywhere_is_invalid() {
    for line in [
        &b"\0"[..],
        b"bind\0",
        b"\0bind",
        b"dir /a\0b",
        b"bind\n\0",
        b"\n\0",
        b"nonsense\0",
    ] {
        assert_eq!(Command::parse(line), Err(Errno::EINVAL), "{line:?}");
    }
}

#[test]
fn the_first_newline_ends_the_command() {
    assert_eq!(Command::parse(b"bind\n"), Ok(Command::Bind(b"")));
    assert_eq!(Command::parse(b"dir /a\n/b"), Ok(Command::Dir(b"/a")));
    assert_eq!(Command::parse(b"tag x\ndir /b\n"), Ok(Command::Tag(b"x")));
    assert_eq!(Command::parse(b"dir \n"), Ok(Command::Dir(b"")));
    assert_eq!(Command::parse(b"no\nbind"), Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_newline_at_the_start_is_invalid() {
    assert_eq!(Command::parse(b"\n"), Err(Errno::EINVAL));
    assert_eq!(Command::parse(b"\nbind"), Err(Errno::EINVAL));
}

#[test]
fn white_space_at_the_start_is_not_skipped() {
    for space in SPACES {
        let line = [&[space], &b"bind"[..]].concat();
        assert_eq!(Command::parse(&line), Err(Errno::EOPNOTSUPP), "{space:#x}");
        assert_eq!(Command::parse(&[space]), Err(Errno::EOPNOTSUPP));
    }
}

#[test]
fn white_space_before_arguments_is_skipped_and_after_them_kept() {
    for space in SPACES {
        let line = [&b"tag"[..], &[space; 3], b"a", &[space], b"b", &[space]].concat();
        let args = [&b"a"[..], &[space], b"b", &[space]].concat();
        assert_eq!(Command::parse(&line), Ok(Command::Tag(&args)), "{space:#x}");
        let line = [&b"tag"[..], &[space; 3]].concat();
        assert_eq!(Command::parse(&line), Ok(Command::Tag(b"")), "{space:#x}");
    }
}

#[test]
fn only_isspace_separates() {
    for byte in 1..=255u8 {
        if byte == b'\n' || SPACES.contains(&byte) {
            continue;
        }
        let line = [&b"tag"[..], &[byte], b"x"].concat();
        assert_eq!(Command::parse(&line), Err(Errno::EOPNOTSUPP), "{byte:#x}");
    }
}

/// `cachefiles_daemon_write()`, in another way: what is found, and its arguments.
fn c_parse(line: &[u8]) -> Result<(String, Vec<u8>)> {
    if line.contains(&0) || line.first() == Some(&b'\n') {
        return Err(Errno::EINVAL);
    }
    let line = line.split(|b| *b == b'\n').next().unwrap();
    let space = |b: &u8| SPACES.contains(b);
    let mut parts = line.splitn(2, space);
    let name = parts.next().unwrap();
    let args = parts.next().unwrap_or_default();
    let skip = args.iter().position(|b| !space(b)).unwrap_or(args.len());
    let name = String::from_utf8_lossy(name).into_owned();
    if !COMMANDS.iter().any(|(known, _)| *known == name) {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok((name, args[skip..].to_vec()))
}

fn lines() -> BoxedStrategy<Vec<u8>> {
    let name = (0..COMMANDS.len()).prop_map(|at| COMMANDS[at].0.as_bytes().to_vec());
    let name = prop_oneof![9 => name, 1 => vec(any::<u8>(), 0..8)];
    let space = prop_oneof![
        8 => Just(b' '),
        1 => (0..SPACES.len()).prop_map(|at| SPACES[at]),
        1 => any::<u8>(),
    ];
    let args = prop_oneof![
        vec(any::<u8>(), 0..20),
        "[0-9a-zA-Z%,+ \t\n-]{0,20}".prop_map(String::into_bytes),
    ];
    let lines = (vec(any::<u8>(), 0..3), name, vec(space, 0..4), args);
    let lines = lines.prop_map(|(junk, name, spaces, args)| {
        let junk = if junk.len() == 2 { junk } else { Vec::new() };
        [junk, name, spaces, args].concat()
    });
    prop_oneof![4 => lines, 1 => vec(any::<u8>(), 0..64)].boxed()
}

#[test]
fn any_line_is_parsed_as_c_does() {
    check(5000, lines(), |line| {
        let parsed = Command::parse(&line);
        match c_parse(&line) {
            Err(errno) => assert_eq!(parsed, Err(errno)),
            Ok((name, args)) => {
                let (_, make) = COMMANDS.iter().find(|(n, _)| *n == name).unwrap();
                assert_eq!(parsed, Ok(make(&args)));
            }
        }
    });
}

#[test]
fn no_bytes_make_a_parser_panic() {
    let texts = prop_oneof![
        vec(any::<u8>(), 0..80),
        "[-+]?(0[xX])?[0-9a-fA-F]{0,24}[%,\n]?".prop_map(String::into_bytes),
    ];
    check(5000, texts, |text| {
        let _ = Command::parse(&text);
        let _ = parse_unsigned(&text);
        let _ = parse_signed(&text);
        let _ = parse_percent(&text);
        let _ = BindMode::parse(&text);
        let _ = parse_mask(&text);
        let _ = Copen::parse(&text);
    });
}

/// `kstrtoull(text, 0, ..)`, step by step as in `lib/kstrtox.c`.
fn kstrtoull(text: &[u8]) -> Result<u64> {
    let at = |i: usize| text.get(i).copied().unwrap_or(0);
    kstrtoull_digits(&text[usize::from(at(0) == b'+')..])
}

fn kstrtoull_digits(text: &[u8]) -> Result<u64> {
    let at = |i: usize| text.get(i).copied().unwrap_or(0);
    let (base, mut i) = if at(0) == b'0' {
        if at(1) | 0x20 == b'x' && at(2).is_ascii_hexdigit() {
            (16, 2)
        } else {
            (8, 0)
        }
    } else {
        (10, 0)
    };
    let start = i;
    let (mut value, mut overflow) = (0u128, false);
    while let Some(digit) = (at(i) as char).to_digit(16).filter(|d| *d < base) {
        value = value * u128::from(base) + u128::from(digit);
        overflow |= value > u128::from(u64::MAX);
        value = value.min(1 << 64);
        i += 1;
    }
    // Before the look at what follows, and at whether there were digits.
    if overflow {
        return Err(Errno::ERANGE);
    }
    if i == start {
        return Err(Errno::EINVAL);
    }
    i += usize::from(at(i) == b'\n');
    if i < text.len() {
        return Err(Errno::EINVAL);
    }
    Ok(value as u64)
}

fn kstrtoll(text: &[u8]) -> Result<i64> {
    match text.strip_prefix(b"-") {
        Some(rest) => {
            let value = kstrtoull_digits(rest)?;
            let negative = (value as i64).wrapping_neg();
            if negative > 0 {
                return Err(Errno::ERANGE);
            }
            Ok(negative)
        }
        None => i64::try_from(kstrtoull(text)?).map_err(|_| Errno::ERANGE),
    }
}

#[test]
fn numbers_are_those_of_kstrtoul() {
    let (einval, erange) = (Err(Errno::EINVAL), Err(Errno::ERANGE));
    for (text, expected) in [
        ("0", Ok(0)),
        ("7", Ok(7)),
        ("+7", Ok(7)),
        ("10", Ok(10)),
        ("010", Ok(8)),
        ("0x10", Ok(16)),
        ("0X1f", Ok(31)),
        ("0xABCdef", Ok(0xabcdef)),
        ("+0x1", Ok(1)),
        ("00", Ok(0)),
        ("7\n", Ok(7)),
        ("18446744073709551615", Ok(u64::MAX)),
        ("0xffffffffffffffff", Ok(u64::MAX)),
        ("01777777777777777777777", Ok(u64::MAX)),
        ("0000000000000000000000000000001", Ok(1)),
        ("18446744073709551616", erange),
        ("0x10000000000000000", erange),
        ("02000000000000000000000", erange),
        ("", einval),
        ("+", einval),
        ("-", einval),
        ("-1", einval),
        ("++1", einval),
        ("+-1", einval),
        (" 1", einval),
        ("1 ", einval),
        ("1x", einval),
        ("x1", einval),
        ("0x", einval),
        ("0xg", einval),
        ("0x+1", einval),
        ("08", einval),
        ("1a", einval),
        ("a", einval),
        ("\n", einval),
        ("7\n\n", einval),
        ("7\n8", einval),
    ] {
        assert_eq!(
            kstrtoull(text.as_bytes()),
            expected,
            "the reference, {text:?}"
        );
        assert_eq!(parse_unsigned(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn signed_numbers_are_those_of_kstrtol() {
    let (einval, erange) = (Err(Errno::EINVAL), Err(Errno::ERANGE));
    for (text, expected) in [
        ("0", Ok(0)),
        ("-0", Ok(0)),
        ("+5", Ok(5)),
        ("-5", Ok(-5)),
        ("-010", Ok(-8)),
        ("-0x10", Ok(-16)),
        ("-5\n", Ok(-5)),
        ("9223372036854775807", Ok(i64::MAX)),
        ("-9223372036854775808", Ok(i64::MIN)),
        ("-0x8000000000000000", Ok(i64::MIN)),
        ("9223372036854775808", erange),
        ("-9223372036854775809", erange),
        ("18446744073709551615", erange),
        ("-18446744073709551615", erange),
        ("-18446744073709551616", erange),
        ("", einval),
        ("-", einval),
        ("--5", einval),
        ("-+5", einval),
        ("+-5", einval),
        ("- 5", einval),
        ("-5x", einval),
        ("-x", einval),
        ("-\n", einval),
    ] {
        assert_eq!(
            kstrtoll(text.as_bytes()),
            expected,
            "the reference, {text:?}"
        );
        assert_eq!(parse_signed(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn a_number_that_does_not_fit_is_out_of_range_whatever_follows_it() {
    // As in C, which looks at what follows only after that.
    for text in [
        "18446744073709551616x",
        "0x10000000000000000 ",
        "99999999999999999999,",
    ] {
        assert_eq!(
            kstrtoull(text.as_bytes()),
            Err(Errno::ERANGE),
            "the reference"
        );
        assert_eq!(
            parse_unsigned(text.as_bytes()),
            Err(Errno::ERANGE),
            "{text:?}"
        );
        let text = format!("-{text}");
        assert_eq!(
            parse_signed(text.as_bytes()),
            Err(Errno::ERANGE),
            "{text:?}"
        );
    }
}

fn numbers() -> BoxedStrategy<Vec<u8>> {
    let formatted = (any::<u64>(), 0u32..64, 0..5, "[-+]{0,2}", "[ \nx0]{0,2}");
    let formatted = formatted.prop_map(|(value, shift, base, sign, tail)| {
        let value = value >> shift;
        match base {
            0 => format!("{sign}{value}{tail}"),
            1 => format!("{sign}0{value:o}{tail}"),
            2 => format!("{sign}0x{value:x}{tail}"),
            3 => format!("{sign}0X{value:X}{tail}"),
            _ => format!("{sign}{value}{value}{tail}"),
        }
    });
    let random = "[-+]?(0|0x|0X)?[0-9a-fA-F]{0,25}[\n x]?";
    prop_oneof![formatted, random]
        .prop_map(String::into_bytes)
        .boxed()
}

#[test]
fn any_number_is_parsed_as_kstrtoul_and_kstrtol_do() {
    check(10_000, numbers(), |text| {
        assert_eq!(parse_unsigned(&text), kstrtoull(&text));
        assert_eq!(parse_signed(&text), kstrtoll(&text));
    });
}

#[test]
fn a_number_that_was_written_is_read_back() {
    check(2000, any::<(u64, i64)>(), |(unsigned, signed)| {
        for text in [
            format!("{unsigned}"),
            format!("{unsigned:#x}"),
            format!("0{unsigned:o}"),
            format!("+{unsigned}\n"),
        ] {
            assert_eq!(parse_unsigned(text.as_bytes()), Ok(unsigned));
        }
        assert_eq!(parse_signed(format!("{signed}").as_bytes()), Ok(signed));
    });
}

#[test]
fn a_percentage_is_decimal_and_ends_with_the_sign() {
    for (text, expected) in [
        ("0%", Some(0)),
        ("7%", Some(7)),
        ("007%", Some(7)),
        ("99%", Some(99)),
        ("100%", Some(100)),
        ("4294967295%", Some(u32::MAX)),
        // No digits are 0 in C, too.
        ("%", Some(0)),
        // C lets these wrap around.
        ("4294967296%", None),
        ("18446744073709551624%", None),
        ("", None),
        ("7", None),
        ("7%%", None),
        ("7% ", None),
        (" 7%", None),
        ("7 %", None),
        ("%7", None),
        ("+7%", None),
        ("-7%", None),
        ("0x7%", None),
        ("7a%", None),
    ] {
        let parsed = parse_percent(text.as_bytes());
        assert_eq!(parsed, expected.ok_or(Errno::EINVAL), "{text:?}");
    }
    for percent in 0..=100 {
        assert_eq!(parse_percent(format!("{percent}%").as_bytes()), Ok(percent));
    }
}

#[test]
fn a_debug_mask_is_a_number_or_nothing() {
    for (text, expected) in [
        ("", Some(0)),
        ("0", Some(0)),
        ("7", Some(7)),
        ("0x1f", Some(31)),
        ("017", Some(15)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", None),
        ("99999999999999999999", None),
        ("x", None),
        ("7 ", None),
        ("-1", None),
        ("0x", None),
        ("08", None),
    ] {
        let parsed = parse_mask(text.as_bytes());
        assert_eq!(parsed, expected.ok_or(Errno::EINVAL), "{text:?}");
    }
}

#[test]
fn a_debug_mask_has_no_sign() {
    // simple_strtoul() of C takes none.
    assert_eq!(parse_mask(b"+7"), Err(Errno::EINVAL));
}

fn copen(msg_id: u32, reply: Result<Reply>) -> Result<Copen<'static>> {
    Ok(Copen {
        msg_id,
        reply,
        version: None,
    })
}

/// What becomes of the answer to an OPEN, and the version that it tells.
fn answer(args: &[u8]) -> (Result<Reply>, Option<&[u8]>) {
    let copen = Copen::parse(args).unwrap();
    (copen.reply, copen.version)
}

#[test]
fn copen_may_tell_a_version() {
    let size = Ok(Reply::Size(4096));
    assert_eq!(answer(b"3,4096,x"), (size, Some(&b"x"[..])));
    // Whatever is in it is meant, commas and blanks too.
    let odd = b" W/\"a,b\"\xff\x01 ";
    let args = [&b"3,4096,"[..], odd].concat();
    assert_eq!(answer(&args), (size, Some(&odd[..])));
    let longest = [b'v'; VERSION_MAX];
    let args = [&b"3,4096,"[..], &longest].concat();
    assert_eq!(answer(&args), (size, Some(&longest[..])));
}

#[test]
fn copen_with_a_bad_version_fails_the_open() {
    let long = [&b"3,4096,"[..], &[b'v'; VERSION_MAX + 1]].concat();
    for args in [
        &b"3,4096,"[..],
        &long,
        b"3,-2,x",
        b"3,-2,",
        b"3,,x",
        b"3,4k,x",
    ] {
        assert_eq!(answer(args).0, Err(Errno::EINVAL), "{args:?}");
    }
    assert_eq!(answer(b"3,99999999999999999999,x").0, Err(Errno::ERANGE));
}

#[test]
fn copen_tells_the_size() {
    let size = |n| Ok(Reply::Size(n));
    assert_eq!(Copen::parse(b"0,0"), copen(0, size(0)));
    assert_eq!(Copen::parse(b"7,4096"), copen(7, size(4096)));
    assert_eq!(Copen::parse(b"0x10,0x1000"), copen(16, size(4096)));
    assert_eq!(Copen::parse(b"010,010"), copen(8, size(8)));
    assert_eq!(Copen::parse(b"+1,+2"), copen(1, size(2)));
    assert_eq!(
        Copen::parse(b"4294967295,9223372036854775807"),
        copen(u32::MAX, size(i64::MAX as u64))
    );
}

#[test]
fn copen_tells_an_error() {
    for errno in [1, 2, 5, 22, 4094, 4095] {
        let args = format!("3,-{errno}");
        let reply = Ok(Reply::Failed(Errno(errno)));
        assert_eq!(Copen::parse(args.as_bytes()), copen(3, reply));
    }
    assert_eq!(Copen::parse(b"3,-0"), copen(3, Ok(Reply::Size(0))));
}

#[test]
fn copen_with_a_size_below_all_errors_is_invalid_and_fails_the_open() {
    for size in [
        "-4096",
        "-5000",
        "-4294967295",
        "-4294967297",
        "-9223372036854775808",
    ] {
        let args = format!("3,{size}");
        let parsed = Copen::parse(args.as_bytes());
        assert_eq!(parsed, copen(3, Err(Errno::EINVAL)), "{size}");
    }
}

#[test]
fn copen_with_a_bad_size_fails_the_open() {
    for (size, errno) in [
        ("", Errno::EINVAL),
        ("x", Errno::EINVAL),
        ("-", Errno::EINVAL),
        (" 1", Errno::EINVAL),
        ("1 ", Errno::EINVAL),
        ("4k", Errno::EINVAL),
        ("9223372036854775808", Errno::ERANGE),
        ("-9223372036854775809", Errno::ERANGE),
        ("99999999999999999999", Errno::ERANGE),
    ] {
        let args = format!("3,{size}");
        assert_eq!(
            Copen::parse(args.as_bytes()),
            copen(3, Err(errno)),
            "{size:?}"
        );
    }
}

#[test]
fn copen_without_a_usable_id_touches_nothing() {
    for (args, errno) in [
        ("", Errno::EINVAL),
        ("3", Errno::EINVAL),
        ("3 4096", Errno::EINVAL),
        (",", Errno::EINVAL),
        (",4096", Errno::EINVAL),
        ("x,4096", Errno::EINVAL),
        ("-1,4096", Errno::EINVAL),
        ("1 ,4096", Errno::EINVAL),
        // A number, but no message has it.
        ("4294967296,4096", Errno::EINVAL),
        ("18446744073709551615,4096", Errno::EINVAL),
        ("18446744073709551616,4096", Errno::ERANGE),
    ] {
        assert_eq!(Copen::parse(args.as_bytes()), Err(errno), "{args:?}");
    }
}

#[test]
fn any_copen_is_read_as_c_does() {
    let args = (any::<u32>(), prop_oneof![any::<i64>(), -5000i64..5000]);
    check(3000, args, |(msg_id, size)| {
        let reply = match size {
            0.. => Ok(Reply::Size(size as u64)),
            -4095..=-1 => Ok(Reply::Failed(Errno(-size as i32))),
            _ => Err(Errno::EINVAL),
        };
        let args = format!("{msg_id},{size}");
        assert_eq!(Copen::parse(args.as_bytes()), copen(msg_id, reply));
    });
}

/// An on-demand cache with this time limit in milliseconds.
fn ondemand(timeout: Option<u64>) -> Result<BindMode> {
    Ok(BindMode::Ondemand(Options {
        timeout,
        ..Options::default()
    }))
}

/// Likewise, in batch mode.
fn batch(timeout: Option<u64>) -> Result<BindMode> {
    Ok(BindMode::Ondemand(Options {
        timeout,
        batch: true,
        ..Options::default()
    }))
}

/// Likewise, with READs of so many blocks at most.
fn max_read(blocks: u64) -> Result<BindMode> {
    Ok(BindMode::Ondemand(Options {
        max_read: Some(blocks),
        ..Options::default()
    }))
}

/// Likewise, with READs that go on to a multiple of so many blocks.
fn granule(blocks: u64) -> Result<BindMode> {
    Ok(BindMode::Ondemand(Options {
        granule: Some(blocks),
        ..Options::default()
    }))
}

#[test]
fn a_read_goes_on_to_the_end_of_a_granule() {
    let options = Options {
        granule: Some(4),
        ..Options::default()
    };
    for (end, blocks, far) in [
        (1, 100, 4),
        (4, 100, 4),
        (5, 100, 8),
        (97, 98, 98),
        (100, 100, 100),
        (u64::MAX - 1, u64::MAX - 1, u64::MAX - 1),
    ] {
        assert_eq!(options.widen(end, blocks), far, "{end} of {blocks}");
        assert_eq!(Options::default().widen(end, blocks), end);
    }
}

#[test]
fn a_read_is_cut_where_a_chunk_ends() {
    let options = Options {
        max_read: Some(4),
        ..Options::default()
    };
    for (run, first) in [
        (0..1, 0..1),
        (0..4, 0..4),
        (0..5, 0..4),
        (3..100, 3..4),
        (4..100, 4..8),
        (5..7, 5..7),
    ] {
        assert_eq!(options.cut(run.clone()), first, "{run:?}");
        assert_eq!(Options::default().cut(run.clone()), run);
    }
}

#[test]
fn bind_takes_a_mode_and_options() {
    for (args, mode) in [
        ("", Ok(BindMode::Classic)),
        ("ondemand", ondemand(None)),
        ("ondemand timeout=1", ondemand(Some(1000))),
        ("ondemand timeout=86400", ondemand(Some(86_400_000))),
        ("ondemand timeout=007", ondemand(Some(7000))),
        ("ondemand \t timeout=10", ondemand(Some(10_000))),
        ("ondemand batch", batch(None)),
        ("ondemand batch timeout=30", batch(Some(30_000))),
        ("ondemand  timeout=30  batch", batch(Some(30_000))),
        ("ondemand max-read=4096", max_read(1)),
        ("ondemand max-read=1048576", max_read(256)),
        ("ondemand max-read=1073741824", max_read(262_144)),
        ("ondemand granule=4096", granule(1)),
        ("ondemand granule=1073741824", granule(262_144)),
    ] {
        assert_eq!(BindMode::parse(args.as_bytes()), mode, "{args:?}");
    }
}

#[test]
fn bind_refuses_everything_else() {
    for args in [
        "junk",
        " ",
        " ondemand",
        "ondemand ",
        "ondemand\t",
        "ondemandx",
        "ONDEMAND",
        "ondemand,timeout=1",
        "ondemandtimeout=1",
        "ondemand ondemand",
        "ondemand x",
        "ondemand =",
        "ondemand timeout",
        "ondemand timeout=",
        "ondemand timeout=0",
        "ondemand timeout=86401",
        "ondemand timeout=4294967297",
        "ondemand timeout=18446744073709551617",
        "ondemand timeout=99999999999999999999999999",
        "ondemand timeout=-1",
        "ondemand timeout=+1",
        "ondemand timeout=0x10",
        "ondemand timeout=1s",
        "ondemand timeout=1.5",
        "ondemand timeout=1,",
        "ondemand timeout= 1",
        "ondemand timeout =1",
        "ondemand Timeout=1",
        "ondemand timeout=1 ",
        "ondemand timeout=1 timeout=1",
        "ondemand timeout=1 timeout=2",
        "ondemand timeout=1 x",
        "ondemandbatch",
        "ondemand batch ",
        "ondemand batch=1",
        "ondemand batch,timeout=1",
        "ondemand batchtimeout=1",
        "ondemand Batch",
        "ondemand batches",
        "ondemand batch batch",
        "ondemand batch timeout=1 batch",
        "ondemand timeout=1 batch timeout=1",
        "ondemand max-read",
        "ondemand max-read=",
        "ondemand max-read=0",
        "ondemand max-read=4095",
        "ondemand max-read=4097",
        "ondemand max-read=1M",
        "ondemand max-read=1073745920",
        "ondemand max-read=4096 max-read=4096",
        "ondemand granule",
        "ondemand granule=0",
        "ondemand granule=4097",
        "ondemand granule=1073745920",
        "ondemand granule=4096 granule=4096",
        "batch",
        "batch ondemand",
        "timeout=1",
        "timeout=1 ondemand",
    ] {
        assert_eq!(
            BindMode::parse(args.as_bytes()),
            Err(Errno::EINVAL),
            "{args:?}"
        );
    }
}

#[test]
fn any_number_of_seconds_is_a_limit_or_refused() {
    let seconds = prop_oneof![0u64..100_000, any::<u64>()];
    check(3000, seconds, |seconds| {
        let expected = match seconds {
            1..=86400 => ondemand(Some(seconds * 1000)),
            _ => Err(Errno::EINVAL),
        };
        let args = format!("ondemand timeout={seconds}");
        assert_eq!(BindMode::parse(args.as_bytes()), expected);
    });
}
