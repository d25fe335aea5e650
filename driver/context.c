// SPDX-License-Identifier: GPL-2.0
/*
 * A context: made by the first call on a descriptor, ended by the last one who holds it.
 *
 * Closing is the engine's affair: dmp_context_close asks for it, dmaplane_glue_closed says when it is over. Only then,
 * and when no descriptor is left, is the memory given back, on a queue, since the last to let go may be the engine's own
 * runner.
 *
 * Locks: setup_lock.
 */
#include "dmaplane.h"

#include <linux/cred.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/nsproxy.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <net/net_namespace.h>

/* Bounds of what a context may be asked to have; memory for the tables is charged to who asks. */
#define LIMIT_MAX (1u << 18)
#define BUFFER_BYTES_MAX (1ull << 36)
#define LISTENERS_MAX 1024
#define INBOUND_MAX 4096

static atomic_t last_number;

static void dmp_context_end(struct work_struct *work)
{
	struct dmp_context *context = container_of(work, struct dmp_context, end_work);

	dmp_debugfs_remove(context);
	if (context->engine) {
		dmp_runner_stop(context);
		/* Nobody is left who could run it, and it is closed: dmaplane_glue_closed has let go of its hold. */
		WARN_ON(dmaplane_context_destroy(context->engine));
		vfree(context->block);
	}
	dmp_memory_end(context);
	dmp_counters_end(context);
	kvfree(context->buffers);
	kvfree(context->lists);
	kvfree(context->rings);
	kvfree(context->peers);
	kvfree(context->listeners);
	kvfree(context->slots);
	xa_destroy(&context->mappings);
	dmp_charge_put(context->charge);
	WARN_ON(!xa_empty(&context->pendings));
	xa_destroy(&context->pendings);
	if (context->network)
		put_net(context->network);
	put_pid(context->owner);
#ifdef CONFIG_MEMCG
	mem_cgroup_put(context->memcg);
#endif
	mutex_destroy(&context->setup_lock);
	dmp_inode_put(context->inode);
	kvfree(context);
	atomic_long_dec(&dmp_accounts.contexts);
	module_put(THIS_MODULE);
}

struct dmp_context *dmp_context_new(void)
{
	struct dmp_context *context = dmp_kvcalloc(1, sizeof(*context), DMP_GFP);

	if (!context)
		return ERR_PTR(-ENOMEM);
	context->inode = dmp_inode_new();
	if (IS_ERR(context->inode)) {
		int error = PTR_ERR(context->inode);

		kvfree(context);
		return ERR_PTR(error);
	}
	/* Until the last statement of dmp_context_end: the descriptor's own hold goes earlier. */
	__module_get(THIS_MODULE);
	atomic_long_inc(&dmp_accounts.contexts);
	context->number = atomic_inc_return(&last_number);
	kref_init(&context->references);
	mutex_init(&context->setup_lock);
	spin_lock_init(&context->tables_lock);
	mutex_init(&context->recycling_lock);
	xa_init_flags(&context->mappings, XA_FLAGS_ALLOC | XA_FLAGS_ACCOUNT);
	xa_init_flags(&context->pendings, XA_FLAGS_ALLOC | XA_FLAGS_ACCOUNT);
	spin_lock_init(&context->ready_lock);
	INIT_LIST_HEAD(&context->ready);
	spin_lock_init(&context->requests_lock);
	INIT_WORK(&context->end_work, dmp_context_end);
	INIT_LIST_HEAD(&context->recycled);
	dmp_words_init(context);
	dmp_work_init(context);
	dmp_runner_init(context);
	return context;
}

static void dmp_context_last(struct kref *references)
{
	struct dmp_context *context = container_of(references, struct dmp_context, references);

	queue_work(dmp_workers, &context->end_work);
}

void dmp_context_put(struct dmp_context *context)
{
	kref_put(&context->references, dmp_context_last);
}

/* Whether it is still there to be held. */
bool dmp_context_get(struct dmp_context *context)
{
	return kref_get_unless_zero(&context->references);
}

/* Begins the end; any number of times. */
void dmp_context_close(struct dmp_context *context)
{
	/* A context that is being set up at this moment belongs to a call that holds the file, so this is not its end. */
	if (smp_load_acquire(&context->engine) && !atomic_xchg(&context->closing, 1)) {
		dmaplane_close(context->engine);
		dmp_work_close(context);
	}
}

/* A limit as it is asked for, or the default: whether it is within bounds. */
static bool fits(u32 *asked, u32 usual)
{
	if (!*asked)
		*asked = usual;
	return *asked <= LIMIT_MAX;
}

