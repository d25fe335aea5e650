//! Every fault of a cache shows in the text.

use super::super::ModelShape;
use super::{PROMPT_TOKENS, Prefilled, distance_max};

const BLOCK_TOKENS: usize = 16;

#[test]
fn any_block_lost_changed_or_swapped_shows_in_the_text() {
    let run = Prefilled::new(ModelShape::small(), PROMPT_TOKENS);
    let (right_tokens, right_logits) = run.decode(|_| ());
    let block = BLOCK_TOKENS * run.model.shape().kv_width();
    let check = |what: &str, change: &dyn Fn(&mut Vec<f32>)| {
        let (tokens, logits) = run.decode(|cache| {
            for side in [&mut cache.keys, &mut cache.values] {
                side.iter_mut().for_each(change);
            }
        });
        assert_ne!(tokens, right_tokens, "{what} left the text as it was");
        let distance = distance_max(&logits, &right_logits);
        assert!(distance > 0.5, "{what} moved no logit by more than {distance}");
    };
    let blocks = PROMPT_TOKENS / BLOCK_TOKENS;
    for index in 0..blocks {
        let at = index * block;
        check(&format!("zeroing block {index}"), &|side| side[at..at + block].fill(0.0));
        check(&format!("shifting block {index} by a number"), &|side| {
            side[at..at + block].rotate_left(1);
        });
        let other = (index + 1) % blocks * block;
        check(&format!("swapping block {index} with the next"), &|side| {
            for offset in 0..block {
                side.swap(at + offset, other + offset);
            }
        });
    }
}

#[test]
fn one_block_lost_in_one_layer_moves_the_logits() {
    let run = Prefilled::new(ModelShape::small(), PROMPT_TOKENS);
    let (_, right_logits) = run.decode(|_| ());
    let block = BLOCK_TOKENS * run.model.shape().kv_width();
    for layer in 0..run.model.shape().layers {
        for index in 0..PROMPT_TOKENS / BLOCK_TOKENS {
            let range = index * block..(index + 1) * block;
            let (_, logits) = run.decode(|cache| {
                cache.keys[layer][range.clone()].fill(0.0);
                cache.values[layer][range.clone()].fill(0.0);
            });
            let distance = distance_max(&logits, &right_logits);
            assert!(distance > 0.05, "layer {layer}, block {index}: moved by {distance}");
        }
    }
}
