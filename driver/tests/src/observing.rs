//! What those who look on see: counters, latencies, tracepoints, debugfs (clauses DEV-15, OBS-1, OBS-2).

use crate::kit::{alloc, command, complete, device, information, refused, succeed, until};
use crate::peers::{built, pair};
use crate::{Absent, Test};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Mapping, Ring};
use dmaplane_ring::abi::device::{COUNTERS_BYTES, COUNTERS_LATENCY, COUNTERS_OFFSET, DeviceCounters, LATENCY_BUCKETS};
use dmaplane_ring::abi::{BufferHandle, Opcode, Rights};
use dmaplane_ring::build::{Alloc, Free, LeaseGrant, Nop, Timeout, Write};
use rustix::mm::MprotectFlags;
use std::io::Read as _;
use std::mem::offset_of;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{TryRecvError, channel};

pub const TESTS: &[Test] = &[
    ("dev_15_counters_are_mapped_for_reading_only_and_outlive_their_context", counters),
    ("dev_15_copies_are_counted_on_the_side_that_makes_them", copies),
    ("obs_1_a_tracer_sees_each_operation_from_its_place_to_its_end", traced),
    ("obs_2_debugfs_shows_what_each_context_has", shown),
    ("obs_2_looking_on_while_contexts_come_and_go_is_safe", looked_at),
];

fn map_counters(device: &Device) -> Result<Mapping> {
    Ok(Mapping::new(device.as_fd(), COUNTERS_OFFSET, COUNTERS_BYTES as usize, false)?)
}

fn word(mapping: &Mapping, offset: usize) -> Result<u64> {
    let mut bytes = [0; 8];
    ensure!(mapping.read(offset, &mut bytes), "beyond the counters' end");
    Ok(u64::from_ne_bytes(bytes))
}

macro_rules! count {
    ($mapping:expr, $field:ident) => {
        word(&$mapping, offset_of!(DeviceCounters, $field))?
    };
}

/// Operations of an opcode that were timed.
fn timed(mapping: &Mapping, opcode: Opcode) -> Result<u64> {
    let from = COUNTERS_LATENCY as usize + opcode as usize * LATENCY_BUCKETS as usize * 8;
    (0..LATENCY_BUCKETS as usize).map(|bucket| word(mapping, from + bucket * 8)).sum()
}

fn counters() -> Result<()> {
    let (device, mut ring) = device()?;
    let counters = map_counters(&device)?;
    ensure!(count!(counters, sqes_taken) == 0 && count!(counters, cqes_posted) == 0, "it begins with others' counts");
    for _ in 0..10 {
        for _ in 0..32 {
            ensure!(ring.push(Nop::new()).is_ok(), "the ring is full");
        }
        ring.enter(32, crate::kit::WAIT)?;
        ring.reap(32, |_| ());
    }
    let (buffer, _) = alloc(&mut ring, 1 << 20)?;
    complete(&mut ring, Free::new(buffer))?;
    ensure!(complete(&mut ring, Free::new(buffer))?.result().is_err(), "freed twice");
    complete(&mut ring, Timeout::after_ns(3_000_000).sqe())?;
    ensure!(count!(counters, sqes_taken) == 324, "{} SQEs taken", count!(counters, sqes_taken));
    ensure!(count!(counters, cqes_posted) == 324, "{} CQEs posted", count!(counters, cqes_posted));
    // The second FREE, and the timeout, whose time had come.
    ensure!(count!(counters, cqes_failed) == 2, "{} CQEs with an error", count!(counters, cqes_failed));
    ensure!(count!(counters, works) == 1, "{} works", count!(counters, works));
    ensure!(timed(&counters, Opcode::Alloc)? == 1 && timed(&counters, Opcode::Nop)? == 0, "timed otherwise");
    // Two to the power of 21 nanoseconds, or longer.
    let from = COUNTERS_LATENCY as usize + Opcode::Timeout as usize * LATENCY_BUCKETS as usize * 8;
    let long: u64 = (21..LATENCY_BUCKETS as usize).map(|n| word(&counters, from + n * 8)).sum::<Result<_>>()?;
    ensure!(long == 1, "a timeout of 3 ms took less than 2");
    // For reading, and for good.
    let writable = Mapping::new(device.as_fd(), COUNTERS_OFFSET, 4096, true);
    refused(writable, libc::EACCES, "mapping counters to write")?;
    let rights = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: our own mapping; nobody writes through it.
    let made = unsafe { rustix::mm::mprotect(counters.start().as_ptr().cast(), 4096, rights) };
    refused(made.map_err(Into::into), libc::EACCES, "making counters writable")?;
    let behind = Mapping::new(device.as_fd(), COUNTERS_OFFSET, COUNTERS_BYTES as usize + 4096, false);
    refused(behind, libc::EINVAL, "mapping beyond the counters' end")?;
    // The context ends; the pages stay, and are its own.
    device.close()?;
    drop((device, ring));
    let (_other, mut others) = crate::kit::device()?;
    complete(&mut others, Nop::new())?;
    ensure!(count!(counters, cqes_posted) >= 324, "counters have gone with their context");
    Ok(())
}

