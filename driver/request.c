// SPDX-License-Identifier: GPL-2.0
/*
 * Requests of a context to its peers: what each shows of its own side, and until when (clauses LOC-4, LOC-5).
 *
 * A range is sent at once. A list's segments are looked up first, by a worker of this side: pairs are read once, and a
 * number that this side's list does not have never reaches the peer. What a request shows stays as it is, by the uses
 * that the engine counts, until the request is over; then this side hears of it, once.
 *
 * Locks: requests_lock, request->lock.
 */
#include "link.h"
#include "memory.h"

#include <linux/slab.h>

/* Kinds of requests: RequestKind of engine/src/message.rs, in the low byte of a message's first word. */
#define KIND_SEND 5
/* Where a message has the bytes that travel with it. */
#define PAYLOAD_WORD 5
/* Pairs read between two looks at the scheduler: they lie on the stack. */
#define PAIRS_AT_ONCE 64

static void dmp_request_free(struct kref *references)
{
	struct dmp_request *request = container_of(references, struct dmp_request, references);

	kfree(request);
	atomic_long_dec(&dmp_accounts.requests);
}

void dmp_request_put(struct dmp_request *request)
{
	kref_put(&request->references, dmp_request_free);
}

/* Who is told so may touch what it shows, and ends it. */
bool dmp_request_begin(struct dmp_request *request)
{
	bool begun;

	spin_lock(&request->lock);
	begun = request->state == DMP_REQUEST_WAITS;
	if (begun)
		request->state = DMP_REQUEST_COPIED;
	spin_unlock(&request->lock);
	return begun;
}

/* This work ends it soon where its own side wants it over. Until dmp_request_unhurried the work stays. */
void dmp_request_hurried(struct dmp_request *request, struct dmp_work *work)
{
	spin_lock(&request->lock);
	request->work = work;
	work->urgent = request->stopped;
	spin_unlock(&request->lock);
}

void dmp_request_unhurried(struct dmp_request *request)
{
	spin_lock(&request->lock);
	request->work = NULL;
	spin_unlock(&request->lock);
}

/* Takes it out of its side's table, with what it shows. */
static void forget(struct dmp_request *request)
{
	struct dmp_context *owner = request->owner;

	spin_lock(&request->lock);
	request->state = DMP_REQUEST_OVER;
	spin_unlock(&request->lock);
	spin_lock(&owner->requests_lock);
	hlist_del_init(&request->entry);
	spin_unlock(&owner->requests_lock);
	if (request->memory)
		dmp_memory_put(request->memory);
	kvfree(request->pieces);
	request->memory = NULL;
	request->pieces = NULL;
}

/* Nothing of it is touched any more; its side is told. By who has begun it, or prepared it. */
void dmp_request_end(struct dmp_request *request, int result, u32 checksum)
{
	struct dmp_context *owner = request->owner;

	forget(request);
	dmaplane_post_local_done(owner->engine, request->op, result, checksum);
	dmp_context_put(owner);
	dmp_request_put(request);
}

/* A request with room for what is to be given to the receiver; it is in no table yet, and has one holder. */
static struct dmp_request *request_new(const u64 *words, u32 payload_bytes)
{
	/* As long as a client likes: not beyond a cgroup's limit. */
	gfp_t gfp = GFP_NOWAIT | __GFP_NOWARN | __GFP_ACCOUNT | __GFP_ZERO;
	struct dmp_request *request = dmp_kmalloc(sizeof(*request) + payload_bytes, gfp);

	if (!request)
		return NULL;
	atomic_long_inc(&dmp_accounts.requests);
	kref_init(&request->references);
	spin_lock_init(&request->lock);
	request->state = DMP_REQUEST_OVER;
	memcpy(request->message.words, words, sizeof(request->message.words));
	request->message.request = request;
	request->payload_bytes = payload_bytes;
	return request;
}

