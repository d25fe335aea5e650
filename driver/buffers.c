// SPDX-License-Identifier: GPL-2.0
/*
 * The table of buffers: made by a worker, placed and verified, recycled, freed, looked at, and found by the offset that
 * one is mapped at.
 *
 * Locks: recycling_lock, by workers; in it tables_lock, for the table and what is kept to be recycled. Calls of the
 * engine's baton-holder take the latter and nothing else.
 */
#include "memory.h"

#include <linux/nospec.h>
#include <linux/slab.h>

/* Of 2 MiB pages. */
#define HUGE_ORDER (PMD_SHIFT - PAGE_SHIFT)
/* So much is kept of what was freed to be recycled. */
#define RECYCLED_BYTES (256ull << 20)
/* And so many buffers, which are looked through one by one. */
#define RECYCLED_BUFFERS 1024
/* Of an offset for mmap, the pages within a buffer; above them, the buffer's number. */
#define PAGE_BITS 24

/* Tells where a buffer can be mapped from. */
int dmp_memory_offer(struct dmp_context *context, struct dmaplane_map *arguments)
{
	struct dmp_memory *memory;
	void *object;
	int error;

	if (arguments->flags || arguments->offset || arguments->length_bytes)
		return -EINVAL;
	error = dmp_until_free(context, dmaplane_hold_buffer(context->engine, arguments->buffer, &object));
	if (error)
		return error;
	memory = object;
	arguments->offset = (u64)memory->mapping << (PAGE_BITS + PAGE_SHIFT);
	arguments->length_bytes = dmp_memory_bytes(memory);
	dmp_memory_put(memory);
	return 0;
}

/* The buffer that an offset names, held, and the page in it; NULL where there is none. */
struct dmp_memory *dmp_memory_at(struct dmp_context *context, unsigned long pgoff, unsigned long *first_page)
{
	struct dmp_memory *memory;

	*first_page = pgoff & ((1ul << PAGE_BITS) - 1);
	spin_lock(&context->tables_lock);
	memory = xa_load(&context->mappings, pgoff >> PAGE_BITS);
	/* A live buffer holds its memory. */
	if (memory)
		kref_get(&memory->references);
	spin_unlock(&context->tables_lock);
	return memory;
}

/*
 * One after another: an offset that a client was told of is not soon another buffer's, when this one is freed before the
 * client has mapped it.
 */
static int take_number(struct dmp_context *context, struct dmp_memory *memory, struct dmp_memory *entry, gfp_t gfp)
{
	int error = dmp_xa_alloc_cyclic(&context->mappings, &memory->mapping, entry, XA_LIMIT(1, 1 << 20),
					&context->next_mapping, gfp);

	/* 1: they begin anew. */
	return min(error, 0);
}

/* A number for the offset that a buffer is mapped at; nothing is found by it until it is stored there. */
static int dmp_memory_number(struct dmp_context *context, struct dmp_memory *memory)
{
	int error = take_number(context, memory, NULL, DMP_GFP);

	return error == -EBUSY ? -ENFILE : error;
}

/* Memory of others becomes a buffer. */
int dmp_memory_add(struct dmp_context *context, struct dmp_memory *memory, u64 *buffer)
{
	int error = dmp_memory_number(context, memory);

	if (error)
		return error;
	error = dmp_until_free(context, dmaplane_add_buffer(context->engine, memory->length_bytes, memory, buffer));
	if (error)
		xa_erase(&context->mappings, memory->mapping);
	return error;
}

void dmaplane_glue_put_buffer(struct dmp_context *context, u32 buffer, void *object)
{
	struct dmp_memory *memory = object;

	spin_lock(&context->tables_lock);
	context->buffers[buffer] = memory;
	/* Its place is reserved: this does not allocate. */
	xa_store(&context->mappings, memory->mapping, memory, GFP_NOWAIT);
	spin_unlock(&context->tables_lock);
}

/* What is left in the tables when a context ends. */
void dmp_memory_end(struct dmp_context *context)
{
	u32 i;

	for (i = 0; context->buffers && i < context->limits.buffers; i++)
		WARN_ON_ONCE(context->buffers[i]);
}

