//! `cargo xtask test`: runs the lanes, then prints what came of each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lanes::{self, Lane, LaneContext, Options};
use crate::setup;
use crate::tally::Tally;
use crate::workspace::Workspace;

struct Finished {
    name: &'static str,
    tally: Tally,
    duration: Duration,
}

/// Runs the named lanes, or all where none is named. A failing lane does not stop the next.
///
/// The last line printed is the closing line, whatever happened before it; before it come the checks that were skipped.
pub fn run(workspace: Workspace, names: &[String], options: Options) -> Result<bool> {
    let lanes = lanes::select(names)?;
    let lane_names: Vec<&str> = lanes.iter().map(|lane| lane.name).collect();
    let mut finished = Vec::new();

    let started = Instant::now();
    let setup = setup::run(&workspace, Some(&lane_names)).context("setup");
    if let Err(error) = &setup {
        println!("error: {error:#}");
        finished.push(Finished { name: "setup", tally: Tally::FAILED, duration: started.elapsed() });
    } else {
        let context = LaneContext { workspace, options };
        finished.extend(lanes.into_iter().map(|lane| run_lane(lane, &context)));
    }

    let total = finished.iter().fold(Tally::default(), |mut total, lane| {
        total += lane.tally.clone();
        total
    });
    print!("\n{}{}{}", table(&finished), total.fails(), total.skips());
    println!("{total}");
    Ok(total.failed == 0 && total.ran_any())
}

fn run_lane(lane: &Lane, context: &LaneContext) -> Finished {
    println!("\n=== {}: {}", lane.name, lane.purpose);
    let started = Instant::now();
    let tally = (lane.run)(context).unwrap_or_else(|error| {
        println!("error: {error:#}");
        Tally::FAILED
    });
    print!("{}", tally.skips());
    Finished { name: lane.name, tally, duration: started.elapsed() }
}

fn table(lanes: &[Finished]) -> String {
    let mut table =
        format!("{:<14} {:<7} {:>7} {:>7} {:>8} {:>8}\n", "lane", "result", "passed", "failed", "skipped", "seconds");
    for Finished { name, tally, duration } in lanes {
        table.push_str(&format!(
            "{name:<14} {:<7} {:>7} {:>7} {:>8} {:>8.1}\n",
            tally.verdict(),
            tally.passed,
            tally.failed,
            tally.skipped,
            duration.as_secs_f64()
        ));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_each_lane() {
        let lanes = [
            Finished { name: "fmt", tally: Tally::one(true), duration: Duration::from_millis(1250) },
            Finished { name: "unit", tally: Tally::FAILED, duration: Duration::from_secs(70) },
        ];
        let table = table(&lanes);
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["fmt", "pass", "1", "0", "0", "1.2"]);
        assert_eq!(rows[2], ["unit", "FAIL", "0", "1", "0", "70.0"]);
    }
}
