//! Two contexts that are peers: the driver's local fabric (clauses LOC-1 to LOC-8).

use crate::Test;
use crate::kit::{WAIT, alloc, complete, device, information, refused, slow, succeed, until};
use crate::lists::{prepare, run, write_runs};
use anyhow::{Context as _, Result, anyhow, ensure};
use dmaplane_device::{Device, Mapping, Ring};
use dmaplane_ring::abi::device::DeviceSetup;
use dmaplane_ring::abi::{
    BufferHandle, Cqe, CqeFlags, Errno, ImportHandle, LeaseHandle, ListHandle, PeerHandle, Rights, Sqe,
};
use dmaplane_ring::build::{
    Accept, Connect, CreditQuery, Disconnect, Free, LeaseExport, LeaseGrant, LeaseImport, LeaseRevoke, ListFree, Read,
    ReadList, Recv, Send, Write, WriteImm, WriteList,
};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("loc_1_names_are_taken_once_and_given_back_with_their_context", names),
    ("loc_2_connecting_is_refused_where_nobody_listens_or_another_user_does", refused_connections),
    ("loc_4_ranges_are_written_read_and_told_of", ranges),
    ("loc_5_lists_move_segment_by_segment_and_are_checked_before_the_first_byte", lists),
    ("loc_5_a_peer_that_goes_while_lists_are_looked_up_ends_them", lists_of_the_gone),
    ("run_4_entries_that_take_long_hold_nobody_up", long_entries),
    ("loc_a_context_can_be_its_own_peer", own_peer),
    ("loc_7_a_disconnected_peer_is_gone_for_both", disconnected),
    ("lse_10_revoking_stops_a_copy_under_way_and_nothing_lands_after_it", revoked_under_way),
    ("lse_10_a_revoke_does_not_wait_for_the_copies_that_stand_before_its_own", revoked_in_the_queue),
    ("loc_7_a_killed_peer_ends_what_waits_for_it_and_its_leases", killed_peer),
    ("bug_5_what_outlives_its_time_touches_nothing_afterwards", outlives),
    ("bug_7_repeated_runs_leak_no_receives", repeated),
];

pub fn built<T>(result: Result<T, impl std::fmt::Display>) -> Result<T> {
    result.map_err(|error| anyhow!("{error}"))
}

/// One context with a peer.
pub struct Side {
    pub device: Device,
    pub ring: Ring,
    pub peer: PeerHandle,
    /// For addresses and tokens.
    pub scratch: (BufferHandle, Mapping),
}

pub fn with_scratch(device: &Device, ring: &mut Ring) -> Result<(BufferHandle, Mapping)> {
    let (buffer, _) = alloc(ring, 4096)?;
    Ok((buffer, device.map(buffer)?))
}

fn connect_sqe(scratch: &(BufferHandle, Mapping), address: &str) -> Result<Connect> {
    ensure!(scratch.1.write(0, address.as_bytes()), "the address does not fit");
    built(Connect::new(scratch.0, 0, address.len() as u64))
}

fn peer_of(cqe: &Cqe) -> Result<PeerHandle> {
    built(cqe.result())?;
    PeerHandle::from_bits(cqe.word0).context("no peer")
}

/// Connects to an address.
pub fn connected(device: Device, mut ring: Ring, address: &str) -> Result<Side> {
    let scratch = with_scratch(&device, &mut ring)?;
    let peer = peer_of(&complete(&mut ring, connect_sqe(&scratch, address)?)?)?;
    Ok(Side { device, ring, peer, scratch })
}

/// Listens, says so, and accepts one.
pub fn accepted(device: Device, mut ring: Ring, address: &str, listening: impl FnOnce()) -> Result<Side> {
    let scratch = with_scratch(&device, &mut ring)?;
    let listener = device.listen(address)?;
    listening();
    let peer = peer_of(&complete(&mut ring, Accept::new(listener))?)?;
    Ok(Side { device, ring, peer, scratch })
}

/// A name that nobody has, or has had: a context's names are given back some time after it was closed.
fn fresh_address() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("local:{}", now.as_nanos())
}

/// Two contexts, connected: who has connected first.
pub fn pair() -> Result<(Side, Side)> {
    let (theirs, ours) = (device()?, device()?);
    let address = &fresh_address();
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let accepting = scope.spawn(move || {
            accepted(theirs.0, theirs.1, address, || {
                let _ = sender.send(());
            })
        });
        told.recv_timeout(WAIT)?;
        let first = connected(ours.0, ours.1, address)?;
        let second = accepting.join().map_err(|_| anyhow!("the accepting thread has panicked"))??;
        Ok((first, second))
    })
}

