/* SPDX-License-Identifier: (GPL-2.0 WITH Linux-syscall-note) OR MIT */
/*
 * What crosses /dev/dmaplane. Made of the types in ring/src/abi by `cargo xtask uapi`; do not edit.
 * What they mean stands in sqe-cqe-spec.md.
 */
#ifndef DMAPLANE_UAPI_H
#define DMAPLANE_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The version of all of this. */
#define DMAPLANE_ABI_VERSION 0u
#define DMAPLANE_RING_MAGIC 0x30525044u

/* What an SQE asks for. */
#define DMAPLANE_OP_NOP 0
#define DMAPLANE_OP_CANCEL 1
#define DMAPLANE_OP_TIMEOUT 2
#define DMAPLANE_OP_LINK_TIMEOUT 3
#define DMAPLANE_OP_WATCH 4
#define DMAPLANE_OP_WAIT 5
#define DMAPLANE_OP_QUERY 6
#define DMAPLANE_OP_ALLOC 16
#define DMAPLANE_OP_FREE 17
#define DMAPLANE_OP_PLACEMENT 18
#define DMAPLANE_OP_EXPORT_DMABUF 24
#define DMAPLANE_OP_SYNC 25
#define DMAPLANE_OP_LIST_PREPARE 32
#define DMAPLANE_OP_LIST_FREE 33
#define DMAPLANE_OP_LEASE_GRANT 40
#define DMAPLANE_OP_LEASE_EXPORT 41
#define DMAPLANE_OP_LEASE_IMPORT 42
#define DMAPLANE_OP_LEASE_RENEW 43
#define DMAPLANE_OP_LEASE_REVOKE 44
#define DMAPLANE_OP_IMPORT_RELEASE 45
#define DMAPLANE_OP_CONNECT 48
#define DMAPLANE_OP_ACCEPT 49
#define DMAPLANE_OP_DISCONNECT 50
#define DMAPLANE_OP_WRITE 51
#define DMAPLANE_OP_WRITE_IMM 52
#define DMAPLANE_OP_READ 53
#define DMAPLANE_OP_WRITE_LIST 54
#define DMAPLANE_OP_READ_LIST 55
#define DMAPLANE_OP_SEND 56
#define DMAPLANE_OP_RECV 57
#define DMAPLANE_OP_CREDIT_GRANT 64
#define DMAPLANE_OP_CREDIT_QUERY 65
#define DMAPLANE_OP_CREDIT_WATERMARKS 66

/* An SQE's flags. */
#define DMAPLANE_SQE_DRAIN 0x2u
#define DMAPLANE_SQE_LINK 0x4u
#define DMAPLANE_SQE_HARDLINK 0x8u
#define DMAPLANE_SQE_CQE_SKIP_SUCCESS 0x40u

/* A CQE's flags. */
#define DMAPLANE_CQE_MORE 0x2u
#define DMAPLANE_CQE_IMMEDIATE 0x10000u
#define DMAPLANE_CQE_PAYLOAD 0x20000u
#define DMAPLANE_CQE_UNVERIFIABLE 0x40000u
#define DMAPLANE_CQE_CHECKSUM 0x80000u

/* Flags of a ring's areas. */
#define DMAPLANE_RING_NEED_WAKEUP 0x1u
#define DMAPLANE_RING_CLOSED 0x2u
#define DMAPLANE_RING_CQ_BLOCKED 0x4u

/* Where words lie in the client's area, and its entries. */
#define DMAPLANE_CLIENT_SQ_TAIL 0
#define DMAPLANE_CLIENT_CQ_HEAD 128
#define DMAPLANE_CLIENT_FLAGS 256
#define DMAPLANE_CLIENT_SQES 4096

/* Where words lie in the engine's area, and its entries. */
#define DMAPLANE_ENGINE_MAGIC 0
#define DMAPLANE_ENGINE_VERSION 4
#define DMAPLANE_ENGINE_SQ_ENTRIES 8
#define DMAPLANE_ENGINE_CQ_ENTRIES 12
#define DMAPLANE_ENGINE_SQ_HEAD 128
#define DMAPLANE_ENGINE_CQ_TAIL 256
#define DMAPLANE_ENGINE_FLAGS 384
#define DMAPLANE_ENGINE_CQES 4096

