//! What crosses the boundary, version 0. Every type here is plain words; the layouts are asserted at compile time.

mod cqe;
pub mod device;
mod errno;
mod flags;
mod handle;
mod layout;
mod limits;
mod opcode;
mod segment;
mod sqe;

pub use cqe::Cqe;
pub use errno::Errno;
pub use flags::{CqeFlags, EventBits, QueryWhat, Rights, RingFlags, SqeFlags, op_flags};
pub use handle::{
    BufferHandle, Handle, HandleKind, ImportHandle, LeaseHandle, ListHandle, ListenerHandle, PeerHandle, SlotHandle,
};
pub use layout::{ClientArea, EngineArea, RingLayout};
pub use limits::{
    ABI_VERSION, MAX_CHAIN, MAX_LIST_SEGMENTS, MAX_NOTIFICATION_BYTES, MAX_OPERATION_BYTES, MAX_RING_ENTRIES,
    MAX_SEND_BYTES, MAX_TOKEN_BYTES, RING_MAGIC,
};
pub use opcode::Opcode;
pub use segment::{IndexPair, Run};
pub use sqe::Sqe;
