// SPDX-License-Identifier: GPL-2.0
/*
 * Links between two contexts of this machine: messages in order, and how a link ends.
 *
 * An engine fetches what its peers have said (dmaplane_glue_next) when it runs; who says something sees to it that it
 * does. Each end holds its context until that context's engine is done with it, so saying something to an end that
 * still has a context is safe, and one that has none hears nothing.
 *
 * Locks: link->lock, and under it a context's ready_lock.
 */
#include "link.h"

#include <linux/slab.h>

/* What a peer may leave unread before its link is ended (clause LOC-6). */
#define INBOX_MAX 65536

static struct dmp_end *other(struct dmp_end *end)
{
	return &end->link->ends[end == &end->link->ends[0]];
}

static void dmp_link_last(struct kref *references)
{
	dmp_link_free(container_of(references, struct dmp_link, references));
}

void dmp_link_free(struct dmp_link *link)
{
	kvfree(link->ends[0].frames);
	kvfree(link->ends[1].frames);
	kfree(link);
	atomic_long_dec(&dmp_accounts.links);
}

static int init_end(struct dmp_link *link, struct dmp_end *end, struct dmp_context *context)
{
	end->link = link;
	end->context = context;
	INIT_LIST_HEAD(&end->inbox);
	INIT_LIST_HEAD(&end->ready_entry);
	end->window = context->limits.inbound_per_peer;
	end->frames = dmp_kvcalloc(end->window, sizeof(*end->frames), DMP_GFP);
	return end->frames ? 0 : -ENOMEM;
}

/* Neither context is held yet; NULL: no memory. */
struct dmp_link *dmp_link_new(struct dmp_context *first, struct dmp_context *second)
{
	struct dmp_link *link = dmp_kzalloc(sizeof(*link), DMP_GFP);

	if (!link)
		return NULL;
	atomic_long_inc(&dmp_accounts.links);
	kref_init(&link->references);
	/* One for each end. */
	kref_get(&link->references);
	spin_lock_init(&link->lock);
	if (init_end(link, &link->ends[0], first) || init_end(link, &link->ends[1], second)) {
		dmp_link_free(link);
		return NULL;
	}
	return link;
}

static void drop_messages(struct list_head *messages)
{
	struct dmp_message *message, *next;

	list_for_each_entry_safe(message, next, messages, entry) {
		list_del(&message->entry);
		if (message->request)
			dmp_request_put(message->request);
		else
			kfree(message);
	}
}

/* There is something for the engine to fetch: it is told so, unless it knows. */
static void make_ready(struct dmp_end *end)
{
	struct dmp_context *context = end->context;

	lockdep_assert_held(&end->link->lock);
	if (end->ready || !end->peer || !context)
		return;
	end->ready = true;
	kref_get(&end->link->references);
	spin_lock(&context->ready_lock);
	list_add_tail(&end->ready_entry, &context->ready);
	spin_unlock(&context->ready_lock);
	dmaplane_look_soon(context->engine);
}

static void end_link(struct dmp_link *link, int errno)
{
	lockdep_assert_held(&link->lock);
	if (!link->over) {
		link->over = true;
		link->errno = errno;
	}
	make_ready(&link->ends[0]);
	make_ready(&link->ends[1]);
}

/*
 * Puts a message into the other's inbox: whether it will be heard, as far as is known. It is the inbox's then. NULL,
 * for which there was no memory, ends the link: what is said is never lost.
 */
static bool say(struct dmp_end *end, struct dmp_message *message)
{
	struct dmp_link *link = end->link;
	struct dmp_end *to = other(end);
	bool said = false;

	spin_lock(&link->lock);
	if (link->over) {
		/* Nobody listens. */
	} else if (!message) {
		end_link(link, -ENOMEM);
	} else if (to->inbox_count >= INBOX_MAX) {
		end_link(link, -ENOBUFS);
	} else {
		list_add_tail(&message->entry, &to->inbox);
		to->inbox_count++;
		make_ready(to);
		said = true;
	}
	spin_unlock(&link->lock);
	return said;
}

bool dmp_link_say(struct dmp_end *end, struct dmp_message *message)
{
	return say(end, message);
}

void dmp_link_put(struct dmp_end *end)
{
	kref_put(&end->link->references, dmp_link_last);
}

void dmaplane_glue_send(struct dmp_context *context, u32 peer, const u64 *words)
{
	/* A full memory cgroup must not cost a connection: what waits is bounded, and may be charged beyond it. */
	struct dmp_message *message = dmp_kmalloc(sizeof(*message), GFP_ATOMIC | __GFP_NOWARN | __GFP_ACCOUNT);

	if (message) {
		memcpy(message->words, words, sizeof(message->words));
		message->request = NULL;
	}
	if (!say(*dmp_end_at(context, peer), message))
		kfree(message);
}

/* Fetching. */

int dmaplane_glue_has_next(struct dmp_context *context)
{
	/* Partner: dmaplane_look_soon, behind which the holder of the baton looks again. */
	return !list_empty_careful(&context->ready);
}

/* How many messages of peers wait to be fetched. */
u32 dmp_link_messages(struct dmp_context *context)
{
	struct dmp_end *end;
	u32 messages = 0;

	spin_lock(&context->ready_lock);
	/* Being there an end holds its link. */
	list_for_each_entry(end, &context->ready, ready_entry)
		messages += READ_ONCE(end->inbox_count);
	spin_unlock(&context->ready_lock);
	return messages;
}

