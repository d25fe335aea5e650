//! The `config.json` that lies beside a Hugging Face model's weights.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ModelError, ModelShape};

/// The keys that matter to this model. Absent ones have the default that transformers gives them.
#[derive(Deserialize, Serialize)]
struct Config {
    #[serde(default = "llama")]
    model_type: String,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    #[serde(default)]
    num_key_value_heads: Option<usize>,
    #[serde(default)]
    head_dim: Option<usize>,
    hidden_size: usize,
    intermediate_size: usize,
    vocab_size: usize,
    #[serde(default)]
    rope_theta: Option<f64>,
    #[serde(default, skip_serializing)]
    rope_scaling: Option<Value>,
    /// Where transformers 5 keeps what the two keys above were.
    #[serde(default, skip_serializing)]
    rope_parameters: Option<Value>,
    #[serde(default = "norm_epsilon")]
    rms_norm_eps: f64,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
}

fn llama() -> String {
    "llama".into()
}

fn silu() -> String {
    "silu".into()
}

fn norm_epsilon() -> f64 {
    1e-6
}

/// Reads a shape, and whether the head is tied to the embedding (`None`: the file does not say).
pub(super) fn load(path: &Path) -> Result<(ModelShape, Option<bool>), ModelError> {
    let text = fs::read_to_string(path).map_err(|source| ModelError::Read { path: path.into(), source })?;
    let config: Config =
        serde_json::from_str(&text).map_err(|source| ModelError::Config { path: path.into(), source })?;

    let unsupported = |key, value: &dyn ToString, supported| ModelError::Unsupported {
        path: path.into(),
        key,
        value: value.to_string(),
        supported,
    };
    if config.model_type != llama() {
        return Err(unsupported("model_type", &config.model_type, "llama"));
    }
    if config.hidden_act != silu() {
        return Err(unsupported("hidden_act", &config.hidden_act, "silu"));
    }
    for (key, is_set) in [("attention_bias", config.attention_bias), ("mlp_bias", config.mlp_bias)] {
        if is_set {
            return Err(unsupported(key, &true, "false"));
        }
    }
    // A stretched embedding that is ignored would give text that is wrong only now and then.
    for (key, rope) in [("rope_scaling", &config.rope_scaling), ("rope_parameters", &config.rope_parameters)] {
        let Some(rope) = rope else { continue };
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        if kind.is_some_and(|kind| kind != "default") {
            return Err(unsupported(key, rope, "the type default"));
        }
    }
    let theta_of_parameters = config.rope_parameters.as_ref().and_then(|rope| rope.get("rope_theta")?.as_f64());

    let shape = ModelShape {
        layers: config.num_hidden_layers,
        query_heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads.unwrap_or(config.num_attention_heads),
        head_size: match config.head_dim {
            Some(head_size) => head_size,
            // 0 heads are for validate to refuse.
            None => config.hidden_size / config.num_attention_heads.max(1),
        },
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        vocabulary_size: config.vocab_size,
        rope_theta: config.rope_theta.or(theta_of_parameters).unwrap_or(10_000.0),
        norm_epsilon: config.rms_norm_eps,
    };
    shape.validate()?;
    Ok((shape, config.tie_word_embeddings))
}

/// Writes what [`load`] reads.
pub(super) fn save(path: &Path, shape: &ModelShape, is_tied: bool) -> Result<(), ModelError> {
    let config = Config {
        model_type: llama(),
        hidden_act: silu(),
        attention_bias: false,
        mlp_bias: false,
        num_hidden_layers: shape.layers,
        num_attention_heads: shape.query_heads,
        num_key_value_heads: Some(shape.kv_heads),
        head_dim: Some(shape.head_size),
        hidden_size: shape.hidden_size,
        intermediate_size: shape.intermediate_size,
        vocab_size: shape.vocabulary_size,
        rope_theta: Some(shape.rope_theta),
        rope_scaling: None,
        rope_parameters: None,
        rms_norm_eps: shape.norm_epsilon,
        tie_word_embeddings: Some(is_tied),
    };
    let failed = |source| ModelError::Write { path: path.into(), source };
    let text = serde_json::to_string_pretty(&config).map_err(|error| failed(error.into()))?;
    fs::write(path, text).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<(ModelShape, Option<bool>), ModelError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs::write(&path, text).unwrap();
        load(&path)
    }

    const SMALLEST: &str = r#""num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64,
        "intermediate_size": 96, "vocab_size": 100, "torch_dtype": "bfloat16""#;

    #[test]
    fn a_saved_shape_is_loaded_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for (shape, is_tied) in [(ModelShape::small(), true), (ModelShape::wide_cache(), false)] {
            save(&path, &shape, is_tied).unwrap();
            assert_eq!(load(&path).unwrap(), (shape, Some(is_tied)));
        }
    }

    #[test]
    fn absent_keys_have_the_defaults_of_transformers() {
        let (shape, is_tied) = load_text(&format!("{{{SMALLEST}}}")).unwrap();
        assert_eq!(is_tied, None);
        assert_eq!((shape.kv_heads, shape.head_size), (4, 16));
        assert_eq!((shape.rope_theta, shape.norm_epsilon), (10_000.0, 1e-6));
    }

    #[test]
    fn the_rotary_base_is_found_in_either_place() {
        for (extra, theta) in [
            (r#""rope_theta": 5e5, "rope_scaling": null"#, 5e5),
            (r#""rope_parameters": {"rope_theta": 7e5, "rope_type": "default"}"#, 7e5),
        ] {
            let (shape, _) = load_text(&format!("{{{SMALLEST}, {extra}}}")).unwrap();
            assert_eq!(shape.rope_theta, theta);
        }
    }

    #[test]
    fn what_is_not_computed_is_refused_by_name() {
        for (extra, named) in [
            (r#""model_type": "gemma""#, "model_type = gemma is not supported, only llama"),
            (r#""hidden_act": "gelu""#, "hidden_act = gelu"),
            (r#""attention_bias": true"#, "attention_bias = true"),
            (r#""rope_scaling": {"rope_type": "llama3", "factor": 8.0}"#, "rope_scaling = {"),
            (r#""num_key_value_heads": 3"#, "kv_heads is 3"),
        ] {
            let error = load_text(&format!("{{{SMALLEST}, {extra}}}")).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        let error = load_text(r#"{"num_hidden_layers": 2}"#).unwrap_err();
        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(reason.contains("missing field `num_attention_heads`"), "{reason}");
    }
}