impl Side {
    pub fn buffer(&mut self, bytes: u64) -> Result<(BufferHandle, Mapping)> {
        let (buffer, _) = alloc(&mut self.ring, bytes)?;
        Ok((buffer, self.device.map(buffer)?))
    }

    pub fn grant(&mut self, grant: LeaseGrant) -> Result<(LeaseHandle, Vec<u8>)> {
        let lease = LeaseHandle::from_bits(succeed(&mut self.ring, grant)?.word0).context("no lease")?;
        let exported = succeed(&mut self.ring, LeaseExport::new(lease, self.scratch.0, 0))?;
        let mut token = vec![0; built(exported.result())? as usize];
        ensure!(self.scratch.1.read(0, &mut token), "the token is not there");
        Ok((lease, token))
    }

    pub fn import(&mut self, token: &[u8]) -> Result<ImportHandle> {
        ensure!(self.scratch.1.write(0, token), "the token does not fit");
        let import = built(LeaseImport::new(self.scratch.0, 0, token.len() as u64))?.from_peer(self.peer);
        ImportHandle::from_bits(succeed(&mut self.ring, import)?.word0).context("no import")
    }

    pub fn push(&mut self, sqe: impl Into<Sqe>) -> Result<()> {
        ensure!(self.ring.push(sqe).is_ok(), "the ring is full");
        self.ring.enter(0, WAIT)?;
        Ok(())
    }

    /// Whether the connection has ended by the other side.
    fn peer_is_gone(&mut self) -> Result<bool> {
        let send = built(Send::new(self.peer, self.scratch.0, 0, 1))?.no_credit_wait();
        match complete(&mut self.ring, send)?.result() {
            Err(Errno::ECONNRESET) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            other => anyhow::bail!("a message to a peer without credits: {other:?}"),
        }
    }

    pub fn next(&mut self) -> Result<Cqe> {
        self.ring.enter(1, WAIT)?;
        self.ring.reap_one().context("a completion was announced and is not there")
    }
}

fn bytes_of(mapping: &Mapping) -> Vec<u8> {
    let mut bytes = vec![0; mapping.length_bytes()];
    assert!(mapping.read(0, &mut bytes));
    bytes
}

/// Bytes that say where they are.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut words = Vec::with_capacity(length);
    while words.len() < length {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        words.extend((state >> 24).to_le_bytes());
    }
    words.truncate(length);
    words
}

/// CRC-32C, bit by bit: what clause XFR-10 says and nothing of the driver's.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

fn names() -> Result<()> {
    let (first, _ring) = device()?;
    let (second, _second_ring) = device()?;
    first.listen("local:name")?;
    refused(second.listen("local:name"), libc::EADDRINUSE, "a name that is taken")?;
    refused(first.listen("local:name"), libc::EADDRINUSE, "a name that is one's own")?;
    for bad in ["", "local:", "local", "shm:/run/x", "tcp:localhost:1", &format!("local:{}", "x".repeat(250))] {
        refused(first.listen(bad), libc::EINVAL, &format!("listening at '{bad}'"))?;
    }
    let mut names = 1;
    while first.listen(&format!("local:{names}")).is_ok() {
        names += 1;
    }
    ensure!(names == first.setup().listeners, "{names} listeners of {}", first.setup().listeners);
    // One that did not come about has kept nothing.
    second.listen(&format!("local:{names}"))?;
    drop(first);
    until("the name is free again", || Ok(second.listen("local:name").is_ok()))
}

fn refused_connections() -> Result<()> {
    let (device, mut ring) = device()?;
    let scratch = with_scratch(&device, &mut ring)?;
    for (address, errno) in [
        ("local:nobody", Errno::ECONNREFUSED),
        ("local:", Errno::EINVAL),
        ("shm:/run/x", Errno::EINVAL),
        ("", Errno::EINVAL),
    ] {
        let mut sqe = connect_sqe(&scratch, if address.is_empty() { "x" } else { address })?.sqe();
        sqe.length = address.len() as u64;
        let cqe = complete(&mut ring, sqe)?;
        ensure!(cqe.result() == Err(errno), "connecting to '{address}': {cqe:?}");
    }
    // Another user's: this program again, as nobody, over a descriptor that it is given.
    device.listen("local:root's")?;
    let said = as_nobody("stranger")?;
    ensure!(said.trim() == Errno::EACCES.raw().to_string(), "another user was told {said:?}");
    Ok(())
}

