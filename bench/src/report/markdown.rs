//! The report as text.

use super::verdict::{self, Verdict};
use super::{outcomes, pooled};
use crate::goals::{Goal, Part, ROWS, Row, row_of};
use crate::results::{Run, digits, named, show};
use std::fmt::Write as _;
use std::path::Path;

/// Characters of a line of prose.
const COLUMNS: usize = 110;

const METHOD: &[&str] = &[
    "Ours and what stands beside it are measured in turn in one run, every other round in reverse order, and the \
     first round of each warms up and is not counted. A figure is the median of all rounds, with the lowest and the \
     highest. A ratio is that of the medians; above 1 it is in our favour, whichever way is better.",
    "While ours is measured the peer's processes are stopped (SIGSTOP). A poller, ours or io_uring's, sleeps before \
     anything else is measured. io_uring publishes each batch once and hands it over in one call, with the same batch, \
     depth and ring sizes as ours; the best of its modes is the one with the highest median. No-ops run for 10 ms \
     before the clock starts, ours and io_uring's alike: a polling thread that is woken begins on its waker's core. \
     Before a round of ours the bench waits, a minute in all at most, for cores between which a cache line takes less \
     than 100 ns: the host of a virtual machine may place them near each other or far apart.",
    "A transfer's time ends when the writer's program knows that all bytes are there; where it is answered, when the \
     answer of the other program has come. CPU time is that of all \
     processes that took part, ours and the peer's counted alike. What has arrived is compared with what was sent, by \
     ours and by each peer's program; a difference fails the run. NIXL's best is the one of its three settings with \
     the highest median, each compared with ours by itself.",
    "Targets and floors stand in one table, `bench/src/goals.rs`. A verdict is one run's, by its medians.",
];

const SECTIONS: &[(Part, &str)] = &[
    (Part::Rings, "Rings"),
    (Part::Latency, "Latency beside transfers"),
    (Part::Shm, "Two processes, shared memory"),
    (Part::Tcp, "Two processes, tcp on loopback"),
    (Part::Abort, "Abort to reuse"),
    (Part::Scale, "Scale"),
    (Part::Allocation, "Allocation"),
];

/// The whole report.
pub fn report(runs: &[Run], picture: &str) -> String {
    let mut text = String::from("# Figures\n\n");
    text.push_str("Made by `cargo xtask bench`; do not edit.\n\n");
    summary(&mut text, runs);
    machine(&mut text, runs);
    text.push_str("## Method\n\n");
    for paragraph in METHOD {
        let _ = write!(text, "{}\n\n", wrapped(paragraph, ""));
    }
    for (part, title) in SECTIONS {
        section(&mut text, runs, *part, title);
    }
    let _ = writeln!(text, "## Throughput against block size\n\n![GB/s against the size of a block]({picture})\n");
    curves(&mut text, runs);
    profile(&mut text, runs);
    text.push_str("## Peers and settings\n\n");
    let mut notes: Vec<&String> = runs.iter().flat_map(|run| &run.notes).collect();
    notes.dedup();
    notes.sort();
    notes.dedup();
    for note in notes {
        let _ = writeln!(text, "- {}", wrapped(&without_paths(note), "  "));
    }
    text
}

fn summary(text: &mut String, runs: &[Run]) {
    let with_goals = ROWS.iter().filter(|row| !matches!(row.goal, Goal::Reported));
    let verdicts: Vec<Verdict> = with_goals.map(|row| verdict::worst(&verdict::of_runs(row, runs))).collect();
    let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    let line = format!(
        "Of {} goals {} are reached, {} are below their target yet above their floor, {} are below a target without \
         floor, {} are below their floor, and {} were not measured; the worst of the runs counts.",
        verdicts.len(),
        count(Verdict::Reached),
        count(Verdict::AboveFloor),
        count(Verdict::NotReached),
        count(Verdict::BelowFloor),
        count(Verdict::NotMeasured),
    );
    let _ = write!(text, "{}\n\n", wrapped(&line, ""));
    let failures: Vec<_> =
        runs.iter().enumerate().flat_map(|(n, run)| run.failures.iter().map(move |f| (n, f))).collect();
    if !failures.is_empty() {
        text.push_str("**Not measured, which fails the run:**\n\n");
        for (number, failure) in failures {
            let what = row_of(&failure.what).map_or_else(|| failure.what.clone(), named);
            let line = format!("run {}: {what}: {}", number + 1, without_paths(&failure.why));
            let _ = writeln!(text, "- {}", wrapped(&line, "  "));
        }
        text.push('\n');
    }
}

fn machine(text: &mut String, runs: &[Run]) {
    text.push_str("## Machine\n\n");
    for (number, run) in runs.iter().enumerate() {
        let quick = if run.quick { " QUICK: few rounds, a first look." } else { "" };
        let line = format!(
            "Run {}: {}; load average {} at the start, {} at the end; {} rounds, {:.0} s.{quick}",
            number + 1,
            run.machine.summary(),
            run.machine.load,
            run.load_at_end,
            run.rounds,
            run.seconds
        );
        let _ = writeln!(text, "- {}", wrapped(&line, "  "));
    }
    text.push('\n');
}

fn section(text: &mut String, runs: &[Run], part: Part, title: &str) {
    let _ = writeln!(text, "## {title}\n");
    text.push_str("| what | ours | beside it | ratio | target | floor | verdict |\n|---|---|---|---|---|---|---|\n");
    let mut remarks = Vec::new();
    for row in ROWS.iter().filter(|row| row.part == part) {
        text.push_str(&line(row, runs));
        for outcome in outcomes(runs, row.key) {
            if !outcome.remark.is_empty() {
                remarks.push(format!("{}: {}", named(row), outcome.remark));
            }
        }
    }
    text.push('\n');
    remarks.dedup();
    for remark in &remarks {
        let _ = writeln!(text, "- {}", wrapped(remark, "  "));
    }
    if !remarks.is_empty() {
        text.push('\n');
    }
}

