//! Buffers: made, placed, freed, bounded.

use crate::Test;
use crate::kit::{alloc, command, complete, device, information, succeed, until};
use crate::lists::{prepare, run, write_runs};
use crate::peers::{Side, built};
use anyhow::{Context as _, Result, anyhow, ensure};
use dmaplane_device::{Device, Mapping, Ring};
use dmaplane_ring::abi::device::DeviceSetup;
use dmaplane_ring::abi::{BufferHandle, Errno, ListHandle, MAX_LIST_SEGMENTS, Run};
use dmaplane_ring::build::{Alloc, Free, ListFree, PagePlacement, Placement, Recv, Send};
use std::io::Write as _;

pub const TESTS: &[Test] = &[
    ("buf_1_new_buffers_are_zero_and_as_long_as_asked", zero),
    ("buf_1_huge_pages_come_whole_or_not_at_all", huge),
    ("bug_16_a_size_that_is_no_page_multiple_maps_whole", odd_sizes),
    ("buf_1_large_buffers_are_made_of_the_largest_blocks_that_there_are", largest_first),
    ("buf_4_a_freed_handle_is_stale", stale),
    ("lim_1_limits_answer_with_their_errno_and_give_back_what_they_count", limits),
    ("lim_1_a_memory_cgroups_limit_is_an_errno_and_costs_nobodys_life", cgroup),
    ("buf_2_placement_is_verified_page_by_page", placed),
];

fn sqe(bytes: u64) -> Result<Alloc> {
    Alloc::new(bytes).map_err(|error| anyhow!("{error}"))
}

fn zero() -> Result<()> {
    let (device, mut ring) = device()?;
    // Dirtied and freed first, so that pages come back.
    for round in 0..3u8 {
        let (buffer, length) = alloc(&mut ring, 8 << 20)?;
        ensure!(length == 8 << 20, "{length} bytes");
        let mapping = device.map(buffer)?;
        let mut bytes = vec![1; 8 << 20];
        ensure!(mapping.read(0, &mut bytes) && bytes.iter().all(|&byte| byte == 0), "round {round}: not zeroed");
        bytes.fill(round + 1);
        ensure!(mapping.write(0, &bytes), "writing");
        drop(mapping);
        succeed(&mut ring, Free::new(buffer))?;
    }
    Ok(())
}

fn odd_sizes() -> Result<()> {
    let (device, mut ring) = device()?;
    for asked in [1u64, 4095, 4097, 12_345, (1 << 20) + 1] {
        let (buffer, length) = alloc(&mut ring, asked)?;
        ensure!(length == asked.next_multiple_of(4096), "{asked} bytes were rounded to {length}");
        let mapping = device.map(buffer)?;
        ensure!(mapping.length_bytes() as u64 == length, "{} of {length} bytes are mapped", mapping.length_bytes());
        ensure!(mapping.write(length as usize - 1, b"x"), "its last byte cannot be written");
    }
    Ok(())
}

fn stale() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 4096)?;
    succeed(&mut ring, Free::new(buffer))?;
    let again = complete(&mut ring, Free::new(buffer))?;
    ensure!(again.result() == Err(Errno::ESTALE), "{again:?}");
    crate::kit::refused(device.map(buffer), libc::ESTALE, "mapping a freed buffer")
}

fn limits() -> Result<()> {
    let device =
        Device::open(DeviceSetup { buffers: 3, buffer_bytes: 1 << 20, memory_bytes: 2 << 20, ..Default::default() })?;
    let mut ring = device.ring(16, 32)?;
    let large = complete(&mut ring, sqe((1 << 20) + 1)?.sqe())?;
    ensure!(large.result() == Err(Errno::EMSGSIZE), "a buffer too large: {large:?}");
    let first = alloc(&mut ring, 1 << 20)?.0;
    alloc(&mut ring, 1 << 20)?;
    ensure!(information(&device, "memory-bytes")? == 2 << 20, "what is charged");
    let full = complete(&mut ring, sqe(4096)?.sqe())?;
    ensure!(full.res == -libc::EDQUOT, "more memory than the context may have: {full:?}");
    succeed(&mut ring, Free::new(first))?;
    until("what was freed is not charged", || Ok(information(&device, "memory-bytes")? == 1 << 20))?;
    alloc(&mut ring, 4096)?;
    alloc(&mut ring, 4096)?;
    let many = complete(&mut ring, sqe(4096)?.sqe())?;
    ensure!(many.result() == Err(Errno::ENFILE), "a buffer too many: {many:?}");
    Ok(())
}

