//! Limits that the ABI fixes (clause LIM-1). Limits that a context chooses are parameters of the engine.

/// ABI version. It stays 0, free to change, until RDMA has run on it.
pub const ABI_VERSION: u32 = 0;
/// First word of a ring's engine area: "DPR0" in memory order.
pub const RING_MAGIC: u32 = u32::from_le_bytes(*b"DPR0");
/// Most entries in either queue of a ring; a power of two.
pub const MAX_RING_ENTRIES: u32 = 1 << 15;
/// Longest chain of linked SQEs; a longer one is refused whole with -EINVAL.
pub const MAX_CHAIN: usize = 32;
/// Most bytes one operation moves, so that `res` can hold the count: Linux's own bound for one read or write.
pub const MAX_OPERATION_BYTES: u64 = 0x7fff_f000;
/// Most runs in one list, and most index pairs in one list transfer. A list's segments are numbered by 32 bits.
pub const MAX_LIST_SEGMENTS: u64 = 1 << 20;
/// Most bytes of a list write's notification.
pub const MAX_NOTIFICATION_BYTES: u64 = 256;
/// Most bytes of one SEND.
pub const MAX_SEND_BYTES: u64 = 4096;
/// Most bytes of an exported lease token.
pub const MAX_TOKEN_BYTES: usize = 512;
