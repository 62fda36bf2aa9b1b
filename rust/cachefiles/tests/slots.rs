// SPDX-License-Identifier: GPL-2.0

//! The map of ids, on the kernel's memory.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_slots))]
mod tests {
    use super::super::support::{
        buffer,
        Heap, //
    };
    use crate::ondemand::slots::Slots;

    type Map = Slots<u64, Heap>;

    fn map(first: u32, last: u32, len: usize) -> Map {
        let mut map = Map::new(first, last);
        let _empty = map.grow(buffer(len, || None));
        map
    }

    #[test]
    fn an_empty_map_wants_a_buffer() {
        let mut map = Map::new(0, 9);
        assert_eq!(map.wants(1), Some(64));
        assert_eq!(map.insert(7), Err(7));
        assert_eq!(map.grow(buffer(64, || None)).len(), 0);
        assert_eq!(map.slots(), 64);
        assert_eq!(map.insert(7), Ok(0));
    }

    #[test]
    fn half_of_the_slots_can_be_used() {
        let mut map = map(0, u32::MAX, 64);
        for value in 0..32 {
            assert_eq!(map.insert(value), Ok(value as u32));
        }
        assert_eq!(map.insert(32), Err(32));
        assert_eq!(map.reserve(), Err(()));
        // Growing keeps what is there.
        assert_eq!(map.grow(buffer(256, || None)).len(), 64);
        for value in 0..32 {
            assert_eq!(map.get(value as u32), Some(&value));
        }
        assert_eq!(map.insert(32), Ok(32));
        // A smaller buffer, or one of an odd size, is given back.
        assert_eq!(map.grow(buffer(128, || None)).len(), 128);
        assert_eq!(map.grow(buffer(300, || None)).len(), 300);
    }

    #[test]
    fn a_reservation_is_kept() {
        let mut map = map(0, u32::MAX, 64);
        assert_eq!(map.reserve(), Ok(()));
        while map.insert(0).is_ok() {}
        assert_eq!(map.insert_reserved(1), Ok(31));
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
                    // The slot may be the same; the value is not found.
                    assert_eq!(map.get(old), None);
                    assert_eq!(map.remove(old), None);
                }
                assert_eq!(map.remove(id), Some(round));
            }
        }
        assert_eq!(map.next_used(0), None);
    }
}
