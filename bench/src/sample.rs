//! Rounds that alternate, and what is made of them.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// One measurement of one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    pub value: f64,
    /// Of all processes that took part, where it was counted.
    pub cpu_seconds_per_gigabyte: Option<f64>,
}

impl Measurement {
    /// A quantity of which CPU time is no part.
    pub fn plain(value: f64) -> Measurement {
        Measurement { value, cpu_seconds_per_gigabyte: None }
    }

    /// A transfer, in GB/s.
    pub fn transfer(bytes: u64, wall_seconds: f64, cpu_seconds: f64) -> Measurement {
        let gigabytes = bytes as f64 / 1e9;
        Measurement { value: gigabytes / wall_seconds, cpu_seconds_per_gigabyte: Some(cpu_seconds / gigabytes) }
    }

    /// Operations a second, in millions.
    pub fn rate(operations: u64, start: Instant) -> Measurement {
        Measurement::plain(operations as f64 / start.elapsed().as_secs_f64() / 1e6)
    }
}

/// All rounds of one quantity. There is at least one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub values: Vec<f64>,
    /// Of the rounds in which it was counted.
    pub cpu_seconds_per_gigabyte: Vec<f64>,
}

impl Sample {
    pub fn of(measurements: &[Measurement]) -> Sample {
        Sample {
            values: measurements.iter().map(|measurement| measurement.value).collect(),
            cpu_seconds_per_gigabyte: measurements.iter().filter_map(|m| m.cpu_seconds_per_gigabyte).collect(),
        }
    }

    /// Of values without CPU time.
    pub fn plain(values: Vec<f64>) -> Sample {
        Sample { values, cpu_seconds_per_gigabyte: Vec::new() }
    }

    /// The CPU time as a quantity of its own, where it was counted.
    pub fn cpu(&self) -> Option<Sample> {
        let counted = self.cpu_seconds_per_gigabyte.clone();
        (!counted.is_empty()).then(|| Sample::plain(counted))
    }

    /// These rounds and those of another run.
    pub fn extend(&mut self, other: &Sample) {
        self.values.extend(&other.values);
        self.cpu_seconds_per_gigabyte.extend(&other.cpu_seconds_per_gigabyte);
    }

    pub fn median(&self) -> f64 {
        median(&self.values)
    }

    pub fn low(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn high(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// The middle one; of an even number the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// Something that takes part in a comparison.
pub type Contestant<'a> = &'a mut dyn FnMut() -> Result<Measurement>;

/// Why a comparison has no result: who failed, by position, and how.
#[derive(Debug)]
pub struct Failed {
    pub who: usize,
    pub why: anyhow::Error,
}

/// Measures the contestants in turn, so that a noisy moment hits all, every other round in reverse, so that none always
/// finds the machine as another left it. The first round of each only warms up.
pub fn alternate(rounds: usize, contestants: &mut [Contestant<'_>]) -> Result<Vec<Sample>, Failed> {
    let mut measured = vec![Vec::new(); contestants.len()];
    for round in 0..=rounds.max(1) {
        let forwards = 0..contestants.len();
        let order: Vec<usize> = if round % 2 == 0 { forwards.collect() } else { forwards.rev().collect() };
        for who in order {
            measured[who].push(contestants[who]().map_err(|why| Failed { who, why })?);
        }
    }
    Ok(measured.iter().map(|rounds| Sample::of(&rounds[1..])).collect())
}

/// The median time of one call, in microseconds.
pub fn median_microseconds(calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<Measurement> {
    let mut microseconds = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        call()?;
        microseconds.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Measurement::plain(median(&microseconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn a_sample_has_the_median_the_spread_and_the_cpu_time_that_was_counted() {
        let counted = Measurement { value: 9.0, cpu_seconds_per_gigabyte: Some(0.5) };
        let sample = Sample::of(&[Measurement::plain(3.0), counted, Measurement::plain(1.0)]);
        assert_eq!((sample.median(), sample.low(), sample.high()), (3.0, 1.0, 9.0));
        assert_eq!(sample.cpu().unwrap().median(), 0.5);
        assert_eq!(Sample::plain(vec![1.0]).cpu(), None);
    }

    #[test]
    fn a_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 30.0]), 3.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn rounds_alternate_in_both_orders_and_the_first_of_each_does_not_count() {
        let order = RefCell::new(String::new());
        let measure = |who| {
            order.borrow_mut().push(who);
            Ok(Measurement::plain(order.borrow().len() as f64))
        };
        let samples = alternate(2, &mut [&mut || measure('o'), &mut || measure('t')]).unwrap();
        assert_eq!(*order.borrow(), "ottoot");
        assert_eq!(samples[0].values, [4.0, 5.0]);
        assert_eq!(samples[1].values, [3.0, 6.0]);
    }

    #[test]
    fn who_failed_is_told() {
        let good = || Ok(Measurement::plain(1.0));
        let failed = alternate(1, &mut [&mut { good }, &mut || anyhow::bail!("broken")]).unwrap_err();
        assert_eq!(failed.who, 1);
        assert!(failed.why.to_string().contains("broken"));
    }
}
