// SPDX-License-Identifier: GPL-2.0
/*
 * Descriptor slots: an eventfd or a sync_file goes in by a call and is waited for by WAIT; a dma-buf goes in by
 * EXPORT_DMABUF; a call takes the descriptor out (clauses CAL-4, CTL-7, HOST-9, HOST-10).
 *
 * Locks: tables_lock for the table of slots, and the list of those that wait.
 */
#include "dmaplane.h"

#include <linux/dma-fence.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/nospec.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/sync_file.h>

struct dmp_slot {
	struct file *file;
	/* Of an eventfd, or of a sync_file; else NULL. */
	struct eventfd_ctx *eventfd;
	struct dma_fence *fence;
};

static void dmp_slot_free(struct dmp_slot *slot)
{
	if (!slot)
		return;
	if (slot->eventfd)
		eventfd_ctx_put(slot->eventfd);
	dma_fence_put(slot->fence);
	if (slot->file)
		fput(slot->file);
	kfree(slot);
	atomic_long_dec(&dmp_accounts.slots);
}

static struct dmp_slot *dmp_slot_new(struct file *file)
{
	struct dmp_slot *slot = dmp_kzalloc(sizeof(*slot), DMP_GFP);

	if (!slot)
		return NULL;
	atomic_long_inc(&dmp_accounts.slots);
	slot->file = file;
	return slot;
}

/* The engine's index; under speculation it is a user's number (clause SEC-3). */
static struct dmp_slot **slot_at(struct dmp_context *context, u32 index)
{
	return &context->slots[array_index_nospec(index, context->limits.slots)];
}

void dmaplane_glue_put_slot(struct dmp_context *context, u32 index, void *object)
{
	spin_lock(&context->tables_lock);
	*slot_at(context, index) = object;
	spin_unlock(&context->tables_lock);
}

void *dmaplane_glue_take_slot(struct dmp_context *context, u32 index)
{
	struct dmp_slot *slot;

	spin_lock(&context->tables_lock);
	slot = *slot_at(context, index);
	*slot_at(context, index) = NULL;
	spin_unlock(&context->tables_lock);
	return slot;
}

void dmaplane_glue_close_slot(struct dmp_context *context, u32 index)
{
	dmp_slot_free(dmaplane_glue_take_slot(context, index));
}

/* Puts an export's file where the engine has made room for it, and takes the caller's hold over. */
int dmp_slot_fill(struct dmp_context *context, u32 index, struct file *file)
{
	struct dmp_slot *slot = dmp_slot_new(file);

	if (!slot)
		return -ENOMEM;
	dmaplane_glue_put_slot(context, index, slot);
	return 0;
}

/* What the caller's descriptor is of: an eventfd that does not block, or a sync_file. */
static int fill(struct dmp_slot *slot, int fd)
{
	struct file *file = fget(fd);
	struct eventfd_ctx *eventfd;
	struct sync_file *sync_file;

	if (!file)
		return -EBADF;
	eventfd = eventfd_ctx_fileget(file);
	if (!IS_ERR(eventfd)) {
		slot->file = file;
		slot->eventfd = eventfd;
		return file->f_flags & O_NONBLOCK ? 0 : -EINVAL;
	}
	fput(file);
	/*
	 * This looks the descriptor up again, which may be of something else by now. A file that was looked up apart from
	 * the fence is not kept: if it were this context's own, the context would hold itself for ever.
	 */
	slot->fence = sync_file_get_fence(fd);
	if (!slot->fence)
		return -EINVAL;
	sync_file = dmp_sync_file_create(slot->fence);
	if (!sync_file)
		return -ENOMEM;
	slot->file = sync_file->file;
	return 0;
}

