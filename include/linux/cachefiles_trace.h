/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tracepoints of CacheFiles, and what they show of it.
 *
 * They are those of the kernel that this is built for.  Their header wants
 * structures that a driver defines: these are what the driver in Rust has of
 * them.  BPF programs that look for a member that is missing here are refused
 * when they are loaded.
 *
 * trace/events/netfs.h has to be included before: its enumerations are used.
 */
#ifndef _LINUX_CACHEFILES_TRACE_H
#define _LINUX_CACHEFILES_TRACE_H

#include <linux/fscache-cache.h>
#include <linux/rust_trace.h>

enum cachefiles_content {
	/* These values are saved on disk */
	CACHEFILES_CONTENT_NO_DATA	= 0, /* No content stored, or as the file system says */
	CACHEFILES_CONTENT_SINGLE	= 1, /* Content is monolithic, all is present */
	CACHEFILES_CONTENT_ALL		= 2, /* Content is all present, no map */
	CACHEFILES_CONTENT_BACKFS_MAP	= 3, /* Content is piecemeal, there is a list of it */
	CACHEFILES_CONTENT_DIRTY	= 4, /* Content is dirty (only seen on disk) */
	nr__cachefiles_content
};

struct cachefiles_volume {
	struct fscache_volume		*vcookie;	/* The netfs's representation */
};

struct cachefiles_object {
	/*
	 * For cachefiles_coherency a structure that has the number of the
	 * object's cookie, and the first bytes of its auxiliary data.
	 * Otherwise NULL: whoever traces knows the cookie by its number.
	 */
	struct fscache_cookie		*cookie;
	int				debug_id;	/* The number of the cookie */
};

#include <trace/events/cachefiles.h>

/*
 * Seen with Linux 7.2 and 7.3: TP_fast_assign() copies numbers, debug_id of
 * objects, i_ino of inodes, and i_ino of the inodes that dentries have, for
 * which those that are not checked have to be positive.  Where an argument may
 * be anything else, it is checked.
 */
RUST_SAFE_TRACE(cachefiles_ref);
RUST_SAFE_TRACE_OF(cachefiles_lookup,
		   RUST_TRACE_NULL(0) | RUST_TRACE_ERR(2) | RUST_TRACE_NEGATIVE(2));
RUST_SAFE_TRACE(cachefiles_mkdir);
RUST_SAFE_TRACE(cachefiles_tmpfile);
RUST_SAFE_TRACE(cachefiles_link);
RUST_SAFE_TRACE_OF(cachefiles_unlink, RUST_TRACE_NULL(0));
RUST_SAFE_TRACE_OF(cachefiles_rename, RUST_TRACE_NULL(0));
/* The volume's vcookie is read, too, for its debug_id. */
RUST_SAFE_TRACE(cachefiles_vol_coherency);
RUST_SAFE_TRACE_OF(cachefiles_prep_read, RUST_TRACE_NULL(0));
RUST_SAFE_TRACE(cachefiles_read);
RUST_SAFE_TRACE(cachefiles_write);
RUST_SAFE_TRACE(cachefiles_trunc);
RUST_SAFE_TRACE_OF(cachefiles_mark_active, RUST_TRACE_NULL(0));
RUST_SAFE_TRACE_OF(cachefiles_mark_failed, RUST_TRACE_NULL(0));
RUST_SAFE_TRACE_OF(cachefiles_mark_inactive, RUST_TRACE_NULL(0));
RUST_SAFE_TRACE_OF(cachefiles_vfs_error, RUST_TRACE_NULL(0));
RUST_SAFE_TRACE_OF(cachefiles_io_error, RUST_TRACE_NULL(0));
/* Not cachefiles_coherency: it reads 8 bytes behind pointers whose types do not say so. */

#endif /* _LINUX_CACHEFILES_TRACE_H */
