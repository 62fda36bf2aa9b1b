// SPDX-License-Identifier: GPL-2.0

//! Where a network file system reads from, and what of its writes is kept.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_source))]
mod tests {
    use super::super::support::{
        buffer,
        Buf, //
    };
    use crate::{
        disk::presence::{
            parts,
            Part,
            Presence,
            LEAF_WORDS, //
        },
        plan::source::{
            align,
            source,
            touched,
            Aligned,
            ReadFrom, //
        }, //
    };

    type Map = Presence<Buf<Part<Buf<u64>>>, Buf<u64>>;

    /// A map of ten blocks, of which two are present.
    fn map() -> Map {
        let mut map = Map::new(buffer(parts(10) as usize, || Part::Absent), 10);
        let mut spare = Some(buffer(LEAF_WORDS, || 0));
        assert!(map.set(4..6, true, &mut spare).is_none());
        map
    }

    #[test]
    fn reads_are_cut_where_present_blocks_end() {
        let (map, size) = (map(), 10 * 4096 - 100);
        let at = |start, len| source(&map, start, len, size);
        assert_eq!(at(0, 40960), (ReadFrom::Server, 4 * 4096));
        assert_eq!(at(4 * 4096, 4096), (ReadFrom::Cache, 4096));
        assert_eq!(at(4 * 4096 + 100, 40000), (ReadFrom::Cache, 2 * 4096 - 100));
        assert_eq!(at(6 * 4096, 40960), (ReadFrom::Server, 40960));
        assert_eq!(at(3 * 4096 + 1, 10), (ReadFrom::Server, 10));
        // Behind the map.
        assert_eq!(
            source(&map, 10 * 4096, 4096, 1 << 20),
            (ReadFrom::Server, 4096)
        );
    }

    #[test]
    fn rest_of_the_last_block_goes_with_it() {
        let mut map = map();
        let mut spare = Some(buffer(LEAF_WORDS, || 0));
        assert!(map.set(9..10, true, &mut spare).is_none());
        let size = 10 * 4096 - 100;
        // A page may be larger than a block.
        let read = source(&map, 9 * 4096, 3 * 4096, size);
        assert_eq!(read, (ReadFrom::Cache, 4096));
    }

    #[test]
    fn whole_blocks_are_written() {
        let whole = |skip, len, extend| Some(Aligned { skip, len, extend });
        assert_eq!(align(0, 8192, 0), whole(0, 8192, 0));
        assert_eq!(align(4095, 4098, 0), whole(1, 4096, 0));
        assert_eq!(align(1, 8190, 0), None);
        assert_eq!(align(0, 4095, 0), None);
        assert_eq!(align(4096, 10, 4086), whole(0, 4096, 4086));
        assert_eq!(align(4096, 10, 4085), None);
        assert_eq!(align(0, 4106, 0), whole(0, 4096, 0));
        assert_eq!(align(1, 1, 1 << 20), None);
        assert_eq!(align(1, 4095, 1 << 20), None);
        assert_eq!(align(1, 4096, 4095), whole(4095, 4096, 4095));
    }

    #[test]
    fn write_touches_blocks_that_it_changes_in_part() {
        assert_eq!(touched(4095, 2), 0..2);
        assert_eq!(touched(4096, 4096), 1..2);
        assert_eq!(touched(0, 1), 0..1);
    }
}
