// SPDX-License-Identifier: GPL-2.0
/*
 * The character device: a descriptor is a context. Its calls, and mapping buffers.
 *
 * Locks: setup_lock inside of the calls that it names.
 */
#include "dmaplane.h"

#include <linux/module.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

static int dmp_open(struct inode *inode, struct file *file)
{
	struct dmp_context *context = dmp_context_new();

	if (IS_ERR(context))
		return PTR_ERR(context);
	file->private_data = context;
	file->f_mapping = context->inode->i_mapping;
	return nonseekable_open(inode, file);
}

/* Comes for every descriptor that is closed, and for each of an owner that exits, even while others hold the file. */
static int dmp_flush(struct file *file, fl_owner_t owner)
{
	struct dmp_context *context = file->private_data;

	/*
	 * By its table of descriptors, since a thread may have another one and go while its process stays; and by its
	 * process, since where a table was another's may lie.
	 */
	if ((current->flags & PF_EXITING) && owner == READ_ONCE(context->owner_table) &&
	    task_tgid(current) == READ_ONCE(context->owner))
		dmp_context_close(context);
	return 0;
}

/* Never waits: what is in flight ends by itself, and the last of it ends the context. */
static int dmp_release(struct inode *inode, struct file *file)
{
	struct dmp_context *context = file->private_data;

	dmp_context_close(context);
	dmp_context_put(context);
	return 0;
}

static long dmp_call_setup(struct dmp_context *context, void __user *user)
{
	struct dmaplane_setup setup;
	int error;

	if (dmp_copy_from_user(&setup, user, sizeof(setup)))
		return -EFAULT;
	error = dmp_context_check(&setup);
	if (error)
		return error;
	/* Before it is made, so that an answer that cannot be given costs nothing. */
	if (dmp_copy_to_user(user, &setup, sizeof(setup)))
		return -EFAULT;
	return dmp_context_setup(context, &setup);
}

static long dmp_call_ring(struct dmp_context *context, void __user *user)
{
	struct dmaplane_ring ring;

	if (dmp_copy_from_user(&ring, user, sizeof(ring)))
		return -EFAULT;
	return dmp_ring_new(context, &ring, user);
}

/* A call that answers in its own structure. */
struct dmp_call {
	unsigned int number;
	int (*function)(struct dmp_context *context, void *arguments);
};

static int call_map(struct dmp_context *context, void *arguments)
{
	return dmp_memory_offer(context, arguments);
}

static int call_listen(struct dmp_context *context, void *arguments)
{
	return dmp_listen(context, arguments);
}

static int call_import(struct dmp_context *context, void *arguments)
{
	return dmp_import(context, arguments);
}

static int call_pin(struct dmp_context *context, void *arguments)
{
	return dmp_pin(context, arguments);
}

static int call_slot(struct dmp_context *context, void *arguments)
{
	return dmp_slot_put(context, arguments);
}

static const struct dmp_call dmp_calls[] = {
	{ DMAPLANE_IOCTL_MAP, call_map },	{ DMAPLANE_IOCTL_LISTEN, call_listen },
	{ DMAPLANE_IOCTL_IMPORT, call_import }, { DMAPLANE_IOCTL_PIN, call_pin },
	{ DMAPLANE_IOCTL_SLOT, call_slot },
};

/* As long as the longest of their structures. */
#define CALL_BYTES 64
static_assert(sizeof(struct dmaplane_map) <= CALL_BYTES && sizeof(struct dmaplane_listen) <= CALL_BYTES &&
	      sizeof(struct dmaplane_import) <= CALL_BYTES && sizeof(struct dmaplane_pin) <= CALL_BYTES &&
	      sizeof(struct dmaplane_slot) <= CALL_BYTES);

static long dmp_answer(struct dmp_context *context, const struct dmp_call *call, void __user *user)
{
	u8 arguments[CALL_BYTES] __aligned(8);
	size_t bytes = _IOC_SIZE(call->number);
	int error;

	/* That the answer can be given is looked at first: what nobody is told of would stay for good. */
	if (dmp_copy_from_user(arguments, user, bytes) || dmp_copy_to_user(user, arguments, bytes))
		return -EFAULT;
	error = call->function(context, arguments);
	if (error)
		return error;
	return dmp_copy_to_user(user, arguments, bytes) ? -EFAULT : 0;
}

