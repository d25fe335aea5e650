//! Medians of alternating rounds.

use anyhow::Result;
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
}

/// Median and spread (lowest and highest) of one quantity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub median: f64,
    pub low: f64,
    pub high: f64,
    /// The median of the measurements in which it was counted.
    pub cpu_seconds_per_gigabyte: Option<f64>,
}

impl Sample {
    /// Of at least one measurement.
    pub fn of(measurements: &[Measurement]) -> Sample {
        let values = sorted(measurements.iter().map(|measurement| measurement.value));
        let cpu = sorted(measurements.iter().filter_map(|measurement| measurement.cpu_seconds_per_gigabyte));
        Sample {
            median: values[values.len() / 2],
            low: values[0],
            high: values[values.len() - 1],
            cpu_seconds_per_gigabyte: cpu.get(cpu.len() / 2).copied(),
        }
    }
}

/// Measures two things alternately, so that a noisy moment hits both. The first round of each only warms up.
pub fn alternate(
    rounds: usize,
    mut ours: impl FnMut() -> Result<Measurement>,
    mut theirs: impl FnMut() -> Result<Measurement>,
) -> Result<(Sample, Sample)> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..=rounds.max(1) {
        first.push(ours()?);
        second.push(theirs()?);
    }
    Ok((Sample::of(&first[1..]), Sample::of(&second[1..])))
}

/// The median time of one call, in microseconds.
pub fn median_microseconds(calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<Measurement> {
    let mut microseconds = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        call()?;
        microseconds.push(start.elapsed().as_secs_f64() * 1e6);
    }
    let microseconds = sorted(microseconds.into_iter());
    Ok(Measurement::plain(microseconds[microseconds.len() / 2]))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_median_the_spread_and_the_cpu_time_that_was_counted() {
        let counted = Measurement { value: 9.0, cpu_seconds_per_gigabyte: Some(0.5) };
        let sample = Sample::of(&[Measurement::plain(3.0), counted, Measurement::plain(1.0)]);
        assert_eq!((sample.median, sample.low, sample.high), (3.0, 1.0, 9.0));
        assert_eq!(sample.cpu_seconds_per_gigabyte, Some(0.5));
    }

    #[test]
    fn rounds_alternate_and_the_first_of_each_does_not_count() {
        let order = std::cell::RefCell::new(Vec::new());
        let measure = |who| {
            order.borrow_mut().push(who);
            Ok(Measurement::plain(order.borrow().len() as f64))
        };
        let (ours, theirs) = alternate(2, || measure('o'), || measure('t')).unwrap();
        assert_eq!(*order.borrow(), ['o', 't', 'o', 't', 'o', 't']);
        assert_eq!((ours.low, ours.high), (3.0, 5.0));
        assert_eq!((theirs.low, theirs.high), (4.0, 6.0));
    }
}
