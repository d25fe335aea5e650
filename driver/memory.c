// SPDX-License-Identifier: GPL-2.0
/*
 * Pages: of buffers and of rings. Allocated by a worker, zeroed, on the node that was asked for, the largest blocks
 * first; mapped by inserting referenced pages, so that a mapping keeps them whatever becomes of the buffer.
 *
 * Locks: tables_lock for the table of buffers. Calls of the engine's baton-holder take it and nothing else.
 */
#include "memory.h"

#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

/* The largest block that is asked of the page allocator: 4 MiB at most, whatever the kernel's own bound is. */
#define ORDER_MAX 10
/* Of 2 MiB pages. */
#define HUGE_ORDER (PMD_SHIFT - PAGE_SHIFT)
/* So much is kept of what was freed to be recycled. */
#define RECYCLED_BYTES (256ull << 20)
/* Of an offset for mmap, the pages within a buffer; above them, the buffer's number. */
#define PAGE_BITS 24

struct dmp_charge *dmp_charge_new(void)
{
	struct dmp_charge *charge = dmp_kzalloc(sizeof(*charge), GFP_KERNEL_ACCOUNT);

	if (charge)
		kref_init(&charge->references);
	return charge;
}

static void dmp_charge_free(struct kref *references)
{
	kfree(container_of(references, struct dmp_charge, references));
}

void dmp_charge_put(struct dmp_charge *charge)
{
	if (charge)
		kref_put(&charge->references, dmp_charge_free);
}

static void free_pages_of(struct dmp_memory *memory, unsigned long count)
{
	unsigned long i;

	for (i = 0; i < count; i++) {
		put_page(memory->pages[i]);
		if (i % 1024 == 1023)
			cond_resched();
	}
	atomic_long_sub(count, &dmp_accounts.pages);
}

static void dmp_memory_free(struct work_struct *work)
{
	struct dmp_memory *memory = container_of(work, struct dmp_memory, free_work);

	dmp_export_end(memory);
	switch (memory->kind) {
	case DMP_MEMORY_PAGES:
		if (memory->address)
			vunmap(memory->address);
		free_pages_of(memory, memory->nr_pages);
		break;
	case DMP_MEMORY_PINNED:
		dmp_pin_free(memory);
		break;
	case DMP_MEMORY_IMPORTED:
		dmp_import_free(memory);
		break;
	}
	if (memory->charge) {
		atomic64_sub(memory->length_bytes, &memory->charge->bytes);
		dmp_charge_put(memory->charge);
	}
	kvfree(memory->pages);
	kfree(memory);
	atomic_long_dec(&dmp_accounts.memories);
	module_put(THIS_MODULE);
}

/* By a worker: the last to let go may be the engine's runner, or an munmap. */
static void dmp_memory_last(struct kref *references)
{
	struct dmp_memory *memory = container_of(references, struct dmp_memory, references);

	queue_work(dmp_workers, &memory->free_work);
}

void dmp_memory_put(struct dmp_memory *memory)
{
	kref_put(&memory->references, dmp_memory_last);
}

/*
 * Takes so many pages, zeroed, the largest blocks first, none smaller than `least_order`. `node` NUMA_NO_NODE: anywhere.
 * `strict`: there or not at all. `had`: how many there were, where that is not enough.
 */
static int take_pages(struct dmp_memory *memory, unsigned int least_order, int node, bool strict, u64 *had)
{
	unsigned long taken = 0;
	unsigned int order = min_t(unsigned int, ORDER_MAX, get_order(memory->nr_pages << PAGE_SHIFT));
	gfp_t gfp = GFP_HIGHUSER | __GFP_ZERO | __GFP_ACCOUNT | __GFP_NOWARN;

	if (strict)
		gfp |= __GFP_THISNODE;
	/* Before the machine is driven to its last page by what cannot succeed. */
	if (memory->nr_pages > si_mem_available())
		return -ENOMEM;
	while (taken < memory->nr_pages) {
		struct page *block;
		unsigned long i;

		while (order > least_order && (1ul << order) > memory->nr_pages - taken)
			order--;
		/*
		 * A large block is a wish: no reclaim for it, no report that there is none. And the last page is not worth
		 * anybody's life: who asks gets an errno.
		 */
		block = dmp_alloc_pages_node(node, gfp | (order ? __GFP_NORETRY : __GFP_RETRY_MAYFAIL), order);
		if (!block) {
			if (order <= least_order) {
				free_pages_of(memory, taken);
				*had = taken;
				return -ENOMEM;
			}
			order--;
			continue;
		}
		/* Each page has a count of its own from here on: mappings hold single pages. */
		if (order)
			split_page(block, order);
		for (i = 0; i < 1ul << order; i++)
			memory->pages[taken++] = block + i;
		atomic_long_add(1l << order, &dmp_accounts.pages);
		cond_resched();
	}
	return 0;
}

