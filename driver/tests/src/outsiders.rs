//! What another process, with a context of its own, can do with the numbers of ours: handles of every kind, by every
//! operation and call that takes one, and offsets of mappings (clause SEC-1).

use crate::Test;
use crate::kit::{WAIT, alloc, complete, device, succeed};
use crate::lists::{prepare, run, write_runs};
use crate::peers::{Side, built, pair, pattern};
use anyhow::{Context as _, Result, ensure};
use dmaplane_device::{Device, Mapping, Ring};
use dmaplane_ring::abi::{
    BufferHandle, Errno, ImportHandle, LeaseHandle, ListHandle, ListenerHandle, Opcode, PeerHandle, Rights, SlotHandle,
    Sqe,
};
use dmaplane_ring::build::{
    Accept, Alloc, Cancel, Connect, CreditGrant, CreditQuery, CreditWatermarks, Disconnect, ExportDmabuf, Free,
    ImportRelease, LeaseExport, LeaseGrant, LeaseImport, LeaseRenew, LeaseRevoke, ListFree, ListPrepare, Nop,
    Placement, Read, ReadList, Recv, Send, Sync, Timeout, Wait, Write, WriteImm, WriteList,
};
use std::os::fd::AsFd as _;
use std::time::Duration;

pub const TESTS: &[Test] =
    &[("bug_10_another_process_reaches_nothing_by_a_handle_of_any_kind_or_an_offset", another_process)];

/// The owner's, as another process is told of them.
struct Told {
    buffer: BufferHandle,
    list: ListHandle,
    lease: LeaseHandle,
    import: ImportHandle,
    listener: ListenerHandle,
    peer: PeerHandle,
    slot: SlotHandle,
    /// Where the buffer is mapped from.
    offset: u64,
}

impl Told {
    fn handles(&self) -> [u64; 7] {
        [
            self.buffer.handle().bits(),
            self.list.handle().bits(),
            self.lease.handle().bits(),
            self.import.handle().bits(),
            self.listener.handle().bits(),
            self.peer.handle().bits(),
            self.slot.handle().bits(),
        ]
    }

    fn words(&self) -> String {
        let all = self.handles().into_iter().chain([self.offset]);
        all.map(|word| format!("{word:x}")).collect::<Vec<_>>().join(",")
    }

    fn parse(text: &str) -> Result<Told> {
        let words = text.split(',').map(|word| u64::from_str_radix(word, 16)).collect::<Result<Vec<_>, _>>()?;
        let &[buffer, list, lease, import, listener, peer, slot, offset] = words.as_slice() else {
            anyhow::bail!("eight numbers, not '{text}'");
        };
        Ok(Told {
            buffer: BufferHandle::from_bits(buffer).context("a buffer")?,
            list: ListHandle::from_bits(list).context("a list")?,
            lease: LeaseHandle::from_bits(lease).context("a lease")?,
            import: ImportHandle::from_bits(import).context("an import")?,
            listener: ListenerHandle::from_bits(listener).context("a listener")?,
            peer: PeerHandle::from_bits(peer).context("a peer")?,
            slot: SlotHandle::from_bits(slot).context("a slot")?,
            offset,
        })
    }
}

fn whole_list(side: &mut Side, data: BufferHandle) -> Result<ListHandle> {
    let (records, mapping) = side.buffer(4096)?;
    write_runs(&mapping, &[run(data, 0, 16)])?;
    ListHandle::from_bits(succeed(&mut side.ring, prepare(records, 1)?)?.word0).context("no list")
}

