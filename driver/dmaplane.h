/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the driver know of each other.
 *
 * Lock order, outermost first; a call of the Rust object that may run the engine comes before all of them, and none of
 * them is held around one:
 *
 *	context->setup_lock (mutex)	making the context
 *	first_export_lock (mutex)	who exports a buffer first
 *	contexts_lock (mutex)		all contexts, for debugfs
 *	context->recycling_lock (mutex)	giving recycled memory back for want of room
 *	a dma_resv, or two		fences of copies; others' code holds one around calls of ours
 *	memory->attachments_lock (mutex) devices that have an export attached, and its mapping for the kernel
 *	names_lock (spinlock)		names at which contexts listen
 *	context->tables_lock (spinlock)	the glue's own tables: buffers, lists, mappings, rings
 *	ring->eventfd_lock (spinlock)
 *	link->lock (spinlock)		both ends of a link
 *	context->ready_lock (spinlock)	ends that have something for the engine
 *	context->requests_lock (spinlock) requests and copies, by operation
 *	request->lock (spinlock)	how far a request is
 *	lane->lock (spinlock)		whose turn slow work is
 *
 * The locks of xarrays come under tables_lock, that of an eventfd's wait queue under eventfd_lock.
 */
#ifndef DMAPLANE_H
#define DMAPLANE_H

#include "compat.h"

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/dma-fence.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "engine.h"
#include "fault.h"
#include "include/dmaplane.h"

/*
 * For all that is allocated for a client where that may sleep: charged to its cgroup, and where that is full, or the
 * machine, it gets an errno. Without the second flag somebody is killed in the cgroup for it.
 */
#define DMP_GFP (GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)
/*
 * The same on the engine's thread, which does not wait, for what an operation takes while it is under way: there are so
 * many at most, and they are charged, but beyond the cgroup's limit where it is full. Of a cgroup whose limit its page
 * cache has reached, as is usual, nothing could be had otherwise without waiting.
 */
#define DMP_GFP_NOWAIT (GFP_ATOMIC | __GFP_NOWARN | __GFP_ACCOUNT)

struct dma_resv;
struct dmp_charge;
struct dmp_end;
struct dmp_list;
struct dmp_listener;
struct dmp_memory;
struct dmp_ring;
struct dmp_slot;

/* Everything that the module has made and not yet given back, for its own accounts: all zero when it is unloaded. */
struct dmp_accounts {
	atomic_long_t contexts;
	atomic_long_t rings;
	atomic_long_t memories;
	atomic_long_t pages;
	atomic_long_t lists;
	atomic_long_t works;
	atomic_long_t links;
	atomic_long_t listeners;
	atomic_long_t requests;
	atomic_long_t slots;
	atomic_long_t exports;
};
extern struct dmp_accounts dmp_accounts;

/*
 * Slow work that a call of the engine's has started: run by a worker, charged to the context's owner, and ended by the
 * one event that the engine was promised. First in a structure of its own kind, which is freed after it.
 */
struct dmp_work {
	struct delayed_work work;
	/* Among those of the context that wait for their turn, or that are parked. Guarded by lane->lock. */
	struct list_head entry;
	/* One of those that run at once. */
	bool has_turn;
	/* It has been told to end: it waits for no turn. Guarded by lane->lock. */
	bool urgent;
	/* Copies, perhaps for long: with others that do. */
	bool copies;
	/* Until its fence wakes it. Guarded by lane->lock. */
	bool parked;
	/* At least once, and since when. */
	bool parked_before;
	unsigned long parked_since;
	/* What it waits for, of whom: all that had been begun with that memory when it asked. */
	struct dma_fence *fence;
	struct dma_resv *fences;
	struct dma_fence_cb callback;
	/* Held until the event is posted: a context with work under way is not closed. */
	struct dmp_context *context;
	u64 op;
	/*
	 * Returns the event's result and fills its words in. DMP_WORK_LATER, of dmp_work_await: devices are at what it
	 * needs, so that it is called again. It does not wait for them itself.
	 */
	int (*function)(struct dmp_work *work, u64 *word0, u64 *word1);
	/* Posts the event; NULL: the one that says that work has finished. */
	void (*end)(struct dmp_work *work, int result, u64 word0, u64 word1);
};

