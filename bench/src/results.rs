//! What one run has measured: printed as it comes, and written to a file that the report is made of.

use crate::curve::Curve;
use crate::goals::{Part, ROWS, Row, row_of};
use crate::machine::{Machine, load};
use crate::sample::{Failed, Measurement, Sample, alternate};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// A row's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub key: String,
    pub ours: Sample,
    /// None where the goal is about ours alone.
    pub theirs: Option<Sample>,
    /// What a reader has to know beside it.
    pub remark: String,
}

/// A row, or a whole part, that could not be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub what: String,
    pub why: String,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    pub machine: Machine,
    pub quick: bool,
    pub rounds: usize,
    pub outcomes: Vec<Outcome>,
    pub failures: Vec<Failure>,
    pub curves: Vec<Curve>,
    /// Versions and settings of the peers, and other facts.
    pub notes: Vec<String>,
    /// Instructions, where they were asked for.
    pub profile: Vec<String>,
    pub load_at_end: String,
    pub seconds: f64,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub quick: bool,
    pub rounds: usize,
}

/// Collects a run.
pub struct Results {
    pub effort: Effort,
    run: Run,
    started: Instant,
}

impl Results {
    pub fn new(effort: Effort) -> Results {
        let run = Run {
            machine: Machine::look(),
            quick: effort.quick,
            rounds: effort.rounds,
            outcomes: Vec::new(),
            failures: Vec::new(),
            curves: Vec::new(),
            notes: Vec::new(),
            profile: Vec::new(),
            load_at_end: String::new(),
            seconds: 0.0,
        };
        println!("Medians of {} rounds (lowest to highest), in turn; a ratio above 1 is in our favour.", effort.rounds);
        println!("{}; load average {}", run.machine.summary(), run.machine.load);
        println!();
        println!("| what | ours | beside it | ratio |");
        println!("|---|---|---|---|");
        Results { effort, run, started: Instant::now() }
    }

    /// Measures ours and a peer's in turn, as the row of that key. A failure of either is a line.
    pub fn compare(
        &mut self,
        key: &str,
        mut ours: impl FnMut() -> Result<Measurement>,
        mut theirs: impl FnMut() -> Result<Measurement>,
    ) -> Option<(Sample, Sample)> {
        // Asked once before, so that a peer that cannot do it costs no round.
        if let Err(error) = theirs() {
            self.fail(key, &error);
            return None;
        }
        match alternate(self.effort.rounds, &mut [&mut ours, &mut theirs]) {
            Ok(samples) => {
                let [ours, theirs] = <[Sample; 2]>::try_from(samples).ok()?;
                self.add(key, ours.clone(), Some(theirs.clone()), "");
                Some((ours, theirs))
            }
            Err(Failed { who, why }) => {
                self.fail(key, &why.context(if who == 0 { "ours" } else { "the peer" }));
                None
            }
        }
    }

    /// A row's figures; ours alone where nothing stands beside it.
    pub fn add(&mut self, key: &str, ours: Sample, theirs: Option<Sample>, remark: &str) {
        let Some(row) = row_of(key) else {
            return self.fail(key, &anyhow::anyhow!("there is no such row in goals.rs"));
        };
        let (shown, beside, ratio) = columns(row, &ours, theirs.as_ref());
        println!("| {} | {shown} | {beside} | {ratio} |{}", row.what, note_of(remark));
        self.run.outcomes.push(Outcome { key: key.to_owned(), ours, theirs, remark: remark.to_owned() });
    }

    /// The CPU times of a comparison as a row of its own.
    pub fn add_cpu(&mut self, key: &str, ours: &Sample, theirs: &Sample) {
        match (ours.cpu(), theirs.cpu()) {
            (Some(ours), Some(theirs)) => self.add(key, ours, Some(theirs), ""),
            _ => self.fail(key, &anyhow::anyhow!("CPU time was not counted on both sides")),
        }
    }

    /// A row or part that could not be measured.
    pub fn fail(&mut self, key: &str, why: &anyhow::Error) {
        let what = row_of(key).map_or_else(|| key.to_owned(), named);
        let why = format!("{why:#}").replace(['\n', '|'], " / ");
        println!("| {what} | NOT MEASURED: {why} | | |");
        self.run.failures.push(Failure { what: key.to_owned(), why });
    }