fn another_process() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    // The other process makes a few objects itself: those of ours that it is told of have numbers beyond.
    for _ in 0..8 {
        ours.buffer(4096)?;
    }
    let length = 64 << 10;
    let (buffer, mapping) = ours.buffer(length)?;
    let bytes = pattern(length as usize, 77);
    ensure!(mapping.write(0, &bytes), "writing");
    let first_list = whole_list(&mut ours, buffer)?;
    let list = whole_list(&mut ours, buffer)?;
    let (target, landed) = theirs.buffer(length)?;
    let whole = LeaseGrant::range(target, 0, length, Rights::READ.with(Rights::WRITE));
    let (_, token) = theirs.grant(built(whole)?)?;
    let import = ours.import(&token)?;
    let (lease, _) = ours.grant(built(LeaseGrant::range(buffer, 0, length, Rights::READ.with(Rights::WRITE)))?)?;
    let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK)?;
    let slot = ours.device.put(eventfd.as_fd())?;
    let listener = ours.device.listen(&format!("local:outsiders-{}", std::process::id()))?;
    let offset = ours.device.offer(buffer)?.offset;
    let told = Told { buffer, list, lease, import, listener, peer: ours.peer, slot, offset };
    // Something of ours that waits, and would end if it were cancelled, or somebody else's message came.
    theirs.push(built(Recv::new(theirs.peer, theirs.scratch.0, 0, 4096))?)?;
    ours.push(Wait::on_slot(slot).user_data(1))?;

    let program = std::env::current_exe()?;
    let output = std::process::Command::new(program).arg(format!("--child=outsider={}", told.words())).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    let tried = said.lines().find_map(|line| line.strip_prefix("tried ")).context("it did not say what it did")?;
    println!("  another process has tried {tried}");

    // All of it is as it was, and works.
    let mut found = vec![0; length as usize];
    ensure!(mapping.read(0, &mut found) && found == bytes, "the buffer was written to");
    ensure!(ours.ring.available() == 0 && theirs.ring.available() == 0, "something has ended that waited");
    rustix::io::write(&eventfd, &1u64.to_ne_bytes())?;
    built(ours.next()?.result()).context("the slot")?;
    succeed(&mut ours.ring, built(Write::new(buffer, 0, import, 0, length))?)?;
    ensure!(landed.read(0, &mut found) && found == bytes, "a write after it");
    succeed(&mut ours.ring, built(Send::new(ours.peer, ours.scratch.0, 0, 8))?)?;
    built(theirs.next()?.result()).context("a message after it")?;
    succeed(&mut ours.ring, LeaseRevoke::now(lease))?;
    succeed(&mut ours.ring, ListFree::new(list))?;
    succeed(&mut ours.ring, ListFree::new(first_list))?;
    succeed(&mut ours.ring, Free::new(buffer))?;
    ensure!(ours.ring.push(Accept::new(listener)).is_ok(), "the ring is full");
    let nobody = ours.ring.enter(1, Duration::from_millis(20));
    crate::kit::refused(nobody, libc::ETIME, "nobody has connected")
}

/// All operations that take a handle, each with the owner's in one place and what is this process's own in the others.
fn attempts(told: &Told, own: BufferHandle, own_list: ListHandle) -> Result<Vec<Sqe>> {
    let &Told { buffer, list, lease, import, listener, peer, slot, .. } = told;
    let both = Rights::READ.with(Rights::WRITE);
    Ok(vec![
        Free::new(buffer).revoke_leases().sqe(),
        Placement::new(buffer, 0).sqe(),
        ExportDmabuf::new(buffer).sqe(),
        Sync::begin(buffer).sqe(),
        Sync::end(buffer).sqe(),
        Wait::on_word(buffer, 0, 0).sqe(),
        built(LeaseGrant::range(buffer, 0, 4096, both))?.sqe(),
        LeaseGrant::list(list, both).sqe(),
        built(LeaseImport::new(buffer, 0, 256))?.sqe(),
        built(LeaseImport::new(own, 0, 256))?.from_peer(peer).sqe(),
        LeaseExport::new(lease, own, 0).sqe(),
        LeaseRenew::new(lease, 1 << 30).sqe(),
        LeaseRevoke::now(lease).sqe(),
        LeaseRevoke::graceful(lease, 0).sqe(),
        ImportRelease::new(import).sqe(),
        built(ListPrepare::new(buffer, 0, 1))?.sqe(),
        // The runs at its own buffer's beginning name the owner's.
        built(ListPrepare::new(own, 0, 1))?.sqe(),
        ListFree::new(list).sqe(),
        built(Connect::new(buffer, 0, 12))?.sqe(),
        Accept::new(listener).sqe(),
        Disconnect::new(peer).sqe(),
        built(Send::new(peer, own, 0, 8))?.sqe(),
        built(Recv::new(peer, own, 0, 4096))?.sqe(),
        CreditGrant::new(peer, 3).sqe(),
        built(CreditGrant::new(peer, 1).slots(own, 0, 64))?.sqe(),
        CreditQuery::new(peer).sqe(),
        built(CreditWatermarks::new(peer, 3, 1))?.sqe(),
        built(Write::new(own, 0, import, 0, 4096))?.sqe(),
        built(Write::new(buffer, 0, import, 0, 4096))?.sqe(),
        built(WriteImm::new(own, 0, import, 0, 64))?.sqe(),
        built(Read::new(own, 0, import, 0, 4096))?.sqe(),
        built(WriteList::new(own_list, import, own, 0, 1))?.sqe(),
        built(ReadList::new(own_list, import, own, 0, 1))?.sqe(),
        built(WriteList::new(list, import, own, 0, 1))?.sqe(),
        Wait::on_slot(slot).sqe(),
    ])
}