/// Runs this program in a role as nobody, who is given a descriptor of the device: what it says.
pub fn as_nobody(role: &str) -> Result<String> {
    let fd = Device::open_bare(dmaplane_device::PATH)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty())?;
    let program = std::env::current_exe()?;
    let program = program.to_str().context("the program's name is text")?;
    let role = format!("--child={role}={}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    crate::kit::command("setpriv", &["--reuid=65534", "--clear-groups", program, &role])
}

/// Connects over a descriptor, and says with which errno that was refused.
pub fn stranger(fd: std::os::fd::OwnedFd) -> Result<()> {
    let device = Device::set_up(fd, DeviceSetup::default())?;
    let mut ring = device.ring(16, 32)?;
    let scratch = with_scratch(&device, &mut ring)?;
    let cqe = complete(&mut ring, connect_sqe(&scratch, "local:root's")?)?;
    println!("{}", cqe.result().err().map_or(0, |errno| errno.raw()));
    Ok(())
}

fn ranges() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    // Small ones are copied at once, large ones by a worker.
    for length in [1u64, 4096, 10_000, (64 << 10) + 1, (3 << 20) + 5] {
        let (target, landed) = theirs.buffer(length + 100)?;
        let (lease, token) =
            theirs.grant(built(LeaseGrant::range(target, 50, length, Rights::READ.with(Rights::WRITE)))?)?;
        let import = ours.import(&token)?;
        let (source, mapping) = ours.buffer(length + 100)?;
        let sent = pattern(length as usize, length);
        ensure!(mapping.write(7, &sent), "writing");
        let wrote = succeed(&mut ours.ring, built(Write::new(source, 7, import, 0, length))?)?;
        ensure!(wrote.res as u64 == length, "{wrote:?}");
        let mut found = bytes_of(&landed);
        ensure!(found[50..][..length as usize] == sent[..], "{length} bytes: others have landed");
        found[50..][..length as usize].fill(0);
        ensure!(found.iter().all(|&byte| byte == 0), "{length} bytes: something has landed beside them");
        // With an arrival, and what it was made of.
        let (inbox, _inbox_mapping) = theirs.buffer(4096)?;
        theirs.push(built(Recv::new(theirs.peer, inbox, 0, 4096))?.user_data(9))?;
        let told = built(WriteImm::new(source, 7, import, 0, length))?.immediate(0xfeed).checksum();
        succeed(&mut ours.ring, told)?;
        let arrival = theirs.next()?;
        let checksum = crc32c(&sent);
        ensure!(arrival.user_data == 9 && arrival.word0 == u64::from(checksum) << 32 | 0xfeed, "{arrival:?}");
        // And back.
        let (back, back_mapping) = ours.buffer(length)?;
        let read = succeed(&mut ours.ring, built(Read::new(back, 0, import, 0, length))?.checksum())?;
        ensure!(read.word1 == checksum.into() && CqeFlags::from_bits(read.flags).contains(CqeFlags::CHECKSUM));
        ensure!(bytes_of(&back_mapping)[..length as usize] == sent[..], "what was read is something else");
        // Outside of the lease.
        let outside = complete(&mut ours.ring, built(Write::new(source, 0, import, 1, length))?)?;
        ensure!(outside.result() == Err(Errno::ERANGE), "{outside:?}");
        succeed(&mut theirs.ring, LeaseRevoke::now(lease))?;
        let over = complete(&mut ours.ring, built(Write::new(source, 0, import, 0, length))?)?;
        ensure!(over.result() == Err(Errno::EKEYREVOKED), "{over:?}");
    }
    // A message.
    let (inbox, inbox_mapping) = theirs.buffer(4096)?;
    theirs.push(built(Recv::new(theirs.peer, inbox, 0, 4096))?)?;
    let (source, mapping) = ours.buffer(4096)?;
    let sent = pattern(4096, 3);
    ensure!(mapping.write(0, &sent), "writing");
    succeed(&mut ours.ring, built(Send::new(ours.peer, source, 0, 4096))?)?;
    let arrival = theirs.next()?;
    ensure!(arrival.res == 4096 && bytes_of(&inbox_mapping) == sent, "{arrival:?}");
    Ok(())
}