fn copies() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let (writers, granters) = (map_counters(&ours.device)?, map_counters(&theirs.device)?);
    let length = 1 << 20;
    let (target, _landed) = theirs.buffer(length)?;
    let (source, _mapping) = ours.buffer(length)?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    for part in [64, length] {
        succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, part))?)?;
    }
    ensure!(count!(granters, copies) == 2 && count!(granters, copies_failed) == 0, "{}", count!(granters, copies));
    ensure!(count!(granters, bytes_in) == length + 64, "{} bytes in", count!(granters, bytes_in));
    ensure!(count!(granters, bytes_out) == 0 && count!(writers, copies) == 0, "counted on the wrong side");
    ensure!(timed(&writers, Opcode::Write)? == 2, "writes were not timed");
    Ok(())
}

/// A file system of the kernel's own, mounted where it belongs.
fn mounted(kind: &str, at: &str, shows: &str) -> Result<PathBuf> {
    if !Path::new(at).join(shows).exists() {
        let mounted = command("mount", &["-t", kind, kind, at]);
        if !Path::new(at).join(shows).exists() {
            return Err(Absent(format!("{kind} is not to be had on this kernel: {mounted:?}")).into());
        }
    }
    Ok(PathBuf::from(at))
}

/// Where the kernel's tracing is.
pub fn tracing() -> Result<PathBuf> {
    mounted("tracefs", "/sys/kernel/tracing", "trace")
}

fn traced() -> Result<()> {
    let tracing = tracing()?;
    let events = tracing.join("events/dmaplane");
    ensure!(events.exists(), "the module has no tracepoints");
    let (device, mut ring) = device()?;
    let number = information(&device, "context")?;
    let switch = |on: &str| std::fs::write(events.join("enable"), on);
    std::fs::write(tracing.join("trace"), "")?;
    complete(&mut ring, Nop::new().user_data(41))?;
    switch("1")?;
    let alloc = built(Alloc::new(1 << 16))?.user_data(42).link().sqe();
    ensure!(ring.push(alloc).is_ok() && ring.push(Nop::new().user_data(43)).is_ok(), "the ring is full");
    ring.enter(2, crate::kit::WAIT)?;
    ring.reap(2, |_| ());
    switch("0")?;
    complete(&mut ring, Nop::new().user_data(44))?;
    let all = std::fs::read_to_string(tracing.join("trace"))?;
    let ours: Vec<&str> = all.lines().filter(|line| line.contains(&format!("context={number} "))).collect();
    let seen = |what: &str| ours.iter().filter(|line| line.contains(what)).count();
    for state in ["linked result=0", "ready result=0", "started result=0", "ended result=0"] {
        ensure!(seen(&format!("user_data=0x2a Alloc {state}")) == 1, "ALLOC {state}: {ours:#?}");
    }
    ensure!(seen("user_data=0x2b Nop ended result=0") == 1, "the no-op's end: {ours:#?}");
    ensure!(seen("dmaplane_complete: ") == 2, "two CQEs: {ours:#?}");
    ensure!(seen("user_data=0x29") + seen("user_data=0x2c") == 0, "seen while nobody looked: {ours:#?}");
    Ok(())
}

/// Where the driver shows what contexts have.
pub fn debugfs() -> Result<PathBuf> {
    Ok(mounted("debugfs", "/sys/kernel/debug", "dmaplane")?.join("dmaplane"))
}

