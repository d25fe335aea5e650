//! How long a no-op takes while 1 GiB transfers run on its context: another thread keeps one in flight all the time.

use crate::machine::cores;
use crate::ours::connection::{Connection, Fabric};
use crate::results::Results;
use crate::sample::Sample;
use anyhow::{Context as _, Result, ensure};
use dmaplane::{Buffer, Config, Import, Plane};
use dmaplane_embedded::Ring;
use dmaplane_ring::build::Nop;
use hdrhistogram::Histogram;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

const TRANSFER_BYTES: u64 = 1 << 30;
const WAIT: Duration = Duration::from_secs(30);
const ROUND: Duration = Duration::from_millis(1000);
/// The poller, this thread, and whoever copies: as many cores are busy at once.
const BUSY_THREADS: usize = 3;
/// Nothing takes longer than that and is still measured exactly enough.
const NANOSECONDS_MAX: u64 = 60_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The peer copies.
    Write,
    /// This context's own workers copy.
    Read,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Write => "write",
            Way::Read => "read",
        }
    }
}

pub fn run(results: &mut Results) -> Result<()> {
    for fabric in Fabric::BOTH {
        let connection = Connection::open(fabric, Config::default(), TRANSFER_BYTES)?;
        let mut ring = connection.context.ring(16, 16)?;
        let Connection { plane, source: buffer, leased, receiver, context, peer, .. } = connection;
        let mut load = Load { plane, buffer, leased };
        for way in [Way::Write, Way::Read] {
            beside_transfers(results, fabric, way, &mut ring, &mut load)?;
        }
        drop((load, ring, peer, context, receiver));
    }
    Ok(())
}

fn beside_transfers(results: &mut Results, fabric: Fabric, way: Way, ring: &mut Ring, load: &mut Load) -> Result<()> {
    let (stop, stopped) = channel::<()>();
    let rounds = results.effort.rounds;
    let (samples, moved) = std::thread::scope(|scope| -> Result<_> {
        let mover = scope.spawn(move || load.move_until(way, &stopped));
        // The first round warms up.
        let samples: Result<Vec<_>> = (0..=rounds).map(|_| quantiles(ring)).collect();
        drop(stop);
        let moved = mover.join().map_err(|_| anyhow::anyhow!("the transferring thread has panicked"))?;
        Ok((samples?, moved?))
    })?;
    let p99 = Sample::plain(samples[1..].iter().map(|quantiles| quantiles.p99).collect());
    let p50 = Sample::plain(samples[1..].iter().map(|quantiles| quantiles.p50).collect());
    let operations: u64 = samples[1..].iter().map(|quantiles| quantiles.operations).sum();
    let (there, spare) = (cores(), cores().saturating_sub(BUSY_THREADS));
    let goal = if spare == 0 { "; the goal is for a machine with one to spare" } else { "" };
    let remark = format!(
        "{operations} no-ops, one in flight, meanwhile {moved:.1} GB/s. {BUSY_THREADS} cores are busy (client, poller, \
         whoever copies) and {there} are there, so {spare} were to spare{goal}."
    );
    results.add(&format!("p99_{}_{}", fabric.name(), way.name()), p99, None, &remark);
    results.add(&format!("p50_{}_{}", fabric.name(), way.name()), p50, None, "");
    Ok(())
}

struct Quantiles {
    p50: f64,
    p99: f64,
    operations: u64,
}

/// No-ops one after the other for a round; microseconds.
fn quantiles(ring: &mut Ring) -> Result<Quantiles> {
    let mut histogram = Histogram::<u64>::new_with_bounds(1, NANOSECONDS_MAX, 3)?;
    let end = Instant::now() + ROUND;
    while Instant::now() < end {
        let start = Instant::now();
        ensure!(ring.push(Nop::new()).is_ok(), "the ring is not empty");
        ring.submit();
        let cqe = ring.wait_one(WAIT).context("a no-op did not complete")?;
        ensure!(cqe.res == 0, "a no-op failed: {}", cqe.res);
        histogram.record(start.elapsed().as_nanos() as u64)?;
    }
    let microseconds = |part| histogram.value_at_quantile(part) as f64 / 1e3;
    Ok(Quantiles { p50: microseconds(0.5), p99: microseconds(0.99), operations: histogram.len() })
}

/// What keeps the context busy.
struct Load {
    plane: Plane,
    buffer: Buffer,
    leased: Import,
}

impl Load {
    /// Transfers until told to stop; GB/s.
    fn move_until(&mut self, way: Way, stopped: &Receiver<()>) -> Result<f64> {
        let Load { plane, buffer, leased } = self;
        let start = Instant::now();
        let mut bytes = 0;
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            bytes += match way {
                Way::Write => plane.write(buffer, 0, leased, 0, TRANSFER_BYTES)?,
                Way::Read => plane.read(buffer, 0, leased, 0, TRANSFER_BYTES)?,
            };
        }
        Ok(bytes as f64 / 1e9 / start.elapsed().as_secs_f64())
    }
}
