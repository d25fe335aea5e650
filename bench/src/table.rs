//! The table: a line for each pair of ours and a peer's.

use crate::sample::{Measurement, Sample, alternate};
use anyhow::Result;
use std::time::Instant;

/// What is measured, in which unit, and which way is better.
#[derive(Clone, Copy)]
pub struct Quantity {
    pub what: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

impl Quantity {
    pub fn rate(what: &'static str, unit: &'static str) -> Quantity {
        Quantity { what, unit, better: Better::More }
    }

    pub fn time(what: &'static str, unit: &'static str) -> Quantity {
        Quantity { what, unit, better: Better::Less }
    }

    /// How many times better ours is.
    fn ratio(&self, ours: &Sample, theirs: &Sample) -> f64 {
        match self.better {
            Better::More => ours.median / theirs.median,
            Better::Less => theirs.median / ours.median,
        }
    }
}

/// Prints lines as they are measured, and counts what could not be.
pub struct Table {
    rounds: usize,
    started: Instant,
    failed: usize,
}

impl Table {
    pub fn new(rounds: usize) -> Table {
        Table { rounds, started: Instant::now(), failed: 0 }
    }

    pub fn begin(&self) {
        println!("Medians of {} rounds (lowest to highest), ours and the peer's in turn;", self.rounds);
        println!("a ratio above 1 is in our favour; CPU seconds are those of all processes of each side.");
        println!("{}", load());
        println!();
        println!("| what | ours | peer | ratio | CPU s/GB, ours | CPU s/GB, peer |");
        println!("|---|---|---|---|---|---|");
    }

    /// Measures ours and a peer's in turn, and prints the line. A peer's failure is a line too; ours ends the run.
    pub fn compare(
        &mut self,
        quantity: Quantity,
        beside: &str,
        mut ours: impl FnMut() -> Result<Measurement>,
        mut theirs: impl FnMut() -> Result<Measurement>,
    ) -> Result<()> {
        let mut failure = None;
        // Asked once before, so that a peer that cannot do it costs no round, and only its failures are lines.
        if let Err(error) = theirs() {
            failure = Some(error);
        }
        let Quantity { what, unit, .. } = quantity;
        if failure.is_none() {
            let mut ours_failed = false;
            let ours = || ours().inspect_err(|_| ours_failed = true);
            match alternate(self.rounds, ours, theirs) {
                Ok((ours, theirs)) => {
                    let ratio = quantity.ratio(&ours, &theirs);
                    let (our_cpu, their_cpu) = (show_cpu(&ours), show_cpu(&theirs));
                    let (ours, theirs) = (show(&ours, unit), show(&theirs, unit));
                    println!("| {what} | {ours} | {beside}: {theirs} | {ratio:.2} | {our_cpu} | {their_cpu} |");
                }
                Err(error) if ours_failed => return Err(error.context(what)),
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            self.cannot(what, beside, &error);
        }
        Ok(())
    }

    /// A line for what could not be measured.
    pub fn cannot(&mut self, what: &str, beside: &str, why: &anyhow::Error) {
        self.failed += 1;
        let why = format!("{why:#}").replace('\n', " / ");
        println!("| {what} | | {beside}: NOT MEASURED: {why} | | | |");
    }

    /// Prints what the figures are worth, and gives the number of those that could not be measured.
    pub fn end(&self) -> usize {
        println!();
        println!("{}; {:.0} s in all", load(), self.started.elapsed().as_secs_f64());
        self.failed
    }
}

fn show(sample: &Sample, unit: &str) -> String {
    let Sample { median, low, high, .. } = sample;
    format!("{median:.3} {unit} ({low:.3} to {high:.3})")
}

fn show_cpu(sample: &Sample) -> String {
    sample.cpu_seconds_per_gigabyte.map_or_else(String::new, |seconds| format!("{seconds:.3}"))
}

/// How busy the machine is: figures of a machine with other work are a first look, not a claim.
fn load() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = load.split(' ').next().unwrap_or("unknown");
    format!("{cores} cores, load average of the last minute {minute}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_is_in_our_favour_whichever_way_is_better() {
        let [two, four] = [2.0, 4.0].map(|value| Sample::of(&[Measurement::plain(value)]));
        assert_eq!(Quantity::rate("writes", "GB/s").ratio(&four, &two), 2.0);
        assert_eq!(Quantity::time("a write", "us").ratio(&two, &four), 2.0);
    }

    #[test]
    fn a_peer_that_fails_is_counted_and_ours_ends_the_run() {
        let mut table = Table::new(1);
        let good = || Ok(Measurement::plain(1.0));
        let bad = || anyhow::bail!("broken");
        table.compare(Quantity::rate("a", "GB/s"), "peer", good, bad).unwrap();
        assert_eq!(table.failed, 1);
        assert!(table.compare(Quantity::rate("a", "GB/s"), "peer", bad, good).is_err());
        assert_eq!(table.failed, 1);
    }
}
