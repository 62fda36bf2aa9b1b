// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

/*
 * Copy to pages from user memory, as far as that can be read without sleeping.  There is a function
 * for one page; of what other kinds of destination have nothing is copied.
 */
__rust_helper size_t rust_helper_copy_to_bvec_nofault(struct iov_iter *to, struct iov_iter *from)
{
	size_t copied = 0, len, n;

	if (!iov_iter_is_bvec(to))
		return 0;
	pagefault_disable();
	do {
		size_t off = to->bvec->bv_offset + to->iov_offset;

		len = min3(iov_iter_count(to), to->bvec->bv_len - to->iov_offset,
			   PAGE_SIZE - offset_in_page(off));
		n = copy_page_from_iter(to->bvec->bv_page + (off >> PAGE_SHIFT),
					offset_in_page(off), len, from);
		iov_iter_advance(to, n);
		copied += n;
	} while (n && n == len && iov_iter_count(to));
	pagefault_enable();
	return copied;
}

__rust_helper void rust_helper_iov_iter_truncate(struct iov_iter *i, u64 count)
{
	iov_iter_truncate(i, count);
}

__rust_helper void rust_helper_iov_iter_reexpand(struct iov_iter *i, size_t count)
{
	iov_iter_reexpand(i, count);
}
