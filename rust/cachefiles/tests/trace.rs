// SPDX-License-Identifier: GPL-2.0

//! Tracepoints that nobody has switched on. What they tell is tested where they can be: by
//! `tools/testing/selftests/filesystems/cachefiles/trace_test.c`.

#[kernel::prelude::kunit_tests(cachefiles_trace)]
mod tests {
    use crate::trace;

    #[test]
    fn take_any_numbers() {
        for n in [0, 1, u32::MAX] {
            trace::read(n, n, n, n.into(), n.into());
            trace::read(n, n, n, u64::MAX, u64::MAX);
            trace::copen(n, n, u64::MAX);
            trace::restore(usize::MAX);
        }
    }
}
