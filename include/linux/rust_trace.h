/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _LINUX_RUST_TRACE_H
#define _LINUX_RUST_TRACE_H

/**
 * RUST_SAFE_TRACE - say that a tracepoint may be called with any arguments
 * @name: of the tracepoint
 *
 * Rust code can then declare it with declare_safe_trace!(), as a function that
 * is safe to call.  To be written in the header that defines the tracepoint, by
 * whoever has seen to it that TP_fast_assign() only records its arguments:
 * a number may have any value, so it must be taken neither for a pointer nor
 * for an index.
 *
 * The header is read more than once, so this has to be within
 * #ifndef TRACE_HEADER_MULTI_READ.
 */
#define RUST_SAFE_TRACE(name) \
	static const unsigned int RUST_SAFE_TRACE_##name __maybe_unused = 1

#endif /* _LINUX_RUST_TRACE_H */
