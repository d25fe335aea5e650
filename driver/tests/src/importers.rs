//! Our exports in other drivers' hands (clauses BUF-7 to BUF-9): devices that attach, read and write, and are at work.

use crate::Test;
use crate::importer::Loaded;
use crate::kit::{WAIT, alloc, complete, device, information, refused, succeed, until};
use crate::peers::{Side, built, pair, pattern};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Ring};
use dmaplane_ring::abi::device::DeviceSetup;
use dmaplane_ring::abi::{BufferHandle, Errno, Rights, SlotHandle};
use dmaplane_ring::build::{Alloc, Cancel, ExportDmabuf, Free, LeaseGrant, LeaseRevoke, Nop, Sync, Wait, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("buf_7_static_and_dynamic_importers_read_and_write_an_export", attached),
    ("buf_8_a_device_keeps_memory_whose_context_has_gone", outlives),
    ("buf_9_sync_waits_for_an_importers_device", waited_for),
    ("buf_9_a_copy_waits_for_a_device_and_a_revoke_does_not", copy_waits),
    ("ctl_7_a_sync_file_in_a_slot_is_waited_for_before_a_write", sync_file),
    ("bug_9_a_descriptor_that_changes_under_a_call_keeps_no_context", changing),
    ("dev_13_copies_between_exports_and_who_waits_for_them_under_locks_never_wait_for_each_other", both_exported),
    ("dev_10_what_is_imported_is_bounded_and_one_memory_is_mapped_once", bounded),
    ("sec_1_a_thousand_operations_that_wait_for_a_device_hold_nobody_up", crowd),
];

/// One kernel's is enough: it lasts as long as a device is waited for.
pub const LONG: &[Test] = &[("buf_9_sync_says_when_a_device_takes_too_long", given_up)];

fn export(device: &Device, ring: &mut Ring, buffer: BufferHandle) -> Result<OwnedFd> {
    let slot = SlotHandle::from_bits(succeed(ring, ExportDmabuf::new(buffer))?.word0).context("no slot")?;
    Ok(device.take(slot)?)
}

fn attached() -> Result<()> {
    let loaded = Loaded::new()?;
    let (device, mut ring) = device()?;
    let importer = loaded.open()?;
    for (length, huge) in [(100, false), ((1 << 20) + 1, false), (4 << 20, true)] {
        let alloc = built(Alloc::new(length))?;
        let made = succeed(&mut ring, if huge { alloc.huge_pages() } else { alloc })?;
        let buffer = BufferHandle::from_bits(made.word0).context("no buffer")?;
        let own = device.map(buffer)?;
        let whole = own.length_bytes();
        let fd = export(&device, &mut ring, buffer)?;
        for (add, dynamic) in [(3, false), (9, true)] {
            let bytes = pattern(whole, length + u64::from(add));
            ensure!(own.write(0, &bytes), "writing");
            let (given, pieces) = importer.attach(fd.as_fd(), dynamic)?;
            ensure!(given == whole as u64, "a device was given {given} bytes of {whole}");
            // The device takes 1 MiB at a time.
            let least = (whole as u64).div_ceil(1 << 20);
            ensure!(pieces >= least, "{whole} bytes came as {pieces} pieces, longer than the device takes");
            ensure!(!huge || pieces == least, "2 MiB pages came as {pieces} pieces");
            let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
            ensure!(importer.sum()? == sum, "a device reads other bytes, dynamic: {dynamic}");
            importer.write(add)?;
            // While it is attached: the devices that are at it are told on either side of the processor's access.
            succeed(&mut ring, Sync::begin(buffer))?;
            let mut found = vec![0; whole];
            ensure!(own.read(0, &mut found), "reading");
            let right = found.iter().enumerate().all(|(n, &byte)| byte == (n as u8).wrapping_mul(7).wrapping_add(add));
            ensure!(right, "what a device wrote is not here, dynamic: {dynamic}");
            succeed(&mut ring, Sync::end(buffer))?;
            importer.detach()?;
        }
        drop((own, fd));
        succeed(&mut ring, Free::new(buffer))?;
    }
    until("what was exported is given back", || Ok(information(&device, "memory-bytes")? == 0))
}

