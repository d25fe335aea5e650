//! Throughput against the size of a block, for the picture: one plain write at a time, and a list of scattered blocks.

use crate::ours::Pair;
use crate::ours::connection::Fabric;
use crate::ours::workload::LARGE_BYTES;
use crate::peers::{Kind, Peers};
use crate::plain::Plain;
use crate::results::Results;
use crate::sample::{Measurement, median};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One line of the picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    pub fabric: String,
    pub name: String,
    /// Bytes of a block, and GB/s.
    pub points: Vec<(u64, f64)>,
}

impl Curve {
    pub fn in_words(&self) -> String {
        let points = self.points.iter();
        points.map(|(bytes, rate)| format!("{} {rate:.2}", size_name(*bytes))).collect::<Vec<_>>().join(", ")
    }
}

/// As axes call it.
pub fn size_name(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

const SIZES: [u64; 8] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20];
const QUICK_SIZES: [u64; 4] = [4 << 10, 64 << 10, 1 << 20, 64 << 20];
/// Writes of one size at most.
const WRITES_MAX: u64 = 1024;
/// iperf3 takes no larger buffers.
const IPERF3_BYTES_MAX: u64 = 1 << 20;
const ROUNDS: usize = 3;

const SHM_PEERS: [Kind; 3] = [Kind::NixlDefault, Kind::NixlTuned, Kind::Mooncake];
const TCP_PEERS: [Kind; 2] = [Kind::NixlTcp, Kind::Mooncake];

/// Plain writes of one size in one measurement.
fn writes(bytes: u64) -> u64 {
    (LARGE_BYTES / bytes).min(WRITES_MAX)
}

/// What is the same for every line.
#[derive(Clone, Copy)]
struct Scope {
    sizes: &'static [u64],
    rounds: usize,
}

pub fn run(results: &mut Results, peers: &Peers) -> Result<()> {
    let scope = match results.effort.quick {
        true => Scope { sizes: &QUICK_SIZES, rounds: 1 },
        false => Scope { sizes: &SIZES, rounds: ROUNDS },
    };
    for fabric in Fabric::BOTH {
        ours(results, fabric, scope)?;
    }
    let mut plain = Plain::new(LARGE_BYTES)?;
    let points = scope.points(|bytes| plain.memcpy_repeated(bytes, writes(bytes)))?;
    results.curve(Curve { fabric: "shm".to_owned(), name: "memcpy".to_owned(), points });
    for (fabric, kinds) in [("shm", &SHM_PEERS[..]), ("tcp", &TCP_PEERS[..])] {
        for kind in kinds {
            let name = match kind {
                Kind::NixlDefault => "NIXL default",
                Kind::NixlTuned => "NIXL tuned",
                Kind::Mooncake => "Mooncake (tcp)",
                _ => "NIXL",
            };
            let lines = [("write", format!("{name}, write")), ("list", format!("{name}, list"))];
            peer_curves(results, peers, fabric, *kind, &lines, scope);
        }
    }
    let streams = Scope { sizes: within(scope.sizes, IPERF3_BYTES_MAX), rounds: 1 };
    peer_curves(results, peers, "tcp", Kind::Iperf3, &[("stream", "iperf3, one stream".to_owned())], streams);
    Ok(())
}

/// Those of the ascending sizes that are not beyond a limit.
fn within(sizes: &'static [u64], limit_bytes: u64) -> &'static [u64] {
    &sizes[..sizes.partition_point(|bytes| *bytes <= limit_bytes)]
}

impl Scope {
    /// Medians; the first round of each size warms up.
    fn points(self, mut measure: impl FnMut(u64) -> Result<Measurement>) -> Result<Vec<(u64, f64)>> {
        let mut points = Vec::new();
        for bytes in self.sizes {
            let rounds: Result<Vec<_>> =
                (0..=self.rounds).map(|_| measure(*bytes).map(|measured| measured.value)).collect();
            points.push((*bytes, median(&rounds.with_context(|| size_name(*bytes))?[1..])));
        }
        Ok(points)
    }
}

fn ours(results: &mut Results, fabric: Fabric, scope: Scope) -> Result<()> {
    let mut pair = Pair::open(fabric)?;
    let curve = |name: &str, points| Curve { fabric: fabric.name().to_owned(), name: name.to_owned(), points };
    let points = scope.points(|bytes| pair.write_repeated(bytes, writes(bytes)))?;
    results.curve(curve("dmaplane, WRITE", points));
    let mut prepared = Vec::new();
    for bytes in scope.sizes {
        prepared.push((*bytes, pair.scattered_blocks(*bytes, LARGE_BYTES / bytes)?));
    }
    let points = scope.points(|bytes| {
        let blocks = prepared.iter().find(|(size, _)| *size == bytes).context("a list of that size")?;
        pair.write_scattered(&blocks.1)
    })?;
    results.curve(curve("dmaplane, WRITE_LIST", points));
    pair.check()
}

/// A peer's lines: each with the key of its figures, to which the size belongs, and its name.
fn peer_curves(results: &mut Results, peers: &Peers, fabric: &str, kind: Kind, lines: &[(&str, String)], scope: Scope) {
    let mut process = peers.start(kind);
    for (key, name) in lines {
        let measured = match &mut process {
            Ok(process) => scope.points(|bytes| process.measure(&format!("{key}_{bytes}"), "GB/s")),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        match measured {
            Ok(points) => results.curve(Curve { fabric: fabric.to_owned(), name: name.clone(), points }),
            Err(error) => results.fail(&format!("the line {name} of the picture, {fabric}"), &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_as_axes_name_them() {
        assert_eq!([4 << 10, 256 << 10, 1 << 20, 64 << 20].map(size_name), ["4 KiB", "256 KiB", "1 MiB", "64 MiB"]);
    }

    #[test]
    fn every_size_divides_what_is_moved() {
        assert!(SIZES.iter().all(|bytes| LARGE_BYTES.is_multiple_of(*bytes)));
        assert_eq!(writes(64 << 20), 1);
        assert_eq!(within(&SIZES, IPERF3_BYTES_MAX).last(), Some(&IPERF3_BYTES_MAX));
    }
}