struct dmp_alloc_work {
	struct dmp_work work;
	u32 buffer;
	struct dmp_alloc request;
};

/*
 * Takes recycled memory out of the context, oldest first, until no more than so much is kept: what is dropped, for
 * nobody else's eyes. Nobody else holds it.
 */
static void take_out_recycled(struct dmp_context *context, u64 down_to_bytes, struct list_head *dropped)
{
	struct dmp_memory *memory, *next;

	lockdep_assert_held(&context->tables_lock);
	list_for_each_entry_safe(memory, next, &context->recycled, entry) {
		if (context->recycled_bytes <= down_to_bytes && context->nr_recycled <= RECYCLED_BUFFERS)
			break;
		context->recycled_bytes -= dmp_memory_bytes(memory);
		context->nr_recycled--;
		list_move_tail(&memory->entry, dropped);
	}
}

/* Lets go of it by a worker. */
static void drop(struct list_head *dropped)
{
	struct dmp_memory *memory, *next;

	list_for_each_entry_safe(memory, next, dropped, entry)
		dmp_memory_put(memory);
}

/* Lets go of it at once, after who is at it already: whether there was any. By a worker, which may sleep. */
static bool drop_recycled_now(struct dmp_context *context)
{
	struct dmp_memory *memory, *next;
	LIST_HEAD(dropped);
	bool any;

	mutex_lock(&context->recycling_lock);
	spin_lock(&context->tables_lock);
	take_out_recycled(context, 0, &dropped);
	spin_unlock(&context->tables_lock);
	any = !list_empty(&dropped);
	list_for_each_entry_safe(memory, next, &dropped, entry)
		dmp_memory_free(memory);
	mutex_unlock(&context->recycling_lock);
	return any;
}

/* The context closes: none is kept any more. */
void dmp_memory_end_recycling(struct dmp_context *context)
{
	LIST_HEAD(dropped);

	spin_lock(&context->tables_lock);
	context->recycled_ended = true;
	take_out_recycled(context, 0, &dropped);
	spin_unlock(&context->tables_lock);
	drop(&dropped);
}

/* Memory of a buffer, charged: an error where there is none, or where the context has as much as it may. */
static struct dmp_memory *charged(struct dmp_context *context, unsigned long nr_pages, unsigned int order, int node,
				  bool strict, u64 *had)
{
	u64 bytes = (u64)nr_pages << PAGE_SHIFT;
	struct dmp_memory *memory;

	if (!dmp_charge(&context->charge->bytes, bytes, context->limits.memory_bytes))
		return ERR_PTR(-EDQUOT);
	memory = dmp_memory_new(nr_pages, order, node, strict, had);
	if (IS_ERR(memory)) {
		atomic64_sub(bytes, &context->charge->bytes);
		return memory;
	}
	/* From here on its end gives the bytes back. */
	kref_get(&context->charge->references);
	memory->charge = context->charge;
	return memory;
}

