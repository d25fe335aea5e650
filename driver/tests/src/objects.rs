//! Lists, words that are waited for, and recycled memory.

use crate::Test;
use crate::kit::{WAIT, alloc, complete, device, information, succeed, until};
use crate::lists::{prepare, run, write_runs};
use anyhow::{Context as _, Result, anyhow, ensure};
use dmaplane_device::Device;
use dmaplane_ring::abi::device::DeviceSetup;
use dmaplane_ring::abi::{BufferHandle, Errno, ListHandle, Run};
use dmaplane_ring::build::{Alloc, Cancel, Free, ListFree, Wait};
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("lst_a_list_is_copied_once_checked_and_freed", lists),
    ("lst_runs_that_are_wrong_are_refused", wrong_lists),
    ("ctl_8_a_word_is_waited_for_and_the_wait_can_be_cancelled", words),
    ("buf_3_recycled_memory_is_the_owners_again_and_nobody_elses", recycled),
    ("buf_3_what_is_kept_to_be_recycled_is_in_nobodys_way", in_nobodys_way),
    ("buf_3_so_many_are_kept_to_be_recycled_and_no_more", kept),
    ("buf_3_memory_that_is_mapped_is_not_recycled", mapped_is_not_recycled),
];

fn lists() -> Result<()> {
    let (device, mut ring) = device()?;
    let (data, _) = alloc(&mut ring, 16 << 20)?;
    let (records, _) = alloc(&mut ring, 1 << 20)?;
    let mapping = device.map(records)?;
    // Enough that the copy goes in several steps.
    let runs: Vec<Run> = (0..4096).map(|n| run(data, n * 4096, 1)).collect();
    write_runs(&mapping, &runs)?;
    let made = succeed(&mut ring, prepare(records, 4096)?)?;
    let list = ListHandle::from_bits(made.word0).context("no list")?;
    ensure!(information(&device, "lists")? == 1, "it is there");
    // What is written afterwards is nothing to it, and what it uses cannot be freed.
    write_runs(&mapping, &[Run::default()])?;
    let busy = complete(&mut ring, Free::new(data))?;
    ensure!(busy.result() == Err(Errno::EBUSY), "{busy:?}");
    succeed(&mut ring, ListFree::new(list))?;
    ensure!(information(&device, "lists")? == 0, "it is gone");
    succeed(&mut ring, Free::new(data))?;
    Ok(())
}

fn wrong_lists() -> Result<()> {
    let (device, mut ring) = device()?;
    let (data, _) = alloc(&mut ring, 64 << 10)?;
    let (records, _) = alloc(&mut ring, 4096)?;
    let mapping = device.map(records)?;
    let right = run(data, 0, 16);
    let wrong = [
        Run { count: 17, ..right },
        Run { offset_bytes: u64::MAX, ..right },
        Run { length_bytes: 0, ..right },
        Run { stride_bytes: u64::MAX, ..right },
        Run { buffer: 0xffff_ffff_ffff, ..right },
        Run { reserved: 1, ..right },
    ];
    for run in wrong {
        write_runs(&mapping, &[right, run])?;
        let refused = complete(&mut ring, prepare(records, 2)?)?;
        ensure!(refused.result().is_err(), "{run:?} was taken");
    }
    let beyond = complete(&mut ring, prepare(records, 1 << 20)?)?;
    ensure!(beyond.result().is_err(), "runs beyond the buffer were taken");
    ensure!(information(&device, "lists")? == 0, "what was refused is not there");
    Ok(())
}

fn words() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 8192)?;
    let mapping = device.map(buffer)?;
    ensure!(mapping.write(4100, &7u32.to_le_bytes()), "writing");
    // It has come already; and modulo 2^32.
    succeed(&mut ring, Wait::on_word(buffer, 4100, 7))?;
    succeed(&mut ring, Wait::on_word(buffer, 4100, u32::MAX - 5))?;
    ensure!(ring.push(Wait::on_word(buffer, 4100, 8).user_data(1)).is_ok(), "the ring is full");
    ensure!(ring.push(Wait::on_word(buffer, 4100, 9).user_data(2)).is_ok(), "the ring is full");
    ensure!(ring.enter(1, Duration::from_millis(50)).is_err(), "neither has come");
    ensure!(mapping.write(4100, &8u32.to_le_bytes()), "writing");
    ring.enter(1, WAIT)?;
    let cqe = ring.reap_one().context("the first")?;
    ensure!((cqe.user_data, cqe.res) == (1, 0), "{cqe:?}");
    ensure!(ring.push(Cancel::by_user_data(2).user_data(3)).is_ok(), "the ring is full");
    ring.enter(2, WAIT)?;
    let mut ended = Vec::new();
    ring.reap(u32::MAX, |cqe| ended.push((cqe.user_data, cqe.res)));
    ended.sort_unstable();
    ensure!(matches!(ended[..], [(2, second), (3, 0 | 1)] if second == Errno::ECANCELED.as_result()), "{ended:?}");
    // One that still waits when its context goes is no hindrance.
    ensure!(ring.push(Wait::on_word(buffer, 4100, 100)).is_ok(), "the ring is full");
    ring.submit()?;
    Ok(())
}

