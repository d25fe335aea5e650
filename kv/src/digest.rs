//! Checksums of cache contents, to find out whether what arrived is what was sent.
//!
//! XXH3, 64 bits, seed 0, as the xxHash specification defines it. It finds accidents, not attacks:
//! a peer that lies can make any checksum match.
//!
//! A digest begins with eight bytes of the layout's
//! [compatible fingerprint](CacheLayout::compatible_fingerprint) and four of the number of tokens,
//! both little endian, and goes on with the tokens' vectors in (layer, plane, token) order. So it
//! depends neither on the block size nor on which blocks a sequence happens to have, and padding is
//! not part of it.

use core::fmt;

use twox_hash::XxHash3_64;

use crate::attention::Attention;
use crate::fingerprint::Fingerprint;
use crate::layout::CacheLayout;
use crate::pool::PoolError;
use crate::sequence::PagedSequence;
use crate::shard::HeadRange;

/// A 64-bit checksum. Shown as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest64(pub u64);

impl fmt::Display for Digest64 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// Which checksum a transfer is to be checked by, from the weakest to the strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ChecksumAlgorithm {
    /// None: rely on the fabric.
    None,
    /// CRC-32C of each part's fragments in their order, padding included. Who copies them in makes it while copying, so
    /// it costs no second pass over the receiver's memory.
    Crc32c,
    /// The digests of this module, of the whole sequence as it lies in the receiver's blocks: also finds fragments that
    /// went to a wrong place, for a pass over its memory.
    Xxh3,
}

impl ChecksumAlgorithm {
    /// The code in manifests.
    pub const fn code(self) -> u8 {
        match self {
            ChecksumAlgorithm::None => 0,
            ChecksumAlgorithm::Xxh3 => 1,
            ChecksumAlgorithm::Crc32c => 2,
        }
    }

    /// The algorithm with this code, or `None` for a code that was never given out.
    pub const fn from_code(code: u8) -> Option<ChecksumAlgorithm> {
        match code {
            0 => Some(ChecksumAlgorithm::None),
            1 => Some(ChecksumAlgorithm::Xxh3),
            2 => Some(ChecksumAlgorithm::Crc32c),
            _ => None,
        }
    }
}

/// The digest of plain bytes, with no header.
///
/// ```
/// use dmaplane_kv::digest;
///
/// // The value that the reference implementation gives for no bytes.
/// assert_eq!(digest::of_bytes(b"").to_string(), "2d06800538d394c2");
/// ```
pub fn of_bytes(bytes: &[u8]) -> Digest64 {
    Digest64(XxHash3_64::oneshot(bytes))
}

/// The digest of a whole sequence: equal on both sides of a transfer, whatever their blocks.
/// `pool_bytes` is the whole pool.
pub fn of_sequence(sequence: PagedSequence<'_>, pool_bytes: &[u8]) -> Result<Digest64, PoolError> {
    sequence.pool().check_size(pool_bytes.len())?;
    of_ranges(sequence, |range| Ok(&pool_bytes[range.start as usize..range.end as usize]))
}

/// As [`of_sequence`], with a way to each range of the pool instead of the whole.
pub fn of_ranges<'a, E>(
    sequence: PagedSequence<'_>,
    bytes: impl Fn(core::ops::Range<u64>) -> Result<&'a [u8], E>,
) -> Result<Digest64, E> {
    let mut digest = header(sequence.pool().layout(), sequence.table().tokens());
    for range in sequence.token_ranges() {
        digest.write(bytes(range)?);
    }
    Ok(Digest64(digest.finish()))
}

/// As [`of_ranges`], of some heads alone (numbered within the pool): equal on both sides of a transfer between shards
/// of different counts. Of all heads it is the whole sequence's.
pub fn of_heads<'a, E>(
    sequence: PagedSequence<'_>,
    heads: HeadRange,
    bytes: impl Fn(core::ops::Range<u64>) -> Result<&'a [u8], E>,
) -> Result<Digest64, E> {
    let layout = sequence.pool().layout();
    let [all, _] = layout.attention().token_shape();
    let (token_bytes, within) = (layout.bytes_per_token_plane(), heads.end.min(all));
    if heads.start == 0 && within == all {
        return of_ranges(sequence, bytes);
    }
    let head_bytes = token_bytes / u64::from(all);
    let mut digest = header_of_heads(layout, heads.count(), sequence.table().tokens());
    let (first, last) = (u64::from(heads.start) * head_bytes, u64::from(within) * head_bytes);
    for range in sequence.token_ranges() {
        for token in range.step_by(token_bytes as usize) {
            digest.write(bytes(token + first..token + last)?);
        }
    }
    Ok(Digest64(digest.finish()))
}