/* The number of a request that the engine hears of; its peer keeps to the window, so there is one. */
static u32 frame_for(struct dmp_end *end, struct dmp_request *request)
{
	u32 i;

	for (i = 0; i < end->window; i++) {
		u32 place = (end->next_frame + i) % end->window;

		if (!end->frames[place]) {
			end->frames[place] = request;
			end->next_frame = place + 1;
			return place + 1;
		}
	}
	WARN_ON_ONCE(1);
	return 0;
}

/* What an end that is ready has next. What nobody wants to hear is moved to `unheard`. */
static bool fetch(struct dmp_end *end, struct dmp_incoming *incoming, struct list_head *unheard)
{
	struct dmp_link *link = end->link;
	struct dmp_message *message;

	lockdep_assert_held(&link->lock);
	incoming->peer = end->peer;
	incoming->frame = 0;
	if (end->deaf) {
		list_splice_tail_init(&end->inbox, unheard);
		end->inbox_count = 0;
	}
	message = list_first_entry_or_null(&end->inbox, struct dmp_message, entry);
	if (message) {
		list_del(&message->entry);
		end->inbox_count--;
		incoming->kind = DMP_INCOMING_MESSAGE;
		memcpy(incoming->words, message->words, sizeof(incoming->words));
		if (message->request)
			incoming->frame = frame_for(end, message->request);
		else
			kfree(message);
		return true;
	}
	if (link->over && !end->told) {
		end->told = true;
		incoming->kind = DMP_INCOMING_GONE;
		incoming->errno = link->errno;
		return true;
	}
	return false;
}

int dmaplane_glue_next(struct dmp_context *context, struct dmp_incoming *incoming)
{
	LIST_HEAD(unheard);
	bool found = false;

	while (!found && !list_empty_careful(&context->ready)) {
		struct dmp_end *end;
		bool more;

		/* Only the holder of the baton takes ends off, which is who calls. */
		spin_lock(&context->ready_lock);
		end = list_first_entry_or_null(&context->ready, struct dmp_end, ready_entry);
		if (end)
			list_del_init(&end->ready_entry);
		spin_unlock(&context->ready_lock);
		if (!end)
			break;
		spin_lock(&end->link->lock);
		found = fetch(end, incoming, &unheard);
		more = !list_empty(&end->inbox) || (end->link->over && !end->told);
		if (more) {
			/* Behind the others. */
			spin_lock(&context->ready_lock);
			list_add_tail(&end->ready_entry, &context->ready);
			spin_unlock(&context->ready_lock);
		} else {
			end->ready = false;
		}
		spin_unlock(&end->link->lock);
		if (!more)
			kref_put(&end->link->references, dmp_link_last);
	}
	drop_messages(&unheard);
	return found;
}

struct dmp_request *dmp_link_frame(struct dmp_context *context, u32 peer, u32 frame)
{
	struct dmp_end *end = *dmp_end_at(context, peer);

	return frame ? end->frames[frame - 1] : NULL;
}

void dmaplane_glue_drop_frame(struct dmp_context *context, u32 peer, u32 frame)
{
	struct dmp_request *request = dmp_link_frame(context, peer, frame);

	if (!request)
		return;
	(*dmp_end_at(context, peer))->frames[frame - 1] = NULL;
	/* One that was refused: nobody touches it. */
	if (dmp_request_begin(request))
		dmp_request_end(request, 0, 0);
	dmp_request_put(request);
}

/* Beginning and end. */

void dmaplane_glue_adopt(struct dmp_context *context, u32 pending, u32 index, u64 peer)
{
	struct dmp_end *end = xa_erase(&context->pendings, pending);

	dmp_listener_heard(end);
	WRITE_ONCE(*dmp_end_at(context, index), end);
	spin_lock(&end->link->lock);
	end->peer = peer;
	if (!list_empty(&end->inbox) || end->link->over)
		make_ready(end);
	spin_unlock(&end->link->lock);
}

/* The engine is done with an end, or never has it: the link is over, and this side of it gone. */
void dmp_link_leave(struct dmp_end *end)
{
	struct dmp_link *link = end->link;
	struct dmp_context *context = end->context;
	LIST_HEAD(unheard);
	bool was_ready;
	u32 i;

	spin_lock(&link->lock);
	end->told = true;
	end_link(link, -ECONNRESET);
	was_ready = end->ready;
	if (was_ready) {
		/* On the list: only who holds the baton, as we do, takes an end off and has not put it back. */
		spin_lock(&context->ready_lock);
		list_del_init(&end->ready_entry);
		spin_unlock(&context->ready_lock);
		end->ready = false;
	}
	list_splice_tail_init(&end->inbox, &unheard);
	end->inbox_count = 0;
	end->context = NULL;
	spin_unlock(&link->lock);
	drop_messages(&unheard);
	for (i = 0; i < end->window; i++)
		if (end->frames[i]) {
			dmp_request_put(end->frames[i]);
			end->frames[i] = NULL;
		}
	if (was_ready)
		kref_put(&link->references, dmp_link_last);
	kref_put(&link->references, dmp_link_last);
	dmp_context_put(context);
}

void dmaplane_glue_reject(struct dmp_context *context, u32 pending)
{
	struct dmp_end *end = xa_erase(&context->pendings, pending);

	dmp_listener_heard(end);
	dmp_link_leave(end);
}

void dmaplane_glue_disconnect(struct dmp_context *context, u32 peer)
{
	struct dmp_end *end = *dmp_end_at(context, peer);

	spin_lock(&end->link->lock);
	end->deaf = true;
	end_link(end->link, -ECONNRESET);
	spin_unlock(&end->link->lock);
}

void dmaplane_glue_drop_peer(struct dmp_context *context, u32 peer)
{
	struct dmp_end *end = *dmp_end_at(context, peer);

	*dmp_end_at(context, peer) = NULL;
	dmp_link_leave(end);
}