fn recycled_alloc(bytes: u64) -> Result<Alloc> {
    Ok(Alloc::new(bytes).map_err(|error| anyhow!("{error}"))?.recycled())
}

fn recycled() -> Result<()> {
    let (device, mut ring) = device()?;
    let (other, mut others_ring) = crate::kit::device()?;
    let first = BufferHandle::from_bits(succeed(&mut ring, recycled_alloc(1 << 20)?)?.word0).context("a buffer")?;
    let mapping = device.map(first)?;
    ensure!(mapping.write(0, b"secret"), "writing");
    drop(mapping);
    succeed(&mut ring, Free::new(first))?;
    ensure!(information(&device, "memory-bytes")? == 1 << 20, "what is kept is charged");
    // Another owner gets zeros, and so does who does not ask.
    let mut bytes = [0; 6];
    let theirs = BufferHandle::from_bits(succeed(&mut others_ring, recycled_alloc(1 << 20)?)?.word0);
    ensure!(other.map(theirs.context("a buffer")?)?.read(0, &mut bytes) && bytes == [0; 6], "another owner sees it");
    let (plain, _) = alloc(&mut ring, 1 << 20)?;
    ensure!(device.map(plain)?.read(0, &mut bytes) && bytes == [0; 6], "who did not ask sees it");
    // Of another size: not that one.
    let larger = BufferHandle::from_bits(succeed(&mut ring, recycled_alloc(2 << 20)?)?.word0).context("a buffer")?;
    ensure!(device.map(larger)?.read(0, &mut bytes) && bytes == [0; 6], "another size");
    let again = BufferHandle::from_bits(succeed(&mut ring, recycled_alloc(1 << 20)?)?.word0).context("a buffer")?;
    ensure!(device.map(again)?.read(0, &mut bytes) && &bytes == b"secret", "{bytes:?}: it is not recycled");
    Ok(())
}

/// An ALLOC was -EDQUOT although nothing but recycled memory stood in its way, and succeeded when asked for again.
fn in_nobodys_way() -> Result<()> {
    let device = Device::open(DeviceSetup { memory_bytes: 4 << 20, ..DeviceSetup::default() })?;
    let mut ring = device.ring(16, 32)?;
    for _ in 0..3 {
        let kept = BufferHandle::from_bits(succeed(&mut ring, recycled_alloc(3 << 20)?)?.word0).context("a buffer")?;
        succeed(&mut ring, Free::new(kept))?;
        ensure!(information(&device, "memory-bytes")? == 3 << 20, "it is kept");
        let (all, _) = alloc(&mut ring, 4 << 20)?;
        ensure!(information(&device, "memory-bytes")? == 4 << 20, "it has made way");
        succeed(&mut ring, Free::new(all))?;
        until("all is given back", || Ok(information(&device, "memory-bytes")? == 0))?;
    }
    Ok(())
}

/// All that was kept was looked through, one by one, with a lock held.
fn kept() -> Result<()> {
    let device = Device::open(DeviceSetup { buffers: 2048, ..DeviceSetup::default() })?;
    let mut ring = device.ring(64, 128)?;
    let mut all = Vec::new();
    for _ in 0..1500 {
        let made = succeed(&mut ring, recycled_alloc(4096)?)?;
        all.push(BufferHandle::from_bits(made.word0).context("a buffer")?);
    }
    for buffer in all {
        succeed(&mut ring, Free::new(buffer))?;
    }
    until("the oldest have gone", || Ok(information(&device, "memory-bytes")? == 1024 * 4096))
}

fn mapped_is_not_recycled() -> Result<()> {
    let (device, mut ring) = device()?;
    let first = BufferHandle::from_bits(succeed(&mut ring, recycled_alloc(1 << 20)?)?.word0).context("a buffer")?;
    let mapping = device.map(first)?;
    succeed(&mut ring, Free::new(first))?;
    let again = BufferHandle::from_bits(succeed(&mut ring, recycled_alloc(1 << 20)?)?.word0).context("a buffer")?;
    ensure!(mapping.write(0, b"old"), "writing");
    let mut bytes = [0; 3];
    ensure!(device.map(again)?.read(0, &mut bytes) && bytes == [0; 3], "an old mapping reaches a new buffer");
    drop(mapping);
    until("it is not charged any more", || Ok(information(&device, "memory-bytes")? == 1 << 20))
}
