// SPDX-License-Identifier: GPL-2.0-or-later

//! Culling against a stand-in for the kernel, which removes files as the kernel does, from a disk
//! of which the size is made up.

use std::collections::HashSet;
use std::fs;

use proptest::prelude::*;

use super::*;
use crate::device::Triple;
use crate::guard::tests::LIMITS;
use crate::guard::Guard;
use crate::object::Quota;
use crate::store::tests::put;

const MIB: u64 = 1 << 20;

/// A kernel with a disk.
struct Fake {
    cache: PathBuf,
    disk: u64,
    /// The names that are in use.
    busy: Mutex<HashSet<String>>,
    culled: Mutex<Vec<String>>,
}

impl Fake {
    fn used(&self) -> u64 {
        store::scan(&self.cache).unwrap().bytes
    }

    fn free_percent(&self) -> u64 {
        self.disk.saturating_sub(self.used()) * 100 / self.disk
    }
}

impl Kernel for Fake {
    fn cull(&self, name: &str) -> io::Result<()> {
        let dir = std::env::current_dir().unwrap();
        assert!(dir.starts_with(self.cache.join("cache")), "{dir:?}");
        if self.busy.lock().unwrap().contains(name) {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        }
        let path = dir.join(name);
        if !path.exists() {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        self.culled.lock().unwrap().push(name.into());
        if path.is_dir() {
            let grave = self.cache.join("graveyard");
            fs::create_dir_all(&grave)?;
            return fs::rename(path, grave.join("0"));
        }
        fs::remove_file(path)
    }

    fn wants_room(&self) -> bool {
        self.free_percent() < 20
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space {
            bytes: self.disk,
            free: self.disk.saturating_sub(self.used()),
            ..Space::default()
        })
    }
}

/// The objects that are open have nothing in files without a name.
struct NoObjects;

impl Objects for NoObjects {
    fn cached(&self, _: u32) -> u64 {
        0
    }
}

struct Setup {
    fake: Arc<Fake>,
    culler: Arc<Culler>,
    _dir: tempfile::TempDir,
}

fn setup(disk: u64, most: Option<u64>) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake {
        cache: dir.path().into(),
        disk,
        busy: Mutex::default(),
        culled: Mutex::default(),
    });
    let limits = Limits {
        blocks: Triple {
            run: Some(30),
            cull: Some(20),
            stop: Some(10),
        },
        ..Limits::default()
    };
    let (report, stop) = (Report::silent(), Arc::new(Stop::new().unwrap()));
    let cache = dir.path().to_path_buf();
    let mut culler = Culler::new(cache, limits, most, fake.clone(), report, stop);
    // On a busy machine anything may take long.
    culler.patience = Duration::from_secs(24 * 3600);
    Setup {
        fake,
        culler: Arc::new(culler),
        _dir: dir,
    }
}

impl Setup {
    /// A file that was used so many seconds ago.
    fn put(&self, name: &str, len: u64, age: u64) {
        let path = put(
            &self.fake.cache,
            "Id",
            "@00",
            &format!("D{name}"),
            len as usize,
        );
        let used = SystemTime::now() - Duration::from_secs(age);
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_times(fs::FileTimes::new().set_accessed(used))
            .unwrap();
    }

    /// A pass in a thread of its own, which gets another working directory.
    fn pass(&self, goal: Goal<'_>) -> Passed {
        std::thread::scope(|scope| {
            let pass = scope.spawn(|| self.culler.pass(goal, &NoObjects));
            pass.join().unwrap().unwrap()
        })
    }

    fn culled(&self) -> Vec<String> {
        std::mem::take(&mut *self.fake.culled.lock().unwrap())
    }

    fn has(&self, name: &str) -> bool {
        self.fake
            .cache
            .join(format!("cache/Id/@00/D{name}"))
            .exists()
    }

    /// The thread; it ends with what is returned.
    fn run(&self) -> Running {
        let culler = self.culler.clone();
        let thread = std::thread::spawn(move || culler.run(&NoObjects));
        Running(self.culler.clone(), Some(thread))
    }
}

