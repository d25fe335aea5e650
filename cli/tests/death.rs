//! One side is killed half-way, again and again: the other says so within 2 s, nothing is left behind, neither a file
//! nor memory, and the next transfer works. Then the same with a side that only stands still.
//!
//! `DMAPLANE_E2E_KILLS` says how often, `DMAPLANE_E2E_KILL_MIB` how large the file is.

mod common;

use common::files::Random;
use common::memory::{assert_given_back, own_memory, shared_bytes};
use common::{Bench, FABRICS, PROGRAM, Running, files, number};
use dmaplane::{Config, Plane, Rights};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const REPORT_LIMIT: Duration = Duration::from_secs(2);
/// A file of 32 MiB has at least 8 pieces of 4 MiB, of which each side has 4 in memory; larger files have larger ones.
const MIB_MIN: u64 = 32;
/// Half of what one side has in memory at least. So whatever one of the two leaves behind shows in the first round,
/// and a quarter of a buffer a round in the fifth; what other processes of the machine do does not.
const TOLERANCE_BYTES: u64 = 8 << 20;

fn rounds() -> u64 {
    number("DMAPLANE_E2E_KILLS", 5)
}

fn mib() -> u64 {
    let mib = number("DMAPLANE_E2E_KILL_MIB", MIB_MIN);
    assert!(mib >= MIB_MIN, "DMAPLANE_E2E_KILL_MIB={mib}: less than {MIB_MIN} is too little to measure");
    mib
}

/// These tests look at the memory of the whole machine: one at a time. (nextest, which starts a process for each, is
/// told so in xtask/nextest.toml.)
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transfer under way, at a rate at which the file takes more than a second.
fn transfer(bench: &Bench, recv_more: &[&str], send_more: &[&str]) -> (Running, Running) {
    let (recv, place) = bench.recv(recv_more);
    let rate = (mib() / 2).max(24).to_string();
    let mut arguments = vec!["--limit-rate", &rate];
    arguments.extend(send_more);
    let send = bench.send(&place, &bench.text("model.safetensors"), &arguments);
    (recv, send)
}

