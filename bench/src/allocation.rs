//! Memory that a peer may be given: fresh, beside the speed at which memory is zeroed, and recycled.

use crate::results::Results;
use crate::sample::Measurement;
use anyhow::{Context, Result};
use dmaplane::{Buffer, Config, Error, Plane, Rights};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::cell::RefCell;
use std::ptr::null_mut;
use std::time::Instant;

const BYTES: usize = 64 << 20;
const TIMES: usize = 5;

pub fn run(results: &mut Results) -> Result<()> {
    let mut plane = Plane::open(Config::default())?;
    let mut memory = vec![1; BYTES];
    results.compare("alloc_memset", || repeated(|| lease_fresh(&mut plane)), || repeated(|| zero(&mut memory)));
    results.compare("alloc_populate", || repeated(|| lease_fresh(&mut plane)), || repeated(populate));
    // One plane takes turns, and keeps one such buffer.
    let plane = RefCell::new(plane);
    results.compare(
        "alloc_recycled",
        || repeated(|| lease(&mut plane.borrow_mut(), Plane::alloc_recycled)),
        || repeated(|| lease_fresh(&mut plane.borrow_mut())),
    );
    Ok(())
}

fn repeated(mut once: impl FnMut() -> Result<()>) -> Result<Measurement> {
    let start = Instant::now();
    for _ in 0..TIMES {
        once()?;
    }
    Ok(Measurement::plain((BYTES * TIMES) as f64 / 1e9 / start.elapsed().as_secs_f64()))
}

fn lease_fresh(plane: &mut Plane) -> Result<()> {
    lease(plane, Plane::alloc)
}

/// Allocates, makes a lease on it that a peer could claim, ends that, and gives the memory back.
fn lease(plane: &mut Plane, alloc: fn(&mut Plane, u64) -> Result<Buffer, Error>) -> Result<()> {
    let buffer = alloc(plane, BYTES as u64)?;
    let leased = plane.grant(buffer, Rights::WRITE)?;
    std::hint::black_box(plane.token(&leased)?);
    let buffer = plane.revoke(leased)?;
    Ok(plane.free(buffer)?)
}

fn zero(memory: &mut [u8]) -> Result<()> {
    memory.fill(0);
    std::hint::black_box(memory);
    Ok(())
}

/// What the kernel itself takes for as many fresh pages.
fn populate() -> Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::POPULATE;
    // SAFETY: a new mapping, at a place that the kernel picks, which nobody refers to when it is unmapped.
    unsafe {
        let memory = mmap_anonymous(null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, flags).context("mmap")?;
        munmap(memory, BYTES).context("munmap")
    }
}
