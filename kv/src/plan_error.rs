//! Rules that plans keep.

use core::fmt;

use crate::dtype::DType;
use crate::layout::Attention;
use crate::plan::INDEX_ARRAY_PAIRS_MAX;
use crate::pool_error::PoolError;

/// One of the two sides of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that submits the transfer.
    Local,
    /// The side that granted a lease.
    Remote,
}

impl fmt::Display for Side {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Side::Local => "local",
            Side::Remote => "remote",
        })
    }
}

/// Why no plan can be made, or why a plan cannot be used so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The two models have different numbers of layers.
    #[error("local has {local} layers, remote {remote}; both must run the same model")]
    Layers {
        /// Layers of the local layout.
        local: u32,
        /// Layers of the remote layout.
        remote: u32,
    },
    /// The two caches hold different vectors: other heads, other sizes or another attention.
    #[error("local caches {local:?}, remote {remote:?}; both must run the same model and shard count")]
    Attention {
        /// Attention of the local layout.
        local: Attention,
        /// Attention of the remote layout.
        remote: Attention,
    },
    /// The two caches have different element types.
    #[error("local elements are {local}, remote {remote}; nothing is converted, use one type")]
    DType {
        /// Element type of the local layout.
        local: DType,
        /// Element type of the remote layout.
        remote: DType,
    },
    /// The two sides name different numbers of heads.
    #[error("{local} local heads against {remote} remote ones; a plan moves as many as it is given")]
    HeadCounts {
        /// Heads of the local pool.
        local: u32,
        /// Heads of the remote pool.
        remote: u32,
    },
    /// Nothing to move.
    #[error("the plan is for 0 tokens; there is nothing to move")]
    NoTokens,
    /// A table has room for fewer tokens than are to move.
    #[error(
        "{tokens} tokens are to move and the {side} table has room for {capacity_tokens}; append \
            blocks"
    )]
    TooFewBlocks {
        /// The side whose table is too short.
        side: Side,
        /// Tokens to move.
        tokens: u32,
        /// Tokens that the table's blocks can hold.
        capacity_tokens: u64,
    },
    /// One side's pool cannot be cut into such fragments.
    #[error("the {side} pool cannot be cut into fragments: {source}")]
    Fragments {
        /// The side.
        side: Side,
        /// What is wrong.
        source: PoolError,
    },
    /// Layers that the layout does not have, or none.
    #[error("layers {start}..{end} are empty or beyond the layout's {layers}; name at least one of them")]
    LayerRange {
        /// First layer asked for.
        start: u32,
        /// One past the last layer asked for.
        end: u32,
        /// Layers of the layout.
        layers: u32,
    },
    /// Chunks of no fragments, or of more than an index array takes.
    #[error("chunks of {max_fragments} fragments cannot be; give 1 to {INDEX_ARRAY_PAIRS_MAX}")]
    ChunkSize {
        /// Fragments as given.
        max_fragments: u32,
    },
    /// More fragments than one index array takes.
    #[error(
        "the plan has {fragments} fragments, an index array takes {INDEX_ARRAY_PAIRS_MAX}; split \
            it with chunks()"
    )]
    TooManyFragments {
        /// Fragments of the plan.
        fragments: u64,
    },
    /// A buffer for the index array that is too short.
    #[error(
        "the index array needs {needed_bytes} bytes and the buffer has {found_bytes}; use a \
            larger one"
    )]
    ArrayBuffer {
        /// Bytes of the index array.
        needed_bytes: usize,
        /// Bytes of the buffer.
        found_bytes: usize,
    },
}
