// SPDX-License-Identifier: GPL-2.0
/*
 * A process's own memory as a buffer (clauses CAL-3, BUF-9): pinned for long, in the call of the process, counted
 * against its RLIMIT_MEMLOCK until the last who touches it lets go.
 *
 * Locks: mmap_lock, by what pins.
 */
#include "memory.h"

#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

/* Words are waited for: none may lie across pages. */
#define ALIGNMENT 8
/* Bytes of one buffer at most, as of any. */
#define PIN_BYTES_MAX (1ull << 36)

static int count_pinned(struct mm_struct *mm, unsigned long nr_pages)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	s64 before = atomic64_read(&mm->pinned_vm);

	/* Who asks for too much is in nobody's way meanwhile. */
	do {
		if (before + nr_pages > limit && !capable(CAP_IPC_LOCK))
			return -ENOMEM;
	} while (!atomic64_try_cmpxchg(&mm->pinned_vm, &before, before + nr_pages));
	return 0;
}

void dmp_pin_free(struct dmp_memory *memory)
{
	if (memory->nr_pages)
		unpin_user_pages_dirty_lock(memory->pages, memory->nr_pages, !memory->read_only);
	if (memory->mm) {
		atomic64_sub(DIV_ROUND_UP(memory->first_byte + memory->length_bytes, PAGE_SIZE), &memory->mm->pinned_vm);
		mmdrop(memory->mm);
	}
}

/* All of them, or an error; what was pinned until then is memory's to let go. */
static int pin_all(struct dmp_memory *memory, unsigned long address, unsigned long wanted)
{
	unsigned int flags = FOLL_LONGTERM | (memory->read_only ? 0 : FOLL_WRITE);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	/* Or the page of before the next write is pinned, which then goes to another: later kernels see to it themselves. */
	bool unshare = memory->read_only;
#else
	bool unshare = false;
#endif

	while (memory->nr_pages < wanted) {
		unsigned long some = min_t(unsigned long, wanted - memory->nr_pages, 4096);
		unsigned long from = address + (memory->nr_pages << PAGE_SHIFT);
		int pinned = -EFAULT;

		if (unshare)
			pinned = dmp_pin_user_pages_fast(from, some, flags | FOLL_WRITE | FOLL_FORCE,
							 memory->pages + memory->nr_pages);
		/* Shared memory that cannot be written to has nothing to be unshared. */
		if (pinned == -EFAULT)
			pinned = dmp_pin_user_pages_fast(from, some, flags, memory->pages + memory->nr_pages);

		if (pinned <= 0)
			return pinned ?: -EFAULT;
		memory->nr_pages += pinned;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

static struct dmp_memory *pin(unsigned long address, u64 length, bool read_only)
{
	struct dmp_memory *memory = dmp_memory_bare(DMP_MEMORY_PINNED);
	unsigned long wanted = DIV_ROUND_UP(offset_in_page(address) + length, PAGE_SIZE);
	int error;

	if (!memory)
		return ERR_PTR(-ENOMEM);
	memory->read_only = read_only;
	memory->first_byte = offset_in_page(address);
	memory->length_bytes = length;
	/* Counted first: what is beyond the limit allocates nothing. */
	error = count_pinned(current->mm, wanted);
	if (!error) {
		mmgrab(current->mm);
		memory->mm = current->mm;
		memory->pages = dmp_kvmalloc_array(wanted, sizeof(*memory->pages), DMP_GFP);
		error = memory->pages ? pin_all(memory, address & PAGE_MASK, wanted) : -ENOMEM;
	}
	if (!error)
		return memory;
	dmp_memory_put(memory);
	return ERR_PTR(error);
}

int dmp_pin(struct dmp_context *context, struct dmaplane_pin *arguments)
{
	struct dmp_memory *memory;
	int error;

	if (arguments->flags & ~DMAPLANE_PIN_READ_ONLY || arguments->buffer || arguments->reserved ||
	    arguments->address % ALIGNMENT || !arguments->length_bytes ||
	    arguments->address + arguments->length_bytes < arguments->address)
		return -EINVAL;
	if (arguments->length_bytes > min_t(u64, PIN_BYTES_MAX, context->limits.buffer_bytes))
		return -EMSGSIZE;
	memory = pin(arguments->address, arguments->length_bytes, arguments->flags & DMAPLANE_PIN_READ_ONLY);
	if (IS_ERR(memory))
		return PTR_ERR(memory);
	error = dmp_memory_add(context, memory, &arguments->buffer);
	if (error)
		dmp_memory_put(memory);
	return error;
}
