//! One side is killed in the middle, again and again: the other says so within 2 s, nothing is left, and the next
//! transfer works.

mod common;

use common::files::Random;
use common::{Bench, FABRICS, files, number};
use std::time::Duration;

const REPORT_LIMIT: Duration = Duration::from_secs(2);
/// At this rate a file of 32 MiB takes more than a second.
const MIB: u64 = 32;
const RATE: &str = "24";

fn rounds() -> u64 {
    number("DMAPLANE_E2E_KILLS", 5)
}

/// A moment in the first second of a transfer.
fn moment(random: &mut Random) -> Duration {
    Duration::from_millis(100 + random.next() % 900)
}

/// SHM-8, TCP-10.
#[test]
fn when_the_sender_is_killed_the_receiver_says_so_and_leaves_nothing() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        files::write(&bench.path("model.safetensors"), MIB);
        let file = bench.text("model.safetensors");
        let mut random = Random(7);
        for round in 0..rounds() {
            let (recv, place) = bench.recv(&[]);
            let mut send = bench.send(&place, &file, &["--limit-rate", RATE]);
            std::thread::sleep(moment(&mut random));
            assert!(send.is_running(), "{fabric}, round {round}: it was over too soon");
            send.kill();
            let ended = recv.end().failed_with("the sender is gone");
            assert!(ended.took < REPORT_LIMIT, "{fabric}, round {round}: {ended:?}");
            assert_eq!(bench.received(), [""; 0], "{fabric}, round {round}");
        }
        bench.transfer(&file);
    }
}

/// SHM-8, TCP-10.
#[test]
fn when_the_receiver_is_killed_the_sender_says_so_and_nothing_is_left() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        files::write(&bench.path("model.safetensors"), MIB);
        let file = bench.text("model.safetensors");
        let mut random = Random(11);
        for round in 0..rounds() {
            let (mut recv, place) = bench.recv(&[]);
            let mut send = bench.send(&place, &file, &["--limit-rate", RATE]);
            std::thread::sleep(moment(&mut random));
            assert!(send.is_running(), "{fabric}, round {round}: it was over too soon");
            recv.kill();
            let ended = send.end().failed_with("the receiver is gone");
            assert!(ended.took < REPORT_LIMIT, "{fabric}, round {round}: {ended:?}");
            // O_TMPFILE, where the file system has it; else the named one, which says whose it was.
            let left = bench.received();
            assert!(!left.iter().any(|name| name == "out.safetensors"), "{fabric}, round {round}: {left:?}");
            assert!(left.iter().all(|name| name.contains(".partial-")), "{fabric}, round {round}: {left:?}");
            if !left.is_empty() {
                common::skip("that nothing at all is left after kill -9", "no O_TMPFILE in the temporary folder");
                left.iter().for_each(|name| std::fs::remove_file(bench.path("received").join(name)).unwrap());
            }
        }
        bench.transfer(&file);
    }
}

#[test]
fn a_signal_ends_either_side_in_an_orderly_way() {
    for fabric in FABRICS {
        for (name, code) in [("-TERM", 143), ("-INT", 130)] {
            let bench = Bench::new(fabric);
            files::write(&bench.path("model.safetensors"), MIB);
            let file = bench.text("model.safetensors");
            let (recv, place) = bench.recv(&[]);
            let send = bench.send(&place, &file, &["--limit-rate", RATE]);
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
fn a_peer_that_stands_still_is_given_up_and_can_wake_up_to_its_end() {
    for fabric in FABRICS {
        let bench = Bench::new(fabric);
        files::write(&bench.path("model.safetensors"), MIB);
        let file = bench.text("model.safetensors");
        let (recv, place) = bench.recv(&["--patience", "1"]);
        let send = bench.send(&place, &file, &["--limit-rate", RATE]);
        std::thread::sleep(Duration::from_millis(500));
        send.signal("-STOP");
        let ended = recv.end().failed_with("has said nothing for 1 s");
        assert!(ended.took < Duration::from_secs(4), "{ended:?}");
        assert_eq!(bench.received(), [""; 0]);
        send.signal("-CONT");
        send.end().failed_with("the receiver is gone");
    }
}
