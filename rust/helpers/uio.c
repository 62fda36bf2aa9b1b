// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>
#include <linux/uaccess.h>
#include <linux/uio.h>

/*
 * Copy to pages from user memory, as far as that can be read without sleeping: all, or a multiple
 * of @unit.  There is a function for one page; to other kinds of destination nothing is copied.
 */
__rust_helper size_t rust_helper_copy_to_bvec_nofault(struct iov_iter *to, struct iov_iter *from,
						      size_t unit)
{
	const struct bio_vec *bvec = to->bvec;
	size_t count = iov_iter_count(to), skip = to->iov_offset, copied = 0, off, len, n;

	if (!iov_iter_is_bvec(to))
		return 0;
	pagefault_disable();
	while (copied < count) {
		if (skip == bvec->bv_len) {
			bvec++;
			skip = 0;
			continue;
		}
		off = bvec->bv_offset + skip;
		len = min3(count - copied, bvec->bv_len - skip, PAGE_SIZE - offset_in_page(off));
		n = copy_page_from_iter(bvec->bv_page + (off >> PAGE_SHIFT), offset_in_page(off),
					len, from);
		copied += n;
		skip += n;
		if (n < len)
			break;
	}
	pagefault_enable();
	if (copied < count)
		copied -= copied % unit;
	iov_iter_advance(to, copied);
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
