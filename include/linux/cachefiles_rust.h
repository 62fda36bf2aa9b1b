/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What C files of the driver in Rust have for it.
 */
#ifndef _LINUX_CACHEFILES_RUST_H
#define _LINUX_CACHEFILES_RUST_H

/* The parameter "debug". */
extern unsigned int cachefiles_debug;

#endif /* _LINUX_CACHEFILES_RUST_H */
