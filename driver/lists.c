// SPDX-License-Identifier: GPL-2.0
/*
 * Lists: runs are copied out of a buffer once, by a worker, into records of the engine's. The engine checks them one by
 * one; what it then says of segments it works out of these records.
 *
 * Locks: tables_lock for the table of lists.
 */
#include "memory.h"

#include <linux/nospec.h>
#include <linux/slab.h>

/* A run as a client writes it: struct dmaplane_run of the UAPI header. */
#define RUN_BYTES sizeof(struct dmaplane_run)
/* Runs copied between two looks at the scheduler: they lie on the stack. */
#define RUNS_AT_ONCE 16

struct dmp_list {
	struct rcu_head rcu;
	u32 runs;
	/* Bytes of one of the engine's records. */
	u32 record_bytes;
	/* Aligned to 8, as they want. */
	u64 records[];
};

struct dmp_list_work {
	struct dmp_work work;
	struct dmp_memory *memory;
	u64 offset;
	u32 list;
	u32 runs;
};

static void *record_of(struct dmp_list *list, u32 run)
{
	return (u8 *)list->records + (u64)run * list->record_bytes;
}

static struct dmp_list *list_new(u32 runs)
{
	u64 record_bytes = dmaplane_list_record_bytes();
	struct dmp_list *list = dmp_kvmalloc(sizeof(*list) + record_bytes * runs, DMP_GFP);

	if (!list)
		return NULL;
	list->runs = runs;
	list->record_bytes = record_bytes;
	return list;
}

/* Others may wait for this: nothing is allocated. */
static int load(struct dmp_list_work *work, struct dmp_list *list)
{
	struct dmaplane_run runs[RUNS_AT_ONCE];
	u32 done = 0, segments = 0;

	while (done < work->runs) {
		u32 some = min_t(u32, RUNS_AT_ONCE, work->runs - done), i;

		/* Once: what the client writes there afterwards is nothing to us. */
		if (dmp_memory_read(work->memory, work->offset + (u64)done * RUN_BYTES, runs, some * RUN_BYTES))
			return -EIO;
		for (i = 0; i < some; i++)
			dmaplane_list_put(record_of(list, done + i), (struct dmp_run *)&runs[i]);
		/* The numbers follow from the counts, checked or not; a list that fails its checks is never looked at. */
		segments = dmaplane_list_seal(record_of(list, done), some, segments);
		done += some;
		cond_resched();
	}
	return 0;
}

static void keep(struct dmp_list_work *work, struct dmp_list *list)
{
	struct dmp_context *context = work->work.context;

	spin_lock(&context->tables_lock);
	context->lists[work->list] = list;
	spin_unlock(&context->tables_lock);
	atomic_long_inc(&dmp_accounts.lists);
}

static int load_and_let_go(struct dmp_work *item, u64 *word0, u64 *word1)
{
	struct dmp_list_work *work = container_of(item, struct dmp_list_work, work);
	struct dmp_access access = {};
	int result = dmp_access_wait(item, work->memory, false);
	struct dmp_list *list = NULL;

	if (result == DMP_WORK_LATER)
		return result;
	if (!result) {
		list = list_new(work->runs);
		result = list ? dmp_access_begin(&access, work->memory, false) : -ENOMEM;
	}
	if (!result)
		result = load(work, list);
	dmp_access_end(&access);
	dmp_memory_put(work->memory);
	if (result)
		kvfree(list);
	else
		keep(work, list);
	return result;
}

void dmaplane_glue_list_load(struct dmp_context *context, u64 op, u32 list, u32 buffer, u64 offset, u64 runs,
			     struct dmp_outcome *outcome)
{
	struct dmp_list_work *work = dmp_kzalloc(sizeof(*work), DMP_GFP_NOWAIT);

	if (work) {
		work->memory = dmaplane_glue_hold_buffer(context, buffer);
		work->list = list;
		work->offset = offset;
		work->runs = runs;
	}
	dmp_work_start(&work->work, context, op, load_and_let_go, outcome);
}

/* The engine's index; under speculation it is a user's number (clause SEC-3). */
static struct dmp_list **list_at(struct dmp_context *context, u32 index)
{
	return &context->lists[array_index_nospec(index, context->limits.lists)];
}

/* Under the baton a list stays: only dmaplane_glue_list_drop takes it away. */
int dmaplane_glue_list_run(struct dmp_context *context, u32 index, u32 run, struct dmp_run *to)
{
	struct dmp_list *list = READ_ONCE(*list_at(context, index));

	if (!list || run >= list->runs)
		return -ERANGE;
	dmaplane_list_get(record_of(list, run), to);
	return 0;
}

/* They are numbered already. */
void dmaplane_glue_list_seal(struct dmp_context *context, u32 list)
{
}

void dmaplane_glue_list_drop(struct dmp_context *context, u32 index)
{
	struct dmp_list *list;

	spin_lock(&context->tables_lock);
	list = *list_at(context, index);
	*list_at(context, index) = NULL;
	spin_unlock(&context->tables_lock);
	if (!list)
		return;
	atomic_long_dec(&dmp_accounts.lists);
	/* Megabytes perhaps: not on the engine's thread. */
	kvfree_rcu(list, rcu);
}

/* Where a segment lies, whose number is a user's; -ERANGE where there is none. While the engine counts a use of the list. */
int dmp_list_locate(struct dmp_context *context, u32 index, u32 segment, struct dmp_place *place)
{
	struct dmp_list *list = READ_ONCE(*list_at(context, index));

	return list ? dmaplane_list_locate(list->records, list->runs, segment, place) : -ERANGE;
}