/* Bounds of operations. */
#define DMAPLANE_MAX_OPERATION_BYTES 2147479552ull
#define DMAPLANE_MAX_LIST_SEGMENTS 1048576ull
#define DMAPLANE_MAX_SEND_BYTES 4096ull
#define DMAPLANE_MAX_NOTIFICATION_BYTES 256ull
#define DMAPLANE_MAX_TOKEN_BYTES 512ull

/* An SQE's op_flags; each opcode knows its own. */
#define DMAPLANE_OP_CANCEL_ALL 0x1u
#define DMAPLANE_OP_CANCEL_HANDLE 0x2u
#define DMAPLANE_OP_CANCEL_ANY 0x4u
#define DMAPLANE_OP_CANCEL_FORCE 0x8u
#define DMAPLANE_OP_TIMEOUT_ABSOLUTE 0x1u
#define DMAPLANE_OP_WAIT_WORD 0x1u
#define DMAPLANE_OP_ALLOC_NODE 0x1u
#define DMAPLANE_OP_ALLOC_STRICT 0x2u
#define DMAPLANE_OP_ALLOC_HUGE 0x4u
#define DMAPLANE_OP_ALLOC_RECYCLE 0x8u
#define DMAPLANE_OP_FREE_REVOKE 0x1u
#define DMAPLANE_OP_GRANT_PEER 0x10u
#define DMAPLANE_OP_REVOKE_NOW 0x1u
#define DMAPLANE_OP_NO_CREDIT_WAIT 0x1u
#define DMAPLANE_OP_LIST_NOTIFY 0x2u
#define DMAPLANE_OP_CHECKSUM 0x4u
#define DMAPLANE_OP_GRANT_SLOTS 0x1u
#define DMAPLANE_OP_SYNC_END 0x1u

/* What QUERY asks for. */
#define DMAPLANE_QUERY_EVENTS 0ull
#define DMAPLANE_QUERY_REFUSED 1ull
#define DMAPLANE_QUERY_IN_FLIGHT 2ull

/* Rights of a lease. */
#define DMAPLANE_RIGHT_READ 0x1u
#define DMAPLANE_RIGHT_WRITE 0x2u

/* A context's counters, and what follows them: a histogram an opcode, of powers of two of nanoseconds. */
#define DMAPLANE_COUNTERS_OFFSET 0ull
#define DMAPLANE_COUNTERS_BYTES 28672ull
#define DMAPLANE_COUNTERS_LATENCY 128ull
#define DMAPLANE_LATENCY_OPCODES 80ull
#define DMAPLANE_LATENCY_BUCKETS 40ull

/* Flags and features of a set-up, and flags of calls. */
#define DMAPLANE_PIN_READ_ONLY 0x1u
#define DMAPLANE_SETUP_POLLER 0x1u
#define DMAPLANE_SETUP_POLLER_CPU 0x2u
#define DMAPLANE_FEATURE_PLACEMENT 0x1u

struct dmaplane_sqe {
	__u8 opcode;
	__u8 flags;
	__u16 op_flags;
	__u32 arg32;
	__u64 local_offset;
	__u64 local;
	__u64 length;
	__u64 user_data;
	__u64 remote;
	__u64 remote_offset;
	__u64 arg64;
};

struct dmaplane_cqe {
	__u64 user_data;
	__s32 res;
	__u32 flags;
	__u64 word0;
	__u64 word1;
};

struct dmaplane_run {
	__u64 buffer;
	__u64 offset_bytes;
	__u64 stride_bytes;
	__u32 length_bytes;
	__u32 count;
	__u64 reserved;
};

struct dmaplane_index_pair {
	__u32 local;
	__u32 remote;
};

