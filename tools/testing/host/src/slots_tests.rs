// SPDX-License-Identifier: GPL-2.0

//! The map of ids against a `BTreeMap`.

use crate::{
    support::{check, grow, looks, make_room, Host},
    table::slots::{Slots, Storage, Supply, Want},
};
use proptest::{
    collection::vec,
    prelude::{any, Just},
    prop_oneof,
    strategy::{BoxedStrategy, Strategy},
};
use std::collections::{BTreeMap, BTreeSet};

type Map = Slots<u64, Host>;

const CHUNK: usize = Host::CHUNK;
const MAX: usize = 1 << 20;

fn map(first: u32, last: u32, room: usize) -> Map {
    let mut map = Map::new(first, last, MAX);
    make_room(room, &mut map);
    map
}

/// The values that a map has, in the order of their places.
fn ids(map: &Map) -> Vec<u32> {
    (0..map.len()).map(|at| map.id_at(at).unwrap()).collect()
}

#[test]
fn a_new_map_is_empty_and_wants_memory() {
    let mut map = Map::new(0, u32::MAX, MAX);
    assert_eq!(map.room(), 0);
    assert_eq!(map.wants(0), None);
    assert_eq!(map.wants(1), Some(Want::Directory(8)));
    assert_eq!(map.insert(7), Err(7));
    assert_eq!(map.insert_at(3, 7), Err(7));
    assert_eq!(map.reserve(), Err(()));
    assert_eq!(map.insert_reserved(7), Err(7));
    for id in [0, 1, u32::MAX] {
        assert_eq!(map.get(id), None);
        assert_eq!(map.get_mut(id), None);
        assert_eq!(map.remove(id), None);
        assert_eq!(map.id_at(id as usize), None);
    }
    assert!(map.shrink().is_none());
    assert!(grow(1, &mut map));
    assert_eq!(map.wants(1), Some(Want::Chunk));
    assert!(grow(1, &mut map));
    assert_eq!(map.wants(CHUNK), None);
    assert_eq!(map.wants(CHUNK + 1), Some(Want::Chunk));
}

#[test]
fn all_of_the_room_can_be_used() {
    let mut map = map(0, u32::MAX, 4 * CHUNK);
    for value in 0..4 * CHUNK as u32 {
        assert_eq!(map.room(), 4 * CHUNK - value as usize);
        assert_eq!(map.insert(value.into()), Ok(value));
    }
    assert_eq!(map.insert(99), Err(99));
    assert_eq!(map.remove(5), Some(5));
    assert_eq!(map.insert(99), Ok(4 * CHUNK as u32));
}

#[test]
fn reservations_count_as_values() {
    let mut map = map(0, u32::MAX, CHUNK);
    for _ in 0..CHUNK - 1 {
        assert_eq!(map.reserve(), Ok(()));
    }
    assert_eq!(map.insert(1), Ok(0));
    assert_eq!(map.reserve(), Err(()));
    assert_eq!(map.insert(2), Err(2));
    for value in 0..CHUNK as u32 - 1 {
        assert_eq!(map.insert_reserved(value.into()), Ok(1 + value));
    }
    assert_eq!(map.insert_reserved(9), Err(9));
    assert_eq!(map.remove(0), Some(1));
    assert_eq!(map.reserve(), Ok(()));
    map.unreserve();
    assert_eq!(map.insert(3), Ok(CHUNK as u32));
}

#[test]
fn a_reservation_holds_while_others_insert() {
    let mut map = map(0, u32::MAX, CHUNK);
    assert_eq!(map.reserve(), Ok(()));
    let mut others = 0;
    while map.insert(0).is_ok() {
        others += 1;
    }
    assert_eq!(others, CHUNK - 1);
    assert!(map.insert_reserved(1).is_ok());
}

#[test]
fn giving_back_more_than_was_reserved_does_no_harm() {
    let mut map = map(0, u32::MAX, CHUNK);
    map.unreserve();
    assert_eq!(map.room(), CHUNK);
    assert_eq!(map.insert_reserved(1), Err(1));
}