/// Waits until between a quarter and three quarters of the pieces are there.
fn half_way(recv: &mut Running, random: &mut Random) {
    let cut = recv.log("the file is cut");
    let pieces = cut.split("pieces=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let pieces: u64 = pieces.parse().unwrap();
    let wanted = pieces / 4 + random.next() % (pieces / 2);
    (0..wanted.max(1)).for_each(|_| drop(recv.log("a piece is here")));
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Sender,
    Receiver,
}

fn kill_half_way(victim: Victim) {
    let _alone = alone();
    for fabric in FABRICS {
        let bench = Bench::logging(fabric);
        files::write(&bench.path("model.safetensors"), mib());
        let mut random = Random(7 + victim as u64);
        let mut slowest = Duration::ZERO;
        let mut most = i64::MIN;
        // The least that there ever was, so that what other processes give back hides nothing.
        let mut before = shared_bytes();
        for round in 0..rounds() {
            let named = format!("{fabric}, {victim:?} killed, round {round}");
            let (mut recv, mut send) = transfer(&bench, &[], &[]);
            half_way(&mut recv, &mut random);
            assert!(recv.is_running() && send.is_running(), "{named}: it was over too soon");
            let start = Instant::now();
            let ended = match victim {
                Victim::Sender => {
                    send.kill();
                    recv.end().failed_with("the sender is gone")
                }
                Victim::Receiver => {
                    recv.kill();
                    send.end().failed_with("the receiver is gone")
                }
            };
            let took = start.elapsed();
            assert!(took < REPORT_LIMIT, "{named}: {took:?}, {ended:?}");
            slowest = slowest.max(took);
            nothing_is_left_in_the_folder(&bench, victim, &named);
            // Both processes have ended: whatever of their memory is left, nobody will ever give back.
            let more = assert_given_back(before, TOLERANCE_BYTES, &named);
            most = most.max(more);
            before = before.min(before.saturating_add_signed(more));
        }
        bench.transfer(&bench.text("model.safetensors"));
        assert_given_back(before, TOLERANCE_BYTES, "after the next transfer");
        println!(
            "{fabric}: {victim:?} killed {} times half-way through {} MiB; the other said so within {slowest:?}; \
             shared memory afterwards: at most {most} bytes more than before",
            rounds(),
            mib(),
        );
    }
}

fn nothing_is_left_in_the_folder(bench: &Bench, victim: Victim, named: &str) {
    let left = bench.received();
    assert!(!left.iter().any(|name| name == "out.safetensors"), "{named}: {left:?}");
    if matches!(victim, Victim::Sender) || left.is_empty() {
        assert!(left.is_empty(), "{named}: {left:?}");
        return;
    }
    // Killed, it cannot tidy up: O_TMPFILE, where the file system has it; else the named one, which says whose it was.
    assert!(left.iter().all(|name| name.contains(".partial-")), "{named}: {left:?}");
    dmaplane_sandbox::skip("that nothing at all is left after kill -9", "no O_TMPFILE in the temporary folder");
    left.iter().for_each(|name| std::fs::remove_file(bench.path("received").join(name)).unwrap());
}

/// SHM-8, TCP-10.
#[test]
fn when_the_sender_is_killed_the_receiver_says_so_and_leaves_nothing() {
    kill_half_way(Victim::Sender);
}

/// SHM-8, TCP-10.
#[test]
fn when_the_receiver_is_killed_the_sender_says_so_and_nothing_is_left() {
    kill_half_way(Victim::Receiver);
}

/// The commands end with their peer. A process that lives on, this one, must let go of a killed peer's memory too.
#[test]
fn a_process_that_lives_on_lets_go_of_a_killed_peers_memory() {
    const WAIT: Duration = Duration::from_secs(10);
    let _alone = alone();
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        files::write(&bench.path("model.safetensors"), MIB_MIN);
        let mut plane = Plane::open(Config::default()).unwrap();
        let place = if fabric == "shm" { bench.text("socket") } else { "127.0.0.1:0".to_owned() };
        let (listener, address) = plane.listen(&format!("{fabric}:{place}")).unwrap();
        let place = address.split_once(':').unwrap().1.to_owned();
        let mut before = None;
        // The first round makes what is made once and kept.
        for round in 0..=rounds() {
            let mut send = bench.send(&place, &bench.text("model.safetensors"), &[]);
            let peer = plane.accept(&listener, WAIT).unwrap();
            let hear = |plane: &mut Plane| plane.receive_message(&peer, 1 << 20, WAIT).unwrap();
            hear(&mut plane);
            let piece_bytes = 4 << 20;
            let ready = format!("{{\"kind\":\"ready\",\"piece_bytes\":{piece_bytes}}}");
            plane.send_message(&peer, ready.as_bytes(), WAIT).unwrap();
            hear(&mut plane);
            let mut leases = Vec::new();
            for piece in 0..4 {
                let buffer = plane.alloc(piece_bytes).unwrap();
                let leased = plane.grant_to(buffer, Rights::WRITE, &peer).unwrap();
                let token: String = plane.token(&leased).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
                let grant = format!("{{\"kind\":\"grant\",\"piece\":{piece},\"token\":\"{token}\"}}");
                plane.send_message(&peer, grant.as_bytes(), WAIT).unwrap();
                leases.push(leased);
            }
            // It is in the middle of these when it dies.
            plane.receive(&peer, WAIT).unwrap();
            send.kill();
            while plane.receive(&peer, WAIT).is_ok() {}
            for leased in leases {
                let buffer = plane.revoke(leased).unwrap();
                plane.free(buffer).unwrap();
            }
            plane.disconnect(peer).unwrap();
            let start = Instant::now();
            let expected = *before.get_or_insert_with(|| {
                std::thread::sleep(Duration::from_millis(500));
                own_memory()
            });
            while own_memory() != expected {
                let (now, named) = (own_memory(), format!("{fabric}, round {round}"));
                assert!(start.elapsed() < REPORT_LIMIT, "{named}: {now:?} memfds and mappings, {expected:?} before");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Where no file can be without a name, the receiver still takes it away, whatever its writing thread is at.
#[test]
fn without_unnamed_files_no_partial_file_is_left_either() {
    let _alone = alone();
    let bench = Bench::new("shm");
    files::write(&bench.path("model.safetensors"), 64);
    for round in 0..10 {
        // Without /proc an unnamed file cannot be given a name, so it is not used.
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]);
        let (socket, out) = (bench.text("socket"), bench.out());
        command.args([PROGRAM, "recv", "--fabric", "shm", "--listen", &socket, "--out"]).arg(out);
        let mut recv = Running::start_command(command);
        if !recv.line().starts_with("listening on") {
            let why = recv.end().stderr;
            return dmaplane_sandbox::skip("without_unnamed_files_no_partial_file_is_left_either", why.trim());
        }
        let left = bench.received();
        assert!(matches!(&left[..], [name] if name.starts_with(".out.safetensors.partial-")), "{left:?}");
        let mut send = bench.send(&socket, &bench.text("model.safetensors"), &[]);
        let partial = bench.path("received").join(&left[0]);
        // Its room is taken before the first piece moves; then wherever they are.
        while send.is_running() && std::fs::metadata(&partial).is_ok_and(|partial| partial.blocks() == 0) {}
        std::thread::sleep(Duration::from_millis(4 * round));
        send.kill();
        let ended = recv.end();
        if !ended.status.success() {
            ended.failed_with("the sender is gone");
            assert_eq!(bench.received(), [""; 0], "round {round}");
        }
        let _ = std::fs::remove_file(bench.out());
    }
}

#[test]
fn a_signal_ends_either_side_in_an_orderly_way() {
    let _alone = alone();
    for fabric in FABRICS {
        for (name, code) in [("-TERM", 143), ("-INT", 130)] {
            let bench = Bench::new(fabric);
            files::write(&bench.path("model.safetensors"), MIB_MIN);
            let (recv, send) = transfer(&bench, &[], &[]);
            std::thread::sleep(Duration::from_millis(400));
            recv.signal(name);
            let ended = recv.end();
            assert_eq!(ended.status.code(), Some(code), "{ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
            send.end().failed_with("the receiver is gone");
            assert_eq!(bench.received(), [""; 0]);
            assert!(!bench.path("socket").exists());
        }
    }
}

#[test]
fn a_sender_that_stands_still_is_given_up_and_can_wake_up_to_its_end() {
    let _alone = alone();
    for fabric in FABRICS {
        let bench = Bench::logging(fabric);
        files::write(&bench.path("model.safetensors"), MIB_MIN);
        let (mut recv, send) = transfer(&bench, &["--patience", "1"], &[]);
        recv.log("a piece is here");
        send.signal("-STOP");
        let ended = recv.end().failed_with("the sender has said nothing for 1 s");
        assert!(ended.took < Duration::from_secs(4), "{ended:?}");
        assert_eq!(bench.received(), [""; 0]);
        send.signal("-CONT");
        send.end().failed_with("the receiver is gone");
    }
}

#[test]
fn a_receiver_that_stands_still_is_given_up_and_can_wake_up_to_its_end() {
    let _alone = alone();
    for fabric in FABRICS {
        let bench = Bench::logging(fabric);
        files::write(&bench.path("model.safetensors"), MIB_MIN);
        let (mut recv, send) = transfer(&bench, &[], &["--patience", "1"]);
        recv.log("a piece is here");
        recv.signal("-STOP");
        let ended = send.end().failed_with("the receiver has said nothing for 1 s");
        assert!(ended.took < Duration::from_secs(4), "{ended:?}");
        recv.signal("-CONT");
        recv.end().failed_with("the sender");
        assert_eq!(bench.received(), [""; 0]);
    }
}