#define DMP_WORK_LATER 1
/* For how long devices are waited for, but by copies, which can be stopped. */
#define DMP_SYNC_TIMEOUT (10 * HZ)

/* A context's slow work of one kind. */
struct dmp_lane {
	spinlock_t lock;
	/* Those that have their turn. */
	u32 running;
	/* Those that wait for one, oldest first, and how many. */
	struct list_head waiting;
	u32 nr_waiting;
	/* Those that wait for a device. */
	struct list_head parked;
};

/* Heads of a table by operation. */
#define DMP_TABLE 512

/* What a context's memory comes to; held by the context and by each of its memories, which may outlive it. */
struct dmp_charge {
	struct kref references;
	atomic64_t bytes;
	/* Of others' memory, which takes what maps it here. */
	atomic64_t imported_bytes;
};

/* A kind of a context's objects, as a file of debugfs. */
struct dmp_view {
	struct dmp_context *context;
	u32 kind;
};

/* As many kinds as the engine has, or more. */
#define DMP_VIEWS 8

/* One descriptor of /dev/dmaplane. */
struct dmp_context {
	/*
	 * Held by the descriptor, by each ring's, by every work item, and by the engine until it is closed. The last one
	 * ends the context.
	 */
	struct kref references;
	struct dmp_engine *engine;
	/* Of all contexts since the module was loaded: for people, who may see them wrap. */
	u32 number;
	/* What its mappings are those of. */
	struct inode *inode;
	/* What the engine lies in. */
	void *block;

	/* Made one after the other; `engine` is set last. */
	struct mutex setup_lock;
	struct dmaplane_setup limits;

	/* Charged for what the context takes: that of who set it up. */
	struct mem_cgroup *memcg;
	/* Whose exit ends it: the process that set it up, held, and the table of descriptors that it had, only compared. */
	struct pid *owner;
	fl_owner_t owner_table;

	/* Guards the tables below against calls that come without the baton. */
	spinlock_t tables_lock;
	/* By the engine's index. */
	struct dmp_memory **buffers;
	struct dmp_list **lists;
	struct dmp_ring **rings;
	struct dmp_slot **slots;
	/* Buffers that may be mapped, by the number that their offset begins with. */
	struct xarray mappings;
	/* Where the search for a free one begins. Guarded by the xarray's lock. */
	u32 next_mapping;
	/* Bytes of all buffers, mapped ones that were freed and recycled ones among them. Memory outlives its context. */
	struct dmp_charge *charge;
	/* Memory of freed buffers for new ones of the same size and place, oldest first (clause BUF-3). */
	struct list_head recycled;
	u64 recycled_bytes;
	u32 nr_recycled;
	/* None is kept any more: the context closes. */
	bool recycled_ended;
	/* Held while some of it is given back for want of room. */
	struct mutex recycling_lock;
	/* Those that wait for a word, by operation, and the item that looks at them, which holds the context while due. */
	struct hlist_head words[DMP_TABLE];
	u32 nr_words;
	/* Those that wait for an eventfd in a slot, by operation. */
	struct hlist_head slot_waits[DMP_TABLE];
	struct delayed_work words_work;
	bool words_due;

	/* Counters and latencies: pages that the client may map, and where they lie for us. */
	struct dmp_memory *counters;
	struct dmaplane_counters *counts;
	/* By operation: since when it has its place. Touched by the holder of the baton only. */
	u64 *since_ns;
	/* Among all contexts that are set up, by number; guarded by contexts_lock in debugfs.c. And its folder. */
	struct list_head entry;
	struct dentry *folder;
	struct dmp_view views[DMP_VIEWS];

