//! Counting what passed, failed and was skipped.

use std::fmt;
use std::ops::AddAssign;

/// How many checks passed, failed and were skipped. Displayed, it is the closing line of the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed.
    pub failed: u64,
    /// Checks that could not run here, or that their authors marked as ignored.
    pub skipped: u64,
}

impl Tally {
    /// One check that could not run.
    pub const SKIPPED: Self = Self { passed: 0, failed: 0, skipped: 1 };
    /// One check that failed.
    pub const FAILED: Self = Self { passed: 0, failed: 1, skipped: 0 };

    /// One check with the given result.
    #[must_use]
    pub const fn one(passed: bool) -> Self {
        if passed { Self { passed: 1, failed: 0, skipped: 0 } } else { Self::FAILED }
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
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(formatter, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_names_skipped_checks_only_where_there_are_some() {
        let mut tally = Tally { passed: 3, failed: 0, skipped: 0 };
        assert_eq!(tally.to_string(), "3 passed, 0 failed");
        tally += Tally::SKIPPED;
        tally += Tally::one(false);
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_lane_with_a_failure_fails_and_one_without_any_check_is_skipped() {
        assert_eq!(Tally { passed: 9, failed: 1, skipped: 1 }.verdict(), "FAIL");
        assert_eq!(Tally { passed: 9, failed: 0, skipped: 1 }.verdict(), "pass");
        assert_eq!(Tally::SKIPPED.verdict(), "skip");
    }
}
