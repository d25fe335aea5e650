// SPDX-License-Identifier: GPL-2.0
/*
 * A context's counters and latencies (clause DEV-15), in pages that its client maps read-only: looking costs no call,
 * and counting a store.
 *
 * Locks: none. What only the baton's holder counts is written plainly, all else by atomic additions.
 */
#include "memory.h"

#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

static_assert(sizeof(struct dmaplane_counters) == DMAPLANE_COUNTERS_LATENCY);
/* Before all buffers, whose numbers begin at 1: see dmp_mmap. */
static_assert(DMAPLANE_COUNTERS_OFFSET == 0);

int dmp_counters_make(struct dmp_context *context, u32 operations)
{
	context->since_ns = dmp_kvcalloc(operations, sizeof(*context->since_ns), DMP_GFP);
	if (!context->since_ns)
		return -ENOMEM;
	context->counters = dmp_memory_for_area(DMAPLANE_COUNTERS_BYTES);
	if (!context->counters)
		return -ENOMEM;
	context->counts = dmp_memory_address(context->counters);
	return 0;
}

/* A mapping keeps the pages. */
void dmp_counters_end(struct dmp_context *context)
{
	kvfree(context->since_ns);
	context->since_ns = NULL;
	if (context->counters)
		dmp_memory_put(context->counters);
	context->counters = NULL;
}

/* By the baton's holder. */
static void add(u64 *count, u64 more)
{
	WRITE_ONCE(*count, *count + more);
}

void dmaplane_glue_counted(struct dmp_context *context, u64 taken, u64 posted, u64 failed)
{
	add(&context->counts->sqes_taken, taken);
	add(&context->counts->cqes_posted, posted);
	if (failed)
		add(&context->counts->cqes_failed, failed);
}

void dmaplane_glue_began(struct dmp_context *context, u32 op)
{
	if (op < context->limits.operations)
		context->since_ns[op] = ktime_get_ns();
}

/* An opcode's histogram; NULL where it has none. */
u64 *dmp_latency_of(struct dmp_context *context, u32 opcode)
{
	u64 *all = (u64 *)((u8 *)context->counts + DMAPLANE_COUNTERS_LATENCY);

	return opcode < DMAPLANE_LATENCY_OPCODES ? all + opcode * DMAPLANE_LATENCY_BUCKETS : NULL;
}

void dmaplane_glue_ended(struct dmp_context *context, u32 op, u32 opcode)
{
	u64 *latency = dmp_latency_of(context, opcode);
	u64 took_ns;

	if (!latency || op >= context->limits.operations)
		return;
	took_ns = ktime_get_ns() - context->since_ns[op];
	add(&latency[min_t(u32, ilog2(took_ns | 1), DMAPLANE_LATENCY_BUCKETS - 1)], 1);
}
