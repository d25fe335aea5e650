//! Weights in the safetensors format, under the names that Llama models have on Hugging Face.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::safetensors::{Load, SliceSafetensors};
use candle_core::{DType, Device, Tensor};

use super::weights::{Role, Weights};
use super::{ModelError, ModelShape, config};

fn config_path(weights_path: &Path) -> PathBuf {
    weights_path.with_file_name("config.json")
}

/// Loads a model whose `config.json` lies beside its weights.
pub(super) fn load(path: &Path) -> Result<(ModelShape, Weights), ModelError> {
    let (shape, is_tied) = config::load(&config_path(path))?;
    let bytes = fs::read(path).map_err(|source| ModelError::Read { path: path.into(), source })?;
    let file = SliceSafetensors::new(&bytes)
        .map_err(|source| ModelError::Format { path: path.into(), source: Box::new(source) })?;
    let mut unused: HashSet<String> = file.tensors().into_iter().map(|(name, _)| name).collect();

    // A config that does not say leaves it to the file; one that says no requires the head.
    let is_tied = is_tied.unwrap_or(!unused.contains(&Role::Head.name(0)));
    let weights = Weights::collect(&shape, is_tied, |role, layer| {
        let name = role.name(layer);
        if !unused.remove(&name) {
            return Err(ModelError::TensorMissing { name });
        }
        load_tensor(&file, name, role.dimensions(&shape))
    })?;

    if is_tied {
        // Some files hold the embedding twice.
        unused.remove(&Role::Head.name(0));
    }
    // Old files carry the rotary embedding's wavelengths, which follow from the config.
    let strangers = unused.into_iter().filter(|name| !name.ends_with(".rotary_emb.inv_freq"));
    match strangers.min() {
        Some(name) => Err(ModelError::TensorUnexpected { name }),
        None => Ok((shape, weights)),
    }
}

fn load_tensor(file: &SliceSafetensors, name: String, expected: Vec<usize>) -> Result<Tensor, ModelError> {
    let view = file.get(&name)?;
    if view.shape() != expected {
        return Err(ModelError::TensorDimensions { name, found: view.shape().into(), expected });
    }
    match DType::try_from(view.dtype()) {
        Ok(DType::F32 | DType::BF16 | DType::F16) => Ok(view.load(&Device::Cpu)?.to_dtype(DType::F32)?),
        _ => Err(ModelError::TensorType { name, found: format!("{:?}", view.dtype()) }),
    }
}

/// Saves a model in f32, with a `config.json` beside it.
pub(super) fn save(path: &Path, shape: &ModelShape, weights: &Weights) -> Result<(), ModelError> {
    config::save(&config_path(path), shape, weights.head.is_none())?;
    let tensors: HashMap<String, Tensor> = weights.by_name().into_iter().collect();
    candle_core::safetensors::save(&tensors, path)
        .map_err(|source| ModelError::Write { path: path.into(), source: source.into() })
}

#[cfg(test)]
mod tests {
    use super::super::seeded;
    use super::*;

    const SHAPE: ModelShape = ModelShape {
        layers: 2,
        query_heads: 4,
        kv_heads: 2,
        head_size: 4,
        hidden_size: 12,
        intermediate_size: 20,
        vocabulary_size: 11,
        ..ModelShape::small()
    };

    /// Saves a seeded model after `change`, loads it, and hands the result to `check`.
    fn reload(change: impl FnOnce(&mut HashMap<String, Tensor>), is_tied: bool) -> Result<Weights, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let weights = seeded::weights(&SHAPE, 1).unwrap();
        let mut tensors: HashMap<String, Tensor> = weights.by_name().into_iter().collect();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        config::save(&config_path(&path), &SHAPE, is_tied).unwrap();
        load(&path).map(|(shape, weights)| {
            assert_eq!(shape, SHAPE);
            weights
        })
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn every_weight_survives_the_round_trip_bit_for_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let saved = seeded::weights(&SHAPE, 1).unwrap();
        save(&path, &SHAPE, &saved).unwrap();
        let (shape, loaded) = load(&path).unwrap();
        assert_eq!(shape, SHAPE);
        let (saved, loaded) = (saved.by_name(), loaded.by_name());
        assert_eq!(saved.len(), 9 * SHAPE.layers + 3);
        for ((name, saved), (loaded_name, loaded)) in saved.iter().zip(&loaded) {
            assert_eq!((name, saved.dims()), (loaded_name, loaded.dims()));
            assert_eq!(numbers(saved), numbers(loaded));
        }
    }

    #[test]
    fn halves_are_converted() {
        for dtype in [DType::BF16, DType::F16] {
            let weights = reload(
                |tensors| {
                    for tensor in tensors.values_mut() {
                        *tensor = tensor.to_dtype(dtype).unwrap();
                    }
                },
                false,
            )
            .unwrap();
            let original = seeded::weights(&SHAPE, 1).unwrap();
            let rounded = original.embedding.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
            assert_eq!(weights.embedding.dtype(), DType::F32);
            assert_eq!(numbers(&weights.embedding), numbers(&rounded));
        }
    }

    #[test]
    fn a_tied_model_needs_no_head_and_ignores_one() {
        assert!(reload(|_| (), true).unwrap().head.is_none());
        let without = |tensors: &mut HashMap<String, Tensor>| {
            tensors.remove("lm_head.weight").unwrap();
        };
        assert!(reload(without, true).unwrap().head.is_none());
        let error = reload(without, false).err().unwrap();
        assert_eq!(error.to_string(), "tensor lm_head.weight is missing");
    }

    #[test]
    fn odd_tensors_are_refused_by_name() {
        let name = "model.layers.1.mlp.up_proj.weight";
        let flipped = |tensors: &mut HashMap<String, Tensor>| {
            let tensor = tensors[name].t().unwrap().contiguous().unwrap();
            tensors.insert(name.into(), tensor);
        };
        let integers = |tensors: &mut HashMap<String, Tensor>| {
            let tensor = tensors[name].to_dtype(DType::U8).unwrap();
            tensors.insert(name.into(), tensor);
        };
        let biased = |tensors: &mut HashMap<String, Tensor>| {
            let bias = tensors["model.norm.weight"].clone();
            tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), bias);
        };
        let removed = |tensors: &mut HashMap<String, Tensor>| {
            tensors.remove(name).unwrap();
        };
        let message = |error: Result<Weights, ModelError>| error.err().unwrap().to_string();
        assert_eq!(message(reload(removed, false)), format!("tensor {name} is missing"));
        assert_eq!(
            message(reload(flipped, false)),
            format!("tensor {name} has dimensions [12, 20], expected [20, 12]"),
        );
        assert_eq!(
            message(reload(integers, false)),
            format!("tensor {name} is of type U8, supported are F32, BF16 and F16"),
        );
        assert!(message(reload(biased, false)).contains("layers.0.self_attn.q_proj.bias"));
    }

    #[test]
    fn a_cut_file_and_a_missing_one_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let missing = load(&path).err().unwrap();
        let ModelError::Read { path: file, .. } = missing else {
            panic!("{missing}");
        };
        assert_eq!(file, config_path(&path));
        save(&path, &SHAPE, &seeded::weights(&SHAPE, 1).unwrap()).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(load(&path), Err(ModelError::Format { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(load(&path), Err(ModelError::Read { path: file, .. }) if file == path));
    }
}
