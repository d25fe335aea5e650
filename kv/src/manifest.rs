//! What one side must tell the other about its half of a transfer, in a compact binary form.
//!
//! All integers are little endian:
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `DPKV` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 4 | bytes of the whole manifest |
//! | 12 | 4 | layers |
//! | 16 | 1 | attention: 1 grouped-query, 2 latent |
//! | 17 | 1 | element type: [`DType::code`](crate::DType::code) |
//! | 18 | 1 | checksum: [`ChecksumAlgorithm::code`] |
//! | 19 | 1 | flags: 1 [bound](TransferManifest::is_bound), 2 [announced](TransferManifest::is_announced) |
//! | 20 | 4 | KV heads, or elements of the latent vector |
//! | 24 | 4 | elements of a head, or of the rope key |
//! | 28 | 4 | tokens of a block |
//! | 32 | 4 | blocks of the pool |
//! | 36 | 4 | tokens of the sequence |
//! | 40 | 4 | tokens of a fragment |
//! | 44 | 4 | layers of a part |
//! | 48 | 4 | immediate data: [`TransferId::pack`] |
//! | 52 | 4 | blocks of the table, b |
//! | 56 | 2 | bytes of the lease token, l |
//! | 58 | 2 | user bytes, u |
//! | 60 | 4 | fragments of a part, at most |
//! | 64 | 2 | index of the shard |
//! | 66 | 2 | shards |
//! | 68 | 2 | first head, numbered as in the whole model |
//! | 70 | 2 | one past the last head |
//! | 72 | 4 b | the table's block numbers in token order |
//! | | l | lease token |
//! | | u | user bytes |
//! | | 8 | [digest](crate::digest::of_bytes) of all bytes before |
//!
//! The digest finds damage on the way through routers, where a flipped bit in a block number would
//! send vectors to the wrong place. Authenticity is the lease token's business.

use core::fmt;

use crate::arrival::PARTS_MAX;
use crate::block_table::BlockTable;
use crate::digest::ChecksumAlgorithm;
use crate::fingerprint::Fingerprint;
use crate::layout::{CacheLayout, LayoutError};
pub use crate::manifest_error::ManifestError;
use crate::parting::Parting;
use crate::plan::INDEX_ARRAY_PAIRS_MAX;
use crate::pool::{PoolError, PoolGeometry};
use crate::sequence::PagedSequence;
use crate::shard::{HeadRange, Shard};
use crate::transfer_id::TransferId;

/// First bytes of every manifest.
pub const MAGIC: [u8; 4] = *b"DPKV";
/// The version that this crate writes and reads.
pub const VERSION: u16 = 1;
/// Bytes before the table.
pub const HEADER_BYTES: usize = 72;
/// Most blocks that a manifest lists.
pub const BLOCKS_MAX: usize = 1 << 20;
/// Most bytes of a lease token.
pub const LEASE_TOKEN_BYTES_MAX: usize = 512;
/// Most user bytes.
pub const USER_BYTES_MAX: usize = 256;
/// Most bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize =
    HEADER_BYTES + 4 * BLOCKS_MAX + LEASE_TOKEN_BYTES_MAX + USER_BYTES_MAX + DIGEST_BYTES;

/// Bytes of the digest at the end.
pub(crate) const DIGEST_BYTES: usize = 8;

/// An exported lease: opaque here, and a capability, so it is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct LeaseToken(pub Vec<u8>);

impl fmt::Debug for LeaseToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "LeaseToken({} bytes)", self.0.len())
    }
}

/// One side's half of a transfer: where its tokens are (or go), under which lease.
///
/// ```
/// use dmaplane_kv::manifest::{LeaseToken, TransferManifest};
/// use dmaplane_kv::{BlockTable, ChecksumAlgorithm, PoolGeometry, Shard, TransferId, models};
///
/// let pool = PoolGeometry::new(models::LLAMA_3_8B.layout(16)?, 1024)?;
/// let table = BlockTable::new(16, vec![900, 3, 77], 40)?;
/// let manifest = TransferManifest {
///     transfer: TransferId { slot: 5, generation: 1 },
///     checksum: ChecksumAlgorithm::Xxh3,
///     lease_token: LeaseToken(vec![0xaa; 32]),
///     user: b"request 42".to_vec(),
///     ..TransferManifest::of(&pool, Shard::WHOLE, table)?
/// };
/// let bytes = manifest.encode()?;
/// assert_eq!(bytes.len(), 72 + 3 * 4 + 32 + 10 + 8);
/// assert_eq!(TransferManifest::decode(&bytes)?, manifest);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferManifest {
    /// The layout of this side's cache: of its shard.
    pub layout: CacheLayout,
    /// Which shard of the model this side is.
    pub shard: Shard,
    /// The heads to move, numbered as in the whole model. Where they are not all of the shard's, a fragment is one
    /// token's.
    pub heads: HeadRange,
    /// Blocks of this side's pool, which segment numbers depend on.
    pub pool_blocks: u32,
    /// The sequence's blocks in this side's pool, and the tokens to move.
    pub table: BlockTable,
    /// The fragment size that this side has prepared its list with.
    pub fragment_tokens: u32,
    /// How many layers a part of the transfer has at most; each part is one operation and notified once: see
    /// [`Parting`].
    pub part_layers: u32,
    /// How many fragments a part has at most.
    pub part_fragments: u32,
    /// What the immediate data of a pushed transfer is to say.
    pub transfer: TransferId,
    /// What the contents are to be checked by. The digest itself follows the data.
    pub checksum: ChecksumAlgorithm,
    /// Whether the lease is bound to the peer that this is for. Otherwise it is whoever's first shows the token, and
    /// the owner believes nobody's notifications but those of a peer that has shown it the token in a message as well.
    pub is_bound: bool,
    /// Whether the owner announces each part in a message when it may be read; else all may be read at once.
    pub is_announced: bool,
    /// The exported lease on the prepared list.
    pub lease_token: LeaseToken,
    /// Bytes of the user's: a request's name, scales of a quantised cache.
    pub user: Vec<u8>,
}