/* Into its side's table, which holds it as well. */
static void note(struct dmp_request *request, struct dmp_context *owner, u64 op, enum dmp_request_state state)
{
	kref_get(&owner->references);
	kref_get(&request->references);
	request->owner = owner;
	request->op = op;
	request->state = state;
	spin_lock(&owner->requests_lock);
	hlist_add_head(&request->entry, &owner->requests[(u32)op % DMP_TABLE]);
	spin_unlock(&owner->requests_lock);
}

/* It has not come about: its side is not told, but knows. */
static void take_back(struct dmp_request *request)
{
	forget(request);
	dmp_context_put(request->owner);
	dmp_request_put(request);
}

/* Lists. */

struct dmp_prepare_work {
	struct dmp_work work;
	struct dmp_request *request;
	struct dmp_memory *index;
	u64 index_offset;
	u64 count;
	u32 list;
	/* Its link is held: once the request is on its way, it may be over, and the peer gone, before we are done. */
	struct dmp_end *end;
};

static int look_up(struct dmp_prepare_work *work, struct dmp_piece *piece, const struct dmaplane_index_pair *pair)
{
	struct dmp_context *context = work->work.context;
	struct dmp_place place;
	int error = dmp_list_locate(context, work->list, pair->local, &place);

	if (error)
		return error;
	if (!dmp_memory_has(dmp_memory_of(context, place.buffer), place.offset, place.length_bytes))
		return -EIO;
	*piece = (struct dmp_piece){
		.offset = place.offset,
		.buffer = place.buffer,
		.length_bytes = place.length_bytes,
		.peer_segment = pair->remote,
	};
	return 0;
}

/* Others may wait for this: nothing is allocated. */
static int look_all_up(struct dmp_prepare_work *work)
{
	struct dmp_request *request = work->request;
	struct dmaplane_index_pair pairs[PAIRS_AT_ONCE];
	u64 done = 0, bytes = 0;

	while (done < work->count) {
		u64 some = min_t(u64, PAIRS_AT_ONCE, work->count - done), i;
		int error = dmp_memory_read(work->index, work->index_offset + done * sizeof(*pairs), pairs,
					    some * sizeof(*pairs));

		for (i = 0; !error && i < some; i++) {
			error = look_up(work, &request->pieces[done + i], &pairs[i]);
			bytes += error ? 0 : request->pieces[done + i].length_bytes;
		}
		if (error)
			return error;
		/* Nobody waits for it any more. */
		if (READ_ONCE(request->stopped))
			return -ECANCELED;
		done += some;
		cond_resched();
	}
	request->nr_pieces = work->count;
	return bytes > DMAPLANE_MAX_OPERATION_BYTES ? -EMSGSIZE : 0;
}

/* Looks the list up and sends the request: an error where the peer will not hear of it. */
static int prepare(struct dmp_work *item, u64 *word0, u64 *word1)
{
	struct dmp_prepare_work *work = container_of(item, struct dmp_prepare_work, work);
	struct dmp_request *request = work->request;
	struct dmp_access access = {};
	int error = READ_ONCE(request->stopped) ? -ECANCELED : dmp_access_wait(item, work->index, false);

	if (error == DMP_WORK_LATER)
		return error;
	dmp_request_unhurried(request);
	if (!error) {
		request->pieces = dmp_kvmalloc_array(work->count, sizeof(*request->pieces), DMP_GFP);
		error = request->pieces ? 0 : -ENOMEM;
	}
	if (!error)
		error = dmp_access_begin(&access, work->index, false);
	if (!error)
		error = look_all_up(work);
	dmp_access_end(&access);
	dmp_memory_put(work->index);
	if (error)
		return error;
	spin_lock(&request->lock);
	if (request->stopped)
		error = -ECANCELED;
	else
		request->state = DMP_REQUEST_WAITS;
	spin_unlock(&request->lock);
	if (error)
		return error;
	/* The inbox holds it as we do. */
	kref_get(&request->references);
	if (dmp_link_say(work->end, &request->message))
		return 0;
	dmp_request_put(request);
	/* Unless it has been abandoned meanwhile, which has ended it. */
	return dmp_request_begin(request) ? -ECONNRESET : 0;
}

