/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The Rust object: what it offers, and what it wants of the glue.
 *
 * Rules of every function stand in driver/object/src/{exports,posts,calls,lists,glue}.rs. The short of it:
 *
 * - dmaplane_run, prepare_sleep, awake, attach, detach, usage and the calls: process context, no lock of the glue held.
 *   -EAGAIN: somebody else runs the engine at this moment, call again.
 * - dmaplane_post_*: any context but NMI, any lock but those of dmaplane_glue_run_soon.
 * - dmaplane_glue_*: called by the holder of the baton in process context; they do not sleep.
 */
#ifndef DMAPLANE_ENGINE_H
#define DMAPLANE_ENGINE_H

#include <linux/build_bug.h>
#include <linux/types.h>

/* What the engine runs; opaque. */
struct dmp_engine;
/* The glue's side of a context; opaque to Rust. */
struct dmp_context;

struct dmp_setup {
	u64 buffer_bytes;
	u64 context[2];
	u64 token_key[2];
	u32 rings;
	u32 operations;
	u32 buffers;
	u32 lists;
	u32 leases;
	u32 imports;
	u32 peers;
	u32 listeners;
	u32 slots;
	u32 inbound_per_peer;
};

struct dmp_outcome {
	u64 word0;
	u64 word1;
	s32 result;
	u32 started;
};

#define DMP_ALLOC_HAS_NODE (1 << 0)
#define DMP_ALLOC_STRICT (1 << 1)
#define DMP_ALLOC_HUGE (1 << 2)
#define DMP_ALLOC_RECYCLE (1 << 3)

struct dmp_alloc {
	u64 length_bytes;
	u32 node;
	u32 flags;
};

struct dmp_post {
	u32 kind;
	u32 object;
	u64 offset;
	u64 length;
	u32 index_buffer;
	u32 notification_bytes;
	u64 index_offset;
	u64 notification_offset;
};

struct dmp_target {
	u32 kind;
	u32 object;
	u64 offset;
	u64 length;
};

/* What a peer says of itself. */
struct dmp_peer_info {
	u64 context[2];
	u32 window;
	u32 reserved;
};

#define DMP_INCOMING_MESSAGE 1
#define DMP_INCOMING_GONE 2

struct dmp_incoming {
	u64 peer;
	u64 words[8];
	u32 kind;
	u32 frame;
	s32 errno;
	u32 reserved;
};

/* A change of an operation. */
struct dmp_sighting {
	u64 op;
	u64 user_data;
	const char *state;
	u32 ring;
	u32 opcode;
	s32 result;
	u32 reserved;
};

/* One object of a context's: what its words are dmaplane_column_name tells. */
struct dmp_record {
	u64 handle;
	const char *state;
	u64 words[8];
	u32 index;
	u32 reserved;
};

/* Where a segment of a list lies. */
struct dmp_place {
	u64 offset;
	u32 buffer;
	u32 length_bytes;
};

#define DMP_OBJECT_BUFFER 0
#define DMP_OBJECT_LIST 1

struct dmp_usage {
	u64 refused;
	u64 breaches;
	u32 operations;
	u32 buffers;
	u32 lists;
	u32 leases;
	u32 imports;
	u32 peers;
	u32 inbound;
	u32 slots;
	u32 listeners;
	u32 awaiting_glue;
};

/* Bytes of Rust's, passed by value in two registers. */
struct dmp_bytes {
	void *start;
	u64 length;
};

/* A run of a list; 32 bytes, see Run in ring/src/abi/segment.rs. */
struct dmp_run;

static_assert(sizeof(struct dmp_setup) == 80);
static_assert(sizeof(struct dmp_outcome) == 24);
static_assert(sizeof(struct dmp_alloc) == 16);
static_assert(sizeof(struct dmp_post) == 48);
static_assert(sizeof(struct dmp_target) == 24);
static_assert(sizeof(struct dmp_usage) == 56);
static_assert(sizeof(struct dmp_peer_info) == 24);
static_assert(sizeof(struct dmp_incoming) == 88);
static_assert(sizeof(struct dmp_place) == 16);
static_assert(sizeof(struct dmp_sighting) == 40);
static_assert(sizeof(struct dmp_record) == 88);