struct dmaplane_setup {
	__u32 abi_version;
	__u32 flags;
	__u32 features;
	__u32 poller_idle_us;
	__u32 poller_cpu;
	__u32 rings;
	__u32 operations;
	__u32 buffers;
	__u32 lists;
	__u32 leases;
	__u32 imports;
	__u32 peers;
	__u32 listeners;
	__u32 slots;
	__u32 inbound_per_peer;
	__u32 reserved0;
	__u64 buffer_bytes;
	__u64 memory_bytes;
	__u64 reserved[4];
};

struct dmaplane_ring {
	__u32 sq_entries;
	__u32 cq_entries;
	__u32 flags;
	__u32 index;
	__u64 client_bytes;
	__u64 engine_offset;
	__u64 engine_bytes;
	__u64 reserved[2];
};

struct dmaplane_enter {
	__u32 min_complete;
	__u32 flags;
	__u64 timeout_ns;
	__u64 signal_mask;
	__u32 signal_mask_bytes;
	__u32 reserved;
};

struct dmaplane_eventfd {
	__s32 fd;
	__u32 flags;
};

struct dmaplane_map {
	__u64 buffer;
	__u64 flags;
	__u64 offset;
	__u64 length_bytes;
};

struct dmaplane_close {
	__u64 flags;
	__u64 reserved;
};

struct dmaplane_import {
	__s32 fd;
	__u32 flags;
	__u64 buffer;
	__u64 length_bytes;
	__u64 reserved;
};

struct dmaplane_pin {
	__u64 address;
	__u64 length_bytes;
	__u32 flags;
	__u32 reserved;
	__u64 buffer;
};

struct dmaplane_slot {
	__s32 fd;
	__u32 flags;
	__u64 slot;
	__u64 reserved;
};

struct dmaplane_counters {
	__u64 sqes_taken;
	__u64 cqes_posted;
	__u64 cqes_failed;
	__u64 client_wakes;
	__u64 works;
	__u64 works_put_off;
	__u64 copies;
	__u64 copies_failed;
	__u64 bytes_in;
	__u64 bytes_out;
	__u64 reserved[6];
};

struct dmaplane_take {
	__u64 slot;
	__u64 flags;
};

struct dmaplane_listen {
	__u64 address;
	__u32 address_bytes;
	__u32 flags;
	__u64 listener;
	__u64 reserved;
};

/* Calls on a context; ENTER and EVENTFD are on a ring, CLOSE is on both. */
#define DMAPLANE_IOCTL_SETUP _IOWR(0xda, 0, struct dmaplane_setup)
#define DMAPLANE_IOCTL_RING _IOWR(0xda, 1, struct dmaplane_ring)
#define DMAPLANE_IOCTL_ENTER _IOWR(0xda, 2, struct dmaplane_enter)
#define DMAPLANE_IOCTL_MAP _IOWR(0xda, 3, struct dmaplane_map)
#define DMAPLANE_IOCTL_EVENTFD _IOWR(0xda, 4, struct dmaplane_eventfd)
#define DMAPLANE_IOCTL_LISTEN _IOWR(0xda, 5, struct dmaplane_listen)
#define DMAPLANE_IOCTL_CLOSE _IOWR(0xda, 6, struct dmaplane_close)
#define DMAPLANE_IOCTL_IMPORT _IOWR(0xda, 7, struct dmaplane_import)
#define DMAPLANE_IOCTL_PIN _IOWR(0xda, 8, struct dmaplane_pin)
#define DMAPLANE_IOCTL_SLOT _IOWR(0xda, 9, struct dmaplane_slot)
#define DMAPLANE_IOCTL_TAKE _IOWR(0xda, 10, struct dmaplane_take)

