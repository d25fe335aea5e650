//! What an operation costs when there is much of everything, beside one of each. All peers are real: connections over
//! shm of another process, which is one context that connects as often.

use crate::cores::Patience;
use crate::ours::child::Child;
use crate::ours::connection::Fabric;
use crate::results::Results;
use crate::rings::{BATCHED, BATCHED_TO_PEER, CQ_ENTRIES, IDLE, SQ_ENTRIES, settle, turns};
use crate::sample::Measurement;
use anyhow::{Context as _, Result, anyhow, ensure};
use dmaplane::{Config, Context, Cqe, Limits, Rights, RunMode};
use dmaplane_embedded::Ring;
use dmaplane_ring::abi::{BufferHandle, ImportHandle, LeaseHandle, PeerHandle, Sqe};
use dmaplane_ring::build::{Accept, Alloc, Connect, CreditQuery, LeaseExport, LeaseGrant, LeaseImport, Nop, Write};
use std::time::Duration;

const BUFFERS: usize = 10_000;
const PEERS: usize = 1_000;
const RINGS: usize = 64;
const PAGE_BYTES: u64 = 4096;
const WRITE_BYTES: u64 = 64;
const OPERATIONS: u64 = 1 << 17;
const WAIT: Duration = Duration::from_secs(60);
/// Descriptors of one connection on each side, and some for everything else.
const DESCRIPTORS_PER_PEER: u64 = 8;
const DESCRIPTORS_ELSE: u64 = 256;

/// How much of everything.
#[derive(Clone, Copy)]
struct Size {
    buffers: usize,
    peers: usize,
    rings: usize,
}

fn limits() -> Limits {
    Limits { peers: PEERS as u32 + 1, operations: RINGS as u32 * CQ_ENTRIES, ..Limits::DEFAULT }
}

/// The same context either way, but for what is in it.
fn config() -> Config {
    Config { mode: RunMode::Poller { idle: IDLE }, limits: limits(), ..Config::default() }
}

pub fn run(results: &mut Results) -> Result<()> {
    let peers = affordable_peers();
    let mut remark = String::new();
    if peers < PEERS {
        remark = format!("ONLY {peers} PEERS: the limit on open files of this process allows no more.");
        eprintln!("warning: {remark}");
    }
    let mut small = Plenty::open(Size { buffers: 1, peers: 1, rings: 1 })?;
    let mut large = Plenty::open(Size { buffers: BUFFERS, peers, rings: RINGS })?;
    let operations = if results.effort.quick { OPERATIONS / 4 } else { OPERATIONS };
    for (key, what) in [
        ("scale_nop", What::Nop),
        ("scale_query", What::Query),
        ("scale_write_one", What::WriteFromOne),
        ("scale_write", What::Write),
    ] {
        let mut patience = Patience::NEW;
        let mut ours = || {
            patience.wait_until_near();
            large.cost(what, operations)
        };
        results.compare(key, &mut ours, || small.cost(what, operations));
    }
    results.note(format!(
        "The rows at scale are of {BUFFERS} buffers of 4 KiB, {peers} shm connections of another process and {RINGS} \
         rings. {remark}"
    ));
    ensure!(peers == PEERS, "{remark}");
    Ok(())
}

/// As many as may be had, by the limit on open files, up to what is wanted.
fn affordable_peers() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_ELSE + BUFFERS as u64));
    PEERS.min((room / DESCRIPTORS_PER_PEER) as usize)
}

#[derive(Clone, Copy)]
enum What {
    Nop,
    Query,
    /// Always from the same buffer.
    WriteFromOne,
    /// From each buffer in turn.
    Write,
}

/// A context with so much in it.
struct Plenty {
    rings: Vec<Ring>,
    buffers: Vec<BufferHandle>,
    peers: Vec<PeerHandle>,
    import: ImportHandle,
    _context: Context,
    _other: Child,
    _folder: tempfile::TempDir,
}

impl Plenty {
    fn open(size: Size) -> Result<Plenty> {
        let folder = tempfile::tempdir()?;
        let context = Context::open(config())?;
        let (listener, address) = context.listen(&Fabric::Shm.address(&folder))?;
        let rings: Result<Vec<_>, _> = (0..size.rings).map(|_| context.ring(SQ_ENTRIES, CQ_ENTRIES)).collect();
        let mut rings = rings?;
        let ring = rings.first_mut().context("no ring")?;
        let mut other = Child::start(&["connect-many", &address, &size.peers.to_string()])?;
        let mut peers = Vec::new();
        for _ in 0..size.peers {
            let accepted = call(ring, Accept::new(listener).sqe()).context("accepting a peer")?;
            peers.push(PeerHandle::from_bits(accepted.word0).context("no peer")?);
        }
        let mut buffers = Vec::new();
        for _ in 0..size.buffers {
            buffers.push(alloc(ring).context("allocating a buffer")?);
        }
        let token = from_hex(&other.line()?)?;
        let import = claim(&context, ring, buffers[0], &token)?;
        Ok(Plenty { rings, buffers, peers, import, _context: context, _other: other, _folder: folder })
    }

