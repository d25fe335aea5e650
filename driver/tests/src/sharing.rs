//! Memory that is shared with others: exports, imports, a process's own; and descriptor slots.

use crate::kit::{WAIT, alloc, complete, device, information, refused, succeed, until};
use crate::peers::{Side, built, pair, pattern};
use crate::{Absent, Test};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Mapping, Ring};
use dmaplane_ring::abi::{BufferHandle, Errno, Rights, SlotHandle};
use dmaplane_ring::build::{
    Alloc, Cancel, ExportDmabuf, Free, LeaseGrant, LeaseRevoke, Placement, Read, Sync, Wait, Write,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("bug_2_a_buffer_is_not_freed_while_a_lease_on_it_is_live", leased),
    ("bug_4_an_export_survives_a_full_descriptor_table", full_table),
    ("buf_7_an_export_shows_the_same_bytes_and_says_how_long_it_is", exported),
    ("buf_7_an_export_outlives_its_context_and_its_process", outlives),
    ("buf_7_a_copy_under_way_has_a_fence", fenced),
    ("buf_7_a_copy_that_goes_on_when_its_memory_is_exported_gets_a_fence", late_export),
    ("buf_3_memory_that_somebody_has_pinned_through_an_export_is_not_recycled", pinned_export),
    ("buf_9_a_dma_buf_that_cannot_be_written_to_is_not_written_to", read_only_import),
    ("buf_9_an_export_of_another_context_is_imported", own_import),
    ("buf_9_a_lease_on_what_the_writer_has_imported_does_not_wait_for_itself", own_fence),
    ("buf_9_a_udmabuf_and_the_system_heap_are_imported", foreign_imports),
    ("buf_9_what_is_no_dma_buf_is_not_imported", no_imports),
    ("buf_9_a_processs_own_memory_is_written_to_by_a_peer", pinned),
    ("buf_9_memory_pinned_for_reading_shows_what_its_process_writes_later", pinned_for_reading),
    ("buf_9_pinned_memory_counts_against_what_may_be_locked", lock_limit),
    ("ctl_7_an_eventfd_in_a_slot_is_waited_for", slots),
];

fn leased() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let (target, _landed) = theirs.buffer(1 << 20)?;
    let (lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, 1 << 20, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    let busy = complete(&mut theirs.ring, Free::new(target))?;
    ensure!(busy.result() == Err(Errno::EBUSY), "{busy:?}");
    let (source, _mapping) = ours.buffer(1 << 20)?;
    succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, 1 << 20))?)?;
    succeed(&mut theirs.ring, Free::new(target).revoke_leases())?;
    let over = complete(&mut ours.ring, built(Write::new(source, 0, import, 0, 1 << 20))?)?;
    ensure!(over.result() == Err(Errno::EKEYREVOKED), "{over:?}");
    // It has ended by itself: its handle stays until its owner has taken it back, once.
    succeed(&mut theirs.ring, LeaseRevoke::now(lease))?;
    let stale = complete(&mut theirs.ring, LeaseRevoke::now(lease))?;
    ensure!(stale.result() == Err(Errno::ESTALE), "a lease that was taken back: {stale:?}");
    Ok(())
}

fn export(ring: &mut Ring, buffer: BufferHandle) -> Result<SlotHandle> {
    SlotHandle::from_bits(succeed(ring, ExportDmabuf::new(buffer))?.word0).context("no slot")
}

fn full_table() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 1 << 20)?;
    let slot = export(&mut ring, buffer)?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let open = std::fs::read_dir("/proc/self/fd")?.count() as u64;
    let mut full = Vec::new();
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(open + 4), maximum: limit.maximum },
    )?;
    while let Ok(copy) = rustix::io::dup(&device) {
        full.push(copy);
    }
    let tried: Vec<_> = (0..3).map(|_| device.take(slot)).collect();
    full.clear();
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    for taken in tried {
        refused(taken, libc::EMFILE, "a descriptor beyond the table's end")?;
    }
    // It is where it was, whole.
    let taken = device.take(slot)?;
    let mapping = Mapping::new(taken.as_fd(), 0, 1 << 20, true)?;
    ensure!(mapping.write(0, b"whole"), "writing");
    refused(device.take(slot), libc::ESTALE, "taking twice")
}

