// SPDX-License-Identifier: GPL-2.0
/*
 * Slow work, by workers (clause DEV-16). A context has so many at once of either kind, in the order in which they came;
 * further ones wait in the context, so that one context's thousand stand in nobody else's way. None waits for a device
 * while it has its turn: it is parked until the device's fence wakes it, and comes in at the end again.
 *
 * Locks: lane->lock; a fence's own around `woken`.
 */
#include "dmaplane.h"

#include <linux/cpumask.h>
#include <linux/dma-resv.h>
#include <linux/slab.h>

/* At once, where the machine has fewer processors. */
#define AT_ONCE_MIN 4

static u32 at_once(void)
{
	return max_t(u32, AT_ONCE_MIN, num_online_cpus());
}

static struct workqueue_struct *queue_of(const struct dmp_work *work)
{
	return work->copies ? dmp_copiers : dmp_workers;
}

static struct dmp_lane *lane_of(struct dmp_work *work)
{
	return &work->context->lanes[work->copies];
}

/* In the order in which they come, as far as there is room. */
static void enter(struct dmp_work *work)
{
	struct dmp_lane *lane = lane_of(work);
	bool room;

	spin_lock(&lane->lock);
	room = lane->running < at_once() || work->urgent;
	if (room) {
		lane->running++;
		work->has_turn = true;
	} else {
		list_add_tail(&work->entry, &lane->waiting);
		lane->nr_waiting++;
	}
	spin_unlock(&lane->lock);
	if (room)
		queue_delayed_work(queue_of(work), &work->work, 0);
}

/* The turn goes to who has waited longest. */
static void leave(struct dmp_work *work)
{
	struct dmp_lane *lane = lane_of(work);
	struct dmp_work *next;

	spin_lock(&lane->lock);
	next = list_first_entry_or_null(&lane->waiting, struct dmp_work, entry);
	/* Those in a hurry may be more than have room. */
	if (next && lane->running <= at_once()) {
		list_del_init(&next->entry);
		lane->nr_waiting--;
		next->has_turn = true;
	} else {
		lane->running--;
		next = NULL;
	}
	spin_unlock(&lane->lock);
	/* It stays: it has not run. */
	if (next)
		queue_delayed_work(queue_of(next), &next->work, 0);
}

/* Until its fence is signalled, somebody is in a hurry, or its time is up. */
static void park(struct dmp_work *work)
{
	struct dmp_lane *lane = lane_of(work);
	unsigned long ticks = DMP_SYNC_TIMEOUT;

	if (!work->parked_before)
		work->parked_since = jiffies;
	work->parked_before = true;
	if (!work->copies)
		ticks = time_before(jiffies, work->parked_since + ticks) ? work->parked_since + ticks - jiffies : 0;
	dmp_count(work->context, works_put_off, 1);
	/* Others have its turn; it is nobody's but this function's until it is queued, and runs only after this. */
	leave(work);
	spin_lock(&lane->lock);
	work->has_turn = false;
	work->parked = true;
	list_add_tail(&work->entry, &lane->parked);
	/* Who closes looks through the list after it has said so: one of us sees the other. */
	if (work->urgent || atomic_read(&work->context->closing))
		ticks = 0;
	spin_unlock(&lane->lock);
	queue_delayed_work(queue_of(work), &work->work, ticks);
}

static void unpark(struct dmp_work *work)
{
	struct dmp_lane *lane = lane_of(work);

	/* Waits for `woken`, where it is at it. */
	dma_fence_remove_callback(work->fence, &work->callback);
	spin_lock(&lane->lock);
	work->parked = false;
	list_del_init(&work->entry);
	spin_unlock(&lane->lock);
	/* It may have been woken twice. */
	cancel_delayed_work(&work->work);
}

/* By who signals the fence, with its lock held, perhaps in an interrupt. */
static void woken(struct dma_fence *fence, struct dma_fence_cb *callback)
{
	struct dmp_work *work = container_of(callback, struct dmp_work, callback);

	mod_delayed_work(queue_of(work), &work->work, 0);
}

static void drop_fence(struct dmp_work *work)
{
	dma_fence_put(work->fence);
	work->fence = NULL;
}

