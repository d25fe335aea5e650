//! Who has been silent for long is heard all the same (clause RUN-2): a turn does not look at quiet links, and a poller
//! that never sleeps is not woken by their bells.

use dmaplane::{Config, Plane, RunMode};
use std::time::Duration;

const PEERS: usize = 24;
const WAIT: Duration = Duration::from_secs(20);

#[test]
fn run_2_quiet_peers_are_heard_by_a_poller_that_never_sleeps() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("shm:{}", directory.path().join("busy").display());
    let awake = Config { mode: RunMode::Poller { idle: Duration::from_secs(600) }, ..Config::default() };
    let mut busy = Plane::open(awake).unwrap();
    let (listener, _) = busy.listen(&address).unwrap();
    let mut quiet = Plane::open(Config::default()).unwrap();
    let peers: Vec<_> =
        (0..PEERS).map(|_| (quiet.connect(&address, WAIT).unwrap(), busy.accept(&listener, WAIT).unwrap())).collect();
    for round in 0..3u8 {
        // Thousands of turns that bring nothing.
        std::thread::sleep(Duration::from_millis(100));
        for (number, (there, here)) in peers.iter().enumerate().rev() {
            let said = [round, number as u8];
            quiet.send_message(there, &said, WAIT).unwrap();
            assert_eq!(busy.receive_message(here, 16, WAIT).unwrap(), said);
        }
        // The other way round: what is sent over a quiet link leaves.
        for (number, (there, here)) in peers.iter().enumerate() {
            busy.send_message(here, &[number as u8], WAIT).unwrap();
            assert_eq!(quiet.receive_message(there, 16, WAIT).unwrap(), [number as u8]);
        }
    }
}
