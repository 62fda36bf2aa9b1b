// SPDX-License-Identifier: GPL-2.0

//! The map of ids against a `BTreeMap`.

use crate::{
    ondemand::slots::Slots,
    support::{check, empty, make_room, Host},
};
use proptest::{
    collection::vec,
    prelude::{any, Just},
    prop_oneof,
    strategy::{BoxedStrategy, Strategy},
};
use std::collections::{BTreeMap, BTreeSet};

type Map = Slots<u64, Host>;

fn map(first: u32, last: u32, slots: usize) -> Map {
    let mut map = Map::new(first, last);
    assert!(map.grow(empty(slots)).is_empty());
    map
}

/// Values that still fit, as `wants` tells.
fn room(map: &Map) -> usize {
    (0..).find(|n| map.wants(n + 1).is_some()).unwrap()
}

#[test]
fn a_new_map_is_empty_and_wants_a_buffer() {
    let mut map = Map::new(0, u32::MAX);
    assert_eq!(map.slots(), 0);
    assert_eq!(map.wants(0), None);
    assert_eq!(map.wants(1), Some(64));
    assert_eq!(map.insert(7), Err(7));
    assert_eq!(map.reserve(), Err(()));
    assert_eq!(map.insert_reserved(7), Err(7));
    for id in [0, 1, u32::MAX] {
        assert_eq!(map.get(id), None);
        assert_eq!(map.get_mut(id), None);
        assert_eq!(map.remove(id), None);
        assert_eq!(map.id_at(id as usize), None);
    }
    assert_eq!(map.next_used(0), None);
}

#[test]
fn at_most_half_of_the_slots_are_used() {
    let mut map = map(0, u32::MAX, 64);
    for value in 0..32 {
        assert_eq!(map.wants(1), None);
        assert_eq!(map.insert(value), Ok(value as u32));
    }
    assert_eq!(map.wants(1), Some(128));
    assert_eq!(map.insert(32), Err(32));
    assert_eq!(map.wants(33), Some(256));
    assert_eq!(map.wants(96), Some(256));
    assert_eq!(map.wants(97), Some(512));
    assert_eq!(map.remove(5), Some(5));
    assert_eq!(map.insert(33), Ok(32));
}

#[test]
fn reservations_count_as_values() {
    let mut map = map(0, u32::MAX, 64);
    for _ in 0..31 {
        assert_eq!(map.reserve(), Ok(()));
    }
    assert_eq!(map.insert(1), Ok(0));
    assert_eq!(map.reserve(), Err(()));
    assert_eq!(map.insert(2), Err(2));
    for value in 0..31 {
        assert_eq!(map.insert_reserved(value), Ok(1 + value as u32));
    }
    assert_eq!(map.insert_reserved(9), Err(9));
    assert_eq!(map.remove(0), Some(1));
    assert_eq!(map.reserve(), Ok(()));
    map.unreserve();
    assert_eq!(map.insert(3), Ok(32));
}

#[test]
fn a_reservation_holds_while_others_insert() {
    let mut map = map(0, u32::MAX, 64);
    assert_eq!(map.reserve(), Ok(()));
    let mut others = 0;
    while map.insert(0).is_ok() {
        others += 1;
    }
    assert_eq!(others, 31);
    assert!(map.insert_reserved(1).is_ok());
}

#[test]
fn giving_back_more_than_was_reserved_does_no_harm() {
    let mut map = map(0, u32::MAX, 64);
    map.unreserve();
    assert_eq!(room(&map), 32);
    assert_eq!(map.insert_reserved(1), Err(1));
}

#[test]
fn only_larger_buffers_of_a_power_of_two_are_taken() {
    let mut map = map(0, u32::MAX, 64);
    assert_eq!(map.insert(5), Ok(0));
    for len in [0, 1, 32, 63, 64, 65, 96, 127, 200] {
        assert_eq!(map.grow(empty(len)).len(), len, "not given back");
        assert_eq!(map.slots(), 64);
    }
    let old = map.grow(empty(128));
    assert_eq!(old.len(), 64);
    assert!(old.iter().all(Option::is_none), "values left behind");
    assert_eq!(map.get(0), Some(&5));
}

