//! Defects built in on purpose: with each of them the named test must fail, and with the expected words. And first
//! guards taken away on purpose, where a second one is to suffice: with each of them the named test must pass.

use anyhow::Result;
use std::time::Instant;

use super::LaneContext;
use crate::process::{stream, succeeds};
use crate::tally::Tally;

/// A defect and what must notice it.
struct Defect {
    package: &'static str,
    feature: &'static str,
    /// What to pass to the test run.
    tests: &'static [&'static str],
    /// Words that the failure must contain; or the success, where the test must pass.
    words: &'static str,
}

/// Serves caches that are read from their owner, without what an owner says of the end of an offer.
const PULLED: &[&str] = &["--release", "--test", "serve", "the_lease_alone_keeps_pulled_caches_right"];

const DEFECTS: &[Defect] = &[
    Defect { package: "dmaplane-sim", feature: "seeded-missing-release", tests: &[], words: "RES-1" },
    Defect { package: "dmaplane-sim", feature: "seeded-skipped-generation", tests: &[], words: "HND-3" },
    Defect { package: "dmaplane-sim", feature: "seeded-double-credit", tests: &[], words: "CRD-2" },
    Defect { package: "dmaplane-sim", feature: "broken-no-reservation", tests: &[], words: "RES-1" },
    Defect { package: "dmaplane-sim", feature: "broken-no-lease-check", tests: &[], words: "LSE-12" },
    Defect {
        package: "dmaplane-embedded",
        feature: "broken-no-reservation",
        // Not captured: the check that fires ends the process.
        tests: &["--test", "never_reaps", "res_1", "--", "--nocapture"],
        words: "the CQ overflowed",
    },
    Defect {
        package: "dmaplane",
        feature: "broken-no-lease-check",
        tests: &["--test", "late_writes", "lse_12"],
        words: "old bytes",
    },
    Defect {
        package: "dmaplane",
        feature: "broken-recycling",
        tests: &["--test", "recycled", "buf_3"],
        words: "whoever has the descriptor sees the next user's bytes",
    },
    Defect {
        package: "dmaplane-cli",
        feature: "broken-no-lease-check",
        // Two cores of a transformer: only optimised does it serve enough to go wrong.
        tests: &["--release", "--test", "serve", "every_answer_is_right_when_caches_are_pushed"],
        words: "wrong answers",
    },
    Defect {
        package: "dmaplane-cli",
        feature: "broken-no-end-signal,broken-no-lease-check",
        tests: PULLED,
        words: "wrong answers",
    },
    Defect {
        package: "dmaplane-kv",
        feature: "broken-no-lease-check",
        tests: &["--test", "late_layers", "lse_12"],
        words: "an old layer in reused blocks",
    },
];

/// Guards that are not there, and what has to suffice without them.
const SECOND_GUARDS: &[Defect] = &[Defect {
    package: "dmaplane-cli",
    feature: "broken-no-end-signal",
    tests: PULLED,
    words: "test result: ok. 1 passed",
}];

pub fn run(context: &LaneContext) -> Result<Tally> {
    let mut tally = Tally::default();
    for (defects, must_fail) in [(DEFECTS, true), (SECOND_GUARDS, false)] {
        for defect in defects {
            tally += Tally::one(check(context, defect, must_fail)?);
        }
    }
    Ok(tally)
}

fn check(context: &LaneContext, defect: &Defect, must_fail: bool) -> Result<bool> {
    let command = |extra: &[&str]| {
        let mut command = context.workspace.cargo();
        command.args(["test", "--package", defect.package, "--features", defect.feature, "--no-fail-fast"]);
        command.args(extra).args(defect.tests);
        // In the same target folder, so that dependencies need not be built again. A crate with such a feature is
        // another artefact there; what has one name for all, a program, is made anew by whoever needs it.
        command
    };
    // All flags, and not the name of the test.
    let flags = defect.tests.iter().rposition(|word| word.starts_with("--test")).map_or(0, |index| index + 2);
    let filterless: Vec<&str> = defect.tests.iter().take(flags).copied().collect();
    let mut build = context.workspace.cargo();
    build.args(["test", "--package", defect.package, "--features", defect.feature, "--no-run"]).args(filterless);
    if !succeeds(build)? {
        println!("{}: does not build, so nothing was shown", defect.feature);
        return Ok(false);
    }
    let start = Instant::now();
    let mut noticed = false;
    let status = stream(command(&[]), |line| noticed |= line.contains(defect.words))?;
    let seconds = start.elapsed().as_secs_f64();
    let is_right = noticed && status.success() != must_fail;
    let verdict = match (is_right, must_fail) {
        (true, true) => "caught",
        (false, true) => "NOT CAUGHT",
        (true, false) => "made good",
        (false, false) => "NOT MADE GOOD",
    };
    println!("{verdict}: {} by {} ({}), {seconds:.1} s", defect.feature, defect.package, defect.words);
    Ok(is_right)
}
