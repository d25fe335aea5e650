//! `dmaplane-bench report`: the report, the picture and the README's figures, made of one or more runs' files.

mod markdown;
mod picture;
mod readme;
mod verdict;

use crate::results::{Outcome, Run};
use crate::sample::Sample;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// What to read and what to write.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The files that `--json` wrote, a run each
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The files are parts of one run (`--only`), not a run each
    #[arg(long)]
    merge: bool,
    /// Where to write the report
    #[arg(long, value_name = "FILE")]
    report: PathBuf,
    /// Where to write the picture
    #[arg(long, value_name = "FILE")]
    picture: PathBuf,
    /// Whose figures to replace, between its markers
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

/// Writes all three.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut runs = Vec::new();
    for file in &arguments.runs {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let run: Run = serde_json::from_str(&text).with_context(|| format!("{} is no run's file", file.display()))?;
        runs.push(run);
    }
    ensure!(runs.iter().all(|run| run.quick == runs[0].quick), "quick runs and whole ones make no report together");
    if arguments.merge {
        runs = merged(runs).into_iter().collect();
    }
    let curves = runs.iter().rev().map(|run| &run.curves[..]).find(|curves| !curves.is_empty()).unwrap_or_default();
    picture::draw(&arguments.picture, curves)?;
    let picture = arguments.picture.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let report = markdown::report(&runs, &picture);
    std::fs::write(&arguments.report, report).with_context(|| format!("writing {}", arguments.report.display()))?;
    if let Some(file) = &arguments.readme {
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let text = readme::replaced(&text, &readme::figures(&runs)).with_context(|| file.display().to_string())?;
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

/// One run of the parts of one.
fn merged(parts: Vec<Run>) -> Option<Run> {
    parts.into_iter().reduce(|mut run, part| {
        run.outcomes.extend(part.outcomes);
        run.failures.extend(part.failures);
        run.curves.extend(part.curves);
        run.notes.extend(part.notes);
        run.profile.extend(part.profile);
        run.rounds = run.rounds.min(part.rounds);
        run.load_at_end = part.load_at_end;
        run.seconds += part.seconds;
        run
    })
}

/// A row's outcome in each run that has one.
fn outcomes<'a>(runs: &'a [Run], key: &str) -> Vec<&'a Outcome> {
    runs.iter().filter_map(|run| run.outcomes.iter().find(|outcome| outcome.key == key)).collect()
}

/// The rounds of all runs.
fn pooled(outcomes: &[&Outcome]) -> (Sample, Option<Sample>) {
    let (mut ours, mut theirs) = (Sample::default(), None);
    for outcome in outcomes {
        ours.extend(&outcome.ours);
        if let Some(sample) = &outcome.theirs {
            theirs.get_or_insert_with(Sample::default).extend(sample);
        }
    }
    (ours, theirs)
}

#[cfg(test)]
mod tests {
    use super::samples::run_with;
    use super::*;

    #[test]
    fn parts_of_a_run_become_one_and_runs_are_pooled() {
        let parts = vec![run_with("nop_best", 1.0, Some(1.0)), run_with("alloc_memset", 2.0, Some(1.0))];
        let run = merged(parts).unwrap();
        assert_eq!((run.outcomes.len(), run.failures.len(), run.seconds), (2, 2, 2.0));
        let runs = [run, run_with("nop_best", 3.0, Some(5.0))];
        let (ours, theirs) = pooled(&outcomes(&runs, "nop_best"));
        assert_eq!((ours.values, theirs.unwrap().values), (vec![1.0, 3.0], vec![1.0, 5.0]));
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;
    use crate::machine::Machine;
    use crate::results::Failure;

    /// A run in which one row has these figures.
    pub fn run_with(key: &str, ours: f64, theirs: Option<f64>) -> Run {
        let theirs = theirs.map(|value| Sample::plain(vec![value]));
        Run {
            machine: Machine::look(),
            quick: false,
            rounds: 1,
            outcomes: vec![Outcome {
                key: key.to_owned(),
                ours: Sample::plain(vec![ours]),
                theirs,
                remark: "A remark.".to_owned(),
            }],
            failures: vec![Failure { what: "query".to_owned(), why: "no ring".to_owned() }],
            curves: Vec::new(),
            notes: vec!["NIXL is of some version".to_owned()],
            profile: vec!["5 instructions".to_owned()],
            load_at_end: "0.5".to_owned(),
            seconds: 1.0,
        }
    }
}
