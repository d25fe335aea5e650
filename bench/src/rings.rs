//! No-ops through the rings, beside io_uring's.

use crate::sample::{alternate, line};
use anyhow::{Context as _, Result};
use dmaplane_embedded::{Config, Context, Ring, RunMode};
use dmaplane_ring::build::Nop;
use io_uring::{IoUring, opcode};
use std::time::{Duration, Instant};

const OPERATIONS: u64 = 1 << 20;

fn context(mode: RunMode) -> Result<Context> {
    Ok(Context::open(Config { mode, ..Config::default() })?)
}

/// Operations per second, in millions.
fn ours(ring: &mut Ring, batch: u64, depth: u64, operations: u64) -> f64 {
    let start = Instant::now();
    let (mut pushed, mut reaped) = (0, 0);
    while reaped < operations {
        while pushed < operations && pushed - reaped + batch <= depth {
            for _ in 0..batch {
                if ring.push(Nop::new().user_data(pushed)).is_err() {
                    break;
                }
                pushed += 1;
            }
            ring.submit();
        }
        reaped += u64::from(ring.reap(batch as u32, |_| {}));
    }
    operations as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn theirs(ring: &mut IoUring, batch: u64, depth: u64, operations: u64) -> Result<f64> {
    let start = Instant::now();
    let (mut pushed, mut reaped) = (0, 0);
    while reaped < operations {
        while pushed < operations && pushed - reaped + batch <= depth {
            for _ in 0..batch {
                let entry = opcode::Nop::new().build().user_data(pushed);
                // SAFETY: a no-op refers to no memory.
                unsafe { ring.submission().push(&entry) }.context("the submission queue is full")?;
                pushed += 1;
            }
            ring.submit()?;
        }
        reaped += ring.completion().take(batch as usize).count() as u64;
    }
    Ok(operations as f64 / start.elapsed().as_secs_f64() / 1e6)
}

pub fn run(rounds: usize) -> Result<()> {
    let awake = RunMode::Poller { idle: Duration::from_secs(60) };
    let poller = context(awake)?;
    let mut ring = poller.ring(256, 512)?;
    let mut enter = IoUring::new(256)?;
    let mut sqpoll = IoUring::builder().setup_sqpoll(1000).build(256)?;
    for (batch, depth, operations) in [(32, 128, OPERATIONS), (1, 1, OPERATIONS / 16)] {
        let what = format!("no-ops, poller, batch {batch}, {depth} in flight");
        let beside_enter = alternate(
            rounds,
            || Ok(ours(&mut ring, batch, depth, operations)),
            || theirs(&mut enter, batch, depth, operations),
        )?;
        line(&what, "M/s", "io_uring enter", beside_enter);
        let beside_sqpoll = alternate(
            rounds,
            || Ok(ours(&mut ring, batch, depth, operations)),
            || theirs(&mut sqpoll, batch, depth, operations),
        )?;
        line(&what, "M/s", "io_uring SQPOLL", beside_sqpoll);
    }
    drop((ring, poller));
    let inline = context(RunMode::Inline)?;
    let mut ring = inline.ring(256, 512)?;
    let depth_one =
        alternate(rounds, || Ok(ours(&mut ring, 1, 1, OPERATIONS / 4)), || theirs(&mut enter, 1, 1, OPERATIONS / 4))?;
    line("no-ops, inline, depth 1", "M/s", "io_uring enter", depth_one);
    Ok(())
}
