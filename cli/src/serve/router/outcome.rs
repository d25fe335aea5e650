//! What a run came to.

use super::request::Moment;
use crate::serve::arguments::ServeArguments;
use crate::serve::memory::MemoryLog;
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long aborts took, in microseconds: from the order to memory that may be used again.
#[derive(Debug, Default, Serialize)]
pub struct AbortTimes {
    pub count: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl AbortTimes {
    pub fn of(mut times_ns: Vec<u64>) -> AbortTimes {
        times_ns.sort_unstable();
        let quantile = |part: f64| {
            let index = (times_ns.len().saturating_sub(1) as f64 * part).round() as usize;
            times_ns.get(index).map_or(0.0, |&time| time as f64 / 1e3)
        };
        AbortTimes { count: times_ns.len(), p50: quantile(0.5), p99: quantile(0.99), max: quantile(1.0) }
    }
}

/// Bytes of all workers, each page of shared memory once.
#[derive(Debug, Default, Serialize)]
pub struct MemoryReport {
    pub at_10_s: Option<u64>,
    pub max_after_10_s: Option<u64>,
    pub at_end: Option<u64>,
    /// What it may be at most after ten seconds.
    pub limit: Option<u64>,
}

/// Counted as it runs.
#[derive(Debug, Default)]
pub struct Counts {
    pub completed: u64,
    pub aborted: BTreeMap<Moment, u64>,
    pub retried: u64,
    pub restarted: u64,
    pub tokens_generated: u64,
    /// By the shards of prefill and decode.
    pub by_shards: BTreeMap<String, u64>,
    /// Of answers that are not what they should be: the first few.
    pub wrong: Vec<String>,
    pub wrong_answers: u64,
    /// Of what should not have happened, and no abort or kill explains: the first few.
    pub failures: Vec<String>,
    pub unexpected_failures: u64,
}

/// So many of each are told in words.
const TOLD_MAX: usize = 5;

impl Counts {
    pub fn note_wrong(&mut self, what: String) {
        self.wrong_answers += 1;
        if self.wrong.len() < TOLD_MAX {
            self.wrong.push(what);
        }
    }

    pub fn note_failure(&mut self, what: String) {
        self.unexpected_failures += 1;
        if self.failures.len() < TOLD_MAX {
            self.failures.push(what);
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Outcome {
    requests_completed: u64,
    wrong_answers: u64,
    aborted: u64,
    aborted_while: BTreeMap<&'static str, u64>,
    retried: u64,
    workers_restarted: u64,
    unexpected_failures: u64,
    tokens_generated: u64,
    bytes_moved: u64,
    requests_per_second: f64,
    /// By the fabric, where the memory was leased to the other worker.
    abort_to_reuse_us: BTreeMap<String, AbortTimes>,
    /// The same where only the worker's own operations touched it: until it has looked that they have ended.
    withdrawal_to_reuse_us: BTreeMap<String, AbortTimes>,
    memory_bytes: MemoryReport,
    /// Answers by the numbers of shards of prefill and decode.
    completed_by_shards: BTreeMap<String, u64>,
    fabric: String,
    mode: String,
    seconds: f64,
    seed: u64,
    failures: Vec<String>,
    wrong: Vec<String>,
}

fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl Outcome {
    pub fn new(
        arguments: &ServeArguments,
        mut counts: Counts,
        memory: &MemoryLog,
        [aborts_ns, withdrawals_ns]: [Vec<u64>; 2],
        bytes_moved: u64,
        took: Duration,
    ) -> Outcome {
        let (at_10_s, max_after_10_s, at_end) = memory.bytes();
        if !memory.is_flat() {
            counts.note_failure(format!(
                "memory grew from {} bytes at ten seconds to {} after that",
                at_10_s.unwrap_or_default(),
                max_after_10_s.unwrap_or_default()
            ));
        }
        Outcome {
            requests_completed: counts.completed,
            wrong_answers: counts.wrong_answers,
            aborted: counts.aborted.values().sum(),
            aborted_while: counts.aborted.iter().map(|(moment, count)| (moment.name(), *count)).collect(),
            retried: counts.retried,
            workers_restarted: counts.restarted,
            unexpected_failures: counts.unexpected_failures,
            tokens_generated: counts.tokens_generated,
            bytes_moved,
            requests_per_second: counts.completed as f64 / took.as_secs_f64(),
            abort_to_reuse_us: BTreeMap::from([(name(&arguments.fabric), AbortTimes::of(aborts_ns))]),
            withdrawal_to_reuse_us: BTreeMap::from([(name(&arguments.fabric), AbortTimes::of(withdrawals_ns))]),
            memory_bytes: MemoryReport { at_10_s, max_after_10_s, at_end, limit: memory.limit_bytes() },
            completed_by_shards: counts.by_shards,
            fabric: name(&arguments.fabric),
            mode: name(&arguments.mode),
            seconds: took.as_secs_f64(),
            seed: arguments.asked.seed,
            failures: counts.failures,
            wrong: counts.wrong,
        }
    }

    /// Why the run has failed, if it has.
    pub fn complaint(&self) -> Option<String> {
        let mut complaints = Vec::new();
        if self.wrong_answers > 0 {
            let first = self.wrong.first().map(String::as_str).unwrap_or_default();
            complaints.push(format!("{} wrong answers, the first: {first}", self.wrong_answers));
        }
        if let Some(first) = self.failures.first() {
            complaints.push(format!("{} unexpected failures, the first: {first}", self.unexpected_failures));
        }
        if self.requests_completed == 0 {
            complaints.push("no request was answered".to_owned());
        }
        (!complaints.is_empty()).then(|| complaints.join("; "))
    }

    pub fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "answered      {} requests in {:.1} s ({:.1}/s), {} tokens; {} wrong answers",
            self.requests_completed, self.seconds, self.requests_per_second, self.tokens_generated, self.wrong_answers,
        );
        println!("by shards     {:?}", self.completed_by_shards);
        println!("aborted       {} {:?}", self.aborted, self.aborted_while);
        println!("retried       {}, after {} worker restarts", self.retried, self.workers_restarted);
        println!("moved         {:.1} MiB over {} ({})", mebibytes(self.bytes_moved), self.fabric, self.mode);
        for (fabric, times) in &self.abort_to_reuse_us {
            let AbortTimes { count, p50, p99, max } = times;
            println!(
                "abort to reuse p50 {p50:.0} us, p99 {p99:.0} us, at most {max:.0} us ({fabric}, {count} of them)"
            );
        }
        let MemoryReport { at_10_s, max_after_10_s, at_end, .. } = &self.memory_bytes;
        let shown = |bytes: &Option<u64>| bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MiB", mebibytes(bytes)));
        println!(
            "memory        {} at 10 s, then at most {}, {} at the end",
            shown(at_10_s),
            shown(max_after_10_s),
            shown(at_end)
        );
        self.failures.iter().for_each(|failure| println!("failure       {failure}"));
        self.wrong.iter().for_each(|wrong| println!("wrong answer  {wrong}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times_in_microseconds() {
        let times = AbortTimes::of((1..=101).rev().map(|time| time * 1000).collect());
        assert_eq!((times.count, times.p50, times.p99, times.max), (101, 51.0, 100.0, 101.0));
        assert_eq!(AbortTimes::of(Vec::new()).p99, 0.0);
    }
}
