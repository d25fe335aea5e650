// SPDX-License-Identifier: GPL-2.0
/*
 * Another driver's part, for tests only: a device that attaches to dma-bufs as a static or a dynamic importer, and work
 * of its own, as a fence, that ends when a test says so. What the device does with memory it does by the addresses that
 * it was given; there is no IOMMU in the lab's machines, so that they are physical ones.
 */
#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

/* An attachment. `dynamic`: maps under the lock of the dma-buf, and would be told if its memory moved. */
struct importer_attach {
	__s32 fd;
	__u32 dynamic;
	/* Filled in: what the device was given addresses of, in how many pieces. */
	__u64 length_bytes;
	__u64 pieces;
};

/* What the device does with byte n: `write`: makes it n * 7 + add; and the sum of all bytes, before it did. */
struct importer_work {
	__u32 write;
	__u32 add;
	__u64 sum;
};

#define IMPORTER_ATTACH _IOWR('I', 0, struct importer_attach)
#define IMPORTER_WORK _IOWR('I', 1, struct importer_work)
#define IMPORTER_DETACH _IO('I', 2)
/* The argument is a dma-buf's descriptor: the device is at work with it until told. */
#define IMPORTER_BUSY _IO('I', 3)
#define IMPORTER_IDLE _IO('I', 4)
/* Memory whose only address nobody can read: what looks for leaks has to find it. It is given back with the module. */
#define IMPORTER_LOSE _IO('I', 5)
/* With both locked, all that is under way with either is waited for, as who submits work may do. */
#define IMPORTER_WAIT _IOW('I', 6, struct importer_wait)

struct importer_wait {
	__s32 fd[2];
};

static struct platform_device *device;
/* The address of what was lost, inverted; 0: nothing was. */
static unsigned long lost;

struct importer_fence {
	struct dma_fence fence;
	spinlock_t lock;
};

/* One descriptor. */
struct importer {
	struct mutex lock;
	struct dma_buf *dma_buf;
	struct dma_buf_attachment *attachment;
	struct sg_table *table;
	bool dynamic;
	struct dma_fence *fence;
};

static const char *fence_name(struct dma_fence *fence)
{
	return "importer";
}

static void fence_free(struct rcu_head *rcu)
{
	kfree(container_of(rcu, struct dma_fence, rcu));
	module_put(THIS_MODULE);
}

static void fence_release(struct dma_fence *fence)
{
	call_rcu(&fence->rcu, fence_free);
}

static const struct dma_fence_ops fence_operations = {
	.get_driver_name = fence_name,
	.get_timeline_name = fence_name,
	.release = fence_release,
};

static struct dma_fence *fence_new(void)
{
	struct importer_fence *fence = kzalloc(sizeof(*fence), GFP_KERNEL);

	if (!fence)
		return NULL;
	spin_lock_init(&fence->lock);
	__module_get(THIS_MODULE);
	dma_fence_init(&fence->fence, &fence_operations, &fence->lock, dma_fence_context_alloc(1), 1);
	return &fence->fence;
}

static void moved(struct dma_buf_attachment *attachment)
{
	/* No memory of the driver's ever does. */
	WARN_ON(1);
}

static const struct dma_buf_attach_ops attach_operations = {
	.allow_peer2peer = false,
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
	.move_notify = moved,
#else
	.invalidate_mappings = moved,
#endif
};

static struct sg_table *map(struct dma_buf_attachment *attachment, bool dynamic)
{
	struct sg_table *table;

	if (!dynamic) {
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
		return dma_buf_map_attachment(attachment, DMA_BIDIRECTIONAL);
#else
		return dma_buf_map_attachment_unlocked(attachment, DMA_BIDIRECTIONAL);
#endif
	}
	dma_resv_lock(attachment->dmabuf->resv, NULL);
	table = dma_buf_map_attachment(attachment, DMA_BIDIRECTIONAL);
	dma_resv_unlock(attachment->dmabuf->resv);
	return table;
}

static void unmap(struct dma_buf_attachment *attachment, struct sg_table *table, bool dynamic)
{
	if (!dynamic) {
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
		dma_buf_unmap_attachment(attachment, table, DMA_BIDIRECTIONAL);
#else
		dma_buf_unmap_attachment_unlocked(attachment, table, DMA_BIDIRECTIONAL);
#endif
		return;
	}
	dma_resv_lock(attachment->dmabuf->resv, NULL);
	dma_buf_unmap_attachment(attachment, table, DMA_BIDIRECTIONAL);
	dma_resv_unlock(attachment->dmabuf->resv);
}

