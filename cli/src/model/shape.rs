//! The numbers that fix a model's architecture.

use super::ModelError;

/// No dimension of a shape may be larger, so that no product of two of them overflows.
const DIMENSION_MAX: usize = 1 << 24;

/// The shape of a Llama-architecture model. [`ModelShape::validate`] says which values are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelShape {
    /// Transformer layers, each with a KV cache of its own.
    pub layers: usize,
    /// Attention heads that ask.
    pub query_heads: usize,
    /// Attention heads that are cached; each serves `query_heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Numbers in one head's query, key or value; even, because the rotary embedding turns pairs.
    pub head_size: usize,
    /// Numbers in one token's residual stream.
    pub hidden_size: usize,
    /// Numbers between the two halves of a layer's MLP.
    pub intermediate_size: usize,
    /// Tokens that exist; 256 for the byte-level tokenizer.
    pub vocabulary_size: usize,
    /// Base of the rotary embedding's wavelengths (10,000 in the first Llama models).
    pub rope_theta: f64,
    /// Added to the mean square in each RMSNorm, against division by zero.
    pub norm_epsilon: f64,
}

impl ModelShape {
    /// A model for tests and quick demos: its f32 cache is 4 KiB per token.
    pub const fn small() -> Self {
        Self {
            layers: 4,
            query_heads: 8,
            kv_heads: 4,
            head_size: 32,
            hidden_size: 256,
            intermediate_size: 512,
            vocabulary_size: 256,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-5,
        }
    }

    /// A model that two cores serve dozens of requests a second with: its f32 cache is 2 KiB per token.
    pub const fn serving() -> Self {
        Self { head_size: 16, hidden_size: 64, intermediate_size: 128, ..Self::small() }
    }

    /// A model with few weights and a cache as wide as a large model's: 256 KiB per token in f32,
    /// so that a prompt of 1,024 tokens moves 256 MiB.
    pub const fn wide_cache() -> Self {
        Self {
            layers: 16,
            query_heads: 16,
            kv_heads: 16,
            head_size: 128,
            hidden_size: 256,
            intermediate_size: 512,
            vocabulary_size: 256,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-5,
        }
    }

    /// Numbers in one token's keys (and as many in its values) in one layer.
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_size
    }

    /// Numbers in one token's queries in one layer.
    pub const fn query_width(&self) -> usize {
        self.query_heads * self.head_size
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`ModelError::Shape`] names the first value that is not allowed, and the rule.
    pub fn validate(&self) -> Result<(), ModelError> {
        for (name, value) in [
            ("layers", self.layers),
            ("query_heads", self.query_heads),
            ("kv_heads", self.kv_heads),
            ("head_size", self.head_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("vocabulary_size", self.vocabulary_size),
            ("query_heads x head_size", self.query_heads.saturating_mul(self.head_size)),
        ] {
            if value == 0 || value > DIMENSION_MAX {
                return Err(wrong(name, value, format!("1 to {DIMENSION_MAX}")));
            }
        }
        if !self.query_heads.is_multiple_of(self.kv_heads) {
            let rule = format!("a divisor of query_heads ({})", self.query_heads);
            return Err(wrong("kv_heads", self.kv_heads, rule));
        }
        if !self.head_size.is_multiple_of(2) {
            return Err(wrong("head_size", self.head_size, "even".into()));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(wrong("rope_theta", self.rope_theta, "finite and above 0".into()));
        }
        if !(self.norm_epsilon.is_finite() && self.norm_epsilon > 0.0) {
            return Err(wrong("norm_epsilon", self.norm_epsilon, "finite and above 0".into()));
        }
        Ok(())
    }
}

fn wrong(name: &'static str, value: impl ToString, rule: String) -> ModelError {
    ModelError::Shape { name, value: value.to_string(), rule }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_shapes_are_valid_and_have_the_promised_caches() {
        let shapes =
            [(ModelShape::small(), 4 << 10), (ModelShape::serving(), 2 << 10), (ModelShape::wide_cache(), 256 << 10)];
        for (shape, cache_bytes_per_token) in shapes {
            shape.validate().unwrap();
            let sides = 2;
            let cache_bytes = shape.layers * sides * shape.kv_width() * size_of::<f32>();
            assert_eq!(cache_bytes, cache_bytes_per_token);
        }
    }

    #[test]
    fn an_error_names_the_wrong_value_and_the_rule() {
        let small = ModelShape::small();
        for (shape, message) in [
            (ModelShape { layers: 0, ..small }, "model shape: layers is 0, but must be 1 to 16777216"),
            (
                ModelShape { kv_heads: 3, ..small },
                "model shape: kv_heads is 3, but must be a divisor of query_heads (8)",
            ),
            (ModelShape { head_size: 31, ..small }, "model shape: head_size is 31, but must be even"),
            (
                ModelShape { query_heads: 1 << 20, kv_heads: 1, ..small },
                "model shape: query_heads x head_size is 33554432, but must be 1 to 16777216",
            ),
            (
                ModelShape { rope_theta: f64::NAN, ..small },
                "model shape: rope_theta is NaN, but must be finite and above 0",
            ),
            (
                ModelShape { norm_epsilon: -1.0, ..small },
                "model shape: norm_epsilon is -1, but must be finite and above 0",
            ),
        ] {
            assert_eq!(shape.validate().unwrap_err().to_string(), message);
        }
    }
}
