// SPDX-License-Identifier: GPL-2.0
/*
 * The tracepoints that trace.rs calls.
 */

#include <linux/netfs.h>

/* This is used by what follows, but its tracepoints are of another module. */
#include <trace/events/netfs.h>

#define CREATE_TRACE_POINTS
#define CREATE_RUST_TRACE_POINTS
#include <linux/cachefiles_trace.h>
#include <trace/events/cachefiles_ondemand.h>