#if defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Static_assert(sizeof(struct dmaplane_sqe) == 64, "dmaplane_sqe");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, opcode) == 0 &&
		       sizeof(((struct dmaplane_sqe *)0)->opcode) == 1,
	       "dmaplane_sqe.opcode");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, flags) == 1 &&
		       sizeof(((struct dmaplane_sqe *)0)->flags) == 1,
	       "dmaplane_sqe.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, op_flags) == 2 &&
		       sizeof(((struct dmaplane_sqe *)0)->op_flags) == 2,
	       "dmaplane_sqe.op_flags");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, arg32) == 4 &&
		       sizeof(((struct dmaplane_sqe *)0)->arg32) == 4,
	       "dmaplane_sqe.arg32");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, local_offset) == 8 &&
		       sizeof(((struct dmaplane_sqe *)0)->local_offset) == 8,
	       "dmaplane_sqe.local_offset");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, local) == 16 &&
		       sizeof(((struct dmaplane_sqe *)0)->local) == 8,
	       "dmaplane_sqe.local");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, length) == 24 &&
		       sizeof(((struct dmaplane_sqe *)0)->length) == 8,
	       "dmaplane_sqe.length");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, user_data) == 32 &&
		       sizeof(((struct dmaplane_sqe *)0)->user_data) == 8,
	       "dmaplane_sqe.user_data");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, remote) == 40 &&
		       sizeof(((struct dmaplane_sqe *)0)->remote) == 8,
	       "dmaplane_sqe.remote");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, remote_offset) == 48 &&
		       sizeof(((struct dmaplane_sqe *)0)->remote_offset) == 8,
	       "dmaplane_sqe.remote_offset");
_Static_assert(__builtin_offsetof(struct dmaplane_sqe, arg64) == 56 &&
		       sizeof(((struct dmaplane_sqe *)0)->arg64) == 8,
	       "dmaplane_sqe.arg64");
_Static_assert(sizeof(struct dmaplane_cqe) == 32, "dmaplane_cqe");
_Static_assert(__builtin_offsetof(struct dmaplane_cqe, user_data) == 0 &&
		       sizeof(((struct dmaplane_cqe *)0)->user_data) == 8,
	       "dmaplane_cqe.user_data");
_Static_assert(__builtin_offsetof(struct dmaplane_cqe, res) == 8 &&
		       sizeof(((struct dmaplane_cqe *)0)->res) == 4,
	       "dmaplane_cqe.res");
_Static_assert(__builtin_offsetof(struct dmaplane_cqe, flags) == 12 &&
		       sizeof(((struct dmaplane_cqe *)0)->flags) == 4,
	       "dmaplane_cqe.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_cqe, word0) == 16 &&
		       sizeof(((struct dmaplane_cqe *)0)->word0) == 8,
	       "dmaplane_cqe.word0");
_Static_assert(__builtin_offsetof(struct dmaplane_cqe, word1) == 24 &&
		       sizeof(((struct dmaplane_cqe *)0)->word1) == 8,
	       "dmaplane_cqe.word1");
_Static_assert(sizeof(struct dmaplane_run) == 40, "dmaplane_run");
_Static_assert(__builtin_offsetof(struct dmaplane_run, buffer) == 0 &&
		       sizeof(((struct dmaplane_run *)0)->buffer) == 8,
	       "dmaplane_run.buffer");
_Static_assert(__builtin_offsetof(struct dmaplane_run, offset_bytes) == 8 &&
		       sizeof(((struct dmaplane_run *)0)->offset_bytes) == 8,
	       "dmaplane_run.offset_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_run, stride_bytes) == 16 &&
		       sizeof(((struct dmaplane_run *)0)->stride_bytes) == 8,
	       "dmaplane_run.stride_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_run, length_bytes) == 24 &&
		       sizeof(((struct dmaplane_run *)0)->length_bytes) == 4,
	       "dmaplane_run.length_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_run, count) == 28 &&
		       sizeof(((struct dmaplane_run *)0)->count) == 4,
	       "dmaplane_run.count");
_Static_assert(__builtin_offsetof(struct dmaplane_run, reserved) == 32 &&
		       sizeof(((struct dmaplane_run *)0)->reserved) == 8,
	       "dmaplane_run.reserved");
