// SPDX-License-Identifier: GPL-2.0
/*
 * Our memory for others, as a dma-buf (clauses BUF-7, BUF-8). An export holds the memory and nothing else: its context
 * may be long gone when the last importer lets go, and no call of it reaches an engine.
 *
 * All exports of one memory share a dma_resv, in which copies of ours that are under way have a fence. We do not wait
 * for others' fences before we copy, but in SYNC.
 *
 * Locks: first_export_lock, outermost; the dma_resv, which the core may hold around a call of ours, and under it
 * memory->attachments_lock.
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
	/* Its addresses are known to the device. Guarded by attachments_lock. */
	bool mapped;
};

static int attach(struct dma_buf *dma_buf, struct dma_buf_attachment *of)
{
	struct dmp_memory *memory = dma_buf->priv;
	struct dmp_attachment *attachment = dmp_kzalloc(sizeof(*attachment), GFP_KERNEL);
	int error;

	if (!attachment)
		return -ENOMEM;
	error = dmp_sg_alloc_table_from_pages(&attachment->table, memory->pages, memory->nr_pages, 0, memory->length_bytes,
					  GFP_KERNEL);
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

/* Makes devices and the processor see the same, on either side of an access of the latter. */
static void sync_devices(struct dmp_memory *memory, enum dma_data_direction direction, bool end)
{
	struct dmp_attachment *attachment;

	mutex_lock(&memory->attachments_lock);
	list_for_each_entry(attachment, &memory->attachments, entry) {
		if (!attachment->mapped)
			continue;
		if (end)
			dma_sync_sgtable_for_device(attachment->device, &attachment->table, direction);
		else
			dma_sync_sgtable_for_cpu(attachment->device, &attachment->table, direction);
	}
	mutex_unlock(&memory->attachments_lock);
}

static int begin_cpu_access(struct dma_buf *dma_buf, enum dma_data_direction direction)
{
	sync_devices(dma_buf->priv, direction, false);
	return 0;
}

static int end_cpu_access(struct dma_buf *dma_buf, enum dma_data_direction direction)
{
	sync_devices(dma_buf->priv, direction, true);
	return 0;
}

static int map_for_user(struct dma_buf *dma_buf, struct vm_area_struct *vma)
{
	return dmp_memory_map(dma_buf->priv, vma, vma->vm_pgoff, false);
}

static int map_for_kernel(struct dma_buf *dma_buf, struct iosys_map *map)
{
	struct dmp_memory *memory = dma_buf->priv;
	/* Not for fault.h: the kernel's own dma-buf code warns when this fails. */
	/* Not to be failed by a test: the core of dma-buf warns of it. */
	void *address = vmap(memory->pages, memory->nr_pages, VM_MAP, PAGE_KERNEL);

	if (!address)
		return -ENOMEM;
	iosys_map_set_vaddr(map, address);
	return 0;
}

static void unmap_for_kernel(struct dma_buf *dma_buf, struct iosys_map *map)
{
	vunmap(map->vaddr);
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
	work = dmp_kzalloc(sizeof(*work), GFP_NOWAIT | __GFP_NOWARN);
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
		sync_devices(memory, DMA_BIDIRECTIONAL, end);
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

/* A copy is about to begin: what importers wait for that mind it. By a worker. */
struct dma_fence *dmp_export_busy(struct dmp_memory *memory, bool write)
{
	struct dmp_fence *fence = dmp_kzalloc(sizeof(*fence), DMP_GFP);
	int error;

	if (!fence)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&fence->lock);
	dma_fence_init(&fence->fence, &fence_operations, &fence->lock, dma_fence_context_alloc(1), 1);
	__module_get(THIS_MODULE);
	/* Partner: the release in mark_exported. */
	smp_load_acquire(&memory->exported);
	dma_resv_lock(&memory->fences, NULL);
	error = dmp_dma_resv_reserve_fences(&memory->fences, 1);
	if (!error)
		dma_resv_add_fence(&memory->fences, &fence->fence,
				   write ? DMA_RESV_USAGE_WRITE : DMA_RESV_USAGE_READ);
	dma_resv_unlock(&memory->fences);
	if (error) {
		dma_fence_signal(&fence->fence);
		dma_fence_put(&fence->fence);
		return ERR_PTR(error);
	}
	return &fence->fence;
}

void dmp_export_idle(struct dma_fence *fence)
{
	dma_fence_signal(fence);
	dma_fence_put(fence);
}
