//! Nothing lands late (clauses LSE-12, INB-5, SHM-5, TCP-7): a sender holds writes in flight, the receiver revokes and
//! reuses the memory at once, and the old bytes never appear. Built with the feature `broken-no-lease-check` this must
//! fail: it is its own negative control (`cargo xtask test defects`).

mod two_processes;

use dmaplane::{Buffer, Errno, Error, Peer, Plane, Rights};
use std::time::{Duration, Instant};
use two_processes::{Other, WAIT, rounds};

const BYTES: u64 = 1 << 20;
const OLD: u8 = 0xaa;
const NEW: u8 = 0x55;
/// Every so many rounds, or a quarter of them, the sender is stopped in mid-transfer and woken after the revoke.
const STOP_EVERY: u64 = 250;
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The sender: writes into whatever lease it is told of, as fast as it can, and says when it is done with it.
#[test]
fn sender_process() {
    let Some(address) = two_processes::address_of_this_child() else { return };
    let mut plane = two_processes::open(&address);
    let peer = plane.connect(&address, WAIT).unwrap();
    let mut source = plane.alloc(BYTES).unwrap();
    source.as_mut_slice().fill(OLD);
    while let Ok(token) = plane.receive_message(&peer, 4096, WAIT) {
        if let Ok(import) = plane.import(&peer, &token) {
            // Until the lease is over: then a write fails.
            while plane.write(&source, 0, &import, 0, BYTES).is_ok() && !cfg!(feature = "broken-no-lease-check") {}
            let _ = plane.release(import);
        }
        if plane.send_message(&peer, b"done", WAIT).is_err() {
            break;
        }
    }
}

