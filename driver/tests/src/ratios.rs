//! Ratios of two things measured in one machine in turn (an emulator's own times say nothing): no-ops through mapped
//! rings beside io_uring's and beside two calls an entry; allocating and mapping beside single pages.
//! `cargo xtask vm ratios --kernel 6.12`.

use crate::Test;
use crate::kit::{WAIT, device, load, succeed, unload};
use crate::peers::{Side, built, pair};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Mapping, Ring};
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::abi::{BufferHandle, ImportHandle, QueryWhat, Rights, Sqe};
use dmaplane_ring::build::{Alloc, Free, LeaseGrant, Nop, Query, Write};
use io_uring::{IoUring, opcode};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("ratios_of_no_ops", no_ops),
    ("ratios_of_allocating_and_mapping", allocating),
    ("ratios_of_being_traced", tracing),
];

const ROUNDS: usize = 7;
/// As in the paper's own stress test.
const BATCH: u32 = 256;
const COUNT: u32 = 64_000;
const BYTES: u64 = 64 << 20;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The median of the ratios of what was measured in the same rounds.
fn beside(ours: &[f64], theirs: &[f64]) -> f64 {
    median(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
}

/// Loads what is measured against.
struct Paper;

impl Paper {
    fn load() -> Result<Paper> {
        let module = std::env::var("DMAPLANE_PAPER").context("DMAPLANE_PAPER does not say where paper.ko is")?;
        load(&module)?;
        Ok(Paper)
    }

    /// With its worker on this processor.
    fn open_on(&self, processor: u32) -> Result<std::fs::File> {
        let place = "/sys/module/paper/parameters/cpu";
        std::fs::write(place, processor.to_string())?;
        let file = self.open();
        std::fs::write(place, "-1")?;
        file
    }

    fn open(&self) -> Result<std::fs::File> {
        Ok(std::fs::OpenOptions::new().read(true).write(true).open("/dev/paper")?)
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        let _ = unload(c"paper");
    }
}

/// Has the loop that follows begin with a page. The emulator goes straight from one piece of code to the next within a
/// page only, so that where a loop happens to lie made a quarter of what it took.
macro_rules! begin_page {
    () => {
        // SAFETY: instructions that do nothing, as far as the page's end.
        unsafe { std::arch::asm!(".p2align 12", options(nomem, nostack, preserves_flags)) }
    };
}

/// Operations a second by ENTER: one batch after another, each as `make` has them by number.
#[inline(never)]
fn entered<T: Into<Sqe>>(ring: &mut Ring, make: impl Fn(u64) -> T) -> Result<f64> {
    let start = Instant::now();
    begin_page!();
    for _ in 0..COUNT / BATCH {
        for n in 0..BATCH {
            ensure!(ring.push(make(n.into())).is_ok(), "the ring is full");
        }
        ensure!(ring.enter(BATCH, WAIT)? == BATCH, "completions are missing");
        ring.reap(BATCH, |_| ());
    }
    Ok(f64::from(COUNT) / start.elapsed().as_secs_f64())
}

/// No-ops a second by the poller: one half of a batch is made, or reaped, while the other is in flight.
#[inline(never)]
fn polled(ring: &mut Ring) -> Result<f64> {
    const HALF: u32 = BATCH / 2;
    const { assert!(COUNT.is_multiple_of(HALF)) };
    let start = Instant::now();
    let (mut pushed, mut reaped) = (0, 0);
    begin_page!();
    while reaped < COUNT {
        if pushed < COUNT && pushed - reaped <= HALF {
            for n in pushed..pushed + HALF {
                ensure!(ring.push(no_op(n.into())).is_ok(), "the ring is full");
            }
            pushed += HALF;
            ring.submit()?;
        }
        match ring.available() {
            0..HALF => std::hint::spin_loop(),
            _ => reaped += ring.reap(HALF, |_| ()),
        }
    }
    Ok(f64::from(COUNT) / start.elapsed().as_secs_f64())
}

fn no_op(n: u64) -> Nop {
    Nop::new().user_data(n)
}

#[inline(never)]
fn theirs(ring: &mut IoUring) -> Result<f64> {
    let start = Instant::now();
    begin_page!();
    for _ in 0..COUNT / BATCH {
        let mut submission = ring.submission();
        for n in 0..BATCH {
            // SAFETY: a no-op refers to nothing.
            unsafe { submission.push(&opcode::Nop::new().build().user_data(n.into())) }?;
        }
        drop(submission);
        ring.submit_and_wait(BATCH as usize)?;
        ensure!(ring.completion().count() == BATCH as usize, "io_uring's completions are missing");
    }
    Ok(f64::from(COUNT) / start.elapsed().as_secs_f64())
}

/// What the paper's module is handed, and hands back.
#[repr(C)]
#[derive(Default)]
struct Entry {
    payload: u64,
    flags: u32,
    pad: u32,
}

/// Two calls an entry, in the order of the paper's own stress test: a batch is submitted as far as there is room, what
/// has completed is taken, and the next batch does not wait for the rest.
#[inline(never)]
fn papers(file: &std::fs::File) -> Result<f64> {
    let (submit, complete) = (0x4010_5000, 0x8010_5001);
    // Whether there was room, or an entry.
    let call = |number: u64, mut entry: Entry| {
        // SAFETY: both calls read or write an `Entry`.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), number, &raw mut entry) };
        match result {
            0 => Ok(true),
            _ => match std::io::Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EAGAIN)) => Ok(false),
                error => Err(error),
            },
        }
    };
    let count = COUNT / 8;
    let start = Instant::now();
    let (mut submitted, mut completed) = (0, 0);
    begin_page!();
    while completed < count {
        let end = count.min(submitted + BATCH);
        while submitted < end && call(submit, Entry { payload: submitted.into(), ..Entry::default() })? {
            submitted += 1;
        }
        while completed < submitted && call(complete, Entry::default())? {
            completed += 1;
        }
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn no_ops() -> Result<()> {
    let paper = Paper::load()?;
    let file = paper.open()?;
    let enters = Device::open(DeviceSetup::default())?;
    let mut entered_ring = enters.ring(BATCH, 2 * BATCH)?;
    let setup = DeviceSetup { flags: setup_flags::POLLER, poller_idle_us: 10_000, ..DeviceSetup::default() };
    let polls = Device::open(setup)?;
    let mut polled_ring = polls.ring(BATCH, 2 * BATCH)?;
    let mut io_uring = IoUring::new(BATCH)?;
    let (mut enter, mut poller, mut uring, mut two_calls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // A no-op is over where its SQE is taken; what asks something goes the way of all operations.
    let mut queries = Vec::new();
    let query = |n| Query::new(QueryWhat::InFlight).user_data(n);
    // Many short ones in turn: the machine that the emulator runs on has its moods.
    for _ in 0..3 * ROUNDS {
        poller.push(polled(&mut polled_ring)?);
        // It sleeps again before the others run.
        std::thread::sleep(Duration::from_millis(40));
        enter.push(entered(&mut entered_ring, no_op)?);
        queries.push(entered(&mut entered_ring, query)?);
        uring.push(theirs(&mut io_uring)?);
        two_calls.push(papers(&file)?);
    }
    println!("  ratio: no-ops by ENTER, batches of {BATCH}, beside io_uring's: {:.2}", beside(&enter, &uring));
    println!("  ratio: no-ops by the poller, batches of {BATCH}, beside io_uring's: {:.2}", beside(&poller, &uring));
    let beside_two_calls = [("ENTER", beside(&enter, &two_calls)), ("the poller", beside(&poller, &two_calls))];
    for (by, ratio) in beside_two_calls {
        println!("  ratio: no-ops by {by} beside two calls an entry: {ratio:.1}");
    }
    println!("  ratio: QUERY by ENTER beside io_uring's no-ops: {:.2}", beside(&queries, &uring));
    println!("  ratio: QUERY by ENTER beside two calls an entry: {:.1}", beside(&queries, &two_calls));
    let [enter, poller, uring, two_calls] = [enter, poller, uring, two_calls].map(median);
    println!("  (this emulator: {enter:.0}, {poller:.0}, {uring:.0}, {two_calls:.0} a second)");
    // What it costs follows from where the scheduler has had the worker: each way once more, on the first processor.
    let before = rustix::thread::sched_getaffinity(None)?;
    let mut first = rustix::thread::CpuSet::new();
    first.set(0);
    rustix::thread::sched_setaffinity(None, &first)?;
    for (processor, place) in [(0, "the same processor"), (1, "another processor")] {
        let file = paper.open_on(processor)?;
        let (mut enter, mut pinned) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            enter.push(entered(&mut entered_ring, no_op)?);
            pinned.push(papers(&file)?);
        }
        let ratio = beside(&enter, &pinned);
        println!("  ratio: no-ops by ENTER beside two calls, the worker on {place}: {ratio:.1}");
    }
    rustix::thread::sched_setaffinity(None, &before)?;
    for (by, ratio) in beside_two_calls {
        ensure!(ratio >= 20.0, "by {by} {ratio:.1} times two calls an entry, where 20 is the goal");
    }
    Ok(())
}

fn touch(mapping: &Mapping) -> Result<()> {
    for page in 0..mapping.length_bytes() / 4096 {
        ensure!(mapping.write(page * 4096, &[1]), "writing");
    }
    Ok(())
}

/// Touches what memory the machine has free: what the emulator has not given it yet costs whoever is first, which large
/// blocks are and pages that have just been freed are not.
fn touch_all() -> Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let free = text.lines().find_map(|line| line.strip_prefix("MemFree:"));
    let free_kib: usize = free.and_then(|rest| rest.trim().split(' ').next()).context("MemFree")?.parse()?;
    let mut all = vec![0u8; free_kib / 8 * 7 * 1024];
    all.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    ensure!(std::hint::black_box(&all).iter().step_by(4096).all(|byte| *byte == 1), "memory");
    Ok(())
}