/// A list of single segments of these lengths, scattered over a buffer; where each begins.
fn scattered(side: &mut Side, lengths: &[u32]) -> Result<(ListHandle, BufferHandle, Mapping, Vec<usize>)> {
    let (data, mapping) = side.buffer(lengths.iter().map(|&length| u64::from(length) + 100).sum())?;
    let (records, records_mapping) = side.buffer(lengths.len() as u64 * 40)?;
    let (mut places, mut end) = (Vec::new(), mapping.length_bytes());
    // From the back, so that order in the list is not order in memory.
    let mut runs = Vec::new();
    for &length in lengths {
        end -= length as usize + 100;
        places.push(end);
        runs.push(dmaplane_ring::abi::Run { length_bytes: length, ..run(data, end as u64, 1) });
    }
    write_runs(&records_mapping, &runs)?;
    let made = succeed(&mut side.ring, prepare(records, runs.len() as u64)?)?;
    Ok((ListHandle::from_bits(made.word0).context("no list")?, data, mapping, places))
}

fn write_pairs(mapping: &Mapping, pairs: &[(u32, u32)]) -> Result<()> {
    let bytes: Vec<u8> = pairs.iter().flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat()).collect();
    ensure!(mapping.write(0, &bytes), "the pairs do not fit");
    Ok(())
}

fn lists() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let lengths: Vec<u32> = (0..3000).map(|n| 1 + n * 7919 % 2500).collect();
    let count = lengths.len();
    let (source, _source_data, source_mapping, from) = scattered(&mut ours, &lengths)?;
    let (target, _target_data, target_mapping, to) = scattered(&mut theirs, &lengths)?;
    let (_lease, token) = theirs.grant(LeaseGrant::list(target, Rights::READ.with(Rights::WRITE)))?;
    let import = ours.import(&token)?;
    let sent = pattern(source_mapping.length_bytes(), 5);
    ensure!(source_mapping.write(0, &sent), "writing");
    let (index, index_mapping) = ours.buffer(count as u64 * 8 + 256)?;
    let pairs: Vec<(u32, u32)> = (0..count as u32).rev().map(|n| (n, n)).collect();
    write_pairs(&index_mapping, &pairs)?;
    ensure!(index_mapping.write(count * 8, b"all there"), "writing");
    let (inbox, inbox_mapping) = theirs.buffer(4096)?;
    theirs.push(built(Recv::new(theirs.peer, inbox, 0, 4096))?)?;
    let write = built(WriteList::new(source, import, index, 0, count as u64))?;
    let told = built(write.notify_with_checksum(77, count as u64 * 8, 9))?;
    let wrote = succeed(&mut ours.ring, told)?;
    let total: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
    ensure!(wrote.word0 == total, "{wrote:?}");
    let arrival = theirs.next()?;
    let in_order: Vec<u8> =
        pairs.iter().flat_map(|&(n, _)| &sent[from[n as usize]..][..lengths[n as usize] as usize]).copied().collect();
    ensure!(arrival.word0 == u64::from(crc32c(&in_order)) << 32 | 77 && arrival.res == 9, "{arrival:?}");
    ensure!(bytes_of(&inbox_mapping).starts_with(b"all there"), "the notification");
    let landed = bytes_of(&target_mapping);
    let mut covered = 0;
    for ((from, to), &length) in from.iter().zip(&to).zip(&lengths) {
        ensure!(landed[*to..][..length as usize] == sent[*from..][..length as usize], "a segment is another");
        covered += length as usize;
    }
    ensure!(landed.iter().filter(|&&byte| byte != 0).count() <= covered, "something has landed beside the segments");
    // Read back into other places: segments of one length, exchanged.
    let same = lengths.iter().enumerate().find_map(|(n, length)| {
        let other = lengths[n + 1..].iter().position(|it| it == length)?;
        Some((n as u32, (n + 1 + other) as u32))
    });
    let (a, b) = same.context("no two lengths are the same")?;
    write_pairs(&index_mapping, &[(a, b), (b, a)])?;
    let read = succeed(&mut ours.ring, built(ReadList::new(source, import, index, 0, 2))?.checksum())?;
    let piece = |n: u32| &sent[from[n as usize]..][..lengths[n as usize] as usize];
    ensure!(read.word1 == crc32c(&[piece(b), piece(a)].concat()).into(), "{read:?}");
    let now = bytes_of(&source_mapping);
    ensure!(now[from[a as usize]..].starts_with(piece(b)) && now[from[b as usize]..].starts_with(piece(a)));
    // What does not fit is found before the first byte moves, on either side.
    ensure!(target_mapping.write(0, &vec![0; landed.len()]), "writing");
    let bad: [(&[(u32, u32)], Errno); 4] = [
        (&[(0, 0), (count as u32, 1)], Errno::ERANGE),
        (&[(0, 0), (1, count as u32)], Errno::ERANGE),
        (&[(0, 0), (1, u32::MAX)], Errno::ERANGE),
        (&[(0, 0), (1, 2)], Errno::EINVAL),
    ];
    for (pairs, errno) in bad {
        write_pairs(&index_mapping, pairs)?;
        let write = built(WriteList::new(source, import, index, 0, pairs.len() as u64))?;
        let cqe = complete(&mut ours.ring, write)?;
        ensure!(cqe.result() == Err(errno), "{pairs:?}: {cqe:?}");
        let read = complete(&mut ours.ring, built(ReadList::new(source, import, index, 0, pairs.len() as u64))?)?;
        ensure!(read.result() == Err(errno), "{pairs:?}: {read:?}");
    }
    ensure!(bytes_of(&target_mapping).iter().all(|&byte| byte == 0), "something has landed of a refused list");
    Ok(())
}

