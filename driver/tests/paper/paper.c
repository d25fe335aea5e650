// SPDX-License-Identifier: GPL-2.0
/*
 * What the driver is measured against, for tests only: rings as the paper's module has them (arXiv 2603.10030), in the
 * kernel alone, with two calls and two spinlocks an entry and a worker that adds one; and memory of single pages, taken
 * and mapped one by one.
 */
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#define SUBMIT _IOW('P', 0, u64)
#define COMPLETE _IOR('P', 1, u64)
#define ENTRIES 1024

static int cpu = -1;
module_param(cpu, int, 0600);
MODULE_PARM_DESC(cpu, "Where the worker of what is opened next runs; -1: where the scheduler has it");

struct queue {
	spinlock_t lock;
	u64 entries[ENTRIES];
	u32 head, tail;
};

struct paper {
	struct queue submissions, completions;
	wait_queue_head_t wait;
	struct task_struct *worker;
	unsigned long nr_pages;
	struct page **pages;
};

static bool push(struct queue *queue, u64 entry)
{
	bool fits;

	spin_lock(&queue->lock);
	fits = queue->tail - queue->head < ENTRIES;
	if (fits)
		queue->entries[queue->tail++ % ENTRIES] = entry;
	spin_unlock(&queue->lock);
	return fits;
}

static bool pop(struct queue *queue, u64 *entry)
{
	bool any;

	spin_lock(&queue->lock);
	any = queue->tail != queue->head;
	if (any)
		*entry = queue->entries[queue->head++ % ENTRIES];
	spin_unlock(&queue->lock);
	return any;
}

static int work(void *argument)
{
	struct paper *user = argument;
	u64 entry;

	while (!kthread_should_stop()) {
		wait_event_interruptible(user->wait, READ_ONCE(user->submissions.tail) !=
					 READ_ONCE(user->submissions.head) || kthread_should_stop());
		while (pop(&user->submissions, &entry))
			while (!push(&user->completions, entry + 1) && !kthread_should_stop())
				cond_resched();
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
	u64 entry;

	switch (call) {
	case SUBMIT:
		if (copy_from_user(&entry, (void __user *)argument, sizeof(entry)))
			return -EFAULT;
		if (!push(&user->submissions, entry))
			return -EAGAIN;
		wake_up(&user->wait);
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