#[test]
fn ids_go_round_the_whole_range_before_one_comes_back() {
    // 1000 ids are no multiple of the slots.
    let (first, last) = (1, 1000);
    let mut map = map(first, last, 64);
    for round in 0..5 {
        for expected in first..=last {
            assert_eq!(map.insert(0), Ok(expected), "round {round}");
            assert_eq!(map.remove(expected), Some(0));
        }
    }
}

#[test]
fn an_id_in_use_is_skipped() {
    let mut map = map(1, 100, 64);
    assert_eq!(map.insert(7), Ok(1));
    assert_eq!(map.insert(8), Ok(2));
    let mut seen = Vec::new();
    for _ in 0..98 {
        let id = map.insert(0).unwrap();
        map.remove(id);
        seen.push(id);
    }
    // 65 and 66 share the slots of 1 and 2, which are in use.
    let expected: Vec<u32> = (3..=64).chain(67..=100).chain(3..=4).collect();
    assert_eq!(seen, expected);
    assert_eq!((map.get(1), map.get(2)), (Some(&7), Some(&8)));
}

#[test]
fn ids_wrap_at_the_end_of_32_bits() {
    let mut map = map(u32::MAX - 2, u32::MAX, 64);
    let ids: Vec<u32> = (0..7)
        .map(|_| {
            let id = map.insert(0).unwrap();
            map.remove(id);
            id
        })
        .collect();
    let top = u32::MAX;
    assert_eq!(ids, [top - 2, top - 1, top, top - 2, top - 1, top, top - 2]);
}

#[test]
fn a_stale_id_finds_nothing() {
    let mut map = map(0, u32::MAX, 64);
    let old = map.insert(1).unwrap();
    map.remove(old);
    for _ in 0..63 {
        let id = map.insert(0).unwrap();
        map.remove(id);
    }
    let new = map.insert(2).unwrap();
    assert_eq!(new % 64, old % 64, "same slot");
    assert_eq!(map.get(old), None);
    assert_eq!(map.get_mut(old), None);
    assert_eq!(map.remove(old), None);
    assert_eq!(map.get(new), Some(&2));
}

#[test]
fn the_largest_map_is_bounded() {
    assert_eq!(Map::MAX, 1 << 20);
    let mut map = map(0, u32::MAX, Map::MAX);
    for _ in 0..Map::MAX / 2 {
        assert!(map.insert(0).is_ok());
    }
    assert_eq!(map.insert(1), Err(1));
    assert!(map.wants(1).unwrap() > Map::MAX);
}

#[derive(Clone, Debug)]
enum Op {
    Insert,
    InsertWithRoom,
    Remove(usize),
    RemoveAny(u32),
    Reserve,
    Unreserve,
    InsertReserved,
    Grow(u32),
    GetMut(usize),
}

fn ops() -> BoxedStrategy<Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Insert),
        6 => Just(Op::InsertWithRoom),
        6 => any::<usize>().prop_map(Op::Remove),
        1 => (0u32..300).prop_map(Op::RemoveAny),
        3 => Just(Op::Reserve),
        1 => Just(Op::Unreserve),
        3 => Just(Op::InsertReserved),
        1 => (0u32..10).prop_map(Op::Grow),
        2 => any::<usize>().prop_map(Op::GetMut),
    ];
    vec(op, 0..250).boxed()
}

/// The next id from `next` on whose slot is free.
fn expected_id(model: &BTreeMap<u32, u64>, slots: usize, next: u32, ends: (u32, u32)) -> u32 {
    let taken: BTreeSet<usize> = model.keys().map(|id| *id as usize % slots).collect();
    let mut id = next;
    while taken.contains(&(id as usize % slots)) {
        id = if id == ends.1 { ends.0 } else { id + 1 };
    }
    id
}

