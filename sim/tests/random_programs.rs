//! Random programs against the reference model: every clause that `model`, `host` and `world_end` name.
//!
//! A case that fails is shrunk to few and small steps. `DMAPLANE_SIM_CASES` sets the number of cases;
//! `DMAPLANE_SIM_OUTCOMES=1` prints which results each opcode came to.

use dmaplane_ring::abi::{Errno, Opcode};
use dmaplane_sim::script::{Start, Step, run};
use dmaplane_sim::world::Report;
use proptest::prelude::*;
use std::cell::RefCell;

fn cases(default: u32) -> u32 {
    std::env::var("DMAPLANE_SIM_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}

fn sweep(default: u32, steps: usize, start: Start) -> Report {
    let config = ProptestConfig { cases: cases(default), failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let programs = (any::<u64>(), proptest::collection::vec(any::<Step>(), 1..steps));
    let began = std::time::Instant::now();
    let (all, count) = (RefCell::new(Report::default()), RefCell::new(0));
    let result = runner.run(&programs, |(seed, script)| {
        let report = run(seed, start, &script).map_err(TestCaseError::fail)?;
        let mut all = all.borrow_mut();
        (all.sqes, all.cqes, all.moves) = (all.sqes + report.sqes, all.cqes + report.cqes, all.moves + report.moves);
        for (outcome, times) in report.outcomes {
            *all.outcomes.entry(outcome).or_default() += times;
        }
        *count.borrow_mut() += 1;
        Ok(())
    });
    let (all, count, seconds) = (all.into_inner(), count.into_inner(), began.elapsed().as_secs_f64());
    let Report { sqes, cqes, moves, .. } = all;
    println!("{start:?}: {count} programs, {sqes} SQEs, {cqes} CQEs, {moves} moves in {seconds:.1} s");
    if let Err(proptest::test_runner::TestError::Fail(why, (seed, script))) = result {
        panic!("{why}\nreplay: run({seed}, Start::{start:?}, &{script:?})");
    }
    result.expect("no case was given up");
    all
}

#[test]
fn prf_1_random_programs_on_furnished_planes_keep_to_the_model() {
    let report = sweep(20_000, 400, Start::Furnished);
    if std::env::var_os("DMAPLANE_SIM_OUTCOMES").is_some() {
        for ((opcode, result), times) in &report.outcomes {
            let opcode = Opcode::from_byte(*opcode);
            match result {
                0 => println!("{times:>9} {opcode:?} success"),
                _ => println!("{times:>9} {opcode:?} {:?}", Errno::from_raw(-result)),
            }
        }
    }
    // A sweep that never gets anywhere shows nothing.
    for &opcode in Opcode::ALL {
        let result = match opcode {
            Opcode::Timeout | Opcode::LinkTimeout => Errno::ETIME.as_result(),
            _ => 0,
        };
        let reached = report.outcomes.get(&(opcode as u8, result)).copied().unwrap_or(0);
        assert!(reached > 0 || cases(20_000) < 1000, "no program has brought {opcode:?} to its end");
    }
}

#[test]
fn prf_1_random_programs_on_bare_planes_keep_to_the_model() {
    sweep(8000, 150, Start::Bare);
}
