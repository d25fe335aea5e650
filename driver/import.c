// SPDX-License-Identifier: GPL-2.0
/*
 * Others' memory for us: a dma-buf becomes a buffer (clauses CAL-3, BUF-9), mapped for the kernel whole.
 *
 * Locks: none of ours; those of the exporter.
 */
#include "memory.h"

#include <linux/dma-buf.h>
#include <linux/fs.h>
#include <linux/module.h>

void dmp_import_free(struct dmp_memory *memory)
{
	if (!memory->dma_buf)
		return;
	if (memory->address)
		dmp_dma_buf_vunmap(memory->dma_buf, &memory->map);
	dma_buf_put(memory->dma_buf);
}

/*
 * The exporter's own part of it. The core's would then wait for every fence without an end, those that have come since
 * somebody looked among them.
 */
int dmp_import_sync(struct dmp_memory *memory, bool end, bool write)
{
	enum dma_data_direction direction = write ? DMA_BIDIRECTIONAL : DMA_FROM_DEVICE;
	const struct dma_buf_ops *operations = memory->dma_buf->ops;

	if (end)
		return dma_buf_end_cpu_access(memory->dma_buf, direction);
	return operations->begin_cpu_access ? operations->begin_cpu_access(memory->dma_buf, direction) : 0;
}

/* What devices are at it with. */
struct dma_resv *dmp_import_fences(struct dmp_memory *memory)
{
	return memory->dma_buf->resv;
}

/*
 * What maps it here is in nobody's account: a context has so much of it at most as it may have of memory. From here on
 * the end of the memory gives the bytes back.
 */
static int count(struct dmp_context *context, struct dmp_memory *memory)
{
	if (memory->length_bytes > context->limits.buffer_bytes)
		return -EMSGSIZE;
	if (!dmp_charge(&context->charge->imported_bytes, memory->length_bytes, context->limits.memory_bytes))
		return -EDQUOT;
	kref_get(&context->charge->references);
	memory->charge = context->charge;
	return 0;
}

/* Of a descriptor of the caller's. */
static struct dmp_memory *import(struct dmp_context *context, int fd)
{
	struct dmp_memory *memory = dmp_memory_bare(DMP_MEMORY_IMPORTED);
	int error;

	if (!memory)
		return ERR_PTR(-ENOMEM);
	memory->dma_buf = dma_buf_get(fd);
	if (IS_ERR(memory->dma_buf)) {
		error = PTR_ERR(memory->dma_buf);
		memory->dma_buf = NULL;
		goto failed;
	}
	memory->length_bytes = memory->dma_buf->size;
	/* What its file cannot do we do not do either. */
	memory->read_only = !(memory->dma_buf->file->f_mode & FMODE_WRITE);
	error = -EOPNOTSUPP;
	if (!memory->dma_buf->ops->vmap)
		goto failed;
	error = count(context, memory);
	if (error)
		goto failed;
	error = dmp_fault() ? -ENOMEM : dmp_dma_buf_vmap(memory->dma_buf, &memory->map);
	if (error)
		goto failed;
	/* Memory behind a bus is not copied from and to as ours is. */
	if (memory->map.is_iomem) {
		dmp_dma_buf_vunmap(memory->dma_buf, &memory->map);
		error = -EOPNOTSUPP;
		goto failed;
	}
	memory->address = memory->map.vaddr;
	return memory;

failed:
	dmp_memory_put(memory);
	return ERR_PTR(error);
}

int dmp_import(struct dmp_context *context, struct dmaplane_import *arguments)
{
	struct dmp_memory *memory;
	int error;

	if (arguments->flags || arguments->buffer || arguments->length_bytes || arguments->reserved)
		return -EINVAL;
	memory = import(context, arguments->fd);
	if (IS_ERR(memory))
		return PTR_ERR(memory);
	arguments->length_bytes = memory->length_bytes;
	error = dmp_memory_add(context, memory, &arguments->buffer);
	if (error)
		dmp_memory_put(memory);
	return error;
}

DMP_IMPORT_DMA_BUF;