/* Without anything in it; NULL: no memory. Freed by dmp_memory_put, once what its kind has is there. */
struct dmp_memory *dmp_memory_bare(enum dmp_memory_kind kind)
{
	struct dmp_memory *memory = dmp_kzalloc(sizeof(*memory), GFP_KERNEL_ACCOUNT);

	if (!memory)
		return NULL;
	memory->kind = kind;
	kref_init(&memory->references);
	INIT_WORK(&memory->free_work, dmp_memory_free);
	mutex_init(&memory->attachments_lock);
	INIT_LIST_HEAD(&memory->attachments);
	__module_get(THIS_MODULE);
	atomic_long_inc(&dmp_accounts.memories);
	return memory;
}

static struct dmp_memory *dmp_memory_new(unsigned long nr_pages, unsigned int order, int node, bool strict, u64 *had)
{
	struct dmp_memory *memory = dmp_memory_bare(DMP_MEMORY_PAGES);

	if (!memory)
		return ERR_PTR(-ENOMEM);
	memory->pages = dmp_kvmalloc_array(nr_pages, sizeof(*memory->pages),
					   GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	memory->nr_pages = memory->pages ? nr_pages : 0;
	memory->length_bytes = (u64)nr_pages << PAGE_SHIFT;
	if (memory->pages && !take_pages(memory, order, node, strict, had))
		return memory;
	/* It has none of them. */
	memory->nr_pages = 0;
	dmp_memory_free(&memory->free_work);
	return ERR_PTR(-ENOMEM);
}

/* Pages of a ring, in a row for the kernel. NULL: no memory. */
struct dmp_memory *dmp_memory_for_area(u64 bytes)
{
	struct dmp_memory *memory;
	u64 had;

