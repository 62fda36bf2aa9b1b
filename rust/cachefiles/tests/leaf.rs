// SPDX-License-Identifier: GPL-2.0

//! The limit of the memory of maps.

#[kernel::prelude::kunit_tests(cachefiles_leaf)]
mod tests {
    use crate::backing::leaf::{
        Leaf,
        Use,
        LEAVES_MAX, //
    };
    use kernel::prelude::*;

    #[test]
    fn are_limited_for_what_is_stored() -> Result {
        let mut leaves = KVVec::new();
        // Other tests may have some.
        while let Ok(leaf) = Leaf::new(Use::Storing, true) {
            leaves.push(leaf, GFP_KERNEL)?;
            assert!(leaves.len() <= LEAVES_MAX);
        }
        assert!(leaves.len() > LEAVES_MAX / 2);
        // What is not stored but lost has to be recorded.
        assert!(Leaf::new(Use::Other, true).is_ok());
        // Those of an on-demand cache are neither limited nor in the way.
        assert!(Leaf::new(Use::Storing, false).is_ok());
        drop(leaves.pop());
        assert!(Leaf::new(Use::Storing, true).is_ok());
        Ok(())
    }
}