_Static_assert(sizeof(struct dmaplane_index_pair) == 8, "dmaplane_index_pair");
_Static_assert(__builtin_offsetof(struct dmaplane_index_pair, local) == 0 &&
		       sizeof(((struct dmaplane_index_pair *)0)->local) == 4,
	       "dmaplane_index_pair.local");
_Static_assert(__builtin_offsetof(struct dmaplane_index_pair, remote) == 4 &&
		       sizeof(((struct dmaplane_index_pair *)0)->remote) == 4,
	       "dmaplane_index_pair.remote");
_Static_assert(sizeof(struct dmaplane_setup) == 112, "dmaplane_setup");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, abi_version) == 0 &&
		       sizeof(((struct dmaplane_setup *)0)->abi_version) == 4,
	       "dmaplane_setup.abi_version");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, flags) == 4 &&
		       sizeof(((struct dmaplane_setup *)0)->flags) == 4,
	       "dmaplane_setup.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, features) == 8 &&
		       sizeof(((struct dmaplane_setup *)0)->features) == 4,
	       "dmaplane_setup.features");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, poller_idle_us) == 12 &&
		       sizeof(((struct dmaplane_setup *)0)->poller_idle_us) == 4,
	       "dmaplane_setup.poller_idle_us");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, poller_cpu) == 16 &&
		       sizeof(((struct dmaplane_setup *)0)->poller_cpu) == 4,
	       "dmaplane_setup.poller_cpu");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, rings) == 20 &&
		       sizeof(((struct dmaplane_setup *)0)->rings) == 4,
	       "dmaplane_setup.rings");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, operations) == 24 &&
		       sizeof(((struct dmaplane_setup *)0)->operations) == 4,
	       "dmaplane_setup.operations");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, buffers) == 28 &&
		       sizeof(((struct dmaplane_setup *)0)->buffers) == 4,
	       "dmaplane_setup.buffers");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, lists) == 32 &&
		       sizeof(((struct dmaplane_setup *)0)->lists) == 4,
	       "dmaplane_setup.lists");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, leases) == 36 &&
		       sizeof(((struct dmaplane_setup *)0)->leases) == 4,
	       "dmaplane_setup.leases");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, imports) == 40 &&
		       sizeof(((struct dmaplane_setup *)0)->imports) == 4,
	       "dmaplane_setup.imports");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, peers) == 44 &&
		       sizeof(((struct dmaplane_setup *)0)->peers) == 4,
	       "dmaplane_setup.peers");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, listeners) == 48 &&
		       sizeof(((struct dmaplane_setup *)0)->listeners) == 4,
	       "dmaplane_setup.listeners");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, slots) == 52 &&
		       sizeof(((struct dmaplane_setup *)0)->slots) == 4,
	       "dmaplane_setup.slots");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, inbound_per_peer) == 56 &&
		       sizeof(((struct dmaplane_setup *)0)->inbound_per_peer) == 4,
	       "dmaplane_setup.inbound_per_peer");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, reserved0) == 60 &&
		       sizeof(((struct dmaplane_setup *)0)->reserved0) == 4,
	       "dmaplane_setup.reserved0");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, buffer_bytes) == 64 &&
		       sizeof(((struct dmaplane_setup *)0)->buffer_bytes) == 8,
	       "dmaplane_setup.buffer_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, memory_bytes) == 72 &&
		       sizeof(((struct dmaplane_setup *)0)->memory_bytes) == 8,
	       "dmaplane_setup.memory_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_setup, reserved) == 80 &&
		       sizeof(((struct dmaplane_setup *)0)->reserved) == 32,
	       "dmaplane_setup.reserved");