fn run(ops: Vec<Op>, ends: (u32, u32)) {
    let mut map = Map::new(ends.0, ends.1);
    let mut model = BTreeMap::new();
    let (mut reserved, mut next, mut value, mut slots) = (0, ends.0, 0u64, 0usize);
    for op in ops {
        value += 1;
        let fits = 2 * (model.len() + reserved + 1) <= slots;
        let mut added = None;
        match op {
            Op::Insert => match map.insert(value) {
                Ok(id) => {
                    assert!(fits);
                    added = Some(id);
                }
                Err(back) => {
                    assert!(!fits);
                    assert_eq!(back, value);
                }
            },
            Op::InsertWithRoom => {
                make_room(1, &mut map);
                slots = map.slots();
                added = Some(map.insert(value).unwrap());
            }
            Op::InsertReserved => match map.insert_reserved(value) {
                Ok(id) => {
                    assert!(reserved > 0);
                    reserved -= 1;
                    added = Some(id);
                }
                Err(back) => assert_eq!((reserved, back), (0, value)),
            },
            Op::Reserve => {
                assert_eq!(map.reserve().is_ok(), fits);
                reserved += usize::from(fits);
            }
            Op::Unreserve => {
                map.unreserve();
                reserved = reserved.saturating_sub(1);
            }
            Op::Remove(at) => {
                if let Some(id) = model.keys().nth(at % model.len().max(1)).copied() {
                    assert_eq!(map.remove(id), model.remove(&id));
                    assert_eq!(map.remove(id), None);
                }
            }
            Op::RemoveAny(id) => assert_eq!(map.remove(id), model.remove(&id)),
            Op::Grow(log) => {
                let len = 1usize << log;
                let back = map.grow(empty(len));
                let taken = len > slots;
                assert_eq!(back.len(), if taken { slots } else { len });
                slots = slots.max(len);
            }
            Op::GetMut(at) => {
                if let Some((id, expected)) = model.iter_mut().nth(at % (slots + 1)) {
                    let found = map.get_mut(*id).unwrap();
                    assert_eq!(found, expected);
                    (*found, *expected) = (value, value);
                }
            }
        }
        if let Some(id) = added {
            assert_eq!(id, expected_id(&model, slots, next, ends));
            next = if id == ends.1 { ends.0 } else { id + 1 };
            assert!((ends.0..=ends.1).contains(&id));
            assert_eq!(model.insert(id, value), None, "{id} is in use");
        }

        // The map is what the model is.
        assert_eq!(map.slots(), slots);
        for (id, value) in &model {
            assert_eq!(map.get(*id), Some(value));
            assert_eq!(map.id_at(*id as usize % slots), Some(*id));
            assert_eq!(map.get(id.wrapping_add(slots as u32)), None);
        }
        let mut walked = BTreeSet::new();
        let mut from = 0;
        while let Some((id, after)) = map.next_used(from) {
            assert!(after > from);
            from = after;
            assert!(walked.insert(id));
        }
        assert!(walked.iter().eq(model.keys()));
        assert_eq!(room(&map), slots / 2 - model.len() - reserved);
    }
}

#[test]
fn any_use_is_that_of_a_map() {
    check(300, ops(), |ops| run(ops, (0, u32::MAX)));
}

#[test]
fn any_use_with_few_ids_is_that_of_a_map() {
    // More ids than values that the operations can add, but they go round several times.
    check(300, (ops(), 600u32..700), |(ops, last)| run(ops, (1, last)));
}

#[test]
fn any_use_at_the_end_of_32_bits_is_that_of_a_map() {
    check(300, (ops(), 520u32..600), |(ops, below)| {
        run(ops, (u32::MAX - below, u32::MAX));
    });
}
