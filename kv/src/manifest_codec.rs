//! The binary form of a manifest: [`manifest`](crate::manifest) has the table of its fields.

use crate::attention::Attention;
use crate::block_table::BlockTable;
use crate::digest::{self, ChecksumAlgorithm, Digest64};
use crate::dtype::DType;
use crate::layout::CacheLayout;
use crate::manifest::{
    DIGEST_BYTES, HEADER_BYTES, LeaseToken, MAGIC, MANIFEST_BYTES_MAX, ManifestError, TransferManifest, VERSION,
};
use crate::shard::{HeadRange, Shard};
use crate::transfer_id::TransferId;
use crate::wire::Reader;

/// The bits of the flags.
const BOUND: u8 = 1;
const ANNOUNCED: u8 = 2;

impl TransferManifest {
    fn flags(&self) -> u8 {
        (u8::from(self.is_bound) * BOUND) | (u8::from(self.is_announced) * ANNOUNCED)
    }

    /// The binary form.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        self.validate()?;
        let (tag, first, second) = self.layout.attention().parts();
        let blocks = self.table.blocks();
        let (lease_token, user) = (&self.lease_token.0, &self.user);
        let total = HEADER_BYTES + 4 * blocks.len() + lease_token.len() + user.len() + DIGEST_BYTES;
        let mut bytes = Vec::with_capacity(total);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 2]);
        // None of the lengths can be cut short: validate() bounds them.
        bytes.extend((total as u32).to_le_bytes());
        bytes.extend(self.layout.layers().to_le_bytes());
        bytes.extend([tag, self.layout.dtype().code(), self.checksum.code(), self.flags()]);
        for word in [
            first,
            second,
            self.layout.block_tokens(),
            self.pool_blocks,
            self.table.tokens(),
            self.fragment_tokens,
            self.part_layers,
            self.transfer.pack(),
            blocks.len() as u32,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((lease_token.len() as u16).to_le_bytes());
        bytes.extend((user.len() as u16).to_le_bytes());
        bytes.extend(self.part_fragments.to_le_bytes());
        for half in [self.shard.index, self.shard.count, self.heads.start, self.heads.end] {
            // Nor this: shards are no more than heads or counted below 2^16, and heads are bounded.
            bytes.extend((half as u16).to_le_bytes());
        }
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        bytes.extend(blocks.iter().flat_map(|block| block.to_le_bytes()));
        bytes.extend(lease_token);
        bytes.extend(user);
        bytes.extend(digest::of_bytes(&bytes).0.to_le_bytes());
        debug_assert_eq!(bytes.len(), total);
        Ok(bytes)
    }

    /// Reads the binary form. `bytes` are exactly one manifest. Allocates no more than a small
    /// multiple of their length, whatever they say.
    pub fn decode(bytes: &[u8]) -> Result<TransferManifest, ManifestError> {
        let found_bytes = bytes.len();
        if found_bytes > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLong { found_bytes });
        }
        if found_bytes < HEADER_BYTES + DIGEST_BYTES {
            return Err(ManifestError::Truncated { found_bytes });
        }
        decode_fields(bytes).unwrap_or(Err(ManifestError::Truncated { found_bytes }))
    }
}

/// `None` if a field lies beyond the end, which the checks of lengths rule out.
fn decode_fields(bytes: &[u8]) -> Option<Result<TransferManifest, ManifestError>> {
    let mut reader = Reader::new(bytes);
    let magic = reader.array()?;
    let version = reader.u16()?;
    let reserved = reader.u16()?;
    let total = reader.u32()?;
    let layers = reader.u32()?;
    let (tag, dtype, checksum, flags) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let (first, second) = (reader.u32()?, reader.u32()?);
    let (block_tokens, pool_blocks) = (reader.u32()?, reader.u32()?);
    let (tokens, fragment_tokens, part_layers) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let transfer = TransferId::unpack(reader.u32()?);
    let (blocks, lease_token_bytes, user_bytes) = (reader.u32()?, reader.u16()?, reader.u16()?);
    let part_fragments = reader.u32()?;
    let [index, count, start, end] = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?].map(u32::from);
    let (shard, heads) = (Shard { index, count }, HeadRange { start, end });

    let envelope = Envelope { magic, version, total, blocks, lease_token_bytes, user_bytes };
    if let Err(error) = envelope.check(bytes) {
        return Some(Err(error));
    }
    if reserved != 0 {
        return Some(Err(ManifestError::Reserved { offset: 6, found: reserved.into() }));
    }
    if flags & !(BOUND | ANNOUNCED) != 0 {
        return Some(Err(ManifestError::Flags { found: flags }));
    }
    let words = reader.take(4 * blocks as usize)?.chunks_exact(4);
    let blocks: Vec<u32> = words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
    let lease_token = LeaseToken(reader.take(usize::from(lease_token_bytes))?.to_vec());
    let user = reader.take(usize::from(user_bytes))?.to_vec();

    let checked = || {
        let dtype = DType::from_code(dtype)?;
        let attention = Attention::from_parts(tag, first, second).ok_or(ManifestError::Attention { tag })?;
        let checksum = ChecksumAlgorithm::from_code(checksum);
        let manifest = TransferManifest {
            layout: CacheLayout::new(layers, attention, dtype, block_tokens)?,
            pool_blocks,
            table: BlockTable::new(block_tokens, blocks, tokens)?,
            shard,
            heads,
            fragment_tokens,
            part_layers,
            part_fragments,
            is_bound: flags & BOUND != 0,
            is_announced: flags & ANNOUNCED != 0,
            transfer,
            checksum: checksum.ok_or(ManifestError::Checksum { code: bytes[18] })?,
            lease_token,
            user,
        };
        manifest.validate()?;
        Ok(manifest)
    };
    Some(checked())
}

/// The fields that say what the bytes are and how many: checked before any other.
struct Envelope {
    magic: [u8; 4],
    version: u16,
    total: u32,
    blocks: u32,
    lease_token_bytes: u16,
    user_bytes: u16,
}

impl Envelope {
    fn check(&self, bytes: &[u8]) -> Result<(), ManifestError> {
        if self.magic != MAGIC {
            return Err(ManifestError::Magic { found: self.magic });
        }
        if self.version != VERSION {
            return Err(ManifestError::Version { found: self.version });
        }
        let lists = 4 * u64::from(self.blocks) + u64::from(self.lease_token_bytes) + u64::from(self.user_bytes);
        let (stated_bytes, parts_bytes) = (u64::from(self.total), (HEADER_BYTES + DIGEST_BYTES) as u64 + lists);
        let found_bytes = bytes.len();
        if stated_bytes != parts_bytes || stated_bytes != found_bytes as u64 {
            return Err(ManifestError::Length { stated_bytes, parts_bytes, found_bytes });
        }
        let (before, digest) = bytes.split_at(found_bytes - DIGEST_BYTES);
        let stated = Reader::new(digest).u64().map(Digest64);
        let computed = digest::of_bytes(before);
        match stated {
            Some(stated) if stated != computed => Err(ManifestError::Damaged { stated, computed }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