_Static_assert(sizeof(struct dmaplane_ring) == 56, "dmaplane_ring");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, sq_entries) == 0 &&
		       sizeof(((struct dmaplane_ring *)0)->sq_entries) == 4,
	       "dmaplane_ring.sq_entries");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, cq_entries) == 4 &&
		       sizeof(((struct dmaplane_ring *)0)->cq_entries) == 4,
	       "dmaplane_ring.cq_entries");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, flags) == 8 &&
		       sizeof(((struct dmaplane_ring *)0)->flags) == 4,
	       "dmaplane_ring.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, index) == 12 &&
		       sizeof(((struct dmaplane_ring *)0)->index) == 4,
	       "dmaplane_ring.index");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, client_bytes) == 16 &&
		       sizeof(((struct dmaplane_ring *)0)->client_bytes) == 8,
	       "dmaplane_ring.client_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, engine_offset) == 24 &&
		       sizeof(((struct dmaplane_ring *)0)->engine_offset) == 8,
	       "dmaplane_ring.engine_offset");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, engine_bytes) == 32 &&
		       sizeof(((struct dmaplane_ring *)0)->engine_bytes) == 8,
	       "dmaplane_ring.engine_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_ring, reserved) == 40 &&
		       sizeof(((struct dmaplane_ring *)0)->reserved) == 16,
	       "dmaplane_ring.reserved");
_Static_assert(sizeof(struct dmaplane_enter) == 32, "dmaplane_enter");
_Static_assert(__builtin_offsetof(struct dmaplane_enter, min_complete) == 0 &&
		       sizeof(((struct dmaplane_enter *)0)->min_complete) == 4,
	       "dmaplane_enter.min_complete");
_Static_assert(__builtin_offsetof(struct dmaplane_enter, flags) == 4 &&
		       sizeof(((struct dmaplane_enter *)0)->flags) == 4,
	       "dmaplane_enter.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_enter, timeout_ns) == 8 &&
		       sizeof(((struct dmaplane_enter *)0)->timeout_ns) == 8,
	       "dmaplane_enter.timeout_ns");
_Static_assert(__builtin_offsetof(struct dmaplane_enter, signal_mask) == 16 &&
		       sizeof(((struct dmaplane_enter *)0)->signal_mask) == 8,
	       "dmaplane_enter.signal_mask");
_Static_assert(__builtin_offsetof(struct dmaplane_enter, signal_mask_bytes) == 24 &&
		       sizeof(((struct dmaplane_enter *)0)->signal_mask_bytes) == 4,
	       "dmaplane_enter.signal_mask_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_enter, reserved) == 28 &&
		       sizeof(((struct dmaplane_enter *)0)->reserved) == 4,
	       "dmaplane_enter.reserved");
_Static_assert(sizeof(struct dmaplane_eventfd) == 8, "dmaplane_eventfd");
_Static_assert(__builtin_offsetof(struct dmaplane_eventfd, fd) == 0 &&
		       sizeof(((struct dmaplane_eventfd *)0)->fd) == 4,
	       "dmaplane_eventfd.fd");
_Static_assert(__builtin_offsetof(struct dmaplane_eventfd, flags) == 4 &&
		       sizeof(((struct dmaplane_eventfd *)0)->flags) == 4,
	       "dmaplane_eventfd.flags");
_Static_assert(sizeof(struct dmaplane_map) == 32, "dmaplane_map");
_Static_assert(__builtin_offsetof(struct dmaplane_map, buffer) == 0 &&
		       sizeof(((struct dmaplane_map *)0)->buffer) == 8,
	       "dmaplane_map.buffer");
_Static_assert(__builtin_offsetof(struct dmaplane_map, flags) == 8 &&
		       sizeof(((struct dmaplane_map *)0)->flags) == 8,
	       "dmaplane_map.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_map, offset) == 16 &&
		       sizeof(((struct dmaplane_map *)0)->offset) == 8,
	       "dmaplane_map.offset");
_Static_assert(__builtin_offsetof(struct dmaplane_map, length_bytes) == 24 &&
		       sizeof(((struct dmaplane_map *)0)->length_bytes) == 8,
	       "dmaplane_map.length_bytes");
_Static_assert(sizeof(struct dmaplane_close) == 16, "dmaplane_close");
_Static_assert(__builtin_offsetof(struct dmaplane_close, flags) == 0 &&
		       sizeof(((struct dmaplane_close *)0)->flags) == 8,
	       "dmaplane_close.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_close, reserved) == 8 &&
		       sizeof(((struct dmaplane_close *)0)->reserved) == 8,
	       "dmaplane_close.reserved");
