//! The same model once more, for tests: plain loops in f64 over the whole text, no cache, no candle
//! arithmetic, written from the architecture's definition and not from the code it checks.

use std::collections::HashMap;

use super::{ModelShape, Transformer};

/// Weights by their Hugging Face name, row after row.
type Numbers = HashMap<String, Vec<f64>>;

/// The logits of the token after `tokens`.
pub(super) fn logits(model: &Transformer, tokens: &[u32]) -> Vec<f64> {
    let shape = model.shape();
    let weights = numbers(model);
    let embedding = &weights["model.embed_tokens.weight"];
    let mut hidden: Vec<Vec<f64>> = tokens
        .iter()
        .map(|&token| embedding[token as usize * shape.hidden_size..][..shape.hidden_size].to_vec())
        .collect();
    for layer in 0..shape.layers {
        let weight = |part: &str| &weights[&format!("model.layers.{layer}.{part}.weight")];
        let normed = norm_all(shape, &hidden, weight("input_layernorm"));
        let project = |part: &str| -> Vec<Vec<f64>> { normed.iter().map(|x| product(weight(part), x)).collect() };
        let (mut queries, mut keys) = (project("self_attn.q_proj"), project("self_attn.k_proj"));
        let values = project("self_attn.v_proj");
        for position in 0..tokens.len() {
            rotate(shape, position, &mut queries[position]);
            rotate(shape, position, &mut keys[position]);
        }
        for (position, query) in queries.iter().enumerate() {
            let mixed = attend(shape, query, &keys[..=position], &values[..=position]);
            add(&mut hidden[position], &product(weight("self_attn.o_proj"), &mixed));
        }
        let normed = norm_all(shape, &hidden, weight("post_attention_layernorm"));
        for (hidden, normed) in hidden.iter_mut().zip(&normed) {
            let gate = product(weight("mlp.gate_proj"), normed);
            let up = product(weight("mlp.up_proj"), normed);
            let inner: Vec<f64> = gate.iter().zip(up).map(|(g, up)| g / (1.0 + (-g).exp()) * up).collect();
            add(hidden, &product(weight("mlp.down_proj"), &inner));
        }
    }
    let last = norm_all(shape, &hidden[tokens.len() - 1..], &weights["model.norm.weight"]);
    product(weights.get("lm_head.weight").unwrap_or(embedding), &last[0])
}

fn numbers(model: &Transformer) -> Numbers {
    let as_f64 = |(name, tensor): (String, candle_core::Tensor)| {
        let numbers: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        (name, numbers.into_iter().map(f64::from).collect())
    };
    model.weights_by_name().into_iter().map(as_f64).collect()
}

/// A matrix `[outputs, inputs]` times a vector.
fn product(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    let row = |row: &[f64]| row.iter().zip(vector).map(|(a, b)| a * b).sum();
    matrix.chunks_exact(vector.len()).map(row).collect()
}

fn add(to: &mut [f64], what: &[f64]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += what;
    }
}

fn norm_all(shape: &ModelShape, tokens: &[Vec<f64>], weight: &[f64]) -> Vec<Vec<f64>> {
    let norm = |token: &Vec<f64>| {
        let mean_square = token.iter().map(|x| x * x).sum::<f64>() / token.len() as f64;
        let root = (mean_square + shape.norm_epsilon).sqrt();
        token.iter().zip(weight).map(|(x, weight)| x / root * weight).collect()
    };
    tokens.iter().map(norm).collect()
}

/// x cos + rotate_half(x) sin, the form in which transformers has it.
fn rotate(shape: &ModelShape, position: usize, heads: &mut [f64]) {
    let half = shape.head_size / 2;
    for head in heads.chunks_exact_mut(shape.head_size) {
        let old = head.to_vec();
        for index in 0..shape.head_size {
            let power = 2.0 * (index % half) as f64 / shape.head_size as f64;
            let angle = position as f64 / shape.rope_theta.powf(power);
            let other = if index < half { -old[index + half] } else { old[index - half] };
            head[index] = old[index] * angle.cos() + other * angle.sin();
        }
    }
}

fn attend(shape: &ModelShape, query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
    let size = shape.head_size;
    let mut mixed = vec![0.0; query.len()];
    for head in 0..shape.query_heads {
        let kv_head = head / (shape.query_heads / shape.kv_heads);
        let query = &query[head * size..][..size];
        let weights: Vec<f64> = keys
            .iter()
            .map(|key| {
                let score = product(&key[kv_head * size..][..size], query)[0];
                (score / (size as f64).sqrt()).exp()
            })
            .collect();
        let sum: f64 = weights.iter().sum();
        for (weight, value) in weights.iter().zip(values) {
            for index in 0..size {
                mixed[head * size + index] += weight / sum * value[kv_head * size + index];
            }
        }
    }
    mixed
}
