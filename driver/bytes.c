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

/* Bytes in a row for the kernel, from some byte of memory on. */
struct window {
	u8 *at;
	unsigned int room;
	/* The page's own address, where it was mapped for this. */
	void *mapped;
};

/* The offset is checked, but may be a user's number (clause SEC-3). */
static struct window open_window(struct dmp_memory *memory, u64 offset)
{
	struct window window = {};

	if (memory->address) {
		offset = array_index_nospec(offset, memory->length_bytes);
		window.room = min_t(u64, memory->length_bytes - offset, PAGE_SIZE);
		window.at = (u8 *)memory->address + offset;
		return window;
	}
	offset += memory->first_byte;
	window.mapped = kmap_local_page(memory->pages[array_index_nospec(offset >> PAGE_SHIFT, memory->nr_pages)]);
	window.room = PAGE_SIZE - offset_in_page(offset);
	window.at = (u8 *)window.mapped + offset_in_page(offset);
	return window;
}

static void close_window(struct window *window)
{
	if (window->mapped)
		kunmap_local(window->mapped);
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
	if (in && memory->read_only)
		return -EACCES;
	while (bytes.length) {
		struct window window = open_window(memory, offset);
		unsigned int some = min_t(u64, window.room, bytes.length);

		if (in)
			memcpy(window.at, other, some);
		else
			memcpy(other, window.at, some);
		close_window(&window);
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
	/* Aligned: it does not cross a page. */
	struct window window = open_window(memory, offset);
	/* Acquire: pairs with the client's release, as clause CTL-8 wants it. */
	u32 word = smp_load_acquire((u32 *)window.at);

	close_window(&window);
	return word;
}

/* What is copied on the engine's thread: not with memory of another device's, which wants to be told and may sleep. */
static int copy_at_once(struct dmp_context *context, u32 buffer, u64 offset, struct dmp_bytes bytes, bool in)
{
	struct dmp_memory *memory = dmp_memory_of(context, buffer);

	if (memory && memory->kind == DMP_MEMORY_IMPORTED)
		return -EOPNOTSUPP;
	return copy_bytes(memory, offset, bytes, in);
}

int dmaplane_glue_read_bytes(struct dmp_context *context, u32 buffer, u64 offset, struct dmp_bytes to)
{
	return copy_at_once(context, buffer, offset, to, false);
}

int dmaplane_glue_write_bytes(struct dmp_context *context, u32 buffer, u64 offset, struct dmp_bytes from)
{
	return copy_at_once(context, buffer, offset, from, true);
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
		struct window target = open_window(to, to_offset), source = open_window(from, from_offset);
		unsigned int some = min_t(u64, min(target.room, source.room), length);

		move(target.at, source.at, some, checksum);
		/* In the order that kunmap_local wants. */
		close_window(&source);
		close_window(&target);
		to_offset += some;
		from_offset += some;
		length -= some;
	}
}