	/* The engine's name, told to peers. */
	u64 name[2];
	/* Whose context it is, and where: peers are of the same. */
	kuid_t user;
	struct net *network;
	/* By the engine's index; touched by the holder of the baton, and by work of an operation that the peer waits for. */
	struct dmp_end **peers;
	struct dmp_listener **listeners;
	/* Connections that the engine has not adopted, by the number that it is told. */
	struct xarray pendings;
	/* Guards the list of ends that have something for the engine. */
	spinlock_t ready_lock;
	struct list_head ready;
	/* Guards both tables: what peers are asked for, by operation, and copies for peers, by transfer. */
	spinlock_t requests_lock;
	struct hlist_head requests[DMP_TABLE];
	struct hlist_head copies[DMP_TABLE];

	/* Work that copies is the second. */
	struct dmp_lane lanes[2];

	struct work_struct run_work;
	struct work_struct end_work;
	struct hrtimer timer;

	/* The poller, where there is one. */
	struct task_struct *poller;
	wait_queue_head_t poller_wait;
	/* Somebody wants the engine run: the poller must not sleep. */
	atomic_t wanted;
	/* How many calls have found the engine running, and try again. */
	atomic_t callers;

	/* Told to close; so that it is told once. */
	atomic_t closing;
};

/* One ring's descriptor. */
struct dmp_ring {
	struct dmp_context *context;
	/* The engine's index. */
	u32 index;
	u32 sq_entries;
	u32 cq_entries;
	/* Both are whole pages, mapped for the kernel as well; the second read-only for the client. */
	struct dmp_memory *client_area;
	struct dmp_memory *engine_area;
	/* It is the engine's no more: what is in its CQ stays there, and nothing comes. Told once. */
	atomic_t detached;
	/* Clients that wait in ENTER or poll. */
	wait_queue_head_t wait;
	spinlock_t eventfd_lock;
	struct eventfd_ctx *eventfd;
};

/* main.c */
extern struct workqueue_struct *dmp_runners;
extern struct workqueue_struct *dmp_workers;
extern struct workqueue_struct *dmp_copiers;

/* device.c */
extern const struct file_operations dmp_device_operations;
int dmp_close_checked(void __user *user);

/* inode.c */
struct inode *dmp_inode_new(void);
void dmp_inode_put(struct inode *inode);

/* context.c */
struct dmp_context *dmp_context_new(void);
int dmp_context_check(struct dmaplane_setup *setup);
int dmp_context_setup(struct dmp_context *context, const struct dmaplane_setup *setup);
void dmp_context_put(struct dmp_context *context);
void dmp_context_close(struct dmp_context *context);
bool dmp_context_get(struct dmp_context *context);

/* runner.c */
#define DMP_RUN_TURNS 64
/* What `call` allocates is charged to who has set the context up, whoever runs it. */
#define dmp_charged(context, call)                                                  \
	({                                                                          \
		struct mem_cgroup *dmp_before = set_active_memcg((context)->memcg); \
		typeof(call) dmp_said = (call);                                     \
		set_active_memcg(dmp_before);                                       \
		dmp_said;                                                           \
	})
int dmp_run_charged(struct dmp_context *context);
void dmp_run_for_client(struct dmp_context *context);
int dmp_run_usage(struct dmp_context *context, struct dmp_usage *usage);
int dmp_run_record(struct dmp_context *context, u32 kind, u32 from, struct dmp_record *record);
void dmp_runner_init(struct dmp_context *context);
int dmp_runner_start(struct dmp_context *context);
void dmp_runner_stop(struct dmp_context *context);
/* Lets whoever runs the engine go on, also where it waits for this very processor. May sleep. */
static inline void dmp_let_others(int tries)
{
	if (tries < 64)
		cpu_relax();
	else
		usleep_range(20, 100);
	cond_resched();
}

/*
 * Calls `call` until it does not say -EAGAIN, which it does while somebody else runs the engine: whoever runs it next
 * makes way. -EINTR when killed and `killable`.
 */
