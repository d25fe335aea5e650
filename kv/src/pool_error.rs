//! Rules that pools and places in them keep.

/// What is wrong with a pool or with a place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// A pool without blocks.
    #[error("the pool has 0 blocks; give at least 1")]
    NoBlocks,
    /// A pool whose size does not fit 64 bits.
    #[error("{blocks} blocks of {bytes_per_block} bytes do not fit 64 bits; use fewer blocks")]
    TooLarge {
        /// Blocks as given.
        blocks: u32,
        /// Bytes of one block in all layers and planes.
        bytes_per_block: u64,
    },
    /// An alignment that is not a power of two.
    #[error("plane alignment {alignment_bytes} is not a power of two; use 1 for none, 4096 for pages")]
    Alignment {
        /// Bytes as given.
        alignment_bytes: u64,
    },
    /// A layer that the layout does not have.
    #[error("layer {layer} is out of range; the layout has {layers}")]
    Layer {
        /// Layer as given.
        layer: u32,
        /// Layers of the layout.
        layers: u32,
    },
    /// A plane that the layout does not have.
    #[error("plane {plane} is out of range; the layout has {planes} per layer")]
    Plane {
        /// Plane as given.
        plane: u32,
        /// Planes per layer.
        planes: u32,
    },
    /// A block that the pool does not have.
    #[error("block {block} is out of range; the pool has {blocks}")]
    Block {
        /// Block as given.
        block: u32,
        /// Blocks of the pool.
        blocks: u32,
    },
    /// A token that a block does not have.
    #[error("token {token} is out of range; a block has {block_tokens}")]
    Token {
        /// Token within the block, as given.
        token: u32,
        /// Tokens of a block.
        block_tokens: u32,
    },
    /// Blocks cannot be cut into fragments of this size.
    #[error(
        "fragments of {fragment_tokens} tokens do not divide blocks of {block_tokens}; use a \
            divisor"
    )]
    FragmentTokens {
        /// Tokens of a fragment, as given.
        fragment_tokens: u32,
        /// Tokens of a block.
        block_tokens: u32,
    },
    /// A fragment that a block does not have.
    #[error("fragment {fragment} is out of range; a block has {fragments_per_block}")]
    Fragment {
        /// Fragment within the block, as given.
        fragment: u32,
        /// Fragments of a block.
        fragments_per_block: u32,
    },
    /// More segments than 32-bit indices can name.
    #[error("the pool has {segments} segments, indices name at most {}; use larger fragments", u32::MAX)]
    TooManySegments {
        /// Segments of the pool.
        segments: u128,
    },
    /// A slice that does not hold the whole pool.
    #[error("the slice has {found_bytes} bytes, the pool {expected_bytes}; pass the whole pool")]
    BufferTooSmall {
        /// Bytes of the slice.
        found_bytes: u64,
        /// Bytes of the pool.
        expected_bytes: u64,
    },
    /// Heads that the pool does not have, or none.
    #[error("heads {start}..{end} are empty or beyond the pool's {heads}; name at least one of them")]
    Heads {
        /// The first.
        start: u32,
        /// One past the last.
        end: u32,
        /// Heads of the pool.
        heads: u32,
    },
    /// Some heads of more than one token at a time.
    #[error("some heads of {fragment_tokens} tokens are not contiguous; cut fragments of 1 token")]
    HeadFragment {
        /// Tokens of a fragment.
        fragment_tokens: u32,
    },
}
