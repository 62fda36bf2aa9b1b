// SPDX-License-Identifier: GPL-2.0

//! What a daemon writes.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_command))]
mod tests {
    use crate::protocol::{
        command::{
            parse_mask,
            parse_percent,
            parse_signed,
            parse_unsigned,
            Command,
            Copen,
            Limit,
            Reply, //
        },
        errno::Errno, //
    };

    #[test]
    fn commands_have_arguments() {
        let lines: [(&[u8], Command<'_>); 8] = [
            (b"bind", Command::Bind(b"")),
            (b"bind ondemand\n", Command::Bind(b"ondemand")),
            (b"brun \t 7%", Command::Limit(Limit::Brun, b"7%")),
            (b"fstop 1%", Command::Limit(Limit::Fstop, b"1%")),
            (b"dir /a b \n/c", Command::Dir(b"/a b ")),
            (b"cull x", Command::Cull(b"x")),
            (b"copen 1,2", Command::Copen(b"1,2")),
            (b"restore", Command::Restore),
        ];
        for (line, command) in lines {
            assert_eq!(Command::parse(line), Ok(command));
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        let lines: [&[u8]; 6] = [b"", b"BIND", b"binds", b" bind", b"bind,x", b"unbind"];
        for line in lines {
            assert_eq!(Command::parse(line), Err(Errno::EOPNOTSUPP));
        }
        let lines: [&[u8]; 3] = [b"\0", b"dir /a\0b", b"\nbind"];
        for line in lines {
            assert_eq!(Command::parse(line), Err(Errno::EINVAL));
        }
    }

    #[test]
    fn numbers_are_those_of_kstrtoul() {
        assert_eq!(parse_unsigned(b"0x1F\n"), Ok(31));
        assert_eq!(parse_unsigned(b"017"), Ok(15));
        assert_eq!(parse_unsigned(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_unsigned(b"18446744073709551616"), Err(Errno::ERANGE));
        assert_eq!(parse_unsigned(b"-1"), Err(Errno::EINVAL));
        assert_eq!(parse_unsigned(b""), Err(Errno::EINVAL));
        assert_eq!(parse_signed(b"-0x10"), Ok(-16));
        assert_eq!(parse_signed(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_signed(b"9223372036854775808"), Err(Errno::ERANGE));
        assert_eq!(parse_percent(b"7%"), Ok(7));
        assert_eq!(parse_percent(b"7"), Err(Errno::EINVAL));
        assert_eq!(parse_mask(b"0x7"), Ok(7));
        assert_eq!(parse_mask(b"4294967296"), Err(Errno::EINVAL));
    }

    #[test]
    fn copen_tells_a_size_or_an_error() {
        let parsed = |args: &[u8]| Copen::parse(args).map(|copen| (copen.msg_id, copen.reply));
        assert_eq!(parsed(b"7,4096"), Ok((7, Ok(Reply::Size(4096)))));
        assert_eq!(parsed(b"7,-5"), Ok((7, Ok(Reply::Failed(Errno(5))))));
        assert_eq!(parsed(b"7"), Err(Errno::EINVAL));
        assert_eq!(parsed(b",4096"), Err(Errno::EINVAL));
        assert_eq!(parsed(b""), Err(Errno::EINVAL));
    }
}