struct Running(Arc<Culler>, Option<std::thread::JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
        self.1.take().unwrap().join().unwrap();
    }
}

#[test]
fn the_oldest_go_until_the_limit_is_kept() {
    let s = setup(1000 * MIB, Some(16 * MIB));
    for (name, age) in [("a", 10), ("b", 40), ("c", 20), ("d", 30)] {
        s.put(name, 4 * MIB, age);
    }
    let passed = s.pass(Goal::Limits);
    assert_eq!(s.culled(), ["Db"]);
    assert_eq!(
        (passed.files, passed.bytes, passed.unfinished),
        (1, 4 * MIB, false)
    );
    assert_eq!(s.culler.held(), passed.left);
    assert_eq!(passed.left, s.fake.used());
    // The limit is kept: nothing is to be done.
    assert_eq!(s.pass(Goal::Limits).files, 0);
}

#[test]
fn the_kernel_gets_the_room_that_it_wants() {
    let s = setup(20 * MIB, None);
    for age in 0..9 {
        s.put(&age.to_string(), 2 * MIB, age + 1);
    }
    assert!(s.fake.wants_room());
    s.pass(Goal::Limits);
    assert_eq!(s.culled(), ["D8", "D7", "D6"]);
    assert!(s.fake.free_percent() >= 30);
    s.pass(Goal::Limits);
    assert!(s.culled().is_empty());
}

#[test]
fn what_is_in_use_stays() {
    let s = setup(1000 * MIB, Some(16 * MIB));
    for age in 0..5 {
        s.put(&age.to_string(), 4 * MIB, age + 1);
    }
    // As this daemon knows, and as only the kernel does.
    s.culler.opened(7, b"d", b"4");
    s.fake.busy.lock().unwrap().insert("D3".into());
    let passed = s.pass(Goal::Limits);
    assert_eq!(s.culled(), ["D2", "D1"]);
    // What was opened is the youngest, and was not come to.
    assert_eq!(passed.busy, 1);
    assert!(!passed.unfinished);
    s.culler.opened(8, b"d", b"0");
    let passed = s.pass(Goal::Bytes(0));
    assert_eq!((passed.files, passed.busy, passed.unfinished), (0, 3, true));
    // It was used when it was closed.
    s.culler.closed(7);
    s.fake.busy.lock().unwrap().clear();
    s.pass(Goal::Bytes(9 * MIB));
    assert_eq!(s.culled(), ["D3"]);
    assert!(s.has("4") && s.has("0"));
}

#[test]
fn times_of_use_survive_the_daemon() {
    let s = setup(1000 * MIB, None);
    s.put("old", MIB, 50);
    s.put("new", MIB, 20);
    s.culler.opened(1, b"d", b"old");
    s.culler.closed(1);
    s.pass(Goal::Limits);
    let files = store::scan(&s.fake.cache).unwrap().files;
    let used = |name: &str| files.iter().find(|file| file.name == name).unwrap().used;
    assert!(used("Dold") > used("Dnew"));
    // A new file has its name only some time after it was closed.
    s.culler.opened(2, b"d", b"later");
    s.culler.closed(2);
    s.pass(Goal::Limits);
    s.put("later", MIB, 90);
    s.pass(Goal::Bytes(2 * MIB + 12288));
    assert_eq!(s.culled(), ["Dnew"]);
}

#[test]
fn one_blob_can_be_removed() {
    let s = setup(1000 * MIB, None);
    s.put("a", MIB, 1);
    s.put("b", MIB, 2);
    let passed = s.pass(Goal::Name("a"));
    assert_eq!((passed.files, passed.unfinished), (1, false));
    assert_eq!(s.culled(), ["Da"]);
    assert_eq!(
        s.pass(Goal::Name("a")),
        Passed {
            left: passed.left,
            ..Passed::default()
        }
    );
    s.culler.opened(1, b"d", b"b");
    let passed = s.pass(Goal::Name("b"));
    assert_eq!((passed.files, passed.busy, passed.unfinished), (0, 1, true));
}