/// Whether an operation came to nothing: it was refused, or found nothing.
fn came_to_nothing(ring: &mut Ring, sqe: Sqe) -> Result<bool> {
    let cqe = complete(ring, sqe)?;
    Ok(match cqe.result() {
        Err(Errno::EAGAIN | Errno::ETIME) => false,
        Err(_) => true,
        Ok(found) => sqe.opcode == Opcode::Cancel as u8 && found == 0,
    })
}

/// The other process: tries, and fails where anything came of it.
pub fn outsider(words: &str) -> Result<()> {
    let told = Told::parse(words)?;
    let (device, mut ring) = device()?;
    let (own, _) = alloc(&mut ring, 4096)?;
    let mapping = device.map(own)?;
    write_runs(&mapping, &[run(own, 0, 1)])?;
    let own_list = ListHandle::from_bits(succeed(&mut ring, prepare(own, 1)?)?.word0).context("no list")?;
    let mine = [own.handle().bits(), own_list.handle().bits()];
    ensure!(told.handles().iter().all(|handle| !mine.contains(handle)), "they are its own numbers: {words}");
    write_runs(&mapping, &[run(told.buffer, 0, 1)])?;

    let mut tried = 0;
    for sqe in attempts(&told, own, own_list)? {
        ensure!(came_to_nothing(&mut ring, sqe)?, "something came of {sqe:?}");
        tried += 1;
    }
    // Every operation, with each of the handles in each place where a handle may stand.
    for &opcode in Opcode::ALL {
        for handle in told.handles() {
            for (local, remote, remote_offset) in [(handle, 0, 0), (0, handle, 0), (0, 0, handle), (handle, handle, 0)]
            {
                let words = [0; 8];
                let blank = Sqe { opcode: opcode as u8, length: 64, ..Sqe::from_words(words) };
                let sqe = Sqe { local, remote, remote_offset, ..blank };
                // A WATCH that is taken would wait.
                ensure!(opcode == Opcode::Watch || came_to_nothing(&mut ring, sqe)?, "something came of {sqe:?}");
                tried += 1;
            }
        }
    }
    tried += calls(&device, &told, own)?;
    // What was tried has cost nobody's operations.
    ensure!(ring.push(Cancel::any().sqe()).is_ok() && ring.push(Timeout::after_ns(1)).is_ok(), "the ring is full");
    ring.enter(2, WAIT)?;
    ring.reap(2, |_| ());
    succeed(&mut ring, Nop::new())?;
    succeed(&mut ring, built(Alloc::new(4096))?)?;
    println!("tried {tried} times");
    Ok(())
}

/// The calls, and mappings: at the owner's offset, and at every other where anything might be.
fn calls(device: &Device, told: &Told, own: BufferHandle) -> Result<u64> {
    ensure!(device.map(told.buffer).is_err(), "it has mapped the owner's buffer");
    ensure!(device.take(told.slot).is_err(), "it has taken what is in the owner's slot");
    let own_offset = device.offer(own)?.offset;
    ensure!(own_offset != told.offset, "the owner's offset is its own");
    let step = 1u64 << own_offset.trailing_zeros().min(told.offset.trailing_zeros());
    let mut tried = 2;
    for offset in [told.offset, told.offset + 4096].into_iter().chain((1..512).map(|n| n * step)) {
        let mapped = Mapping::new(device.as_fd(), offset, 4096, false).is_ok();
        ensure!(!mapped || offset == own_offset, "it has mapped something at {offset:#x}");
        tried += 1;
    }
    Ok(tried)
}