static void detach(struct importer *importer)
{
	if (!importer->dma_buf)
		return;
	if (importer->table)
		unmap(importer->attachment, importer->table, importer->dynamic);
	if (importer->attachment)
		dma_buf_detach(importer->dma_buf, importer->attachment);
	dma_buf_put(importer->dma_buf);
	importer->dma_buf = NULL;
	importer->attachment = NULL;
	importer->table = NULL;
}

static long attach(struct importer *importer, void __user *user)
{
	struct importer_attach arguments;
	struct scatterlist *piece;
	long error;
	int i;

	if (copy_from_user(&arguments, user, sizeof(arguments)))
		return -EFAULT;
	if (importer->dma_buf)
		return -EBUSY;
	importer->dynamic = arguments.dynamic;
	importer->dma_buf = dma_buf_get(arguments.fd);
	if (IS_ERR(importer->dma_buf)) {
		error = PTR_ERR(importer->dma_buf);
		importer->dma_buf = NULL;
		return error;
	}
	importer->attachment = dma_buf_dynamic_attach(importer->dma_buf, &device->dev,
						      importer->dynamic ? &attach_operations : NULL, importer);
	if (IS_ERR(importer->attachment)) {
		error = PTR_ERR(importer->attachment);
		importer->attachment = NULL;
		goto failed;
	}
	importer->table = map(importer->attachment, importer->dynamic);
	if (IS_ERR(importer->table)) {
		error = PTR_ERR(importer->table);
		importer->table = NULL;
		goto failed;
	}
	arguments.length_bytes = 0;
	arguments.pieces = importer->table->nents;
	for_each_sgtable_dma_sg(importer->table, piece, i)
		arguments.length_bytes += sg_dma_len(piece);
	error = -EFAULT;
	if (!copy_to_user(user, &arguments, sizeof(arguments)))
		return 0;
failed:
	detach(importer);
	return error;
}

static long work(struct importer *importer, void __user *user)
{
	struct importer_work arguments;
	struct scatterlist *piece;
	u64 n = 0;
	int i;

	if (copy_from_user(&arguments, user, sizeof(arguments)))
		return -EFAULT;
	if (!importer->table)
		return -ENXIO;
	arguments.sum = 0;
	for_each_sgtable_dma_sg(importer->table, piece, i) {
		dma_addr_t address = sg_dma_address(piece), end = address + sg_dma_len(piece);

		while (address < end) {
			size_t at = offset_in_page(address), some = min_t(u64, PAGE_SIZE - at, end - address), k;
			u8 *bytes = kmap_local_page(pfn_to_page(PHYS_PFN(address)));

			for (k = 0; k < some; k++, n++) {
				arguments.sum += bytes[at + k];
				if (arguments.write)
					bytes[at + k] = n * 7 + arguments.add;
			}
			kunmap_local(bytes);
			address += some;
			cond_resched();
		}
	}
	return copy_to_user(user, &arguments, sizeof(arguments)) ? -EFAULT : 0;
}

static long busy(struct importer *importer, int fd)
{
	struct dma_buf *dma_buf = dma_buf_get(fd);
	long error;

	if (IS_ERR(dma_buf))
		return PTR_ERR(dma_buf);
	if (!importer->fence)
		importer->fence = fence_new();
	error = importer->fence ? 0 : -ENOMEM;
	if (!error) {
		dma_resv_lock(dma_buf->resv, NULL);
		error = dma_resv_reserve_fences(dma_buf->resv, 1);
		if (!error)
			dma_resv_add_fence(dma_buf->resv, importer->fence, DMA_RESV_USAGE_WRITE);
		dma_resv_unlock(dma_buf->resv);
	}
	dma_buf_put(dma_buf);
	return error;
}

static void idle(struct importer *importer)
{
	if (!importer->fence)
		return;
	dma_fence_signal(importer->fence);
	dma_fence_put(importer->fence);
	importer->fence = NULL;
}