/// Either side goes while workers read index pairs of large lists, or are about to say the request to a peer that is
/// no more there.
fn lists_of_the_gone() -> Result<()> {
    const SEGMENTS: u32 = 20_000;
    let (mut reached, mut ended) = (0, 0);
    for round in 0..12u64 {
        let (mut ours, mut theirs) = pair()?;
        let (source, _, mapping, _) = scattered(&mut ours, &vec![64; SEGMENTS as usize])?;
        let (target, _, landed, _) = scattered(&mut theirs, &vec![64; SEGMENTS as usize])?;
        let (_lease, token) = theirs.grant(LeaseGrant::list(target, Rights::READ.with(Rights::WRITE)))?;
        let import = ours.import(&token)?;
        let (index, index_mapping) = ours.buffer(u64::from(SEGMENTS) * 8)?;
        write_pairs(&index_mapping, &(0..SEGMENTS).map(|n| (n, n)).collect::<Vec<_>>())?;
        for n in 0..4 {
            let write = built(WriteList::new(source, import, index, 0, u64::from(SEGMENTS)))?.user_data(n);
            ensure!(ours.ring.push(write).is_ok(), "the ring is full");
        }
        ours.ring.enter(0, WAIT)?;
        std::thread::sleep(Duration::from_millis(round / 2 * 4));
        if round % 2 == 1 {
            // Its own end: what waits goes with it, and nobody is told. Mappings would keep the descriptor.
            drop((mapping, index_mapping, ours));
            until("the peer is gone", || theirs.peer_is_gone())?;
            continue;
        }
        theirs.device.close()?;
        for _ in 0..4 {
            match ours.next()?.result() {
                Ok(_) => reached += 1,
                Err(Errno::ECONNRESET | Errno::EKEYREVOKED) => ended += 1,
                other => anyhow::bail!("a list's write to who has gone: {other:?}"),
            }
        }
        until("the context has ended", || Ok(theirs.ring.closed()))?;
        ensure!(landed.write(0, &vec![0x55; landed.length_bytes()]), "writing");
        std::thread::sleep(Duration::from_millis(20));
        ensure!(bytes_of(&landed).iter().all(|&byte| byte == 0x55), "something landed after the end");
        // What it showed can be freed: nothing holds it any more.
        succeed(&mut ours.ring, ListFree::new(source))?;
        succeed(&mut ours.ring, Free::new(index))?;
    }
    println!("  {reached} lists were written in time, {ended} ended with their peer");
    ensure!(ended > 0, "no list was under way when a peer went");
    Ok(())
}

