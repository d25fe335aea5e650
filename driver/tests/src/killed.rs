//! A program that uses every operation, from four threads and two processes, forks and passes descriptors, is killed at
//! random moments. Afterwards nothing of it is left.

use crate::Test;
use crate::descriptors;
use crate::importers::work_with;
use crate::kit::{WAIT, slow, until};
use crate::lists::{prepare, run, write_runs};
use crate::peers::{Side, accepted, built, connected, with_scratch};
use crate::random::Random;
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Mapping, Ring};
use dmaplane_ring::abi::device::{DeviceSetup, setup_flags};
use dmaplane_ring::abi::{
    BufferHandle, Cqe, ListHandle, ListenerHandle, Opcode, PeerHandle, QueryWhat, Rights, SlotHandle, Sqe,
};
use dmaplane_ring::build::{
    Accept, Alloc, Cancel, Connect, CreditGrant, CreditQuery, CreditWatermarks, Disconnect, ExportDmabuf, Free,
    ImportRelease, LeaseGrant, LeaseRenew, LeaseRevoke, LinkTimeout, ListFree, Nop, PagePlacement, Placement, Query,
    Read, ReadList, Recv, Send, Sync, Timeout, Wait, Watch, Write, WriteImm, WriteList,
};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[("bug_9_killed_at_random_moments_while_doing_everything", killed_often)];

const THREADS: u64 = 4;
/// An operation that a peer or a signal would have to end is not waited for longer.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often: DMAPLANE_KILLS, or what is quick.
fn kills() -> u64 {
    let asked = std::env::var("DMAPLANE_KILLS").ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if slow() { 15 } else { 40 })
}

fn killed_often() -> Result<()> {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    println!("  seed {seed}, {} kills", kills());
    let mut random = Random::new(seed);
    let start = Instant::now();
    let (mut busy, mut most) = (0, 0);
    share_notes()?;
    for round in 0..kills() {
        let family = spawn_family(random.next())?;
        // Every third dies while it begins, at any moment; the others when they are at work, the first of them when
        // every operation has come to something.
        let at_work = match round % 3 {
            0 => Ok(()),
            1 => until("it is at work", || Ok(crate::kit::held()? > 20)),
            _ => until("all has come to something", || Ok(missing().is_empty()))
                .with_context(|| format!("not so for {:?}", missing())),
        };
        std::thread::sleep(Duration::from_micros(random.below(if slow() { 1_200_000 } else { 250_000 })));
        let held = crate::kit::held()?;
        busy += u64::from(held > 20);
        most = most.max(held);
        // SAFETY: a group of our own making.
        unsafe { libc::killpg(family, libc::SIGKILL) };
        // SAFETY: our own children; those of theirs are init's.
        while unsafe { libc::waitpid(-family, std::ptr::null_mut(), 0) } > 0 {}
        at_work?;
        until("nothing of it is left", || Ok(crate::kit::held()? == 0)).with_context(|| format!("kill {round}"))?;
    }
    println!("  {} kills in {:.0?}; {busy} found more than 20 objects, the most {most}", kills(), start.elapsed());
    ensure!(busy * 3 > kills(), "it was hardly ever at work");
    Ok(())
}

/// Which operations have come to something, in any of the processes: the address of a page that all of them share, a
/// byte an opcode.
static SEEN: OnceLock<usize> = OnceLock::new();

/// User data of an operation: its opcode, and this.
const NAMED: u64 = 1 << 32;
/// Waits for slots and for words, as somebody else may cancel them.
const NAMED_WAIT: [u64; 2] = [NAMED | 1 << 33 | Opcode::Wait as u64, NAMED | 1 << 34 | Opcode::Wait as u64];

/// Before the first of the processes is made.
fn share_notes() -> Result<()> {
    let (both, flags) = (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE, rustix::mm::MapFlags::SHARED);
    // SAFETY: a fresh mapping, which stays.
    let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), 4096, both, flags) }?;
    ensure!(SEEN.set(page as usize).is_ok(), "notes are taken already");
    Ok(())
}

