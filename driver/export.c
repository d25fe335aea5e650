// SPDX-License-Identifier: GPL-2.0
/*
 * Our memory for others, as a dma-buf (clauses BUF-7, BUF-8). An export holds the memory and nothing else: its context
 * may be long gone when the last importer lets go, and no call of it reaches an engine.
 *
 * All exports of one memory share a dma_resv, in which copies of ours that are under way have a fence. We do not wait
 * for others' fences before we copy, but in SYNC.
 *
 * Locks: first_export_lock, outermost; the dma_resv, which the core may hold around a call of ours, or two by a ticket;
 * under them memory->attachments_lock.
 */
#include "memory.h"

#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-mapping.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

/* One attached device. */
struct dmp_attachment {
	struct list_head entry;
	struct device *device;
	struct sg_table table;
	/* Its addresses are known to the device, for transfers in this direction. Guarded by attachments_lock. */
	bool mapped;
	enum dma_data_direction direction;
};

static int attach(struct dma_buf *dma_buf, struct dma_buf_attachment *of)
{
	struct dmp_memory *memory = dma_buf->priv;
	struct dmp_attachment *attachment = dmp_kzalloc(sizeof(*attachment), GFP_KERNEL);
	int error;

	if (!attachment)
		return -ENOMEM;
	/* In pieces as long as the device can take. */
	error = dmp_sg_alloc_table_from_pages_segment(&attachment->table, memory->pages, memory->nr_pages, 0,
						      memory->length_bytes, dma_get_max_seg_size(of->dev), GFP_KERNEL);
	if (error) {
		kfree(attachment);
		return error;
	}
	attachment->device = of->dev;
	of->priv = attachment;
	mutex_lock(&memory->attachments_lock);
	list_add(&attachment->entry, &memory->attachments);
	mutex_unlock(&memory->attachments_lock);
	return 0;
}

static void detach(struct dma_buf *dma_buf, struct dma_buf_attachment *of)
{
	struct dmp_memory *memory = dma_buf->priv;
	struct dmp_attachment *attachment = of->priv;

	mutex_lock(&memory->attachments_lock);
	list_del(&attachment->entry);
	mutex_unlock(&memory->attachments_lock);
	sg_free_table(&attachment->table);
	kfree(attachment);
}

static struct sg_table *map(struct dma_buf_attachment *of, enum dma_data_direction direction)
{
	struct dmp_memory *memory = of->dmabuf->priv;
	struct dmp_attachment *attachment = of->priv;
	int error = dmp_dma_map_sgtable(attachment->device, &attachment->table, direction, 0);

	if (error)
		return ERR_PTR(error);
	mutex_lock(&memory->attachments_lock);
	attachment->mapped = true;
	attachment->direction = direction;
	mutex_unlock(&memory->attachments_lock);
	return &attachment->table;
}

static void unmap(struct dma_buf_attachment *of, struct sg_table *table, enum dma_data_direction direction)
{
	struct dmp_memory *memory = of->dmabuf->priv;
	struct dmp_attachment *attachment = of->priv;

	mutex_lock(&memory->attachments_lock);
	attachment->mapped = false;
	mutex_unlock(&memory->attachments_lock);
	dma_unmap_sgtable(attachment->device, table, direction, 0);
}

/*
 * Makes devices and the processor see the same, on either side of an access of the latter: whatever that is to do, each
 * device's part is as it was mapped.
 */
static void sync_devices(struct dmp_memory *memory, bool end)
{
	struct dmp_attachment *attachment;

	mutex_lock(&memory->attachments_lock);
	list_for_each_entry(attachment, &memory->attachments, entry) {
		if (!attachment->mapped)
			continue;
		if (end)
			dma_sync_sgtable_for_device(attachment->device, &attachment->table, attachment->direction);
		else
			dma_sync_sgtable_for_cpu(attachment->device, &attachment->table, attachment->direction);
	}
	mutex_unlock(&memory->attachments_lock);
}

static int begin_cpu_access(struct dma_buf *dma_buf, enum dma_data_direction direction)
{
	sync_devices(dma_buf->priv, false);
	return 0;
}

static int end_cpu_access(struct dma_buf *dma_buf, enum dma_data_direction direction)
{
	sync_devices(dma_buf->priv, true);
	return 0;
}

