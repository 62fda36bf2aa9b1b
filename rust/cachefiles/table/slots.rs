// SPDX-License-Identifier: GPL-2.0

//! A map from 32-bit ids to values, in constant time and without allocating.
//!
//! Ids are given out cyclically: one is not given out again before nearly the whole range has gone
//! by, so a stale one is recognised.
//!
//! The map lives under a spinlock and may become large, so no operation on it may take long.
//! Values are kept densely in *chunks*, and so are the heads of the chains by which an id is
//! found. The map grows and shrinks by a chunk at a time, which redistributes the chains of one
//! chunk (linear hashing). Removing a value moves the last one into its place.
//!
//! Memory is allocated and freed outside of the lock: [`Slots::wants`] says what is needed,
//! [`Supply::bring`] allocates it, [`Slots::grow`] takes it, and [`Slots::shrink`] gives it back.

use core::{
    cell::Cell,
    ops::DerefMut, //
};

/// A buffer of a fixed capacity.
pub(crate) trait Buffer<T>: DerefMut<Target = [T]> + Default {
    /// Appends a value, or gives it back if the buffer is full. Does not allocate.
    fn put(&mut self, value: T) -> core::result::Result<(), T>;

    /// Removes the last value. Does not free memory.
    fn take_last(&mut self) -> Option<T>;

    fn capacity(&self) -> usize;
}

/// Where buffers come from: `KVVec` in the driver, whatever tests have elsewhere.
pub(crate) trait Storage: Sized {
    type Buf<T>: Buffer<T>;
    type Error;

    /// How many values a chunk has room for: a power of two.
    const CHUNK: usize;

    /// Allocates an empty buffer for `capacity` values. May sleep.
    fn alloc<T>(capacity: usize) -> core::result::Result<Self::Buf<T>, Self::Error>;
}

/// The index of no value: the end of a chain.
const NIL: u32 = u32::MAX;

struct Node<T> {
    id: u32,
    /// The index of the next value in the chain.
    next: u32,
    value: T,
}

/// A part of a map's memory.
pub(crate) struct Chunk<T, S: Storage> {
    nodes: S::Buf<Node<T>>,
    /// The first value of each chain.
    heads: S::Buf<u32>,
}

/// What a map needs before it takes more values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Another chunk.
    Chunk,
    /// A list of chunks with room for so many.
    Directory(usize),
    /// More than it may ever have.
    Refused,
}

/// Memory for a map, or no longer needed by one.
pub(crate) enum Supply<T, S: Storage> {
    Chunk(Chunk<T, S>),
    Directory(S::Buf<Chunk<T, S>>),
}

impl<T, S: Storage> Supply<T, S> {
    /// Allocates what is wanted. May sleep. `None` if that is refused.
    pub(crate) fn bring(want: Want) -> core::result::Result<Option<Self>, S::Error> {
        Ok(match want {
            Want::Refused => None,
            Want::Directory(len) => Some(Supply::Directory(S::alloc(len)?)),
            Want::Chunk => {
                let mut heads = S::alloc(S::CHUNK)?;
                for _ in 0..S::CHUNK {
                    // There is room.
                    let _ = heads.put(NIL);
                }
                Some(Supply::Chunk(Chunk {
                    nodes: S::alloc(S::CHUNK)?,
                    heads,
                }))
            }
        })
    }
}

/// See the [module's description](self).
///
/// # Invariants
///
/// - `len + reserved <= chunks.len() * CHUNK`, and of the values with the indices from 0 to `len`,
///   each is in chunk `index / CHUNK` at `index % CHUNK`.
/// - Each value is on the chain that [`Slots::chain`] says, and on no other.
pub(crate) struct Slots<T, S: Storage> {
    chunks: S::Buf<Chunk<T, S>>,
    len: usize,
    reserved: usize,
    max: usize,
    next: u32,
    first: u32,
    last: u32,
    /// The index of the value that was found last: what is done to a value is done in several
    /// steps, each of which looks for it.
    found: Cell<u32>,
}

impl<T, S: Storage> Slots<T, S> {
    /// How many ids in a row [`Slots::insert`] tries before it begins to skip some.
    const TRIES: u32 = 32;
    /// The fewest chunks a list of chunks has room for.
    const DIRECTORY: usize = 8;