#[test]
fn volumes_without_files_are_buried() {
    let s = setup(1000 * MIB, None);
    s.put("a", MIB, 1);
    put(&s.fake.cache, "Iused", "@00", "Dx", 1);
    s.fake.busy.lock().unwrap().insert("Iused".into());
    s.pass(Goal::Bytes(0));
    assert_eq!(s.culled(), ["Da", "Dx", "Id"]);
    assert!(!s.fake.cache.join("cache/Id").exists());
    assert_eq!(
        fs::read_dir(s.fake.cache.join("graveyard"))
            .unwrap()
            .count(),
        0
    );
    assert!(s.fake.cache.join("cache/Iused").exists());
}

#[test]
fn files_without_a_name_count() {
    struct Half;
    impl Objects for Half {
        fn cached(&self, object_id: u32) -> u64 {
            u64::from(object_id) * MIB
        }
    }
    let s = setup(1000 * MIB, Some(16 * MIB));
    for age in 0..3 {
        s.put(&age.to_string(), 4 * MIB, age + 1);
    }
    s.culler.opened(3, b"d", b"new");
    // Has its name already.
    s.culler.opened(4, b"d", b"2");
    std::thread::scope(|scope| {
        let pass = scope.spawn(|| s.culler.pass(Goal::Limits, &Half));
        pass.join().unwrap().unwrap();
    });
    assert_eq!(s.culled(), ["D1"]);
    assert_eq!(s.culler.held(), s.fake.used() + 3 * MIB);
}

#[test]
fn a_fetch_that_finds_the_cache_full_waits_for_room() {
    let s = setup(20 * MIB, None);
    for age in 0..9 {
        s.put(&age.to_string(), 2 * MIB, age + 1);
    }
    s.put("9", 2 * MIB, 20);
    let write = || {
        if s.fake.free_percent() < 10 {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        s.put("fetched", MIB, 0);
        Ok(())
    };
    // All of it is in use for a moment.
    let names = (0..10).map(|name| format!("D{name}"));
    *s.fake.busy.lock().unwrap() = names.collect();
    assert!(s.culler.is_full());
    let running = s.run();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| Guard::new(LIMITS).run(|| s.culler.write(MIB, &write)));
        while s.culler.last().busy == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!s.has("fetched"));
        s.fake.busy.lock().unwrap().clear();
        write.join().unwrap().unwrap();
    });
    assert!(s.has("fetched") && !s.culler.is_full());
    assert_eq!(s.culled()[0], "D9");
    drop(running);
    // There is nobody to make room any more.
    let full = || Err(io::Error::from_raw_os_error(libc::ENOSPC));
    assert!(Guard::new(LIMITS)
        .run(|| s.culler.write(MIB, &full))
        .is_err());
}

#[test]
fn nobody_waits_for_ever_for_a_cache_that_is_in_use() {
    let mut s = setup(20 * MIB, None);
    let patience = Duration::from_millis(500);
    Arc::get_mut(&mut s.culler).unwrap().patience = patience;
    s.put("a", 19 * MIB, 1);
    s.culler.opened(1, b"d", b"a");
    let running = s.run();
    let full = || Err(io::Error::from_raw_os_error(libc::ENOBUFS));
    let write = || Guard::new(LIMITS).run(|| s.culler.write(MIB, &full));
    let begun = Instant::now();
    assert!(write().is_err());
    assert!(begun.elapsed() >= patience);
    // The next one knows, until something was removed.
    let tries = s.culler.state().asked;
    assert!(write().is_err());
    assert_eq!(s.culler.state().asked, tries);
    s.culler.closed(1);
    s.pass(Goal::Limits);
    assert!(!s.culler.state().hopeless);
    // Prefetching does not wait at all.
    let limits = crate::guard::Limits {
        retry: false,
        ..LIMITS
    };
    assert!(Guard::new(limits)
        .run(|| s.culler.write(MIB, &full))
        .is_err());
    drop(running);
}