static int map_for_user(struct dma_buf *dma_buf, struct vm_area_struct *vma)
{
	return dmp_memory_map(dma_buf->priv, vma, vma->vm_pgoff, false);
}

static int map_for_kernel(struct dma_buf *dma_buf, struct iosys_map *map)
{
	struct dmp_memory *memory = dma_buf->priv;
	int error = 0;

	/* One for all exports: what it takes of the kernel's memory is in nobody's account. */
	mutex_lock(&memory->attachments_lock);
	/* Not to be failed by a test: the core of dma-buf warns of it. */
	if (!memory->shared_users)
		memory->shared_address = vmap(memory->pages, memory->nr_pages, VM_MAP, PAGE_KERNEL);
	if (memory->shared_address) {
		memory->shared_users++;
		iosys_map_set_vaddr(map, memory->shared_address);
	} else {
		error = -ENOMEM;
	}
	mutex_unlock(&memory->attachments_lock);
	return error;
}

static void unmap_for_kernel(struct dma_buf *dma_buf, struct iosys_map *map)
{
	struct dmp_memory *memory = dma_buf->priv;

	mutex_lock(&memory->attachments_lock);
	if (!--memory->shared_users) {
		vunmap(memory->shared_address);
		memory->shared_address = NULL;
	}
	mutex_unlock(&memory->attachments_lock);
}

static void release(struct dma_buf *dma_buf)
{
	atomic_long_dec(&dmp_accounts.exports);
	/* The module stays until the dma-buf's own hold of it goes, which is after this. */
	dmp_memory_put(dma_buf->priv);
}

static const struct dma_buf_ops operations = {
	.attach = attach,
	.detach = detach,
	.map_dma_buf = map,
	.unmap_dma_buf = unmap,
	.begin_cpu_access = begin_cpu_access,
	.end_cpu_access = end_cpu_access,
	.mmap = map_for_user,
	.vmap = map_for_kernel,
	.vunmap = unmap_for_kernel,
	.release = release,
};

/* Exporting. */

static DEFINE_MUTEX(first_export_lock);

/* From here on copies have fences. */
static void mark_exported(struct dmp_memory *memory)
{
	mutex_lock(&first_export_lock);
	if (!memory->exported) {
		dma_resv_init(&memory->fences);
		/* Release: pairs with the acquire of who looks for it; the dma_resv is there. */
		smp_store_release(&memory->exported, true);
	}
	mutex_unlock(&first_export_lock);
}

/* The memory goes: nobody has an export of it any more. */
void dmp_export_end(struct dmp_memory *memory)
{
	if (memory->exported)
		dma_resv_fini(&memory->fences);
}

struct dmp_export_work {
	struct dmp_work work;
	struct dmp_memory *memory;
	u32 slot;
};

static int export(struct dmp_work *item, u64 *word0, u64 *word1)
{
	struct dmp_export_work *work = container_of(item, struct dmp_export_work, work);
	DEFINE_DMA_BUF_EXPORT_INFO(info);
	struct dma_buf *dma_buf;
	int error;

	mark_exported(work->memory);
	info.ops = &operations;
	info.size = work->memory->length_bytes;
	info.flags = O_RDWR | O_CLOEXEC;
	info.resv = &work->memory->fences;
	info.priv = work->memory;
	dma_buf = dmp_dma_buf_export(&info);
	if (IS_ERR(dma_buf)) {
		dmp_memory_put(work->memory);
		return PTR_ERR(dma_buf);
	}
	/* The memory's hold is the export's now. */
	atomic_long_inc(&dmp_accounts.exports);
	error = dmp_slot_fill(item->context, work->slot, dma_buf->file);
	if (error)
		fput(dma_buf->file);
	return error;
}

void dmaplane_glue_export(struct dmp_context *context, u64 op, u32 buffer, u32 slot, struct dmp_outcome *outcome)
{
	struct dmp_memory *memory = dmp_memory_of(context, buffer);
	struct dmp_export_work *work;

	if (!memory || memory->kind != DMP_MEMORY_PAGES) {
		outcome->result = memory ? -EOPNOTSUPP : -EIO;
		return;
	}
	work = dmp_kzalloc(sizeof(*work), DMP_GFP_NOWAIT);
	if (work) {
		work->memory = dmaplane_glue_hold_buffer(context, buffer);
		work->slot = slot;
	}
	dmp_work_start(&work->work, context, op, export, outcome);
}

