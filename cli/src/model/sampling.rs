//! The choice of the next token.

/// The token with the largest logit; of several the lowest, so that the choice is unique.
///
/// Logits that are NaN are never chosen. Without any other logit the answer is 0; `forward` gives
/// at least one logit and no NaN.
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best: Option<(u32, f32)> = None;
    for (token, &logit) in (0u32..).zip(logits) {
        if !logit.is_nan() && best.is_none_or(|(_, largest)| logit > largest) {
            best = Some((token, logit));
        }
    }
    best.map_or(0, |(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::greedy;

    #[test]
    fn the_largest_wins_and_of_equals_the_first() {
        assert_eq!(greedy(&[-3.0, -1.0, -2.0]), 1);
        assert_eq!(greedy(&[0.0, 2.0, 2.0]), 1);
        assert_eq!(greedy(&[f32::NEG_INFINITY, f32::MIN]), 1);
    }

    #[test]
    fn nan_never_wins() {
        assert_eq!(greedy(&[f32::NAN, -5.0, f32::NAN]), 1);
        assert_eq!(greedy(&[f32::NAN]), 0);
        assert_eq!(greedy(&[]), 0);
    }
}