static long dmp_call_take(struct dmp_context *context, void __user *user)
{
	struct dmaplane_take take;

	if (dmp_copy_from_user(&take, user, sizeof(take)))
		return -EFAULT;
	return dmp_slot_take(context, &take);
}

/* Of a context or a ring: whether the call is one. */
int dmp_close_checked(void __user *user)
{
	struct dmaplane_close arguments;

	if (dmp_copy_from_user(&arguments, user, sizeof(arguments)))
		return -EFAULT;
	return arguments.flags || arguments.reserved ? -EINVAL : 0;
}

static long dmp_call_close(struct dmp_context *context, void __user *user)
{
	int error = dmp_close_checked(user);

	if (!error)
		dmp_context_close(context);
	return error;
}

static long dmp_ioctl(struct file *file, unsigned int call, unsigned long argument)
{
	struct dmp_context *context = file->private_data;
	void __user *user = (void __user *)argument;
	int i;

	if (call == DMAPLANE_IOCTL_SETUP)
		return dmp_call_setup(context, user);
	/* Acquire: pairs with the release in dmp_context_setup; what it made is there. */
	if (!smp_load_acquire(&context->engine))
		return -ENXIO;
	for (i = 0; i < ARRAY_SIZE(dmp_calls); i++)
		if (dmp_calls[i].number == call)
			return dmp_answer(context, &dmp_calls[i], user);
	switch (call) {
	case DMAPLANE_IOCTL_RING:
		return dmp_call_ring(context, user);
	case DMAPLANE_IOCTL_CLOSE:
		return dmp_call_close(context, user);
	case DMAPLANE_IOCTL_TAKE:
		return dmp_call_take(context, user);
	default:
		return -ENOTTY;
	}
}

static int dmp_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct dmp_context *context = file->private_data;
	unsigned long first_page;
	struct dmp_memory *memory;
	int error;

	/* Acquire: as in dmp_ioctl. */
	if (!smp_load_acquire(&context->engine))
		return -ENXIO;
	if (vma->vm_pgoff < PAGE_ALIGN(DMAPLANE_COUNTERS_BYTES) >> PAGE_SHIFT)
		return dmp_memory_map(context->counters, vma, vma->vm_pgoff, true);
	memory = dmp_memory_at(context, vma->vm_pgoff, &first_page);
	if (!memory)
		return -EINVAL;
	error = dmp_memory_map(memory, vma, first_page, false);
	dmp_memory_put(memory);
	return error;
}

static void dmp_show_fdinfo(struct seq_file *out, struct file *file)
{
	struct dmp_context *context = file->private_data;
	struct dmp_usage usage;

	/* Acquire: as in dmp_ioctl. */
	if (!smp_load_acquire(&context->engine))
		return;
	if (dmp_run_usage(context, &usage))
		return;
	seq_printf(out, "dmaplane-context:\t%u\n", context->number);
	seq_printf(out, "dmaplane-closed:\t%d\n", dmaplane_is_closed(context->engine));
	seq_printf(out, "dmaplane-operations:\t%u\n", usage.operations);
	seq_printf(out, "dmaplane-buffers:\t%u\n", usage.buffers);
	seq_printf(out, "dmaplane-lists:\t%u\n", usage.lists);
	seq_printf(out, "dmaplane-leases:\t%u\n", usage.leases);
	seq_printf(out, "dmaplane-imports:\t%u\n", usage.imports);
	seq_printf(out, "dmaplane-peers:\t%u\n", usage.peers);
	seq_printf(out, "dmaplane-inbound:\t%u\n", usage.inbound);
	seq_printf(out, "dmaplane-slots:\t%u\n", usage.slots);
	seq_printf(out, "dmaplane-listeners:\t%u\n", usage.listeners);
	seq_printf(out, "dmaplane-refused:\t%llu\n", usage.refused);
	seq_printf(out, "dmaplane-memory-bytes:\t%lld\n", atomic64_read(&context->charge->bytes));
}

const struct file_operations dmp_device_operations = {
	.owner = THIS_MODULE,
	.open = dmp_open,
	.flush = dmp_flush,
	.release = dmp_release,
	.unlocked_ioctl = dmp_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = dmp_mmap,
	.show_fdinfo = dmp_show_fdinfo,
	.llseek = noop_llseek,
};
