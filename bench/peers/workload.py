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

# The same two permutations as the Rust side's: primes that do not divide the number of blocks.
_LOCAL_FACTOR = 7919
_REMOTE_FACTOR = 104_729
_SEED = 20_26
_CHECKED_BLOCKS = 8192


def random_memory() -> numpy.ndarray:
    """The initiator's memory. Both processes make the same, so that the target can check what arrives."""
    return numpy.random.default_rng(_SEED).integers(0, 256, MEMORY_BYTES, dtype=numpy.uint8)


def empty_memory() -> numpy.ndarray:
    """The target's memory, with all pages present."""
    return numpy.full(MEMORY_BYTES, 0xFF, dtype=numpy.uint8)


def local_blocks() -> numpy.ndarray:
    """The n-th scattered block's number on the initiator's side."""
    return numpy.arange(BLOCKS, dtype=numpy.uint64) * _LOCAL_FACTOR % BLOCKS


def remote_blocks() -> numpy.ndarray:
    """The n-th scattered block's number on the target's side."""
    return numpy.arange(BLOCKS, dtype=numpy.uint64) * _REMOTE_FACTOR % BLOCKS


def difference_in_front(memory: numpy.ndarray, expected: numpy.ndarray, length_bytes: int) -> str | None:
    """What is wrong with the first bytes of the target's memory after a plain write."""
    differing = numpy.flatnonzero(memory[:length_bytes] != expected[:length_bytes])
    if differing.size == 0:
        return None
    return f"{differing.size} of {length_bytes} bytes did not arrive, the first at offset {differing[0]}"


def difference_in_blocks(memory: numpy.ndarray, expected: numpy.ndarray) -> str | None:
    """What is wrong with the target's memory after the scattered transfer."""
    arrived = memory.reshape(BLOCKS, BLOCK_BYTES)
    sent = expected.reshape(BLOCKS, BLOCK_BYTES)
    local, remote = local_blocks(), remote_blocks()
    for start in range(0, BLOCKS, _CHECKED_BLOCKS):
        part = slice(start, start + _CHECKED_BLOCKS)
        wrong = (arrived[remote[part]] != sent[local[part]]).any(axis=1)
        if wrong.any():
            first = start + int(numpy.flatnonzero(wrong)[0])
            return f"{int(wrong.sum())} of blocks {start} to {start + wrong.size} did not arrive, the first is {first}"
    return None