/*
 * For all that others had begun with memory when this was first asked: 0 once it is done, what they have begun since is
 * not waited for; DMP_WORK_LATER, which the work returns then and asks again when it is called again; or an error.
 */
int dmp_work_await(struct dmp_work *work, struct dma_resv *fences, bool write)
{
	/* Of other memory: that is done. */
	if (work->fence && work->fences != fences)
		drop_fence(work);
	if (!work->fence) {
		int error = dmp_dma_resv_get_singleton(fences, dma_resv_usage_rw(write), &work->fence);

		if (error)
			return error;
		if (!work->fence)
			return 0;
		work->fences = fences;
	} else if (!dma_fence_is_signaled(work->fence)) {
		if (atomic_read(&work->context->closing))
			return -ECANCELED;
		/* A device may have died: that is as long as anybody waits, but for copies, which can be stopped. */
		if (!work->copies && time_after_eq(jiffies, work->parked_since + DMP_SYNC_TIMEOUT))
			return -ETIMEDOUT;
	}
	if (!dma_fence_add_callback(work->fence, &work->callback, woken))
		return DMP_WORK_LATER;
	/* It is signalled. */
	drop_fence(work);
	return 0;
}

static void dmp_work_run(struct work_struct *item)
{
	struct dmp_work *work = container_of(to_delayed_work(item), struct dmp_work, work);
	struct dmp_context *context = work->context;
	u64 word0 = 0, word1 = 0;
	int result;

	if (!work->has_turn) {
		unpark(work);
		enter(work);
		return;
	}
	result = dmp_charged(context, work->function(work, &word0, &word1));
	if (result == DMP_WORK_LATER) {
		park(work);
		return;
	}
	if (work->end)
		work->end(work, result, word0, word1);
	else
		dmaplane_post_finished(context->engine, work->op, result, word0, word1);
	leave(work);
	dma_fence_put(work->fence);
	kfree(work);
	atomic_long_dec(&dmp_accounts.works);
	dmp_context_put(context);
}

/* `work` is NULL where its caller got no memory for what it is the first of. */
void dmp_work_start(struct dmp_work *work, struct dmp_context *context, u64 op,
		    int (*function)(struct dmp_work *work, u64 *word0, u64 *word1), struct dmp_outcome *outcome)
{
	if (!work) {
		outcome->result = -ENOMEM;
		return;
	}
	atomic_long_inc(&dmp_accounts.works);
	INIT_DELAYED_WORK(&work->work, dmp_work_run);
	INIT_LIST_HEAD(&work->entry);
	kref_get(&context->references);
	work->context = context;
	work->op = op;
	work->function = function;
	outcome->started = 1;
	dmp_count(context, works, 1);
	enter(work);
}

/*
 * Somebody waits for the end of it, and it ends as soon as it looks: it has its turn at once. Its context and entry are
 * there, and it stays until this has returned.
 */
void dmp_work_hurry(struct dmp_work *work)
{
	struct dmp_lane *lane = lane_of(work);
	bool waits;

	spin_lock(&lane->lock);
	work->urgent = true;
	waits = !work->parked && !list_empty(&work->entry);
	if (waits) {
		list_del_init(&work->entry);
		lane->nr_waiting--;
		lane->running++;
		work->has_turn = true;
	}
	/* While the lock is held it stays parked. */
	if (waits || work->parked)
		mod_delayed_work(queue_of(work), &work->work, 0);
	spin_unlock(&lane->lock);
}

/* The context closes, and has said so: nothing of it stays parked. */
void dmp_work_close(struct dmp_context *context)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(context->lanes); i++) {
		struct dmp_lane *lane = &context->lanes[i];
		struct dmp_work *work;

		spin_lock(&lane->lock);
		list_for_each_entry(work, &lane->parked, entry)
			mod_delayed_work(queue_of(work), &work->work, 0);
		spin_unlock(&lane->lock);
	}
}

void dmp_work_init(struct dmp_context *context)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(context->lanes); i++) {
		spin_lock_init(&context->lanes[i].lock);
		INIT_LIST_HEAD(&context->lanes[i].waiting);
		INIT_LIST_HEAD(&context->lanes[i].parked);
	}
}