/// DMA_BUF_IOCTL_SYNC, as linux/dma-buf.h has it: the processor reads and writes from here on, or has.
fn dma_buf_sync(fd: &OwnedFd, end: bool) -> Result<()> {
    let flags: u64 = 3 | if end { 4 } else { 0 };
    // SAFETY: the call reads eight bytes.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), 0x4008_6200, &flags) };
    ensure!(result == 0, "DMA_BUF_IOCTL_SYNC: {}", std::io::Error::last_os_error());
    Ok(())
}

fn exported() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, (1 << 20) + 1)?;
    let own = device.map(buffer)?;
    let bytes = pattern(own.length_bytes(), 7);
    ensure!(own.write(0, &bytes), "writing");
    let slots = [export(&mut ring, buffer)?, export(&mut ring, buffer)?];
    let fds = [device.take(slots[0])?, device.take(slots[1])?];
    for fd in &fds {
        ensure!(rustix::fs::seek(fd, rustix::fs::SeekFrom::End(0))? == own.length_bytes() as u64, "its length");
        let mapping = Mapping::new(fd.as_fd(), 0, own.length_bytes(), true)?;
        dma_buf_sync(fd, false)?;
        let mut found = vec![0; bytes.len()];
        ensure!(mapping.read(0, &mut found) && found == bytes, "an export shows other bytes");
        ensure!(mapping.write(5, b"theirs"), "writing");
        dma_buf_sync(fd, true)?;
        succeed(&mut ring, Sync::begin(buffer))?;
        let mut found = [0; 6];
        ensure!(own.read(5, &mut found) && &found == b"theirs", "what an importer wrote is not here");
        succeed(&mut ring, Sync::end(buffer))?;
        ensure!(own.write(0, &bytes), "writing");
    }
    // Too long, private, executable: as any mapping of ours.
    refused(Mapping::new(fds[0].as_fd(), 0, own.length_bytes() + 4096, true), libc::EINVAL, "beyond its end")?;
    // A freed buffer's export keeps the memory, charged.
    drop(own);
    succeed(&mut ring, Free::new(buffer))?;
    ensure!(information(&device, "memory-bytes")? > 0, "it is not charged any more");
    let mapping = Mapping::new(fds[1].as_fd(), 0, 1 << 20, false)?;
    let mut found = vec![0; 1 << 20];
    ensure!(mapping.read(0, &mut found) && found == bytes[..1 << 20], "a freed buffer's export shows other bytes");
    drop((mapping, fds));
    until("what was exported is given back", || Ok(information(&device, "memory-bytes")? == 0))
}

/// A process that exports, says under which number, and waits to be killed.
pub fn exporter() -> Result<()> {
    let (device, mut ring) = device()?;
    let (buffer, _) = alloc(&mut ring, 4 << 20)?;
    ensure!(device.map(buffer)?.write(0, &pattern(4 << 20, 11)), "writing");
    let slot = export(&mut ring, buffer)?;
    let fd = device.take(slot)?;
    println!("{}", fd.as_raw_fd());
    std::io::stdout().flush()?;
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

fn outlives() -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?).arg("--child=exporter").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
    let number: i32 = line.trim().parse().with_context(|| format!("the child said {line:?}"))?;
    let process =
        rustix::process::pidfd_open(rustix::process::Pid::from_child(&child), rustix::process::PidfdFlags::empty())?;
    let fd = rustix::process::pidfd_getfd(&process, number, rustix::process::PidfdGetfdFlags::empty())?;
    let mapping = Mapping::new(fd.as_fd(), 0, 4 << 20, true)?;
    let bytes = pattern(4 << 20, 11);
    let mut found = vec![0; 4 << 20];
    // Read while its exporter is killed, and after.
    let reader = std::thread::scope(|scope| {
        let reading = scope.spawn(|| (0..20).all(|_| mapping.read(0, &mut found) && found == bytes));
        std::thread::sleep(Duration::from_millis(5));
        let killed = child.kill().and_then(|()| child.wait());
        (reading.join(), killed)
    });
    reader.1?;
    ensure!(reader.0.is_ok_and(|right| right), "an export shows other bytes when its exporter goes");
    std::thread::sleep(Duration::from_millis(300));
    ensure!(crate::kit::is_in_use(c"dmaplane"), "the module went under an export");
    let again = Mapping::new(fd.as_fd(), 0, 4 << 20, true)?;
    ensure!(again.write(0, b"still here"), "writing");
    // And as memory of somebody else's context.
    let (device, mut ring) = device()?;
    let (imported, length) = device.import(fd.as_fd())?;
    ensure!(length == 4 << 20, "{length} bytes");
    drop((mapping, again, fd));
    succeed(&mut ring, Free::new(imported))?;
    Ok(())
}

