//! What the demo relies on: the right numbers, the same bits everywhere, and text that shows every
//! fault of the cache.

use std::collections::HashSet;
use std::time::Instant;

use super::{KvCache, MemoryCache, ModelError, ModelShape, Transformer, decode, encode, greedy, reference};

mod determinism;
mod faults;

const SEED: u64 = 42;
const PROMPT_TOKENS: usize = 200;

const TINY: ModelShape = ModelShape {
    layers: 2,
    query_heads: 4,
    kv_heads: 2,
    head_size: 8,
    hidden_size: 24,
    intermediate_size: 40,
    vocabulary_size: 50,
    ..ModelShape::small()
};

fn prompt(tokens: usize) -> Vec<u32> {
    let text = "A cache that moves must arrive whole, in order and in time; the text tells. ";
    encode(&text.repeat(tokens / text.len() + 1)[..tokens])
}

/// Chooses `count` tokens from these logits on, and returns them with the last logits.
fn generate(
    model: &Transformer,
    cache: &mut impl KvCache,
    mut logits: Vec<f32>,
    position: usize,
    count: usize,
) -> (Vec<u32>, Vec<f32>) {
    let mut tokens = Vec::new();
    for position in position..position + count {
        let token = greedy(&logits);
        tokens.push(token);
        logits = model.forward(&[token], position, cache).unwrap();
    }
    (tokens, logits)
}

/// A model after the prefill of a prompt.
struct Prefilled {
    model: Transformer,
    cache: MemoryCache,
    logits: Vec<f32>,
    tokens: usize,
}

impl Prefilled {
    fn new(shape: ModelShape, tokens: usize) -> Self {
        let model = Transformer::seeded(shape, SEED).unwrap();
        let mut cache = MemoryCache::new(&shape);
        let logits = model.forward(&prompt(tokens), 0, &mut cache).unwrap();
        Self { model, cache, logits, tokens }
    }

