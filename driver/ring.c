// SPDX-License-Identifier: GPL-2.0
/*
 * A ring's descriptor: its areas, ENTER, waiting.
 *
 * Locks: tables_lock for the table of rings, and under it eventfd_lock.
 */
#include "dmaplane.h"

#include <linux/anon_inodes.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/syscalls.h>
#include <linux/uaccess.h>

static u32 dmp_ring_ready(struct dmp_ring *ring)
{
	return dmaplane_ring_ready(dmp_memory_address(ring->client_area), dmp_memory_address(ring->engine_area),
				   ring->sq_entries, ring->cq_entries);
}

void dmaplane_glue_wake_client(struct dmp_context *context, u32 index)
{
	struct dmp_ring *ring;

	spin_lock(&context->tables_lock);
	ring = context->rings[index];
	if (ring) {
		dmp_count(context, client_wakes, 1);
		wake_up_all(&ring->wait);
		spin_lock(&ring->eventfd_lock);
		if (ring->eventfd)
			dmp_eventfd_signal(ring->eventfd);
		spin_unlock(&ring->eventfd_lock);
	}
	spin_unlock(&context->tables_lock);
}

/* Its index may be another's already: the engine gives it out again as soon as it is detached. */
static void dmp_ring_forget(struct dmp_ring *ring)
{
	struct dmp_context *context = ring->context;

	spin_lock(&context->tables_lock);
	if (context->rings[ring->index] == ring)
		context->rings[ring->index] = NULL;
	spin_unlock(&context->tables_lock);
}

static void dmp_ring_detach(struct dmp_ring *ring)
{
	struct dmp_context *context = ring->context;

	if (atomic_xchg(&ring->detached, 1))
		return;
	wake_up_all(&ring->wait);
	/* Not to be interrupted: areas that the engine knows must not go. Whoever runs it lets go after some turns. */
	dmp_until_free_or(false, context, dmaplane_detach_ring(context->engine, ring->index));
	dmp_ring_forget(ring);
}

static void dmp_ring_free(struct dmp_ring *ring)
{
	if (ring->client_area)
		dmp_memory_put(ring->client_area);
	if (ring->engine_area)
		dmp_memory_put(ring->engine_area);
	if (ring->eventfd)
		eventfd_ctx_put(ring->eventfd);
	dmp_context_put(ring->context);
	kfree(ring);
	atomic_long_dec(&dmp_accounts.rings);
	module_put(THIS_MODULE);
}

static int dmp_ring_release(struct inode *inode, struct file *file)
{
	struct dmp_ring *ring = file->private_data;

	dmp_ring_detach(ring);
	dmp_ring_free(ring);
	return 0;
}

/* Nothing more comes. */
static bool dmp_ring_over(struct dmp_ring *ring)
{
	return atomic_read(&ring->detached) || dmaplane_is_closed(ring->context->engine);
}

static long dmp_wait(struct dmp_ring *ring, const struct dmaplane_enter *enter)
{
	u32 wanted = min(enter->min_complete, ring->cq_entries);
	ktime_t left = KTIME_MAX;
	long error = 0;

	if (enter->timeout_ns != U64_MAX)
		left = ns_to_ktime(min_t(u64, enter->timeout_ns, KTIME_MAX));
	if (dmp_ring_ready(ring) < wanted && !dmp_ring_over(ring)) {
		if (left == KTIME_MAX)
			error = wait_event_interruptible(ring->wait,
							 dmp_ring_ready(ring) >= wanted || dmp_ring_over(ring));
		else
			error = wait_event_interruptible_hrtimeout(ring->wait,
								   dmp_ring_ready(ring) >= wanted ||
								   dmp_ring_over(ring), left);
	}
	if (error == -ERESTARTSYS)
		return -EINTR;
	return error ?: dmp_ring_ready(ring);
}

