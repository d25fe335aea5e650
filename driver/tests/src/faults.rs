//! For each operation the n-th call that may fail does, for n = 1, 2, 3 ... until it succeeds: in the caller and in
//! workers, allocations and copies to and from the user alike. Each time the errno is a clean one, and nothing is left.
//! Wants a module that was built for it: `cargo xtask vm test --kernel 6.12 --faults`.

use crate::Test;
use crate::importer::Loaded;
use crate::importers::work_with;
use crate::kit::{Ended, alloc, complete, device, succeed, until};
use crate::lists::{prepare, run, write_runs};
use crate::peers::{Side, built, with_scratch};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use dmaplane_device::{Device, Mapping};
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::abi::{BufferHandle, ListHandle, PeerHandle, Rights, SlotHandle};
use dmaplane_ring::build::{
    Accept, Alloc, Connect, Disconnect, ExportDmabuf, Free, LeaseGrant, LeaseRevoke, Nop, PagePlacement, Placement,
    Read, ReadList, Recv, Send, Sync, Timeout, Wait, Write, WriteImm, WriteList,
};
use std::os::fd::AsFd as _;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("fail_nth_opening_and_setting_up", || every(set_up)),
    ("fail_nth_a_poller", || every(poller)),
    ("fail_nth_rings_and_entering", || every(rings)),
    ("fail_nth_alloc_map_placement_free", || every(buffers)),
    ("fail_nth_recycled_and_huge_buffers", || every(recycled)),
    ("fail_nth_lists", || every(lists)),
    ("fail_nth_words_and_eventfds_that_are_waited_for", || every(waits)),
    ("fail_nth_exports", || every(exports)),
    ("fail_nth_imports", || every(imports)),
    ("fail_nth_devices_that_attach", || every(attached)),
    ("fail_nth_sync_files_that_are_waited_for", || every(sync_files)),
    ("fail_nth_pinned_memory", || every(pins)),
    ("fail_nth_listening_and_connecting", || every(connecting)),
    ("fail_nth_messages", || every(messages)),
    ("fail_nth_writes_and_reads", || every(transfers)),
    ("fail_nth_list_writes_and_reads", || every(list_transfers)),
    ("fail_nth_writes_into_exports_and_imports", || every(shared_transfers)),
];

const PARAMETER: &str = "/sys/module/dmaplane/parameters/fail_nth";
/// More than any operation here comes to.
const CALLS_MAX: u32 = 400;
/// What a call or an operation may come to when something under it has failed.
const CLEAN: &[i32] =
    &[libc::ENOMEM, libc::EFAULT, libc::EMFILE, libc::ECONNRESET, libc::EKEYREVOKED, libc::ENOTCONN, libc::ECANCELED];

fn errno(error: &anyhow::Error) -> Option<i32> {
    error.chain().find_map(|cause| {
        let by_call = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        let by_system = cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error());
        let by_operation = cause.downcast_ref::<Ended>().map(|ended| ended.0.raw());
        by_call.or(by_system).or(by_operation)
    })
}

/// Nothing of any context is left.
fn all_is_gone() -> Result<bool> {
    Ok(crate::kit::held()? == 0)
}

fn every(operation: fn() -> Result<()>) -> Result<()> {
    let mut refusals = 0;
    for nth in 1..CALLS_MAX {
        std::fs::write(PARAMETER, nth.to_string()).context("this module was not built for faults")?;
        let outcome = operation();
        let left: u32 = std::fs::read_to_string(PARAMETER)?.trim().parse()?;
        std::fs::write(PARAMETER, "0")?;
        until("everything is given back", all_is_gone).with_context(|| format!("after call {nth} failed"))?;
        match outcome {
            Err(error) if left > 0 => return Err(error.context("no call has failed, and it did not succeed")),
            Err(error) => {
                let clean = errno(&error).is_some_and(|errno| CLEAN.contains(&errno));
                ensure!(clean, "call {nth} failed, and it came to: {error:#}");
                refusals += 1;
            }
            // Some failures are made good.
            Ok(()) if left == 0 => {}
            Ok(()) => {
                ensure!(nth > 1, "it makes no call that may fail");
                println!("  {} calls may fail, {refusals} of them end it", nth - 1);
                return Ok(());
            }
        }
    }
    bail!("it still fails when call {CALLS_MAX} does")
}

fn set_up() -> Result<()> {
    Device::open(DeviceSetup::default())?;
    Ok(())
}

fn poller() -> Result<()> {
    let device = Device::open(DeviceSetup { flags: setup_flags::POLLER, ..DeviceSetup::default() })?;
    let mut ring = device.ring(16, 32)?;
    succeed(&mut ring, Nop::new())?;
    Ok(())
}

fn rings() -> Result<()> {
    let (_device, mut ring) = device()?;
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    ring.register(Some(eventfd.as_fd()))?;
    succeed(&mut ring, Nop::new())?;
    ensure!(ring.push(Nop::new()).is_ok() && ring.enter_masked(1, crate::kit::WAIT, 0)? == 1, "under a mask");
    ended(ring.reap_one())?;
    succeed(&mut ring, Timeout::after_ns(1000)).map(drop).or_else(|error| match errno(&error) {
        Some(libc::ETIME) => Ok(()),
        _ => Err(error),
    })
}