fn fenced() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let length = 8 << 20;
    let (target, _landed) = theirs.buffer(length)?;
    let slot = export(&mut theirs.ring, target)?;
    let fd = theirs.device.take(slot)?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    let (source, _mapping) = ours.buffer(length)?;
    let is_idle = |timeout: i64| -> Result<bool> {
        let within = Timespec { tv_sec: timeout, tv_nsec: 0 };
        Ok(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&within))? > 0)
    };
    ensure!(is_idle(0)?, "a fence without a copy");
    let (mut seen, mut rounds) = (0, 0);
    let start = Instant::now();
    while rounds < 6 || (seen == 0 && start.elapsed() < Duration::from_secs(60)) {
        rounds += 1;
        ours.push(built(Write::new(source, 0, import, 0, length))?)?;
        let mut busy = false;
        while ours.ring.available() == 0 {
            busy |= !is_idle(0)?;
        }
        seen += u32::from(busy);
        built(ours.next()?.result())?;
        ensure!(is_idle(10)?, "a fence of a copy that is over");
    }
    ensure!(seen > 0, "an importer never saw one of {rounds} copies under way");
    Ok(())
}

/// Exported while a copy into it is under way, which began when nobody else had a part in it.
fn late_export() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let length = 32 << 20;
    let (source, mapping) = ours.buffer(length)?;
    ensure!(mapping.write(0, &[1]), "writing");
    let mut seen = false;
    let start = Instant::now();
    while !seen && start.elapsed() < Duration::from_secs(60) {
        let (target, landed) = theirs.buffer(length)?;
        let (_lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::WRITE))?)?;
        let import = ours.import(&token)?;
        ours.push(built(Write::new(source, 0, import, 0, length))?)?;
        let mut first = [0];
        while first == [0] && ours.ring.available() == 0 {
            ensure!(landed.read(0, &mut first), "reading");
        }
        let slot = export(&mut theirs.ring, target)?;
        let fd = theirs.device.take(slot)?;
        while ours.ring.available() == 0 {
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            seen |= poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&at_once))? == 0;
        }
        built(ours.next()?.result())?;
        drop((fd, landed));
        succeed(&mut theirs.ring, Free::new(target).revoke_leases())?;
    }
    ensure!(seen, "an importer never saw the copy that was under way");
    Ok(())
}