	memory = dmp_memory_new(PAGE_ALIGN(bytes) >> PAGE_SHIFT, 0, NUMA_NO_NODE, false, &had);
	if (IS_ERR(memory))
		return NULL;
	memory->address = dmp_vmap(memory->pages, memory->nr_pages, VM_MAP, PAGE_KERNEL);
	if (!memory->address) {
		dmp_memory_put(memory);
		return NULL;
	}
	return memory;
}

void *dmp_memory_address(struct dmp_memory *memory)
{
	return memory->address;
}

u64 dmp_memory_bytes(struct dmp_memory *memory)
{
	return memory->length_bytes;
}

/* Mapping. */

static void dmp_vma_open(struct vm_area_struct *vma)
{
	struct dmp_memory *memory = vma->vm_private_data;

	kref_get(&memory->references);
}

static void dmp_vma_close(struct vm_area_struct *vma)
{
	dmp_memory_put(vma->vm_private_data);
}

static const struct vm_operations_struct dmp_vma_operations = {
	.open = dmp_vma_open,
	.close = dmp_vma_close,
};

/* Maps pages from `first_page` on. All of them are there from the beginning: there is no fault to serve. */
int dmp_memory_map(struct dmp_memory *memory, struct vm_area_struct *vma, unsigned long first_page, bool read_only)
{
	unsigned long wanted = vma_pages(vma), left = wanted;
	int error;

	/* A process has mapped its own memory already; a dma-buf's is its exporter's to map. */
	if (memory->kind == DMP_MEMORY_PINNED)
		return -EOPNOTSUPP;
	if (memory->kind == DMP_MEMORY_IMPORTED) {
		if (!(vma->vm_flags & VM_SHARED))
			return -EINVAL;
		if (vma->vm_flags & VM_EXEC || (memory->read_only && vma->vm_flags & VM_WRITE))
			return -EACCES;
		dmp_vm_flags_mod(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP,
				 VM_MAYEXEC | (memory->read_only ? VM_MAYWRITE : 0));
		return dma_buf_mmap(memory->dma_buf, vma, first_page);
	}
	if (first_page >= memory->nr_pages || wanted > memory->nr_pages - first_page)
		return -EINVAL;
	/* A private mapping would show copies. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC || (read_only && vma->vm_flags & VM_WRITE))
		return -EACCES;
	dmp_vm_flags_mod(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP,
			 VM_MAYEXEC | (read_only ? VM_MAYWRITE : 0));
	error = dmp_vm_insert_pages(vma, vma->vm_start, memory->pages + first_page, &left);
	if (error)
		/* What was inserted goes with the mapping, which does not come to be. */
		return error;
	kref_get(&memory->references);
	vma->vm_private_data = memory;
	vma->vm_ops = &dmp_vma_operations;
	return 0;
}

/* Tells where a buffer can be mapped from. */
int dmp_memory_offer(struct dmp_context *context, struct dmaplane_map *arguments)
{
	struct dmp_memory *memory;
	void *object;
	int error;

	if (arguments->flags || arguments->offset || arguments->length_bytes)
		return -EINVAL;
	error = dmp_until_free(dmaplane_hold_buffer(context->engine, arguments->buffer, &object));
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

/* Memory of others becomes a buffer. */
int dmp_memory_add(struct dmp_context *context, struct dmp_memory *memory, u64 *buffer)
{
	int error = dmp_memory_number(context, memory);

	if (error)
		return error;
	error = dmp_until_free(dmaplane_add_buffer(context->engine, memory->length_bytes, memory, buffer));
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

/* Buffers. */

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
		if (context->recycled_bytes <= down_to_bytes)
			break;
		context->recycled_bytes -= dmp_memory_bytes(memory);
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

/* Lets go of it at once: whether there was any. By a worker, which may sleep. */
static bool drop_recycled_now(struct dmp_context *context)
{
	struct dmp_memory *memory, *next;
	LIST_HEAD(dropped);
	bool any;

	spin_lock(&context->tables_lock);
	take_out_recycled(context, 0, &dropped);
	spin_unlock(&context->tables_lock);
	any = !list_empty(&dropped);
	list_for_each_entry_safe(memory, next, &dropped, entry)
		dmp_memory_free(&memory->free_work);
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

	if (atomic64_add_return(bytes, &context->charge->bytes) > context->limits.memory_bytes)
		memory = ERR_PTR(-EDQUOT);
	else
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

/* A number for the offset that a buffer is mapped at; nothing is found by it until it is stored there. */
int dmp_memory_number(struct dmp_context *context, struct dmp_memory *memory)
{
	int error = dmp_xa_alloc(&context->mappings, &memory->mapping, NULL, XA_LIMIT(1, 1 << 20), GFP_KERNEL_ACCOUNT);

	return error == -EBUSY ? -ENFILE : error;
}

/* Makes a buffer: 0 and its length, or an errno, and how many pages there were of how many. */
static int make_buffer(struct dmp_context *context, u32 buffer, const struct dmp_alloc *request, u64 *length_bytes,
		       u64 *had, u64 *wanted)
{
	unsigned long nr_pages = PAGE_ALIGN(request->length_bytes) >> PAGE_SHIFT;
	bool strict = request->flags & DMP_ALLOC_STRICT;
	unsigned int order = 0;
	int node = NUMA_NO_NODE;
	struct dmp_memory *memory;
	unsigned long i;
	int error;

	if (request->flags & DMP_ALLOC_HUGE) {
		order = HUGE_ORDER;
		nr_pages = ALIGN(nr_pages, 1ul << HUGE_ORDER);
	}
	if (nr_pages >= 1ul << PAGE_BITS)
		return -EMSGSIZE;
	*wanted = nr_pages;
	if (request->flags & DMP_ALLOC_HAS_NODE) {
		if (request->node >= nr_node_ids)
			return -EINVAL;
		node = array_index_nospec(request->node, nr_node_ids);
		if (!node_online(node))
			return -EINVAL;
	}
	memory = charged(context, nr_pages, order, node, strict, had);
	/* What is kept to be recycled must be in nobody's way. */
	if (IS_ERR(memory) && drop_recycled_now(context))
		memory = charged(context, nr_pages, order, node, strict, had);
	if (IS_ERR(memory))
		return PTR_ERR(memory);
	memory->recycle = request->flags & DMP_ALLOC_RECYCLE;
	memory->node = node;
	memory->strict = strict;
	memory->order = order;
	/* Verified page by page, whatever the allocator promises. */
	for (i = 0; strict && i < nr_pages; i++)
		if (page_to_nid(memory->pages[i]) != node) {
			*had = i;
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
		if (dmp_xa_alloc(&context->mappings, &memory->mapping, memory, XA_LIMIT(1, 1 << 20), GFP_NOWAIT)) {
			context->buffers[buffer] = NULL;
			list_add_tail(&memory->entry, &context->recycled);
			context->recycled_bytes += dmp_memory_bytes(memory);
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
	int error = make_buffer(item->context, work->buffer, &work->request, &length_bytes, &had, &wanted);

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
	work = dmp_kzalloc(sizeof(*work), GFP_NOWAIT | __GFP_NOWARN);
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
	for (i = 0; i < memory->nr_pages; i++)
		if (page_ref_count(memory->pages[i]) != 1)
			return false;
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
	struct dmp_placement_work *work = dmp_kzalloc(sizeof(*work), GFP_NOWAIT | __GFP_NOWARN);

	if (work) {
		work->memory = dmaplane_glue_hold_buffer(context, buffer);
		work->node = node;
	}
	dmp_work_start(&work->work, context, op, look, outcome);
}
