// SPDX-License-Identifier: GPL-2.0
/*
 * Names at which contexts listen, and connecting to them (clauses LOC-1 to LOC-3).
 *
 * A name belongs to a network namespace, as an abstract socket's does, and joins contexts of one user.
 *
 * Locks: names_lock, under which events may be posted.
 */
#include "link.h"

#include <linux/cred.h>
#include <linux/jhash.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <net/net_namespace.h>

/* How every address begins. */
#define FABRIC "local:"
/* Bytes of an address at most: clause PEER-1. */
#define ADDRESS_MAX 255
/* Connections that wait at one listener as events (clause HOST-14). */
#define WAITING_MAX 32

struct dmp_listener {
	/* By the engine, until it closes the listener, and by each end that came through it and was not heard of. */
	struct kref references;
	/* Held while the listener is in the list of names. */
	struct dmp_context *context;
	/* The engine's handle; 0 until it has one. Guarded by names_lock. */
	u64 handle;
	atomic_t waiting;
	struct hlist_node entry;
	u32 length;
	char address[];
};

static DEFINE_SPINLOCK(names_lock);
/* By the bytes of the address. */
static struct hlist_head names[1024];
/* Nobody can choose addresses that come to the same place. */
static u32 names_seed __ro_after_init;

void __init dmp_names_init(void)
{
	names_seed = get_random_u32();
}

static struct hlist_head *names_like(const char *address, u32 length)
{
	return &names[jhash(address, length, names_seed) % ARRAY_SIZE(names)];
}

static void dmp_listener_free(struct kref *references)
{
	kfree(container_of(references, struct dmp_listener, references));
	atomic_long_dec(&dmp_accounts.listeners);
}

/* An incoming end has been adopted or rejected. */
void dmp_listener_heard(struct dmp_end *end)
{
	struct dmp_listener *listener = end->listener;

	end->listener = NULL;
	if (!listener)
		return;
	atomic_dec(&listener->waiting);
	kref_put(&listener->references, dmp_listener_free);
}

static bool is_address(const char *address, u32 length)
{
	return length > strlen(FABRIC) && length <= ADDRESS_MAX && !memcmp(address, FABRIC, strlen(FABRIC));
}

/* Who listens there, as this context sees it. */
static struct dmp_listener *find(struct dmp_context *context, const char *address, u32 length)
{
	struct dmp_listener *listener;

	lockdep_assert_held(&names_lock);
	hlist_for_each_entry(listener, names_like(address, length), entry)
		if (listener->length == length && !memcmp(listener->address, address, length) &&
		    net_eq(listener->context->network, context->network))
			return listener;
	return NULL;
}

static struct dmp_listener *listener_new(struct dmp_context *context, const struct dmaplane_listen *arguments)
{
	struct dmp_listener *listener;

	if (!arguments->address_bytes || arguments->address_bytes > ADDRESS_MAX)
		return ERR_PTR(-EINVAL);
	listener = dmp_kzalloc(sizeof(*listener) + arguments->address_bytes, DMP_GFP);
	if (!listener)
		return ERR_PTR(-ENOMEM);
	listener->length = arguments->address_bytes;
	if (dmp_copy_from_user(listener->address, u64_to_user_ptr(arguments->address), listener->length)) {
		kfree(listener);
		return ERR_PTR(-EFAULT);
	}
	if (!is_address(listener->address, listener->length)) {
		kfree(listener);
		return ERR_PTR(-EINVAL);
	}
	kref_init(&listener->references);
	atomic_long_inc(&dmp_accounts.listeners);
	listener->context = context;
	return listener;
}

/* Takes the name; nobody reaches it before it has a handle. */
static int take_name(struct dmp_listener *listener)
{
	int error = -EADDRINUSE;

	spin_lock(&names_lock);
	if (!find(listener->context, listener->address, listener->length)) {
		kref_get(&listener->context->references);
		hlist_add_head(&listener->entry, names_like(listener->address, listener->length));
		error = 0;
	}
	spin_unlock(&names_lock);
	return error;
}

static void give_name_back(struct dmp_listener *listener)
{
	spin_lock(&names_lock);
	hlist_del(&listener->entry);
	listener->handle = 0;
	spin_unlock(&names_lock);
	dmp_context_put(listener->context);
	kref_put(&listener->references, dmp_listener_free);
}

int dmp_listen(struct dmp_context *context, struct dmaplane_listen *arguments)
{
	struct dmp_listener *listener;
	int error;

	if (arguments->flags || arguments->listener || arguments->reserved)
		return -EINVAL;
	listener = listener_new(context, arguments);
	if (IS_ERR(listener))
		return PTR_ERR(listener);
	error = take_name(listener);
	if (error) {
		kref_put(&listener->references, dmp_listener_free);
		return error;
	}
	error = dmp_until_free(context, dmaplane_add_listener(context->engine, listener, &arguments->listener));
	if (error)
		give_name_back(listener);
	return error;
}

