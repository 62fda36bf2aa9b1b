// SPDX-License-Identifier: GPL-2.0

//! The driver's own error numbers against the kernel's.

#[cfg_attr(CONFIG_KUNIT = "y", kernel::prelude::kunit_tests(cachefiles_errno))]
mod tests {
    use crate::protocol::errno::Errno;
    use kernel::{
        error::code,
        prelude::*, //
    };

    #[test]
    fn numbers_are_the_kernels() {
        for (errno, error) in [
            (Errno::EINVAL, EINVAL),
            (Errno::ERANGE, ERANGE),
            (Errno::ENAMETOOLONG, ENAMETOOLONG),
            (Errno::EBADFD, code::EBADFD),
            (Errno::EOPNOTSUPP, EOPNOTSUPP),
        ] {
            assert_eq!(Error::from(errno), error);
        }
    }

    #[test]
    fn any_number_of_the_kernel_is_kept() {
        for number in [1, 22, 512, Errno::MAX] {
            assert_eq!(Error::from(Errno(number)).to_errno(), -number);
        }
    }
}
