// SPDX-License-Identifier: GPL-2.0
/*
 * Slow work, by workers. A context has so many at once of either kind, in the order in which they came; further ones
 * wait in the context, so that one context's thousand stand in nobody else's way. None waits for others while it has
 * its turn: it says that it is too early, and comes again.
 *
 * Locks: lane->lock.
 */
#include "dmaplane.h"

#include <linux/cpumask.h>
#include <linux/memcontrol.h>
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
	room = lane->running < at_once();
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
	if (next) {
		list_del(&next->entry);
		lane->nr_waiting--;
		next->has_turn = true;
	} else {
		lane->running--;
	}
	spin_unlock(&lane->lock);
	/* It stays: it has not run. */
	if (next)
		queue_delayed_work(queue_of(next), &next->work, 0);
}

static void put_off(struct dmp_work *work)
{
	unsigned long ticks = min(1ul << min(work->put_offs, 16u), (unsigned long)HZ / 10);

	if (!work->put_offs++)
		work->put_off_since = jiffies;
	dmp_count(work->context, works_put_off, 1);
	/* Before others have the turn: it is nobody's but this function's until it is queued. */
	work->has_turn = false;
	leave(work);
	queue_delayed_work(queue_of(work), &work->work, ticks);
}

static void dmp_work_run(struct work_struct *item)
{
	struct dmp_work *work = container_of(to_delayed_work(item), struct dmp_work, work);
	struct dmp_context *context = work->context;
	u64 word0 = 0, word1 = 0;
	int result;
#ifdef CONFIG_MEMCG
	struct mem_cgroup *before;
#endif

	/* It was put off. */
	if (!work->has_turn) {
		enter(work);
		return;
	}
#ifdef CONFIG_MEMCG
	before = set_active_memcg(context->memcg);
#endif
	result = work->function(work, &word0, &word1);
#ifdef CONFIG_MEMCG
	set_active_memcg(before);
#endif
	if (result == DMP_WORK_LATER) {
		put_off(work);
		return;
	}
	if (work->end)
		work->end(work, result, word0, word1);
	else
		dmaplane_post_finished(context->engine, work->op, result, word0, word1);
	leave(work);
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
	kref_get(&context->references);
	work->context = context;
	work->op = op;
	work->function = function;
	outcome->started = 1;
	dmp_count(context, works, 1);
	enter(work);
}

/* Whether to come again for what is not idle yet: DMP_WORK_LATER, or why not. */
int dmp_work_later(struct dmp_work *work)
{
	if (atomic_read(&work->context->closing))
		return -ECANCELED;
	/* A fence may be of a device that has died: that is as long as anybody waits. */
	if (work->put_offs && time_after(jiffies, work->put_off_since + DMP_SYNC_TIMEOUT))
		return -ETIMEDOUT;
	return DMP_WORK_LATER;
}

void dmp_work_init(struct dmp_context *context)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(context->lanes); i++) {
		spin_lock_init(&context->lanes[i].lock);
		INIT_LIST_HEAD(&context->lanes[i].waiting);
	}
}