    /// An empty map of at most `max` values, with ids from `first` to `last`.
    pub(crate) fn new(first: u32, last: u32, max: usize) -> Self {
        Slots {
            chunks: Default::default(),
            len: 0,
            reserved: 0,
            max,
            next: first,
            first,
            last,
            found: Cell::new(NIL),
        }
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many more values there is room for.
    pub(crate) fn room(&self) -> usize {
        (self.chunks.len() * S::CHUNK).min(self.max) - self.len - self.reserved
    }

    /// What is needed for `extra` more values, or for the first of them that there is no room for.
    /// `None` if there is room.
    pub(crate) fn wants(&self, extra: usize) -> Option<Want> {
        let chunks = self.chunks.len();
        if extra <= self.room() {
            None
        } else if self.len + self.reserved + extra > self.max {
            Some(Want::Refused)
        } else if chunks == self.chunks.capacity() {
            Some(Want::Directory((2 * chunks).max(Self::DIRECTORY)))
        } else {
            Some(Want::Chunk)
        }
    }

    /// Takes memory that [`Self::wants`] has asked for, for `extra` more values. Returns what is
    /// to be freed: memory that is not needed, because another task was faster, or not any more.
    #[must_use]
    pub(crate) fn grow(&mut self, extra: usize, supply: Supply<T, S>) -> Option<Supply<T, S>> {
        match (supply, self.wants(extra)) {
            (Supply::Chunk(chunk), Some(Want::Chunk)) => self.add_chunk(chunk).map(Supply::Chunk),
            (Supply::Directory(mut list), Some(Want::Directory(_))) => {
                if list.capacity() > self.chunks.capacity() {
                    self.move_chunks(&mut list);
                }
                Some(Supply::Directory(list))
            }
            (supply, _) => Some(supply),
        }
    }

    /// Exchanges the list of chunks for a larger, empty one.
    fn move_chunks(&mut self, list: &mut S::Buf<Chunk<T, S>>) {
        while let Some(chunk) = self.chunks.take_last() {
            // There is room: it is larger.
            let _ = list.put(chunk);
        }
        list.reverse();
        core::mem::swap(&mut self.chunks, list);
    }

    /// Adds a chunk, or gives it back if the list of chunks is full.
    fn add_chunk(&mut self, chunk: Chunk<T, S>) -> Option<Chunk<T, S>> {
        let at = self.chunks.len();
        if let Err(chunk) = self.chunks.put(chunk) {
            return Some(chunk);
        }
        if let Some(source) = Self::split_from(at) {
            for offset in 0..S::CHUNK {
                let head = self.swap_head(source, offset, NIL);
                self.redistribute(head);
            }
        }
        None
    }

    /// Gives back a chunk, if three quarters of the room are not used. The list of chunks, which is
    /// small beside them, stays as large as it is.
    #[must_use]
    pub(crate) fn shrink(&mut self) -> Option<Supply<T, S>> {
        let chunks = self.chunks.len();
        if chunks < 2 || 4 * (self.len + self.reserved) > chunks * S::CHUNK {
            return None;
        }
        // By the invariants there is no value in it.
        let chunk = self.chunks.take_last()?;
        for head in chunk.heads.iter() {
            self.redistribute(*head);
        }
        Some(Supply::Chunk(chunk))
    }

    /// The chunk whose chains are shared out when chunk `at` is added.
    fn split_from(at: usize) -> Option<usize> {
        Some(at - (1 << at.checked_ilog2()?))
    }

    /// Where the head of the chain is that `id` belongs to: in which chunk, and where in it.
    fn chain(&self, id: u32) -> (usize, usize) {
        let (number, offset) = (id as usize / S::CHUNK, id as usize % S::CHUNK);
        let round = self.chunks.len().next_power_of_two();
        let chunk = number & (round - 1);
        // Chunks that are not there yet have their chains where they will be split from.
        if chunk < self.chunks.len() {
            (chunk, offset)
        } else {
            (chunk - round / 2, offset)
        }
    }

    /// Gives a chain another head; returns the one it has had.
    fn swap_head(&mut self, chunk: usize, offset: usize, head: u32) -> u32 {
        let chunk = self.chunks.get_mut(chunk);
        match chunk.and_then(|chunk| chunk.heads.get_mut(offset)) {
            Some(at) => core::mem::replace(at, head),
            None => NIL,
        }
    }

    fn head(&self, id: u32) -> u32 {
        let (chunk, offset) = self.chain(id);
        let chunk = self.chunks.get(chunk);
        let head = chunk.and_then(|chunk| chunk.heads.get(offset));
        head.copied().unwrap_or(NIL)
    }

    /// Puts the values of a chain on the chains that they belong to now.
    fn redistribute(&mut self, mut at: u32) {
        while let Some(node) = self.node(at) {
            let (id, next) = (node.id, node.next);
            self.link(id, at);
            at = next;
        }
    }

    /// Puts the value at `at`, which is that of `id`, on its chain.
    fn link(&mut self, id: u32, at: u32) {
        let (chunk, offset) = self.chain(id);
        let next = self.swap_head(chunk, offset, at);
        if let Some(node) = self.node_mut(at) {
            node.next = next;
        }
    }

    /// Makes whatever refers to index `old` on the chain of `id` refer to `new`.
    fn relink(&mut self, id: u32, old: u32, new: u32) {
        let mut at = self.head(id);
        if at == old {
            let (chunk, offset) = self.chain(id);
            self.swap_head(chunk, offset, new);
            return;
        }
        while let Some(node) = self.node_mut(at) {
            if node.next == old {
                node.next = new;
                return;
            }
            at = node.next;
        }
    }

    #[inline]
    fn node(&self, at: u32) -> Option<&Node<T>> {
        let chunk = self.chunks.get(at as usize / S::CHUNK)?;
        chunk.nodes.get(at as usize % S::CHUNK)
    }

    #[inline]
    fn node_mut(&mut self, at: u32) -> Option<&mut Node<T>> {
        let chunk = self.chunks.get_mut(at as usize / S::CHUNK)?;
        chunk.nodes.get_mut(at as usize % S::CHUNK)
    }

    /// The index of the value of `id`.
    #[inline]
    fn find(&self, id: u32) -> Option<u32> {
        let found = self.found.get();
        match self.node(found) {
            Some(node) if node.id == id => Some(found),
            _ => self.search(id),
        }
    }

    fn search(&self, id: u32) -> Option<u32> {
        let mut at = self.head(id);
        loop {
            let node = self.node(at)?;
            if node.id == id {
                self.found.set(at);
                return Some(at);
            }
            at = node.next;
        }
    }

    /// Sets room for a value aside, so that one [`Self::insert_reserved`] cannot fail.
    pub(crate) fn reserve(&mut self) -> core::result::Result<(), ()> {
        if self.room() == 0 {
            return Err(());
        }
        self.reserved += 1;
        Ok(())
    }

    /// Gives a reservation back.
    pub(crate) fn unreserve(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// The id that is `step` after `id`.
    fn after(&self, id: u32, step: u64) -> u32 {
        let range = u64::from(self.last - self.first) + 1;
        // CAST: Below `range`, and so no more than `last - first`.
        self.first + ((u64::from(id - self.first) + step) % range) as u32
    }

    /// How far to go on after so many ids that were in use: farther and farther, if many in a row
    /// are, for there are far more ids than values; in the end one at a time, to find one for
    /// sure.
    fn step(tries: u32) -> u64 {
        match tries.checked_sub(Self::TRIES) {
            Some(jumps @ 0..=20) => 2 << jumps,
            _ => 1,
        }
    }

    /// Adds a value under the next id, or gives it back if the map has to grow first.
    pub(crate) fn insert(&mut self, value: T) -> core::result::Result<u32, T> {
        if self.room() == 0 {
            return Err(value);
        }
        let (mut id, mut tries) = (self.next, 0);
        while self.find(id).is_some() {
            id = self.after(id, Self::step(tries));
            tries += 1;
        }
        self.next = self.after(id, 1);
        self.add(id, value).map(|()| id)
    }

    /// Adds a value using up a reservation.
    pub(crate) fn insert_reserved(&mut self, value: T) -> core::result::Result<u32, T> {
        if self.reserved == 0 {
            return Err(value);
        }
        self.reserved -= 1;
        self.insert(value)
    }

    /// Adds a value under an id that is not in use. Gives it back if the map has to grow first, or
    /// the id is in use.
    pub(crate) fn insert_at(&mut self, id: u32, value: T) -> core::result::Result<(), T> {
        if self.room() == 0 || self.find(id).is_some() {
            return Err(value);
        }
        self.add(id, value)
    }

    fn add(&mut self, id: u32, value: T) -> core::result::Result<(), T> {
        let Some(chunk) = self.chunks.get_mut(self.len / S::CHUNK) else {
            return Err(value);
        };
        let node = Node {
            id,
            next: NIL,
            value,
        };
        chunk.nodes.put(node).map_err(|node| node.value)?;
        // CAST: No map has that many values.
        let at = self.len as u32;
        self.len += 1;
        self.link(id, at);
        Ok(())
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        Some(&self.node(self.find(id)?)?.value)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let at = self.find(id)?;
        Some(&mut self.node_mut(at)?.value)
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let at = self.find(id)?;
        let next = self.node(at)?.next;
        self.relink(id, at, next);

        // The last one takes its place.
        let last = self.len.checked_sub(1)?;
        let node = self.chunks.get_mut(last / S::CHUNK)?.nodes.take_last()?;
        self.len = last;
        // CAST: No map has that many values.
        let last = last as u32;
        if at == last {
            return Some(node.value);
        }
        self.relink(node.id, last, at);
        let place = self.node_mut(at)?;
        Some(core::mem::replace(place, node).value)
    }

    /// The id of the value at `index`, from 0 to [`Self::len`]. Adding a value changes no index,
    /// removing one gives its own to the last: so whoever goes from the last to the first misses
    /// none.
    pub(crate) fn id_at(&self, index: usize) -> Option<u32> {
        Some(self.node(u32::try_from(index).ok()?)?.id)
    }
}
