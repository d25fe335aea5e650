//! Weights from a seed: a model without a download, the same in every process.
//!
//! Nothing is trained, so the text means nothing; what matters is that it depends on the whole
//! cache. The gains below are chosen for that, and `tests` holds them to it.

use candle_core::{Device, Tensor};

use super::tokenizer::is_printable;
use super::weights::{Role, Weights};
use super::{ModelError, ModelShape};

/// The standard deviation of a matrix's outputs where its inputs have a standard deviation of 1
/// (of the embedding: of its numbers).
fn gain(role: Role) -> f32 {
    match role {
        // Below what attention adds: the next token must follow from the context more than from the
        // last token, which alone would soon run in circles.
        Role::Embedding => 0.6,
        // Scores of standard deviation 3 (1.75 squared): each head listens to few tokens, others at
        // each step. With 2 (a gain of 1.4) all heads average, and the text repeats a few letters.
        Role::Query | Role::Key => 1.75,
        Role::Value => 1.0,
        // An average over some tokens is smaller than one token's value; this makes up for it.
        Role::AttentionOutput => 2.0,
        // Strong enough to tear apart what differs a little: a fault grows from layer to layer.
        Role::Gate | Role::Up => 1.5,
        Role::Down => 2.0,
        Role::Head => 3.0,
        Role::AttentionNorm | Role::MlpNorm | Role::FinalNorm => 1.0,
    }
}

/// All weights of a model, from a seed. The head is separate: tied to the embedding it would favour
/// repeating the last token.
pub(super) fn weights(shape: &ModelShape, seed: u64) -> Result<Weights, ModelError> {
    let is_tied = false;
    Weights::collect(shape, is_tied, |role, layer| {
        let dimensions = role.dimensions(shape);
        let count = dimensions.iter().product();
        let numbers = match (role, &*dimensions) {
            (Role::AttentionNorm | Role::MlpNorm | Role::FinalNorm, _) => vec![gain(role); count],
            (Role::Embedding, _) => normal(seed, &role.name(layer), gain(role), count),
            (_, &[_, inputs]) => {
                let deviation = gain(role) / (inputs as f32).sqrt();
                let mut numbers = normal(seed, &role.name(layer), deviation, count);
                // With bytes for tokens, readable text: the logits of all others are 0, and the
                // largest of 95 random ones is above that.
                if role == Role::Head && shape.vocabulary_size == 256 {
                    for (token, row) in numbers.chunks_exact_mut(inputs).enumerate() {
                        if !is_printable(token) {
                            row.fill(0.0);
                        }
                    }
                }
                numbers
            }
            _ => unreachable!("every weight but the norms is a matrix"),
        };
        Ok(Tensor::from_vec(numbers, dimensions, &Device::Cpu)?)
    })
}

/// `count` numbers of about a normal distribution around 0. Each name has a sequence of its own, so
/// that a weight does not depend on the order in which weights are made.
fn normal(seed: u64, name: &str, deviation: f32, count: usize) -> Vec<f32> {
    let mut generator = SplitMix64 { state: seed ^ fnv1a(name) };
    // A sum of four uniform numbers is bell-shaped enough, and it takes one step of the generator
    // and no function of libm, whose last bit may differ between systems.
    const MEAN: f32 = 4.0 * 65_535.0 / 2.0;
    const DEVIATION: f32 = 37_837.227; // 65,536 x sqrt(4 / 12)
    let scale = deviation / DEVIATION;
    (0..count)
        .map(|_| {
            let bits = generator.next();
            let sum: u64 = [0, 16, 32, 48].iter().map(|shift| bits >> shift & 0xFFFF).sum();
            (sum as f32 - MEAN) * scale
        })
        .collect()
}

/// Steele, Lea and Flood's generator ("Fast splittable pseudorandom number generators", 2014).
struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// The 64-bit FNV-1a hash.
fn fnv1a(name: &str) -> u64 {
    name.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_and_the_hash_give_their_published_values() {
        let mut generator = SplitMix64 { state: 1_234_567 };
        assert_eq!(generator.next(), 6_457_827_717_110_365_317);
        assert_eq!(generator.next(), 3_203_168_211_198_807_973);
        assert_eq!(fnv1a(""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a("a"), 0xAF63_DC4C_8601_EC8C);
    }

    #[test]
    fn the_numbers_have_the_asked_mean_and_deviation() {
        let numbers = normal(7, "name", 0.5, 100_000);
        let count = numbers.len() as f64;
        let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let square = numbers.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((square.sqrt() - 0.5).abs() < 0.01, "{square}");
    }

    #[test]
    fn another_seed_or_name_gives_other_numbers() {
        let numbers = normal(7, "name", 1.0, 8);
        assert_eq!(numbers, normal(7, "name", 1.0, 8));
        assert_ne!(numbers, normal(8, "name", 1.0, 8));
        assert_ne!(numbers, normal(7, "eman", 1.0, 8));
    }
}