#[test]
fn more_than_the_limit_is_written_if_all_is_in_use() {
    let s = setup(1000 * MIB, Some(16 * MIB));
    s.put("a", 16 * MIB, 1);
    s.culler.opened(1, b"d", b"a");
    s.culler.opened(2, b"d", b"b");
    let running = s.run();
    let write = || {
        s.put("b", MIB, 0);
        Ok(())
    };
    for _ in 0..3 {
        Guard::new(LIMITS)
            .run(|| s.culler.write(MIB, &write))
            .unwrap();
    }
    assert!(s.has("a") && s.has("b"));
    drop(running);
}

/// A month in which images are used as they are in practice: a few often, most of them once. As the
/// kernel does, each fetch fails that finds less than `stop` of the disk free.
fn month(seed: u64, most: Option<u64>) {
    let s = setup(64 * MIB, most);
    // The volume is in use all the time.
    s.fake.busy.lock().unwrap().insert("Id".into());
    let running = s.run();
    let mut random = seed;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut hits, mut open) = (0, std::collections::VecDeque::new());
    for use_of in 0..30 * 20 {
        let image = next(60).min(next(60)).min(next(60));
        let (name, id) = (format!("image{image}"), use_of as u32);
        let size = (1 + image % 5) * MIB;
        s.culler.opened(id, b"d", name.as_bytes());
        s.fake.busy.lock().unwrap().insert(format!("D{name}"));
        if s.has(&name) {
            hits += 1;
        } else {
            let write = || {
                if s.fake.free_percent() < 10 {
                    return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
                }
                s.put(&name, size, 0);
                s.culler.report.add(&s.culler.report.stats.written, size);
                Ok(())
            };
            Guard::new(LIMITS)
                .run(|| s.culler.write(size, &write))
                .unwrap();
            s.culler.wanted();
        }
        if let Some(most) = most {
            // Directories that were made since the last pass are not counted yet.
            let used = s.fake.used();
            assert!(used <= most + 65_536, "{used}");
        }
        // A few stay in use.
        open.push_back(id);
        while open.len() as u64 > next(4) {
            s.culler.closed(open.pop_front().unwrap());
        }
        let state = s.culler.state();
        let in_use = |name: &str| {
            let mut places = state.open.values();
            places.any(|place| place.ends_with(name))
        };
        let mut busy = s.fake.busy.lock().unwrap();
        busy.retain(|name| name == "Id" || in_use(name));
    }
    drop(running);
    assert!(s.culler.report.stats.culled_files.load(Relaxed) > 20);
    assert!(hits > 100, "{hits}");
}

#[test]
fn a_month_on_a_small_disk() {
    month(1, None);
}

#[test]
fn a_month_with_a_limit() {
    month(2, Some(40 * MIB));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_more_is_culled_than_has_to_be(
        files in prop::collection::vec((1u64..5, 0u64..1000, any::<bool>()), 0..20),
        most in 0u64..40,
    ) {
        let s = setup(1000 * MIB, None);
        for (at, (size, age, busy)) in files.iter().enumerate() {
            s.put(&at.to_string(), size * MIB, *age);
            if *busy {
                s.fake.busy.lock().unwrap().insert(format!("D{at}"));
            }
        }
        let before = s.fake.used();
        let passed = s.pass(Goal::Bytes(most * MIB));
        let culled: Vec<usize> = s.culled().iter().filter_map(|name| name[1..].parse().ok()).collect();
        let fits = before - passed.bytes <= most * MIB;
        prop_assert_eq!(passed.unfinished, !fits);
        prop_assert!(culled.iter().all(|at| !files[*at].2));
        // In the order of age; none that is younger than one that was left; the last one was
        // needed.
        prop_assert!(culled.windows(2).all(|pair| files[pair[0]].1 >= files[pair[1]].1));
        let youngest = culled.iter().map(|at| files[*at].1).min().unwrap_or(u64::MAX);
        for (at, (_, age, busy)) in files.iter().enumerate() {
            prop_assert!(*busy || culled.contains(&at) || *age <= youngest);
            prop_assert!(*busy || culled.contains(&at) || fits);
        }
        if let Some(last) = culled.last() {
            prop_assert!(before - passed.bytes + files[*last].0 * MIB > most * MIB);
        }
    }
}
