//! What can go wrong in the model: one variant per broken rule.

use std::error::Error;
use std::io;
use std::path::PathBuf;

/// Why a model could not be built, loaded, saved or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A number of the shape is outside what the architecture allows.
    #[error("model shape: {name} is {value}, but must be {rule}")]
    Shape {
        /// The field of `ModelShape`.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        rule: String,
    },

    /// `forward` was called without a token.
    #[error("forward needs at least one token")]
    NoTokens,

    /// A token lies outside the vocabulary.
    #[error("token {index} of the chunk is {token}, but the vocabulary has {vocabulary_size}")]
    Token {
        /// Index into the tokens given to `forward`.
        index: usize,
        /// The token.
        token: u32,
        /// The size of the vocabulary, tokens.
        vocabulary_size: usize,
    },

    /// The chunk ends behind the last position that the model numbers exactly.
    #[error("{tokens} tokens from position {start} on exceed the {position_count_max} positions")]
    Position {
        /// Position of the chunk's first token.
        start: usize,
        /// Tokens in the chunk.
        tokens: usize,
        /// How many positions there are.
        position_count_max: usize,
    },

    /// The cache could not store or give back a layer's keys and values (its own reason inside).
    #[error("KV cache, layer {layer}")]
    Cache {
        /// The layer, counted from 0.
        layer: usize,
        /// The cache's own error.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// The cache gave back more or fewer numbers than the layer has.
    #[error("KV cache, layer {layer}: read gave {found} {side} numbers, expected {expected}")]
    CacheLength {
        /// The layer, counted from 0.
        layer: usize,
        /// "key" or "value".
        side: &'static str,
        /// Numbers given, f32 each.
        found: usize,
        /// Numbers expected: tokens x kv_heads x head_size.
        expected: usize,
    },

    /// A logit is infinite or not a number, so that no token can be chosen.
    #[error("logit {index} is {value}: the weights or the KV cache hold numbers that are no sane f32")]
    Logit {
        /// The token whose logit it is.
        index: usize,
        /// The logit.
        value: f32,
    },

    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },

    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },

    /// `config.json` is no JSON, lacks a key, or a key has the wrong type.
    #[error("{} does not describe a Llama model", path.display())]
    Config {
        /// The config.json.
        path: PathBuf,
        /// Where and what, from the parser.
        #[source]
        source: serde_json::Error,
    },

    /// `config.json` asks for something that this model does not compute.
    #[error("{}: {key} = {value} is not supported, only {supported}", path.display())]
    Unsupported {
        /// The config.json.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be.
        supported: &'static str,
    },

    /// The file is not in the safetensors format.
    #[error("{} is not a safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        #[source]
        source: Box<candle_core::Error>,
    },

    /// A tensor that the shape requires is not in the file.
    #[error("tensor {name} is missing")]
    TensorMissing {
        /// Its name.
        name: String,
    },

    /// The file holds a tensor that a plain Llama model does not have (a bias, a quantisation
    /// scale), so that running without it would give wrong results.
    #[error("tensor {name} does not belong to a plain Llama model of this shape")]
    TensorUnexpected {
        /// Its name.
        name: String,
    },

    /// A tensor's dimensions do not follow from the shape.
    #[error("tensor {name} has dimensions {found:?}, expected {expected:?}")]
    TensorDimensions {
        /// Its name.
        name: String,
        /// Dimensions in the file.
        found: Vec<usize>,
        /// Dimensions by the shape.
        expected: Vec<usize>,
    },

    /// A tensor's numbers are of a type that is not converted.
    #[error("tensor {name} is of type {found}, supported are F32, BF16 and F16")]
    TensorType {
        /// Its name.
        name: String,
        /// Its type.
        found: String,
    },

    /// candle refused an operation: a bug in the model, as its inputs have been checked by then.
    #[error("tensor operation failed")]
    Maths(#[source] Box<candle_core::Error>),
}

impl From<candle_core::Error> for ModelError {
    fn from(source: candle_core::Error) -> Self {
        Self::Maths(Box::new(source))
    }
}
