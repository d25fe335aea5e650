// SPDX-License-Identifier: GPL-2.0
/*
 * Copies from and to the pages of buffers. Clients may write to them meanwhile: each byte is read once.
 *
 * Locks: none.
 */
#include "memory.h"

#include <linux/crc32c.h>
#include <linux/highmem.h>
#include <linux/nospec.h>

/* A checksum is made of bytes that nobody can change between: so many at a time, on the stack. */
#define BOUNCE_BYTES 256

/* The page that a byte lies in; the offset is checked, but may be a user's number (clause SEC-3). */
static struct page *page_at(struct dmp_memory *memory, u64 offset)
{
	return memory->pages[array_index_nospec(offset >> PAGE_SHIFT, memory->nr_pages)];
}

bool dmp_memory_has(struct dmp_memory *memory, u64 offset, u64 length)
{
	return memory && offset <= dmp_memory_bytes(memory) && length <= dmp_memory_bytes(memory) - offset;
}

/* Copies between a buffer and memory of Rust's; the range is checked. */
static int copy_bytes(struct dmp_memory *memory, u64 offset, struct dmp_bytes bytes, bool in)
{
	u8 *other = bytes.start;

	if (!dmp_memory_has(memory, offset, bytes.length))
		return -EIO;
	while (bytes.length) {
		unsigned int start = offset_in_page(offset);
		unsigned int some = min_t(u64, PAGE_SIZE - start, bytes.length);
		u8 *page = kmap_local_page(page_at(memory, offset));

		if (in)
			memcpy(page + start, other, some);
		else
			memcpy(other, page + start, some);
		kunmap_local(page);
		other += some;
		offset += some;
		bytes.length -= some;
	}
	return 0;
}

int dmp_memory_read(struct dmp_memory *memory, u64 offset, void *to, u64 length)
{
	struct dmp_bytes bytes = { .start = to, .length = length };

	return copy_bytes(memory, offset, bytes, false);
}

/* A word that the client may write at this moment; what was written before it is seen by who sees the word. */
u32 dmp_memory_word(struct dmp_memory *memory, u64 offset)
{
	u8 *page = kmap_local_page(page_at(memory, offset));
	u32 word = smp_load_acquire((u32 *)(page + offset_in_page(offset)));

	kunmap_local(page);
	return word;
}

int dmaplane_glue_read_bytes(struct dmp_context *context, u32 buffer, u64 offset, struct dmp_bytes to)
{
	return copy_bytes(dmp_memory_of(context, buffer), offset, to, false);
}

int dmaplane_glue_write_bytes(struct dmp_context *context, u32 buffer, u64 offset, struct dmp_bytes from)
{
	return copy_bytes(dmp_memory_of(context, buffer), offset, from, true);
}

static void move(u8 *to, const u8 *from, unsigned int length, u32 *checksum)
{
	u8 bounce[BOUNCE_BYTES];

	if (!checksum) {
		/* A context may be its own peer. */
		memmove(to, from, length);
		return;
	}
	while (length) {
		unsigned int some = min_t(unsigned int, length, sizeof(bounce));

		memcpy(bounce, from, some);
		/* The copy above is the one that counts, not the source. */
		barrier_data(bounce);
		*checksum = crc32c(*checksum, bounce, some);
		memcpy(to, bounce, some);
		to += some;
		from += some;
		length -= some;
	}
}

/* Copies between two buffers; both ranges are checked. With `checksum` their CRC-32C goes on from there. */
void dmp_memory_move(struct dmp_memory *to, u64 to_offset, struct dmp_memory *from, u64 from_offset, u64 length,
		     u32 *checksum)
{
	while (length) {
		unsigned int to_start = offset_in_page(to_offset), from_start = offset_in_page(from_offset);
		unsigned int some = min_t(u64, PAGE_SIZE - max(to_start, from_start), length);
		u8 *target = kmap_local_page(page_at(to, to_offset));
		u8 *source = kmap_local_page(page_at(from, from_offset));

		move(target + to_start, source + from_start, some, checksum);
		kunmap_local(source);
		kunmap_local(target);
		to_offset += some;
		from_offset += some;
		length -= some;
	}
}
