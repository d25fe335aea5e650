//! The binary form of a manifest: [`manifest`](crate::manifest) has the table of its fields.

use crate::attention::Attention;
use crate::block_table::BlockTable;
use crate::digest::{self, ChecksumAlgorithm, Digest64};
use crate::dtype::DType;
use crate::layout::CacheLayout;
use crate::manifest::{
    DIGEST_BYTES, HEADER_BYTES, LeaseToken, MAGIC, MANIFEST_BYTES_MAX, ManifestError, TransferManifest, VERSION,
};
use crate::transfer_id::TransferId;
use crate::wire::Reader;

impl TransferManifest {
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
        bytes.extend([tag, self.layout.dtype().code(), self.checksum.code(), 0]);
        for word in [
            first,
            second,
            self.layout.block_tokens(),
            self.pool_blocks,
            self.table.tokens(),
            self.fragment_tokens,
            self.parts,
            self.transfer.pack(),
            blocks.len() as u32,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend((lease_token.len() as u16).to_le_bytes());
        bytes.extend((user.len() as u16).to_le_bytes());
        bytes.extend([0; 4]);
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
    let reserved_first = reader.u16()?;
    let total = reader.u32()?;
    let layers = reader.u32()?;
    let (tag, dtype, checksum, reserved_second) = (reader.u8()?, reader.u8()?, reader.u8()?, reader.u8()?);
    let (first, second) = (reader.u32()?, reader.u32()?);
    let (block_tokens, pool_blocks) = (reader.u32()?, reader.u32()?);
    let (tokens, fragment_tokens, parts) = (reader.u32()?, reader.u32()?, reader.u32()?);
    let transfer = TransferId::unpack(reader.u32()?);
    let (blocks, lease_token_bytes, user_bytes) = (reader.u32()?, reader.u16()?, reader.u16()?);
    let reserved_third = reader.u32()?;

    let envelope = Envelope { magic, version, total, blocks, lease_token_bytes, user_bytes };
    if let Err(error) = envelope.check(bytes) {
        return Some(Err(error));
    }
    for (offset, found) in [(6, reserved_first.into()), (19, reserved_second.into()), (60, reserved_third)] {
        if found != 0 {
            return Some(Err(ManifestError::Reserved { offset, found }));
        }
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
            fragment_tokens,
            parts,
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
