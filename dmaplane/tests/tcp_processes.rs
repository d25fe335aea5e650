//! A tcp peer in a process of its own, stopped and killed in mid-transfer (acceptance C and E).

use dmaplane::{Buffer, Config, Leased, Peer, Plane, Rights};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(10);
const LENGTH: u64 = 32 << 20;
const ADDRESS: &str = "DMAPLANE_TEST_TCP_ADDRESS";
const OLD: u8 = 0xee;

/// The other process: writes [`LENGTH`] bytes under every lease whose token it is sent, until it is killed.
#[test]
fn sender() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let key = std::env::var("DMAPLANE_TEST_KEY").is_ok().then_some([3; 32]);
    let mut plane = Plane::open(Config { key, ..Config::default() }).unwrap();
    let peer = plane.connect(&address, WAIT).unwrap();
    let mut source = plane.alloc(LENGTH).unwrap();
    source.as_mut_slice().fill(OLD);
    while let Ok(token) = plane.receive(&peer, Duration::from_secs(60)) {
        // Under a lease that has ended meanwhile there is nothing to do.
        let Ok(import) = plane.import(&peer, &token.payload) else { continue };
        plane.send(&peer, b"now", WAIT).unwrap();
        if plane.write_imm(&source, 0, &import, 0, LENGTH, 1).is_ok() {
            plane.release(import).unwrap();
        }
    }
}

struct Sender(Child);

impl Sender {
    fn start(address: &str, key: bool) -> Sender {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "sender", "--nocapture"]).env(ADDRESS, address);
        if key {
            command.env("DMAPLANE_TEST_KEY", "1");
        }
        Sender(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lease(plane: &mut Plane, peer: &Peer) -> Leased<Buffer> {
    let mut buffer = plane.alloc(LENGTH).unwrap();
    buffer.as_mut_slice().fill(0);
    let leased = plane.grant(buffer, Rights::WRITE).unwrap();
    let token = plane.token(&leased).unwrap();
    plane.send(peer, &token, WAIT).unwrap();
    assert_eq!(plane.receive(peer, WAIT).unwrap().payload, b"now");
    leased
}

/// TCP-7, LSE-12.
#[test]
fn a_sender_stopped_in_mid_transfer_lands_nothing_when_it_is_woken_after_the_revoke() {
    for key in [None, Some([3; 32])] {
        let mut plane = Plane::open(Config { key, ..Config::default() }).unwrap();
        let (listener, address) = plane.listen("tcp:127.0.0.1:0").unwrap();
        let sender = Sender::start(&address, key.is_some());
        let peer = plane.accept(&listener, WAIT).unwrap();
        let (mut slowest, mut in_the_middle) = (Duration::ZERO, 0);
        for round in 0..12 {
            let leased = lease(&mut plane, &peer);
            std::thread::sleep(Duration::from_micros(500 + 700 * round));
            sender.signal("STOP");
            let start = Instant::now();
            let mut buffer = plane.revoke(leased).unwrap();
            slowest = slowest.max(start.elapsed());
            let cut_off = buffer.as_slice()[LENGTH as usize - 1] == 0;
            in_the_middle += u32::from(cut_off && buffer.as_slice()[0] == OLD);
            buffer.as_mut_slice().fill(0x11);
            sender.signal("CONT");
            if !cut_off {
                assert_eq!(plane.receive(&peer, WAIT).unwrap().immediate, Some(1));
            }
            // The sender has heard that its write is over when it takes the next lease.
            let next = lease(&mut plane, &peer);
            assert_eq!(plane.receive(&peer, WAIT).unwrap().immediate, Some(1));
            let next = plane.revoke(next).unwrap();
            assert!(next.as_slice().iter().all(|&byte| byte == OLD));
            assert!(buffer.as_slice().iter().all(|&byte| byte == 0x11), "round {round}: old bytes after the revoke");
            plane.free(buffer).unwrap();
            plane.free(next).unwrap();
        }
        eprintln!("{in_the_middle} of 12 stopped in mid-transfer; the slowest revoke took {slowest:?}");
        assert!(in_the_middle > 0);
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    }
}

/// TCP-10, TD-2.
#[test]
fn a_sender_killed_in_mid_transfer_is_noticed_and_the_next_one_is_served() {
    let mut plane = Plane::open(Config::default()).unwrap();
    let (listener, address) = plane.listen("tcp:127.0.0.1:0").unwrap();
    for round in 0..20 {
        let sender = Sender::start(&address, false);
        let peer = plane.accept(&listener, WAIT).unwrap();
        let leased = lease(&mut plane, &peer);
        std::thread::sleep(Duration::from_micros(500 * round));
        drop(sender);
        let start = Instant::now();
        let error = loop {
            match plane.receive(&peer, WAIT) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(error.is_disconnect(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        let mut buffer = plane.revoke(leased).unwrap();
        buffer.as_mut_slice().fill(1);
        plane.disconnect(peer).unwrap();
        assert!(buffer.as_slice().iter().all(|&byte| byte == 1));
        plane.free(buffer).unwrap();
    }
    let usage = plane.usage();
    assert_eq!((usage.leases, usage.inbound, usage.peers), (0, 0, 0), "{usage:?}");
}
