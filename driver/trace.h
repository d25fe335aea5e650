/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: every change of an operation (clause OBS-1), every CQE, and copies for peers.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dmaplane

#if !defined(DMAPLANE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DMAPLANE_TRACE_H

#include <linux/tracepoint.h>

#include "dmaplane.h"

/* Bytes of a word of the engine's. */
#define DMP_WORD 24

TRACE_EVENT(dmaplane_operation,
	TP_PROTO(const struct dmp_context *context, const struct dmp_sighting *sighting),
	TP_ARGS(context, sighting),
	TP_STRUCT__entry(
		__field(u64, op)
		__field(u64, user_data)
		__field(u32, context)
		__field(u32, ring)
		__field(s32, result)
		__array(char, opcode, DMP_WORD)
		__array(char, state, DMP_WORD)
	),
	TP_fast_assign(
		const char *opcode = dmaplane_opcode_name(sighting->opcode);

		__entry->op = sighting->op;
		__entry->user_data = sighting->user_data;
		__entry->context = context->number;
		__entry->ring = sighting->ring;
		__entry->result = sighting->result;
		strscpy(__entry->opcode, opcode ?: "?", DMP_WORD);
		strscpy(__entry->state, sighting->state, DMP_WORD);
	),
	TP_printk("context=%u ring=%u op=%#llx user_data=%#llx %s %s result=%d", __entry->context, __entry->ring,
		  __entry->op, __entry->user_data, __entry->opcode, __entry->state, __entry->result)
);

TRACE_EVENT(dmaplane_complete,
	TP_PROTO(const struct dmp_context *context, u32 ring, u64 user_data, s32 result, u32 flags),
	TP_ARGS(context, ring, user_data, result, flags),
	TP_STRUCT__entry(
		__field(u64, user_data)
		__field(u32, context)
		__field(u32, ring)
		__field(s32, result)
		__field(u32, flags)
	),
	TP_fast_assign(
		__entry->user_data = user_data;
		__entry->context = context->number;
		__entry->ring = ring;
		__entry->result = result;
		__entry->flags = flags;
	),
	TP_printk("context=%u ring=%u user_data=%#llx result=%d flags=%#x", __entry->context, __entry->ring,
		  __entry->user_data, __entry->result, __entry->flags)
);

TRACE_EVENT(dmaplane_copy,
	TP_PROTO(const struct dmp_context *context, u64 transfer, bool in, u64 bytes, int result),
	TP_ARGS(context, transfer, in, bytes, result),
	TP_STRUCT__entry(
		__field(u64, transfer)
		__field(u64, bytes)
		__field(u32, context)
		__field(s32, result)
		__field(bool, in)
	),
	TP_fast_assign(
		__entry->transfer = transfer;
		__entry->bytes = bytes;
		__entry->context = context->number;
		__entry->result = result;
		__entry->in = in;
	),
	TP_printk("context=%u transfer=%#llx %s bytes=%llu result=%d", __entry->context, __entry->transfer,
		  __entry->in ? "in" : "out", __entry->bytes, __entry->result)
);

#endif

#undef TRACE_INCLUDE_PATH
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_PATH .
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