/// Pinned by way of a mapping of its export, which is gone: whoever has it would see the next user's bytes.
fn pinned_export() -> Result<()> {
    let (device, mut ring) = device()?;
    let (other, _other_ring) = crate::kit::device()?;
    let recycled = || built(Alloc::new(1 << 20)).map(Alloc::recycled);
    let first = BufferHandle::from_bits(succeed(&mut ring, recycled()?)?.word0).context("no buffer")?;
    let slot = export(&mut ring, first)?;
    let fd = device.take(slot)?;
    let mapping = Mapping::new(fd.as_fd(), 0, 1 << 20, true)?;
    // What is recycled holds what was left in it.
    ensure!(mapping.write(0, &vec![7; 1 << 20]), "writing");
    // SAFETY: nothing here takes the memory for its own.
    let _pinned = unsafe { other.pin(mapping.start(), 1 << 20, false) }?;
    drop((mapping, fd));
    // The file goes by a task's own work.
    std::thread::sleep(Duration::from_millis(50));
    succeed(&mut ring, Free::new(first))?;
    let again = BufferHandle::from_bits(succeed(&mut ring, recycled()?)?.word0).context("no buffer")?;
    let mut bytes = vec![1; 1 << 20];
    ensure!(device.map(again)?.read(0, &mut bytes), "reading");
    ensure!(bytes.iter().all(|&byte| byte == 0), "memory that somebody has pinned was given out again");
    until("it is not kept", || Ok(information(&device, "memory-bytes")? == 1 << 20))
}

fn read_only_import() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let fd = heap(1 << 20, libc::O_RDONLY)?;
    refused(Mapping::new(fd.as_fd(), 0, 1 << 20, true), libc::EACCES, "mapping it for writing")?;
    let (imported, length) = theirs.device.import(fd.as_fd())?;
    refused(theirs.device.map(imported), libc::EACCES, "the same by the driver")?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(imported, 0, length, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    let (source, _) = alloc(&mut ours.ring, length)?;
    for bytes in [4096, length] {
        let landed = complete(&mut ours.ring, built(Write::new(source, 0, import, 0, bytes))?)?;
        ensure!(landed.result() == Err(Errno::EACCES), "writing to it: {landed:?}");
    }
    Ok(())
}

/// Writes into an import as a peer, and reads what landed through `look`.
fn write_into_import(theirs: &mut Side, ours: &mut Side, fd: &OwnedFd, look: &Mapping) -> Result<()> {
    let (imported, length) = theirs.device.import(fd.as_fd())?;
    ensure!(length as usize == look.length_bytes(), "{length} bytes");
    let (_lease, token) =
        theirs.grant(built(LeaseGrant::range(imported, 0, length, Rights::WRITE.with(Rights::READ)))?)?;
    let import = ours.import(&token)?;
    let (source, mapping) = ours.buffer(length)?;
    let bytes = pattern(length as usize, length ^ 0x55);
    ensure!(mapping.write(0, &bytes), "writing");
    for part in [4096, length] {
        succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, part))?)?;
        dma_buf_sync(fd, false)?;
        let mut found = vec![0; part as usize];
        ensure!(look.read(0, &mut found) && found == bytes[..part as usize], "others have landed");
        dma_buf_sync(fd, true)?;
    }
    succeed(&mut theirs.ring, Sync::begin(imported))?;
    succeed(&mut theirs.ring, Sync::end(imported))?;
    // Through our own context, too.
    let through = theirs.device.map(imported)?;
    let mut found = vec![0; length as usize];
    ensure!(through.read(0, &mut found) && found == bytes, "its mapping shows other bytes");
    drop(through);
    let found = succeed(&mut theirs.ring, Placement::new(imported, 0))?;
    ensure!((found.word0, found.word1) == (0, 0), "{found:?}");
    let again = complete(&mut theirs.ring, ExportDmabuf::new(imported))?;
    ensure!(again.result() == Err(Errno::EOPNOTSUPP), "{again:?}");
    // Whose memory it is wants to be told of who looks, and may sleep then: no word there is waited for.
    let word = complete(&mut theirs.ring, Wait::on_word(imported, 0, 0))?;
    ensure!(word.result() == Err(Errno::EOPNOTSUPP), "a word of an import: {word:?}");
    succeed(&mut theirs.ring, Free::new(imported).revoke_leases())?;
    Ok(())
}

fn own_import() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let (third, mut third_ring) = device()?;
    let (buffer, _) = alloc(&mut third_ring, 1 << 20)?;
    let mapping = third.map(buffer)?;
    let slot = export(&mut third_ring, buffer)?;
    let fd = third.take(slot)?;
    write_into_import(&mut theirs, &mut ours, &fd, &mapping)
}

