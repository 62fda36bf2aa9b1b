// SPDX-License-Identifier: GPL-2.0-or-later

//! What the daemon answers on its control socket.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{fgetxattr, seek, SeekFrom};

use super::{Daemon, Entry};
use crate::api::{self, Culled, Prefetching, Reply, Request, Status, Traced, Verified, PARTS};
use crate::cull::Goal;
use crate::device::strip_code;
use crate::guard::Guard;
use crate::object::Object;
use crate::pace::Bandwidth;
use crate::server::Answer;
use crate::source::chunks::ChunkIndex;
use crate::source::BlobName;
use crate::stop::Stop;
use crate::store::{self, Cached, Space};
use crate::whole::{self, Finding};

/// What the kernel keeps with a cached file. The version of the blob is at its end.
const XATTR: &str = "user.CacheFiles.cache";

/// A daemon that answers.
pub struct Control(pub Arc<Daemon>);

impl Answer for Control {
    fn answer(&self, request: Request) -> Reply {
        let result = match request {
            Request::Status { name } => self.status(name.as_deref()),
            Request::Metrics => Ok(Reply::Metrics(self.0.report.metrics_text())),
            Request::Add { name, source } => {
                let added = self.0.source.add(&name, source);
                added.map(|()| Reply::Done)
            }
            Request::Remove { name } => self.0.source.remove(&name).map(|()| Reply::Done),
            Request::Prefetch { name } => Ok(self.prefetch(&name)),
            Request::Image { name } => self.0.source.image(&name).map(Reply::Image),
            Request::Background { name, on } => Ok(self.background(&name, on)),
            Request::Trace { name } => self.trace(&name),
            Request::Cull { name, bytes } => self.cull(name.as_deref(), bytes),
            Request::Verify { name } => self.verify(name.as_deref()),
        };
        result.unwrap_or_else(Reply::Error)
    }
}

/// Whether a blob is meant by a name, with or without its domain.
fn is_called(full: &str, name: &str) -> bool {
    full == name || full.rsplit_once('/').is_some_and(|(_, last)| last == name)
}

impl Control {
    /// The blobs that are open, with this name or with any.
    fn open(&self, name: Option<&str>) -> Vec<(u32, Arc<Object>)> {
        let objects = self.0.objects();
        let open = objects.iter().filter_map(|(id, entry)| match entry {
            Entry::Open(object) => Some((*id, Arc::clone(object))),
            Entry::Opening { .. } => None,
        });
        let mut open: Vec<_> = open
            .filter(|(_, object)| name.is_none_or(|name| is_called(&object.name, name)))
            .collect();
        drop(objects);
        open.sort_by(|(a_id, a), (b_id, b)| (&a.name, a_id).cmp(&(&b.name, b_id)));
        open
    }

    fn cached(&self, name: Option<&str>) -> Result<Vec<Cached>, String> {
        let cache = self.0.culler.cache();
        let fail = |err: io::Error| format!("{}: {}", cache.display(), strip_code(&err));
        let mut files = store::scan(cache).map_err(fail)?.files;
        files.retain(|file| name.is_none_or(|name| file.key() == Some(name)));
        files.sort_by_key(|file| std::cmp::Reverse(file.used));
        Ok(files)
    }