/// Allocate, map, write a byte a page, unmap, free: seconds.
fn cycle(device: &Device, ring: &mut Ring, sqe: Alloc) -> Result<f64> {
    let start = Instant::now();
    let buffer = BufferHandle::from_bits(succeed(ring, sqe)?.word0).context("no buffer")?;
    let mapping = device.map(buffer)?;
    touch(&mapping)?;
    drop(mapping);
    succeed(ring, Free::new(buffer))?;
    Ok(start.elapsed().as_secs_f64())
}

fn allocating() -> Result<()> {
    let paper = Paper::load()?;
    let (device, mut ring) = device()?;
    touch_all()?;
    let (mut fresh, mut recycled, mut single) = (Vec::new(), Vec::new(), Vec::new());
    cycle(&device, &mut ring, built(Alloc::new(BYTES))?.recycled())?;
    for _ in 0..ROUNDS {
        fresh.push(cycle(&device, &mut ring, built(Alloc::new(BYTES))?)?);
        recycled.push(cycle(&device, &mut ring, built(Alloc::new(BYTES))?.recycled())?);
        let start = Instant::now();
        let file = paper.open()?;
        let mapping = Mapping::new(file.as_fd(), 0, BYTES as usize, true)?;
        touch(&mapping)?;
        drop((mapping, file));
        single.push(start.elapsed().as_secs_f64());
    }
    let (fresh, recycled, single) = (median(fresh), median(recycled), median(single));
    println!("  ratio: 64 MiB fresh, allocated and mapped, beside single pages: {:.2}", single / fresh);
    println!("  ratio: 64 MiB recycled beside single pages: {:.2}", single / recycled);
    println!("  ratio: recycled beside fresh: {:.2}", fresh / recycled);
    println!("  (this emulator: {:.1}, {:.1}, {:.1} ms)", fresh * 1e3, recycled * 1e3, single * 1e3);
    Ok(())
}

