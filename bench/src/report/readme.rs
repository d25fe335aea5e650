//! The README's figures, between two markers: nobody types a figure by hand.

use super::verdict;
use super::{markdown::wrapped, outcomes, pooled};
use crate::goals::ROWS;
use crate::results::{Run, digits};
use anyhow::{Context, Result};

pub const BEGIN: &str = "<!-- figures -->";
pub const END: &str = "<!-- end of figures -->";

/// The rows that are shown first.
pub fn figures(runs: &[Run]) -> String {
    let machine = runs.last().map_or_else(String::new, |run| run.machine.summary());
    let (runs_words, quick) = match (runs.len(), runs.iter().any(|run| run.quick)) {
        (1, quick) => ("One run".to_owned(), quick),
        (count, quick) => (format!("{count} runs"), quick),
    };
    let quick = if quick { " with `--quick`, a first look" } else { "" };
    let loads: Vec<&str> = runs.iter().map(|run| run.machine.load.as_str()).collect();
    let intro = format!(
        "{runs_words} of `cargo xtask bench`{quick}, on {machine}, load average {} at the start. A ratio above 1 is in \
         our favour; [bench/REPORT.md](bench/REPORT.md) has all rows, their spread and the method.",
        loads.join(", ")
    );
    let mut text = wrapped(&intro, "");
    text.push_str("\n\n| what | ours | beside it | ratio | target | verdict |\n|---|---|---|---|---|---|\n");
    for row in ROWS.iter().filter(|row| row.shown_first) {
        let outcomes = outcomes(runs, row.key);
        let verdict = verdict::in_words(&verdict::of_runs(row, runs));
        let (target, _) = verdict::goal(row);
        if outcomes.is_empty() {
            text.push_str(&format!("| {} | | {} | | {target} | {verdict} |\n", row.what, row.beside));
            continue;
        }
        let (ours, theirs) = pooled(&outcomes);
        let with_unit = |value: f64| format!("{} {}", digits(value), row.unit);
        let (beside, ratio) = theirs.map_or_else(Default::default, |theirs| {
            let ratio = digits(row.ratio(ours.median(), theirs.median()));
            (format!("{} {}", row.beside, with_unit(theirs.median())), ratio)
        });
        let ours = with_unit(ours.median());
        text.push_str(&format!("| {} | {ours} | {beside} | {ratio} | {target} | {verdict} |\n", row.what));
    }
    text.push_str("\n![Throughput against the size of a block](bench/throughput.svg)\n");
    text
}

/// The text with what stands between the markers replaced.
pub fn replaced(text: &str, figures: &str) -> Result<String> {
    let missing = |marker: &str| format!("there is no line {marker:?} to put the figures behind");
    let (before, rest) = text.split_once(BEGIN).with_context(|| missing(BEGIN))?;
    let (_, after) = rest.split_once(END).with_context(|| missing(END))?;
    Ok(format!("{before}{BEGIN}\n{figures}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::run_with;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&text, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert!(replaced("no markers", "new").is_err());
        assert!(replaced(BEGIN, "new").unwrap_err().to_string().contains(END));
    }

    #[test]
    fn the_table_has_figures_and_says_what_was_not_measured() {
        let text = figures(&[run_with("nop_best", 30.0, Some(10.0))]);
        assert!(
            text.contains("| 30.0 M/s | the best of io_uring's modes 10.0 M/s | 3.00 | 4.00x | above floor |"),
            "{text}"
        );
        assert!(text.contains("NOT MEASURED"));
        assert!(text.starts_with("One run of"));
    }

    #[test]
    fn the_readme_has_the_markers() {
        assert!(replaced(include_str!("../../../README.md"), "").is_ok());
    }
}