/* Makes a buffer: 0 and its length, or an errno, and how many pages there were of how many, where that is known. */
static int make_buffer(struct dmp_context *context, u32 buffer, const struct dmp_alloc *request, u64 *length_bytes,
		       u64 *had, u64 *wanted)
{
	unsigned long nr_pages = PAGE_ALIGN(request->length_bytes) >> PAGE_SHIFT;
	bool strict = request->flags & DMP_ALLOC_STRICT;
	unsigned int order = 0;
	int node = NUMA_NO_NODE;
	struct dmp_memory *memory;
	u64 found = U64_MAX;
	unsigned long i;
	int error;

	if (request->flags & DMP_ALLOC_HUGE) {
		order = HUGE_ORDER;
		nr_pages = ALIGN(nr_pages, 1ul << HUGE_ORDER);
	}
	if (nr_pages >= 1ul << PAGE_BITS)
		return -EMSGSIZE;
	if (request->flags & DMP_ALLOC_HAS_NODE) {
		if (request->node >= nr_node_ids)
			return -EINVAL;
		node = array_index_nospec(request->node, nr_node_ids);
		if (!node_online(node))
			return -EINVAL;
	}
	memory = charged(context, nr_pages, order, node, strict, &found);
	/* What is kept to be recycled must be in nobody's way; another worker may have given it back this moment. */
	if (IS_ERR(memory) && (drop_recycled_now(context) || PTR_ERR(memory) == -EDQUOT)) {
		found = U64_MAX;
		memory = charged(context, nr_pages, order, node, strict, &found);
	}
	if (IS_ERR(memory)) {
		if (found != U64_MAX) {
			*had = found;
			*wanted = nr_pages;
		}
		return PTR_ERR(memory);
	}
	memory->recycle = request->flags & DMP_ALLOC_RECYCLE;
	memory->node = node;
	memory->strict = strict;
	memory->order = order;
	/* Verified page by page, whatever the allocator promises. */
	for (i = 0; strict && i < nr_pages; i++)
		if (page_to_nid(memory->pages[i]) != node) {
			*had = i;
			*wanted = nr_pages;
			dmp_memory_put(memory);
			return -ENOMEM;
		}
	error = dmp_memory_number(context, memory);
	if (error) {
		dmp_memory_put(memory);
		return error;
	}
	spin_lock(&context->tables_lock);
	context->buffers[buffer] = memory;
	spin_unlock(&context->tables_lock);
	/* Its place is reserved: this does not allocate. */
	xa_store(&context->mappings, memory->mapping, memory, GFP_KERNEL);
	*length_bytes = dmp_memory_bytes(memory);
	return 0;
}

/*
 * Memory that this context has freed, of the same size and place, with what was left in it; NULL: there is none. The
 * kernel does not move its own pages, so that where they were verified they still are.
 */
static struct dmp_memory *recycled_for(struct dmp_context *context, unsigned long nr_pages, unsigned int order,
				       int node, bool strict)
{
	struct dmp_memory *memory;

	/* The youngest is the likeliest to be in a cache. */
	list_for_each_entry_reverse(memory, &context->recycled, entry)
		if (memory->nr_pages == nr_pages && memory->node == node && memory->strict == strict &&
		    memory->order == order) {
			list_del(&memory->entry);
			context->recycled_bytes -= dmp_memory_bytes(memory);
			context->nr_recycled--;
			return memory;
		}
	return NULL;
}

/* Nothing is allocated, zeroed or copied: the engine's own thread does it. */
static bool take_recycled(struct dmp_context *context, u32 buffer, const struct dmp_alloc *request,
			  struct dmp_outcome *outcome)
{
	int node = request->flags & DMP_ALLOC_HAS_NODE ? (int)request->node : NUMA_NO_NODE;
	unsigned long nr_pages = PAGE_ALIGN(request->length_bytes) >> PAGE_SHIFT;
	unsigned int order = request->flags & DMP_ALLOC_HUGE ? HUGE_ORDER : 0;
	struct dmp_memory *memory;

	nr_pages = ALIGN(nr_pages, 1ul << order);
	spin_lock(&context->tables_lock);
	memory = recycled_for(context, nr_pages, order, node, request->flags & DMP_ALLOC_STRICT);
	if (memory) {
		context->buffers[buffer] = memory;
		/* Its number was given back when it was freed; it gets one as every buffer does. */
		if (take_number(context, memory, memory, GFP_NOWAIT)) {
			context->buffers[buffer] = NULL;
			list_add_tail(&memory->entry, &context->recycled);
			context->recycled_bytes += dmp_memory_bytes(memory);
			context->nr_recycled++;
			memory = NULL;
		}
	}
	spin_unlock(&context->tables_lock);
	if (!memory)
		return false;
	outcome->result = 0;
	outcome->word0 = dmp_memory_bytes(memory);
	return true;
}

static int make(struct dmp_work *item, u64 *word0, u64 *word1)
{
	struct dmp_alloc_work *work = container_of(item, struct dmp_alloc_work, work);

	u64 length_bytes = 0, had = 0, wanted = 0;
	/* Nobody would get it: a killed process may have asked for many. */
	int error = atomic_read(&item->context->closing) ? -ECANCELED :
		    make_buffer(item->context, work->buffer, &work->request, &length_bytes, &had, &wanted);

	*word0 = error ? had : length_bytes;
	*word1 = error ? wanted : 0;
	/* Told of strict placement alone, where it means something. */
	if (error && (error != -ENOMEM || !(work->request.flags & DMP_ALLOC_STRICT)))
		*word0 = *word1 = 0;
	return error;
}

