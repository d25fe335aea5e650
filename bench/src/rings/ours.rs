//! Operations through a ring of ours.

use super::{Pace, spread};
use crate::sample::Measurement;
use anyhow::{Result, ensure};
use dmaplane_embedded::Ring;
use dmaplane_ring::abi::Sqe;
use dmaplane_ring::build::Nop;
use dmaplane_ring::wait::relax;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);

/// Millions of operations a second. Every completion is looked at: one that failed, or one too many, is no figure.
pub fn turns(ring: &mut Ring, pace: Pace, operations: u64, sqe: impl Fn(u64) -> Sqe) -> Result<Measurement> {
    // Whoever runs the engine is awake when the clock starts, as io_uring's thread is.
    ensure!(ring.push(Nop::new()).is_ok(), "the ring is not empty");
    ring.submit();
    ensure!(ring.wait_one(WAIT).is_some(), "the engine does not answer");
    spread(|| some(ring, pace, pace.depth, &sqe))?;
    let start = Instant::now();
    some(ring, pace, operations, &sqe)?;
    Ok(Measurement::rate(operations, start))
}

fn some(ring: &mut Ring, pace: Pace, operations: u64, sqe: &impl Fn(u64) -> Sqe) -> Result<()> {
    let Pace { batch, depth, gives_way } = pace;
    let (mut pushed, mut reaped, mut names, mut failed) = (0, 0, 0u64, 0u64);
    let mut empty = 0u32;
    while reaped < operations {
        while pushed < operations && pushed - reaped + batch <= depth {
            for _ in 0..batch {
                if ring.push(sqe(pushed)).is_err() {
                    break;
                }
                pushed += 1;
            }
            ring.submit();
        }
        let found = ring.reap(depth as u32, |cqe| {
            names = names.wrapping_add(cqe.user_data);
            failed += u64::from(cqe.res < 0);
        });
        reaped += u64::from(found);
        if gives_way {
            empty = if found == 0 { empty.wrapping_add(1) } else { 0 };
            if found == 0 {
                relax(empty);
            }
        }
    }
    ensure!(failed == 0, "{failed} of {operations} operations failed");
    ensure!(names == sum_below(operations), "completions carry other names than the operations had");
    Ok(())
}

/// The sum of the names that `operations` operations had.
pub fn sum_below(operations: u64) -> u64 {
    operations * (operations - 1) / 2
}
