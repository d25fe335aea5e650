//! The command where Docker's default profile forbids io_uring, mbind and move_pages, gives few capabilities and little
//! locked memory: everything works, and what is lacking is said with its reason.

mod common;

use common::{Bench, FABRICS, confined, files};
use dmaplane_sandbox::Sandbox;
use dmaplane_sandbox::skip;
use std::process::Command;

/// More than the container's /dev/shm of 64 MiB has room for: memfds are not files there.
const FILE_MIB: u64 = 96;

/// Says why the tests below say less than they could here.
fn say_what_is_not_imitated(test: &str) {
    if !confined::has_own_devices() {
        skip(test, "a container's /dev, /proc and /sys are not imitated: that takes CAP_SYS_ADMIN and CAP_MKNOD");
    }
}

/// The launcher checks itself that the profile bites; this sees it from outside, as the kernel tells it.
#[test]
fn a_confined_program_is_as_confined_as_a_containers() {
    let mut command = Command::new("cat");
    command.arg("/proc/self/status");
    Sandbox::new().unwrap().confine(&mut command);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let status = String::from_utf8(output.stdout).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.lines().any(|found| found == line), "no '{line}' in {status}");
    }
    say_what_is_not_imitated("a_confined_program_is_as_confined_as_a_containers");
}

#[test]
fn topology_says_what_is_forbidden_and_why() {
    let ended = confined::start(&["topology", "--json"]).end().succeeded();
    let topology = ended.json();
    assert_eq!(topology["io_uring"]["available"], false, "{topology}");
    assert!(topology["io_uring"]["reason"].as_str().unwrap().contains("io_uring_setup: EPERM"), "{topology}");
    assert_eq!(topology["tcp_backend"], "epoll", "{topology}");
    assert_eq!(topology["placement"]["available"], false, "{topology}");
    let reason = topology["placement"]["reason"].as_str().unwrap();
    for call in ["mbind: EPERM", "move_pages: EPERM", "get_mempolicy: EPERM"] {
        assert!(reason.contains(call), "{reason}");
    }
    assert_eq!(topology["confinement"]["seccomp"], "filter");
    assert!(topology["confinement"]["seccomp_filters"].as_u64().unwrap() >= 2);
    assert_eq!(topology["confinement"]["no_new_privileges"], true);
    assert!(topology["limits"]["locked_memory_bytes"].as_u64().unwrap() <= 64 << 10, "{topology}");
    if confined::has_own_devices() {
        assert_eq!(topology["limits"]["shm_file_bytes"], 64 << 20, "{topology}");
        for device in ["udmabuf", "dmaplane"] {
            assert_eq!(topology[device]["present"], false, "{device}");
        }
    }
    say_what_is_not_imitated("topology_says_what_is_forbidden_and_why");

    let table = confined::start(&["topology"]).end().succeeded().stdout;
    for part in ["tcp uses epoll", "strict placement fails", "seccomp forbids some (mode filter"] {
        assert!(table.contains(part), "no '{part}' in\n{table}");
    }
}

/// The control: outside it is not said that seccomp forbids io_uring, unless it does so there as well.
#[test]
fn what_topology_says_inside_is_not_what_it_says_outside() {
    let filters = |topology: &serde_json::Value| topology["confinement"]["seccomp_filters"].as_u64().unwrap();
    let outside = common::dmaplane(&["topology", "--json"]).succeeded().json();
    let inside = confined::start(&["topology", "--json"]).end().succeeded().json();
    assert_eq!(filters(&inside), filters(&outside) + 2);
    // The same binary takes what it may have.
    let backend = if outside["io_uring"]["available"] == true { "io_uring" } else { "epoll" };
    assert_eq!(outside["tcp_backend"], backend, "{outside}");
}

#[test]
fn the_demo_gives_the_same_text_over_both_fabrics() {
    for fabric in FABRICS {
        for mode in ["push", "pull"] {
            let arguments = ["demo", "--json", "--tokens", "8", "--fabric", fabric, "--mode", mode];
            let outcome = confined::start(&arguments).end().succeeded().json();
            for key in ["tokens_equal", "logits_equal", "blocks_equal", "bytes_as_predicted"] {
                assert_eq!(outcome[key], true, "{key} of {outcome}");
            }
        }
    }
}

#[test]
fn a_file_larger_than_dev_shm_arrives_byte_for_byte() {
    for fabric in FABRICS {
        let bench = Bench::confined(fabric);
        let file = bench.text("model.safetensors");
        files::write(&bench.path("model.safetensors"), FILE_MIB);
        bench.transfer(&file);
    }
}

/// A host's process and a container's, of one user: shm has nothing but the socket's path to share.
#[test]
fn a_sender_outside_reaches_a_receiver_inside() {
    for fabric in FABRICS {
        let bench = Bench::confined(fabric);
        let file = bench.text("model.safetensors");
        files::write(&bench.path("model.safetensors"), 4);
        let (recv, place) = bench.recv(&[]);
        common::dmaplane(&["send", "--fabric", fabric, "--to", &place, &file]).succeeded();
        recv.end().succeeded();
        assert!(files::same(file.as_ref(), &bench.out()), "{fabric}");
    }
}

/// Four workers and their router inside: aborts, a kill, shards, over both fabrics.
/// `DMAPLANE_SANDBOX_SERVE_SECONDS` says for how long each.
#[test]
fn every_answer_of_a_service_is_right() {
    let seconds = std::env::var("DMAPLANE_SANDBOX_SERVE_SECONDS").unwrap_or_else(|_| "4".to_owned());
    for fabric in FABRICS {
        let arguments = ["demo", "serve", "--json", "--seconds", &seconds, "--fabric", fabric];
        let outcome = confined::start(&arguments).end().succeeded().json();
        println!("{outcome}");
        assert_eq!(outcome["wrong_answers"], 0, "{outcome}");
        assert!(outcome["requests_completed"].as_u64() > Some(0), "{outcome}");
    }
}