fn made(ring: &mut dmaplane_device::Ring, alloc: Alloc) -> Result<BufferHandle> {
    BufferHandle::from_bits(succeed(ring, alloc)?.word0).context("no buffer")
}

fn buffers() -> Result<()> {
    let (device, mut ring) = device()?;
    // Blocks of several sizes.
    let buffer = made(&mut ring, built(Alloc::new(5 << 20))?.placement(PagePlacement::Strict(0)))?;
    let mapping = device.map(buffer)?;
    ensure!(mapping.write((5 << 20) - 1, b"x"), "writing");
    succeed(&mut ring, Placement::new(buffer, 0))?;
    succeed(&mut ring, Free::new(buffer))?;
    Ok(())
}

fn recycled() -> Result<()> {
    let (_device, mut ring) = device()?;
    for _ in 0..2 {
        let buffer = made(&mut ring, built(Alloc::new(64 << 10))?.recycled())?;
        succeed(&mut ring, Free::new(buffer))?;
    }
    let buffer = made(&mut ring, built(Alloc::new(4 << 20))?.huge_pages())?;
    succeed(&mut ring, Free::new(buffer))?;
    Ok(())
}

fn lists() -> Result<()> {
    let (device, mut ring) = device()?;
    let (data, _) = alloc(&mut ring, 64 << 10)?;
    let (records, _) = alloc(&mut ring, 4096)?;
    write_runs(&device.map(records)?, &[run(data, 0, 4), run(data, 16384, 8)])?;
    succeed(&mut ring, prepare(records, 2)?)?;
    Ok(())
}

fn waits() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 4096)?;
    let mapping = device.map(buffer)?;
    ensure!(ring.push(Wait::on_word(buffer, 0, 1)).is_ok(), "the ring is full");
    ring.enter(0, Duration::ZERO)?;
    ensure!(mapping.write(0, &1u32.to_le_bytes()), "writing");
    ring.enter(1, crate::kit::WAIT)?;
    ended(ring.reap_one())?;
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let slot = device.put(eventfd.as_fd())?;
    ensure!(ring.push(Wait::on_slot(slot)).is_ok(), "the ring is full");
    ring.enter(0, Duration::ZERO)?;
    rustix::io::write(&eventfd, &1u64.to_ne_bytes())?;
    ring.enter(1, crate::kit::WAIT)?;
    ended(ring.reap_one())
}

fn ended(cqe: Option<dmaplane_ring::abi::Cqe>) -> Result<()> {
    let cqe = cqe.context("no completion")?;
    cqe.result().map(drop).map_err(|errno| Ended(errno).into())
}

fn exported() -> Result<(Device, dmaplane_device::Ring, std::os::fd::OwnedFd)> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 64 << 10)?;
    let slot = SlotHandle::from_bits(succeed(&mut ring, ExportDmabuf::new(buffer))?.word0).context("no slot")?;
    let fd = device.take(slot)?;
    Ok((device, ring, fd))
}

fn exports() -> Result<()> {
    let (_device, mut ring, fd) = exported()?;
    let mapping = Mapping::new(fd.as_fd(), 0, 64 << 10, true)?;
    ensure!(mapping.write(0, b"x"), "writing");
    succeed(&mut ring, Nop::new())?;
    Ok(())
}

fn imports() -> Result<()> {
    let (_device, _ring, fd) = exported()?;
    let (device, mut ring) = device()?;
    let (buffer, _) = device.import(fd.as_fd())?;
    succeed(&mut ring, Sync::begin(buffer))?;
    let mapping = device.map(buffer)?;
    ensure!(mapping.write(0, b"x"), "writing");
    succeed(&mut ring, Sync::end(buffer))?;
    succeed(&mut ring, Free::new(buffer))?;
    Ok(())
}

/// A device of another driver's maps what is exported, as a static and as a dynamic importer.
fn attached() -> Result<()> {
    let loaded = Loaded::new()?;
    let (_device, mut ring, fd) = exported()?;
    for dynamic in [false, true] {
        let importer = loaded.open()?;
        importer.attach(fd.as_fd(), dynamic)?;
        importer.write(3)?;
        importer.detach()?;
    }
    succeed(&mut ring, Nop::new())?;
    Ok(())
}

fn sync_files() -> Result<()> {
    let loaded = Loaded::new()?;
    let (device, mut ring, fd) = exported()?;
    let importer = loaded.open()?;
    importer.busy(fd.as_fd())?;
    let slot = device.put(work_with(&fd)?.as_fd())?;
    ensure!(ring.push(Wait::on_slot(slot)).is_ok(), "the ring is full");
    ring.enter(0, Duration::ZERO)?;
    importer.idle()?;
    ring.enter(1, crate::kit::WAIT)?;
    ended(ring.reap_one())
}