/// Small writes between two contexts, one at a time: seconds.
fn writes(ours: &mut Side, source: BufferHandle, import: ImportHandle) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..1000 {
        succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, 64))?)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

fn tracing() -> Result<()> {
    let switch = crate::observing::tracing()?.join("events/dmaplane/enable");
    let device = Device::open(DeviceSetup::default())?;
    let mut ring = device.ring(BATCH, 2 * BATCH)?;
    let (mut first, mut second) = pair()?;
    let (target, _landed) = second.buffer(4096)?;
    let (source, _mapping) = first.buffer(4096)?;
    let (_lease, token) = second.grant(built(LeaseGrant::range(target, 0, 4096, Rights::WRITE))?)?;
    let import = first.import(&token)?;
    let mut all = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (traced, place) in [("0", 0), ("1", 2)] {
            std::fs::write(&switch, traced)?;
            all[place].push(1.0 / entered(&mut ring, no_op)?);
            all[place + 1].push(writes(&mut first, source, import)?);
        }
    }
    std::fs::write(&switch, "0")?;
    let [no_ops, writes, traced_no_ops, traced_writes] = all.map(median);
    println!("  ratio: no-ops by ENTER that are traced take {:.2} of the time", traced_no_ops / no_ops);
    println!("  ratio: writes of 64 bytes that are traced take {:.2} of the time", traced_writes / writes);
    Ok(())
}
