/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tracepoints for the on-demand mode of CacheFiles.
 *
 * The first seven are those that Linux had up to 7.2, with the same fields.
 *
 * Copyright (C) 2021 Red Hat, Inc. All Rights Reserved.
 * Written by David Howells (dhowells@redhat.com)
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM cachefiles

/* There is more of that system in a header of this name without a suffix. */
#undef TRACE_SYSTEM_VAR
#define TRACE_SYSTEM_VAR cachefiles_ondemand

#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE cachefiles_ondemand

#if !defined(_TRACE_CACHEFILES_ONDEMAND_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_CACHEFILES_ONDEMAND_H

#include <linux/rust_trace.h>
#include <linux/tracepoint.h>

#ifndef TRACE_HEADER_MULTI_READ
/* All arguments are numbers, and TP_fast_assign() copies them. */
RUST_SAFE_TRACE(cachefiles_ondemand_open);
RUST_SAFE_TRACE(cachefiles_ondemand_copen);
RUST_SAFE_TRACE(cachefiles_ondemand_close);
RUST_SAFE_TRACE(cachefiles_ondemand_read);
RUST_SAFE_TRACE(cachefiles_ondemand_cread);
RUST_SAFE_TRACE(cachefiles_ondemand_fd_write);
RUST_SAFE_TRACE(cachefiles_ondemand_fd_release);
RUST_SAFE_TRACE(cachefiles_ondemand_fail);
RUST_SAFE_TRACE(cachefiles_ondemand_restore);
#endif

/* An OPEN is about to be given to the daemon, with a file descriptor. */
TRACE_EVENT(cachefiles_ondemand_open,
	    TP_PROTO(unsigned int obj, unsigned int msg_id, unsigned int object_id,
		     unsigned int fd, unsigned int flags),

	    TP_ARGS(obj, msg_id, object_id, fd, flags),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	msg_id)
		    __field(unsigned int,	object_id)
		    __field(unsigned int,	fd)
		    __field(unsigned int,	flags)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->msg_id	= msg_id;
		    __entry->object_id	= object_id;
		    __entry->fd		= fd;
		    __entry->flags	= flags;
			   ),

	    TP_printk("o=%08x mid=%x oid=%x fd=%d f=%x",
		      __entry->obj,
		      __entry->msg_id,
		      __entry->object_id,
		      __entry->fd,
		      __entry->flags)
	    );

/* The daemon has answered an OPEN with a size, and it was accepted. */
TRACE_EVENT(cachefiles_ondemand_copen,
	    TP_PROTO(unsigned int obj, unsigned int msg_id, long len),

	    TP_ARGS(obj, msg_id, len),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	msg_id)
		    __field(long,		len)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->msg_id	= msg_id;
		    __entry->len	= len;
			   ),

	    TP_printk("o=%08x mid=%x l=%lx",
		      __entry->obj,
		      __entry->msg_id,
		      __entry->len)
	    );

/* A CLOSE was queued. */
TRACE_EVENT(cachefiles_ondemand_close,
	    TP_PROTO(unsigned int obj, unsigned int msg_id, unsigned int object_id),

	    TP_ARGS(obj, msg_id, object_id),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	msg_id)
		    __field(unsigned int,	object_id)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->msg_id	= msg_id;
		    __entry->object_id	= object_id;
			   ),

	    TP_printk("o=%08x mid=%x oid=%x",
		      __entry->obj,
		      __entry->msg_id,
		      __entry->object_id)
	    );

/* A READ was queued, by the task that reads. */
TRACE_EVENT(cachefiles_ondemand_read,
	    TP_PROTO(unsigned int obj, unsigned int msg_id, unsigned int object_id,
		     loff_t start, size_t len),

	    TP_ARGS(obj, msg_id, object_id, start, len),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	msg_id)
		    __field(unsigned int,	object_id)
		    __field(loff_t,		start)
		    __field(size_t,		len)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->msg_id	= msg_id;
		    __entry->object_id	= object_id;
		    __entry->start	= start;
		    __entry->len	= len;
			   ),

	    TP_printk("o=%08x mid=%x oid=%x s=%llx l=%zx",
		      __entry->obj,
		      __entry->msg_id,
		      __entry->object_id,
		      __entry->start,
		      __entry->len)
	    );

/* The daemon says that it has answered a READ. */
TRACE_EVENT(cachefiles_ondemand_cread,
	    TP_PROTO(unsigned int obj, unsigned int msg_id),

	    TP_ARGS(obj, msg_id),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	msg_id)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->msg_id	= msg_id;
			   ),

	    TP_printk("o=%08x mid=%x",
		      __entry->obj,
		      __entry->msg_id)
	    );

/* The daemon is about to write to an object. */
TRACE_EVENT(cachefiles_ondemand_fd_write,
	    TP_PROTO(unsigned int obj, u64 backer, loff_t start, size_t len),

	    TP_ARGS(obj, backer, start, len),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	backer)
		    __field(loff_t,		start)
		    __field(size_t,		len)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->backer	= backer;
		    __entry->start	= start;
		    __entry->len	= len;
			   ),

	    TP_printk("o=%08x iB=%x s=%llx l=%zx",
		      __entry->obj,
		      __entry->backer,
		      __entry->start,
		      __entry->len)
	    );

/* The last copy of an object's file descriptor is gone. */
TRACE_EVENT(cachefiles_ondemand_fd_release,
	    TP_PROTO(unsigned int obj, unsigned int object_id),

	    TP_ARGS(obj, object_id),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	object_id)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->object_id	= object_id;
			   ),

	    TP_printk("o=%08x oid=%x",
		      __entry->obj,
		      __entry->object_id)
	    );

/*
 * Somebody who waits for the daemon gets an error.  For a READ, start and len
 * are what the daemon was asked for; for an OPEN they are 0.
 */
TRACE_EVENT(cachefiles_ondemand_fail,
	    TP_PROTO(unsigned int obj, unsigned int opcode, loff_t start, size_t len, int error),

	    TP_ARGS(obj, opcode, start, len, error),

	    TP_STRUCT__entry(
		    __field(unsigned int,	obj)
		    __field(unsigned int,	opcode)
		    __field(loff_t,		start)
		    __field(size_t,		len)
		    __field(int,		error)
			     ),

	    TP_fast_assign(
		    __entry->obj	= obj;
		    __entry->opcode	= opcode;
		    __entry->start	= start;
		    __entry->len	= len;
		    __entry->error	= error;
			   ),

	    TP_printk("o=%08x op=%x s=%llx l=%zx e=%d",
		      __entry->obj,
		      __entry->opcode,
		      __entry->start,
		      __entry->len,
		      __entry->error)
	    );

/* A daemon has taken over; so many requests are delivered again. */
TRACE_EVENT(cachefiles_ondemand_restore,
	    TP_PROTO(size_t count),

	    TP_ARGS(count),

	    TP_STRUCT__entry(
		    __field(size_t,		count)
			     ),

	    TP_fast_assign(
		    __entry->count	= count;
			   ),

	    TP_printk("n=%zu", __entry->count)
	    );

#endif /* _TRACE_CACHEFILES_ONDEMAND_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