#[test]
fn memory_that_somebody_else_brought_is_given_back() {
    let mut map = Map::new(0, u32::MAX, MAX);
    let bring = |want| Supply::<u64, Host>::bring(want).unwrap().unwrap();
    // Two at once.
    let lists = [bring(Want::Directory(8)), bring(Want::Directory(8))];
    for list in lists {
        assert!(matches!(map.grow(1, list), Some(Supply::Directory(_))));
    }
    let chunks = [bring(Want::Chunk), bring(Want::Chunk)];
    let given_back = chunks.map(|chunk| map.grow(1, chunk).is_some());
    assert_eq!(given_back, [false, true]);
    assert_eq!(map.room(), CHUNK);
    // One that has no place in the list.
    for _ in 0..8 * CHUNK {
        make_room(1, &mut map);
        map.insert(0).unwrap();
    }
    assert_eq!(map.wants(1), Some(Want::Directory(16)));
    assert!(map.grow(1, bring(Want::Chunk)).is_some());
    assert!(map.grow(1, bring(Want::Directory(4))).is_some());
    make_room(1, &mut map);
    assert_eq!(map.room(), CHUNK);
    assert_eq!(map.len(), 8 * CHUNK);
}

#[test]
fn ids_go_round_the_whole_range_before_one_comes_back() {
    // 1000 ids are no multiple of the chunks.
    let (first, last) = (1, 1000);
    let mut map = map(first, last, 3 * CHUNK);
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
    for _ in 0..100 {
        let id = map.insert(0).unwrap();
        map.remove(id);
        seen.push(id);
    }
    let expected: Vec<u32> = (3..=100).chain(3..=4).collect();
    assert_eq!(seen, expected);
    assert_eq!((map.get(1), map.get(2)), (Some(&7), Some(&8)));
}

#[test]
fn many_ids_in_use_are_skipped_at_once() {
    const MANY: u32 = 50_000;
    let last = 1 << 20;
    let mut map = map(0, last, MANY as usize + 2);
    for id in 0..MANY {
        assert_eq!(map.insert(0), Ok(id));
    }
    for _ in MANY..=last {
        let id = map.insert(1).unwrap();
        map.remove(id);
    }
    let (count, id) = looks(|| map.insert(2).unwrap());
    assert!(id > MANY && id < 3 * MANY, "{id}");
    assert!(count < 2000, "{count} looks");
    assert_eq!(map.get(id), Some(&2));
    // All are in use but one: it is found.
    let mut map = self::map(1, 200, 200);
    for id in 1..=200 {
        assert_eq!(map.insert(0), Ok(id));
    }
    map.remove(77);
    assert_eq!(map.insert(5), Ok(77));
}

#[test]
fn ids_wrap_at_the_end_of_32_bits() {
    let mut map = map(u32::MAX - 2, u32::MAX, CHUNK);
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
    let mut map = map(0, u32::MAX, CHUNK);
    let old = map.insert(1).unwrap();
    map.remove(old);
    for _ in 0..CHUNK - 1 {
        let id = map.insert(0).unwrap();
        map.remove(id);
    }
    let new = map.insert(2).unwrap();
    assert_eq!(new as usize % CHUNK, old as usize % CHUNK, "same chain");
    assert_eq!(map.get(old), None);
    assert_eq!(map.get_mut(old), None);
    assert_eq!(map.remove(old), None);
    assert_eq!(map.get(new), Some(&2));
}

#[test]
fn the_largest_map_is_bounded() {
    let mut map = Map::new(0, u32::MAX, 100);
    make_room(100, &mut map);
    for _ in 0..100 {
        assert!(map.insert(0).is_ok());
    }
    assert_eq!(map.insert(1), Err(1));
    assert_eq!(map.wants(1), Some(Want::Refused));
    assert!(Supply::<u64, Host>::bring(Want::Refused).unwrap().is_none());
}

