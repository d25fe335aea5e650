//! Nothing lands late (clauses LSE-12, INB-5, SHM-5, TCP-7): a sender holds writes in flight, the receiver revokes and
//! reuses the memory at once, and the old bytes never appear. Built with the feature `broken-no-lease-check` this must
//! fail: it is its own negative control (`cargo xtask test defects`).

mod two_processes;

use dmaplane::{Config, Errno, Plane, Rights};
use std::time::{Duration, Instant};
use two_processes::{Other, WAIT, rounds};

const BYTES: u64 = 1 << 20;
const OLD: u8 = 0xaa;
const NEW: u8 = 0x55;
/// Every so many rounds the sender is stopped in mid-transfer and woken after the revoke.
const STOP_EVERY: u64 = 250;

/// The sender: writes into whatever lease it is told of, as fast as it can, and says when it is done with it.
#[test]
fn sender_process() {
    let Some(address) = two_processes::address_of_this_child() else { return };
    let mut plane = Plane::open(Config::default()).unwrap();
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

fn late_writes(fabric: &str) {
    let rounds = rounds(1_000);
    let mut plane = Plane::open(Config::default()).unwrap();
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
        std::thread::sleep(Duration::from_micros(random >> 55));
        let stopped = round % STOP_EVERY == STOP_EVERY - 1;
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
        assert_eq!(plane.receive_message(&peer, 16, WAIT).unwrap(), b"done");
        assert!(buffer.as_slice().iter().all(|&byte| byte == NEW), "round {round}: old bytes came late");
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

/// 64 transfers in flight to one peer, one lease revoked: the other 63 complete.
fn one_of_many_revoked(fabric: &str) {
    const MANY: usize = 64;
    let mut plane = Plane::open(Config::default()).unwrap();
    let (_sender, peer) = Other::start(&mut plane, fabric, "many_writes_process");
    let mut leases = Vec::new();
    for _ in 0..MANY {
        let buffer = plane.alloc(BYTES).unwrap();
        let leased = plane.grant(buffer, Rights::WRITE).unwrap();
        let token = plane.token(&leased).unwrap();
        plane.send_message(&peer, &token, WAIT).unwrap();
        leases.push(leased);
    }
    assert_eq!(plane.receive_message(&peer, 16, WAIT).unwrap(), b"ready");
    let last = leases.pop().unwrap();
    plane.send_message(&peer, b"go", WAIT).unwrap();
    let mut revoked = plane.revoke(last).unwrap();
    revoked.as_mut_slice().fill(NEW);
    let counts = plane.receive_message(&peer, 16, WAIT).unwrap();
    assert_eq!((counts[0] as usize, counts[1] as usize), (MANY - 1, 1), "completed, revoked");
    assert!(revoked.as_slice().iter().all(|&byte| byte == NEW));
    for leased in leases {
        let buffer = plane.revoke(leased).unwrap();
        assert!(buffer.as_slice().iter().all(|&byte| byte == OLD), "a completed write has landed whole");
    }
}

#[test]
fn many_writes_process() {
    let Some(address) = two_processes::address_of_this_child() else { return };
    let mut plane = Plane::open(Config::default()).unwrap();
    let peer = plane.connect(&address, WAIT).unwrap();
    let mut imports = Vec::new();
    let mut buffers = Vec::new();
    for _ in 0..64 {
        let token = plane.receive_message(&peer, 4096, WAIT).unwrap();
        imports.push(plane.import(&peer, &token).unwrap());
        let mut source = plane.alloc(BYTES).unwrap();
        source.as_mut_slice().fill(OLD);
        buffers.push(source);
    }
    plane.send_message(&peer, b"ready", WAIT).unwrap();
    assert_eq!(plane.receive_message(&peer, 16, WAIT).unwrap(), b"go");
    let started: Vec<_> = buffers
        .into_iter()
        .zip(&imports)
        .map(|(buffer, import)| plane.start_write(buffer, 0, import, 0, BYTES).map_err(|(error, _)| error).unwrap())
        .collect();
    let (mut completed, mut revoked) = (0u8, 0u8);
    for operation in started {
        let (result, _buffer) = operation.finish(&mut plane, WAIT).map_err(|_| "in flight for too long").unwrap();
        match result {
            Ok(_) => completed += 1,
            Err(error) => {
                assert!(matches!(error.errno(), Some(Errno::EKEYREVOKED | Errno::ESTALE)), "{error}");
                revoked += 1;
            }
        }
    }
    plane.send_message(&peer, &[completed, revoked], WAIT).unwrap();
    let _ = plane.receive_message(&peer, 1, WAIT);
}

#[test]
fn lse_10_one_of_64_transfers_revoked_over_shm() {
    one_of_many_revoked("shm");
}

#[test]
fn lse_10_one_of_64_transfers_revoked_over_tcp() {
    one_of_many_revoked("tcp");
}
