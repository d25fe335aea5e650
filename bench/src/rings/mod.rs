//! Operations through the rings, beside io_uring's and a bare ring's.

mod bare;
mod kernel;
mod ours;

use crate::cores::{Distance, Patience};
use crate::goals::row_of;
use crate::ours::connection::{Connection, Fabric};
use crate::results::Results;
use crate::sample::{Contestant, Failed, Measurement, Sample, alternate};
use anyhow::{Context as _, Result};
use dmaplane::{Config, Context, RunMode};
use dmaplane_ring::build::{CreditQuery, Nop, Write};
use kernel::{Kernel, Mode};
use std::time::Duration;

pub use ours::turns;

/// How long a poller, ours and io_uring's alike, goes on looking for work before it sleeps.
pub const IDLE: Duration = Duration::from_millis(20);
pub const SQ_ENTRIES: u32 = 256;
pub const CQ_ENTRIES: u32 = 512;
const OPERATIONS: u64 = 1 << 20;
const WRITE_BYTES: u64 = 64;

/// How operations are handed over: so many at a time, so many in flight.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub batch: u64,
    pub depth: u64,
    /// Whether the client gives its core away now and then while nothing has come: where a third thread has to run for
    /// that, as another process's does, and there may be no third core.
    pub gives_way: bool,
}

pub const BATCHED: Pace = Pace { batch: 32, depth: 128, gives_way: false };
pub const BATCHED_TO_PEER: Pace = Pace { gives_way: true, ..BATCHED };
pub const ONE: Pace = Pace { batch: 1, depth: 1, gives_way: false };

/// How long operations run before the clock starts. A polling thread that is woken begins on the core of who woke it,
/// and the kernel takes some milliseconds to move one of them.
const SPREADING: Duration = Duration::from_millis(10);

/// Runs `some` again and again until threads have their cores.
fn spread(mut some: impl FnMut() -> Result<()>) -> Result<()> {
    let start = std::time::Instant::now();
    while start.elapsed() < SPREADING {
        some()?;
    }
    Ok(())
}

/// Waits until the poller that was measured before is asleep: it must not take a core from what is measured next.
pub fn settle() {
    std::thread::sleep(IDLE + Duration::from_millis(10));
}

pub fn run(results: &mut Results) -> Result<()> {
    let operations = if results.effort.quick { OPERATIONS / 4 } else { OPERATIONS };
    let measured = batched(results, operations);
    keep_on(results, "NOP in batches", measured);
    let measured = one_in_flight(results, operations / 16);
    keep_on(results, "NOP, one in flight", measured);
    let measured = inline(results, operations / 4);
    keep_on(results, "NOP, inline", measured);
    let measured = other_operations(results, operations / 4);
    keep_on(results, "other operations", measured);
    bare::run(results, operations)
}

/// What fails is a line, and the rest is measured all the same.
fn keep_on(results: &mut Results, what: &str, measured: Result<()>) {
    if let Err(error) = measured {
        results.fail(what, &error);
    }
}

fn poller() -> Config {
    Config { mode: RunMode::Poller { idle: IDLE }, ..Config::default() }
}

fn microseconds(rate: &Measurement) -> Measurement {
    Measurement::plain(1.0 / rate.value)
}

/// Ours beside each mode of io_uring, all in turn; then beside the best of them.
fn batched(results: &mut Results, operations: u64) -> Result<()> {
    let context = Context::open(poller())?;
    let mut ring = context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
    let modes = [("nop_enter", Mode::Enter), ("nop_defer", Mode::DeferTaskrun), ("nop_sqpoll", Mode::Sqpoll)];
    let (mut distance, mut patience) = (Distance::NONE, Patience::NEW);
    let samples = beside_modes(results, &modes, BATCHED, operations, &mut || {
        patience.wait_until_near();
        distance.look();
        turns(&mut ring, BATCHED, operations, |n| Nop::new().user_data(n).sqe())
    })?;
    let Some((ours, theirs)) = samples.split_first() else { return Ok(()) };
    for ((key, _), theirs) in modes.iter().zip(theirs) {
        if let Some(theirs) = theirs {
            results.add(key, ours.clone().unwrap_or_default(), Some(theirs.clone()), "");
        }
    }
    best(results, "nop_best", ours.as_ref(), theirs, &modes, &distance.in_words());
    Ok(())
}

