// SPDX-License-Identifier: GPL-2.0
/*
 * The module: its device, its workqueues, its accounts.
 *
 * Locks: none.
 */
#include "dmaplane.h"

#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

struct dmp_accounts dmp_accounts;
/* What its fields count, in their order. */
static const char *const account_names[] = {
	"contexts", "rings", "memories", "pages", "lists", "works", "links", "listeners", "requests", "slots", "exports",
};
static_assert(sizeof(struct dmp_accounts) == ARRAY_SIZE(account_names) * sizeof(atomic_long_t));

/*
 * Run engines: short, and needed for memory to be given back. Not of a higher priority: what there is to run is the
 * clients' to say.
 */
struct workqueue_struct *dmp_runners;
/* Zero, load, connect, give back. */
struct workqueue_struct *dmp_workers;
/* Copy for peers: gigabytes perhaps, which nothing else waits behind. */
struct workqueue_struct *dmp_copiers;

#ifdef DMP_FAULTS
static atomic_t fail_nth;

bool dmp_fault(void)
{
	/* Counts down to 1, which is this one. */
	int left = atomic_read(&fail_nth);

	while (left > 0 && !atomic_try_cmpxchg(&fail_nth, &left, left - 1))
		;
	return left == 1;
}

static int set_fail_nth(const char *text, const struct kernel_param *parameter)
{
	int value, error = kstrtoint(text, 0, &value);

	if (!error)
		atomic_set(&fail_nth, value);
	return error;
}

static int get_fail_nth(char *text, const struct kernel_param *parameter)
{
	return sysfs_emit(text, "%d\n", atomic_read(&fail_nth));
}

static const struct kernel_param_ops fail_nth_operations = {
	.set = set_fail_nth,
	.get = get_fail_nth,
};
module_param_cb(fail_nth, &fail_nth_operations, NULL, 0600);
MODULE_PARM_DESC(fail_nth, "For tests: the n-th call from now that may fail does");
#endif

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "dmaplane",
	.fops = &dmp_device_operations,
	/* The udev rule gives it to the group dmaplane; nobody else may open it. */
	.mode = 0600,
};

static int __init dmp_init(void)
{
	int error = -ENOMEM;

	if (dmaplane_engine_abi_version() != DMAPLANE_ABI_VERSION) {
		pr_err("dmaplane: the engine speaks ABI %u, the driver %u: build both from one source\n",
		       dmaplane_engine_abi_version(), DMAPLANE_ABI_VERSION);
		return -EINVAL;
	}
	dmp_runners = alloc_workqueue("dmaplane-run", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!dmp_runners)
		return -ENOMEM;
	dmp_workers = alloc_workqueue("dmaplane-work", WQ_UNBOUND, 0);
	if (!dmp_workers)
		goto no_workers;
	dmp_copiers = alloc_workqueue("dmaplane-copy", WQ_UNBOUND, 0);
	if (!dmp_copiers)
		goto no_copiers;
	dmp_names_init();
	dmp_debugfs_init();
	error = misc_register(&device);
	if (error)
		goto no_device;
	return 0;

no_device:
	dmp_debugfs_exit();
	destroy_workqueue(dmp_copiers);
no_copiers:
	destroy_workqueue(dmp_workers);
no_workers:
	destroy_workqueue(dmp_runners);
	return error;
}

/* Not while a descriptor, a context or a mapping lives: each holds the module. */
static void __exit dmp_exit(void)
{
	atomic_long_t *accounts = (atomic_long_t *)&dmp_accounts;
	int i;

	misc_deregister(&device);
	/* The end of a context gives the module back in its last statement, on this queue. */
	destroy_workqueue(dmp_copiers);
	destroy_workqueue(dmp_workers);
	destroy_workqueue(dmp_runners);
	dmp_debugfs_exit();
	rcu_barrier();
	for (i = 0; i < ARRAY_SIZE(account_names); i++)
		if (atomic_long_read(&accounts[i]))
			pr_err("dmaplane: left over: %ld %s\n", atomic_long_read(&accounts[i]), account_names[i]);
}

module_init(dmp_init);
module_exit(dmp_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("dmaplane: buffers that are safe to reuse, driven through rings");
