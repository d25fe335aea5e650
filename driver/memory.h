/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What memory is, for the files that touch pages: memory.c makes, maps and frees it, bytes.c copies from and to it.
 */
#ifndef DMAPLANE_MEMORY_H
#define DMAPLANE_MEMORY_H

#include "dmaplane.h"

/* Pages of a buffer or of a ring's area, for as long as anybody holds them. */
struct dmp_memory {
	/* Held by the buffer or ring, by each mapping, and by work that touches it. */
	struct kref references;
	/* Of a buffer: where its bytes are counted; NULL for a ring's area. */
	struct dmp_context *context;
	unsigned long nr_pages;
	struct page **pages;
	/* Of a ring's area: all pages in a row. */
	void *address;
	/* Of a buffer: its number among the context's mappings. */
	u32 mapping;
	/* Of a buffer that was asked for so: it may be recycled, for one of the same node and strictness. */
	bool recycle;
	bool strict;
	int node;
	struct list_head entry;
	struct work_struct free_work;
};

#endif
