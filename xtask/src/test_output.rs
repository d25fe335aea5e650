//! Reading how many tests ran from what the test runners print, and which of them could not.

use std::path::PathBuf;
use std::process::Command;
use std::{fs, io};

use crate::tally::Tally;
use crate::workspace::Workspace;

/// Names the file to which a test that cannot run adds a line `name: why`. Runners hide what passing tests print.
const SKIPPED_VARIABLE: &str = "DMAPLANE_SKIPPED";

/// Where the tests of one run say that they could not run.
pub struct SkippedTests(PathBuf);

impl SkippedTests {
    /// An empty file, of which the tests that `command` runs will know.
    pub fn collect(workspace: &Workspace, command: &mut Command) -> io::Result<Self> {
        let path = workspace.target.join("skipped-tests.txt");
        fs::create_dir_all(&workspace.target)?;
        fs::write(&path, "")?;
        command.env(SKIPPED_VARIABLE, &path);
        Ok(Self(path))
    }

    /// What they said: `name: why` each.
    pub fn reasons(&self) -> io::Result<Vec<String>> {
        Ok(fs::read_to_string(&self.0)?.lines().map(str::to_owned).collect())
    }
}

/// Who ran the tests. Only that runner's own summary counts: nextest repeats the output of a failed
/// test, which holds a summary of libtest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// `cargo nextest run`: one summary at the end.
    Nextest,
    /// `cargo test`: one summary for each test binary and crate of doc tests.
    Libtest,
}

impl Runner {
    /// The counts in one line of output, where it is a summary.
    #[must_use]
    pub fn summary(self, line: &str) -> Option<Tally> {
        match self {
            Self::Nextest => nextest_summary(line),
            Self::Libtest => libtest_summary(line),
        }
    }
}

/// Reads `Summary [ 0.010s] 4/7 tests run: 3 passed (1 slow, 1 flaky), 1 failed, 2 skipped`.
fn nextest_summary(line: &str) -> Option<Tally> {
    let rest = line.trim_start().strip_prefix("Summary [")?;
    let (_, counts) = rest.split_once(" run: ")?;
    Some(tally(without_parentheses(counts).split(',')))
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in ..`.
fn libtest_summary(line: &str) -> Option<Tally> {
    let rest = line.trim_start().strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    Some(tally(counts.split(';')))
}

fn tally<'a>(parts: impl Iterator<Item = &'a str>) -> Tally {
    let mut tally = Tally::default();
    for part in parts {
        let Some((count, word)) = part.trim().split_once(' ') else {
            continue;
        };
        let Ok(count) = count.parse::<u64>() else {
            continue;
        };
        match word {
            "passed" => tally.passed += count,
            "failed" | "timed out" | "exec failed" => tally.failed += count,
            "skipped" | "ignored" => tally.skipped += count,
            _ => {}
        }
    }
    tally
}

fn without_parentheses(text: &str) -> String {
    let mut depth = 0_u32;
    let mut kept = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => kept.push(character),
            _ => {}
        }
    }
    // "3 passed (1 slow), 1 failed" leaves a space before the comma.
    kept.replace(" ,", ",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_summaries() {
        let cases = [
            ("     Summary [   0.005s] 3 tests run: 3 passed, 0 skipped", (3, 0, 0)),
            ("     Summary [   0.005s] 1 test run: 1 passed, 0 skipped", (1, 0, 0)),
            (
                "     Summary [  61.2s] 9/12 tests run: 5 passed (1 slow, 1 flaky), 2 failed, 1 timed out, \
                 1 exec failed, 2 skipped",
                (5, 4, 2),
            ),
            ("     Summary [   1.000s] 4 tests run: 4 passed (1 leaky), 6 skipped", (4, 0, 6)),
            ("     Summary [   0.000s] 0 tests run: 0 passed, 0 skipped", (0, 0, 0)),
        ];
        for (line, (passed, failed, skipped)) in cases {
            let expected = Tally { passed, failed, skipped, ..Tally::default() };
            assert_eq!(Runner::Nextest.summary(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn libtest_summaries() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; \
                    finished in 0.00s";
        let expected = Tally { passed: 3, failed: 2, skipped: 1, ..Tally::default() };
        assert_eq!(Runner::Libtest.summary(line), Some(expected));
    }

    #[test]
    fn a_run_starts_with_no_skipped_test_and_reads_those_that_say_so() {
        let folder = std::env::temp_dir().join(format!("dmaplane-skipped-{}", std::process::id()));
        let workspace = Workspace { root: folder.clone(), target: folder.join("target") };
        for _ in 0..2 {
            let mut command = Command::new("sh");
            command.args(["-c", "echo 'one: no disk' >> $DMAPLANE_SKIPPED; echo 'two: no net' >> $DMAPLANE_SKIPPED"]);
            let skipped = SkippedTests::collect(&workspace, &mut command).unwrap();
            assert!(skipped.reasons().unwrap().is_empty());
            assert!(command.status().unwrap().success());
            assert_eq!(skipped.reasons().unwrap(), ["one: no disk", "two: no net"]);
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn each_runner_ignores_the_other_and_ordinary_lines() {
        let nextest = "     Summary [   0.005s] 3 tests run: 3 passed, 0 skipped";
        let libtest = "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(Runner::Libtest.summary(nextest), None);
        assert_eq!(Runner::Nextest.summary(libtest), None);
        for line in ["", "running 3 tests", "test a ... ok", "        PASS [ 0.01s] ring a"] {
            assert_eq!(Runner::Libtest.summary(line), None);
            assert_eq!(Runner::Nextest.summary(line), None);
        }
    }
}