/* What the Rust object offers. */
u32 dmaplane_engine_abi_version(void);
u64 dmaplane_context_bytes(const struct dmp_setup *setup);
struct dmp_engine *dmaplane_context_init(void *memory, u64 bytes, const struct dmp_setup *setup,
					 struct dmp_context *glue);
int dmaplane_context_destroy(struct dmp_engine *engine);
int dmaplane_ring_bytes(u32 sq_entries, u32 cq_entries, u64 *client_bytes, u64 *engine_bytes);
int dmaplane_attach_ring(struct dmp_engine *engine, void *client_area, void *engine_area, u32 sq_entries,
			 u32 cq_entries);
int dmaplane_detach_ring(struct dmp_engine *engine, u32 ring);
u32 dmaplane_ring_ready(void *client_area, void *engine_area, u32 sq_entries, u32 cq_entries);
int dmaplane_wait_begin(struct dmp_engine *engine, u32 ring);
void dmaplane_wait_end(struct dmp_engine *engine, u32 ring);
int dmaplane_run(struct dmp_engine *engine, u32 turns);
int dmaplane_prepare_sleep(struct dmp_engine *engine);
int dmaplane_awake(struct dmp_engine *engine);
void dmaplane_close(struct dmp_engine *engine);
int dmaplane_is_closed(struct dmp_engine *engine);
u64 dmaplane_next_deadline_ns(struct dmp_engine *engine);
int dmaplane_usage(struct dmp_engine *engine, struct dmp_usage *usage);

int dmaplane_next_record(struct dmp_engine *engine, u32 kind, u32 from, struct dmp_record *record);
const char *dmaplane_kind_name(u32 kind);
const char *dmaplane_column_name(u32 kind, u32 column);
const char *dmaplane_opcode_name(u32 opcode);

void dmaplane_post_finished(struct dmp_engine *engine, u64 op, s32 result, u64 word0, u64 word1);
void dmaplane_post_local_done(struct dmp_engine *engine, u64 op, s32 result, u32 checksum);
void dmaplane_post_transfer_done(struct dmp_engine *engine, u64 transfer, s32 result, u64 bytes, u32 checksum);
void dmaplane_post_connected(struct dmp_engine *engine, u64 op, u32 pending, const struct dmp_peer_info *info);
void dmaplane_post_incoming(struct dmp_engine *engine, u64 listener, u32 pending, const struct dmp_peer_info *info);
void dmaplane_look_soon(struct dmp_engine *engine);

int dmaplane_add_buffer(struct dmp_engine *engine, u64 length_bytes, void *object, u64 *buffer);
int dmaplane_add_slot(struct dmp_engine *engine, void *object, u64 *slot);
int dmaplane_take_slot(struct dmp_engine *engine, u64 slot, void **object);
int dmaplane_add_listener(struct dmp_engine *engine, void *object, u64 *handle);
int dmaplane_hold_buffer(struct dmp_engine *engine, u64 buffer, void **object);

u64 dmaplane_list_record_bytes(void);
void dmaplane_list_put(void *record, const struct dmp_run *run);
void dmaplane_list_get(const void *record, struct dmp_run *run);
u32 dmaplane_list_seal(void *records, u32 count, u32 first);
int dmaplane_list_locate(const void *records, u32 count, u32 segment, struct dmp_place *place);

/* What Rust wants of the glue. */
void dmaplane_glue_run_soon(struct dmp_context *context);
void dmaplane_glue_arm_timer(struct dmp_context *context, u64 deadline_ns);
void dmaplane_glue_wake_client(struct dmp_context *context, u32 ring);
void dmaplane_glue_closed(struct dmp_context *context);
void dmaplane_glue_bug(struct dmp_context *context, u32 what);
u64 dmaplane_glue_now_ns(struct dmp_context *context);
u64 dmaplane_glue_relax(struct dmp_context *context);

int dmaplane_glue_is_traced(struct dmp_context *context);
void dmaplane_glue_sighted(struct dmp_context *context, const struct dmp_sighting *sighting);
void dmaplane_glue_completed(struct dmp_context *context, u32 ring, u64 user_data, s32 result, u32 flags);
void dmaplane_glue_began(struct dmp_context *context, u32 op);
void dmaplane_glue_ended(struct dmp_context *context, u32 op, u32 opcode);
void dmaplane_glue_counted(struct dmp_context *context, u64 taken, u64 posted, u64 failed);

