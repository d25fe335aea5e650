// SPDX-License-Identifier: GPL-2.0
/*
 * Who runs the engine: a work item, the poller, or a client in ENTER. And its clock.
 *
 * Locks: none. dmaplane_glue_run_soon may be called from hard interrupts.
 */
#include "dmaplane.h"

#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/slab.h>

/* How long a poller looks before it sleeps, where nobody says. */
#define POLLER_IDLE_US 1000

/*
 * A call tries again now and then, so that it may find the engine running for seconds where one run follows the other.
 * How long it is waited for has an end: there may be always one.
 */
static void dmp_make_way(struct dmp_context *context)
{
	int tries;

	for (tries = 0; tries < 128 && atomic_read(&context->callers); tries++)
		dmp_let_others(tries);
}

int dmp_run_charged(struct dmp_context *context)
{
	dmp_make_way(context);
	return dmp_charged(context, dmaplane_run(context->engine, DMP_RUN_TURNS));
}

/*
 * A poller that sleeps is woken, too, since only one that is awake saves its clients the next call. 1: nothing was to be
 * done.
 */
void dmp_run_for_client(struct dmp_context *context)
{
	if (dmp_run_charged(context) != 1 && context->poller)
		dmaplane_glue_run_soon(context);
}

/* For whoever looks on, who runs the engine on the way. */
int dmp_run_usage(struct dmp_context *context, struct dmp_usage *usage)
{
	return dmp_charged(context, dmp_until_free(context, dmaplane_usage(context->engine, usage)));
}

int dmp_run_record(struct dmp_context *context, u32 kind, u32 from, struct dmp_record *record)
{
	return dmp_charged(context, dmp_until_free(context, dmaplane_next_record(context->engine, kind, from, record)));
}

static void dmp_run_work(struct work_struct *work)
{
	struct dmp_context *context = container_of(work, struct dmp_context, run_work);

	/* 2: it has asked to be run again, so that others get this thread meanwhile. */
	dmp_run_charged(context);
	dmp_context_put(context);
}

void dmaplane_glue_run_soon(struct dmp_context *context)
{
	if (context->poller) {
		/* Release: pairs with the acquire of the poller before it sleeps. */
		atomic_set_release(&context->wanted, 1);
		/* Its fence pairs with that of the poller between standing there and looking. */
		if (wq_has_sleeper(&context->poller_wait))
			wake_up(&context->poller_wait);
		return;
	}
	/*
	 * The item's hold. There is somebody who holds the context now, or nobody could have called: with the last hold gone
	 * it is closed, and there is nothing to run.
	 */
	if (!dmp_context_get(context))
		return;
	if (!queue_work(dmp_runners, &context->run_work))
		/* Due already, with a hold of its own. */
		dmp_context_put(context);
}

static enum hrtimer_restart dmp_timer(struct hrtimer *timer)
{
	struct dmp_context *context = container_of(timer, struct dmp_context, timer);

	dmaplane_glue_run_soon(context);
	return HRTIMER_NORESTART;
}

void dmaplane_glue_arm_timer(struct dmp_context *context, u64 deadline_ns)
{
	if (deadline_ns == U64_MAX)
		hrtimer_try_to_cancel(&context->timer);
	else
		hrtimer_start(&context->timer, ns_to_ktime(min_t(u64, deadline_ns, KTIME_MAX)), HRTIMER_MODE_ABS);
}

u64 dmaplane_glue_now_ns(struct dmp_context *context)
{
	return ktime_get_ns();
}

/* Between some entries and the next: a client's thousands may take long, each of them. */
u64 dmaplane_glue_relax(struct dmp_context *context)
{
	cond_resched();
	return (u64)jiffies * TICK_NSEC;
}

/*
 * This may be the last hold, where the poller runs the engine, or somebody who looks on by debugfs: they have none, and
 * the context's end, which is a worker's, waits for either.
 */
void dmaplane_glue_closed(struct dmp_context *context)
{
	/* Each has a hold of its own. */
	dmp_memory_end_recycling(context);
	dmp_context_put(context);
}

void dmaplane_glue_bug(struct dmp_context *context, u32 what)
{
	WARN_ONCE(1, "dmaplane: what cannot be is (%u)\n", what);
}

void dmp_runner_init(struct dmp_context *context)
{
	INIT_WORK(&context->run_work, dmp_run_work);
	dmp_hrtimer_setup(&context->timer, dmp_timer);
	init_waitqueue_head(&context->poller_wait);
}

static bool dmp_poller_wanted(struct dmp_context *context)
{
	/* Acquire: pairs with the release in dmaplane_glue_run_soon. */
	return atomic_read_acquire(&context->wanted) || kthread_should_stop();
}

static int dmp_poll(void *argument)
{
	struct dmp_context *context = argument;
	u64 idle_ns = (u64)(context->limits.poller_idle_us ?: POLLER_IDLE_US) * NSEC_PER_USEC;
	/* When nothing was to be done for the first time since something was; 0: not since then. */
	u64 since_ns = 0;

	set_active_memcg(context->memcg);
	while (!dmaplane_awake(context->engine))
		cond_resched();
	while (!kthread_should_stop()) {
		bool wanted = atomic_read(&context->wanted) && atomic_xchg(&context->wanted, 0);
		u64 now_ns;
		int ran;

		dmp_make_way(context);
		ran = dmaplane_run(context->engine, DMP_RUN_TURNS);
		cond_resched();
		/* 1: nothing was to be done. */
		if (wanted || ran != 1) {
			since_ns = 0;
			/* 0: somebody else runs. */
			if (!ran)
				cpu_relax();
			continue;
		}
		now_ns = ktime_get_ns();
		since_ns = since_ns ?: now_ns;
		if (now_ns - since_ns < idle_ns) {
			cpu_relax();
			continue;
		}
		if (dmaplane_prepare_sleep(context->engine)) {
			/* Deadlines come through the timer, which that call has armed. */
			wait_event_interruptible(context->poller_wait, dmp_poller_wanted(context));
			while (!dmaplane_awake(context->engine) && !kthread_should_stop())
				cond_resched();
		}
		since_ns = 0;
	}
	return 0;
}

/* The poller's own life is that of the context: it is stopped by dmp_context_end. */
int dmp_runner_start(struct dmp_context *context)
{
	struct task_struct *poller;

	if (!(context->limits.flags & DMAPLANE_SETUP_POLLER))
		return 0;
	poller = dmp_kthread_create(dmp_poll, context, "dmaplane-poll");
	if (IS_ERR(poller))
		return PTR_ERR(poller);
	if (context->limits.flags & DMAPLANE_SETUP_POLLER_CPU)
		kthread_bind(poller, context->limits.poller_cpu);
	context->poller = poller;
	wake_up_process(poller);
	return 0;
}

void dmp_runner_stop(struct dmp_context *context)
{
	if (context->poller)
		kthread_stop(context->poller);
	hrtimer_cancel(&context->timer);
	/* It has no hold left, so it is not due; it may be in its last statements. */
	flush_work(&context->run_work);
}