/// A row beside whichever mode has the highest median.
fn best(
    results: &mut Results,
    key: &str,
    ours: Option<&Sample>,
    theirs: &[Option<Sample>],
    modes: &[(&'static str, Mode)],
    remark: &str,
) {
    let measured = theirs.iter().zip(modes).filter_map(|(sample, mode)| Some((sample.as_ref()?, mode)));
    let best = measured.max_by(|a, b| a.0.median().total_cmp(&b.0.median()));
    if let (Some(ours), Some((theirs, (_, mode)))) = (ours, best) {
        results.add(
            key,
            ours.clone(),
            Some(theirs.clone()),
            format!("The best is {}. {remark}", mode.name()).trim_end(),
        );
    }
}

/// Ours first, then each mode's; a mode that this kernel does not have is a failure of its row.
fn beside_modes(
    results: &mut Results,
    modes: &[(&'static str, Mode)],
    pace: Pace,
    operations: u64,
    ours: Contestant<'_>,
) -> Result<Vec<Option<Sample>>> {
    let mut kernels = Vec::new();
    for (key, mode) in modes {
        match Kernel::open(*mode, IDLE) {
            Ok(kernel) => kernels.push((key, kernel)),
            Err(error) => results.fail(key, &error.context(format!("setting up {}", mode.name()))),
        }
    }
    let mut calls: Vec<_> = kernels
        .iter_mut()
        .map(|(_, kernel)| {
            move || {
                settle();
                kernel.turns(pace, operations)
            }
        })
        .collect();
    let mut settled = || {
        settle();
        ours()
    };
    let mut contestants: Vec<Contestant<'_>> = vec![&mut settled];
    contestants.extend(calls.iter_mut().map(|call| call as Contestant<'_>));
    let samples = alternate(results.effort.rounds, &mut contestants).map_err(|Failed { why, .. }| why)?;
    drop(contestants);
    drop(calls);
    let mut samples = samples.into_iter();
    let mut found = vec![samples.next()];
    found.resize(modes.len() + 1, None);
    for ((key, _), sample) in kernels.iter().zip(samples) {
        if let Some(place) = modes.iter().position(|(name, _)| name == *key) {
            found[place + 1] = Some(sample);
        }
    }
    Ok(found)
}

fn one_in_flight(results: &mut Results, operations: u64) -> Result<()> {
    let context = Context::open(poller())?;
    let mut ring = context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
    let mut sqpoll = Kernel::open(Mode::Sqpoll, IDLE)?;
    results.compare(
        "poller_1",
        || {
            settle();
            turns(&mut ring, ONE, operations, |n| Nop::new().user_data(n).sqe()).map(|rate| microseconds(&rate))
        },
        || {
            settle();
            sqpoll.turns(ONE, operations).map(|rate| microseconds(&rate))
        },
    );
    Ok(())
}

fn inline(results: &mut Results, operations: u64) -> Result<()> {
    let context = Context::open(Config { mode: RunMode::Inline, ..Config::default() })?;
    let mut ring = context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
    let modes = [("inline_1", Mode::Enter), ("inline_1", Mode::DeferTaskrun)];
    // Each mode by itself: the rows have one key.
    let mut samples = vec![None; 3];
    for (place, mode) in modes.iter().enumerate() {
        let mut ours = || turns(&mut ring, ONE, operations, |n| Nop::new().user_data(n).sqe());
        let found = beside_modes(results, &[*mode], ONE, operations, &mut ours)?;
        if let [Some(ours), Some(theirs)] = &found[..] {
            samples[0].get_or_insert_with(Sample::default).extend(ours);
            samples[place + 1] = Some(theirs.clone());
        }
    }
    best(results, "inline_1", samples[0].as_ref(), &samples[1..], &modes, "");
    Ok(())
}

/// No operation has a shortcut: others stand beside the no-op, on one ring of one context.
fn other_operations(results: &mut Results, operations: u64) -> Result<()> {
    let connection = Connection::open(Fabric::Shm, poller(), 1 << 20)?;
    let mut ring = connection.context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
    let peer = connection.peer.handle();
    let write = Write::new(connection.source.handle(), 0, connection.leased.handle(), 0, WRITE_BYTES);
    let write = write.map_err(|error| anyhow::anyhow!("{error}"))?;
    let samples = {
        // One ring takes turns.
        let ring = std::cell::RefCell::new(&mut ring);
        let mut nop = || turns(&mut ring.borrow_mut(), BATCHED, operations, |n| Nop::new().user_data(n).sqe());
        let mut query =
            || turns(&mut ring.borrow_mut(), BATCHED, operations, |n| CreditQuery::new(peer).user_data(n).sqe());
        let mut write = || turns(&mut ring.borrow_mut(), BATCHED_TO_PEER, operations / 4, |n| write.user_data(n).sqe());
        alternate(results.effort.rounds, &mut [&mut nop, &mut query, &mut write])
            .map_err(|Failed { who, why }| why.context(["NOP", "CREDIT_QUERY", "WRITE"][who]))?
    };
    for (key, sample) in ["query", "write_64"].iter().zip(&samples[1..]) {
        row_of(key).context("a row")?;
        results.add(key, sample.clone(), Some(samples[0].clone()), "");
    }
    connection.close()
}
