//! Acceptance F: a thousand concurrent transfers between two processes, dropped at random: nothing leaks, nothing
//! hangs, and afterwards neither side uses the processor. The workload is the example `tokio_transfers`.

#[path = "../examples/tokio_transfers/client.rs"]
mod client;
#[path = "../examples/tokio_transfers/server.rs"]
mod server;
#[path = "../examples/tokio_transfers/workload.rs"]
mod workload;

use client::Plan;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const ADDRESS: &str = "DMAPLANE_TEST_TOKIO_ADDRESS";
const LIMIT: Duration = Duration::from_secs(150);

/// Runs in which enough is dropped in flight, and how many to try: on a busy machine everything may be over before the
/// tasks that are to drop it get a processor.
const RUNS: usize = 2;
const TRIES: u64 = 8;

/// Each measures the processor time of this whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The other process.
#[test]
fn server_process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    runtime().block_on(async { tokio::time::timeout(LIMIT, server::serve(&address, |_| {})).await }).unwrap().unwrap();
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_thousand_over(fabric: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut in_flight = Vec::new();
    for seed in 1..=TRIES {
        let directory = tempfile::tempdir().unwrap();
        let address = match fabric {
            "shm" => format!("shm:{}", directory.path().join("server").display()),
            _ => {
                let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                format!("tcp:127.0.0.1:{port}")
            }
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server_process", "--nocapture"]).env(ADDRESS, &address).stdout(Stdio::null());
        let mut server = Server(command.spawn().unwrap());
        let plan = Plan { transfers: 1000, dropped_percent: 42, seed, idle: Duration::from_secs(3) };
        let report = runtime().block_on(async {
            tokio::time::timeout(LIMIT, client::transfer(&address, plan)).await.expect("it hangs").unwrap()
        });
        eprintln!("{fabric}: {report:?}");
        let dropped = report.dropped_before + report.dropped_in_flight + report.dropped_late;
        assert_eq!(report.completed + dropped, 1000);
        assert!((333..=500).contains(&dropped), "{dropped} dropped");
        assert_eq!(report.damaged, 0, "pieces of memory have old bytes after their revoke");
        assert_eq!(report.wrong, 0);
        assert!(report.idle_client < 0.01 && report.idle_server < 0.01, "{report:?}");
        assert!(server.0.wait().unwrap().success(), "the server's own checks");
        in_flight.push(report.dropped_in_flight);
        if in_flight.iter().filter(|&&dropped| dropped > 100).count() == RUNS {
            return;
        }
    }
    panic!("dropped in flight of each thousand: {in_flight:?}; more than 100 in {RUNS} of {TRIES} runs is expected");
}

#[test]
fn a_thousand_transfers_dropped_at_random_leak_or_hang_over_shm() {
    a_thousand_over("shm");
}

#[test]
fn a_thousand_transfers_dropped_at_random_leak_or_hang_over_tcp() {
    a_thousand_over("tcp");
}
