//! What the loom models share: loom's atomics behind the ring's traits, weakened ones for the negative controls, a ring
//! made of them, and two ways to sleep.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p dmaplane-loom-tests --release` explores every execution with at most three
//! preemptions (`LOOM_MAX_PREEMPTIONS`) of each model in `tests/`. Without `--cfg loom` the crate is empty.
//!
//! The models run the very code that ships; only the atomics and the memory below it are loom's. Limits of the method:
//! loom 0.7 gives a failed exchange the newest value where the language allows an older one, remembers the last seven
//! stores of a word, and leaves out orders of execution where a thread loads a word before it stores to it; for such
//! words there is `LoomU32::chained`.

#[cfg(loom)]
pub mod atomics;
#[cfg(loom)]
pub mod checked;
#[cfg(loom)]
pub mod context;
#[cfg(loom)]
pub mod memory;
#[cfg(loom)]
pub mod model;
#[cfg(loom)]
pub mod narrow;
#[cfg(loom)]
pub mod sleeping;
