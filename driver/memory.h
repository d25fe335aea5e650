/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What memory is, for the files that touch it: memory.c makes, maps and frees pages, buffers.c has the table of
 * buffers, bytes.c copies, export.c and import.c share it by dma-bufs, pin.c takes a process's own.
 */
#ifndef DMAPLANE_MEMORY_H
#define DMAPLANE_MEMORY_H

#include "dmaplane.h"

#include <linux/dma-resv.h>
#include <linux/iosys-map.h>

struct dma_buf;
struct dma_fence;

enum dmp_memory_kind {
	/* Pages of our own. */
	DMP_MEMORY_PAGES,
	/* A process's, pinned. */
	DMP_MEMORY_PINNED,
	/* A dma-buf of somebody's, mapped for the kernel in a row. */
	DMP_MEMORY_IMPORTED,
};

/* Memory of a buffer or of a ring's area, for as long as anybody holds it. */
struct dmp_memory {
	/* Held by the buffer or ring, by each mapping and export, and by work that touches it. */
	struct kref references;
	enum dmp_memory_kind kind;
	/* Of a buffer with pages of our own, or imported: where its bytes are counted. */
	struct dmp_charge *charge;
	u64 length_bytes;
	/* All but imported memory: pages, and where in the first one it begins (pinned memory only; a multiple of 8). */
	unsigned long nr_pages;
	struct page **pages;
	u32 first_byte;
	/* Of a ring's area, and of imported memory: all of it in a row. */
	void *address;
	/* Of a buffer: its number among the context's mappings. */
	u32 mapping;
	/* Of a buffer that was asked for so: it may be recycled, for one of the same node, strictness and pages. */
	bool recycle;
	bool strict;
	unsigned int order;
	int node;
	struct list_head entry;
	struct work_struct free_work;

	/* Exported at least once, and for good: others may wait for what we do with it. Set last. */
	bool exported;
	/* Fences of copies under way; shared by all of its exports. */
	struct dma_resv fences;
	/* Guards the list, and the mapping. */
	struct mutex attachments_lock;
	/* Devices that importers have attached to any of its exports. */
	struct list_head attachments;
	/* In a row for other parts of the kernel, however many exports they have of it; while there are users. */
	void *shared_address;
	u32 shared_users;

	/* Of pinned memory: whose pages are counted as pinned. Its structure is held, not its address space. */
	struct mm_struct *mm;
	/* Pinned or imported: nobody writes to it through us. */
	bool read_only;

	/* Of imported memory. */
	struct dma_buf *dma_buf;
	struct iosys_map map;
};

/* Somebody's access by the processor to memory that others may have a part in. By a worker or a call: it may sleep. */
struct dmp_access {
	struct dmp_memory *memory;
	bool write;
	/* What waits for the end of it, where the memory is exported. */
	struct dma_fence *fence;
};

/* memory.c */
struct dmp_memory *dmp_memory_bare(enum dmp_memory_kind kind);
struct dmp_memory *dmp_memory_new(unsigned long nr_pages, unsigned int order, int node, bool strict, u64 *had);
void dmp_memory_free(struct dmp_memory *memory);
bool dmp_charge(atomic64_t *bytes, u64 more, u64 limit);

/* export.c */
void dmp_export_end(struct dmp_memory *memory);
void dmp_export_sync(struct dmp_memory *memory, bool end);
int dmp_export_busy(struct dmp_access *first, struct dmp_access *second);
void dmp_export_idle(struct dma_fence *fence);

/* import.c */
void dmp_import_free(struct dmp_memory *memory);
int dmp_import_sync(struct dmp_memory *memory, bool end, bool write);
struct dma_resv *dmp_import_fences(struct dmp_memory *memory);

/* pin.c */
void dmp_pin_free(struct dmp_memory *memory);

/* access.c */
int dmp_access_wait(struct dmp_work *work, struct dmp_memory *memory, bool write);
bool dmp_access_waited(struct dmp_work *work, struct dmp_memory *memory);
int dmp_access_begin(struct dmp_access *access, struct dmp_memory *memory, bool write);
int dmp_access_begin_both(struct dmp_access *first, struct dmp_memory *first_memory, bool first_write,
			  struct dmp_access *second, struct dmp_memory *second_memory, bool second_write);
void dmp_access_end(struct dmp_access *access);
bool dmp_memory_is_private(struct dmp_memory *memory);

#endif