fn outlives() -> Result<()> {
    let loaded = Loaded::new()?;
    for dynamic in [false, true] {
        let importer = loaded.open()?;
        let bytes = pattern(1 << 20, 5);
        {
            let (device, mut ring) = device()?;
            let (buffer, _) = alloc(&mut ring, 1 << 20)?;
            ensure!(device.map(buffer)?.write(0, &bytes), "writing");
            importer.attach(export(&device, &mut ring, buffer)?.as_fd(), dynamic)?;
        }
        std::thread::sleep(Duration::from_millis(100));
        ensure!(crate::kit::is_in_use(c"dmaplane"), "the module went under a device");
        let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
        ensure!(importer.sum()? == sum, "a device reads other bytes once the context has gone");
        importer.write(1)?;
    }
    Ok(())
}

/// Nothing completes for a while.
fn is_held_up(ring: &mut Ring) -> Result<()> {
    refused(ring.enter(1, Duration::from_millis(150)), libc::ETIME, "not waiting for the device")
}

fn waited_for() -> Result<()> {
    let loaded = Loaded::new()?;
    let (device, mut ring) = device()?;
    let (other, mut other_ring) = crate::kit::device()?;
    let (buffer, _) = alloc(&mut ring, 1 << 20)?;
    let fd = export(&device, &mut ring, buffer)?;
    let (imported, _) = other.import(fd.as_fd())?;
    // Of the exporter, and of who has imported it.
    for (ring, buffer) in [(&mut ring, buffer), (&mut other_ring, imported)] {
        let importer = loaded.open()?;
        importer.busy(fd.as_fd())?;
        ensure!(ring.push(Sync::begin(buffer)).is_ok(), "the ring is full");
        is_held_up(ring)?;
        importer.idle()?;
        ring.enter(1, WAIT)?;
        built(ring.reap_one().context("no completion")?.result())?;
    }
    // What takes for ever is given up with the context.
    let importer = loaded.open()?;
    importer.busy(fd.as_fd())?;
    ensure!(ring.push(Sync::begin(buffer)).is_ok(), "the ring is full");
    is_held_up(&mut ring)
}

/// And by time.
fn given_up() -> Result<()> {
    let loaded = Loaded::new()?;
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 1 << 20)?;
    let fd = export(&device, &mut ring, buffer)?;
    let importer = loaded.open()?;
    importer.busy(fd.as_fd())?;
    let start = Instant::now();
    let late = complete(&mut ring, Sync::begin(buffer))?;
    ensure!(late.result() == Err(Errno::ETIMEDOUT), "{late:?}");
    ensure!(start.elapsed() >= Duration::from_secs(9), "given up after {:?}", start.elapsed());
    Ok(())
}