/// The digest of each block that holds tokens, in token order: to find out which block is wrong
/// where both sides have blocks of the same size. A block's digest is that of a sequence that
/// consists of this block alone.
pub fn of_blocks(sequence: PagedSequence<'_>, pool_bytes: &[u8]) -> Result<Vec<Digest64>, PoolError> {
    let pool = sequence.pool();
    pool.check_size(pool_bytes.len())?;
    let layout = pool.layout();
    let mut digests = Vec::new();
    for (block, tokens) in sequence.table().filled() {
        let mut digest = header(layout, tokens);
        let length = u64::from(tokens) * layout.bytes_per_token_plane();
        for layer in 0..layout.layers() {
            for plane in 0..layout.planes() {
                let start = pool.block_range(layer, plane, block)?.start;
                digest.write(&pool_bytes[start as usize..(start + length) as usize]);
            }
        }
        digests.push(Digest64(digest.finish()));
    }
    Ok(digests)
}

/// The streaming hasher, used through `Hasher`, whose `write` adds the bytes and nothing else.
struct Stream(XxHash3_64);

impl Stream {
    fn write(&mut self, bytes: &[u8]) {
        core::hash::Hasher::write(&mut self.0, bytes);
    }

    fn finish(&self) -> u64 {
        core::hash::Hasher::finish(&self.0)
    }
}

fn header(layout: &CacheLayout, tokens: u32) -> Stream {
    header_of(layout.compatible_fingerprint(), tokens)
}

/// That of a layout of so many heads.
fn header_of_heads(layout: &CacheLayout, heads: u32, tokens: u32) -> Stream {
    let attention = match layout.attention() {
        Attention::GroupedQuery { head_size, .. } => Attention::GroupedQuery { kv_heads: heads, head_size },
        latent => latent,
    };
    // No heads are no layout: then the fingerprint of all of them stands here, and nothing follows it.
    let some = CacheLayout::new(layout.layers(), attention, layout.dtype(), layout.block_tokens());
    header_of(some.unwrap_or(*layout).compatible_fingerprint(), tokens)
}

fn header_of(fingerprint: Fingerprint, tokens: u32) -> Stream {
    let mut stream = Stream(XxHash3_64::new());
    stream.write(&fingerprint.0.to_le_bytes());
    stream.write(&tokens.to_le_bytes());
    stream
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_table::BlockTable;
    use crate::dtype::DType;
    use crate::layout::Attention;
    use crate::pool::PoolGeometry;

    /// 2 layers of one plane, blocks of 4 tokens of 1 byte, 3 blocks.
    fn pool() -> PoolGeometry {
        let attention = Attention::Latent { latent_size: 1, rope_size: 0 };
        PoolGeometry::new(CacheLayout::new(2, attention, DType::I8, 4).unwrap(), 3).unwrap()
    }

    #[test]
    fn the_digest_is_the_header_and_the_tokens_in_order() {
        let (pool, bytes) = (pool(), (0..24).collect::<Vec<u8>>());
        let table = BlockTable::new(4, vec![2, 0], 6).unwrap();
        let sequence = PagedSequence::new(&pool, &table).unwrap();
        let header = |tokens: u32| {
            let fingerprint = pool.layout().compatible_fingerprint().0;
            [&fingerprint.to_le_bytes()[..], &tokens.to_le_bytes()].concat()
        };
        let plain = [&header(6)[..], &[8, 9, 10, 11, 0, 1, 20, 21, 22, 23, 12, 13]].concat();
        assert_eq!(of_sequence(sequence, &bytes), Ok(of_bytes(&plain)));
        let first = [&header(4)[..], &[8, 9, 10, 11, 20, 21, 22, 23]].concat();
        let second = [&header(2)[..], &[0, 1, 12, 13]].concat();
        assert_eq!(of_blocks(sequence, &bytes), Ok(vec![of_bytes(&first), of_bytes(&second)]));
    }

    #[test]
    fn padding_does_not_count_and_a_short_pool_is_refused() {
        let (pool, mut bytes) = (pool(), vec![7; 24]);
        let table = BlockTable::new(4, vec![1], 3).unwrap();
        let sequence = PagedSequence::new(&pool, &table).unwrap();
        let before = of_sequence(sequence, &bytes).unwrap();
        bytes[7] = 0;
        assert_eq!(of_sequence(sequence, &bytes), Ok(before));
        bytes[6] = 0;
        assert_ne!(of_sequence(sequence, &bytes), Ok(before));
        let error = PoolError::BufferTooSmall { found_bytes: 23, expected_bytes: 24 };
        assert_eq!(of_sequence(sequence, &bytes[..23]), Err(error.clone()));
        assert_eq!(of_blocks(sequence, &bytes[..23]), Err(error));
    }

    #[test]
    fn checksum_codes_come_back() {
        for algorithm in [ChecksumAlgorithm::None, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Xxh3] {
            assert_eq!(ChecksumAlgorithm::from_code(algorithm.code()), Some(algorithm));
        }
        assert_eq!(ChecksumAlgorithm::from_code(3), None);
        assert!(ChecksumAlgorithm::None < ChecksumAlgorithm::Crc32c);
        assert!(ChecksumAlgorithm::Crc32c < ChecksumAlgorithm::Xxh3);
    }
}
