//! Medians of alternating rounds.

use anyhow::Result;

/// Median and spread (lowest and highest) of one quantity.
#[derive(Clone, Copy)]
pub struct Sample {
    pub median: f64,
    low: f64,
    high: f64,
}

impl Sample {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Sample {
        values.sort_by(f64::total_cmp);
        Sample { median: values[values.len() / 2], low: values[0], high: values[values.len() - 1] }
    }

    /// In words, with a unit.
    pub fn show(&self, unit: &str) -> String {
        format!("{:.3} {unit} ({:.3} to {:.3})", self.median, self.low, self.high)
    }
}

/// Measures two things alternately, so that a noisy moment hits both.
pub fn alternate(
    rounds: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut theirs: impl FnMut() -> Result<f64>,
) -> Result<(Sample, Sample)> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..rounds.max(1) {
        first.push(ours()?);
        second.push(theirs()?);
    }
    Ok((Sample::of(first), Sample::of(second)))
}

/// A line of the table, for quantities of which more is better.
pub fn line(what: &str, unit: &str, beside: &str, (ours, theirs): (Sample, Sample)) {
    let ratio = ours.median / theirs.median;
    println!("| {what} | {} | {beside}: {} | {ratio:.2} |", ours.show(unit), theirs.show(unit));
}
