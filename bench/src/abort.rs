//! From the wish to abort to memory that may be reused: another process's transfers are in flight when we revoke.

use crate::ours::child::Child;
use crate::ours::connection::Fabric;
use crate::results::Results;
use crate::sample::{Sample, median};
use anyhow::{Context, Result, ensure};
use dmaplane::{Buffer, Config, Error, Leased, Peer, Plane, Rights};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(30);
/// Large enough to be in flight for longer than a revoke takes.
const ABORTED_BYTES: u64 = 16 << 20;
const MANY: usize = 64;
const MANY_BYTES: u64 = 4 << 20;
const TOKEN_BYTES_MAX: usize = 4096;
/// What the other process reports of its last transfer: the revoke ended it, or it had come too late to begin.
const REVOKED: u8 = 1;

pub fn run(results: &mut Results) -> Result<()> {
    let (rounds, many_rounds) = if results.effort.quick { (100, 4) } else { (400, 12) };
    for fabric in Fabric::BOTH {
        let name = fabric.name();
        if let Err(error) = aborts(results, fabric, rounds) {
            ["p50", "p99"].iter().for_each(|quantile| {
                results.fail(&format!("abort_{quantile}_{name}"), &anyhow::anyhow!("{error:#}"));
            });
        }
        let key = format!("one_of_64_{name}");
        if let Err(error) = one_of_many(results, fabric, many_rounds, &key) {
            results.fail(&key, &error);
        }
    }
    Ok(())
}

/// A plane, and another process that has connected to it.
struct Receiving {
    plane: Plane,
    peer: Peer,
    _writer: Child,
    _folder: tempfile::TempDir,
}

impl Receiving {
    fn open(fabric: Fabric, role: &str) -> Result<Receiving> {
        let folder = tempfile::tempdir()?;
        let mut plane = Plane::open(Config::default())?;
        let (listener, address) = plane.listen(&fabric.address(&folder))?;
        let writer = Child::start(&[role, &address])?;
        let peer = plane.accept(&listener, WAIT)?;
        Ok(Receiving { plane, peer, _writer: writer, _folder: folder })
    }

    fn lease(&mut self, buffer: Buffer) -> Result<Leased<Buffer>> {
        let leased = self.plane.grant(buffer, Rights::WRITE)?;
        let token = self.plane.token(&leased)?;
        self.plane.send_message(&self.peer, &token, WAIT)?;
        Ok(leased)
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        Ok(self.plane.receive_message(&self.peer, TOKEN_BYTES_MAX, WAIT)?)
    }
}

/// Grants, lets the other process write, revokes in the middle of it, and has the memory back.
fn aborts(results: &mut Results, fabric: Fabric, rounds: u32) -> Result<()> {
    let mut receiving = Receiving::open(fabric, "write-until-revoked")?;
    let mut buffer = receiving.plane.alloc(ABORTED_BYTES)?;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    let mut in_flight = 0;
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..=rounds {
        let leased = receiving.lease(buffer)?;
        ensure!(receiving.message()? == b"writing", "the other process does not write");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // At some moment of a write that takes milliseconds.
        std::thread::sleep(Duration::from_nanos(random >> 44));
        let start = Instant::now();
        buffer = receiving.plane.revoke(leased)?;
        buffer.as_mut_slice()[0] = 1;
        let taken = start.elapsed();
        let caught = receiving.message()? == [REVOKED];
        if round > 0 {
            histogram.record(taken.as_nanos() as u64)?;
            in_flight += u32::from(caught);
        }
    }
    ensure!(in_flight * 2 > rounds, "a transfer was in flight in {in_flight} of {rounds} rounds only");
    let remark = format!(
        "{rounds} rounds, a {} MiB WRITE in flight in {in_flight} of them; the slowest took {:.0} us.",
        ABORTED_BYTES >> 20,
        histogram.max() as f64 / 1e3
    );
    let microseconds = |part| Sample::plain(vec![histogram.value_at_quantile(part) as f64 / 1e3]);
    results.add(&format!("abort_p50_{}", fabric.name()), microseconds(0.5), None, &remark);
    results.add(&format!("abort_p99_{}", fabric.name()), microseconds(0.99), None, "");
    Ok(())
}