/// A ring full of entries each of which looks through a table of 2^18 peers: one call to ENTER took them all, and held
/// the context's other users up meanwhile.
fn long_entries() -> Result<()> {
    let (_ours, mut theirs) = pair()?;
    let (target, _mapping) = theirs.buffer(4096)?;
    let (_lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, 4096, Rights::READ))?)?;
    let setup = DeviceSetup { peers: 1 << 18, inbound_per_peer: 1, ..DeviceSetup::default() };
    let stranger = Device::open(setup)?;
    let mut ring = stranger.ring(4096, 8192)?;
    let scratch = with_scratch(&stranger, &mut ring)?;
    ensure!(scratch.1.write(0, &token), "the token");
    for _ in 0..4096 {
        let import = built(LeaseImport::new(scratch.0, 0, token.len() as u64))?;
        ensure!(ring.push(import).is_ok(), "the ring is full");
    }
    let start = Instant::now();
    ring.enter(0, Duration::ZERO)?;
    let entered = start.elapsed();
    information(&stranger, "operations")?;
    let looked = start.elapsed();
    ring.enter(1, WAIT)?;
    let cqe = ring.reap_one().context("no completion")?;
    ensure!(cqe.result() == Err(Errno::ENOTCONN), "{cqe:?}");
    println!("  ENTER took {entered:?}, looking on {:?}", looked - entered);
    ensure!(looked < Duration::from_secs(5), "ENTER took {entered:?}, and looking on until {looked:?}");
    // It waits for the hold that it finds, and has one of its own; once it tried for eighteen of them.
    let patience = 5 * entered + Duration::from_millis(500);
    ensure!(looked - entered < patience, "ENTER took {entered:?}, and looking on until {looked:?}");
    // It goes while there are thousands left.
    let start = Instant::now();
    drop((scratch, ring, stranger));
    ensure!(start.elapsed() < Duration::from_secs(5), "closing took {:?}", start.elapsed());
    Ok(())
}

fn own_peer() -> Result<()> {
    let (device, mut ring) = device()?;
    let scratch = with_scratch(&device, &mut ring)?;
    let listener = device.listen("local:own")?;
    let peer = peer_of(&complete(&mut ring, connect_sqe(&scratch, "local:own")?)?)?;
    let other = peer_of(&complete(&mut ring, Accept::new(listener))?)?;
    let mut side = Side { device, ring, peer, scratch };
    let (buffer, mapping) = side.buffer(1 << 20)?;
    let (_lease, token) = side.grant(built(LeaseGrant::range(buffer, 0, 1 << 20, Rights::WRITE))?.to_peer(other))?;
    let import = side.import(&token)?;
    let sent = pattern(1 << 20, 1);
    ensure!(mapping.write(0, &sent), "writing");
    // Its source and its target overlap: what lands is anybody's guess (clause LOC-3), and nothing else is harmed.
    succeed(&mut side.ring, built(Write::new(buffer, 0, import, 1 << 12, 64 << 10))?)?;
    succeed(&mut side.ring, built(Write::new(buffer, 0, import, 512 << 10, 512 << 10))?)?;
    ensure!(bytes_of(&mapping)[(512 << 10) + (68 << 10)..] == sent[68 << 10..512 << 10], "others have landed");
    succeed(&mut side.ring, Disconnect::new(peer))?;
    succeed(&mut side.ring, Disconnect::new(other))?;
    ensure!(information(&side.device, "peers")? == 0, "a peer is left");
    Ok(())
}

fn disconnected() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let (inbox, _mapping) = theirs.buffer(4096)?;
    theirs.push(built(Recv::new(theirs.peer, inbox, 0, 4096))?.user_data(5))?;
    // Waits for a credit that will not come.
    let (source, _source_mapping) = ours.buffer(4096)?;
    succeed(&mut ours.ring, built(Send::new(ours.peer, source, 0, 16))?)?;
    ensure!(theirs.next()?.user_data == 5);
    ours.push(built(Send::new(ours.peer, source, 0, 16))?.user_data(6))?;
    theirs.push(built(Recv::new(theirs.peer, inbox, 0, 4096))?.user_data(7).sqe())?;
    ensure!(ours.next()?.user_data == 6 && theirs.next()?.user_data == 7);
    ours.push(built(Send::new(ours.peer, source, 0, 16))?.user_data(8))?;
    succeed(&mut theirs.ring, Disconnect::new(theirs.peer))?;
    let ended = ours.next()?;
    ensure!(ended.user_data == 8 && ended.result() == Err(Errno::ECONNRESET), "{ended:?}");
    ensure!(ours.peer_is_gone()?, "the peer lives");
    succeed(&mut ours.ring, Disconnect::new(ours.peer))?;
    let stale = complete(&mut ours.ring, CreditQuery::new(ours.peer))?;
    ensure!(stale.result() == Err(Errno::ESTALE), "{stale:?}");
    Ok(())
}