/// Where notes of an operation are taken.
fn place(opcode: Opcode) -> Option<*mut u8> {
    SEEN.get().map(|&page| (page + opcode as usize) as *mut u8)
}

/// Takes note of a completion, where its user data says of what.
fn note(cqe: &Cqe) {
    let Some(opcode) = Opcode::from_byte(cqe.user_data as u8).filter(|_| cqe.user_data & NAMED != 0) else { return };
    // Those end with an errno of their own when all is well.
    let is_clock = matches!(opcode, Opcode::Timeout | Opcode::LinkTimeout);
    if let Some(place) = place(opcode).filter(|_| is_clock || cqe.result().is_ok()) {
        // SAFETY: within the page, which stays; nothing but 1 is ever written there, a byte at a time.
        unsafe { place.write_volatile(1) };
    }
}

/// What has come to nothing so far.
fn missing() -> Vec<Opcode> {
    // SAFETY: as above.
    let was_seen = |opcode| place(opcode).is_some_and(|place| unsafe { place.read_volatile() } == 1);
    Opcode::ALL.iter().copied().filter(|&opcode| !was_seen(opcode)).collect()
}

/// An SQE whose completion says of what it is.
fn named(sqe: impl Into<Sqe>) -> Sqe {
    let sqe = sqe.into();
    Sqe { user_data: NAMED | u64::from(sqe.opcode), ..sqe }
}

/// Two processes of one group, which know each other by a name. The calling program has one thread.
fn spawn_family(seed: u64) -> Result<libc::pid_t> {
    let mut group = 0;
    let (first, second) = descriptors::way()?;
    let mut ways = [Some(first), Some(second)];
    for member in 0..2u64 {
        // SAFETY: this program has one thread here, so that the child may do anything.
        let child = unsafe { libc::fork() };
        ensure!(child >= 0, "fork: {}", std::io::Error::last_os_error());
        if child == 0 {
            // SAFETY: of this process alone.
            unsafe { libc::setpgid(0, group) };
            let own = ways[member as usize].take();
            // The other's end is the other's alone, so that what is on its way goes with both.
            drop(ways);
            live(seed ^ member, member == 0, own);
        }
        // SAFETY: our child; it says so itself as well, whoever comes first.
        unsafe { libc::setpgid(child, if group == 0 { child } else { group }) };
        group = if group == 0 { child } else { group };
    }
    Ok(group)
}