fn shown() -> Result<()> {
    let root = debugfs()?;
    let read = |path: PathBuf| std::fs::read_to_string(&path).with_context(|| path.display().to_string());
    let (mut ours, mut theirs) = pair()?;
    let (target, _landed) = theirs.buffer(1 << 20)?;
    let (lease, token) = theirs.grant(built(LeaseGrant::range(target, 4096, 8192, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    ensure!(theirs.ring.push(Timeout::after_ns(u64::MAX >> 1).user_data(99).sqe()).is_ok(), "the ring is full");
    theirs.ring.submit()?;
    let folder = root.join(information(&theirs.device, "context")?.to_string());
    let peers_folder = root.join(information(&ours.device, "context")?.to_string());
    let buffers = read(folder.join("buffers"))?;
    let handle = format!("handle={:#x} ", target.handle().bits());
    let line = buffers.lines().find(|line| line.contains(&handle)).with_context(|| buffers.clone())?;
    ensure!(line.contains("live") && line.contains("bytes=1048576") && line.contains("leases=1"), "{line}");
    let leases = read(folder.join("leases"))?;
    let told = format!("live handle={:#x}", lease.handle().bits());
    ensure!(leases.contains(&told) && leases.contains("offset=4096 length=8192"), "{leases}");
    until("a timer is in flight", || Ok(read(folder.join("operations"))?.contains("timer")))?;
    ensure!(read(folder.join("operations"))?.contains("user-data=99"), "another's timer");
    ensure!(read(folder.join("peers"))?.contains("live handle="), "no peer");
    let imports = read(peers_folder.join("imports"))?;
    ensure!(imports.contains(&format!("live handle={:#x}", import.handle().bits())), "{imports}");
    ensure!(read(folder.join("rings"))?.contains("attached cq-entries=128"), "no ring");
    ensure!(read(folder.join("counters"))?.contains("sqes_taken: "), "no counters");
    ensure!(read(folder.join("latency"))?.contains("Alloc: <"), "no latencies");
    ensure!(read(folder.join("inbox"))?.contains("works: "), "no inbox");
    ensure!(read(folder.join("transfers"))?.is_empty() && read(folder.join("lists"))?.is_empty(), "not empty");
    let contexts = read(root.join("contexts"))?;
    let own = format!(" pid={} uid=0 closed=0 ", std::process::id());
    ensure!(contexts.lines().count() == 2 && contexts.lines().all(|line| line.contains(&own)), "{contexts}");
    drop((ours, theirs, _landed));
    until("its folder goes with it", || Ok(!folder.exists()))?;
    until("contexts that have gone are not shown", || Ok(read(root.join("contexts"))?.is_empty()))
}

/// One that keeps a context busy, for as long as it is looked at.
fn busy(device: Device, mut ring: Ring) -> Result<()> {
    for n in 0..30 {
        let made = succeed(&mut ring, built(Alloc::new(4096 * (1 + n % 7)))?.sqe())?;
        let buffer = BufferHandle::from_bits(made.word0).context("no buffer")?;
        let _mapping = device.map(buffer)?;
        succeed(&mut ring, built(LeaseGrant::range(buffer, 0, 4096, Rights::READ))?)?;
        succeed(&mut ring, Free::new(buffer).revoke_leases())?;
    }
    Ok(())
}

fn looked_at() -> Result<()> {
    let root = debugfs()?;
    let (over, told) = channel::<()>();
    std::thread::scope(|scope| {
        let looking = scope.spawn(move || -> Result<u64> {
            let (mut read, mut kept) = (0, Vec::new());
            while told.try_recv() == Err(TryRecvError::Empty) {
                let _ = std::fs::read_to_string(root.join("contexts"))?;
                for folder in std::fs::read_dir(&root)?.flatten() {
                    for file in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                        // It may have gone meanwhile.
                        let Ok(mut open) = std::fs::File::open(file.path()) else { continue };
                        let mut text = String::new();
                        read += open.read_to_string(&mut text).unwrap_or(0) as u64;
                        kept.push(open);
                    }
                }
                // Some stay open while their context goes.
                let old = kept.len().saturating_sub(64);
                kept.drain(..old);
            }
            Ok(read)
        });
        let working = (0..12).try_for_each(|_| {
            let (device, ring) = device()?;
            busy(device, ring)
        });
        drop(over);
        let read = looking.join().map_err(|_| anyhow::anyhow!("who looked on has panicked"))??;
        working?;
        ensure!(read > 1000, "there was nothing to be seen: {read} bytes");
        Ok(())
    })
}