_Static_assert(sizeof(struct dmaplane_import) == 32, "dmaplane_import");
_Static_assert(__builtin_offsetof(struct dmaplane_import, fd) == 0 &&
		       sizeof(((struct dmaplane_import *)0)->fd) == 4,
	       "dmaplane_import.fd");
_Static_assert(__builtin_offsetof(struct dmaplane_import, flags) == 4 &&
		       sizeof(((struct dmaplane_import *)0)->flags) == 4,
	       "dmaplane_import.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_import, buffer) == 8 &&
		       sizeof(((struct dmaplane_import *)0)->buffer) == 8,
	       "dmaplane_import.buffer");
_Static_assert(__builtin_offsetof(struct dmaplane_import, length_bytes) == 16 &&
		       sizeof(((struct dmaplane_import *)0)->length_bytes) == 8,
	       "dmaplane_import.length_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_import, reserved) == 24 &&
		       sizeof(((struct dmaplane_import *)0)->reserved) == 8,
	       "dmaplane_import.reserved");
_Static_assert(sizeof(struct dmaplane_pin) == 32, "dmaplane_pin");
_Static_assert(__builtin_offsetof(struct dmaplane_pin, address) == 0 &&
		       sizeof(((struct dmaplane_pin *)0)->address) == 8,
	       "dmaplane_pin.address");
_Static_assert(__builtin_offsetof(struct dmaplane_pin, length_bytes) == 8 &&
		       sizeof(((struct dmaplane_pin *)0)->length_bytes) == 8,
	       "dmaplane_pin.length_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_pin, flags) == 16 &&
		       sizeof(((struct dmaplane_pin *)0)->flags) == 4,
	       "dmaplane_pin.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_pin, reserved) == 20 &&
		       sizeof(((struct dmaplane_pin *)0)->reserved) == 4,
	       "dmaplane_pin.reserved");
_Static_assert(__builtin_offsetof(struct dmaplane_pin, buffer) == 24 &&
		       sizeof(((struct dmaplane_pin *)0)->buffer) == 8,
	       "dmaplane_pin.buffer");
_Static_assert(sizeof(struct dmaplane_slot) == 24, "dmaplane_slot");
_Static_assert(__builtin_offsetof(struct dmaplane_slot, fd) == 0 &&
		       sizeof(((struct dmaplane_slot *)0)->fd) == 4,
	       "dmaplane_slot.fd");
_Static_assert(__builtin_offsetof(struct dmaplane_slot, flags) == 4 &&
		       sizeof(((struct dmaplane_slot *)0)->flags) == 4,
	       "dmaplane_slot.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_slot, slot) == 8 &&
		       sizeof(((struct dmaplane_slot *)0)->slot) == 8,
	       "dmaplane_slot.slot");
_Static_assert(__builtin_offsetof(struct dmaplane_slot, reserved) == 16 &&
		       sizeof(((struct dmaplane_slot *)0)->reserved) == 8,
	       "dmaplane_slot.reserved");
