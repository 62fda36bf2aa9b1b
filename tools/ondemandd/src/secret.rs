// SPDX-License-Identifier: GPL-2.0-or-later

//! URLs and header fields that may have passwords or tokens in them: where they come from, so that
//! neither `ps` nor a message shows them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::device::strip_code;

/// Where this program puts a URL that was on its command line.
const VARIABLE: &str = "ONDEMANDD_HTTP";

/// What `--http` means: a URL, "@FILE" that has one in its first line, or "env:VARIABLE".
pub fn url(argument: &str) -> Result<String, String> {
    if let Some(path) = argument.strip_prefix('@') {
        let text = fs::read_to_string(path)
            .map_err(|err| format!("cannot read the URL in {path}: {}", strip_code(&err)))?;
        return Ok(text.lines().next().unwrap_or("").trim().to_string());
    }
    if let Some(name) = argument.strip_prefix("env:") {
        return env::var(name).map_err(|_| {
            format!("--http env:{name}: there is no such environment variable in UTF-8")
        });
    }
    Ok(argument.to_string())
}

/// Whether a URL on the command line has a user or password.
fn has_user(argument: &str) -> bool {
    let rest = argument
        .split_once("://")
        .map_or(argument, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    !argument.starts_with('@') && authority.contains('@')
}

/// The same arguments without the URL.
fn without(url: &str, arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let instead = format!("env:{VARIABLE}");
    let (mut out, mut follows) = (Vec::new(), false);
    for argument in arguments {
        let joined = argument == *format!("--http={url}");
        out.push(match (follows, joined) {
            (true, _) if argument == *OsStr::new(url) => OsString::from(&instead),
            (_, true) => OsString::from(format!("--http={instead}")),
            _ => argument.clone(),
        });
        follows = argument == *OsStr::new("--http");
    }
    out
}

/// Starts this program anew in this process without the password in its arguments, if there is one:
/// everybody may read them. Returns only if there is nothing to hide, or that fails.
pub fn hide(url: &str) -> Result<(), String> {
    if !has_user(url) {
        return Ok(());
    }
    let err = match env::current_exe() {
        Ok(program) => Command::new(program)
            .args(without(url, env::args_os().skip(1)))
            .env(VARIABLE, url)
            .exec(),
        Err(err) => err,
    };
    Err(format!(
        "cannot hide the password in the command line, which everybody can read (give --http @FILE): {}",
        strip_code(&err)
    ))
}

/// The lines "Name: value" of a file.
pub fn headers(path: &Path) -> Result<Vec<(String, String)>, String> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|err| {
        format!(
            "cannot read the header fields in {shown}: {}",
            strip_code(&err)
        )
    })?;
    parse_headers(&text).map_err(|number| {
        format!("line {number} of {shown} is not a header field, \"Name: value\"")
    })
}

/// The lines of a text. Fails with the number of the wrong line; what is in it may be secret.
pub fn parse_headers(text: &str) -> Result<Vec<(String, String)>, usize> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&b);
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let (name, value) = line.split_once(':').ok_or(number + 1)?;
            let value = value.trim();
            let right = !name.is_empty()
                && name.bytes().all(token)
                && !value.bytes().any(|b| b.is_ascii_control());
            if right {
                Ok((name.to_string(), value.to_string()))
            } else {
                Err(number + 1)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_from_files_and_variables() {
        assert_eq!(url("http://h/").unwrap(), "http://h/");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("url");
        fs::write(&path, "https://u:p@h/\nmore\n").unwrap();
        let argument = format!("@{}", path.display());
        assert_eq!(url(&argument).unwrap(), "https://u:p@h/");
        assert!(url("@/no/such/file").unwrap_err().contains("No such file"));
        assert_eq!(url("env:PATH").unwrap(), env::var("PATH").unwrap());
        assert!(url("env:NO_SUCH_VARIABLE_HERE").is_err());
    }

    #[test]
    fn passwords_are_taken_off_the_command_line() {
        assert!(has_user("http://u:p@h/x") && has_user("HTTPS://u@h"));
        assert!(!has_user("http://h/a@b") && !has_user("@/file") && !has_user("env:X"));
        let url = "http://u:p@h/";
        let line =
            |words: &[&str]| without(url, words.iter().map(OsString::from)).join(OsStr::new(" "));
        let want = "--http env:ONDEMANDD_HTTP -q";
        assert_eq!(line(&["--http", url, "-q"]), want);
        assert_eq!(line(&["--http=http://u:p@h/"]), "--http=env:ONDEMANDD_HTTP");
    }

    #[test]
    fn header_fields() {
        let fields = parse_headers("# x\n\nAuthorization: Bearer a:b \nX-A:\n").unwrap();
        let want = [("Authorization", "Bearer a:b"), ("X-A", "")];
        assert_eq!(fields, want.map(|(a, b)| (a.to_string(), b.to_string())));
        assert_eq!(parse_headers("A: b\nsecret"), Err(2));
        assert_eq!(parse_headers("A b: c"), Err(1));
        assert_eq!(parse_headers("A: b\x07"), Err(1));
    }
}
