/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What bindgen reads for the bindings that the kernel's own file of this name
 * does not give yet. On the way upstream these lines are added to that one.
 */

#include <crypto/sha2.h>
#include <linux/anon_inodes.h>
#include <linux/cachefiles_rust.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/fscache-cache.h>
#include <linux/namei.h>
#include <linux/netfs.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/statfs.h>
#include <linux/tracepoint.h>
#include <trace/events/cachefiles_ondemand.h>
#include <trace/events/fscache.h>
#include <trace/events/netfs.h>

/* After what its tracepoints need. */
#include <linux/cachefiles_trace.h>

/* bindgen gets confused by casts in macros. */
const fmode_t RUST_CONST_HELPER_FMODE_PWRITE = FMODE_PWRITE;
const fmode_t RUST_CONST_HELPER_FMODE_LSEEK = FMODE_LSEEK;
const fmode_t RUST_CONST_HELPER_FMODE_ATOMIC_POS = FMODE_ATOMIC_POS;
const fmode_t RUST_CONST_HELPER_FMODE_CAN_ODIRECT = FMODE_CAN_ODIRECT;
const fmode_t RUST_CONST_HELPER_FMODE_NOWAIT = FMODE_NOWAIT;
const fmode_t RUST_CONST_HELPER_FMODE_NOCMTIME = FMODE_NOCMTIME;
const int RUST_CONST_HELPER_IOCB_NOWAIT = (__force int)IOCB_NOWAIT;
const unsigned int RUST_CONST_HELPER_I_CTIME_QUERIED = I_CTIME_QUERIED;
const xa_mark_t RUST_CONST_HELPER_PAGECACHE_TAG_DIRTY = PAGECACHE_TAG_DIRTY;
const xa_mark_t RUST_CONST_HELPER_PAGECACHE_TAG_WRITEBACK = PAGECACHE_TAG_WRITEBACK;
const unsigned int RUST_CONST_HELPER_LOOKUP_DIRECTORY = LOOKUP_DIRECTORY;
const __poll_t RUST_CONST_HELPER_EPOLLIN = EPOLLIN;
const __poll_t RUST_CONST_HELPER_EPOLLOUT = EPOLLOUT;
const __poll_t RUST_CONST_HELPER_EPOLLERR = EPOLLERR;
const __poll_t RUST_CONST_HELPER_EPOLLHUP = EPOLLHUP;

#include "../helpers/helpers.c"
