// SPDX-License-Identifier: GPL-2.0

#include <linux/uio.h>

__rust_helper void rust_helper_iov_iter_truncate(struct iov_iter *i, u64 count)
{
	iov_iter_truncate(i, count);
}

__rust_helper void rust_helper_iov_iter_reexpand(struct iov_iter *i, size_t count)
{
	iov_iter_reexpand(i, count);
}
