/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What C files of the driver in Rust have for it.
 */
#ifndef _LINUX_CACHEFILES_RUST_H
#define _LINUX_CACHEFILES_RUST_H

/* The parameter "debug". */
extern unsigned int cachefiles_debug;

/* error_inject.c, in builds for tests. */
extern unsigned int cachefiles_error_injection_state;
int cachefiles_register_error_injection(void);
void cachefiles_unregister_error_injection(void);

#endif /* _LINUX_CACHEFILES_RUST_H */
