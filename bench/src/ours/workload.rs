//! What is moved: the same sizes and the same scattered order as in the peers' programs.

use dmaplane::{IndexPair, List, Plane, Run};

pub const LARGE_BYTES: u64 = 64 << 20;
pub const BLOCK_BYTES: u64 = 4096;
pub const BLOCKS: u64 = 81_920;
pub const SMALL_WRITES: usize = 200;
/// Large writes of a measurement, each answered before the next.
pub const ANSWERED_WRITES: u64 = 4;

/// The immediate that the receiving program answers.
pub const QUESTION: u32 = 1;
/// The immediate that it does not.
pub const STATEMENT: u32 = 0;
/// What it answers.
pub const ANSWER: &[u8] = b"answer";
/// The message after which it checks what has arrived.
pub const CHECK: &[u8] = b"check";
/// The beginning of the message that asks for a lease on a list: then a block's bytes and the number of blocks.
pub const LIST: &[u8] = b"list";

// Primes that do not divide any number of blocks that is used, so that each is a permutation.
const LOCAL_FACTOR: u64 = 7919;
const REMOTE_FACTOR: u64 = 104_729;

/// A list of all blocks of one buffer.
pub fn list(plane: &mut Plane, block_bytes: u64, blocks: u64) -> Result<List, dmaplane::Error> {
    let buffer = plane.alloc(blocks * block_bytes)?;
    let run =
        Run { stride_bytes: block_bytes, length_bytes: block_bytes as u32, count: blocks as u32, ..Run::default() };
    plane.prepare_list(vec![buffer], &[(0, run)])
}

/// Which block goes where, scattered on both sides.
pub fn pairs(blocks: u64) -> Vec<IndexPair> {
    let scattered = |factor: u64, n: u64| (n * factor % blocks) as u32;
    (0..blocks).map(|n| IndexPair { local: scattered(LOCAL_FACTOR, n), remote: scattered(REMOTE_FACTOR, n) }).collect()
}

/// Fills memory with content that both processes know, without two equal blocks.
pub fn fill(memory: &mut [u8]) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for word in memory.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scattered_order_takes_each_block_once_on_both_sides() {
        for blocks in [BLOCKS, 1, 2, 1 << 14] {
            let pairs = pairs(blocks);
            for side in [|pair: &IndexPair| pair.local, |pair: &IndexPair| pair.remote] {
                let mut sorted: Vec<u32> = pairs.iter().map(side).collect();
                sorted.sort_unstable();
                assert!(sorted.iter().copied().eq(0..blocks as u32));
            }
        }
    }
}
