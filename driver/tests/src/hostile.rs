//! A hostile client (clauses SEC-1 to SEC-3, RING-6, RING-7): one thread writes random values into every word that it
//! can reach, others submit, enter, call, map, unmap, fork and pass descriptors with random arguments. The kernel has
//! nothing to say, nothing hangs, and an honest neighbour makes progress throughout.

use crate::Test;
use crate::descriptors;
use crate::kit::{WAIT, alloc, complete, device, slow, succeed};
use crate::lists::{run, write_runs};
use crate::peers::pattern;
use crate::random::Random;
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Mapping};
use dmaplane_ring::abi::device::{
    DEVICE_CLOSE, DEVICE_ENTER, DEVICE_EVENTFD, DEVICE_IMPORT, DEVICE_LISTEN, DEVICE_MAP, DEVICE_PIN, DEVICE_RING,
    DEVICE_SETUP, DEVICE_SLOT, DEVICE_TAKE, DeviceSetup, setup_flags,
};
use dmaplane_ring::abi::{
    BufferHandle, ClientArea, Cqe, EngineArea, ImportHandle, LeaseHandle, ListHandle, ListenerHandle, Opcode,
    PeerHandle, QueryWhat, Rights, RingLayout, SlotHandle, Sqe,
};
use dmaplane_ring::build::{
    Accept, Alloc, Cancel, Connect, CreditGrant, CreditWatermarks, Disconnect, ExportDmabuf, Free, ImportRelease,
    LeaseExport, LeaseGrant, LeaseImport, LeaseRenew, LeaseRevoke, LinkTimeout, ListFree, ListPrepare, Nop, Placement,
    Query, Read, ReadList, Recv, Send, Sync, Timeout, Wait, Write, WriteImm, WriteList,
};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("sec_1_a_hostile_client_costs_nobody_else_anything", hostile)];

const SQ_ENTRIES: u32 = 64;
const CQ_ENTRIES: u32 = 128;

/// How long: DMAPLANE_HOSTILE_SECONDS, or what is quick.
fn lasting() -> Duration {
    let asked = std::env::var("DMAPLANE_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(if slow() { 20 } else { 10 }))
}

fn hostile() -> Result<()> {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    println!("  seed {seed}, {:?}", lasting());
    let mut random = Random::new(seed);
    let (device, mut ring) = device()?;
    let end = Instant::now() + lasting();
    let (mut rounds, mut lives, mut most) = (0u64, 0u64, 0);
    let (mut slowest, mut slowest_steps) = (Duration::ZERO, Vec::new());
    while Instant::now() < end {
        let enemy = spawn(random.next())?;
        lives += 1;
        let life = Duration::from_millis(500 + random.below(2500)) * if slow() { 4 } else { 1 };
        let life = Instant::now() + life;
        // The honest neighbour.
        while Instant::now() < life {
            let start = Instant::now();
            let mut steps = Vec::new();
            let (buffer, length) = alloc(&mut ring, 1 << 18)?;
            steps.push(("alloc", start.elapsed()));
            let mapping = device.map(buffer)?;
            steps.push(("map", start.elapsed()));
            let bytes = pattern(length as usize, rounds);
            ensure!(mapping.write(0, &bytes), "writing");
            steps.push(("write", start.elapsed()));
            for n in 0..32 {
                ensure!(ring.push(Nop::new().user_data(n)).is_ok(), "the ring is full");
            }
            ensure!(ring.enter(32, WAIT)? == 32, "no-ops of the neighbour's are missing");
            steps.push(("no-ops", start.elapsed()));
            let mut next = 0;
            let mut right = true;
            ring.reap(u32::MAX, |cqe| {
                right &= cqe.user_data == next && cqe.res == 0;
                next += 1;
            });
            ensure!(right, "the neighbour's completions are somebody else's");
            let mut found = vec![0; bytes.len()];
            ensure!(mapping.read(0, &mut found) && found == bytes, "the neighbour's memory was written to");
            steps.push(("read", start.elapsed()));
            succeed(&mut ring, Free::new(buffer))?;
            steps.push(("free", start.elapsed()));
            rounds += 1;
            if start.elapsed() > slowest {
                (slowest, slowest_steps) = (start.elapsed(), steps);
            }
        }
        most = most.max(crate::kit::held()?);
        // SAFETY: our own child.
        unsafe { libc::kill(enemy, libc::SIGKILL) };
        let start = Instant::now();
        // SAFETY: as above.
        unsafe { libc::waitpid(enemy, std::ptr::null_mut(), 0) };
        ensure!(start.elapsed() < Duration::from_secs(10), "the enemy took {:?} to go", start.elapsed());
    }
    println!("  {lives} enemies, at most {most} objects; {rounds} rounds of the neighbour, the slowest {slowest:?}");
    println!("  steps of the slowest, each since its beginning: {slowest_steps:?}");
    ensure!(most > 30, "the enemies got nothing done");
    ensure!(rounds > lives * 2 && slowest < Duration::from_secs(10), "the neighbour made no progress");
    let last = complete(&mut ring, Nop::new())?;
    ensure!(last.res == 0, "{last:?}");
    Ok(())
}

fn spawn(seed: u64) -> Result<libc::pid_t> {
    // SAFETY: this program has one thread here, so that the child may do anything.
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let ended = attack(seed);
        println!("  the enemy gave up: {ended:?}");
        // SAFETY: leaves at once.
        unsafe { libc::_exit(0) };
    }
    Ok(child)
}

