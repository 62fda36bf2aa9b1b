/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_RUST_TRACE_H
#define _LINUX_RUST_TRACE_H

/**
 * RUST_SAFE_TRACE - say that a tracepoint may be called with any arguments
 * @name: of the tracepoint
 *
 * Rust code can then declare it with declare_safe_trace!(), as a function that
 * is safe to call.  To be written where the tracepoint is defined, or wherever
 * its definition is included, by whoever has seen to it that TP_fast_assign()
 * only records its arguments:
 *
 * - A number may have any value, so it must be taken neither for a pointer nor
 *   for an index.
 * - A pointer to a structure is valid during the call and not null, and a
 *   dentry is positive.  See RUST_SAFE_TRACE_OF() for others.
 *
 * The header is read more than once, so this has to be within
 * #ifndef TRACE_HEADER_MULTI_READ.
 */
#define RUST_SAFE_TRACE(name) RUST_SAFE_TRACE_OF(name, 0)

/**
 * RUST_SAFE_TRACE_OF - say the same of one that takes pointers of other kinds
 * @name: of the tracepoint
 * @may_be: RUST_TRACE_NULL(n), RUST_TRACE_ERR(n) and RUST_TRACE_NEGATIVE(n),
 *	or-ed together: what the arguments may be, the first of which is n = 0
 */
#define RUST_SAFE_TRACE_OF(name, may_be) \
	static const unsigned int RUST_SAFE_TRACE_##name __maybe_unused = (may_be)

/* Argument n may be a null pointer. */
#define RUST_TRACE_NULL(n)	(0x1u << 4 * (n))
/* Argument n may be an error pointer. */
#define RUST_TRACE_ERR(n)	(0x2u << 4 * (n))
/* Argument n may be a dentry that is negative, or becomes positive meanwhile. */
#define RUST_TRACE_NEGATIVE(n)	(0x4u << 4 * (n))

#endif /* _LINUX_RUST_TRACE_H */
