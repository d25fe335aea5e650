// SPDX-License-Identifier: GPL-2.0
/*
 * What the engine says to tracepoints. It asks once a turn whether anybody listens.
 *
 * Locks: none.
 */
#define CREATE_TRACE_POINTS
#include "trace.h"

int dmaplane_glue_is_traced(struct dmp_context *context)
{
	return trace_dmaplane_operation_enabled() || trace_dmaplane_complete_enabled();
}

void dmaplane_glue_sighted(struct dmp_context *context, const struct dmp_sighting *sighting)
{
	trace_dmaplane_operation(context, sighting);
}

void dmaplane_glue_completed(struct dmp_context *context, u32 ring, u64 user_data, s32 result, u32 flags)
{
	trace_dmaplane_complete(context, ring, user_data, result, flags);
}
