// SPDX-License-Identifier: GPL-2.0-or-later

//! How fast is fetched what nobody waits for, and what is to be tried again later.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many bytes in a second, over some seconds. What is not used in a second is lost.
///
/// Something is fetched if there is any room, however much it is, and what was too much is made up for
/// by waiting longer: so the size of what is fetched at once does not matter.
pub struct Bandwidth {
    rate: u64,
    state: Mutex<Bucket>,
}

struct Bucket {
    /// Bytes; below zero if too much was fetched.
    left: f64,
    at: Instant,
}

impl Bandwidth {
    pub fn new(rate: u64) -> Self {
        Self {
            rate,
            state: Mutex::new(Bucket {
                left: rate as f64,
                at: Instant::now(),
            }),
        }
    }

    /// In bytes per second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    fn bucket(&self, now: Instant) -> MutexGuard<'_, Bucket> {
        let mut bucket = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.at = bucket.at.max(now);
        let rate = self.rate as f64;
        bucket.left = (bucket.left + since * rate).min(rate);
        bucket
    }

    /// How long to wait before something is fetched.
    pub fn wait(&self, now: Instant) -> Duration {
        let left = self.bucket(now).left;
        if left > 0.0 {
            return Duration::ZERO;
        }
        // One byte more than nothing, and not without end if the rate is next to nothing.
        let seconds = ((1.0 - left) / self.rate as f64).min(3600.0);
        Duration::from_secs_f64(seconds)
    }

    /// So much was fetched.
    pub fn spend(&self, now: Instant, bytes: u64) {
        self.bucket(now).left -= bytes as f64;
    }

    /// What should be fetched at once, so that there is something to do in each quarter of a second.
    pub fn piece(&self) -> u64 {
        self.rate / 4
    }
}

/// Things that are to be done at some time, one for each key.
pub struct Later<K, J> {
    state: Mutex<Waiting<K, J>>,
    changed: Condvar,
}

struct Waiting<K, J> {
    jobs: HashMap<K, (Instant, J)>,
    ended: bool,
}

impl<K: Clone + Eq + Hash, J> Default for Later<K, J> {
    fn default() -> Self {
        Self {
            state: Mutex::new(Waiting {
                jobs: HashMap::new(),
                ended: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<K: Clone + Eq + Hash, J> Later<K, J> {
    fn state(&self) -> MutexGuard<'_, Waiting<K, J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job for a key; another one that waits for it is forgotten.
    pub fn put(&self, key: K, at: Instant, job: J) {
        self.state().jobs.insert(key, (at, job));
        self.changed.notify_all();
    }

    /// There is nothing to do for a key.
    pub fn remove(&self, key: &K) {
        self.state().jobs.remove(key);
    }

    /// Waits for the time of the next job; none: that is all.
    pub fn next(&self) -> Option<J> {
        let mut state = self.state();
        while !state.ended {
            let first = state.jobs.iter().min_by_key(|(_, (at, _))| *at);
            let left = match first {
                None => Duration::MAX,
                Some((key, (at, _))) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let key = key.clone();
                        return state.jobs.remove(&key).map(|(_, job)| job);
                    }
                    left
                }
            };
            // A very long time may be no time at all.
            let left = left.min(Duration::from_secs(3600));
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// Nothing is done any more.
    pub fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.jobs.clear();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_too_much_is_made_up_for() {
        let pace = Bandwidth::new(1000);
        let start = Instant::now();
        assert_eq!(pace.wait(start), Duration::ZERO);
        pace.spend(start, 5000);
        let wait = pace.wait(start);
        assert!(wait > 3 * SECOND && wait < 5 * SECOND, "{wait:?}");
        assert!(pace.wait(start + 3 * SECOND) > Duration::ZERO);
        assert_eq!(pace.wait(start + 5 * SECOND), Duration::ZERO);
        // What was not used for long is not more than a second's.
        let later = start + 1000 * SECOND;
        pace.spend(later, 2000);
        assert!(pace.wait(later) > SECOND / 2);
    }

    #[test]
    fn the_earliest_comes_first_and_one_for_each_key() {
        let later = Later::default();
        let now = Instant::now();
        later.put(1, now, "never");
        later.put(2, now - SECOND, "first");
        later.put(1, now, "second");
        later.put(3, now, "removed");
        later.remove(&3);
        assert_eq!(later.next(), Some("first"));
        assert_eq!(later.next(), Some("second"));
        later.put(1, now + 1000 * SECOND, "never");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| later.next());
            later.put(4, Instant::now(), "now");
            assert_eq!(waits.join().unwrap(), Some("now"));
            let waits = scope.spawn(|| later.next());
            later.end();
            assert_eq!(waits.join().unwrap(), None);
        });
    }

    proptest! {
        /// Whoever waits as long as it is told to never gets more than the rate over any time, but
        /// for the second at the start and the last piece.
        #[test]
        fn the_rate_is_kept(rate in 1u64..1 << 30, pieces in proptest::collection::vec((0u64..1 << 22, 0u64..3000), 1..50)) {
            let pace = Bandwidth::new(rate);
            let start = Instant::now();
            let (mut now, mut sum) = (start, 0);
            for (piece, pause) in pieces {
                now += Duration::from_millis(pause);
                let wait = pace.wait(now);
                if wait >= Duration::from_secs(3600) {
                    break;
                }
                now += wait + Duration::from_nanos(1);
                prop_assert_eq!(pace.wait(now), Duration::ZERO);
                let most = rate as f64 * ((now - start).as_secs_f64() + 1.0);
                prop_assert!(sum as f64 <= most * 1.000_001 + 1.0, "{} {}", sum, most);
                pace.spend(now, piece);
                sum += piece;
            }
        }
    }
}