impl TransferManifest {
    /// One that says what is to be said of every sequence of a pool: all heads of the shard, in whole blocks and in one
    /// part, with nothing that belongs to a lease.
    pub fn of(pool: &PoolGeometry, shard: Shard, table: BlockTable) -> Result<TransferManifest, LayoutError> {
        let layout = *pool.layout();
        Ok(TransferManifest {
            layout,
            shard,
            heads: shard.heads(&layout)?,
            pool_blocks: pool.blocks(),
            table,
            fragment_tokens: layout.block_tokens(),
            part_layers: layout.layers(),
            part_fragments: INDEX_ARRAY_PAIRS_MAX,
            transfer: TransferId::unpack(0),
            checksum: ChecksumAlgorithm::Crc32c,
            is_bound: true,
            is_announced: false,
            lease_token: LeaseToken::default(),
            user: Vec::new(),
        })
    }

    /// The fingerprint of the whole model's cache, of which this is a shard: equal wherever tokens can be moved
    /// between.
    pub fn model_fingerprint(&self) -> Result<Fingerprint, LayoutError> {
        Ok(self.layout.unsharded(self.shard.count)?.compatible_fingerprint())
    }

    /// The heads to move, numbered within this side's pool.
    pub fn local_heads(&self) -> Result<HeadRange, ManifestError> {
        let of_shard = self.shard.heads(&self.layout)?;
        let heads = self.heads.from_first(of_shard.start).filter(|heads| heads.end <= of_shard.count());
        let (HeadRange { start, end }, held) = (self.heads, of_shard);
        heads.filter(|heads| heads.count() > 0).ok_or(ManifestError::Heads { start, end, held })
    }

    /// How the transfer is shared out into parts.
    pub fn parting(&self) -> Parting {
        let columns = self.table.tokens().div_ceil(self.fragment_tokens.max(1));
        let layer_fragments = u64::from(self.layout.planes()) * u64::from(columns);
        Parting::new(self.layout.layers(), layer_fragments, self.part_layers, self.part_fragments)
    }

    /// This side's pool for numbering segments. (Gaps between planes do not matter to that, and are
    /// not told.)
    pub fn pool(&self) -> Result<PoolGeometry, PoolError> {
        PoolGeometry::new(self.layout, self.pool_blocks)
    }

    /// Checks every rule that [`TransferManifest::decode`] checks.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let pool = self.pool()?;
        pool.segments_of_heads(self.fragment_tokens, self.local_heads()?)?;
        PagedSequence::new(&pool, &self.table)?;
        if self.table.tokens() == 0 {
            return Err(ManifestError::NoTokens);
        }
        let blocks = self.table.blocks().len();
        if blocks > BLOCKS_MAX {
            return Err(ManifestError::TooManyBlocks { blocks });
        }
        let layers = self.layout.layers();
        if !(1..=layers).contains(&self.part_layers) {
            return Err(ManifestError::PartLayers { part_layers: self.part_layers, layers });
        }
        if !(1..=INDEX_ARRAY_PAIRS_MAX).contains(&self.part_fragments) {
            return Err(ManifestError::PartFragments { part_fragments: self.part_fragments });
        }
        let parts = self.parting().parts();
        if parts > u64::from(PARTS_MAX) {
            return Err(ManifestError::Parts { parts });
        }
        let found_bytes = self.lease_token.0.len();
        if found_bytes > LEASE_TOKEN_BYTES_MAX {
            return Err(ManifestError::LeaseToken { found_bytes });
        }
        let found_bytes = self.user.len();
        if found_bytes > USER_BYTES_MAX {
            return Err(ManifestError::UserBytes { found_bytes });
        }
        Ok(())
    }
}
