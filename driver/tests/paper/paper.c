// SPDX-License-Identifier: GPL-2.0
/*
 * What the driver is measured against, for tests only: rings as the paper's module has them (arXiv 2603.10030), in the
 * kernel alone, with two calls and two spinlocks an entry and a worker that adds one; and memory of single pages, taken
 * and mapped one by one. What that module does for an entry, this one does: 16 bytes each way, locks with interrupts
 * off, counters of entries in flight, submitted, completed and at most queued, a wake-up with each submission, and
 * 64 entries between two looks whether others want the processor. Its tracepoints, off by default, are left out.
 */
#include <linux/atomic.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

struct entry {
	u64 payload;
	u32 flags, pad;
};

#define SUBMIT _IOW('P', 0, struct entry)
#define COMPLETE _IOR('P', 1, struct entry)
#define ENTRIES 1024

static int cpu = -1;
module_param(cpu, int, 0600);
MODULE_PARM_DESC(cpu, "Where the worker of what is opened next runs; -1: where the scheduler has it");

struct queue {
	struct entry entries[ENTRIES];
	spinlock_t lock;
	u32 tail ____cacheline_aligned_in_smp;
	u32 head ____cacheline_aligned_in_smp;
};

struct paper {
	struct queue submissions, completions;
	wait_queue_head_t wait;
	struct task_struct *worker;
	atomic_t in_flight, most_queued;
	atomic64_t submitted, completed;
	unsigned long nr_pages;
	struct page **pages;
};

static bool empty(struct queue *queue)
{
	return READ_ONCE(queue->tail) == READ_ONCE(queue->head);
}

static bool push(struct queue *queue, const struct entry *entry, atomic_t *most_queued)
{
	unsigned long flags;
	bool fits;

	spin_lock_irqsave(&queue->lock, flags);
	fits = queue->tail - queue->head < ENTRIES;
	if (fits) {
		queue->entries[queue->tail % ENTRIES] = *entry;
		/* As that module does; the lock alone would do. */
		smp_store_release(&queue->tail, queue->tail + 1);
		if (most_queued && queue->tail - queue->head > atomic_read(most_queued))
			atomic_set(most_queued, queue->tail - queue->head);
	}
	spin_unlock_irqrestore(&queue->lock, flags);
	return fits;
}

static bool pop(struct queue *queue, struct entry *entry)
{
	unsigned long flags;
	bool any;

	spin_lock_irqsave(&queue->lock, flags);
	any = queue->tail != queue->head;
	if (any) {
		*entry = queue->entries[queue->head % ENTRIES];
		/* As above. */
		smp_store_release(&queue->head, queue->head + 1);
	}
	spin_unlock_irqrestore(&queue->lock, flags);
	return any;
}

static int work(void *argument)
{
	struct paper *user = argument;
	struct entry entry;
	u32 done;

	while (!kthread_should_stop()) {
		wait_event_interruptible(user->wait, !empty(&user->submissions) || kthread_should_stop());
		for (done = 1; !empty(&user->submissions) && pop(&user->submissions, &entry); done++) {
			entry.payload++;
			while (!push(&user->completions, &entry, NULL) && !kthread_should_stop())
				cond_resched();
			atomic_dec(&user->in_flight);
			atomic64_inc(&user->completed);
			if (done % 64 == 0)
				cond_resched();
		}
	}
	return 0;
}

static int paper_open(struct inode *inode, struct file *file)
{
	struct paper *user = kvzalloc(sizeof(*user), GFP_KERNEL);

	if (!user)
		return -ENOMEM;
	spin_lock_init(&user->submissions.lock);
	spin_lock_init(&user->completions.lock);
	init_waitqueue_head(&user->wait);
	user->worker = kthread_create(work, user, "paper");
	if (IS_ERR(user->worker)) {
		kvfree(user);
		return -ENOMEM;
	}
	if (cpu >= 0)
		kthread_bind(user->worker, cpu);
	wake_up_process(user->worker);
	file->private_data = user;
	return 0;
}

static int paper_release(struct inode *inode, struct file *file)
{
	struct paper *user = file->private_data;
	unsigned long i;

	kthread_stop(user->worker);
	for (i = 0; i < user->nr_pages; i++)
		__free_page(user->pages[i]);
	kvfree(user->pages);
	kvfree(user);
	return 0;
}

static long paper_ioctl(struct file *file, unsigned int call, unsigned long argument)
{
	struct paper *user = file->private_data;
	struct entry entry;

	switch (call) {
	case SUBMIT:
		if (copy_from_user(&entry, (void __user *)argument, sizeof(entry)))
			return -EFAULT;
		if (!push(&user->submissions, &entry, &user->most_queued))
			return -ENOSPC;
		atomic_inc(&user->in_flight);
		atomic64_inc(&user->submitted);
		wake_up_interruptible(&user->wait);
		return 0;
	case COMPLETE:
		if (!pop(&user->completions, &entry))
			return -EAGAIN;
		return copy_to_user((void __user *)argument, &entry, sizeof(entry)) ? -EFAULT : 0;
	default:
		return -ENOTTY;
	}
}

/* Takes and maps single pages, once a descriptor. */
static int paper_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct paper *user = file->private_data;
	unsigned long wanted = vma_pages(vma), i;
	int error;

	if (user->pages)
		return -EBUSY;
	user->pages = kvmalloc_array(wanted, sizeof(*user->pages), GFP_KERNEL);
	if (!user->pages)
		return -ENOMEM;
	for (i = 0; i < wanted; i++) {
		user->pages[i] = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (!user->pages[i])
			return -ENOMEM;
		user->nr_pages++;
		error = vm_insert_page(vma, vma->vm_start + (i << PAGE_SHIFT), user->pages[i]);
		if (error)
			return error;
	}
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = paper_open,
	.release = paper_release,
	.unlocked_ioctl = paper_ioctl,
	.mmap = paper_mmap,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "paper",
	.fops = &operations,
	.mode = 0600,
};

module_misc_device(device);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("What dmaplane is measured against: two calls an entry, single pages");