/// Does everything until it is killed.
fn live(seed: u64, first: bool, way: Option<OwnedFd>) -> ! {
    let mut random = Random::new(seed);
    let flags = if random.below(4) == 0 { setup_flags::POLLER } else { 0 };
    let setup = DeviceSetup { flags, memory_bytes: 128 << 20, listeners: 1024, peers: 512, ..DeviceSetup::default() };
    if let Ok(device) = Device::open(setup) {
        let device = std::sync::Arc::new(device);
        let way = std::sync::Arc::new(way.expect("each has an end"));
        let taking = way.clone();
        std::thread::spawn(move || take_in(taking.as_fd()));
        for thread in 0..THREADS {
            let (device, way, seed) = (device.clone(), way.clone(), random.next());
            std::thread::spawn(move || {
                let mut random = Random::new(seed);
                loop {
                    let Ok(mut ring) = device.ring(64, 128) else { continue };
                    for _ in 0..200 {
                        // What fails does so because something else has been taken away: that is the point.
                        let _ = something(&device, &mut ring, &mut random, thread, way.as_fd());
                    }
                }
            });
        }
        std::thread::spawn(move || {
            loop {
                let _ = with_the_other(first);
            }
        });
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    // SAFETY: leaves at once.
    unsafe { libc::_exit(1) }
}

/// One operation and its end; an error where it has not come in time, and goes on.
fn end_of(ring: &mut Ring, sqe: impl Into<Sqe>) -> Result<Cqe> {
    end_within(PATIENCE, ring, sqe)
}

fn end_within(patience: Duration, ring: &mut Ring, sqe: impl Into<Sqe>) -> Result<Cqe> {
    ensure!(ring.push(named(sqe)).is_ok(), "the ring is full");
    ring.enter(1, patience)?;
    let cqe = ring.reap_one().context("no completion")?;
    note(&cqe);
    built(cqe.result())?;
    Ok(cqe)
}

fn something(device: &Device, ring: &mut Ring, random: &mut Random, thread: u64, way: BorrowedFd<'_>) -> Result<()> {
    let bytes = 1 + random.below(3 << 20);
    let buffer = |ring: &mut Ring, alloc: Alloc| -> Result<BufferHandle> {
        BufferHandle::from_bits(end_of(ring, alloc)?.word0).context("no buffer")
    };
    match random.below(16) {
        0 => {
            for _ in 0..random.below(32) {
                let _ = ring.push(named(Nop::new()));
            }
            ring.enter(0, Duration::ZERO)?;
        }
        1 => {
            let _ = ring.push(named(Timeout::after_ns(random.below(5_000_000))));
            let _ = ring.push(named(Watch::new()));
            let _ = ring.push(named(Timeout::after_ns(random.below(5_000_000)).link()));
            let _ = ring.push(named(LinkTimeout::after_ns(random.below(5_000_000))));
            ring.submit()?;
            end_of(ring, Query::new(QueryWhat::InFlight))?;
        }
        2 => {
            let made = buffer(ring, built(Alloc::new(bytes))?.placement(PagePlacement::Preferred(0)))?;
            let mapping = device.map(made)?;
            mapping.write(0, &[7; 512]);
            end_of(ring, Placement::new(made, 0))?;
            end_of(ring, Free::new(made))?;
            // It goes with its mapping, or with the process.
            std::mem::forget(mapping);
        }
        3 => {
            let made = buffer(ring, built(Alloc::new(64 << 10))?.recycled())?;
            end_of(ring, Free::new(made))?;
        }
        4 => {
            let (data, records) = (buffer(ring, built(Alloc::new(1 << 20))?)?, buffer(ring, built(Alloc::new(4096))?)?);
            write_runs(&device.map(records)?, &[run(data, 0, 200)])?;
            let list = ListHandle::from_bits(end_of(ring, prepare(records, 1)?)?.word0).context("no list")?;
            if random.below(2) == 0 {
                end_of(ring, ListFree::new(list))?;
            }
        }
        5 | 6 => {
            let made = buffer(ring, built(Alloc::new(bytes))?)?;
            let slot = SlotHandle::from_bits(end_of(ring, ExportDmabuf::new(made))?.word0).context("no slot")?;
            let fd = device.take(slot)?;
            std::mem::forget(Mapping::new(fd.as_fd(), 0, 4096, true)?);
            let (imported, _) = device.import(fd.as_fd())?;
            end_of(ring, Sync::begin(imported))?;
            end_of(ring, Sync::end(made))?;
            let slot = device.put(work_with(&fd)?.as_fd())?;
            let _ = ring.push(Wait::on_slot(slot).user_data(NAMED_WAIT[0]));
            ring.submit()?;
            pass(fd.as_fd(), way, random)?;
            if random.below(2) == 0 {
                end_of(ring, Free::new(imported))?;
            }
        }
        7 => {
            let memory = vec![0u64; 32 << 10];
            let start = std::ptr::NonNull::from(memory.as_slice()).cast();
            // SAFETY: the memory is never used again, and never freed.
            let pinned = unsafe { device.pin(start, memory.len() * 8, random.below(2) == 0) }?;
            std::mem::forget(memory);
            end_of(ring, Free::new(pinned))?;
        }
        8 => {
            let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
            ring.register(Some(eventfd.as_fd()))?;
            let slot = device.put(eventfd.as_fd())?;
            let _ = ring.push(Wait::on_slot(slot).user_data(NAMED_WAIT[0]));
            ring.submit()?;
            if random.below(2) == 0 {
                rustix::io::write(&eventfd, &1u64.to_ne_bytes())?;
            }
        }
        9 => {
            let made = buffer(ring, built(Alloc::new(4096))?)?;
            let _ = ring.push(Wait::on_word(made, 0, 1).user_data(NAMED_WAIT[1]));
            ring.submit()?;
            let _ = ring.push(named(Cancel::by_user_data(random.pick(&NAMED_WAIT))));
            ring.submit()?;
        }
        10 => {
            // SAFETY: the child makes two system calls and leaves; it inherits every descriptor.
            unsafe {
                if libc::fork() == 0 {
                    libc::usleep(3000);
                    libc::_exit(0);
                }
            }
        }
        11 => pass(device.as_fd(), way, random)?,
        12 => {
            let other = device.ring(16, 32)?;
            pass(other.as_fd(), way, random)?;
        }
        13 => {
            let _ = ring.push(named(Cancel::any()));
            ring.submit()?;
        }
        _ => with_itself(device, ring, random, thread)?,
    }
    ring.reap(u32::MAX, |cqe| note(&cqe));
    Ok(())
}

thread_local! {
    /// Ways that nobody reads: the last hold of what lies there is the socket's.
    static UNREAD: RefCell<VecDeque<(OwnedFd, OwnedFd)>> = const { RefCell::new(VecDeque::new()) };
}

/// Sends a descriptor to the other process, or leaves it on its way.
fn pass(fd: BorrowedFd<'_>, way: BorrowedFd<'_>, random: &mut Random) -> Result<()> {
    if random.below(3) > 0 {
        return descriptors::send(way, fd);
    }
    let unread = descriptors::way()?;
    descriptors::send(unread.0.as_fd(), fd)?;
    UNREAD.with_borrow_mut(|ways| {
        ways.push_back(unread);
        if ways.len() > 8 {
            ways.pop_front();
        }
    });
    Ok(())
}

/// Takes descriptors of the other process's, uses them, and holds the last of them.
fn take_in(way: BorrowedFd<'_>) {
    let mut held = VecDeque::new();
    while let Ok(fd) = descriptors::receive(way) {
        // Of a context, a ring or a dma-buf: each has something at its beginning.
        let mapping = Mapping::new(fd.as_fd(), 0, 4096, false);
        held.push_back((fd, mapping));
        if held.len() > 16 {
            held.pop_front();
        }
    }
}

/// A context that is its own peer: connected, leased, written to, revoked, disconnected.
fn with_itself(device: &Device, ring: &mut Ring, random: &mut Random, thread: u64) -> Result<()> {
    let address = format!("local:{}-{thread}-{}", std::process::id(), random.next());
    let scratch = with_scratch(device, ring)?;
    let listener: ListenerHandle = device.listen(&address)?;
    ensure!(scratch.1.write(0, address.as_bytes()), "the address");
    let peer = |cqe: Cqe| PeerHandle::from_bits(cqe.word0).context("no peer");
    let ours = peer(end_of(ring, built(Connect::new(scratch.0, 0, address.len() as u64))?)?)?;
    let theirs = peer(end_of(ring, Accept::new(listener))?)?;
    let target = BufferHandle::from_bits(end_of(ring, built(Alloc::new(2 << 20))?)?.word0).context("no buffer")?;
    let grant = built(LeaseGrant::range(target, 0, 2 << 20, Rights::READ.with(Rights::WRITE)))?.to_peer(theirs);
    let grant = if random.below(2) == 0 { grant.time_to_live_ns(1 + random.below(100_000_000)) } else { grant };
    let lease = dmaplane_ring::abi::LeaseHandle::from_bits(end_of(ring, grant)?.word0).context("no lease")?;
    let exported = end_of(ring, dmaplane_ring::build::LeaseExport::new(lease, scratch.0, 0))?;
    let token_bytes = u64::from(exported.res.cast_unsigned());
    let import = built(dmaplane_ring::build::LeaseImport::new(scratch.0, 0, token_bytes))?.from_peer(ours);
    let import = dmaplane_ring::abi::ImportHandle::from_bits(end_of(ring, import)?.word0).context("no import")?;
    let _ = ring.push(named(LeaseRenew::new(lease, 1_000_000 + random.below(1_000_000_000))));
    let _ = ring.push(named(built(CreditWatermarks::new(ours, 3, 1))?));
    let _ = ring.push(named(CreditGrant::new(theirs, 4)));
    let _ = ring.push(named(built(Recv::new(theirs, scratch.0, 0, 4096))?));
    for _ in 0..random.below(6) {
        let _ = ring.push(named(built(Write::new(target, 0, import, 1 << 20, 1 << 20))?));
        let _ = ring.push(named(built(Read::new(target, 0, import, 1 << 20, 1 << 20))?));
        let _ = ring.push(named(built(WriteImm::new(target, 0, import, 0, 100))?));
        let _ = ring.push(named(built(Send::new(ours, scratch.0, 0, 64))?));
        let _ = ring.push(named(CreditQuery::new(ours)));
    }
    ring.submit()?;
    if random.below(2) == 0 {
        let _ = ring.push(named(LeaseRevoke::graceful(lease, 1_000_000)));
        let _ = ring.push(named(ImportRelease::new(import)));
    }
    if random.below(2) == 0 {
        let _ = ring.push(named(Disconnect::new(ours)));
        let _ = ring.push(named(Disconnect::new(theirs)));
    }
    ring.enter(0, Duration::ZERO)?;
    Ok(())
}

/// Lists written into the other process, over and over. That one lives as long as this does: it may be slow.
fn with_the_other(first: bool) -> Result<()> {
    let (device, ring) = crate::kit::device()?;
    let pages = 64;
    let whole = |side: &mut Side| -> Result<ListHandle> {
        let (data, _) = side.buffer(pages * 4096)?;
        let (records, mapping) = side.buffer(4096)?;
        write_runs(&mapping, &[run(data, 0, pages as u32)])?;
        ListHandle::from_bits(end_within(WAIT, &mut side.ring, prepare(records, 1)?)?.word0).context("no list")
    };
    if first {
        let mut side = accepted(device, ring, "local:family", || ())?;
        let list = whole(&mut side)?;
        let (_lease, token) = side.grant(LeaseGrant::list(list, Rights::READ.with(Rights::WRITE)))?;
        ensure!(side.scratch.1.write(0, &token), "the token");
        end_within(WAIT, &mut side.ring, built(Send::new(side.peer, side.scratch.0, 0, token.len() as u64))?)?;
        loop {
            end_within(WAIT, &mut side.ring, built(Recv::new(side.peer, side.scratch.0, 0, 4096))?)?;
        }
    }
    let mut side = connected(device, ring, "local:family")?;
    let list = whole(&mut side)?;
    let (inbox, mapping) = side.buffer(4096)?;
    let told = end_within(WAIT, &mut side.ring, built(Recv::new(side.peer, inbox, 0, 4096))?)?;
    let mut token = vec![0; told.res as usize];
    ensure!(mapping.read(0, &mut token), "the token");
    let import = side.import(&token)?;
    let (index, mapping) = side.buffer(4096)?;
    let pairs: Vec<u8> = (0..pages as u32).flat_map(|n| [n.to_le_bytes(), n.to_le_bytes()].concat()).collect();
    ensure!(mapping.write(0, &pairs), "the pairs");
    loop {
        end_within(WAIT, &mut side.ring, built(ReadList::new(list, import, index, 0, pages))?.checksum())?;
        let write = built(WriteList::new(list, import, index, 0, pages))?;
        end_within(WAIT, &mut side.ring, built(write.notify(5, 0, 16))?)?;
    }
}
