//! The weights of a model: what there is, how it is named, and how large it is.

use candle_core::Tensor;

use super::{ModelError, ModelShape};

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Embedding,
    AttentionNorm,
    Query,
    Key,
    Value,
    AttentionOutput,
    MlpNorm,
    Gate,
    Up,
    Down,
    FinalNorm,
    Head,
}

impl Role {
    /// `[outputs, inputs]` of a matrix, as Hugging Face stores it; `[size]` of a norm.
    pub(super) fn dimensions(self, shape: &ModelShape) -> Vec<usize> {
        let hidden = shape.hidden_size;
        match self {
            Self::Embedding | Self::Head => vec![shape.vocabulary_size, hidden],
            Self::AttentionNorm | Self::MlpNorm | Self::FinalNorm => vec![hidden],
            Self::Query => vec![shape.query_width(), hidden],
            Self::Key | Self::Value => vec![shape.kv_width(), hidden],
            Self::AttentionOutput => vec![hidden, shape.query_width()],
            Self::Gate | Self::Up => vec![shape.intermediate_size, hidden],
            Self::Down => vec![hidden, shape.intermediate_size],
        }
    }

    /// The name on Hugging Face; `layer` counts from 0 and matters only to the weights of a layer.
    pub(super) fn name(self, layer: usize) -> String {
        let part = match self {
            Self::Embedding => return "model.embed_tokens.weight".into(),
            Self::FinalNorm => return "model.norm.weight".into(),
            Self::Head => return "lm_head.weight".into(),
            Self::AttentionNorm => "input_layernorm",
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::AttentionOutput => "self_attn.o_proj",
            Self::MlpNorm => "post_attention_layernorm",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        };
        format!("model.layers.{layer}.{part}.weight")
    }
}

/// Every weight of a model, in f32.
pub(super) struct Weights {
    /// `[vocabulary_size, hidden_size]`.
    pub(super) embedding: Tensor,
    /// One per layer.
    pub(super) layers: Vec<LayerWeights>,
    /// `[hidden_size]`.
    pub(super) final_norm: Tensor,
    /// `[vocabulary_size, hidden_size]`; without it the embedding is the head too (they are tied).
    pub(super) head: Option<Tensor>,
}

/// The weights of one layer; [`Role::dimensions`] has their sizes.
pub(super) struct LayerWeights {
    pub(super) attention_norm: Tensor,
    pub(super) query: Tensor,
    pub(super) key: Tensor,
    pub(super) value: Tensor,
    pub(super) attention_output: Tensor,
    pub(super) mlp_norm: Tensor,
    pub(super) gate: Tensor,
    pub(super) up: Tensor,
    pub(super) down: Tensor,
}

impl Weights {
    /// Asks `source` for every weight by role and layer.
    ///
    /// # Errors
    /// The first error of `source`.
    pub(super) fn collect(
        shape: &ModelShape,
        is_tied: bool,
        mut source: impl FnMut(Role, usize) -> Result<Tensor, ModelError>,
    ) -> Result<Self, ModelError> {
        let mut layers = Vec::new();
        for layer in 0..shape.layers {
            layers.push(LayerWeights {
                attention_norm: source(Role::AttentionNorm, layer)?,
                query: source(Role::Query, layer)?,
                key: source(Role::Key, layer)?,
                value: source(Role::Value, layer)?,
                attention_output: source(Role::AttentionOutput, layer)?,
                mlp_norm: source(Role::MlpNorm, layer)?,
                gate: source(Role::Gate, layer)?,
                up: source(Role::Up, layer)?,
                down: source(Role::Down, layer)?,
            });
        }
        Ok(Self {
            embedding: source(Role::Embedding, 0)?,
            layers,
            final_norm: source(Role::FinalNorm, 0)?,
            head: if is_tied { None } else { Some(source(Role::Head, 0)?) },
        })
    }

    /// Every weight with its name.
    pub(super) fn by_name(&self) -> Vec<(String, Tensor)> {
        let mut named =
            vec![(Role::Embedding.name(0), self.embedding.clone()), (Role::FinalNorm.name(0), self.final_norm.clone())];
        named.extend(self.head.iter().map(|head| (Role::Head.name(0), head.clone())));
        for (index, layer) in self.layers.iter().enumerate() {
            for (role, tensor) in [
                (Role::AttentionNorm, &layer.attention_norm),
                (Role::Query, &layer.query),
                (Role::Key, &layer.key),
                (Role::Value, &layer.value),
                (Role::AttentionOutput, &layer.attention_output),
                (Role::MlpNorm, &layer.mlp_norm),
                (Role::Gate, &layer.gate),
                (Role::Up, &layer.up),
                (Role::Down, &layer.down),
            ] {
                named.push((role.name(index), tensor.clone()));
            }
        }
        named
    }
}