fn copy_waits() -> Result<()> {
    let loaded = Loaded::new()?;
    let (mut ours, mut theirs) = pair()?;
    let (third, mut third_ring) = device()?;
    let (buffer, length) = alloc(&mut third_ring, 1 << 20)?;
    let look = third.map(buffer)?;
    let fd = export(&third, &mut third_ring, buffer)?;
    let (imported, _) = theirs.device.import(fd.as_fd())?;
    let (lease, token) = theirs.grant(built(LeaseGrant::range(imported, 0, length, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    let (source, mapping) = ours.buffer(length)?;
    let bytes = pattern(length as usize, 23);
    ensure!(mapping.write(0, &bytes), "writing");
    let importer = loaded.open()?;
    importer.busy(fd.as_fd())?;
    ours.push(built(Write::new(source, 0, import, 0, length))?)?;
    is_held_up(&mut ours.ring)?;
    let mut found = vec![0; length as usize];
    ensure!(look.read(0, &mut found) && found.iter().all(|&byte| byte == 0), "it was written to while a device had it");
    importer.idle()?;
    built(ours.next()?.result())?;
    ensure!(look.read(0, &mut found) && found == bytes, "others have landed");
    // A revoke ends what waits.
    importer.busy(fd.as_fd())?;
    ours.push(built(Write::new(source, 0, import, 0, length))?)?;
    is_held_up(&mut ours.ring)?;
    let start = Instant::now();
    succeed(&mut theirs.ring, LeaseRevoke::now(lease))?;
    let ended = ours.next()?;
    ensure!(ended.result().is_err(), "{ended:?}");
    ensure!(start.elapsed() < Duration::from_secs(5), "a revoke waited for a device: {:?}", start.elapsed());
    importer.idle()
}

/// DMA_BUF_IOCTL_EXPORT_SYNC_FILE, as linux/dma-buf.h has it: what is under way with a dma-buf, as a descriptor.
pub fn work_with(dma_buf: &OwnedFd) -> Result<OwnedFd> {
    // Of all who read or write it; filled in: the descriptor.
    let mut arguments = [3, -1];
    // SAFETY: the call reads and writes these eight bytes.
    let result = unsafe { libc::ioctl(dma_buf.as_raw_fd(), 0xc008_6202, arguments.as_mut_ptr()) };
    ensure!(result == 0, "DMA_BUF_IOCTL_EXPORT_SYNC_FILE: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just made this descriptor, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(arguments[1]) })
}

/// A copy took the lock of its second side when others could see its fence on the first one, whom somebody waited for
/// with the second locked.
fn both_exported() -> Result<()> {
    let loaded = Loaded::new()?;
    let (mut ours, mut theirs) = pair()?;
    let length = 64 << 10;
    let (source, _) = ours.buffer(length)?;
    let from = export(&ours.device, &mut ours.ring, source)?;
    let (target, _) = theirs.buffer(length)?;
    let to = export(&theirs.device, &mut theirs.ring, target)?;
    let (_lease, token) =
        theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::READ.with(Rights::WRITE)))?)?;
    let import = ours.import(&token)?;
    let importer = loaded.open()?;
    let rounds = if crate::kit::slow() { 150 } else { 1500 };
    std::thread::scope(|scope| -> Result<()> {
        let waiting = scope.spawn(|| -> Result<()> {
            for round in 0..rounds {
                let (first, second) = if round % 2 == 0 { (&from, &to) } else { (&to, &from) };
                importer.wait_locked(first.as_fd(), second.as_fd())?;
            }
            Ok(())
        });
        let mut copies = 0;
        while !waiting.is_finished() {
            for _ in 0..8 {
                let write = built(Write::new(source, 0, import, 0, length))?;
                ensure!(ours.ring.push(write).is_ok(), "the ring is full");
            }
            ours.ring.enter(8, WAIT).context("copies that wait for who waits for them")?;
            let mut right = true;
            ours.ring.reap(8, |cqe| right &= cqe.res >= 0);
            ensure!(right, "a copy has failed");
            copies += 8;
        }
        println!("  {copies} copies");
        waiting.join().ok().context("the waiting thread has panicked")?
    })
}

/// Every import took the kernel's page tables anew, in nobody's account, for as many of the same memory as one likes.
fn bounded() -> Result<()> {
    let (owner, mut owners_ring) = device()?;
    let (buffer, length) = alloc(&mut owners_ring, 2 << 20)?;
    let setup = DeviceSetup { memory_bytes: 8 << 20, buffer_bytes: 4 << 20, ..DeviceSetup::default() };
    let device = Device::open(setup)?;
    let mut ring = device.ring(16, 32)?;
    let one_more = |ring: &mut Ring| export(&owner, ring, buffer);
    let mappings = || -> Result<usize> {
        let all = std::fs::read_to_string("/proc/vmallocinfo")?;
        Ok(all.lines().filter(|line| line.contains("map_for_kernel")).count())
    };
    ensure!(mappings()? == 0, "something is mapped before anything is imported");
    let mut imports = Vec::new();
    for _ in 0..4 {
        imports.push(device.import(one_more(&mut owners_ring)?.as_fd())?.0);
    }
    ensure!(mappings()? == 1, "one memory is mapped {} times", mappings()?);
    let beyond = device.import(one_more(&mut owners_ring)?.as_fd());
    refused(beyond, libc::EDQUOT, "10 MiB of imports where 8 may be had")?;
    // They are counted apart from memory of its own.
    alloc(&mut ring, 4 << 20)?;
    succeed(&mut ring, Free::new(imports.pop().context("an import")?))?;
    until("what was freed is not counted", || {
        Ok(device.import(one_more(&mut owners_ring)?.as_fd()).map(|(import, _)| imports.push(import)).is_ok())
    })?;
    let (long, _) = alloc(&mut owners_ring, length * 3)?;
    let long = export(&owner, &mut owners_ring, long)?;
    refused(device.import(long.as_fd()), libc::EMSGSIZE, "an import that is longer than a buffer may be")?;
    for import in imports {
        succeed(&mut ring, Free::new(import))?;
    }
    until("nothing is mapped", || Ok(mappings()? == 0))
}

/// SLOT looked the descriptor up twice: one that was the context's own in between left it holding itself, for good.
fn changing() -> Result<()> {
    let loaded = Loaded::new()?;
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 4096)?;
    let fd = export(&device, &mut ring, buffer)?;
    let importer = loaded.open()?;
    importer.busy(fd.as_fd())?;
    let fence = work_with(&fd)?;
    let changing = rustix::io::dup(&device)?;
    let [own, other, number] = [device.as_fd().as_raw_fd(), fence.as_raw_fd(), changing.as_raw_fd()];
    let turns = if crate::kit::slow() { 4_000 } else { 20_000 };
    let mut taken = 0;
    std::thread::scope(|scope| -> Result<()> {
        let changer = scope.spawn(move || {
            for _ in 0..turns {
                for from in [other, own] {
                    // SAFETY: all three are open until this thread has ended, and the number is nobody else's.
                    unsafe { libc::dup2(from, number) };
                }
            }
        });
        while !changer.is_finished() {
            // The context's own is refused.
            if let Ok(slot) = device.put(changing.as_fd()) {
                let fd = device.take(slot)?;
                let what = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
                ensure!(what.to_string_lossy().contains("sync_file"), "a slot holds {}", what.display());
                taken += 1;
            }
        }
        Ok(())
    })?;
    ensure!(taken > 0, "no sync_file was ever put in");
    importer.idle()
}