/// The granter exports a buffer and leases a range of it; the peer imports the export, and writes from it and reads
/// into it. The copy's own fence is on both sides: who waited for it would wait for ever.
fn own_fence() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let length = 1 << 20;
    let (shared, mapping) = theirs.buffer(length)?;
    let bytes = pattern(length as usize, 17);
    ensure!(mapping.write(0, &bytes), "writing");
    let slot = export(&mut theirs.ring, shared)?;
    let fd = theirs.device.take(slot)?;
    let both = Rights::WRITE.with(Rights::READ);
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(shared, 0, length, both))?)?;
    let import = ours.import(&token)?;
    let (imported, _) = ours.device.import(fd.as_fd())?;
    let half = length / 2;
    for bytes in [4096, half] {
        succeed(&mut ours.ring, built(Write::new(imported, 0, import, half, bytes))?)?;
        succeed(&mut ours.ring, built(Read::new(imported, 0, import, half, bytes))?)?;
    }
    let mut found = vec![0; half as usize];
    ensure!(mapping.read(half as usize, &mut found) && found == bytes[..half as usize], "others have landed");
    Ok(())
}

/// A udmabuf over a sealed memfd: UDMABUF_CREATE of linux/udmabuf.h.
fn udmabuf(bytes: u64) -> Result<OwnedFd> {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/udmabuf");
    let device = device.map_err(|error| Absent(format!("/dev/udmabuf: {error}")))?;
    let memfd = rustix::fs::memfd_create("udmabuf", rustix::fs::MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memfd, bytes)?;
    rustix::fs::fcntl_add_seals(&memfd, rustix::fs::SealFlags::SHRINK)?;
    #[repr(C)]
    struct Create {
        memfd: u32,
        flags: u32,
        offset: u64,
        size: u64,
    }
    let create = Create { memfd: memfd.as_raw_fd() as u32, flags: 1, offset: 0, size: bytes };
    // SAFETY: the call reads the structure.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), 0x4018_7542, &create) };
    ensure!(fd >= 0, "UDMABUF_CREATE: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A dma-buf of the system heap: DMA_HEAP_IOCTL_ALLOC of linux/dma-heap.h.
fn heap(bytes: u64, access: i32) -> Result<OwnedFd> {
    let device = std::fs::OpenOptions::new().read(true).open("/dev/dma_heap/system");
    let device = device.map_err(|error| Absent(format!("/dev/dma_heap/system: {error}")))?;
    #[repr(C)]
    struct Allocate {
        length: u64,
        fd: u32,
        fd_flags: u32,
        heap_flags: u64,
    }
    let flags = (access | libc::O_CLOEXEC) as u32;
    let mut allocate = Allocate { length: bytes, fd: 0, fd_flags: flags, heap_flags: 0 };
    // SAFETY: the call reads and writes the structure.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), 0xc018_4800, &mut allocate) };
    ensure!(result >= 0, "DMA_HEAP_IOCTL_ALLOC: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(allocate.fd as i32) })
}

fn foreign_imports() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    for fd in [udmabuf(1 << 20)?, heap(1 << 20, libc::O_RDWR)?] {
        let mapping = Mapping::new(fd.as_fd(), 0, 1 << 20, true)?;
        write_into_import(&mut theirs, &mut ours, &fd, &mapping)?;
    }
    Ok(())
}

fn no_imports() -> Result<()> {
    let (device, ring) = device()?;
    let memfd = rustix::fs::memfd_create("memfd", rustix::fs::MemfdFlags::ALLOW_SEALING)?;
    refused(device.import(memfd.as_fd()), libc::EINVAL, "a memfd")?;
    refused(device.import(ring.as_fd()), libc::EINVAL, "a ring")?;
    ensure!(information(&device, "buffers")? == 0, "a buffer is left");
    Ok(())
}

/// Memory of this process, page-aligned.
struct Own {
    start: std::ptr::NonNull<u8>,
    length: usize,
}

impl Own {
    fn new(length: usize) -> Result<Own> {
        let both = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: a fresh mapping.
        let start =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, both, rustix::mm::MapFlags::PRIVATE) }?;
        Ok(Own { start: std::ptr::NonNull::new(start.cast()).context("no memory")?, length })
    }

    fn bytes(&self) -> Vec<u8> {
        // SAFETY: within the mapping; others may write to it, which the copy does not mind.
        (0..self.length).map(|at| unsafe { self.start.as_ptr().add(at).read_volatile() }).collect()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: our mapping, whose pages whoever has pinned them keeps.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn pinned_kilobytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmPin:")).context("no VmPin")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn pinned() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let own = Own::new(1 << 20)?;
    let before = pinned_kilobytes()?;
    // Not from a page's beginning, nor to one's end.
    // SAFETY: within the mapping; it is read by volatile reads only.
    let (start, length) = (unsafe { own.start.add(40) }, (1 << 20) - 100);
    // SAFETY: as above.
    let buffer = unsafe { theirs.device.pin(start, length, false) }?;
    ensure!(pinned_kilobytes()? == before + 1024, "{} kB are pinned, {before} before", pinned_kilobytes()?);
    let length = length as u64;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(buffer, 0, length, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    let (source, mapping) = ours.buffer(1 << 20)?;
    let bytes = pattern(length as usize, 13);
    ensure!(mapping.write(0, &bytes), "writing");
    for part in [100, length] {
        succeed(&mut ours.ring, built(Write::new(source, 0, import, 0, part))?)?;
        let found = own.bytes();
        ensure!(found[40..][..part as usize] == bytes[..part as usize], "others have landed");
        ensure!(found[..40].iter().chain(&found[40 + length as usize..]).all(|&byte| byte == 0), "beside it");
    }
    refused(theirs.device.map(buffer), libc::EOPNOTSUPP, "mapping what is mapped")?;
    succeed(&mut theirs.ring, Free::new(buffer).revoke_leases())?;
    until("nothing is pinned any more", || Ok(pinned_kilobytes()? == before))?;
    // Read-only memory takes nothing in.
    // SAFETY: as above.
    let constant = unsafe { theirs.device.pin(own.start, 1 << 20, true) }?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(constant, 0, 1 << 20, Rights::WRITE))?)?;
    let import = ours.import(&token)?;
    for length in [8192, 1 << 20] {
        let landed = complete(&mut ours.ring, built(Write::new(source, 0, import, 0, length))?)?;
        ensure!(landed.result() == Err(Errno::EACCES), "writing to read-only memory: {landed:?}");
    }
    for (address, length) in [(4, 4096), (8, 0)] {
        // SAFETY: within the mapping.
        let start = unsafe { own.start.add(address) };
        // SAFETY: as above.
        refused(unsafe { theirs.device.pin(start, length, false) }, libc::EINVAL, "an odd range")?;
    }
    let nowhere = std::ptr::NonNull::new(0x1000 as *mut u8).context("an address")?;
    // SAFETY: nothing is there.
    refused(unsafe { theirs.device.pin(nowhere, 4096, false) }, libc::EFAULT, "memory that is not there")?;
    Ok(())
}