#[test]
fn whoever_goes_from_the_last_to_the_first_misses_none() {
    let mut map = map(0, u32::MAX, 100);
    let mut left: BTreeSet<u32> = (0..100).map(|_| map.insert(0).unwrap()).collect();
    let mut at = map.len();
    while at > 0 {
        at = at.min(map.len()) - 1;
        left.remove(&map.id_at(at).unwrap());
        // Others come and go.
        let one = map.insert(0).unwrap();
        map.remove(one * 7 % 100);
        left.retain(|id| map.get(*id).is_some());
    }
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_takes_long_in_a_large_map() {
    // A chunk's chains at a time, whatever the size; the list of chunks is copied as a whole.
    let mut map = Map::new(0, u32::MAX, MAX);
    let mut most = 0;
    let mut copied = 0;
    for value in 0..100_000 {
        while let Some(want) = map.wants(1) {
            let supply = Supply::bring(want).unwrap().unwrap();
            let (count, _) = looks(|| map.grow(1, supply));
            match want {
                Want::Chunk => most = most.max(count),
                _ => copied = copied.max(count),
            }
        }
        let (count, id) = looks(|| map.insert(value));
        assert_eq!(id, Ok(value as u32));
        most = most.max(count);
    }
    for id in 0..100_000 {
        let (count, value) = looks(|| map.remove(id));
        assert_eq!(value, Some(id.into()));
        let (more, _) = looks(|| map.shrink());
        most = most.max(count).max(more);
    }
    assert!(most < 30 * CHUNK as u64, "{most} looks");
    // Twice for each chunk there is.
    assert!(copied < 3 * 100_000 / CHUNK as u64, "{copied} looks");
    // What a burst took is given back.
    assert!(map.room() <= 8 * CHUNK, "{} left", map.room());
}

#[derive(Clone, Debug)]
enum Op {
    Insert,
    InsertWithRoom,
    InsertAt(u32),
    Remove(usize),
    RemoveAny(u32),
    Reserve,
    Unreserve,
    InsertReserved,
    Grow(usize),
    Shrink(usize),
    GetMut(usize),
}

fn ops() -> BoxedStrategy<Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Insert),
        6 => Just(Op::InsertWithRoom),
        1 => (0u32..300).prop_map(Op::InsertAt),
        6 => any::<usize>().prop_map(Op::Remove),
        1 => (0u32..300).prop_map(Op::RemoveAny),
        3 => Just(Op::Reserve),
        1 => Just(Op::Unreserve),
        3 => Just(Op::InsertReserved),
        1 => (0usize..150).prop_map(Op::Grow),
        2 => (0usize..20).prop_map(Op::Shrink),
        2 => any::<usize>().prop_map(Op::GetMut),
    ];
    vec(op, 0..250).boxed()
}

/// The next id from `next` on that is not in use.
fn expected_id(model: &BTreeMap<u32, u64>, next: u32, ends: (u32, u32)) -> u32 {
    let mut id = next;
    while model.contains_key(&id) {
        id = if id == ends.1 { ends.0 } else { id + 1 };
    }
    id
}

fn run(ops: Vec<Op>, ends: (u32, u32)) {
    let mut map = Map::new(ends.0, ends.1, MAX);
    let mut model = BTreeMap::new();
    let (mut reserved, mut next, mut value, mut capacity) = (0, ends.0, 0u64, 0usize);
    for op in ops {
        value += 1;
        let fits = model.len() + reserved < capacity;
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
                added = Some(map.insert(value).unwrap());
            }
            Op::InsertAt(id) => {
                let expected = fits && !model.contains_key(&id);
                assert_eq!(map.insert_at(id, value).is_ok(), expected);
                if expected {
                    model.insert(id, value);
                }
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
            Op::Grow(extra) => {
                make_room(extra, &mut map);
                assert!(map.room() >= extra);
            }
            Op::Shrink(most) => {
                for _ in 0..most {
                    let used = model.len() + reserved;
                    let expected = capacity > CHUNK && 4 * used <= capacity;
                    assert_eq!(map.shrink().is_some(), expected);
                    capacity -= if expected { CHUNK } else { 0 };
                }
            }
            Op::GetMut(at) => {
                if let Some((id, expected)) = model.iter_mut().nth(at % (capacity + 1)) {
                    let found = map.get_mut(*id).unwrap();
                    assert_eq!(found, expected);
                    (*found, *expected) = (value, value);
                }
            }
        }
        if let Some(id) = added {
            assert_eq!(id, expected_id(&model, next, ends));
            next = if id == ends.1 { ends.0 } else { id + 1 };
            assert!((ends.0..=ends.1).contains(&id));
            assert_eq!(model.insert(id, value), None, "{id} is in use");
        }

        // The map is what the model is.
        capacity = map.room() + model.len() + reserved;
        assert_eq!(capacity % CHUNK, 0);
        for (id, value) in &model {
            assert_eq!(map.get(*id), Some(value));
            let other = id.wrapping_add(capacity as u32);
            assert_eq!(map.get(other), model.get(&other));
        }
        assert_eq!(map.len(), model.len());
        let mut walked = ids(&map);
        walked.sort_unstable();
        assert!(walked.iter().eq(model.keys()));
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