fn pins() -> Result<()> {
    let (device, mut ring) = device()?;
    // More than is pinned in one step: some pages are pinned already when the next step fails.
    let memory = vec![0u64; 9000 * 512];
    let start = std::ptr::NonNull::from(memory.as_slice()).cast();
    // SAFETY: nobody writes to it: no lease is granted.
    let buffer = unsafe { device.pin(start, memory.len() * 8, false) }?;
    succeed(&mut ring, Free::new(buffer))?;
    Ok(())
}

/// Two contexts, connected, by one thread: nobody waits for who has failed.
fn pair() -> Result<(Side, Side)> {
    let ((ours, mut our_ring), (theirs, mut their_ring)) = (device()?, device()?);
    let (our_scratch, their_scratch) = (with_scratch(&ours, &mut our_ring)?, with_scratch(&theirs, &mut their_ring)?);
    let listener = theirs.listen("local:faults")?;
    ensure!(our_scratch.1.write(0, b"local:faults"), "writing");
    let peer = |bits: u64| PeerHandle::from_bits(bits).context("no peer");
    let peer_of_ours = peer(succeed(&mut our_ring, built(Connect::new(our_scratch.0, 0, 12))?)?.word0)?;
    let peer_of_theirs = peer(succeed(&mut their_ring, Accept::new(listener))?.word0)?;
    Ok((
        Side { device: ours, ring: our_ring, peer: peer_of_ours, scratch: our_scratch },
        Side { device: theirs, ring: their_ring, peer: peer_of_theirs, scratch: their_scratch },
    ))
}

fn connecting() -> Result<()> {
    let (mut ours, _theirs) = pair()?;
    succeed(&mut ours.ring, Disconnect::new(ours.peer))?;
    Ok(())
}

fn messages() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let (inbox, _) = alloc(&mut theirs.ring, 4096)?;
    theirs.push(built(Recv::new(theirs.peer, inbox, 0, 4096))?)?;
    succeed(&mut ours.ring, built(Send::new(ours.peer, ours.scratch.0, 0, 100))?)?;
    ended(Some(theirs.next()?))
}

fn transfers() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let length = 256 << 10;
    let (target, _) = alloc(&mut theirs.ring, length)?;
    let both = Rights::READ.with(Rights::WRITE);
    let (lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, both))?)?;
    let import = ours.import(&token)?;
    let (source, _) = alloc(&mut ours.ring, length)?;
    theirs.push(built(Recv::new(theirs.peer, theirs.scratch.0, 0, 4096))?)?;
    for bytes in [4096, length] {
        succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, bytes))?)?;
        succeed(&mut ours.ring, built(Read::new(source, 0, import, 0, bytes))?.checksum())?;
    }
    succeed(&mut ours.ring, built(WriteImm::new(source, 0, import, 0, 64))?)?;
    ended(Some(theirs.next()?))?;
    succeed(&mut theirs.ring, LeaseRevoke::now(lease))?;
    Ok(())
}

fn whole_list(side: &mut Side, pages: u32) -> Result<ListHandle> {
    let (data, _) = alloc(&mut side.ring, u64::from(pages) * 4096)?;
    let (records, _) = alloc(&mut side.ring, 4096)?;
    write_runs(&side.device.map(records)?, &[run(data, 0, pages)])?;
    ListHandle::from_bits(succeed(&mut side.ring, prepare(records, 1)?)?.word0).context("no list")
}

fn list_transfers() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let (source, target) = (whole_list(&mut ours, 16)?, whole_list(&mut theirs, 16)?);
    let (_lease, token) = theirs.grant(LeaseGrant::list(target, Rights::READ.with(Rights::WRITE)))?;
    let import = ours.import(&token)?;
    let (index, _) = alloc(&mut ours.ring, 4096)?;
    let pairs: Vec<u8> = (0..16u32).flat_map(|n| [n.to_le_bytes(), (15 - n).to_le_bytes()].concat()).collect();
    ensure!(ours.device.map(index)?.write(0, &pairs), "writing");
    theirs.push(built(Recv::new(theirs.peer, theirs.scratch.0, 0, 4096))?)?;
    let write = built(built(WriteList::new(source, import, index, 0, 16))?.notify(1, 0, 100))?;
    succeed(&mut ours.ring, write)?;
    ended(Some(theirs.next()?))?;
    succeed(&mut ours.ring, built(ReadList::new(source, import, index, 0, 16))?)?;
    Ok(())
}

fn shared_transfers() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let (_device, _ring, fd) = exported()?;
    let (imported, length) = theirs.device.import(fd.as_fd())?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(imported, 0, length, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    let (source, _) = alloc(&mut ours.ring, length)?;
    let slot = succeed(&mut ours.ring, ExportDmabuf::new(source))?;
    let slot = SlotHandle::from_bits(slot.word0).ok_or_else(|| anyhow!("no slot"))?;
    let _exported = ours.device.take(slot)?;
    succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, length))?)?;
    let done = complete(&mut ours.ring, Sync::begin(source))?;
    ended(Some(done))
}