/// Pages that were not there, or were the page of zeros, when they were pinned.
fn pinned_for_reading() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let length = 64 << 10;
    let own = Own::new(length as usize)?;
    // SAFETY: the memory is written to by volatile writes, and read by nobody here.
    let buffer = unsafe { theirs.device.pin(own.start, length as usize, true) }?;
    let bytes = pattern(length as usize, 19);
    for (at, byte) in bytes.iter().enumerate() {
        // SAFETY: within the mapping, which is this function's own.
        unsafe { own.start.as_ptr().add(at).write_volatile(*byte) };
    }
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(buffer, 0, length, Rights::READ))?)?;
    let import = ours.import(&token)?;
    let (target, mapping) = ours.buffer(length)?;
    succeed(&mut ours.ring, built(Read::new(target, 0, import, 0, length))?)?;
    let mut found = vec![0; length as usize];
    ensure!(mapping.read(0, &mut found) && found == bytes, "a peer reads what was there when it was pinned");
    Ok(())
}

/// Without the right to lock memory, with little that may be: says with which errno pinning fails.
pub fn pinner(fd: OwnedFd) -> Result<()> {
    let device = Device::set_up(fd, Default::default())?;
    let own = Own::new(1 << 20)?;
    rustix::process::setrlimit(
        rustix::process::Resource::Memlock,
        rustix::process::Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) },
    )?;
    // SAFETY: nothing else uses the memory.
    let too_much = unsafe { device.pin(own.start, 1 << 20, false) };
    // SAFETY: as above.
    let enough = unsafe { device.pin(own.start, 64 << 10, false) };
    // SAFETY: as above.
    let more = unsafe { device.pin(own.start, 4096, false) };
    let errno = |result: &std::io::Result<BufferHandle>| match result {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    };
    println!("{} {} {}", errno(&too_much), errno(&enough), errno(&more));
    Ok(())
}