fn placed() -> Result<()> {
    let (_device, mut ring) = device()?;
    let strict = sqe(4 << 20)?.placement(PagePlacement::Strict(0));
    let made = succeed(&mut ring, strict)?;
    let buffer = BufferHandle::from_bits(made.word0).ok_or_else(|| anyhow!("no buffer"))?;
    let found = succeed(&mut ring, Placement::new(buffer, 0))?;
    ensure!((found.word0, found.word1) == (1024, 1024), "{found:?}");
    let nowhere = complete(&mut ring, sqe(4096)?.placement(PagePlacement::Strict(63)))?;
    ensure!(nowhere.result().is_err(), "on a node that is not there: {nowhere:?}");
    Ok(())
}

/// A process in a group that may have 64 MiB: told an errno for more, and given what there is.
fn cgroup() -> Result<()> {
    let root = std::env::temp_dir().join("cgroup");
    std::fs::create_dir_all(&root)?;
    let place = root.to_str().context("the folder's name is text")?;
    command("mount", &["-t", "cgroup2", "cgroup2", place])?;
    let limited = || -> Result<String> {
        std::fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        let group = root.join("limited");
        std::fs::create_dir_all(&group)?;
        std::fs::write(group.join("memory.max"), (64u64 << 20).to_string())?;
        let program = std::env::current_exe()?;
        let role = format!("--child=limited={}", group.join("cgroup.procs").display());
        let said = command(program.to_str().context("the program's name is text")?, &[&role])?;
        // What was charged goes with the process, by and by.
        until("the group is empty", || Ok(std::fs::remove_dir(&group).is_ok()))?;
        Ok(said)
    };
    let said = limited();
    command("umount", &[place])?;
    let said = said?;
    let expected = format!("{0} 0 0 {0} {0} 0", libc::ENOMEM);
    ensure!(said.trim() == expected, "in a group of 64 MiB: {}, not {expected}", said.trim());
    Ok(())
}

/// Enters a group, and says with which errnos 256 MiB, 1 MiB and the runs of a large list are allocated, and then the
/// list and as many contexts as there may be are made. It is not killed for any of that.
pub fn limited(procs: &str) -> Result<()> {
    let group = std::path::Path::new(procs).parent().context("a group has a folder")?;
    let above = group.parent().context("a group has one above it")?;
    // Now, since whoever opens a file in a full group is killed for it, by no doing of the driver's.
    let mut way_out = std::fs::OpenOptions::new().write(true).open(above.join("cgroup.procs"))?;
    std::fs::write(procs, std::process::id().to_string())?;
    let (_device, mut ring) = device()?;
    let pair = crate::peers::pair()?;
    let mut errnos = Vec::new();
    let mut records = None;
    for bytes in [256 << 20, 1 << 20, size_of::<Run>() as u64 * MAX_LIST_SEGMENTS] {
        let cqe = complete(&mut ring, sqe(bytes)?.sqe())?;
        records = BufferHandle::from_bits(cqe.word0);
        errnos.push(cqe.result().err().map_or(0, |errno| errno.raw()).to_string());
    }
    // What the kernel keeps of them is as much again.
    let list = prepare(records.context("no room for the runs")?, MAX_LIST_SEGMENTS)?;
    let cqe = complete(&mut ring, list)?;
    errnos.push(cqe.result().err().map_or(0, |errno| errno.raw()).to_string());
    let contexts: std::io::Result<Vec<_>> = (0..1000).map(|_| Device::open(DeviceSetup::default())).collect();
    errnos.push(contexts.err().and_then(|error| error.raw_os_error()).unwrap_or(0).to_string());
    // What the contexts take is charged to the group all the same, and this program's own memory is not.
    way_out.write_all(std::process::id().to_string().as_bytes())?;
    errnos.push(connected_in_want(pair, &mut ring)?.to_string());
    println!("{}", errnos.join(" "));
    Ok(())
}

/// As many runs as take, as a list, what a message of 2,000 bytes does: between 2 and 4 KiB.
const RUNS_LIKE_A_MESSAGE: u64 = 64;