    /// Nanoseconds of one operation.
    fn cost(&mut self, what: What, operations: u64) -> Result<Measurement> {
        settle();
        let Plenty { rings, buffers, peers, import, .. } = self;
        let ring = rings.last_mut().context("no ring")?;
        let sqe = |n: u64| -> Sqe {
            let buffer = match what {
                What::Write => buffers[n as usize % buffers.len()],
                What::Nop | What::Query | What::WriteFromOne => buffers[0],
            };
            match what {
                What::Nop => Nop::new().user_data(n).sqe(),
                What::Query => CreditQuery::new(peers[n as usize % peers.len()]).user_data(n).sqe(),
                What::Write | What::WriteFromOne => match Write::new(buffer, 0, *import, 0, WRITE_BYTES) {
                    Ok(write) => write.user_data(n).sqe(),
                    // It fails, and is counted as a failure.
                    Err(_) => Sqe::default(),
                },
            }
        };
        let pace = if matches!(what, What::Write | What::WriteFromOne) { BATCHED_TO_PEER } else { BATCHED };
        let rate = turns(ring, pace, operations, sqe)?;
        Ok(Measurement::plain(1e3 / rate.value))
    }
}

fn call(ring: &mut Ring, sqe: Sqe) -> Result<Cqe> {
    ensure!(ring.push(sqe).is_ok(), "the ring is full");
    ring.submit();
    let cqe = ring.wait_one(WAIT).context("no completion came")?;
    cqe.result().map_err(|errno| anyhow!("{errno}"))?;
    Ok(cqe)
}

fn alloc(ring: &mut Ring) -> Result<BufferHandle> {
    let sqe = Alloc::new(PAGE_BYTES).map_err(|error| anyhow!("{error}"))?.sqe();
    BufferHandle::from_bits(call(ring, sqe)?.word0).context("no buffer")
}

/// Claims the lease of a token, by way of a buffer.
fn claim(context: &Context, ring: &mut Ring, scratch: BufferHandle, token: &[u8]) -> Result<ImportHandle> {
    ensure!(context.map(scratch)?.write(0, token), "a token of {} bytes does not fit", token.len());
    let sqe = LeaseImport::new(scratch, 0, token.len() as u64).map_err(|error| anyhow!("{error}"))?.sqe();
    ImportHandle::from_bits(call(ring, sqe).context("claiming a lease")?.word0).context("no import")
}

/// The other process: connects so many times, leases a page, and prints its token.
pub fn connect_many(address: &str, peers: usize) -> Result<()> {
    let context = Context::open(config())?;
    let mut ring = context.ring(SQ_ENTRIES, CQ_ENTRIES)?;
    let scratch = alloc(&mut ring)?;
    ensure!(context.map(scratch)?.write(0, address.as_bytes()), "the address does not fit");
    let connect = Connect::new(scratch, 0, address.len() as u64).map_err(|error| anyhow!("{error}"))?.sqe();
    for number in 0..peers {
        call(&mut ring, connect).with_context(|| format!("connection {number}"))?;
    }
    let target = alloc(&mut ring)?;
    let grant = LeaseGrant::range(target, 0, PAGE_BYTES, Rights::WRITE).map_err(|error| anyhow!("{error}"))?;
    let lease = LeaseHandle::from_bits(call(&mut ring, grant.sqe())?.word0).context("no lease")?;
    let exported = call(&mut ring, LeaseExport::new(lease, scratch, 0).sqe())?;
    let mut token = vec![0; exported.res as usize];
    ensure!(context.map(scratch)?.read(0, &mut token), "no token");
    println!("{}", token.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    // Its owner ends it, or goes.
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    Ok(())
}

fn from_hex(text: &str) -> Result<Vec<u8>> {
    let byte = |place| u8::from_str_radix(text.get(place..place + 2).unwrap_or_default(), 16);
    let bytes: Result<Vec<u8>, _> = (0..text.len()).step_by(2).map(byte).collect();
    bytes.with_context(|| format!("the other process printed {text:?}, not a token"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_way_as_text() {
        assert_eq!(from_hex("00ff7a").unwrap(), [0, 255, 0x7a]);
        assert!(from_hex("0").is_err() && from_hex("zz").is_err());
    }
}