fn quantile(sorted: &[Duration], part: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// Waits for the sender's word, and looks into the memory meanwhile: a sender whose writes no revoke ends says nothing.
fn until_done(plane: &mut Plane, peer: &Peer, buffer: &Buffer, round: u64) {
    let start = Instant::now();
    loop {
        let said = plane.receive_message(peer, 16, LOOK_EVERY);
        assert!(buffer.as_slice().iter().all(|&byte| byte == NEW), "round {round}: old bytes came late");
        match said {
            Err(Error::TimedOut { .. }) if start.elapsed() < WAIT => {}
            said => return assert_eq!(said.unwrap(), b"done"),
        }
    }
}

fn late_writes(fabric: &str) {
    let rounds = rounds(1_000);
    let stop_every = STOP_EVERY.min(rounds / 4).max(2);
    let mut plane = two_processes::open(fabric);
    let (mut sender, peer) = Other::start(&mut plane, fabric, "sender_process");
    let mut buffer = plane.alloc(BYTES).unwrap();
    let mut revokes = Vec::new();
    let mut landed = 0u64;
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for round in 0..rounds {
        buffer.as_mut_slice().fill(0);
        let leased = plane.grant(buffer, Rights::WRITE).unwrap();
        let token = plane.token(&leased).unwrap();
        plane.send_message(&peer, &token, WAIT).unwrap();
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        // Half a millisecond at most; in the emulator thirty times that.
        std::thread::sleep(Duration::from_micros(random >> if fabric == "local" { 50 } else { 55 }));
        let stopped = round % stop_every == stop_every - 1;
        if stopped {
            sender.stop();
        }
        let start = Instant::now();
        buffer = plane.revoke(leased).unwrap();
        revokes.push(start.elapsed());
        landed += u64::from(buffer.as_slice().contains(&OLD));
        buffer.as_mut_slice().fill(NEW);
        if stopped {
            sender.go_on();
        }
        assert!(buffer.as_slice().iter().all(|&byte| byte == NEW), "round {round}: old bytes in reused memory");
        until_done(&mut plane, &peer, &buffer, round);
    }
    revokes.sort();
    let (p50, p99) = (quantile(&revokes, 0.5), quantile(&revokes, 0.99));
    println!("{fabric}: {rounds} rounds, writes had landed in {landed}; abort to reuse p50 {p50:?}, p99 {p99:?}");
    assert!(landed * 10 > rounds, "the writes were hardly ever in flight: {landed} of {rounds}");
}

#[test]
fn lse_12_revoked_memory_is_never_written_over_shm() {
    late_writes("shm");
}

#[test]
fn lse_12_revoked_memory_is_never_written_over_tcp() {
    late_writes("tcp");
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn lse_12_revoked_memory_is_never_written_over_local() {
    late_writes("local");
}

const MANY: usize = 64;

/// So many bytes each that most of the 64 are still on their way when the first word of them arrives. The emulator in
/// which the driver is tested copies a tenth as fast, and has little memory.
fn large(address: &str) -> u64 {
    if address.starts_with("local") { 4 << 20 } else { 16 << 20 }
}

/// Rounds that count, and rounds at most.
const ROUNDS_WANTED: u32 = 3;
const ROUNDS_MAX: u32 = 100;

/// How the other process saw a round: how many of its writes completed, were ended by the revoke, and came too late to
/// be admitted.
#[derive(Debug)]
struct Seen {
    completed: u8,
    revoked: u8,
    too_late: u8,
}

/// Waits for the first byte of a write.
fn until_it_lands(byte: impl Fn() -> u8) {
    let start = Instant::now();
    while byte() != OLD {
        assert!(start.elapsed() < WAIT, "a write has not begun");
        std::hint::spin_loop();
    }
}

/// 64 transfers in flight to one peer, one lease revoked: the other 63 complete.
///
/// A round counts when the bytes of the revoked write were on the move: it reports the revoke, and the memory has some
/// of its bytes and not all. A write that had ended before the revoke was seen proves nothing.
fn one_of_many_revoked(fabric: &str) {
    let mut plane = two_processes::open(fabric);
    let (_sender, peer) = Other::start(&mut plane, fabric, "many_writes_process");
    let large = large(fabric);
    let mut buffers: Vec<_> = (0..MANY).map(|_| plane.alloc(large).unwrap()).collect();
    let old = vec![OLD; large as usize];
    let mut counted = Vec::new();
    for round in 0..ROUNDS_MAX {
        let mut leases = Vec::new();
        // All over: where calls take long, the first ones have ended before the last are asked for.
        let chosen = (5 + 13 * round as usize) % MANY;
        let first_byte = buffers[chosen].as_slice().as_ptr();
        for mut buffer in buffers.drain(..) {
            buffer.as_mut_slice().fill(0);
            let leased = plane.grant(buffer, Rights::WRITE).unwrap();
            let token = plane.token(&leased).unwrap();
            plane.send_message(&peer, &token, WAIT).unwrap();
            leases.push(leased);
        }
        let leased = leases.remove(chosen);
        assert_eq!(plane.receive_message(&peer, 16, WAIT).unwrap(), b"started");
        // SAFETY: of a buffer that `leased` keeps; a byte that others may change meanwhile.
        until_it_lands(|| unsafe { first_byte.read_volatile() });
        let mut revoked = plane.revoke(leased).unwrap();
        let landed = revoked.as_slice().iter().filter(|&&byte| byte == OLD).count() as u64;
        revoked.as_mut_slice().fill(NEW);
        let counts = plane.receive_message(&peer, 16, WAIT).unwrap();
        let seen = Seen { completed: counts[0], revoked: counts[1], too_late: counts[2] };
        let named = format!("{fabric}, round {round}, transfer {chosen}, {landed} bytes landed: {seen:?}");
        match (seen, landed) {
            (Seen { completed: 63, revoked: 1, too_late: 0 }, 1..) if landed < large => counted.push((chosen, landed)),
            (Seen { completed: 64, revoked: 0, too_late: 0 } | Seen { completed: 63, revoked: 1, too_late: 0 }, _)
                if landed == large => {}
            _ => panic!("{named}"),
        }
        assert!(revoked.as_slice().iter().all(|&byte| byte == NEW), "{named}: old bytes came late");
        for leased in leases {
            let buffer = plane.revoke(leased).unwrap();
            assert!(buffer.as_slice() == old, "{named}: a write that completed has not landed whole");
            buffers.push(buffer);
        }
        buffers.push(revoked);
        if counted.len() as u32 == ROUNDS_WANTED {
            println!("{fabric}: of {} rounds these count, by transfer and bytes: {counted:?}", round + 1);
            return;
        }
    }
    panic!("{fabric}: only {counted:?} of {ROUNDS_MAX} rounds count");
}

/// How long a stopped peer may hold up a revoke, and how much later than that a busy machine may notice.
const DEADLINE: Duration = Duration::from_millis(100);
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

/// 64 transfers in flight to one peer that is stopped, one lease revoked with a deadline: the revoke completes by it,
/// and once the peer goes on the other 63 complete, too. Nothing lands in the memory that was given back.
fn one_of_many_revoked_of_a_stopped_peer(fabric: &str) {
    let mut plane = two_processes::open(fabric);
    let (mut sender, peer) = Other::start(&mut plane, fabric, "many_writes_process");
    let large = large(fabric);
    let old = vec![OLD; large as usize];
    // What is dropped is freed later: a machine with little memory has not twice as much.
    let mut buffers: Vec<_> = (0..MANY).map(|_| plane.alloc(large).unwrap()).collect();
    for chosen in [0, MANY / 2, MANY - 1] {
        let mut leases = Vec::new();
        for mut buffer in buffers.drain(..) {
            buffer.as_mut_slice().fill(0);
            let leased = plane.grant(buffer, Rights::WRITE).unwrap();
            let token = plane.token(&leased).unwrap();
            plane.send_message(&peer, &token, WAIT).unwrap();
            leases.push(leased);
        }
        assert_eq!(plane.receive_message(&peer, 16, WAIT).unwrap(), b"started");
        sender.stop();
        let start = Instant::now();
        let mut revoked = plane.revoke_gracefully(leases.remove(chosen), DEADLINE).unwrap();
        let took = start.elapsed();
        revoked.as_mut_slice().fill(NEW);
        sender.go_on();
        let counts = plane.receive_message(&peer, 16, WAIT).unwrap();
        let seen = Seen { completed: counts[0], revoked: counts[1], too_late: counts[2] };
        println!("{fabric}, transfer {chosen}: the revoke took {took:?}; {seen:?}");
        assert!(took <= DEADLINE + NOTICED_WITHIN, "{took:?}");
        assert!(seen.completed >= 63 && seen.completed + seen.revoked + seen.too_late == 64, "{seen:?}");
        assert!(revoked.as_slice().iter().all(|&byte| byte == NEW), "old bytes came late");
        for leased in leases {
            let buffer = plane.revoke(leased).unwrap();
            assert!(buffer.as_slice() == old, "a write that completed has not landed whole");
            buffers.push(buffer);
        }
        buffers.push(revoked);
    }
}

#[test]
fn lse_10_a_revoke_does_not_wait_for_a_stopped_peer_over_shm() {
    one_of_many_revoked_of_a_stopped_peer("shm");
}

#[test]
fn lse_10_a_revoke_does_not_wait_for_a_stopped_peer_over_tcp() {
    one_of_many_revoked_of_a_stopped_peer("tcp");
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn lse_10_a_revoke_does_not_wait_for_a_stopped_peer_over_local() {
    one_of_many_revoked_of_a_stopped_peer("local");
}

#[test]
fn many_writes_process() {
    let Some(address) = two_processes::address_of_this_child() else { return };
    let mut plane = two_processes::open(&address);
    let peer = plane.connect(&address, WAIT).unwrap();
    let large = large(&address);
    let mut sources: Vec<_> = (0..MANY).map(|_| plane.alloc(large).unwrap()).collect();
    sources.iter_mut().for_each(|source| source.as_mut_slice().fill(OLD));
    while let Ok(first) = plane.receive_message(&peer, 4096, WAIT) {
        let mut imports = vec![plane.import(&peer, &first).unwrap()];
        for _ in 1..MANY {
            let token = plane.receive_message(&peer, 4096, WAIT).unwrap();
            imports.push(plane.import(&peer, &token).unwrap());
        }
        let started: Vec<_> = sources
            .drain(..)
            .zip(&imports)
            .map(|(source, import)| plane.start_write(source, 0, import, 0, large).map_err(|(error, _)| error).unwrap())
            .collect();
        plane.send_message(&peer, b"started", WAIT).unwrap();
        let mut seen = Seen { completed: 0, revoked: 0, too_late: 0 };
        for operation in started {
            let (result, source) = operation.finish(&mut plane, WAIT).map_err(|_| "in flight for too long").unwrap();
            sources.push(source);
            match result.map_err(|error| error.errno()) {
                Ok(_) => seen.completed += 1,
                Err(Some(Errno::EKEYREVOKED)) => seen.revoked += 1,
                Err(Some(Errno::ESTALE)) => seen.too_late += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        plane.send_message(&peer, &[seen.completed, seen.revoked, seen.too_late], WAIT).unwrap();
        for import in imports {
            plane.release(import).unwrap();
        }
    }
}

#[test]
fn lse_10_one_of_64_transfers_revoked_over_shm() {
    one_of_many_revoked("shm");
}

#[test]
fn lse_10_one_of_64_transfers_revoked_over_tcp() {
    one_of_many_revoked("tcp");
}

#[test]
#[ignore = "wants the kernel driver: cargo xtask vm test"]
fn lse_10_one_of_64_transfers_revoked_over_local() {
    one_of_many_revoked("local");
}
