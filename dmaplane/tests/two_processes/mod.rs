//! Tests of two processes: the other one is this very test binary, running one of its tests.

use dmaplane::{Config, Listener, Peer, Plane};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Long: the emulator in which the driver is tested takes its time.
pub const WAIT: Duration = Duration::from_secs(120);
const ADDRESS: &str = "DMAPLANE_TEST_ADDRESS";

/// How many rounds: DMAPLANE_ROUNDS, or what is quick.
pub fn rounds(quick: u64) -> u64 {
    std::env::var("DMAPLANE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(quick)
}

/// Where to connect, in the other process; `None` in an ordinary run, where such a "test" has nothing to do.
pub fn address_of_this_child() -> Option<String> {
    std::env::var(ADDRESS).ok()
}

/// A plane of the host that an address, or the name of a fabric, belongs to.
pub fn open(address: &str) -> Plane {
    match address.split(':').next() {
        Some("local") => Plane::open_device("/dev/dmaplane", &Config::default()).unwrap(),
        _ => Plane::open(Config::default()).unwrap(),
    }
}

/// The other process.
pub struct Other {
    child: Child,
    _listener: Listener,
    _directory: tempfile::TempDir,
}

impl Other {
    /// Listens, starts the other process, and waits until it has connected.
    pub fn start(plane: &mut Plane, fabric: &str, test: &str) -> (Other, Peer) {
        let directory = tempfile::tempdir().unwrap();
        let address = match fabric {
            "shm" | "local" => format!("{fabric}:{}", directory.path().join("peer").display()),
            _ => "tcp:127.0.0.1:0".to_owned(),
        };
        let (listener, address) = plane.listen(&address).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(ADDRESS, address)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let peer = plane.accept(&listener, WAIT).unwrap();
        (Other { child, _listener: listener, _directory: directory }, peer)
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Stops it where it is.
    pub fn stop(&mut self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn go_on(&mut self) {
        self.signal("-CONT");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