/// A connection in a group without any room: what its messages come to is told of each, and it holds. The errno that
/// they come to once there is room again.
fn connected_in_want((mut ours, mut theirs): (Side, Side), ring: &mut Ring) -> Result<i32> {
    let mut filling = Vec::new();
    for bytes in [1 << 20, 64 << 10, 4096] {
        loop {
            match complete(ring, sqe(bytes)?.sqe())? {
                made if made.res == 0 => filling.push(BufferHandle::from_bits(made.word0).context("no buffer")?),
                full => {
                    ensure!(full.result() == Err(Errno::ENOMEM), "{bytes} bytes where there is no room: {full:?}");
                    break;
                }
            }
        }
    }
    // Of the allocator's pages for what is as large as a message one may have room, for one message after the other:
    // lists of that size have it, whichever processor's it is.
    write_runs(&ours.scratch.1, &vec![run(ours.scratch.0, 0, 1); RUNS_LIKE_A_MESSAGE as usize])?;
    let (mut lists, mut refusals) = (Vec::new(), 0);
    while refusals < 16 {
        let made = complete(&mut ours.ring, prepare(ours.scratch.0, RUNS_LIKE_A_MESSAGE)?)?;
        match made.result() {
            Ok(_) => lists.push(ListHandle::from_bits(made.word0).context("no list")?),
            Err(Errno::ENOMEM) => refusals += 1,
            other => anyhow::bail!("a list where there is no room: {other:?}"),
        }
    }
    let mut refused = 0;
    for n in 0..64 {
        theirs.push(built(Recv::new(theirs.peer, theirs.scratch.0, 0, 4096))?)?;
        let sent = complete(&mut ours.ring, built(Send::new(ours.peer, ours.scratch.0, 0, 2000))?.user_data(n))?;
        match sent.result() {
            Ok(_) => drop(built(theirs.next()?.result()).context("what was sent")?),
            // It has not gone: the RECV takes the next.
            Err(Errno::ENOMEM) => refused += 1,
            other => anyhow::bail!("a message in want of memory: {other:?}"),
        }
    }
    ensure!(refused > 0, "there was room for every message: nothing was shown");
    for list in lists {
        succeed(&mut ours.ring, ListFree::new(list))?;
    }
    for buffer in filling {
        succeed(ring, Free::new(buffer))?;
    }
    // What was freed is given back by and by.
    theirs.push(built(Recv::new(theirs.peer, theirs.scratch.0, 0, 4096))?)?;
    let mut last = 0;
    until("a message goes once there is room", || {
        let sent = complete(&mut ours.ring, built(Send::new(ours.peer, ours.scratch.0, 0, 2000))?)?;
        last = sent.result().err().map_or(0, |errno| errno.raw());
        Ok(last != libc::ENOMEM)
    })?;
    Ok(last)
}

fn huge() -> Result<()> {
    let device =
        Device::open(DeviceSetup { buffer_bytes: 16 << 30, memory_bytes: 16 << 30, ..DeviceSetup::default() })?;
    let mut ring = device.ring(16, 32)?;
    let asked = sqe(3 << 20)?.huge_pages();
    let made = complete(&mut ring, asked)?;
    ensure!(made.res == 0 && made.word1 == 4 << 20, "{made:?}");
    let buffer = BufferHandle::from_bits(made.word0).context("no buffer")?;
    let mapping = device.map(buffer)?;
    let mut bytes = vec![1; 4 << 20];
    ensure!(mapping.read(0, &mut bytes) && bytes.iter().all(|&byte| byte == 0), "not zeroed");
    for block in [0, 2 << 20] {
        let frames = frames(&mapping, block, 512)?;
        let whole = frames[0] != 0 && frames[0] % 512 == 0 && (0..512).all(|n| frames[n] == frames[0] + n as u64);
        ensure!(whole, "at {block} there is no 2 MiB block but frames {:?}", &frames[..4]);
    }
    // More than there is: an error, and nothing is left.
    let all = sqe(12 << 30)?.huge_pages();
    let none = complete(&mut ring, all)?;
    ensure!(none.result() == Err(Errno::ENOMEM), "{none:?}");
    ensure!(information(&device, "memory-bytes")? == 4 << 20, "something is charged for nothing");
    Ok(())
}

/// What is asked of the page allocator, by its own tracepoint: blocks of 4 MiB first, and only the rest in pages.
fn largest_first() -> Result<()> {
    let folder = crate::observing::tracing()?;
    let (event, trace) = (folder.join("events/kmem/mm_page_alloc"), folder.join("trace"));
    let (_device, mut ring) = device()?;
    std::fs::write(event.join("filter"), "order >= 9")?;
    std::fs::write(&trace, "")?;
    std::fs::write(event.join("enable"), "1")?;
    let made = alloc(&mut ring, (16 << 20) + 4096);
    std::fs::write(event.join("enable"), "0")?;
    std::fs::write(event.join("filter"), "0")?;
    made?;
    let told = std::fs::read_to_string(&trace)?;
    let largest = told.lines().filter(|line| line.contains("order=10 ")).count();
    // One or the other may have been in pieces already.
    ensure!(largest >= 2, "16 MiB were made of {largest} blocks of 4 MiB: {told}");
    Ok(())
}

/// The page frames that lie at some place of a mapping, from /proc/self/pagemap: bits 0 to 54 of a word a page.
fn frames(mapping: &Mapping, at: usize, count: usize) -> Result<Vec<u64>> {
    use std::os::unix::fs::FileExt as _;
    let mut words = vec![0; count * 8];
    let first = (mapping.start().as_ptr() as usize + at) / 4096;
    std::fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut words, first as u64 * 8)?;
    let frame = |word: &[u8; 8]| u64::from_le_bytes(*word) & ((1 << 55) - 1);
    Ok(words.as_chunks::<8>().0.iter().map(frame).collect())
}