    fn status(&self, name: Option<&str>) -> Result<Reply, String> {
        let Daemon { culler, report, .. } = &*self.0;
        let waiting = report.waiting();
        let none = (0, Duration::ZERO);
        let open = self.open(name).into_iter().map(|(id, object)| {
            let (count, oldest) = waiting.get(&id).copied().unwrap_or(none);
            api::Open {
                name: object.name.clone(),
                object_id: id,
                size: object.size(),
                present: object.cached().min(object.size()),
                map: map(&object),
                fetched: object.fetched.load(Relaxed),
                server: object.server.to_string(),
                version: object.version().map(str::to_string),
                waiting: count,
                oldest_seconds: oldest.as_secs_f64(),
                prefetching: object.is_prefetching(),
                background: object.background(),
                last_error: object.last_error(),
            }
        });
        let open: Vec<_> = open.collect();
        let places: HashSet<_> = culler.open_places().into_iter().collect();
        let cached = self.cached(name)?.into_iter();
        let cached = cached.filter(|file| !places.contains(&file.place()));
        let cached = cached.map(|file| api::Cached {
            place: file.place(),
            bytes: file.bytes,
            used: file
                .used
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        });
        let space = Space::of(culler.cache()).unwrap_or_default();
        let last = culler.last();
        let (pending, oldest) = report.pending();
        let stats = &report.stats;
        let totals = [
            ("opens", &stats.open),
            ("reads", &stats.read),
            ("closes", &stats.close),
            ("fetched_bytes", &stats.fetched),
            ("written_bytes", &stats.written),
            ("errors", &stats.errors),
            ("culled_files", &stats.culled_files),
            ("culled_bytes", &stats.culled),
        ];
        let totals: BTreeMap<_, _> = totals
            .into_iter()
            .map(|(name, total)| (name.to_string(), total.load(Relaxed)))
            .collect();
        Ok(Reply::Status(Box::new(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.0.since.elapsed().as_secs(),
            cache: api::Cache {
                directory: culler.cache().to_string_lossy().into_owned(),
                bytes: culler.held(),
                limit: culler.most(),
                disk_bytes: space.bytes,
                disk_free: space.free,
                full: culler.is_full(),
                in_use: last.unfinished && last.files == 0,
            },
            pending,
            oldest_seconds: oldest.as_secs_f64(),
            bandwidth: self.0.bandwidth.as_ref().map(Bandwidth::rate),
            totals,
            open,
            cached: cached.collect(),
        })))
    }

    fn prefetch(&self, name: &str) -> Reply {
        let open = self.open(Some(name));
        for (id, object) in &open {
            object.want(Some(0..object.size()));
            self.0.want_prefetch(object, *id);
        }
        Reply::Prefetch(Prefetching { open: open.len() })
    }

    fn background(&self, name: &str, on: bool) -> Reply {
        let open = self.open(Some(name));
        for (id, object) in &open {
            self.0.set_background(object, *id, on);
        }
        Reply::Prefetch(Prefetching { open: open.len() })
    }

    fn trace(&self, name: &str) -> Result<Reply, String> {
        if self.0.traces.is_none() {
            return Err("nothing is recorded without --trace-dir".into());
        }
        let mut traced = Traced {
            traces: 0,
            ranges: 0,
            bytes: 0,
        };
        for (_, object) in self.open(Some(name)) {
            if let Some(trace) = self.0.write_trace(&object)? {
                traced.traces += 1;
                traced.ranges += trace.ranges.len();
                traced.bytes += trace.ranges.iter().map(|(_, len)| len).sum::<u64>();
            }
        }
        Ok(Reply::Trace(traced))
    }

    fn cull(&self, name: Option<&str>, bytes: Option<u64>) -> Result<Reply, String> {
        let goal = match (name, bytes) {
            (Some(name), None) => Goal::Name(name),
            (None, Some(bytes)) => Goal::Bytes(bytes),
            (None, None) => Goal::Limits,
            _ => return Err("cull one blob or to a size, not both".into()),
        };
        let passed = self.0.culler.pass(goal, &*self.0)?;
        Ok(Reply::Cull(Culled {
            files: passed.files,
            bytes: passed.bytes,
            busy: passed.busy,
            left: passed.left,
            unfinished: passed.unfinished,
        }))
    }

    fn verify(&self, name: Option<&str>) -> Result<Reply, String> {
        let mut verified = Verified::default();
        for file in self.cached(name)? {
            if self.0.stop.is_set() {
                return Err("the daemon is stopping".into());
            }
            match self.verify_file(&file) {
                Ok((bytes, wrong)) => {
                    verified.files += 1;
                    verified.bytes += bytes;
                    for text in wrong {
                        let text = format!("{}: {text}", file.place());
                        self.0.report.metrics.verify_failure("cache");
                        self.0.report.error(&text);
                        verified.wrong.push(text);
                    }
                }
                Err(reason) => verified.skipped.push(format!("{}: {reason}", file.place())),
            }
        }
        Ok(Reply::Verify(verified))
    }

    /// Compares what is cached of a blob with its digests. Returns how much that was, and what is
    /// wrong.
    fn verify_file(&self, file: &Cached) -> Result<(u64, Vec<String>), String> {
        let daemon = &self.0;
        let keys = file.volume.strip_prefix('I').zip(file.key());
        let (volume, key) = keys.ok_or("its keys are not known")?;
        let (volume, key) = (volume.as_bytes(), key.as_bytes());
        let name = BlobName::from_keys(volume, key, daemon.options.by_domain);
        let name = name.map_err(|err| err.reason)?;
        let guard = Guard::new(daemon.options.limits);
        let blob = guard.run(|| daemon.source.open(&name));
        let blob = blob.map_err(|err| format!("the source does not have it: {err}"))?;
        let path = file.path();
        let fail = |err: io::Error| strip_code(&err);
        let data = open_quietly(&path).map_err(fail)?;
        if let Some(version) = blob.version() {
            let mut value = [0; 1024];
            let len = fgetxattr(&data, XATTR, &mut value[..]).unwrap_or(0);
            if !value[..len].ends_with(version.as_bytes()) {
                return Err("it is another version than that of the source".into());
            }
        }
        if let Some(index) = blob.index() {
            return verify_chunks(&data, index, &daemon.stop).map_err(fail);
        }
        let digest = blob.whole().ok_or("it has no digest")?;
        match whole::check(&path, blob.size(), digest, &daemon.stop).map_err(fail)? {
            Finding::Right => Ok((blob.size(), Vec::new())),
            Finding::Wrong => Ok((blob.size(), vec![format!("its digest is not {digest}")])),
            Finding::Unknown => Err("not all of it is there, and it has no chunk index".into()),
        }
    }
}