void dmaplane_glue_alloc(struct dmp_context *context, u64 op, u32 buffer, const struct dmp_alloc *request,
			 struct dmp_outcome *outcome)
{
	struct dmp_alloc_work *work;

	if (request->flags & DMP_ALLOC_RECYCLE && take_recycled(context, buffer, request, outcome))
		return;
	work = dmp_kzalloc(sizeof(*work), DMP_GFP_NOWAIT);
	if (work) {
		work->buffer = buffer;
		work->request = *request;
	}
	dmp_work_start(&work->work, context, op, make, outcome);
}

/*
 * No mapping, no export, no work has it; and nobody has a page of it: who has pinned one through a mapping that is gone
 * would see the next user's bytes.
 */
static bool is_nobody_elses(struct dmp_memory *memory)
{
	unsigned long i;

	if (memory->length_bytes > RECYCLED_BYTES || kref_read(&memory->references) != 1)
		return false;
	for (i = 0; i < memory->nr_pages; i++) {
		if (page_ref_count(memory->pages[i]) != 1)
			return false;
		if (i % 4096 == 4095)
			cond_resched();
	}
	return true;
}

void dmaplane_glue_free(struct dmp_context *context, u64 op, u32 buffer, struct dmp_outcome *outcome)
{
	struct dmp_memory *memory;
	LIST_HEAD(dropped);
	bool kept = false;

	spin_lock(&context->tables_lock);
	memory = context->buffers[buffer];
	context->buffers[buffer] = NULL;
	if (memory)
		xa_erase(&context->mappings, memory->mapping);
	spin_unlock(&context->tables_lock);
	/* What looks a buffer up does it in the tables: from here on nobody new gets at it. */
	if (memory && memory->recycle && is_nobody_elses(memory)) {
		spin_lock(&context->tables_lock);
		kept = !context->recycled_ended;
		if (kept) {
			list_add_tail(&memory->entry, &context->recycled);
			context->recycled_bytes += dmp_memory_bytes(memory);
			context->nr_recycled++;
			take_out_recycled(context, RECYCLED_BYTES, &dropped);
		}
		spin_unlock(&context->tables_lock);
	}
	drop(&dropped);
	if (memory && !kept)
		dmp_memory_put(memory);
	outcome->result = 0;
}

/*
 * An index's memory stays under the baton, and while the engine counts a use of it: only dmaplane_glue_free takes it
 * away. The index may have come out of a list: under speculation it is a user's number (clause SEC-3).
 */
struct dmp_memory *dmp_memory_of(struct dmp_context *context, u32 buffer)
{
	if (buffer >= context->limits.buffers)
		return NULL;
	return READ_ONCE(context->buffers[array_index_nospec(buffer, context->limits.buffers)]);
}

void *dmaplane_glue_hold_buffer(struct dmp_context *context, u32 buffer)
{
	struct dmp_memory *memory = dmp_memory_of(context, buffer);

	if (memory)
		kref_get(&memory->references);
	return memory;
}

struct dmp_placement_work {
	struct dmp_work work;
	struct dmp_memory *memory;
	u32 node;
};

static int look(struct dmp_work *item, u64 *on_node, u64 *pages)
{
	struct dmp_placement_work *work = container_of(item, struct dmp_placement_work, work);
	struct dmp_memory *memory = work->memory;
	unsigned long i;

	*pages = memory->nr_pages;
	for (i = 0; i < memory->nr_pages; i++) {
		*on_node += page_to_nid(memory->pages[i]) == work->node;
		if (i % 4096 == 4095)
			cond_resched();
	}
	dmp_memory_put(memory);
	return 0;
}

void dmaplane_glue_placement(struct dmp_context *context, u64 op, u32 buffer, u32 node, struct dmp_outcome *outcome)
{
	struct dmp_placement_work *work = dmp_kzalloc(sizeof(*work), DMP_GFP_NOWAIT);

	if (work) {
		work->memory = dmaplane_glue_hold_buffer(context, buffer);
		work->node = node;
	}
	dmp_work_start(&work->work, context, op, look, outcome);
}
