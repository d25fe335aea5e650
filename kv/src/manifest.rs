//! What one side must tell the other about its half of a transfer, in a compact binary form.
//!
//! All integers are little endian:
//!
//! | byte | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `DPKV` |
//! | 4 | 2 | version, 0 |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 4 | bytes of the whole manifest |
//! | 12 | 4 | layers |
//! | 16 | 1 | attention: 1 grouped-query, 2 latent |
//! | 17 | 1 | element type: [`DType::code`](crate::DType::code) |
//! | 18 | 1 | checksum: [`ChecksumAlgorithm::code`] |
//! | 19 | 1 | reserved, 0 |
//! | 20 | 4 | KV heads, or elements of the latent vector |
//! | 24 | 4 | elements of a head, or of the rope key |
//! | 28 | 4 | tokens of a block |
//! | 32 | 4 | blocks of the pool |
//! | 36 | 4 | tokens of the sequence |
//! | 40 | 4 | tokens of a fragment |
//! | 44 | 4 | parts |
//! | 48 | 4 | immediate data: [`TransferId::pack`] |
//! | 52 | 4 | blocks of the table, b |
//! | 56 | 2 | bytes of the lease token, l |
//! | 58 | 2 | user bytes, u |
//! | 60 | 4 | reserved, 0 |
//! | 64 | 4 b | the table's block numbers in token order |
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
use crate::layout::CacheLayout;
pub use crate::manifest_error::ManifestError;
use crate::pool::{PoolError, PoolGeometry};
use crate::sequence::PagedSequence;
use crate::transfer_id::TransferId;

/// First bytes of every manifest.
pub const MAGIC: [u8; 4] = *b"DPKV";
/// The version that this crate writes and reads.
pub const VERSION: u16 = 0;
/// Bytes before the table.
pub const HEADER_BYTES: usize = 64;
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
/// use dmaplane_kv::{BlockTable, ChecksumAlgorithm, TransferId, models};
///
/// let manifest = TransferManifest {
///     layout: models::LLAMA_3_8B.layout(16)?,
///     pool_blocks: 1024,
///     table: BlockTable::new(16, vec![900, 3, 77], 40)?,
///     fragment_tokens: 16,
///     parts: 1,
///     transfer: TransferId { slot: 5, generation: 1 },
///     checksum: ChecksumAlgorithm::Xxh3,
///     lease_token: LeaseToken(vec![0xaa; 32]),
///     user: b"request 42".to_vec(),
/// };
/// let bytes = manifest.encode()?;
/// assert_eq!(bytes.len(), 64 + 3 * 4 + 32 + 10 + 8);
/// assert_eq!(TransferManifest::decode(&bytes)?, manifest);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferManifest {
    /// The layout of this side's cache.
    pub layout: CacheLayout,
    /// Blocks of this side's pool, which segment numbers depend on.
    pub pool_blocks: u32,
    /// The sequence's blocks in this side's pool, and the tokens to move.
    pub table: BlockTable,
    /// The fragment size that this side has prepared its list with.
    pub fragment_tokens: u32,
    /// Operations that the transfer is to be made in, each notified once: see
    /// [`Expected::parts`](crate::transfer_slot::Expected::parts). How they share the fragments out
    /// is the submitting side's business.
    pub parts: u32,
    /// What the immediate data of a pushed transfer is to say.
    pub transfer: TransferId,
    /// What the contents are to be checked by. The digest itself follows the data.
    pub checksum: ChecksumAlgorithm,
    /// The exported lease on the prepared list.
    pub lease_token: LeaseToken,
    /// Bytes of the user's: a request's name, scales of a quantised cache.
    pub user: Vec<u8>,
}

impl TransferManifest {
    /// This side's pool for numbering segments. (Gaps between planes do not matter to that, and are
    /// not told.)
    pub fn pool(&self) -> Result<PoolGeometry, PoolError> {
        PoolGeometry::new(self.layout, self.pool_blocks)
    }

    /// Checks every rule that [`TransferManifest::decode`] checks.
    pub fn validate(&self) -> Result<(), ManifestError> {
        let pool = self.pool()?;
        pool.segments(self.fragment_tokens)?;
        PagedSequence::new(&pool, &self.table)?;
        if self.table.tokens() == 0 {
            return Err(ManifestError::NoTokens);
        }
        let blocks = self.table.blocks().len();
        if blocks > BLOCKS_MAX {
            return Err(ManifestError::TooManyBlocks { blocks });
        }
        if !(1..=PARTS_MAX).contains(&self.parts) {
            return Err(ManifestError::Parts { parts: self.parts });
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