/// Handles that the engine has given out, and what looks like one.
struct Loot(Vec<u64>);

impl Loot {
    fn any(&self, random: &mut Random) -> u64 {
        match random.below(4) {
            0 => random.next(),
            1 => random.below(16),
            _ if self.0.is_empty() => random.below(1 << 40),
            _ => self.0[random.below(self.0.len() as u64) as usize],
        }
    }
}

impl Loot {
    /// One of a kind.
    fn one<T>(&self, random: &mut Random, of: impl Fn(u64) -> Option<T>) -> Option<T> {
        (0..24).find_map(|_| of(self.0[random.below(self.0.len() as u64) as usize]))
    }
}

fn attack(seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let flags = if random.below(3) == 0 { setup_flags::POLLER } else { 0 };
    let setup = DeviceSetup { flags, memory_bytes: 64 << 20, operations: 1024, ..DeviceSetup::default() };
    let device = Arc::new(Device::open(setup)?);
    let ring = device.ring(SQ_ENTRIES, CQ_ENTRIES)?;
    let layout = RingLayout::new(SQ_ENTRIES, CQ_ENTRIES).context("the ring's sizes")?;
    let area_bytes = layout.client_bytes();
    let engine_area = Mapping::new(ring.as_fd(), area_bytes as u64, layout.engine_bytes(), false)?;
    let fds: Vec<i32> = [device.as_fd().as_raw_fd(), ring.as_fd().as_raw_fd()].to_vec();
    let (give, take): (SyncSender<u64>, Receiver<u64>) = sync_channel(64);

    let way = accomplice(random.next())?;

    // Random words everywhere.
    let scribbles = Arc::new(Mapping::new(ring.as_fd(), 0, area_bytes, true)?);
    let (words, words_seed) = (scribbles.clone(), random.next());
    std::thread::spawn(move || {
        let mut random = Random::new(words_seed);
        loop {
            let place = random.below(words.length_bytes() as u64 / 4) as usize * 4;
            let value = if random.below(2) == 0 { random.next() as u32 } else { random.below(200) as u32 };
            words.write(place, &value.to_ne_bytes());
            // Now and then the others get a word in.
            if random.below(16) == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    // Calls with random arguments, forks, mappings.
    let calls_seed = random.next();
    let (calling, calling_fds) = (device.clone(), fds.clone());
    std::thread::spawn(move || {
        let mut random = Random::new(calls_seed);
        loop {
            let _ = call(&calling, &calling_fds, &mut random, &give, way.as_fd());
        }
    });
    // Itself as a peer, and a buffer with the address.
    let address = format!("local:enemy-{}", std::process::id());
    let mut loot = Loot(vec![device.listen(&address)?.handle().bits()]);
    // SQEs in the right places, so that they are taken: likely ones, spoilt ones, random ones.
    loop {
        // From where the engine says that it is, whatever was scribbled meanwhile.
        let mut taken = [0; 4];
        engine_area.read(EngineArea::SQ_HEAD, &mut taken);
        let mut tail = u32::from_ne_bytes(taken);
        loot.0.extend(take.try_iter());
        for _ in 0..8 {
            let mut cqe = [0; size_of::<Cqe>()];
            let at = EngineArea::ENTRIES + random.below(CQ_ENTRIES.into()) as usize * size_of::<Cqe>();
            engine_area.read(at, &mut cqe);
            let word = |at: usize| u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| cqe[at + byte]));
            // What has succeeded has given something out.
            if word(8) as i32 == 0 && word(16) != 0 {
                loot.0.push(word(16));
            }
        }
        if loot.0.len() > 512 {
            loot.0.drain(1..256);
        }
        // A list's runs now and then, at the beginning of a buffer: some of them are such as may be.
        if random.below(8) == 0
            && let Some(buffer) = loot.one(&mut random, BufferHandle::from_bits)
            && let Ok(mapping) = device.map(buffer)
        {
            let from = random.below(4) * 4096;
            let runs: Vec<_> = (0..4).map(|_| run(buffer, from, 1 + random.below(2) as u32)).collect();
            let _ = write_runs(&mapping, &runs);
        }
        for _ in 0..=random.below(16) {
            let sqe = match random.below(4) {
                0 => random_sqe(&mut random, &loot),
                _ => plausible_sqe(&mut random, &loot, &address).unwrap_or_default(),
            };
            let place = ClientArea::ENTRIES + (tail % SQ_ENTRIES) as usize * size_of::<Sqe>();
            for (word, value) in sqe.to_words().into_iter().enumerate() {
                scribbles.write(place + word * 8, &value.to_ne_bytes());
            }
            tail = tail.wrapping_add(1);
        }
        scribbles.write(ClientArea::SQ_TAIL, &tail.to_ne_bytes());
        if random.below(2) == 0 {
            // All that is there has been seen, or so it says.
            let mut head = [0; 4];
            engine_area.read(EngineArea::CQ_TAIL, &mut head);
            scribbles.write(ClientArea::CQ_HEAD, &head);
        }
        let mut arguments = [random.below(8), random.below(2_000_000), 0, 0];
        // SAFETY: the call may fail or not; its argument is ours.
        unsafe { libc::ioctl(fds[1], DEVICE_ENTER.into(), arguments.as_mut_ptr()) };
    }
}

/// Another process, which is handed descriptors: it calls and maps with them as with its own.
fn accomplice(seed: u64) -> Result<OwnedFd> {
    let (ours, theirs) = descriptors::way()?;
    // SAFETY: this program has one thread here, so that the child may do anything.
    let child = unsafe { libc::fork() };
    ensure!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child > 0 {
        return Ok(ours);
    }
    // SAFETY: of this process alone; it goes when its parent does.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    drop(ours);
    let mut random = Random::new(seed);
    let mut held = std::collections::VecDeque::new();
    while let Ok(fd) = descriptors::receive(theirs.as_fd()) {
        for number in [DEVICE_MAP, DEVICE_ENTER, DEVICE_RING, DEVICE_TAKE] {
            let mut arguments = [0u64; 16];
            arguments[0] = if random.below(2) == 0 { random.below(64) } else { 0 };
            // SAFETY: as in `call`.
            let made = unsafe { libc::ioctl(fd.as_raw_fd(), number.into(), arguments.as_mut_ptr()) };
            if made > 2 && matches!(number, DEVICE_RING | DEVICE_TAKE) {
                // SAFETY: the call has just made it.
                unsafe { libc::close(made) };
            }
        }
        let mapping = Mapping::new(fd.as_fd(), 0, 4096, random.below(2) == 0);
        if let Ok(mapping) = &mapping {
            mapping.write(random.below(4088) as usize, &random.next().to_ne_bytes());
        }
        held.push_back((fd, mapping));
        if held.len() > 8 {
            held.pop_front();
        }
    }
    // SAFETY: leaves at once.
    unsafe { libc::_exit(0) }
}

/// An SQE that may well succeed, with handles that the engine has given out; now and then one field of it is spoilt.
fn plausible_sqe(random: &mut Random, loot: &Loot, address: &str) -> Option<Sqe> {
    let length = 1 + random.below(1 << 18);
    let buffer = loot.one(random, BufferHandle::from_bits);
    let import = loot.one(random, ImportHandle::from_bits);
    let list = loot.one(random, ListHandle::from_bits);
    let mut sqe = match random.below(34) {
        0..=2 => Alloc::new(length).ok()?.sqe(),
        3 => Alloc::new(length).ok()?.recycled().sqe(),
        4 => Free::new(buffer?).revoke_leases().sqe(),
        5 => ExportDmabuf::new(buffer?).sqe(),
        6 => Sync::begin(buffer?).sqe(),
        7 => Placement::new(buffer?, random.below(2) as u32).sqe(),
        8 => LeaseGrant::range(buffer?, 0, 4096, Rights::READ.with(Rights::WRITE)).ok()?.sqe(),
        9 => LeaseRevoke::now(loot.one(random, LeaseHandle::from_bits)?).sqe(),
        10 => LeaseExport::new(loot.one(random, LeaseHandle::from_bits)?, buffer?, 0).sqe(),
        11 => LeaseImport::new(buffer?, 0, 200 + random.below(100)).ok()?.sqe(),
        12 => Connect::new(buffer?, 0, address.len() as u64).ok()?.sqe(),
        13 => Accept::new(loot.one(random, ListenerHandle::from_bits)?).sqe(),
        14 => Write::new(buffer?, 0, import?, 0, 4096).ok()?.sqe(),
        15 => Read::new(buffer?, 0, import?, 0, 4096).ok()?.sqe(),
        16 => Send::new(loot.one(random, PeerHandle::from_bits)?, buffer?, 0, 64).ok()?.sqe(),
        17 => Recv::new(loot.one(random, PeerHandle::from_bits)?, buffer?, 0, 4096).ok()?.sqe(),
        18 => CreditGrant::new(loot.one(random, PeerHandle::from_bits)?, 3).sqe(),
        19 => Wait::on_slot(loot.one(random, SlotHandle::from_bits)?).sqe(),
        20 => ListPrepare::new(buffer?, 0, 1 + random.below(4)).ok()?.sqe(),
        21 => WriteImm::new(buffer?, 0, import?, 0, 100).ok()?.sqe(),
        22 => WriteList::new(list?, import?, buffer?, 0, 1 + random.below(4)).ok()?.sqe(),
        23 => ReadList::new(list?, import?, buffer?, 0, 1 + random.below(4)).ok()?.sqe(),
        24 => LeaseGrant::list(list?, Rights::READ.with(Rights::WRITE)).sqe(),
        25 => LeaseRenew::new(loot.one(random, LeaseHandle::from_bits)?, random.below(1 << 30)).sqe(),
        26 => ListFree::new(list?).sqe(),
        27 => Disconnect::new(loot.one(random, PeerHandle::from_bits)?).sqe(),
        28 => ImportRelease::new(import?).sqe(),
        29 => CreditWatermarks::new(loot.one(random, PeerHandle::from_bits)?, 3, 1).ok()?.sqe(),
        30 => Timeout::after_ns(random.below(1 << 22)).link().sqe(),
        31 => LinkTimeout::after_ns(random.below(1 << 22)).sqe(),
        32 => Query::new(QueryWhat::Refused).sqe(),
        _ => Cancel::any().sqe(),
    };
    sqe.user_data = random.next();
    if random.below(4) == 0 {
        let spoilt = random_sqe(random, loot);
        match random.below(5) {
            0 => sqe.local = spoilt.local,
            1 => sqe.length = spoilt.length,
            2 => sqe.local_offset = spoilt.local_offset,
            3 => sqe.remote = spoilt.remote,
            _ => sqe.flags = spoilt.flags,
        }
    }
    Some(sqe)
}

fn random_sqe(random: &mut Random, loot: &Loot) -> Sqe {
    let length = match random.below(4) {
        0 => random.next(),
        1 => random.below(1 << 33),
        _ => random.below(1 << 21),
    };
    Sqe {
        opcode: if random.below(16) == 0 { random.next() as u8 } else { random.pick(Opcode::ALL) as u8 },
        flags: if random.below(3) == 0 { random.next() as u8 } else { 0 },
        op_flags: if random.below(2) == 0 { 0 } else { random.below(32) as u16 },
        arg32: random.below(300) as u32,
        local_offset: if random.below(2) == 0 { 0 } else { random.below(1 << 22) & !7 },
        local: loot.any(random),
        length,
        user_data: random.next(),
        remote: loot.any(random),
        remote_offset: if random.below(2) == 0 { loot.any(random) } else { 0 },
        arg64: if random.below(2) == 0 { 0 } else { random.below(1 << 30) },
    }
}

fn call(device: &Device, fds: &[i32], random: &mut Random, give: &SyncSender<u64>, way: BorrowedFd<'_>) -> Result<()> {
    match random.below(13) {
        0..=4 => {
            let numbers = [
                DEVICE_SETUP,
                DEVICE_RING,
                DEVICE_MAP,
                DEVICE_LISTEN,
                DEVICE_IMPORT,
                DEVICE_PIN,
                DEVICE_SLOT,
                DEVICE_TAKE,
                DEVICE_EVENTFD,
                DEVICE_ENTER,
            ];
            let mut arguments = [0u64; 16];
            for argument in &mut arguments {
                *argument = match random.below(4) {
                    0 => random.next(),
                    1 => random.below(64),
                    _ => 0,
                };
            }
            let number = random.pick(&numbers);
            // SAFETY: the structure is longer than any call's, and memory that the calls name is none of ours that
            // matters: an address that they would write to is only ever the argument's own.
            let result = unsafe { libc::ioctl(random.pick(fds), number.into(), arguments.as_mut_ptr()) };
            if result >= 0 {
                for &word in &arguments {
                    let _ = give.try_send(word);
                }
                // A descriptor perhaps: not one of those that are in use.
                if result > 20 && matches!(number, DEVICE_RING | DEVICE_TAKE) {
                    // SAFETY: the call has just made it.
                    unsafe { libc::close(result) };
                }
            }
        }
        5 => {
            let page = if random.below(2) == 0 { 0 } else { random.below(64) };
            let offset = random.below(512) << 36 | page << 12;
            if let Ok(mapping) = Mapping::new(device.as_fd(), offset, 4096, true) {
                if random.below(2) == 0 {
                    mapping.write(random.below(4088) as usize, &random.next().to_ne_bytes());
                } else {
                    mapping.write(0, format!("local:enemy-{}", std::process::id()).as_bytes());
                }
                if random.below(4) == 0 {
                    std::mem::forget(mapping);
                }
            }
        }
        6 => {
            // SAFETY: the child makes system calls alone and leaves.
            unsafe {
                if libc::fork() == 0 {
                    let mut arguments = [0u64; 8];
                    libc::ioctl(fds[1], DEVICE_ENTER.into(), arguments.as_mut_ptr());
                    libc::usleep(random.below(20_000) as u32);
                    libc::_exit(0);
                }
                // Those that have gone.
                while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
            }
        }
        7 => {
            let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
            let slot = device.put(eventfd.as_fd())?;
            give.try_send(slot.handle().bits()).context("full")?;
            rustix::io::write(&eventfd, &random.next().to_ne_bytes())?;
        }
        8 => {
            let copy = rustix::io::dup(device)?;
            drop(copy);
            if random.below(5000) == 0 {
                let mut arguments = [0u64; 2];
                // SAFETY: as above.
                unsafe { libc::ioctl(fds[0], DEVICE_CLOSE.into(), arguments.as_mut_ptr()) };
            }
        }
        9 => {
            // SAFETY: one of ours, open as long as the program runs.
            let fd = unsafe { BorrowedFd::borrow_raw(random.pick(fds)) };
            descriptors::send(way, fd)?;
        }
        10 => {
            static PINNED: [u64; 8192] = [0; 8192];
            let from = random.below(8192 * 8) & !7;
            let start = std::ptr::NonNull::from(&PINNED).cast::<u8>();
            // SAFETY: nobody reads it, and a write to it is refused: it cannot be written to.
            let pinned =
                unsafe { device.pin(start.add(from as usize), 1 + random.below(8192 * 8 - from) as usize, true) }?;
            give.try_send(pinned.handle().bits()).context("full")?;
        }
        11 => {
            let listener = device.listen(&format!("local:enemy-{}-{}", std::process::id(), random.below(8)))?;
            give.try_send(listener.handle().bits()).context("full")?;
        }
        _ => {
            let _ = device.information();
        }
    }
    Ok(())
}