void dmaplane_glue_alloc(struct dmp_context *context, u64 op, u32 buffer, const struct dmp_alloc *request,
			 struct dmp_outcome *outcome);
void dmaplane_glue_free(struct dmp_context *context, u64 op, u32 buffer, struct dmp_outcome *outcome);
void dmaplane_glue_placement(struct dmp_context *context, u64 op, u32 buffer, u32 node,
			     struct dmp_outcome *outcome);
void dmaplane_glue_export(struct dmp_context *context, u64 op, u32 buffer, u32 slot, struct dmp_outcome *outcome);
void dmaplane_glue_close_slot(struct dmp_context *context, u32 slot);
void dmaplane_glue_sync(struct dmp_context *context, u64 op, u32 buffer, u32 end, struct dmp_outcome *outcome);
void dmaplane_glue_wait_slot(struct dmp_context *context, u64 op, u32 slot, struct dmp_outcome *outcome);
void dmaplane_glue_wait_word(struct dmp_context *context, u64 op, u32 buffer, u64 offset, u32 value,
			     struct dmp_outcome *outcome);
void dmaplane_glue_cancel_work(struct dmp_context *context, u64 op);
int dmaplane_glue_read_bytes(struct dmp_context *context, u32 buffer, u64 offset, struct dmp_bytes to);
int dmaplane_glue_write_bytes(struct dmp_context *context, u32 buffer, u64 offset, struct dmp_bytes from);

void dmaplane_glue_list_load(struct dmp_context *context, u64 op, u32 list, u32 buffer, u64 offset, u64 runs,
			     struct dmp_outcome *outcome);
int dmaplane_glue_list_run(struct dmp_context *context, u32 list, u32 run, struct dmp_run *to);
void dmaplane_glue_list_seal(struct dmp_context *context, u32 list);
void dmaplane_glue_list_drop(struct dmp_context *context, u32 list);

void dmaplane_glue_connect(struct dmp_context *context, u64 op, u32 buffer, u64 offset, u64 length,
			   struct dmp_outcome *outcome);
void dmaplane_glue_adopt(struct dmp_context *context, u32 pending, u32 index, u64 peer);
void dmaplane_glue_reject(struct dmp_context *context, u32 pending);
void dmaplane_glue_disconnect(struct dmp_context *context, u32 peer);
void dmaplane_glue_drop_peer(struct dmp_context *context, u32 peer);
void dmaplane_glue_close_listener(struct dmp_context *context, u32 listener);
void dmaplane_glue_send(struct dmp_context *context, u32 peer, const u64 *message);
int dmaplane_glue_next(struct dmp_context *context, struct dmp_incoming *incoming);
int dmaplane_glue_has_next(struct dmp_context *context);

int dmaplane_glue_post(struct dmp_context *context, u32 peer, u64 op, const u64 *request,
		       const struct dmp_post *post);
void dmaplane_glue_abandon(struct dmp_context *context, u64 op);
void dmaplane_glue_copy_in(struct dmp_context *context, u64 transfer, u32 peer, u32 frame,
			   const struct dmp_target *target, bool checksum, struct dmp_outcome *outcome);
void dmaplane_glue_serve(struct dmp_context *context, u64 transfer, u32 peer, u32 frame,
			 const struct dmp_target *source, struct dmp_outcome *outcome);
void dmaplane_glue_stop(struct dmp_context *context, u64 transfer);
int dmaplane_glue_deliver(struct dmp_context *context, u32 peer, u32 frame, u32 buffer, u64 offset, u32 length);
void dmaplane_glue_drop_frame(struct dmp_context *context, u32 peer, u32 frame);

void dmaplane_glue_put_buffer(struct dmp_context *context, u32 buffer, void *object);
void dmaplane_glue_put_slot(struct dmp_context *context, u32 slot, void *object);
void dmaplane_glue_put_listener(struct dmp_context *context, u32 listener, u64 handle, void *object);
void *dmaplane_glue_hold_buffer(struct dmp_context *context, u32 buffer);
void *dmaplane_glue_take_slot(struct dmp_context *context, u32 slot);

#endif
