//! What may be mapped, how, and by whom.

use crate::Test;
use crate::kit::{alloc, device, information, refused, succeed, until};
use crate::peers::pattern;
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::Mapping;
use dmaplane_ring::abi::device::DeviceMap;
use dmaplane_ring::build::Free;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::os::fd::{AsFd, AsRawFd};

pub const TESTS: &[Test] = &[
    ("map_two_mappings_of_a_buffer_show_the_same_bytes", shared),
    ("map_a_freed_buffer_that_is_mapped_reads_as_before_and_is_charged_until_it_is_not", outlives),
    ("map_what_the_kernel_writes_is_read_only_for_good", read_only),
    ("map_private_executable_and_too_long_mappings_are_refused", refused_kinds),
    ("map_a_child_inherits_no_mapping", not_inherited),
    ("bug_10_another_context_reaches_nothing_by_any_handle_or_offset", foreign),
];

fn shared() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, length) = alloc(&mut ring, 1 << 20)?;
    let (one, other) = (device.map(buffer)?, device.map(buffer)?);
    ensure!(one.write(12_345, b"the same"), "writing");
    let mut bytes = [0; 8];
    ensure!(other.read(12_345, &mut bytes) && &bytes == b"the same", "{bytes:?}");
    // A part of it, from within.
    let offer = device.offer(buffer)?;
    let part = Mapping::new(device.as_fd(), offer.offset + 8192, length as usize - 8192, true)?;
    ensure!(part.read(12_345 - 8192, &mut bytes) && &bytes == b"the same", "{bytes:?}");
    Ok(())
}

fn outlives() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 1 << 20)?;
    let mapping = device.map(buffer)?;
    ensure!(mapping.write(5000, b"kept"), "writing");
    // Of another context, from before and from after.
    let (other, mut others_ring) = crate::kit::device()?;
    let all = 1usize << 20;
    let mut others = Vec::new();
    let mut one_more = |seed| -> Result<()> {
        let mapping = other.map(alloc(&mut others_ring, all as u64)?.0)?;
        let bytes = pattern(all, seed);
        ensure!(mapping.write(0, &bytes), "writing");
        others.push((mapping, bytes));
        Ok(())
    };
    one_more(1)?;
    succeed(&mut ring, Free::new(buffer))?;
    // Others take the memory that is free now.
    for _ in 0..4 {
        alloc(&mut ring, 1 << 20)?;
    }
    for seed in 2..6 {
        one_more(seed)?;
    }
    let mut bytes = [0; 4];
    ensure!(mapping.read(5000, &mut bytes) && &bytes == b"kept", "{bytes:?}");
    // What is written there now reaches nobody else.
    let mine = pattern(all, 99);
    ensure!(mapping.write(0, &mine), "writing");
    let mut found = vec![0; all];
    for (theirs, bytes) in &others {
        ensure!(theirs.read(0, &mut found) && found == *bytes, "a freed buffer's mapping reaches another context's");
    }
    ensure!(mapping.read(0, &mut found) && found == mine, "another context's mapping reaches a freed buffer");
    ensure!(information(&device, "memory-bytes")? == 5 << 20, "a mapped buffer is charged");
    drop(mapping);
    until("an unmapped one is not", || Ok(information(&device, "memory-bytes")? == 4 << 20))
}

fn read_only() -> Result<()> {
    let (_device, ring) = device()?;
    // The client's area of 64 SQEs: a page and 4 KiB.
    refused(Mapping::new(ring.as_fd(), 8192, 4096, true), libc::EACCES, "mapping the engine's area to write")?;
    let area = Mapping::new(ring.as_fd(), 8192, 4096, false)?;
    // SAFETY: our own mapping; nobody writes through it.
    let made =
        unsafe { rustix::mm::mprotect(area.start().as_ptr().cast(), 4096, MprotectFlags::READ | MprotectFlags::WRITE) };
    refused(made.map_err(Into::into), libc::EACCES, "making the engine's area writable")?;
    let mut word = [0; 4];
    ensure!(area.read(0, &mut word) && &word == b"DPR0", "{word:?} is no ring's beginning");
    ensure!(!area.write(0, b"x"), "the client writes through a mapping for reading");
    Ok(())
}

