//! Whether a goal is reached, by run.

use super::outcomes;
use crate::goals::{Goal, Row};
use crate::results::{Outcome, Run, digits};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Reached,
    AboveFloor,
    BelowFloor,
    /// Below a target that has no floor.
    NotReached,
    NotMeasured,
    /// There is no goal.
    Reported,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Verdict::Reached => "reached",
            Verdict::AboveFloor => "above floor",
            Verdict::BelowFloor => "BELOW FLOOR",
            Verdict::NotReached => "not reached",
            Verdict::NotMeasured => "NOT MEASURED",
            Verdict::Reported => "",
        }
    }
}

/// Of one run; medians decide.
pub fn of_run(row: &Row, outcome: Option<&Outcome>) -> Verdict {
    if matches!(row.goal, Goal::Reported) {
        return if outcome.is_some() { Verdict::Reported } else { Verdict::NotMeasured };
    }
    let Some(outcome) = outcome else { return Verdict::NotMeasured };
    let ours = outcome.ours.median();
    match (row.goal, &outcome.theirs) {
        (Goal::AtMost(most), _) if ours <= most => Verdict::Reached,
        (Goal::AtMost(_), _) => Verdict::NotReached,
        (Goal::Ratio { target, floor }, Some(theirs)) => {
            let ratio = row.ratio(ours, theirs.median());
            match floor {
                _ if ratio >= target => Verdict::Reached,
                Some(floor) if ratio >= floor => Verdict::AboveFloor,
                Some(_) => Verdict::BelowFloor,
                None => Verdict::NotReached,
            }
        }
        _ => Verdict::NotMeasured,
    }
}

/// Of each run, in order.
pub fn of_runs(row: &Row, runs: &[Run]) -> Vec<Verdict> {
    runs.iter().map(|run| of_run(row, outcomes(std::slice::from_ref(run), row.key).first().copied())).collect()
}

/// The worst of the runs counts.
pub fn worst(verdicts: &[Verdict]) -> Verdict {
    verdicts.iter().copied().max().unwrap_or(Verdict::NotMeasured)
}

/// For instance `reached in three runs of three`, or for one run `reached`.
pub fn in_words(verdicts: &[Verdict]) -> String {
    match verdicts {
        [] => Verdict::NotMeasured.words().to_owned(),
        [only] => only.words().to_owned(),
        _ => {
            let mut kinds: Vec<Verdict> = verdicts.to_vec();
            kinds.sort();
            kinds.dedup();
            let runs = number(verdicts.len());
            let words = kinds.iter().filter(|kind| **kind != Verdict::Reported).map(|kind| {
                let count = verdicts.iter().filter(|verdict| *verdict == kind).count();
                let plural = if count == 1 { "run" } else { "runs" };
                format!("{} in {} {plural} of {runs}", kind.words(), number(count))
            });
            words.collect::<Vec<_>>().join("; ")
        }
    }
}

fn number(count: usize) -> String {
    let words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    words.get(count).map_or_else(|| count.to_string(), |word| (*word).to_owned())
}

/// Target and floor in words.
pub fn goal(row: &Row) -> (String, String) {
    match row.goal {
        Goal::Ratio { target, floor } => {
            (format!("{}x", digits(target)), floor.map_or_else(String::new, |floor| format!("{}x", digits(floor))))
        }
        Goal::AtMost(most) => (format!("at most {} {}", digits(most), row.unit), String::new()),
        Goal::Reported => (String::new(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::row_of;
    use crate::report::samples::run_with;

    fn verdict(key: &str, ours: f64, theirs: Option<f64>) -> Verdict {
        of_runs(row_of(key).unwrap(), &[run_with(key, ours, theirs)])[0]
    }

    #[test]
    fn a_ratio_is_held_against_target_and_floor() {
        for (ours, expected) in [
            (4.0, Verdict::Reached),
            (3.9, Verdict::AboveFloor),
            (2.5, Verdict::AboveFloor),
            (2.4, Verdict::BelowFloor),
        ] {
            assert_eq!(verdict("nop_best", ours, Some(1.0)), expected, "{ours}");
        }
    }

    #[test]
    fn less_is_better_for_times_and_a_target_may_have_no_floor() {
        assert_eq!(verdict("poller_1", 0.9, Some(1.0)), Verdict::Reached);
        assert_eq!(verdict("poller_1", 1.1, Some(1.0)), Verdict::NotReached);
        assert_eq!(verdict("p99_shm_write", 49.0, None), Verdict::Reached);
        assert_eq!(verdict("p99_shm_write", 51.0, None), Verdict::NotReached);
        assert_eq!(verdict("query", 1.0, Some(9.0)), Verdict::Reported);
    }

    #[test]
    fn what_is_not_there_is_not_measured() {
        assert_eq!(of_run(row_of("nop_best").unwrap(), None), Verdict::NotMeasured);
        assert_eq!(of_run(row_of("query").unwrap(), None), Verdict::NotMeasured);
        assert_eq!(verdict("nop_best", 9.0, None), Verdict::NotMeasured);
        assert_eq!(in_words(&[]), "NOT MEASURED");
    }

    #[test]
    fn several_runs_are_counted_and_the_worst_counts() {
        use Verdict::{AboveFloor, NotMeasured, Reached, Reported};
        assert_eq!(in_words(&[Reached]), "reached");
        assert_eq!(in_words(&[Reached, Reached, Reached]), "reached in three runs of three");
        let mixed = [AboveFloor, Reached, Reached];
        assert_eq!(in_words(&mixed), "reached in two runs of three; above floor in one run of three");
        assert_eq!(worst(&mixed), AboveFloor);
        assert_eq!(in_words(&[Reported, NotMeasured]), "NOT MEASURED in one run of two");
    }
}
