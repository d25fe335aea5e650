//! Counting what passed, failed and was skipped.

use std::fmt;
use std::ops::AddAssign;

/// How many checks passed, failed and were skipped. Displayed, it is the closing line of the tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Checks that could not run here, or that their authors marked as ignored.
    pub skipped: u64,
    /// Of those that could not run here: `name: why`.
    pub reasons: Vec<String>,
    /// Of those that failed, where more is known than their number: `name: why`.
    pub failures: Vec<String>,
}

impl Tally {
    /// One check that failed.
    pub const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0, reasons: Vec::new(), failures: Vec::new() };

    /// One check with the given result.
    #[must_use]
    pub const fn one(passed: bool) -> Self {
        let (passed, failed) = if passed { (1, 0) } else { (0, 1) };
        Self { passed, failed, skipped: 0, reasons: Vec::new(), failures: Vec::new() }
    }

    /// One check that failed, and why.
    #[must_use]
    pub fn fail(name: &str, why: &str) -> Self {
        Self { failures: vec![format!("{name}: {why}")], ..Self::FAILED }
    }

    /// One check that could not run, and why.
    #[must_use]
    pub fn skip(name: &str, why: &str) -> Self {
        Self { skipped: 1, reasons: vec![format!("{name}: {why}")], ..Self::default() }
    }

    /// Takes out of those that passed the ones that say themselves that they could not run: `name: why` each. A test
    /// that says so more than once is one.
    pub fn discount(&mut self, reasons: impl IntoIterator<Item = String>) {
        let name = |reason: &String| reason.split(':').next().unwrap_or_default().to_owned();
        for reason in reasons {
            if !self.reasons.iter().any(|known| name(known) == name(&reason)) {
                self.passed = self.passed.saturating_sub(1);
                self.skipped += 1;
                self.reasons.push(reason);
            }
        }
    }

    /// Whether any check ran at all.
    #[must_use]
    pub const fn ran_any(&self) -> bool {
        self.passed + self.failed > 0
    }

    /// One word for the table.
    #[must_use]
    pub const fn verdict(&self) -> &'static str {
        match (self.failed, self.passed) {
            (0, 0) => "skip",
            (0, _) => "pass",
            _ => "FAIL",
        }
    }

    /// What is known of those that failed, a line each.
    #[must_use]
    pub fn fails(&self) -> String {
        self.failures.iter().map(|failure| format!("FAILED {failure}\n")).collect()
    }

    /// What could not be shown here, a line each and one that counts them; nothing when all could.
    #[must_use]
    pub fn skips(&self) -> String {
        if self.reasons.is_empty() {
            return String::new();
        }
        let lines: String = self.reasons.iter().map(|reason| format!("SKIPPED {reason}\n")).collect();
        format!("{lines}{} SKIPPED: what they check was not checked here\n", self.reasons.len())
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.reasons.extend(other.reasons);
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts_what_passed_and_failed_and_nothing_else() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        assert_eq!((tally.to_string(), tally.skips()), ("3 passed, 0 failed".to_owned(), String::new()));
        tally += Tally::skip("aarch64", "no target");
        tally += Tally::one(false);
        assert_eq!(tally.to_string(), "3 passed, 1 failed");
        let skips = "SKIPPED aarch64: no target\n1 SKIPPED: what they check was not checked here\n";
        assert_eq!(tally.skips(), skips);
    }

    #[test]
    fn a_test_that_could_not_run_is_no_pass() {
        let mut tally = Tally { passed: 3, ..Tally::default() };
        tally.discount(["a_full_disk: mount: not allowed".to_owned(), "a_full_disk: once more".to_owned()]);
        tally.discount(["other: no network".to_owned()]);
        assert_eq!((tally.passed, tally.failed, tally.skipped), (1, 0, 2));
        assert_eq!(tally.reasons, ["a_full_disk: mount: not allowed", "other: no network"]);
    }

    #[test]
    fn a_lane_with_a_failure_fails_and_one_without_any_check_is_skipped() {
        assert_eq!(Tally { passed: 9, failed: 1, skipped: 1, ..Tally::default() }.verdict(), "FAIL");
        assert_eq!(Tally { passed: 9, skipped: 1, ..Tally::default() }.verdict(), "pass");
        assert_eq!(Tally::skip("aarch64", "no target").verdict(), "skip");
    }
}