/// A device's work is done, and then what it has made is written to a peer.
fn sync_file() -> Result<()> {
    let loaded = Loaded::new()?;
    let (mut ours, mut theirs) = pair()?;
    let (source, _mapping) = ours.buffer(1 << 16)?;
    let fd = export(&ours.device, &mut ours.ring, source)?;
    let (target, landed) = theirs.buffer(1 << 16)?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, 1 << 16, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    for round in 0..20u8 {
        let importer = loaded.open()?;
        importer.attach(fd.as_fd(), round % 2 == 0)?;
        importer.busy(fd.as_fd())?;
        let slot = ours.device.put(work_with(&fd)?.as_fd())?;
        // What is signalled meanwhile, or was before, is as good.
        let early = round % 4 == 3;
        if early {
            importer.write(round)?;
            importer.idle()?;
        }
        ensure!(ours.ring.push(Wait::on_slot(slot).link()).is_ok(), "the ring is full");
        ensure!(ours.ring.push(built(Write::new(source, 0, import, 0, 1 << 16))?).is_ok(), "the ring is full");
        if !early {
            is_held_up(&mut ours.ring)?;
            refused(ours.device.take(slot), libc::EBUSY, "taking a slot that is waited for")?;
            importer.write(round)?;
            importer.idle()?;
        }
        ours.ring.enter(2, WAIT)?;
        let mut results = Vec::new();
        ours.ring.reap(2, |cqe| results.push(cqe.res));
        ensure!(results == [0, 1 << 16], "a wait and a write came to {results:?}");
        let mut found = vec![0; 1 << 16];
        ensure!(landed.read(0, &mut found), "reading");
        let right = found.iter().enumerate().all(|(n, &byte)| byte == (n as u8).wrapping_mul(7).wrapping_add(round));
        ensure!(right, "round {round}: the write went before the device was done");
        drop(ours.device.take(slot)?);
    }
    // Cancelled, and closed, while it waits.
    let importer = loaded.open()?;
    importer.busy(fd.as_fd())?;
    let slot = ours.device.put(work_with(&fd)?.as_fd())?;
    ensure!(ours.ring.push(Wait::on_slot(slot).user_data(1)).is_ok(), "the ring is full");
    is_held_up(&mut ours.ring)?;
    ensure!(ours.ring.push(Cancel::by_user_data(1).user_data(2)).is_ok(), "the ring is full");
    ours.ring.enter(2, WAIT)?;
    let mut both = Vec::new();
    ours.ring.reap(2, |cqe| both.push((cqe.user_data, cqe.res)));
    both.sort_unstable();
    ensure!(both == [(1, -libc::ECANCELED), (2, 1)], "a wait and its cancel came to {both:?}");
    ensure!(ours.ring.push(Wait::on_slot(slot).user_data(3)).is_ok(), "the ring is full");
    is_held_up(&mut ours.ring)?;
    drop(ours);
    importer.idle()
}

