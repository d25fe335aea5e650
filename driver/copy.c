// SPDX-License-Identifier: GPL-2.0
/*
 * Copies for peers: into and out of memory that they hold a lease on, always by the side that has granted it, in slices
 * with a look between them whether it was told to stop (clauses LOC-5, HOST-18, HOST-19).
 *
 * Both sides' memory stays meanwhile: ours because the engine waits for the transfer's end, the peer's because its
 * engine waits for the request's, which comes from here.
 *
 * Locks: requests_lock for the table of copies.
 */
#include "link.h"
#include "memory.h"
#include "trace.h"

#include <linux/slab.h>

/* Between two looks, clause HOST-18. */
#define SLICE_BYTES (256u << 10)
#define SLICE_PIECES 1024
/* Up to here a copy costs less than to have a worker make it. */
#define INLINE_BYTES (16u << 10)
/* CRC-32C: initial value and final complement (clause XFR-10). */
#define CHECKSUM_BEGIN (~0u)

struct dmp_copy {
	struct dmp_work work;
	/* In the context's table of copies, guarded by its requests_lock. */
	struct hlist_node entry;
	/* Begun by us; the frame's hold outlives the copy. */
	struct dmp_request *request;
	struct dmp_target target;
	/* Into our memory, not out of it. */
	bool in;
	bool checksum;
	/* On the engine's thread. */
	bool at_once;
	bool stopped;
	/* Of the memory on either side that is copied at this moment. */
	struct dmp_access our_access, their_access;
	/* How far it is, since it may be put off: what was moved, the list's piece, and bytes of that, or of the range. */
	bool begun;
	u64 bytes;
	u32 sum;
	u32 piece;
	u64 done;
};

/* Whether to go on: 0, or an error. */
static int look(struct dmp_copy *copy)
{
	cond_resched();
	if (READ_ONCE(copy->stopped))
		return -ECANCELED;
	return READ_ONCE(copy->request->stopped) ? -ECONNRESET : 0;
}

static void move(struct dmp_copy *copy, struct dmp_memory *ours, u64 our_offset, struct dmp_memory *theirs,
		 u64 their_offset, u64 length)
{
	u32 *checksum = copy->checksum ? &copy->sum : NULL;

	if (copy->in)
		dmp_memory_move(ours, our_offset, theirs, their_offset, length, checksum);
	else
		dmp_memory_move(theirs, their_offset, ours, our_offset, length, checksum);
	copy->bytes += length;
}

/* A fence of ours first: an exporter may take locks that others hold who wait for it. */
static void end_access(struct dmp_copy *copy)
{
	bool ours_first = copy->our_access.fence;

	dmp_access_end(ours_first ? &copy->our_access : &copy->their_access);
	dmp_access_end(ours_first ? &copy->their_access : &copy->our_access);
}

static int begin_access(struct dmp_copy *copy, struct dmp_memory *ours, struct dmp_memory *theirs)
{
	int error = 0;

	/* For as long as nobody has the copy stop. Who was waited for in theirs was not in ours any more. */
	if (!dmp_access_waited(&copy->work, theirs))
		error = dmp_access_wait(&copy->work, ours, copy->in);
	if (!error)
		error = dmp_access_wait(&copy->work, theirs, !copy->in);
	return error ?: dmp_access_begin_both(&copy->our_access, ours, copy->in, &copy->their_access, theirs,
					      !copy->in);
}

/* It was exported after the copy had begun. */
static bool wants_fence(const struct dmp_access *access)
{
	const struct dmp_memory *memory = access->memory;

	return memory && memory->kind != DMP_MEMORY_IMPORTED && !access->fence && READ_ONCE(memory->exported);
}

/* The access goes on, to other memory perhaps: pieces in a row mostly lie in one. */
static int go_on(struct dmp_copy *copy, struct dmp_memory *ours, struct dmp_memory *theirs)
{
	if (copy->our_access.memory == ours && copy->their_access.memory == theirs && !wants_fence(&copy->our_access) &&
	    !wants_fence(&copy->their_access))
		return 0;
	/* Both, since what is begun may wait, and nothing waits with a fence of its own. */
	end_access(copy);
	return begin_access(copy, ours, theirs);
}

/* One range, from where it is, slice by slice. */
static int move_slices(struct dmp_copy *copy, struct dmp_memory *ours, u64 our_offset, struct dmp_memory *theirs,
		       u64 their_offset, u64 length)
{
	while (copy->done < length) {
		u64 some = min_t(u64, SLICE_BYTES, length - copy->done);
		int error = copy->done ? look(copy) : 0;

		if (!error && !copy->at_once)
			error = go_on(copy, ours, theirs);
		if (error)
			return error;
		move(copy, ours, our_offset + copy->done, theirs, their_offset + copy->done, some);
		copy->done += some;
	}
	copy->done = 0;
	return 0;
}