/* The call that puts an eventfd or a sync_file in. */
int dmp_slot_put(struct dmp_context *context, struct dmaplane_slot *arguments)
{
	struct dmp_slot *slot;
	int error;

	if (arguments->flags || arguments->slot || arguments->reserved)
		return -EINVAL;
	slot = dmp_slot_new(NULL);
	if (!slot)
		return -ENOMEM;
	error = fill(slot, arguments->fd);
	if (!error)
		error = dmp_until_free(context, dmaplane_add_slot(context->engine, slot, &arguments->slot));
	if (error)
		dmp_slot_free(slot);
	return error;
}

/* The call that takes a descriptor out; nothing has happened where there is no room for one. */
int dmp_slot_take(struct dmp_context *context, const struct dmaplane_take *arguments)
{
	int fd, error;
	void *object;
	struct dmp_slot *slot;

	if (arguments->flags)
		return -EINVAL;
	fd = dmp_get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0)
		return fd;
	error = dmp_until_free(context, dmaplane_take_slot(context->engine, arguments->slot, &object));
	if (error) {
		put_unused_fd(fd);
		return error;
	}
	slot = object;
	fd_install(fd, slot->file);
	/* The descriptor has it now. */
	slot->file = NULL;
	dmp_slot_free(slot);
	return fd;
}

/* Waiting. */

struct dmp_slot_wait {
	/* By the list of those that wait, and by its work when that is due. */
	struct kref references;
	struct hlist_node entry;
	/* Held until the event is posted. */
	struct dmp_context *context;
	u64 op;
	struct file *file;
	/* One of them. */
	struct eventfd_ctx *eventfd;
	struct dma_fence *fence;
	struct dma_fence_cb callback;
	wait_queue_head_t *head;
	wait_queue_entry_t waiter;
	poll_table table;
	struct work_struct work;
	/* Told to end. Guarded by tables_lock. */
	bool cancelled;
};

static void dmp_slot_wait_free(struct kref *references)
{
	struct dmp_slot_wait *wait = container_of(references, struct dmp_slot_wait, references);

	if (wait->eventfd)
		eventfd_ctx_put(wait->eventfd);
	dma_fence_put(wait->fence);
	fput(wait->file);
	dmp_context_put(wait->context);
	kfree(wait);
	atomic_long_dec(&dmp_accounts.works);
}

static void look_soon(struct dmp_slot_wait *wait)
{
	/* The work's hold; it is due already where it is not queued. */
	kref_get(&wait->references);
	if (!queue_work(dmp_workers, &wait->work))
		kref_put(&wait->references, dmp_slot_wait_free);
}

/* By who writes to the eventfd, with its lock held. */
static int woken(wait_queue_entry_t *waiter, unsigned int mode, int sync, void *key)
{
	struct dmp_slot_wait *wait = container_of(waiter, struct dmp_slot_wait, waiter);

	if (key_to_poll(key) & EPOLLIN)
		look_soon(wait);
	return 0;
}

static void enqueue(struct file *file, wait_queue_head_t *head, poll_table *table)
{
	struct dmp_slot_wait *wait = container_of(table, struct dmp_slot_wait, table);

	wait->head = head;
	add_wait_queue(head, &wait->waiter);
}

/* By who signals the fence, with its lock held. */
static void signalled(struct dma_fence *fence, struct dma_fence_cb *callback)
{
	look_soon(container_of(callback, struct dmp_slot_wait, callback));
}

/* Stands in the eventfd's queue, or at the fence, from here on; looks at once where there is a count already. */
static void stand(struct dmp_slot_wait *wait)
{
	if (wait->fence) {
		if (dma_fence_add_callback(wait->fence, &wait->callback, signalled))
			look_soon(wait);
		return;
	}
	init_waitqueue_func_entry(&wait->waiter, woken);
	init_poll_funcptr(&wait->table, enqueue);
	if (vfs_poll(wait->file, &wait->table) & EPOLLIN)
		look_soon(wait);
}

/* Whether somebody has ended it before us. */
static bool leave_list(struct dmp_slot_wait *wait)
{
	struct dmp_context *context = wait->context;
	bool there;

	spin_lock(&context->tables_lock);
	there = !hlist_unhashed(&wait->entry);
	hlist_del_init(&wait->entry);
	spin_unlock(&context->tables_lock);
	return there;
}