/// A row's line.
fn line(row: &Row, runs: &[Run]) -> String {
    let outcomes = outcomes(runs, row.key);
    let words = verdict::in_words(&verdict::of_runs(row, runs));
    let (target, floor) = verdict::goal(row);
    if outcomes.is_empty() {
        return format!("| {} | | {} | | {target} | {floor} | {words} |\n", row.what, row.beside);
    }
    let (ours, theirs) = pooled(&outcomes);
    let (beside, ratio) = theirs.as_ref().map_or_else(Default::default, |theirs| {
        (format!("{}: {}", row.beside, show(theirs, row.unit)), digits(row.ratio(ours.median(), theirs.median())))
    });
    let by_run = outcomes.iter().filter_map(|outcome| {
        let theirs = outcome.theirs.as_ref()?;
        Some(digits(row.ratio(outcome.ours.median(), theirs.median())))
    });
    let by_run: Vec<String> = by_run.collect();
    let by_run = if by_run.len() > 1 { format!(" (by run {})", by_run.join(", ")) } else { String::new() };
    let shown = show(&ours, row.unit);
    format!("| {} | {shown} | {beside} | {ratio}{by_run} | {target} | {floor} | {words} |\n", row.what)
}

fn curves(text: &mut String, runs: &[Run]) {
    let Some(run) = runs.iter().rev().find(|run| !run.curves.is_empty()) else { return };
    let method = "GB/s. Plain writes one at a time, and 64 MiB as one list of scattered blocks; medians, one line \
                  measured after the other, not in turn. Memory that is copied again and again in small pieces is in \
                  the caches, memcpy's above all. iperf3 takes buffers of 1 MiB at most.";
    let _ = write!(text, "{}\n\n", wrapped(method, ""));
    for fabric in ["shm", "tcp"] {
        let curves: Vec<_> = run.curves.iter().filter(|curve| curve.fabric == fabric).collect();
        let Some(widest) = curves.iter().max_by_key(|curve| curve.points.len()) else { continue };
        let sizes: Vec<u64> = widest.points.iter().map(|(bytes, _)| *bytes).collect();
        let names: Vec<String> = sizes.iter().map(|bytes| crate::curve::size_name(*bytes)).collect();
        let _ = writeln!(text, "| {fabric} | {} |\n|---|{}", names.join(" | "), "---|".repeat(sizes.len()));
        for curve in curves {
            let cells = sizes.iter().map(|size| {
                let point = curve.points.iter().find(|(bytes, _)| bytes == size);
                point.map_or_else(String::new, |(_, rate)| digits(*rate))
            });
            let _ = writeln!(text, "| {} | {} |", curve.name, cells.collect::<Vec<_>>().join(" | "));
        }
        text.push('\n');
    }
}

fn profile(text: &mut String, runs: &[Run]) {
    text.push_str("## Instructions\n\n");
    match runs.iter().rev().find(|run| !run.profile.is_empty()) {
        None => text.push_str("Not counted in these runs: `cargo xtask bench --profile` does.\n"),
        Some(run) => run.profile.iter().for_each(|line| {
            let _ = writeln!(text, "- {}", wrapped(&without_paths(line), "  "));
        }),
    }
    text.push('\n');
}

/// The tree's own place is nobody's business.
fn without_paths(text: &str) -> String {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(String::new, |root| root.display().to_string());
    let words = text.split(' ').map(|word| match word.strip_prefix(&root) {
        Some(rest) => rest.trim_start_matches('/'),
        None if word.starts_with('/') => word.rsplit('/').next().unwrap_or(word),
        None => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Lines of bounded length, all but the first of which are indented.
pub fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > COLUMNS {
            lines.push(indent.to_owned());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() && line != indent {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::run_with;

    #[test]
    fn a_report_has_every_row_the_verdict_of_each_run_and_what_failed() {
        let runs = [run_with("nop_best", 4.0, Some(1.0)), run_with("nop_best", 2.0, Some(1.0))];
        let text = report(&runs, "throughput.svg");
        for row in ROWS {
            assert!(text.contains(row.what), "{} is missing", row.what);
        }
        assert!(
            text.contains("| 3.00 (by run 4.00, 2.00) | 4.00x | 2.50x | reached in one run of two; BELOW FLOOR in")
        );
        assert!(text.contains("run 2: CREDIT_QUERY, poller, 32 a batch, 128 in flight (M/s) beside our NOP: no ring"));
        assert!(text.contains("- NIXL is of some version\n"));
        assert!(text.contains("](throughput.svg)") && text.contains("- 5 instructions\n"));
        assert_eq!(text.matches("A remark.").count(), 1, "a remark of both runs stands once");
    }

    #[test]
    fn prose_is_wrapped_and_no_machine_is_named() {
        let runs = [run_with("nop_best", 4.0, Some(1.0))];
        let long = report(&runs, "p").lines().filter(|l| !l.starts_with('|')).map(|l| l.chars().count()).max();
        assert!(long.unwrap() <= 120, "{long:?}");
        let path = format!("{}/missing here", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(without_paths(&path), "bench/missing here");
        assert_eq!(without_paths("see /somewhere/else/file now"), "see file now");
    }
}
