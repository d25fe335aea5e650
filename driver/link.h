/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two contexts that are peers (clauses LOC-1 to LOC-8): link.c makes and ends links and carries messages, listen.c
 * brings two contexts together, request.c has what a request shows of its side, copy.c moves the bytes.
 *
 * Both engines are the same verified code, so neither is mistrusted: a request's index is right, a window is kept. What
 * clients wrote into lists and index pairs is checked all the same, each by the side that it belongs to.
 */
#ifndef DMAPLANE_LINK_H
#define DMAPLANE_LINK_H

#include "dmaplane.h"

#include <linux/nospec.h>

/* 64-bit words of a message: WIRE_WORDS of engine/src/message.rs. */
#define DMP_WIRE_WORDS 8

struct dmp_listener;
struct dmp_request;

struct dmp_message {
	struct list_head entry;
	u64 words[DMP_WIRE_WORDS];
	/* What the message lies in, and travels with it; NULL where it stands alone. */
	struct dmp_request *request;
};

/* One side of a link. */
struct dmp_end {
	struct dmp_link *link;
	/* Held from the beginning until the engine has rejected or dropped it; then NULL. Guarded by link->lock. */
	struct dmp_context *context;
	/* The listener that it came through, until it is adopted or rejected. */
	struct dmp_listener *listener;
	/* The engine's handle; 0 until it is adopted. Guarded by link->lock. */
	u64 peer;
	/* What the other side has said, oldest first, and how much. Guarded by link->lock. */
	struct list_head inbox;
	u32 inbox_count;
	/* On its context's list of ends that have something, or just taken from it; holds the link. */
	bool ready;
	struct list_head ready_entry;
	/* This side has ended the link: what the other has said is of no interest. */
	bool deaf;
	/* The engine has been told that the link is over. */
	bool told;
	/* Requests that the engine has heard of and not dropped, by number less one; touched by the baton's holder only. */
	u32 window;
	/* Where the search for a free number begins. */
	u32 next_frame;
	struct dmp_request **frames;
};

struct dmp_link {
	/* By each end until its engine has done with it, by each that is ready, and by work that is to say something. */
	struct kref references;
	spinlock_t lock;
	/* Nothing more is said; and why, for who has not ended it. */
	bool over;
	int errno;
	struct dmp_end ends[2];
};

/* A segment of ours and one of the peer's that are to be the same bytes. */
struct dmp_piece {
	u64 offset;
	u64 peer_offset;
	u32 buffer;
	u32 peer_buffer;
	u32 length_bytes;
	/* Number in the peer's list, until `peer_buffer` and `peer_offset` are found. */
	u32 peer_segment;
};

enum dmp_request_state {
	/* A worker of its own side looks its list up. */
	DMP_REQUEST_PREPARED,
	/* Sent, and not begun. */
	DMP_REQUEST_WAITS,
	/* The peer's side copies. */
	DMP_REQUEST_COPIED,
	/* Its side has been told that nothing of it is touched any more. */
	DMP_REQUEST_OVER,
};

/* A request on its way, and what it touches on the side that makes it. */
struct dmp_request {
	/* By its own side's table until it is over, and by who is to hear or has heard of it. */
	struct kref references;
	spinlock_t lock;
	/* Guarded by `lock`. */
	enum dmp_request_state state;
	/* Its own side wants it over: who copies looks between slices. */
	bool stopped;
	/* The work that would end it then, if there is one. */
	struct dmp_work *work;
	/* Held until it is over. */
	struct dmp_context *owner;
	u64 op;
	/* In the owner's table of requests, guarded by its requests_lock. */
	struct hlist_node entry;
	/* Of a range: where. Held until it is over. */
	struct dmp_memory *memory;
	u64 offset;
	/* Of a list: how many, checked on its own side. */
	struct dmp_piece *pieces;
	u32 nr_pieces;
	struct dmp_message message;
	/* What the receiver is to be given. */
	u32 payload_bytes;
	u8 payload[];
};

/* A place of the table of peers: the engine's index, under speculation a user's number (clause SEC-3). */
static inline struct dmp_end **dmp_end_at(struct dmp_context *context, u32 peer)
{
	return &context->peers[array_index_nospec(peer, context->limits.peers)];
}

/* link.c */
struct dmp_link *dmp_link_new(struct dmp_context *first, struct dmp_context *second);
void dmp_link_free(struct dmp_link *link);
void dmp_link_leave(struct dmp_end *end);
bool dmp_link_say(struct dmp_end *end, struct dmp_message *message);
void dmp_link_put(struct dmp_end *end);
u32 dmp_link_messages(struct dmp_context *context);
struct dmp_request *dmp_link_frame(struct dmp_context *context, u32 peer, u32 frame);

/* listen.c */
void dmp_listener_heard(struct dmp_end *end);

/* request.c */
void dmp_request_put(struct dmp_request *request);
bool dmp_request_begin(struct dmp_request *request);
void dmp_request_hurried(struct dmp_request *request, struct dmp_work *work);
void dmp_request_unhurried(struct dmp_request *request);
void dmp_request_end(struct dmp_request *request, int result, u32 checksum);

#endif