/* The same under another signal mask, in one step with the wait, as ppoll does. */
static long dmp_wait_masked(struct dmp_ring *ring, const struct dmaplane_enter *enter)
{
	sigset_t mask, before;
	long result;

	if (enter->signal_mask_bytes != sizeof(mask))
		return -EINVAL;
	if (dmp_copy_from_user(&mask, u64_to_user_ptr(enter->signal_mask), sizeof(mask)))
		return -EFAULT;
	sigdelsetmask(&mask, sigmask(SIGKILL) | sigmask(SIGSTOP));
	sigprocmask(SIG_SETMASK, &mask, &before);
	result = dmp_wait(ring, enter);
	if (result == -EINTR && signal_pending(current)) {
		/* The handler runs under the mask of the wait; the one from before comes back behind it. */
		current->saved_sigmask = before;
		set_restore_sigmask();
	} else {
		sigprocmask(SIG_SETMASK, &before, NULL);
	}
	return result;
}

static long dmp_enter(struct dmp_ring *ring, void __user *user)
{
	struct dmaplane_enter enter;
	long result;

	if (dmp_copy_from_user(&enter, user, sizeof(enter)))
		return -EFAULT;
	if (enter.flags || enter.reserved || !enter.signal_mask != !enter.signal_mask_bytes)
		return -EINVAL;
	/*
	 * Runs what was published before this call, unless somebody else does, who then looks again. What is left after
	 * many turns is left to a work item.
	 */
	if (atomic_read(&ring->detached))
		return dmp_ring_ready(ring);
	dmp_run_for_client(ring->context);
	if (fatal_signal_pending(current))
		return -EINTR;
	/* As a rule what was published has been completed by now. */
	result = dmp_ring_ready(ring);
	if (!enter.min_complete || (!enter.signal_mask && result >= min(enter.min_complete, ring->cq_entries)))
		return result;
	result = dmaplane_wait_begin(ring->context->engine, ring->index);
	if (result)
		return result;
	if (enter.signal_mask)
		result = dmp_wait_masked(ring, &enter);
	else
		result = dmp_wait(ring, &enter);
	dmaplane_wait_end(ring->context->engine, ring->index);
	return result;
}

static long dmp_register(struct dmp_ring *ring, void __user *user)
{
	struct dmaplane_eventfd arguments;
	struct eventfd_ctx *eventfd = NULL;

	if (dmp_copy_from_user(&arguments, user, sizeof(arguments)))
		return -EFAULT;
	if (arguments.flags || arguments.fd < -1)
		return -EINVAL;
	if (arguments.fd >= 0) {
		eventfd = eventfd_ctx_fdget(arguments.fd);
		if (IS_ERR(eventfd))
			return PTR_ERR(eventfd);
	}
	spin_lock(&ring->eventfd_lock);
	swap(ring->eventfd, eventfd);
	spin_unlock(&ring->eventfd_lock);
	if (eventfd)
		eventfd_ctx_put(eventfd);
	return 0;
}

static long dmp_ring_close(struct dmp_ring *ring, void __user *user)
{
	int error = dmp_close_checked(user);

	if (!error)
		dmp_ring_detach(ring);
	return error;
}

static long dmp_ring_ioctl(struct file *file, unsigned int call, unsigned long argument)
{
	switch (call) {
	case DMAPLANE_IOCTL_ENTER:
		return dmp_enter(file->private_data, (void __user *)argument);
	case DMAPLANE_IOCTL_EVENTFD:
		return dmp_register(file->private_data, (void __user *)argument);
	case DMAPLANE_IOCTL_CLOSE:
		return dmp_ring_close(file->private_data, (void __user *)argument);
	default:
		return -ENOTTY;
	}
}

/* A client that polls raises its flag first, as one that sleeps does (clause WAKE-2). */
static __poll_t dmp_ring_poll(struct file *file, poll_table *table)
{
	struct dmp_ring *ring = file->private_data;
	__poll_t found = 0;

	poll_wait(file, &ring->wait, table);
	if (dmp_ring_ready(ring))
		found |= EPOLLIN | EPOLLRDNORM;
	if (dmp_ring_over(ring))
		found |= EPOLLHUP;
	return found;
}

