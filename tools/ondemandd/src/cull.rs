// SPDX-License-Identifier: GPL-2.0-or-later

//! Culling: what was not used for longest is removed from a cache that is nearly full.
//!
//! There are two reasons for it. The kernel wants room on the file system ([`POLLOUT`]; how much,
//! follows from its limits in percent), or the cache has come near its own limit in bytes. A thread
//! of its own looks at the whole cache then, which is a *pass*, and has the kernel remove one file
//! after the other. The kernel does not remove what is in use; neither does anything here.
//!
//! Fetches that find the cache full wait for a pass, and for files that are in use for a moment
//! longer than anybody uses them: fscache gives a file up 10 s after that.
//!
//! [`POLLOUT`]: crate::device::Device::wants_room

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::device::{strip_code, Device, Limits};
use crate::guard;
use crate::object;
use crate::report::Report;
use crate::stop::Stop;
use crate::store::{self, Cached, Content, Place, Space};
use crate::sys;

/// The least time between two passes, if the first one has found nothing to remove. It doubles each
/// time, up to the second one.
const PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The same while a fetch waits.
const SHORT_PAUSE: Duration = Duration::from_millis(250);

/// How often the cache is looked at without a reason, to note with its files when they were used.
const IDLE: Duration = Duration::from_secs(600);

/// How long a fetch waits for room: longer than fscache keeps a file in use that nobody uses.
const PATIENCE: Duration = Duration::from_secs(20);

/// For how long it is remembered when a file was used that has no name yet.
const NAMELESS: Duration = Duration::from_secs(60);

/// What the kernel does for culling.
pub trait Kernel: Send + Sync {
    /// Removes a file or a directory from the working directory.
    fn cull(&self, name: &str) -> io::Result<()>;

    /// Whether room is wanted on the file system.
    fn wants_room(&self) -> bool;

    /// The file system of the cache.
    fn space(&self, cache: &Path) -> io::Result<Space> {
        Space::of(cache)
    }
}

impl Kernel for Device {
    fn cull(&self, name: &str) -> io::Result<()> {
        self.command(&format!("cull {name}"))
    }

    fn wants_room(&self) -> bool {
        Device::wants_room(self)
    }
}

/// What the daemon knows of its objects.
pub trait Objects {
    /// How many bytes of an object are in its file.
    fn cached(&self, object_id: u32) -> u64;
}

/// What is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal<'a> {
    /// What the limits say.
    Limits,
    /// So much that the cache has no more than this many bytes.
    Bytes(u64),
    /// The blob with this cookie key.
    Name(&'a str),
}

/// What came of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// What was removed.
    pub files: u64,
    pub bytes: u64,
    /// What could not be because it is in use.
    pub busy: u64,
    /// What is left in the cache, in bytes.
    pub left: u64,
    /// Whether more should have been removed.
    pub unfinished: bool,
}

pub struct Culler {
    cache: PathBuf,
    limits: Limits,
    /// The most bytes that the cache should have.
    most: Option<u64>,
    patience: Duration,
    kernel: Arc<dyn Kernel>,
    report: Arc<Report>,
    stop: Arc<Stop>,
    state: Mutex<State>,
    /// There is something to do, a pass is over, or this is the end.
    changed: Condvar,
    /// One pass at a time.
    passing: Mutex<()>,
    /// The kernel has said that it wants room, and no pass has begun since.
    wanted: AtomicBool,
    /// The cache has come near its limit, and no pass has begun since.
    near: AtomicBool,
    /// The bytes that are being written.
    writing: AtomicU64,
}

#[derive(Default)]
struct State {
    ended: bool,
    /// How many passes were asked for, and for how many of those there was one.
    asked: u64,
    done: u64,
    /// A fetch waits.
    urgent: bool,
    /// A fetch has waited in vain, and nothing was removed since.
    hopeless: bool,
    last: Passed,
    /// The objects that are open, ...
    open: HashMap<u32, Place>,
    /// ... and when those were last used that are or were.
    used: HashMap<Place, SystemTime>,
}

/// Culling begins when this part of a limit in bytes is not used any more, and ends when twice as
/// much is not.
const MARGIN: u64 = 16;

/// More than is written at once of what nobody waits for.
const SPARE: u64 = 4 << 20;

