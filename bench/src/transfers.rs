//! Writes between two processes, beside what plain means and the peers reach.

use crate::goals::{NIXL_BEST, row_of};
use crate::ours::Pair;
use crate::ours::connection::Fabric;
use crate::ours::pair::Scattered;
use crate::ours::workload::LARGE_BYTES;
use crate::peers::{Kind, PeerProcess, Peers};
use crate::plain::Plain;
use crate::results::Results;
use crate::sample::{Measurement, Sample};
use anyhow::Result;
use std::cell::RefCell;

/// What of ours is measured.
#[derive(Clone, Copy)]
enum Ours {
    Large,
    LargeAnswered,
    Scattered,
    Small,
    Answered,
}

/// A peer's figure: the row's key, what of ours stands beside it, the peer's key for it, and the row of CPU time.
struct Beside {
    row: &'static str,
    ours: Ours,
    key: &'static str,
    cpu_row: Option<&'static str>,
}

const fn beside(row: &'static str, ours: Ours, key: &'static str) -> Beside {
    Beside { row, ours, key, cpu_row: None }
}

const fn with_cpu(row: &'static str, ours: Ours, key: &'static str, cpu_row: &'static str) -> Beside {
    Beside { row, ours, key, cpu_row: Some(cpu_row) }
}

const LARGE: &str = "write_large";
const LARGE_ANSWERED: &str = "write_large_answered";
const SCATTERED: &str = "write_scattered";
const SMALL: &str = "write_small";
const NOTIFIED: &str = "write_small_notified";
const ANSWERED: &str = "write_small_answered";

const SHM: &[(Kind, &[Beside])] = &[
    (
        Kind::NixlDefault,
        &[
            with_cpu("shm_large_nixl_default", Ours::Large, LARGE, "shm_large_cpu_nixl_default"),
            beside("shm_large_answered_nixl_default", Ours::LargeAnswered, LARGE_ANSWERED),
            with_cpu("shm_list_nixl_default", Ours::Scattered, SCATTERED, "shm_list_cpu_nixl_default"),
            beside("shm_small_nixl_default", Ours::Small, NOTIFIED),
            beside("shm_answered_nixl_default", Ours::Answered, ANSWERED),
        ],
    ),
    (
        Kind::NixlTuned,
        &[
            with_cpu("shm_large_nixl_tuned", Ours::Large, LARGE, "shm_large_cpu_nixl_tuned"),
            beside("shm_large_answered_nixl_tuned", Ours::LargeAnswered, LARGE_ANSWERED),
            with_cpu("shm_list_nixl_tuned", Ours::Scattered, SCATTERED, "shm_list_cpu_nixl_tuned"),
            beside("shm_small_nixl_tuned", Ours::Small, NOTIFIED),
            beside("shm_answered_nixl_tuned", Ours::Answered, ANSWERED),
        ],
    ),
    (
        Kind::NixlCma,
        &[
            with_cpu("shm_large_nixl_cma", Ours::Large, LARGE, "shm_large_cpu_nixl_cma"),
            beside("shm_large_answered_nixl_cma", Ours::LargeAnswered, LARGE_ANSWERED),
            with_cpu("shm_list_nixl_cma", Ours::Scattered, SCATTERED, "shm_list_cpu_nixl_cma"),
            beside("shm_small_nixl_cma", Ours::Small, NOTIFIED),
            beside("shm_answered_nixl_cma", Ours::Answered, ANSWERED),
        ],
    ),
    (
        Kind::Mooncake,
        &[
            with_cpu("shm_large_mooncake", Ours::Large, LARGE, "shm_large_cpu_mooncake"),
            beside("shm_small_mooncake", Ours::Small, NOTIFIED),
            beside("shm_small_mooncake_bare", Ours::Small, SMALL),
        ],
    ),
];

const TCP: &[(Kind, &[Beside])] = &[
    (Kind::Iperf3, &[beside("tcp_large_iperf3", Ours::Large, "stream")]),
    (
        Kind::NixlTcp,
        &[
            with_cpu("tcp_large_nixl", Ours::Large, LARGE, "tcp_large_cpu_nixl"),
            with_cpu("tcp_list_nixl", Ours::Scattered, SCATTERED, "tcp_list_cpu_nixl"),
            beside("tcp_small_nixl", Ours::Small, NOTIFIED),
            beside("tcp_answered_nixl", Ours::Answered, ANSWERED),
        ],
    ),
    (
        Kind::Mooncake,
        &[
            with_cpu("tcp_large_mooncake", Ours::Large, LARGE, "tcp_large_cpu_mooncake"),
            beside("tcp_list_mooncake", Ours::Scattered, SCATTERED),
            beside("tcp_small_mooncake", Ours::Small, NOTIFIED),
        ],
    ),
];