fn revoked_under_way() -> Result<()> {
    let (mut ours, mut theirs) = pair()?;
    let length = 32 << 20;
    let (target, landed) = theirs.buffer(length)?;
    let (source, mapping) = ours.buffer(length)?;
    ensure!(mapping.write(0, &vec![0xaa; length as usize]), "writing");
    let ours_now = vec![0x55; length as usize];
    let mut seen = vec![0; length as usize];
    let (mut stopped, mut complete_ones) = (0, 0);
    for round in 0..16u64 {
        let (lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::WRITE))?)?;
        let import = ours.import(&token)?;
        ours.push(built(Write::new(source, 0, import, 0, length))?.user_data(round))?;
        std::thread::sleep(Duration::from_micros(round * 300));
        let revoke = if round % 2 == 0 { LeaseRevoke::now(lease) } else { LeaseRevoke::graceful(lease, 1_000_000) };
        succeed(&mut theirs.ring, revoke)?;
        // From here on the memory is ours: what is written there now stays. First where a copy would come last.
        ensure!(landed.write(length as usize - 4096, &ours_now[..4096]), "writing");
        ensure!(landed.write(0, &ours_now[4096..]), "writing");
        let cqe = ours.next()?;
        ensure!(cqe.user_data == round, "{cqe:?}");
        match cqe.result() {
            Ok(_) => complete_ones += 1,
            Err(Errno::EKEYREVOKED) => stopped += 1,
            // It came only when the lease had gone: nothing of it was under way.
            Err(Errno::ESTALE) => {}
            Err(errno) => anyhow::bail!("round {round}: {errno}"),
        }
        ensure!(landed.read(0, &mut seen), "reading");
        ensure!(seen == ours_now, "round {round}: something landed after the revoke");
    }
    ensure!(stopped > 0, "no copy was stopped: {complete_ones} were complete");
    Ok(())
}

/// Its copy had to have its turn before it could see that it was told to stop: a revoke took as long as all copies that
/// had been asked for before it.
fn revoked_in_the_queue() -> Result<()> {
    const WRITES: u64 = 48;
    let (mut ours, mut theirs) = pair()?;
    let length = 16 << 20;
    let (target, _landed) = theirs.buffer(length)?;
    let (source, _mapping) = ours.buffer(length)?;
    let (mut rounds, mut before) = (0, Vec::new());
    let start = Instant::now();
    // A round counts when the write had been admitted, so that its copy stood behind the others'.
    while before.len() < 3 && start.elapsed() < Duration::from_secs(60) {
        rounds += 1;
        let mut leases = Vec::new();
        for n in 0..WRITES {
            let (lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::WRITE))?)?;
            let import = ours.import(&token)?;
            let write = built(Write::new(source, 0, import, 0, length))?.user_data(n);
            leases.push((lease, write));
        }
        for (_, write) in &leases {
            ensure!(ours.ring.push(*write).is_ok(), "the ring is full");
        }
        ours.ring.submit()?;
        ours.ring.enter(0, WAIT)?;
        // The peer hears of one after the other.
        std::thread::sleep(Duration::from_millis(rounds % 8));
        let (last, _) = leases.pop().context("no lease")?;
        succeed(&mut theirs.ring, LeaseRevoke::now(last))?;
        let ended = ours.ring.available();
        for (lease, _) in leases {
            succeed(&mut theirs.ring, LeaseRevoke::now(lease))?;
        }
        ours.ring.enter(WRITES as u32, WAIT)?;
        let mut stood_behind = false;
        ours.ring.reap(u32::MAX, |cqe| {
            stood_behind |= cqe.user_data == WRITES - 1 && cqe.result() == Err(Errno::EKEYREVOKED);
        });
        if stood_behind {
            before.push(ended);
        }
    }
    println!("  {rounds} rounds; in those that count so many of {WRITES} had ended before a revoke did: {before:?}");
    ensure!(before.len() == 3, "the last of {WRITES} writes was never both admitted and waiting");
    ensure!(before.iter().all(|&ended| ended < WRITES as u32 / 2), "a revoke waited for others' copies: {before:?}");
    Ok(())
}

/// A process with a peer that writes to it without end, until it is killed.
pub fn writer(address: &str) -> Result<()> {
    let (device, ring) = device()?;
    let mut side = connected(device, ring, address)?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let token: Vec<u8> = line.trim().split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let import = side.import(&token)?;
    let (source, mapping) = side.buffer(4 << 20)?;
    let (own, _own_mapping) = side.buffer(4 << 20)?;
    let (_lease, back) = side.grant(built(LeaseGrant::range(own, 0, 4 << 20, Rights::READ))?)?;
    println!("{}", back.iter().map(u8::to_string).collect::<Vec<_>>().join(" "));
    std::io::stdout().flush()?;
    ensure!(mapping.write(0, &vec![0xaa; 4 << 20]), "writing");
    loop {
        for _ in 0..8 {
            side.push(built(Write::new(source, 0, import, 0, 4 << 20))?)?;
        }
        side.ring.enter(8, WAIT)?;
        side.ring.reap(8, |_| ());
    }
}