/// The other process of [`aborts`]: writes into each lease that it is told of for as long as that lasts.
pub fn write_until_revoked(address: &str) -> Result<()> {
    let mut plane = Plane::open(Config::default())?;
    let peer = plane.connect(address, WAIT)?;
    let mut source = plane.alloc(ABORTED_BYTES)?;
    source.as_mut_slice().fill(0xaa);
    while let Ok(token) = plane.receive_message(&peer, TOKEN_BYTES_MAX, WAIT) {
        let import = plane.import(&peer, &token)?;
        plane.send_message(&peer, b"writing", WAIT)?;
        let error = loop {
            if let Err(error) = plane.write(&source, 0, &import, 0, ABORTED_BYTES) {
                break error;
            }
        };
        plane.send_message(&peer, &[u8::from(was_revoked(&error))], WAIT)?;
        let _ = plane.release(import);
    }
    Ok(())
}

/// Whether a revoke ended a transfer that was under way.
fn was_revoked(error: &Error) -> bool {
    error.errno() == Some(dmaplane::Errno::EKEYREVOKED)
}

/// 64 writes in flight, one lease revoked. A round counts when it was in flight and the other 63 completed.
fn one_of_many(results: &mut Results, fabric: Fabric, rounds: u32, key: &str) -> Result<()> {
    let mut receiving = Receiving::open(fabric, "write-many")?;
    let buffers: Result<Vec<_>, _> = (0..MANY).map(|_| receiving.plane.alloc(MANY_BYTES)).collect();
    let mut buffers = buffers?;
    let (mut microseconds, mut tried) = (Vec::new(), 0);
    while microseconds.len() < rounds as usize && tried < rounds * 5 {
        tried += 1;
        let leases: Result<Vec<_>> = buffers.drain(..).map(|buffer| receiving.lease(buffer)).collect();
        let mut leases = leases?;
        ensure!(receiving.message()? == b"writing", "the other process does not write");
        // One of the last, which has to wait for most of the others.
        let victim = leases.remove(MANY * 3 / 4);
        let start = Instant::now();
        buffers.push(receiving.plane.revoke(victim)?);
        let taken = start.elapsed();
        let seen = receiving.message()?;
        let [completed, revoked] = seen[..] else { anyhow::bail!("the other process reported {seen:?}") };
        ensure!(usize::from(completed) >= MANY - 1, "{completed} of the other {} writes completed", MANY - 1);
        if revoked == 1 {
            microseconds.push(taken.as_secs_f64() * 1e6);
        }
        for leased in leases {
            buffers.push(receiving.plane.revoke(leased)?);
        }
    }
    ensure!(!microseconds.is_empty(), "in none of {tried} rounds was the revoked write still in flight");
    let remark = format!(
        "In all {} of {tried} rounds in which the revoked write ({} MiB each) was in flight the other 63 completed; \
         median {:.0} us.",
        microseconds.len(),
        MANY_BYTES >> 20,
        median(&microseconds)
    );
    results.add(key, Sample::plain(microseconds), None, &remark);
    Ok(())
}

/// The other process of [`one_of_many`].
pub fn write_many(address: &str) -> Result<()> {
    let mut plane = Plane::open(Config::default())?;
    let peer = plane.connect(address, WAIT)?;
    let sources: Result<Vec<_>, _> = (0..MANY).map(|_| plane.alloc(MANY_BYTES)).collect();
    let mut sources = sources?;
    sources.iter_mut().for_each(|source| source.as_mut_slice().fill(0xaa));
    while let Ok(first) = plane.receive_message(&peer, TOKEN_BYTES_MAX, WAIT) {
        let mut imports = vec![plane.import(&peer, &first)?];
        while imports.len() < MANY {
            let token = plane.receive_message(&peer, TOKEN_BYTES_MAX, WAIT)?;
            imports.push(plane.import(&peer, &token)?);
        }
        let mut operations = Vec::new();
        for (source, import) in sources.drain(..).zip(&imports) {
            let started = plane.start_write(source, 0, import, 0, MANY_BYTES);
            operations.push(started.map_err(|(error, _)| error)?);
        }
        plane.send_message(&peer, b"writing", WAIT)?;
        let (mut completed, mut revoked) = (0, 0);
        for operation in operations {
            let finished = operation.finish(&mut plane, WAIT);
            let (result, source) = finished.map_err(|_| anyhow::anyhow!("a write did not end"))?;
            sources.push(source);
            match result {
                Ok(_) => completed += 1,
                // Refused before its first byte, or stopped after it: in flight either way.
                Err(error) if was_revoked(&error) || error.errno() == Some(dmaplane::Errno::ESTALE) => revoked += 1,
                Err(error) => return Err(error).context("one of 64 writes"),
            }
        }
        plane.send_message(&peer, &[completed, revoked], WAIT)?;
        for import in imports {
            plane.release(import)?;
        }
    }
    Ok(())
}