/// Rows beside NIXL's best, and the rows of the ways to run NIXL that they are the best of.
const BEST: &[(&str, [&str; 3])] = &[
    ("shm_large_nixl_best", ["shm_large_nixl_default", "shm_large_nixl_tuned", "shm_large_nixl_cma"]),
    ("shm_list_nixl_best", ["shm_list_nixl_default", "shm_list_nixl_tuned", "shm_list_nixl_cma"]),
];

struct Measured {
    row: &'static str,
    ours: Sample,
    theirs: Sample,
}

/// Two processes that share memory. Mooncake's wheel has no shared memory on one host, so its tcp stands beside.
pub fn over_shm(results: &mut Results, peers: &Peers) -> Result<()> {
    let mut pair = Pair::open(Fabric::Shm)?;
    let scattered = pair.scattered()?;
    let mut plain = Plain::new(LARGE_BYTES)?;
    results.compare("shm_large_memcpy", || pair.write_large(), || plain.memcpy());
    results.compare("shm_large_pread", || pair.write_large(), || plain.pread());
    results.compare("shm_list_memcpy", || pair.write_scattered(&scattered), || plain.memcpy());
    drop(plain);
    let mut measured = Vec::new();
    for (kind, figures) in SHM {
        measured.extend(with_peer(results, peers, *kind, figures, &mut pair, &scattered));
    }
    beside_the_best(results, &measured);
    drop(scattered);
    pair.check()
}

/// Two processes and a loopback connection.
pub fn over_tcp(results: &mut Results, peers: &Peers) -> Result<()> {
    let mut pair = Pair::open(Fabric::Tcp)?;
    let scattered = pair.scattered()?;
    let mut plain = Plain::new(LARGE_BYTES)?;
    results.compare("tcp_large_socket", || pair.write_large(), || plain.socket());
    drop(plain);
    for (kind, figures) in TCP {
        with_peer(results, peers, *kind, figures, &mut pair, &scattered);
    }
    drop(scattered);
    pair.check()
}

/// Starts a peer and compares each of its figures with ours. One that does not start is a line for each figure.
fn with_peer(
    results: &mut Results,
    peers: &Peers,
    kind: Kind,
    figures: &[Beside],
    pair: &mut Pair,
    scattered: &Scattered,
) -> Vec<Measured> {
    let process = match peers.start(kind) {
        Ok(process) => process,
        Err(error) => {
            for figure in figures {
                for row in [Some(figure.row), figure.cpu_row].into_iter().flatten() {
                    results.fail(row, &anyhow::anyhow!("{error:#}"));
                }
            }
            return Vec::new();
        }
    };
    results.note(process.in_words(kind.name()));
    let process = RefCell::new(process);
    let mut measured = Vec::new();
    for Beside { row, ours, key, cpu_row } in figures {
        let unit = row_of(row).map_or("", |row| row.unit);
        let compared = results.compare(
            row,
            || {
                // What a peer does while nobody asks it must not slow ours down.
                let mut process = process.borrow_mut();
                let _stopped = process.stopped();
                our_measurement(*ours, pair, scattered)
            },
            || PeerProcess::measure(&mut process.borrow_mut(), key, unit),
        );
        if let Some((ours, theirs)) = &compared
            && let Some(cpu_row) = cpu_row
        {
            results.add_cpu(cpu_row, ours, theirs);
        }
        measured.extend(compared.map(|(ours, theirs)| Measured { row, ours, theirs }));
    }
    measured
}

fn our_measurement(what: Ours, pair: &mut Pair, scattered: &Scattered) -> Result<Measurement> {
    match what {
        Ours::Large => pair.write_large(),
        Ours::LargeAnswered => pair.write_large_answered(),
        Ours::Scattered => pair.write_scattered(scattered),
        Ours::Small => pair.write_small(),
        Ours::Answered => pair.write_small_answered(),
    }
}

/// The rows beside the peer's best way: only where each of its ways was measured is there a best one.
fn beside_the_best(results: &mut Results, measured: &[Measured]) {
    for (key, candidates) in BEST {
        let ways: Vec<&Measured> =
            candidates.iter().filter_map(|row| measured.iter().find(|measured| measured.row == *row)).collect();
        let best = ways.iter().max_by(|a, b| a.theirs.median().total_cmp(&b.theirs.median()));
        match best {
            Some(best) if ways.len() == candidates.len() => {
                let name = row_of(best.row).map_or("", |row| row.beside);
                results.add(key, best.ours.clone(), Some(best.theirs.clone()), &format!("The best is {name}."));
            }
            _ => results.fail(key, &anyhow::anyhow!("not each way to run the peer was measured: no {NIXL_BEST}")),
        }
    }
}