/// More than any queue of the kernel's runs at once, all of them waiting; the same context's other work goes on in its
/// turn, another one's at once, and closing does not wait.
fn crowd() -> Result<()> {
    const WAITING: u32 = 1024;
    let loaded = Loaded::new()?;
    let (exporter, mut exporter_ring) = device()?;
    let (buffer, length) = alloc(&mut exporter_ring, 1 << 20)?;
    let fd = export(&exporter, &mut exporter_ring, buffer)?;
    let importer = loaded.open()?;
    importer.busy(fd.as_fd())?;
    let (mut ours, mut theirs) = pair()?;
    let before = crate::kit::held()?;
    let (imported, _) = ours.device.import(fd.as_fd())?;
    let mut full = ours.device.ring(2048, 4096)?;
    for _ in 0..WAITING {
        ensure!(full.push(Sync::begin(imported)).is_ok(), "the ring is full");
    }
    full.enter(0, WAIT)?;
    let asked = Instant::now();
    // As many copies that its peer has to make, out of what the device is at.
    let (target, landed) = theirs.buffer(length)?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    for n in 0..32 {
        ensure!(full.push(built(Write::new(imported, 0, import, n, length - n))?).is_ok(), "the ring is full");
    }
    full.enter(0, WAIT)?;
    let (source, mapping) = ours.buffer(length)?;
    let bytes = pattern(length as usize, 29);
    ensure!(mapping.write(0, &bytes), "writing");
    let neighbour = |side: &mut Side| -> Result<Duration> {
        let start = Instant::now();
        let (buffer, _) = alloc(&mut side.ring, 1 << 16)?;
        succeed(&mut side.ring, Nop::new())?;
        succeed(&mut side.ring, Free::new(buffer))?;
        Ok(start.elapsed())
    };
    for _ in 0..10 {
        let took = neighbour(&mut theirs)?.max(neighbour(&mut ours)?);
        ensure!(took < Duration::from_secs(5), "another's work took {took:?}");
    }
    let start = Instant::now();
    succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, length))?)?;
    let took = start.elapsed();
    let mut found = vec![0; length as usize];
    ensure!(landed.read(0, &mut found) && found == bytes, "others have landed");
    ensure!(took < Duration::from_secs(5), "a copy that waits for nobody took {took:?}");
    // After ten seconds those that can be given up are.
    ensure!(full.available() == 0 || asked.elapsed() > Duration::from_secs(9), "they did not wait");
    let start = Instant::now();
    drop((full, ours));
    // More than what our own context had, less what the other has since.
    until("what waited has ended", || Ok(crate::kit::held()? <= before))?;
    ensure!(start.elapsed() < Duration::from_secs(6), "closing took {:?}", start.elapsed());
    importer.idle()
}
