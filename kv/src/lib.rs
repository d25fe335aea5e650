//! KV caches on the move: what lies where, what goes where, and when it is there.
//!
//! A prefill process computes a request's keys and values; a decode process goes on from them. Both
//! keep them in a paged pool: blocks of some tokens, scattered as the free list had them. All but
//! [`transfer`], which moves them over planes, is arithmetic without any I/O:
//!
//! | question | answer |
//! |---|---|
//! | what a model caches per token | [`CacheLayout`], [`models`] |
//! | where a token lies, and how a ring lists the pool | [`PoolGeometry`], [`segment`] |
//! | who has which block | [`BlockAllocator`], [`BlockTable`], [`PagedSequence`] |
//! | who talks to whom when n shards meet m | [`legs`], [`Shard`] |
//! | which fragment goes where, in which parts | [`FragmentPlan`], [`Parting`] |
//! | what to tell the other side | [`TransferManifest`] |
//! | what has arrived, and whether late data can do harm | [`TransferSlots`] |
//! | whether it is what was sent | [`digest`] |
//! | the vectors themselves | [`TensorView`], [`TensorViewMut`] |
//! | moving a sequence, by push or by pull | [`transfer`] |
//! | many at a time, layer by layer, between shards | [`exchange`] |
//!
//! # A transfer, with memcpy for a fabric
//!
//! The decode side says where it wants 20 tokens; the prefill side, whose blocks have another size,
//! plans and writes; the decode side counts and checks.
//!
//! ```
//! use dmaplane_kv::manifest::TransferManifest;
//! use dmaplane_kv::segment::segment_range;
//! use dmaplane_kv::transfer_slot::{Expected, TransferSlots};
//! use dmaplane_kv::*;
//!
//! let attention = Attention::GroupedQuery { kv_heads: 2, head_size: 4 };
//! let layout = CacheLayout::new(3, attention, DType::BF16, 16)?;
//!
//! // Decode: 4 blocks of 8 tokens of a scattered pool, a slot, and a manifest that says so.
//! let decode_pool = PoolGeometry::new(layout.with_block_tokens(8)?, 32)?;
//! let mut decode_bytes = vec![0; decode_pool.size_bytes() as usize];
//! let decode_table = BlockTable::new(8, BlockAllocator::scattered(32, 1).allocate(3)?, 20)?;
//! let mut slots = TransferSlots::new(16)?;
//! let fragments = 3 * 2 * 3; // layers, planes, blocks
//! let transfer = slots.begin(Expected { parts: 1, bytes: fragments * 8 * 16 }, None)?;
//! let manifest = TransferManifest {
//!     transfer,
//!     checksum: ChecksumAlgorithm::Xxh3,
//!     ..TransferManifest::of(&decode_pool, Shard::WHOLE, decode_table.clone())?
//! }.encode()?;
//!
//! // Prefill: the tokens are in 2 blocks of 16. Plan and write.
//! let prefill_pool = PoolGeometry::new(layout, 10)?;
//! let prefill_bytes: Vec<u8> = (0..prefill_pool.size_bytes()).map(|byte| byte as u8).collect();
//! let prefill_table = BlockTable::new(16, vec![7, 2], 20)?;
//! let source = PagedSequence::new(&prefill_pool, &prefill_table)?;
//! let wanted = TransferManifest::decode(&manifest)?;
//! let remote_pool = wanted.pool()?;
//! let target = PagedSequence::new(&remote_pool, &wanted.table)?;
//! let plan = FragmentPlan::with_fragment_tokens(source, target, 20, wanted.fragment_tokens)?;
//! let (from, to) = (prefill_pool.runs(8)?, decode_pool.runs(8)?);
//! for pair in plan.pairs() {
//!     let from = segment_range(&from, pair.local_segment).unwrap();
//!     let to = segment_range(&to, pair.remote_segment).unwrap();
//!     decode_bytes[to.start as usize..to.end as usize]
//!         .copy_from_slice(&prefill_bytes[from.start as usize..from.end as usize]);
//! }
//!
//! // Decode: everything is there, once, and it is what was sent.
//! assert!(slots.arrive(1, wanted.transfer.pack(), plan.bytes_total())?.is_complete());
//! let arrived = PagedSequence::new(&decode_pool, &decode_table)?;
//! assert_eq!(
//!     digest::of_sequence(arrived, &decode_bytes)?,
//!     digest::of_sequence(source, &prefill_bytes)?,
//! );
//! slots.commit(transfer)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds throughout
//!
//! - Counts are `u32`, sizes and offsets in bytes `u64`, and a name ends in its unit. What comes
//!   from outside is checked for overflow; what was checked on construction cannot overflow later,
//!   and says why.
//! - Errors are `#[non_exhaustive]`, one variant per broken rule. A failed call changes nothing.
//! - Element bytes are little endian, in memory as on the wire.
#![deny(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("pools are moved byte by byte and read in place: both ends must be little endian");

mod arrival;
mod attention;
pub mod block_table;
pub mod digest;
pub mod dtype;
pub mod exchange;
pub mod fingerprint;
pub mod layout;
mod layout_error;
pub mod manifest;
mod manifest_codec;
mod manifest_error;
pub mod models;
pub mod parting;
pub mod plan;
mod plan_error;
pub mod pool;
mod pool_error;
pub mod segment;
pub mod sequence;
pub mod shard;
mod slot_error;
mod tensor_form;
pub mod transfer;
pub mod transfer_id;
pub mod transfer_slot;
pub mod view;
mod wire;

pub use block_table::{BlockAllocator, BlockError, BlockTable};
pub use digest::{ChecksumAlgorithm, Digest64};
pub use dtype::{DType, DTypeError};
pub use fingerprint::Fingerprint;
pub use layout::{Attention, CacheLayout, LayoutError};
pub use manifest::{LeaseToken, ManifestError, TransferManifest};
pub use models::ModelShape;
pub use parting::Parting;
pub use plan::{FragmentPair, FragmentPlan, PlanError};
pub use pool::{PoolError, PoolGeometry};
pub use segment::{Run, SegmentMap};
pub use sequence::{PagedSequence, SequenceError};
pub use shard::{HeadRange, Leg, Shard, legs};
pub use transfer_id::TransferId;
pub use transfer_slot::{SlotError, TransferSlots};
pub use view::{TensorView, TensorViewMut, ViewError};
