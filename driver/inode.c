// SPDX-License-Identifier: GPL-2.0
/*
 * An inode for each context: its mappings stand in a tree of their own, so that no context walks through, or waits for,
 * the mappings of another. They live in a file system that nobody mounts.
 *
 * Locks: none of ours.
 */
#include "dmaplane.h"

#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/pseudo_fs.h>

/* "dmpl" */
#define MAGIC 0x646d706c

static int init_context(struct fs_context *context)
{
	return init_pseudo(context, MAGIC) ? 0 : -ENOMEM;
}

static struct file_system_type file_system = {
	.name = "dmaplane",
	.owner = THIS_MODULE,
	.init_fs_context = init_context,
	.kill_sb = kill_anon_super,
};

static struct vfsmount *mount;
static int mount_users;

struct inode *dmp_inode_new(void)
{
	struct inode *inode;
	int error = dmp_simple_pin_fs(&file_system, &mount, &mount_users);

	if (error)
		return ERR_PTR(error);
	inode = dmp_alloc_anon_inode(mount->mnt_sb);
	if (IS_ERR(inode))
		simple_release_fs(&mount, &mount_users);
	return inode;
}

void dmp_inode_put(struct inode *inode)
{
	iput(inode);
	simple_release_fs(&mount, &mount_users);
}
