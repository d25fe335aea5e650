//! Rules that manifests and their encoding keep.

use crate::arrival::PARTS_MAX;
use crate::block_table::BlockError;
use crate::digest::Digest64;
use crate::dtype::DTypeError;
use crate::layout::LayoutError;
use crate::manifest::{
    BLOCKS_MAX, HEADER_BYTES, LEASE_TOKEN_BYTES_MAX, MAGIC, MANIFEST_BYTES_MAX, USER_BYTES_MAX, VERSION,
};
use crate::plan::INDEX_ARRAY_PAIRS_MAX;
use crate::pool_error::PoolError;
use crate::sequence::SequenceError;
use crate::shard::HeadRange;

/// What is wrong with a manifest, made here or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Fewer bytes than the smallest manifest.
    #[error(
        "{found_bytes} bytes are no manifest, which has {HEADER_BYTES} of header and 8 of digest \
            at least"
    )]
    Truncated {
        /// Bytes as received.
        found_bytes: usize,
    },
    /// More bytes than the largest manifest.
    #[error("{found_bytes} bytes are no manifest, which has at most {MANIFEST_BYTES_MAX}")]
    TooLong {
        /// Bytes as received.
        found_bytes: usize,
    },
    /// Something else than a manifest.
    #[error("the bytes begin with {found:02x?} and a manifest with {MAGIC:02x?}; this is something else")]
    Magic {
        /// First four bytes.
        found: [u8; 4],
    },
    /// A manifest of a version that this crate does not read.
    #[error(
        "the manifest has version {found} and this crate reads {VERSION}; use one version on both \
            sides"
    )]
    Version {
        /// Version as received.
        found: u16,
    },
    /// A length that contradicts the number of bytes received, or the lengths of its parts.
    #[error(
        "the manifest states {stated_bytes} bytes, its parts make {parts_bytes}, received were \
            {found_bytes}; pass it whole"
    )]
    Length {
        /// Length field.
        stated_bytes: u64,
        /// Sum of the header, the parts and the digest.
        parts_bytes: u64,
        /// Bytes as received.
        found_bytes: usize,
    },
    /// Bytes that were changed on their way.
    #[error(
        "the manifest's digest is {stated} and its bytes have {computed}; it was damaged, ask for \
            it again"
    )]
    Damaged {
        /// Digest field.
        stated: Digest64,
        /// Digest of the bytes before it.
        computed: Digest64,
    },
    /// A reserved field that is not zero.
    #[error(
        "the reserved field at byte {offset} is {found} instead of 0; the sender is newer than \
            this version"
    )]
    Reserved {
        /// Where the field is.
        offset: usize,
        /// What it holds.
        found: u32,
    },
    /// An attention tag that was never given out.
    #[error("attention tag {tag} is unknown; use 1 for grouped-query or 2 for latent")]
    Attention {
        /// Tag as received.
        tag: u8,
    },
    /// An element type that was never given out.
    #[error(transparent)]
    DType(#[from] DTypeError),
    /// A checksum algorithm that was never given out.
    #[error("checksum algorithm {code} is unknown; use 0 for none, 1 for XXH3 or 2 for CRC-32C")]
    Checksum {
        /// Code as received.
        code: u8,
    },
    /// An impossible layout.
    #[error("the manifest's layout: {0}")]
    Layout(#[from] LayoutError),
    /// An impossible pool, or fragments that it cannot be cut into.
    #[error("the manifest's pool: {0}")]
    Pool(#[from] PoolError),
    /// An impossible block table.
    #[error("the manifest's block table: {0}")]
    Table(#[from] BlockError),
    /// A table that does not belong to the pool.
    #[error("the manifest's sequence: {0}")]
    Sequence(#[from] SequenceError),
    /// A transfer of nothing.
    #[error("the manifest is for 0 tokens; there is nothing to move")]
    NoTokens,
    /// More blocks than a manifest may list.
    #[error(
        "the table has {blocks} blocks and a manifest lists at most {BLOCKS_MAX}; split the \
            sequence"
    )]
    TooManyBlocks {
        /// Blocks of the table.
        blocks: usize,
    },
    /// Too many parts.
    #[error("a transfer of {parts} parts cannot be; at most {PARTS_MAX}, with more layers or fragments in each")]
    Parts {
        /// Parts as given.
        parts: u64,
    },
    /// Parts of no layers, or of more than there are.
    #[error("parts of {part_layers} layers of {layers} cannot be; give 1 to {layers}")]
    PartLayers {
        /// Layers of a part as given.
        part_layers: u32,
        /// Layers of the layout.
        layers: u32,
    },
    /// Parts of no fragments, or of more than an operation takes.
    #[error("parts of {part_fragments} fragments cannot be; give 1 to {INDEX_ARRAY_PAIRS_MAX}")]
    PartFragments {
        /// Fragments of a part as given.
        part_fragments: u32,
    },
    /// Heads that the shard does not hold, or none.
    #[error(
        "heads {start}..{end} are empty or not of a shard that holds {}..{}; ask the shard that has them",
        held.start,
        held.end
    )]
    Heads {
        /// The first.
        start: u32,
        /// One past the last.
        end: u32,
        /// Those that the shard holds.
        held: HeadRange,
    },
    /// Flags that were never given out.
    #[error("flags {found:#04x} are unknown; the sender is newer than this version")]
    Flags {
        /// As received.
        found: u8,
    },
    /// A lease token that is too long.
    #[error("the lease token has {found_bytes} bytes, at most {LEASE_TOKEN_BYTES_MAX} are allowed")]
    LeaseToken {
        /// Bytes of the token.
        found_bytes: usize,
    },
    /// Too many user bytes.
    #[error(
        "there are {found_bytes} user bytes, at most {USER_BYTES_MAX} are allowed; send them in \
            another message"
    )]
    UserBytes {
        /// User bytes as given.
        found_bytes: usize,
    },
}