static int dmp_ring_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct dmp_ring *ring = file->private_data;
	unsigned long client_pages = dmp_memory_bytes(ring->client_area) >> PAGE_SHIFT;

	if (vma->vm_pgoff < client_pages)
		return dmp_memory_map(ring->client_area, vma, vma->vm_pgoff, false);
	return dmp_memory_map(ring->engine_area, vma, vma->vm_pgoff - client_pages, true);
}

static const struct file_operations dmp_ring_operations = {
	.owner = THIS_MODULE,
	.release = dmp_ring_release,
	.unlocked_ioctl = dmp_ring_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.poll = dmp_ring_poll,
	.mmap = dmp_ring_mmap,
	.llseek = noop_llseek,
};

/* Makes the ring, but for its place in the engine. */
static struct dmp_ring *dmp_ring_make(struct dmp_context *context, struct dmaplane_ring *arguments)
{
	struct dmp_ring *ring;
	u64 client_bytes, engine_bytes;
	int error;

	error = dmaplane_ring_bytes(arguments->sq_entries, arguments->cq_entries, &client_bytes, &engine_bytes);
	if (error)
		return ERR_PTR(error);
	ring = dmp_kzalloc(sizeof(*ring), DMP_GFP);
	if (!ring)
		return ERR_PTR(-ENOMEM);
	__module_get(THIS_MODULE);
	atomic_long_inc(&dmp_accounts.rings);
	kref_get(&context->references);
	ring->context = context;
	ring->sq_entries = arguments->sq_entries;
	ring->cq_entries = arguments->cq_entries;
	init_waitqueue_head(&ring->wait);
	spin_lock_init(&ring->eventfd_lock);
	ring->client_area = dmp_memory_for_area(client_bytes);
	ring->engine_area = dmp_memory_for_area(engine_bytes);
	if (!ring->client_area || !ring->engine_area) {
		dmp_ring_free(ring);
		return ERR_PTR(-ENOMEM);
	}
	arguments->client_bytes = client_bytes;
	arguments->engine_offset = client_bytes;
	arguments->engine_bytes = engine_bytes;
	return ring;
}

/* Gives the descriptor, once the user has been told what is filled in; where that fails, nothing was made. */
int dmp_ring_new(struct dmp_context *context, struct dmaplane_ring *arguments, void __user *user)
{
	struct dmp_ring *ring;
	struct file *file;
	int fd, index;

	if (arguments->flags || arguments->index || arguments->client_bytes || arguments->engine_offset ||
	    arguments->engine_bytes || arguments->reserved[0] || arguments->reserved[1])
		return -EINVAL;
	ring = dmp_ring_make(context, arguments);
	if (IS_ERR(ring))
		return PTR_ERR(ring);
	fd = dmp_get_unused_fd_flags(O_RDWR | O_CLOEXEC);
	if (fd < 0)
		goto no_descriptor;
	index = dmp_until_free(context, dmaplane_attach_ring(context->engine, dmp_memory_address(ring->client_area),
							     dmp_memory_address(ring->engine_area), ring->sq_entries,
							     ring->cq_entries));
	if (index < 0) {
		put_unused_fd(fd);
		fd = index;
		goto no_descriptor;
	}
	ring->index = index;
	arguments->index = index;
	spin_lock(&context->tables_lock);
	context->rings[index] = ring;
	spin_unlock(&context->tables_lock);
	file = dmp_anon_inode_getfile("[dmaplane-ring]", &dmp_ring_operations, ring, O_RDWR | O_CLOEXEC);
	if (IS_ERR(file)) {
		put_unused_fd(fd);
		fd = PTR_ERR(file);
		dmp_ring_detach(ring);
		goto no_descriptor;
	}
	file->f_mapping = context->inode->i_mapping;
	if (dmp_copy_to_user(user, arguments, sizeof(*arguments))) {
		put_unused_fd(fd);
		/* Its release gives back all the rest. */
		fput(file);
		return -EFAULT;
	}
	fd_install(fd, file);
	return fd;

no_descriptor:
	dmp_ring_free(ring);
	return fd;
}
