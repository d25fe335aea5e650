//! A decoder-only transformer of the Llama architecture, small enough to run beside the transport
//! that it demonstrates.
//!
//! The KV cache is not part of the model: [`Transformer::forward`] writes each token's keys and
//! values through [`KvCache`] and reads *all* of them back before it attends. What a cache lost
//! or mixed up on its way between two processes therefore shows in the generated text.
//!
//! The same model, tokens and cache give the same bits in every process of a machine, whatever the
//! number of threads. candle's matrix product divides its output among threads and never a sum, and
//! the depth of its blocks follows from the processor's caches alone; everything else runs on the
//! caller's thread. `tests::determinism` holds it to that.

mod attention;
mod cache;
mod checkpoint;
mod config;
mod error;
mod rotary;
mod sampling;
mod seeded;
mod shape;
mod tokenizer;
mod transformer;
mod weights;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use cache::{KvCache, MemoryCache};
pub use error::ModelError;
pub use sampling::greedy;
pub use shape::ModelShape;
pub use tokenizer::{decode, encode};
pub use transformer::Transformer;