fn refused_kinds() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, length) = alloc(&mut ring, 64 << 10)?;
    let DeviceMap { offset, .. } = device.offer(buffer)?;
    let map = |length: u64, rights: ProtFlags, flags: MapFlags, offset: u64| -> std::io::Result<()> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length as usize, rights, flags, &device, offset) }?;
        // SAFETY: what was just mapped.
        unsafe { rustix::mm::munmap(start, length as usize) }?;
        Ok(())
    };
    let both = ProtFlags::READ | ProtFlags::WRITE;
    map(length, both, MapFlags::SHARED, offset)?;
    refused(map(length, both, MapFlags::PRIVATE, offset), libc::EINVAL, "a private mapping")?;
    refused(map(length, both | ProtFlags::EXEC, MapFlags::SHARED, offset), libc::EACCES, "an executable mapping")?;
    refused(map(length + 4096, both, MapFlags::SHARED, offset), libc::EINVAL, "a mapping beyond the end")?;
    refused(map(4096, both, MapFlags::SHARED, offset + length), libc::EINVAL, "a mapping behind the end")?;
    refused(map(4096, both, MapFlags::SHARED, 0), libc::EACCES, "counters, to be written to")?;
    refused(map(4096, both, MapFlags::SHARED, 1 << 30), libc::EINVAL, "a mapping of no buffer")?;
    let mapping = device.map(buffer)?;
    // SAFETY: our own mapping, which a refused mremap leaves as it is.
    let grown = unsafe {
        rustix::mm::mremap(
            mapping.start().as_ptr().cast(),
            length as usize,
            2 * length as usize,
            rustix::mm::MremapFlags::MAYMOVE,
        )
    };
    refused(grown.map(|_| ()).map_err(Into::into), libc::EFAULT, "growing a mapping")
}

fn not_inherited() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 4096)?;
    let mapping = device.map(buffer)?;
    ensure!(mapping.write(0, b"mine"), "writing");
    let (reader, writer) = rustix::pipe::pipe()?;
    // SAFETY: the child makes two system calls: the kernel says whether it can read there, and nothing faults.
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "fork failed");
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            let written = libc::write(writer.as_raw_fd(), mapping.start().as_ptr().cast(), 4);
            libc::_exit(if written < 0 { *libc::__errno_location() } else { 0 });
        }
    }
    let mut status = 0;
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    drop((reader, writer));
    ensure!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == libc::EFAULT, "the child could read: {status:#x}");
    Ok(())
}

fn foreign() -> Result<()> {
    let (owner, mut ring) = device()?;
    let (other, mut others_ring) = device()?;
    // Its own buffers, of other numbers than the owner's.
    let mut buffers = Vec::new();
    for _ in 0..3 {
        buffers.push(alloc(&mut ring, 64 << 10)?.0);
    }
    for &buffer in &buffers {
        let DeviceMap { offset, length_bytes, .. } = owner.offer(buffer)?;
        ensure!(other.map(buffer).is_err(), "another context maps by a handle that is not its own");
        let mapped = Mapping::new(other.as_fd(), offset, length_bytes as usize, true);
        refused(mapped.map(drop), libc::EINVAL, "mapping by another context's offset")?;
        let freed = crate::kit::complete(&mut others_ring, Free::new(buffer))?;
        ensure!(freed.result().is_err(), "another context frees by a handle that is not its own");
    }
    // With a buffer of the same number its own is what it gets.
    let (own, _) = alloc(&mut others_ring, 4096)?;
    let mapping = other.map(own)?;
    let owners = owner.map(*buffers.first().context("a buffer")?)?;
    ensure!(mapping.write(0, b"other") && owners.write(0, b"owner"), "writing");
    let mut bytes = [0; 5];
    ensure!(mapping.read(0, &mut bytes) && &bytes == b"other", "{bytes:?}");
    Ok(())
}
