// SPDX-License-Identifier: GPL-2.0
/*
 * What the driver does not offer yet: exports, waiting on descriptors, peers. Each is refused with
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

void dmaplane_glue_connect(struct dmp_context *context, u64 op, u32 buffer, u64 offset, u64 length,
			   struct dmp_outcome *outcome)
{
	refuse(outcome);
}

int dmaplane_glue_post(struct dmp_context *context, u32 peer, u64 op, const u64 *request,
		       const struct dmp_post *post)
{
	WARN_ON_ONCE(1);
	return -EOPNOTSUPP;
}

void dmaplane_glue_copy_in(struct dmp_context *context, u64 transfer, u32 peer, u32 frame,
			   const struct dmp_target *target, bool checksum, struct dmp_outcome *outcome)
{
	WARN_ON_ONCE(1);
	refuse(outcome);
}

void dmaplane_glue_serve(struct dmp_context *context, u64 transfer, u32 peer, u32 frame,
			 const struct dmp_target *source, struct dmp_outcome *outcome)
{
	WARN_ON_ONCE(1);
	refuse(outcome);
}

int dmaplane_glue_deliver(struct dmp_context *context, u32 peer, u32 frame, u32 buffer, u64 offset, u32 length)
{
	WARN_ON_ONCE(1);
	return -EOPNOTSUPP;
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
CANNOT_BE(dmaplane_glue_adopt, struct dmp_context *context, u32 pending, u64 peer)
CANNOT_BE(dmaplane_glue_reject, struct dmp_context *context, u32 pending)
CANNOT_BE(dmaplane_glue_disconnect, struct dmp_context *context, u32 peer)
CANNOT_BE(dmaplane_glue_drop_peer, struct dmp_context *context, u32 peer)
CANNOT_BE(dmaplane_glue_close_listener, struct dmp_context *context, u32 listener)
CANNOT_BE(dmaplane_glue_send, struct dmp_context *context, u32 peer, const u64 *message)
CANNOT_BE(dmaplane_glue_abandon, struct dmp_context *context, u64 op)
CANNOT_BE(dmaplane_glue_stop, struct dmp_context *context, u64 transfer)
CANNOT_BE(dmaplane_glue_drop_frame, struct dmp_context *context, u32 peer, u32 frame)
CANNOT_BE(dmaplane_glue_put_buffer, struct dmp_context *context, u32 buffer, void *object)
CANNOT_BE(dmaplane_glue_put_slot, struct dmp_context *context, u32 slot, void *object)
CANNOT_BE(dmaplane_glue_put_listener, struct dmp_context *context, u32 listener, u64 handle, void *object)
