//! `demo serve`: every answer is right, whatever is aborted and killed meanwhile.
//!
//! With the feature `broken-no-lease-check` the test of pushed caches must fail (`cargo xtask test defects`). Of pulled
//! ones the lease is the second guard: an exchange that ends an offer tells its readers before the blocks change, and a
//! reader that was told takes nothing any more. The feature `broken-no-end-signal` takes that first guard away. With it
//! alone every answer must still be right, which is the lease's doing, and with both features one must be wrong.

mod common;

use common::{FABRICS, Running, dmaplane};
use std::time::{Duration, Instant};

/// Without leases a wrong answer comes within this time; with them a look at each fabric and mode must do.
const SECONDS: &str = if cfg!(feature = "broken-no-lease-check") { "60" } else { "6" };

/// Serves for a while; everything must have been right.
#[track_caller]
fn served(arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["demo", "serve", "--json"];
    all.extend(arguments);
    let ended = dmaplane(&all).succeeded();
    let outcome = ended.json();
    println!("{outcome}");
    for none in ["wrong_answers", "unexpected_failures"] {
        assert_eq!(outcome[none], 0, "{none} of {outcome}");
    }
    assert_eq!(outcome["workers_restarted"], 1, "{outcome}");
    for some in ["requests_completed", "aborted", "bytes_moved"] {
        assert!(outcome[some].as_u64().unwrap() > 0, "{some} of {outcome}");
    }
    outcome
}

/// Aborts, a kill, shards of all kinds over both fabrics.
#[track_caller]
fn every_answer_is_right(mode: &str) {
    for fabric in FABRICS {
        let outcome = served(&["--seconds", SECONDS, "--fabric", fabric, "--mode", mode]);
        for shards in ["1 to 1", "1 to 2", "2 to 1", "2 to 2"] {
            assert!(outcome["completed_by_shards"][shards].as_u64() > Some(0), "{shards} of {outcome}");
        }
        let times = &outcome["abort_to_reuse_us"][fabric];
        assert!(times["count"].as_u64() > Some(0) && times["p50"].as_f64() > Some(0.0), "{outcome}");
    }
}

#[test]
fn every_answer_is_right_when_caches_are_pushed() {
    every_answer_is_right("push");
}

#[test]
fn every_answer_is_right_when_caches_are_pulled() {
    every_answer_is_right("pull");
}

/// Readers are not told of the end of an offer; what is late is refused all the same. With `broken-no-lease-check`,
/// too, this must fail.
#[cfg(feature = "broken-no-end-signal")]
#[test]
fn the_lease_alone_keeps_pulled_caches_right() {
    for fabric in FABRICS {
        let outcome = served(&["--seconds", SECONDS, "--fabric", fabric, "--mode", "pull"]);
        assert!(outcome["aborted_while"]["moving"].as_u64() > Some(0), "none of {outcome}");
    }
}

#[test]
fn checksums_may_be_had_too() {
    for (mode, checksum) in [("push", "crc32c"), ("pull", "crc32c"), ("push", "xxh3"), ("pull", "xxh3")] {
        served(&["--seconds", "4", "--mode", mode, "--checksum", checksum, "--requests", "16"]);
    }
}

/// The service's workers of that name.
fn workers(service: &Running, name: &str) -> Vec<String> {
    let tasks = format!("/proc/{0}/task/{0}/children", service.id());
    let children = std::fs::read_to_string(tasks).unwrap_or_default();
    let is_it = |child: &&str| {
        let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        command.contains("serve-worker") && command.contains(name)
    };
    children.split_whitespace().filter(is_it).map(str::to_owned).collect()
}

/// Waits until a service has all its workers.
fn started() -> (Running, Vec<String>) {
    let service = Running::start(&["demo", "serve", "--seconds", "60", "--json"]);
    let start = Instant::now();
    loop {
        let workers = workers(&service, "--name=");
        if workers.len() == 4 {
            return (service, workers);
        }
        assert!(start.elapsed() < common::LIMIT, "it never had four workers but {workers:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn workers_do_not_outlive_a_router_that_is_killed() {
    let (mut service, workers) = started();
    service.kill();
    let start = Instant::now();
    let lives = |worker: &String| {
        let status = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        // One that nobody has waited for yet is dead all the same.
        !status.is_empty() && !status.contains(") Z ")
    };
    while workers.iter().any(lives) {
        assert!(start.elapsed() < Duration::from_secs(10), "a worker of {workers:?} lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_worker_that_ends_by_itself_is_not_passed_over() {
    let (service, _) = started();
    let victim = workers(&service, "--name=P1").pop().expect("it is there");
    assert!(std::process::Command::new("kill").args(["-9", &victim]).status().unwrap().success());
    service.end_within(Duration::from_secs(30)).failed_with("worker P1 ended by itself");
}

#[test]
fn numbers_that_cannot_be_are_named() {
    for (flag, value, words) in
        [("--seconds", "0", "0 is not in 1..=86400"), ("--requests", "0", "0 is not in 1..=4096")]
    {
        let ended = dmaplane(&["demo", "serve", flag, value]);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "no '{words}' in {ended:?}");
    }
    // The flags of the demo with one request are not this one's.
    assert_eq!(dmaplane(&["demo", "--tokens", "3", "serve"]).status.code(), Some(2));
}
