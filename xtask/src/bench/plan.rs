//! Which programs are run with which arguments, and what they write.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::workspace::Workspace;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fewer rounds, operations and sizes.
    pub quick: bool,
    /// Whole runs, one after the other.
    pub runs: usize,
    /// Count instructions, too.
    pub profile: bool,
    /// Only these parts; none means all.
    pub only: Vec<String>,
}

/// The files of a bench.
pub(super) struct Plan<'a> {
    options: &'a Options,
    peers: PathBuf,
    pub program: String,
    pub folder: PathBuf,
    pub runs: Vec<PathBuf>,
    pub report: PathBuf,
    picture: PathBuf,
    /// None where the README's figures stay as they are.
    readme: Option<PathBuf>,
}

impl<'a> Plan<'a> {
    pub fn new(workspace: &Workspace, options: &'a Options) -> Plan<'a> {
        let folder = workspace.target.join("bench-results");
        let runs = (1..=options.runs.max(1)).map(|number| folder.join(format!("run-{number}.json"))).collect();
        // Some parts are no report of the project: they are written beside the runs.
        let place = if options.only.is_empty() { workspace.root.join("bench") } else { folder.clone() };
        let shown = options.only.is_empty() && !options.quick;
        Plan {
            options,
            peers: workspace.target.join("bench-peers"),
            program: workspace.target.join("release").join("dmaplane-bench").to_string_lossy().into_owned(),
            runs,
            report: place.join("REPORT.md"),
            picture: place.join("throughput.svg"),
            readme: shown.then(|| workspace.root.join("README.md")),
            folder,
        }
    }

    /// The arguments of one run, which writes this file.
    pub fn measure(&self, run: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--peers".into(), (&self.peers).into(), "--json".into(), run.into()];
        let Options { quick, profile, only, .. } = self.options;
        arguments.extend(quick.then(|| "--quick".into()));
        arguments.extend(profile.then(|| "--profile".into()));
        if !only.is_empty() {
            arguments.push("--only".into());
            arguments.extend(only.iter().map(OsString::from));
        }
        arguments
    }

    /// The arguments of the report.
    pub fn report(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["report".into()];
        arguments.extend(self.runs.iter().map(OsString::from));
        arguments.extend(["--report".into(), (&self.report).into(), "--picture".into(), (&self.picture).into()]);
        if let Some(readme) = &self.readme {
            arguments.extend(["--readme".into(), readme.into()]);
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(options: &Options) -> (String, String) {
        let workspace = Workspace { root: "tree".into(), target: "out".into() };
        let plan = Plan::new(&workspace, options);
        let join = |words: Vec<OsString>| words.join(OsString::from(" ").as_os_str()).to_string_lossy().into_owned();
        (join(plan.measure(&plan.runs[0])), join(plan.report()))
    }

    #[test]
    fn a_whole_bench_writes_report_picture_and_readme() {
        let (measure, report) = text(&Options { quick: false, runs: 2, profile: true, only: Vec::new() });
        assert_eq!(measure, "--peers out/bench-peers --json out/bench-results/run-1.json --profile");
        assert_eq!(
            report,
            "report out/bench-results/run-1.json out/bench-results/run-2.json --report tree/bench/REPORT.md \
             --picture tree/bench/throughput.svg --readme tree/README.md"
        );
    }

    #[test]
    fn a_quick_one_leaves_the_readme_alone_and_parts_leave_the_report_alone() {
        let (measure, report) = text(&Options { quick: true, runs: 0, profile: false, only: Vec::new() });
        assert!(measure.ends_with("run-1.json --quick") && !report.contains("README"), "{measure}; {report}");
        let only = vec!["shm".to_owned(), "tcp".to_owned()];
        let (measure, report) = text(&Options { quick: false, runs: 1, profile: false, only });
        assert!(measure.ends_with("--only shm tcp"), "{measure}");
        assert!(report.contains("--report out/bench-results/REPORT.md") && !report.contains("README"), "{report}");
    }
}