static void prepared(struct dmp_work *item, int result, u64 word0, u64 word1)
{
	struct dmp_prepare_work *work = container_of(item, struct dmp_prepare_work, work);

	if (result)
		dmp_request_end(work->request, result, 0);
	dmp_request_put(work->request);
	dmp_link_put(work->end);
}

static int post_list(struct dmp_context *context, u32 peer, u64 op, struct dmp_request *request,
		     const struct dmp_post *post)
{
	struct dmp_bytes to = { .start = request->payload, .length = request->payload_bytes };
	struct dmp_prepare_work *work;
	struct dmp_outcome outcome = {};
	int error = 0;

	if (request->payload_bytes)
		error = dmaplane_glue_read_bytes(context, post->index_buffer, post->notification_offset, to);
	work = error ? NULL : dmp_kzalloc(sizeof(*work), DMP_GFP_NOWAIT);
	if (!work) {
		dmp_request_put(request);
		return error ?: -ENOMEM;
	}
	note(request, context, op, DMP_REQUEST_PREPARED);
	work->request = request;
	work->index = dmaplane_glue_hold_buffer(context, post->index_buffer);
	work->index_offset = post->index_offset;
	work->count = post->length;
	work->list = post->object;
	work->end = *dmp_end_at(context, peer);
	kref_get(&work->end->link->references);
	work->work.end = prepared;
	work->work.context = context;
	INIT_LIST_HEAD(&work->work.entry);
	dmp_request_hurried(request, &work->work);
	dmp_work_start(&work->work, context, op, prepare, &outcome);
	return 1;
}

/* Ranges. */

static int post_range(struct dmp_context *context, u32 peer, u64 op, struct dmp_request *request,
		      const struct dmp_post *post)
{
	request->memory = dmaplane_glue_hold_buffer(context, post->object);
	request->offset = post->offset;
	note(request, context, op, DMP_REQUEST_WAITS);
	if (dmp_link_say(*dmp_end_at(context, peer), &request->message))
		return 1;
	take_back(request);
	dmp_request_put(request);
	return -ECONNRESET;
}

/* What it carries is copied at once, so that it shows nothing. */
static int post_send(struct dmp_context *context, u32 peer, struct dmp_request *request, const struct dmp_post *post)
{
	struct dmp_bytes to = { .start = request->payload, .length = request->payload_bytes };
	int error = dmaplane_glue_read_bytes(context, post->object, post->offset, to);

	if (!error && !dmp_link_say(*dmp_end_at(context, peer), &request->message))
		error = -ECONNRESET;
	if (error)
		dmp_request_put(request);
	return error;
}

int dmaplane_glue_post(struct dmp_context *context, u32 peer, u64 op, const u64 *words, const struct dmp_post *post)
{
	struct dmp_request *request = request_new(words, words[PAYLOAD_WORD]);

	if (!request)
		return -ENOMEM;
	if ((u8)words[0] == KIND_SEND)
		return post_send(context, peer, request, post);
	if (post->kind == DMP_OBJECT_LIST)
		return post_list(context, peer, op, request, post);
	return post_range(context, peer, op, request, post);
}

/* One of this context's that is not over, held; NULL where there is none. */
static struct dmp_request *find(struct dmp_context *context, u64 op)
{
	struct dmp_request *request, *found = NULL;

	spin_lock(&context->requests_lock);
	hlist_for_each_entry(request, &context->requests[(u32)op % DMP_TABLE], entry)
		if (request->op == op) {
			kref_get(&request->references);
			found = request;
			break;
		}
	spin_unlock(&context->requests_lock);
	return found;
}

void dmaplane_glue_abandon(struct dmp_context *context, u64 op)
{
	struct dmp_request *request = find(context, op);

	if (!request)
		return;
	/* Who has it in hand ends it: soon, if it looks. */
	spin_lock(&request->lock);
	WRITE_ONCE(request->stopped, true);
	if (request->work)
		dmp_work_hurry(request->work);
	spin_unlock(&request->lock);
	if (dmp_request_begin(request))
		dmp_request_end(request, -ECONNRESET, 0);
	dmp_request_put(request);
}
