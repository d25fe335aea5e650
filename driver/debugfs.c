// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/dmaplane: `contexts`, a line each; and a folder for each context, with a file for each kind of
 * object (clause OBS-2), its counters and latencies, and what waits in its inboxes. None of it has an ABI.
 *
 * Locks: contexts_lock, under which nothing else is taken. What debugfs says of failures is of no interest: whatever
 * could not be made is not there to be looked at.
 */
#include "link.h"
#include "memory.h"

#include <linux/cred.h>
#include <linux/debugfs.h>
#include <linux/pid.h>
#include <linux/seq_file.h>

static struct dentry *root;
/* Those that are set up. */
static LIST_HEAD(contexts);
static DEFINE_MUTEX(contexts_lock);

/* The one with the lowest number from here on, held; NULL: none. */
static struct dmp_context *next_context(u32 from)
{
	struct dmp_context *context, *found = NULL;

	mutex_lock(&contexts_lock);
	list_for_each_entry(context, &contexts, entry) {
		if (context->number < from || (found && context->number > found->number))
			continue;
		/* One whose last hold has gone is about to leave. */
		if (!dmp_context_get(context))
			continue;
		if (found)
			dmp_context_put(found);
		found = context;
	}
	mutex_unlock(&contexts_lock);
	return found;
}

static int contexts_show(struct seq_file *out, void *unused)
{
	struct dmp_context *context;
	u32 from = 0;

	while ((context = next_context(from))) {
		struct dmp_usage usage;

		from = context->number + 1;
		if (!dmp_run_usage(context, &usage))
			seq_printf(out,
				   "%u: pid=%d uid=%u closed=%d memory-bytes=%lld operations=%u buffers=%u lists=%u leases=%u imports=%u peers=%u transfers=%u slots=%u listeners=%u\n",
				   context->number, pid_vnr(context->owner),
				   from_kuid_munged(current_user_ns(), context->user),
				   dmaplane_is_closed(context->engine), atomic64_read(&context->charge->bytes),
				   usage.operations, usage.buffers, usage.lists, usage.leases, usage.imports, usage.peers,
				   usage.inbound, usage.slots, usage.listeners);
		dmp_context_put(context);
		/* Behind the last number there is. */
		if (!from)
			break;
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(contexts);

/* While a file is read its context's folder is not removed, and so the context stays. */
static int records_show(struct seq_file *out, void *unused)
{
	struct dmp_view *view = out->private;
	struct dmp_record record;
	u32 from = 0, column;
	int found;

	for (;;) {
		found = dmp_run_record(view->context, view->kind, from, &record);
		/* What does not fit is read once more, with more room. */
		if (found != 1 || seq_has_overflowed(out))
			return min(found, 0);
		seq_printf(out, "%u: %s", record.index, record.state);
		if (record.handle)
			seq_printf(out, " handle=%#llx", record.handle);
		for (column = 0; column < ARRAY_SIZE(record.words); column++) {
			const char *name = dmaplane_column_name(view->kind, column);

			if (!name)
				break;
			if (record.words[column] == U64_MAX)
				seq_printf(out, " %s=none", name);
			else
				seq_printf(out, " %s=%llu", name, record.words[column]);
		}
		seq_putc(out, '\n');
		from = record.index + 1;
		cond_resched();
	}
}
DEFINE_SHOW_ATTRIBUTE(records);

static int counters_show(struct seq_file *out, void *unused)
{
	struct dmp_context *context = out->private;
	const struct dmaplane_counters *counts = context->counts;

#define SHOW(name) seq_printf(out, #name ": %llu\n", READ_ONCE(counts->name))
	SHOW(sqes_taken);
	SHOW(cqes_posted);
	SHOW(cqes_failed);
	SHOW(client_wakes);
	SHOW(works);
	SHOW(works_put_off);
	SHOW(copies);
	SHOW(copies_failed);
	SHOW(bytes_in);
	SHOW(bytes_out);
#undef SHOW
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counters);

/* An opcode a line: how many took less than so many nanoseconds, and at least half of that. */
static int latency_show(struct seq_file *out, void *unused)
{
	struct dmp_context *context = out->private;
	u32 opcode, bucket;

	for (opcode = 0; opcode < DMAPLANE_LATENCY_OPCODES; opcode++) {
		const u64 *latency = dmp_latency_of(context, opcode);
		const char *name = dmaplane_opcode_name(opcode);
		bool any = false;

		for (bucket = 0; name && bucket < DMAPLANE_LATENCY_BUCKETS; bucket++) {
			u64 count = READ_ONCE(latency[bucket]);

			if (!count)
				continue;
			if (!any)
				seq_printf(out, "%s:", name);
			any = true;
			seq_printf(out, " <%lluns=%llu", 2ull << bucket, count);
		}
		if (any)
			seq_putc(out, '\n');
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(latency);

static int inbox_show(struct seq_file *out, void *unused)
{
	struct dmp_context *context = out->private;
	struct dmp_usage usage;
	int error = dmp_run_usage(context, &usage);
	int i;

	if (error)
		return error;
	seq_printf(out, "operations that wait for the driver: %u\n", usage.awaiting_glue);
	for (i = 0; i < ARRAY_SIZE(context->lanes); i++) {
		struct dmp_lane *lane = &context->lanes[i];

		seq_printf(out, "%s: %u at work, %u wait\n", i ? "copies" : "works", READ_ONCE(lane->running),
			   READ_ONCE(lane->nr_waiting));
	}
	seq_printf(out, "messages of peers: %u\n", dmp_link_messages(context));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(inbox);

/* It is set up. */
void dmp_debugfs_add(struct dmp_context *context)
{
	struct dentry *folder;
	char number[16];
	u32 kind;

	mutex_lock(&contexts_lock);
	list_add_tail(&context->entry, &contexts);
	mutex_unlock(&contexts_lock);
	snprintf(number, sizeof(number), "%u", context->number);
	folder = debugfs_create_dir(number, root);
	context->folder = folder;
	for (kind = 0; kind < ARRAY_SIZE(context->views) && dmaplane_kind_name(kind); kind++) {
		context->views[kind] = (struct dmp_view){ .context = context, .kind = kind };
		debugfs_create_file(dmaplane_kind_name(kind), 0400, folder, &context->views[kind], &records_fops);
	}
	debugfs_create_file("counters", 0400, folder, context, &counters_fops);
	debugfs_create_file("latency", 0400, folder, context, &latency_fops);
	debugfs_create_file("inbox", 0400, folder, context, &inbox_fops);
}

/* Waits for those who read; nobody finds it from here on. */
void dmp_debugfs_remove(struct dmp_context *context)
{
	if (!context->engine)
		return;
	debugfs_remove(context->folder);
	mutex_lock(&contexts_lock);
	list_del(&context->entry);
	mutex_unlock(&contexts_lock);
}

void dmp_debugfs_init(void)
{
	root = debugfs_create_dir("dmaplane", NULL);
	debugfs_create_file("contexts", 0400, root, NULL, &contexts_fops);
}

void dmp_debugfs_exit(void)
{
	debugfs_remove(root);
}
