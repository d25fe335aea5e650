//! No-ops through the rings, beside io_uring's.

use crate::sample::Measurement;
use crate::table::{Quantity, Table};
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
fn ours(ring: &mut Ring, batch: u64, depth: u64, operations: u64) -> Measurement {
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
    rate(operations, start)
}

fn rate(operations: u64, start: Instant) -> Measurement {
    Measurement::plain(operations as f64 / start.elapsed().as_secs_f64() / 1e6)
}

fn theirs(ring: &mut IoUring, batch: u64, depth: u64, operations: u64) -> Result<Measurement> {
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
    Ok(rate(operations, start))
}

pub fn run(table: &mut Table) -> Result<()> {
    let awake = RunMode::Poller { idle: Duration::from_secs(60) };
    let poller = context(awake)?;
    let mut ring = poller.ring(256, 512)?;
    let mut enter = IoUring::new(256)?;
    let mut sqpoll = IoUring::builder().setup_sqpoll(1000).build(256)?;
    for (what, batch, depth, operations) in [
        ("no-ops, poller, batch 32, 128 in flight", 32, 128, OPERATIONS),
        ("no-ops, poller, batch 1, 1 in flight", 1, 1, OPERATIONS / 16),
    ] {
        for (beside, theirs_ring) in [("io_uring enter", &mut enter), ("io_uring SQPOLL", &mut sqpoll)] {
            table.compare(
                Quantity::rate(what, "M/s"),
                beside,
                || Ok(ours(&mut ring, batch, depth, operations)),
                || theirs(theirs_ring, batch, depth, operations),
            )?;
        }
    }
    drop((ring, poller));
    let inline = context(RunMode::Inline)?;
    let mut ring = inline.ring(256, 512)?;
    table.compare(
        Quantity::rate("no-ops, inline, depth 1", "M/s"),
        "io_uring enter",
        || Ok(ours(&mut ring, 1, 1, OPERATIONS / 4)),
        || theirs(&mut enter, 1, 1, OPERATIONS / 4),
    )
}
