// SPDX-License-Identifier: GPL-2.0
/*
 * What the driver does not offer yet: exports and waiting on descriptors. Each is refused with
 * -EOPNOTSUPP where a client asks for it; what follows only from such an operation cannot be called, and says so.
 *
 * Locks: none.
 */
#include "dmaplane.h"

static void refuse(struct dmp_outcome *outcome)
{
	outcome->result = -EOPNOTSUPP;
}

void dmaplane_glue_export(struct dmp_context *context, u64 op, u32 buffer, u32 slot, struct dmp_outcome *outcome)
{
	refuse(outcome);
}

void dmaplane_glue_sync(struct dmp_context *context, u64 op, u32 buffer, u32 end, struct dmp_outcome *outcome)
{
	refuse(outcome);
}

void dmaplane_glue_wait_slot(struct dmp_context *context, u64 op, u32 slot, struct dmp_outcome *outcome)
{
	refuse(outcome);
}

void *dmaplane_glue_take_slot(struct dmp_context *context, u32 slot)
{
	WARN_ON_ONCE(1);
	return NULL;
}

#define CANNOT_BE(name, ...)               \
	void name(__VA_ARGS__)             \
	{                                  \
		WARN_ON_ONCE(1);           \
	}

CANNOT_BE(dmaplane_glue_close_slot, struct dmp_context *context, u32 slot)
CANNOT_BE(dmaplane_glue_put_buffer, struct dmp_context *context, u32 buffer, void *object)
CANNOT_BE(dmaplane_glue_put_slot, struct dmp_context *context, u32 slot, void *object)