/// Opens a file of the cache without having it count as used.
fn open_quietly(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true);
    let quiet = options.clone().custom_flags(libc::O_NOATIME).open(path);
    quiet.or_else(|_| options.open(path))
}

/// How much of each part of a blob is in the cache, in percent.
fn map(object: &Object) -> Vec<u8> {
    let size = object.size().max(1);
    let bound = |part: u64| (u128::from(size) * u128::from(part) / u128::from(PARTS)) as u64;
    let mut present = vec![0; PARTS as usize];
    for range in object.data() {
        for (part, present) in (0..).zip(&mut present) {
            let (start, end) = (bound(part), bound(part + 1));
            *present += range.end.min(end).saturating_sub(range.start.max(start));
        }
    }
    let parts = (0..).zip(present);
    parts
        .map(|(part, present)| {
            let len = bound(part + 1) - bound(part);
            (present * 100).checked_div(len).unwrap_or(100) as u8
        })
        .collect()
}

/// Compares those chunks that are complete.
fn verify_chunks(file: &File, index: &ChunkIndex, stop: &Stop) -> io::Result<(u64, Vec<String>)> {
    let (mut bytes, mut wrong) = (0, Vec::new());
    let mut buf = Vec::new();
    for (at, chunk) in index.chunks().enumerate() {
        if stop.is_set() {
            break;
        }
        let data = seek(file, SeekFrom::Data(chunk.start)).ok();
        let hole = seek(file, SeekFrom::Hole(chunk.start)).ok();
        if data != Some(chunk.start) || hole.is_none_or(|hole| hole < chunk.end) {
            continue;
        }
        buf.resize((chunk.end - chunk.start) as usize, 0);
        let mut is_right = || {
            file.read_exact_at(&mut buf, chunk.start)?;
            Ok::<_, io::Error>(index.is_right(at, &buf))
        };
        // It may be just being written.
        if !is_right()? && !stop.sleep(Duration::from_millis(200)) && !is_right()? {
            let last = chunk.end - 1;
            wrong.push(format!(
                "{} to {last} do not have their digest",
                chunk.start
            ));
        }
        bytes += chunk.end - chunk.start;
    }
    Ok((bytes, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::{cache_file, MemoryBlob};

    #[test]
    fn the_map_shows_what_is_there() {
        let blob = MemoryBlob::new(40 * 8192);
        let file = cache_file(40 * 8192);
        file.write_all_at(&[1; 8192], 0).unwrap();
        file.write_all_at(&[1; 4096], 8192).unwrap();
        file.write_all_at(&[1; 8192], 39 * 8192).unwrap();
        let fd = file.try_clone().unwrap().into();
        let object = Object::new("blob".into(), blob, fd, 4096);
        let map = map(&object);
        assert_eq!(map.len(), 40);
        assert_eq!((map[0], map[1], map[2], map[39]), (100, 50, 0, 100));
        assert_eq!(object.cached(), 20_480);
    }

    #[test]
    fn complete_chunks_are_compared() {
        let data: Vec<u8> = (0..20_000u32).map(|i| (i % 251 + 1) as u8).collect();
        let index = ChunkIndex::build(&data[..], data.len() as u64, 4096, None).unwrap();
        let index = ChunkIndex::parse(&index).unwrap();
        let file = cache_file(20_480);
        let stop = Stop::new().unwrap();
        let verify = || verify_chunks(&file, &index, &stop).unwrap();
        assert_eq!(verify(), (0, vec![]));
        file.write_all_at(&data[4096..12_288], 4096).unwrap();
        file.write_all_at(&data[16_384..], 16_384).unwrap();
        assert_eq!(verify(), (8192 + 3616, vec![]));
        file.write_all_at(&[0], 5000).unwrap();
        let (bytes, wrong) = verify();
        assert_eq!(bytes, 8192 + 3616);
        assert_eq!(wrong, ["4096 to 8191 do not have their digest"]);
    }

    #[test]
    fn names_are_found_with_and_without_their_domain() {
        assert!(is_called("a", "a") && is_called("d/a", "a") && is_called("d/a", "d/a"));
        assert!(!is_called("d/a", "d") && !is_called("ba", "a"));
    }
}
