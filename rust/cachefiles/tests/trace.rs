// SPDX-License-Identifier: GPL-2.0

//! Tracepoints that nobody has switched on. What they tell is tested where they can be: by
//! `tools/testing/selftests/filesystems/cachefiles/trace_test.c`.

#[kernel::prelude::kunit_tests(cachefiles_trace)]
mod tests {
    use crate::trace;
    use kernel::error::code::EIO;

    #[test]
    fn take_any_numbers() {
        for n in [0, 1, u32::MAX] {
            trace::open(n, n, n, n);
            trace::copen(n, n, u64::MAX);
            trace::close(n, n, n);
            trace::read(n, n, n, n.into(), n.into());
            trace::read(n, n, n, u64::MAX, u64::MAX);
            trace::cread(n, n);
            trace::fd_write(n, u64::MAX, i64::MIN, usize::MAX);
            trace::fd_release(n, n);
            trace::open_failed(n, EIO);
            trace::read_failed(n, u64::MAX, u64::MAX, EIO);
            trace::restore(usize::MAX);
        }
    }
}