static int copy_range(struct dmp_copy *copy)
{
	struct dmp_request *request = copy->request;
	struct dmp_memory *ours = dmp_memory_of(copy->work.context, copy->target.object);

	if (!dmp_memory_has(ours, copy->target.offset, copy->target.length) ||
	    !dmp_memory_has(request->memory, request->offset, copy->target.length))
		return -EIO;
	/* On the engine's thread nobody is told and nothing waited for: nobody else had a part in it a moment ago. */
	if (copy->at_once && (copy->in ? ours : request->memory)->read_only)
		return -EACCES;
	return move_slices(copy, ours, copy->target.offset, request->memory, request->offset, copy->target.length);
}

/* Finds each of the peer's numbers in our list: all of them, before the first byte moves. */
static int find_pieces(struct dmp_copy *copy)
{
	struct dmp_context *context = copy->work.context;
	struct dmp_request *request = copy->request;
	u32 i;

	if (request->nr_pieces != copy->target.length)
		return -EPROTO;
	for (i = 0; i < request->nr_pieces; i++) {
		struct dmp_piece *piece = &request->pieces[i];
		struct dmp_place place;
		int error = dmp_list_locate(context, copy->target.object, piece->peer_segment, &place);

		if (!error && place.length_bytes != piece->length_bytes)
			error = -EINVAL;
		if (!error && !dmp_memory_has(dmp_memory_of(context, place.buffer), place.offset, place.length_bytes))
			error = -EIO;
		if (!error && i % SLICE_PIECES == SLICE_PIECES - 1)
			error = look(copy);
		if (error)
			return error;
		piece->peer_buffer = place.buffer;
		piece->peer_offset = place.offset;
	}
	return 0;
}

static int copy_pieces(struct dmp_copy *copy)
{
	struct dmp_request *request = copy->request;
	u32 pieces = 0;
	u64 bytes = 0;

	for (; copy->piece < request->nr_pieces; copy->piece++) {
		struct dmp_piece *piece = &request->pieces[copy->piece];
		struct dmp_memory *ours = dmp_memory_of(copy->work.context, piece->peer_buffer);
		struct dmp_memory *theirs = dmp_memory_of(request->owner, piece->buffer);
		int error = 0;

		pieces++;
		bytes += piece->length_bytes;
		if (pieces > SLICE_PIECES || bytes > SLICE_BYTES) {
			error = look(copy);
			pieces = 1;
			bytes = piece->length_bytes;
		}
		if (!error)
			error = move_slices(copy, ours, piece->peer_offset, theirs, piece->offset, piece->length_bytes);
		if (error)
			return error;
	}
	return 0;
}

/* Short, and with memory that nobody has to be told of. */
static bool can_be_made_at_once(struct dmp_context *context, struct dmp_request *request,
				const struct dmp_target *target)
{
	struct dmp_memory *ours;

	if (target->kind != DMP_OBJECT_BUFFER || target->length > INLINE_BYTES)
		return false;
	ours = dmp_memory_of(context, target->object);
	return ours && dmp_memory_is_private(ours) && request->memory && dmp_memory_is_private(request->memory);
}

/* All of it, or on from where it was put off. */
static int go(struct dmp_copy *copy)
{
	bool begun = copy->begun;
	int error = 0;

	copy->begun = true;
	if (!begun)
		copy->sum = CHECKSUM_BEGIN;
	/* It may have waited for its turn, or for a device. */
	if (!copy->at_once)
		error = look(copy);
	if (error)
		return error;
	if (copy->target.kind != DMP_OBJECT_LIST)
		return copy_range(copy);
	if (!begun)
		error = find_pieces(copy);
	return error ?: copy_pieces(copy);
}

/* Those who look on. */
static void tell(struct dmp_copy *copy, int error)
{
	struct dmp_context *context = copy->work.context;

	trace_dmaplane_copy(context, copy->work.op, copy->in, copy->bytes, error);
	dmp_count(context, copies, 1);
	if (error)
		dmp_count(context, copies_failed, 1);
	if (copy->in)
		dmp_count(context, bytes_in, copy->bytes);
	else
		dmp_count(context, bytes_out, copy->bytes);
}

