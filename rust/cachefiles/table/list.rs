// SPDX-License-Identifier: GPL-2.0

//! Doubly linked lists of what is in [`Slots`], linked by id.

use super::slots::{
    Slots,
    Storage, //
};

/// The id of nothing. Nothing that is on a list has this id.
const NONE: u32 = u32::MAX;

fn some(id: u32) -> Option<u32> {
    (id != NONE).then_some(id)
}

/// The neighbours on a list.
#[derive(Clone, Copy)]
pub(super) struct Link {
    prev: u32,
    next: u32,
}

impl Link {
    /// The one before it on the list.
    pub(super) fn prev(&self) -> Option<u32> {
        some(self.prev)
    }
}

impl Default for Link {
    fn default() -> Self {
        Link {
            prev: NONE,
            next: NONE,
        }
    }
}

/// The ends of a list.
#[derive(Clone, Copy)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        List {
            head: NONE,
            tail: NONE,
        }
    }
}

/// One list's link in what is on it.
pub(super) type Field<T> = fn(&mut T) -> &mut Link;

impl List {
    pub(super) fn first(&self) -> Option<u32> {
        some(self.head)
    }

    pub(super) fn last(&self) -> Option<u32> {
        some(self.tail)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Whether `id` is on this list, and nothing else.
    pub(super) fn is_only(&self, id: u32) -> bool {
        self.head == id && self.tail == id
    }

    /// Whether `id` is at one of the ends.
    pub(super) fn ends_with(&self, id: u32) -> bool {
        self.head == id || self.tail == id
    }

    pub(super) fn push_back<T, S: Storage>(&mut self, of: &mut Slots<T, S>, id: u32, at: Field<T>) {
        if let Some(link) = of.get_mut(id).map(at) {
            *link = Link {
                prev: self.tail,
                next: NONE,
            };
        }
        match self.last().and_then(|tail| of.get_mut(tail)) {
            Some(tail) => at(tail).next = id,
            None => self.head = id,
        }
        self.tail = id;
    }

    pub(super) fn push_front<T, S: Storage>(
        &mut self,
        of: &mut Slots<T, S>,
        id: u32,
        at: Field<T>,
    ) {
        if let Some(link) = of.get_mut(id).map(at) {
            *link = Link {
                prev: NONE,
                next: self.head,
            };
        }
        match self.first().and_then(|head| of.get_mut(head)) {
            Some(head) => at(head).prev = id,
            None => self.tail = id,
        }
        self.head = id;
    }

    /// Takes `id`, which has to be on this list, off it. What is at neither end may be taken off
    /// through any list.
    pub(super) fn unlink<T, S: Storage>(&mut self, of: &mut Slots<T, S>, id: u32, at: Field<T>) {
        let Some(link) = of.get_mut(id).map(|value| core::mem::take(at(value))) else {
            return;
        };
        match some(link.prev).and_then(|prev| of.get_mut(prev)) {
            Some(prev) => at(prev).next = link.next,
            None => self.head = link.next,
        }
        match some(link.next).and_then(|next| of.get_mut(next)) {
            Some(next) => at(next).prev = link.prev,
            None => self.tail = link.prev,
        }
    }

    /// Appends all that is on `other`.
    pub(super) fn append<T, S: Storage>(
        &mut self,
        of: &mut Slots<T, S>,
        other: List,
        at: Field<T>,
    ) {
        let Some(head) = other.first() else {
            return;
        };
        if let Some(link) = of.get_mut(head).map(at) {
            link.prev = self.tail;
        }
        match self.last().and_then(|tail| of.get_mut(tail)) {
            Some(tail) => at(tail).next = head,
            None => self.head = head,
        }
        self.tail = other.tail;
    }
}
