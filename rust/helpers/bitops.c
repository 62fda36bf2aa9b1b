// SPDX-License-Identifier: GPL-2.0

#include <linux/bitops.h>

__rust_helper bool rust_helper_test_and_clear_bit(unsigned long nr, unsigned long *addr)
{
	return test_and_clear_bit(nr, addr);
}