fn lock_limit() -> Result<()> {
    let said = crate::peers::as_nobody("pinner")?;
    ensure!(said.trim() == format!("{} 0 {}", libc::ENOMEM, libc::ENOMEM), "pinning said {said:?}");
    Ok(())
}

fn slots() -> Result<()> {
    let (device, mut ring) = device()?;
    let blocking = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty())?;
    refused(device.put(blocking.as_fd()), libc::EINVAL, "an eventfd that blocks")?;
    let pipe = rustix::pipe::pipe()?;
    refused(device.put(pipe.0.as_fd()), libc::EINVAL, "a pipe")?;
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let slot = device.put(eventfd.as_fd())?;
    let write = |count: u64| rustix::io::write(&eventfd, &count.to_ne_bytes());
    for round in 1..100u64 {
        let before = round % 2 == 0;
        if before {
            write(round)?;
        }
        ensure!(ring.push(Wait::on_slot(slot).user_data(round)).is_ok(), "the ring is full");
        ring.enter(0, WAIT)?;
        if !before {
            ensure!(ring.reap_one().is_none(), "round {round}: it ended without a count");
            refused(device.take(slot), libc::EBUSY, "taking a slot that is waited for")?;
            write(round)?;
        }
        ring.enter(1, WAIT)?;
        let cqe = ring.reap_one().context("no completion")?;
        ensure!((cqe.user_data, cqe.res, cqe.word0) == (round, 0, round), "{cqe:?}");
    }
    // One that is cancelled leaves the count to the next.
    ensure!(ring.push(Wait::on_slot(slot).user_data(1)).is_ok(), "the ring is full");
    ring.enter(0, WAIT)?;
    ensure!(ring.push(Cancel::by_user_data(1).user_data(2)).is_ok(), "the ring is full");
    ring.enter(2, WAIT)?;
    let mut both = Vec::new();
    ring.reap(2, |cqe| both.push((cqe.user_data, cqe.res)));
    both.sort_unstable();
    ensure!(both == [(1, -libc::ECANCELED), (2, 1)], "a wait and its cancel came to {both:?}");
    write(5)?;
    let cqe = succeed(&mut ring, Wait::on_slot(slot).user_data(3))?;
    ensure!(cqe.word0 == 5, "{cqe:?}");
    let taken = device.take(slot)?;
    write(9)?;
    let mut count = [0; 8];
    rustix::io::read(&taken, &mut count)?;
    ensure!(u64::from_ne_bytes(count) == 9, "another descriptor was taken out");
    // A context that goes while it waits.
    let slot = device.put(eventfd.as_fd())?;
    for n in 0..8 {
        ensure!(ring.push(Wait::on_slot(slot).user_data(n)).is_ok(), "the ring is full");
    }
    ring.enter(0, WAIT)?;
    Ok(())
}
