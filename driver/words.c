// SPDX-License-Identifier: GPL-2.0
/*
 * Waiting for a word of a buffer: nobody rings when it is written, so it is looked at now and then.
 *
 * Locks: tables_lock for the list of those that wait.
 */
#include "memory.h"

#include <linux/slab.h>

/* Between two looks: one tick, 1 to 4 ms. */
#define LOOK_TICKS 1

struct dmp_word_wait {
	struct hlist_node entry;
	/* Among those that have ended. */
	struct list_head ended;
	struct dmp_memory *memory;
	u64 op;
	u64 offset;
	u32 value;
};

static bool has_come(struct dmp_memory *memory, u64 offset, u32 value)
{
	/* Modulo 2^32: the word counts up, and may have gone round. */
	return (s32)(dmp_memory_word(memory, offset) - value) >= 0;
}

static void end_wait(struct dmp_context *context, struct dmp_word_wait *wait, int result)
{
	dmaplane_post_finished(context->engine, wait->op, result, 0, 0);
	dmp_memory_put(wait->memory);
	kfree(wait);
	atomic_long_dec(&dmp_accounts.works);
}

static void look(struct work_struct *item)
{
	struct dmp_context *context = container_of(to_delayed_work(item), struct dmp_context, words_work);
	struct dmp_word_wait *wait, *next;
	struct hlist_node *behind;
	LIST_HEAD(ended);
	bool more;
	u32 i;

	/* A part at a time: there may be many. */
	for (i = 0; i < DMP_TABLE; i++) {
		spin_lock(&context->tables_lock);
		hlist_for_each_entry_safe(wait, behind, &context->words[i], entry)
			if (has_come(wait->memory, wait->offset, wait->value)) {
				hlist_del(&wait->entry);
				context->nr_words--;
				list_add_tail(&wait->ended, &ended);
			}
		spin_unlock(&context->tables_lock);
		cond_resched();
	}
	spin_lock(&context->tables_lock);
	more = context->nr_words;
	/* The item's hold goes on to its next time. */
	if (more)
		queue_delayed_work(dmp_workers, &context->words_work, LOOK_TICKS);
	else
		context->words_due = false;
	spin_unlock(&context->tables_lock);
	list_for_each_entry_safe(wait, next, &ended, ended)
		end_wait(context, wait, 0);
	if (!more)
		dmp_context_put(context);
}

void dmp_words_init(struct dmp_context *context)
{
	INIT_DELAYED_WORK(&context->words_work, look);
}

void dmaplane_glue_wait_word(struct dmp_context *context, u64 op, u32 buffer, u64 offset, u32 value,
			     struct dmp_outcome *outcome)
{
	struct dmp_memory *memory = dmaplane_glue_hold_buffer(context, buffer);
	struct dmp_word_wait *wait;

	if (!memory) {
		outcome->result = -EIO;
		return;
	}
	/* Looked at on the engine's thread, which must not sleep, as whoever wants to be told of it may have to. */
	if (memory->kind == DMP_MEMORY_IMPORTED) {
		dmp_memory_put(memory);
		outcome->result = -EOPNOTSUPP;
		return;
	}
	if (has_come(memory, offset, value)) {
		dmp_memory_put(memory);
		outcome->result = 0;
		return;
	}
	wait = dmp_kzalloc(sizeof(*wait), DMP_GFP_NOWAIT);
	if (!wait) {
		dmp_memory_put(memory);
		outcome->result = -ENOMEM;
		return;
	}
	atomic_long_inc(&dmp_accounts.works);
	wait->memory = memory;
	wait->op = op;
	wait->offset = offset;
	wait->value = value;
	outcome->started = 1;
	spin_lock(&context->tables_lock);
	hlist_add_head(&wait->entry, &context->words[(u32)op % DMP_TABLE]);
	context->nr_words++;
	if (!context->words_due) {
		context->words_due = true;
		kref_get(&context->references);
		queue_delayed_work(dmp_workers, &context->words_work, LOOK_TICKS);
	}
	spin_unlock(&context->tables_lock);
}

/* Of the works that a call starts only waiting has no end of its own; the others go on to theirs. */
void dmaplane_glue_cancel_work(struct dmp_context *context, u64 op)
{
	struct dmp_word_wait *wait, *found = NULL;

	if (dmp_slot_cancel(context, op))
		return;
	spin_lock(&context->tables_lock);
	hlist_for_each_entry(wait, &context->words[(u32)op % DMP_TABLE], entry)
		if (wait->op == op) {
			hlist_del(&wait->entry);
			context->nr_words--;
			found = wait;
			break;
		}
	spin_unlock(&context->tables_lock);
	if (found)
		end_wait(context, found, -ECANCELED);
}
