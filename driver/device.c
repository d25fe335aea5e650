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

static long dmp_call_map(struct dmp_context *context, void __user *user)
{
	struct dmaplane_map map;
	int error;

	if (dmp_copy_from_user(&map, user, sizeof(map)))
		return -EFAULT;
	error = dmp_memory_offer(context, &map);
	if (error)
		return error;
	return dmp_copy_to_user(user, &map, sizeof(map)) ? -EFAULT : 0;
}

static long dmp_call_listen(struct dmp_context *context, void __user *user)
{
	struct dmaplane_listen listen;
	int error;

	if (dmp_copy_from_user(&listen, user, sizeof(listen)))
		return -EFAULT;
	/* A listener lives as long as its context: that the answer can be given is looked at first. */
	if (dmp_copy_to_user(user, &listen, sizeof(listen)))
		return -EFAULT;
	error = dmp_listen(context, &listen);
	if (error)
		return error;
	return dmp_copy_to_user(user, &listen, sizeof(listen)) ? -EFAULT : 0;
}

static long dmp_call_import(struct dmp_context *context, void __user *user)
{
	struct dmaplane_import import;
	int error;

	/* That the answer can be given is looked at first: a buffer that nobody knows would stay for good. */
	if (dmp_copy_from_user(&import, user, sizeof(import)) || dmp_copy_to_user(user, &import, sizeof(import)))
		return -EFAULT;
	error = dmp_import(context, &import);
	if (error)
		return error;
	return dmp_copy_to_user(user, &import, sizeof(import)) ? -EFAULT : 0;
}

static long dmp_call_pin(struct dmp_context *context, void __user *user)
{
	struct dmaplane_pin pin;
	int error;

	if (dmp_copy_from_user(&pin, user, sizeof(pin)) || dmp_copy_to_user(user, &pin, sizeof(pin)))
		return -EFAULT;
	error = dmp_pin(context, &pin);
	if (error)
		return error;
	return dmp_copy_to_user(user, &pin, sizeof(pin)) ? -EFAULT : 0;
}

static long dmp_call_slot(struct dmp_context *context, void __user *user)
{
	struct dmaplane_slot slot;
	int error;

	if (dmp_copy_from_user(&slot, user, sizeof(slot)) || dmp_copy_to_user(user, &slot, sizeof(slot)))
		return -EFAULT;
	error = dmp_slot_put(context, &slot);
	if (error)
		return error;
	return dmp_copy_to_user(user, &slot, sizeof(slot)) ? -EFAULT : 0;
}

static long dmp_call_take(struct dmp_context *context, void __user *user)
{
	struct dmaplane_take take;

	if (dmp_copy_from_user(&take, user, sizeof(take)))
		return -EFAULT;
	return dmp_slot_take(context, &take);
}

static long dmp_call_close(struct dmp_context *context, void __user *user)
{
	struct dmaplane_close arguments;

	if (dmp_copy_from_user(&arguments, user, sizeof(arguments)))
		return -EFAULT;
	if (arguments.flags || arguments.reserved)
		return -EINVAL;
	dmp_context_close(context);
	return 0;
}

static long dmp_ioctl(struct file *file, unsigned int call, unsigned long argument)
{
	struct dmp_context *context = file->private_data;
	void __user *user = (void __user *)argument;

	if (call == DMAPLANE_IOCTL_SETUP)
		return dmp_call_setup(context, user);
	/* Acquire: pairs with the release in dmp_context_setup; what it made is there. */
	if (!smp_load_acquire(&context->engine))
		return -ENXIO;
	switch (call) {
	case DMAPLANE_IOCTL_RING:
		return dmp_call_ring(context, user);
	case DMAPLANE_IOCTL_MAP:
		return dmp_call_map(context, user);
	case DMAPLANE_IOCTL_LISTEN:
		return dmp_call_listen(context, user);
	case DMAPLANE_IOCTL_CLOSE:
		return dmp_call_close(context, user);
	case DMAPLANE_IOCTL_IMPORT:
		return dmp_call_import(context, user);
	case DMAPLANE_IOCTL_PIN:
		return dmp_call_pin(context, user);
	case DMAPLANE_IOCTL_SLOT:
		return dmp_call_slot(context, user);
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
	if (dmp_until_free(dmaplane_usage(context->engine, &usage)))
		return;
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
