// SPDX-License-Identifier: GPL-2.0

//! The map of ids, on the kernel's memory.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_slots))]
mod tests {
    use super::super::support::{
        make_room,
        Heap, //
    };
    use crate::table::slots::{
        Slots,
        Supply,
        Want, //
    };

    type Map = Slots<u64, Heap>;

    const MAX: usize = 1 << 20;

    fn map(first: u32, last: u32, room: usize) -> Map {
        let mut map = Map::new(first, last, MAX);
        make_room(&mut map, room);
        map
    }

    #[test]
    fn an_empty_map_wants_memory() {
        let mut map = Map::new(0, 9, MAX);
        assert_eq!(map.insert(7), Err(7));
        assert!(matches!(map.wants(1), Some(Want::Directory(_))));
        assert!(make_room(&mut map, 1));
        assert_eq!(map.wants(1), None);
        assert_eq!(map.insert(7), Ok(0));
    }

    #[test]
    fn a_map_is_used_to_its_end() {
        let mut map = map(0, u32::MAX, 64);
        for value in 0..64 {
            assert_eq!(map.insert(value), Ok(value as u32));
        }
        assert_eq!(map.insert(64), Err(64));
        assert_eq!(map.reserve(), Err(()));
        // Growing and shrinking keep what is there.
        assert!(make_room(&mut map, 1000));
        for value in 0..64 {
            assert_eq!(map.get(value as u32), Some(&value));
        }
        assert_eq!(map.insert(64), Ok(64));
        let mut count = 0;
        while let Some(spare) = map.shrink() {
            assert!(matches!(spare, Supply::Chunk(_)));
            count += 1;
        }
        assert!(count > 0);
        for value in 0..65 {
            assert_eq!(map.remove(value as u32), Some(value));
        }
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn a_map_grows_no_more_than_it_may() {
        let mut map = Map::new(0, u32::MAX, 70);
        assert!(make_room(&mut map, 70));
        assert_eq!(map.wants(71), Some(Want::Refused));
        assert!(!make_room(&mut map, 71));
    }

    #[test]
    fn a_reservation_is_kept() {
        let mut map = map(0, u32::MAX, 64);
        assert_eq!(map.reserve(), Ok(()));
        while map.insert(0).is_ok() {}
        assert_eq!(map.insert_reserved(1), Ok(63));
        assert_eq!(map.insert_reserved(2), Err(2));
    }

    #[test]
    fn ids_come_back_only_after_all_others() {
        let (first, last) = (u32::MAX - 199, u32::MAX);
        let mut map = map(first, last, 64);
        let mut stale = None;
        for round in 0..3 {
            for id in first..=last {
                assert_eq!(map.insert(round), Ok(id));
                if let Some(old) = stale.replace(id) {
                    // The place may be the same; the value is not found.
                    assert_eq!(map.get(old), None);
                    assert_eq!(map.remove(old), None);
                }
                assert_eq!(map.remove(id), Some(round));
            }
        }
        assert_eq!(map.id_at(0), None);
    }
}
