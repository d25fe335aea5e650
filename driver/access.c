// SPDX-License-Identifier: GPL-2.0
/*
 * Access by the processor to memory that others have a part in: importers of ours wait for a fence, exporters of what
 * we have imported are told. Bracketed by whoever copies, which may sleep.
 *
 * Locks: those of export.c and import.c.
 */
#include "memory.h"

/* Nobody else has a part in it: it can be copied without telling anybody. */
bool dmp_memory_is_private(struct dmp_memory *memory)
{
	return memory->kind != DMP_MEMORY_IMPORTED && !READ_ONCE(memory->exported);
}

/* Before dmp_access_begin: 0 once devices have done with it; DMP_WORK_LATER; or an error. */
int dmp_access_wait(struct dmp_work *work, struct dmp_memory *memory, bool write)
{
	if (memory->kind != DMP_MEMORY_IMPORTED)
		return 0;
	return dmp_work_await(work, dmp_import_fences(memory), write);
}

/* It has been parked for this memory. */
bool dmp_access_waited(struct dmp_work *work, struct dmp_memory *memory)
{
	return work->fence && memory->kind == DMP_MEMORY_IMPORTED && work->fences == dmp_import_fences(memory);
}

/* All but fences of our own, for which others wait: whatever may wait for others comes before those. */
static int begin(struct dmp_access *access, struct dmp_memory *memory, bool write)
{
	int error = 0;

	if (write && memory->read_only)
		return -EACCES;
	if (memory->kind == DMP_MEMORY_IMPORTED)
		error = dmp_import_sync(memory, false, write);
	if (error)
		return error;
	access->fence = NULL;
	access->write = write;
	access->memory = memory;
	return 0;
}

int dmp_access_begin(struct dmp_access *access, struct dmp_memory *memory, bool write)
{
	int error;

	access->memory = NULL;
	error = begin(access, memory, write);
	if (!error)
		error = dmp_export_busy(access, NULL);
	if (error)
		dmp_access_end(access);
	return error;
}

/* Of both sides of a copy. */
int dmp_access_begin_both(struct dmp_access *first, struct dmp_memory *first_memory, bool first_write,
			  struct dmp_access *second, struct dmp_memory *second_memory, bool second_write)
{
	int error;

	first->memory = NULL;
	second->memory = NULL;
	error = begin(first, first_memory, first_write);
	if (!error)
		error = begin(second, second_memory, second_write);
	if (!error)
		error = dmp_export_busy(first, second);
	if (error) {
		dmp_access_end(first);
		dmp_access_end(second);
	}
	return error;
}

/* Any number of times, and where it was not begun. */
void dmp_access_end(struct dmp_access *access)
{
	if (!access->memory)
		return;
	if (access->memory->kind == DMP_MEMORY_IMPORTED)
		/* There is nobody left whom a failure would help. */
		dmp_import_sync(access->memory, true, access->write);
	if (access->fence)
		dmp_export_idle(access->fence);
	access->memory = NULL;
}

struct dmp_sync_work {
	struct dmp_work work;
	struct dmp_memory *memory;
	bool end;
};

static int sync_memory(struct dmp_sync_work *work)
{
	struct dmp_memory *memory = work->memory;
	bool write = !memory->read_only;
	int error = 0;

	if (memory->kind == DMP_MEMORY_IMPORTED) {
		if (!work->end)
			error = dmp_access_wait(&work->work, memory, write);
		return error ?: dmp_import_sync(memory, work->end, write);
	}
	/* It was exported before there was this work; for good. */
	if (!work->end)
		error = dmp_work_await(&work->work, &memory->fences, true);
	if (!error)
		dmp_export_sync(memory, work->end);
	return error;
}

static int sync(struct dmp_work *item, u64 *word0, u64 *word1)
{
	struct dmp_sync_work *work = container_of(item, struct dmp_sync_work, work);
	int error = sync_memory(work);

	if (error != DMP_WORK_LATER)
		dmp_memory_put(work->memory);
	return error;
}

void dmaplane_glue_sync(struct dmp_context *context, u64 op, u32 buffer, u32 end, struct dmp_outcome *outcome)
{
	struct dmp_memory *memory = dmp_memory_of(context, buffer);
	struct dmp_sync_work *work;

	if (!memory || dmp_memory_is_private(memory)) {
		outcome->result = memory ? 0 : -EIO;
		return;
	}
	work = dmp_kzalloc(sizeof(*work), DMP_GFP_NOWAIT);
	if (work) {
		work->memory = dmaplane_glue_hold_buffer(context, buffer);
		work->end = end;
	}
	dmp_work_start(&work->work, context, op, sync, outcome);
}
