//! Rotary position embedding: a token's position as angles between the numbers of its heads.

use super::ModelShape;

/// The sines and cosines of all positions so far; computed once for a chunk, used in every layer.
pub(super) struct Rotary {
    /// Half a head: the number of pairs that turn together.
    pair_count: usize,
    /// `[positions, pair_count]`.
    cosines: Vec<f32>,
    /// `[positions, pair_count]`; apart from the cosines, so that the loop over pairs vectorises.
    sines: Vec<f32>,
}

impl Rotary {
    /// The turns for the positions 0 to `positions - 1`.
    pub(super) fn new(shape: &ModelShape, positions: usize) -> Self {
        let pair_count = shape.head_size / 2;
        // In f64, as an f32 angle of a late position is off by more than a small turn.
        let frequency = |pair| shape.rope_theta.powf(-(pair as f64) / pair_count as f64);
        let frequencies: Vec<f64> = (0..pair_count).map(frequency).collect();
        let mut cosines = Vec::with_capacity(positions * pair_count);
        let mut sines = Vec::with_capacity(positions * pair_count);
        for position in 0..positions {
            for frequency in &frequencies {
                let angle = position as f64 * frequency;
                cosines.push(angle.cos() as f32);
                sines.push(angle.sin() as f32);
            }
        }
        Self { pair_count, cosines, sines }
    }

    /// Turns queries or keys, `[tokens, heads, head_size]`, in place; the first token's position is
    /// `start_position`.
    ///
    /// A pair is (i, i + head_size / 2): the order in which Hugging Face stores the weights, other
    /// than the neighbouring pairs of the original paper.
    pub(super) fn apply(&self, start_position: usize, heads: usize, numbers: &mut [f32]) {
        let head_size = 2 * self.pair_count;
        let tokens = numbers.chunks_exact_mut(heads * head_size);
        let turns = self
            .cosines
            .chunks_exact(self.pair_count)
            .zip(self.sines.chunks_exact(self.pair_count))
            .skip(start_position);
        for (token, (cosines, sines)) in tokens.zip(turns) {
            for head in token.chunks_exact_mut(head_size) {
                let (first, second) = head.split_at_mut(self.pair_count);
                let pairs = first.iter_mut().zip(second);
                for ((a, b), (cosine, sine)) in pairs.zip(cosines.iter().zip(sines)) {
                    (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ModelShape = ModelShape { head_size: 4, ..ModelShape::small() };

    #[test]
    fn position_0_turns_nothing() {
        let mut numbers = [1.0, 2.0, 3.0, 4.0];
        Rotary::new(&SHAPE, 1).apply(0, 1, &mut numbers);
        assert_eq!(numbers, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn the_first_pair_turns_one_radian_per_position_and_the_second_by_theta() {
        let mut numbers = [1.0, 1.0, 0.0, 0.0];
        Rotary::new(&SHAPE, 4).apply(3, 1, &mut numbers);
        let slow = 3.0 / f64::sqrt(SHAPE.rope_theta);
        let expected = [3f64.cos(), slow.cos(), 3f64.sin(), slow.sin()];
        for (number, expected) in numbers.iter().zip(expected) {
            assert!((f64::from(*number) - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_chunk_is_turned_like_its_tokens_one_by_one_and_heads_alike() {
        let heads = 2;
        let width = heads * SHAPE.head_size;
        let original: Vec<f32> = (0..3 * width).map(|i| (i % SHAPE.head_size) as f32).collect();
        let mut chunk = original.clone();
        Rotary::new(&SHAPE, 8).apply(5, heads, &mut chunk);
        for (index, token) in original.chunks(width).enumerate() {
            let mut alone = token.to_vec();
            Rotary::new(&SHAPE, 8).apply(5 + index, heads, &mut alone);
            assert_eq!(alone, chunk[index * width..(index + 1) * width]);
            assert_eq!(alone[..SHAPE.head_size], alone[SHAPE.head_size..]);
        }
    }

    #[test]
    fn a_product_of_query_and_key_depends_on_their_distance_alone() {
        let rotary = Rotary::new(&SHAPE, 1006);
        let dot = |query_position, key_position| -> f32 {
            let (mut query, mut key) = ([0.3, -1.0, 2.0, 0.7], [1.1, 0.4, -0.6, 0.9]);
            rotary.apply(query_position, 1, &mut query);
            rotary.apply(key_position, 1, &mut key);
            query.iter().zip(key).map(|(q, k)| q * k).sum()
        };
        assert!((dot(9, 4) - dot(1005, 1000)).abs() < 1e-5);
        assert!((dot(9, 4) - dot(9, 5)).abs() > 1e-2);
    }
}