/* SYNC. */

/* Makes devices and the processor see the same. By a worker. */
void dmp_export_sync(struct dmp_memory *memory, bool end)
{
	/* Acquire: pairs with the release in mark_exported. */
	if (smp_load_acquire(&memory->exported))
		sync_devices(memory, end);
}

/* Fences. */

struct dmp_fence {
	struct dma_fence fence;
	spinlock_t lock;
};

static const char *fence_name(struct dma_fence *fence)
{
	return "dmaplane";
}

static void fence_free(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct dma_fence, rcu));
	module_put(THIS_MODULE);
}

/* Others may hold a fence long after it was signalled: it holds the module. */
static void fence_release(struct dma_fence *fence)
{
	/* The callback's end is waited for before the module goes. */
	rcu_read_lock();
	call_rcu(&fence->rcu, fence_free);
	rcu_read_unlock();
}

static const struct dma_fence_ops fence_operations = {
	.get_driver_name = fence_name,
	.get_timeline_name = fence_name,
	.release = fence_release,
};

static struct dma_fence *fence_new(void)
{
	struct dmp_fence *fence = dmp_kzalloc(sizeof(*fence), DMP_GFP);

	if (!fence)
		return NULL;
	spin_lock_init(&fence->lock);
	dma_fence_init(&fence->fence, &fence_operations, &fence->lock, dma_fence_context_alloc(1), 1);
	__module_get(THIS_MODULE);
	return &fence->fence;
}

/* Both of them, in whatever order others take them. They may be the same. */
static int lock_both(struct dma_resv *first, struct dma_resv *second, struct ww_acquire_ctx *ticket)
{
	int error = dma_resv_lock(first, ticket);

	/* Only where locks are tested: we hold none. */
	if (error == -EDEADLK) {
		dma_resv_lock_slow(first, ticket);
		error = 0;
	}
	if (error || first == second)
		return error;
	while ((error = dma_resv_lock(second, ticket)) == -EDEADLK) {
		dma_resv_unlock(first);
		dma_resv_lock_slow(second, ticket);
		swap(first, second);
	}
	if (error)
		dma_resv_unlock(first);
	return error;
}

/* Puts the fences where others look for them, all or none. */
static int publish(struct dmp_access *const *all, int count)
{
	struct dma_resv *first = &all[0]->memory->fences, *last = &all[count - 1]->memory->fences;
	struct ww_acquire_ctx ticket;
	int error, i;

	ww_acquire_init(&ticket, &reservation_ww_class);
	error = lock_both(first, last, &ticket);
	if (!error) {
		error = dmp_dma_resv_reserve_fences(first, first == last ? count : 1);
		if (!error && first != last)
			error = dmp_dma_resv_reserve_fences(last, 1);
		for (i = 0; !error && i < count; i++)
			dma_resv_add_fence(&all[i]->memory->fences, all[i]->fence,
					   all[i]->write ? DMA_RESV_USAGE_WRITE : DMA_RESV_USAGE_READ);
		dma_resv_unlock(first);
		if (first != last)
			dma_resv_unlock(last);
	}
	ww_acquire_fini(&ticket);
	return error;
}

/*
 * A copy is about to begin: what importers wait for that mind it, in whatever of its sides is exported; `second` may be
 * NULL. By a worker. From the first fence that others can see to the end of the copy nothing is allocated, and nobody
 * is waited for: they may wait for us with anything in their hands. What is begun is ended by dmp_access_end.
 */
int dmp_export_busy(struct dmp_access *first, struct dmp_access *second)
{
	struct dmp_access *all[2], *sides[2] = { first, second };
	int count = 0, error = 0, i;

	for (i = 0; i < ARRAY_SIZE(sides); i++) {
		struct dmp_access *side = sides[i];

		/* Acquire: pairs with the release in mark_exported; the dma_resv is there. */
		if (!side || side->memory->kind == DMP_MEMORY_IMPORTED || !smp_load_acquire(&side->memory->exported))
			continue;
		side->fence = fence_new();
		if (!side->fence)
			return -ENOMEM;
		all[count++] = side;
	}
	if (count)
		error = publish(all, count);
	return error;
}

void dmp_export_idle(struct dma_fence *fence)
{
	dma_fence_signal(fence);
	dma_fence_put(fence);
}
