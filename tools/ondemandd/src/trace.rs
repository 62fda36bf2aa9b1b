// SPDX-License-Identifier: GPL-2.0-or-later

//! What was read of a blob at its start, in that order, so that it can be fetched ahead of the
//! readers at the next start, here or on another machine.
//!
//! A trace is recorded when a blob is opened for which there is none and of which nothing is
//! cached. It is in a file of its own, as JSON, and is for one version of the blob only.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The largest trace, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The most ranges that are recorded.
pub const MAX_RANGES: usize = 65_536;

/// A trace.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// That of the blob.
    pub version: Option<String>,
    pub size: u64,
    /// Where each range begins, and how long it is.
    pub ranges: Vec<(u64, u64)>,
}

impl Trace {
    pub fn new(version: Option<&str>, size: u64, ranges: &[Range<u64>]) -> Self {
        Self {
            version: version.map(str::to_string),
            size,
            ranges: ranges
                .iter()
                .map(|range| (range.start, range.end - range.start))
                .collect(),
        }
    }

    /// What is to be fetched; nothing of it is behind the end of the blob.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let ranges = self.ranges.iter().map(|(start, len)| {
            let end = start.saturating_add(*len).min(self.size);
            *start..end
        });
        ranges.filter(|range| !range.is_empty()).collect()
    }
}

/// The directory with the traces.
pub struct Traces {
    dir: PathBuf,
}

impl Traces {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Names have no other `/` than the one behind their domain.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.trace"))
    }

    /// The trace of a blob, if there is one.
    pub fn read(&self, name: &str) -> Result<Option<Trace>, String> {
        let path = self.path(name);
        let fail = |what: &dyn std::fmt::Display| format!("the trace {}: {what}", path.display());
        let file = match File::open(&path) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|err| fail(&err))?,
        };
        let mut text = Vec::new();
        let read = file.take(MAX_FILE + 1).read_to_end(&mut text);
        read.map_err(|err| fail(&err))?;
        if text.len() as u64 > MAX_FILE {
            return Err(fail(&format_args!("it has more than {MAX_FILE} bytes")));
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|err| fail(&err))
    }

    /// Whoever reads it at this moment gets the old one or the new one.
    pub fn write(&self, name: &str, trace: &Trace) -> Result<(), String> {
        let path = self.path(name);
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let write = || {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            let text = serde_json::to_vec(trace).map_err(io::Error::other)?;
            fs::write(&temporary, text)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|err| format!("cannot write the trace {}: {err}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::new(dir.path().join("traces"));
        assert_eq!(traces.read("d/blob"), Ok(None));
        let trace = Trace::new(Some("v1"), 20_000, &[8192..12_288, 0..4096]);
        traces.write("d/blob", &trace).unwrap();
        assert_eq!(traces.read("d/blob"), Ok(Some(trace.clone())));
        assert_eq!(trace.ranges(), [8192..12_288, 0..4096]);
        let text = fs::read_to_string(dir.path().join("traces/d/blob.trace")).unwrap();
        assert_eq!(
            text,
            "{\"version\":\"v1\",\"size\":20000,\"ranges\":[[8192,4096],[0,4096]]}"
        );
    }

    #[test]
    fn what_is_no_trace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let traces = Traces::new(dir.path().into());
        for wrong in ["", "[]", "{\"size\":1,\"ranges\":[[1]]}", "{\"size\":-1}"] {
            fs::write(dir.path().join("b.trace"), wrong).unwrap();
            assert!(traces.read("b").is_err(), "{wrong}");
        }
        fs::write(
            dir.path().join("b.trace"),
            vec![b' '; MAX_FILE as usize + 1],
        )
        .unwrap();
        assert!(traces.read("b").unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn nothing_behind_the_end_is_fetched(size: u64, ranges: Vec<(u64, u64)>) {
            let trace = Trace { version: None, size, ranges };
            for range in trace.ranges() {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
