// SPDX-License-Identifier: GPL-2.0

//! Lookups that are under way.
//!
//! fscache calls `lookup_cookie()` in a worker that all caches and all network file systems share,
//! and that withdrawals need as well. A lookup must not block it until a daemon answers. So it
//! queues the OPEN and waits a [moment](MOMENT), if not many others do. A daemon that has the
//! answer at hand gives it by then, and the lookup goes on.
//!
//! Otherwise it takes two calls. The first [puts the lookup off](Lookup::put_off) and ends without
//! an object. When the daemon answers, the answer is [stored](Cookie::answer) in the cookie. The
//! opener waits for that in its own context, killably, and has the cookie looked up again. The
//! second call claims the answer and makes the object.
//!
//! From the first call on a [`PendingOpen`] is in [`Opens`], under its cookie. It ends when a
//! lookup claims it; with an answer that is an error; with the time limit or the cache; when no
//! task uses the cookie any more; or when its answer has not been claimed for a minute, or for 5 s
//! in which no answer at all was claimed. [`Requests`](super::Requests) checks these once a second.
//!
//! # Locks
//!
//! The lock of [`Opens`] orders an answer and the calls that look for one. It is a spinlock, and
//! nothing is taken under it. It is not taken under the table's. The order of all locks is in
//! `cachefiles-rust-internals.rst`, "Locks".

use crate::{
    kernel_next::{
        fscache::{
            Cookie,
            Lookup, //
        },
        sync::Completion, //
    },
    object::Object, //
};
use kernel::{
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode, //
    },
    sync::{
        aref::ARef,
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        lock::{
            spinlock::SpinLockBackend,
            Guard, //
        },
        Arc,
        SetOnce,
        SpinLock, //
    },
    time::msecs_to_jiffies, //
};

/// How many milliseconds a lookup blocks a worker of fscache at most: longer than a daemon takes
/// that has the answer at hand, too short to be noticed by others who need the worker.
const MOMENT: u32 = 10;

/// Which version of an object the daemon serves: an opaque string that it gave with the size.
#[derive(Clone)]
pub(crate) struct Version(Arc<KVec<u8>>);

impl Version {
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        let mut version = KVec::with_capacity(bytes.len(), GFP_KERNEL)?;
        version.extend_from_slice(bytes, GFP_KERNEL)?;
        Ok(Version(Arc::new(version, GFP_KERNEL)?))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// What the daemon says of an object that it can serve.
#[derive(Clone)]
pub(crate) struct Answer {
    /// The size in bytes.
    pub(crate) size: u64,
    pub(crate) version: Option<Version>,
}

impl Answer {
    /// The version; empty if the daemon gave none.
    pub(crate) fn version(&self) -> &[u8] {
        self.version
            .as_ref()
            .map(Version::as_bytes)
            .unwrap_or_default()
    }
}

/// An OPEN that a lookup has queued.
#[pin_data]
pub(crate) struct PendingOpen {
    cookie: ARef<Cookie>,
    object: Arc<Object>,
    /// When it was queued, in milliseconds.
    since: u64,
    /// The id of the OPEN in the request table. Set under the table's lock, before the daemon can
    /// answer.
    msg_id: SetOnce<u32>,
    /// Set under the lock of [`Opens`].
    answer: SetOnce<Answer>,
    /// Completed when there is an answer, or there never will be.
    #[pin]
    over: Completion,
    /// Whether the lookup that queued it may be waiting for `over`. Cleared under the lock of
    /// [`Opens`].
    is_awaited: Atomic<i32>,
    /// For how long no lookup has claimed the answer, see [`Self::tick_unclaimed`].
    unclaimed: Atomic<i32>,
}

impl PendingOpen {
    pub(super) fn new(cookie: &Cookie, object: Arc<Object>, since: u64) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(PendingOpen {
                cookie: cookie.into(),
                object,
                since,
                msg_id: SetOnce::new(),
                answer: SetOnce::new(),
                over <- Completion::new(),
                is_awaited: Atomic::new(1),
                unclaimed: Atomic::new(0),
            }),
            GFP_KERNEL,
        )
    }

    pub(super) fn object(&self) -> &Arc<Object> {
        &self.object
    }

    pub(super) fn since(&self) -> u64 {
        self.since
    }

    pub(super) fn set_msg_id(&self, msg_id: u32) {
        self.msg_id.populate(msg_id);
    }

    /// The message id, once it is queued.
    pub(super) fn msg_id(&self) -> Option<u32> {
        self.msg_id.copy()
    }

    /// The daemon's answer, if it has answered and the object can be had.
    pub(super) fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// Counts a [`CHECK_INTERVAL`](super::line::CHECK_INTERVAL) in which there is an answer that no
    /// lookup has claimed. To be called once in each. `any_claimed` is whether another answer was
    /// [claimed](Opens::take_claimed) in the interval.
    ///
    /// Returns true after 60 intervals, or after 5 in which no answer was claimed, not counting
    /// that of the answer: then the opener is gone, though others use the cookie. It is 60 because
    /// very many openers on a slow machine have their turn one after the other.
    pub(super) fn tick_unclaimed(&self, any_claimed: bool) -> bool {
        const LONG: i32 = 60;
        let step = if any_claimed { 1 } else { LONG / 5 };
        self.answer().is_some() && self.unclaimed.fetch_add(step, Relaxed) + step > LONG
    }

    /// Whether no task uses the cookie any more, so that none waits for the answer.
    pub(super) fn is_unwanted(&self) -> bool {
        !self.cookie.is_in_use() || self.cookie.is_given_up()
    }
}