    /// What 16 decode steps give on a changed copy of the cache.
    fn decode(&self, change: impl FnOnce(&mut MemoryCache)) -> (Vec<u32>, Vec<f32>) {
        let mut cache = self.cache.clone();
        change(&mut cache);
        generate(&self.model, &mut cache, self.logits.clone(), self.tokens, 16)
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn distance_max(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

#[test]
fn the_logits_are_those_of_the_reference() {
    let shapes =
        [TINY, ModelShape { kv_heads: 1, ..TINY }, ModelShape { kv_heads: 4, head_size: 2, rope_theta: 300.0, ..TINY }];
    for shape in shapes {
        let model = Transformer::seeded(shape, SEED).unwrap();
        let tokens: Vec<u32> = (0..150).map(|i| i * i * 7 % 50).collect();
        let expected = reference::logits(&model, &tokens);
        // At once, and as a prefill in two chunks with decode steps behind it.
        let at_once = model.forward(&tokens, 0, &mut MemoryCache::new(&shape)).unwrap();
        let mut cache = MemoryCache::new(&shape);
        model.forward(&tokens[..130], 0, &mut cache).unwrap();
        let mut stepwise = model.forward(&tokens[130..145], 130, &mut cache).unwrap();
        for position in 145..150 {
            stepwise = model.forward(&tokens[position..=position], position, &mut cache).unwrap();
        }
        let expected: Vec<f32> = expected.into_iter().map(|logit| logit as f32).collect();
        assert!(expected.iter().any(|logit| logit.abs() > 1.0));
        for logits in [at_once, stepwise] {
            assert_eq!(logits.len(), shape.vocabulary_size);
            let distance = distance_max(&logits, &expected);
            assert!(distance < 1e-3, "{shape:?}: off by {distance}");
        }
    }
}

#[test]
fn a_saved_model_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let model = Transformer::seeded(TINY, SEED).unwrap();
    model.save_safetensors(&path).unwrap();
    let loaded = Transformer::from_safetensors(&path).unwrap();
    assert_eq!(loaded.shape(), &TINY);
    let logits =
        [model, loaded].map(|model| bits(&model.forward(&[3, 1, 4, 1, 5], 0, &mut MemoryCache::new(&TINY)).unwrap()));
    assert_eq!(logits[0], logits[1]);
}

#[test]
fn the_text_is_printable_and_does_not_run_in_circles() {
    let run = Prefilled::new(ModelShape::small(), PROMPT_TOKENS);
    let mut cache = run.cache.clone();
    let (tokens, _) = generate(&run.model, &mut cache, run.logits.clone(), run.tokens, 128);
    let text = decode(&tokens);
    assert!(text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{text:?}");
    for window in tokens.chunks(32) {
        let distinct: HashSet<_> = window.iter().collect();
        assert!(distinct.len() >= 12, "{text}");
    }
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let model = Transformer::seeded(TINY, SEED).unwrap();
    let refuse =
        |tokens: &[u32], start| model.forward(tokens, start, &mut MemoryCache::new(&TINY)).unwrap_err().to_string();
    assert_eq!(refuse(&[], 0), "forward needs at least one token");
    assert_eq!(refuse(&[1, 50], 0), "token 1 of the chunk is 50, but the vocabulary has 50");
    assert!(refuse(&[1, 2], usize::MAX).contains("exceed the 16777216 positions"));
    // The cache's own reason comes through.
    assert_eq!(refuse(&[1], 5), "KV cache, layer 0");
    let Err(error) = Transformer::seeded(ModelShape { kv_heads: 0, ..TINY }, SEED) else {
        panic!("a model without heads");
    };
    assert!(error.to_string().contains("kv_heads is 0"));
}

#[test]
fn a_cache_that_gives_too_little_or_no_numbers_is_found_out() {
    struct Broken(fn(&mut Vec<f32>));
    impl KvCache for Broken {
        fn write(&mut self, _: usize, _: usize, _: &[f32], _: &[f32]) -> Result<(), ModelError> {
            Ok(())
        }
        fn read(&self, _: usize, tokens: usize, keys: &mut Vec<f32>, values: &mut Vec<f32>) -> Result<(), ModelError> {
            keys.resize(tokens * TINY.kv_width(), 1.0);
            values.resize(tokens * TINY.kv_width(), 1.0);
            self.0(values);
            Ok(())
        }
    }
    let model = Transformer::seeded(TINY, SEED).unwrap();
    let run = |broken| model.forward(&[1, 2], 0, &mut Broken(broken));
    assert!(run(|_| ()).is_ok());
    let error = run(|values| values.truncate(31)).unwrap_err();
    assert_eq!(error.to_string(), "KV cache, layer 0: read gave 31 value numbers, expected 32");
    let error = run(|values| values[31] = f32::NAN).unwrap_err();
    assert!(matches!(error, ModelError::Logit { .. }), "{error}");
}

#[test]
fn a_layer_is_announced_when_it_is_written_and_before_the_next_one_is() {
    struct Announced {
        cache: MemoryCache,
        layers: Vec<usize>,
        fails_at: usize,
    }
    impl KvCache for Announced {
        fn write(&mut self, layer: usize, position: usize, key: &[f32], value: &[f32]) -> Result<(), ModelError> {
            assert_eq!(self.layers.len(), layer, "written after it was announced, or before an earlier one was");
            self.cache.write(layer, position, key, value)
        }
        fn read(&self, layer: usize, tokens: usize, k: &mut Vec<f32>, v: &mut Vec<f32>) -> Result<(), ModelError> {
            assert_eq!(self.layers.last(), Some(&layer));
            self.cache.read(layer, tokens, k, v)
        }
        fn layer_written(&mut self, layer: usize) -> Result<(), ModelError> {
            assert_eq!(self.cache.keys[layer].len(), 3 * TINY.kv_width());
            self.layers.push(layer);
            let full = || ModelError::Cache { layer, source: "the wire is cut".into() };
            if layer == self.fails_at { Err(full()) } else { Ok(()) }
        }
    }
    let model = Transformer::seeded(TINY, SEED).unwrap();
    let cache = |fails_at| Announced { cache: MemoryCache::new(&TINY), layers: Vec::new(), fails_at };
    let mut whole = cache(usize::MAX);
    model.forward(&[3, 1, 4], 0, &mut whole).unwrap();
    assert_eq!(whole.layers, [0, 1]);
    let mut cut = cache(0);
    assert_eq!(model.forward(&[3, 1, 4], 0, &mut cut).unwrap_err().to_string(), "KV cache, layer 0");
    assert_eq!(cut.layers, [0], "the chunk ended there");
}

/// Not a test but the numbers behind the demo's defaults:
/// `cargo test --release -p dmaplane-cli -- --ignored --nocapture print_timings`.
#[test]
#[ignore = "a measurement"]
fn print_timings() {
    for (name, shape, tokens) in
        [("small", ModelShape::small(), PROMPT_TOKENS), ("wide_cache", ModelShape::wide_cache(), 1024)]
    {
        let start = Instant::now();
        drop(Transformer::seeded(shape, SEED));
        let seeded = start.elapsed();
        let start = Instant::now();
        let run = Prefilled::new(shape, tokens);
        let prefill = start.elapsed() - seeded;
        let mut cache = run.cache.clone();
        let start = Instant::now();
        let (generated, _) = generate(&run.model, &mut cache, run.logits.clone(), tokens, 64);
        println!(
            "{name}: weights {seeded:?}, prefill of {tokens} {prefill:?}, decode {:?} a token\n{}",
            start.elapsed() / 64,
            decode(&generated),
        );
    }
}
