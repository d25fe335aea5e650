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
    let curves: Vec<_> =
        runs.iter().rev().map(|run| &run.curves).find(|curves| !curves.is_empty()).into_iter().collect();
    let curves = curves.first().map_or(&[][..], |curves| curves);
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