void dmaplane_glue_put_listener(struct dmp_context *context, u32 index, u64 handle, void *object)
{
	struct dmp_listener *listener = object;

	context->listeners[index] = listener;
	spin_lock(&names_lock);
	listener->handle = handle;
	spin_unlock(&names_lock);
}

void dmaplane_glue_close_listener(struct dmp_context *context, u32 index)
{
	struct dmp_listener *listener = context->listeners[index];

	context->listeners[index] = NULL;
	give_name_back(listener);
}

/* Connecting. */

struct dmp_connect_work {
	struct dmp_work work;
	u32 length;
	char address[ADDRESS_MAX];
};

static struct dmp_peer_info info_of(struct dmp_context *context)
{
	struct dmp_peer_info info = {
		.context = { context->name[0], context->name[1] },
		.window = context->limits.inbound_per_peer,
	};

	return info;
}

/* Makes an end known to its context as pending, which the context is held for. */
static int make_pending(struct dmp_end *end, u32 *pending)
{
	int error = dmp_xa_alloc(&end->context->pendings, pending, end, xa_limit_31b, DMP_GFP);

	if (!error)
		kref_get(&end->context->references);
	return error;
}

/* Whether the listener is still there, and takes one more; then it has been told. */
static int tell_listener(struct dmp_listener *listener, struct dmp_end *end, u32 pending,
			 const struct dmp_peer_info *info)
{
	int error = -ECONNREFUSED;

	spin_lock(&names_lock);
	/* Guarded by the lock: the engine has not closed it, so it lives, and will hear of this. */
	if (listener->handle && atomic_add_unless(&listener->waiting, 1, WAITING_MAX)) {
		kref_get(&listener->references);
		end->listener = listener;
		dmaplane_post_incoming(listener->context->engine, listener->handle, pending, info);
		error = 0;
	}
	spin_unlock(&names_lock);
	return error;
}

/* Makes the link and tells both sides. */
static int join(struct dmp_context *context, struct dmp_listener *listener, u64 op)
{
	struct dmp_peer_info ours = info_of(context), theirs = info_of(listener->context);
	struct dmp_link *link = dmp_link_new(context, listener->context);
	u32 pending, peer_pending;
	int error;

	if (!link)
		return -ENOMEM;
	error = make_pending(&link->ends[0], &pending);
	if (error) {
		dmp_link_free(link);
		return error;
	}
	error = make_pending(&link->ends[1], &peer_pending);
	if (error) {
		xa_erase(&context->pendings, pending);
		dmp_context_put(context);
		dmp_link_free(link);
		return error;
	}
	error = tell_listener(listener, &link->ends[1], peer_pending, &ours);
	if (error) {
		xa_erase(&listener->context->pendings, peer_pending);
		dmp_link_leave(&link->ends[1]);
		xa_erase(&context->pendings, pending);
		dmp_link_leave(&link->ends[0]);
		return error;
	}
	dmaplane_post_connected(context->engine, op, pending, &theirs);
	return 0;
}

static int connect(struct dmp_work *item, u64 *word0, u64 *word1)
{
	struct dmp_connect_work *work = container_of(item, struct dmp_connect_work, work);
	struct dmp_context *context = item->context;
	struct dmp_listener *listener;
	int error = -ECONNREFUSED;

	spin_lock(&names_lock);
	listener = find(context, work->address, work->length);
	if (listener && !uid_eq(listener->context->user, context->user)) {
		listener = NULL;
		error = -EACCES;
	}
	if (listener) {
		kref_get(&listener->references);
		/* While we may look at it, whoever closes the listener. */
		kref_get(&listener->context->references);
	}
	spin_unlock(&names_lock);
	if (!listener)
		return error;
	error = join(context, listener, item->op);
	dmp_context_put(listener->context);
	kref_put(&listener->references, dmp_listener_free);
	return error;
}

/* It ends by the connection, or by an error. */
static void connect_ended(struct dmp_work *work, int result, u64 word0, u64 word1)
{
	if (result)
		dmaplane_post_finished(work->context->engine, work->op, result, 0, 0);
}

void dmaplane_glue_connect(struct dmp_context *context, u64 op, u32 buffer, u64 offset, u64 length,
			   struct dmp_outcome *outcome)
{
	struct dmp_connect_work *work = dmp_kzalloc(sizeof(*work), DMP_GFP_NOWAIT);

	if (work) {
		struct dmp_bytes to = { .start = work->address, .length = length };

		work->length = length;
		outcome->result = length > ADDRESS_MAX ? -EMSGSIZE : dmaplane_glue_read_bytes(context, buffer, offset, to);
		if (!outcome->result && !is_address(work->address, work->length))
			outcome->result = -EINVAL;
		if (outcome->result) {
			kfree(work);
			return;
		}
		work->work.end = connect_ended;
	}
	dmp_work_start(&work->work, context, op, connect, outcome);
}
