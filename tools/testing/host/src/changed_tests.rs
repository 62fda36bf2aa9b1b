// SPDX-License-Identifier: GPL-2.0

//! Where blocks became present, against a set of all of them.

use crate::{plan::changed::Changed, support::check};
use proptest::{collection::vec, strategy::Strategy};

#[test]
fn nothing_that_changed_is_left_out() {
    let range = (0u64..400, 0u64..30).prop_map(|(start, len)| start..start + len);
    check(2000, vec(range, 0..40), |ranges| {
        let mut changed = Changed::default();
        for range in &ranges {
            changed.add(range.clone());
        }
        let kept: Vec<_> = changed.iter().collect();
        assert!(kept.len() <= 4);
        assert!(kept.iter().all(|range| !range.is_empty()));
        // In order, and apart.
        assert!(kept.windows(2).all(|pair| pair[0].end < pair[1].start));
        for at in ranges.iter().cloned().flatten() {
            assert!(kept.iter().any(|range| range.contains(&at)), "{at}");
        }
        // No larger than what they are of.
        for range in &kept {
            assert!(ranges
                .iter()
                .any(|r| !r.is_empty() && r.start == range.start));
            assert!(ranges.iter().any(|r| r.end == range.end));
        }
    });
}