/* What a fence's wait has come to; -EAGAIN: nothing yet, and it stands there still. */
static int look_at_fence(struct dmp_slot_wait *wait, bool cancelled)
{
	int status = dma_fence_get_status(wait->fence);

	if (!status && !cancelled)
		return -EAGAIN;
	/* Whoever signals it may have come as far as its callbacks: this waits for ours. */
	dma_fence_remove_callback(wait->fence, &wait->callback);
	if (!status)
		return -ECANCELED;
	return status < 0 ? status : 0;
}

/* Work items of one kind do not run beside themselves, so one of these is at a wait at a time. */
static void look(struct work_struct *work)
{
	struct dmp_slot_wait *wait = container_of(work, struct dmp_slot_wait, work);
	struct dmp_context *context = wait->context;
	int result = -EAGAIN;
	u64 count = 0;
	bool cancelled;

	spin_lock(&context->tables_lock);
	cancelled = wait->cancelled;
	if (hlist_unhashed(&wait->entry)) {
		/* It has ended already. */
		spin_unlock(&context->tables_lock);
		goto out;
	}
	spin_unlock(&context->tables_lock);
	if (wait->fence) {
		result = look_at_fence(wait, cancelled);
		if (result == -EAGAIN)
			goto out;
	} else if (cancelled) {
		/* Without taking the count, which is the next one's. */
		remove_wait_queue(wait->head, &wait->waiter);
		result = -ECANCELED;
	} else {
		/* Out of the queue, with the count if there is one. */
		result = eventfd_ctx_remove_wait_queue(wait->eventfd, &wait->waiter, &count);
	}
	if (result == -EAGAIN) {
		stand(wait);
		goto out;
	}
	if (leave_list(wait)) {
		dmaplane_post_finished(context->engine, wait->op, result, count, 0);
		/* The list's. */
		kref_put(&wait->references, dmp_slot_wait_free);
	}
out:
	kref_put(&wait->references, dmp_slot_wait_free);
}

void dmaplane_glue_wait_slot(struct dmp_context *context, u64 op, u32 index, struct dmp_outcome *outcome)
{
	struct dmp_slot *slot = READ_ONCE(*slot_at(context, index));
	struct dmp_slot_wait *wait;

	if (!slot || (!slot->eventfd && !slot->fence)) {
		outcome->result = -EINVAL;
		return;
	}
	wait = dmp_kzalloc(sizeof(*wait), DMP_GFP_NOWAIT);
	if (!wait) {
		outcome->result = -ENOMEM;
		return;
	}
	atomic_long_inc(&dmp_accounts.works);
	kref_init(&wait->references);
	kref_get(&context->references);
	wait->context = context;
	wait->op = op;
	wait->file = get_file(slot->file);
	wait->eventfd = slot->eventfd ? eventfd_ctx_fileget(slot->file) : NULL;
	wait->fence = dma_fence_get(slot->fence);
	INIT_WORK(&wait->work, look);
	INIT_LIST_HEAD(&wait->callback.node);
	outcome->started = 1;
	/* Into the list first: it may be looked at before it stands. */
	kref_get(&wait->references);
	spin_lock(&context->tables_lock);
	hlist_add_head(&wait->entry, &context->slot_waits[(u32)op % DMP_TABLE]);
	spin_unlock(&context->tables_lock);
	stand(wait);
	kref_put(&wait->references, dmp_slot_wait_free);
}

/* Whether an operation waits for a slot; then it ends soon. */
bool dmp_slot_cancel(struct dmp_context *context, u64 op)
{
	struct dmp_slot_wait *wait;
	bool found = false;

	spin_lock(&context->tables_lock);
	hlist_for_each_entry(wait, &context->slot_waits[(u32)op % DMP_TABLE], entry)
		if (wait->op == op) {
			wait->cancelled = true;
			found = true;
			look_soon(wait);
			break;
		}
	spin_unlock(&context->tables_lock);
	return found;
}
