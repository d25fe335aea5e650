//! Causal attention of a chunk of queries over every cached token.

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Tensor, bail};

use super::{ModelError, ModelShape};

/// Queries that are scored at a time: bounds the scores of a long prompt (64 MiB for 128 queries on
/// 8,192 tokens and 16 heads), and spares most of the products that the causal mask would discard.
const QUERIES_AT_ONCE: usize = 128;

/// Attends from each query to its own and all earlier positions.
///
/// `queries` is `[n, query_heads x head_size]`, for the positions `start_position` on; `keys` and
/// `values` are `[start_position + n, kv_heads, head_size]`. Queries and keys have had their rotary
/// embedding. The result is shaped like `queries`.
pub(super) fn attend(
    shape: &ModelShape,
    start_position: usize,
    queries: &Tensor,
    keys: Vec<f32>,
    values: Vec<f32>,
) -> Result<Tensor, ModelError> {
    let &ModelShape { query_heads, kv_heads, head_size, .. } = shape;
    let group = query_heads / kv_heads;
    let tokens = start_position + queries.dim(0)?;
    let by_head = |numbers| Tensor::from_vec(numbers, (tokens, kv_heads, head_size), &Device::Cpu)?.transpose(0, 1);
    let (keys, values) = (by_head(keys)?, by_head(values)?);

    let mut attended = Vec::new();
    for first in (0..queries.dim(0)?).step_by(QUERIES_AT_ONCE) {
        let count = QUERIES_AT_ONCE.min(queries.dim(0)? - first);
        let visible = start_position + first + count;
        // The query heads that share a key head are stacked as rows of one matrix.
        let queries = queries
            .narrow(0, first, count)?
            .reshape((count, kv_heads, group, head_size))?
            .permute((1, 2, 0, 3))?
            .reshape((kv_heads, group * count, head_size))?;
        let scores = queries.matmul(&keys.narrow(1, 0, visible)?.transpose(1, 2)?)?;
        scores.inplace_op1(&CausalSoftmax {
            queries: count,
            tokens: visible,
            scale: 1.0 / (head_size as f32).sqrt(),
        })?;
        let chunk = scores
            .matmul(&values.narrow(1, 0, visible)?)?
            .reshape((kv_heads, group, count, head_size))?
            .permute((2, 0, 1, 3))?
            .reshape((count, query_heads * head_size))?;
        attended.push(chunk);
    }
    Ok(Tensor::cat(&attended, 0)?)
}

/// Turns each row of scores into weights that sum to 1, with 0 for the tokens behind its query.
///
/// One pass of ours instead of five of candle's (scale, mask, maximum, exponential, sum): no mask
/// tensor, and nothing computed that the mask would discard.
struct CausalSoftmax {
    /// Rows are queries: row r belongs to query r modulo this.
    queries: usize,
    /// Numbers in a row; the last query sees all of them, the one before it one fewer.
    tokens: usize,
    /// What the scores are multiplied by.
    scale: f32,
}

impl CausalSoftmax {
    fn apply(&self, scores: &mut [f32]) {
        let visible_first = self.tokens - self.queries + 1;
        for (index, row) in scores.chunks_exact_mut(self.tokens).enumerate() {
            let (seen, unseen) = row.split_at_mut(visible_first + index % self.queries);
            unseen.fill(0.0);
            let largest = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for score in seen.iter_mut() {
                *score = ((*score - largest) * self.scale).exp();
                sum += *score;
            }
            for weight in seen {
                *weight /= sum;
            }
        }
    }
}

impl InplaceOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(scores), Some((0, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("causal-softmax works on whole f32 tensors");
        };
        self.apply(&mut scores[..end]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_sum_to_1_and_hide_what_comes_later() {
        // Two heads, three queries behind two earlier tokens.
        let mut scores: Vec<f32> = (0..30).map(|i| (i * 7 % 11) as f32).collect();
        CausalSoftmax { queries: 3, tokens: 5, scale: 0.5 }.apply(&mut scores);
        for (index, row) in scores.chunks(5).enumerate() {
            let (seen, unseen) = row.split_at(3 + index % 3);
            assert!((seen.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(seen.iter().all(|weight| *weight > 0.0));
            assert!(unseen.iter().all(|weight| *weight == 0.0));
        }
    }

    #[test]
    fn huge_scores_do_not_overflow() {
        let mut scores = [3e38, -3e38, 3e38];
        CausalSoftmax { queries: 1, tokens: 3, scale: 1.0 }.apply(&mut scores);
        assert_eq!(scores, [0.5, 0.0, 0.5]);
    }

    #[test]
    fn a_query_that_fits_one_key_gets_that_key_s_value_from_its_own_head() {
        let shape = ModelShape { query_heads: 4, kv_heads: 2, head_size: 2, ..ModelShape::small() };
        // Of three tokens, key head 0 points at the first and key head 1 at the last.
        let keys = vec![9., 0., -9., 0., -9., 0., -9., 0., -9., 0., 9., 0.];
        let values = vec![1., 2., 0., 0., 0., 0., 0., 0., 0., 0., 3., 4.];
        let queries = Tensor::from_vec(vec![9f32, 0., 9., 0., 9., 0., 9., 0.], (1, 8), &Device::Cpu);
        let attended = attend(&shape, 2, &queries.unwrap(), keys, values).unwrap();
        let expected = [[1f32, 2., 1., 2., 3., 4., 3., 4.]];
        assert_eq!(attended.to_vec2::<f32>().unwrap(), expected);
    }
}