fn killed_peer() -> Result<()> {
    for round in 0..6u64 {
        let (device, ring) = device()?;
        let address = fresh_address();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(format!("--child=writer={address}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = None;
        let side = accepted(device, ring, &address, || child = Some(command.spawn()));
        let mut child = child.context("it was not listened")??;
        let mut side = match side {
            Ok(side) => side,
            Err(error) => {
                let _ = child.kill();
                return Err(error);
            }
        };
        let (target, landed) = side.buffer(4 << 20)?;
        let (lease, token) = side.grant(built(LeaseGrant::range(target, 0, 4 << 20, Rights::WRITE))?)?;
        let text = token.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
        writeln!(child.stdin.as_mut().context("no input")?, "{text}")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let back: Vec<u8> = line.trim().split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let import = side.import(&back)?;
        // Reads of the child's memory are under way as well.
        let (into, _into_mapping) = side.buffer(4 << 20)?;
        for n in 0..8 {
            side.push(built(Read::new(into, 0, import, 0, 4 << 20))?.user_data(n))?;
        }
        std::thread::sleep(Duration::from_millis(round * 11));
        child.kill()?;
        child.wait()?;
        for _ in 0..8 {
            let cqe = side.next()?;
            ensure!(matches!(cqe.result(), Ok(_) | Err(Errno::ECONNRESET | Errno::EKEYREVOKED)), "{cqe:?}");
        }
        until("the peer is gone", || side.peer_is_gone())?;
        // Its lease has ended with it; when that is told nothing lands any more.
        succeed(&mut side.ring, LeaseRevoke::now(lease))?;
        ensure!(landed.write(0, &vec![0x55; 4 << 20]), "writing");
        std::thread::sleep(Duration::from_millis(20));
        ensure!(bytes_of(&landed).iter().all(|&byte| byte == 0x55), "something landed after the peer's end");
        succeed(&mut side.ring, Disconnect::new(side.peer))?;
    }
    Ok(())
}

/// A long write is given up by its context's end, on either side, and nothing of it lands from then on.
fn outlives() -> Result<()> {
    for round in 0..6u64 {
        let (mut ours, mut theirs) = pair()?;
        let length = 16 << 20;
        let (target, landed) = theirs.buffer(length)?;
        let (lease, token) = theirs.grant(built(LeaseGrant::range(target, 0, length, Rights::WRITE))?)?;
        let import = ours.import(&token)?;
        let (source, mapping) = ours.buffer(length)?;
        ensure!(mapping.write(0, &vec![0xaa; length as usize]), "writing");
        ours.push(built(Write::new(source, 0, import, 0, length))?)?;
        std::thread::sleep(Duration::from_micros(round * 300));
        let start = Instant::now();
        if round % 2 == 0 {
            // The memory stays, for it is mapped, and shows whatever would still land.
            theirs.device.close()?;
            let cqe = ours.next()?;
            ensure!(matches!(cqe.result(), Ok(_) | Err(Errno::ECONNRESET | Errno::EKEYREVOKED)), "{cqe:?}");
            until("the context has ended", || Ok(theirs.ring.closed()))?;
        } else {
            // A mapping keeps the descriptor.
            drop(mapping);
            drop(ours);
            until("the peer is gone", || theirs.peer_is_gone())?;
            succeed(&mut theirs.ring, LeaseRevoke::now(lease))?;
        }
        ensure!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
        ensure!(landed.write(0, &vec![0x55; length as usize]), "writing");
        std::thread::sleep(Duration::from_millis(20));
        ensure!(bytes_of(&landed).iter().all(|&byte| byte == 0x55), "something landed after the end");
    }
    Ok(())
}

fn repeated() -> Result<()> {
    for _ in 0..if slow() { 10 } else { 40 } {
        let (mut ours, mut theirs) = pair()?;
        let (inbox, _mapping) = theirs.buffer(64 << 10)?;
        for n in 0..16 {
            theirs.push(built(Recv::new(theirs.peer, inbox, n * 4096, 4096))?.user_data(n))?;
        }
        let (source, _source_mapping) = ours.buffer(4096)?;
        for _ in 0..8 {
            succeed(&mut ours.ring, built(Send::new(ours.peer, source, 0, 64))?)?;
        }
        // Eight are left posted.
    }
    Ok(())
}
