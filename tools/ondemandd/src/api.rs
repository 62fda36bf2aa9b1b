// SPDX-License-Identifier: GPL-2.0-or-later

//! What `ondemandctl` and the daemon say to each other: one line of JSON each way for a connection
//! to the control socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the daemon is asked if nobody says otherwise.
pub const SOCKET: &str = "/run/ondemandd/control.sock";

/// The longest request, in bytes.
pub const MAX_REQUEST: u64 = 64 << 10;

/// The most bytes of an answer that are read.
pub const MAX_REPLY: u64 = 256 << 20;

/// What the daemon is asked.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is; of the blob with this name only, if there is one.
    Status {
        #[serde(default)]
        name: Option<String>,
    },
    /// The metrics, as OpenMetrics text.
    Metrics,
    /// Serve something under another name.
    Add { name: String, source: Added },
    /// Serve a name no longer.
    Remove { name: String },
    /// Fetch all of a blob that is open.
    Prefetch { name: String },
    /// What is mounted for an image; nothing if the name is not that of one.
    Image { name: String },
    /// Fetch the rest of a blob that is open in the background, or do not.
    Background { name: String, on: bool },
    /// End the recording of a blob that is open, and keep what was read.
    Trace { name: String },
    /// Remove a blob from the cache, or what was not used for longest until it has so many bytes.
    Cull {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        bytes: Option<u64>,
    },
    /// Compare what is cached with its digests; of one blob, or of all.
    Verify {
        #[serde(default)]
        name: Option<String>,
    },
}

/// The source of a name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Added {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    #[serde(default)]
    pub unverified: bool,
}

/// What the daemon answers.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Done,
    Status(Box<Status>),
    Metrics(String),
    Image(Vec<ImageLayer>),
    Prefetch(Prefetching),
    Trace(Traced),
    Cull(Culled),
    Verify(Verified),
    Error(String),
}

/// How the daemon is.
#[derive(Debug, Deserialize, Serialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub cache: Cache,
    /// Messages that are not answered yet, and how long the oldest of them has waited.
    pub pending: usize,
    pub oldest_seconds: f64,
    /// How much is fetched in a second at most, of what nobody waits for.
    pub bandwidth: Option<u64>,
    pub totals: BTreeMap<String, u64>,
    /// What the kernel has opened.
    pub open: Vec<Open>,
    /// What is in the cache besides that, or is open under a name that it had before.
    pub cached: Vec<Cached>,
}

/// The cache.
#[derive(Debug, Deserialize, Serialize)]
pub struct Cache {
    pub directory: String,
    pub bytes: u64,
    /// The most that it should have.
    pub limit: Option<u64>,
    /// Of its file system.
    pub disk_bytes: u64,
    pub disk_free: u64,
    /// Nothing can be written.
    pub full: bool,
    /// It is larger than it should be, and all of it is in use.
    pub in_use: bool,
}

/// A blob that is open.
#[derive(Debug, Deserialize, Serialize)]
pub struct Open {
    pub name: String,
    pub object_id: u32,
    pub size: u64,
    /// How much of it is in the cache, and which part of each of [`PARTS`] parts, in percent.
    pub present: u64,
    pub map: Vec<u8>,
    /// What this daemon has fetched of it.
    pub fetched: u64,
    /// The server; empty for a file.
    pub server: String,
    pub version: Option<String>,
    /// READs that are not answered yet, and how long the oldest of them has waited.
    pub waiting: usize,
    pub oldest_seconds: f64,
    /// Something of it is being prefetched, or is going to be.
    pub prefetching: bool,
    /// Whether the rest is being fetched.
    pub background: Background,
    pub last_error: Option<String>,
}

/// How it is with fetching the rest of a blob.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Background {
    /// It is not wanted.
    Off,
    Running,
    /// For this reason.
    Waiting(String),
    Complete,
}

/// How many parts the map of a blob has.
pub const PARTS: u64 = 40;

/// A file of the cache.
#[derive(Debug, Deserialize, Serialize)]
pub struct Cached {
    /// As it is called in the cache: the volume, and the key or an encoding of it.
    pub place: String,
    pub bytes: u64,
    /// Seconds since 1970.
    pub used: u64,
}

/// A layer of an image that is served.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ImageLayer {
    pub name: String,
    pub role: Role,
}

/// What a layer is for, in the words of the EROFS image specification.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    None,
    /// The file system behind it has data in it.
    Device,
    OverlayLower,
    /// What is above refers to files of it.
    OverlayData,
}

/// What is going to be fetched.
#[derive(Debug, Deserialize, Serialize)]
pub struct Prefetching {
    /// How many files are open under the name.
    pub open: usize,
}

/// What was recorded.
#[derive(Debug, Deserialize, Serialize)]
pub struct Traced {
    /// Of how many files.
    pub traces: usize,
    pub ranges: usize,
    pub bytes: u64,
}

/// What was removed.
#[derive(Debug, Deserialize, Serialize)]
pub struct Culled {
    pub files: u64,
    pub bytes: u64,
    /// What was not because it is in use.
    pub busy: u64,
    /// What the cache has now, in bytes.
    pub left: u64,
    /// Less was removed than was asked for.
    pub unfinished: bool,
}

/// What was compared.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Verified {
    pub files: u64,
    /// What was compared with a digest, in bytes.
    pub bytes: u64,
    /// What is not as its digest says.
    pub wrong: Vec<String>,
    /// What could not be compared, and why.
    pub skipped: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_short_lines() {
        for (request, text) in [
            (
                Request::Status { name: None },
                r#"{"command":"status","name":null}"#,
            ),
            (Request::Metrics, r#"{"command":"metrics"}"#),
            (
                Request::Add {
                    name: "a".into(),
                    source: Added {
                        file: Some("/f".into()),
                        ..Added::default()
                    },
                },
                r#"{"command":"add","name":"a","source":{"file":"/f","unverified":false}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        let short: Request = serde_json::from_str(r#"{"command":"cull"}"#).unwrap();
        assert_eq!(
            short,
            Request::Cull {
                name: None,
                bytes: None
            }
        );
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"command":"x"}"#,
            r#"{"command":"add","name":"a"}"#,
        ] {
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_request_is_answered_or_refused(text in ".*") {
            let _ = serde_json::from_str::<Request>(&text);
        }
    }
}