    pub fn curve(&mut self, curve: Curve) {
        println!("| {} | {} | | |", curve.name, curve.in_words());
        self.run.curves.push(curve);
    }

    pub fn profile(&mut self, lines: Vec<String>) {
        lines.iter().for_each(|line| eprintln!("profile: {line}"));
        self.run.profile = lines;
    }

    pub fn note(&mut self, note: String) {
        eprintln!("note: {note}");
        if !self.run.notes.contains(&note) {
            self.run.notes.push(note);
        }
    }

    /// Rows that a part should have given and has not are failures, too. Writes the file and gives their number.
    pub fn end(mut self, parts: &[Part], file: Option<&Path>) -> Result<usize> {
        for row in ROWS.iter().filter(|row| parts.contains(&row.part)) {
            let known = self.run.outcomes.iter().any(|outcome| outcome.key == row.key)
                || self.run.failures.iter().any(|failure| failure.what == row.key);
            if !known {
                self.fail(row.key, &anyhow::anyhow!("its part of the bench ended before"));
            }
        }
        self.run.load_at_end = load();
        self.run.seconds = self.started.elapsed().as_secs_f64();
        println!();
        println!("load average {} at the end; {:.0} s in all", self.run.load_at_end, self.run.seconds);
        if let Some(file) = file {
            let text = serde_json::to_string_pretty(&self.run)?;
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(self.run.failures.len())
    }
}

/// A row's name together with what stands beside it.
pub fn named(row: &Row) -> String {
    match row.beside {
        "" => row.what.to_owned(),
        beside => format!("{} ({}) beside {beside}", row.what, row.unit),
    }
}

fn note_of(remark: &str) -> String {
    if remark.is_empty() { String::new() } else { format!(" {remark}") }
}

/// Ours, what stands beside it, and the ratio, in words.
pub fn columns(row: &Row, ours: &Sample, theirs: Option<&Sample>) -> (String, String, String) {
    let shown = show(ours, row.unit);
    match theirs {
        None => (shown, String::new(), String::new()),
        Some(theirs) => {
            let ratio = row.ratio(ours.median(), theirs.median());
            (shown, format!("{}: {}", row.beside, show(theirs, row.unit)), digits(ratio))
        }
    }
}

/// Median and spread, where there is one.
pub fn show(sample: &Sample, unit: &str) -> String {
    if sample.values.len() == 1 {
        return format!("{} {unit}", digits(sample.median()));
    }
    format!("{} {unit} ({} to {})", digits(sample.median()), digits(sample.low()), digits(sample.high()))
}

/// Three digits that count.
pub fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        value if value >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        Results::new(Effort { quick: true, rounds: 1 })
    }

    #[test]
    fn a_peer_that_fails_and_ours_that_fails_are_lines_and_counted() {
        let mut results = results();
        let good = || Ok(Measurement::plain(1.0));
        let bad = || anyhow::bail!("broken");
        assert!(results.compare("query", good, bad).is_none());
        assert!(results.compare("write_64", bad, good).is_none());
        assert!(results.compare("nop_enter", good, good).is_some());
        assert_eq!(results.run.failures.len(), 2);
        assert!(results.run.failures[1].why.contains("ours: broken"), "{:?}", results.run.failures);
    }

    #[test]
    fn a_row_that_its_part_did_not_give_is_a_failure_and_the_file_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.json");
        let mut results = results();
        results.compare("alloc_memset", || Ok(Measurement::plain(1.0)), || Ok(Measurement::plain(2.0)));
        assert_eq!(results.end(&[Part::Allocation], Some(&file)).unwrap(), 2);
        let run: Run = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(run.outcomes[0].key, "alloc_memset");
        let missing: Vec<_> = run.failures.iter().map(|failure| failure.what.as_str()).collect();
        assert_eq!(missing, ["alloc_populate", "alloc_recycled"]);
    }

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(
            [1234.5, 12.345, 1.2345, 0.12345, 0.012345].map(digits),
            ["1234", "12.3", "1.23", "0.123", "0.0123"]
        );
    }
}