static long wait_locked(struct dma_resv *const fences[2])
{
	struct ww_acquire_ctx ticket;
	struct dma_resv *first = fences[0], *second = fences[1];
	long left = 10 * HZ;
	int i;

	ww_acquire_init(&ticket, &reservation_ww_class);
	if (dma_resv_lock(first, &ticket) == -EDEADLK)
		dma_resv_lock_slow(first, &ticket);
	while (dma_resv_lock(second, &ticket) == -EDEADLK) {
		dma_resv_unlock(first);
		dma_resv_lock_slow(second, &ticket);
		swap(first, second);
	}
	for (i = 0; left > 0 && i < 2; i++)
		left = dma_resv_wait_timeout(fences[i], DMA_RESV_USAGE_READ, false, left);
	dma_resv_unlock(first);
	dma_resv_unlock(second);
	ww_acquire_fini(&ticket);
	if (!left)
		return -ETIMEDOUT;
	return min(left, 0l);
}

static long wait(void __user *user)
{
	struct importer_wait arguments;
	struct dma_buf *all[2];
	long result = 0;
	int i;

	if (copy_from_user(&arguments, user, sizeof(arguments)))
		return -EFAULT;
	for (i = 0; i < 2; i++)
		all[i] = dma_buf_get(arguments.fd[i]);
	for (i = 0; i < 2; i++)
		if (IS_ERR(all[i]))
			result = PTR_ERR(all[i]);
	if (!result && all[0]->resv == all[1]->resv)
		result = -EINVAL;
	if (!result) {
		struct dma_resv *const fences[2] = { all[0]->resv, all[1]->resv };

		result = wait_locked(fences);
	}
	for (i = 0; i < 2; i++)
		if (!IS_ERR(all[i]))
			dma_buf_put(all[i]);
	return result;
}

static noinline long lose(void)
{
	void *memory = lost ? NULL : kmalloc(100, GFP_KERNEL);

	if (!memory)
		return -ENOMEM;
	lost = ~(unsigned long)memory;
	return 0;
}

static long importer_ioctl(struct file *file, unsigned int call, unsigned long argument)
{
	struct importer *importer = file->private_data;
	void __user *user = (void __user *)argument;
	long result = 0;

	mutex_lock(&importer->lock);
	switch (call) {
	case IMPORTER_ATTACH:
		result = attach(importer, user);
		break;
	case IMPORTER_WORK:
		result = work(importer, user);
		break;
	case IMPORTER_DETACH:
		detach(importer);
		break;
	case IMPORTER_BUSY:
		result = busy(importer, argument);
		break;
	case IMPORTER_IDLE:
		idle(importer);
		break;
	case IMPORTER_WAIT:
		result = wait(user);
		break;
	case IMPORTER_LOSE:
		result = lose();
		break;
	default:
		result = -ENOTTY;
	}
	mutex_unlock(&importer->lock);
	return result;
}

static int importer_open(struct inode *inode, struct file *file)
{
	struct importer *importer = kzalloc(sizeof(*importer), GFP_KERNEL);

	if (!importer)
		return -ENOMEM;
	mutex_init(&importer->lock);
	file->private_data = importer;
	return 0;
}

static int importer_release(struct inode *inode, struct file *file)
{
	struct importer *importer = file->private_data;

	idle(importer);
	detach(importer);
	mutex_destroy(&importer->lock);
	kfree(importer);
	return 0;
}

static const struct file_operations importer_operations = {
	.owner = THIS_MODULE,
	.open = importer_open,
	.release = importer_release,
	.unlocked_ioctl = importer_ioctl,
};

static struct miscdevice misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dmaplane-importer",
	.fops = &importer_operations,
	.mode = 0600,
};

static int __init importer_init(void)
{
	int error;

	device = platform_device_register_simple("dmaplane-importer", PLATFORM_DEVID_NONE, NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	/* Pieces of 1 MiB at most, as a device may have it. */
	dma_set_max_seg_size(&device->dev, 1 << 20);
	error = dma_coerce_mask_and_coherent(&device->dev, DMA_BIT_MASK(64));
	if (!error)
		error = misc_register(&misc);
	if (error)
		platform_device_unregister(device);
	return error;
}

static void __exit importer_exit(void)
{
	misc_deregister(&misc);
	platform_device_unregister(device);
	rcu_barrier();
	if (lost)
		kfree((void *)~lost);
}

module_init(importer_init);
module_exit(importer_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Imports dma-bufs as a device would, for dmaplane's tests");
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS(DMA_BUF);
#else
MODULE_IMPORT_NS("DMA_BUF");
#endif
