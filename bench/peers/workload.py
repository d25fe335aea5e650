"""What is moved: sizes, random content, the scattered order, and the check that it arrived."""

import sys

try:
    import numpy
except ImportError:
    sys.exit("error: there is no numpy: run this with the Python that `cargo xtask setup --bench` sets up")

LARGE_BYTES = 64 << 20
BLOCK_BYTES = 4096
BLOCKS = 81_920
MEMORY_BYTES = BLOCKS * BLOCK_BYTES
SMALL_WRITES = 200
# Large writes of a measurement, each answered before the next.
ANSWERED_WRITES = 4
# Throughput against the size of a block: plain writes of each, and LARGE_BYTES as scattered blocks of each.
CURVE_BLOCKS_BYTES = tuple(4096 << (2 * step) for step in range(8))
CURVE_WRITES_MAX = 1024

# The same two permutations as the Rust side's: primes that do not divide the number of blocks.
_LOCAL_FACTOR = 7919
_REMOTE_FACTOR = 104_729
_SEED = 20_26
_CHECKED_BYTES = 32 << 20


def random_memory() -> numpy.ndarray:
    """The initiator's memory. Both processes make the same, so that the target can check what arrives."""
    return numpy.random.default_rng(_SEED).integers(0, 256, MEMORY_BYTES, dtype=numpy.uint8)


def empty_memory() -> numpy.ndarray:
    """The target's memory, with all pages present."""
    return numpy.full(MEMORY_BYTES, 0xFF, dtype=numpy.uint8)


def local_blocks(blocks: int = BLOCKS) -> numpy.ndarray:
    """The n-th scattered block's number on the initiator's side."""
    return numpy.arange(blocks, dtype=numpy.uint64) * _LOCAL_FACTOR % blocks


def remote_blocks(blocks: int = BLOCKS) -> numpy.ndarray:
    """The n-th scattered block's number on the target's side."""
    return numpy.arange(blocks, dtype=numpy.uint64) * _REMOTE_FACTOR % blocks


def curve_writes(block_bytes: int) -> int:
    """Plain writes of one size in one measurement."""
    return min(LARGE_BYTES // block_bytes, CURVE_WRITES_MAX)


def difference_in_front(memory: numpy.ndarray, expected: numpy.ndarray, length_bytes: int) -> str | None:
    """What is wrong with the first bytes of the target's memory after a plain write."""
    differing = numpy.flatnonzero(memory[:length_bytes] != expected[:length_bytes])
    if differing.size == 0:
        return None
    return f"{differing.size} of {length_bytes} bytes did not arrive, the first at offset {differing[0]}"


def difference_in_blocks(
    memory: numpy.ndarray, expected: numpy.ndarray, block_bytes: int = BLOCK_BYTES, blocks: int = BLOCKS
) -> str | None:
    """What is wrong with the target's memory after the scattered transfer."""
    arrived = memory[:blocks * block_bytes].reshape(blocks, block_bytes)
    sent = expected[:blocks * block_bytes].reshape(blocks, block_bytes)
    local, remote = local_blocks(blocks), remote_blocks(blocks)
    step = max(_CHECKED_BYTES // block_bytes, 1)
    for start in range(0, blocks, step):
        part = slice(start, start + step)
        wrong = (arrived[remote[part]] != sent[local[part]]).any(axis=1)
        if wrong.any():
            first = start + int(numpy.flatnonzero(wrong)[0])
            return f"{int(wrong.sum())} of blocks {start} to {start + wrong.size} did not arrive, the first is {first}"
    return None