/* Looks at what is asked for, and fills in what was left to the driver. */
int dmp_context_check(struct dmaplane_setup *setup)
{
	int i;

	if (setup->abi_version != DMAPLANE_ABI_VERSION)
		return -EPROTONOSUPPORT;
	if (setup->flags & ~(DMAPLANE_SETUP_POLLER | DMAPLANE_SETUP_POLLER_CPU) || setup->features || setup->reserved0)
		return -EINVAL;
	for (i = 0; i < ARRAY_SIZE(setup->reserved); i++)
		if (setup->reserved[i])
			return -EINVAL;
	if (!(setup->flags & DMAPLANE_SETUP_POLLER) && (setup->flags || setup->poller_idle_us || setup->poller_cpu))
		return -EINVAL;
	if (setup->flags & DMAPLANE_SETUP_POLLER_CPU) {
		if (setup->poller_cpu >= nr_cpu_ids)
			return -EINVAL;
		setup->poller_cpu = array_index_nospec(setup->poller_cpu, nr_cpu_ids);
		if (!cpu_online(setup->poller_cpu))
			return -EINVAL;
	} else if (setup->poller_cpu) {
		return -EINVAL;
	}
	if (!setup->buffer_bytes)
		setup->buffer_bytes = 1ull << 30;
	if (setup->buffer_bytes > BUFFER_BYTES_MAX)
		return -EINVAL;
	if (!setup->memory_bytes)
		setup->memory_bytes = ((u64)totalram_pages() << PAGE_SHIFT) / 2;
	if (setup->memory_bytes > U64_MAX >> 1)
		return -EINVAL;
	if (!fits(&setup->rings, 16) || !fits(&setup->operations, 8192) || !fits(&setup->buffers, 1024) ||
	    !fits(&setup->lists, 256) || !fits(&setup->leases, 1024) || !fits(&setup->imports, 1024) ||
	    !fits(&setup->peers, 64) || !fits(&setup->listeners, 8) || !fits(&setup->slots, 256) ||
	    !fits(&setup->inbound_per_peer, 64))
		return -EINVAL;
	/* Names are looked through one by one, and frames too. */
	if (setup->listeners > LISTENERS_MAX || setup->inbound_per_peer > INBOUND_MAX)
		return -EINVAL;
	setup->features = DMAPLANE_FEATURE_PLACEMENT;
	if (setup->flags & DMAPLANE_SETUP_POLLER && !capable(CAP_SYS_NICE))
		return -EPERM;
	return 0;
}

static int take_memory(struct dmp_context *context, const struct dmaplane_setup *setup)
{
	struct dmp_setup engine = {
		.buffer_bytes = setup->buffer_bytes,
		.rings = setup->rings,
		.operations = setup->operations,
		.buffers = setup->buffers,
		.lists = setup->lists,
		.leases = setup->leases,
		.imports = setup->imports,
		.peers = setup->peers,
		.listeners = setup->listeners,
		.slots = setup->slots,
		.inbound_per_peer = setup->inbound_per_peer,
	};
	struct dmp_engine *made;
	u64 bytes;

	get_random_bytes(engine.context, sizeof(engine.context));
	memcpy(context->name, engine.context, sizeof(context->name));
	get_random_bytes(engine.token_key, sizeof(engine.token_key));
	bytes = dmaplane_context_bytes(&engine);
	if (!bytes)
		return -EINVAL;
	context->buffers = dmp_kvcalloc(engine.buffers, sizeof(*context->buffers), DMP_GFP);
	context->lists = dmp_kvcalloc(engine.lists, sizeof(*context->lists), DMP_GFP);
	context->rings = dmp_kvcalloc(engine.rings, sizeof(*context->rings), DMP_GFP);
	context->peers = dmp_kvcalloc(engine.peers, sizeof(*context->peers), DMP_GFP);
	context->listeners = dmp_kvcalloc(engine.listeners, sizeof(*context->listeners), DMP_GFP);
	context->block = dmp_vmalloc(bytes, DMP_GFP | __GFP_ZERO);
	context->slots = dmp_kvcalloc(engine.slots, sizeof(*context->slots), DMP_GFP);
	context->charge = dmp_charge_new();
	if (!context->charge || !context->buffers || !context->lists || !context->rings || !context->peers ||
	    !context->listeners || !context->slots || !context->block || dmp_counters_make(context, engine.operations))
		goto no_memory;
	/* Before anything can run the engine. */
	context->limits = *setup;
	made = dmaplane_context_init(context->block, bytes, &engine, context);
	memzero_explicit(engine.token_key, sizeof(engine.token_key));
	if (WARN_ON(!made))
		goto no_memory;
	/* The engine's own hold, until dmaplane_glue_closed. */
	kref_get(&context->references);
	/* Before anybody finds it set up, and has something charged. */
#ifdef CONFIG_MEMCG
	context->memcg = get_mem_cgroup_from_mm(current->mm);
#endif
	context->user = current_euid();
	context->network = get_net(current->nsproxy->net_ns);
	WRITE_ONCE(context->owner, get_pid(task_tgid(current)));
	WRITE_ONCE(context->owner_table, (fl_owner_t)current->files);
	/* Release: pairs with the acquires of who finds the context set up. */
	smp_store_release(&context->engine, made);
	dmp_debugfs_add(context);
	return 0;

no_memory:
	kvfree(context->buffers);
	kvfree(context->lists);
	kvfree(context->rings);
	kvfree(context->peers);
	kvfree(context->listeners);
	kvfree(context->slots);
	vfree(context->block);
	dmp_counters_end(context);
	dmp_charge_put(context->charge);
	context->charge = NULL;
	context->peers = NULL;
	context->listeners = NULL;
	context->slots = NULL;
	context->buffers = NULL;
	context->lists = NULL;
	context->rings = NULL;
	context->block = NULL;
	return -ENOMEM;
}

/* Makes the context of what has been checked. */
int dmp_context_setup(struct dmp_context *context, const struct dmaplane_setup *setup)
{
	int error = -EBUSY;

	if (mutex_lock_killable(&context->setup_lock))
		return -EINTR;
	if (!context->engine) {
		error = take_memory(context, setup);
		if (!error) {
			error = dmp_runner_start(context);
			/* It is a context all the same, and can only be closed. */
			if (error)
				dmp_context_close(context);
		}
	}
	mutex_unlock(&context->setup_lock);
	return error;
}
