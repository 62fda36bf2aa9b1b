// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel's headers that Rust cannot call:
 * each gets a function of the same name with the prefix rust_helper_. Upstream
 * each file below joins the kernel's rust/helpers/.
 *
 * Sorted alphabetically.
 */

#include <linux/compiler_types.h>

#define __rust_helper

#include "bitops.c"
#include "cred.c"
#include "dcache.c"
#include "fs.c"
#include "fscache.c"
#include "kunit.c"
#include "module.c"
#include "sched.c"
#include "security.c"
#include "uio.c"
#include "workqueue.c"
