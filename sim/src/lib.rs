//! A seeded, deterministic world in which the engine runs: planes, a network with any delay, deaths at any moment.
//!
//! Nothing here looks into the engine. [`host`] is a host whose buffers are vectors and which notes every breach of its
//! contract; [`world`] joins planes by connections over which bytes really move; [`model`] is the reference, written
//! from the semantics: what an SQE may come to, in which order, and how often. [`script`] turns bytes into programs, so
//! that proptest and the fuzzers drive the same world.
//!
//! The same seed and the same script give the same run, always.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod compose;
pub mod host;
pub mod model;
pub mod random;
pub mod script;
pub mod storage;
pub mod world;
mod world_end;
pub mod world_move;
