// SPDX-License-Identifier: GPL-2.0

//! A map from cyclically allocated ids to values, in constant time and without allocating.
//!
//! An id's slot is the id modulo the (power of two) number of slots, and an id whose slot is taken
//! is skipped. So an id is not given out again before the whole range has gone by, a stale one is
//! recognised, and finding one costs a mask and a compare. At most half of the slots are in use or
//! reserved; when that is not enough, [`Slots::insert`] gives the value back and the caller brings
//! a larger buffer, allocated outside of the lock that the map lives under.

use core::ops::DerefMut;

/// Where buffers come from: `KVVec` in the driver, whatever tests have elsewhere.
pub(crate) trait Storage {
    type Buf<T>: DerefMut<Target = [T]> + Default;
}

/// A slot: an id and its value, or nothing.
pub(crate) type Slot<T> = Option<(u32, T)>;

/// See the [module's description](self).
///
/// # Invariants
///
/// - `buf.len()` is zero or a power of two.
/// - The value of `id` is in `buf[id % buf.len()]` or nowhere.
/// - `2 * (len + reserved) <= buf.len()`.
pub(crate) struct Slots<T, S: Storage> {
    buf: S::Buf<Slot<T>>,
    len: usize,
    reserved: usize,
    next: u32,
    first: u32,
    last: u32,
}

impl<T, S: Storage> Slots<T, S> {
    /// The fewest slots a non-empty map has.
    const MIN: usize = 64;
    /// The most slots a map may have: what bounds every queue made of it.
    pub(crate) const MAX: usize = 1 << 20;

    /// An empty map of ids from `first` to `last`.
    pub(crate) fn new(first: u32, last: u32) -> Self {
        Slots {
            buf: S::Buf::default(),
            len: 0,
            reserved: 0,
            next: first,
            first,
            last,
        }
    }

    /// How many slots the next buffer needs for `extra` more values, or `None` if the present one
    /// will do. More than [`Self::MAX`] must be refused.
    pub(crate) fn wants(&self, extra: usize) -> Option<usize> {
        let need = 2 * (self.len + self.reserved + extra);
        (need > self.buf.len()).then(|| need.next_power_of_two().max(Self::MIN))
    }

    /// Moves all values to `buf`, which has to be all `None`, and returns the old buffer for the
    /// caller to free. Returns `buf` itself if it is not larger than the present one or its size
    /// is not a power of two.
    pub(crate) fn grow(&mut self, mut buf: S::Buf<Slot<T>>) -> S::Buf<Slot<T>> {
        if buf.len() <= self.buf.len() || !buf.len().is_power_of_two() {
            return buf;
        }
        core::mem::swap(&mut self.buf, &mut buf);
        let mask = self.buf.len() - 1;
        for slot in buf.iter_mut() {
            if let Some((id, value)) = slot.take() {
                // Two ids that differ modulo the old size differ modulo the new one, its multiple.
                if let Some(new) = self.buf.get_mut(id as usize & mask) {
                    *new = Some((id, value));
                }
            }
        }
        buf
    }

    /// Sets a slot aside, so that one [`Self::insert_reserved`] cannot fail.
    pub(crate) fn reserve(&mut self) -> core::result::Result<(), ()> {
        if self.wants(1).is_some() {
            return Err(());
        }
        self.reserved += 1;
        Ok(())
    }

    /// Gives a reservation back.
    pub(crate) fn unreserve(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Adds a value under the next id, or gives it back if the buffer has to grow first.
    pub(crate) fn insert(&mut self, value: T) -> core::result::Result<u32, T> {
        if self.wants(1).is_some() {
            return Err(value);
        }
        // At most half of the slots are taken, so one is free within `buf.len()` ids.
        for _ in 0..=self.buf.len() {
            let id = self.next;
            self.next = if id == self.last { self.first } else { id + 1 };
            let mask = self.buf.len() - 1;
            if let Some(slot @ None) = self.buf.get_mut(id as usize & mask) {
                *slot = Some((id, value));
                self.len += 1;
                return Ok(id);
            }
        }
        Err(value)
    }

    /// Adds a value using up a reservation.
    pub(crate) fn insert_reserved(&mut self, value: T) -> core::result::Result<u32, T> {
        if self.reserved == 0 {
            return Err(value);
        }
        self.reserved -= 1;
        self.insert(value)
    }

    fn slot(&self, id: u32) -> Option<usize> {
        let slot = id as usize & self.buf.len().checked_sub(1)?;
        matches!(self.buf.get(slot), Some(Some((at, _))) if *at == id).then_some(slot)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        let slot = self.slot(id)?;
        self.buf.get(slot)?.as_ref().map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let slot = self.slot(id)?;
        self.buf.get_mut(slot)?.as_mut().map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.slot(id)?;
        let (_, value) = self.buf.get_mut(slot)?.take()?;
        self.len -= 1;
        Some(value)
    }

    /// The first id in use in slot `from` or after it, and the slot to go on from.
    pub(crate) fn next_used(&self, from: usize) -> Option<(u32, usize)> {
        self.buf
            .iter()
            .enumerate()
            .skip(from)
            .find_map(|(slot, entry)| entry.as_ref().map(|(id, _)| (*id, slot + 1)))
    }

    /// The number of slots.
    pub(crate) fn slots(&self) -> usize {
        self.buf.len()
    }

    /// The id in `slot`, if it is in use.
    pub(crate) fn id_at(&self, slot: usize) -> Option<u32> {
        self.buf.get(slot)?.as_ref().map(|(id, _)| *id)
    }
}