_Static_assert(sizeof(struct dmaplane_counters) == 128, "dmaplane_counters");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, sqes_taken) == 0 &&
		       sizeof(((struct dmaplane_counters *)0)->sqes_taken) == 8,
	       "dmaplane_counters.sqes_taken");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, cqes_posted) == 8 &&
		       sizeof(((struct dmaplane_counters *)0)->cqes_posted) == 8,
	       "dmaplane_counters.cqes_posted");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, cqes_failed) == 16 &&
		       sizeof(((struct dmaplane_counters *)0)->cqes_failed) == 8,
	       "dmaplane_counters.cqes_failed");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, client_wakes) == 24 &&
		       sizeof(((struct dmaplane_counters *)0)->client_wakes) == 8,
	       "dmaplane_counters.client_wakes");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, works) == 32 &&
		       sizeof(((struct dmaplane_counters *)0)->works) == 8,
	       "dmaplane_counters.works");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, works_put_off) == 40 &&
		       sizeof(((struct dmaplane_counters *)0)->works_put_off) == 8,
	       "dmaplane_counters.works_put_off");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, copies) == 48 &&
		       sizeof(((struct dmaplane_counters *)0)->copies) == 8,
	       "dmaplane_counters.copies");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, copies_failed) == 56 &&
		       sizeof(((struct dmaplane_counters *)0)->copies_failed) == 8,
	       "dmaplane_counters.copies_failed");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, bytes_in) == 64 &&
		       sizeof(((struct dmaplane_counters *)0)->bytes_in) == 8,
	       "dmaplane_counters.bytes_in");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, bytes_out) == 72 &&
		       sizeof(((struct dmaplane_counters *)0)->bytes_out) == 8,
	       "dmaplane_counters.bytes_out");
_Static_assert(__builtin_offsetof(struct dmaplane_counters, reserved) == 80 &&
		       sizeof(((struct dmaplane_counters *)0)->reserved) == 48,
	       "dmaplane_counters.reserved");
_Static_assert(sizeof(struct dmaplane_take) == 16, "dmaplane_take");
_Static_assert(__builtin_offsetof(struct dmaplane_take, slot) == 0 &&
		       sizeof(((struct dmaplane_take *)0)->slot) == 8,
	       "dmaplane_take.slot");
_Static_assert(__builtin_offsetof(struct dmaplane_take, flags) == 8 &&
		       sizeof(((struct dmaplane_take *)0)->flags) == 8,
	       "dmaplane_take.flags");
_Static_assert(sizeof(struct dmaplane_listen) == 32, "dmaplane_listen");
_Static_assert(__builtin_offsetof(struct dmaplane_listen, address) == 0 &&
		       sizeof(((struct dmaplane_listen *)0)->address) == 8,
	       "dmaplane_listen.address");
_Static_assert(__builtin_offsetof(struct dmaplane_listen, address_bytes) == 8 &&
		       sizeof(((struct dmaplane_listen *)0)->address_bytes) == 4,
	       "dmaplane_listen.address_bytes");
_Static_assert(__builtin_offsetof(struct dmaplane_listen, flags) == 12 &&
		       sizeof(((struct dmaplane_listen *)0)->flags) == 4,
	       "dmaplane_listen.flags");
_Static_assert(__builtin_offsetof(struct dmaplane_listen, listener) == 16 &&
		       sizeof(((struct dmaplane_listen *)0)->listener) == 8,
	       "dmaplane_listen.listener");
_Static_assert(__builtin_offsetof(struct dmaplane_listen, reserved) == 24 &&
		       sizeof(((struct dmaplane_listen *)0)->reserved) == 8,
	       "dmaplane_listen.reserved");
_Static_assert(DMAPLANE_IOCTL_SETUP == 0xc070da00u, "SETUP");
_Static_assert(DMAPLANE_IOCTL_RING == 0xc038da01u, "RING");
_Static_assert(DMAPLANE_IOCTL_ENTER == 0xc020da02u, "ENTER");
_Static_assert(DMAPLANE_IOCTL_MAP == 0xc020da03u, "MAP");
_Static_assert(DMAPLANE_IOCTL_EVENTFD == 0xc008da04u, "EVENTFD");
_Static_assert(DMAPLANE_IOCTL_LISTEN == 0xc020da05u, "LISTEN");
_Static_assert(DMAPLANE_IOCTL_CLOSE == 0xc010da06u, "CLOSE");
_Static_assert(DMAPLANE_IOCTL_IMPORT == 0xc020da07u, "IMPORT");
_Static_assert(DMAPLANE_IOCTL_PIN == 0xc020da08u, "PIN");
_Static_assert(DMAPLANE_IOCTL_SLOT == 0xc018da09u, "SLOT");
_Static_assert(DMAPLANE_IOCTL_TAKE == 0xc010da0au, "TAKE");
#endif

#endif