/* The whole copy; then the peer's engine knows that nothing of its side is touched any more. */
static int copy_all(struct dmp_copy *copy, u64 *bytes, u64 *checksum)
{
	int error = go(copy);

	if (error == DMP_WORK_LATER)
		return error;
	end_access(copy);
	dmp_request_unhurried(copy->request);
	*bytes = copy->bytes;
	tell(copy, error);
	*checksum = copy->checksum ? ~copy->sum : 0;
	/* What has gone wrong here the peer is told by an answer, which follows; its memory is its own again now. */
	dmp_request_end(copy->request, 0, copy->in ? 0 : *checksum);
	return error;
}

static int run(struct dmp_work *item, u64 *bytes, u64 *checksum)
{
	return copy_all(container_of(item, struct dmp_copy, work), bytes, checksum);
}

static void ended(struct dmp_work *item, int result, u64 bytes, u64 checksum)
{
	struct dmp_copy *copy = container_of(item, struct dmp_copy, work);
	struct dmp_context *context = item->context;

	spin_lock(&context->requests_lock);
	hlist_del(&copy->entry);
	spin_unlock(&context->requests_lock);
	dmaplane_post_transfer_done(context->engine, item->op, result, bytes, checksum);
}

static void start(struct dmp_context *context, u64 transfer, struct dmp_request *request,
		  const struct dmp_target *target, bool in, bool checksum, struct dmp_outcome *outcome)
{
	struct dmp_copy *copy;

	if (!request || !dmp_request_begin(request)) {
		/* Given up by the peer before we came to it. */
		outcome->result = -ECONNRESET;
		return;
	}
	if (can_be_made_at_once(context, request, target)) {
		struct dmp_copy here = {
			.work.context = context, .work.op = transfer, .request = request, .target = *target, .in = in,
			.checksum = checksum, .at_once = true,
		};

		outcome->result = copy_all(&here, &outcome->word0, &outcome->word1);
		/* Many of these may come in a row. */
		cond_resched();
		return;
	}
	copy = dmp_kzalloc(sizeof(*copy), DMP_GFP_NOWAIT);
	if (!copy) {
		dmp_request_end(request, 0, 0);
		outcome->result = -ENOMEM;
		return;
	}
	copy->request = request;
	copy->target = *target;
	copy->in = in;
	copy->checksum = checksum;
	copy->work.end = ended;
	copy->work.copies = true;
	copy->work.context = context;
	INIT_LIST_HEAD(&copy->work.entry);
	dmp_request_hurried(request, &copy->work);
	spin_lock(&context->requests_lock);
	/* Looked for by the number that dmp_work_start is about to write. */
	copy->work.op = transfer;
	hlist_add_head(&copy->entry, &context->copies[(u32)transfer % DMP_TABLE]);
	spin_unlock(&context->requests_lock);
	dmp_work_start(&copy->work, context, transfer, run, outcome);
}

/* Whether a READ's checksum is asked for: bit 9 of the message's first word (clause WIRE-3). */
#define CHECKSUM_ASKED (1 << 9)

void dmaplane_glue_copy_in(struct dmp_context *context, u64 transfer, u32 peer, u32 frame,
			   const struct dmp_target *target, bool checksum, struct dmp_outcome *outcome)
{
	start(context, transfer, dmp_link_frame(context, peer, frame), target, true, checksum, outcome);
}

void dmaplane_glue_serve(struct dmp_context *context, u64 transfer, u32 peer, u32 frame,
			 const struct dmp_target *source, struct dmp_outcome *outcome)
{
	struct dmp_request *request = dmp_link_frame(context, peer, frame);
	bool checksum = request && request->message.words[0] & CHECKSUM_ASKED;

	start(context, transfer, request, source, false, checksum, outcome);
}

void dmaplane_glue_stop(struct dmp_context *context, u64 transfer)
{
	struct dmp_copy *copy;

	spin_lock(&context->requests_lock);
	hlist_for_each_entry(copy, &context->copies[(u32)transfer % DMP_TABLE], entry)
		if (copy->work.op == transfer) {
			WRITE_ONCE(copy->stopped, true);
			dmp_work_hurry(&copy->work);
		}
	spin_unlock(&context->requests_lock);
}

int dmaplane_glue_deliver(struct dmp_context *context, u32 peer, u32 frame, u32 buffer, u64 offset, u32 length)
{
	struct dmp_request *request = dmp_link_frame(context, peer, frame);
	struct dmp_bytes from = { .length = length };

	if (!request || length > request->payload_bytes)
		return -EPROTO;
	from.start = request->payload;
	return dmaplane_glue_write_bytes(context, buffer, offset, from);
}
