// SPDX-License-Identifier: GPL-2.0
/*
 * Pages, of buffers and of rings: zeroed, on the node that was asked for, the largest blocks first; mapped by inserting
 * referenced pages, so that a mapping keeps them whatever becomes of the buffer. And what they come to.
 *
 * Locks: none.
 */
#include "memory.h"

#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

/* The largest block that is asked of the page allocator: 4 MiB at most, whatever the kernel's own bound is. */
#define ORDER_MAX 10

struct dmp_charge *dmp_charge_new(void)
{
	struct dmp_charge *charge = dmp_kzalloc(sizeof(*charge), DMP_GFP);

	if (charge)
		kref_init(&charge->references);
	return charge;
}

/* Counts so many bytes more, up to a limit. Who asks for too many is in nobody's way meanwhile. */
bool dmp_charge(atomic64_t *bytes, u64 more, u64 limit)
{
	s64 before = atomic64_read(bytes);

	do {
		if (more > limit || (u64)before > limit - more)
			return false;
	} while (!atomic64_try_cmpxchg(bytes, &before, before + more));
	return true;
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

/* By a worker, which may sleep; nobody else has it. */
void dmp_memory_free(struct dmp_memory *memory)
{
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
		atomic64_sub(memory->length_bytes, memory->kind == DMP_MEMORY_IMPORTED ? &memory->charge->imported_bytes :
											 &memory->charge->bytes);
		dmp_charge_put(memory->charge);
	}
	kvfree(memory->pages);
	kfree(memory);
	atomic_long_dec(&dmp_accounts.memories);
	module_put(THIS_MODULE);
}

static void free_later(struct work_struct *work)
{
	dmp_memory_free(container_of(work, struct dmp_memory, free_work));
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

/* How many pages of a node are free. */
static u64 free_on(int node)
{
	u64 pages = 0;
	int zone;

	for (zone = 0; zone < MAX_NR_ZONES; zone++)
		pages += zone_page_state(NODE_DATA(node)->node_zones + zone, NR_FREE_PAGES);
	return pages;
}

/*
 * Takes so many pages, zeroed, the largest blocks first, none smaller than `least_order`. `node` NUMA_NO_NODE: anywhere.
 * `strict`: there or not at all. `had`: how many there were, where that is not enough and is known.
 */
static int take_pages(struct dmp_memory *memory, unsigned int least_order, int node, bool strict, u64 *had)
{
	unsigned long taken = 0;
	unsigned int order = min_t(unsigned int, ORDER_MAX, get_order(memory->nr_pages << PAGE_SHIFT));
	gfp_t gfp = GFP_HIGHUSER | __GFP_ZERO | __GFP_ACCOUNT | __GFP_NOWARN;

	if (strict)
		gfp |= __GFP_THISNODE;
	/* Before the machine is driven to its last page by what cannot succeed. */
	if (memory->nr_pages > si_mem_available()) {
		if (strict)
			*had = min_t(u64, memory->nr_pages, free_on(node));
		return -ENOMEM;
	}
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
	struct dmp_memory *memory = dmp_kzalloc(sizeof(*memory), DMP_GFP);

	if (!memory)
		return NULL;
	memory->kind = kind;
	kref_init(&memory->references);
	INIT_WORK(&memory->free_work, free_later);
	mutex_init(&memory->attachments_lock);
	INIT_LIST_HEAD(&memory->attachments);
	__module_get(THIS_MODULE);
	atomic_long_inc(&dmp_accounts.memories);
	return memory;
}

struct dmp_memory *dmp_memory_new(unsigned long nr_pages, unsigned int order, int node, bool strict, u64 *had)
{
	struct dmp_memory *memory = dmp_memory_bare(DMP_MEMORY_PAGES);

	if (!memory)
		return ERR_PTR(-ENOMEM);
	memory->pages = dmp_kvmalloc_array(nr_pages, sizeof(*memory->pages),
					   DMP_GFP);
	memory->nr_pages = memory->pages ? nr_pages : 0;
	memory->length_bytes = (u64)nr_pages << PAGE_SHIFT;
	if (memory->pages && !take_pages(memory, order, node, strict, had))
		return memory;
	/* It has none of them. */
	memory->nr_pages = 0;
	dmp_memory_free(memory);
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