type Tree = RBTree<usize, Arc<PendingOpen>>;

struct Inner {
    /// By the addresses of the cookies, to which the values hold references.
    tree: Tree,
    /// Whether the cache is dead: then answers of the daemon count as `EIO`.
    closed: bool,
    /// Whether an answer was claimed since the last [`Opens::take_claimed`].
    claimed: bool,
}

/// How far the lookup of a cookie has got.
pub(super) enum LookupState {
    /// The OPEN is still to be queued.
    Nothing,
    /// The OPEN is queued; the lookup was put off.
    Queued,
    /// The OPEN was answered; the caller owns it now.
    Answered(Arc<PendingOpen>),
}

/// The OPENs that lookups have queued, see the [module's description](self).
#[pin_data]
pub(super) struct Opens {
    #[pin]
    inner: SpinLock<Inner>,
    /// How many lookups wait for an answer.
    waiting: Atomic<i32>,
}

impl Opens {
    /// How many are looked at without releasing the lock.
    const STRIDE: usize = 256;
    /// How many lookups wait at the same time at most.
    const WAITING: i32 = 32;

    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            inner <- new_spinlock!(Inner {
                tree: RBTree::new(),
                closed: false,
                claimed: false,
            }),
            waiting: Atomic::new(0),
        })
    }

    /// Looks for the OPEN of a cookie. Puts the lookup off if it has no answer yet.
    pub(super) fn find(&self, lookup: &Lookup<'_>) -> LookupState {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.tree.find_mut(&lookup.address()) else {
            return LookupState::Nothing;
        };
        if entry.get().answer().is_none() {
            lookup.put_off();
            return LookupState::Queued;
        }
        let node = entry.remove_node();
        inner.claimed = true;
        drop(inner);
        let (_, open) = node.to_key_value();
        LookupState::Answered(open)
    }

    /// Adds the OPEN of a cookie that has none, and puts the lookup off.
    pub(super) fn add(&self, lookup: &Lookup<'_>, open: Arc<PendingOpen>) -> Result {
        let node = RBTreeNode::new(lookup.address(), open, GFP_KERNEL)?;
        let mut inner = self.inner.lock();
        lookup.put_off();
        let _none = inner.tree.insert(node);
        Ok(())
    }

    /// Waits a [moment](MOMENT) for the answer to an OPEN that the caller has queued, if not many
    /// lookups do. Returns whether there is one, which the caller has claimed then; otherwise the
    /// lookup stays put off.
    pub(super) fn wait(&self, open: &Arc<PendingOpen>) -> bool {
        if self.waiting.fetch_add(1, Relaxed) < Self::WAITING {
            // No signal is sent to a worker.
            let _ = open
                .over
                .wait_for_completion_killable_timeout(msecs_to_jiffies(MOMENT));
        }
        self.waiting.fetch_sub(1, Relaxed);
        let mut inner = self.inner.lock();
        open.is_awaited.store(0, Relaxed);
        if open.answer().is_none() {
            return false;
        }
        let node = Self::take(&mut inner.tree, open);
        inner.claimed |= node.is_some();
        drop(inner);
        node.is_some()
    }

    /// Removes an OPEN. Returns whether it was still there.
    pub(super) fn remove(&self, open: &Arc<PendingOpen>) -> bool {
        let mut inner = self.inner.lock();
        let node = Self::take(&mut inner.tree, open);
        drop(inner);
        node.is_some()
    }

    fn take(
        tree: &mut Tree,
        open: &Arc<PendingOpen>,
    ) -> Option<RBTreeNode<usize, Arc<PendingOpen>>> {
        let entry = tree.find_mut(&open.cookie.address())?;
        Arc::ptr_eq(entry.get(), open).then(|| entry.remove_node())
    }

    /// Stores the answer to an OPEN, and wakes the task that waits for it. Returns whether the OPEN
    /// stays, to be claimed; otherwise the caller has to drop its object.
    pub(super) fn store_answer(&self, open: &Arc<PendingOpen>, answer: Result<Answer>) -> bool {
        let mut inner = self.inner.lock();
        let answer = if inner.closed { Err(EIO) } else { answer };
        open.cookie
            .answer(answer.as_ref().map(|answer| answer.size).map_err(|e| *e));
        let stays = match answer {
            Ok(answer) => open.answer.populate(answer),
            Err(_) => false,
        };
        let node = match stays {
            true => None,
            false => Self::take(&mut inner.tree, open),
        };
        Self::wake(inner, open);
        drop(node);
        stays
    }

    /// Wakes the task that waits for an OPEN: the lookup that has queued it, or else the opener.
    fn wake(inner: Guard<'_, Inner, SpinLockBackend>, open: &PendingOpen) {
        let is_awaited = open.is_awaited.load(Relaxed) != 0;
        drop(inner);
        open.over.complete_all();
        // Otherwise the lookup goes on, and fscache wakes the opener at its end.
        if !is_awaited {
            open.cookie.wake();
        }
    }

    /// Removes an OPEN whose cookie was not in use; the caller has to drop its object. An opener
    /// that has begun to use the cookie since, and found the OPEN queued, is told a size, so that
    /// it has the cookie looked up again, which queues another OPEN.
    pub(super) fn cancel(&self, open: &Arc<PendingOpen>) {
        let mut inner = self.inner.lock();
        let again = open.cookie.is_in_use() && !inner.closed;
        open.cookie.answer(if again { Ok(0) } else { Err(EIO) });
        let node = Self::take(&mut inner.tree, open);
        Self::wake(inner, open);
        drop(node);
    }

    /// Looks, from the address `from` on, for an OPEN that is `over`. Returns it, if there is one
    /// among the next [`STRIDE`](Self::STRIDE), and the address to go on from; `None` after the
    /// last.
    #[allow(clippy::type_complexity)]
    pub(super) fn next(
        &self,
        from: usize,
        over: impl Fn(&PendingOpen) -> bool,
    ) -> Option<(Option<Arc<PendingOpen>>, usize)> {
        let mut inner = self.inner.lock();
        let mut cursor = inner.tree.cursor_lower_bound_mut(&from)?;
        for _ in 0..Self::STRIDE {
            let (address, open) = cursor.current();
            if over(open) {
                return Some((Some(open.clone()), address + 1));
            }
            cursor = cursor.move_next()?;
        }
        let (address, _) = cursor.current();
        Some((None, *address))
    }

    /// Whether a lookup has claimed an answer since the last call.
    pub(super) fn take_claimed(&self) -> bool {
        core::mem::take(&mut self.inner.lock().claimed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.lock().tree.is_empty()
    }

    /// The cache is dead: answers from here on are errors. Returns an OPEN that was answered and
    /// not claimed, if there is one: the caller has to drop its object.
    pub(super) fn close(&self) -> Option<Arc<PendingOpen>> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let open = inner
            .tree
            .values()
            .find(|open| open.answer().is_some())?
            .clone();
        let node = Self::take(&mut inner.tree, &open);
        drop(inner);
        drop(node);
        Some(open)
    }
}
