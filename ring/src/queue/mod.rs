//! The single-producer single-consumer ring (clauses RING-1 to RING-9).
//!
//! The same code is the SQ and the CQ, the mapped ring and loom's: it is generic over where its words lie
//! ([`RingMemory`]) and which of the two queues it is ([`QueueKind`]).

mod consumer;
mod ends;
pub mod handshake;
#[cfg(feature = "std")]
mod heap;
mod identity;
mod kind;
mod mapped;
mod memory;
mod prefetch;
mod producer;

pub use crate::abi::RingLayout as RingSizes;
pub use consumer::Consumer;
pub use ends::{Client, Completer, Completions, Engine, Full, Submissions, Submitter};
#[cfg(feature = "std")]
pub use heap::HeapRing;
pub use identity::{RingIdentity, RingMismatch};
pub use kind::{CompletionQueue, Entry, QueueKind, SubmissionQueue};
pub use mapped::MappedRing;
use memory::runs;
pub use memory::{RingMemory, RingWord};
pub use producer::Producer;