#define dmp_until_free_or(killable, context, call)                                  \
	({                                                                          \
		atomic_t *dmp_callers = &(context)->callers;                        \
		int dmp_result, dmp_tries = 0;                                      \
		while ((dmp_result = (call)) == -EAGAIN) {                          \
			if ((killable) && fatal_signal_pending(current)) {          \
				dmp_result = -EINTR;                                \
				break;                                              \
			}                                                           \
			if (!dmp_tries)                                             \
				atomic_inc(dmp_callers);                            \
			dmp_let_others(dmp_tries++);                                \
		}                                                                   \
		if (dmp_tries)                                                      \
			atomic_dec(dmp_callers);                                    \
		dmp_result;                                                         \
	})
#define dmp_until_free(context, call) dmp_until_free_or(true, context, call)

/* work.c */
void dmp_work_init(struct dmp_context *context);
void dmp_work_start(struct dmp_work *work, struct dmp_context *context, u64 op,
		    int (*function)(struct dmp_work *work, u64 *word0, u64 *word1), struct dmp_outcome *outcome);
int dmp_work_await(struct dmp_work *work, struct dma_resv *fences, bool write);
void dmp_work_close(struct dmp_context *context);
void dmp_work_hurry(struct dmp_work *work);

/* ring.c */
int dmp_ring_new(struct dmp_context *context, struct dmaplane_ring *arguments, void __user *user);

/* memory.c */
struct dmp_memory *dmp_memory_for_area(u64 bytes);
void dmp_memory_put(struct dmp_memory *memory);
void *dmp_memory_address(struct dmp_memory *memory);
u64 dmp_memory_bytes(struct dmp_memory *memory);
int dmp_memory_map(struct dmp_memory *memory, struct vm_area_struct *vma, unsigned long first_page, bool read_only);
struct dmp_charge *dmp_charge_new(void);
void dmp_charge_put(struct dmp_charge *charge);

/* buffers.c */
int dmp_memory_offer(struct dmp_context *context, struct dmaplane_map *arguments);
struct dmp_memory *dmp_memory_at(struct dmp_context *context, unsigned long pgoff, unsigned long *first_page);
void dmp_memory_end(struct dmp_context *context);
struct dmp_memory *dmp_memory_of(struct dmp_context *context, u32 buffer);
void dmp_memory_end_recycling(struct dmp_context *context);
/* Makes memory of others a buffer, which then holds it. */
int dmp_memory_add(struct dmp_context *context, struct dmp_memory *memory, u64 *buffer);

/* import.c, pin.c */
int dmp_import(struct dmp_context *context, struct dmaplane_import *arguments);
int dmp_pin(struct dmp_context *context, struct dmaplane_pin *arguments);

/* slots.c */
int dmp_slot_fill(struct dmp_context *context, u32 index, struct file *file);
int dmp_slot_put(struct dmp_context *context, struct dmaplane_slot *arguments);
int dmp_slot_take(struct dmp_context *context, const struct dmaplane_take *arguments);
bool dmp_slot_cancel(struct dmp_context *context, u64 op);

/* bytes.c */
bool dmp_memory_has(struct dmp_memory *memory, u64 offset, u64 length);
int dmp_memory_read(struct dmp_memory *memory, u64 offset, void *to, u64 length);
u32 dmp_memory_word(struct dmp_memory *memory, u64 offset);
void dmp_memory_move(struct dmp_memory *to, u64 to_offset, struct dmp_memory *from, u64 from_offset, u64 length,
		     u32 *checksum);

/* lists.c */
int dmp_list_locate(struct dmp_context *context, u32 list, u32 segment, struct dmp_place *place);

/* listen.c */
void dmp_names_init(void);
int dmp_listen(struct dmp_context *context, struct dmaplane_listen *arguments);

/* counters.c */
int dmp_counters_make(struct dmp_context *context, u32 operations);
void dmp_counters_end(struct dmp_context *context);
u64 *dmp_latency_of(struct dmp_context *context, u32 opcode);
/* By anybody. */
#define dmp_count(context, name, more) atomic64_add(more, (atomic64_t *)&(context)->counts->name)

/* debugfs.c */
void dmp_debugfs_init(void);
void dmp_debugfs_exit(void);
void dmp_debugfs_add(struct dmp_context *context);
void dmp_debugfs_remove(struct dmp_context *context);

/* words.c */
void dmp_words_init(struct dmp_context *context);

#endif