impl Culler {
    pub fn new(
        cache: PathBuf,
        limits: Limits,
        most: Option<u64>,
        kernel: Arc<dyn Kernel>,
        report: Arc<Report>,
        stop: Arc<Stop>,
    ) -> Self {
        let limit = &report.stats.cache_limit;
        limit.store(most.unwrap_or(0), Relaxed);
        Self {
            cache,
            limits,
            most,
            patience: PATIENCE,
            kernel,
            report,
            stop,
            state: Mutex::default(),
            changed: Condvar::new(),
            passing: Mutex::default(),
            wanted: AtomicBool::new(false),
            near: AtomicBool::new(false),
            writing: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory of the cache.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The most bytes that the cache should have.
    pub fn most(&self) -> Option<u64> {
        self.most
    }

    /// Where the objects are that are open.
    pub fn open_places(&self) -> Vec<Place> {
        self.state().open.values().cloned().collect()
    }

    /// An object was opened.
    pub fn opened(&self, object_id: u32, volume: &[u8], cookie: &[u8]) {
        let Some(place) = store::place(volume, cookie) else {
            return;
        };
        let mut state = self.state();
        state.used.insert(place.clone(), SystemTime::now());
        state.open.insert(object_id, place);
    }

    /// It was closed.
    pub fn closed(&self, object_id: u32) {
        let mut state = self.state();
        if let Some(place) = state.open.remove(&object_id) {
            state.used.insert(place, SystemTime::now());
        }
    }

    /// The kernel wants room.
    pub fn wanted(&self) {
        if !self.wanted.swap(true, Relaxed) {
            self.ask();
        }
    }

    fn ask(&self) {
        self.state().asked += 1;
        self.changed.notify_all();
    }

    /// How many bytes the cache has, but for what was removed in another way than by culling.
    pub fn held(&self) -> u64 {
        self.report.stats.cache()
    }

    /// What came of the last pass.
    pub fn last(&self) -> Passed {
        self.state().last
    }

    /// Whether the kernel takes no data.
    pub fn is_full(&self) -> bool {
        let (blocks, files) = (self.limits.blocks.stop(), self.limits.files.stop());
        let space = self.kernel.space(&self.cache);
        space.is_ok_and(|space| space.lacks(blocks, files) != (0, 0))
    }

    /// Whether something may be written that nobody waits for: nothing else has to be removed for it.
    pub fn has_room_to_spare(&self) -> bool {
        let used = self.held() + self.writing.load(Relaxed) + SPARE;
        let near = self.most.is_some_and(|most| used > most - most / MARGIN);
        !near && !self.kernel.wants_room() && !self.is_full()
    }

    /// The life of the thread.
    pub fn run(&self, objects: &dyn Objects) {
        let mut pause = PAUSE;
        let mut last = None;
        while self.wait(last, pause) {
            match self.pass(Goal::Limits, objects) {
                Ok(passed) => {
                    pause = match passed.files {
                        0 => (pause * 2).min(MAX_PAUSE),
                        _ => PAUSE,
                    };
                    last = Some((Instant::now(), passed));
                }
                Err(reason) => {
                    self.report.error(&format!("cannot cull: {reason}"));
                    pause = MAX_PAUSE;
                    last = Some((Instant::now(), Passed::default()));
                }
            }
        }
    }

    /// Waits until there is to be another pass; false: none any more.
    fn wait(&self, last: Option<(Instant, Passed)>, pause: Duration) -> bool {
        let mut state = self.state();
        loop {
            if state.ended {
                return false;
            }
            let Some((at, passed)) = last else {
                return true;
            };
            let asked = state.asked > state.done;
            let due = match asked || passed.unfinished {
                true if passed.files > 0 => Duration::ZERO,
                true if state.urgent => SHORT_PAUSE,
                true => pause,
                false => IDLE,
            };
            let left = due.saturating_sub(at.elapsed());
            if left.is_zero() {
                return true;
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the thread, and whoever waits for it.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Waits for a pass, and for a moment if that has removed nothing. Returns whether writing is
    /// worth a try now, for a fetch that has waited since `begun`.
    fn wait_for_room(&self, begun: Instant) -> bool {
        let mut state = self.state();
        if state.hopeless || state.ended {
            return false;
        }
        if begun.elapsed() > self.patience {
            state.hopeless = true;
            return false;
        }
        state.asked += 1;
        state.urgent = true;
        let ticket = state.asked;
        self.changed.notify_all();
        drop(state);
        loop {
            // Prefetching does not wait, and neither does what nobody wants any more.
            if guard::pause(Duration::ZERO, &self.stop).is_err() {
                return false;
            }
            let (state, _) = self
                .changed
                .wait_timeout_while(self.state(), SHORT_PAUSE, |state| {
                    state.done < ticket && !state.ended
                })
                .unwrap_or_else(PoisonError::into_inner);
            if state.ended {
                return false;
            }
            if state.done >= ticket {
                let freed = state.last.files > 0;
                drop(state);
                return freed || guard::pause(SHORT_PAUSE, &self.stop).is_ok();
            }
        }
    }

    /// Looks at the cache, and removes what is to be removed. A thread that calls it gets a working
    /// directory of its own.
    pub fn pass(&self, goal: Goal<'_>, objects: &dyn Objects) -> Result<Passed, String> {
        let _one = self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = {
            let mut state = self.state();
            state.urgent = false;
            state.asked
        };
        self.wanted.store(false, Relaxed);
        self.near.store(false, Relaxed);
        let result = self.pass_locked(goal, objects);
        let mut state = self.state();
        state.done = ticket;
        state.last = *result.as_ref().unwrap_or(&Passed::default());
        if state.last.files > 0 || !state.last.unfinished {
            state.hopeless = false;
        }
        drop(state);
        self.changed.notify_all();
        result
    }

    fn pass_locked(&self, goal: Goal<'_>, objects: &dyn Objects) -> Result<Passed, String> {
        let text = |what: &str, err: &io::Error| {
            format!("{what} {}: {}", self.cache.display(), strip_code(err))
        };
        let written = self.report.stats.written.load(Relaxed);
        let mut content = store::scan(&self.cache).map_err(|err| text("cannot look at", &err))?;
        let open = self.note_uses(&mut content.files);
        let nameless = nameless(&content, &open, objects);
        let total = content.bytes + nameless;
        let space = match self.kernel.space(&self.cache) {
            // Then there is nothing in it.
            Err(err) if err.kind() == ErrorKind::NotFound => Space::default(),
            space => space.map_err(|err| text("cannot ask for the space of", &err))?,
        };
        // What is being written comes in addition, or some of it does.
        let soon = total + self.writing.load(Relaxed);
        let (bytes, files) = self.goal(goal, soon, &space);
        let mut passed = Passed {
            left: total,
            ..Passed::default()
        };
        if bytes > 0 || files > 0 {
            let in_use: HashSet<&Place> = open.values().collect();
            content.files.sort_by_key(|file| file.used);
            self.remove(goal, &content, &in_use, (bytes, files), &mut passed)?;
        }
        passed.unfinished = passed.bytes < bytes || passed.files < files;
        if matches!(goal, Goal::Name(_)) {
            passed.unfinished = passed.busy > 0;
        }
        passed.left = total.saturating_sub(passed.bytes);
        let base = passed.left.wrapping_sub(written);
        self.report.stats.cache_base.store(base, Relaxed);
        self.bury(&content, passed.files > 0);
        if passed.files > 0 {
            self.report.culled(passed.files, passed.bytes, passed.left);
        }
        if goal == Goal::Limits {
            self.report
                .cache_stays_full(passed.unfinished && passed.files == 0, passed.busy);
        }
        Ok(passed)
    }

    /// How many bytes and files are to be removed at least.
    fn goal(&self, goal: Goal<'_>, total: u64, space: &Space) -> (u64, u64) {
        match goal {
            Goal::Bytes(most) => (total.saturating_sub(most), 0),
            Goal::Name(_) => (u64::MAX, u64::MAX),
            Goal::Limits => {
                let near = self.most.filter(|most| total > most - most / MARGIN);
                let own = near.map_or(0, |most| total - (most - most / MARGIN * 2));
                let (bytes, files) = if self.kernel.wants_room() {
                    space.lacks(self.limits.blocks.run(), self.limits.files.run())
                } else {
                    (0, 0)
                };
                (bytes.max(own), files)
            }
        }
    }

    /// Notes with the files when they were used. Returns the objects that are open.
    fn note_uses(&self, files: &mut [Cached]) -> HashMap<u32, Place> {
        let (open, mut used) = {
            let mut state = self.state();
            (state.open.clone(), std::mem::take(&mut state.used))
        };
        for file in files {
            if let Some(time) = used.remove(&file.place()) {
                if time > file.used {
                    // It may be gone. If it cannot be noted, this pass knows at least.
                    let _ = file.touch(time);
                }
            }
        }
        // A new file has no name before it is closed.
        used.retain(|_, time| time.elapsed().is_ok_and(|age| age < NAMELESS));
        let mut state = self.state();
        for (place, time) in used {
            state.used.entry(place).or_insert(time);
        }
        open
    }

    /// Has the kernel remove files, the one first that was not used for longest.
    fn remove(
        &self,
        goal: Goal<'_>,
        content: &Content,
        in_use: &HashSet<&Place>,
        (bytes, files): (u64, u64),
        passed: &mut Passed,
    ) -> Result<(), String> {
        sys::own_directory()
            .map_err(|err| format!("cannot have a working directory: {}", strip_code(&err)))?;
        let wanted = match goal {
            Goal::Name(name) => Some(format!("D{name}")),
            _ => None,
        };
        let mut dir: Option<&Path> = None;
        for file in &content.files {
            if (passed.bytes >= bytes && passed.files >= files) || self.stop.is_set() {
                break;
            }
            if wanted.as_ref().is_some_and(|name| *name != file.name) {
                continue;
            }
            if in_use.contains(&file.place()) {
                passed.busy += 1;
                continue;
            }
            if dir != Some(&*file.dir) {
                if let Err(err) = rustix::process::chdir(&*file.dir) {
                    self.report
                        .note(&format!("cannot cull in {}: {err}", file.dir.display()));
                    continue;
                }
                dir = Some(&file.dir);
            }
            match self.kernel.cull(&file.name) {
                Ok(()) => {
                    passed.files += 1;
                    passed.bytes += file.bytes;
                }
                Err(err) => match err.raw_os_error() {
                    Some(libc::EBUSY) => passed.busy += 1,
                    // Gone already.
                    Some(libc::ESTALE) => {}
                    _ => {
                        let path = file.path();
                        let (path, err) = (path.display(), strip_code(&err));
                        return Err(format!("the kernel does not remove {path}: {err}"));
                    }
                },
            }
        }
        Ok(())
    }

    /// Removes the directories of volumes that have no files and are not in use, which the kernel
    /// moves aside.
    fn bury(&self, content: &Content, removed: bool) {
        let mut empty: Vec<_> = content.volumes.iter().collect();
        if removed {
            // What is left in each was not counted.
            empty.retain(|(volume, _)| self.has_no_files(volume));
        } else {
            empty.retain(|(_, count)| **count == 0);
        }
        if !empty.is_empty() && sys::own_directory().is_ok() {
            let here = rustix::process::chdir(self.cache.join("cache"));
            for (volume, _) in empty {
                // EBUSY: a file system uses it.
                let _ = here.is_ok() && self.kernel.cull(volume).is_ok();
            }
        }
        if let Err(err) = store::empty_graveyard(&self.cache) {
            let text = format!("cannot delete what was culled: {}", strip_code(&err));
            self.report.note(&text);
        }
    }

    fn has_no_files(&self, volume: &str) -> bool {
        let dir = self.cache.join("cache").join(volume);
        let Ok(mut buckets) = std::fs::read_dir(dir) else {
            return false;
        };
        buckets.all(|bucket| {
            let inside = bucket.and_then(|bucket| std::fs::read_dir(bucket.path()));
            inside.is_ok_and(|mut inside| inside.next().is_none())
        })
    }
}

/// How much is in files that have no name yet, or are about to take the place of those that have
/// it.
fn nameless(content: &Content, open: &HashMap<u32, Place>, objects: &dyn Objects) -> u64 {
    let named: HashMap<Place, u64> = content
        .files
        .iter()
        .map(|file| (file.place(), file.bytes))
        .collect();
    open.iter()
        .map(|(id, place)| {
            let has = named.get(place).copied().unwrap_or(0);
            objects.cached(*id).saturating_sub(has)
        })
        .sum()
}

/// Counts the bytes that are being written.
struct Writing<'a>(&'a AtomicU64, u64);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

impl object::Quota for Culler {
    fn write(&self, bytes: u64, write: &dyn Fn() -> io::Result<()>) -> io::Result<()> {
        let begun = Instant::now();
        self.writing.fetch_add(bytes, Relaxed);
        let _writing = Writing(&self.writing, bytes);
        if let Some(most) = self.most {
            let held = || self.held() + self.writing.load(Relaxed);
            if held() > most - most / MARGIN && !self.near.swap(true, Relaxed) {
                self.ask();
            }
            // What is in use may be more than the limit: that is no reason to fail anybody.
            if held() > most && !self.last().unfinished {
                self.wait_for_room(begun);
            }
        }
        loop {
            let result = write();
            let full = result.as_ref().is_err_and(object::is_full);
            if !full || !self.wait_for_room(begun) {
                return result;
            }
        }
    }
}

impl Culler {
    /// Waits for room for a file, if there is none.
    pub fn make_room(&self) {
        let begun = Instant::now();
        while self.is_full() && self.wait_for_room(begun) {}
    }
}

#[cfg(test)]
mod tests;
