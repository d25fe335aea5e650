/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls that may fail, each so that a test can have the n-th of them fail, in whatever thread it comes
 * (/sys/module/dmaplane/parameters/fail_nth, in a module that was built with DMP_FAULTS=y; there it reads 0 once it has
 * come). In any other build they are the kernel's own. An export's vmap is not among them: the core of dma-buf warns
 * where it fails.
 */
#ifndef DMAPLANE_FAULT_H
#define DMAPLANE_FAULT_H

#include <linux/err.h>

#ifdef DMP_FAULTS
bool dmp_fault(void);
#else
#define dmp_fault() false
#endif

/* NULL. */
#define dmp_kmalloc(...) (dmp_fault() ? NULL : kmalloc(__VA_ARGS__))
#define dmp_kzalloc(...) (dmp_fault() ? NULL : kzalloc(__VA_ARGS__))
#define dmp_kvmalloc(...) (dmp_fault() ? NULL : kvmalloc(__VA_ARGS__))
#define dmp_kvmalloc_array(...) (dmp_fault() ? NULL : kvmalloc_array(__VA_ARGS__))
#define dmp_kvcalloc(...) (dmp_fault() ? NULL : kvcalloc(__VA_ARGS__))
#define dmp_vmalloc(...) (dmp_fault() ? NULL : __vmalloc(__VA_ARGS__))
#define dmp_alloc_pages_node(...) (dmp_fault() ? NULL : alloc_pages_node(__VA_ARGS__))
#define dmp_sync_file_create(...) (dmp_fault() ? NULL : sync_file_create(__VA_ARGS__))
#define dmp_vmap(...) (dmp_fault() ? NULL : vmap(__VA_ARGS__))

/* A pointer that is an error. */
#define dmp_alloc_anon_inode(...) (dmp_fault() ? ERR_PTR(-ENOMEM) : alloc_anon_inode(__VA_ARGS__))
#define dmp_anon_inode_getfile(...) (dmp_fault() ? ERR_PTR(-ENOMEM) : anon_inode_getfile(__VA_ARGS__))
#define dmp_dma_buf_export(...) (dmp_fault() ? ERR_PTR(-ENOMEM) : dma_buf_export(__VA_ARGS__))
#define dmp_kthread_create(...) (dmp_fault() ? ERR_PTR(-ENOMEM) : kthread_create(__VA_ARGS__))

/* An error. */
#define dmp_dma_map_sgtable(...) (dmp_fault() ? -ENOMEM : dma_map_sgtable(__VA_ARGS__))
#define dmp_xa_alloc(...) (dmp_fault() ? -ENOMEM : xa_alloc(__VA_ARGS__))
#define dmp_xa_alloc_cyclic(...) (dmp_fault() ? -ENOMEM : xa_alloc_cyclic(__VA_ARGS__))
#define dmp_get_unused_fd_flags(...) (dmp_fault() ? -EMFILE : get_unused_fd_flags(__VA_ARGS__))
#define dmp_vm_insert_pages(...) (dmp_fault() ? -ENOMEM : vm_insert_pages(__VA_ARGS__))
#define dmp_pin_user_pages_fast(...) (dmp_fault() ? -ENOMEM : pin_user_pages_fast(__VA_ARGS__))
#define dmp_sg_alloc_table_from_pages_segment(...) \
	(dmp_fault() ? -ENOMEM : sg_alloc_table_from_pages_segment(__VA_ARGS__))
#define dmp_dma_resv_reserve_fences(...) (dmp_fault() ? -ENOMEM : dma_resv_reserve_fences(__VA_ARGS__))
#define dmp_dma_resv_get_singleton(...) (dmp_fault() ? -ENOMEM : dma_resv_get_singleton(__VA_ARGS__))
#define dmp_simple_pin_fs(...) (dmp_fault() ? -ENOMEM : simple_pin_fs(__VA_ARGS__))

/* Bytes that were not copied. */
#define dmp_copy_from_user(to, from, bytes) (dmp_fault() ? (bytes) : copy_from_user(to, from, bytes))
#define dmp_copy_to_user(to, from, bytes) (dmp_fault() ? (bytes) : copy_to_user(to, from, bytes))

#endif
