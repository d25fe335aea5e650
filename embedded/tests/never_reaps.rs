//! The CQ cannot overflow, and cannot deadlock on that (clauses RES-1 to RES-8).

use dmaplane_embedded::{Config, Context, Ring, RunMode};
use dmaplane_ring::abi::{
    BufferHandle, Cqe, Errno, ImportHandle, LeaseHandle, ListHandle, ListenerHandle, Opcode, PeerHandle, QueryWhat,
    Rights, Run, Sqe, SqeFlags,
};
use dmaplane_ring::build::{
    Accept, Alloc, Cancel, Connect, CreditGrant, CreditQuery, CreditWatermarks, Disconnect, ExportDmabuf, Free,
    ImportRelease, LeaseExport, LeaseGrant, LeaseImport, LeaseRenew, LeaseRevoke, LinkTimeout, ListFree, ListPrepare,
    Nop, Placement, Query, Read, ReadList, Recv, Send, Sync, Timeout, Wait, Watch, Write, WriteImm, WriteList,
};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills in a struct of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn call(ring: &mut Ring, sqe: impl Into<Sqe>) -> Cqe {
    ring.push(sqe).unwrap();
    ring.submit();
    ring.wait_one(5 * SECOND).expect("an answer within 5 s")
}

/// For so long the client does not reap; DMAPLANE_IDLE_SECONDS makes it longer.
fn idle_time() -> Duration {
    let seconds = std::env::var("DMAPLANE_IDLE_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

#[test]
fn res_1_a_client_that_never_reaps_loses_nothing_and_burns_nothing() {
    let config = Config { mode: RunMode::Poller { idle: Duration::from_micros(100) }, ..Config::default() };
    let context = Context::open(config).unwrap();
    let mut ring = context.ring(64, 64).unwrap();
    let mut pushed = HashMap::new();
    let mut next = 0u64;
    let begin = Instant::now();
    let busy = cpu_time();
    // Every opcode, with fields that make it valid, invalid, stale or waiting; whatever the SQ takes.
    while begin.elapsed() < idle_time() {
        for &opcode in Opcode::ALL {
            for flags in [0, SqeFlags::CQE_SKIP_SUCCESS.bits(), SqeFlags::LINK.bits()] {
                let arg64 = if opcode == Opcode::Timeout { 1_000_000 } else { 0 };
                let length = if opcode == Opcode::Alloc { 4096 } else { 0 };
                let sqe =
                    Sqe { opcode: opcode as u8, flags, user_data: next, arg64, length, arg32: 0, ..Sqe::default() };
                if ring.push(sqe).is_ok() {
                    pushed.insert(next, (opcode, flags));
                    next += 1;
                }
            }
        }
        ring.submit();
        std::thread::sleep(Duration::from_millis(1));
    }
    let share = (cpu_time() - busy).as_secs_f64() / begin.elapsed().as_secs_f64();
    assert!(pushed.len() >= 64, "the queues were never full: {}", pushed.len());
    // Now it reaps: everything arrives, once. What was published last ends its chain.
    let deadline = Instant::now() + 20 * SECOND;
    let mut reaped = 0;
    let mut quiet = Instant::now();
    while Instant::now() < deadline && quiet.elapsed() < SECOND {
        while let Some(cqe) = ring.reap_one() {
            reaped += 1;
            quiet = Instant::now();
            if cqe.is_terminal() {
                assert!(pushed.remove(&cqe.user_data).is_some(), "a second terminal CQE: {cqe:?}");
            }
        }
        ring.wait(Duration::from_millis(50));
    }
    // What is left may only be silent successes, and a WATCH, which nothing has happened to end.
    let left: Vec<_> = pushed.values().filter(|(_, flags)| flags & SqeFlags::CQE_SKIP_SUCCESS.bits() == 0).collect();
    let watches = left.iter().filter(|(opcode, _)| *opcode == Opcode::Watch).count();
    assert!(watches <= 1 && left.len() == watches, "lost: {left:?}");
    println!("{reaped} CQEs after {:?} without reaping, {:.1} % of one core", idle_time(), share * 100.0);
    assert!(share < 0.5, "{:.0} % of a core while nothing could be done", share * 100.0);
}

fn handle(ring: &mut Ring, sqe: impl Into<Sqe>) -> u64 {
    let cqe = call(ring, sqe);
    assert!(cqe.res >= 0, "{cqe:?}");
    cqe.word0
}

/// A connected pair of contexts with a ring each, and each side's handle of the other.
struct Pair {
    address: String,
    listener: ListenerHandle,
    contexts: [Context; 2],
    rings: [Ring; 2],
    peers: [PeerHandle; 2],
}

/// The second side has this configuration and this ring.
fn pair(directory: &std::path::Path, config: Config, sq_entries: u32, cq_entries: u32) -> Pair {
    let contexts = [Context::open(Config::default()).unwrap(), Context::open(config).unwrap()];
    let address = format!("shm:{}", directory.join("peer").display());
    let (listener, _) = contexts[0].listen(&address).unwrap();
    let mut rings = [contexts[0].ring(64, 64).unwrap(), contexts[1].ring(sq_entries, cq_entries).unwrap()];
    let buffer = BufferHandle::from_bits(handle(&mut rings[1], Alloc::new(4096).unwrap())).unwrap();
    assert!(contexts[1].map(buffer).unwrap().write(0, address.as_bytes()));
    let connect = Connect::new(buffer, 0, address.len() as u64).unwrap();
    let there = PeerHandle::from_bits(handle(&mut rings[1], connect)).unwrap();
    let here = PeerHandle::from_bits(handle(&mut rings[0], Accept::new(listener))).unwrap();
    Pair { address, listener, contexts, rings, peers: [here, there] }
}

// Where in the furnished side's buffer things lie; the first pages are what transfers move.
const RUNS_AT: u64 = 1 << 16;
const PAIRS_AT: u64 = RUNS_AT + 4096;
const ADDRESS_AT: u64 = PAIRS_AT + 4096;
const TOKEN_AT: u64 = ADDRESS_AT + 4096;
const EXPORT_AT: u64 = TOKEN_AT + 4096;
const WORD_AT: u64 = EXPORT_AT + 4096;
const RECEIVED_AT: u64 = WORD_AT + 4096;
const SLOTS_AT: u64 = RECEIVED_AT + 4096;
const FURNISHED_BYTES: u64 = 1 << 20;
const HOUR_NS: u64 = 3_600_000_000_000;
/// A user_data that no test counts up to.
const END: u64 = u64::MAX;

/// All that it takes for an SQE of every opcode to be taken and done, not refused: the second side's objects. Those
/// that an opcode ends are spare ones.
struct Furnished {
    peer: PeerHandle,
    spare_peer: PeerHandle,
    listener: ListenerHandle,
    buffer: BufferHandle,
    spare_buffer: BufferHandle,
    list: ListHandle,
    spare_list: ListHandle,
    lease: LeaseHandle,
    spare_lease: LeaseHandle,
    import: ImportHandle,
    list_import: ImportHandle,
    spare_import: ImportHandle,
    address_bytes: u64,
    token_bytes: u64,
}

/// A lease of the first side's, exported: its token is put where the second side claims from. The token's length.
fn hand_over(pair: &mut Pair, grant: LeaseGrant, to: BufferHandle) -> u64 {
    let lease = LeaseHandle::from_bits(handle(&mut pair.rings[0], grant)).unwrap();
    let desk = BufferHandle::from_bits(handle(&mut pair.rings[0], Alloc::new(4096).unwrap())).unwrap();
    let length = call(&mut pair.rings[0], LeaseExport::new(lease, desk, 0)).res as usize;
    let mut token = vec![0; length];
    assert!(pair.contexts[0].map(desk).unwrap().read(0, &mut token));
    assert!(pair.contexts[1].map(to).unwrap().write(TOKEN_AT, &token));
    length as u64
}

/// A list of pages of a buffer.
fn list(context: &Context, ring: &mut Ring, buffer: BufferHandle) -> ListHandle {
    let run =
        Run { buffer: buffer.handle().bits(), stride_bytes: 4096, length_bytes: 4096, count: 4, ..Run::default() };
    let bytes: Vec<u8> = run.to_words().iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(context.map(buffer).unwrap().write(RUNS_AT, &bytes));
    ListHandle::from_bits(handle(ring, ListPrepare::new(buffer, RUNS_AT, 1).unwrap())).unwrap()
}

fn furnish(pair: &mut Pair) -> Furnished {
    let both = Rights::READ.with(Rights::WRITE);
    let alloc = |ring: &mut Ring, bytes| BufferHandle::from_bits(handle(ring, Alloc::new(bytes).unwrap())).unwrap();
    let theirs = alloc(&mut pair.rings[0], FURNISHED_BYTES);
    let their_list = list(&pair.contexts[0], &mut pair.rings[0], theirs);
    let buffer = alloc(&mut pair.rings[1], FURNISHED_BYTES);
    let peer = pair.peers[1];
    let claim = |pair: &mut Pair, grant: LeaseGrant| {
        let length = hand_over(pair, grant, buffer);
        let import = LeaseImport::new(buffer, TOKEN_AT, length).unwrap().from_peer(peer);
        ImportHandle::from_bits(handle(&mut pair.rings[1], import)).unwrap()
    };
    let range = LeaseGrant::range(theirs, 0, 1 << 16, both).unwrap();
    let import = claim(pair, range);
    let list_import = claim(pair, LeaseGrant::list(their_list, both));
    let spare_import = claim(pair, range);
    // The last one stays there, for LEASE_IMPORT.
    let token_bytes = hand_over(pair, range, buffer);

    let memory = pair.contexts[1].map(buffer).unwrap();
    let pairs: Vec<u8> = [0u32, 0, 1, 1].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert!(memory.write(PAIRS_AT, &pairs) && memory.write(ADDRESS_AT, pair.address.as_bytes()));
    let address_bytes = pair.address.len() as u64;
    let own_address = pair.address.replace("peer", "own");
    let (listener, _) = pair.contexts[1].listen(&own_address).unwrap();
    let ring = &mut pair.rings[1];
    let connect = Connect::new(buffer, ADDRESS_AT, address_bytes).unwrap();
    let spare_peer = PeerHandle::from_bits(handle(ring, connect)).unwrap();
    let lease = |ring: &mut Ring| {
        let grant = LeaseGrant::range(buffer, 0, 4096, both).unwrap();
        LeaseHandle::from_bits(handle(ring, grant)).unwrap()
    };
    let furnished = Furnished {
        peer,
        spare_peer,
        listener,
        buffer,
        spare_buffer: alloc(ring, 4096),
        list: list(&pair.contexts[1], ring, buffer),
        spare_list: list(&pair.contexts[1], ring, buffer),
        lease: lease(ring),
        spare_lease: lease(ring),
        import,
        list_import,
        spare_import,
        address_bytes,
        token_bytes,
    };
    handle(&mut pair.rings[0], Accept::new(pair.listener));
    furnished
}

impl Furnished {
    /// One SQE of every opcode at least, the first with this user_data.
    fn sqes(&self, first: u64) -> Vec<Sqe> {
        let Furnished { peer, buffer, list, import, list_import, .. } = *self;
        let sqes: Vec<Sqe> = vec![
            // Ended by the next one.
            Timeout::after_ns(HOUR_NS).into(),
            Cancel::by_user_data(first).into(),
            // Ended by the next one too.
            Timeout::after_ns(HOUR_NS).link().into(),
            LinkTimeout::after_ns(1_000_000).into(),
            // These wait for what never comes.
            Recv::new(peer, buffer, RECEIVED_AT, 1024).unwrap().into(),
            CreditGrant::new(peer, 2).slots(buffer, SLOTS_AT, 4096).unwrap().into(),
            Accept::new(self.listener).into(),
            Watch::new().into(),
            Wait::on_word(buffer, WORD_AT, 1).into(),
            Timeout::after_ns(HOUR_NS).into(),
            // These wait for credit that the peer never gives.
            Send::new(peer, buffer, 0, 64).unwrap().into(),
            WriteImm::new(buffer, 0, import, 0, 4096).unwrap().into(),
            // These are done.
            Nop::new().into(),
            Timeout::after_ns(1_000_000).into(),
            Query::new(QueryWhat::InFlight).into(),
            Alloc::new(4096).unwrap().into(),
            Placement::new(buffer, 0).into(),
            ExportDmabuf::new(buffer).into(),
            Sync::begin(buffer).into(),
            ListPrepare::new(buffer, RUNS_AT, 1).unwrap().into(),
            LeaseGrant::range(buffer, 0, 4096, Rights::READ).unwrap().into(),
            LeaseExport::new(self.lease, buffer, EXPORT_AT).into(),
            LeaseRenew::new(self.lease, HOUR_NS).into(),
            LeaseImport::new(buffer, TOKEN_AT, self.token_bytes).unwrap().from_peer(peer).into(),
            Connect::new(buffer, ADDRESS_AT, self.address_bytes).unwrap().into(),
            Write::new(buffer, 0, import, 0, 1 << 16).unwrap().into(),
            Read::new(buffer, 0, import, 0, 1 << 16).unwrap().into(),
            WriteList::new(list, list_import, buffer, PAIRS_AT, 2).unwrap().into(),
            ReadList::new(list, list_import, buffer, PAIRS_AT, 2).unwrap().into(),
            CreditQuery::new(peer).into(),
            CreditWatermarks::new(peer, 1 << 20, 1 << 19).unwrap().into(),
            // These are done once.
            LeaseRevoke::graceful(self.spare_lease, 1_000_000).into(),
            ImportRelease::new(self.spare_import).into(),
            ListFree::new(self.spare_list).into(),
            Free::new(self.spare_buffer).into(),
            Disconnect::new(self.spare_peer).into(),
        ];
        sqes.into_iter().zip(first..).map(|(sqe, user_data)| Sqe { user_data, ..sqe }).collect()
    }
}

/// Takes all CQEs until none comes for a while. Each is the last of one of these.
fn reap_all(ring: &mut Ring, pushed: &mut HashMap<u64, Opcode>, mut ended: impl FnMut(Opcode, i32)) {
    let mut quiet = Instant::now();
    while quiet.elapsed() < SECOND {
        while let Some(cqe) = ring.reap_one() {
            quiet = Instant::now();
            if cqe.is_terminal() && cqe.user_data != END {
                let opcode = pushed.remove(&cqe.user_data);
                ended(opcode.unwrap_or_else(|| panic!("a second terminal CQE: {cqe:?}")), cqe.res);
            }
        }
        ring.wait(Duration::from_millis(50));
    }
}

#[test]
fn res_1_with_every_opcode_in_flight_a_client_that_never_reaps_loses_nothing_and_burns_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { mode: RunMode::Poller { idle: Duration::from_micros(100) }, ..Config::default() };
    let mut pair = pair(directory.path(), config, 256, 512);
    let furnished = furnish(&mut pair);
    let Pair { contexts, mut rings, .. } = pair;
    let ring = &mut rings[1];
    let mut pushed = HashMap::new();
    let mut next = 0u64;
    let (begin, busy) = (Instant::now(), cpu_time());
    while begin.elapsed() < idle_time() {
        let sqes = furnished.sqes(next);
        // A chain must not be cut, and a CANCEL must follow what it ends: all of them or none.
        if ring.free() as usize >= sqes.len() {
            for sqe in sqes {
                ring.push(sqe).unwrap();
                pushed.insert(sqe.user_data, Opcode::from_byte(sqe.opcode).unwrap());
                next = sqe.user_data + 1;
            }
            ring.submit();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let share = (cpu_time() - busy).as_secs_f64() / begin.elapsed().as_secs_f64();
    for &opcode in Opcode::ALL {
        assert!(pushed.values().any(|&other| other == opcode), "{opcode:?} is missing");
    }
    let usage = contexts[1].usage();
    let mut outcomes: HashMap<Opcode, Vec<i32>> = HashMap::new();
    let mut ended = |opcode, result| outcomes.entry(opcode).or_default().push(result);
    let all = pushed.len();
    reap_all(ring, &mut pushed, &mut ended);
    let waited = pushed.len();
    ring.push(Cancel::any().force().user_data(END)).unwrap();
    ring.submit();
    reap_all(ring, &mut pushed, &mut ended);
    assert!(pushed.is_empty(), "lost: {pushed:?}");
    for opcode in Opcode::ALL {
        // What waits ends by its time or by the cancel, which ends the connection of those that have given credit away;
        // everything else has been done at least once.
        let fine = |&result: &i32| {
            result >= 0 || [Errno::ETIME, Errno::ECANCELED, Errno::ECONNRESET].map(Errno::as_result).contains(&result)
        };
        assert!(outcomes[opcode].iter().any(fine), "{opcode:?} was only ever refused: {:?}", outcomes[opcode]);
    }
    println!(
        "{all} SQEs, {} operations in flight while nobody reaped, {waited} until cancelled; {:.1} % of one core",
        usage.operations,
        share * 100.0
    );
    assert!(usage.operations >= 8, "of what waits for what never comes: {usage:?}");
    assert!(share < 0.5, "{:.0} % of a core while nothing could be done", share * 100.0);
}

#[test]
fn res_3_a_revoke_completes_while_all_room_is_held_by_receives_and_credit_waits() {
    let directory = tempfile::tempdir().unwrap();
    let Pair { contexts, mut rings, peers, .. } = pair(directory.path(), Config::default(), 64, 64);
    let ring = &mut rings[1];
    let buffer = BufferHandle::from_bits(handle(ring, Alloc::new(1 << 16).unwrap())).unwrap();
    let grant = LeaseGrant::range(buffer, 0, 4096, Rights::WRITE).unwrap();
    // A revoke that waited for that room would wait for ever. The median of some tells, however busy the machine.
    let leases: Vec<_> = (0..20).map(|_| LeaseHandle::from_bits(handle(ring, grant)).unwrap()).collect();

    // An import of the other side's, to write to without ever getting a credit.
    let theirs = BufferHandle::from_bits(handle(&mut rings[0], Alloc::new(4096).unwrap())).unwrap();
    let granted = handle(&mut rings[0], LeaseGrant::range(theirs, 0, 2048, Rights::WRITE).unwrap());
    let granted = LeaseHandle::from_bits(granted).unwrap();
    let export = LeaseExport::new(granted, theirs, 2048);
    let length = call(&mut rings[0], export).res as usize;
    let mut token = vec![0; length];
    assert!(contexts[0].map(theirs).unwrap().read(2048, &mut token));
    assert!(contexts[1].map(buffer).unwrap().write(8192, &token));
    let ring = &mut rings[1];
    let import = LeaseImport::new(buffer, 8192, length as u64).unwrap();
    let import = ImportHandle::from_bits(handle(ring, import)).unwrap();

    let mut refused = [0; 2];
    let mut refuse = |cqe: Cqe| {
        assert_eq!(cqe.result(), Err(Errno::ENOBUFS), "{cqe:?}");
        refused[(cqe.user_data >= 2000) as usize] += 1;
    };
    // The engine may be behind, but nothing here holds up the queue's head.
    let mut make_room = |ring: &mut Ring, entries: u32| {
        let deadline = Instant::now() + 5 * SECOND;
        while ring.free() < entries {
            assert!(Instant::now() < deadline, "the queue stands still");
            ring.reap(64, &mut refuse);
            std::thread::sleep(Duration::from_micros(100));
        }
    };
    for round in 0..100 {
        let recv = Recv::new(peers[1], buffer, 4096, 1024).unwrap().user_data(1000 + round);
        let write = WriteImm::new(buffer, 0, import, 0, 16).unwrap().user_data(2000 + round);
        make_room(ring, 2);
        ring.push(recv).unwrap();
        ring.push(write).unwrap();
        ring.submit();
    }
    make_room(ring, 64);
    let mut times = Vec::new();
    for lease in leases {
        let start = Instant::now();
        ring.push(LeaseRevoke::now(lease).user_data(1)).unwrap();
        ring.submit();
        let cqe = loop {
            let cqe = ring.wait_one(SECOND).expect("the revoke's CQE");
            if cqe.user_data == 1 {
                break cqe;
            }
            refuse(cqe);
        };
        times.push(start.elapsed());
        assert_eq!(cqe.res, 0);
    }
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("revoked in {median:?} ({:?} to {:?}) behind {refused:?} refusals", times[0], times[times.len() - 1]);
    assert!(refused[0] > 0 && refused[1] > 0, "the room was never used up: {refused:?}");
    assert!(median < Duration::from_millis(10), "{median:?}");
}
