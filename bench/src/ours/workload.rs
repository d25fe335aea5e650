//! What is moved: the same sizes and the same scattered order as in the peers' programs.

use dmaplane::{IndexPair, List, Plane, Run};

pub const LARGE_BYTES: u64 = 64 << 20;
pub const BLOCK_BYTES: u64 = 4096;
pub const BLOCKS: u64 = 81_920;
pub const SMALL_WRITES: usize = 200;

/// The immediate that the receiving program answers.
pub const QUESTION: u32 = 1;
/// The immediate that it does not.
pub const STATEMENT: u32 = 0;
/// What it answers.
pub const ANSWER: &[u8] = b"answer";
/// The message after which it checks what has arrived.
pub const CHECK: &[u8] = b"check";

// Primes that do not divide the number of blocks, so that each is a permutation.
const LOCAL_FACTOR: u64 = 7919;
const REMOTE_FACTOR: u64 = 104_729;

/// A list of all blocks of one buffer.
pub fn list(plane: &mut Plane) -> Result<List, dmaplane::Error> {
    let buffer = plane.alloc(BLOCKS * BLOCK_BYTES)?;
    let run =
        Run { stride_bytes: BLOCK_BYTES, length_bytes: BLOCK_BYTES as u32, count: BLOCKS as u32, ..Run::default() };
    plane.prepare_list(vec![buffer], &[(0, run)])
}

/// Which block goes where, scattered on both sides.
pub fn pairs() -> Vec<IndexPair> {
    let scattered = |factor: u64, n: u64| (n * factor % BLOCKS) as u32;
    (0..BLOCKS).map(|n| IndexPair { local: scattered(LOCAL_FACTOR, n), remote: scattered(REMOTE_FACTOR, n) }).collect()
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
        let pairs = pairs();
        for side in [|pair: &IndexPair| pair.local, |pair: &IndexPair| pair.remote] {
            let mut blocks: Vec<u32> = pairs.iter().map(side).collect();
            blocks.sort_unstable();
            assert!(blocks.iter().copied().eq(0..BLOCKS as u32));
        }
    }
}
