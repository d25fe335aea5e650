/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels that the driver builds on: 6.1, 6.12 and the newest 7.x. Included first.
 */
#ifndef DMAPLANE_COMPAT_H
#define DMAPLANE_COMPAT_H

#include <linux/dma-buf.h>
#include <linux/eventfd.h>
#include <linux/mm.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void dmp_vm_flags_mod(struct vm_area_struct *vma, vm_flags_t set, vm_flags_t clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#else
static inline void dmp_vm_flags_mod(struct vm_area_struct *vma, vm_flags_t set, vm_flags_t clear)
{
	vm_flags_mod(vma, set, clear);
}
#endif

/* eventfd_signal lost its count in 6.8. */
static inline void dmp_eventfd_signal(struct eventfd_ctx *eventfd)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
	eventfd_signal(eventfd, 1);
#else
	eventfd_signal(eventfd);
#endif
}

/* From 6.2 on the name without a suffix wants the dma_resv locked. */
static inline int dmp_dma_buf_vmap(struct dma_buf *dma_buf, struct iosys_map *map)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	return dma_buf_vmap(dma_buf, map);
#else
	return dma_buf_vmap_unlocked(dma_buf, map);
#endif
}

static inline void dmp_dma_buf_vunmap(struct dma_buf *dma_buf, struct iosys_map *map)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	dma_buf_vunmap(dma_buf, map);
#else
	dma_buf_vunmap_unlocked(dma_buf, map);
#endif
}

/* A namespace of symbols became a string in 6.13. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define DMP_IMPORT_DMA_BUF MODULE_IMPORT_NS(DMA_BUF)
#else
#define DMP_IMPORT_DMA_BUF MODULE_IMPORT_NS("DMA_BUF")
#endif

/* The two names of an hrtimer's set-up; hrtimer_init went in 6.15. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define dmp_hrtimer_setup(timer, callback)                                      \
	do {                                                                    \
		hrtimer_init(timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);         \
		(timer)->function = callback;                                   \
	} while (0)
#else
#define dmp_hrtimer_setup(timer, callback) hrtimer_setup(timer, callback, CLOCK_MONOTONIC, HRTIMER_MODE_ABS)
#endif

#endif
